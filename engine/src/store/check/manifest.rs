//! What a manifest says must be there: the families, the tables with their sizes, and the first write-ahead log that counts.
//!
//! A manifest is a log of edits. Each edit is a sequence of tagged fields; those that say nothing about files are stepped over.
//! Only what RocksDB writes with the options of this store is understood; anything else is refused rather than guessed at.

use super::frames::{FrameStep, Frames};
use std::collections::BTreeMap;
use std::io::{self, Read};

/// What the edits of a manifest come to.
#[derive(Debug, Default)]
pub(super) struct Manifest {
    /// Names by number.
    pub families: BTreeMap<u32, String>,
    /// From which write-ahead log on a family has what is in no table.
    logs: BTreeMap<u32, u64>,
    /// Sizes of tables by number.
    pub tables: BTreeMap<u64, u64>,
    least_log: u64,
    pub last_sequence: u64,
    /// Largest sequence number of any table that was ever named here.
    pub flushed: u64,
    /// Where the last sound edit ends.
    pub end: u64,
    /// Edits that count together, until all of them were read.
    group: Vec<Edit>,
}

/// Why a manifest cannot be used.
#[derive(Debug)]
pub(super) enum Unusable {
    Unreadable(io::Error),
    Bad { at: u64, why: &'static str },
}

#[derive(Debug, Default)]
struct Edit {
    family: u32,
    added: Option<String>,
    dropped: bool,
    log: Option<u64>,
    least_log: u64,
    last_sequence: u64,
    gone: Vec<u64>,
    /// Number, size, largest sequence number.
    new: Vec<(u64, u64, u64)>,
    /// How many edits of its group are still to come.
    more: Option<u64>,
}

impl Manifest {
    /// Reads all edits. One that breaks off was never in force.
    pub(super) fn read(from: impl Read) -> Result<Manifest, Unusable> {
        let mut manifest = Manifest::default();
        manifest.families.insert(0, "default".to_owned());
        let mut frames = Frames::new(from);
        loop {
            match frames.step().map_err(Unusable::Unreadable)? {
                FrameStep::Record { at, end, body } => {
                    let why = "an edit that cannot be understood";
                    manifest.take(Edit::read(body).ok_or(Unusable::Bad { at, why })?);
                    manifest.end = end;
                }
                FrameStep::End | FrameStep::BrokenOff { .. } => return Ok(manifest),
                FrameStep::Bad { at, why, .. } => return Err(Unusable::Bad { at, why }),
            }
        }
    }

    /// The write-ahead logs from this one on hold what is in no table.
    pub(super) fn first_log(&self) -> u64 {
        let of_families = self.families.keys().filter_map(|family| self.logs.get(family)).min();
        self.least_log.max(of_families.copied().unwrap_or_default())
    }

    fn take(&mut self, edit: Edit) {
        let more = edit.more;
        self.group.push(edit);
        if more.is_none_or(|more| more == 0) {
            let group = std::mem::take(&mut self.group);
            group.into_iter().for_each(|edit| self.apply(edit));
        }
    }

    fn apply(&mut self, edit: Edit) {
        if let Some(name) = edit.added {
            self.families.insert(edit.family, name);
        }
        if edit.dropped {
            self.families.remove(&edit.family);
            self.logs.remove(&edit.family);
        }
        if let Some(log) = edit.log {
            let known = self.logs.entry(edit.family).or_default();
            *known = log.max(*known);
        }
        // A table that moves to another level is gone and new in one edit.
        for number in edit.gone {
            self.tables.remove(&number);
        }
        for (number, size, largest) in edit.new {
            self.tables.insert(number, size);
            self.flushed = self.flushed.max(largest);
        }
        self.least_log = self.least_log.max(edit.least_log);
        self.last_sequence = self.last_sequence.max(edit.last_sequence);
    }
}

/// Fields whose tag has this bit have their length in front and may be stepped over.
const IGNORABLE: u64 = 1 << 13;
/// The same for what is said of a new table.
const NEEDED: u64 = 1 << 6;

impl Edit {
    fn read(mut rest: &[u8]) -> Option<Edit> {
        let mut edit = Edit::default();
        let rest = &mut rest;
        while !rest.is_empty() {
            match number(rest)? {
                // The comparator; an edit's other text.
                1 => drop(text(rest)?),
                2 => edit.log = Some(number(rest)?),
                // Numbers that say nothing about files: the next one, the one before, the largest family.
                3 | 9 | 203 => drop(number(rest)?),
                4 => edit.last_sequence = number(rest)?,
                // Where a compaction stands: level and key.
                5 => drop((number(rest)?, text(rest)?)),
                6 => edit.gone.push((number(rest)?, number(rest)?).1),
                10 => edit.least_log = edit.least_log.max(number(rest)?),
                103 => edit.table(rest)?,
                200 => edit.family = u32::try_from(number(rest)?).ok()?,
                201 => edit.added = Some(String::from_utf8(text(rest)?.to_vec()).ok()?),
                202 => edit.dropped = true,
                300 => edit.more = Some(number(rest)?),
                tag if tag & IGNORABLE != 0 => drop(text(rest)?),
                _ => return None,
            }
        }
        Some(edit)
    }

