//! From a data folder to an engine that runs: recover, load what is known of records, start the threads.

use super::catalog::{Catalog, read_catalog, treat};
use super::{Engine, Inner, ROOM_KIB, derive};
use crate::dataflow::views::{FIRST_SPAN, SPAN};
use crate::dataflow::{Derived, execute};
use crate::log::{Log, RocksLog};
use crate::model::content::KeySeed;
use crate::model::{DatasetId, DatasetName, Position, Strategy};
use crate::pipeline::committer::{Committer, Last, Live, Names, run_prefix};
use crate::pipeline::replicate::ReplicatedLog;
use crate::pipeline::sequencer::{Sequencer, Windows};
use crate::pipeline::worker::{self, RING, WorkerContext};
use crate::pipeline::{Dataset, DatasetSpec, Error, Options, Remote, views};
use crate::state::{EpochWork, Tables};
use crate::store::catalog::{RUN_NUMBER, Unannounced, WEBHOOKS, WINDOW, WindowState};
use crate::store::journal::JournalThread;
use crate::store::{Store, WORKERS_MAX};
use crate::time::entropy;
use crossbeam_channel::{bounded, unbounded};
use parking_lot::{Mutex, RwLock};
use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::thread::JoinHandle;
use tokio::sync::{Semaphore, watch};

/// A dataset's number and name.
type Named = (DatasetId, Arc<DatasetName>);

impl Engine {
    /// Opens the data folder, recovers, starts the workers.
    pub fn open(options: Options) -> Result<Engine, Error> {
        Engine::open_over(options, None)
    }

    /// Opens a data folder that is a copy of what lies elsewhere: it is brought to where the changelog is, then the engine
    /// starts as [`open`](Engine::open) does. Every write goes to the changelog before it takes effect, batches of runs go
    /// through the log (see [`apply_logged`](Engine::apply_logged)).
    pub fn open_copy(options: Options, remote: Remote) -> Result<Engine, Error> {
        Engine::open_over(options, Some(remote))
    }

