//! Streams: identity, requests, windows, maps, schemas.

use super::context::StreamContext;
use super::read::{self, ANSWER, KnownNames, Out, Variables};
use super::request::{self, Level, request};
use super::{Deletes, Fetch, Incremental, Map, OnInvalid, Request, Schedule, Stream, deletes, schedule, topic};
use crate::config_text::{Content, Entry, Fields, Node, Reference, SourceSpan, bad_type};
use crate::expr::Expr;
use serde_json::Value;
use std::time::Duration;
use syncline_engine::model::{Strategy, Timestamp};

/// Fields the compatible surface adds to every record.
const RESERVED: [&str; 1] = ["_nango_metadata"];
/// Words YAML 1.1 took for booleans.
const BOOLEAN_LIKE: [&str; 6] = ["yes", "no", "on", "off", "y", "n"];
const MAX_BATCH: u64 = 1_000;

/// Reads an entry of `streams`.
pub(super) fn stream(node: Node, around: &StreamContext<'_>, out: &mut Out) -> Option<Stream> {
    let mut fields = Fields::open(node, "an entry of `streams`", out)?;
    let name = fields.require_text("name", out);
    let (name, spot) = name?;
    read::stream_name(&name, &spot, out);
    fields.what = format!("stream `{name}`");
    let sync = fields.text("sync", out).map_or_else(|| name.clone(), |(sync, _)| sync);
    let level = around.level.inner(&mut fields, around.names, out);
    let variables = around.names.variables(ANSWER);
    let key_spot = fields.peek("key").map(|node| node.spot.clone());
    let (key, composite) = match fields.require("key", out) {
        Some(node) => read::key(&node, &format!("`key` of stream `{name}`"), variables, out),
        None => Default::default(),
    };
    let modified_at = read::time_at(&mut fields, "modified_at", variables, out);
    let merge = strategy(&mut fields, modified_at.is_some(), out);
    let schedule = match fields.take("schedule") {
        Some(node) => schedule::read(node, &format!("`schedule` of stream `{name}`"), out),
        None => Schedule::default(),
    };
    let (list, incremental) = listings(&mut fields, around, &level, out);
    let fetch = fields.take("fetch").and_then(|node| fetch(node, around, &level, out));
    let topic = fields.take("topic").and_then(|node| topic::topic(node, around.names, out));
    let map = fields.take("map").map_or(Map::Same, |node| map(node, variables, out));
    if let (Some(spot), Map::Same, true) = (key_spot, &map, replaces_id(&key, composite)) {
        let message =
            format!("the `id` of a record of stream `{name}` is its `key`: an `id` that an item has itself is lost");
        let hint = "if items have one that is wanted, write a `map` that keeps it under another name: {own_id: .id, …}";
        out.push(spot.complain("id_replaced", message).warn().hint(hint));
    }
    let (schema, on_invalid) = schema(&mut fields, around, out);
    let ignore_in_diff = ignored(&mut fields, &map, out);
    let deletes = match fields.list("deletes", out) {
        Some(entries) => deletes::deletes(entries, around, &level, list.is_some(), fetch.is_some(), out),
        None => Deletes { from_full_list: None, listings: Vec::new(), flag: None, guard: Some(deletes::GUARD) },
    };
    read::later(&mut fields, "redact", "leave the fields out of `map`, so that they are never stored", out);
    fields.finish(out);
    let stream = Stream {
        name,
        sync,
        key,
        composite,
        modified_at,
        merge,
        schedule,
        list: list.flatten(),
        incremental: incremental.flatten(),
        fetch,
        topic,
        map,
        schema,
        on_invalid,
        ignore_in_diff,
        deletes,
        of_code: false,
        of_function: false,
    };
    unconditional(&stream, around.conditional, &spot, out);
    Some(stream)
}

