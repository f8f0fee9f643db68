//! Listings that lie, in every combination of paging, statements, lies and confirmation: whatever an API says, no record that
//! a truthful listing holds is ever deleted; and truthful listings still delete what is gone.
//!
//! `SYNCLINE_TEST_LISTINGS` says how many are read (500), `SYNCLINE_TEST_SEED` with which seed they begin (0).

mod api;

use api::{Api, Asked, Lie, Page, STYLES, Style, below, world};
use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use syncline_connectors::definition::parse;
use syncline_connectors::egress::Egress;
use syncline_connectors::http::{Client, ClientOptions};
use syncline_connectors::rest::{RestSource, SourceState};
use syncline_engine::Engine;
use syncline_engine::model::{DatasetName, Meta, Position, Strategy, Timestamp};
use syncline_engine::pipeline::run::{Halt, Order, Outcome, RunRecord, run};
use syncline_engine::pipeline::{Dataset, DatasetSpec, Filter, Keyspace, Options};
use syncline_engine::source::{Connection, Failure, Part};
use syncline_engine::time::{Chance, SystemClock};
use syncline_ledger::Trial;
use tokio::sync::watch;

/// Listings read at the same time.
const AT_ONCE: u64 = 8;

/// Listings read with one engine.
const OF_ONE_ENGINE: u64 = 250;

/// What an account at the provider holds, and how it speaks of it.
struct Account {
    api: Api,
    truth: Mutex<Vec<u64>>,
    lies: Mutex<Vec<Lie>>,
    /// Refuses the next request once.
    stumbles: AtomicBool,
}

type Accounts = Arc<Mutex<HashMap<String, Arc<Account>>>>;

async fn provider() -> (String, Accounts) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let base = format!("http://{}", listener.local_addr().expect("an address"));
    let accounts = Accounts::default();
    let router = Router::new().fallback(answer).with_state(accounts.clone());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (base, accounts)
}

async fn answer(State(accounts): State<Accounts>, request: Request) -> Response {
    let uri = request.uri().clone();
    let mut path = uri.path().trim_start_matches('/').split('/');
    let account = path.next().and_then(|id| accounts.lock().expect("lock").get(id).cloned()).expect("an account");
    if account.stumbles.swap(false, Ordering::SeqCst) {
        return (axum::http::StatusCode::SERVICE_UNAVAILABLE, "busy").into_response();
    }
    let truth = account.truth.lock().expect("lock").clone();
    let page = match (path.next(), path.next()) {
        (Some("f"), Some(key)) if truth.iter().any(|id| id.to_string() == key) => {
            Page { status: 200, headers: vec![], body: Some(serde_json::json!({"id": key, "ok": true})) }
        }
        (Some("f"), _) => Page { status: 404, headers: vec![], body: Some(serde_json::json!({})) },
        _ => {
            let query: HashMap<String, String> =
                url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()).into_owned().collect();
            let asked = Asked { param: &|name| query.get(name).cloned() };
            account.api.page(&asked, &truth, &account.lies.lock().expect("lock"))
        }
    };
    let body = page.body.as_ref().map(ToString::to_string).unwrap_or_default();
    let tag = format!("\"{:x}\"", fold(&format!("{body}{:?}", page.headers)));
    let known = request.headers().get("if-none-match").is_some_and(|value| value.as_bytes() == tag.as_bytes());
    let status = if known && page.status == 200 { 304 } else { page.status };
    let status = axum::http::StatusCode::from_u16(status).expect("a status");
    let mut response = (status, if status == 304 { String::new() } else { body }).into_response();
    let headers = page.headers.into_iter().map(|(name, value)| (name.to_string(), value));
    for (name, value) in headers.chain([("etag".to_string(), tag)]) {
        let name: axum::http::HeaderName = name.parse().expect("a name");
        response.headers_mut().insert(name, value.parse().expect("a value"));
    }
    response
}

fn fold(text: &str) -> u64 {
    text.bytes().fold(14_695_981_039_346_656_037, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(1_099_511_628_211))
}

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

/// What all listings of a test share.
#[derive(Clone)]
struct Bench {
    engine: Engine,
    client: Client,
    base: String,
    accounts: Accounts,
}

impl Bench {
    async fn new() -> Bench {
        let clock = Arc::new(SystemClock);
        let engine = Engine::open(Options { workers: 1, clock: clock.clone(), ..Options::default() }).expect("opens");
        let client = ClientOptions { allow_http: true, egress: Egress::loopback(), ..ClientOptions::default() };
        let client = Client::new(client, clock).expect("a client");
        let (base, accounts) = provider().await;
        Bench { engine, client, base, accounts }
    }

