//! Killed while it deletes a removed view, the engine has deleted a connection's rows or has not, shows what is left, and goes
//! on when it is asked again: a reader meets each row's end once, wherever its cursor stood.
//!
//! `CRASH_SEED` sets the seed.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use syncline_engine::Engine;
use syncline_engine::model::{Action, Cause, Cursor, DatasetId, DatasetName, Position, Strategy, Timestamp};
use syncline_engine::pipeline::{Batch, DatasetSpec};
use syncline_tests::ledger::Trial;
use syncline_tests::retraction::{ENVIRONMENT, VIEW, before, open};

/// Connections, each of which is deleted in an engine time of its own.
const CONNECTIONS: u64 = 120;
/// Rows of each, but for the first.
const ROWS: u64 = 10;
/// Rows of the first connection.
const MANY: u64 = 4_000;
/// Changes that the slow reader reads between two kills.
const SLOW: usize = 700;

/// Connection and id.
type RowName = (String, String);

#[test]
fn killed_while_it_deletes_a_removed_view_every_row_is_deleted_once() {
    let seed = std::env::var("CRASH_SEED").ok().and_then(|n| n.parse().ok()).unwrap_or(1);
    let mut rng = StdRng::seed_from_u64(seed);
    let mut trial = Trial::of("kills");
    trial.seed(format!("views {seed}"));
    for workers in [1, 2] {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut reader, mut slow) = (Reader::new(), Reader::new());
        fill(folder.path(), workers, &mut reader);
        let all = reader.rows.clone();
        assert_eq!(all.len() as u64, MANY + (CONNECTIONS - 1) * ROWS);
        let mut halfway = 0;
        // The first kill comes while the many rows of one connection are deleted, or before.
        let mut lines = 1;
        while !reader.rows.is_empty() {
            killed_after(folder.path(), workers, lines);
            trial.add(1);
            lines = rng.random_range(1..=12);
            let engine = open(folder.path(), rng.random_range(1..=2), None).expect("opens after a kill");
            reader.read(&engine, usize::MAX);
            slow.read(&engine, SLOW);
            let left: u64 = engine.removed_views(ENVIRONMENT).iter().map(|view| view.records).sum();
            assert_eq!(left as usize, reader.rows.len(), "what is left is still to be asked for");
            whole_connections(&all, &reader.rows);
            halfway += usize::from(reader.rows.len() < all.len() && left > 0);
            println!("{workers} workers: {left} rows are left");
            block_on(engine.stop()).expect("stops");
        }
        assert!(halfway > 0, "it was killed in the middle");
        is_over(folder.path(), workers, &mut [reader, slow], &all);
    }
}

/// Once deleted, nothing is left to be deleted, and all rows come again with the view.
fn is_over(folder: &Path, workers: usize, readers: &mut [Reader], all: &BTreeSet<RowName>) {
    let engine = open(folder, workers, None).expect("opens");
    assert_eq!(block_on(engine.retract_view(ENVIRONMENT, VIEW)).expect("retracts"), 0);
    for reader in readers.iter_mut() {
        reader.read(&engine, usize::MAX);
        assert_eq!((reader.rows.len(), reader.deleted), (0, all.len()));
    }
    block_on(engine.stop()).expect("stops");
    drop(engine);
    let engine = open(folder, workers, Some(before())).expect("opens");
    for reader in readers {
        reader.read(&engine, usize::MAX);
        assert_eq!((&reader.rows, reader.deleted), (all, all.len()));
    }
    block_on(engine.stop()).expect("stops");
}

/// The program that defines the view, with all records.
fn fill(folder: &Path, workers: usize, reader: &mut Reader) {
    let engine = open(folder, workers, Some(before())).expect("opens");
    let mut pages = Vec::new();
    for connection in 0..CONNECTIONS {
        let name = DatasetName::base(ENVIRONMENT, "crm", &format!("c{connection}"), "Contact");
        let dataset = engine.dataset(&name, &DatasetSpec::of(Strategy::Override)).expect("a dataset");
        let mut page = engine.page(&dataset);
        for n in 0..if connection == 0 { MANY } else { ROWS } {
            let record = format!("{{\"id\":\"{n}\",\"n\":{n}}}");
            page.save(&n.to_string(), None, Timestamp(1), record.as_bytes());
        }
        pages.push(page);
    }
    block_on(engine.commit(Batch { cause: Some(Cause::run(1)), pages, ..Batch::default() })).expect("commits");
    reader.read(&engine, usize::MAX);
    block_on(engine.stop()).expect("stops");
}

/// Lets the child delete, and kills it when it has said so many lines (that it begins, then each engine time), or is done.
fn killed_after(folder: &Path, workers: usize, lines_heard: usize) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_retract_child"))
        .args([folder.as_os_str(), workers.to_string().as_ref()])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the child starts");
    let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let (say, said) = std::sync::mpsc::channel();
    std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| say.send(line)));
    let mut heard = Ok(String::new());
    for _ in 0..lines_heard {
        heard = said.recv_timeout(Duration::from_secs(60));
        if heard.as_ref().map_or(true, |line| line.starts_with("retracted ")) {
            break;
        }
    }
    // SIGKILL to this child only, by its id.
    let _ = child.kill();
    let _ = child.wait();
    heard.expect("the child tells how far it is");
}

/// Each connection has all its rows or none.
fn whole_connections(all: &BTreeSet<RowName>, left: &BTreeSet<RowName>) {
    let standing: BTreeSet<&String> = left.iter().map(|(connection, _)| connection).collect();
    let wanted: BTreeSet<&RowName> = all.iter().filter(|(connection, _)| standing.contains(connection)).collect();
    assert_eq!(left.iter().collect::<BTreeSet<_>>(), wanted, "a connection's rows go in one engine time");
}

/// Follows the view by cursor.
struct Reader {
    cursor: Cursor,
    /// Rows there are.
    rows: BTreeSet<RowName>,
    deleted: usize,
}

impl Reader {
    fn new() -> Reader {
        let cursor = Cursor { position: Position::START, dataset: DatasetId(0) };
        Reader { cursor, rows: BTreeSet::new(), deleted: 0 }
    }

    /// Reads on, `most` changes at most. What is added was not there, what is deleted was.
    fn read(&mut self, engine: &Engine, most: usize) {
        let datasets: Vec<_> = engine.datasets(ENVIRONMENT).into_iter().filter(|d| &*d.name.model == VIEW).collect();
        let mut read = 0;
        let done = engine.changes(&datasets, self.cursor, &mut |dataset, change| {
            let row = (dataset.name.connection.to_string(), change.id().into_owned());
            let fits = match change.meta.action {
                Action::Added => self.rows.insert(row.clone()),
                Action::Updated => false,
                Action::Deleted => self.rows.remove(&row),
            };
            assert!(fits, "{row:?} was {:?} at {:?}", change.meta.action, change.meta.position);
            self.deleted += usize::from(change.meta.action == Action::Deleted);
            self.cursor = Cursor { position: change.meta.position, dataset: dataset.id };
            read += 1;
            read < most
        });
        done.expect("changes");
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(60), future).await.expect("the engine answers") })
}
