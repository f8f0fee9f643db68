//! Reading the value types of the format: names, texts with placeholders, expressions, times, keys, statuses.

use super::actions::StepNames;
use super::{Param, Statuses, TimeExpr, TimeUnit, Tree};
use crate::config_text::{Complaint, Content, Fields, Node, SourceSpan, bad_type};
use crate::egress::{Blocked, Egress};
use crate::expr::{CompileError, Expr, Template};
use std::collections::BTreeSet;

/// Complaints found so far.
pub(super) type Out = Vec<Complaint>;

/// Longest name.
const MAX_NAME: usize = 128;

/// Which placeholders make sense where a text stands.
#[derive(Clone, Debug, Default)]
pub(super) struct KnownNames {
    /// `partition.NAME` for these.
    pub(super) partitions: BTreeSet<String>,
    /// `partition.…` at all.
    pub(super) in_stream: bool,
    /// `since`, `until`.
    pub(super) window: bool,
    /// `key`, `keys`.
    pub(super) key: bool,
    /// `webhook_url`, `webhook_secret`, `id`.
    pub(super) subscribe: bool,
    /// `.path`.
    pub(super) event: bool,
    /// `input`, `action.id`.
    pub(super) action: bool,
    /// `steps.NAME` for these.
    pub(super) steps: StepNames,
    /// Origin of `base_url`, if it is fixed.
    pub(super) origin: Option<url::Origin>,
    /// In `auth`, where nothing but this has a value.
    pub(super) sign_in: Option<SignInNames>,
}

/// What texts may name before a connection is signed in.
#[derive(Clone, Debug, Default)]
pub(super) struct SignInNames {
    /// `connection.fields.NAME` for these.
    pub(super) fields: BTreeSet<String>,
    /// `connection.credentials.NAME` for these.
    pub(super) credentials: BTreeSet<String>,
}

impl SignInNames {
    fn refusal(&self, name: &str) -> Option<String> {
        let known =
            |prefix: &str, names: &BTreeSet<String>| name.strip_prefix(prefix).is_some_and(|n| names.contains(n));
        if known("connection.fields.", &self.fields) || known("connection.credentials.", &self.credentials) {
            return None;
        }
        let all = self.fields.iter().map(|n| format!("connection.fields.{n}"));
        let all = all.chain(self.credentials.iter().map(|n| format!("connection.credentials.{n}")));
        let all = all.collect::<Vec<_>>().join(", ");
        let here =
            if all.is_empty() { "add it to `fields` of `auth`".to_owned() } else { format!("values here: {all}") };
        Some(format!("`{name}` has no value here; {here}"))
    }
}

impl KnownNames {
    /// Why `name` cannot stand here.
    fn refusal(&self, name: &str, credentials: bool) -> Option<String> {
        if let Some(own) = &self.sign_in {
            return own.refusal(name);
        }
        let field = |prefix: &str| name.strip_prefix(prefix).is_some_and(|rest| !rest.is_empty());
        let known = match name {
            "variant" | "connection.id" => true,
            "since" | "until" => self.window,
            "key" | "keys" => self.key,
            "webhook_url" | "webhook_secret" | "id" => self.subscribe,
            "input" | "action.id" => self.action,
            _ if name.starts_with('.') => self.event,
            _ if field("input.") => self.action,
            _ if field("steps.") && self.action => {
                let step = name.split('.').nth(1).unwrap_or_default();
                let why = format!("there is no step `{step}` before this request");
                return (!self.steps.contains(step)).then_some(why);
            }
            _ if field("connection.credentials.") => {
                let why = format!("`{name}` may stand in headers only: URLs and bodies end up in logs");
                return (!credentials).then_some(why);
            }
            _ if field("connection.metadata.") || field("connection.fields.") || field("connection.tags.") => true,
            _ if field("partition.") => {
                let partition = name.strip_prefix("partition.").unwrap_or_default();
                if self.in_stream && !self.partitions.contains(partition) {
                    return Some(format!("there is no partition `{partition}`"));
                }
                self.in_stream
            }
            _ => return Some(format!("`{name}` is not the name of a value")),
        };
        (!known).then(|| format!("`{name}` has no value here"))
    }

