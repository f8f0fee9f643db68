//! `limits` and `responses`: pace, retries, hints of the provider, treatment of answers.

use super::read::{self, ANSWER, KnownNames, Out};
use super::{HintHeaders, Limits, Rate, Response, ResponseAction, Statuses};
use crate::config_text::{Complaint, Fields, Node, SourceSpan, duration};
use std::time::Duration;
use syncline_engine::source::Retry;

const TIMEOUT: Duration = Duration::from_secs(30);
const MAX_TIMEOUT: Duration = Duration::from_secs(3_600);
const MAX_RESPONSE: u64 = 64 << 20;
const MAX_RESPONSE_LIMIT: u64 = 1 << 30;
const CONCURRENCY: u64 = 4;
const RETRIES: u64 = 8;
const MAX_RETRIES: u64 = 100;

impl Default for Limits {
    fn default() -> Limits {
        let one = |code: u16| (code, code);
        Limits {
            rate: Vec::new(),
            concurrency: CONCURRENCY as usize,
            retry_status: Statuses { ranges: vec![one(408), one(425), one(429), (500, 599)], network: true },
            retry: Retry {
                max: RETRIES as u32,
                from: Duration::from_secs(1),
                to: Duration::from_secs(600),
                jitter: true,
            },
            headers: HintHeaders { retry_after: Some("Retry-After".to_owned()), ..HintHeaders::default() },
            conditional: false,
            poll_hint: None,
            timeout: TIMEOUT,
            max_response: MAX_RESPONSE,
        }
    }
}

/// Reads `limits`.
pub(super) fn limits(node: Option<Node>, out: &mut Out) -> Limits {
    let mut limits = Limits::default();
    let Some(mut fields) = node.and_then(|n| Fields::open(n, "`limits`", out)) else { return limits };
    limits.rate = fields.list("rate", out).unwrap_or_default().into_iter().filter_map(|n| rate(n, out)).collect();
    limits.concurrency = fields.whole("concurrency", 1, 64, out).unwrap_or(CONCURRENCY) as usize;
    if let Some(node) = fields.take("retry") {
        retry(node, &mut limits, out);
    }
    if let Some(node) = fields.take("headers") {
        hints(node, &mut limits.headers, out);
    }
    limits.conditional = fields.bool("conditional", out).unwrap_or(false);
    limits.poll_hint = read::header_at(&mut fields, "poll_hint", out);
    if let Some((span, spot)) = fields.duration("timeout", out) {
        limits.timeout = timeout(span, &spot, out);
    }
    if let Some((size, spot)) = fields.size("max_response", out) {
        if !(1..=MAX_RESPONSE_LIMIT).contains(&size) {
            out.push(spot.complain("out_of_range", "`max_response` must be 1B to 1GiB"));
        }
        limits.max_response = size;
    }
    fields.finish(out);
    limits
}

/// A time limit of a request, checked.
pub(super) fn timeout(span: Duration, spot: &SourceSpan, out: &mut Out) -> Duration {
    if span.is_zero() || span > MAX_TIMEOUT {
        out.push(spot.complain("out_of_range", "`timeout` must be more than 0 and at most 1h"));
    }
    span.clamp(Duration::from_millis(1), MAX_TIMEOUT)
}

fn rate(node: Node, out: &mut Out) -> Option<Rate> {
    let mut fields = Fields::open(node, "an entry of `limits.rate`", out)?;
    let matches = fields.text("match", out).and_then(|(text, spot)| request_match(&text, &spot, out));
    for key in ["limit", "per"] {
        if !fields.has(key) {
            out.push(fields.spot.complain("missing_key", format!("{} needs the key `{key}`", fields.what)));
        }
    }
    let limit = fields.whole("limit", 1, 1_000_000, out);
    let per = fields.duration("per", out);
    let burst = fields.whole("burst", 1, 1_000_000, out);
    fields.finish(out);
    let limit = u32::try_from(limit?).unwrap_or(u32::MAX);
    let (per, spot) = per?;
    if per.is_zero() {
        out.push(spot.complain("out_of_range", "`per` must be more than 0"));
        return None;
    }
    let burst = burst.map_or(limit, |b| u32::try_from(b).unwrap_or(u32::MAX));
    Some(Rate { matches, limit, per, burst })
}

