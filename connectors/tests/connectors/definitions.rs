//! Definitions through the public door: whole examples, and one golden file for every complaint.
//!
//! Each `tests/connectors/definitions/NAME.yaml` has a `NAME.txt` with the complaints it must bring, as people see them. Run with
//! `UPDATE_GOLDEN=1` to write the `.txt` files anew; read the difference before committing it.

use super::schema::{refusal, shipped};
use proptest::prelude::*;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use syncline_connectors::config_text::{self, Reference};
use syncline_connectors::definition::*;
use syncline_provider::{DefinitionOptions, Paging, definition};

/// Every reference that does not say MISSING resolves.
pub(super) fn lookup(reference: &Reference) -> Result<String, String> {
    match reference {
        Reference::Env(name) if name.contains("MISSING") => Err("the environment variable is not set".into()),
        Reference::Env(name) if name.contains("WHSEC") => Ok("whsec_c2VjcmV0".into()),
        Reference::Env(name) if name.contains("BLANK") => Ok("  ".into()),
        Reference::Env(name) if name.contains("HUNDRED") => Ok("100".into()),
        Reference::Env(name) => Ok(format!("value-of-{name}")),
        Reference::File(path) if path.ends_with("good.schema.json") => Ok(r#"{"type": "object"}"#.into()),
        Reference::File(path) if path.ends_with("broken.json") => Ok("{".into()),
        Reference::File(_) => Err("No such file".into()),
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/connectors/definitions")
}

fn parsed(text: &str) -> Definition {
    match parse("source.yaml", text, &lookup) {
        Ok((definition, _)) => {
            assert_eq!(refusal(text), None, "{text}");
            definition
        }
        Err(complaints) => panic!("{}", shown(&complaints)),
    }
}

fn shown(complaints: &[Complaint]) -> String {
    let mut text = String::new();
    for complaint in complaints {
        let _ = writeln!(text, "{complaint}");
    }
    text
}

/// What a file brings, as its golden file holds it. Whatever is accepted, the schema accepts as well.
fn outcome(name: &str, text: &str) -> String {
    match parse(name, text, &lookup) {
        Ok((_, warnings)) => {
            assert_eq!(refusal(text), None, "{text}");
            format!("{}accepted\n", shown(&warnings))
        }
        Err(complaints) => shown(&complaints),
    }
}

#[test]
fn golden_complaints() {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut names: Vec<PathBuf> = std::fs::read_dir(folder())
        .expect("folder")
        .map(|entry| entry.expect("entry").path())
        .filter(|path| path.extension().is_some_and(|e| e == "yaml" || e == "json"))
        .collect();
    names.sort();
    assert!(names.len() >= 15, "the golden files are there");
    let mut differences = String::new();
    for path in names {
        let name = path.file_name().expect("name").to_string_lossy().into_owned();
        let found = outcome(&name, &std::fs::read_to_string(&path).expect("text"));
        let golden = path.with_extension("txt");
        if update {
            std::fs::write(&golden, &found).expect("written");
            continue;
        }
        let wanted = std::fs::read_to_string(&golden).unwrap_or_default();
        if found != wanted {
            let _ = writeln!(differences, "{name}:{}", difference(&wanted, &found));
        }
    }
    assert!(differences.is_empty(), "\n{differences}");
}

fn difference(wanted: &str, found: &str) -> String {
    let mut text = String::new();
    for line in wanted.lines().filter(|l| !found.lines().any(|f| f == *l)) {
        let _ = write!(text, "\n  - {line}");
    }
    for line in found.lines().filter(|l| !wanted.lines().any(|w| w == *l)) {
        let _ = write!(text, "\n  + {line}");
    }
    if text.is_empty() { "\n  the same lines in another order or number".into() } else { text }
}

/// Every complaint code the documentation lists is brought by some golden file, and the other way round.
#[test]
fn every_code_is_documented_and_tested() {
    let mut golden = String::new();
    for entry in std::fs::read_dir(folder()).expect("folder") {
        let path = entry.expect("entry").path();
        if path.extension().is_some_and(|e| e == "txt") {
            golden.push_str(&std::fs::read_to_string(path).expect("text"));
        }
    }
    let tested: std::collections::BTreeSet<&str> = golden
        .lines()
        .filter(|l| !l.starts_with(' ') && l.contains(':'))
        .filter_map(|l| l.split_whitespace().find(|w| !w.contains(':') && *w != "warning"))
        .collect();
    let docs =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/definitions.md")).expect("docs");
    let codes = docs.split("<!-- codes -->").nth(1).expect("a list of codes");
    let documented: std::collections::BTreeSet<&str> =
        codes.lines().filter_map(|l| l.strip_prefix("| `")?.split('`').next()).collect();
    let only_tested: Vec<_> = tested.difference(&documented).collect();
    // A file beyond 1 MiB is no golden file; the reader has a test of its own for it.
    let only_documented: Vec<_> = documented.difference(&tested).filter(|c| **c != "too_large").collect();
    assert!(only_tested.is_empty(), "not documented: {only_tested:?}");
    assert!(only_documented.is_empty(), "not tested: {only_documented:?}");
}

const CONTACTS: &str = include_str!("definitions/contacts.yaml");
const ISSUES: &str = include_str!("definitions/issues.yaml");
const SMALLEST: &str = "
source: github
preset: github
connections: {me: {token: \"env:GITHUB_TOKEN\", webhook_secret: \"env:HOOK\", repo: [octo/hello]}}
streams: [Issue]
";

#[test]
fn contacts_are_read_in_full() {
    let contacts = parsed(CONTACTS);
    assert_eq!(contacts.source, "crm");
    let limits = &contacts.limits;
    assert_eq!(limits.rate.len(), 2);
    assert_eq!(limits.rate[0].matches, Some((Some("POST".into()), "*/search".into())));
    assert!(limits.retry_status.has(503) && limits.retry_status.network && !limits.retry_status.has(408));
    assert_eq!((limits.retry.from, limits.retry.to), (Duration::from_secs(3), Duration::from_secs(600)));
    let stream = contacts.stream("Contact").expect("stream");
    assert_eq!(stream.merge, syncline_engine::model::Strategy::Latest);
    assert_eq!(stream.schedule.tick, Tick::Every(Duration::from_secs(300)));
    assert_eq!(stream.schedule.full, Some(Tick::Cron("0 3 * * 0".into())));
    assert_eq!(stream.schedule.jitter, Duration::from_secs(30));
    let incremental = stream.incremental.as_ref().expect("incremental");
    assert_eq!((incremental.request.method.as_str(), incremental.split_at), ("POST", Some(10_000)));
    assert!(incremental.request.uses_since && incremental.request.uses_until);
    assert!(incremental.request.params.is_empty(), "a path of its own takes nothing from list");
    assert!(matches!(&incremental.request.paginate, Paginate::Cursor { place: ParameterPlace::Body, .. }));
    assert_eq!(stream.list.as_ref().expect("list").params.len(), 2);
    assert!(matches!(&stream.map, Map::Fields(fields) if fields.len() == 5));
    assert_eq!(stream.deletes.listings.len(), 1);
    assert_eq!(stream.deletes.from_full_list, Some(ConfirmRule::Auto));
    assert_eq!(stream.deletes.guard, Some(Guard { max_fraction: 0.1, min_count: 50 }));
    let webhooks = contacts.webhooks.as_ref().expect("webhooks");
    assert_eq!(webhooks.route.as_ref().map(|r| r.field.as_str()), Some("portalId"));
    assert_eq!(webhooks.map.len(), 3);
    assert!(matches!(&webhooks.map[0].effect, WebhookEffect::Patch(patch) if patch.len() == 1));
    let debounce = Hydrate::Debounce { quiet: Duration::from_secs(10), max_wait: Duration::from_secs(60) };
    assert_eq!(webhooks.map[0].hydrate, debounce);
    assert_eq!(webhooks.map[2].effect_name(), "delete");
}

/// What the effect is, for comparisons.
trait EffectName {
    fn effect_name(&self) -> &'static str;
}

impl EffectName for WebhookMap {
    fn effect_name(&self) -> &'static str {
        match self.effect {
            WebhookEffect::Nothing => "nothing",
            WebhookEffect::Record(_) => "record",
            WebhookEffect::Patch(_) => "patch",
            WebhookEffect::Delete => "delete",
        }
    }
}

fn names(request: &Request) -> Vec<&str> {
    request.params.iter().map(|(name, _)| name.as_str()).collect()
}

#[test]
fn issues_are_read_in_full() {
    let issues = parsed(ISSUES);
    let stream = issues.stream("Issue").expect("stream");
    let list = stream.list.as_ref().expect("list");
    let incremental = &stream.incremental.as_ref().expect("incremental").request;
    assert_eq!(names(list), ["state", "sort", "direction", "per_page"]);
    assert_eq!(names(incremental), ["state", "sort", "direction", "per_page", "since"]);
    assert_eq!((list.partitions.as_slice(), list.uses_since), (&["repo".to_owned()][..], false));
    assert!(incremental.uses_since && incremental.filter.is_some());
    assert_eq!(list.headers.len(), 2, "headers of the source are laid in");
    assert!(matches!(&list.paginate, Paginate::LinkHeader { rel } if rel == "next"));
    let webhooks = issues.webhooks.as_ref().expect("webhooks");
    assert!(webhooks.per_connection && webhooks.verify.per_connection_secret && webhooks.verify.secrets.is_empty());
    assert!(matches!(&webhooks.verify.scheme, Scheme::Hmac(h) if h.header == "x-hub-signature-256"));
    let effects: Vec<_> = webhooks.map.iter().map(|m| m.effect_name()).collect();
    assert_eq!(effects, ["delete", "record", "nothing", "nothing", "nothing"]);
}

#[test]
fn the_preset_means_the_same_as_the_long_form() {
    let (short, long) = (parsed(SMALLEST), parsed(ISSUES));
    let show = |d: &Definition| {
        let requests = format!("{:?}", d.streams);
        format!("{requests}\n{:?}\n{:?}\n{:?}", d.webhooks, d.limits, d.headers)
    };
    assert_eq!(show(&short), show(&long));
    assert_eq!(short.preset.as_deref(), Some("github"));
    let me = &short.connections[0];
    assert_eq!(me.partitions.get("repo"), Some(&vec!["octo/hello".to_owned()]));
    assert_eq!(me.credentials.get("token"), Some(&serde_json::json!("value-of-GITHUB_TOKEN")));
    assert_ne!(short.hash, long.hash);
}

/// Of what a preset brings nothing is complained about in the file that names it: so the preset itself is read here.
#[test]
fn what_is_shipped_has_nothing_without_effect() {
    let fake = |paging, incremental, secret: Option<&str>| {
        let options = DefinitionOptions {
            paging,
            incremental,
            webhook_secret: secret.map(str::to_owned),
            ..DefinitionOptions::new("https://a.example")
        };
        definition(&options)
    };
    let mut files: Vec<String> = shipped().into_iter().map(|(_, text)| text).collect();
    for paging in [Paging::Cursor, Paging::Page, Paging::Offset, Paging::Link] {
        files.push(fake(paging, true, Some("env:HOOK")));
        files.push(fake(paging, false, None));
    }
    files.push(
        include_str!("../../../tests/interop/pocketbase/tasks.yaml").replace("http://POCKETBASE", "https://a.example"),
    );
    for text in files {
        match parse("shipped.yaml", &text, &|_| Ok("secret-of-somebody".into())) {
            Ok((_, warnings)) => {
                let idle: Vec<_> = warnings.into_iter().filter(|w| w.code != "conditional_with_until").collect();
                assert!(idle.is_empty(), "{text}\n{}", shown(&idle));
            }
            Err(complaints) => panic!("{text}\n{}", shown(&complaints)),
        }
    }
}

#[test]
fn every_preset_is_read_by_each_of_its_ways_to_sign_in_and_stands_in_the_docs() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/presets.md");
    let docs = std::fs::read_to_string(docs).expect("docs");
    let mut ways = Vec::new();
    for name in presets() {
        let usual = parsed(&format!("{{source: s, preset: {name}}}"));
        assert!(!usual.about.categories.is_empty() && usual.about.docs.is_some() && usual.title.is_some(), "{name}");
        let streams: Vec<&str> = usual.streams.iter().map(|stream| stream.name.as_str()).collect();
        let row = docs.lines().find(|line| line.starts_with(&format!("| `{name}` |")));
        let row = row.unwrap_or_else(|| panic!("docs/presets.md has no row of {name}"));
        assert!(streams.iter().all(|stream| row.contains(&format!("`{stream}`"))), "{row}: {streams:?}");
        let known = preset_sign_ins(name);
        assert!(!known.is_empty(), "{name}");
        for way in known {
            let text = format!("{{source: s, preset: {name}, auth: {{type: {way}}}}}");
            match parse("s.yaml", &text, &lookup) {
                Ok((_, warnings)) => assert!(warnings.is_empty(), "{name} {way}\n{}", shown(&warnings)),
                Err(complaints) => panic!("{name} {way}\n{}", shown(&complaints)),
            }
            assert!(row.contains(&format!("`{way}`")), "{row}: {way}");
            ways.push(way);
        }
    }
    assert!(preset_sign_ins("nobody").is_empty() && ways.len() >= 10);
}

#[test]
fn of_a_way_to_sign_in_that_a_preset_does_not_know_it_brings_the_proof() {
    let text = "{source: s, preset: slack, auth: {type: api_key, name: X-Key}}";
    let slack = parsed(text);
    assert!(matches!(&slack.auth.kind, AuthKind::ApiKey { name, .. } if name == "X-Key"));
    assert!(slack.auth.test.is_some() && slack.auth.connection_fields[0].0 == "team_id");
}

#[test]
fn events_of_streams_that_a_file_does_not_take_are_acknowledged() {
    let some = parsed("{source: s, preset: slack, streams: [User]}");
    let all = parsed("{source: s, preset: slack}");
    let (some, all) = (some.webhooks.expect("webhooks").map, all.webhooks.expect("webhooks").map);
    assert_eq!(some.len(), all.len());
    let takes = |map: &[WebhookMap]| map.iter().map(|entry| entry.stream.clone()).collect::<Vec<_>>();
    let user = Some("User".to_owned());
    assert_eq!(takes(&some), [None, user, None, None]);
    assert_eq!(takes(&all)[3], Some("Channel".to_owned()));
}

#[test]
fn a_file_changes_its_preset() {
    let text = "{source: gh, preset: github, limits: {concurrency: 3}, headers: {Accept: null},
        streams: [{name: Issue, schedule: 10m, map: {id: .id}}]}";
    let changed = parsed(text);
    assert_eq!((changed.source.as_str(), changed.limits.concurrency), ("gh", 3));
    assert!(changed.limits.conditional, "what is not written stays");
    let stream = changed.stream("Issue").expect("stream");
    assert_eq!(stream.schedule.tick, Tick::Every(Duration::from_secs(600)));
    assert_eq!(stream.list.as_ref().expect("list").headers.len(), 1, "null removes a header");
}

#[test]
fn null_means_the_same_as_leaving_a_key_out() {
    parsed("{source: s, preset: null, base_url: null, streams: [{name: Thing, key: .id, topic: {name: t}}]}");
    parsed(
        "{source: s, base_url: \"https://a.example\", streams: [{name: Thing, key: .id, list: {get: /a, form: null}}]}",
    );
}

#[test]
fn the_inner_level_wins() {
    let text = "
source: s
base_url: https://a.example
headers: {X-A: source, X-B: source}
params: {p: source}
responses: [{status: 404, do: ignore}]
streams:
  - name: Thing
    key: .id
    headers: {x-a: stream}
    params: {q: stream}
    responses: [{status: 410, do: skip}]
    list: {get: /things, headers: {X-B: null}, params: {q: request}, responses: [{status: 500, do: fail}], timeout: 5s}
    fetch: {get: \"/things/{{ key }}\"}
";
    let inner = parsed(text);
    let stream = inner.stream("Thing").expect("stream");
    let list = stream.list.as_ref().expect("list");
    let show = |r: &Request| {
        r.headers.iter().map(|(k, v)| format!("{k}={}", v.as_literal().unwrap_or("?"))).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(show(list), "x-a=stream");
    assert_eq!(show(&stream.fetch.as_ref().expect("fetch").request), "x-a=stream X-B=source");
    assert_eq!(names(list), ["p", "q"]);
    let actions: Vec<ResponseAction> = list.responses.iter().map(|r| r.action).collect();
    assert_eq!(actions, [ResponseAction::Fail, ResponseAction::Skip, ResponseAction::Ignore]);
    assert_eq!(
        (list.timeout, stream.fetch.as_ref().expect("fetch").request.timeout),
        (Duration::from_secs(5), Duration::from_secs(30))
    );
}

#[test]
fn defaults_are_those_of_the_documentation() {
    let small =
        parsed("{source: s, base_url: \"https://a.example\", streams: [{name: Thing, key: .id, list: {get: /t}}]}");
    let stream = &small.streams[0];
    assert_eq!(stream.merge, syncline_engine::model::Strategy::IgnoreIfModifiedAfter);
    assert_eq!(stream.schedule.tick, Tick::Every(Duration::from_secs(3_600)));
    assert_eq!(stream.deletes.guard, Some(Guard { max_fraction: 0.25, min_count: 100 }));
    assert_eq!((small.limits.concurrency, small.limits.retry.max, small.limits.max_response), (4, 8, 64 << 20));
    assert!(
        small.limits.retry_status.has(429) && small.limits.retry_status.has(599) && !small.limits.retry_status.has(403)
    );
    assert_eq!(stream.sync, "Thing");
    assert!(matches!(stream.map, Map::Same) && small.webhooks.is_none());
}

#[test]
fn references_may_stand_for_any_scalar() {
    let text = "{source: s, base_url: \"https://a.example\", limits: {concurrency: \"env:HUNDRED\"}, streams: [{name: Thing, key: .id, list: {get: /t, params: {size: \"env:HUNDRED\"}}}]}";
    let complaints = parse("f.yaml", text, &lookup).map(|_| ()).expect_err("100 is too much");
    assert_eq!(complaints.iter().map(|c| c.code).collect::<Vec<_>>(), ["out_of_range"]);
}

#[test]
fn complaints_do_not_repeat_what_references_hold() {
    let text = "{source: s, base_url: \"env:SECRET_URL\", streams: [{name: Thing, key: .id, merge: \"env:MERGE_WORD\", list: {get: /t}}]}";
    let found = outcome("f.yaml", text);
    assert!(found.contains("bad_url") && found.contains("***") && !found.contains("value-of-"), "{found}");
}

fn safe(text: &str) {
    // Whatever the text, an answer comes back and can be shown.
    let _ = outcome("f.yaml", text);
    let _ = config_text::parse("f.yaml", text);
}

proptest! {
    #[test]
    fn any_text_brings_an_answer(text in "\\PC{0,300}") {
        safe(&text);
    }

    #[test]
    fn any_yaml_like_text_brings_an_answer(text in "[-a-z:{}\\[\\],&*!|>'\"#%@` \n\t?~0-9.\\\\]{0,200}") {
        safe(&text);
    }

    #[test]
    fn damaged_files_bring_an_answer(
        which in 0usize..3,
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0usize..12, "[-a-z:{}\\[\\],&*!|>'\"#. \n$()0-9]{0,6}"), 1..6),
    ) {
        let mut text = [CONTACTS, ISSUES, SMALLEST][which].to_owned();
        for (at, cut, put) in edits {
            let bytes: Vec<usize> = text.char_indices().map(|(i, _)| i).collect();
            if bytes.is_empty() { break; }
            let from = *at.get(&bytes);
            let to = bytes.iter().copied().find(|i| *i >= from + cut).unwrap_or(text.len());
            text.replace_range(from..to, &put);
        }
        safe(&text);
    }

    #[test]
    fn any_expression_brings_an_answer(text in "[-.a-z|\\[\\](){}$,;:\"/\\\\0-9+*?= ]{0,60}") {
        if let Ok(expr) = syncline_connectors::expr::Expr::compile(&text) {
            let input = serde_json::json!({"a": [1, {"b": "x"}], "c": null});
            let _ = expr.all(&input, &Default::default());
        }
        if let Ok(template) = syncline_connectors::expr::Template::compile(&text) {
            let _ = template.url_path(&Default::default());
        }
    }
}

/// Examples of the documentation that are whole but for the head of their file.
#[test]
fn the_documented_streams_are_good() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/definitions.md");
    let docs = std::fs::read_to_string(docs).expect("docs");
    let blocks = docs.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
    let wanted: Vec<&str> = blocks.filter(|block| block.starts_with("streams:\n  - name: Subscription")).collect();
    assert_eq!(wanted.len(), 1, "the example of objects without a modified time");
    let text = format!("source: s\nbase_url: https://a.example\n{}", wanted[0]);
    assert_eq!(outcome("docs.yaml", &text), "accepted\n", "{text}");
}
