//! A system under measurement: built and started by its `run.sh`, watched through `/proc`.

use crate::Fault;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A system that could be built.
pub struct System {
    /// Name of its folder.
    pub name: String,
    /// Name and version as it says them.
    pub version: String,
    /// Its `run.sh`.
    pub script: PathBuf,
    /// Where it keeps what it has fetched and compiled.
    pub cache: PathBuf,
}

/// What a system is told.
pub struct Order<'a> {
    pub brokers: &'a str,
    pub input: &'a str,
    pub output: &'a str,
    /// For group and transactions.
    pub name: &'a str,
    /// Its own, empty.
    pub folder: &'a Path,
    pub threads: usize,
    /// What else its `run.sh` reads.
    pub more: &'a [(&'a str, String)],
}

/// A system at work; ends with this value.
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl System {
    /// Builds what lies in `benches/peers/NAME`; `Err` says why it cannot be had.
    pub fn build(name: &str, root: &Path, cache: &Path) -> Result<System, String> {
        let script = root.join("benches/peers").join(name).join("run.sh");
        eprintln!("peers: building {name}");
        let mut command = Command::new(&script);
        command.arg("build").env("CACHE", cache).stdin(Stdio::null()).stderr(Stdio::inherit());
        let output = command.output().map_err(|e| format!("{}: {e}", script.display()))?;
        if !output.status.success() {
            return Err(format!("{} build: {}", script.display(), output.status));
        }
        let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        Ok(System { name: name.to_owned(), version, script, cache: cache.to_owned() })
    }

    /// Whether it reads and writes topics and nothing else.
    pub fn speaks_topics(&self) -> bool {
        matches!(self.name.as_str(), "kafka-streams" | "flink")
    }

    /// Starts it.
    pub fn start(&self, order: &Order) -> Result<Process, Fault> {
        std::fs::create_dir_all(order.folder)?;
        let log = order.folder.join("system.log");
        let file = std::fs::File::create(&log)?;
        let mut command = Command::new(&self.script);
        command.arg("start").stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        command.env("CACHE", &self.cache).env("DATA", order.folder).env("NAME", order.name);
        command.env("BROKERS", order.brokers).env("IN", order.input).env("OUT", order.output);
        command.env("THREADS", order.threads.to_string()).envs(order.more.iter().map(|(name, value)| (name, value)));
        Ok(Process { child: command.spawn()?, log })
    }
}

impl Process {
    /// Its process: `run.sh` becomes the system.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has printed so far.
    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Fails with the end of its log if it has ended.
    pub fn must_run(&mut self) -> Result<(), Fault> {
        let Some(status) = self.child.try_wait()? else { return Ok(()) };
        let said = self.said();
        let lines: Vec<&str> = said.lines().collect();
        let end = lines.get(lines.len().saturating_sub(15)..).unwrap_or_default().join("\n");
        Err(format!("the system has ended ({status}):\n{end}").into())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Its state is thrown away with its folder: no need to end in good order.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// User and system time of a process so far, all threads.
pub fn cpu(pid: u32) -> Result<Duration, Fault> {
    Ok(ticks(stat(pid)?.get(11..13)))
}

/// The same of a process and all below it, those that have ended included.
pub fn tree_cpu(pid: u32) -> Result<Duration, Fault> {
    Ok(tree(pid)?.values().map(|fields| ticks(fields.get(11..15))).sum())
}

/// Memory of a process and all below it in bytes; what several share counts once.
pub fn tree_memory(pid: u32) -> Result<u64, Fault> {
    let share = |pid: &u32| kib(&format!("/proc/{pid}/smaps_rollup"), "Pss:");
    Ok(tree(pid)?.keys().map(share).sum::<u64>() * 1_024)
}

/// A process and all below it, with what [`stat`] says of each.
fn tree(pid: u32) -> Result<HashMap<u32, Vec<u64>>, Fault> {
    let mut all: HashMap<u32, Vec<u64>> = HashMap::new();
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // One that has ended meanwhile counts with the one that waited for it.
        all.extend(stat(pid).ok().map(|fields| (pid, fields)));
    }
    let parent = |pid: &u32| all.get(pid).and_then(|fields| fields.get(1)).map(|parent| *parent as u32);
    let below = |of: &u32| std::iter::successors(Some(*of), parent).any(|ancestor| ancestor == pid);
    let members: Vec<u32> = all.keys().copied().filter(below).collect();
    all.retain(|pid, _| members.contains(pid));
    Ok(all)
}

/// The numbers behind the name, which may hold anything: state, here 0, is the first; then the parent; user and system
/// time are the 12th and 13th, those of ended children the next two.
fn stat(pid: u32) -> Result<Vec<u64>, Fault> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let rest = stat.rsplit_once(')').map(|(_, rest)| rest).unwrap_or_default();
    Ok(rest.split_whitespace().map(|number| number.parse().unwrap_or(0)).collect())
}

fn ticks(ticks: Option<&[u64]>) -> Duration {
    // SAFETY: no pointers are involved.
    let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) }.max(1) as u64;
    Duration::from_millis(ticks.unwrap_or_default().iter().sum::<u64>() * 1_000 / per_second)
}

/// Most memory a process ever had, in bytes.
pub fn peak(pid: u32) -> u64 {
    kib(&format!("/proc/{pid}/status"), "VmHWM:") * 1_024
}

/// A number of KiB that a file of `/proc` tells; 0 if it does not.
fn kib(path: &str, name: &str) -> u64 {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|l| l.split_whitespace().next()).and_then(|n| n.parse().ok()).unwrap_or(0)
}
