#!/bin/sh
# Fetches the pinned Postgres source (Debian's orig tarball of postgresql-17) into the cache and prints its path.
# Uses the machine's own Debian source entry and archive key with a private apt state: no system file is touched.
# STRATA_PG_SOURCE=<tarball> uses a tarball of yours instead (its checksum must be the pinned one).
# usage: fetch-postgres.sh [--print-sha256]
. "$(dirname -- "$0")/common.sh"
. "$repo/setup/postgres.version"
. "$repo/setup/private-apt.sh"

want_sha=yes
[ "${1:-}" = --print-sha256 ] && want_sha=no

check() { # FILE
    got=$(sha256sum "$1" | cut -d' ' -f1)
    if [ "$want_sha" = no ]; then echo "$got"; exit 0; fi
    [ "$got" = "$sha256" ]
}

if [ -n "${STRATA_PG_SOURCE:-}" ]; then
    [ -f "$STRATA_PG_SOURCE" ] || die "STRATA_PG_SOURCE=$STRATA_PG_SOURCE does not exist"
    check "$STRATA_PG_SOURCE" || die "$STRATA_PG_SOURCE has SHA-256 $got, not the pinned $sha256 of Postgres $version"
    echo "$STRATA_PG_SOURCE"
    exit 0
fi

src=$cache/source
mkdir -p "$src"
tarball=$src/postgresql-17_$version.orig.tar.bz2
if [ -f "$tarball" ] && check "$tarball"; then
    echo "$tarball"
    exit 0
fi

problem=0
private_apt deb-src || problem=$?
case $problem in
    0) ;;
    1) die "no apt-get here: set STRATA_PG_SOURCE to the tarball postgresql-$version.tar.bz2" ;;
    *) die "no Debian archive among the apt sources: set STRATA_PG_SOURCE to the tarball postgresql-$version.tar.bz2" ;;
esac
say "fetching the Postgres $version source"
quietly "$src/fetch.log" aptget update
package=$(cd "$apt" && aptget source --print-uris --only-source postgresql-17 2>/dev/null | sed -n "s/^'\([^']*\)' \([^ ]*orig\.tar\.bz2\) .*/\2/p" | tail -n 1)
[ "$package" = "postgresql-17_$version.orig.tar.bz2" ] || say "the archive offers ${package:-nothing}, asking for $version by number"
get() { cd "$apt" && { aptget source --download-only --only-source "postgresql-17" || return 1; }; }
quietly "$src/fetch.log" get
[ -f "$apt/postgresql-17_$version.orig.tar.bz2" ] || die "the archive has no postgresql-17 $version (it offers ${package:-nothing}): set STRATA_PG_SOURCE, or move setup/postgres.version to the offered minor"
check "$apt/postgresql-17_$version.orig.tar.bz2" || die "the fetched tarball has SHA-256 $got, not the pinned $sha256"
mv "$apt/postgresql-17_$version.orig.tar.bz2" "$tarball"
echo "$tarball"
