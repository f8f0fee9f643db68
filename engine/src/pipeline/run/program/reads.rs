//! What a program reads of its own records: by id, and in order. All it has written before is committed by then.

use super::commit::dataset;
use crate::model::{Position, Record};
use crate::pipeline::run::drive::RunStop;
use crate::pipeline::{Dataset, Engine, Error, Filter};
use crate::source::program::RecordPage;
use futures_util::future::try_join_all;
use std::collections::BTreeMap;

/// Records read by id at a time.
const IDS: usize = 256;
/// Records of a page …
const PAGE_RECORDS: usize = 1_000;
/// … which ends earlier with so many bytes.
const PAGE_BYTES: usize = 4 << 20;

/// Records in the order of these ids.
pub(super) async fn records(
    engine: &Engine,
    datasets: &BTreeMap<String, Dataset>,
    model: &str,
    ids: &[String],
) -> Result<Vec<Option<Record>>, RunStop> {
    let dataset = dataset(datasets, model)?;
    let mut records = Vec::with_capacity(ids.len());
    for some in ids.chunks(IDS) {
        records.extend(try_join_all(some.iter().map(|id| engine.record(&dataset, id))).await?);
    }
    Ok(records)
}

/// The next page of a model's records.
pub(super) async fn list(
    engine: &Engine,
    datasets: &BTreeMap<String, Dataset>,
    model: &str,
    after: Position,
) -> Result<RecordPage, RunStop> {
    let (engine, dataset) = (engine.clone(), dataset(datasets, model)?);
    let read = move || {
        let (mut page, mut bytes) = (RecordPage::default(), 0);
        engine.records(&dataset, after, Filter::ALL, &mut |meta, payload| {
            bytes += payload.len();
            page.records.push(Record { meta: meta.clone(), payload: payload.to_vec().into() });
            let full = page.records.len() >= PAGE_RECORDS || bytes >= PAGE_BYTES;
            page.next = full.then_some(meta.position);
            !full
        })?;
        Ok(page)
    };
    let page = tokio::task::spawn_blocking(read).await.map_err(|_| Error::Stopped)?;
    page.map_err(RunStop::Engine)
}
