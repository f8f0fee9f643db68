//! Schedules: durations, everyday spellings, cron, and when full listings run.

use super::read::Out;
use super::{Schedule, Tick};
use crate::config_text::{Content, Fields, Node, SourceSpan, bad_type, duration};
use croner::parser::{CronParser, Seconds};
use std::time::Duration;

/// Shortest interval.
pub const MIN_INTERVAL: Duration = Duration::from_secs(15);
/// Longest interval.
const MAX_INTERVAL: Duration = Duration::from_secs(366 * 86_400);
const TIMEOUT: Duration = Duration::from_secs(86_400);

impl Default for Schedule {
    fn default() -> Schedule {
        Schedule::of(Tick::Every(Duration::from_secs(3_600)))
    }
}

impl Schedule {
    /// This tick with everything else as usual: a tenth of the interval as jitter, started, one day as time limit.
    pub fn of(tick: Tick) -> Schedule {
        let jitter = match &tick {
            Tick::Every(every) => *every / 10,
            Tick::Cron(_) => Duration::ZERO,
        };
        Schedule { tick, full: None, jitter, paused: false, timeout: TIMEOUT }
    }
}

/// Reads a frequency: `5m`, `every 5m`, `every half hour`, `every 2 days`, `hourly`… At least 15 seconds.
pub fn schedule(text: &str) -> Result<Tick, String> {
    every(text).map(Tick::Every).map_err(|(_, message)| message)
}

