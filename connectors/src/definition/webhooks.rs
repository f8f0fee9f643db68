//! `webhooks`: scope, proof, routing, and what events mean.

use super::read::{self, ANSWER, EVENT, HOOK, KnownNames, MAPPED, Out, ROUTED};
use super::request::{Level, request};
use super::{Hydrate, Route, Scheme, Stream, Verify, WebhookEffect, WebhookMap, Webhooks, verify};
use crate::config_text::{Content, Fields, Node, SourceSpan, bad_type, nearest};
use crate::expr::{Expr, Template};
use std::time::Duration;

const MAX_BODY: u64 = 5 << 20;
const MAX_BODY_LIMIT: u64 = 25 << 20;
const QUIET: Duration = Duration::from_millis(500);
const MAX_WAIT: Duration = Duration::from_secs(5);
/// Longest body of an answer.
const MAX_REPLY: usize = 4 << 10;

/// Reads `webhooks`.
pub(super) fn webhooks(
    node: Node,
    streams: &[Stream],
    level: &Level,
    names: &KnownNames,
    out: &mut Out,
) -> Option<Webhooks> {
    let mut fields = Fields::open(node, "`webhooks`", out)?;
    let per_connection = fields.word("scope", &[("app", false), ("connection", true)], out).unwrap_or(false);
    let proof = match fields.take("verify") {
        Some(node) => verify::verify(node, per_connection, out),
        None => {
            let complaint = fields.spot.complain("unverified", "`webhooks` does not say how requests are proven");
            out.push(complaint.hint("write `verify: {preset: …, secret: env:NAME}`, or `verify: {scheme: none}`"));
            None
        }
    };
    let path = path(&mut fields, proof.as_ref().map(|(v, _)| v), out);
    let events = read::expr_at(&mut fields, "events", names.variables(HOOK), out);
    let route = route(&mut fields, per_connection, names, out);
    let drop_unrouted = fields.word("unrouted", &[("park", false), ("drop", true)], out).unwrap_or(false);
    let kind = read::expr_at(&mut fields, "type", names.variables(HOOK), out);
    let dedupe = match fields.take("dedupe") {
        Some(node) => read::exprs(&node, "`dedupe`", names.variables(EVENT), out),
        None => preset_dedupe(proof.as_ref().and_then(|(_, d)| *d)),
    };
    let order_by = read::expr_at(&mut fields, "order_by", names.variables(HOOK), out);
    let reply = reply(&mut fields, out);
    let max_body = max_body(&mut fields, out);
    not_yet(&mut fields, level, names, out);
    let is_list = matches!(fields.peek("map").map(|node| &node.content), Some(Content::List(_)));
    let entries = fields.list("map", out).unwrap_or_default();
    if entries.is_empty() && is_list {
        let complaint = fields.spot.complain("nothing_to_do", "`map` is empty: nothing would become of an event");
        out.push(complaint.hint("say with `map` what the events mean, or leave it out where functions take them"));
    } else if entries.is_empty() {
        // Whoever reads the files knows whether functions take the events.
        let message = "`webhooks` has no `map`: nothing would become of an event";
        let hint = "say with `map` what the events mean, or add functions of this source with `webhookSubscriptions`";
        out.push(fields.spot.complain("no_map", message).warn().hint(hint));
    }
    fields.finish(out);
    let map = entries.into_iter().filter_map(|node| entry(node, streams, names, out)).collect();
    let (verify, _) = proof?;
    Some(Webhooks {
        per_connection,
        path,
        verify,
        events,
        route,
        drop_unrouted,
        kind,
        dedupe,
        order_by,
        map,
        reply,
        max_body,
    })
}

fn preset_dedupe(text: Option<&str>) -> Vec<Expr> {
    text.and_then(|t| Expr::compile(t).ok()).into_iter().collect()
}

