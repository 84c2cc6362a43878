#!/bin/sh
# Prints a folder that has llvm-profdata and llvm-cov of the LLVM that rustc has: they must be of one version, or they cannot read the
# profiles. Looks at LLVM_BIN, rustup's component llvm-tools, and LLVM as Debian installs it; else fetches Debian's package into the cache
# with the machine's own apt lists. No package is installed.
# usage: fetch-llvm.sh
. "$(dirname -- "$0")/common.sh"

wanted=$(rustc -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')
[ -n "$wanted" ] || die "rustc does not say which LLVM it has (rustc -vV)"

fits() { # FOLDER
    [ -x "$1/llvm-profdata" ] && [ -x "$1/llvm-cov" ] || return 1
    [ "$("$1/llvm-cov" --version 2>/dev/null | sed -n 's/.*LLVM version \([0-9]*\).*/\1/p')" = "$wanted" ]
}

if [ -n "${LLVM_BIN:-}" ]; then
    fits "$LLVM_BIN" || die "LLVM_BIN=$LLVM_BIN has no llvm-profdata and llvm-cov of LLVM $wanted, which rustc has"
    echo "$LLVM_BIN"
    exit 0
fi
host=$(rustc -vV | sed -n 's/^host: //p')
tree=$cache/llvm-$wanted
for folder in "$(rustc --print sysroot)/lib/rustlib/$host/bin" "/usr/lib/llvm-$wanted/bin" "$tree/bin"; do
    if fits "$folder"; then
        echo "$folder"
        exit 0
    fi
done

advice="run 'rustup component add llvm-tools', install llvm-$wanted, or set LLVM_BIN to the folder of llvm-profdata and llvm-cov $wanted"
command -v apt-get >/dev/null || die "no LLVM $wanted here: $advice"
mkdir -p "$cache"
new=$(mktemp -d "$cache/llvm.XXXXXX")
trap 'rm -rf "$new"' EXIT
mkdir "$new/debs" "$new/bin"
say "fetching llvm-profdata and llvm-cov of LLVM $wanted"
get() { (cd "$new/debs" && apt-get -o APT::Sandbox::User="$(id -un)" download "llvm-$wanted" "libllvm$wanted"); }
get >"$cache/llvm.log" 2>&1 || die "Debian's archive as this machine knows it has no llvm-$wanted (see $cache/llvm.log; 'apt-get update' may help): $advice"
for deb in "$new"/debs/*.deb; do dpkg-deb -x "$deb" "$new/root" || die "cannot unpack $deb"; done
rm -rf "$new/debs"
# The programs look for their library where Debian would have installed it: a script says where it is.
for program in llvm-profdata llvm-cov; do
    cat >"$new/bin/$program" <<SCRIPT
#!/bin/sh
here=\$(CDPATH='' cd -- "\$(dirname -- "\$0")/.." && pwd -P)
for lib in "\$here"/root/usr/lib/*-linux-gnu*; do break; done
LD_LIBRARY_PATH=\$lib\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH} exec "\$here/root/usr/lib/llvm-$wanted/bin/$program" "\$@"
SCRIPT
    chmod a+rx "$new/bin/$program"
done
fits "$new/bin" || die "Debian's llvm-$wanted does not run here, a library may be missing: $("$new/bin/llvm-cov" --version 2>&1 | head -n 1); $advice"
chmod a+rx "$new"
mv -T "$new" "$tree" 2>/dev/null || fits "$tree/bin" || die "could not make $tree"
echo "$tree/bin"
