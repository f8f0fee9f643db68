//! Attributes that nobody knows, or that contradict themselves.
#![allow(warnings)]

#[path = "../home/model.rs"]
mod model;
#[path = "../home/views.rs"]
mod views;

use syncline_derive::Row;

#[derive(Row, Clone)]
#[row(crate = crate)]
struct EmptyPart {
    #[row(path = "owner..id")]
    owner: String,
}

#[derive(Row, Clone)]
#[row(crate = crate)]
struct EmptyName {
    #[row(name = "")]
    owner: String,
}

#[derive(Row, Clone)]
#[row(crate = crate)]
struct TwoNames {
    #[row(name = "a", name = "b")]
    owner: String,
}

#[derive(Row, Clone)]
#[row(crate = crate)]
struct NameAndPath {
    #[row(name = "a")]
    #[row(path = "a.b")]
    owner: String,
}

#[derive(Row, Clone)]
#[row(crate = crate)]
struct Unknown {
    #[row(rename = "a")]
    owner: String,
}

#[derive(Row, Clone)]
#[row(crate = crate)]
struct NoText {
    #[row(name = owner)]
    owner: String,
}

#[derive(Row, Clone)]
#[row(crate = crate)]
struct NoValue {
    #[row(path)]
    owner: String,
}

#[derive(Row, Clone)]
#[row(crate = crate)]
struct DefaultTwice {
    #[row(default, default)]
    owner: String,
}

#[derive(Row, Clone)]
#[row(crate = crate)]
struct TimeWithName {
    #[row(modified_at, name = "updated_at")]
    at: model::Timestamp,
}

#[derive(Row, Clone)]
#[row(crate = crate)]
struct TimeWithDefault {
    #[row(default)]
    #[row(modified_at)]
    at: model::Timestamp,
}

#[derive(Row, Clone)]
#[row(rename_all = "camelCase")]
struct OfTheStruct {
    owner: String,
}

fn main() {}
