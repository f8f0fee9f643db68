//! When syncs run.