    /// Complains about placeholders of `template` that have no value here.
    pub(super) fn check(&self, template: &Template, spot: &SourceSpan, credentials: bool, out: &mut Out) {
        for name in template.names() {
            if let Some(why) = self.refusal(name, credentials) {
                out.push(spot.complain("bad_placeholder", why));
            }
        }
    }
}

/// Variables of expressions about an answer, and about an item wherever it came from.
pub(super) const ANSWER: &[&str] = &["$h", "$connection", "$partition"];
/// Of `webhooks.events`, `type` and `order_by`: about a request, before anything is known of it.
pub(super) const HOOK: &[&str] = &["$h", "$q"];
/// Of `webhooks.dedupe` and `route`.
pub(super) const EVENT: &[&str] = &["$h", "$q", "$type"];
/// Of entries of `webhooks.map`, until their partition is known.
pub(super) const ROUTED: &[&str] = &["$h", "$q", "$type", "$connection"];
/// Of what such an entry says of a record.
pub(super) const MAPPED: &[&str] = &["$h", "$q", "$type", "$connection", "$partition"];
/// Of expressions about a stored record.
pub(super) const STORED: &[&str] = &["$connection"];
/// Of expressions about a Kafka message.
pub(super) const MESSAGE: &[&str] = &["$h"];
/// What `$connection` holds.
const CONNECTION: [&str; 4] = ["id", "metadata", "fields", "tags"];

/// Which variables have a value where an expression stands.
#[derive(Clone, Copy)]
pub(super) struct Variables<'a> {
    known: &'static [&'static str],
    names: &'a KnownNames,
}

impl KnownNames {
    /// The variables `known`; `$partition` only where there are partitions.
    pub(super) fn variables(&self, known: &'static [&'static str]) -> Variables<'_> {
        Variables { known, names: self }
    }
}

impl Variables<'_> {
    fn list(&self) -> Vec<&'static str> {
        let partitioned = self.names.in_stream && !self.names.partitions.is_empty();
        self.known.iter().copied().filter(|name| partitioned || *name != "$partition").collect()
    }

    /// Complains about variables of `expr` that have no value here: they would be null without a word.
    fn check(&self, expr: &Expr, what: &str, spot: &SourceSpan, out: &mut Out) {
        let known = self.list();
        for (name, field) in expr.variables() {
            if !known.contains(&name) {
                let complaint = spot.complain("unknown_variable", format!("{what}: `{name}` has no value here"));
                out.push(complaint.hint(format!("variables here: {}", known.join(", "))));
                continue;
            }
            let fields: Vec<&str> = match name {
                "$connection" => CONNECTION.to_vec(),
                "$partition" => self.names.partitions.iter().map(String::as_str).collect(),
                _ => continue,
            };
            if let Some(field) = field.filter(|field| !fields.contains(field)) {
                let complaint = spot.complain("unknown_variable", format!("{what}: `{name}` has no `{field}`"));
                out.push(complaint.hint(format!("it has {}", fields.join(", "))));
            }
        }
    }
}

/// A scalar as text; lists, maps and null are `bad_type`.
pub(super) fn scalar(node: &Node, what: &str, out: &mut Out) -> Option<String> {
    match &node.content {
        Content::Text(text) => Some(text.clone()),
        Content::Number(number) => Some(number.to_string()),
        Content::Bool(b) => Some(b.to_string()),
        _ => {
            out.push(bad_type(node, what, "text"));
            None
        }
    }
}

/// Text with placeholders. A resolved reference is taken literally: what it holds is no text of the author's.
pub(super) fn template(
    node: &Node,
    what: &str,
    names: &KnownNames,
    credentials: bool,
    out: &mut Out,
) -> Option<Template> {
    let text = scalar(node, what, out)?;
    if node.referenced {
        return Some(Template::literal(&text));
    }
    let template = Template::compile(&text).map_err(|e| out.push(compile(&node.spot, what, &e))).ok()?;
    names.check(&template, &node.spot, credentials, out);
    Some(template)
}

fn compile(spot: &SourceSpan, what: &str, error: &CompileError) -> Complaint {
    let place = if error.at > 0 { format!(" (at character {})", error.at + 1) } else { String::new() };
    spot.complain(error.code, format!("{what}: {}{place}", error.message))
}