    fn open_over(options: Options, remote: Option<Remote>) -> Result<Engine, Error> {
        let workers = workers_of(&options);
        let EngineGround { store, log, secret, replicated, part, temporary } = EngineGround::open(&options, remote)?;
        let seed = KeySeed::new(&derive(&secret, "keys"));
        let (mut catalog, mut names) = read_catalog(&store)?;
        let first = store.committed()?;
        let derived = views::derived(options.views, first)?;
        if let Some(derived) = &derived {
            names.extend(enroll_all(derived, &mut catalog, &store)?);
        }
        let datasets: Vec<DatasetId> = names.keys().copied().chain([COUNTS]).collect();
        store.trim(&datasets)?;
        let windows: HashMap<DatasetId, WindowState> =
            store.named::<WindowState>(WINDOW)?.into_iter().map(|(id, w)| (DatasetId(id as u32), w)).collect();
        let (names, windows): (Names, Windows) = (Arc::new(RwLock::new(names)), Arc::new(Mutex::new(windows)));
        let (inbox, sequencer_inbox) = unbounded();
        let (committer_inbox, parts) = unbounded();
        let table_bytes = options.table_bytes / workers;
        let tables = store.load(&datasets, workers, table_bytes)?;
        let (last, live): (Last, Live) = (last_positions(&tables), Live::default());
        let treat = treatments(&catalog, &windows);
        let fallen = Arc::<AtomicBool>::default();
        // What a worker sits down with; its number, tables and ring are its own.
        let seat = |index: usize, tables, ring| WorkerContext {
            store: store.clone(),
            tables,
            treat: treat.clone(),
            ring,
            committer: committer_inbox.clone(),
            seed: seed.clone(),
            counts: COUNTS,
            derived: derived.clone(),
            table_bytes,
            // A copy of a changelog spreads its datasets over partitions instead.
            decides: (index == 0 && replicated.is_none()).then(|| inbox.clone()),
            fallen: fallen.clone(),
        };
        let (rings, jobs): (Vec<_>, Vec<_>) = (0..workers).map(|_| bounded(RING)).unzip();
        let seats = tables.into_iter().zip(jobs).enumerate();
        let seats = seats.map(|(index, (tables, ring))| Some(seat(index, tables, ring))).collect();
        let (watermark_sender, watermark) = watch::channel(Position::first_of(first));
        let (outbox_sender, outbox) = watch::channel(0);
        let committer = Committer {
            replicated: replicated.clone(),
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
            committer: committer_inbox.clone(),
            next: first,
            spans: if derived.is_some() { (FIRST_SPAN, SPAN) } else { (1, 1) },
            last_at: store.last_at()?,
            in_flight: 0,
            alone: false,
            waiting: VecDeque::new(),
            spill: Vec::new(),
            space: store.disk().0.clone(),
            held: false,
        };
        drop(committer_inbox);
        let run_reserved = store.system(RUN_NUMBER)?.and_then(|b| b.try_into().ok()).map_or(0, u64::from_be_bytes);
        let journal = JournalThread::start(&store, options.clock.clone(), options.journal)?;
        let threads = vec![
            spawn("syncline-commit", move || committer.run(&parts))?,
            spawn("syncline-epochs", move || sequencer.run(&sequencer_inbox))?,
            spawn("syncline-workers", move || run_workers(workers, seats))?,
        ];
        let inner = Inner {
            store,
            log,
            replicated,
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
            journal,
            run_number: AtomicU64::new(run_reserved),
            run_reserved: Mutex::new(run_reserved),
            views: derived.map(|derived| derived.registry),
            _folder: temporary,
        };
        let engine = Engine { inner: Arc::new(inner) };
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
}

/// What an engine stands on: a store that is open, and whose it is.
struct EngineGround {
    store: Arc<Store>,
    log: Arc<dyn Log>,
    secret: [u8; 32],
    replicated: Option<Arc<ReplicatedLog>>,
    part: u16,
    /// The folder, where none was named.
    temporary: Option<tempfile::TempDir>,
}

impl EngineGround {
    fn open(options: &Options, remote: Option<Remote>) -> Result<EngineGround, Error> {
        let unmade = |e: std::io::Error| Error::Io { what: e.to_string(), source: Arc::new(e) };
        let temporary = match &options.data_dir {
            Some(_) => None,
            None => Some(tempfile::Builder::new().prefix("syncline-").tempdir().map_err(unmade)?),
        };
        let folder = options.data_dir.as_deref().or(temporary.as_ref().map(|folder| folder.path()));
        let folder = folder.unwrap_or(Path::new("data"));
        let open = |changelog| -> Result<Arc<Store>, Error> {
            let mut store = Store::open(folder, changelog, options.min_free)?;
            store.block_least = options.block_least;
            store.split(workers_of(options))?;
            Ok(Arc::new(store))
        };
        match remote {
            Some(Remote { log, changelog, secret, part }) => {
                let store = open(Some(changelog))?;
                let (secret, replicated) =
                    (known_secret(&store, secret)?, Some(Arc::new(ReplicatedLog::open(&store)?)));
                Ok(EngineGround { store, log, secret, replicated, part, temporary })
            }
            None => {
                let store = open(None)?;
                let (log, secret) = (own_log(&store)?, store.secret(entropy)?);
                Ok(EngineGround { store, log, secret, replicated: None, part: 0, temporary })
            }
        }
    }
}

fn workers_of(options: &Options) -> usize {
    options.workers.clamp(1, usize::from(WORKERS_MAX))
}

/// The dataset of the counting view. Number 0 is never handed out, so its rows meet no reader.
pub(super) const COUNTS: DatasetId = DatasetId(0);

fn own_log(store: &Store) -> Result<Arc<dyn Log>, Error> {
    let (db, synced, space) = store.database();
    Ok(Arc::new(RocksLog::open(db, synced, space)?))
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
    let spawned = std::thread::Builder::new().name(name.to_owned()).spawn(body);
    spawned.map_err(|e| Error::Io { what: format!("the thread {name} cannot be started: {e}"), source: Arc::new(e) })
}

fn run_workers(workers: usize, seats: Vec<Option<WorkerContext>>) {
    let seats = Arc::new(Mutex::new(seats));
    if let Err(error) = execute(workers, move |worker| worker::run(worker, &seats)) {
        tracing::error!(error, "the workers could not be started");
    }
}

/// Where the last change of each dataset is.
fn last_positions(tables: &[Tables]) -> Last {
    let mut last = HashMap::new();
    for (dataset, table) in tables.iter().flat_map(|tables| &tables.all) {
        let last: &mut u64 = last.entry(*dataset).or_default();
        *last = (*last).max(table.last);
    }
    Arc::new(Mutex::new(last))
}

/// Lets the views see every dataset there is; the datasets they publish.
fn enroll_all(derived: &Derived, catalog: &mut Catalog, store: &Store) -> Result<Vec<Named>, Error> {
    let known: Vec<Dataset> = catalog.by_name.values().map(|(dataset, _)| dataset.clone()).collect();
    let mut names = Vec::new();
    for dataset in known {
        names.extend(views::enroll(&derived.registry, catalog, store, &dataset.name, dataset.id)?);
    }
    Ok(names)
}

fn unannounced_runs(store: &Store, names: &Names) -> Result<HashMap<(DatasetId, u64), Unannounced>, Error> {
    let mut runs = HashMap::new();
    for dataset in names.read().keys() {
        for (run, noted) in store.named(&run_prefix(*dataset))? {
            runs.insert((*dataset, run), noted);
        }
    }
    Ok(runs)
}

/// What the workers' tables must know before the first epoch: treatments, and windows left open.
fn treatments(catalog: &Catalog, windows: &Windows) -> Vec<EpochWork> {
    let windows = windows.lock();
    let mut work = vec![treat(COUNTS, &DatasetSpec::of(Strategy::Override))];
    for (dataset, spec) in catalog.by_name.values() {
        work.push(treat(dataset.id, spec));
        if let Some(state) = windows.get(&dataset.id) {
            work.push(EpochWork::Resume {
                dataset: dataset.id,
                generation: state.generation,
                open_since: state.open_since,
            });
        }
    }
    work
}
