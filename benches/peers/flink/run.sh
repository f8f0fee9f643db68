#!/usr/bin/env bash
# Flink as a peer of W6: cluster and job in one process.
#
#   run.sh build    fetches and compiles; prints name and version
#   run.sh start    runs until it is ended, with BROKERS, IN, OUT, NAME, DATA and THREADS of the environment
peer=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=benches/peers/java.sh
source "$peer/../java.sh"

case "${1:-}" in
build)
    build
    echo "Flink $(version flink-streaming-java), checkpoints every 1 s, RocksDB (connector $(version flink-connector-kafka))"
    ;;
start)
    become --add-opens java.base/java.util=ALL-UNNAMED --add-opens java.base/java.lang=ALL-UNNAMED \
        --add-opens java.base/java.time=ALL-UNNAMED
    ;;
*)
    sed -n '4,5p' "${BASH_SOURCE[0]}"
    exit 2
    ;;
esac
