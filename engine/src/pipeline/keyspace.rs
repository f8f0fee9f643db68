//! Keyspaces of marks: the engine's own, and those of the program around it.

/// A keyspace of marks. Its number is stored, so it never changes its meaning.
///
/// The engine has the numbers from 1 to 63, some of which an earlier layout gave to the program; a program takes others.
///
/// ```
/// use syncline_engine::pipeline::{Keyspace, Mark};
///
/// /// What each customer pays: (customer).
/// const PLAN: Keyspace = Keyspace::new(64);
/// let mark = Mark::put(PLAN, &["acme"], "pro");
/// # assert_eq!(mark.keyspace, PLAN);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Keyspace(u8);

impl Keyspace {
    /// State of a sync: (environment, source, connection, stream, variant).
    pub const SYNC: Keyspace = Keyspace(2);
    /// Runs: (environment, source, stream, run id).
    pub const RUN: Keyspace = Keyspace(3);
    /// Bookmarks of interrupted runs: as `SYNC`.
    pub const BOOKMARK: Keyspace = Keyspace(4);
    /// State of sources, such as validators: as `SYNC` plus the key.
    pub const NOTE: Keyspace = Keyspace(5);
    /// Positions of followers: (name, …).
    pub const PLACE: Keyspace = Keyspace(7);
    /// Quarantined items: (environment, source, connection, stream, key).
    pub const QUARANTINE: Keyspace = Keyspace(8);
    /// Deletes that wait for approval: as `RUN`.
    pub const HELD: Keyspace = Keyspace(12);
    /// Whose batches count, where batches go through a log: («reign»).
    pub const TERM: Keyspace = Keyspace(13);

    /// One of the program's.
    pub const fn new(number: u8) -> Keyspace {
        Keyspace(number)
    }

    /// As it is stored.
    pub const fn number(self) -> u8 {
        self.0
    }
}
