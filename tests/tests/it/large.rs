//! Datasets too large for memory: they behave as any other. Random histories over them are in `oracle.rs`, kills in `crash.rs`.

use serde_json::json;
use std::path::Path;
use std::sync::Arc;
use syncline_engine::Engine;
use syncline_engine::model::{Cause, DatasetName, Position, Strategy, Timestamp};
use syncline_engine::pipeline::{Batch, Dataset, DatasetSpec, Options, Receipt, WindowOp};
use syncline_engine::time::ManualClock;
use syncline_engine::views::{Definition, Row};
use syncline_tests::compare::read_changes;

const NOW: Timestamp = Timestamp(1_700_000_000_000_000);

/// An engine that keeps nothing of records in memory beyond what is under way.
fn open(folder: &Path, workers: usize) -> (Engine, Dataset) {
    let (data_dir, clock) = (Some(folder.to_path_buf()), Arc::new(ManualClock::new(NOW)));
    let engine = Engine::open(Options { data_dir, workers, clock, table_bytes: 0, ..Options::default() });
    let engine = engine.expect("opens");
    let spec = DatasetSpec { strategy: Strategy::Latest, ignore_in_diff: vec![] };
    let set = engine.dataset(&DatasetName::base("dev", "crm", "acme", "Contact"), &spec).expect("a dataset");
    (engine, set)
}

fn page(engine: &Engine, set: &Dataset, ids: impl Iterator<Item = u64>, version: u64) -> Batch {
    let mut page = engine.page(set);
    for id in ids {
        let payload = json!({"id": id.to_string(), "version": version}).to_string();
        page.save(&id.to_string(), None, NOW.plus(std::time::Duration::from_secs(version)), payload.as_bytes());
    }
    Batch { cause: Some(Cause::run(version)), pages: vec![page], ..Batch::default() }
}

fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let limit = std::time::Duration::from_secs(60);
    runtime.block_on(async { tokio::time::timeout(limit, future).await.expect("the engine answers") })
}

fn commit(engine: &Engine, batch: Batch) -> Receipt {
    run(engine.commit(batch)).expect("commits")
}

fn window(set: &Dataset, sweep: bool) -> Batch {
    let (open, close) = match sweep {
        false => (vec![WindowOp::Start(set.clone())], vec![]),
        true => (vec![], vec![WindowOp::Sweep(set.clone())]),
    };
    Batch { cause: Some(Cause::run(9)), open, close, ..Batch::default() }
}

#[test]
fn unchanged_changed_and_missing_are_told_apart_over_restarts_with_other_workers() {
    let folder = tempfile::tempdir().expect("a folder");
    let (engine, set) = open(folder.path(), 1);
    for from in (0..2_000).step_by(500) {
        let receipt = commit(&engine, page(&engine, &set, from..from + 500, 1));
        assert_eq!(receipt.counts_of(&set).added, 500);
    }
    run(engine.stop()).expect("stops");
    drop(engine);
    let (engine, set) = open(folder.path(), 2);
    assert_eq!(engine.live(&set), 2_000);
    commit(&engine, window(&set, false));
    let again = commit(&engine, page(&engine, &set, 0..1_500, 1)).counts_of(&set);
    assert_eq!((again.unchanged, again.changes()), (1_500, 0));
    let newer = commit(&engine, page(&engine, &set, 0..10, 2)).counts_of(&set);
    assert_eq!((newer.updated, newer.changes()), (10, 10));
    run(engine.stop()).expect("stops");
    drop(engine);
    let (engine, set) = open(folder.path(), 1);
    let older = commit(&engine, page(&engine, &set, 0..10, 1)).counts_of(&set);
    assert_eq!((older.skipped, older.changes()), (10, 0), "versions are kept");
    let before = *engine.watermark().borrow();
    let swept = commit(&engine, window(&set, true)).counts_of(&set);
    assert_eq!((swept.deleted, engine.live(&set)), (500, 1_500), "generations are kept");
    let deletes = read_changes(&engine, &set, Position(before.0 - 1)).expect("changes");
    assert_eq!(deletes.len(), 500);
    run(engine.stop()).expect("stops");
}

#[test]
fn a_record_that_was_asked_for_is_still_the_business_of_one_worker() {
    let folder = tempfile::tempdir().expect("a folder");
    let (engine, set) = open(folder.path(), 2);
    commit(&engine, page(&engine, &set, 0..20, 1));
    commit(&engine, page(&engine, &set, 20..21, 1));
    commit(&engine, window(&set, false));
    for id in 0..20 {
        assert!(run(engine.record(&set, &id.to_string())).expect("answers").is_some());
    }
    let swept = commit(&engine, window(&set, true)).counts_of(&set);
    assert_eq!((swept.deleted, engine.live(&set)), (21, 0));
    run(engine.stop()).expect("stops");
}

/// Rows of a view that is itself too large for memory, and that come no more.
#[test]
fn a_view_that_is_spilled_loses_what_other_code_does_not_make() {
    #[derive(Row, Clone)]
    #[row(crate = syncline_engine)]
    struct Contact {
        version: u64,
    }
    let folder = tempfile::tempdir().expect("a folder");
    let open = |least: u64| {
        let views = Definition::new(move |v| {
            let contacts = v.model::<Contact>("crm", "Contact");
            v.publish("Known", &contacts.filter(move |id, _| id.parse::<u64>().is_ok_and(|id| id >= least)));
        });
        let (data_dir, clock) = (Some(folder.path().to_path_buf()), Arc::new(ManualClock::new(NOW)));
        let options = Options { data_dir, workers: 2, clock, table_bytes: 0, views: Some(views), ..Options::default() };
        let engine = Engine::open(options).expect("opens");
        let spec = DatasetSpec { strategy: Strategy::Latest, ignore_in_diff: vec![] };
        let set = engine.dataset(&DatasetName::base("dev", "crm", "acme", "Contact"), &spec).expect("a dataset");
        let known = engine.find(&DatasetName::base("dev", "crm", "acme", "Known")).expect("the view's");
        (engine, set, known)
    };
    let (engine, set, known) = open(0);
    for from in (0..2_000).step_by(500) {
        commit(&engine, page(&engine, &set, from..from + 500, 1));
    }
    assert_eq!(engine.live(&known), 2_000);
    run(engine.stop()).expect("stops");
    drop((engine, set, known));
    let (engine, set, known) = open(1_000);
    assert_eq!(engine.live(&known), 1_000);
    commit(&engine, page(&engine, &set, 0..2_000, 2));
    assert_eq!((engine.live(&known), engine.views()[0].health.stopped.as_ref()), (1_000, None));
    run(engine.stop()).expect("stops");
}

#[test]
fn cleared_it_is_kept_in_memory_again() {
    let folder = tempfile::tempdir().expect("a folder");
    for round in 0..3 {
        let (engine, set) = open(folder.path(), 1 + round % 2);
        commit(&engine, page(&engine, &set, 0..50, 1));
        commit(&engine, page(&engine, &set, 50..60, 1));
        assert_eq!(engine.live(&set), 60);
        run(engine.clear(&set)).expect("clears");
        let anew = commit(&engine, page(&engine, &set, 0..5, 1)).counts_of(&set);
        assert_eq!((anew.added, engine.live(&set)), (5, 5));
        run(engine.stop()).expect("stops");
    }
}
