//! A board that all processes write on and all read: small values by key on a compacted topic of one partition.
//!
//! Promises: a write that is answered is seen by who wrote it, and within milliseconds by everybody else; the last write of
//! a key holds, in the order the broker took them. It is told, not decided: who may write what is settled elsewhere.

use super::cluster::{Cluster, failure};
use super::log::{SEEN_PATIENCE, SharedProducer};
use super::reader::{ASK, Isolation, NextMessage, PartitionReader, Use};
use super::topics::{self, TopicSpec, name};
use rdkafka::message::{BorrowedMessage, Message};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use syncline_engine::log::Error;
use syncline_engine::model::Failure;
use tokio::sync::watch;

/// Largest key with its value.
pub const BOARD_BYTES: usize = 64 << 10;
/// How long one look takes at most, and so how soon the reading ends when the board goes.
const LOOK: Duration = Duration::from_millis(100);
/// Wait before another reader is made where the last could not be.
const AGAIN: Duration = Duration::from_millis(500);

/// The topic of the board.
pub fn board_topic(cluster: &Cluster) -> TopicSpec {
    TopicSpec::new(name(&[&cluster.prefix, "log", "members"]))
        .partitions(1)
        .with("cleanup.policy", "compact")
        .with("segment.ms", (24u64 * 3600 * 1000).to_string())
}

/// What is written, by key.
pub type BoardEntries = Arc<BTreeMap<String, String>>;

/// The board.
pub struct Board {
    producer: SharedProducer,
    topic: String,
    notes: watch::Receiver<BoardEntries>,
    /// The place up to which it was read.
    seen: watch::Receiver<u64>,
    stop: Arc<AtomicBool>,
}

impl Drop for Board {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
    }
}

impl Board {
    /// Opens the board, makes its topic if there is none, and reads it once.
    pub async fn open(producer: &SharedProducer) -> Result<Board, Failure> {
        let cluster = producer.cluster();
        let wanted = board_topic(cluster);
        topics::ensure(cluster, std::slice::from_ref(&wanted)).await?;
        let (stop, topic) = (Arc::new(AtomicBool::new(false)), wanted.name);
        let (notes, all) = watch::channel(BoardEntries::default());
        let (seen, mut read) = watch::channel(0);
        let follower = BoardReader { cluster: cluster.clone(), topic: topic.clone(), notes, seen, stop: stop.clone() };
        std::thread::Builder::new()
            .name("syncline-board".to_owned())
            .spawn(move || follower.run())
            .map_err(|e| failure("kafka_board", "the board cannot be read", e))?;
        let board = Board { producer: producer.clone(), topic: topic.clone(), notes: all, seen: read.clone(), stop };
        let asked = producer.clone();
        let ends = tokio::task::spawn_blocking(move || asked.watermarks(&topic, 0)).await;
        let ends = ends.map_err(|e| failure("kafka_board", "the question ended early", e))?;
        let (_, high) = ends.map_err(|e| failure("kafka_unreachable", "the board cannot be read", e))?;
        let there = tokio::time::timeout(2 * ASK, read.wait_for(|seen| *seen >= high)).await;
        match there {
            Ok(Ok(_)) => Ok(board),
            _ => Err(failure("kafka_unreachable", "the board cannot be read", format!("nothing came within {ASK:?}"))),
        }
    }

    /// Writes a value under a key.
    pub async fn put(&self, key: &str, value: &str) -> Result<(), Error> {
        self.write(key, Some(value.as_bytes().to_vec())).await
    }

    /// Removes a key.
    pub async fn remove(&self, key: &str) -> Result<(), Error> {
        self.write(key, None).await
    }

    async fn write(&self, key: &str, value: Option<Vec<u8>>) -> Result<(), Error> {
        let size = key.len() + value.as_ref().map_or(0, Vec::len);
        if size > BOARD_BYTES {
            return Err(Error::TooLarge { size, most: BOARD_BYTES });
        }
        let offset = self.producer.write(&self.topic, 0, vec![(Some(key.as_bytes().to_vec()), value)]).await?;
        let mut seen = self.seen.clone();
        // It is written all the same; it is seen as soon as the broker can be read.
        let _ = tokio::time::timeout(SEEN_PATIENCE, seen.wait_for(|seen| *seen > offset)).await;
        Ok(())
    }

    /// The value under a key.
    pub fn get(&self, key: &str) -> Option<String> {
        self.notes.borrow().get(key).cloned()
    }

    /// All there is.
    pub fn all(&self) -> BoardEntries {
        self.notes.borrow().clone()
    }

    /// Wakes who waits for a change.
    pub fn changed(&self) -> watch::Receiver<BoardEntries> {
        self.notes.clone()
    }
}

struct BoardReader {
    cluster: Cluster,
    topic: String,
    notes: watch::Sender<BoardEntries>,
    seen: watch::Sender<u64>,
    stop: Arc<AtomicBool>,
}

impl BoardReader {
    fn run(self) {
        while !self.stop.load(Ordering::Acquire) {
            let begun =
                PartitionReader::new(&self.cluster, &self.topic, 0, Isolation::All, Use::Follow).and_then(|reader| {
                    let ends = reader.watermarks()?;
                    reader.seek(ends.0).map(|()| (reader, ends))
                });
            match begun {
                Ok((reader, (_, high))) => self.follow(&reader, high),
                Err(error) => {
                    tracing::warn!(%error, "the board is not read yet");
                    std::thread::sleep(AGAIN);
                }
            }
        }
    }

    /// Reads along; ends where the place is not there any more, and then it is all read anew.
    fn follow(&self, reader: &PartitionReader, high: u64) {
        let (mut notes, mut next) = (BTreeMap::new(), 0);
        if high == 0 {
            self.publish(&notes, 0);
        }
        while !self.stop.load(Ordering::Acquire) {
            match reader.step(LOOK) {
                NextMessage::Message(message) => {
                    next = u64::try_from(message.offset()).unwrap_or(0) + 1;
                    apply(&mut notes, &message);
                    if next >= high {
                        self.publish(&notes, next);
                    }
                }
                // What compaction removed is behind us as well.
                NextMessage::End => self.publish(&notes, next.max(high)),
                NextMessage::OutOfRange => return,
                NextMessage::Idle => {}
            }
        }
    }

    fn publish(&self, notes: &BTreeMap<String, String>, seen: u64) {
        self.notes.send_if_modified(|now| {
            let differs = **now != *notes;
            if differs {
                *now = Arc::new(notes.clone());
            }
            differs
        });
        self.seen.send_replace(seen);
    }
}

fn apply(notes: &mut BTreeMap<String, String>, message: &BorrowedMessage<'_>) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let key = text(message.key().unwrap_or_default());
    match message.payload() {
        Some(value) => notes.insert(key, text(value)),
        None => notes.remove(&key),
    };
}
