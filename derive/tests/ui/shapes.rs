//! What is no struct of named fields.
#![allow(warnings)]

#[path = "../home/model.rs"]
mod model;
#[path = "../home/views.rs"]
mod views;

use syncline_derive::Row;

#[derive(Row, Clone)]
#[row(crate = crate)]
enum Choice {
    One,
    Other,
}

#[derive(Row, Clone)]
#[row(crate = crate)]
struct Pair(String, i64);

#[derive(Row, Clone)]
#[row(crate = crate)]
struct Unit;

#[derive(Row, Clone)]
#[row(crate = crate)]
struct Empty {}

#[derive(Row, Clone)]
#[row(crate = crate)]
struct Generic<T> {
    inner: T,
}

#[derive(Row, Clone)]
#[row(crate = crate)]
struct Borrowed<'a> {
    inner: &'a str,
}

fn main() {}
