//! What listings that are being read remember, in memory.

use crate::http::paginate::Trail;
use serde_json::Value;
use std::collections::HashSet;
use std::sync::Arc;
use syncline_engine::model::DatasetName;

/// Which listing is being read.
pub(super) type ListingKey = (DatasetName, String);

/// What a listing remembers besides its bookmark.
#[derive(Debug)]
pub(super) struct Memory {
    /// The page these are the facts for: those of another one are of no use.
    pub(super) at: (i64, usize, u64),
    pub(super) lists: Arc<Vec<Value>>,
    pub(super) keys: HashSet<u64>,
    pub(super) trail: Trail,
}
