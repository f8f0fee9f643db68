//! `#[derive(Row)]`: a struct of named fields becomes a projection of a JSON record.
//!
//! Promises: what cannot work is said at compile time, at the place where it stands: structs without names, type
//! parameters, attributes nobody knows or that contradict each other, a path without parts, types that cannot be read.

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
/// | `#[row(modified_at)]` | the source's modified time of the record: a `Timestamp`, or an `Option` of it |
///
/// A field of type `Option` may be missing. All others have to be there. `name` and `path` exclude each other; `modified_at`
/// stands alone. On the struct, `#[row(crate = path)]` says where the library is if not at `::syncline`.
#[proc_macro_derive(Row, attributes(row))]
pub fn row(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    expand::row(&input).unwrap_or_else(|error| error.to_compile_error()).into()
}
