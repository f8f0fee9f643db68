//! What the tests of the whole share.

pub mod served;
pub mod wire;
