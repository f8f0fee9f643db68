//! What a view sees of a record: named fields of its JSON, read in one pass. Nothing else of the payload is kept.

use crate::model::Timestamp;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use std::fmt;

/// A projection of a record. Made by `#[derive(Row)]`, which says what attributes there are.
///
/// ```
/// use syncline_engine::{model::Timestamp, views::Row};
///
/// #[derive(Row, Clone, Debug, PartialEq)]
/// #[row(crate = syncline_engine)]
/// struct Deal {
///     amount: i64,
///     #[row(name = "dealstage")]
///     stage: String,
///     #[row(path = "owner.id")]
///     owner: Option<String>,
///     #[row(default)]
///     tags: Vec<String>,
///     #[row(modified_at)]
///     at: Option<Timestamp>,
/// }
///
/// let deal = Deal::project(br#"{"id":"1","amount":5,"dealstage":"won","owner":null,"unread":{}}"#, None).unwrap();
/// assert_eq!(deal, Deal { amount: 5, stage: "won".into(), owner: None, tags: vec![], at: None });
/// let wrong = Deal::project(br#"{"id":"1","amount":"5","dealstage":"won"}"#, None).unwrap_err();
/// assert!(wrong.to_string().starts_with("amount: "));
/// ```
pub trait Row: Value {
    /// Reads it out of a record's JSON text, and the source's modified time if there is one: see `#[row(modified_at)]`.
    fn project(record: &[u8], modified_at: Option<Timestamp>) -> Result<Self, Misfit>;
}

/// What a field with `#[row(modified_at)]` may be: [`Timestamp`], where every record has one, or `Option<Timestamp>`.
#[diagnostic::on_unimplemented(
    message = "a field with `#[row(modified_at)]` is a `Timestamp` or an `Option<Timestamp>`",
    label = "this is neither"
)]
pub trait Moment: Sized {
    /// The time, or the want of one, as the field's type.
    fn of(modified_at: Option<Timestamp>) -> Result<Self, Misfit>;
}

impl Moment for Timestamp {
    fn of(modified_at: Option<Timestamp>) -> Result<Timestamp, Misfit> {
        modified_at.ok_or_else(|| Misfit::new("modified_at", "the record has none: its model declares none"))
    }
}

impl Moment for Option<Timestamp> {
    fn of(modified_at: Option<Timestamp>) -> Result<Option<Timestamp>, Misfit> {
        Ok(modified_at)
    }
}

/// What tables hold, as keys and as rows: plain data. Implemented for everything that can be cloned and written by serde in
/// a form that needs no field names to be read again; `serde_json::Value` is none of these.
pub trait Value: serde::Serialize + serde::de::DeserializeOwned + Clone + 'static {}

impl<T: serde::Serialize + serde::de::DeserializeOwned + Clone + 'static> Value for T {}

/// A record that a row type does not fit.
#[derive(Debug, thiserror::Error)]
#[error("{field}: {why}")]
pub struct Misfit {
    field: String,
    why: String,
}

impl Misfit {
    fn new(field: impl Into<String>, why: impl fmt::Display) -> Misfit {
        Misfit { field: field.into(), why: why.to_string() }
    }
}

/// The wanted top-level fields of a record, as they stand in its text.
pub struct Fields<'a>(Vec<Option<&'a RawValue>>);

impl<'a> Fields<'a> {
    /// Finds fields by name. Of a field written twice the last counts.
    pub fn read(record: &'a [u8], names: &[&str]) -> Result<Fields<'a>, Misfit> {
        let mut found = vec![None; names.len()];
        let mut text = serde_json::Deserializer::from_slice(record);
        let read = FieldFinder { names, found: &mut found }.deserialize(&mut text).and_then(|()| text.end());
        read.map_err(|e| Misfit::new("the record", e))?;
        Ok(Fields(found))
    }

    /// The value of the field found for the name at `at`, or of what lies in it along `path`. `whole` names it in errors.
    pub fn field<T: Deserialize<'a>>(&self, at: usize, path: &[&str], whole: &str) -> Result<T, Misfit> {
        let text = match self.text(at, path, whole)? {
            Some(text) => text.get(),
            None => return serde_json::from_str("null").map_err(|_| Misfit::new(whole, "it is missing")),
        };
        serde_json::from_str(text).map_err(|e| Misfit::new(whole, e))
    }

