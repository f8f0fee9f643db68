//! The high-water mark: a small file beside the database that says what it must hold.
//!
//! Promises: it may lag behind the database, it never leads it. It is written after each sync and before anybody is answered,
//! in place and without a sync of its own: a process that is killed leaves it exact, and a machine that loses power leaves it
//! at most older. What it says of the manifest is what was synced of it.
//!
//! Costs one look at the manifest's size and one write of 76 bytes a commit.

use crate::fault;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Name of the file in the data folder.
pub const HIGH_WATER: &str = "HIGHWATER";
/// First bytes of the file, with its version.
const MAGIC: [u8; 8] = *b"SLHW\0\0\0\x01";
/// Bytes of the file: magic, eight numbers, their checksum.
const LEN: usize = 8 + 8 * 8 + 4;

/// What the database must hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Acknowledged {
    /// Sequence number of the last synced write.
    pub sequence: u64,
    /// Position of the last entry of the log that was acknowledged.
    pub log: u64,
    /// Number of the manifest in force.
    pub manifest: u64,
    /// Its bytes that were synced.
    pub manifest_bytes: u64,
    /// The write-ahead log that was begun at the start, and the last sequence number before it.
    pub first_wal: u64,
    /// See `first_wal`.
    pub opened_at: u64,
    /// How many families there were.
    pub families: u64,
    /// No engine time from this one on was handed out.
    pub epoch: u64,
}

impl Acknowledged {
    /// Reads the file; `None` if there is none, `InvalidData` if it is damaged.
    pub fn read(folder: &Path) -> io::Result<Option<Acknowledged>> {
        let bytes = match fs::read(folder.join(HIGH_WATER)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read?,
        };
        Self::decode(&bytes).map(Some).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    fn decode(bytes: &[u8]) -> Option<Acknowledged> {
        let (said, sum) = bytes.split_last_chunk::<4>()?;
        if bytes.len() != LEN || crc32c::crc32c(said) != u32::from_le_bytes(*sum) {
            return None;
        }
        let mut numbers = [0; 8];
        for (number, place) in numbers.iter_mut().zip(said.strip_prefix(&MAGIC)?.chunks_exact(8)) {
            *number = u64::from_le_bytes(place.try_into().ok()?);
        }
        let [sequence, log, manifest, manifest_bytes, first_wal, opened_at, families, epoch] = numbers;
        Some(Acknowledged { sequence, log, manifest, manifest_bytes, first_wal, opened_at, families, epoch })
    }

    fn encode(&self) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        bytes[..8].copy_from_slice(&MAGIC);
        let numbers = [
            self.sequence,
            self.log,
            self.manifest,
            self.manifest_bytes,
            self.first_wal,
            self.opened_at,
            self.families,
            self.epoch,
        ];
        for (place, number) in bytes[8..].chunks_exact_mut(8).zip(numbers) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        let sum = crc32c::crc32c(&bytes[..LEN - 4]);
        bytes[LEN - 4..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// Puts the file in the place of the one before, durably.
    pub fn store(&self, folder: &Path) -> io::Result<()> {
        let (new, path) = (folder.join("HIGHWATER.new"), folder.join(HIGH_WATER));
        let file = File::create(&new)?;
        file.write_all_at(&self.encode(), 0)?;
        file.sync_all()?;
        fs::rename(new, path)?;
        File::open(folder)?.sync_all()
    }
}

/// The mark of an open database.
pub struct HighWater {
    said: Acknowledged,
    file: File,
    manifest: File,
}

impl HighWater {
    /// Begins with `said`; `manifest` is the file that it names.
    pub fn begin(folder: &Path, mut said: Acknowledged, manifest: File) -> io::Result<HighWater> {
        manifest.sync_data()?;
        said.manifest_bytes = manifest.metadata()?.len();
        said.store(folder)?;
        let file = File::options().write(true).open(folder.join(HIGH_WATER))?;
        Ok(HighWater { said, file, manifest })
    }

    /// Everything up to `sequence` is on disk, and so is the log up to its entry `log`. Engine times before `epoch` may be
    /// known outside.
    pub(super) fn raise(&mut self, sequence: u64, log: u64, epoch: u64) -> io::Result<()> {
        let mut said = self.said;
        said.sequence = said.sequence.max(sequence);
        said.log = said.log.max(log);
        said.epoch = said.epoch.max(epoch);
        let bytes = self.manifest.metadata()?.len();
        if bytes > said.manifest_bytes {
            // Seldom: with each table that is written. What is not on disk yet must not be promised.
            self.manifest.sync_data()?;
            said.manifest_bytes = bytes;
        }
        if said != self.said {
            fault::hit("mark.write")?;
            self.file.write_all_at(&said.encode(), 0)?;
            self.said = said;
        }
        Ok(())
    }

    /// Brings the mark itself to disk.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        self.raise(0, 0, 0)?;
        self.file.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_as_it_was_written_and_refused_otherwise() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(Acknowledged::read(folder.path()).expect("read"), None);
        let said = Acknowledged {
            sequence: 1,
            log: 2,
            manifest: 3,
            manifest_bytes: 4,
            first_wal: 5,
            opened_at: 6,
            families: 7,
            epoch: 8,
        };
        said.store(folder.path()).expect("written");
        assert_eq!(Acknowledged::read(folder.path()).expect("read"), Some(said));
        let bytes = said.encode();
        for n in 0..LEN {
            let mut damaged = bytes;
            damaged[n] ^= 16;
            assert_eq!(Acknowledged::decode(&damaged), None, "byte {n}");
            assert_eq!(Acknowledged::decode(&bytes[..n]), None, "cut at {n}");
        }
    }

    #[test]
    fn it_rises_and_never_falls() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("manifest");
        fs::write(&path, "1234").expect("written");
        let said = Acknowledged { sequence: 10, ..Acknowledged::default() };
        let mut mark = HighWater::begin(folder.path(), said, File::open(&path).expect("opened")).expect("begun");
        mark.raise(7, 3, 1).expect("written");
        fs::write(&path, "123456").expect("written");
        mark.raise(12, 1, 2).expect("written");
        let read = Acknowledged::read(folder.path()).expect("read").expect("there");
        assert_eq!((read.sequence, read.log, read.manifest_bytes, read.epoch), (12, 3, 6, 2));
    }
}
