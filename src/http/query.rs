//! Reads a query strictly: unknown names and repeated single values are faults, and all faults are told at once.

use super::error::{InputFault, Refusal};
use axum::http::HeaderMap;

/// Most name-value pairs of a query that are looked at.
const MAX_PAIRS: usize = 256;

/// A query being read.
pub(crate) struct QueryFields {
    pairs: Vec<(String, String)>,
    faults: Vec<InputFault>,
}

impl QueryFields {
    /// Takes the pairs apart; names not in `known` are faults.
    pub(crate) fn read(raw: Option<&str>, known: &[&str]) -> Self {
        Self::read_with(raw, |name| known.contains(&name))
    }

    /// As [`read`](Self::read), for families of names.
    pub(crate) fn read_with(raw: Option<&str>, known: impl Fn(&str) -> bool) -> Self {
        let mut query = QueryFields { pairs: Vec::new(), faults: Vec::new() };
        for (name, value) in url::form_urlencoded::parse(raw.unwrap_or_default().as_bytes()) {
            if query.pairs.len() >= MAX_PAIRS {
                query.fault("too_big", &[], format!("a query has at most {MAX_PAIRS} values"));
                break;
            }
            if known(&name) {
                query.pairs.push((name.into_owned(), value.into_owned()));
            } else if !query.faults.iter().any(|f| f.path.first().is_some_and(|p| *p == name)) {
                query.fault("unrecognized_key", &[&name], format!("`{name}` is not known here"));
            }
        }
        query
    }

    /// The value of a name that may stand once.
    pub(crate) fn one(&mut self, name: &str) -> Option<String> {
        let mut values = self.all(name);
        if values.len() > 1 {
            self.fault("invalid_type", &[name], "may be given once");
        }
        if values.is_empty() { None } else { Some(values.swap_remove(0)) }
    }

    /// All values of a name that may be repeated.
    pub(crate) fn all(&self, name: &str) -> Vec<String> {
        self.pairs.iter().filter(|(n, _)| n == name).map(|(_, v)| v.clone()).collect()
    }

    /// All pairs whose name begins with `prefix`.
    pub(crate) fn family(&self, prefix: &str) -> Vec<(String, String)> {
        self.pairs.iter().filter(|(n, _)| n.starts_with(prefix)).cloned().collect()
    }

    /// A whole number within bounds.
    pub(crate) fn number(&mut self, name: &str, from: u64, to: u64) -> Option<u64> {
        let text = self.one(name)?;
        let number = text.parse::<u64>().ok().filter(|n| (from..=to).contains(n));
        if number.is_none() {
            self.fault("invalid_number", &[name], format!("a whole number from {from} to {to} is wanted"));
        }
        number
    }

    /// `limit`: how many entries are asked for.
    pub(crate) fn limit(&mut self, usual: u64, most: u64) -> usize {
        usize::try_from(self.number("limit", 1, most).unwrap_or(usual)).unwrap_or(usize::MAX)
    }

    /// `cursor`, which an earlier answer gave, as `parse` reads it.
    pub(crate) fn cursor<T>(&mut self, parse: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        let place = parse(&self.one("cursor")?);
        if place.is_none() {
            self.fault("invalid_cursor", &["cursor"], "a cursor of an earlier answer is wanted");
        }
        place
    }

    /// `true` or `false`.
    pub(crate) fn flag(&mut self, name: &str) -> bool {
        match self.one(name).as_deref() {
            None | Some("false") => false,
            Some("true") => true,
            Some(_) => {
                self.fault("invalid_type", &[name], "true or false is wanted");
                false
            }
        }
    }

    /// Notes a fault.
    pub(crate) fn fault(&mut self, code: &'static str, path: &[&str], message: impl Into<String>) {
        self.faults.push(InputFault::new(code, path, message));
    }

    /// Refuses if there were faults.
    pub(crate) fn done(self) -> Result<(), Refusal> {
        if self.faults.is_empty() { Ok(()) } else { Err(Refusal::invalid("query", self.faults)) }
    }
}

/// How many entries a query asks for; what cannot be meant is refused by who reads it strictly.
pub(crate) fn limit_of(query: &str, usual: u64, most: u64) -> usize {
    let said = url::form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "limit");
    let limit = said.and_then(|(_, text)| text.parse::<u64>().ok()).unwrap_or(usual).min(most);
    usize::try_from(limit).unwrap_or(usize::MAX)
}

/// `Provider-Config-Key` and `Connection-Id`: both are demanded.
pub(crate) fn account_headers(headers: &HeaderMap) -> Result<(String, String), Refusal> {
    let mut faults = Vec::new();
    let mut read = |name: &str| match header(headers, name) {
        Some(value) => value,
        None => {
            faults.push(InputFault::new("invalid_type", &[name], "the header is missing or empty"));
            String::new()
        }
    };
    let found = (read("provider-config-key"), read("connection-id"));
    if faults.is_empty() { Ok(found) } else { Err(Refusal::invalid("headers", faults)) }
}

/// A header that is there and not empty.
pub(crate) fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name).and_then(|v| v.to_str().ok()).map(str::trim).filter(|v| !v.is_empty()).map(str::to_owned)
}

/// A name of letters, digits, `_` and `-`, 1 to 255 of them.
pub(crate) fn is_name(text: &str) -> bool {
    (1..=255).contains(&text.len()) && text.bytes().all(is_word)
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_come_all_at_once() {
        let mut query = QueryFields::read(Some("limit=0&x=1&x=2&model=A&model=B"), &["limit", "model"]);
        query.number("limit", 1, 10);
        assert_eq!(query.one("model"), Some("A".into()));
        let paths: Vec<_> = query.faults.iter().map(|f| f.path.join(".")).collect();
        assert_eq!(paths, ["x", "limit", "model"]);
        assert!(query.done().is_err());
    }

    #[test]
    fn values_are_decoded_and_may_repeat() {
        let mut query = QueryFields::read(Some("ids=a%2Fb&ids=c+d&t="), &["ids", "t"]);
        assert_eq!(query.all("ids"), ["a/b", "c d"]);
        assert_eq!(query.one("t"), Some(String::new()));
        assert!(query.done().is_ok());
    }
}
