//! The hash by which Kafka's Java clients choose a partition. Promise: same bytes, same partition as theirs.

/// Seed of Kafka's clients.
const SEED: u32 = 0x9747_b28c;
/// Multiplier of the hash.
const M: u32 = 0x5bd1_e995;
/// Shift of the hash.
const R: u32 = 24;

/// MurmurHash2, 32 bits, with the seed of Kafka's clients.
pub fn murmur2(bytes: &[u8]) -> u32 {
    // Lengths beyond 32 bits wrap, as there.
    let mut hash = SEED ^ (bytes.len() as u32);
    let mut words = bytes.chunks_exact(4);
    for word in &mut words {
        let mut k = word.iter().rev().fold(0u32, |k, b| k << 8 | u32::from(*b));
        k = k.wrapping_mul(M);
        k ^= k >> R;
        k = k.wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ k;
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        hash ^= rest.iter().rev().fold(0u32, |k, b| k << 8 | u32::from(*b));
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

/// The partition of a key among `count`; 0 where there are none.
pub fn partition(key: &[u8], count: i32) -> i32 {
    let positive = (murmur2(key) & 0x7fff_ffff) as i32;
    positive.checked_rem(count).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_the_java_clients() {
        let known: [(&str, i32); 6] = [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ];
        for (text, hash) in known {
            assert_eq!(murmur2(text.as_bytes()) as i32, hash, "{text}");
        }
    }

    #[test]
    fn partitions_are_in_range() {
        assert_eq!(partition(b"foobar", 1), 0);
        assert_eq!(partition(b"foobar", 0), 0);
        assert_eq!(partition(b"abc", 10), 479_470_107 % 10);
        assert_eq!(partition(b"21", 7), ((-973_932_308i32 as u32) & 0x7fff_ffff) as i32 % 7);
    }
}
