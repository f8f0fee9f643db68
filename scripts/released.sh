#!/usr/bin/env bash
# Checks that the program as it is released has no failpoint and no planted bug in it, neither by its features nor by name.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if cargo tree "$@" --package syncline --edges normal,features --invert syncline-engine | grep -q 'feature "faults"'; then
    echo "released: the feature \"faults\" is on in the program; only the tests may ask for it" >&2
    exit 1
fi
cargo build "$@" --package syncline --bin syncline
program=${CARGO_TARGET_DIR:-target}/debug/syncline
names=$(grep -rhoE '\b(planted|hit|pass)\("[^"]+"' engine/src connectors/src src | cut -d'"' -f2 | sort -u)
[[ $names == *_* ]] || { echo "released: no planted bug was found in the sources; has fault::planted another name?" >&2; exit 1; }
if found=$(grep -aoFf <(printf '%s\n' "$names" SYNCLINE_PLANT SYNCLINE_FAULTS) "$program" | sort -u); then
    printf 'released: %s holds names of faults that tests ask for:\n%s\n' "$program" "$found" >&2
    exit 1
fi
echo "released: none of $(wc -l <<<"$names") faults is in $program"
