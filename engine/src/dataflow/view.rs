//! Views inside the engine: differential collections over records, published through the same merge as any dataset.
//!
//! A view's rows are the whole rows of a dataset of its own, so rehydrating it after a restart changes nothing where its
//! rows are as before. The counting view (live records per dataset) always flows; it is what `recordCount` and the guard
//! read. Views by users come through the same two functions.

use super::merge::{Merge, Outcome, Place};
use super::rows::{Kind, Row, Rows};
use super::stage::Stage;
use super::table::Tables;
use super::upsert::Shared;
use crate::model::content::{Key, KeySeed, raw_hash};
use crate::model::{Cause, DatasetId, Position, Timestamp, Via};
use differential_dataflow::consolidation::consolidate;
use differential_dataflow::{AsCollection, VecCollection};
use std::collections::BTreeMap;
use std::sync::Arc;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::Stream;
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::{Capability, Operator};

/// Net live records of a dataset.
pub type LiveUpdate = (DatasetId, u64, isize);
/// A record of a watched dataset.
pub type RecordUpdate = (((DatasetId, Key), Vec<u8>), u64, isize);

/// A row of a view: its id and its JSON text.
pub type ViewRow = (String, String);

/// Rows of a view on their way to its dataset.
pub struct Published<'s> {
    /// The view's dataset.
    pub dataset: DatasetId,
    /// At most one row per id.
    pub rows: VecCollection<'s, u64, ViewRow, isize>,
}

/// The counting view: one row per dataset that has live records.
pub fn live_counts<'s>(live: Stream<'s, u64, Vec<LiveUpdate>>) -> VecCollection<'s, u64, (DatasetId, isize), isize> {
    live.as_collection().count()
}

/// A count as a row.
pub fn count_row((dataset, live): (DatasetId, isize)) -> ViewRow {
    (dataset.0.to_string(), format!("{{\"id\":\"{}\",\"live\":{live}}}", dataset.0))
}

/// The operator that publishes a view: consolidated rows of an epoch go through the merge of the view's dataset.
///
/// Its (empty) output moves on only after the rows of an epoch are staged: what a probe on it shows is done.
pub fn publish<'s>(
    published: Published<'s>,
    tables: Shared<Tables>,
    stage: Shared<Stage>,
    seed: KeySeed,
    clock: Shared<Timestamp>,
) -> Stream<'s, u64, Vec<()>> {
    let Published { dataset, rows } = published;
    let scope = rows.inner.scope();
    let (worker, peers) = (scope.index() as u64, scope.peers() as u64);
    let mut waiting: BTreeMap<u64, (Capability<u64>, Vec<(ViewRow, isize)>)> = BTreeMap::new();
    // The same route as records take, so that the table is found again after a restart.
    let route = seed.clone();
    let by_id = Exchange::new(move |((id, _), _, _): &(ViewRow, u64, isize)| route.key(id.as_bytes())[1]);
    rows.inner.unary_frontier::<CapacityContainerBuilder<Vec<()>>, _, _, _>(by_id, "Publish", move |_, _| {
        move |(input, frontier), _output| {
            input.for_each(|capability, data| {
                for (row, epoch, diff) in data.drain(..) {
                    let keep = || (capability.delayed(&epoch, 0), Vec::new());
                    waiting.entry(epoch).or_insert_with(keep).1.push((row, diff));
                }
            });
            while let Some(next) = waiting.first_entry() {
                if frontier.less_equal(next.key()) {
                    break;
                }
                let (epoch, (_until_staged, mut updates)) = next.remove_entry();
                consolidate(&mut updates);
                let (rows, live) = as_rows(dataset, updates, &seed);
                let mut stage = stage.borrow_mut();
                stage.part.live.extend(live);
                let mut tables = tables.borrow_mut();
                let rows = Arc::new(rows);
                let page = stage.part.page(&rows);
                let cause = Cause { via: Via::View, number: u64::from(dataset.0) };
                let mut merge = Merge::new(dataset, tables.table(dataset), &mut stage, cause, *clock.borrow());
                for row in rows.parts.iter().flatten() {
                    let position = Position::first_of(epoch).0 + u64::from(row.place) * peers + worker;
                    let outcome = merge.apply(Place { rows: &rows, page, position }, row);
                    debug_assert!(!matches!(outcome, Outcome::Rejected(_)), "{outcome:?}");
                }
                merge.finish();
            }
        }
    })
}

/// Net updates as rows of the view's dataset: what is asserted is saved, what is only retracted is gone.
fn as_rows(dataset: DatasetId, updates: Vec<(ViewRow, isize)>, seed: &KeySeed) -> (Rows, Vec<(DatasetId, i64)>) {
    let mut by_id: BTreeMap<String, Option<String>> = BTreeMap::new();
    for ((id, json), diff) in updates {
        let row = by_id.entry(id).or_default();
        if diff > 0 {
            *row = Some(json);
        }
    }
    let mut rows = Rows { dataset, bytes: Vec::new(), parts: vec![Vec::new()], len: 0 };
    let mut live = Vec::new();
    for (id, json) in by_id {
        let from = rows.bytes.len() as u32;
        rows.bytes.extend_from_slice(json.as_deref().unwrap_or_default().as_bytes());
        if let Ok(number) = id.parse() {
            live.push((DatasetId(number), json.as_deref().and_then(live_of).unwrap_or(0)));
        }
        let row = Row {
            key: seed.key(id.as_bytes()),
            raw: raw_hash(json.as_deref().unwrap_or_default().as_bytes()),
            modified_at: Timestamp::NONE,
            observed_at: Timestamp(0),
            from,
            len: rows.bytes.len() as u32 - from,
            place: rows.len,
            kind: if json.is_some() { Kind::Whole } else { Kind::Gone },
        };
        rows.len += 1;
        rows.parts.iter_mut().for_each(|part| part.push(row));
    }
    (rows, live)
}

fn live_of(json: &str) -> Option<i64> {
    json.rsplit_once(':')?.1.trim_end_matches('}').parse().ok()
}
