//! Records to be read again after a webhook that only hints, once things are quiet.
//!
//! Each hint is a mark of its own, committed with its event, so a crash loses none; hints of one record coalesce into one
//! request. A hint that comes while its record is being read is not lost: the record is read once more.

use super::prepare::{dataset, lay};
use super::{HooksInner, add};
use crate::connectors::definition::Definition;
use crate::engine::Engine;
use crate::engine::model::{Cause, Timestamp};
use crate::engine::pipeline::{Batch, Error, Mark};
use crate::engine::source::{Ask, Connection, Failure, Page, Part, Quarantined, Source};
use crate::keyspaces;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Requests at a time.
const FETCHES: usize = 16;
/// Waits after failed requests double up to this.
const LONGEST_WAIT: Duration = Duration::from_secs(30 * 60);

/// Environment, source, connection, stream, record key.
pub(super) type WishKey = [String; 5];

/// What is stored of a hint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RefetchRow {
    at: i64,
    quiet_ms: u64,
    max_wait_ms: u64,
    partition: Vec<(String, String)>,
}

impl RefetchRow {
    pub fn new(at: Timestamp, quiet: Duration, max_wait: Duration, partition: Vec<(String, String)>) -> Self {
        let ms = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        RefetchRow { at: at.0, quiet_ms: ms(quiet), max_wait_ms: ms(max_wait), partition }
    }
}

/// A hint that a record changed.
pub(super) struct RefetchRequest {
    pub key: WishKey,
    pub position: u64,
    pub row: RefetchRow,
}

impl RefetchRequest {
    pub fn mark(&self) -> Result<Mark, Error> {
        let value = serde_json::to_vec(&self.row).map_err(|e| Error::BadBatch(e.to_string()))?;
        let position = position_text(self.position);
        let [a, b, c, d, e] = self.key.each_ref().map(String::as_str);
        Ok(Mark::put(keyspaces::REFETCH, &[a, b, c, d, e, &position], value))
    }
}

fn position_text(position: u64) -> String {
    format!("{position:016x}")
}

/// A record that is to be read.
#[derive(Clone, Debug)]
struct WaitingRecord {
    first: Timestamp,
    last: Timestamp,
    quiet: Duration,
    max_wait: Duration,
    partition: Vec<(String, String)>,
    /// Positions of the hints that are not yet answered for.
    hints: Vec<u64>,
    tries: u32,
    /// After a failed request.
    not_before: Option<Timestamp>,
    busy: bool,
}

impl WaitingRecord {
    fn due(&self) -> Timestamp {
        let quiet = self.last.plus(self.quiet).min(self.first.plus(self.max_wait));
        self.not_before.map_or(quiet, |wait| wait.max(quiet))
    }
}

/// All records that are to be read.
pub(super) struct Refetches {
    table: Mutex<BTreeMap<WishKey, WaitingRecord>>,
    changed: Notify,
}

/// Records of one stream, connection and partition, read by one request.
#[derive(Clone, Debug)]
struct RefetchGroup {
    place: [String; 4],
    partition: Vec<(String, String)>,
    /// Key and the hints it answers for.
    keys: Vec<(String, Vec<u64>)>,
    tries: u32,
}

impl Refetches {
    pub fn load(engine: &Engine) -> Result<Self, Error> {
        let refetches = Refetches { table: Mutex::default(), changed: Notify::new() };
        let rows = engine.marks(keyspaces::REFETCH, &[])?.into_iter().filter_map(|(key, value)| {
            let [a, b, c, d, e, position] = <[String; 6]>::try_from(key).ok()?;
            let position = u64::from_str_radix(&position, 16).ok()?;
            Some(RefetchRequest { key: [a, b, c, d, e], position, row: serde_json::from_slice(&value).ok()? })
        });
        refetches.add(rows);
        Ok(refetches)
    }

    pub fn add(&self, refetches: impl IntoIterator<Item = RefetchRequest>) {
        let mut table = self.table.lock();
        let mut any = false;
        for RefetchRequest { key, position, row } in refetches {
            any = true;
            let at = Timestamp(row.at);
            let (quiet, max_wait) = (Duration::from_millis(row.quiet_ms), Duration::from_millis(row.max_wait_ms));
            let waiting = table.entry(key).or_insert_with(|| WaitingRecord {
                first: at,
                last: at,
                quiet,
                max_wait,
                partition: Vec::new(),
                hints: Vec::new(),
                tries: 0,
                not_before: None,
                busy: false,
            });
            waiting.first = waiting.first.min(at);
            waiting.last = waiting.last.max(at);
            waiting.quiet = waiting.quiet.min(quiet);
            waiting.max_wait = waiting.max_wait.min(max_wait);
            waiting.partition = row.partition;
            waiting.hints.push(position);
        }
        drop(table);
        if any {
            self.changed.notify_one();
        }
    }

