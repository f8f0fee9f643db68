//! A test kit for views: an engine of its own in a temporary folder, a clock that stands, and one thread that asks.
//!
//! It panics where something is wrong, as tests do. [`check_incremental`] is the test every view should pass: what is kept
//! up over a random history equals what is made from the last records alone, also after a restart.

mod random;

use crate::Engine;
use crate::model::{Cause, Change, Cursor, DatasetId, DatasetName, Position, Strategy, Timestamp};
use crate::pipeline::{Batch, Dataset, DatasetSpec, Filter, Options, PageBuilder, ViewStatus, WindowOp};
use crate::time::ManualClock;
use crate::views::Definition;
pub use random::{Random, check_incremental};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Environment of all records.
const ENVIRONMENT: &str = "test";
/// Records read of a view at a time.
const PAGE: usize = 1_000;

/// An engine with views, and records to be committed.
///
/// ```
/// use serde_json::json;
/// use syncline_engine::{harness::Harness, views::{Definition, Row}};
///
/// #[derive(Row, Clone)]
/// # #[row(crate = syncline_engine)]
/// struct Order { region: String, cents: i64 }
///
/// let views = Definition::new(|v| {
///     let orders = v.model::<Order>("shop", "Order");
///     v.publish("Turnover", &orders.group_by(|_, o| o.region.clone()).sum(|_, o| o.cents));
/// });
/// let mut harness = Harness::new(views);
/// harness.save("shop", "acme", "Order", json!({"id": "1", "region": "north", "cents": 5}));
/// harness.save("shop", "acme", "Order", json!({"id": "2", "region": "north", "cents": 7}));
/// harness.commit();
/// assert_eq!(harness.rows("shop", "acme", "Turnover"), [json!({"id": "north", "value": 12})]);
/// harness.delete("shop", "acme", "Order", "1");
/// harness.commit();
/// let changes = harness.changes("shop", "acme", "Turnover");
/// assert_eq!(changes.last().unwrap(), &("UPDATED", json!({"id": "north", "value": 7})));
/// ```
pub struct Harness {
    runtime: tokio::runtime::Runtime,
    folder: tempfile::TempDir,
    clock: Arc<ManualClock>,
    views: Definition,
    workers: usize,
    engine: Option<Engine>,
    pages: BTreeMap<DatasetName, PageBuilder>,
    read: BTreeMap<DatasetName, Cursor>,
}

impl Harness {
    /// An engine with these views, one worker, and no records.
    pub fn new(views: Definition) -> Harness {
        Harness::with_workers(views, 1)
    }

    /// The same, with several workers.
    pub fn with_workers(views: Definition, workers: usize) -> Harness {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let folder = tempfile::tempdir().expect("a folder");
        let clock = Arc::new(ManualClock::new(Timestamp::from_seconds(1_700_000_000)));
        let (pages, read) = (BTreeMap::new(), BTreeMap::new());
        let mut harness = Harness { runtime, folder, clock, views, workers, engine: None, pages, read };
        harness.open();
        harness
    }

    fn open(&mut self) {
        let options = Options {
            data_dir: Some(self.folder.path().to_owned()),
            workers: self.workers,
            clock: self.clock.clone(),
            views: Some(self.views.clone()),
            ..Options::default()
        };
        self.engine = Some(Engine::open(options).unwrap_or_else(|e| panic!("the engine does not open: {e}")));
    }

    /// The engine.
    pub fn engine(&self) -> &Engine {
        self.engine.as_ref().expect("an engine")
    }

    /// Closes the engine and opens it again, with other views if some are given.
    pub fn restart(&mut self, views: Option<Definition>) {
        self.commit();
        if let Some(engine) = self.engine.take() {
            self.runtime.block_on(engine.stop()).unwrap_or_else(|e| panic!("the engine does not stop: {e}"));
        }
        self.views = views.unwrap_or_else(|| self.views.clone());
        self.open();
    }

