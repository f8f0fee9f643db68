//! The journal through the engine's door: what is written is read, in order, filtered, after a stop and after a kill; runs write their
//! own lines; backups have it.

use serde_json::json;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use syncline_engine::Engine;
use syncline_engine::model::Timestamp;
use syncline_engine::pipeline::Options;
use syncline_engine::store::journal::{
    Journal, JournalBounds, JournalKind, JournalLine, JournalPage, JournalSelection, PAGE_LINES,
};
use syncline_engine::store::{back_up, restore};
use syncline_engine::time::ManualClock;
use tempfile::TempDir;

const NOW: Timestamp = Timestamp(1_700_000_000_000_000);

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::new(NOW))
}

fn open(folder: &Path, clock: &Arc<ManualClock>, journal: JournalBounds) -> Engine {
    let options = Options { clock: clock.clone(), journal, ..Options::in_folder(folder) };
    Engine::open(Options { min_free: Some(0), ..options }).expect("opens")
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

fn line(n: usize) -> JournalLine {
    JournalLine::webhook(format!("whk_{n}"), ["taken", "refused"][n % 2])
        .environment("dev")
        .source(["crm", "shop"][n % 3 % 2])
}

fn read(journal: &Journal, selection: JournalSelection) -> JournalPage {
    journal.read(&selection, PAGE_LINES).expect("read")
}

fn ids(page: &JournalPage) -> Vec<&str> {
    page.lines.iter().map(|line| &*line.id).collect()
}

#[test]
fn lines_come_back_newest_first_with_times_of_their_own() {
    let engine = Engine::open(Options { clock: clock(), ..Options::temporary() }).expect("opens");
    let journal = engine.journal();
    (0..50).for_each(|n| journal.write(line(n)));
    journal.settle();
    let page = read(&journal, JournalSelection::default());
    assert_eq!(ids(&page), (0..50).rev().map(|n| format!("whk_{n}")).collect::<Vec<_>>());
    // The clock stands still.
    assert_eq!((page.lines[49].at, page.lines[0].at, page.next), (NOW, Timestamp(NOW.0 + 49), None));
    assert_eq!(page.lines[1], JournalLine { at: Timestamp(NOW.0 + 48), ..line(48) });
}

#[test]
fn a_selection_is_met_by_all_of_its_pages_together() {
    let engine = Engine::open(Options { clock: clock(), ..Options::temporary() }).expect("opens");
    let journal = engine.journal();
    (0..200).for_each(|n| journal.write(line(n)));
    journal.write(JournalLine::run("run_1", "failed").environment("prod").source("crm"));
    journal.settle();
    let text = |text: &str| Some(text.to_owned());
    let of = |selection: JournalSelection| {
        let (mut found, mut selection) = (Vec::new(), selection);
        loop {
            let page = journal.read(&selection, 7).expect("read");
            assert!(page.lines.len() <= 7);
            found.extend(page.lines);
            selection.before = page.next;
            if page.next.is_none() {
                return found.len();
            }
        }
    };
    let any = JournalSelection::default;
    assert_eq!(of(any()), 201);
    assert_eq!(of(JournalSelection { environment: text("dev"), ..any() }), 200);
    assert_eq!(of(JournalSelection { environment: text("de"), ..any() }), 0);
    assert_eq!(of(JournalSelection { environment: text("dev"), outcome: text("refused"), ..any() }), 100);
    let crm = (0..200).filter(|n| n % 3 % 2 == 0).count();
    assert_eq!(of(JournalSelection { source: text("crm"), ..any() }), crm + 1);
    assert_eq!(of(JournalSelection { kinds: vec![JournalKind::Run], source: text("crm"), ..any() }), 1);
    assert_eq!(of(JournalSelection { kinds: vec![JournalKind::Delivery], ..any() }), 0);
    assert_eq!(of(JournalSelection { id: text("whk_7"), ..any() }), 1);
    assert_eq!(of(JournalSelection { connection: text("acme"), ..any() }), 0);
    assert_eq!(of(JournalSelection { before: Some(NOW), ..any() }), 0);
}

/// What was handed over before a stop is there after it, whatever the thread had come to; and times go on where they were, even if
/// the clock was set back.
#[tokio::test]
async fn a_stop_writes_what_it_has_and_a_start_goes_on_behind_it() {
    let folder = folder();
    for round in 0..3 {
        let at = Timestamp(NOW.0 - round * 1_000_000);
        let engine = open(folder.path(), &Arc::new(ManualClock::new(at)), JournalBounds::default());
        let journal = engine.journal();
        (0..100).for_each(|n| journal.write(line(n)));
        engine.stop().await.expect("stops");
        journal.write(line(100));
        drop(engine);
        assert!(journal.read(&JournalSelection::default(), 1).is_err(), "it has gone with its engine");
        journal.settle();
    }
    let engine = open(folder.path(), &clock(), JournalBounds::default());
    let page = read(&engine.journal(), JournalSelection::default());
    assert_eq!(page.lines.len(), 300);
    assert!(page.lines.is_sorted_by(|newer, older| newer.at.0 == older.at.0 + 1), "no time is given twice");
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("made");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let path = entry.expect("an entry").path();
        let to = to.join(path.file_name().expect("a name"));
        if path.is_dir() { copy(&path, &to) } else { std::fs::copy(&path, &to).map(drop).expect("copied") }
    }
}

