//! The run driver through its public door, over a scripted source and a real engine.

use async_trait::async_trait;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use syncline_engine::Engine;
use syncline_engine::model::*;
use syncline_engine::pipeline::run::*;
use syncline_engine::pipeline::*;
use syncline_engine::sink::{Announce, Notice, Owed};
use syncline_engine::source::*;
use syncline_engine::store::journal::{JournalKind, JournalSelection};
use syncline_engine::time::{Clock, ManualClock};
use tokio::sync::watch;

/// A keyspace of a program.
const OWN: Keyspace = Keyspace::new(64);

const SECOND: Duration = Duration::from_secs(1);

enum Step {
    Page(Page),
    Fail(Failure),
    /// A webhook brings a record while the page is on its way.
    Overtaken(Engine, Dataset, &'static str, Page),
    /// Answers never: the run has to be stopped.
    Hang,
}

/// A source that answers as its script says, and remembers what it was asked.
struct Script {
    clock: Arc<ManualClock>,
    steps: Mutex<VecDeque<Step>>,
    asked: Mutex<Vec<(Part, Option<String>, Timestamp)>>,
    there: HashMap<String, Option<Observation>>,
    hanging: watch::Sender<bool>,
    retry: Retry,
}

#[async_trait]
impl Source for Script {
    async fn poll(&self, ask: &Ask, after: Option<&Bookmark>) -> Result<Page, Failure> {
        let bookmark = after.map(|b| String::from_utf8_lossy(&b.0).into_owned());
        self.asked.lock().expect("lock").push((ask.part, bookmark, self.clock.now()));
        let step = self.steps.lock().expect("lock").pop_front();
        match step.expect("the script has a step for every call") {
            Step::Page(page) => Ok(page),
            Step::Fail(failure) => Err(failure),
            Step::Overtaken(engine, dataset, id, page) => {
                let mut brought = engine.page(&dataset);
                brought.save(id, None, self.clock.now(), format!("{{\"id\":\"{id}\"}}").as_bytes());
                let batch = Batch { cause: Some(Cause::webhook(1)), pages: vec![brought], ..Batch::default() };
                engine.commit(batch).await.expect("commits");
                Ok(page)
            }
            Step::Hang => {
                self.hanging.send_replace(true);
                std::future::pending().await
            }
        }
    }

    async fn fetch(&self, _: &Ask, keys: &[String]) -> Result<Page, Failure> {
        let said = keys.iter().filter_map(|key| self.there.get(key).cloned().map(|seen| (key, seen)));
        let observations = said.map(|(key, seen)| seen.unwrap_or_else(|| gone(key, self.clock.now()))).collect();
        Ok(Page { observations, ..Page::default() })
    }

    fn retry(&self) -> Retry {
        self.retry
    }
}

fn gone(id: &str, at: Timestamp) -> Observation {
    Observation { id: id.to_string(), modified_at: None, observed_at: at, body: Body::Gone { deleted_at: None } }
}

/// Runs whose end was announced.
#[derive(Default)]
struct Told(Mutex<Vec<Cause>>);

impl Announce for Told {
    fn announce(&self, notice: &Notice, _: &mut dyn FnMut(&str) -> u64) -> Vec<Owed> {
        self.0.lock().expect("lock").push(notice.cause);
        Vec::new()
    }
}

struct Bench {
    engine: Engine,
    told: Arc<Told>,
    clock: Arc<ManualClock>,
    dataset: Dataset,
    guard: Option<DeleteGuard>,
    there: HashMap<String, Option<Observation>>,
    retry: Retry,
    deletes: Vec<usize>,
    fresh: bool,
    timeout: Duration,
}

impl Bench {
    fn new() -> Bench {
        let clock = Arc::new(ManualClock::new(Timestamp::from_seconds(1_000)));
        Bench::open(None, clock)
    }

    fn open(folder: Option<&std::path::Path>, clock: Arc<ManualClock>) -> Bench {
        let told = Arc::new(Told::default());
        let (data_dir, announce) = (folder.map(Into::into), Some(told.clone() as Arc<dyn Announce>));
        let options = Options { data_dir, workers: 1, clock: clock.clone(), announce, ..Options::default() };
        let engine = Engine::open(options).expect("opens");
        let spec = DatasetSpec { strategy: Strategy::IgnoreIfModifiedAfter, ignore_in_diff: vec![] };
        let dataset =
            engine.dataset(&DatasetName::base("default", "crm", "acme", "Contact"), &spec).expect("registers");
        let retry = Retry { max: 3, from: SECOND, to: 10 * SECOND, jitter: false };
        let timeout = Duration::from_secs(365 * 86_400);
        Bench {
            engine,
            told,
            clock,
            dataset,
            guard: None,
            there: HashMap::new(),
            retry,
            deletes: vec![],
            fresh: false,
            timeout,
        }
    }

    fn script(&self, steps: Vec<Step>) -> Arc<Script> {
        Arc::new(Script {
            clock: self.clock.clone(),
            steps: Mutex::new(steps.into()),
            asked: Mutex::default(),
            there: self.there.clone(),
            hanging: watch::Sender::new(false),
            retry: self.retry,
        })
    }

