//! W6: topic → changes topic, exactly once, on one broker: what does it cost, and how soon is it seen, here and elsewhere?
//!
//! For each system of `benches/peers` in turn: it is started on fresh topics of the same broker; records are written to its
//! input as fast as they go, until the last change stands in its output where a `read_committed` reader sees it; then again
//! at a set pace, each record timed from when it was due. Systems, broker and this driver share the machine; CPU is read per
//! process, so that the driver's own counts nowhere. A count of changes that is not exact ends the benchmark.
//!
//! With `--processes` it asks another question, of Syncline alone: what is lost when several processes share the work?

mod broker;
mod measure;
mod reader;
mod scale;
mod system;
mod work;

use broker::Broker;
use clap::Parser;
use measure::Figures;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use system::System;
use work::Work;

/// Anything that ends the benchmark early.
type Fault = Box<dyn std::error::Error + Send + Sync>;

/// What is run.
#[derive(Parser, Clone, Debug)]
#[command(name = "peers", about = "W6: topic to changes topic, exactly once, beside other systems on one broker")]
struct Args {
    /// Records written in one go.
    #[arg(long, default_value_t = 1_000_000)]
    records: u64,
    /// Only these systems: names of folders in benches/peers.
    #[arg(long, value_delimiter = ',', default_value = "syncline,kafka-streams,flink")]
    only: Vec<String>,
    /// Records a second of the paced part; several are run one after the other.
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
    let systems: Vec<Result<System, String>> =
        args.only.iter().map(|name| System::build(name, root, &target.join("peers"))).collect();
    let broker = Broker::start(root, &folder.join("broker"))?;
    let work = Work::new(args.records);
    measure::warm_up(&broker, args.partitions, &work)?;
    let mut rows = Vec::new();
    for (name, system) in args.only.iter().zip(&systems) {
        let measured = match system {
            Ok(system) => measure::run(args, &broker, system, &work, &folder.join(name)).map_err(|e| e.to_string()),
            Err(why) => Err(why.clone()),
        };
        if let Err(why) = &measured {
            eprintln!("peers: {name}: {why}");
        }
        rows.push((system.as_ref().map_or(name.clone(), |s| s.version.clone()), measured));
    }
    table(args, &rows);
    match rows.iter().all(|(_, measured)| measured.is_ok()) {
        true => Ok(()),
        false => Err("not every system could be measured; see above".into()),
    }
}

fn table(args: &Args, rows: &[(String, Result<Figures, String>)]) {
    println!(
        "\nW6: {} records of 526 B, topic to changes topic, exactly once; Kafka {} on the same machine; {} cores\n",
        args.records,
        broker::VERSION,
        std::thread::available_parallelism().map_or(0, usize::from),
    );
    let paces: Vec<String> = args.rate.iter().map(|rate| format!("{rate}/s p50 / p99 ms")).collect();
    println!("| system | records/s | CPU µs a record | with broker | {} | peak MB |", paces.join(" | "));
    println!("|---|---|---|---|{}---|", "---|".repeat(paces.len()));
    for (name, measured) in rows {
        match measured {
            Ok(f) => {
                let paced: Vec<String> = f.paced.iter().map(|(p50, p99)| format!("{p50:.1} / {p99:.1}")).collect();
                let (rate, own, both) = (f.rate, f.own_us, f.own_us + f.broker_us);
                println!("| {name} | {rate:.0} | {own:.1} | {both:.1} | {} | {:.0} |", paced.join(" | "), f.peak_mb);
            }
            Err(_) => println!("| {name} | not measured |"),
        }
    }
}
