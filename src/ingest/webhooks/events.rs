//! Events that functions take: each function takes those of a connection one after the other, in the order of the log.
//!
//! An event and the functions that subscribe to it are told apart in the commit that moves our place in the log: one mark for each
//! function, with the event. A lane (connection, function) executes its marks in order; what the code wrote and the mark's removal
//! are one commit. Promises: executed at least once, effective once; a function that fails is tried [`ATTEMPTS`] times, then its
//! event is in quarantine and the lane goes on; lanes do not wait for each other beyond [`LANES`] at a time.

use super::prepare::dataset;
use super::{HooksInner, process};
use crate::connectors::definition::FunctionSync;
use crate::engine::model::{Cause, DatasetName, Timestamp};
use crate::engine::pipeline::run::{self, EventOrder, EventReport};
use crate::engine::pipeline::{Batch, Dataset, Error, Mark};
use crate::engine::source::{Failure, Quarantined};
use crate::engine::store::journal::JournalLine;
use crate::ingest::lines::logged;
use crate::keyspaces;
use crate::telemetry::record;
use bytes::Bytes;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Lanes that execute at a time.
const LANES: usize = 16;
/// Events that a lane takes before others have their turn.
const TURN: usize = 32;
/// How often a function is executed for an event.
pub(super) const ATTEMPTS: u32 = 3;
/// Before each further attempt.
pub(crate) const WAITS: [Duration; ATTEMPTS as usize - 1] = [Duration::from_secs(2), Duration::from_secs(10)];
/// Executions in a row that may be lost with their worker without being an attempt.
const LOST_MAX: u32 = 5;
/// Before an event is executed again whose worker was lost.
const LOST_WAIT: Duration = Duration::from_secs(1);
/// What the failure of an execution is called that was not to blame.
#[cfg(feature = "functions")]
const LOST: &str = crate::connectors::functions::LOST;
#[cfg(not(feature = "functions"))]
const LOST: &str = "";

/// Environment, source, connection, sync.
pub(super) type LaneKey = [String; 4];

/// An event for a function.
pub(super) struct FunctionEvent<'a> {
    pub lane: LaneKey,
    /// The log entry that brought it …
    pub position: u64,
    /// … and its number there.
    pub index: usize,
    pub received_at: Timestamp,
    /// JSON.
    pub event: &'a [u8],
}

/// What is stored of it.
#[derive(Serialize, Deserialize)]
struct EventRow<'a> {
    received_at: i64,
    #[serde(borrow)]
    event: &'a RawValue,
}

impl FunctionEvent<'_> {
    /// The mark that has it executed.
    pub fn mark(&self) -> Result<Mark, Error> {
        let bad = |why: serde_json::Error| Error::BadBatch(format!("an event for a function: {why}"));
        let row = EventRow { received_at: self.received_at.0, event: serde_json::from_slice(self.event).map_err(bad)? };
        let value = serde_json::to_vec(&row).map_err(bad)?;
        let (position, index) = (format!("{:016x}", self.position), format!("{:08x}", self.index));
        let [a, b, c, d] = self.lane.each_ref().map(String::as_str);
        Ok(Mark::put(keyspaces::EVENT, &[a, b, c, d, &position, &index], value))
    }
}

/// Name of an event for a function, where something is said about it.
pub(super) fn name(position: u64, index: usize, sync: &str) -> String {
    format!("{}.{index}.function.{sync}", Cause::webhook(position))
}

/// The function that a name of such an event means.
pub(super) fn function_of(name: &str) -> Option<&str> {
    let sync = name.split_once(".function.")?.1;
    Some(sync.split_once(".record.").map_or(sync, |(sync, _)| sync))
}

/// The lanes that have something to do.
#[derive(Default)]
pub(super) struct Lanes {
    table: Mutex<LaneTable>,
    changed: Notify,
    /// Told whenever a lane is no longer busy.
    left: Notify,
}

#[derive(Default)]
struct LaneTable {
    lanes: BTreeMap<LaneKey, Lane>,
    /// Those whose turn it is, in order.
    ready: VecDeque<LaneKey>,
    /// Those that try again later, by when.
    waiting: BTreeSet<(Timestamp, LaneKey)>,
}

