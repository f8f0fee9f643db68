//! [`Engine`]: build, start, commit, read, stop.

use super::batch::{BATCH_BYTES, BATCH_RECORDS, Batch, Mark, PageBuilder, Receipt, Table};
use super::committer::{Answer, Committer, Last, Live, Names, Outcome, run_prefix};
use super::sequencer::{self, Sequencer, Submission, Windows};
use super::through::{Taken, Through};
use super::views::{self, ViewStatus};
use super::worker::{self, Query, RING, Seat};
use super::{Dataset, DatasetSpec, Error, Filter, Missing, Options, Remote};
use crate::dataflow::execute;
use crate::dataflow::views::{FIRST_SPAN, Registry, SPAN};
use crate::log::{Log, RocksLog};
use crate::model::content::{Ignore, KeySeed};
use crate::model::{Change, Cursor, CursorKey, DatasetId, DatasetName, Meta, Position, Record, Strategy, Via};
use crate::sink::Delivery;
use crate::state::Work;
use crate::store::Store;
use crate::store::catalog::{DATASET, DatasetEntry, RUN_NUMBER, WEBHOOKS, WINDOW, WindowState};
use crate::time::{Clock, entropy};
use crossbeam_channel::{Sender, bounded, unbounded};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};

/// KiB that may be on their way through the engine before callers wait.
const ROOM_KIB: u32 = 64 << 10;
/// Run numbers are reserved in blocks, so that most cost no write.
const RUN_BLOCK: u64 = 1_000;
/// Bits of a run's number that count within its part.
const PART_BITS: u32 = 40;
/// Times a read by id follows a record that keeps moving.
const FOLLOW: usize = 64;

/// The engine. Cheap to clone; the last clone to go stops the workers after what was accepted is committed.
///
/// ```
/// use syncline_engine::{Engine, model::*, pipeline::*, time::SystemClock};
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// let engine = Engine::open(Options::default()).unwrap();
/// let spec = DatasetSpec::of(Strategy::Latest);
/// let contacts = engine.dataset(&DatasetName::base("default", "crm", "acme", "Contact"), &spec).unwrap();
/// let mut page = engine.page(&contacts);
/// page.save("1", None, Timestamp::from_seconds(1), br#"{"id":"1","name":"Ada"}"#);
/// let receipt = engine.commit(Batch { cause: Some(Cause::run(1)), pages: vec![page], ..Batch::default() }).await.unwrap();
/// assert_eq!(receipt.counts_of(&contacts).added, 1);
/// assert_eq!(engine.record(&contacts, "1").await.unwrap().unwrap().meta.action, Action::Added);
/// # });
/// ```
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

struct Inner {
    store: Arc<Store>,
    log: Arc<dyn Log>,
    /// Set where batches of runs go through the log.
    through: Option<Arc<Through>>,
    part: u16,
    clock: Arc<dyn Clock>,
    workers: usize,
    seed: KeySeed,
    secret: [u8; 32],
    catalog: RwLock<Catalog>,
    names: Names,
    windows: Windows,
    live: Live,
    last: Last,
    watermark: watch::Receiver<Position>,
    outbox: watch::Receiver<u64>,
    room: Arc<Semaphore>,
    inbox: Sender<sequencer::Input>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    run_number: AtomicU64,
    run_reserved: Mutex<u64>,
    /// Which datasets views read and write, if there are any.
    views: Option<Arc<Registry>>,
    /// Declared last: goes after the store that lives in it is closed.
    _folder: Option<tempfile::TempDir>,
}

#[derive(Default)]
pub(super) struct Catalog {
    pub by_name: BTreeMap<DatasetName, (Dataset, DatasetSpec)>,
    /// Those made by views, of this start or of an earlier one.
    pub of_views: BTreeSet<DatasetId>,
    next: u32,
}

impl Catalog {
    /// Stores a dataset nobody knew, or another way to treat one.
    pub fn add(&mut self, store: &Store, name: &DatasetName, spec: &DatasetSpec, view: bool) -> Result<Dataset, Error> {
        let dataset = match self.by_name.get(name) {
            Some((dataset, _)) => dataset.clone(),
            None => Dataset { id: DatasetId(self.next), name: Arc::new(name.clone()) },
        };
        let mut entry = DatasetEntry::new(name, spec.strategy, spec.ignore_in_diff.clone());
        entry.view = view;
        store.put_dataset(dataset.id, &entry)?;
        if view {
            self.of_views.insert(dataset.id)
        } else {
            self.of_views.remove(&dataset.id)
        };
        self.next = self.next.max(dataset.id.0 + 1);
        self.by_name.insert(name.clone(), (dataset.clone(), spec.clone()));
        Ok(dataset)
    }
}

