//! `/v1/changes`: every change with what was before and after. Four ways to read it: a page, a page that waits (`wait=20s`),
//! lines (`Accept: application/x-ndjson`) and server-sent events (`Accept: text/event-stream`).

use crate::admission::{Holder, Share};
use crate::api::Api;
use crate::api::cluster::target::{owner_of, refused};
use crate::api::feed::{Feed, FeedPage, FeedRow};
use crate::api::routes::Routes;
use crate::api::selection::{FOLLOW_ONE, NAMES, SELECTED, selection};
use crate::engine::fault::pass;
use crate::engine::model::{Action, Cursor, Position, Timestamp};
use crate::http::answers::{counted, json, quote_plain};
use crate::http::auth::Caller;
use crate::http::error::Refusal;
use crate::http::query::{QueryFields, header};
use crate::telemetry::record;
use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::{RawQuery, State};
use axum::http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use std::collections::VecDeque;
use std::time::Duration;
use tokio::sync::watch;

/// Most changes of a page.
const LIMIT_MAX: u64 = 10_000;

/// Changes of a page if nothing is said.
const LIMIT: u64 = 100;

/// Longest wait of a long poll.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// Silence after which a server-sent comment keeps the way open.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// How long one stream of server-sent events lasts; the client comes back with its last id.
const STREAM_MAX: Duration = Duration::from_secs(3_600);

/// A page's changes are there twice while they are put together.
const PAGE_COPIES: usize = 2;

/// Why a reader has to begin anew: records were dropped on request.
const EMPTIED: &str = "emptied";

pub(super) fn routes() -> Routes {
    Routes::new().get("/v1/changes", changes, owner_of(SELECTED).or(refused(FOLLOW_ONE)))
}

/// A checked query.
struct ChangesQuery {
    feed: Feed,
    after: Cursor,
    wait: Duration,
    holders: [Holder; 2],
}

async fn changes(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let accepts = |kind: &str| header(&headers, ACCEPT.as_str()).is_some_and(|accept| accept.contains(kind));
    let (lines, events) = (accepts("application/x-ndjson"), accepts("text/event-stream"));
    let resumed = header(&headers, "last-event-id").filter(|_| events);
    let ask = ask(&api, &caller, query.as_deref(), resumed)?;
    let turn = match events || lines || ask.wait > Duration::ZERO {
        true => Some(api.http.bounds.waits.take(ask.holders, 1).ok_or_else(too_many_wait)?),
        false => None,
    };
    if events {
        return Ok(stream_of(api, ask, StreamForm::Events, turn));
    }
    if lines {
        return Ok(stream_of(api, ask, StreamForm::Lines, turn));
    }
    let page = waited(&api, &ask).await?;
    Ok(json(write_page(&ask.feed, page)))
}

fn too_many_wait() -> Refusal {
    record::answer_refused();
    Refusal::busy(
        "overloaded",
        "too many readers wait for changes already, of this key or in all; ask again without `wait`",
    )
}

fn ask(api: &Api, caller: &Caller, raw: Option<&str>, resumed: Option<String>) -> Result<ChangesQuery, Refusal> {
    let known: Vec<&str> = NAMES.into_iter().chain(["action", "cursor", "limit", "wait"]).collect();
    let mut query = QueryFields::read(raw, &known);
    let selection = selection(api, caller, &mut query);
    let actions = actions(&mut query);
    let limit = query.limit(LIMIT, LIMIT_MAX);
    let wait = wait(&mut query);
    let cursor = resumed.or(query.one("cursor"));
    query.done()?;
    let feed =
        Feed { engine: api.app.engine.clone(), environment: caller.environment.clone(), selection, actions, limit };
    let after = match cursor.as_deref() {
        None | Some("earliest") => feed.earliest(),
        Some("now") => feed.now(),
        Some(text) => {
            let place = feed.place(text).map_err(|error| Refusal::bad("invalid_cursor", error.to_string()))?;
            if feed.emptied_since(place)? {
                return Err(Refusal::must_refetch(EMPTIED));
            }
            place
        }
    };
    Ok(ChangesQuery { feed, after, wait, holders: caller.holders() })
}

fn actions(query: &mut QueryFields) -> Vec<Action> {
    let mut actions = Vec::new();
    for word in query.all("action").iter().flat_map(|text| text.split(',')) {
        match word {
            "added" | "ADDED" => actions.push(Action::Added),
            "updated" | "UPDATED" => actions.push(Action::Updated),
            "deleted" | "DELETED" => actions.push(Action::Deleted),
            _ => {
                query.fault("invalid_string", &["action"], "a comma list of added, updated, deleted is wanted");
                break;
            }
        }
    }
    actions.sort();
    actions.dedup();
    actions
}

