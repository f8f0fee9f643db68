//! How far each producer has written, in the compacted topic `{prefix}.log.places`: key = name of the producer, value = a
//! [`ProducerPlace`] as JSON, written in the transaction of the messages before it.
//!
//! Promise: a place read with [`Patience::Settled`] is the last one committed before the reading began. A transaction of
//! another producer that is still open hides what stands behind it in a partition; it is waited for. So that producers do not
//! wait for each other, each has a partition of the topic, as far as there are as many.

use crate::kafka::cluster::{Cluster, failure};
use crate::kafka::topics::{self, TopicSpec};
use crate::murmur2;
use rdkafka::Offset;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use rdkafka::topic_partition_list::TopicPartitionList;
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use syncline_engine::model::{Failure, Position};

/// Form of a place.
const FORMAT: u32 = 1;
/// Partitions of the topic, and so producers that never wait for each other.
const PARTITIONS: i32 = 8;
/// Size of the topic's files: small, so that old places go soon.
const SEGMENT_BYTES: &str = "16777216";
/// Places looked at first, from the topic's end; a thousand times as many next, then all.
const TAIL: i64 = 1_000;
/// Longest wait for one answer.
const ANSWER: Duration = Duration::from_secs(10);
/// Waits for transactions of others that are open: longer than the broker keeps them.
const OPEN_LOOKS: u32 = 1_400;
/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);

/// How far a producer has written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProducerPlace {
    /// Form of this value.
    pub format: u32,
    /// Everything before this position is in the topics.
    pub position: Position,
    /// The engine time of `position`, for people.
    pub epoch: u64,
    /// The log whose positions these are.
    pub log: String,
    /// Who wrote it: a token of one running instance, by which it knows itself again.
    pub writer: String,
}

impl ProducerPlace {
    /// Everything before `position` of `log` is written, says `writer`.
    pub fn new(position: Position, log: &str, writer: &str) -> Self {
        ProducerPlace {
            format: FORMAT,
            position,
            epoch: position.epoch(),
            log: log.to_owned(),
            writer: writer.to_owned(),
        }
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        // Plain fields into memory: cannot fail.
        serde_json::to_vec(self).unwrap_or_default()
    }

    fn read(bytes: &[u8]) -> Result<Self, Failure> {
        let unreadable = |why: String| Failure {
            code: "place_unreadable",
            message: format!(
                "the place of the output cannot be read ({why}); was the topic written by a newer release?"
            ),
            status: None,
            retry: false,
            retry_after: None,
        };
        let place: ProducerPlace = serde_json::from_slice(bytes).map_err(|e| unreadable(e.to_string()))?;
        if place.format == FORMAT { Ok(place) } else { Err(unreadable(format!("format {}", place.format))) }
    }
}

/// The topic of places.
pub fn topic(cluster: &Cluster) -> String {
    topics::name(&[&cluster.prefix, "log", "places"])
}

/// The topic of places as it should be.
pub fn wanted(cluster: &Cluster) -> TopicSpec {
    TopicSpec::new(topic(cluster))
        .partitions(PARTITIONS)
        .with("cleanup.policy", "compact")
        .with("segment.bytes", SEGMENT_BYTES)
}

/// The partition a producer's places are in, of so many. Names that are numbers lie apart.
fn spot(name: &str, count: i32) -> i32 {
    match name.parse::<i32>() {
        Ok(number) if number >= 0 => number % count.max(1),
        _ => murmur2::partition(name.as_bytes(), count.max(1)),
    }
}

/// The partition of a producer's places. Blocks.
pub(super) fn partition(client: &impl Consumer, cluster: &Cluster, name: &str) -> Result<i32, Failure> {
    let topic = topic(cluster);
    let metadata = client.fetch_metadata(Some(&topic), ANSWER);
    let metadata = metadata.map_err(|e| failure("kafka_unreachable", &format!("{topic} cannot be looked at"), e))?;
    let count = metadata.topics().first().map_or(0, |topic| topic.partitions().len());
    match i32::try_from(count) {
        Ok(count) if count > 0 => Ok(spot(name, count)),
        _ => Err(failure("topic_missing", &format!("the topic {topic} is not there"), "it is looked for again")),
    }
}

/// What a reader waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// For nothing: transactions that are open may hide later places.
    Now,
    /// For every transaction that was open when the reading began.
    Settled,
}

