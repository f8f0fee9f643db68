//! [`Table`]: rows by key, kept as they change. The operators hold to one promise: a table has at most one row per key.

use super::flow::{self, PackedRows};
use super::group::Groups;
use super::health::ViewStep;
use super::meter::Meter;
use super::packed::{TenantNumber, pack, pack_key, pair, scope_of, unpack, unpack_key};
use super::registry::Registry;
use super::row::Value;
use differential_dataflow::VecCollection;
use std::collections::BTreeSet;
use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::Arc;

/// Reach of a table that keeps each connection's rows to themselves.
#[derive(Clone, Copy, Debug)]
pub enum Connection {}

/// Reach of a table over all connections of an environment. No table reaches over environments.
#[derive(Clone, Copy, Debug)]
pub enum Environment {}

/// Rows by key. Cheap to clone: every operator reads it without using it up.
///
/// A table's rows belong to a connection each, and operators never bring rows of two connections together, unless
/// [`across_connections`](Table::across_connections) says so.
///
/// Functions given to operators must say the same for the same row every time. One that panics leaves out the row in hand;
/// which one, and in which step, is told by the view's [`Health`](super::Health).
pub struct Table<'s, K, V, S = Connection> {
    pub(super) rows: PackedRows<'s>,
    pub(super) about: About,
    pub(super) types: PhantomData<fn() -> (K, V, S)>,
}

/// What a table knows of itself.
#[derive(Clone)]
pub(super) struct About {
    pub step: Rc<ViewStep>,
    pub registry: Arc<Registry>,
    /// The models it is made of.
    pub reads: BTreeSet<usize>,
    /// The source of the first of them.
    pub source: Rc<str>,
}

impl About {
    pub fn then(&self, what: &str, other: Option<&About>) -> About {
        let mut reads = self.reads.clone();
        reads.extend(other.iter().flat_map(|other| &other.reads));
        let step = self.step.then(what, other.map(|other| &other.step));
        About { step, registry: self.registry.clone(), reads, source: self.source.clone() }
    }

    /// Counts what this step arranges by keys that `show` makes text of.
    pub fn meter(&self, show: fn(&[u8]) -> String) -> Meter {
        Meter::new(&self.step, &self.registry, show)
    }
}

impl<K, V, S> Clone for Table<'_, K, V, S> {
    fn clone(&self) -> Self {
        Table { rows: self.rows.clone(), about: self.about.clone(), types: PhantomData }
    }
}

/// A packed key as text, for whoever has to find the row.
pub(super) fn shown<K: Value>(key: &[u8]) -> String {
    unpack_key::<K>(key).and_then(|key| serde_json::to_string(&key).ok()).unwrap_or_default()
}

