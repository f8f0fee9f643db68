//! The rules of `docs/semantics.md`, one row at a time: who wins, and what that changes.
//!
//! A row that changes nothing costs one lookup: equal bytes are equal content, so nothing is parsed, staged or allocated.

use crate::fault;
use crate::model::content::{Ignore, Key, canonical_hash};
use crate::model::{Action, CLOCKS_APART, Cause, DatasetId, Strategy, Timestamp, Via};
use crate::state::{
    DEAD, FieldClocks, HIDDEN, KeptFields, ObservationRow, ObservationRows, PATCHED, PRUNED, RecordEntry, RecordTable,
    RowKind, SeenRecord, Stage, Staged, StagedContent, Stamp, Touch, WorkerChanges, merge, patch_hash, writer,
};
use std::sync::Arc;
use std::time::Duration;

/// What became of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MergeOutcome {
    /// Readers see a change; the position it replaced, if any.
    Changed(Action, Option<u64>),
    /// Seen, content as before.
    Unchanged,
    /// Seen, but a newer version stands.
    Skipped,
    /// A patch or delete of something unknown, deleted or pruned.
    Ignored,
    /// No record at all, and why.
    Rejected(String),
}

/// One merge in one dataset on behalf of one cause.
pub struct Merge<'a> {
    dataset: DatasetId,
    table: &'a mut RecordTable,
    stage: &'a mut Stage,
    cause: Cause,
    at: Timestamp,
    strategy: Strategy,
    /// The dataset's strategy is `latest`, so that field clocks count times of observation.
    latest_clocks: bool,
    ignore: Arc<Ignore>,
    generation: u32,
    touch: Touch,
}

/// Where a row's bytes are, and its new position should it change something.
#[derive(Clone, Copy)]
pub struct PayloadPlace<'a> {
    /// The rows.
    pub rows: &'a ObservationRows,
    /// Their number in the part.
    pub page: u32,
    /// The position.
    pub position: u64,
}

impl<'a> Merge<'a> {
    /// A merge whose changes are committed at time `at`.
    pub fn new(
        dataset: DatasetId,
        table: &'a mut RecordTable,
        stage: &'a mut Stage,
        cause: Cause,
        at: Timestamp,
    ) -> Self {
        let (strategy, ignore, generation) = (table.spec.strategy, table.spec.ignore.clone(), table.generation);
        let (latest_clocks, touch) = (strategy == Strategy::Latest, Touch::default());
        Merge { dataset, table, stage, cause, at, strategy, latest_clocks, ignore, generation, touch }
    }

    /// The same by another strategy than the dataset's, if one is given.
    pub fn by(self, strategy: Option<Strategy>) -> Self {
        Merge { strategy: strategy.unwrap_or(self.strategy), ..self }
    }

    /// Applies one row.
    #[inline]
    pub fn apply(&mut self, place: PayloadPlace<'_>, row: &ObservationRow) -> MergeOutcome {
        match row.kind {
            RowKind::Whole => {
                let version = self.version(row);
                if let Some(entry) = self.table.get(&row.key)
                    && entry.raw == row.raw
                    && !entry.is(DEAD | HIDDEN | PATCHED | PRUNED)
                {
                    seen(&mut self.touch, entry, version, self.strategy, self.generation);
                    return MergeOutcome::Unchanged;
                }
                self.whole(place, row)
            }
            RowKind::Patch => self.patch(place, row),
            RowKind::Gone => self.gone(place, row),
        }
    }

    /// The content at a position, for the views.
    pub fn seen(&self, position: u64) -> Option<SeenRecord> {
        self.stage.seen(self.dataset, position)
    }

