//! What can happen to the files of a data folder: one bit, a stretch of zeros, a cut, a file that is gone, emptied, or
//! another's.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, RngCore};
use std::fs;
use std::path::{Path, PathBuf};

/// What was done to which files.
#[derive(Debug)]
pub struct Done {
    /// In words.
    pub what: String,
    /// Names of the files, without folders.
    pub files: Vec<String>,
}

/// All files below a folder, by path relative to it, with their bytes.
pub fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(one) = folders.pop() {
        for entry in fs::read_dir(&one).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(folder).expect("below it").to_owned();
                found.push((name, fs::read(&path).expect("a file")));
            }
        }
    }
    found.sort();
    found
}

/// Lays out a folder of such files.
pub fn lay_out(folder: &Path, files: &[(PathBuf, Vec<u8>)]) {
    for (name, bytes) in files {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(path, bytes).expect("written");
    }
}

/// The kind of a file: what stands before or behind the number in its name.
pub fn kind(name: &Path) -> String {
    let name = name.file_name().expect("a name").to_string_lossy();
    let kind = name.trim_matches(|c: char| c.is_ascii_digit()).trim_matches(['-', '.']);
    kind.to_owned()
}

/// Where the frames of a write-ahead log or a manifest begin.
fn borders(bytes: &[u8]) -> Vec<usize> {
    const BLOCK: usize = 32 << 10;
    let (mut at, mut borders) = (0, Vec::new());
    while at + 7 <= bytes.len() {
        if BLOCK - at % BLOCK < 7 {
            at += BLOCK - at % BLOCK;
            continue;
        }
        borders.push(at);
        at += 7 + usize::from(u16::from_le_bytes([bytes[at + 4], bytes[at + 5]]));
    }
    borders
}

/// Damages one file of a folder, or two by exchanging them. Every kind of file is as likely as any other, logs and manifests
/// more so.
pub fn damage(folder: &Path, files: &[(PathBuf, Vec<u8>)], chance: &mut StdRng) -> Done {
    let mut kinds: Vec<String> = files.iter().map(|(name, _)| kind(name)).collect();
    kinds.sort();
    kinds.dedup();
    kinds.retain(|kind| !kind.starts_with("LOG"));
    kinds.extend(["log", "log", "MANIFEST", "MANIFEST", "sst"].map(str::to_owned));
    let of = kinds.choose(chance).expect("some kind");
    let all: Vec<_> = files.iter().filter(|(name, _)| kind(name) == *of).collect();
    let Some((name, bytes)) = all.choose(chance) else { return damage(folder, files, chance) };
    let path = folder.join(name);
    let one = |what: String| {
        let file = name.file_name().expect("a name").to_string_lossy().into_owned();
        Done { what: format!("{}: {what}", name.display()), files: vec![file] }
    };
    let framed = matches!(of.as_str(), "log" | "MANIFEST") && !bytes.is_empty();
    match chance.random_range(0..if framed { 14 } else { 9 }) {
        0 => {
            fs::remove_file(&path).expect("removed");
            one("removed".into())
        }
        1 => {
            fs::write(&path, b"").expect("written");
            one("emptied".into())
        }
        2 => {
            let (other, others) = files.choose(chance).expect("another");
            fs::write(&path, others).expect("written");
            fs::write(folder.join(other), bytes).expect("written");
            let mut done = one(format!("exchanged with {}", other.display()));
            done.files.push(other.file_name().expect("a name").to_string_lossy().into_owned());
            done
        }
        3 if !bytes.is_empty() => {
            let cut = chance.random_range(0..bytes.len());
            fs::write(&path, &bytes[..cut]).expect("written");
            one(format!("cut at {cut} of {}", bytes.len()))
        }
        4 if !bytes.is_empty() => {
            let from = chance.random_range(0..bytes.len());
            let to = (from + [1, 16, 512, 4096].choose(chance).expect("one")).min(bytes.len());
            let mut damaged = bytes.clone();
            damaged[from..to].fill(0);
            fs::write(&path, damaged).expect("written");
            one(format!("zeros from {from} to {to} of {}", bytes.len()))
        }
        5 => {
            let mut longer = bytes.clone();
            let mut tail = vec![0; chance.random_range(1..5_000)];
            if chance.random_bool(0.5) {
                chance.fill_bytes(&mut tail);
            }
            longer.extend_from_slice(&tail);
            fs::write(&path, longer).expect("written");
            one(format!("{} bytes longer than {}", tail.len(), bytes.len()))
        }
        9 | 10 => {
            let cut = *borders(bytes).choose(chance).expect("a frame");
            fs::write(&path, &bytes[..cut]).expect("written");
            one(format!("cut at the border {cut} of {}", bytes.len()))
        }
        n @ (11..=13) => {
            let at = *borders(bytes).choose(chance).expect("a frame");
            let (place, byte) = match n {
                // The length: so much longer that it leads out of the log, perhaps.
                11 => (at + 5, bytes[at + 5] | 1 << chance.random_range(0..8)),
                12 => (at + 6, chance.random_range(5..=11)),
                _ => (at + 6, chance.random_range(0..=255)),
            };
            let mut damaged = bytes.clone();
            damaged[place] = byte;
            fs::write(&path, damaged).expect("written");
            one(format!("byte {place} of {} is {byte}, in the header at {at}", bytes.len()))
        }
        _ if bytes.is_empty() => {
            fs::remove_file(&path).expect("removed");
            one("removed".into())
        }
        _ => {
            let (at, bit) = (chance.random_range(0..bytes.len()), chance.random_range(0..8));
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << bit;
            fs::write(&path, damaged).expect("written");
            one(format!("bit {bit} of byte {at} of {} flipped", bytes.len()))
        }
    }
}
