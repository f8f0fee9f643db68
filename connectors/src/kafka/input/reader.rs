//! A topic's partitions, read by manual assignment: no group, the place is the caller's.
//!
//! Promises: messages of a partition come in order and without gaps, only those of committed transactions; at most
//! [`CHUNKS`] chunks and the client's own bounded queue wait. A place that the topic does not have, a topic that is gone or
//! was made again ends the reading with a [`Failure`] that says so (`offset_out_of_range`, `topic_missing`,
//! `topic_recreated`); what the broker cannot answer just now is waited for. Partitions added to the topic are picked up.
//! Messages of others ([`Subscription::elsewhere`]) are not handed out; the chunks tell that they were met, at the latest once the
//! topic is at rest.

use super::chunk::Chunk;
use super::glance;
use crate::kafka::cluster::{Cluster, failure};
use crate::kafka::identity::{Unclear, describe, known_end};
use parking_lot::Mutex;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Message as _, Offset, TopicPartitionList};
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use syncline_engine::model::Failure;
use syncline_engine::time::Clock;
use tokio::sync::mpsc;

/// Longest wait for the description of a topic.
const DESCRIBED: Duration = Duration::from_secs(10);
/// Chunks that wait to be taken.
pub const CHUNKS: usize = 4;
/// Bytes the client may hold beyond them, over all partitions, KiB.
const CLIENT_KIB: usize = 32 * 1024;
/// Messages of a partition the client tries to hold.
const CLIENT_MESSAGES: usize = 10_000;
/// Between two looks at the topic as a whole.
const LOOK: Duration = Duration::from_secs(2);
/// The reading thread looks for a stop so often.
const WAIT: Duration = Duration::from_millis(100);
/// Longest wait for the ends of a partition.
const PATIENCE: Duration = Duration::from_secs(10);

/// Codes of failures after which only a person can say how to go on.
pub const FINAL: [&str; 2] = ["offset_out_of_range", "topic_recreated"];

/// Where reading of a partition begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartOffset {
    /// The oldest message there is.
    Earliest,
    /// What is written from now on.
    Latest,
    /// This offset.
    At(i64),
}

/// What is to be read.
#[derive(Clone, Debug)]
pub struct Subscription {
    /// The topic.
    pub topic: String,
    /// Its id when it was first read, if it was; empty where the broker gave none.
    pub id: Option<String>,
    /// Partitions and where to begin.
    pub partitions: BTreeMap<i32, StartOffset>,
    /// Where partitions begin that are not named; `None` leaves them to others.
    pub rest: Option<StartOffset>,
    /// Connections of others: messages in our own form that are theirs at a glance are passed by.
    pub elsewhere: HashSet<String>,
}

/// A topic being read; it stops when dropped.
pub struct TopicReader {
    chunks: mpsc::Receiver<Chunk>,
    shared: Arc<ReaderShared>,
    looking: tokio::task::JoinHandle<()>,
    id: String,
    begins: BTreeMap<i32, i64>,
}

struct ReaderShared {
    topic: String,
    id: String,
    rest: bool,
    elsewhere: HashSet<String>,
    consumer: BaseConsumer,
    stop: AtomicBool,
    failed: Mutex<Option<Failure>>,
    /// Partitions and the offset after the last message read of them.
    next: Mutex<BTreeMap<i32, i64>>,
}

impl TopicReader {
    /// Finds the topic and its ends, and begins to read.
    pub async fn open(cluster: &Cluster, wanted: Subscription, clock: Arc<dyn Clock>) -> Result<TopicReader, Failure> {
        let config = config(cluster);
        let opened = tokio::task::spawn_blocking(move || ReaderShared::open(&config, wanted)).await;
        let shared = Arc::new(opened.map_err(|e| failure("kafka_unreachable", "the reader ended early", e))??);
        let (to, chunks) = mpsc::channel(CHUNKS);
        let begins = shared.next().clone();
        let reading = shared.clone();
        std::thread::Builder::new()
            .name("syncline-kafka-in".to_owned())
            .spawn(move || reading.read(&to))
            .map_err(|e| failure("kafka_settings", "the reading thread cannot be made", e))?;
        let looking = tokio::spawn(look(shared.clone(), clock));
        Ok(TopicReader { chunks, id: shared.id.clone(), shared, looking, begins })
    }

