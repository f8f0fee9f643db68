//! The command line as people and scripts meet it: the real program, its output and its exit codes.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use syncline::connectors::config_text;
use syncline::connectors::definition::{parse, presets};
use syncline::connectors::http::{Client, ClientOptions};
use syncline::engine::time::SystemClock;
use syncline_provider::github::{GitHub, GitHubOptions};
use syncline_provider::{DefinitionOptions, Edit, Fake, FakeOptions, Notify, definition, webhooks::ClientCourier};
use tempfile::TempDir;

#[cfg(feature = "functions")]
#[path = "cli/functions.rs"]
mod functions;
#[cfg(feature = "functions")]
#[path = "cli/functions_page.rs"]
mod functions_page;

/// 32 characters and more, as the server demands.
const KEY: &str = "an-api-key-for-the-tests-of-the-cli-0123456789";

/// Runs the program in `dir`.
fn syncline(dir: &Path, args: &[&str]) -> Output {
    command(dir, args).output().expect("the program runs")
}

fn command(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_syncline"));
    // Nothing of the machine the test runs on: no settings of its user, no variables of ours.
    command.current_dir(dir).args(args).env_clear().env("HOME", dir).env("SYNCLINE_API_KEY", KEY).stdin(Stdio::null());
    command
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Demands an exit code and gives stdout.
fn ended(output: &Output, code: i32) -> String {
    assert_eq!(output.status.code(), Some(code), "stdout:\n{}\nstderr:\n{}", out(output), err(output));
    out(output)
}

/// A provider, and a folder with settings and a definition for it.
struct Place {
    dir: TempDir,
    fake: Fake,
    runtime: tokio::runtime::Runtime,
}

impl Place {
    fn new(records: u64, incremental: bool) -> Place {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let mut options = FakeOptions::new(7, Arc::new(SystemClock));
        options.records = records;
        // It posts no webhooks here.
        let client = Client::new(ClientOptions::default(), Arc::new(SystemClock)).expect("a client");
        let fake = runtime.block_on(Fake::start(options, Arc::new(ClientCourier(client)))).expect("a provider");
        let dir = tempfile::tempdir().expect("a folder");
        let (name, token) = fake.accounts().remove(0);
        let mut wanted = DefinitionOptions::new(&fake.url());
        wanted.connections = vec![(name, "file:account.token".into())];
        wanted.incremental = incremental;
        std::fs::create_dir(dir.path().join("sources")).expect("made");
        write(dir.path(), "sources/fake.yaml", &definition(&wanted));
        write(dir.path(), "sources/account.token", &token);
        let settings = "egress: {allow_http: true, allow: [127.0.0.0/8]}\nlisten: 127.0.0.1:0\n\
             api_keys: [{name: test, key: \"env:SYNCLINE_API_KEY\", role: admin}]\n";
        write(dir.path(), "syncline.yaml", settings);
        Place { dir, fake, runtime }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn edit(&self, edit: Edit) {
        let _inside = self.runtime.enter();
        self.fake.edit(0, edit, Notify::Never);
    }

    /// A server on this folder, and its address.
    fn serve(&self) -> Server {
        let mut child =
            command(self.path(), &["serve"]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("runs");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("piped");
        let mut reader = BufReader::new(stdout);
        reader.read_line(&mut line).expect("a line");
        let address = line.trim().rsplit("http://").next().unwrap_or_default().to_owned();
        assert!(line.contains("listening on http://127.0.0.1:"), "{line}");
        Server { child, address, _stdout: reader }
    }
}

struct Server {
    child: Child,
    address: String,
    /// Kept open: a server whose stdout is gone would end.
    _stdout: BufReader<std::process::ChildStdout>,
}

impl Server {
    /// Sends a signal and gives the exit code.
    fn end(mut self, signal: &str) -> Option<i32> {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().expect("kill runs").success());
        self.child.wait().expect("ends").code()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
    }
}

fn write(dir: &Path, name: &str, text: &str) {
    std::fs::write(dir.join(name), text).expect("written");
}

fn lines(text: &str) -> Vec<serde_json::Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("JSON lines")).collect()
}

