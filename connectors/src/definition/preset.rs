//! Shipped definitions laid under a user's file: maps merge, lists replace, streams join by name.

use super::read::Out;
use crate::config_text::{self, Content, Entry, Node, SourceSpan, nearest};

/// Name and text of every shipped definition.
const SHIPPED: [(&str, &str); 1] = [("github", include_str!("../../presets/github.yaml"))];

/// Names of the shipped definitions.
pub fn presets() -> impl Iterator<Item = &'static str> {
    SHIPPED.iter().map(|(name, _)| *name)
}

/// The text of a shipped definition.
pub(super) fn text(name: &str) -> Option<&'static str> {
    SHIPPED.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
}

/// The file with its preset under it; the file as it is if it names none.
pub(super) fn lay(root: Node, out: &mut Out) -> Node {
    let Some(node) = root.get("preset").filter(|node| !node.is_null()) else { return without_names(root, out) };
    let name = node.text().unwrap_or_default();
    let Some(text) = text(name) else {
        let complaint = node.spot.complain("unknown_preset", format!("there is no preset `{name}`"));
        let known: Vec<&str> = presets().collect();
        out.push(match nearest(name, presets()) {
            Some(near) => complaint.hint(format!("did you mean `{near}`?")),
            None => complaint.hint(format!("known presets: {}", known.join(", "))),
        });
        return without_names(root, out);
    };
    let mut base = match config_text::parse(&format!("preset {name}"), text) {
        Ok(base) => base,
        Err(complaints) => {
            out.extend(complaints);
            return root;
        }
    };
    // The user's file names the source.
    let shipped = take(&mut base, "streams");
    let mut root = root;
    let chosen = take(&mut root, "streams");
    let streams = join(shipped, chosen, out);
    let mut laid = base.overlay(root);
    if let (Content::Map(entries), Some(streams)) = (&mut laid.content, streams) {
        entries.push(streams);
    }
    laid
}

fn take(node: &mut Node, key: &str) -> Option<Entry> {
    let Content::Map(entries) = &mut node.content else { return None };
    let at = entries.iter().position(|e| e.key == key)?;
    Some(entries.remove(at))
}

/// The user's list picks shipped streams by name, changes them, or adds its own; without one all shipped streams are taken.
fn join(shipped: Option<Entry>, chosen: Option<Entry>, out: &mut Out) -> Option<Entry> {
    let Some(chosen) = chosen else { return shipped };
    let known = match shipped.map(|e| e.value.content) {
        Some(Content::List(list)) => list,
        _ => Vec::new(),
    };
    let Content::List(list) = chosen.value.content else { return Some(chosen) };
    let find = |name: &str| known.iter().find(|s| s.get("name").and_then(Node::text) == Some(name)).cloned();
    let mut joined = Vec::with_capacity(list.len());
    for node in list {
        let by_name = matches!(node.content, Content::Text(_));
        let name = if by_name { node.text() } else { node.get("name").and_then(Node::text) };
        match (name.and_then(find), by_name) {
            (Some(mut stream), true) => {
                stream.spot = node.spot;
                joined.push(stream);
            }
            (Some(stream), false) => joined.push(stream.overlay(node)),
            (None, true) => {
                let names: Vec<&str> = known.iter().filter_map(|s| s.get("name").and_then(Node::text)).collect();
                out.push(unknown(name.unwrap_or_default(), &node.spot, &names));
            }
            (None, false) => joined.push(node),
        }
    }
    let value = Node { content: Content::List(joined), spot: chosen.value.spot, referenced: false };
    Some(Entry { key: chosen.key, spot: chosen.spot, value })
}

fn unknown(name: &str, spot: &SourceSpan, known: &[&str]) -> config_text::Complaint {
    let complaint = spot.complain("unknown_stream", format!("the preset has no stream `{name}`"));
    complaint.hint(format!("it has {}", known.join(", ")))
}

/// Without a preset a mere name in `streams` stands for nothing.
fn without_names(mut root: Node, out: &mut Out) -> Node {
    if let Content::Map(entries) = &mut root.content
        && let Some(streams) = entries.iter_mut().find(|e| e.key == "streams")
        && let Content::List(list) = &mut streams.value.content
    {
        list.retain(|node| match node.text() {
            Some(name) => {
                let complaint = node.spot.complain("unknown_stream", format!("`{name}` is not described"));
                out.push(complaint.hint("names alone pick streams of a `preset`"));
                false
            }
            None => true,
        });
    }
    root
}
