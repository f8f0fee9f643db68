//! Systems without topics: a program of their own is told by stdin what to do, and answers a line of JSON when it is done.
//!
//! Orders are `w1`, `w2`, `w3 RATE`, `w7-read`, `w7-load`, `w7-update`, `w7-more-read`, `w7-more`; `count WORK` asks what came
//! of it, with the clock standing still. CPU is that of the program and all below it.

use crate::files::Files;
use crate::shop::{MORE, UPDATES};
use crate::side::Figures;
use crate::system::{System, tree_cpu, tree_memory};
use crate::{Args, Fault};
use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// A program that waits for orders; ends with this value.
struct Piped {
    child: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

/// What one order took.
struct Took {
    wall: Duration,
    cpu: Duration,
    answer: Value,
}

impl Piped {
    fn start(args: &Args, system: &System, files: &Files, folder: &Path) -> Result<Piped, Fault> {
        std::fs::create_dir_all(folder)?;
        let mut command = Command::new(&system.script);
        command.arg("works").stdin(Stdio::piped()).stdout(Stdio::piped());
        command.stderr(std::fs::File::create(folder.join("system.log"))?);
        command.env("CACHE", &system.cache).env("DATA", folder).env("FILES", &files.folder);
        command.env("THREADS", args.threads.to_string());
        let mut child = command.spawn()?;
        let (orders, answers) = (child.stdin.take(), child.stdout.take().ok_or("no stdout")?);
        Ok(Piped { child, orders, answers: BufReader::new(answers) })
    }

    fn order(&mut self, order: &str) -> Result<Took, Fault> {
        let (before, begin) = (tree_cpu(self.child.id())?, Instant::now());
        writeln!(self.orders.as_mut().ok_or("no stdin")?, "{order}")?;
        let mut line = String::new();
        if self.answers.read_line(&mut line)? == 0 {
            return Err(format!("it ended while it did {order}").into());
        }
        let (wall, cpu) = (begin.elapsed(), tree_cpu(self.child.id())?.saturating_sub(before));
        let answer = serde_json::from_str(&line).map_err(|e| format!("it answered {line:?} to {order}: {e}"))?;
        Ok(Took { wall, cpu, answer })
    }

    /// A work over so many records, whose counts must be these: added, updated, deleted.
    fn poll(&mut self, work: &str, records: u64, wanted: [u64; 3]) -> Result<(f64, f64), Fault> {
        let took = self.order(work)?;
        let counts = self.order(&format!("count {work}"))?.answer;
        let found = ["added", "updated", "deleted"].map(|kind| counts.get(kind).and_then(Value::as_u64));
        match found == wanted.map(Some) {
            true => Ok((records as f64 / took.wall.as_secs_f64(), each(took.cpu, records))),
            false => Err(format!("{work}: it counted {counts}, must be {wanted:?}").into()),
        }
    }
}

impl Drop for Piped {
    fn drop(&mut self) {
        // The end of its stdin ends it, and it ends what it has started.
        self.orders = None;
        let _ = self.child.wait();
    }
}

/// Does the works it is asked for, those there are for it.
pub fn run(args: &Args, system: &System, files: &Files, folder: &Path) -> Result<Figures, Fault> {
    let mut piped = Piped::start(args, system, files, folder)?;
    let outcome = works(args, system, files, &mut piped);
    drop(piped);
    outcome.map_err(|fault| {
        let said = std::fs::read_to_string(folder.join("system.log")).unwrap_or_default();
        let lines: Vec<&str> = said.lines().collect();
        let end = lines.get(lines.len().saturating_sub(15)..).unwrap_or_default().join("\n");
        format!("{fault}\n{end}").into()
    })
}

fn works(args: &Args, system: &System, files: &Files, piped: &mut Piped) -> Result<Figures, Fault> {
    let mut figures = Figures::new();
    if args.wants_any(&["w1", "w2", "w3"]) {
        let (rate, cpu) = piped.poll("w1", args.records, [args.records, 0, 0])?;
        figures.extend([("W1 rate", rate), ("W1 CPU", cpu)]);
    }
    if args.wants("w2") {
        let (rate, cpu) = piped.poll("w2", args.records, [0, files.changed, files.missing])?;
        figures.extend([("W2 rate", rate), ("W2 CPU", cpu)]);
        figures.insert("W2 MB", tree_memory(piped.child.id())? as f64 / 1e6);
    }
    if args.wants("w3") && system.name != "dlt" {
        let took = piped.order(&format!("w3 {}", args.pace()))?;
        expect(&took.answer, "changes", args.paced() as i64)?;
        figures.extend([("W3 p50", number(&took.answer, "p50")), ("W3 p99", number(&took.answer, "p99"))]);
        figures.insert("W3 p99.9", number(&took.answer, "p99.9"));
        figures.insert("W3 CPU", each(took.cpu, args.paced()));
    }
    if args.wants("w7") && system.name == "dbsp" {
        figures.extend(view(args, files, piped)?);
    }
    Ok(figures)
}

fn view(args: &Args, files: &Files, piped: &mut Piped) -> Result<Figures, Fault> {
    let records = 2 * args.view_records;
    let (read, load) = (piped.order("w7-read")?, piped.order("w7-load")?);
    let update = piped.order("w7-update")?;
    let (more_read, more) = (piped.order("w7-more-read")?, piped.order("w7-more")?);
    let counts = piped.order("count w7")?.answer;
    expect(&counts, "orders", args.view_records as i64)?;
    expect(&counts, "worth", files.worth)?;
    let wall = read.wall + load.wall;
    Ok(Figures::from([
        ("W7 rate", records as f64 / wall.as_secs_f64()),
        ("W7 CPU", each(read.cpu + load.cpu, records)),
        ("W7 view CPU", each(load.cpu, records)),
        ("W7 p50", number(&update.answer, "p50")),
        ("W7 p99", number(&update.answer, "p99")),
        ("W7 one CPU", each(update.cpu, UPDATES)),
        ("W7 many CPU", each(more_read.cpu + more.cpu, MORE)),
        ("W7 many view CPU", each(more.cpu, MORE)),
    ]))
}

fn expect(answer: &Value, name: &str, wanted: i64) -> Result<(), Fault> {
    match answer.get(name).and_then(Value::as_i64) == Some(wanted) {
        true => Ok(()),
        false => Err(format!("it answered {answer}, {name} must be {wanted}").into()),
    }
}

fn number(answer: &Value, name: &str) -> f64 {
    answer.get(name).and_then(Value::as_f64).unwrap_or(f64::NAN)
}

/// Microseconds each.
fn each(spent: Duration, things: u64) -> f64 {
    spent.as_secs_f64() * 1e6 / things.max(1) as f64
}
