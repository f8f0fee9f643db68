//! The budget of a connection: how many requests may leave, and when.
//!
//! One budget serves all that is asked in the name of a connection. Promises: no token bucket is overdrawn, no more requests are
//! open than allowed, and while the provider says «come back later» none leaves at all. Of those that wait the highest
//! [`RequestPriority`] goes first, but every tenth turn goes to the lowest, so that nothing starves. Calls take at most every
//! second turn while runs wait, and leave them a place: whoever calls decides how often, and a run must get on.
//! Time is passed in through the clock; leaving the queue by dropping the future is safe.

use super::Answer;
use super::client::failure;
use super::hints::Hints;
use crate::definition::{HintHeaders, Limits};
use globset::{GlobBuilder, GlobMatcher};
use parking_lot::{Mutex, MutexGuard};
use std::sync::Arc;
use std::time::Duration;
use syncline_engine::model::Timestamp;
use syncline_engine::source::Failure;
use syncline_engine::time::{Clock, TokenBucket};
use tokio::sync::Notify;

/// Requests that may wait for one budget.
const WAITING_MAX: usize = 10_000;

/// Every so many turns the lowest lane goes first: each lane keeps about a tenth.
const LOW_TURN: u64 = 10;

/// Nobody gets leave by the time that is waited for it.
pub const SPENT: &str = "budget_spent";
/// Too many wait already.
pub const OVERLOADED: &str = "budget_overloaded";

/// Who is asking, in falling rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RequestPriority {
    /// The record behind a webhook.
    Fetch,
    /// Somebody waits for the answer.
    Call,
    /// A scheduled look at what changed.
    Poll,
    /// A complete listing.
    Backfill,
}

/// The budget of one connection.
pub struct Budget {
    clock: Arc<dyn Clock>,
    /// Woken whenever someone else may be able to go.
    changed: Notify,
    state: Mutex<BudgetState>,
    concurrency: usize,
}

struct BudgetState {
    buckets: Vec<Bucket>,
    open: usize,
    /// Calls among them.
    open_calls: usize,
    /// The last turn was a call's.
    called: bool,
    waiting: Vec<WaitingRequest>,
    next_ticket: u64,
    turns: u64,
    blocked_until: Timestamp,
}

struct Bucket {
    method: Option<String>,
    glob: Option<GlobMatcher>,
    tokens: TokenBucket,
}

#[derive(Clone, Copy)]
struct WaitingRequest {
    lane: RequestPriority,
    ticket: u64,
    bucket: Option<usize>,
}

/// Leave to have one request open; given back when dropped.
pub struct Permit {
    budget: Arc<Budget>,
    lane: RequestPriority,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut state = self.budget.lock();
        state.open = state.open.saturating_sub(1);
        if self.lane == RequestPriority::Call {
            state.open_calls = state.open_calls.saturating_sub(1);
        }
        drop(state);
        self.budget.changed.notify_waiters();
    }
}

/// Takes a waiter out of the queue, however its wait ends.
struct QueuePlace<'a> {
    budget: &'a Budget,
    ticket: u64,
}

impl Drop for QueuePlace<'_> {
    fn drop(&mut self) {
        self.budget.lock().waiting.retain(|waiting| waiting.ticket != self.ticket);
        self.budget.changed.notify_waiters();
    }
}

enum BudgetTurn {
    Now,
    At(Timestamp),
    WhenChanged,
}

impl Budget {
    /// A fresh budget with full buckets.
    pub fn new(limits: &Limits, clock: Arc<dyn Clock>) -> Arc<Budget> {
        let state = BudgetState {
            buckets: buckets(limits),
            open: 0,
            open_calls: 0,
            called: false,
            waiting: Vec::new(),
            next_ticket: 0,
            turns: 0,
            blocked_until: Timestamp::NONE,
        };
        let concurrency = limits.concurrency.max(1);
        Arc::new(Budget { clock, changed: Notify::new(), state: Mutex::new(state), concurrency })
    }

