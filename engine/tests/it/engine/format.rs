//! A data folder of each released format opens, and says what it was left with: records, changes, a cursor that was handed
//! out, a webhook and a delivery that wait, a window that is open, marks.
//!
//! `WRITE_FIXTURE=1` writes the folder of the present format anew: only before that format is released. A new format gets a
//! folder beside it, and this test keeps reading the old ones.

use super::at;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use syncline_engine::Engine;
use syncline_engine::model::*;
use syncline_engine::pipeline::*;
use syncline_engine::sink::{Announce, Notice, Owed};
use syncline_engine::time::ManualClock;

/// Folders of released formats.
const FORMATS: [&str; 1] = ["format-1"];
/// What the cursor is bound to.
const SCOPE: &[u8] = b"a reader of long ago";
/// A file beside the data folder: the cursor as it was handed out.
const CURSOR: &str = "cursor";
/// The webhook that was answered and not yet processed.
const WEBHOOK: &[u8] = br#"{"headers":[],"body":"a contact has changed"}"#;

/// Owes one delivery for each run that ends.
struct Owing;

impl Announce for Owing {
    fn announce(&self, notice: &Notice, sequence: &mut dyn FnMut(&str) -> u64) -> Vec<Owed> {
        let (endpoint, lane) = ("crm-events".to_owned(), "crm-events acme".to_owned());
        let body = format!(r#"{{"n":{},"added":{}}}"#, sequence(&lane), notice.counts.added).into_bytes();
        notice
            .ended
            .iter()
            .map(|_| Owed { endpoint: endpoint.clone(), lane: lane.clone(), body: body.clone() })
            .collect()
    }
}

fn open(folder: &Path) -> Engine {
    let clock = Arc::new(ManualClock::new(at(1_000)));
    let options = Options { clock, announce: Some(Arc::new(Owing)), ..Options::in_folder(folder.join("data")) };
    Engine::open(options).expect("opens")
}

fn name() -> DatasetName {
    DatasetName::base("default", "crm", "acme", "Contact")
}

/// Twenty contacts, one of them updated, one deleted, one pruned; the rest of a listing; what waits.
async fn write(folder: &Path) {
    let engine = open(folder);
    let spec = DatasetSpec { strategy: Strategy::Latest, ignore_in_diff: vec!["seen".to_owned()] };
    let contacts = engine.dataset(&name(), &spec).expect("registers");
    let mut page = engine.page(&contacts);
    for id in 1..=20 {
        let json = format!(r#"{{"id":"{id}","name":"contact {id}","seen":1}}"#);
        page.save(&id.to_string(), Some(at(id)), at(id), json.as_bytes());
    }
    let run = Cause::run(engine.next_run().expect("a number"));
    let end_run =
        vec![(contacts.clone(), syncline_engine::sink::RunEnd { sync: "contacts".to_owned(), ..Default::default() })];
    engine.commit(Batch { cause: Some(run), pages: vec![page], end_run, ..Batch::default() }).await.expect("commits");
    let cursor = engine.changes_page(std::slice::from_ref(&contacts), Cursor::START, 100).expect("reads").next;
    std::fs::write(folder.join(CURSOR), engine.cursor_key().encode(SCOPE, cursor)).expect("written");

    let first = engine.record(&contacts, "1").await.expect("reads").expect("there");
    engine.prune(&contacts, first.meta.position, 1).await.expect("prunes");
    let json = serde_json::json!({"id": "2", "name": "renamed", "seen": 2});
    engine
        .write(&contacts)
        .upsert(json)
        .at(at(100))
        .delete("3")
        .at(at(100))
        .by(Cause::webhook(1))
        .commit()
        .await
        .expect("commits");
    let marks = vec![Mark::put(Keyspace::BOOKMARK, &["default", "crm", "acme", "Contact", "base"], "page 2")];
    let open = vec![WindowOp::Start(contacts.clone())];
    engine.commit(Batch { open, marks, ..Batch::default() }).await.expect("commits");
    engine.log().append(vec![WEBHOOK.to_vec()]).await.expect("appends");
    engine.stop().await.expect("stops");
}

fn archive(format: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures").join(format).with_extension("tar.gz")
}

fn tar(arguments: &[&str], folder: &Path) {
    let done = Command::new("tar").args(arguments).current_dir(folder).status().expect("tar runs");
    assert!(done.success(), "tar {arguments:?}");
}

#[tokio::test]
async fn a_data_folder_of_each_released_format_opens_with_all_that_was_in_it() {
    for format in FORMATS {
        let folder = tempfile::tempdir().expect("a folder");
        let archive = archive(format).display().to_string();
        if std::env::var_os("WRITE_FIXTURE").is_some() && Some(&format) == FORMATS.last() {
            write(folder.path()).await;
            // RocksDB's own log lines are no part of the format.
            tar(&["--exclude=LOG*", "-czf", &archive, "data", CURSOR], folder.path());
        } else {
            tar(&["-xzf", &archive], folder.path());
        }
        says_what_it_was_left_with(&open(folder.path()), folder.path(), format).await;
    }
}

async fn says_what_it_was_left_with(engine: &Engine, folder: &Path, format: &str) {
    let contacts = engine.find(&name()).expect(format);
    let text = |record: Option<Record>| record.map(|r| String::from_utf8(r.payload.to_vec()).expect("text"));
    let record = async |id: &str| text(engine.record(&contacts, id).await.expect("reads"));
    assert_eq!(record("2").await.as_deref(), Some(r#"{"id":"2","name":"renamed","seen":2}"#), "{format}");
    assert_eq!(record("1").await.as_deref(), Some(r#"{"id":"1"}"#), "pruned, {format}");
    assert_eq!(record("20").await.as_deref(), Some(r#"{"id":"20","name":"contact 20","seen":1}"#), "{format}");
    assert_eq!(engine.live(&contacts), 19, "{format}");

    let all = engine.changes_page(std::slice::from_ref(&contacts), Cursor::START, 100).expect("reads");
    assert_eq!(all.changes.len(), 22, "twenty, an update, a delete; {format}");
    let cursor = std::fs::read_to_string(folder.join(CURSOR)).expect("a cursor");
    let cursor = engine.cursor_key().decode(SCOPE, &cursor).expect("it was handed out");
    let since = engine.changes_page(std::slice::from_ref(&contacts), cursor, 100).expect("reads");
    let mut since: Vec<String> = since.changes.iter().map(|(_, change)| change.to_string()).collect();
    since.sort();
    let (deleted, updated) =
        (r#"DELETED {"id":"3","name":"contact 3","seen":1}"#, r#"UPDATED {"id":"2","name":"renamed","seen":2}"#);
    assert_eq!(since, [deleted, updated], "{format}");

    let waiting = engine.log().read(0, 10).expect("reads");
    assert_eq!(waiting.iter().map(|(_, entry)| &entry[..]).collect::<Vec<_>>(), [WEBHOOK], "{format}");
    let owed = engine.outbox(10).expect("reads");
    let owed: Vec<_> = owed.iter().map(|d| (d.endpoint.as_str(), d.body.as_str())).collect();
    assert_eq!(owed, [("crm-events", r#"{"n":1,"added":20}"#)], "{format}");
    let bookmark = engine.mark(Keyspace::BOOKMARK, &["default", "crm", "acme", "Contact", "base"]).expect("reads");
    assert_eq!(bookmark.as_deref(), Some(&b"page 2"[..]), "{format}");
    assert!(engine.window_open(&contacts), "{format}");
    assert!(engine.next_run().expect("a number") > 1, "a number is given once, {format}");

    // It is written on: what is known of records is known.
    let same = serde_json::json!({"id": "20", "name": "contact 20", "seen": 9});
    let receipt = engine.write(&contacts).upsert(same).at(at(200)).commit().await.expect("commits");
    assert_eq!(receipt.counts_of(&contacts).unchanged, 1, "a field that is left out of the comparison, {format}");
}
