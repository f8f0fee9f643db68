//! The tree of settings → [`Settings`], key by key; reading goes on after a complaint, so that all come at once.

use super::{ApiKey, Endpoint, LogFormat, Logs, Metrics, Role, SCHEDULE, Settings};
use crate::connectors::located::{Complaint, Content, Fields, Node, duration, read_duration};
use base64::Engine as _;
use sha2::{Digest, Sha256};
use std::path::PathBuf;

/// All keys at the top.
pub(super) const KEYS: [&str; 23] = [
    "listen",
    "hooks_listen",
    "public_url",
    "trusted_proxies",
    "tls",
    "data_dir",
    "sources",
    "log",
    "kafka",
    "api_keys",
    "encryption",
    "retention",
    "endpoints",
    "egress",
    "ingress",
    "variables",
    "workers",
    "tables_mb",
    "min_free_mb",
    "metrics",
    "otlp",
    "logs",
    "dashboard",
];

/// Keys that are known and do nothing yet.
const LATER: [&str; 5] = ["hooks_listen", "tls", "variables", "otlp", "dashboard"];

/// Shortest API key.
const KEY_CHARS: usize = 32;

/// Most API keys: each is compared at every request.
const KEYS_MAX: usize = 256;

/// Most tries of a delivery.
const TRIES_MAX: usize = 30;

/// Most secrets of an endpoint while it changes from one to the next.
const SECRETS_MAX: usize = 3;

/// Most memory for tables, in MiB.
const TABLES_MB_MAX: u64 = 1 << 20;

/// Most space to be kept free, in MiB.
const MIN_FREE_MB_MAX: u64 = 1 << 20;

/// Most workers.
const WORKERS_MAX: u64 = 64;

pub(super) type Wrong = Vec<Complaint>;

/// Reads all keys; what is wrong or absent keeps its default.
pub(super) fn settings(tree: Node, wrong: &mut Wrong) -> Settings {
    let mut settings = Settings::default();
    let Some(mut top) = Fields::open(tree, "the settings", wrong) else { return settings };
    if let Some(listen) = listen(&mut top, wrong) {
        settings.listen = listen;
    }
    settings.public_url = public_url(&mut top, wrong);
    if let Some((dir, _)) = top.text("data_dir", wrong) {
        settings.data_dir = PathBuf::from(dir);
    }
    if let Some(sources) = sources(&mut top, wrong) {
        settings.sources = sources;
    }
    settings.allow_http = egress(&mut top, wrong);
    settings.api_keys = api_keys(&mut top, wrong);
    endpoints(&mut top, &mut settings, wrong);
    super::kafka::read(&mut top, &mut settings, wrong);
    encryption(&mut top, wrong);
    retention(&mut top, wrong);
    if let Some(workers) = top.whole("workers", 1, WORKERS_MAX, wrong) {
        settings.workers = usize::try_from(workers).unwrap_or(1);
    }
    if let Some(mb) = top.whole("tables_mb", 1, TABLES_MB_MAX, wrong) {
        settings.table_bytes = usize::try_from(mb).unwrap_or(1) << 20;
    }
    settings.min_free = top.whole("min_free_mb", 0, MIN_FREE_MB_MAX, wrong).map(|mb| mb << 20);
    logs(&mut top, &mut settings.logs, wrong);
    settings.metrics = metrics(&mut top, wrong);
    settings.ingress = super::ingress::read(&mut top, wrong);
    for key in LATER {
        later(&mut top, key, wrong);
    }
    top.finish(wrong);
    settings
}

/// Takes a key this release knows but does not serve, and says so.
fn later(fields: &mut Fields, key: &'static str, wrong: &mut Wrong) {
    if let Some(entry) = fields.take_entry(key) {
        let message = format!("`{key}` of {} is not served by this release and does nothing", fields.what);
        wrong.push(entry.spot.complain("not_in_this_release", message).warn());
    }
}

fn listen(top: &mut Fields, wrong: &mut Wrong) -> Option<String> {
    let (text, spot) = top.text("listen", wrong)?;
    let good = text.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
    if !good {
        let complaint = spot.complain("bad_address", format!("`{text}` is not an address to listen on"));
        wrong.push(complaint.hint("write HOST:PORT, such as 127.0.0.1:8080"));
    }
    good.then_some(text)
}

