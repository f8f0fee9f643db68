//! Tokens that stand for something stored: nobody can guess one, what is stored holds only their hash, and they name the shard
//! that knows them.

use crate::engine::time::entropy;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

/// Version of the form.
const VERSION: u8 = 1;
/// Random bytes.
const RANDOM: usize = 32;

/// A new one. `prefix` says what it is for.
pub fn new(prefix: &str, shard: u16) -> String {
    let [high, low] = shard.to_be_bytes();
    let bytes: Vec<u8> = [VERSION, high, low].into_iter().chain(entropy()).collect();
    format!("{prefix}{}", URL_SAFE_NO_PAD.encode(bytes))
}

/// The shard that a token names; `None` if it is none of these.
pub fn shard_of(prefix: &str, token: &str) -> Option<u16> {
    let bytes = URL_SAFE_NO_PAD.decode(token.strip_prefix(prefix)?).ok()?;
    match bytes.as_slice() {
        [VERSION, high, low, random @ ..] if random.len() == RANDOM => Some(u16::from_be_bytes([*high, *low])),
        _ => None,
    }
}

/// What is stored of it, in hex.
pub fn hash(token: &str) -> String {
    hex::encode(Sha256::digest(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_names_its_shard_and_is_like_no_other() {
        let token = new("session_", 513);
        assert_eq!(shard_of("session_", &token), Some(513));
        assert_ne!(token, new("session_", 513));
        assert_eq!(token.len(), "session_".len() + 47);
        for wrong in ["", "session_", "session_AQ", &token[1..], &format!("{token}AAAA"), &token.replace('_', "-")] {
            assert_eq!(shard_of("session_", wrong), None, "{wrong}");
        }
        assert_eq!(hash(&token).len(), 64);
    }
}
