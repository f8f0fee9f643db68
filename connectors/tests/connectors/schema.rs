//! The JSON Schema of definition files, held against the parser.
//!
//! The files in `schema/` have every key of the format. A walk along them tells which keys, words, bounds and defaults the schema knows
//! at each place; the parser tells what it knows when it meets a key or a word that nobody knows. So whatever only one of the two has
//! fails here: a new key of the parser belongs in the schema, and in one of the files.

mod walk;

use super::definitions::lookup;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use syncline_connectors::config_text;
use syncline_connectors::definition::{Complaint, Definition, Parsed, parse};
use syncline_provider::{DefinitionOptions, Paging, definition};
use walk::{Met, Part, Schema};

/// A key or word that resembles none.
const UNHEARD_OF: &str = "zzzzzzzzzzzzzzzzzzzzzzzz";
/// The one map with keys that stand elsewhere in the file: names of partitions.
const CONNECTION: &str = "/$defs/connection";

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn files(name: &str, ending: &str) -> Vec<(String, String)> {
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(folder(name)).expect("a folder").map(|e| e.expect("an entry").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|e| e == ending));
    paths.sort();
    let read = |path: PathBuf| (path.display().to_string(), std::fs::read_to_string(&path).expect("text"));
    paths.into_iter().map(read).collect()
}

/// Why the schema refuses a text, if it does.
pub(super) fn refusal(text: &str) -> Option<String> {
    thread_local!(static SCHEMA: Schema = Schema::load());
    let document = config_text::parse("f.yaml", text).expect("YAML").to_json();
    SCHEMA.with(|schema| schema.refusal(&document))
}

/// Shipped definitions, as files of their own: one for each way to sign in.
pub(super) fn shipped() -> Vec<(String, String)> {
    let mut texts = Vec::new();
    for (name, text) in files("presets", "yaml") {
        let mut document = config_text::parse("f.yaml", &text).expect("YAML").to_json();
        document["source"] = json!("shipped");
        let auth = document["auth"].take();
        for way in auth.as_array().cloned().unwrap_or_else(|| vec![auth]) {
            let mut document = document.clone();
            document["auth"] = way;
            let headers = document["auth"].as_object_mut().and_then(|auth| auth.shift_remove("headers"));
            for (name, value) in headers.iter().filter_map(Value::as_object).flatten() {
                document["headers"][name] = value.clone();
            }
            texts.push((name.clone(), shown(&document)));
        }
    }
    assert!(texts.len() >= 10, "{} texts", texts.len());
    texts
}

/// The files that have every key.
fn full() -> Vec<(String, Value)> {
    let files = files("tests/connectors/schema", "yaml");
    assert!(files.len() >= 5, "the files are there");
    files.into_iter().map(|(name, text)| (name, config_text::parse("f.yaml", &text).expect("YAML").to_json())).collect()
}

fn read(document: &Value) -> Parsed {
    parse("f.yaml", &shown(document), &lookup)
}

/// A line for each value, so that a complaint's line tells which value it is about.
fn shown(document: &Value) -> String {
    serde_json::to_string_pretty(document).expect("JSON")
}

fn complaints(document: &Value) -> Vec<Complaint> {
    read(document).map_or_else(|complaints| complaints, |(_, warnings)| warnings)
}

fn with(document: &Value, path: &str, value: Value) -> Value {
    let mut changed = document.clone();
    *changed.pointer_mut(path).expect("a place of the document") = value;
    changed
}

/// The line of the value at `path`, if a scalar or nothing stands there.
fn line(document: &Value, path: &str) -> usize {
    let marked = shown(&with(document, path, json!(UNHEARD_OF)));
    marked.lines().position(|line| line.contains(UNHEARD_OF)).expect("the mark") + 1
}

/// What is complained about the value at `path` if `value` stands there.
fn about(document: &Value, path: &str, value: Value) -> Vec<Complaint> {
    let line = line(document, path);
    complaints(&with(document, path, value)).into_iter().filter(|complaint| complaint.line == line).collect()
}

