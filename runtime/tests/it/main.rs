//! Functions through the public doors of the runtime: one module for each subject, in one executable.

#[path = "../fixtures/bombs.rs"]
mod bombs;
mod complaints;
mod mocks;
mod templates;
mod worker;
mod writer;
