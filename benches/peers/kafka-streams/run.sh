#!/usr/bin/env bash
# Kafka Streams as a peer of W6.
#
#   run.sh build    fetches and compiles; prints name and version
#   run.sh start    runs until it is ended, with BROKERS, IN, OUT, NAME, DATA and THREADS of the environment
peer=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=benches/peers/java.sh
source "$peer/../java.sh"

case "${1:-}" in
build)
    build
    echo "Kafka Streams $(version kafka-streams), exactly_once_v2, RocksDB"
    ;;
start)
    # shellcheck disable=SC2119
    become
    ;;
*)
    sed -n '4,5p' "${BASH_SOURCE[0]}"
    exit 2
    ;;
esac
