//! A point in time: microseconds since the Unix epoch, UTC.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// Microseconds since 1970-01-01T00:00:00Z. Shown as RFC 3339 with six fraction digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// Earlier than every time a source can state: stands for "no modified time".
    pub const NONE: Timestamp = Timestamp(i64::MIN);

    /// From whole milliseconds since the epoch; saturates.
    pub fn from_millis(ms: i64) -> Self {
        Timestamp(ms.saturating_mul(1_000))
    }

    /// From whole seconds since the epoch; saturates.
    pub fn from_seconds(s: i64) -> Self {
        Timestamp(s.saturating_mul(1_000_000))
    }

    /// Reads RFC 3339 text; `None` if it is not. Years -9999 to 9999: an instant at their ends that no text of ours can show
    /// counts as the nearest one that can be shown.
    pub fn parse(text: &str) -> Option<Self> {
        match text.parse::<jiff::Timestamp>() {
            Ok(instant) => Some(Timestamp(shown(instant.as_microsecond()))),
            Err(_) => at_the_ends(text),
        }
    }

    /// Whole milliseconds since the epoch, rounded down.
    pub fn millis(self) -> i64 {
        self.0.div_euclid(1_000)
    }

    /// Whole seconds since the epoch, rounded down.
    pub fn seconds(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }

    /// This time plus `by`; saturates.
    pub fn plus(self, by: Duration) -> Self {
        Timestamp(self.0.saturating_add(i64::try_from(by.as_micros()).unwrap_or(i64::MAX)))
    }

    /// This time minus `by`; saturates.
    pub fn minus(self, by: Duration) -> Self {
        Timestamp(self.0.saturating_sub(i64::try_from(by.as_micros()).unwrap_or(i64::MAX)))
    }

    /// How long after `earlier` this is; zero if it is not after it.
    pub fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// RFC 3339 with `+00:00`, as the compatible REST surface writes times.
    pub fn with_offset(self) -> String {
        let mut text = self.to_string();
        text.pop();
        text.push_str("+00:00");
        text
    }
}

/// `9999-12-31T23:59:59Z` and its like: a date and a time that exist, with an offset, of which the instant lies outside.
fn at_the_ends(text: &str) -> Option<Timestamp> {
    let pieces = jiff::fmt::temporal::Pieces::parse(text).ok()?;
    pieces.time().and(pieces.offset())?;
    let nearest = match pieces.date().year() {
        9999 => jiff::Timestamp::MAX,
        -9999 => jiff::Timestamp::MIN,
        _ => return None,
    };
    Some(Timestamp(shown(nearest.as_microsecond())))
}

/// The nearest instant that can be written as text: the library takes microseconds between whole seconds at both ends.
fn shown(micros: i64) -> i64 {
    let end = |at: jiff::Timestamp| at.as_second() * 1_000_000;
    micros.clamp(end(jiff::Timestamp::MIN), end(jiff::Timestamp::MAX))
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let clamped = shown(self.0);
        match jiff::Timestamp::from_microsecond(clamped) {
            Ok(t) => write!(f, "{t:.6}"),
            Err(_) => write!(f, "{clamped}us"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_has_six_digits_and_both_suffixes() {
        let t = Timestamp::parse("2026-04-14T18:46:03.097459Z").expect("valid");
        assert_eq!(t.to_string(), "2026-04-14T18:46:03.097459Z");
        assert_eq!(t.with_offset(), "2026-04-14T18:46:03.097459+00:00");
        assert_eq!(Timestamp::from_seconds(0).to_string(), "1970-01-01T00:00:00.000000Z");
    }

    #[test]
    fn the_ends_of_time_are_times() {
        let last = Timestamp(shown(i64::MAX));
        for text in [
            "9999-12-31T23:59:59Z",
            "9999-12-31T23:59:59.999999999Z",
            "9999-12-31T23:59:59-23:00",
            "9999-12-31 23:59:59+00:00",
        ] {
            assert_eq!(Timestamp::parse(text), Some(last), "{text}");
        }
        assert_eq!(Timestamp::parse(&last.to_string()), Some(last));
        assert!(Timestamp::parse("0000-01-01T00:00:00Z").is_some_and(|at| at < Timestamp(0)));
        for text in [
            "9999-12-32T23:59:59Z",
            "9999-13-31T23:59:59Z",
            "9999-12-31T23:59:59",
            "9999-12-31",
            "10000-01-01T00:00:00Z",
            "0000-00-00T00:00:00Z",
        ] {
            assert_eq!(Timestamp::parse(text), None, "{text}");
        }
    }
}
