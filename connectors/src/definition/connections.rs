//! `auth` and `connections`: how requests are signed in, and the accounts written in the file.

use super::read::{self, ANSWER, KnownNames, Out};
use super::request::{Level, request};
use super::webhooks::unknown_stream;
use super::{Auth, AuthKind, Definition, FixedConnection, Stream, TokenAuth, schedule, sign_in};
use crate::config_text::{self, Complaint, Content, Entry, Fields, Node, SourceSpan, bad_type};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

/// What the provider said with the tokens that a connection brings.
const RAW: &str = "raw";
/// Field of a connection that holds the secret of its webhooks.
const WEBHOOK_SECRET: &str = "webhook_secret";
const MAX_TAGS: usize = 10;
/// Ways to sign in.
const WAYS: &str = "none, bearer, basic, api_key, oauth2, client_credentials, two_step or jwt";

/// Reads `auth`.
pub(super) fn auth(node: Option<Node>, level: &Level, names: &KnownNames, out: &mut Out) -> Auth {
    let mut auth = Auth::default();
    let Some(mut fields) = node.and_then(|n| Fields::open(n, "`auth`", out)) else { return auth };
    let word = fields.require_text("type", out);
    auth.optional = fields.bool("optional", out).unwrap_or(false);
    auth.test = fields.take("test").and_then(|node| {
        let mut fields = Fields::open(node, "`test` of `auth`", out)?;
        let test = request(&mut fields, level, names, out);
        fields.finish(out);
        test
    });
    if let Some(mut map) = fields.take("connection_fields").and_then(|n| Fields::open(n, "`connection_fields`", out)) {
        for entry in map.rest() {
            let expr = read::expr(
                &entry.value,
                &format!("`{}` of `connection_fields`", entry.key),
                names.variables(ANSWER),
                out,
            );
            auth.connection_fields.extend(expr.map(|e| (entry.key, e)));
        }
    }
    let Some((word, spot)) = word else { return auth };
    match word.as_str() {
        "none" => {}
        "bearer" => auth.kind = AuthKind::Bearer { token: secret(&mut fields, "token", out) },
        "basic" => {
            let username = fields.text("username", out).map(|(text, _)| text);
            auth.kind = AuthKind::Basic { username, password: secret(&mut fields, "password", out) };
        }
        "api_key" => auth.kind = api_key(&mut fields, out),
        _ => match sign_in::tokens(&word, &mut fields, names, out) {
            Some(tokens) => auth.kind = AuthKind::Tokens(Box::new(tokens)),
            None => {
                let complaint = spot.complain("unknown_auth", format!("`{word}` is not a way to sign in"));
                out.push(complaint.hint(WAYS));
                return auth;
            }
        },
    }
    fields.finish(out);
    auth
}

fn secret(fields: &mut Fields, key: &'static str, out: &mut Out) -> Option<String> {
    let node = fields.take(key)?;
    read::secret(&node, &format!("`{key}`"), out)
}

fn api_key(fields: &mut Fields, out: &mut Out) -> AuthKind {
    let key = secret(fields, "key", out);
    let in_query = fields.word("in", &[("header", false), ("query", true)], out).unwrap_or(false);
    let name = match fields.text("name", out) {
        Some((name, spot)) => {
            if !in_query {
                read::header_name(&name, &spot, out);
            }
            name
        }
        None => "Authorization".to_owned(),
    };
    let prefix = fields.text("prefix", out).map(|(text, _)| text).unwrap_or_default();
    AuthKind::ApiKey { key, in_query, name, prefix }
}

/// Credential fields of a kind of sign-in; true marks secrets.
fn credential_fields(kind: &AuthKind) -> Vec<(&'static str, bool)> {
    match kind {
        AuthKind::None => Vec::new(),
        AuthKind::Bearer { .. } => vec![("token", true)],
        AuthKind::Basic { .. } => vec![("username", false), ("password", true)],
        AuthKind::ApiKey { .. } => vec![("key", true)],
        AuthKind::Tokens(tokens) => tokens.credentials(),
    }
}

impl Auth {
    /// What it says of tokens that expire.
    pub fn tokens(&self) -> Option<&TokenAuth> {
        match &self.kind {
            AuthKind::Tokens(tokens) => Some(tokens),
            _ => None,
        }
    }

    /// The credential without which no connection is signed in, where there is no default for it.
    pub fn needed(&self) -> Option<&'static str> {
        match self.kind {
            AuthKind::Bearer { token: None } => Some("token"),
            AuthKind::Basic { username: None, .. } => Some("username"),
            AuthKind::ApiKey { key: None, .. } => Some("key"),
            AuthKind::Tokens(ref tokens) => tokens.needed(),
            _ => None,
        }
    }

    /// The credential that a connection with `credentials` goes without, because it brings none at all and need not: its requests
    /// are not signed in.
    pub fn goes_without(&self, credentials: &Map<String, Value>) -> Option<&'static str> {
        let brings = credential_fields(&self.kind).iter().any(|(name, _)| credentials.contains_key(*name));
        let half = matches!(self.kind, AuthKind::Basic { password: Some(_), .. });
        let free = self.optional && self.tokens().is_none();
        self.needed().filter(|_| free && !brings && !half)
    }

    /// The credential that a connection with `credentials` lacks.
    fn lacks(&self, credentials: &Map<String, Value>) -> Option<&'static str> {
        let missing = self.needed().filter(|name| !credentials.contains_key(*name));
        missing.filter(|_| self.goes_without(credentials).is_none())
    }
}

