//! Names and ids: datasets, positions, causes, record ids.

use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// The unit of change detection, cursors, counts and delete tracking.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DatasetName {
    /// Isolation scope named by the API key; nothing crosses it.
    pub environment: Arc<str>,
    /// One outside system as configured (`Provider-Config-Key` on the wire).
    pub source: Arc<str>,
    /// One account at that system (`Connection-Id` on the wire).
    pub connection: Arc<str>,
    /// The kind of record.
    pub model: Arc<str>,
    /// A second configuration of the same sync; `base` is the usual one.
    pub variant: Arc<str>,
}

impl DatasetName {
    /// A dataset of variant `base`.
    pub fn base(environment: &str, source: &str, connection: &str, model: &str) -> Self {
        DatasetName {
            environment: environment.into(),
            source: source.into(),
            connection: connection.into(),
            model: model.into(),
            variant: "base".into(),
        }
    }
}

impl fmt::Display for DatasetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}/{}", self.environment, self.source, self.connection, self.model)?;
        if &*self.variant != "base" {
            write!(f, "::{}", self.variant)?;
        }
        Ok(())
    }
}

/// The short number a dataset has inside one store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DatasetId(pub u32);

/// A place in the change log: epoch in the upper 42 bits, place within the epoch in the lower 22.
/// Order is order of commit. Unique within a dataset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Position(pub u64);

impl Position {
    /// Bits of a position that number the changes of one epoch.
    pub const PLACE_BITS: u32 = 22;
    /// Before everything.
    pub const START: Position = Position(0);

    /// The first position of `epoch`.
    pub fn first_of(epoch: u64) -> Self {
        Position(epoch << Self::PLACE_BITS)
    }

    /// The engine time of this position: all changes of one epoch are one consistent set.
    pub fn epoch(self) -> u64 {
        self.0 >> Self::PLACE_BITS
    }
}

/// How an observation reached us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Via {
    /// A page of a polled API.
    Poll,
    /// A webhook we received.
    Webhook,
    /// The library's own caller.
    Push,
    /// A derived view.
    View,
}

impl Via {
    /// `poll`, `webhook`, `push` or `view`.
    pub fn as_str(self) -> &'static str {
        match self {
            Via::Poll => "poll",
            Via::Webhook => "webhook",
            Via::Push => "push",
            Via::View => "view",
        }
    }
}

/// What made a change: a run, a webhook, a push. `number` is unique within its kind and store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cause {
    /// The kind of cause.
    pub via: Via,
    /// The run's number, or the webhook's position in the log. At most 56 bits.
    pub number: u64,
}

impl Cause {
    /// The run with this number.
    pub fn run(number: u64) -> Self {
        Cause { via: Via::Poll, number }
    }

    /// The webhook at this log position.
    pub fn webhook(position: u64) -> Self {
        Cause { via: Via::Webhook, number: position }
    }

    /// The push with this number.
    pub fn push(number: u64) -> Self {
        Cause { via: Via::Push, number }
    }

    /// Reads `run_…`, `whk_…`, `psh_…`, `viw_…`.
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, digits) = text.split_once('_')?;
        let via = match kind {
            "run" => Via::Poll,
            "whk" => Via::Webhook,
            "psh" => Via::Push,
            "viw" => Via::View,
            _ => return None,
        };
        u64::from_str_radix(digits, 16).ok().filter(|n| *n < 1 << 56).map(|number| Cause { via, number })
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.via {
            Via::Poll => "run",
            Via::Webhook => "whk",
            Via::Push => "psh",
            Via::View => "viw",
        };
        write!(f, "{kind}_{:014x}", self.number)
    }
}

/// Why a value cannot be a record id.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum BadId {
    /// Missing, null or empty.
    #[error("id is missing, null or empty")]
    Missing,
    /// Boolean, array or object.
    #[error("id is a {0}; strings, integers and finite numbers are allowed")]
    Kind(&'static str),
    /// A number of which 64 bits cannot hold every digit: others would become the same id.
    #[error(
        "id is the number {0}, of which 64 bits do not hold every digit; make it text (in a definition: `key: .id | tostring`)"
    )]
    Digits(String),
    /// A character that readers cannot keep, and that must not be left out: others would become the same id.
    #[error(
        "id holds the character NUL, which databases refuse; replace it (in a definition: `key: '.id | gsub(\"\\u0000\"; \"_\")'`)"
    )]
    Nul,
    /// Longer than 255 characters.
    #[error("id has {0} characters; 255 are allowed")]
    Long(usize),
}

/// From here on not every whole number is a floating-point one.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// Most characters of a record id.
pub const ID_CHARS: usize = 255;

/// Longest part of a number that is shown in a refusal.
const SHOWN_CHARS: usize = 40;

