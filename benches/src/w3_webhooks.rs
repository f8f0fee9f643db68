//! W3: how soon after it was due does a reader of the change log see a webhook's change?
//!
//! Each webhook is appended to the durable log by itself, as the hook's route does; a second task reads the log and
//! commits each entry with the place it reached; a reader follows the change log by its watermark and cursor. The pace is
//! a plan made beforehand: a webhook sent late because something was slow counts from when it was due.

use crate::feed::connection_of;
use crate::gauge::Watch;
use crate::poll::updated;
use crate::report::Report;
use crate::{Bench, Fault};
use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use syncline_engine::Engine;
use syncline_engine::model::{Cause, Cursor, DatasetId, Timestamp, Via};
use syncline_engine::pipeline::{Batch, Dataset, Keyspace, Mark};
use syncline_provider::Generator;

/// Commits in flight at once.
const IN_FLIGHT: usize = 256;
/// Log entries read at once.
const READ: usize = 512;
/// Given up after so long without the last one.
const PATIENCE: Duration = Duration::from_secs(30);
/// Versions of W3 begin here, above those of the other works; each rate begins above the one before.
static VERSION: AtomicU64 = AtomicU64::new(10);

/// Paces webhooks at `rate` a second.
pub async fn run(bench: &Bench, rate: u64, report: &mut Report) -> Result<(), Fault> {
    let count = (rate * bench.args.seconds) as usize;
    let version = VERSION.fetch_add(10, Ordering::Relaxed) as u32;
    let entries: Vec<Vec<u8>> = (0..count).map(|n| entry(bench, n, version)).collect();
    let log_begin = *bench.engine.log().end().borrow();
    let seen = Arc::new(Seen::new(count, log_begin));
    let committer = tokio::spawn(follow_log(bench.engine.clone(), bench.datasets.clone(), log_begin, count));
    let reader = tokio::task::spawn_blocking({
        let (engine, datasets, seen) = (bench.engine.clone(), bench.datasets.clone(), Arc::clone(&seen));
        let runtime = tokio::runtime::Handle::current();
        move || read_changes(&engine, &datasets, &seen, &runtime)
    });
    let mut watch = Watch::default();
    watch.start();
    pace(&bench.engine, entries, rate, &seen).await?;
    reader.await??;
    watch.stop();
    committer.await??;
    let mut delays = seen.delays();
    delays.sort_unstable();
    let at = |share: f64| delays.get(((delays.len() as f64 * share) as usize).min(delays.len().saturating_sub(1)));
    for (name, share) in [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)] {
        let delay = at(share).copied().unwrap_or_default();
        report.add("W3", &format!("{rate}/s: due to visible, {name}"), delay.as_secs_f64() * 1e3, "ms");
    }
    report.add(
        "W3",
        &format!("{rate}/s: CPU a webhook, pacing and reading included"),
        watch.cpu_us(count as u64),
        "us",
    );
    Ok(())
}

/// When each was due and when it was seen.
struct Seen {
    log_begin: u64,
    /// By number of the webhook.
    due: Mutex<Vec<Option<Instant>>>,
    /// By place in the log, counted from `log_begin`.
    numbers: Mutex<Vec<u32>>,
    at: Mutex<Vec<(u64, Instant)>>,
}

impl Seen {
    fn new(count: usize, log_begin: u64) -> Self {
        Seen {
            log_begin,
            due: Mutex::new(vec![None; count]),
            numbers: Mutex::new(vec![u32::MAX; count]),
            at: Mutex::new(Vec::with_capacity(count)),
        }
    }

