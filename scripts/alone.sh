#!/usr/bin/env bash
# Checks that the library stands alone: without the program around it, no server, no Kafka, no functions and no command line come
# along. And that the program stands without Kafka and without functions.
#
# Features are unified over the packages that are selected, so exactly one is: with the whole workspace selected, everything
# would come back. RocksDB is not compiled once more for it: its features are the same.
set -euo pipefail

kafka='rdkafka|rdkafka-sys|openssl-sys'
functions='syncline-runtime|rquickjs|rquickjs-sys|oxc_parser|oxc_transformer'
# The client's own parts of hyper and tower come with reqwest and may.
program="$kafka|$functions|axum|clap|indicatif|mimalloc|metrics|metrics-exporter-prometheus|tracing-subscriber"

# Fails if one of the crates $1 comes along with the features that the other arguments select.
without() {
    local crates=$1 tree found
    shift
    tree=$(cargo tree "$@" --edges normal,build --prefix none --format '{p}')
    if found=$(grep -E "^($crates) v" <<<"$tree" | sort -u); then
        printf 'alone: with %s come:\n%s\n' "$*" "$found" >&2
        echo "alone: cargo tree $* --invert NAME tells which dependency it is; make it optional" >&2
        return 1
    fi
    cargo clippy "$@" --lib -- -D warnings
}

without "$program" "$@" -p syncline --no-default-features
RUSTDOCFLAGS="-D warnings" cargo doc "$@" -p syncline --no-default-features --no-deps
without "$kafka|$functions" "$@" -p syncline --no-default-features --features program
