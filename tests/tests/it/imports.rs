//! Import direction: who may know whom, read off the sources themselves.
//!
//! Promises: a path from one room to another that the tables below do not allow fails, as does a third party used
//! outside its door, a clock read outside the time layer, and a file that does not open with `//!`.
//! Does not: look into in-file test modules, which may join what they like.
//!
//! Standard library only, so that `rustc --test` builds and runs it in a second.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// A room: the files under a folder, and what they may import of their own crate besides themselves.
struct Room {
    /// Folder or file stem below the crate's `src`.
    at: &'static str,
    /// Rooms it may use.
    may: &'static [&'static str],
}

const fn room(at: &'static str, may: &'static [&'static str]) -> Room {
    Room { at, may }
}

/// Words, time and plain state below; five rooms that never know each other, but that the store tells a changelog (a seam of
/// the log) of its writes; the pipeline alone knows the way.
const ENGINE: &[Room] = &[
    room("fault", &[]),
    room("model", &[]),
    room("time", &["model"]),
    room("state", &["model"]),
    room("source", &["model", "time"]),
    room("log", &["model", "time"]),
    room("dataflow", &["model", "state"]),
    room("store", &["model", "time", "state", "log"]),
    room("sink", &["model", "time"]),
    room("pipeline", &["model", "time", "state", "source", "log", "dataflow", "store", "sink"]),
    room("harness", &["model", "time", "pipeline", "dataflow"]),
];

/// Rooms that every other one may use: failpoints stand where the work is done.
const EVERYWHERE: &[&str] = &["fault"];

/// Configuration text and what definitions say stand below; connectors know them and `http`, and never each other.
const CONNECTORS: &[Room] = &[
    room("config_text", &[]),
    room("expr", &["config_text"]),
    room("egress", &[]),
    room("definition", &["config_text", "expr", "egress"]),
    room("mapping", &["expr", "definition"]),
    room("http", &["expr", "egress", "definition"]),
    room("sign_in", &["expr", "definition", "http"]),
    room("rest", &["expr", "definition", "mapping", "http"]),
    room("actions", &["expr", "definition", "mapping", "http", "rest"]),
    room("functions", &["actions", "definition", "mapping", "http", "rest"]),
    room("webhooks", &["expr", "definition", "mapping", "http"]),
    room("deliveries", &["http"]),
    room("murmur2", &[]),
    room("kafka", &["expr", "definition", "mapping", "murmur2"]),
];

/// What compiles functions and what runs them share the modules, and the words in which a function and its host speak.
const RUNTIME: &[Room] = &[
    room("compile", &[]),
    room("wire", &[]),
    room("sandbox", &["compile", "wire"]),
    room("functions", &["compile", "sandbox"]),
    room("mocks", &["compile", "wire", "sandbox"]),
    room("worker", &["compile", "wire", "sandbox"]),
];

/// The ways in and out never know each other; nothing below `app` knows it; surfaces stand above. `http` knows no route and no app.
const PROGRAM: &[Room] = &[
    room("admission", &[]),
    room("config", &["admission"]),
    room("keyspaces", &[]),
    room("telemetry", &[]),
    room("registry", &["keyspaces", "config"]),
    room("ingest", &["keyspaces", "registry", "telemetry", "admission"]),
    room("sinks", &["keyspaces", "registry", "telemetry", "config"]),
    room("app", &["keyspaces", "ingest", "sinks", "registry", "telemetry", "config", "admission"]),
    room("cluster", &["app", "ingest", "sinks", "registry", "telemetry", "config"]),
    room("server", &["admission", "telemetry"]),
    room("http", &["telemetry", "config", "admission"]),
    room("api", &["http", "cluster", "app", "ingest", "sinks", "registry", "telemetry", "config", "admission"]),
    room(
        "cli",
        &["api", "server", "cluster", "app", "ingest", "sinks", "registry", "telemetry", "config", "admission"],
    ),
];

/// The sources of a crate, its rooms, and what it may see of the engine (`None`: all of it).
type Sources = (&'static str, &'static [Room], Option<&'static [&'static str]>);

const CRATES: &[Sources] = &[
    ("engine/src", ENGINE, None),
    ("connectors/src", CONNECTORS, Some(&["fault", "model", "time", "source", "sink", "log"])),
    ("runtime/src", RUNTIME, Some(&[])),
    ("src", PROGRAM, None),
];

