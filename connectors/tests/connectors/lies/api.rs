//! An API that lists what it holds, page by page, in one of many manners, and may lie about it.
//!
//! [`Api::safe`] is the table of `docs/semantics.md` once more, written down independently: whether a lie costs nothing, or
//! leaves a contradiction that can be seen. Lies that leave none cannot be told from the truth and are not told.

use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use syncline_engine::time::Chance;

/// How pages follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Style {
    One,
    LinkHeader,
    OwnHeader,
    BodyLink,
    Cursor,
    Keyset,
    Offset,
    Page,
}

/// Counted pages and offsets twice, as more can be said of them.
pub const STYLES: [Style; 10] = [
    Style::One,
    Style::LinkHeader,
    Style::OwnHeader,
    Style::BodyLink,
    Style::Cursor,
    Style::Keyset,
    Style::Offset,
    Style::Page,
    Style::Offset,
    Style::Page,
];

/// Where a statement stands, and in which clothes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Absent,
    Plain,
    Text,
    Header,
}

/// What a lie is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Data,
    /// Nothing is said any more, which is no lie, but hides one.
    Silence,
    Total,
    Last,
    More,
    Next,
}

/// A lie; pages are counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    Empty(u64),
    Short(u64),
    Repeat(u64),
    Status(u64, u16),
    /// Only the first page counts.
    TotalOnce,
    /// On one page, or on all.
    Total(Option<u64>, u64),
    Last(Option<u64>, u64),
    More(u64, bool),
    NextGone(u64),
    LinkToo(u64),
}

impl Lie {
    pub fn kind(self) -> Kind {
        match self {
            Lie::Empty(_) | Lie::Short(_) | Lie::Repeat(_) | Lie::Status(..) => Kind::Data,
            Lie::TotalOnce => Kind::Silence,
            Lie::Total(..) => Kind::Total,
            Lie::Last(..) => Kind::Last,
            Lie::More(..) => Kind::More,
            Lie::NextGone(_) | Lie::LinkToo(_) => Kind::Next,
        }
    }

    fn on(page: Option<u64>, k: u64) -> bool {
        page.is_none_or(|page| page == k)
    }
}

/// The manners of an API, and how a definition reads it.
#[derive(Clone, Debug)]
pub struct Api {
    pub style: Style,
    pub size: u64,
    pub start: u64,
    pub total: Form,
    pub last: Form,
    pub more: Form,
    /// A `Link` header besides.
    pub link: bool,
    pub short_page_ends: bool,
    /// `items` selects.
    pub selects: bool,
    pub conditional: bool,
    pub confirm: &'static str,
    pub fetch: bool,
}

/// A request for a page.
pub struct Asked<'a> {
    pub param: &'a dyn Fn(&str) -> Option<String>,
}

/// A page as it goes out.
#[derive(Clone, Debug)]
pub struct Page {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Option<Value>,
}

fn pick<T: Copy>(chance: &mut Chance, from: &[T]) -> T {
    from[(chance.number() % from.len() as u64) as usize]
}

pub fn below(chance: &mut Chance, most: u64) -> u64 {
    chance.number() % most.max(1)
}

impl Api {
    pub fn new(chance: &mut Chance, style: Style) -> Api {
        use Form::{Absent, Header, Plain, Text};
        let counted = matches!(style, Style::Offset | Style::Page);
        let flagged = counted || matches!(style, Style::Cursor | Style::Keyset);
        let confirm = pick(chance, &["auto", "none", "twice", "fetch"]);
        Api {
            style,
            size: if style == Style::One { 1_000 } else { 1 + below(chance, 3) },
            start: below(chance, 2),
            total: pick(chance, &[Absent, Absent, Absent, Plain, Text, Header]),
            last: if style == Style::Page {
                pick(chance, &[Absent, Absent, Absent, Plain, Text, Header])
            } else {
                Absent
            },
            more: if flagged { pick(chance, &[Absent, Absent, Absent, Plain, Text, Header]) } else { Absent },
            link: style != Style::LinkHeader && below(chance, 4) == 0,
            short_page_ends: counted && below(chance, 3) == 0,
            selects: below(chance, 4) == 0,
            conditional: below(chance, 3) == 0,
            confirm,
            fetch: confirm == "fetch" || confirm == "auto" && below(chance, 2) == 0,
        }
    }

    fn counted(&self) -> bool {
        matches!(self.style, Style::Offset | Style::Page)
    }

