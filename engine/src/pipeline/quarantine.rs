//! Quarantine: what could not be taken, kept where people see it until it can be, is dropped, or is too old.
//!
//! Stored under `Keyspace::QUARANTINE` (environment, source, connection, stream, key), as JSON. A key begins with its writer
//! (`run/`, `webhook/`, `topic/`, `function/`), so that no writer releases what another has kept. Keys of earlier versions have no writer in
//! them; they are read as what they are.
//!
//! Promises: at most [`QUARANTINE_MAX`] entries of one writer and stream, none older than [`QUARANTINE_AGE`]. What found no
//! room, and what was too old, is counted beside the entries.

use super::{Batch, Engine, Error, Keyspace, Mark};
use crate::model::{Cause, Timestamp, Via};
use crate::source::Quarantined;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// Entries of one writer kept for one stream of a connection.
pub const QUARANTINE_MAX: usize = 500;

/// Longest part of an item that is kept, bytes.
pub const QUARANTINE_ITEM_BYTES_MAX: usize = 16 * 1024;

/// How long an entry is kept.
pub const QUARANTINE_AGE: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// After so long the entries are counted anew where there is no room: some may have been dropped by hand.
const COUNTED_FOR: Duration = Duration::from_secs(60);

/// Key of the count of what was dropped, behind the writer.
const DROPPED: &str = "/dropped";

/// Who keeps something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum QuarantineWriter {
    /// A run: items of a provider's answer.
    Run,
    /// Webhooks, and what was fetched because of them.
    Webhook,
    /// Messages of topics.
    Topic,
    /// Functions that are called because something happened.
    Function,
}

impl QuarantineWriter {
    /// All of them.
    pub const ALL: [QuarantineWriter; 4] =
        [QuarantineWriter::Run, QuarantineWriter::Webhook, QuarantineWriter::Topic, QuarantineWriter::Function];

    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            QuarantineWriter::Run => "run",
            QuarantineWriter::Webhook => "webhook",
            QuarantineWriter::Topic => "topic",
            QuarantineWriter::Function => "function",
        }
    }

    /// The writer of a key, and the rest of it.
    fn of(key: &str) -> (QuarantineWriter, &str) {
        let named = QuarantineWriter::ALL
            .into_iter()
            .find_map(|one| Some((one, key.strip_prefix(one.as_str())?.strip_prefix('/')?)));
        named.unwrap_or_else(|| match key.split('.').next().and_then(Cause::parse) {
            Some(cause) if cause.via == Via::Webhook => (QuarantineWriter::Webhook, key),
            Some(cause) if cause.via == Via::Push => (QuarantineWriter::Topic, key),
            _ => (QuarantineWriter::Run, key),
        })
    }
}

/// What could not be taken, as stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuarantineEntry {
    /// Stable word for the reason.
    pub code: String,
    /// For people.
    pub message: String,
    /// The record's id, if it could be read.
    #[serde(default)]
    pub id: Option<String>,
    /// The item as it came, cut.
    #[serde(default)]
    pub item: String,
    /// The run, webhook or message that met it last.
    #[serde(alias = "run", default)]
    pub cause: String,
    /// When.
    #[serde(deserialize_with = "time")]
    pub at: Timestamp,
}

/// Times were once written as text by some.
fn time<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Timestamp, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum StoredTime {
        Micros(i64),
        Text(String),
    }
    match StoredTime::deserialize(from)? {
        StoredTime::Micros(micros) => Ok(Timestamp(micros)),
        StoredTime::Text(text) => Timestamp::parse(&text).ok_or_else(|| serde::de::Error::custom("no time")),
    }
}

impl QuarantineEntry {
    /// What was refused, with what met it and when.
    pub fn new(what: &Quarantined, cause: impl Into<String>, at: Timestamp) -> QuarantineEntry {
        let end = what.item.floor_char_boundary(QUARANTINE_ITEM_BYTES_MAX);
        QuarantineEntry {
            code: what.code.to_owned(),
            message: what.message.clone(),
            id: what.id.clone(),
            item: what.item.get(..end).unwrap_or_default().to_owned(),
            cause: cause.into(),
            at,
        }
    }