    /// A new table: level, number, size, first and last key, smallest and largest sequence number, then more tagged fields.
    fn table(&mut self, rest: &mut &[u8]) -> Option<()> {
        let (_level, file, size) = (number(rest)?, number(rest)?, number(rest)?);
        let (_first, _last, _smallest, largest) = (text(rest)?, text(rest)?, number(rest)?, number(rest)?);
        loop {
            match number(rest)? {
                1 => break,
                3 => {
                    let least = u64::from_le_bytes(text(rest)?.try_into().ok()?);
                    self.least_log = self.least_log.max(least);
                }
                tag if tag & NEEDED != 0 => return None,
                _ => drop(text(rest)?),
            }
        }
        self.new.push((file, size, largest));
        Some(())
    }
}

/// A number of seven bits a byte, the lowest first.
fn number(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, tail) = rest.split_first()?;
        *rest = tail;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

/// Bytes with their length in front.
fn text<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(number(rest)?).ok()?;
    let (text, tail) = rest.split_at_checked(length)?;
    *rest = tail;
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::super::frames::tests::log;
    use super::*;
    use rand::{Rng, RngCore, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    /// A new table 7 of 1000 bytes in family 2 up to sequence number 90, in force with the next edit of the group.
    const NEW: [u8; 26] =
        [103, 0, 7, 0xe8, 7, 1, b'a', 1, b'z', 80, 90, 6, 1, 9, 3, 8, 12, 0, 0, 0, 0, 0, 0, 0, 1, 0xc8];

    fn edits() -> Vec<Vec<u8>> {
        let added = [&[0xc8, 1, 2, 0xc9, 1, 3][..], b"cur", &[2, 11, 4, 85]].concat();
        let new = [&NEW[..], &[1, 2, 0xac, 2, 1]].concat();
        vec![added, new, vec![4, 99, 0xac, 2, 0]]
    }

    #[test]
    fn edits_add_up_and_a_group_counts_whole_or_not_at_all() {
        let manifest = |edits: &[Vec<u8>]| Manifest::read(&log(edits)[..]).expect("understood");
        let part = manifest(&edits()[..2]);
        assert_eq!((part.tables.len(), part.last_sequence, part.first_log()), (0, 85, 11));
        let all = manifest(&edits());
        assert_eq!(all.tables, [(7, 1000)].into());
        assert_eq!((all.flushed, all.last_sequence, all.first_log()), (90, 99, 12));
        assert_eq!(all.families[&2], "cur");
        let gone = manifest(&[edits(), vec![vec![6, 0, 7]]].concat());
        assert!(gone.tables.is_empty() && gone.flushed == 90);
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let mut chance = ChaCha8Rng::seed_from_u64(1);
        for _ in 0..20_000 {
            let mut bytes = edits().concat();
            for _ in 0..chance.random_range(0..4) {
                let at = chance.random_range(0..bytes.len());
                bytes[at] = chance.next_u32() as u8;
            }
            bytes.truncate(chance.random_range(0..=bytes.len()));
            let _ = Edit::read(&bytes);
        }
    }
}
