//! Pagination: how the place of a page is laid into a request, and how links lead on.
//!
//! Promises: a link is followed within its origin only; going in circles is noticed. What pages say of the end of their list
//! is read in `statements` and judged in `proof`. Pure: requests go in as drafts, answers as values.

use super::HeaderMap;
use super::client::{failure, shown};
use crate::definition::{Paginate, ParameterPlace};
use reqwest::Url;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::HashSet;
use syncline_engine::source::Failure;

/// Pages in a row without a new key after which a listing is said to go in circles.
pub const STALE_PAGES_MAX: u32 = 3;

/// Most places a listing remembers having been at.
const TRAIL_MAX: usize = 1_000_000;

/// Where the next page is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PageToken {
    /// The first page.
    Start,
    /// A whole URL.
    Url(String),
    /// A token.
    Token(Value),
    /// So many items in.
    Offset(u64),
    /// The page of this number.
    Page(u64),
}

/// A request before it is sealed: paging parameters are laid in by name.
#[derive(Clone, Debug)]
pub struct Draft {
    /// `GET`, `POST`…
    pub method: String,
    /// Without `query`.
    pub url: Url,
    /// Query parameters in order.
    pub query: Vec<(String, String)>,
    /// Headers in order.
    pub headers: Vec<(String, String)>,
    /// JSON body.
    pub body: Option<Value>,
    /// Url-encoded body.
    pub form: Option<Vec<(String, String)>>,
}

/// Lays the place of a page into the request for it.
pub fn lay(paginate: &Paginate, spot: &PageToken, draft: &mut Draft) -> Result<(), Failure> {
    match (paginate, spot) {
        (Paginate::LinkHeader { .. } | Paginate::LinkBody(_), PageToken::Url(text)) => follow(text, draft),
        (Paginate::Cursor { param, place, .. }, PageToken::Token(token)) => set(draft, *place, param, token.clone()),
        (Paginate::Offset { offset, limit, size, place, .. }, spot) => {
            let so_far = if let PageToken::Offset(so_far) = spot { *so_far } else { 0 };
            set(draft, *place, offset, so_far.into())?;
            limit.as_ref().map_or(Ok(()), |limit| set(draft, *place, limit, (*size).into()))
        }
        (Paginate::Page { page, start, place, .. }, spot) => {
            let number = if let PageToken::Page(number) = spot { *number } else { *start };
            set(draft, *place, page, number.into())
        }
        _ => Ok(()),
    }
}

/// The URL a link leads to.
pub(super) fn absolute(link: &str, base: &Url) -> Result<PageToken, Failure> {
    let url = base.join(link).map_err(|error| {
        failure("bad_link", format!("the next link after {} is no URL: {error}", shown(base)), false)
    })?;
    Ok(PageToken::Url(url.into()))
}

fn follow(text: &str, draft: &mut Draft) -> Result<(), Failure> {
    let url =
        Url::parse(text).map_err(|error| failure("bad_link", format!("a next link is no URL: {error}"), false))?;
    if url.origin() != draft.url.origin() {
        let (from, to) = (draft.url.origin().ascii_serialization(), url.origin().ascii_serialization());
        let message = format!("the next link leads from {from} to {to}; sign-in is not taken to another origin");
        return Err(failure("other_origin", message, false));
    }
    draft.query = url.query_pairs().map(|(name, value)| (name.into_owned(), value.into_owned())).collect();
    draft.url = url;
    draft.url.set_query(None);
    Ok(())
}

fn set(draft: &mut Draft, place: ParameterPlace, name: &str, value: Value) -> Result<(), Failure> {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_string);
    match place {
        ParameterPlace::Query => put(&mut draft.query, name, text(&value)),
        ParameterPlace::Header => put(&mut draft.headers, name, text(&value)),
        ParameterPlace::Body => match &mut draft.form {
            Some(form) => put(form, name, text(&value)),
            None => return set_in_body(draft.body.get_or_insert_with(|| Value::Object(Map::new())), name, value),
        },
    }
    Ok(())
}

fn put(pairs: &mut Vec<(String, String)>, name: &str, value: String) {
    pairs.retain(|(known, _)| known != name);
    pairs.push((name.to_string(), value));
}

fn set_in_body(body: &mut Value, dotted: &str, value: Value) -> Result<(), Failure> {
    let mut spot = body;
    for part in dotted.split('.') {
        let Value::Object(map) = spot else {
            let message = format!("paginate.param «{dotted}» leads through something in the body that is no object");
            return Err(failure("bad_param", message, false));
        };
        spot = map.entry(part).or_insert_with(|| Value::Object(Map::new()));
    }
    *spot = value;
    Ok(())
}

