//! Which module an import means.

use thiserror::Error;

/// The modules that are part of the program, by the names that mean them.
const OURS: [(&str, &str); 8] = [
    ("nango", "nango"),
    ("zod", "zod"),
    ("url", "url"),
    ("node:url", "url"),
    ("crypto", "crypto"),
    ("node:crypto", "crypto"),
    ("buffer", "buffer"),
    ("node:buffer", "buffer"),
];

/// What the module `nango` exports.
const EXPORTS: [&str; 4] = ["createSync", "createAction", "createOnEvent", "ActionError"];

/// What to say of a name that is imported from `nango` and is not there.
pub(super) fn unknown_export(name: &str) -> Option<(&'static str, String)> {
    if EXPORTS.contains(&name) {
        return None;
    }
    let offered = EXPORTS.join("`, `");
    Some(match name {
        "createFunction" => {
            let message = "`createFunction` is not supported: write it as `createSync`, `createAction` or `createOnEvent`, in syncs/, actions/ or on-events/";
            ("unsupported_function", message.to_owned())
        }
        _ => ("unknown_export", format!("`nango` has no `{name}`; it has `{offered}`, and types (`import type`)")),
    })
}

/// What an import means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// A module of the program.
    Ours,
    /// A file of the folder, by its path within it.
    File(String),
}

/// Why an import means nothing.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum Refusal {
    /// A package of npm or Node.
    #[error(
        "`{0}` is not available; there are `nango`, `zod`, `crypto`, `url` and `buffer`: bundle any other package into the file with those left external"
    )]
    UnknownPackage(String),
    /// Outside of the folder.
    #[error("`{0}` leads out of the folder of functions; only files inside of it can be imported")]
    Outside(String),
    /// No such file.
    #[error("`{0}` is not there; looked for {1}")]
    Missing(String, String),
}

impl Refusal {
    /// One of a fixed list.
    pub fn code(&self) -> &'static str {
        match self {
            Refusal::UnknownPackage(_) => "unknown_package",
            Refusal::Outside(_) => "import_outside",
            Refusal::Missing(..) => "unknown_file",
        }
    }
}

/// What `specifier` means in the file `from`; `exists` says whether the folder has a file.
pub(super) fn find(from: &str, specifier: &str, exists: impl Fn(&str) -> bool) -> Result<Target, Refusal> {
    if OURS.iter().any(|(name, _)| *name == specifier) {
        return Ok(Target::Ours);
    }
    let path = path(from, specifier)?;
    let candidates = candidates(&path);
    match candidates.iter().find(|candidate| exists(candidate)) {
        Some(file) => Ok(Target::File(file.clone())),
        None => Err(Refusal::Missing(specifier.to_owned(), candidates.join(", "))),
    }
}

/// The module's name behind an import, at run time: `exists` says whether the set of modules has it.
pub(crate) fn resolve(from: &str, specifier: &str, exists: impl Fn(&str) -> bool) -> Result<String, Refusal> {
    match OURS.iter().find(|(name, _)| *name == specifier) {
        Some((_, module)) => Ok((*module).to_owned()),
        None => match find(from, specifier, exists)? {
            Target::File(file) => Ok(file),
            Target::Ours => Err(Refusal::UnknownPackage(specifier.to_owned())),
        },
    }
}

/// The path within the folder that a relative import leads to.
fn path(from: &str, specifier: &str) -> Result<String, Refusal> {
    if !specifier.starts_with("./") && !specifier.starts_with("../") && specifier != "." && specifier != ".." {
        return Err(Refusal::UnknownPackage(specifier.to_owned()));
    }
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in specifier.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop().ok_or_else(|| Refusal::Outside(specifier.to_owned()))?;
            }
            name => parts.push(name),
        }
    }
    Ok(parts.join("/"))
}

/// The files a path may mean, in order: `.js` in an import stands for the `.ts` beside it.
fn candidates(path: &str) -> Vec<String> {
    if path.ends_with(".json") || path.ends_with(".ts") {
        return vec![path.to_owned()];
    }
    let mut candidates = Vec::new();
    if let Some(stem) = path.strip_suffix(".js") {
        candidates.extend([format!("{stem}.ts"), path.to_owned()]);
    }
    candidates.extend([
        format!("{path}.ts"),
        format!("{path}.js"),
        format!("{path}/index.ts"),
        format!("{path}/index.js"),
    ]);
    candidates
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nango_is_said_to_export_is_what_it_exports() {
        let source = include_str!("../../modules/nango.js");
        let exported: Vec<&str> = source
            .lines()
            .filter_map(|line| line.strip_prefix("export const ").or(line.strip_prefix("export class ")))
            .filter_map(|rest| rest.split([' ', '=']).next())
            .collect();
        assert_eq!(exported, EXPORTS);
    }
}