    /// The key of an item that has none of its own: the same item has the same.
    pub fn key_of_item(&self) -> String {
        self.id.clone().unwrap_or_else(|| format!("?{:016x}", twox_hash::XxHash3_64::oneshot(self.item.as_bytes())))
    }
}

/// What a writer did not keep, or not any longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DroppedEntries {
    /// How many.
    pub count: u64,
    /// The last time.
    pub at: Timestamp,
}

/// What is known of an entry.
#[derive(Clone, Copy, Debug)]
struct KeptEntry {
    /// Its stored key has no writer in it.
    unnamed: bool,
    /// The run under way has met it.
    met: bool,
    /// When it was put there by whom this belongs to: it may not be committed yet.
    put_at: Timestamp,
}

/// What one writer keeps for one stream of a connection.
#[derive(Debug)]
pub struct Quarantine {
    place: [String; 4],
    writer: QuarantineWriter,
    /// By key without its writer.
    kept: BTreeMap<String, KeptEntry>,
    dropped: DroppedEntries,
    counted_at: Timestamp,
}

impl Quarantine {
    /// Reads it. `place` is environment, source, connection, stream.
    pub fn load(engine: &Engine, place: [&str; 4], writer: QuarantineWriter) -> Result<Quarantine, Error> {
        let dropped = DroppedEntries { count: 0, at: Timestamp::NONE };
        let place = place.map(str::to_owned);
        let mut quarantine = Quarantine { place, writer, kept: BTreeMap::new(), dropped, counted_at: Timestamp::NONE };
        quarantine.count(engine)?;
        Ok(quarantine)
    }

    fn count(&mut self, engine: &Engine) -> Result<(), Error> {
        let place = self.place.each_ref().map(String::as_str);
        let mut kept = BTreeMap::new();
        for (rest, value) in engine.marks(Keyspace::QUARANTINE, &place)? {
            let Some(key) = rest.into_iter().next() else { continue };
            let (writer, name) = QuarantineWriter::of(&key);
            if writer != self.writer {
                continue;
            }
            if name == DROPPED {
                self.dropped = serde_json::from_slice(&value).unwrap_or(self.dropped);
                continue;
            }
            let was = self.kept.get(name);
            let (met, put_at) = was.map_or((false, Timestamp::NONE), |was| (was.met, was.put_at));
            kept.insert(name.to_owned(), KeptEntry { unnamed: name.len() == key.len(), met, put_at });
        }
        let now = engine.clock().now();
        // What was put a moment ago is on its way to the store.
        let on_its_way = |known: &KeptEntry| known.put_at != Timestamp::NONE && known.put_at.plus(COUNTED_FOR) > now;
        for (name, known) in std::mem::take(&mut self.kept) {
            if on_its_way(&known) {
                kept.entry(name).or_insert(known);
            }
        }
        (self.kept, self.counted_at) = (kept, now);
        Ok(())
    }

    /// The mark that keeps an entry under a key; where there is no room, the mark that counts it as dropped, and false.
    pub fn keep(&mut self, engine: &Engine, key: &str, entry: &QuarantineEntry) -> Result<(Mark, bool), Error> {
        if self.is_full_for(key) && self.counted_at.plus(COUNTED_FOR) <= entry.at {
            self.count(engine)?;
        }
        if self.is_full_for(key) {
            self.dropped = DroppedEntries { count: self.dropped.count + 1, at: entry.at };
            return Ok((dropped_mark(&self.place, self.writer, &self.dropped), false));
        }
        let new = KeptEntry { unnamed: false, met: true, put_at: entry.at };
        let known = self.kept.entry(key.to_owned()).or_insert(new);
        (known.met, known.put_at) = (true, entry.at);
        let stored = stored_key(self.writer, key, known.unnamed);
        let value = serde_json::to_vec(entry).unwrap_or_default();
        Ok((Mark::put(Keyspace::QUARANTINE, &self.key(&stored), value), true))
    }

