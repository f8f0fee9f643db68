//! A block: payloads of one dataset and one engine time, compressed together, once, by whoever writes them. Pure.
//!
//! Promises: what [`Packer::pack`] packs, [`Block`] finds; damaged bytes are an error or no payload, never a panic.
//!
//! | bytes | what |
//! |---|---|
//! | 1 | format |
//! | 1 | how the body is written: 0 as it is, 1 LZ4 |
//! | 2 | number of payloads, little-endian like all that follows |
//! | 8 each | a payload's place in its engine time, and its end in the body; places rise |
//! | the rest | body: the payloads one behind the other |

use super::{Error, Result};
use crate::model::Position;
use lz4::block::{compress_bound, compress_to_buffer, decompress_to_buffer};

/// Most payloads of a block: whoever reads one reads them all.
pub(super) const RECORDS: usize = 64;
/// A block that has as many bytes gets no further payload.
pub(super) const BYTES: usize = 32 << 10;

const FORMAT: u8 = 1;
const PLAIN: u8 = 0;
const LZ4: u8 = 1;
const HEAD: usize = 4;
const ENTRY: usize = 8;
/// LZ4 makes nothing smaller than by this: what claims more is damaged.
const DENSEST: usize = 256;

/// Packs blocks; its buffers are used again.
#[derive(Default)]
pub(super) struct Packer {
    body: Vec<u8>,
    packed: Vec<u8>,
}

impl Packer {
    /// A block of these payloads, at most [`RECORDS`], of one engine time and in order of position.
    pub(super) fn pack(&mut self, payloads: &[(u64, &[u8])]) -> Result<&[u8]> {
        let Packer { body, packed } = self;
        body.clear();
        packed.clear();
        packed.extend_from_slice(&[FORMAT, LZ4]);
        packed.extend_from_slice(&(payloads.len() as u16).to_le_bytes());
        for (position, payload) in payloads {
            body.extend_from_slice(payload);
            packed.extend_from_slice(&place(*position).to_le_bytes());
            packed.extend_from_slice(&(body.len() as u32).to_le_bytes());
        }
        let head = packed.len();
        packed.resize(head + compress_bound(body.len()).map_err(unpackable)?, 0);
        let room = packed.get_mut(head..).unwrap_or_default();
        let size = compress_to_buffer(body, None, false, room).map_err(unpackable)?;
        packed.truncate(head + size);
        if size >= body.len() {
            packed.truncate(head);
            packed.extend_from_slice(body);
            packed.splice(1..2, [PLAIN]);
        }
        Ok(packed)
    }
}

/// A packed block.
#[derive(Clone, Copy)]
pub(super) struct Block<B> {
    bytes: B,
    count: usize,
}

impl<B: AsRef<[u8]>> Block<B> {
    /// Looks at the head only.
    pub(super) fn of(bytes: B) -> Result<Block<B>> {
        let head = bytes.as_ref().first_chunk::<HEAD>();
        let count = match head {
            Some([FORMAT, _, count @ ..]) => usize::from(u16::from_le_bytes(*count)),
            _ => return Err(damaged("its format is unknown")),
        };
        match bytes.as_ref().len() < HEAD + count * ENTRY {
            true => Err(damaged("it is too short")),
            false => Ok(Block { bytes, count }),
        }
    }

    /// Number of the payload at a position of the block's engine time.
    pub(super) fn find(&self, position: u64) -> Option<usize> {
        let wanted = place(position);
        let (mut from, mut to) = (0, self.count);
        while from < to {
            let middle = from.midpoint(to);
            match self.entry(middle).0.cmp(&wanted) {
                std::cmp::Ordering::Equal => return Some(middle),
                std::cmp::Ordering::Less => from = middle + 1,
                std::cmp::Ordering::Greater => to = middle,
            }
        }
        None
    }

    /// Position of the last payload within its engine time.
    pub(super) fn last(&self) -> u32 {
        self.count.checked_sub(1).map_or(0, |last| self.entry(last).0)
    }

    /// Everything but the body.
    pub(super) fn index(&self) -> Result<Block<Vec<u8>>> {
        let head = self.bytes.as_ref().get(..HEAD + self.count * ENTRY).unwrap_or_default();
        Block::of(head.to_vec())
    }

    /// Where a payload lies in the body.
    pub(super) fn range(&self, n: usize) -> std::ops::Range<usize> {
        let from = n.checked_sub(1).map_or(0, |before| self.entry(before).1);
        from as usize..self.entry(n).1 as usize
    }

    /// The payloads, one behind the other, at the begin of `room`, which only grows: it is not wiped for every block.
    pub(super) fn unpack(&self, room: &mut Vec<u8>) -> Result<()> {
        let bytes = self.bytes.as_ref();
        let (body, size) = (bytes.get(HEAD + self.count * ENTRY..).unwrap_or_default(), self.range(self.count).start);
        let (is_plain, is_lz4) = (bytes.get(1) == Some(&PLAIN), bytes.get(1) == Some(&LZ4));
        if !(is_plain && body.len() == size || is_lz4 && size / DENSEST <= body.len()) {
            return Err(damaged("its body has another length"));
        }
        if room.len() < size {
            room.resize(size, 0);
        }
        let room = room.get_mut(..size).unwrap_or_default();
        if is_plain {
            room.copy_from_slice(body);
            return Ok(());
        }
        match decompress_to_buffer(body, Some(size as i32), room).map_err(|e| damaged(&e.to_string()))? == size {
            true => Ok(()),
            false => Err(damaged("its body is too short")),
        }
    }

