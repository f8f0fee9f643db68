//! From a folder of TypeScript files to modules that the sandbox loads.
//!
//! ```text
//! functions/
//!   index.ts                    optional: imports what counts, one line each
//!   github/syncs/issues.ts      sync `issues` of the source `github`; also actions/ and on-events/
//!   github/helpers.ts           imported by others
//! ```
//!
//! Promises: each file is transformed once; types are removed, not checked; every complaint of the folder comes at once, with
//! its line and column; nothing above the folder is read. A module's name is its path within the folder.

mod complaint;
mod folder;
mod lines;
mod resolve;
mod transform;

pub use complaint::Complaint;
pub use folder::{FunctionKind, Place};
pub use lines::LineMap;
pub(crate) use resolve::resolve;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::Path;

/// Most bytes of one file.
pub const FILE_BYTES: u64 = 2 << 20;
/// Most files of one folder.
pub const FILES: usize = 10_000;

/// A module: JavaScript, and where each piece of it stands in the file it was made of.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ModuleCode {
    /// An ES module.
    pub code: String,
    /// From its lines to the lines of the file.
    pub lines: LineMap,
}

/// Where a file writes what it declares. Lines and columns are from 1.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Declaration {
    /// Line and column of the call of a `create…`.
    call: (u32, u32),
    /// Of the properties it is given, by name.
    properties: BTreeMap<String, (u32, u32)>,
}

/// All modules of a folder.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Modules {
    /// By path within the folder, with `/`.
    pub modules: BTreeMap<String, ModuleCode>,
    /// The files that are functions.
    pub functions: Vec<Place>,
    /// Where files write what they declare, by their path: those that write it as the call of a `create…`.
    #[serde(default)]
    pub(crate) declarations: BTreeMap<String, Declaration>,
    /// SHA-256 of all of it, in hex: another hash is another set of functions.
    pub hash: String,
}

impl Modules {
    /// A complaint about a property of what a file declares: at the property, at the call where it is missing, and about the
    /// whole file where that is not known.
    pub fn complain(&self, file: &str, property: &str, code: &'static str, message: impl Into<String>) -> Complaint {
        let declaration = self.declarations.get(file);
        let place = declaration.map(|declared| declared.properties.get(property).unwrap_or(&declared.call));
        let (line, column) = place.copied().unwrap_or_default();
        Complaint { line, column, ..Complaint::of_file(file, code, message) }
    }
}

/// A file that was compiled.
struct Compiled {
    code: ModuleCode,
    declaration: Option<Declaration>,
    /// The files it imports.
    imports: Vec<String>,
}

/// Compiles all functions of a folder and what they import.
pub fn compile(folder: &Path) -> Result<Modules, Vec<Complaint>> {
    let found = folder::scan(folder)?;
    let mut complaints = found.complaints;
    let (mut modules, mut declarations) = (BTreeMap::new(), BTreeMap::new());
    let mut waiting: Vec<String> = found.functions.iter().map(|place| place.file.clone()).collect();
    while let Some(name) = waiting.pop() {
        if modules.contains_key(&name) {
            continue;
        }
        if modules.len() >= FILES {
            complaints.push(Complaint::of_file(
                &name,
                "too_many_files",
                format!("more than {FILES} files are imported"),
            ));
            break;
        }
        match module(folder, &name) {
            Ok(Compiled { code, declaration, imports }) => {
                declarations.extend(declaration.map(|declaration| (name.clone(), declaration)));
                modules.insert(name, code);
                waiting.extend(imports);
            }
            Err(found) => complaints.extend(found),
        }
    }
    if !complaints.is_empty() {
        complaints.sort();
        complaints.dedup();
        return Err(complaints);
    }
    let hash = hash(&modules);
    Ok(Modules { modules, functions: found.functions, declarations, hash })
}

/// One file.
fn module(folder: &Path, name: &str) -> Result<Compiled, Vec<Complaint>> {
    let text = folder::read(folder, name).map_err(|complaint| vec![complaint])?;
    if name.ends_with(".json") {
        let plain = |code| Compiled { code, declaration: None, imports: Vec::new() };
        return json_module(name, &text).map(plain).map_err(|complaint| vec![complaint]);
    }
    let transformed = transform::transform(name, &text)?;
    let mut files = Vec::new();
    let mut complaints = Vec::new();
    for import in &transformed.imports {
        match resolve::find(name, &import.specifier, |path| folder.join(path).is_file()) {
            Ok(resolve::Target::Ours) => complaints.extend(unknown_names(name, import)),
            Ok(resolve::Target::File(file)) => files.push(file),
            Err(refusal) => complaints.push(Complaint {
                file: name.to_owned(),
                line: import.line,
                column: import.column,
                code: refusal.code(),
                message: refusal.to_string(),
            }),
        }
    }
    match complaints.is_empty() {
        true => Ok(Compiled { code: transformed.module, declaration: transformed.declaration, imports: files }),
        false => Err(complaints),
    }
}

/// Names that a file imports from `nango` and that are not there.
fn unknown_names(file: &str, import: &transform::Import) -> Vec<Complaint> {
    let of_nango = import.names.iter().filter(|_| import.specifier == "nango");
    of_nango
        .filter_map(|name| {
            let (code, message) = resolve::unknown_export(&name.name)?;
            Some(Complaint { file: file.to_owned(), line: name.line, column: name.column, code, message })
        })
        .collect()
}

/// A file of JSON as a module whose default export it is.
fn json_module(name: &str, text: &str) -> Result<ModuleCode, Complaint> {
    if let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(text) {
        let (line, column) = (error.line() as u32, error.column() as u32);
        let message = error.to_string();
        return Err(Complaint { file: name.to_owned(), line, column, code: "syntax", message });
    }
    Ok(ModuleCode { code: format!("export default {text};\n"), lines: LineMap::default() })
}

fn hash(modules: &BTreeMap<String, ModuleCode>) -> String {
    let mut hasher = Sha256::new();
    for (name, module) in modules {
        for part in [name.as_bytes(), module.code.as_bytes()] {
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
    }
    hex::encode(hasher.finalize())
}