/// An expression.
pub(super) fn expr(node: &Node, what: &str, variables: Variables<'_>, out: &mut Out) -> Option<Expr> {
    let text = match &node.content {
        Content::Bool(_) | Content::Number(_) | Content::Text(_) => scalar(node, what, out)?,
        _ => {
            out.push(
                bad_type(node, what, "an expression").hint("quote it if it holds `: `, ` #`, or begins with [ { or \""),
            );
            return None;
        }
    };
    let expr = Expr::compile(&text).map_err(|e| out.push(compile(&node.spot, what, &e))).ok()?;
    variables.check(&expr, what, &node.spot, out);
    Some(expr)
}

/// An expression under a key, if the key is there.
pub(super) fn expr_at(fields: &mut Fields, key: &'static str, variables: Variables<'_>, out: &mut Out) -> Option<Expr> {
    let what = format!("`{key}` of {}", fields.what);
    let node = fields.take(key)?;
    expr(&node, &what, variables, out)
}

/// A time: an expression, or `{value, unit}`.
pub(super) fn time_at(
    fields: &mut Fields,
    key: &'static str,
    variables: Variables<'_>,
    out: &mut Out,
) -> Option<TimeExpr> {
    let what = format!("`{key}` of {}", fields.what);
    let node = fields.take(key)?;
    if !matches!(node.content, Content::Map(_)) {
        return expr(&node, &what, variables, out).map(|value| TimeExpr { value, unit: None });
    }
    let mut long = Fields::open(node, what.clone(), out)?;
    let value = long.require("value", out).and_then(|n| expr(&n, &what, variables, out));
    let units = [("s", TimeUnit::Seconds), ("ms", TimeUnit::Millis), ("us", TimeUnit::Micros)];
    let unit = long.word("unit", &units, out);
    long.finish(out);
    Some(TimeExpr { value: value?, unit })
}

/// A key: an expression, or a list of them.
pub(super) fn key(node: &Node, what: &str, variables: Variables<'_>, out: &mut Out) -> (Vec<Expr>, bool) {
    match &node.content {
        Content::List(parts) => {
            if parts.is_empty() {
                out.push(node.spot.complain("bad_value", format!("{what} has no parts")));
            }
            (parts.iter().filter_map(|part| expr(part, what, variables, out)).collect(), true)
        }
        _ => (expr(node, what, variables, out).into_iter().collect(), false),
    }
}

/// An expression or a list of them.
pub(super) fn exprs(node: &Node, what: &str, variables: Variables<'_>, out: &mut Out) -> Vec<Expr> {
    match &node.content {
        Content::List(list) => list.iter().filter_map(|n| expr(n, what, variables, out)).collect(),
        _ => expr(node, what, variables, out).into_iter().collect(),
    }
}

/// A value of `params` or `form`.
pub(super) fn param(node: &Node, what: &str, names: &KnownNames, out: &mut Out) -> Option<Param> {
    match &node.content {
        Content::List(list) => {
            Some(Param::Many(list.iter().filter_map(|n| template(n, what, names, false, out)).collect()))
        }
        _ => template(node, what, names, false, out).map(Param::One),
    }
}

/// A body: placeholders in its texts and keys.
pub(super) fn tree(node: &Node, names: &KnownNames, out: &mut Out) -> Option<Tree> {
    Some(match &node.content {
        Content::Text(_) => Tree::Text(template(node, "`body`", names, false, out)?),
        Content::List(list) => Tree::List(list.iter().filter_map(|n| tree(n, names, out)).collect()),
        Content::Map(map) => Tree::Map(
            map.iter()
                .filter_map(|entry| {
                    let key =
                        Node { content: Content::Text(entry.key.clone()), spot: entry.spot.clone(), referenced: false };
                    Some((template(&key, "a key of `body`", names, false, out)?, tree(&entry.value, names, out)?))
                })
                .collect(),
        ),
        _ => Tree::Leaf(node.to_json()),
    })
}

/// Whether `text` is a name of a source, connection or partition.
pub(super) fn name(text: &str, what: &str, spot: &SourceSpan, out: &mut Out) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let good =
        text.len() <= MAX_NAME && text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(word);
    if !good {
        let complaint = spot.complain("bad_name", format!("`{text}` cannot be the name of {what}"));
        out.push(complaint.hint("letters, digits, `_` and `-`, at most 128, beginning with a letter or digit"));
    }
    good
}

