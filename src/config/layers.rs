//! Flags, environment and files laid over one another: maps merge, everything else is replaced by the higher rank.

use super::Origin;
use super::read::KEYS;
use crate::connectors::config_text::{
    self, Complaint, Content, Entry, Node, Reference, SourceSpan, nearest, parse, resolve, resolve_from,
};
use std::collections::BTreeMap;
use std::path::Path;

/// Variables of this prefix are settings.
const PREFIX: &str = "SYNCLINE_";

/// Variables of this prefix that are read by commands and are no settings.
const NO_SETTINGS: [&str; 3] = ["SYNCLINE_API_KEY", "SYNCLINE_CONFIG", "SYNCLINE_ENVIRONMENT"];

/// One tree of everything that is set, references resolved.
pub(super) fn tree(origin: &Origin, complaints: &mut Vec<Complaint>) -> Node {
    let mut tree = Node::empty_map(SourceSpan::start("settings"));
    for path in origin.files.iter().rev() {
        if let Some(layer) = file(path, &origin.env, complaints) {
            tree = tree.overlay(layer);
        }
    }
    let referenced = |name: &str| NO_SETTINGS.contains(&name);
    let mut variables: Vec<_> = origin.env.iter().filter(|(name, _)| !referenced(name)).collect();
    variables.sort();
    for (name, value) in variables {
        let Some(rest) = name.strip_prefix(PREFIX) else { continue };
        let path: Vec<String> = rest.split("__").map(str::to_lowercase).collect();
        if known(name, &path, complaints) {
            tree = tree.overlay(single(name, &path, value, &origin.env, complaints));
        }
    }
    for (key, value) in &origin.flags {
        let path: Vec<String> = key.split('.').map(str::to_owned).collect();
        tree = tree.overlay(single(&format!("--{key}"), &path, value, &origin.env, complaints));
    }
    tree
}

/// Where each value came from, by dotted key.
pub(super) fn origins(tree: &Node) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    walk(tree, String::new(), &mut all);
    all
}

fn walk(node: &Node, key: String, all: &mut BTreeMap<String, String>) {
    match &node.content {
        Content::Map(entries) => {
            for entry in entries {
                let inner = if key.is_empty() { entry.key.clone() } else { format!("{key}.{}", entry.key) };
                walk(&entry.value, inner, all);
            }
        }
        _ => {
            all.insert(key, format!("{}:{}", node.spot.file, node.spot.line));
        }
    }
}

fn file(path: &Path, env: &[(String, String)], complaints: &mut Vec<Complaint>) -> Option<Node> {
    let name = path.display().to_string();
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(why) => {
            complaints
                .push(SourceSpan::start(&name).complain("unreadable_file", format!("the file cannot be read: {why}")));
            return None;
        }
    };
    match parse(&name, &text) {
        Ok(mut node) => {
            let folder = path.parent().unwrap_or(Path::new("."));
            resolve(&mut node, &lookup(folder, env), complaints);
            if !matches!(node.content, Content::Map(_)) {
                let message = format!("settings are a map of keys, not {}", node.kind());
                complaints.push(node.spot.complain("bad_type", message));
                return None;
            }
            Some(node)
        }
        Err(wrong) => {
            complaints.extend(wrong);
            None
        }
    }
}

/// References into the given environment instead of the process's, so that the same input gives the same settings.
fn lookup(folder: &Path, env: &[(String, String)]) -> impl Fn(&Reference) -> Result<String, String> + use<> {
    let files = resolve_from(folder);
    let env: BTreeMap<String, String> = env.iter().cloned().collect();
    move |reference| match reference {
        Reference::Env(name) => match env.get(name) {
            None => Err("the environment variable is not set".into()),
            Some(value) if value.is_empty() => Err("the environment variable is empty".into()),
            Some(value) => Ok(value.clone()),
        },
        file => files(file),
    }
}

/// Whether a variable names a setting. Others are only pointed out: container platforms set variables of their own that begin
/// with the name of a service, and references may name any variable.
fn known(name: &str, path: &[String], complaints: &mut Vec<Complaint>) -> bool {
    let first = path.first().map(String::as_str).unwrap_or_default();
    if KEYS.contains(&first) {
        return true;
    }
    if let Some(near) = nearest(first, KEYS) {
        let complaint =
            SourceSpan::start(name).complain("unknown_key", "the variable names no setting and is not used");
        complaints.push(complaint.hint(format!("did you mean {PREFIX}{}?", near.to_uppercase())).warn());
    }
    false
}

/// A tree with one value at `path`. It counts as referenced: it does not stand in a file.
fn single(name: &str, path: &[String], text: &str, env: &[(String, String)], complaints: &mut Vec<Complaint>) -> Node {
    let spot = SourceSpan::start(name);
    let mut value = match text.trim_start().chars().next() {
        Some('[' | '{') => parse(name, text).unwrap_or_else(|wrong| {
            complaints.extend(wrong);
            Node { content: Content::Null, spot: spot.clone(), referenced: true }
        }),
        _ => Node { content: Content::Text(text.to_owned()), spot: spot.clone(), referenced: true },
    };
    resolve(&mut value, &lookup(Path::new("."), env), complaints);
    refer(&mut value);
    path.iter().rev().fold(value, |value, key| {
        let entry = Entry { key: key.clone(), spot: spot.clone(), value };
        Node { content: Content::Map(vec![entry]), spot: spot.clone(), referenced: true }
    })
}

fn refer(node: &mut config_text::Node) {
    node.referenced = true;
    match &mut node.content {
        Content::List(list) => list.iter_mut().for_each(refer),
        Content::Map(map) => map.iter_mut().for_each(|e| refer(&mut e.value)),
        _ => {}
    }
}
