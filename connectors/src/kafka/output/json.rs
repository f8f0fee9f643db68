//! Small pieces of JSON text, written without reading the payloads they stand beside. Pure.

use syncline_engine::model::Timestamp;

/// Text as a JSON string.
pub(super) fn quote(out: &mut Vec<u8>, text: &str) {
    // Into memory, so it cannot fail.
    let _ = serde_json::to_writer(out, text);
}

/// Text that needs no escapes, such as base64.
pub(super) fn quote_plain(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    out.extend_from_slice(text.as_bytes());
    out.push(b'"');
}

/// A payload as it is; `null` where there is none.
pub(super) fn payload(out: &mut Vec<u8>, payload: Option<&[u8]>) {
    out.extend_from_slice(payload.unwrap_or(b"null"));
}

/// A time as RFC 3339 in UTC; `null` where there is none.
pub(super) fn time(out: &mut Vec<u8>, at: Timestamp) {
    match at {
        Timestamp::NONE => out.extend_from_slice(b"null"),
        at => quote_plain(out, &at.to_string()),
    }
}

/// A time as epoch milliseconds; `null` where there is none.
pub(super) fn millis(out: &mut Vec<u8>, at: Timestamp) {
    match at {
        Timestamp::NONE => out.extend_from_slice(b"null"),
        at => out.extend_from_slice(at.millis().to_string().as_bytes()),
    }
}

/// A list of texts.
pub(super) fn list(out: &mut Vec<u8>, texts: &[String]) {
    out.push(b'[');
    for (at, text) in texts.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        quote(out, text);
    }
    out.push(b']');
}

/// An object's text without its last brace; `{` for an empty one. The flag says whether a comma must follow.
pub(super) fn open_object(payload: &[u8]) -> (&[u8], bool) {
    let body = payload.iter().rposition(|b| *b == b'}').and_then(|end| payload.get(..end)).unwrap_or(b"{");
    let empty = body.iter().all(|b| b.is_ascii_whitespace() || *b == b'{');
    (body, !empty)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_opened_for_more_fields() {
        assert_eq!(open_object(br#"{"a":"}"}"#), (&br#"{"a":"}""#[..], true));
        assert_eq!(open_object(b"{}"), (&b"{"[..], false));
        assert_eq!(open_object(b"{ }"), (&b"{ "[..], false));
    }
}