fn public_url(top: &mut Fields, wrong: &mut Wrong) -> Option<String> {
    let (text, spot) = top.text("public_url", wrong)?;
    let good = url::Url::parse(&text).is_ok_and(|u| matches!(u.scheme(), "http" | "https") && u.has_host());
    if !good {
        let complaint = spot.complain("bad_url", format!("`{text}` is not a URL providers could call"));
        wrong.push(complaint.hint("write https://sync.example.com"));
    }
    good.then(|| text.trim_end_matches('/').to_owned())
}

fn sources(top: &mut Fields, wrong: &mut Wrong) -> Option<Vec<String>> {
    let node = top.take("sources")?;
    let list = match node.content {
        Content::Text(one) => return Some(vec![one]),
        Content::List(list) => list,
        _ => {
            wrong.push(node.spot.complain("bad_type", "`sources` must be a folder or a list of globs"));
            return None;
        }
    };
    let mut globs = Vec::with_capacity(list.len());
    for node in list {
        match node.content {
            Content::Text(text) => globs.push(text),
            _ => wrong.push(node.spot.complain("bad_type", format!("a glob must be text, not {}", node.kind()))),
        }
    }
    Some(globs)
}

fn egress(top: &mut Fields, wrong: &mut Wrong) -> bool {
    let Some(node) = top.take("egress") else { return false };
    let Some(mut egress) = Fields::open(node, "`egress`", wrong) else { return false };
    let allow_http = egress.bool("allow_http", wrong).unwrap_or(false);
    later(&mut egress, "allow_cidrs", wrong);
    later(&mut egress, "ports", wrong);
    egress.finish(wrong);
    allow_http
}

fn metrics(top: &mut Fields, wrong: &mut Wrong) -> Metrics {
    let Some(node) = top.take("metrics") else { return Metrics::default() };
    let Some(mut fields) = Fields::open(node, "`metrics`", wrong) else { return Metrics::default() };
    let open = fields.bool("open", wrong).unwrap_or(false);
    let per_connection = fields.bool("per_connection", wrong).unwrap_or(false);
    fields.finish(wrong);
    Metrics { open, per_connection }
}

fn api_keys(top: &mut Fields, wrong: &mut Wrong) -> Vec<ApiKey> {
    let list = top.list("api_keys", wrong).unwrap_or_default();
    if list.len() > KEYS_MAX {
        wrong.push(top.spot.complain("bad_value", format!("{} API keys are set; {KEYS_MAX} are allowed", list.len())));
    }
    let mut keys: Vec<ApiKey> = Vec::new();
    for (at, node) in list.into_iter().take(KEYS_MAX).enumerate() {
        let spot = node.spot.clone();
        let Some(key) = api_key(at, node, wrong) else { continue };
        match keys.iter().find(|k| k.hash == key.hash) {
            Some(same) => {
                let message = format!("`{}` and `{}` are the same key", same.name, key.name);
                wrong.push(spot.complain("duplicate_key", message));
            }
            None => keys.push(key),
        }
    }
    keys
}

fn api_key(at: usize, node: Node, wrong: &mut Wrong) -> Option<ApiKey> {
    const ROLES: [(&str, Role); 3] = [("reader", Role::Reader), ("writer", Role::Writer), ("admin", Role::Admin)];
    let what = format!("`api_keys[{at}]`");
    let mut fields = Fields::open(node, what.clone(), wrong)?;
    let name = fields.text("name", wrong).map_or_else(|| format!("key {}", at + 1), |(name, _)| name);
    let environment = environment(&mut fields, wrong);
    if !fields.has("role") {
        let complaint = fields.spot.complain("missing_key", format!("{what} needs the key `role`"));
        wrong.push(complaint.hint("write reader, writer or admin"));
    }
    let role = fields.word("role", &ROLES, wrong);
    let node = fields.require("key", wrong);
    fields.finish(wrong);
    let node = node?;
    let text = secret(&node, &format!("`key` of {what}"), wrong)?;
    if text.len() < KEY_CHARS || !text.bytes().all(|b| b.is_ascii_graphic()) {
        let message =
            format!("the key of {what} has {} characters; at least {KEY_CHARS} printable ones are wanted", text.len());
        wrong.push(node.spot.complain("short_key", message).hint("make one with: openssl rand -hex 32"));
        return None;
    }
    Some(ApiKey { name, hash: Sha256::digest(text).into(), environment: environment?, role: role? })
}

