//! W6, the measurement of one system: as fast as it goes, the same records again, then paced.

use crate::broker::Broker;
use crate::reader::Reader;
use crate::system::{Order, Process, System, cpu, peak};
use crate::work::{Changes, Message, Work};
use crate::{Args, Fault};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use std::cell::Cell;
use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

/// Longest wait for a system to begin, and for changes to come when none came for so long.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// Messages before a paced part: so many that each partition gets some.
const FIRST: u64 = 64;
/// Between two looks.
const LOOK: Duration = Duration::from_millis(5);

/// What was measured.
pub struct Figures {
    /// Records a second, from the first written to the last change seen.
    pub rate: f64,
    /// CPU of the system, µs a record.
    pub own_us: f64,
    /// CPU of the broker meanwhile, µs a record.
    pub broker_us: f64,
    /// For each pace: p50, p99 and p99.9 in ms.
    pub paced: Vec<[f64; 3]>,
    /// The same records again: records a second, CPU of the system and of the broker.
    pub again: (f64, f64, f64),
    /// Most memory of the system.
    pub peak_mb: f64,
}

/// Writes records nobody reads, so that the first system does not find a colder broker than the others.
pub fn warm_up(broker: &Broker, partitions: i32, work: &Work) -> Result<(), Fault> {
    broker.make(&["w6.warm-up"], partitions)?;
    let producer = producer(broker, 5)?;
    let few = work.messages.get(..work.messages.len().min(200_000)).unwrap_or_default();
    let mut buffer = Vec::with_capacity(600);
    for message in few {
        send(&producer, "w6.warm-up", &message.id.to_string(), work.bytes(*message, &mut buffer))?;
    }
    Ok(producer.flush(PATIENCE)?)
}

/// Measures one system on fresh topics that begin with `name`.
pub fn run(
    args: &Args,
    broker: &Broker,
    system: &System,
    work: &Work,
    name: &str,
    folder: &Path,
) -> Result<Figures, Fault> {
    // The name our own output has; the others take any.
    let (input, output) = (format!("{name}.records"), format!("{name}.bench.Contact.changes"));
    broker.make(&[&input, &output], args.partitions)?;
    let reader = Reader::start(broker, &output, args.partitions)?;
    let (brokers, threads) = (&broker.address, args.threads);
    let order = Order { brokers, input: &input, output: &output, name, folder, threads, more: &[] };
    let mut process = system.start(&order)?;
    let bench = Bench::new(broker, work, &input, &reader);
    bench.wait_for_life(&mut process)?;
    let (rate, own_us, broker_us) =
        bench.timed(&mut process, work.messages.len(), |bench, process| bench.in_one_go(process))?;
    let again = work.again();
    let again = bench.timed(&mut process, again.len(), |bench, process| bench.again(process, &again))?;
    let mut figures = Figures { rate, own_us, broker_us, again, paced: Vec::new(), peak_mb: 0.0 };
    for (round, rate) in args.rate.iter().enumerate() {
        let messages = work.updates(rate * args.seconds, round as u32);
        figures.paced.push(bench.paced(&mut process, *rate, &messages)?);
    }
    figures.peak_mb = peak(process.pid()) as f64 / 1e6;
    Ok(figures)
}

/// A system's topics, as the driver sees them.
pub struct Bench<'a> {
    broker: &'a Broker,
    work: &'a Work,
    /// The topic the system reads.
    pub input: &'a str,
    reader: &'a Reader,
    /// Records written so far that are none of the work's.
    extra: Cell<u64>,
    /// What records are stamped with.
    run: Cell<Option<u32>>,
}