    /// Waits for leave to send `method path`.
    pub async fn enter(self: &Arc<Self>, method: &str, path: &str, lane: RequestPriority) -> Result<Permit, Failure> {
        self.enter_by(method, path, lane, None).await
    }

    /// The same until then. Where no leave can come by then it is refused at once, and says how long it would take.
    pub async fn enter_by(
        self: &Arc<Self>,
        method: &str,
        path: &str,
        lane: RequestPriority,
        until: Option<Timestamp>,
    ) -> Result<Permit, Failure> {
        let queued = self.queue(method, path, lane)?;
        let patience = async {
            match until {
                Some(until) => self.clock.sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(patience);
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            match self.turn(queued.ticket) {
                BudgetTurn::Now => return Ok(Permit { budget: Arc::clone(self), lane }),
                BudgetTurn::WhenChanged => tokio::select! {
                    () = changed => {}
                    () = &mut patience => return Err(spent(Duration::ZERO)),
                },
                BudgetTurn::At(at) if until.is_some_and(|until| at > until) => {
                    return Err(spent(at.since(self.clock.now())));
                }
                BudgetTurn::At(at) => tokio::select! {
                    () = changed => {}
                    () = self.clock.sleep_until(at) => {}
                },
            }
        }
    }

    /// Learns from an answer: none left, or, where the request has to be made again (`busy`), an express wish to be left
    /// alone until then. Returns the wait the provider asked for.
    pub fn learn(&self, names: &HintHeaders, answer: &Answer, busy: bool) -> Option<Duration> {
        let now = self.clock.now();
        let hints = Hints::read(names, answer, now);
        let wait = match (busy, hints.left) {
            // What is asked for again obeys all that the answer says; but where requests are left, the reset is not meant.
            (true, Some(left)) if left > 0.0 => hints.retry_after,
            (true, _) => hints.retry_after.max(hints.reset),
            (false, Some(left)) if left <= 0.0 => hints.reset.or(hints.retry_after),
            (false, _) => None,
        }?;
        let mut state = self.lock();
        state.blocked_until = state.blocked_until.max(now.plus(wait));
        Some(wait)
    }

    /// Until when nothing may leave, because the provider said so.
    pub fn waits_until(&self) -> Option<Timestamp> {
        Some(self.lock().blocked_until).filter(|until| *until > self.clock.now())
    }

    fn queue(&self, method: &str, path: &str, lane: RequestPriority) -> Result<QueuePlace<'_>, Failure> {
        let mut state = self.lock();
        if state.waiting.len() >= WAITING_MAX {
            let message = format!("{WAITING_MAX} requests wait for this connection already; try again later");
            return Err(failure(OVERLOADED, message, true));
        }
        let bucket = state.buckets.iter().position(|bucket| bucket.takes(method, path));
        let ticket = state.next_ticket;
        state.next_ticket += 1;
        state.waiting.push(WaitingRequest { lane, ticket, bucket });
        Ok(QueuePlace { budget: self, ticket })
    }

    fn turn(&self, ticket: u64) -> BudgetTurn {
        let now = self.clock.now();
        let mut state = self.lock();
        if state.blocked_until > now {
            return BudgetTurn::At(state.blocked_until);
        }
        let Some(mine) = state.waiting.iter().find(|waiting| waiting.ticket == ticket).copied() else {
            return BudgetTurn::WhenChanged;
        };
        let ready = state.ready_at(mine.bucket, now);
        if ready > now {
            return BudgetTurn::At(ready);
        }
        // Calls leave runs a place, where there is more than one.
        let places = self.concurrency.saturating_sub(1).max(1);
        if state.open >= self.concurrency || state.first(now, places) != Some(ticket) {
            return BudgetTurn::WhenChanged;
        }
        if let Some(bucket) = mine.bucket.and_then(|index| state.buckets.get_mut(index)) {
            bucket.tokens.take(now);
        }
        state.open += 1;
        state.turns += 1;
        state.called = mine.lane == RequestPriority::Call;
        state.open_calls += usize::from(state.called);
        BudgetTurn::Now
    }

