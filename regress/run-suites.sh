#!/bin/bash
# Runs every suite in its small size (`make test`) or full size (`make soak`) and prints what each took against its budget.
# A budget is for people to watch; a suite never fails on time.
# usage: run-suites.sh small|full [SUITE …]
set -euo pipefail
cd "$(dirname "$0")/.."
size=${1:?usage: run-suites.sh small|full [SUITE …]}
shift
pair=$(setup/install-extension.sh target/release/libstrata.so)
export STRATA_TEST_PG_BIN=$pair/bin STRATA_TEST_SIZE=$size
# Servers without the patch are made here, so that no suite's time has them in it.
stock=$(setup/install-extension.sh target/release/libstrata.so vanilla)
debian=
[ -n "${STRATA_PG_SOURCE:-}" ] || debian=$(setup/install-extension.sh target/release/libstrata.so debian)
# What Postgres's own suites came to: the table of docs/suites.md is made from it.
export STRATA_SUITES_ROWS=$PWD/target/suites-$size.rows
[ $# -gt 0 ] || rm -f "$STRATA_SUITES_ROWS"

names=() budgets=() commands=()
suite() { names+=("$1") budgets+=("$2") commands+=("$3"); }
#     name         budget s  command
suite crates $([ "$size" = small ] && echo 900 || echo 7200) "cargo test --release --workspace --no-fail-fast$([ "$size" = small ] || echo " -- --nocapture")"
core="cargo test --release -p strata-regress --test core_suites --"
suite core-suites  $([ "$size" = small ] && echo 480 || echo 3600) "$core$([ "$size" = small ] || echo " --include-ignored --nocapture")"
suite traps        420       "setup/build-guards-off.sh && STRATA_TEST_PROGRAMS=\$PWD/target/guards-off/release STRATA_TEST_PG_BIN=\$(cat target/guards-off/release/postgres-tree)/bin STRATA_TEST_GUARDS=off cargo test --release -p strata-regress --test traps -- --nocapture && cargo test --release -p strata-common -p strata-pgwal -p strata-redo -p strata-smgr -p strata-pageserver --lib --features strata-common/guards-off --target-dir target/guards-off -- trap_"
suite sim-mutants  240       "cargo test --release -p strata-sim --features mutants --test mutants --test wiped"
deeper=
[ "$size" = small ] || deeper=--full
models="cargo run --release --quiet --manifest-path smgr/models/Cargo.toml --target-dir target/models"
suite slot-models  $([ "$size" = small ] && echo 90 || echo 1800) "$models --bin exhaustive -- $deeper && $models --bin random -- $deeper"
if [ "$size" = small ]; then
    suite stock-suites  90  "STRATA_PG_TREE=$stock $core isolation_with_few statement"
else
    suite stock-suites 3600 "STRATA_PG_TREE=$stock $core --include-ignored --nocapture"
    [ -z "$debian" ] || suite debian-suites 3600 "STRATA_PG_TREE=$debian $core --include-ignored --nocapture"
    suite redo-oracle 1800 "cargo run --release -p strata-regress --bin redo-oracle -- --full"
    suite connections 4200 "STRATA_TEST_SECONDS=3600 cargo test --release -p strata-regress --test connections -- --nocapture"
    suite stock   2400       "STRATA_PG_TREE=$stock cargo test --release -p strata-regress --test workloads --test unlogged --test remote_storage --test lost_compute --test random_sql --test sqlsmith -- --nocapture"
fi

for wanted in "$@"; do
    [[ " ${names[*]} " == *" $wanted "* ]] || { echo "there is no suite '$wanted' in size $size: ${names[*]}" >&2; exit 2; }
done
failed=() passed=0 report=()
for i in "${!names[@]}"; do
    name=${names[$i]}
    if [ $# -gt 0 ] && [[ " $* " != *" $name "* ]]; then continue; fi
    printf '\033[1m==> suite %s\033[0m\n' "$name"
    begin=$SECONDS
    if bash -c "${commands[$i]}"; then passed=$((passed + 1)); else failed+=("$name"); fi
    report+=("$(printf '%-14s %5d s of %5d s' "$name" $((SECONDS - begin)) "${budgets[$i]}")")
done
[ ! -f "$STRATA_SUITES_ROWS" ] || regress/suites-table.sh "$STRATA_SUITES_ROWS" >"target/suites-$size.md"
printf '%s\n' "${report[@]}"
for name in "${failed[@]}"; do echo "suite $name failed"; done
echo "suites: $passed passed, ${#failed[@]} failed"
[ ${#failed[@]} = 0 ]