impl<'a> Bench<'a> {
    /// Of a system that reads `input` and whose output is read by `reader`.
    pub fn new(broker: &'a Broker, work: &'a Work, input: &'a str, reader: &'a Reader) -> Bench<'a> {
        Bench { broker, work, input, reader, extra: Cell::new(0), run: Cell::new(None) }
    }

    /// From now on records carry the number of a run.
    pub fn stamp(&self, run: u32) {
        self.run.set(Some(run));
    }

    /// Changes seen so far.
    pub fn changes(&self) -> Result<Changes, Fault> {
        self.reader.changes()
    }

    /// One record, and its change: from here on nothing is start-up. The record is none of the work's.
    pub fn wait_for_life(&self, process: &mut Process) -> Result<(), Fault> {
        let producer = producer(self.broker, 0)?;
        self.write(&producer, Message { id: u64::from(u32::MAX), version: Some(1) })?;
        producer.flush(PATIENCE)?;
        self.wait_for(process, 1)
    }

    /// Things a second, CPU microseconds a thing of the system and of the broker.
    pub fn timed(
        &self,
        process: &mut Process,
        things: usize,
        part: impl Fn(&Self, &mut Process) -> Result<(), Fault>,
    ) -> Result<(f64, f64, f64), Fault> {
        let (own, others) = (cpu(process.pid())?, cpu(self.broker.pid()?)?);
        let began = Instant::now();
        part(self, process)?;
        let wall = began.elapsed();
        let each = |spent: Duration| spent.as_secs_f64() * 1e6 / things as f64;
        let (own, others) = (cpu(process.pid())?.saturating_sub(own), cpu(self.broker.pid()?)?.saturating_sub(others));
        Ok((things as f64 / wall.as_secs_f64(), each(own), each(others)))
    }

    fn in_one_go(&self, process: &mut Process) -> Result<(), Fault> {
        let producer = producer(self.broker, 5)?;
        self.work.messages.iter().try_for_each(|message| self.write(&producer, *message))?;
        producer.flush(PATIENCE)?;
        let mut wanted = self.work.changes;
        wanted.created += 1;
        self.wait_for(process, wanted.all())?;
        self.expect(wanted)
    }

    /// Records there are, few of them changed.
    fn again(&self, process: &mut Process, messages: &[Message]) -> Result<(), Fault> {
        let mut wanted = self.changes()?;
        let producer = producer(self.broker, 5)?;
        messages.iter().try_for_each(|message| self.write(&producer, *message))?;
        producer.flush(PATIENCE)?;
        wanted.updated += self.work.changed_again();
        self.wait_for(process, wanted.all())?;
        // The last ones need not be changes: once these are seen everything before them has been read.
        wanted.created += self.first_messages(&producer, process)?;
        self.expect(wanted)
    }

    /// Fails unless exactly these changes were seen.
    pub fn expect(&self, wanted: Changes) -> Result<(), Fault> {
        let seen = self.changes()?;
        match seen == wanted {
            true => Ok(()),
            false => Err(format!("wrong changes: {seen:?}, must be {wanted:?}").into()),
        }
    }

    /// Writes messages at a set pace, each of another record and each a change: p50, p99 and p99.9 in ms.
    pub fn paced(&self, process: &mut Process, rate: u64, messages: &[Message]) -> Result<[f64; 3], Fault> {
        let producer = producer(self.broker, 0)?;
        // A producer's first message waits for its id and for the topic's leaders, which is nobody's delay but its own.
        self.first_messages(&producer, process)?;
        let before = self.changes()?.all();
        self.reader.keep_times();
        let mut due = HashMap::with_capacity(messages.len());
        let begin = Instant::now();
        for (n, message) in messages.iter().enumerate() {
            let at = begin + Duration::from_nanos(n as u64 * 1_000_000_000 / rate);
            std::thread::sleep(at.saturating_duration_since(Instant::now()));
            due.insert(message.id, at);
            self.write(&producer, *message)?;
        }
        producer.flush(PATIENCE)?;
        self.wait_for(process, before + messages.len() as u64)?;
        let times = self.reader.times();
        let delay = |(id, at): &(u64, Instant)| due.get(id).map(|due| at.saturating_duration_since(*due));
        let mut delays: Vec<Duration> = times.iter().filter_map(delay).collect();
        if delays.len() != messages.len() {
            return Err(format!("{} of {} paced records were seen", delays.len(), messages.len()).into());
        }
        delays.sort_unstable();
        let at = |share: f64| {
            let index = (delays.len() as f64 * share) as usize;
            delays.get(index.min(delays.len() - 1)).map_or(0.0, |d| d.as_secs_f64() * 1e3)
        };
        Ok([at(0.5), at(0.99), at(0.999)])
    }

    /// New records to every partition, and their changes; they are none of the work's.
    pub fn first_messages(&self, producer: &Written, process: &mut Process) -> Result<u64, Fault> {
        let before = self.changes()?.all();
        for _ in 0..FIRST {
            self.extra.set(self.extra.get() + 1);
            self.write(producer, Message { id: u64::from(u32::MAX) - self.extra.get(), version: Some(1) })?;
        }
        producer.flush(PATIENCE)?;
        self.wait_for(process, before + FIRST)?;
        Ok(FIRST)
    }

    /// Waits for so many changes in all.
    pub fn wait_for(&self, process: &mut Process, count: u64) -> Result<(), Fault> {
        wait_for(self.reader, std::slice::from_mut(process), count)
    }

    /// Writes a record to the input.
    pub fn write(&self, producer: &Written, message: Message) -> Result<(), Fault> {
        let (key, mut buffer) = (message.id.to_string(), Vec::with_capacity(600));
        let payload = self.work.bytes(message, &mut buffer);
        post(producer, Post { topic: self.input, key: &key, payload, run: self.run.get(), partition: None })
    }
}

