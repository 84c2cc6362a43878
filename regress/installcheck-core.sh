#!/bin/bash
# Runs one of Postgres's own suites with its own driver against a running server, given by PGHOST and PGPORT: `make installcheck-core`.
# Its result files go to the output folder, its TAP lines to standard output; a failed test's difference is in regression.diffs there.
# STRATA_SUITE_SESSIONS=1 runs one test at a time: with very few buffers more sessions would pin them all.
# usage: installcheck-core.sh [core|isolation|plpgsql|plperl|contrib/MODULE|contrib/MODULE:isolation [OUTPUT_FOLDER]]
. "$(dirname -- "$0")/../setup/common.sh"
: "${PGHOST:?set PGHOST and PGPORT to a running compute: 'strata compute show NAME' prints them}" "${PGPORT:?set PGPORT, too}"
export PGUSER=${PGUSER:-postgres}
suite=${1:-core}
output=${2:-$(mktemp -d)}
# The server's tree: its client programs, and the built source that the suites come from.
tree=${STRATA_PG_TREE:-$(cat "$repo/target/release/postgres-tree")}
src=$tree/src

# The driver runs as the server's user: the server writes files of its own into the output folder.
mkdir -p "$output/testtablespace"
unprivileged=
if [ "$(id -u)" = 0 ]; then
    chown -R "$run_as" "$output"
    unprivileged="setpriv --reuid $run_as --regid $run_as --clear-groups"
fi

# variable FOLDER NAME: what a makefile of Postgres sets it to, without the options that only a temporary server could obey.
variable() {
    env -u MAKEFLAGS -u MFLAGS -u MAKELEVEL make -s --no-print-directory -C "$1" \
        --eval="strata-show: ; @echo \$($2)" strata-show | tr ' ' '\n' |
        grep -v -e '^--dbname' -e '^--dlpath' -e '^--temp-config' -e '^/' -e '\.conf$' | tr '\n' ' '
}

driver=$src/src/test/regress/pg_regress
sessions=${STRATA_SUITE_SESSIONS:-0}
case $suite in
    core)
        input=$src/src/test/regress
        arguments="--schedule=$input/parallel_schedule --max-concurrent-tests=20 --max-connections=$sessions"
        ;;
    isolation)
        input=$src/src/test/isolation
        driver=$input/pg_isolation_regress
        arguments="--schedule=$input/isolation_schedule"
        ;;
    plpgsql)
        input=$src/src/pl/plpgsql/src
        arguments="--dbname=pl_regression $(variable "$input" REGRESS)"
        ;;
    plperl)
        input=$src/src/pl/plperl
        arguments="--dbname=pl_regression $(variable "$input" REGRESS_OPTS) $(variable "$input" REGRESS)"
        ;;
    contrib/*:isolation)
        input=$src/${suite%:isolation}
        driver=$src/src/test/isolation/pg_isolation_regress
        arguments="--dbname=contrib_regression $(variable "$input" ISOLATION_OPTS) $(variable "$input" ISOLATION)"
        ;;
    contrib/*)
        input=$src/$suite
        arguments="--dbname=contrib_regression $(variable "$input" REGRESS_OPTS) $(variable "$input" REGRESS)"
        ;;
    *) die "there is no suite '$suite'" ;;
esac
# Tests read their data by paths relative to this folder.
cd "$input"
# shellcheck disable=SC2086  # lists of words
exec $unprivileged env HOME=/tmp "$driver" --bindir="$tree/bin" --inputdir="$input" --outputdir="$output" \
    --dlpath="$src/src/test/regress" $arguments
