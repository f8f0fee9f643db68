//! Listings: which contacts stand on which page, and how the answer says where to go on.
//!
//! Promises: while nothing changes, the pages of each kind give every live contact exactly once. While things change they
//! do what such pages do at real providers: cursors by id miss nothing that stays, pages by number shift.

use super::generator::Draw;
use super::{Shared, World};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use syncline_engine::model::Timestamp;

const FAR: Timestamp = Timestamp(i64::MAX);

/// What a listing was asked for.
#[derive(Debug, Default)]
pub(super) struct Query {
    limit: Option<usize>,
    after: Option<String>,
    page: Option<usize>,
    offset: Option<usize>,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    sort: Option<Sort>,
    /// The other parameters of a link, as they came.
    rest: String,
}

/// In which order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sort {
    Id,
    Oldest,
    Newest,
}

/// One page, ready to be sent.
#[derive(Debug)]
pub(super) struct Listing {
    pub body: Vec<u8>,
    pub ids: Vec<u64>,
    /// `Link` header (empty on the last page) and total.
    pub link: Option<(String, u64)>,
}

impl Query {
    pub(super) fn from_text(text: &str) -> Result<Query, String> {
        let mut query = Query::default();
        let mut rest = url::form_urlencoded::Serializer::new(String::new());
        for (name, value) in url::form_urlencoded::parse(text.as_bytes()) {
            query.set(&name, &value)?;
            if name != "page" {
                rest.append_pair(&name, &value);
            }
        }
        query.rest = rest.finish();
        Ok(query)
    }

    pub(super) fn from_body(body: &[u8]) -> Result<Query, String> {
        let body: serde_json::Map<String, serde_json::Value> =
            serde_json::from_slice(body).map_err(|e| format!("the body is not a JSON object: {e}"))?;
        let mut query = Query::default();
        for (name, value) in &body {
            match value {
                serde_json::Value::Null => {}
                serde_json::Value::String(text) => query.set(name, text)?,
                other => query.set(name, &other.to_string())?,
            }
        }
        Ok(query)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        let number = || value.parse::<usize>().map_err(|_| format!("{name}={value} is not a number"));
        let time = || read_time(value).ok_or_else(|| format!("{name}={value} is not a time"));
        match name {
            "limit" | "per_page" => self.limit = Some(number()?),
            "after" => self.after = Some(value.to_owned()).filter(|v| !v.is_empty()),
            "page" => self.page = Some(number()?),
            "offset" => self.offset = Some(number()?),
            "updated_since" | "since" => self.since = Some(time()?),
            "updated_until" | "until" => self.until = Some(time()?),
            "sort" => {
                self.sort = Some(Sort::read(value).ok_or_else(|| format!("sort={value}: id, updated or -updated"))?)
            }
            _ => return Err(format!("unknown parameter {name}")),
        }
        Ok(())
    }

    fn size(&self, shared: &Shared) -> Result<usize, String> {
        let most = shared.options.page_max;
        match self.limit {
            None => Ok(most.min(100)),
            Some(n) if (1..=most).contains(&n) => Ok(n),
            Some(n) => Err(format!("limit={n} is out of range: 1 to {most}")),
        }
    }

    fn is_filtered(&self) -> bool {
        self.since.is_some() || self.until.is_some()
    }

    fn window(&self) -> (Timestamp, Timestamp) {
        (self.since.unwrap_or(Timestamp::NONE), self.until.unwrap_or(FAR))
    }

    /// All ids that match, in order.
    fn select(&self, world: &World, by_default: Sort) -> Vec<u64> {
        let (since, until) = self.window();
        let matching = world.changed(since, until, None).map(|(_, id)| id);
        match self.sort.unwrap_or(by_default) {
            Sort::Oldest => matching.collect(),
            Sort::Newest => matching.rev().collect(),
            Sort::Id if !self.is_filtered() => world.ids_after(0).collect(),
            Sort::Id => {
                let mut ids: Vec<u64> = matching.collect();
                ids.sort_unstable();
                ids
            }
        }
    }
}

impl Sort {
    fn read(text: &str) -> Option<Sort> {
        match text {
            "id" => Some(Sort::Id),
            "updated" => Some(Sort::Oldest),
            "-updated" => Some(Sort::Newest),
            _ => None,
        }
    }
}

/// `{data, total, next}`: by id, or by time of change when a window is given.
pub(super) fn by_cursor(shared: &Shared, world: &World, query: &Query) -> Result<Listing, String> {
    keyset(shared, world, query, query.is_filtered(), usize::MAX)
}

/// As [`by_cursor`], by time of change, and never beyond the cap.
pub(super) fn search(shared: &Shared, world: &World, query: &Query) -> Result<Listing, String> {
    keyset(shared, world, query, true, shared.options.search_cap)
}

/// `{data, total, pages}`.
pub(super) fn by_page(shared: &Shared, world: &World, query: &Query) -> Result<Listing, String> {
    let (size, page) = (query.size(shared)?, query.page.unwrap_or(1).max(1));
    let all = query.select(world, default_sort(shared));
    let ids = slice(&all, (page - 1).saturating_mul(size), size);
    let pages = all.len().div_ceil(size).max(1);
    Ok(wrap(shared, world, ids, &format!(",\"total\":{},\"pages\":{pages}", all.len())))
}

/// `{data, total}`.
pub(super) fn by_offset(shared: &Shared, world: &World, query: &Query) -> Result<Listing, String> {
    let all = query.select(world, default_sort(shared));
    let ids = slice(&all, query.offset.unwrap_or(0), query.size(shared)?);
    Ok(wrap(shared, world, ids, &format!(",\"total\":{}", all.len())))
}

