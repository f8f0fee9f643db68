# What the two Java peers share: fetches their jars with Maven, once, and compiles. Sourced by their run.sh, which sets
# `peer` to its folder. Into $CACHE/<name of the folder>.
# shellcheck shell=bash
set -euo pipefail

name=$(basename "${peer:?peer is not set: the folder of the run.sh that sources this}")
cache="${CACHE:?CACHE is not set: a folder for jars and classes}/$name"

# The jars of the pom and the classes of src/; nothing if both are there and newer.
build() {
    for tool in java javac mvn; do
        command -v "$tool" >/dev/null || { echo "$tool is missing: install a JDK (17 or newer) and Maven" >&2; return 1; }
    done
    mkdir -p "$cache"
    if [[ ! -f $cache/jars.complete || $peer/pom.xml -nt $cache/jars.complete ]]; then
        rm -rf "$cache/jars"
        mvn -q -B -f "$peer/pom.xml" org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies \
            "-DoutputDirectory=$cache/jars" </dev/null >&2
        touch "$cache/jars.complete"
    fi
    if [[ ! -f $cache/classes.complete || -n $(find "$peer/src" -newer "$cache/classes.complete" -print -quit) ]]; then
        rm -rf "$cache/classes"
        javac --release 17 -nowarn -cp "$cache/jars/*" -d "$cache/classes" "$peer"/src/*.java >&2
        touch "$cache/classes.complete"
    fi
}

# Version of the jar whose name begins so.
version() {
    local jar
    jar=$(basename "$(ls "$cache/jars/$1"-[0-9]*.jar)" .jar)
    echo "${jar#"$1"-}"
}

# Becomes the peer.
become() {
    exec java -Xmx2g -XX:+UseG1GC "$@" -Dorg.slf4j.simpleLogger.defaultLogLevel=warn \
        -cp "$cache/classes:$cache/jars/*" Changes
}
