//! The open connections: how many there may be, and which goes when one more comes.
//!
//! Promises: one address has at most its own part of them; when all are taken, whoever waits for its client longest goes, first
//! of the address that has the most; a connection whose request is being worked on is never closed for another. Counting is by
//! client's side: bytes we wait for or wait to get rid of are the client's turn.

use crate::admission::{Address, Ingress};
use crate::engine::model::Timestamp;
use crate::engine::time::Clock;
use parking_lot::{Mutex, MutexGuard};
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Connections that were told to go and are not gone yet; more are waited for, so that sockets stay bounded.
const GOING_MAX: usize = 256;

/// A connection that makes room for another of its own address has waited at least so long: an address that opens more than
/// its part within this is turned away at once, which costs less than to seat it.
const SEATED_FOR: Duration = Duration::from_secs(1);

/// All open connections. Cheap to clone.
#[derive(Clone)]
pub(super) struct Peers {
    inner: Arc<PeersInner>,
}

struct PeersInner {
    most: usize,
    most_of_one: usize,
    ingress: Ingress,
    clock: Arc<dyn Clock>,
    open: Mutex<OpenConnection>,
    gone: Notify,
}

#[derive(Default)]
struct OpenConnection {
    /// Those that may stay.
    staying: usize,
    /// Those that were told to go.
    going: usize,
    by: HashMap<Address, OfAddress>,
}

/// The connections of one address.
#[derive(Default)]
struct OfAddress {
    peers: Vec<Arc<Peer>>,
    /// None of them has waited for its client since before this time: what begins to wait later does so from then on. So an
    /// address that floods us is turned away without a look at each of them.
    none_before: Option<Timestamp>,
}

/// One connection.
pub(super) struct Peer {
    address: Address,
    clock: Arc<dyn Clock>,
    turn: Mutex<Waits>,
    /// Requests since all that was sent was read.
    asked: AtomicU32,
    go: CancellationToken,
}

/// What of a connection waits.
#[derive(Clone, Copy)]
struct Waits {
    /// A request is being worked on.
    working: bool,
    /// More of its body is waited for.
    body: bool,
    /// The client does not take what we send.
    stuck: bool,
    /// When it became the client's turn.
    since: Timestamp,
    /// Nothing is read before.
    rests_until: Timestamp,
}

impl Waits {
    fn is_clients_turn(&self) -> bool {
        !self.working || self.body || self.stuck
    }
}

/// The place of a connection, free when dropped.
pub(super) struct ConnectionPlace {
    peers: Arc<PeersInner>,
    peer: Arc<Peer>,
}

/// Why a connection has no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoPlace {
    /// All connections of its address are being worked on, or have just come.
    Address,
    /// All connections are.
    All,
}

impl Peers {
    /// `most` of them, and the rest as set.
    pub(super) fn new(ingress: Ingress, most: usize, clock: Arc<dyn Clock>) -> Peers {
        let most_of_one = ingress.connections_per_address.min(most);
        let inner = PeersInner { most, most_of_one, ingress, clock, open: Mutex::default(), gone: Notify::new() };
        Peers { inner: Arc::new(inner) }
    }

    /// Where time comes from.
    pub(super) fn clock(&self) -> &Arc<dyn Clock> {
        &self.inner.clock
    }

    /// What is set.
    pub(super) fn ingress(&self) -> &Ingress {
        &self.inner.ingress
    }

    /// A place for a connection from `ip`. Makes room where somebody waits for his client.
    pub(super) fn seat(&self, ip: IpAddr) -> Result<ConnectionPlace, NoPlace> {
        let address = Address::from(ip);
        let mut open = self.inner.open();
        // All clients of a proxy come from one address.
        let bounded = !self.inner.ingress.proxies.has(ip);
        let of_one = open.by.get(&address).map_or(0, |of| of.peers.len());
        if bounded && of_one >= self.inner.most_of_one {
            let before = self.inner.clock.now().minus(SEATED_FOR);
            open.let_go(address, before).ok_or(NoPlace::Address)?;
        } else if open.staying >= self.inner.most {
            open.let_one_go().ok_or(NoPlace::All)?;
        }
        let now = self.inner.clock.now();
        let turn =
            Mutex::new(Waits { working: false, body: false, stuck: false, since: now, rests_until: Timestamp::NONE });
        let (clock, asked, go) = (self.inner.clock.clone(), AtomicU32::new(0), CancellationToken::new());
        let peer = Arc::new(Peer { address, clock, turn, asked, go });
        open.staying += 1;
        open.by.entry(address).or_default().peers.push(peer.clone());
        Ok(ConnectionPlace { peers: self.inner.clone(), peer })
    }

