//! Values that several parts of the settings have: names, secrets, keys of later versions.

use crate::connectors::config_text::{Complaint, Fields, Node};

/// Everything that is wrong so far.
pub(super) type Wrong = Vec<Complaint>;

/// Takes a key this release knows but does not serve, and says so.
pub(super) fn later(fields: &mut Fields, key: &'static str, wrong: &mut Wrong) {
    if let Some(entry) = fields.take_entry(key) {
        let message = format!("`{key}` of {} is not served by this release and does nothing", fields.what);
        wrong.push(entry.spot.complain("not_in_this_release", message).warn());
    }
}

pub(super) fn environment(fields: &mut Fields, wrong: &mut Wrong) -> Option<String> {
    let Some((text, spot)) = fields.text("environment", wrong) else { return Some("default".into()) };
    if is_name(&text) {
        return Some(text);
    }
    let message = format!("`{text}` is not a name: letters, digits, _ and - are allowed, 128 at most");
    wrong.push(spot.complain("bad_name", message));
    None
}

pub(super) fn is_name(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    (1..=128).contains(&text.len()) && text.bytes().all(word) && text.starts_with(|c: char| c.is_ascii_alphanumeric())
}

/// Text that may stand in the file, or a secret that may not.
pub(super) fn secret_or_text(node: &Node, is_secret: bool, what: &str, wrong: &mut Wrong) -> Option<String> {
    if is_secret {
        return secret(node, what, wrong);
    }
    let text = node.scalar_text();
    if text.is_none() {
        wrong.push(node.spot.complain("bad_type", format!("{what} must be text or a number, not {}", node.kind())));
    }
    text
}

/// A secret: text that stands elsewhere.
pub(super) fn secret(node: &Node, what: &str, wrong: &mut Wrong) -> Option<String> {
    let Some(text) = node.text() else {
        wrong.push(node.spot.complain("bad_type", format!("{what} must be a reference, not {}", node.kind())));
        return None;
    };
    if !node.referenced {
        let complaint =
            node.spot.complain("literal_secret", format!("{what} is a secret and may not stand in the file"));
        wrong.push(complaint.hint("write env:NAME or file:PATH"));
        return None;
    }
    if text.trim().is_empty() {
        let complaint = node.spot.complain("bad_secret", format!("{what} is empty or blank"));
        wrong.push(complaint.hint("look at what the variable or file holds"));
        return None;
    }
    // What could not be found was complained about; its stand-in is no secret.
    let missing =
        |c: &Complaint| c.code == "unresolved_reference" && (c.line, c.col) == (node.spot.line, node.spot.col);
    (!wrong.iter().any(missing)).then(|| text.to_owned())
}
