//! Reads the change stream page by page and writes changes as JSON.
//!
//! Promises: changes come in order of commit; all changes of one engine time stand together and the last of them says so; a
//! cursor handed out never lies behind a change that was not. Payloads are passed on as they are stored; they are read only to
//! name the key and the fields that changed.

use crate::admission::Share;
use crate::engine::Engine;
use crate::engine::model::{Action, Cause, Change, Cursor, CursorError, DatasetId, DatasetName, Position, Via};
use crate::engine::pipeline::{Dataset, Error, Keyspace};
use crate::http::answers::{PAGE_BYTES, Starved, quote_plain};
use crate::http::stamp::write_stamp;
use crate::registry::scope::{Selection, changes_scope};
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::sync::Arc;

/// What a reader has chosen, ready to be read.
#[derive(Clone)]
pub(super) struct Feed {
    pub engine: Engine,
    pub environment: Arc<str>,
    pub selection: Selection,
    /// Only these; all if empty.
    pub actions: Vec<Action>,
    /// Most changes of a page.
    pub limit: usize,
}

/// Some changes.
pub(super) struct FeedPage {
    /// In order.
    pub rows: Vec<FeedRow>,
    /// Where to go on.
    pub next: Cursor,
    /// Nothing more was committed when this was read.
    pub up_to_date: bool,
    /// The memory of the rows.
    pub memory: Share,
}

/// One change.
pub(super) struct FeedRow {
    /// Its place.
    pub cursor: String,
    /// The change as a JSON object.
    pub json: Vec<u8>,
}

impl Feed {
    /// The bytes its cursors are bound to.
    fn scope(&self) -> Vec<u8> {
        changes_scope(&self.environment, &self.selection)
    }

    /// The text of a place.
    pub(super) fn text(&self, cursor: Cursor) -> String {
        self.engine.cursor_key().encode(&self.scope(), cursor)
    }

    /// Reads a place back.
    pub(super) fn place(&self, text: &str) -> Result<Cursor, CursorError> {
        self.engine.cursor_key().decode(&self.scope(), text)
    }

    /// Whether something of the selection was dropped on request after this place.
    pub(super) fn emptied_since(&self, place: Cursor) -> Result<bool, Error> {
        for dataset in self.datasets() {
            if self.engine.emptied_since(&dataset, place.position)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    pub(super) fn datasets(&self) -> Vec<Dataset> {
        let all = self.engine.datasets(&self.environment);
        all.into_iter().filter(|d| self.selection.has(&d.name)).collect()
    }

    /// Before everything.
    pub(super) fn earliest(&self) -> Cursor {
        Cursor { position: Position::START, dataset: DatasetId(0) }
    }

    /// Behind everything that is committed.
    pub(super) fn now(&self) -> Cursor {
        self.before(*self.engine.watermark().borrow())
    }

    /// Behind everything that lies before a position.
    pub(super) fn before(&self, end: Position) -> Cursor {
        match end.0.checked_sub(1) {
            Some(last) => Cursor { position: Position(last), dataset: DatasetId(u32::MAX) },
            None => self.earliest(),
        }
    }

    /// Changes after a place; they take `copies` times their size of `memory`. Blocks.
    pub(super) fn read(&self, after: Cursor, memory: Share, copies: usize) -> Result<Result<FeedPage, Starved>, Error> {
        // Taken first: what is committed while we read lies behind it and is met at the next reading, with the datasets that
        // were new in it.
        let end = self.now();
        let datasets = self.datasets();
        let mut page = PageWriter::new(self, after, end, memory, copies);
        self.engine.changes(&datasets, after, &mut |dataset, change| page.take(dataset, change))?;
        page.finish()
    }
}

/// A page being written. It stays one change behind, to know which change is the last of its engine time.
struct PageWriter<'f> {
    feed: &'f Feed,
    scope: Vec<u8>,
    waiting: Option<(Dataset, Change)>,
    rows: Vec<FeedRow>,
    bytes: usize,
    at: Cursor,
    end: Cursor,
    more: bool,
    failed: Option<Error>,
    memory: Share,
    copies: usize,
    starved: bool,
    first_listings: HashMap<(DatasetId, Cause), bool>,
}

impl<'f> PageWriter<'f> {
    fn new(feed: &'f Feed, after: Cursor, end: Cursor, memory: Share, copies: usize) -> Self {
        PageWriter {
            feed,
            scope: feed.scope(),
            waiting: None,
            rows: Vec::new(),
            bytes: 0,
            at: after,
            end,
            more: false,
            failed: None,
            memory,
            copies,
            starved: false,
            first_listings: HashMap::new(),
        }
    }