    /// Takes records that are due and can share a request; `most` says how many a request of that place may read.
    fn take(&self, now: Timestamp, most: impl Fn(&[String; 4]) -> usize) -> Option<RefetchGroup> {
        let mut table = self.table.lock();
        let mut group: Option<(RefetchGroup, usize)> = None;
        for (key, waiting) in table.iter_mut().filter(|(_, w)| !w.busy && w.due() <= now) {
            let [environment, source, connection, stream, id] = key;
            let here = [environment, source, connection, stream].map(String::clone);
            let (group, room) = group.get_or_insert_with(|| {
                let room = most(&here).max(1);
                let partition = waiting.partition.clone();
                (RefetchGroup { place: here.clone(), partition, keys: Vec::new(), tries: waiting.tries }, room)
            });
            if group.keys.len() >= *room || group.place != here {
                break;
            }
            if group.partition == waiting.partition {
                waiting.busy = true;
                group.tries = group.tries.max(waiting.tries);
                group.keys.push((id.clone(), waiting.hints.clone()));
            }
        }
        group.map(|(group, _)| group)
    }

    fn next_due(&self) -> Option<Timestamp> {
        let table = self.table.lock();
        table.values().filter(|w| !w.busy).map(WaitingRecord::due).min()
    }

    /// The hints of a group are answered for; those that came meanwhile stay.
    fn done(&self, group: &RefetchGroup) {
        self.each(group, |waiting, hints| {
            waiting.hints.retain(|hint| !hints.contains(hint));
            waiting.first = waiting.last;
            (waiting.tries, waiting.not_before) = (0, None);
        });
    }

    /// A group is to be tried again.
    fn postpone(&self, group: &RefetchGroup, until: Timestamp) {
        self.each(group, |waiting, _| {
            waiting.tries += 1;
            waiting.not_before = Some(until);
        });
    }

    fn each(&self, group: &RefetchGroup, change: impl Fn(&mut WaitingRecord, &[u64])) {
        let mut table = self.table.lock();
        for (id, hints) in &group.keys {
            let [a, b, c, d] = group.place.clone();
            let key = [a, b, c, d, id.clone()];
            if let Some(waiting) = table.get_mut(&key) {
                waiting.busy = false;
                change(waiting, hints);
                if waiting.hints.is_empty() {
                    table.remove(&key);
                }
            }
        }
        drop(table);
        self.changed.notify_one();
    }
}