/// The target of `rel` in the `Link` headers. Bytes that are no text spoil the link they stand in, not the ones beside it.
pub(super) fn link_header(headers: &HeaderMap, rel: &str, page: &Url) -> Result<Option<String>, Failure> {
    let texts = headers.get_all("link").into_iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
    let mut links = texts.flat_map(|text| links(&text));
    let named = |rels: &str| rels.split_ascii_whitespace().any(|r| r.eq_ignore_ascii_case(rel));
    let found = links.find(|(_, rels)| named(rels)).map(|(to, _)| to);
    if found.as_ref().is_some_and(|to| to.contains(char::REPLACEMENT_CHARACTER)) {
        let message =
            format!("the {rel} link after {} holds bytes that are no UTF-8; it cannot be followed", shown(page));
        return Err(failure("bad_link", message, false));
    }
    Ok(found)
}

/// The (target, rel) pairs of one `Link` header. Commas and semicolons inside `<…>` and quotes are no separators.
fn links(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for part in outside(text, ',') {
        let mut pieces = outside(part, ';').into_iter().map(str::trim);
        let target = pieces.next().and_then(|piece| piece.strip_prefix('<')?.strip_suffix('>'));
        let rel = pieces.find_map(|piece| {
            let (name, value) = piece.split_once('=')?;
            name.trim().eq_ignore_ascii_case("rel").then(|| value.trim().trim_matches('"').to_string())
        });
        if let (Some(target), Some(rel)) = (target, rel) {
            found.push((target.to_string(), rel));
        }
    }
    found
}

fn outside(text: &str, separator: char) -> Vec<&str> {
    let (mut quoted, mut angled) = (false, false);
    text.split(|c| {
        match c {
            '"' if !angled => quoted = !quoted,
            '<' if !quoted => angled = true,
            '>' if !quoted => angled = false,
            _ => {}
        }
        c == separator && !quoted && !angled
    })
    .collect()
}

/// Where a listing has been, to notice that it goes in circles.
#[derive(Debug, Default)]
pub struct Trail {
    been_at: HashSet<u64>,
}

impl Trail {
    /// Remembers `spot`; false if the listing has been there. Counted places rise by themselves and are not remembered.
    pub fn step(&mut self, spot: &PageToken) -> bool {
        match fingerprint(spot) {
            Some(place) if self.been_at.len() < TRAIL_MAX => self.been_at.insert(place),
            Some(place) => !self.been_at.contains(&place),
            None => true,
        }
    }
}

/// A short form of a spot that could come again.
fn fingerprint(spot: &PageToken) -> Option<u64> {
    match spot {
        PageToken::Url(url) => Some(twox_hash::XxHash3_64::oneshot(url.as_bytes())),
        PageToken::Token(token) => Some(twox_hash::XxHash3_64::oneshot(token.to_string().as_bytes())),
        _ => None,
    }
}

/// The failure of a listing that goes in circles.
pub fn loop_failure(place: &Url, why: &str) -> Failure {
    let advice = "check paginate in the definition";
    failure("pagination_loop", format!("{}: {why}; {advice}", shown(place)), false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_headers_are_read_with_quotes_commas_and_several_relations() {
        let text = r#"<https://a.example/x?a=1,2;3>; title="a, b; c"; rel="prev Next", </last>; rel=last"#;
        let found = links(text);
        assert_eq!(found[0], ("https://a.example/x?a=1,2;3".into(), "prev Next".into()));
        assert_eq!(found[1], ("/last".into(), "last".into()));
        let mut headers = HeaderMap::new();
        headers.append("link", "<a>; rel=first".parse().expect("header"));
        headers.append("link", text.parse().expect("header"));
        let page = Url::parse("https://a.example/").expect("a URL");
        let target = |rel| link_header(&headers, rel, &page).expect("text");
        assert_eq!(target("next").as_deref(), Some("https://a.example/x?a=1,2;3"));
        assert_eq!(target("up"), None);
        assert!(links("garbage, <>, <a>; rel").is_empty());
    }

    #[test]
    fn a_link_that_is_no_text_is_no_end() {
        let page = Url::parse("https://a.example/").expect("a URL");
        let link = |bytes: &[u8]| {
            let mut headers = HeaderMap::new();
            headers.append("link", super::super::HeaderValue::from_bytes(bytes).expect("a value"));
            link_header(&headers, "next", &page)
        };
        let beside = link(b"<?p=2>; title=\"caf\xe9\"; rel=next").expect("the target is text");
        assert_eq!(beside.as_deref(), Some("?p=2"));
        assert_eq!(link(b"<?p=\xe9>; rel=next").expect_err("no text").code, "bad_link");
    }

    #[test]
    fn dotted_names_reach_into_the_body_and_stop_at_what_is_no_object() {
        let mut body = serde_json::json!({"variables": {"first": 5}});
        set_in_body(&mut body, "variables.after", "x".into()).expect("set");
        assert_eq!(body, serde_json::json!({"variables": {"first": 5, "after": "x"}}));
        assert!(set_in_body(&mut body, "variables.first.after", "x".into()).is_err());
    }
}
