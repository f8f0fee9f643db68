//! The log on one partition of a topic, for several processes.
//!
//! Position = offset + 1. Promises, where they differ from a log of this process alone:
//!
//! * Appended means: acknowledged by all copies in sync. If the broker is away longer than [`APPEND_PATIENCE`], the answer is
//!   `Unreachable`, and then the entries may or may not be there: who is told so asks for a repeat and recognises it.
//! * The entries of one append keep their order. They stand together among the appends of this process; another process's
//!   may come in between where a large append is sent as several batches.
//! * An append that is answered is readable here, from memory where who follows was quick ([`SEEN_PATIENCE`]), else from the
//!   broker; what other processes append wakes the watcher within milliseconds.
//! * A place that is not there any more is `Gone`, never replaced by another: behind the end (made anew, cut back), or
//!   removed while we were open by someone else than [`Log::trim`] here. What was removed before it was opened reads as
//!   trimmed; [`KafkaLog::check`] tells whether a stored place is still good.
//!
//! Nobody follows the partition until `read` or `end` is first asked, so a process that only appends holds no consumer.

mod backlog;
mod producer;
mod tail;

pub(in crate::kafka) use producer::producing;
pub use producer::{APPEND_PATIENCE, MOST_BYTES, SharedProducer};

use super::cluster::Cluster;
use super::reader::{ASK, unreachable};
use super::topics::{TopicSpec, name};
use async_trait::async_trait;
use backlog::Backlog;
use bytes::Bytes;
use parking_lot::Mutex;
use rdkafka::admin::AdminOptions;
use rdkafka::{Offset, TopicPartitionList};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use syncline_engine::log::{Error, Log};
use syncline_engine::time::{Clock, SystemClock};
use tail::{Ring, Tail};
use tokio::sync::watch;

/// How long an acknowledged append waits until it can be read from memory.
pub const SEEN_PATIENCE: Duration = Duration::from_millis(250);

/// The topic of the log: kept until it is trimmed, entries as large as we take.
pub fn log_topic(cluster: &Cluster) -> TopicSpec {
    TopicSpec::new(name(&[&cluster.prefix, "log", "inbox"]))
        .with("cleanup.policy", "delete")
        .with("retention.ms", "-1")
        .with("retention.bytes", "-1")
        .with("max.message.bytes", MOST_BYTES.to_string())
        .with("unclean.leader.election.enable", "false")
}

/// A log on one partition.
pub struct KafkaLog {
    producer: SharedProducer,
    shared: Arc<LogShared>,
    /// Who appends does not wait to see its entries if nobody follows.
    following: AtomicBool,
    tail: OnceLock<Tail>,
    backlog: Mutex<Option<Backlog>>,
    opened: OpenedPartition,
}

/// What the partition was when it was opened.
#[derive(Clone, Copy)]
struct OpenedPartition {
    topic_id: Option<u128>,
    low: u64,
}

/// What the log, its tail and its backlog know together.
struct LogShared {
    cluster: Cluster,
    topic: String,
    partition: i32,
    ring: Mutex<Ring>,
    end: watch::Sender<u64>,
    /// Everything up to here was trimmed through this log, or gone when it was opened.
    trimmed: AtomicU64,
    /// Why nothing can be read any more.
    gone: OnceLock<Error>,
}

impl LogShared {
    fn gone(&self, why: &str) -> Error {
        Error::Gone(format!(
            "{why} (topic {}, partition {}); what was not read cannot be read any more: drop what was built from it and \
             rebuild, or restore the topic",
            self.topic, self.partition
        ))
    }

    /// Says it for good.
    fn lost(&self, why: &str) -> Error {
        let error = self.gone.get_or_init(|| self.gone(why)).clone();
        tracing::error!(%error, "the log cannot be read on");
        error
    }

    fn raise(&self, end: u64) {
        self.end.send_if_modified(|now| {
            let higher = end > *now;
            *now = end.max(*now);
            higher
        });
    }
}

impl KafkaLog {
    /// The log on a partition of a topic that exists, with a producer of its own.
    pub async fn open(cluster: &Cluster, topic: &str, partition: i32) -> Result<Self, Error> {
        Self::open_with(&SharedProducer::new(cluster)?, topic, partition).await
    }

    /// The log on a partition of a topic that exists; all logs of a process may share one producer.
    pub async fn open_with(producer: &SharedProducer, topic: &str, partition: i32) -> Result<Self, Error> {
        let (asked, name) = (producer.clone(), topic.to_owned());
        let answer = tokio::task::spawn_blocking(move || {
            let (low, high) = asked.watermarks(&name, partition)?;
            Ok((low, high, asked.topic_id(&name)))
        });
        let (low, high, topic_id) = answer.await.map_err(|e| unreachable(topic, "the question ended early", e))??;
        let shared = LogShared {
            cluster: producer.cluster().clone(),
            topic: topic.to_owned(),
            partition,
            ring: Mutex::default(),
            end: watch::Sender::new(high),
            trimmed: AtomicU64::new(low),
            gone: OnceLock::new(),
        };
        Ok(KafkaLog {
            producer: producer.clone(),
            shared: Arc::new(shared),
            following: AtomicBool::new(false),
            tail: OnceLock::new(),
            backlog: Mutex::default(),
            opened: OpenedPartition { topic_id, low },
        })
    }

    /// Whether everything after a stored place is still there; `Gone` otherwise. To be asked once before reading on from a
    /// place of an earlier process.
    pub fn check(&self, place: u64) -> Result<(), Error> {
        if place < self.opened.low {
            let why = format!("entries {} to {} were removed before they were read", place + 1, self.opened.low);
            return Err(self.shared.gone(&why));
        }
        if place > *self.shared.end.borrow() {
            return self.beyond(place);
        }
        Ok(())
    }

