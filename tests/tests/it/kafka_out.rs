//! Topics out, on a real broker: what is written, read by Kafka's own tools, and that each change appears once whatever is
//! interrupted when.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use syncline::sinks::topics::{ExportOrder, Standing, follow};
use syncline_connectors::kafka::output::envelope::OutgoingMessage;
use syncline_connectors::kafka::output::places::{self, ProducerPlace};
use syncline_connectors::kafka::output::writer::{BATCH_BYTES, TopicWriter, WriterTrouble};
use syncline_connectors::kafka::output::{By, ChangeFormat, Shape, TopicKeyForm};
use syncline_connectors::kafka::{Cluster, topics};
use syncline_connectors::murmur2;
use syncline_engine::Engine;
use syncline_engine::model::{Action, Cause, Change, Cursor, DatasetId, DatasetName, Position, Strategy, Timestamp};
use syncline_engine::pipeline::{Batch, Dataset, DatasetSpec, Filter, Options};
use syncline_engine::source::Failure;
use syncline_engine::time::{Clock, SystemClock};
use syncline_engine::views::{Definition, Row};
use syncline_tests::history::{History, specs};
use syncline_tests::serving::{Serving, answer};
use syncline_tests::topic::{self, Told};
use syncline_tests::{broker, compare};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Longest wait for the topics to catch up.
const PATIENCE: Duration = Duration::from_secs(90);

/// A follower under way.
struct Following {
    standing: watch::Receiver<Standing>,
    stop: CancellationToken,
    task: JoinHandle<Result<(), Failure>>,
}

fn order(engine: &Engine, cluster: &Cluster, shape: &Shape) -> ExportOrder {
    ExportOrder {
        engine: engine.clone(),
        cluster: cluster.clone(),
        shape: shape.clone(),
        name: "main".to_owned(),
        granted: false,
        schemas: Arc::default(),
    }
}

fn following(engine: &Engine, cluster: &Cluster, shape: &Shape) -> Following {
    following_as(order(engine, cluster, shape))
}

fn following_as(order: ExportOrder) -> Following {
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
        let waited = tokio::time::timeout(PATIENCE, there).await.map(|ended| drop(ended.expect("a follower")));
        let standing = self.standing.borrow();
        assert!(waited.is_ok() && standing.place >= end, "{standing:?} before {end:?}");
    }

    async fn stop(self) {
        self.stop.cancel();
        self.task.await.expect("no panic").expect("a clean end");
    }
}

