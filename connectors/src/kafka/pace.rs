//! When the next transaction had better begin.
//!
//! A broker answers a commit before it has marked the transaction's end in every partition. Who begins the next one meanwhile
//! is refused (CONCURRENT_TRANSACTIONS), and librdkafka asks again only after 20 ms, during which nothing moves. Nobody tells
//! how long the marking takes, so it is learned: a small transaction whose messages took as long as that was refused. Promise:
//! a rest is never longer than [`LONGEST`], and goes away where it is not needed.

use std::time::Duration;
use syncline_engine::time::Stopwatch;

/// What librdkafka waits after a refusal; no setting changes it.
const REFUSED: Duration = Duration::from_millis(20);
/// The longest rest: beyond, a refusal costs little more.
const LONGEST: Duration = Duration::from_millis(10);
/// By so much a refusal lengthens the rest.
const STEP: Duration = Duration::from_millis(1);
/// A transaction that was not refused shortens the rest by this part: with a rest of 5 ms one in ten may be refused, which
/// costs less than resting until none is.
const EASE: u32 = 48;
/// Transactions with more messages take long by themselves, and tell nothing.
const TELLING: usize = 1_000;

/// The pace of one producer.
#[derive(Debug, Default)]
pub(super) struct Pace {
    rest: Duration,
    begun: Option<Stopwatch>,
    committed: Option<Stopwatch>,
}

impl Pace {
    /// How long to wait before the next transaction begins.
    pub fn rest(&self) -> Duration {
        self.committed.map_or(Duration::ZERO, |committed| self.rest.saturating_sub(committed.elapsed()))
    }

    /// The first message of a transaction is sent now.
    pub fn begin(&mut self) {
        self.begun = Some(Stopwatch::start());
    }

    /// The broker has all messages of the transaction.
    pub fn taken(&mut self, messages: usize) {
        if let Some(begun) = self.begun.take().filter(|_| messages <= TELLING) {
            self.rest = learn(self.rest, begun.elapsed());
        }
    }

    /// The transaction is committed.
    pub fn committed(&mut self) {
        self.committed = Some(Stopwatch::start());
    }
}

/// The rest after a transaction whose messages took so long.
fn learn(rest: Duration, took: Duration) -> Duration {
    if took >= REFUSED { (rest + STEP).min(LONGEST) } else { rest - rest / EASE }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_settles_where_few_are_refused() {
        let (marking, quick) = (Duration::from_millis(4), Duration::from_millis(3));
        let (mut rest, mut refused) = (Duration::ZERO, 0);
        for n in 0..1_000 {
            let is_refused = rest < marking;
            rest = learn(rest, if is_refused { REFUSED + quick } else { quick });
            refused += u32::from(is_refused && n >= 100);
        }
        assert!(refused < 150, "{refused} of 900 were refused");
        assert!(rest < Duration::from_millis(6), "{rest:?}");
    }

    #[test]
    fn it_has_a_bound_and_goes_away() {
        let mut rest = (0..100).fold(Duration::ZERO, |rest, _| learn(rest, REFUSED));
        assert_eq!(rest, LONGEST);
        rest = (0..500).fold(rest, |rest, _| learn(rest, Duration::ZERO));
        assert!(rest < Duration::from_micros(10), "{rest:?}");
    }
}