fn environment(fields: &mut Fields, wrong: &mut Wrong) -> Option<String> {
    let Some((text, spot)) = fields.text("environment", wrong) else { return Some("default".into()) };
    if is_name(&text) {
        return Some(text);
    }
    let message = format!("`{text}` is not a name: letters, digits, _ and - are allowed, 128 at most");
    wrong.push(spot.complain("bad_name", message));
    None
}

fn is_name(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    (1..=128).contains(&text.len()) && text.bytes().all(word) && text.starts_with(|c: char| c.is_ascii_alphanumeric())
}

/// A secret: text that stands elsewhere.
fn secret(node: &Node, what: &str, wrong: &mut Wrong) -> Option<String> {
    let Some(text) = node.text() else {
        wrong.push(node.spot.complain("bad_type", format!("{what} must be a reference, not {}", node.kind())));
        return None;
    };
    if !node.referenced {
        let complaint =
            node.spot.complain("literal_secret", format!("{what} is a secret and may not stand in the file"));
        wrong.push(complaint.hint("write env:NAME or file:PATH"));
        return None;
    }
    // What could not be found was complained about; its stand-in is no secret.
    let missing =
        |c: &Complaint| c.code == "unresolved_reference" && (c.line, c.col) == (node.spot.line, node.spot.col);
    (!wrong.iter().any(missing)).then(|| text.to_owned())
}

/// Text that may stand in the file, or a secret that may not.
pub(super) fn secret_or_text(node: &Node, is_secret: bool, what: &str, wrong: &mut Wrong) -> Option<String> {
    if is_secret {
        return secret(node, what, wrong);
    }
    let text = node.scalar_text();
    if text.is_none() {
        wrong.push(node.spot.complain("bad_type", format!("{what} must be text or a number, not {}", node.kind())));
    }
    text
}

fn endpoints(top: &mut Fields, settings: &mut Settings, wrong: &mut Wrong) {
    let Some(node) = top.take("endpoints") else { return };
    let Some(mut all) = Fields::open(node, "`endpoints`", wrong) else { return };
    for entry in all.rest() {
        if !is_name(&entry.key) {
            let message = format!("`{}` is not a name: letters, digits, _ and - are allowed, 128 at most", entry.key);
            wrong.push(entry.spot.complain("bad_name", message));
        }
        if let Some(endpoint) = endpoint(&entry.key, entry.value, settings.allow_http, wrong) {
            settings.endpoints.insert(entry.key, endpoint);
        }
    }
}

fn endpoint(name: &str, node: Node, allow_http: bool, wrong: &mut Wrong) -> Option<Endpoint> {
    let what = format!("endpoint `{name}`");
    let mut fields = Fields::open(node, what.clone(), wrong)?;
    let url = endpoint_url(&mut fields, allow_http, wrong);
    let secrets = fields.require("secret", wrong).map(|node| secrets(node, &what, wrong));
    let endpoint = Endpoint {
        url: url.unwrap_or_default(),
        secrets: secrets.unwrap_or_default(),
        sync_always: fields.bool("sync_always", wrong).unwrap_or(false),
        on_sync_error: fields.bool("on_sync_error", wrong).unwrap_or(true),
        schedule: schedule(&mut fields, wrong),
        legacy_signature: fields.bool("legacy_signature", wrong).unwrap_or(false),
    };
    for key in ["types", "format", "payload", "filter", "ordered"] {
        later(&mut fields, key, wrong);
    }
    fields.finish(wrong);
    (!endpoint.url.is_empty() && !endpoint.secrets.is_empty()).then_some(endpoint)
}

fn endpoint_url(fields: &mut Fields, allow_http: bool, wrong: &mut Wrong) -> Option<String> {
    let (text, spot) = fields.require_text("url", wrong)?;
    let scheme = url::Url::parse(&text).ok().filter(url::Url::has_host).map(|u| u.scheme().to_owned());
    match scheme.as_deref() {
        Some("https") => Some(text),
        Some("http") if allow_http => Some(text),
        Some("http") => {
            let complaint = spot.complain("insecure_url", format!("`{text}` is not encrypted"));
            wrong.push(complaint.hint("use https:, or set egress.allow_http: true"));
            None
        }
        _ => {
            wrong.push(spot.complain("bad_url", format!("`{text}` is not an absolute https: URL")));
            None
        }
    }
}