    /// The same; the default where nothing is there.
    pub fn field_or_default<T: Deserialize<'a> + Default>(
        &self,
        at: usize,
        path: &[&str],
        whole: &str,
    ) -> Result<T, Misfit> {
        match self.text(at, path, whole)? {
            Some(text) if text.get() != "null" => serde_json::from_str(text.get()).map_err(|e| Misfit::new(whole, e)),
            _ => Ok(T::default()),
        }
    }

    fn text(&self, at: usize, path: &[&str], whole: &str) -> Result<Option<&'a RawValue>, Misfit> {
        let mut here = self.0.get(at).copied().flatten();
        for name in path {
            let Some(outer) = here.filter(|outer| outer.get() != "null") else { return Ok(None) };
            let inner = Fields::read(outer.get().as_bytes(), &[name]).map_err(|e| Misfit::new(whole, e.why))?;
            here = inner.0.first().copied().flatten();
        }
        Ok(here)
    }
}

/// Walks an object and keeps the values of the names it knows.
struct FieldFinder<'n, 'a> {
    names: &'n [&'n str],
    found: &'n mut Vec<Option<&'a RawValue>>,
}

impl<'a> DeserializeSeed<'a> for FieldFinder<'_, 'a> {
    type Value = ();

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'a> Visitor<'a> for FieldFinder<'_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(known) = map.next_key_seed(Known(self.names))? {
            let Some(first) = known else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            let value: &'a RawValue = map.next_value()?;
            // Two fields of the row may read the same field of the record.
            let name = self.names.get(first).copied().unwrap_or_default();
            for (slot, _) in self.found.iter_mut().zip(self.names).filter(|(_, other)| **other == name) {
                *slot = Some(value);
            }
        }
        Ok(())
    }
}

/// The first place of a name among those known, read without a copy.
struct Known<'n>(&'n [&'n str]);

impl<'a> DeserializeSeed<'a> for Known<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<Option<usize>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Known<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<Option<usize>, E> {
        Ok(self.0.iter().position(|known| *known == name))
    }
}

/// What the derived code names. Not meant to be used by hand.
#[doc(hidden)]
pub mod derived {
    pub use super::{Fields, Misfit, Moment, Row};
    pub use crate::model::Timestamp;
    pub use serde::ser::SerializeStruct;
    pub use serde::{Deserialize, Deserializer, Serialize, Serializer};
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(syncline_derive::Row, Clone, Debug, PartialEq)]
    #[row(crate = crate)]
    struct Wide {
        a: i64,
        #[row(path = "deep.er.value")]
        deep: Option<f64>,
        #[row(path = "deep.text")]
        text: Option<String>,
        #[row(default)]
        flag: bool,
    }

    #[test]
    fn fields_are_found_wherever_they_lie() {
        let row =
            Wide::project(br#"{"x":[{"a":2}],"deep":{"er":{"value":1.5},"text":"\u00e4"},"a":1,"flag":null}"#, None);
        assert_eq!(row.expect("fits"), Wide { a: 1, deep: Some(1.5), text: Some("ä".into()), flag: false });
        let row = Wide::project(br#"{"a":1,"deep":null}"#, None).expect("fits");
        assert_eq!(row, Wide { a: 1, deep: None, text: None, flag: false });
    }

    #[test]
    fn what_does_not_fit_is_named() {
        for (record, said) in [
            (&br#"{"deep":{}}"#[..], "a: it is missing"),
            (br#"{"a":"1"}"#, "a: invalid type: string"),
            (br#"{"a":1,"deep":[]}"#, "deep.er.value: invalid type"),
            (br#"{"a":1"#, "the record: EOF"),
            (br#"[1]"#, "the record: invalid type"),
        ] {
            let wrong = Wide::project(record, None).expect_err("does not fit").to_string();
            assert!(wrong.starts_with(said), "{wrong}");
        }
    }
}
