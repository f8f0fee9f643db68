//! A system under measurement: built and started by its `run.sh`, watched through `/proc`.

use crate::Fault;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A system that could be built.
pub struct System {
    /// Name of its folder.
    pub name: String,
    /// Name and version as it says them.
    pub version: String,
    script: PathBuf,
    cache: PathBuf,
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
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // Behind the name, which may hold anything: state is the first, utime and stime the 12th and 13th.
    let rest = stat.rsplit_once(')').map(|(_, rest)| rest).unwrap_or_default();
    let ticks: Vec<u64> = rest.split_whitespace().skip(11).take(2).filter_map(|n| n.parse().ok()).collect();
    // SAFETY: no pointers are involved.
    let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) }.max(1) as u64;
    Ok(Duration::from_millis(ticks.iter().sum::<u64>() * 1_000 / per_second))
}

/// Most memory a process ever had, in bytes.
pub fn peak(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|l| l.split_whitespace().next()).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) * 1_024
}
