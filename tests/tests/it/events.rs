//! Events that functions take, behind the door providers post to. The functions are programs in Rust here, and time is turned by
//! hand: what TypeScript makes of events is another subject.

use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use syncline::admission::{Bounds, Ingress};
use syncline::config::Settings;
use syncline::ingest::webhooks::{Hooks, HooksParts, Incoming, Retried};
use syncline::keyspaces;
use syncline::registry::connections::Connections;
use syncline::registry::definitions::Definitions;
use syncline::registry::sources::Sources;
use syncline_connectors::definition::{Definition, FunctionSync, Schedule, Stream, parse};
use syncline_engine::Engine;
use syncline_engine::model::{Cause, DatasetName, Timestamp};
use syncline_engine::pipeline::{Dataset, Options, QuarantineRow, quarantined};
use syncline_engine::source::Failure;
use syncline_engine::source::program::{EventAsk, Outlet, Program, ProgramAsk};
use syncline_engine::time::ManualClock;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const SOURCE: &str = r#"
source: crm
base_url: https://crm.example
auth: {type: none}
webhooks:
  verify: {scheme: shared_secret, header: X-Token, secret: "env:SECRET"}
  events: .[]
  route: .portal
  type: .kind
connections:
  acme: {metadata: {portal: 7}}
  other: {metadata: {portal: 8}}
"#;

/// Saves what events say, and does what they ask for.
#[derive(Default)]
struct Notes {
    /// Ids of events, each time one is begun.
    begun: Mutex<Vec<String>>,
    /// Events that cannot be taken.
    bad: Mutex<BTreeSet<String>>,
}

#[async_trait]
impl Program for Notes {
    async fn run(&self, _: &ProgramAsk, _: &mut Outlet) -> Result<(), Failure> {
        Ok(())
    }

    async fn event(&self, ask: &EventAsk, out: &mut Outlet) -> Result<(), Failure> {
        let event: Value = serde_json::from_slice(&ask.event).expect("json");
        let id = event["id"].as_str().expect("an id").to_owned();
        self.begun.lock().push(format!("{}/{id}", ask.connection.id));
        let note = json!({"id": id, "n": event["n"]}).to_string();
        out.save("Note", &id, note.as_bytes()).await?;
        if event["reads"] == true {
            out.records_by_ids("Note", vec![id.clone()]).await?;
        }
        if self.bad.lock().contains(&id) {
            return Err(Failure::lasting("script_error", "crm/syncs/notes.ts:7:3 Error: cannot"));
        }
        if event["hangs"] == true {
            std::future::pending::<()>().await;
        }
        Ok(())
    }
}

struct Bench {
    dir: tempfile::TempDir,
    clock: Arc<ManualClock>,
    notes: Arc<Notes>,
    engine: Engine,
    hooks: Hooks,
    running: (CancellationToken, JoinHandle<()>),
}

fn definition(subscribes: &[&str]) -> Arc<Definition> {
    let (mut definition, warnings) = parse("crm.yaml", SOURCE, &|_| Ok("s3cret".to_owned())).expect("a definition");
    assert_eq!(warnings.iter().map(|w| w.code).collect::<Vec<_>>(), ["no_streams", "no_map"]);
    definition.streams.push(Stream::of_function("Note", json!({"type": "object"})));
    definition.function_syncs.push(FunctionSync {
        name: "notes".into(),
        file: "crm/syncs/notes.ts".into(),
        description: None,
        models: vec!["Note".into()],
        schedule: Schedule::default(),
        track_deletes: false,
        webhooks: subscribes.iter().map(|kind| kind.to_string()).collect(),
        polled: false,
    });
    Arc::new(definition)
}

impl Bench {
    async fn new(subscribes: &[&str]) -> Bench {
        let dir = tempfile::tempdir().expect("a folder");
        let clock = Arc::new(ManualClock::new(Timestamp::from_seconds(1_700_000_000)));
        Self::open(dir, clock, Arc::default(), subscribes).await
    }