    fn order(&self, part: Part) -> Order {
        Order {
            dataset: self.dataset.clone(),
            sync: "contacts".into(),
            definition: "hash".into(),
            connection: Arc::new(Connection { id: "acme".into(), ..Connection::default() }),
            part,
            deletes: self.deletes.clone(),
            guard: self.guard,
            timeout: self.timeout,
            fresh: self.fresh,
            seed: 1,
        }
    }

    async fn run(&self, part: Part, steps: Vec<Step>) -> (RunEndReport, Vec<(Part, Option<String>, Timestamp)>) {
        let script = self.script(steps);
        let (_never, halt) = watch::channel(Halt::No);
        let report = self.drive(part, script.clone(), halt).await;
        assert!(script.steps.lock().expect("lock").is_empty(), "the whole script was used");
        let asked = std::mem::take(&mut *script.asked.lock().expect("lock"));
        (report, asked)
    }

    /// Runs, turning the clock whenever the run waits.
    async fn drive(&self, part: Part, script: Arc<Script>, halt: watch::Receiver<Halt>) -> RunEndReport {
        self.clock.advance(SECOND);
        let turning = async {
            loop {
                tokio::task::yield_now().await;
                self.clock.advance(SECOND / 10);
            }
        };
        tokio::select! {
            report = run(&self.engine, script, self.order(part), halt, &|_, _| {}) => report.expect("the engine works"),
            () = turning => unreachable!("turns for ever"),
        }
    }

    /// Lets some work go on so many times, each time until it waits for the engine, and drops it then.
    async fn cut_off(&self, work: impl Future, turns: usize) {
        let mut work = std::pin::pin!(work);
        for _ in 0..turns {
            tokio::select! {
                biased;
                _ = &mut work => return,
                () = std::future::ready(()) => {}
            }
            // What it waits for was handed over before this, and is through when this is.
            let marks = vec![Mark::put(OWN, &["turn"], "")];
            self.engine.commit(Batch { marks, ..Batch::default() }).await.expect("commits");
        }
    }

    /// Runs until the script hangs, then halts.
    async fn run_halted(&self, part: Part, steps: Vec<Step>, how: Halt) -> RunEndReport {
        let script = self.script(steps);
        let (tell, halt) = watch::channel(Halt::No);
        let mut hanging = script.hanging.subscribe();
        let stop = async {
            hanging.wait_for(|hanging| *hanging).await.expect("open");
            tell.send_replace(how);
        };
        tokio::join!(self.drive(part, script, halt), stop).0
    }

    fn ids(&self) -> Vec<String> {
        let live = Filter { added: true, updated: true, deleted: false, modified_after: None };
        self.read(live)
    }

    fn read(&self, filter: Filter) -> Vec<String> {
        let mut found = Vec::new();
        let mut each = |_: &Meta, payload: &[u8]| {
            let record: serde_json::Value = serde_json::from_slice(payload).expect("JSON");
            found.push(record["id"].as_str().expect("text").to_string());
            true
        };
        self.engine.records(&self.dataset, Position::START, filter, &mut each).expect("reads");
        found.sort();
        found
    }

    fn stored_run(&self, report: &RunEndReport) -> RunRecord {
        let key = ["default", "crm", "Contact", report.record.id.as_str()];
        let bytes = self.engine.mark(Keyspace::RUN, &key).expect("reads").expect("stored");
        serde_json::from_slice(&bytes).expect("a run record")
    }

    fn has_bookmark(&self) -> bool {
        let key = ["default", "crm", "acme", "Contact", "base"];
        self.engine.mark(Keyspace::BOOKMARK, &key).expect("reads").is_some()
    }

    fn seen(&self, id: &str) -> Observation {
        let at = self.clock.now();
        let body = Body::Whole(format!("{{\"id\":\"{id}\",\"n\":1}}"));
        Observation { id: id.to_string(), modified_at: None, observed_at: at, body }
    }

    fn page(&self, ids: &[&str], next: &str) -> Step {
        let next = (!next.is_empty()).then(|| Bookmark(next.to_string().into()));
        Step::Page(Page {
            observations: ids.iter().map(|id| self.seen(id)).collect(),
            next,
            requests: 1,
            ..Page::default()
        })
    }

    fn last(&self, ids: &[&str], confirm: Confirm) -> Step {
        self.ended(ids, End { doubts: vec![], confirm })
    }

    fn doubtful(&self, ids: &[&str], doubt: &str) -> Step {
        self.ended(ids, End { doubts: vec![doubt.to_string()], confirm: Confirm::None })
    }

    fn ended(&self, ids: &[&str], end: End) -> Step {
        match self.page(ids, "") {
            Step::Page(page) => Step::Page(Page { end: Some(end), ..page }),
            other => other,
        }
    }

