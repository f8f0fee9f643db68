//! Text of a remote party, made fit to be kept and shown: without our secrets, on one line.
//!
//! Whoever we talk to may repeat what we sent, in any spelling, and may answer with line breaks and control characters.
//! Promises: what leaves a [`Veil`] holds none of its secrets, neither as they are nor as URLs, JSON and Basic sign-in write
//! them; no character of it begins a line, moves a cursor or turns the direction of writing. A text is veiled before it is
//! cut, so that no half of a secret remains.
//! Does not: find secrets it was not told of, or spellings of our own making such as a hash.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use std::fmt::Write as _;

pub use syncline_engine::model::secret::{MASK, looks_secret};

/// Shorter values are words and numbers that any text may hold: they are no secrets.
const SHORTEST: usize = 4;
/// What URLs leave as it is.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// The secrets that a remote party may have been shown. Cheap to make: how they can be spelled is worked out when a text is
/// to be shown.
#[derive(Clone, Default)]
pub struct Veil(Vec<String>);

impl std::fmt::Debug for Veil {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Veil({} secrets)", self.0.len())
    }
}

impl Veil {
    /// Over these secrets.
    pub fn over<'a>(secrets: impl IntoIterator<Item = &'a str>) -> Veil {
        let mut veil = Veil::default();
        secrets.into_iter().for_each(|secret| veil.add(secret));
        veil
    }

    /// Hides one more secret.
    pub fn add(&mut self, secret: &str) {
        if secret.trim().len() >= SHORTEST && !self.0.iter().any(|known| known == secret) {
            self.0.push(secret.to_owned());
        }
    }

    /// Hides what another one hides.
    pub fn and(&mut self, other: &Veil) {
        other.0.iter().for_each(|secret| self.add(secret));
    }

    /// Hides every text and number inside of `value`.
    pub fn add_all(&mut self, value: &Value) {
        match value {
            Value::String(text) => self.add(text),
            Value::Number(number) => self.add(&number.to_string()),
            Value::Array(list) => list.iter().for_each(|value| self.add_all(value)),
            Value::Object(map) => map.values().for_each(|value| self.add_all(value)),
            Value::Null | Value::Bool(_) => {}
        }
    }

    /// The text without the secrets, on one line.
    pub fn veiled(&self, text: &str) -> String {
        hidden(&self.spellings(), text)
    }

    /// Data without the secrets, and otherwise as it is: for programs to read, not to be shown.
    pub fn masked(&self, text: &str) -> String {
        masked(&self.spellings(), text)
    }

    /// The beginning of what came, veiled, of at most so many characters. Where what is looked at ends before what came, its
    /// end may be half a secret and is left out.
    pub fn beginning(&self, bytes: &[u8], chars: usize) -> String {
        let spellings = self.spellings();
        let longest = spellings.first().map_or(0, String::len);
        let most = bytes.len().min(4 * chars + 2 * longest);
        let text = hidden(&spellings, &String::from_utf8_lossy(&bytes[..most]));
        let unsure = if most < bytes.len() { longest } else { 0 };
        let sure = text.chars().count().saturating_sub(unsure);
        text.chars().take(chars.min(sure)).collect()
    }

    /// All spellings, the longest first: a secret may be a part of another.
    fn spellings(&self) -> Vec<String> {
        let mut all: Vec<String> = self.0.iter().flat_map(|secret| spellings(secret)).collect();
        all.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        all.dedup();
        all
    }
}

fn hidden(spellings: &[String], text: &str) -> String {
    on_one_line(&masked(spellings, text))
}

fn masked(spellings: &[String], text: &str) -> String {
    let mut text = text.to_owned();
    for spelling in spellings.iter().filter(|spelling| !spelling.is_empty()) {
        if text.contains(spelling.as_str()) {
            text = text.replace(spelling.as_str(), MASK);
        }
    }
    text
}