    /// Takes the next change; false when the page is full, or this reading is at its end.
    fn take(&mut self, dataset: &Dataset, change: Change) -> bool {
        if change.meta.position > self.end.position {
            return false;
        }
        if !self.feed.actions.is_empty() && !self.feed.actions.contains(&change.meta.action) {
            return true;
        }
        if let Some((earlier, waiting)) = self.waiting.take() {
            let last = waiting.meta.position.epoch() != change.meta.position.epoch();
            let written = self.write(&earlier, &waiting, last);
            if !written || self.rows.len() >= self.feed.limit || self.failed.is_some() {
                self.more = true;
                return false;
            }
        }
        self.waiting = Some((dataset.clone(), change));
        true
    }

    fn finish(mut self) -> Result<Result<FeedPage, Starved>, Error> {
        if let Some((dataset, change)) = self.waiting.take() {
            self.more |= !self.write(&dataset, &change, true);
        }
        if let Some(error) = self.failed {
            return Err(error);
        }
        if self.starved {
            return Ok(Err(Starved));
        }
        let later = |a: Cursor, b: Cursor| if (a.position, a.dataset) < (b.position, b.dataset) { b } else { a };
        let next = if self.more { self.at } else { later(self.at, self.end) };
        Ok(Ok(FeedPage { rows: self.rows, next, up_to_date: !self.more, memory: self.memory }))
    }

    /// Whether there was room for it. A page has room for a first change whatever its size, if there is memory.
    fn has_room(&mut self, change: &Change) -> bool {
        let first = self.rows.is_empty();
        let needed = self.bytes + change_size(change);
        if needed > PAGE_BYTES && !first {
            return false;
        }
        let had = needed.checked_mul(self.copies).is_some_and(|bytes| self.memory.grow_to(bytes));
        self.starved |= first && !had;
        had
    }

    /// Writes a change; false if there is no room for it.
    fn write(&mut self, dataset: &Dataset, change: &Change, last: bool) -> bool {
        if !self.has_room(change) {
            return false;
        }
        self.at = Cursor { position: change.meta.position, dataset: dataset.id };
        let cursor = self.feed.engine.cursor_key().encode(&self.scope, self.at);
        let first_listing = self.first_listing(dataset, change.meta.cause);
        let json = write_change(dataset, change, &cursor, last, first_listing);
        self.bytes += json.capacity();
        self.rows.push(FeedRow { cursor, json });
        true
    }

