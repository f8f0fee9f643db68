//! Processes a request again because something of it lies in quarantine: after the definition was mended, or the provider was.
//!
//! Promises: what was processed well before has no second effect, because observations carry the time of the first receipt and
//! merge as they did then; what cannot be taken now either is in quarantine with its new reason. An event that a function could not
//! take is put before the function again, and nothing else follows from it. An event that nothing would take now stays where it is.

use super::prepare::WebhookBatch;
use super::{Hooks, events};
use crate::connectors::webhooks::StoredWebhook;
use crate::engine::model::Cause;
use crate::engine::pipeline::{Error, QuarantineRow, quarantine_entry, remove_from_quarantine};

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Retried {
    /// It was taken.
    Taken,
    /// It is in quarantine again.
    Kept,
    /// It cannot be processed again: why, and what to do.
    Impossible(&'static str),
}

/// An entry stays whose event is not found …
const NOT_FOUND: &str =
    "its request has no such event by webhooks.events of the definition in force: mend it, or drop the entry";
/// … or goes to no function.
const NOT_TAKEN: &str = "its function is gone, does not subscribe to events of this type, or the event is not its connection's any \
    more: mend webhookSubscriptions, webhooks.type or webhooks.route, or drop the entry";

impl Hooks {
    /// Processes the request again that an entry is about.
    pub async fn retry(&self, environment: &str, row: &QuarantineRow) -> Result<Retried, Error> {
        let inner = &self.inner;
        let mut parts = row.name().split('.');
        let position = parts.next().and_then(Cause::parse).map_or(0, |cause| cause.number);
        let index: Option<usize> = parts.next().and_then(|index| index.parse().ok());
        let read = inner.parts.engine.log().read(position.saturating_sub(1), 1)?;
        let Some(stored) =
            read.first().filter(|(at, _)| *at == position).and_then(|(_, bytes)| StoredWebhook::decode(bytes).ok())
        else {
            return Ok(Retried::Impossible("its request is not in the log any more, which keeps 8 days: drop it"));
        };
        let own = stored.head.environment == environment && stored.head.source == row.place[0];
        let Some(observer) = inner.observers.get(&stored.head.source).filter(|_| own) else {
            return Ok(Retried::Impossible("its source has no definition any more: drop it"));
        };
        let mut draft = WebhookBatch::again(inner, position, &stored, inner.parts.engine.clock().now());
        if let Some(sync) = events::function_of(row.name()) {
            draft = draft.only(&row.place[1], sync);
        }
        // First: what is refused again is put under the same key behind it.
        draft.mark(remove_from_quarantine(environment, row));
        let accounts = inner.accounts(environment, &stored.head.source);
        let outcomes = observer.observe(&stored, &accounts).into_iter();
        let mut outcomes = outcomes.filter(|outcome| index.is_none_or(|index| outcome.index == index)).peekable();
        if index.is_some() && outcomes.peek().is_none() {
            return Ok(Retried::Impossible(NOT_FOUND));
        }
        let taken = outcomes.try_for_each(|outcome| draft.take(observer.definition(), outcome));
        let prepared = draft.finish(taken)?;
        if events::function_of(row.name()).is_some() && prepared.follow_up.lanes.is_empty() {
            return Ok(Retried::Impossible(NOT_TAKEN));
        }
        let receipt = inner.parts.engine.commit(prepared.batch).await?;
        let batch = row.name().split(".record.").next().unwrap_or_default();
        super::process::rejected(inner, batch, &receipt).await?;
        inner.committed();
        inner.follow_up(prepared.follow_up);
        let still = quarantine_entry(&inner.parts.engine, environment, row)?;
        inner.forget_quarantine(environment, row);
        Ok(if still.is_some() { Retried::Kept } else { Retried::Taken })
    }

    /// Something was removed from the quarantine: what is known of its place is read anew when it is needed.
    pub fn quarantine_changed(&self, environment: &str, row: &QuarantineRow) {
        self.inner.forget_quarantine(environment, row);
    }
}