/// A secret as it is, and as URLs, JSON and base64 write it.
fn spellings(secret: &str) -> Vec<String> {
    let percent = utf8_percent_encode(secret, UNRESERVED).to_string();
    let form: String = url::form_urlencoded::byte_serialize(secret.as_bytes()).collect();
    let json = serde_json::to_string(secret).unwrap_or_default();
    let json = json.trim_start_matches('"').strip_suffix('"').unwrap_or(&json).to_owned();
    let mut all = vec![secret.to_owned(), percent.clone(), lower_percent(&percent), lower_percent(&form), form];
    all.extend([json.replace('/', "\\/"), escaped(secret, false), escaped(secret, true), json]);
    for engine in [STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD] {
        let encoded = engine.encode(secret);
        all.push(utf8_percent_encode(&encoded, UNRESERVED).to_string());
        all.push(encoded.replace('/', "\\/"));
        all.push(encoded);
    }
    all
}

/// As JSON of other programs: everything but letters and digits as `\u002f`.
fn escaped(secret: &str, upper: bool) -> String {
    let mut text = String::with_capacity(secret.len());
    for c in secret.chars() {
        if c.is_ascii_alphanumeric() || "-_.~ ".contains(c) {
            text.push(c);
            continue;
        }
        let mut units = [0; 2];
        for unit in c.encode_utf16(&mut units) {
            let _ = if upper { write!(text, "\\u{unit:04X}") } else { write!(text, "\\u{unit:04x}") };
        }
    }
    text
}

/// `%2F` as `%2f`: both are right.
fn lower_percent(text: &str) -> String {
    let mut lower = String::with_capacity(text.len());
    let mut hex = 0;
    for c in text.chars() {
        lower.push(if hex > 0 { c.to_ascii_lowercase() } else { c });
        hex = if c == '%' { 2 } else { hex - i32::from(hex > 0) };
    }
    lower
}

/// Everything that ends a line, controls a terminal or turns the direction of writing, written out as an escape.
pub fn on_one_line(text: &str) -> String {
    let odd = |c: char| {
        c.is_control()
            || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if !text.contains(odd) {
        return text.to_owned();
    }
    let mut line = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if odd(c) { line.extend(c.escape_default()) } else { line.push(c) }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_hidden_in_every_spelling() {
        let secret = "s3cr/t+\"ü&=% x";
        let veil = Veil::over([secret, "whole-s3cr/t+\"ü&=% x"]);
        let all = spellings(secret).into_iter().chain([
            format!("Bearer {secret}"),
            format!("token={}", url::form_urlencoded::byte_serialize(secret.as_bytes()).collect::<String>()),
            serde_json::json!({"authorization": secret}).to_string(),
        ]);
        for text in all {
            let shown = veil.veiled(&format!("you sent «{text}» to us"));
            assert!(shown.contains(MASK) && !shown.contains("s3cr") && !shown.contains("czNjc"), "{text}: {shown}");
        }
        assert_eq!(veil.veiled(&format!("whole-{secret}")), MASK, "the longer one first");
        assert_eq!(Veil::over(["", "abc"]).veiled("abcdef"), "abcdef", "too short to be one");
    }

    #[test]
    fn no_half_of_a_secret_remains_where_a_text_is_cut() {
        let secret = "0123456789abcdef0123456789abcdef";
        let veil = Veil::over([secret]);
        for before in 0..64 {
            let text = format!("{}{secret} and more", "x".repeat(before));
            let shown = veil.beginning(text.as_bytes(), 40);
            assert!(!shown.contains("0123"), "{before}: {shown}");
            assert!(shown.chars().count() <= 40);
            let again = veil.beginning(text.repeat(20).as_bytes(), 300);
            assert!(!again.contains("0123"), "{before}: {again}");
        }
    }

    #[test]
    fn nothing_begins_a_line_or_moves_a_cursor() {
        let shown = on_one_line("x\n2030-01-01T00:00:00Z ERROR \u{1b}[31m\r\u{85}\u{2028}\u{202e}é");
        assert_eq!(shown, "x\\n2030-01-01T00:00:00Z ERROR \\u{1b}[31m\\r\\u{85}\\u{2028}\\u{202e}é");
    }
}
