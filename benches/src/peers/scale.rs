//! What is lost when several processes share the work: the same records, through the same partitions, owned by one process
//! or spread over several.
//!
//! Records of several connections, as many of each partition, come by the input topic and go to the changes topic. The
//! clock runs once every process owns its share of the partitions and every connection has shown a change.

use crate::broker::{self, Broker};
use crate::measure::{self, PATIENCE, Written, producer, send, wait_for};
use crate::reader::Reader;
use crate::system::{Order, Process, System, cpu};
use crate::work::{Message, Work};
use crate::{Args, Fault};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};
use syncline::cluster::spread::Spread;

/// Connections of each partition.
const CONNECTIONS: usize = 2;
/// Between two looks at who owns what.
const LOOK: Duration = Duration::from_millis(100);

/// What was measured of one way to run.
#[derive(Clone, Copy)]
struct Figures {
    rate: f64,
    own_us: f64,
    broker_us: f64,
}

/// Measures the embedded log and every number of processes, in turn and as often as is asked for; prints one table.
pub fn all(args: &Args, root: &Path, target: &Path, folder: &Path) -> Result<(), Fault> {
    let system = System::build("syncline", root, &target.join("peers"))?;
    let broker = Broker::start(root, &folder.join("broker"))?;
    let work = Work::new(args.records);
    measure::warm_up(&broker, args.partitions, &work)?;
    // No processes: the embedded log, by the one that there is then.
    let ways: Vec<usize> = std::iter::once(0).chain(args.processes.iter().copied()).collect();
    let mut measured: Vec<Vec<Figures>> = vec![Vec::new(); ways.len()];
    for round in 0..args.rounds.max(1) {
        for (way, of_way) in ways.iter().zip(&mut measured) {
            let name = format!("w6.{way}-{round}");
            let bench = Bench { args, broker: &broker, work: &work, connections: connections(args.partitions), name };
            let figures = bench.run(&system, *way, &folder.join(&bench.name))?;
            eprintln!("peers: {}: {:.1} µs a record, broker {:.1}", label(*way), figures.own_us, figures.broker_us);
            of_way.push(figures);
        }
    }
    table(args, &system, &ways, measured);
    Ok(())
}

/// Names that are spread evenly over the partitions.
fn connections(partitions: i32) -> Vec<String> {
    let spread = Spread { count: partitions };
    let names = |partition| {
        let all = (0..).map(|n: u32| format!("c{n}"));
        all.filter(move |name| spread.of("default", "bench", name) == partition).take(CONNECTIONS)
    };
    (0..partitions).flat_map(names).collect()
}

struct Bench<'a> {
    args: &'a Args,
    broker: &'a Broker,
    work: &'a Work,
    connections: Vec<String>,
    /// Prefix of the topics.
    name: String,
}

