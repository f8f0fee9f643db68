//! Webhooks on their way in: path → verify → log → answer, and from the log to the records.

/// Webhooks on their way in.
pub struct Hooks {
    _todo: (),
}
