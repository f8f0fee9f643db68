//! The implementations behind `#[derive(Row)]`: `Serialize` with the fields' names (for JSON; the packed form leaves them
//! out), `Deserialize` in their order, and the projection.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::meta::ParseNestedMeta;
use syn::spanned::Spanned;
use syn::{Data, DeriveInput, Error, Field, Fields, Ident, LitStr, Path, Result, Type, parse_quote};

/// Most elements of a tuple that serde knows.
const TUPLE: usize = 16;

struct Column<'a> {
    ident: &'a Ident,
    ty: &'a Type,
    /// Its name when it is published.
    name: String,
    from: Origin,
}

/// Where a field's value comes from.
enum Origin {
    /// A field of the record, or what lies in it.
    Field { path: Vec<String>, default: bool },
    /// The record's modified time.
    ModifiedAt,
}

pub fn row(input: &DeriveInput) -> Result<TokenStream> {
    let home = home(input)?;
    if let Some(parameter) = input.generics.params.first() {
        return Err(Error::new_spanned(parameter, "a row has no type parameters: write the types it holds"));
    }
    let columns = columns(input)?;
    let (ident, name) = (&input.ident, input.ident.to_string());
    let (idents, types): (Vec<_>, Vec<_>) = columns.iter().map(|c| (c.ident, c.ty)).unzip();
    let writes = columns.iter().map(|Column { ident, ty, name, .. }| {
        quote_spanned! { ty.span()=> fields.serialize_field(#name, &self.#ident)?; }
    });
    let count = columns.len();
    let (pattern, tuple) = nested(&idents, &types);
    let (tops, reads) = reads(&columns);
    // Only one name is brought in: all others are those of whoever wrote the struct.
    Ok(quote! {
        const _: () = {
            use #home::views::derived as __row;
            use __row::SerializeStruct as _;

            impl __row::Serialize for #ident {
                fn serialize<S: __row::Serializer>(&self, serializer: S) -> ::core::result::Result<S::Ok, S::Error> {
                    let mut fields = serializer.serialize_struct(#name, #count)?;
                    #( #writes )*
                    fields.end()
                }
            }

            impl<'de> __row::Deserialize<'de> for #ident {
                fn deserialize<D: __row::Deserializer<'de>>(
                    deserializer: D,
                ) -> ::core::result::Result<Self, D::Error> {
                    let #pattern: #tuple = __row::Deserialize::deserialize(deserializer)?;
                    ::core::result::Result::Ok(#ident { #(#idents),* })
                }
            }

            impl __row::Row for #ident {
                fn project(
                    record: &[u8],
                    modified_at: ::core::option::Option<__row::Timestamp>,
                ) -> ::core::result::Result<Self, __row::Misfit> {
                    let fields = __row::Fields::read(record, &[#(#tops),*])?;
                    ::core::result::Result::Ok(#ident { #(#reads),* })
                }
            }
        };
    })
}

/// The top-level fields to be found in a record, and how each field of the row is made of them.
fn reads<'a>(columns: &'a [Column<'_>]) -> (Vec<&'a str>, Vec<TokenStream>) {
    let mut tops = Vec::new();
    let mut reads = Vec::new();
    for Column { ident, ty, from, .. } in columns {
        // The type's own place in the source, so that what it cannot be is said there.
        reads.push(match from {
            Origin::ModifiedAt => quote_spanned! { ty.span()=> #ident: <#ty as __row::Moment>::of(modified_at)? },
            Origin::Field { path, default } => {
                let (at, whole, rest) = (tops.len(), path.join("."), path.iter().skip(1));
                tops.extend(path.first().map(String::as_str));
                let read = Ident::new(if *default { "field_or_default" } else { "field" }, ty.span());
                quote_spanned! { ty.span()=> #ident: fields.#read::<#ty>(#at, &[#(#rest),*], #whole)? }
            }
        });
    }
    (tops, reads)
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
        return Err(Error::new_spanned(&input.ident, "a row is a struct: the fields of a record that a view reads"));
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
    refuse_any(&field.ty)?;
    let name = ident.to_string().trim_start_matches("r#").to_owned();
    let mut said = Said::default();
    for attribute in field.attrs.iter().filter(|a| a.path().is_ident("row")) {
        attribute.parse_nested_meta(|meta| said.hear(&meta))?;
    }
    let from = match said {
        Said { modified_at: true, .. } => Origin::ModifiedAt,
        Said { path, default, .. } => Origin::Field { path: path.unwrap_or_else(|| vec![name.clone()]), default },
    };
    Ok(Column { ident, ty: &field.ty, name, from })
}

/// JSON of any kind needs names to be read again, and rows travel without.
fn refuse_any(ty: &Type) -> Result<()> {
    let Type::Path(path) = ty else { return Ok(()) };
    let any = path.path.segments.first().is_some_and(|first| first.ident == "serde_json");
    let why = "rows travel without names, JSON of any kind cannot be read again: take the fields you need";
    if any { Err(Error::new_spanned(ty, why)) } else { Ok(()) }
}

/// What the attributes of a field have said so far.
#[derive(Default)]
struct Said {
    path: Option<Vec<String>>,
    default: bool,
    modified_at: bool,
}

impl Said {
    fn hear(&mut self, meta: &ParseNestedMeta<'_>) -> Result<()> {
        let word = meta.path.get_ident().map(Ident::to_string).unwrap_or_default();
        let (located, marked) = (self.path.is_some(), self.modified_at);
        match word.as_str() {
            "name" | "path" if located => {
                Err(meta.error("where the field lies is said twice: use one `name` or `path`"))
            }
            "default" if self.default => Err(meta.error("`default` is said twice")),
            "modified_at" if marked => Err(meta.error("`modified_at` is said twice")),
            "name" | "path" | "default" if marked => Err(meta.error(ALONE)),
            "modified_at" if located || self.default => Err(meta.error(ALONE)),
            "default" => {
                self.default = true;
                Ok(())
            }
            "modified_at" => {
                self.modified_at = true;
                Ok(())
            }
            "name" => {
                let name: LitStr = meta.value()?.parse()?;
                self.path = Some(parts(&name, vec![name.value()], "the name is empty")?);
                Ok(())
            }
            "path" => {
                let path: LitStr = meta.value()?.parse()?;
                let all = path.value().split('.').map(str::to_owned).collect();
                self.path = Some(parts(
                    &path,
                    all,
                    "a part of the path is empty: names with a point between, as in `owner.id`",
                )?);
                Ok(())
            }
            _ => Err(meta.error("known are `name = \"…\"`, `path = \"a.b\"`, `default` and `modified_at`")),
        }
    }
}

/// Why `modified_at` stands alone.
const ALONE: &str = "`modified_at` is no field of the record's content: it stands alone";

fn parts(text: &LitStr, parts: Vec<String>, wrong: &str) -> Result<Vec<String>> {
    if parts.iter().any(String::is_empty) { Err(Error::new(text.span(), wrong)) } else { Ok(parts) }
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