impl Bench<'_> {
    /// So many processes on fresh topics; with none the embedded log.
    fn run(&self, system: &System, processes: usize, folder: &Path) -> Result<Figures, Fault> {
        let (input, output) = (format!("{}.in.bench", self.name), format!("{}.bench.Contact.changes", self.name));
        self.broker.make(&[&input, &output], self.args.partitions)?;
        let reader = Reader::start(self.broker, &output, self.args.partitions)?;
        let mut all = self.start(system, processes, (&input, &output), folder)?;
        if processes > 0 {
            self.wait_for_shares(&mut all)?;
        }
        let producer = producer(self.broker, 5)?;
        // Ids that are none of the work's, one of each connection.
        let first =
            (0..self.connections.len() as u64).map(|n| Message { id: u64::from(u32::MAX) - n, version: Some(1) });
        first.into_iter().try_for_each(|message| self.write(&producer, &input, message))?;
        rdkafka::producer::Producer::flush(&producer, PATIENCE)?;
        let before = self.connections.len() as u64;
        wait_for(&reader, &mut all, before)?;
        let (own, brokers, began) = (self.cpu(&all)?, cpu(self.broker.pid()?)?, Instant::now());
        self.work.messages.iter().try_for_each(|message| self.write(&producer, &input, *message))?;
        rdkafka::producer::Producer::flush(&producer, PATIENCE)?;
        wait_for(&reader, &mut all, before + self.work.changes.all())?;
        let wall = began.elapsed();
        let (own, brokers) = (self.cpu(&all)?.saturating_sub(own), cpu(self.broker.pid()?)?.saturating_sub(brokers));
        let (mut wanted, seen) = (self.work.changes, reader.changes()?);
        wanted.created += before;
        if seen != wanted {
            return Err(format!("wrong changes: {seen:?}, must be {wanted:?}").into());
        }
        let records = self.work.messages.len() as f64;
        let each = |spent: Duration| spent.as_secs_f64() * 1e6 / records;
        Ok(Figures { rate: records / wall.as_secs_f64(), own_us: each(own), broker_us: each(brokers) })
    }

    fn start(
        &self,
        system: &System,
        processes: usize,
        (input, output): (&str, &str),
        folder: &Path,
    ) -> Result<Vec<Process>, Fault> {
        let mut more = vec![("CONNECTIONS", self.connections.join(" "))];
        if processes > 0 {
            more.push(("PARTITIONS", self.args.partitions.to_string()));
        }
        let one = |n: usize| {
            let folder = folder.join(n.to_string());
            let (brokers, name, threads) = (&self.broker.address, &self.name, self.args.threads);
            system.start(&Order { brokers, input, output, name, folder: &folder, threads, more: &more })
        };
        (0..processes.max(1)).map(one).collect()
    }

    /// Waits until every process owns as many partitions as the others, and together they own all.
    fn wait_for_shares(&self, all: &mut [Process]) -> Result<(), Fault> {
        let since = Instant::now();
        let partitions = usize::try_from(self.args.partitions)?;
        let (least, most) = (partitions / all.len(), partitions.div_ceil(all.len()));
        loop {
            all.iter_mut().try_for_each(Process::must_run)?;
            let owned: Vec<usize> = all.iter().map(|process| owned(process).unwrap_or(0)).collect();
            if owned.iter().sum::<usize>() == partitions && owned.iter().all(|n| (least..=most).contains(n)) {
                return Ok(());
            }
            if since.elapsed() > PATIENCE {
                return Err(format!("after {PATIENCE:?} the processes own {owned:?} partitions").into());
            }
            std::thread::sleep(LOOK);
        }
    }

    fn write(&self, producer: &Written, topic: &str, message: Message) -> Result<(), Fault> {
        let count = self.connections.len() as u64;
        let connection = self.connections.get((message.id % count) as usize).map_or("", String::as_str);
        let key = format!(r#"["{connection}","Contact","{}"]"#, message.id);
        let head = format!(r#"{{"v":1,"connection":"{connection}","stream":"Contact","op":"#);
        let mut buffer = Vec::with_capacity(600);
        let mut value = head.into_bytes();
        match self.work.bytes(message, &mut buffer) {
            Some(record) => {
                value.extend_from_slice(br#""upsert","record":"#);
                value.extend_from_slice(record);
                value.push(b'}');
            }
            None => value.extend_from_slice(format!(r#""delete","key":"{}"}}"#, message.id).as_bytes()),
        }
        send(producer, topic, &key, Some(&value))
    }

    fn cpu(&self, all: &[Process]) -> Result<Duration, Fault> {
        all.iter().map(|process| cpu(process.pid())).sum()
    }
}

/// How many partitions a process says it owns; `None` while it does not answer.
fn owned(process: &Process) -> Option<usize> {
    let said = process.said();
    let address = said.split_once("listening on http://")?.1.lines().next()?;
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    text.lines().find_map(|line| line.strip_prefix("syncline_partitions_owned "))?.trim().parse().ok()
}

fn label(processes: usize) -> String {
    match processes {
        0 => "embedded log".to_owned(),
        n => n.to_string(),
    }
}

/// The one in the middle by CPU.
fn middle(mut rounds: Vec<Figures>) -> Option<Figures> {
    rounds.sort_by(|a, b| a.own_us.total_cmp(&b.own_us));
    rounds.get(rounds.len() / 2).copied()
}

fn table(args: &Args, system: &System, ways: &[usize], measured: Vec<Vec<Figures>>) {
    println!(
        "\nW6, {}: {} records of 526 B of {} connections, input topic to changes topic, {} partitions; the middle of {} \
         rounds; Kafka {} on the same machine; {} cores\n",
        system.version,
        args.records,
        connections(args.partitions).len(),
        args.partitions,
        args.rounds.max(1),
        broker::VERSION,
        std::thread::available_parallelism().map_or(0, usize::from),
    );
    let rows: Vec<(usize, Figures)> =
        ways.iter().zip(measured).filter_map(|(way, rounds)| Some((*way, middle(rounds)?))).collect();
    let one = rows.iter().find(|(way, _)| *way == 1).map(|(_, figures)| *figures);
    println!("| processes | records/s | CPU µs a record | against one process | with broker | against one process |");
    println!("|---|---|---|---|---|---|");
    for (way, f) in &rows {
        let (own, both) = (f.own_us, f.own_us + f.broker_us);
        let against = |it: f64, of: fn(&Figures) -> f64| {
            one.as_ref().map_or_else(|| "–".to_owned(), |one| format!("{:+.0} %", (it / of(one) - 1.0) * 100.0))
        };
        println!(
            "| {} | {:.0} | {own:.1} | {} | {both:.1} | {} |",
            label(*way),
            f.rate,
            against(own, |one| one.own_us),
            against(both, |one| one.own_us + one.broker_us)
        );
    }
}
