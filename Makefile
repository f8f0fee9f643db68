# What one does with this repository. Every target works on a fresh clone: scripts/setup.sh installs what is missing.
# RocksDB is compiled once, in the dev profile: no target here uses another profile or changes RUSTFLAGS.

export PATH := $(PATH):$(HOME)/.cargo/bin:/usr/local/go/bin
export CARGO_TARGET_DIR ?= $(CURDIR)/target

CARGO_FLAGS ?= --locked

# RocksDB is compiled in groups of files, unless a compiler is named. scripts/setup.sh puts the script there, and tells cargo.
ifeq ($(origin CXX),default)
export CXX := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/syncline/cxx.sh
endif

.PHONY: demo quick test soak ledger check bench bench-peers bench-scale fmt setup setup-test setup-peers

## One minute of a live change stream: a made-up provider, webhooks and the engine in one process; leaves no files.
demo: setup
	@cargo build $(CARGO_FLAGS) --no-default-features --features program --bin syncline
	@"$(CARGO_TARGET_DIR)/debug/syncline" demo

## Unit tests alone, while one works: without JDK, Go and Node.
quick: setup
	@cargo test $(CARGO_FLAGS) --workspace --lib --bins

## Unit, oracle, crash and interop tests, and every example in the docs of the code.
test: setup-test
	@scripts/test.sh $(CARGO_FLAGS)

## The reliability tests again and again with other seeds, for MINUTES minutes in all (20): every goal gets its share.
soak: setup-test
	@scripts/soak.sh $(CARGO_FLAGS)

## Adds what the reliability tests have written down since the last time to tests/ledger.jsonl, and makes docs/reliability.md.
ledger: setup
	@cargo run $(CARGO_FLAGS) -q -p syncline-ledger

## What keeps the code as it is: format, import direction, lints, the library alone, documentation, licences.
check: setup
	cargo fmt --all --check
	@mkdir -p "$(CARGO_TARGET_DIR)"
	rustc --edition 2024 --test tests/tests/it/imports.rs -o "$(CARGO_TARGET_DIR)/imports" && "$(CARGO_TARGET_DIR)/imports" -q
	cargo clippy $(CARGO_FLAGS) --workspace --all-targets -- -D warnings
	scripts/alone.sh $(CARGO_FLAGS)
	scripts/released.sh $(CARGO_FLAGS)
	RUSTDOCFLAGS="-D warnings" cargo doc $(CARGO_FLAGS) --workspace --no-deps --document-private-items
	@if command -v cargo-deny >/dev/null; then cargo deny --offline check licenses bans; \
	else echo "check: cargo-deny is not installed, licences and bans are not checked (cargo install cargo-deny)"; fi

## What it costs: each benchmark answers the question on its first line.
bench: setup
	cargo run $(CARGO_FLAGS) -p syncline-benches --bin bench

## The same work beside other systems, on the same records: one table of each kind.
bench-peers: setup-peers
	cargo build $(CARGO_FLAGS) --bin syncline
	cargo build $(CARGO_FLAGS) -p syncline-benches
	cargo run $(CARGO_FLAGS) -p syncline-benches --bin peers

## The same work by one, two and four processes that share a Kafka log, and with the embedded log: one table.
bench-scale: setup-test
	cargo build $(CARGO_FLAGS) --bin syncline
	cargo run $(CARGO_FLAGS) -p syncline-benches --bin peers -- --processes 1,2,4 --records 200000

fmt:
	cargo fmt --all

setup:
	@scripts/setup.sh

setup-test:
	@scripts/setup.sh test

setup-peers:
	@scripts/setup.sh peers
