//! The words every other room uses: ids, observations, records, changes, canonical content.
//!
//! Nothing here does IO, reads a clock or depends on another room.

mod change;
pub mod content;
mod cursor;
mod delivery;
mod failure;
mod ids;
mod observation;
pub mod secret;
mod timestamp;

pub use change::{Action, Change, Counts, Meta, Record};
pub use cursor::{Cursor, CursorError, CursorKey};
pub use delivery::Delivery;
pub use failure::{Failure, Retry};
pub use ids::{BadId, Cause, DatasetId, DatasetName, Position, Via, id_of, is_model, record_id};
pub use observation::{CLOCKS_APART, Strategy, Version};
pub use timestamp::Timestamp;
