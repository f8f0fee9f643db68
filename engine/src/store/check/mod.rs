//! Before RocksDB may change or delete a file: does the folder hold what was acknowledged?
//!
//! RocksDB opens what it finds. A manifest that was cut short names fewer tables, and those it does not name are deleted; a
//! write-ahead log that is gone or ends early is a shorter log. So everything is looked at first, reading only:
//!
//! | file | what must hold |
//! |---|---|
//! | `HIGHWATER` | there, and sound ([`Acknowledged`]) |
//! | `CURRENT`, `MANIFEST-…` | the manifest in force or a later one, at least as long as it was, every edit sound |
//! | `….sst` | each that the manifest names, with its size; contents have checksums that RocksDB looks at with each read |
//! | `….log` | from the first that counts: frames sound, numbers without a gap, up to the last acknowledged write |
//!
//! *Torn is not damaged*: a process that is killed, or a machine that loses power, may leave half a record at the end of the last
//! log. If nothing sound stands behind it and it lies behind the mark, nothing that was acknowledged is missing.

mod frames;
mod manifest;
#[cfg(test)]
mod tests;
mod wal;

use super::{Error, Result};
use crate::log::{Acknowledged, HIGH_WATER};
use manifest::{Manifest, Unusable};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Most damages that are told of in one line.
const TOLD: usize = 3;

/// What is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Damage {
    /// The file.
    pub path: PathBuf,
    /// Where in it.
    pub at: Option<u64>,
    /// What it is, and what is missing as far as that can be known.
    pub what: String,
}

impl Damage {
    fn of(path: &Path, what: impl Into<String>) -> Damage {
        Damage { path: path.to_owned(), at: None, what: what.into() }
    }

    fn at(path: &Path, at: u64, what: impl Into<String>) -> Damage {
        Damage { path: path.to_owned(), at: Some(at), what: what.into() }
    }
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.path.display())?;
        if let Some(at) = self.at {
            write!(f, ", offset {at}")?;
        }
        write!(f, ": {}", self.what)
    }
}

/// A log that ends with what is no record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Torn {
    pub path: PathBuf,
    /// Where the last record ends.
    pub at: u64,
    /// RocksDB would take it for damage, or for something else: it has to be cut off.
    pub cut: bool,
}

/// What was found in a folder.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub damages: Vec<Damage>,
    pub torn: Option<Torn>,
    /// What the mark says; `None` where none was kept yet.
    pub said: Option<Acknowledged>,
    /// Last sequence number that is there, as far as it can be known.
    pub held: u64,
    /// The logs that count, in order up to the first damage, each with where what is sound of it ends.
    pub logs: Vec<(PathBuf, u64)>,
    /// Number of the manifest, if it is sound.
    pub number: Option<u64>,
    /// All tables of the manifest are there.
    pub tables_sound: bool,
}

impl Findings {
    /// All damages in one error.
    pub(crate) fn refusal(&self) -> Error {
        let mut told: Vec<String> = self.damages.iter().take(TOLD).map(Damage::to_string).collect();
        if let Some(more) = self.damages.len().checked_sub(TOLD).filter(|more| *more > 0) {
            told.push(format!("and {more} more"));
        }
        Error::Damaged(told.join("; "))
    }
}

/// The names of a database folder that mean something.
#[derive(Default)]
pub(super) struct Listing {
    /// Tables with their sizes.
    pub tables: BTreeMap<u64, u64>,
    pub logs: BTreeMap<u64, PathBuf>,
    pub manifests: BTreeMap<u64, PathBuf>,
}

impl Listing {
    pub(super) fn read(store: &Path) -> Result<Listing> {
        let failed = |e: io::Error| unreadable(store, e);
        let mut listing = Listing::default();
        for entry in fs::read_dir(store).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            if let Some(number) = numbered(name.strip_suffix(".sst")) {
                match entry.metadata() {
                    Ok(metadata) => drop(listing.tables.insert(number, metadata.len())),
                    // An open database deletes what it does not need any more while we look.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(failed(error)),
                }
            } else if let Some(number) = numbered(name.strip_suffix(".log")) {
                listing.logs.insert(number, entry.path());
            } else if let Some(number) = numbered(name.strip_prefix("MANIFEST-")) {
                listing.manifests.insert(number, entry.path());
            }
        }
        Ok(listing)
    }
}

