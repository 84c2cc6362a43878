#!/bin/sh
# Builds the pinned Postgres into the cache, keyed by the hash of source, patches and options, and prints its folder:
#   FOLDER/install  the installed tree, contrib included       FOLDER/src  the built source tree (pg_regress, isolation)
# usage: build-postgres.sh [patched|vanilla]
. "$(dirname -- "$0")/common.sh"
. "$repo/setup/postgres.version"

flavour=${1:-patched}
case $flavour in
    patched) patches=$(find "$repo/patches/17" -name '*.patch' | sort) ;;
    vanilla) patches= ;;
    *) die "unknown flavour '$flavour': patched or vanilla" ;;
esac
options="--enable-depend --with-openssl --with-icu --with-lz4 --with-zstd --with-perl CFLAGS=-O2"
# shellcheck disable=SC2086  # a list of paths without spaces
key=$( { echo "$version $sha256 $options"; [ -z "$patches" ] || cat $patches; } | sha256sum | cut -c1-16)
tree=$cache/postgres/$key
if [ -f "$tree/complete" ]; then
    echo "$tree"
    exit 0
fi

mkdir -p "$cache/postgres"
exec 9>"$cache/postgres/$key.lock"
flock 9
if [ ! -f "$tree/complete" ]; then
    tarball=$("$repo/setup/fetch-postgres.sh")
    say "building Postgres $version ($flavour) in $tree: about three minutes on two cores"
    rm -rf "$tree"
    mkdir -p "$tree/src"
    tar xf "$tarball" -C "$tree/src" --strip-components=1
    for p in $patches; do
        patch -d "$tree/src" -p1 -s -N <"$p" >"$tree/patch.log" 2>&1 || die "$p does not apply: see $tree/patch.log"
    done
    cd "$tree/src"
    # Below another make, Postgres's own takes itself for a part of a build and leaves out its generated headers.
    unset MAKEFLAGS MFLAGS MAKELEVEL
    # shellcheck disable=SC2086
    quietly "$tree/configure.log" ./configure --prefix="$tree/install" $options
    jobs=$(nproc)
    quietly "$tree/make.log" make -s -j"$jobs" world-bin
    quietly "$tree/install.log" make -s install-world-bin
    quietly "$tree/tests.log" make -s -j"$jobs" -C src/test/regress all
    quietly "$tree/tests.log" make -s -j"$jobs" -C src/test/isolation all
    [ "$(id -u)" != 0 ] || chown -R "$run_as" "$tree/src/src/test" "$tree/src/contrib"
    chmod a+rx "$tree" "$cache" "$cache/postgres"
    touch "$tree/complete"
fi
echo "$tree"