    fn is_full_for(&self, key: &str) -> bool {
        self.kept.len() >= QUARANTINE_MAX && !self.kept.contains_key(key)
    }

    /// The mark that releases what is kept of a record that was taken now.
    pub fn release(&mut self, id: &str) -> Option<Mark> {
        let known = self.kept.remove(id)?;
        Some(Mark::delete(Keyspace::QUARANTINE, &self.key(&stored_key(self.writer, id, known.unnamed))))
    }

    /// The marks that release what a whole listing did not bring again.
    pub fn release_unmet(&self) -> Vec<Mark> {
        let unmet = self.kept.iter().filter(|(_, known)| !known.met);
        let stored = unmet.map(|(key, known)| stored_key(self.writer, key, known.unnamed));
        stored.map(|key| Mark::delete(Keyspace::QUARANTINE, &self.key(&key))).collect()
    }

    fn key<'a>(&'a self, key: &'a str) -> [&'a str; 5] {
        let [environment, source, connection, stream] = self.place.each_ref().map(String::as_str);
        [environment, source, connection, stream, key]
    }
}

fn stored_key(writer: QuarantineWriter, key: &str, unnamed: bool) -> String {
    if unnamed { key.to_owned() } else { format!("{}/{key}", writer.as_str()) }
}

fn dropped_mark(place: &[String; 4], writer: QuarantineWriter, dropped: &DroppedEntries) -> Mark {
    let [environment, source, connection, stream] = place.each_ref().map(String::as_str);
    let key = format!("{}/{DROPPED}", writer.as_str());
    let value = serde_json::to_vec(dropped).unwrap_or_default();
    Mark::put(Keyspace::QUARANTINE, &[environment, source, connection, stream, &key], value)
}

/// Something in quarantine, wherever it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuarantineRow {
    /// Source, connection and stream.
    pub place: [String; 3],
    /// Who keeps it.
    pub writer: QuarantineWriter,
    /// Its key as stored.
    pub key: String,
    /// An entry, or what was dropped.
    pub kept: Result<QuarantineEntry, DroppedEntries>,
}

/// What is kept below a place, in order, behind one of it: each handed to `each` until it returns false. What cannot be read is
/// passed over: a later version may have written it.
pub fn quarantined(
    engine: &Engine,
    environment: &str,
    after: Option<&QuarantineRow>,
    each: &mut dyn FnMut(QuarantineRow) -> bool,
) -> Result<(), Error> {
    let after = after.map(|row| row.parts().to_vec()).unwrap_or_default();
    engine.marks_after(Keyspace::QUARANTINE, &[environment], &after, &mut |rest, value| {
        row(rest, value).is_none_or(&mut *each)
    })
}

/// What is stored where a row says.
pub fn quarantine_entry(
    engine: &Engine,
    environment: &str,
    named: &QuarantineRow,
) -> Result<Option<QuarantineRow>, Error> {
    let parts = named.parts();
    let [source, connection, stream, key] = parts;
    let stored = engine.mark(Keyspace::QUARANTINE, &[environment, source, connection, stream, key])?;
    Ok(stored.and_then(|value| row(parts.map(str::to_owned).into(), &value)))
}

impl QuarantineRow {
    /// The place of an entry, whatever is kept there.
    pub fn named(place: [String; 3], key: String) -> QuarantineRow {
        let (writer, _) = QuarantineWriter::of(&key);
        QuarantineRow { place, writer, key, kept: Err(DroppedEntries { count: 0, at: Timestamp::NONE }) }
    }

    /// Source, connection, stream, key.
    pub fn parts(&self) -> [&str; 4] {
        let [source, connection, stream] = self.place.each_ref().map(String::as_str);
        [source, connection, stream, &self.key]
    }

    /// Its key without the writer.
    pub fn name(&self) -> &str {
        QuarantineWriter::of(&self.key).1
    }
}

