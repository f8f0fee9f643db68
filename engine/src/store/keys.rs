//! Keys: big-endian numbers and length-prefixed text, so that order of bytes is order of meaning.

use crate::fault;
use crate::model::DatasetId;

/// Table of datasets.
pub(crate) const DATASET: &str = "dataset";

/// (dataset, position)
pub(crate) fn record(dataset: DatasetId, position: u64) -> [u8; 12] {
    let mut key = [0; 12];
    key[..4].copy_from_slice(&dataset.0.to_be_bytes());
    key[4..].copy_from_slice(&position.to_be_bytes());
    key
}

/// The position in a record key; 0 for a foreign one.
pub(crate) fn position(key: &[u8]) -> u64 {
    number(key, 4)
}

/// The dataset a key begins with.
pub(crate) fn dataset(key: &[u8]) -> DatasetId {
    DatasetId(key.get(..4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_be_bytes))
}

/// The big-endian number at `from`; 0 if the key is shorter.
pub(crate) fn number(key: &[u8], from: usize) -> u64 {
    key.get(from..from + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_be_bytes)
}

/// (dataset, worker, epoch, generation)
pub(crate) fn touched(dataset: DatasetId, worker: u16, epoch: u64, generation: u32) -> [u8; 18] {
    let mut key = [0; 18];
    key[..4].copy_from_slice(&dataset.0.to_be_bytes());
    key[4..6].copy_from_slice(&worker.to_be_bytes());
    key[6..14].copy_from_slice(&epoch.to_be_bytes());
    key[14..].copy_from_slice(&generation.to_be_bytes());
    key
}

/// (dataset, key)
pub(crate) fn entry(dataset: DatasetId, key: &[u64; 2]) -> [u8; 20] {
    let mut bytes = [0; 20];
    bytes[..4].copy_from_slice(&dataset.0.to_be_bytes());
    bytes[4..12].copy_from_slice(&key[0].to_be_bytes());
    bytes[12..].copy_from_slice(&key[1].to_be_bytes());
    bytes
}

/// All (dataset, key): from the first, up to that of the next dataset.
pub(crate) fn entries(dataset: DatasetId) -> [[u8; 20]; 2] {
    [dataset, DatasetId(dataset.0.saturating_add(1))].map(|dataset| entry(dataset, &[0, 0]))
}

/// The key that an entry's key ends with.
pub(crate) fn key_of(entry: &[u8]) -> [u64; 2] {
    [number(entry, 4), number(entry, 12)]
}

/// A name and a number: (`prefix`, number).
pub(crate) fn named(prefix: &str, number: u64) -> Vec<u8> {
    let mut key = prefix.as_bytes().to_vec();
    key.push(b'/');
    key.extend_from_slice(&number.to_be_bytes());
    key
}

/// (table, parts…), each part with its length in front.
pub(crate) fn mark(table: u8, parts: &[impl AsRef<str>]) -> Vec<u8> {
    let mut key = vec![table];
    if fault::planted("names_joined_by_a_separator") {
        key.extend(parts.iter().map(AsRef::as_ref).collect::<Vec<_>>().join("/").bytes());
        return key;
    }
    for part in parts {
        let part = part.as_ref().as_bytes();
        let len = part.len().min(u16::MAX as usize);
        key.extend_from_slice(&(len as u16).to_be_bytes());
        key.extend_from_slice(&part[..len]);
    }
    key
}

/// The parts of a mark's key behind `skip` bytes.
pub(crate) fn parts(key: &[u8], skip: usize) -> Vec<String> {
    let mut rest = key.get(skip..).unwrap_or_default();
    let mut parts = Vec::new();
    while let Some((len, tail)) = rest.split_first_chunk::<2>() {
        let len = (u16::from_be_bytes(*len) as usize).min(tail.len());
        let (part, tail) = tail.split_at(len);
        parts.push(String::from_utf8_lossy(part).into_owned());
        rest = tail;
    }
    parts
}
