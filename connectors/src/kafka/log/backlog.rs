//! What lies further back than memory reaches, read from the broker.
//!
//! Promises: entries in order without a hole; what was removed is said unless it was removed by trimming.

use super::LogShared;
use crate::kafka::reader::{Isolation, NextMessage, PartitionReader, Use};
use bytes::Bytes;
use rdkafka::message::Message;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use syncline_engine::log::Error;

/// Most bytes of one answer; one entry is given whatever its size.
const PAGE_BYTES: usize = 8 << 20;
/// How long one look takes at most.
const LOOK: Duration = Duration::from_millis(100);
/// Looks without anything before the broker counts as away.
const LOOKS: u32 = 100;

/// A reader that goes where it is asked, and on from there.
pub(super) struct Backlog {
    shared: Arc<LogShared>,
    topic_id: Option<u128>,
    reader: PartitionReader,
    /// Position of the last entry given; the client is behind it.
    at: Option<u64>,
}

impl Backlog {
    pub(super) fn new(shared: Arc<LogShared>, topic_id: Option<u128>) -> Result<Self, Error> {
        let reader = PartitionReader::new(&shared.cluster, &shared.topic, shared.partition, Isolation::All, Use::Seek)?;
        Ok(Backlog { shared, topic_id, reader, at: None })
    }

    /// Up to `limit` entries after a position, none behind `end`, which is known to be there. Blocks.
    pub(super) fn read(&mut self, after: u64, limit: usize, end: u64) -> Result<Vec<(u64, Bytes)>, Error> {
        let there = self.at == Some(after) && after >= self.shared.trimmed.load(Ordering::Acquire);
        if !there && self.go(after)? >= end {
            return Ok(Vec::new());
        }
        let (mut entries, mut bytes, mut idle) = (Vec::new(), 0, 0);
        self.at = None;
        while entries.len() < limit && bytes < PAGE_BYTES && idle < LOOKS {
            match self.reader.step(LOOK) {
                NextMessage::Message(message) => {
                    idle = 0;
                    let position = u64::try_from(message.offset()).unwrap_or(0) + 1;
                    let entry = Bytes::copy_from_slice(message.payload().unwrap_or_default());
                    bytes += entry.len();
                    entries.push((position, entry));
                    if position >= end {
                        break;
                    }
                }
                NextMessage::OutOfRange => {
                    let last = entries.last().map_or(after, |(position, _)| *position);
                    // Removed while it was read: either that is said here, or it was us.
                    if self.go(last)? >= end {
                        break;
                    }
                    idle += 1;
                }
                NextMessage::End | NextMessage::Idle => idle += 1,
            }
        }
        if let Some((last, _)) = entries.last() {
            self.at = Some(*last);
            return Ok(entries);
        }
        Err(Error::Unreachable(format!(
            "entries {} to {end} of {} (partition {}) are there and no broker gives them; they are read as soon as one does",
            after + 1,
            self.shared.topic,
            self.shared.partition
        )))
    }

    /// Goes behind a position, or behind what was trimmed; answers where it is then.
    fn go(&mut self, after: u64) -> Result<u64, Error> {
        self.at = None;
        if let (Some(was), Some(is)) = (self.topic_id, self.reader.topic_id())
            && was != is
        {
            return Err(self.shared.lost("the topic was deleted and made anew"));
        }
        let (low, high) = self.reader.watermarks()?;
        if after > high {
            return Err(self.shared.gone(&format!("entry {after} was read once and the log ends at {high} now")));
        }
        let start = after.max(low).max(self.shared.trimmed.load(Ordering::Acquire));
        if low > after && low > self.shared.trimmed.load(Ordering::Acquire) {
            let why = format!("entries {} to {low} were removed before they were read", after + 1);
            return Err(self.shared.gone(&why));
        }
        self.reader.seek(start)?;
        Ok(start)
    }
}
