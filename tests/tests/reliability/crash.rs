//! Killed at random moments under load, the engine has everything it acknowledged, nothing half, and nothing twice.
//!
//! Each cycle starts the child program, kills it by SIGKILL after a random while, opens the folder and compares it with
//! the oracle at the step stored in the last commit. `CRASH_CYCLES=n` sets the number of cycles, `CRASH_SEED` the seed.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use syncline_engine::Engine;
use syncline_engine::pipeline::Dataset;
use syncline_engine::sink::Delivery;
use syncline_tests::compare::{Times, compare, compare_missing};
use syncline_tests::crash::{NOW, history, log_entry, open, place, side_by_side};
use syncline_tests::history::specs;
use syncline_tests::ledger::Trial;
use syncline_tests::oracle::{Oracle, Tally, Writer};

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

/// Cycles on one folder; then a new one begins, so that judging stays quick.
const CYCLES_PER_FOLDER: u64 = 12;
/// Cycles where nobody asks for more.
const CYCLES: u64 = 120;

#[test]
fn killed_at_random_moments_it_keeps_what_it_acknowledged() {
    let (cycles, seed) = (number("CRASH_CYCLES", CYCLES), number("CRASH_SEED", 1));
    let rounds = 0..cycles.div_ceil(CYCLES_PER_FOLDER);
    let done = side_by_side(rounds, |round| {
        let first = round * CYCLES_PER_FOLDER;
        kill_again_and_again(seed + round, (cycles - first).min(CYCLES_PER_FOLDER));
    });
    assert_eq!(done, Ok(()), "folders in which something was lost or doubled");
}

fn kill_again_and_again(seed: u64, cycles: u64) {
    let mut trial = Trial::of("kills");
    trial.seed(format!("crash {seed}"));
    let mut rng = StdRng::seed_from_u64(seed);
    let folder = tempfile::tempdir().expect("a folder");
    let mut judge = Judge::new(seed);
    for cycle in 0..cycles {
        let workers = rng.random_range(1..=2);
        let life = match cycle % 4 {
            // Twice in a row, the first time while it recovers.
            3 => {
                judge.hear(&lines_of(folder.path(), seed, workers, Life::AfterStart(rng.random_range(0..60))));
                trial.add(1);
                Life::AfterOpen(rng.random_range(0..20))
            }
            0 => Life::AfterOpen(rng.random_range(0..30)),
            _ => Life::AfterOpen(rng.random_range(30..400)),
        };
        judge.hear(&lines_of(folder.path(), seed, workers, life));
        judge.judge(folder.path(), rng.random_range(1..=2));
        trial.add(1);
        println!("seed {seed}, cycle {cycle}: {judge:?}");
    }
    judge.finish(folder.path());
    assert!(judge.acked > 0 && judge.logged > 0 && !judge.deliveries.is_empty(), "the load was real: {judge:?}");
}

/// Milliseconds until the kill.
enum Life {
    AfterStart(u64),
    AfterOpen(u64),
}

/// Runs the child, kills it, and gives what it said.
fn lines_of(folder: &Path, seed: u64, workers: usize, life: Life) -> Vec<String> {
    let mut child = Command::new(env!("CARGO_BIN_EXE_crash_child"))
        .args([folder.as_os_str(), seed.to_string().as_ref(), workers.to_string().as_ref()])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the child starts");
    let reader = BufReader::new(child.stdout.take().expect("piped"));
    let (opened, open) = std::sync::mpsc::channel();
    let listener = std::thread::spawn(move || {
        let mut lines = Vec::new();
        // A line cut by the kill has no line end, and tells nothing.
        for line in reader.lines().map_while(Result::ok) {
            if line.starts_with("open ") {
                let _ = opened.send(());
            }
            lines.push(line);
        }
        lines
    });
    match life {
        Life::AfterStart(ms) => std::thread::sleep(Duration::from_millis(ms)),
        Life::AfterOpen(ms) => {
            if open.recv_timeout(Duration::from_secs(60)).is_err() {
                kill(&mut child);
                panic!("the child did not open the folder");
            }
            std::thread::sleep(Duration::from_millis(ms));
        }
    }
    let early = child.try_wait().expect("the state of the child");
    kill(&mut child);
    assert!(early.is_none(), "the child ended by itself: {early:?}");
    listener.join().expect("the listener")
}

