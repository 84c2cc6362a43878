#!/bin/bash
# Runs every suite in its small size (`make test`) or full size (`make soak`) and prints what each took against its budget.
# A budget is for people to watch, and an overrun is said; a suite never fails on time. With the builds of tests and of the programs without
# guards, on two cores with nothing else: half an hour of tests and twelve minutes of builds in all.
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
# What Postgres's own suites came to, a file for each suite of ours that ran some: the table of docs/suites.md is made from them.
# A file is called .new until its suite has passed: what one that failed or broke off has written is no part of a later run.
rows=$PWD/target/suites-$size
mkdir -p "$rows"
rm -f "$rows"/*.new
[ $# -gt 0 ] || rm -f "$rows"/* "$rows.md"

names=() budgets=() commands=()
suite() { names+=("$1") budgets+=("$2") commands+=("$3"); }
#     name         budget s  command
suite crates $([ "$size" = small ] && echo 1260 || echo 7200) "cargo test --release --workspace --no-fail-fast$([ "$size" = small ] || echo " -- --nocapture")"
core="cargo test --release -p strata-regress --test core_suites --"
suite core-suites  $([ "$size" = small ] && echo 330 || echo 3600) "$core$([ "$size" = small ] || echo " --include-ignored --nocapture")"
suite traps        600       "setup/build-guards-off.sh && STRATA_TEST_PROGRAMS=\$PWD/target/guards-off/release STRATA_TEST_PG_BIN=\$(cat target/guards-off/release/postgres-tree)/bin STRATA_TEST_GUARDS=off cargo test --release -p strata-regress --test traps -- --nocapture && cargo test --release -p strata-common -p strata-pgwal -p strata-redo -p strata-smgr -p strata-pageserver --lib --features strata-common/guards-off --target-dir target/guards-off -- trap_"
suite sim-mutants  120       "cargo test --release -p strata-sim --features mutants --test mutants --test wiped"
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
failed=() late=() passed=0 report=()
for i in "${!names[@]}"; do
    name=${names[$i]}
    if [ $# -gt 0 ] && [[ " $* " != *" $name "* ]]; then continue; fi
    budget=${budgets[$i]}
    printf '\033[1m==> suite %s, budget %d s\033[0m\n' "$name" "$budget"
    begin=$SECONDS
    rm -f "$rows/$name"
    if STRATA_SUITES_ROWS=$rows/$name.new bash -c "${commands[$i]}"; then
        passed=$((passed + 1))
        [ ! -f "$rows/$name.new" ] || mv "$rows/$name.new" "$rows/$name"
    else
        failed+=("$name")
    fi
    took=$((SECONDS - begin)) over=
    if [ $took -gt "$budget" ]; then
        over="  OVER BUDGET by $((took - budget)) s"
        late+=("$name")
    fi
    report+=("$(printf '%-14s %5d s of %5d s%s' "$name" "$took" "$budget" "$over")")
done
written=("$rows"/*)
[ ! -e "${written[0]}" ] || regress/suites-table.sh "${written[@]}" >"$rows.md"
printf '%s\n' "${report[@]}"
for name in "${failed[@]}"; do echo "suite $name failed"; done
echo "suites: $passed passed, ${#failed[@]} failed, ${#late[@]} over budget"
[ ${#failed[@]} = 0 ]
