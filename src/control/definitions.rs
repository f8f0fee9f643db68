//! The definition files the settings name, read and checked: all complaints of all files at once.

use super::config::Settings;
use super::notes::Committed;
use crate::connectors::http::{Client, ClientOptions};
use crate::connectors::located::{Complaint, MAX_BYTES, resolve_from};
use crate::connectors::rest::RestSource;
use crate::connectors::rest::definition::{Definition, parse};
use crate::engine::Engine;
use crate::engine::source::Failure;
use globset::{Glob, GlobMatcher};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Definitions by source name.
pub type Definitions = BTreeMap<String, Arc<Definition>>;

/// Endings of definition files.
const ENDINGS: [&str; 3] = ["yaml", "yml", "json"];

/// Most files: more is a folder named by mistake.
const FILES_MAX: usize = 10_000;

/// Complaints about definition files, one a line: `file:line:col code message`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct Complaints(pub Vec<String>);

/// Reads all definitions.
pub fn load(settings: &Settings) -> Result<Definitions, Complaints> {
    let mut complaints = Vec::new();
    let mut found: BTreeMap<String, (PathBuf, Arc<Definition>)> = BTreeMap::new();
    for file in files(&settings.sources, &mut complaints) {
        let definition = match read(&file, settings) {
            Ok(definition) => definition,
            Err(said) => {
                complaints.extend(said);
                continue;
            }
        };
        let name = definition.source.clone();
        if let Some((other, _)) = found.get(&name) {
            let (file, other) = (file.display(), other.display());
            complaints.push(format!("{file}:1:1 duplicate_source `{name}` is defined in {other} as well"));
            continue;
        }
        found.insert(name, (file, Arc::new(definition)));
    }
    if complaints.is_empty() {
        Ok(found.into_iter().map(|(name, (_, definition))| (name, definition)).collect())
    } else {
        Err(Complaints(complaints))
    }
}

/// What makes requests, for each definition.
pub fn sources(
    settings: &Settings,
    definitions: &Definitions,
    engine: &Engine,
) -> Result<BTreeMap<String, Arc<RestSource>>, Failure> {
    let clock = engine.clock();
    let options = ClientOptions { allow_http: settings.allow_http, ..ClientOptions::default() };
    let client = Client::new(options, clock.clone())?;
    let notes = Arc::new(Committed::new(engine.clone()));
    let make = |(name, definition): (&String, &Arc<Definition>)| {
        let source = RestSource::new(definition.clone(), client.clone(), clock.clone(), notes.clone())?;
        Ok((name.clone(), Arc::new(source)))
    };
    definitions.iter().map(make).collect()
}

/// One file, or its complaints. `http:` is a complaint unless the settings allow it.
fn read(file: &Path, settings: &Settings) -> Result<Definition, Vec<String>> {
    let name = file.display().to_string();
    let whole = |code: &str, why: String| vec![format!("{name}:1:1 {code} {why}")];
    let length = std::fs::metadata(file).map_err(|e| whole("unreadable_file", e.to_string()))?.len();
    if length > MAX_BYTES as u64 {
        return Err(whole("too_large", format!("{length} bytes; a definition has at most {MAX_BYTES}")));
    }
    let text = std::fs::read_to_string(file).map_err(|e| whole("unreadable_file", e.to_string()))?;
    let folder = file.parent().unwrap_or(Path::new("."));
    let secure = |all: Vec<Complaint>| insecure(all, settings.allow_http);
    let (definition, warnings) = parse(&name, &text, &resolve_from(folder))
        .map_err(|all| secure(all).iter().map(Complaint::to_string).collect::<Vec<_>>())?;
    let warnings = secure(without_kafka(warnings, settings)?);
    if warnings.iter().any(|complaint| !complaint.warning) {
        return Err(warnings.iter().map(Complaint::to_string).collect());
    }
    warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    Ok(definition)
}

/// `http:` is as wrong as anything else, unless the settings allow it.
fn insecure(all: Vec<Complaint>, allowed: bool) -> Vec<Complaint> {
    let hint = "write https:, or set `egress: {allow_http: true}` in syncline.yaml";
    let told = |c: Complaint| match c.code {
        "insecure_url" if allowed => None,
        "insecure_url" => Some(Complaint { warning: false, ..c.hint(hint) }),
        _ => Some(c),
    };
    all.into_iter().filter_map(told).collect()
}