impl Engine {
    /// Opens the data folder, recovers, starts the workers.
    pub fn open(options: Options) -> Result<Engine, Error> {
        Engine::open_over(options, None)
    }

    /// Opens a data folder that is a copy of what lies elsewhere: it is brought to where the changelog is, then the engine
    /// starts as [`open`](Engine::open) does. Every write goes to the changelog before it takes effect, batches of runs go
    /// through the log (see [`enter`](Engine::enter)).
    pub fn open_copy(options: Options, remote: Remote) -> Result<Engine, Error> {
        Engine::open_over(options, Some(remote))
    }

    fn open_over(options: Options, remote: Option<Remote>) -> Result<Engine, Error> {
        let temporary = match &options.data_dir {
            Some(_) => None,
            None => Some(
                tempfile::Builder::new().prefix("syncline-").tempdir().map_err(|e| Error::Storage(e.to_string()))?,
            ),
        };
        let folder = options.data_dir.as_deref().or(temporary.as_ref().map(|t| t.path()));
        let (changelog, remote) = match remote {
            Some(Remote { log, changelog, secret, part }) => (Some(changelog), Some((log, secret, part))),
            None => (None, None),
        };
        let mut store = Store::open(folder.unwrap_or(std::path::Path::new("data")), changelog)?;
        store.block_least = options.block_least;
        let store = Arc::new(store);
        let (log, secret, through, part) = match remote {
            Some((log, secret, part)) => {
                (log, known_secret(&store, secret)?, Some(Arc::new(Through::open(&store)?)), part)
            }
            None => (own_log(&store)?, store.secret(entropy)?, None, 0),
        };
        let seed = KeySeed::new(&derive(&secret, "keys"));
        let (mut catalog, mut names) = read_catalog(&store)?;
        let first = store.committed()?;
        let derived = views::derived(options.views, first)?;
        if let Some(derived) = &derived {
            let known: Vec<Dataset> = catalog.by_name.values().map(|(dataset, _)| dataset.clone()).collect();
            for dataset in known {
                names.extend(views::enroll(&derived.registry, &mut catalog, &store, &dataset.name, dataset.id)?);
            }
        }
        let datasets: Vec<DatasetId> = names.keys().copied().chain([COUNTS]).collect();
        store.trim(&datasets)?;
        let windows: HashMap<DatasetId, WindowState> =
            store.named::<WindowState>(WINDOW)?.into_iter().map(|(id, w)| (DatasetId(id as u32), w)).collect();
        let (names, windows): (Names, Windows) = (Arc::new(RwLock::new(names)), Arc::new(Mutex::new(windows)));
        let (inbox, sequencer_inbox) = unbounded();
        let (committer_inbox, parts) = unbounded();
        let workers = options.workers.clamp(1, 64);
        let mut rings = Vec::new();
        let mut seats = Vec::new();
        let treat = treatments(&catalog, &windows);
        let table_bytes = options.table_bytes / workers;
        let tables = store.load(&datasets, workers, table_bytes)?;
        let last = last_positions(&tables);
        for (index, tables) in tables.into_iter().enumerate() {
            let (ring, jobs) = bounded(RING);
            rings.push(ring);
            // A copy of a changelog spreads its datasets over partitions instead.
            let decides = (index == 0 && through.is_none()).then(|| inbox.clone());
            seats.push(Some(Seat {
                store: store.clone(),
                tables,
                treat: treat.clone(),
                ring: jobs,
                committer: committer_inbox.clone(),
                seed: seed.clone(),
                counts: COUNTS,
                derived: derived.clone(),
                table_bytes,
                decides,
            }));
        }
        let (watermark_sender, watermark) = watch::channel(Position::first_of(first));
        let (outbox_sender, outbox) = watch::channel(0);
        let live: Live = Arc::default();
        let committer = Committer {
            through: through.clone(),
            workers,
            sequencer: inbox.clone(),
            watermark: watermark_sender,
            outbox: outbox_sender,
            live: live.clone(),
            last: last.clone(),
            names: names.clone(),
            announce: options.announce,
            secret: derive(&secret, "deliveries"),
            runs: unannounced_runs(&store, &names)?,
            others: store.named(WEBHOOKS)?.into_iter().map(|(id, u)| (DatasetId(id as u32), u)).collect(),
            lanes: HashMap::new(),
            store: store.clone(),
        };
        let sequencer = Sequencer {
            clock: options.clock.clone(),
            windows: windows.clone(),
            rings,
            committer: committer_inbox,
            next: first,
            spans: if derived.is_some() { (FIRST_SPAN, SPAN) } else { (1, 1) },
            last_at: store.last_at()?,
            in_flight: 0,
            alone: false,
            waiting: VecDeque::new(),
            spill: Vec::new(),
        };
        let run_reserved = store.system(RUN_NUMBER)?.and_then(|b| b.try_into().ok()).map_or(0, u64::from_be_bytes);
        let threads = vec![
            spawn("syncline-commit", move || committer.run(&parts))?,
            spawn("syncline-epochs", move || sequencer.run(&sequencer_inbox))?,
            spawn("syncline-workers", move || run_workers(workers, seats))?,
        ];
        let engine = Engine {
            inner: Arc::new(Inner {
                store,
                log,
                through,
                part,
                clock: options.clock,
                workers,
                seed,
                secret,
                catalog: RwLock::new(catalog),
                names,
                windows,
                live,
                last,
                watermark,
                outbox,
                room: Arc::new(Semaphore::new(ROOM_KIB as usize)),
                inbox,
                threads: Mutex::new(threads),
                run_number: AtomicU64::new(run_reserved),
                run_reserved: Mutex::new(run_reserved),
                views: derived.map(|derived| derived.registry),
                _folder: temporary,
            }),
        };
        engine.wait_for_first_epoch(first)?;
        Ok(engine)
    }