/// `wait`: `500ms`, `20s`, `1m`, at most a minute.
fn wait(query: &mut QueryFields) -> Duration {
    let Some(text) = query.one("wait") else { return Duration::ZERO };
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let span = number.parse::<u64>().ok().and_then(|n| match unit {
        "ms" => Some(Duration::from_millis(n)),
        "s" => Some(Duration::from_secs(n)),
        "m" => Some(Duration::from_secs(n.saturating_mul(60))),
        _ => None,
    });
    match span.filter(|span| *span <= WAIT_MAX) {
        Some(span) => span,
        None => {
            query.fault("invalid_string", &["wait"], "a span such as 500ms, 20s or 1m is wanted, at most 60s");
            Duration::ZERO
        }
    }
}

/// The next page; if it would be empty, the first one within the wait.
async fn waited(api: &Api, ask: &ChangesQuery) -> Result<FeedPage, Refusal> {
    let clock = api.app.engine.clock();
    let until = clock.now().plus(ask.wait);
    let mut watermark = api.app.engine.watermark();
    let mut after = ask.after;
    loop {
        watermark.mark_unchanged();
        let mut page = read(api, ask, after, PAGE_COPIES).await?.ok_or_else(|| Refusal::must_refetch(EMPTIED))?;
        if !page.rows.is_empty() || clock.now() >= until {
            return Ok(page);
        }
        after = page.next;
        // Nothing is held while it waits.
        page.memory.shrink_to(0);
        if commit(api, &mut watermark, until).await != Woken::Commit {
            return Ok(page);
        }
    }
}

/// The changes after a place; `None` if something of the selection was dropped on request since.
async fn read(api: &Api, ask: &ChangesQuery, after: Cursor, copies: usize) -> Result<Option<FeedPage>, Refusal> {
    let feed = ask.feed.clone();
    let memory = api.http.memory(ask.holders).await?;
    let read = move || {
        let page = feed.read(after, memory, copies)?;
        pass("api.cursor_read");
        // Asked after the reading: what was dropped meanwhile may be what made the page empty.
        Ok(if feed.emptied_since(after)? { Ok(None) } else { page.map(Some) })
    };
    Ok(api.read(read).await??)
}

/// What ended a wait.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Woken {
    /// Something was committed.
    Commit,
    /// The time is over.
    Time,
    /// The server stops.
    Stop,
}

/// Waits for a commit, at most until a time.
async fn commit(api: &Api, watermark: &mut watch::Receiver<Position>, until: Timestamp) -> Woken {
    let clock = api.app.engine.clock();
    tokio::select! {
        moved = watermark.changed() => if moved.is_ok() { Woken::Commit } else { Woken::Stop },
        () = clock.sleep_until(until) => Woken::Time,
        () = api.stopping.cancelled() => Woken::Stop,
    }
}

fn write_page(feed: &Feed, page: FeedPage) -> Bytes {
    let size: usize = page.rows.iter().map(|row| row.json.len() + 1).sum();
    let mut out = Vec::with_capacity(size + 256);
    out.extend_from_slice(b"{\"changes\":[");
    for (at, row) in page.rows.into_iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        out.extend_from_slice(&row.json);
    }
    out.extend_from_slice(b"],\"cursor\":");
    quote_plain(&mut out, &feed.text(page.next));
    out.extend_from_slice(if page.up_to_date { b",\"up_to_date\":true}" } else { b",\"up_to_date\":false}" });
    counted(out, page.memory)
}

/// How a stream is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum StreamForm {
    /// One change a line, then a control line; ends when everything was read.
    Lines,
    /// Server-sent events; goes on with what comes.
    Events,
}

/// A stream under way.
struct Flow {
    api: Api,
    ask: ChangesQuery,
    form: StreamForm,
    watermark: watch::Receiver<Position>,
    /// The page being sent, row by row, so that a slow reader holds no more than one.
    rows: VecDeque<FeedRow>,
    /// The memory of these rows.
    memory: Share,
    /// The place to tell once the rows are sent.
    caught_up: Option<Cursor>,
    /// The reader knows that it has everything.
    quiet: bool,
    until: Timestamp,
    over: bool,
    #[expect(dead_code, reason = "held until the stream ends")]
    turn: Option<Share>,
}

