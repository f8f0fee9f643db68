//! Why an attempt at the outside failed, and how often it is repeated, in words that sources and sinks share.

use std::time::Duration;

/// Why an attempt at the outside failed: a page not brought, a delivery not made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Failure {
    /// Stable word: `http_status`, `network`, `timeout`, `pagination_loop`, `window_cap`, `missing_value`…
    pub code: &'static str,
    /// For people: what, where, what to do next.
    pub message: String,
    /// The provider's status, if it answered.
    pub status: Option<u16>,
    /// Whether another attempt may help.
    pub retry: bool,
    /// The provider's own wish for the wait before the next attempt.
    pub retry_after: Option<Duration>,
}

impl Failure {
    /// Code that says: the bookmark leads nowhere any more, the listing has to begin again.
    pub const BAD_BOOKMARK: &'static str = "bad_bookmark";

    /// One that another attempt may mend.
    pub fn passing(code: &'static str, message: impl Into<String>) -> Failure {
        Failure { code, message: message.into(), status: None, retry: true, retry_after: None }
    }

    /// One that no further attempt will mend.
    pub fn lasting(code: &'static str, message: impl Into<String>) -> Failure {
        Failure { retry: false, ..Failure::passing(code, message) }
    }
}

/// How failed attempts are repeated: waits double from `from` to `to`, with full jitter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Attempts after the first.
    pub max: u32,
    /// First wait.
    pub from: Duration,
    /// Longest wait.
    pub to: Duration,
    /// A uniformly random part of the wait instead of all of it.
    pub jitter: bool,
}

impl Default for Retry {
    /// Five further attempts, after waits of one second to one minute.
    fn default() -> Retry {
        Retry { max: 5, from: Duration::from_secs(1), to: Duration::from_secs(60), jitter: true }
    }
}
