//! `webhooks.verify`: schemes as data, presets of providers.

use super::read::{self, Out};
use super::{
    HashAlgorithm, HmacScheme, KeyForm, Scheme, SignatureEncoding, SignatureFormat, SignedPart, StampPlace, StampRule,
    StampUnit, Verify,
};
use crate::config_text::{Content, Fields, Node, SourceSpan, bad_type, nearest};
use base64::Engine as _;
use std::time::Duration;

/// The per-connection secret as it is written.
const PER_CONNECTION: &str = "{{ webhook_secret }}";
/// Signatures tried from one header.
const MAX_SIGNATURES: usize = 8;
/// Oldest and newest signed time, unless written.
const PAST: Duration = Duration::from_secs(300);
const FUTURE: Duration = Duration::from_secs(60);
/// Schemes of later releases.
const LATER: [&str; 8] =
    ["sha_concat", "ed25519", "url_secret", "ecdsa_p256", "rsa_sha256", "jwt", "mtls_or_ip", "expr"];

/// A provider's scheme and the delivery id it sends.
struct Preset {
    name: &'static str,
    scheme: Scheme,
    dedupe: &'static str,
}

/// Reads `verify`; gives the preset's own `dedupe` expression as well.
pub(super) fn verify(node: Node, per_connection: bool, out: &mut Out) -> Option<(Verify, Option<&'static str>)> {
    let mut fields = Fields::open(node, "`verify`", out)?;
    read::later(&mut fields, "expr", "describe the signature with `scheme: hmac`", out);
    let both = fields.has("preset") && fields.has("scheme");
    if both {
        out.push(fields.spot.complain("conflict", "`verify` has both `preset` and `scheme`"));
    }
    let chosen = match fields.text("preset", out) {
        Some((name, spot)) => {
            fields.take("scheme");
            named(&name, &spot, out).map(|p| (p.scheme, Some(p.dedupe).filter(|d| !d.is_empty())))
        }
        None => scheme(&mut fields, out).map(|scheme| (scheme, None)),
    };
    let wants_secret = chosen.as_ref().is_none_or(|(scheme, _)| *scheme != Scheme::None);
    let (secrets, own) = match fields.take("secret") {
        Some(node) => secrets(node, per_connection, out),
        None if wants_secret => {
            out.push(fields.spot.complain("missing_key", "`verify` needs the key `secret`"));
            (Vec::new(), false)
        }
        None => (Vec::new(), false),
    };
    let key_spot = fields.spot.clone();
    if !both && chosen.is_some() {
        fields.finish(out);
    }
    let (scheme, dedupe) = chosen?;
    if let Scheme::Hmac(hmac) = &scheme
        && !secrets.iter().all(|s| decodes(s, hmac.key))
    {
        out.push(key_spot.complain("bad_value", "a secret of `verify` is not in the form the scheme expects"));
    }
    Some((Verify { scheme, secrets, per_connection_secret: own }, dedupe))
}

fn secrets(node: Node, per_connection: bool, out: &mut Out) -> (Vec<String>, bool) {
    let squeezed = node.text().map(|t| t.replace(' ', ""));
    if squeezed.as_deref() == Some("{{webhook_secret}}") && !node.referenced {
        if !per_connection {
            let message = format!("`{PER_CONNECTION}` needs `scope: connection`");
            let complaint = node.spot.complain("conflict", message);
            out.push(complaint.hint("with one URL for all connections the connection is known only after the check"));
        }
        return (Vec::new(), true);
    }
    let list = match &node.content {
        Content::List(list) => list.as_slice(),
        _ => std::slice::from_ref(&node),
    };
    if list.is_empty() {
        let complaint =
            node.spot.complain("missing_key", "`secret` of `verify` lists no secret: no request could be proven");
        out.push(complaint.hint("write env:NAME or file:PATH; or `scheme: none` if requests cannot be proven"));
    }
    (list.iter().filter_map(|n| read::secret(n, "`secret` of `verify`", out)).collect(), false)
}

/// Whether the secret can become key bytes.
fn decodes(secret: &str, form: KeyForm) -> bool {
    let base64 = |text: &str| base64::engine::general_purpose::STANDARD.decode(text).is_ok_and(|b| !b.is_empty());
    match form {
        KeyForm::Text => !secret.is_empty(),
        // Stand-in of a reference that was already complained about.
        _ if secret == "unresolved" => true,
        KeyForm::Base64 => base64(secret),
        KeyForm::Whsec => base64(secret.strip_prefix("whsec_").unwrap_or(secret)),
        KeyForm::Hex => hex::decode(secret).is_ok_and(|b| !b.is_empty()),
    }
}

