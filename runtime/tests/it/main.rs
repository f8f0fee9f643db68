//! Functions through the public doors of the runtime: one module for each subject, in one executable.

mod complaints;
mod mocks;
mod templates;
mod worker;
mod writer;
