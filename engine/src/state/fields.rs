//! Field clocks: what keeps a patch from being undone by an older whole record, whatever arrives first.
//!
//! Under `latest` a record's content is its newest whole observation (or its deletion) with every patch newer than that
//! laid over it in order of version. Keeping the base and those patches makes the result independent of arrival order.
//! A whole record at least as new as a patch forgets it, so clocks are rare and short-lived.

use crate::model::Timestamp;
use crate::model::content::{Ignore, canonical_hash};
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// Patches kept per record; beyond, the two oldest become one.
pub const FIELD_CLOCKS: usize = 256;

/// The clock of an observation with the hash that decides ties.
pub type Stamp = (Timestamp, Timestamp, u64);

/// Base and newer patches of one record.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FieldClocks {
    /// The newest whole content; `None` while unknown or deleted.
    pub base: Option<String>,
    /// Its version and hash; `None` while the record is unknown.
    pub base_stamp: Option<Stamp>,
    /// Patches newer than the base, in order.
    pub patches: Vec<(Stamp, String)>,
}

impl FieldClocks {
    /// The newest version that is known of.
    pub fn newest(&self) -> (Timestamp, Timestamp) {
        let stamps = self.base_stamp.iter().chain(self.patches.iter().map(|(stamp, _)| stamp));
        stamps.map(|stamp| (stamp.0, stamp.1)).max().unwrap_or((Timestamp::NONE, Timestamp::NONE))
    }

    /// Takes a whole content (or `None`: gone) if it is newer than the base. Says whether it was.
    pub fn rebase(&mut self, stamp: Stamp, content: Option<String>) -> bool {
        if self.base_stamp.is_some_and(|base| base >= stamp) {
            return false;
        }
        self.base = content;
        self.base_stamp = Some(stamp);
        // A whole record at least as new as a patch speaks for all its fields.
        self.patches.retain(|(patch, _)| (patch.0, patch.1) > (stamp.0, stamp.1));
        true
    }

    /// Takes a patch if it is newer than the base. Says whether it was.
    pub fn patch(&mut self, stamp: Stamp, patch: String) -> bool {
        if self.base_stamp.is_some_and(|base| (base.0, base.1) >= (stamp.0, stamp.1)) {
            return false;
        }
        let place = self.patches.partition_point(|(other, _)| *other <= stamp);
        if self.patches.iter().any(|(other, text)| *other == stamp && *text == patch) {
            return true;
        }
        self.patches.insert(place, (stamp, patch));
        if self.patches.len() > FIELD_CLOCKS {
            let (_, oldest) = self.patches.remove(0);
            if let Some((_, next)) = self.patches.first_mut()
                && let Ok(folded) = merge(&oldest, next)
            {
                *next = folded;
            }
        }
        true
    }

    /// The content: the base with all patches; `None` while unknown or deleted.
    pub fn content(&self) -> Option<String> {
        let base = self.base.clone()?;
        Some(self.patches.iter().fold(base, |content, (_, patch)| merge(&content, patch).unwrap_or(content)))
    }
}

/// Checks that `patch` is an object, and gives its hash.
pub fn patch_hash(patch: &[u8]) -> Result<u64, String> {
    canonical_hash(patch, &Ignore::default()).map_err(|e| e.to_string())
}

/// `patch` laid over `base`: objects merge deeply, everything else is replaced. Numbers keep their digits, since only the
/// objects on the way are taken apart.
pub fn merge(base: &str, patch: &str) -> Result<String, serde_json::Error> {
    type Object = IndexMap<String, Box<RawValue>>;
    let mut object: Object = serde_json::from_str(base)?;
    let patch: Object = serde_json::from_str(patch)?;
    for (key, value) in patch {
        let merged = match object.get(&key) {
            Some(old) if is_object(old) && is_object(&value) => RawValue::from_string(merge(old.get(), value.get())?)?,
            _ => value,
        };
        object.insert(key, merged);
    }
    serde_json::to_string(&object)
}

fn is_object(value: &RawValue) -> bool {
    value.get().trim_start().starts_with('{')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merging_is_deep_and_exact() {
        let merged = merge(
            r#"{"a":{"b":1,"c":[1,2]},"n":12345678901234567890123,"k":"v"}"#,
            r#"{"a":{"c":[3]},"k":null,"new":{"x":1}}"#,
        );
        assert_eq!(
            merged.expect("objects"),
            r#"{"a":{"b":1,"c":[3]},"n":12345678901234567890123,"k":null,"new":{"x":1}}"#
        );
    }

    #[test]
    fn every_order_gives_one_content() {
        let stamp = |t: i64| (Timestamp(t), Timestamp(t), t as u64);
        type Step = (i64, Option<&'static str>, bool);
        let steps: [Step; 4] = [
            (1, Some(r#"{"id":"1","a":1,"b":1}"#), false),
            (2, Some(r#"{"a":2}"#), true),
            (3, Some(r#"{"id":"1","a":3,"b":3}"#), false),
            (4, Some(r#"{"b":4}"#), true),
        ];
        let mut results = std::collections::BTreeSet::new();
        for order in permutations(4) {
            let mut fields = FieldClocks::default();
            for n in order {
                let (t, text, is_patch) = steps[n];
                let text = text.map(str::to_owned);
                match (is_patch, text) {
                    (true, Some(patch)) => fields.patch(stamp(t), patch),
                    (_, content) => fields.rebase(stamp(t), content),
                };
            }
            results.insert(fields.content());
        }
        assert_eq!(results.into_iter().collect::<Vec<_>>(), [Some(r#"{"id":"1","a":3,"b":4}"#.to_owned())]);
    }

    fn permutations(n: usize) -> Vec<Vec<usize>> {
        if n == 0 {
            return vec![vec![]];
        }
        permutations(n - 1)
            .into_iter()
            .flat_map(|p| {
                (0..n).map(move |at| {
                    let mut q = p.clone();
                    q.insert(at, n - 1);
                    q
                })
            })
            .collect()
    }
}
