//! A changelog read: as far as it reaches now, in bounded chunks.

use super::writer::TERM_HEADER;
use super::{DELETES_KEPT, StateOffset, TERM_KEY};
use crate::kafka::reader::{NextMessage, PartitionReader};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use std::time::Duration;
use syncline_engine::log::{Error, Write};
use syncline_engine::time::{Clock, SystemClock};

/// A place with writes after it that are older than this is not read on from: deletions among them may be compacted away.
/// Half the time the broker keeps them.
pub const STALE: Duration = Duration::from_secs(DELETES_KEPT.as_secs() / 2);
/// Most writes of a chunk.
const CHUNK_WRITES: usize = 8_192;
/// Bytes after which a chunk is full.
const CHUNK_BYTES: usize = 8 << 20;
/// How long one look takes at most.
const LOOK: Duration = Duration::from_millis(100);
/// Looks without anything before the broker counts as away.
const LOOKS: u32 = 200;
/// Offsets read first from the end to find the last term; twelve times as many each time there is none among them.
const LAST_OFFSETS: u64 = 4_096;

/// Hands out all messages with `from <= offset < to`. Control records and what compaction removed have offsets and are no
/// messages, so the end is known by the broker's word.
fn scan(
    reader: &PartitionReader,
    spot: &StateOffset,
    from: u64,
    to: u64,
    mut each: impl FnMut(&BorrowedMessage<'_>) -> Result<(), Error>,
) -> Result<(), Error> {
    if from >= to {
        return Ok(());
    }
    reader.seek(from)?;
    let mut idle = 0;
    loop {
        match reader.step(LOOK) {
            NextMessage::Message(message) => {
                idle = 0;
                let offset = u64::try_from(message.offset()).unwrap_or(0);
                if offset < to {
                    each(&message)?;
                }
                if offset + 1 >= to {
                    return Ok(());
                }
            }
            NextMessage::End => return Ok(()),
            NextMessage::OutOfRange => return Err(spot.gone(&format!("offset {from} is not there any more"))),
            NextMessage::Idle => idle += 1,
        }
        if idle >= LOOKS {
            let what = format!(
                "the changelog {}/{} was read from {from} and not to its end at {to}",
                spot.topic, spot.partition
            );
            return Err(Error::Unreachable(what));
        }
    }
}

/// The highest term among the last messages; 0 if nobody ever opened it.
pub(super) fn last_term(spot: &StateOffset) -> Result<u64, Error> {
    let reader = spot.reader()?;
    let (low, high) = reader.watermarks()?;
    let mut span = LAST_OFFSETS;
    loop {
        let from = high.saturating_sub(span).max(low);
        let mut term = 0;
        scan(&reader, spot, from, high, |message| {
            term = term.max(term_of(message));
            Ok(())
        })?;
        if term > 0 || from == low {
            return Ok(term);
        }
        span = span.saturating_mul(12);
    }
}

/// See [`syncline_engine::log::Changelog::replay`].
pub(super) fn replay(
    spot: &StateOffset,
    place: u64,
    each: &mut dyn FnMut(Vec<Write>, u64) -> Result<(), Error>,
) -> Result<u64, Error> {
    let Some(from) = spot.offset(place) else {
        return Err(spot.gone("the topic was deleted and made anew"));
    };
    let reader = spot.reader()?;
    let (low, high) = reader.watermarks()?;
    if from > high {
        return Err(spot.gone(&format!("the copy here reaches to {from} and the changelog ends at {high}")));
    }
    if place > 0 && from < high {
        refuse_stale(&reader, spot, from, high)?;
    }
    let mut chunk = ReplayedWrites::default();
    scan(&reader, spot, from.max(low), high, |message| {
        chunk.take(message);
        if chunk.is_full() { chunk.hand_out(spot, each) } else { Ok(()) }
    })?;
    chunk.hand_out(spot, each)?;
    if chunk.ignored > 0 {
        tracing::warn!(
            topic = spot.topic,
            partition = spot.partition,
            writes = chunk.ignored,
            "a zombie's writes ignored"
        );
    }
    Ok(spot.place(from.max(high)))
}

fn refuse_stale(reader: &PartitionReader, spot: &StateOffset, from: u64, high: u64) -> Result<(), Error> {
    let since = SystemClock.now().0 / 1_000 - i64::try_from(STALE.as_millis()).unwrap_or(i64::MAX);
    let fresh = reader.first_since(since)?.unwrap_or(high);
    // The record of the commit itself lies between its last write and the next commit's first.
    if fresh > from + 1 {
        return Err(spot.gone(&format!("the copy here is older than {} hours", STALE.as_secs() / 3600)));
    }
    Ok(())
}

/// Writes on their way to who reads.
#[derive(Default)]
struct ReplayedWrites {
    writes: Vec<Write>,
    bytes: usize,
    next: u64,
    term: u64,
    ignored: u64,
}

impl ReplayedWrites {
    fn take(&mut self, message: &BorrowedMessage<'_>) {
        self.next = u64::try_from(message.offset()).unwrap_or(0) + 1;
        let term = term_of(message);
        if term < self.term {
            self.ignored += 1;
            return;
        }
        self.term = term;
        let key = message.key().unwrap_or_default();
        if key == TERM_KEY {
            return;
        }
        let value = message.payload();
        self.bytes += key.len() + value.map_or(0, <[u8]>::len);
        self.writes.push(Write { key: key.to_vec(), value: value.map(<[u8]>::to_vec) });
    }

    fn is_full(&self) -> bool {
        self.writes.len() >= CHUNK_WRITES || self.bytes >= CHUNK_BYTES
    }

    fn hand_out(
        &mut self,
        spot: &StateOffset,
        each: &mut dyn FnMut(Vec<Write>, u64) -> Result<(), Error>,
    ) -> Result<(), Error> {
        if self.writes.is_empty() {
            return Ok(());
        }
        metrics::counter!("syncline_kafka_replayed_writes_total").increment(self.writes.len() as u64);
        self.bytes = 0;
        each(std::mem::take(&mut self.writes), spot.place(self.next))
    }
}

/// The term a message was written in.
fn term_of(message: &BorrowedMessage<'_>) -> u64 {
    let found = message.headers().and_then(|headers| headers.iter().find(|header| header.key == TERM_HEADER));
    found.and_then(|header| header.value).and_then(|value| value.try_into().ok()).map_or(0, u64::from_be_bytes)
}