    /// Whether the run behind a change was the first listing of its sync.
    fn first_listing(&mut self, dataset: &Dataset, cause: Cause) -> bool {
        if cause.via != Via::Poll {
            return false;
        }
        if let Some(known) = self.first_listings.get(&(dataset.id, cause)) {
            return *known;
        }
        let name = &dataset.name;
        let key = [&*name.environment, &*name.source, &*name.model, &cause.to_string()];
        let run = self.feed.engine.mark(Keyspace::RUN, &key);
        let first = match run {
            Ok(Some(text)) => serde_json::from_slice::<Map<String, Value>>(&text)
                .is_ok_and(|run| run.get("kind").and_then(Value::as_str) == Some("INITIAL")),
            Ok(None) => false,
            Err(error) => {
                self.failed = Some(error);
                false
            }
        };
        self.first_listings.insert((dataset.id, cause), first);
        first
    }
}

/// About what it is when written.
fn change_size(change: &Change) -> usize {
    let payloads = [&change.before, &change.after];
    payloads.iter().map(|payload| payload.as_ref().map_or(4, |payload| payload.len())).sum::<usize>() + 512
}

fn write_change(dataset: &Dataset, change: &Change, cursor: &str, last: bool, first_listing: bool) -> Vec<u8> {
    let meta = &change.meta;
    let mut out = Vec::with_capacity(change_size(change));
    out.extend_from_slice(b"{\"cursor\":");
    quote_plain(&mut out, cursor);
    out.extend_from_slice(b",\"action\":");
    quote_plain(&mut out, meta.action.as_str());
    out.push(b',');
    write_names(&mut out, &dataset.name, &change.id());
    for (field, payload) in [(",\"before\":", &change.before), (",\"after\":", &change.after)] {
        out.extend_from_slice(field.as_bytes());
        out.extend_from_slice(payload.as_deref().unwrap_or(b"null"));
    }
    out.extend_from_slice(b",\"changed\":");
    out.extend_from_slice(Value::from(change.changed_fields()).to_string().as_bytes());
    out.extend_from_slice(b",\"modified_at\":");
    write_stamp(&mut out, meta.modified_at);
    out.extend_from_slice(b",\"committed_at\":");
    write_stamp(&mut out, meta.last_modified_at);
    let tail = format!(
        ",\"time\":{},\"last\":{last},\"via\":\"{}\",\"cause\":\"{}\",\"first_listing\":{first_listing}}}",
        meta.position.epoch(),
        meta.cause.via.as_str(),
        meta.cause,
    );
    out.extend_from_slice(tail.as_bytes());
    out
}

/// Which record a row is about: the fields of its dataset and its key, without a comma around them.
pub(super) fn write_names(out: &mut Vec<u8>, name: &DatasetName, key: &str) {
    for (field, text) in [
        ("\"source\":", &*name.source),
        (",\"connection\":", &*name.connection),
        (",\"stream\":", &*name.model),
        (",\"variant\":", &*name.variant),
        (",\"key\":", key),
    ] {
        out.extend_from_slice(field.as_bytes());
        out.extend_from_slice(Value::from(text).to_string().as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::model::{Meta, Timestamp};
    use bytes::Bytes;
    use serde_json::json;

    fn change(action: Action, before: Option<&'static str>, after: Option<&'static str>) -> Change {
        let meta = Meta {
            position: Position::first_of(8812),
            action,
            first_seen_at: Timestamp(0),
            last_modified_at: Timestamp(1),
            deleted_at: None,
            pruned_at: None,
            modified_at: Timestamp::NONE,
            cause: Cause::webhook(5),
        };
        Change { meta, before: before.map(Bytes::from), after: after.map(Bytes::from) }
    }

    #[test]
    fn changed_names_what_differs() {
        let of = |before, after| change(Action::Updated, Some(before), Some(after)).changed_fields();
        let before = r#"{"id":"1","a":1,"b":{"x":1,"y":2},"gone":0}"#;
        let after = r#"{"id":"1","a":2,"b":{"y":2,"x":1},"new":0}"#;
        assert_eq!(of(before, after), ["a", "gone", "new"]);
        assert!(change(Action::Added, None, Some(after)).changed_fields().is_empty());
    }

    #[test]
    fn a_change_has_the_agreed_form() {
        let name = Arc::new(DatasetName::base("e", "hub\"spot", "conn_1", "Contact"));
        let dataset = Dataset { id: DatasetId(1), name };
        let change = change(Action::Updated, Some(r#"{"id":"1","email":"a"}"#), Some(r#"{"id":"1","email":"b"}"#));
        let row: Value = serde_json::from_slice(&write_change(&dataset, &change, "AQ", true, false)).expect("JSON");
        let wanted = json!({
            "cursor": "AQ", "action": "UPDATED", "source": "hub\"spot", "connection": "conn_1", "stream": "Contact",
            "variant": "base", "key": "1", "before": {"id": "1", "email": "a"}, "after": {"id": "1", "email": "b"},
            "changed": ["email"], "modified_at": null, "committed_at": "1970-01-01T00:00:00.000001Z", "time": 8812,
            "last": true, "via": "webhook", "cause": "whk_00000000000005", "first_listing": false,
        });
        assert_eq!(row, wanted);
    }
}
