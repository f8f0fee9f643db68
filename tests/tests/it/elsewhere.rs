//! Engines over a log and a changelog elsewhere: an owner that was replaced does no harm, and what is elsewhere is enough.

use std::sync::Arc;
use std::time::Duration;
use syncline_engine::Engine;
use syncline_engine::log::Log;
use syncline_engine::model::{Cause, DatasetName, Position, Strategy, Timestamp};
use syncline_engine::pipeline::{Batch, Dataset, DatasetSpec, Error, Filter, Options, Remote, WindowOp};
use syncline_engine::time::ManualClock;
use syncline_engine::views::{Definition, Row, count, sum};
use syncline_tests::compare::{read_changes, read_pages};
use syncline_tests::elsewhere::Elsewhere;
use tempfile::tempdir;

fn dataset(engine: &Engine) -> Dataset {
    let spec = DatasetSpec { strategy: Strategy::Override, ignore_in_diff: vec![] };
    engine.dataset(&DatasetName::base("default", "crm", "acme", "Contact"), &spec).expect("a dataset")
}

/// A batch that saves these records.
fn saves(engine: &Engine, cause: Cause, records: &[(&str, i64)]) -> Batch {
    let mut page = engine.page(&dataset(engine));
    for (id, value) in records {
        let payload = serde_json::json!({"id": id, "v": value}).to_string();
        page.save(id, None, Timestamp::from_seconds(*value), payload.as_bytes());
    }
    Batch { cause: Some(cause), pages: vec![page], ..Batch::default() }
}

/// All records as text.
fn records(engine: &Engine) -> Vec<String> {
    let all = read_pages(engine, &dataset(engine), Filter::ALL, 10).expect("records");
    all.into_iter().map(|(meta, payload)| format!("{:?} {payload}", meta.action)).collect()
}

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::new(Timestamp::from_seconds(1_700_000_000)))
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), future).await.expect("in time")
}