/// What connections need to know of the file around them.
pub(super) struct ConnectionContext<'a> {
    pub(super) auth: &'a Auth,
    pub(super) partitions: &'a BTreeSet<String>,
    /// Models of functions among them.
    pub(super) streams: &'a [Stream],
    /// Names of functions that are syncs.
    pub(super) functions: Vec<String>,
}

impl ConnectionContext<'_> {
    /// A connection says something of a stream, or of a function by its name.
    fn known(&self, name: &str, spot: &SourceSpan, out: &mut Out) -> bool {
        let known = self.streams.iter().any(|stream| stream.name == name) || self.functions.iter().any(|f| f == name);
        if !known {
            let functions = self.functions.iter().map(String::as_str);
            out.push(unknown_stream(name, spot, self.streams.iter().map(|s| s.name.as_str()).chain(functions)));
        }
        known
    }
}

/// Reads a connection that does not stand in the file, by the rules of those that do: `said` is what would stand behind its name.
/// Secrets are written out in it; references to variables and files are not resolved.
pub fn connection_of(definition: &Definition, name: &str, said: &Value) -> Result<FixedConnection, Vec<Complaint>> {
    let mut out = Out::new();
    let text = said.to_string();
    let mut value = config_text::parse("connection", &text)?;
    written_out(&mut value);
    let partitions = definition.partitions.keys().cloned().collect();
    let functions = definition.function_syncs.iter().map(|sync| sync.name.clone()).collect();
    let around =
        ConnectionContext { auth: &definition.auth, partitions: &partitions, streams: &definition.streams, functions };
    let entry = Entry { key: name.to_owned(), spot: SourceSpan::start("connection"), value };
    let connection = connection(entry, &around, &mut out);
    let code = definition.auth.tokens().is_some_and(|tokens| tokens.code().is_some());
    let brings = |name: &str| connection.as_ref().is_none_or(|known| known.credentials.contains_key(name));
    if code && !brings("access_token") && !brings("refresh_token") {
        let complaint = SourceSpan::start("connection").complain("missing_key", "the connection has no tokens");
        out.push(
            complaint.hint("write `access_token` or `refresh_token` under `credentials`, or let a person sign in"),
        );
    }
    match connection {
        Some(connection) if out.iter().all(|complaint| complaint.warning) => Ok(connection),
        _ => Err(config_text::in_order(out)),
    }
}

/// Whoever may make connections may write secrets into them.
fn written_out(connection: &mut Node) {
    let Content::Map(entries) = &mut connection.content else { return };
    for entry in entries.iter_mut().filter(|entry| matches!(entry.key.as_str(), "credentials" | "fields")) {
        if let Content::Map(fields) = &mut entry.value.content {
            fields.iter_mut().for_each(|field| field.value.referenced = true);
        }
    }
}

/// Reads `connections`.
pub(super) fn connections(node: Option<Node>, around: &ConnectionContext<'_>, out: &mut Out) -> Vec<FixedConnection> {
    let Some(mut map) = node.and_then(|n| Fields::open(n, "`connections`", out)) else { return Vec::new() };
    map.rest().into_iter().filter_map(|entry| connection(entry, around, out)).collect()
}

fn connection(entry: Entry, around: &ConnectionContext<'_>, out: &mut Out) -> Option<FixedConnection> {
    read::name(&entry.key, "a connection", &entry.spot, out);
    let mut fields = Fields::open(entry.value, format!("connection `{}`", entry.key), out)?;
    let mut connection = FixedConnection {
        name: entry.key,
        environment: fields.text("environment", out).map_or_else(|| "default".to_owned(), |(text, _)| text),
        metadata: fields.take("metadata").map_or(Value::Null, |node| node.to_json()),
        ..FixedConnection::default()
    };
    credentials(&mut fields, &mut connection, around, out);
    entered(&mut fields, &mut connection, around, out);
    partitions(&mut fields, &mut connection, around, out);
    tags(&mut fields, &mut connection, out);
    connection.streams = fields.texts("streams", out).map(|list| {
        for (name, spot) in &list {
            around.known(name, spot, out);
        }
        list.into_iter().map(|(name, _)| name).collect()
    });
    schedules(&mut fields, &mut connection, around, out);
    connection.base_url = url_at(&mut fields, "base_url", out);
    connection.webhook_url_override = url_at(&mut fields, "webhook_url_override", out);
    if let Some(missing) = around.auth.lacks(&connection.credentials)
        && !out.iter().any(|c| c.code == "literal_secret")
    {
        let message = format!("connection `{}` needs `{missing}`: `auth` has none for all", connection.name);
        out.push(entry.spot.complain("missing_key", message));
    }
    fields.finish(out);
    Some(connection)
}