#[test]
fn what_lies_in_quarantine_is_looked_at_and_dropped() {
    let place = Place::new(10, false);
    let text = std::fs::read_to_string(place.path().join("sources/fake.yaml")).expect("a definition");
    // No record fits this.
    let strict = text.replacen(
        "    key:",
        "    schema: {type: object, required: [nothing_has_this]}\n    on_invalid: quarantine\n    key:",
        1,
    );
    assert_ne!(strict, text, "the stream has a key");
    write(place.path(), "sources/fake.yaml", &strict);
    syncline(place.path(), &["run", "fake"]);
    let list = ended(&syncline(place.path(), &["quarantine", "list"]), 0);
    assert_eq!(list.lines().count(), 11, "{list}");
    assert!(list.lines().nth(1).is_some_and(|row| row.starts_with("qrn_") && row.contains("bad_value")), "{list}");
    let rows = ended(&syncline(place.path(), &["quarantine", "list", "--json", "--source", "fake", "--limit", "3"]), 0);
    let rows: Vec<serde_json::Value> = rows.lines().map(|row| serde_json::from_str(row).expect("JSON")).collect();
    assert_eq!(rows.len(), 3);
    let first = rows[0]["id"].as_str().expect("an id");
    assert_eq!(ended(&syncline(place.path(), &["quarantine", "drop", first]), 0), "1 entries dropped\n");
    let retried = ended(&syncline(place.path(), &["quarantine", "retry", "--source", "fake"]), 0);
    assert!(retried.contains("has to be listed in full: `syncline run fake --connection"), "{retried}");
    ended(&syncline(place.path(), &["quarantine", "drop"]), 2);
    assert_eq!(ended(&syncline(place.path(), &["quarantine", "drop", "--source", "fake"]), 0), "9 entries dropped\n");
    assert_eq!(ended(&syncline(place.path(), &["deliveries", "list", "--dead", "--json"]), 0), "");
    ended(&syncline(place.path(), &["deliveries", "retry"]), 2);
}

#[test]
fn wrong_usage_is_2_and_help_is_0() {
    let dir = tempfile::tempdir().expect("a folder");
    ended(&syncline(dir.path(), &["no-such-verb"]), 2);
    ended(&syncline(dir.path(), &["run", "x", "--since", "yesterday"]), 2);
    assert!(ended(&syncline(dir.path(), &["--help"]), 0).contains("serve"));
}

/// A filter takes any word for the name of a module: a misspelt level would say nothing at all.
#[test]
fn a_misspelt_log_level_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    for wrong in ["wanr", "syncline=verbose", "warn,inof"] {
        let output = syncline(dir.path(), &["serve", "--log-level", wrong]);
        ended(&output, 2);
        let said = err(&output);
        assert!(said.contains(&format!("`{wrong}` is not a log level")) && said.contains("hint: "), "{said}");
    }
    // It gets as far as the keys that are missing.
    ended(&syncline(dir.path(), &["serve", "--log-level", "syncline=debug,warn"]), 78);
}

#[test]
fn webhook_urls_say_whose_they_are() {
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(dir.path().join("sources")).expect("made");
    let text = r#"source: shop
base_url: https://api.example.com
connections: {me: {}, you: {}}
streams:
  - {name: Thing, key: .id, list: {get: /things}}
webhooks:
  scope: connection
  verify: {scheme: shared_secret, header: X-Token, secret: "{{ webhook_secret }}"}
  map:
    - {stream: Thing, record: .}
"#;
    write(dir.path(), "sources/shop.yaml", text);
    let parts = |line: &str| line.split("  ").map(str::to_owned).collect::<Vec<_>>();
    let all: Vec<_> = ended(&syncline(dir.path(), &["webhook", "url", "shop"]), 0).lines().map(parts).collect();
    assert_eq!(all.iter().map(|line| line[1].as_str()).collect::<Vec<_>>(), ["connection me", "connection you"]);
    assert!(all.iter().all(|line| line[2].starts_with("secret ")) && all[0][2] != all[1][2], "{all:?}");
    let one = ended(&syncline(dir.path(), &["webhook", "url", "shop", "--connection", "you"]), 0);
    assert_eq!(parts(one.trim_end()), [all[1][0].as_str(), all[1][2].as_str()], "that one's alone");
}