    async fn full(&self, ids: &[&str], confirm: Confirm) -> RunEndReport {
        self.run(Part::Full, vec![self.last(ids, confirm)]).await.0
    }
}

/// A page that names record 1 twice, as a listing of order lines does.
fn lines(bench: &Bench, times: [Option<i64>; 2]) -> Step {
    let line = |(n, at): (usize, Option<i64>)| {
        let body = Body::Whole(format!("{{\"id\":\"1\",\"line\":{n}}}"));
        Observation { body, modified_at: at.map(Timestamp), ..bench.seen("1") }
    };
    let observations = times.into_iter().enumerate().map(line).collect();
    Step::Page(Page { observations, ..Page::last(vec![]) })
}

#[tokio::test]
async fn a_record_twice_in_one_answer_is_one_observation_and_one_warning() {
    for strategy in [Strategy::IgnoreIfModifiedAfter, Strategy::Latest, Strategy::Override] {
        for (times, line) in [([None, None], 1), ([Some(5), Some(5)], 1), ([Some(6), Some(5)], 0)] {
            let mut bench = Bench::new();
            let spec = DatasetSpec { strategy, ignore_in_diff: vec![] };
            bench.dataset = bench.engine.dataset(&bench.dataset.name, &spec).expect("registers");
            for run in 0..4 {
                let (report, _) = bench.run(Part::Full, vec![lines(&bench, times)]).await;
                let counts = report.record.counts;
                assert_eq!(
                    (counts.added, counts.updated),
                    (u64::from(run == 0), 0),
                    "{strategy:?} {times:?} run {run}"
                );
                assert_eq!((report.record.warnings, report.record.status), (1, Outcome::Complete));
                assert!(report.record.samples[0].contains("repeated_key"), "{:?}", report.record.samples);
            }
            let record = bench.engine.record(&bench.dataset, "1").await.expect("reads").expect("there");
            let payload: serde_json::Value = serde_json::from_slice(&record.payload).expect("JSON");
            assert_eq!(payload["line"], line, "{strategy:?} {times:?}");
        }
    }
}

#[tokio::test]
async fn pages_that_all_name_records_twice_bring_one_warning_a_run() {
    let bench = Bench::new();
    let more = |step: Step, next: &str| match step {
        Step::Page(page) => Step::Page(Page { next: Some(Bookmark(next.to_string().into())), end: None, ..page }),
        other => other,
    };
    let steps = vec![more(lines(&bench, [None, None]), "2"), lines(&bench, [None, None])];
    assert_eq!(bench.run(Part::Full, steps).await.0.record.warnings, 1);
}

fn fail(code: &'static str, retry: bool, after: Option<u64>) -> Step {
    let retry_after = after.map(Duration::from_secs);
    Step::Fail(Failure { code, message: "no".into(), status: Some(429), retry, retry_after })
}

fn window(since: i64, until: i64) -> Part {
    Part::Incremental { since: Timestamp::from_seconds(since), until: Timestamp::from_seconds(until) }
}

#[tokio::test]
async fn a_run_stores_its_pages_its_record_and_what_the_next_one_needs() {
    let bench = Bench::new();
    let (report, asked) =
        bench.run(Part::Full, vec![bench.page(&["1", "2"], "p2"), bench.last(&["3"], Confirm::None)]).await;
    assert_eq!(report.record.status, Outcome::Complete);
    assert_eq!((report.record.kind.as_str(), report.record.pages, report.record.requests), ("INITIAL", 2, 2));
    assert_eq!(report.record.counts.added, 3);
    assert_eq!(asked.iter().map(|(_, after, _)| after.as_deref()).collect::<Vec<_>>(), [None, Some("p2")]);
    assert_eq!(bench.ids(), ["1", "2", "3"]);
    assert_eq!(bench.stored_run(&report), report.record);
    assert!(!bench.has_bookmark());
    assert_eq!(Progress::load(&bench.engine, &bench.dataset.name).expect("reads"), report.progress);
    assert!(!bench.engine.window_open(&bench.dataset));
}

#[tokio::test]
async fn only_a_proven_listing_deletes() {
    let bench = Bench::new();
    bench.full(&["1", "2", "3"], Confirm::None).await;
    let (doubtful, _) = bench.run(Part::Full, vec![bench.doubtful(&["1"], "total_mismatch: 3 and 1")]).await;
    assert_eq!((doubtful.record.status, doubtful.record.counts.deleted), (Outcome::Incomplete, 0));
    let Step::Page(mut page) = bench.last(&["1"], Confirm::None) else { unreachable!() };
    page.quarantined = vec![Quarantined { code: "bad_key", message: "no".into(), id: None, item: "{}".into() }];
    let (quarantined, _) = bench.run(Part::Full, vec![Step::Page(page)]).await;
    assert_eq!((quarantined.record.status, quarantined.record.quarantined), (Outcome::Incomplete, 1));
    assert_eq!(bench.ids(), ["1", "2", "3"]);
    let proven = bench.full(&["1"], Confirm::None).await;
    assert_eq!((proven.record.status, proven.record.counts.deleted), (Outcome::Complete, 2));
    assert_eq!(bench.stored_run(&proven).counts.deleted, 2);
    assert_eq!(bench.ids(), ["1"]);
    assert_eq!(bench.read(Filter::ALL), ["1", "2", "3"], "their last payloads are kept");
}

#[tokio::test]
async fn a_stream_without_deletes_from_listings_keeps_everything() {
    let bench = Bench::new();
    bench.full(&["1", "2"], Confirm::Never).await;
    let report = bench.full(&["1"], Confirm::Never).await;
    assert_eq!((report.record.status, bench.ids().len()), (Outcome::Complete, 2));
    assert!(!bench.engine.window_open(&bench.dataset), "nothing is left open");
}

#[tokio::test]
async fn a_stopped_run_goes_on_under_its_number_where_it_was_even_after_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let bench = Bench::open(Some(folder.path()), Arc::new(ManualClock::new(Timestamp::from_seconds(1_000))));
    bench.full(&["1", "2", "3"], Confirm::None).await;
    let steps = vec![bench.page(&["1"], "p2"), Step::Hang];
    let stopped = bench.run_halted(Part::Full, steps, Halt::Stop).await;
    assert_eq!(stopped.record.status, Outcome::Running);
    assert!(bench.has_bookmark());
    bench.engine.stop().await.expect("stops");
    let clock = bench.clock.clone();
    drop(bench);
    let bench = Bench::open(Some(folder.path()), clock);
    let (report, asked) = bench.run(window(1, 2), vec![bench.last(&["2"], Confirm::None)]).await;
    assert_eq!((report.run, report.resumed), (stopped.run, true));
    assert_eq!((asked[0].0, asked[0].1.as_deref()), (Part::Full, Some("p2")), "its own window, not the one ordered");
    assert_eq!((report.record.status, report.record.pages), (Outcome::Complete, 2));
    assert_eq!(bench.ids(), ["1", "2"], "what the first half saw is not deleted by the second");
}

