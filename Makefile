# Everything starts here; each target sets up what it needs and can be repeated. See README.md.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.ONESHELL:
.PHONY: help setup build test soak bench lint run stop patch-size installcheck installcheck-core

help:
	@sed -n 's/^#: //p' Makefile

#: make setup       install packages, build Postgres into the cache, point cargo at it
setup:
	@setup/setup.sh

#: make build       setup, then every crate and a Postgres tree with the extension
build: setup
	@cargo build --release --workspace
	setup/install-extension.sh target/release/libstrata.so >target/release/postgres-tree.new
	mv target/release/postgres-tree.new target/release/postgres-tree

#: make test        every test in its small size, with the time that each suite took
test: build
	@regress/run-suites.sh small

#: make run         set up, start a local cluster, take the tour, leave the cluster running
run: build
	@setup/tour.sh

#: make stop        stop the local cluster
stop:
	@target/release/strata stop

#: make installcheck  the extension's SQL tests against the running compute at PGHOST, PGPORT
installcheck:
	@regress/installcheck.sh

#: make installcheck-core  Postgres's core suite against the compute at PGHOST, PGPORT; SUITE=isolation, plpgsql, contrib/… for others
installcheck-core:
	@regress/installcheck-core.sh $${SUITE:-core}

#: make soak        the full sizes and the long searches; SUITES='redo-oracle connections' for some of them
soak: build
	@regress/run-suites.sh full $(SUITES)

#: make bench       side by side with vanilla Postgres; BENCH_ARGS=--long for the long sizes
bench: build
	@vanilla=$$(setup/build-postgres.sh vanilla)
	cargo build --release -p strata-bench
	cargo build --release -p strata-redo --example redo_speed
	cargo build --release -p strata-pageserver --example ingest_speed
	cargo build --release -p strata-smgr --example page_echo
	target/release/strata-bench --vanilla "$$vanilla/install" $(BENCH_ARGS)

#: make lint        formatting, clippy, shell syntax, tidy
lint: setup
	@cargo fmt --all --check
	cargo clippy --release --workspace --all-targets -- -D warnings
	cargo clippy --release -p strata-regress --test core_suites --test traps -- -D warnings
	cargo fmt --manifest-path smgr/models/Cargo.toml --check
	cargo clippy --release --manifest-path smgr/models/Cargo.toml --target-dir target/models -- -D warnings
	for script in setup/*.sh regress/*.sh patches/*.sh .ci/run; do bash -n "$$script"; done
	cargo test --release --quiet -p strata-regress --test tidy

#: make patch-size  changed lines and hooks of the patches
patch-size:
	@patches/count-lines.sh
