//! YAML text → located tree, iteratively, with every bound checked before memory is spent.

use super::{Complaint, Content, Entry, MAX_ALIAS_NODES, MAX_BYTES, MAX_DEPTH, Node, SourceSpan, scalar};
use saphyr_parser::{Event, Parser, ScalarStyle, Span};
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

/// Reads `text`; `file` is the name used in complaints. An empty file is an empty map.
pub fn parse(file: &str, text: &str) -> Result<Node, Vec<Complaint>> {
    let start = SourceSpan::start(file);
    if text.len() > MAX_BYTES {
        return Err(vec![
            start.complain("too_large", format!("the file has {} bytes; {MAX_BYTES} are allowed", text.len())),
        ]);
    }
    let mut builder = Builder { file: start.file.clone(), ..Builder::default() };
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    builder.read(&join_surrogates(text));
    match builder.root {
        _ if !builder.complaints.is_empty() => Err(super::in_order(builder.complaints)),
        Some(node) if !node.is_null() => Ok(node),
        _ => Ok(Node::empty_map(start)),
    }
}

/// JSON writes characters beyond the basic plane as two escapes, which YAML does not know: `\ud83d\ude00` becomes the character.
fn join_surrogates(text: &str) -> Cow<'_, str> {
    if !text.contains("\\ud") && !text.contains("\\uD") {
        return Cow::Borrowed(text);
    }
    let unit = |at: usize| {
        let hex = text.get(at..at + 6)?.strip_prefix("\\u")?;
        u16::from_str_radix(hex, 16).ok().filter(|_| hex.bytes().all(|b| b.is_ascii_hexdigit()))
    };
    let mut joined = String::with_capacity(text.len());
    let mut rest = 0;
    while let Some(found) = text.get(rest..).and_then(|t| t.find('\\')) {
        let at = rest + found;
        joined.push_str(text.get(rest..at).unwrap_or_default());
        let pair = unit(at).zip(unit(at + 6)).and_then(|(high, low)| char::decode_utf16([high, low]).next()?.ok());
        let pair = pair.filter(|c| u32::from(*c) > 0xffff);
        rest = match pair {
            Some(_) => at + 12,
            // The backslash and whatever it escapes.
            None => at + 1 + text.get(at + 1..).and_then(|t| t.chars().next()).map_or(0, char::len_utf8),
        };
        match pair {
            Some(c) => joined.push(c),
            None => joined.push_str(text.get(at..rest).unwrap_or_default()),
        }
    }
    joined.push_str(text.get(rest..).unwrap_or_default());
    Cow::Owned(joined)
}

/// A list or map that is still open.
struct Open {
    node: Node,
    /// Anchor it carries; 0 is none.
    anchor: usize,
    /// Key waiting for its value.
    key: Option<(String, SourceSpan)>,
    /// The key waiting was refused: its value is dropped.
    drop_value: bool,
}

#[derive(Default)]
struct Builder {
    file: Arc<str>,
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    alias_nodes: usize,
    documents: usize,
    root: Option<Node>,
    complaints: Vec<Complaint>,
}

impl Builder {
    fn read(&mut self, text: &str) {
        for event in Parser::new_from_str(text) {
            let more = match event {
                Ok((event, span)) => self.take(event, span),
                Err(error) => {
                    let spot = self.spot(*error.marker());
                    self.complaints.push(spot.complain("bad_yaml", error.info().to_owned()));
                    false
                }
            };
            if !more || self.complaints.len() >= super::MAX_COMPLAINTS {
                return;
            }
        }
    }

    fn spot(&self, at: saphyr_parser::Marker) -> SourceSpan {
        SourceSpan { file: self.file.clone(), line: at.line().max(1), col: at.col() + 1 }
    }

