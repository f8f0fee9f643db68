//! What the outside may use up: memory, and how often it may come. One [`Bounds`] for the process, made of the settings.
//!
//! | file | what |
//! |---|---|
//! | [`address`] | who is on the other side; reverse proxies that are believed |
//! | [`pool`] | memory that is shared, of which nobody takes all |
//! | [`budgets`] | how often each may come |
//! | `ingress` | the settings of both |
//!
//! Promises: whoever has neither key nor signature uses up what is his own (his address, the path he knows), never what is
//! everybody's; what is remembered of outsiders is bounded.

pub mod address;
pub mod budgets;
mod ingress;
pub mod pool;

pub use address::{Address, Proxies};
pub use budgets::Budgets;
pub use ingress::Ingress;
pub use pool::{Holder, Pool, Share};

use crate::engine::model::Timestamp;
use parking_lot::Mutex;
use std::collections::HashSet;
use std::time::Duration;

/// Memory for a body that everybody gets as long as any is left.
const BODY_FIRST: usize = 64 << 10;

/// Memory for an answer that everybody gets as long as any is left.
const ANSWER_FIRST: usize = 256 << 10;

/// Consistent answers under way at one time.
pub const SNAPSHOTS: usize = 8;

/// Readers who wait for news that everybody may have as long as any place is left.
const WAITS_FIRST: usize = 8;

/// So many seconds of a budget may come at once.
const BURST: u32 = 2;

/// So many seconds of failures may come at once: a provider or client with an old secret tries for a while.
const FAILURES_BURST: u32 = 10;

/// Keys that are known to be good where they come from. Beyond, all are forgotten: they prove themselves anew.
const PROVEN_MAX: usize = 1 << 16;

/// The bounds of a process.
#[derive(Debug)]
pub struct Bounds {
    /// As set.
    pub ingress: Ingress,
    /// Memory for bodies on their way in, by path (or key) and address.
    pub bodies: Pool,
    /// Memory for answers on their way out, by environment and key.
    pub answers: Pool,
    /// Turns of answers as of one engine time, by environment and key.
    pub snapshots: Pool,
    /// Turns of streams and long polls, by environment and key: they keep a connection for as long as they like, so all
    /// together have half of them.
    pub waits: Pool,
    by_address: Budgets,
    by_key: Budgets,
    by_path: Budgets,
    by_sender: Budgets,
    wrong_keys: Budgets,
    wrong_signatures: Budgets,
    proven: Mutex<HashSet<Holder>>,
}

/// Which budget is used up, as metrics name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exhausted {
    /// A fixed word.
    pub budget: &'static str,
    /// When to come back.
    pub wait: Duration,
}

impl Exhausted {
    fn of(budget: &'static str) -> impl Fn(Duration) -> Exhausted {
        move |wait| Exhausted { budget, wait }
    }

    /// The wait in whole seconds, for `Retry-After`.
    pub fn seconds(&self) -> u64 {
        self.wait.as_secs().saturating_add(u64::from(self.wait.subsec_nanos() > 0)).max(1)
    }
}

impl Bounds {
    /// The bounds that are set.
    pub fn new(ingress: Ingress) -> Bounds {
        let failures = |a_second| Budgets::new(a_second, FAILURES_BURST);
        Bounds {
            bodies: Pool::new(ingress.bodies_bytes, BODY_FIRST),
            answers: Pool::new(ingress.answers_bytes, ANSWER_FIRST),
            snapshots: Pool::new(SNAPSHOTS, 1),
            waits: Pool::new((ingress.connections / 2).max(1), WAITS_FIRST),
            by_address: Budgets::new(ingress.requests_per_address, BURST),
            by_key: Budgets::new(ingress.requests_per_key, BURST),
            by_path: Budgets::new(ingress.webhooks_per_path, BURST),
            by_sender: Budgets::new(ingress.webhooks_per_sender, BURST),
            wrong_keys: failures(ingress.wrong_keys_per_address),
            wrong_signatures: failures(ingress.wrong_signatures_per_sender),
            proven: Mutex::default(),
            ingress,
        }
    }

    /// A request of an address.
    pub fn request(&self, from: Address, now: Timestamp) -> Result<(), Exhausted> {
        self.by_address.take(from.holder(), now).map_err(Exhausted::of("address"))
    }

