#!/bin/sh
# Unpacks Debian's own binary of Postgres 17 with every library that it needs, its C library too, into the cache and prints the folder:
#   FOLDER/usr/lib/postgresql/17/bin …   as Debian lays it out
# so that it runs on releases of Debian that are older than it: each program is started by the loader that lies beside it. Nothing is
# installed: apt has a private state, packages are only unpacked. About 75 MB are fetched. usage: fetch-debian-postgres.sh
. "$(dirname -- "$0")/common.sh"
. "$repo/setup/postgres.version"
. "$repo/setup/private-apt.sh"

newest=$(find "$cache/debian" -mindepth 2 -maxdepth 2 -name complete -path "*/$version-*" 2>/dev/null | sort | tail -n 1)
if [ -n "$newest" ]; then
    dirname "$newest"
    exit 0
fi
[ "$(dpkg --print-architecture)" = amd64 ] || die "Debian's binary of Postgres is used on amd64 only"
private_apt deb || die "no Debian archive here to fetch Postgres's binary from"
mkdir -p "$cache/debian"
log=$cache/debian/fetch.log
say "fetching Debian's binary of Postgres 17 and its libraries"
quietly "$log" aptget update
# The pinned minor if the archive still has it, else the one that it has: the storage manager's table is verified at each start.
found=$(aptcache madison postgresql-17 | tr -d ' ' | cut -d'|' -f2 | sort -u)
package_version=$(echo "$found" | grep -F "$version-" | head -n 1)
[ -n "$package_version" ] || package_version=$(echo "$found" | head -n 1)
[ -n "$package_version" ] || die "the archive has no postgresql-17"
tree=$cache/debian/$package_version
if [ ! -f "$tree/complete" ]; then
    # Everything that the two packages need, libraries only: perl, locales and the like are for Debian's cluster tools.
    wanted=$(aptget install -y --no-install-recommends --print-uris "postgresql-17=$package_version" "postgresql-client-17=$package_version" |
        sed -n "s/^'[^']*' \([^_]*\)_.*/\1/p" | grep -E '^(lib|zlib1g$)' | grep -v -E 'perl|^libpam-modules')
    # shellcheck disable=SC2086  # names of packages
    get() { cd "$apt/archives" && aptget download "postgresql-17=$package_version" "postgresql-client-17=$package_version" $wanted; }
    quietly "$log" get
    new=$(mktemp -d "$cache/debian/new.XXXXXX")
    for deb in "$apt"/archives/*.deb; do dpkg-deb -x "$deb" "$new" || die "cannot unpack $deb"; done
    rm -rf "$new/usr/share/doc" "$new/usr/share/man" "$new/etc"
    chmod a+rx "$new" "$cache" "$cache/debian"
    touch "$new/complete"
    mv -T "$new" "$tree" 2>/dev/null || rm -rf "$new"
fi
[ -f "$tree/complete" ] || die "could not make $tree"
echo "$tree"