fn path(fields: &mut Fields, verify: Option<&Verify>, out: &mut Out) -> Option<String> {
    let (path, spot) = fields.text("path", out)?;
    let segment = |s: &str| !s.is_empty() && s.chars().all(|c| c.is_ascii_alphanumeric() || "-_.~".contains(c));
    let good = path.len() <= 200
        && path
            .strip_prefix("/hooks/")
            .is_some_and(|rest| rest.split('/').all(|s| segment(s) && s != "." && s != ".."));
    if !good {
        let complaint = spot.complain("bad_value", format!("`{path}` cannot be the path of a webhook"));
        out.push(complaint.hint("write /hooks/ and letters, digits, - _ . ~ between slashes"));
    }
    if verify.is_some_and(|v| !matches!(v.scheme, Scheme::Hmac(_))) {
        let complaint = spot.complain("weak_path", "a path that can be guessed needs signed requests");
        out.push(complaint.hint("use `scheme: hmac` or a preset that signs, or leave `path` out"));
    }
    Some(path)
}

fn route(fields: &mut Fields, per_connection: bool, names: &KnownNames, out: &mut Out) -> Option<Route> {
    let Some(node) = fields.take("route") else {
        if !per_connection {
            let complaint = fields.spot.complain("no_route", "one URL for all connections needs `route`");
            out.push(complaint.hint("name what tells connections apart: `route: .account_id`; or `scope: connection`"));
        }
        return None;
    };
    if matches!(node.content, Content::Map(_)) {
        let mut long = Fields::open(node, "`route`", out)?;
        let value =
            long.require("value", out).and_then(|n| read::expr(&n, "`value` of `route`", names.variables(EVENT), out));
        let field = long.require_text("field", out);
        long.finish(out);
        return Some(Route { value: value?, field: field?.0 });
    }
    let value = read::expr(&node, "`route`", names.variables(EVENT), out)?;
    match value.path().and_then(|p| p.last()).cloned() {
        Some(field) => Some(Route { value, field }),
        None => {
            let complaint = node.spot.complain("bad_value", "the short form of `route` is a path, such as .account_id");
            out.push(complaint.hint("write {value: …, field: name of the connection's field}"));
            None
        }
    }
}

fn reply(fields: &mut Fields, out: &mut Out) -> (u16, Template) {
    let Some(mut fields) = fields.take("reply").and_then(|n| Fields::open(n, "`reply`", out)) else {
        return (200, Template::literal(""));
    };
    let status = fields.take("status").map(|node| {
        let code = node.to_json().as_u64().and_then(|n| u16::try_from(n).ok()).filter(|n| (200..=299).contains(n));
        if code.is_none() {
            let complaint = node.spot.complain("bad_status", format!("{} cannot be the answer", node.to_json()));
            out.push(complaint.hint("a status from 200 to 299: it is sent once the request is kept"));
        }
        code.unwrap_or(200)
    });
    let body = fields.take("body").and_then(|node| {
        if node.text().is_some_and(|text| text.len() > MAX_REPLY) {
            out.push(node.spot.complain("out_of_range", format!("`body` may have {MAX_REPLY} bytes")));
        }
        let names = KnownNames { event: true, ..KnownNames::default() };
        let body = read::template(&node, "`body` of `reply`", &names, false, out)?;
        for name in body.names().iter().filter(|name| !name.starts_with('.')) {
            let complaint = node.spot.complain("bad_placeholder", format!("`{name}` has no value here"));
            out.push(complaint.hint("a reply reads the body of the request: {{ .field }}"));
        }
        Some(body)
    });
    fields.finish(out);
    (status.unwrap_or(200), body.unwrap_or_else(|| Template::literal("")))
}

fn max_body(fields: &mut Fields, out: &mut Out) -> u64 {
    let Some((size, spot)) = fields.size("max_body", out) else { return MAX_BODY };
    if !(1..=MAX_BODY_LIMIT).contains(&size) {
        out.push(spot.complain("out_of_range", "`max_body` must be 1B to 25MiB"));
    }
    size
}

