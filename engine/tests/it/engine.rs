//! The engine through its public door: what a batch changes, what readers see, what a restart keeps.

mod format;

use std::sync::Arc;
use std::time::Duration;
use syncline_engine::Engine;
use syncline_engine::model::*;
use syncline_engine::pipeline::*;
use syncline_engine::time::{Clock, ManualClock};

/// A keyspace of a program.
const OWN: Keyspace = Keyspace::new(64);

struct Bench {
    engine: Engine,
    clock: Arc<ManualClock>,
    dataset: Dataset,
}

fn open(folder: Option<&std::path::Path>, workers: usize, strategy: Strategy) -> Bench {
    let clock = Arc::new(ManualClock::new(Timestamp::from_seconds(1_000)));
    open_at(folder, workers, strategy, clock)
}

fn open_at(folder: Option<&std::path::Path>, workers: usize, strategy: Strategy, clock: Arc<ManualClock>) -> Bench {
    let options = Options { data_dir: folder.map(Into::into), workers, clock: clock.clone(), ..Options::default() };
    let engine = Engine::open(options).expect("opens");
    let spec = DatasetSpec { strategy, ignore_in_diff: vec!["seen".to_owned()] };
    let dataset = engine.dataset(&DatasetName::base("default", "crm", "acme", "Contact"), &spec).expect("registers");
    Bench { engine, clock, dataset }
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_seconds(seconds)
}

impl Bench {
    async fn save(&self, cause: Cause, rows: &[(&str, i64, &str)]) -> Counts {
        let mut page = self.engine.page(&self.dataset);
        for (id, modified, rest) in rows {
            let payload = format!("{{\"id\":\"{id}\",{rest}}}");
            page.save(id, Some(at(*modified)), at(*modified), payload.as_bytes());
        }
        self.commit(cause, page).await
    }

    async fn patch(&self, id: &str, modified: i64, patch: &str) -> Counts {
        let mut page = self.engine.page(&self.dataset);
        page.patch(id, Some(at(modified)), at(modified), patch.as_bytes());
        self.commit(Cause::webhook(modified as u64), page).await
    }

    async fn delete(&self, id: &str, modified: i64) -> Counts {
        let mut page = self.engine.page(&self.dataset);
        page.delete(id, Some(at(modified)), at(modified), None);
        self.commit(Cause::webhook(modified as u64), page).await
    }

    async fn commit(&self, cause: Cause, page: PageBuilder) -> Counts {
        self.clock.advance(Duration::from_secs(1));
        let batch = Batch { cause: Some(cause), pages: vec![page], ..Batch::default() };
        self.engine.commit(batch).await.expect("commits").counts_of(&self.dataset)
    }

    async fn window(&self, open: Vec<WindowOp>, close: Vec<WindowOp>) -> Result<Counts, Error> {
        self.clock.advance(Duration::from_secs(1));
        let batch = Batch { cause: Some(Cause::run(9)), open, close, ..Batch::default() };
        self.engine.commit(batch).await.map(|receipt| receipt.counts_of(&self.dataset))
    }

    fn records(&self) -> Vec<(String, String)> {
        let mut found = Vec::new();
        self.engine
            .records(&self.dataset, Position::START, Filter::ALL, &mut |meta, payload| {
                found.push((meta.action.as_str().to_owned(), String::from_utf8(payload.to_vec()).expect("utf-8")));
                true
            })
            .expect("reads");
        found
    }

