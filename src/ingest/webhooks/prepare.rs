//! One log entry as one batch: its observations, the ids it used up, the records to be read again, what could not be taken.

use super::events::{FunctionEvent, LaneKey};
use super::refetch::{RefetchRequest, RefetchRow};
use super::runs::WantedRun;
use super::{HooksInner, add};
use crate::connectors::definition::{Definition, Hydrate};
use crate::connectors::webhooks::{
    Effect, EventId, EventOutcome, EventRejection, Observer, Routed, StoredWebhook, Verdict,
};
use crate::engine::fault::pass;
use crate::engine::model::{Cause, DatasetId, DatasetName, Timestamp};
use crate::engine::pipeline::{Batch, Dataset, DatasetSpec, Error, Mark, PageBuilder};
use crate::engine::source::{Body, Connection, Observation, Quarantined};
use crate::engine::store::journal::JournalLine;
use crate::ingest::dedup::ReservedIds;
use crate::telemetry::record;
use serde_json::json;
use std::collections::BTreeSet;
use std::time::Duration;

/// Stream name under which complaints about a whole event are kept.
const WHOLE: &str = "webhook";

/// A batch, and what is to be done once it is committed.
pub(super) struct Prepared {
    pub batch: Batch,
    pub reserved: ReservedIds,
    pub follow_up: FollowUp,
    /// What the journal says of it.
    pub line: Option<JournalLine>,
}

/// What is to be done behind a commit, beside what its marks remember.
#[derive(Default)]
pub(super) struct FollowUp {
    pub refetches: Vec<RefetchRequest>,
    /// Lanes of functions that have got an event.
    pub lanes: BTreeSet<LaneKey>,
    /// Streams to be asked for what has changed.
    pub runs: BTreeSet<WantedRun>,
}

/// How many events of a request went which way, as far as they are this shard's.
#[derive(Clone, Copy, Default)]
struct EventTally {
    applied: u32,
    duplicate: u32,
    unrouted: u32,
    rejected: u32,
    /// No entry of `map` fits.
    unmapped: u32,
    /// Another shard's.
    elsewhere: u32,
}

impl EventTally {
    /// The count of events that were taken and had this outcome.
    fn of(&mut self, outcome: &str) -> &mut u32 {
        match outcome {
            "rejected" => &mut self.rejected,
            "unmapped" => &mut self.unmapped,
            _ => &mut self.applied,
        }
    }
}

/// A batch in the making.
pub(super) struct WebhookBatch<'a> {
    inner: &'a HooksInner,
    position: u64,
    now: Timestamp,
    environment: &'a str,
    source: &'a str,
    received_at: Timestamp,
    /// The request named no connection.
    of_all: bool,
    /// It was processed before: its ids are met, and count for new.
    again: bool,
    pages: Vec<(DatasetId, PageBuilder)>,
    marks: Vec<Mark>,
    reserved: ReservedIds,
    follow_up: FollowUp,
    /// One function of one connection alone is to take it, and nothing else follows from it.
    only: Option<(&'a str, &'a str)>,
    connection: Option<&'a str>,
    tally: EventTally,
}

/// The batch of a log entry.
pub(super) fn prepare(inner: &HooksInner, position: u64, bytes: &[u8]) -> Result<Prepared, Error> {
    let now = inner.parts.engine.clock().now();
    let stored = match StoredWebhook::decode(bytes) {
        Ok(stored) => stored,
        Err(why) => return refused(inner, position, "bad_entry", &why.to_string()),
    };
    let mut draft = WebhookBatch::new(inner, position, &stored, now);
    let taken = match inner.observers.get(&stored.head.source) {
        Some(observer) => observe_all(inner, &observer, &stored, &mut draft),
        None => draft.refuse("", "unknown_source", format!("no definition of source {} is loaded", stored.head.source)),
    };
    draft.finish(taken)
}

fn observe_all(
    inner: &HooksInner,
    observer: &Observer,
    stored: &StoredWebhook,
    draft: &mut WebhookBatch<'_>,
) -> Result<(), Error> {
    let accounts = inner.accounts(&stored.head.environment, &stored.head.source);
    for outcome in observer.observe(stored, &accounts) {
        draft.take(observer.definition(), outcome)?;
    }
    Ok(())
}