#[tokio::test]
async fn a_failed_run_keeps_what_it_read_and_the_next_one_goes_on_there() {
    let bench = Bench::new();
    let (failed, _) = bench.run(Part::Full, vec![bench.page(&["1"], "p2"), fail("http_status", false, None)]).await;
    assert_eq!(failed.record.status, Outcome::Failed);
    assert_eq!(failed.record.error, Some(("http_status".into(), "no".into())));
    assert_eq!((bench.ids(), failed.progress.failures), (vec!["1".to_string()], 1));
    assert_eq!(failed.progress.last_full_at, None);
    let (report, asked) = bench.run(Part::Full, vec![bench.last(&["2"], Confirm::None)]).await;
    assert_ne!(report.run, failed.run);
    assert_eq!(asked[0].1.as_deref(), Some("p2"));
    assert_eq!((report.record.status, report.progress.failures, bench.ids().len()), (Outcome::Complete, 0, 2));
}

#[tokio::test]
async fn a_listing_that_fails_on_its_way_deletes_nothing() {
    let bench = Bench::new();
    bench.full(&["1", "2", "3"], Confirm::None).await;
    let steps = vec![bench.page(&["1"], "p2"), fail("http_status", false, None)];
    let (failed, _) = bench.run(Part::Full, steps).await;
    assert_eq!((failed.record.status, failed.record.counts.deleted), (Outcome::Failed, 0));
    assert_eq!(bench.ids(), ["1", "2", "3"]);
}

/// Whatever it was about to do: a place is never stored ahead of the pages before it.
#[tokio::test]
async fn a_run_that_is_cut_off_anywhere_has_stored_what_lies_before_its_place() {
    let mut met = BTreeSet::new();
    for turns in 1..16 {
        let bench = Bench::new();
        let steps = vec![bench.page(&["1"], "p2"), bench.page(&["2"], "p3"), bench.last(&["3"], Confirm::Never)];
        let (script, (_never, halt)) = (bench.script(steps), watch::channel(Halt::No));
        bench.cut_off(run(&bench.engine, script, bench.order(window(1, 2)), halt, &|_, _| {}), turns).await;
        let ids = bench.ids();
        let (script, (_never, halt)) =
            (bench.script(vec![bench.last(&["3"], Confirm::Never)]), watch::channel(Halt::No));
        bench.drive(window(1, 2), script.clone(), halt).await;
        let asked = script.asked.lock().expect("lock").first().map(|(_, place, _)| place.clone());
        let before = match asked.as_ref().map(Option::as_deref) {
            Some(None) => 0,
            Some(Some("p2")) => 1,
            Some(Some("p3")) => 2,
            // The listing was over.
            None => 3,
            other => panic!("{other:?}"),
        };
        assert!(ids.len() >= before, "cut off after {turns} turns, it goes on behind {before} pages with {ids:?}");
        met.insert(before);
    }
    assert_eq!(met, BTreeSet::from([0, 1, 2, 3]), "it was cut off at each page");
}