#[test]
fn every_complaint_of_a_definition_has_its_place() {
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(dir.path().join("sources")).expect("made");
    let text = "source: shop\nbase_url: https://api.example.com\nstream: []\nstreams:\n  - name: thing\n    key: .id\n    list: {get: /things}\n";
    write(dir.path(), "sources/shop.yaml", text);
    for verb in [&["validate"][..], &["run", "shop"], &["check", "shop"], &["runs", "list"]] {
        let output = syncline(dir.path(), verb);
        ended(&output, 78);
        let said = err(&output);
        assert!(said.contains("sources/shop.yaml:3:1 unknown_key"), "{said}");
        assert!(said.contains("sources/shop.yaml:5:11 bad_name"), "{said}");
    }
}

#[test]
fn bad_settings_are_78_and_a_missing_file_says_so() {
    let dir = tempfile::tempdir().expect("a folder");
    write(dir.path(), "syncline.yaml", "listen: 127.0.0.1:8080\nlissten: x\n");
    let output = syncline(dir.path(), &["validate"]);
    ended(&output, 78);
    assert!(err(&output).contains("syncline.yaml:2:1 unknown_key"), "{}", err(&output));
    // `http:` counts like anything else, whatever else is wrong, and not at all where it is allowed.
    std::fs::create_dir(dir.path().join("sources")).expect("made");
    let text = "source: shop\nbase_url: http://api.example.com\nstreams:\n  - name: thing\n    key: .id\n    list: {get: /t}\n";
    write(dir.path(), "sources/shop.yaml", text);
    for (settings, insecure) in [("", true), ("egress: {allow_http: true}\n", false)] {
        write(dir.path(), "syncline.yaml", settings);
        let output = syncline(dir.path(), &["validate"]);
        ended(&output, 78);
        let said = err(&output);
        assert!(said.contains("bad_name"), "{said}");
        assert_eq!(said.contains("insecure_url") && !said.contains("warning"), insecure, "{said}");
        assert_eq!(said.contains("allow_http"), insecure, "{said}");
    }
    let output = syncline(dir.path(), &["validate", "--config", "no.yaml"]);
    ended(&output, 78);
    assert!(err(&output).starts_with("error: the settings file no.yaml does not exist\nhint: "), "{}", err(&output));
}

#[test]
fn a_server_without_keys_is_refused_with_the_next_step() {
    let dir = tempfile::tempdir().expect("a folder");
    let output = syncline(dir.path(), &["serve", "--listen", "127.0.0.1:0"]);
    ended(&output, 78);
    assert!(err(&output).contains("error: no API key is set") && err(&output).contains("hint: "), "{}", err(&output));
}

#[test]
fn init_writes_what_validate_takes_and_never_overwrites() {
    let dir = tempfile::tempdir().expect("a folder");
    ended(&syncline(dir.path(), &["init", "shop"]), 0);
    let output = syncline(dir.path(), &["validate"]);
    ended(&output, 78);
    assert!(err(&output).contains("unresolved_reference"), "{}", err(&output));
    let said = command(dir.path(), &["validate"]).env("SHOP_TOKEN", "x").output().expect("runs");
    assert!(ended(&said, 0).contains("shop: ok; streams Thing"));
    let output = syncline(dir.path(), &["init", "shop"]);
    ended(&output, 1);
    assert!(err(&output).contains("exists and is left as it is\nhint: "), "{}", err(&output));
    ended(&syncline(dir.path(), &["init", "--preset", "github"]), 0);
    let both =
        command(dir.path(), &["validate"]).env("SHOP_TOKEN", "x").env("GITHUB_TOKEN", "x").output().expect("runs");
    assert!(ended(&both, 0).contains("github: ok; streams Issue"));
    ended(&syncline(dir.path(), &["init", "--preset", "no-such"]), 2);
    for preset in presets().filter(|preset| *preset != "github") {
        ended(&syncline(dir.path(), &["init", "--preset", preset]), 0);
        let text = std::fs::read_to_string(dir.path().join(format!("sources/{preset}.yaml"))).expect("written");
        let read = parse(preset, &text, &|_| Ok("secret-of-somebody".into()));
        assert!(read.as_ref().is_ok_and(|(_, warnings)| warnings.is_empty()), "{text}\n{:?}", read.err());
    }
}

