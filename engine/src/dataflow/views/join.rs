//! Tables that come together: each row with the one it refers to, rows with a value in common.

use super::flow;
use super::health::ViewStep;
use super::packed::{Bytes, Pair, pack, pack_key, scope_of, unpack};
use super::row::Value;
use super::table::{Table, shown};
use std::rc::Rc;

impl<'s, K: Value, V: Value, S: 'static> Table<'s, K, V, S> {
    /// Each row with the row it refers to (n:1): `key` says which of `other` that is. Rows that refer to none are left out.
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/shop.in"));
    /// # fn main() {
    /// let rows = shown(|v| {
    ///     let (orders, customers) = (v.model::<Order>("shop", "Order"), v.model::<Customer>("shop", "Customer"));
    ///     let names = orders.lookup(&customers, |_, order| order.customer.clone(), |_, _, customer| customer.name.clone());
    ///     v.publish("View", &names);
    /// });
    /// // There is no customer bob.
    /// assert_eq!(rows, [json!({"id": "1", "value": "Ada"}), json!({"id": "2", "value": "Ada"})]);
    /// # }
    /// ```
    pub fn lookup<K2: Value, V2: Value, V3: Value>(
        &self,
        other: &Table<'s, K2, V2, S>,
        key: impl Fn(&K, &V) -> K2 + 'static,
        with: impl Fn(&K, &V, &V2) -> V3 + 'static,
    ) -> Table<'s, K, V3, S> {
        let about = self.about.then("lookup", Some(&other.about));
        let by_key = self.by(&about, key);
        let meter = about.meter(shown::<K2>);
        let rows = flow::join(by_key, other.rows.clone(), &meter, found(about.step.clone(), with));
        Table::new(rows, about)
    }

    /// The same, but rows that refer to none are kept, with `None`.
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/shop.in"));
    /// # fn main() {
    /// let rows = shown(|v| {
    ///     let (orders, customers) = (v.model::<Order>("shop", "Order"), v.model::<Customer>("shop", "Customer"));
    ///     let of = |_: &String, order: &Order| order.customer.clone();
    ///     v.publish("View", &orders.lookup_or_none(&customers, of, |_, _, customer| customer.is_some()));
    /// });
    /// assert_eq!(rows[1..], [json!({"id": "2", "value": true}), json!({"id": "3", "value": false})]);
    /// # }
    /// ```
    pub fn lookup_or_none<K2: Value, V2: Value, V3: Value>(
        &self,
        other: &Table<'s, K2, V2, S>,
        key: impl Fn(&K, &V) -> K2 + 'static,
        with: impl Fn(&K, &V, Option<&V2>) -> V3 + 'static,
    ) -> Table<'s, K, V3, S> {
        let about = self.about.then("lookup", Some(&other.about));
        let by_key = self.by(&about, key);
        let with = Rc::new(with);
        let some = with.clone();
        let some = found(about.step.clone(), move |key: &K, row: &V, other: &V2| some(key, row, Some(other)));
        let meter = about.meter(shown::<K2>);
        let (rows, alone) = flow::join_or_alone(by_key, other.rows.clone(), &meter, some);
        let step = about.step.clone();
        let alone = flow::each(&alone, move |under, pair| {
            let pair = Pair::<K, V>::read(pair)?;
            let new = step.run(|| pair.shown(), || with(&pair.key, &pair.row, None))?;
            Some((pair.packed_key(under), pack(&new)?))
        });
        Table::new(flow::union(rows, alone), about)
    }

    /// Rows of both that have a value in common (n:m); the keys are pairs.
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/shop.in"));
    /// # fn main() {
    /// let rows = shown(|v| {
    ///     let orders = v.model::<Order>("shop", "Order");
    ///     let of = |_: &String, order: &Order| order.customer.clone();
    ///     let pairs = orders.join(&orders, of, of, |one, other| other.cents - one.cents);
    ///     v.publish("View", &pairs.filter(|(one, other), _| one < other));
    /// });
    /// // A key of several values is told as a JSON list.
    /// assert_eq!(rows, [json!({"id": r#"["1","2"]"#, "value": 65})]);
    /// # }
    /// ```
    pub fn join<K2: Value, V2: Value, J: Value, V3: Value>(
        &self,
        other: &Table<'s, K2, V2, S>,
        mine: impl Fn(&K, &V) -> J + 'static,
        theirs: impl Fn(&K2, &V2) -> J + 'static,
        with: impl Fn(&V, &V2) -> V3 + 'static,
    ) -> Table<'s, (K, K2), V3, S> {
        let about = self.about.then("join", Some(&other.about));
        let (left, right) = (self.by(&about, mine), other.by(&about, theirs));
        let step = about.step.clone();
        let rows = flow::join(left, right, &about.meter(shown::<J>), move |under, left, right| {
            let (left, right) = (Pair::<K, V>::read(left)?, Pair::<K2, V2>::read(right)?);
            let key = pack_key(scope_of(under), &(left.key, right.key))?;
            let row = step.run(|| shown::<(K, K2)>(&key), || with(&left.row, &right.row))?;
            Some((key, pack(&row)?))
        });
        Table::new(rows, about)
    }
}

/// What a lookup makes of a row and the one it refers to.
fn found<K: Value, V: Value, V2: Value, V3: Value>(
    step: Rc<ViewStep>,
    with: impl Fn(&K, &V, &V2) -> V3 + 'static,
) -> impl Fn(&[u8], &[u8], &[u8]) -> Option<(Bytes, Bytes)> + 'static {
    move |under, pair, other| {
        let (pair, other) = (Pair::<K, V>::read(pair)?, unpack::<V2>(other)?);
        let new = step.run(|| pair.shown(), || with(&pair.key, &pair.row, &other))?;
        Some((pair.packed_key(under), pack(&new)?))
    }
}
