//! `#[derive(Row)]`: a struct of named fields becomes a projection of a JSON record.
//!
//! Promises: what cannot work is said at compile time, at the place where it stands: structs without names, type
//! parameters, attributes nobody knows, a path without parts.

mod expand;

use proc_macro::TokenStream;
use syn::{DeriveInput, parse_macro_input};

/// Makes a struct a row of a view: read from JSON by the names of its fields, packed tightly in between, written as JSON
/// when it is published. See `syncline::views::Row`.
///
/// | attribute of a field | what it does |
/// |---|---|
/// | `#[row(name = "dealstage")]` | the field has another name in the record |
/// | `#[row(path = "owner.id")]` | it lies deeper: one name after the other |
/// | `#[row(default)]` | where it is missing or null, it has its type's default |
///
/// A field of type `Option` may be missing. All others have to be there.
#[proc_macro_derive(Row, attributes(row))]
pub fn row(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    expand::row(&input).unwrap_or_else(|error| error.to_compile_error()).into()
}