#[test]
fn an_editor_finds_the_schema_and_nothing_wrong_in_what_init_writes() {
    let dir = tempfile::tempdir().expect("a folder");
    ended(&syncline(dir.path(), &["init", "shop"]), 0);
    ended(&syncline(dir.path(), &["init", "--preset", "github"]), 0);
    let text = std::fs::read_to_string(dir.path().join("definition.schema.json")).expect("beside the settings");
    assert_eq!(ended(&syncline(dir.path(), &["schema"]), 0), text);
    let schema = serde_json::from_str(&text).expect("JSON");
    for name in ["shop", "github"] {
        let text = std::fs::read_to_string(dir.path().join(format!("sources/{name}.yaml"))).expect("written");
        assert!(text.starts_with("# yaml-language-server: $schema=../definition.schema.json\n"), "{text}");
        let definition = config_text::parse(name, &text).expect("YAML").to_json();
        if let Err(error) = jsonschema::draft202012::validate(&schema, &definition) {
            panic!("{name}: {error}");
        }
    }
}

#[test]
fn a_source_is_checked_run_and_read() {
    let place = Place::new(120, true);
    let dir = place.path();
    assert!(ended(&syncline(dir, &["validate"]), 0).contains("fake: ok; streams Contact; 1 connection(s)"));
    assert!(ended(&syncline(dir, &["check", "fake"]), 0).contains("Contact: ok, 100 record(s) on the first page"));
    // Neither check nor a dry run keeps anything.
    assert!(ended(&syncline(dir, &["run", "fake", "--dry-run"]), 0).contains("120 added"));
    assert_eq!(ended(&syncline(dir, &["runs", "list", "--json"]), 0), "");

    let run = lines(&ended(&syncline(dir, &["run", "fake", "Contact", "--json"]), 0)).remove(0);
    assert_eq!((&run["kind"], &run["outcome"]), (&"INITIAL".into(), &"complete".into()));
    assert_eq!(run["counts"]["added"], 120);
    let records = lines(&ended(&syncline(dir, &["records", "list", "fake", "Contact", "--json"]), 0));
    assert_eq!(records.len(), 120);
    let id = records[0]["id"].as_str().expect("text");
    let one = ended(&syncline(dir, &["records", "get", "fake", "Contact", id, "--json"]), 0);
    assert_eq!(lines(&one), [records[0].clone()]);
    ended(&syncline(dir, &["records", "get", "fake", "Contact", "no-such"]), 1);

    place.edit(Edit::Update(1));
    let again = ended(&syncline(dir, &["run", "fake"]), 0);
    assert!(again.contains("incremental complete, 0 added, 1 updated, 0 deleted"), "{again}");
    let changes = lines(&ended(&syncline(dir, &["changes", "--json"]), 0));
    assert_eq!(changes.len(), 121);
    let cursor = changes[119]["cursor"].as_str().expect("a cursor");
    let rest = lines(&ended(&syncline(dir, &["changes", "--json", "--cursor", cursor]), 0));
    assert_eq!((rest.len(), &rest[0]["action"]), (1, &"UPDATED".into()));
    let runs = lines(&ended(&syncline(dir, &["runs", "list", "--json"]), 0));
    let kinds: Vec<_> = runs.iter().map(|run| run["kind"].as_str().unwrap_or_default()).collect();
    assert_eq!(kinds, ["INCREMENTAL", "INITIAL"]);
    let id = runs[0]["id"].as_str().expect("text");
    assert_eq!(lines(&ended(&syncline(dir, &["runs", "show", id, "--json"]), 0)), [runs[0].clone()]);
    assert!(ended(&syncline(dir, &["connections", "list"]), 0).contains("harbor"));
    ended(&syncline(dir, &["run", "no-such"]), 1);
    ended(&syncline(dir, &["run", "fake", "NoSuch"]), 1);
}

