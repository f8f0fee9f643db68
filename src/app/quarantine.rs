//! What people do with what lies in quarantine: look at it, have it tried again, drop it.
//!
//! How something is tried again depends on who kept it: a webhook's request is processed again, for a run's item the stream is
//! listed again, a message of a topic has to be produced again, and a function is called again.

use crate::app::App;
use crate::engine::pipeline::{Error, QuarantineRow, QuarantineWriter, quarantined, remove_from_quarantine};
use crate::ingest::poll::{SyncKey, TriggerOptions};
use crate::ingest::webhooks::Retried;
use std::collections::BTreeSet;

/// Most entries of one call.
pub const ENTRIES_MAX: usize = 1_000;

/// Which entries are meant; `None` means any.
#[derive(Clone, Debug, Default)]
pub struct QuarantineFilter {
    /// Of this source.
    pub source: Option<String>,
    /// Of this connection.
    pub connection: Option<String>,
    /// Of this stream.
    pub stream: Option<String>,
    /// With this reason.
    pub code: Option<String>,
    /// Kept by this writer.
    pub writer: Option<QuarantineWriter>,
}

impl QuarantineFilter {
    /// Whether an entry is meant. What was dropped is counted for all reasons together.
    pub fn has(&self, row: &QuarantineRow) -> bool {
        let [source, connection, stream] = &row.place;
        let one = |wanted: &Option<String>, is: &str| wanted.as_deref().is_none_or(|wanted| wanted == is);
        one(&self.source, source)
            && one(&self.connection, connection)
            && one(&self.stream, stream)
            && self.writer.is_none_or(|writer| writer == row.writer)
            && row.kept.as_ref().map_or(self.code.is_none(), |entry| one(&self.code, &entry.code))
    }
}

/// What became of entries that were tried again.
#[derive(Clone, Debug, Default)]
pub struct RetriedEntries {
    /// Taken now.
    pub taken: u64,
    /// In quarantine again.
    pub kept: u64,
    /// Listed again: (source, connection, stream). What the list brings well leaves the quarantine with it.
    pub listed: BTreeSet<[String; 3]>,
    /// Not possible: the entry, and why.
    pub impossible: Vec<(QuarantineRow, &'static str)>,
}

impl App {
    /// Entries of an environment behind one of them, at most so many, and whether there are more. Blocks.
    pub fn quarantined(
        &self,
        environment: &str,
        filter: &QuarantineFilter,
        after: Option<&QuarantineRow>,
        limit: usize,
    ) -> Result<(Vec<QuarantineRow>, bool), Error> {
        let (mut rows, mut more) = (Vec::new(), false);
        quarantined(&self.engine, environment, after, &mut |row| {
            if filter.has(&row) {
                more = rows.len() >= limit;
                rows.extend((!more).then_some(row));
            }
            !more
        })?;
        Ok((rows, more))
    }

    /// Tries entries again.
    pub async fn retry_quarantined(
        &self,
        environment: &str,
        rows: Vec<QuarantineRow>,
    ) -> Result<RetriedEntries, Error> {
        let mut done = RetriedEntries::default();
        for row in rows.into_iter().filter(|row| row.kept.is_ok()) {
            match row.writer {
                QuarantineWriter::Webhook => match self.hooks.retry(environment, &row).await? {
                    Retried::Taken => done.taken += 1,
                    Retried::Kept => done.kept += 1,
                    Retried::Impossible(why) => done.impossible.push((row, why)),
                },
                QuarantineWriter::Run => match self.list_again(environment, &row) {
                    true => drop(done.listed.insert(row.place)),
                    false => done.impossible.push((row, "its stream is not polled any more: drop it")),
                },
                QuarantineWriter::Topic => {
                    let why = "a message is read once: produce it again, mended, or drop the entry";
                    done.impossible.push((row, why));
                }
                QuarantineWriter::Function => match self.actions.retry(environment, &row).await? {
                    Retried::Taken => done.taken += 1,
                    Retried::Kept => done.kept += 1,
                    Retried::Impossible(why) => done.impossible.push((row, why)),
                },
            }
        }
        Ok(done)
    }

    /// Lists the stream in full at the next moment; false if nobody polls it.
    fn list_again(&self, environment: &str, row: &QuarantineRow) -> bool {
        let [source, connection, stream] = row.place.clone();
        let variant = "base".to_owned();
        let key = SyncKey { environment: environment.to_owned(), source, connection, stream, variant };
        let options = TriggerOptions { full: true, ..TriggerOptions::default() };
        self.syncs.polled(&key) && self.syncs.trigger(&key, options).is_ok()
    }

    /// Drops entries. How many there were.
    pub async fn drop_quarantined(&self, environment: &str, rows: Vec<QuarantineRow>) -> Result<u64, Error> {
        let marks: Vec<_> = rows.iter().map(|row| remove_from_quarantine(environment, row)).collect();
        let dropped = rows.iter().filter(|row| row.kept.is_ok()).count() as u64;
        if !marks.is_empty() {
            self.engine.put_marks(marks).await?;
        }
        rows.iter().for_each(|row| self.hooks.quarantine_changed(environment, row));
        Ok(dropped)
    }
}
