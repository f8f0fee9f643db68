//! Shipped definitions laid under a user's file: maps merge, lists replace, streams join by name.
//!
//! A shipped definition may know several ways to sign in, as a list in `auth`. The file picks one by its `type`; of another way that
//! only the file knows, the request that proves it stays the shipped one. Shipped events of streams that the file does not take are
//! acknowledged, and nothing else.

use super::read::Out;
use crate::config_text::{self, Content, Entry, Node, SourceSpan, nearest};

/// Name and text of every shipped definition.
const SHIPPED: [(&str, &str); 10] = [
    ("github", include_str!("../../presets/github.yaml")),
    ("google-calendar", include_str!("../../presets/google-calendar.yaml")),
    ("hubspot", include_str!("../../presets/hubspot.yaml")),
    ("linear", include_str!("../../presets/linear.yaml")),
    ("notion", include_str!("../../presets/notion.yaml")),
    ("salesforce", include_str!("../../presets/salesforce.yaml")),
    ("shopify", include_str!("../../presets/shopify.yaml")),
    ("slack", include_str!("../../presets/slack.yaml")),
    ("stripe", include_str!("../../presets/stripe.yaml")),
    ("zendesk", include_str!("../../presets/zendesk.yaml")),
];
/// What proves a sign-in, whatever its way.
const PROOF: [&str; 2] = ["test", "connection_fields"];

/// Names of the shipped definitions.
pub fn presets() -> impl Iterator<Item = &'static str> {
    SHIPPED.iter().map(|(name, _)| *name)
}

/// Ways to sign in that a shipped definition knows: values of `auth.type`, the usual one first.
pub fn preset_sign_ins(name: &str) -> Vec<String> {
    let Some(Ok(mut base)) = text(name).map(|text| config_text::parse(name, text)) else { return Vec::new() };
    let types = ways(&mut base).into_iter().filter_map(|way| way.get("type")?.text().map(str::to_owned));
    types.collect()
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
    sign_in(&mut base, root.get("auth").and_then(|auth| auth.get("type")).and_then(Node::text));
    // The user's file names the source.
    let shipped = take(&mut base, "streams");
    let mut root = root;
    let chosen = take(&mut root, "streams");
    let streams = join(shipped, chosen, out);
    acknowledge(&mut base, streams.as_ref());
    let mut laid = base.overlay(root);
    if let (Content::Map(entries), Some(streams)) = (&mut laid.content, streams) {
        entries.push(streams);
    }
    laid
}

/// Of the shipped ways to sign in the one that is wanted, or the first. Headers that only it needs are those of the source.
fn sign_in(base: &mut Node, wanted: Option<&str>) {
    let Some(spot) = base.get("auth").map(|auth| auth.spot.clone()) else { return };
    let mut ways = ways(base);
    let of = |way: &Node| wanted.is_none() || way.get("type").and_then(Node::text) == wanted;
    let value = match ways.iter().position(of) {
        Some(at) => ways.swap_remove(at),
        None => ways.into_iter().next().map_or_else(|| Node::empty_map(spot.clone()), proof),
    };
    let mut value = value;
    let headers = take(&mut value, "headers");
    if let Content::Map(entries) = &mut base.content {
        entries.push(Entry { key: "auth".to_owned(), spot: spot.clone(), value });
    }
    if let Some(headers) = headers {
        let more = Node { content: Content::Map(vec![headers]), spot, referenced: false };
        let whole = std::mem::replace(base, Node::empty_map(more.spot.clone()));
        *base = whole.overlay(more);
    }
}

/// Takes the ways to sign in out of a shipped definition.
fn ways(base: &mut Node) -> Vec<Node> {
    let Some(auth) = take(base, "auth") else { return Vec::new() };
    match auth.value.content {
        Content::List(ways) => ways,
        _ => vec![auth.value],
    }
}

fn proof(mut way: Node) -> Node {
    if let Content::Map(entries) = &mut way.content {
        entries.retain(|entry| PROOF.contains(&entry.key.as_str()));
    }
    way
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

/// Of the shipped events those of streams that the file does not take are only acknowledged.
fn acknowledge(base: &mut Node, streams: Option<&Entry>) {
    let taken: Vec<&str> = match streams.map(|entry| &entry.value.content) {
        Some(Content::List(list)) => list.iter().filter_map(|s| s.get("name").and_then(Node::text)).collect(),
        _ => return,
    };
    let Some(Content::List(events)) = within(base, "webhooks").and_then(|w| within(w, "map")).map(|m| &mut m.content)
    else {
        return;
    };
    for event in events.iter_mut() {
        let other = event.get("stream").and_then(Node::text).is_some_and(|stream| !taken.contains(&stream));
        if let (Content::Map(entries), true) = (&mut event.content, other) {
            entries.retain(|entry| entry.key == "when" || entry.key == "all");
        }
    }
    events.retain(|event| !matches!(&event.content, Content::Map(entries) if entries.is_empty()));
}

fn within<'a>(node: &'a mut Node, key: &str) -> Option<&'a mut Node> {
    let Content::Map(entries) = &mut node.content else { return None };
    entries.iter_mut().find(|entry| entry.key == key).map(|entry| &mut entry.value)
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