/// A GitHub, and a folder that `init` has filled for it.
struct Hub {
    dir: TempDir,
    hub: GitHub,
    _runtime: tokio::runtime::Runtime,
}

impl Hub {
    fn new(options: GitHubOptions, repo: &str, set: &[&str]) -> Hub {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let hub = runtime.block_on(GitHub::start(options, Arc::new(SystemClock))).expect("a GitHub");
        let dir = tempfile::tempdir().expect("a folder");
        let fields = [format!("repo={repo}"), format!("base_url={}", hub.url())];
        let mut args = vec!["init", "--preset", "github"];
        fields.iter().map(String::as_str).chain(set.iter().copied()).for_each(|field| args.extend(["--set", field]));
        let said = ended(&syncline(dir.path(), &args), 0);
        assert!(said.contains("next: `syncline check github`"), "nothing is left to be filled in: {said}");
        Hub { dir, hub, _runtime: runtime }
    }

    fn command(&self, args: &[&str], token: &str) -> Command {
        let mut command = command(self.dir.path(), args);
        let egress = [("SYNCLINE_EGRESS__ALLOW_HTTP", "true"), ("SYNCLINE_EGRESS__ALLOW", "[\"127.0.0.0/8\"]")];
        command.envs(egress).env("GITHUB_TOKEN", token);
        command
    }

    fn run(&self, args: &[&str], token: &str) -> Output {
        self.command(args, token).output().expect("the program runs")
    }

    fn definition(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("sources/github.yaml")).expect("a definition")
    }
}

const TOKEN: [&str; 1] = ["token=env:GITHUB_TOKEN"];

#[test]
fn public_issues_are_read_without_a_token() {
    let place = Hub::new(GitHubOptions::new("octo/hello", 250), "octo/hello", &[]);
    let text = place.definition();
    assert!(text.contains("# token: \"env:GITHUB_TOKEN\"") && text.contains("{every: 5m, full: 24h}"), "{text}");
    let said = ended(&place.run(&["check", "github"], ""), 0);
    assert!(said.contains("github/me: ok, without token"), "{said}");
    assert!(said.contains("github/me/Issue: ok, 75 record(s) on the first page, and there are more"), "{said}");
    let said = ended(&place.run(&["run", "github"], ""), 0);
    assert!(said.contains(&format!("initial complete, {} added", place.hub.issues())), "{said}");
    place.hub.rename(7, "another title");
    let said = ended(&place.run(&["run", "github"], ""), 0);
    assert!(said.contains("incremental complete, 0 added, 1 updated"), "{said}");
    let asked = place.hub.asked();
    assert!(asked.iter().all(|(path, status, signed)| path != "/user" && *status == 200 && !signed), "{asked:?}");
}

#[test]
fn with_a_token_every_request_is_signed() {
    let options = GitHubOptions { private: true, ..GitHubOptions::new("octo/hello", 50) };
    let token = options.token.clone();
    let place = Hub::new(options, "octo/hello", &TOKEN);
    let text = place.definition();
    assert!(text.contains("\n    token: \"env:GITHUB_TOKEN\"") && !text.contains("schedule"), "{text}");
    assert!(ended(&place.run(&["check", "github"], &token), 0).contains("github/me: ok, authenticated"));
    ended(&place.run(&["run", "github"], &token), 0);
    let asked = place.hub.asked();
    assert_eq!(asked.first().map(|(path, ..)| path.as_str()), Some("/user"), "the token is tried first");
    assert!(asked.iter().all(|(_, status, signed)| *status == 200 && *signed), "{asked:?}");

    let said = ended(&place.run(&["check", "github"], "stolen"), 77);
    assert!(said.contains("401") && said.contains("Bad credentials") && !said.contains("has no token"), "{said}");
    ended(&place.run(&["check", "github"], ""), 78);
}