/// One door per third party: the crate, and the only places that may name it.
const DOORS: &[(&str, &[&str])] = &[
    ("timely", &["engine/src/dataflow"]),
    ("differential_dataflow", &["engine/src/dataflow"]),
    ("rocksdb", &["engine/src/log/rocks", "engine/src/store"]),
    ("rdkafka", &["connectors/src/kafka"]),
    ("reqwest", &["connectors/src/http"]),
    ("rquickjs", &["runtime/src/sandbox"]),
    ("oxc_parser", &["runtime/src/compile"]),
    ("oxc_transformer", &["runtime/src/compile"]),
    ("axum", &["src/api", "src/http", "src/server"]),
    ("tower_http", &["src/api"]),
    ("askama", &["src/api"]),
    ("hyper", &["src/api", "src/server"]),
    ("hyper_util", &["src/api", "src/server"]),
];

/// Rooms that are plain threads and functions; the log alone hands out a watcher.
const WITHOUT_TOKIO: &[&str] = &["engine/src/model", "engine/src/state", "engine/src/dataflow", "engine/src/store"];

/// Last two parts of paths that read a clock or chance, and the one place in the libraries that may.
const CLOCKS: &[(&str, &str)] = &[
    ("SystemTime", "now"),
    ("Instant", "now"),
    ("Timestamp", "now"),
    ("Zoned", "now"),
    ("rand", "rng"),
    ("rand", "random"),
];
const CLOCK_ROOM: &str = "engine/src/time";
const CLOCKLESS: &[&str] = &["engine/src", "connectors/src"];

/// How RocksDB is asked for values: the beginnings of the methods' names.
const READS: &[&str] = &[
    "get_cf",
    "get_opt",
    "get_pinned",
    "multi_get",
    "batched_multi_get",
    "iterator",
    "full_iterator",
    "prefix_iterator",
    "raw_iterator",
];
/// In the store one file asks for them, so that values can be sealed in one place. What looks at whole files, or puts them in another
/// place, takes them as they are.
const STORE: &str = "engine/src/store";
const READERS: &[&str] =
    &["engine/src/store/values", "engine/src/store/check", "engine/src/store/repair", "engine/src/store/backup"];

/// Folders whose files open with `//!`.
const DOCUMENTED: &[&str] = &["engine", "connectors", "runtime", "fixtures", "src", "tests", "benches", "examples"];

#[test]
fn imports_follow_the_layers() {
    let root = root();
    let mut found = Vec::new();
    for (folder, ..) in CRATES {
        let files = sources(&root.join(folder));
        assert!(files.len() > 1, "no sources in {folder}: is the working directory the repository?");
        for file in files {
            let name = relative(&root, &file);
            let text = fs::read_to_string(&file).unwrap_or_else(|e| panic!("{name}: {e}"));
            found.extend(check(&name, &text));
        }
    }
    assert!(found.is_empty(), "\n{}\n", listed(&found));
}

#[test]
fn every_file_says_what_it_is_for() {
    let root = root();
    let mut found = Vec::new();
    for folder in DOCUMENTED {
        for file in sources(&root.join(folder)) {
            let text = fs::read_to_string(&file).unwrap_or_default();
            found.extend(check_opening(&relative(&root, &file), &text));
        }
    }
    assert!(found.is_empty(), "\n{}\n", listed(&found));
}

/// A folder that no table names could import what it likes, and a name without a folder would allow what is not there.
#[test]
fn each_room_is_listed_and_each_listed_room_is_there() {
    let root = root();
    let mut found = Vec::new();
    for (folder, rooms, _) in CRATES {
        let folder = root.join(folder);
        for entry in fs::read_dir(&folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
            let stem = entry.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let listed = rooms.iter().any(|room| room.at.split('/').next() == Some(&stem));
            if !listed && !["lib", "main"].contains(&stem.as_str()) {
                found.push(format!("{}: no room of the tables", relative(&root, &entry)));
            }
        }
        for room in rooms.iter().flat_map(|room| room.may.iter().chain([&room.at])) {
            let is_there = folder.join(room).is_dir() || folder.join(format!("{room}.rs")).is_file();
            if !is_there || !rooms.iter().any(|other| other.at == *room) {
                found.push(format!("{}/{room}: the tables name it, and it is no room", relative(&root, &folder)));
            }
        }
    }
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

/// What is wrong, where.
#[derive(Debug, PartialEq)]
struct Finding {
    file: String,
    line: usize,
    what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.what)
    }
}

