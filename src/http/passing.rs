//! A body that is passed on: kept while it is small, so that it can be sent again, and handed on as it comes beyond that.
//!
//! Promises: what is kept takes memory that is counted for who sends it; a sender who stands still or goes slower than
//! [`BYTES_A_SECOND`] in the long run is cut off, while one whose body nobody takes is not; no more than the bound passes.

use super::answers::counted;
use super::body::{BYTES_A_SECOND, GRACE, Unread};
use crate::admission::Share;
use crate::connectors::http::PassedBody;
use crate::engine::time::Clock;
use axum::body::{Body, HttpBody};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream;
use http_body_util::BodyExt;
use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Kept to be sent again.
pub(crate) const KEPT: usize = 1 << 20;
/// Longest standstill that a sender can earn.
const PATIENCE: Duration = Duration::from_secs(30);

/// A body, and what became of it on its way.
pub(crate) struct PassingBody {
    /// To be sent.
    pub body: PassedBody,
    broken: Arc<OnceLock<Unread>>,
}

/// What is still to come.
struct Rest {
    body: Body,
    clock: Arc<dyn Clock>,
    /// Of the sender's time.
    left: Duration,
    /// Bytes that may still come.
    room: u64,
    broken: Arc<OnceLock<Unread>>,
}

impl PassingBody {
    /// Takes a body of at most `most` bytes as far as it is kept. `length` is what its sender announced.
    pub(crate) async fn begin(
        body: Body,
        length: Option<u64>,
        most: u64,
        mut memory: Share,
        clock: Arc<dyn Clock>,
    ) -> Result<PassingBody, Unread> {
        let broken = Arc::<OnceLock<Unread>>::default();
        if body.is_end_stream() {
            return Ok(PassingBody { body: PassedBody::None, broken });
        }
        if length.is_some_and(|length| length > most) {
            return Err(Unread::TooLarge);
        }
        let mut rest = Rest { body, clock, left: GRACE, room: most, broken: broken.clone() };
        let mut kept: Vec<u8> = Vec::new();
        while kept.len() < KEPT {
            let Some(part) = rest.next().await? else {
                return Ok(PassingBody { body: PassedBody::Whole(counted(kept, memory)), broken });
            };
            let needed = kept.len() + part.len();
            if needed > kept.capacity() {
                let wanted = (2 * kept.capacity()).max(needed);
                let had = [wanted, needed].into_iter().find(|bytes| memory.grow_to(*bytes)).ok_or(Unread::NoMemory)?;
                kept.reserve_exact(had - kept.len());
            }
            kept.extend_from_slice(&part);
        }
        let first = stream::once(std::future::ready(Ok(counted(kept, memory))));
        let body = PassedBody::Passing(first.chain(rest.stream()).boxed(), length);
        Ok(PassingBody { body, broken })
    }

    /// Why the sender's part of it ended early, if it did: known once it was sent.
    pub(crate) fn broken(&self) -> impl Fn() -> Option<Unread> + use<> {
        let broken = self.broken.clone();
        move || broken.get().copied()
    }
}

impl Rest {
    async fn next(&mut self) -> Result<Option<Bytes>, Unread> {
        let part = self.part().await;
        if let Err(why) = &part {
            let _ = self.broken.set(*why);
        }
        part
    }

    async fn part(&mut self) -> Result<Option<Bytes>, Unread> {
        loop {
            let began = self.clock.now();
            let frame = tokio::select! {
                frame = self.body.frame() => frame,
                () = self.clock.sleep(self.left) => return Err(Unread::TooSlow),
            };
            let data = match frame {
                None => return Ok(None),
                Some(Err(_)) => return Err(Unread::CutOff),
                Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
            };
            self.room = self.room.checked_sub(data.len() as u64).ok_or(Unread::TooLarge)?;
            // Only what is waited for the sender is his time.
            let waited = self.clock.now().since(began);
            let earned = Duration::from_millis(data.len() as u64 * 1_000 / BYTES_A_SECOND);
            self.left = (self.left.saturating_sub(waited) + earned).min(PATIENCE);
            if !data.is_empty() {
                return Ok(Some(data));
            }
        }
    }

