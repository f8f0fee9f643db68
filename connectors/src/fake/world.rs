//! The world: what one account of the fake provider holds, and how it changes as time passes.
//!
//! Promises: the seed and the time alone decide what happens, so two worlds of one seed turned to the same time are
//! equal; it is the truth tests compare with. Does not: speak HTTP ([`server`](super)) or send webhooks.

use super::generator::Generator;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use syncline_engine::model::Timestamp;

/// Contacts with the lowest ids are left alone by chance: scenes may change them without disturbing what the seed decides.
pub const RESERVED: u64 = 4;

/// How often a contact is drawn again when the first one was changed too recently.
const DRAWS: usize = 32;

/// How the world changes.
#[derive(Clone, Debug)]
pub struct WorldOptions {
    /// Decides everything.
    pub seed: u64,
    /// Contacts at the start.
    pub records: u64,
    /// When the world begins.
    pub start: Timestamp,
    /// Mean time between changes; `None`: nothing happens by itself.
    pub change_every: Option<Duration>,
    /// Nothing happens by itself from then on.
    pub until: Option<Timestamp>,
    /// A contact is left alone for so long after a change, so that a poller can see each version.
    pub cooldown: Duration,
    /// Share of new contacts among changes.
    pub created: f64,
    /// Share of deleted contacts among changes.
    pub deleted: f64,
}

impl WorldOptions {
    /// A world in which nothing happens by itself.
    pub fn still(seed: u64, records: u64, start: Timestamp) -> Self {
        WorldOptions {
            seed,
            records,
            start,
            change_every: None,
            until: None,
            cooldown: Duration::ZERO,
            created: 0.2,
            deleted: 0.15,
        }
    }
}

/// What happened to a contact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Deed {
    /// It is new.
    Created,
    /// It has a new version.
    Updated,
    /// It is gone.
    Deleted,
}

/// One change of the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Happening {
    /// Number in this world, from 1.
    pub sequence: u64,
    /// What happened.
    pub deed: Deed,
    /// To which contact.
    pub id: u64,
    /// Its version from then on.
    pub version: u32,
    /// When.
    pub at: Timestamp,
}

#[derive(Clone, Copy, Debug)]
struct Contact {
    version: u32,
    updated_at: Timestamp,
    deleted: bool,
}

/// All contacts of one account.
pub struct World {
    options: WorldOptions,
    generator: Generator,
    contacts: BTreeMap<u64, Contact>,
    /// Live contacts by (updated_at, id): serves filters and orders by time without a scan.
    by_time: BTreeSet<(Timestamp, u64)>,
    gone: BTreeSet<(Timestamp, u64)>,
    next_id: u64,
    next_at: Option<Timestamp>,
    sequence: u64,
    rng: ChaCha8Rng,
}

impl World {
    /// A world with its first contacts, the newest changed at `start`.
    pub fn new(options: WorldOptions) -> Self {
        let mut world = World {
            generator: Generator::new(options.seed),
            contacts: BTreeMap::new(),
            by_time: BTreeSet::new(),
            gone: BTreeSet::new(),
            next_id: options.records + 1,
            next_at: None,
            sequence: 0,
            rng: ChaCha8Rng::seed_from_u64(options.seed),
            options,
        };
        for id in 1..=world.options.records {
            // Spread over the past at one second each, so that filters by time have something to tell apart.
            let age = Duration::from_secs(world.options.records - id);
            world.place(id, 1, world.options.start.minus(age));
        }
        world.next_at = world.draw_next(world.options.start);
        world
    }

    /// Lets happen what is due up to `now`.
    pub fn advance(&mut self, now: Timestamp) -> Vec<Happening> {
        let mut happened = Vec::new();
        while let Some(at) = self.next_at.filter(|at| *at <= now) {
            happened.push(self.step(at));
            self.next_at = self.draw_next(at);
        }
        happened
    }

    /// When something happens next by itself.
    pub fn next_at(&self) -> Option<Timestamp> {
        self.next_at
    }

    /// Nothing happens by itself any more.
    pub fn rest(&mut self) {
        self.next_at = None;
    }

    /// A new contact.
    pub fn create(&mut self, at: Timestamp) -> Happening {
        let id = self.next_id;
        self.next_id += 1;
        self.place(id, 1, at);
        self.happening(Deed::Created, id, 1, at)
    }

    /// A new version of a live contact.
    pub fn update(&mut self, id: u64, at: Timestamp) -> Option<Happening> {
        let version = self.contacts.get(&id).filter(|c| !c.deleted)?.version + 1;
        self.place(id, version, at);
        Some(self.happening(Deed::Updated, id, version, at))
    }

    /// Takes a live contact away.
    pub fn delete(&mut self, id: u64, at: Timestamp) -> Option<Happening> {
        let contact = self.contacts.get_mut(&id).filter(|c| !c.deleted)?;
        self.by_time.remove(&(contact.updated_at, id));
        contact.deleted = true;
        contact.updated_at = at;
        let version = contact.version;
        self.gone.insert((at, id));
        Some(self.happening(Deed::Deleted, id, version, at))
    }

    /// Live contacts.
    pub fn len(&self) -> u64 {
        self.by_time.len() as u64
    }

    /// Whether no contact is live.
    pub fn is_empty(&self) -> bool {
        self.by_time.is_empty()
    }

    /// The version of a live contact.
    pub fn version(&self, id: u64) -> Option<u32> {
        self.contacts.get(&id).filter(|c| !c.deleted).map(|c| c.version)
    }

    /// The JSON of a live contact, appended; false if there is none.
    pub fn write(&self, id: u64, buf: &mut Vec<u8>) -> bool {
        match self.contacts.get(&id).filter(|c| !c.deleted) {
            Some(c) => {
                self.generator.record_at(buf, id, c.version, c.updated_at);
                true
            }
            None => false,
        }
    }

