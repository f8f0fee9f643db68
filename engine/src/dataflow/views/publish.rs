//! Where views become records: the net rows of an engine time go through the merge that all records take.
//!
//! Promises: a row that is as it was changes nothing, also after a restart, when all rows come anew: then what came no more is
//! deleted. Two rows under one key stop the view, which says which key it was; so do more changes at one engine time than
//! there are places for.

use super::packed::Scope;
use super::registry::Registry;
use crate::dataflow::epochs::each_epoch;
use crate::dataflow::merge::{Merge, Outcome, Place};
use crate::dataflow::upsert::{Shared, count};
use crate::dataflow::view::LiveUpdate;
use crate::model::content::{Key, KeySeed, raw_hash};
use crate::model::{Cause, Counts, DatasetId, Position, Timestamp, Via};
use crate::state::{DEAD, Kind, OF_VIEWS, Row, Rows, Stage, Tables};
use differential_dataflow::VecCollection;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use timely::dataflow::Stream;

/// Engine times that each epoch keeps free behind it where there are views, so that what one change makes of them has places.
pub const SPAN: u64 = 1 << 4;
/// The same for the first epoch, in which all rows come anew.
pub const FIRST_SPAN: u64 = 1 << 9;

/// A row on its way to its dataset: view, scope, id, JSON text.
pub type Line = ((u32, Scope, String), String);

/// What the operator needs of the worker.
pub struct Desk {
    pub registry: Arc<Registry>,
    pub tables: Shared<Tables>,
    pub stage: Shared<Stage>,
    pub seed: KeySeed,
    pub clock: Shared<Timestamp>,
    /// The epoch in which all rows come anew.
    pub first: u64,
}

/// Publishes the rows of all views. What comes out are changes in the number of live records by dataset.
pub fn publish<'s>(lines: VecCollection<'s, u64, Line, isize>, desk: Desk) -> Stream<'s, u64, Vec<LiveUpdate>> {
    let scope = lines.inner.scope();
    let (worker, peers) = (scope.index() as u64, scope.peers() as u64);
    // The same route as records take, so that the table is found again after a restart.
    let route = desk.seed.clone();
    let by_id = move |((_, _, id), _): &Line| route.key(id.as_bytes())[1];
    // The first epoch is worked off even if it brings no row: then all there were are gone.
    each_epoch(lines, "Publish", by_id, Some(desk.first), move |epoch, updates| {
        let mut round = Round { desk: &desk, epoch, worker, peers, anew: epoch == desk.first, live: Vec::new() };
        round.all(updates);
        let changed = round.live.into_iter().filter(|(_, net)| *net != 0);
        changed.map(|(dataset, net)| (dataset, epoch, net as isize)).collect()
    })
}

/// One engine time on one worker.
struct Round<'a> {
    desk: &'a Desk,
    epoch: u64,
    worker: u64,
    peers: u64,
    /// Whether all rows come anew.
    anew: bool,
    live: Vec<(DatasetId, i64)>,
}

/// What is asserted of a key, and how often it is retracted.
#[derive(Default)]
struct Net {
    rows: Vec<String>,
    retracted: isize,
}

