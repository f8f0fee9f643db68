//! W6, all systems that read and write topics, as often as is asked for; one table.

use crate::broker::{self, Broker};
use crate::measure::{self, Figures};
use crate::side::{OURS, Row};
use crate::work::Work;
use crate::{Args, Fault};
use std::path::Path;

/// Measures every system there is; prints the table.
pub fn all(args: &Args, root: &Path, folder: &Path, rows: &mut [Row]) -> Result<(), Fault> {
    let work = Work::new(args.records);
    let mut measured: Vec<Vec<Figures>> = rows.iter().map(|_| Vec::new()).collect();
    for round in 0..args.runs.max(1) {
        let broker_folder = folder.join(format!("w6-broker-{round}"));
        let broker = Broker::start(root, &broker_folder)?;
        measure::warm_up(&broker, args.partitions, &work)?;
        for (row, of_row) in rows.iter_mut().zip(&mut measured) {
            let Ok(system) = &row.system else { continue };
            if row.fault.is_some() || !(system.speaks_topics() || row.name == OURS) {
                continue;
            }
            eprintln!("peers: W6, round {}: {}", round + 1, system.version);
            let (name, folder) = (format!("w6.{}-{round}", row.name), folder.join(&row.name));
            match measure::run(args, &broker, system, &work, &name, &folder) {
                Ok(figures) => of_row.push(figures),
                Err(fault) => {
                    eprintln!("peers: {}: {fault}", row.name);
                    row.fault = Some(format!("W6: {fault}"));
                }
            }
            std::fs::remove_dir_all(&folder)?;
        }
        drop(broker);
        std::fs::remove_dir_all(&broker_folder)?;
    }
    table(args, rows, &measured);
    Ok(())
}

fn table(args: &Args, rows: &[Row], measured: &[Vec<Figures>]) {
    println!(
        "\nW6: {} records of 526 B, topic to changes topic, exactly once; the middle of {} rounds; Kafka {} on the same \
         machine; {} cores\n",
        args.records,
        args.runs,
        broker::VERSION,
        std::thread::available_parallelism().map_or(0, usize::from),
    );
    let paces: Vec<String> = args.rate.iter().map(|rate| format!("{rate}/s p50 / p99 / p99.9 ms")).collect();
    println!(
        "| system | records/s | CPU µs a record | with broker | again: records/s | CPU µs a record | with broker | {} | \
         peak MB |",
        paces.join(" | ")
    );
    println!("|---|---|---|---|---|---|---|{}---|", "---|".repeat(paces.len()));
    for (row, rounds) in rows.iter().zip(measured) {
        let Ok(system) = &row.system else { continue };
        if rounds.is_empty() {
            continue;
        }
        let middle = |of: &dyn Fn(&Figures) -> f64| {
            let mut all: Vec<f64> = rounds.iter().map(of).collect();
            all.sort_by(f64::total_cmp);
            all.get(all.len() / 2).copied().unwrap_or(f64::NAN)
        };
        let first = [middle(&|f| f.rate), middle(&|f| f.own_us), middle(&|f| f.own_us + f.broker_us)];
        let again = [middle(&|f| f.again.0), middle(&|f| f.again.1), middle(&|f| f.again.1 + f.again.2)];
        let paced = |n: usize| {
            let at = |f: &Figures| f.paced.get(n).copied().unwrap_or_default();
            let [p50, p99, p999] = [0, 1, 2].map(|share| middle(&|f| at(f)[share]));
            format!("{p50:.1} / {p99:.1} / {p999:.1}")
        };
        let paced: Vec<String> = (0..args.rate.len()).map(paced).collect();
        let cells = |[rate, own, both]: [f64; 3]| format!("{rate:.0} | {own:.1} | {both:.1}");
        let (paced, peak) = (paced.join(" | "), middle(&|f| f.peak_mb));
        println!("| {} | {} | {} | {paced} | {peak:.0} |", system.version, cells(first), cells(again));
    }
}
