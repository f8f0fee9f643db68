//! The frames of RocksDB's logs, read and nothing more: write-ahead logs and manifests have the same form.
//!
//! A log is cut into blocks of 32 KiB. A frame lies within one block: masked CRC-32C of all behind it (4 bytes), length of the
//! body (2), type (1), body. A record is one frame, or a first, middle ones and a last. What does not fill a header at the end
//! of a block is padding.
//!
//! Promises: every byte sequence is answered without a panic and in one pass; a record is handed out only if all of it is
//! sound. Types other than the four that this program lets RocksDB write are bad, whatever RocksDB would make of them.

use std::io::{self, Read};

const BLOCK: usize = 32 << 10;
const HEADER: usize = 7;
/// Whole record, first part, middle part, last part.
const TYPES: std::ops::RangeInclusive<u8> = 1..=4;

/// What stands next in a log.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum FrameStep<'a> {
    /// A sound record, from its first frame to behind its last.
    Record { at: u64, end: u64, body: &'a [u8] },
    /// The log ends behind a record.
    End,
    /// The log breaks off at a place, within a record: what a process leaves that was killed while it wrote.
    BrokenOff { begin: u64, at: u64 },
    /// A frame that is none, at a place within a record.
    Bad { begin: u64, at: u64, why: &'static str },
}

/// Reads a log from its beginning.
pub(super) struct Frames<R> {
    from: R,
    block: Vec<u8>,
    /// Where in the log the block begins, and where in the block the next frame does.
    base: u64,
    next: usize,
    record: Vec<u8>,
    /// Where the record that is being put together began.
    begun: Option<u64>,
}

impl<R: Read> Frames<R> {
    pub(super) fn new(from: R) -> Frames<R> {
        Frames { from, block: Vec::new(), base: 0, next: 0, record: Vec::new(), begun: None }
    }

    /// The next record. Not to be called again after anything else.
    pub(super) fn step(&mut self) -> io::Result<FrameStep<'_>> {
        self.record.clear();
        self.begun = None;
        loop {
            let left = self.block.len() - self.next;
            if left < HEADER {
                let at = self.at();
                if left > 0 && self.block.len() < BLOCK {
                    return Ok(FrameStep::BrokenOff { begin: self.begun.unwrap_or(at), at });
                }
                if !self.load()? {
                    return Ok(self.begun.map_or(FrameStep::End, |begin| FrameStep::BrokenOff { begin, at }));
                }
                continue;
            }
            let at = self.at();
            let begin = self.begun.unwrap_or(at);
            match frame(self.block.get(self.next..).unwrap_or_default()) {
                Frame::Sound { kind, body } => {
                    let begins = matches!(kind, 1 | 2);
                    if begins == self.begun.is_some() {
                        return Ok(FrameStep::Bad { begin, at, why: "a part of a record stands where none belongs" });
                    }
                    self.record.extend_from_slice(body);
                    self.next += HEADER + body.len();
                    self.begun = Some(begin);
                    if matches!(kind, 1 | 4) {
                        return Ok(FrameStep::Record { at: begin, end: self.at(), body: &self.record });
                    }
                }
                Frame::Short if self.block.len() < BLOCK => return Ok(FrameStep::BrokenOff { begin, at }),
                Frame::Short => return Ok(FrameStep::Bad { begin, at, why: "a length that leads out of its block" }),
                Frame::Bad(why) => return Ok(FrameStep::Bad { begin, at, why }),
            }
        }
    }

    fn at(&self) -> u64 {
        self.base + self.next as u64
    }

    /// The next block; whether there was anything left.
    fn load(&mut self) -> io::Result<bool> {
        self.base += self.block.len() as u64;
        self.next = 0;
        self.block.clear();
        self.from.by_ref().take(BLOCK as u64).read_to_end(&mut self.block)?;
        Ok(!self.block.is_empty())
    }
}

enum Frame<'a> {
    Sound {
        kind: u8,
        body: &'a [u8],
    },
    /// Longer than what there is.
    Short,
    Bad(&'static str),
}

/// The frame at the beginning of what is left of a block.
fn frame(bytes: &[u8]) -> Frame<'_> {
    let Some((&[a, b, c, d, low, high, kind], rest)) = bytes.split_first_chunk::<HEADER>() else { return Frame::Short };
    if !TYPES.contains(&kind) {
        return Frame::Bad("a type of frame that is never written here");
    }
    let length = usize::from(u16::from_le_bytes([low, high]));
    let Some(body) = rest.get(..length) else { return Frame::Short };
    let sum = crc32c::crc32c_append(crc32c::crc32c(&[kind]), body);
    match masked(sum) == u32::from_le_bytes([a, b, c, d]) {
        true => Frame::Sound { kind, body },
        false => Frame::Bad("a wrong checksum"),
    }
}