    fn lock(&self) -> MutexGuard<'_, BudgetState> {
        // Nothing panics while it is held, and every state in between is a sound one.
        self.state.lock()
    }
}

impl BudgetState {
    fn ready_at(&self, bucket: Option<usize>, now: Timestamp) -> Timestamp {
        bucket.and_then(|index| self.buckets.get(index)).map_or(now, |bucket| bucket.tokens.ready_at(now))
    }

    /// Whose turn it is among those that could go now; calls have so many places.
    fn first(&self, now: Timestamp, calls: usize) -> Option<u64> {
        let ready = || self.waiting.iter().filter(|waiting| self.ready_at(waiting.bucket, now) <= now);
        let runs_wait = ready().any(|waiting| waiting.lane > RequestPriority::Call);
        let no_call = self.open_calls >= calls || self.called && runs_wait;
        let ready = ready().filter(|waiting| waiting.lane != RequestPriority::Call || !no_call);
        let low_turn = self.turns % LOW_TURN == LOW_TURN - 1;
        let rank = |waiting: &&WaitingRequest| {
            let lane = waiting.lane as u8;
            (if low_turn { u8::MAX - lane } else { lane }, waiting.ticket)
        };
        ready.min_by_key(rank).map(|waiting| waiting.ticket)
    }
}

impl Bucket {
    fn takes(&self, method: &str, path: &str) -> bool {
        self.method.as_deref().is_none_or(|wanted| wanted.eq_ignore_ascii_case(method))
            && self.glob.as_ref().is_none_or(|glob| glob.is_match(path))
    }
}

/// There is no leave in time.
fn spent(wait: Duration) -> Failure {
    let message = "the limits of the connection leave no room for the request in time; send fewer, or ask again later";
    let wait = wait.max(Duration::from_secs(1));
    Failure { retry_after: Some(wait), ..failure(SPENT, message.to_owned(), true) }
}

/// Most specific first: with a path before without, longer before shorter, with a method before without.
fn buckets(limits: &Limits) -> Vec<Bucket> {
    let mut rates: Vec<_> = limits.rate.iter().collect();
    rates.sort_by_key(|rate| {
        let (glob, method) = rate
            .matches
            .as_ref()
            .map_or((0, false), |(method, glob)| (1 + glob.chars().filter(|c| *c != '*').count(), method.is_some()));
        std::cmp::Reverse((glob, method))
    });
    rates
        .into_iter()
        .map(|rate| Bucket {
            method: rate.matches.as_ref().and_then(|(method, _)| method.clone()),
            // A glob that does not compile is a complaint of the checker; here it then matches every path, which is
            // the cautious reading.
            glob: rate.matches.as_ref().and_then(|(_, glob)| compile(glob)),
            tokens: TokenBucket::new(rate.limit, rate.per, rate.burst),
        })
        .collect()
}

fn compile(glob: &str) -> Option<GlobMatcher> {
    GlobBuilder::new(glob).literal_separator(false).build().ok().map(|glob| glob.compile_matcher())
}

#[cfg(test)]
mod tests {
    use super::super::hints::HINT_MAX;
    use super::*;
    use crate::definition::{Rate, Statuses};
    use bytes::Bytes;
    use futures_util::FutureExt;
    use reqwest::Url;
    use syncline_engine::source::Retry;
    use syncline_engine::time::ManualClock;

    const SECOND: Duration = Duration::from_secs(1);

    fn limits(rate: Vec<Rate>, concurrency: usize) -> Limits {
        Limits {
            rate,
            concurrency,
            retry_status: Statuses::default(),
            retry: Retry { max: 0, from: SECOND, to: SECOND, jitter: false },
            headers: HintHeaders::default(),
            conditional: false,
            poll_hint: None,
            timeout: SECOND,
            max_response: 1,
        }
    }

    fn rate(matches: Option<(&str, &str)>, limit: u32) -> Rate {
        let matches = matches.map(|(method, glob)| (Some(method.to_string()), glob.to_string()));
        Rate { matches, limit, per: SECOND, burst: limit }
    }

