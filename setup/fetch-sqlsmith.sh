#!/bin/sh
# Unpacks Debian's sqlsmith, a generator of random queries, with every library that it needs into the cache and prints the path of a
# script that starts it by the loader that lies beside it. Nothing is installed: apt has a private state, packages are only unpacked.
# About 20 MB are fetched. usage: fetch-sqlsmith.sh
. "$(dirname -- "$0")/common.sh"
. "$repo/setup/private-apt.sh"

found=$(find "$cache/sqlsmith" -mindepth 2 -maxdepth 2 -name sqlsmith 2>/dev/null | sort | tail -n 1)
if [ -n "$found" ]; then
    echo "$found"
    exit 0
fi
[ "$(dpkg --print-architecture)" = amd64 ] || die "sqlsmith is used on amd64 only"
private_apt deb || die "no Debian archive here to fetch sqlsmith from"
mkdir -p "$cache/sqlsmith"
log=$cache/sqlsmith/fetch.log
say "fetching sqlsmith and its libraries"
quietly "$log" aptget update
version=$(aptcache madison sqlsmith | tr -d ' ' | cut -d'|' -f2 | head -n 1)
[ -n "$version" ] || die "the archive has no sqlsmith"
tree=$cache/sqlsmith/$version
wanted=$(aptget install -y --no-install-recommends --print-uris "sqlsmith=$version" |
    sed -n "s/^'[^']*' \([^_]*\)_.*/\1/p" | grep -E '^(lib|zlib1g$|sqlsmith$)')
# shellcheck disable=SC2086  # names of packages
get() { cd "$apt/archives" && aptget download $wanted; }
quietly "$log" get
new=$(mktemp -d "$cache/sqlsmith/new.XXXXXX")
for deb in "$apt"/archives/*.deb; do dpkg-deb -x "$deb" "$new" || die "cannot unpack $deb"; done
rm -rf "$new/usr/share" "$new/etc"
loader=$(find "$new/usr/lib" -name 'ld-linux-x86-64.so.2' | head -n 1)
[ -n "$loader" ] || die "the unpacked tree has no loader"
loader=${loader#"$new"/}
cat >"$new/sqlsmith" <<END
#!/bin/sh
here=\$(CDPATH='' cd -- "\$(dirname -- "\$0")" && pwd -P)
exec "\$here/$loader" --library-path "\$here/$(dirname "$loader")" "\$here/usr/bin/sqlsmith" "\$@"
END
chmod a+rx "$new/sqlsmith" "$new" "$cache" "$cache/sqlsmith"
# Two at once make the same tree: the first to rename wins.
mv -T "$new" "$tree" 2>/dev/null || rm -rf "$new"
[ -x "$tree/sqlsmith" ] || die "could not make $tree"
echo "$tree/sqlsmith"