    /// Brings what is known of these records near.
    pub fn fetch<'k>(&self, keys: impl Iterator<Item = &'k Key>) {
        self.table.fetch_all(keys);
    }

    /// Whether the record's content was pruned, for the views.
    pub fn is_pruned(&mut self, key: &Key) -> bool {
        self.table.get(key).is_some_and(|entry| entry.is(PRUNED))
    }

    /// The content of a record that is not pruned any more, for the views.
    pub fn restored(&mut self, key: &Key) -> Option<SeenRecord> {
        let position = self.table.get(key).filter(|entry| !entry.is(PRUNED | DEAD))?.position;
        self.seen(position)
    }

    /// Hands what was only seen to the stage.
    pub fn finish(self) {
        // The store is told of every entry of a spilled table that was used.
        if self.touch.keys.is_empty() && self.touch.moved.is_empty() || self.table.is_spilled() {
            return;
        }
        self.table.touched += self.touch.keys.len() + self.touch.moved.len();
        let staged = self.stage.part.touched.entry((self.dataset, self.generation)).or_default();
        staged.runs.extend(self.touch.runs);
        staged.keys.extend(self.touch.keys);
        staged.moved.extend(self.touch.moved);
    }

    /// Deletes every live record not seen in the open window. Positions are `first`, `first + step`, … Returns the positions
    /// the records leave.
    pub fn sweep(&mut self, first: u64, step: u64) -> Vec<(u64, Key)> {
        let Some(began) = self.table.window else { return Vec::new() };
        let doomed = self.table.unseen();
        let mut deleted = Vec::with_capacity(doomed.len());
        for (position, entry) in (first..).step_by(step.max(1) as usize).zip(doomed) {
            // Newer than what was known, even where that bears a time to come: the same observation again is no revival.
            let mut version = (entry.modified_at, began.max(entry.observed_at.plus(Duration::from_micros(1))));
            if let Some(mut fields) = self.table.fields.get(&entry.key).cloned() {
                if self.strategy != Strategy::Latest {
                    version.0 = version.0.max(fields.newest().0);
                }
                let second = if self.strategy == Strategy::Latest { version.1 } else { Timestamp(i64::MAX) };
                fields.rebase((version.0, second, 0), None);
                self.keep(&entry, fields);
            }
            let flags = if self.table.fields.contains_key(&entry.key) { PATCHED } else { 0 };
            self.delete(entry, version, position, None, flags);
            deleted.push((entry.position, entry.key));
        }
        deleted
    }

    /// A row's version. Under `latest` a row without a modified time is as new as the observation. Under
    /// `ignore_if_modified_after` only a page's observation time says something: when it was asked for.
    #[inline]
    fn version(&self, row: &ObservationRow) -> (Timestamp, Timestamp) {
        match (self.strategy, row.modified_at) {
            (Strategy::Latest, Timestamp::NONE) => (row.observed_at, row.observed_at),
            (Strategy::IgnoreIfModifiedAfter, at) if self.cause.via != Via::Poll => (at, Timestamp::NONE),
            (_, at) => (at, row.observed_at),
        }
    }

    /// Whether a newer version stands.
    fn stale(&self, entry: &RecordEntry, version: Stamp) -> bool {
        let forgotten = entry.is(DEAD) && fault::planted("tombstone_forgotten");
        if forgotten || fault::planted("merge_by_arrival") {
            return false;
        }
        self.strategy == Strategy::Latest && version <= entry.version()
    }

    /// Whether a row lost by `ignore_if_modified_after`: a polled one to another writer that came after its page was
    /// requested, any other by the time that it states itself.
    fn overtaken(&self, entry: &RecordEntry, row: &ObservationRow) -> bool {
        if fault::planted("older_page_undoes_a_webhook") {
            return false;
        }
        match (self.strategy, self.cause.via) {
            (Strategy::IgnoreIfModifiedAfter, Via::Poll) => {
                entry.changed_at > row.observed_at && entry.writer() != writer(self.cause)
            }
            (Strategy::IgnoreIfModifiedAfter, _) => {
                let at = row.modified_at;
                at != Timestamp::NONE && (at < entry.modified_at || at.plus(CLOCKS_APART) < entry.observed_at)
            }
            _ => false,
        }
    }

    /// Whether the row takes its place by the time that it states itself, not by its arrival.
    fn is_dated(&self, row: &ObservationRow) -> bool {
        self.strategy == Strategy::IgnoreIfModifiedAfter
            && self.cause.via != Via::Poll
            && row.modified_at != Timestamp::NONE
    }

    /// Where a row stands among field clocks. But for `latest` that is the time it states itself, else behind all of them;
    /// among equal times the later arrival is the newer.
    fn stamp(&self, position: u64, row: &ObservationRow, hash: u64, fields: &FieldClocks) -> Stamp {
        let (at, observed_at) = self.version(row);
        match self.strategy {
            Strategy::Latest => (at, observed_at, hash),
            // Only its page is not of `latest`: right behind all that is known.
            _ if self.latest_clocks => {
                let (newest, seen) = fields.newest();
                (at.max(newest), observed_at.max(seen.plus(Duration::from_micros(1))), hash)
            }
            _ if self.is_dated(row) => (at, arrival(position), 0),
            _ => (at.max(fields.newest().0), arrival(position), 0),
        }
    }

    fn whole(&mut self, place: PayloadPlace<'_>, row: &ObservationRow) -> MergeOutcome {
        let bytes = place.rows.bytes_of(row);
        let hash = match canonical_hash(bytes, &self.ignore) {
            Ok(hash) => hash,
            Err(wrong) => return MergeOutcome::Rejected(wrong.to_string()),
        };
        let version = self.version(row);
        let Some(mut entry) = self.table.get(&row.key).copied() else {
            let entry = self.written(RecordEntry::new(row.key), version, hash, row.raw, place.position);
            self.table.insert(entry);
            self.table.live += 1;
            self.put(Action::Added, entry, None, None, WorkerChanges::content(place.page, row));
            return MergeOutcome::Changed(Action::Added, None);
        };
        if entry.is(PATCHED) {
            return self.whole_over_fields(place, row, entry, hash);
        }
        if !entry.is(DEAD) && entry.hash == hash {
            return self.same(entry, version, row.raw, bytes);
        }
        if self.stale(&entry, (version.0, version.1, hash)) || self.overtaken(&entry, row) {
            return self.skip(entry);
        }
        let (old, action) = (entry.position, self.revive(&entry));
        entry.set_flags(0);
        let entry = self.written(entry, version, hash, row.raw, place.position);
        self.table.put(entry);
        self.put(action, entry, Some(old), None, WorkerChanges::content(place.page, row));
        MergeOutcome::Changed(action, Some(old))
    }

    fn gone(&mut self, place: PayloadPlace<'_>, row: &ObservationRow) -> MergeOutcome {
        let version = self.version(row);
        let deleted_at = deleted_at(place.rows.bytes_of(row));
        let Some(mut entry) = self.table.get(&row.key).copied() else {
            let mut entry = self.written(RecordEntry::new(row.key), version, 0, 0, place.position);
            entry.set_flags(DEAD | HIDDEN);
            self.table.insert(entry);
            self.put(Action::Deleted, entry, None, None, StagedContent::Nothing);
            return MergeOutcome::Ignored;
        };
        if entry.is(PATCHED) {
            return self.gone_over_fields(place, row, entry, deleted_at);
        }
        if entry.is(DEAD) {
            let version = known(self.strategy, &entry, version);
            if self.strategy != Strategy::Override && version > (entry.modified_at, entry.observed_at) {
                (entry.modified_at, entry.observed_at) = version;
                self.touch.moved.push((entry.key[0], version.0, version.1));
                self.table.put(entry);
            }
            return MergeOutcome::Ignored;
        }
        if self.stale(&entry, (version.0, version.1, 0)) || self.overtaken(&entry, row) {
            return self.skip(entry);
        }
        let old = entry.position;
        self.delete(entry, version, place.position, deleted_at, 0);
        MergeOutcome::Changed(Action::Deleted, Some(old))
    }

    fn patch(&mut self, place: PayloadPlace<'_>, row: &ObservationRow) -> MergeOutcome {
        let bytes = place.rows.bytes_of(row);
        let (hash, text) = match (patch_hash(bytes), std::str::from_utf8(bytes)) {
            (Ok(hash), Ok(text)) => (hash, text),
            (Err(wrong), _) => return MergeOutcome::Rejected(wrong),
            (_, Err(wrong)) => return MergeOutcome::Rejected(wrong.to_string()),
        };
        let entry = self.table.get(&row.key).copied();
        if says_nothing(text) {
            return self.there(entry, row);
        }
        if self.strategy == Strategy::Latest {
            return self.patch_fields(place, row, entry, hash, text);
        }
        let Some(entry) = entry.filter(|e| !e.is(DEAD)) else { return MergeOutcome::Ignored };
        if entry.is(PRUNED) {
            return self.refuse(entry);
        }
        if self.overtaken(&entry, row) {
            return self.skip(entry);
        }
        if entry.is(PATCHED) || self.is_dated(row) {
            return self.patch_fields(place, row, Some(entry), hash, text);
        }
        // Some fields date nothing but themselves.
        let version = match self.strategy {
            Strategy::IgnoreIfModifiedAfter => (entry.modified_at, entry.observed_at),
            _ => self.version(row),
        };
        let base = self.stage.payload(self.dataset, entry.position);
        let merged = base.as_deref().and_then(|b| std::str::from_utf8(b).ok()).map(|base| merge(base, text));
        match merged {
            Some(Ok(content)) => self.settle(place, entry, version, content, 0, 0),
            Some(Err(wrong)) => MergeOutcome::Rejected(wrong.to_string()),
            None => MergeOutcome::Ignored,
        }
    }

    /// A patch without fields: the record is there, and that is all. It has no content to be read and no clock to be kept.
    fn there(&mut self, entry: Option<RecordEntry>, row: &ObservationRow) -> MergeOutcome {
        match entry.filter(|entry| !entry.is(DEAD)) {
            None => MergeOutcome::Ignored,
            Some(entry) if entry.is(PRUNED) => self.refuse(entry),
            Some(entry) if self.overtaken(&entry, row) => self.skip(entry),
            Some(entry) => {
                self.skip(entry);
                MergeOutcome::Unchanged
            }
        }
    }

    /// A patch moves the clocks of its own fields only.
    fn patch_fields(
        &mut self,
        place: PayloadPlace<'_>,
        row: &ObservationRow,
        entry: Option<RecordEntry>,
        hash: u64,
        text: &str,
    ) -> MergeOutcome {
        let Some(entry) = entry else {
            let mut fields = FieldClocks::default();
            fields.patch(self.stamp(place.position, row, hash, &fields), text.to_owned());
            let mut entry =
                self.written(RecordEntry::new(row.key), (Timestamp::NONE, Timestamp::NONE), 0, 0, place.position);
            entry.set_flags(DEAD | HIDDEN | PATCHED);
            self.table.insert(entry);
            self.put(Action::Deleted, entry, None, None, StagedContent::Nothing);
            self.keep(&entry, fields);
            return MergeOutcome::Ignored;
        };
        let mut fields = match self.table.fields.get(&row.key) {
            Some(fields) => fields.clone(),
            None if entry.is(PRUNED) && !entry.is(DEAD) => return self.refuse(entry),
            None => FieldClocks {
                base: (!entry.is(DEAD)).then(|| self.text(&entry)).flatten(),
                base_stamp: Some(match self.strategy {
                    Strategy::Latest => entry.version(),
                    _ => (entry.modified_at, arrival(entry.position), 0),
                }),
                patches: Vec::new(),
            },
        };
        if !fields.patch(self.stamp(place.position, row, hash, &fields), text.to_owned()) {
            return if entry.is(DEAD) { MergeOutcome::Ignored } else { self.skip(entry) };
        }
        let content = fields.content();
        self.keep(&entry, fields);
        match content {
            Some(content) => self.settle(place, entry, (entry.modified_at, entry.observed_at), content, PATCHED, 0),
            None => {
                let mut entry = entry;
                entry.set_flags(entry.flags() | PATCHED);
                self.table.put(entry);
                MergeOutcome::Ignored
            }
        }
    }

    /// A whole record under patches that may be newer.
    fn whole_over_fields(
        &mut self,
        place: PayloadPlace<'_>,
        row: &ObservationRow,
        entry: RecordEntry,
        hash: u64,
    ) -> MergeOutcome {
        let Some(mut fields) = self.table.fields.get(&row.key).cloned() else { return self.skip(entry) };
        if self.overtaken(&entry, row) {
            return self.skip(entry);
        }
        let stamp = self.stamp(place.position, row, hash, &fields);
        let text = String::from_utf8_lossy(place.rows.bytes_of(row)).into_owned();
        if !fields.rebase(stamp, Some(text)) {
            return self.skip(entry);
        }
        let (flags, raw) = if fields.patches.is_empty() { (0, row.raw) } else { (PATCHED, 0) };
        let content = fields.content().unwrap_or_default();
        self.keep(&entry, fields);
        self.settle(place, entry, (stamp.0, self.version(row).1), content, flags, raw)
    }

    /// A delete under patches that may be newer. Under `latest` those wait unseen for the record to come back; else the
    /// record was still there when the newest was made.
    fn gone_over_fields(
        &mut self,
        place: PayloadPlace<'_>,
        row: &ObservationRow,
        mut entry: RecordEntry,
        deleted_at: Option<Timestamp>,
    ) -> MergeOutcome {
        let Some(mut fields) = self.table.fields.get(&entry.key).cloned() else { return self.skip(entry) };
        let stamp = self.stamp(place.position, row, 0, &fields);
        let version = (stamp.0, self.version(row).1);
        let patched_later = self.strategy != Strategy::Latest && stamp.0 < fields.newest().0;
        if patched_later || self.overtaken(&entry, row) || !fields.rebase(stamp, None) {
            return if entry.is(DEAD) { MergeOutcome::Ignored } else { self.skip(entry) };
        }
        let flags = if fields.patches.is_empty() { 0 } else { PATCHED };
        self.keep(&entry, fields);
        if entry.is(DEAD) {
            (entry.modified_at, entry.observed_at) = version;
            entry.set_flags((entry.flags() & !PATCHED) | flags);
            self.touch.moved.push((entry.key[0], version.0, version.1));
            self.table.put(entry);
            return MergeOutcome::Ignored;
        }
        let old = entry.position;
        self.delete(entry, version, place.position, deleted_at, flags);
        MergeOutcome::Changed(Action::Deleted, Some(old))
    }

    /// Gives the record merged content, if that is other content.
    fn settle(
        &mut self,
        place: PayloadPlace<'_>,
        mut entry: RecordEntry,
        version: (Timestamp, Timestamp),
        content: String,
        flags: u8,
        raw: u64,
    ) -> MergeOutcome {
        let hash = match canonical_hash(content.as_bytes(), &self.ignore) {
            Ok(hash) => hash,
            Err(wrong) => return MergeOutcome::Rejected(wrong.to_string()),
        };
        if !entry.is(DEAD) && entry.hash == hash {
            entry.set_flags(flags | (entry.flags() & PRUNED));
            return self.same(entry, version, raw, content.as_bytes());
        }
        let (old, action) = (entry.position, self.revive(&entry));
        entry.set_flags(flags);
        let entry = self.written(entry, version, hash, raw, place.position);
        self.table.put(entry);
        self.put(action, entry, Some(old), None, StagedContent::Owned(content.into_bytes()));
        MergeOutcome::Changed(action, Some(old))
    }

    /// The content stands; the record was seen, with these bytes.
    fn same(
        &mut self,
        mut entry: RecordEntry,
        version: (Timestamp, Timestamp),
        raw: u64,
        bytes: &[u8],
    ) -> MergeOutcome {
        if entry.is(PRUNED) {
            entry.set_flags(entry.flags() & !PRUNED);
            self.stage.part.restored.push((self.dataset, entry.position, bytes.to_vec()));
        }
        entry.raw = raw;
        seen(&mut self.touch, &mut entry, version, self.strategy, self.generation);
        self.table.put(entry);
        MergeOutcome::Unchanged
    }

    /// A newer version stands; the record was seen.
    fn skip(&mut self, mut entry: RecordEntry) -> MergeOutcome {
        let version = (entry.modified_at, entry.observed_at);
        if !entry.is(DEAD) {
            seen(&mut self.touch, &mut entry, version, self.strategy, self.generation);
            self.table.put(entry);
        }
        MergeOutcome::Skipped
    }

    /// There is no content to patch any more; but the record was seen.
    fn refuse(&mut self, entry: RecordEntry) -> MergeOutcome {
        self.skip(entry);
        MergeOutcome::Ignored
    }

    fn delete(
        &mut self,
        mut entry: RecordEntry,
        version: (Timestamp, Timestamp),
        position: u64,
        deleted_at: Option<Timestamp>,
        flags: u8,
    ) {
        let old = entry.position;
        entry.set_flags((entry.flags() & PRUNED) | DEAD | flags);
        let entry = self.written(entry, version, entry.hash, 0, position);
        self.table.put(entry);
        self.table.live -= 1;
        self.put(Action::Deleted, entry, Some(old), Some(deleted_at.unwrap_or(self.at)), StagedContent::Kept);
    }

    /// What writing content to this entry is called.
    fn revive(&mut self, entry: &RecordEntry) -> Action {
        if entry.is(DEAD) {
            self.table.live += 1;
            Action::Added
        } else {
            Action::Updated
        }
    }

    fn written(
        &self,
        mut entry: RecordEntry,
        version: (Timestamp, Timestamp),
        hash: u64,
        raw: u64,
        position: u64,
    ) -> RecordEntry {
        (entry.modified_at, entry.observed_at) = known(self.strategy, &entry, version);
        entry.changed_at = self.at;
        entry.hash = hash;
        entry.raw = raw;
        entry.position = position;
        entry.generation = self.generation;
        entry.set_writer(self.cause);
        entry
    }

    fn put(
        &mut self,
        action: Action,
        entry: RecordEntry,
        old: Option<u64>,
        deleted_at: Option<Timestamp>,
        content: StagedContent,
    ) {
        self.stage.part.staged.push(Staged {
            dataset: self.dataset,
            position: entry.position,
            old,
            action,
            cause: self.cause,
            entry,
            deleted_at,
            content,
        });
    }

    /// Keeps field clocks, or forgets them when no patch is left.
    fn keep(&mut self, entry: &RecordEntry, fields: FieldClocks) {
        let stored = if fields.patches.is_empty() {
            self.table.fields.remove(&entry.key);
            None
        } else {
            let bytes = serde_json::to_vec(&fields).ok();
            self.table.fields.insert(entry.key, fields);
            bytes
        };
        self.stage.part.kept.push(KeptFields { dataset: self.dataset, key: entry.key, fields: stored });
    }

    fn text(&self, entry: &RecordEntry) -> Option<String> {
        self.stage.payload(self.dataset, entry.position).and_then(|bytes| String::from_utf8(bytes).ok())
    }
}

