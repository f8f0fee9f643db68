//! Memory that many share and nobody takes all of.
//!
//! Promises: what is handed out never exceeds the whole (but for a single share larger than half of it, when nobody else has any); a holder never
//! has more than is left for all others (so one has at most a half, two a third each), whatever the others do; a first small
//! part is everybody's as long as any is left. What was taken is given back when its [`Share`] is dropped.

use crate::engine::time::Clock;
use parking_lot::{Mutex, MutexGuard};
use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use tokio::sync::Notify;

/// Who may wait for memory at one time; more are refused at once.
const WAITING_MAX: usize = 256;

/// Whom a share is counted for: an address, a path, a key. A hash, so that outsiders cannot make it long or meet another's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Holder(u64);

impl Holder {
    /// The holder of a kind with a name.
    pub fn of(kind: &'static str, name: impl Hash) -> Holder {
        static SEED: LazyLock<RandomState> = LazyLock::new(RandomState::new);
        Holder(SEED.hash_one((kind, name)))
    }
}

/// An amount of memory (or of anything) that is shared. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Pool {
    inner: Arc<PoolInner>,
}

#[derive(Debug)]
struct PoolInner {
    total: usize,
    first: usize,
    book: Mutex<Holdings>,
    given_back: Notify,
}

#[derive(Debug, Default)]
struct Holdings {
    used: usize,
    by: HashMap<Holder, usize>,
    waiting: usize,
}

/// A part of a [`Pool`], given back when dropped. It is counted for two holders at once.
#[derive(Debug)]
pub struct Share {
    pool: Arc<PoolInner>,
    holders: [Holder; 2],
    amount: usize,
}

impl Pool {
    /// A pool of `total`, of which everybody gets `first` as long as any is left.
    pub fn new(total: usize, first: usize) -> Pool {
        Pool { inner: Arc::new(PoolInner { total, first, book: Mutex::default(), given_back: Notify::new() }) }
    }

    /// What is handed out.
    pub fn used(&self) -> usize {
        self.inner.book().used
    }

    /// A share of nothing so far.
    pub fn share(&self, holders: [Holder; 2]) -> Share {
        Share { pool: self.inner.clone(), holders, amount: 0 }
    }

    /// A share, if there is one for these holders now.
    pub fn take(&self, holders: [Holder; 2], amount: usize) -> Option<Share> {
        let mut share = self.share(holders);
        share.grow_to(amount).then_some(share)
    }

    /// As [`take`](Pool::take); waits up to `patience` for others to give back.
    pub async fn wait(
        &self,
        holders: [Holder; 2],
        amount: usize,
        patience: Duration,
        clock: &dyn Clock,
    ) -> Option<Share> {
        if let Some(share) = self.take(holders, amount) {
            return Some(share);
        }
        let _queued = Queued::begin(&self.inner)?;
        let until = clock.now().plus(patience);
        loop {
            // Listened to before looking again, so that nothing given back in between is missed.
            let mut given_back = std::pin::pin!(self.inner.given_back.notified());
            given_back.as_mut().enable();
            if let Some(share) = self.take(holders, amount) {
                return Some(share);
            }
            tokio::select! {
                () = given_back => {}
                () = clock.sleep_until(until) => return None,
            }
        }
    }
}

impl PoolInner {
    fn book(&self) -> MutexGuard<'_, Holdings> {
        self.book.lock()
    }
}

/// One of those who wait.
struct Queued<'p>(&'p PoolInner);

impl<'p> Queued<'p> {
    fn begin(pool: &'p PoolInner) -> Option<Queued<'p>> {
        let mut book = pool.book();
        let room = book.waiting < WAITING_MAX;
        book.waiting += usize::from(room);
        room.then_some(Queued(pool))
    }
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        self.0.book().waiting -= 1;
    }
}

impl Share {
    /// What it is.
    pub fn amount(&self) -> usize {
        self.amount
    }

    /// Grows to `amount` if that is had now; it never becomes less.
    pub fn grow_to(&mut self, amount: usize) -> bool {
        let Some(more) = amount.checked_sub(self.amount).filter(|more| *more > 0) else { return true };
        let mut book = self.pool.book();
        // A single row may be larger than anybody's part: alone it is served all the same, or nobody could ever read it.
        let alone = amount > self.pool.total / 2 && book.used == self.amount;
        let left = self.pool.total.checked_sub(book.used + more);
        let fits = |left: usize| {
            let most = left.max(self.pool.first);
            self.holders.iter().all(|holder| book.by.get(holder).copied().unwrap_or(0) + more <= most)
        };
        if !alone && !left.is_some_and(fits) {
            return false;
        }
        book.add(self.holders, more);
        self.amount = amount;
        true
    }

    /// Gives back all beyond `amount`.
    pub fn shrink_to(&mut self, amount: usize) {
        if let Some(less) = self.amount.checked_sub(amount).filter(|less| *less > 0) {
            self.amount = amount;
            self.pool.book().remove(self.holders, less);
            self.pool.given_back.notify_waiters();
        }
    }

    /// Parts with `amount` of it, at most with all.
    pub fn split(&mut self, amount: usize) -> Share {
        let amount = amount.min(self.amount);
        self.amount -= amount;
        Share { pool: self.pool.clone(), holders: self.holders, amount }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.shrink_to(0);
    }
}