fn listed(found: &[Finding]) -> String {
    found.iter().map(Finding::to_string).collect::<Vec<_>>().join("\n")
}

fn check_opening(file: &str, text: &str) -> Option<Finding> {
    let says = text.lines().take_while(|l| l.starts_with("//!")).any(|l| l.trim_start_matches("//!").trim().len() > 3);
    (!says).then(|| Finding {
        file: file.into(),
        line: 1,
        what: "opens without `//!` saying what the file is for".into(),
    })
}

/// All that is wrong with the imports of one file of a crate's `src`.
fn check(file: &str, text: &str) -> Vec<Finding> {
    let Some((folder, rooms, of_engine)) = CRATES.iter().find(|(folder, ..)| under(file, folder)) else {
        return Vec::new();
    };
    let module = module_of(&file[folder.len() + 1..]);
    let own = room_of(rooms, &module);
    let mut found = Vec::new();
    let tokens = tokens(&without_tests(&code_only(text)));
    found.extend(reads_values(file, &tokens));
    for path in paths(&tokens) {
        let mut complain = |what: String| found.push(Finding { file: file.into(), line: path.line, what });
        if let (Some(own), Some(other)) = (own, absolute(&module, &path.parts).and_then(|to| room_of(rooms, &to)))
            && own.at != other.at
            && !own.may.contains(&other.at)
            && !EVERYWHERE.contains(&other.at)
        {
            complain(format!("`{}` must not know `{}`", own.at, other.at));
        }
        if let Some(allowed) = of_engine
            && path.parts[0] == "syncline_engine"
            && path.parts.get(1).is_none_or(|room| !allowed.contains(&room.as_str()))
        {
            complain(format!("`{}`: connectors see the engine's {} only", path.parts.join("::"), allowed.join(", ")));
        }
        if let Some((name, doors)) = DOORS.iter().find(|(name, _)| path.parts[0] == *name)
            && !doors.iter().any(|door| under(file, door))
        {
            complain(format!("`{name}` is used outside its door ({})", doors.join(", ")));
        }
        if path.parts[0] == "tokio" && WITHOUT_TOKIO.iter().any(|room| under(file, room)) {
            complain("`tokio` in a room of plain threads".into());
        }
        if reads_a_clock(&path.parts) && CLOCKLESS.iter().any(|at| under(file, at)) && !under(file, CLOCK_ROOM) {
            complain(format!("`{}`: only {CLOCK_ROOM} reads clocks and chance", path.parts.join("::")));
        }
    }
    found
}

/// Where a file of the store asks the database for values, though it is none of those that may.
fn reads_values(file: &str, tokens: &[Token]) -> Vec<Finding> {
    if !under(file, STORE) || READERS.iter().any(|reader| under(file, reader)) {
        return Vec::new();
    }
    let calls =
        tokens.windows(2).filter(|pair| pair[0].text == "." && READS.iter().any(|r| pair[1].text.starts_with(r)));
    let what = "values are read by `Store::get` and `Store::scan` alone";
    calls.map(|pair| Finding { file: file.into(), line: pair[1].line, what: what.into() }).collect()
}

fn reads_a_clock(parts: &[String]) -> bool {
    parts.windows(2).any(|pair| CLOCKS.iter().any(|(of, what)| pair[0] == *of && pair[1] == *what))
}

/// Whether `file` is `place`, or lies in it; `place` may be a folder or a file without its `.rs`.
fn under(file: &str, place: &str) -> bool {
    file.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || rest == ".rs")
}

/// Module path of a file below `src`: `log/rocks.rs` is `[log, rocks]`, `log/mod.rs` is `[log]`, `lib.rs` is the root.
fn module_of(file: &str) -> Vec<String> {
    let mut parts: Vec<String> = file.trim_end_matches(".rs").split('/').map(String::from).collect();
    if matches!(parts.last().map(String::as_str), Some("mod" | "lib" | "main")) {
        parts.pop();
    }
    parts
}

/// The most particular room that holds this module path.
fn room_of<'a>(rooms: &'a [Room], module: &[String]) -> Option<&'a Room> {
    rooms
        .iter()
        .filter(|room| {
            let at: Vec<&str> = room.at.split('/').collect();
            module.len() >= at.len() && at.iter().zip(module).all(|(a, b)| *a == b.as_str())
        })
        .max_by_key(|room| room.at.len())
}

