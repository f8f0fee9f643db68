//! Many messages in one piece of memory: copied out of the client's once, nothing allocated per message. Of messages that
//! are passed by only their number is kept, and where each partition goes on behind them.

use rdkafka::message::{BorrowedMessage, Headers, Message as _};
use std::collections::BTreeMap;
use std::ops::Range;
use syncline_engine::model::Timestamp;

/// Most messages of a chunk.
pub const CHUNK_MESSAGES: usize = 1_000;
/// A chunk with so many bytes takes no more messages.
pub const CHUNK_BYTES: usize = 1 << 20;

/// A chunk with so many messages passed by takes no more.
pub const CHUNK_PASSED: u64 = 10_000;

/// Messages of one topic, in order per partition.
#[derive(Debug, Default)]
pub struct Chunk {
    bytes: Vec<u8>,
    slots: Vec<Slot>,
    headers: Vec<(Range<usize>, Option<Range<usize>>)>,
    passed: BTreeMap<i32, i64>,
    passes: u64,
}

#[derive(Debug)]
struct Slot {
    partition: i32,
    offset: i64,
    timestamp: Option<Timestamp>,
    key: Option<Range<usize>>,
    value: Option<Range<usize>>,
    headers: Range<usize>,
}

/// A message as it lies in a topic.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    chunk: &'a Chunk,
    slot: &'a Slot,
}

impl Chunk {
    pub(super) fn add(&mut self, message: &BorrowedMessage<'_>) {
        let from = self.headers.len();
        if let Some(headers) = message.headers() {
            for header in headers.iter() {
                let key = self.lay(header.key.as_bytes());
                let value = header.value.map(|value| self.lay(value));
                self.headers.push((key, value));
            }
        }
        let key = message.key().map(|key| self.lay(key));
        let value = message.payload().map(|value| self.lay(value));
        self.slots.push(Slot {
            partition: message.partition(),
            offset: message.offset(),
            timestamp: message.timestamp().to_millis().filter(|ms| *ms >= 0).map(Timestamp::from_millis),
            key,
            value,
            headers: from..self.headers.len(),
        });
    }

    /// Notes a message as read without keeping it.
    pub(super) fn pass(&mut self, partition: i32, offset: i64) {
        self.passed.insert(partition, offset + 1);
        self.passes += 1;
    }

    fn lay(&mut self, bytes: &[u8]) -> Range<usize> {
        let from = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        from..self.bytes.len()
    }

    /// Whether no more should be added.
    pub(super) fn full(&self) -> bool {
        self.slots.len() >= CHUNK_MESSAGES || self.bytes.len() >= CHUNK_BYTES || self.passes >= CHUNK_PASSED
    }

    /// How many messages.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there is none, passed ones aside.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// The messages, in the order they were read.
    pub fn messages(&self) -> impl Iterator<Item = Message<'_>> {
        self.slots.iter().map(|slot| Message { chunk: self, slot })
    }

    /// The offset after the last message that was passed by, of each partition that had some.
    pub fn passed(&self) -> impl Iterator<Item = (i32, i64)> {
        self.passed.iter().map(|(partition, next)| (*partition, *next))
    }

    /// How many messages were passed by.
    pub fn passes(&self) -> u64 {
        self.passes
    }

    fn cut(&self, range: &Range<usize>) -> &[u8] {
        self.bytes.get(range.clone()).unwrap_or_default()
    }
}

impl<'a> Message<'a> {
    /// Its partition.
    pub fn partition(&self) -> i32 {
        self.slot.partition
    }

    /// Its offset.
    pub fn offset(&self) -> i64 {
        self.slot.offset
    }

    /// The time its writer or the broker gave it.
    pub fn timestamp(&self) -> Option<Timestamp> {
        self.slot.timestamp
    }

    /// Its key.
    pub fn key(&self) -> Option<&'a [u8]> {
        self.slot.key.as_ref().map(|range| self.chunk.cut(range))
    }

    /// Its value; `None` for a tombstone.
    pub fn value(&self) -> Option<&'a [u8]> {
        self.slot.value.as_ref().map(|range| self.chunk.cut(range))
    }

    /// Bytes of key and value.
    pub fn size(&self) -> usize {
        self.key().map_or(0, <[u8]>::len) + self.value().map_or(0, <[u8]>::len)
    }

    /// Its headers in order.
    pub fn headers(&self) -> impl Iterator<Item = (&'a str, Option<&'a [u8]>)> {
        let chunk = self.chunk;
        let mine = chunk.headers.get(self.slot.headers.clone()).unwrap_or_default();
        mine.iter().map(move |(key, value)| {
            let key = std::str::from_utf8(chunk.cut(key)).unwrap_or_default();
            (key, value.as_ref().map(|range| chunk.cut(range)))
        })
    }

    /// Whether it has headers at all.
    pub fn has_headers(&self) -> bool {
        !self.slot.headers.is_empty()
    }

    /// The value of the last header of this name.
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        self.headers().filter(|(key, _)| *key == name).last().and_then(|(_, value)| value)
    }
}
