//! Sinks through public doors: each engine time whole and in order, again after a failure, on from the stored place after a
//! restart; and consumers that read page by page.

use async_trait::async_trait;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use syncline_engine::Engine;
use syncline_engine::model::{Cause, Cursor, DatasetName, Strategy, Timestamp};
use syncline_engine::pipeline::run::Halt;
use syncline_engine::pipeline::{Batch, Dataset, DatasetSpec, Fed, Feed, Options, feed};
use syncline_engine::sink::{ChangeBatch, Sink};
use syncline_engine::source::{Failure, Retry};
use tokio::sync::{mpsc, watch};

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
}

fn what(datasets: &[&Dataset]) -> Feed {
    let retry = Retry { max: 2, from: Duration::ZERO, to: Duration::ZERO, jitter: false };
    Feed { name: "ear".to_owned(), datasets: datasets.iter().map(|d| (*d).clone()).collect(), retry }
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
    let (stop, halt) = watch::channel(Halt::No);
    let sink = Ear(told.clone(), failures.clone());
    let feeding = tokio::spawn(feed(engine.clone(), sink, what(&[&notes, &tasks]), halt));
    assert_eq!(heard(&mut ear, 2).await, ["Note 1,2", "Note 3"], "what there was, in whole sets");
    save(&engine, &tasks, &["a"]).await;
    assert_eq!(heard(&mut ear, 1).await, ["Task a"], "and what comes");
    stop.send_replace(Halt::Stop);
    assert!(matches!(feeding.await.expect("runs"), Ok(Fed::Halted)));
    save(&engine, &notes, &["4"]).await;
    engine.stop().await.expect("stops");
    drop(engine);

    let engine = Engine::open(Options::in_folder(folder.path())).expect("opens");
    let (stop, halt) = watch::channel(Halt::No);
    let feeding = tokio::spawn(feed(engine.clone(), Ear(told, failures), what(&[&notes, &tasks]), halt));
    assert_eq!(heard(&mut ear, 1).await, ["Note 4"], "from where it stopped");
    stop.send_replace(Halt::Stop);
    assert!(matches!(feeding.await.expect("runs"), Ok(Fed::Halted)));
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
        let (_stop, halt) = watch::channel(Halt::No);
        let fed = feed(engine.clone(), Ear(told.clone(), failures), what(&[&notes]), halt);
        let fed = tokio::time::timeout(PATIENCE, fed).await.expect("it is refused what is still to be delivered");
        let Ok(Fed::Refused(why)) = fed else { panic!("{fed:?}") };
        assert_eq!(Some(why), last, "one that lasts, or the third of two retries");
    }
    let (stop, halt) = watch::channel(Halt::No);
    let feeding = tokio::spawn(feed(engine.clone(), Ear(told, Arc::default()), what(&[&notes]), halt));
    assert_eq!(heard(&mut ear, 1).await, ["Note 1"]);
    stop.send_replace(Halt::Stop);
    assert!(matches!(feeding.await.expect("runs"), Ok(Fed::Halted)));
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
