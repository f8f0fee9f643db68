//! A time, as the library has it.

/// Microseconds.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Timestamp(pub i64);