#[derive(Default)]
struct Lane {
    state: LaneState,
    /// Something came while it was busy.
    more: bool,
    /// Failed attempts for its first event.
    tries: u32,
    /// Executions for its first event whose worker was lost.
    lost: u32,
    /// Ends what it is doing.
    stop: CancellationToken,
}

#[derive(Clone, Copy, Default, PartialEq)]
enum LaneState {
    #[default]
    Ready,
    Busy,
    Waiting,
}

/// What a lane does next.
enum LaneNext {
    /// It has no event any more.
    Empty,
    /// Its turn is over.
    Turn,
    /// Its first event is executed again then.
    Again(Timestamp),
}

impl Lanes {
    /// All that have an event in the store.
    pub fn load(inner: &crate::engine::Engine) -> Result<Lanes, Error> {
        let lanes = Lanes::default();
        let keys = inner.marks(keyspaces::EVENT, &[])?.into_iter().map(|(mut key, _)| {
            key.truncate(4);
            <LaneKey>::try_from(key).ok()
        });
        lanes.add(keys.flatten());
        Ok(lanes)
    }

    /// Their marks are committed.
    pub fn add(&self, keys: impl IntoIterator<Item = LaneKey>) {
        let mut table = self.table.lock();
        let LaneTable { lanes, ready, .. } = &mut *table;
        for key in keys {
            match lanes.get_mut(&key) {
                Some(lane) => lane.more = true,
                None => {
                    lanes.insert(key.clone(), Lane::default());
                    ready.push_back(key);
                }
            }
        }
        drop(table);
        self.changed.notify_one();
    }

    /// The lane whose turn it is.
    fn take(&self, now: Timestamp) -> Option<(LaneKey, CancellationToken)> {
        let mut table = self.table.lock();
        let LaneTable { lanes, ready, waiting } = &mut *table;
        while waiting.first().is_some_and(|(until, _)| *until <= now) {
            ready.extend(waiting.pop_first().map(|(_, key)| key));
        }
        let key = ready.pop_front()?;
        let lane = lanes.get_mut(&key)?;
        (lane.state, lane.more) = (LaneState::Busy, false);
        Some((key, lane.stop.clone()))
    }

    fn next_due(&self) -> Option<Timestamp> {
        self.table.lock().waiting.first().map(|(until, _)| *until)
    }

    fn leave(&self, key: &LaneKey, next: LaneNext) {
        let mut table = self.table.lock();
        let LaneTable { lanes, ready, waiting } = &mut *table;
        if let Some(lane) = lanes.get_mut(key) {
            match next {
                LaneNext::Again(until) => {
                    lane.state = LaneState::Waiting;
                    waiting.insert((until, key.clone()));
                }
                LaneNext::Empty if !lane.more => drop(lanes.remove(key)),
                LaneNext::Empty | LaneNext::Turn => {
                    lane.state = LaneState::Ready;
                    ready.push_back(key.clone());
                }
            }
        }
        drop(table);
        self.left.notify_waiters();
    }

    /// An attempt has failed: how many there were.
    fn failed(&self, key: &LaneKey) -> u32 {
        self.count(key, |lane| &mut lane.tries)
    }

    /// A worker was lost: how many there were.
    fn lost(&self, key: &LaneKey) -> u32 {
        self.count(key, |lane| &mut lane.lost)
    }

    fn count(&self, key: &LaneKey, of: impl Fn(&mut Lane) -> &mut u32) -> u32 {
        self.table.lock().lanes.get_mut(key).map_or(1, |lane| {
            let count = of(lane);
            *count += 1;
            *count
        })
    }

    /// The first event of a lane is done with.
    fn done(&self, key: &LaneKey) {
        if let Some(lane) = self.table.lock().lanes.get_mut(key) {
            (lane.tries, lane.lost) = (0, 0);
        }
    }

    /// Ends what the lanes of a connection do, and waits until they have left.
    async fn end(&self, place: [&str; 3]) {
        loop {
            let left = self.left.notified();
            let busy = {
                let mut table = self.table.lock();
                let of_it = |key: &LaneKey| key.iter().zip(place).all(|(part, wanted)| part == wanted);
                let LaneTable { lanes, ready, waiting } = &mut *table;
                ready.retain(|key| !of_it(key));
                waiting.retain(|(_, key)| !of_it(key));
                lanes.retain(|key, lane| !of_it(key) || lane.state == LaneState::Busy);
                let own = lanes.iter().filter(|(key, _)| of_it(key));
                own.inspect(|(_, lane)| lane.stop.cancel()).count() > 0
            };
            if !busy {
                return;
            }
            left.await;
        }
    }
}

