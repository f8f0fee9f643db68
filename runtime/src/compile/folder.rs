//! Which files of a folder are functions.

use super::{Complaint, FILE_BYTES, FILES, transform};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::Read;
use std::path::Path;

/// The file of Nango's old format.
const OLD_LIST: &str = "nango.yaml";

/// What a function is, by the folder it is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FunctionKind {
    /// `syncs/`: reads records, on a schedule and by webhooks.
    Sync,
    /// `actions/`: done once when somebody asks.
    Action,
    /// `on-events/`: done when something happens to a connection.
    OnEvent,
}

impl FunctionKind {
    /// The folder's name.
    pub fn folder(self) -> &'static str {
        match self {
            FunctionKind::Sync => "syncs",
            FunctionKind::Action => "actions",
            FunctionKind::OnEvent => "on-events",
        }
    }

    fn of_folder(name: &str) -> Option<FunctionKind> {
        [FunctionKind::Sync, FunctionKind::Action, FunctionKind::OnEvent].into_iter().find(|kind| kind.folder() == name)
    }
}

/// Where a function stands, and what that says of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// The source (integration): the first folder.
    pub source: String,
    /// By the folder it is in; once its file was read, by what that says.
    pub kind: FunctionKind,
    /// Its name on the wire: the file's, without its ending.
    pub name: String,
    /// Path within the folder of functions.
    pub file: String,
}

impl Place {
    /// Of a path like `github/syncs/issues.ts`; `None` if it is no place for a function.
    pub fn of(file: &str) -> Option<Place> {
        let [source, folder, base] = file.split('/').collect::<Vec<_>>().try_into().ok()?;
        let name = base.strip_suffix(".ts").or_else(|| base.strip_suffix(".js"))?;
        let is_function = !name.is_empty() && !name.ends_with(".d") && !name.ends_with(".test");
        let kind = FunctionKind::of_folder(folder)?;
        is_function.then(|| Place { source: source.into(), kind, name: name.into(), file: file.into() })
    }
}

/// What a folder holds.
pub(super) struct Found {
    pub(super) functions: Vec<Place>,
    pub(super) complaints: Vec<Complaint>,
}

/// The functions of a folder: what its `index.ts` imports, or else every file in the three folders of each source.
pub(super) fn scan(folder: &Path) -> Result<Found, Vec<Complaint>> {
    let old = old_lists(folder).map_err(|complaint| vec![complaint])?;
    if !old.is_empty() {
        return Err(old);
    }
    let mut found = match folder.join("index.ts").is_file() {
        true => by_index(folder)?,
        false => by_folders(folder).map_err(|complaint| vec![complaint])?,
    };
    found.functions.sort();
    found.functions.dedup();
    for pair in found.functions.windows(2) {
        if let [a, b] = pair
            && (&a.source, a.kind, &a.name) == (&b.source, b.kind, &b.name)
        {
            let message = format!("`{}` is the same function; keep one of the two", a.file);
            found.complaints.push(Complaint::of_file(&b.file, "duplicate_function", message));
        }
    }
    Ok(found)
}

/// Lists of functions in the format from before `createSync`: none of the files beside them can be run.
fn old_lists(folder: &Path) -> Result<Vec<Complaint>, Complaint> {
    let sources = names(folder, "")?;
    let places = sources.iter().map(|source| format!("{source}/{OLD_LIST}")).chain([OLD_LIST.to_owned()]);
    let message = "lists functions in Nango's old format, which is not supported: convert them with Nango's own command, then remove this file";
    Ok(places
        .filter(|place| folder.join(place).is_file())
        .map(|place| Complaint::of_file(&place, "old_format", message))
        .collect())
}

fn by_index(folder: &Path) -> Result<Found, Vec<Complaint>> {
    let text = read(folder, "index.ts").map_err(|complaint| vec![complaint])?;
    let index = transform::transform("index.ts", &text)?;
    let mut found = Found { functions: Vec::new(), complaints: Vec::new() };
    for import in index.imports {
        let complain = |code, message| Complaint {
            file: "index.ts".into(),
            line: import.line,
            column: import.column,
            code,
            message,
        };
        match super::resolve::find("index.ts", &import.specifier, |path| folder.join(path).is_file()) {
            Ok(super::resolve::Target::File(file)) => match Place::of(&file) {
                Some(place) => found.functions.push(place),
                None => {
                    let message = format!(
                        "`{file}` is no place for a function: expected SOURCE/syncs/NAME.ts, SOURCE/actions/NAME.ts or SOURCE/on-events/NAME.ts"
                    );
                    found.complaints.push(complain("misplaced_function", message));
                }
            },
            Ok(super::resolve::Target::Ours) => {}
            Err(refusal) => found.complaints.push(complain(refusal.code(), refusal.to_string())),
        }
    }
    Ok(found)
}

fn by_folders(folder: &Path) -> Result<Found, Complaint> {
    let mut found = Found { functions: Vec::new(), complaints: Vec::new() };
    for source in names(folder, "")? {
        for kind in [FunctionKind::Sync, FunctionKind::Action, FunctionKind::OnEvent] {
            let inside = format!("{source}/{}", kind.folder());
            if !folder.join(&inside).is_dir() {
                continue;
            }
            found
                .functions
                .extend(names(folder, &inside)?.iter().filter_map(|name| Place::of(&format!("{inside}/{name}"))));
        }
    }
    Ok(found)
}

/// Names of what is in a folder, in order. Hidden files and installed packages do not count.
fn names(folder: &Path, inside: &str) -> Result<Vec<String>, Complaint> {
    let path = folder.join(inside);
    let unreadable = |error: std::io::Error| {
        let shown = if inside.is_empty() { "." } else { inside };
        Complaint::of_file(shown, "unreadable", format!("the folder {} cannot be read: {error}", path.display()))
    };
    let mut names = Vec::new();
    for entry in fs::read_dir(&path).map_err(unreadable)? {
        let name = entry.map_err(unreadable)?.file_name();
        if let Some(name) = name.to_str().filter(|name| !name.starts_with('.') && *name != "node_modules") {
            names.push(name.to_owned());
        }
        if names.len() > FILES {
            return Err(Complaint::of_file(inside, "too_many_files", format!("more than {FILES} files")));
        }
    }
    names.sort();
    Ok(names)
}

/// The text of a file, bounded.
pub(super) fn read(folder: &Path, name: &str) -> Result<String, Complaint> {
    let unreadable = |error: std::io::Error| Complaint::of_file(name, "unreadable", format!("cannot be read: {error}"));
    let path = folder.join(name).canonicalize().map_err(unreadable)?;
    if !path.starts_with(folder.canonicalize().map_err(unreadable)?) {
        return Err(Complaint::of_file(name, "import_outside", "is a link that leads out of the folder of functions"));
    }
    let mut text = String::new();
    let file = fs::File::open(&path).map_err(unreadable)?;
    file.take(FILE_BYTES + 1).read_to_string(&mut text).map_err(unreadable)?;
    match text.len() as u64 > FILE_BYTES {
        true => Err(Complaint::of_file(name, "file_too_large", format!("larger than {} MiB", FILE_BYTES >> 20))),
        false => Ok(text),
    }
}