    /// The first, empty epoch publishes the counts of what was there: open once it is committed.
    fn wait_for_first_epoch(&self, first: u64) -> Result<(), Error> {
        let watermark = self.watermark();
        while *watermark.borrow() <= Position::first_of(first) {
            if let Some(why) = self.failed() {
                return Err(Error::Poisoned(why));
            }
            if watermark.has_changed().is_err() {
                return Err(Error::Storage("the first commit failed; see the disk and the log".to_owned()));
            }
            std::thread::sleep(std::time::Duration::from_micros(200));
        }
        Ok(())
    }

    /// Registers a dataset, or changes how it is treated from the next batch on.
    pub fn dataset(&self, name: &DatasetName, spec: &DatasetSpec) -> Result<Dataset, Error> {
        let mut catalog = self.inner.catalog.write().unwrap_or_else(PoisonError::into_inner);
        let views = self.inner.views.as_deref();
        let published = views.is_some_and(|views| views.publishes(name));
        // What a view left behind becomes whose name it is now.
        if let Some((dataset, known)) = catalog.by_name.get(name)
            && known == spec
            && (published || !catalog.of_views.contains(&dataset.id))
        {
            return Ok(dataset.clone());
        }
        if published {
            return Err(Error::BadViews(format!(
                "`{}` of source {} is a view: nothing else can be written to it; rename the view or the stream",
                name.model, name.source
            )));
        }
        let dataset = catalog.add(&self.inner.store, name, spec, false)?;
        let mut new = vec![(dataset.id, dataset.name.clone())];
        if let Some(views) = views {
            new.extend(views::enroll(views, &mut catalog, &self.inner.store, name, dataset.id)?);
        }
        self.inner.names.write().unwrap_or_else(PoisonError::into_inner).extend(new);
        drop(catalog);
        // Not waited for: whatever is submitted after it is treated so.
        let (answer, _) = Answer::new(None);
        self.submit(Batch::default(), vec![treat(dataset.id, spec)], false, answer, None)?;
        Ok(dataset)
    }

    /// What is derived from the records, and how it is doing.
    pub fn views(&self) -> Vec<ViewStatus> {
        self.inner.views.as_deref().map(views::statuses).unwrap_or_default()
    }

    /// Datasets of an environment that were made by views which are not defined any more.
    pub(super) fn left_by_views(&self, environment: &str) -> Vec<Dataset> {
        let published = |dataset: &Dataset| self.inner.views.as_deref().is_some_and(|v| v.publishes(&dataset.name));
        let catalog = self.inner.catalog.read().unwrap_or_else(PoisonError::into_inner);
        let of_views =
            catalog.by_name.values().map(|(dataset, _)| dataset).filter(|d| catalog.of_views.contains(&d.id));
        of_views.filter(|d| &*d.name.environment == environment && !published(d)).cloned().collect()
    }

    /// A registered dataset.
    pub fn find(&self, name: &DatasetName) -> Option<Dataset> {
        let catalog = self.inner.catalog.read().unwrap_or_else(PoisonError::into_inner);
        catalog.by_name.get(name).map(|(dataset, _)| dataset.clone())
    }

