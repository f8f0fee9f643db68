//! The same work beside other systems: what does it cost, and how soon is it seen, here and elsewhere?
//!
//! For each system of `benches/peers` in turn, and as often as is asked for: W1 load, W2 re-poll, W3 paced updates and W7 view
//! on records from one generator (`side`), through files and stdin (`piped`) or topics (`polls`); and W6, topic to changes
//! topic, exactly once, on one broker (`measure`). Each has the machine to itself; CPU is read per process, so that the
//! driver's own counts nowhere. A count that is not exact is an error, and no figure.
//!
//! With `--processes` it asks another question, of Syncline alone: what is lost when several processes share the work?

mod broker;
mod files;
mod measure;
mod piped;
#[path = "../poll.rs"]
mod poll;
mod polls;
mod reader;
mod scale;
#[path = "../shop.rs"]
mod shop;
mod side;
mod system;
mod topics;
mod work;

use broker::Broker;
use clap::Parser;
use files::Files;
use side::Row;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use system::System;

/// Anything that ends the benchmark early.
type Fault = Box<dyn std::error::Error + Send + Sync>;

/// What is run.
#[derive(Parser, Clone, Debug)]
#[command(name = "peers", about = "The works of the benchmarks beside other systems, on the same records")]
struct Args {
    /// Records of each work.
    #[arg(long, default_value_t = 500_000)]
    records: u64,
    /// Orders of W7, and as many customers.
    #[arg(long, default_value_t = 200_000)]
    view_records: u64,
    /// Only these systems: names of folders in benches/peers.
    #[arg(long, value_delimiter = ',', default_value = "syncline,postgres,kafka-streams,flink,dbsp,dlt")]
    only: Vec<String>,
    /// Only these works.
    #[arg(long, value_delimiter = ',', default_value = "w1,w2,w3,w6,w7")]
    works: Vec<String>,
    /// How often each system is measured; the figures in the middle are shown.
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Records a second of the paced part; several are run one after the other, in W3 the first alone.
    #[arg(long, value_delimiter = ',', default_values_t = [200, 2_000])]
    rate: Vec<u64>,
    /// How long each pace is kept up.
    #[arg(long, default_value_t = 15)]
    seconds: u64,
    /// Partitions of each topic.
    #[arg(long, default_value_t = 4)]
    partitions: i32,
    /// Threads that work in each system.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Only Syncline, with its log in Kafka, by so many processes: one after the other, and with the embedded log.
    #[arg(long, value_delimiter = ',')]
    processes: Vec<usize>,
    /// With `--processes`: how often each is measured.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
}

impl Args {
    fn wants(&self, work: &str) -> bool {
        self.works.iter().any(|wanted| wanted.eq_ignore_ascii_case(work))
    }

    fn wants_any(&self, works: &[&str]) -> bool {
        works.iter().any(|work| self.wants(work))
    }

    /// Records a second in W3.
    fn pace(&self) -> u64 {
        self.rate.first().copied().unwrap_or(200).max(1)
    }

    /// Updates of W3, each of another record.
    fn paced(&self) -> u64 {
        (self.pace() * self.seconds).min(self.records)
    }
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            eprintln!("peers: {fault}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), Fault> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let folder = target.join(format!("peers/run-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let outcome = match args.processes.is_empty() {
        true => all(args, &root, &target, &folder),
        false => scale::all(args, &root, &target, &folder),
    };
    std::fs::remove_dir_all(&folder)?;
    outcome
}

fn all(args: &Args, root: &Path, target: &Path, folder: &Path) -> Result<(), Fault> {
    // A system that cannot be had is told, and the others run.
    let build = |name: &String| Row {
        name: name.clone(),
        system: System::build(name, root, &target.join("peers")),
        rounds: Vec::new(),
        fault: None,
    };
    let mut rows: Vec<Row> = args.only.iter().map(build).collect();
    if args.wants_any(&["w1", "w2", "w3", "w7"]) {
        side_by_side(args, root, folder, &mut rows)?;
        side::table(args, &rows);
    }
    if args.wants("w6") {
        topics::all(args, root, folder, &mut rows)?;
    }
    let faults: Vec<String> =
        rows.iter().filter_map(|row| Some(format!("{}: {}", row.name, row.fault.as_ref()?))).collect();
    match faults.is_empty() {
        true => Ok(()),
        false => Err(format!("not every system could be measured:\n{}", faults.join("\n")).into()),
    }
}

/// Rounds of all systems, each in turn.
fn side_by_side(args: &Args, root: &Path, folder: &Path, rows: &mut [Row]) -> Result<(), Fault> {
    let files = Files::write(args, folder.join("files"))?;
    for round in 0..args.runs.max(1) {
        for row in rows.iter_mut().filter(|row| row.fault.is_none()) {
            let Ok(system) = &row.system else { continue };
            eprintln!("peers: round {}: {}", round + 1, system.version);
            let folder = folder.join(format!("{}-{round}", row.name));
            // A broker of its own: it is there for nobody else, and begins with nothing.
            let broker = match system.speaks_topics() && args.wants_any(&["w1", "w2", "w3"]) {
                true => Some(Broker::start(root, &folder.join("broker"))?),
                false => None,
            };
            match side::measure(args, system, &files, broker.as_ref(), &format!("{}-{round}", row.name), &folder) {
                Ok(figures) => row.rounds.push(figures),
                Err(fault) => {
                    eprintln!("peers: {}: {fault}", row.name);
                    row.fault = Some(fault.to_string());
                }
            }
            drop(broker);
            std::fs::remove_dir_all(&folder)?;
        }
    }
    Ok(std::fs::remove_dir_all(&files.folder)?)
}
