//! Views: what a program derives from synced records, kept as they change, and published as models like any other.
//!
//! ```text
//! model ──► Table ──► filter, map, lookup, join, group_by … ──► Table ──► publish ──► a dataset of its own
//! ```
//!
//! A [`Definition`] says once what is derived; every worker builds it. Rows travel packed (`packed`), so the operators
//! (`flow`) are compiled once; the types of a program stand at the edge alone (`table`, `group`). Views keep nothing of their
//! own on disk: at every start all rows come anew from the records, and publishing them again changes only what is not as it
//! was (`publish`). So new code makes exactly the difference, and a restart makes none.
//!
//! The examples below stand on a shop with the orders 1 (ada, 5 cents), 2 (ada, 70) and 3 (bob, 300), and the customer ada;
//! `shown` gives the rows of the view `View`.
//!
//! | file | what |
//! |---|---|
//! | `row` | a record's fields as a struct: [`Row`] |
//! | `table`, `group` | [`Table`], [`Groups`] and their operators |
//! | `flow`, `packed` | the differential operators below, over bytes |
//! | `registry` | which datasets are read and written, and whose rows are whose |
//! | `publish` | rows → records |
//! | `health` | what goes wrong, told by view, step and key |
//! | `meter` | what is held in memory, and keys with very many rows |

mod flow;
mod group;
mod health;
mod meter;
mod packed;
mod publish;
mod registry;
mod row;
mod table;

use self::flow::Rows;
use self::packed::{Bytes, Scope, pack, pack_key, scope_of, unpack, unpack_key};
use self::publish::Line;
use self::table::{About, shown};
use super::view::RecordUpdate;
use crate::model::{Timestamp, id_of, is_model, record_id};
use crate::state::Seen;
use differential_dataflow::{AsCollection, VecCollection};
pub use group::{Aggregate, Aggregates, Average, Count, Groups, Sum, average, count, sum};
use health::Step;
pub use health::{Complaint, FAILURES_MOST, Health, Skew};
pub use meter::SKEW;
pub(crate) use publish::{FIRST_SPAN, SPAN, publish};
pub use registry::ALL_CONNECTIONS;
pub(crate) use registry::{Model, Plan, Registry, View};
pub use row::{Misfit, Moment, Row, Value, derived};
use std::collections::BTreeSet;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;
pub use syncline_derive::Row;
pub use table::{Connection, Environment, Table};
use timely::dataflow::Stream;
use timely::dataflow::operators::vec::Partition;

/// Whose row it is: rows of different tenants must never come together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct Tenant(Scope);

/// What a program derives.
///
/// ```
/// # use syncline_engine::views::{Definition, Row};
/// #[derive(Row, Clone)]
/// # #[row(crate = syncline_engine)]
/// struct Issue {
///     assignee: Option<String>,
///     state: String,
/// }
///
/// #[derive(Row, Clone)]
/// # #[row(crate = syncline_engine)]
/// struct Workload {
///     open: u64,
/// }
///
/// let views = Definition::new(|v| {
///     let issues = v.model::<Issue>("github", "Issue");
///     let open = issues.filter(|_, issue| issue.state == "open");
///     let workload = open.group_by(|_, issue| issue.assignee.clone().unwrap_or("nobody".to_owned())).count();
///     v.publish("OpenIssues", &workload.map(|_, open| Workload { open: *open }));
/// });
/// ```
#[derive(Clone)]
pub struct Definition(Arc<dyn for<'s> Fn(&mut Views<'s>) + Send + Sync>);

impl std::fmt::Debug for Definition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Definition")
    }
}

impl Definition {
    /// What `build` derives. It is called on every worker, and must say the same each time.
    pub fn new(build: impl for<'s> Fn(&mut Views<'s>) + Send + Sync + 'static) -> Definition {
        Definition(Arc::new(build))
    }

    /// What it reads and publishes; why it cannot be, if it cannot.
    pub(crate) fn plan(&self) -> Result<Plan, String> {
        let definition = self.clone();
        let planned = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            timely::execute_directly(move |worker| {
                worker.dataflow::<u64, _, _>(|scope| {
                    let nothing = timely::dataflow::operators::generic::operator::empty(scope);
                    let mut views = Views::new(nothing, Arc::new(Registry::new(Plan::default())));
                    (definition.0)(&mut views);
                    if views.wrong.is_empty() { Ok(views.plan) } else { Err(views.wrong.join("; ")) }
                })
            })
        }));
        planned.unwrap_or_else(|_| Err("the code that defines the views panicked; its message stands above".to_owned()))
    }

    /// The lines of all views, from the records of the models they read.
    pub(crate) fn lines<'s>(
        &self,
        records: Stream<'s, u64, Vec<RecordUpdate>>,
        registry: Arc<Registry>,
    ) -> VecCollection<'s, u64, Line, isize> {
        let mut views = Views::new(records.clone(), registry);
        (self.0)(&mut views);
        let nothing = records.as_collection().flat_map(|_| None::<Line>);
        nothing.concatenate(views.lines)
    }
}