    fn account(&self, id: &str, api: &Api, truth: &[u64]) -> Reading {
        let account = Account {
            api: api.clone(),
            truth: Mutex::new(truth.to_vec()),
            lies: Mutex::default(),
            stumbles: AtomicBool::new(false),
        };
        let account = Arc::new(account);
        self.accounts.lock().expect("lock").insert(id.to_string(), account.clone());
        let name = DatasetName::base("default", "acme", id, "Thing");
        let spec = DatasetSpec { strategy: Strategy::IgnoreIfModifiedAfter, ignore_in_diff: vec![] };
        let dataset = self.engine.dataset(&name, &spec).expect("registers");
        let connection = Connection {
            environment: "default".into(),
            id: id.into(),
            base_url: Some(format!("{}/{id}", self.base)),
            ..Connection::default()
        };
        let mut sync =
            Reading { bench: self.clone(), account, dataset, connection: Arc::new(connection), source: None };
        sync.restart();
        sync
    }
}

/// One stream of one account.
struct Reading {
    bench: Bench,
    account: Arc<Account>,
    dataset: Dataset,
    connection: Arc<Connection>,
    source: Option<Arc<RestSource>>,
}

impl Reading {
    /// Another process over the same store: what the source had in memory is gone.
    fn restart(&mut self) {
        let text = self.account.api.definition();
        let definition = match parse("lies.yaml", &text, &|_| Ok(String::new())) {
            Ok((definition, _)) => Arc::new(definition),
            Err(complaints) => panic!("{text}\n{complaints:?}"),
        };
        let notes = Arc::new(Store(self.bench.engine.clone()));
        let source = RestSource::new(definition, self.bench.client.clone(), Arc::new(SystemClock), notes);
        self.source = Some(Arc::new(source.expect("a source")));
    }

    /// A full run; with `stop`, the process ends after so many pages and the run goes on in another one.
    async fn run(&mut self, stop: Option<u64>) -> RunRecord {
        let record = self.run_until(stop).await;
        if record.status != Outcome::Running {
            return record;
        }
        self.restart();
        self.run_until(None).await
    }

    async fn run_until(&self, stop: Option<u64>) -> RunRecord {
        let (tell, halt) = watch::channel(Halt::No);
        let order = Order {
            deletes: vec![],
            part: Part::Full,
            guard: None,
            timeout: Duration::from_secs(60),
            ..Order::full(&self.dataset, Connection::clone(&self.connection))
        };
        let source = self.source.clone().expect("a source");
        let told = |record: &RunRecord, _: Option<u64>| {
            if stop == Some(record.pages) {
                tell.send_replace(Halt::Stop);
            }
        };
        run(&self.bench.engine, source, order, halt, &told).await.expect("the engine works").record
    }

    fn live(&self) -> BTreeSet<u64> {
        let mut found = BTreeSet::new();
        let live = Filter { deleted: false, ..Filter::ALL };
        let mut each = |_: &Meta, payload: &[u8]| {
            let record: serde_json::Value = serde_json::from_slice(payload).expect("JSON");
            found.insert(record["id"].as_str().and_then(|id| id.parse().ok()).expect("an id"));
            true
        };
        self.bench.engine.records(&self.dataset, Position::START, live, &mut each).expect("reads");
        found
    }
}

/// What came of the listings of a style.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    listings: u64,
    lying_runs: u64,
    incomplete_or_failed: u64,
    deleted_when_truthful: u64,
}

/// An API, what it held and holds, and its lies, all from one seed.
fn case(seed: u64) -> (Api, Vec<u64>, Vec<u64>, Vec<Lie>, Chance) {
    let mut chance = Chance::from_seed(seed);
    let style = STYLES[(seed % STYLES.len() as u64) as usize];
    let api = Api::new(&mut chance, style);
    let (before, after) = world(&mut chance);
    let n = after.len() as u64;
    let mut lies: Vec<Lie> = Vec::new();
    for _ in 0..200 {
        let lie = api.lie(&mut chance, n);
        // Two lies must not cover each other: each has to be seen without what the other one is about.
        let others = lies.iter().fold(api.clone(), |api, other| api.without(other.kind()));
        // A short page may cost nothing only because the list goes on by it, which no count may then stop; and a count that
        // is wrong may show only beside another.
        let short = |a: &Lie, b: &Lie| matches!((a, b), (Lie::Short(_) | Lie::TotalOnce, Lie::Total(..)));
        // And an empty page behind as many items as a wrong count says is what a list looks like that has no more.
        let ends = |a: &Lie, b: &Lie| matches!((a, b), (Lie::Empty(k), Lie::Total(_, count)) if *count <= k * api.size);
        let cover = |a: &Lie, b: &Lie| short(a, b) || ends(a, b);
        if lies.iter().any(|other| cover(other, &lie) || cover(&lie, other)) {
            continue;
        }
        let apart = lies.iter().all(|other| other.kind() != lie.kind() && api.without(lie.kind()).safe(*other, n));
        // Nor is a lie one that the API, where it tells the truth, bears out.
        if apart && others.safe(lie, n) && api.safe(lie, n) {
            lies.push(lie);
        }
        if lies.len() as u64 == 1 + seed % 2 {
            break;
        }
    }
    (api, before, after, lies, chance)
}