impl Holdings {
    fn add(&mut self, [one, other]: [Holder; 2], amount: usize) {
        self.used += amount;
        *self.by.entry(one).or_default() += amount;
        if other != one {
            *self.by.entry(other).or_default() += amount;
        }
    }

    fn remove(&mut self, [one, other]: [Holder; 2], amount: usize) {
        self.used -= amount;
        for holder in [Some(one), Some(other).filter(|other| *other != one)].into_iter().flatten() {
            if let Some(held) = self.by.get_mut(&holder) {
                *held -= amount;
                if *held == 0 {
                    self.by.remove(&holder);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::model::Timestamp;
    use crate::engine::time::{Chance, ManualClock};
    use futures_util::poll;

    const TOTAL: usize = 1 << 20;
    const FIRST: usize = 1 << 10;

    fn path(n: u64) -> Holder {
        Holder::of("path", n)
    }

    fn address(n: u64) -> Holder {
        Holder::of("address", n)
    }

    /// Takes small shares until refused.
    fn greedy(pool: &Pool, holders: [Holder; 2]) -> Vec<Share> {
        std::iter::from_fn(|| pool.take(holders, 512)).collect()
    }

    #[test]
    fn one_path_or_address_has_at_most_half_and_what_is_left_is_for_others() {
        let pool = Pool::new(TOTAL, FIRST);
        // One path from a thousand addresses.
        let held: Vec<_> = (0..1_000).map(|n| greedy(&pool, [path(1), address(n)])).collect();
        assert_eq!(pool.used(), TOTAL / 2);
        // The same addresses at another path, and another address at a third.
        assert!(pool.take([path(2), address(7)], TOTAL / 8).is_some());
        let other = greedy(&pool, [path(3), address(5_000)]);
        assert_eq!(other.len() * 512, TOTAL / 4, "half of what is left");
        drop((held, other));
        assert_eq!(pool.used(), 0);
        assert!(pool.inner.book().by.is_empty(), "nobody is remembered who holds nothing");
    }

    #[test]
    fn everybody_gets_a_first_part_until_all_is_gone() {
        let pool = Pool::new(TOTAL, FIRST);
        let all: Vec<Share> = (0..2_000).map_while(|n| pool.take([path(n), address(n)], FIRST)).collect();
        assert_eq!((all.len(), pool.used()), (TOTAL / FIRST, TOTAL));
        assert!(pool.take([path(9_999), address(9_999)], 1).is_none());
    }

    #[test]
    fn who_needs_more_than_all_gets_it_when_alone() {
        let pool = Pool::new(TOTAL, FIRST);
        let small = pool.take([path(1), address(1)], 1).expect("some");
        let mut large = pool.take([path(2), address(2)], FIRST).expect("some");
        assert!(!large.grow_to(2 * TOTAL));
        drop(small);
        assert!(large.grow_to(2 * TOTAL));
        assert!(pool.take([path(1), address(1)], 1).is_none(), "and nobody else then");
    }

    #[tokio::test]
    async fn who_waits_is_woken_by_what_is_given_back_and_refused_when_time_is_up() {
        let (pool, clock) = (Pool::new(TOTAL, FIRST), ManualClock::new(Timestamp(0)));
        let mut held = pool.take([path(1), address(1)], TOTAL).expect("nobody else has any");
        let second = Duration::from_secs(1);
        {
            let mut waiting = std::pin::pin!(pool.wait([path(2), address(2)], FIRST, second, &clock));
            assert!(poll!(waiting.as_mut()).is_pending());
            held.shrink_to(TOTAL / 2);
            assert_eq!(waiting.await.expect("there is some now").amount(), FIRST);
        }
        assert!(held.grow_to(TOTAL), "alone again");
        let mut waiting = std::pin::pin!(pool.wait([path(2), address(2)], FIRST, second, &clock));
        assert!(poll!(waiting.as_mut()).is_pending());
        clock.advance(second);
        assert!(waiting.await.is_none());
        assert_eq!(pool.inner.book().waiting, 0);
    }

    #[test]
    fn whatever_is_taken_split_and_given_back_the_book_agrees_with_the_shares() {
        let seed = Chance::from_system().number();
        println!("seed {seed}");
        let (mut chance, pool) = (Chance::from_seed(seed), Pool::new(TOTAL, FIRST));
        let mut shares: Vec<Share> = Vec::new();
        let mut at_most = |most: usize| usize::try_from(chance.number()).unwrap_or_default() % most;
        for _ in 0..20_000 {
            let holders = [path(at_most(4) as u64), address(at_most(4) as u64)];
            match (at_most(5), shares.len()) {
                (0 | 1, 0..50) => shares.extend(pool.take(holders, at_most(TOTAL / 8))),
                (2, 1..) => {
                    let share = shares.swap_remove(at_most(shares.len()));
                    drop(share);
                }
                (3, 1..) => {
                    let at = at_most(shares.len());
                    let part = shares[at].split(at_most(TOTAL / 16));
                    shares.push(part);
                }
                (4, 1..) => {
                    let at = at_most(shares.len());
                    let wanted = at_most(TOTAL / 4);
                    _ = shares[at].grow_to(wanted);
                    shares[at].shrink_to(wanted);
                }
                _ => {}
            }
            let sum: usize = shares.iter().map(Share::amount).sum();
            assert_eq!(pool.used(), sum);
            assert!(sum <= TOTAL);
        }
    }
}
