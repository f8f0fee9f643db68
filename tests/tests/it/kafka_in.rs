//! Topics in, on a real broker: what outside programs write is in the records once, whatever happens in between.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rdkafka::consumer::Consumer;
use rdkafka::producer::Producer;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};
use syncline::cluster::spread::Spread;
use syncline::ingest::topics::InputState;
use syncline_connectors::kafka::Cluster;
use syncline_connectors::kafka::input::StartOffset;
use syncline_tests::broker::{self, Broker};
use syncline_tests::feed::{self, Buried, Feed, Line, line, tombstone};
use syncline_tests::serving::Serving;
use syncline_tests::topic;

const WAIT: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(20);

const SHOP: &str = r#"
source: shop
streams:
  - {name: Order, key: .id}
  - {name: Item, key: .id, modified_at: .at, map: {sku: .sku, at: .at}}
  - {name: Pair, key: [.a, .b]}
connections:
  acme: {}
  zenith: {streams: [Order]}
"#;

/// The program over one cluster prefix.
struct Bench {
    dir: tempfile::TempDir,
    cluster: Cluster,
    serving: Serving,
    feed: Feed,
    /// Which part of an installation it is, if of one that has several.
    part: Option<(Spread, i32)>,
}

impl Bench {
    async fn new(test: &str, definition: &str) -> Bench {
        let cluster = broker::cluster(test);
        Self::on(cluster, definition).await
    }

    async fn on(cluster: Cluster, definition: &str) -> Bench {
        Self::part(cluster, definition, None).await
    }

    async fn part(cluster: Cluster, definition: &str, part: Option<(Spread, i32)>) -> Bench {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(dir.path().join("sources")).expect("folder");
        std::fs::write(dir.path().join("sources/shop.yaml"), definition).expect("definition");
        let feed = Feed::new(&cluster);
        let serving = start_part(dir.path(), &cluster, part).await;
        Bench { dir, cluster, serving, feed, part }
    }

    fn input(&self) -> String {
        format!("{}.in.shop", self.cluster.prefix)
    }

    async fn write(&self, lines: &[Line]) {
        self.feed.write(&self.input(), lines).await;
    }

    /// Stops the program as a server does and starts it again.
    async fn again(self) -> Bench {
        let Bench { dir, cluster, serving, feed, part } = self;
        serving.stop().await;
        let serving = start_part(dir.path(), &cluster, part).await;
        Bench { dir, cluster, serving, feed, part }
    }

    /// Live records: key → record without our metadata.
    async fn records(&self, connection: &str, stream: &str) -> BTreeMap<String, Value> {
        let mut records = BTreeMap::new();
        for mut row in self.serving.records("shop", connection, stream).await {
            let gone = !row["_nango_metadata"]["deleted_at"].is_null();
            row.as_object_mut().map(|row| row.shift_remove("_nango_metadata"));
            let id = row["id"].as_str().expect("an id").to_owned();
            // One that changes while it is read is met again, as it is then.
            records.remove(&id);
            if !gone {
                records.insert(id, row);
            }
        }
        records
    }

