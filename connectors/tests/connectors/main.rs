//! Connectors against servers of their own: requests, paging, proofs of the end, sizes, addresses, definition files and their schema.

mod bodies;
mod definitions;
mod egress;
mod endings;
mod lies;
mod provider;
mod relay;
mod rest;
mod schema;
mod sync;
