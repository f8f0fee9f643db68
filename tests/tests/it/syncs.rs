//! Syncs and their scheduler against the fake provider, on a clock turned by hand: when runs come, what stops them, what
//! outlives the program.

use axum::Router;
use axum::extract::RawQuery;
use axum::http::StatusCode;
use axum::routing::get;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use syncline::app::fields::AGAIN;
use syncline::app::{App, Running};
use syncline::config::Settings;
use syncline::ingest::poll::{RunError, RunKind, RunOptions, Status, SyncKey, SyncStatus, TriggerOptions};
use syncline_connectors::egress::Egress;
use syncline_connectors::http::{Client, ClientOptions};
use syncline_engine::model::Timestamp;
use syncline_engine::time::{Clock, ManualClock};
use syncline_provider::{ClientCourier, DefinitionOptions, Edit, Fake, FakeOptions, Notify, definition};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

/// Longest wait for something that happens at once; only a failing test waits so long.
const PATIENCE: Duration = Duration::from_secs(30);

const INTERVAL: Duration = Duration::from_secs(60);

/// A provider, a folder with a definition for it, and the clock of both sides.
struct Place {
    dir: TempDir,
    fake: Fake,
    clock: Arc<ManualClock>,
}

impl Place {
    async fn new(records: u64) -> Place {
        let clock = Arc::new(ManualClock::new(Timestamp::parse("2026-09-21T12:00:00Z").expect("a time")));
        let mut options = FakeOptions::new(7, clock.clone());
        options.records = records;
        let client = Client::new(ClientOptions::default(), clock.clone()).expect("a client");
        let fake = Fake::start(options, Arc::new(ClientCourier(client))).await.expect("a provider");
        let dir = tempfile::tempdir().expect("a folder");
        let (name, token) = fake.accounts().remove(0);
        let mut wanted = DefinitionOptions::new(&fake.url());
        wanted.connections = vec![(name, "file:account.token".into())];
        wanted.every = "60s".into();
        let text = definition(&wanted).replace("every: 60s", "every: 60s, jitter: 1ms");
        std::fs::write(dir.path().join("fake.yaml"), text).expect("written");
        std::fs::write(dir.path().join("account.token"), token).expect("written");
        Place { dir, fake, clock }
    }

    async fn open(&self) -> Arc<App> {
        let settings = Settings {
            data_dir: self.dir.path().join("data"),
            sources: vec![self.file("fake.yaml")],
            allow_http: true,
            egress: Egress::loopback(),
            workers: 1,
            ..Settings::default()
        };
        App::open(settings, self.clock.clone()).await.expect("opens")
    }

    fn file(&self, name: &str) -> String {
        Path::new(self.dir.path()).join(name).display().to_string()
    }
}

fn key(app: &App) -> SyncKey {
    app.syncs.keys().remove(0)
}

fn status(app: &App) -> SyncStatus {
    app.syncs.status(&[key(app)]).remove(0)
}

