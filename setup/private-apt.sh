# Shared by the set-up scripts that fetch from Debian's archive: apt with a state of its own below the cache, so that no system file
# is touched. Uses the machine's own Debian archive and its key, and the release that has the pinned Postgres.
# Sourced after common.sh, never run. private_apt KIND makes the state (KIND: deb-src or deb; sets: apt); aptget and aptcache use it.

private_apt() {
    command -v apt-get >/dev/null || return 1
    # The address of the configured Debian archive (deb822 or one-line format), security and updates entries left out.
    uri=$( { cat /etc/apt/sources.list.d/*.sources 2>/dev/null | sed -n 's/^URIs:[[:space:]]*//p'
             cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null | sed -n 's/^deb[[:space:]]\+\(\[[^]]*\][[:space:]]*\)\?\([^[:space:]]*\).*/\2/p'
           } | tr ' ' '\n' | grep -E '/debian/?$' | head -n 1 )
    [ -n "$uri" ] || return 2
    mkdir -p "$cache/source"
    apt=$(mktemp -d "$cache/source/apt.XXXXXX")
    trap 'rm -rf "$apt"' EXIT
    mkdir -p "$apt/sources" "$apt/lists/partial" "$apt/archives/partial"
    : >"$apt/status"
    for suite in trixie trixie-updates; do
        printf 'Types: %s\nURIs: %s\nSuites: %s\nComponents: main\nSigned-By: %s\n\n' "$1" "$uri" "$suite" /usr/share/keyrings/debian-archive-keyring.gpg
    done >"$apt/sources/strata.sources"
}

with_private_state() { # PROGRAM ARGUMENT…
    program=$1
    shift
    "$program" -o Dir::Etc::sourcelist=/dev/null -o "Dir::Etc::sourceparts=$apt/sources" -o "Dir::State=$apt" \
        -o "Dir::State::lists=$apt/lists" -o "Dir::State::status=$apt/status" -o "Dir::Cache=$apt" \
        -o APT::Sandbox::User="$(id -un)" -o Acquire::Languages=none "$@"
}
aptget() { with_private_state apt-get "$@"; }
aptcache() { with_private_state apt-cache "$@"; }