    /// The topic's id; empty where the broker gives none.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Where reading of each partition began: offsets, also where `Earliest` or `Latest` was asked for.
    pub fn begins(&self) -> &BTreeMap<i32, i64> {
        &self.begins
    }

    /// The next messages, as soon as there are some. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Result<Chunk, Failure> {
        let chunk = self.chunks.recv().await;
        // A topic that was made again is not to be read, not even what lies here already.
        match (self.shared.failure(), chunk) {
            (Some(failure), _) => Err(failure),
            (None, Some(chunk)) => Ok(chunk),
            (None, None) => Err(failure("kafka_unreachable", "reading ended", "no reason was given")),
        }
    }

    /// Messages between what was read and the end of each partition, as far as the client has heard of it.
    pub fn lag(&self) -> Vec<(i32, i64)> {
        let next = self.shared.next().clone();
        let end = |partition| known_end(self.shared.consumer.client(), &self.shared.topic, partition);
        next.into_iter().filter_map(|(p, next)| end(p).map(|end| (p, (end - next).max(0)))).collect()
    }
}

impl Drop for TopicReader {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.looking.abort();
    }
}

fn config(cluster: &Cluster) -> ClientConfig {
    let mut config = cluster.client();
    // Defaults of ours, which the settings may overrule: quick to answer, little memory.
    let defaults = [
        ("fetch.error.backoff.ms", "20".to_owned()),
        ("fetch.queue.backoff.ms", "5".to_owned()),
        ("queued.min.messages", CLIENT_MESSAGES.to_string()),
        ("reconnect.backoff.max.ms", "1000".to_owned()),
    ];
    for (name, value) in defaults {
        if !cluster.properties.contains_key(name) {
            config.set(name, value);
        }
    }
    config
        // Assigned by hand, so that no group is ever joined; the client wants a name all the same.
        .set("group.id", format!("{}.in", cluster.prefix))
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "error")
        .set("isolation.level", "read_committed")
        .set("allow.auto.create.topics", "false");
    config
}

impl ReaderShared {
    fn open(config: &ClientConfig, wanted: Subscription) -> Result<ReaderShared, Failure> {
        let unreachable = |e: &dyn std::fmt::Display| failure("kafka_unreachable", "the topic cannot be read", e);
        let probe: BaseConsumer = config.create().map_err(|e| settings(&e))?;
        let described = match describe(probe.client(), &wanted.topic, DESCRIBED) {
            Ok(described) => described,
            Err(Unclear::Missing) => return Err(missing(&wanted.topic)),
            Err(Unclear::Failed(why)) => return Err(unreachable(&why)),
        };
        if let Some(known) = wanted.id.as_deref().filter(|known| *known != described.id_text() && !known.is_empty()) {
            return Err(recreated(&wanted.topic, known, &described.id_text()));
        }
        // The client's bound is per partition.
        let mut config = config.clone();
        let share = (CLIENT_KIB / usize::try_from(described.partitions).unwrap_or(1).max(1)).max(1_024);
        if config.get("queued.max.messages.kbytes").is_none() {
            config.set("queued.max.messages.kbytes", share.to_string());
        }
        let consumer: BaseConsumer = config.create().map_err(|e| settings(&e))?;
        let mut next = BTreeMap::new();
        for partition in 0..described.partitions {
            let Some(start) = wanted.partitions.get(&partition).copied().or(wanted.rest) else { continue };
            let ends = consumer.fetch_watermarks(&wanted.topic, partition, PATIENCE).map_err(|e| unreachable(&e))?;
            next.insert(partition, begin(&wanted.topic, partition, start, ends)?);
        }
        if let Some(lost) = wanted.partitions.keys().find(|p| **p >= described.partitions) {
            return Err(out_of_range(
                &wanted.topic,
                format!("partition {lost} is gone: a topic never loses partitions"),
            ));
        }
        let mut assignment = TopicPartitionList::new();
        for (partition, offset) in &next {
            assignment
                .add_partition_offset(&wanted.topic, *partition, Offset::Offset(*offset))
                .map_err(|e| settings(&e))?;
        }
        consumer.assign(&assignment).map_err(|e| settings(&e))?;
        Ok(ReaderShared {
            topic: wanted.topic,
            id: described.id_text(),
            rest: wanted.rest.is_some(),
            elsewhere: wanted.elsewhere,
            consumer,
            stop: AtomicBool::new(false),
            failed: Mutex::default(),
            next: Mutex::new(next),
        })
    }

