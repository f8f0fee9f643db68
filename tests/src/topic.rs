//! What is in a topic for a reader that sees committed transactions only.

use rdkafka::Offset;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers, Message};
use rdkafka::topic_partition_list::TopicPartitionList;
use std::collections::BTreeMap;
use std::time::Duration;
use syncline_connectors::kafka::Cluster;

/// Longest wait for an answer.
const ANSWER: Duration = Duration::from_secs(10);
/// Longest a transaction may stay open whose commit was answered.
const SETTLED: Duration = Duration::from_secs(30);

/// A message as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Its partition.
    pub partition: i32,
    /// Its place there.
    pub offset: i64,
    /// Its key as text.
    pub key: String,
    /// Its value as text.
    pub value: Option<String>,
    /// Its headers as text.
    pub headers: BTreeMap<String, String>,
    /// Its timestamp, epoch milliseconds.
    pub timestamp: i64,
}

impl Told {
    /// The number behind `syncline-seq`.
    pub fn sequence(&self) -> u64 {
        self.headers["syncline-seq"].parse().expect("a number")
    }
}

/// A consumer of its own, which sees committed transactions only.
pub fn consumer(cluster: &Cluster) -> BaseConsumer {
    let mut config = cluster.client();
    for (key, value) in [
        ("group.id", "tests"),
        ("isolation.level", "read_committed"),
        ("enable.auto.commit", "false"),
        ("enable.partition.eof", "true"),
        ("auto.offset.reset", "earliest"),
        ("fetch.wait.max.ms", "20"),
    ] {
        config.set(key, value);
    }
    config.create().expect("a consumer")
}

/// Waits until nothing in a topic is hidden by an open transaction. A commit is answered before all partitions show it.
pub fn settle(cluster: &Cluster, topic: &str) {
    let committed = consumer(cluster);
    let all: BaseConsumer = cluster.client().set("isolation.level", "read_uncommitted").create().expect("a consumer");
    let metadata = all.fetch_metadata(Some(topic), ANSWER).expect("metadata");
    let partitions = metadata.topics().first().map_or(0, |t| t.partitions().len() as i32);
    for partition in 0..partitions {
        let end = all.fetch_watermarks(topic, partition, ANSWER).expect("the end").1;
        let begin = std::time::Instant::now();
        while committed.fetch_watermarks(topic, partition, ANSWER).expect("the stable end").1 < end {
            assert!(begin.elapsed() < SETTLED, "{topic}/{partition}: a transaction stays open");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Everything that is visible in a topic, partition by partition in order. Empty where there is no such topic.
pub fn read(cluster: &Cluster, topic: &str) -> Vec<Told> {
    let consumer = consumer(cluster);
    let metadata = consumer.fetch_metadata(Some(topic), ANSWER).expect("metadata");
    let count = metadata.topics().first().map_or(0, |t| t.partitions().len() as i32);
    let mut list = TopicPartitionList::new();
    for partition in 0..count {
        list.add_partition_offset(topic, partition, Offset::Beginning).expect("a partition");
    }
    consumer.assign(&list).expect("an assignment");
    let (mut all, mut open) = (Vec::new(), count);
    while open > 0 {
        match consumer.poll(ANSWER).unwrap_or_else(|| panic!("{topic}: no answer from the broker")) {
            Ok(message) => all.push(told(&message)),
            Err(KafkaError::PartitionEOF(_)) => open -= 1,
            Err(error) => panic!("{topic}: {error}"),
        }
    }
    all.sort_by_key(|m| (m.partition, m.offset));
    all
}

/// A message as read.
pub fn told(message: &impl Message) -> Told {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
    let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
    Told {
        partition: message.partition(),
        offset: message.offset(),
        key: message.key().map(text).unwrap_or_default(),
        value: message.payload().map(text),
        headers: headers.map(|h| (h.key.to_owned(), h.value.map(text).unwrap_or_default())).collect(),
        timestamp: message.timestamp().to_millis().unwrap_or_default(),
    }
}
