//! Damage to the files of a data folder is noticed: it opens with the very same content, or is refused with the name of the
//! file and nothing in it changed. Never with less, and never for ever.
//!
//! `SYNCLINE_TEST_CORRUPTIONS=n` sets how often a file is damaged, `SYNCLINE_TEST_SEED` the first seed.

use rand::SeedableRng;
use rand::rngs::StdRng;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use syncline_engine::model::Position;
use syncline_engine::pipeline::{Error, Filter};
use syncline_engine::store::repair;
use syncline_tests::compare::{read_changes, read_pages};
use syncline_tests::crash::{batch_of, history, log_entry, open, place};
use syncline_tests::damage::{damage, files, kind, lay_out};
use syncline_tests::ledger::Trial;
use tempfile::TempDir;

/// A start that takes longer than this hangs.
const HANGS: Duration = Duration::from_secs(60);
/// Kinds of files whose loss is a loss of data: a refused start leaves each as it was.
const DATA: [&str; 6] = ["sst", "log", "MANIFEST", "CURRENT", "HIGHWATER", "SYNCLINE"];

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

/// A folder in memory where there is such a thing: every start syncs dozens of times.
fn folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.expect("a folder")
}

/// All that a reader sees of a folder.
fn content(folder: &Path) -> Result<Vec<String>, Error> {
    let (engine, sets) = open(folder, 1)?;
    let mut lines = vec![format!("place {:?}", place(&engine)?)];
    for set in &sets {
        let records = read_pages(&engine, set, Filter::ALL, 1_000)?;
        lines.extend(records.iter().map(|record| format!("{record:?}")));
        lines.extend(read_changes(&engine, set, Position::START)?.iter().map(|change| format!("{change:?}")));
        lines.push(format!("live {}", engine.live(set)));
    }
    let entries = engine.log().read(0, usize::MAX).map_err(|e| Error::Damaged(e.to_string()))?;
    lines.extend(entries.iter().map(|entry| format!("{entry:?}")));
    lines.extend(engine.outbox(usize::MAX)?.iter().map(|delivery| format!("{delivery:?}")));
    Ok(lines)
}

/// A folder with its content.
struct Sample {
    name: String,
    files: Vec<(PathBuf, Vec<u8>)>,
    content: Vec<String>,
}

impl Sample {
    fn of(name: &str, files: Vec<(PathBuf, Vec<u8>)>) -> Sample {
        let copy = folder();
        lay_out(copy.path(), &files);
        let content = content(copy.path()).expect("an undamaged folder opens");
        Sample { name: name.to_owned(), files, content }
    }
}

/// Folders as a process leaves them that was killed, and as one leaves them that was stopped, young and older.
fn samples() -> Vec<Sample> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (history, data) = (history(5), folder());
    let mut samples = Vec::new();
    for (life, steps) in [0..40, 40..90, 90..170].into_iter().enumerate() {
        let (engine, sets) = open(data.path(), 1 + life % 2).expect("opened");
        runtime.block_on(async {
            for n in steps {
                engine.commit(batch_of(&engine, &sets, &history, n)).await.expect("committed");
                engine.log().append(vec![log_entry(5, n + 1)]).await.expect("appended");
            }
        });
        // What is in the files now is what a kill would leave: nobody writes.
        samples.push(Sample::of(&format!("killed in life {life}"), files(data.path())));
        runtime.block_on(engine.stop()).expect("stopped");
        drop(engine);
        samples.push(Sample::of(&format!("stopped after life {life}"), files(data.path())));
    }
    samples
}

/// What came of the damage.
#[derive(Default)]
struct Tally {
    /// By kind of file: opened with the same content, refused.
    of: BTreeMap<String, (u64, u64)>,
}

