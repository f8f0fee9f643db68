//! Writes rows of `GET /records`: the stored payload as it is, with the metadata spliced in before its last brace.
//!
//! Nothing is parsed and nothing is allocated per row but the cursor, so that a page costs little more than its bytes.

use super::answers::{PageBuffer, Starved, quote_plain};
use super::stamp::write_time;
use crate::admission::Share;
use crate::engine::model::{Cursor, CursorKey, DatasetId, Meta, Position};
use axum::body::Bytes;

/// Offset of the compatible surface.
const UTC: &str = "+00:00";

/// A page being written.
pub(crate) struct RowPage {
    page: PageBuffer,
    rows: usize,
    limit: usize,
    more: bool,
    last: Option<String>,
    key: CursorKey,
    scope: Vec<u8>,
    dataset: DatasetId,
}

impl RowPage {
    /// An empty page of at most `limit` rows.
    pub(crate) fn new(memory: Share, key: CursorKey, scope: Vec<u8>, dataset: DatasetId, limit: usize) -> Self {
        RowPage { page: PageBuffer::new(memory), rows: 0, limit, more: false, last: None, key, scope, dataset }
    }

    /// Writes a row, or notes that there is one more than fits. Returns whether to go on.
    pub(crate) fn push(&mut self, meta: &Meta, payload: &[u8]) -> bool {
        self.push_at(meta.position, meta, payload)
    }

    /// As [`push`](Self::push), for a row after which reading goes on at a place of its own.
    pub(crate) fn push_at(&mut self, place: Position, meta: &Meta, payload: &[u8]) -> bool {
        if self.rows == self.limit || !self.page.has_room(payload.len(), self.rows == 0) {
            self.more = true;
            return false;
        }
        if self.rows > 0 {
            self.page.out.push(b',');
        }
        let cursor = self.key.encode(&self.scope, Cursor { position: place, dataset: self.dataset });
        write_row(&mut self.page.out, meta, payload, &cursor);
        self.last = Some(cursor);
        self.rows += 1;
        true
    }

    /// The whole answer.
    pub(crate) fn finish(self) -> Result<Bytes, Starved> {
        self.page.finish(self.last.filter(|_| self.more).as_deref())
    }
}

fn write_row(out: &mut Vec<u8>, meta: &Meta, payload: &[u8], cursor: &str) {
    // A payload is the text of an object with at least an id, so there is something before the brace.
    let body = payload.iter().rposition(|b| *b == b'}').and_then(|end| payload.get(..end)).unwrap_or(b"{\"id\":null");
    out.extend_from_slice(body);
    out.extend_from_slice(b",\"_nango_metadata\":{\"first_seen_at\":\"");
    write_time(out, meta.first_seen_at, UTC);
    out.extend_from_slice(b"\",\"last_modified_at\":\"");
    write_time(out, meta.last_modified_at, UTC);
    out.extend_from_slice(b"\",\"last_action\":\"");
    out.extend_from_slice(meta.action.as_str().as_bytes());
    out.extend_from_slice(b"\",\"deleted_at\":");
    write_optional(out, meta.deleted_at);
    out.extend_from_slice(b",\"pruned_at\":");
    write_optional(out, meta.pruned_at);
    out.extend_from_slice(b",\"cursor\":");
    quote_plain(out, cursor);
    out.extend_from_slice(b"}}");
}

fn write_optional(out: &mut Vec<u8>, at: Option<crate::engine::model::Timestamp>) {
    match at {
        Some(at) => {
            out.push(b'"');
            write_time(out, at, UTC);
            out.push(b'"');
        }
        None => out.extend_from_slice(b"null"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::answers::PAGE_BYTES;
    use super::*;
    use crate::admission::{Holder, Pool};
    use crate::engine::model::{Action, Cause, Timestamp};
    use serde_json::{Value, json};

    fn meta(position: u64, deleted_at: Option<Timestamp>) -> Meta {
        Meta {
            position: Position(position),
            action: Action::Updated,
            first_seen_at: Timestamp(0),
            last_modified_at: Timestamp(1_500_000),
            deleted_at,
            pruned_at: None,
            modified_at: Timestamp::NONE,
            cause: Cause::run(1),
        }
    }

    fn page(limit: usize, payloads: &[&[u8]]) -> Value {
        let memory = Pool::new(64 << 20, 1 << 10).take([Holder::of("test", 1); 2], 1 << 10).expect("some");
        let mut rows = RowPage::new(memory, CursorKey::new(b"k"), b"scope".to_vec(), DatasetId(1), limit);
        for (at, payload) in payloads.iter().enumerate() {
            if !rows.push(&meta(at as u64 + 1, None), payload) {
                break;
            }
        }
        serde_json::from_slice(&rows.finish().expect("memory")).expect("JSON")
    }

    #[test]
    fn metadata_is_spliced_in() {
        let answer = page(5, &[br#"{"id":"1","a":{"b":"}"}}"#]);
        let row = &answer["records"][0];
        assert_eq!(row["id"], "1");
        assert_eq!(row["a"], json!({"b": "}"}));
        assert_eq!(row["_nango_metadata"]["last_modified_at"], "1970-01-01T00:00:01.500000+00:00");
        assert_eq!(row["_nango_metadata"]["last_action"], "UPDATED");
        assert_eq!(row["_nango_metadata"]["deleted_at"], Value::Null);
        assert_eq!(answer["next_cursor"], Value::Null);
    }

    #[test]
    fn next_cursor_is_the_last_rows_and_only_when_more_follows() {
        let three: [&[u8]; 3] = [br#"{"id":"1"}"#, br#"{"id":"2"}"#, br#"{"id":"3"}"#];
        let answer = page(2, &three);
        assert_eq!(answer["records"].as_array().map(Vec::len), Some(2));
        assert_eq!(answer["next_cursor"], answer["records"][1]["_nango_metadata"]["cursor"]);
        assert_eq!(page(3, &three)["next_cursor"], Value::Null);
    }

    #[test]
    fn a_page_is_cut_by_bytes_but_never_empty() {
        let big = format!(r#"{{"id":"1","t":"{}"}}"#, "x".repeat(PAGE_BYTES));
        let answer = page(10, &[big.as_bytes(), br#"{"id":"2"}"#]);
        assert_eq!(answer["records"].as_array().map(Vec::len), Some(1));
        assert!(answer["next_cursor"].is_string());
    }
}