fn row(rest: Vec<String>, value: &[u8]) -> Option<QuarantineRow> {
    let [source, connection, stream, key] = <[String; 4]>::try_from(rest).ok()?;
    let (writer, name) = QuarantineWriter::of(&key);
    let kept = match name {
        DROPPED => Err(serde_json::from_slice(value).ok()?),
        _ => Ok(serde_json::from_slice(value).ok()?),
    };
    Some(QuarantineRow { place: [source, connection, stream], writer, key, kept })
}

/// The mark that removes an entry.
pub fn remove_from_quarantine(environment: &str, row: &QuarantineRow) -> Mark {
    let [source, connection, stream, key] = row.parts();
    Mark::delete(Keyspace::QUARANTINE, &[environment, source, connection, stream, key])
}

/// Removes entries older than [`QUARANTINE_AGE`] and counts them as dropped. How many there were.
pub async fn expire_quarantine(engine: &Engine, now: Timestamp) -> Result<u64, Error> {
    let mut marks = Vec::new();
    // What is too old at a place, and what was dropped there before.
    let mut dropped: BTreeMap<([String; 4], QuarantineWriter), (u64, u64)> = BTreeMap::new();
    engine.marks_after(Keyspace::QUARANTINE, &[], &[], &mut |mut rest, value| {
        let environment = if rest.is_empty() { String::new() } else { rest.remove(0) };
        let Some(row) = row(rest, value) else { return true };
        let [source, connection, stream] = row.place.clone();
        if matches!(&row.kept, Ok(entry) if entry.at.plus(QUARANTINE_AGE) > now) {
            return true;
        }
        let counts = dropped.entry(([environment.clone(), source, connection, stream], row.writer)).or_default();
        match &row.kept {
            Err(before) => counts.1 = before.count,
            Ok(_) => {
                counts.0 += 1;
                marks.push(remove_from_quarantine(&environment, &row));
            }
        }
        true
    })?;
    let old: u64 = dropped.values().map(|(old, _)| old).sum();
    for ((place, writer), (old, before)) in dropped.into_iter().filter(|(_, (old, _))| *old > 0) {
        marks.push(dropped_mark(&place, writer, &DroppedEntries { count: before + old, at: now }));
    }
    if !marks.is_empty() {
        engine.commit(Batch { marks, ..Batch::default() }).await?;
    }
    Ok(old)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::Options;
    use crate::time::{Clock, ManualClock};
    use std::sync::Arc;

    const PLACE: [&str; 4] = ["default", "crm", "acme", "Contact"];

    fn engine() -> (Engine, Arc<ManualClock>) {
        let clock = Arc::new(ManualClock::new(Timestamp::from_seconds(1_000_000)));
        let clock_ = clock.clone();
        (Engine::open(Options { clock: clock_, ..Options::temporary() }).expect("opens"), clock)
    }

    fn what(id: &str) -> Quarantined {
        Quarantined { code: "bad_value", message: "no".into(), id: Some(id.into()), item: "{}".into() }
    }

    async fn keep(engine: &Engine, writer: QuarantineWriter, id: &str) {
        let entry = QuarantineEntry::new(&what(id), "run_1", engine.clock().now());
        let mut quarantine = Quarantine::load(engine, PLACE, writer).expect("reads");
        let (mark, _) = quarantine.keep(engine, id, &entry).expect("kept");
        engine.put_marks(vec![mark]).await.expect("stored");
    }

    fn rows(engine: &Engine) -> Vec<QuarantineRow> {
        let mut rows = Vec::new();
        let mut take = |row| {
            rows.push(row);
            true
        };
        quarantined(engine, "default", None, &mut take).expect("reads");
        rows
    }

    #[tokio::test]
    async fn entries_go_when_they_are_old_and_are_counted_by_writer() {
        let (engine, clock) = engine();
        for (writer, id) in [
            (QuarantineWriter::Run, "a"),
            (QuarantineWriter::Webhook, "whk_00000000000001.0.0"),
            (QuarantineWriter::Run, "b"),
        ] {
            keep(&engine, writer, id).await;
        }
        clock.advance(QUARANTINE_AGE - Duration::from_secs(1));
        keep(&engine, QuarantineWriter::Topic, "c").await;
        assert_eq!(expire_quarantine(&engine, clock.now()).await.expect("swept"), 0);
        clock.advance(Duration::from_secs(1));
        assert_eq!(expire_quarantine(&engine, clock.now()).await.expect("swept"), 3);
        let left = rows(&engine);
        let (entries, dropped): (Vec<_>, Vec<_>) = left.iter().partition(|row| row.kept.is_ok());
        assert_eq!(entries.iter().map(|row| &*row.key).collect::<Vec<_>>(), ["topic/c"]);
        let counts: BTreeMap<QuarantineWriter, u64> =
            dropped.iter().map(|row| (row.writer, row.kept.as_ref().expect_err("a count").count)).collect();
        assert_eq!(counts, BTreeMap::from([(QuarantineWriter::Run, 2), (QuarantineWriter::Webhook, 1)]));

        clock.advance(QUARANTINE_AGE);
        assert_eq!(expire_quarantine(&engine, clock.now()).await.expect("swept"), 1);
        keep(&engine, QuarantineWriter::Run, "d").await;
        clock.advance(QUARANTINE_AGE);
        expire_quarantine(&engine, clock.now()).await.expect("swept");
        let runs = rows(&engine).into_iter().find(|row| row.writer == QuarantineWriter::Run).expect("a count");
        assert_eq!(runs.kept.expect_err("a count").count, 3, "counts go on");
    }

    #[tokio::test]
    async fn what_earlier_versions_kept_is_read_and_released() {
        let (engine, _) = engine();
        let by_run = r#"{"code":"bad_time","message":"no","id":"x","item":"{}","run":"run_7","at":5000000}"#;
        let by_hook =
            r#"{"format":1,"code":"bad_key","message":"no","id":null,"item":"{}","at":"2026-01-01T00:00:00.000000Z"}"#;
        let put = |key: &str, value: &str| {
            let [environment, source, connection, stream] = PLACE;
            Mark::put(Keyspace::QUARANTINE, &[environment, source, connection, stream, key], value)
        };
        engine.put_marks(vec![put("x", by_run), put("whk_00000000000009.0.0", by_hook)]).await.expect("stored");
        let found: Vec<(QuarantineWriter, String)> =
            rows(&engine).into_iter().map(|row| (row.writer, row.kept.expect("an entry").cause)).collect();
        assert_eq!(found, [(QuarantineWriter::Run, "run_7".to_owned()), (QuarantineWriter::Webhook, String::new())]);

        let mut quarantine = Quarantine::load(&engine, PLACE, QuarantineWriter::Run).expect("reads");
        assert!(quarantine.release("whk_00000000000009.0.0").is_none(), "it is another writer's");
        let mark = quarantine.release("x").expect("kept");
        engine.put_marks(vec![mark]).await.expect("stored");
        assert_eq!(rows(&engine).len(), 1);
    }

    #[tokio::test]
    async fn where_there_is_no_room_it_is_counted_and_room_that_was_made_is_found() {
        let (engine, clock) = engine();
        let mut quarantine = Quarantine::load(&engine, PLACE, QuarantineWriter::Run).expect("reads");
        let mut keep = |id: &str| {
            let entry = QuarantineEntry::new(&what(id), "run_1", clock.now());
            quarantine.keep(&engine, id, &entry).expect("kept")
        };
        clock.advance(COUNTED_FOR);
        let marks: Vec<Mark> = (0..QUARANTINE_MAX).map(|n| keep(&n.to_string()).0).collect();
        assert!(!keep("one too many").1, "though none of them is stored yet");
        engine.put_marks(marks).await.expect("stored");
        assert!(!keep("more").1 && keep("7").1, "one that is there has its room");
        let first = rows(&engine).remove(0);
        engine.put_marks(vec![remove_from_quarantine("default", &first)]).await.expect("stored");
        clock.advance(COUNTED_FOR);
        assert!(keep("more").1, "counted anew");
    }
}