/// Waits for so many changes in all; more are a fault.
pub fn wait_for(reader: &Reader, processes: &mut [Process], count: u64) -> Result<(), Fault> {
    let (mut last, mut since) = (0, Instant::now());
    loop {
        let seen = reader.changes()?.all();
        if seen >= count {
            return match seen == count {
                true => Ok(()),
                false => Err(format!("{seen} changes were seen, must be {count}").into()),
            };
        }
        if seen != last {
            (last, since) = (seen, Instant::now());
        }
        processes.iter_mut().try_for_each(Process::must_run)?;
        if since.elapsed() > PATIENCE {
            return Err(format!("{seen} of {count} changes were seen, and none for {PATIENCE:?}").into());
        }
        std::thread::sleep(LOOK);
    }
}

/// Writes to topics of a broker.
pub type Written = ThreadedProducer<DefaultProducerContext>;

/// A producer that waits so long for company.
pub fn producer(broker: &Broker, linger_ms: u32) -> Result<Written, Fault> {
    let mut config = broker.client();
    config.set("enable.idempotence", "true").set("compression.type", "lz4").set("linger.ms", linger_ms.to_string());
    // As Java clients do: the same key goes to the same partition whoever writes.
    config.set("partitioner", "murmur2_random").set("queue.buffering.max.messages", "200000");
    Ok(config.create()?)
}

/// A record to be written.
pub struct Post<'a> {
    pub topic: &'a str,
    pub key: &'a str,
    pub payload: Option<&'a [u8]>,
    /// Header `run`.
    pub run: Option<u32>,
    /// By its key where nothing is said.
    pub partition: Option<i32>,
}

/// Writes a record without a run.
pub fn send(producer: &Written, topic: &str, key: &str, payload: Option<&[u8]>) -> Result<(), Fault> {
    post(producer, Post { topic, key, payload, run: None, partition: None })
}

/// Writes a record, waiting where the producer is full.
pub fn post(producer: &Written, post: Post<'_>) -> Result<(), Fault> {
    let mut record = BaseRecord::<str, [u8]>::to(post.topic).key(post.key);
    record.payload = post.payload;
    record.partition = post.partition;
    let header = |run: u32| {
        let value = run.to_be_bytes();
        OwnedHeaders::new().insert(Header { key: "run", value: Some(&value) })
    };
    record.headers = post.run.map(header);
    loop {
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                std::thread::sleep(Duration::from_millis(1));
                record = back;
            }
            Err((error, _)) => return Err(format!("a record cannot be written: {error}").into()),
        }
    }
}
