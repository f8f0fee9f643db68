//! Pruned contents that came back in epochs that are not committed yet: later epochs have to find them, readers not.

use super::codec::StoredChange;
use super::{Result, Store};
use crate::model::DatasetId;
use parking_lot::RwLock;
use std::collections::HashMap;

/// By dataset and position: the epoch, the change as it will stand, its payload.
#[derive(Default)]
pub(super) struct Restored(RwLock<HashMap<(DatasetId, u64), (u64, StoredChange, Vec<u8>)>>);

impl Store {
    /// The content of a change is back from `epoch` on.
    pub(super) fn restore(
        &self,
        epoch: u64,
        (dataset, position): (DatasetId, u64),
        meta: &StoredChange,
        payload: &[u8],
    ) -> Result<()> {
        let committed = self.committed()?;
        let mut all = self.restored.0.write();
        all.retain(|_, (epoch, _, _)| *epoch >= committed);
        all.insert((dataset, position), (epoch, meta.clone(), payload.to_vec()));
        Ok(())
    }

    /// The content of a change goes again.
    pub(super) fn unrestore(&self, dataset: DatasetId, position: u64) {
        self.restored.0.write().remove(&(dataset, position));
    }

    /// A change whose content came back lately, with the content.
    pub(super) fn restored(&self, dataset: DatasetId, position: u64) -> Option<(StoredChange, Vec<u8>)> {
        let all = self.restored.0.read();
        all.get(&(dataset, position)).map(|(_, meta, payload)| (meta.clone(), payload.clone()))
    }
}
