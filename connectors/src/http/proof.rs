//! The proof of a list: whether everything its pages stated about its end and size agrees with where reading stopped.
//!
//! Promises: while any statement says that more follows, the list goes on; two statements that disagree are a doubt, and a
//! list with a doubt deletes nothing; a list always ends. `docs/semantics.md` has the table. Pure.

use super::paginate::PageToken;
use super::statements::Statements;
use crate::definition::{Paginate, Request};
use serde::{Deserialize, Serialize};
use syncline_engine::fault;

/// Pages in a row without items after which a list is left, whatever is said of pages beyond.
pub const EMPTY_PAGES_MAX: u32 = 3;

/// What is known of a list so far.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Proof {
    /// Items read.
    pub read: u64,
    /// Distinct ones of them.
    pub distinct: u64,
    /// Pages in a row with items, but without a new one.
    pub stale: u32,
    /// Pages in a row without items.
    empty: u32,
    first_total: Option<u64>,
    last_total: Option<u64>,
    greatest_total: Option<u64>,
    /// The greatest number of a last page that was stated.
    last_page: Option<u64>,
}

/// What the API's own count says of a list that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CountVerdict {
    /// There is none.
    Unstated,
    /// It is what was read, from the first page to the last.
    Steady,
    /// It rose while the list was read, and all of it was read.
    Rose,
    /// It fell while the list was read, to what was read. The records in between are gone, or the last count is wrong.
    Fell,
    /// It is not what was read.
    Wrong {
        /// The count.
        total: u64,
        /// Distinct items read.
        distinct: u64,
    },
}

/// A page that is judged.
pub struct Judged<'a> {
    /// The request the list is read by.
    pub request: &'a Request,
    /// Where the page stands.
    pub spot: &'a PageToken,
    /// What it states.
    pub page: &'a Statements,
    /// Items on it that were not read before; `None` if that is not known.
    pub fresh: Option<u64>,
    /// Which page it is, for people.
    pub name: &'a str,
}

impl Proof {
    /// Takes a page in. Gives where the list goes on, if it does, and adds to `doubts` what does not fit together.
    pub fn step(&mut self, judged: &Judged<'_>, doubts: &mut Vec<String>) -> Option<PageToken> {
        self.count(judged);
        let Judged { request, page, name, .. } = judged;
        doubts.extend(page.unclear.iter().cloned());
        if let Some(status) = page.part {
            let treatment = if page.items == 0 { "ignore" } else { "take" };
            doubts.push(format!(
                "partial_answer: {name} answered {status}, which is not the status of a whole answer; \
                 if it is one here, write responses: [{{status: {status}, do: {treatment}}}]"
            ));
        }
        if page.items > 0 && judged.fresh == Some(0) {
            doubts.push(format!("repeated_page: {name} brought only items that were read before"));
        }
        match &request.paginate {
            Paginate::Offset { .. } | Paginate::Page { .. } => self.counted(judged, doubts),
            _ => self.named(judged, doubts),
        }
    }

    fn count(&mut self, judged: &Judged<'_>) {
        let (page, fresh) = (judged.page, judged.fresh);
        self.first_total = if self.read == 0 { page.total } else { self.first_total };
        // A page that counts nothing takes nothing back: what was said before still has to be met.
        self.last_total = page.total.or(self.last_total);
        self.greatest_total = self.greatest_total.max(page.total);
        self.last_page = self.last_page.max(page.last);
        self.read += page.items;
        self.distinct += fresh.unwrap_or(0);
        self.stale = if page.items > 0 && fresh == Some(0) { self.stale + 1 } else { 0 };
        self.empty = if page.items == 0 { self.empty + 1 } else { 0 };
    }

    /// The way on where pages or items are counted.
    fn counted(&self, judged: &Judged<'_>, doubts: &mut Vec<String>) -> Option<PageToken> {
        let Judged { request, spot, page, name, .. } = judged;
        if page.items == 0 && fault::planted("empty_page_ends_the_list") {
            return None;
        }
        let number = number(&request.paginate, spot);
        let goes = self.goes(page, number);
        let stops = self.stops(judged, number, goes.is_some());
        if let (Some(stops), Some(goes)) = (&stops, &goes) {
            doubts.push(format!("end_mismatch: {stops} on {name}, but {goes}"));
        }
        doubts.extend(self.misnumbered(judged, number));
        if stops.is_some() && goes.is_none() {
            return None;
        }
        if self.given_up(request) {
            if drops(request) {
                doubts.push(format!(
                    "filtered_page: `items` may have left out all of {name} and {EMPTY_PAGES_MAX} pages in a row have \
                     none, which proves no end; select with `where` instead"
                ));
            }
            return None;
        }
        beyond(&request.paginate, spot, page.items)
    }