    /// Takes one event; false ends the reading.
    fn take(&mut self, event: Event<'_>, span: Span) -> bool {
        let spot = self.spot(span.start);
        match event {
            Event::DocumentStart(_) => return self.document(&spot),
            Event::Scalar(text, style, anchor, tag) => {
                self.refuse_tag(tag.is_some(), &spot);
                let content = match style {
                    ScalarStyle::Plain => scalar::core_schema(&text),
                    _ => Content::Text(text.into_owned()),
                };
                self.place(Node { content, spot, referenced: false }, anchor, style == ScalarStyle::Plain);
            }
            Event::SequenceStart(anchor, tag) => {
                self.refuse_tag(tag.is_some(), &spot);
                return self.descend(Content::List(Vec::new()), spot, anchor);
            }
            Event::MappingStart(anchor, tag) => {
                self.refuse_tag(tag.is_some(), &spot);
                return self.descend(Content::Map(Vec::new()), spot, anchor);
            }
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some(open) = self.open.pop() {
                    self.place(open.node, open.anchor, false);
                }
            }
            Event::Alias(anchor) => return self.alias(anchor, spot),
            _ => {}
        }
        true
    }

    fn document(&mut self, spot: &SourceSpan) -> bool {
        self.documents += 1;
        if self.documents > 1 {
            let complaint = spot.complain("several_documents", "a second document begins here");
            self.complaints.push(complaint.hint("write one document a file; remove the line `---`"));
        }
        self.documents == 1
    }

    fn refuse_tag(&mut self, tagged: bool, spot: &SourceSpan) {
        if tagged {
            let complaint = spot.complain("tag", "tags (`!name`) are not part of this format");
            self.complaints.push(complaint.hint("remove the tag; quote the value if text is meant"));
        }
    }

    fn descend(&mut self, content: Content, spot: SourceSpan, anchor: usize) -> bool {
        if self.open.len() >= MAX_DEPTH {
            self.complaints.push(spot.complain("too_deep", format!("nested deeper than {MAX_DEPTH} levels")));
            return false;
        }
        let node = Node { content, spot, referenced: false };
        self.open.push(Open { node, anchor, key: None, drop_value: false });
        true
    }

    fn alias(&mut self, anchor: usize, spot: SourceSpan) -> bool {
        let Some(node) = self.anchors.get(&anchor) else {
            self.complaints.push(spot.complain("bad_yaml", "an alias must not contain itself"));
            return false;
        };
        self.alias_nodes = self.alias_nodes.saturating_add(node.size());
        if self.alias_nodes > MAX_ALIAS_NODES {
            let message = format!("aliases expand to more than {MAX_ALIAS_NODES} nodes");
            self.complaints.push(spot.complain("too_many_nodes", message));
            return false;
        }
        let node = node.clone();
        if self.open.len() + depth(&node) > MAX_DEPTH {
            self.complaints.push(spot.complain("too_deep", format!("nested deeper than {MAX_DEPTH} levels")));
            return false;
        }
        self.place(node, 0, false);
        true
    }

    /// Puts a finished node where it belongs.
    fn place(&mut self, node: Node, anchor: usize, plain: bool) {
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        let Some(mut parent) = self.open.pop() else {
            self.root = Some(node);
            return;
        };
        match &mut parent.node.content {
            Content::List(list) => list.push(node),
            Content::Map(entries) => match parent.key.take() {
                Some(_) if parent.drop_value => parent.drop_value = false,
                Some((key, spot)) => entries.push(Entry { key, spot, value: node }),
                None => {
                    let (key, refused) = self.key(&node, entries, plain);
                    parent.key = Some((key, node.spot));
                    parent.drop_value = refused;
                }
            },
            _ => {}
        }
        self.open.push(parent);
    }

    /// The text of a key, and whether it was refused.
    fn key(&mut self, node: &Node, entries: &[Entry], plain: bool) -> (String, bool) {
        let key = match &node.content {
            Content::Text(text) => text.clone(),
            Content::Number(number) => number.to_string(),
            Content::Bool(b) => b.to_string(),
            Content::Null => "null".to_owned(),
            Content::List(_) | Content::Map(_) => {
                self.complaints
                    .push(node.spot.complain("bad_yaml", format!("a key must be text, not {}", node.kind())));
                return (String::new(), true);
            }
        };
        let complaint = if plain && key == "<<" {
            let complaint = node.spot.complain("merge_key", "merge keys (`<<`) are not part of this format");
            complaint.hint("write the keys out, or use an alias for each value")
        } else if let Some(first) = entries.iter().find(|e| e.key == key) {
            node.spot.complain("duplicate_key", format!("`{key}` was already given in line {}", first.spot.line))
        } else {
            return (key, false);
        };
        self.complaints.push(complaint);
        (key, true)
    }
}

fn depth(node: &Node) -> usize {
    match &node.content {
        Content::List(list) => 1 + list.iter().map(depth).max().unwrap_or(0),
        Content::Map(map) => 1 + map.iter().map(|e| depth(&e.value)).max().unwrap_or(0),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes(text: &str) -> Vec<String> {
        match parse("f.yaml", text) {
            Ok(_) => vec![],
            Err(c) => c.iter().map(|c| format!("{}:{} {}", c.line, c.col, c.code)).collect(),
        }
    }

    #[test]
    fn core_schema_and_places() {
        let node = parse("f.yaml", "a: yes\nb: 0x1F\nc: [1.50, ~, \"true\", true]\nd:\n").expect("valid");
        let json = serde_json::to_string(&node.to_json()).expect("json");
        assert_eq!(json, r#"{"a":"yes","b":31,"c":[1.50,null,"true",true],"d":null}"#);
        let c = node.get("c").expect("c");
        assert_eq!((c.spot.line, c.spot.col), (3, 4));
    }

    #[test]
    fn what_is_refused() {
        assert_eq!(codes("a: 1\na: 2"), ["2:1 duplicate_key"]);
        assert_eq!(codes("a: !x 1"), ["1:7 tag"]);
        assert_eq!(codes("a: &a {b: 1}\nc: {<<: *a}"), ["2:5 merge_key"]);
        assert_eq!(codes("a: 1\n---\nb: 2"), ["2:1 several_documents"]);
        assert_eq!(codes("{a: 1}: 2"), ["1:1 bad_yaml"]);
        assert_eq!(codes("a: &a [*a]"), ["1:8 bad_yaml"]);
        assert_eq!(codes(&format!("{}{}", "[".repeat(100), "]".repeat(100))), ["1:65 too_deep"]);
        assert!(!codes(&"[".repeat(5000)).is_empty());
        assert!(codes(&" ".repeat(MAX_BYTES + 1))[0].ends_with("too_large"));
    }

    #[test]
    fn alias_bomb_is_refused() {
        let mut text = "a0: &a0 [1,1,1,1,1,1,1,1,1,1]\n".to_owned();
        for i in 1..9 {
            let list = vec![format!("*a{}", i - 1); 10].join(",");
            text.push_str(&format!("a{i}: &a{i} [{list}]\n"));
        }
        assert!(codes(&text)[0].ends_with("too_many_nodes"));
    }

    #[test]
    fn json_is_accepted_as_it_is() {
        let text = "{\n\t\"a\": [1, 2.0e3, null],\n\t\"b\": {\"c\\u00e9\": \"x\\/y \\ud83d\\ude00 \\\\ud83d\"}\n}\n";
        let json = parse("f.json", text).expect("json").to_json();
        assert_eq!(json, serde_json::from_str::<serde_json::Value>(text).expect("json"));
    }
}