/// Parts of the format that are checked for form and otherwise left alone in this release.
fn not_yet(fields: &mut Fields, level: &Level, names: &KnownNames, out: &mut Out) {
    for (key, hint) in [
        ("forward", "events are processed, not handed on; endpoints learn of changes"),
        ("challenge", "answer the provider's handshake by other means"),
    ] {
        if let Some(entry) = fields.take_entry(key) {
            let message = format!("`{key}` is not part of this release and does nothing");
            out.push(entry.spot.complain("not_in_this_release", message).warn().hint(hint));
        }
    }
    let Some(entry) = fields.take_entry("subscribe") else { return };
    let message = "`subscribe` is not part of this release: webhooks are registered by hand for now";
    let complaint = entry.spot.complain("not_in_this_release", message).warn();
    out.push(complaint.hint("`syncline webhook url SOURCE` shows the URL to register at the provider"));
    let names = KnownNames { subscribe: true, in_stream: true, ..names.clone() };
    let Some(mut subscribe) = Fields::open(entry.value, "`subscribe`", out) else { return };
    read::expr_at(&mut subscribe, "id", names.variables(ANSWER), out);
    subscribe.duration("renew", out);
    if let Some(mut undo) = subscribe.take("unsubscribe").and_then(|n| Fields::open(n, "`unsubscribe`", out)) {
        request(&mut undo, level, &names, out);
        undo.finish(out);
    }
    request(&mut subscribe, level, &names, out);
    subscribe.finish(out);
}

fn entry(node: Node, streams: &[Stream], names: &KnownNames, out: &mut Out) -> Option<WebhookMap> {
    let mut fields = Fields::open(node, "an entry of `webhooks.map`", out)?;
    let when = read::expr_at(&mut fields, "when", names.variables(ROUTED), out);
    let all = fields.bool("all", out).unwrap_or(false);
    let stream = fields.text("stream", out);
    let known = stream.as_ref().and_then(|(name, spot)| find(name, spot, streams, out));
    let key_node = fields.take("key");
    let has_key = key_node.is_some();
    let (key, composite) =
        key_node.map(|n| read::key(&n, "`key` of `webhooks.map`", names.variables(MAPPED), out)).unwrap_or_default();
    let effect = effect(&mut fields, names, out);
    let at = read::time_at(&mut fields, "at", names.variables(ROUTED), out);
    let partition = partition(&mut fields, names, out);
    let hydrate_spot = fields.peek("hydrate").map(|n| n.spot.clone());
    let hydrate = fields.take("hydrate").map_or(Hydrate::Never, |node| hydrate(node, out));
    let run_spot = fields.peek("run").map(|node| node.spot.clone());
    let run = fields.bool("run", out).unwrap_or(false);
    fields.bool("forward", out);
    read::later(&mut fields, "erase", "delete: true leaves a tombstone with the last values", out);
    if let (Some(spot), Some(known)) = (&hydrate_spot, known)
        && hydrate != Hydrate::Never
        && known.fetch.is_none()
    {
        out.push(spot.complain("no_fetch", format!("`hydrate` needs `fetch` on stream `{}`", known.name)));
    }
    if let (Some(spot), Some(known)) = (&run_spot, known)
        && run
        && !known.polled()
    {
        let message = format!("`run` needs `list` or `incremental` on stream `{}`", known.name);
        out.push(spot.complain("no_request", message));
    }
    complete(&fields, [stream.is_some(), has_key, run], &effect, hydrate, out);
    fields.finish(out);
    Some(WebhookMap {
        when,
        all,
        stream: stream.map(|(s, _)| s),
        key,
        composite,
        effect: effect?,
        at,
        partition,
        hydrate,
        run,
    })
}

/// Complains about entries that say too little.
fn complete(
    fields: &Fields,
    [has_stream, has_key, run]: [bool; 3],
    effect: &Option<WebhookEffect>,
    hydrate: Hydrate,
    out: &mut Out,
) {
    let Some(effect) = effect else { return };
    let idle = matches!(effect, WebhookEffect::Nothing) && hydrate == Hydrate::Never;
    if has_stream && idle && !run {
        let complaint = fields.spot.complain("nothing_to_do", "the entry says nothing of its stream");
        out.push(
            complaint.hint("add record, patch, delete, hydrate or run; an entry without `stream` only acknowledges"),
        );
    }
    if !has_stream && (!idle || run) {
        out.push(fields.spot.complain("missing_key", "the entry needs the key `stream`"));
    }
    // A whole item brings its own key.
    if !idle && !has_key && !matches!(effect, WebhookEffect::Record(_)) {
        out.push(fields.spot.complain("missing_key", "the entry needs the key `key`: which record it speaks of"));
    }
}