    /// Makes room for one more if anybody can go: there are no more sockets to be had.
    pub(super) fn make_room(&self) -> bool {
        self.inner.open().let_one_go().is_some()
    }

    /// Returns when a connection is gone.
    pub(super) async fn one_gone(&self) {
        self.inner.gone.notified().await;
    }

    /// Returns once not too many are on their way out.
    pub(super) async fn settled(&self) {
        while self.inner.open().going > GOING_MAX {
            self.one_gone().await;
        }
    }
}

impl PeersInner {
    fn open(&self) -> MutexGuard<'_, OpenConnection> {
        self.open.lock()
    }
}

impl OpenConnection {
    /// Tells the one of an address to go that waits for its client longest, if since no later than `before`.
    fn let_go(&mut self, address: Address, before: Timestamp) -> Option<()> {
        let of = self.by.get_mut(&address)?;
        if of.none_before.is_some_and(|since| since > before) {
            return None;
        }
        let waiting = of.peers.iter().enumerate().filter_map(|(at, peer)| Some((peer.waits_since()?, at)));
        let first = waiting.min();
        of.none_before = first.map(|(since, _)| since);
        let (_, at) = first.filter(|(since, _)| *since <= before)?;
        let peer = of.peers.swap_remove(at);
        if of.peers.is_empty() {
            self.by.remove(&address);
        }
        self.staying -= 1;
        self.going += 1;
        peer.go.cancel();
        Some(())
    }

    /// The same of the address that has the most, however short it has waited.
    fn let_one_go(&mut self) -> Option<()> {
        const LATEST: Timestamp = Timestamp(i64::MAX);
        let most = self.by.iter().max_by_key(|(_, of)| of.peers.len()).map(|(address, _)| *address)?;
        if self.let_go(most, LATEST).is_some() {
            return Some(());
        }
        // All of that one are being worked on.
        let mut others: Vec<(usize, Address)> =
            self.by.iter().map(|(address, of)| (of.peers.len(), *address)).collect();
        others.sort_unstable_by(|a, b| b.cmp(a));
        others.into_iter().find_map(|(_, address)| self.let_go(address, LATEST))
    }
}

impl ConnectionPlace {
    /// The connection.
    pub(super) fn peer(&self) -> &Arc<Peer> {
        &self.peer
    }
}

impl Drop for ConnectionPlace {
    fn drop(&mut self) {
        let mut open = self.peers.open();
        let of_one = open.by.get_mut(&self.peer.address);
        let left = of_one.and_then(|of| {
            let at = of.peers.iter().position(|peer| Arc::ptr_eq(peer, &self.peer))?;
            of.peers.swap_remove(at);
            Some(of.peers.is_empty())
        });
        match left {
            Some(none_left) => {
                open.staying -= 1;
                if none_left {
                    open.by.remove(&self.peer.address);
                }
            }
            None => open.going -= 1,
        }
        drop(open);
        self.peers.gone.notify_waiters();
    }
}

impl Peer {
    /// Returns when the connection has to go.
    pub(super) async fn told_to_go(&self) {
        self.go.cancelled().await;
    }

    /// A request begins or its answer ends.
    pub(super) fn works(&self, working: bool) {
        self.note(|waits| waits.working = working);
    }

    /// More of a body is waited for, or is there.
    pub(super) fn waits_for_body(&self, body: bool) {
        self.note(|waits| waits.body = body);
    }

    /// The client does not take what we send, or takes it again.
    pub(super) fn is_stuck(&self, stuck: bool) {
        self.note(|waits| waits.stuck = stuck);
    }

    /// All that was sent is read.
    pub(super) fn has_read_all(&self) {
        self.asked.store(0, Ordering::Relaxed);
    }

    /// Notes a request; how many there were before it since all that was sent was read.
    pub(super) fn asked_ahead(&self) -> u32 {
        self.asked.fetch_add(1, Ordering::Relaxed)
    }

