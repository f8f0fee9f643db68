//! When a sync runs next: a pure function of its schedule, its creation and its last runs.
//!
//! Promises: the same inputs give the same tick, on every machine and after every restart; ticks stand on a grid anchored at
//! the sync's creation (or on cron times in UTC), each moved by a spread that depends on the sync alone; a tick that fell
//! into a run is not made up for, one that fell into a stop of the program is made up for once; what a clock that was ahead
//! has stamped holds nothing up.

use crate::connectors::definition::{self, MIN_INTERVAL, Schedule, Tick};
use crate::engine::model::Timestamp;
use chrono::{DateTime, Utc};
use croner::Cron;
use std::str::FromStr;
use std::time::Duration;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// A time of the past that lies further ahead than this was stamped by a clock that was wrong. Clocks are moved back a little
/// all the time; that alone is no reason for a run.
const AHEAD: Duration = Duration::from_secs(MINUTE);

/// Longest wait a provider may ask for, from the end of the run it told.
const WAIT_MAX: Duration = Duration::from_secs(DAY);

/// Why a schedule is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadSchedule {
    /// Not an interval, or one out of range.
    #[error("{0}")]
    Frequency(String),
    /// Not a cron expression.
    #[error("`{expression}` is not a cron expression: {reason}")]
    Cron {
        /// As written.
        expression: String,
        /// What the reader said.
        reason: String,
    },
}

/// A schedule made ready: compiled, anchored, with its spread.
#[derive(Clone, Debug)]
pub struct SchedulePlan {
    tick: Rhythm,
    full: Option<Rhythm>,
    anchor: Timestamp,
    spread: Duration,
}

/// What the past of a sync says about its next run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Past {
    /// End of the last run, whatever its outcome; `None` before the first.
    pub ended_at: Option<Timestamp>,
    /// Start of the last full listing that ended.
    pub full_at: Option<Timestamp>,
    /// The provider asked not to come back before this.
    pub not_before: Option<Timestamp>,
}

impl Past {
    /// The past as far as a clock that shows `now` can believe it. What lies ahead is not moved to `now`, which would move on
    /// and on: it counts as long ago, at `anchor`, so that a run is due at once and stamps anew.
    fn believed(&self, anchor: Timestamp, now: Timestamp) -> Past {
        let long_ago = anchor.min(now);
        let believed = |at: Timestamp| if at <= now.plus(AHEAD) { at } else { long_ago };
        let ended_at = self.ended_at.map(believed);
        let latest = ended_at.unwrap_or(long_ago).plus(WAIT_MAX);
        let full_at = self.full_at.map(believed);
        Past { ended_at, full_at, not_before: self.not_before.map(|at| at.min(latest)) }
    }
}

/// A tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// When.
    pub at: Timestamp,
    /// Whether the complete listing is due by then.
    pub full: bool,
}

#[derive(Clone, Debug)]
enum Rhythm {
    Every(Duration),
    Cron(Box<Cron>),
}

impl SchedulePlan {
    /// Makes `schedule` ready. `frequency` replaces its usual ticks, `anchor` is the sync's creation, `seed` a number that
    /// belongs to the sync.
    pub fn new(
        schedule: &Schedule,
        frequency: Option<Duration>,
        anchor: Timestamp,
        seed: u64,
    ) -> Result<SchedulePlan, BadSchedule> {
        let (tick, jitter) = match frequency {
            // The spread of the file belongs to the interval of the file; a tenth is the rule for all.
            Some(every) => (Rhythm::Every(every.max(MIN_INTERVAL)), every / 10),
            None => (Rhythm::compile(&schedule.tick)?, schedule.jitter),
        };
        let full = schedule.full.as_ref().map(Rhythm::compile).transpose()?;
        Ok(SchedulePlan { tick, full, anchor, spread: spread(jitter, seed) })
    }

