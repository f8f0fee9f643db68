//! Topics out, on a real broker: what is written, read by Kafka's own tools, and that each change appears once whatever is
//! interrupted when.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use syncline::control::kafka::output::{Order, Standing, follow};
use syncline_connectors::kafka::output::{By, Format, KeyForm, Shape};
use syncline_connectors::kafka::{Cluster, murmur2};
use syncline_engine::Engine;
use syncline_engine::model::{Action, Cause, Change, Cursor, DatasetId, DatasetName, Position, Strategy, Timestamp};
use syncline_engine::pipeline::{Batch, Dataset, DatasetSpec, Filter, Options};
use syncline_engine::source::Failure;
use syncline_engine::time::{ManualClock, SystemClock};
use syncline_tests::history::{History, specs};
use syncline_tests::topic::{self, Told};
use syncline_tests::{broker, compare};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Longest wait for the topics to catch up.
const PATIENCE: Duration = Duration::from_secs(30);

/// A follower under way.
struct Following {
    standing: watch::Receiver<Standing>,
    stop: CancellationToken,
    task: JoinHandle<Result<(), Failure>>,
}

fn following(engine: &Engine, cluster: &Cluster, shape: &Shape) -> Following {
    let order = Order {
        engine: engine.clone(),
        cluster: cluster.clone(),
        shape: shape.clone(),
        name: "main".to_owned(),
        schemas: Arc::default(),
    };
    let (sender, standing) = watch::channel(Standing::default());
    let stop = CancellationToken::new();
    let task = tokio::spawn(follow(order, sender, stop.clone()));
    Following { standing, stop, task }
}

impl Following {
    /// Waits until everything committed so far is in the topics.
    async fn caught_up(&mut self, engine: &Engine) {
        let end = *engine.watermark().borrow();
        let there = self.standing.wait_for(|standing| standing.place >= end || standing.ended);
        let standing = tokio::time::timeout(PATIENCE, there).await.expect("the topics catch up").expect("a follower");
        assert!(standing.place >= end, "{standing:?} before {end:?}");
    }

    async fn stop(self) {
        self.stop.cancel();
        self.task.await.expect("no panic").expect("a clean end");
    }
}