fn stream_of(api: Api, ask: ChangesQuery, form: StreamForm, turn: Option<Share>) -> Response {
    let until = api.app.engine.clock().now().plus(STREAM_MAX);
    let watermark = api.app.engine.watermark();
    let rows = VecDeque::new();
    let memory = api.http.bounds.answers.share(ask.holders);
    let flow =
        Flow { api, ask, form, watermark, rows, memory, caught_up: None, quiet: false, until, over: false, turn };
    let parts = stream::unfold(flow, |mut flow| async move {
        let part = flow.next().await?;
        Some((part, flow))
    });
    let mut response = Body::from_stream(parts).into_response();
    let kind = match form {
        StreamForm::Lines => "application/x-ndjson",
        StreamForm::Events => "text/event-stream",
    };
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

impl Flow {
    /// The next piece of the body.
    async fn next(&mut self) -> Option<Result<Bytes, std::io::Error>> {
        loop {
            if let Some(row) = self.rows.pop_front() {
                pass("api.stream_half");
                return Some(Ok(self.change(row)));
            }
            if let Some(cursor) = self.caught_up.take() {
                self.over = self.form == StreamForm::Lines;
                self.quiet = true;
                return Some(Ok(self.up_to_date(cursor)));
            }
            let clock = self.api.app.engine.clock();
            if self.over || clock.now() >= self.until {
                return None;
            }
            self.watermark.mark_unchanged();
            // The status is sent already: of a failure an early end is all a reader can be told.
            let Ok(read) = read(&self.api, &self.ask, self.ask.after, 1).await else {
                return Some(Err(std::io::Error::other("the change stream ended early")));
            };
            let Some(mut page) = read else {
                self.over = true;
                return Some(Ok(self.must_refetch()));
            };
            self.ask.after = page.next;
            page.memory.shrink_to(page.rows.iter().map(|row| row.json.capacity()).sum());
            self.memory = page.memory;
            if !page.rows.is_empty() || !self.quiet {
                self.caught_up = page.up_to_date.then_some(page.next);
                self.quiet = false;
                self.rows = page.rows.into();
                continue;
            }
            let beat = clock.now().plus(HEARTBEAT).min(self.until);
            match commit(&self.api, &mut self.watermark, beat).await {
                Woken::Commit => {}
                Woken::Time => return Some(Ok(Bytes::from_static(b":\n\n"))),
                Woken::Stop => return None,
            }
        }
    }

    fn change(&mut self, row: FeedRow) -> Bytes {
        let memory = self.memory.split(row.json.capacity());
        match self.form {
            StreamForm::Lines => {
                let mut line = row.json;
                line.reserve_exact(1);
                line.push(b'\n');
                counted(line, memory)
            }
            StreamForm::Events => counted(event("change", &row.cursor, &row.json), memory),
        }
    }

    fn up_to_date(&self, at: Cursor) -> Bytes {
        let cursor = self.ask.feed.text(at);
        let control = format!("{{\"control\":\"up_to_date\",\"cursor\":\"{cursor}\"}}");
        match self.form {
            StreamForm::Lines => format!("{control}\n").into(),
            StreamForm::Events => event("up_to_date", &cursor, control.as_bytes()).into(),
        }
    }

    /// The last word of a stream. As an event it has no id: who comes back with the id before it is refused.
    fn must_refetch(&self) -> Bytes {
        let control = format!("{{\"control\":\"must_refetch\",\"reason\":\"{EMPTIED}\"}}");
        match self.form {
            StreamForm::Lines => format!("{control}\n").into(),
            StreamForm::Events => format!("event: must_refetch\ndata: {control}\n\n").into(),
        }
    }
}

/// One server-sent event. Payloads are JSON on one line: line breaks in texts are escaped there.
fn event(name: &str, cursor: &str, json: &[u8]) -> Vec<u8> {
    let mut out = format!("event: {name}\nid: {cursor}\ndata: ").into_bytes();
    out.extend_from_slice(json);
    out.extend_from_slice(b"\n\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_spans_of_at_most_a_minute() {
        let read = |raw: &str| {
            let mut query = QueryFields::read(Some(raw), &["wait"]);
            let span = wait(&mut query);
            query.done().map(|()| span)
        };
        assert_eq!(read("wait=20s").ok(), Some(Duration::from_secs(20)));
        assert_eq!(read("wait=1m").ok(), Some(Duration::from_secs(60)));
        assert_eq!(read("wait=250ms").ok(), Some(Duration::from_millis(250)));
        for bad in ["wait=61s", "wait=2m", "wait=20", "wait=s", "wait=", "wait=99999999999999999999s"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn events_carry_their_cursor() {
        assert_eq!(event("change", "AQ", b"{}"), b"event: change\nid: AQ\ndata: {}\n\n");
    }
}
