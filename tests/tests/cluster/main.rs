//! Several processes over one broker: each connection is served by one of them, whoever is asked; killing or pausing one
//! under load loses nothing, doubles nothing, and keeps the order of every record. Views are told of, and deleted, as a whole.
//! `functions`: the same of functions in TypeScript.
//!
//! `PROCESS_ROUNDS=n` sets how often something happens, `PROCESS_SEED` the seed, `PROCESS_BATCH` the events of a request,
//! `PROCESS_EVENTS` how many there must be in all.

mod functions;

use axum::Router;
use axum::extract::Path as UrlPath;
use axum::routing::get;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rdkafka::consumer::Consumer;
use reqwest::Client;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use syncline_connectors::kafka::Cluster;
use syncline_tests::broker::{self, Broker};
use syncline_tests::ledger::Trial;
use syncline_tests::topic;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

/// The id of every request: whoever answers it calls it by that.
const ASKED: &str = "asked-by-a-test";
const KEY: &str = "a-key-for-tests-of-32-characters-or-more";
/// Longest wait for what has to come.
const WAIT: Duration = Duration::from_secs(90);
/// Events that are surely read again from topics within a second.
const REBUILT: u64 = 20_000;
/// Connections, more than partitions.
const CONNECTIONS: u64 = 12;
/// Records of each connection that change all the time, at least.
const RECORDS: u64 = 3;
/// Contacts of each connection that views are made of, each with a number of its own.
const VIEWED: u64 = 20;

const SOURCE: &str = r#"
source: crm
base_url: http://127.0.0.1:9
auth: {type: none}
streams:
  - name: Contact
    key: .id
    schedule: {every: 12h, start: paused}
    list: {get: /contacts}
  - name: Deal
    key: .id
    schedule: {every: 12h}
    list: {get: /deals}
webhooks:
  verify: {scheme: shared_secret, header: X-Token, secret: "env:SECRET"}
  events: .[]
  route: .portal
  type: .kind
  dedupe: .eventId
  map:
    - {when: '$type == "whole"', stream: Contact, record: .record}
connections:
"#;

/// A source whose connections have a webhook URL and a secret each.
const PER_CONNECTION: &str = r#"
source: desk
base_url: http://127.0.0.1:9
auth: {type: none}
streams:
  - {name: Ticket, key: .id, schedule: {every: 12h, start: paused}, list: {get: /tickets}}
webhooks:
  scope: connection
  verify: {scheme: shared_secret, header: X-Token, secret: "{{ webhook_secret }}"}
  dedupe: .id
  map: [{when: "true", stream: Ticket, record: .}]
"#;

fn run(test: impl Future<Output = ()>) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(test);
}

#[test]
fn processes_share_connections_and_answer_for_each_other() {
    run(async {
        let installation = Installation::new("share", provider().await);
        let processes: Vec<Process> = (0..3).map(|n| installation.start(n)).collect();
        let asked: Vec<Asker> = processes.iter().map(Process::asker).collect();
        for connection in 0..CONNECTIONS {
            // Events reach whoever is asked, records are had from whoever is asked.
            let n = connection as usize;
            asked[n % 3].post_until_taken(connection, "a", 1).await;
            for asker in &asked {
                let rows = asker.records_once(connection, "Contact", 1).await;
                assert_eq!(rows, BTreeMap::from([("a".to_owned(), json!(1))]), "connection {connection}");
            }
            let deals = asked[(n + 1) % 3].records_once(connection, "Deal", 2).await;
            assert_eq!(deals.len(), 2, "polled by the owner");
        }
        asked[0].each_schedule_ran_once().await;
        let status = asked[0].get("/sync/status?provider_config_key=crm&syncs=*", None).await;
        assert_eq!(status["syncs"].as_array().map(Vec::len), Some(2 * CONNECTIONS as usize), "{status}");
        let refused = asked[1].get("/v1/changes?source=crm&cursor=earliest", None).await;
        assert_eq!(refused["error"]["code"], "name_a_connection");
        assert_eq!(refused["error"]["request_id"], ASKED);
        // A cursor goes on wherever it is used.
        let page = asked[0].changes(3, "earliest").await;
        asked[1].post_until_taken(3, "b", 7).await;
        asked[2].records_once(3, "Contact", 2).await;
        let more = asked[2].changes(3, page["cursor"].as_str().expect("a cursor")).await;
        let ids: Vec<&Value> = more["changes"].as_array().expect("changes").iter().map(|c| &c["after"]["id"]).collect();
        assert_eq!(ids, ["b"]);

        // What cannot be taken lies with the owner, and is seen and dropped from wherever it is asked for.
        for connection in [2, 7] {
            asked[0].send_until_taken(&json!([{"kind": "whole", "portal": connection, "record": {"n": 1}}])).await;
        }
        for asker in &asked {
            let list = asker.listed("/v1/quarantine", "entries", 2).await;
            assert_eq!(list.iter().map(|entry| &entry["code"]).collect::<Vec<_>>(), ["bad_key"; 2], "{list:?}");
        }
        let first = asked[1].get("/v1/quarantine?limit=1", None).await;
        assert_eq!(first["entries"].as_array().map(Vec::len), Some(1), "{first}");
        let cursor = first["cursor"].as_str().expect("another page");
        let second = asked[2].get(&format!("/v1/quarantine?limit=1&cursor={cursor}"), None).await;
        assert_ne!(first["entries"][0]["connection"], second["entries"][0]["connection"], "{second}");
        let (status, dropped) = asked[2].tell("/v1/quarantine/drop", &json!({"source": "crm"})).await;
        assert_eq!((status, &dropped["dropped"]), (200, &json!(2)), "{dropped}");
        asked[0].listed("/v1/quarantine", "entries", 0).await;

        // Each owner keeps the journal of its own work; whoever is asked has all of it.
        for asker in &asked {
            let lines = asker.listed("/v1/journal?kind=webhook&outcome=rejected", "lines", 2).await;
            assert!(lines.iter().all(|line| line["source"] == "crm" && line["details"]["rejected"] == 1), "{lines:?}");
            asker.listed("/v1/journal?kind=webhook&outcome=empty", "lines", 0).await;
        }

        // A connection made at one process is everywhere.
        let made = json!({"connection_id": "c99", "provider_config_key": "crm", "metadata": {"portal": 99}});
        let (status, answer) = asked[0].tell("/connections", &made).await;
        assert_eq!((status, &answer["connection_id"]), (201, &json!("c99")), "{answer}");
        asked[1].post_until_taken(99, "x", 5).await;
        for asker in &asked {
            assert_eq!(asker.records_once(99, "Contact", 1).await, BTreeMap::from([("x".to_owned(), json!(5))]));
        }
        let (status, answer) = asked[2].delete("/connections/c99?provider_config_key=crm").await.expect("an answer");
        assert_eq!((status, answer), (200, json!({"success": true})));
        asked[0].listed("/connections", "connections", CONNECTIONS as usize).await;
    });
}

