//! [`Views`]: where a definition finds the models and leaves the views, and how a row becomes a record.

use super::flow::PackedRows;
use super::health::ViewStep;
use super::packed::{Bytes, TenantNumber, pack, pack_key, scope_of, unpack, unpack_key};
use super::publish::Line;
use super::registry::{Model, Registry, View, ViewPlan};
use super::row::{Row, Value};
use super::table::{About, Table, shown};
use super::{Reach, Tenant};
use crate::dataflow::updates::RecordUpdate;
use crate::model::{Timestamp, id_of, is_model, record_id};
use crate::state::SeenRecord;
use differential_dataflow::{AsCollection, VecCollection};
use std::collections::BTreeSet;
use std::marker::PhantomData;
use std::sync::Arc;
use timely::dataflow::Stream;
use timely::dataflow::operators::vec::Partition;

/// A record of a model, and its scope.
type ScopedRecord = (TenantNumber, SeenRecord);

/// Where a definition finds the models and leaves the views.
pub struct Views<'s> {
    /// By model; empty while the plan is made.
    records: Vec<Stream<'s, u64, Vec<(ScopedRecord, u64, isize)>>>,
    /// Records of no model: none, but it keeps the time of all.
    pub(super) nothing: Stream<'s, u64, Vec<(ScopedRecord, u64, isize)>>,
    registry: Arc<Registry>,
    pub(super) plan: ViewPlan,
    pub(super) lines: Vec<VecCollection<'s, u64, Line, isize>>,
    pub(super) wrong: Vec<String>,
}

impl<'s> Views<'s> {
    pub(super) fn new(records: Stream<'s, u64, Vec<RecordUpdate>>, registry: Arc<Registry>) -> Views<'s> {
        let models = registry.plan.models.len();
        let known = registry.clone();
        let route = move |(((dataset, _), seen), time, diff): RecordUpdate| {
            let (model, scope) = known.known().model(dataset).unwrap_or((models, 0));
            (model as u64, ((scope, seen), time, diff))
        };
        let mut records = records.partition(models as u64 + 1, route);
        // The last part is that of no model: empty.
        let nothing = records.remove(models);
        Views { records, nothing, registry, plan: ViewPlan::default(), lines: Vec::new(), wrong: Vec::new() }
    }

    /// The records of a model in all connections of a source, by id. Records that the row type does not fit are left out and
    /// told of.
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/shop.in"));
    /// # fn main() {
    /// let mut shop = shop(|v| {
    ///     let orders = v.model::<Order>("shop", "Order");
    ///     v.publish("View", &orders.map(|_, order| order.cents));
    /// });
    /// shop.save("shop", "acme", "Order", json!({"id": "4", "customer": "eve", "cents": "seven"}));
    /// shop.commit();
    /// let view = &shop.views()[0].health;
    /// assert_eq!((view.misfits, view.complaints[0].key.as_str()), (1, "4"));
    /// assert!(view.complaints[0].what.starts_with("cents: invalid type: string"));
    /// # }
    /// ```
    pub fn model<R: Row>(&mut self, source: &str, name: &str) -> Table<'s, String, R> {
        if self.plan.views.iter().any(|view| view.name == name && view.source == source) {
            self.wrong.push(format!("model {source}/{name} is a view; go on from the table that it publishes"));
        }
        let model = Model { source: source.to_owned(), name: name.to_owned() };
        let number = self.plan.models.iter().position(|known| *known == model).unwrap_or_else(|| {
            self.plan.models.push(model);
            self.plan.models.len() - 1
        });
        let step = ViewStep::first(format!("model {source}/{name}"), self.registry.ward.clone());
        let records = self.records.get(number).unwrap_or(&self.nothing).clone();
        let reading = step.clone();
        let rows = records.as_collection().flat_map(move |(scope, SeenRecord { payload, modified_at })| {
            let id = id_of(&payload)?.into_owned();
            let modified_at = (modified_at != Timestamp::NONE).then_some(modified_at);
            match reading.run(|| id.clone(), || R::project(&payload, modified_at))? {
                Ok(row) => Some((pack_key(scope, &id)?, pack(&row)?)),
                Err(misfit) => {
                    reading.misfit(id, misfit.to_string());
                    None
                }
            }
        });
        let about =
            About { step, registry: self.registry.clone(), reads: BTreeSet::from([number]), source: source.into() };
        Table::new(rows, about)
    }

