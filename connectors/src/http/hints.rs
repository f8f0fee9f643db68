//! What an answer says about when to come back, in whatever unit and form it says it.
//!
//! Promises: no hint is longer than [`HINT_MAX`]; what is negative, endless or no number at all is no hint.

use super::Answer;
use super::client::read_http_date;
use crate::definition::HintHeaders;
use std::time::Duration;
use syncline_engine::model::Timestamp;

/// Longest wait a provider's hint can ask for.
pub const HINT_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// What the headers of an answer say about the budget.
#[derive(Debug, PartialEq)]
pub(super) struct Hints {
    /// Requests left, if that is said.
    pub left: Option<f64>,
    /// How long to wait.
    pub retry_after: Option<Duration>,
    /// How long until there are new ones.
    pub reset: Option<Duration>,
}

impl Hints {
    pub fn read(names: &HintHeaders, answer: &Answer, now: Timestamp) -> Hints {
        // Instants the provider names are by its own clock; its `Date` tells how that one stands.
        let clock = answer.date().unwrap_or(now);
        let hint = |name: &Option<String>, read: fn(&str, Timestamp) -> Option<Duration>| {
            let name = name.as_deref()?;
            let text = answer.header(name)?.trim();
            let thousandth = is_in_millis(name);
            read(text, clock).map(|span| if thousandth && text.parse::<f64>().is_ok() { span / 1_000 } else { span })
        };
        let left = names.remaining.as_deref().and_then(|name| answer.header(name));
        Hints {
            left: left.and_then(|text| text.trim().parse::<f64>().ok()).filter(|left| left.is_finite()),
            retry_after: hint(&names.retry_after, after).map(bounded),
            reset: hint(&names.reset_after, after_or_at).or(hint(&names.reset_epoch, at)).map(bounded),
        }
    }
}

/// How long the header `Retry-After` of an answer asks to wait.
pub(crate) fn retry_after(answer: &Answer, now: Timestamp) -> Option<Duration> {
    let text = answer.header("retry-after")?.trim();
    after(text, answer.date().unwrap_or(now)).map(bounded)
}

/// Whether a header says by its name that it counts in milliseconds: `retry-after-ms`, `X-RateLimit-Reset-Milliseconds`.
fn is_in_millis(name: &str) -> bool {
    let last = name.rsplit(['-', '_']).next().unwrap_or_default();
    ["ms", "millis", "milliseconds"].iter().any(|unit| last.eq_ignore_ascii_case(unit))
}

/// A span from now, or an HTTP date.
fn after(text: &str, clock: Timestamp) -> Option<Duration> {
    seconds(text).or_else(|| instant(text).map(|at| at.since(clock))).or_else(|| span(text))
}

/// The same, but that a number too great to be a span is the instant at which it ends.
fn after_or_at(text: &str, clock: Timestamp) -> Option<Duration> {
    let epoch = seconds(text).is_some_and(|number| number >= EPOCHS);
    if epoch { at(text, clock) } else { after(text, clock) }
}

/// An instant: seconds or milliseconds since 1970, or a date. A number that cannot be one, being years ago, is a span.
fn at(text: &str, clock: Timestamp) -> Option<Duration> {
    let Some(number) = seconds(text) else { return after(text, clock) };
    let since_1970 = if number >= MILLIS { number / 1_000 } else { number };
    let at = Timestamp(0).plus(since_1970);
    Some(if at.plus(YEARS) < clock { number } else { at.since(clock) })
}

/// From here on a number of seconds is an instant, not a span: 31 years.
const EPOCHS: Duration = Duration::from_secs(1_000_000_000);
/// From here on an instant is in milliseconds: as seconds it would lie in the year 5138.
const MILLIS: Duration = Duration::from_secs(100_000_000_000);
/// No reset lies so far back.
const YEARS: Duration = Duration::from_secs(2 * 366 * 24 * 60 * 60);

fn instant(text: &str) -> Option<Timestamp> {
    read_http_date(text).or_else(|| Timestamp::parse(text))
}

/// `6m0s`, `20ms`.
fn span(text: &str) -> Option<Duration> {
    text.parse::<jiff::SignedDuration>().ok().and_then(|span| Duration::try_from(span).ok())
}

fn bounded(span: Duration) -> Duration {
    span.min(HINT_MAX)
}

/// A span as a whole or broken number of seconds. Negative, endless and nonsensical ones are no hint.
fn seconds(text: &str) -> Option<Duration> {
    text.parse::<f64>().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
}