    /// The next tick, as it is seen at `now`. It may lie in the past: then the run is due now.
    pub fn next(&self, past: &Past, now: Timestamp) -> Option<Due> {
        let past = &past.believed(self.anchor, now);
        let Some(ended_at) = past.ended_at else {
            // The first run starts with the sync; spreading it would only make people wait.
            let first = self.anchor.min(now);
            let at = past.not_before.map_or(first, |t| t.max(first));
            return Some(Due { at, full: true });
        };
        let usual = self.tick.after(ended_at, self.anchor, self.spread)?;
        // Only ticks after the last run count, or a full listing that keeps failing would be tried without a pause.
        let full = self.full.as_ref().and_then(|rhythm| rhythm.after(ended_at, self.anchor, self.spread));
        let at = full.map_or(usual, |f| f.min(usual));
        let at = past.not_before.map_or(at, |t| t.max(at));
        Some(Due { at, full: self.full_by(past, at) })
    }

    /// Whether the complete listing is due at `now`.
    pub fn full_due(&self, past: &Past, now: Timestamp) -> bool {
        self.full_by(&past.believed(self.anchor, now), now)
    }

    fn full_by(&self, past: &Past, at: Timestamp) -> bool {
        let since = past.full_at.unwrap_or(self.anchor);
        let due = self.full.as_ref().and_then(|full| full.after(since, self.anchor, self.spread));
        due.is_some_and(|due| due <= at)
    }
}

impl Rhythm {
    fn compile(tick: &Tick) -> Result<Self, BadSchedule> {
        match tick {
            Tick::Every(every) => Ok(Rhythm::Every((*every).max(MIN_INTERVAL))),
            Tick::Cron(expression) => Cron::from_str(expression)
                .map(|cron| Rhythm::Cron(Box::new(cron)))
                .map_err(|e| BadSchedule::Cron { expression: expression.clone(), reason: e.to_string() }),
        }
    }

    /// The first tick strictly after `after`, spread included.
    fn after(&self, after: Timestamp, anchor: Timestamp, spread: Duration) -> Option<Timestamp> {
        match self {
            Rhythm::Every(every) => {
                let step = i64::try_from(every.as_micros()).ok().filter(|s| *s > 0)?;
                let first = anchor.plus(spread);
                let passed = after.0.saturating_sub(first.0).div_euclid(step);
                // The tick at the anchor itself is the first run, which has no spread. An anchor that lies ahead was stamped by
                // a clock that was: the grid goes on to both sides.
                let passed = if after < anchor { passed } else { passed.max(0) };
                let number = passed.saturating_add(1);
                Some(Timestamp(first.0.saturating_add(number.saturating_mul(step))))
            }
            Rhythm::Cron(cron) => {
                let from = DateTime::<Utc>::from_timestamp_micros(after.minus(spread).0)?;
                let at = cron.find_next_occurrence(&from, false).ok()?;
                Some(Timestamp(at.timestamp_micros()).plus(spread))
            }
        }
    }
}

/// A fixed part of `jitter` for a sync with this seed.
fn spread(jitter: Duration, seed: u64) -> Duration {
    let micros = u64::try_from(jitter.as_micros()).unwrap_or(u64::MAX);
    if micros == 0 { Duration::ZERO } else { Duration::from_micros(seed % micros) }
}

/// Reads a frequency as definition files spell it: `every 30s`, `every half hour`, `5m`.
pub fn parse_frequency(text: &str) -> Result<Duration, BadSchedule> {
    match definition::schedule(text) {
        Ok(Tick::Every(every)) => Ok(every),
        Ok(Tick::Cron(_)) => {
            Err(BadSchedule::Frequency(format!("`{text}` is a cron expression; an interval is wanted")))
        }
        Err(why) => Err(BadSchedule::Frequency(why)),
    }
}