    /// Publishes a table as a model of the source its first model is of: one record per row. The record's id is the key
    /// (several values make a JSON list), its fields are the row's; a row without names is told as `value`.
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/shop.in"));
    /// # fn main() {
    /// let mut shop = shop(|v| {
    ///     let orders = v.model::<Order>("shop", "Order");
    ///     v.publish("View", &orders.group_by(|_, order| order.customer.clone()).sum(|_, order| order.cents));
    /// });
    /// shop.changes("shop", "acme", "View");
    /// shop.delete("shop", "acme", "Order", "3");
    /// shop.commit();
    /// assert_eq!(shop.changes("shop", "acme", "View"), [("DELETED", json!({"id": "bob", "value": 300}))]);
    /// # }
    /// ```
    pub fn publish<K: Value, V: Value, S: Reach>(&mut self, name: &str, table: &Table<'s, K, V, S>) {
        self.announce(name, &table.about, S::ACROSS);
        table.about.step.belongs_to(name);
        let (view, step) = (self.plan.views.len() as u32 - 1, table.about.step.clone());
        self.lines.push(table.rows.clone().flat_map(move |(key, row)| {
            let line = step.run(|| shown::<K>(&key), || line::<K, V>(&key, &row))?;
            match line {
                Ok((id, json)) => Some(((view, scope_of(&key), id), json)),
                Err(why) => {
                    step.misfit(shown::<K>(&key), why);
                    None
                }
            }
        }));
    }

    /// Publishes what differential operators made, as [`publish`](Views::publish) does. At most one row per key: two stop
    /// the view, which says which key it was. `of` is one of the tables it was made of: the view belongs to its source. See
    /// [`Table::collection`] for an example.
    pub fn publish_collection<K: Value, V: Value, K0, V0, S: Reach>(
        &mut self,
        name: &str,
        of: &Table<'s, K0, V0, S>,
        rows: VecCollection<'s, u64, ((Tenant, K), V), isize>,
    ) {
        let rows: PackedRows<'s> = rows.flat_map(|((tenant, key), row)| Some((pack_key(tenant.0, &key)?, pack(&row)?)));
        // Which models it reads cannot be seen: it may be any that were asked for.
        let mut about = of.about.then("collection", None);
        about.reads.extend(0..self.plan.models.len());
        self.publish(name, &Table::<K, V, S> { rows, about, types: PhantomData });
    }

    fn announce(&mut self, name: &str, about: &About, across: bool) {
        if !is_model(name) || name.len() > NAME_MOST {
            let rule = "a capital letter, then 1 to 99 letters, digits, _ and -";
            self.wrong.push(format!("`{name}` cannot be a view's name, which is a model's: {rule}"));
        }
        if self.plan.views.iter().any(|view| view.name == name) {
            self.wrong.push(format!("two views are named {name}"));
        }
        if self.plan.models.iter().any(|model| model.name == name && *model.source == *about.source) {
            self.wrong.push(format!("view {name} has the name of a model that it reads"));
        }
        let (name, source) = (name.to_owned(), about.source.to_string());
        self.plan.views.push(View { name, source, across, reads: about.reads.clone() });
    }
}

/// Longest name of a view, in bytes.
const NAME_MOST: usize = 100;

/// The id and the JSON text of a row, or why there is none.
fn line<K: Value, V: Value>(key: &Bytes, row: &Bytes) -> Result<(String, String), String> {
    let unread = || "it cannot be packed and read again".to_owned();
    let key = serde_json::to_value(unpack_key::<K>(key).ok_or_else(unread)?).map_err(|e| format!("its key: {e}"))?;
    let row = serde_json::to_value(unpack::<V>(row).ok_or_else(unread)?).map_err(|e| e.to_string())?;
    let id = match &key {
        serde_json::Value::Array(_) => key.to_string(),
        key => record_id(key).map_err(|e| format!("its key is no id: {e}"))?,
    };
    let mut record = serde_json::Map::from_iter([("id".to_owned(), id.as_str().into())]);
    match row {
        serde_json::Value::Object(fields) => record.extend(fields.into_iter().filter(|(name, _)| name != "id")),
        serde_json::Value::Null => {}
        value => drop(record.insert("value".to_owned(), value)),
    }
    let json = serde_json::to_string(&record).map_err(|e| e.to_string())?;
    Ok((id, json))
}