    async fn open(dir: tempfile::TempDir, clock: Arc<ManualClock>, notes: Arc<Notes>, subscribes: &[&str]) -> Bench {
        let definitions = Definitions::from_iter([("crm".to_owned(), definition(subscribes))]);
        let data_dir = Some(dir.path().to_owned());
        let options = Options { data_dir, workers: 1, clock: clock.clone(), ..Options::default() };
        let engine = Engine::open(options).expect("an engine");
        let connections = Arc::new(Connections::open(engine.clone(), &definitions).await.expect("connections"));
        let programs = [(("crm".to_owned(), "notes".to_owned()), notes.clone() as Arc<dyn Program>)];
        let sources = Sources::open(&Settings::default(), &definitions, &engine, connections.clone()).expect("sources");
        let hooks = Hooks::open(HooksParts {
            bounds: Arc::new(Bounds::new(Ingress::default())),
            engine: engine.clone(),
            programs: programs.into_iter().collect(),
            sources,
            definitions,
            connections,
            public_url: Some("https://hooks.example".to_owned()),
            environments: Vec::new(),
            other_shards: None,
        });
        let hooks = hooks.expect("hooks");
        let stop = CancellationToken::new();
        let task = tokio::spawn({
            let (hooks, stop) = (hooks.clone(), stop.clone());
            async move { hooks.run(stop).await.expect("works") }
        });
        Bench { dir, clock, notes, engine, hooks, running: (stop, task) }
    }

    /// Ends as a process does, and opens the same folder.
    async fn again(self) -> Bench {
        self.again_with(&["*"]).await
    }

    /// The same with a function that subscribes to other types.
    async fn again_with(self, subscribes: &[&str]) -> Bench {
        let Bench { dir, clock, notes, engine, hooks, running: (stop, task) } = self;
        stop.cancel();
        task.await.expect("ends");
        drop(hooks);
        engine.stop().await.expect("stops");
        drop(engine);
        Self::open(dir, clock, notes, subscribes).await
    }

    async fn post(&self, events: Value) {
        let url = self.hooks.urls("crm").remove(0);
        let path = url.strip_prefix("https://hooks.example").expect("public URL").to_owned();
        let entrance = self.hooks.find(&path).expect("path");
        let headers = [("x-token", "s3cret"), ("content-type", "application/json")];
        let headers = headers.iter().map(|(k, v)| (k.parse().expect("name"), v.parse().expect("value"))).collect();
        let body = events.to_string().into();
        let request = Incoming { method: "POST".into(), path, headers, body, ..Incoming::default() };
        assert_eq!(self.hooks.receive(&entrance, request).await.status, 200);
    }

    fn dataset(&self, connection: &str) -> Dataset {
        self.engine.find(&DatasetName::base("default", "crm", connection, "Note")).expect("a dataset")
    }

    async fn note(&self, connection: &str, id: &str) -> Option<(Value, Cause)> {
        let dataset = self.engine.find(&DatasetName::base("default", "crm", connection, "Note"))?;
        let record = self.engine.record(&dataset, id).await.expect("reads")?;
        Some((serde_json::from_slice(&record.payload).expect("json"), record.meta.cause))
    }

    fn waiting(&self) -> usize {
        self.engine.marks(keyspaces::EVENT, &[]).expect("reads").len()
    }

    fn begun(&self, connection: &str) -> Vec<String> {
        let begun = self.notes.begun.lock();
        begun.iter().filter_map(|one| one.strip_prefix(connection)?.strip_prefix('/').map(str::to_owned)).collect()
    }