    /// The name of a registered dataset.
    pub fn name_of(&self, dataset: DatasetId) -> Option<Arc<DatasetName>> {
        self.inner.names.read().unwrap_or_else(PoisonError::into_inner).get(&dataset).cloned()
    }

    /// All datasets of an environment, by name.
    pub fn datasets(&self, environment: &str) -> Vec<Dataset> {
        let catalog = self.inner.catalog.read().unwrap_or_else(PoisonError::into_inner);
        let mine = catalog.by_name.iter().filter(|(name, _)| &*name.environment == environment);
        mine.map(|(_, (dataset, _))| dataset.clone()).collect()
    }

    /// All datasets of all environments, by name: for followers of the whole store.
    pub fn every_dataset(&self) -> Vec<Dataset> {
        let catalog = self.inner.catalog.read().unwrap_or_else(PoisonError::into_inner);
        catalog.by_name.values().map(|(dataset, _)| dataset.clone()).collect()
    }

    /// A builder for records of `dataset`; see [`PageBuilder`].
    pub fn page(&self, dataset: &Dataset) -> PageBuilder {
        PageBuilder::new(dataset.id, self.inner.workers, self.inner.seed.clone())
    }

    /// Commits a batch: one engine time, atomic. Returns when it is durable and visible.
    /// Waits (back-pressure) while too much is on its way.
    pub async fn commit(&self, batch: Batch) -> Result<Receipt, Error> {
        check(&batch)?;
        self.submit_and_wait(batch, Vec::new(), false).await
    }

    /// Hands a batch over and returns once it has its place behind all handed over before it; its outcome is waited for
    /// with [`Underway::receipt`]. So several commits can be on their way without losing their order, which polling
    /// several [`commit`](Engine::commit)s at once does not promise.
    pub async fn hand_over(&self, batch: Batch) -> Result<Underway, Error> {
        check(&batch)?;
        self.begin(batch, Vec::new(), false).await
    }

    /// The same for a dataset that was made by a view; `None` if it has become somebody else's, whose records a batch of the
    /// view's has nothing to do with.
    pub(super) async fn hand_over_for_view(&self, dataset: &Dataset, batch: Batch) -> Result<Option<Underway>, Error> {
        let room = self.room_for(&batch).await?;
        let (answer, answered) = Answer::new(None);
        // Held until the batch has its place: whoever takes the dataset over comes behind it.
        let catalog = self.inner.catalog.read().unwrap_or_else(PoisonError::into_inner);
        if !catalog.of_views.contains(&dataset.id) {
            return Ok(None);
        }
        self.submit(batch, Vec::new(), false, answer, Some(room))?;
        Ok(Some(Underway(answered)))
    }

    /// Takes an entry of the log that the engine itself had put there: a batch of a run, or a claim. Entries are to be
    /// entered in the order of the log; `marks` (the place behind the entry) are stored in the same commit.
    ///
    /// A batch of an owner that was replaced before the entry is not applied; its marks are.
    pub async fn enter(&self, entry: &[u8], marks: Vec<Mark>) -> Result<Underway, Error> {
        let Some(through) = &self.inner.through else {
            return Err(Error::BadBatch("this engine keeps its own log; it has no entries of the engine's".to_owned()));
        };
        match through.open_entry(entry, self.inner.workers, &self.inner.seed)? {
            Taken::Batch(mut batch, waiter) => {
                batch.marks.extend(marks);
                let room = self.room_for(&batch).await?;
                let (answer, answered) = Answer::new(waiter);
                self.submit(batch, Vec::new(), false, answer, Some(room))?;
                Ok(Underway(answered))
            }
            Taken::Marks(more) => {
                let marks = marks.into_iter().chain(more).collect();
                self.begin(Batch { marks, ..Batch::default() }, Vec::new(), false).await
            }
        }
    }

    /// Makes this engine the one whose batches count: appends a claim to the log and waits until it was entered. Returns the
    /// number of the reign; `Fenced` if another owner was quicker.
    pub async fn claim(&self, owner: &str) -> Result<u64, Error> {
        match &self.inner.through {
            Some(through) => through.claim(&*self.inner.log, owner).await,
            None => Ok(0),
        }
    }

    async fn submit_and_wait(&self, batch: Batch, extra: Vec<Work>, announce: bool) -> Result<Receipt, Error> {
        self.begin(batch, extra, announce).await?.receipt().await
    }