/// The last place of a producer and the partition it is in. Blocks, until `halt` is set at the latest.
pub fn read(
    cluster: &Cluster,
    name: &str,
    patience: Patience,
    halt: &AtomicBool,
) -> Result<(Option<ProducerPlace>, i32), Failure> {
    let topic = topic(cluster);
    let lost = |e: KafkaError| failure("kafka_unreachable", &format!("places cannot be read from {topic}"), e);
    let consumer = consumer(cluster).map_err(lost)?;
    let partition = partition(&consumer, cluster, name)?;
    let end = match patience {
        Patience::Now => consumer.fetch_watermarks(&topic, partition, ANSWER).map_err(lost)?.1,
        Patience::Settled => {
            settled(cluster, &consumer, (&topic, partition), halt).map_err(lost)?.ok_or_else(|| {
                let what = "a transaction of another producer stays open in the topic of places";
                failure("transaction_open", what, "it is waited for again")
            })?
        }
    };
    let (low, _) = consumer.fetch_watermarks(&topic, partition, ANSWER).map_err(lost)?;
    let mut from = (end - TAIL).max(low);
    loop {
        if let Some(bytes) = last_of(&consumer, (&topic, partition), name, from).map_err(lost)? {
            return ProducerPlace::read(&bytes).map(|place| (Some(place), partition));
        }
        if from <= low {
            return Ok((None, partition));
        }
        from = if end - from <= TAIL { (end - TAIL * 1_000).max(low) } else { low };
    }
}

/// The topic's end, once everything before it is committed or aborted; `None` if it never was.
fn settled(
    cluster: &Cluster,
    committed: &BaseConsumer,
    (topic, partition): (&str, i32),
    halt: &AtomicBool,
) -> Result<Option<i64>, KafkaError> {
    // Without a group there is nothing to take leave of.
    let all: BaseConsumer = cluster.client().set("isolation.level", "read_uncommitted").create()?;
    let (_, end) = all.fetch_watermarks(topic, partition, ANSWER)?;
    for _ in 0..OPEN_LOOKS {
        if committed.fetch_watermarks(topic, partition, ANSWER)?.1 >= end {
            return Ok(Some(end));
        }
        if halt.load(Ordering::Relaxed) {
            break;
        }
        std::thread::sleep(LOOK);
    }
    Ok(None)
}

/// The last value with this key, from an offset to the end.
fn last_of(
    consumer: &BaseConsumer,
    (topic, partition): (&str, i32),
    name: &str,
    from: i64,
) -> Result<Option<Vec<u8>>, KafkaError> {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, partition, Offset::Offset(from))?;
    consumer.assign(&list)?;
    let mut found = None;
    loop {
        match consumer.poll(ANSWER) {
            Some(Ok(message)) => {
                if message.key() == Some(name.as_bytes()) {
                    found = message.payload().map(<[u8]>::to_vec);
                }
            }
            Some(Err(KafkaError::PartitionEOF(_))) => return Ok(found),
            Some(Err(error)) => return Err(error),
            None => return Err(KafkaError::MessageConsumption(rdkafka::error::RDKafkaErrorCode::OperationTimedOut)),
        }
    }
}

fn consumer(cluster: &Cluster) -> Result<BaseConsumer, KafkaError> {
    let mut config = cluster.client();
    config.set("group.id", format!("{}.places", cluster.prefix));
    config.set("isolation.level", "read_committed");
    config.set("enable.auto.commit", "false");
    config.set("enable.auto.offset.store", "false");
    config.set("enable.partition.eof", "true");
    config.set("auto.offset.reset", "earliest");
    config.create()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn producers_of_partitions_lie_apart() {
        let spots: std::collections::BTreeSet<i32> = (0..8).map(|n| spot(&n.to_string(), PARTITIONS)).collect();
        assert_eq!(spots.len(), 8);
        assert_eq!((spot("main", 1), spot("7", 1), spot("39", 8)), (0, 0, 7));
    }

    #[test]
    fn places_are_read_back_and_others_refused() {
        let place = ProducerPlace::new(Position::first_of(5), "ab", "w");
        assert_eq!(ProducerPlace::read(&place.bytes()).expect("a place"), place);
        assert_eq!(place.epoch, 5);
        let newer = ProducerPlace { format: 2, ..place };
        assert_eq!(ProducerPlace::read(&newer.bytes()).expect_err("newer").code, "place_unreadable");
        assert!(ProducerPlace::read(b"{}").is_err());
    }
}
