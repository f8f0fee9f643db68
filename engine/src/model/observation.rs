//! Versions and merge strategies: who wins when two observations meet on one record.

use super::Timestamp;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// So far a source's clock may stand from ours, where a time of one has to be compared with a time of the other.
pub const CLOCKS_APART: Duration = Duration::from_secs(60);

/// Which observation wins (see `docs/semantics.md`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// The greatest (modified time, observation time, content hash), whatever the order of arrival.
    Latest,
    /// The later in the log, but a polled record loses if another writer changed it after its page was requested, and any
    /// other that states a modified time if a later one is known, or if the record was on a page requested well after it.
    IgnoreIfModifiedAfter,
    /// The later in the log.
    Override,
}

/// The clock of an observation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// The source's modified time; [`Timestamp::NONE`] where the model declares none.
    pub modified_at: Timestamp,
    /// When the data was true at the latest: for a page the instant its request was sent, for a webhook its own time or receipt.
    pub observed_at: Timestamp,
}
