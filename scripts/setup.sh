#!/usr/bin/env bash
# Installs what a fresh machine lacks to build Syncline; quiet and quick where nothing is missing.
#
#   scripts/setup.sh         what the build needs: a C++ compiler, make, libclang (for the RocksDB bindings), OpenSSL and
#                            zlib (for the Kafka client)
#   scripts/setup.sh test    also what the tests need: a JDK and Maven for a real Kafka broker; go, node, Python and a browser, for
#                            real servers and real clients
#   scripts/setup.sh peers   what `make bench-peers` needs beside the build: a JDK and Maven, PostgreSQL, Python
#
# Rust is not installed here: one line says how to get it.
set -euo pipefail

readonly GO_MINOR_MIN=21   # from 1.21 on, go fetches the newer toolchain a module asks for
readonly NODE_MAJOR_MIN=20 # what the npm packages under test ask for
readonly JAVA_MAJOR_MIN=17 # what a Kafka 4 broker runs on

export PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin:/usr/local/go/bin"

say() { echo "setup: $*" >&2; }
has() { command -v "$1" >/dev/null 2>&1; }
has_library() { has pkg-config && pkg-config --exists "$1"; }

has_libclang() {
    [[ -n ${LIBCLANG_PATH:-} ]] && return 0
    compgen -G '/usr/lib/llvm*/lib/libclang[.-]*so*' >/dev/null && return 0
    compgen -G '/usr/lib*/libclang.so*' >/dev/null && return 0
    compgen -G '/usr/lib/*-linux-gnu/libclang[.-]*so*' >/dev/null && return 0
    [[ $(uname -s) == Darwin ]] && has clang
}

# Installs packages by apt, or says what to install where there is no apt or no right to use it.
install() {
    local sudo=()
    if ! has apt-get; then
        say "missing: $*. There is no apt here: install them with this system's package manager, then run again."
        return 1
    fi
    if [[ $(id -u) -ne 0 ]]; then
        if ! has sudo; then
            say "missing: $*. As root: apt-get update && apt-get install -y $*"
            return 1
        fi
        sudo=(sudo)
    fi
    say "installing $*"
    "${sudo[@]}" apt-get update -qq </dev/null >&2 || say "apt-get update failed; trying with the lists there are"
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "$@" </dev/null >&2
}

build_tools() {
    local missing=()
    has c++ || has g++ || missing+=(g++)
    has cc || has gcc || missing+=(gcc libc6-dev)
    has make || missing+=(make)
    has pkg-config || missing+=(pkg-config)
    has clang || missing+=(clang)
    has_libclang || missing+=(libclang-dev)
    has_library openssl || missing+=(libssl-dev)
    has_library zlib || missing+=(zlib1g-dev)
    if [[ ${#missing[@]} -gt 0 ]]; then install "${missing[@]}"; fi
    if ! has cargo; then
        say "cargo is missing: install Rust from https://rustup.rs, then run again."
        return 1
    fi
}

# A go that is new enough: on the path, or in a place where packages put it.
find_go() {
    local go version
    for go in "$(command -v go || true)" /usr/lib/go-1.*/bin/go; do
        [[ -x $go ]] || continue
        version=$("$go" env GOVERSION 2>/dev/null || true)
        [[ $version =~ ^go1\.([0-9]+) && ${BASH_REMATCH[1]} -ge $GO_MINOR_MIN ]] && return 0
    done
    return 1
}

# The newest package golang-1.N-go this system offers, if one is new enough.
go_package() {
    has apt-cache || return 0
    apt-cache pkgnames golang-1. | sed -nE 's/^golang-1\.([0-9]+)-go$/\1/p' | sort -n | tail -1 |
        awk -v min="$GO_MINOR_MIN" '$1 >= min { print "golang-1." $1 "-go" }'
}

node_is_new_enough() {
    local version
    has node && has npm || return 1
    version=$(node --version 2>/dev/null || true)
    [[ $version =~ ^v([0-9]+) && ${BASH_REMATCH[1]} -ge $NODE_MAJOR_MIN ]]
}

# `java` and what compiles for it, not too old.
jdk_is_new_enough() {
    local version
    has java && has javac || return 1
    version=$(java -version 2>&1 || true)
    [[ $version =~ version\ \"([0-9]+) && ${BASH_REMATCH[1]} -ge $JAVA_MAJOR_MIN ]]
}

broker_tools() {
    local missing=()
    jdk_is_new_enough || missing+=(default-jdk-headless)
    has mvn || missing+=(maven)
    if [[ ${#missing[@]} -gt 0 ]]; then install "${missing[@]}" || true; fi
    jdk_is_new_enough || say "a JDK $JAVA_MAJOR_MIN or newer is missing: the Kafka tests will fail. Get it from https://adoptium.net"
    has mvn || say "Maven is missing: the Kafka tests cannot fetch a broker and will fail. Get it from https://maven.apache.org"
}

# Missing tools of the interop tests do not stop the others: those tests fail by name and say the same.
test_tools() {
    local package
    broker_tools
    if ! find_go; then
        package=$(go_package)
        if [[ -n $package ]]; then install "$package" || true; fi
        find_go || say "go 1.$GO_MINOR_MIN or newer is missing: the PocketBase test will fail. Get it from https://go.dev/dl"
    fi
    has python3 || install python3 || true
    if ! has chromium && ! has chromium-browser && ! has google-chrome; then
        install chromium || say "a browser is missing: the test of the connect page will fail. Install chromium"
    fi
    if ! node_is_new_enough; then
        if ! has node || ! has npm; then install nodejs npm || true; fi
        node_is_new_enough ||
            say "node $NODE_MAJOR_MIN or newer with npm is missing: the npm tests will fail. Get it from https://nodejs.org"
    fi
}

# Whoever stands beside us in the benchmarks; one that cannot be had is a line in the table.
peers_tools() {
    local missing=()
    broker_tools
    has initdb || compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || missing+=(postgresql)
    has python3 || missing+=(python3)
    has python3 && python3 -c 'import ensurepip' 2>/dev/null || missing+=(python3-venv)
    if [[ ${#missing[@]} -gt 0 ]]; then install "${missing[@]}" || true; fi
}

# The C++ compiler of the build stands at one place for all checkouts: cargo builds RocksDB anew where its path changes. Cargo by
# itself takes it as well, unless its configuration is there already.
the_compiler() {
    local here cxx
    here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
    cxx=${XDG_CACHE_HOME:-$HOME/.cache}/syncline/cxx.sh
    mkdir -p "$(dirname "$cxx")"
    if ! cmp -s "$here/cxx.sh" "$cxx"; then
        cp "$here/cxx.sh" "$cxx.new" && mv "$cxx.new" "$cxx"
    fi
    [[ -e $here/../.cargo/config.toml ]] && return 0
    mkdir -p "$here/../.cargo"
    printf '[env]\nCXX = "%s"\n' "$cxx" >"$here/../.cargo/config.toml"
}

the_compiler
case "${1:-build}" in
build) build_tools ;;
peers) build_tools && peers_tools ;;
test) build_tools && test_tools ;;
*)
    say "unknown mode '$1': use nothing, 'test' or 'peers'"
    exit 2
    ;;
esac
