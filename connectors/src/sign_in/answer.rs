//! Tokens from whatever a provider calls an answer, and what the rest of its answers mean.
//!
//! Forms count as JSON, text as numbers, and a refusal is one whatever its status says. Promises: a [`TokenSet`] has a token that may
//! stand in a header; what is not understood stays in `raw`.

use crate::definition::TokenAuth;
use crate::expr::{Expr, Vars};
use crate::http::{Answer, body, hints, on_one_line};
use serde_json::{Map, Value};
use std::fmt;
use std::time::Duration;
use syncline_engine::model::Timestamp;
use syncline_engine::source::Failure;

/// Longest token.
const TOKEN_MAX: usize = 32 << 10;
/// Longest life that is believed.
const LIFE_MAX: Duration = Duration::from_secs(10 * 366 * 24 * 3_600);
/// Longest description of a refusal that is kept.
const SAID_CHARS_MAX: usize = 300;

/// What a provider gave.
#[derive(Clone, PartialEq)]
pub struct TokenSet {
    /// For requests.
    pub access_token: String,
    /// For the next one; the one before stays if there is none.
    pub refresh_token: Option<String>,
    /// When `access_token` ends, if that is known.
    pub expires_at: Option<Timestamp>,
    /// What was granted, if that is said.
    pub scopes: Option<Vec<String>>,
    /// Everything the provider said.
    pub raw: Value,
}

impl fmt::Debug for TokenSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenSet(ends {:?}, renewable {})", self.expires_at, self.refresh_token.is_some())
    }
}

/// What a provider said instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRefusal {
    /// Its word, such as `invalid_grant`.
    pub code: String,
    /// For people, without secrets.
    pub message: String,
    /// Of the answer.
    pub status: u16,
}

/// Why there is no token.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TokenError {
    /// What was sent does not count, or not any more.
    #[error("{} ({})", .0.message, .0.code)]
    Grant(TokenRefusal),
    /// The app is not known, or may not ask.
    #[error("{} ({})", .0.message, .0.code)]
    App(TokenRefusal),
    /// Something else in the request is refused.
    #[error("{} ({})", .0.message, .0.code)]
    Other(TokenRefusal),
    /// No answer that says anything; another time there may be one.
    #[error("{0}")]
    Unavailable(Failure),
    /// Nothing could be asked.
    #[error("{0}")]
    Unusable(Failure),
}

impl TokenError {
    /// Whether the provider may have done what it was asked for though it did not answer.
    pub fn leaves_doubt(&self) -> bool {
        matches!(self, TokenError::Unavailable(why) if why.status.is_none())
    }
}

/// The tokens in an answer.
pub(super) fn read(auth: &TokenAuth, answer: &Answer, fields: &Map<String, Value>) -> Result<TokenSet, TokenError> {
    if answer.status == 429 || answer.status >= 500 {
        return Err(unavailable(answer, answer.quote()));
    }
    let Some(said) = value(answer) else {
        return Err(match answer.status {
            200..=299 => {
                unavailable(answer, format!("something that is neither JSON nor a form: «{}»", answer.quote()))
            }
            _ => refusal(answer, &Value::Null, None),
        });
    };
    let vars = Vars { connection: serde_json::json!({"fields": fields}), ..Vars::default() };
    let asked = |expr: &Expr, name: &str| {
        expr.first(&said, &vars)
            .map_err(|e| TokenError::Unusable(Failure::lasting("bad_expression", format!("{name}: {e}"))))
    };
    if let Some(failed) = &auth.failed {
        let failed = asked(failed, "auth.failed")?;
        if !matches!(failed, Value::Null | Value::Bool(false)) {
            return Err(refusal(answer, &said, failed.as_str()));
        }
    }
    if !(200..=299).contains(&answer.status) {
        return Err(refusal(answer, &said, None));
    }
    let read = match &auth.answer {
        Some(expr) => asked(expr, "auth.answer")?,
        None => said.clone(),
    };
    let Some(token) = read.get("access_token").and_then(Value::as_str).filter(|token| sendable(token)) else {
        return Err(refusal(answer, &said, None));
    };
    bearer(&read, answer)?;
    Ok(TokenSet {
        access_token: token.to_owned(),
        refresh_token: read.get("refresh_token").and_then(Value::as_str).filter(|t| !t.is_empty()).map(str::to_owned),
        expires_at: ends(&read, answer.sent_at).or_else(|| auth.expires_in.map(|span| answer.sent_at.plus(span))),
        scopes: scopes(&read),
        raw: said,
    })
}

/// A token that can stand in a header.
pub(super) fn sendable(token: &str) -> bool {
    (1..=TOKEN_MAX).contains(&token.len()) && token.bytes().all(|b| (0x21..=0x7e).contains(&b))
}

