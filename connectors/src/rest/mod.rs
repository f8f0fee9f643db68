//! The declarative source: what a definition file says, done.

pub mod definition;
pub mod mapping;