/// A batch that says only why the entry could not be taken.
pub(super) fn refused(inner: &HooksInner, position: u64, code: &'static str, why: &str) -> Result<Prepared, Error> {
    add(&inner.tally.rejected, 1);
    let what = Quarantined { code, message: why.to_owned(), id: None, item: String::new() };
    let id = Cause::webhook(position).to_string();
    let marks = vec![inner.quarantine(["", "", "", WHOLE], &id, position, &what)?];
    let line = Some(JournalLine::webhook(id, "rejected").details(json!({"reason": code})));
    Ok(Prepared {
        batch: Batch { marks, ..Batch::default() },
        reserved: inner.dedup.batch(),
        follow_up: FollowUp::default(),
        line,
    })
}

impl<'a> WebhookBatch<'a> {
    pub fn new(inner: &'a HooksInner, position: u64, stored: &'a StoredWebhook, now: Timestamp) -> Self {
        WebhookBatch {
            inner,
            position,
            now,
            environment: &stored.head.environment,
            source: &stored.head.source,
            received_at: stored.received_at(),
            of_all: stored.head.connection.is_none(),
            again: false,
            pages: Vec::new(),
            marks: Vec::new(),
            reserved: inner.dedup.batch(),
            follow_up: FollowUp::default(),
            only: None,
            connection: stored.head.connection.as_deref(),
            tally: EventTally::default(),
        }
    }

    /// Of a request that was processed before.
    pub fn again(inner: &'a HooksInner, position: u64, stored: &'a StoredWebhook, now: Timestamp) -> Self {
        WebhookBatch { again: true, ..WebhookBatch::new(inner, position, stored, now) }
    }

    /// Of such a request, one function of one connection.
    pub fn only(self, connection: &'a str, sync: &'a str) -> Self {
        WebhookBatch { only: Some((connection, sync)), ..self }
    }

    /// Adds what an event says, unless it was met before.
    pub fn take(&mut self, definition: &Definition, outcome: EventOutcome) -> Result<(), Error> {
        add(&self.inner.tally.events, 1);
        let EventOutcome { index, event_id, verdict } = outcome;
        match verdict {
            // Of what a function is asked about again, nothing else is to come.
            Verdict::Rejected(_) | Verdict::Unrouted { .. } if self.only.is_some() => Ok(()),
            // A request to all parts is complained about once.
            Verdict::Rejected(_) if self.is_elsewhere() => {
                self.tally.elsewhere += 1;
                Ok(())
            }
            Verdict::Rejected(what) => {
                add(&self.inner.tally.rejected, 1);
                self.tally.rejected += 1;
                record::event(self.environment, self.source, "rejected");
                self.keep("", WHOLE, index, 0, &what)
            }
            Verdict::Unrouted { field, value } => self.unrouted(definition, index, event_id, field, value),
            Verdict::Routed(routed) => {
                pass("in.attributed");
                for (n, one) in routed.into_iter().enumerate() {
                    if self.reserve(&one.connection.id, event_id.as_ref())? {
                        let outcome = self.outcome(&one);
                        *self.tally.of(outcome) += 1;
                        record::event(self.environment, self.source, outcome);
                        self.apply(definition, index, n, one)?;
                    } else {
                        add(&self.inner.tally.duplicates, 1);
                        self.tally.duplicate += 1;
                        record::event(self.environment, self.source, "duplicate");
                    }
                }
                Ok(())
            }
        }
    }