    /// Nothing more is read for a while.
    pub(super) fn rests_until(&self, at: Timestamp) {
        self.note(|waits| waits.rests_until = at);
    }

    /// Until when nothing is read.
    pub(super) fn reads_again_at(&self) -> Timestamp {
        self.waits().rests_until
    }

    /// Since when it is the client's turn, if it is.
    fn waits_since(&self) -> Option<Timestamp> {
        let waits = self.waits();
        waits.is_clients_turn().then_some(waits.since)
    }

    fn note(&self, change: impl FnOnce(&mut Waits)) {
        let mut waits = self.waits();
        let before = waits.is_clients_turn();
        change(&mut waits);
        if waits.is_clients_turn() && !before {
            waits.since = self.clock.now();
        }
    }

    fn waits(&self) -> MutexGuard<'_, Waits> {
        self.turn.lock()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::time::ManualClock;

    fn peers(connections: usize, of_one: usize) -> (Peers, Arc<ManualClock>) {
        let clock = Arc::new(ManualClock::new(Timestamp(1)));
        let ingress = Ingress { connections, connections_per_address: of_one, ..Ingress::default() };
        (Peers::new(ingress, connections, clock.clone()), clock)
    }

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([127, 0, 0, last])
    }

    fn gone(places: &[ConnectionPlace]) -> Vec<usize> {
        places.iter().enumerate().filter(|(_, place)| place.peer.go.is_cancelled()).map(|(at, _)| at).collect()
    }

    #[test]
    fn the_oldest_idle_one_of_who_has_most_goes_and_the_newcomer_has_its_place_at_once() {
        let (peers, clock) = peers(6, 4);
        let mut places = Vec::new();
        for last in [1, 2, 2, 2, 2, 1] {
            clock.advance(Duration::from_secs(1));
            places.push(peers.seat(ip(last)).expect("a place"));
        }
        // The second is being worked on, so the third is the oldest idle one of address 2.
        places[1].peer.works(true);
        places.push(peers.seat(ip(3)).expect("at once"));
        assert_eq!(gone(&places), [2]);
        // One waits for its client though it is worked on: its body does not come. It has waited least.
        clock.advance(Duration::from_secs(1));
        places[1].peer.waits_for_body(true);
        places.push(peers.seat(ip(4)).expect("at once"));
        assert_eq!(gone(&places), [2, 3]);
        places.push(peers.seat(ip(5)).expect("at once"));
        assert!(!gone(&places).contains(&1), "{:?}", gone(&places));
    }

    #[test]
    fn one_address_has_its_part_and_gives_up_its_own_oldest() {
        let (peers, clock) = peers(10, 3);
        let mut places = Vec::new();
        for _ in 0..3 {
            clock.advance(Duration::from_secs(1));
            places.push(peers.seat(ip(1)).expect("a place"));
        }
        let other = peers.seat(ip(2)).expect("a place");
        places.push(peers.seat(ip(1)).expect("for its own oldest"));
        assert_eq!(gone(&places), [0]);
        places.iter().for_each(|place| place.peer.works(true));
        assert_eq!(peers.seat(ip(1)).err(), Some(NoPlace::Address));
        places[2].peer.is_stuck(true);
        assert_eq!(peers.seat(ip(1)).err(), Some(NoPlace::Address), "it has not waited yet");
        clock.advance(SEATED_FOR);
        assert!(peers.seat(ip(1)).is_ok(), "one whose client reads nothing is no work");
        assert!(!other.peer.go.is_cancelled());
        drop((places, other));
        let open = peers.inner.open();
        assert_eq!((open.staying, open.going, open.by.len()), (0, 0, 0), "nothing is left behind");
    }

    #[test]
    fn work_in_progress_is_never_closed_for_another() {
        let (peers, _clock) = peers(2, 2);
        let places = [peers.seat(ip(1)).expect("a place"), peers.seat(ip(2)).expect("a place")];
        places.iter().for_each(|place| place.peer.works(true));
        assert_eq!(peers.seat(ip(3)).err(), Some(NoPlace::All));
        places[1].peer.works(false);
        assert!(peers.seat(ip(3)).is_ok());
        assert_eq!(gone(&places), [1]);
    }
}
