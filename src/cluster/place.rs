//! Where a shard is answered.

use crate::app::App;
use std::sync::Arc;

/// Header with the proof that a request comes from a process of this installation.
pub const PROOF: &str = "syncline-proof";

/// Below this path processes ask each other what functions ask of other shards.
#[cfg(feature = "functions")]
pub const FUNCTIONS: &str = "/cluster/functions";
/// Most bytes that a function may send to another shard.
#[cfg(feature = "functions")]
pub const FUNCTION_BYTES: usize = 4 << 20;

/// Where a request about a partition is answered.
pub enum ShardPlace {
    /// Here.
    Here(Arc<App>),
    /// By another process, at this URL.
    There(String),
    /// Nobody owns it at the moment.
    Nowhere,
}
