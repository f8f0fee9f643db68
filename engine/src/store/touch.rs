//! When records were last seen, as it is stored: many of an epoch in one value.

use crate::model::Timestamp;
use crate::state::Touch;

const TOUCH_FORMAT: u8 = 1;

pub(crate) fn encode_touch(touch: &Touch) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(9 + touch.runs.len() * 12 + touch.keys.len() * 8 + touch.moved.len() * 24);
    bytes.push(TOUCH_FORMAT);
    bytes.extend_from_slice(&(touch.runs.len() as u32).to_le_bytes());
    for (at, n) in &touch.runs {
        bytes.extend_from_slice(&at.0.to_le_bytes());
        bytes.extend_from_slice(&n.to_le_bytes());
    }
    bytes.extend_from_slice(&(touch.keys.len() as u32).to_le_bytes());
    for key in &touch.keys {
        bytes.extend_from_slice(&key.to_le_bytes());
    }
    for (key, modified_at, observed_at) in &touch.moved {
        bytes.extend_from_slice(&key.to_le_bytes());
        bytes.extend_from_slice(&modified_at.0.to_le_bytes());
        bytes.extend_from_slice(&observed_at.0.to_le_bytes());
    }
    bytes
}

/// Reads a touch back; `None` if it is damaged.
pub(crate) fn decode_touch(bytes: &[u8]) -> Option<Touch> {
    let (format, mut rest) = bytes.split_first()?;
    if *format != TOUCH_FORMAT {
        return None;
    }
    let take4 = |rest: &mut &[u8]| -> Option<u32> {
        let (n, tail) = rest.split_first_chunk::<4>()?;
        *rest = tail;
        Some(u32::from_le_bytes(*n))
    };
    let take8 = |rest: &mut &[u8]| -> Option<u64> {
        let (n, tail) = rest.split_first_chunk::<8>()?;
        *rest = tail;
        Some(u64::from_le_bytes(*n))
    };
    let mut touch = Touch::default();
    for _ in 0..take4(&mut rest)? {
        touch.runs.push((Timestamp(take8(&mut rest)? as i64), take4(&mut rest)?));
    }
    for _ in 0..take4(&mut rest)? {
        touch.keys.push(take8(&mut rest)?);
    }
    while !rest.is_empty() {
        touch.moved.push((take8(&mut rest)?, Timestamp(take8(&mut rest)? as i64), Timestamp(take8(&mut rest)? as i64)));
    }
    Some(touch)
}