fn engine(folder: &TempDir) -> Engine {
    let options =
        Options { data_dir: Some(folder.path().to_owned()), workers: 1, clock: Arc::new(SystemClock), announce: None };
    Engine::open(options).expect("an engine")
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

fn dataset(engine: &Engine, environment: &str, connection: &str, model: &str) -> Dataset {
    let spec = DatasetSpec { strategy: Strategy::Override, ignore_in_diff: Vec::new() };
    engine.dataset(&DatasetName::base(environment, "crm", connection, model), &spec).expect("a dataset")
}

/// One commit: payloads to be saved, ids to be deleted.
async fn put(engine: &Engine, dataset: &Dataset, saved: &[(&str, &str)], gone: &[&str]) {
    let mut page = engine.page(dataset);
    for (id, payload) in saved {
        page.save(id, Some(Timestamp::from_millis(1_789_999_999_000)), Timestamp(1), payload.as_bytes());
    }
    for id in gone {
        page.delete(id, None, Timestamp(1), None);
    }
    let batch = Batch { cause: Some(Cause::webhook(5)), pages: vec![page], ..Batch::default() };
    engine.commit(batch).await.expect("a commit");
}

fn all_changes(engine: &Engine, datasets: &[Dataset]) -> Vec<(Dataset, Change)> {
    let mut all = Vec::new();
    let start = Cursor { position: Position::START, dataset: DatasetId(0) };
    engine
        .changes(datasets, start, &mut |dataset, change| {
            all.push((dataset.clone(), change));
            true
        })
        .expect("changes");
    all
}

fn id_of(change: &Change) -> String {
    let payload = change.after.as_ref().or(change.before.as_ref()).expect("content");
    let value: Value = serde_json::from_slice(payload).expect("JSON");
    value["id"].as_str().expect("an id").to_owned()
}

fn topic_of(cluster: &Cluster, model: &str, kind: &str) -> String {
    format!("{}.crm.{model}.{kind}", cluster.prefix)
}

/// What the changes of a model must look like to a reader: key → (sequence, op) in order.
type Expected = BTreeMap<String, Vec<(u64, String)>>;

fn expected(changes: &[(Dataset, Change)], model: &str) -> Expected {
    let mut wanted = Expected::new();
    let (mut epoch, mut order) = (0, 0);
    for (dataset, change) in changes {
        if change.meta.position.epoch() != epoch {
            (epoch, order) = (change.meta.position.epoch(), 0);
        }
        order += 1;
        if &*dataset.name.model != model {
            continue;
        }
        let op = match change.meta.action {
            Action::Added => "c",
            Action::Updated => "u",
            Action::Deleted => "d",
        };
        let key = serde_json::json!([&*dataset.name.connection, id_of(change)]).to_string();
        let sequence = Position::first_of(epoch).0 + order;
        wanted.entry(key).or_default().push((sequence, op.to_owned()));
    }
    wanted
}

fn found(told: &[Told]) -> Expected {
    let mut found = Expected::new();
    for message in told {
        found
            .entry(message.key.clone())
            .or_default()
            .push((message.sequence(), message.headers["syncline-op"].clone()));
    }
    found
}

/// Every change of every model is in its topic once, in order per key.
fn assert_exact(engine: &Engine, cluster: &Cluster, datasets: &[Dataset], what: &str) -> usize {
    let changes = all_changes(engine, datasets);
    let mut models: Vec<&str> = datasets.iter().map(|d| &*d.name.model).collect();
    models.sort();
    models.dedup();
    for model in models {
        let told = topic::read(cluster, &topic_of(cluster, model, "changes"));
        assert_eq!(found(&told), expected(&changes, model), "{what}: changes of {model}");
        for message in &told {
            assert_eq!(message.partition, murmur2::partition(message.key.as_bytes(), 3), "{what}: {message:?}");
        }
    }
    changes.len()
}

/// What is visible now is a prefix of the changes that ends with an engine time.
fn assert_prefix(engine: &Engine, cluster: &Cluster, datasets: &[Dataset], what: &str) {
    let changes = all_changes(engine, datasets);
    let mut visible: Vec<u64> = Vec::new();
    for model in ["M0", "M1", "M2", "M3"] {
        visible.extend(topic::read(cluster, &topic_of(cluster, model, "changes")).iter().map(Told::sequence));
    }
    visible.sort();
    let (mut wanted, mut epoch, mut order) = (Vec::new(), 0, 0);
    for (_, change) in &changes {
        if change.meta.position.epoch() != epoch {
            if wanted.len() >= visible.len() {
                break;
            }
            (epoch, order) = (change.meta.position.epoch(), 0);
        }
        order += 1;
        wanted.push(Position::first_of(epoch).0 + order);
    }
    if !visible.is_empty() {
        assert_eq!(visible, wanted, "{what}: whole engine times, each once");
    }
}

fn history_sets(engine: &Engine) -> Vec<Dataset> {
    let sets = specs().into_iter().enumerate().map(|(n, (rule, ignore))| {
        let name = DatasetName::base("default", "crm", "conn_1", &format!("M{n}"));
        engine.dataset(&name, &compare::spec(rule, &ignore)).expect("a dataset")
    });
    sets.collect()
}

async fn play(engine: &Engine, sets: &[Dataset], history: &History, steps: std::ops::Range<u64>) {
    for n in steps {
        engine.commit(compare::batch(engine, sets, &history.step(n), Vec::new())).await.expect("a commit");
    }
}

fn seed() -> u64 {
    let seed = std::env::var("SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(rand::random);
    println!("SEED={seed}");
    seed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_format_is_read_by_kafkas_own_consumer() {
    let folder = folder();
    let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_790_000_000_123)));
    let options = Options { data_dir: Some(folder.path().to_owned()), workers: 1, clock, announce: None };
    let engine = Engine::open(options).expect("an engine");
    let contacts = dataset(&engine, "default", "conn_1", "Contact");
    put(&engine, &contacts, &[("1", r#"{"id":"1","email":"a@x"}"#)], &[]).await;
    put(&engine, &contacts, &[("1", r#"{"id":"1","email":"b@x"}"#)], &[]).await;
    put(&engine, &contacts, &[], &["1"]).await;
    let base = broker::cluster("formats");
    let epochs: Vec<u64> =
        all_changes(&engine, &[contacts]).iter().map(|(_, change)| change.meta.position.epoch()).collect();
    let mut wanted = Vec::new();
    for (format, name) in [(Format::Debezium, "d"), (Format::CloudEvents, "c"), (Format::Flat, "f")] {
        let cluster = Cluster { prefix: format!("{}-{name}", base.prefix), ..base.clone() };
        let shape = Shape { format, key: if name == "f" { KeyForm::Plain } else { KeyForm::Json }, ..Shape::default() };
        let mut following = following(&engine, &cluster, &shape);
        following.caught_up(&engine).await;
        following.stop().await;
        let told = topic::read(&cluster, &topic_of(&cluster, "Contact", "changes"));
        assert_eq!(told.len(), 3);
        assert!(told.iter().all(|m| m.timestamp == 1_790_000_000_123), "{told:?}");
        let value = told[1].value.clone().expect("a value");
        let golden = match format {
            Format::Debezium => format!(
                r#"{{"before":{{"id":"1","email":"a@x"}},"after":{{"id":"1","email":"b@x"}},"op":"u","ts_ms":1790000000123,"source":{{"version":"0.1.0","connector":"crm","name":"syncline","ts_ms":1789999999000,"snapshot":"false","db":"conn_1","table":"Contact","sequence":"[\"{e}\",\"1\"]","via":"webhook","cause":"whk_00000000000005","changed":["email"]}},"transaction":{{"id":"{e}","total_order":1,"data_collection_order":1}}}}"#,
                e = epochs[1]
            ),
            Format::CloudEvents => {
                let id = &told[1].headers["ce_id"];
                format!(
                    r#"{{"specversion":"1.0","type":"syncline.record.updated.v1","source":"/syncline/crm/conn_1/Contact","id":"{id}","time":"2026-09-21T14:13:20.123000Z","subject":"[\"conn_1\",\"1\"]","datacontenttype":"application/json","data":{{"before":{{"id":"1","email":"a@x"}},"after":{{"id":"1","email":"b@x"}},"op":"u","changed":["email"],"modified_at":"2026-09-21T14:13:19.000000Z","time":{},"order":1,"via":"webhook","cause":"whk_00000000000005","first_listing":false}}}}"#,
                    epochs[1]
                )
            }
            Format::Flat => {
                r#"{"id":"1","email":"b@x","__op":"u","__deleted":"false","__ts_ms":1790000000123}"#.to_owned()
            }
        };
        assert_eq!(value, golden);
        wanted.extend(told);
    }
    // Kafka's own consumer sees the same messages in the same partitions with the same headers.
    let include = format!("{}-.*changes", base.prefix);
    let printed = broker::tool(&[
        "org.apache.kafka.tools.consumer.ConsoleConsumer",
        "--bootstrap-server",
        &base.brokers,
        "--include",
        &include,
        "--from-beginning",
        "--isolation-level",
        "read_committed",
        "--max-messages",
        "9",
        "--timeout-ms",
        "15000",
        "--formatter-property",
        "print.key=true",
        "--formatter-property",
        "print.headers=true",
        "--formatter-property",
        "print.partition=true",
        "--formatter-property",
        "key.separator=|",
        "--formatter-property",
        "headers.separator=;",
    ]);
    let lines: Vec<&str> = printed.lines().collect();
    for message in &wanted {
        let (key, value) = (&message.key, message.value.as_deref().unwrap_or("null"));
        let head = format!("Partition:{}|", message.partition);
        let tail = format!("|{key}|{value}");
        let line = lines.iter().find(|line| line.starts_with(&head) && line.ends_with(&tail));
        let line = line.unwrap_or_else(|| panic!("{message:?} is not among\n{printed}"));
        for (name, value) in &message.headers {
            assert!(line.contains(&format!("{name}:{value}")), "header {name}:{value} in {line}");
        }
    }
    engine.stop().await.expect("a clean stop");
}

#[test]
fn keys_land_where_a_java_producer_puts_them() {
    let cluster = broker::cluster("partitioner");
    let topic = format!("{}.java", cluster.prefix);
    let tools = ["--bootstrap-server", cluster.brokers.as_str(), "--topic", topic.as_str()];
    let make = ["org.apache.kafka.tools.TopicCommand", "--create", "--partitions", "7", "--replication-factor", "1"];
    broker::tool(&[&make[..1], &tools, &make[1..]].concat());
    let keys: Vec<String> =
        (0..200).map(|n| serde_json::json!([format!("conn_{}", n % 7), format!("é{n}")]).to_string()).collect();
    let input: String = keys.iter().map(|key| format!("{key}|x\n")).collect();
    let produce = ["org.apache.kafka.tools.ConsoleProducer"];
    let reading = ["--reader-property", "parse.key=true", "--reader-property", "key.separator=|"];
    broker::tool_with(&[&produce, &tools[..], &reading].concat(), &input);
    let told = topic::read(&cluster, &topic);
    assert_eq!(told.len(), keys.len());
    for message in told {
        assert_eq!(murmur2::partition(message.key.as_bytes(), 7), message.partition, "{}", message.key);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_change_appears_once_however_often_it_is_interrupted() {
    let seed = seed();
    let mut rng = StdRng::seed_from_u64(seed);
    let (folder, cluster) = (folder(), broker::cluster("interrupted"));
    let engine = engine(&folder);
    let sets = history_sets(&engine);
    let history = History { seed, ids: 12, rows: 6 };
    let writer = {
        let (engine, sets) = (engine.clone(), sets.clone());
        tokio::spawn(async move {
            for from in (0..900).step_by(10) {
                play(&engine, &sets, &history, from..from + 10).await;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
    };
    let mut interruptions = 0;
    while !writer.is_finished() {
        let following = following(&engine, &cluster, &Shape::default());
        tokio::time::sleep(Duration::from_millis(rng.random_range(5..250))).await;
        if rng.random_bool(0.5) {
            // Forgotten while it writes; the next one takes over from it.
            following.task.abort();
        } else {
            following.stop().await;
        }
        interruptions += 1;
        if interruptions % 8 == 0 {
            assert_prefix(&engine, &cluster, &sets, &format!("SEED={seed}, interruption {interruptions}"));
        }
    }
    writer.await.expect("a history");
    let mut last = following(&engine, &cluster, &Shape::default());
    last.caught_up(&engine).await;
    last.stop().await;
    let changes = assert_exact(&engine, &cluster, &sets, &format!("SEED={seed}"));
    println!("{changes} changes, {interruptions} interruptions");
    engine.stop().await.expect("a clean stop");
}