async fn listing(bench: Bench, seed: u64) -> (Style, Count) {
    let (api, before, after, lies, mut chance) = case(seed);
    let mut count = Count { listings: 1, ..Count::default() };
    let mut sync = bench.account(&format!("c{seed}"), &api, &before);
    let about =
        || format!("seed {seed}: {api:?}\nheld {before:?}, holds {after:?}, lies {lies:?}\n{}", api.definition());
    let first = sync.run(None).await;
    assert_eq!(sync.live(), before.iter().copied().collect(), "{first:?}\n{}", about());
    *sync.account.truth.lock().expect("lock") = after.clone();
    *sync.account.lies.lock().expect("lock") = lies.clone();
    let mut kept: BTreeSet<u64> = before.iter().copied().filter(|id| after.contains(id)).collect();
    for _ in 0..3 {
        let stop = (below(&mut chance, 3) == 0).then(|| 1 + below(&mut chance, 3));
        sync.account.stumbles.store(below(&mut chance, 3) == 0, Ordering::SeqCst);
        let record = sync.run(stop).await;
        let live = sync.live();
        assert!(kept.is_subset(&live), "{live:?} is left of {kept:?}, {record:?}\n{}", about());
        kept.extend(live.iter().filter(|id| after.contains(id)));
        count.lying_runs += 1;
        count.incomplete_or_failed += u64::from(record.status != Outcome::Complete);
    }
    sync.account.lies.lock().expect("lock").clear();
    let gone = sync.live().iter().filter(|id| !after.contains(id)).count() as u64;
    let mut last = sync.run(None).await;
    for _ in 0..2 {
        // A run that failed on a lie is gone on with first.
        if last.status != Outcome::Complete {
            last = sync.run(None).await;
        }
    }
    if api.provable() {
        assert_eq!(last.status, Outcome::Complete, "{last:?}\n{}", about());
        assert_eq!(sync.live(), after.iter().copied().collect(), "{last:?}\n{}", about());
        count.deleted_when_truthful += gone;
    }
    bench.accounts.lock().expect("lock").remove(&format!("c{seed}"));
    (api.style, count)
}

fn wanted(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_record_that_a_truthful_listing_holds_is_deleted() {
    let (from, many) = (wanted("SYNCLINE_TEST_SEED", 0), wanted("SYNCLINE_TEST_LISTINGS", 500));
    println!("{many} listings from seed {from}");
    let mut trial = Trial::of("listings");
    trial.seed(format!("{from}..{}", from + many));
    let mut counts: BTreeMap<Style, Count> = BTreeMap::new();
    let mut seed = from;
    while seed < from + many {
        let bench = Bench::new().await;
        let end = (seed + OF_ONE_ENGINE).min(from + many);
        let next = Arc::new(AtomicU64::new(seed));
        let hands: Vec<_> = (0..AT_ONCE)
            .map(|_| {
                let (bench, next) = (bench.clone(), next.clone());
                tokio::spawn(async move {
                    let mut counts = Vec::new();
                    loop {
                        let seed = next.fetch_add(1, Ordering::SeqCst);
                        if seed >= end {
                            return counts;
                        }
                        counts.push(listing(bench.clone(), seed).await);
                    }
                })
            })
            .collect();
        for hand in hands {
            for (style, one) in hand.await.expect("no listing loses a record") {
                let count = counts.entry(style).or_default();
                count.listings += one.listings;
                count.lying_runs += one.lying_runs;
                count.incomplete_or_failed += one.incomplete_or_failed;
                count.deleted_when_truthful += one.deleted_when_truthful;
            }
        }
        bench.engine.stop().await.expect("stops");
        trial.add(end - seed);
        seed = end;
    }
    for (style, count) in &counts {
        println!("{style:?}: {count:?}");
        // Never to delete would be no proof, and never to doubt no lie.
        let enough = count.listings < 20 || count.deleted_when_truthful > 0 && count.incomplete_or_failed > 0;
        assert!(enough, "{style:?}: {count:?}");
    }
}

/// The case that was met: page 2 of 3 came back empty, page 3 was never asked for, and its records were deleted, also with
/// a second look that saw the same.
#[tokio::test]
async fn records_behind_an_empty_page_stay_when_the_api_counts_on_to_them() {
    for confirm in ["none", "twice", "auto", "fetch"] {
        let api = Api {
            style: Style::Page,
            size: 2,
            start: 1,
            total: api::Form::Absent,
            last: api::Form::Plain,
            more: api::Form::Absent,
            link: false,
            short_page_ends: false,
            selects: false,
            conditional: false,
            confirm,
            fetch: confirm == "fetch",
        };
        let bench = Bench::new().await;
        let mut sync = bench.account("one", &api, &[1, 2, 3, 4, 5, 6]);
        sync.run(None).await;
        *sync.account.lies.lock().expect("lock") = vec![Lie::Empty(1)];
        for _ in 0..2 {
            let record = sync.run(None).await;
            assert_eq!((record.status, record.pages), (Outcome::Incomplete, 3), "{confirm}: {:?}", record.doubts);
            assert_eq!(sync.live(), BTreeSet::from([1, 2, 3, 4, 5, 6]), "{confirm}");
        }
        bench.engine.stop().await.expect("stops");
    }
}
