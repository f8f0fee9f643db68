//! The work: a sequence of messages that is the same for every system, and the changes it must make.
//!
//! Of a hundred messages ten are new versions of records there are, one deletes one, one repeats one as it is, and the
//! others are new records. A deleted record never comes back, and versions only rise: systems that know nothing of modified
//! times have to make the same changes as one that does.

use syncline_provider::Generator;

/// One message.
#[derive(Clone, Copy, Debug)]
pub struct Message {
    /// The record.
    pub id: u64,
    /// Its version; `None` deletes it.
    pub version: Option<u32>,
}

/// Changes by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    pub created: u64,
    pub updated: u64,
    pub deleted: u64,
}

impl Changes {
    /// All of them.
    pub fn all(&self) -> u64 {
        self.created + self.updated + self.deleted
    }
}

/// Makes the messages.
pub struct Work {
    generator: Generator,
    /// Messages of the part in one go.
    pub messages: Vec<Message>,
    /// What they must make.
    pub changes: Changes,
    /// Versions by id; 0: deleted. Id 0 is none.
    versions: Vec<u32>,
}

impl Work {
    /// Of so many messages.
    pub fn new(count: u64) -> Work {
        let mut work = Work {
            generator: Generator::new(1),
            messages: Vec::with_capacity(count as usize),
            changes: Changes::default(),
            versions: vec![0],
        };
        let mut chance = 0x9e37_79b9_7f4a_7c15_u64;
        for n in 0..count {
            let message = work.next(n, &mut chance);
            work.messages.push(message);
        }
        work
    }

    fn next(&mut self, n: u64, chance: &mut u64) -> Message {
        let kind = n % 100;
        if n < 100 || kind >= 12 {
            self.versions.push(1);
            self.changes.created += 1;
            return Message { id: self.versions.len() as u64 - 1, version: Some(1) };
        }
        let id = self.alive(chance);
        let version = &mut self.versions[id];
        match kind {
            0..10 => {
                *version += 1;
                self.changes.updated += 1;
            }
            10 => {
                *version = 0;
                self.changes.deleted += 1;
                return Message { id: id as u64, version: None };
            }
            _ => {}
        }
        Message { id: id as u64, version: Some(*version) }
    }

    /// A record there is.
    fn alive(&self, chance: &mut u64) -> usize {
        loop {
            *chance ^= *chance << 13;
            *chance ^= *chance >> 7;
            *chance ^= *chance << 17;
            let id = 1 + (*chance % (self.versions.len() as u64 - 1)) as usize;
            if self.versions[id] > 0 {
                return id;
            }
        }
    }

    /// All records there are, as they are in the end, one in a hundred in its next version.
    pub fn again(&self) -> Vec<Message> {
        let alive = self.versions.iter().enumerate().filter(|(_, version)| **version > 0);
        let next = |(id, version): (usize, &u32)| Message {
            id: id as u64,
            version: Some(version + u32::from(changes_again(id))),
        };
        alive.map(next).collect()
    }

    /// How many of them make a change.
    pub fn changed_again(&self) -> u64 {
        let alive = self.versions.iter().enumerate().filter(|(_, version)| **version > 0);
        alive.filter(|(id, _)| changes_again(*id)).count() as u64
    }

    /// A version none of `count` different records has had: each makes one update. `round` counts such parts.
    pub fn updates(&self, count: u64, round: u32) -> Vec<Message> {
        let alive = self.versions.iter().enumerate().filter(|(_, version)| **version > 0);
        let next = |(id, version): (usize, &u32)| Message { id: id as u64, version: Some(version + 2 + round) };
        alive.take(count as usize).map(next).collect()
    }

    /// Bytes of a message; nothing for a delete.
    pub fn bytes<'b>(&self, message: Message, into: &'b mut Vec<u8>) -> Option<&'b [u8]> {
        into.clear();
        self.generator.record(into, message.id, message.version?);
        Some(into)
    }
}

fn changes_again(id: usize) -> bool {
    id % 100 == 7
}