    /// Waits until something holds, turning the clock meanwhile if asked to.
    async fn until(&self, what: &str, turns: bool, holds: impl Fn() -> bool) {
        let began = Instant::now();
        while !holds() {
            assert!(began.elapsed() < Duration::from_secs(20), "not within 20 s: {what}");
            if turns {
                self.clock.advance(Duration::from_secs(1));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn parked(&self) -> Vec<QuarantineRow> {
        let mut rows = Vec::new();
        let mut each = |row: QuarantineRow| {
            rows.push(row);
            true
        };
        quarantined(&self.engine, "default", None, &mut each).expect("reads");
        rows
    }
}

fn event(portal: u32, id: &str, n: u32) -> Value {
    json!({"portal": portal, "kind": "note", "id": id, "n": n})
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_a_connection_are_taken_in_order_and_each_once() {
    let bench = Bench::new(&["note"]).await;
    let ids: Vec<String> = (0..100).map(|n| format!("{n:03}")).collect();
    for some in ids.chunks(10) {
        let events: Vec<Value> = some.iter().map(|id| event(7, id, 1)).collect();
        bench.post(json!(events)).await;
        // A repeated delivery changes nothing.
        bench.post(json!(events)).await;
    }
    bench.post(json!([event(8, "x", 1), {"portal": 7, "kind": "other", "id": "y"}])).await;
    bench.until("all are taken", false, || bench.begun("acme").len() == 100 && bench.waiting() == 0).await;
    bench.until("the other too", false, || bench.begun("other").len() == 1 && bench.waiting() == 0).await;
    assert_eq!(bench.begun("acme"), ids);
    let (note, cause) = bench.note("acme", "042").await.expect("there");
    assert_eq!(note, json!({"id": "042", "n": 1}));
    assert!(cause.to_string().starts_with("whk_"), "{cause}");
    assert_eq!(bench.note("acme", "y").await, None, "nobody subscribed");
    assert_eq!(bench.engine.live(&bench.dataset("acme")), 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_fails_is_parked_after_three_attempts_and_taken_on_demand() {
    let bench = Bench::new(&["*"]).await;
    bench.notes.bad.lock().insert("1".to_owned());
    bench.post(json!([event(7, "1", 1), event(7, "2", 1)])).await;
    let over = || bench.begun("acme").len() == 4 && bench.waiting() == 0;
    bench.until("the lane goes on", true, over).await;
    assert_eq!(bench.begun("acme"), ["1", "1", "1", "2"]);
    assert_eq!(bench.note("acme", "1").await, None, "nothing of it was committed");
    assert!(bench.note("acme", "2").await.is_some());
    let parked = bench.parked();
    assert_eq!(parked.len(), 1, "{parked:?}");
    let entry = parked[0].kept.as_ref().expect("an entry");
    assert!(format!("{entry:?}").contains("notes.ts:7:3"), "{entry:?}");

    // Mended, it is asked for again: the other event is not.
    bench.notes.bad.lock().clear();
    assert_eq!(bench.hooks.retry("default", &parked[0]).await.expect("works"), Retried::Taken);
    bench.until("it is taken", false, || bench.begun("acme").len() == 5 && bench.waiting() == 0).await;
    assert_eq!(bench.begun("acme").last().map(String::as_str), Some("1"));
    assert!(bench.note("acme", "1").await.is_some() && bench.parked().is_empty());
}

/// Nothing is dropped because it was asked for at the wrong time.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_no_function_takes_any_more_stays_in_quarantine_and_says_why() {
    let bench = Bench::new(&["note"]).await;
    bench.notes.bad.lock().insert("1".to_owned());
    bench.post(json!([event(7, "1", 1)])).await;
    bench.until("it is parked", true, || bench.parked().len() == 1).await;
    bench.notes.bad.lock().clear();

    let bench = bench.again_with(&["other"]).await;
    let entry = bench.parked().remove(0);
    let Retried::Impossible(why) = bench.hooks.retry("default", &entry).await.expect("works") else {
        panic!("nobody subscribes to it");
    };
    assert!(why.contains("webhookSubscriptions"), "{why}");
    assert_eq!((bench.parked().len(), bench.waiting(), bench.begun("acme").len()), (1, 0, 3));

    let bench = bench.again_with(&["note"]).await;
    let entry = bench.parked().remove(0);
    assert_eq!(bench.hooks.retry("default", &entry).await.expect("works"), Retried::Taken);
    bench.until("it is taken", false, || bench.begun("acme").len() == 4 && bench.waiting() == 0).await;
    assert!(bench.note("acme", "1").await.is_some() && bench.parked().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_being_executed_is_executed_again_and_effective_once() {
    let bench = Bench::new(&["*"]).await;
    let mut hanging = event(7, "1", 1);
    (hanging["hangs"], hanging["reads"]) = (true.into(), true.into());
    bench.post(json!([hanging, event(7, "2", 1)])).await;
    bench
        .until("it reads", false, || {
            bench
                .engine
                .find(&DatasetName::base("default", "crm", "acme", "Note"))
                .is_some_and(|d| bench.engine.live(&d) == 1)
        })
        .await;
    let bench = bench.again().await;
    bench.until("it is begun again", false, || bench.begun("acme").len() == 2).await;
    assert_eq!((bench.begun("acme"), bench.waiting()), (vec!["1".to_owned(), "1".to_owned()], 2));
    let changes = bench.engine.live(&bench.dataset("acme"));
    assert_eq!(changes, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn lanes_do_not_wait_for_each_other_and_go_with_their_connection() {
    let bench = Bench::new(&["*"]).await;
    let mut hanging = event(7, "1", 1);
    hanging["hangs"] = true.into();
    bench.post(json!([hanging, event(7, "2", 1), event(8, "x", 1)])).await;
    bench.until("the other goes on", false, || bench.begun("other").len() == 1 && bench.waiting() == 2).await;
    bench.hooks.forget_connection("default", "crm", "acme").await.expect("works");
    assert_eq!((bench.waiting(), bench.begun("acme")), (0, vec!["1".to_owned()]));
    assert!(bench.note("acme", "1").await.is_none());
}
