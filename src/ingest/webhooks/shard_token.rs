//! Tokens of webhook URLs that name the shard which knows them.
//!
//! In a cluster every process knows the connections of definition files; those that were made over REST are known to the
//! owner of their shard alone. Their tokens begin with the shard and end with a proof that this installation made them. A
//! process forwards a request with such a token to the owner; one that was guessed is refused without asking anybody.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

/// Bytes of a token: two of the shard, then who it stands for, then the proof.
const TOKEN: usize = 24;
/// Bytes before the proof.
const SAID: usize = 16;

/// A token of a URL of `source`. `identity` is what tells it from others of its shard: its first bytes count.
pub(super) fn encode(key: &[u8; 32], source: &str, shard: u16, identity: &[u8]) -> String {
    let mut token = Vec::with_capacity(TOKEN);
    token.extend_from_slice(&shard.to_be_bytes());
    token.extend(identity.iter().copied().chain(std::iter::repeat(0)).take(SAID - token.len()));
    let proof = proof(key, source, &token);
    token.extend_from_slice(&proof);
    URL_SAFE_NO_PAD.encode(token)
}

/// The shard that a token names, if this installation made it for a URL of `source`.
pub(super) fn shard(key: &[u8; 32], source: &str, token: &str) -> Option<u16> {
    let bytes = URL_SAFE_NO_PAD.decode(token).ok().filter(|bytes| bytes.len() == TOKEN)?;
    let (said, shown) = bytes.split_at(SAID);
    let shard = said.first_chunk::<2>().map(|bytes| u16::from_be_bytes(*bytes))?;
    bool::from(proof(key, source, said).ct_eq(shown)).then_some(shard)
}

fn proof(key: &[u8; 32], source: &str, said: &[u8]) -> [u8; TOKEN - SAID] {
    let mut proof = [0; TOKEN - SAID];
    // HMAC takes keys of any length; the fallback keeps the type honest.
    let Ok(mut mac) = <Hmac<Sha256> as Mac>::new_from_slice(key) else { return proof };
    for part in [b"shard", source.as_bytes(), said] {
        mac.update(part);
        mac.update(&[0]);
    }
    proof.copy_from_slice(&mac.finalize().into_bytes()[..TOKEN - SAID]);
    proof
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 32] = [7; 32];

    #[test]
    fn a_token_names_its_shard_and_nobody_else_can_make_one() {
        let token = encode(&KEY, "crm", 517, &[1; 32]);
        assert_eq!((token.len(), shard(&KEY, "crm", &token)), (32, Some(517)));
        assert_eq!(shard(&KEY, "shop", &token), None, "another source");
        assert_eq!(shard(&[8; 32], "crm", &token), None, "another installation");
        for at in 0..token.len() {
            let mut other = token.clone().into_bytes();
            other[at] = if other[at] == b'A' { b'B' } else { b'A' };
            let other = String::from_utf8(other).expect("ASCII");
            assert_eq!(shard(&KEY, "crm", &other), None, "{other}");
        }
        for odd in ["", "A", "not a token", &token[..30], &format!("{token}AA")] {
            assert_eq!(shard(&KEY, "crm", odd), None, "{odd}");
        }
    }
}