fn kill(child: &mut Child) {
    // SIGKILL to this child only, by its id.
    let _ = child.kill();
    let _ = child.wait();
}

/// Ground truth, and what was heard.
struct Judge {
    seed: u64,
    oracle: Oracle,
    /// First step the oracle has not applied.
    next: u64,
    /// Changes by writer and dataset.
    counts: BTreeMap<(String, usize), [u64; 3]>,
    /// Runs ended: (dataset, text) → (cause, counts) owed.
    ended: BTreeMap<String, (String, [u64; 3])>,
    acked: u64,
    logged: u64,
    /// Every delivery ever met, by id.
    deliveries: BTreeMap<String, Delivery>,
    settling: BTreeSet<String>,
    settled: BTreeSet<String>,
    last: Option<Instant>,
}

impl std::fmt::Debug for Judge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let changes: usize = self.oracle.sets.iter().map(|s| s.log.len()).sum();
        let took = self.last.map(|t| t.elapsed()).unwrap_or_default();
        write!(f, "steps {}, acked {}, changes {changes}, ", self.next, self.acked)?;
        write!(
            f,
            "log {}, deliveries {} ({} settled), {took:?}",
            self.logged,
            self.deliveries.len(),
            self.settled.len()
        )
    }
}

impl Judge {
    fn new(seed: u64) -> Self {
        Judge {
            seed,
            oracle: Oracle::new(&specs()),
            next: 0,
            counts: BTreeMap::new(),
            ended: BTreeMap::new(),
            acked: 0,
            logged: 0,
            deliveries: BTreeMap::new(),
            settling: BTreeSet::new(),
            settled: BTreeSet::new(),
            last: None,
        }
    }

    fn hear(&mut self, lines: &[String]) {
        for line in lines {
            let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
            match word {
                // Numbers of steps begin at 0, so the number of acknowledged steps is one more.
                "acked" => self.acked = self.acked.max(rest.parse::<u64>().expect("a step") + 1),
                "logged" => self.logged = self.logged.max(rest.parse().expect("a position")),
                "settling" => {
                    if let Ok(delivery) = serde_json::from_str::<Delivery>(rest) {
                        self.settling.insert(delivery.id.clone());
                        self.meet(delivery);
                    }
                }
                "settled" => _ = self.settled.insert(rest.to_string()),
                _ => {}
            }
        }
    }

    fn meet(&mut self, delivery: Delivery) {
        if let Some(known) = self.deliveries.get(&delivery.id) {
            assert_eq!((&known.lane, &known.body), (&delivery.lane, &delivery.body), "a delivery changed under its id");
        }
        self.deliveries.insert(delivery.id.clone(), delivery);
    }

    /// The oracle goes on to the step the engine stands at.
    fn follow(&mut self, place: Option<u64>) {
        let stands = place.map_or(0, |n| n + 1);
        assert!(stands >= self.acked, "step {} was acknowledged, the engine stands at {stands}", self.acked);
        assert!(stands >= self.next, "the engine went back from {} to {stands}", self.next);
        let history = history(self.seed);
        for n in self.next..stands {
            let step = history.step(n);
            let writer = syncline_tests::compare::cause(step.writer).to_string();
            for (set, Tally { added, updated, deleted, .. }) in self.oracle.apply(&step, NOW.0) {
                let key =
                    if matches!(step.writer, Writer::Webhook(_) | Writer::Push(_)) { "webhooks" } else { &writer };
                let sum = self.counts.entry((key.to_string(), set)).or_default();
                for (sum, n) in sum.iter_mut().zip([added, updated, deleted]) {
                    *sum += n;
                }
            }
            if let Some(set) = history.ends_run(n) {
                let sum = self.counts.get(&(writer.clone(), set)).copied().unwrap_or_default();
                self.ended.insert(format!("step {n}"), (writer, sum));
            }
        }
        self.next = stands;
    }

    fn judge(&mut self, folder: &Path, workers: usize) {
        self.last = Some(Instant::now());
        let (engine, sets) = open(folder, workers).expect("opens after a kill");
        self.follow(place(&engine).expect("the place"));
        self.compare(&engine, &sets);
        self.log(&engine);
        self.outbox(&engine);
        stop(engine);
    }

    fn compare(&self, engine: &Engine, sets: &[Dataset]) {
        for (set, model) in sets.iter().zip(&self.oracle.sets) {
            compare(engine, set, model, Times::Related);
            block_on(compare_missing(engine, set, model));
        }
    }

