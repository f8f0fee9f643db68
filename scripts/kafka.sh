#!/usr/bin/env bash
# A Kafka broker on this machine for tests and for trying things: one process, loopback only, no containers.
#
#   scripts/kafka.sh fetch          fetches the jars with Maven, once (54 MB), and prints their folder
#   scripts/kafka.sh start [--secure] FOLDER [PID]
#                                   starts a broker with its data in FOLDER (free ports, or those it had); prints host:port.
#                                   With PID it ends, and FOLDER goes, when that process is gone.
#                                   --secure: the address printed speaks TLS and wants a password (SASL); ca.pem and
#                                   client.properties in FOLDER are what a client needs
#   scripts/kafka.sh kill FOLDER    ends it at once, as a crash would; `start` takes it up again
#   scripts/kafka.sh stop FOLDER    ends it in good order
#   scripts/kafka.sh tool CLASS …   runs one of Kafka's own tools, e.g.
#                                   tool org.apache.kafka.tools.TopicCommand --bootstrap-server HOST:PORT --list
#
# Jars lie in $SYNCLINE_KAFKA_JARS, or below the target folder. Needs a JDK (17 or newer), and Maven for `fetch`.
# $SYNCLINE_KAFKA_PROPERTIES: further lines for server.properties of a broker that is made.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly here
readonly jars="${SYNCLINE_KAFKA_JARS:-${CARGO_TARGET_DIR:-$here/../target}/interop/kafka/jars}"
readonly START_SECONDS=60
readonly STOP_SECONDS=20
# Below the range outgoing connections take theirs from: none of them sits on a broker's port while it is down.
readonly PORT_FIRST=12000 PORTS=20000
# Tries with other ports when a broker that is made finds one taken.
readonly PORT_TRIES=5
# Of the secure listener; a broker on loopback has nothing to hide.
readonly USER_NAME=syncline USER_PASSWORD=syncline-secret
readonly quiet=(-Dorg.slf4j.simpleLogger.defaultLogLevel=warn -Dorg.slf4j.simpleLogger.showDateTime=true
    -Dorg.slf4j.simpleLogger.log.kafka.server.KafkaRaftServer=info)

say() { echo "kafka: $*" >&2; }
has() { command -v "$1" >/dev/null 2>&1; }

need() {
    has "$1" && return 0
    say "$1 is missing: $2"
    return 1
}

# Fetches once, whoever else fetches at the same time: one waits for the other where there is a lock, and the folder
# appears whole or not at all.
fetch() {
    if [[ ! -f $jars/.complete ]]; then
        need mvn "install Maven (apt-get install maven), or set SYNCLINE_KAFKA_JARS to a folder with Kafka's jars"
        mkdir -p "$(dirname "$jars")"
        (
            if has flock; then flock 9; fi
            [[ -f $jars/.complete ]] || download
        ) 9>"$jars.lock"
    fi
    echo "$jars"
}

download() {
    local part
    part=$(mktemp -d "$jars.XXXXXX")
    if ! mvn -q -B -f "$here/kafka/pom.xml" org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies \
        "-DoutputDirectory=$part" </dev/null >&2; then
        rm -rf "$part"
        say "the jars could not be fetched; without a network set SYNCLINE_KAFKA_JARS to a folder that has them"
        return 1
    fi
    touch "$part/.complete"
    rm -rf "$jars"
    # Without a lock another may have been quicker: as good.
    mv "$part" "$jars" 2>/dev/null || { rm -rf "$part"; [[ -f $jars/.complete ]]; }
}

