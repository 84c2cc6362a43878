#!/bin/sh
# Installs the Debian packages that building Postgres and the workspace needs, and the user that Postgres runs as.
# As root, or as a user with sudo; without sudo it prints the line to run and stops.
. "$(dirname -- "$0")/common.sh"

packages="gcc g++ make patch bzip2 bison flex pkg-config libclang-dev libreadline-dev zlib1g-dev libssl-dev libicu-dev
          liblz4-dev libzstd-dev libperl-dev libipc-run-perl jq"
missing=
for p in $packages; do
    dpkg-query -W -f='${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || missing="$missing $p"
done
user_missing=
if [ "$(id -u)" = 0 ] && ! id "$run_as" >/dev/null 2>&1; then user_missing=yes; fi
[ -n "$missing$user_missing" ] || exit 0

if [ "$(id -u)" = 0 ]; then sudo=; else sudo=sudo; fi
if [ -n "$missing" ]; then
    line="apt-get install -y --no-install-recommends$missing"
    [ -z "$sudo" ] || sudo -n true 2>/dev/null || command -v sudo >/dev/null || die "packages are missing and there is no sudo; run as root: $line"
    say "installing packages:$missing"
    mkdir -p "$cache"
    quietly "$cache/apt-update.log" $sudo apt-get update
    # shellcheck disable=SC2086
    quietly "$cache/apt-install.log" $sudo env DEBIAN_FRONTEND=noninteractive $line
fi
if [ -n "$user_missing" ]; then
    say "creating the system user $run_as, which Postgres runs as"
    useradd --system --user-group --home-dir "$cache" --no-create-home --shell /usr/sbin/nologin "$run_as"
fi