/// `POST */search` or `*/search`.
fn request_match(text: &str, spot: &SourceSpan, out: &mut Out) -> Option<(Option<String>, String)> {
    let (method, glob) = match text.split_once(char::is_whitespace) {
        Some((method, glob)) => (Some(method.to_owned()), glob.trim()),
        None => (None, text),
    };
    let known = method.as_deref().is_none_or(|m| ["GET", "POST", "PUT", "PATCH", "DELETE", "*"].contains(&m));
    if !known || glob.is_empty() || globset::Glob::new(glob).is_err() {
        let complaint = spot.complain("bad_match", format!("`{text}` does not match requests"));
        out.push(complaint.hint("write a method and a pattern of the path: POST */search"));
        return None;
    }
    Some((method.filter(|m| m != "*"), glob.to_owned()))
}

fn retry(node: Node, limits: &mut Limits, out: &mut Out) {
    let Some(mut fields) = Fields::open(node, "`limits.retry`", out) else { return };
    if let Some(node) = fields.take("status") {
        limits.retry_status = read::statuses(&node, out);
    }
    limits.retry.max = fields.whole("max", 0, MAX_RETRIES, out).unwrap_or(RETRIES) as u32;
    if let Some((text, spot)) = fields.text("backoff", out) {
        match backoff(&text) {
            Some((from, to)) => (limits.retry.from, limits.retry.to) = (from, to),
            None => out.push(bad_backoff(&text, &spot)),
        }
    }
    limits.retry.jitter = fields.bool("jitter", out).unwrap_or(true);
    fields.finish(out);
}

fn bad_backoff(text: &str, spot: &SourceSpan) -> Complaint {
    spot.complain("bad_backoff", format!("`{text}` is not a range of waits"))
        .hint("write the first and the longest wait: 1s..10m")
}

fn backoff(text: &str) -> Option<(Duration, Duration)> {
    let (from, to) = text.split_once("..")?;
    let (from, to) = (duration(from.trim())?, duration(to.trim())?);
    (!from.is_zero() && from <= to && to <= Duration::from_secs(86_400)).then_some((from, to))
}

fn hints(node: Node, headers: &mut HintHeaders, out: &mut Out) {
    let Some(mut fields) = Fields::open(node, "`limits.headers`", out) else { return };
    // Written as null it is switched off; not written at all, the usual name stays.
    if fields.peek("retry_after").is_some() {
        headers.retry_after = read::header_at(&mut fields, "retry_after", out);
    }
    headers.remaining = read::header_at(&mut fields, "remaining", out);
    headers.limit = read::header_at(&mut fields, "limit", out);
    headers.reset_epoch = read::header_at(&mut fields, "reset_epoch", out);
    headers.reset_after = read::header_at(&mut fields, "reset_after", out);
    fields.known(&["retry_after"]);
    fields.finish(out);
}

/// Reads `responses` of a level.
pub(super) fn responses(fields: &mut Fields, names: &KnownNames, out: &mut Out) -> Vec<Response> {
    let list = fields.list("responses", out).unwrap_or_default();
    list.into_iter().filter_map(|node| response(node, names, out)).collect()
}

fn response(node: Node, names: &KnownNames, out: &mut Out) -> Option<Response> {
    let mut fields = Fields::open(node, "an entry of `responses`", out)?;
    let status = fields.take("status").map(|n| read::statuses(&n, out));
    let when = read::expr_at(&mut fields, "when", names.variables(ANSWER), out);
    let action = fields.require_text("do", out).and_then(|(word, spot)| match word.as_str() {
        "retry" => Some(ResponseAction::Retry),
        "fail" => Some(ResponseAction::Fail),
        "skip" => Some(ResponseAction::Skip),
        "ignore" => Some(ResponseAction::Ignore),
        "take" => Some(ResponseAction::Take),
        _ => {
            let complaint = spot.complain("bad_action", format!("`{word}` is not a treatment of an answer"));
            out.push(complaint.hint("retry, fail, skip, ignore or take"));
            None
        }
    });
    fields.finish(out);
    Some(Response { status, when, action: action? })
}
