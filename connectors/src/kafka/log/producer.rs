//! The one producer that all logs of a process write through.
//!
//! Promises: idempotent, acknowledged by all copies in sync. What is handed over in one call goes to its partition in that
//! order with nothing of this process in between. What waits for a broker is bounded in bytes, in number and in time.
//! After a time-out or a fatal error the client is replaced and what it still held is given up (and answered so), because a
//! client that gave up one message would send those behind it under a new number, and the broker could not tell repeats.

use crate::kafka::Cluster;
use crate::kafka::identity::topic_id;
use crate::kafka::polled::Polled;
use crate::kafka::reader::{ASK, unreachable, watermarks};
use parking_lot::{Mutex, MutexGuard};
use rdkafka::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, PurgeConfig};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use syncline_engine::log::{Error, WAITING_BYTES};
use tokio::sync::oneshot;

/// Largest message of our own topics.
pub const MOST_BYTES: usize = 64 << 20;
/// What a message's frame may take of that.
const FRAME_BYTES: usize = 64 << 10;
/// Most entries that may wait for the broker.
const WAITING_ENTRIES: usize = 262_144;
/// How long an append waits for a broker that is away.
pub const APPEND_PATIENCE: Duration = Duration::from_secs(15);
/// How long the broker may take to answer one request.
const REQUEST_PATIENCE: Duration = Duration::from_secs(10);

/// A message to be written: its key, and its value (none deletes).
pub(in crate::kafka) type KeyedMessage = (Option<Vec<u8>>, Option<Vec<u8>>);

/// A producer shared by all partitions of a cluster that this process writes to.
#[derive(Clone)]
pub struct SharedProducer {
    inner: Arc<SharedProducerInner>,
}

struct SharedProducerInner {
    cluster: Cluster,
    /// Held while one call's messages are handed over: that keeps them together.
    client: Mutex<Arc<Polled<LogReports>>>,
    waiting: Arc<WaitingAppend>,
}

#[derive(Default)]
struct WaitingAppend {
    bytes: AtomicUsize,
    entries: AtomicUsize,
}

/// Takes the broker's answers.
struct LogReports;

impl ClientContext for LogReports {
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "the producer goes on");
    }
}

impl ProducerContext for LogReports {
    type DeliveryOpaque = Arc<PendingAppend>;

    fn delivery(&self, result: &DeliveryResult<'_>, call: Arc<PendingAppend>) {
        match result {
            Ok(message) => call.landed(Ok(message.offset())),
            Err((error, message)) => call.landed(Err(refusal(error, message.payload_len() + message.key_len()))),
        }
    }
}

/// The messages of one call, on their way.
struct PendingAppend {
    state: Mutex<CallState>,
    waiting: Arc<WaitingAppend>,
    bytes: usize,
    entries: usize,
}

struct CallState {
    left: usize,
    result: Result<i64, Error>,
    answer: Option<oneshot::Sender<Result<i64, Error>>>,
}

impl PendingAppend {
    fn landed(&self, result: Result<i64, Error>) {
        let mut state = self.state.lock();
        state.left = state.left.saturating_sub(1);
        state.result = match (std::mem::replace(&mut state.result, Ok(-1)), result) {
            (Ok(one), Ok(other)) => Ok(one.max(other)),
            (Err(error), _) | (_, Err(error)) => Err(error),
        };
        if state.left == 0
            && let Some(answer) = state.answer.take()
        {
            // A caller that has gone away no longer waits for the answer.
            let _ = answer.send(state.result.clone());
        }
    }
}

impl Drop for PendingAppend {
    fn drop(&mut self) {
        self.waiting.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        self.waiting.entries.fetch_sub(self.entries, Ordering::Relaxed);
    }
}

/// What the broker's refusal means for who appended.
fn refusal(error: &KafkaError, size: usize) -> Error {
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::MessageSizeTooLarge) => Error::TooLarge { size, most: MOST_BYTES },
        _ => Error::Unreachable(format!("not acknowledged, so it may or may not be there: {error}")),
    }
}

impl SharedProducer {
    /// A producer for a cluster; nothing is asked of the broker yet.
    pub fn new(cluster: &Cluster) -> Result<Self, Error> {
        let client = Mutex::new(Arc::new(client(cluster)?));
        Ok(SharedProducer {
            inner: Arc::new(SharedProducerInner { cluster: cluster.clone(), client, waiting: Arc::default() }),
        })
    }

    /// The cluster it writes to.
    pub fn cluster(&self) -> &Cluster {
        &self.inner.cluster
    }

    /// First place of a partition and the place after its last. Blocks.
    pub(in crate::kafka) fn watermarks(&self, topic: &str, partition: i32) -> Result<(u64, u64), Error> {
        watermarks(self.current().client(), topic, partition)
    }

    /// The topic's id, if it can be had. Blocks.
    pub(in crate::kafka) fn topic_id(&self, topic: &str) -> Option<u128> {
        topic_id(self.current().client(), topic)
    }