    /// Acknowledged entries are there, in order, once, as they were sent.
    fn log(&self, engine: &Engine) {
        let log = engine.log();
        let end = *log.end().borrow();
        assert!(end >= self.logged, "entry {} was acknowledged, the log ends at {end}", self.logged);
        let mut after = 0;
        while after < end {
            let entries = log.read(after, 100).expect("reads");
            assert!(!entries.is_empty(), "a hole after {after}");
            for (position, entry) in entries {
                assert_eq!(position, after + 1, "positions rise by one");
                assert_eq!(&entry[..], &log_entry(self.seed, position)[..], "entry {position}");
                after = position;
            }
        }
        assert_eq!(after, end, "nothing lies beyond the end");
    }

    /// Every ended run is told of once, with its counts, under one id for ever; what was settled does not come back.
    fn outbox(&mut self, engine: &Engine) {
        let owed = engine.outbox(1_000_000).expect("the outbox");
        let mut there = BTreeSet::new();
        for delivery in owed {
            assert!(there.insert(delivery.id.clone()), "twice in the outbox: {delivery:?}");
            assert!(!self.settled.contains(&delivery.id), "settled, and back: {delivery:?}");
            self.meet(delivery);
        }
        for id in self.deliveries.keys() {
            assert!(there.contains(id) || self.settling.contains(id), "lost: {:?}", self.deliveries[id]);
        }
        // Attempts nobody knows the end of are decided now.
        let decided = self.settling.iter().filter(|id| !there.contains(*id)).cloned().collect::<Vec<_>>();
        self.settled.extend(decided);
        self.settling.retain(|id| self.settled.contains(id));
        let mut told: BTreeMap<String, (String, [u64; 3])> = BTreeMap::new();
        for delivery in self.deliveries.values() {
            let body: serde_json::Value = serde_json::from_str(&delivery.body).expect("JSON");
            if let Some(step) = body["ended"].as_str() {
                let cause = body["cause"].as_str().expect("a cause").to_string();
                let counts = std::array::from_fn(|n| body["counts"][n].as_u64().expect("a count"));
                assert!(told.insert(step.to_string(), (cause, counts)).is_none(), "told twice of {step}");
            }
        }
        assert_eq!(told, self.ended, "runs told of");
        self.lanes();
    }

    /// The sequence of each lane has no gap and no double.
    fn lanes(&self) {
        let mut lanes: BTreeMap<&str, BTreeSet<u64>> = BTreeMap::new();
        for delivery in self.deliveries.values() {
            let body: serde_json::Value = serde_json::from_str(&delivery.body).expect("JSON");
            let sequence = body["sequence"].as_u64().expect("a number");
            assert!(lanes.entry(&delivery.lane).or_default().insert(sequence), "one number twice in {}", delivery.lane);
        }
        for (lane, numbers) in lanes {
            let (first, last) = (numbers.first().copied().unwrap_or(0), numbers.last().copied().unwrap_or(0));
            assert_eq!(numbers.len() as u64, last - first + 1, "gaps in {lane}: {numbers:?}");
        }
    }

    /// All changes made by webhooks and pushes are told of once.
    fn finish(&mut self, folder: &Path) {
        let (engine, _) = open(folder, 1).expect("opens");
        block_on(engine.announce_webhooks()).expect("announces");
        self.outbox(&engine);
        stop(engine);
        let mut told: BTreeMap<String, [u64; 3]> = BTreeMap::new();
        for delivery in self.deliveries.values() {
            let body: serde_json::Value = serde_json::from_str(&delivery.body).expect("JSON");
            if body["ended"].is_null() {
                let sum = told.entry(body["model"].as_str().expect("a model").to_string()).or_default();
                (0..3).for_each(|n| sum[n] += body["counts"][n].as_u64().expect("a count"));
            }
        }
        let made = self.counts.iter().filter(|((writer, _), sum)| writer == "webhooks" && **sum != [0; 3]);
        let made: BTreeMap<String, [u64; 3]> = made.map(|((_, set), sum)| (format!("Model{set}"), *sum)).collect();
        assert_eq!(told, made, "changes by webhooks told of");
    }
}

fn stop(engine: Engine) {
    block_on(engine.stop()).expect("stops");
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(60), future).await.expect("the engine answers") })
}