/// The keys that the parser knows in the map at `path`; none if it takes any.
fn known(document: &Value, path: &str) -> Option<BTreeSet<String>> {
    let mut changed = document.clone();
    let map = changed.pointer_mut(path).and_then(Value::as_object_mut).expect("a map of the document");
    map.insert(UNHEARD_OF.to_owned(), Value::Null);
    let unknown = |c: &Complaint| c.code == "unknown_key" && c.message.contains(UNHEARD_OF);
    let hint = complaints(&changed).into_iter().find(unknown)?.hint?;
    Some(hint.strip_prefix("known keys: ")?.split(", ").map(str::to_owned).collect())
}

#[test]
fn the_schema_and_the_parser_know_the_same_keys() {
    let schema = Schema::load();
    let mut asked: BTreeMap<String, (Part<'_>, BTreeSet<String>)> = BTreeMap::new();
    let mut wrong = String::new();
    for (name, document) in &full() {
        for (path, part) in schema.walk(document).maps {
            match known(document, &path) {
                Some(keys) => asked.entry(part.at.clone()).or_insert((part, BTreeSet::new())).1.extend(keys),
                None if part.open() => {}
                None => _ = writeln!(wrong, "{name}{path}: any key may stand here, but {} is closed", part.at),
            }
        }
    }
    for (at, (part, keys)) in asked {
        let names = part.names();
        for key in keys.difference(&names) {
            let _ = writeln!(wrong, "the parser knows `{key}`, the schema does not: {at}");
        }
        for key in names.difference(&keys) {
            let _ = writeln!(wrong, "the schema knows `{key}`, the parser does not: {at}");
        }
        if part.open() && at != CONNECTION {
            let _ = writeln!(wrong, "{at} takes any key, the parser does not");
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

/// Without this the comparison would pass over what no file has.
#[test]
fn the_files_have_every_key_of_the_schema() {
    let schema = Schema::load();
    let documents = full();
    let mut met = BTreeSet::new();
    for (name, document) in &documents {
        assert!(read(document).is_ok(), "{name}: {:#?}", complaints(document));
        assert_eq!(schema.refusal(document), None, "{name}");
        met.extend(schema.walk(document).values.into_iter().map(|met| met.part.at));
    }
    let null = |part: &Part<'_>| schema.keyword(part, "type") == Some(&json!("null"));
    let missing = schema.keys().into_iter().filter(|part| !null(part) && !met.contains(&part.at));
    let missing: Vec<String> = missing.map(|part| part.at).collect();
    assert!(missing.is_empty(), "in no file: {missing:#?}");
}

#[test]
fn every_key_is_described() {
    let schema = Schema::load();
    let keys = schema.keys().into_iter();
    let bare: Vec<String> = keys.filter(|k| schema.keyword(k, "description").is_none()).map(|k| k.at).collect();
    assert!(bare.is_empty(), "{bare:#?}");
}

/// The words a complaint offers: `one of a, b is wanted`, `a, b or c`.
fn offered(complaint: &Complaint) -> BTreeSet<String> {
    let list = |text: &&str| text.contains(" is wanted") || text.contains(" must be ");
    let said = Some(complaint.message.as_str()).filter(list).or(complaint.hint.as_deref()).unwrap_or_default();
    let said = ["; one of ", " is wanted", " or ", " must be ", "known presets: "]
        .iter()
        .fold(said.to_owned(), |said, joint| said.replace(joint, "; "));
    let word =
        |text: &&str| !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    said.split([',', ';']).map(str::trim).filter(word).map(str::to_owned).collect()
}

#[test]
fn the_schema_and_the_parser_know_the_same_words() {
    let schema = Schema::load();
    let mut wrong = String::new();
    for (name, document) in &full() {
        for Met { path, words, part } in schema.walk(document).values {
            let scalar = document.pointer(&path).is_some_and(|value| !value.is_object() && !value.is_array());
            if words.is_empty() || !scalar {
                continue;
            }
            let offers: Vec<_> = about(document, &path, json!(UNHEARD_OF)).iter().map(offered).collect();
            if !offers.contains(&words) {
                let _ = writeln!(wrong, "{name}{path}: {} has {words:?}, the parser offers {offers:?}", part.at);
            }
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

#[test]
fn the_schema_and_the_parser_have_the_same_bounds() {
    let schema = Schema::load();
    let mut wrong = String::new();
    let mut compared = 0;
    for (name, document) in &full() {
        for Met { path, part, .. } in schema.walk(document).values {
            let bound = |name: &str| schema.keyword(&part, name).and_then(Value::as_u64);
            let said = about(document, &path, json!(-1)).into_iter().find(|c| c.message.ends_with(" is allowed"));
            let Some(said) = said else { continue };
            compared += 1;
            let (from, to) = (bound("minimum").unwrap_or(0), bound("maximum").unwrap_or(u64::MAX));
            if !said.message.ends_with(&format!("; {from} to {to} is allowed")) {
                let _ = writeln!(wrong, "{name}{path}: {} has {from} to {to}; {}", part.at, said.message);
            }
        }
    }
    assert!(compared >= 15 && wrong.is_empty(), "{compared} compared\n{wrong}");
}

/// What a definition says, whatever text it was read from; or what is wrong with it.
fn meaning(document: &Value) -> Result<String, Vec<String>> {
    match read(document) {
        Ok((definition, _)) => Ok(format!("{:?}", Definition { hash: String::new(), text: "".into(), ..definition })),
        Err(complaints) => Err(complaints.into_iter().map(|c| format!("{} {}", c.code, c.message)).collect()),
    }
}

#[test]
fn a_default_says_the_same_as_a_key_that_is_left_out() {
    let schema = Schema::load();
    for (name, document) in &full() {
        for Met { path, part, .. } in schema.walk(document).values {
            let Some(default) = schema.keyword(&part, "default") else { continue };
            let (map, key) = path.rsplit_once('/').expect("a key");
            let mut without = document.clone();
            without.pointer_mut(map).and_then(Value::as_object_mut).expect("a map").shift_remove(key);
            let written = with(document, &path, default.clone());
            let same = meaning(&written) == meaning(&without);
            assert!(same, "{name}{path}: a key that is left out does not mean {default}");
        }
    }
}

/// Every value of the files is replaced by values of other kinds: the schema accepts what the parser accepts, and refuses what the
/// parser calls a wrong type.
#[test]
fn the_schema_refuses_wrong_types_and_nothing_that_the_parser_accepts() {
    const TYPES: [&str; 4] = ["bad_type", "unknown_key", "bad_duration", "bad_size"];
    let schema = Schema::load();
    let mut tried = BTreeSet::new();
    let mut wrong = String::new();
    for (_, document) in &full() {
        for Met { path, part, .. } in
            schema.walk(document).values.into_iter().filter(|met| tried.insert(met.part.at.clone()))
        {
            let line = line(document, &path);
            for value in [json!(null), json!(5), json!(true), json!("!"), json!([]), json!({})] {
                let changed = with(document, &path, value.clone());
                let (refused, read) = (schema.refusal(&changed), read(&changed));
                let of_type = |c: &&Complaint| c.line == line && TYPES.contains(&c.code);
                match (refused, read) {
                    (Some(why), Ok(_)) => _ = writeln!(wrong, "{} refuses {value} at {path}: {why}", part.at),
                    (None, Err(said)) => {
                        for complaint in said.iter().filter(of_type) {
                            let _ = writeln!(wrong, "{} accepts {value} at {path}: {complaint}", part.at);
                        }
                    }
                    _ => {}
                }
            }
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

/// Where a value itself counts, and not its text.
const NO_REFERENCES: [&str; 3] =
    ["/properties/format", "/reply/properties/status", "/guard/anyOf/2/properties/max_fraction"];

#[test]
fn references_may_stand_for_any_scalar() {
    let schema = Schema::load();
    for (name, document) in &full() {
        for Met { path, part, .. } in schema.walk(document).values {
            let own = document.pointer(&path).is_some_and(|value| value.is_object() || value.is_array());
            if own || NO_REFERENCES.iter().any(|place| part.at.ends_with(place)) {
                continue;
            }
            for reference in ["env:NAME_1", "file:some file"] {
                let refused = schema.refusal(&with(document, &path, json!(reference)));
                assert_eq!(refused, None, "{name}{path}: {reference}: {}", part.at);
            }
        }
    }
}

#[test]
fn what_is_shipped_and_documented_is_accepted() {
    let documented = files("../docs", "md").into_iter().flat_map(|(name, text)| {
        let fences = text.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
        let whole = fences.filter(|text| text.starts_with("source:"));
        whole.map(|text| (name.clone(), text.to_owned())).collect::<Vec<_>>()
    });
    let documented: Vec<_> = documented.collect();
    assert!(documented.len() >= 3, "{} texts", documented.len());
    let ours = ["octokit/github.yaml", "pocketbase/tasks.yaml"].map(|name| format!("../tests/interop/{name}"));
    let ours = ours.map(|name| (name.clone(), std::fs::read_to_string(folder(&name)).expect("text")));
    let fake = [Paging::Cursor, Paging::Page, Paging::Offset, Paging::Link].map(|paging| {
        let options = DefinitionOptions { paging, incremental: true, ..DefinitionOptions::new("https://a.example") };
        ("the fake provider".to_owned(), definition(&options))
    });
    for (name, text) in shipped().into_iter().chain(documented).chain(ours).chain(fake) {
        assert_eq!(refusal(&text), None, "{name}\n{text}");
        let text = text.replace("http://POCKETBASE", "https://a.example");
        let read = parse("f.yaml", &text, &|_| Ok("secret-of-somebody".into()));
        assert!(read.is_ok(), "{name}\n{text}\n{:?}", read.err());
    }
}

/// A code, and what is changed in a good file.
const REFUSED: &[(&str, &str)] = &[
    ("unknown_key", "lists: {}"),
    ("unknown_key", "limits: {concurency: 3}"),
    ("unknown_key", "limits: {retry: {times: 3}}"),
    ("unknown_key", "auth: {type: bearer, username: a}"),
    ("unknown_key", "auth: {type: none, prefix: a}"),
    ("unknown_key", "partitions: {a: {values: [b], only: changed}}"),
    ("unknown_key", "connections: {me: {credentials: {secret: env:A}}}"),
    ("unknown_key", "streams: [{name: Thing, key: .id, list: {get: /a, limit: 5}}]"),
    ("unknown_key", "streams: [{name: Thing, key: .id, list: {get: /a, window: {}}}]"),
    ("unknown_key", "streams: [{name: Thing, key: .id, list: {get: /a, paginate: {page: page, limit: a}}}]"),
    ("unknown_key", "streams: [{name: Thing, key: .id, list: {get: /a}, schedule: {every: 5m, at: 3}}]"),
    ("unknown_key", "streams: [{name: Thing, key: .id, list: {get: /a}, deletes: [{flag: .a, confirm: none}]}]"),
    (
        "unknown_key",
        "webhooks: {scope: connection, verify: {scheme: none, header: A}, map: [{stream: Thing, record: .}]}",
    ),
    (
        "unknown_key",
        "webhooks: {scope: connection, verify: {scheme: none}, map: [{stream: Thing, record: ., hydrated: now}]}",
    ),
    ("bad_type", "title: [a]"),
    ("bad_type", "headers: [a]"),
    ("bad_type", "limits: {concurrency: many}"),
    ("bad_type", "limits: {conditional: \"yes\"}"),
    ("bad_type", "connections: [me]"),
    ("bad_type", "streams: {Thing: {}}"),
    ("bad_type", "streams: [{name: Thing, key: {a: b}, list: {get: /a}}]"),
    ("bad_type", "streams: [{name: Thing, key: .id, list: /a}]"),
    ("bad_type", "streams: [{name: Thing, key: .id, list: {get: /a}, deletes: {from_full_list: true}}]"),
    ("bad_type", "streams: [{name: Thing, key: .id, list: {get: /a}, map: [a]}]"),
    ("bad_duration", "timeout: 30"),
    ("bad_duration", "timeout: 1.5h"),
    ("bad_duration", "streams: [{name: Thing, key: .id, list: {get: /a}, schedule: \"5\"}]"),
    ("bad_size", "limits: {max_response: 5MB}"),
    ("bad_backoff", "limits: {retry: {backoff: 10s}}"),
    ("bad_status", "limits: {retry: {status: [3xx]}}"),
    ("bad_match", "limits: {rate: [{match: FETCH /a, limit: 1, per: 1s}]}"),
    ("bad_action", "responses: [{status: 404, do: stop}]"),
    ("out_of_range", "limits: {concurrency: 65}"),
    ("unknown_auth", "auth: {type: digest}"),
    ("not_in_this_release", "run: script"),
    ("unknown_preset", "preset: gihtub"),
    ("unsupported_format", "format: 2"),
    ("bad_url", "base_url: a.example"),
    ("bad_name", "source: two words"),
    ("bad_name", "streams: [{name: thing, key: .id, list: {get: /a}}]"),
    ("bad_name", "partitions: {two words: {values: [a]}}"),
    ("bad_header", "headers: {two words: a}"),
    ("bad_value", "streams: [{name: Thing, key: .id, list: {get: /a}, merge: newest}]"),
    ("bad_value", "streams: [{name: Thing, key: .id, list: {get: /a, paginate: {page: page, in: header}}}]"),
    (
        "bad_value",
        "streams: [{name: Thing, key: .id, list: {get: /a}, deletes: [{from_full_list: true, confirm: thrice}]}]",
    ),
    ("literal_secret", "auth: {type: bearer, token: abc}"),
    ("literal_secret", "{auth: {type: bearer}, connections: {me: {token: abc}}}"),
    (
        "literal_secret",
        "webhooks: {scope: connection, verify: {preset: github, secret: abc}, map: [{stream: Thing, record: .}]}",
    ),
    ("missing_key", "source: null"),
    ("missing_key", "streams: []"),
    ("missing_key", "streams: [{name: Thing, list: {get: /a}}]"),
    ("missing_key", "streams: [{name: Thing, key: .id, list: {items: .a}}]"),
    ("missing_key", "auth: {token: env:A}"),
    ("missing_key", "limits: {rate: [{limit: 3}]}"),
    ("missing_key", "partitions: {a: {max: 3}}"),
    ("unknown_stream", "streams: [Thing]"),
    ("unverified", "webhooks: {scope: connection, map: [{stream: Thing, record: .}]}"),
];

#[test]
fn what_is_wrong_is_refused_by_both() {
    let good = json!({"source": "s", "base_url": "https://a.example",
        "streams": [{"name": "Thing", "key": ".id", "list": {"get": "/a"}}]});
    assert!(read(&good).is_ok());
    for (code, change) in REFUSED {
        let mut document = good.clone();
        let change = config_text::parse("f.yaml", change).expect("YAML").to_json();
        for (key, value) in change.as_object().expect("a map") {
            document[key] = value.clone();
        }
        let said = read(&document).expect_err("the parser refuses it");
        assert!(said.iter().any(|c| c.code == *code), "{change}: {said:#?}");
        assert!(Schema::load().refusal(&document).is_some(), "the schema accepts {change}");
    }
}

/// A file that names a preset says only what differs.
#[test]
fn what_a_preset_brings_need_not_be_written() {
    for text in [
        "{source: s, preset: github}",
        "{source: s, preset: github, webhooks: null, auth: {test: null}, streams: [{name: Issue, list: {params: {a: b}}}]}",
        "{source: s, preset: github, webhooks: {verify: {secret: env:A}}, partitions: {repo: {metadata: null, values: [a/b]}}}",
        "{source: s, preset: github, streams: [Issue, {name: Issue2, key: .id, list: {get: /a}}]}",
    ] {
        assert_eq!(refusal(text), None, "{text}");
        let read = parse("f.yaml", text, &lookup);
        assert!(read.is_ok(), "{text}: {:?}", read.err());
    }
}