#[test]
fn what_was_written_before_a_kill_is_there_after_it() {
    let (folder, left) = (folder(), folder());
    let engine = open(folder.path(), &clock(), JournalBounds::default());
    (0..100).for_each(|n| engine.journal().write(line(n)));
    engine.journal().settle();
    // As a killed process leaves it.
    copy(folder.path(), left.path());
    let again = open(left.path(), &clock(), JournalBounds::default());
    assert_eq!(read(&again.journal(), JournalSelection::default()).lines.len(), 100);
}

#[test]
fn what_is_too_old_is_not_shown_and_goes() {
    let folder = folder();
    let clock = clock();
    let bounds = JournalBounds { age: Duration::from_secs(10), ..Default::default() };
    let engine = open(folder.path(), &clock, bounds);
    let journal = engine.journal();
    journal.write(line(1));
    journal.settle();
    clock.advance(Duration::from_secs(8));
    journal.write(line(2));
    journal.settle();
    clock.advance(Duration::from_secs(3));
    assert_eq!(ids(&read(&journal, JournalSelection::default())), ["whk_2"], "hidden before it is gone");
    journal.settle();
    drop((journal, engine));
    let engine = open(folder.path(), &clock, JournalBounds::default());
    assert_eq!(ids(&read(&engine.journal(), JournalSelection::default())), ["whk_2"], "and not there any more");
}

#[test]
fn no_secret_gets_into_the_folder() {
    let folder = folder();
    let engine = open(folder.path(), &clock(), JournalBounds::default());
    let details = json!({
        "headers": {"Authorization": "Bearer hunter22-a", "x-api-key": "hunter22-b", "Cookie": "s=hunter22-c"},
        "error": "GET https://me:hunter22-d@example.com/?access_token=hunter22-e: sent Bearer hunter22-f",
        "status": 401,
    });
    engine.journal().write(JournalLine::delivery("msg_1", "token=hunter22-g").endpoint("backend").details(details));
    engine.journal().settle();
    let page = read(&engine.journal(), JournalSelection::default());
    assert_eq!((&*page.lines[0].outcome, &page.lines[0].details["status"]), ("token=[secret]", &json!(401)));
    // In the write-ahead log it lies as it is.
    for entry in std::fs::read_dir(folder.path().join("store")).expect("a folder") {
        let bytes = std::fs::read(entry.expect("an entry").path()).expect("read");
        assert!(!bytes.windows(8).any(|part| part == b"hunter22"));
    }
}

#[tokio::test]
async fn a_backup_has_it() {
    let (folder, backups, restored) = (folder(), folder(), folder());
    let engine = open(folder.path(), &clock(), JournalBounds::default());
    (0..10).for_each(|n| engine.journal().write(line(n)));
    engine.journal().settle();
    engine.checkpoint().await.expect("made");
    back_up(folder.path(), backups.path(), "one", "now".to_owned(), None).expect("made");
    restore(backups.path(), restored.path(), false).expect("restored");
    let again = open(restored.path(), &clock(), JournalBounds::default());
    assert_eq!(read(&again.journal(), JournalSelection::default()).lines.len(), 10);
}

#[test]
fn without_room_nothing_is_kept() {
    let bounds = JournalBounds { bytes: 0, ..Default::default() };
    let engine = Engine::open(Options { journal: bounds, ..Options::temporary() }).expect("opens");
    engine.journal().write(line(1));
    engine.journal().settle();
    assert_eq!(read(&engine.journal(), JournalSelection::default()).lines.len(), 0);
    assert_eq!(engine.journal().lost(), 0, "nothing that was to be kept");
}
