//! Memory of answers. All of a process share one amount of it, so that readers who read nothing cost no more than that.
//!
//! Promises: an answer takes its part while it is built and gives it back once its last byte is with the kernel; a page that
//! can be cut (it ends with a cursor) ends early where there is no more memory, any other is refused with 503; nobody is
//! refused without having waited [`PATIENCE`] for others.

use super::HttpContext;
use super::auth::Caller;
use super::error::Refusal;
use crate::admission::{Holder, Share};
use crate::telemetry::record;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt;
use std::time::Duration;

/// Most bytes of a page; a page has at least one row.
pub(crate) const PAGE_BYTES: usize = 4 << 20;

/// The type of answers.
pub(crate) const JSON: &str = "application/json; charset=utf-8";

/// Taken before anything is read.
const FIRST: usize = 64 << 10;

/// How long an answer waits for memory.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a row takes beside its payload, at most: names, a key, times, a cursor.
const ROW_EXTRA: usize = 4 << 10;

/// There is no memory for a first row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Starved;

impl From<Starved> for Refusal {
    fn from(_: Starved) -> Refusal {
        record::answer_refused();
        Refusal::busy("overloaded", "the answers on their way take all memory there is for them; ask again")
    }
}

impl HttpContext {
    /// Memory for an answer, counted for these two.
    pub(crate) async fn memory(&self, holders: [Holder; 2]) -> Result<Share, Refusal> {
        self.memory_of(holders, FIRST).await
    }

    async fn memory_of(&self, holders: [Holder; 2], bytes: usize) -> Result<Share, Refusal> {
        let had = self.bounds.answers.wait(holders, bytes, PATIENCE, &*self.clock).await;
        had.ok_or_else(|| Starved.into())
    }
}

/// A page of records being written, with the memory it takes.
pub(crate) struct PageBuffer {
    /// What is written so far.
    pub out: Vec<u8>,
    memory: Share,
    starved: bool,
}

impl PageBuffer {
    /// A page without a row.
    pub(crate) fn new(memory: Share) -> PageBuffer {
        let mut out = Vec::with_capacity(memory.amount());
        out.extend_from_slice(b"{\"records\":[");
        PageBuffer { out, memory, starved: false }
    }

    /// Whether there is room for one more row; a page has room for a first one whatever its size, if there is memory.
    pub(crate) fn has_room(&mut self, payload: usize, is_first: bool) -> bool {
        let needed = self.out.len() + payload + ROW_EXTRA;
        if needed <= self.out.capacity() {
            return true;
        }
        if needed > PAGE_BYTES && !is_first {
            return false;
        }
        let wanted = (2 * self.out.capacity()).min(PAGE_BYTES).max(needed);
        match [wanted, needed].into_iter().find(|bytes| self.memory.grow_to(*bytes)) {
            Some(bytes) => {
                self.out.reserve_exact(bytes - self.out.len());
                true
            }
            None => {
                self.starved = is_first;
                false
            }
        }
    }

    /// The page, if it could be begun, with the cursor of the next one.
    pub(crate) fn finish(mut self, next: Option<&str>) -> Result<Bytes, Starved> {
        self.out.extend_from_slice(b"],\"next_cursor\":");
        match next {
            Some(cursor) => quote_plain(&mut self.out, cursor),
            None => self.out.extend_from_slice(b"null"),
        }
        self.out.push(b'}');
        if self.starved { Err(Starved) } else { Ok(counted(self.out, self.memory)) }
    }
}

/// Text that needs no escapes, such as base64.
pub(crate) fn quote_plain(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    out.extend_from_slice(text.as_bytes());
    out.push(b'"');
}

