//! A producer whose effects appear once: messages and the place behind them become visible together, or not at all.
//!
//! Promises: what was sent since the last [`TopicWriter::commit`] is visible to `read_committed` readers if and only if the place
//! of that commit is the one read back; a writer opened under a name ends all older ones of that name, wherever they run
//! (they meet [`WriterTrouble::Fenced`]); when an outcome is unknown that is said ([`WriterTrouble::Reopen`]), never guessed.
//!
//! Everything blocks; each wait is bounded and looks at the halt flag at least once in [`TRY`].

use super::envelope::OutgoingMessage;
use super::places::{self, Patience, ProducerPlace};
use crate::kafka::cluster::{Cluster, failure};
use crate::kafka::pace::Pace;
use crate::kafka::polled::Polled;
use bytes::Bytes;
use rdkafka::client::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use syncline_engine::fault::pass;
use syncline_engine::model::Failure;

/// One try of anything that waits for the broker.
const TRY: Duration = Duration::from_secs(1);
/// Tries to begin, to commit, to abort.
const TRIES: u32 = 30;
/// Waits of [`TRY`] for messages to be taken by the broker: longer than librdkafka's own patience with them.
const DELIVERY_TRIES: u32 = 90;
/// Between two looks at the last reports on their way.
const LOOK: Duration = Duration::from_micros(50);
/// Largest batch of messages where nothing smaller is asked for.
pub const BATCH_BYTES: usize = 1_000_000;

/// Ours unless the settings say otherwise.
const DEFAULTS: [(&str, &str); 7] = [
    ("compression.type", "lz4"),
    ("linger.ms", "0"),
    ("retry.backoff.ms", "2"),
    ("retry.backoff.max.ms", "100"),
    ("transaction.timeout.ms", "15000"),
    ("queue.buffering.max.kbytes", "65536"),
    ("partitioner", "murmur2_random"),
];

/// Why a writer could not go on, by what is to be done about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WriterTrouble {
    /// Nothing since the last commit is visible or will be: write it again.
    Again(Failure),
    /// What was committed is not known, or this producer is broken: open anew and go on behind the place read then.
    Reopen(Failure),
    /// A younger writer of the same name has taken over, or the broker gave this one up for dead because a transaction was
    /// open for too long. Which of the two, the place tells: whoever takes over writes it first.
    Fenced(Failure),
}

impl WriterTrouble {
    /// What went wrong.
    pub fn failure(&self) -> &Failure {
        match self {
            WriterTrouble::Again(failure) | WriterTrouble::Reopen(failure) | WriterTrouble::Fenced(failure) => failure,
        }
    }
}

/// What is known of messages on their way.
#[derive(Default)]
struct Deliveries {
    state: Mutex<PendingSend>,
    moved: Condvar,
}

#[derive(Default)]
struct PendingSend {
    outstanding: usize,
    failed: Option<KafkaError>,
}

impl Deliveries {
    fn lock(&self) -> MutexGuard<'_, PendingSend> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits a bounded time for a report.
    fn wait(&self, state: MutexGuard<'_, PendingSend>, longest: Duration) {
        drop(self.moved.wait_timeout(state, longest).unwrap_or_else(PoisonError::into_inner));
    }
}

/// Callbacks of the producer.
#[derive(Clone)]
struct OutputReports(Arc<Deliveries>);

impl ClientContext for OutputReports {
    fn error(&self, error: KafkaError, reason: &str) {
        // Said once by whoever meets its effect.
        tracing::debug!(%error, reason, "kafka producer");
    }
}

impl ProducerContext for OutputReports {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let mut state = self.0.lock();
        state.outstanding = state.outstanding.saturating_sub(1);
        if let Err((error, _)) = result {
            state.failed.get_or_insert_with(|| error.clone());
        }
        let wake = state.outstanding == 0 || state.failed.is_some();
        drop(state);
        if wake {
            self.0.moved.notify_all();
        }
    }
}

/// See the module.
pub struct TopicWriter {
    producer: Polled<OutputReports>,
    deliveries: Arc<Deliveries>,
    name: String,
    places: String,
    /// The partition of our places.
    spot: i32,
    /// Set by whoever wants this to end.
    halt: Arc<AtomicBool>,
    open: bool,
    pace: Pace,
    messages: usize,
    bytes: usize,
}