/// The path from the crate's root, if it is one of this crate (`crate`, `self`, `super`).
fn absolute(module: &[String], parts: &[String]) -> Option<Vec<String>> {
    let mut base = match parts[0].as_str() {
        "crate" => Vec::new(),
        "self" | "super" => module.to_vec(),
        _ => return None,
    };
    for part in parts.iter().skip(usize::from(parts[0] != "super")) {
        match part.as_str() {
            "super" => {
                base.pop();
            }
            name => base.push(name.into()),
        }
    }
    Some(base)
}

/// A path as written, groups spread out.
#[derive(Debug, PartialEq)]
struct Written {
    line: usize,
    parts: Vec<String>,
}

#[derive(Debug, Clone, PartialEq)]
struct Token {
    line: usize,
    text: String,
}

/// Every path of two parts or more, and every name that directly follows `use` or `extern crate`.
fn paths(tokens: &[Token]) -> Vec<Written> {
    let text = |at: usize| tokens.get(at).map_or("", |t| t.text.as_str());
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let begins = is_name(text(at)) && (at == 0 || !matches!(text(at - 1), "::" | "."));
        let named_alone = at > 0 && (text(at - 1) == "use" || (at > 1 && text(at - 2) == "extern"));
        let absolute = text(at) == "::" && (at == 0 || !(is_name(text(at - 1)) || text(at - 1) == ">"));
        if begins && (text(at + 1) == "::" || named_alone) {
            at = tree(tokens, at, &[], &mut found);
        } else if absolute && is_name(text(at + 1)) {
            at = tree(tokens, at + 1, &[], &mut found);
        } else {
            at += 1;
        }
    }
    found
}

/// Reads one path tree at `at`; answers where it ends.
fn tree(tokens: &[Token], mut at: usize, prefix: &[String], found: &mut Vec<Written>) -> usize {
    let text = |at: usize| tokens.get(at).map_or("", |t| t.text.as_str());
    let mut parts = prefix.to_vec();
    let line = tokens.get(at).map_or(0, |t| t.line);
    loop {
        match text(at) {
            "{" if !prefix.is_empty() || !parts.is_empty() => {
                at += 1;
                while at < tokens.len() && text(at) != "}" {
                    let next = tree(tokens, at, &parts, found);
                    at = next.max(at + 1);
                }
                return at + 1;
            }
            "self" if !prefix.is_empty() => at += 1,
            name if is_name(name) => {
                parts.push(name.into());
                at += 1;
            }
            _ => break,
        }
        match (text(at), text(at + 1)) {
            ("::", next) if is_name(next) || next == "{" => at += 1,
            _ => break,
        }
    }
    if parts.len() > prefix.len() || text(at.saturating_sub(1)) == "self" {
        found.push(Written { line, parts });
    }
    at
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Names, `::` and single marks, with their lines.
fn tokens(code: &str) -> Vec<Token> {
    let mut found = Vec::new();
    for (number, line) in code.lines().enumerate() {
        let mut rest = line.trim_start();
        while let Some(first) = rest.chars().next() {
            let length = if first.is_alphanumeric() || first == '_' {
                rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len())
            } else if rest.starts_with("::") {
                2
            } else {
                first.len_utf8()
            };
            let (token, after) = rest.split_at(length);
            found.push(Token { line: number + 1, text: token.into() });
            rest = after.trim_start();
        }
    }
    found
}

/// The code with in-file test modules blanked out; lines keep their numbers.
fn without_tests(code: &str) -> String {
    const MARK: &str = "#[cfg(test)]";
    let mut kept = String::new();
    let mut rest = code;
    while let Some(at) = rest.find(MARK) {
        let (before, marked) = rest.split_at(at);
        kept.push_str(before);
        let end = item_end(marked);
        kept.extend(marked[..end].chars().filter(|c| *c == '\n'));
        rest = &marked[end..];
    }
    kept + rest
}

/// Where the item at the beginning of `code` ends: after its closing brace, or its `;` if that comes first.
fn item_end(code: &str) -> usize {
    let mut depth = 0usize;
    for (at, c) in code.char_indices() {
        match c {
            ';' if depth == 0 => return at + 1,
            '{' => depth += 1,
            '}' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return at + 1;
                }
            }
            _ => {}
        }
    }
    code.len()
}

