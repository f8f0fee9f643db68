#!/usr/bin/env bash
# Syncline in W6: a topic of somebody else's in, the changes topic out, through the program itself.
#
#   run.sh build    prints name and version; the program was built before (make bench-peers does)
#   run.sh start    runs until it is ended, with BROKERS, IN, OUT, DATA and THREADS of the environment
#
# With CONNECTIONS (names) IN is our own input topic, which has records of all of them; with PARTITIONS the log is in Kafka.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
program="${SYNCLINE:-${CARGO_TARGET_DIR:-$here/../../../target}/debug/syncline}"

settings() {
    # The output's name is made of the prefix, the source and the stream.
    cat >"$DATA/syncline.yaml" <<YAML
listen: 127.0.0.1:0
data_dir: $DATA/data
sources: $DATA/sources
workers: $THREADS
api_keys:
  - {name: bench, key: env:SYNCLINE_BENCH_KEY, role: admin}
logs: {level: warn}
kafka:
  brokers: $BROKERS
  prefix: ${OUT%.bench.Contact.changes}
  output: {changes: true, format: debezium, headers: few}
metrics: {open: true}
YAML
    [[ -z ${PARTITIONS:-} ]] || echo "log: {kind: kafka, role: all, partitions: $PARTITIONS}" >>"$DATA/syncline.yaml"
    mkdir -p "$DATA/sources"
    cat >"$DATA/sources/bench.yaml" <<YAML
source: bench
base_url: https://bench.invalid
auth: {type: none}
streams:
  - name: Contact
    key: .id
    modified_at: .updated_at
YAML
    if [[ ${CONNECTIONS:-} ]]; then
        printf 'connections:\n'
        printf '  %s: {}\n' $CONNECTIONS
    else
        printf '    topic: {name: %s}\nconnections: {one: {}}\n' "$IN"
    fi >>"$DATA/sources/bench.yaml"
}

case "${1:-}" in
build)
    [[ -x $program ]] || { echo "$program is missing: cargo build --bin syncline" >&2; exit 1; }
    version=$("$program" --version)
    echo "Syncline ${version##* }"
    ;;
start)
    settings
    export SYNCLINE_BENCH_KEY=bench-0123456789abcdef0123456789abcdef
    exec "$program" serve --config "$DATA/syncline.yaml"
    ;;
*)
    sed -n '4,7p' "${BASH_SOURCE[0]}"
    exit 2
    ;;
esac