impl TopicWriter {
    /// Takes over the name, and answers with the last place written under it. `batch` bounds batches of messages; the
    /// topic of places must exist.
    pub fn open(
        cluster: &Cluster,
        name: &str,
        batch: usize,
        halt: Arc<AtomicBool>,
    ) -> Result<(TopicWriter, Option<ProducerPlace>), WriterTrouble> {
        let deliveries = Arc::new(Deliveries::default());
        let producer = config(cluster, name, batch)
            .create_with_context(OutputReports(deliveries.clone()))
            .map_err(|e| WriterTrouble::Reopen(failure("kafka_settings", "the Kafka producer cannot be made", e)))?;
        let (name, places) = (name.to_owned(), places::topic(cluster));
        let (open, messages, bytes, spot) = (false, 0, 0, 0);
        let mut writer = TopicWriter {
            producer,
            deliveries,
            name,
            places,
            spot,
            halt,
            open,
            pace: Pace::default(),
            messages,
            bytes,
        };
        writer.begin_life()?;
        let read = places::read(cluster, &writer.name, Patience::Settled, &writer.halt);
        let (place, spot) = read.map_err(WriterTrouble::Reopen)?;
        writer.spot = spot;
        Ok((writer, place))
    }

    /// Ends older writers and what they had begun.
    fn begin_life(&self) -> Result<(), WriterTrouble> {
        pass("k.out_init");
        for _ in 0..TRIES {
            match self.producer.init_transactions(TRY) {
                Ok(()) => return Ok(()),
                Err(error) if retriable(&error) => self.look_at_halt()?,
                Err(error) => return Err(self.classify("the producer cannot begin", error)),
            }
        }
        Err(WriterTrouble::Reopen(failure(
            "kafka_unreachable",
            "the producer cannot begin",
            "no answer from the broker",
        )))
    }

    /// Messages and bytes sent since the last commit.
    pub fn pending(&self) -> (usize, usize) {
        (self.messages, self.bytes)
    }

    /// How long the next transaction had better wait before it begins.
    pub fn rest(&self) -> Duration {
        self.pace.rest()
    }

    /// Sends a message in the current transaction, or begins one. Waits while too much is on its way.
    pub fn send(&mut self, message: &OutgoingMessage) -> Result<(), WriterTrouble> {
        if !self.open {
            pass("k.out_begin");
            if let Err(error) = self.producer.begin_transaction() {
                return Err(self.classify("a transaction cannot begin", error));
            }
            self.open = true;
            self.pace.begin();
        }
        for _ in 0..DELIVERY_TRIES {
            // Counted first: the report may come before `send` returns.
            self.deliveries.lock().outstanding += 1;
            let sent = self.producer.send(record(message));
            if sent.is_err() {
                let mut state = self.deliveries.lock();
                state.outstanding = state.outstanding.saturating_sub(1);
            }
            match sent {
                Ok(()) => {
                    self.messages += 1;
                    self.bytes += message.bytes();
                    return Ok(());
                }
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => self.wait_for_room()?,
                Err((error, _)) => return Err(self.give_up("a message cannot be sent", error)),
            }
        }
        Err(self.give_up("a message cannot be sent", KafkaError::Canceled))
    }

    /// Makes everything sent since the last commit visible, together with the place behind it.
    pub fn commit(&mut self, place: &ProducerPlace) -> Result<(), WriterTrouble> {
        let (topic, key) = (Arc::from(self.places.as_str()), Bytes::from(self.name.clone()));
        let value = Some(place.bytes());
        pass("k.out_sent");
        self.send(&OutgoingMessage {
            topic,
            partition: Some(self.spot),
            key,
            value,
            headers: Vec::new(),
            timestamp: 0,
        })?;
        self.delivered()?;
        self.pace.taken(self.messages);
        pass("k.out_commit_before");
        for _ in 0..TRIES {
            match self.producer.commit_transaction(TRY) {
                Ok(()) => {
                    pass("k.out_commit_after");
                    self.pace.committed();
                    self.fresh();
                    return Ok(());
                }
                Err(error) if retriable(&error) => self.look_at_halt()?,
                Err(error) => return Err(self.give_up("a transaction cannot be committed", error)),
            }
        }
        Err(WriterTrouble::Reopen(failure("commit_unknown", "a transaction may or may not be committed", "no answer")))
    }

    /// Forgets everything sent since the last commit.
    pub fn abort(&mut self) -> Result<(), WriterTrouble> {
        if !self.open {
            return Ok(());
        }
        for _ in 0..TRIES {
            match self.producer.abort_transaction(TRY) {
                Ok(()) => {
                    self.drained();
                    self.fresh();
                    return Ok(());
                }
                Err(error) if retriable(&error) => self.look_at_halt()?,
                Err(error) => return Err(self.classify("a transaction cannot be aborted", error)),
            }
        }
        Err(WriterTrouble::Reopen(failure("kafka_unreachable", "a transaction cannot be aborted", "no answer")))
    }

    fn fresh(&mut self) {
        (self.open, self.messages, self.bytes) = (false, 0, 0);
        self.deliveries.lock().failed = None;
    }

