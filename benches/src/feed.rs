//! Records in pages, made ahead: what a provider's answer would be once it is in memory.

use crate::Fault;
pub use crate::poll::{CONNECTIONS, connection_of};
use futures_util::future::try_join_all;
use std::sync::Arc;
use syncline_engine::Engine;
use syncline_engine::model::{Cause, Counts, Timestamp};
use syncline_engine::pipeline::{Batch, Dataset, Keyspace, Mark, PageBuilder, WindowOp};
use syncline_provider::Generator;

/// Records made at once while the clock stands still: enough that starting and draining do not matter, little enough
/// (about 25 MB) that memory figures stay those of the engine.
const CHUNK: u64 = 50_000;

/// Which version of a record a poll meets; `None`: it is missing.
pub type Version = fn(u64) -> Option<u32>;

/// Makes pages.
#[derive(Clone)]
pub struct Feed {
    generator: Generator,
    records: u64,
    page: usize,
}

/// A page of one connection.
pub struct Page {
    bytes: Vec<u8>,
    rows: Vec<Row>,
}

struct Row {
    end: usize,
    id_len: usize,
    modified_at: Timestamp,
}

impl Page {
    /// Records on it.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Copies the page into a builder.
    pub fn fill(&self, into: &mut PageBuilder, observed_at: Timestamp) {
        // Every record begins `{"id":"`.
        const ID_AT: usize = 7;
        let mut start = 0;
        for row in &self.rows {
            let json = &self.bytes[start..row.end];
            let id = std::str::from_utf8(&json[ID_AT..ID_AT + row.id_len]).unwrap_or_default();
            into.save(id, Some(row.modified_at), observed_at, json);
            start = row.end;
        }
    }
}

impl Feed {
    /// Of so many records.
    pub fn new(records: u64, page: usize) -> Self {
        Feed { generator: Generator::new(1), records, page }
    }

    /// Records in all.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// The generator behind it.
    pub fn generator(&self) -> Generator {
        self.generator
    }

    /// The chunks, as the first id of each and the first after it.
    pub fn chunks(&self) -> impl Iterator<Item = (u64, u64)> {
        let (records, chunk) = (self.records, CHUNK);
        (0..records.div_ceil(chunk)).map(move |n| (n * chunk + 1, ((n + 1) * chunk).min(records) + 1))
    }

    /// The pages of ids `from..to`, by connection.
    pub fn pages(&self, from: u64, to: u64, version: Version) -> Vec<Vec<Page>> {
        let mut pages: Vec<Vec<Page>> = (0..CONNECTIONS).map(|_| Vec::new()).collect();
        for id in from..to {
            let Some(version) = version(id) else { continue };
            let own = &mut pages[connection_of(id)];
            if own.last().is_none_or(|p| p.len() >= self.page) {
                own.push(Page { bytes: Vec::with_capacity(self.page * 540), rows: Vec::with_capacity(self.page) });
            }
            if let Some(page) = own.last_mut() {
                self.generator.record(&mut page.bytes, id, version);
                let modified_at = self.generator.modified_at(id, version);
                page.rows.push(Row { end: page.bytes.len(), id_len: digits(id), modified_at });
            }
        }
        pages
    }
}

fn digits(id: u64) -> usize {
    id.checked_ilog10().map_or(1, |n| n as usize + 1)
}

/// Hands the pages of each connection over, as ten runs at once do: page by page, each with its bookmark.
pub async fn submit(
    engine: &Engine,
    datasets: &[Dataset],
    runs: &[u64],
    pages: Vec<Vec<Page>>,
) -> Result<Counts, Fault> {
    let tasks = datasets.iter().zip(runs).zip(pages).map(|((dataset, run), pages)| {
        let (engine, dataset, run) = (engine.clone(), dataset.clone(), *run);
        async move { tokio::spawn(connection(engine, dataset, run, Arc::new(pages))).await? }
    });
    let mut counts = Counts::default();
    for part in try_join_all(tasks).await? {
        counts.add(&part);
    }
    Ok(counts)
}

async fn connection(engine: Engine, dataset: Dataset, run: u64, pages: Arc<Vec<Page>>) -> Result<Counts, Fault> {
    let mut counts = Counts::default();
    for page in pages.iter() {
        let mut builder = engine.page(&dataset);
        page.fill(&mut builder, engine.clock().now());
        let mut batch = batch(&dataset, run);
        batch.pages.push(builder);
        counts.add(&commit(&engine, batch).await?);
    }
    Ok(counts)
}

/// An empty batch of a run, with its bookmark.
pub fn batch(dataset: &Dataset, run: u64) -> Batch {
    let bookmark =
        Mark::put(Keyspace::BOOKMARK, &["default", "fake", &dataset.name.connection, "Contact", "base"], "next");
    Batch { cause: Some(Cause::run(run)), marks: vec![bookmark], ..Batch::default() }
}

/// Commits and sums up.
pub async fn commit(engine: &Engine, batch: Batch) -> Result<Counts, Fault> {
    let mut counts = Counts::default();
    for (_, part) in engine.commit(batch).await?.counts {
        counts.add(&part);
    }
    Ok(counts)
}

/// Begins or ends the delete-tracking window of every dataset.
pub async fn windows(
    engine: &Engine,
    datasets: &[Dataset],
    runs: &[u64],
    op: fn(Dataset) -> WindowOp,
    closing: bool,
) -> Result<Counts, Fault> {
    let mut counts = Counts::default();
    for (dataset, run) in datasets.iter().zip(runs) {
        let mut batch = batch(dataset, *run);
        if closing { &mut batch.close } else { &mut batch.open }.push(op(dataset.clone()));
        counts.add(&commit(engine, batch).await?);
    }
    Ok(counts)
}

/// A run for every dataset.
pub fn runs(engine: &Engine, datasets: &[Dataset]) -> Result<Vec<u64>, Fault> {
    Ok(datasets.iter().map(|_| engine.next_run()).collect::<Result<_, _>>()?)
}

/// Fails the benchmark when a count is not what it must be: a quick wrong answer is worth nothing.
pub fn expect(what: &str, found: u64, wanted: u64) -> Result<(), Fault> {
    match found == wanted {
        true => Ok(()),
        false => Err(format!("{what}: {found}, must be {wanted}").into()),
    }
}
