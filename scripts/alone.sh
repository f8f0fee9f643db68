#!/usr/bin/env bash
# Checks that the library stands alone: without the program around it, no server, no Kafka and no command line come along.
#
# Features are unified over the packages that are selected, so exactly one is: with the whole workspace selected, everything
# would come back. RocksDB is not compiled once more for it: its features are the same.
set -euo pipefail

alone=(-p syncline --no-default-features)
# The client's own parts of hyper and tower come with reqwest and may.
program='axum|rdkafka|rdkafka-sys|openssl-sys|clap|indicatif|mimalloc|metrics|metrics-exporter-prometheus|tracing-subscriber'

tree=$(cargo tree "$@" "${alone[@]}" --edges normal,build --prefix none --format '{p}')
if found=$(grep -E "^($program) v" <<<"$tree" | sort -u); then
    printf 'alone: the library brings parts of the program:\n%s\n' "$found" >&2
    echo "alone: cargo tree ${alone[*]} --invert NAME tells which dependency it is; make it optional" >&2
    exit 1
fi
cargo clippy "$@" "${alone[@]}" --lib -- -D warnings
RUSTDOCFLAGS="-D warnings" cargo doc "$@" "${alone[@]}" --no-deps