    async fn begin(&self, batch: Batch, extra: Vec<Work>, announce: bool) -> Result<Underway, Error> {
        let room = self.room_for(&batch).await?;
        if let Some(through) = &self.inner.through
            && extra.is_empty()
            && batch.cause.is_some_and(|cause| cause.via == Via::Poll)
        {
            return through.append(&*self.inner.log, &batch).await.map(Underway);
        }
        let (answer, answered) = Answer::new(None);
        self.submit(batch, extra, announce, answer, Some(room))?;
        Ok(Underway(answered))
    }

    /// Waits for the room a batch takes while it is on its way.
    async fn room_for(&self, batch: &Batch) -> Result<OwnedSemaphorePermit, Error> {
        let bytes: usize = batch.pages.iter().map(PageBuilder::bytes).sum();
        let kib = u32::try_from(bytes / 1024 + 1).unwrap_or(ROOM_KIB).min(ROOM_KIB);
        self.inner.room.clone().acquire_many_owned(kib).await.map_err(|_| Error::Stopped)
    }

    fn submit(
        &self,
        batch: Batch,
        extra: Vec<Work>,
        announce: bool,
        answer: Answer,
        room: Option<OwnedSemaphorePermit>,
    ) -> Result<(), Error> {
        let submission = Submission { batch, extra, announce, answer, room };
        self.inner.inbox.send(sequencer::Input::Submit(submission)).map_err(|_| Error::Stopped)
    }

    /// What an open window has not seen; nothing is missing where none is open.
    pub async fn missing(&self, dataset: &Dataset) -> Result<Missing, Error> {
        let (to, mut answers) = mpsc::unbounded_channel();
        self.ask(Query::Missing(dataset.id, to))?;
        let mut missing = Missing::default();
        for _ in 0..self.inner.workers {
            let (live, positions) = answers.recv().await.ok_or(Error::Stopped)?;
            missing.live += live;
            missing.positions.extend(positions.into_iter().map(Position));
        }
        missing.positions.sort_unstable();
        // What was asked after must be readable: wait for what was in flight.
        if let Some(last) = missing.positions.last() {
            self.visible(*last).await?;
        }
        Ok(missing)
    }

    fn ask(&self, query: Query) -> Result<(), Error> {
        self.inner.inbox.send(sequencer::Input::Ask(query)).map_err(|_| Error::Stopped)
    }

    async fn visible(&self, position: Position) -> Result<(), Error> {
        let mut watermark = self.watermark();
        watermark.wait_for(|mark| *mark > position).await.map(drop).map_err(|_| Error::Stopped)
    }

    /// Whether a delete-tracking window is open.
    pub fn window_open(&self, dataset: &Dataset) -> bool {
        let windows = self.inner.windows.lock().unwrap_or_else(PoisonError::into_inner);
        windows.get(&dataset.id).is_some_and(|window| window.open_since.is_some())
    }

    /// Live records of a dataset, as the internal counting view maintains them.
    pub fn live(&self, dataset: &Dataset) -> u64 {
        let live = self.inner.live.lock().unwrap_or_else(PoisonError::into_inner);
        live.get(&dataset.id).and_then(|n| u64::try_from(*n).ok()).unwrap_or(0)
    }

    /// A number for a new run; rising, unique in this store.
    pub fn next_run(&self) -> Result<u64, Error> {
        let mut reserved = self.inner.run_reserved.lock().unwrap_or_else(PoisonError::into_inner);
        let number = self.inner.run_number.fetch_add(1, Ordering::Relaxed) + 1;
        if number > *reserved {
            let mut batch = self.inner.store.batch();
            self.inner.store.put_system(&mut batch, RUN_NUMBER, &(number + RUN_BLOCK).to_be_bytes());
            self.inner.store.write_synced(batch)?;
            *reserved = number + RUN_BLOCK;
        }
        Ok(u64::from(self.inner.part) << PART_BITS | number)
    }

    /// The part of the installation that gave a number to a run; 0 where there is only one.
    pub fn part_of(run: u64) -> u16 {
        (run >> PART_BITS) as u16
    }

    /// Why nothing more is written, once a write has failed: the engine has to be opened again.
    pub fn failed(&self) -> Option<String> {
        self.inner.store.poisoning()
    }

    /// The durable log for what cannot be read again.
    pub fn log(&self) -> Arc<dyn Log> {
        self.inner.log.clone()
    }

    /// Everything below this position is committed and visible; changes wake the watcher.
    pub fn watermark(&self) -> watch::Receiver<Position> {
        self.inner.watermark.clone()
    }

