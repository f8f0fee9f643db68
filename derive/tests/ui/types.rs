//! Types that a field cannot have.
#![allow(warnings)]

#[path = "../home/model.rs"]
mod model;
#[path = "../home/views.rs"]
mod views;

use syncline_derive::Row;

use std::time::Instant;

#[derive(Row, Clone)]
#[row(crate = crate)]
struct NotData {
    at: Instant,
}

#[derive(Clone, serde::Serialize, serde::Deserialize)]
struct Own;

#[derive(Row, Clone)]
#[row(crate = crate)]
struct NoDefault {
    #[row(default)]
    own: Own,
}

#[derive(Row, Clone)]
#[row(crate = crate)]
struct TimeAsText {
    #[row(modified_at)]
    at: String,
}

#[derive(Row)]
#[row(crate = crate)]
struct NotClone {
    name: String,
}

#[derive(Row, Clone)]
#[row(crate = crate)]
struct AnyJson {
    extra: serde_json::Value,
}

fn main() {}