    /// A page that does not fit the number of the last one: empty before it, or not empty behind it.
    fn misnumbered(&self, judged: &Judged<'_>, number: Option<u64>) -> Option<String> {
        let Judged { request, page, name, .. } = judged;
        let (number, last) = (number?, self.last_page?);
        let first = if let Paginate::Page { start, .. } = &request.paginate { *start } else { 0 };
        let stated = page.last.unwrap_or(last);
        if page.items > 0 && stated < number {
            return Some(format!("end_mismatch: {name} has items, but `last` says that page {stated} is the last"));
        }
        // The list of nothing has a first page as well.
        let empty = page.items == 0 && number == last && number > first;
        (empty && !request.empty_pages)
            .then(|| format!("empty_page: {name} has no items, but `last` says that there is a page {last}"))
    }

    /// The way on where each page names the next one.
    fn named(&self, judged: &Judged<'_>, doubts: &mut Vec<String>) -> Option<PageToken> {
        let Judged { request, page, name, .. } = judged;
        // A keyset always has a token: where `more` is read, its no is the end.
        let next = page.next.clone().filter(|_| page.more != Some(false));
        if next.is_some() && page.items == 0 && !request.empty_pages {
            doubts.push(format!(
                "empty_page: {name} has no items, but pages follow; \
                 where the API gives such pages, write empty_pages: true in paginate"
            ));
        }
        if next.is_none() && page.link {
            doubts.push(format!("end_mismatch: the list ends with {name}, but a `Link` header names a next page"));
        }
        next.filter(|_| !self.given_up(request))
    }

    /// What says that the list ends with this page.
    fn stops(&self, judged: &Judged<'_>, number: Option<u64>, goes: bool) -> Option<String> {
        let Judged { request, page, .. } = judged;
        // One that `items` may have emptied ends nothing, but does not go together with what leads on from it either.
        let ends = if goes { !request.empty_pages } else { !drops(request) };
        if page.items == 0 && ends {
            return Some("there are no items".to_owned());
        }
        if let Some(total) = page.total.filter(|total| self.distinct >= *total) {
            return Some(format!("the total of {total} is reached"));
        }
        if let Some(last) = page.last.filter(|last| number.is_some_and(|number| number >= *last)) {
            return Some(format!("`last` says that page {last} is the last"));
        }
        if page.more == Some(false) {
            return Some("`more` says that nothing follows".to_owned());
        }
        let full = match &request.paginate {
            Paginate::Offset { size, short_page_ends: true, .. } => Some(*size),
            Paginate::Page { size, short_page_ends: true, .. } => *size,
            _ => None,
        };
        full.filter(|size| page.items < *size && !drops(request))
            .map(|size| format!("there are fewer items than {size}"))
    }

    /// What says that the list goes on behind this page.
    fn goes(&self, page: &Statements, number: Option<u64>) -> Option<String> {
        if page.more == Some(true) {
            return Some("`more` says that more follows".to_owned());
        }
        if let Some(last) = self.last_page.filter(|last| number.is_some_and(|number| number < *last)) {
            return Some(format!("`last` said that page {last} is the last"));
        }
        page.link.then(|| "a `Link` header names a next page".to_owned())
    }

    /// Whether too many pages in a row had no items. Where they are usual, `max_pages` is the bound.
    fn given_up(&self, request: &Request) -> bool {
        self.empty >= EMPTY_PAGES_MAX && !request.empty_pages
    }

    /// What the counts say, once the list has ended.
    pub fn tally(&self) -> CountVerdict {
        let distinct = self.distinct;
        match self.last_total {
            None => CountVerdict::Unstated,
            Some(total) if total != distinct => CountVerdict::Wrong { total, distinct },
            Some(_) if self.greatest_total > Some(distinct) => CountVerdict::Fell,
            last if self.first_total == last => CountVerdict::Steady,
            Some(_) => CountVerdict::Rose,
        }
    }
}

/// The page after one at `spot` with so many items, where pages or items are counted.
pub fn beyond(paginate: &Paginate, spot: &PageToken, items: u64) -> Option<PageToken> {
    match paginate {
        Paginate::Page { .. } => number(paginate, spot).map(|number| PageToken::Page(number.saturating_add(1))),
        Paginate::Offset { size, .. } => {
            let so_far = if let PageToken::Offset(so_far) = spot { *so_far } else { 0 };
            // By the items that came, not by those asked for: an API that gives fewer than asked would be read with gaps.
            let step = if items > 0 { items } else { *size };
            Some(PageToken::Offset(so_far.saturating_add(step)))
        }
        _ => None,
    }
}

/// The number of the page at `spot`, where pages are counted.
fn number(paginate: &Paginate, spot: &PageToken) -> Option<u64> {
    match (paginate, spot) {
        (Paginate::Page { .. }, PageToken::Page(number)) => Some(*number),
        (Paginate::Page { start, .. }, _) => Some(*start),
        _ => None,
    }
}

/// Whether a page without items may have had some before `items` was applied.
fn drops(request: &Request) -> bool {
    request.items.as_ref().is_some_and(|items| items.drops())
}