# Different ports on which nobody listened a moment ago, as many as asked for.
free_ports() {
    local port found=()
    while ((${#found[@]} < $1)); do
        port=$((PORT_FIRST + (RANDOM * 32768 + RANDOM) % PORTS))
        [[ " ${found[*]-} " == *" $port "* ]] && continue
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || found+=("$port")
    done
    echo "${found[@]}"
}

# A file that exists is whole.
configure() {
    local folder=$1 secure=$2 client controller locked more="" protocols="" scram=()
    read -r client controller locked < <(free_ports 3)
    mkdir -p "$folder"
    if [[ $secure ]]; then
        make_keys "$folder" "$locked"
        more=",SASL_SSL://127.0.0.1:$locked"
        protocols=$(secure_properties "$folder")
        scram=(--add-scram "SCRAM-SHA-512=[name=$USER_NAME,password=$USER_PASSWORD]")
    fi
    cat >"$folder/server.properties.part" <<PROPERTIES
process.roles=broker,controller
node.id=1
listeners=PLAINTEXT://127.0.0.1:$client,CONTROLLER://127.0.0.1:$controller$more
advertised.listeners=PLAINTEXT://127.0.0.1:$client$more
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL_SSL:SASL_SSL
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
$protocols
${SYNCLINE_KAFKA_PROPERTIES:-}
PROPERTIES
    rm -rf "$folder/data"
    java_tool -Xmx128m kafka.tools.StorageTool format -c "$folder/server.properties.part" \
        -t "MkU3OEVBNTcwNTJENDM2Qg" ${scram[@]+"${scram[@]}"} >"$folder/format.log" 2>&1 ||
        { say "the storage could not be formatted: $(tail -3 "$folder/format.log")"; return 1; }
    if [[ $secure ]]; then echo "$locked"; else echo "$client"; fi >"$folder/port"
    echo "127.0.0.1:$client" >"$folder/plaintext"
    mv "$folder/server.properties.part" "$folder/server.properties"
}

# A certificate that vouches for itself, for the name and the address of this machine; and what a client is told.
make_keys() {
    local folder=$1 port=$2
    need keytool "it comes with the JDK"
    rm -f "$folder/keys.p12"
    if ! { keytool -genkeypair -alias broker -keyalg RSA -keysize 2048 -validity 3650 -dname CN=localhost \
        -ext bc=ca:true -ext san=dns:localhost,ip:127.0.0.1 \
        -storetype PKCS12 -keystore "$folder/keys.p12" -storepass "$USER_PASSWORD" >"$folder/keys.log" 2>&1 &&
        keytool -exportcert -rfc -alias broker -keystore "$folder/keys.p12" -storepass "$USER_PASSWORD" \
            -file "$folder/ca.pem" >>"$folder/keys.log" 2>&1; }; then
        say "the keys could not be made: $(tail -3 "$folder/keys.log")"
        return 1
    fi
    cat >"$folder/client.properties" <<CLIENT
# For Kafka's own tools: --command-config (or --consumer.config, --producer.config) with this file.
bootstrap.servers=127.0.0.1:$port
security.protocol=SASL_SSL
sasl.mechanism=SCRAM-SHA-512
sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required username="$USER_NAME" password="$USER_PASSWORD";
ssl.truststore.type=PEM
ssl.truststore.location=$folder/ca.pem
CLIENT
}

secure_properties() {
    cat <<SECURE
sasl.enabled.mechanisms=SCRAM-SHA-512,PLAIN
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.sasl_ssl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_$USER_NAME="$USER_PASSWORD";
listener.name.sasl_ssl.ssl.keystore.type=PKCS12
listener.name.sasl_ssl.ssl.keystore.location=$1/keys.p12
listener.name.sasl_ssl.ssl.keystore.password=$USER_PASSWORD
SECURE
}

java_tool() {
    need java "install a JDK, 17 or newer (apt-get install openjdk-17-jre-headless)"
    local options=()
    while [[ ${1:-} == -* ]]; do options+=("$1"); shift; done
    java ${options[@]+"${options[@]}"} "${quiet[@]}" -cp "$jars/*" "$@"
}

# Whether a process is there and is not merely waiting to be reaped.
alive() {
    local status
    kill -0 "$1" 2>/dev/null || return 1
    [[ -r /proc/$1/stat ]] || return 0
    # pid (name) state …; the name may hold anything.
    status=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
    [[ ${status##*) } != Z* ]]
}

# Whether the broker of a folder runs: a number that a later process has got is not it.
running() {
    local pid
    pid=$(cat "$1/pid" 2>/dev/null) || return 1
    [[ $pid ]] && alive "$pid" || return 1
    [[ ! -r /proc/$pid/cmdline ]] || tr '\0' '\n' <"/proc/$pid/cmdline" 2>/dev/null | grep -qxF "$1/server.properties"
}

# Becomes a program that outlives the terminal; to be run in the background, whose process number is then the program's.
apart() {
    if has setsid; then exec setsid "$@"; else exec nohup "$@"; fi
}

start() {
    local secure="" folder watched try
    if [[ ${1:-} == --secure ]]; then secure=1; shift; fi
    : "${1:?which folder?}"
    [[ $1 != *[,\\]* ]] || { say "Kafka takes no folder with a comma or a backslash in its name: $1"; return 1; }
    mkdir -p "$1"
    folder=$(cd "$1" && pwd)
    watched=${2:-}
    fetch >/dev/null
    for ((try = 1; ; try++)); do
        local made=""
        [[ -f $folder/server.properties ]] || { configure "$folder" "$secure"; made=1; }
        running "$folder" || launch "$folder"
        [[ -z $watched ]] || watch_over "$folder" "$watched"
        await "$folder" && return 0
        # Somebody took a port between our look and the broker's start.
        [[ $made ]] && ((try < PORT_TRIES)) && grep -q 'Address already in use' "$folder/broker.log" || return 1
        finish "$folder" KILL
        rm -f "$folder/server.properties" "$folder/broker.log"
    done
}

launch() {
    local folder=$1 quick=(-XX:TieredStopAtLevel=1)
    need java "install a JDK, 17 or newer (apt-get install openjdk-17-jre-headless)"
    [[ -z ${SYNCLINE_KAFKA_FULL_JIT:-} ]] || quick=()
    # Its own lines only: what an earlier one said must not pass for this one's.
    : >"$folder/broker.log"
    apart java "-Xmx${SYNCLINE_KAFKA_HEAP:-512m}" -Xms128m -XX:+UseSerialGC ${quick[@]+"${quick[@]}"} -Xshare:auto \
        "${quiet[@]}" -cp "$jars/*" kafka.Kafka "$folder/server.properties" \
        </dev/null >>"$folder/broker.log" 2>&1 &
    echo $! >"$folder/pid"
}

# One guard for a folder: ends the broker and removes the folder when the process is gone, however it ends.
watch_over() {
    local folder=$1 guard
    guard=$(cat "$folder/guard" 2>/dev/null || true)
    if [[ $guard ]] && alive "$guard"; then return 0; fi
    apart "${BASH_SOURCE[0]}" guard "$folder" "$2" </dev/null >/dev/null 2>&1 &
    echo $! >"$folder/guard"
}

guard() {
    while alive "$2"; do sleep 0.5; done
    finish "$1" KILL
    rm -rf "$1"
}

# Waits until the broker takes part in its cluster: a port that is open is not enough to make a topic.
await() {
    local folder=$1 pid i
    # Not `running`: for its first moments the process is still this shell's copy and bears its name.
    pid=$(cat "$folder/pid")
    for ((i = 0; i < START_SECONDS * 20; i++)); do
        if grep -q 'Kafka Server started' "$folder/broker.log"; then
            echo "127.0.0.1:$(cat "$folder/port")"
            return 0
        fi
        alive "$pid" || { say "the broker has ended: $(tail -3 "$folder/broker.log")"; return 1; }
        sleep 0.05
    done
    say "the broker is not ready after $START_SECONDS s; see $folder/broker.log"
    return 1
}

# Ends the broker with a signal and waits until it is gone; nothing if it is not running.
finish() {
    local folder=$1 signal=$2 pid i
    running "$folder" || return 0
    pid=$(cat "$folder/pid")
    kill "-$signal" "$pid" 2>/dev/null || true
    for ((i = 0; i < STOP_SECONDS * 20; i++)); do
        alive "$pid" || { rm -f "$folder/pid"; return 0; }
        sleep 0.05
    done
    kill -KILL "$pid" 2>/dev/null || true
    rm -f "$folder/pid"
}

# The folder as the broker knows it.
whole() { (cd "${1:?which folder?}" 2>/dev/null && pwd) || echo "$1"; }

case "${1:-}" in
fetch) fetch ;;
start) start "${@:2}" ;;
kill) finish "$(whole "${2:-}")" KILL ;;
stop) finish "$(whole "${2:-}")" TERM ;;
guard) guard "${2:?}" "${3:?}" ;;
tool)
    shift
    fetch >/dev/null
    java_tool -Xmx256m "$@"
    ;;
*)
    sed -n '2,19p' "${BASH_SOURCE[0]}" | sed 's/^# \{0,1\}//'
    exit 2
    ;;
esac