    /// The topic's id as the broker has it: with a stored place it tells a topic made anew, however long that is by now.
    pub fn topic_id(&self) -> Option<u128> {
        self.opened.topic_id
    }

    /// Follows the partition from now on.
    fn follow(&self) {
        self.tail.get_or_init(|| {
            self.following.store(true, Ordering::Release);
            Tail::start(self.shared.clone(), self.opened.topic_id)
        });
    }

    /// A place after the end that we know: either others were quicker than our news, or it was never there.
    fn beyond(&self, place: u64) -> Result<(), Error> {
        let (_, high) = waiting(|| self.producer.watermarks(&self.shared.topic, self.shared.partition))?;
        if place <= high {
            return Ok(());
        }
        Err(self.shared.gone(&format!("entry {place} was read once and the log ends at {high} now")))
    }

    fn backlog(&self, after: u64, limit: usize, end: u64) -> Result<Vec<(u64, Bytes)>, Error> {
        waiting(|| {
            let mut held = self.backlog.lock();
            let backlog = match held.as_mut() {
                Some(backlog) => backlog,
                None => held.insert(Backlog::new(self.shared.clone(), self.opened.topic_id)?),
            };
            backlog.read(after, limit, end)
        })
    }

    /// Who reads from memory again needs no second consumer.
    fn caught_up(&self) {
        let held = self.backlog.try_lock().and_then(|mut held| held.take());
        if held.is_some() {
            // Its client takes a moment to end.
            std::thread::spawn(move || drop(held));
        }
    }
}

/// Runs what blocks so that a runtime's other tasks go on, where there is one that can.
fn waiting<T>(blocking: impl FnOnce() -> T) -> T {
    use tokio::runtime::{Handle, RuntimeFlavor};
    match Handle::try_current() {
        Ok(handle) if handle.runtime_flavor() == RuntimeFlavor::MultiThread => tokio::task::block_in_place(blocking),
        _ => blocking(),
    }
}

#[async_trait]
impl Log for KafkaLog {
    async fn append(&self, entries: Vec<Vec<u8>>) -> Result<u64, Error> {
        if entries.is_empty() {
            return Ok(*self.shared.end.borrow());
        }
        let began = SystemClock.now();
        let count = entries.len() as u64;
        let pairs = entries.into_iter().map(|entry| (None, Some(entry))).collect();
        let written = self.producer.write(&self.shared.topic, self.shared.partition, pairs).await;
        let outcome = if written.is_ok() { "ok" } else { "error" };
        metrics::counter!("syncline_kafka_appends_total", "outcome" => outcome).increment(count);
        let position = written? + 1;
        if self.following.load(Ordering::Acquire) {
            let mut end = self.shared.end.subscribe();
            let seen = end.wait_for(|end| *end >= position);
            if tokio::time::timeout(SEEN_PATIENCE, seen).await.is_err() {
                // Who follows is late; who reads now gets it from the broker.
                self.shared.raise(position);
            }
        } else {
            self.shared.raise(position);
        }
        metrics::histogram!("syncline_kafka_append_seconds").record(SystemClock.now().since(began).as_secs_f64());
        Ok(position)
    }

    fn read(&self, after: u64, limit: usize) -> Result<Vec<(u64, Bytes)>, Error> {
        if let Some(gone) = self.shared.gone.get() {
            return Err(gone.clone());
        }
        self.follow();
        let end = *self.shared.end.borrow();
        if after > end {
            return self.beyond(after).map(|()| Vec::new());
        }
        if limit == 0 || after == end {
            return Ok(Vec::new());
        }
        let held = {
            let ring = self.shared.ring.lock();
            ring.after(after.max(self.shared.trimmed.load(Ordering::Acquire)), limit)
        };
        match held {
            Some(entries) => {
                self.caught_up();
                Ok(entries)
            }
            None => self.backlog(after, limit, end),
        }
    }

    fn trim(&self, through: u64) -> Result<(), Error> {
        let (_, high) = waiting(|| self.producer.watermarks(&self.shared.topic, self.shared.partition))?;
        // Said before it is done: a reader that looks in between takes it as ours. Never lower than before.
        let through = through.min(high);
        let through = through.max(self.shared.trimmed.fetch_max(through, Ordering::AcqRel));
        if through == 0 {
            return Ok(());
        }
        let (cluster, topic, partition) =
            (self.shared.cluster.clone(), self.shared.topic.clone(), self.shared.partition);
        let removed = waiting(|| std::thread::spawn(move || remove(&cluster, &topic, partition, through)).join());
        removed.unwrap_or_else(|_| Err(Error::Unreachable("the removal ended early".to_owned())))
    }

    fn end(&self) -> watch::Receiver<u64> {
        self.follow();
        self.shared.end.subscribe()
    }
}

/// Removes everything before an offset.
fn remove(cluster: &Cluster, topic: &str, partition: i32, before: u64) -> Result<(), Error> {
    let failed = |e: &dyn std::fmt::Display| unreachable(topic, "its beginning cannot be removed", e);
    let admin = cluster.admin().map_err(|e| failed(&e.message))?;
    let mut list = TopicPartitionList::new();
    let offset = Offset::Offset(i64::try_from(before).unwrap_or(i64::MAX));
    list.add_partition_offset(topic, partition, offset).map_err(|e| failed(&e))?;
    let runtime = tokio::runtime::Builder::new_current_thread().build().map_err(|e| failed(&e))?;
    let options = AdminOptions::new().operation_timeout(Some(ASK)).request_timeout(Some(ASK));
    let answer = runtime.block_on(admin.delete_records(&list, &options)).map_err(|e| failed(&e))?;
    for element in answer.elements() {
        element.error().map_err(|e| failed(&e))?;
    }
    Ok(())
}