#[test]
fn who_is_refused_without_a_token_is_told_how_to_set_one() {
    let hint = "connection «me» has no token, so the request was not signed in: if the provider wants one, set \
                `token: \"env:NAME\"` on the connection";
    let private = GitHubOptions { private: true, ..GitHubOptions::new("octo/hello", 5) };
    let spent = GitHubOptions { unsigned_max: 0, ..GitHubOptions::new("octo/hello", 5) };
    let open = || GitHubOptions::new("octo/hello", 5);
    let cases = [
        (private, "octo/hello", "404", 1, true),
        (open(), "octo/no-such", "404", 1, true),
        // About no limit: a run does not wait for it.
        (open(), "octo/blocked", "403", 77, true),
        (spent, "octo/hello", "rate limit exceeded", 77, false),
    ];
    for (options, repo, why, code, ends) in cases {
        let place = Hub::new(options, repo, &[]);
        let said = ended(&place.run(&["check", "github"], ""), code);
        assert!(said.contains(why) && said.contains(hint), "{said}");
        if ends {
            let said = ended(&place.run(&["run", "github"], ""), 10);
            assert!(said.contains(why) && said.contains(hint), "{said}");
        }
    }
}

#[test]
fn a_run_without_requests_left_waits_says_so_and_goes_on_later() {
    let options = GitHubOptions { unsigned_max: 3, ..GitHubOptions::new("octo/hello", 450) };
    let place = Hub::new(options, "octo/hello", &[]);
    let mut run =
        place.command(&["run", "github"], "").stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("runs");
    let mut said = String::new();
    BufReader::new(run.stderr.take().expect("piped")).read_line(&mut said).expect("a line");
    assert!(said.contains("github/me: the provider lets nothing through until"), "{said}");
    assert!(said.contains("it has no token"), "{said}");
    assert!(Command::new("kill").args(["-INT", &run.id().to_string()]).status().expect("kill runs").success());
    assert_eq!(run.wait().expect("ends").code(), Some(130));
    place.hub.refill();
    let rest = ended(&place.run(&["run", "github"], ""), 0);
    assert!(rest.contains("initial complete") && rest.contains("went on where an earlier run had stopped"), "{rest}");
    let asked = place.hub.asked().len();
    assert_eq!(asked, 5, "no page was asked for twice");
    let records = lines(&ended(&place.run(&["records", "list", "github", "Issue", "--json"], ""), 0));
    assert_eq!(records.len(), place.hub.issues());
}

#[test]
fn what_is_set_wrongly_is_told_and_nothing_is_written() {
    let cases = [
        (&["rpo=octo/hello"][..], "unknown_key"),
        (&["token=ghp_written_out"], "literal_secret"),
        (&["repo=a/b", "repo=c/d"], "duplicate_key"),
        (&["base_url=nowhere"], "bad_url"),
    ];
    for (set, code) in cases {
        let dir = tempfile::tempdir().expect("a folder");
        let mut args = vec!["init", "--preset", "github"];
        set.iter().for_each(|field| args.extend(["--set", field]));
        let output = syncline(dir.path(), &args);
        ended(&output, 78);
        assert!(err(&output).contains(code) && err(&output).contains("hint: nothing was written"), "{}", err(&output));
        assert!(std::fs::read_dir(dir.path()).expect("a folder").next().is_none());
    }
    let dir = tempfile::tempdir().expect("a folder");
    ended(&syncline(dir.path(), &["init", "--set", "repo"]), 2);
    ended(&syncline(dir.path(), &["init", "--preset", "github", "--set", "repo=a/b, c/true,yes"]), 0);
    let text = std::fs::read_to_string(dir.path().join("sources/github.yaml")).expect("a definition");
    assert!(text.contains("repo: [a/b, c/true, yes] "), "{text}");
    ended(&syncline(dir.path(), &["init", "shop", "--set", "environment=prod", "--set", "tags=a,true"]), 0);
    let text = std::fs::read_to_string(dir.path().join("sources/shop.yaml")).expect("a definition");
    assert!(text.ends_with("  me:\n    environment: prod\n    tags: [a, \"true\"]\n"), "{text}");
}