fn numbered(digits: Option<&str>) -> Option<u64> {
    digits.filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()))?.parse().ok()
}

/// The number of the manifest in force.
pub(super) fn current(store: &Path) -> std::result::Result<u64, Damage> {
    let path = store.join("CURRENT");
    let said = match fs::read(&path) {
        Ok(said) => said,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Damage::of(&path, "it is missing")),
        Err(error) => return Err(Damage::of(&path, format!("it cannot be read: {error}"))),
    };
    let name = std::str::from_utf8(&said).ok().and_then(|said| said.strip_suffix('\n'));
    let number = numbered(name.and_then(|name| name.strip_prefix("MANIFEST-")));
    number.ok_or_else(|| Damage::of(&path, "it names no manifest"))
}

pub(super) fn unreadable(path: &Path, error: io::Error) -> Error {
    Error::Io { what: format!("{}: {error}", path.display()), source: Arc::new(error) }
}

/// Looks at everything and changes nothing. `folder` is the data folder, `marked` whether it says that it has a mark.
pub(crate) fn check(folder: &Path, marked: bool) -> Result<Findings> {
    let mut found = Findings::default();
    let mark = folder.join(HIGH_WATER);
    match Acknowledged::read(folder) {
        Ok(said) => found.said = said,
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            found.damages.push(Damage::of(&mark, "it is damaged; what was acknowledged is not known"));
        }
        Err(error) => return Err(unreadable(&mark, error)),
    }
    if marked && found.said.is_none() && found.damages.is_empty() {
        found.damages.push(Damage::of(&mark, "it is missing; what was acknowledged is not known"));
    }
    let store = folder.join("store");
    if !store.is_dir() {
        found.damages.push(Damage::of(&store, "it is missing, though the folder was set up"));
        return Ok(found);
    }
    let listing = Listing::read(&store)?;
    if let Some((number, manifest, sound)) = check_manifest(&store, &listing, &mut found)? {
        found.number = Some(number).filter(|_| sound);
        let before = found.damages.len();
        check_tables(&store, &listing, &manifest, &mut found);
        found.tables_sound = found.damages.len() == before;
        check_logs(&store, &listing, number, &manifest, &mut found)?;
    }
    Ok(found)
}

/// The manifest in force, with its number and whether it is sound.
fn check_manifest(store: &Path, listing: &Listing, found: &mut Findings) -> Result<Option<(u64, Manifest, bool)>> {
    let number = match (current(store), listing.manifests.last_key_value()) {
        (Ok(number), _) => number,
        // The youngest is the one in force, as all but that one are removed.
        (Err(damage), Some((youngest, _))) => {
            found.damages.push(damage);
            *youngest
        }
        (Err(damage), None) => {
            found.damages.push(damage);
            return Ok(None);
        }
    };
    let Some(path) = listing.manifests.get(&number) else {
        let path = store.join(format!("MANIFEST-{number:06}"));
        found.damages.push(Damage::of(&path, "it is missing, though CURRENT names it"));
        return Ok(None);
    };
    let file = File::open(path).map_err(|e| unreadable(path, e))?;
    let manifest = match Manifest::read(io::BufReader::with_capacity(1 << 18, file)) {
        Ok(manifest) => manifest,
        Err(Unusable::Unreadable(error)) => return Err(unreadable(path, error)),
        Err(Unusable::Bad { at, why }) => {
            found.damages.push(Damage::at(path, at, format!("{why}; which tables belong to the store is not known")));
            return Ok(None);
        }
    };
    if let Some(said) = &found.said {
        if number < said.manifest {
            let what = format!("CURRENT names it, though manifest {} was in force already", said.manifest);
            found.damages.push(Damage::of(path, what));
        }
        if number == said.manifest && manifest.end < said.manifest_bytes {
            let what = format!("it ends here, though {} bytes of it were in force", said.manifest_bytes);
            found.damages.push(Damage::at(path, manifest.end, what));
        }
        let families = manifest.families.len() as u64;
        if families < said.families {
            found.damages.push(Damage::of(path, format!("it names {families} families of {}", said.families)));
        }
    }
    let sound = |found: &Findings| !found.damages.iter().any(|damage| damage.path == *path);
    if sound(found) && manifest.families.len() < 2 {
        found.damages.push(Damage::of(path, "it names no families"));
    }
    Ok(Some((number, manifest, sound(found))))
}

