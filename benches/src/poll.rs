//! What a poll meets, the same for every system: which records of W2 are gone or changed, which are updated in W3.

/// Accounts the records belong to, in turn.
pub const CONNECTIONS: usize = 10;

/// The connection a record belongs to.
pub fn connection_of(id: u64) -> usize {
    (id % CONNECTIONS as u64) as usize
}

/// The number of a record among those of its connection.
pub fn number_of(id: u64) -> u64 {
    id / CONNECTIONS as u64
}

/// W2: one in a hundred has changed, one in two hundred is gone, the rest is as it was.
pub fn version(id: u64) -> Option<u32> {
    match number_of(id) {
        n if n % 200 == 13 => None,
        n if n % 100 == 7 => Some(2),
        _ => Some(1),
    }
}

/// The record of an update, in W3 and W7. A stride without a common factor spreads them over all records and connections. Gone
/// records of W2 come back as ADDED: a change like any other.
pub fn updated(n: u64, records: u64) -> u64 {
    (n * 7_919) % records + 1
}