/// What is known of a record's times after a row of this version. Under `ignore_if_modified_after` they are two: the latest
/// that anybody stated, and when it was last asked for; both only grow.
#[inline]
fn known(strategy: Strategy, entry: &RecordEntry, version: (Timestamp, Timestamp)) -> (Timestamp, Timestamp) {
    match strategy {
        Strategy::IgnoreIfModifiedAfter => (entry.modified_at.max(version.0), entry.observed_at.max(version.1)),
        _ => version,
    }
}

/// The place in the log as the second part of a [`Stamp`].
fn arrival(position: u64) -> Timestamp {
    Timestamp(i64::try_from(position).unwrap_or(i64::MAX))
}

/// Notes that a record was seen in this generation with this version, which `override` has no use for.
#[inline]
fn seen(
    touch: &mut Touch,
    entry: &mut RecordEntry,
    version: (Timestamp, Timestamp),
    strategy: Strategy,
    generation: u32,
) {
    let version = known(strategy, entry, version);
    let newer = strategy != Strategy::Override && version > (entry.modified_at, entry.observed_at);
    if newer && version.0 != entry.modified_at {
        touch.moved.push((entry.key[0], version.0, version.1));
        (entry.modified_at, entry.observed_at) = version;
    } else if newer || entry.generation != generation {
        if newer {
            entry.observed_at = version.1;
        }
        touch.add(entry.key[0], entry.observed_at);
    }
    entry.generation = generation;
}

/// Whether a patch, which is known to be an object, has no fields.
fn says_nothing(patch: &str) -> bool {
    let inside = patch.trim().strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
    inside.is_some_and(|inside| inside.trim().is_empty())
}

/// `deleted_at` of a row that is gone: eight bytes, or none.
fn deleted_at(bytes: &[u8]) -> Option<Timestamp> {
    bytes.try_into().ok().map(|b| Timestamp(i64::from_le_bytes(b)))
}
