//! The peer: dbsp as a library, everything in memory, nothing durable.
//!
//! Records are an input map by id, whose delta is the change stream: what is inserted as it already is cancels out. What a
//! re-poll has missed is deleted by the program that feeds it. Simpler than what Syncline does: bytes are compared, not
//! content, an older version that comes late is applied, and nothing outlives the process. W7 is in `view`.
//!
//! Orders come by stdin, a line each, and are answered by a line of JSON on stdout.

mod view;

use dbsp::operator::Update;
use dbsp::typed_batch::{IndexedZSetReader, SpineSnapshot};
use dbsp::utils::Tup2;
use dbsp::{DBSPHandle, MapHandle, OrdIndexedZSet, OutputHandle, Runtime};
use std::error::Error;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::time::{Duration, Instant};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Fault = Box<dyn Error>;
/// All that one transaction has changed, over its steps.
type Delta<K, V> = SpineSnapshot<OrdIndexedZSet<K, V>>;
type Change = Tup2<u64, Update<String, String>>;

/// Records of one step: pages of 1,000 of ten connections.
const STEP: usize = 10_000;
const CONNECTIONS: usize = 10;

/// Changes by kind.
#[derive(Clone, Copy, Default)]
struct Counts {
    added: u64,
    updated: u64,
    deleted: u64,
}

struct Records {
    circuit: DBSPHandle,
    input: MapHandle<u64, String, String>,
    output: OutputHandle<Delta<u64, String>>,
    /// Which run has met a record last, by id; 0: it is not there.
    met: Vec<u32>,
    counts: Counts,
}

impl Records {
    fn open() -> Result<Records, Fault> {
        let (circuit, (input, output)) = Runtime::init_circuit(threads(), |circuit| {
            let (records, input) = circuit.add_input_map::<u64, String, String, _>(|old, new| old.clone_from(new));
            Ok((input, records.accumulate_output()))
        })?;
        Ok(Records { circuit, input, output, met: Vec::new(), counts: Counts::default() })
    }

    fn poll(&mut self, work: &str) -> Result<String, Fault> {
        self.counts = Counts::default();
        let run = if work == "w1" { 1 } else { 2 };
        let mut step = Vec::with_capacity(STEP);
        for connection in 0..CONNECTIONS {
            for line in BufReader::with_capacity(1 << 20, File::open(path(&format!("{work}-{connection}")))?).lines() {
                let (id, json) = record(&line?)?;
                if self.met.len() <= id as usize {
                    self.met.resize(id as usize + 1, 0);
                }
                self.met[id as usize] = run;
                step.push(Tup2(id, Update::Insert(json)));
                if step.len() == STEP {
                    self.step(&mut step)?;
                }
            }
        }
        let gone = self.met.iter().enumerate().filter(|(_, met)| run > 1 && **met == 1);
        step.extend(gone.map(|(id, _)| Tup2(id as u64, Update::Delete)));
        self.met.iter_mut().filter(|met| **met < run).for_each(|met| *met = 0);
        self.step(&mut step)?;
        Ok("{}".to_owned())
    }

    fn step(&mut self, step: &mut Vec<Change>) -> Result<(), Fault> {
        self.input.append(step);
        self.circuit.transaction()?;
        let (mut key, mut before, mut after) = (None, false, false);
        for (id, _, weight) in self.output.concat().iter() {
            if key.is_some_and(|key| key != id) {
                self.counts.add(before, after);
                (before, after) = (false, false);
            }
            key = Some(id);
            (before, after) = (before || weight < 0, after || weight > 0);
        }
        self.counts.add(before, after);
        Ok(())
    }

    /// W3: single updates at a set pace; each is over when its change has been read.
    fn pace(&mut self, rate: u64) -> Result<String, Fault> {
        self.counts = Counts::default();
        let records: Vec<String> = BufReader::new(File::open(path("w3"))?).lines().collect::<Result<_, _>>()?;
        let mut delays = Vec::with_capacity(records.len());
        let begin = Instant::now();
        for (n, line) in records.iter().enumerate() {
            let due = begin + Duration::from_nanos(n as u64 * 1_000_000_000 / rate);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let (id, json) = record(line)?;
            self.step(&mut vec![Tup2(id, Update::Insert(json))])?;
            delays.push(due.elapsed());
        }
        let changes = self.counts.added + self.counts.updated + self.counts.deleted;
        Ok(format!(r#"{{"changes":{changes},{}}}"#, shares(delays)))
    }
}

impl Counts {
    fn add(&mut self, before: bool, after: bool) {
        match (before, after) {
            (false, true) => self.added += 1,
            (true, true) => self.updated += 1,
            (true, false) => self.deleted += 1,
            (false, false) => {}
        }
    }

    fn json(&self) -> String {
        format!(r#"{{"added":{},"updated":{},"deleted":{}}}"#, self.added, self.updated, self.deleted)
    }
}

/// `id TAB modified TAB json`.
fn record(line: &str) -> Result<(u64, String), Fault> {
    let mut parts = line.splitn(3, '\t');
    let (id, json) = (parts.next().ok_or("no id")?, parts.nth(1).ok_or("no record")?);
    Ok((id.parse()?, json.to_owned()))
}

/// p50, p99 and p99.9 in ms.
fn shares(mut delays: Vec<Duration>) -> String {
    delays.sort_unstable();
    let at = |share: usize| delays.get(delays.len() * share / 1_000).map_or(0.0, |d| d.as_secs_f64() * 1e3);
    format!(r#""p50":{:.4},"p99":{:.4},"p99.9":{:.4}"#, at(500), at(990), at(999))
}

fn path(name: &str) -> PathBuf {
    PathBuf::from(std::env::var_os("FILES").unwrap_or_default()).join(name)
}

fn threads() -> usize {
    std::env::var("THREADS").ok().and_then(|threads| threads.parse().ok()).unwrap_or(2)
}

fn main() -> Result<(), Fault> {
    let (mut records, mut shop) = (None, None);
    for order in std::io::stdin().lines() {
        let order = order?;
        let answer = match order.split(' ').collect::<Vec<_>>()[..] {
            ["count", "w7"] => opened(&mut shop, view::Shop::open)?.count(),
            ["count", _] => opened(&mut records, Records::open)?.counts.json(),
            ["w3", rate] => opened(&mut records, Records::open)?.pace(rate.parse()?)?,
            ["w7-read"] => opened(&mut shop, view::Shop::open)?.read()?,
            ["w7-load"] => opened(&mut shop, view::Shop::open)?.load()?,
            ["w7-more-read"] => opened(&mut shop, view::Shop::open)?.read_more()?,
            ["w7-more"] => opened(&mut shop, view::Shop::open)?.more()?,
            ["w7-update"] => opened(&mut shop, view::Shop::open)?.update()?,
            [work] => opened(&mut records, Records::open)?.poll(work)?,
            _ => return Err(format!("{order}?").into()),
        };
        println!("{answer}");
    }
    Ok(())
}

fn opened<T>(slot: &mut Option<T>, open: fn() -> Result<T, Fault>) -> Result<&mut T, Fault> {
    if slot.is_none() {
        *slot = Some(open()?);
    }
    slot.as_mut().ok_or_else(|| "not open".into())
}
