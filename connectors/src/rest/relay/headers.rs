//! Headers of passed requests and answers: which go on.

use super::super::request::refused;
use crate::http::{HeaderMap, HeaderName, HeaderValue};
use syncline_engine::source::Failure;

/// A header that may not be sent.
pub const FORBIDDEN: &str = "forbidden_header";
/// On every refusal of our own, and on no answer of a provider.
pub const ORIGIN: &str = "syncline-origin";

/// Headers of one connection between two machines.
const OF_ONE_HOP: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
/// What the HTTP layer sets itself, or what would make another caller of ours.
const NOT_OUT: [&str; 4] = ["host", "content-length", "cookie", "expect"];
/// What goes along to another origin without being asked for: none of it says who asks.
const PLAIN: [&str; 5] = ["accept", "accept-encoding", "accept-language", "content-type", "range"];

/// Refuses headers that a caller may not send.
pub(super) fn checked(headers: &HeaderMap, authorization: bool) -> Result<(), Failure> {
    for name in headers.keys().map(HeaderName::as_str) {
        if OF_ONE_HOP.contains(&name) || NOT_OUT.contains(&name) {
            let message = format!("the header «{name}» is not passed on; leave it out");
            return Err(refused(FORBIDDEN, message));
        }
        if name == "authorization" && !authorization {
            let message = "the sign-in is the connection's; leave the header «authorization» out, or allow it with \
                           `proxy: {allow_authorization: true}` in the definition";
            return Err(refused(FORBIDDEN, message.to_owned()));
        }
    }
    Ok(())
}

/// What of a caller's headers goes to an origin that is not to know who asks.
pub(super) fn plain(headers: &HeaderMap) -> HeaderMap {
    let plain = headers.iter().filter(|(name, _)| PLAIN.contains(&name.as_str()));
    plain.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// An answer's headers as the caller gets them.
pub(super) fn answered(mut headers: HeaderMap) -> HeaderMap {
    let named: Vec<String> = headers.get_all("connection").iter().flat_map(named).collect();
    for name in OF_ONE_HOP.into_iter().chain(["set-cookie", "set-cookie2", ORIGIN]) {
        headers.remove(name);
    }
    let of_browsers = headers.keys().filter(|name| name.as_str().starts_with("access-control-"));
    let dropped: Vec<HeaderName> = of_browsers.cloned().collect();
    let dropped = dropped.iter().map(HeaderName::as_str).chain(named.iter().map(String::as_str));
    dropped.for_each(|name| drop(headers.remove(name)));
    headers
}

/// `Connection` may name more headers of its own hop.
fn named(value: &HeaderValue) -> Vec<String> {
    let text = value.to_str().unwrap_or_default();
    text.split(',').map(|name| name.trim().to_ascii_lowercase()).filter(|name| !name.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(headers: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        headers.iter().map(pair).collect()
    }

    #[test]
    fn an_answer_loses_what_belongs_to_its_hop_and_to_other_browsers() {
        let answer = map(&[
            ("connection", "close, X-Trace"),
            ("x-trace", "1"),
            ("keep-alive", "timeout=5"),
            ("transfer-encoding", "chunked"),
            ("set-cookie", "a=b"),
            ("set-cookie", "c=d"),
            ("access-control-allow-origin", "*"),
            ("access-control-max-age", "1"),
            ("syncline-origin", "syncline"),
            ("content-type", "text/plain"),
            ("link", "</a>; rel=next"),
            ("link", "</b>; rel=prev"),
        ]);
        let left = answered(answer);
        let mut names: Vec<&str> = left.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        assert_eq!(names, ["content-type", "link", "link"]);
    }

    #[test]
    fn a_caller_does_not_sign_in_unless_that_is_allowed() {
        let code = |name, allowed| checked(&map(&[(name, "x")]), allowed).map_err(|why| why.code);
        for name in ["host", "cookie", "content-length", "transfer-encoding", "upgrade", "te", "connection"] {
            assert_eq!(code(name, true), Err(FORBIDDEN), "{name}");
        }
        assert_eq!((code("authorization", false), code("authorization", true)), (Err(FORBIDDEN), Ok(())));
        assert_eq!(code("x-api-version", false), Ok(()));
    }
}