    /// The definition a user would write for it.
    pub fn definition(&self) -> String {
        let at = |name: &str, form: Form| match form {
            Form::Header => format!("'$h[\"x-{name}\"]'"),
            _ => format!(".{name}"),
        };
        let says = |name: &str, form: Form| match form {
            Form::Absent => String::new(),
            form => format!(", {name}: {}", at(name, form)),
        };
        let ends = match self.short_page_ends {
            true if self.style == Style::Page => format!(", short_page_ends: true, size: {}", self.size),
            true => ", short_page_ends: true".to_string(),
            false => String::new(),
        };
        let (more, last) = (says("more", self.more), says("last", self.last));
        let paginate = match self.style {
            Style::One => "none".to_string(),
            Style::LinkHeader => "link".to_string(),
            Style::OwnHeader => "{link: '$h[\"next-page\"]'}".to_string(),
            Style::BodyLink => "{link: .next}".to_string(),
            Style::Cursor => format!("{{cursor: .next, param: after{more}}}"),
            Style::Keyset => format!("{{cursor: '.data[-1].id', param: after{more}}}"),
            Style::Offset => format!("{{offset: skip, limit: take, size: {}{more}{ends}}}", self.size),
            Style::Page => format!("{{page: page, start: {}{last}{more}{ends}}}", self.start),
        };
        let items = if self.selects { "'.data[] | select(.ok)'" } else { ".data" };
        let total = says("total", self.total);
        let fetch = if self.fetch { "  fetch: {get: '/f/{{ key }}'}\n" } else { "" };
        format!(
            "source: acme\nbase_url: https://api.acme.example\n\
             limits: {{conditional: {}, retry: {{max: 2, backoff: 1ms..1ms}}}}\nstreams:\n- name: Thing\n  key: .id\n  \
             list: {{get: /q, items: {items}{total}, paginate: {paginate}}}\n{fetch}  \
             deletes: [{{from_full_list: true, confirm: {}}}]\n",
            self.conditional, self.confirm
        )
    }

    /// Whether a listing that tells the truth can be proven at all, as it is defined.
    pub fn provable(&self) -> bool {
        let ends = [self.total, self.last, self.more].iter().any(|form| *form != Form::Absent);
        !(self.selects && self.counted()) || ends
    }

    /// How many pages a list of so many items has.
    pub fn pages(&self, items: u64) -> u64 {
        items.div_ceil(self.size).max(1)
    }

    /// Which page is asked for, and its items.
    fn place(&self, asked: &Asked<'_>, truth: &[u64]) -> (u64, usize) {
        let number = |name: &str| (asked.param)(name).and_then(|text| text.parse::<u64>().ok());
        let from = match self.style {
            Style::One => 0,
            Style::LinkHeader | Style::OwnHeader | Style::BodyLink => number("p").unwrap_or(0) * self.size,
            Style::Cursor => number("after").unwrap_or(0) * self.size,
            Style::Keyset => {
                let after = number("after").unwrap_or(0);
                truth.iter().take_while(|id| **id <= after).count() as u64
            }
            Style::Offset => number("skip").unwrap_or(0),
            Style::Page => number("page").unwrap_or(self.start).saturating_sub(self.start) * self.size,
        };
        (from / self.size, from as usize)
    }

    /// The answer to a request, with these lies on it.
    pub fn page(&self, asked: &Asked<'_>, truth: &[u64], lies: &[Lie]) -> Page {
        let (k, from) = self.place(asked, truth);
        let (size, n) = (self.size as usize, truth.len() as u64);
        let cut = |from: usize| truth.iter().skip(from).take(size).copied().collect::<Vec<u64>>();
        let mut ids = cut(from);
        let follows = from + size < truth.len();
        let (mut total, mut last, mut more) = (n, self.start + self.pages(n) - 1, follows);
        let mut counts = true;
        let (mut next, mut link, mut status) = (follows, follows && self.link, 200);
        for lie in lies {
            match *lie {
                Lie::Empty(at) if at == k => ids.clear(),
                // Asked for again from where it was cut, it is whole.
                Lie::Short(at) if at * self.size == from as u64 => _ = ids.pop(),
                Lie::Repeat(at) if at == k => ids = cut(from.saturating_sub(size)),
                Lie::Status(at, code) if at == k => {
                    status = code;
                    ids.truncate(ids.len() / 2);
                }
                Lie::TotalOnce => counts = k == 0,
                Lie::Total(at, value) if Lie::on(at, k) => total = value,
                Lie::Last(at, value) if Lie::on(at, k) => last = value,
                Lie::More(at, value) if at == k => more = value,
                Lie::NextGone(at) if at == k => next = false,
                Lie::LinkToo(at) if at == k => link = true,
                _ => {}
            }
        }
        let mut page = Page { status, headers: Vec::new(), body: None };
        let mut body = Map::new();
        body.insert("data".into(), ids.iter().map(|id| json!({"id": id, "ok": true})).collect());
        let mut say = |name: &'static str, header: &'static str, form: Form, value: Value| match form {
            Form::Absent => {}
            Form::Plain => _ = body.insert(name.into(), value),
            Form::Text => _ = body.insert(name.into(), value.to_string().into()),
            Form::Header => page.headers.push((header, value.to_string())),
        };
        say("total", "X-Total", if counts { self.total } else { Form::Absent }, json!(total));
        say("last", "X-Last", self.last, json!(last));
        say("more", "X-More", self.more, json!(more));
        let way = format!("q?p={}", k + 1);
        match self.style {
            Style::LinkHeader if next => page.headers.push(("Link", format!("<{way}>; rel=\"next\""))),
            Style::OwnHeader if next => page.headers.push(("Next-Page", way.clone())),
            Style::BodyLink => _ = body.insert("next".into(), if next { json!(way) } else { Value::Null }),
            Style::Cursor => {
                _ = body.insert("next".into(), if next { json!((k + 1).to_string()) } else { Value::Null })
            }
            _ => {}
        }
        if link && self.style != Style::LinkHeader {
            page.headers.push(("Link", format!("<{way}>; rel=\"next\"")));
        }
        page.body = (!matches!(status, 204 | 205)).then(|| Value::Object(body));
        page
    }

