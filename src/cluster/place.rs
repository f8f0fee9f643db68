//! Where a shard is answered.

use crate::app::App;
use std::sync::Arc;

/// Header with the proof that a request comes from a process of this installation.
pub const PROOF: &str = "syncline-proof";

/// Where a request about a partition is answered.
pub enum ShardPlace {
    /// Here.
    Here(Arc<App>),
    /// By another process, at this URL.
    There(String),
    /// Nobody owns it at the moment.
    Nowhere,
}
