//! What is left out of the journal: secrets. Every detail and outcome goes through here, whoever writes the line.
//!
//! Promises: no value under a name that looks like a secret's, no bearer token, no password of a URL and no `name=value` of such a
//! name gets into a line. Values are masked, names stay, so that one sees that there was something.
//! Does not: know the secrets of a connection. Who talks to an outside party hides those first (`http::Veil` of the connectors).

use crate::model::secret::{MASK, looks_secret};
use serde_json::Value;

/// Values deeper inside than this are left out.
const DEPTH: usize = 16;
/// A shorter word behind `Bearer` is prose.
const SHORTEST_TOKEN: usize = 8;
const COOKIE: &[u8] = b"cookie";
/// How JSON of a signed token begins in base64.
const SIGNED: &str = "eyJ";
/// A shorter word that begins so is no signed token.
const SHORTEST_SIGNED: usize = 20;

/// Takes the secrets out of a value, where it is.
pub(super) fn redact(value: &mut Value) {
    within(value, DEPTH);
}

fn within(value: &mut Value, depth: usize) {
    match value {
        Value::Array(_) | Value::Object(_) if depth == 0 => *value = Value::from("…"),
        Value::Array(list) => list.iter_mut().for_each(|value| within(value, depth - 1)),
        Value::Object(map) => {
            for (name, value) in map {
                match value {
                    Value::Null | Value::Bool(_) => {}
                    value if is_secret(name) => *value = Value::from(MASK),
                    value => within(value, depth - 1),
                }
            }
        }
        Value::String(text) => {
            if let Some(shown) = without_secrets(text) {
                *text = shown;
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Cookies are no parameters, and so unknown to the rule of names.
fn is_secret(name: &str) -> bool {
    looks_secret(name) || name.as_bytes().windows(COOKIE.len()).any(|part| part.eq_ignore_ascii_case(COOKIE))
}

/// The text without secrets; `None` if it has none.
pub(super) fn without_secrets(text: &str) -> Option<String> {
    // A single word is none, unless it is a token that tells itself: most texts are looked at no further.
    let is_word = !text.bytes().any(|byte| byte.is_ascii_whitespace() || matches!(byte, b'=' | b':'));
    if is_word && !text.contains(SIGNED) {
        return None;
    }
    let (mut shown, mut before, mut rest) = (String::new(), Before::Nothing, text);
    let mut changed = false;
    while let Some(first) = rest.chars().next() {
        if let Some(login) = rest.strip_prefix("://").and_then(login) {
            shown.push_str("://");
            shown.push_str(MASK);
            rest = rest.get("://".len() + login..).unwrap_or_default();
            (before, changed) = (Before::Nothing, true);
            continue;
        }
        let word = rest.find(|c| !in_word(c)).unwrap_or(rest.len());
        // Of a secret all is hidden, not only its first word.
        let hide = before.hides(rest.get(..word).unwrap_or_default(), first);
        let length = match hide {
            true => rest.find(ends_value).unwrap_or(rest.len()),
            false => word.max(first.len_utf8()),
        };
        let (part, behind) = rest.split_at(length);
        let hide = hide || is_signed(part);
        shown.push_str(if hide { MASK } else { part });
        (changed, rest) = (changed | hide, behind);
        before = if in_word(first) { Before::of(part) } else { before.then(first) };
    }
    changed.then_some(shown)
}

/// How long the name and password are that a URL begins with.
fn login(behind: &str) -> Option<usize> {
    let end = behind.find(|c: char| c.is_whitespace() || matches!(c, '/' | '?' | '#' | '"'));
    let host = behind.get(..end.unwrap_or(behind.len()))?;
    host.rfind('@')
}

/// What tokens, and names of parameters, are made of.
fn in_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | '~' | '+' | '/' | '%')
}

/// What a secret ends with in a text: a password may hold all else.
fn ends_value(c: char) -> bool {
    c.is_whitespace() || matches!(c, '&' | '"' | '\'' | '\\' | ',' | ';' | ')' | ']' | '}' | '>')
}

fn is_signed(word: &str) -> bool {
    word.len() >= SHORTEST_SIGNED && word.starts_with(SIGNED)
}

/// What stood before a word, as far as it tells a secret.
#[derive(Clone, Copy, PartialEq)]
enum Before {
    Nothing,
    /// `Bearer` or `Basic`.
    Scheme,
    /// The name of a secret.
    Name,
    /// … and `=`: whatever follows is it.
    Value,
    /// … and `:`: what follows is it, unless it is prose.
    Perhaps,
}

impl Before {
    fn of(word: &str) -> Before {
        // `https://host/path?api_key` is one word but for the question mark; `path/token` is a path.
        let name = word.rsplit('/').next().unwrap_or(word);
        match word {
            _ if word.eq_ignore_ascii_case("bearer") || word.eq_ignore_ascii_case("basic") => Before::Scheme,
            _ if is_secret(name) => Before::Name,
            _ => Before::Nothing,
        }
    }

    /// With a character more that belongs to no word.
    fn then(self, c: char) -> Before {
        match (self, c) {
            (Before::Name, '=') => Before::Value,
            (Before::Name, ':') => Before::Perhaps,
            // `"token": "…"`, `token = …`, and `=` at the end of base64.
            (_, '"' | '\'' | '\\' | ' ' | '=') => self,
            _ => Before::Nothing,
        }
    }

    /// Whether a text that begins with `first`, and so with `word`, is a secret.
    fn hides(self, word: &str, first: char) -> bool {
        match self {
            Before::Nothing | Before::Name => false,
            Before::Value => !ends_value(first),
            Before::Scheme => word.len() >= SHORTEST_TOKEN,
            Before::Perhaps => word.len() >= SHORTEST_TOKEN && word.contains(|c: char| c.is_ascii_digit()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng};
    use serde_json::json;

    #[test]
    fn values_under_names_of_secrets_are_masked_and_names_stay() {
        let mut details = json!({
            "Authorization": "Bearer x", "api_key": 7, "set-cookie": ["a=b"], "client": {"password": {"a": 1}, "name": "acme"},
            "signature": true, "token": null, "list": [{"secret": "s"}, "plain"], "pages": 3,
        });
        let left = json!({
            "Authorization": MASK, "api_key": MASK, "set-cookie": MASK, "client": {"password": MASK, "name": "acme"},
            "signature": true, "token": null, "list": [{"secret": MASK}, "plain"], "pages": 3,
        });
        redact(&mut details);
        assert_eq!(details, left);
    }

    #[test]
    fn secrets_in_texts_are_masked() {
        for (text, shown) in [
            ("sent Bearer abcdef123456== to it", "sent Bearer [secret] to it"),
            ("authorization: basic dXNlcjpwYXNz", "authorization: basic [secret]"),
            (
                "GET https://api.example.com/v1?api_key=a1&page=2: 401",
                "GET https://api.example.com/v1?api_key=[secret]&page=2: 401",
            ),
            ("https://me:pa55@example.com/x", "https://[secret]@example.com/x"),
            (
                r#"it said {"access_token": "0123456789ab", "page": "2"}"#,
                r#"it said {"access_token": "[secret]", "page": "2"}"#,
            ),
            ("password=p@ss!w:rd and more", "password=[secret] and more"),
            ("X-Api-Key: 0123456789ab", "X-Api-Key: [secret]"),
            ("got eyJhbGciOiJIUzI1NiJ9.e30.c2ln", "got [secret]"),
        ] {
            assert_eq!(without_secrets(text).as_deref(), Some(shown));
        }
    }

    #[test]
    fn prose_stays_as_it_is() {
        for text in [
            "the token is missing",
            "Bearer is no word of ours",
            "unknown key: email",
            "«name»: must be a text",
            "https://example.com/a@b?page=2",
            "bad_token: the token has expired",
            "",
            "ü = 7 € ://",
        ] {
            assert_eq!(without_secrets(text), None, "{text}");
        }
    }

    #[test]
    fn no_text_makes_it_panic_and_no_depth_is_too_deep() {
        let mut chance = rand_chacha::ChaCha8Rng::seed_from_u64(1);
        let pieces = ["://", "@", "Bearer ", "key", "=", ":", "ü", "\"", "eyJ", " ", "0123456789", "/", "\u{202e}"];
        for _ in 0..20_000 {
            let text: String =
                (0..chance.random_range(0..12)).map(|_| pieces[chance.random_range(0..pieces.len())]).collect();
            let _ = without_secrets(&text);
        }
        // In the time of its length, whoever wrote it.
        for piece in ["key:", "key=", "://", "t-", "Bearer ", "a@", "\u{20}"] {
            let _ = without_secrets(&piece.repeat(1 << 18));
        }
        let mut deep = (0..100).fold(json!({"token": "x"}), |inner, _| json!([inner]));
        redact(&mut deep);
        assert!(!deep.to_string().contains('x'));
    }
}
