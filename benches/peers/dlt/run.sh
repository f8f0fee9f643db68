#!/usr/bin/env bash
# dlt into DuckDB as a peer.
#
#   run.sh build    fetches what the program needs; prints name and version
#   run.sh works    does works told by stdin until it ends, with FILES and DATA of the environment
peer=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=benches/peers/python.sh
source "$peer/../python.sh"

case "${1:-}" in
build)
    build
    echo "dlt $(version dlt), merge into DuckDB $(version duckdb), Arrow tables"
    ;;
works)
    become
    ;;
*)
    sed -n '4,5p' "${BASH_SOURCE[0]}"
    exit 2
    ;;
esac