    /// A lie about a list of `n` items.
    pub fn lie(&self, chance: &mut Chance, n: u64) -> Lie {
        let pages = self.pages(n);
        let k = below(chance, pages);
        let at = |chance: &mut Chance| (below(chance, 2) == 0).then_some(k);
        // What would end the list with this very page is the lie that does harm.
        let harmful = below(chance, 2) == 0;
        let (total, last) = if harmful {
            (n.min((k + 1) * self.size), self.start + k)
        } else {
            (below(chance, n + 3), self.start + below(chance, pages + 2))
        };
        match below(chance, 10) {
            0 => Lie::Empty(k),
            1 => Lie::Short(k),
            2 => Lie::Repeat(k),
            3 => Lie::Status(k, pick(chance, &[202, 204, 205, 206])),
            4 => Lie::Total(at(chance), total),
            5 => Lie::Last(at(chance), last),
            6 => Lie::More(k, below(chance, 2) == 0),
            7 => Lie::NextGone(k),
            8 => Lie::TotalOnce,
            _ => Lie::LinkToo(k),
        }
    }

    /// The same API without a kind of statement.
    pub fn without(&self, kind: Kind) -> Api {
        let mut api = self.clone();
        match kind {
            Kind::Data | Kind::Silence => {}
            Kind::Total => api.total = Form::Absent,
            Kind::Last => api.last = Form::Absent,
            Kind::More => api.more = Form::Absent,
            Kind::Next => api.link = false,
        }
        api
    }

    /// Whether a lie about a list of `n` items takes nothing away, or can be seen.
    pub fn safe(&self, lie: Lie, n: u64) -> bool {
        let (size, final_page) = (self.size, self.pages(n) - 1);
        let (total, last) = (self.total != Form::Absent, self.last != Form::Absent);
        let (more, link) = (self.more != Form::Absent, self.link);
        let says_more = last || more || link;
        let read = |k: u64| n.min((k + 1) * size);
        match lie {
            Lie::Empty(k) => match self.style {
                Style::One => total,
                Style::LinkHeader | Style::OwnHeader | Style::BodyLink | Style::Cursor => k < final_page || total,
                Style::Keyset => total || k < final_page && (more || link),
                Style::Offset | Style::Page if k < final_page => total || says_more || self.selects,
                Style::Offset => total || self.selects && !more,
                Style::Page => total || last && k > 0 || self.selects && !more && !last,
            },
            Lie::Short(k) => match self.style {
                _ if size < 2 || read(k) - k * size < 2 => false,
                Style::Page => total || self.short_page_ends && !self.selects && k < final_page && says_more,
                Style::Offset if self.short_page_ends && !self.selects => total || k < final_page && (more || link),
                Style::Offset | Style::Keyset => total || k < final_page,
                _ => total,
            },
            Lie::Repeat(k) => k > 0,
            Lie::Status(..) => true,
            Lie::TotalOnce => true,
            Lie::Total(at, value) => {
                let lied = |k: u64| at.is_none_or(|at| at == k);
                let stops = (0..final_page).find(|k| lied(*k) && value <= read(*k));
                match stops.filter(|_| self.counted()) {
                    None => true,
                    Some(k) => value != read(k) || says_more || at.is_some() && k > 0,
                }
            }
            Lie::Last(at, value) => match at {
                Some(k) if k > 0 => true,
                Some(_) => value > self.start || final_page == 0 || total || more || link,
                None => value >= self.start + final_page || total || more || link,
            },
            Lie::More(k, yes) => yes || k == final_page || total || last || link,
            Lie::NextGone(k) => k == final_page || total || more || link,
            Lie::LinkToo(_) => true,
        }
    }
}

/// A list to begin with, and what has become of it: ids in order.
pub fn world(chance: &mut Chance) -> (Vec<u64>, Vec<u64>) {
    let before: BTreeSet<u64> = (0..2 + below(chance, 9)).map(|n| 10 * (n + 1)).collect();
    let mut after: BTreeSet<u64> = before.iter().copied().filter(|_| below(chance, 4) > 0).collect();
    for _ in 0..below(chance, 3) {
        after.insert(1 + below(chance, 120));
    }
    (before.into_iter().collect(), after.into_iter().collect())
}