fn url_at(fields: &mut Fields, key: &'static str, out: &mut Out) -> Option<String> {
    let (text, spot) = fields.text(key, out)?;
    read::url(&text, &spot, out).map(|_| text)
}

/// `credentials: {…}`, or the fields standing directly under the connection.
fn credentials(fields: &mut Fields, connection: &mut FixedConnection, around: &ConnectionContext<'_>, out: &mut Out) {
    let known = credential_fields(&around.auth.kind).into_iter().chain([(WEBHOOK_SECRET, true)]);
    let mut nested = fields.take("credentials").and_then(|n| Fields::open(n, "`credentials`", out));
    for (name, is_secret) in known {
        if around.partitions.contains(name) && fields.has(name) {
            let message = format!("`{name}` is a field of `auth` as well as a partition");
            let complaint = fields.spot.complain("ambiguous_key", message);
            out.push(complaint.hint("write it under `credentials` or `partitions`"));
            fields.take(name);
            continue;
        }
        let inside = nested.as_mut().and_then(|n| n.take(name));
        let Some(node) = inside.or_else(|| fields.take(name)) else { continue };
        let value = match is_secret {
            true => read::secret(&node, &format!("`{name}`"), out),
            false => read::scalar(&node, &format!("`{name}`"), out),
        };
        connection.credentials.extend(value.map(|v| (name.to_owned(), Value::String(v))));
    }
    if let Some(mut nested) = nested {
        if let Some(raw) = around.auth.tokens().and_then(|_| nested.take(RAW)) {
            connection.credentials.insert(RAW.to_owned(), raw.to_json());
        }
        nested.finish(out);
    }
}

/// What was entered for the connection: `fields` of `auth`.
fn entered(fields: &mut Fields, connection: &mut FixedConnection, around: &ConnectionContext<'_>, out: &mut Out) {
    let given = match fields.take("fields") {
        Some(node) => Fields::open(node, "`fields` of a connection", out).map(|mut map| map.rest()).unwrap_or_default(),
        None => Vec::new(),
    };
    let entered = around.auth.entered(given, &fields.spot, out);
    connection.fields = entered.fields;
    connection.credentials.extend(entered.credentials);
}

/// `partitions: {repo: […]}`, or the partition's name directly under the connection.
fn partitions(fields: &mut Fields, connection: &mut FixedConnection, around: &ConnectionContext<'_>, out: &mut Out) {
    let mut found: BTreeMap<String, Node> = BTreeMap::new();
    if let Some(mut nested) = fields.take("partitions").and_then(|n| Fields::open(n, "`partitions`", out)) {
        for entry in nested.rest() {
            match around.partitions.contains(&entry.key) {
                true => {
                    found.insert(entry.key, entry.value);
                }
                false => {
                    let message = format!("there is no partition `{}`", entry.key);
                    out.push(entry.spot.complain("unknown_key", message));
                }
            }
        }
    }
    for name in around.partitions {
        if let Some(node) = fields.take_named(name) {
            found.insert(name.clone(), node);
        }
    }
    for (name, node) in found {
        let list = match &node.content {
            Content::List(list) => list.as_slice(),
            _ => std::slice::from_ref(&node),
        };
        let what = format!("a value of partition `{name}`");
        let values = list.iter().filter_map(|n| read::scalar(n, &what, out)).collect();
        connection.partitions.insert(name, values);
    }
}

fn tags(fields: &mut Fields, connection: &mut FixedConnection, out: &mut Out) {
    let spot = fields.peek("tags").map(|n| n.spot.clone());
    let tags = fields.texts("tags", out).unwrap_or_default();
    if let (Some(spot), true) = (spot, tags.len() > MAX_TAGS) {
        out.push(spot.complain("out_of_range", format!("a connection has at most {MAX_TAGS} tags")));
    }
    connection.tags = tags.into_iter().map(|(tag, _)| tag).collect();
}

/// `schedule: {Issue: 5m}`.
fn schedules(fields: &mut Fields, connection: &mut FixedConnection, around: &ConnectionContext<'_>, out: &mut Out) {
    let Some(node) = fields.take("schedule") else { return };
    if !matches!(node.content, Content::Map(_)) {
        out.push(bad_type(&node, "`schedule` of a connection", "a map from streams to schedules"));
        return;
    }
    let Some(mut map) = Fields::open(node, "`schedule`", out) else { return };
    for entry in map.rest() {
        if !around.known(&entry.key, &entry.spot, out) {
            continue;
        }
        let writer = around.streams.iter().find(|stream| stream.name == entry.key && stream.of_function);
        if writer.is_some() {
            let message = format!("`{}` is a model of a function, which has the schedule", entry.key);
            let complaint = entry.spot.complain("conflict", message);
            out.push(complaint.hint(format!("name the function: {}", around.functions.join(", "))));
        }
        let schedule = schedule::read(entry.value, "`schedule`", out);
        connection.schedule.insert(entry.key, schedule);
    }
}