#[tokio::test]
async fn an_owner_that_was_replaced_without_knowing_it_changes_nothing() {
    let (elsewhere, folder) = (Elsewhere::default(), tempdir().expect("a folder"));
    // Paused: nobody enters the log for it.
    let changelog = Arc::new(elsewhere.changelog.open());
    let options =
        Options { data_dir: Some(folder.path().join("old")), workers: 1, clock: clock(), ..Options::default() };
    let remote = Remote { log: elsewhere.log.clone(), changelog, secret: [7; 32], part: 0 };
    let old = Engine::open_copy(options, remote).expect("opens");
    let claim = tokio::spawn({
        let old = old.clone();
        async move { old.acquire_term("old").await }
    });
    let entry = wait_for_entry(&*elsewhere.log, 1).await;
    old.apply_logged(&entry, vec![]).await.expect("entered").receipt().await.expect("stored");
    assert_eq!(soon(claim).await.expect("no panic").expect("the first claim"), 1);
    old.commit(saves(&old, Cause::webhook(1), &[("a", 1)])).await.expect("the owner commits");

    let new = elsewhere.open(&folder.path().join("new"), 1, clock()).expect("opens");
    assert_eq!(soon(new.acquire_term("new")).await.expect("the next claim"), 2);
    assert_eq!(records(&new), [r#"Added {"id":"a","v":1}"#]);

    // It wakes up and goes on: its batch, and the deletes of its listing, are passed over by whoever reads the log …
    let mut late = saves(&old, Cause::run(1), &[("a", 99), ("z", 99)]);
    late.open = vec![WindowOp::Restart(dataset(&old))];
    late.close = vec![WindowOp::Sweep(dataset(&old))];
    let late = old.submit(late).await.expect("it is in the log");
    // … and what it commits by itself is refused elsewhere, so that it takes no effect here.
    let own = old.commit(saves(&old, Cause::webhook(2), &[("y", 99)])).await;
    assert!(matches!(&own, Err(Error::Poisoned(why)) if why.contains("fenced")), "{own:?}");
    // Its tables know of the record, whose change will never be visible: that is said, not waited for.
    let unseen = soon(old.record(&dataset(&old), "y")).await;
    assert!(matches!(unseen, Err(Error::Poisoned(_))), "{unseen:?}");
    assert_eq!(records(&old), [r#"Added {"id":"a","v":1}"#], "nothing of it is visible");
    let receipt = soon(new.commit(saves(&new, Cause::run(2), &[("b", 2)]))).await.expect("the new owner goes on");
    assert_eq!(receipt.counts_of(&dataset(&new)).added, 1);
    assert_eq!(records(&new), [r#"Added {"id":"a","v":1}"#, r#"Added {"id":"b","v":2}"#]);
    drop(late);
}

#[tokio::test]
async fn an_owner_that_hears_of_its_successor_refuses_by_itself() {
    let (elsewhere, folder) = (Elsewhere::default(), tempdir().expect("a folder"));
    let old = elsewhere.open(&folder.path().join("old"), 1, clock()).expect("opens");
    soon(old.acquire_term("old")).await.expect("a claim");
    let late = saves(&old, Cause::run(1), &[("a", 1)]);
    let new = elsewhere.open(&folder.path().join("new"), 2, clock()).expect("opens");
    soon(new.acquire_term("new")).await.expect("a claim");
    let refused = soon(old.commit(late)).await;
    assert!(matches!(refused, Err(Error::Fenced(_) | Error::Poisoned(_))), "{refused:?}");
    soon(new.commit(saves(&new, Cause::run(1), &[("b", 1)]))).await.expect("the new owner commits");
    assert_eq!(records(&new), [r#"Added {"id":"b","v":1}"#]);
}

#[tokio::test]
async fn batches_that_were_logged_and_not_applied_are_applied_by_the_next_owner() {
    let (elsewhere, folder) = (Elsewhere::default(), tempdir().expect("a folder"));
    let old = elsewhere.open(&folder.path().join("old"), 1, clock()).expect("opens");
    soon(old.acquire_term("old")).await.expect("a claim");
    soon(old.commit(saves(&old, Cause::run(1), &[("a", 1)]))).await.expect("applied");
    // The machine goes: this batch reaches the log and no engine.
    let next = elsewhere.log.end().borrow().to_owned() + 1;
    let batch = saves(&old, Cause::run(1), &[("b", 2)]);
    let handed = old.submit(batch).await.expect("it is in the log");
    let _new = elsewhere.changelog.open();
    drop(handed);
    wait_for_entry(&*elsewhere.log, next).await;
    let new = elsewhere.open(&folder.path().join("new"), 1, clock()).expect("opens");
    soon(new.acquire_term("new")).await.expect("a claim");
    assert_eq!(records(&new), [r#"Added {"id":"a","v":1}"#, r#"Added {"id":"b","v":2}"#]);
}

#[tokio::test]
async fn what_was_under_way_when_a_process_died_leaves_no_ghosts() {
    for round in 0..4u64 {
        let (elsewhere, folder) = (Elsewhere::default(), tempdir().expect("a folder"));
        // Nobody enters the log for these engines, so that their folders are free when they are gone.
        let open = |name: &str, workers| {
            let data_dir = Some(folder.path().join(name));
            let changelog = Arc::new(elsewhere.changelog.open());
            let remote = Remote { log: elsewhere.log.clone(), changelog, secret: [7; 32], part: 0 };
            Engine::open_copy(Options { data_dir, workers, clock: clock(), ..Options::default() }, remote)
                .expect("opens")
        };
        let first = open("one", 1);
        // More than one engine time holds: several are on their way at once when the changelog is taken away.
        let mut underway = Vec::new();
        for n in 0..2_500 {
            let id = n.to_string();
            underway.push(first.submit(saves(&first, Cause::webhook(n), &[(&id, 1)])).await.expect("handed over"));
        }
        let mut underway = underway.into_iter();
        for one in underway.by_ref().take(1 + 700 * round as usize) {
            one.receipt().await.expect("a commit");
        }
        let _taken = elsewhere.changelog.open();
        for one in underway {
            let _ = one.receipt().await;
        }
        first.stop().await.expect("stops");
        drop(first);
        // It goes on where it was, with less at the same places; another one begins with nothing.
        let second = open("one", 1);
        second.commit(saves(&second, Cause::webhook(9_000), &[("0", 2), ("last", 3)])).await.expect("commits");
        let third = open("three", 1);
        let changes = |engine: &Engine| format!("{:?}", read_changes(engine, &dataset(engine), Position::START));
        assert_eq!(records(&third), records(&second), "round {round}");
        assert_eq!(changes(&third), changes(&second), "round {round}");
        assert!(!changes(&third).contains("after: None"), "round {round}: a change without its content");
    }
}

#[derive(Row, Clone)]
#[row(crate = syncline_engine)]
struct Contact {
    v: i64,
}

#[tokio::test]
async fn views_move_with_their_engine_and_the_move_changes_nothing() {
    let views = Definition::new(|v| {
        let contacts = v.model::<Contact>("crm", "Contact");
        v.publish("Sums", &contacts.group_by(|_, c| c.v % 2).agg((count(), sum(|_, c: &Contact| c.v))));
    });
    let elsewhere = Elsewhere { views: Some(views), ..Elsewhere::default() };
    let folder = tempdir().expect("a folder");
    let changes = |engine: &Engine| {
        let sums = engine.find(&DatasetName::base("default", "crm", "acme", "Sums")).expect("the view's dataset");
        let all = read_changes(engine, &sums, Position::START).expect("changes");
        all.into_iter().map(|change| format!("{change:?}")).collect::<Vec<_>>()
    };
    let old = elsewhere.open(&folder.path().join("old"), 1, clock()).expect("opens");
    soon(old.acquire_term("old")).await.expect("a claim");
    for n in 0..20 {
        let id = (n % 7).to_string();
        soon(old.commit(saves(&old, Cause::webhook(n), &[(&id, n as i64)]))).await.expect("applied");
    }
    let before = changes(&old);
    assert!(before.len() > 20, "every commit changed a sum: {before:?}");
    // To another machine, with another number of workers, and back.
    let new = elsewhere.open(&folder.path().join("new"), 2, clock()).expect("opens");
    soon(new.acquire_term("new")).await.expect("a claim");
    assert_eq!(changes(&new), before);
    soon(new.commit(saves(&new, Cause::webhook(100), &[("0", 1_000)]))).await.expect("applied");
    let after = changes(&new);
    assert_eq!(after[..before.len()], before[..]);
    assert!((1..=2).contains(&(after.len() - before.len())), "one record changed: {after:?}");
    drop(old);
    let third = elsewhere.open(&folder.path().join("third"), 1, clock()).expect("opens");
    soon(third.acquire_term("third")).await.expect("a claim");
    assert_eq!(changes(&third), after);
}

#[tokio::test]
async fn an_engine_that_is_fenced_while_it_opens_says_so() {
    let (elsewhere, folder) = (Elsewhere::default(), tempdir().expect("a folder"));
    let changelog = Arc::new(elsewhere.changelog.open());
    // Another process opens the changelog after this one has, and before it has written anything.
    let _other = elsewhere.changelog.open();
    let options = Options { data_dir: Some(folder.path().into()), workers: 1, clock: clock(), ..Options::default() };
    let remote = Remote { log: elsewhere.log.clone(), changelog, secret: [7; 32], part: 0 };
    let opening = tokio::task::spawn_blocking(move || Engine::open_copy(options, remote).err());
    let refused = soon(opening).await.expect("no panic");
    assert!(matches!(&refused, Some(Error::Poisoned(why)) if why.contains("fenced")), "{refused:?}");
}

#[tokio::test]
async fn a_first_commit_that_fails_ends_the_opening() {
    let (elsewhere, folder) = (Elsewhere::default(), tempdir().expect("a folder"));
    let open = |changelog| {
        let options =
            Options { data_dir: Some(folder.path().into()), workers: 1, clock: clock(), ..Options::default() };
        let remote = Remote { log: elsewhere.log.clone(), changelog, secret: [7; 32], part: 0 };
        move || Engine::open_copy(options, remote)
    };
    let engine = open(Arc::new(elsewhere.changelog.open()))().expect("opens");
    engine.stop().await.expect("stops");
    drop(engine);
    // The folder is set up, so the first thing written is the first engine time.
    let opening = open(Arc::new(elsewhere.changelog.open()));
    let _other = elsewhere.changelog.open();
    let opening = tokio::task::spawn_blocking(move || opening().err());
    let refused = soon(opening).await.expect("no panic");
    assert!(matches!(&refused, Some(Error::Poisoned(why)) if why.contains("fenced")), "{refused:?}");
}

#[tokio::test]
async fn another_secret_is_refused() {
    let (elsewhere, folder) = (Elsewhere::default(), tempdir().expect("a folder"));
    let engine = elsewhere.open(&folder.path().join("one"), 1, clock()).expect("opens");
    engine.stop().await.expect("stops");
    let changelog = Arc::new(elsewhere.changelog.open());
    let options = Options::default();
    let remote = Remote { log: elsewhere.log.clone(), changelog, secret: [8; 32], part: 0 };
    let refused = Engine::open_copy(options, remote).err();
    assert!(matches!(&refused, Some(Error::Foreign(why)) if why.contains("secret")), "{refused:?}");
}

async fn wait_for_entry(log: &dyn Log, position: u64) -> Vec<u8> {
    let mut end = log.end();
    soon(end.wait_for(|end| *end >= position)).await.expect("an entry");
    log.read(position - 1, 1).expect("entries")[0].1.to_vec()
}
