//! The expressions of requests and streams, for whoever has to know what they read.

use super::{Map, Paginate, Request, Stream};
use crate::expr::Expr;

impl Request {
    /// Every expression that makes a page of an answer. (Rules of `responses` are asked of each answer as it comes.)
    pub fn expressions(&self) -> impl Iterator<Item = &Expr> {
        let (one, more, last) = match &self.paginate {
            Paginate::None | Paginate::LinkHeader { .. } => (None, None, None),
            Paginate::LinkBody(link) => (Some(link), None, None),
            Paginate::Cursor { cursor, more, .. } => (Some(cursor), more.as_ref(), None),
            Paginate::Offset { more, .. } => (None, more.as_ref(), None),
            Paginate::Page { more, last, .. } => (None, more.as_ref(), last.as_ref()),
        };
        let items = [&self.items, &self.filter, &self.total].into_iter().flatten();
        items.chain(one).chain(more).chain(last)
    }

    /// Whether any of them reads the answer's headers.
    pub fn reads_headers(&self) -> bool {
        self.expressions().any(Expr::reads_headers)
    }
}

impl Stream {
    /// Every expression about an item, wherever it came from.
    pub fn expressions(&self) -> impl Iterator<Item = &Expr> {
        let flag =
            self.deletes.flag.iter().flat_map(|(flag, at)| std::iter::once(flag).chain(at.iter().map(|at| &at.value)));
        let (whole, fields) = match &self.map {
            Map::Same => (None, &[][..]),
            Map::Whole(whole) => (Some(whole), &[][..]),
            Map::Fields(fields) => (None, fields.as_slice()),
        };
        let modified_at = self.modified_at.iter().map(|at| &at.value);
        self.key.iter().chain(modified_at).chain(whole).chain(fields.iter().map(|(_, value)| value)).chain(flag)
    }

    /// Whether any of them reads the headers an item came with.
    pub fn reads_headers(&self) -> bool {
        self.expressions().any(Expr::reads_headers)
    }
}