#[test]
fn a_connection_made_at_one_process_has_a_webhook_url_that_every_process_serves() {
    run(async {
        let installation = Installation::new("urls", provider().await);
        std::fs::write(installation.folder.path().join("sources/desk.yaml"), PER_CONNECTION).expect("definition");
        let mut processes: Vec<Process> = (0..2).map(|n| installation.start(n)).collect();
        let asked: Vec<Asker> = processes.iter().map(Process::asker).collect();
        asked[0].owns_partitions().await;
        for id in ["d1", "d2", "d3"] {
            let (status, answer) = asked[0]
                .tell_settled("/connections", &json!({"connection_id": id, "provider_config_key": "desk"}))
                .await;
            assert_eq!(status, 201, "{answer}");
        }
        let told = asked[1].listed("/v1/webhooks?source=desk", "webhooks", 3).await;
        assert_eq!(asked[0].listed("/v1/webhooks?source=desk", "webhooks", 3).await, told, "whoever is asked");
        for (n, hook) in told.iter().enumerate() {
            let (url, secret) = (hook["url"].as_str().expect("a URL"), hook["secret"].as_str().expect("a secret"));
            let path = &url[url.find("/hooks/").expect("a path")..];
            for (asker, id) in asked.iter().zip(["a", "b"]) {
                let body = json!({"id": format!("{n}{id}")}).to_string();
                assert_eq!(asker.post_at_settled(path, secret, &body).await, 200, "one owns the shard, one does not");
                assert_eq!(asker.post_at_settled(path, "wrong", &body).await, 401);
                let guessed = format!("{}{}", &path[..path.len() - 1], if path.ends_with('A') { 'B' } else { 'A' });
                assert_eq!(asker.post_at(&guessed, secret, &body).await, 404);
            }
            let id = hook["connection"].as_str().expect("an id");
            asked[n % 2].tickets(id, 2).await;
        }
        // The URL stays when another process takes over.
        processes.remove(1).leave().await;
        let (path, secret) = (told[0]["url"].as_str().expect("a URL"), told[0]["secret"].as_str().expect("a secret"));
        let path = &path[path.find("/hooks/").expect("a path")..];
        assert_eq!(asked[0].post_at_settled(path, secret, r#"{"id": "c"}"#).await, 200);
        let id = told[0]["connection"].as_str().expect("an id");
        asked[0].tickets(id, 3).await;
        let answer = asked[0].delete_until_done(&format!("/connections/{id}?provider_config_key=desk")).await;
        assert_eq!(answer, Some(json!({"success": true})));
        assert_eq!(asked[0].post_at(path, secret, r#"{"id": "d"}"#).await, 404);
    });
}

#[test]
fn what_was_asked_for_went_away_and_comes_back_is_served_again() {
    run(async {
        let installation = Installation::new("back", provider().await);
        let stays = installation.start(0);
        let asker = stays.asker();
        for connection in 0..CONNECTIONS {
            asker.post_until_taken(connection, "a", 1).await;
            asker.records_once(connection, "Contact", 1).await;
        }
        // Readers that wait for what does not come hold nothing either.
        let waits = (0..CONNECTIONS).map(|connection| {
            let path = format!("{}/v1/changes?source=crm&connection=c{connection}&cursor=now", asker.url);
            asker.client.get(path).bearer_auth(KEY).header("accept", "text/event-stream").send()
        });
        let waiting = futures_util::future::join_all(waits).await;
        assert!(waiting.iter().all(|answer| answer.as_ref().is_ok_and(|answer| answer.status().is_success())));
        let mut comes = installation.start(1);
        comes.asker().owns_partitions().await;
        comes.leave().await;
        for connection in 0..CONNECTIONS {
            assert_eq!(
                asker.records(connection, "Contact").await.len(),
                1,
                "connection {connection}\n{}",
                stays.said()
            );
        }
        drop(waiting);
    });
}

#[test]
fn views_are_told_of_and_deleted_in_all_partitions_whoever_is_asked() {
    run(async {
        let installation = Installation::new("views", provider().await);
        let processes: Vec<Process> = (0..2).map(|n| installation.start_with_views(n)).collect();
        let asked: Vec<Asker> = processes.iter().map(Process::asker).collect();
        let contacts: Vec<(String, u64)> = (1..=VIEWED).map(|n| (format!("r{n}"), n)).collect();
        for connection in 0..CONNECTIONS {
            asked[connection as usize % 2].post_all_until_taken(connection, &contacts).await;
        }
        // In one partition of six a view cannot go on.
        asked[0].post_until_taken(3, "again", 1).await;
        let rows = |view: &str| if view == "Doubled" { CONNECTIONS * VIEWED + 1 } else { CONNECTIONS * VIEWED };
        for connection in 0..CONNECTIONS {
            let doubled = VIEWED as usize + usize::from(connection == 3);
            assert_eq!(asked[0].records_once(connection, "Doubled", doubled).await.len(), doubled);
        }
        for asker in &asked {
            let told = asker.get("/v1/views", None).await;
            let views = told["views"].as_array().unwrap_or_else(|| panic!("{told}"));
            let of = |field: &str| views.iter().map(|view| view[field].clone()).collect::<Vec<_>>();
            assert_eq!(of("name"), ["Doubled", "ByNumber", "Unique"]);
            assert_eq!(of("stopped"), [false, false, true], "as the worst of all: {told}");
            assert_eq!(views[1]["rows"], rows("ByNumber"), "groups of all partitions: {told}");
            assert_eq!(asker.get("/v1/views/ByNumber", None).await["rows"], rows("ByNumber"));
            assert_eq!(asker.get("/v1/views/ByNumber", Some(3)).await["rows"], rows("ByNumber"), "not of a connection");
            assert_eq!(asker.delete("/v1/views/ByNumber").await.expect("an answer").0, 409, "it is defined");
        }
        let mut readers: Vec<Reading> = (0..CONNECTIONS).map(|c| Reading::of(c, "Doubled")).collect();
        for reader in &mut readers {
            reader.go_on(&asked[0]).await;
        }
        assert_eq!(readers.iter().map(|reader| reader.rows.len() as u64).sum::<u64>(), rows("Doubled"));
        for mut process in processes {
            process.leave().await;
        }

        let mut processes: Vec<Process> = (0..2).map(|n| installation.start(n)).collect();
        for process in &processes {
            let asker = process.asker();
            asker.owns_partitions().await;
            let removed = asker.get("/v1/views/Doubled", None).await;
            assert_eq!(
                (&removed["removed"], &removed["records"]),
                (&json!(true), &json!(rows("Doubled"))),
                "{removed}"
            );
        }
        // The partitions of one that was killed are nobody's for a while: that is said, and nothing is deleted meanwhile.
        processes[1].kill();
        let asker = processes[0].asker();
        let (status, gap) = asker.delete("/v1/views/Doubled").await.expect("an answer");
        let code = gap["error"]["code"].as_str().unwrap_or_default();
        assert!(status == 503 && ["owner_unreachable", "partition_moving"].contains(&code), "{status} {gap}");
        assert_eq!(asker.get("/v1/views/Doubled", None).await["records"], rows("Doubled"), "all are there");

        let deleted = asker.delete_until_done("/v1/views/Doubled").await;
        assert_eq!(deleted, Some(json!({"view": "Doubled", "deleted": rows("Doubled")})));
        processes[1] = installation.start(1);
        let asker = processes[1].asker();
        assert_eq!(asker.delete_until_done("/v1/views/Doubled").await, Some(json!({"view": "Doubled", "deleted": 0})));
        assert_eq!(asker.delete_settled("/v1/views/Nothing").await.expect("an answer").0, 404);
        let left = asker.get("/v1/views", None).await;
        let left: Vec<&Value> = left["views"].as_array().expect("views").iter().map(|view| &view["name"]).collect();
        assert_eq!(left, ["ByNumber", "Unique"]);
        for reader in &mut readers {
            reader.go_on(&asker).await;
            assert!(reader.rows.is_empty(), "not deleted: {reader:?}");
        }
    });
}

#[test]
fn killed_while_it_deletes_a_removed_view_every_row_is_deleted_once() {
    run(async {
        let installation = Installation::new("retract", provider().await);
        let processes: Vec<Process> = (0..2).map(|n| installation.start_with_views(n)).collect();
        let asker = processes[0].asker();
        let contacts: Vec<(String, u64)> = (1..=VIEWED).map(|n| (format!("r{n}"), n)).collect();
        for connection in 0..CONNECTIONS {
            asker.post_all_until_taken(connection, &contacts).await;
        }
        let of = |view| (0..CONNECTIONS).map(move |connection| Reading::of(connection, view));
        let mut readers: Vec<Reading> = ["Doubled", "ByNumber"].into_iter().flat_map(of).collect();
        for reader in &mut readers {
            asker.records_once(reader.connection, reader.view, VIEWED as usize).await;
            reader.go_on(&asker).await;
        }
        for mut process in processes {
            process.leave().await;
        }

        let mut processes: Vec<Process> = (0..2).map(|n| installation.start(n)).collect();
        // The one that owns a part is killed while the other is asked, then the one that is asked.
        for (view, victim) in [("Doubled", 1), ("ByNumber", 0)] {
            for process in &processes {
                process.asker().owns_partitions().await;
            }
            let (path, asker) = (format!("/v1/views/{view}"), processes[0].asker());
            let asked = path.clone();
            let deleting = tokio::spawn(async move { asker.delete_until_done(&asked).await });
            let killed_at = processes[victim].asker().fewer_records(&path, CONNECTIONS * VIEWED).await;
            processes[victim].kill();
            let answer = deleting.await.expect("no panic");
            println!("{view}: killed with {killed_at} records left, answered {answer:?}");
            let other = processes[1 - victim].asker();
            other.delete_until_done(&path).await.expect("an answer");
            assert_eq!(other.delete_until_done(&path).await.expect("an answer")["deleted"], 0, "it is done");
            for reader in readers.iter_mut().filter(|reader| reader.view == view) {
                reader.go_on(&other).await;
                assert!(reader.rows.is_empty(), "not deleted: {reader:?}");
            }
            processes[victim] = installation.start(victim);
        }
    });
}

#[test]
fn killed_and_paused_under_load_they_lose_and_double_nothing() {
    let storm = Storm {
        rounds: number("PROCESS_ROUNDS", 6),
        seed: number("PROCESS_SEED", 1),
        batch: number("PROCESS_BATCH", 4),
        events: number("PROCESS_EVENTS", 0),
    };
    println!("{storm:?}");
    let mut trial = Trial::of("storms");
    trial.seed(storm.seed);
    run(storm.run());
    trial.add(storm.rounds);
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

/// What happens while events come in.
#[derive(Clone, Copy, Debug)]
struct Storm {
    /// How often something happens.
    rounds: u64,
    seed: u64,
    /// Events of a request.
    batch: u64,
    /// The load goes on until there were so many.
    events: u64,
}

impl Storm {
    async fn run(self) {
        let own = Broker::start();
        let cluster = Cluster { brokers: own.address().to_owned(), prefix: "storm".into(), ..Cluster::default() };
        let installation = Installation::over(cluster, provider().await);
        let mut processes: Vec<Process> = (0..3).map(|n| installation.start(n)).collect();
        let doors = Arc::new(Mutex::new(processes.iter().map(Process::door).collect::<Vec<_>>()));
        let taken = Arc::new(AtomicU64::new(0));
        let stop = CancellationToken::new();
        let loads: Vec<_> = (0..CONNECTIONS)
            .map(|connection| {
                let load = Load { connection, storm: self, doors: doors.clone(), taken: taken.clone() };
                tokio::spawn(load.run(stop.clone()))
            })
            .collect();
        let reader = Reader::start(installation.cluster.clone());
        tokio::time::sleep(Duration::from_secs(2)).await;
        self.happen(&installation, &own, &mut processes, &doors).await;
        while taken.load(Ordering::Relaxed) < self.events {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        stop.cancel();
        let mut sent = BTreeMap::new();
        for (connection, load) in loads.into_iter().enumerate() {
            sent.insert(connection as u64, load.await.expect("the load ends"));
        }
        let total: u64 = sent.values().flat_map(BTreeMap::values).sum();
        println!("{total} events answered");
        assert!(total > 200, "the load was real");
        let asker = processes[0].asker();
        for (connection, records) in &sent {
            asker.has_each_change_once(*connection, records).await;
        }
        reader.has_each_change_once(&sent);
        installation.is_rebuilt_from_topics(processes, total).await;
    }

    /// Processes are killed, stand still, leave and join; the broker is killed.
    async fn happen(
        &self,
        installation: &Installation,
        own: &Broker,
        processes: &mut [Process],
        doors: &Mutex<Vec<(String, String)>>,
    ) {
        let mut rng = StdRng::seed_from_u64(self.seed);
        let (mut kills, mut pauses, mut brokers, mut moves) = (0, 0, 0, 0);
        for round in 0..self.rounds {
            let victim = rng.random_range(0..3);
            match round % 6 {
                0 | 3 => {
                    processes[victim].kill();
                    tokio::time::sleep(Duration::from_millis(rng.random_range(200..4_000))).await;
                    processes[victim] = installation.start(victim);
                    (kills, moves) = (kills + 1, moves + 2);
                }
                1 | 4 => {
                    processes[victim].signal("STOP");
                    // Longer than a session: others take over, and it wakes up as a zombie.
                    tokio::time::sleep(Duration::from_millis(rng.random_range(3_000..4_500))).await;
                    processes[victim].signal("CONT");
                    (pauses, moves) = (pauses + 1, moves + 2);
                }
                2 => {
                    tokio::task::block_in_place(|| own.kill());
                    tokio::time::sleep(Duration::from_millis(rng.random_range(100..1_500))).await;
                    tokio::task::block_in_place(|| own.restart());
                    brokers += 1;
                }
                _ => {
                    // One leaves in good order, one more joins and leaves.
                    processes[victim].leave().await;
                    processes[victim] = installation.start(victim);
                    let mut fourth = installation.start(3);
                    tokio::time::sleep(Duration::from_millis(rng.random_range(500..3_000))).await;
                    fourth.leave().await;
                    moves += 4;
                }
            }
            *doors.lock().expect("lock") = processes.iter().map(Process::door).collect();
            println!("round {round}: {kills} kills, {pauses} zombies, {brokers} broker kills, {moves} rebalances");
            tokio::time::sleep(Duration::from_millis(rng.random_range(300..2_000))).await;
        }
    }
}

/// Changes the records of one connection over and over.
struct Load {
    connection: u64,
    storm: Storm,
    doors: Arc<Mutex<Vec<(String, String)>>>,
    taken: Arc<AtomicU64>,
}

impl Load {
    /// Each request changes some records once, and is sent until somebody answers 2xx. Says how often each was changed.
    async fn run(self, stop: CancellationToken) -> BTreeMap<String, u64> {
        let mut rng = StdRng::seed_from_u64(self.storm.seed << 8 | self.connection);
        let client = syncline_tests::serving::client();
        let mut sent: BTreeMap<String, u64> = BTreeMap::new();
        while !stop.is_cancelled() {
            let first = rng.random_range(0..RECORDS);
            let ids: Vec<String> = (first..first + self.storm.batch).map(|n| format!("r{n}")).collect();
            let events: Vec<(String, u64)> = ids
                .into_iter()
                .map(|id| (sent.get(&id).copied().unwrap_or(0) + 1, id))
                .map(|(n, id)| (id, n))
                .collect();
            let began = Instant::now();
            loop {
                let (url, hook) = {
                    let doors = self.doors.lock().expect("lock");
                    doors[rng.random_range(0..doors.len())].clone()
                };
                let asker = Asker { client: client.clone(), hook: format!("{url}{hook}"), url, patience: WAIT };
                if asker.post(self.connection, &events).await {
                    break;
                }
                assert!(began.elapsed() < WAIT, "nobody takes {}/{events:?}", self.connection);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            self.taken.fetch_add(events.len() as u64, Ordering::Relaxed);
            sent.extend(events);
        }
        sent
    }
}

/// Reads the topic of changes all the time, as one that sees committed transactions only.
struct Reader {
    /// Key → how often it was changed; every change one more than the one before.
    seen: Arc<Mutex<BTreeMap<String, u64>>>,
    wrong: Arc<Mutex<Vec<String>>>,
    stop: CancellationToken,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Reader {
    fn start(cluster: Cluster) -> Reader {
        let (seen, wrong) = (Arc::<Mutex<BTreeMap<String, u64>>>::default(), Arc::<Mutex<Vec<String>>>::default());
        let stop = CancellationToken::new();
        let (to, complain, end) = (seen.clone(), wrong.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            let consumer = topic::consumer(&cluster);
            consumer.subscribe(&[&format!("{}.crm.Contact.changes", cluster.prefix)]).expect("subscribed");
            while !end.is_cancelled() {
                // A broker that is away is an error now and then; the consumer goes on.
                let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) else { continue };
                let told = topic::told(&message);
                let value: Value = serde_json::from_str(&told.value.unwrap_or_default()).expect("JSON");
                let n = value["after"]["n"].as_u64().unwrap_or(0);
                let before = to.lock().expect("lock").insert(told.key.clone(), n).unwrap_or(0);
                if n != before + 1 {
                    complain.lock().expect("lock").push(format!("{} went from {before} to {n}", told.key));
                }
            }
        });
        Reader { seen, wrong, stop, thread: Some(thread) }
    }

    fn has_each_change_once(mut self, sent: &BTreeMap<u64, BTreeMap<String, u64>>) {
        let key = |c: u64, id: &str| format!(r#"["c{c}","{id}"]"#);
        let wanted: BTreeMap<String, u64> =
            sent.iter().flat_map(|(c, records)| records.iter().map(|(id, n)| (key(*c, id), *n))).collect();
        let began = Instant::now();
        while *self.seen.lock().expect("lock") != wanted && began.elapsed() < WAIT {
            std::thread::sleep(Duration::from_millis(50));
        }
        self.stop.cancel();
        let _ = self.thread.take().map(std::thread::JoinHandle::join);
        assert_eq!(*self.wrong.lock().expect("lock"), Vec::<String>::new(), "order in the topic");
        assert_eq!(*self.seen.lock().expect("lock"), wanted, "changes in the topic");
    }
}

/// Follows a view of one connection by cursor: no row is added or deleted twice.
#[derive(Debug)]
struct Reading {
    connection: u64,
    view: &'static str,
    cursor: String,
    /// Rows there are.
    rows: BTreeSet<String>,
}

impl Reading {
    fn of(connection: u64, view: &'static str) -> Reading {
        Reading { connection, view, cursor: "earliest".to_owned(), rows: BTreeSet::new() }
    }

    /// Reads to the present, in small pages.
    async fn go_on(&mut self, asker: &Asker) {
        loop {
            let Reading { connection, view, cursor, .. } = &self;
            let of = format!("source=crm&connection=c{connection}&stream={view}&limit=7&cursor={cursor}");
            let page = asker.get(&format!("/v1/changes?{of}"), None).await;
            for change in page["changes"].as_array().unwrap_or_else(|| panic!("{page}")) {
                let key = change["key"].as_str().expect("a key").to_owned();
                let fits = match change["action"].as_str() {
                    Some("ADDED") => self.rows.insert(key),
                    Some("DELETED") => self.rows.remove(&key),
                    _ => self.rows.contains(&key),
                };
                assert!(fits, "connection {}, {}: {change}", self.connection, self.view);
            }
            self.cursor = page["cursor"].as_str().expect("a cursor").to_owned();
            if page["up_to_date"] == true {
                return;
            }
        }
    }
}

/// A provider with two deals for each connection.
async fn provider() -> u16 {
    async fn deals(UrlPath(connection): UrlPath<u64>) -> axum::Json<Value> {
        axum::Json(json!([{"id": "1", "n": connection}, {"id": "2", "n": connection}]))
    }
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    let router = Router::new().route("/{connection}/deals", get(deals));
    tokio::spawn(async move { axum::serve(listener, router).await });
    port
}

struct Installation {
    folder: TempDir,
    cluster: Cluster,
}

impl Installation {
    fn new(name: &str, provider: u16) -> Installation {
        Installation::over(broker::cluster(name), provider)
    }

    fn over(cluster: Cluster, provider: u16) -> Installation {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("sources")).expect("folder");
        let connection =
            |c: u64| format!("  c{c}: {{metadata: {{portal: {c}}}, base_url: 'http://127.0.0.1:{provider}/{c}'}}\n");
        let source = SOURCE.to_owned() + &(0..CONNECTIONS).map(connection).collect::<String>();
        std::fs::write(folder.path().join("sources/crm.yaml"), source).expect("definition");
        Installation { folder, cluster }
    }

    /// All processes leave and their folders go; one that begins with nothing has everything, cursors included.
    async fn is_rebuilt_from_topics(&self, processes: Vec<Process>, events: u64) {
        let asker = processes[0].asker();
        let mut before = Vec::new();
        for connection in 0..CONNECTIONS {
            before.push(asker.digest(connection).await);
        }
        for mut process in processes {
            process.leave().await;
        }
        for number in 0..4 {
            let _ = std::fs::remove_dir_all(self.folder.path().join(number.to_string()).join("data"));
        }
        let process = self.start(0);
        let mut asker = process.asker();
        asker.patience += Duration::from_secs(events / REBUILT);
        for connection in 0..CONNECTIONS {
            let after = asker.digest(connection).await;
            assert_eq!(after, before[connection as usize], "connection {connection} after the rebuild");
        }
    }

    fn start(&self, number: usize) -> Process {
        Process::start(&self.set_up(number), false)
    }

    fn start_with_views(&self, number: usize) -> Process {
        Process::start(&self.set_up(number), true)
    }

    /// The folder of a process, with its settings.
    fn set_up(&self, number: usize) -> PathBuf {
        let folder = self.folder.path().join(number.to_string());
        std::fs::create_dir_all(&folder).expect("a folder");
        let mut settings = json!({
            "listen": "127.0.0.1:0", "data_dir": folder.join("data"), "sources": self.folder.path().join("sources"),
            "api_keys": [{"name": "tests", "key": "env:TEST_KEY", "role": "admin"}],
            "workers": 1, "egress": {"allow_http": true, "allow": ["127.0.0.0/8", "127.0.0.1:9"]},
            "kafka": {"brokers": self.cluster.brokers, "prefix": self.cluster.prefix, "topics": {"replication": 1},
                      "output": {"state": true}},
            "log": {"kind": "kafka", "partitions": 6, "session": "2s"},
        });
        let functions = self.folder.path().join("functions");
        if functions.is_dir() {
            settings["functions"] = json!({"path": functions});
        }
        std::fs::write(folder.join("syncline.yaml"), settings.to_string()).expect("settings");
        folder
    }
}

struct Process {
    child: Child,
    url: String,
    hook: String,
    log: PathBuf,
}

impl Process {
    fn start(folder: &Path, views: bool) -> Process {
        let log = std::fs::File::options().create(true).append(true).open(folder.join("log")).expect("a file");
        let mut child = Command::new(env!("CARGO_BIN_EXE_program"))
            .arg("serve")
            .current_dir(folder)
            .env("TEST_KEY", KEY)
            .env("SECRET", "s3cret")
            .envs(views.then_some(("VIEWS", "1")))
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("the program starts");
        let (mut url, mut hook) = (None, None);
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        while url.is_none() || hook.is_none() {
            let Some(Ok(line)) = lines.next() else { break };
            if let Some((_, address)) = line.split_once("listening on ") {
                url = Some(address.to_owned());
            }
            if line.starts_with("webhook") {
                hook = line.find("/hooks/").map(|at| line[at..].to_owned());
            }
        }
        // Its further output must go somewhere, or it would stand still.
        std::thread::spawn(move || lines.for_each(drop));
        let said = || std::fs::read_to_string(folder.join("log")).unwrap_or_default();
        let url = url.unwrap_or_else(|| panic!("it listens\n{}", said()));
        Process { child, url, hook: hook.expect("it takes webhooks"), log: folder.join("log") }
    }

    fn asker(&self) -> Asker {
        let client = syncline_tests::serving::client();
        Asker { client, url: self.url.clone(), hook: format!("{}{}", self.url, self.hook), patience: WAIT }
    }

    fn door(&self) -> (String, String) {
        (self.url.clone(), self.hook.clone())
    }

    /// SIGTERM, and its end.
    async fn leave(&mut self) {
        self.signal("TERM");
        let began = Instant::now();
        while self.child.try_wait().expect("a status").is_none() {
            assert!(began.elapsed() < WAIT, "it ends when it is asked to\n{}", self.said());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn said(&self) -> String {
        let all = std::fs::read_to_string(&self.log).unwrap_or_default();
        all.lines().rev().take(60).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([format!("-{name}"), self.child.id().to_string()]).status();
        assert!(sent.is_ok_and(|status| status.success()), "SIG{name} is sent");
    }

    fn kill(&mut self) {
        // SIGKILL, by its id.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

struct Asker {
    client: Client,
    url: String,
    hook: String,
    /// How long a partition may be between two owners.
    patience: Duration,
}

impl Asker {
    /// Whether the changes were answered with 2xx.
    async fn post(&self, connection: u64, changes: &[(String, u64)]) -> bool {
        let event = |(id, n): &(String, u64)| {
            let record = json!({"id": id, "n": n});
            json!({"kind": "whole", "portal": connection, "eventId": format!("{connection}/{id}/{n}"), "record": record})
        };
        self.send(&changes.iter().map(event).collect()).await
    }

    /// Asks again while a partition is between two owners.
    async fn tell_settled(&self, path: &str, body: &Value) -> (u16, Value) {
        let began = Instant::now();
        loop {
            let answer = self.tell(path, body).await;
            if answer.0 != 503 || began.elapsed() > WAIT {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The status of a webhook.
    async fn post_at(&self, path: &str, secret: &str, body: &str) -> u16 {
        let request = self.client.post(format!("{}{path}", self.url)).header("x-token", secret).body(body.to_owned());
        request.send().await.expect("an answer").status().as_u16()
    }

    /// The same, sent again while the shard is between two owners.
    async fn post_at_settled(&self, path: &str, secret: &str, body: &str) -> u16 {
        let began = Instant::now();
        loop {
            let status = self.post_at(path, secret, body).await;
            if status != 503 || began.elapsed() > WAIT {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until a connection of `desk` has so many tickets.
    async fn tickets(&self, connection: &str, count: usize) {
        let path = format!("/v1/records?source=desk&connection={connection}&stream=Ticket");
        self.listed(&path, "records", count).await;
    }

    async fn send_until_taken(&self, events: &Value) {
        let began = Instant::now();
        while !self.send(events).await {
            assert!(began.elapsed() < WAIT, "{events} is not taken");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn send(&self, events: &Value) -> bool {
        let request = self.client.post(&self.hook).header("x-token", "s3cret").timeout(Duration::from_secs(5));
        request.body(events.to_string()).send().await.is_ok_and(|answer| answer.status().is_success())
    }

    /// One complete run of each connection in the whole installation; what a moving partition interrupted does not count.
    async fn each_schedule_ran_once(&self) {
        for connection in 0..CONNECTIONS {
            let path = format!("/v1/runs?source=crm&connection=c{connection}&stream=Deal");
            let page = self.get(&path, None).await;
            let runs = page["runs"].as_array().unwrap_or_else(|| panic!("{page}"));
            let complete = runs.iter().filter(|run| run["outcome"] == "complete").count();
            assert_eq!(complete, 1, "connection {connection}: {page}");
        }
    }

    /// The records, and every change that led to them, as they were sent.
    async fn has_each_change_once(&self, connection: u64, records: &BTreeMap<String, u64>) {
        let wanted: BTreeMap<String, Value> = records.iter().map(|(id, n)| (id.clone(), json!(n))).collect();
        let rows = self.records_until(connection, "Contact", &wanted).await;
        assert_eq!(rows, wanted, "connection {connection}");
        let mut seen: BTreeMap<String, u64> = BTreeMap::new();
        self.each_change(connection, |change| {
            let whole = || panic!("a change of connection {connection} without its content: {change}");
            let id = change["after"]["id"].as_str().unwrap_or_else(whole).to_owned();
            let n = change["after"]["n"].as_u64().unwrap_or_else(|| panic!("no number: {change}"));
            let before = seen.insert(id.clone(), n).unwrap_or(0);
            assert_eq!(n, before + 1, "every change of {connection}/{id} once and in order: {change}");
        })
        .await;
        assert_eq!(seen, *records, "changes of connection {connection}");
    }

    /// Records, and a hash over all changes, with all their metadata and cursors.
    async fn digest(&self, connection: u64) -> (Value, u64) {
        let records = self.get("/records?model=Contact&limit=10000", Some(connection)).await;
        let mut hasher = DefaultHasher::new();
        self.each_change(connection, |change| change.to_string().hash(&mut hasher)).await;
        (records, hasher.finish())
    }

    async fn post_until_taken(&self, connection: u64, id: &str, n: u64) {
        self.post_all_until_taken(connection, &[(id.to_owned(), n)]).await;
    }

    async fn post_all_until_taken(&self, connection: u64, changes: &[(String, u64)]) {
        let began = Instant::now();
        while !self.post(connection, changes).await {
            assert!(began.elapsed() < WAIT, "{connection}/{changes:?} is not taken");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until its process owns a part.
    async fn owns_partitions(&self) {
        let began = Instant::now();
        loop {
            let metrics = self.client.get(format!("{}/metrics", self.url)).bearer_auth(KEY).send().await;
            let text = metrics.expect("an answer").text().await.expect("text");
            let owned = text.lines().find_map(|line| line.strip_prefix("syncline_partitions_owned "));
            if owned.and_then(|n| n.parse::<f64>().ok()).is_some_and(|n| n > 0.0) {
                return;
            }
            assert!(began.elapsed() < WAIT, "it owns no partition\n{text}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until a view that is being deleted has fewer records; how many.
    async fn fewer_records(&self, path: &str, than: u64) -> u64 {
        let began = Instant::now();
        loop {
            // None are shown as nothing.
            let records = self.get(path, None).await["records"].as_u64().unwrap_or(0);
            if records < than {
                return records;
            }
            assert!(began.elapsed() < WAIT, "none of {than} is deleted");
        }
    }

    /// Waits until a list has so many entries, and answers them.
    async fn listed(&self, path: &str, field: &str, count: usize) -> Vec<Value> {
        let began = Instant::now();
        loop {
            let list = self.get(path, None).await[field].as_array().cloned().unwrap_or_default();
            if list.len() == count {
                return list;
            }
            assert!(began.elapsed() < WAIT, "{path}: {} instead of {count}: {list:?}", list.len());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// One POST.
    async fn tell(&self, path: &str, body: &Value) -> (u16, Value) {
        let request = self.client.post(format!("{}{path}", self.url)).bearer_auth(KEY).json(body);
        let answer = request.send().await.expect("an answer");
        (answer.status().as_u16(), answer.json().await.unwrap_or_default())
    }

    /// One DELETE; `None` if there is no answer.
    async fn delete(&self, path: &str) -> Option<(u16, Value)> {
        let answer = self.client.delete(format!("{}{path}", self.url)).bearer_auth(KEY).send().await.ok()?;
        Some((answer.status().as_u16(), answer.json().await.ok()?))
    }

    /// Asks as often as the answer says; `None` if there is none.
    async fn delete_until_done(&self, path: &str) -> Option<Value> {
        match self.delete_settled(path).await? {
            (200, answer) => Some(answer),
            other => panic!("{path}: {other:?}"),
        }
    }

    /// Asks again while a partition is between two owners; `None` if there is no answer.
    async fn delete_settled(&self, path: &str) -> Option<(u16, Value)> {
        let began = Instant::now();
        loop {
            match self.delete(path).await? {
                (503, _) if began.elapsed() < WAIT => tokio::time::sleep(Duration::from_millis(100)).await,
                other => return Some(other),
            }
        }
    }

    /// An answer; asked again while a partition is between two owners.
    async fn get(&self, path: &str, connection: Option<u64>) -> Value {
        let began = Instant::now();
        loop {
            let request = self.client.get(format!("{}{path}", self.url)).bearer_auth(KEY);
            let mut request = request.header("x-request-id", ASKED);
            if let Some(connection) = connection {
                request =
                    request.header("provider-config-key", "crm").header("connection-id", format!("c{connection}"));
            }
            let text = match request.timeout(Duration::from_secs(10)).send().await {
                Ok(answer) => {
                    let status = answer.status().as_u16();
                    let id = answer.headers().get("x-request-id").and_then(|id| id.to_str().ok());
                    assert_eq!(id, Some(ASKED), "{path}: whoever has answered");
                    let text = answer.text().await.expect("text");
                    if status != 503 {
                        return serde_json::from_str(&text).unwrap_or_else(|_| panic!("{path}: {status} {text}"));
                    }
                    text
                }
                // With what lies behind it: refused, or no answer in time.
                Err(why) => format!("{why:?}"),
            };
            assert!(began.elapsed() < self.patience, "{path} of {connection:?}: {text}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Id → n of all records.
    async fn records(&self, connection: u64, model: &str) -> BTreeMap<String, Value> {
        let page = self.get(&format!("/records?model={model}&limit=1000"), Some(connection)).await;
        let rows = page["records"].as_array().unwrap_or_else(|| panic!("{page}"));
        rows.iter().map(|row| (row["id"].as_str().expect("an id").to_owned(), row["n"].clone())).collect()
    }

    async fn records_once(&self, connection: u64, model: &str, count: usize) -> BTreeMap<String, Value> {
        let began = Instant::now();
        loop {
            let rows = self.records(connection, model).await;
            if rows.len() >= count || began.elapsed() > WAIT {
                return rows;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn records_until(
        &self,
        connection: u64,
        model: &str,
        wanted: &BTreeMap<String, Value>,
    ) -> BTreeMap<String, Value> {
        let began = Instant::now();
        loop {
            let rows = self.records(connection, model).await;
            if rows == *wanted || began.elapsed() > WAIT {
                return rows;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn changes(&self, connection: u64, cursor: &str) -> Value {
        let path = format!("/v1/changes?source=crm&connection=c{connection}&stream=Contact&limit=500&cursor={cursor}");
        self.get(&path, None).await
    }

    /// All changes of a connection, one after the other: there may be millions.
    async fn each_change(&self, connection: u64, mut each: impl FnMut(Value)) {
        let mut cursor = "earliest".to_owned();
        loop {
            let mut page = self.changes(connection, &cursor).await;
            let Value::Array(new) = page["changes"].take() else { panic!("{page}") };
            if new.is_empty() {
                return;
            }
            new.into_iter().for_each(&mut each);
            cursor = page["cursor"].as_str().expect("a cursor").to_owned();
        }
    }
}
