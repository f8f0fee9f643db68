//! `env:NAME` and `file:PATH`: values that stand outside the file, secrets above all.

use super::{Complaint, Content, Node};
use std::path::{Path, PathBuf};

/// Most bytes of a referenced file.
const MAX_FILE: u64 = 1 << 20;

/// A value that stands elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference {
    /// An environment variable.
    Env(String),
    /// The content of a file, without one trailing newline.
    File(String),
}

impl Reference {
    /// The reference `text` is, if it is one.
    pub fn of(text: &str) -> Option<Reference> {
        if let Some(name) = text.strip_prefix("env:") {
            let word = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
            return (word && !name.is_empty() && !name.starts_with(|c: char| c.is_ascii_digit()))
                .then(|| Reference::Env(name.to_owned()));
        }
        text.strip_prefix("file:").filter(|p| !p.is_empty()).map(|p| Reference::File(p.to_owned()))
    }
}

/// Replaces every reference in `node` by its value; complaints are `unresolved_reference`. The nodes are marked `referenced`.
pub fn resolve(
    node: &mut Node,
    lookup: &dyn Fn(&Reference) -> Result<String, String>,
    complaints: &mut Vec<Complaint>,
) {
    match &mut node.content {
        Content::Text(text) => {
            let Some(reference) = Reference::of(text) else { return };
            node.referenced = true;
            match lookup(&reference) {
                Ok(value) => *text = value,
                Err(why) => {
                    complaints.push(node.spot.complain("unresolved_reference", format!("`{text}`: {why}")));
                    // Stands in for the value so that it brings no second complaint.
                    *text = "unresolved".to_owned();
                }
            }
        }
        Content::List(list) => list.iter_mut().for_each(|n| resolve(n, lookup, complaints)),
        Content::Map(map) => map.iter_mut().for_each(|e| resolve(&mut e.value, lookup, complaints)),
        _ => {}
    }
}

/// Looks references up in the process's environment, and in files relative to `folder`.
pub fn resolve_from(folder: &Path) -> impl Fn(&Reference) -> Result<String, String> + use<> {
    let folder: PathBuf = folder.to_path_buf();
    move |reference| match reference {
        Reference::Env(name) => match std::env::var(name) {
            Ok(value) if value.is_empty() => Err("the environment variable is empty".to_owned()),
            Ok(value) => Ok(value),
            Err(std::env::VarError::NotPresent) => Err("the environment variable is not set".to_owned()),
            Err(std::env::VarError::NotUnicode(_)) => Err("the environment variable is not UTF-8".to_owned()),
        },
        Reference::File(path) => read(&folder.join(path)),
    }
}

fn read(path: &Path) -> Result<String, String> {
    let length = std::fs::metadata(path).map_err(|e| e.to_string())?.len();
    if length > MAX_FILE {
        return Err(format!("the file has {length} bytes; {MAX_FILE} are allowed"));
    }
    let mut text = std::fs::read_to_string(path).map_err(|e| e.to_string())?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_references_count() {
        assert_eq!(Reference::of("env:A_B1"), Some(Reference::Env("A_B1".into())));
        assert_eq!(Reference::of("file:../x"), Some(Reference::File("../x".into())));
        for text in ["env:", "env:1A", "env:A B", "Bearer env:A", "file:", "ENV:A"] {
            assert_eq!(Reference::of(text), None, "{text}");
        }
    }

    #[test]
    fn files_lose_one_newline() {
        let dir = tempfile::tempdir().expect("dir");
        std::fs::write(dir.path().join("s"), "abc\n\n").expect("write");
        let lookup = resolve_from(dir.path());
        assert_eq!(lookup(&Reference::File("s".into())), Ok("abc\n".into()));
        assert!(lookup(&Reference::File("none".into())).is_err());
    }
}
