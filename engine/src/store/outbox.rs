//! The outbox: deliveries owed, in order of the commits that made them owed.

use super::{Error, Family, Result, Store, StoreBatch};
use crate::model::Delivery;

/// Where a delivery stands: (epoch, number within it).
fn key(epoch: u64, number: u32) -> [u8; 12] {
    let mut key = [0; 12];
    key[..8].copy_from_slice(&epoch.to_be_bytes());
    key[8..].copy_from_slice(&number.to_be_bytes());
    key
}

/// The id of a delivery: derived from its place, so it is the same after a crash, and leads back to it.
pub(crate) fn delivery_id(secret: &[u8; 32], endpoint: &str, epoch: u64, number: u32) -> String {
    use sha2::{Digest, Sha256};
    let mut hasher = Sha256::new();
    hasher.update(secret);
    hasher.update(endpoint.as_bytes());
    hasher.update(key(epoch, number));
    let tag: String = hasher.finalize().iter().take(6).map(|b| format!("{b:02x}")).collect();
    format!("msg_{epoch:012x}{number:04x}{tag}")
}

fn place(id: &str) -> Option<[u8; 12]> {
    let digits = id.strip_prefix("msg_")?;
    let epoch = u64::from_str_radix(digits.get(..12)?, 16).ok()?;
    let tail = digits.get(12..)?;
    let number = u32::from_str_radix(tail.get(..tail.len().checked_sub(12)?)?, 16).ok()?;
    Some(key(epoch, number))
}

fn read(value: &[u8]) -> Result<Delivery> {
    serde_json::from_slice(value).map_err(|e| Error::Damaged(format!("a delivery, {e}; restore a backup")))
}

impl Store {
    /// Owed deliveries in order.
    pub(crate) fn outbox(&self, limit: usize) -> Result<Vec<Delivery>> {
        self.outbox_from(&[], None, limit)
    }

    /// Owed deliveries that stand after the one with this id, in order.
    pub(crate) fn outbox_after(&self, after: Option<&str>, limit: usize) -> Result<Vec<Delivery>> {
        let Some(after) = after.and_then(place) else { return self.outbox(limit) };
        self.outbox_from(&after, Some(&after), limit)
    }

    /// Owed deliveries from a place on, but for the one at `passed`.
    fn outbox_from(&self, start: &[u8], passed: Option<&[u8]>, limit: usize) -> Result<Vec<Delivery>> {
        let mut found = Vec::new();
        self.scan_from(Family::Outbox, start).each(|key, value| {
            if passed == Some(key) {
                return Ok(true);
            }
            let has_room = found.len() < limit;
            if has_room {
                found.push(read(value)?);
            }
            Ok(has_room)
        })?;
        Ok(found)
    }

    /// One delivery, if it is still owed.
    pub(crate) fn delivery(&self, id: &str) -> Result<Option<Delivery>> {
        let Some(key) = place(id) else { return Ok(None) };
        self.get(Family::Outbox, key)?.map(|value| read(&value)).transpose()
    }

    /// Puts a new delivery into a batch.
    pub(crate) fn owe(&self, batch: &mut StoreBatch, epoch: u64, number: u32, delivery: &Delivery) {
        if let Ok(bytes) = serde_json::to_vec(delivery) {
            self.put(batch, Family::Outbox, key(epoch, number), bytes);
        }
    }

    /// Changes or removes a delivery. An unknown id changes nothing.
    pub(crate) fn settle(&self, id: &str, after: Option<&Delivery>) -> Result<()> {
        let Some(key) = place(id) else { return Ok(()) };
        let mut batch = self.batch();
        match after.map(serde_json::to_vec) {
            Some(Ok(bytes)) => self.put(&mut batch, Family::Outbox, key, bytes),
            Some(Err(error)) => return Err(Error::Disk(error.to_string())),
            None => self.delete(&mut batch, Family::Outbox, key),
        }
        self.write_synced(batch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_leads_back_to_its_place() {
        for (epoch, number) in [(1, 0), (0xabcdef, 7), (1 << 41, 0x12345)] {
            let id = delivery_id(&[7; 32], "backend", epoch, number);
            assert_eq!(place(&id), Some(key(epoch, number)), "{id}");
            assert!(!id.contains('.'));
        }
        assert_eq!(place("msg_"), None);
        assert_eq!(place("whk_00"), None);
    }
}
