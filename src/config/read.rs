//! The tree of settings → [`Settings`], key by key; reading goes on after a complaint, so that all come at once.

use super::value::{Wrong, environment, later, secret};
use super::{ApiKey, FunctionSettings, LogFormat, Logs, Metrics, OF_ALL, Role, Settings};
use crate::connectors::config_text::{Content, Fields, Node, duration};
use sha2::{Digest, Sha256};
use std::path::PathBuf;

/// All keys at the top.
pub(super) const KEYS: [&str; 24] = [
    "listen",
    "hooks_listen",
    "public_url",
    "trusted_proxies",
    "tls",
    "data_dir",
    "sources",
    "functions",
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

/// Most memory for tables, in MiB.
const TABLES_MB_MAX: u64 = 1 << 20;

/// Most space to be kept free, in MiB.
const MIN_FREE_MB_MAX: u64 = 1 << 20;

/// Most workers.
const WORKERS_MAX: u64 = 64;

/// `functions: {path: …, in_process: …}`.
fn functions(top: &mut Fields, wrong: &mut Wrong) -> FunctionSettings {
    let mut functions = FunctionSettings { path: PathBuf::from("./functions"), named: false, in_process: false };
    let Some(mut fields) = top.take("functions").and_then(|node| Fields::open(node, "`functions`", wrong)) else {
        return functions;
    };
    if let Some((path, _)) = fields.text("path", wrong) {
        (functions.path, functions.named) = (PathBuf::from(path), true);
    }
    functions.in_process = fields.bool("in_process", wrong).unwrap_or(false);
    fields.finish(wrong);
    functions
}

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
    settings.functions = Some(functions(&mut top, wrong));
    super::outward::egress(&mut top, &mut settings, wrong);
    settings.api_keys = api_keys(&mut top, wrong);
    super::outward::endpoints(&mut top, &mut settings, wrong);
    super::outward::connect(&mut top, &mut settings, wrong);
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
    let good = url::Url::parse(&text).is_ok_and(|u| {
        matches!(u.scheme(), "http" | "https") && u.has_host() && u.username().is_empty() && u.password().is_none()
    });
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
    let of_all = fields.peek("environment").and_then(Node::text) == Some(OF_ALL);
    let environment = match of_all {
        true => fields.text("environment", wrong).map(|(text, _)| text),
        false => environment(&mut fields, wrong),
    };
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
