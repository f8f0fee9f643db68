//! Commits as transactions.
//!
//! What can be done again is done again, a bounded number of times: an aborted transaction is invisible, and the question
//! whether a commit came through may be put as often as needed. Whatever remains after that closes the writer.

use super::TERM_KEY;
use crate::kafka::cluster::Cluster;
use crate::kafka::log::{MOST_BYTES, producing};
use crate::kafka::pace::Pace;
use crate::kafka::polled::Polled;
use crate::kafka::reader::unreachable;
use rdkafka::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use syncline_engine::fault::pass;
use syncline_engine::log::{Error, Write};

/// Name of the header with the term.
pub(super) const TERM_HEADER: &str = "t";
/// How long opening waits for a broker, and for it to end what the one before had begun.
pub const OPEN_PATIENCE: Duration = Duration::from_secs(30);
/// How long the messages of a commit may be on their way.
const DELIVERY_PATIENCE: Duration = Duration::from_secs(20);
/// How long one question whether a commit came through, or one abort, may take.
const END_PATIENCE: Duration = Duration::from_secs(10);
/// How often the question is put.
const END_TRIES: u32 = 5;
/// How often a commit is written anew after it was aborted.
const COMMIT_TRIES: u32 = 5;
/// After this the broker aborts a transaction whose writer is silent.
const TRANSACTION_PATIENCE: Duration = Duration::from_secs(60);
/// Most bytes of a commit that are on their way at a time.
const FLIGHT_BYTES: usize = 32 << 20;
/// Most messages of a commit that are on their way at a time.
const FLIGHT_MESSAGES: usize = 65_536;
/// Largest write, with its key.
const WRITE_BYTES: usize = MOST_BYTES - (64 << 10);
/// Between looks whether the client is done with the last answer; it takes microseconds.
const LOOK: Duration = Duration::from_micros(20);

/// Looks before its own flush may take the rest.
const SETTLE_LOOKS: u32 = 5_000;

type FencedProducer = Polled<ChangelogReports>;

/// Takes the broker's answers.
pub(super) struct ChangelogReports;

impl ClientContext for ChangelogReports {
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "the changelog's producer goes on");
    }
}

impl ProducerContext for ChangelogReports {
    type DeliveryOpaque = Arc<Flight>;

    fn delivery(&self, result: &DeliveryResult<'_>, flight: Arc<Flight>) {
        let (size, answer) = match result {
            Ok(message) => (size_of(message), Ok(message.offset())),
            Err((error, message)) => (size_of(message), Err(error.clone())),
        };
        flight.landed(size, answer);
    }
}

fn size_of(message: &impl Message) -> usize {
    message.key().map_or(0, <[u8]>::len) + message.payload().map_or(0, <[u8]>::len)
}

/// The messages of one try, on their way.
#[derive(Default)]
pub(super) struct Flight {
    state: Mutex<FlightState>,
    landed: Condvar,
}

#[derive(Default)]
struct FlightState {
    messages: usize,
    bytes: usize,
    last: i64,
    error: Option<KafkaError>,
}

impl Flight {
    fn state(&self) -> MutexGuard<'_, FlightState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn launched(&self, size: usize) {
        let mut state = self.state();
        state.messages += 1;
        state.bytes += size;
    }

    fn landed(&self, size: usize, answer: Result<i64, KafkaError>) {
        let mut state = self.state();
        state.messages = state.messages.saturating_sub(1);
        state.bytes = state.bytes.saturating_sub(size);
        match answer {
            Ok(offset) => state.last = state.last.max(offset),
            Err(error) => drop(state.error.get_or_insert(error)),
        }
        drop(state);
        self.landed.notify_all();
    }

    /// Waits until no more than this is on its way; the offset of the last that landed.
    fn wait(&self, messages: usize, bytes: usize) -> Result<i64, KafkaError> {
        let state = self.state();
        let full = |s: &mut FlightState| s.error.is_none() && (s.messages > messages || s.bytes > bytes);
        let waited = self.landed.wait_timeout_while(state, DELIVERY_PATIENCE, full);
        let (mut state, timed_out) = waited.unwrap_or_else(PoisonError::into_inner);
        match state.error.take() {
            Some(error) => Err(error),
            None if timed_out.timed_out() => Err(KafkaError::MessageProduction(RDKafkaErrorCode::MessageTimedOut)),
            None => Ok(state.last),
        }
    }
}

/// Why a try came to nothing.
enum CommitFailure {
    /// Nothing of it will be seen; it may be tried again.
    Aborted(String),
    /// It is over.
    Closed(Error),
}

