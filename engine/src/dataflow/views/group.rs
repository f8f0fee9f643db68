//! Groups of rows, and what is made of them: counts and sums, which cost the same however large a group is; least, greatest
//! and the first few by some order, which cost a little more for each power of 64.

use super::aggregate::{Aggregates, average, count, sum};
use super::flow::{self, PackedRows};
use super::packed::{Bytes, Pair, pack, pack_key, scope_of, unpack, unpack_key};
use super::row::Value;
use super::table::{About, Table, shown};
use std::marker::PhantomData;
use std::rc::Rc;

/// Rows of a table by group. Made by [`Table::group_by`].
pub struct Groups<'s, G, K, V, S> {
    /// Under the group: pairs of key and row.
    rows: PackedRows<'s>,
    about: About,
    types: PhantomData<fn() -> (G, K, V, S)>,
}

impl<'s, G: Value, K: Value, V: Value, S: 'static> Groups<'s, G, K, V, S> {
    pub(super) fn new(rows: PackedRows<'s>, about: About) -> Self {
        Groups { rows, about, types: PhantomData }
    }

    /// One row per group that has any: several aggregates as a tuple.
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/shop.in"));
    /// # fn main() {
    /// let rows = shown(|v| {
    ///     let orders = v.model::<Order>("shop", "Order");
    ///     let by_customer = orders.group_by(|_, order| order.customer.clone());
    ///     v.publish("View", &by_customer.agg((count(), sum(|_, o: &Order| o.cents), average(|_, o: &Order| o.cents))));
    /// });
    /// assert_eq!(rows[0], json!({"id": "ada", "value": [2, 75, 37.5]}));
    /// # }
    /// ```
    pub fn agg<A: Aggregates<K, V>>(&self, aggregates: A) -> Table<'s, G, A::Out, S> {
        let about = self.about.then("agg", None);
        let aggregates = Rc::new(aggregates);
        let (step, weighing) = (about.step.clone(), aggregates.clone());
        let totals = flow::totals(self.rows.clone(), &about.meter(shown::<G>), move |pair| {
            let pair = Pair::<K, V>::read(pair)?;
            step.run(|| pair.shown(), || weighing.weigh(&pair.key, &pair.row))
        });
        let rows = totals.flat_map(move |(group, sums)| {
            let (rows, sums) = sums.split_first()?;
            Some((group, pack(&aggregates.finish(*rows, sums)?)?))
        });
        Table::new(rows, about)
    }

    /// How many rows each group has.
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/shop.in"));
    /// # fn main() {
    /// let rows = shown(|v| {
    ///     let orders = v.model::<Order>("shop", "Order");
    ///     let by_customer = orders.group_by(|_, order| order.customer.clone());
    ///     v.publish("View", &by_customer.count());
    /// });
    /// assert_eq!(rows, [json!({"id": "ada", "value": 2}), json!({"id": "bob", "value": 1})]);
    /// # }
    /// ```
    pub fn count(&self) -> Table<'s, G, u64, S> {
        self.agg((count(),)).map(|_, (count,)| *count)
    }

    /// The sum of what `of` says of each row.
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/shop.in"));
    /// # fn main() {
    /// let rows = shown(|v| {
    ///     let orders = v.model::<Order>("shop", "Order");
    ///     let by_customer = orders.group_by(|_, order| order.customer.clone());
    ///     v.publish("View", &by_customer.sum(|_, order| order.cents));
    /// });
    /// assert_eq!(rows, [json!({"id": "ada", "value": 75}), json!({"id": "bob", "value": 300})]);
    /// # }
    /// ```
    pub fn sum<N: Into<i128> + 'static>(&self, of: impl Fn(&K, &V) -> N + 'static) -> Table<'s, G, i64, S> {
        self.agg((sum(of),)).map(|_, (sum,)| *sum)
    }

    /// The mean of what `of` says of each row.
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/shop.in"));
    /// # fn main() {
    /// let rows = shown(|v| {
    ///     let orders = v.model::<Order>("shop", "Order");
    ///     let by_customer = orders.group_by(|_, order| order.customer.clone());
    ///     v.publish("View", &by_customer.average(|_, order| order.cents));
    /// });
    /// assert_eq!(rows[0], json!({"id": "ada", "value": 37.5}));
    /// # }
    /// ```
    pub fn average<N: Into<i128> + 'static>(&self, of: impl Fn(&K, &V) -> N + 'static) -> Table<'s, G, f64, S> {
        self.agg((average(of),)).map(|_, (average,)| *average)
    }

    /// The least of what `of` says of the rows.
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/shop.in"));
    /// # fn main() {
    /// let rows = shown(|v| {
    ///     let orders = v.model::<Order>("shop", "Order");
    ///     let by_customer = orders.group_by(|_, order| order.customer.clone());
    ///     v.publish("View", &by_customer.min(|_, order| order.cents));
    /// });
    /// assert_eq!(rows[0], json!({"id": "ada", "value": 5}));
    /// # }
    /// ```
    pub fn min<T: Value + Ord>(&self, of: impl Fn(&K, &V) -> T + 'static) -> Table<'s, G, T, S> {
        self.extreme("min", of, |values| values.into_iter().min())
    }

    /// The greatest of what `of` says of the rows.
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/shop.in"));
    /// # fn main() {
    /// let rows = shown(|v| {
    ///     let orders = v.model::<Order>("shop", "Order");
    ///     let by_customer = orders.group_by(|_, order| order.customer.clone());
    ///     v.publish("View", &by_customer.max(|id, order| (order.cents, id.clone())));
    /// });
    /// assert_eq!(rows[0], json!({"id": "ada", "value": [70, "2"]}));
    /// # }
    /// ```
    pub fn max<T: Value + Ord>(&self, of: impl Fn(&K, &V) -> T + 'static) -> Table<'s, G, T, S> {
        self.extreme("max", of, |values| values.into_iter().max())
    }

    fn extreme<T: Value + Ord>(
        &self,
        what: &str,
        of: impl Fn(&K, &V) -> T + 'static,
        choose: impl Fn(Vec<T>) -> Option<T> + 'static,
    ) -> Table<'s, G, T, S> {
        let about = self.about.then(what, None);
        let step = about.step.clone();
        let values = flow::each(&self.rows, move |group, pair| {
            let pair = Pair::<K, V>::read(pair)?;
            Some((group.into(), pack(&step.run(|| pair.shown(), || of(&pair.key, &pair.row))?)?))
        });
        let rows = flow::tournament(values, &about.meter(shown::<G>), move |rows| {
            let chosen = choose(rows.iter().filter_map(|row| unpack::<T>(row)).collect());
            chosen.as_ref().and_then(pack).into_iter().collect()
        });
        Table::new(rows, about)
    }

    /// The first `k` rows of each group in order of what `by` says of them, the least first (see [`std::cmp::Reverse`]), under
    /// group and rank, which counts from 1. Rows that are equal in it come in the order of their packed keys.
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/shop.in"));
    /// # fn main() {
    /// let rows = shown(|v| {
    ///     let orders = v.model::<Order>("shop", "Order");
    ///     let largest = orders.group_by(|_, _| "all".to_owned()).top_k(2, |_, order| Reverse(order.cents));
    ///     v.publish("View", &largest.map(|(_, _rank), (id, _)| id.clone()));
    /// });
    /// assert_eq!(rows, [json!({"id": r#"["all",1]"#, "value": "3"}), json!({"id": r#"["all",2]"#, "value": "2"})]);
    /// # }
    /// ```
    pub fn top_k<O: Ord>(&self, k: usize, by: impl Fn(&K, &V) -> O + 'static) -> Table<'s, (G, u32), (K, V), S> {
        let about = self.about.then("top_k", None);
        let step = about.step.clone();
        let first = Rc::new(move |rows: &[&Bytes]| {
            let order = |pair: &Bytes| {
                let pair = Pair::<K, V>::read(pair)?;
                step.run(|| pair.shown(), || by(&pair.key, &pair.row))
            };
            let mut ordered: Vec<_> = rows.iter().filter_map(|row| Some((order(row)?, *row))).collect();
            ordered.sort();
            ordered.into_iter().take(k).map(|(_, row)| row.clone()).collect::<Vec<Bytes>>()
        });
        let kept = first.clone();
        let meter = about.meter(shown::<G>);
        let best = flow::tournament(self.rows.clone(), &meter, move |rows| kept(rows));
        let rows = flow::listed(best, &meter, move |group, rows| {
            let Some(of) = unpack_key::<G>(group) else { return Vec::new() };
            let ranked = |(rank, pair): (u32, Bytes)| {
                let pair = Pair::<K, V>::read(&pair)?;
                Some((pack_key(scope_of(group), &(of.clone(), rank))?, pack(&(pair.key, pair.row))?))
            };
            (1..).zip(first(rows)).filter_map(ranked).collect()
        });
        Table::new(rows, about)
    }
}
