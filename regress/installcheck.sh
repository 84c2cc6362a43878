#!/bin/bash
# Runs the extension's SQL tests with Postgres's pg_regress against a running compute, given by PGHOST and PGPORT.
# The differences, if any, are printed. usage: installcheck.sh
set -euo pipefail
cd "$(dirname "$0")"
: "${PGHOST:?set PGHOST and PGPORT to a running compute: 'strata compute show NAME' prints them}" "${PGPORT:?set PGPORT, too}"
export PGUSER=${PGUSER:-postgres}
tree=$(cat ../target/release/postgres-tree)
output=$(mktemp -d)
trap 'rm -rf "$output"' EXIT
status=0
"$tree/src/src/test/regress/pg_regress" --bindir="$tree/bin" --inputdir=. --outputdir="$output" --schedule=schedule \
    --dbname=strata_regression || status=$?
[ ! -s "$output/regression.diffs" ] || cat "$output/regression.diffs"
[ -z "${STRATA_KEEP_RESULTS:-}" ] || cp "$output"/results/*.out "$STRATA_KEEP_RESULTS/"
exit "$status"
