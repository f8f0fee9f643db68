//! Writing an epoch: each worker's bulk puts above the watermark, and the small part the committer makes visible.

use super::catalog::{EMPTIED, SPILLED};
use super::codec::{StoredChange, decode};
use super::read::AskedChanges;
use super::touch::encode_touch;
use super::{Error, Family, Result, Store, StoreBatch, keys, spill};
use crate::model::{Action, Counts, DatasetId, Position, Timestamp};
use crate::state::{HIDDEN, PRUNED, Staged, StagedContent, WorkerChanges};
use std::collections::{BTreeMap, HashMap, HashSet};

/// What must wait for the commit: changes below the watermark.
#[derive(Debug)]
pub(crate) enum PendingWrite {
    Put(Family, Vec<u8>, Vec<u8>),
    Delete(Family, Vec<u8>),
    DeleteRange(Family, Vec<u8>, Vec<u8>),
}

impl PendingWrite {
    /// Whether it removes a whole range.
    pub(crate) fn is_range(&self) -> bool {
        matches!(self, PendingWrite::DeleteRange(..))
    }
}

/// One worker's epoch, its bulk written: what is left for the committer.
#[derive(Debug, Default)]
pub(crate) struct Sealed {
    pub changes: Vec<PendingWrite>,
    pub counts: BTreeMap<(u32, DatasetId), Counts>,
    pub rejected: Vec<(u32, DatasetId, String)>,
    pub live: Vec<(DatasetId, i64)>,
    /// Last position written by dataset.
    pub last: BTreeMap<DatasetId, u64>,
    /// Payloads pruned, by batch.
    pub pruned: BTreeMap<u32, u64>,
    /// Payloads that leave their blocks.
    pub forgotten: Vec<(DatasetId, u64)>,
    /// Datasets that are spilled from now on.
    pub spilled: Vec<DatasetId>,
}

impl Store {
    /// Writes the bulk of a part and returns its small rest.
    pub(crate) fn seal(
        &self,
        epoch: u64,
        worker: u16,
        at: Timestamp,
        mut part: WorkerChanges,
        asked: &AskedChanges,
    ) -> Result<Sealed> {
        let mut sealed = Sealed {
            counts: std::mem::take(&mut part.counts),
            rejected: std::mem::take(&mut part.rejected),
            live: std::mem::take(&mut part.live),
            spilled: part.spilled.clone(),
            ..Sealed::default()
        };
        let asked = asked.take()?;
        if part.is_empty() {
            return Ok(sealed);
        }
        let mut bulk = self.batch();
        // Every worker was told; one removes what is stored.
        for dataset in part.cleared.iter().filter(|_| worker == 0) {
            clear(*dataset, epoch, &mut sealed.changes);
        }
        self.put_records(epoch, &part, asked, &mut bulk, &mut sealed)?;
        for ((dataset, generation), touch) in std::mem::take(&mut part.touched) {
            let key = keys::touched(dataset, worker, epoch, generation);
            for (n, piece) in touch.pieces(TOUCH_KEYS).into_iter().enumerate() {
                // The first has the key that all had before there were pieces.
                let number = (n as u32).to_be_bytes();
                let key = [&key[..], if n == 0 { &[] } else { &number[..] }].concat();
                self.put(&mut bulk, Family::Touched, key, encode_touch(&piece));
            }
        }
        for (dataset, entry) in &part.used {
            let key = keys::entry(*dataset, &entry.key).to_vec();
            sealed.changes.push(PendingWrite::Put(Family::Entries, key, spill::encode(entry).to_vec()));
        }
        for dataset in &part.spilled {
            let key = keys::named(SPILLED, u64::from(dataset.0));
            sealed.changes.push(PendingWrite::Put(Family::System, key, b"true".to_vec()));
        }
        for dataset in &part.folded {
            sealed.changes.push(PendingWrite::DeleteRange(
                Family::Touched,
                // Older ones may be of other workers' records.
                keys::touched(*dataset, worker, self.split_since, 0).to_vec(),
                keys::touched(*dataset, worker, epoch, 0).to_vec(),
            ));
        }
        for kept in part.kept.drain(..) {
            let key = keys::entry(kept.dataset, &kept.key).to_vec();
            sealed.changes.push(match kept.fields {
                Some(fields) => PendingWrite::Put(Family::Fields, key, fields),
                None => PendingWrite::Delete(Family::Fields, key),
            });
        }
        self.prune_and_restore(epoch, &mut part, at, &mut sealed)?;
        self.write_unsynced(bulk, epoch)?;
        Ok(sealed)
    }

