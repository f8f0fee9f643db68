//! What the engine promises beyond the semantics of records: readers, marks, the folder, order, bounds.

use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use syncline::keyspaces;
use syncline_engine::Engine;
use syncline_engine::model::{Action, Cause, Counts, Cursor, DatasetId, DatasetName, Position, Strategy, Timestamp};
use syncline_engine::pipeline::{
    Batch, Dataset, DatasetSpec, Error, Filter, Keyspace, Mark, Options, PageBuilder, Receipt, WindowOp,
};
use syncline_engine::time::ManualClock;
use syncline_tests::compare::{read_changes, read_pages};

const NOW: Timestamp = Timestamp(1_700_000_000_000_000);

fn open(folder: &Path, workers: usize) -> Engine {
    try_open(folder, workers).expect("opens")
}

fn try_open(folder: &Path, workers: usize) -> Result<Engine, Error> {
    let clock = Arc::new(ManualClock::new(NOW));
    Engine::open(Options { data_dir: Some(folder.to_path_buf()), workers, clock, ..Options::default() })
}

fn contacts(engine: &Engine, strategy: Strategy) -> Dataset {
    let spec = DatasetSpec { strategy, ignore_in_diff: vec![] };
    engine.dataset(&DatasetName::base("dev", "crm", "acme", "Contact"), &spec).expect("dataset")
}

/// A batch that saves `values` under ids `0..`, all observed at `NOW`.
fn saves(engine: &Engine, set: &Dataset, values: impl IntoIterator<Item = (String, Value)>) -> Batch {
    let mut page = engine.page(set);
    for (id, mut value) in values {
        value["id"] = json!(id);
        page.save(&id, None, NOW, value.to_string().as_bytes());
    }
    Batch { cause: Some(Cause::run(1)), pages: vec![page], ..Batch::default() }
}

fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let limit = std::time::Duration::from_secs(60);
    runtime.block_on(async { tokio::time::timeout(limit, future).await.expect("the engine answers") })
}

fn save(engine: &Engine, set: &Dataset, values: impl IntoIterator<Item = (String, Value)>) -> Receipt {
    run(engine.commit(saves(engine, set, values))).expect("commits")
}

fn ids(engine: &Engine, set: &Dataset) -> Vec<String> {
    let all = read_pages(engine, set, Filter::ALL, 1_000).expect("records");
    all.into_iter().map(|(_, payload)| payload["id"].as_str().expect("an id").to_string()).collect()
}

#[test]
fn records_of_one_call_keep_their_order() {
    let folder = tempfile::tempdir().expect("a folder");
    for workers in [1, 2] {
        let engine = open(folder.path(), workers);
        let set = contacts(&engine, Strategy::Override);
        let new: Vec<String> = (0..50).map(|n| format!("{workers}-{}", n * 7919 % 50)).collect();
        save(&engine, &set, new.iter().map(|id| (id.clone(), json!({"v": 1}))));
        save(&engine, &set, new.iter().take(20).map(|id| (id.clone(), json!({"v": 2}))));
        let expected: Vec<&String> = new.iter().skip(20).chain(new.iter().take(20)).collect();
        let found = ids(&engine, &set);
        assert_eq!(found[found.len() - 50..].iter().collect::<Vec<_>>(), expected, "with {workers} workers");
        run(engine.stop()).expect("stops");
    }
}

#[test]
fn a_reader_who_follows_the_cursor_misses_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let engine = open(folder.path(), 2);
    let set = contacts(&engine, Strategy::Override);
    let done = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..2u64).map(|n| follow(engine.clone(), set.clone(), done.clone(), n)).collect();
    for round in 0..150u64 {
        let mut batch = saves(
            &engine,
            &set,
            (0..10).map(|n| ((round * 7 + n * n) % 60).to_string()).map(|id| (id, json!({"round": round}))),
        );
        if round % 5 == 0 {
            let mut gone = engine.page(&set);
            gone.delete(&(round % 60).to_string(), None, NOW, None);
            batch.pages.push(gone);
        }
        run(engine.commit(batch)).expect("commits");
    }
    done.store(true, Ordering::SeqCst);
    let all = read_pages(&engine, &set, Filter::ALL, 1_000).expect("records");
    let truth: BTreeMap<String, (Action, Value)> = all
        .into_iter()
        .map(|(meta, payload)| (payload["id"].as_str().expect("an id").to_string(), (meta.action, payload)))
        .collect();
    for reader in readers {
        let (records, changes) = reader.join().expect("the reader");
        assert_eq!(records, truth, "by records");
        assert_eq!(changes, truth, "by changes");
    }
    run(engine.stop()).expect("stops");
}

type Copy = BTreeMap<String, (Action, Value)>;

