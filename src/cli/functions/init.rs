//! `syncline functions init`: a first function that compiles and passes its test, and what editors need beside it.
//!
//! The function and its test overwrite nothing. The declarations are this version's, whatever an older one has written; the
//! settings of editors are written once.

use super::super::exit::{Fail, code};
use super::super::init::{check_name, create};
use super::super::show;
use super::Folder;
use std::process::ExitCode;
use syncline_runtime::{GLOBAL_DECLARATIONS, NANGO_DECLARATIONS};

/// The function, as it is for `contacts` with the model `Contact`.
const SYNC: &str = include_str!("first/sync.ts");
const TEST: &str = include_str!("first/test.json");
/// What editors need, once for all functions.
const EDITORS: [(&str, &str); 2] =
    [("tsconfig.json", include_str!("first/tsconfig.json")), ("package.json", include_str!("first/package.json"))];
/// What functions may use, by version.
const DECLARATIONS: [(&str, &str); 2] = [("nango.d.ts", NANGO_DECLARATIONS), ("globals.d.ts", GLOBAL_DECLARATIONS)];

/// Arguments of `init`.
#[derive(clap::Args)]
pub(crate) struct InitArgs {
    /// Source that the function belongs to
    source: String,
    /// Name of the sync
    #[arg(default_value = "contacts")]
    name: String,
    #[command(flatten)]
    folder: Folder,
}

/// Writes them.
pub(super) fn run(args: &InitArgs) -> Result<ExitCode, Fail> {
    let InitArgs { source, name, folder } = args;
    check_name(source)?;
    check_sync(name)?;
    let model = model(name);
    let own = |text: &str| text.replace("Contact", &model).replace("contacts", name);
    let (sync, test) = (format!("{source}/syncs/{name}.ts"), format!("{source}/tests/{name}.test.json"));
    for file in [&sync, &test] {
        if folder.file(file).exists() {
            return Err(Fail::new(code::FAILURE, format!("{} exists and is left as it is", folder.shown(file)))
                .hint(format!("choose another name: `syncline functions init {source} NAME`")));
        }
    }
    for (file, text) in [(&sync, SYNC), (&test, TEST)] {
        write(folder, file, &own(text))?;
    }
    for (file, text) in EDITORS {
        if !folder.file(file).exists() {
            write(folder, file, text)?;
        }
    }
    for (file, text) in DECLARATIONS {
        let path = folder.file(file);
        std::fs::write(&path, text)
            .map_err(|e| Fail::new(code::FAILURE, format!("{} cannot be written: {e}", path.display())))?;
        show::line(&format!("wrote {} (for editors)", folder.shown(file)))?;
    }
    show::line(&format!(
        "next: make {} read what your API has, then `syncline functions compile` and `syncline functions test`",
        folder.shown(&sync)
    ))?;
    Ok(ExitCode::SUCCESS)
}

fn write(folder: &Folder, file: &str, text: &str) -> Result<(), Fail> {
    create(&folder.file(file), text, 0o644)?;
    show::line(&format!("wrote {}", folder.shown(file)))
}

fn check_sync(name: &str) -> Result<(), Fail> {
    match name.starts_with(|first: char| first.is_ascii_lowercase()) {
        true => check_name(name),
        false => Err(Fail::new(code::USAGE, format!("`{name}` cannot be the name of a sync"))
            .hint("letters, digits, `_` and `-`, beginning with a small letter")),
    }
}

/// The model of a sync: `open-issues` brings an `OpenIssue`.
fn model(name: &str) -> String {
    let one = name.strip_suffix('s').filter(|one| one.len() > 1 && !one.ends_with('s')).unwrap_or(name);
    let words = one.split(['-', '_']).filter(|word| !word.is_empty());
    words
        .map(|word| {
            let mut letters = word.chars();
            letters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(letters).collect::<String>()
        })
        .collect()
}
