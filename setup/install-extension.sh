#!/bin/sh
# Lays down an immutable Postgres tree with the built extension in it, keyed by the hashes of both, and prints its folder.
# A rebuilt extension gets a new folder, so that running servers never change under their users.
# The Postgres is Strata's own build (patched), the same source unpatched (vanilla), or Debian's binary (debian): one library fits all.
# usage: install-extension.sh LIBRARY [patched|vanilla|debian]   (LIBRARY: the built libstrata.so)
. "$(dirname -- "$0")/common.sh"

library=${1:?usage: install-extension.sh LIBRARY [patched|vanilla|debian]}
flavour=${2:-patched}
[ -f "$library" ] || die "$library does not exist: run 'make build' first"
extension=$(cat "$library" "$repo"/pg_ext/strata.control "$repo"/pg_ext/sql/*.sql "$0" | sha256sum | cut -c1-16)

# Where things lie below a tree, and what it is made from.
case $flavour in
    patched | vanilla)
        postgres=$("$repo/setup/build-postgres.sh" "$flavour")
        origin=$postgres/install name=$(basename "$postgres") below=. share=share ;;
    debian)
        # The built tree is for its source only: pg_regress and the like.
        postgres=$("$repo/setup/build-postgres.sh" vanilla)
        origin=$("$repo/setup/fetch-debian-postgres.sh")
        name=debian-$(basename "$origin") below=usr/lib/postgresql/17 share=usr/share/postgresql/17 ;;
    *) die "unknown flavour '$flavour': patched, vanilla or debian" ;;
esac

# Debian's programs want the C library that they were built for: each becomes a script that starts it by the loader beside it. A
# variable for the loader would reach the programs that these start.
wrap_programs() { # ROOT
    loader=$(find "$1/usr/lib" -name 'ld-linux-x86-64.so.2' | head -n 1)
    [ -n "$loader" ] || die "the unpacked Debian tree has no loader"
    mv "$1/$below/bin" "$1/$below/programs"
    mkdir "$1/$below/bin"
    for program in "$1/$below/programs"/*; do
        base=$(basename "$program")
        cat >"$1/$below/bin/$base" <<END
#!/bin/sh
here=\$(CDPATH='' cd -- "\$(dirname -- "\$0")/.." && pwd -P)
root=\${here%/$below}
exec "\$root/${loader#"$1"/}" --library-path "\$root/$(dirname "${loader#"$1"/}")" --argv0 "\$here/bin/$base" "\$here/programs/$base" "\$@"
END
        chmod a+rx "$1/$below/bin/$base"
    done
}

root=$cache/pair/$name-$extension
if [ ! -f "$root/complete" ]; then
    mkdir -p "$cache/pair"
    new=$(mktemp -d "$cache/pair/new.XXXXXX")
    cp -al "$origin/." "$new/"
    rm -f "$new/complete"
    [ "$flavour" != debian ] || wrap_programs "$new"
    cp "$library" "$new/$below/lib/strata.so"
    cp "$repo"/pg_ext/strata.control "$repo"/pg_ext/sql/*.sql "$new/$share/extension/"
    ln -s "$postgres/src" "$new/$below/src"
    chmod -R a+rX "$new/$below/lib" "$new/$share"
    chmod a+rx "$new" "$cache/pair"
    touch "$new/complete"
    # Two set-ups at once make the same tree: the first to rename wins.
    mv -T "$new" "$root" 2>/dev/null || rm -rf "$new"
fi
[ -f "$root/complete" ] || die "could not make $root"
if [ "$below" = . ]; then echo "$root"; else echo "$root/$below"; fi
