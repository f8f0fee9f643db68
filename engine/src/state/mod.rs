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

pub use entry::{DEAD, HIDDEN, PATCHED, PRUNED, RecordEntry, writer};
pub use fields::{FieldClocks, Stamp, merge, patch_hash};
pub use rows::{EpochWork, ObservationRow, ObservationRows, RowKind, Window};
pub use spill::{Entries, SpillReader};
pub use split::AHEAD;
pub use stage::{KeptFields, OF_VIEWS, Older, SeenRecord, Stage, Staged, StagedContent, Touch, WorkerChanges};
pub use table::{RecordTable, Tables};
