//! One attempt: sign, post, judge the answer.

use super::sign;
use crate::http::Veil;
use async_trait::async_trait;
use bytes::Bytes;
use http::HeaderMap;
use std::borrow::Cow;
use std::time::{Duration, UNIX_EPOCH};
use syncline_engine::fault;
use syncline_engine::model::Timestamp;
use syncline_engine::sink::Delivery;

/// For everything: connecting, sending, the answer's body.
pub const TIMEOUT: Duration = Duration::from_secs(20);
/// Read of an answer; the rest is not waited for.
pub const ANSWER: u64 = 16 * 1024;
/// Kept of an answer.
const KEPT: usize = 4 * 1024;
/// Longest wait a receiver may ask for.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 60 * 60);

/// The way out, as far as an attempt needs it: one POST, no redirects, no cookies, at most [`ANSWER`] bytes read within
/// [`TIMEOUT`].
#[async_trait]
pub trait Post: Send + Sync + 'static {
    /// Posts `body` once.
    async fn post(
        &self,
        url: &str,
        headers: Vec<(&'static str, String)>,
        body: Bytes,
    ) -> Result<ReceiverAnswer, Unsent>;
}

#[async_trait]
impl Post for crate::http::Client {
    async fn post(
        &self,
        url: &str,
        headers: Vec<(&'static str, String)>,
        body: Bytes,
    ) -> Result<ReceiverAnswer, Unsent> {
        let broken = |message: String| Unsent { message, timeout: false };
        let url = crate::http::Url::parse(url).map_err(|e| broken(format!("the endpoint's URL is none: {e}")))?;
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let value = http::HeaderValue::try_from(value).map_err(|e| broken(format!("header {name}: {e}")))?;
            map.insert(name, value);
        }
        let request = crate::http::Outgoing {
            method: http::Method::POST,
            url,
            headers: map,
            body: Some(body),
            timeout: TIMEOUT,
            max_response: ANSWER,
            follow: false,
            veil: Veil::default(),
        };
        match self.send_and_cut(request).await {
            Ok(answer) => Ok(ReceiverAnswer { status: answer.status, headers: answer.headers, body: answer.body }),
            Err(why) => Err(Unsent { timeout: why.code == "timeout", message: why.to_string() }),
        }
    }
}

/// What a receiver answered.
#[derive(Clone, Debug, Default)]
pub struct ReceiverAnswer {
    /// Its status.
    pub status: u16,
    /// Its headers.
    pub headers: HeaderMap,
    /// Beginning of its body.
    pub body: Bytes,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsent {
    /// For people.
    pub message: String,
    /// The time ran out: the receiver may have taken it.
    pub timeout: bool,
}

/// Where a delivery goes and how it is proven.
#[derive(Clone, Debug)]
pub struct DeliveryTarget {
    /// The URL.
    pub url: String,
    /// Secrets, newest first.
    pub secrets: Vec<String>,
    /// Send the length-extendable signature as well.
    pub legacy_signature: bool,
}

impl DeliveryTarget {
    /// What a receiver must not make us show: the secrets it is signed to with, and what of its URL may be one.
    fn veil(&self) -> Veil {
        let mut veil = Veil::over(self.secrets.iter().map(String::as_str));
        self.secrets.iter().filter_map(|secret| secret.strip_prefix("whsec_")).for_each(|key| veil.add(key));
        if let Ok(url) = crate::http::Url::parse(&self.url) {
            veil.add(url.path().trim_matches('/'));
            url.query().into_iter().for_each(|query| veil.add(query));
            url.query_pairs().for_each(|(_, value)| veil.add(&value));
        }
        veil
    }
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// The receiver has it.
    Delivered {
        /// A 2xx.
        status: u16,
    },
    /// The receiver does not have it, as far as we know.
    Failed(AttemptFailed),
}

/// A failed attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttemptFailed {
    /// The receiver's status, if it answered.
    pub status: Option<u16>,
    /// Earliest next attempt the receiver asks for, at most a day.
    pub retry_after: Option<Duration>,
    /// Overload or time-out: the next attempt should not come soon.
    pub overloaded: bool,
    /// For people.
    pub text: String,
    /// No further attempt is wanted.
    pub stop: Option<StopReason>,
}

/// Why no further attempt is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// 410: the endpoint is gone for good.
    Gone,
    /// The answer said `webhook-delivery: abort-message`.
    Aborted,
}