#[test]
fn a_refused_token_is_77_for_check_and_10_for_run() {
    let place = Place::new(3, false);
    let token = "not-the-token-4711";
    write(place.path(), "sources/account.token", token);
    let output = syncline(place.path(), &["check", "fake"]);
    assert!(ended(&output, 77).contains("FAILED"), "{}", out(&output));
    let output = syncline(place.path(), &["run", "fake"]);
    let said = ended(&output, 10);
    assert!(said.contains("FAILED") && said.contains("401"), "{said}");
    assert!(!said.contains(token) && !err(&output).contains(token), "the token is nowhere shown");
}

#[test]
fn too_many_deletes_are_held_until_they_are_decided() {
    let place = Place::new(200, false);
    let dir = place.path();
    ended(&syncline(dir, &["run", "fake"]), 0);
    (1..=100).for_each(|id| place.edit(Edit::Delete(id)));
    let held = lines(&ended(&syncline(dir, &["run", "fake", "--json"]), 11)).remove(0);
    assert_eq!((&held["outcome"], &held["held"]["missing"]), (&"held".into(), &100.into()));
    let id = held["id"].as_str().expect("text");
    let live = || {
        lines(&ended(&syncline(dir, &["records", "list", "fake", "Contact", "--filter", "added,updated", "--json"]), 0))
            .len()
    };
    assert_eq!(live(), 200);
    ended(&syncline(dir, &["reject", id]), 0);
    assert_eq!(live(), 200);
    ended(&syncline(dir, &["approve", id]), 1);
    let held = lines(&ended(&syncline(dir, &["run", "fake", "--json"]), 11)).remove(0);
    let said = ended(&syncline(dir, &["approve", held["id"].as_str().expect("text")]), 0);
    assert!(said.contains("100 records deleted"), "{said}");
    assert_eq!(live(), 100);
    ended(&syncline(dir, &["run", "fake"]), 0);
}

#[test]
fn a_folder_in_use_is_75_for_writers_and_asked_of_its_server_by_readers() {
    let place = Place::new(5, true);
    let dir = place.path();
    ended(&syncline(dir, &["run", "fake"]), 0);
    let server = place.serve();
    let output = syncline(dir, &["run", "fake"]);
    ended(&output, 75);
    assert!(err(&output).contains("error: data_dir_locked: "), "{}", err(&output));
    let without = command(dir, &["records", "list", "fake", "Contact"]).env("SYNCLINE_API_KEY", KEY).output();
    // The settings say port 0, so the server cannot be found by them …
    ended(&without.expect("runs"), 75);
    // … but it can where it really listens.
    let asked = |args: &[&str]| command(dir, args).env("SYNCLINE_LISTEN", &server.address).output().expect("runs");
    let records = lines(&ended(&asked(&["records", "list", "fake", "Contact", "--json"]), 0));
    assert_eq!(records.len(), 5);
    assert_eq!(lines(&ended(&asked(&["changes", "--json"]), 0)).len(), 5);
    ended(&asked(&["serve"]), 69);
    assert_eq!(server.end("-TERM"), Some(143));
    // The folder is free again, and complete.
    assert_eq!(lines(&ended(&syncline(dir, &["records", "list", "fake", "Contact", "--json"]), 0)), records);
}

/// Adds Kafka to the settings, at an address where nobody listens; the address.
fn without_a_broker(dir: &Path, more: &str) -> String {
    let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port");
    let settings = std::fs::read_to_string(dir.join("syncline.yaml")).expect("settings");
    write(dir, "syncline.yaml", &format!("{settings}kafka: {{brokers: '{free}'}}\n{more}"));
    free.to_string()
}

#[test]
fn a_server_whose_log_is_in_kafka_does_not_start_without_a_broker() {
    let place = Place::new(1, false);
    let broker = without_a_broker(place.path(), "log: kafka\n");
    let output = syncline(place.path(), &["serve"]);
    ended(&output, 69);
    let said = err(&output);
    assert!(said.contains("kafka_unreachable") && said.contains(&broker) && said.contains("hint: "), "{said}");
}

