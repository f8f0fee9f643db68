//! What the derived code names, out of the library's own file.

#[path = "../../../engine/src/dataflow/views/row.rs"]
mod row;

pub use row::*;
