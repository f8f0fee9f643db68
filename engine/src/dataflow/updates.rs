//! What the merge tells the views: how many records live, and which have changed.

use crate::model::DatasetId;
use crate::model::content::Key;
use crate::state::SeenRecord;

/// Net live records of a dataset.
pub type LiveUpdate = (DatasetId, u64, isize);
/// A record of a watched dataset.
pub type RecordUpdate = (((DatasetId, Key), SeenRecord), u64, isize);
