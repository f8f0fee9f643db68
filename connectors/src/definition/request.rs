//! Requests: what is inherited from source and stream, the request itself, how its pages follow each other.

use super::limits::responses;
use super::read::{self, ANSWER, KnownNames, Out, Variables};
use super::{Paginate, Param, ParameterPlace, Request, Response, Tree};
use crate::config_text::{Complaint, Content, Entry, Fields, Node, SourceSpan, bad_type};
use crate::expr::{Expr, Template};
use std::collections::BTreeSet;
use std::time::Duration;

/// Most pages unless the file says otherwise.
const MAX_PAGES: u64 = 100_000;
/// Headers the HTTP layer owns.
const FORBIDDEN: [&str; 4] = ["host", "content-length", "connection", "transfer-encoding"];
/// Methods by key.
const METHODS: [(&str, &str); 5] =
    [("get", "GET"), ("post", "POST"), ("put", "PUT"), ("patch", "PATCH"), ("delete", "DELETE")];

const PATH_HINT: &str = "write `get: /path`; post, put, patch and delete work alike";
const LOGIN_HINT: &str = "write `post: https://host/path`, or get";

/// What requests inherit: source → stream → request; the inner level wins key by key, null removes.
#[derive(Clone, Debug)]
pub(super) struct Level {
    pub(super) headers: Vec<(String, Option<Template>)>,
    pub(super) params: Vec<(String, Option<Param>)>,
    pub(super) responses: Vec<Response>,
    pub(super) timeout: Duration,
}

impl Level {
    /// Reads `headers`, `params`, `responses`, `timeout` of a level below this one.
    pub(super) fn inner(&self, fields: &mut Fields, names: &KnownNames, out: &mut Out) -> Level {
        let mut level = self.clone();
        lay_headers(&mut level.headers, fields, names, out);
        for entry in entries(fields, "params", out) {
            let what = format!("parameter `{}`", entry.key);
            let value = match entry.value.is_null() {
                true => Some(None),
                false => read::param(&entry.value, &what, names, out).map(Some),
            };
            if let Some(value) = value {
                lay(&mut level.params, entry.key, value, |a, b| a == b);
            }
        }
        let mut own = responses(fields, names, out);
        own.append(&mut level.responses);
        level.responses = own;
        if let Some((timeout, spot)) = fields.duration("timeout", out) {
            level.timeout = super::limits::timeout(timeout, &spot, out);
        }
        level
    }
}

type Headers = Vec<(String, Option<Template>)>;

fn lay_headers(headers: &mut Headers, fields: &mut Fields, names: &KnownNames, out: &mut Out) {
    for entry in entries(fields, "headers", out) {
        if let Some(value) = header(&entry, names, out) {
            lay(headers, entry.key, value, |a, b| a.eq_ignore_ascii_case(b));
        }
    }
}