    /// Waits until the records are these.
    async fn become_(&self, connection: &str, stream: &str, wanted: &[(&str, Value)]) {
        let wanted: BTreeMap<String, Value> = wanted.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect();
        let began = Instant::now();
        loop {
            let records = self.records(connection, stream).await;
            if records == wanted {
                return;
            }
            assert!(began.elapsed() < WAIT, "{stream}: wanted {wanted:?}, found {records:?}; {:?}", self.states());
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn changes(&self, connection: &str, stream: &str) -> Vec<Value> {
        self.serving.changes("shop", connection, stream).await
    }

    fn states(&self) -> Vec<InputState> {
        self.serving.app().topics.inputs.as_ref().expect("inputs").states()
    }

    /// Waits until a message written now has had its effect: then so has all that was written before to its partition.
    async fn settled(&self, partitions: i32) {
        use std::sync::atomic::{AtomicU64, Ordering};
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let mut keys = Vec::new();
        for partition in 0..partitions {
            let key = format!("~{}", NEXT.fetch_add(1, Ordering::Relaxed));
            let value = message("acme", "Pair", json!({"op": "upsert", "record": {"a": "~", "b": key}}));
            self.write(&[Line { partition: Some(partition), ..line("x", value) }]).await;
            keys.push(json!(["~", key]).to_string());
        }
        let began = Instant::now();
        loop {
            let records = self.records("acme", "Pair").await;
            if keys.iter().all(|key| records.contains_key(key)) {
                return;
            }
            assert!(began.elapsed() < WAIT, "not settled: {:?}", self.states());
            tokio::time::sleep(LOOK).await;
        }
    }

    fn dead(&self) -> Vec<Buried> {
        feed::dead(&self.cluster)
    }
}

async fn start(folder: &Path, cluster: &Cluster) -> Serving {
    start_part(folder, cluster, None).await
}

async fn start_part(folder: &Path, cluster: &Cluster, part: Option<(Spread, i32)>) -> Serving {
    let kafka = json!({"kafka": {
        "brokers": cluster.brokers, "prefix": cluster.prefix, "topics": {"partitions": 3, "replication": 1},
    }});
    Serving::start_part(folder, &folder.join("sources"), kafka, part).await
}

fn message(connection: &str, stream: &str, more: Value) -> Vec<u8> {
    let mut message = json!({"v": 1, "connection": connection, "stream": stream});
    for (key, value) in more.as_object().into_iter().flatten() {
        message[key] = value.clone();
    }
    message.to_string().into_bytes()
}

fn upsert(id: &str, n: u64) -> Vec<u8> {
    message("acme", "Order", json!({"op": "upsert", "record": {"id": id, "n": n}}))
}

fn order(id: &str, n: u64) -> Value {
    json!({"id": id, "n": n})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_operation_does_what_it_says() {
    let bench = Bench::new("ops", SHOP).await;
    let key = r#"["acme"]"#;
    let one = |more: Value| line(key, message("acme", "Order", more));
    bench
        .write(&[
            one(json!({"op": "upsert", "record": {"id": 5, "total": 1.50}})),
            one(json!({"op": "upsert", "key": "K", "record": {"id": "other", "state": "new", "deep": {"a": 1}}})),
            one(json!({"op": "patch", "key": "K", "patch": {"state": "paid", "deep": {"b": 2}, "id": "x"}})),
            one(json!({"op": "upsert", "record": {"id": "gone"}})),
            one(json!({"op": "delete", "key": "gone"})),
            one(json!({"records": [
                {"op": "upsert", "record": {"id": "b1", "n": 1}}, {"op": "upsert", "record": {"n": 2}},
                {"op": "upsert", "record": {"id": "b1", "n": 3}}, {"op": "patch", "key": "b1", "patch": {"m": 4}},
                {"op": "delete", "key": 5}, {"op": "upsert", "record": {"id": "b2", "n": 5}}]})),
            line(key, message("acme", "Pair", json!({"op": "upsert", "record": {"a": 1, "b": "x"}}))),
            line(key, message("acme", "Pair", json!({"op": "patch", "key": [1, "x"], "patch": {"c": 2}}))),
            line(
                key,
                message(
                    "acme",
                    "Item",
                    json!({"op": "upsert", "modified_at": "2026-01-02T00:00:00Z",
                "record": {"id": "i", "sku": "new", "at": "2020-01-01T00:00:00Z"}}),
                ),
            ),
            line(
                key,
                message(
                    "acme",
                    "Item",
                    json!({"op": "upsert", "modified_at": 1_767_225_600_000i64,
                "record": {"id": "i", "sku": "older", "at": "2029-01-01T00:00:00Z"}}),
                ),
            ),
            line(key, message("zenith", "Order", json!({"op": "upsert", "record": {"id": "z"}}))),
        ])
        .await;
    bench
        .become_(
            "acme",
            "Order",
            &[
                ("K", json!({"id": "K", "state": "paid", "deep": {"a": 1, "b": 2}})),
                ("b1", json!({"id": "b1", "n": 3, "m": 4})),
                ("b2", json!({"id": "b2", "n": 5})),
            ],
        )
        .await;
    bench.become_("acme", "Pair", &[(r#"[1,"x"]"#, json!({"a": 1, "b": "x", "id": r#"[1,"x"]"#, "c": 2}))]).await;
    let item = json!({"sku": "new", "at": "2020-01-01T00:00:00Z", "id": "i"});
    bench.become_("acme", "Item", &[("i", item)]).await;
    bench.become_("zenith", "Order", &[("z", json!({"id": "z"}))]).await;
    // A tombstone with the key of three parts deletes.
    bench.write(&[tombstone(r#"["acme","Order","b2"]"#), tombstone(r#"["acme","Pair",[1,"x"]]"#)]).await;
    bench.become_("acme", "Pair", &[]).await;
    bench.settled(3).await;
    assert_eq!(bench.records("acme", "Order").await.keys().collect::<Vec<_>>(), ["K", "b1"]);
    // The record without a key was kept aside, alone.
    let kept = bench.serving.app().engine.marks(syncline_engine::pipeline::Keyspace::QUARANTINE, &["default", "shop"]);
    let kept = kept.expect("marks");
    assert_eq!(kept.len(), 1, "{kept:?}");
    assert!(String::from_utf8_lossy(&kept[0].1).contains("bad_key"), "{kept:?}");
    assert_eq!(bench.dead(), []);
    let schema = syncline_tests::serving::answer(bench.serving.get("/v1/schemas/input", "shop", "acme")).await;
    assert_eq!(schema["title"], "Syncline input message v1");
    let changes = bench.changes("acme", "Order").await;
    // A batch is one engine time.
    let batch: Vec<&Value> =
        changes.iter().filter(|c| ["b1", "b2"].contains(&c["key"].as_str().unwrap_or(""))).collect();
    let times: BTreeSet<u64> =
        batch.iter().filter(|c| c["action"] != "DELETED").filter_map(|c| c["time"].as_u64()).collect();
    assert_eq!((batch.len(), times.len()), (5, 1), "{batch:?}");
    assert!(changes.iter().all(|c| c["cause"].as_str().is_some_and(|c| c.starts_with("psh_"))), "{changes:?}");
    bench.serving.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeats_have_no_second_effect() {
    let mut bench = Bench::new("repeats", SHOP).await;
    let with_id = |id: &str, n: u64| {
        line("k", message("acme", "Order", json!({"op": "upsert", "record": {"id": "a", "n": n}, "id": id})))
    };
    let numbered = |producer: &str, seq: u64, n: u64| {
        line("k", upsert("b", n)).header("syncline-producer", producer).header("syncline-seq", seq)
    };
    bench.write(&[with_id("e1", 1), with_id("e2", 2), with_id("e1", 1), with_id("e1", 9)]).await;
    bench.write(&[numbered("p", 1, 1), numbered("p", 3, 2), numbered("p", 1, 1), numbered("q", 1, 3)]).await;
    bench.become_("acme", "Order", &[("a", order("a", 2)), ("b", order("b", 3))]).await;
    bench.settled(3).await;
    bench = bench.again().await;
    bench
        .write(&[with_id("e2", 7), with_id("e1", 7), numbered("p", 3, 7), numbered("p", 2, 7), numbered("q", 1, 7)])
        .await;
    // Another connection's ids are its own.
    let other = message("zenith", "Order", json!({"op": "upsert", "record": {"id": "a", "n": 1}, "id": "e1"}));
    bench.write(&[line("k", other), numbered("p", 4, 4)]).await;
    bench.become_("zenith", "Order", &[("a", order("a", 1))]).await;
    bench.become_("acme", "Order", &[("a", order("a", 2)), ("b", order("b", 4))]).await;
    bench.settled(3).await;
    assert_eq!(bench.changes("acme", "Order").await.len(), 6);
    bench.serving.stop().await;
}

/// Messages that cannot be taken, with the code of the reason.
fn poison() -> Vec<(Line, &'static str)> {
    let text = |text: &str| line("k", text);
    let with = |more: &str| line("k", format!(r#"{{"v":1,"connection":"acme","stream":"Order",{more}}}"#));
    let deep = "[".repeat(10_000_000);
    let closed = "]".repeat(10_000_000);
    let many = format!(r#""records":[{}{{"op":"delete","key":1}}]"#, r#"{"op":"delete","key":1},"#.repeat(10_000));
    let mut poison = vec![
        (text(""), "not_json"),
        (text("hello"), "not_json"),
        (text("{"), "not_json"),
        (text("{\"v\":1}}"), "not_json"),
        (text("[]"), "bad_message"),
        (text("null"), "bad_message"),
        (text("12"), "bad_message"),
        (text("\"x\""), "bad_message"),
        (line("k", vec![0xff, 0xfe, 0x00]), "not_utf8"),
        (line("k", b"{\"v\":1,\"connection\":\"\xc3\x28\"}".to_vec()), "not_utf8"),
        (line("k", vec![0u8; 4096]), "not_json"),
        (text("{}"), "bad_message"),
        (text(r#"{"v":2,"connection":"acme","stream":"Order","op":"delete","key":1}"#), "bad_version"),
        (text(r#"{"v":"1","connection":"acme","stream":"Order","op":"delete","key":1}"#), "bad_version"),
        (text(r#"{"connection":"acme","stream":"Order","op":"delete","key":1}"#), "bad_message"),
        (text(r#"{"v":1,"stream":"Order","op":"delete","key":1}"#), "bad_message"),
        (text(r#"{"v":1,"connection":"acme","op":"delete","key":1}"#), "bad_message"),
        (text(r#"{"v":1,"connection":"","stream":"Order","op":"delete","key":1}"#), "bad_message"),
        (text(r#"{"v":1,"connection":"nobody","stream":"Order","op":"delete","key":1}"#), "unknown_connection"),
        (text(r#"{"v":1,"connection":"acme","stream":"Nothing","op":"delete","key":1}"#), "unknown_stream"),
        (text(r#"{"v":1,"connection":"zenith","stream":"Item","op":"delete","key":1}"#), "unknown_stream"),
        (with(r#""op":"delete","key":1,"variant":"none""#), "unknown_variant"),
        (with(r#""op":"drop","key":1"#), "bad_message"),
        (with(r#""op":"delete""#), "bad_message"),
        (with(r#""op":"delete","key":null"#), "bad_message"),
        (with(r#""op":"delete","key":{}"#), "bad_message"),
        (with(r#""op":"upsert""#), "bad_message"),
        (with(r#""op":"upsert","record":[]"#), "bad_message"),
        (with(r#""op":"upsert","record":{},"patch":{}"#), "bad_message"),
        (with(r#""op":"patch","patch":{}"#), "bad_message"),
        (with(r#""op":"upsert","record":{},"modified_at":"soon""#), "bad_message"),
        (with(r#""op":"upsert","record":{},"modified_at":1.5"#), "bad_message"),
        (with(r#""op":"upsert","record":{},"more":1"#), "bad_message"),
        (with(r#""op":"upsert","record":{},"record":{}"#), "bad_message"),
        (with(r#""op":"upsert","record":{"id":1},"id":"""#), "bad_message"),
        (with(r#""records":{}"#), "bad_message"),
        (with(r#""records":[{"op":"upsert"}]"#), "bad_message"),
        (with(r#""records":[{"op":"upsert","record":{"id":"never"}},{"op":"delete"}]"#), "bad_message"),
        (with(&many), "too_many_records"),
        (with(r#""records":[],"listing":{"id":"l","end":true}"#), "bad_message"),
        (with(r#""records":[],"listing":"l""#), "bad_message"),
        (with(&format!(r#""op":"upsert","record":{{"a":{deep}"#)), "not_json"),
        (line("k", format!("{deep}{closed}")), "bad_message"),
        (tombstone("k"), "bad_key"),
        (tombstone(r#"["acme","Order"]"#), "bad_key"),
        (tombstone(r#"["acme","Order",null]"#), "bad_key"),
        (tombstone(r#"["nobody","Order",1]"#), "unknown_connection"),
        (line("k", upsert("never", 1)).header("syncline-seq", 1), "bad_header"),
        (line("k", upsert("never", 1)).header("syncline-producer", "p").header("syncline-seq", "one"), "bad_header"),
    ];
    poison.push((Line { key: None, ..tombstone("") }, "bad_key"));
    poison
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn poison_is_in_the_dead_letters_and_reading_goes_on() {
    let cluster = broker::cluster("poison");
    let input = format!("{}.in.shop", cluster.prefix);
    Feed::new(&cluster).topic(&input, 1).await;
    let bench = Bench::on(cluster, SHOP).await;
    let poison = poison();
    assert!(poison.len() >= 30);
    let mut wanted = BTreeMap::new();
    for (n, (bad, _)) in poison.iter().enumerate() {
        let good = upsert(&format!("g{n}"), n as u64);
        bench.write(&[bad.clone(), line("k", good)]).await;
        wanted.insert(format!("g{n}"), order(&format!("g{n}"), n as u64));
    }
    let wanted: Vec<(&str, Value)> = wanted.iter().map(|(k, v)| (k.as_str(), v.clone())).collect();
    bench.become_("acme", "Order", &wanted).await;
    let dead = bench.dead();
    assert_eq!(dead.len(), poison.len());
    for (n, (found, (bad, code))) in dead.iter().zip(&poison).enumerate() {
        let why = &found.headers["syncline-error"];
        assert_eq!((found.code(), found.place()), (*code, (0, n as i64 * 2)), "{n}: {why}");
        assert_eq!(found.headers["syncline-topic"], input);
        assert!(why.len() > code.len() + 10, "{n}: a reason for people: {why}");
        // As it came.
        assert_eq!((&found.key, &found.value), (&bad.key.clone().map(String::into_bytes), &bad.value), "{n}");
        assert!(bad.headers.iter().all(|(name, value)| found.headers.get(name) == Some(value)), "{n}");
    }
    bench.serving.stop().await;
}

/// A spread with the two connections in different parts, and their parts.
fn apart() -> (Spread, [i32; 2]) {
    let parts = |spread: Spread| ["acme", "zenith"].map(|connection| spread.of("default", "shop", connection));
    let mut spreads = (2..).map(|count| (Spread { count }, parts(Spread { count })));
    spreads.find(|(_, [acme, zenith])| acme != zenith).expect("some count does")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_several_parts_each_takes_its_own_and_one_buries() {
    let cluster = broker::cluster("parts");
    let input = format!("{}.in.shop", cluster.prefix);
    Feed::new(&cluster).topic(&input, 1).await;
    let (spread, [acme, zenith]) = apart();
    let mut one = Bench::part(cluster.clone(), SHOP, Some((spread, acme))).await;
    let mut two = Bench::part(cluster, SHOP, Some((spread, zenith))).await;
    let text = |text: &str| line("k", text);
    let mut poison = poison();
    poison.extend([
        (text(r#"{"v":1,"connection":"zenith","stream":"Order","op":"drop","key":1}"#), "bad_message"),
        (text(r#"{"v":1,"connection":"zenith","stream":"Order""#), "not_json"),
        (
            text(r#"{"v":1,"connection":"zenith","connection":"acme","stream":"Order","op":"delete","key":1}"#),
            "bad_message",
        ),
        (text(r#"{"v":1,"connection":"zen\u0069th","stream":"Order","op":"drop","key":1}"#), "bad_message"),
        (text(r#"{"v":1,"conn\u0065ction":"zenith","stream":"Item","op":"delete","key":1}"#), "unknown_stream"),
    ]);
    let bad: Vec<Line> = poison.iter().map(|(line, _)| line.clone()).collect();
    one.write(&bad).await;
    let unusual = r#"{"stream":"Order","v":1,"op":"upsert","record":{"id":"z","n":1},"connection":"zen\u0069th"}"#;
    let to_zenith = message("zenith", "Order", json!({"op": "upsert", "record": order("y", 2)}));
    one.write(&[text(unusual), line("k", upsert("a", 3)), line("k", to_zenith)]).await;
    for round in 0..2 {
        one.become_("acme", "Order", &[("a", order("a", 3))]).await;
        two.become_("zenith", "Order", &[("y", order("y", 2)), ("z", order("z", 1))]).await;
        let dead = one.dead();
        assert_eq!(dead.len(), poison.len(), "round {round}");
        for (n, (found, (_, code))) in dead.iter().zip(&poison).enumerate() {
            let why = &found.headers["syncline-error"];
            assert_eq!((found.code(), found.place()), (*code, (0, n as i64)), "{n}: {why}");
        }
        // How far each had read is stored with the other's messages behind its own.
        (one, two) = (one.again().await, two.again().await);
    }
    one.write(&[line("k", upsert("b", 4))]).await;
    one.become_("acme", "Order", &[("a", order("a", 3)), ("b", order("b", 4))]).await;
    assert_eq!((one.changes("acme", "Order").await.len(), two.changes("zenith", "Order").await.len()), (2, 2));
    one.serving.stop().await;
    two.serving.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_part_reads_no_topic_of_a_source_until_it_has_connections_of_it() {
    let cluster = broker::cluster("idle-part");
    let name = format!("{}-orders", cluster.prefix);
    let with = |connections: &str| {
        format!(
            "source: shop\nstreams:\n  - {{name: Order, key: .id, topic: {{name: {name}, connection: .tenant}}}}\n\
             connections: {{{connections}}}\n"
        )
    };
    let feed = Feed::new(&cluster);
    feed.topic(&name, 2).await;
    let (spread, [acme, zenith]) = apart();
    let two = Bench::part(cluster.clone(), &with("acme: {}"), Some((spread, zenith))).await;
    let one = Bench::part(cluster.clone(), &with("acme: {}"), Some((spread, acme))).await;
    let of = |tenant: &str, id: &str| line(id, json!({"tenant": tenant, "id": id, "n": 1}).to_string());
    let is = |tenant: &str, id: &str| json!({"tenant": tenant, "id": id, "n": 1});
    feed.write(&name, &[of("acme", "a"), of("zenith", "z")]).await;
    one.become_("acme", "Order", &[("a", is("acme", "a"))]).await;
    assert_eq!(two.states(), [], "it has no connection, and another part keeps what is nobody's");

    std::fs::write(two.dir.path().join("sources/shop.yaml"), with("acme: {}, zenith: {}")).expect("definition");
    let two = two.again().await;
    two.become_("zenith", "Order", &[("z", is("zenith", "z"))]).await;
    feed.write(&name, &[of("zenith", "y")]).await;
    two.become_("zenith", "Order", &[("y", is("zenith", "y")), ("z", is("zenith", "z"))]).await;
    one.serving.stop().await;
    two.serving.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listings_find_deletes_through_the_guard() {
    let mut bench = Bench::new("listings", SHOP).await;
    let key = r#"["acme"]"#;
    let page = |list: &str, ids: std::ops::Range<u64>, end: Option<u64>| {
        let records: Vec<Value> =
            ids.map(|n| json!({"op": "upsert", "record": {"id": format!("r{n}"), "n": n}})).collect();
        let mut listing = json!({"id": list});
        if let Some(total) = end {
            listing["end"] = json!(true);
            listing["total"] = json!(total);
        }
        line(key, message("acme", "Order", json!({"records": records, "listing": listing})))
    };
    let ids = |bench: &BTreeMap<String, Value>| bench.len();
    bench.write(&[page("one", 0..200, None), page("one", 150..400, Some(400))]).await;
    bench.settled(3).await;
    assert_eq!(ids(&bench.records("acme", "Order").await), 400);
    // A page came twice, keys count once; ten are missing.
    bench.write(&[page("two", 0..200, None), page("two", 0..200, None), page("two", 200..390, Some(390))]).await;
    bench.settled(3).await;
    assert_eq!(ids(&bench.records("acme", "Order").await), 390);
    // The total does not fit: nothing is deleted. A list given up for another neither.
    bench.write(&[page("three", 0..10, Some(11)), page("four", 0..5, None), page("five", 0..390, Some(390))]).await;
    bench.settled(3).await;
    assert_eq!(ids(&bench.records("acme", "Order").await), 390);
    // Half of it missing is held, and approval lets it happen.
    bench.write(&[page("six", 0..150, None)]).await;
    bench.settled(3).await;
    bench = bench.again().await;
    bench.write(&[page("six", 150..195, Some(195))]).await;
    bench.settled(3).await;
    assert_eq!(ids(&bench.records("acme", "Order").await), 390);
    let held = bench.serving.app().syncs.held("default").expect("held");
    assert_eq!(held.len(), 1);
    assert_eq!((held[0].hold.live, held[0].hold.missing), (390, 195));
    let deleted = bench.serving.app().syncs.approve("default", &held[0].hold.run).await.expect("approved");
    assert_eq!((deleted, ids(&bench.records("acme", "Order").await)), (195, 195));
    // Interrupted in the middle, it goes on and deletes what is missing.
    bench.write(&[page("seven", 0..100, None)]).await;
    bench.settled(3).await;
    bench = bench.again().await;
    bench.write(&[page("seven", 90..190, Some(190))]).await;
    bench.settled(3).await;
    assert_eq!(ids(&bench.records("acme", "Order").await), 190);
    bench.serving.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_json_topic_can_be_a_stream() {
    let cluster = broker::cluster("stream");
    let name = format!("{}-orders", cluster.prefix);
    let plain = format!("{}-plain", cluster.prefix);
    let definition = format!(
        "source: shop\nstreams:\n  - {{name: Order, key: .id, topic: {{name: {name}, value: 'select(.kind == \"order\") | .after', \
         connection: '$h.tenant'}}}}\n  - {{name: Pair, key: [.a, .b]}}\nconnections: {{acme: {{}}, zenith: {{}}}}\n"
    );
    let feed = Feed::new(&cluster);
    feed.topic(&name, 2).await;
    feed.topic(&plain, 1).await;
    let bench = Bench::on(cluster.clone(), &definition).await;
    let of = |tenant: &str, key: &str, value: Value| line(key, value.to_string()).header("Tenant", tenant);
    let after = |id: u64| json!({"kind": "order", "after": {"id": id, "n": 1}});
    feed.write(
        &name,
        &[
            of("acme", "1", after(1)),
            of("acme", r#"{"id":2}"#, after(2)),
            of("zenith", "3", after(3)),
            of("acme", "4", json!({"kind": "other"})),
            of("nobody", "5", after(5)),
            line("6", "{").header("tenant", "acme"),
            tombstone(r#"{"id":2}"#).header("tenant", "acme"),
            of("zenith", "3", json!({"kind": "order", "after": null})),
        ],
    )
    .await;
    bench.become_("acme", "Order", &[("1", order("1", 1))]).await;
    let began = Instant::now();
    while bench.changes("zenith", "Order").await.len() < 2 || bench.changes("acme", "Order").await.len() < 3 {
        assert!(began.elapsed() < WAIT, "{:?}", bench.changes("zenith", "Order").await);
        tokio::time::sleep(LOOK).await;
    }
    let codes: BTreeSet<String> = bench.dead().iter().map(|m| m.code().to_owned()).collect();
    assert_eq!(codes, BTreeSet::from(["not_json".to_owned(), "unknown_connection".to_owned()]));
    bench.serving.stop().await;
    // The whole value, the only connection, only what comes from now on.
    feed.write(&plain, &[line("a", r#"{"id":"before"}"#)]).await;
    let definition = format!(
        "source: shop\nstreams:\n  - {{name: Order, key: .id, topic: {{name: {plain}, start: latest}}}}\nconnections: {{acme: {{}}}}\n"
    );
    let bench = Bench::on(Cluster { prefix: format!("{}-2", cluster.prefix), ..cluster }, &definition).await;
    let began = Instant::now();
    while !bench.states().iter().any(|state| state.topic == plain && state.reading) {
        assert!(began.elapsed() < WAIT);
        tokio::time::sleep(LOOK).await;
    }
    let bench = bench.again().await;
    feed.write(&plain, &[line("a", r#"{"id":"a","n":1}"#), line("b", r#"{"id":"b"}"#), tombstone("b")]).await;
    bench.become_("acme", "Order", &[("a", order("a", 1))]).await;
    bench.serving.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn aborted_transactions_are_never_seen() {
    let bench = Bench::new("aborted", SHOP).await;
    let input = bench.input();
    let writer = Feed::transactional(&bench.cluster, &format!("{}-writer", bench.cluster.prefix));
    for round in 0..6u64 {
        writer.producer().begin_transaction().expect("begun");
        let id = if round & 1 == 0 { "kept" } else { "aborted" };
        let lines: Vec<Line> = (0..20).map(|n| line(&n.to_string(), upsert(&format!("{id}{n}"), round))).collect();
        writer.write(&input, &lines).await;
        match round & 1 {
            0 => writer.producer().commit_transaction(WAIT).expect("committed"),
            _ => writer.producer().abort_transaction(WAIT).expect("aborted"),
        }
    }
    bench.settled(3).await;
    let records = bench.records("acme", "Order").await;
    assert_eq!(records.len(), 20);
    assert!(records.iter().all(|(id, record)| id.starts_with("kept") && record["n"] == 4), "{records:?}");
    bench.serving.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_made_again_stops_its_input_and_no_other() {
    let cluster = broker::cluster("again");
    let name = format!("{}-theirs", cluster.prefix);
    let definition = SHOP.replace("key: .id}\n  - {name: Item", &format!("key: .id}}\n  - {{name: Theirs, key: .id, topic: {{name: {name}, connection: '\"acme\"'}}}}\n  - {{name: Item"));
    let feed = Feed::new(&cluster);
    feed.topic(&name, 1).await;
    let mut bench = Bench::on(cluster, &definition).await;
    let lines: Vec<Line> = (0..10).map(|n| line("k", format!(r#"{{"id":"t{n}"}}"#))).collect();
    feed.write(&name, &lines).await;
    let began = Instant::now();
    while bench.records("acme", "Theirs").await.len() < 10 {
        assert!(began.elapsed() < WAIT, "{:?}", bench.states());
        tokio::time::sleep(LOOK).await;
    }
    feed.remove(&name).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    feed.topic(&name, 1).await;
    // More than before: by offsets alone it would look as if nothing had happened.
    let lines: Vec<Line> = (0..30).map(|n| line("k", format!(r#"{{"id":"u{n}"}}"#))).collect();
    feed.write(&name, &lines).await;
    for round in 0..2 {
        let began = Instant::now();
        loop {
            let states = bench.states();
            let state = states.iter().find(|state| state.topic == name);
            let code = state.and_then(|state| state.stopped.as_ref()).map(|(code, _)| code.as_str());
            if code == Some("topic_recreated") {
                break;
            }
            assert!(began.elapsed() < WAIT, "round {round}: {states:?}");
            tokio::time::sleep(LOOK).await;
        }
        let answer = syncline_tests::serving::answer(bench.serving.get("/v1/inputs", "shop", "acme")).await;
        let stopped = answer["inputs"].as_array().expect("a list").iter().filter(|input| input["stopped"] == true);
        assert_eq!(stopped.map(|input| input["error"]["code"].clone()).collect::<Vec<_>>(), ["topic_recreated"]);
        bench.write(&[line("k", upsert("other", round))]).await;
        bench.become_("acme", "Order", &[("other", order("other", round))]).await;
        bench = bench.again().await;
    }
    // Somebody decides: everything in the new one.
    let began = Instant::now();
    while bench
        .serving
        .app()
        .topics
        .inputs
        .as_ref()
        .is_none_or(|inputs| inputs.restart("default", &name, StartOffset::Earliest) == 0)
    {
        assert!(began.elapsed() < WAIT, "{:?}", bench.states());
        tokio::time::sleep(LOOK).await;
    }
    while bench.records("acme", "Theirs").await.len() < 40 {
        assert!(began.elapsed() < WAIT, "{:?}", bench.states());
        tokio::time::sleep(LOOK).await;
    }
    bench.serving.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offsets_that_are_gone_stop_the_input() {
    let cluster = broker::cluster("gone");
    let name = format!("{}-theirs", cluster.prefix);
    let definition = format!(
        "source: shop\nstreams: [{{name: Order, key: .id, topic: {{name: {name}}}}}]\nconnections: {{acme: {{}}}}\n"
    );
    let feed = Feed::new(&cluster);
    feed.topic(&name, 1).await;
    feed.write(&name, &[line("a", r#"{"id":"a","n":1}"#)]).await;
    let bench = Bench::on(cluster.clone(), &definition).await;
    bench.become_("acme", "Order", &[("a", order("a", 1))]).await;
    let Bench { dir, cluster, serving, feed: _, part } = bench;
    serving.stop().await;
    let lines: Vec<Line> = (0..5).map(|n| line("b", format!(r#"{{"id":"b{n}"}}"#))).collect();
    feed.write(&name, &lines).await;
    // What was not read yet is dropped, as retention does.
    let mut upto = rdkafka::TopicPartitionList::new();
    upto.add_partition_offset(&name, 0, rdkafka::Offset::Offset(4)).expect("a place");
    let admin = cluster.admin().expect("an admin");
    admin.delete_records(&upto, &rdkafka::admin::AdminOptions::new()).await.expect("dropped");
    let bench = Bench { serving: start(dir.path(), &cluster).await, dir, cluster, feed, part };
    let began = Instant::now();
    loop {
        let states = bench.states();
        if let Some((code, why)) = states.first().and_then(|state| state.stopped.clone()) {
            assert_eq!(code, "offset_out_of_range");
            assert!(why.contains("partition 0 holds offsets 4 to 6, 1 is next"), "{why}");
            break;
        }
        assert!(began.elapsed() < WAIT, "{states:?}");
        tokio::time::sleep(LOOK).await;
    }
    assert_eq!(bench.records("acme", "Order").await.len(), 1, "nothing is skipped");
    bench.serving.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_partitions_are_picked_up() {
    let bench = Bench::new("wider", SHOP).await;
    bench.settled(3).await;
    let admin = bench.cluster.admin().expect("an admin");
    let input = bench.input();
    let more = rdkafka::admin::NewPartitions::new(&input, 5);
    admin.create_partitions(&[more], &rdkafka::admin::AdminOptions::new()).await.expect("wider");
    let began = Instant::now();
    let partitions = || {
        let metadata = topic::consumer(&bench.cluster).fetch_metadata(Some(&input), WAIT).expect("metadata");
        metadata.topics().first().map_or(0, |t| t.partitions().len())
    };
    while partitions() < 5 {
        assert!(began.elapsed() < WAIT);
    }
    // A producer that has not seen the topic before.
    let bench = Bench { feed: Feed::new(&bench.cluster), ..bench };
    bench.settled(5).await;
    let bench = bench.again().await;
    bench.settled(5).await;
    bench.serving.stop().await;
}

/// What the records must be after these writes: the last of each key.
#[derive(Default)]
struct Oracle {
    records: BTreeMap<String, Value>,
    changes: usize,
    next: u64,
    /// Messages that may come again: by id or number they are known.
    known: Vec<Line>,
}

impl Oracle {
    /// A message with its effects on us.
    fn draw(&mut self, rng: &mut ChaCha8Rng) -> Line {
        if rng.random_bool(0.1) && !self.known.is_empty() {
            return self.known[rng.random_range(0..self.known.len())].clone();
        }
        let mut entries = Vec::new();
        let batch = rng.random_bool(0.2);
        let id = rng.random_range(0..300u32);
        for _ in 0..if batch { rng.random_range(1..20) } else { 1 } {
            self.next += 1;
            let id = format!("r{id}-{}", if batch { rng.random_range(0..9) } else { 0 });
            if rng.random_bool(0.2) {
                self.changes += usize::from(self.records.remove(&id).is_some());
                entries.push(json!({"op": "delete", "key": id}));
            } else if rng.random_bool(0.2) && self.records.contains_key(&id) {
                let record = self.records.get_mut(&id).expect("there");
                record["p"] = json!(self.next);
                self.changes += 1;
                entries.push(json!({"op": "patch", "key": id, "patch": {"p": self.next}}));
            } else {
                self.changes += 1;
                let record = json!({"id": id, "n": self.next, "pad": "x".repeat(rng.random_range(0..300))});
                self.records.insert(id, record.clone());
                entries.push(json!({"op": "upsert", "record": record}));
            }
        }
        let mut body = if batch { json!({"records": entries}) } else { entries.remove(0) };
        let how = rng.random_range(0..10);
        if how < 3 {
            body["id"] = json!(format!("m{}", self.next));
        }
        let mut line = line(&format!("[\"acme\",{id}]"), message("acme", "Order", body));
        if (3..6).contains(&how) {
            line = line.header("syncline-producer", "oracle").header("syncline-seq", self.next);
        }
        if how < 6 {
            self.known.push(line.clone());
        }
        line
    }
}

async fn equals(bench: &Bench, oracle: &Oracle) {
    let began = Instant::now();
    loop {
        let records = bench.records("acme", "Order").await;
        if records == oracle.records {
            break;
        }
        if began.elapsed() > WAIT {
            let differ: Vec<_> = oracle.records.iter().filter(|(k, v)| records.get(*k) != Some(v)).take(3).collect();
            panic!("{} of {}; {differ:?}; {:?}", records.len(), oracle.records.len(), bench.states());
        }
        tokio::time::sleep(LOOK).await;
    }
    assert_eq!(bench.changes("acme", "Order").await.len(), oracle.changes, "every change once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopped_under_load_every_change_is_made_once() {
    let seed = seed();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let (mut oracle, mut bench) = (Oracle::default(), Bench::new("load", SHOP).await);
    for _ in 0..5 {
        let lines: Vec<Line> = (0..2_000).map(|_| oracle.draw(&mut rng)).collect();
        bench.write(&lines).await;
        tokio::time::sleep(Duration::from_millis(rng.random_range(0..60))).await;
        bench = bench.again().await;
    }
    equals(&bench, &oracle).await;
    bench.serving.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_dies_is_waited_for() {
    let seed = seed();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let broker = Broker::start();
    let cluster = Cluster { brokers: broker.address().to_owned(), prefix: "own".into(), ..broker::cluster("own") };
    let (mut oracle, bench) = (Oracle::default(), Bench::on(cluster, SHOP).await);
    for _ in 0..2 {
        let lines: Vec<Line> = (0..2_000).map(|_| oracle.draw(&mut rng)).collect();
        bench.write(&lines).await;
        broker.kill();
        tokio::time::sleep(Duration::from_millis(300)).await;
        broker.restart();
    }
    let lines: Vec<Line> = (0..500).map(|_| oracle.draw(&mut rng)).collect();
    bench.write(&lines).await;
    equals(&bench, &oracle).await;
    bench.serving.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_under_load_every_change_is_made_once() {
    let seed = seed();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    // Its settings are those of the program that is killed.
    let Bench { dir, cluster, serving, feed, part } = Bench::new("killed", SHOP).await;
    serving.stop().await;
    let (mut oracle, input) = (Oracle::default(), format!("{}.in.shop", cluster.prefix));
    for cycle in 0..4 {
        let mut program = std::process::Command::new(env!("CARGO_BIN_EXE_program"))
            .arg("serve")
            .current_dir(dir.path())
            .env("TEST_KEY", syncline_tests::serving::KEY)
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .expect("the program starts");
        let until = Instant::now() + Duration::from_millis(rng.random_range(300..900));
        while Instant::now() < until {
            let lines: Vec<Line> = (0..200).map(|_| oracle.draw(&mut rng)).collect();
            feed.write(&input, &lines).await;
        }
        assert!(program.try_wait().expect("a process").is_none(), "cycle {cycle}: it ran until it was killed");
        // SIGKILL, by its id.
        program.kill().expect("killed");
        program.wait().expect("gone");
    }
    let serving = start(dir.path(), &cluster).await;
    let bench = Bench { dir, cluster, serving, feed, part };
    equals(&bench, &oracle).await;
    println!("{} writes, {} changes", oracle.next, oracle.changes);
    bench.serving.stop().await;
}

/// Prints what a record costs; run by hand: `cargo test --test it_kafka_in throughput -- --ignored --nocapture`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn throughput() {
    const COUNT: u64 = 200_000;
    let Bench { dir, cluster, serving, feed, part: _ } = Bench::new("throughput", SHOP).await;
    serving.stop().await;
    let input = format!("{}.in.shop", cluster.prefix);
    let pad = "x".repeat(380);
    for part in 0..COUNT / 10_000 {
        let numbers = part * 10_000..(part + 1) * 10_000;
        let record = |n: u64| json!({"id": format!("order-{n}"), "n": n, "pad": pad});
        let value = |n: u64| message("acme", "Order", json!({"op": "upsert", "record": record(n)}));
        let lines: Vec<Line> = numbers.map(|n| line(&format!("[\"acme\",\"Order\",\"{n}\"]"), value(n))).collect();
        feed.write(&input, &lines).await;
    }
    drop(feed);
    let cpu = || {
        let stat = std::fs::read_to_string("/proc/self/stat").expect("stat");
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |at: usize| fields.get(at).and_then(|t| t.parse::<f64>().ok()).unwrap_or(0.0);
        (ticks(11) + ticks(12)) * 10_000.0
    };
    let before = cpu();
    let began = Instant::now();
    let serving = start(dir.path(), &cluster).await;
    let engine = serving.app().engine.clone();
    let name = syncline_engine::model::DatasetName::base("default", "shop", "acme", "Order");
    while engine.find(&name).map_or(0, |dataset| engine.live(&dataset)) < COUNT {
        assert!(began.elapsed() < Duration::from_secs(120));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let (wall, spent) = (began.elapsed().as_secs_f64(), cpu() - before);
    println!("{COUNT} messages in {wall:.2} s: {:.0}/s, {:.2} us CPU each", COUNT as f64 / wall, spent / COUNT as f64);
    latency(&serving, &Feed::new(&cluster), &input).await;
    serving.stop().await;
}

/// From the call that writes a message to its visibility, at 200 a second.
async fn latency(serving: &Serving, feed: &Feed, input: &str) {
    let engine = &serving.app().engine;
    let mut took = Vec::new();
    for n in 0..600 {
        let mut watermark = engine.watermark();
        watermark.borrow_and_update();
        let began = Instant::now();
        let lines = [line("k", upsert("latency", n))];
        let (_, seen) = tokio::join!(feed.write(input, &lines), watermark.changed());
        seen.expect("a commit");
        took.push(began.elapsed());
        tokio::time::sleep(Duration::from_millis(4)).await;
    }
    took.sort();
    println!("written to visible: p50 {:?}, p99 {:?}", took[took.len() / 2], took[took.len() * 99 / 100]);
}

fn seed() -> u64 {
    let given = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(rand::random);
    println!("SEED={seed}");
    seed
}