impl Stream {
    /// A model that a function writes. What webhooks say of it themselves has its id where the function's records have it.
    pub fn of_function(model: &str, schema: serde_json::Value) -> Stream {
        Stream {
            name: model.to_owned(),
            sync: model.to_owned(),
            key: Expr::compile(".id").into_iter().collect(),
            composite: false,
            modified_at: None,
            merge: Strategy::Override,
            schedule: Schedule::default(),
            list: None,
            incremental: None,
            fetch: None,
            topic: None,
            map: Map::Same,
            schema: Some(schema),
            on_invalid: OnInvalid::Off,
            ignore_in_diff: Vec::new(),
            deletes: Deletes { from_full_list: None, listings: Vec::new(), flag: None, guard: Some(deletes::GUARD) },
            of_code: false,
            of_function: true,
        }
    }
}

/// A validator vouches for the body only, so that what reads headers is always asked for in full.
fn unconditional(stream: &Stream, conditional: bool, spot: &SourceSpan, out: &mut Out) {
    let requests = || stream.list.iter().chain(stream.incremental.iter().map(|i| &i.request));
    if conditional && requests().next().is_some() && (stream.reads_headers() || requests().any(Request::reads_headers))
    {
        let message =
            format!("`limits.conditional` does nothing for stream `{}`: it reads headers (`$h`)", stream.name);
        let complaint = spot.complain("conditional_with_headers", message).warn();
        out.push(complaint.hint("read the body instead, or set limits.conditional to false"));
    }
}

/// Whether the id of a record is something else than the item's own `id`, be that as text.
fn replaces_id(key: &[Expr], composite: bool) -> bool {
    let own = |key: &Expr| {
        key.text()
            .trim()
            .strip_prefix(".id")
            .is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || "._[".contains(c)))
    };
    !key.is_empty() && (composite || !key.iter().all(own))
}

fn strategy(fields: &mut Fields, has_time: bool, out: &mut Out) -> Strategy {
    let spot = fields.peek("merge").map(|n| n.spot.clone());
    let words = [
        ("latest", Strategy::Latest),
        ("override", Strategy::Override),
        ("ignore_if_modified_after", Strategy::IgnoreIfModifiedAfter),
    ];
    let written = fields.word("merge", &words, out);
    if let (Some(Strategy::Latest), false, Some(spot)) = (written, has_time, spot) {
        let complaint = spot.complain("latest_needs_modified_at", "`merge: latest` compares modified times");
        out.push(complaint.hint("add `modified_at`, or choose another strategy"));
    }
    let default = if has_time { Strategy::Latest } else { Strategy::IgnoreIfModifiedAfter };
    written.unwrap_or(default)
}

/// The outer option says whether the key was written, the inner one whether it could be read.
type WrittenKeys = (Option<Option<Request>>, Option<Option<Incremental>>);

fn listings(fields: &mut Fields, around: &StreamContext<'_>, level: &Level, out: &mut Out) -> WrittenKeys {
    let list_node = fields.take("list");
    let incremental_node = fields.take("incremental");
    if list_node.is_none() && incremental_node.is_none() && !fields.has("topic") {
        // Legal where the source's input topic is read; whoever knows the settings drops this or makes it an error.
        let message = format!("{} has neither `list` nor `incremental` nor `topic`", fields.what);
        let complaint = fields.spot.complain("no_request", message).warn();
        out.push(complaint.hint(
            "add one of them, or `kafka` to syncline.yaml: then the source's input topic feeds it; \
                 or start the program whose code brings this source",
        ));
    }
    let incremental = incremental_node.map(|node| {
        let node = inherit(list_node.as_ref(), node);
        incremental(node, around, level, list_node.is_some(), out)
    });
    let list = list_node.map(|node| {
        let mut fields = Fields::open(node, "`list`", out)?;
        let list = request(&mut fields, level, around.names, out);
        fields.finish(out);
        list
    });
    (list, incremental)
}