/// Headers of a request that inherits nothing.
pub(super) fn own_headers(fields: &mut Fields, names: &KnownNames, out: &mut Out) -> Vec<(String, Template)> {
    let mut headers = Headers::new();
    lay_headers(&mut headers, fields, names, out);
    headers.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

fn entries(fields: &mut Fields, key: &'static str, out: &mut Out) -> Vec<Entry> {
    let Some(node) = fields.take(key) else { return Vec::new() };
    let what = format!("`{key}` of {}", fields.what);
    Fields::open(node, what, out).map(|mut map| map.rest()).unwrap_or_default()
}

/// `Some(None)` removes the header.
fn header(entry: &Entry, names: &KnownNames, out: &mut Out) -> Option<Option<Template>> {
    if !read::header_name(&entry.key, &entry.spot, out) {
        return None;
    }
    if FORBIDDEN.contains(&entry.key.to_ascii_lowercase().as_str()) {
        let message = format!("`{}` is set by the HTTP layer and cannot be given", entry.key);
        out.push(entry.spot.complain("forbidden_header", message));
        return None;
    }
    if entry.value.is_null() {
        return Some(None);
    }
    let template = read::template(&entry.value, &format!("header `{}`", entry.key), names, true, out)?;
    if template.as_literal().is_some_and(|text| http::HeaderValue::from_str(text).is_err()) {
        out.push(entry.value.spot.complain("bad_header", format!("the value of `{}` cannot be sent", entry.key)));
    }
    Some(Some(template))
}

fn lay<T>(list: &mut Vec<(String, T)>, key: String, value: T, same: impl Fn(&str, &str) -> bool) {
    match list.iter_mut().find(|(k, _)| same(k, &key)) {
        Some(slot) => *slot = (key, value),
        None => list.push((key, value)),
    }
}

/// Reads a request out of `fields`, leaving keys it does not know.
pub(super) fn request(fields: &mut Fields, outer: &Level, names: &KnownNames, out: &mut Out) -> Option<Request> {
    let target = method(fields, names, out);
    let level = outer.inner(fields, names, out);
    let (body, form) = payload(fields, names, out);
    let variables = names.variables(ANSWER);
    let items_spot = fields.peek("items").map(|node| node.spot.clone());
    let items = read::expr_at(fields, "items", variables, out);
    let filter = read::expr_at(fields, "where", variables, out);
    let total = read::expr_at(fields, "total", variables, out);
    let (paginate, empty_pages) = match fields.take("paginate") {
        Some(node) => paginate(node, variables, out),
        None => (Some(Paginate::None), false),
    };
    if let (Some(items), Some(spot)) = (&items, items_spot) {
        filtered(items, paginate.as_ref(), &spot, out);
    }
    decode(fields, out);
    let max_pages = fields.whole("max_pages", 1, 100_000_000, out).unwrap_or(MAX_PAGES);
    let (method, path) = target?;
    let mut request = Request {
        method,
        path,
        params: level.params.into_iter().filter_map(|(k, v)| Some((k, v?))).collect(),
        headers: level.headers.into_iter().filter_map(|(k, v)| Some((k, v?))).collect(),
        body,
        form,
        items,
        filter,
        total,
        paginate: paginate?,
        empty_pages,
        max_pages,
        responses: level.responses,
        timeout: level.timeout,
        partitions: Vec::new(),
        uses_until: false,
        uses_since: false,
    };
    note_names(&mut request);
    Some(request)
}

/// Where pages or items are counted, an empty page is the end of the list. One that `items` has emptied looks just so.
fn filtered(items: &Expr, paginate: Option<&Paginate>, spot: &SourceSpan, out: &mut Out) {
    if items.drops() && matches!(paginate, Some(Paginate::Offset { .. } | Paginate::Page { .. })) {
        let message =
            format!("`items` {} may leave out all of a page, so that an empty page proves no end", items.text());
        let complaint = spot.complain("filtered_items", message).warn();
        out.push(complaint.hint("select with `where`, which counts a page before it leaves items out"));
    }
}

/// Whether the request names a path of its own.
pub(super) fn has_path(node: &Node) -> bool {
    METHODS.iter().any(|(key, _)| node.get(key).is_some())
}

fn method(fields: &mut Fields, names: &KnownNames, out: &mut Out) -> Option<(String, Template)> {
    let (method, node) = method_node(fields, &METHODS, out)?;
    let path = read::template(&node, &format!("the path of {}", fields.what), names, false, out)?;
    other_origin(&path, &node, names, out);
    Some((method.to_owned(), path))
}

/// The method, one of some, and what stands behind its key.
pub(super) fn method_node(
    fields: &mut Fields,
    methods: &[(&'static str, &'static str)],
    out: &mut Out,
) -> Option<(&'static str, Node)> {
    let mut found: Option<(&str, Node)> = None;
    for (key, method) in methods {
        let Some(entry) = fields.take_entry(key) else { continue };
        match found {
            None => found = Some((method, entry.value)),
            Some(_) => {
                out.push(entry.spot.complain("two_methods", format!("{} names a second method, `{key}`", fields.what)));
            }
        }
    }
    if found.is_none() {
        let message = format!("{} needs a method and path", fields.what);
        let hint = if methods.len() == METHODS.len() { PATH_HINT } else { LOGIN_HINT };
        out.push(fields.spot.complain("missing_key", message).hint(hint));
    }
    found
}

/// Requests carry the sign-in: they go to the source's own origin only.
fn other_origin(path: &Template, node: &Node, names: &KnownNames, out: &mut Out) {
    let head = path.head();
    if head.starts_with('/') && !head.starts_with("//") {
        return;
    }
    let Ok(url) = url::Url::parse(head) else {
        if head.starts_with("//") {
            out.push(node.spot.complain("other_origin", "a path begins with one `/`"));
        }
        return;
    };
    if names.origin.as_ref().is_some_and(|origin| *origin != url.origin()) {
        let complaint = node.spot.complain("other_origin", format!("`{head}` is not at the origin of `base_url`"));
        out.push(complaint.hint("write a path beginning with /, or make another source of it"));
    }
}

pub(super) type Payload = (Option<Tree>, Option<Vec<(String, Param)>>);

pub(super) fn payload(fields: &mut Fields, names: &KnownNames, out: &mut Out) -> Payload {
    let body = fields.take_entry("body");
    let has_form = fields.has("form");
    if let (Some(entry), true) = (&body, has_form) {
        out.push(entry.spot.complain("two_bodies", format!("{} has both `body` and `form`", fields.what)));
    }
    fields.known(&["form"]);
    let form = has_form.then(|| {
        entries(fields, "form", out)
            .into_iter()
            .filter_map(|e| Some((e.key.clone(), read::param(&e.value, &format!("`{}`", e.key), names, out)?)))
            .collect()
    });
    (body.and_then(|e| read::tree(&e.value, names, out)), form)
}

fn decode(fields: &mut Fields, out: &mut Out) {
    let Some((word, spot)) = fields.text("decode", out) else { return };
    match word.as_str() {
        "json" => {}
        "csv" | "xml" | "jsonl" | "gzip" => {
            let complaint =
                spot.complain("not_in_this_release", format!("`decode: {word}` is not part of this release"));
            out.push(complaint.hint("answers are read as JSON"));
        }
        _ => out.push(spot.complain("bad_value", format!("`decode` is `{word}`; json is wanted"))),
    }
}

/// How to go on, and whether pages without items are usual.
fn paginate(node: Node, variables: Variables<'_>, out: &mut Out) -> (Option<Paginate>, bool) {
    match node.text() {
        Some("none") => return (Some(Paginate::None), false),
        Some("link") => return (Some(Paginate::LinkHeader { rel: "next".to_owned() }), false),
        _ => {}
    }
    if !matches!(node.content, Content::Map(_)) {
        let complaint = bad_type(&node, "`paginate`", "none, link or a map");
        out.push(complaint.hint("a map has one of rel, link, cursor, offset, page"));
        return (None, false);
    }
    let Some(mut fields) = Fields::open(node, "`paginate`", out) else { return (None, false) };
    let kinds: Vec<&str> =
        ["rel", "link", "cursor", "offset", "page"].into_iter().filter(|kind| fields.has(kind)).collect();
    let paginate = match kinds.as_slice() {
        ["rel"] => fields.text("rel", out).map(|(rel, _)| Paginate::LinkHeader { rel }),
        ["link"] => read::expr_at(&mut fields, "link", variables, out).map(Paginate::LinkBody),
        ["cursor"] => cursor(&mut fields, variables, out),
        ["offset"] => offset(&mut fields, variables, out),
        ["page"] => page(&mut fields, variables, out),
        [] => {
            let complaint = fields.spot.complain("missing_key", "`paginate` names no kind");
            out.push(complaint.hint("one of rel, link, cursor, offset, page"));
            return (None, false);
        }
        several => {
            out.push(two(&fields, several));
            return (None, false);
        }
    };
    let empty_pages = fields.bool("empty_pages", out).unwrap_or(false);
    fields.known(&["rel", "link", "cursor", "offset", "page"]);
    fields.finish(out);
    (paginate, empty_pages)
}

fn two(fields: &Fields, kinds: &[&str]) -> Complaint {
    fields.spot.complain("two_paginators", format!("`paginate` names more than one kind: {}", kinds.join(", ")))
}

fn place(fields: &mut Fields, header: bool, out: &mut Out) -> ParameterPlace {
    let words: &[(&'static str, ParameterPlace)] = match header {
        true => &[("query", ParameterPlace::Query), ("body", ParameterPlace::Body), ("header", ParameterPlace::Header)],
        false => &[("query", ParameterPlace::Query), ("body", ParameterPlace::Body)],
    };
    fields.word("in", words, out).unwrap_or(ParameterPlace::Query)
}

fn cursor(fields: &mut Fields, variables: Variables<'_>, out: &mut Out) -> Option<Paginate> {
    let cursor: Option<Expr> = read::expr_at(fields, "cursor", variables, out);
    let param = fields.require_text("param", out);
    let place = place(fields, true, out);
    let more = read::expr_at(fields, "more", variables, out);
    Some(Paginate::Cursor { cursor: cursor?, param: param?.0, place, more })
}

fn offset(fields: &mut Fields, variables: Variables<'_>, out: &mut Out) -> Option<Paginate> {
    let offset = fields.text("offset", out);
    let limit = fields.text("limit", out).map(|(text, _)| text);
    let size = size(fields, out);
    let place = place(fields, false, out);
    let more = read::expr_at(fields, "more", variables, out);
    let short_page_ends = fields.bool("short_page_ends", out).unwrap_or(false);
    Some(Paginate::Offset { offset: offset?.0, limit, size: size?, place, more, short_page_ends })
}

fn page(fields: &mut Fields, variables: Variables<'_>, out: &mut Out) -> Option<Paginate> {
    let page = fields.text("page", out);
    let start = fields.whole("start", 0, 1_000_000, out).unwrap_or(1);
    let size = if fields.has("size") { size(fields, out) } else { None };
    let last = read::expr_at(fields, "last", variables, out);
    let more = read::expr_at(fields, "more", variables, out);
    let place = place(fields, false, out);
    let short_page_ends = fields.bool("short_page_ends", out).unwrap_or(false);
    if short_page_ends && size.is_none() {
        out.push(fields.spot.complain("missing_key", "`short_page_ends` needs `size`: how long a full page is"));
    }
    fields.known(&["size"]);
    Some(Paginate::Page { page: page?.0, start, size, last, more, place, short_page_ends })
}

fn size(fields: &mut Fields, out: &mut Out) -> Option<u64> {
    if !fields.has("size") {
        out.push(fields.spot.complain("missing_key", "`paginate` needs the key `size`: items a page"));
    }
    fields.whole("size", 1, 1_000_000, out)
}

/// Notes which placeholders the request mentions.
fn note_names(request: &mut Request) {
    let names: BTreeSet<String> = templates(request).iter().flat_map(|t| t.names()).map(str::to_owned).collect();
    request.uses_since = names.contains("since");
    request.uses_until = names.contains("until");
    let partition = |name: &String| {
        let rest = name.strip_prefix("partition.")?;
        rest.split('.').next().map(str::to_owned)
    };
    request.partitions = names.iter().filter_map(partition).collect::<BTreeSet<_>>().into_iter().collect();
}

fn templates(request: &Request) -> Vec<&Template> {
    let mut templates: Vec<&Template> = vec![&request.path];
    templates.extend(request.headers.iter().map(|(_, t)| t));
    for (_, param) in request.params.iter().chain(request.form.iter().flatten()) {
        match param {
            Param::One(template) => templates.push(template),
            Param::Many(list) => templates.extend(list),
        }
    }
    if let Some(body) = &request.body {
        collect(body, &mut templates);
    }
    templates
}

fn collect<'a>(tree: &'a Tree, templates: &mut Vec<&'a Template>) {
    match tree {
        Tree::Leaf(_) => {}
        Tree::Text(template) => templates.push(template),
        Tree::List(list) => list.iter().for_each(|t| collect(t, templates)),
        Tree::Map(map) => {
            for (key, value) in map {
                templates.push(key);
                collect(value, templates);
            }
        }
    }
}

/// Whether a request mentions this placeholder.
pub(super) fn mentions(request: &Request, name: &str) -> bool {
    templates(request).iter().any(|t| t.names().contains(&name))
}
