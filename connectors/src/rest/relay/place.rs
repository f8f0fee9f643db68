//! Where a passed request goes: the connection's base, or another origin that the definition names, and the caller's path behind it.
//!
//! Promises: path and query go as they came, byte for byte but for what no URL may hold, which is percent-encoded; no path leads out
//! of the base by its segments; nothing the caller writes makes another origin of an allowed one.

use super::super::RestSource;
use super::super::request::{Filling, base, refused};
use crate::http::Url;
use percent_encoding::percent_decode_str;
use syncline_engine::source::{Connection, Failure};

/// The path cannot be passed on.
pub const BAD_PATH: &str = "bad_path";
/// The other base is none.
pub const BAD_BASE: &str = "bad_base_url";
/// Signed requests may not go to this origin.
pub const NOT_ALLOWED: &str = "origin_not_allowed";
/// Nothing is asked of the source by HTTP.
pub const NO_BASE: &str = "no_base_url";

impl RestSource {
    /// The URL of a passed request, short of its query.
    pub(super) fn place(&self, connection: &Connection, path: &str, other: Option<&str>) -> Result<Url, Failure> {
        checked(path)?;
        let own = self.own_base(connection)?;
        let start = match other.map(str::trim).filter(|text| !text.is_empty()) {
            Some(text) => self.other_base(&own, text)?,
            None => own,
        };
        let bad = |error| refused("bad_url", format!("«{path}» cannot be laid behind {}: {error}", start.path()));
        // Joined as text: a base with a path of its own keeps it.
        let url = Url::parse(&format!("{}{path}", start.as_str().trim_end_matches('/'))).map_err(bad)?;
        // Were the checks above wrong, the sign-in would still stay where it belongs.
        if url.origin() == start.origin() { Ok(url) } else { Err(self.not_allowed(&url)) }
    }

    /// Whether signed requests of `connection` may go to the origin of this URL.
    pub(super) fn may_go(&self, connection: &Connection, url: &Url) -> Result<(), Failure> {
        let allowed = self.definition.proxy.allows(url) || url.origin() == self.own_base(connection)?.origin();
        if allowed { Ok(()) } else { Err(self.not_allowed(url)) }
    }

    fn own_base(&self, connection: &Connection) -> Result<Url, Failure> {
        let own = base(&self.definition.base_url, connection, &Filling::new(connection, "base"))?;
        if connection.base_url.is_none() && !self.definition.has_base() {
            let source = &self.definition.source;
            let message =
                format!("`{source}` has no base_url, so nothing can be asked of it: add it to its definition");
            return Err(refused(NO_BASE, message));
        }
        Ok(own)
    }

    fn other_base(&self, own: &Url, text: &str) -> Result<Url, Failure> {
        let bad = |why: &str| refused(BAD_BASE, format!("the base «{text}» {why}: write https://host/path"));
        if text.contains(['\\', '\t', '\n', '\r']) {
            return Err(bad("holds what no URL may hold"));
        }
        let url = Url::parse(text).map_err(|error| bad(&format!("is no URL ({error})")))?;
        if !matches!(url.scheme(), "https" | "http") || !url.has_host() {
            return Err(bad("is no URL of the web"));
        }
        if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
            return Err(bad("holds more than a host and a path"));
        }
        let allowed = url.origin() == own.origin() || self.definition.proxy.allows(&url);
        if allowed { Ok(url) } else { Err(self.not_allowed(&url)) }
    }

    /// As who asks is told.
    pub(super) fn not_allowed(&self, url: &Url) -> Failure {
        let (origin, source) = (url.origin().ascii_serialization(), &self.definition.source);
        let advice = format!(
            "add `proxy: {{allow: [\"{origin}\"]}}` to the definition of `{source}`, if requests in its name may go there"
        );
        refused(NOT_ALLOWED, format!("requests to {origin} are not allowed: {advice}"))
    }
}

/// Refuses paths that URLs, or whoever reads them, take for others than they are written.
fn checked(path: &str) -> Result<(), Failure> {
    let bad =
        |why: &str| Err(refused(BAD_PATH, format!("the path «{path}» {why}; write it as the provider is to get it")));
    if !path.starts_with('/') {
        return bad("does not begin with a slash");
    }
    if path.contains("//") {
        return bad("has an empty segment");
    }
    let decoded: Vec<u8> = percent_decode_str(path).collect();
    if path.contains('\\') {
        return bad("holds a backslash");
    }
    if decoded.iter().any(u8::is_ascii_control) {
        return bad("holds a control character");
    }
    // A provider may decode what a URL leaves as it is.
    let mut segments = decoded.split(|byte| matches!(byte, b'/' | b'\\'));
    if segments.any(|segment| matches!(segment, b"." | b"..")) {
        return bad("has a segment `.` or `..`");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_could_be_read_as_others_are_refused() {
        for path in ["/", "/a", "/a/", "/a%20b/ü", "/a;b=1/c,d", "/a/...", "/.a/b..", "/a%2Fb", "/a:b@c", "/%5Cserver"]
        {
            assert_eq!(checked(path).map_err(|why| why.code), Ok(()), "{path}");
        }
        let bad = [
            "",
            "a",
            "//a",
            "/a//b",
            "/a//",
            "/.",
            "/..",
            "/a/./b",
            "/a/../b",
            "/a/..",
            "/%2e%2e/b",
            "/a/%2E./b",
            "/..%2fb",
            "/a%2f..%2fb",
            "/a\\b",
            "/..\\b",
            "/..%5cb",
            "/a%5c..",
            "/a\u{7f}",
            "/a%00",
            "/a%0d%0ab",
            "/\tb",
        ];
        for path in bad {
            assert_eq!(checked(path).map_err(|why| why.code), Err(BAD_PATH), "{path}");
        }
    }
}