/// What was not committed was not read: with the place behind it stored all the same, a full listing deleted its records.
#[tokio::test]
async fn a_page_that_is_too_large_is_asked_for_again() {
    let bench = Bench::new();
    bench.full(&["a", "b", "c"], Confirm::None).await;
    let large = |bench: &Bench, next| {
        let Step::Page(mut page) = bench.page(&["b"], next) else { unreachable!("a page") };
        page.observations[0].body = Body::Whole(" ".repeat((256 << 20) + 1));
        Step::Page(page)
    };
    let (failed, _) = bench.run(Part::Full, vec![bench.page(&["a"], "p2"), large(&bench, "p3")]).await;
    assert_eq!(failed.record.error.map(|(code, _)| code).as_deref(), Some("page_too_large"));
    let steps = vec![bench.page(&["b"], "p3"), bench.last(&["c"], Confirm::None)];
    let (report, asked) = bench.run(Part::Full, steps).await;
    assert_eq!(asked[0].1.as_deref(), Some("p2"), "the page that was not taken");
    assert_eq!((report.record.status, bench.ids().len()), (Outcome::Complete, 3));

    let mut bench = Bench::new();
    bench.full(&["a", "b"], Confirm::None).await;
    bench.deletes = vec![1];
    let deletes = |observations| {
        let end = Some(End { doubts: vec![], confirm: Confirm::Never });
        Step::Page(Page { observations, end, requests: 1, ..Page::default() })
    };
    let Step::Page(refused) = large(&bench, "") else { unreachable!("a page") };
    let steps = vec![bench.last(&[], Confirm::Never), deletes(refused.observations)];
    bench.run(window(900, 1_001), steps).await;
    let gone = gone("b", bench.clock.now().plus(SECOND));
    let (_, asked) = bench.run(window(900, 1_001), vec![deletes(vec![gone])]).await;
    assert!(matches!(asked[0].0, Part::Deletes { index: 1, .. }), "{:?}", asked[0].0);
    assert_eq!(bench.ids(), ["a"]);
}

#[tokio::test]
async fn a_place_that_is_refused_at_once_is_given_up() {
    let bench = Bench::new();
    bench.run(Part::Full, vec![bench.page(&["1"], "p2"), fail("http_status", false, None)]).await;
    bench.run(Part::Full, vec![fail("http_status", false, None)]).await;
    assert!(!bench.has_bookmark());
    let (_, asked) = bench.run(Part::Full, vec![bench.last(&["1"], Confirm::None)]).await;
    assert_eq!(asked[0].1, None);
}

#[tokio::test]
async fn a_bad_bookmark_begins_the_listing_again_and_forgets_what_the_window_saw() {
    let bench = Bench::new();
    bench.full(&["1", "2"], Confirm::None).await;
    bench.run_halted(Part::Full, vec![bench.page(&["1"], "p2"), Step::Hang], Halt::Stop).await;
    let steps = vec![fail(Failure::BAD_BOOKMARK, false, None), bench.last(&["2"], Confirm::None)];
    let (report, asked) = bench.run(Part::Full, steps).await;
    assert_eq!((asked[0].1.as_deref(), asked[1].1.as_deref()), (Some("p2"), None));
    assert_eq!((report.record.status, bench.ids()), (Outcome::Complete, vec!["2".to_string()]));
}

#[tokio::test]
async fn attempts_are_repeated_and_the_providers_wish_is_kept() {
    let bench = Bench::new();
    let steps = vec![
        fail("http_status", true, None),
        fail("http_status", true, Some(60)),
        bench.page(&["1"], "p2"),
        fail("network", true, None),
        bench.last(&["2"], Confirm::None),
    ];
    let (report, asked) = bench.run(Part::Full, steps).await;
    assert_eq!((report.record.status, report.record.retries), (Outcome::Complete, 3));
    let waited = |n: usize| asked[n + 1].2.since(asked[n].2);
    assert!((SECOND..5 * SECOND).contains(&waited(0)), "{:?}", waited(0));
    assert!((60 * SECOND..70 * SECOND).contains(&waited(1)), "{:?}", waited(1));
    assert!((SECOND..5 * SECOND).contains(&waited(3)), "a page that came makes the waits short again");
    let again = |n: usize| asked[n].1.clone();
    assert_eq!((again(3), again(4)), (Some("p2".into()), Some("p2".into())));
}

#[tokio::test]
async fn attempts_have_an_end() {
    let bench = Bench::new();
    let (report, asked) = bench.run(Part::Full, (0..4).map(|_| fail("network", true, None)).collect()).await;
    assert_eq!((report.record.status, asked.len()), (Outcome::Failed, 4), "the first and three more");
}

#[tokio::test]
async fn a_second_look_deletes_only_what_both_listings_miss() {
    let bench = Bench::new();
    bench.full(&["1", "2", "3", "4"], Confirm::Twice).await;
    let steps =
        vec![bench.last(&["1", "2"], Confirm::Twice), bench.page(&["1"], "p2"), bench.last(&["3"], Confirm::Twice)];
    let (report, asked) = bench.run(Part::Full, steps).await;
    assert_eq!((asked[1].1.as_deref(), asked[2].1.as_deref()), (None, Some("p2")));
    assert_eq!((report.record.status, bench.ids()), (Outcome::Complete, vec!["1".into(), "2".into(), "3".into()]));
    let steps = vec![bench.last(&["1"], Confirm::Twice), bench.doubtful(&["1"], "total_mismatch: 1")];
    let (report, _) = bench.run(Part::Full, steps).await;
    assert_eq!(
        (report.record.status, bench.ids().len()),
        (Outcome::Incomplete, 3),
        "an unproven second look proves nothing"
    );
}

#[tokio::test]
async fn a_second_look_is_not_skipped_by_a_stop_before_it() {
    let bench = Bench::new();
    bench.full(&["1", "2"], Confirm::Twice).await;
    bench.run_halted(Part::Full, vec![bench.last(&["1"], Confirm::Twice), Step::Hang], Halt::Stop).await;
    let (report, asked) = bench.run(Part::Full, vec![bench.last(&["2"], Confirm::Twice)]).await;
    assert_eq!((asked.len(), report.record.counts.deleted, bench.ids().len()), (1, 0, 2));
}

