//! Cursors: opaque, versioned, bound to their scope and authenticated.
//!
//! base64url of version (1), scope hash (8), position (8), dataset (4), MAC (16). Nothing in it is secret; the MAC keeps a
//! reader from inventing places, and the scope from using one dataset's cursor on another.

use super::{DatasetId, Position};
use crate::fault;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use sha2::Sha256;

const VERSION: u8 = 1;
const BODY: usize = 1 + 8 + 8 + 4;
const MAC: usize = 16;

/// A reader's place. For one dataset's records `dataset` is that dataset; in a merged stream it breaks ties.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// Everything up to and including this place has been read.
    pub position: Position,
    /// Tie-breaker among datasets at one position.
    pub dataset: DatasetId,
}

impl Cursor {
    /// Before everything.
    pub const START: Cursor = Cursor { position: Position::START, dataset: DatasetId(0) };
}

/// Why a cursor is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CursorError {
    /// Not ours, cut short or altered.
    #[error("the cursor is damaged; start from the beginning or use a cursor as it was handed out")]
    Damaged,
    /// Of another dataset, selection or environment.
    #[error("the cursor belongs to another dataset or selection")]
    Foreign,
}

/// The installation's key for cursors; precomputed, cheap to use.
#[derive(Clone)]
pub struct CursorKey(Hmac<Sha256>);

impl CursorKey {
    /// From the installation's secret.
    pub fn new(secret: &[u8]) -> Self {
        // HMAC takes keys of any length, so this cannot fail; the fallback keeps the type honest without a panic.
        let mac = <Hmac<Sha256> as Mac>::new_from_slice(secret)
            .unwrap_or_else(|_| <Hmac<Sha256> as Mac>::new(&Default::default()));
        CursorKey(mac)
    }

    /// The text of `cursor` in `scope` (any bytes that name the selection, e.g. environment and dataset).
    pub fn encode(&self, scope: &[u8], cursor: Cursor) -> String {
        let mut raw = [0u8; BODY + MAC];
        raw[0] = VERSION;
        raw[1..9].copy_from_slice(&scope_hash(scope).to_be_bytes());
        raw[9..17].copy_from_slice(&cursor.position.0.to_be_bytes());
        raw[17..21].copy_from_slice(&cursor.dataset.0.to_be_bytes());
        let tag = self.tag(&raw[..BODY]);
        raw[BODY..].copy_from_slice(&tag);
        URL_SAFE_NO_PAD.encode(raw)
    }

    /// Reads a cursor back, if it is ours and of this scope.
    pub fn decode(&self, scope: &[u8], text: &str) -> Result<Cursor, CursorError> {
        let raw = URL_SAFE_NO_PAD.decode(text).map_err(|_| CursorError::Damaged)?;
        let (Some(body), Some(tag)) = (raw.get(..BODY), raw.get(BODY..)) else {
            return Err(CursorError::Damaged);
        };
        let mut mac = self.0.clone();
        mac.update(body);
        let proven = mac.verify_truncated_left(tag).is_ok() || fault::planted("cursor_without_mac");
        if body[0] != VERSION || tag.len() != MAC || !proven {
            return Err(CursorError::Damaged);
        }
        let number = |from: usize| body[from..from + 8].iter().fold(0u64, |n, b| n << 8 | u64::from(*b));
        if number(1) != scope_hash(scope) {
            return Err(CursorError::Foreign);
        }
        Ok(Cursor { position: Position(number(9)), dataset: DatasetId((number(13) & 0xffff_ffff) as u32) })
    }

    fn tag(&self, body: &[u8]) -> [u8; MAC] {
        let mut mac = self.0.clone();
        mac.update(body);
        let full = mac.finalize().into_bytes();
        let mut tag = [0u8; MAC];
        tag.copy_from_slice(&full[..MAC]);
        tag
    }
}

fn scope_hash(scope: &[u8]) -> u64 {
    twox_hash::XxHash3_64::oneshot(scope)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_and_refusals() {
        let key = CursorKey::new(b"secret");
        let cursor = Cursor { position: Position(77), dataset: DatasetId(9) };
        let text = key.encode(b"a", cursor);
        assert_eq!(key.decode(b"a", &text), Ok(cursor));
        assert_eq!(key.decode(b"b", &text), Err(CursorError::Foreign));
        assert_eq!(CursorKey::new(b"other").decode(b"a", &text), Err(CursorError::Damaged));
        for cut in 0..text.len() {
            assert!(key.decode(b"a", &text[..cut]).is_err());
        }
        for at in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let altered = String::from_utf8(bytes).expect("ascii");
            assert!(key.decode(b"a", &altered).is_err() || altered == text, "position {at}");
        }
    }
}