impl Round<'_> {
    fn all(&mut self, updates: Vec<(Line, isize)>) {
        let mut by_view: BTreeMap<(u32, Scope), BTreeMap<String, Net>> = BTreeMap::new();
        for (((view, scope, id), json), diff) in updates {
            let net = by_view.entry((view, scope)).or_default().entry(id).or_default();
            match diff {
                1.. => net.rows.extend(std::iter::repeat_n(json, diff.min(2) as usize)),
                _ => net.retracted -= diff,
            }
        }
        let mut written = HashSet::new();
        for ((view, scope), rows) in by_view {
            let dataset = self.desk.registry.known().output(view as usize, scope);
            if let Some(dataset) = dataset {
                self.dataset(view as usize, dataset, rows);
                written.insert(dataset);
            }
        }
        if self.anew {
            let all: Vec<(usize, DatasetId)> = {
                let known = self.desk.registry.known();
                let views = 0..self.desk.registry.plan.views.len();
                views.flat_map(|view| known.outputs(view).map(move |d| (view, d)).collect::<Vec<_>>()).collect()
            };
            for (view, dataset) in all.into_iter().filter(|(_, dataset)| !written.contains(dataset)) {
                self.dataset(view, dataset, BTreeMap::new());
            }
        }
    }

    fn dataset(&mut self, view: usize, dataset: DatasetId, lines: BTreeMap<String, Net>) {
        let Some(name) = self.desk.registry.plan.views.get(view).map(|view| view.name.as_str()) else { return };
        if self.desk.registry.ward.is_stopped(name) {
            return;
        }
        let rows = match self.rows(dataset, lines) {
            Ok(rows) => rows,
            Err(why) => return self.desk.registry.ward.stop(name, why),
        };
        if rows.bytes.len() > u32::MAX as usize {
            let why =
                format!("its rows at engine time {} have {} bytes, more than 4 GiB", self.epoch, rows.bytes.len());
            return self.desk.registry.ward.stop(name, why);
        }
        let span = if self.anew { FIRST_SPAN } else { SPAN };
        if u64::from(rows.len).saturating_mul(self.peers) >= span << Position::PLACE_BITS {
            let why = format!(
                "{} of its rows changed at engine time {}, more than there are places for",
                rows.len, self.epoch
            );
            return self.desk.registry.ward.stop(name, why);
        }
        let (mut tables, mut stage) = (self.desk.tables.borrow_mut(), self.desk.stage.borrow_mut());
        let rows = Arc::new(rows);
        let page = stage.part.page(&rows);
        let cause = Cause { via: Via::View, number: u64::from(dataset.0) };
        let table = tables.table(dataset);
        let before = table.live;
        let mut merge = Merge::new(dataset, table, &mut stage, cause, *self.desk.clock.borrow());
        let mut counts = Counts::default();
        for row in rows.parts.iter().flatten() {
            let position = Position::first_of(self.epoch).0 + u64::from(row.place) * self.peers + self.worker;
            let outcome = merge.apply(Place { rows: &rows, page, position }, row);
            debug_assert!(!matches!(outcome, Outcome::Rejected(_)), "{outcome:?}");
            if let Outcome::Changed(action, _) = outcome {
                count(&mut counts, action);
            }
        }
        merge.finish();
        stage.part.counts.entry((OF_VIEWS, dataset)).or_default().add(&counts);
        self.live.push((dataset, tables.table(dataset).live - before));
    }

    /// Net rows as rows of the dataset; the key that has two, if one has.
    fn rows(&self, dataset: DatasetId, lines: BTreeMap<String, Net>) -> Result<Rows, String> {
        let mut tables = self.desk.tables.borrow_mut();
        let table = tables.table(dataset);
        let mut rows = Rows { dataset, bytes: Vec::new(), parts: vec![Vec::new()], len: 0 };
        let mut came: HashSet<Key> = HashSet::new();
        for (id, net) in lines {
            let key = self.desk.seed.key(id.as_bytes());
            let was = !self.anew && table.get(&key).is_some_and(|entry| !entry.is(DEAD));
            let is = isize::from(was) + net.rows.len() as isize - net.retracted;
            if net.rows.len() > 1 || !(0..=1).contains(&is) {
                return Err(format!("more than one row has the key {id}"));
            }
            if self.anew {
                came.insert(key);
            }
            match net.rows.first() {
                Some(json) => push(&mut rows, key, Some(json)),
                None if is == 0 => push(&mut rows, key, None),
                None => {}
            }
        }
        if self.anew {
            let gone: HashMap<u64, Key> =
                table.iter().filter(|e| !e.is(DEAD) && !came.contains(&e.key)).map(|e| (e.position, e.key)).collect();
            let ordered: BTreeMap<u64, Key> = gone.into_iter().collect();
            ordered.into_values().for_each(|key| push(&mut rows, key, None));
        }
        Ok(rows)
    }
}

fn push(rows: &mut Rows, key: Key, json: Option<&str>) {
    let bytes = json.unwrap_or_default().as_bytes();
    let from = rows.bytes.len() as u32;
    rows.bytes.extend_from_slice(bytes);
    let row = Row {
        key,
        raw: raw_hash(bytes),
        modified_at: Timestamp::NONE,
        observed_at: Timestamp(0),
        from,
        len: bytes.len() as u32,
        place: rows.len,
        kind: if json.is_some() { Kind::Whole } else { Kind::Gone },
    };
    rows.len += 1;
    rows.parts.iter_mut().for_each(|part| part.push(row));
}
