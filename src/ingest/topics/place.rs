//! Where each partition stands. The mark is committed with what the messages before it did.

use super::spec::InputSpec;
use crate::engine::Engine;
use crate::engine::model::{Cause, Timestamp, Via};
use crate::engine::pipeline::{Error, Keyspace, Mark};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

/// First key part of the marks.
const PLACE: &str = "kafka";
/// Version of the stored form.
const FORMAT: u32 = 1;
/// Bits of a cause's number that hold the offset; the upper ones hold the partition's number in this store.
const OFFSET_BITS: u32 = 40;
/// Most partitions one store has ever read: what is left of a cause's 56 bits.
const NUMBERS_MAX: u64 = 1 << 16;

/// Where a partition stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PartitionPlace {
    format: u32,
    /// The offset after the last message that has had its effects.
    pub next: i64,
    /// The topic's id when it was first read; empty where the broker gave none.
    pub topic_id: String,
    /// The partition's number in this store.
    pub number: u64,
    /// The time given to the last message: later messages of a partition are later observations.
    pub at: Timestamp,
}

impl PartitionPlace {
    pub fn new(next: i64, topic_id: &str, number: u64) -> PartitionPlace {
        PartitionPlace { format: FORMAT, next, topic_id: topic_id.to_owned(), number, at: Timestamp(0) }
    }

    /// What the message at `offset` of this partition causes is known by.
    pub fn cause(&self, offset: i64) -> Cause {
        let offset = offset.unsigned_abs() & ((1 << OFFSET_BITS) - 1);
        Cause { via: Via::Push, number: (self.number % NUMBERS_MAX) << OFFSET_BITS | offset }
    }

    pub fn mark(&self, spec: &InputSpec, partition: i32) -> Mark {
        let value = serde_json::to_vec(self).unwrap_or_default();
        Mark::put(Keyspace::PLACE, &[PLACE, &spec.name, &spec.topic, &partition.to_string()], value)
    }
}

/// Marks that forget where an input stood.
pub(super) fn forget(places: &BTreeMap<i32, PartitionPlace>, spec: &InputSpec) -> Vec<Mark> {
    let key = |partition: &i32| [PLACE.to_owned(), spec.name.clone(), spec.topic.clone(), partition.to_string()];
    places.keys().map(|p| Mark::delete(Keyspace::PLACE, &key(p).each_ref().map(String::as_str))).collect()
}

/// Places of all partitions of an input.
pub(super) fn load(engine: &Engine, spec: &InputSpec) -> Result<BTreeMap<i32, PartitionPlace>, Error> {
    let mut places = BTreeMap::new();
    for (rest, value) in engine.marks(Keyspace::PLACE, &[PLACE, &spec.name, &spec.topic])? {
        let place = serde_json::from_slice::<PartitionPlace>(&value).ok().filter(|place| place.format == FORMAT);
        let partition = rest.first().and_then(|text| text.parse().ok());
        match (partition, place) {
            (Some(partition), Some(place)) => _ = places.insert(partition, place),
            _ => return Err(Error::Storage(format!("the stored place of topic {} cannot be read", spec.topic))),
        }
    }
    Ok(places)
}

/// Hands out numbers of partitions.
pub(super) struct SlotNumbers(AtomicU64);

impl SlotNumbers {
    pub fn load(engine: &Engine) -> Result<SlotNumbers, Error> {
        let known = engine.marks(Keyspace::PLACE, &[PLACE])?;
        let numbers = known.iter().filter_map(|(_, value)| serde_json::from_slice::<PartitionPlace>(value).ok());
        Ok(SlotNumbers(AtomicU64::new(numbers.map(|place| place.number + 1).max().unwrap_or(1))))
    }

    pub fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_unique_and_fit() {
        let (one, two) = (PartitionPlace::new(0, "", 1), PartitionPlace::new(0, "", 65_535));
        let causes = [one.cause(0), one.cause(1), one.cause((1 << 40) - 1), two.cause(0), two.cause((1 << 40) - 1)];
        for (n, cause) in causes.iter().enumerate() {
            assert!(cause.number < 1 << 56);
            assert_eq!(Cause::parse(&cause.to_string()), Some(*cause));
            assert!(causes.iter().skip(n + 1).all(|other| other != cause));
        }
    }
}