impl<'s, K: Value, V: Value, S: 'static> Table<'s, K, V, S> {
    pub(super) fn new(rows: PackedRows<'s>, about: About) -> Self {
        Table { rows, about, types: PhantomData }
    }

    /// One row out of one row, or none.
    fn each<K2: Value, V2: Value>(
        &self,
        what: &str,
        code: impl Fn(TenantNumber, &K, &V) -> Option<(Option<K2>, Option<V2>)> + 'static,
    ) -> Table<'s, K2, V2, S> {
        let about = self.about.then(what, None);
        let step = about.step.clone();
        let rows = flow::each(&self.rows, move |key, row| {
            let scope = scope_of(key);
            let (k, v) = (unpack_key::<K>(key)?, unpack::<V>(row)?);
            let (new_key, new_row) = step.run(|| shown::<K>(key), || code(scope, &k, &v)).flatten()?;
            // What stays is not packed again.
            let new_key = new_key.map_or_else(|| Some(key.into()), |new| pack_key(scope, &new))?;
            let new_row = new_row.map_or_else(|| Some(row.into()), |new| pack(&new))?;
            Some((new_key, new_row))
        });
        Table::new(rows, about)
    }

    /// The rows for which `keep` says so.
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/shop.in"));
    /// # fn main() {
    /// let rows = shown(|v| {
    ///     let orders = v.model::<Order>("shop", "Order");
    ///     v.publish("View", &orders.filter(|id, order| id != "2" && order.cents >= 5));
    /// });
    /// let order = |id: &str, customer: &str, cents: i64| json!({"id": id, "customer": customer, "cents": cents});
    /// assert_eq!(rows, [order("1", "ada", 5), order("3", "bob", 300)]);
    /// # }
    /// ```
    pub fn filter(&self, keep: impl Fn(&K, &V) -> bool + 'static) -> Table<'s, K, V, S> {
        self.each("filter", move |_, key, row| keep(key, row).then_some((None, None)))
    }

    /// Other rows under the same keys.
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/shop.in"));
    /// # fn main() {
    /// let rows = shown(|v| {
    ///     let orders = v.model::<Order>("shop", "Order");
    ///     v.publish("View", &orders.map(|_, order| order.cents / 100));
    /// });
    /// // A row that has no names is told as `value`.
    /// assert_eq!(rows, [json!({"id": "1", "value": 0}), json!({"id": "2", "value": 0}), json!({"id": "3", "value": 3})]);
    /// # }
    /// ```
    pub fn map<V2: Value>(&self, to: impl Fn(&K, &V) -> V2 + 'static) -> Table<'s, K, V2, S> {
        self.each("map", move |_, key, row| Some((None, Some(to(key, row)))))
    }

    /// Other rows under the same keys, where `to` gives one.
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/shop.in"));
    /// # fn main() {
    /// let rows = shown(|v| {
    ///     let orders = v.model::<Order>("shop", "Order");
    ///     v.publish("View", &orders.filter_map(|_, order| order.cents.checked_sub(100).filter(|more| *more > 0)));
    /// });
    /// assert_eq!(rows, [json!({"id": "3", "value": 200})]);
    /// # }
    /// ```
    pub fn filter_map<V2: Value>(&self, to: impl Fn(&K, &V) -> Option<V2> + 'static) -> Table<'s, K, V2, S> {
        self.each("filter_map", move |_, key, row| to(key, row).map(|new| (None, Some(new))))
    }

    /// The same rows under other keys. Two rows must not get the same one: a view that publishes such rows is stopped, and
    /// says which key it was.
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/shop.in"));
    /// # fn main() {
    /// let rows = shown(|v| {
    ///     let cents = v.model::<Order>("shop", "Order").map(|_, order| order.cents);
    ///     v.publish("View", &cents.rekey(|id, _| format!("order {id}")));
    /// });
    /// assert_eq!(rows[0], json!({"id": "order 1", "value": 5}));
    ///
    /// // Two orders of one customer cannot both be the customer's: the view is stopped.
    /// let shop = shop(|v| {
    ///     let cents = v.model::<Order>("shop", "Order").rekey(|_, order| order.customer.clone());
    ///     v.publish("View", &cents);
    /// });
    /// assert_eq!(shop.views()[0].health.stopped.as_deref(), Some("more than one row has the key ada"));
    /// # }
    /// ```
    pub fn rekey<K2: Value>(&self, key: impl Fn(&K, &V) -> K2 + 'static) -> Table<'s, K2, V, S> {
        self.each("rekey", move |_, old, row| Some((Some(key(old, row)), None)))
    }

    /// Rows that have a value in common, to be counted and summed up. A window of time is a group as well: see
    /// [`tumbling`](super::tumbling).
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/shop.in"));
    /// # fn main() {
    /// let rows = shown(|v| {
    ///     let orders = v.model::<Order>("shop", "Order");
    ///     v.publish("View", &orders.group_by(|_, order| (order.customer.clone(), order.cents >= 70)).count());
    /// });
    /// assert_eq!(rows.len(), 3);
    /// assert_eq!(rows[0], json!({"id": r#"["ada",false]"#, "value": 1}));
    /// # }
    /// ```
    pub fn group_by<G: Value>(&self, group: impl Fn(&K, &V) -> G + 'static) -> Groups<'s, G, K, V, S> {
        let about = self.about.then("group_by", None);
        Groups::new(self.by(&about, group), about)
    }

    /// The values that rows have, each once, as keys without rows.
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/shop.in"));
    /// # fn main() {
    /// let rows = shown(|v| {
    ///     let orders = v.model::<Order>("shop", "Order");
    ///     v.publish("View", &orders.distinct(|_, order| order.customer.clone()));
    /// });
    /// assert_eq!(rows, [json!({"id": "ada"}), json!({"id": "bob"})]);
    /// # }
    /// ```
    pub fn distinct<D: Value>(&self, value: impl Fn(&K, &V) -> D + 'static) -> Table<'s, D, (), S> {
        self.group_by(value).count().map(|_, _| ())
    }

    /// The rows of both. Where both have a key, a view that publishes them is stopped, and says which key it was.
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/shop.in"));
    /// # fn main() {
    /// let rows = shown(|v| {
    ///     let orders = v.model::<Order>("shop", "Order").map(|_, order| order.cents).rekey(|id, _| format!("order {id}"));
    ///     let customers = v.model::<Customer>("shop", "Customer").map(|_, _| 0);
    ///     v.publish("View", &orders.union(&customers));
    /// });
    /// assert_eq!(rows[..2], [json!({"id": "ada", "value": 0}), json!({"id": "order 1", "value": 5})]);
    /// # }
    /// ```
    pub fn union(&self, other: &Table<'s, K, V, S>) -> Table<'s, K, V, S> {
        let about = self.about.then("union", Some(&other.about));
        Table::new(flow::union(self.rows.clone(), other.rows.clone()), about)
    }

    /// The rows as differential dataflow has them, for any of its operators. Keep the [`Tenant`](super::Tenant) beside the key in all
    /// you do: it is what keeps tenants apart. The way back is [`publish_collection`](super::Views::publish_collection).
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/shop.in"));
    /// # fn main() {
    /// let rows = shown(|v| {
    ///     let orders = v.model::<Order>("shop", "Order");
    ///     let cents = orders.collection().map(|((tenant, _), order)| ((tenant, order.customer), order.cents));
    ///     let most = cents.reduce(|_, cents, out| {
    ///         // In order, each with how often it is there.
    ///         let (most, _) = cents[cents.len() - 1];
    ///         out.push((*most, 1));
    ///     });
    ///     v.publish_collection("View", &orders, most);
    /// });
    /// assert_eq!(rows, [json!({"id": "ada", "value": 70}), json!({"id": "bob", "value": 300})]);
    /// # }
    /// ```
    pub fn collection(&self) -> VecCollection<'s, u64, ((super::Tenant, K), V), isize> {
        self.rows
            .clone()
            .flat_map(|(key, row)| Some(((super::Tenant(scope_of(&key)), unpack_key::<K>(&key)?), unpack::<V>(&row)?)))
    }

    /// Rows under what `key` says of them, each with its own key.
    pub(super) fn by<J: Value>(&self, about: &About, key: impl Fn(&K, &V) -> J + 'static) -> PackedRows<'s> {
        let step = about.step.clone();
        flow::each(&self.rows, move |old, row| {
            let (k, v) = (unpack_key::<K>(old)?, unpack::<V>(row)?);
            let new = step.run(|| shown::<K>(old), || key(&k, &v))?;
            Some((pack_key(scope_of(old), &new)?, pair(old, row)))
        })
    }
}

impl<'s, K: Value, V: Value> Table<'s, K, V, Connection> {
    /// The rows of all connections of an environment together; their keys get the connection's id in front.
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/shop.in"));
    /// # fn main() {
    /// let mut shop = shop(|v| {
    ///     let orders = v.model::<Order>("shop", "Order").across_connections();
    ///     v.publish("View", &orders.group_by(|(connection, _id), _| connection.clone()).count());
    /// });
    /// shop.save("shop", "zenith", "Order", json!({"id": "1", "customer": "eve", "cents": 1}));
    /// shop.commit();
    /// // Its records are of no connection, but of all.
    /// let rows = shop.rows("shop", ALL_CONNECTIONS, "View");
    /// assert_eq!(rows, [json!({"id": "acme", "value": 3}), json!({"id": "zenith", "value": 1})]);
    /// # }
    /// ```
    pub fn across_connections(&self) -> Table<'s, (String, K), V, Environment> {
        let about = self.about.then("across_connections", None);
        let registry = about.registry.clone();
        let rows = flow::each(&self.rows, move |key, row| {
            let (whole, connection) = registry.known().whole(scope_of(key))?;
            let new = (connection.to_string(), unpack_key::<K>(key)?);
            Some((pack_key(whole, &new)?, row.into()))
        });
        Table::new(rows, about)
    }
}
