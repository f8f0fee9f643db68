//! Keys and rows as bytes: one type inside of all arrangements, so that each program compiles them once.
//!
//! A packed key begins with its scope (four bytes), so that no two tenants' keys are ever equal. Equal values have equal
//! bytes; the order of bytes means nothing.

use super::row::Value;

/// A packed key, with its scope, or a packed row.
pub type Bytes = Vec<u8>;
/// Whose rows: a number the registry hands out.
pub type Scope = u32;

/// Bytes of the scope in front of a key.
const SCOPE: usize = 4;

/// Packs a value; `None` for a type that has no such form.
pub fn pack<T: Value>(value: &T) -> Option<Bytes> {
    postcard::to_allocvec(value).ok()
}

/// Reads a packed value.
pub fn unpack<T: Value>(bytes: &[u8]) -> Option<T> {
    postcard::from_bytes(bytes).ok()
}

/// Packs a key of a scope.
pub fn pack_key<K: Value>(scope: Scope, key: &K) -> Option<Bytes> {
    postcard::to_extend(key, scope.to_be_bytes().to_vec()).ok()
}

/// The scope of a packed key.
pub fn scope_of(key: &[u8]) -> Scope {
    key.first_chunk::<SCOPE>().map_or(0, |bytes| Scope::from_be_bytes(*bytes))
}

/// Reads a packed key.
pub fn unpack_key<K: Value>(key: &[u8]) -> Option<K> {
    unpack(key.get(SCOPE..)?)
}

/// A packed key and a packed row as one row.
pub fn pair(key: &[u8], row: &[u8]) -> Bytes {
    let mut both = Vec::with_capacity(4 + key.len() + row.len());
    both.extend_from_slice(&(key.len() as u32).to_be_bytes());
    both.extend_from_slice(key);
    both.extend_from_slice(row);
    both
}

/// The packed key of a pair, and key and row read.
pub fn unpack_pair<K: Value, V: Value>(both: &[u8]) -> Option<(&[u8], K, V)> {
    let (len, rest) = both.split_first_chunk::<4>()?;
    let (key, row) = rest.split_at_checked(u32::from_be_bytes(*len) as usize)?;
    Some((key, unpack_key(key)?, unpack(row)?))
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
}