fn check_tables(store: &Path, listing: &Listing, manifest: &Manifest, found: &mut Findings) {
    for (number, size) in &manifest.tables {
        let what = match listing.tables.get(number) {
            Some(is) if is == size => continue,
            Some(is) => format!("it has {is} bytes, and must have {size}"),
            None => format!("a table of {size} bytes is missing"),
        };
        found.damages.push(Damage::of(&store.join(format!("{number:06}.sst")), what));
    }
}

fn check_logs(store: &Path, listing: &Listing, number: u64, manifest: &Manifest, found: &mut Findings) -> Result<()> {
    // What was said at the start holds as long as the manifest of that start is in force.
    let said = found.said.filter(|said| said.manifest == number);
    let first = manifest.first_log().max(said.map_or(0, |said| said.first_wal));
    let logs: Vec<(u64, PathBuf)> = listing.logs.range(first..).map(|(n, path)| (*n, path.clone())).collect();
    let missing = store.join(format!("{first:06}.log"));
    let must_be = said.is_some();
    if logs.is_empty() || must_be && logs.first().is_none_or(|(n, _)| *n != first) {
        let acked = found.said.map(|said| lost(&said, said.opened_at)).unwrap_or_default();
        found.damages.push(Damage::of(&missing, format!("the write-ahead log is missing{acked}")));
        return Ok(());
    }
    let held = wal::read(&logs)?;
    found.logs = held.sound;
    // Without a write in the logs everything is in tables, up to the last that was written.
    let opened_at = said.map_or(manifest.last_sequence, |said| said.opened_at);
    found.held = held.last.unwrap_or(manifest.flushed.max(opened_at));
    let broken = held.damage.is_some();
    if let Some(mut damage) = held.damage {
        damage.what += &found.said.map(|said| lost(&said, found.held)).unwrap_or_default();
        found.damages.push(damage);
    }
    if broken {
        return Ok(());
    }
    if let (Some(said), Some(begins)) = (&said, held.first)
        && first == said.first_wal
        && begins != said.opened_at + 1
    {
        let path = logs.first().map_or(missing, |(_, path)| path.clone());
        let what = format!("it begins with write {begins}, and must begin with {}", said.opened_at + 1);
        found.damages.push(Damage::at(&path, 0, what + &lost(said, said.opened_at)));
        found.logs.clear();
        return Ok(());
    }
    if let Some(said) = found.said.filter(|said| said.sequence > found.held) {
        let (path, at) = match (&held.torn, logs.last()) {
            (Some(torn), _) => (torn.path.clone(), Some(torn.at)),
            (None, Some((_, path))) => (path.clone(), fs::metadata(path).ok().map(|is| is.len())),
            (None, None) => (missing, None),
        };
        let what = format!("the write-ahead log ends too early{}", lost(&said, found.held));
        found.damages.push(Damage { path, at, what });
        return Ok(());
    }
    found.torn = held.torn;
    Ok(())
}

/// What is known of the acknowledged writes that are missing behind `held`.
fn lost(said: &Acknowledged, held: u64) -> String {
    match said.sequence.checked_sub(held) {
        None | Some(0) => "; no acknowledged write is known to be missing".to_owned(),
        Some(writes) => {
            let through = match said.log {
                0 => String::new(),
                log => format!(", entries of the log were acknowledged up to {log}"),
            };
            format!("; {writes} acknowledged writes are missing, {} to {}{through}", held + 1, said.sequence)
        }
    }
}