    /// Records of a dataset after `after`, in order of their last change, handed to `each` until it returns false.
    /// Blocking; call from `spawn_blocking` for long reads. Consistent as of one engine time.
    pub fn records(
        &self,
        dataset: &Dataset,
        after: Position,
        filter: Filter,
        each: &mut dyn FnMut(&Meta, &[u8]) -> bool,
    ) -> Result<(), Error> {
        use crate::model::Action;
        let wanted = |meta: &crate::store::codec::Meta| {
            let action = match meta.action {
                Action::Added => filter.added,
                Action::Updated => filter.updated,
                Action::Deleted => filter.deleted,
            };
            action && filter.modified_after.is_none_or(|after| meta.changed_at.millis() >= after.millis())
        };
        Ok(self.inner.store.records(dataset.id, after, &wanted, each)?)
    }

    /// The live records of several datasets, all as of one engine time: `begin` is told the first position that is not among
    /// them, then each record is handed to `each` until it returns false. Blocking.
    ///
    /// `/v1/changes` and [`changes`](Engine::changes) go on exactly there.
    pub fn snapshot(
        &self,
        datasets: &[Dataset],
        begin: &mut dyn FnMut(Position),
        each: &mut dyn FnMut(&Dataset, &Meta, &[u8]) -> bool,
    ) -> Result<(), Error> {
        let ids: Vec<DatasetId> = datasets.iter().map(|dataset| dataset.id).collect();
        let mut named =
            |at: usize, meta: &Meta, payload: &[u8]| datasets.get(at).is_some_and(|d| each(d, meta, payload));
        Ok(self.inner.store.live_records(&ids, begin, &mut named)?)
    }

    /// One record by id, deleted ones included.
    pub async fn record(&self, dataset: &Dataset, id: &str) -> Result<Option<Record>, Error> {
        let key = self.inner.seed.key(id.as_bytes());
        for _ in 0..FOLLOW {
            let (to, mut answers) = mpsc::unbounded_channel();
            self.ask(Query::Locate(dataset.id, key, to))?;
            let mut found = None;
            for _ in 0..self.inner.workers {
                found = answers.recv().await.ok_or(Error::Stopped)?.or(found);
            }
            let Some(position) = found.map(Position) else { return Ok(None) };
            self.visible(position).await?;
            if let Some(record) = self.record_at(dataset, position)? {
                return Ok(Some(record));
            }
        }
        Err(Error::Storage(format!("record {id} of {} changes faster than it can be read; try again", dataset.name)))
    }

    /// The record whose last change is at `position`.
    pub fn record_at(&self, dataset: &Dataset, position: Position) -> Result<Option<Record>, Error> {
        Ok(self.inner.store.record_at(dataset.id, position)?)
    }

    /// Changes of several datasets merged in order of commit, after the cursor's place, handed to `each` until it
    /// returns false. Blocking. Consistent as of one engine time.
    pub fn changes(
        &self,
        datasets: &[Dataset],
        after: Cursor,
        each: &mut dyn FnMut(&Dataset, Change) -> bool,
    ) -> Result<(), Error> {
        let by_id: HashMap<DatasetId, &Dataset> = datasets.iter().map(|d| (d.id, d)).collect();
        let ids: Vec<DatasetId> = by_id.keys().copied().collect();
        let mut named = |id: DatasetId, change: Change| by_id.get(&id).is_none_or(|dataset| each(dataset, change));
        // Datasets without a change at or after this place need no look at the disk.
        let last = || self.inner.last.lock().unwrap_or_else(PoisonError::into_inner);
        let news = |id: DatasetId| last().get(&id).is_some_and(|last| *last >= after.position.0);
        Ok(self.inner.store.changes(&ids, after, &news, &mut named)?)
    }

    /// Prunes payloads of records up to and including `until`, at most `limit`. Returns how many, and the position of the
    /// last one looked at.
    pub async fn prune(
        &self,
        dataset: &Dataset,
        until: Position,
        limit: usize,
    ) -> Result<(u64, Option<Position>), Error> {
        let candidates = self.inner.store.prunable(dataset.id, until, limit)?;
        let last = candidates.last().map(|(_, position)| Position(*position));
        if candidates.is_empty() {
            return Ok((0, None));
        }
        let work = Work::Prune { dataset: dataset.id, records: Arc::new(candidates), slot: 0 };
        let receipt = self.submit_and_wait(Batch::default(), vec![work], false).await?;
        Ok((receipt.pruned, last))
    }

    /// Whether the dataset was emptied after a reader at `place` had read from it: what was dropped is told nowhere, so the
    /// reader has to begin anew.
    pub fn emptied_since(&self, dataset: &Dataset, place: Position) -> Result<bool, Error> {
        let emptied = self.inner.store.emptied(dataset.id)?;
        Ok(place > Position::START && emptied.is_some_and(|emptied| place.0 < emptied))
    }

