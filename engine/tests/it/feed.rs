//! Sinks through public doors: each engine time whole and in order, again after a failure, on from the stored place after a
//! restart; consumers that read page by page, and followers; records written by hand.

use async_trait::async_trait;
use futures_util::TryStreamExt;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use syncline_engine::Engine;
use syncline_engine::model::{Cause, Cursor, DatasetName, Strategy, Timestamp, Via};
use syncline_engine::pipeline::{Batch, Dataset, DatasetFilter, DatasetSpec, Error, Fed, Options};
use syncline_engine::sink::{ChangeBatch, Sink};
use syncline_engine::source::{Ask, Bookmark, Failure, Page, Part, Retry, Source};
use syncline_engine::time::ManualClock;
use tokio::sync::{mpsc, oneshot};

/// Longest wait for what happens soon; only a failing test waits so long.
const PATIENCE: Duration = Duration::from_secs(20);

fn dataset(engine: &Engine, model: &str) -> Dataset {
    let name = DatasetName::base("default", "desk", "me", model);
    engine.dataset(&name, &DatasetSpec::of(Strategy::Override)).expect("a dataset")
}

async fn save(engine: &Engine, dataset: &Dataset, ids: &[&str]) {
    let mut page = engine.page(dataset);
    for id in ids {
        page.save(id, None, Timestamp(1), format!(r#"{{"id":"{id}"}}"#).as_bytes());
    }
    let batch = Batch { cause: Some(Cause::run(1)), pages: vec![page], ..Batch::default() };
    engine.commit(batch).await.expect("commits");
}

/// Tells each set it took; fails as often, and as, it was told to before.
struct Ear(mpsc::UnboundedSender<String>, Arc<Mutex<VecDeque<Failure>>>);

#[async_trait]
impl Sink for Ear {
    async fn deliver(&self, batch: &ChangeBatch) -> Result<(), Failure> {
        if let Some(failure) = self.1.lock().expect("lock").pop_front() {
            return Err(failure);
        }
        let ids: Vec<_> = batch.changes.iter().map(|change| change.id().into_owned()).collect();
        self.0.send(format!("{} {}", batch.dataset.model, ids.join(","))).expect("somebody listens");
        Ok(())
    }

    fn takes(&self, dataset: &DatasetName) -> bool {
        &*dataset.model != "Secret"
    }

    fn retry(&self) -> Retry {
        Retry { max: 2, from: Duration::ZERO, to: Duration::ZERO, jitter: false }
    }
}

/// A feed in the background, and what ends it when it is dropped or told.
fn feeding(engine: &Engine, ear: Ear) -> (oneshot::Sender<()>, tokio::task::JoinHandle<Result<Fed, Error>>) {
    let (stop, stopped) = oneshot::channel();
    (stop, tokio::spawn(engine.feed("ear", ear, async { drop(stopped.await) })))
}

async fn heard(ear: &mut mpsc::UnboundedReceiver<String>, count: usize) -> Vec<String> {
    let mut all = Vec::new();
    while all.len() < count {
        all.push(ear.recv().await.expect("a set"));
    }
    all
}

#[tokio::test]
async fn a_sink_gets_every_engine_time_once_over_failures_and_restarts() {
    let folder = tempfile::tempdir().expect("a folder");
    let (told, mut ear) = mpsc::unbounded_channel();
    let failures = Arc::new(Mutex::new(VecDeque::from([Failure::passing("busy", "not now")])));

    let engine = Engine::open(Options::in_folder(folder.path())).expect("opens");
    let (notes, tasks) = (dataset(&engine, "Note"), dataset(&engine, "Task"));
    save(&engine, &notes, &["1", "2"]).await;
    save(&engine, &notes, &["3"]).await;
    let (stop, fed) = feeding(&engine, Ear(told.clone(), failures.clone()));
    assert_eq!(heard(&mut ear, 2).await, ["Note 1,2", "Note 3"], "what there was, in whole sets");
    save(&engine, &tasks, &["a"]).await;
    assert_eq!(heard(&mut ear, 1).await, ["Task a"], "and what comes");
    save(&engine, &dataset(&engine, "Secret"), &["x"]).await;
    save(&engine, &dataset(&engine, "Later"), &["l"]).await;
    assert_eq!(heard(&mut ear, 1).await, ["Later l"], "also of a dataset made since, but not what it does not take");
    stop.send(()).expect("it is fed");
    assert!(matches!(fed.await.expect("runs"), Ok(Fed::Halted)));
    save(&engine, &notes, &["4"]).await;
    engine.stop().await.expect("stops");
    drop(engine);

    let engine = Engine::open(Options::in_folder(folder.path())).expect("opens");
    let (stop, fed) = feeding(&engine, Ear(told, failures));
    assert_eq!(heard(&mut ear, 1).await, ["Note 4"], "from where it stopped");
    stop.send(()).expect("it is fed");
    assert!(matches!(fed.await.expect("runs"), Ok(Fed::Halted)));
    assert!(ear.try_recv().is_err(), "nothing twice");
}

#[tokio::test]
async fn what_a_sink_refuses_is_kept_for_the_next_feed() {
    let engine = Engine::open(Options::temporary()).expect("opens");
    let notes = dataset(&engine, "Note");
    save(&engine, &notes, &["1"]).await;
    let (told, mut ear) = mpsc::unbounded_channel();
    let busy = || Failure::passing("busy", "not now");
    let refusals = [vec![Failure::lasting("full", "no room")], vec![busy(), busy(), busy()]];
    for failures in refusals {
        let last = failures.last().cloned();
        let failures = Arc::new(Mutex::new(VecDeque::from(failures)));
        let fed = engine.feed("ear", Ear(told.clone(), failures), std::future::pending());
        let fed = tokio::time::timeout(PATIENCE, fed).await.expect("it is refused what is still to be delivered");
        let Ok(Fed::Refused(why)) = fed else { panic!("{fed:?}") };
        assert_eq!(Some(why), last, "one that lasts, or the third of two retries");
    }
    let (_stop, fed) = feeding(&engine, Ear(told, Arc::default()));
    assert_eq!(heard(&mut ear, 1).await, ["Note 1"]);
    engine.stop().await.expect("stops");
    assert!(matches!(fed.await.expect("runs"), Ok(Fed::Halted)), "a stopped engine has nothing more to tell");
}

#[tokio::test]
async fn pages_of_any_size_meet_every_change_once() {
    let engine = Engine::open(Options { workers: 2, ..Options::temporary() }).expect("opens");
    let datasets = [dataset(&engine, "Note"), dataset(&engine, "Task")];
    for id in ["1", "2", "3", "4", "5"] {
        save(&engine, &datasets[0], &[id, "shared", "other"]).await;
        save(&engine, &datasets[1], &[id]).await;
    }
    for limit in 1..15 {
        let (mut place, mut met) = (Cursor::START, Vec::new());
        loop {
            let page = engine.changes_page(&datasets, place, limit).expect("a page");
            assert!(page.changes.len() <= limit);
            met.extend(page.changes.iter().map(|(d, change)| (d.name.model.to_string(), change.id().into_owned())));
            place = page.next;
            if page.up_to_date {
                break;
            }
        }
        met.sort();
        let counted = met.len();
        met.dedup();
        assert_eq!((counted, met.len()), (12, 12), "limit {limit}");
    }
}

#[tokio::test]
async fn a_follower_meets_each_change_once_and_goes_on_from_any_of_them() {
    let engine = Engine::open(Options { workers: 2, ..Options::temporary() }).expect("opens");
    let (notes, tasks) = (dataset(&engine, "Note"), dataset(&engine, "Task"));
    let selection = DatasetFilter::named(|name| &*name.model != "Secret");
    let mut met = Vec::new();
    let mut changes = engine.follow(selection.clone(), Cursor::START);
    for round in ["1", "2", "3"] {
        save(&engine, &notes, &[round, "shared"]).await;
        save(&engine, &dataset(&engine, "Secret"), &[round]).await;
        save(&engine, &tasks, &[round]).await;
        save(&engine, &dataset(&engine, &format!("Later{round}")), &[round]).await;
    }
    while met.len() < 10 {
        let next = tokio::time::timeout(PATIENCE, changes.try_next()).await.expect("there is more");
        let next = next.expect("read").expect("it has no end");
        met.push((format!("{} {}", next.dataset.name.model, next.change.id()), next.next));
    }
    let mut names: Vec<&String> = met.iter().map(|(name, _)| name).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 10, "each once: {names:?}");
    for (at, (_, cursor)) in met.iter().enumerate().take(9) {
        let next = engine.follow(selection.clone(), *cursor).try_next().await.expect("read").expect("it has no end");
        assert_eq!(format!("{} {}", next.dataset.name.model, next.change.id()), met[at + 1].0);
    }
    // What is waited for comes with the commit, and the stream ends with the engine.
    let waiting = tokio::spawn(async move { (changes.try_next().await, changes) });
    save(&engine, &notes, &["late"]).await;
    let (late, mut changes) = tokio::time::timeout(PATIENCE, waiting).await.expect("it wakes").expect("runs");
    assert_eq!(late.expect("read").expect("it has no end").change.id(), "late");
    engine.stop().await.expect("stops");
    let end = tokio::time::timeout(PATIENCE, changes.try_next()).await.expect("it ends");
    assert!(matches!(end, Ok(None)), "{end:?}");
}

#[tokio::test]
async fn a_follower_of_a_dataset_that_was_emptied_is_told_to_begin_anew() {
    let engine = Engine::open(Options::temporary()).expect("opens");
    let notes = dataset(&engine, "Note");
    save(&engine, &notes, &["1"]).await;
    let mut changes = engine.follow(&notes, Cursor::START);
    let first = changes.try_next().await.expect("read").expect("it has no end");
    engine.clear(&notes).await.expect("clears");
    let told = tokio::time::timeout(PATIENCE, changes.try_next()).await.expect("it wakes");
    assert!(matches!(told, Err(Error::Emptied(_))), "{told:?}");
    assert!(matches!(changes.try_next().await, Ok(None)), "nothing after an error");
    let again = engine.follow(&notes, first.next).try_next().await;
    assert!(again.expect_err("refused").to_string().contains("begin anew"));
}

#[tokio::test]
async fn what_is_written_by_hand_is_one_batch_or_refused_with_the_record_that_is_wrong() {
    let engine = Engine::open(Options::temporary()).expect("opens");
    let notes = dataset(&engine, "Note");
    let id = |id: serde_json::Value| serde_json::json!({"id": id});
    let wrong = [
        (engine.write(&notes).upsert(id("1".into())).upsert(id(true.into())), "record 2: id is a boolean"),
        (engine.write(&notes).upsert("text"), "record 1: it is no JSON object"),
        (engine.write(&notes).delete(""), "record 1: id is missing"),
        (engine.write(&notes).at(Timestamp(1)), "`at` before any record"),
        (engine.write(&notes).patch(id("x".repeat(256).into())), "256 characters"),
    ];
    for (write, why) in wrong {
        let said = write.commit().await.expect_err(why).to_string();
        assert!(said.starts_with("bad batch: ") && said.contains(why), "{said}");
    }
    assert!(engine.changes_page(std::slice::from_ref(&notes), Cursor::START, 9).expect("read").changes.is_empty());

    let write = engine.write(&notes).upsert(id(7.into())).upsert(id("8".into())).delete("9");
    let receipt = write.commit().await.expect("commits");
    assert_eq!((receipt.counts_of(&notes).added, receipt.counts_of(&notes).ignored), (2, 1));
    let seven = engine.record(&notes, "7").await.expect("read").expect("there");
    assert_eq!((&seven.payload[..], seven.meta.cause.via), (&br#"{"id":"7"}"#[..], Via::Push));
}

/// Brings one record each time, and remembers what it was asked for.
#[derive(Default)]
struct Asked(Mutex<Vec<(Part, String)>>);

#[async_trait]
impl Source for Asked {
    async fn poll(&self, ask: &Ask, _after: Option<&Bookmark>) -> Result<Page, Failure> {
        let mut asked = self.0.lock().expect("lock");
        asked.push((ask.part, ask.connection.id.clone()));
        Ok(Page::last(vec![ask.seen(asked.len().to_string(), serde_json::json!({"id": asked.len().to_string()}))]))
    }
}

#[tokio::test]
async fn a_source_is_asked_for_everything_or_for_what_changed_since_the_last_run() {
    let start = Timestamp::from_seconds(10_000);
    let options = Options { clock: Arc::new(ManualClock::new(start)), ..Options::temporary() };
    let engine = Engine::open(options).expect("opens");
    let (notes, source) = (dataset(&engine, "Note"), Arc::new(Asked::default()));
    let lookback = Duration::from_secs(60);
    for added in [1, 1] {
        let report = engine.sync(source.clone()).changed(&notes, lookback).run().await.expect("runs");
        assert_eq!((report.counts().added, report.counts().deleted), (added, 0));
    }
    let whole = engine.sync(source.clone()).full(&notes).run().await.expect("runs").counts();
    assert_eq!((whole.added, whole.deleted), (1, 2), "what a full listing does not name is gone");
    let asked = source.0.lock().expect("lock").clone();
    assert!(asked.iter().all(|(_, connection)| connection == "me"), "the account of the dataset: {asked:?}");
    let parts: Vec<Part> = asked.into_iter().map(|(part, _)| part).collect();
    // Its own clock is not the provider's, so that the look-back is at least five minutes.
    let since = start.minus(Duration::from_secs(300));
    assert_eq!(parts, [Part::Full, Part::Incremental { since, until: start }, Part::Full]);
}