#[tokio::test]
async fn fetch_tells_the_deleted_from_the_overlooked() {
    let mut bench = Bench::new();
    bench.full(&["1", "2", "3"], Confirm::Fetch).await;
    bench.there = HashMap::from([("2".into(), None), ("3".into(), Some(bench.seen("3")))]);
    let report = bench.full(&["1"], Confirm::Fetch).await;
    assert_eq!((report.record.status, report.record.counts.deleted), (Outcome::Complete, 1));
    assert_eq!(bench.ids(), ["1", "3"]);
    bench.there.clear();
    let unclear = bench.full(&["1"], Confirm::Fetch).await;
    assert_eq!((unclear.record.status, bench.ids().len()), (Outcome::Incomplete, 2), "no answer is no delete");
}

/// A record that the engine cannot read is neither there nor gone.
#[tokio::test]
async fn what_fetch_brings_and_nobody_can_read_is_not_deleted() {
    let mut bench = Bench::new();
    bench.full(&["1", "2"], Confirm::Fetch).await;
    let unreadable = Observation { body: Body::Whole("{bad".to_owned()), ..bench.seen("2") };
    bench.there = HashMap::from([("2".into(), Some(unreadable))]);
    let report = bench.full(&["1"], Confirm::Fetch).await;
    assert_eq!((report.record.status, bench.ids().len()), (Outcome::Incomplete, 2));
}

/// A listing that has just begun has seen nothing: the approval of an earlier one's deletes must not reach it.
#[tokio::test]
async fn deletes_of_an_earlier_window_are_not_approved_in_the_next_one() {
    let mut bench = Bench::new();
    bench.guard = Some(DeleteGuard { max_fraction: 0.25, min_count: 4 });
    bench.full(&["1", "2", "3", "4"], Confirm::None).await;
    let decisions: [bool; 2] = [true, false];
    for yes in decisions {
        let report = bench.full(&["1", "2"], Confirm::None).await;
        assert_eq!(report.record.status, Outcome::Held);
        let run = &report.record.id;
        // It is on its way, and so is what lifts the hold.
        let begun = Batch { open: vec![WindowOp::Restart(bench.dataset.clone())], ..Batch::default() };
        let begun = bench.engine.submit(begun).await.expect("handed over");
        let decided = match yes {
            true => approve(&bench.engine, &bench.dataset, run).await,
            false => reject(&bench.engine, &bench.dataset, run).await,
        };
        assert!(!decided.expect("works"), "not of this window");
        begun.receipt().await.expect("commits");
        assert_eq!(bench.ids().len(), 4);
        assert!(bench.engine.window_open(&bench.dataset), "the new window stays");
    }
}

/// A kill, not a stop: what the last page did is known to nobody but the store.
#[tokio::test]
async fn a_killed_run_knows_what_its_last_page_did() {
    let folder = tempfile::tempdir().expect("a folder");
    let bench = Bench::open(Some(folder.path()), Arc::new(ManualClock::new(Timestamp::from_seconds(1_000))));
    bench.full(&["b"], Confirm::None).await;
    let Step::Page(mut page) = bench.page(&["a", "b"], "p2") else { unreachable!("a page") };
    page.observations[1].body = Body::Whole("{bad".to_owned());
    let script = bench.script(vec![Step::Page(page), Step::Hang]);
    let mut hanging = script.hanging.subscribe();
    let (_never, halt) = watch::channel(Halt::No);
    tokio::select! {
        _ = bench.drive(Part::Full, script.clone(), halt) => unreachable!("it hangs"),
        hangs = hanging.wait_for(|hanging| *hanging) => drop(hangs.expect("open")),
    }
    bench.engine.stop().await.expect("stops");
    let clock = bench.clock.clone();
    drop((bench, script));
    let bench = Bench::open(Some(folder.path()), clock);
    let (report, asked) = bench.run(Part::Full, vec![bench.last(&["c"], Confirm::None)]).await;
    assert_eq!((asked[0].1.as_deref(), report.resumed), (Some("p2"), true));
    let counts = report.record.counts;
    assert_eq!((counts.added, counts.rejected, counts.deleted), (2, 1, 0), "{:?}", report.record);
    assert_eq!((report.record.status, bench.ids().len()), (Outcome::Incomplete, 3), "what was rejected is not gone");
}

/// Its changes are told, and its record does not say for ever that it is running.
#[tokio::test]
async fn a_run_that_was_interrupted_and_is_not_gone_on_with_is_ended() {
    let bench = Bench::new();
    bench.full(&["1"], Confirm::Never).await;
    let steps = vec![bench.page(&["2"], "p2"), Step::Hang];
    let stopped = bench.run_halted(window(900, 1_001), steps, Halt::Stop).await;
    bench.told.0.lock().expect("lock").clear();
    let (report, asked) = bench.run(Part::Full, vec![bench.last(&["1", "2"], Confirm::Never)]).await;
    assert_eq!((asked[0].0, report.resumed), (Part::Full, false));
    let record = bench.stored_run(&stopped);
    assert_eq!((record.status, record.counts.added), (Outcome::Failed, 1));
    assert_eq!(record.error.map(|(code, _)| code).as_deref(), Some("superseded"));
    assert!(record.ended_at.is_some());
    assert_eq!(*bench.told.0.lock().expect("lock"), [Cause::run(stopped.run), Cause::run(report.run)], "each once");
    assert!(report.progress.runs.contains(&stopped.run), "its record goes when it is old");
}