fn scheme(fields: &mut Fields, out: &mut Out) -> Option<Scheme> {
    let (word, spot) = match fields.text("scheme", out) {
        Some(found) => found,
        None => {
            let complaint = fields.spot.complain("unverified", "`verify` names neither `preset` nor `scheme`");
            out.push(complaint.hint("write `scheme: none` if requests cannot be proven"));
            return None;
        }
    };
    match word.as_str() {
        "none" => Some(Scheme::None),
        "hmac" => hmac(fields, out).map(Scheme::Hmac),
        "shared_secret" => {
            let mut header = read::header_at(fields, "header", out);
            if let Some(mut signature) = fields.take("signature").and_then(|n| Fields::open(n, "`signature`", out)) {
                header = read::header_at(&mut signature, "header", out).or(header);
                signature.finish(out);
            }
            if header.is_none() {
                out.push(spot.complain("missing_key", "`scheme: shared_secret` needs the key `header`"));
            }
            header.map(|header| Scheme::SharedSecret { header: header.to_ascii_lowercase() })
        }
        later if LATER.contains(&later) => {
            let complaint =
                spot.complain("not_in_this_release", format!("`scheme: {later}` is not part of this release"));
            out.push(complaint.hint("hmac, shared_secret and none are"));
            None
        }
        _ => {
            out.push(
                spot.complain("bad_value", format!("`{word}` is not a scheme; hmac, shared_secret or none is wanted")),
            );
            None
        }
    }
}

fn hmac(fields: &mut Fields, out: &mut Out) -> Option<HmacScheme> {
    let algorithms =
        [("sha1", HashAlgorithm::Sha1), ("sha256", HashAlgorithm::Sha256), ("sha512", HashAlgorithm::Sha512)];
    let algorithm = fields.word("algorithm", &algorithms, out).unwrap_or(HashAlgorithm::Sha256);
    let forms =
        [("text", KeyForm::Text), ("base64", KeyForm::Base64), ("hex", KeyForm::Hex), ("whsec", KeyForm::Whsec)];
    let key = fields.word("key", &forms, out).unwrap_or(KeyForm::Text);
    let signature = fields.require("signature", out).and_then(|n| Fields::open(n, "`signature`", out));
    let timestamp = fields.take("timestamp").map(|n| timestamp(n, out));
    let content = fields.take("content").map_or(vec![SignedPart::Body], |n| content(n, out));
    let mut signature = signature?;
    if !signature.has("header") {
        out.push(signature.spot.complain("missing_key", "`signature` needs the key `header`"));
    }
    let header = read::header_at(&mut signature, "header", out).map(|h| h.to_ascii_lowercase());
    let format = format(&mut signature, out);
    let encodings = [
        ("hex", SignatureEncoding::Hex),
        ("base64", SignatureEncoding::Base64),
        ("base64url", SignatureEncoding::Base64Url),
    ];
    let encoding = signature.word("encoding", &encodings, out).unwrap_or(SignatureEncoding::Hex);
    let max = signature.whole("max", 1, 32, out).unwrap_or(MAX_SIGNATURES as u64) as usize;
    let spot = signature.spot.clone();
    signature.finish(out);
    if !content.contains(&SignedPart::Body) {
        out.push(spot.complain("bad_value", "`content` must hold `body`: what is not signed can be forged"));
    }
    if content.contains(&SignedPart::Stamp) && timestamp.is_none() {
        out.push(spot.complain("missing_key", "`ts` in `content` needs the key `timestamp`"));
    }
    let timestamp = match timestamp {
        Some(stamp) => Some(stamp?),
        None => None,
    };
    Some(HmacScheme { algorithm, header: header?, format: format?, encoding, max, timestamp, content, key })
}

