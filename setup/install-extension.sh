#!/bin/sh
# Lays down an immutable Postgres tree with the built extension in it, keyed by the hashes of both, and prints its folder.
# A rebuilt extension gets a new folder, so that running servers never change under their users.
# usage: install-extension.sh LIBRARY (the built libstrata.so)
. "$(dirname -- "$0")/common.sh"

library=${1:?usage: install-extension.sh LIBRARY}
[ -f "$library" ] || die "$library does not exist: run 'make build' first"
postgres=$("$repo/setup/build-postgres.sh")
key=$(cat "$library" "$repo"/pg_ext/strata.control "$repo"/pg_ext/sql/*.sql | sha256sum | cut -c1-16)
tree=$cache/pair/$(basename "$postgres")-$key
if [ ! -f "$tree/complete" ]; then
    mkdir -p "$cache/pair"
    new=$(mktemp -d "$cache/pair/new.XXXXXX")
    cp -al "$postgres/install/." "$new/"
    cp "$library" "$new/lib/strata.so"
    cp "$repo"/pg_ext/strata.control "$repo"/pg_ext/sql/*.sql "$new/share/extension/"
    ln -s "$postgres/src" "$new/src"
    chmod -R a+rX "$new/lib" "$new/share"
    chmod a+rx "$new" "$cache/pair"
    touch "$new/complete"
    # Two set-ups at once make the same tree: the first to rename wins.
    mv -T "$new" "$tree" 2>/dev/null || rm -rf "$new"
fi
[ -f "$tree/complete" ] || die "could not make $tree"
echo "$tree"
