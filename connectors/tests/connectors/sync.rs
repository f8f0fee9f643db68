//! A definition, the run driver and the engine together: what a provider shows becomes records, and what it stops showing
//! goes, through validators, interruptions and lost stores.

use crate::provider::{Asked, Provider, Reply, at, define, reply};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use syncline_connectors::egress::Egress;
use syncline_connectors::http::{Client, ClientOptions};
use syncline_connectors::rest::{RestSource, SourceState};
use syncline_engine::Engine;
use syncline_engine::model::{DatasetName, Meta, Position, Strategy, Timestamp};
use syncline_engine::pipeline::run::{Halt, Order, Outcome, Progress, RunEndReport, run};
use syncline_engine::pipeline::{Dataset, DatasetSpec, Filter, Keyspace, Options};
use syncline_engine::source::{Connection, Failure, Part};
use syncline_engine::time::{Clock, ManualClock};
use tokio::sync::watch;

const DEFINITION: &str = r#"source: acme
base_url: https://api.acme.example
limits: {conditional: true}
streams:
- name: Thing
  key: .id
  modified_at: .at
  list: {get: /things, items: .data, total: .total, paginate: {page: page}}
  incremental: {params: {since: "{{ since | iso8601 }}"}, window: {lookback: 1m}}
  deletes: [{from_full_list: true}]
"#;

struct Store(Engine);

impl SourceState for Store {
    fn note(&self, d: &DatasetName, key: &str) -> Result<Option<Vec<u8>>, Failure> {
        let key = [&*d.environment, &*d.source, &*d.connection, &*d.model, &*d.variant, key];
        Ok(self.0.mark(Keyspace::NOTE, &key).expect("reads"))
    }

    fn records(&self, _: &DatasetName, _: Option<Timestamp>, _: &mut dyn FnMut(&[u8]) -> bool) -> Result<(), Failure> {
        Ok(())
    }
}

/// What the provider holds: id → version. Two items a page, each page with a validator of its own.
type Things = Arc<Mutex<BTreeMap<u64, u64>>>;

fn show(things: &Things) -> impl Fn(&Asked) -> Reply + Send + Sync + 'static {
    let things = things.clone();
    move |asked| {
        let things = things.lock().expect("lock");
        let page: usize = asked.query["page"].parse().expect("a number");
        let since = asked.query.get("since").map(|text| at(text));
        let at_of = |version: u64| Timestamp::from_seconds(version as i64);
        let listed: Vec<_> = things.iter().filter(|(_, v)| since.is_none_or(|since| at_of(**v) >= since)).collect();
        let data: Vec<Value> =
            listed.iter().skip(2 * (page - 1)).take(2).map(|(id, v)| json!({"id": id, "at": v})).collect();
        let body = json!({"total": listed.len(), "data": data});
        let tag = format!(
            "\"{:?}\"",
            body.to_string().len() as u64 + listed.iter().map(|(id, v)| *id * 31 + **v).sum::<u64>()
        );
        if asked.header("if-none-match").as_deref() == Some(&tag) {
            return Reply::text(304, "");
        }
        reply(body).with("etag", &tag)
    }
}

struct Bench {
    engine: Engine,
    dataset: Dataset,
    source: Arc<RestSource>,
    connection: Arc<Connection>,
    provider: Provider,
    clock: Arc<ManualClock>,
}

impl Bench {
    async fn new(things: &Things) -> Bench {
        Bench::over(None, Provider::start(show(things)).await, Arc::new(ManualClock::new(at("2026-01-01T00:00:00Z"))))
    }

    fn over(folder: Option<&std::path::Path>, provider: Provider, clock: Arc<ManualClock>) -> Bench {
        let options =
            Options { data_dir: folder.map(Into::into), workers: 1, clock: clock.clone(), ..Options::default() };
        let engine = Engine::open(options).expect("opens");
        let spec = DatasetSpec { strategy: Strategy::Latest, ignore_in_diff: vec![] };
        let dataset = engine.dataset(&DatasetName::base("default", "acme", "me", "Thing"), &spec).expect("registers");
        let client = ClientOptions { allow_http: true, egress: Egress::loopback(), ..ClientOptions::default() };
        let client = Client::new(client, clock.clone()).expect("a client");
        let notes = Arc::new(Store(engine.clone()));
        let source = RestSource::new(define(DEFINITION), client, clock.clone(), notes).expect("a source");
        let connection = Connection {
            environment: "default".into(),
            id: "me".into(),
            base_url: Some(provider.base().to_string()),
            ..Connection::default()
        };
        Bench { engine, dataset, source: Arc::new(source), connection: Arc::new(connection), provider, clock }
    }