/// Waits until `seen` holds.
async fn until(app: &App, what: &str, seen: impl Fn(&SyncStatus) -> bool) -> SyncStatus {
    let waiting = async {
        loop {
            let now = status(app);
            if seen(&now) {
                return now;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("never {what}: {:?}", status(app)))
}

/// Waits for the end of a run that began not before `from`.
async fn ran(app: &App, from: Timestamp) -> SyncStatus {
    let ended =
        |s: &SyncStatus| s.status != Status::Running && s.last.as_ref().is_some_and(|last| last.started_at >= from);
    until(app, "a run ended", ended).await
}

async fn end(app: Arc<App>, running: Running) {
    drop(app);
    running.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_come_at_creation_and_then_on_the_grid() {
    let place = Place::new(20).await;
    let app = place.open().await;
    let born = place.clock.now();
    let running = app.start();
    let first = ran(&app, born).await;
    assert_eq!(
        (first.kind, first.status, first.live, first.counts().added),
        (RunKind::Initial, Status::Success, 20, 20)
    );
    let next = first.next_at.expect("a tick");
    assert!(next.since(born) >= INTERVAL && next.since(born) < INTERVAL + Duration::from_millis(2), "{next}");

    // Nothing happens before the tick …
    let before = place.fake.figures().requests;
    place.clock.advance(Duration::from_secs(59));
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(place.fake.figures().requests, before);
    // … and at the tick, what changed is read.
    place.fake.edit(0, Edit::Update(3), Notify::Never);
    let tick = place.clock.now();
    place.clock.advance(Duration::from_secs(2));
    let second = ran(&app, tick).await;
    assert_eq!((second.kind, second.counts().updated), (RunKind::Incremental, 1));

    // A day later the complete listing is due.
    place.clock.advance(Duration::from_secs(24 * 3_600));
    let third = ran(&app, place.clock.now().minus(Duration::from_secs(1))).await;
    assert_eq!(third.kind, RunKind::Full);
    end(app, running).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_sync_has_no_ticks_until_it_is_started() {
    let place = Place::new(3).await;
    let app = place.open().await;
    let running = app.start();
    ran(&app, place.clock.now()).await;
    app.syncs.pause(&key(&app)).await.expect("pauses");
    assert_eq!((status(&app).status, status(&app).next_at), (Status::Paused, None));
    let before = place.fake.figures().requests;
    place.clock.advance(10 * INTERVAL);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(place.fake.figures().requests, before);
    // Ten ticks were missed; starting makes up for them once.
    app.syncs.start(&key(&app)).await.expect("starts");
    let caught_up = ran(&app, place.clock.now()).await;
    assert_eq!(caught_up.status, Status::Success);
    assert!(caught_up.next_at.is_some_and(|at| at > place.clock.now()));
    end(app, running).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_run_at_a_time_and_a_trigger_during_a_run_is_no_error() {
    let place = Place::new(5).await;
    let app = place.open().await;
    let held = place.fake.hold_page(0, 1);
    let key = key(&app);
    app.syncs.trigger(&key, TriggerOptions::default()).expect("begins");
    held.rendered.await.expect("the page waits");
    assert_eq!(status(&app).status, Status::Running);
    app.syncs.trigger(&key, TriggerOptions::default()).expect("already running is fine");
    let again = app.syncs.run(&key, RunOptions::default(), CancellationToken::new(), &|_, _| {}).await;
    assert!(matches!(again, Err(RunError::Busy(_))), "{again:?}");
    let _ = held.release.send(());
    let done = ran(&app, place.clock.now()).await;
    assert_eq!(done.counts().added, 5);
    assert_eq!(app.syncs.status(&[key]).len(), 1);
    app.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn pausing_cancels_the_run_in_progress() {
    let place = Place::new(5).await;
    let app = place.open().await;
    let held = place.fake.hold_page(0, 1);
    app.syncs.trigger(&key(&app), TriggerOptions::default()).expect("begins");
    held.rendered.await.expect("the page waits");
    app.syncs.pause(&key(&app)).await.expect("pauses");
    until(&app, "paused", |s| s.status == Status::Paused).await;
    assert_eq!(status(&app).live, 0);
    // A trigger by hand runs even a paused sync.
    let _ = held.release.send(());
    app.syncs.trigger(&key(&app), TriggerOptions::default()).expect("begins");
    until(&app, "read", |s| s.live == 5 && s.status == Status::Paused).await;
    app.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_lists_everything_again_and_can_drop_the_records_first() {
    let place = Place::new(8).await;
    let app = place.open().await;
    let key = key(&app);
    app.syncs.trigger(&key, TriggerOptions::default()).expect("begins");
    ran(&app, place.clock.now()).await;
    place.clock.advance(Duration::from_secs(1));
    let kept = TriggerOptions { reset: true, ..TriggerOptions::default() };
    app.syncs.trigger(&key, kept).expect("begins");
    let again = ran(&app, place.clock.now()).await;
    assert_eq!((again.counts().added, again.counts().unchanged), (0, 8));
    place.clock.advance(Duration::from_secs(1));
    app.syncs.trigger(&key, TriggerOptions { empty_cache: true, ..kept }).expect("begins");
    let afresh = ran(&app, place.clock.now()).await;
    assert_eq!((afresh.counts().added, afresh.live), (8, 8));
    app.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_several_triggers_ask_for_during_a_run_is_all_done_after_it() {
    let place = Place::new(8).await;
    let app = place.open().await;
    let key = key(&app);
    app.syncs.trigger(&key, TriggerOptions::default()).expect("begins");
    ran(&app, place.clock.now()).await;
    place.clock.advance(Duration::from_secs(1));
    let reset = TriggerOptions { reset: true, ..TriggerOptions::default() };
    let full = TriggerOptions { full: true, ..TriggerOptions::default() };
    let held = place.fake.hold_page(0, 1);
    app.syncs.trigger(&key, full).expect("begins");
    held.rendered.await.expect("the page waits");
    app.syncs.trigger(&key, TriggerOptions { empty_cache: true, ..reset }).expect("follows");
    app.syncs.trigger(&key, reset).expect("follows");
    app.syncs.trigger(&key, full).expect("follows");
    let _ = held.release.send(());
    let afresh = ran(&app, place.clock.now()).await;
    assert_eq!((afresh.counts().added, afresh.counts().unchanged), (8, 0), "the records were dropped first");
    app.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_map_lists_everything_again_and_tells_what_differs() {
    let place = Place::new(8).await;
    let app = place.open().await;
    let runs = async |app: &App| {
        place.clock.advance(Duration::from_secs(1));
        app.syncs.trigger(&key(app), TriggerOptions::default()).expect("begins");
        let last = ran(app, place.clock.now()).await.last.expect("a run");
        (last.kind, last.counts.added, last.counts.updated)
    };
    assert_eq!(runs(&app).await, (RunKind::Initial, 8, 0));
    assert_eq!(runs(&app).await, (RunKind::Incremental, 0, 0));
    app.stop().await.expect("a clean stop");
    drop(app);

    let file = place.file("fake.yaml");
    let text = std::fs::read_to_string(&file).expect("read");
    let mapped =
        text.replace("    key: .id\n    modified_at", "    key: .id\n    map: {id: .id, who: .name}\n    modified_at");
    assert_ne!(mapped, text);
    std::fs::write(&file, mapped).expect("written");
    let app = place.open().await;
    assert_eq!(runs(&app).await, (RunKind::Full, 0, 8));
    assert_eq!(runs(&app).await, (RunKind::Incremental, 0, 0));
    app.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn frequency_pause_and_variants_outlive_the_program() {
    let place = Place::new(3).await;
    let app = place.open().await;
    let base = key(&app);
    let id = status(&app).id;
    assert_eq!(app.syncs.set_frequency(&base, Some("every half hour")).await.expect("sets"), "every 30m");
    assert!(app.syncs.set_frequency(&base, Some("every 3s")).await.is_err());
    let variant = app.syncs.add_variant(&base, "eu").await.expect("adds");
    assert!(app.syncs.add_variant(&base, "eu").await.is_err() && app.syncs.add_variant(&base, "base").await.is_err());
    app.syncs.pause(&variant).await.expect("pauses");
    app.stop().await.expect("a clean stop");
    drop(app);

    let app = place.open().await;
    let found = app.syncs.status(&[base.clone(), variant.clone()]);
    let seen: Vec<_> = found.iter().map(|s| (s.frequency.as_str(), s.status)).collect();
    assert_eq!(seen, [("every 30m", Status::Stopped), ("every 1m", Status::Paused)]);
    assert_eq!(found[0].id, id);
    assert_eq!(app.syncs.set_frequency(&base, None).await.expect("back to the file"), "every 1m");
    app.syncs.remove_variant(&variant).await.expect("removes");
    assert!(app.syncs.remove_variant(&base).await.is_err());
    app.stop().await.expect("a clean stop");
    drop(app);
    assert_eq!(place.open().await.syncs.keys(), [base]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_interrupted_by_a_stop_goes_on_at_the_next_start() {
    // Three pages; the stop comes while the third is on its way.
    let place = Place::new(250).await;
    let app = place.open().await;
    let running = app.start();
    let held = place.fake.hold_page(0, 250);
    held.rendered.await.expect("the third page waits");
    let run = status(&app);
    assert_eq!((run.status, run.live), (Status::Running, 200));
    let before = place.fake.figures().requests;
    end(app, running).await;
    drop(held.release);

    let app = place.open().await;
    // An interrupted run is no result.
    assert!(status(&app).last.is_none());
    let running = app.start();
    let done = ran(&app, Timestamp(0)).await;
    assert_eq!((done.kind, done.status, done.live), (RunKind::Initial, Status::Success, 250));
    assert_eq!(done.counts().added, 250, "the run kept its counts");
    // Only what was missing was asked for: the third page, and what is deleted.
    assert_eq!(place.fake.figures().requests - before, 2);
    end(app, running).await;
}

/// A provider that tells at `/me` of which hub an account is, after so many refusals, and lists by hub only.
async fn hub(refusals: u64) -> (String, Arc<AtomicU64>) {
    let asked = Arc::new(AtomicU64::new(0));
    let counted = asked.clone();
    let me = move || async move {
        match counted.fetch_add(1, Ordering::SeqCst) < refusals {
            true => (StatusCode::SERVICE_UNAVAILABLE, "{}"),
            false => (StatusCode::OK, r#"{"hub": 7}"#),
        }
    };
    let things = async |RawQuery(query): RawQuery| match query.as_deref() {
        Some("hub=7") => (StatusCode::OK, r#"[{"id": 1}]"#),
        _ => (StatusCode::NOT_FOUND, "{}"),
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let router = Router::new().route("/me", get(me)).route("/things", get(things));
    tokio::spawn(async move { axum::serve(listener, router).await });
    (url, asked)
}

/// A place whose source asks by what `/me` tells.
async fn place_with_fields(url: &str) -> Place {
    let place = Place::new(0).await;
    let text = format!(
        r#"
source: hub
base_url: {url}
auth: {{type: none, test: {{get: /me}}, connection_fields: {{hub: .hub}}}}
streams:
  - name: Thing
    key: .id
    schedule: {{every: 60s, jitter: 1ms}}
    list: {{get: /things, params: {{hub: "{{{{ connection.fields.hub }}}}"}}}}
connections: {{only: {{}}}}
"#
    );
    std::fs::write(place.file("fake.yaml"), text).expect("written");
    place
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_provider_tells_of_an_account_is_there_before_its_first_run() {
    let (url, asked) = hub(0).await;
    let place = place_with_fields(&url).await;
    for start in 0..2 {
        let app = place.open().await;
        let running = app.start();
        let done = ran(&app, place.clock.now()).await;
        assert_eq!((done.status, done.live), (Status::Success, 1), "start {start}");
        assert_eq!(asked.load(Ordering::SeqCst), 1, "what is stored is not asked for again");
        end(app, running).await;
        place.clock.advance(2 * INTERVAL);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_provider_does_not_tell_at_once_is_asked_for_again() {
    let (url, asked) = hub(1).await;
    let place = place_with_fields(&url).await;
    let app = place.open().await;
    let running = app.start();
    let first = ran(&app, place.clock.now()).await;
    assert_eq!((first.status, asked.load(Ordering::SeqCst)), (Status::Error, 1), "the run begins all the same");
    place.clock.advance(AGAIN);
    let known = |_: &SyncStatus| {
        let account = app.connections.get("default", "hub", "only").expect("a connection");
        account.connection.fields.get("hub") == Some(&7.into())
    };
    until(&app, "told", known).await;
    place.clock.advance(2 * INTERVAL);
    until(&app, "a run that knows the hub", |s| s.status == Status::Success && s.live == 1).await;
    assert_eq!(asked.load(Ordering::SeqCst), 2);
    end(app, running).await;
}