/// One secret, or several while receivers change from one to the next; the first signs first.
fn secrets(node: Node, what: &str, wrong: &mut Wrong) -> Vec<String> {
    let spot = node.spot.clone();
    let list = match node.content {
        Content::List(list) => list,
        _ => vec![node],
    };
    if !(1..=SECRETS_MAX).contains(&list.len()) {
        wrong.push(spot.complain("bad_value", format!("`secret` of {what}: 1 to {SECRETS_MAX} secrets are wanted")));
    }
    let mut secrets = Vec::new();
    for node in list {
        let Some(text) = secret(&node, &format!("`secret` of {what}"), wrong) else { continue };
        let encoded = text.strip_prefix("whsec_");
        let decodes = |e: &str| base64::engine::general_purpose::STANDARD.decode(e).is_ok_and(|key| !key.is_empty());
        if encoded.is_some_and(|e| !decodes(e)) || text.is_empty() {
            let message = format!("`secret` of {what} begins with whsec_, but what follows is not base64");
            wrong.push(node.spot.complain("bad_secret", message));
        } else {
            secrets.push(text);
        }
    }
    secrets
}

fn schedule(fields: &mut Fields, wrong: &mut Wrong) -> Vec<u64> {
    let spot = fields.spot.clone();
    let Some(list) = fields.list("schedule", wrong) else { return SCHEDULE.to_vec() };
    if !(1..=TRIES_MAX).contains(&list.len()) {
        wrong.push(spot.complain("bad_value", format!("`schedule` has 1 to {TRIES_MAX} waits, not {}", list.len())));
    }
    let mut waits = Vec::with_capacity(list.len());
    for node in list {
        match read_duration(&node) {
            Ok(wait) => waits.push(wait.as_secs()),
            Err(complaint) => wrong.push(complaint),
        }
    }
    waits
}

/// Only `encryption: off` can be kept; silently storing in the clear what was asked to be encrypted would be a lie.
fn encryption(top: &mut Fields, wrong: &mut Wrong) {
    let Some(node) = top.take("encryption") else { return };
    if node.text() == Some("off") {
        return;
    }
    let complaint = match node.content {
        Content::Map(_) => node.spot.complain("not_in_this_release", "this release does not encrypt what it stores"),
        _ => node.spot.complain("bad_value", "`encryption` is `off` or a map with `keys`"),
    };
    wrong.push(complaint.hint("write `encryption: off` and keep data_dir on an encrypted disk"));
}

fn retention(top: &mut Fields, wrong: &mut Wrong) {
    let Some(node) = top.take("retention") else { return };
    let Some(mut fields) = Fields::open(node, "`retention`", wrong) else { return };
    for key in ["payload", "idle", "changes", "tombstones", "webhooks", "requests", "dead_letters"] {
        let Some(entry) = fields.take_entry(key) else { continue };
        let span = entry.value.text().is_some_and(|text| text == "off" || duration(text).is_some());
        if span {
            let message = format!("`{key}` of `retention` is not served by this release: nothing is dropped by age");
            wrong.push(entry.spot.complain("not_in_this_release", message).warn());
        } else {
            let complaint = entry.value.spot.complain("bad_duration", format!("`{key}` must be a duration or off"));
            wrong.push(complaint.hint("write 7d, 24h or off"));
        }
    }
    fields.finish(wrong);
}

fn logs(top: &mut Fields, logs: &mut Logs, wrong: &mut Wrong) {
    const FORMATS: [(&str, LogFormat); 3] =
        [("auto", LogFormat::Auto), ("pretty", LogFormat::Pretty), ("json", LogFormat::Json)];
    let Some(node) = top.take("logs") else { return };
    let Some(mut fields) = Fields::open(node, "`logs`", wrong) else { return };
    if let Some(format) = fields.word("format", &FORMATS, wrong) {
        logs.format = format;
    }
    if let Some((level, _)) = fields.text("level", wrong) {
        logs.level = level;
    }
    fields.finish(wrong);
}