fn format(signature: &mut Fields, out: &mut Out) -> Option<SignatureFormat> {
    let prefix = signature.text("prefix", out).map(|(text, _)| text).unwrap_or_default();
    let key = signature.text("kv_key", out).map_or_else(|| "v1".to_owned(), |(text, _)| text);
    let Some((word, spot)) = signature.text("format", out) else {
        return Some(if prefix.is_empty() { SignatureFormat::Raw } else { SignatureFormat::Prefix(prefix) });
    };
    match word.as_str() {
        "raw" => Some(SignatureFormat::Raw),
        "prefix" => Some(SignatureFormat::Prefix(prefix)),
        "kv" => Some(SignatureFormat::Kv(key)),
        "list" => Some(SignatureFormat::List(key)),
        _ => {
            out.push(spot.complain("bad_value", format!("`format` is `{word}`; raw, prefix, kv or list is wanted")));
            None
        }
    }
}

fn timestamp(node: Node, out: &mut Out) -> Option<StampRule> {
    let mut fields = Fields::open(node, "`timestamp`", out)?;
    let from = fields.text("from", out).unwrap_or_else(|| ("header".to_owned(), fields.spot.clone()));
    let name = fields.require_text("name", out);
    let units = [("s", StampUnit::Seconds), ("ms", StampUnit::Millis), ("iso8601", StampUnit::Iso8601)];
    let unit = fields.word("unit", &units, out).unwrap_or(StampUnit::Seconds);
    let past = fields.duration("past", out).map_or(PAST, |(span, _)| span);
    let future = fields.duration("future", out).map_or(FUTURE, |(span, _)| span);
    fields.finish(out);
    let (name, name_spot) = name?;
    let (from, spot) = from;
    let from = match from.as_str() {
        "header" if read::header_name(&name, &name_spot, out) => StampPlace::Header(name.to_ascii_lowercase()),
        "header" => return None,
        "kv" => StampPlace::Kv(name),
        "body" => StampPlace::Body(name),
        _ => {
            out.push(spot.complain("bad_value", format!("`from` is `{from}`; header, kv or body is wanted")));
            return None;
        }
    };
    Some(StampRule { from, unit, past, future })
}

fn content(node: Node, out: &mut Out) -> Vec<SignedPart> {
    let Content::List(list) = &node.content else {
        out.push(bad_type(&node, "`content`", "a list"));
        return vec![SignedPart::Body];
    };
    list.iter().filter_map(|n| part(n, out)).collect()
}

fn part(node: &Node, out: &mut Out) -> Option<SignedPart> {
    if let Some(text) = node.get("lit").and_then(Node::text) {
        return Some(SignedPart::Literal(text.to_owned()));
    }
    let word = node.text().unwrap_or_default();
    Some(match word {
        "ts" => SignedPart::Stamp,
        "id" => SignedPart::Id,
        "method" => SignedPart::Method,
        "url" => SignedPart::Url,
        "path" => SignedPart::Path,
        "query" => SignedPart::Query,
        "body" => SignedPart::Body,
        "secret" => SignedPart::Secret,
        "url_hubspot" => {
            out.push(node.spot.complain("not_in_this_release", "`url_hubspot` is not part of this release"));
            return None;
        }
        _ => match word.strip_prefix("header:") {
            Some(name) if read::header_name(name, &node.spot, out) => SignedPart::Header(name.to_ascii_lowercase()),
            Some(_) => return None,
            None => {
                let complaint =
                    node.spot.complain("bad_value", format!("{} is not a part of signed content", node.to_json()));
                out.push(complaint.hint("ts, id, method, url, path, query, header:NAME, body, secret or {lit: text}"));
                return None;
            }
        },
    })
}

/// HMAC-SHA256 over the body, hex, alone in its header: what most presets vary.
fn plain(header: &str) -> HmacScheme {
    HmacScheme {
        algorithm: HashAlgorithm::Sha256,
        header: header.to_owned(),
        format: SignatureFormat::Raw,
        encoding: SignatureEncoding::Hex,
        max: MAX_SIGNATURES,
        timestamp: None,
        content: vec![SignedPart::Body],
        key: KeyForm::Text,
    }
}

fn stamp(from: StampPlace, unit: StampUnit) -> Option<StampRule> {
    Some(StampRule { from, unit, past: PAST, future: PAST })
}

fn literal(text: &str) -> SignedPart {
    SignedPart::Literal(text.to_owned())
}