#[tokio::test]
async fn the_guard_holds_until_somebody_decides_or_the_records_are_back() {
    let mut bench = Bench::new();
    bench.guard = Some(DeleteGuard { max_fraction: 0.25, min_count: 4 });
    let all = ["1", "2", "3", "4"];
    bench.full(&all, Confirm::None).await;
    let one = bench.full(&["1", "2", "3"], Confirm::None).await;
    assert_eq!((one.record.status, bench.ids().len()), (Outcome::Complete, 3), "a quarter passes");
    bench.full(&all, Confirm::None).await;
    let report = bench.full(&["1", "2"], Confirm::None).await;
    assert_eq!((report.record.status, report.record.held), (Outcome::Held, Some((4, 2))));
    let holds = held(&bench.engine, &bench.dataset.name).expect("reads");
    assert_eq!((holds.len(), holds[0].live, holds[0].missing, bench.ids().len()), (1, 4, 2, 4));
    assert!(!approve(&bench.engine, &bench.dataset, "run_00000000000000").await.expect("works"), "of another run");
    assert!(reject(&bench.engine, &bench.dataset, &report.record.id).await.expect("works"));
    assert!(!approve(&bench.engine, &bench.dataset, &report.record.id).await.expect("works"), "decided already");
    assert_eq!(bench.ids().len(), 4);
    bench.full(&["1"], Confirm::None).await;
    let back = bench.full(&all, Confirm::None).await;
    assert_eq!(back.record.status, Outcome::Complete);
    assert!(held(&bench.engine, &bench.dataset.name).expect("reads").is_empty(), "lifted");
    let report = bench.full(&["1"], Confirm::None).await;
    assert!(approve(&bench.engine, &bench.dataset, &report.record.id).await.expect("works"));
    assert_eq!((bench.ids(), bench.stored_run(&report).status), (vec!["1".to_string()], Outcome::Complete));
}

#[tokio::test]
async fn listings_of_deleted_records_are_read_after_the_main_one() {
    let mut bench = Bench::new();
    bench.full(&["1", "2"], Confirm::None).await;
    bench.deletes = vec![1];
    let Step::Page(mut page) = bench.ended(&[], End { doubts: vec![], confirm: Confirm::Never }) else {
        unreachable!()
    };
    page.observations = vec![gone("2", bench.clock.now().plus(SECOND))];
    let steps = vec![bench.last(&[], Confirm::Never), Step::Page(page)];
    let (report, asked) = bench.run(window(900, 1_001), steps).await;
    assert!(matches!(asked[1].0, Part::Deletes { index: 1, since: Timestamp(0), .. }), "{:?}", asked[1].0);
    assert_eq!((report.record.kind.as_str(), report.record.counts.deleted), ("INCREMENTAL", 1));
    assert_eq!(bench.ids(), ["1"]);
    assert!(report.progress.deletes_read_at(1).is_some());
}

/// One line a run, at its end, and one when somebody decides on its deletes.
#[tokio::test]
async fn the_journal_says_how_each_run_ended() {
    let mut bench = Bench::new();
    bench.guard = Some(DeleteGuard { max_fraction: 0.25, min_count: 4 });
    let first = bench.full(&["1", "2", "3", "4"], Confirm::None).await;
    let (failed, _) = bench.run(window(1, 2), vec![fail("http_status", false, None)]).await;
    let stopped = bench.run_halted(window(900, 1_001), vec![bench.page(&["5"], "p2"), Step::Hang], Halt::Stop).await;
    let held = bench.full(&["1"], Confirm::None).await;
    assert!(approve(&bench.engine, &bench.dataset, &held.record.id).await.expect("works"));
    let journal = bench.engine.journal();
    journal.settle();
    let environment = Some(bench.dataset.name.environment.to_string());
    let lines = journal.read(&JournalSelection { environment, ..Default::default() }, 9).expect("read").lines;
    let told: Vec<_> = lines.iter().rev().map(|line| (&*line.id, &*line.outcome)).collect();
    let ids = [&first, &failed, &stopped, &held].map(|report| report.record.id.clone());
    let outcomes = ["complete", "failed", "failed", "held"];
    let expected = ids.iter().map(|id| &**id).zip(outcomes).chain([(&*ids[3], "complete")]);
    assert_eq!(told, expected.collect::<Vec<_>>());
    let line = &lines[4];
    assert_eq!(line.source.as_deref().zip(line.connection.as_deref()), Some(("crm", "acme")));
    assert_eq!((line.kind, line.stream.as_deref()), (JournalKind::Run, Some("Contact")));
    let counts = (&line.details["counts"]["added"], &line.details["pages"], &line.details["kind"]);
    assert_eq!(counts, (&4.into(), &1.into(), &"INITIAL".into()));
    assert!(line.details["ms"].is_u64());
    assert_eq!(lines[3].details["error"]["code"], "http_status");
    assert_eq!(lines[2].details["error"]["code"], "superseded");
    assert_eq!(lines[1].details["held"]["missing"], 4);
}