    /// What became of an event for one connection. One that no entry of `map` fits is told of, the first of its kind.
    fn outcome(&self, one: &Routed) -> &'static str {
        let Some(kind) = &one.unmapped else {
            return if one.complaints.is_empty() { "applied" } else { "rejected" };
        };
        add(&self.inner.tally.unmapped, 1);
        if self.inner.is_new_unmapped(self.source, kind) {
            let (source, connection) = (self.source, &*one.connection.id);
            let cause = Cause::webhook(self.position).to_string();
            tracing::warn!(
                source,
                connection,
                kind,
                cause,
                "no entry of webhooks.map fits an event; others of its kind are only counted"
            );
        }
        "unmapped"
    }

    /// The mark is part of the batch.
    pub fn mark(&mut self, mark: Mark) {
        self.marks.push(mark);
    }

    /// The batch; after an error the reserved ids are given back.
    pub fn finish(mut self, taken: Result<(), Error>) -> Result<Prepared, Error> {
        taken.inspect_err(|_| self.reserved.release())?;
        let entry = Cause::webhook(self.position).to_string();
        let line = self.line(entry.clone());
        self.marks.extend(self.reserved.marks(&entry, self.now));
        pass("in.deduped");
        let pages: Vec<PageBuilder> = self.pages.into_iter().map(|(_, page)| page).collect();
        let cause = (!pages.is_empty()).then(|| Cause::webhook(self.position));
        let batch = Batch { cause, pages, marks: self.marks, ..Batch::default() };
        Ok(Prepared { batch, reserved: self.reserved, follow_up: self.follow_up, line })
    }

    /// What the journal says; nothing where the request held nothing for this shard. The outcome is that of the event for which
    /// somebody may have to act.
    fn line(&self, id: String) -> Option<JournalLine> {
        let EventTally { applied, duplicate, unrouted, rejected, unmapped, elsewhere } = self.tally;
        let outcome = match self.tally {
            EventTally { rejected: 1.., .. } => "rejected",
            EventTally { unrouted: 1.., .. } => "unrouted",
            EventTally { unmapped: 1.., .. } => "unmapped",
            EventTally { applied: 1.., .. } => "applied",
            EventTally { duplicate: 1.., .. } => "duplicate",
            EventTally { .. } if elsewhere > 0 || self.is_elsewhere() => return None,
            EventTally { .. } => "empty",
        };
        let line = JournalLine::webhook(id, outcome).environment(self.environment).source(self.source);
        let line = line
            .details(json!({
            "applied": applied, "duplicate": duplicate, "unrouted": unrouted, "rejected": rejected, "unmapped": unmapped,
        }));
        Some(match self.connection {
            Some(connection) => line.connection(connection),
            None => line,
        })
    }

    /// Whether the request went to all shards and another one keeps what is nobody's.
    fn is_elsewhere(&self) -> bool {
        let other_shards = self.inner.parts.other_shards.as_ref();
        self.of_all && other_shards.is_some_and(|n| !(n.is_default)(self.environment, self.source))
    }

    fn reserve(&mut self, connection: &str, id: Option<&EventId>) -> Result<bool, Error> {
        let Some(id) = id.filter(|_| !self.again) else { return Ok(true) };
        let key = [self.environment, self.source, connection, &id.text].map(str::to_owned);
        let expiry = self.received_at.plus(id.keep());
        self.reserved.reserve(&self.inner.parts.engine, key, expiry, self.received_at)
    }

    fn unrouted(
        &mut self,
        definition: &Definition,
        index: usize,
        id: Option<EventId>,
        field: String,
        value: String,
    ) -> Result<(), Error> {
        let other_shards = self.inner.parts.other_shards.as_ref();
        if other_shards.is_some_and(|n| n.keep(self.environment, self.source, &field, &value)) {
            self.tally.elsewhere += 1;
            return Ok(());
        }
        add(&self.inner.tally.unrouted, 1);
        self.tally.unrouted += 1;
        record::event(self.environment, self.source, "unrouted");
        if definition.webhooks.as_ref().is_some_and(|w| w.drop_unrouted) || !self.reserve("", id.as_ref())? {
            return Ok(());
        }
        let (environment, source) = (self.environment, self.source);
        tracing::info!(source, environment, field, value, "an unrouted event waits for a connection with this value");
        let unrouted = super::unrouted::UnroutedEvent { index, field, value, at: self.received_at.0 };
        match self.inner.unrouted.keep(environment, source, self.position, &unrouted) {
            Some(mark) => self.marks.push(mark),
            None => {
                let most = super::unrouted::MOST;
                let why =
                    format!("{most} events of {source} wait for a connection with their {}; add it", unrouted.field);
                self.refuse("", "too_many_parked", why)?;
            }
        }
        Ok(())
    }

    fn apply(&mut self, definition: &Definition, index: usize, nth: usize, routed: Routed) -> Result<(), Error> {
        if let Some((connection, sync)) = self.only {
            let own = routed.effects.iter().filter(|_| *routed.connection.id == *connection);
            let its = own.filter(|effect| matches!(effect, Effect::Handle { sync: of, .. } if of == sync));
            return its.cloned().try_for_each(|effect| self.effect(definition, index, &routed.connection, effect));
        }
        let connection = &routed.connection;
        for (n, EventRejection { stream, quarantined }) in routed.complaints.iter().enumerate() {
            add(&self.inner.tally.rejected, 1);
            let stream = if stream.is_empty() { WHOLE } else { stream };
            self.keep(&connection.id, stream, index, nth * 1_000 + n, quarantined)?;
        }
        let account = self.inner.parts.connections.get(self.environment, self.source, &connection.id);
        for effect in routed.effects {
            let taken = account.as_ref().is_none_or(|account| match &effect {
                Effect::Seen { stream, .. } | Effect::Fetch { stream, .. } | Effect::Run { stream } => {
                    match definition.writer(stream) {
                        Some(function) => account.takes(function),
                        None => account.takes_stream(stream),
                    }
                }
                Effect::Handle { sync, .. } => definition.function_sync(sync).is_some_and(|it| account.takes(it)),
            });
            if taken {
                self.effect(definition, index, connection, effect)?;
            }
        }
        Ok(())
    }

    fn effect(
        &mut self,
        definition: &Definition,
        index: usize,
        connection: &Connection,
        effect: Effect,
    ) -> Result<(), Error> {
        match effect {
            Effect::Seen { stream, observation } => self.see(definition, connection, &stream, &observation),
            Effect::Fetch { stream, key, partition, when } => self.refetch(connection, stream, key, partition, when),
            Effect::Run { stream } => {
                let place = [self.environment, self.source, &connection.id, &stream];
                self.follow_up.runs.insert(place.map(str::to_owned));
                Ok(())
            }
            Effect::Handle { sync, event } => {
                let lane = [self.environment, self.source, &connection.id, &sync].map(str::to_owned);
                let (position, received_at) = (self.position, self.received_at);
                let event = FunctionEvent { lane, position, index, received_at, event: &event };
                self.marks.push(event.mark()?);
                self.follow_up.lanes.insert(event.lane);
                Ok(())
            }
        }
    }

    fn see(
        &mut self,
        definition: &Definition,
        connection: &Connection,
        stream: &str,
        observation: &Observation,
    ) -> Result<(), Error> {
        let dataset = dataset(self.inner, definition, self.environment, self.source, &connection.id, stream)?;
        if !self.pages.iter().any(|(id, _)| *id == dataset.id) {
            self.pages.push((dataset.id, self.inner.parts.engine.page(&dataset)));
        }
        if let Some((_, page)) = self.pages.iter_mut().find(|(id, _)| *id == dataset.id) {
            lay(page, observation);
        }
        Ok(())
    }

    fn refetch(
        &mut self,
        connection: &Connection,
        stream: String,
        key: String,
        partition: Vec<(String, String)>,
        when: Hydrate,
    ) -> Result<(), Error> {
        let (quiet, max_wait) = match when {
            Hydrate::Never => return Ok(()),
            Hydrate::Now => (Duration::ZERO, Duration::ZERO),
            Hydrate::Debounce { quiet, max_wait } => (quiet, max_wait),
        };
        let row = RefetchRow::new(self.received_at, quiet, max_wait, partition);
        let key = [self.environment, self.source, &connection.id, &stream, &key].map(str::to_owned);
        let refetch = RefetchRequest { key, position: self.position, row };
        self.marks.push(refetch.mark()?);
        self.follow_up.refetches.push(refetch);
        Ok(())
    }

    fn keep(
        &mut self,
        connection: &str,
        stream: &str,
        index: usize,
        n: usize,
        what: &Quarantined,
    ) -> Result<(), Error> {
        let id = format!("{}.{index}.{n}", Cause::webhook(self.position));
        let place = [self.environment, self.source, connection, stream];
        self.marks.push(self.inner.quarantine(place, &id, self.position, what)?);
        record::kept_aside(self.environment, self.source, stream);
        // Without its message, which may quote the event.
        tracing::warn!(
            source = self.source,
            connection,
            stream,
            code = what.code,
            cause = id,
            "an event was quarantined"
        );
        Ok(())
    }

    fn refuse(&mut self, connection: &str, code: &'static str, message: String) -> Result<(), Error> {
        add(&self.inner.tally.rejected, 1);
        let what = Quarantined { code, message, id: None, item: String::new() };
        self.keep(connection, WHOLE, 0, 0, &what)
    }
}

/// The dataset of a stream, registered if this is its first record.
pub(super) fn dataset(
    inner: &HooksInner,
    definition: &Definition,
    environment: &str,
    source: &str,
    connection: &str,
    stream: &str,
) -> Result<Dataset, Error> {
    let name = DatasetName::base(environment, source, connection, stream);
    if let Some(dataset) = inner.parts.engine.find(&name) {
        return Ok(dataset);
    }
    let stream = definition.stream(stream).ok_or_else(|| Error::UnknownDataset(name.to_string()))?;
    let spec = DatasetSpec { strategy: stream.merge, ignore_in_diff: stream.ignore_in_diff.clone() };
    inner.parts.engine.dataset(&name, &spec)
}

/// Adds an observation to a page.
pub(super) fn lay(page: &mut PageBuilder, seen: &Observation) {
    match &seen.body {
        Body::Whole(text) => page.save(&seen.id, seen.modified_at, seen.observed_at, text.as_bytes()),
        Body::Patch(text) => page.patch(&seen.id, seen.modified_at, seen.observed_at, text.as_bytes()),
        Body::Gone { deleted_at } => page.delete(&seen.id, seen.modified_at, seen.observed_at, *deleted_at),
    }
}