/// Reads records as they become due, until `stop` is cancelled or the store fails.
pub(super) async fn run(inner: Arc<HooksInner>, stop: CancellationToken) -> Result<(), Error> {
    let clock = inner.parts.engine.clock();
    let mut tasks: JoinSet<Result<(), Error>> = JoinSet::new();
    loop {
        while tasks.len() < FETCHES {
            match inner.refetches.take(clock.now(), |place| batch(&inner, place)) {
                Some(group) => drop(tasks.spawn(read(inner.clone(), group))),
                None => break,
            }
        }
        let due = if tasks.len() < FETCHES { inner.refetches.next_due() } else { None };
        let tick = async {
            match due {
                Some(at) => clock.sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = inner.refetches.changed.notified() => {}
            () = tick => {}
            Some(done) = tasks.join_next() => match done {
                Ok(Err(Error::Stopped)) => return Ok(()),
                Ok(result) => result?,
                Err(gone) => tracing::error!(%gone, "reading a record again failed"),
            },
            // What was being read is read again at the next start: its marks stand.
            () = stop.cancelled() => return Ok(()),
        }
    }
}

fn batch(inner: &HooksInner, place: &[String; 4]) -> usize {
    let [_, source, _, stream] = place;
    let definition = inner.definition(source);
    let stream = definition.as_ref().and_then(|definition| definition.stream(stream));
    stream.and_then(|s| s.fetch.as_ref()).map_or(1, |fetch| fetch.batch)
}

/// One request and its commit.
async fn read(inner: Arc<HooksInner>, group: RefetchGroup) -> Result<(), Error> {
    let [environment, source, connection, stream] = &group.place;
    let account = inner.parts.connections.get(environment, source, connection);
    let (Some(account), Some(from), Some(definition)) =
        (account, inner.parts.sources.get(source), inner.definition(source))
    else {
        let why = failure("unknown_connection", format!("{source}/{connection} is not there any more"));
        return give_up(&inner, &group, &why).await;
    };
    let now = inner.parts.engine.clock().now();
    let ask = Ask {
        stream: stream.clone(),
        connection: with_partition(&account.connection, &group.partition),
        variant: "base".to_owned(),
        // A hint says that something changed, not that a record is missing: what "not found" means is the stream's to say.
        part: Part::Incremental { since: now, until: now },
        started_at: now,
    };
    let keys: Vec<String> = group.keys.iter().map(|(key, _)| key.clone()).collect();
    match from.fetch(&ask, &keys).await {
        Ok(page) => commit(&inner, &definition, &group, page).await,
        Err(why) if why.retry && group.tries < from.retry().max => {
            inner.refetches.postpone(&group, wait(&inner, &group, from.as_ref(), &why));
            Ok(())
        }
        Err(why) => give_up(&inner, &group, &why).await,
    }
}

fn wait(inner: &HooksInner, group: &RefetchGroup, from: &dyn Source, why: &Failure) -> Timestamp {
    let retry = from.retry();
    let doubled = retry.from.saturating_mul(1u32.checked_shl(group.tries).unwrap_or(u32::MAX)).min(retry.to);
    // The provider's own word may be longer than any wait of ours; sources bound it.
    inner.parts.engine.clock().now().plus(doubled.min(LONGEST_WAIT).max(why.retry_after.unwrap_or_default()))
}

/// The connection with the event's partition values in place of its own.
fn with_partition(connection: &Arc<Connection>, partition: &[(String, String)]) -> Arc<Connection> {
    if partition.is_empty() {
        return connection.clone();
    }
    let mut changed = Connection::clone(connection);
    for (name, value) in partition {
        changed.partitions.insert(name.clone(), vec![value.clone()]);
    }
    Arc::new(changed)
}

async fn commit(
    inner: &HooksInner,
    definition: &Definition,
    group: &RefetchGroup,
    mut page: Page,
) -> Result<(), Error> {
    let repeats = page.keep_one_each();
    page.warnings.extend(repeats);
    let [environment, source, connection, stream] = &group.place;
    let dataset = dataset(inner, definition, environment, source, connection, stream)?;
    let mut records = inner.parts.engine.page(&dataset);
    for seen in &page.observations {
        lay(&mut records, seen);
    }
    let mut marks = answered(group);
    for (n, what) in page.quarantined.iter().chain(&page.warnings).enumerate() {
        let id = format!("{}.{n}", name(group));
        marks.push(inner.quarantine([environment, source, connection, stream], &id, newest(group), what)?);
    }
    add(&inner.tally.refetched, page.observations.len() as u64);
    let any = !page.observations.is_empty();
    let batch = Batch {
        cause: any.then(|| Cause::webhook(newest(group))),
        pages: if any { vec![records] } else { Vec::new() },
        marks,
        ..Batch::default()
    };
    let receipt = inner.parts.engine.commit(batch).await?;
    super::process::rejected(inner, &name(group), &receipt).await?;
    inner.committed();
    inner.refetches.done(group);
    Ok(())
}

/// The record could not be read: say so where it is seen, and stop asking.
async fn give_up(inner: &HooksInner, group: &RefetchGroup, why: &Failure) -> Result<(), Error> {
    let [environment, source, connection, stream] = &group.place;
    tracing::warn!(source, connection, stream, %why, "a record could not be read after a webhook");
    let mut marks = answered(group);
    for (n, (key, _)) in group.keys.iter().enumerate() {
        let id = format!("{}.{n}", name(group));
        let message = why.to_string();
        let what = Quarantined { code: "hydrate_failed", message, id: Some(key.clone()), item: String::new() };
        marks.push(inner.quarantine([environment, source, connection, stream], &id, newest(group), &what)?);
    }
    inner.parts.engine.commit(Batch { marks, ..Batch::default() }).await?;
    inner.refetches.done(group);
    Ok(())
}

fn newest(group: &RefetchGroup) -> u64 {
    group.keys.iter().flat_map(|(_, hints)| hints).copied().max().unwrap_or(0)
}

/// Names a group in complaints: a request may leave hints of many groups, but the first key of each is its own.
fn name(group: &RefetchGroup) -> String {
    let first = group.keys.first().map(|(key, _)| key);
    let mut hash = Sha256::new();
    for part in group.place.iter().chain(first) {
        hash.update(part);
        hash.update([0]);
    }
    format!("{}.hydrate.{}", Cause::webhook(newest(group)), hex::encode(&hash.finalize()[..8]))
}

/// Marks that take the group's hints away.
fn answered(group: &RefetchGroup) -> Vec<Mark> {
    let [a, b, c, d] = group.place.each_ref().map(String::as_str);
    let each = |(key, hint): (&str, u64)| Mark::delete(keyspaces::REFETCH, &[a, b, c, d, key, &position_text(hint)]);
    group.keys.iter().flat_map(|(key, hints)| hints.iter().map(|hint| (key.as_str(), *hint))).map(each).collect()
}

fn failure(code: &'static str, message: String) -> Failure {
    Failure::lasting(code, message)
}
