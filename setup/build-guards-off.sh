#!/bin/bash
# Builds the programs and the extension once more with guards that the environment can take away (common/src/guard.rs), into
# target/guards-off, with a Postgres tree for them. For the suite that proves the tests of traps; never for use.
set -euo pipefail
cd "$(dirname "$0")/.."
target=target/guards-off
if [ ! -d "$target/release" ]; then
    # The dependencies are the same: they need not be built twice.
    mkdir -p "$target/release.new"
    cp -a --reflink=auto target/release/{deps,build,.fingerprint} "$target/release.new/"
    mv "$target/release.new" "$target/release"
fi
cargo build --release --workspace --features strata-common/guards-off --target-dir "$target"
setup/install-extension.sh "$target/release/libstrata.so" >"$target/release/postgres-tree.new"
mv "$target/release/postgres-tree.new" "$target/release/postgres-tree"
