# Shared by the set-up scripts: where things are cached, who runs Postgres, how progress is shown.
# Sourced, never run. Sets: repo, cache, run_as.

set -eu
repo=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)

if [ -n "${STRATA_CACHE:-}" ]; then
    cache=$STRATA_CACHE
elif [ "$(id -u)" = 0 ]; then
    cache=/var/cache/strata
else
    cache=$HOME/.cache/strata
fi

say() { printf '\033[1m==>\033[0m %s\n' "$*" >&2; }
die() { printf 'strata set-up: %s\n' "$*" >&2; exit 1; }

# The user that Postgres runs as: never root.
if [ "$(id -u)" = 0 ]; then
    run_as=${STRATA_RUN_AS:-strata}
else
    run_as=$(id -un)
fi

# quietly LOG COMMAND…: runs it with output in LOG, shows a sign of life every 10 s and the log's end on failure.
quietly() {
    log=$1
    shift
    "$@" >"$log" 2>&1 </dev/null &
    child=$!
    waited=0
    while kill -0 "$child" 2>/dev/null; do
        sleep 1
        waited=$((waited + 1))
        [ $((waited % 10)) = 0 ] && printf '    … %ss, %s\n' "$waited" "$(tail -n 1 "$log" | cut -c1-100)" >&2
    done
    wait "$child" && return 0
    tail -n 30 "$log" >&2
    die "'$*' failed; the whole log is $log"
}
