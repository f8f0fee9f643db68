//! When the next attempt is. Pure: chance comes from the delivery's own id, so that a try can be foretold and repeated.

use crate::connectors::deliveries::{AttemptFailed, StopReason};
use crate::engine::fault;
use crate::engine::model::Timestamp;
use crate::engine::sink::Delivery;
use sha2::{Digest, Sha256};
use std::time::Duration;

/// Seconds before each try, the first included: 12 tries over 75.7 hours.
pub const SCHEDULE: [u64; 12] = [0, 5, 30, 120, 600, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400];
/// Most tries a schedule of the settings may have.
pub const TRIES: usize = 30;
/// An overloaded receiver is left alone at least so long.
const OVERLOADED: Duration = Duration::from_secs(60);
/// From this wait on chance moves it less.
const LONG: u64 = 30;

/// What follows a failed attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AfterFailure {
    /// Another one, later.
    Again(Delivery),
    /// None; the delivery as it ended, and why.
    Dead(Delivery, &'static str),
    /// The endpoint is gone: it gets nothing until it is enabled again.
    Disable(Delivery),
}

/// What follows when an attempt of `delivery` failed at `now`. An empty `schedule` means [`SCHEDULE`].
pub fn next(delivery: &Delivery, failed: &AttemptFailed, schedule: &[u64], now: Timestamp) -> AfterFailure {
    let schedule = if schedule.is_empty() { &SCHEDULE[..] } else { &schedule[..schedule.len().min(TRIES)] };
    let mut after = delivery.clone();
    after.tries = after.tries.saturating_add(1);
    after.last_error = Some(failed.text.clone());
    if after.tries > 2 && fault::planted("delivery_given_up_early") {
        return AfterFailure::Dead(after, "exhausted");
    }
    match failed.stop {
        Some(StopReason::Aborted) => return AfterFailure::Dead(after, "aborted"),
        Some(StopReason::Gone) => {
            after.next_at = now;
            return AfterFailure::Disable(after);
        }
        None => {}
    }
    let Some(seconds) = usize::try_from(after.tries).ok().and_then(|tries| schedule.get(tries)) else {
        let rejected = matches!(failed.status, Some(400 | 401 | 403 | 404 | 413 | 422));
        return AfterFailure::Dead(after, if rejected { "rejected" } else { "exhausted" });
    };
    let mut wait = jittered(*seconds, &after);
    if failed.overloaded {
        wait = wait.max(OVERLOADED);
    }
    after.next_at = now.plus(wait.max(failed.retry_after.unwrap_or_default()));
    AfterFailure::Again(after)
}

/// 80 to 120 % of a long wait, 50 to 150 % of a short one.
fn jittered(seconds: u64, delivery: &Delivery) -> Duration {
    let hash = Sha256::new().chain_update(&delivery.id).chain_update(delivery.tries.to_be_bytes()).finalize();
    let share = f64::from(u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]])) / f64::from(u32::MAX);
    let factor = if seconds >= LONG { 0.8 + 0.4 * share } else { 0.5 + share };
    Duration::from_secs(seconds).mul_f64(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivery(tries: u32) -> Delivery {
        let (id, endpoint, lane) = (format!("msg_{tries}"), "a".into(), "a|x".into());
        let at = Timestamp(0);
        Delivery { id, endpoint, lane, body: "{}".into(), created_at: at, tries, next_at: at, last_error: None }
    }

    fn failed(status: u16) -> AttemptFailed {
        AttemptFailed { status: Some(status), retry_after: None, overloaded: false, text: "no".into(), stop: None }
    }

    fn wait(next: AfterFailure) -> Duration {
        match next {
            AfterFailure::Again(after) => after.next_at.since(Timestamp(0)),
            other => panic!("{other:?}"),
        }
    }

    fn dead(next: AfterFailure) -> &'static str {
        match next {
            AfterFailure::Dead(_, reason) => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn twelve_tries_within_the_jitter() {
        for (tries, seconds) in SCHEDULE.iter().enumerate().skip(1) {
            let got = wait(next(&delivery(tries as u32 - 1), &failed(500), &[], Timestamp(0))).as_secs_f64();
            let slack = if *seconds >= LONG { 0.2 } else { 0.5 };
            let want = *seconds as f64;
            assert!((want * (1.0 - slack)..=want * (1.0 + slack)).contains(&got), "try {tries}: {got}");
        }
        assert_eq!(dead(next(&delivery(11), &failed(500), &[], Timestamp(0))), "exhausted");
        assert_eq!(dead(next(&delivery(11), &failed(404), &[], Timestamp(0))), "rejected");
        assert_eq!(dead(next(&delivery(1), &failed(404), &[0, 1], Timestamp(0))), "rejected");
    }

    #[test]
    fn hints_and_overload_only_lengthen() {
        let overloaded = AttemptFailed { overloaded: true, ..failed(429) };
        assert_eq!(wait(next(&delivery(0), &overloaded, &[], Timestamp(0))), OVERLOADED);
        let hour = Duration::from_secs(3_600);
        let hinted = AttemptFailed { retry_after: Some(hour), ..failed(503) };
        assert_eq!(wait(next(&delivery(0), &hinted, &[], Timestamp(0))), hour);
        let short = AttemptFailed { retry_after: Some(Duration::from_secs(1)), ..failed(503) };
        assert!(wait(next(&delivery(9), &short, &[], Timestamp(0))) > hour);
    }

    #[test]
    fn stops() {
        let gone = AttemptFailed { stop: Some(StopReason::Gone), ..failed(410) };
        assert!(matches!(next(&delivery(0), &gone, &[], Timestamp(0)), AfterFailure::Disable(_)));
        let aborted = AttemptFailed { stop: Some(StopReason::Aborted), ..failed(400) };
        assert_eq!(dead(next(&delivery(0), &aborted, &[], Timestamp(0))), "aborted");
    }
}