/// The one writer of a partition.
pub(super) struct ChangelogWriter {
    /// `Err` once it is closed, with the reason.
    client: Result<FencedProducer, Error>,
    topic: String,
    partition: i32,
    term: [u8; 8],
    pace: Pace,
}

impl ChangelogWriter {
    /// Ends the one before and takes its place.
    pub(super) fn open(cluster: &Cluster, topic: &str, partition: i32, name: &str) -> Result<ChangelogWriter, Error> {
        let client: FencedProducer = producing(cluster, DELIVERY_PATIENCE)
            .set("transactional.id", name)
            .set("transaction.timeout.ms", TRANSACTION_PATIENCE.as_millis().to_string())
            .set("retry.backoff.ms", "2")
            .set("retry.backoff.max.ms", "20")
            .set("queue.buffering.max.messages", (2 * FLIGHT_MESSAGES).to_string())
            .set("queue.buffering.max.kbytes", (2 * (FLIGHT_BYTES + WRITE_BYTES) / 1024).to_string())
            .create_with_context(ChangelogReports)
            .map_err(|e| unreachable(&cluster.brokers, "the changelog's producer cannot be made", e))?;
        pass("k.init_txn");
        client
            .init_transactions(OPEN_PATIENCE)
            .map_err(|e| closing(&client, &format!("the changelog {topic}/{partition} cannot be opened"), &e))?;
        Ok(ChangelogWriter {
            client: Ok(client),
            topic: topic.to_owned(),
            partition,
            term: [0; 8],
            pace: Pace::default(),
        })
    }

    /// The client, unless it is closed.
    pub(super) fn client(&self) -> Option<&FencedProducer> {
        self.client.as_ref().ok()
    }

    /// Writes the term under which all that follows is written.
    pub(super) fn begin_term(&mut self, term: u64) -> Result<(), Error> {
        self.term = term.to_be_bytes();
        let marker = Write { key: TERM_KEY.to_vec(), value: Some(self.term.to_vec()) };
        self.commit(&[marker]).map(drop)
    }

    /// The offset after the last write, once all are committed.
    pub(super) fn commit(&mut self, writes: &[Write]) -> Result<u64, Error> {
        let mut why = String::new();
        std::thread::sleep(self.pace.rest());
        for _ in 0..COMMIT_TRIES {
            match self.once(writes) {
                Ok(offset) => {
                    self.pace.committed();
                    count("commit");
                    return Ok(offset);
                }
                Err(CommitFailure::Closed(error)) => return Err(self.close(error)),
                Err(CommitFailure::Aborted(reason)) => {
                    count("abort");
                    tracing::warn!(topic = self.topic, partition = self.partition, reason, "commit written anew");
                    why = reason;
                }
            }
        }
        Err(self
            .close(Error::Unreachable(format!("a commit was aborted {COMMIT_TRIES} times, at last because: {why}"))))
    }

    fn close(&mut self, error: Error) -> Error {
        if matches!(error, Error::Fenced(_)) {
            count("fenced");
        }
        tracing::error!(topic = self.topic, partition = self.partition, %error, "the changelog is closed");
        self.client = Err(error.clone());
        error
    }

    /// One transaction, begun and ended.
    fn once(&mut self, writes: &[Write]) -> Result<u64, CommitFailure> {
        let client = self.client.as_ref().map_err(|closed| CommitFailure::Closed(closed.clone()))?;
        let size = |w: &Write| w.key.len() + w.value.as_ref().map_or(0, Vec::len);
        if let Some(size) = writes.iter().map(size).find(|size| *size > WRITE_BYTES) {
            return Err(CommitFailure::Closed(Error::TooLarge { size, most: WRITE_BYTES }));
        }
        pass("k.begin");
        let begun = client.begin_transaction();
        begun.map_err(|e| CommitFailure::Closed(closing(client, "a transaction cannot begin", &e)))?;
        let flight = Arc::new(Flight::default());
        self.pace.begin();
        let sent = self.send(client, writes, &flight).and_then(|()| flight.wait(0, 0));
        let last = sent.map_err(|e| undo(client, "the writes were not taken", &e))?;
        self.pace.taken(writes.len());
        settle(client);
        pass("k.commit_before");
        end(client)?;
        pass("k.commit_after");
        Ok(u64::try_from(last).unwrap_or(0) + 1)
    }

