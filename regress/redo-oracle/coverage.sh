#!/bin/bash
# Says which code of redo/ the oracle's workload reaches, and which its unit tests reach beside it: builds both with instrumentation, runs
# them, and compares with docs/redo-branches.md, which must give a reason for what is left. About six minutes on two idle cores, the small
# size. What it measured stays in target/redo-coverage.
# usage: coverage.sh [--write] [--full]; --write writes the page's figures and rows, --full takes the oracle's full size.
# LLVM's programs come from setup/fetch-llvm.sh.
set -euo pipefail
cd "$(dirname "$0")/../.."
write=() size=()
for argument in "$@"; do
    case $argument in
        --write) write=(--write) ;;
        --full) size=(--full) ;;
        *) echo "usage: coverage.sh [--write] [--full]" >&2 && exit 1 ;;
    esac
done
llvm=$(setup/fetch-llvm.sh)
: "${STRATA_TEST_PG_BIN:=$(setup/build-postgres.sh patched)/install/bin}"
export STRATA_TEST_PG_BIN
target=target/redo-coverage
profiles=$(mktemp -d)
trap 'rm -rf "$profiles"' EXIT
# Only the workspace's own crates are instrumented. Outcomes of conditions are unstable in rustc; they change no code.
cat >"$profiles/rustc" <<'SCRIPT'
#!/bin/sh
export RUSTC_BOOTSTRAP=1
exec "$@" -C instrument-coverage -Z coverage-options=branch
SCRIPT
chmod +x "$profiles/rustc"
# One path for each build, or cargo would build anew each time.
mkdir -p "$target"
mv "$profiles/rustc" "$target/rustc"
export RUSTC_WORKSPACE_WRAPPER=$PWD/$target/rustc
export LLVM_PROFILE_FILE="$profiles/build-%p" # build scripts are instrumented too
cargo build --release --target-dir "$target" -p strata-regress --bin redo-oracle
tests=$(cargo test --release --target-dir "$target" -p strata-redo --lib --no-run --message-format=json |
    sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -n 1)
unset RUSTC_WORKSPACE_WRAPPER
LLVM_PROFILE_FILE="$profiles/tests.profraw" "$tests" --quiet >"$profiles/tests.log" || { cat "$profiles/tests.log" && exit 1; }
LLVM_PROFILE_FILE="$profiles/corpus.profraw" "$target/release/redo-oracle" ${size[@]+"${size[@]}"} >"$profiles/corpus.log" ||
    { cat "$profiles/corpus.log" && exit 1; }
export_counts() { # NAME PROGRAM
    "$llvm/llvm-profdata" merge -sparse "$profiles/$1.profraw" -o "$profiles/$1.profdata"
    "$llvm/llvm-cov" export "$2" -instr-profile="$profiles/$1.profdata" redo/src >"$target/$1.json"
}
export_counts corpus "$target/release/redo-oracle"
export_counts tests "$tests"
unset LLVM_PROFILE_FILE
cargo run --release --quiet -p strata-regress --bin redo-branches -- "$target/corpus.json" "$target/tests.json" ${write[@]+"${write[@]}"}
