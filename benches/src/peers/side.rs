//! W1, W2, W3 and W7, system by system and round by round: who does it, the figures in the middle, one table.

use crate::broker::Broker;
use crate::files::Files;
use crate::system::System;
use crate::{Args, Fault, piped, polls};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

/// Figures by name, such as `W1 CPU`.
pub type Figures = BTreeMap<&'static str, f64>;

/// The system all others are compared with.
pub const OURS: &str = "syncline";

/// A system, or why it cannot be had, and its figures of each round.
pub struct Row {
    /// Name of its folder.
    pub name: String,
    /// As it could be built.
    pub system: Result<System, String>,
    /// Of each round.
    pub rounds: Vec<Figures>,
    /// What went wrong.
    pub fault: Option<String>,
}

impl Row {
    /// A figure, in the middle of all rounds.
    fn middle(&self, figure: &str) -> Option<f64> {
        let mut all: Vec<f64> = self.rounds.iter().filter_map(|round| round.get(figure).copied()).collect();
        all.sort_by(f64::total_cmp);
        all.get(all.len() / 2).copied()
    }
}

/// One round of one system.
pub fn measure(
    args: &Args,
    system: &System,
    files: &Files,
    broker: Option<&Broker>,
    name: &str,
    folder: &Path,
) -> Result<Figures, Fault> {
    match broker {
        Some(broker) => polls::run(args, broker, system, name, folder),
        None if system.speaks_topics() => Ok(Figures::new()),
        None if system.name == OURS => ours(args, folder),
        None => piped::run(args, system, files, folder),
    }
}

/// The program of `make bench`, which checks its counts itself.
fn ours(args: &Args, folder: &Path) -> Result<Figures, Fault> {
    std::fs::create_dir_all(folder)?;
    let json = folder.join("bench.json");
    let works: Vec<&str> = ["w1", "w2", "w3", "w7"].into_iter().filter(|work| args.wants(work)).collect();
    let (size, rate) = (args.view_records, args.pace());
    let mut command = Command::new(std::env::current_exe()?.with_file_name("bench"));
    command.args(["--only", &works.join(","), "--records", &args.records.to_string()]);
    command.args(["--workers", &args.threads.to_string(), "--rate", &rate.to_string()]);
    command.args(["--seconds", &args.seconds.to_string(), "--view-sizes", &size.to_string()]);
    command.arg("--json").arg(&json).env("BENCH_DIR", folder).stdin(Stdio::null()).stdout(Stdio::null());
    if !command.status()?.success() {
        return Err("bench has failed; see above".into());
    }
    let told: Value = serde_json::from_slice(&std::fs::read(&json)?)?;
    let figure = |work: &str, name: &str| {
        let all = told.get("figures")?.as_array()?;
        all.iter().find(|f| f["work"] == work && f["figure"] == name)?.get("value")?.as_f64()
    };
    let of_view = |name: &str| figure("W7", &format!("{size} + {size}: {name}"));
    let paced = |name: &str| figure("W3", &format!("{rate}/s: {name}"));
    let alone = |name: &str| Some(of_view(name)? - of_view(&format!("{name}, without the view"))?);
    let (load, many) = ("load, CPU a record", "one update of a thousand at a time, CPU");
    let all = [
        ("W1 rate", figure("W1", "records a second")),
        ("W1 CPU", figure("W1", "CPU a record")),
        ("W2 rate", figure("W2", "records a second")),
        ("W2 CPU", figure("W2", "CPU a record")),
        ("W2 MB", figure("W2", "memory, peak")),
        ("W3 p50", paced("due to visible, p50")),
        ("W3 p99", paced("due to visible, p99")),
        ("W3 p99.9", paced("due to visible, p99.9")),
        ("W3 CPU", paced("CPU a webhook, pacing and reading included")),
        ("W7 rate", of_view("load, records a second")),
        ("W7 CPU", of_view(load)),
        ("W7 view CPU", alone(load)),
        ("W7 p50", of_view("one update, p50")),
        ("W7 p99", of_view("one update, p99")),
        ("W7 one CPU", of_view("one update, CPU")),
        ("W7 many CPU", of_view(many)),
        ("W7 many view CPU", alone(many)),
    ];
    Ok(all.into_iter().filter_map(|(name, value)| Some((name, value?))).collect())
}

/// Prints the tables.
pub fn table(args: &Args, rows: &[Row]) {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    println!(
        "\nThe middle of {} rounds; {} records of 526 B; {cores} cores; × is against Syncline\n",
        args.runs, args.records
    );
    let ours = rows.iter().find(|row| row.name == OURS);
    if args.wants_any(&["w1", "w2", "w3"]) {
        let paced = format!("W3 at {}/s: p50 / p99 / p99.9 ms", args.pace());
        println!("| system | W1 records/s | CPU µs | × | W2 records/s | CPU µs | × | memory MB | {paced} | × |");
        println!("|---|---|---|---|---|---|---|---|---|---|");
        for row in rows {
            let mut cells = Vec::new();
            for work in ["W1", "W2"] {
                cells.push(cell(row.middle(&format!("{work} rate")), 0));
                cells.extend(against(row, ours, &format!("{work} CPU")));
            }
            let [p50, factor] = against(row, ours, "W3 p50");
            let [p99, p999] = ["W3 p99", "W3 p99.9"].map(|figure| cell(row.middle(figure), 1));
            cells.extend([cell(row.middle("W2 MB"), 0), format!("{p50} / {p99} / {p999}"), factor]);
            line(row, &cells, "W1 CPU");
        }
    }
    if args.wants("w7") {
        let size = args.view_records;
        println!(
            "\n| {size} orders ⋈ {size} customers | records/s | CPU µs a record | × | view alone | × | one update p50 / p99 ms | CPU µs | × | a thousand at a time: CPU µs each | × | view alone | × |"
        );
        println!("|---|---|---|---|---|---|---|---|---|---|---|---|---|");
        for row in rows.iter().filter(|row| row.middle("W7 CPU").is_some()) {
            let mut cells = vec![cell(row.middle("W7 rate"), 0)];
            cells.extend(against(row, ours, "W7 CPU"));
            cells.extend(against(row, ours, "W7 view CPU"));
            cells.push(format!("{} / {}", cell(row.middle("W7 p50"), 2), cell(row.middle("W7 p99"), 2)));
            cells.extend(against(row, ours, "W7 one CPU"));
            cells.extend(against(row, ours, "W7 many CPU"));
            cells.extend(against(row, ours, "W7 many view CPU"));
            line(row, &cells, "W7 CPU");
        }
    }
}

fn line(row: &Row, cells: &[String], needs: &str) {
    let title = row.system.as_ref().map_or(&row.name, |system| &system.version);
    match (&row.system, row.middle(needs)) {
        (Ok(_), Some(_)) => println!("| {title} | {} |", cells.join(" | ")),
        (Err(_), _) => println!("| {title} | cannot be had here |"),
        _ => println!("| {title} | not measured |"),
    }
}

/// A figure, and how many times ours it is.
fn against(row: &Row, ours: Option<&Row>, figure: &str) -> [String; 2] {
    let (own, others) = (row.middle(figure), ours.and_then(|ours| ours.middle(figure)));
    let factor = own.zip(others).map(|(own, others)| own / others);
    [cell(own, if own.is_some_and(|f| f < 10.0) { 2 } else { 1 }), cell(factor, 1)]
}

fn cell(figure: Option<f64>, digits: usize) -> String {
    figure.map_or_else(|| "–".to_owned(), |figure| format!("{figure:.digits$}"))
}