/// Checksums are stored so that one of bytes that hold checksums is not mistaken for another.
fn masked(sum: u32) -> u32 {
    sum.rotate_right(15).wrapping_add(0xa282_ead8)
}

/// The first sound frame behind `at`, if there is one: a log that goes on behind what is bad was not torn, it was damaged.
pub(super) fn sound_behind(mut log: impl Read + io::Seek, at: u64) -> io::Result<Option<u64>> {
    let mut base = at - at % BLOCK as u64;
    log.seek(io::SeekFrom::Start(base))?;
    let (mut block, mut from) = (Vec::with_capacity(BLOCK), (at - base) as usize + 1);
    loop {
        block.clear();
        log.by_ref().take(BLOCK as u64).read_to_end(&mut block)?;
        if block.is_empty() {
            return Ok(None);
        }
        // A length cannot be trusted, so every place of the block is looked at.
        let sound = |n: &usize| matches!(frame(block.get(*n..).unwrap_or_default()), Frame::Sound { .. });
        if let Some(n) = (from..block.len()).find(sound) {
            return Ok(Some(base + n as u64));
        }
        (base, from) = (base + block.len() as u64, 0);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use rand::{Rng, RngCore, SeedableRng};
    use rand_chacha::ChaCha8Rng;
    use std::io::Cursor;

    /// A log of these records, as RocksDB would write it.
    pub(in crate::store::check) fn log(records: &[Vec<u8>]) -> Vec<u8> {
        let mut log = Vec::new();
        for record in records {
            let (mut rest, mut first) = (&record[..], true);
            loop {
                let mut left = BLOCK - log.len() % BLOCK;
                if left < HEADER {
                    log.resize(log.len() + left, 0);
                    left = BLOCK;
                }
                let (body, tail) = rest.split_at(rest.len().min(left - HEADER));
                let kind = match (first, tail.is_empty()) {
                    (true, true) => 1,
                    (true, false) => 2,
                    (false, false) => 3,
                    (false, true) => 4,
                };
                let sum = crc32c::crc32c_append(crc32c::crc32c(&[kind]), body);
                log.extend_from_slice(&masked(sum).to_le_bytes());
                log.extend_from_slice(&(body.len() as u16).to_le_bytes());
                log.push(kind);
                log.extend_from_slice(body);
                (rest, first) = (tail, false);
                if tail.is_empty() {
                    break;
                }
            }
        }
        log
    }

    fn random(chance: &mut ChaCha8Rng) -> Vec<Vec<u8>> {
        let mut record = |_| {
            let most = if chance.random_bool(0.1) { 100_000 } else { 3_000 };
            let mut record = vec![0; chance.random_range(0..most)];
            chance.fill_bytes(&mut record);
            record
        };
        (0..30).map(&mut record).collect()
    }

    /// The records of a log, and how it ended.
    fn read(log: &[u8]) -> (Vec<Vec<u8>>, String) {
        let (mut frames, mut records) = (Frames::new(Cursor::new(log)), Vec::new());
        loop {
            match frames.step().expect("memory can be read") {
                FrameStep::Record { body, .. } => records.push(body.to_vec()),
                end => return (records, format!("{end:?}")),
            }
        }
    }

    #[test]
    fn what_was_written_is_read() {
        for seed in 0..20 {
            println!("seed {seed}");
            let records = random(&mut ChaCha8Rng::seed_from_u64(seed));
            assert_eq!(read(&log(&records)), (records, "End".to_owned()));
        }
    }

    #[test]
    fn a_cut_log_gives_the_records_before_the_cut() {
        let records = random(&mut ChaCha8Rng::seed_from_u64(3));
        let log = log(&records);
        for cut in (0..log.len()).step_by(97) {
            let (found, end) = read(&log[..cut]);
            assert!(records.starts_with(&found), "cut at {cut}");
            assert!(end == "End" || end.starts_with("BrokenOff"), "cut at {cut}: {end}");
        }
    }

    #[test]
    fn a_flipped_bit_is_never_part_of_a_record() {
        let mut chance = ChaCha8Rng::seed_from_u64(4);
        let records = random(&mut chance);
        let log = log(&records);
        for _ in 0..2_000 {
            let (mut damaged, at) = (log.clone(), chance.random_range(0..log.len()));
            damaged[at] ^= 1 << chance.random_range(0..8);
            let (found, end) = read(&damaged);
            assert!(records.starts_with(&found), "flipped at {at}");
            // Padding at the end of a block says nothing.
            assert!(found.len() < records.len() || end == "End", "flipped at {at}");
        }
    }

    #[test]
    fn what_is_behind_bad_bytes_is_found() {
        let log = log(&[vec![1; 50], vec![2; 60], vec![3; 70]]);
        let (second, third) = (57, 57 + 67);
        assert_eq!(sound_behind(Cursor::new(&log), second).expect("read"), Some(third as u64));
        assert_eq!(sound_behind(Cursor::new(&log), third as u64).expect("read"), None);
    }
}
