//! What RocksDB makes of damaged logs, so that an upgrade that changes it is noticed, and what is made of them here.

use super::super::{Error, Family, Store};
use super::check;
use rocksdb::{DB, DBRecoveryMode, IteratorMode, Options, WriteOptions};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const RECORDS: usize = 40;

/// Copies a folder with all below it.
fn copied(from: &Path) -> TempDir {
    fn copy(from: &Path, to: &Path) {
        fs::create_dir_all(to).expect("made");
        for entry in fs::read_dir(from).expect("a folder") {
            let path = entry.expect("an entry").path();
            let to = to.join(path.file_name().expect("a name"));
            if path.is_dir() { copy(&path, &to) } else { fs::copy(&path, &to).map(drop).expect("copied") }
        }
    }
    let folder = tempfile::tempdir().expect("a folder");
    copy(from, folder.path());
    folder
}

/// The write-ahead logs of a database, in order.
fn logs(store: &Path) -> Vec<PathBuf> {
    super::Listing::read(store).expect("read").logs.into_values().collect()
}

/// The file's bytes with something done to them.
fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).expect("read");
    change(&mut bytes);
    fs::write(path, bytes).expect("written");
}

fn begins(log: &[u8]) -> Vec<usize> {
    let mut begins = vec![0];
    while let Some(at) = begins.last().copied().filter(|at| at + 7 < log.len()) {
        begins.push(at + 7 + usize::from(u16::from_le_bytes([log[at + 4], log[at + 5]])));
    }
    begins.retain(|at| at + 7 < log.len());
    begins
}

/// One byte of a record, counted from its header.
fn byte(log: &Path, record: usize, place: usize, new: impl FnOnce(u8) -> u8) {
    change(log, |bytes| {
        let at = begins(bytes)[record] + place;
        bytes[at] = new(bytes[at]);
    });
}

type Harm = (&'static str, fn(&Path));

/// Damages of a log of 40 records in one block.
const HARMS: [Harm; 6] = [
    ("half a record at the end", |log| change(log, |bytes| bytes.truncate(bytes.len() - 20))),
    ("a flip in the middle", |log| byte(log, 20, 30, |byte| byte ^ 4)),
    ("a flip in the last record", |log| byte(log, 39, 30, |byte| byte ^ 4)),
    ("a longer length", |log| byte(log, 20, 5, |byte| byte | 0x40)),
    ("cut at a border", |log| change(log, |bytes| bytes.truncate(begins(bytes)[20]))),
    ("removed", |log| fs::remove_file(log).expect("removed")),
];

/// Records after opening; `None` where it is refused.
fn opened(folder: &Path, mode: DBRecoveryMode) -> Option<usize> {
    let mut options = Options::default();
    options.set_wal_recovery_mode(mode);
    let db = DB::open(&options, folder).ok()?;
    Some(db.iterator(IteratorMode::Start).filter(Result::is_ok).count())
}

#[test]
fn rocksdb_takes_damaged_logs_as_it_always_did() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut options = Options::default();
    options.create_if_missing(true);
    let db = DB::open(&options, folder.path()).expect("opened");
    let mut synced = WriteOptions::default();
    synced.set_sync(true);
    (0..RECORDS).for_each(|n| db.put_opt(n.to_be_bytes(), [7; 80], &synced).expect("written"));
    let outcomes = HARMS.map(|(what, harm)| {
        let modes = [
            DBRecoveryMode::TolerateCorruptedTailRecords,
            DBRecoveryMode::AbsoluteConsistency,
            DBRecoveryMode::PointInTime,
        ];
        (
            what,
            modes.map(|mode| {
                let copy = copied(folder.path());
                harm(&logs(copy.path())[0]);
                opened(copy.path(), mode)
            }),
        )
    });
    let (less, half) = (Some(39), Some(20));
    assert_eq!(
        outcomes,
        [
            ("half a record at the end", [less, None, less]),
            ("a flip in the middle", [None, None, half]),
            ("a flip in the last record", [None, None, less]),
            ("a longer length", [half, None, half]),
            ("cut at a border", [half, half, half]),
            ("removed", [Some(0), Some(0), Some(0)]),
        ]
    );
}

/// A value under a name.
fn put(store: &Store, family: Family, n: usize, sync: bool) {
    let mut batch = store.batch();
    store.put(&mut batch, family, n.to_be_bytes(), [7; 80]);
    match sync {
        true => store.write_synced(batch).expect("written"),
        false => store.write_unsynced(batch, 1).expect("written"),
    }
}