    fn next(&self) -> parking_lot::MutexGuard<'_, BTreeMap<i32, i64>> {
        self.next.lock()
    }

    fn failure(&self) -> Option<Failure> {
        self.failed.lock().clone()
    }

    /// Ends the reading for this reason, unless it has one.
    fn fail(&self, failure: Failure) {
        self.failed.lock().get_or_insert(failure);
        self.stop.store(true, Ordering::Release);
    }

    /// The reading thread.
    fn read(&self, to: &mpsc::Sender<Chunk>) {
        let mut chunk = Chunk::default();
        while !self.stop.load(Ordering::Acquire) {
            let first = self.consumer.poll(WAIT);
            let at_rest = first.is_none();
            let mut trouble = first.and_then(|first| self.add(&mut chunk, first));
            while !at_rest && trouble.is_none() && !chunk.full() {
                let Some(message) = self.consumer.poll(Duration::ZERO) else { break };
                trouble = self.add(&mut chunk, message);
            }
            // Messages of others alone are no reason to wake anybody.
            if !chunk.is_empty() || chunk.full() || (at_rest && chunk.passes() > 0) {
                let chunk = std::mem::take(&mut chunk);
                self.note(&chunk);
                if to.blocking_send(chunk).is_err() {
                    return;
                }
            }
            if let Some(failure) = trouble.and_then(|error| self.judge(&error)) {
                self.fail(failure);
            }
        }
    }

    fn add(
        &self,
        chunk: &mut Chunk,
        message: Result<rdkafka::message::BorrowedMessage<'_>, KafkaError>,
    ) -> Option<KafkaError> {
        match message {
            Ok(message) => {
                match self.is_elsewhere(message.payload()) {
                    true => chunk.pass(message.partition(), message.offset()),
                    false => chunk.add(&message),
                }
                None
            }
            Err(error) => Some(error),
        }
    }

    fn is_elsewhere(&self, value: Option<&[u8]>) -> bool {
        let whose = value.filter(|_| !self.elsewhere.is_empty()).and_then(glance::connection);
        whose.is_some_and(|connection| self.elsewhere.contains(connection))
    }

    fn note(&self, chunk: &Chunk) {
        let mut next = self.next();
        next.extend(chunk.passed());
        for message in chunk.messages() {
            let after = next.entry(message.partition()).or_default();
            *after = message.offset().saturating_add(1).max(*after);
        }
    }

    /// What an error of the client's means: `None` for what passes by itself.
    fn judge(&self, error: &KafkaError) -> Option<Failure> {
        use RDKafkaErrorCode as Code;
        match error.rdkafka_error_code() {
            Some(Code::AutoOffsetReset | Code::OffsetOutOfRange) => Some(self.out_of_range()),
            Some(
                Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition | Code::UnknownTopicId,
            ) => self.look().err(),
            Some(Code::TopicAuthorizationFailed | Code::GroupAuthorizationFailed) => {
                Some(failure("kafka_refused", &format!("topic {} may not be read", self.topic), error))
            }
            Some(Code::Fatal) => Some(failure("kafka_failed", &format!("reading topic {}", self.topic), error)),
            _ => {
                tracing::warn!(%error, topic = self.topic, "the broker did not answer; reading goes on when it does");
                None
            }
        }
    }

    /// Which place is not there any more.
    fn out_of_range(&self) -> Failure {
        // A topic made again is the more precise reason.
        if let Err(reason) = self.look()
            && FINAL.contains(&reason.code)
        {
            return reason;
        }
        let places = self.next().clone();
        for (partition, next) in places {
            let ends = self.consumer.fetch_watermarks(&self.topic, partition, PATIENCE);
            if let Ok(ends) = ends
                && let Err(reason) = begin(&self.topic, partition, StartOffset::At(next), ends)
            {
                return reason;
            }
        }
        out_of_range(&self.topic, "a place to read from is not there any more".to_owned())
    }

    /// Looks at the topic as a whole: whether it is the same, whether it has new partitions.
    fn look(&self) -> Result<(), Failure> {
        let described = match describe(self.consumer.client(), &self.topic, DESCRIBED) {
            Ok(described) => described,
            Err(Unclear::Missing) => return Err(missing(&self.topic)),
            // Asked again later.
            Err(Unclear::Failed(_)) => return Ok(()),
        };
        if described.id.is_some() && described.id_text() != self.id && !self.id.is_empty() {
            return Err(recreated(&self.topic, &self.id, &described.id_text()));
        }
        if !self.rest {
            return Ok(());
        }
        let mut next = self.next();
        let mut new = TopicPartitionList::new();
        for partition in (0..described.partitions).filter(|p| !next.contains_key(p)) {
            // From their beginning wherever the topic was begun: what was written before we noticed counts as well.
            if new.add_partition_offset(&self.topic, partition, Offset::Beginning).is_ok() {
                tracing::info!(topic = self.topic, partition, "a new partition is read");
            }
        }
        if new.count() > 0 && self.consumer.incremental_assign(&new).is_ok() {
            new.elements().iter().for_each(|e| _ = next.insert(e.partition(), 0));
        }
        Ok(())
    }
}

