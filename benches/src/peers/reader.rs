//! The reader of a changes topic: `read_committed`, on a thread of its own, counts what it sees and when.

use crate::Fault;
use crate::broker::Broker;
use crate::work::Changes;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Message as _, Offset, TopicPartitionList};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What was seen so far.
#[derive(Default)]
struct Seen {
    created: AtomicU64,
    updated: AtomicU64,
    deleted: AtomicU64,
    /// Ids with their time, while somebody wants them.
    times: Mutex<Option<Vec<(u64, Instant)>>>,
    stop: AtomicBool,
    fault: Mutex<Option<String>>,
}

/// A reader at work; ends with this value.
pub struct Reader {
    seen: Arc<Seen>,
    thread: Option<JoinHandle<()>>,
}

impl Reader {
    /// Reads `topic` from its begin.
    pub fn start(broker: &Broker, topic: &str, partitions: i32) -> Result<Reader, Fault> {
        let mut config = broker.client();
        config.set("group.id", "reader").set("isolation.level", "read_committed").set("enable.auto.commit", "false");
        config.set("queued.min.messages", "200000").set("fetch.wait.max.ms", "100");
        let consumer: BaseConsumer = config.create()?;
        let mut list = TopicPartitionList::new();
        for partition in 0..partitions {
            list.add_partition_offset(topic, partition, Offset::Beginning)?;
        }
        consumer.assign(&list)?;
        let seen = Arc::new(Seen::default());
        let thread = std::thread::spawn({
            let seen = Arc::clone(&seen);
            move || read(&consumer, &seen)
        });
        Ok(Reader { seen, thread: Some(thread) })
    }

    /// Changes seen so far.
    pub fn changes(&self) -> Result<Changes, Fault> {
        if let Some(fault) = lock(&self.seen.fault).clone() {
            return Err(format!("reading the changes: {fault}").into());
        }
        let count = |of: &AtomicU64| of.load(Ordering::Acquire);
        let seen = &self.seen;
        Ok(Changes { created: count(&seen.created), updated: count(&seen.updated), deleted: count(&seen.deleted) })
    }

    /// Begins to keep when each id is seen.
    pub fn keep_times(&self) {
        *lock(&self.seen.times) = Some(Vec::new());
    }

    /// Ends it: ids and when they were seen.
    pub fn times(&self) -> Vec<(u64, Instant)> {
        lock(&self.seen.times).take().unwrap_or_default()
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.seen.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            // A reader that died has said why.
            let _ = thread.join();
        }
    }
}

fn read(consumer: &BaseConsumer, seen: &Seen) {
    while !seen.stop.load(Ordering::Acquire) {
        let Some(polled) = consumer.poll(Duration::from_millis(50)) else { continue };
        let at = Instant::now();
        let message = match polled {
            Ok(message) => message,
            // A broker that is too busy to answer is waited for; whoever waits for changes has limited patience.
            Err(error) if passes(&error) => continue,
            Err(error) => {
                *lock(&seen.fault) = Some(error.to_string());
                return;
            }
        };
        let Some(op) = message.payload().and_then(op) else { continue };
        let of = match op {
            b'c' | b'r' => &seen.created,
            b'u' => &seen.updated,
            _ => &seen.deleted,
        };
        // The time first: whoever sees the count finds it.
        if let (Some(times), Some(id)) = (lock(&seen.times).as_mut(), message.key().and_then(id)) {
            times.push((id, at));
        }
        of.fetch_add(1, Ordering::AcqRel);
    }
}

/// Whether the client goes on by itself.
fn passes(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{AllBrokersDown, BrokerTransportFailure, OperationTimedOut};
    matches!(error.rdkafka_error_code(), Some(AllBrokersDown | BrokerTransportFailure | OperationTimedOut))
}

/// The letter behind `"op":"`. No record of ours has such a field; it stands in front or behind the records.
fn op(payload: &[u8]) -> Option<u8> {
    const MARK: &[u8] = b"\"op\":\"";
    let found = |part: &[u8]| part.windows(MARK.len()).position(|w| w == MARK).map(|at| at + MARK.len());
    if payload.get(1..1 + MARK.len()) == Some(MARK) {
        return payload.get(1 + MARK.len()).copied();
    }
    payload.get(found(payload)?).copied()
}

/// `123`, or the last part of `["connection","123"]`.
fn id(key: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(key).ok()?.trim_end_matches(['"', ']']);
    let digits = text.rsplit(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
