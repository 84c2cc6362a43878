#!/bin/bash
# Says which code of redo/ the oracle's workload reaches: builds the oracle with instrumentation, runs it, and lists per file what was covered
# and every line that holds a region or a branch that was not.
# usage: coverage.sh [--full]; LLVM_BIN is the folder of llvm-profdata and llvm-cov of the LLVM that rustc has (`rustc -vV` names it).
set -euo pipefail
cd "$(dirname "$0")/../.."
: "${STRATA_TEST_PG_BIN:?the bin folder of Postgres}"
llvm=${LLVM_BIN:+$LLVM_BIN/}
wanted=$(rustc -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')
found=$("${llvm}llvm-profdata" --version | sed -n 's/.*LLVM version \([0-9]*\).*/\1/p')
if [ "$wanted" != "$found" ]; then
    echo "rustc has LLVM $wanted, llvm-profdata is of LLVM $found: set LLVM_BIN" >&2
    exit 1
fi
target=target/redo-coverage
profiles=$(mktemp -d)
trap 'rm -rf "$profiles"' EXIT
# Branch counts are unstable in rustc; they change no code of the crates.
export LLVM_PROFILE_FILE="$profiles/build-%p" # build scripts are instrumented too
RUSTC_BOOTSTRAP=1 RUSTFLAGS="-C instrument-coverage -Z coverage-options=branch" \
    cargo build --release --target-dir "$target" -p strata-regress --bin redo-oracle
LLVM_PROFILE_FILE="$profiles/%p.profraw" "$target/release/redo-oracle" "$@" >/dev/null
"${llvm}llvm-profdata" merge -sparse "$profiles"/*.profraw -o "$profiles/all.profdata"
cov() { "${llvm}llvm-cov" "$@" "$target/release/redo-oracle" -instr-profile="$profiles/all.profdata" redo/src; }
cov report --show-branch-summary --show-region-summary=true
echo
echo "not reached:"
cov export --format=lcov |
    awk -F'[:,]' '/^SF:/ { sub(".*/redo/src/", "", $2); file = $2 }
        /^DA:/ && $3 == 0 { print file ":" $2 " line" }
        /^BRDA:/ && ($5 == "0" || $5 == "-") { print file ":" $2 " branch " $4 }' |
    sort -t: -k1,1 -k2,2n -u