/// Executes events until `stop` is cancelled or the store fails.
pub(super) async fn run(inner: Arc<HooksInner>, stop: CancellationToken) -> Result<(), Error> {
    let clock = inner.parts.engine.clock();
    let mut tasks: JoinSet<(LaneKey, Result<LaneNext, Error>)> = JoinSet::new();
    loop {
        while tasks.len() < LANES
            && let Some((key, ended)) = inner.lanes.take(clock.now())
        {
            let inner = inner.clone();
            tasks.spawn(async move {
                let next = tokio::select! {
                    next = turn(&inner, &key) => next,
                    () = ended.cancelled() => Ok(LaneNext::Empty),
                };
                (key, next)
            });
        }
        let due = if tasks.len() < LANES { inner.lanes.next_due() } else { None };
        let tick = async {
            match due {
                Some(at) => clock.sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = inner.lanes.changed.notified() => {}
            () = tick => {}
            Some(done) = tasks.join_next() => match done {
                Ok((_, Err(Error::Stopped))) => return Ok(()),
                Ok((key, next)) => inner.lanes.leave(&key, next?),
                Err(gone) => tracing::error!(%gone, "taking an event failed"),
            },
            // What was being executed is executed again at the next start: its marks stand.
            () = stop.cancelled() => return Ok(()),
        }
    }
}

/// Some events of a lane, in order.
async fn turn(inner: &HooksInner, key: &LaneKey) -> Result<LaneNext, Error> {
    for _ in 0..TURN {
        let Some(waiting) = first(inner, key)? else { return Ok(LaneNext::Empty) };
        if let Some(again) = waiting.execute(inner, key).await? {
            return Ok(LaneNext::Again(again));
        }
        inner.lanes.done(key);
    }
    Ok(LaneNext::Turn)
}

/// The first event of a lane as it is stored.
struct WaitingEvent {
    position: u64,
    index: usize,
    received_at: Timestamp,
    event: Bytes,
    /// Takes it away.
    done: Mark,
}

fn first(inner: &HooksInner, key: &LaneKey) -> Result<Option<WaitingEvent>, Error> {
    let place = key.each_ref().map(String::as_str);
    let mut found = None;
    inner.parts.engine.marks_after(keyspaces::EVENT, &place, &[], &mut |rest, value| {
        found = Some((rest, value.to_vec()));
        false
    })?;
    let Some((rest, value)) = found else { return Ok(None) };
    let hex = |n: usize| rest.get(n).and_then(|text| u64::from_str_radix(text, 16).ok()).unwrap_or(0);
    let whole: Vec<&str> = place.into_iter().chain(rest.iter().map(String::as_str)).collect();
    let done = Mark::delete(keyspaces::EVENT, &whole);
    let row = serde_json::from_slice::<EventRow<'_>>(&value).ok();
    let (at, event) = row.map_or((0, Bytes::new()), |row| (row.received_at, row.event.get().to_owned().into()));
    let (position, index) = (hex(0), usize::try_from(hex(1)).unwrap_or(0));
    Ok(Some(WaitingEvent { position, index, received_at: Timestamp(at), event, done }))
}

impl WaitingEvent {
    /// Lets its function take it; when it is to be tried again, if it is.
    async fn execute(self, inner: &HooksInner, key: &LaneKey) -> Result<Option<Timestamp>, Error> {
        let [environment, source, connection, sync] = key;
        let Some(account) = inner.parts.connections.get(environment, source, connection) else {
            // Its records went with the connection.
            return inner.parts.engine.put_marks(vec![self.done]).await.map(|()| None);
        };
        let program = inner.parts.programs.get(&(source.clone(), sync.clone()));
        let definition = inner.definition(source);
        let function = definition.as_ref().and_then(|definition| definition.function_sync(sync));
        let (Some(program), Some(function)) = (program, function) else {
            let why = Failure::lasting("unknown_function", format!("there is no function {source}/{sync} any more"));
            return self.park(inner, key, &why).await.map(|()| None);
        };
        let order = EventOrder {
            sync: DatasetName::base(environment, source, connection, sync),
            datasets: datasets(inner, key, function)?,
            connection: account.connection.clone(),
            event: self.event.clone(),
            cause: Cause::webhook(self.position),
            received_at: self.received_at,
            timeout: run::EVENT_WALL,
            done: vec![self.done.clone()],
        };
        let engine = &inner.parts.engine;
        let began = engine.clock().now();
        let label = format!("{source}/{sync} for {connection}");
        let report = run::event(engine, &**program, order, &|line| logged(&label, line)).await?;
        self.told(inner, key, &report).await?;
        match report.ended {
            Ok(()) => {
                let ms = engine.clock().now().0.saturating_sub(began.0) / 1_000;
                let line = self.line(key, "handled").details(json!({"ms": ms}));
                engine.journal().write(line);
                Ok(None)
            }
            Err(why) => self.failed(inner, key, &why).await,
        }
    }

    /// What its commits did.
    async fn told(&self, inner: &HooksInner, key: &LaneKey, report: &EventReport) -> Result<(), Error> {
        for receipt in &report.receipts {
            record::committed(&inner.parts.engine, receipt);
            process::rejected(inner, &name(self.position, self.index, &key[3]), receipt).await?;
            inner.committed();
        }
        Ok(())
    }

    async fn failed(self, inner: &HooksInner, key: &LaneKey, why: &Failure) -> Result<Option<Timestamp>, Error> {
        let [_, source, connection, sync] = key;
        let now = inner.parts.engine.clock().now();
        if why.code == LOST && inner.lanes.lost(key) <= LOST_MAX {
            return Ok(Some(now.plus(LOST_WAIT)));
        }
        let attempt = inner.lanes.failed(key);
        match WAITS.get(attempt as usize - 1) {
            Some(wait) => {
                tracing::warn!(source, connection, sync, attempt, %why, "a function could not take an event");
                Ok(Some(now.plus(*wait)))
            }
            None => self.park(inner, key, why).await.map(|()| None),
        }
    }

    /// Puts the event aside with its error, so that the lane goes on.
    async fn park(self, inner: &HooksInner, key: &LaneKey, why: &Failure) -> Result<(), Error> {
        let [environment, source, connection, sync] = key;
        tracing::error!(source, connection, sync, %why, "an event that a function could not take is in quarantine");
        let item = String::from_utf8_lossy(&self.event).into_owned();
        let what = Quarantined { code: why.code, message: why.message.clone(), id: None, item };
        let line = self.line(key, "failed").details(json!({"error": why.code}));
        let (engine, id) = (&inner.parts.engine, name(self.position, self.index, sync));
        let kept = inner.quarantine([environment, source, connection, sync], &id, self.position, &what)?;
        record::kept_aside(environment, source, sync);
        engine.commit(Batch { marks: vec![kept, self.done], ..Batch::default() }).await?;
        engine.journal().write(line);
        Ok(())
    }

    fn line(&self, key: &LaneKey, outcome: &str) -> JournalLine {
        let [environment, source, connection, sync] = key;
        let id = Cause::webhook(self.position).to_string();
        JournalLine::webhook(id, outcome).environment(environment).source(source).connection(connection).stream(sync)
    }
}

/// Where the records of each model go.
fn datasets(inner: &HooksInner, key: &LaneKey, function: &FunctionSync) -> Result<BTreeMap<String, Dataset>, Error> {
    let [environment, source, connection, sync] = key;
    let definition = inner.definition(source).ok_or_else(|| Error::UnknownDataset(format!("{source}/{sync}")))?;
    let each =
        |model: &String| Ok((model.clone(), dataset(inner, &definition, environment, source, connection, model)?));
    function.models.iter().map(each).collect()
}

/// Forgets the events of a connection that goes, once nothing is executed for it any more.
pub(super) async fn forget(inner: &HooksInner, place: [&str; 3]) -> Result<(), Error> {
    inner.lanes.end(place).await;
    let [environment, source, connection] = place;
    let marks = inner.parts.engine.marks(keyspaces::EVENT, &place)?.into_iter().map(|(rest, _)| {
        let rest = rest.iter().map(String::as_str);
        let whole: Vec<&str> = [environment, source, connection].into_iter().chain(rest).collect();
        Mark::delete(keyspaces::EVENT, &whole)
    });
    inner.parts.engine.put_marks(marks.collect()).await
}
