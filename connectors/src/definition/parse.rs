//! A whole file: preset and file laid together, read from the outside in, checked across.

use super::context;
use super::limits::{limits, responses};
use super::read::{self, KnownNames, Out};
use super::request::Level;
use super::{
    Definition, SourceFunctions, Stream, about, actions, connections, effects, functions, partitions, preset, proxy,
    streams, webhooks,
};
use crate::config_text::{self, Complaint, Content, Fields, Node, Reference, SourceSpan};
use crate::expr::Template;
use sha2::{Digest, Sha256};
use std::cell::RefCell;
use std::collections::BTreeSet;

/// The version of the format this release reads.
const FORMAT: u64 = 1;
/// Base URL of a source of which nothing is asked.
pub(super) const NOWHERE: &str = "https://nothing-is-asked.invalid";
/// Shorter values are words and numbers that may occur in any message.
const SHORTEST_MASKED: usize = 6;

/// A definition with warnings, or every complaint of the file in its order.
pub type Parsed = Result<(Definition, Vec<Complaint>), Vec<Complaint>>;

/// Reads and checks a definition. `file` is its name in complaints; `lookup` resolves `env:` and `file:` references (see
/// [`config_text::resolve_from`]).
pub fn parse(file: &str, text: &str, lookup: &dyn Fn(&Reference) -> Result<String, String>) -> Parsed {
    parse_beside(file, text, lookup, &|_| SourceFunctions::default())
}

/// The same for a source that may have functions: what they bring can be named in `webhooks.map` and in connections, and is no part
/// of the definition yet.
pub fn parse_beside(
    file: &str,
    text: &str,
    lookup: &dyn Fn(&Reference) -> Result<String, String>,
    functions: &dyn Fn(&str) -> SourceFunctions,
) -> Parsed {
    let mut out = Out::new();
    let mut root = config_text::parse(file, text)?;
    let resolved = RefCell::new(Vec::new());
    let lookup = |reference: &Reference| {
        let value = lookup(reference)?;
        resolved.borrow_mut().push(value.clone());
        Ok(value)
    };
    config_text::resolve(&mut root, &lookup, &mut out);
    let preset_name = root.get("preset").and_then(Node::text).map(str::to_owned);
    let root = preset::lay(root, &mut out);
    let beside = root.get("source").and_then(Node::text).map(functions).unwrap_or_default();
    let definition = definition(root, preset_name, text, &lookup, beside, &mut out);
    mask(&mut out, &resolved.borrow());
    let complaints = config_text::in_order(out);
    match definition {
        Some(definition) if complaints.iter().all(|c| c.warning) => Ok((definition, complaints)),
        _ if complaints.iter().all(|c| c.warning) => {
            Err(vec![SourceSpan::start(file).complain("bad_yaml", "the file describes no source")])
        }
        _ => Err(complaints),
    }
}

/// What stands behind a reference may be secret even where no secret is expected: complaints must not repeat it.
fn mask(complaints: &mut [Complaint], values: &[String]) {
    for value in values.iter().filter(|v| v.len() >= SHORTEST_MASKED) {
        for complaint in complaints.iter_mut().filter(|c| c.message.contains(value.as_str())) {
            complaint.message = complaint.message.replace(value.as_str(), "***");
        }
    }
}

fn definition(
    root: Node,
    preset: Option<String>,
    text: &str,
    lookup: &dyn Fn(&Reference) -> Result<String, String>,
    beside: SourceFunctions,
    out: &mut Out,
) -> Option<Definition> {
    effects::check(&root, &beside, out);
    let mut fields = Fields::open(root, "the file", out)?;
    format(&mut fields, out);
    let source = fields.require_text("source", out).map(|(name, spot)| {
        read::name(&name, "a source", &spot, out);
        name
    });
    fields.take("preset");
    let title = fields.text("title", out).map(|(text, _)| text);
    fields.text("description", out);
    let about = about::about(fields.take("about"), out);
    let limits = limits(fields.take("limits"), out);
    let outermost = KnownNames::default();
    let base_url = base_url(&mut fields, &outermost, out);
    let origin =
        base_url.as_ref().and_then(|t| t.as_literal()).and_then(|t| url::Url::parse(t).ok()).map(|u| u.origin());
    let outermost = KnownNames { origin, ..outermost };
    let level = source_level(&mut fields, &limits, &outermost, out);
    let partition_node = fields.take("partitions");
    let known: BTreeSet<String> = partitions::names(partition_node.as_ref());
    let names = KnownNames { partitions: known.clone(), in_stream: true, ..outermost.clone() };
    let auth = connections::auth(fields.take("auth"), &level, &outermost, out);
    let partitions = partitions::partitions(partition_node, &level, &outermost, out);
    let around = context::StreamContext { level: &level, names: &names, conditional: limits.conditional, lookup };
    let streams = stream_list(&mut fields, &around, out);
    partitions::check(&partitions, &streams, out);
    let all: Vec<Stream> = streams.iter().cloned().chain(beside.models).collect();
    let webhooks = fields.take("webhooks").and_then(|node| webhooks::webhooks(node, &all, &level, &names, out));
    let actions = actions::actions(&mut fields, &level, &outermost, &all, out);
    let around =
        connections::ConnectionContext { auth: &auth, partitions: &known, streams: &all, functions: beside.syncs };
    let connections = connections::connections(fields.take("connections"), &around, out);
    let functions = functions::functions(fields.take("functions"), out);
    let proxy = proxy::proxy(fields.take("proxy"), base_url.as_ref(), out);
    tests(&mut fields, out);
    read::later(&mut fields, "run", "describe the requests with `list` and `incremental`", out);
    fields.finish(out);
    Some(Definition {
        source: source?,
        text: text.into(),
        hash: hash(text, preset.as_deref()),
        preset,
        title,
        about,
        base_url: base_url?,
        auth,
        headers: level.headers,
        params: level.params,
        limits,
        responses: level.responses,
        partitions: partitions.into_iter().map(|(name, (partition, _))| (name, partition)).collect(),
        streams,
        webhooks,
        connections,
        functions,
        proxy,
        actions,
        function_syncs: Vec::new(),
        on_creation: Vec::new(),
    })
}

