//! Deletes: listings whose items name deleted records, and what it takes to delete what a listing misses.

use crate::definition::{ConfirmRule, DeletedListing, Stream};
use crate::expr::Vars;
use crate::mapping::{Mapped, Mapper, SeenAt, key_of, refuse};
use serde_json::Value;
use syncline_engine::model::{CLOCKS_APART, Strategy, Timestamp};
use syncline_engine::source::{Confirm, Observation};

/// Reads one item of a listing of deleted records.
pub(super) fn read(mapper: &Mapper, listing: &DeletedListing, item: &Value, seen: SeenAt, vars: &Vars) -> Mapped {
    let composite = mapper.stream().composite;
    let id = match key_of(&listing.key, composite, item, vars) {
        Ok(id) => id,
        Err(reason) => return Mapped::Refused(refuse("bad_key", format!("deletes.key: {reason}"), None, item)),
    };
    match listing.at.as_ref().map(|at| at.read(item, vars)).transpose() {
        Ok(at) => Mapped::Taken(listed(mapper, id, at.flatten(), seen), None),
        Err(error) => Mapped::Refused(refuse("bad_time", format!("deletes.at: {error}"), Some(id), item)),
    }
}

/// That a record was deleted then. Where merging goes by when a page was asked for, this is no news of now: what came to
/// life since stays, however often the list names its old delete.
fn listed(mapper: &Mapper, id: String, at: Option<Timestamp>, seen: SeenAt) -> Observation {
    let mut gone = mapper.gone(id, None, at, seen);
    if let (Strategy::IgnoreIfModifiedAfter, Some(at)) = (mapper.stream().merge, at) {
        gone.observed_at = gone.observed_at.min(at.plus(CLOCKS_APART));
    }
    gone
}

/// What it takes before records missing from a proven listing are deleted. `steady` says that the API's own count was
/// there, was the same on the first and the last page of every list, and equal to what was read: nothing moved meanwhile.
/// `fell` says that a count fell to what was read: then nothing goes at once, whatever is written.
pub(super) fn confirm(stream: &Stream, steady: bool, fell: bool) -> Confirm {
    let by_fetch = if stream.fetch.is_some() { Confirm::Fetch } else { Confirm::Twice };
    match stream.deletes.from_full_list {
        None => Confirm::Never,
        Some(ConfirmRule::None) if fell => by_fetch,
        Some(ConfirmRule::None) => Confirm::None,
        Some(ConfirmRule::Fetch) => by_fetch,
        Some(ConfirmRule::Twice) => Confirm::Twice,
        Some(ConfirmRule::Auto) if steady => Confirm::None,
        Some(ConfirmRule::Auto) => by_fetch,
    }
}
