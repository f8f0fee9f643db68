//! Wall time, CPU of all threads, memory, disk.

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

/// Wall and CPU time of the stretches it was running in.
#[derive(Debug, Default)]
pub struct Watch {
    since: Option<(Instant, Duration)>,
    /// Time that passed.
    pub wall: Duration,
    /// User and system time of this process, all threads.
    pub cpu: Duration,
}

impl Watch {
    /// Runs on.
    pub fn start(&mut self) {
        self.since = Some((Instant::now(), cpu()));
    }

    /// Stands still.
    pub fn stop(&mut self) {
        if let Some((wall, before)) = self.since.take() {
            self.wall += wall.elapsed();
            self.cpu += cpu().saturating_sub(before);
        }
    }

    /// Things a second.
    pub fn rate(&self, things: u64) -> f64 {
        things as f64 / self.wall.as_secs_f64().max(1e-9)
    }

    /// CPU microseconds a thing.
    pub fn cpu_us(&self, things: u64) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / (things.max(1) as f64)
    }
}

/// User and system time of this process so far, threads that have ended included.
pub fn cpu() -> Duration {
    // SAFETY: getrusage fills the struct it is given; all zeroes is a valid value of it.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &mut usage);
        usage
    };
    let time = |t: libc::timeval| Duration::new(t.tv_sec.unsigned_abs(), (t.tv_usec.unsigned_abs() * 1_000) as u32);
    time(usage.ru_utime) + time(usage.ru_stime)
}

/// Resident memory now and at its peak since the last [`forget_peak`], in bytes; zeroes where the system does not say.
pub fn memory() -> (u64, u64) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib = |name: &str| {
        let line = status.lines().find_map(|l| l.strip_prefix(name));
        line.and_then(|l| l.split_whitespace().next()).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0)
    };
    (kib("VmRSS:") * 1_024, kib("VmHWM:") * 1_024)
}

/// Starts the peak afresh.
pub fn forget_peak() {
    // Where it is not allowed the peak is that of the whole program: an overstatement, never an understatement.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

/// Bytes of all files below `dir`.
pub fn disk(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => disk(&entry.path()),
            Ok(meta) => meta.len(),
            Err(_) => 0,
        })
        .sum()
}

/// How long synced writes of 4 KiB take in `dir`, sorted.
pub fn sync_times(dir: &Path) -> std::io::Result<Vec<Duration>> {
    const WRITES: usize = 200;
    let path = dir.join("sync-probe");
    let mut file = std::fs::File::create(&path)?;
    let mut times = Vec::with_capacity(WRITES);
    for _ in 0..WRITES {
        let begin = Instant::now();
        file.write_all(&[7; 4_096])?;
        file.sync_data()?;
        times.push(begin.elapsed());
    }
    std::fs::remove_file(&path)?;
    times.sort_unstable();
    Ok(times)
}
