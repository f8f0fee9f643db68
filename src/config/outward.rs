//! `egress` and `endpoints`: where requests may go, and who is told by outgoing webhooks.

use super::value::{Wrong, environment, is_name, later, secret};
use super::{Endpoint, SCHEDULE, Settings};
use crate::connectors::config_text::{Content, Fields, Node, read_duration};
use crate::connectors::egress::{Blocked, Egress};
use crate::connectors::http::{ANSWERS_LEAST, Room, looks_secret};
use base64::Engine as _;

/// Most memory for answers, in MiB.
const ANSWERS_MB_MAX: u64 = 1 << 20;

/// Most tries of a delivery.
const TRIES_MAX: usize = 30;

/// Most secrets of an endpoint while it changes from one to the next.
const SECRETS_MAX: usize = 3;

/// Reads `egress`. Before the endpoints: it judges where they are.
pub(super) fn egress(top: &mut Fields, settings: &mut Settings, wrong: &mut Wrong) {
    let Some(node) = top.take("egress") else { return };
    let Some(mut fields) = Fields::open(node, "`egress`", wrong) else { return };
    settings.allow_http = fields.bool("allow_http", wrong).unwrap_or(false);
    let allow = fields.texts("allow", wrong).unwrap_or_default().into_iter();
    let allowed = allow.filter_map(|(text, spot)| match text.parse() {
        Ok(allowed) => Some(allowed),
        Err(why) => {
            let complaint = spot.complain("bad_allowance", format!("{why}"));
            wrong.push(
                complaint.hint("write 10.0.0.5, 10.0.0.0/8, fd00::/8 or crm.internal, each with :PORT or without"),
            );
            None
        }
    });
    settings.egress = Egress::new(allowed.collect());
    if let Some(mb) = fields.whole("answers_mb", ANSWERS_LEAST >> 20, ANSWERS_MB_MAX, wrong) {
        settings.answers = Room::new(mb << 20);
    }
    fields.finish(wrong);
}

/// Most origins.
const ORIGINS_MAX: usize = 100;

/// Reads `connect`: which pages may show the connect page, and ask for what it asks.
pub(super) fn connect(top: &mut Fields, settings: &mut Settings, wrong: &mut Wrong) {
    let Some(node) = top.take("connect") else { return };
    let Some(mut fields) = Fields::open(node, "`connect`", wrong) else { return };
    let spot = fields.spot.clone();
    for (text, spot) in fields.texts("origins", wrong).unwrap_or_default() {
        let origin = url::Url::parse(&text).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        match origin.map(|url| url.origin().ascii_serialization()) {
            Some(origin) if origin == text => settings.connect_origins.push(origin),
            _ => {
                let complaint = spot.complain("bad_origin", format!("`{text}` is not the origin of a page"));
                wrong.push(complaint.hint("write https://app.example.com, without a path and without `/` at the end"));
            }
        }
    }
    if settings.connect_origins.len() > ORIGINS_MAX {
        wrong.push(spot.complain("bad_value", format!("at most {ORIGINS_MAX} `origins` are allowed")));
    }
    fields.finish(wrong);
}

/// Reads `endpoints`.
pub(super) fn endpoints(top: &mut Fields, settings: &mut Settings, wrong: &mut Wrong) {
    let Some(node) = top.take("endpoints") else { return };
    let Some(mut all) = Fields::open(node, "`endpoints`", wrong) else { return };
    for entry in all.rest() {
        if !is_name(&entry.key) {
            let message = format!("`{}` is not a name: letters, digits, _ and - are allowed, 128 at most", entry.key);
            wrong.push(entry.spot.complain("bad_name", message));
        }
        if let Some(endpoint) = endpoint(&entry.key, entry.value, settings, wrong) {
            settings.endpoints.insert(entry.key, endpoint);
        }
    }
}

fn endpoint(name: &str, node: Node, settings: &Settings, wrong: &mut Wrong) -> Option<Endpoint> {
    let what = format!("endpoint `{name}`");
    let mut fields = Fields::open(node, what.clone(), wrong)?;
    let url = endpoint_url(&mut fields, settings, wrong);
    let secrets = fields.require("secret", wrong).map(|node| secrets(node, &what, wrong));
    let environment = environment(&mut fields, wrong);
    let endpoint = Endpoint {
        environment: environment.clone().unwrap_or_default(),
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
    (environment.is_some() && !endpoint.url.is_empty() && !endpoint.secrets.is_empty()).then_some(endpoint)
}

fn endpoint_url(fields: &mut Fields, settings: &Settings, wrong: &mut Wrong) -> Option<String> {
    let referenced = fields.peek("url").is_some_and(|node| node.referenced);
    let (text, spot) = fields.require_text("url", wrong)?;
    let url = url::Url::parse(&text).ok().filter(url::Url::has_host);
    if url.as_ref().is_some_and(|url| !url.username().is_empty() || url.password().is_some()) {
        let complaint = spot.complain("literal_secret", "`url` of an endpoint must not hold a user name or password");
        wrong.push(complaint.hint("leave them out: a receiver knows us by the signature (docs/webhooks.md)"));
        return None;
    }
    let secret = url.iter().flat_map(|url| url.query_pairs()).find(|(name, _)| looks_secret(name));
    if let (Some((name, _)), false) = (secret, referenced) {
        let message = format!("`{name}` in `url` of an endpoint is a secret and may not stand in the file");
        wrong.push(spot.complain("literal_secret", message).hint("keep the whole URL elsewhere: url: env:NAME"));
        return None;
    }
    if let Some(why) = url.as_ref().and_then(|url| settings.egress.judge(url).err())
        && matches!(why, Blocked::Address { .. } | Blocked::Port { .. })
    {
        wrong.push(spot.complain("egress_blocked", why.to_string()));
        return None;
    }
    match url.as_ref().map(url::Url::scheme) {
        Some("https") => Some(text),
        Some("http") if settings.allow_http => Some(text),
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
        if encoded.is_some_and(|e| !decodes(e)) {
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
