//! Memory for answers: one bound over all that are being read or held, taken as bytes arrive.
//!
//! The first [`FREE`] bytes of an answer are free. One that goes on waits for a place of [`SMALL`] bytes, beyond these for one
//! of [`MIDDLING`], and at last for one as large as it may become. Each step has a share of its own, so that answers which wait
//! for the next step never stand in the way of those that have it: somebody always gets on. The buffer is reserved at once for each step and the system gives
//! memory only for what is written to it, so an answer takes little more than its own length. A place is given back when the
//! answer is dropped.

use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes of answers in memory at once, unless the settings say otherwise.
pub const ANSWERS: u64 = 256 << 20;
/// Fewest bytes that may be set: room for one middling answer beside some small ones.
pub const ANSWERS_LEAST: u64 = 32 << 20;
/// Bytes of every answer that take no place: what a connection buffers anyhow.
const FREE: usize = 64 << 10;
/// Bytes of a small answer.
const SMALL: usize = 1 << 20;
/// Bytes of a middling answer.
const MIDDLING: usize = 8 << 20;
/// Longest wait for a place.
const WAIT: Duration = Duration::from_secs(10);
/// One permit stands for so many bytes.
const UNIT: usize = 1 << 10;

/// The memory that all answers share. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Room {
    bytes: u64,
    /// For small, middling and large answers.
    shares: [Arc<Semaphore>; 3],
    wait: Duration,
}

impl Default for Room {
    fn default() -> Self {
        Room::new(ANSWERS)
    }
}

impl Room {
    /// Of so many bytes: a quarter for small answers, a quarter for middling ones, the rest for large ones.
    pub fn new(bytes: u64) -> Room {
        let bytes = bytes.max(ANSWERS_LEAST);
        let share = |bytes: u64| Arc::new(Semaphore::new(permits(usize::try_from(bytes).unwrap_or(usize::MAX))));
        Room { bytes, shares: [bytes / 4, bytes / 4, bytes / 2].map(share), wait: WAIT }
    }

    /// All of it.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Most bytes of one answer.
    pub(super) fn most(&self) -> u64 {
        self.bytes / 2
    }
}

fn permits(bytes: usize) -> usize {
    (bytes / UNIT).min(Semaphore::MAX_PERMITS).min(u32::MAX as usize)
}

/// A place that is given back when it is dropped.
#[derive(Clone, Debug, Default)]
pub struct ReservedMemory(#[allow(dead_code, reason = "held for its drop")] Option<Arc<OwnedSemaphorePermit>>);

/// No place within the time that is waited for one.
#[derive(Debug)]
pub(super) struct NoRoom;

/// An answer as it comes.
pub(super) struct BufferedAnswer {
    room: Room,
    bytes: Vec<u8>,
    /// Bytes that may be gathered before the next step.
    granted: usize,
    /// Bytes it may come to.
    most: usize,
    held: Option<OwnedSemaphorePermit>,
}

impl BufferedAnswer {
    /// Of an answer of at most so many bytes.
    pub(super) fn new(room: &Room, most: u64) -> BufferedAnswer {
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        BufferedAnswer { room: room.clone(), bytes: Vec::new(), granted: FREE, most, held: None }
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Adds what came; waits for a place if it needs one.
    pub(super) async fn add(&mut self, chunk: &[u8]) -> Result<(), NoRoom> {
        let wanted = self.bytes.len() + chunk.len();
        if wanted > self.granted {
            self.step(wanted).await?;
        }
        self.bytes.extend_from_slice(chunk);
        Ok(())
    }

    async fn step(&mut self, wanted: usize) -> Result<(), NoRoom> {
        let [small, middling, large] = &self.room.shares;
        let steps = [(small, SMALL.min(self.most)), (middling, MIDDLING.min(self.most))];
        let step = steps.into_iter().find(|(_, size)| wanted <= *size);
        let (share, size) = step.unwrap_or((large, self.most.max(wanted)));
        let wanted = u32::try_from(size.div_ceil(UNIT)).unwrap_or(u32::MAX);
        let place = tokio::time::timeout(self.room.wait, share.clone().acquire_many_owned(wanted)).await;
        let place = place.ok().and_then(Result::ok).ok_or(NoRoom)?;
        self.bytes.reserve_exact(size - self.bytes.len());
        // The smaller place is given back now that its bytes lie in the larger one.
        (self.held, self.granted) = (Some(place), size);
        Ok(())
    }

    /// At most so many of its bytes, and their place.
    pub(super) fn done(mut self, most: u64) -> (Bytes, ReservedMemory) {
        self.bytes.truncate(usize::try_from(most).unwrap_or(usize::MAX));
        (Bytes::from(self.bytes), ReservedMemory(self.held.map(Arc::new)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn gathered(room: &Room, most: usize, bytes: usize) -> Result<(Bytes, ReservedMemory), NoRoom> {
        let mut gathering = BufferedAnswer::new(room, most as u64);
        let chunk = vec![7; 16 << 10];
        while gathering.len() < bytes {
            gathering.add(&chunk[..chunk.len().min(bytes - gathering.len())]).await?;
        }
        assert!(gathering.bytes.capacity() <= FREE.max(most) + chunk.len(), "{}", gathering.bytes.capacity());
        Ok(gathering.done(u64::MAX))
    }

    #[tokio::test]
    async fn places_are_given_back_and_never_held_by_those_who_wait_for_the_next() {
        let room = Room { wait: Duration::from_millis(50), ..Room::new(32 << 20) };
        assert_eq!(gathered(&room, 16 << 20, FREE).await.expect("free").0.len(), FREE);
        let free = |room: &Room| room.shares.each_ref().map(|share| share.available_permits());
        let all = free(&room);
        let small = gathered(&room, 16 << 20, 500_000).await.expect("a small one");
        let large = gathered(&room, 16 << 20, 9 << 20).await.expect("a large one");
        let middling = gathered(&room, 16 << 20, 5 << 20).await.expect("a middling one");
        assert_eq!(free(&room), [all[0] - SMALL / UNIT, 0, 0]);
        // More of the larger ones wait and give up; small ones go on meanwhile.
        let (second, third) = tokio::join!(gathered(&room, 16 << 20, 9 << 20), gathered(&room, 1 << 20, 900_000));
        assert!(second.is_err() && third.is_ok());
        drop((small, middling, large, third));
        assert_eq!(free(&room), all);
        // Twenty at once, each wanting the largest: all of them come through in turn.
        let room = Room { wait: WAIT, ..room };
        let many = futures_util::future::join_all(
            (0..20).map(|_| async { gathered(&room, 16 << 20, 9 << 20).await.map(drop) }),
        );
        assert!(many.await.iter().all(Result::is_ok));
        assert_eq!(free(&room), all);
    }
}