/// Makes one attempt.
pub async fn attempt(client: &dyn Post, target: &DeliveryTarget, delivery: &Delivery, now: Timestamp) -> Attempt {
    let body = Bytes::copy_from_slice(delivery.body.as_bytes());
    let id = match fault::planted("retry_with_a_new_id") {
        true => Cow::Owned(format!("{}{}", delivery.id, delivery.tries)),
        false => Cow::Borrowed(&delivery.id),
    };
    let mut headers = sign(&body, &id, now, &target.secrets, target.legacy_signature);
    headers.push(("content-type", "application/json".to_owned()));
    match client.post(&target.url, headers, body).await {
        Ok(answer) => judge(&answer, &target.veil(), now),
        Err(unsent) => Attempt::Failed(AttemptFailed {
            status: None,
            retry_after: None,
            overloaded: unsent.timeout,
            text: target.veil().beginning(unsent.message.as_bytes(), KEPT / 4),
            stop: None,
        }),
    }
}

fn judge(answer: &ReceiverAnswer, veil: &Veil, now: Timestamp) -> Attempt {
    let status = answer.status;
    if (200..300).contains(&status) {
        return Attempt::Delivered { status };
    }
    let says_abort = answer.headers.get("webhook-delivery").is_some_and(|v| v.as_bytes() == b"abort-message");
    let hint = matches!(status, 429 | 503).then(|| retry_after(&answer.headers, now)).flatten();
    Attempt::Failed(AttemptFailed {
        status: Some(status),
        retry_after: hint,
        overloaded: hint.is_none() && matches!(status, 429 | 502 | 504),
        text: format!("{status} {}", veil.beginning(&answer.body, KEPT / 4)),
        stop: match status {
            410 => Some(StopReason::Gone),
            _ if says_abort => Some(StopReason::Aborted),
            _ => None,
        },
    })
}

/// `Retry-After` in seconds or as an HTTP date.
fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get("retry-after")?.to_str().ok()?.trim();
    let wait = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let at = httpdate::parse_http_date(text).ok()?.duration_since(UNIX_EPOCH).ok()?;
            Timestamp::from_seconds(i64::try_from(at.as_secs()).ok()?).since(now)
        }
    };
    Some(wait.min(LONGEST_WAIT))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn answer(status: u16, headers: &[(&'static str, &'static str)]) -> Attempt {
        let headers = headers.iter().map(|(k, v)| (k.parse().expect("name"), HeaderValue::from_static(v))).collect();
        let answer = ReceiverAnswer { status, headers, body: Bytes::from_static(b"no") };
        judge(&answer, &Veil::default(), Timestamp::from_seconds(1_000_000_000))
    }

    #[test]
    fn what_a_receiver_repeats_of_us_is_hidden_and_stays_on_one_line() {
        let url = "https://hooks.example/services/T01/abcdef?token=q-value".to_owned();
        let target = DeliveryTarget { url, secrets: vec!["whsec_c2VjcmV0LWtleQ==".into()], legacy_signature: false };
        let body = "you signed with c2VjcmV0LWtleQ==\n2030-01-01T00:00:00Z ERROR services/T01/abcdef q-value \u{1b}[2J";
        let answer =
            ReceiverAnswer { status: 500, headers: HeaderMap::new(), body: Bytes::from_static(body.as_bytes()) };
        let Attempt::Failed(failed) = judge(&answer, &target.veil(), Timestamp(0)) else { panic!("delivered") };
        let shown = "500 you signed with [secret]\\n2030-01-01T00:00:00Z ERROR [secret] [secret] \\u{1b}[2J";
        assert_eq!(failed.text, shown);
    }

    fn failed(status: u16, headers: &[(&'static str, &'static str)]) -> AttemptFailed {
        match answer(status, headers) {
            Attempt::Failed(failed) => failed,
            Attempt::Delivered { status } => panic!("{status} counted as delivered"),
        }
    }

    #[test]
    fn only_2xx_is_delivered() {
        assert_eq!(answer(204, &[]), Attempt::Delivered { status: 204 });
        for status in [199, 301, 302, 307, 400, 404, 500] {
            assert_eq!(failed(status, &[]).status, Some(status));
        }
    }

    #[test]
    fn waits_and_stops() {
        assert_eq!(failed(429, &[("retry-after", "7")]).retry_after, Some(Duration::from_secs(7)));
        assert_eq!(failed(503, &[("retry-after", "9999999")]).retry_after, Some(LONGEST_WAIT));
        let date = failed(503, &[("retry-after", "Sun, 09 Sep 2001 01:47:40 GMT")]);
        assert_eq!(date.retry_after, Some(Duration::from_secs(60)));
        assert_eq!(failed(500, &[("retry-after", "7")]).retry_after, None);
        assert!(failed(429, &[]).overloaded && failed(504, &[("retry-after", "x")]).overloaded);
        assert!(!failed(429, &[("retry-after", "7")]).overloaded && !failed(500, &[]).overloaded);
        assert_eq!(failed(410, &[]).stop, Some(StopReason::Gone));
        assert_eq!(failed(400, &[("webhook-delivery", "abort-message")]).stop, Some(StopReason::Aborted));
        assert_eq!(failed(404, &[]).stop, None);
    }
}