    /// Drops all records, history and windows of a dataset. Positions handed out earlier find nothing of it; see
    /// [`emptied_since`](Engine::emptied_since).
    pub async fn clear(&self, dataset: &Dataset) -> Result<(), Error> {
        let batch = Batch { close: vec![super::WindowOp::Abort(dataset.clone())], ..Batch::default() };
        self.submit_and_wait(batch, vec![Work::Clear { dataset: dataset.id }], false).await.map(drop)
    }

    /// A stored mark.
    pub fn mark(&self, table: Table, key: &[&str]) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.inner.store.mark(table as u8, key)?)
    }

    /// Marks whose key begins with these parts, in order of (length, text) part by part: (remaining parts, value).
    pub fn marks(&self, table: Table, prefix: &[&str]) -> Result<Vec<(Vec<String>, Vec<u8>)>, Error> {
        Ok(self.inner.store.marks(table as u8, prefix)?)
    }

    /// Stores marks alone, durably.
    pub async fn put_marks(&self, marks: Vec<Mark>) -> Result<(), Error> {
        self.commit(Batch { marks, ..Batch::default() }).await.map(drop)
    }

    /// Owed deliveries, oldest first, at most `limit`.
    pub fn outbox(&self, limit: usize) -> Result<Vec<Delivery>, Error> {
        Ok(self.inner.store.outbox(limit)?)
    }

    /// Owed deliveries that became owed after the one with this id, oldest first, at most `limit`.
    pub fn outbox_after(&self, after: Option<&str>, limit: usize) -> Result<Vec<Delivery>, Error> {
        Ok(self.inner.store.outbox_after(after, limit)?)
    }

    /// One delivery, if it is still owed.
    pub fn delivery(&self, id: &str) -> Result<Option<Delivery>, Error> {
        Ok(self.inner.store.delivery(id)?)
    }

    /// Wakes when the outbox may have new entries.
    pub fn outbox_changed(&self) -> watch::Receiver<u64> {
        self.inner.outbox.clone()
    }

    /// Records the outcome of an attempt: `None` = delivered (removed), `Some` = the entry with its new `tries`, `next_at`.
    pub async fn settle(&self, id: &str, after: Option<Delivery>) -> Result<(), Error> {
        let (store, id) = (self.inner.store.clone(), id.to_owned());
        let written = tokio::task::spawn_blocking(move || store.settle(&id, after.as_ref())).await;
        Ok(written.map_err(|_| Error::Stopped)??)
    }

    /// Makes notices of what webhooks changed since the last call; called about twice a second.
    pub async fn announce_webhooks(&self) -> Result<(), Error> {
        self.submit_and_wait(Batch::default(), Vec::new(), true).await.map(drop)
    }

    /// The key that signs cursors of this installation.
    pub fn cursor_key(&self) -> CursorKey {
        CursorKey::new(&self.secret("cursors"))
    }

    /// A secret of this installation for `purpose`, 32 bytes, stable.
    pub fn secret(&self, purpose: &str) -> [u8; 32] {
        derive(&self.inner.secret, purpose)
    }

    /// The clock the engine was opened with.
    pub fn clock(&self) -> Arc<dyn Clock> {
        self.inner.clock.clone()
    }

    /// Refuses new batches, commits what was accepted, stops the workers.
    pub async fn stop(&self) -> Result<(), Error> {
        self.inner.room.close();
        if let Some(through) = &self.inner.through {
            through.give_up(&Error::Stopped);
        }
        let inner = self.inner.clone();
        tokio::task::spawn_blocking(move || inner.join()).await.map_err(|_| Error::Stopped)
    }
}

/// A batch that was handed over. It is committed whether or not somebody waits for it.
#[derive(Debug)]
pub struct Underway(pub(super) Outcome);

impl Underway {
    /// What the batch did, once it is durable and visible.
    pub async fn receipt(self) -> Result<Receipt, Error> {
        self.0.await.unwrap_or(Err(Error::Stopped))
    }
}

impl Inner {
    fn join(&self) {
        let _ = self.inbox.send(sequencer::Input::Stop);
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            let _ = thread.join();
        }
        // Files instead of a write-ahead log: the next start is quicker. A failure costs only that.
        let _ = self.store.flush();
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if !self.threads.lock().unwrap_or_else(PoisonError::into_inner).is_empty() {
            self.join();
        }
    }
}

/// The dataset of the counting view. Number 0 is never handed out, so its rows meet no reader.
const COUNTS: DatasetId = DatasetId(0);

