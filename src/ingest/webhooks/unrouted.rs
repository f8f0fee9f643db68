//! Events nobody owns yet: kept for a week, and run again when somebody may own them.
//!
//! Promises: what waits is looked at again at the start and after each change of a connection of its source, in the
//! background; an event that is being processed while a connection changes is not missed.

use super::prepare::WebhookBatch;
use super::{Hooks, HooksInner};
use crate::connectors::webhooks::{SourceConnections, StoredWebhook, Verdict};
use crate::engine::Engine;
use crate::engine::model::{Cause, Timestamp};
use crate::engine::pipeline::{Batch, Error, Mark};
use crate::keyspaces;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, HashMap};
use std::time::Duration;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Most events that wait, of one source in one environment.
pub const MOST: usize = 10_000;
/// How long they wait.
const KEEP: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// What is kept of an unrouted event; the event itself is in the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct UnroutedEvent {
    /// Place of the event in its request.
    pub index: usize,
    /// Field connections were compared by.
    pub field: String,
    /// Value nobody had.
    pub value: String,
    /// Receipt, microseconds.
    pub at: i64,
}

/// What is known of events that wait, by environment and source.
#[derive(Default)]
pub(super) struct Unrouted {
    counts: Mutex<HashMap<(String, String), usize>>,
    /// Whose connections have changed since: never more than there are sources in environments.
    changed: Mutex<BTreeSet<(String, String)>>,
    wake: Notify,
}

impl Unrouted {
    pub fn load(engine: &Engine) -> Result<Self, Error> {
        let mut counts = HashMap::new();
        for (key, _) in engine.marks(keyspaces::UNROUTED, &[])? {
            if let [environment, source, ..] = key.as_slice() {
                *counts.entry((environment.clone(), source.clone())).or_insert(0) += 1;
            }
        }
        Ok(Unrouted { counts: Mutex::new(counts), ..Unrouted::default() })
    }

    /// The mark that parks an event; `None` when too many wait.
    pub fn keep(&self, environment: &str, source: &str, position: u64, row: &UnroutedEvent) -> Option<Mark> {
        let value = serde_json::to_vec(row).ok()?;
        let mut counts = self.counts.lock();
        let count = counts.entry((environment.to_owned(), source.to_owned())).or_insert(0);
        if *count >= MOST {
            return None;
        }
        *count += 1;
        Some(Mark::put(keyspaces::UNROUTED, &[environment, source, &name(position, row.index)], value))
    }

    /// Environments and sources of which events wait.
    fn places(&self) -> Vec<(String, String)> {
        let counts = self.counts.lock();
        counts.iter().filter(|(_, count)| **count > 0).map(|(place, _)| place.clone()).collect()
    }

    /// Takes the sources whose connections have changed.
    fn take_changed(&self) -> BTreeSet<(String, String)> {
        std::mem::take(&mut *self.changed.lock())
    }

    fn gone(&self, environment: &str, source: &str, n: usize) {
        let mut counts = self.counts.lock();
        if let Some(count) = counts.get_mut(&(environment.to_owned(), source.to_owned())) {
            *count = count.saturating_sub(n);
        }
    }
}

/// Sorts by position.
fn name(position: u64, index: usize) -> String {
    format!("{position:016x}.{index}")
}

fn position_of(name: &str) -> Option<u64> {
    u64::from_str_radix(name.split('.').next()?, 16).ok()
}

impl Hooks {
    /// How many events of a source wait for a connection.
    pub fn unrouted(&self, environment: &str, source: &str) -> Result<usize, Error> {
        Ok(self.inner.parts.engine.marks(keyspaces::UNROUTED, &[environment, source])?.len())
    }

    /// Runs all unrouted events again: at the start, when files may have brought new connections.
    pub(super) async fn reprocess_all_unrouted(&self) -> Result<(), Error> {
        for (environment, source) in self.inner.unrouted.places() {
            self.reprocess_unrouted(&environment, &source).await?;
        }
        Ok(())
    }

    /// Says that metadata or fields of a connection changed: what of its source waits is run again in the background.
    pub fn connection_changed(&self, environment: &str, source: &str) {
        let unrouted = &self.inner.unrouted;
        let mut changed = unrouted.changed.lock();
        changed.insert((environment.to_owned(), source.to_owned()));
        unrouted.wake.notify_one();
    }

