#!/usr/bin/env bash
# Runs the tests of the whole workspace and closes with one line, "N passed, N failed".
#
# Every test binary runs, also after a failing one. A binary that dies without a result counts as one failed.
# Ends with 0 only if the build went through and every test passed.
#
# The tests share one Kafka broker, which goes with this script however it ends. Where none can be had, every test that
# needs one tries for itself, fails, and says why: none is skipped.
set -uo pipefail

export CARGO_TERM_COLOR=never # the results are read below

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
report=$(mktemp)
folder=$(mktemp -d)

finish() {
    trap - EXIT INT TERM HUP
    "$here/kafka.sh" kill "$folder/broker"
    rm -rf "$report" "$folder"
}
trap finish EXIT
trap 'finish; exit 130' INT
trap 'finish; exit 143' TERM HUP

# Built first: the broker's start should not compete with the compiler, nor wait idle for it.
cargo test --workspace --no-run "$@" </dev/null || exit

if [[ -z ${SYNCLINE_TEST_KAFKA:-} ]]; then
    # With this script's number it also goes when the script is killed.
    if address=$("$here/kafka.sh" start "$folder/broker" $$); then
        export SYNCLINE_TEST_KAFKA=$address
        echo "test: a Kafka broker for all tests at $address"
    else
        echo "test: no Kafka broker (see above): the tests that need one will fail"
    fi
fi

cargo test --workspace --no-fail-fast "$@" 2>&1 </dev/null | tee "$report"
outcome=${PIPESTATUS[0]}

awk '
    /^ +(Running|Doc-tests) / { started++ }
    /^test result: / {
        ended++
        for (i = 2; i <= NF; i++) {
            if ($i ~ /^passed/) passed += $(i - 1)
            if ($i ~ /^failed/) failed += $(i - 1)
            if ($i ~ /^ignored/) ignored += $(i - 1)
        }
    }
    END {
        failed += started - ended
        print ""
        if (ignored > 0) print ignored " ignored"
        if (!started) { print "no test ran"; exit 1 }
        print (passed + 0) " passed, " (failed + 0) " failed"
        exit (failed > 0 || passed == 0)
    }' "$report" && [[ $outcome -eq 0 ]]