/// JSON, or a form.
fn value(answer: &Answer) -> Option<Value> {
    let kind = answer.header("content-type").unwrap_or_default().to_ascii_lowercase();
    if !kind.contains("form-urlencoded")
        && let Ok((value @ (Value::Object(_) | Value::Array(_)), _)) =
            body::read(answer.header("content-type"), &answer.body)
    {
        return Some(value);
    }
    let text = std::str::from_utf8(&answer.body).ok()?.trim();
    if text.is_empty() || text.starts_with(['<', '{', '[']) || !text.contains('=') || text.contains(char::is_whitespace)
    {
        return None;
    }
    let pairs = url::form_urlencoded::parse(text.as_bytes()).into_owned();
    Some(Value::Object(pairs.map(|(name, value)| (name, Value::String(value))).collect()))
}

/// `token_type` may be missing; another than bearer cannot be used.
fn bearer(read: &Value, answer: &Answer) -> Result<(), TokenError> {
    match read.get("token_type") {
        None | Some(Value::Null) => Ok(()),
        Some(Value::String(kind)) if kind.is_empty() || kind.eq_ignore_ascii_case("bearer") => Ok(()),
        Some(other) => {
            let shown = answer.veil.beginning(other.to_string().as_bytes(), 40);
            let message = format!(
                "the provider gave a token of the type {shown}, and only bearer tokens can be sent; if it is one, let \
                 `answer` of `auth` leave `token_type` out"
            );
            let code = "unsupported_token_type".to_owned();
            Err(TokenError::Other(TokenRefusal { code, message, status: answer.status }))
        }
    }
}

/// `expires_in` in seconds, a number or its text; or `expires_at`, an instant. What is not positive says nothing.
fn ends(read: &Value, sent_at: Timestamp) -> Option<Timestamp> {
    let seconds = match read.get("expires_in") {
        Some(Value::Number(number)) => number.to_string().parse::<f64>().ok(),
        Some(Value::String(text)) => text.trim().parse::<f64>().ok(),
        _ => None,
    };
    let life = seconds.filter(|s| *s > 0.0).and_then(|s| Duration::try_from_secs_f64(s).ok());
    life.map(|life| sent_at.plus(life.min(LIFE_MAX))).or_else(|| instant(read.get("expires_at")?))
}

/// An instant: RFC 3339, or seconds or milliseconds since 1970.
pub(super) fn instant(value: &Value) -> Option<Timestamp> {
    let number = match value {
        Value::String(text) => match text.trim().parse::<f64>() {
            Ok(number) => Value::from(number),
            Err(_) => value.clone(),
        },
        other => other.clone(),
    };
    crate::expr::read_time(&number, None).ok().flatten()
}

fn scopes(read: &Value) -> Option<Vec<String>> {
    match read.get("scope").or_else(|| read.get("scopes"))? {
        Value::String(text) => {
            let parts = text.split([' ', ',']).filter(|scope| !scope.is_empty());
            Some(parts.map(str::to_owned).collect())
        }
        Value::Array(list) => Some(list.iter().filter_map(Value::as_str).map(str::to_owned).collect()),
        _ => None,
    }
}

fn unavailable(answer: &Answer, what: String) -> TokenError {
    let retry_after = hints::retry_after(answer, answer.sent_at);
    let place = format!("{}{}", answer.url.origin().ascii_serialization(), answer.url.path());
    let message = format!("{place} answered {}: «{what}»", answer.status);
    TokenError::Unavailable(Failure {
        status: Some(answer.status),
        retry_after,
        ..Failure::passing("http_status", message)
    })
}

/// What a refusal means. `named` is the code that the definition reads of it.
fn refusal(answer: &Answer, said: &Value, named: Option<&str>) -> TokenError {
    let code = named.or_else(|| code_of(said)).unwrap_or("no_token");
    let code: String = answer.veil.beginning(code.as_bytes(), 64);
    let told = ["error_description", "error_message", "message"].iter().find_map(|name| said.get(*name)?.as_str());
    let told = told.or_else(|| said.get("error")?.get("message")?.as_str());
    let shown = told.map(|told| answer.veil.beginning(told.as_bytes(), SAID_CHARS_MAX)).filter(|told| !told.is_empty());
    let message = match shown {
        Some(told) => format!("the provider gave no token: «{told}»"),
        // The body may hold tokens that nobody could read.
        None => format!("the provider gave no token, and status {}", answer.status),
    };
    let refusal = TokenRefusal { code: on_one_line(&code), message, status: answer.status };
    match refusal.code.as_str() {
        "invalid_grant" | "bad_refresh_token" | "bad_verification_code" => TokenError::Grant(refusal),
        "invalid_client" | "unauthorized_client" => TokenError::App(refusal),
        "temporarily_unavailable" | "server_error" | "slow_down" => unavailable(answer, refusal.message),
        // Without a word of its own a 401 is about the app.
        "no_token" if refusal.status == 401 => TokenError::App(refusal),
        _ => TokenError::Other(refusal),
    }
}

fn code_of(said: &Value) -> Option<&str> {
    let error = said.get("error")?;
    error.as_str().or_else(|| error.get("code")?.as_str()).or_else(|| error.get("type")?.as_str())
}
