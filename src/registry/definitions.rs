//! The definition files the settings name, read and checked: all complaints of all files at once.

use crate::config::Settings;
use crate::connectors::config_text::{self, Complaint, MAX_BYTES, SourceSpan, resolve_from};
use crate::connectors::definition::{Definition, parse_beside};
use crate::registry::functions::LoadedFunctions;
use globset::{Glob, GlobMatcher};
use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Definitions by source name, and the code of their functions. Cheap to clone: all clones know of a source that comes later.
#[derive(Clone, Debug, Default)]
pub struct Definitions {
    by_name: Arc<RwLock<Arc<DefinitionMap>>>,
    /// The code that the syncs among them run.
    pub functions: LoadedFunctions,
}

/// Definitions by source name.
pub type DefinitionMap = BTreeMap<String, Arc<Definition>>;

impl Definitions {
    fn new(by_name: DefinitionMap, functions: LoadedFunctions) -> Definitions {
        Definitions { by_name: Arc::new(RwLock::new(Arc::new(by_name))), functions }
    }

    /// Other definitions with the same code.
    pub fn with(&self, by_name: DefinitionMap) -> Definitions {
        Definitions::new(by_name, self.functions.clone())
    }

    /// That of a source.
    pub fn get(&self, source: &str) -> Option<Arc<Definition>> {
        self.by_name.read().get(source).cloned()
    }

    /// All of them, as they are now.
    pub fn all(&self) -> Arc<DefinitionMap> {
        self.by_name.read().clone()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_name.read().is_empty()
    }

    /// Takes a definition in, instead of the one its source has.
    pub(super) fn put(&self, definition: Arc<Definition>) {
        let mut by_name = self.by_name.write();
        Arc::make_mut(&mut by_name).insert(definition.source.clone(), definition);
    }

    /// Forgets that of a source.
    pub(super) fn remove(&self, source: &str) {
        Arc::make_mut(&mut self.by_name.write()).remove(source);
    }
}

/// Definitions without functions.
impl FromIterator<(String, Arc<Definition>)> for Definitions {
    fn from_iter<I: IntoIterator<Item = (String, Arc<Definition>)>>(all: I) -> Definitions {
        Definitions::new(all.into_iter().collect(), LoadedFunctions::default())
    }
}

/// Endings of definition files.
const ENDINGS: [&str; 3] = ["yaml", "yml", "json"];

/// Complaints that functions of the source may answer: it has no streams, its events have no `map`.
const FOR_FUNCTIONS: [&str; 2] = ["no_streams", "no_map"];

/// Most files: more is a folder named by mistake.
const FILES_MAX: usize = 10_000;

/// Complaints about definition files, one a line: `file:line:col code message`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct DefinitionComplaints(pub Vec<String>);

/// Definitions with the files they stand in, by source name.
type ByName = BTreeMap<String, (PathBuf, Arc<Definition>)>;

/// Reads all definitions: those of the program's code are among them.
pub fn load(settings: &Settings) -> Result<Definitions, DefinitionComplaints> {
    let (found, functions, mut complaints) = read_all(settings);
    // A file that could not be read may be the one that is missed.
    if complaints.is_empty() {
        complaints = undescribed(settings, &found);
        complaints.extend(functions.undescribed(|source| found.contains_key(source)));
    }
    unless_wrong(found, functions, complaints)
}

/// Reads some definitions: the program's code may have others.
pub fn load_some(settings: &Settings) -> Result<Definitions, DefinitionComplaints> {
    let (found, functions, complaints) = read_all(settings);
    unless_wrong(found, functions, complaints)
}

fn unless_wrong(
    found: ByName,
    functions: LoadedFunctions,
    complaints: Vec<String>,
) -> Result<Definitions, DefinitionComplaints> {
    if complaints.is_empty() {
        let by_name = found.into_iter().map(|(name, (_, definition))| (name, definition)).collect();
        Ok(Definitions::new(by_name, functions))
    } else {
        Err(DefinitionComplaints(complaints))
    }
}