    fn clock() -> Arc<ManualClock> {
        Arc::new(ManualClock::new(Timestamp::from_seconds(1_000_000)))
    }

    fn answer(headers: &[(&'static str, &str)]) -> Answer {
        let headers = headers.iter().map(|(name, value)| (name.parse().expect("name"), value.parse().expect("value")));
        Answer {
            status: 429,
            headers: headers.collect(),
            body: Bytes::new(),
            url: Url::parse("https://api.example/").expect("a URL"),
            sent_at: Timestamp(0),
            veil: Default::default(),
            held: Default::default(),
        }
    }

    #[test]
    fn the_most_specific_bucket_counts_and_fills_with_the_clock() {
        let clock = clock();
        let budget = Budget::new(&limits(vec![rate(None, 3), rate(Some(("POST", "*/search")), 1)], 64), clock.clone());
        let mut permits = Vec::new();
        let mut enter = |method, path| {
            let permit = budget.enter(method, path, RequestPriority::Poll).now_or_never();
            permit.map(|permit| permits.push(permit)).is_some()
        };
        assert!(enter("POST", "/v3/contacts/search"));
        assert!(!enter("POST", "/v3/contacts/search"), "its bucket is empty");
        assert!((0..3).all(|_| enter("GET", "/v3/contacts/search")), "other methods use the general one");
        assert!(!enter("GET", "/v3/contacts"));
        clock.advance(SECOND);
        assert!(enter("POST", "/v3/contacts/search"));
    }

    #[test]
    fn an_open_request_keeps_its_place_until_its_permit_is_dropped() {
        let budget = Budget::new(&limits(vec![], 1), clock());
        let first = budget.enter("GET", "/", RequestPriority::Poll).now_or_never().expect("free");
        assert!(budget.enter("GET", "/", RequestPriority::Poll).now_or_never().is_none());
        drop(first);
        assert!(
            budget.enter("GET", "/", RequestPriority::Poll).now_or_never().is_some(),
            "a dropped wait left no trace"
        );
    }

    #[tokio::test]
    async fn a_fetch_goes_before_a_poll_before_a_backfill_but_not_always() {
        let budget = Budget::new(&limits(vec![], 1), clock());
        let held = budget.enter("GET", "/", RequestPriority::Poll).await.expect("free");
        let (sender, mut order) = tokio::sync::mpsc::channel(100);
        for lane in [RequestPriority::Backfill, RequestPriority::Poll].into_iter().chain([RequestPriority::Fetch; 20]) {
            let (budget, sender) = (Arc::clone(&budget), sender.clone());
            tokio::spawn(async move {
                let _permit = budget.enter("GET", "/", lane).await.expect("not overloaded");
                sender.send(lane).await.expect("open");
            });
        }
        drop(sender);
        tokio::task::yield_now().await;
        drop(held);
        let mut seen = Vec::new();
        while let Some(lane) = order.recv().await {
            seen.push(lane);
        }
        let place = |lane| seen.iter().position(|seen| *seen == lane).expect("served");
        assert_eq!(seen[0], RequestPriority::Fetch);
        assert!(place(RequestPriority::Backfill) < 12, "the lowest lane gets every tenth turn: {seen:?}");
        assert!(place(RequestPriority::Poll) > place(RequestPriority::Backfill));
    }

    /// Who got through, in turn: each asks again at once, as long as it is his.
    async fn turns(budget: &Arc<Budget>, clock: &ManualClock, lanes: &[RequestPriority], rounds: usize) -> Vec<usize> {
        let mut waiting: Vec<_> = lanes.iter().map(|lane| Box::pin(budget.enter("GET", "/", *lane))).collect();
        let mut seen = vec![0; lanes.len()];
        for _ in 0..rounds {
            // More than once: who went may make way for another.
            for turn in (0..waiting.len()).chain(0..waiting.len()) {
                if waiting[turn].as_mut().now_or_never().is_some() {
                    seen[turn] += 1;
                    waiting[turn] = Box::pin(budget.enter("GET", "/", lanes[turn]));
                }
            }
            clock.advance(SECOND);
            // The runtime lets a task do only so much at once.
            tokio::task::yield_now().await;
        }
        seen
    }

    #[tokio::test]
    async fn calls_take_at_most_every_second_token_while_runs_wait_and_all_otherwise() {
        let (clock, rate) = (clock(), || vec![Rate { burst: 1, ..rate(None, 1) }]);
        let budget = Budget::new(&limits(rate(), 4), clock.clone());
        let flood = [RequestPriority::Call; 5];
        let with_poll: Vec<_> = flood.into_iter().chain([RequestPriority::Poll]).collect();
        let seen = turns(&budget, &clock, &with_poll, 40).await;
        let (calls, polls) = (seen[..5].iter().sum::<usize>(), seen[5]);
        assert!(calls + polls >= 39 && polls.abs_diff(calls) <= 4, "{seen:?}");
        let budget = Budget::new(&limits(rate(), 4), clock.clone());
        assert!(turns(&budget, &clock, &flood, 40).await.iter().sum::<usize>() >= 39);
    }

    #[test]
    fn calls_leave_a_place_to_runs() {
        let budget = Budget::new(&limits(vec![], 3), clock());
        let enter = |lane| budget.enter("GET", "/", lane).now_or_never().map(|permit| permit.expect("a permit"));
        let calls: Vec<_> = (0..3).map_while(|_| enter(RequestPriority::Call)).collect();
        assert_eq!(calls.len(), 2);
        let poll = enter(RequestPriority::Poll).expect("the third place");
        assert!(enter(RequestPriority::Fetch).is_none(), "all are taken");
        drop((calls, poll));
        assert!(enter(RequestPriority::Call).is_some());
    }

    #[tokio::test]
    async fn who_waits_for_some_time_only_is_told_how_long_it_would_take() {
        let clock = clock();
        let budget = Budget::new(&limits(vec![Rate { per: 60 * SECOND, ..rate(None, 1) }], 4), clock.clone());
        let until = |seconds: u32| Some(clock.now().plus(seconds * SECOND));
        let by = |until| budget.enter_by("GET", "/", RequestPriority::Call, until);
        let first = by(until(30)).await.expect("the only token");
        let why = by(until(30)).now_or_never().expect("at once").err().expect("none is left");
        assert_eq!((why.code, why.retry_after), (SPENT, Some(60 * SECOND)));
        let mut second = Box::pin(by(until(90)));
        assert!(second.as_mut().now_or_never().is_none(), "there will be one");
        clock.advance(60 * SECOND);
        assert!(second.await.is_ok());
        drop(first);
        let full = Budget::new(&limits(vec![], 1), clock.clone());
        let held = full.enter("GET", "/", RequestPriority::Poll).await.expect("free");
        let mut waits = Box::pin(full.enter_by("GET", "/", RequestPriority::Call, until(30)));
        assert!(waits.as_mut().now_or_never().is_none());
        clock.advance(30 * SECOND);
        assert_eq!(waits.await.err().expect("nobody left").code, SPENT);
        drop(held);
    }

    #[test]
    fn none_left_blocks_everything_until_the_reset() {
        let clock = clock();
        let budget = Budget::new(&limits(vec![], 4), clock.clone());
        let names = HintHeaders {
            remaining: Some("x-remaining".into()),
            reset_epoch: Some("x-reset".into()),
            ..HintHeaders::default()
        };
        assert_eq!(budget.learn(&names, &answer(&[("x-remaining", "5"), ("x-reset", "1000060")]), false), None);
        budget.learn(&names, &answer(&[("x-remaining", "0"), ("x-reset", "1000060")]), false);
        assert!(budget.enter("GET", "/", RequestPriority::Fetch).now_or_never().is_none());
        clock.advance(59 * SECOND);
        assert!(budget.enter("GET", "/", RequestPriority::Fetch).now_or_never().is_none());
        clock.advance(SECOND);
        assert!(budget.enter("GET", "/", RequestPriority::Fetch).now_or_never().is_some());
    }

    #[test]
    fn retry_after_is_read_in_both_forms_bounded_and_nonsense_ignored() {
        let names = HintHeaders { retry_after: Some("retry-after".into()), ..HintHeaders::default() };
        let read = |text: &str, date: &str| {
            let budget = Budget::new(&limits(vec![], 4), clock());
            budget.learn(&names, &answer(&[("retry-after", text), ("date", date)]), true).map(|wait| wait.as_secs())
        };
        let noon = "Sun, 06 Nov 1994 12:00:00 GMT";
        assert_eq!(read("7", noon), Some(7));
        assert_eq!(read("Sun, 06 Nov 1994 12:01:00 GMT", noon), Some(60), "by the provider's own clock");
        assert_eq!(read("Sun, 06 Nov 1994 11:00:00 GMT", noon), Some(0));
        assert_eq!(read("1e12", noon), Some(HINT_MAX.as_secs()));
        for nonsense in ["-1", "NaN", "inf", "soon", ""] {
            assert_eq!(read(nonsense, noon), None, "{nonsense}");
        }
    }

    #[test]
    fn every_hint_is_read_in_whatever_unit_it_comes() {
        let names = |retry_after: &str, left: &str, epoch: &str, after: &str| HintHeaders {
            retry_after: Some(retry_after.to_owned()),
            remaining: Some(left.to_owned()),
            reset_epoch: Some(epoch.to_owned()),
            reset_after: Some(after.to_owned()),
            ..HintHeaders::default()
        };
        let usual = names("retry-after", "left", "epoch", "reset");
        let now = ("date", "Sun, 09 Sep 2001 01:46:40 GMT");
        let wait = |names: &HintHeaders, headers: &[(&'static str, &str)]| {
            let budget = Budget::new(&limits(vec![], 4), clock());
            budget.learn(names, &answer(&[headers, &[now]].concat()), true).map(|wait| wait.as_millis())
        };
        for (headers, millis) in [
            (&[("epoch", "1000000007")][..], Some(7_000)),
            (&[("epoch", "1000000007500")], Some(7_500)),
            (&[("epoch", "2001-09-09T01:46:47Z")], Some(7_000)),
            (&[("epoch", "Sun, 09 Sep 2001 01:46:47 GMT")], Some(7_000)),
            (&[("epoch", "999999990")], Some(0)),
            (&[("epoch", "7")], Some(7_000)),
            (&[("reset", "7")], Some(7_000)),
            (&[("reset", "7.5")], Some(7_500)),
            (&[("reset", "1000000007")], Some(7_000)),
            (&[("reset", "1000000007500")], Some(7_500)),
            (&[("reset", "1m7s")], Some(67_000)),
            (&[("retry-after", "7"), ("reset", "9")], Some(9_000)),
            (&[("retry-after", "9"), ("epoch", "1000000007"), ("left", "0")], Some(9_000)),
            (&[("retry-after", "7"), ("reset", "9"), ("left", "5")], Some(7_000)),
            (&[("reset", "9"), ("left", "5")], None),
            (&[("reset", "9"), ("left", "-1")], Some(9_000)),
            (&[("reset", "9"), ("left", "NaN")], Some(9_000)),
        ] {
            assert_eq!(wait(&usual, headers), millis, "{headers:?}");
        }
        let thousandths = names("retry-after-ms", "left", "epoch", "Reset-Milliseconds");
        assert_eq!(wait(&thousandths, &[("retry-after-ms", "7500")]), Some(7_500));
        assert_eq!(wait(&thousandths, &[("reset-milliseconds", "7500")]), Some(7_500));
        let most = HINT_MAX.as_millis();
        for harmless in ["-1", "NaN", "inf", "-inf", "1e12", "1e300", "1e999", "-1e12", "99999999999999999999", "", "x"]
        {
            for name in ["retry-after", "epoch", "reset"] {
                let wait = wait(&usual, &[(name, harmless)]);
                assert!(wait.is_none_or(|wait| wait <= most), "{name}: {harmless}: {wait:?}");
            }
        }
    }
}
