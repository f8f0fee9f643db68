//! A copy of a store on one partition of a compacted topic, from which the store is rebuilt wherever it is needed next.
//!
//! Promises:
//!
//! * One commit is one transaction: all of its writes are there, or none of them is.
//! * Who opens the changelog ends whoever had it open before: the broker refuses that one's transactions from then on
//!   (`transactional.id`), and it is told [`Error::Fenced`].
//! * A second guard beside the broker's, against a broker that lets a zombie through: each opening begins a *term*, one
//!   higher than the last, by writing it under a key of its own ([`TERM_KEY`]), and each message carries its term in a
//!   header. Reading leaves out what has a lower term than something before it. This guards as long as compaction has not
//!   passed over the two.
//! * After an error nothing more is accepted. Where the outcome of a commit stayed unknown, it is there as a whole or not at
//!   all; opening again settles which, and [`Changelog::replay`] tells.
//! * A place of a topic that was made anew is `Gone`, and so is a place so old that deletions after it may have been
//!   compacted away ([`STALE`]).
//!
//! A place is the offset after the last message in the lower 48 bits, and 16 bits of the topic's id above them: a topic made
//! anew is told from its predecessor however long it is. Zero is the beginning of any.

mod replay;
mod writer;

pub use replay::STALE;

use super::cluster::Cluster;
use super::identity::topic_id;
use super::log::MOST_BYTES;
use super::reader::{Isolation, PartitionReader, Use};
use super::topics::{TopicSpec, name};
use parking_lot::Mutex;
use rdkafka::producer::Producer;
use std::time::Duration;
use syncline_engine::log::{Changelog, Error, Write};
use writer::ChangelogWriter;

/// Key of the term that is written when a changelog is opened; no family of a store has this number.
pub const TERM_KEY: &[u8] = &[255];
/// How long the broker keeps deletions after compaction; see [`STALE`].
const DELETES_KEPT: Duration = Duration::from_secs(7 * 24 * 3600);
/// Bits of a place that are the offset.
const OFFSET_BITS: u32 = 48;

/// The topic of the stores' copies: the last write of each key is kept, writes as large as we take.
pub fn state_topic(cluster: &Cluster) -> TopicSpec {
    TopicSpec::new(name(&[&cluster.prefix, "log", "state"]))
        .with("cleanup.policy", "compact")
        .with("min.cleanable.dirty.ratio", "0.3")
        .with("segment.bytes", (256u32 << 20).to_string())
        .with("delete.retention.ms", DELETES_KEPT.as_millis().to_string())
        .with("max.message.bytes", MOST_BYTES.to_string())
        .with("unclean.leader.election.enable", "false")
}

/// A changelog on one partition, open for writing by this process alone.
pub struct KafkaChangelog {
    spot: StateOffset,
    term: u64,
    writer: Mutex<ChangelogWriter>,
}

/// Where it lies.
#[derive(Clone)]
struct StateOffset {
    cluster: Cluster,
    topic: String,
    partition: i32,
    /// Part of the topic's id; 0 if it cannot be had.
    mark: u64,
}

impl StateOffset {
    fn place(&self, offset: u64) -> u64 {
        (self.mark << OFFSET_BITS) | offset
    }

    /// The offset of a place; `None` if it is another topic's. An id that could not be had is nobody's.
    fn offset(&self, place: u64) -> Option<u64> {
        let (mark, offset) = (place >> OFFSET_BITS, place & ((1 << OFFSET_BITS) - 1));
        (mark == 0 || self.mark == 0 || mark == self.mark).then_some(offset)
    }

    fn reader(&self) -> Result<PartitionReader, Error> {
        PartitionReader::new(&self.cluster, &self.topic, self.partition, Isolation::Committed, Use::Seek)
    }

    fn gone(&self, why: &str) -> Error {
        Error::Gone(format!(
            "{why} (topic {}, partition {}): drop the copy here and rebuild it from the beginning",
            self.topic, self.partition
        ))
    }
}

impl KafkaChangelog {
    /// Opens a partition of a topic that exists, and with that ends who had it open under this name. Blocks: for as long as
    /// the broker needs to end the other's transaction, which is up to a second, or until
    /// the broker has been away for half a minute.
    pub fn open(cluster: &Cluster, topic: &str, partition: i32, transactional_id: &str) -> Result<Self, Error> {
        let mut writer = ChangelogWriter::open(cluster, topic, partition, transactional_id)?;
        let mark = writer.client().and_then(|client| topic_id(client.client(), topic)).map_or(0, mark_of);
        let spot = StateOffset { cluster: cluster.clone(), topic: topic.to_owned(), partition, mark };
        // Nobody else can write from here on, so the last term there is the last there will be.
        let term = replay::last_term(&spot)? + 1;
        writer.begin_term(term)?;
        tracing::info!(topic, partition, term, "changelog opened");
        Ok(KafkaChangelog { spot, term, writer: Mutex::new(writer) })
    }

    /// The number of this opening; each is higher than all before it.
    pub fn term(&self) -> u64 {
        self.term
    }
}

/// 16 bits of a topic's id, not all of them zero.
fn mark_of(id: u128) -> u64 {
    let folded = (0..8).fold(0u16, |sum, part| sum ^ u16::try_from((id >> (16 * part)) & 0xffff).unwrap_or(0));
    u64::from(folded.max(1))
}

impl Changelog for KafkaChangelog {
    fn commit(&self, writes: &[Write]) -> Result<u64, Error> {
        let mut writer = self.writer.lock();
        writer.commit(writes).map(|offset| self.spot.place(offset))
    }

    fn replay(&self, place: u64, each: &mut dyn FnMut(Vec<Write>, u64) -> Result<(), Error>) -> Result<u64, Error> {
        replay::replay(&self.spot, place, each)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_knows_its_topic() {
        let spot = |id| StateOffset { cluster: Cluster::default(), topic: "t".into(), partition: 0, mark: mark_of(id) };
        let (one, other) = (spot(0x1234 << 40), spot(0x4321 << 40));
        assert_eq!(one.offset(one.place(77)), Some(77));
        assert_eq!(other.offset(one.place(77)), None);
        assert_eq!(other.offset(0), Some(0), "the beginning is any topic's");
        assert_ne!(mark_of(0x10001), 0);
    }
}