/// The array alone; `Link` says where to go on.
pub(super) fn by_link(shared: &Shared, world: &World, query: &Query) -> Result<Listing, String> {
    let (size, page) = (query.size(shared)?, query.page.unwrap_or(1).max(1));
    let all = query.select(world, default_sort(shared));
    let ids = slice(&all, (page - 1).saturating_mul(size), size);
    let more = page.saturating_mul(size) < all.len();
    let and = if query.rest.is_empty() { "" } else { "&" };
    let link = format!("</v1/contacts/links?{}{and}page={}>; rel=\"next\"", query.rest, page + 1);
    let mut body = Vec::new();
    let ids = write(shared, world, ids, &mut body);
    Ok(Listing { body, ids, link: Some((if more { link } else { String::new() }, all.len() as u64)) })
}

/// `{data: [{id, deleted_at}], next}`.
pub(super) fn deleted(shared: &Shared, world: &World, query: &Query) -> Result<Listing, String> {
    let (size, (since, until)) = (query.size(shared)?, query.window());
    let after = query.after.as_deref().map(read_place).transpose()?;
    let mut rest = world.deleted(since, until, after.map(|p| (p.at, p.id)));
    let rows: Vec<_> = rest.by_ref().take(size).collect();
    let next = rows.last().filter(|_| rest.next().is_some());
    let data: Vec<_> =
        rows.iter().map(|(at, id)| serde_json::json!({"id": id.to_string(), "deleted_at": at.to_string()})).collect();
    let next = next.map(|(at, id)| Place { at: *at, id: *id, given: 0 }.text());
    let body = serde_json::json!({"data": data, "next": next}).to_string().into_bytes();
    Ok(Listing { body, ids: Vec::new(), link: None })
}

/// Where a cursor stands: after this contact; `given` records were handed out before.
#[derive(Clone, Copy)]
struct Place {
    at: Timestamp,
    id: u64,
    given: usize,
}

impl Place {
    fn text(self) -> String {
        URL_SAFE_NO_PAD.encode(format!("{}.{}.{}", self.at.0, self.id, self.given))
    }
}

fn read_place(text: &str) -> Result<Place, String> {
    let read = || {
        let raw = String::from_utf8(URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
        let mut parts = raw.split('.');
        let place = Place {
            at: Timestamp(parts.next()?.parse().ok()?),
            id: parts.next()?.parse().ok()?,
            given: parts.next()?.parse().ok()?,
        };
        Some(place)
    };
    read().ok_or_else(|| format!("after={text} is not a cursor of ours"))
}

fn keyset(shared: &Shared, world: &World, query: &Query, by_time: bool, cap: usize) -> Result<Listing, String> {
    let size = query.size(shared)?;
    let (since, until) = query.window();
    let place = query.after.as_deref().map(read_place).transpose()?;
    let given = place.map_or(0, |p| p.given);
    let take = size.min(cap.saturating_sub(given));
    // One more than asked for tells whether there is a next page.
    let mut rows: Vec<(Timestamp, u64)> = if by_time {
        world.changed(since, until, place.map(|p| (p.at, p.id))).take(take + 1).collect()
    } else {
        let after = place.map_or(0, |p| p.id);
        world.ids_after(after).take(take + 1).map(|id| (Timestamp(0), id)).collect()
    };
    let more = rows.len() > take && given + take < cap;
    rows.truncate(take);
    let total = if by_time { world.changed(since, until, None).count() as u64 } else { world.len() };
    let next = rows.last().filter(|_| more).map(|(at, id)| Place { at: *at, id: *id, given: given + take }.text());
    let next = next.map_or_else(|| "null".to_owned(), |text| format!("\"{text}\""));
    let ids = rows.into_iter().map(|(_, id)| id).collect();
    Ok(wrap(shared, world, ids, &format!(",\"total\":{total},\"next\":{next}")))
}

fn default_sort(shared: &Shared) -> Sort {
    if shared.options.moving { Sort::Newest } else { Sort::Id }
}

fn slice(all: &[u64], from: usize, size: usize) -> Vec<u64> {
    all.iter().skip(from).take(size).copied().collect()
}

fn wrap(shared: &Shared, world: &World, ids: Vec<u64>, tail: &str) -> Listing {
    let mut body = b"{\"data\":".to_vec();
    let ids = write(shared, world, ids, &mut body);
    body.extend_from_slice(tail.as_bytes());
    body.push(b'}');
    Listing { body, ids, link: None }
}

fn write(shared: &Shared, world: &World, mut ids: Vec<u64>, body: &mut Vec<u8>) -> Vec<u64> {
    if shared.options.shuffle {
        // Drawn from what stands on the page: an unchanged page keeps its order, and with it its validator.
        let mut draw = Draw::new(ids.iter().fold(shared.options.seed, |n, id| n.rotate_left(5) ^ id));
        for at in (1..ids.len()).rev() {
            ids.swap(at, draw.below(at as u64 + 1) as usize);
        }
    }
    body.push(b'[');
    for (n, id) in ids.iter().enumerate() {
        if n > 0 {
            body.push(b',');
        }
        world.write(*id, body);
    }
    body.push(b']');
    ids
}

fn read_time(text: &str) -> Option<Timestamp> {
    Timestamp::parse(text).or_else(|| text.parse().ok().map(Timestamp::from_millis))
}
