//! Dead letters: deliveries that were given up, kept with the reason until they are sent again, dropped or too old.
//!
//! Promises: at most [`DEAD_MAX`] of them, none older than [`DEAD_AGE`]; what goes for one of these reasons is logged and
//! counted. One that is sent again keeps its id and stands in a queue of its own: those behind it do not wait for it again.

use super::environment_of;
use crate::engine::Engine;
use crate::engine::model::Timestamp;
use crate::engine::pipeline::{Error, Mark};
use crate::engine::sink::Delivery;
use crate::keyspaces;
use serde_json::json;
use std::time::Duration;

/// Most dead letters of a process, or of one part of an installation; beyond, the oldest go.
pub const DEAD_MAX: usize = 10_000;
/// How long they are kept.
pub const DEAD_AGE: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// First key part of their marks.
const DEAD: &str = "dead";

/// A delivery that was given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// The delivery as it last was.
    pub delivery: Delivery,
    /// `rejected`, `exhausted`, `aborted`, `no_endpoint`, `other_environment`.
    pub reason: String,
    /// When it was given up.
    pub at: Timestamp,
}

impl DeadLetter {
    /// Whether an environment may know of it.
    pub fn is_of(&self, environment: &str) -> bool {
        environment_of(&self.delivery) == Some(environment)
    }

    /// The mark that keeps it.
    pub(super) fn keep(&self) -> Result<Mark, Error> {
        let text = serde_json::to_string(&self.delivery).map_err(|e| Error::Storage(e.to_string()))?;
        let value = json!({"format": 1, "reason": self.reason, "at": self.at.to_string(), "delivery": text});
        Ok(Mark::put(keyspaces::SETTING, &[DEAD, &self.delivery.id], value.to_string()))
    }

    /// The mark that removes it.
    pub(super) fn remove(&self) -> Mark {
        Mark::delete(keyspaces::SETTING, &[DEAD, &self.delivery.id])
    }

    /// The same as a delivery that is owed from now on.
    pub(super) fn owed_again(&self, now: Timestamp) -> Delivery {
        let mut delivery = self.delivery.clone();
        let lane = delivery.lane.split('#').next().unwrap_or_default();
        delivery.lane = format!("{lane}#{}", delivery.id);
        (delivery.tries, delivery.next_at) = (0, now);
        delivery
    }

    fn read(value: &[u8]) -> Option<DeadLetter> {
        let value: serde_json::Value = serde_json::from_slice(value).ok()?;
        let delivery = serde_json::from_str(value.get("delivery")?.as_str()?).ok()?;
        let reason = value.get("reason")?.as_str()?.to_owned();
        let at = value.get("at").and_then(|at| Timestamp::parse(at.as_str()?)).unwrap_or(Timestamp::NONE);
        Some(DeadLetter { delivery, reason, at })
    }
}

/// Hands each dead letter behind one with this id to `each`, the oldest first, until that returns false.
pub(super) fn read(
    engine: &Engine,
    after: Option<&str>,
    each: &mut dyn FnMut(DeadLetter) -> bool,
) -> Result<(), Error> {
    let after: Vec<&str> = after.into_iter().collect();
    engine.marks_after(keyspaces::SETTING, &[DEAD], &after, &mut |_, value| {
        DeadLetter::read(value).is_none_or(&mut *each)
    })
}

/// One of them.
pub(super) fn one(engine: &Engine, id: &str) -> Result<Option<DeadLetter>, Error> {
    Ok(engine.mark(keyspaces::SETTING, &[DEAD, id])?.and_then(|value| DeadLetter::read(&value)))
}

/// Drops what is too old, and the oldest of what is too much. How many were dropped.
pub(super) async fn expire(engine: &Engine, now: Timestamp) -> Result<u64, Error> {
    let mut kept = 0;
    read(engine, None, &mut |_| {
        kept += 1;
        true
    })?;
    let (mut beyond, mut marks) = (kept - DEAD_MAX.min(kept), Vec::new());
    read(engine, None, &mut |letter| {
        if beyond > 0 || letter.at.plus(DEAD_AGE) <= now {
            marks.push(letter.remove());
        }
        beyond = beyond.saturating_sub(1);
        true
    })?;
    let dropped = marks.len() as u64;
    if dropped > 0 {
        engine.put_marks(marks).await?;
    }
    Ok(dropped)
}