    /// A request with a good key. While wrong keys come from an address too often, only keys that were good there before
    /// are taken: else a guess that is right could be told from the others.
    pub fn good_key(&self, key: Holder, from: Address, now: Timestamp) -> Result<(), Exhausted> {
        let here = Holder::of("key at address", (key, from));
        let throttled = self.wrong_keys.look(from.holder(), now).map_err(Exhausted::of("wrong_keys"));
        let mut proven = self.proven.lock();
        if !proven.contains(&here) {
            throttled?;
            if proven.len() >= PROVEN_MAX {
                proven.clear();
            }
            proven.insert(here);
        }
        drop(proven);
        self.by_key.take(key, now).map_err(Exhausted::of("key"))
    }

    /// A request with a key that is none.
    pub fn wrong_key(&self, from: Address, now: Timestamp) -> Result<(), Exhausted> {
        self.wrong_keys.take(from.holder(), now).map_err(Exhausted::of("wrong_keys"))
    }

    /// A webhook at a path, before its body is read. One sender uses up what is his at this path; all senders together what is
    /// the path's, and other paths know nothing of it.
    pub fn webhook(&self, path: &impl std::hash::Hash, from: Address, now: Timestamp) -> Result<(), Exhausted> {
        let sender = sender(path, from);
        self.wrong_signatures.look(sender, now).map_err(Exhausted::of("wrong_signatures"))?;
        self.by_sender.take(sender, now).map_err(Exhausted::of("sender"))?;
        self.by_path.take(Holder::of("path", path), now).map_err(Exhausted::of("path"))
    }

    /// A webhook that did not prove itself.
    pub fn wrong_signature(&self, path: &impl std::hash::Hash, from: Address, now: Timestamp) {
        // Its answer is the same 401 whether anything is left or not; the next one is not read.
        let _ = self.wrong_signatures.take(sender(path, from), now);
    }
}

fn sender(path: &impl std::hash::Hash, from: Address) -> Holder {
    Holder::of("sender", (path, from))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn from(last: u8) -> Address {
        std::net::IpAddr::V4(Ipv4Addr::new(203, 0, 113, last)).into()
    }

    fn key(name: &str) -> Holder {
        Holder::of("key", name)
    }

    const NOW: Timestamp = Timestamp(0);

    fn bounds() -> Bounds {
        let ingress = Ingress {
            webhooks_per_path: 10,
            webhooks_per_sender: 4,
            wrong_signatures_per_sender: 1,
            wrong_keys_per_address: 1,
            ..Ingress::default()
        };
        Bounds::new(ingress)
    }

    #[test]
    fn a_right_guess_looks_like_a_wrong_one_and_who_was_there_before_goes_on() {
        let bounds = bounds();
        assert_eq!(bounds.good_key(key("ours"), from(1), NOW), Ok(()));
        let guesses = (0..1_000).filter(|_| bounds.wrong_key(from(1), NOW).is_ok()).count();
        assert_eq!(guesses, FAILURES_BURST as usize);
        let refused = bounds.wrong_key(from(1), NOW);
        assert_eq!(bounds.good_key(key("guessed"), from(1), NOW), refused, "no oracle");
        assert_eq!(bounds.good_key(key("ours"), from(1), NOW), Ok(()));
        assert_eq!(bounds.good_key(key("guessed"), from(2), NOW), Ok(()), "another address");
    }

    #[test]
    fn a_flood_at_one_path_leaves_its_other_senders_and_other_paths_alone() {
        let bounds = bounds();
        let flood = |path: &str, from| (0..1_000).filter(|_| bounds.webhook(&path, from, NOW).is_ok()).count();
        assert_eq!(flood("a", from(1)), 8, "two seconds of the sender's");
        assert_eq!(flood("a", from(2)), 8);
        assert_eq!(flood("a", from(3)), 4, "the rest of the path's");
        assert_eq!(flood("b", from(1)), 8, "another path");
    }

    #[test]
    fn who_cannot_sign_is_not_read_any_more() {
        let bounds = bounds();
        for _ in 0..FAILURES_BURST {
            bounds.wrong_signature(&"a", from(1), NOW);
        }
        let refused = bounds.webhook(&"a", from(1), NOW).expect_err("refused before the body");
        assert_eq!((refused.budget, refused.seconds()), ("wrong_signatures", 1));
        assert_eq!(bounds.webhook(&"a", from(2), NOW), Ok(()), "the provider at the same path");
        assert_eq!(bounds.webhook(&"a", from(1), NOW.plus(Duration::from_secs(1))), Ok(()));
    }
}