    fn send(&self, client: &FencedProducer, writes: &[Write], flight: &Arc<Flight>) -> Result<(), KafkaError> {
        for (n, write) in writes.iter().enumerate() {
            if n == writes.len() / 2 {
                pass("k.produced_half");
            }
            flight.wait(FLIGHT_MESSAGES, FLIGHT_BYTES)?;
            let headers =
                OwnedHeaders::new_with_capacity(1).insert(Header { key: TERM_HEADER, value: Some(&self.term) });
            let mut record: BaseRecord<'_, [u8], [u8], _> = BaseRecord::with_opaque_to(&self.topic, flight.clone())
                .partition(self.partition)
                .key(write.key.as_slice())
                .headers(headers);
            if let Some(value) = &write.value {
                record = record.payload(value);
            }
            // Counted before it is sent: the answer may be quicker than we are.
            let size = write.key.len() + write.value.as_ref().map_or(0, Vec::len);
            flight.launched(size);
            if let Err((error, record)) = client.send(record) {
                drop(record);
                flight.landed(size, Err(error.clone()));
                return Err(error);
            }
        }
        Ok(())
    }
}

/// Waits until the client has put the last answer away. Otherwise its own flush waits for it a whole tenth of a second.
fn settle(client: &FencedProducer) {
    let mut looks = 0;
    while client.in_flight_count() > 0 && looks < SETTLE_LOOKS {
        std::thread::sleep(LOOK);
        looks += 1;
    }
}

/// Commits what was sent; asks again while the answer stays away.
fn end(client: &FencedProducer) -> Result<(), CommitFailure> {
    let mut why = String::new();
    for _ in 0..END_TRIES {
        match client.commit_transaction(END_PATIENCE) {
            Ok(()) => return Ok(()),
            Err(KafkaError::Transaction(error)) if error.is_retriable() => why = error.string(),
            Err(KafkaError::Flush(code)) => why = code.to_string(),
            Err(error) => return Err(undo(client, "the commit was refused", &error)),
        }
    }
    let what = format!("whether a commit came through is not known after {END_TRIES} questions: {why}");
    Err(CommitFailure::Closed(Error::Unreachable(what)))
}

/// Aborts what is begun, if the client can go on at all.
fn undo(client: &FencedProducer, what: &str, error: &KafkaError) -> CommitFailure {
    if error.rdkafka_error_code() == Some(RDKafkaErrorCode::MessageSizeTooLarge) {
        let most = WRITE_BYTES;
        tracing::error!(%error, "a write is larger than the topic takes: raise its max.message.bytes to {MOST_BYTES}");
        let _ = client.abort_transaction(END_PATIENCE);
        return CommitFailure::Closed(Error::TooLarge { size: most, most });
    }
    if client.client().fatal_error().is_some() || is_fenced(error) {
        return CommitFailure::Closed(closing(client, what, error));
    }
    let mut why = String::new();
    for _ in 0..END_TRIES {
        match client.abort_transaction(END_PATIENCE) {
            Ok(()) => return CommitFailure::Aborted(format!("{what}: {error}")),
            Err(KafkaError::Transaction(abort)) if abort.is_retriable() => why = abort.string(),
            Err(abort) => return CommitFailure::Closed(closing(client, &format!("{what} ({error}), and"), &abort)),
        }
    }
    CommitFailure::Closed(Error::Unreachable(format!("{what} ({error}), and the abort has no answer: {why}")))
}

fn is_fenced(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{Fenced, InvalidProducerEpoch, ProducerFenced};
    let code = match error {
        KafkaError::Transaction(error) => Some(error.code()),
        error => error.rdkafka_error_code(),
    };
    matches!(code, Some(Fenced | ProducerFenced | InvalidProducerEpoch))
}

/// The error after which nothing more is accepted.
fn closing(client: &FencedProducer, what: &str, error: &KafkaError) -> Error {
    use RDKafkaErrorCode::{Fenced, InvalidProducerEpoch, ProducerFenced};
    let fatal = client.client().fatal_error();
    if let Some((Fenced | ProducerFenced | InvalidProducerEpoch, why)) = &fatal {
        return Error::Fenced(why.clone());
    }
    if is_fenced(error) {
        return Error::Fenced(format!("{what}: {error}"));
    }
    let why = fatal.map(|(_, why)| format!(" ({why})")).unwrap_or_default();
    Error::Unreachable(format!("{what}: {error}{why}"))
}

fn count(outcome: &'static str) {
    metrics::counter!("syncline_kafka_transactions_total", "outcome" => outcome).increment(1);
}