    async fn run(&self, part: Part) -> RunEndReport {
        let (_never, halt) = watch::channel(Halt::No);
        self.run_told(part, halt, &|_| {}).await
    }

    async fn run_told(
        &self,
        part: Part,
        halt: watch::Receiver<Halt>,
        tell: &(dyn Fn(u64) + Send + Sync),
    ) -> RunEndReport {
        self.clock.advance(Duration::from_secs(60));
        let order = Order {
            dataset: self.dataset.clone(),
            sync: "things".into(),
            definition: String::new(),
            connection: self.connection.clone(),
            part,
            deletes: vec![],
            guard: None,
            timeout: Duration::from_secs(3_600),
            fresh: false,
            seed: 1,
        };
        let report = run(&self.engine, self.source.clone(), order, halt, &|record, _| tell(record.pages)).await;
        report.expect("the engine works")
    }

    /// What the next scheduled run would ask for.
    fn next(&self) -> Part {
        let progress = Progress::load(&self.engine, &self.dataset.name).expect("reads");
        progress.next_part(true, true, false, None, Duration::from_secs(60), self.clock.now())
    }

    fn records(&self) -> BTreeMap<u64, u64> {
        let mut found = BTreeMap::new();
        let live = Filter { deleted: false, ..Filter::ALL };
        let mut each = |_: &Meta, payload: &[u8]| {
            let record: Value = serde_json::from_slice(payload).expect("JSON");
            let id = record["id"].as_str().and_then(|id| id.parse().ok()).expect("an id");
            found.insert(id, record["at"].as_u64().expect("a version"));
            true
        };
        self.engine.records(&self.dataset, Position::START, live, &mut each).expect("reads");
        found
    }
}

fn things(range: std::ops::RangeInclusive<u64>) -> Things {
    Arc::new(Mutex::new(range.map(|id| (id, 100 + id)).collect()))
}

#[tokio::test]
async fn records_follow_the_provider_and_unchanged_pages_keep_their_records() {
    let things = things(1..=7);
    let bench = Bench::new(&things).await;
    let first = bench.run(bench.next()).await;
    assert_eq!((first.record.status, first.record.counts.added), (Outcome::Complete, 7));
    let again = bench.run(Part::Full).await;
    assert_eq!((again.record.not_modified, again.record.counts.unchanged), (4, 7), "{:?}", again.record);
    assert_eq!((again.record.status, again.record.counts.changes()), (Outcome::Complete, 0));
    things.lock().expect("lock").remove(&3);
    things.lock().expect("lock").insert(8, 900);
    let third = bench.run(Part::Full).await;
    assert_eq!((third.record.counts.added, third.record.counts.deleted), (1, 1), "{:?}", third.record);
    assert_eq!(bench.records(), *things.lock().expect("lock"));
}

#[tokio::test]
async fn a_listing_cut_short_of_its_first_count_deletes_nothing() {
    let things = things(1..=4);
    let cut = Arc::new(AtomicBool::new(false));
    let (whole, now) = (show(&things), cut.clone());
    let provider = Provider::start(move |asked| match asked.query["page"].as_str() {
        "1" => whole(asked),
        _ if now.load(Ordering::SeqCst) => reply(json!({"data": []})),
        _ => whole(asked),
    });
    let bench = Bench::over(None, provider.await, Arc::new(ManualClock::new(at("2026-01-01T00:00:00Z"))));
    assert_eq!(bench.run(Part::Full).await.record.status, Outcome::Complete);
    cut.store(true, Ordering::SeqCst);
    // Twice: what is missing is only deleted after a second look.
    for _ in 0..2 {
        let report = bench.run(Part::Full).await;
        assert_eq!(
            (report.record.status, report.record.counts.deleted),
            (Outcome::Incomplete, 0),
            "{:?}",
            report.record
        );
    }
    assert_eq!(bench.records(), *things.lock().expect("lock"));
}

