//! How a change is written down: fixed fields first, rare ones after, a format number in front.

use crate::model::content::Key;
use crate::model::{Action, Cause, Position, Timestamp, Via};

const FORMAT: u8 = 1;
const FIXED: usize = 73;
const FIRST_SEEN: u8 = 1;
const PREVIOUS: u8 = 2;
const PAYLOAD: u8 = 4;
const DELETED: u8 = 8;
const PRUNED: u8 = 16;
const BLOCK: u8 = 32;

/// A change as stored: what readers are told, and what the merge needs after a restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredChange {
    pub flags: u8,
    pub action: Action,
    pub cause: Cause,
    pub key: Key,
    pub modified_at: Timestamp,
    pub observed_at: Timestamp,
    pub changed_at: Timestamp,
    pub hash: u64,
    pub raw: u64,
    pub generation: u32,
    pub first_seen_at: Timestamp,
    /// Position of the change before, if it is visible.
    pub previous: Option<u64>,
    /// Where the payload is, if not at the change's own position.
    pub payload: Option<u64>,
    /// How far before the payload's place the block begins that it was written in. Without it the block is looked for.
    pub block: Option<u16>,
    pub deleted_at: Option<Timestamp>,
    pub pruned_at: Option<Timestamp>,
}

/// Where a payload is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PayloadRef {
    /// The position it was written at.
    pub at: u64,
    /// How far before that its block begins, if that is known.
    pub block: Option<u16>,
}

impl StoredChange {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(FIXED + 16);
        let via = match self.cause.via {
            Via::Poll => 0u8,
            Via::Webhook => 1,
            Via::Push => 2,
            Via::View => 3,
        };
        let action = match self.action {
            Action::Added => 0u8,
            Action::Updated => 1,
            Action::Deleted => 2,
        };
        let optional = [
            (FIRST_SEEN, (self.first_seen_at != self.changed_at).then_some(self.first_seen_at.0 as u64)),
            (PREVIOUS, self.previous),
            (PAYLOAD, self.payload),
            (DELETED, self.deleted_at.map(|t| t.0 as u64)),
            (PRUNED, self.pruned_at.map(|t| t.0 as u64)),
        ];
        let block = if self.block.is_some() { BLOCK } else { 0 };
        let present = optional.iter().filter(|(_, v)| v.is_some()).fold(block, |bits, (bit, _)| bits | bit);
        bytes.extend_from_slice(&[FORMAT, self.flags, action, via, present]);
        for number in [
            self.key[0],
            self.key[1],
            self.modified_at.0 as u64,
            self.observed_at.0 as u64,
            self.changed_at.0 as u64,
            self.hash,
            self.raw,
            self.cause.number,
        ] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&self.generation.to_le_bytes());
        for number in optional.into_iter().filter_map(|(_, v)| v) {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        if let Some(block) = self.block {
            bytes.extend_from_slice(&block.to_le_bytes());
        }
        bytes
    }

    /// Reads a stored change; an error names what is wrong with it.
    pub(crate) fn decode(bytes: &[u8]) -> Result<StoredChange, String> {
        if bytes.len() < FIXED || bytes[0] != FORMAT {
            return Err(format!("a change of {} bytes, format {:?}", bytes.len(), bytes.first()));
        }
        let present = bytes[4];
        let mut rest = &bytes[FIXED..];
        let mut optional = |bit: u8| -> Result<Option<u64>, String> {
            if present & bit == 0 {
                return Ok(None);
            }
            let (number, tail) = rest.split_first_chunk::<8>().ok_or("a change cut short")?;
            rest = tail;
            Ok(Some(u64::from_le_bytes(*number)))
        };
        let changed_at = Timestamp(word(bytes, 4) as i64);
        let first_seen_at = optional(FIRST_SEEN)?.map_or(changed_at, |n| Timestamp(n as i64));
        let (previous, payload) = (optional(PREVIOUS)?, optional(PAYLOAD)?);
        let deleted_at = optional(DELETED)?.map(|n| Timestamp(n as i64));
        let pruned_at = optional(PRUNED)?.map(|n| Timestamp(n as i64));
        let block = match (present & BLOCK, rest.first_chunk::<2>()) {
            (0, _) => None,
            (_, Some(block)) => Some(u16::from_le_bytes(*block)),
            (_, None) => return Err("a change cut short".to_owned()),
        };
        Ok(StoredChange {
            flags: bytes[1],
            action: match bytes[2] {
                0 => Action::Added,
                1 => Action::Updated,
                _ => Action::Deleted,
            },
            cause: Cause {
                via: match bytes[3] {
                    0 => Via::Poll,
                    1 => Via::Webhook,
                    2 => Via::Push,
                    _ => Via::View,
                },
                number: word(bytes, 7),
            },
            key: [word(bytes, 0), word(bytes, 1)],
            modified_at: Timestamp(word(bytes, 2) as i64),
            observed_at: Timestamp(word(bytes, 3) as i64),
            changed_at,
            hash: word(bytes, 5),
            raw: word(bytes, 6),
            generation: u32::from_le_bytes([bytes[69], bytes[70], bytes[71], bytes[72]]),
            first_seen_at,
            previous,
            payload,
            block,
            deleted_at,
            pruned_at,
        })
    }

    /// Where the payload of the change at `position` is.
    pub(crate) fn place(&self, position: u64) -> PayloadRef {
        PayloadRef { at: self.payload.unwrap_or(position), block: self.block }
    }

    /// The metadata as readers get it.
    pub(crate) fn public(&self, position: u64) -> crate::model::Meta {
        crate::model::Meta {
            position: Position(position),
            action: self.action,
            first_seen_at: self.first_seen_at,
            last_modified_at: self.changed_at,
            deleted_at: self.deleted_at,
            pruned_at: self.pruned_at,
            modified_at: self.modified_at,
            cause: self.cause,
        }
    }
}

/// The n-th number of a change of checked length.
fn word(bytes: &[u8], n: usize) -> u64 {
    let from = 5 + n * 8;
    bytes.get(from..from + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes)
}

/// The second half of the key of a stored change, which says whose worker it is; cheaper than reading it all.
pub(crate) fn route(bytes: &[u8]) -> u64 {
    word(bytes, 1)
}

/// A change as it is stored; what cannot be read is damage.
pub(crate) fn decode(bytes: &[u8]) -> super::Result<StoredChange> {
    StoredChange::decode(bytes).map_err(|what| super::Error::Damaged(format!("{what}; restore a backup")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_and_refusal() {
        let meta = StoredChange {
            flags: 3,
            action: Action::Deleted,
            cause: Cause::webhook(77),
            key: [1, u64::MAX],
            modified_at: Timestamp::NONE,
            observed_at: Timestamp(5),
            changed_at: Timestamp(6),
            hash: 7,
            raw: 8,
            generation: 9,
            first_seen_at: Timestamp(4),
            previous: Some(10),
            payload: None,
            block: Some(300),
            deleted_at: Some(Timestamp(11)),
            pruned_at: None,
        };
        let bytes = meta.encode();
        assert_eq!(StoredChange::decode(&bytes), Ok(meta.clone()));
        assert_eq!(route(&bytes), u64::MAX);
        for cut in 0..bytes.len() {
            assert!(StoredChange::decode(&bytes[..cut]).is_err(), "{cut}");
        }
        let plain =
            StoredChange { first_seen_at: meta.changed_at, previous: None, block: None, deleted_at: None, ..meta };
        assert_eq!(plain.encode().len(), FIXED);
        assert_eq!(StoredChange::decode(&plain.encode()), Ok(plain));
    }
}