/// Whether `text` is a name of a stream.
pub(super) fn stream_name(text: &str, spot: &SourceSpan, out: &mut Out) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let good = (2..=MAX_NAME).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_uppercase())
        && text.chars().all(word);
    if !good {
        let complaint = spot.complain("bad_name", format!("`{text}` cannot be the name of a stream"));
        out.push(complaint.hint("an upper-case letter, then letters, digits, `_` and `-`, 2 to 128 in all"));
    }
    good
}

/// A list of statuses: codes, `4xx`, `5xx`, `network`; a single one may stand alone.
pub(super) fn statuses(node: &Node, out: &mut Out) -> Statuses {
    let mut statuses = Statuses::default();
    let list = match &node.content {
        Content::List(list) => list.as_slice(),
        _ => std::slice::from_ref(node),
    };
    for entry in list {
        let shown = entry.to_json().to_string();
        let word = entry.text().unwrap_or(&shown);
        match (word, word.parse::<u16>()) {
            ("network", _) => statuses.network = true,
            ("4xx", _) => statuses.ranges.push((400, 499)),
            ("5xx", _) => statuses.ranges.push((500, 599)),
            (_, Ok(code)) if (100..=599).contains(&code) => statuses.ranges.push((code, code)),
            _ => {
                let complaint = entry.spot.complain("bad_status", format!("{shown} is not a status"));
                out.push(complaint.hint("write a code from 100 to 599, 4xx, 5xx or network"));
            }
        }
    }
    statuses
}

/// Whether `text` can be the name of a header: `bad_header`.
pub(super) fn header_name(text: &str, spot: &SourceSpan, out: &mut Out) -> bool {
    let good = http::header::HeaderName::from_bytes(text.as_bytes()).is_ok();
    if !good {
        out.push(spot.complain("bad_header", format!("`{text}` cannot be the name of a header")));
    }
    good
}

/// The name of a header under a key.
pub(super) fn header_at(fields: &mut Fields, key: &'static str, out: &mut Out) -> Option<String> {
    let (text, spot) = fields.text(key, out)?;
    header_name(&text, &spot, out).then_some(text)
}

/// A secret: it must stand outside the file.
pub(super) fn secret(node: &Node, what: &str, out: &mut Out) -> Option<String> {
    let text = scalar(node, what, out)?;
    if !node.referenced {
        let complaint =
            node.spot.complain("literal_secret", format!("{what} is a secret and must not stand in the file"));
        out.push(complaint.hint("write env:NAME or file:PATH"));
        return None;
    }
    if text.trim().is_empty() {
        let complaint = node.spot.complain("bad_value", format!("{what} is empty or blank"));
        out.push(complaint.hint("look at what the variable or file holds"));
        return None;
    }
    Some(text)
}

/// An absolute URL: `bad_url`; `http:` brings the warning `insecure_url`, and a place that nothing is sent to unless the settings
/// allow it the warning `egress_blocked`.
pub(super) fn url(text: &str, spot: &SourceSpan, out: &mut Out) -> Option<url::Url> {
    let parsed = url::Url::parse(text).ok().filter(|u| matches!(u.scheme(), "http" | "https") && u.has_host());
    match &parsed {
        None => {
            let complaint = spot.complain("bad_url", format!("`{text}` is not an absolute URL"));
            out.push(complaint.hint("write https://host/path"));
        }
        Some(url) if !url.username().is_empty() || url.password().is_some() => {
            out.push(spot.complain("bad_url", "a URL must not hold a user name or password").hint("use `auth`"));
        }
        Some(url) if url.scheme() == "http" => {
            let complaint = spot.complain("insecure_url", format!("`{text}` is not encrypted")).warn();
            out.push(complaint.hint("write https:, or allow http: in the settings (egress.allow_http)"));
        }
        Some(_) => {}
    }
    if let Some(url) = &parsed
        && let Err(why @ (Blocked::Address { .. } | Blocked::Port { .. })) = Egress::default().judge(url)
    {
        out.push(spot.complain("egress_blocked", why.to_string()).about(url).warn());
    }
    parsed
}

/// A key of a later release: reported, its value dropped.
pub(super) fn later(fields: &mut Fields, key: &'static str, hint: &str, out: &mut Out) {
    if let Some(entry) = fields.take_entry(key) {
        let message = format!("`{key}` of {} is not part of this release", fields.what);
        out.push(entry.spot.complain("not_in_this_release", message).hint(hint));
    }
}