/// Bytes with the memory they take: it is given back with the last of them.
pub(crate) fn counted(bytes: Vec<u8>, mut memory: Share) -> Bytes {
    struct Counted(Vec<u8>, #[expect(dead_code, reason = "held until it is dropped")] Share);
    impl AsRef<[u8]> for Counted {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }
    memory.shrink_to(bytes.capacity());
    Bytes::from_owner(Counted(bytes, memory))
}

/// A page as an answer.
pub(crate) fn json(page: Bytes) -> Response {
    ([(CONTENT_TYPE, JSON)], page).into_response()
}

/// Counts answers that are written in one piece, such as lists. Those of pages and streams count themselves.
pub(crate) async fn count(State(http): State<HttpContext>, request: Request, next: Next) -> Response {
    let Some(caller) = request.extensions().get::<Caller>().cloned() else { return next.run(request).await };
    let mut memory = match http.memory(caller.holders()).await {
        Ok(memory) => memory,
        Err(refusal) => return refusal.into_response(),
    };
    let (head, body) = next.run(request).await.into_parts();
    let Some(size) = body.size_hint().exact().filter(|size| *size > 0) else { return Response::from_parts(head, body) };
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    if size > memory.amount() && !memory.grow_to(size) {
        // Small parts of it are given back before more is waited for: two who wait for each other would wait in vain.
        drop(memory);
        memory = match http.memory_of(caller.holders(), size).await {
            Ok(memory) => memory,
            Err(refusal) => return refusal.into_response(),
        };
    }
    with_memory(Response::from_parts(head, body), memory).await
}

/// An answer that is there in one piece, with the memory it takes.
pub(crate) async fn with_memory(answer: Response, memory: Share) -> Response {
    let (head, body) = answer.into_parts();
    match body.collect().await {
        Ok(whole) => Response::from_parts(head, Body::from(counted(whole.to_bytes().into(), memory))),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::Pool;

    fn holders(n: u64) -> [Holder; 2] {
        [Holder::of("environment", n), Holder::of("key", n)]
    }

    fn page(pool: &Pool, n: u64) -> PageBuffer {
        PageBuffer::new(pool.take(holders(n), FIRST).expect("some"))
    }

    /// Writes rows of `size` until there is no room.
    fn fill(page: &mut PageBuffer, size: usize) -> usize {
        let mut rows = 0;
        while page.has_room(size, rows == 0) {
            page.out.extend(std::iter::repeat_n(b'x', size));
            rows += 1;
        }
        rows
    }

    #[test]
    fn a_page_ends_at_its_size_and_earlier_where_memory_ends() {
        let pool = Pool::new(32 << 20, FIRST);
        let mut whole = page(&pool, 1);
        let rows = fill(&mut whole, 100_000);
        assert_eq!(rows, (PAGE_BYTES - ROW_EXTRA) / 100_000);
        let held: Vec<Bytes> = (0..20)
            .map_while(|_| {
                let mut page = PageBuffer::new(pool.take(holders(1), FIRST)?);
                (fill(&mut page, 100_000) > 0).then(|| page.finish(None).expect("begun"))
            })
            .collect();
        assert!(pool.used() <= 16 << 20, "half at most, and other callers have the rest: {}", pool.used());
        assert_eq!(fill(&mut page(&pool, 2), 100_000), rows, "another caller has a whole page");
        drop((held, whole));
        assert_eq!(pool.used(), 0);
    }

    #[test]
    fn the_memory_is_given_back_with_the_last_bytes_of_an_answer() {
        let pool = Pool::new(32 << 20, FIRST);
        let mut page = page(&pool, 1);
        fill(&mut page, 1_000_000);
        let mut bytes = page.finish(None).expect("begun");
        let held = pool.used();
        let written = bytes.split_to(bytes.len() - 1);
        drop(written);
        assert_eq!(pool.used(), held);
        drop(bytes);
        assert_eq!(pool.used(), 0);
    }

    #[test]
    fn a_row_larger_than_a_page_is_a_page_and_one_without_memory_a_refusal() {
        let pool = Pool::new(32 << 20, FIRST);
        let mut large = page(&pool, 1);
        assert_eq!(fill(&mut large, 3 * PAGE_BYTES), 1);
        let mut starved = page(&pool, 1);
        assert_eq!(fill(&mut starved, 3 * PAGE_BYTES), 0);
        assert_eq!(starved.finish(None).err(), Some(Starved));
        assert!(large.finish(None).is_ok());
    }
}
