//! Webhooks on their way in: path → verify → log → answer, and from the log to the records.
//!
//! | file | what |
//! |---|---|
//! | [`paths`] | which URL belongs to which source, environment and connection |
//! | [`receive`] | limits, proof, durable append, answer |
//! | `observers` | definitions made ready to read webhooks |
//! | [`process`] | from the log to commits, in order, each event once |
//! | [`prepare`] | one log entry as one batch |
//! | [`unrouted`] | events nobody owns yet |
//! | `events` | events that functions take |
//! | [`refetch`] | records to be read again, once things are quiet |
//! | `runs` | streams to be asked for what has changed |
//! | `retry` | a request once more, because something of it is in quarantine |
//! | `shard_token` | tokens of URLs that name the shard which knows them |
//! | [`sweep`] | forgets what is past its time |
//!
//! Promises: a request is answered well only after it is on disk; an entry of the log has its effects exactly once, crash or
//! not, because its place and its delivery ids are part of the commit; nothing is dropped without a mark that says so.

mod events;
mod observers;
pub mod paths;
mod prepare;
pub mod process;
pub mod receive;
pub mod refetch;
mod retry;
mod runs;
mod shard_token;
pub mod sweep;
pub mod unrouted;

#[cfg(feature = "functions")]
pub(crate) use events::WAITS;
pub use paths::{Entrance, HookUrl};
#[cfg(feature = "kafka")]
pub(crate) use process::place;
pub use receive::{Admitted, Incoming, Reply};
pub use retry::Retried;
pub use runs::WantedRun;

use crate::admission::Bounds;
use crate::connectors::definition::Definition;
use crate::connectors::webhooks::{VerifyRefusal, owns};
use crate::engine::Engine;
use crate::engine::model::Cause;
use crate::engine::pipeline::{Error, LogFollower, Mark, QuarantineRow, QuarantineWriter};
use crate::engine::source::{Connection, Quarantined};
use crate::ingest::dedup::Dedup;
use crate::ingest::quarantine::QuarantinePlaces;
use crate::registry::connections::Connections;
use crate::registry::definitions::Definitions;
use crate::registry::functions::Programs;
use crate::registry::sources::Sources;
use observers::Observers;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// What hooks need of the program.
pub struct HooksParts {
    /// What outsiders may use up.
    pub bounds: Arc<Bounds>,
    /// The engine.
    pub engine: Engine,
    /// Definitions by source name.
    pub definitions: Definitions,
    /// Functions that take events, by source and sync.
    pub programs: Programs,
    /// What makes requests, by source name.
    pub sources: Sources,
    /// Accounts.
    pub connections: Arc<Connections>,
    /// URL given to providers, without a trailing slash.
    pub public_url: Option<String>,
    /// Environments of the API keys; those of connections are added.
    pub environments: Vec<String>,
    /// What is known of the other parts of the installation, if there are any.
    pub other_shards: Option<OtherShards>,
}

/// The connections of the other parts. Requests that name no connection reach all parts; each takes what is its own.
#[derive(Clone)]
pub struct OtherShards {
    /// The number of this part.
    pub shard: u16,
    /// Source and connection.
    pub accounts: Vec<(String, Connection)>,
    /// Whether this part keeps what belongs to no connection, by environment and source.
    pub is_default: Arc<dyn Fn(&str, &str) -> bool + Send + Sync>,
}

impl OtherShards {
    /// Environment and id of the other parts' connections of a source.
    pub fn of_source(&self, source: &str) -> Vec<(String, String)> {
        let of = self.accounts.iter().filter(|(name, _)| name == source);
        of.map(|(_, c)| (c.environment.clone(), c.id.clone())).collect()
    }

    /// Whether an event that is nobody's here is another part's to keep.
    fn keep(&self, environment: &str, source: &str, field: &str, value: &str) -> bool {
        let mine = |(of, c): &&(String, Connection)| of == source && c.environment == environment;
        !(self.is_default)(environment, source) || self.accounts.iter().filter(mine).any(|(_, c)| owns(c, field, value))
    }
}

/// Webhooks on their way in. Cheap to clone.
#[derive(Clone)]
pub struct Hooks {
    inner: Arc<HooksInner>,
}

struct HooksInner {
    parts: HooksParts,
    paths: paths::Paths,
    observers: Observers,
    dedup: Dedup,
    refetches: refetch::Refetches,
    lanes: events::Lanes,
    runs: runs::WantedRuns,
    unrouted: unrouted::Unrouted,
    follower: LogFollower,
    tally: Tally,
    /// Counts commits that changed records.
    commits: watch::Sender<u64>,
    refused: Mutex<BTreeMap<(String, String), u64>>,
    quarantine: QuarantinePlaces,
    /// Source and kind of events that no entry of `map` fits, those that were told of.
    unmapped: Mutex<BTreeSet<(String, String)>>,
}

/// Kinds of events without an entry in `map` that are told of since the start; all of them are counted.
const UNMAPPED_TOLD: usize = 1_000;

