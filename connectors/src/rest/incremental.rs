//! Time windows of an incremental listing, and their halving where the API caps its results.

use super::request::refused;
use crate::definition::Incremental;
use syncline_engine::model::Timestamp;
use syncline_engine::source::Failure;

/// From when, until when.
pub(super) type TimeSpan = (Timestamp, Timestamp);

/// Whether a window has brought so much that the API may have cut it off.
pub(super) fn is_capped(rule: &Incremental, total: Option<u64>, read: u64) -> bool {
    rule.split_at.is_some_and(|cap| total.unwrap_or(0).max(read) >= cap)
}

/// Replaces the window being read, the last of `windows`, by its halves; the earlier one is read first.
pub(super) fn halve(rule: &Incremental, windows: &mut Vec<TimeSpan>) -> Result<(), Failure> {
    let Some((since, until)) = windows.pop() else { return Ok(()) };
    let middle = middle(since, until);
    if middle.since(since) < rule.min_span || until.since(middle) < rule.min_span || middle <= since {
        let cap = rule.split_at.unwrap_or(0);
        let message = format!(
            "between {since} and {until} the API holds {cap} results or more, its cap, and the window cannot be halved \
             further (min_span); no result is left out in silence, so the run ends here"
        );
        return Err(refused("window_cap", message));
    }
    windows.push((middle, until));
    windows.push((since, middle));
    Ok(())
}

/// On whole seconds if the window is wide enough, else on milliseconds, so that APIs that cut times do not lose the seam.
fn middle(since: Timestamp, until: Timestamp) -> Timestamp {
    const SECOND: i64 = 1_000_000;
    let span = until.0.saturating_sub(since.0);
    let grain = if span >= 4 * SECOND { SECOND } else { 1_000 };
    let exact = since.0.saturating_add(span / 2);
    Timestamp(exact - exact.rem_euclid(grain))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    proptest! {
        #[test]
        fn halves_join_without_gap_and_get_smaller(since in -1_000_000_000i64..1_000_000_000, span in 2_001i64..10_000_000_000) {
            let (since, until) = (Timestamp(since), Timestamp(since + span));
            let middle = middle(since, until);
            prop_assert!(middle <= until);
            if span > 4_000_000 {
                prop_assert!(since < middle && middle < until);
                prop_assert_eq!(middle.0.rem_euclid(1_000_000), 0);
            }
            prop_assert!(until.since(middle) <= Duration::from_micros(span as u64 / 2 + 1_000_001));
        }
    }
}
