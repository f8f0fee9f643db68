//! Views inside the engine: differential collections over records, published through the same merge as any dataset.
//!
//! A view's rows are the whole rows of a dataset of its own, so rehydrating it after a restart changes nothing where its
//! rows are as before. The counting view (live records per dataset) always flows; it is what `recordCount` and the guard
//! read. Views by users come through the same two functions.

use super::epochs::each_epoch;
use super::merge::{Merge, MergeOutcome, PayloadPlace};
use super::updates::LiveUpdate;
use super::upsert::{Shared, count};
use crate::model::content::{Key, KeySeed, raw_hash};
use crate::model::{Cause, Counts, DatasetId, Position, Timestamp, Via};
use crate::state::{ObservationRow, ObservationRows, RowKind, Stage, Tables};
use differential_dataflow::{AsCollection, VecCollection};
use std::collections::BTreeMap;
use std::sync::Arc;
use timely::dataflow::Stream;

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

/// What publishing needs of the worker.
#[derive(Clone)]
pub struct PublishContext {
    pub tables: Shared<Tables>,
    pub stage: Shared<Stage>,
    pub seed: KeySeed,
    pub clock: Shared<Timestamp>,
}

impl PublishContext {
    /// Where a row of this id is worked on: the same route as records take, so that the table is found again after a restart.
    pub fn route(&self) -> impl Fn(&str) -> u64 + 'static {
        let seed = self.seed.clone();
        move |id| seed.key(id.as_bytes())[1]
    }

    /// Merges rows that views made into their dataset, on worker `worker` of `peers`: what changed, and by how much the number
    /// of live records did.
    pub fn merge(&self, rows: ObservationRows, epoch: u64, (worker, peers): (u64, u64)) -> (Counts, i64) {
        let (mut tables, mut stage) = (self.tables.borrow_mut(), self.stage.borrow_mut());
        let (dataset, rows) = (rows.dataset, Arc::new(rows));
        let page = stage.part.page(&rows);
        let cause = Cause { via: Via::View, number: u64::from(dataset.0) };
        let table = tables.table(dataset);
        let before = table.live;
        let mut merge = Merge::new(dataset, table, &mut stage, cause, *self.clock.borrow());
        let mut counts = Counts::default();
        for row in rows.parts.iter().flatten() {
            let position = Position::first_of(epoch).0 + u64::from(row.place) * peers + worker;
            let outcome = merge.apply(PayloadPlace { rows: &rows, page, position }, row);
            debug_assert!(!matches!(outcome, MergeOutcome::Rejected(_)), "{outcome:?}");
            if let MergeOutcome::Changed(action, _) = outcome {
                count(&mut counts, action);
            }
        }
        merge.finish();
        (counts, tables.table(dataset).live - before)
    }
}

/// No rows yet, to be [pushed](push) on the one worker that merges them.
pub fn no_rows(dataset: DatasetId) -> ObservationRows {
    ObservationRows { dataset, bytes: Vec::new(), parts: vec![Vec::new()], len: 0, strategy: None }
}

/// Adds a row that a view made; without content it is gone.
pub fn push(rows: &mut ObservationRows, key: Key, json: Option<&str>) {
    let bytes = json.unwrap_or_default().as_bytes();
    let from = rows.bytes.len() as u32;
    rows.bytes.extend_from_slice(bytes);
    let row = ObservationRow {
        key,
        raw: raw_hash(bytes),
        modified_at: Timestamp::NONE,
        observed_at: Timestamp(0),
        from,
        len: bytes.len() as u32,
        place: rows.len,
        kind: if json.is_some() { RowKind::Whole } else { RowKind::Gone },
    };
    rows.len += 1;
    rows.parts.iter_mut().for_each(|part| part.push(row));
}

/// The operator that publishes a view: consolidated rows of an epoch go through the merge of the view's dataset.
pub fn publish<'s>(published: Published<'s>, desk: PublishContext) -> Stream<'s, u64, Vec<()>> {
    let Published { dataset, rows } = published;
    let scope = rows.inner.scope();
    let here = (scope.index() as u64, scope.peers() as u64);
    let route = desk.route();
    each_epoch(
        rows,
        "Publish",
        move |(id, _)| route(id),
        None,
        move |epoch, updates| {
            let (rows, live) = as_rows(dataset, updates, &desk.seed);
            desk.stage.borrow_mut().part.live.extend(live);
            desk.merge(rows, epoch, here);
            Vec::new()
        },
    )
}

/// Net updates as rows of the view's dataset: what is asserted is saved, what is only retracted is gone.
fn as_rows(
    dataset: DatasetId,
    updates: Vec<(ViewRow, isize)>,
    seed: &KeySeed,
) -> (ObservationRows, Vec<(DatasetId, i64)>) {
    let mut by_id: BTreeMap<String, Option<String>> = BTreeMap::new();
    for ((id, json), diff) in updates {
        let row = by_id.entry(id).or_default();
        if diff > 0 {
            *row = Some(json);
        }
    }
    let mut rows = no_rows(dataset);
    let mut live = Vec::new();
    for (id, json) in by_id {
        if let Ok(number) = id.parse() {
            live.push((DatasetId(number), json.as_deref().and_then(live_of).unwrap_or(0)));
        }
        push(&mut rows, seed.key(id.as_bytes()), json.as_deref());
    }
    (rows, live)
}