fn find<'a>(name: &str, spot: &SourceSpan, streams: &'a [Stream], out: &mut Out) -> Option<&'a Stream> {
    let found = streams.iter().find(|s| s.name == name);
    if found.is_none() {
        out.push(unknown_stream(name, spot, streams.iter().map(|s| s.name.as_str())));
    }
    found
}

/// A complaint about a stream that is not there.
pub(super) fn unknown_stream<'a>(
    name: &str,
    spot: &SourceSpan,
    streams: impl Iterator<Item = &'a str>,
) -> crate::config_text::Complaint {
    let complaint = spot.complain("unknown_stream", format!("there is no stream `{name}`"));
    match nearest(name, streams) {
        Some(near) => complaint.hint(format!("did you mean `{near}`?")),
        None => complaint,
    }
}

fn effect(fields: &mut Fields, names: &KnownNames, out: &mut Out) -> Option<WebhookEffect> {
    let found: Vec<&str> = ["record", "patch", "delete"].into_iter().filter(|k| fields.has(k)).collect();
    if found.len() > 1 {
        let message = format!("an event is one of {}", found.join(", "));
        out.push(fields.spot.complain("conflict", message).hint("write two entries, the first with `all: true`"));
    }
    let record = read::expr_at(fields, "record", names.variables(MAPPED), out);
    let patch = fields.take("patch").map(|node| patch(node, names, out));
    let delete = fields.bool("delete", out);
    if found.len() > 1 {
        return None;
    }
    match found.first() {
        Some(&"record") => record.map(WebhookEffect::Record),
        Some(&"patch") => patch.map(WebhookEffect::Patch),
        Some(_) => delete.map(|yes| if yes { WebhookEffect::Delete } else { WebhookEffect::Nothing }),
        None => Some(WebhookEffect::Nothing),
    }
}

fn patch(node: Node, outer: &KnownNames, out: &mut Out) -> Vec<(Template, Expr)> {
    let names = KnownNames { event: true, ..KnownNames::default() };
    let Some(mut fields) = Fields::open(node, "`patch`", out) else { return Vec::new() };
    let mut patch = Vec::new();
    for entry in fields.rest() {
        let key = Node { content: Content::Text(entry.key.clone()), spot: entry.spot, referenced: false };
        let path = read::template(&key, "a path of `patch`", &names, false, out);
        let value = read::expr(&entry.value, &format!("`{}` of `patch`", entry.key), outer.variables(MAPPED), out);
        patch.extend(path.zip(value));
    }
    patch
}

fn partition(fields: &mut Fields, names: &KnownNames, out: &mut Out) -> Vec<(String, Expr)> {
    let variables = names.variables(ROUTED);
    let Some(node) = fields.take("partition") else { return Vec::new() };
    let Some(mut map) = Fields::open(node, "`partition`", out) else { return Vec::new() };
    map.rest()
        .into_iter()
        .filter_map(|e| {
            Some((e.key.clone(), read::expr(&e.value, &format!("`{}` of `partition`", e.key), variables, out)?))
        })
        .collect()
}

fn hydrate(node: Node, out: &mut Out) -> Hydrate {
    match (&node.content, node.text()) {
        (Content::Bool(false), _) => return Hydrate::Never,
        (_, Some("now")) => return Hydrate::Now,
        (_, Some("debounce")) => return Hydrate::Debounce { quiet: QUIET, max_wait: MAX_WAIT },
        (Content::Map(_), _) => {}
        _ => {
            out.push(bad_type(&node, "`hydrate`", "now, debounce, false or a map"));
            return Hydrate::Never;
        }
    }
    let Some(mut outer) = Fields::open(node, "`hydrate`", out) else { return Hydrate::Never };
    let inner = outer.require("debounce", out).and_then(|n| Fields::open(n, "`debounce`", out));
    outer.finish(out);
    let Some(mut inner) = inner else { return Hydrate::Never };
    let quiet = inner.duration("quiet", out).map_or(QUIET, |(span, _)| span);
    let max_wait = inner.duration("max_wait", out).map_or(MAX_WAIT.max(quiet), |(span, _)| span);
    if max_wait < quiet {
        out.push(inner.spot.complain("out_of_range", "`max_wait` must not be shorter than `quiet`"));
    }
    inner.finish(out);
    Hydrate::Debounce { quiet, max_wait }
}