/// An `incremental` without a path of its own takes what it leaves out from `list`; headers and params key by key.
fn inherit(list: Option<&Node>, incremental: Node) -> Node {
    let Some(Node { content: Content::Map(base), .. }) = list else { return incremental };
    if request::has_path(&incremental) {
        return incremental;
    }
    let Node { content: Content::Map(own), spot, referenced } = incremental else { return incremental };
    let mut merged: Vec<Entry> = base.clone();
    for entry in own {
        match merged.iter_mut().find(|e| e.key == entry.key) {
            Some(slot) if matches!(entry.key.as_str(), "params" | "headers") => {
                let base = std::mem::replace(&mut slot.value, Node::empty_map(spot.clone()));
                slot.value = base.overlay(entry.value);
            }
            Some(slot) => *slot = entry,
            None => merged.push(entry),
        }
    }
    Node { content: Content::Map(merged), spot, referenced }
}

fn incremental(
    node: Node,
    around: &StreamContext<'_>,
    level: &Level,
    has_list: bool,
    out: &mut Out,
) -> Option<Incremental> {
    let names = KnownNames { window: true, ..around.names.clone() };
    let mut fields = Fields::open(node, "`incremental`", out)?;
    let spot = fields.spot.clone();
    let window = fields.take("window");
    let request = request(&mut fields, level, &names, out);
    fields.finish(out);
    let mut incremental = Incremental {
        request: request?,
        lookback: Duration::from_secs(60),
        start: None,
        split_at: None,
        min_span: Duration::from_secs(1),
    };
    self::window(window.unwrap_or_else(|| Node::empty_map(spot.clone())), &mut incremental, has_list, out);
    if around.conditional && incremental.request.uses_until {
        let message = "`until` changes with every run, so that no answer is ever «not modified»";
        let complaint = spot.complain("conditional_with_until", message).warn();
        out.push(complaint.hint("leave `until` out of the request, or set limits.conditional to false"));
    }
    Some(incremental)
}

fn window(node: Node, incremental: &mut Incremental, has_list: bool, out: &mut Out) {
    let Some(mut fields) = Fields::open(node, "`window`", out) else { return };
    if let Some((lookback, _)) = fields.duration("lookback", out) {
        incremental.lookback = lookback;
    }
    let start = fields.take("start");
    if start.is_none() && !has_list {
        let complaint = fields.spot.complain("missing_key", "without `list`, `window` needs the key `start`");
        out.push(complaint.hint("the time of the first `since`, for example 2020-01-01T00:00:00Z"));
    }
    incremental.start = start.and_then(|node| match node.text().and_then(instant) {
        Some(time) => Some(time),
        None => {
            let message = format!("{} is not a time", node.to_json());
            out.push(node.spot.complain("bad_value", message).hint("write RFC 3339: 2020-01-01T00:00:00Z"));
            None
        }
    });
    let split_spot = fields.peek("split_at").map(|n| n.spot.clone());
    incremental.split_at = fields.whole("split_at", 1, 100_000_000, out);
    if let Some(spot) = split_spot
        && !(incremental.request.uses_until && incremental.request.uses_since)
    {
        let complaint = spot.complain("split_needs_until", "`split_at` needs `since` and `until` in the request");
        out.push(complaint.hint("a window can be halved only if the request names both of its ends"));
    }
    if let Some((span, spot)) = fields.duration("min_span", out) {
        if span.is_zero() {
            out.push(spot.complain("out_of_range", "`min_span` must be more than 0"));
        }
        incremental.min_span = span;
    }
    fields.finish(out);
}

/// A time or a date.
fn instant(text: &str) -> Option<Timestamp> {
    Timestamp::parse(text).or_else(|| Timestamp::parse(&format!("{text}T00:00:00Z")))
}

fn fetch(node: Node, around: &StreamContext<'_>, level: &Level, out: &mut Out) -> Option<Fetch> {
    let names = KnownNames { key: true, ..around.names.clone() };
    let mut fields = Fields::open(node, "`fetch`", out)?;
    let batch = fields.whole("batch", 1, MAX_BATCH, out);
    let words = [("ignore", false), ("delete", true)];
    let not_found_deletes = fields.word("not_found", &words, out).unwrap_or(false);
    let request = request(&mut fields, level, &names, out);
    let spot = fields.spot.clone();
    fields.finish(out);
    let request = request?;
    let (one, many) = (request::mentions(&request, "key"), request::mentions(&request, "keys"));
    if one == many {
        let message = "`fetch` must mention either {{ key }} or {{ keys }}";
        out.push(spot.complain("bad_placeholder", message));
    }
    if batch.is_some_and(|b| b > 1) && !many {
        out.push(spot.complain("conflict", "`batch` needs {{ keys }} in the request"));
    }
    let batch = usize::try_from(batch.unwrap_or(if many { 100 } else { 1 })).unwrap_or(1);
    Some(Fetch { request, batch, not_found_deletes })
}

