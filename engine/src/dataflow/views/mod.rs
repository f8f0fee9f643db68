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
//! | `define` | [`Views`]: models in, views out |
//! | `table`, `join` | [`Table`] and its operators |
//! | `group`, `aggregate` | [`Groups`], and what is added up over them |
//! | `flow`, `packed` | the differential operators below, over bytes |
//! | `registry` | which datasets are read and written, and whose rows are whose |
//! | `publish` | rows → records |
//! | `health` | what goes wrong, told by view, step and key |
//! | `meter` | what is held in memory, and keys with very many rows |

mod aggregate;
mod define;
mod flow;
mod group;
mod health;
mod join;
mod meter;
mod packed;
mod publish;
mod registry;
mod row;
mod table;

use self::packed::TenantNumber;
use self::publish::Line;
use super::updates::RecordUpdate;
use crate::model::Timestamp;
pub use aggregate::{Aggregate, Aggregates, Average, Count, Sum, average, count, sum};
pub use define::Views;
use differential_dataflow::{AsCollection, VecCollection};
pub use group::Groups;
pub use health::{FAILURES_MOST, Health, Skew, ViewComplaint};
pub use meter::SKEW;
pub(crate) use publish::{FIRST_SPAN, SPAN, publish};
pub use registry::ALL_CONNECTIONS;
pub(crate) use registry::{Registry, View, ViewPlan};
pub use row::{Misfit, Moment, Row, Value, derived};
use std::sync::Arc;
use std::time::Duration;
pub use syncline_derive::Row;
pub use table::{Connection, Environment, Table};
use timely::dataflow::Stream;

/// Whose row it is: rows of different tenants must never come together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct Tenant(TenantNumber);

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
    pub(crate) fn plan(&self) -> Result<ViewPlan, String> {
        let definition = self.clone();
        let planned = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            timely::execute_directly(move |worker| {
                worker.dataflow::<u64, _, _>(|scope| {
                    let nothing = timely::dataflow::operators::generic::operator::empty(scope);
                    let mut views = Views::new(nothing, Arc::new(Registry::new(ViewPlan::default())));
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
        let mut views = Views::new(records, registry);
        (self.0)(&mut views);
        let nothing = views.nothing.as_collection().flat_map(|_| None::<Line>);
        nothing.concatenate(views.lines)
    }
}

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