/// The text with comments, strings and character literals blanked out; lines keep their numbers.
fn code_only(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let after_name = kept.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let skip = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment(rest)
        } else if first == '"' {
            string(rest)
        } else if !after_name && (first == 'r' || rest.starts_with("br")) {
            raw_string(rest)
        } else if first == '\'' {
            character(rest)
        } else {
            0
        };
        let taken = if skip == 0 { first.len_utf8() } else { skip };
        if skip == 0 {
            kept.push(first);
        } else {
            kept.push(' ');
            kept.extend(rest[..taken].chars().filter(|c| *c == '\n'));
        }
        rest = &rest[taken..];
    }
    kept
}

fn block_comment(text: &str) -> usize {
    let mut depth = 0usize;
    let mut at = 0;
    while at < text.len() {
        if text[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if text[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

fn string(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Length of a raw string at the beginning of `text`; 0 if there is none.
fn raw_string(text: &str) -> usize {
    let body = text.trim_start_matches('b');
    let Some(body) = body.strip_prefix('r') else { return 0 };
    let hashes = body.len() - body.trim_start_matches('#').len();
    if !body[hashes..].starts_with('"') {
        return 0;
    }
    let close = format!("\"{}", "#".repeat(hashes));
    let opened = text.len() - body.len() + hashes + 1;
    text[opened..].find(&close).map_or(text.len(), |at| opened + at + close.len())
}

/// Length of a character literal at the beginning of `text`; 0 if it is a lifetime.
fn character(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    match chars.next() {
        Some((_, '\\')) => {
            chars.next();
            text[3..].find('\'').map_or(0, |at| 3 + at + 1)
        }
        Some(_) => chars.next().filter(|(_, c)| *c == '\'').map_or(0, |(at, _)| at + 1),
        None => 0,
    }
}

fn root() -> PathBuf {
    // Under cargo the package's folder is known; built by plain rustc, it is run from the repository.
    option_env!("CARGO_MANIFEST_DIR").map_or_else(|| PathBuf::from("."), |tests| Path::new(tests).join(".."))
}

fn relative(root: &Path, file: &Path) -> String {
    file.strip_prefix(root).unwrap_or(file).to_string_lossy().replace('\\', "/")
}

/// All Rust files below `folder`, in order.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() && !path.ends_with("target") && !path.ends_with("node_modules") {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

mod the_check_itself {
    //! The check is worth something only if it fails where it should.

    use super::{check, check_opening};

    #[track_caller]
    fn refuses(file: &str, text: &str, line: usize, what: &str) {
        let found = check(file, text);
        assert!(
            found.len() == 1 && found[0].line == line && found[0].what.contains(what),
            "{file} with {text:?}: wanted one finding on line {line} with {what:?}, got {found:?}"
        );
    }

    #[track_caller]
    fn takes(file: &str, text: &str) {
        assert_eq!(check(file, text), Vec::new(), "{file} with {text:?}");
    }

    #[test]
    fn rooms_of_one_layer_do_not_know_each_other() {
        refuses("engine/src/log/mod.rs", "//! Log.\nuse crate::store::Store;\n", 2, "`log` must not know `store`");
        refuses("engine/src/store/keys.rs", "fn f() -> crate::dataflow::Out { }", 1, "must not know `dataflow`");
        refuses("engine/src/model/ids.rs", "use crate::{\n  model::X,\n  time::Clock,\n};", 3, "know `time`");
        refuses("engine/src/sink/mod.rs", "use super::pipeline;", 1, "must not know `pipeline`");
        refuses("engine/src/log/rocks.rs", "use super::super::store::Store;", 1, "must not know `store`");
        refuses("engine/src/source/mod.rs", "use crate::log as l;", 1, "must not know `log`");
        takes("engine/src/pipeline/mod.rs", "use crate::{log::Log, store, dataflow::{Worker, merge}};");
        takes("engine/src/log/rocks.rs", "use super::Entry; use crate::model::{self, Timestamp};");
    }

    #[test]
    fn the_program_and_the_connectors_have_directions_too() {
        refuses("src/app/mod.rs", "use crate::api::router;", 1, "`app` must not know `api`");
        refuses("src/ingest/poll/mod.rs", "use crate::app::App;", 1, "`ingest` must not know `app`");
        refuses("src/sinks/topics/mod.rs", "use crate::ingest::poll::Syncs;", 1, "`sinks` must not know `ingest`");
        refuses("src/api/records.rs", "use crate::cli::Args;", 1, "`api` must not know `cli`");
        refuses("src/http/body.rs", "use crate::app::App;", 1, "`http` must not know `app`");
        refuses("connectors/src/webhooks/map.rs", "use crate::rest::source::X;", 1, "must not know `rest`");
        takes("connectors/src/webhooks/map.rs", "use crate::definition::Webhooks;");
        takes("src/cli/serve.rs", "use crate::{api, app::App};");
        takes("src/api/mod.rs", "use crate::http::error::Refusal;");
    }

    #[test]
    fn connectors_see_five_rooms_of_the_engine() {
        let file = "connectors/src/rest/source.rs";
        refuses(file, "use syncline_engine::{model::Change, store::Store};", 1, "connectors see the engine's");
        refuses(file, "use syncline_engine::Engine;", 1, "connectors see the engine's");
        refuses(file, "use syncline_engine as engine;", 1, "connectors see the engine's");
        takes(file, "use syncline_engine::{log, model::{Change, Via}, sink::Sink, source::*, time::Clock};");
        takes("src/app/mod.rs", "use syncline_engine::store::Table;");
    }

    #[test]
    fn one_door_per_third_party() {
        refuses("engine/src/pipeline/mod.rs", "use timely::progress::Timestamp;", 1, "`timely`");
        refuses("engine/src/log/memory.rs", "fn f(db: &rocksdb::DB) {}", 1, "`rocksdb`");
        refuses("engine/src/log/rocks_more.rs", "fn f(db: &::rocksdb::DB) {}", 1, "`rocksdb`");
        refuses("connectors/src/rest/source.rs", "use reqwest;", 1, "`reqwest`");
        refuses("src/cli/serve.rs", "let app = axum::Router::new();", 1, "`axum`");
        refuses("engine/src/store/mod.rs", "use tokio::sync::oneshot;", 1, "plain threads");
        takes("engine/src/log/rocks.rs", "use rocksdb::{DB, Options};");
        takes("src/api/mod.rs", "use axum::Router; use hyper_util::rt::TokioIo;");
    }

    #[test]
    fn values_of_the_store_are_read_in_one_place() {
        let file = "engine/src/store/marks.rs";
        refuses(file, "fn f() {\n self.db.get_cf(family, key); }", 2, "`Store::get`");
        refuses(file, "fn f() { self.db.raw_iterator_cf_opt(family, options); }", 1, "`Store::get`");
        refuses(file, "fn f() { snapshot.get_pinned_cf(family, key); }", 1, "`Store::get`");
        takes(file, "fn f() { self.get(family, key); found.get(0); fields.iter(); }");
        takes(file, "fn f() {}\n#[cfg(test)]\nmod tests { fn g() { db.get_cf(family, key); } }");
        takes("engine/src/store/values.rs", "fn f() { self.db.get_pinned_cf(family, key); }");
        takes("engine/src/store/check/tests.rs", "fn f() { db.iterator(start); }");
        takes("engine/src/log/rocks.rs", "fn f() { db.get_cf(family, key); }");
    }

    #[test]
    fn clocks_are_read_in_one_room() {
        refuses("engine/src/pipeline/run.rs", "let now = std::time::Instant::now();", 1, "clocks");
        refuses("connectors/src/http/client.rs", "let now = SystemTime::now();", 1, "clocks");
        takes("engine/src/time/clock.rs", "let now = std::time::SystemTime::now();");
    }

    #[test]
    fn comments_texts_and_tests_do_not_count() {
        takes("engine/src/log/mod.rs", "//! See `crate::store`.\n/* crate::store::X /* nested */ */ fn f() {}");
        takes(
            "engine/src/log/mod.rs",
            "const A: &str = \"crate::store::X\"; const B: char = '\"'; const C: char = '\\'';",
        );
        takes("engine/src/log/mod.rs", "const A: &str = r#\"a \" crate::store::X\"#; fn f<'a>(x: &'a str) {}");
        takes("engine/src/log/mod.rs", "fn f() {}\n#[cfg(test)]\nmod tests { use crate::store::X; fn g() { } }");
        refuses("engine/src/log/mod.rs", "#[cfg(test)]\nuse crate::model::X;\nuse crate::store::X;", 3, "know `store`");
        refuses("engine/src/log/mod.rs", "#[cfg(test)]\nmod t { fn g() { {} } }\nuse crate::store::X;", 3, "`store`");
    }

    #[test]
    fn a_file_opens_with_its_purpose() {
        assert!(check_opening("engine/src/a.rs", "use x;\n//! Late.\n").is_some());
        assert!(check_opening("engine/src/a.rs", "//! \n\nuse x;\n").is_some());
        assert!(check_opening("engine/src/a.rs", "//! What it is for.\n").is_none());
    }
}