    /// The truth: JSON of every live contact by id.
    pub fn truth(&self) -> BTreeMap<String, String> {
        let mut truth = BTreeMap::new();
        for id in self.ids_after(0) {
            let mut buf = Vec::new();
            if self.write(id, &mut buf) {
                truth.insert(id.to_string(), String::from_utf8_lossy(&buf).into_owned());
            }
        }
        truth
    }

    /// Ids of live contacts above `id`, rising.
    pub fn ids_after(&self, id: u64) -> impl Iterator<Item = u64> + '_ {
        self.contacts.range(id.saturating_add(1)..).filter(|(_, c)| !c.deleted).map(|(id, _)| *id)
    }

    /// Live contacts changed in `[since, until)`, by time and id, after the given place.
    pub fn changed(
        &self,
        since: Timestamp,
        until: Timestamp,
        after: Option<(Timestamp, u64)>,
    ) -> impl DoubleEndedIterator<Item = (Timestamp, u64)> + '_ {
        window(&self.by_time, since, until, after)
    }

    /// Deleted contacts of `[since, until)` by time and id, after the given place.
    pub fn deleted(
        &self,
        since: Timestamp,
        until: Timestamp,
        after: Option<(Timestamp, u64)>,
    ) -> impl DoubleEndedIterator<Item = (Timestamp, u64)> + '_ {
        window(&self.gone, since, until, after)
    }

    fn step(&mut self, at: Timestamp) -> Happening {
        let lot: f64 = self.rng.random();
        let target = if lot < self.options.created { None } else { self.draw_contact(at) };
        let happened = match target {
            Some(id) if lot < self.options.created + self.options.deleted => self.delete(id, at),
            Some(id) => self.update(id, at),
            None => None,
        };
        match happened {
            Some(happening) => happening,
            None => self.create(at),
        }
    }

    fn draw_contact(&mut self, at: Timestamp) -> Option<u64> {
        if self.next_id <= RESERVED + 1 {
            return None;
        }
        let quiet_since = at.minus(self.options.cooldown);
        (0..DRAWS).find_map(|_| {
            let id = self.rng.random_range(RESERVED + 1..self.next_id);
            self.contacts.get(&id).filter(|c| !c.deleted && c.updated_at <= quiet_since).map(|_| id)
        })
    }

    fn draw_next(&mut self, from: Timestamp) -> Option<Timestamp> {
        let mean = self.options.change_every?;
        // Between half and one and a half of the mean: lively, but never a burst that hides a version.
        let next = from.plus(mean.mul_f64(self.rng.random_range(0.5..1.5)).max(Duration::from_micros(1)));
        self.options.until.is_none_or(|end| next < end).then_some(next)
    }

    fn place(&mut self, id: u64, version: u32, at: Timestamp) {
        if let Some(old) = self.contacts.insert(id, Contact { version, updated_at: at, deleted: false }) {
            self.by_time.remove(&(old.updated_at, id));
        }
        self.by_time.insert((at, id));
    }

    fn happening(&mut self, deed: Deed, id: u64, version: u32, at: Timestamp) -> Happening {
        self.sequence += 1;
        Happening { sequence: self.sequence, deed, id, version, at }
    }
}

fn window(
    set: &BTreeSet<(Timestamp, u64)>,
    since: Timestamp,
    until: Timestamp,
    after: Option<(Timestamp, u64)>,
) -> impl DoubleEndedIterator<Item = (Timestamp, u64)> + '_ {
    let first = after.map_or((since, 0), |(at, id)| (at, id.saturating_add(1))).max((since, 0));
    let end = (until, 0).max(first);
    set.range(first..end).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lively(seed: u64) -> World {
        World::new(WorldOptions {
            change_every: Some(Duration::from_millis(100)),
            cooldown: Duration::from_secs(1),
            ..WorldOptions::still(seed, 50, Timestamp::from_seconds(1_000))
        })
    }

    #[test]
    fn one_seed_one_story_however_time_is_turned() {
        let (mut a, mut b) = (lively(4), lively(4));
        let end = Timestamp::from_seconds(1_060);
        let all = a.advance(end);
        let mut pieces = Vec::new();
        for tick in 0..=600 {
            pieces.extend(b.advance(Timestamp::from_seconds(1_000).plus(Duration::from_millis(tick * 100))));
        }
        assert_eq!(all, pieces);
        assert!(all.len() > 400);
        assert_eq!(a.truth(), b.truth());
        assert_ne!(a.truth(), {
            let mut c = lively(5);
            c.advance(end);
            c.truth()
        });
    }

    #[test]
    fn the_cooldown_keeps_versions_apart_and_reserved_contacts_rest() {
        let mut world = lively(8);
        let mut last: BTreeMap<u64, Timestamp> = BTreeMap::new();
        for h in world.advance(Timestamp::from_seconds(1_060)) {
            assert!(h.id > RESERVED);
            if let Some(before) = last.insert(h.id, h.at) {
                assert!(h.at.since(before) >= Duration::from_secs(1), "{h:?}");
            }
        }
    }

    #[test]
    fn changed_lists_each_live_contact_once_and_deleted_the_others() {
        let mut world = lively(2);
        world.advance(Timestamp::from_seconds(1_030));
        let far = Timestamp(i64::MAX);
        let ids: BTreeSet<u64> = world.changed(Timestamp::NONE, far, None).map(|(_, id)| id).collect();
        assert_eq!(ids.len() as u64, world.len());
        assert_eq!(ids, world.ids_after(0).collect());
        assert!(world.deleted(Timestamp::NONE, far, None).all(|(_, id)| !ids.contains(&id)));
    }
}