fn live_of(json: &str) -> Option<i64> {
    json.rsplit_once(':')?.1.trim_end_matches('}').parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataflow::upsert::upsert;
    use crate::state::{EpochWork, StagedContent, WorkerChanges};
    use rand::{Rng, SeedableRng};
    use std::cell::RefCell;
    use std::collections::{BTreeSet, HashMap};
    use std::rc::Rc;
    use timely::dataflow::operators::{Input, Probe};
    use timely::dataflow::{InputHandle, ProbeHandle};

    const PEOPLE: DatasetId = DatasetId(1);
    const BY_REGION: DatasetId = DatasetId(2);
    type Payloads = Rc<RefCell<HashMap<(DatasetId, u64), Vec<u8>>>>;

    fn region(payload: &[u8]) -> String {
        let value: serde_json::Value = serde_json::from_slice(payload).expect("json");
        value["region"].as_str().expect("text").to_owned()
    }

    fn rows(seed: &KeySeed, changes: &[(u32, Option<u32>)], observed_at: i64) -> ObservationRows {
        let mut rows = no_rows(PEOPLE);
        for (id, region) in changes {
            let json = region.map(|r| format!("{{\"id\":\"{id}\",\"region\":\"r{r}\"}}")).unwrap_or_default();
            let from = rows.bytes.len() as u32;
            rows.bytes.extend_from_slice(json.as_bytes());
            rows.parts[0].push(ObservationRow {
                key: seed.key(id.to_string().as_bytes()),
                raw: raw_hash(json.as_bytes()),
                modified_at: Timestamp::NONE,
                observed_at: Timestamp(observed_at),
                from,
                len: json.len() as u32,
                place: rows.len,
                kind: if region.is_some() { RowKind::Whole } else { RowKind::Gone },
            });
            rows.len += 1;
        }
        rows
    }

    /// What the pipeline does with a part, as far as a view can tell: keep payloads, and the view's rows.
    fn store(part: &WorkerChanges, payloads: &Payloads, view: &mut BTreeMap<Key, String>) {
        for staged in &part.staged {
            let mut payloads = payloads.borrow_mut();
            let kept = staged.old.and_then(|old| payloads.get(&(staged.dataset, old)).cloned());
            let payload = match staged.content {
                StagedContent::Kept => kept,
                _ => part.bytes(&staged.content).map(<[u8]>::to_vec),
            };
            if let Some(payload) = &payload {
                payloads.insert((staged.dataset, staged.position), payload.clone());
            }
            if staged.dataset == BY_REGION {
                match (staged.action, payload) {
                    (crate::model::Action::Deleted, _) | (_, None) => drop(view.remove(&staged.entry.key)),
                    (_, Some(row)) => drop(view.insert(staged.entry.key, String::from_utf8(row).expect("utf-8"))),
                }
            }
        }
    }

    /// A grouping over records, maintained, equals the grouping recomputed, after every epoch.
    #[test]
    fn a_view_over_records_equals_recomputing_it() {
        let number = std::env::var("SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(20_260_401);
        println!("SEED={number}");
        timely::execute_directly(move |worker| {
            let seed = KeySeed::new(&[3; 32]);
            let payloads = Payloads::default();
            let older = payloads.clone();
            let tables = Rc::new(RefCell::new(Tables::default()));
            let stage = Rc::new(RefCell::new(Stage::new(move |dataset, at| {
                (older.borrow().get(&(dataset, at)).cloned(), Timestamp::NONE)
            })));
            let clock = Rc::new(RefCell::new(Timestamp(0)));
            let watched = Rc::new(RefCell::new(BTreeSet::from([PEOPLE])));
            let mut input = InputHandle::new();
            let probe = ProbeHandle::new();
            worker.dataflow::<u64, _, _>(|scope| {
                let work = scope.input_from(&mut input);
                let (_, records) = upsert(work, tables.clone(), stage.clone(), watched);
                let by_region = records.as_collection().map(|(_, seen)| region(&seen.payload)).count();
                let rows = by_region.map(|(r, n)| (r.clone(), format!("{{\"id\":\"{r}\",\"n\":{n}}}")));
                let desk = PublishContext { tables, stage: stage.clone(), seed: seed.clone(), clock };
                publish(Published { dataset: BY_REGION, rows }, desk).probe_with(&probe);
            });
            let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(number);
            let (mut truth, mut view) = (BTreeMap::<u32, u32>::new(), BTreeMap::new());
            for epoch in 1..200u64 {
                let changes: Vec<(u32, Option<u32>)> = (0..rng.random_range(0..6))
                    .map(|_| (rng.random_range(0..20), rng.random_bool(0.7).then(|| rng.random_range(0..4))))
                    .collect();
                for (id, region) in &changes {
                    match region {
                        Some(region) => truth.insert(*id, *region),
                        None => truth.remove(id),
                    };
                }
                input.advance_to(epoch);
                let rows = Arc::new(rows(&seed, &changes, epoch as i64));
                input.send(EpochWork::Rows {
                    rows,
                    cause: Cause::run(1),
                    at: Timestamp(epoch as i64),
                    base: 0,
                    slot: 0,
                });
                input.advance_to(epoch + 1);
                worker.step_while(|| probe.less_than(&(epoch + 1)));
                store(&std::mem::take(&mut stage.borrow_mut().part), &payloads, &mut view);
                let mut counts = BTreeMap::<u32, usize>::new();
                truth.values().for_each(|r| *counts.entry(*r).or_default() += 1);
                let wanted: BTreeSet<String> =
                    counts.iter().map(|(r, n)| format!("{{\"id\":\"r{r}\",\"n\":{n}}}")).collect();
                assert_eq!(view.values().cloned().collect::<BTreeSet<_>>(), wanted, "epoch {epoch}");
            }
        });
    }
}