/// The text of an interval as surfaces show it: `every 30s`, `every 5m`, `every 1h`, `every 2d`.
pub fn frequency_text(every: Duration) -> String {
    let seconds = every.as_secs();
    for (unit, size) in [("d", DAY), ("h", HOUR), ("m", MINUTE)] {
        if seconds >= size && seconds.is_multiple_of(size) {
            return format!("every {}{unit}", seconds / size);
        }
    }
    format!("every {seconds}s")
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: Timestamp = Timestamp(1_790_000_000_000_000);

    fn schedule(tick: Tick, full: Option<Tick>, jitter: u64) -> Schedule {
        Schedule { tick, full, jitter: Duration::from_secs(jitter), paused: false, timeout: Duration::from_secs(DAY) }
    }

    fn every(seconds: u64) -> Tick {
        Tick::Every(Duration::from_secs(seconds))
    }

    fn at(seconds: u64) -> Timestamp {
        T0.plus(Duration::from_secs(seconds))
    }

    fn ended(seconds: u64) -> Past {
        Past { ended_at: Some(at(seconds)), full_at: Some(T0), not_before: None }
    }

    #[test]
    fn the_first_run_is_at_creation_and_full() {
        let plan = SchedulePlan::new(&schedule(every(60), None, 6), None, T0, 12345).expect("valid");
        assert_eq!(plan.next(&Past::default(), T0), Some(Due { at: T0, full: true }));
    }

    #[test]
    fn ticks_stand_on_the_grid_and_one_inside_a_run_is_skipped() {
        let plan = SchedulePlan::new(&schedule(every(60), None, 0), None, T0, 1).expect("valid");
        assert_eq!(plan.next(&ended(1), at(1)).map(|d| d.at), Some(at(60)));
        assert_eq!(plan.next(&ended(59), at(59)).map(|d| d.at), Some(at(60)));
        // The run of tick 60 took until 130: the tick at 120 is not made up for.
        assert_eq!(plan.next(&ended(130), at(130)).map(|d| d.at), Some(at(180)));
        assert_eq!(plan.next(&ended(180), at(180)).map(|d| d.at), Some(at(240)));
    }

    #[test]
    fn spread_is_constant_for_a_sync_and_below_the_jitter() {
        let jitter = 30;
        for seed in [0, 7, 29_999_999, u64::MAX] {
            let plan = SchedulePlan::new(&schedule(every(300), None, jitter), None, T0, seed).expect("valid");
            let first = plan.next(&ended(1), at(1)).expect("ticks").at;
            let off = first.since(at(300));
            assert!(first >= at(300) && off < Duration::from_secs(jitter), "{seed}: {off:?}");
            let second = plan.next(&Past { ended_at: Some(first), ..ended(0) }, first).expect("ticks").at;
            assert_eq!(second.since(first), Duration::from_secs(300));
        }
    }

    #[test]
    fn cron_is_in_utc() {
        let plan = SchedulePlan::new(&schedule(Tick::Cron("0 3 * * 0".into()), None, 0), None, T0, 1).expect("valid");
        // 2026-09-21 is a Monday.
        let monday = Timestamp::parse("2026-09-21T12:00:00Z").expect("valid");
        let past = Past { ended_at: Some(monday), full_at: Some(monday), not_before: None };
        let due = plan.next(&past, monday).expect("ticks");
        assert_eq!(due.at, Timestamp::parse("2026-09-27T03:00:00Z").expect("valid"));
    }

    #[test]
    fn the_full_schedule_counts_from_the_last_full_listing() {
        let plan = SchedulePlan::new(&schedule(every(60), Some(every(3600)), 0), None, T0, 1).expect("valid");
        assert_eq!(plan.next(&ended(61), at(61)), Some(Due { at: at(120), full: false }));
        assert_eq!(plan.next(&ended(3541), at(3541)), Some(Due { at: at(3600), full: true }));
        // A run that ended late, or a full listing that failed: it is due with the next tick.
        assert_eq!(plan.next(&ended(3605), at(3605)), Some(Due { at: at(3660), full: true }));
        let after = Past { full_at: Some(at(3600)), ..ended(3605) };
        assert_eq!(plan.next(&after, at(3605)), Some(Due { at: at(3660), full: false }));
        assert!(plan.full_due(&ended(61), at(3600)) && !plan.full_due(&after, at(7199)));
    }

    #[test]
    fn a_poll_hint_moves_the_next_run_back_but_not_forward() {
        let plan = SchedulePlan::new(&schedule(every(60), None, 0), None, T0, 1).expect("valid");
        let far = Past { not_before: Some(at(500)), ..ended(1) };
        assert_eq!(plan.next(&far, at(1)).map(|d| d.at), Some(at(500)));
        let near = Past { not_before: Some(at(2)), ..ended(1) };
        assert_eq!(plan.next(&near, at(1)).map(|d| d.at), Some(at(60)));
    }

    #[test]
    fn a_clock_that_was_ahead_holds_nothing_up() {
        let year = 365 * DAY;
        let plan = SchedulePlan::new(&schedule(every(60), Some(every(3600)), 6), None, T0, 12345).expect("valid");
        let ahead = Past { ended_at: Some(at(year)), full_at: Some(at(year)), not_before: Some(at(year + 300)) };
        for now in [at(100), at(7200)] {
            // The end counts as long ago; the provider's wish came with it.
            let due = plan.next(&Past { not_before: None, ..ahead }, now).expect("ticks");
            assert!(due.at <= now, "{due:?}");
        }
        assert!(plan.full_due(&ahead, at(7200)), "the listing as well");
        let waits = plan.next(&ahead, at(100)).expect("ticks").at;
        assert_eq!(waits, at(DAY), "no wish is waited for longer than a day");
        // A run at once puts it right.
        let again = Past { ended_at: Some(at(7200)), full_at: Some(at(7200)), not_before: None };
        let next = plan.next(&again, at(7200)).expect("ticks").at;
        assert!(next > at(7200) && next <= at(7260), "{next}");

        // A clock that is moved back a little causes no run.
        assert!(plan.next(&ended(130), at(129)).expect("ticks").at > at(130));
        // Created while the clock was ahead.
        let young = SchedulePlan::new(&schedule(every(60), None, 0), None, at(year), 1).expect("valid");
        assert_eq!(young.next(&Past::default(), at(5)), Some(Due { at: at(5), full: true }));
        let next = young.next(&ended(10), at(11)).expect("ticks").at;
        assert!(next > at(10) && next <= at(70), "{next}");
    }

    #[test]
    fn frequencies_are_read_and_shown() {
        let read = |t: &str| parse_frequency(t).map(|d| d.as_secs());
        for (text, seconds) in [
            ("every 30s", 30),
            ("every hour", 3600),
            ("every half hour", 1800),
            ("every 5m", 300),
            ("Every 2 Hours", 7200),
            ("every day", 86_400),
            ("45 minutes", 2700),
            ("every week", 604_800),
        ] {
            assert_eq!(read(text), Ok(seconds), "{text}");
        }
        for text in ["", "every", "every blue moon", "every -5m", "every 14s", "every 0m", "every 9999 days"] {
            assert!(matches!(read(text), Err(BadSchedule::Frequency(_))), "{text}");
        }
        assert_eq!(frequency_text(Duration::from_secs(90)), "every 90s");
        assert_eq!(frequency_text(Duration::from_secs(7200)), "every 2h");
    }

    #[test]
    fn a_frequency_override_keeps_the_anchor() {
        let over = Some(Duration::from_secs(300));
        let plan = SchedulePlan::new(&schedule(every(60), None, 0), over, T0, 0).expect("valid");
        assert_eq!(plan.next(&ended(100), at(100)).map(|d| d.at), Some(at(300)));
        assert_eq!(plan.next(&ended(301), at(301)).map(|d| d.at), Some(at(600)));
    }

    #[test]
    fn a_bad_cron_expression_is_refused() {
        let bad = SchedulePlan::new(&schedule(Tick::Cron("61 * * * *".into()), None, 0), None, T0, 1);
        assert!(matches!(bad, Err(BadSchedule::Cron { .. })));
    }
}
