//! What dataflow and store share: rows on their way in, what is known of each record, what an epoch changes.
//!
//! Plain data: the dataflow decides over it, the store writes it and reads it back, neither knows the other.

mod entry;
mod fields;
mod rows;
mod spill;
mod split;
mod stage;
mod table;

pub use entry::{DEAD, Entry, HIDDEN, PATCHED, PRUNED, writer};
pub use fields::{Fields, Stamp, merge, patch_hash};
pub use rows::{Kind, Row, Rows, Window, Work};
pub use spill::{Entries, Shelf};
pub use split::AHEAD;
pub use stage::{Content, Kept, OF_VIEWS, Older, Part, Seen, Stage, Staged, Touch};
pub use table::{Table, Tables};