    fn dataset(&self, source: &str, connection: &str, model: &str) -> Dataset {
        let spec = DatasetSpec::of(Strategy::Override);
        let name = DatasetName::base(ENVIRONMENT, source, connection, model);
        self.engine().dataset(&name, &spec).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    fn page(&mut self, source: &str, connection: &str, model: &str) -> (&mut PageBuilder, Timestamp) {
        let (dataset, now) = (self.dataset(source, connection, model), crate::time::Clock::now(&*self.clock));
        let fresh = self.engine().page(&dataset);
        (self.pages.entry((*dataset.name).clone()).or_insert(fresh), now)
    }

    /// Saves a record with the next commit. Its `id` has to be text.
    pub fn save(&mut self, source: &str, connection: &str, model: &str, record: Value) {
        self.put(source, connection, model, record, None);
    }

    /// The same for a model that declares a modified time.
    pub fn save_modified(&mut self, source: &str, connection: &str, model: &str, record: Value, at: Timestamp) {
        self.put(source, connection, model, record, Some(at));
    }

    fn put(&mut self, source: &str, connection: &str, model: &str, record: Value, modified_at: Option<Timestamp>) {
        let id = record["id"].as_str().unwrap_or_else(|| panic!("a record needs an id: {record}")).to_owned();
        let (page, now) = self.page(source, connection, model);
        page.save(&id, modified_at, now, record.to_string().as_bytes());
    }

    /// Deletes a record with the next commit.
    pub fn delete(&mut self, source: &str, connection: &str, model: &str, id: &str) {
        let (page, now) = self.page(source, connection, model);
        page.delete(id, None, now, None);
    }

    /// Commits what was saved as a full listing of a model: all else of it is deleted.
    pub fn commit_listing(&mut self, source: &str, connection: &str, model: &str) {
        let dataset = self.dataset(source, connection, model);
        let (open, close) = (vec![WindowOp::Start(dataset.clone())], vec![WindowOp::Sweep(dataset)]);
        self.send(Batch { cause: Some(Cause::run(1)), open, close, ..Batch::default() });
    }

    /// Drops the payloads of all records of a model.
    pub fn prune(&mut self, source: &str, connection: &str, model: &str) {
        let (dataset, end) = (self.dataset(source, connection, model), *self.engine().watermark().borrow());
        let pruned = self.runtime.block_on(self.engine().prune(&dataset, end, usize::MAX));
        pruned.unwrap_or_else(|e| panic!("the records cannot be pruned: {e}"));
    }

    /// Forgets all records of a model.
    pub fn clear(&mut self, source: &str, connection: &str, model: &str) {
        let dataset = self.dataset(source, connection, model);
        let cleared = self.runtime.block_on(self.engine().clear(&dataset));
        cleared.unwrap_or_else(|e| panic!("the records cannot be cleared: {e}"));
    }

    /// Deletes the records of a view that is not defined any more; how many there were.
    pub fn retract(&mut self, view: &str) -> u64 {
        let retracted = self.runtime.block_on(self.engine().retract_view(ENVIRONMENT, view));
        retracted.unwrap_or_else(|e| panic!("the view cannot be retracted: {e}"))
    }

    /// Commits what was saved and deleted: one engine time.
    pub fn commit(&mut self) {
        self.send(Batch { cause: Some(Cause::run(1)), ..Batch::default() });
    }

    fn send(&mut self, batch: Batch) {
        self.clock.advance(Duration::from_millis(1));
        let pages = std::mem::take(&mut self.pages).into_values().collect();
        let batch = Batch { pages, ..batch };
        let committed = self.runtime.block_on(self.engine().commit(batch));
        committed.unwrap_or_else(|e| panic!("the commit failed: {e}"));
    }

    /// The records of a model or view in order of their ids.
    pub fn rows(&self, source: &str, connection: &str, model: &str) -> Vec<Value> {
        let Some(dataset) = self.engine().find(&DatasetName::base(ENVIRONMENT, source, connection, model)) else {
            return Vec::new();
        };
        let mut rows = BTreeMap::new();
        let live = Filter { deleted: false, ..Filter::ALL };
        let read = self.engine().records(&dataset, Position::START, live, &mut |_, payload| {
            let row: Value = serde_json::from_slice(payload).unwrap_or_else(|e| panic!("a record is no JSON: {e}"));
            rows.insert(row["id"].as_str().unwrap_or_default().to_owned(), row);
            true
        });
        read.unwrap_or_else(|e| panic!("the records cannot be read: {e}"));
        rows.into_values().collect()
    }

    /// The changes of a model or view since they were last asked for: what happened, and the record as it then was.
    pub fn changes(&mut self, source: &str, connection: &str, model: &str) -> Vec<(&'static str, Value)> {
        let name = DatasetName::base(ENVIRONMENT, source, connection, model);
        let Some(dataset) = self.engine().find(&name) else { return Vec::new() };
        let after =
            self.read.get(&name).copied().unwrap_or(Cursor { position: Position::START, dataset: DatasetId(0) });
        let mut changes: Vec<Change> = Vec::new();
        let read = self.engine().changes(std::slice::from_ref(&dataset), after, &mut |_, change| {
            changes.push(change);
            changes.len() < PAGE
        });
        read.unwrap_or_else(|e| panic!("the changes cannot be read: {e}"));
        if let Some(last) = changes.last() {
            self.read.insert(name, Cursor { position: last.meta.position, dataset: dataset.id });
        }
        let told = |change: Change| {
            let record = change.after.as_deref().map(serde_json::from_slice).and_then(Result::ok);
            (change.meta.action.as_str(), record.unwrap_or_default())
        };
        changes.into_iter().map(told).collect()
    }

    /// How the views are doing.
    pub fn views(&self) -> Vec<ViewStatus> {
        self.engine().views()
    }
}