    /// Runs unrouted events of a source again. Answers how many found their connection.
    pub async fn reprocess_unrouted(&self, environment: &str, source: &str) -> Result<usize, Error> {
        let inner = &self.inner;
        let waiting = {
            // What is being processed may have been routed by the connections of before: first it has to be unrouted.
            let _held = inner.follower.hold().await;
            inner.parts.engine.marks(keyspaces::UNROUTED, &[environment, source])?
        };
        let accounts = inner.accounts(environment, source);
        let mut found = 0;
        for (rest, value) in waiting {
            let ([name], Ok(row)) = (rest.as_slice(), serde_json::from_slice::<UnroutedEvent>(&value)) else {
                continue;
            };
            let owned = match row.field.as_str() {
                "id" => accounts.by_id(&row.value).is_some(),
                field => !accounts.by_field(field, &row.value).is_empty(),
            };
            if owned && again(inner, environment, source, name, &row).await? {
                found += 1;
            }
        }
        Ok(found)
    }
}

/// Runs events again whose source has a changed connection, until `stop` is cancelled or the store stops.
pub(super) async fn run(hooks: Hooks, stop: CancellationToken) -> Result<(), Error> {
    loop {
        tokio::select! {
            () = hooks.inner.unrouted.wake.notified() => {}
            () = stop.cancelled() => return Ok(()),
        }
        for (environment, source) in hooks.inner.unrouted.take_changed() {
            let done = tokio::select! {
                done = hooks.reprocess_unrouted(&environment, &source) => done,
                () = stop.cancelled() => return Ok(()),
            };
            match done {
                Ok(0) => {}
                Ok(found) => tracing::info!(source, environment, found, "events that waited have found a connection"),
                Err(Error::Stopped) => return Ok(()),
                // They wait on: the next change or start runs them again.
                Err(error) => tracing::warn!(source, environment, %error, "events that wait could not be run again"),
            }
        }
    }
}

/// Runs one unrouted event again; false if it still belongs to nobody.
async fn again(
    inner: &HooksInner,
    environment: &str,
    source: &str,
    name: &str,
    row: &UnroutedEvent,
) -> Result<bool, Error> {
    let done = Mark::delete(keyspaces::UNROUTED, &[environment, source, name]);
    let log = inner.parts.engine.log();
    let position = position_of(name).unwrap_or(0);
    let entry = log.read(position.saturating_sub(1), 1)?;
    let stored = entry.first().filter(|(at, _)| *at == position).and_then(|(_, b)| StoredWebhook::decode(b).ok());
    let (Some(stored), Some(observer)) = (stored, inner.observers.get(source)) else { return Ok(false) };
    let accounts = inner.accounts(environment, source);
    let outcome = observer.observe(&stored, &accounts).into_iter().find(|o| o.index == row.index);
    let Some(outcome) = outcome.filter(|o| matches!(o.verdict, Verdict::Routed(_))) else { return Ok(false) };
    let mut draft = WebhookBatch::new(inner, position, &stored, inner.parts.engine.clock().now());
    let taken = draft.take(observer.definition(), outcome);
    draft.mark(done);
    let prepared = draft.finish(taken)?;
    let committed = inner.parts.engine.commit(prepared.batch).await;
    prepared.reserved.release();
    super::process::rejected(inner, &format!("{}.{}", Cause::webhook(position), row.index), &committed?).await?;
    inner.committed();
    inner.follow_up(prepared.follow_up);
    inner.unrouted.gone(environment, source, 1);
    Ok(true)
}

/// Drops what has waited too long.
pub(super) async fn expire(inner: &HooksInner, now: Timestamp) -> Result<(), Error> {
    let mut marks = Vec::new();
    for (key, value) in inner.parts.engine.marks(keyspaces::UNROUTED, &[])? {
        let old = serde_json::from_slice::<UnroutedEvent>(&value).is_ok_and(|row| Timestamp(row.at).plus(KEEP) <= now);
        if let ([environment, source, name], true) = (key.as_slice(), old) {
            tracing::warn!(
                environment,
                source,
                webhook = name,
                "a webhook found no connection in 7 days and is dropped"
            );
            inner.unrouted.gone(environment, source, 1);
            marks.push(Mark::delete(keyspaces::UNROUTED, &[environment, source, name]));
        }
    }
    if !marks.is_empty() {
        inner.parts.engine.commit(Batch { marks, ..Batch::default() }).await?;
    }
    Ok(())
}
