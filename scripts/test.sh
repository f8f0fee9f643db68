#!/usr/bin/env bash
# Runs the tests of the whole workspace and closes with one line, "N passed, N failed".
#
# Every test binary runs, also after a failing one. A binary that dies without a result counts as one failed.
# Ends with 0 only if the build went through and every test passed.
set -uo pipefail

export CARGO_TERM_COLOR=never # the results are read below

report=$(mktemp)
trap 'rm -f "$report"' EXIT
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