/// Damages a copy of a sample and opens it. What is wrong with what came of it, if anything.
fn damaged(sample: &Sample, seed: u64, tally: &Mutex<Tally>) -> Result<(), String> {
    let copy = folder();
    lay_out(copy.path(), &sample.files);
    let done = damage(copy.path(), &sample.files, &mut StdRng::seed_from_u64(seed));
    let before = files(copy.path());
    let what = || format!("seed {seed}, {}, {}", sample.name, done.what);
    let came = content(copy.path());
    let mut counts = tally.lock().expect("no panic");
    let counted = counts.of.entry(kind(Path::new(&done.files[0]))).or_default();
    match came {
        Ok(content) if content == sample.content => counted.0 += 1,
        Ok(content) => {
            let (now, was) = (content.len(), sample.content.len());
            return Err(format!("{}: opened with other content, {now} lines of {was}", what()));
        }
        Err(error) => {
            counted.1 += 1;
            let text = error.to_string();
            let names = |text: &str| done.files.iter().any(|file| text.contains(file.as_str()));
            // Where only a command can say which file it is, it does.
            let named_by_repair = || {
                let said =
                    repair(copy.path(), true).map_or_else(|error| error.to_string(), |said| said.damages.join("; "));
                text.contains("repair --dry-run") && names(&said)
            };
            if !names(&text) && !named_by_repair() {
                return Err(format!("{}: refused without the name of the file: {text}", what()));
            }
            let table = done.files.iter().any(|file| kind(Path::new(file)) == "sst");
            let after: BTreeMap<_, _> = files(copy.path()).into_iter().collect();
            // What is inside a table is seen when it is read, after RocksDB has opened the folder: the table itself stays.
            let kept = before.iter().filter(|(name, _)| match table {
                true => done.files.iter().any(|file| name.ends_with(file) && kind(name) == "sst"),
                false => DATA.contains(&kind(name).as_str()),
            });
            for (name, bytes) in kept {
                if after.get(name) != Some(bytes) {
                    return Err(format!("{}: refused, and {} was changed: {text}", what(), name.display()));
                }
            }
        }
    }
    Ok(())
}

#[test]
fn no_damage_is_taken_for_what_was_acknowledged() {
    let (times, first) = (number("SYNCLINE_TEST_CORRUPTIONS", 5_000), number("SYNCLINE_TEST_SEED", 1));
    let mut trial = Trial::of("corruptions");
    trial.seed(format!("{first}..{}", first + times));
    let (samples, tally, began) = (samples(), Mutex::new(Tally::default()), Instant::now());
    let (next, failures) = (AtomicU64::new(0), Mutex::new(Vec::new()));
    let at_work: Vec<Mutex<Option<(u64, Instant)>>> = (0..2).map(|_| Mutex::default()).collect();
    let ended = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for place in &at_work {
            let (samples, tally, next, failures, ended) = (&samples, &tally, &next, &failures, &ended);
            scope.spawn(move || {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= times || failures.lock().expect("no panic").len() > 20 {
                        break;
                    }
                    *place.lock().expect("no panic") = Some((first + n, Instant::now()));
                    let sample = &samples[n as usize % samples.len()];
                    // A panic is a failure like any other, and names its seed.
                    let came = std::panic::catch_unwind(|| damaged(sample, first + n, tally));
                    let came = came.unwrap_or_else(|_| Err(format!("seed {}, {}: a panic", first + n, sample.name)));
                    failures.lock().expect("no panic").extend(came.err());
                }
                *place.lock().expect("no panic") = None;
                ended.fetch_add(1, Ordering::Relaxed);
            });
        }
        // A start that hangs cannot be ended from outside: the test ends with it.
        while ended.load(Ordering::Relaxed) < at_work.len() as u64 {
            std::thread::sleep(Duration::from_millis(100));
            for place in &at_work {
                if let Some((seed, since)) = *place.lock().expect("no panic")
                    && since.elapsed() > HANGS
                {
                    eprintln!("seed {seed}: the start hangs");
                    std::process::exit(1);
                }
            }
        }
    });
    let failures = failures.into_inner().expect("no panic");
    trial.add(next.into_inner().min(times));
    trial.failed(failures.len() as u64);
    println!("{times} damages in {:?}; kind: opened with the same content, refused", began.elapsed());
    for (kind, (same, refused)) in tally.into_inner().expect("no panic").of {
        println!("{kind:>12}: {same}, {refused}");
    }
    assert!(failures.is_empty(), "{} failed:\n{}", failures.len(), failures.join("\n"));
}

/// A byte of what a table says of itself: RocksDB reports that without the table's name, and without the system's table nothing can
/// be repaired.
#[test]
fn a_table_whose_description_is_damaged_is_named_by_the_start_or_by_repair() {
    let samples = samples();
    let sample = samples.last().expect("samples");
    let tables = sample.files.iter().filter(|(name, _)| kind(name) == "sst");
    let mut refused = 0;
    for (name, bytes) in tables {
        let copy = folder();
        lay_out(copy.path(), &sample.files);
        let mut damaged = bytes.clone();
        let at = damaged.len() - 210;
        damaged[at] = 0;
        std::fs::write(copy.path().join(name), damaged).expect("written");
        let file = name.file_name().expect("a name").to_string_lossy().into_owned();
        let Err(error) = content(copy.path()) else { continue };
        refused += 1;
        let said = repair(copy.path(), true).map_or_else(|error| error.to_string(), |said| said.damages.join("; "));
        let text = error.to_string();
        assert!(text.contains(&file) || said.contains(&file), "{file}: {text}\n{said}");
    }
    assert!(refused > 3, "{refused} of the tables were refused");
}
