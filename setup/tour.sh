#!/bin/bash
# A short tour on real data: pgbench, a compute killed under load with its folder deleted, a new one with the same rows, a branch,
# a query in the past. Leaves the cluster running and prints how to connect. usage: tour.sh
set -euo pipefail
cd "$(dirname "$0")/.."
bin=$PWD/target/release
strata=$bin/strata
export STRATA_DIR=${STRATA_DIR:-$PWD/.strata}
pg=$("$strata" pg-bindir)
scale=10

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
field() { jq -r "$1"; }
sql() { "$pg/psql" -X -A -t -q -d "$1" -c "$2"; }

if [ ! -f "$STRATA_DIR/registry.json" ]; then
    say "1. A new installation in $STRATA_DIR: object store, three safekeepers, one pageserver"
    "$strata" init
else
    say "1. The installation in $STRATA_DIR"
fi
"$strata" start

say "2. A Postgres on branch main"
if [ "$("$strata" compute show tour --json 2>/dev/null | field .state)" = running ]; then "$strata" compute stop tour; fi
shown=$("$strata" compute start tour --json)
db=$(field .connstr <<<"$shown")
echo "started in $(field .timings_ms.total <<<"$shown") ms: $db"

if [ "$(sql "$db" "SELECT to_regclass('pgbench_history') IS NULL")" = t ]; then
    say "3. pgbench fills its tables (scale $scale)"
    "$pg/pgbench" -i -q -s "$scale" "$db"
else
    say "3. pgbench's tables are there from an earlier tour"
fi

say "4. Eight clients work; after three seconds the Postgres is killed and its folder deleted"
"$pg/pgbench" -n -c 8 -j 2 -T 30 "$db" >"$STRATA_DIR/run/tour.pgbench" 2>&1 &
load=$!
sleep 3
begin=$(date +%s%N)
kill -9 -- "-$(field .pgid <<<"$shown")"
rm -rf "$(dirname "$(field .pgdata <<<"$shown")")"
wait "$load" || true

say "5. Another Postgres goes on from the last acknowledged commit"
shown=$("$strata" compute start tour --json)
db=$(field .connstr <<<"$shown")
echo "back $((($(date +%s%N) - begin) / 1000000)) ms after the kill; it began at $(field .start_lsn <<<"$shown")"
"$pg/psql" -X -d "$db" -c "SELECT (SELECT sum(abalance) FROM pgbench_accounts) AS accounts,
  (SELECT sum(tbalance) FROM pgbench_tellers) AS tellers, (SELECT sum(bbalance) FROM pgbench_branches) AS branches,
  (SELECT sum(delta) FROM pgbench_history) AS history, (SELECT count(*) FROM pgbench_history) AS transactions"

say "6. A branch: its own copy of everything, made without copying"
past=$(sql "$db" "SELECT pg_current_wal_flush_lsn()")
sql "$db" "DELETE FROM pgbench_history"
branch=tour-$(date +%s)
"$strata" branch create "$branch" --at-lsn "$past"

say "7. The past: a Postgres on that branch still has the history that main has just deleted"
shown=$("$strata" compute start "$branch" --branch "$branch" --json)
echo "main has $(sql "$db" 'SELECT count(*) FROM pgbench_history') rows, the branch at $past has $(sql "$(field .connstr <<<"$shown")" 'SELECT count(*) FROM pgbench_history')"
"$strata" compute stop "$branch"

say "The cluster keeps running; 'make stop' stops it, '$strata status' shows it. Connect with:"
echo "$pg/psql '$db'"
