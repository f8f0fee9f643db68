# What the peers in Python share: an environment of their own, made once. Sourced by their run.sh, which sets `peer` to its
# folder. Into $CACHE/<name of the folder>.
# shellcheck shell=bash
set -euo pipefail

name=$(basename "${peer:?peer is not set: the folder of the run.sh that sources this}")
cache="${CACHE:?CACHE is not set: a folder for packages}/$name"

# The packages of requirements.txt; nothing if they are there and newer.
build() {
    command -v python3 >/dev/null || { echo "python3 is missing: install Python 3.9 or newer" >&2; return 1; }
    mkdir -p "$cache"
    if [[ ! -f $cache/venv.complete || $peer/requirements.txt -nt $cache/venv.complete ]]; then
        rm -rf "$cache/venv"
        python3 -m venv "$cache/venv" >&2
        "$cache/venv/bin/pip" install -q --disable-pip-version-check -r "$peer/requirements.txt" </dev/null >&2
        touch "$cache/venv.complete"
    fi
}

# Version of a package.
version() {
    "$cache/venv/bin/python" -c 'import sys; from importlib.metadata import version; print(version(sys.argv[1]))' "$1"
}

# Becomes the peer.
become() {
    PYTHONPATH="$peer/.." exec "$cache/venv/bin/python" -u "$peer/peer.py"
}
