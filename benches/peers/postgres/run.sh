#!/usr/bin/env bash
# PostgreSQL as a peer: its own cluster in the run's folder, written by the program beside.
#
#   run.sh build    fetches what the program needs; prints name and version
#   run.sh works    does works told by stdin until it ends, with FILES, DATA and THREADS of the environment
peer=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=benches/peers/python.sh
source "$peer/../python.sh"
# Where Debian puts what only a server needs.
PATH="$PATH:$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -1)"

case "${1:-}" in
build)
    command -v initdb postgres >/dev/null ||
        { echo "initdb or postgres is missing: apt-get install postgresql" >&2; exit 1; }
    build
    server=$(postgres --version | awk '{ print $3 }')
    echo "PostgreSQL $server, fsync and synchronous_commit on (psycopg $(version psycopg))"
    ;;
works)
    become
    ;;
*)
    sed -n '4,5p' "${BASH_SOURCE[0]}"
    exit 2
    ;;
esac