#[tokio::test]
async fn what_changed_is_asked_for_and_asking_again_costs_one_short_answer() {
    let things = things(1..=5);
    let bench = Bench::new(&things).await;
    bench.run(bench.next()).await;
    assert_eq!(bench.next(), Part::Incremental { since: Timestamp::from_seconds(45), until: bench.clock.now() });
    bench.run(bench.next()).await;
    let quiet = bench.run(bench.next()).await;
    assert_eq!((quiet.record.requests, quiet.record.not_modified), (3, 3), "{:?}", quiet.record);
    things.lock().expect("lock").insert(2, 500);
    let changed = bench.run(bench.next()).await;
    assert_eq!((changed.record.counts.updated, changed.record.kind.as_str()), (1, "INCREMENTAL"));
    assert_eq!(bench.records(), *things.lock().expect("lock"));
}

#[tokio::test]
async fn a_window_of_which_a_part_was_missing_is_asked_for_again() {
    let things = things(1..=3);
    let part = Arc::new(AtomicBool::new(false));
    let (whole, now) = (show(&things), part.clone());
    let provider = Provider::start(move |asked| match now.load(Ordering::SeqCst) {
        // Half of what there is, and a status that says so.
        true => reply(json!({"data": [], "total": null})).status(206),
        false => whole(asked),
    });
    let bench = Bench::over(None, provider.await, Arc::new(ManualClock::new(at("2026-01-01T00:00:00Z"))));
    bench.run(bench.next()).await;
    let Part::Incremental { since, .. } = bench.next() else { panic!("a window") };
    things.lock().expect("lock").insert(2, 500);
    part.store(true, Ordering::SeqCst);
    let cut = bench.run(bench.next()).await;
    assert_eq!((cut.record.status, cut.record.counts.changes()), (Outcome::Incomplete, 0), "{:?}", cut.record.doubts);
    assert!(matches!(bench.next(), Part::Incremental { since: again, .. } if again == since), "{:?}", bench.next());
    part.store(false, Ordering::SeqCst);
    let whole = bench.run(bench.next()).await;
    assert_eq!((whole.record.status, whole.record.counts.updated), (Outcome::Complete, 1));
    assert_eq!(bench.records(), *things.lock().expect("lock"));
}

#[tokio::test]
async fn a_listing_stopped_at_any_page_is_proven_after_a_restart() {
    for stop_after in 1..=3 {
        let folder = tempfile::tempdir().expect("a folder");
        let things = things(1..=7);
        let clock = Arc::new(ManualClock::new(at("2026-01-01T00:00:00Z")));
        let provider = Provider::start(show(&things)).await;
        let bench = Bench::over(Some(folder.path()), provider.clone(), clock.clone());
        bench.run(Part::Full).await;
        things.lock().expect("lock").remove(&7);
        let (tell, halt) = watch::channel(Halt::No);
        let stop = |pages| {
            if pages == stop_after {
                tell.send_replace(Halt::Stop);
            }
        };
        // The third page is the last one: a stop after it comes too late, and the run ends.
        let status = bench.run_told(Part::Full, halt, &stop).await.record.status;
        bench.engine.stop().await.expect("stops");
        drop(bench);
        let bench = Bench::over(Some(folder.path()), provider, clock);
        if status == Outcome::Running {
            let report = bench.run(bench.next()).await;
            assert_eq!((report.record.status, report.resumed), (Outcome::Complete, true), "{:?}", report.record.doubts);
        }
        assert_eq!(bench.records(), *things.lock().expect("lock"), "stopped after {stop_after}");
    }
}

#[tokio::test]
async fn validators_that_outlive_the_records_hide_nothing_for_long() {
    let things = things(1..=4);
    let bench = Bench::new(&things).await;
    bench.run(Part::Full).await;
    bench.engine.clear(&bench.dataset).await.expect("clears");
    let hidden = bench.run(Part::Full).await;
    assert_eq!((hidden.record.status, hidden.record.counts.ignored), (Outcome::Incomplete, 4), "{:?}", hidden.record);
    let healed = bench.run(Part::Full).await;
    assert_eq!((healed.record.status, healed.record.counts.added), (Outcome::Complete, 4));
    assert_eq!(bench.records(), *things.lock().expect("lock"));
    assert!(bench.provider.asked().len() >= 6);
}