fn read_all(settings: &Settings) -> (ByName, LoadedFunctions, Vec<String>) {
    let (functions, mut complaints) = LoadedFunctions::load(settings);
    let mut found = ByName::new();
    for file in files(&settings.sources, &mut complaints) {
        let definition = match read(&file, settings, &functions) {
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
    complaints.extend(shared_paths(&found));
    (found, functions, complaints)
}

/// A source of code without a definition would never run.
fn undescribed(settings: &Settings, found: &ByName) -> Vec<String> {
    let missed = settings.extensions.sources.keys().filter(|name| !found.contains_key(*name));
    let places = settings.sources.join(", ");
    let said = |name: &String| {
        format!(
            "{places}:1:1 undescribed_source the program brings the source `{name}`, but no definition has this name\n  \
             hint: add {name}.yaml: {{source: {name}, streams: [{{name: Thing, key: .id}}], connections: {{me: {{}}}}}}"
        )
    };
    missed.map(said).collect()
}

/// A webhook path is one source's: two would each take what is the other's.
fn shared_paths(found: &ByName) -> Vec<String> {
    let mut owners: BTreeMap<&str, &Path> = BTreeMap::new();
    let mut complaints = Vec::new();
    for (file, definition) in found.values() {
        let Some(path) = definition.webhooks.as_ref().and_then(|webhooks| webhooks.path.as_deref()) else { continue };
        match owners.get(path) {
            None => drop(owners.insert(path, file)),
            Some(first) => {
                let (here, there) = (place_of_path(file), place_of_path(first));
                let said = format!("{here} duplicate_path `{path}` is the webhook path of {there} as well");
                complaints.push(format!("{said}\n  hint: give each source a path of its own, or leave `path` out"));
            }
        }
    }
    complaints
}

/// Where `webhooks.path` stands in a file; its beginning if it comes from a preset.
fn place_of_path(file: &Path) -> String {
    let name = file.display().to_string();
    let tree = std::fs::read_to_string(file).ok().and_then(|text| config_text::parse(&name, &text).ok());
    let spot = tree.as_ref().and_then(|tree| Some(tree.get("webhooks")?.get("path")?.spot.clone()));
    let spot = spot.unwrap_or_else(|| SourceSpan::start(&name));
    format!("{name}:{}:{}", spot.line, spot.col)
}

/// One file, or its complaints. `http:` and a place beside the public internet are complaints unless the settings allow them.
fn read(file: &Path, settings: &Settings, functions: &LoadedFunctions) -> Result<Definition, Vec<String>> {
    let name = file.display().to_string();
    let whole = |code: &str, why: String| vec![format!("{name}:1:1 {code} {why}")];
    let length = std::fs::metadata(file).map_err(|e| whole("unreadable_file", e.to_string()))?.len();
    if length > MAX_BYTES as u64 {
        return Err(whole("too_large", format!("{length} bytes; a definition has at most {MAX_BYTES}")));
    }
    let text = std::fs::read_to_string(file).map_err(|e| whole("unreadable_file", e.to_string()))?;
    let folder = file.parent().unwrap_or(Path::new("."));
    let secure = |all: Vec<Complaint>| outward(all, settings);
    // What the functions do, a file with complaints does not tell.
    let listed = |all: Vec<Complaint>| all.into_iter().filter(|c| !FOR_FUNCTIONS.contains(&c.code) || !functions.any());
    let (definition, warnings) =
        parse_beside(&name, &text, &resolve_from(folder), &|source| functions.of_source(source))
            .map_err(|all| listed(secure(all)).map(|complaint| complaint.to_string()).collect::<Vec<_>>())?;
    must_be_served(&definition).map_err(|why| whole("not_in_this_release", why))?;
    let (mut definition, warnings) = of_code(definition, warnings, settings)?;
    if cfg!(not(feature = "functions")) && !definition.actions.is_empty() {
        let why =
            "this program is built without functions, and runs no `actions` either: build it with its default features";
        return Err(whole("without_functions", why.to_owned()));
    }
    functions.attach(&mut definition)?;
    let taken = |code: &str| match code {
        "no_streams" => !definition.streams.is_empty() || functions.act(&definition.source),
        _ => definition.function_syncs.iter().any(|sync| !sync.webhooks.is_empty()),
    };
    let warnings = warnings.into_iter().filter(|w| !FOR_FUNCTIONS.contains(&w.code) || !taken(w.code));
    let warnings =
        warnings.map(|w| Complaint { warning: w.warning && !FOR_FUNCTIONS.contains(&w.code), ..w }).collect();
    let warnings = secure(without_kafka(warnings, settings)?);
    if warnings.iter().any(|complaint| !complaint.warning) {
        return Err(warnings.iter().map(Complaint::to_string).collect());
    }
    warnings.iter().for_each(|warning| tracing::warn!("{}", warning.line()));
    Ok(definition)
}

/// Ways to sign in that are read, and not served yet: nobody shall wait for records that cannot come.
pub(super) fn must_be_served(definition: &Definition) -> Result<(), String> {
    let Some(tokens) = definition.auth.tokens() else { return Ok(()) };
    let source = &definition.source;
    if tokens.code().is_some() {
        tracing::warn!(source, "tokens are not renewed by this release: people sign in again when theirs has ended");
        return Ok(());
    }
    let mode = definition.auth.kind.mode();
    Err(format!(
        "the sign-in of `{source}` ({mode}) is not part of this release\n  \
         hint: `oauth2` is served for people who sign in; bearer works with a token that does not expire"
    ))
}

/// `http:`, and places that are not the public internet, are as wrong as anything else, unless the settings allow them.
pub(super) fn outward(all: Vec<Complaint>, settings: &Settings) -> Vec<Complaint> {
    let hint = "write https:, or set `egress: {allow_http: true}` in syncline.yaml";
    let goes = |c: &Complaint| c.about.as_deref().is_some_and(|url| settings.egress.judge(url).is_ok());
    let told = |c: Complaint| match c.code {
        "insecure_url" if settings.allow_http => None,
        "insecure_url" => Some(Complaint { warning: false, ..c.hint(hint) }),
        "egress_blocked" if goes(&c) => None,
        "egress_blocked" => Some(Complaint { warning: false, ..c }),
        _ => Some(c),
    };
    all.into_iter().filter_map(told).collect()
}

/// The streams of a source that the program brings are asked by its code: requests beside it would never be made.
fn of_code(
    mut definition: Definition,
    warnings: Vec<Complaint>,
    settings: &Settings,
) -> Result<(Definition, Vec<Complaint>), Vec<String>> {
    if !settings.extensions.sources.contains_key(&definition.source) {
        return Ok((definition, warnings));
    }
    for stream in &mut definition.streams {
        if stream.polled() || stream.fetch.is_some() {
            let (source, stream) = (&definition.source, &stream.name);
            return Err(vec![format!(
                "{source}:1:1 conflict stream `{stream}` describes requests, but the program brings the source `{source}`\n  \
                 hint: leave `list`, `incremental` and `fetch` out, or name one of the two otherwise"
            )]);
        }
        stream.of_code = true;
    }
    Ok((definition, warnings.into_iter().filter(|warning| warning.code != "no_request").collect()))
}

/// What only topics make legal is a complaint where none are read.
fn without_kafka(warnings: Vec<Complaint>, settings: &Settings) -> Result<Vec<Complaint>, Vec<String>> {
    let fed = |w: &Complaint| match w.code {
        "kafka_not_set" => Some(settings.has_topics()),
        "no_request" => Some(settings.reads_topics()),
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
            all.extend(entries.filter(|file| file.is_file() && is_definition(file) && !is_schema(file)));
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

/// JSON Schemas may lie beside definitions: those of their streams, and what editors check definitions with.
fn is_schema(file: &Path) -> bool {
    file.file_name().is_some_and(|name| name.to_string_lossy().ends_with(".schema.json"))
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
        } else if !is_schema(&path) && (glob.is_match(&path) || glob.is_match(plain)) {
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
    use crate::engine::source::{Ask, Bookmark, Failure, Page, Source};

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
        for name in ["b.yaml", "a.yml", "c.json", "c.schema.json", "notes.txt", "more/d.yaml", "more/deep/e.yaml"] {
            std::fs::write(dir.path().join(name), "").expect("written");
        }
        let folder = dir.path().display().to_string();
        assert_eq!(found(&[folder.clone(), at("b.yaml")]).0, ["a.yml", "b.yaml", "c.json"]);
        assert_eq!(found(&[at("**/*.yaml")]).0, ["b.yaml", "d.yaml", "e.yaml"]);
        assert_eq!(found(&[at("*.json")]).0, ["c.json"]);
        assert_eq!(found(&[at("more/*.yaml"), folder]).0.first().map(String::as_str), Some("d.yaml"));
    }

    #[test]
    fn a_webhook_path_of_two_sources_names_both_places() {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::write(dir.path().join("secret"), "s3cret-enough").expect("written");
        let write = |source: &str, path: &str| {
            let text = format!(
                "source: {source}\nbase_url: https://a.example\nstreams: [{{name: Thing, key: .id, list: {{get: /a}}}}]\n\
                 webhooks:\n  route: .account\n  {path}\n  verify: {{preset: github, secret: \"file:secret\"}}\n  \
                 map: [{{stream: Thing, record: .}}]\n"
            );
            std::fs::write(dir.path().join(format!("{source}.yaml")), text).expect("written");
        };
        let load = || load(&Settings { sources: vec![dir.path().display().to_string()], ..Settings::default() });
        write("a", "path: /hooks/in");
        write("b", "unrouted: drop");
        write("c", "unrouted: drop\n  path: /hooks/in");
        let wrong = load().expect_err("refused").to_string();
        assert!(wrong.contains("c.yaml:7:9 duplicate_path `/hooks/in`") && wrong.contains("a.yaml:6:9"), "{wrong}");
        write("c", "path: /hooks/other");
        assert_eq!(load().expect("good").all().len(), 3);
    }

    #[test]
    fn a_source_of_code_has_a_file_without_requests() {
        struct Nothing;

        #[async_trait::async_trait]
        impl Source for Nothing {
            async fn poll(&self, _: &Ask, _: Option<&Bookmark>) -> Result<Page, Failure> {
                Ok(Page::last(Vec::new()))
            }
        }

        let dir = tempfile::tempdir().expect("a folder");
        let mut settings = Settings { sources: vec![dir.path().display().to_string()], ..Settings::default() };
        let write = |stream: &str| {
            let text =
                format!("source: own\nbase_url: https://a.example\nstreams: [{{name: Thing, key: .id{stream}}}]\n");
            std::fs::write(dir.path().join("own.yaml"), text).expect("written");
        };
        write("");
        let wrong = load(&settings).expect_err("nothing brings its records").to_string();
        assert!(wrong.contains("no_request") && wrong.contains("start the program whose code brings"), "{wrong}");
        settings.extensions.sources.insert("own".to_owned(), Arc::new(Nothing));
        let own = load(&settings).expect("code brings them");
        let stream = &own.get("own").expect("defined").streams[0];
        assert!(stream.polled() && stream.lists());
        write(", list: {get: /things}");
        let wrong = load(&settings).expect_err("requests that would not be made").to_string();
        assert!(wrong.contains("conflict stream `Thing` describes requests"), "{wrong}");
        std::fs::remove_file(dir.path().join("own.yaml")).expect("removed");
        let wrong = load(&settings).expect_err("code that would not run").to_string();
        assert!(wrong.contains("undescribed_source") && wrong.contains("own.yaml"), "{wrong}");
        assert!(load_some(&settings).expect("some of the files").is_empty());
    }

    #[test]
    fn a_missing_folder_is_empty_and_a_missing_file_is_a_complaint() {
        assert_eq!(found(&["no/such/folder".into()]), (vec![], vec![]));
        let (files, complaints) = found(&["no/such.yaml".into()]);
        assert!(files.is_empty() && complaints.len() == 1 && complaints[0].contains("missing_file"), "{complaints:?}");
    }
}
