//! Keys and rows as bytes: one type inside of all arrangements, so that each program compiles them once.
//!
//! A packed key begins with its scope (four bytes), so that no two tenants' keys are ever equal. Equal values have equal
//! bytes; the order of bytes means nothing.

use super::row::Value;
use compact_bytes::CompactBytes;
use postcard::ser_flavors::Flavor;
use std::cmp::Ordering;
use std::ops::Deref;

/// A packed key, with its scope, or a packed row: 24 bytes. Up to 23 are held in them, as most keys and projected rows are, so
/// that sorting and merging many of them touches nothing else.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Bytes(CompactBytes);
/// Whose rows: a number the registry hands out.
pub type TenantNumber = u32;

/// Bytes of the scope in front of a key.
const SCOPE: usize = 4;
/// A key of so many bytes or more in a pair has its length behind this byte.
const LONG: u8 = u8::MAX;

impl Bytes {
    /// How many bytes are held elsewhere.
    pub fn outside(&self) -> usize {
        if self.0.spilled() { self.0.capacity() } else { 0 }
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.0.as_slice()
    }
}

impl PartialOrd for Bytes {
    fn partial_cmp(&self, other: &Bytes) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Bytes {
    fn cmp(&self, other: &Bytes) -> Ordering {
        (**self).cmp(&**other)
    }
}

impl From<&[u8]> for Bytes {
    fn from(bytes: &[u8]) -> Bytes {
        Bytes(CompactBytes::new(bytes))
    }
}

/// Packs behind what is there.
impl Flavor for Bytes {
    type Output = Bytes;

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<Bytes> {
        Ok(self)
    }
}

/// Packs a value; `None` for a type that has no such form.
pub fn pack<T: Value>(value: &T) -> Option<Bytes> {
    postcard::serialize_with_flavor(value, Bytes::default()).ok()
}

/// Reads a packed value.
pub fn unpack<T: Value>(bytes: &[u8]) -> Option<T> {
    postcard::from_bytes(bytes).ok()
}

/// Packs a key of a scope.
pub fn pack_key<K: Value>(scope: TenantNumber, key: &K) -> Option<Bytes> {
    postcard::serialize_with_flavor(key, Bytes::from(&scope.to_be_bytes()[..])).ok()
}

/// The scope of a packed key.
pub fn scope_of(key: &[u8]) -> TenantNumber {
    key.first_chunk::<SCOPE>().map_or(0, |bytes| TenantNumber::from_be_bytes(*bytes))
}

/// Reads a packed key.
pub fn unpack_key<K: Value>(key: &[u8]) -> Option<K> {
    unpack(bare(key))
}

/// A packed key without its scope.
fn bare(key: &[u8]) -> &[u8] {
    key.get(SCOPE..).unwrap_or_default()
}

/// A packed key and a packed row as one row, to lie under a key of the same scope.
pub fn pair(key: &[u8], row: &[u8]) -> Bytes {
    let key = bare(key);
    let mut both = CompactBytes::with_capacity(1 + key.len() + row.len());
    match u8::try_from(key.len()) {
        Ok(len) if len < LONG => both.push(len),
        _ => {
            both.push(LONG);
            both.extend_from_slice(&(key.len() as u32).to_be_bytes());
        }
    }
    both.extend_from_slice(key);
    both.extend_from_slice(row);
    Bytes(both)
}

/// A key and a row that lay under another key.
pub struct Pair<'a, K, V> {
    /// The key as it was packed, without its scope.
    packed: &'a [u8],
    /// The key.
    pub key: K,
    /// The row.
    pub row: V,
}

impl<'a, K: Value, V: Value> Pair<'a, K, V> {
    /// Reads a pair.
    pub fn read(both: &'a [u8]) -> Option<Pair<'a, K, V>> {
        let (len, rest) = match both.split_first()? {
            (&LONG, rest) => {
                rest.split_first_chunk::<4>().map(|(len, rest)| (u32::from_be_bytes(*len) as usize, rest))?
            }
            (len, rest) => (usize::from(*len), rest),
        };
        let (packed, row) = rest.split_at_checked(len)?;
        Some(Pair { packed, key: unpack(packed)?, row: unpack(row)? })
    }

    /// Its key as it was packed, in the scope of the key it lay under.
    pub fn packed_key(&self, under: &[u8]) -> Bytes {
        let mut key = CompactBytes::with_capacity(SCOPE + self.packed.len());
        key.extend_from_slice(&scope_of(under).to_be_bytes());
        key.extend_from_slice(self.packed);
        Bytes(key)
    }

    /// Its key as text, for whoever has to find the row.
    pub fn shown(&self) -> String {
        serde_json::to_string(&self.key).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_keep_their_scope_and_their_value() {
        let key = pack_key(7, &("a".to_owned(), 5u32)).expect("packed");
        assert_eq!((scope_of(&key), unpack_key(&key)), (7, Some(("a".to_owned(), 5u32))));
        assert_ne!(key, pack_key(8, &("a".to_owned(), 5u32)).expect("packed"));
        assert_eq!(unpack_key::<u32>(&[1, 2]), None);
        assert_eq!(pack(&serde_json::json!({"a": 1})).and_then(|b| unpack::<serde_json::Value>(&b)), None);
    }

    #[test]
    fn pairs_keep_keys_of_any_length() {
        for len in [0, 1, 22, 23, 250, 252, 253, 254, 255, 256, 70_000] {
            let (key, row) = ("k".repeat(len), len as u64);
            let packed = pack_key(3, &key).expect("packed");
            let both = pair(&packed, &pack(&row).expect("packed"));
            let read = Pair::<String, u64>::read(&both).expect("read");
            assert_eq!((&read.key, read.row), (&key, row));
            assert_eq!(read.packed_key(&[0, 0, 0, 3, 9]), packed);
        }
        assert!(Pair::<String, u64>::read(&[]).is_none() && Pair::<String, u64>::read(&[9, 1]).is_none());
    }

    #[test]
    fn bytes_compare_as_slices_wherever_they_are_held() {
        let texts = ["", "a", "ab", "b", &"a".repeat(23), &"a".repeat(24), &"b".repeat(40)];
        for one in texts {
            for other in texts {
                let (left, right) = (Bytes::from(one.as_bytes()), Bytes::from(other.as_bytes()));
                assert_eq!((left.cmp(&right), left == right), (one.cmp(other), one == other));
            }
        }
        assert_eq!(std::mem::size_of::<Bytes>(), 24);
    }
}
