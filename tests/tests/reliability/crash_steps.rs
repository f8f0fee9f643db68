//! A program that is killed, or whose store fails, at every edge within the commits of its steps: no checkpoint is ahead of its
//! records, and in the end there is what an undisturbed run leaves.
//!
//! Each edge is met at its first hit, its second, … until a run has no further one. Kills at the borders of steps are in
//! `engine/tests/it/program/kills.rs`.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use syncline_engine::fault::points::{OnError, POINTS};
use syncline_engine::pipeline::run::Outcome;
use syncline_tests::crash::side_by_side;
use syncline_tests::damage;
use syncline_tests::ledger::Trial;
use syncline_tests::steps::{Act, BEFORE, Bench, LISTING, MODELS, json};
use syncline_tests::tools::Running;

/// Edges on the way of a step and of the end of its run, from the hand to the disk.
const EDGES: [&str; 8] = [
    "poll.append_before",
    "poll.append_after",
    "poll.run_end",
    "proc.step_half",
    "proc.frontier",
    "store.write_before",
    "store.sync_after",
    "mark.write",
];
/// Longest life of a child.
const PATIENCE: Duration = Duration::from_secs(30);
/// More hits than a run has of any edge.
const HITS: u64 = 100;
const SIGKILL: i32 = 9;

/// What an undisturbed run leaves.
struct Wanted {
    before: Vec<(PathBuf, Vec<u8>)>,
    records: [Vec<String>; 2],
    changes: [Vec<String>; 2],
}

#[test]
fn killed_within_any_commit_no_checkpoint_is_ahead_and_nothing_comes_twice() {
    let mut trial = Trial::of("failpoints");
    let wanted = block_on(undisturbed());
    let [contacts, companies] = &wanted.records;
    assert_eq!((contacts.len(), companies.len()), (5, 2), "{contacts:?}, {companies:?}");
    let point = |name: &&str| POINTS.iter().find(|point| point.name == *name).expect("a failpoint");
    let fails = |name: &&str| point(name).on_error != OnError::Never;
    let kills = EDGES.iter().map(|name| (*name, "kill"));
    let errors = EDGES.iter().filter(|name| fails(name)).map(|name| (*name, "error"));
    let lives = AtomicU64::new(0);
    let done = side_by_side(kills.chain(errors), |(name, what)| {
        let met = (1..HITS).take_while(|at| live(&format!("{name}={what}@{at}"), &wanted)).count() as u64;
        assert!(met > 0, "no commit meets {name}");
        lives.fetch_add(met, Ordering::SeqCst);
        println!("{name}: {what} at {met} hits");
    });
    trial.add(lives.into_inner());
    assert_eq!(done, Ok(()), "edges at which something was lost or doubled");
}

async fn undisturbed() -> Wanted {
    let folder = tempfile::tempdir().expect("a folder");
    let bench = Bench::open(folder.path(), 1_000).expect("opens");
    bench.run(BEFORE, false).await.expect("runs");
    bench.close().await;
    let before = damage::files(folder.path());
    let bench = Bench::open(folder.path(), 2_000).expect("opens");
    let report = bench.run(LISTING, true).await.expect("runs");
    assert_eq!(report.record.status, Outcome::Complete);
    Wanted { before, records: bench.records(), changes: bench.changes() }
}

/// A life with this fault, and one that goes on with its folder; whether the fault was met.
fn live(plan: &str, wanted: &Wanted) -> bool {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    damage::lay_out(&data, &wanted.before);
    let (status, said) = child(&data, plan);
    if !said.contains(&format!("failpoint {plan}")) {
        assert!(status.success(), "{plan}: {status}\n{said}");
        return false;
    }
    match plan.contains("=kill") {
        true => assert_eq!(status.signal(), Some(SIGKILL), "{plan}: {status}\n{said}"),
        false => assert!(status.code().is_some(), "{plan}: {status}\n{said}"),
    }
    block_on(async {
        let bench = Bench::open(&data, 3_000).unwrap_or_else(|why| panic!("{plan}: {why}"));
        no_checkpoint_is_ahead(&bench, plan);
        let report = bench.run(LISTING, true).await.expect("runs");
        assert_eq!(report.record.status, Outcome::Complete, "{plan}");
        assert_eq!(bench.records(), wanted.records, "{plan}");
        assert_eq!(bench.changes(), wanted.changes, "{plan}: each change once, in order");
        assert_eq!(bench.place(), 0, "{plan}: the run is over");
    });
    true
}

fn child(data: &Path, plan: &str) -> (ExitStatus, String) {
    let log = data.with_file_name("said");
    let mut command = Command::new(env!("CARGO_BIN_EXE_steps_child"));
    command.arg(data).arg("2000").env("SYNCLINE_FAULTS", plan);
    let running = Running::start(&mut command, &log).expect("the child starts");
    let status = running.wait(PATIENCE).unwrap_or_else(|why| panic!("{plan}: {why}"));
    (status, fs::read_to_string(log).expect("said"))
}

/// What was written before the checkpoint is there.
fn no_checkpoint_is_ahead(bench: &Bench, plan: &str) {
    let (place, changes) = (bench.place(), bench.changes());
    let made = |model: &str, change: &str| {
        let of = MODELS.iter().position(|known| *known == model).expect("a model");
        changes[of].iter().any(|made| made.contains(change))
    };
    for act in &LISTING[..place] {
        let there = match act {
            Act::Save(model, id, n) => made(model, &json(id, *n)),
            Act::Gone(model, id) => made(model, &format!("Deleted {{\"id\":\"{id}\"")),
            _ => true,
        };
        assert!(there, "{plan}: the checkpoint is behind {act:?}, and there is {changes:?}");
    }
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async { tokio::time::timeout(PATIENCE, work).await.expect("the engine answers") })
}
