//! The thread that writes what waits.
//!
//! Promises: it writes with the others into one write-ahead log and syncs nothing; it never makes a commit wait, and its failures
//! are its own: what it cannot write is counted and told of in a line once it can. It is the first to stop where the disk gets full, and
//! begins by itself when there is room again. At its end it has written all that was handed over before.

use super::queue::{BATCH_BYTES, Taken, Waiting};
use super::{JournalLine, Shared, expire, key};
use crate::model::Timestamp;
use crate::store::{Family, Result, Store};
use std::sync::Arc;
use std::time::Duration;

/// Without anything to write it looks so often whether something is too old.
const IDLE: Duration = Duration::from_secs(60);
/// Where nothing can be written it looks so often whether it can.
const HALTED: Duration = Duration::from_secs(1);
/// Between two attempts where the database is behind with its tables.
const BEHIND: Duration = Duration::from_millis(100);
/// Attempts at the end, when nobody waits any longer.
const LAST_ATTEMPTS: u32 = 50;
/// The journal stops while less than the store's watermark and such a part of it is free: the store itself stops later.
const EARLIER: u64 = 2;

pub(super) struct Writer {
    pub store: Arc<Store>,
    pub shared: Arc<Shared>,
    /// Lines that were not written since the last that was told of.
    unwritten: u64,
    overflowed: u64,
    /// Why nothing is written.
    halted: Option<String>,
    /// When it was looked for what is too old, and what was written since it was looked at the size.
    looked: Option<Timestamp>,
    since_size: u64,
}

impl Writer {
    pub fn new(store: Arc<Store>, shared: Arc<Shared>) -> Writer {
        Writer { store, shared, unwritten: 0, overflowed: 0, halted: None, looked: None, since_size: 0 }
    }

    pub fn run(mut self) {
        loop {
            let patience = if self.halted.is_some() { HALTED } else { IDLE };
            let Taken { lines, overflowed, asked, urgent, closed } = self.shared.queue.take(patience);
            self.overflowed += overflowed;
            self.write(lines);
            self.look(urgent && !closed);
            self.shared.queue.written(asked);
            if closed {
                break;
            }
        }
        self.shared.queue.end();
    }

    fn write(&mut self, lines: Vec<Waiting>) {
        match self.refused() {
            Some(why) => self.give_up(lines.len(), why),
            None => {
                let mut rest = lines.as_slice();
                while !rest.is_empty() && self.halted.is_none() {
                    let (batch, behind) = rest.split_at(first_batch(rest));
                    match self.put(batch) {
                        Ok(()) => rest = behind,
                        Err(why) => self.give_up(rest.len(), why),
                    }
                }
            }
        }
        if self.halted.is_none() && self.overflowed + self.unwritten > 0 {
            let gap = JournalLine::gap(self.overflowed, self.unwritten).encode();
            if let Err(why) = self.put(&[(self.shared.queue.stamp(), gap)]) {
                return self.give_up(0, why);
            }
            (self.overflowed, self.unwritten) = (0, 0);
        }
    }

    /// Why nothing is written now, for that may change.
    fn refused(&mut self) -> Option<String> {
        let (space, synced) = self.store.disk();
        let full = space.figures().filter(|(least, free)| *free < least.saturating_add(least / EARLIER));
        let full = full.map(|(_, free)| format!("{} MiB are free on the disk", free >> 20));
        let refused = synced.poisoned().or(full);
        if refused.is_none() && self.halted.take().is_some() {
            tracing::info!("the journal is written again");
        }
        refused
    }

    /// Counts what is not written.
    fn give_up(&mut self, lines: usize, why: String) {
        self.unwritten += lines as u64;
        self.shared.queue.lose(lines as u64);
        if self.halted.is_none() {
            tracing::warn!(why, "the journal of what happened is not written, until it can be");
        }
        self.halted = Some(why);
    }

    /// Writes lines, and waits for the database where it is behind. It never makes others wait for it.
    fn put(&mut self, lines: &[Waiting]) -> std::result::Result<(), String> {
        let mut attempts = 0;
        loop {
            let mut batch = self.store.batch_of_here();
            for (at, line) in lines {
                self.store.put(&mut batch, Family::Journal, key(*at), line);
            }
            let bytes = batch.bytes();
            match self.store.write_aside(batch) {
                Ok(true) => {
                    self.since_size += bytes;
                    return Ok(());
                }
                Ok(false) if self.shared.queue.pause(BEHIND) => {
                    attempts += 1;
                    if attempts == LAST_ATTEMPTS {
                        return Err("the database is behind with its tables".to_owned());
                    }
                }
                Ok(false) => {}
                Err(why) => return Err(why.to_string()),
            }
        }
    }

    /// Removes what is too old or too much, if it is time to look, or if somebody asks.
    fn look(&mut self, asked: bool) {
        let now = self.shared.queue.now();
        let is_time = self.looked.is_none_or(|looked| now.since(looked) >= expire::LOOK);
        let much = self.since_size >= self.shared.bounds.bytes / expire::SIZE_LOOKS;
        if self.halted.is_some() || !(asked || is_time || much) {
            return;
        }
        (self.looked, self.since_size) = (Some(now), 0);
        let expired: Result<()> = expire::expire(&self.store, &self.shared);
        if let Err(why) = expired {
            tracing::warn!(%why, "older lines of the journal could not be removed");
        }
    }
}

/// How many lines are written at once.
fn first_batch(lines: &[Waiting]) -> usize {
    let mut bytes = 0;
    let fits = |(_, line): &&Waiting| {
        bytes += line.len();
        bytes <= BATCH_BYTES
    };
    lines.iter().take_while(fits).count().max(1)
}