    /// Writes the messages one after the other; the place of the last once all are acknowledged.
    ///
    /// Once polled it happens, whether the caller waits on or not.
    pub(in crate::kafka) async fn write(
        &self,
        topic: &str,
        partition: i32,
        pairs: Vec<KeyedMessage>,
    ) -> Result<u64, Error> {
        let (call, answered) = self.admit(&pairs)?;
        let client = {
            let client = self.held();
            submit(&client, topic, partition, &pairs, &call);
            client.clone()
        };
        drop((pairs, call));
        let result = answered.await.unwrap_or_else(|_| Err(Error::Unreachable("the producer has stopped".to_owned())));
        match result {
            Ok(offset) => u64::try_from(offset).map_err(|_| {
                Error::Unreachable("the broker took it a second time and no longer knows its place".to_owned())
            }),
            Err(error) => {
                if !matches!(error, Error::TooLarge { .. }) {
                    self.replace(&client);
                }
                Err(error)
            }
        }
    }

    /// Room for these messages among those that wait.
    fn admit(
        &self,
        pairs: &[KeyedMessage],
    ) -> Result<(Arc<PendingAppend>, oneshot::Receiver<Result<i64, Error>>), Error> {
        let size = |part: &Option<Vec<u8>>| part.as_ref().map_or(0, Vec::len);
        let sizes = pairs.iter().map(|(key, value)| size(key) + size(value));
        let most = MOST_BYTES - FRAME_BYTES;
        if let Some(size) = sizes.clone().find(|size| *size > most) {
            return Err(Error::TooLarge { size, most });
        }
        let (bytes, entries) = (sizes.sum(), pairs.len());
        let (answer, answered) = oneshot::channel();
        let waiting = &self.inner.waiting;
        let now = waiting.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let number = waiting.entries.fetch_add(entries, Ordering::Relaxed) + entries;
        let state = Mutex::new(CallState { left: entries, result: Ok(-1), answer: Some(answer) });
        // From here on dropping it gives the room back.
        let call = Arc::new(PendingAppend { state, waiting: waiting.clone(), bytes, entries });
        if now > WAITING_BYTES || number > WAITING_ENTRIES {
            return Err(Error::Overloaded(now));
        }
        Ok((call, answered))
    }

    fn held(&self) -> MutexGuard<'_, Arc<Polled<LogReports>>> {
        self.inner.client.lock()
    }

    fn current(&self) -> Arc<Polled<LogReports>> {
        self.held().clone()
    }

    /// Another client in place of one that gave something up; what the old one still holds is given up as well.
    fn replace(&self, spent: &Arc<Polled<LogReports>>) {
        let mut current = self.held();
        if !Arc::ptr_eq(&current, spent) {
            return;
        }
        match client(&self.inner.cluster) {
            Ok(fresh) => *current = Arc::new(fresh),
            Err(error) => return tracing::warn!(%error, "the producer stays as it is"),
        }
        drop(current);
        let spent = spent.clone();
        // It takes a moment to end, and nobody need wait for that.
        std::thread::spawn(move || {
            spent.purge(PurgeConfig::default().queue().inflight());
            let _ = spent.flush(ASK);
        });
    }
}

fn client(cluster: &Cluster) -> Result<Polled<LogReports>, Error> {
    let made = producing(cluster, APPEND_PATIENCE)
        .set("queue.buffering.max.messages", (2 * WAITING_ENTRIES).to_string())
        .set("queue.buffering.max.kbytes", (2 * WAITING_BYTES / 1024).to_string())
        .create_with_context(LogReports);
    made.map_err(|e| unreachable(&cluster.brokers, "the producer cannot be made", e))
}

/// The settings of every producer of ours: quick, idempotent, and patient for as long as said.
pub(in crate::kafka) fn producing(cluster: &Cluster, patience: Duration) -> ClientConfig {
    let mut config = cluster.client();
    config
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("compression.type", "lz4")
        .set("linger.ms", "0")
        .set("message.max.bytes", MOST_BYTES.to_string())
        .set("message.timeout.ms", patience.as_millis().to_string())
        .set("request.timeout.ms", REQUEST_PATIENCE.min(patience).as_millis().to_string())
        .set("retry.backoff.ms", "5")
        .set("retry.backoff.max.ms", "250")
        .set("reconnect.backoff.ms", "50")
        .set("reconnect.backoff.max.ms", "500");
    config
}

/// Hands the messages to the client; what it refuses counts as landed with that error.
fn submit(client: &Polled<LogReports>, topic: &str, partition: i32, pairs: &[KeyedMessage], call: &Arc<PendingAppend>) {
    let mut refused: Option<Error> = None;
    for (key, value) in pairs {
        if refused.is_none() {
            let mut record: BaseRecord<'_, [u8], [u8], _> =
                BaseRecord::with_opaque_to(topic, call.clone()).partition(partition);
            if let Some(key) = key {
                record = record.key(key);
            }
            if let Some(value) = value {
                record = record.payload(value);
            }
            refused = client.send(record).err().map(|(error, record)| {
                drop(record);
                refusal(&error, value.as_ref().map_or(0, Vec::len))
            });
        }
        // Nothing behind a refused message is sent: an append is cut short at most, never with a hole.
        if let Some(error) = &refused {
            call.landed(Err(error.clone()));
        }
    }
}
