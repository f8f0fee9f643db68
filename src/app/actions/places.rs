//! How many actions run at one time.
//!
//! Promises: no connection and no environment has more than its number; calls that nobody waits for leave places to those that
//! somebody does; actions within actions never wait for each other in a circle, because each depth has places of its own.

use crate::registry::connections::AccountKey;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Actions of a connection at one time, those within others not counted.
pub(super) const OF_CONNECTION: usize = 8;
/// The most of them that were called asynchronously.
const OF_CONNECTION_LATER: usize = 6;
/// Callers who may wait for a place of a connection.
pub(super) const WAITING: usize = 64;
/// Actions of an environment at one time: its worker process has 64 places, of which runs of syncs take up to 16.
const OF_ENVIRONMENT: usize = 24;
/// The most of them that were called asynchronously.
const OF_ENVIRONMENT_LATER: usize = 16;
/// Actions of an environment at one time that other functions have called, by how deep.
const WITHIN: usize = 6;

/// The places of all connections and environments.
#[derive(Default)]
pub(super) struct Places {
    connections: Mutex<BTreeMap<AccountKey, Arc<Room>>>,
    environments: Mutex<BTreeMap<String, Arc<Room>>>,
    within: Mutex<BTreeMap<(String, u32), Arc<Semaphore>>>,
}

/// The right to run one action.
pub(super) struct Place {
    _held: Vec<OwnedSemaphorePermit>,
    /// The rooms are kept while somebody is in them.
    _rooms: [Arc<Room>; 2],
}

struct Room {
    all: Arc<Semaphore>,
    later: Arc<Semaphore>,
    waiting: AtomicUsize,
}

/// Counts a caller who waits, for as long as it lives.
struct Waits<'a>(&'a AtomicUsize);

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Room {
    fn new(all: usize, later: usize) -> Room {
        Room {
            all: Arc::new(Semaphore::new(all)),
            later: Arc::new(Semaphore::new(later)),
            waiting: AtomicUsize::new(0),
        }
    }
}

impl Places {
    /// A place for somebody who waits for the output; `None` if too many wait already.
    pub(super) async fn now(&self, key: &AccountKey) -> Option<Place> {
        let rooms = self.rooms(key);
        let waiting = &rooms[0].waiting;
        let waits = (waiting.fetch_add(1, Ordering::Relaxed), Waits(waiting));
        if waits.0 >= WAITING {
            return None;
        }
        let mut held = Vec::with_capacity(2);
        for room in &rooms {
            held.push(room.all.clone().acquire_owned().await.ok()?);
        }
        drop(waits);
        Some(Place { _held: held, _rooms: rooms })
    }

    /// A place for a call that nobody waits for.
    pub(super) async fn later(&self, key: &AccountKey) -> Option<Place> {
        let rooms = self.rooms(key);
        let mut held = Vec::with_capacity(4);
        for semaphore in rooms.iter().flat_map(|room| [&room.later, &room.all]) {
            held.push(semaphore.clone().acquire_owned().await.ok()?);
        }
        Some(Place { _held: held, _rooms: rooms })
    }

    /// A place for an action within so many others.
    pub(super) async fn within(&self, environment: &str, depth: u32) -> Option<OwnedSemaphorePermit> {
        let new = || Arc::new(Semaphore::new(WITHIN));
        let place = self.within.lock().entry((environment.to_owned(), depth)).or_insert_with(new).clone();
        place.acquire_owned().await.ok()
    }

    fn rooms(&self, key: &AccountKey) -> [Arc<Room>; 2] {
        let connection = room(&self.connections, key.clone(), || Room::new(OF_CONNECTION, OF_CONNECTION_LATER));
        let environment = key.environment.clone();
        let environment = room(&self.environments, environment, || Room::new(OF_ENVIRONMENT, OF_ENVIRONMENT_LATER));
        [connection, environment]
    }
}

/// The room of a name; those that nobody is in are forgotten.
fn room<K: Ord>(rooms: &Mutex<BTreeMap<K, Arc<Room>>>, of: K, new: impl FnOnce() -> Room) -> Arc<Room> {
    let mut rooms = rooms.lock();
    rooms.retain(|name, room| *name == of || Arc::strong_count(room) > 1);
    rooms.entry(of).or_insert_with(|| Arc::new(new())).clone()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::{Context, Poll, Waker};

    /// Whether somebody has a place at once, has to wait, or is sent away.
    fn begin<F: Future>(mut future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
        future.as_mut().poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn a_connection_has_eight_places_and_sixty_four_who_wait() {
        let places = Places::default();
        let key = |id: &str| AccountKey::new("default", "shop", id);
        let acme = key("acme");
        let mut inside = Vec::new();
        for _ in 0..OF_CONNECTION {
            let Poll::Ready(Some(place)) = begin(std::pin::pin!(places.now(&acme))) else { panic!("there is room") };
            inside.push(place);
        }
        let mut waiting: Vec<_> = (0..WAITING).map(|_| Box::pin(places.now(&acme))).collect();
        assert!(waiting.iter_mut().all(|one| begin(one.as_mut()).is_pending()));
        assert!(matches!(begin(std::pin::pin!(places.now(&acme))), Poll::Ready(None)), "too many wait");
        assert!(matches!(begin(std::pin::pin!(places.now(&key("other")))), Poll::Ready(Some(_))));

        // Who goes away makes room for another one who waits, and who leaves lets the first in.
        waiting.pop();
        assert!(begin(std::pin::pin!(places.now(&acme))).is_pending());
        inside.pop();
        assert!(matches!(begin(waiting[0].as_mut()), Poll::Ready(Some(_))));
    }

    #[test]
    fn calls_that_nobody_waits_for_leave_places_to_others() {
        let places = Places::default();
        let acme = AccountKey::new("default", "shop", "acme");
        let mut inside = Vec::new();
        for _ in 0..OF_CONNECTION_LATER {
            let Poll::Ready(Some(place)) = begin(std::pin::pin!(places.later(&acme))) else { panic!("there is room") };
            inside.push(place);
        }
        assert!(begin(std::pin::pin!(places.later(&acme))).is_pending());
        let Poll::Ready(Some(_now)) = begin(std::pin::pin!(places.now(&acme))) else { panic!("there is room") };
    }
}