/// A record of a model, and its scope.
type Record = (Scope, Seen);

/// Where a definition finds the models and leaves the views.
pub struct Views<'s> {
    /// By model; empty while the plan is made.
    records: Vec<Stream<'s, u64, Vec<(Record, u64, isize)>>>,
    nothing: Stream<'s, u64, Vec<(Record, u64, isize)>>,
    registry: Arc<Registry>,
    plan: Plan,
    lines: Vec<VecCollection<'s, u64, Line, isize>>,
    wrong: Vec<String>,
}

impl<'s> Views<'s> {
    fn new(records: Stream<'s, u64, Vec<RecordUpdate>>, registry: Arc<Registry>) -> Views<'s> {
        let models = registry.plan.models.len();
        let known = registry.clone();
        let route = move |(((dataset, _), seen), time, diff): RecordUpdate| {
            let (model, scope) = known.known().model(dataset).unwrap_or((models, 0));
            (model as u64, ((scope, seen), time, diff))
        };
        let mut records = records.partition(models as u64 + 1, route);
        // The last part is that of no model: empty.
        let nothing = records.remove(models);
        Views { records, nothing, registry, plan: Plan::default(), lines: Vec::new(), wrong: Vec::new() }
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
        let model = Model { source: source.to_owned(), name: name.to_owned() };
        let number = self.plan.models.iter().position(|known| *known == model).unwrap_or_else(|| {
            self.plan.models.push(model);
            self.plan.models.len() - 1
        });
        let step = Step::first(format!("model {source}/{name}"), self.registry.ward.clone());
        let records = self.records.get(number).unwrap_or(&self.nothing).clone();
        let reading = step.clone();
        let rows = records.as_collection().flat_map(move |(scope, Seen { payload, modified_at })| {
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
        let rows: Rows<'s> = rows.flat_map(|((tenant, key), row)| Some((pack_key(tenant.0, &key)?, pack(&row)?)));
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

/// How far a table reaches: over one connection, or over all of an environment.
pub trait Reach: 'static {
    /// Whether its rows are those of all connections.
    const ACROSS: bool;
}

impl Reach for Connection {
    const ACROSS: bool = false;
}

impl Reach for Environment {
    const ACROSS: bool = true;
}

/// The start of the window of `span` that `at` lies in; windows follow each other from 1970 on. As part of a group it makes
/// counts and sums by window.
///
/// ```
/// use std::time::Duration;
/// use syncline_engine::{model::Timestamp, views::tumbling};
/// let hour = Duration::from_secs(3_600);
/// let at = Timestamp::parse("2026-03-01T10:59:59Z").unwrap();
/// assert_eq!(tumbling(at, hour), Timestamp::parse("2026-03-01T10:00:00Z").unwrap());
/// // Before 1970 as well: windows are closed at their start.
/// assert_eq!(tumbling(Timestamp(-1), hour), Timestamp::from_seconds(-3_600));
/// ```
///
/// The time may be the record's own:
///
/// ```
/// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/shop.in"));
/// # fn main() {
/// #[derive(Row, Clone)]
/// # #[row(crate = syncline_engine)]
/// struct Visit {
///     #[row(modified_at)]
///     at: Timestamp,
/// }
///
/// let mut shop = shop(|v| {
///     let visits = v.model::<Visit>("shop", "Visit");
///     let days = visits.group_by(|_, visit| tumbling(visit.at, Duration::from_secs(86_400)).to_string());
///     v.publish("Days", &days.count());
/// });
/// for (id, at) in [("1", "2026-03-01T09:00:00Z"), ("2", "2026-03-01T23:00:00Z"), ("3", "2026-03-02T00:00:00Z")] {
///     shop.save_modified("shop", "acme", "Visit", json!({"id": id}), Timestamp::parse(at).unwrap());
/// }
/// shop.commit();
/// assert_eq!(shop.rows("shop", "acme", "Days")[0], json!({"id": "2026-03-01T00:00:00.000000Z", "value": 2}));
/// # }
/// ```
pub fn tumbling(at: Timestamp, span: Duration) -> Timestamp {
    let span = i64::try_from(span.as_micros()).unwrap_or(i64::MAX).max(1);
    Timestamp(at.0.div_euclid(span).saturating_mul(span))
}

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