    /// The block without the payloads at these positions; `None` if nothing is left of it.
    pub(super) fn without(&self, positions: &[u64], packer: &mut Packer) -> Result<Option<Vec<u8>>> {
        let mut body = Vec::new();
        self.unpack(&mut body)?;
        let gone = |place: &u64| positions.iter().any(|position| u64::from(self::place(*position)) == *place);
        let all = (0..self.count).map(|n| (u64::from(self.entry(n).0), body.get(self.range(n)).unwrap_or_default()));
        let left: Vec<_> = all.filter(|(place, _)| !gone(place)).collect();
        if left.is_empty() { Ok(None) } else { packer.pack(&left).map(|packed| Some(packed.to_vec())) }
    }

    /// Place and end of a payload.
    fn entry(&self, n: usize) -> (u32, u32) {
        let from = HEAD + n * ENTRY;
        let number = |from| {
            let bytes = self.bytes.as_ref().get(from..from + 4).and_then(|bytes| bytes.try_into().ok());
            bytes.map_or(0, u32::from_le_bytes)
        };
        (number(from), number(from + 4))
    }
}

/// The part of a position that numbers the changes of one engine time.
pub(super) fn place(position: u64) -> u32 {
    (position & ((1 << Position::PLACE_BITS) - 1)) as u32
}

fn damaged(what: &str) -> Error {
    Error::Damaged(format!("a block of payloads is damaged: {what}; restore a backup"))
}

fn unpackable(error: std::io::Error) -> Error {
    Error::Disk(format!("payloads cannot be compressed: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(payloads: &[(u64, &[u8])], packed: &[u8]) -> Vec<Vec<u8>> {
        let block = Block::of(packed).expect("a block");
        let mut body = vec![7; 10];
        block.unpack(&mut body).expect("a body");
        payloads.iter().map(|(at, _)| body[block.range(block.find(*at).expect("found"))].to_vec()).collect()
    }

    #[test]
    fn what_is_packed_is_found() {
        let at = |n| Position::first_of(7).0 + n;
        let text = |n: u64| format!("{{\"id\":\"{n}\",\"name\":\"someone\"}}").into_bytes();
        let all: Vec<_> = (0..60).map(|n| (at(n * 3), text(n))).collect();
        let mut packer = Packer::default();
        for count in [0, 1, 2, 60] {
            let some: Vec<_> = all.iter().take(count).map(|(at, text)| (*at, text.as_slice())).collect();
            let packed = packer.pack(&some).expect("packed").to_vec();
            assert_eq!(texts(&some, &packed), some.iter().map(|(_, text)| text.to_vec()).collect::<Vec<_>>());
            assert_eq!(Block::of(&packed).expect("a block").find(at(1)), None);
            assert!(count < 60 || packed.len() < 60 * text(0).len(), "it became smaller");
        }
    }

    #[test]
    fn what_does_not_get_smaller_is_kept_as_it_is() {
        let noise: Vec<u8> = (0..200u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let mut packer = Packer::default();
        let packed = packer.pack(&[(5, &noise)]).expect("packed").to_vec();
        assert_eq!((packed[1], texts(&[(5, &noise)], &packed)), (PLAIN, vec![noise]));
    }

    #[test]
    fn payloads_are_taken_out() {
        let mut packer = Packer::default();
        let all: [(u64, &[u8]); 3] = [(1, b"one"), (2, b""), (9, b"nine")];
        let packed = packer.pack(&all).expect("packed").to_vec();
        let block = Block::of(packed).expect("a block");
        let left = block.without(&[2, 3], &mut packer).expect("packed").expect("something is left");
        assert_eq!(texts(&[all[0], all[2]], &left), [b"one".to_vec(), b"nine".to_vec()]);
        assert_eq!(Block::of(left).expect("a block").find(2), None);
        assert_eq!(block.without(&[1, 2, 9], &mut packer).expect("packed"), None);
    }

    #[test]
    fn damage_is_an_error_or_no_payload() {
        let payloads: Vec<_> = (0..40).map(|n| (n, &b"some text that comes again and again"[..])).collect();
        let packed = Packer::default().pack(&payloads).expect("packed").to_vec();
        for at in 0..packed.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut bytes = packed.clone();
                bytes[at] = value;
                for bytes in [&bytes[..], &bytes[..at]] {
                    let Ok(block) = Block::of(bytes) else { continue };
                    let mut body = Vec::new();
                    let _ = block.unpack(&mut body);
                    (0..40).for_each(|position| {
                        block.find(position).map(|n| body.get(block.range(n)));
                    });
                }
            }
        }
    }
}