fn format(fields: &mut Fields, out: &mut Out) {
    let Some(node) = fields.take("format") else { return };
    if node.to_json().as_u64() != Some(FORMAT) {
        let message = format!("format {} is not known; this release reads format {FORMAT}", node.to_json());
        out.push(node.spot.complain("unsupported_format", message));
    }
}

fn base_url(fields: &mut Fields, names: &KnownNames, out: &mut Out) -> Option<Template> {
    if !fields.has("base_url") && !makes_requests(fields) {
        fields.known(&["base_url"]);
        return Some(Template::literal(NOWHERE));
    }
    let node = fields.require("base_url", out)?;
    let template = read::template(&node, "`base_url`", names, false, out)?;
    match template.as_literal() {
        Some(text) => read::url(text, &node.spot, out).map(|_| template),
        // The rest is known only with a connection; the scheme must stand in the file.
        None if template.head().starts_with("https://") || template.head().starts_with("http://") => Some(template),
        None => {
            let complaint = node.spot.complain("bad_url", "`base_url` must begin with https://");
            out.push(complaint.hint("write https://{{ connection.metadata.host }}/api"));
            None
        }
    }
}

/// Whether anything of the file is asked for by HTTP.
fn makes_requests(fields: &Fields) -> bool {
    const ASKED: [&str; 4] = ["list", "incremental", "fetch", "deletes"];
    let Some(Content::List(streams)) = fields.peek("streams").map(|node| &node.content) else { return true };
    let asks = |stream: &Node| ASKED.iter().any(|key| stream.get(key).is_some());
    streams.is_empty()
        || streams.iter().any(asks)
        || ["auth", "partitions", "proxy", "actions"].iter().any(|key| fields.has(key))
}

fn source_level(fields: &mut Fields, limits: &super::Limits, names: &KnownNames, out: &mut Out) -> Level {
    let own = responses(fields, names, out);
    let empty = Level { headers: Vec::new(), params: Vec::new(), responses: own, timeout: limits.timeout };
    empty.inner(fields, names, out)
}

fn stream_list(fields: &mut Fields, around: &context::StreamContext<'_>, out: &mut Out) -> Vec<super::Stream> {
    if !fields.has("streams") {
        fields.known(&["streams"]);
        if fields.has("actions") || fields.has("proxy") {
            return Vec::new();
        }
        // Whoever reads the files knows whether functions bring models.
        let hint =
            "add `streams`, or functions of this source that declare models; `proxy: {}` if it is only passed on to";
        out.push(fields.spot.complain("no_streams", "the source has no `streams`").warn().hint(hint));
        return Vec::new();
    }
    let Some(node) = fields.require("streams", out) else { return Vec::new() };
    let Content::List(list) = node.content else {
        out.push(config_text::bad_type(&node, "`streams`", "a list"));
        return Vec::new();
    };
    if list.is_empty() {
        out.push(node.spot.complain("missing_key", "`streams` is empty"));
    }
    let mut streams: Vec<super::Stream> = Vec::with_capacity(list.len());
    for node in list {
        let spot = node.get("name").map_or(node.spot.clone(), |n| n.spot.clone());
        let Some(stream) = streams::stream(node, around, out) else { continue };
        if streams.iter().any(|s| s.name == stream.name) {
            out.push(spot.complain("duplicate_stream", format!("there are two streams `{}`", stream.name)));
        } else if streams.iter().any(|s| s.sync == stream.sync) {
            out.push(spot.complain("duplicate_sync", format!("there are two syncs `{}`", stream.sync)));
        }
        streams.push(stream);
    }
    streams
}

/// In-file tests are read for form only.
fn tests(fields: &mut Fields, out: &mut Out) {
    let Some(entry) = fields.take_entry("tests") else { return };
    let message = "`tests` are not run by this release";
    out.push(entry.spot.complain("not_in_this_release", message).warn());
    if !matches!(entry.value.content, Content::List(_)) {
        out.push(config_text::bad_type(&entry.value, "`tests`", "a list"));
    }
}

/// Hash of what the definition was made from.
fn hash(text: &str, preset: Option<&str>) -> String {
    let mut hash = Sha256::new();
    hash.update(text.as_bytes());
    if let Some(text) = preset.and_then(preset::text) {
        hash.update([0]);
        hash.update(text.as_bytes());
    }
    hex::encode(hash.finalize())
}
