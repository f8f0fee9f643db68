#!/usr/bin/env bash
# A Kafka broker on this machine for tests and for trying things: one process, loopback only, no containers.
#
#   scripts/kafka.sh fetch          fetches the jars with Maven, once (54 MB), and prints their folder
#   scripts/kafka.sh start FOLDER [PID]
#                                   starts a broker with its data in FOLDER (free ports, or those it had); prints host:port.
#                                   With PID it ends, and FOLDER goes, when that process is gone
#   scripts/kafka.sh kill FOLDER    ends it at once, as a crash would; `start` takes it up again
#   scripts/kafka.sh stop FOLDER    ends it in good order
#   scripts/kafka.sh tool CLASS …   runs one of Kafka's own tools, e.g. tool kafka.tools.ConsoleConsumer …
#
# Jars lie in $SYNCLINE_KAFKA_JARS, or below the target folder. Needs a JDK (17 or newer), and Maven for `fetch`.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly here
readonly jars="${SYNCLINE_KAFKA_JARS:-${CARGO_TARGET_DIR:-$here/../target}/interop/kafka/jars}"
readonly START_SECONDS=60
readonly STOP_SECONDS=20
readonly quiet=(-Dorg.slf4j.simpleLogger.defaultLogLevel=warn -Dorg.slf4j.simpleLogger.showDateTime=true)

say() { echo "kafka: $*" >&2; }

need() {
    command -v "$1" >/dev/null 2>&1 && return 0
    say "$1 is missing: $2"
    return 1
}

fetch() {
    if [[ ! -f $jars/.complete ]]; then
        need mvn "install Maven (apt-get install maven), or set SYNCLINE_KAFKA_JARS to a folder with Kafka's jars"
        rm -rf "$jars"
        mkdir -p "$jars"
        mvn -q -B -f "$here/kafka/pom.xml" org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies \
            "-DoutputDirectory=$jars" </dev/null >&2
        touch "$jars/.complete"
    fi
    echo "$jars"
}

# Two different ports that were free a moment ago.
free_ports() {
    python3 - <<'PY'
import socket
taken = [socket.socket() for _ in range(2)]
for s in taken: s.bind(("127.0.0.1", 0))
print(*[s.getsockname()[1] for s in taken])
PY
}

configure() {
    local folder=$1 client controller
    read -r client controller < <(free_ports)
    mkdir -p "$folder"
    cat >"$folder/server.properties" <<PROPERTIES
process.roles=broker,controller
node.id=1
listeners=PLAINTEXT://127.0.0.1:$client,CONTROLLER://127.0.0.1:$controller
advertised.listeners=PLAINTEXT://127.0.0.1:$client
controller.listener.names=CONTROLLER
controller.quorum.voters=1@127.0.0.1:$controller
log.dirs=$folder/data
offsets.topic.num.partitions=4
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=500
broker.heartbeat.interval.ms=200
broker.session.timeout.ms=1000
auto.create.topics.enable=false
${SYNCLINE_KAFKA_PROPERTIES:-}
PROPERTIES
    echo "$client" >"$folder/port"
    java_tool -Xmx128m kafka.tools.StorageTool format -c "$folder/server.properties" \
        -t "MkU3OEVBNTcwNTJENDM2Qg" >"$folder/format.log" 2>&1 ||
        { say "the storage could not be formatted: $(tail -3 "$folder/format.log")"; return 1; }
}

java_tool() {
    need java "install a JDK, 17 or newer (apt-get install openjdk-17-jre-headless)"
    local options=()
    while [[ ${1:-} == -* ]]; do options+=("$1"); shift; done
    java "${options[@]}" "${quiet[@]}" -cp "$jars/*" "$@"
}

running() { [[ -f $1/pid ]] && kill -0 "$(cat "$1/pid")" 2>/dev/null; }

start() {
    local folder
    mkdir -p "$1"
    folder=$(cd "$1" && pwd)
    fetch >/dev/null
    [[ -f $folder/server.properties ]] || configure "$folder"
    if ! running "$folder"; then
        need java "install a JDK, 17 or newer (apt-get install openjdk-17-jre-headless)"
        local quick="-XX:TieredStopAtLevel=1"
        [[ ${SYNCLINE_KAFKA_FULL_JIT:-} ]] && quick=""
        setsid java "-Xmx${SYNCLINE_KAFKA_HEAP:-512m}" -Xms128m -XX:+UseSerialGC $quick -Xshare:auto \
            "${quiet[@]}" -cp "$jars/*" kafka.Kafka "$folder/server.properties" \
            </dev/null >>"$folder/broker.log" 2>&1 &
        echo $! >"$folder/pid"
        if [[ -n ${2:-} ]]; then
            (
                while kill -0 "$2" 2>/dev/null; do sleep 1; done
                finish "$folder" KILL
                rm -rf "$folder"
            ) </dev/null >/dev/null 2>&1 &
        fi
    fi
    local port i
    port=$(cat "$folder/port")
    for ((i = 0; i < START_SECONDS * 20; i++)); do
        if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
            echo "127.0.0.1:$port"
            return 0
        fi
        running "$folder" || { say "the broker has ended: $(tail -3 "$folder/broker.log")"; return 1; }
        sleep 0.05
    done
    say "the broker does not answer after $START_SECONDS s; see $folder/broker.log"
    return 1
}

# Ends the broker with a signal and waits until it is gone; nothing if it is not running.
finish() {
    local folder=$1 signal=$2 pid i
    running "$folder" || return 0
    pid=$(cat "$folder/pid")
    kill "-$signal" "$pid"
    for ((i = 0; i < STOP_SECONDS * 20; i++)); do
        kill -0 "$pid" 2>/dev/null || { rm -f "$folder/pid"; return 0; }
        sleep 0.05
    done
    kill -KILL "$pid" 2>/dev/null || true
    rm -f "$folder/pid"
}

case "${1:-}" in
fetch) fetch ;;
start) start "${2:?which folder?}" "${3:-}" ;;
kill) finish "${2:?which folder?}" KILL ;;
stop) finish "${2:?which folder?}" TERM ;;
tool)
    shift
    fetch >/dev/null
    java_tool -Xmx256m "$@"
    ;;
*)
    sed -n '2,13p' "${BASH_SOURCE[0]}" | sed 's/^# \{0,1\}//'
    exit 2
    ;;
esac
