//! Messages that cannot be taken: written to the dead letters as they came, with the reason and their place in headers.
//!
//! Promises: [`Dead::dead_letter`] answers once the broker has the message; until then it tries again. After a crash a message may be
//! buried a second time: its headers name topic, partition and offset, by which a repeat is known.

use super::chunk::Message;
use super::message::Bad;
use crate::kafka::cluster::{Cluster, failure};
use crate::kafka::topics::{TopicSpec, ensure};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use std::sync::Arc;
use std::time::Duration;
use syncline_engine::model::Failure;
use syncline_engine::time::Clock;

/// Largest message of the dead letters, bytes: as large as any the brokers of a default installation pass on.
const MESSAGE_BYTES: usize = 100_000_000;
/// Most bytes that wait to be written, KiB.
const WAITING_KIB: usize = 128 * 1024;
/// Waits between tries: doubling between these.
const TRY_AGAIN: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(10)];
/// Longest reason in a header, characters.
const REASON_CHARS: usize = 1_000;

/// The dead letters of one environment. Cheap to clone.
#[derive(Clone)]
pub struct Dead {
    topic: Arc<str>,
    producer: FutureProducer,
    clock: Arc<dyn Clock>,
}

impl Dead {
    /// Makes sure that the topic exists.
    pub async fn open(cluster: &Cluster, environment: &str, clock: Arc<dyn Clock>) -> Result<Dead, Failure> {
        let topic = format!("{}.dlq", cluster.prefix_of(environment));
        let wanted = TopicSpec::new(&topic).with("max.message.bytes", MESSAGE_BYTES.to_string());
        ensure(cluster, &[wanted]).await?;
        let mut config = cluster.client();
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("linger.ms", "1")
            .set("message.max.bytes", MESSAGE_BYTES.to_string())
            .set("queue.buffering.max.kbytes", WAITING_KIB.to_string())
            .set("partitioner", "murmur2_random");
        let producer =
            config.create().map_err(|e| failure("kafka_settings", "the dead letters have no producer", e))?;
        Ok(Dead { topic: topic.into(), producer, clock })
    }

    /// The topic.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// Writes a message that cannot be taken. Gives up only on a message that the dead letters themselves refuse for its
    /// size: then its reason and its place are written without it.
    pub async fn dead_letter(&self, topic: &str, message: Message<'_>, why: &Bad) {
        let reason: String = why.to_string().chars().take(REASON_CHARS).collect();
        let mut wait = TRY_AGAIN[0];
        let mut whole = true;
        loop {
            let error = match self.write(topic, message, &reason, whole).await {
                Ok(()) => return,
                Err(error) => error,
            };
            if whole && matches!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::MessageSizeTooLarge)) {
                let (partition, offset) = (message.partition(), message.offset());
                tracing::error!(topic, partition, offset, "too large for the dead letters: buried without its value");
                whole = false;
                continue;
            }
            tracing::warn!(%error, topic = &*self.topic, "a dead letter could not be written; trying again");
            self.clock.sleep(wait).await;
            wait = (wait * 2).min(TRY_AGAIN[1]);
        }
    }

    async fn write(&self, topic: &str, message: Message<'_>, reason: &str, whole: bool) -> Result<(), KafkaError> {
        let (partition, offset) = (message.partition().to_string(), message.offset().to_string());
        let mut headers = OwnedHeaders::new();
        for (key, value) in message.headers() {
            headers = headers.insert(Header { key, value });
        }
        let ours = [
            ("syncline-error", reason),
            ("syncline-topic", topic),
            ("syncline-partition", &partition),
            ("syncline-offset", &offset),
        ];
        for (key, value) in ours {
            headers = headers.insert(Header { key, value: Some(value) });
        }
        let mut record = FutureRecord::<[u8], [u8]>::to(&self.topic).headers(headers);
        if let Some(key) = message.key() {
            record = record.key(key);
        }
        if let Some(value) = message.value().filter(|_| whole) {
            record = record.payload(value);
        }
        self.producer.send(record, TRY_AGAIN[1]).await.map(drop).map_err(|(error, _)| error)
    }
}
