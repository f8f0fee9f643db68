//! Conditional requests: what a page looked like, kept with its validator.
//!
//! An answer 304 counts as that same page, so its keys and the way on from it are kept too: a listing of unchanged pages
//! is as provable as one that was read in full. The same record carries the proof of an interrupted listing over a restart.

use super::Answer;
use super::statements::Statements;
use reqwest::header::{ETAG, HeaderMap, HeaderName, HeaderValue, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED};
use serde::{Deserialize, Serialize};

/// Version of the stored form.
const FORMAT: u32 = 2;

/// Largest stored page. A page beyond keeps its keys for the proof and is asked for in full next time.
const KEPT_BYTES_MAX: usize = 1024 * 1024;

/// What makes a request conditional.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Validator {
    /// `ETag` as it came.
    pub etag: Option<String>,
    /// `Last-Modified` as it came.
    pub last_modified: Option<String>,
}

impl Validator {
    /// The validator of an answer; none if it brought none.
    pub fn of(answer: &Answer) -> Option<Validator> {
        let text = |name: HeaderName| answer.header(name.as_str()).map(str::to_string);
        let validator = Validator { etag: text(ETAG), last_modified: text(LAST_MODIFIED) };
        (validator != Validator::default()).then_some(validator)
    }

    /// Makes a request conditional.
    pub fn lay(&self, headers: &mut HeaderMap) {
        let pairs = [(IF_NONE_MATCH, &self.etag), (IF_MODIFIED_SINCE, &self.last_modified)];
        for (name, value) in pairs {
            if let Some(value) = value.as_deref().and_then(|text| HeaderValue::from_str(text).ok()) {
                headers.insert(name, value);
            }
        }
    }
}

/// A page as it was read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KeptPage {
    format: u32,
    /// The listing that read it last.
    pub listing: i64,
    /// Fingerprint of the request and of everything that decides how its answer is read.
    pub request: String,
    /// What to ask with next time.
    pub validator: Option<Validator>,
    /// What it stated.
    pub statements: Statements,
    /// Fingerprints of the keys of all items.
    pub keys: Vec<u64>,
    /// Ids of the records; empty where there is no validator.
    pub ids: Vec<String>,
}

impl KeptPage {
    /// A page read by `listing` for the request with this fingerprint.
    pub fn new(listing: i64, request: String) -> Self {
        KeptPage {
            format: FORMAT,
            listing,
            request,
            validator: None,
            statements: Statements::default(),
            keys: Vec::new(),
            ids: Vec::new(),
        }
    }

    /// The stored form.
    pub fn encode(mut self) -> Vec<u8> {
        if self.validator.is_none() {
            self.ids = Vec::new();
        }
        let bytes = serde_json::to_vec(&self).unwrap_or_default();
        if bytes.len() <= KEPT_BYTES_MAX {
            return bytes;
        }
        self.validator = None;
        self.ids = Vec::new();
        serde_json::to_vec(&self).unwrap_or_default()
    }

    /// Reads the stored form; `None` if it is of another version.
    pub fn decode(bytes: &[u8]) -> Option<KeptPage> {
        serde_json::from_slice::<KeptPage>(bytes).ok().filter(|page| page.format == FORMAT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_comes_back_as_it_was_and_a_huge_one_without_its_validator() {
        let mut page = KeptPage::new(7, "fingerprint".into());
        page.validator = Some(Validator { etag: Some("W/\"a\"".into()), last_modified: None });
        page.statements.next = Some(super::super::paginate::PageToken::Token(serde_json::json!("abc")));
        page.keys = vec![u64::MAX, 1];
        page.ids = vec!["1".into()];
        assert_eq!(KeptPage::decode(&page.clone().encode()), Some(page.clone()));
        page.ids = vec!["x".repeat(KEPT_BYTES_MAX)];
        let kept = KeptPage::decode(&page.encode()).expect("readable");
        assert_eq!((kept.validator, kept.ids.len(), kept.keys.len()), (None, 0, 2));
        assert_eq!(KeptPage::decode(b"{}"), None);
    }
}
