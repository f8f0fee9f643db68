//! One partition read in order, by place and without a group's help: what log, changelog and board share.
//!
//! Promises: nothing is skipped. A place that is not there is said ([`NextMessage::OutOfRange`]), never replaced by another; a
//! broker that is away is waited for by the caller, step by step, while the client reconnects.

use super::cluster::Cluster;
use super::identity::topic_id;
use rdkafka::ClientContext;
use rdkafka::client::Client;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::BorrowedMessage;
use rdkafka::{Offset, TopicPartitionList};
use std::time::Duration;
use syncline_engine::log::Error;

/// Longest wait for an answer about a partition.
pub(super) const ASK: Duration = Duration::from_secs(10);
/// How often a partition without a leader is asked: a broker that has just started takes seconds to know of a new topic.
const LEADER_TRIES: u32 = 100;
/// Wait between two such questions.
const LEADER_WAIT: Duration = Duration::from_millis(100);
/// Bytes read ahead of who reads; one larger message is read all the same.
const AHEAD_KIB: usize = 8 << 10;

/// How long the broker keeps a question open that it has nothing for: with who follows the end, who is answered the moment
/// there is something; and with who goes from place to place, who cannot ask elsewhere before.
const FOLLOWING_MS: u32 = 500;
/// See [`FOLLOWING_MS`].
const SEEKING_MS: u32 = 5;

/// What a reader is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// Staying at the end.
    Follow,
    /// Reading what is there from some place.
    Seek,
}

/// What a reader sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Isolation {
    /// All messages, in the order they were written.
    All,
    /// Messages of committed transactions only.
    Committed,
}

/// What one look for the next message gave.
pub(super) enum NextMessage<'a> {
    /// The next message.
    Message(BorrowedMessage<'a>),
    /// Nothing within the time given.
    Idle,
    /// The end of what can be seen now.
    End,
    /// The place sought is not between the partition's first and last.
    OutOfRange,
}

/// A reader of one partition.
pub(super) struct PartitionReader {
    consumer: BaseConsumer,
    topic: String,
    partition: i32,
}

/// The words for a broker that does not answer.
pub(super) fn unreachable(cluster: &str, what: &str, error: impl std::fmt::Display) -> Error {
    Error::Unreachable(format!("{what} ({cluster}): {error}"))
}

/// First place of a partition and the place after the last one that this client can see. A partition whose leader is just
/// being chosen is asked again for a while. Blocks.
pub(super) fn watermarks<C: ClientContext>(
    client: &Client<C>,
    topic: &str,
    partition: i32,
) -> Result<(u64, u64), Error> {
    let mut tries = 0;
    loop {
        tries += 1;
        match client.fetch_watermarks(topic, partition, ASK) {
            Ok((low, high)) => return Ok((u64::try_from(low).unwrap_or(0), u64::try_from(high).unwrap_or(0))),
            Err(error) if tries < LEADER_TRIES && passes(&error) => std::thread::sleep(LEADER_WAIT),
            Err(error) => {
                let what = format!("no broker says where partition {partition} of the topic ends");
                return Err(unreachable(topic, &what, error));
            }
        }
    }
}

/// Errors of a partition that has just been made or moved.
fn passes(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{
        LeaderNotAvailable, NotLeaderForPartition, OffsetNotAvailable, UnknownPartition, UnknownTopic,
        UnknownTopicOrPartition,
    };
    let code = error.rdkafka_error_code();
    matches!(
        code,
        Some(
            LeaderNotAvailable
                | NotLeaderForPartition
                | OffsetNotAvailable
                | UnknownPartition
                | UnknownTopic
                | UnknownTopicOrPartition
        )
    )
}

impl PartitionReader {
    /// A reader that is nowhere yet.
    pub fn new(
        cluster: &Cluster,
        topic: &str,
        partition: i32,
        isolation: Isolation,
        purpose: Use,
    ) -> Result<PartitionReader, Error> {
        let mut config = cluster.client();
        let wait = if purpose == Use::Follow { FOLLOWING_MS } else { SEEKING_MS };
        // The group's name is needed by the library and never joined: places are kept by who reads.
        config
            .set("group.id", format!("{}.reader", cluster.prefix))
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error")
            .set("enable.partition.eof", "true")
            .set("isolation.level", if isolation == Isolation::All { "read_uncommitted" } else { "read_committed" })
            .set("fetch.min.bytes", "1")
            .set("fetch.wait.max.ms", wait.to_string())
            .set("fetch.error.backoff.ms", "50")
            .set("fetch.queue.backoff.ms", "5")
            .set("reconnect.backoff.ms", "50")
            .set("reconnect.backoff.max.ms", "500")
            .set("queued.max.messages.kbytes", AHEAD_KIB.to_string());
        let consumer = config.create().map_err(|e| unreachable(&cluster.brokers, "the reader cannot be made", e))?;
        Ok(PartitionReader { consumer, topic: topic.to_owned(), partition })
    }

    /// First place there and the place after the last one that can be seen.
    pub fn watermarks(&self) -> Result<(u64, u64), Error> {
        watermarks(self.consumer.client(), &self.topic, self.partition)
    }

    /// The topic's id, if it can be had.
    pub fn topic_id(&self) -> Option<u128> {
        topic_id(self.consumer.client(), &self.topic)
    }

    /// The place of the first message written at `millis` or later; `None` if there is none.
    pub fn first_since(&self, millis: i64) -> Result<Option<u64>, Error> {
        let list = self.list(Offset::Offset(millis))?;
        let found = self.consumer.offsets_for_times(list, ASK);
        let found = found.map_err(|e| unreachable(&self.topic, "no broker says what was written when", e))?;
        let place = found.find_partition(&self.topic, self.partition).map(|p| p.offset());
        Ok(match place {
            Some(Offset::Offset(offset)) => u64::try_from(offset).ok(),
            _ => None,
        })
    }

    /// Goes to a place.
    pub fn seek(&self, offset: u64) -> Result<(), Error> {
        let list = self.list(Offset::Offset(i64::try_from(offset).unwrap_or(i64::MAX)))?;
        self.consumer.assign(&list).map_err(|e| unreachable(&self.topic, "the partition cannot be read", e))
    }

    /// Looks for the next message for `wait`.
    pub fn step(&self, wait: Duration) -> NextMessage<'_> {
        use RDKafkaErrorCode::{AutoOffsetReset, OffsetOutOfRange};
        match self.consumer.poll(wait) {
            None => NextMessage::Idle,
            Some(Ok(message)) => NextMessage::Message(message),
            Some(Err(KafkaError::PartitionEOF(_))) => NextMessage::End,
            Some(Err(KafkaError::MessageConsumption(AutoOffsetReset | OffsetOutOfRange))) => NextMessage::OutOfRange,
            Some(Err(error)) => {
                // Brokers that are away come back; who reads has a bound of its own.
                tracing::debug!(topic = self.topic, partition = self.partition, %error, "reading goes on");
                NextMessage::Idle
            }
        }
    }

    fn list(&self, offset: Offset) -> Result<TopicPartitionList, Error> {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&self.topic, self.partition, offset)
            .map_err(|e| unreachable(&self.topic, "a place is not one of Kafka's", e))?;
        Ok(list)
    }
}
