//! `about`: what people look for when they choose a provider. Nothing of it changes what is asked or stored.

use super::read::{self, Out};
use crate::config_text::{Fields, Node};

/// Most categories.
const CATEGORIES_MAX: usize = 10;

/// What is told of a provider beside its `title`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// Words by which it is found, such as `crm`.
    pub categories: Vec<String>,
    /// The provider's own documentation.
    pub docs: Option<String>,
}

/// Reads `about`.
pub(super) fn about(node: Option<Node>, out: &mut Out) -> About {
    let mut about = About::default();
    let Some(mut fields) = node.and_then(|node| Fields::open(node, "`about`", out)) else { return about };
    let spot = fields.peek("categories").map(|node| node.spot.clone());
    for (category, spot) in fields.texts("categories", out).unwrap_or_default() {
        read::name(&category, "a category", &spot, out);
        about.categories.push(category);
    }
    if let Some(spot) = spot.filter(|_| about.categories.len() > CATEGORIES_MAX) {
        let message = format!("`categories` has {}; {CATEGORIES_MAX} are allowed", about.categories.len());
        out.push(spot.complain("out_of_range", message));
    }
    if let Some((docs, spot)) = fields.text("docs", out) {
        if url::Url::parse(&docs).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host()) {
            about.docs = Some(docs);
        } else {
            let complaint = spot.complain("bad_url", format!("`{docs}` is not an absolute URL"));
            out.push(complaint.hint("write https://host/path"));
        }
    }
    fields.finish(out);
    about
}