    fn delays(&self) -> Vec<Duration> {
        let (due, numbers) = (lock(&self.due), lock(&self.numbers));
        let of = |position: u64| {
            let number = *numbers.get((position - self.log_begin - 1) as usize)?;
            *due.get(number as usize)?
        };
        lock(&self.at).iter().filter_map(|(p, at)| of(*p).map(|due| at.saturating_duration_since(due))).collect()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Id (8 bytes), version (4), then the record.
fn entry(bench: &Bench, n: usize, version: u32) -> Vec<u8> {
    let id = updated(n as u64, bench.feed.records());
    let version = version + (n as u64 / bench.feed.records()) as u32;
    let mut bytes = Vec::with_capacity(600);
    bytes.extend_from_slice(&id.to_be_bytes());
    bytes.extend_from_slice(&version.to_be_bytes());
    bench.feed.generator().record(&mut bytes, id, version);
    bytes
}

/// Sends each webhook when it is due. On a thread of its own: the runtime's timers tick in milliseconds, which would be
/// measured as delay.
async fn pace(engine: &Engine, entries: Vec<Vec<u8>>, rate: u64, seen: &Arc<Seen>) -> Result<(), Fault> {
    let (engine, seen, runtime) = (engine.clone(), Arc::clone(seen), tokio::runtime::Handle::current());
    let mut appends = tokio::task::spawn_blocking(move || {
        let begin = Instant::now();
        let mut appends = tokio::task::JoinSet::new();
        for (n, entry) in entries.into_iter().enumerate() {
            let due = begin + Duration::from_nanos(n as u64 * 1_000_000_000 / rate);
            let early = due.saturating_duration_since(Instant::now());
            if !early.is_zero() {
                std::thread::sleep(early);
            }
            lock(&seen.due)[n] = Some(due);
            let (log, seen) = (engine.log(), Arc::clone(&seen));
            let append = async move {
                let position = log.append(vec![entry]).await?;
                lock(&seen.numbers)[(position - seen.log_begin - 1) as usize] = n as u32;
                Ok::<(), syncline_engine::log::Error>(())
            };
            appends.spawn_on(append, &runtime);
        }
        appends
    })
    .await?;
    while let Some(done) = appends.join_next().await {
        done??;
    }
    Ok(())
}

async fn follow_log(engine: Engine, datasets: Vec<Dataset>, begin: u64, count: usize) -> Result<(), Fault> {
    let (log, mut end) = (engine.log(), engine.log().end());
    let (mut place, mut commits) = (begin, FuturesOrdered::new());
    let last = begin + count as u64;
    while place < last || !commits.is_empty() {
        let room = IN_FLIGHT.saturating_sub(commits.len()).min(READ);
        let entries = if place < last && room > 0 { log.read(place, room)? } else { Vec::new() };
        for (position, bytes) in &entries {
            // Not spawned: handed to the engine in the order of the log, so the place only ever moves forward.
            let batch = to_batch(&engine, &datasets, *position, bytes)?;
            let engine = engine.clone();
            commits.push_back(async move { engine.commit(batch).await });
            place = *position;
        }
        tokio::select! {
            Some(done) = commits.next(), if !commits.is_empty() => { done?; }
            changed = end.changed(), if entries.is_empty() && place < last => { changed?; }
        }
    }
    Ok(())
}

fn to_batch(engine: &Engine, datasets: &[Dataset], position: u64, bytes: &[u8]) -> Result<Batch, Fault> {
    let (head, payload) = bytes.split_at_checked(12).ok_or("a short entry")?;
    let id = u64::from_be_bytes(head[..8].try_into()?);
    let version = u32::from_be_bytes(head[8..].try_into()?);
    let dataset = datasets.get(connection_of(id)).ok_or("an entry of no connection")?;
    let mut page = engine.page(dataset);
    let modified_at: Timestamp = Generator::new(0).modified_at(id, version);
    page.save(&id.to_string(), Some(modified_at), engine.clock().now(), payload);
    Ok(Batch {
        cause: Some(Cause::webhook(position)),
        pages: vec![page],
        marks: vec![Mark::put(Keyspace::PLACE, &["bench"], position.to_be_bytes())],
        ..Batch::default()
    })
}

fn read_changes(
    engine: &Engine,
    datasets: &[Dataset],
    seen: &Seen,
    runtime: &tokio::runtime::Handle,
) -> Result<(), Fault> {
    let mut watermark = engine.watermark();
    let mut place = Cursor { position: *watermark.borrow_and_update(), dataset: DatasetId(0) };
    let wanted = lock(&seen.due).len();
    let mut found = 0;
    while found < wanted {
        let changed = runtime.block_on(async { tokio::time::timeout(PATIENCE, watermark.changed()).await });
        changed.map_err(|_| format!("{} of {wanted} webhooks were never seen", wanted - found))??;
        engine.changes(datasets, place, &mut |dataset, change| {
            place = Cursor { position: change.meta.position, dataset: dataset.id };
            if change.meta.cause.via == Via::Webhook {
                found += 1;
                lock(&seen.at).push((change.meta.cause.number, Instant::now()));
            }
            true
        })?;
    }
    Ok(())
}
