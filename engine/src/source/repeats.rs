//! One answer is one observation of a record, however often it names it.
//!
//! Two observations of one record in one answer were true at the same time. Taken one after the other they would be changes,
//! and again with every further answer of the same content.

use super::{Body, Observation, Page, Quarantined};
use std::collections::HashMap;
use twox_hash::XxHash3_64;

/// Code of the warning.
pub const REPEATED_KEY: &str = "repeated_key";

impl Page {
    /// Leaves one observation of each record: that of the latest modified time, among equal ones the last. Patches are left
    /// alone, since they are parts. A warning tells of the records that came with different contents, if there are any.
    pub fn keep_one_each(&mut self) -> Option<Quarantined> {
        let whole = |seen: &Observation| !matches!(seen.body, Body::Patch(_));
        let all = self.observations.iter().filter(|seen| whole(seen));
        let mut hashes: Vec<u64> = all.map(|seen| XxHash3_64::oneshot(seen.id.as_bytes())).collect();
        hashes.sort_unstable();
        if hashes.windows(2).all(|pair| pair.first() != pair.last()) {
            return None;
        }
        let mut newest: HashMap<&str, usize> = HashMap::new();
        let (mut lost, mut differing) = (vec![false; self.observations.len()], Vec::new());
        for (n, seen) in self.observations.iter().enumerate().filter(|(_, seen)| whole(seen)) {
            let Some(before) = newest.insert(&seen.id, n) else { continue };
            let Some(other) = self.observations.get(before) else { continue };
            if other.body != seen.body && differing.last() != Some(&seen.id) {
                differing.push(seen.id.clone());
            }
            let loser = if other.modified_at > seen.modified_at { n } else { before };
            if loser == n {
                newest.insert(&seen.id, before);
            }
            lost.get_mut(loser).into_iter().for_each(|lost| *lost = true);
        }
        let mut lost = lost.into_iter();
        self.observations.retain(|_| !lost.next().unwrap_or(false));
        warning(differing)
    }
}

fn warning(mut ids: Vec<String>) -> Option<Quarantined> {
    ids.sort_unstable();
    ids.dedup();
    let (first, others) = ids.split_first()?;
    let more = if others.is_empty() { String::new() } else { format!(", and so do {} others", others.len()) };
    let message = format!(
        "record {first} comes more than once in one answer, with different contents{more}; the one of the latest modified time \
         counts, among equal ones the last: if they are different records, `key` needs another field"
    );
    Some(Quarantined { code: REPEATED_KEY, message, id: Some(first.clone()), item: String::new() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Timestamp;

    fn seen(id: &str, modified: Option<i64>, body: &str) -> Observation {
        let body = if body.is_empty() { Body::Gone { deleted_at: None } } else { Body::Whole(body.to_owned()) };
        Observation { id: id.to_owned(), modified_at: modified.map(Timestamp), observed_at: Timestamp(9), body }
    }

    fn kept(observations: Vec<Observation>) -> (Vec<Observation>, Option<Quarantined>) {
        let mut page = Page { observations, ..Page::default() };
        let warning = page.keep_one_each();
        (page.observations, warning)
    }

    #[test]
    fn the_latest_counts_else_the_last() {
        let (left, warning) = kept(vec![seen("1", None, "a"), seen("2", None, "b"), seen("1", None, "c")]);
        assert_eq!(left, [seen("2", None, "b"), seen("1", None, "c")]);
        assert_eq!(warning.expect("one").id.as_deref(), Some("1"));
        let dated =
            vec![seen("1", Some(2), "a"), seen("1", Some(3), ""), seen("1", Some(1), "c"), seen("1", None, "d")];
        assert_eq!(kept(dated).0, [seen("1", Some(3), "")]);
    }

    #[test]
    fn what_is_the_same_or_a_part_is_no_matter() {
        let same = vec![seen("1", None, "a"), seen("1", None, "a")];
        assert_eq!(kept(same), (vec![seen("1", None, "a")], None));
        let part = Observation { body: Body::Patch("{}".to_owned()), ..seen("1", None, "a") };
        assert_eq!(kept(vec![part.clone(), part.clone(), seen("1", None, "a")]).0.len(), 3);
    }
}