/// The text form of a record id: strings as they are, numbers as decimal text, 1 to 255 characters. Values that differ never
/// have one id, but that a number is the text of its digits.
///
/// ```
/// use syncline_engine::model::record_id;
/// assert_eq!(record_id(&serde_json::json!(5)).unwrap(), "5");
/// assert!(record_id(&serde_json::json!("")).is_err());
/// assert!(record_id(&serde_json::from_str("18446744073709551616").unwrap()).is_err(), "so is …617, as a number");
/// assert!(record_id(&serde_json::from_str("0.12345678901234567891").unwrap()).is_err(), "so is …92");
/// ```
pub fn record_id(value: &serde_json::Value) -> Result<String, BadId> {
    use serde_json::Value;
    let text = match value {
        Value::String(s) if s.contains('\0') => return Err(BadId::Nul),
        Value::String(s) => s.clone(),
        Value::Number(n) => match (n.as_i64(), n.as_u64(), n.as_f64()) {
            (Some(i), _, _) => i.to_string(),
            (_, Some(u), _) => u.to_string(),
            (_, _, Some(f)) if f.abs() < EXACT => decimal_id(n.as_str(), f)?,
            _ => return Err(digits(n.as_str())),
        },
        Value::Null => return Err(BadId::Missing),
        Value::Bool(_) => return Err(BadId::Kind("boolean")),
        Value::Array(_) => return Err(BadId::Kind("array")),
        Value::Object(_) => return Err(BadId::Kind("object")),
    };
    match text.chars().count() {
        0 => Err(BadId::Missing),
        n if n > ID_CHARS => Err(BadId::Long(n)),
        _ => Ok(text),
    }
}

/// The digits of a number that is a fraction, or written like one, if `f` is all of it.
fn decimal_id(text: &str, f: f64) -> Result<String, BadId> {
    // Zero has no sign of its own.
    let id = if f == 0.0 { "0".to_owned() } else { f.to_string() };
    if decimal(text) == decimal(&id) { Ok(id) } else { Err(digits(text)) }
}

fn digits(text: &str) -> BadId {
    BadId::Digits(text.chars().take(SHOWN_CHARS).collect())
}

/// What number a JSON text is: whether it is negative, its digits without zeros at either end, its power of ten.
fn decimal(text: &str) -> Option<(bool, String, i64)> {
    let (mantissa, power) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (negative, mantissa) = mantissa.strip_prefix('-').map_or((false, mantissa), |rest| (true, rest));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = [whole, fraction].concat();
    let kept = digits.trim_end_matches('0');
    if kept.is_empty() {
        return Some((false, String::new(), 0));
    }
    let shift = i64::try_from(digits.len() - kept.len()).ok()? - i64::try_from(fraction.len()).ok()?;
    let power = power.parse::<i64>().ok()?.checked_add(shift)?;
    Some((negative, kept.trim_start_matches('0').to_owned(), power))
}

/// How most payloads begin.
const ID_FIRST: &[u8] = b"{\"id\":\"";

/// The id in a record's payload, which holds it as text; read only so far where it stands first, as it mostly does.
pub fn id_of(payload: &[u8]) -> Option<Cow<'_, str>> {
    #[derive(Deserialize)]
    struct WithId {
        id: String,
    }
    let read = || serde_json::from_slice::<WithId>(payload).ok().map(|record| Cow::Owned(record.id));
    plain_first_id(payload).map(Cow::Borrowed).or_else(read)
}

/// The id of a payload that begins with it and writes it without escapes.
fn plain_first_id(payload: &[u8]) -> Option<&str> {
    let rest = payload.strip_prefix(ID_FIRST)?;
    let end = rest.iter().position(|b| matches!(b, b'"' | b'\\'))?;
    let plain = rest.get(end) == Some(&b'"');
    rest.get(..end).filter(|_| plain).and_then(|id| std::str::from_utf8(id).ok())
}

/// Whether this can be a model's name: `^[A-Z][a-zA-Z0-9_-]+$`, at most 255 characters.
pub fn is_model(text: &str) -> bool {
    let mut bytes = text.bytes();
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    bytes.next().is_some_and(|b| b.is_ascii_uppercase()) && (2..=255).contains(&text.len()) && bytes.all(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_found_however_they_are_written() {
        for (payload, id) in [
            (&br#"{"id":"1","a":"}"}"#[..], "1"),
            (br#"{"a":{"id":"2"},"id":"3"}"#, "3"),
            (br#"{"id":"a\"b"}"#, "a\"b"),
            (br#"{"id":"\u0041"}"#, "A"),
            (br#"{ "id": "5" }"#, "5"),
            ("{\"id\":\"ä\"}".as_bytes(), "ä"),
        ] {
            assert_eq!(id_of(payload).as_deref(), Some(id));
        }
    }

    #[test]
    fn model_names() {
        assert!(is_model("Contact") && is_model("A1") && is_model("Git_Hub-Issue"));
        assert!(!is_model("contact") && !is_model("A") && !is_model("A b") && !is_model(""));
        assert!(!is_model(&format!("A{}", "b".repeat(255))));
    }
}