fn own_log(store: &Store) -> Result<Arc<dyn Log>, Error> {
    let (db, synced) = store.database();
    Ok(Arc::new(RocksLog::open(db, synced).map_err(|e| Error::Storage(e.to_string()))?))
}

/// The secret of an installation of several processes: hashes of ids depend on it, so it never changes.
fn known_secret(store: &Store, secret: [u8; 32]) -> Result<[u8; 32], Error> {
    match store.secret(|| secret)? {
        known if known == secret => Ok(secret),
        _ => {
            Err(Error::Foreign("the changelog was written with another secret; use the installation's own".to_owned()))
        }
    }
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, Error> {
    std::thread::Builder::new().name(name.to_owned()).spawn(body).map_err(|e| Error::Storage(e.to_string()))
}

fn run_workers(workers: usize, seats: Vec<Option<Seat>>) {
    let seats = Arc::new(Mutex::new(seats));
    if let Err(error) = execute(workers, move |worker| worker::run(worker, &seats)) {
        tracing::error!(error, "the workers could not be started");
    }
}

/// Where the last change of each dataset is.
fn last_positions(tables: &[crate::state::Tables]) -> Last {
    let mut last = HashMap::new();
    for (dataset, table) in tables.iter().flat_map(|tables| &tables.all) {
        let last: &mut u64 = last.entry(*dataset).or_default();
        *last = (*last).max(table.last);
    }
    Arc::new(Mutex::new(last))
}

fn read_catalog(store: &Store) -> Result<(Catalog, HashMap<DatasetId, Arc<DatasetName>>), Error> {
    let mut catalog = Catalog { next: COUNTS.0 + 1, ..Catalog::default() };
    let mut names = HashMap::new();
    for (id, entry) in store.named::<DatasetEntry>(DATASET)? {
        let name = Arc::new(entry.name());
        let dataset = Dataset { id: DatasetId(id as u32), name: name.clone() };
        if entry.view {
            catalog.of_views.insert(dataset.id);
        }
        let spec = DatasetSpec { strategy: entry.strategy, ignore_in_diff: entry.ignore_in_diff };
        catalog.next = catalog.next.max(dataset.id.0 + 1);
        names.insert(dataset.id, name.clone());
        catalog.by_name.insert((*name).clone(), (dataset, spec));
    }
    Ok((catalog, names))
}

fn unannounced_runs(
    store: &Store,
    names: &Names,
) -> Result<HashMap<(DatasetId, u64), crate::store::catalog::Unannounced>, Error> {
    let mut runs = HashMap::new();
    for dataset in names.read().unwrap_or_else(PoisonError::into_inner).keys() {
        for (run, noted) in store.named(&run_prefix(*dataset))? {
            runs.insert((*dataset, run), noted);
        }
    }
    Ok(runs)
}

fn treat(dataset: DatasetId, spec: &DatasetSpec) -> Work {
    let ignore = Arc::new(Ignore::new(spec.ignore_in_diff.iter().map(String::as_str)));
    Work::Treat { dataset, strategy: spec.strategy, ignore }
}

/// What the workers' tables must know before the first epoch: treatments, and windows left open.
fn treatments(catalog: &Catalog, windows: &Windows) -> Vec<Work> {
    let windows = windows.lock().unwrap_or_else(PoisonError::into_inner);
    let mut work = vec![treat(COUNTS, &DatasetSpec::of(Strategy::Override))];
    for (dataset, spec) in catalog.by_name.values() {
        work.push(treat(dataset.id, spec));
        if let Some(state) = windows.get(&dataset.id) {
            work.push(Work::Resume { dataset: dataset.id, generation: state.generation, open_since: state.open_since });
        }
    }
    work
}

fn derive(secret: &[u8; 32], purpose: &str) -> [u8; 32] {
    use sha2::{Digest, Sha256};
    let mut hasher = Sha256::new();
    hasher.update(secret);
    hasher.update(purpose.as_bytes());
    hasher.finalize().into()
}

fn check(batch: &Batch) -> Result<(), Error> {
    let rows: usize = batch.pages.iter().map(PageBuilder::len).sum();
    if batch.pages.iter().any(|page| page.overflow) || rows > BATCH_RECORDS {
        return Err(Error::BadBatch(format!(
            "more than {BATCH_RECORDS} records or {BATCH_BYTES} bytes; commit it in parts"
        )));
    }
    if rows > 0 && batch.cause.is_none() {
        return Err(Error::BadBatch("records without a cause; name the run, webhook or push".to_owned()));
    }
    Ok(())
}