    fn put_records(
        &self,
        epoch: u64,
        part: &WorkerChanges,
        mut asked: HashMap<(DatasetId, u64), StoredChange>,
        bulk: &mut StoreBatch,
        sealed: &mut Sealed,
    ) -> Result<()> {
        let first = Position::first_of(epoch).0;
        let replaced = |staged: &Staged| staged.old.filter(|old| *old >= first).map(|old| (staged.dataset, old));
        let superseded: HashSet<(DatasetId, u64)> = part.staged.iter().filter_map(replaced).collect();
        let mut here: HashMap<(DatasetId, u64), StoredChange> = HashMap::new();
        let payloads = part.staged.iter().filter_map(|staged| {
            let payload = part.bytes(&staged.content)?;
            Some((staged.dataset, staged.position, payload))
        });
        let mut blocks = self.put_payloads(bulk, payloads.collect())?.into_iter();
        for staged in &part.staged {
            let key = keys::record(staged.dataset, staged.position);
            let old = match staged.old {
                None => None,
                Some(old) if old >= first => here.remove(&(staged.dataset, old)).map(|meta| (old, meta)),
                Some(old) => self.supersede(staged.dataset, old, asked.remove(&(staged.dataset, old)), sealed)?,
            };
            let block = part.bytes(&staged.content).and_then(|_| blocks.next()).flatten();
            let meta = meta_of(staged, old, block);
            if !superseded.contains(&(staged.dataset, staged.position)) {
                self.put(bulk, Family::Cur, key, meta.encode());
            } else {
                if meta.flags & HIDDEN == 0 {
                    self.put(bulk, Family::History, key, meta.encode());
                }
                here.insert((staged.dataset, staged.position), meta);
            }
            let last = sealed.last.entry(staged.dataset).or_default();
            *last = (*last).max(staged.position);
        }
        Ok(())
    }

    /// The entry at `old` leaves `cur`; if readers knew it, it becomes history.
    fn supersede(
        &self,
        dataset: DatasetId,
        old: u64,
        asked: Option<StoredChange>,
        sealed: &mut Sealed,
    ) -> Result<Option<(u64, StoredChange)>> {
        let key = keys::record(dataset, old);
        let missing =
            || Error::Damaged(format!("the change at {old} of dataset {} is missing; restore a backup", dataset.0));
        let meta = match self.restored(dataset, old).map(|(meta, _)| meta).or(asked) {
            Some(meta) => meta,
            None => self.meta(dataset, old)?.ok_or_else(missing)?,
        };
        sealed.changes.push(PendingWrite::Delete(Family::Cur, key.to_vec()));
        if meta.flags & HIDDEN == 0 {
            sealed.changes.push(PendingWrite::Put(Family::History, key.to_vec(), meta.encode()));
        }
        Ok(Some((old, meta)))
    }

    fn prune_and_restore(
        &self,
        epoch: u64,
        part: &mut WorkerChanges,
        at: Timestamp,
        sealed: &mut Sealed,
    ) -> Result<()> {
        // A record that moved on in this very epoch has left `cur`.
        let left: HashSet<(DatasetId, u64)> =
            part.staged.iter().filter_map(|staged| staged.old.map(|old| (staged.dataset, old))).collect();
        let family = |change: (DatasetId, u64)| if left.contains(&change) { Family::History } else { Family::Cur };
        // What was pruned before this epoch cannot be pruned in it, so whatever came back came after the pruning.
        for (dataset, position, slot) in part.pruned.drain(..) {
            let key = keys::record(dataset, position);
            let Some(mut meta) = self.meta(dataset, position)? else { continue };
            self.unrestore(dataset, position);
            let payload = self.payload(dataset, meta.place(position))?.unwrap_or_default();
            let place = meta.place(position).at;
            sealed.forgotten.push((dataset, place));
            meta.flags |= PRUNED;
            meta.pruned_at = Some(at);
            sealed.changes.push(PendingWrite::Put(family((dataset, position)), key.to_vec(), meta.encode()));
            sealed.changes.push(PendingWrite::Put(
                Family::Pay,
                keys::record(dataset, place).to_vec(),
                only_id(&payload),
            ));
            self.prune_owner(dataset, meta.payload, at, sealed)?;
            *sealed.pruned.entry(slot).or_default() += 1;
        }
        for (dataset, position, payload) in part.restored.drain(..) {
            let key = keys::record(dataset, position);
            if let Some(mut meta) = self.meta(dataset, position)? {
                meta.flags &= !PRUNED;
                meta.pruned_at = None;
                self.restore(epoch, (dataset, position), &meta, &payload)?;
                let place = keys::record(dataset, meta.payload.unwrap_or(position));
                sealed.changes.push(PendingWrite::Put(family((dataset, position)), key.to_vec(), meta.encode()));
                sealed.changes.push(PendingWrite::Put(Family::Pay, place.to_vec(), payload));
            }
        }
        Ok(())
    }

    /// A deleted record shares its payload with the change that brought it: that one is pruned as well.
    fn prune_owner(&self, dataset: DatasetId, place: Option<u64>, at: Timestamp, sealed: &mut Sealed) -> Result<()> {
        let Some(key) = place.map(|place| keys::record(dataset, place)) else { return Ok(()) };
        let Some(bytes) = self.get(Family::History, key)? else { return Ok(()) };
        let mut owner = decode(&bytes)?;
        owner.pruned_at = Some(at);
        sealed.changes.push(PendingWrite::Put(Family::History, key.to_vec(), owner.encode()));
        Ok(())
    }

