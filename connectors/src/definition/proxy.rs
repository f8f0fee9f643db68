//! `proxy`: what callers of `/proxy` may do with the sign-in of a source.

use super::read::{self, Out};
use crate::config_text::{Fields, Node};
use crate::expr::Template;
use url::{Origin, Url};

/// Most bytes of a body that is passed on.
const MAX_BODY: u64 = 100 << 20;

/// What callers may do with the sign-in of a source.
#[derive(Clone, Debug)]
pub struct ProxyRules {
    /// Origins beside the base URL's where signed requests may go.
    pub allow: Vec<Origin>,
    /// A caller may send an `Authorization` of its own.
    pub allow_authorization: bool,
    /// Keys of readers may `GET`.
    pub readers: bool,
    /// Most bytes of a request's body.
    pub max: u64,
}

impl Default for ProxyRules {
    fn default() -> Self {
        ProxyRules { allow: Vec::new(), allow_authorization: false, readers: false, max: MAX_BODY }
    }
}

impl ProxyRules {
    /// Whether signed requests may go to the origin of this URL, beside the base URL's.
    pub fn allows(&self, url: &Url) -> bool {
        self.allow.contains(&url.origin())
    }
}

/// Reads `proxy`.
pub(super) fn proxy(node: Option<Node>, base: Option<&Template>, out: &mut Out) -> ProxyRules {
    let mut rules = ProxyRules::default();
    let Some(mut fields) = node.and_then(|node| Fields::open(node, "`proxy`", out)) else { return rules };
    let own = base.and_then(Template::as_literal).and_then(|text| Url::parse(text).ok()).map(|url| url.origin());
    for (text, spot) in fields.texts("allow", out).unwrap_or_default() {
        let Some(url) = read::url(&text, &spot, out) else { continue };
        if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
            let complaint = spot.complain("bad_origin", format!("`{text}` is more than an origin"));
            out.push(complaint.hint(format!("write {}", url.origin().ascii_serialization())));
        } else if own.as_ref() == Some(&url.origin()) || rules.allows(&url) {
            let complaint = spot.complain("no_effect", format!("`{text}` does nothing here: it is allowed already"));
            out.push(complaint.warn().hint("leave it out"));
        }
        rules.allow.push(url.origin());
    }
    rules.allow_authorization = fields.bool("allow_authorization", out).unwrap_or(false);
    rules.readers = fields.bool("readers", out).unwrap_or(false);
    if let Some((size, spot)) = fields.size("max", out) {
        if !(1..=MAX_BODY).contains(&size) {
            out.push(spot.complain("out_of_range", "`max` must be 1B to 100MiB"));
        }
        rules.max = size.min(MAX_BODY);
    }
    fields.finish(out);
    rules
}
