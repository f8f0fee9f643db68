//! Lists of a whole cluster that are read page by page: each owner has its own part of the page.
//!
//! Promises: a page holds what it would hold with one process, and each entry stands on exactly one of them.

/// Where an entry stands: each part by length, then by text, as the store orders them.
pub(crate) type PageOrder = Vec<(usize, String)>;

/// One part of a place.
pub(crate) fn part_of_order(text: &str) -> (usize, String) {
    (text.len(), text.to_owned())
}

/// A page that is cut from the pages of all owners.
pub(crate) struct MergedPage {
    order: fn(&str) -> PageOrder,
    /// The place of the last entry.
    last: Option<PageOrder>,
    /// Where the next page begins, if there is one.
    pub cursor: Option<String>,
}

impl MergedPage {
    /// Of the entries with these ids, at most `limit`; `more` says that an owner has others.
    pub(crate) fn of<'a>(
        ids: impl Iterator<Item = &'a str>,
        order: fn(&str) -> PageOrder,
        limit: usize,
        more: bool,
    ) -> MergedPage {
        let mut places: Vec<(PageOrder, &str)> = ids.map(|id| (order(id), id)).collect();
        places.sort();
        let more = more || places.len() > limit;
        places.truncate(limit);
        let last = places.pop();
        let cursor = last.as_ref().filter(|_| more).map(|(_, id)| id.to_string());
        MergedPage { order, last: last.map(|(place, _)| place), cursor }
    }

    /// Leaves what is on the page, in its order.
    pub(crate) fn cut<T>(&self, entries: &mut Vec<T>, id: fn(&T) -> &str) {
        entries.retain(|entry| self.last.as_ref().is_some_and(|last| (self.order)(id(entry)) <= *last));
        entries.sort_by_cached_key(|entry| (self.order)(id(entry)));
    }
}
