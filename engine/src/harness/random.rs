//! Random histories: what is kept up over one must equal what is made from its last records alone.

use super::{ENVIRONMENT, Harness};
use crate::model::{DatasetName, Timestamp};
use crate::views::Definition;
use rand::{Rng, RngCore, SeedableRng};
use serde_json::Value;
use std::collections::BTreeMap;

/// Records of a model as a random history has them.
pub struct Random {
    source: &'static str,
    model: &'static str,
    ids: u64,
    record: fn(id: &str, chance: &mut dyn RngCore) -> Value,
    modified_at: fn(&Value) -> Option<Timestamp>,
}

impl Random {
    /// Records of `model` of `source`: ids are numbers below `ids`, `record` makes one of an id, by chance.
    pub const fn new(
        source: &'static str,
        model: &'static str,
        ids: u64,
        record: fn(id: &str, chance: &mut dyn RngCore) -> Value,
    ) -> Random {
        Random { source, model, ids, record, modified_at: |_| None }
    }

    /// The same with a modified time, which has to follow from the record: a new time alone makes no change.
    pub const fn modified(self, at: fn(&Value) -> Option<Timestamp>) -> Random {
        Random { modified_at: at, ..self }
    }

    fn save(&self, into: &mut Harness, connection: &str, record: &Value) {
        into.put(self.source, connection, self.model, record.clone(), (self.modified_at)(record));
    }
}

/// Checks views over random histories of `models` in two connections: after every few commits, what was kept up must equal
/// what is made from the last records alone, and a restart must change nothing. Panics with the seed where it does not.
///
/// ```
/// use rand::Rng;
/// use serde_json::json;
/// use syncline_engine::{harness::{Random, check_incremental}, views::{Definition, Row}};
///
/// #[derive(Row, Clone)]
/// # #[row(crate = syncline_engine)]
/// struct Order { region: String, cents: i64 }
///
/// let views = Definition::new(|v| {
///     let orders = v.model::<Order>("shop", "Order");
///     v.publish("Turnover", &orders.group_by(|_, o| o.region.clone()).sum(|_, o| o.cents));
/// });
/// let orders = Random::new("shop", "Order", 20, |id, chance| {
///     json!({"id": id, "region": (["north", "south"])[chance.random_range(0..2)], "cents": chance.random_range(0..9)})
/// });
/// check_incremental(&views, 1, &[orders]);
/// ```
pub fn check_incremental(views: &Definition, seed: u64, models: &[Random]) {
    println!("SEED={seed}");
    let mut chance = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
    let mut kept = Harness::with_workers(views.clone(), 1 + (seed % 2) as usize);
    let mut truth: BTreeMap<(usize, &str, String), Value> = BTreeMap::new();
    for round in 0..60 {
        for _ in 0..chance.random_range(0..8) {
            let number = chance.random_range(0..models.len());
            let random @ Random { source, model, ids, record, .. } = &models[number];
            let connection = ["one", "two"][chance.random_range(0..2)];
            let id = chance.random_range(0..*ids).to_string();
            let key = (number, connection, id.clone());
            if chance.random_bool(0.75) {
                let record = record(&id, &mut chance);
                random.save(&mut kept, connection, &record);
                truth.insert(key, record);
            } else {
                kept.delete(source, connection, model, &id);
                truth.remove(&key);
            }
        }
        kept.commit();
        let restart = chance.random_bool(0.1);
        if restart {
            let before = everything(&mut kept);
            kept.restart(None);
            assert_eq!(everything(&mut kept), before, "SEED={seed} round {round}: a restart changes nothing");
        }
        if round % 6 == 5 {
            let mut fresh = Harness::new(views.clone());
            for ((number, connection, _), record) in &truth {
                models[*number].save(&mut fresh, connection, record);
            }
            fresh.commit();
            assert_eq!(all_rows(&kept), all_rows(&fresh), "SEED={seed} round {round}: kept up, and made from scratch");
        }
    }
    let stopped: Vec<_> = kept.views().into_iter().filter(|view| view.health.stopped.is_some()).collect();
    assert!(stopped.is_empty(), "SEED={seed}: {stopped:?}");
}

/// All rows of all views.
fn all_rows(harness: &Harness) -> BTreeMap<String, Vec<Value>> {
    let mut all = BTreeMap::new();
    for view in harness.views() {
        for connection in ["one", "two", crate::views::ALL_CONNECTIONS] {
            let rows = harness.rows(&view.source, connection, &view.name);
            if !rows.is_empty() {
                all.insert(format!("{} of {connection}", view.name), rows);
            }
        }
    }
    all
}

/// All rows, and the place of the last change of each view.
fn everything(harness: &mut Harness) -> (BTreeMap<String, Vec<Value>>, Vec<usize>) {
    let mut counts = Vec::new();
    for view in harness.views() {
        for connection in ["one", "two", crate::views::ALL_CONNECTIONS] {
            let name = DatasetName::base(ENVIRONMENT, &view.source, connection, &view.name);
            harness.read.remove(&name);
            let mut count = 0;
            loop {
                let more = harness.changes(&view.source, connection, &view.name).len();
                count += more;
                if more == 0 {
                    break;
                }
            }
            counts.push(count);
        }
    }
    (all_rows(harness), counts)
}