/// Sums since the start.
#[derive(Debug, Default)]
pub struct Tally {
    /// Requests that were stored.
    pub accepted: AtomicU64,
    /// Events processed.
    pub events: AtomicU64,
    /// Events that were there before.
    pub duplicates: AtomicU64,
    /// Events of nobody.
    pub unrouted: AtomicU64,
    /// Events that no entry of `map` fits.
    pub unmapped: AtomicU64,
    /// Events or requests that could not be taken.
    pub rejected: AtomicU64,
    /// Records read again.
    pub refetched: AtomicU64,
}

impl Hooks {
    /// Reads what is waiting. Nothing runs yet; see [`run`](Hooks::run).
    pub fn open(parts: HooksParts) -> Result<Hooks, Error> {
        let paths = paths::Paths::new(&parts);
        let refetches = refetch::Refetches::load(&parts.engine)?;
        let lanes = events::Lanes::load(&parts.engine)?;
        let unrouted = unrouted::Unrouted::load(&parts.engine)?;
        let follower = LogFollower::open(parts.engine.clone(), process::PLACE)?;
        let observers = Observers::open(parts.definitions.clone())?;
        let quarantine = QuarantinePlaces::new(parts.engine.clone(), QuarantineWriter::Webhook);
        let inner = HooksInner {
            parts,
            paths,
            observers,
            dedup: Dedup::default(),
            refetches,
            lanes,
            runs: runs::WantedRuns::default(),
            unrouted,
            follower,
            tally: Tally::default(),
            commits: watch::Sender::new(0),
            refused: Mutex::default(),
            quarantine,
            unmapped: Mutex::default(),
        };
        Ok(Hooks { inner: Arc::new(inner) })
    }

    /// Processes the log, reads records again, lets functions take events, runs again what waited and forgets what is old, until `stop` is cancelled or the store fails.
    pub async fn run(&self, stop: CancellationToken) -> Result<(), Error> {
        self.reprocess_all_unrouted().await?;
        let inner = &self.inner;
        tokio::try_join!(
            inner.follower.run(&**inner, stop.clone().cancelled_owned()),
            refetch::run(inner.clone(), stop.clone()),
            events::run(inner.clone(), stop.clone()),
            unrouted::run(self.clone(), stop.clone()),
            sweep::run(inner.clone(), stop.clone()),
        )?;
        Ok(())
    }

    /// Processes what is in the log now and returns; for one-shot runs and tests.
    pub async fn catch_up(&self) -> Result<(), Error> {
        self.inner.follower.catch_up(&*self.inner).await
    }

    /// A connection goes: what functions are to take of its events goes with it.
    pub async fn forget_connection(&self, environment: &str, source: &str, connection: &str) -> Result<(), Error> {
        events::forget(&self.inner, [environment, source, connection]).await
    }

    /// Waits for streams that webhooks want asked for what has changed, and takes them: whoever calls has them run.
    pub async fn wanted_runs(&self) -> BTreeSet<WantedRun> {
        self.inner.runs.take().await
    }

    /// Counts commits made for webhooks; changes wake the watcher.
    pub fn commits(&self) -> watch::Receiver<u64> {
        self.inner.commits.subscribe()
    }

    /// What outsiders may use up.
    pub fn bounds(&self) -> &Bounds {
        &self.inner.parts.bounds
    }

    /// Sums since the start.
    pub fn tally(&self) -> &Tally {
        &self.inner.tally
    }

    /// Requests refused since the start, by source and reason.
    pub fn refused(&self) -> Vec<(String, String, u64)> {
        let refused = self.inner.refused.lock();
        refused.iter().map(|((source, why), n)| (source.clone(), why.clone(), *n)).collect()
    }
}

impl HooksInner {
    fn definition(&self, source: &str) -> Option<Arc<Definition>> {
        self.parts.definitions.get(source)
    }

    /// The connections of a source in an environment.
    fn accounts(&self, environment: &str, source: &str) -> Vec<Arc<Connection>> {
        let all = self.parts.connections.of_source(source);
        all.iter().filter(|a| a.key.environment == environment).map(|a| a.connection.clone()).collect()
    }

    /// Whether this is the first event of its source and kind that no entry of `map` fits.
    fn is_new_unmapped(&self, source: &str, kind: &str) -> bool {
        let mut told = self.unmapped.lock();
        told.len() < UNMAPPED_TOLD && told.insert((source.to_owned(), kind.to_owned()))
    }

    /// The mark that keeps what could not be taken of the webhook `cause`.
    fn quarantine(&self, place: [&str; 4], key: &str, cause: u64, what: &Quarantined) -> Result<Mark, Error> {
        self.quarantine.keep(place, key, Cause::webhook(cause).to_string(), what)
    }

    fn forget_quarantine(&self, environment: &str, row: &QuarantineRow) {
        let [source, connection, stream] = &row.place;
        self.quarantine.forget([environment, source, connection, stream]);
    }

    /// Does what the marks of a commit remember.
    fn follow_up(&self, follow_up: prepare::FollowUp) {
        self.refetches.add(follow_up.refetches);
        self.lanes.add(follow_up.lanes);
        self.runs.add(follow_up.runs);
    }

    fn committed(&self) {
        self.commits.send_modify(|n| *n += 1);
    }

    fn count_refusal(&self, source: &str, why: VerifyRefusal) {
        let mut refused = self.refused.lock();
        *refused.entry((source.to_owned(), why.to_string())).or_insert(0) += 1;
    }
}

fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}
