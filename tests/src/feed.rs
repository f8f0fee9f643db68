//! What outside programs write to topics.

use rdkafka::admin::AdminOptions;
use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};
use std::collections::BTreeMap;
use std::time::Duration;
use syncline_connectors::kafka::Cluster;
use syncline_connectors::kafka::topics::{TopicSpec, ensure};

/// Longest wait for the broker.
const WAIT: Duration = Duration::from_secs(60);

/// A message to be written.
#[derive(Clone, Debug, Default)]
pub struct Line {
    /// Its key.
    pub key: Option<String>,
    /// Its value.
    pub value: Option<Vec<u8>>,
    /// Its headers.
    pub headers: Vec<(String, String)>,
    /// Its partition; by key if absent.
    pub partition: Option<i32>,
}

/// A message of a key and a value.
pub fn line(key: &str, value: impl Into<Vec<u8>>) -> Line {
    Line { key: Some(key.to_owned()), value: Some(value.into()), ..Line::default() }
}

/// A message without a value.
pub fn tombstone(key: &str) -> Line {
    Line { key: Some(key.to_owned()), ..Line::default() }
}

impl Line {
    /// With a header.
    pub fn header(mut self, name: &str, value: impl ToString) -> Line {
        self.headers.push((name.to_owned(), value.to_string()));
        self
    }
}

/// An outside program.
pub struct Feed {
    producer: FutureProducer,
    cluster: Cluster,
}

impl Feed {
    /// An idempotent producer.
    pub fn new(cluster: &Cluster) -> Feed {
        Feed { producer: producer(cluster, None), cluster: cluster.clone() }
    }

    /// One that writes in transactions.
    pub fn transactional(cluster: &Cluster, id: &str) -> Feed {
        let feed = Feed { producer: producer(cluster, Some(id)), cluster: cluster.clone() };
        feed.producer.init_transactions(WAIT).expect("transactions");
        feed
    }

    /// The producer itself.
    pub fn producer(&self) -> &FutureProducer {
        &self.producer
    }

    /// Makes a topic.
    pub async fn topic(&self, name: &str, partitions: i32) {
        let wanted = TopicSpec::new(name).partitions(partitions).with("max.message.bytes", "90000000");
        ensure(&self.cluster, &[wanted]).await.expect("a topic");
    }

    /// Removes a topic.
    pub async fn remove(&self, name: &str) {
        let admin = self.cluster.admin().expect("an admin");
        let done = admin.delete_topics(&[name], &AdminOptions::new()).await.expect("an answer");
        assert!(done.iter().all(Result::is_ok), "{done:?}");
    }

    /// Writes lines in order and waits until the broker has them all.
    pub async fn write(&self, topic: &str, lines: &[Line]) {
        let mut sent = Vec::with_capacity(lines.len());
        for line in lines {
            let mut headers = OwnedHeaders::new();
            for (key, value) in &line.headers {
                headers = headers.insert(Header { key, value: Some(value) });
            }
            let mut record = FutureRecord::<str, [u8]>::to(topic).headers(headers);
            record.key = line.key.as_deref();
            record.payload = line.value.as_deref();
            record.partition = line.partition;
            loop {
                match self.producer.send_result(record) {
                    Ok(delivery) => break sent.push(delivery),
                    Err((error, again)) => {
                        let full = error.rdkafka_error_code() == Some(rdkafka::error::RDKafkaErrorCode::QueueFull);
                        assert!(full, "{error}");
                        record = again;
                        tokio::time::sleep(Duration::from_millis(2)).await;
                    }
                }
            }
        }
        for delivery in sent {
            delivery.await.expect("an answer").expect("written");
        }
    }
}

/// A message that could not be taken, as it lies in the dead letters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Buried {
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value.
    pub value: Option<Vec<u8>>,
    /// Its headers as text.
    pub headers: BTreeMap<String, String>,
}

impl Buried {
    /// Partition and offset it came from.
    pub fn place(&self) -> (i32, i64) {
        let number = |name: &str| self.headers[name].parse::<i64>().expect("a number");
        (number("syncline-partition") as i32, number("syncline-offset"))
    }

    /// The code of the reason.
    pub fn code(&self) -> &str {
        self.headers["syncline-error"].split(':').next().unwrap_or_default()
    }
}

/// The dead letters of a cluster's prefix, in the order of the places they came from.
pub fn dead(cluster: &Cluster) -> Vec<Buried> {
    let name = format!("{}.dlq", cluster.prefix);
    let consumer = crate::topic::consumer(cluster);
    let metadata = consumer.fetch_metadata(Some(&name), WAIT).expect("metadata");
    let mut open = metadata.topics().first().map_or(0, |t| t.partitions().len() as i32);
    let mut list = TopicPartitionList::new();
    for partition in 0..open {
        list.add_partition_offset(&name, partition, Offset::Beginning).expect("a partition");
    }
    consumer.assign(&list).expect("an assignment");
    let mut all = Vec::new();
    while open > 0 {
        match consumer.poll(WAIT).expect("an answer") {
            Ok(message) => all.push(buried(&message)),
            Err(KafkaError::PartitionEOF(_)) => open -= 1,
            Err(error) => panic!("{name}: {error}"),
        }
    }
    all.sort_by_key(Buried::place);
    all
}

fn buried(message: &impl Message) -> Buried {
    let text = |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned();
    let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
    Buried {
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        headers: headers.map(|header| (header.key.to_owned(), text(header.value))).collect(),
    }
}

fn producer(cluster: &Cluster, transactions: Option<&str>) -> FutureProducer {
    let mut config = cluster.client();
    config
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("linger.ms", "0")
        .set("message.max.bytes", "90000000")
        .set("queue.buffering.max.kbytes", "400000")
        .set("partitioner", "murmur2_random");
    if let Some(id) = transactions {
        config.set("transactional.id", id);
    }
    config.create().expect("a producer")
}
