#!/bin/bash
# Prints for each patch the changed lines (moved lines not counted, nor blank ones and comments' frames) and the hooks it adds.
# The budget is four hooks and 300 changed lines over all patches of a Postgres major.
set -euo pipefail
cd "$(dirname "$0")"
total=0 hooks=0
for patch in */*.patch; do
    added=$(mktemp) removed=$(mktemp)
    sed -n 's/^+\([^+].*\)$/\1/p' "$patch" | sort >"$added"
    sed -n 's/^-\([^-].*\)$/\1/p' "$patch" | sort >"$removed"
    new=$(comm -23 "$added" "$removed" | wc -l)
    gone=$(comm -13 "$added" "$removed" | wc -l)
    hook=$(grep -c '^+extern PGDLLIMPORT .*_hook;' "$patch" || true)
    rm -f "$added" "$removed"
    printf '%-45s +%d -%d lines, %d hook\n' "$patch" "$new" "$gone" "$hook"
    total=$((total + new + gone)) hooks=$((hooks + hook))
done
printf 'total: %d changed lines of 300, %d hooks of 4\n' "$total" "$hooks"
[ "$total" -le 300 ] && [ "$hooks" -le 4 ]