    /// Waits until the broker has taken everything.
    fn delivered(&mut self) -> Result<(), WriterTrouble> {
        for _ in 0..DELIVERY_TRIES {
            let state = self.deliveries.lock();
            if let Some(error) = state.failed.clone() {
                drop(state);
                return Err(self.give_up("a message was not taken", error));
            }
            if state.outstanding == 0 {
                drop(state);
                self.drained();
                return Ok(());
            }
            self.deliveries.wait(state, TRY);
            self.look_at_halt()?;
        }
        Err(self.give_up("messages were not taken", KafkaError::Canceled))
    }

    /// The last report is counted before librdkafka lets go of it; a commit begun in between would wait for 100 ms.
    fn drained(&self) {
        let mut looks = 0u32;
        while self.producer.in_flight_count() > 0 && looks < 2_000 {
            std::thread::sleep(LOOK);
            looks += 1;
        }
    }

    fn wait_for_room(&mut self) -> Result<(), WriterTrouble> {
        let state = self.deliveries.lock();
        if let Some(error) = state.failed.clone() {
            drop(state);
            return Err(self.give_up("a message was not taken", error));
        }
        self.deliveries.wait(state, LOOK * 20);
        self.look_at_halt()
    }

    /// Whether it was asked to end.
    pub fn look_at_halt(&self) -> Result<(), WriterTrouble> {
        if !self.halt.load(Ordering::Relaxed) {
            return Ok(());
        }
        Err(WriterTrouble::Reopen(failure("stopped", "the output was asked to end", "it goes on at the next start")))
    }

    /// Aborts where that helps.
    fn give_up(&mut self, what: &str, error: KafkaError) -> WriterTrouble {
        match self.classify(what, error) {
            WriterTrouble::Again(why) => match self.abort() {
                Ok(()) => WriterTrouble::Again(why),
                Err(worse) => worse,
            },
            other => other,
        }
    }

    fn classify(&self, what: &str, error: KafkaError) -> WriterTrouble {
        let fatal = self.producer.client().fatal_error();
        let code = match (&fatal, &error) {
            (Some((code, _)), _) => *code,
            (None, KafkaError::Transaction(error)) => error.code(),
            (None, error) => error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown),
        };
        let reason = fatal.as_ref().map_or_else(|| error.to_string(), |(_, text)| text.clone());
        let is_fenced = matches!(code, RDKafkaErrorCode::Fenced | RDKafkaErrorCode::ProducerFenced);
        if is_fenced {
            let message = format!("the producer `{}` was fenced off ({reason})", self.name);
            return WriterTrouble::Fenced(Failure {
                code: "output_fenced",
                message,
                status: None,
                retry: false,
                retry_after: None,
            });
        }
        let abortable = match &error {
            KafkaError::Transaction(error) => error.txn_requires_abort(),
            _ => true,
        };
        // Told apart because something can be done about it: asking again what the topic takes.
        let too_large = code == RDKafkaErrorCode::MessageSizeTooLarge;
        let failure = failure(if too_large { "message_too_large" } else { "kafka_write" }, what, reason);
        if fatal.is_none() && abortable { WriterTrouble::Again(failure) } else { WriterTrouble::Reopen(failure) }
    }
}

fn retriable(error: &KafkaError) -> bool {
    match error {
        KafkaError::Transaction(error) => error.is_retriable() && !error.txn_requires_abort() && !error.is_fatal(),
        // Messages still on their way when a commit was asked for.
        KafkaError::Flush(RDKafkaErrorCode::OperationTimedOut) => true,
        _ => false,
    }
}

fn config(cluster: &Cluster, name: &str, batch: usize) -> rdkafka::config::ClientConfig {
    let mut config = cluster.client();
    for (key, value) in DEFAULTS {
        if !cluster.properties.contains_key(key) {
            config.set(key, value);
        }
    }
    // Ours alone: other values would break what readers of keys count on.
    config.set("partitioner", "murmur2_random");
    config.set("enable.idempotence", "true");
    config.set("acks", "all");
    config.set("transactional.id", format!("{}/{name}/out", cluster.prefix));
    if batch < BATCH_BYTES {
        config.set("batch.size", batch.to_string());
    }
    config
}

fn record(message: &OutgoingMessage) -> BaseRecord<'_, [u8], [u8], ()> {
    let mut record = BaseRecord::to(&message.topic).key(&*message.key);
    record.payload = message.value.as_deref();
    record.partition = message.partition;
    record.timestamp = (message.timestamp != 0).then_some(message.timestamp);
    if !message.headers.is_empty() {
        let mut headers = OwnedHeaders::new_with_capacity(message.headers.len());
        for (key, value) in &message.headers {
            headers = headers.insert(Header { key, value: Some(&**value) });
        }
        record.headers = Some(headers);
    }
    record
}
