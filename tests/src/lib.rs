//! What the tests of the whole share: the oracle, histories for it, and the comparison with an engine.

pub mod compare;
pub mod crash;
pub mod history;
pub mod oracle;
