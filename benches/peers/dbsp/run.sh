#!/usr/bin/env bash
# dbsp as a peer: a program of its own, with its own dependencies.
#
#   run.sh build    fetches and compiles (long, once); prints name and version
#   run.sh works    does works told by stdin until it ends, with FILES and THREADS of the environment
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
target="${CACHE:?CACHE is not set: a folder for what is compiled}/dbsp"

case "${1:-}" in
build)
    # Its own choice of compiler flags: none of ours.
    env -u RUSTFLAGS CARGO_TARGET_DIR="$target" cargo build --release --locked --manifest-path "$here/Cargo.toml" </dev/null >&2
    version=$(sed -n '/^name = "dbsp"$/{n;s/version = "\(.*\)"/\1/p}' "$here/Cargo.lock")
    echo "dbsp $version, in memory"
    ;;
works)
    exec "$target/release/dbsp-peer"
    ;;
*)
    sed -n '4,5p' "${BASH_SOURCE[0]}"
    exit 2
    ;;
esac
