//! What is added up over the rows of a group: [`count`], [`sum`], [`average`], several at once as a tuple.

use super::row::Value;

/// What one aggregate adds up: see [`count`], [`sum`] and [`average`].
pub trait Aggregate<K, V>: 'static {
    /// What it comes to.
    type Out: Value;
    /// What a row adds.
    fn weigh(&self, key: &K, row: &V) -> i128;
    /// What it comes to for so many rows.
    fn finish(&self, rows: i128, sum: i128) -> Self::Out;
}

/// Several aggregates at once: tuples of up to six.
pub trait Aggregates<K, V>: 'static {
    /// What they come to.
    type Out: Value;
    /// What a row adds to each.
    fn weigh(&self, key: &K, row: &V) -> Vec<i128>;
    /// What they come to for so many rows. `None` if there are too few sums.
    fn finish(&self, rows: i128, sums: &[i128]) -> Option<Self::Out>;
}

/// The number of rows.
pub struct Count;
/// A sum of whole numbers, exact. Amounts of money are summed up in their smallest unit.
pub struct Sum<F>(F);
/// A sum divided by the number of rows.
pub struct Average<F>(F);

/// Counts the rows of a group.
///
/// ```
/// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/shop.in"));
/// # fn main() {
/// let rows = shown(|v| {
///     let orders = v.model::<Order>("shop", "Order");
///     v.publish("View", &orders.group_by(|_, _| "all".to_owned()).agg((count(),)));
/// });
/// assert_eq!(rows, [json!({"id": "all", "value": [3]})]);
/// # }
/// ```
pub fn count() -> Count {
    Count
}

/// Sums up what `of` says of each row: whole numbers of any size up to 64 bits.
///
/// ```
/// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/shop.in"));
/// # fn main() {
/// let rows = shown(|v| {
///     let orders = v.model::<Order>("shop", "Order");
///     let large = sum(|_, order: &Order| i64::from(order.cents >= 70));
///     v.publish("View", &orders.group_by(|_, _| "all".to_owned()).agg((count(), large)));
/// });
/// assert_eq!(rows, [json!({"id": "all", "value": [3, 2]})]);
/// # }
/// ```
pub fn sum<K, V, N: Into<i128>>(of: impl Fn(&K, &V) -> N + 'static) -> Sum<impl Fn(&K, &V) -> i128> {
    Sum(move |key: &K, row: &V| of(key, row).into())
}

/// The mean of what `of` says of each row.
///
/// ```
/// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/shop.in"));
/// # fn main() {
/// let rows = shown(|v| {
///     let orders = v.model::<Order>("shop", "Order");
///     let all = orders.group_by(|_, _| "all".to_owned());
///     v.publish("View", &all.agg((average(|_, order: &Order| order.cents),)).map(|_, (mean,)| *mean));
/// });
/// assert_eq!(rows, [json!({"id": "all", "value": 125.0})]);
/// # }
/// ```
pub fn average<K, V, N: Into<i128>>(of: impl Fn(&K, &V) -> N + 'static) -> Average<impl Fn(&K, &V) -> i128> {
    Average(move |key: &K, row: &V| of(key, row).into())
}

impl<K, V> Aggregate<K, V> for Count {
    type Out = u64;

    fn weigh(&self, _: &K, _: &V) -> i128 {
        0
    }

    fn finish(&self, rows: i128, _: i128) -> u64 {
        rows.try_into().unwrap_or(0)
    }
}

impl<K, V, F: Fn(&K, &V) -> i128 + 'static> Aggregate<K, V> for Sum<F> {
    type Out = i64;

    fn weigh(&self, key: &K, row: &V) -> i128 {
        (self.0)(key, row)
    }

    /// What does not fit is the closest that does.
    fn finish(&self, _: i128, sum: i128) -> i64 {
        sum.clamp(i64::MIN.into(), i64::MAX.into()) as i64
    }
}

impl<K, V, F: Fn(&K, &V) -> i128 + 'static> Aggregate<K, V> for Average<F> {
    type Out = f64;

    fn weigh(&self, key: &K, row: &V) -> i128 {
        (self.0)(key, row)
    }

    fn finish(&self, rows: i128, sum: i128) -> f64 {
        sum as f64 / rows.max(1) as f64
    }
}

macro_rules! aggregates {
    ($($name:ident $at:tt),*) => {
        impl<Key, Row, $($name: Aggregate<Key, Row>),*> Aggregates<Key, Row> for ($($name,)*) {
            type Out = ($($name::Out,)*);

            fn weigh(&self, key: &Key, row: &Row) -> Vec<i128> {
                vec![$(self.$at.weigh(key, row)),*]
            }

            fn finish(&self, rows: i128, sums: &[i128]) -> Option<Self::Out> {
                Some(($(self.$at.finish(rows, *sums.get($at)?),)*))
            }
        }
    };
}

aggregates!(A 0);
aggregates!(A 0, B 1);
aggregates!(A 0, B 1, C 2);
aggregates!(A 0, B 1, C 2, D 3);
aggregates!(A 0, B 1, C 2, D 3, E 4);
aggregates!(A 0, B 1, C 2, D 3, E 4, F 5);