/// A folder as a killed process leaves it, with what was acknowledged in one log, or in three of which each is needed.
fn killed(several: bool) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(folder.path(), None, Some(0)).expect("opened");
    for n in 0..RECORDS {
        // One family is never written to a table, so all logs count.
        put(&store, [Family::Marks, Family::Outbox][n % 2], n, true);
        if several && n % 15 == 14 {
            store.db.flush_cf(store.family(Family::Outbox)).expect("flushed");
        }
    }
    copied(folder.path())
}

/// Whether it opens; why not.
fn opens(folder: &Path) -> Result<(), String> {
    match Store::open(folder, None, Some(0)) {
        Ok(store) => {
            let mut there = [Family::Marks, Family::Outbox].map(|family| {
                store.db.iterator_cf(store.family(family), IteratorMode::Start).filter(Result::is_ok).count()
            });
            there.sort();
            assert!(there[0] >= RECORDS / 2, "opened with less: {there:?}");
            Ok(())
        }
        Err(Error::Damaged(what)) => Err(what),
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn a_store_with_a_damaged_log_is_refused_by_name() {
    let folder = killed(false);
    opens(copied(folder.path()).path()).expect("undamaged");
    let mut harms = HARMS.to_vec();
    // Types that RocksDB takes for a log that is used again: one hangs, one opens with less.
    harms.push(("a recyclable type", |log| byte(log, 20, 6, |_| 5)));
    harms.push(("a recyclable type at the beginning", |log| byte(log, 0, 6, |_| 8)));
    harms.push(("an unknown type", |log| byte(log, 39, 6, |_| 200)));
    harms.push(("emptied", |log| fs::write(log, b"").expect("written")));
    for (what, harm) in harms {
        let copy = copied(folder.path());
        let log = logs(&copy.path().join("store")).pop().expect("a log");
        harm(&log);
        let before = fs::read(&log).ok();
        let why = opens(copy.path()).expect_err(what);
        assert!(why.contains(&*log.file_name().expect("a name").to_string_lossy()), "{what}: {why}");
        assert!(why.contains("acknowledged writes are missing"), "{what}: {why}");
        assert_eq!(fs::read(&log).ok(), before, "{what}: changed");
    }
}

#[test]
fn each_of_several_logs_is_needed() {
    let folder = killed(true);
    opens(copied(folder.path()).path()).expect("undamaged");
    let count = logs(&folder.path().join("store")).len();
    assert!(count >= 3, "{count} logs");
    for n in 0..count {
        let harms: [Harm; 4] = [
            ("removed", |log| fs::remove_file(log).expect("removed")),
            ("emptied", |log| fs::write(log, b"").expect("written")),
            ("cut", |log| change(log, |bytes| bytes.truncate(begins(bytes)[begins(bytes).len() / 2]))),
            ("another's", |log| {
                let all = logs(log.parent().expect("a folder"));
                let other = all.iter().find(|other| *other != log).expect("another");
                fs::copy(other, log).map(drop).expect("copied");
            }),
        ];
        for (what, harm) in harms {
            let copy = copied(folder.path());
            harm(&logs(&copy.path().join("store"))[n]);
            let why = opens(copy.path()).expect_err(what);
            assert!(why.contains(".log"), "log {n} {what}: {why}");
        }
    }
}

#[test]
fn half_a_record_that_nobody_was_told_of_is_no_damage() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(folder.path(), None, Some(0)).expect("opened");
    (0..RECORDS).for_each(|n| put(&store, [Family::Marks, Family::Outbox][n % 2], n, true));
    put(&store, Family::Touched, 1_000, false);
    let left = copied(folder.path());
    drop(store);
    let whole = fs::read(&logs(&left.path().join("store"))[0]).expect("read");
    let last = begins(&whole).pop().expect("a record");
    for cut in last..whole.len() {
        let copy = copied(left.path());
        change(&logs(&copy.path().join("store"))[0], |bytes| bytes.truncate(cut));
        opens(copy.path()).unwrap_or_else(|why| panic!("cut at {cut}: {why}"));
    }
    // As a loss of power leaves it: what RocksDB would refuse is cut off and kept.
    for (at, with) in [(last, 0), (last + 6, 5), (last + 20, 0)] {
        let copy = copied(left.path());
        change(&logs(&copy.path().join("store"))[0], |bytes| bytes[at..].fill(with));
        opens(copy.path()).unwrap_or_else(|why| panic!("{with} from {at}: {why}"));
        assert_eq!(fs::read_dir(copy.path().join("torn")).expect("kept").count(), 1);
    }
}

#[test]
fn a_folder_without_a_mark_opens_once_and_keeps_one_from_then_on() {
    let folder = killed(false);
    let mark = folder.path().join("HIGHWATER");
    fs::remove_file(&mark).expect("removed");
    let missing = check(folder.path(), true).expect("read").damages;
    assert!(missing[0].to_string().contains("HIGHWATER: it is missing"), "{missing:?}");
    // As an earlier version left it.
    let plain = "This folder belongs to Syncline. Do not remove single files.\n";
    fs::write(folder.path().join("SYNCLINE"), plain).expect("written");
    opens(folder.path()).expect("opened");
    assert!(mark.exists());
    fs::remove_file(&mark).expect("removed");
    opens(folder.path()).expect_err("refused from now on");
}

#[test]
fn an_emptied_folder_is_not_a_new_one() {
    for emptied in ["store", ""] {
        let folder = killed(false);
        for entry in fs::read_dir(folder.path().join(emptied)).expect("a folder") {
            let path = entry.expect("an entry").path();
            // Of the data folder all but the marker.
            if path.is_dir() {
                fs::remove_dir_all(path).expect("removed");
            } else if !path.ends_with("SYNCLINE") {
                fs::remove_file(path).expect("removed");
            }
        }
        opens(folder.path()).expect_err("refused");
    }
}

/// All that a store must hold: what was written before the last sync.
fn holds(store: &Store, written: &[(Family, usize)]) -> Option<(Family, usize)> {
    let there = |(family, n): &(Family, usize)| matches!(store.db.get_cf(store.family(*family), n.to_be_bytes()), Ok(Some(value)) if value == [7; 80]);
    written.iter().find(|one| !there(one)).copied()
}

/// Killed again and again, with families flushed and compacted in every order: it always opens with all that was synced. And
/// with a log removed, emptied or cut it is refused, or still has all of it.
#[test]
fn whatever_was_flushed_a_killed_store_opens_and_a_damaged_one_does_not() {
    use rand::seq::IndexedRandom;
    use rand::{Rng, SeedableRng};
    let mut refused = 0;
    for seed in 0..4 {
        println!("seed {seed}");
        let mut chance = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
        let families = [Family::Marks, Family::Outbox, Family::Touched, Family::Fields];
        let (mut folder, mut synced, mut written) = (tempfile::tempdir().expect("a folder"), 0, Vec::new());
        for _ in 0..12 {
            let store = Store::open(folder.path(), None, Some(0)).unwrap_or_else(|why| panic!("killed: {why}"));
            assert_eq!(holds(&store, &written[..synced]), None, "what was synced is there");
            // What was not synced may be there or not.
            written.truncate(synced);
            for _ in 0..chance.random_range(0..12) {
                let family = *families.choose(&mut chance).expect("one");
                match chance.random_range(0..10) {
                    0 => store.db.flush_cf(store.family(family)).expect("flushed"),
                    1 => store.db.compact_range_cf(store.family(family), None::<&[u8]>, None::<&[u8]>),
                    2 if chance.random_bool(0.3) => store.flush().expect("flushed"),
                    n => {
                        let number = written.len();
                        put(&store, family, number, n > 4);
                        written.push((family, number));
                        synced = if n > 4 { written.len() } else { synced };
                    }
                }
            }
            store.db.cancel_all_background_work(true);
            folder = copied(folder.path());
            drop(store);
            for n in 0..logs(&folder.path().join("store")).len() {
                let copy = copied(folder.path());
                let log = &logs(&copy.path().join("store"))[n];
                match chance.random_range(0..3) {
                    0 => fs::remove_file(log).expect("removed"),
                    1 => fs::write(log, b"").expect("written"),
                    _ => change(log, |bytes| {
                        let cut = begins(bytes).choose(&mut chance).copied().unwrap_or_default();
                        bytes.truncate(cut);
                    }),
                }
                match Store::open(copy.path(), None, Some(0)) {
                    Ok(store) => assert_eq!(holds(&store, &written[..synced]), None, "opened with less"),
                    Err(Error::Damaged(_)) => refused += 1,
                    Err(other) => panic!("{other}"),
                }
            }
        }
    }
    assert!(refused > 20, "{refused} refused");
}

/// An open database deletes tables in the background, and the folder is looked at just after the opening.
#[test]
fn a_table_that_goes_while_the_folder_is_read_is_no_failure() {
    let folder = tempfile::tempdir().expect("a folder");
    std::thread::scope(|scope| {
        let coming_and_going = scope.spawn(|| {
            for n in 0..20_000 {
                let table = folder.path().join(format!("{:06}.sst", n % 64));
                fs::write(&table, "").expect("written");
                fs::remove_file(&table).expect("removed");
            }
        });
        while !coming_and_going.is_finished() {
            super::Listing::read(folder.path()).expect("what is there");
        }
    });
}