/// The presets, from the providers' public documentation.
fn presets() -> Vec<Preset> {
    use SignatureEncoding::Base64;
    let prefix = |text: &str| SignatureFormat::Prefix(text.to_owned());
    let header = |name: &str| StampPlace::Header(name.to_owned());
    let hmac = |name, dedupe, scheme| Preset { name, scheme: Scheme::Hmac(scheme), dedupe };
    vec![
        hmac(
            "standard_webhooks",
            "$h[\"webhook-id\"]",
            HmacScheme {
                format: SignatureFormat::List("v1".to_owned()),
                encoding: Base64,
                timestamp: stamp(header("webhook-timestamp"), StampUnit::Seconds),
                content: vec![SignedPart::Id, literal("."), SignedPart::Stamp, literal("."), SignedPart::Body],
                key: KeyForm::Whsec,
                ..plain("webhook-signature")
            },
        ),
        hmac(
            "github",
            "$h[\"x-github-delivery\"]",
            HmacScheme { format: prefix("sha256="), ..plain("x-hub-signature-256") },
        ),
        hmac(
            "stripe",
            ".id",
            HmacScheme {
                format: SignatureFormat::Kv("v1".to_owned()),
                timestamp: stamp(StampPlace::Kv("t".to_owned()), StampUnit::Seconds),
                content: vec![SignedPart::Stamp, literal("."), SignedPart::Body],
                ..plain("stripe-signature")
            },
        ),
        hmac(
            "shopify",
            "$h[\"x-shopify-webhook-id\"]",
            HmacScheme { encoding: Base64, ..plain("x-shopify-hmac-sha256") },
        ),
        hmac(
            "slack",
            ".event_id",
            HmacScheme {
                format: prefix("v0="),
                timestamp: stamp(header("x-slack-request-timestamp"), StampUnit::Seconds),
                content: vec![literal("v0:"), SignedPart::Stamp, literal(":"), SignedPart::Body],
                ..plain("x-slack-signature")
            },
        ),
        hmac(
            "linear",
            "$h[\"linear-delivery\"]",
            HmacScheme {
                timestamp: Some(StampRule {
                    from: StampPlace::Body("webhookTimestamp".to_owned()),
                    unit: StampUnit::Millis,
                    past: FUTURE,
                    future: FUTURE,
                }),
                ..plain("linear-signature")
            },
        ),
        hmac(
            "hubspot_v3",
            "[.eventId, .subscriptionId, .occurredAt]",
            HmacScheme {
                encoding: Base64,
                timestamp: stamp(header("x-hubspot-request-timestamp"), StampUnit::Millis),
                // Our URLs have none of the characters that HubSpot decodes before it signs.
                content: vec![SignedPart::Method, SignedPart::Url, SignedPart::Body, SignedPart::Stamp],
                ..plain("x-hubspot-signature-v3")
            },
        ),
        hmac("notion", ".id", HmacScheme { format: prefix("sha256="), ..plain("x-notion-signature") }),
        hmac("attio", "$h[\"idempotency-key\"]", plain("attio-signature")),
        hmac(
            "intercom",
            ".id",
            HmacScheme { algorithm: HashAlgorithm::Sha1, format: prefix("sha1="), ..plain("x-hub-signature") },
        ),
        hmac(
            "zendesk",
            "$h[\"x-zendesk-webhook-invocation-id\"]",
            HmacScheme {
                encoding: Base64,
                timestamp: stamp(header("x-zendesk-webhook-signature-timestamp"), StampUnit::Iso8601),
                content: vec![SignedPart::Stamp, SignedPart::Body],
                ..plain("x-zendesk-webhook-signature")
            },
        ),
        hmac(
            "typeform",
            ".event_id",
            HmacScheme { encoding: Base64, format: prefix("sha256="), ..plain("typeform-signature") },
        ),
        hmac(
            "jira",
            "$h[\"x-atlassian-webhook-identifier\"]",
            HmacScheme { format: prefix("sha256="), ..plain("x-hub-signature") },
        ),
        Preset { name: "gitlab", scheme: Scheme::SharedSecret { header: "x-gitlab-token".to_owned() }, dedupe: "" },
    ]
}

fn named(name: &str, spot: &SourceSpan, out: &mut Out) -> Option<Preset> {
    let mut presets = presets();
    if let Some(at) = presets.iter().position(|p| p.name == name) {
        return Some(presets.swap_remove(at));
    }
    let complaint = spot.complain("unknown_preset", format!("there is no signature preset `{name}`"));
    let near = nearest(name, presets.iter().map(|p| p.name));
    let known: Vec<&str> = presets.iter().map(|p| p.name).collect();
    out.push(match near {
        Some(near) => complaint.hint(format!("did you mean `{near}`?")),
        None => complaint.hint(format!("known presets: {}", known.join(", "))),
    });
    None
}