    fn stream(self) -> impl futures_util::Stream<Item = io::Result<Bytes>> {
        stream::unfold(Some(self), |rest| async {
            let mut rest = rest?;
            match rest.next().await {
                Ok(part) => part.map(|part| (Ok(part), Some(rest))),
                Err(why) => Some((Err(io::Error::other(format!("the sender's body ended early: {why:?}"))), None)),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::{Holder, Pool};
    use crate::engine::model::Timestamp;
    use crate::engine::time::ManualClock;
    use futures_util::FutureExt;

    fn memory(pool: &Pool) -> Share {
        pool.share([Holder::of("key", 1), Holder::of("environment", 1)])
    }

    fn clock() -> Arc<ManualClock> {
        Arc::new(ManualClock::new(Timestamp::from_seconds(1_000)))
    }

    /// A body of parts of 64 KiB.
    fn parts(count: usize) -> Body {
        let part = || Ok::<_, io::Error>(Bytes::from(vec![7; 64 << 10]));
        Body::from_stream(stream::iter((0..count).map(move |_| part())))
    }

    async fn begun(body: Body, length: Option<u64>, most: u64) -> Result<PassingBody, Unread> {
        let pool = Pool::new(32 << 20, 64 << 10);
        PassingBody::begin(body, length, most, memory(&pool), clock()).await
    }

    #[tokio::test]
    async fn small_ones_are_kept_and_large_ones_pass() {
        assert!(matches!(begun(Body::empty(), None, 10).await.expect("none").body, PassedBody::None));
        let PassedBody::Whole(kept) = begun(parts(15), None, 10 << 20).await.expect("small").body else {
            panic!("it is kept")
        };
        assert_eq!(kept.len(), 15 * (64 << 10));
        let large = begun(parts(40), Some(40 * (64 << 10)), 10 << 20).await.expect("large");
        let PassedBody::Passing(bytes, length) = large.body else { panic!("it passes") };
        assert_eq!(length, Some(40 * (64 << 10)));
        let came: usize = bytes.map(|part| part.expect("a part").len()).collect::<Vec<_>>().await.iter().sum();
        assert_eq!(came, 40 * (64 << 10));
    }

    #[tokio::test]
    async fn no_more_than_the_bound_passes() {
        assert_eq!(begun(parts(1), Some(11 << 20), 10 << 20).await.err(), Some(Unread::TooLarge), "as announced");
        assert_eq!(begun(parts(15), None, 1_000).await.err(), Some(Unread::TooLarge), "while it is kept");
        let passing = begun(parts(40), None, 2 << 20).await.expect("begun");
        let broken = passing.broken();
        let PassedBody::Passing(mut bytes, _) = passing.body else { panic!("it passes") };
        let mut came = 0;
        let why = loop {
            match bytes.next().await.expect("an end") {
                Ok(part) => came += part.len(),
                Err(why) => break why,
            }
        };
        assert!(came <= 2 << 20 && broken() == Some(Unread::TooLarge), "{came}: {why}");
        assert!(bytes.next().await.is_none());
    }

    #[tokio::test]
    async fn who_stands_still_is_cut_off_and_who_is_not_asked_for_more_is_not() {
        let clock = clock();
        let pool = Pool::new(32 << 20, 64 << 10);
        let still = Body::from_stream(stream::pending::<io::Result<Bytes>>());
        let mut begins = Box::pin(PassingBody::begin(still, None, 10 << 20, memory(&pool), clock.clone()));
        assert!(begins.as_mut().now_or_never().is_none());
        clock.advance(GRACE);
        assert_eq!(begins.await.err(), Some(Unread::TooSlow));
        let large = PassingBody::begin(parts(40), None, 10 << 20, memory(&pool), clock.clone()).await.expect("large");
        let PassedBody::Passing(bytes, _) = large.body else { panic!("it passes") };
        clock.advance(10 * PATIENCE);
        assert!(bytes.collect::<Vec<_>>().await.iter().all(Result::is_ok));
    }
}
