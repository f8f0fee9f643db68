//! What only the store shows of the journal: its family, its files, its disk, and the queue while nobody takes from it.

use super::super::{Error, Family, Store, open, repair};
use super::queue::{QUEUE_BYTES, Queue};
use super::writer::Writer;
use super::*;
use crate::log::{Acknowledged, Disk, MemoryChangelog, Space};
use crate::time::ManualClock;
use serde_json::json;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use tempfile::TempDir;

const NOW: Timestamp = Timestamp(1_700_000_000_000_000);

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::new(NOW))
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

fn store(folder: &Path) -> Arc<Store> {
    Arc::new(Store::open(folder, None, Some(0)).expect("opened"))
}

fn start(store: &Arc<Store>) -> JournalThread {
    JournalThread::start(store, clock(), JournalBounds::default()).expect("started")
}

fn line(n: usize) -> JournalLine {
    JournalLine::webhook(format!("whk_{n}"), "applied").environment("dev").source("crm")
}

/// Ids of all lines, the newest first.
fn ids(journal: &Journal) -> Vec<String> {
    let page = journal.read(&JournalSelection::default(), PAGE_LINES).expect("read");
    page.lines.into_iter().map(|line| line.id).collect()
}

/// Writes a line and leaves it in a table.
fn with_a_table(folder: &Path) {
    let store = store(folder);
    store.secret(|| [7; 32]).expect("made");
    let mut batch = store.batch();
    store.put_system(&mut batch, b"committed", &1_u64.to_be_bytes());
    store.write_synced(batch).expect("committed");
    let thread = start(&store);
    thread.journal().write(line(1));
    thread.stop();
    store.flush().expect("flushed");
}

#[test]
fn what_finds_no_room_is_counted_and_a_line_says_so() {
    let folder = folder();
    let store = store(folder.path());
    let queue = Queue::new(clock(), Timestamp(0));
    let shared = Arc::new(Shared { queue, bounds: JournalBounds::default(), store: Arc::downgrade(&store) });
    let journal = Journal(shared.clone());
    // Nobody takes anything yet.
    let long = json!({ "text": "x".repeat(2_000) });
    let most = QUEUE_BYTES / 2_000 + 100;
    (0..most).for_each(|n| journal.write(line(n).details(long.clone())));
    let lost = journal.lost();
    assert!(lost > 100 && lost < 1_000, "{lost} of {most}");
    let writer = Writer::new(store.clone(), shared);
    let thread = std::thread::spawn(move || writer.run());
    journal.settle();
    journal.write(line(most));
    journal.settle();
    let page = journal.read(&JournalSelection::default(), 3).expect("read");
    let kinds: Vec<_> = page.lines.iter().map(|line| line.kind).collect();
    assert_eq!(kinds, [JournalKind::Webhook, JournalKind::Gap, JournalKind::Webhook]);
    assert_eq!(page.lines[1].details, json!({"lost": lost, "too_fast": lost, "disk": 0}));
    assert_eq!(page.lines[2].id, format!("whk_{}", most - 1 - lost as usize), "what came before is there");
    let mine = JournalSelection { environment: Some("other".into()), ..Default::default() };
    assert_eq!(journal.read(&mine, 9).expect("read").lines.len(), 1, "a gap may hide a line of any environment");
    let mine = JournalSelection { kinds: vec![JournalKind::Run], ..Default::default() };
    assert_eq!(journal.read(&mine, 9).expect("read").lines.len(), 0);
    journal.0.queue.close();
    thread.join().expect("ended");
}

/// The journal stops while the store still takes everything, and begins again by itself.
#[test]
fn a_full_disk_stops_the_journal_first_and_nothing_else() {
    let folder = folder();
    let free = Arc::new(AtomicU64::new(1 << 30));
    let measured = free.clone();
    let measure = move |_: &Path| Some(Disk { free: measured.load(Ordering::Relaxed), size: 10 << 30 });
    let mut store = Store::open(folder.path(), None, Some(0)).expect("opened");
    store.space = Arc::new(Space::measured_by(folder.path(), Some(100 << 20), Box::new(measure)));
    let store = Arc::new(store);
    let thread = start(&store);
    let journal = thread.journal();
    journal.write(line(1));
    journal.settle();
    free.store(120 << 20, Ordering::Relaxed);
    (2..5).for_each(|n| journal.write(line(n)));
    journal.settle();
    assert_eq!((ids(&journal), journal.lost()), (vec!["whk_1".to_owned()], 3));
    assert!(store.space.look().is_none(), "the store takes what is new");
    let mut batch = store.batch();
    store.put_system(&mut batch, b"a name", b"a value");
    store.write_synced(batch).expect("committed");
    free.store(1 << 30, Ordering::Relaxed);
    journal.write(line(5));
    journal.settle();
    let page = journal.read(&JournalSelection::default(), 9).expect("read");
    let told: Vec<_> = page.lines.iter().map(|line| (&*line.id, line.details["disk"].as_u64())).collect();
    assert_eq!(told, [("", Some(3)), ("whk_5", None), ("whk_1", None)]);
}

#[test]
fn a_closed_store_takes_no_lines_and_is_not_closed_by_them() {
    let folder = folder();
    let store = store(folder.path());
    let thread = start(&store);
    let journal = thread.journal();
    store.poisoned("a test".to_owned());
    journal.write(line(1));
    journal.settle();
    assert_eq!((ids(&journal).len(), journal.lost()), (0, 1));
}

