//! Messages numbered by their producer: the highest number that has had its effects, per partition, connection and producer.
//!
//! Per partition, because only there a producer's messages keep their order: a lower number in another partition may be new.

use super::spec::InputSpec;
use crate::engine::Engine;
use crate::engine::pipeline::{Error, Keyspace, Mark};
use std::collections::HashMap;

/// First key part of the marks.
const SEQUENCE: &str = "kafka producer";
/// Numbers remembered beside the marks; the task forgets them all when it has more and nothing is on its way.
pub(super) const REMEMBERED: usize = 50_000;

/// Highest numbers, those on their way included.
#[derive(Default)]
pub(super) struct Sequences(HashMap<Numbered, i64>);

/// Who numbered: partition, connection, producer.
pub(super) type Numbered = (i32, String, String);

impl Sequences {
    /// Whether this number is new. The caller commits [`mark`] for it, or forgets everything.
    pub fn reserved(&mut self, engine: &Engine, spec: &InputSpec, by: &Numbered, number: i64) -> Result<bool, Error> {
        let highest = match self.0.get(by) {
            Some(highest) => Some(*highest),
            None => {
                let partition = by.0.to_string();
                let stored = engine.mark(Keyspace::PLACE, &key(spec, &partition, by))?;
                stored.and_then(|value| std::str::from_utf8(&value).ok()?.parse().ok())
            }
        };
        let new = highest.is_none_or(|highest| number > highest);
        self.0.insert(by.clone(), if new { number } else { highest.unwrap_or(number) });
        Ok(new)
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn forget(&mut self) {
        self.0.clear();
    }
}

/// The mark of a number that has had its effects.
pub(super) fn mark(spec: &InputSpec, by: &Numbered, number: i64) -> Mark {
    Mark::put(Keyspace::PLACE, &key(spec, &by.0.to_string(), by), number.to_string())
}

fn key<'a>(spec: &'a InputSpec, partition: &'a str, by: &'a Numbered) -> [&'a str; 6] {
    [SEQUENCE, &spec.name, &spec.topic, partition, &by.1, &by.2]
}
