//! Pieces of JSON text that serde has validated: read without building a tree.

use serde::de::{Deserialize, Deserializer, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

/// A value that is there: unlike with a bare option, `null` is a value and not an absence.
pub(super) fn present<'de: 'a, 'a, D: Deserializer<'de>>(from: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&'a RawValue>::deserialize(from).map(Some)
}

/// A string's content; `None` if the text is no string.
pub(super) fn text(raw: &RawValue) -> Option<Cow<'_, str>> {
    let text = raw.get();
    let inner = text.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') { serde_json::from_str(text).ok().map(Cow::Owned) } else { Some(Cow::Borrowed(inner)) }
}

/// Whether the text is an object.
pub(super) fn is_object(raw: &RawValue) -> bool {
    raw.get().starts_with('{')
}

/// Whether the text is a number.
pub(super) fn is_number(raw: &RawValue) -> bool {
    raw.get().starts_with(|c: char| c == '-' || c.is_ascii_digit())
}

/// A whole number, also where it is written as `1.0` or `1e3`; `None` if the text is none. Saturates.
pub(super) fn whole(raw: &RawValue) -> Option<i64> {
    let text = raw.get();
    if let Ok(number) = text.parse::<i64>() {
        return Some(number);
    }
    let number = text.parse::<f64>().ok().filter(|_| is_number(raw))?;
    // Casts of floats saturate.
    (number.fract() == 0.0 || number.is_infinite()).then_some(number as i64)
}

/// At most `MOST` values; one more is told by [`Few::over`] and nothing behind it is kept.
pub(super) struct Few<T, const MOST: usize> {
    pub(super) values: Vec<T>,
    pub(super) over: bool,
}

impl<'de, T: Deserialize<'de>, const MOST: usize> Deserialize<'de> for Few<T, MOST> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Walk<T, const MOST: usize>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>, const MOST: usize> Visitor<'de> for Walk<T, MOST> {
            type Value = Few<T, MOST>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut few = Few { values: Vec::new(), over: false };
                while few.values.len() < MOST {
                    match list.next_element()? {
                        Some(value) => few.values.push(value),
                        None => return Ok(few),
                    }
                }
                while list.next_element::<serde::de::IgnoredAny>()?.is_some() {
                    few.over = true;
                }
                Ok(few)
            }
        }
        from.deserialize_seq(Walk(PhantomData))
    }
}