fn map(node: Node, variables: Variables<'_>, out: &mut Out) -> Map {
    let Content::Map(entries) = &node.content else {
        let text = node.text().map(str::trim);
        return match (text, read::expr(&node, "`map`", variables, out)) {
            (Some("."), _) | (_, None) => Map::Same,
            (_, Some(expr)) => Map::Whole(expr),
        };
    };
    let mut fields = Vec::with_capacity(entries.len());
    for entry in entries {
        if RESERVED.contains(&entry.key.as_str()) {
            let message = format!("`{}` is added to every record and cannot be mapped", entry.key);
            out.push(entry.spot.complain("reserved_field", message));
        }
        if BOOLEAN_LIKE.contains(&entry.key.to_ascii_lowercase().as_str()) {
            let message = format!("`{}` is plain text here, but other YAML readers take it for a boolean", entry.key);
            out.push(entry.spot.complain("boolean_like", message).warn().hint("quote it"));
        }
        if let Some(expr) = read::expr(&entry.value, &format!("`map.{}`", entry.key), variables, out) {
            fields.push((entry.key.clone(), expr));
        }
    }
    Map::Fields(fields)
}

fn schema(fields: &mut Fields, around: &StreamContext<'_>, out: &mut Out) -> (Option<Value>, OnInvalid) {
    let words = [("warn", OnInvalid::Warn), ("quarantine", OnInvalid::Quarantine), ("off", OnInvalid::Off)];
    let on_invalid = fields.word("on_invalid", &words, out).unwrap_or(OnInvalid::Warn);
    let Some(node) = fields.take("schema") else { return (None, on_invalid) };
    let bad = |message: String| node.spot.complain("bad_schema", message);
    let json = match (&node.content, node.get("file")) {
        (Content::Map(map), Some(file)) if map.len() == 1 => {
            let path = file.text().unwrap_or_default().to_owned();
            match (around.lookup)(&Reference::File(path.clone())).map(|text| serde_json::from_str::<Value>(&text)) {
                Ok(Ok(json)) => json,
                Ok(Err(error)) => {
                    out.push(bad(format!("`{path}` is not JSON: {error}")));
                    return (None, on_invalid);
                }
                Err(why) => {
                    out.push(file.spot.complain("unresolved_reference", format!("`{path}`: {why}")));
                    return (None, on_invalid);
                }
            }
        }
        (Content::Map(_) | Content::Bool(_), _) => node.to_json(),
        _ => {
            out.push(bad_type(&node, "`schema`", "a JSON Schema"));
            return (None, on_invalid);
        }
    };
    if let Err(error) = jsonschema::draft202012::new(&json) {
        let text: String = error.to_string().chars().take(300).collect();
        out.push(bad(text).hint("JSON Schema 2020-12; `$ref` may point inside the schema only"));
        return (None, on_invalid);
    }
    (Some(json), on_invalid)
}

fn ignored(fields: &mut Fields, map: &Map, out: &mut Out) -> Vec<String> {
    let paths = fields.texts("ignore_in_diff", out).unwrap_or_default();
    if let Map::Fields(mapped) = map {
        for (path, spot) in &paths {
            let first = path.split('.').next().unwrap_or_default();
            if !mapped.iter().any(|(name, _)| name == first) {
                let complaint = spot.complain("unknown_field", format!("`map` makes no field `{first}`"));
                let near = crate::config_text::nearest(first, mapped.iter().map(|(name, _)| name.as_str()));
                out.push(match near {
                    Some(near) => complaint.hint(format!("did you mean `{near}`?")),
                    None => complaint,
                });
            }
        }
    }
    paths.into_iter().map(|(path, _)| path).collect()
}