#[test]
fn no_changelog_is_told_of_it() {
    let changelog = MemoryChangelog::default();
    let folders: Vec<_> = (0..2).map(|_| folder()).collect();
    let open =
        |n: usize| Arc::new(Store::open(folders[n].path(), Some(Arc::new(changelog.open())), Some(0)).expect("opened"));
    let store = open(0);
    let thread = start(&store);
    thread.journal().write(line(1));
    thread.journal().settle();
    let mut batch = store.batch();
    store.put_system(&mut batch, b"a name", b"a value");
    store.write_synced(batch).expect("durable");
    assert_eq!(ids(&thread.journal()), ["whk_1"]);
    drop(thread);
    drop(store);
    let next = open(1);
    assert!(next.system(b"a name").expect("read").is_some(), "the rest is");
    assert_eq!(ids(&start(&next).journal()).len(), 0);
    drop(next);
    assert_eq!(ids(&start(&open(0)).journal()), ["whk_1"], "it stays where it was written");
}

/// Takes the family out of a database that no process holds.
fn without_family(folder: &Path) {
    let mut db = open::open(&folder.join("store"), false).expect("opened");
    db.drop_cf(Family::Journal.name()).expect("dropped");
}

#[test]
fn a_folder_of_before_gets_the_family_and_one_that_lost_it_is_refused() {
    let folder = folder();
    drop(store(folder.path()));
    without_family(folder.path());
    let Err(Error::Damaged(why)) = Store::open(folder.path(), None, Some(0)) else { panic!("it is missing") };
    assert!(why.contains("names 12 families of 13"), "{why}");
    // As an earlier version left it.
    let said = Acknowledged::read(folder.path()).expect("read").expect("there");
    Acknowledged { families: said.families - 1, ..said }.store(folder.path()).expect("stored");
    let store = store(folder.path());
    let thread = start(&store);
    assert_eq!(ids(&thread.journal()).len(), 0);
    thread.journal().write(line(2));
    thread.journal().settle();
    assert_eq!(ids(&thread.journal()), ["whk_2"]);
}

#[test]
fn a_journal_with_a_table_missing_is_refused_by_name_and_repaired() {
    let folder = folder();
    with_a_table(folder.path());
    let db = open::open(&folder.path().join("store"), false).expect("opened");
    let mut files = db.live_files().expect("listed");
    files.retain(|file| file.column_family_name == Family::Journal.name());
    drop(db);
    let table = folder.path().join("store").join(files[0].name.trim_start_matches('/'));
    std::fs::remove_file(&table).expect("removed");
    let Err(Error::Damaged(why)) = Store::open(folder.path(), None, Some(0)) else { panic!("it is missing") };
    assert!(why.contains(&*table.file_name().expect("a name").to_string_lossy()), "{why}");
    let repaired = repair(folder.path(), false).expect("repaired");
    assert!(repaired.aside.is_some());
    let store = store(folder.path());
    assert_eq!(ids(&start(&store).journal()).len(), 0);
}

/// The range delete does not lie among what is kept, so that nothing but the table it ends in is written again.
#[test]
fn what_is_removed_is_gone_from_the_disk() {
    let folder = folder();
    let store = store(folder.path());
    let clock = clock();
    let thread = JournalThread::start(&store, clock.clone(), JournalBounds::default()).expect("started");
    let journal = thread.journal();
    let noise = |n: usize| json!({ "text": format!("{:x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15)).repeat(8) });
    (0..5_000).for_each(|n| journal.write(line(n).details(noise(n))));
    journal.settle();
    store.flush().expect("flushed");
    let [before, _] = expire::size(&store).expect("known");
    clock.advance(JournalBounds::default().age + Duration::from_secs(1));
    journal.write(line(5_000));
    journal.settle();
    assert_eq!(ids(&journal), ["whk_5000"]);
    let [after, _] = expire::size(&store).expect("known");
    assert!(after < before / 10, "{after} bytes of {before}");
    let mut scan = store.scan_from(Family::Journal, []);
    assert_eq!(scan.key().map(|key| time_of(key) > NOW.plus(Duration::from_secs(60))), Some(true));
    scan.next();
    assert!(scan.key().is_none());
}

#[test]
fn beyond_its_room_the_oldest_lines_go() {
    let folder = folder();
    let store = store(folder.path());
    let bounds = JournalBounds { bytes: 256 << 10, ..Default::default() };
    let thread = JournalThread::start(&store, clock(), bounds).expect("started");
    let journal = thread.journal();
    let mut left = Vec::new();
    for round in 0..4 {
        for n in 0..1_000 {
            // What does not get smaller.
            let text: String = (0..20).map(|k| format!("{:016x}", sip(round * 1_000 + n, k))).collect();
            journal.write(line(round * 1_000 + n).details(json!({ "text": text })));
        }
        journal.settle();
        left.push(expire::size(&store).expect("known")[0]);
    }
    assert!(left[3] <= 256 << 10 && left[3] > 128 << 10, "{left:?}");
    let mut shown = Vec::new();
    let mut selection = JournalSelection::default();
    loop {
        let page = journal.read(&selection, PAGE_LINES).expect("read");
        shown.extend(page.lines.into_iter().map(|line| line.id));
        selection.before = page.next;
        if selection.before.is_none() {
            break;
        }
    }
    let newest: Vec<_> = (0..4_000).rev().take(shown.len()).map(|n| format!("whk_{n}")).collect();
    assert!(shown.len() > 200 && shown.len() < 2_000, "{} lines", shown.len());
    assert_eq!(shown, newest);
}

fn sip(a: usize, b: usize) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    (a, b).hash(&mut hasher);
    hasher.finish()
}