/// What only topics make legal is a complaint where none are read.
fn without_kafka(warnings: Vec<Complaint>, settings: &Settings) -> Result<Vec<Complaint>, Vec<String>> {
    let reads = |wanted: bool| settings.kafka.is_some() && wanted;
    let input = settings.kafka.as_ref().is_some_and(|kafka| kafka.input);
    let fed = |w: &Complaint| match w.code {
        "kafka_not_set" => Some(reads(true)),
        "no_request" => Some(reads(input)),
        _ => None,
    };
    let wrong: Vec<_> = warnings.iter().filter(|w| fed(w) == Some(false)).cloned().collect();
    if wrong.is_empty() {
        return Ok(warnings.into_iter().filter(|w| fed(w).is_none()).collect());
    }
    Err(wrong.into_iter().map(|w| Complaint { warning: false, ..w }.to_string()).collect())
}

/// The files meant by folders, files and globs, in order, each once. A folder that does not exist holds none: a fresh
/// installation has no source yet. A file that does not exist is a complaint.
fn files(named: &[String], complaints: &mut Vec<String>) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for name in named {
        let path = PathBuf::from(name);
        if name.contains(['*', '?', '[', '{']) {
            match Glob::new(name) {
                Ok(glob) => below(&fixed_part(&path), &glob.compile_matcher(), &mut all),
                Err(e) => complaints.push(format!("{name}:1:1 bad_glob {}", e.kind())),
            }
        } else if path.is_file() {
            all.push(path);
        } else if path.is_dir() {
            let entries = entries(&path).into_iter();
            all.extend(entries.filter(|file| file.is_file() && is_definition(file)));
        } else if is_definition(&path) {
            complaints.push(format!("{name}:1:1 missing_file this file does not exist"));
        }
    }
    let mut once = Vec::new();
    for file in all {
        if !once.contains(&file) && once.len() < FILES_MAX {
            once.push(file);
        }
    }
    once
}

fn is_definition(file: &Path) -> bool {
    file.extension().is_some_and(|ending| ENDINGS.iter().any(|known| ending == *known))
}

/// The longest beginning of a glob without wildcards.
fn fixed_part(glob: &Path) -> PathBuf {
    let fixed: PathBuf = glob
        .components()
        .take_while(|part| !part.as_os_str().to_string_lossy().contains(['*', '?', '[', '{']))
        .collect();
    if fixed.as_os_str().is_empty() { PathBuf::from(".") } else { fixed }
}

fn below(folder: &Path, glob: &GlobMatcher, all: &mut Vec<PathBuf>) {
    for path in entries(folder) {
        if all.len() >= FILES_MAX {
            return;
        }
        // `./a` and `a` are the same file, but not for a glob that was written without the dot.
        let plain = path.strip_prefix(".").unwrap_or(&path);
        if path.is_dir() {
            below(&path, glob, all);
        } else if glob.is_match(&path) || glob.is_match(plain) {
            all.push(path);
        }
    }
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let Ok(read) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut all: Vec<PathBuf> = read.filter_map(Result::ok).map(|entry| entry.path()).collect();
    all.sort();
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(named: &[String]) -> (Vec<String>, Vec<String>) {
        let mut complaints = Vec::new();
        let files = files(named, &mut complaints);
        let name = |f: &PathBuf| f.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        (files.iter().map(name).collect(), complaints)
    }

    #[test]
    fn folders_files_and_globs_are_read_in_order_and_once() {
        let dir = tempfile::tempdir().expect("a folder");
        let at = |name: &str| dir.path().join(name).display().to_string();
        std::fs::create_dir_all(dir.path().join("more/deep")).expect("made");
        for name in ["b.yaml", "a.yml", "c.json", "notes.txt", "more/d.yaml", "more/deep/e.yaml"] {
            std::fs::write(dir.path().join(name), "").expect("written");
        }
        let folder = dir.path().display().to_string();
        assert_eq!(found(&[folder.clone(), at("b.yaml")]).0, ["a.yml", "b.yaml", "c.json"]);
        assert_eq!(found(&[at("**/*.yaml")]).0, ["b.yaml", "d.yaml", "e.yaml"]);
        assert_eq!(found(&[at("more/*.yaml"), folder]).0.first().map(String::as_str), Some("d.yaml"));
    }

    #[test]
    fn a_missing_folder_is_empty_and_a_missing_file_is_a_complaint() {
        assert_eq!(found(&["no/such/folder".into()]), (vec![], vec![]));
        let (files, complaints) = found(&["no/such.yaml".into()]);
        assert!(files.is_empty() && complaints.len() == 1 && complaints[0].contains("missing_file"), "{complaints:?}");
    }
}
