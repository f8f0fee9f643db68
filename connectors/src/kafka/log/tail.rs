//! The end of a partition, followed: what was appended last, in memory, and news of it for who waits.
//!
//! Promises: what the ring says it holds, it holds without a hole; it is bounded in entries and in bytes, oldest out first.
//! A broker that goes away is waited for. A topic that is not the one we opened any more is said, for good.

use super::LogShared;
use crate::kafka::reader::{Isolation, NextMessage, PartitionReader, Use};
use bytes::Bytes;
use rdkafka::message::{BorrowedMessage, Message};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Most entries kept in memory.
const RING_ENTRIES: usize = 8_192;
/// Most bytes kept in memory; the newest entry is kept whatever its size.
const RING_BYTES: usize = 16 << 20;
/// Entries made known at a time.
const NEWS_ENTRIES: usize = 256;
/// How long one look for news takes at most, and so how soon the tail ends when its log goes.
const LOOK: Duration = Duration::from_millis(100);
/// After this many looks without news the topic's id is compared.
const IDLE_LOOKS: u32 = 100;
/// Wait before another client is made where the last could not be.
const AGAIN: Duration = Duration::from_millis(500);

/// The last entries: all with `from < position <= through`.
#[derive(Default)]
pub(super) struct Ring {
    entries: VecDeque<(u64, Bytes)>,
    bytes: usize,
    from: u64,
    through: u64,
}

impl Ring {
    fn begin(&mut self, at: u64) {
        *self = Ring { from: at, through: at, ..Ring::default() };
    }

    fn push(&mut self, position: u64, entry: Bytes) {
        self.bytes += entry.len();
        self.entries.push_back((position, entry));
        self.through = position;
        while self.entries.len() > RING_ENTRIES || (self.bytes > RING_BYTES && self.entries.len() > 1) {
            if let Some((position, entry)) = self.entries.pop_front() {
                self.bytes -= entry.len();
                self.from = position;
            }
        }
    }

    /// Up to `limit` entries after a position; `None` if the ring does not know what comes next.
    pub(super) fn after(&self, position: u64, limit: usize) -> Option<Vec<(u64, Bytes)>> {
        if position < self.from || position >= self.through {
            return None;
        }
        let start = self.entries.partition_point(|(at, _)| *at <= position);
        Some(self.entries.range(start..).take(limit).cloned().collect())
    }
}

/// The thread that follows; it ends soon after its log.
pub(super) struct Tail {
    stop: Arc<AtomicBool>,
}

impl Drop for Tail {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
    }
}

impl Tail {
    pub(super) fn start(shared: Arc<LogShared>, topic_id: Option<u128>) -> Tail {
        let stop = Arc::new(AtomicBool::new(false));
        let follower = TailReader { shared, topic_id, stop: stop.clone() };
        let name = format!("syncline-tail-{}", follower.shared.partition);
        let started = std::thread::Builder::new().name(name).spawn(move || follower.run());
        if let Err(error) = started {
            tracing::error!(%error, "nobody follows the log: entries are read from the broker, watchers are not woken");
        }
        Tail { stop }
    }
}

struct TailReader {
    shared: Arc<LogShared>,
    topic_id: Option<u128>,
    stop: Arc<AtomicBool>,
}

impl TailReader {
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire) || self.shared.gone.get().is_some()
    }

    fn run(self) {
        while !self.stopped() {
            let begun = PartitionReader::new(
                &self.shared.cluster,
                &self.shared.topic,
                self.shared.partition,
                Isolation::All,
                Use::Follow,
            )
            .and_then(|reader| reader.seek(self.begin()).map(|()| reader));
            match begun {
                Ok(reader) => self.follow(&reader),
                Err(error) => {
                    tracing::warn!(%error, "the log is not followed yet");
                    std::thread::sleep(AGAIN);
                }
            }
        }
    }

    /// The ring begins anew at the end that is known; the offset of the entry after it.
    fn begin(&self) -> u64 {
        let end = *self.shared.end.borrow();
        self.shared.ring.lock().begin(end);
        end
    }

    /// Until it ends or the place has gone.
    fn follow(&self, reader: &PartitionReader) {
        let mut idle = 0;
        let mut news = Vec::with_capacity(NEWS_ENTRIES);
        while !self.stopped() {
            match reader.step(LOOK) {
                NextMessage::Message(message) => {
                    idle = 0;
                    news.push(entry(&message));
                    while news.len() < NEWS_ENTRIES
                        && let NextMessage::Message(message) = reader.step(Duration::ZERO)
                    {
                        news.push(entry(&message));
                    }
                    self.tell(&mut news);
                }
                NextMessage::OutOfRange => return self.out_of_range(reader),
                NextMessage::End => {}
                NextMessage::Idle => idle += 1,
            }
            if idle >= IDLE_LOOKS {
                idle = 0;
                self.compare(reader);
            }
        }
    }

    fn tell(&self, news: &mut Vec<(u64, Bytes)>) {
        let end = news.last().map_or(0, |(position, _)| *position);
        let mut ring = self.shared.ring.lock();
        for (position, entry) in news.drain(..) {
            ring.push(position, entry);
        }
        drop(ring);
        self.shared.raise(end);
    }

    /// The place after the last entry we saw is not there: removed by someone, or never there in this topic.
    fn out_of_range(&self, reader: &PartitionReader) {
        self.compare(reader);
        let end = *self.shared.end.borrow();
        match reader.watermarks() {
            Ok((_, high)) if high < end => {
                self.shared.lost(&format!("entry {end} was seen and the log ends at {high} now"));
            }
            // Removed up to beyond our place: who reads from there is told; news go on from what there is.
            Ok((low, _)) => self.shared.raise(low),
            Err(error) => tracing::debug!(%error, "asked again later"),
        }
    }

    fn compare(&self, reader: &PartitionReader) {
        if let (Some(was), Some(is)) = (self.topic_id, reader.topic_id())
            && was != is
        {
            self.shared.lost("the topic was deleted and made anew");
        }
    }
}

fn entry(message: &BorrowedMessage<'_>) -> (u64, Bytes) {
    let position = u64::try_from(message.offset()).unwrap_or(0) + 1;
    (position, Bytes::copy_from_slice(message.payload().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ring_answers_only_what_it_knows_whole() {
        let mut ring = Ring::default();
        ring.begin(10);
        assert_eq!(ring.after(10, 5), None, "what comes next is not known");
        for position in 11..=14 {
            ring.push(position, Bytes::from_static(b"x"));
        }
        assert_eq!(ring.after(9, 5), None);
        let positions =
            |found: Option<Vec<(u64, Bytes)>>| found.map(|f| f.into_iter().map(|e| e.0).collect::<Vec<_>>());
        assert_eq!(positions(ring.after(10, 2)), Some(vec![11, 12]));
        assert_eq!(positions(ring.after(12, 9)), Some(vec![13, 14]));
        assert_eq!(ring.after(14, 9), None);
    }

    #[test]
    fn the_ring_is_bounded_in_entries_and_bytes() {
        let mut ring = Ring::default();
        for position in 1..=(RING_ENTRIES as u64 + 3) {
            ring.push(position, Bytes::new());
        }
        assert_eq!(ring.entries.len(), RING_ENTRIES);
        assert_eq!((ring.after(2, 1), ring.after(3, 1)), (None, Some(vec![(4, Bytes::new())])));
        ring.push(9_000, Bytes::from(vec![0; RING_BYTES + 1]));
        assert_eq!(ring.entries.len(), 1, "one entry is kept whatever its size");
    }
}
