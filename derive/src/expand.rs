//! The implementations behind `#[derive(Row)]`: `Serialize` with the fields' names (for JSON; the packed form leaves them
//! out), `Deserialize` in their order, and the projection.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::{Data, DeriveInput, Error, Field, Fields, Ident, LitStr, Path, Result, Type, parse_quote};

/// Most elements of a tuple that serde knows.
const TUPLE: usize = 16;

struct Column<'a> {
    ident: &'a Ident,
    ty: &'a Type,
    /// Its name when it is published.
    name: String,
    path: Vec<String>,
    default: bool,
}

pub fn row(input: &DeriveInput) -> Result<TokenStream> {
    let home = home(input)?;
    if let Some(parameter) = input.generics.params.first() {
        return Err(Error::new_spanned(parameter, "a row has no type parameters: write the types it holds"));
    }
    let columns = columns(input)?;
    let (ident, name) = (&input.ident, input.ident.to_string());
    let (idents, types): (Vec<_>, Vec<_>) = columns.iter().map(|c| (c.ident, c.ty)).unzip();
    let names: Vec<&str> = columns.iter().map(|c| c.name.as_str()).collect();
    let tops: Vec<&str> = columns.iter().filter_map(|c| c.path.first().map(String::as_str)).collect();
    let count = columns.len();
    let (pattern, tuple) = nested(&idents, &types);
    let reads = columns.iter().enumerate().map(|(at, column)| {
        let (ident, rest) = (column.ident, column.path.iter().skip(1));
        let read = if column.default { format_ident!("field_or_default") } else { format_ident!("field") };
        let whole = column.path.join(".");
        quote! { #ident: fields.#read(#at, &[#(#rest),*], #whole)? }
    });
    Ok(quote! {
        const _: () = {
            use #home::views::derived::{Deserialize, Deserializer, Fields, Misfit, Row, Serialize, SerializeStruct, Serializer};

            impl Serialize for #ident {
                fn serialize<S: Serializer>(&self, serializer: S) -> ::core::result::Result<S::Ok, S::Error> {
                    let mut fields = serializer.serialize_struct(#name, #count)?;
                    #( fields.serialize_field(#names, &self.#idents)?; )*
                    fields.end()
                }
            }

            impl<'de> Deserialize<'de> for #ident {
                fn deserialize<D: Deserializer<'de>>(deserializer: D) -> ::core::result::Result<Self, D::Error> {
                    let #pattern: #tuple = Deserialize::deserialize(deserializer)?;
                    ::core::result::Result::Ok(#ident { #(#idents),* })
                }
            }

            impl Row for #ident {
                fn project(record: &[u8]) -> ::core::result::Result<Self, Misfit> {
                    let fields = Fields::read(record, &[#(#tops),*])?;
                    ::core::result::Result::Ok(#ident { #(#reads),* })
                }
            }
        };
    })
}

/// Where the library is: `syncline`, or what `#[row(crate = …)]` on the struct says.
fn home(input: &DeriveInput) -> Result<Path> {
    let mut home: Path = parse_quote!(::syncline);
    for attribute in input.attrs.iter().filter(|a| a.path().is_ident("row")) {
        attribute.parse_nested_meta(|meta| {
            if !meta.path.is_ident("crate") {
                return Err(meta.error("a struct's `row` attribute knows `crate` alone"));
            }
            home = meta.value()?.parse()?;
            Ok(())
        })?;
    }
    Ok(home)
}

fn columns(input: &DeriveInput) -> Result<Vec<Column<'_>>> {
    let Data::Struct(data) = &input.data else {
        return Err(Error::new_spanned(&input.ident, "a row is a struct"));
    };
    let Fields::Named(fields) = &data.fields else {
        return Err(Error::new_spanned(&input.ident, "a row's fields need names: they are the record's"));
    };
    if fields.named.is_empty() {
        return Err(Error::new_spanned(&input.ident, "a row needs a field at least"));
    }
    fields.named.iter().map(column).collect()
}

fn column(field: &Field) -> Result<Column<'_>> {
    let Some(ident) = &field.ident else { return Err(Error::new_spanned(field, "a row's fields need names")) };
    let name = ident.to_string().trim_start_matches("r#").to_owned();
    let mut column = Column { ident, ty: &field.ty, path: vec![name.clone()], name, default: false };
    for attribute in field.attrs.iter().filter(|a| a.path().is_ident("row")) {
        attribute.parse_nested_meta(|meta| {
            if meta.path.is_ident("default") {
                column.default = true;
                return Ok(());
            }
            let text = |meta: &syn::meta::ParseNestedMeta<'_>| -> Result<LitStr> { meta.value()?.parse() };
            if meta.path.is_ident("name") {
                column.path = vec![text(&meta)?.value()];
                return Ok(());
            }
            if meta.path.is_ident("path") {
                let path = text(&meta)?;
                column.path = path.value().split('.').map(str::to_owned).collect();
                let whole = column.path.iter().all(|part| !part.is_empty());
                return if whole { Ok(()) } else { Err(Error::new(path.span(), "a part of the path is empty")) };
            }
            Err(meta.error("known are `name = \"…\"`, `path = \"a.b\"` and `default`"))
        })?;
    }
    Ok(column)
}

/// The fields as a tuple, in tuples of their own where they are many, and its type: packed, all of them look the same.
fn nested(idents: &[&Ident], types: &[&Type]) -> (TokenStream, TokenStream) {
    if idents.len() <= TUPLE {
        return (quote! { (#(#idents,)*) }, quote! { (#(#types,)*) });
    }
    let each = idents.len().div_ceil(TUPLE).max(TUPLE);
    let parts = idents.chunks(each).zip(types.chunks(each)).map(|(idents, types)| nested(idents, types));
    let (patterns, tuples): (Vec<_>, Vec<_>) = parts.unzip();
    (quote! { (#(#patterns,)*) }, quote! { (#(#tuples,)*) })
}