    /// The change at a position, of whatever epoch.
    pub(crate) fn meta(&self, dataset: DatasetId, position: u64) -> Result<Option<StoredChange>> {
        let bytes = self.get(Family::Cur, keys::record(dataset, position))?;
        bytes.as_deref().map(decode).transpose()
    }

    /// Adds waiting changes to the committer's batch.
    pub(crate) fn add(&self, batch: &mut StoreBatch, change: PendingWrite) -> Result<()> {
        match change {
            PendingWrite::Put(family, key, value) => self.put(batch, family, key, value),
            PendingWrite::Delete(family, key) => self.delete(batch, family, key),
            PendingWrite::DeleteRange(family, from, to) => return self.delete_range(batch, family, &from, &to),
        }
        Ok(())
    }
}

#[cfg(test)]
impl Store {
    /// What a damaged disk may do.
    pub(crate) fn lose_payloads(&self, dataset: DatasetId) -> Result<()> {
        let mut batch = self.batch();
        for family in [Family::Pay, Family::Blocks] {
            self.delete_range(&mut batch, family, &keys::record(dataset, 0), &keys::record(dataset, u64::MAX))?;
        }
        self.write_synced(batch)
    }
}

/// The change as it is stored; `block` is that of a payload of its own.
fn meta_of(staged: &Staged, old: Option<(u64, StoredChange)>, block: Option<u16>) -> StoredChange {
    let entry = &staged.entry;
    let old = old.filter(|(_, meta)| meta.flags & HIDDEN == 0);
    let kept =
        matches!(staged.content, StagedContent::Kept).then(|| old.as_ref().map(|(at, meta)| meta.place(*at))).flatten();
    StoredChange {
        flags: entry.flags(),
        action: staged.action,
        cause: staged.cause,
        key: entry.key,
        modified_at: entry.modified_at,
        observed_at: entry.observed_at,
        changed_at: entry.changed_at,
        hash: entry.hash,
        raw: entry.raw,
        generation: entry.generation,
        first_seen_at: match (&old, staged.action) {
            (Some((_, meta)), Action::Updated | Action::Deleted) => meta.first_seen_at,
            _ => entry.changed_at,
        },
        previous: old.as_ref().map(|(at, _)| *at),
        payload: kept.map(|place| place.at),
        block: kept.map_or(block, |place| place.block),
        deleted_at: staged.deleted_at,
        // Pruned in this very epoch, the old change does not say so yet.
        pruned_at: entry.is(PRUNED).then(|| old.and_then(|(_, meta)| meta.pruned_at).unwrap_or(entry.changed_at)),
    }
}

/// What is left of a pruned payload.
fn only_id(payload: &[u8]) -> Vec<u8> {
    #[derive(serde::Deserialize)]
    struct Id {
        id: serde_json::Value,
    }
    match serde_json::from_slice::<Id>(payload) {
        Ok(Id { id }) => serde_json::json!({ "id": id }).to_string().into_bytes(),
        Err(_) => b"{}".to_vec(),
    }
}

/// Most workers an engine ever had.
pub(crate) const WORKERS_MAX: u16 = 64;

fn clear(dataset: DatasetId, epoch: u64, changes: &mut Vec<PendingWrite>) {
    // Readers with an older place are told to begin anew.
    let emptied = Position::first_of(epoch).0.to_be_bytes().to_vec();
    changes.push(PendingWrite::Put(Family::System, keys::named(EMPTIED, u64::from(dataset.0)), emptied));
    let (from, to) = (keys::record(dataset, 0).to_vec(), keys::record(dataset, Position::first_of(epoch).0).to_vec());
    for family in Family::BY_POSITION {
        changes.push(PendingWrite::DeleteRange(family, from.clone(), to.clone()));
    }
    // Touches of this epoch came after the clearing, and are written already.
    for worker in 0..WORKERS_MAX {
        let (from, to) =
            (keys::touched(dataset, worker, 0, 0).to_vec(), keys::touched(dataset, worker, epoch, 0).to_vec());
        changes.push(PendingWrite::DeleteRange(Family::Touched, from, to));
    }
    let [from, to] = keys::entries(dataset).map(|key| key.to_vec());
    changes.push(PendingWrite::DeleteRange(Family::Fields, from.clone(), to.clone()));
    changes.push(PendingWrite::DeleteRange(Family::Entries, from, to));
    changes.push(PendingWrite::Delete(Family::System, keys::named(SPILLED, u64::from(dataset.0))));
}

/// Keys of a touch that are stored together: 24 MiB at most, which a changelog takes.
const TOUCH_KEYS: usize = 1 << 20;