fn engine(folder: &TempDir) -> Engine {
    let options = Options {
        data_dir: Some(folder.path().to_owned()),
        workers: 1,
        clock: Arc::new(SystemClock),
        ..Options::default()
    };
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
        topic::settle(cluster, &topic_of(cluster, model, "changes"));
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

/// A clock that shows one time for ever, and on which waits end all the same: a follower may have to try again.
struct AlwaysNow(Timestamp);

#[async_trait::async_trait]
impl Clock for AlwaysNow {
    fn now(&self) -> Timestamp {
        self.0
    }

    async fn sleep_until(&self, at: Timestamp) {
        tokio::time::sleep(at.since(self.0)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_format_is_read_by_kafkas_own_consumer() {
    let folder = folder();
    let clock = Arc::new(AlwaysNow(Timestamp::from_millis(1_790_000_000_123)));
    let options = Options { data_dir: Some(folder.path().to_owned()), workers: 1, clock, ..Options::default() };
    let engine = Engine::open(options).expect("an engine");
    let contacts = dataset(&engine, "default", "conn_1", "Contact");
    put(&engine, &contacts, &[("1", r#"{"id":"1","email":"a@x"}"#)], &[]).await;
    put(&engine, &contacts, &[("1", r#"{"id":"1","email":"b@x"}"#)], &[]).await;
    put(&engine, &contacts, &[], &["1"]).await;
    let base = broker::cluster("formats");
    let epochs: Vec<u64> =
        all_changes(&engine, &[contacts]).iter().map(|(_, change)| change.meta.position.epoch()).collect();
    let mut wanted = Vec::new();
    for (format, name) in [(ChangeFormat::Debezium, "d"), (ChangeFormat::CloudEvents, "c"), (ChangeFormat::Flat, "f")] {
        let cluster = Cluster { prefix: format!("{}-{name}", base.prefix), ..base.clone() };
        let shape = Shape {
            format,
            key: if name == "f" { TopicKeyForm::Plain } else { TopicKeyForm::Json },
            ..Shape::default()
        };
        let mut following = following(&engine, &cluster, &shape);
        following.caught_up(&engine).await;
        following.stop().await;
        topic::settle(&cluster, &topic_of(&cluster, "Contact", "changes"));
        let told = topic::read(&cluster, &topic_of(&cluster, "Contact", "changes"));
        assert_eq!(told.len(), 3);
        assert!(told.iter().all(|m| m.timestamp == 1_790_000_000_123), "{told:?}");
        let value = told[1].value.clone().expect("a value");
        let golden = match format {
            ChangeFormat::Debezium => format!(
                r#"{{"before":{{"id":"1","email":"a@x"}},"after":{{"id":"1","email":"b@x"}},"op":"u","ts_ms":1790000000123,"source":{{"version":"0.1.0","connector":"crm","name":"syncline","ts_ms":1789999999000,"snapshot":"false","db":"conn_1","table":"Contact","sequence":"[\"{e}\",\"1\"]","via":"webhook","cause":"whk_00000000000005","changed":["email"]}},"transaction":{{"id":"{e}","total_order":1,"data_collection_order":1}}}}"#,
                e = epochs[1]
            ),
            ChangeFormat::CloudEvents => {
                let (id, at) = (&told[1].headers["ce_id"], &told[1].headers["ce_time"]);
                format!(
                    r#"{{"specversion":"1.0","type":"syncline.record.updated.v1","source":"/syncline/crm/conn_1/Contact","id":"{id}","time":"{at}","subject":"[\"conn_1\",\"1\"]","datacontenttype":"application/json","data":{{"before":{{"id":"1","email":"a@x"}},"after":{{"id":"1","email":"b@x"}},"op":"u","changed":["email"],"modified_at":"2026-09-21T14:13:19.000000Z","time":{},"order":1,"via":"webhook","cause":"whk_00000000000005","first_listing":false}}}}"#,
                    epochs[1]
                )
            }
            ChangeFormat::Flat => {
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
        "--property",
        "print.key=true",
        "--property",
        "print.headers=true",
        "--property",
        "print.partition=true",
        "--property",
        "key.separator=|",
        "--property",
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

#[derive(Row, Clone)]
#[row(crate = syncline_engine)]
struct Person {
    region: String,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_has_topics_like_any_model() {
    let (cluster, folder) = (broker::cluster("views"), folder());
    let views = Definition::new(|v| {
        let people = v.model::<Person>("crm", "Person");
        v.publish("Regions", &people.group_by(|_, p| p.region.clone()).count());
    });
    let options = Options {
        data_dir: Some(folder.path().to_owned()),
        workers: 2,
        clock: Arc::new(SystemClock),
        views: Some(views),
        ..Options::default()
    };
    let engine = Engine::open(options).expect("an engine");
    let people = dataset(&engine, "default", "c1", "Person");
    let shape = Shape { state: true, ..Shape::default() };
    let mut following = following(&engine, &cluster, &shape);
    let person = |id: &str, region: &str| format!(r#"{{"id":"{id}","region":"{region}"}}"#);
    put(&engine, &people, &[("1", &person("1", "north")), ("2", &person("2", "north"))], &[]).await;
    put(&engine, &people, &[("1", &person("1", "south"))], &["2"]).await;
    following.caught_up(&engine).await;
    following.stop().await;
    let told = |kind| {
        let all = topic::read(&cluster, &topic_of(&cluster, "Regions", kind));
        all.into_iter().map(|told| (told.key, told.value)).collect::<Vec<_>>()
    };
    let changes: Vec<(String, Value)> = told("changes")
        .into_iter()
        .map(|(key, value)| (key, serde_json::from_str(&value.expect("a value")).expect("JSON")))
        .collect();
    let said: Vec<_> = changes.iter().map(|(key, c)| (key.as_str(), &c["op"], &c["before"], &c["after"])).collect();
    let (none, two) = (&Value::Null, &serde_json::json!({"id": "north", "value": 2}));
    let one = &serde_json::json!({"id": "south", "value": 1});
    let op = |op: &str| Value::from(op);
    let north = r#"["c1","north"]"#;
    let wanted = [(north, &op("c"), none, two), (north, &op("d"), two, none)];
    assert_eq!(said.iter().filter(|(key, ..)| *key == north).copied().collect::<Vec<_>>(), wanted);
    assert!(said.contains(&(r#"["c1","south"]"#, &op("c"), none, one)), "{said:?}");
    let state = told("state");
    assert_eq!(state.iter().rev().find(|(key, _)| key == north), Some(&(north.to_owned(), None)), "{state:?}");
    engine.stop().await.expect("a clean end");
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
    let reading = ["--property", "parse.key=true", "--property", "key.separator=|"];
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
            for from in (0..600).step_by(10) {
                play(&engine, &sets, &history, from..from + 10).await;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        })
    };
    let mut interruptions = 0;
    while !writer.is_finished() {
        let following = following(&engine, &cluster, &Shape::default());
        tokio::time::sleep(Duration::from_millis(rng.random_range(50..700))).await;
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_younger_of_two_takes_over_and_nothing_is_doubled() {
    let (folder, cluster) = (folder(), broker::cluster("fenced"));
    let engine = engine(&folder);
    let sets = history_sets(&engine);
    let history = History { seed: 5, ids: 12, rows: 6 };
    play(&engine, &sets, &history, 0..50).await;
    let mut older = following(&engine, &cluster, &Shape::default());
    older.caught_up(&engine).await;
    let mut younger = following(&engine, &cluster, &Shape::default());
    younger.caught_up(&engine).await;
    // It hears of it when there is something to write.
    for from in 50..200 {
        play(&engine, &sets, &history, from..from + 1).await;
    }
    let ended = tokio::time::timeout(PATIENCE, older.task).await.expect("it ends").expect("no panic");
    assert_eq!(ended.expect_err("fenced").code, "output_fenced");
    assert!(older.standing.borrow().ended);
    younger.caught_up(&engine).await;
    younger.stop().await;
    assert_exact(&engine, &cluster, &sets, "two at once");
    engine.stop().await.expect("a clean stop");
}

/// A producer that takes over the name of another one. Blocks, as all of it does.
struct Namesake(BaseProducer);

impl Namesake {
    fn of(name: &str, cluster: &Cluster) -> Self {
        let mut config = cluster.client();
        config.set("transactional.id", format!("{}/{name}/out", cluster.prefix));
        let producer: BaseProducer = config.create().expect("a producer");
        producer.init_transactions(PATIENCE).expect("the name");
        Namesake(producer)
    }

    /// Begins a transaction with a word in a partition of the places. Whether the name is still its own.
    fn begin(&self, cluster: &Cluster, partition: i32) -> bool {
        self.0.begin_transaction().expect("a transaction");
        let topic = places::topic(cluster);
        let word = BaseRecord::to(&topic).partition(partition).key("nobody").payload("{}");
        self.0.send(word).expect("room");
        self.0.flush(PATIENCE).expect("an answer");
        self.0.client().fatal_error().is_none()
    }

    /// Takes back what it began. Whether the name is still its own.
    fn abort(&self) -> bool {
        self.0.abort_transaction(PATIENCE).is_ok()
    }
}

/// A follower that is fenced between taking the name and its first word, by somebody who never says anything: a zombie's
/// last attempt, or a broker that gives a producer up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_is_fenced_before_it_has_written_tries_again() {
    let (folder, cluster) = (folder(), broker::cluster("early"));
    let engine = engine(&folder);
    let sets = history_sets(&engine);
    play(&engine, &sets, &History { seed: 6, ids: 12, rows: 6 }, 0..20).await;
    topics::ensure(&cluster, &[places::wanted(&cluster)]).await.expect("the topic of places");
    // The name of a follower says which partition its places are in.
    let (name, partition) = ("5", 5);
    let before = Namesake::of(name, &cluster);
    // What is open in the places holds a follower up once it has the name.
    let open = Namesake::of("other", &cluster);
    assert!(open.begin(&cluster, partition));
    let mut one = following_as(ExportOrder { name: name.to_owned(), ..order(&engine, &cluster, &Shape::default()) });
    let began = Instant::now();
    while before.begin(&cluster, partition) && before.abort() {
        assert!(began.elapsed() < PATIENCE, "the name is not taken");
    }
    let younger = Namesake::of(name, &cluster);
    assert_eq!(one.standing.borrow().place, Position::START);
    assert!(open.abort());
    one.caught_up(&engine).await;
    assert!(!younger.begin(&cluster, partition), "nobody was fenced");
    one.stop().await;
    assert_exact(&engine, &cluster, &sets, "fenced early");
    engine.stop().await.expect("a clean stop");
}

/// Two owners of a partition, of which one has not heard yet that it no longer is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_that_were_granted_the_name_whoever_stays_goes_on() {
    let (folder, cluster) = (folder(), broker::cluster("granted"));
    let engine = engine(&folder);
    let sets = history_sets(&engine);
    let history = History { seed: 7, ids: 12, rows: 6 };
    for stays in [0, 1] {
        let from = stays as u64 * 200;
        let granted = || {
            let order = order(&engine, &cluster, &Shape::default());
            following_as(ExportOrder { name: "5".to_owned(), granted: true, ..order })
        };
        let mut two = vec![granted()];
        play(&engine, &sets, &history, from..from + 50).await;
        two[0].caught_up(&engine).await;
        two.push(granted());
        two[1].caught_up(&engine).await;
        // The name changes hands.
        for at in from + 50..from + 150 {
            play(&engine, &sets, &history, at..at + 1).await;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let (mut left, leaves) = (two.remove(stays), two.remove(0));
        leaves.stop().await;
        play(&engine, &sets, &history, from + 150..from + 200).await;
        left.caught_up(&engine).await;
        left.stop().await;
    }
    assert_exact(&engine, &cluster, &sets, "two owners");
    engine.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_dies_and_comes_back_loses_and_doubles_nothing() {
    let own = broker::Broker::start();
    let cluster = Cluster { brokers: own.address().to_owned(), ..broker::cluster("killed") };
    let folder = folder();
    let engine = engine(&folder);
    let sets = history_sets(&engine);
    let seed = seed();
    let history = History { seed, ids: 12, rows: 6 };
    let mut following = following(&engine, &cluster, &Shape::default());
    for round in 0..3 {
        let from = round * 100;
        play(&engine, &sets, &history, from..from + 50).await;
        if round == 1 {
            following.caught_up(&engine).await;
        }
        own.kill();
        // Commits do not wait for topics.
        play(&engine, &sets, &history, from + 50..from + 100).await;
        own.restart();
    }
    following.caught_up(&engine).await;
    following.stop().await;
    assert_exact(&engine, &cluster, &sets, &format!("SEED={seed}"));
    engine.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn state_is_the_records_and_a_connection_has_one_partition() {
    let (folder, cluster) = (folder(), broker::cluster("state"));
    let engine = engine(&folder);
    let sets = history_sets(&engine);
    play(&engine, &sets, &History { seed: 11, ids: 30, rows: 6 }, 0..200).await;
    let shape = Shape { changes: false, state: true, by: By::Connection, ..Shape::default() };
    let mut following = following(&engine, &cluster, &shape);
    following.caught_up(&engine).await;
    following.stop().await;
    for set in &sets {
        let told = topic::read(&cluster, &topic_of(&cluster, &set.name.model, "state"));
        let mut latest = BTreeMap::new();
        for message in &told {
            assert_eq!(message.partition, murmur2::partition(br#"["conn_1"]"#, 3));
            latest.insert(message.key.clone(), message.value.clone());
        }
        latest.retain(|_, value| value.is_some());
        let mut records = BTreeMap::new();
        let live = Filter { deleted: false, ..Filter::ALL };
        let collected = engine.records(set, Position::START, live, &mut |_, payload| {
            let value: Value = serde_json::from_slice(payload).expect("JSON");
            let key = serde_json::json!(["conn_1", value["id"]]).to_string();
            records.insert(key, Some(String::from_utf8(payload.to_vec()).expect("text")));
            true
        });
        collected.expect("records");
        assert_eq!(latest, records, "state of {}", set.name);
    }
    let described = broker::tool(&[
        "org.apache.kafka.tools.TopicCommand",
        "--bootstrap-server",
        &cluster.brokers,
        "--describe",
        "--topic",
        &topic_of(&cluster, "M0", "state"),
    ]);
    assert!(described.contains("cleanup.policy=compact") && described.contains("delete.retention.ms=604800000"));
    engine.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_large_goes_to_the_dead_letters_or_is_claimed() {
    let (folder, base) = (folder(), broker::cluster("large"));
    let engine = engine(&folder);
    let docs = dataset(&engine, "default", "conn_1", "Doc");
    let text = "x".repeat(1_200_000);
    let payload = format!(r#"{{"id":"2","text":"{text}"}}"#);
    put(&engine, &docs, &[("1", r#"{"id":"1"}"#), ("2", &payload), ("3", r#"{"id":"3"}"#)], &[]).await;
    for claim_check in [false, true] {
        let cluster = Cluster { prefix: format!("{}-{claim_check}", base.prefix), ..base.clone() };
        let mut following = following(&engine, &cluster, &Shape { claim_check, ..Shape::default() });
        following.caught_up(&engine).await;
        following.stop().await;
        let told = topic::read(&cluster, &topic_of(&cluster, "Doc", "changes"));
        let letters = topic::read(&cluster, &format!("{}.dlq", cluster.prefix));
        if claim_check {
            assert_eq!((told.len(), letters.len()), (3, 0));
            let claimed = told.iter().find(|m| m.headers.contains_key("syncline-claim-check")).expect("a claim");
            assert_eq!(claimed.key, r#"["conn_1","2"]"#);
        } else {
            assert_eq!((told.len(), letters.len()), (2, 1));
            assert!(letters[0].headers["syncline-error"].starts_with("message_too_large"), "{letters:?}");
            assert_eq!(letters[0].key, r#"["conn_1","2"]"#);
        }
    }
    engine.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_lowered_meanwhile_is_met_and_kept() {
    let (folder, cluster) = (folder(), broker::cluster("lowered"));
    let engine = engine(&folder);
    let docs = dataset(&engine, "default", "conn_1", "Doc");
    put(&engine, &docs, &[("1", r#"{"id":"1"}"#)], &[]).await;
    let mut following = following(&engine, &cluster, &Shape::default());
    following.caught_up(&engine).await;
    broker::tool(&[
        "kafka.admin.ConfigCommand",
        "--bootstrap-server",
        &cluster.brokers,
        "--alter",
        "--entity-type",
        "topics",
        "--entity-name",
        &topic_of(&cluster, "Doc", "changes"),
        "--add-config",
        "max.message.bytes=20000",
    ]);
    // Hard to compress, so that the broker sees its size.
    let mut rng = StdRng::seed_from_u64(3);
    let text: String = (0..100_000).map(|_| char::from(rng.random_range(b'0'..=b'z'))).filter(|c| *c != '\\').collect();
    let payload = format!(r#"{{"id":"2","text":"{text}"}}"#);
    put(&engine, &docs, &[("2", &payload), ("3", r#"{"id":"3"}"#)], &[]).await;
    following.caught_up(&engine).await;
    following.stop().await;
    assert_eq!(topic::read(&cluster, &topic_of(&cluster, "Doc", "changes")).len(), 2);
    assert_eq!(topic::read(&cluster, &format!("{}.dlq", cluster.prefix)).len(), 1);
    engine.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_of_another_data_folder_are_left_alone() {
    let (one, other, cluster) = (folder(), folder(), broker::cluster("foreign"));
    let engine_one = engine(&one);
    let set = dataset(&engine_one, "default", "conn_1", "Contact");
    put(&engine_one, &set, &[("1", r#"{"id":"1"}"#)], &[]).await;
    let mut first = following(&engine_one, &cluster, &Shape::default());
    first.caught_up(&engine_one).await;
    let engine_other = engine(&other);
    let set_other = dataset(&engine_other, "default", "conn_1", "Contact");
    put(&engine_other, &set_other, &[("9", r#"{"id":"9"}"#)], &[]).await;
    let second = following(&engine_other, &cluster, &Shape::default());
    let ended = tokio::time::timeout(PATIENCE, second.task).await.expect("it ends").expect("no panic");
    assert_eq!(ended.expect_err("another log").code, "topic_foreign");
    // The first was not disturbed.
    put(&engine_one, &set, &[("2", r#"{"id":"2"}"#)], &[]).await;
    first.caught_up(&engine_one).await;
    first.stop().await;
    assert_eq!(topic::read(&cluster, &topic_of(&cluster, "Contact", "changes")).len(), 2);
    engine_one.stop().await.expect("a clean stop");
    engine_other.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_backup_is_not_written_over_newer_topics() {
    let (data, copy, cluster) = (folder(), folder(), broker::cluster("ahead"));
    let first = engine(&data);
    let set = dataset(&first, "default", "conn_1", "Contact");
    put(&first, &set, &[("1", r#"{"id":"1"}"#)], &[]).await;
    first.stop().await.expect("a clean stop");
    drop(first);
    copy_folder(data.path(), copy.path());
    let later = engine(&data);
    for n in 0..10 {
        put(&later, &set, &[("1", &format!(r#"{{"id":"1","n":{n}}}"#))], &[]).await;
    }
    let mut following_later = following(&later, &cluster, &Shape::default());
    following_later.caught_up(&later).await;
    following_later.stop().await;
    later.stop().await.expect("a clean stop");
    let restored = engine(&copy);
    let second = following(&restored, &cluster, &Shape::default());
    let ended = tokio::time::timeout(PATIENCE, second.task).await.expect("it ends").expect("no panic");
    assert_eq!(ended.expect_err("older").code, "topic_ahead");
    restored.stop().await.expect("a clean stop");
}

fn copy_folder(from: &std::path::Path, to: &std::path::Path) {
    for entry in std::fs::read_dir(from).expect("a folder").flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            std::fs::create_dir_all(&target).expect("a folder");
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), &target).expect("a copy");
        }
    }
}

/// Not a test of time: prints what `cargo test -- --ignored figures --nocapture` measures on this machine.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "prints figures"]
async fn figures() {
    let (folder, cluster) = (folder(), broker::cluster("figures"));
    let engine = engine(&folder);
    let set = dataset(&engine, "default", "conn_1", "Contact");
    let filler = "x".repeat(400);
    const RECORDS: usize = 200_000;
    for from in (0..RECORDS).step_by(10_000) {
        let rows: Vec<(String, String)> = (from..from + 10_000)
            .map(|n| (n.to_string(), format!(r#"{{"id":"{n}","name":"record {n}","filler":"{filler}"}}"#)))
            .collect();
        let rows: Vec<(&str, &str)> = rows.iter().map(|(id, payload)| (id.as_str(), payload.as_str())).collect();
        put(&engine, &set, &rows, &[]).await;
    }
    let (began, cpu) = (Instant::now(), cpu());
    let mut following = following(&engine, &cluster, &Shape::default());
    following.caught_up(&engine).await;
    let (took, cpu) = (began.elapsed(), cpu_since(cpu));
    println!(
        "{RECORDS} changes in {took:?}: {:.0}/s, {:.2} µs CPU of this process per change",
        RECORDS as f64 / took.as_secs_f64(),
        cpu.as_secs_f64() * 1e6 / RECORDS as f64
    );
    latencies(&engine, &set, &cluster).await;
    following.stop().await;
    engine.stop().await.expect("a clean stop");
}

/// From the begin of a commit to a `read_committed` consumer, one small change at a time.
async fn latencies(engine: &Engine, set: &Dataset, cluster: &Cluster) {
    use rdkafka::consumer::Consumer;
    let consumer = topic::consumer(cluster);
    let mut list = rdkafka::topic_partition_list::TopicPartitionList::new();
    for partition in 0..3 {
        let offset = rdkafka::Offset::End;
        list.add_partition_offset(&topic_of(cluster, "Contact", "changes"), partition, offset).expect("a partition");
    }
    consumer.assign(&list).expect("an assignment");
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        loop {
            match consumer.poll(Duration::from_secs(20)) {
                Some(Ok(_)) if sender.send(Instant::now()).is_ok() => {}
                Some(Err(_)) => {}
                _ => return,
            }
        }
    });
    tokio::time::sleep(Duration::from_millis(500)).await;
    let (mut commits, mut whole) = (Vec::new(), Vec::new());
    for n in 0..400 {
        let began = Instant::now();
        put(engine, set, &[("1", &format!(r#"{{"id":"1","n":{n}}}"#))], &[]).await;
        let committed = Instant::now();
        let seen = receiver.recv_timeout(Duration::from_secs(20)).expect("the change");
        commits.push(seen.saturating_duration_since(committed));
        whole.push(seen.duration_since(began));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for (what, mut spans) in [("engine commit → consumer", commits), ("begin of commit → consumer", whole)] {
        spans.sort();
        println!("{what}: p50 {:?}, p99 {:?}", spans[spans.len() / 2], spans[spans.len() * 99 / 100]);
    }
}

/// CPU time of this process in clock ticks of a hundredth of a second.
fn cpu() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("statistics");
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    fields[11].parse::<u64>().expect("ticks") + fields[12].parse::<u64>().expect("ticks")
}

fn cpu_since(before: u64) -> Duration {
    Duration::from_millis((cpu() - before) * 10)
}

/// One message for the mock cluster.
fn plain(n: usize) -> OutgoingMessage {
    let value = Some(n.to_string().into_bytes());
    let key = format!("k{}", n % 5).into_bytes();
    OutgoingMessage { topic: "t".into(), partition: None, key: key.into(), value, headers: Vec::new(), timestamp: 1 }
}

/// The mock cluster shows aborted transactions too, so what it proves is that whatever a commit confirmed is there, that nothing
/// hangs and nothing panics. The rest is proven on the real broker above.
#[test]
fn injected_errors_lose_nothing() {
    use rdkafka::types::RDKafkaApiKey as Api;
    use rdkafka::types::RDKafkaRespErr::*;
    let seed = seed();
    let mut rng = StdRng::seed_from_u64(seed);
    let mock = rdkafka::mocking::MockCluster::new(1).expect("a mock cluster");
    let cluster = Cluster { brokers: mock.bootstrap_servers(), prefix: "mock".into(), ..Cluster::default() };
    mock.create_topic(&places::topic(&cluster), 1, 1).expect("a topic");
    mock.create_topic("t", 3, 1).expect("a topic");
    let kinds = [
        (Api::Produce, RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS),
        (Api::Produce, RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION),
        (Api::Produce, RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT),
        (Api::Produce, RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE),
        (Api::Produce, RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER),
        (Api::Produce, RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH),
        (Api::Produce, RD_KAFKA_RESP_ERR__TRANSPORT),
        (Api::AddPartitionsToTxn, RD_KAFKA_RESP_ERR_CONCURRENT_TRANSACTIONS),
        (Api::AddPartitionsToTxn, RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS),
        (Api::AddPartitionsToTxn, RD_KAFKA_RESP_ERR_NOT_COORDINATOR),
        (Api::EndTxn, RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS),
        (Api::EndTxn, RD_KAFKA_RESP_ERR_COORDINATOR_NOT_AVAILABLE),
        (Api::EndTxn, RD_KAFKA_RESP_ERR_CONCURRENT_TRANSACTIONS),
        (Api::EndTxn, RD_KAFKA_RESP_ERR__TRANSPORT),
        (Api::InitProducerId, RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS),
    ];
    let open = || TopicWriter::open(&cluster, "main", BATCH_BYTES, Arc::default());
    let opened = |what: &str| (0..5).find_map(|_| open().ok()).unwrap_or_else(|| panic!("SEED={seed}: {what}"));
    let (mut writer, place) = opened("the first");
    assert_eq!(place, None);
    let (mut injected, mut again, mut reopened) = (0, 0, 0);
    for batch in 0..80usize {
        let (api, error) = kinds[rng.random_range(0..kinds.len())];
        let errors = vec![error; rng.random_range(1..4)];
        injected += errors.len();
        mock.request_errors(api, &errors);
        let place = ProducerPlace::new(Position::first_of(batch as u64 + 1), "log", "one");
        for attempt in 0.. {
            assert!(attempt < 10, "SEED={seed}: batch {batch} with {error:?} is never written");
            let sent = (0..3).try_for_each(|n| writer.send(&plain(batch * 3 + n)));
            match sent.and_then(|()| writer.commit(&place)) {
                Ok(()) => break,
                Err(WriterTrouble::Again(_)) => again += 1,
                // The place is not believed here: the mock cluster shows it from aborted transactions too.
                Err(WriterTrouble::Reopen(_)) => {
                    reopened += 1;
                    writer = opened("another").0;
                }
                // What a transaction that was open too long looks like too: nobody else has written a place.
                Err(WriterTrouble::Fenced(why)) => {
                    assert_eq!(error, RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH, "SEED={seed}: {why}");
                    reopened += 1;
                    writer = opened("one that was not superseded").0;
                }
            }
        }
        mock.clear_request_errors(api);
    }
    println!("{injected} errors injected, {again} transactions aborted, {reopened} producers made anew");
    assert!(injected >= 100, "{injected}");
    let values: std::collections::BTreeSet<usize> = topic::read(&cluster, "t")
        .iter()
        .map(|message| message.value.as_deref().unwrap_or_default().parse().expect("a number"))
        .collect();
    assert_eq!(values, (0..240).collect(), "SEED={seed}");
}

/// The program itself, with `kafka.output` in its settings: webhooks and runs aside, everything between a commit and a topic.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_program_writes_topics_when_its_settings_say_so() {
    let (folder, cluster) = (folder(), broker::cluster("program"));
    let sources = folder.path().join("sources");
    std::fs::create_dir(&sources).expect("a folder");
    let definition = "source: crm\nbase_url: http://127.0.0.1:9\nauth: {type: none}\nstreams:\n  - name: Contact\n    key: .id\n    schedule: {every: 1h}\n    list: {get: /contacts}\n    schema: {type: object, required: [id]}\n";
    std::fs::write(sources.join("crm.yaml"), definition).expect("a definition");
    let kafka = serde_json::json!({
        "brokers": cluster.brokers, "prefix": cluster.prefix, "topics": {"partitions": 3}, "input": false,
        "output": {"format": "flat"},
    });
    let serving = Serving::start_with(folder.path(), &sources, serde_json::json!({"kafka": kafka})).await;
    let engine = serving.engine();
    let contacts = dataset(&engine, "default", "conn_1", "Contact");
    put(&engine, &contacts, &[("1", r#"{"id":"1"}"#)], &[]).await;
    let topic = topic_of(&cluster, "Contact", "changes");
    let began = Instant::now();
    let told = loop {
        let told = topic::read(&cluster, &topic);
        if !told.is_empty() {
            break told;
        }
        assert!(began.elapsed() < PATIENCE, "nothing is written");
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    let hash = &told[0].headers["syncline-schema"];
    let schema = answer(serving.get(&format!("/v1/schemas/{hash}"), "crm", "conn_1")).await;
    assert_eq!(schema["required"], serde_json::json!(["id"]));
    // The header's cursor goes on behind the change.
    put(&engine, &contacts, &[("2", r#"{"id":"2"}"#)], &[]).await;
    let path = format!("/v1/changes?cursor={}", told[0].headers["syncline-cursor"]);
    let next = answer(serving.get(&path, "crm", "conn_1")).await;
    assert_eq!((next["changes"][0]["key"].as_str(), next["changes"].as_array().map(Vec::len)), (Some("2"), Some(1)));
    serving.stop().await;
}
