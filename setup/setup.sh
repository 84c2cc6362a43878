#!/bin/sh
# Makes a machine that has only cargo ready: packages, the Postgres build (cached), and cargo's pointer to it.
# Safe to repeat: a second run takes about a second. usage: setup.sh
. "$(dirname -- "$0")/common.sh"

"$repo/setup/install-packages.sh"
postgres=$("$repo/setup/build-postgres.sh")

# The extension's bindings are generated from this Postgres's headers; the file is written only when it changes,
# because a newer one makes cargo look at everything again.
config=$repo/.cargo/config.toml
wanted=$(printf '# Written by setup/setup.sh.\n[env]\nPGRX_PG_CONFIG_PATH = "%s/install/bin/pg_config"' "$postgres")
mkdir -p "$repo/.cargo"
[ "$(cat "$config" 2>/dev/null)" = "$wanted" ] || printf '%s\n' "$wanted" >"$config"
say "ready: Postgres in $postgres"