#[test]
fn with_the_log_in_the_data_folder_a_missing_broker_stops_nothing() {
    let place = Place::new(3, false);
    without_a_broker(place.path(), "");
    let server = place.serve();
    let asked = |args: &[&str]| {
        let output = command(place.path(), args).env("SYNCLINE_LISTEN", &server.address).output().expect("runs");
        lines(&ended(&output, 0)).len()
    };
    let began = std::time::Instant::now();
    while asked(&["records", "list", "fake", "Contact", "--json"]) < 3 {
        assert!(began.elapsed() < std::time::Duration::from_secs(30), "nothing was polled");
    }
    assert_eq!(server.end("-TERM"), Some(143));
}

#[test]
fn an_interrupt_ends_the_server_with_130() {
    let place = Place::new(3, false);
    assert_eq!(place.serve().end("-INT"), Some(130));
}

/// A provider that answers every request with 400 and all it was sent, in several spellings, and with lines of its own making.
fn echo() -> (String, std::thread::JoinHandle<()>) {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let serving = std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let mut head = Vec::new();
            let mut part = [0; 4096];
            while !head.windows(4).any(|end| end == b"\r\n\r\n") {
                match stream.read(&mut part) {
                    Ok(0) | Err(_) => break,
                    Ok(n) => head.extend_from_slice(&part[..n]),
                }
            }
            let head = String::from_utf8_lossy(&head).into_owned();
            if head.starts_with("GET /stop") || head.is_empty() {
                return;
            }
            let sent = head
                .lines()
                .filter(|line| line.starts_with("GET") || line.starts_with("authorization"))
                .collect::<String>();
            let said = serde_json::to_string(&sent).expect("JSON");
            let body =
                format!("{sent}\n2030-01-01T00:00:00Z ERROR forged \x1b[31m{said}\r{}", said.replace('/', "\\/"));
            let length = body.len();
            write!(stream, "HTTP/1.1 400 Bad\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}")
                .expect("written");
        }
    });
    (url, serving)
}

#[test]
fn what_a_provider_repeats_of_us_is_hidden_and_forges_no_line() {
    const TOKEN: &str = "canary/t0ken+0123456789==";
    const QUERY: &str = "canary-query 0123456789";
    let (url, serving) = echo();
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(dir.path().join("sources")).expect("made");
    let text = format!(
        "source: shop\nbase_url: {url}\nauth: {{type: bearer}}\nlimits: {{retry: {{max: 0}}}}\nstreams:\n  - name: Thing\n    key: .id\n    \
         list: {{get: /things, params: {{api_key: \"env:QUERY\"}}}}\nconnections:\n  me: {{token: \"env:TOKEN\"}}\n"
    );
    write(dir.path(), "sources/shop.yaml", &text);
    let settings = "egress: {allow_http: true, allow: [127.0.0.0/8]}\n\
                    api_keys: [{name: test, key: \"env:SYNCLINE_API_KEY\", role: reader}]\n";
    write(dir.path(), "syncline.yaml", settings);
    let run = |args: &[&str]| command(dir.path(), args).env("TOKEN", TOKEN).env("QUERY", QUERY).output().expect("runs");
    for args in [
        &["check", "shop"][..],
        &["run", "shop", "--log-format", "pretty", "--log-level", "trace"],
        &["run", "shop", "--log-format", "json", "--log-level", "trace"],
        &["runs", "list", "--source", "shop", "--json"],
    ] {
        let output = run(args);
        let said = format!("{}{}", out(&output), err(&output));
        assert!(!said.contains("canary"), "{args:?}: {said}");
        assert!(!said.contains('\x1b') && !said.lines().any(|line| line.starts_with("2030")), "{args:?}: {said}");
        assert!(said.contains("[secret]"), "{args:?}: {said}");
    }
    let _ = std::net::TcpStream::connect(url.trim_start_matches("http://"));
    serving.join().expect("ends");
}