/// Looks at the topic now and then; ends the reading if it is not the same any more.
async fn look(shared: Arc<ReaderShared>, clock: Arc<dyn Clock>) {
    loop {
        clock.sleep(LOOK).await;
        let looked = shared.clone();
        match tokio::task::spawn_blocking(move || looked.look()).await {
            Ok(Err(failure)) => return shared.fail(failure),
            Ok(Ok(())) => {}
            Err(_) => return,
        }
    }
}

/// The offset where a partition with these ends begins.
fn begin(topic: &str, partition: i32, start: StartOffset, (low, high): (i64, i64)) -> Result<i64, Failure> {
    match start {
        StartOffset::Earliest => Ok(low),
        StartOffset::Latest => Ok(high),
        StartOffset::At(next) if (low..=high).contains(&next) => Ok(next),
        StartOffset::At(next) => {
            let why = if next < low { "messages before they were read are gone" } else { "its end lies before that" };
            let message = format!("partition {partition} holds offsets {low} to {high}, {next} is next: {why}");
            Err(out_of_range(topic, message))
        }
    }
}

fn out_of_range(topic: &str, why: String) -> Failure {
    let message = format!(
        "topic {topic}: {why}; decide where to go on: POST /v1/inputs/TOPIC/restart with {{\"start\": \"earliest\"}} or latest"
    );
    Failure::lasting("offset_out_of_range", message)
}

fn recreated(topic: &str, known: &str, found: &str) -> Failure {
    let message = format!(
        "topic {topic} was deleted and made again (its id was {known} and is {found}): stored offsets mean nothing in it; \
         decide where to go on: POST /v1/inputs/TOPIC/restart with {{\"start\": \"earliest\"}} or latest"
    );
    Failure::lasting("topic_recreated", message)
}

fn missing(topic: &str) -> Failure {
    let message = format!("topic {topic} does not exist; reading begins when it does");
    Failure::passing("topic_missing", message)
}

fn settings(error: &KafkaError) -> Failure {
    Failure { retry: false, ..failure("kafka_settings", "a Kafka consumer cannot be made", error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_outside_of_the_partition_has_a_name() {
        assert_eq!(begin("t", 0, StartOffset::At(5), (5, 9)), Ok(5));
        assert_eq!(begin("t", 0, StartOffset::At(9), (5, 9)), Ok(9));
        assert_eq!(
            (begin("t", 0, StartOffset::Earliest, (5, 9)), begin("t", 0, StartOffset::Latest, (5, 9))),
            (Ok(5), Ok(9))
        );
        for gone in [4, 10] {
            let why = begin("t", 3, StartOffset::At(gone), (5, 9)).expect_err("gone");
            assert_eq!(why.code, "offset_out_of_range");
            assert!(why.message.contains("partition 3 holds offsets 5 to 9"), "{}", why.message);
        }
    }
}