/// A code and a message.
type ScheduleRefusal = (&'static str, String);

fn every(text: &str) -> Result<Duration, ScheduleRefusal> {
    let span = span(text).ok_or_else(|| {
        ("bad_duration", format!("`{text}` is not an interval; write 30s, 5m, 2h, 1d or every half hour"))
    })?;
    in_range(span)
}

fn in_range(span: Duration) -> Result<Duration, ScheduleRefusal> {
    match (MIN_INTERVAL..=MAX_INTERVAL).contains(&span) {
        true => Ok(span),
        false => Err(("out_of_range", "an interval is at least 15s and at most 366d".to_owned())),
    }
}

fn span(text: &str) -> Option<Duration> {
    let lower = text.trim().to_ascii_lowercase();
    let rest = match lower.strip_prefix("every") {
        Some(rest) if rest.starts_with(char::is_whitespace) => rest.trim(),
        _ => lower.as_str(),
    };
    if let Some(span) = duration(rest) {
        return Some(span);
    }
    match rest {
        "hourly" => return Some(Duration::from_secs(3_600)),
        "daily" => return Some(Duration::from_secs(86_400)),
        "weekly" => return Some(Duration::from_secs(604_800)),
        _ => {}
    }
    let split = rest.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = rest.split_at(split);
    let (half, unit) = match unit.trim().strip_prefix("half") {
        Some(rest) => (2, rest.trim().trim_start_matches("an ").trim_start_matches("a ")),
        None => (1, unit.trim()),
    };
    let number: u64 = if number.is_empty() { 1 } else { number.parse().ok()? };
    unit_seconds(unit)?.checked_mul(number).map(|s| Duration::from_millis(s.saturating_mul(1_000) / half))
}

fn unit_seconds(unit: &str) -> Option<u64> {
    Some(match unit {
        "s" | "sec" | "secs" | "second" | "seconds" => 1,
        "m" | "min" | "mins" | "minute" | "minutes" => 60,
        "h" | "hr" | "hrs" | "hour" | "hours" => 3_600,
        "d" | "day" | "days" => 86_400,
        "w" | "week" | "weeks" => 604_800,
        "month" | "months" => 30 * 86_400,
        _ => return None,
    })
}

/// Checks a cron expression: five fields, UTC.
fn cron(text: &str) -> Result<Tick, ScheduleRefusal> {
    let parser = CronParser::builder().seconds(Seconds::Disallowed).build();
    match parser.parse(text) {
        Ok(_) => Ok(Tick::Cron(text.to_owned())),
        Err(error) => Err(("bad_cron", format!("`{text}`: {error}"))),
    }
}

/// Reads `schedule`: an interval, or a map.
pub(super) fn read(node: Node, what: &str, out: &mut Out) -> Schedule {
    if let Content::Text(text) = &node.content {
        return Schedule::of(take(every(text).map(Tick::Every), &node.spot, out));
    }
    let Some(mut fields) = Fields::open(node, what, out) else { return Schedule::default() };
    let tick = tick(&mut fields, out).unwrap_or(Schedule::default().tick);
    let mut schedule = Schedule::of(tick);
    schedule.full = fields.take("full").and_then(|node| full(node, out));
    if let Some((jitter, spot)) = fields.duration("jitter", out) {
        if let Tick::Every(every) = schedule.tick
            && jitter > every
        {
            out.push(spot.complain("out_of_range", "`jitter` must not be longer than the interval"));
        }
        schedule.jitter = jitter;
    }
    schedule.paused = fields.word("start", &[("now", false), ("paused", true)], out).unwrap_or(false);
    if let Some((timeout, spot)) = fields.duration("timeout", out) {
        if timeout.is_zero() {
            out.push(spot.complain("out_of_range", "`timeout` must be more than 0"));
        }
        schedule.timeout = timeout;
    }
    fields.finish(out);
    schedule
}

fn full(node: Node, out: &mut Out) -> Option<Tick> {
    match &node.content {
        Content::Text(text) => Some(take(every(text).map(Tick::Every), &node.spot, out)),
        Content::Map(_) => {
            let mut fields = Fields::open(node, "`full`", out)?;
            let tick = tick(&mut fields, out);
            if tick.is_none() {
                out.push(fields.spot.complain("missing_key", "`full` needs `every` or `cron`"));
            }
            fields.finish(out);
            tick
        }
        _ => {
            out.push(bad_type(&node, "`full`", "an interval or a map"));
            None
        }
    }
}

/// `every` or `cron`; none if neither is written.
fn tick(fields: &mut Fields, out: &mut Out) -> Option<Tick> {
    let every_at = fields.text("every", out);
    let cron_at = fields.text("cron", out);
    match (every_at, cron_at) {
        (Some(_), Some((_, spot))) => {
            out.push(spot.complain("two_schedules", format!("{} has both `every` and `cron`", fields.what)));
            Some(Schedule::default().tick)
        }
        (Some((text, spot)), None) => Some(take(every(&text).map(Tick::Every), &spot, out)),
        (None, Some((text, spot))) => Some(take(cron(&text), &spot, out)),
        (None, None) => None,
    }
}

fn take(tick: Result<Tick, ScheduleRefusal>, spot: &SourceSpan, out: &mut Out) -> Tick {
    tick.unwrap_or_else(|(code, message)| {
        out.push(spot.complain(code, message));
        Tick::Every(Duration::from_secs(3_600))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everyday_spellings() {
        for (text, seconds) in [
            ("30s", 30),
            ("every 5m", 300),
            ("every half hour", 1_800),
            ("every hour", 3_600),
            ("every day", 86_400),
            ("Every 2 Hours", 7_200),
            ("every 15 minutes", 900),
            ("every week", 604_800),
            ("every half day", 43_200),
            ("every 1d", 86_400),
            ("hourly", 3_600),
            ("every 90sec", 90),
            ("half an hour", 1_800),
            ("every month", 2_592_000),
        ] {
            assert_eq!(schedule(text), Ok(Tick::Every(Duration::from_secs(seconds))), "{text}");
        }
        for text in [
            "",
            "every",
            "every 5",
            "5",
            "14s",
            "every 10 seconds",
            "0s",
            "every fortnight",
            "-5m",
            "400d",
            "every 99999999999999999999s",
            "1500ms",
        ] {
            assert!(schedule(text).is_err(), "{text}");
        }
    }

    #[test]
    fn cron_has_five_fields() {
        assert_eq!(cron("0 3 * * 0"), Ok(Tick::Cron("0 3 * * 0".to_owned())));
        for text in ["* * * * * *", "61 * * * *", "", "a b c d e"] {
            assert_eq!(cron(text).map_err(|e| e.0), Err("bad_cron"), "{text}");
        }
    }
}
