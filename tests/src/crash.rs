//! What the program that gets killed and the test that kills it agree on: names, settings, the texts of log entries and
//! of owed deliveries; and how several are killed side by side.

use crate::compare::{batch, spec};
use crate::history::{History, specs};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use syncline_engine::Engine;
use syncline_engine::model::{Counts, DatasetName, Timestamp};
use syncline_engine::pipeline::{Batch, Dataset, Error, Keyspace, Mark, Options, TABLE_BYTES};
use syncline_engine::sink::{Announce, Notice, Owed, RunEnd};
use syncline_engine::time::ManualClock;

/// The clock of a crash test stands still. The engine's commit times rise by a microsecond each, the observations of a
/// history lie at least a second from this, so a replay by the oracle decides as the engine did.
pub const NOW: Timestamp = Timestamp(1_700_000_000_000_000 + 300 * 1_000_000_000);

/// The mark that holds the number of the last step, in the commit of that step.
pub const PLACE: [&str; 1] = ["crash"];

/// Cycles at work at a time: most of a cycle is waiting for the disk.
const SIDE_BY_SIDE: usize = 3;

/// Does `work` for each of these, some at a time; how many panicked, if any did.
///
/// # Errors
///
/// Where some panicked: how many. What they said is on the standard error.
pub fn side_by_side<T: Send>(all: impl IntoIterator<Item = T>, work: impl Fn(T) + Sync) -> Result<(), usize> {
    let all = Mutex::new(all.into_iter().collect::<VecDeque<T>>());
    let next = || all.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let fallen = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..SIDE_BY_SIDE {
            scope.spawn(|| {
                while let Some(one) = next() {
                    let done = std::panic::catch_unwind(AssertUnwindSafe(|| work(one)));
                    fallen.fetch_add(usize::from(done.is_err()), Ordering::SeqCst);
                }
            });
        }
    });
    match fallen.into_inner() {
        0 => Ok(()),
        fallen => Err(fallen),
    }
}

/// The history of a crash test.
pub fn history(seed: u64) -> History {
    History { seed, ids: 24, rows: 8 }
}

/// Opens the engine of a crash test.
pub fn open(folder: &Path, workers: usize) -> Result<(Engine, Vec<Dataset>), Error> {
    let engine = Engine::open(Options {
        data_dir: Some(folder.to_path_buf()),
        workers,
        clock: Arc::new(ManualClock::new(NOW)),
        announce: Some(Arc::new(Teller)),
        // What begins with two workers is too large for memory.
        table_bytes: if workers == 2 { 2_000 } else { TABLE_BYTES },
        // The pages of a history are small.
        block_least: 3,
        ..Options::default()
    })?;
    let mut sets = Vec::new();
    for (n, (rule, ignore)) in specs().into_iter().enumerate() {
        let name = DatasetName::base("dev", "crm", "acme", &format!("Model{n}"));
        sets.push(engine.dataset(&name, &spec(rule, &ignore))?);
    }
    Ok((engine, sets))
}

/// Number of the last step the engine holds.
pub fn place(engine: &Engine) -> Result<Option<u64>, Error> {
    let stored = engine.mark(Keyspace::PLACE, &PLACE)?;
    Ok(stored.map(|bytes| String::from_utf8_lossy(&bytes).parse().expect("a step number")))
}

/// Step `n` with its mark, and the end of a run where the history has one.
pub fn batch_of(engine: &Engine, sets: &[Dataset], history: &History, n: u64) -> Batch {
    let marks = vec![Mark::put(Keyspace::PLACE, &PLACE, n.to_string())];
    let mut batch = batch(engine, sets, &history.step(n), marks);
    let end = |set: usize| {
        (sets[set].clone(), RunEnd { sync: format!("step {n}"), kind: "FULL".into(), ..RunEnd::default() })
    };
    batch.end_run = history.ends_run(n).map(end).into_iter().collect();
    batch
}

/// The n-th entry of the log, n from 1: unlike every other, of changing length.
pub fn log_entry(seed: u64, n: u64) -> Vec<u8> {
    format!("{seed}:{n}:{}", "x".repeat((n * 7919 % 900) as usize)).into_bytes()
}

/// Tells of every notice in one delivery whose text says what the notice said.
struct Teller;

impl Announce for Teller {
    fn announce(&self, notice: &Notice, sequence: &mut dyn FnMut(&str) -> u64) -> Vec<Owed> {
        let lane = format!("test/{}", notice.dataset.model);
        let Counts { added, updated, deleted, .. } = notice.counts;
        let body: Value = json!({
            "model": &*notice.dataset.model,
            "cause": notice.cause.to_string(),
            "ended": notice.ended.as_ref().map(|end| end.sync.clone()),
            "counts": [added, updated, deleted],
            "from": notice.from.0,
            "to": notice.to.0,
            "sequence": sequence(&lane),
        });
        vec![Owed { endpoint: "test".into(), lane, body: body.to_string().into_bytes() }]
    }
}