#[tokio::test]
async fn a_cancelled_run_ends_and_keeps_its_place() {
    let bench = Bench::new();
    let steps = vec![bench.page(&["1"], "p2"), Step::Hang];
    let report = bench.run_halted(Part::Full, steps, Halt::Cancel).await;
    assert_eq!(report.record.status, Outcome::Cancelled);
    assert!(bench.has_bookmark());
    assert_eq!(bench.stored_run(&report).status, Outcome::Cancelled);
}

#[tokio::test]
async fn a_run_that_takes_too_long_fails() {
    let mut bench = Bench::new();
    bench.timeout = 30 * SECOND;
    let (_never, halt) = watch::channel(Halt::No);
    // The clock runs on while the window is begun, so the time may be over before the first request.
    let report = bench.drive(Part::Full, bench.script(vec![Step::Hang]), halt).await;
    assert_eq!(report.record.error.map(|(code, _)| code).as_deref(), Some("timeout"));
}

#[tokio::test]
async fn the_next_window_begins_before_everything_the_last_run_could_have_missed() {
    let bench = Bench::new();
    let page = |modified: i64, provider: Option<i64>, id: &str| {
        let Step::Page(mut page) = bench.last(&[id], Confirm::Never) else { unreachable!() };
        page.observations[0].modified_at = Some(Timestamp::from_seconds(modified));
        page.provider_time = provider.map(Timestamp::from_seconds);
        vec![Step::Page(page)]
    };
    let (report, _) = bench.run(Part::Full, page(700, Some(990), "1")).await;
    assert_eq!(report.progress.since_base, Some(Timestamp::from_seconds(700)), "the greatest modified time is earlier");
    let base = report.progress.since_base;
    let (report, _) = bench.run(window(640, 1_100), page(700, Some(1_090), "1")).await;
    assert_eq!((report.record.counts.unchanged, report.progress.since_base), (1, base), "nothing new: it stays");
    let (report, _) = bench.run(window(640, 1_200), page(5_000, Some(1_150), "2")).await;
    assert_eq!(report.progress.since_base, Some(Timestamp::from_seconds(1_150)), "the run's start is earlier");
    let (report, _) = bench.run(window(640, 1_170), page(5_000, Some(2_150), "3")).await;
    assert_eq!(report.progress.since_base, Some(Timestamp::from_seconds(1_170)), "the window's end is earlier still");
    let (report, _) = bench.run(window(640, 1_300), page(5_000, None, "4")).await;
    assert!(report.progress.local_clock);
    let skipped = bench.doubtful(&["5"], "page_skipped: /a answered 500");
    let (skipped, _) = bench.run(window(640, 9_000), vec![skipped]).await;
    assert_eq!(skipped.progress.since_base, report.progress.since_base, "what was left out has to be asked for again");
}

#[tokio::test]
async fn quarantine_keeps_what_was_refused_until_it_can_be_taken() {
    let bench = Bench::new();
    let refused = |ids: &[&str]| {
        let Step::Page(mut page) = bench.last(&[], Confirm::None) else { unreachable!() };
        let item = |id: &&str| Quarantined {
            code: "bad_time",
            message: "no".into(),
            id: Some(id.to_string()),
            item: "{}".into(),
        };
        page.quarantined = ids.iter().map(item).collect();
        vec![Step::Page(page)]
    };
    let kept = || {
        let mut ids = Vec::new();
        quarantined(&bench.engine, "default", None, &mut |row| {
            assert_eq!(row.place, ["crm", "acme", "Contact"]);
            ids.extend(row.kept.ok().and_then(|entry| entry.id));
            true
        })
        .expect("reads");
        ids
    };
    let many: Vec<String> = (0..QUARANTINE_MAX + 5).map(|n| format!("x{n}")).collect();
    let (report, _) = bench.run(Part::Full, refused(&many.iter().map(String::as_str).collect::<Vec<_>>())).await;
    assert_eq!(
        (kept().len(), report.record.quarantined),
        (QUARANTINE_MAX, QUARANTINE_MAX as u64 + 5),
        "bounded, counted"
    );
    bench.run(Part::Full, refused(&["x1", "x2"])).await;
    assert_eq!(kept(), ["x1", "x2"], "what a whole listing does not bring again is let go");
    bench.run(window(1, 2), vec![bench.last(&["x2"], Confirm::Never)]).await;
    assert_eq!(kept(), ["x1"]);
}

#[tokio::test]
async fn what_a_webhook_brings_while_the_first_page_is_on_its_way_is_not_missing() {
    let bench = Bench::new();
    bench.full(&["1", "2"], Confirm::None).await;
    bench.clock.advance(SECOND);
    let Step::Page(page) = bench.last(&["1", "2"], Confirm::None) else { unreachable!("a page") };
    let overtaken = Step::Overtaken(bench.engine.clone(), bench.dataset.clone(), "3", page);
    let (report, _) = bench.run(Part::Full, vec![overtaken]).await;
    assert_eq!((report.record.status, report.record.counts.deleted), (Outcome::Complete, 0));
    assert_eq!(bench.ids(), ["1", "2", "3"]);
}
