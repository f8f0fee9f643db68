//! Where views become records: the net rows of an engine time go through the merge that all records take.
//!
//! Promises: a row that is as it was changes nothing, also after a restart, when all rows come anew: then what came no more is
//! deleted. Two rows under one key stop the view, which says which key it was; so do more changes at one engine time than
//! there are places for.

use super::packed::TenantNumber;
use super::registry::Registry;
use crate::dataflow::epochs::each_epoch;
use crate::dataflow::updates::LiveUpdate;
use crate::dataflow::view::{PublishContext, no_rows, push};
use crate::model::content::Key;
use crate::model::{DatasetId, Position};
use crate::state::{DEAD, OF_VIEWS, ObservationRows};
use differential_dataflow::VecCollection;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use timely::dataflow::Stream;

/// Engine times that each epoch keeps free behind it where there are views, so that what one change makes of them has places.
pub const SPAN: u64 = 1 << 4;
/// The same for the first epoch, in which all rows come anew.
pub const FIRST_SPAN: u64 = 1 << 9;

/// A row on its way to its dataset: view, scope, id, JSON text.
pub type Line = ((u32, TenantNumber, String), String);

/// Publishes the rows of all views; in epoch `first` all of them come anew. What comes out are changes in the number of live
/// records by dataset.
pub fn publish<'s>(
    lines: VecCollection<'s, u64, Line, isize>,
    registry: Arc<Registry>,
    first: u64,
    desk: PublishContext,
) -> Stream<'s, u64, Vec<LiveUpdate>> {
    let scope = lines.inner.scope();
    let here = (scope.index() as u64, scope.peers() as u64);
    let route = desk.route();
    // The first epoch is worked off even if it brings no row: then all there were are gone.
    each_epoch(
        lines,
        "Publish",
        move |((_, _, id), _)| route(id),
        Some(first),
        move |epoch, updates| {
            let mut round =
                Round { registry: &registry, desk: &desk, epoch, here, anew: epoch == first, live: Vec::new() };
            round.all(updates);
            let changed = round.live.into_iter().filter(|(_, net)| *net != 0);
            changed.map(|(dataset, net)| (dataset, epoch, net as isize)).collect()
        },
    )
}

/// One engine time on one worker.
struct Round<'a> {
    registry: &'a Registry,
    desk: &'a PublishContext,
    epoch: u64,
    /// The worker's number, and how many there are.
    here: (u64, u64),
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
        let mut by_view: BTreeMap<(u32, TenantNumber), BTreeMap<String, Net>> = BTreeMap::new();
        for (((view, scope, id), json), diff) in updates {
            let net = by_view.entry((view, scope)).or_default().entry(id).or_default();
            match diff {
                1.. => net.rows.extend(std::iter::repeat_n(json, diff.min(2) as usize)),
                _ => net.retracted -= diff,
            }
        }
        let mut written = HashSet::new();
        for ((view, scope), rows) in by_view {
            let dataset = self.registry.known().output(view as usize, scope);
            if let Some(dataset) = dataset {
                self.dataset(view as usize, dataset, rows);
                written.insert(dataset);
            }
        }
        if self.anew {
            let mut all: Vec<(usize, DatasetId)> = self.registry.known().outputs().collect();
            all.retain(|(_, dataset)| !written.contains(dataset));
            all.into_iter().for_each(|(view, dataset)| self.dataset(view, dataset, BTreeMap::new()));
        }
    }

    fn dataset(&mut self, view: usize, dataset: DatasetId, lines: BTreeMap<String, Net>) {
        let Some(name) = self.registry.plan.views.get(view).map(|view| view.name.as_str()) else { return };
        if self.registry.ward.is_stopped(name) {
            return;
        }
        let rows = match self.rows(dataset, lines) {
            Ok(rows) => rows,
            Err(why) => return self.registry.ward.stop(name, why),
        };
        if rows.bytes.len() > u32::MAX as usize {
            let why = format!("its rows at epoch {} have {} bytes, more than 4 GiB", self.epoch, rows.bytes.len());
            return self.registry.ward.stop(name, why);
        }
        let span = if self.anew { FIRST_SPAN } else { SPAN };
        if u64::from(rows.len).saturating_mul(self.here.1) >= span << Position::PLACE_BITS {
            let why =
                format!("{} of its rows changed at epoch {}, more than there are places for", rows.len, self.epoch);
            return self.registry.ward.stop(name, why);
        }
        let (counts, live) = self.desk.merge(rows, self.epoch, self.here);
        self.desk.stage.borrow_mut().part.counts.entry((OF_VIEWS, dataset)).or_default().add(&counts);
        self.live.push((dataset, live));
    }

    /// Net rows as rows of the dataset; the key that has two, if one has.
    fn rows(&self, dataset: DatasetId, lines: BTreeMap<String, Net>) -> Result<ObservationRows, String> {
        let mut tables = self.desk.tables.borrow_mut();
        let table = tables.table(dataset);
        let mut rows = no_rows(dataset);
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
            let mut gone: BTreeMap<u64, Key> = BTreeMap::new();
            table.each(&mut |entry| {
                if !entry.is(DEAD) && !came.contains(&entry.key) {
                    gone.insert(entry.position, entry.key);
                }
            });
            gone.into_values().for_each(|key| push(&mut rows, key, None));
        }
        Ok(rows)
    }
}
