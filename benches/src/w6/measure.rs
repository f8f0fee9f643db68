//! The measurement of one system: first as fast as it goes, then paced.

use crate::broker::Broker;
use crate::reader::Reader;
use crate::system::{Order, Process, System, cpu, peak};
use crate::work::{Message, Work};
use crate::{Args, Fault};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

/// Longest wait for a system to begin, and for changes to come when none came for so long.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// Messages before a paced part: so many that each partition gets some.
const FIRST: u32 = 64;
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
    /// For each pace: p50 and p99 in ms.
    pub paced: Vec<(f64, f64)>,
    /// Most memory of the system.
    pub peak_mb: f64,
}

/// Writes records nobody reads, so that the first system does not find a colder broker than the others.
pub fn warm_up(broker: &Broker, partitions: i32, work: &Work) -> Result<(), Fault> {
    broker.make(&["w6.warm-up"], partitions)?;
    let producer = producer(broker, 5)?;
    let few = work.messages.get(..work.messages.len().min(200_000)).unwrap_or_default();
    few.iter().try_for_each(|message| write(&producer, "w6.warm-up", work, *message))?;
    Ok(producer.flush(PATIENCE)?)
}

/// Measures one system on fresh topics.
pub fn run(args: &Args, broker: &Broker, system: &System, work: &Work, folder: &Path) -> Result<Figures, Fault> {
    let name = format!("w6.{}", system.name);
    // The name our own output has; the others take any.
    let (input, output) = (format!("{name}.records"), format!("{name}.bench.Contact.changes"));
    broker.make(&[&input, &output], args.partitions)?;
    let reader = Reader::start(broker, &output, args.partitions)?;
    let order = Order {
        brokers: &broker.address,
        input: &input,
        output: &output,
        name: &name,
        folder,
        threads: args.threads,
        more: &[],
    };
    eprintln!("peers: {}", system.version);
    let mut process = system.start(&order)?;
    let bench = Bench { broker, work, input: &input, reader: &reader };
    bench.wait_for_life(&mut process)?;
    let (own, others) = (cpu(process.pid())?, cpu(broker.pid()?)?);
    let began = Instant::now();
    bench.in_one_go(&mut process)?;
    let wall = began.elapsed();
    let records = args.records as f64;
    let mut figures = Figures {
        rate: records / wall.as_secs_f64(),
        own_us: (cpu(process.pid())?.saturating_sub(own)).as_secs_f64() * 1e6 / records,
        broker_us: (cpu(broker.pid()?)?.saturating_sub(others)).as_secs_f64() * 1e6 / records,
        paced: Vec::new(),
        peak_mb: 0.0,
    };
    for (round, rate) in args.rate.iter().enumerate() {
        figures.paced.push(bench.paced(&mut process, *rate, args.seconds, round as u32)?);
    }
    figures.peak_mb = peak(process.pid()) as f64 / 1e6;
    Ok(figures)
}

struct Bench<'a> {
    broker: &'a Broker,
    work: &'a Work,
    input: &'a str,
    reader: &'a Reader,
}

impl Bench<'_> {
    /// One record, and its change: from here on nothing is start-up. The record is none of the work's.
    fn wait_for_life(&self, process: &mut Process) -> Result<(), Fault> {
        let producer = producer(self.broker, 0)?;
        write(&producer, self.input, self.work, Message { id: u64::from(u32::MAX), version: Some(1) })?;
        producer.flush(PATIENCE)?;
        self.wait_for(process, 1)
    }

    fn in_one_go(&self, process: &mut Process) -> Result<(), Fault> {
        let producer = producer(self.broker, 5)?;
        self.work.messages.iter().try_for_each(|message| write(&producer, self.input, self.work, *message))?;
        producer.flush(PATIENCE)?;
        self.wait_for(process, 1 + self.work.changes.all())?;
        let (mut wanted, seen) = (self.work.changes, self.reader.changes()?);
        wanted.created += 1;
        if seen != wanted {
            return Err(format!("wrong changes: {seen:?}, must be {wanted:?}").into());
        }
        Ok(())
    }

    fn paced(&self, process: &mut Process, rate: u64, seconds: u64, round: u32) -> Result<(f64, f64), Fault> {
        let messages = self.work.updates(rate * seconds, round);
        let producer = producer(self.broker, 0)?;
        // A producer's first message waits for its id and for the topic's leaders, which is nobody's delay but its own.
        self.first_messages(&producer, process, round)?;
        let before = self.reader.changes()?.all();
        self.reader.keep_times();
        let mut due = HashMap::with_capacity(messages.len());
        let begin = Instant::now();
        for (n, message) in messages.iter().enumerate() {
            let at = begin + Duration::from_nanos(n as u64 * 1_000_000_000 / rate);
            std::thread::sleep(at.saturating_duration_since(Instant::now()));
            due.insert(message.id, at);
            write(&producer, self.input, self.work, *message)?;
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
        Ok((at(0.5), at(0.99)))
    }

    /// New records to every partition; they are none of the work's.
    fn first_messages(&self, producer: &Written, process: &mut Process, round: u32) -> Result<(), Fault> {
        let before = self.reader.changes()?.all();
        for n in 0..FIRST {
            let id = u64::from(u32::MAX - 1 - round * FIRST - n);
            write(producer, self.input, self.work, Message { id, version: Some(1) })?;
        }
        producer.flush(PATIENCE)?;
        self.wait_for(process, before + u64::from(FIRST))
    }

    fn wait_for(&self, process: &mut Process, count: u64) -> Result<(), Fault> {
        wait_for(self.reader, std::slice::from_mut(process), count)
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

fn write(producer: &Written, topic: &str, work: &Work, message: Message) -> Result<(), Fault> {
    let key = message.id.to_string();
    let mut buffer = Vec::with_capacity(600);
    send(producer, topic, &key, work.bytes(message, &mut buffer))
}

/// Writes a record, waiting where the producer is full.
pub fn send(producer: &Written, topic: &str, key: &str, payload: Option<&[u8]>) -> Result<(), Fault> {
    let mut record = BaseRecord::<str, [u8]>::to(topic).key(key);
    record.payload = payload;
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