    fn changes(&self) -> Vec<String> {
        let mut found = Vec::new();
        let start = Cursor { position: Position::START, dataset: DatasetId(0) };
        self.engine
            .changes(std::slice::from_ref(&self.dataset), start, &mut |_, change| {
                let text = |bytes: Option<bytes::Bytes>| {
                    bytes.map_or("-".to_owned(), |b| String::from_utf8(b.to_vec()).expect("utf-8"))
                };
                found.push(format!("{} {} {}", change.meta.action.as_str(), text(change.before), text(change.after)));
                true
            })
            .expect("reads");
        found
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn added_updated_unchanged_deleted() {
    for workers in [1, 2] {
        let b = open(None, workers, Strategy::Latest);
        let run = Cause::run(1);
        assert_eq!(b.save(run, &[("1", 1, r#""a":1"#), ("2", 1, r#""a":1"#)]).await.added, 2);
        let counts = b.save(run, &[("1", 2, r#""a":1.0,"seen":7"#), ("2", 2, r#""a":2"#)]).await;
        assert_eq!((counts.unchanged, counts.updated), (1, 1));
        assert_eq!(b.save(run, &[("2", 1, r#""a":3"#)]).await.skipped, 1, "a stale page loses");
        assert_eq!(b.delete("1", 5).await.deleted, 1);
        assert_eq!(b.save(run, &[("1", 4, r#""a":9"#)]).await.skipped, 1, "a stale page cannot resurrect");
        assert_eq!(
            b.records(),
            [("UPDATED".into(), r#"{"id":"2","a":2}"#.into()), ("DELETED".into(), r#"{"id":"1","a":1}"#.to_owned())]
        );
        assert_eq!(b.engine.live(&b.dataset), 1);
        assert_eq!(b.save(run, &[("1", 6, r#""a":1"#)]).await.added, 1);
        let record = b.engine.record(&b.dataset, "1").await.expect("reads").expect("there");
        assert_eq!(record.meta.action, Action::Added);
        assert_eq!(record.meta.first_seen_at, record.meta.last_modified_at);
        let mut changes = b.changes();
        changes.sort();
        assert_eq!(
            changes,
            [
                r#"ADDED - {"id":"1","a":1}"#,
                r#"ADDED - {"id":"1","a":1}"#,
                r#"ADDED - {"id":"2","a":1}"#,
                r#"DELETED {"id":"1","a":1} {"id":"1","a":1}"#,
                r#"UPDATED {"id":"2","a":1} {"id":"2","a":2}"#,
            ]
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn several_changes_of_one_record_in_one_batch() {
    let b = open(None, 2, Strategy::Override);
    let rows = [("1", 1, r#""a":1"#), ("1", 1, r#""a":2"#), ("1", 1, r#""a":2"#), ("1", 1, r#""a":3"#)];
    let counts = b.save(Cause::run(1), &rows).await;
    assert_eq!((counts.added, counts.updated, counts.unchanged), (1, 2, 1));
    assert_eq!(b.records(), [("UPDATED".to_owned(), r#"{"id":"1","a":3}"#.to_owned())]);
    assert_eq!(
        b.changes(),
        [
            r#"ADDED - {"id":"1","a":1}"#,
            r#"UPDATED {"id":"1","a":1} {"id":"1","a":2}"#,
            r#"UPDATED {"id":"1","a":2} {"id":"1","a":3}"#
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_deletes_what_it_did_not_see_and_survives_a_restart() {
    let folder = tempfile::tempdir().expect("folder");
    let clock = {
        let b = open(Some(folder.path()), 2, Strategy::Latest);
        let d = || b.dataset.clone();
        assert!(matches!(b.window(vec![], vec![WindowOp::Sweep(d())]).await, Err(Error::NoWindow(_))));
        b.save(Cause::run(1), &[("1", 1, r#""a":1"#), ("2", 1, r#""a":1"#), ("3", 1, r#""a":1"#)]).await;
        b.window(vec![WindowOp::Start(d())], vec![]).await.expect("opens");
        b.save(Cause::run(2), &[("1", 1, r#""a":1"#)]).await;
        b.engine.stop().await.expect("stops");
        b.clock
    };
    let b = open_at(Some(folder.path()), 1, Strategy::Latest, clock);
    assert!(b.engine.window_open(&b.dataset));
    assert_eq!(b.engine.live(&b.dataset), 3);
    assert_eq!(b.patch("3", 2, r#"{"b":1}"#).await.updated, 1);
    let missing = b.engine.missing(&b.dataset).await.expect("answers");
    assert_eq!((missing.live, missing.positions.len()), (3, 1));
    let gone = b.engine.record_at(&b.dataset, missing.positions[0]).expect("reads").expect("there");
    assert_eq!(&gone.payload[..], br#"{"id":"2","a":1}"#);
    let counts = b.window(vec![], vec![WindowOp::Sweep(b.dataset.clone())]).await.expect("sweeps");
    assert_eq!(counts.deleted, 1);
    assert_eq!(b.engine.live(&b.dataset), 2);
    assert!(!b.engine.window_open(&b.dataset));
}

#[tokio::test(flavor = "multi_thread")]
async fn patches_keep_their_fields_against_older_pages() {
    let b = open(None, 1, Strategy::Latest);
    assert_eq!(b.patch("1", 5, r#"{"x":5}"#).await.ignored, 1);
    assert!(b.records().is_empty(), "a patch of an unknown record is not seen");
    assert_eq!(b.save(Cause::run(1), &[("1", 3, r#""x":3,"y":3"#)]).await.added, 1);
    assert_eq!(b.records()[0].1, r#"{"id":"1","x":5,"y":3}"#);
    assert_eq!(b.save(Cause::run(1), &[("1", 4, r#""x":4,"y":4"#)]).await.updated, 1);
    assert_eq!(b.records()[0].1, r#"{"id":"1","x":5,"y":4}"#);
    assert_eq!(b.save(Cause::run(1), &[("1", 6, r#""x":6,"y":4"#)]).await.updated, 1);
    assert_eq!(b.records()[0].1, r#"{"id":"1","x":6,"y":4}"#);
    assert_eq!(b.patch("1", 2, r#"{"x":0}"#).await.skipped, 1);
}

/// However late it comes, and whichever of the two comes first.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_older_than_a_delete_brings_nothing_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let b = open(Some(folder.path()), 1, Strategy::Latest);
    b.save(Cause::webhook(1), &[("1", 1, r#""a":1"#)]).await;
    b.delete("1", 5).await;
    b.delete("2", 5).await;
    let late = [("1", 3, r#""a":2"#), ("2", 3, r#""a":2"#)];
    assert_eq!(b.save(Cause::run(1), &late).await.changes(), 0);
    let (clock, engine) = (b.clock.clone(), b.engine.clone());
    engine.stop().await.expect("stops");
    drop((b, engine));
    let b = open_at(Some(folder.path()), 2, Strategy::Latest, clock);
    assert_eq!(b.save(Cause::run(2), &late).await.changes(), 0, "nor after a restart");
    assert_eq!(b.records().iter().map(|(action, _)| action.as_str()).collect::<Vec<_>>(), ["DELETED"]);
    assert_eq!(b.save(Cause::run(3), &[("1", 6, r#""a":3"#)]).await.added, 1, "what is newer does");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poll_loses_to_a_writer_that_came_after_its_request() {
    let b = open(None, 1, Strategy::IgnoreIfModifiedAfter);
    b.save(Cause::run(1), &[("1", 1, r#""a":1"#)]).await;
    let sent = b.clock.now();
    b.save(Cause::webhook(1), &[("1", 1, r#""a":2"#)]).await;
    let mut page = b.engine.page(&b.dataset);
    page.save("1", None, sent, br#"{"id":"1","a":1}"#);
    page.save("2", None, sent, br#"{"id":"2","a":1}"#);
    let counts = b.commit(Cause::run(2), page).await;
    assert_eq!((counts.skipped, counts.added), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn pruned_payloads_come_back_unchanged() {
    let b = open(None, 2, Strategy::Latest);
    b.save(Cause::run(1), &[("1", 1, r#""a":1"#), ("2", 1, r#""a":1"#)]).await;
    let until = Position(u64::MAX >> 1);
    assert_eq!(b.engine.prune(&b.dataset, until, 10).await.expect("prunes").0, 2);
    assert!(b.records().iter().all(|(_, payload)| payload.starts_with("{\"id\":\"") && !payload.contains('a')));
    assert_eq!(b.engine.prune(&b.dataset, until, 10).await.expect("prunes").0, 0);
    assert_eq!(b.save(Cause::run(1), &[("1", 2, r#""a":1"#)]).await.unchanged, 1);
    let record = b.engine.record(&b.dataset, "1").await.expect("reads").expect("there");
    assert_eq!((&record.payload[..], record.meta.pruned_at), (&br#"{"id":"1","a":1}"#[..], None));
    assert_eq!(b.patch("2", 3, r#"{"a":2}"#).await.ignored, 1, "no patch over nothing");
    assert_eq!(b.save(Cause::run(1), &[("2", 4, r#""a":2"#)]).await.updated, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_record_is_rejected_and_named() {
    let b = open(None, 1, Strategy::Latest);
    let mut page = b.engine.page(&b.dataset);
    page.save("1", None, at(1), b"[1]");
    page.save("2", None, at(1), br#"{"id":"2"}"#);
    page.patch("2", None, at(2), b"7");
    let batch = Batch { cause: Some(Cause::run(1)), pages: vec![page], ..Batch::default() };
    let receipt = b.engine.commit(batch).await.expect("commits");
    let counts = receipt.counts_of(&b.dataset);
    assert_eq!((counts.rejected, counts.added), (2, 1));
    assert!(receipt.rejected[0].1.contains("not a JSON object"), "{:?}", receipt.rejected);
}

#[tokio::test(flavor = "multi_thread")]
async fn marks_and_run_numbers_survive() {
    let folder = tempfile::tempdir().expect("folder");
    let first = {
        let b = open(Some(folder.path()), 1, Strategy::Latest);
        b.engine
            .put_marks(vec![Mark::put(OWN, &["a", "b"], "v"), Mark::put(OWN, &["a", "c"], "w")])
            .await
            .expect("stores");
        assert!(matches!(
            Engine::open(Options {
                data_dir: Some(folder.path().into()),
                workers: 1,
                clock: b.clock.clone(),
                ..Options::default()
            }),
            Err(Error::Locked(_))
        ));
        b.engine.next_run().expect("number")
    };
    let b = open(Some(folder.path()), 1, Strategy::Latest);
    assert_eq!(b.engine.mark(OWN, &["a", "b"]).expect("reads"), Some(b"v".to_vec()));
    let below = b.engine.marks(OWN, &["a"]).expect("reads");
    assert_eq!(below, [(vec!["b".to_owned()], b"v".to_vec()), (vec!["c".to_owned()], b"w".to_vec())]);
    assert!(b.engine.next_run().expect("number") > first);
}

#[tokio::test(flavor = "multi_thread")]
async fn clearing_forgets_everything_but_positions() {
    let b = open(None, 2, Strategy::Latest);
    b.save(Cause::run(1), &[("1", 1, r#""a":1"#), ("2", 1, r#""a":1"#)]).await;
    b.engine.clear(&b.dataset).await.expect("clears");
    assert!(b.records().is_empty() && b.changes().is_empty());
    assert_eq!(b.engine.live(&b.dataset), 0);
    assert_eq!(b.save(Cause::run(1), &[("1", 1, r#""a":1"#)]).await.added, 1);
}

#[test]
fn an_error_keeps_what_the_system_said() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("file");
    std::fs::write(&file, "no folder").expect("written");
    let refused = Engine::open(Options::in_folder(file.join("data"))).err().expect("refused");
    let told = std::error::Error::source(&refused).expect("a source").to_string();
    assert!(told.contains("Not a directory"), "{told}");
    let Error::Io { source, .. } = &refused else { panic!("{refused:?}") };
    let source = source.downcast_ref::<std::io::Error>().expect("the system's");
    assert_eq!(source.kind(), std::io::ErrorKind::NotADirectory, "{refused}");
    assert!(refused.to_string().contains("file/data"), "{refused}");
}
