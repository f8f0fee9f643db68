#!/usr/bin/env bash
# Runs the reliability tests again and again, each time with another seed, for so many minutes in all (MINUTES, by default 20).
#
# Every goal below gets the same share of the time. A round that has begun is finished, so it takes somewhat longer; a round
# that hangs is ended. What was tried is written down by the tests themselves, beside what was built; `make ledger` adds it to
# the ledger. GOALS="kills views" takes these goals alone. Ends with 0 only if no round failed.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Name, test target, test (or all of the target), and how much of it a round does: less than a minute on two cores.
goals=(
    "kills|reliability|crash::killed_at_random_moments|CRASH_CYCLES=72"
    "program|reliability|crash_program::killed_under_webhooks|CRASH_CYCLES=32"
    "retractions|reliability|crash_views::|"
    "histories|it|oracle::any_history|SYNCLINE_CASES=200"
    "spilled|it|oracle::datasets_too_large|SYNCLINE_CASES=200"
    "moves|it|oracle::an_engine_that_moves|SYNCLINE_CASES=200"
    "orders|it|oracle::latest_ends_alike|SYNCLINE_CASES=100"
    "corruptions|reliability|corruption::no_damage|SYNCLINE_TEST_CORRUPTIONS=5000"
    "listings|connectors|lies::no_record_that|SYNCLINE_TEST_LISTINGS=4000"
    "views|it|views::what_is_kept_up|SYNCLINE_TEST_VIEWS=40"
)
# Longest that a round may take, in seconds.
round_limit=600

minutes=${MINUTES:-20}
[[ $minutes =~ ^[1-9][0-9]*$ ]] || { echo "soak: MINUTES=$minutes is no number of minutes" >&2; exit 64; }
chosen=()
for goal in "${goals[@]}"; do
    [[ -z ${GOALS:-} || " $GOALS " == *" ${goal%%|*} "* ]] && chosen+=("$goal")
done
((${#chosen[@]})) || { echo "soak: none of the goals has the name $GOALS" >&2; exit 64; }

# As `make test` builds it: with the packages selected one by one, features would differ and everything be built anew.
cargo test --workspace --no-run "$@" </dev/null || exit
log=$(mktemp)
trap 'rm -f "$log"' EXIT

failed=0
share=$((minutes * 60 / ${#chosen[@]}))
for goal in "${chosen[@]}"; do
    IFS='|' read -r name target test much <<<"$goal"
    begun=$SECONDS rounds=0
    while ((rounds == 0 || SECONDS - begun < share)); do
        seed=$(((RANDOM << 15) + RANDOM))
        round=(SEED=$seed CRASH_SEED=$seed SYNCLINE_TEST_SEED=$seed)
        # Several settings are separated by blanks.
        read -ra more <<<"$much"
        tests=(cargo test --workspace "$@" --test "$target" -- "$test")
        # A name that no test has would be a success.
        if ! env "${round[@]}" "${more[@]}" timeout --kill-after=10 "$round_limit" "${tests[@]}" >"$log" 2>&1 </dev/null ||
            ! grep -qE '^running [1-9]' "$log"; then
            failed=$((failed + 1))
            tail -n 60 "$log"
            echo "soak: failed: ${round[*]} ${more[*]} ${tests[*]}"
        fi
        rounds=$((rounds + 1))
    done
    echo "soak: $name: $rounds rounds in $((SECONDS - begun)) s"
done
echo "soak: $failed rounds failed; make ledger adds what was tried to tests/ledger.jsonl"
((failed == 0))
