//! Whether the write-ahead logs hold, without a gap, what is in no table.
//!
//! Each record is a batch: the sequence number of its first write (8 bytes), how many writes there are (4), the writes. Numbers
//! go on from record to record and from log to log, so a log that is missing in the middle shows. What is missing at the end
//! shows by the high-water mark alone ([`super`]).

use super::frames::{self, FrameStep, Frames};
use super::{Damage, Torn};
use crate::store::Result;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// What a row of write-ahead logs holds.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// The first and the last sequence number; none where there are no writes.
    pub first: Option<u64>,
    pub last: Option<u64>,
    /// The logs that were read, each with where its last sound record ends.
    pub sound: Vec<(PathBuf, u64)>,
    /// What ends the row before its end.
    pub damage: Option<Damage>,
    /// The log that ends with what is no record, and where.
    pub torn: Option<Torn>,
}

/// Reads logs in their order, up to what is damaged.
pub(super) fn read(logs: &[(u64, PathBuf)]) -> Result<Held> {
    let mut held = Held::default();
    let mut empty: Option<&Path> = None;
    for (n, (_, path)) in logs.iter().enumerate() {
        let before = held.last;
        read_one(path, &mut held)?;
        if held.damage.is_some() {
            break;
        }
        // A new log is begun only once there is something in the one before.
        match empty {
            Some(empty) if held.last != before => {
                held.damage = Some(Damage::of(empty, "it is empty, though later logs are not"));
                break;
            }
            _ if held.last == before => empty = Some(path),
            _ => {}
        }
        let is_last = n + 1 == logs.len();
        if let Some(torn) = held.torn.take() {
            match is_last {
                true => held.torn = Some(torn),
                // The next log says by its numbers whether anything was lost; RocksDB leaves out what is broken off.
                false if !torn.cut => {}
                false => {
                    held.damage =
                        Some(Damage::at(path, torn.at, "it ends with what is no record, and is not the last log"));
                    break;
                }
            }
        }
    }
    Ok(held)
}

fn read_one(path: &Path, held: &mut Held) -> Result<()> {
    let mut sound = 0;
    let read = read_records(path, held, &mut sound);
    held.sound.push((path.to_owned(), sound));
    read
}

fn read_records(path: &Path, held: &mut Held, sound: &mut u64) -> Result<()> {
    let unreadable = |e: io::Error| super::unreadable(path, e);
    let mut frames = Frames::new(io::BufReader::with_capacity(1 << 20, File::open(path).map_err(unreadable)?));
    loop {
        match frames.step().map_err(unreadable)? {
            FrameStep::Record { at, end, body } => {
                let Some((first, count)) = numbers(body) else {
                    held.damage = Some(Damage::at(path, at, "a record that is no batch of writes"));
                    return Ok(());
                };
                if count == 0 {
                    *sound = end;
                    continue;
                }
                if let Some(last) = held.last.filter(|last| last.checked_add(1) != Some(first)) {
                    let what = format!(
                        "writes {} to {} are missing before it",
                        last.saturating_add(1),
                        first.saturating_sub(1)
                    );
                    held.damage = Some(Damage::at(path, at, what));
                    return Ok(());
                }
                held.first.get_or_insert(first);
                held.last = Some(first.saturating_add(u64::from(count) - 1));
                *sound = end;
            }
            FrameStep::End => return Ok(()),
            FrameStep::BrokenOff { begin, at } => {
                match frames::sound_behind(File::open(path).map_err(unreadable)?, at).map_err(unreadable)? {
                    Some(sound) => {
                        let what =
                            format!("a length that leads out of the log, though records go on at offset {sound}");
                        held.damage = Some(Damage::at(path, at, what));
                    }
                    None => held.torn = Some(Torn { path: path.to_owned(), at: begin, cut: false }),
                }
                return Ok(());
            }
            FrameStep::Bad { begin, at, why } => {
                match frames::sound_behind(File::open(path).map_err(unreadable)?, at).map_err(unreadable)? {
                    Some(sound) => {
                        held.damage =
                            Some(Damage::at(path, at, format!("{why}, though records go on at offset {sound}")));
                    }
                    None => held.torn = Some(Torn { path: path.to_owned(), at: begin, cut: true }),
                }
                return Ok(());
            }
        }
    }
}

fn numbers(record: &[u8]) -> Option<(u64, u32)> {
    let (first, rest) = record.split_first_chunk::<8>()?;
    let (count, _) = rest.split_first_chunk::<4>()?;
    Some((u64::from_le_bytes(*first), u32::from_le_bytes(*count)))
}
