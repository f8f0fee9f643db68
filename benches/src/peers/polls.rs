//! W1, W2 and W3 through topics, for systems that know nothing else: a poll writes what it finds to the input topic.
//!
//! W2 stamps its records with the number of the run, in the header `run`; a record with the key `end` in each partition says
//! that it is over, and what it has not met has to come out as deleted. The records of W1 carry no number, which spares the
//! systems work. CPU is the system's and the broker's: neither works without the other.

use crate::broker::Broker;
use crate::measure::{Bench, PATIENCE, Post, post, producer};
use crate::poll;
use crate::reader::Reader;
use crate::side::Figures;
use crate::system::{Order, Process, System, tree_memory};
use crate::work::{Changes, Message, Work};
use crate::{Args, Fault, files};
use rdkafka::producer::Producer;
use std::path::Path;

/// The run of W2.
const RUN: u32 = 2;

/// Measures one system on fresh topics that begin with `name`.
pub fn run(args: &Args, broker: &Broker, system: &System, name: &str, folder: &Path) -> Result<Figures, Fault> {
    let (input, output) = (format!("{name}.records"), format!("{name}.changes"));
    broker.make(&[&input, &output], args.partitions)?;
    let reader = Reader::start(broker, &output, args.partitions)?;
    let more = [("SWEEP", "1".to_owned())];
    let (brokers, threads) = (&broker.address, args.threads);
    let order = Order { brokers, input: &input, output: &output, name, folder, threads, more: &more };
    let mut process = system.start(&order)?;
    let work = Work::new(0);
    let polls = Polls { args, broker, bench: Bench::new(broker, &work, &input, &reader) };
    polls.bench.wait_for_life(&mut process)?;
    let mut figures = Figures::new();
    let (rate, cpu) = polls.timed(&mut process, args.records, Polls::load)?;
    figures.extend([("W1 rate", rate), ("W1 CPU", cpu)]);
    if args.wants("w2") {
        let (rate, cpu) = polls.timed(&mut process, args.records, Polls::again)?;
        figures.extend([("W2 rate", rate), ("W2 CPU", cpu)]);
        let memory = tree_memory(process.pid())? + tree_memory(broker.pid()?)?;
        figures.insert("W2 MB", memory as f64 / 1e6);
    }
    if args.wants("w3") {
        let update = |n| Message { id: poll::updated(n, args.records), version: Some(files::PACED) };
        let messages: Vec<Message> = (0..args.paced()).map(update).collect();
        let [p50, p99, p999] = polls.bench.paced(&mut process, args.pace(), &messages)?;
        figures.extend([("W3 p50", p50), ("W3 p99", p99), ("W3 p99.9", p999)]);
    }
    Ok(figures)
}

struct Polls<'a> {
    args: &'a Args,
    broker: &'a Broker,
    bench: Bench<'a>,
}

impl Polls<'_> {
    /// Records a second and CPU of system and broker each.
    fn timed(
        &self,
        process: &mut Process,
        records: u64,
        part: fn(&Self, &mut Process) -> Result<(), Fault>,
    ) -> Result<(f64, f64), Fault> {
        let (rate, own, brokers) = self.bench.timed(process, records as usize, |_, process| part(self, process))?;
        Ok((rate, own + brokers))
    }

    /// W1: every record is new.
    fn load(&self, process: &mut Process) -> Result<(), Fault> {
        let before = self.bench.changes()?;
        let producer = producer(self.broker, 5)?;
        for id in 1..=self.args.records {
            self.bench.write(&producer, Message { id, version: Some(1) })?;
        }
        producer.flush(PATIENCE)?;
        self.bench.wait_for(process, before.all() + self.args.records)?;
        self.bench.expect(Changes { created: before.created + self.args.records, ..before })
    }

    /// W2: most records as they were; what is missing is deleted at the end.
    fn again(&self, process: &mut Process) -> Result<(), Fault> {
        let before = self.bench.changes()?;
        let (changed, missing) = files::changed_and_missing(self.args.records);
        self.bench.stamp(RUN);
        let producer = producer(self.broker, 5)?;
        self.bench.write(&producer, Message { id: u64::from(u32::MAX), version: Some(1) })?;
        for id in 1..=self.args.records {
            if let Some(version) = poll::version(id) {
                self.bench.write(&producer, Message { id, version: Some(version) })?;
            }
        }
        producer.flush(PATIENCE)?;
        self.bench.wait_for(process, before.all() + changed)?;
        // Once these are seen everything before them has been read.
        let marks = self.bench.first_messages(&producer, process)?;
        for partition in 0..self.args.partitions {
            let topic = self.bench.input;
            let end = Post { topic, key: "end", payload: Some(b"{}"), run: Some(RUN), partition: Some(partition) };
            post(&producer, end)?;
        }
        producer.flush(PATIENCE)?;
        self.bench.wait_for(process, before.all() + changed + marks + missing)?;
        self.bench.expect(Changes {
            created: before.created + marks,
            updated: before.updated + changed,
            deleted: before.deleted + missing,
        })
    }
}