/// Follows records and changes until `done`, and gives the copies it made.
fn follow(engine: Engine, set: Dataset, done: Arc<AtomicBool>, limit: u64) -> std::thread::JoinHandle<(Copy, Copy)> {
    let limit = 3 + limit as usize * 40;
    std::thread::spawn(move || {
        let (mut records, mut changes) = (Copy::new(), Copy::new());
        let (mut at, mut change_at) = (Position::START, Position::START);
        loop {
            let last = done.load(Ordering::SeqCst);
            let (mut read, from) = (0, at);
            let mut each = |meta: &syncline_engine::model::Meta, payload: &[u8]| {
                assert!(meta.position > at, "a reader never goes back");
                at = meta.position;
                let payload: Value = serde_json::from_slice(payload).expect("JSON");
                records.insert(payload["id"].as_str().expect("an id").to_string(), (meta.action, payload));
                read += 1;
                read < limit
            };
            engine.records(&set, from, Filter::ALL, &mut each).expect("records");
            let mut met = 0;
            let cursor = Cursor { position: change_at, dataset: DatasetId(u32::MAX) };
            let mut each = |_: &Dataset, change: syncline_engine::model::Change| {
                assert!(change.meta.position > change_at, "changes never go back");
                change_at = change.meta.position;
                let payload: Value = serde_json::from_slice(change.after.as_ref().expect("content")).expect("JSON");
                let id = payload["id"].as_str().expect("an id").to_string();
                let before: Option<Value> = change.before.as_ref().map(|b| serde_json::from_slice(b).expect("JSON"));
                let known = changes.insert(id, (change.meta.action, payload));
                if change.meta.action != Action::Added {
                    assert_eq!(before, known.map(|(_, payload)| payload), "before is what the reader knew");
                }
                met += 1;
                met < limit
            };
            engine.changes(std::slice::from_ref(&set), cursor, &mut each).expect("changes");
            if last && read == 0 && met == 0 {
                return (records, changes);
            }
        }
    })
}

#[test]
fn one_reading_is_of_one_engine_time() {
    let folder = tempfile::tempdir().expect("a folder");
    let engine = open(folder.path(), 2);
    let set = contacts(&engine, Strategy::Override);
    save(&engine, &set, (0..40).map(|n| (n.to_string(), json!({"round": 0}))));
    let done = Arc::new(AtomicBool::new(false));
    let reader = {
        let (engine, set, done) = (engine.clone(), set.clone(), done.clone());
        std::thread::spawn(move || {
            let mut readings = 0;
            while !done.load(Ordering::SeqCst) {
                let mut rounds = BTreeSet::new();
                let mut number = 0;
                let mut each = |_: &syncline_engine::model::Meta, payload: &[u8]| {
                    let payload: Value = serde_json::from_slice(payload).expect("JSON");
                    rounds.insert(payload["round"].to_string());
                    number += 1;
                    true
                };
                engine.records(&set, Position::START, Filter::ALL, &mut each).expect("records");
                assert_eq!((rounds.len(), number), (1, 40), "every batch rewrites all records: {rounds:?}");
                readings += 1;
            }
            readings
        })
    };
    for round in 1..120 {
        save(&engine, &set, (0..40).map(|n| (n.to_string(), json!({"round": round}))));
    }
    done.store(true, Ordering::SeqCst);
    assert!(reader.join().expect("the reader") > 0);
    run(engine.stop()).expect("stops");
}

#[test]
fn equal_versions_with_other_content_end_alike_in_every_order() {
    let folder = tempfile::tempdir().expect("a folder");
    let engine = open(folder.path(), 2);
    let spec = DatasetSpec { strategy: Strategy::Latest, ignore_in_diff: vec![] };
    type Write = fn(&mut syncline_engine::pipeline::PageBuilder);
    let at = |seconds: i64| Some(NOW.plus(std::time::Duration::from_secs(seconds as u64)));
    assert!(at(1) > at(0));
    let one: Write = |page| page.save("x", Some(NOW), NOW, br#"{"id":"x","a":1}"#);
    let two: Write = |page| page.save("x", Some(NOW), NOW, br#"{"id":"x","a":2}"#);
    let gone: Write = |page| page.delete("x", Some(NOW), NOW, None);
    let patch: Write = |page| page.patch("x", Some(NOW), NOW, br#"{"a":3}"#);
    let other: Write = |page| page.patch("x", Some(NOW), NOW, br#"{"a":4,"b":1}"#);
    let early: Write = |page| page.save("x", Some(Timestamp(1)), NOW, br#"{"id":"x","c":1}"#);
    let cases: [&[Write]; 6] =
        [&[one, two], &[one, gone], &[two, gone], &[one, patch], &[early, patch, other], &[early, one, two, gone]];
    for (n, writes) in cases.iter().enumerate() {
        let mut ends = BTreeSet::new();
        for (m, order) in orders(writes.len()).into_iter().enumerate() {
            let name = DatasetName::base("dev", "crm", "acme", &format!("Tie{n}-{m}"));
            let set = engine.dataset(&name, &spec).expect("dataset");
            for at in &order {
                let mut page = engine.page(&set);
                writes[*at](&mut page);
                let batch = Batch { cause: Some(Cause::run(1)), pages: vec![page], ..Batch::default() };
                run(engine.commit(batch)).expect("commits");
            }
            let all = read_pages(&engine, &set, Filter::ALL, 10).expect("records");
            let live = all.iter().find(|(meta, _)| meta.action != Action::Deleted);
            ends.insert(live.map(|(_, payload)| syncline_tests::oracle::canonical(payload)));
        }
        assert_eq!(ends.len(), 1, "case {n} ends in {ends:?}");
    }
    run(engine.stop()).expect("stops");
}

fn orders(n: usize) -> Vec<Vec<usize>> {
    let Some(less) = n.checked_sub(1) else { return vec![vec![]] };
    let insert = |order: Vec<usize>| {
        (0..n).map(move |at| {
            let mut order = order.clone();
            order.insert(at, less);
            order
        })
    };
    orders(less).into_iter().flat_map(insert).collect()
}

#[test]
fn a_refused_batch_leaves_nothing_behind() {
    let folder = tempfile::tempdir().expect("a folder");
    let engine = open(folder.path(), 2);
    let set = contacts(&engine, Strategy::Override);
    save(&engine, &set, [("a".to_string(), json!({"v": 1}))]);
    let before = Position(engine.watermark().borrow().0 - 1);
    let mut batch = saves(&engine, &set, [("a".to_string(), json!({"v": 2})), ("b".to_string(), json!({}))]);
    batch.close.push(WindowOp::Sweep(set.clone()));
    batch.marks.push(Mark::put(keyspaces::SETTING, &["x"], "y"));
    let refused = run(engine.commit(batch));
    assert!(matches!(&refused, Err(Error::NoWindow(model)) if model == "Contact"), "{refused:?}");
    assert_eq!(refused.expect_err("refused").to_string(), "No track deletes starting point found for model 'Contact'.");
    assert_eq!(engine.mark(keyspaces::SETTING, &["x"]).expect("marks"), None);
    assert_eq!(ids(&engine, &set), ["a"]);
    assert_eq!(read_changes(&engine, &set, before).expect("changes"), []);
    run(engine.stop()).expect("stops");
}

#[test]
fn what_is_no_record_is_counted_and_never_stored() {
    let folder = tempfile::tempdir().expect("a folder");
    let engine = open(folder.path(), 2);
    for strategy in [Strategy::Override, Strategy::Latest, Strategy::IgnoreIfModifiedAfter] {
        let set = engine
            .dataset(
                &DatasetName::base("dev", "crm", "acme", &format!("Bad{strategy:?}")),
                &DatasetSpec { strategy, ignore_in_diff: vec![] },
            )
            .expect("dataset");
        save(&engine, &set, [("a".to_string(), json!({"v": 1}))]);
        let later = NOW.plus(std::time::Duration::from_secs(1));
        for bad in [&b"{"[..], b"[]", b"7", b"", b"{\"a\":01}", b"{\"a\":\"\xff\"}", b"null"] {
            let mut page = engine.page(&set);
            page.save("a", None, later, bad);
            page.save("b", None, later, bad);
            page.patch("a", None, later, bad);
            page.save("c", None, later, br#"{"id":"c"}"#);
            let batch = Batch { cause: Some(Cause::run(1)), pages: vec![page], ..Batch::default() };
            let receipt = run(engine.commit(batch)).expect("commits");
            let counts = receipt.counts.first().expect("counts").1;
            assert_eq!(counts.rejected, 3, "{strategy:?} {counts:?} for {}", String::from_utf8_lossy(bad));
        }
        assert_eq!(ids(&engine, &set), ["a", "c"], "{strategy:?}");
    }
    run(engine.stop()).expect("stops");
}

fn commit(engine: &Engine, page: PageBuilder) -> Counts {
    let batch = Batch { cause: Some(Cause::run(1)), pages: vec![page], ..Batch::default() };
    run(engine.commit(batch)).expect("commits").counts.first().map(|(_, counts)| *counts).unwrap_or_default()
}

fn after(seconds: u64) -> Timestamp {
    NOW.plus(std::time::Duration::from_secs(seconds))
}

/// What an unchanged page says of its records. Under `latest` each used to keep the whole content and a clock more.
#[test]
fn a_patch_without_fields_leaves_nothing_but_that_the_record_was_seen() {
    let folder = tempfile::tempdir().expect("a folder");
    let engine = open(folder.path(), 1);
    for strategy in [Strategy::Override, Strategy::Latest, Strategy::IgnoreIfModifiedAfter] {
        let spec = DatasetSpec { strategy, ignore_in_diff: vec![] };
        let set = engine.dataset(&DatasetName::base("dev", "crm", "acme", &format!("Set{strategy:?}")), &spec);
        let set = set.expect("a dataset");
        let page = |fill: &dyn Fn(&mut PageBuilder)| {
            let mut page = engine.page(&set);
            fill(&mut page);
            commit(&engine, page)
        };
        page(&|page| page.save("a", Some(Timestamp(1)), after(1), br#"{"id":"a","v":1}"#));
        let open = Batch { cause: Some(Cause::run(1)), open: vec![WindowOp::Start(set.clone())], ..Batch::default() };
        run(engine.commit(open)).expect("commits");
        let counts = page(&|page| {
            page.patch("a", None, after(2), b"{}");
            page.patch("a", None, after(3), b" { } ");
            page.patch("unknown", None, after(2), b"{}");
        });
        assert_eq!((counts.unchanged, counts.ignored, counts.changes()), (2, 1, 0), "{strategy:?}");
        assert!(run(engine.missing(&set)).expect("answers").positions.is_empty(), "{strategy:?}: it was seen");
        let known = run(engine.record(&set, "a")).expect("answers").expect("a record");
        run(engine.prune(&set, known.meta.position, 10)).expect("prunes");
        let counts = page(&|page| page.patch("a", None, after(4), br#"{"v":2}"#));
        assert_eq!((counts.ignored, counts.changes()), (1, 0), "{strategy:?}: there is no content to patch");
    }
    run(engine.stop()).expect("stops");
}

/// Its fields have clocks, and these have content.
#[test]
fn pruning_takes_the_content_that_patches_had_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    for workers in [1, 2] {
        let engine = open(folder.path(), workers);
        let set = contacts(&engine, Strategy::Latest);
        let round = workers as u64 * 100;
        let id = format!("r{workers}");
        let save = |at: u64, v: u64| {
            let mut page = engine.page(&set);
            page.save(&id, Some(after(at)), after(at), json!({"id": id, "v": v, "secret": 1}).to_string().as_bytes());
            commit(&engine, page)
        };
        let patch = |at: u64, text: &str| {
            let mut page = engine.page(&set);
            page.patch(&id, Some(after(at)), after(at), text.as_bytes());
            commit(&engine, page)
        };
        save(round + 1, 1);
        assert_eq!(patch(round + 5, r#"{"v":2}"#).updated, 1);
        let known = run(engine.record(&set, &id)).expect("answers").expect("a record");
        run(engine.prune(&set, known.meta.position, 10)).expect("prunes");
        assert_eq!(patch(round + 6, r#"{"w":3}"#).ignored, 1, "there is no content to patch");
        assert_eq!(save(round + 4, 9).skipped, 1, "older than the patch that was pruned");
        assert_eq!(save(round + 7, 9).updated, 1);
        run(engine.stop()).expect("stops");
    }
}

/// Each worker replaces what it has noted of records that were only seen. What was noted when there was one worker is of all.
#[test]
fn what_was_seen_is_known_after_the_number_of_workers_has_grown() {
    let folder = tempfile::tempdir().expect("a folder");
    let engine = open(folder.path(), 1);
    let set = contacts(&engine, Strategy::Latest);
    let all = |engine: &Engine, at: u64| {
        let mut page = engine.page(&set);
        (0..4_000).for_each(|n| page.save(&n.to_string(), None, after(at), format!(r#"{{"id":"{n}"}}"#).as_bytes()));
        page
    };
    commit(&engine, all(&engine, 1));
    let begin = Batch { cause: Some(Cause::run(1)), open: vec![WindowOp::Start(set.clone())], ..Batch::default() };
    run(engine.commit(begin)).expect("commits");
    assert_eq!(commit(&engine, all(&engine, 2)).unchanged, 4_000);
    run(engine.stop()).expect("stops");
    drop(engine);

    // Some of both workers' records are seen so often that both of them sum up, one long before the other.
    for half in 0..2 {
        let engine = open(folder.path(), 2);
        for round in 0..8u64 {
            let mut page = engine.page(&set);
            for n in 0..12_000u64 {
                let id = (n % 3 + half * 3).to_string();
                page.save(&id, None, after(10 + round * 12_000 + n), format!(r#"{{"id":"{id}"}}"#).as_bytes());
            }
            commit(&engine, page);
        }
        run(engine.stop()).expect("stops");
    }
    let engine = open(folder.path(), 2);
    assert!(run(engine.missing(&set)).expect("answers").positions.is_empty(), "all were seen in the window");
    let mut late = engine.page(&set);
    (100..4_000)
        .for_each(|n| late.save(&n.to_string(), None, after(1), format!(r#"{{"id":"{n}","old":1}}"#).as_bytes()));
    assert_eq!(commit(&engine, late).skipped, 3_900, "versions are known");
    run(engine.stop()).expect("stops");
}

#[test]
fn marks_are_found_by_whole_parts() {
    let folder = tempfile::tempdir().expect("a folder");
    let keys: [&[&str]; 10] = [
        &["a"],
        &["a", "b"],
        &["a", "b", "c"],
        &["ab"],
        &["a", ""],
        &["", "a"],
        &["a\0b"],
        &["a", "é/:"],
        &["b", "a"],
        &["a", "b\0"],
    ];
    let engine = open(folder.path(), 1);
    let marks = |keyspace: Keyspace| {
        let value = move |key: &[&str]| format!("{}{key:?}", keyspace.number());
        keys.iter().map(move |key| Mark::put(keyspace, key, value(key))).collect::<Vec<_>>()
    };
    let all = marks(Keyspace::NOTE).into_iter().chain(marks(keyspaces::SETTING)).collect();
    run(engine.commit(Batch { marks: all, ..Batch::default() })).expect("commits");
    run(engine.stop()).expect("stops");
    drop(engine);
    let engine = open(folder.path(), 2);
    for key in keys {
        let value = engine.mark(Keyspace::NOTE, key).expect("marks");
        assert_eq!(value, Some(format!("{}{key:?}", Keyspace::NOTE.number()).into_bytes()), "{key:?}");
    }
    let found = engine.marks(keyspaces::SETTING, &["a"]).expect("marks");
    let rests: Vec<Vec<String>> = found.iter().map(|(rest, _)| rest.clone()).collect();
    let mut expected: Vec<Vec<String>> =
        keys.iter().filter(|k| k[0] == "a").map(|k| k[1..].iter().map(|p| p.to_string()).collect()).collect();
    assert_eq!(rests.len(), expected.len(), "{rests:?}");
    expected.sort();
    let mut sorted = rests.clone();
    sorted.sort();
    assert_eq!(sorted, expected);
    assert_eq!(engine.marks(keyspaces::SETTING, &[]).expect("marks").len(), keys.len());
    assert_eq!(engine.marks(Keyspace::RUN, &[]).expect("marks"), []);
    let gone = vec![Mark::delete(keyspaces::SETTING, &["a"]), Mark::put(keyspaces::SETTING, &["a", "b"], "new")];
    run(engine.commit(Batch { marks: gone, ..Batch::default() })).expect("commits");
    assert_eq!(engine.mark(keyspaces::SETTING, &["a"]).expect("marks"), None);
    assert_eq!(engine.mark(keyspaces::SETTING, &["a", "b"]).expect("marks"), Some(b"new".to_vec()));
    run(engine.stop()).expect("stops");
}

#[test]
fn a_folder_belongs_to_one_engine() {
    let folder = tempfile::tempdir().expect("a folder");
    let engine = open(folder.path(), 1);
    assert!(matches!(try_open(folder.path(), 1), Err(Error::Locked(_))));
    run(engine.stop()).expect("stops");
    drop(engine);
    run(open(folder.path(), 1).stop()).expect("stops");
}

#[test]
fn after_stop_nothing_is_accepted_and_everything_accepted_is_there() {
    let folder = tempfile::tempdir().expect("a folder");
    let engine = open(folder.path(), 2);
    let set = contacts(&engine, Strategy::Override);
    let receipts = run(async {
        let commits = (0..40).map(|n| engine.commit(saves(&engine, &set, [(n.to_string(), json!({}))])));
        let (receipts, stopped) = tokio::join!(futures_util::future::join_all(commits), engine.stop());
        stopped.expect("stops");
        receipts
    });
    let accepted: BTreeSet<String> =
        receipts.iter().enumerate().filter(|(_, r)| r.is_ok()).map(|(n, _)| n.to_string()).collect();
    assert!(matches!(run(engine.commit(saves(&engine, &set, [("late".to_string(), json!({}))]))), Err(Error::Stopped)));
    drop((engine, set));
    let engine = open(folder.path(), 1);
    let set = contacts(&engine, Strategy::Override);
    let there: BTreeSet<String> = ids(&engine, &set).into_iter().collect();
    assert_eq!(there, accepted);
    run(engine.stop()).expect("stops");
}

#[test]
fn positions_only_rise_over_restarts_and_clearing() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut last = Position::START;
    for round in 0..4u64 {
        let engine = open(folder.path(), 1 + round as usize % 2);
        let set = contacts(&engine, Strategy::Override);
        for n in 0..3 {
            let receipt = save(&engine, &set, [("a".to_string(), json!({"v": round * 10 + n}))]);
            assert!(receipt.end > last, "{receipt:?} after {last:?}");
            let changes = read_changes(&engine, &set, last).expect("changes");
            assert_eq!(changes.len(), 1, "exactly the new change lies after the old cursor");
            last = changes[0].meta.position;
        }
        if round % 2 == 1 {
            run(engine.clear(&set)).expect("clears");
            assert_eq!((ids(&engine, &set).len(), engine.live(&set)), (0, 0));
        }
        run(engine.stop()).expect("stops");
    }
}

#[test]
fn a_sweep_of_many_is_one_set_and_survives_a_restart_before_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let engine = open(folder.path(), 2);
    let set = contacts(&engine, Strategy::Latest);
    save(&engine, &set, (0..3_000).map(|n| (n.to_string(), json!({"n": n}))));
    let start = Batch { cause: Some(Cause::run(2)), open: vec![WindowOp::Start(set.clone())], ..Batch::default() };
    run(engine.commit(start)).expect("commits");
    save(&engine, &set, (0..1_000).map(|n| ((n * 3).to_string(), json!({"n": n * 3}))));
    run(engine.stop()).expect("stops");
    drop(engine);
    let engine = open(folder.path(), 1);
    let set = contacts(&engine, Strategy::Latest);
    assert!(engine.window_open(&set));
    let missing = run(engine.missing(&set)).expect("missing");
    assert_eq!((missing.live, missing.positions.len()), (3_000, 2_000));
    let before = Position(engine.watermark().borrow().0 - 1);
    let sweep = Batch { cause: Some(Cause::run(2)), close: vec![WindowOp::Sweep(set.clone())], ..Batch::default() };
    let receipt = run(engine.commit(sweep)).expect("commits");
    assert_eq!(receipt.counts.first().map(|(_, c)| c.deleted), Some(2_000));
    assert_eq!(engine.live(&set), 1_000);
    let changes = read_changes(&engine, &set, before).expect("changes");
    let epochs: BTreeSet<u64> = changes.iter().map(|c| c.meta.position.epoch()).collect();
    assert_eq!((changes.len(), epochs.len()), (2_000, 1), "all deletes have one engine time");
    assert!(changes.iter().all(|c| c.meta.action == Action::Deleted && c.after.is_some()));
    run(engine.stop()).expect("stops");
}

#[test]
fn a_swept_record_is_not_revived_by_what_was_known_of_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let engine = open(folder.path(), 1);
    let set = contacts(&engine, Strategy::Latest);
    // The provider's clock is ahead of ours.
    let later = NOW.plus(std::time::Duration::from_secs(3_600));
    type Write = fn(&mut syncline_engine::pipeline::PageBuilder, Timestamp);
    let whole: Write = |page, at| page.save("x", Some(NOW), at, br#"{"id":"x","a":1}"#);
    let patch: Write = |page, at| page.patch("x", Some(Timestamp(NOW.0 + 1)), at, br#"{"a":2}"#);
    let commit = |open: Vec<WindowOp>, write: Option<Write>, close: Vec<WindowOp>| {
        let mut page = engine.page(&set);
        write.into_iter().for_each(|write| write(&mut page, later));
        let batch = Batch { cause: Some(Cause::run(1)), open, pages: vec![page], close, ..Batch::default() };
        run(engine.commit(batch)).expect("commits").counts_of(&set)
    };
    for patched in [false, true] {
        commit(vec![], Some(whole), vec![]);
        if patched {
            commit(vec![], Some(patch), vec![]);
        }
        let swept = commit(vec![WindowOp::Start(set.clone())], None, vec![WindowOp::Sweep(set.clone())]);
        assert_eq!(swept.deleted, 1);
        for again in [whole, patch] {
            let counts = commit(vec![], Some(again), vec![]);
            assert_eq!(counts.changes(), 0, "patched: {patched}, {counts:?}");
        }
        assert_eq!(engine.live(&set), 0);
        run(engine.clear(&set)).expect("clears");
    }
    run(engine.stop()).expect("stops");
}

#[test]
fn a_pruned_record_that_comes_back_and_changes_in_one_batch_is_one_record() {
    let folder = tempfile::tempdir().expect("a folder");
    let engine = open(folder.path(), 1);
    let set = contacts(&engine, Strategy::Override);
    save(&engine, &set, [("a".to_string(), json!({"v": 1}))]);
    let (pruned, _) = run(engine.prune(&set, Position(u64::MAX), 10)).expect("prunes");
    assert_eq!(pruned, 1);
    let receipt = save(&engine, &set, [("a".to_string(), json!({"v": 1})), ("a".to_string(), json!({"v": 2}))]);
    assert_eq!((receipt.counts_of(&set).unchanged, receipt.counts_of(&set).updated), (1, 1));
    let all = read_pages(&engine, &set, Filter::ALL, 10).expect("records");
    assert_eq!(all.into_iter().map(|(_, payload)| payload).collect::<Vec<_>>(), [json!({"v": 2, "id": "a"})]);
    let changes = read_changes(&engine, &set, Position::START).expect("changes");
    let texts: Vec<_> =
        changes.iter().map(|c| c.after.as_ref().map(|b| String::from_utf8_lossy(b).into_owned())).collect();
    assert_eq!(texts, [Some(r#"{"v":1,"id":"a"}"#.to_string()), Some(r#"{"v":2,"id":"a"}"#.to_string())]);
    run(engine.stop()).expect("stops");
}

#[test]
fn a_pruned_record_that_comes_back_can_be_patched_in_the_same_batch() {
    let folder = tempfile::tempdir().expect("a folder");
    let engine = open(folder.path(), 1);
    for strategy in [Strategy::Override, Strategy::Latest] {
        let name = DatasetName::base("dev", "crm", "acme", &format!("{strategy:?}"));
        let set = engine.dataset(&name, &DatasetSpec { strategy, ignore_in_diff: vec![] }).expect("dataset");
        save(&engine, &set, [("a".to_string(), json!({"v": 1}))]);
        run(engine.prune(&set, Position(u64::MAX), 10)).expect("prunes");
        let mut page = engine.page(&set);
        page.save("a", None, NOW, br#"{"v":1,"id":"a"}"#);
        page.patch("a", None, NOW.plus(std::time::Duration::from_secs(1)), br#"{"w":2}"#);
        let batch = Batch { cause: Some(Cause::run(1)), pages: vec![page], ..Batch::default() };
        let counts = run(engine.commit(batch)).expect("commits").counts_of(&set);
        assert_eq!((counts.unchanged, counts.updated), (1, 1), "{strategy:?} {counts:?}");
        let all = read_pages(&engine, &set, Filter::ALL, 10).expect("records");
        assert_eq!(
            all.into_iter().map(|(_, payload)| payload).collect::<Vec<_>>(),
            [json!({"v": 1, "id": "a", "w": 2})]
        );
    }
    run(engine.stop()).expect("stops");
}

#[test]
fn a_pruned_record_that_comes_back_can_be_patched_before_that_is_committed() {
    let folder = tempfile::tempdir().expect("a folder");
    let engine = open(folder.path(), 1);
    let set = contacts(&engine, Strategy::Override);
    for round in 0..50 {
        let value = || std::iter::once(("1".to_owned(), json!({"round": round})));
        save(&engine, &set, value());
        run(engine.prune(&set, Position(u64::MAX), 10)).expect("prunes");
        let (back, mut patch) = (saves(&engine, &set, value()), engine.page(&set));
        patch.patch("1", None, NOW, br#"{"more":true}"#);
        let patch = Batch { cause: Some(Cause::run(2)), pages: vec![patch], ..Batch::default() };
        let (back, patched) = run(async {
            let back = engine.submit(back).await.expect("takes it");
            let patch = engine.submit(patch).await.expect("takes it");
            // A question has everything before it closed: the two are under way together.
            engine.missing(&set).await.expect("answers");
            (back.receipt().await.expect("commits"), patch.receipt().await.expect("commits"))
        });
        assert_eq!((back.counts_of(&set).unchanged, patched.counts_of(&set).updated), (1, 1), "round {round}");
        let record = run(engine.record(&set, "1")).expect("answers").expect("a record");
        assert_eq!(serde_json::from_slice::<Value>(&record.payload).expect("JSON")["round"], json!(round));
    }
    run(engine.stop()).expect("stops");
}

#[test]
fn a_refused_patch_of_a_pruned_record_keeps_it_from_being_swept() {
    let folder = tempfile::tempdir().expect("a folder");
    let engine = open(folder.path(), 1);
    for strategy in [Strategy::Override, Strategy::Latest] {
        let name = DatasetName::base("dev", "crm", "acme", &format!("{strategy:?}"));
        let set = engine.dataset(&name, &DatasetSpec { strategy, ignore_in_diff: vec![] }).expect("dataset");
        save(&engine, &set, [("a".to_string(), json!({"v": 1})), ("b".to_string(), json!({"v": 1}))]);
        run(engine.prune(&set, Position(u64::MAX), 10)).expect("prunes");
        let mut page = engine.page(&set);
        page.patch("a", None, NOW.plus(std::time::Duration::from_secs(1)), br#"{"w":2}"#);
        let (open, close) = (vec![WindowOp::Start(set.clone())], vec![WindowOp::Sweep(set.clone())]);
        let batch = Batch { cause: Some(Cause::run(1)), open, pages: vec![page], close, ..Batch::default() };
        let counts = run(engine.commit(batch)).expect("commits").counts_of(&set);
        assert_eq!((counts.ignored, counts.deleted), (1, 1), "{strategy:?}");
        assert_eq!(engine.live(&set), 1);
    }
    run(engine.stop()).expect("stops");
}

#[test]
fn commit_times_rise_though_the_clock_was_set_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut last = Timestamp(0);
    for hours in [2, 1, 0] {
        let clock = Arc::new(ManualClock::new(NOW.plus(std::time::Duration::from_secs(hours * 3_600))));
        let options = Options { data_dir: Some(folder.path().to_path_buf()), workers: 1, clock, ..Options::default() };
        let engine = Engine::open(options).expect("opens");
        let set = contacts(&engine, Strategy::Override);
        for n in 0..3 {
            let receipt = save(&engine, &set, [("a".to_string(), json!({"v": [hours, n]}))]);
            assert!(receipt.at > last, "{receipt:?} after {last}");
            last = receipt.at;
        }
        run(engine.stop()).expect("stops");
    }
}

/// Several datasets change at once while a reader follows them all: its place must never pass a change it has not met.
#[tokio::test(flavor = "multi_thread")]
async fn a_follower_of_many_datasets_misses_nothing() {
    const DATASETS: usize = 6;
    const EACH: usize = 400;
    let options = Options { data_dir: None, workers: 2, clock: Arc::new(ManualClock::new(NOW)), ..Options::default() };
    let engine = Engine::open(options).expect("opens");
    let spec = DatasetSpec { strategy: Strategy::Override, ignore_in_diff: vec![] };
    let name = |n: usize| DatasetName::base("dev", "crm", &format!("account-{n}"), "Contact");
    let sets: Vec<Dataset> = (0..DATASETS).map(|n| engine.dataset(&name(n), &spec).expect("dataset")).collect();
    let written = Arc::new(AtomicBool::new(false));
    let reader = tokio::task::spawn_blocking({
        let (engine, sets, written) = (engine.clone(), sets.clone(), Arc::clone(&written));
        move || {
            let (mut place, mut met) = (Cursor { position: Position::START, dataset: DatasetId(0) }, 0);
            loop {
                let last = written.load(Ordering::SeqCst);
                let from = place;
                let each = &mut |set: &Dataset, change: syncline_engine::model::Change| {
                    place = Cursor { position: change.meta.position, dataset: set.id };
                    met += 1;
                    true
                };
                engine.changes(&sets, from, each).expect("reads");
                if last {
                    return met;
                }
            }
        }
    });
    let write = |set: &Dataset| {
        let (engine, set) = (engine.clone(), set.clone());
        tokio::spawn(async move {
            for n in 0..EACH {
                engine.commit(saves(&engine, &set, [(n.to_string(), json!({}))])).await.expect("commits");
            }
        })
    };
    for writer in sets.iter().map(write).collect::<Vec<_>>() {
        writer.await.expect("writes");
    }
    written.store(true, Ordering::SeqCst);
    assert_eq!(reader.await.expect("reads"), DATASETS * EACH);
}

#[test]
fn what_comes_behind_a_clearing_in_one_engine_time_stays() {
    let folder = tempfile::tempdir().expect("a folder");
    let engine = open(folder.path(), 2);
    let set = contacts(&engine, Strategy::Latest);
    let ids: Vec<String> = (0..20).map(|n| n.to_string()).collect();
    let whole = |id: &String| json!({"id": id, "v": 1}).to_string();
    let mut patches = engine.page(&set);
    for id in &ids {
        patches.patch(id, Some(Timestamp(NOW.0 + 5)), NOW, br#"{"kept":true}"#);
    }
    let patches = Batch { cause: Some(Cause::run(1)), pages: vec![patches], ..Batch::default() };
    // The first commit keeps the disk busy: the other two become one engine time, its work shared by two workers.
    run(async {
        let first = engine.commit(saves(&engine, &set, [("x".to_string(), json!({"v": 0}))]));
        let (first, cleared, patched) = tokio::join!(first, engine.clear(&set), engine.commit(patches));
        first.and(cleared.map(drop).and(patched.map(drop))).expect("commits");
    });
    run(engine.stop()).expect("stops");
    drop(engine);
    let engine = open(folder.path(), 2);
    let set = contacts(&engine, Strategy::Latest);
    let mut page = engine.page(&set);
    ids.iter().for_each(|id| page.save(id, Some(NOW), NOW, whole(id).as_bytes()));
    run(engine.commit(Batch { cause: Some(Cause::run(2)), pages: vec![page], ..Batch::default() })).expect("commits");
    for (_, payload) in read_pages(&engine, &set, Filter::ALL, 1_000).expect("records") {
        assert_eq!(payload["kept"], json!(true), "the patch that came before the record: {payload}");
    }
}

/// A block that cannot be read is a failure, not the end of what there is.
#[test]
fn what_cannot_be_read_is_not_left_out() {
    let folder = tempfile::tempdir().expect("a folder");
    let engine = open(folder.path(), 1);
    let set = contacts(&engine, Strategy::Override);
    save(&engine, &set, (0..3_000).map(|n| (format!("id{n}"), json!({"n": n}))));
    run(engine.stop()).expect("stops");
    drop((engine, set));
    let engine = open(folder.path(), 1);
    let set = contacts(&engine, Strategy::Override);
    let damaged = damage(&folder.path().join("store"), b"namecur");
    assert!(damaged > 0, "no file of the family was found");
    let read = read_pages(&engine, &set, Filter::ALL, 10_000);
    assert!(read.is_err(), "{} of 3000 records were read, and nothing was said", read.map_or(0, |rows| rows.len()));
}

/// Changes bytes all over each table file that holds `family`; how many there are.
fn damage(store: &Path, family: &[u8]) -> usize {
    let files = std::fs::read_dir(store).expect("a folder").map(|file| file.expect("a file").path());
    let tables = files.filter(|file| file.extension().is_some_and(|extension| extension == "sst"));
    let of_family = tables.filter_map(|file| {
        let mut bytes = std::fs::read(&file).expect("reads");
        bytes.windows(family.len()).any(|window| window == family).then(|| {
            bytes.iter_mut().step_by(64).for_each(|byte| *byte ^= 0xff);
            std::fs::write(&file, &bytes).expect("writes");
        })
    });
    of_family.count()
}
