//! `syncline init`: a first definition, settings and a key. Existing files are left alone, but for the schema that editors read.

use super::access::{KEY_FILE, KEY_VARIABLE};
use super::exit::{Fail, code};
use super::settings::FILE;
use super::show;
use crate::connectors::config_text::Complaint;
use crate::connectors::definition::{Definition, PartitionValues, SCHEMA, parse, presets};
use rand::RngCore;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Tells editors where the JSON Schema of a definition is; [`SCHEMA_FILE`] as seen from the definition.
const SCHEMA_LINE: &str = "# yaml-language-server: $schema=../definition.schema.json";
/// The JSON Schema of definitions. It stands beside the settings, not among the definitions.
const SCHEMA_FILE: &str = "definition.schema.json";
/// Longest name of a source.
const NAME_MAX: usize = 128;

/// Arguments of `init`.
#[derive(clap::Args)]
pub(crate) struct InitArgs {
    /// Name of the source [default: the preset's, else `example`]
    name: Option<String>,
    /// Lay a shipped definition under it
    #[arg(long, value_name = "NAME")]
    preset: Option<String>,
    /// A field of the connection; a list by commas: `--set repo=octo/hello,octo/world`. May be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = assignment)]
    set: Vec<(String, String)>,
    /// Where to write
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
}

fn assignment(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or("write NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// What the first file of a preset says beside what the preset itself tells.
struct Hints {
    preset: &'static str,
    /// Fields of a connection: an example, and what they mean.
    fields: &'static [(&'static str, &'static str, &'static str)],
    /// What a connection gains by credentials that it may go without.
    signed: &'static str,
    /// The schedule of a connection without, and why.
    unsigned: Option<(&'static str, &'static str)>,
    /// An example of the address that each account has of its own, and what it is.
    address: Option<(&'static str, &'static str)>,
    /// The streams of a first file, where all would be too many.
    streams: &'static [&'static str],
}

const HINTS: [Hints; 3] = [
    Hints {
        fields: &[("repo", "octo/hello", "owner/name of each repository")],
        signed: "5,000 requests an hour instead of 60; private repositories",
        unsigned: Some((
            "schedule: {Issue: {every: 5m, full: 24h}}",
            "so that 60 requests suffice; leave it out with a token",
        )),
        streams: &["Issue"],
        ..Hints::of_preset("github")
    },
    Hints {
        address: Some(("https://example.myshopify.com", "the address of the shop")),
        ..Hints::of_preset("shopify")
    },
    Hints {
        address: Some(("https://example.zendesk.com", "the address of the account")),
        ..Hints::of_preset("zendesk")
    },
];

impl Hints {
    const fn of_preset(preset: &'static str) -> Hints {
        Hints { preset, fields: &[], signed: "may be left out", unsigned: None, address: None, streams: &[] }
    }

    /// The example and the meaning of a field.
    fn of(&self, field: &str) -> Option<(&'static str, &'static str)> {
        self.fields.iter().find(|(name, ..)| *name == field).map(|(_, example, meaning)| (*example, *meaning))
    }
}

/// A definition as it is written.
struct FirstFile {
    text: String,
    /// Nothing in it has to be filled in.
    whole: bool,
}

/// Writes `sources/NAME.yaml` and the schema that it names; and `syncline.yaml` with a key, where there is none yet.
pub(crate) fn run(args: &InitArgs) -> Result<ExitCode, Fail> {
    let name = args.name.as_deref().or(args.preset.as_deref()).unwrap_or("example");
    check_name(name)?;
    let file = args.dir.join("sources").join(format!("{name}.yaml"));
    let shown = file.display();
    let first = match &args.preset {
        Some(preset) => with_preset(name, preset, &args.set)?,
        None => plain(name, &args.set),
    };
    // What was set on the command line may be anything.
    checked(&shown.to_string(), &first.text)?;
    create(&file, &format!("{SCHEMA_LINE}\n{}", first.text), 0o644)?;
    show::line(&format!("wrote {shown}"))?;
    schema(&args.dir)?;
    settings(&args.dir)?;
    show::line(&match first.whole {
        true => format!("next: `syncline check {name}` reads one page, `syncline run {name}` reads everything"),
        false => format!("next: fill in {shown}, then `syncline validate` and `syncline check {name}`"),
    })?;
    Ok(ExitCode::SUCCESS)
}

/// The schema is this version's, whatever an older one has written.
fn schema(dir: &Path) -> Result<(), Fail> {
    let file = dir.join(SCHEMA_FILE);
    std::fs::write(&file, SCHEMA)
        .map_err(|e| Fail::new(code::FAILURE, format!("{} cannot be written: {e}", file.display())))?;
    show::line(&format!("wrote {} (completes and checks definitions in editors)", file.display()))
}

/// Reads a definition as it would be read; its references may be without a value yet.
fn checked(file: &str, text: &str) -> Result<Definition, Fail> {
    parse(file, text, &|_| Ok("not known yet".into())).map(|(definition, _)| definition).map_err(|complaints| {
        let wrong: Vec<String> = complaints.iter().filter(|c| !c.warning).map(Complaint::to_string).collect();
        Fail::new(code::CONFIG, wrong.join("\n")).hint("nothing was written; correct what is set with --set")
    })
}

/// Settings are written once; further sources join them.
fn settings(dir: &Path) -> Result<(), Fail> {
    let file = dir.join(FILE);
    if file.exists() {
        return Ok(());
    }
    let mut bytes = [0u8; 32];
    rand::rng().fill_bytes(&mut bytes);
    let key = dir.join(KEY_FILE);
    if !key.exists() {
        create(&key, &format!("{}\n", hex::encode(bytes)), 0o600)?;
        show::line(&format!(
            "wrote {} (an API key, readable by you alone; keep it out of version control)",
            key.display()
        ))?;
    }
    create(&file, &settings_text(), 0o644)?;
    show::line(&format!("wrote {}", file.display()))
}

/// Writes a file that is not there yet, with its folders.
pub(super) fn create(file: &Path, text: &str, mode: u32) -> Result<(), Fail> {
    let failed = |e: std::io::Error| match e.kind() {
        ErrorKind::AlreadyExists => Fail::new(code::FAILURE, format!("{} exists and is left as it is", file.display()))
            .hint("choose another name: `syncline init NAME`"),
        _ => Fail::new(code::FAILURE, format!("{} cannot be written: {e}", file.display())),
    };
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    let mut open = OpenOptions::new().write(true).create_new(true).mode(mode).open(file).map_err(failed)?;
    let written = open.write_all(text.as_bytes()).and_then(|()| open.sync_all());
    written.map_err(|e| {
        // Half a key would be taken for a whole one, and nothing here is overwritten.
        let _ = std::fs::remove_file(file);
        failed(e)
    })
}

/// Refuses what cannot be the name of a source.
pub(super) fn check_name(name: &str) -> Result<(), Fail> {
    let first = name.chars().next().is_some_and(|c| c.is_ascii_alphanumeric());
    let rest = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    if first && rest && name.len() <= NAME_MAX {
        return Ok(());
    }
    Err(Fail::new(code::USAGE, format!("`{name}` cannot be the name of a source"))
        .hint("letters, digits, `_` and `-`, beginning with a letter or digit"))
}

fn with_preset(name: &str, preset: &str, set: &[(String, String)]) -> Result<FirstFile, Fail> {
    let known: Vec<&str> = presets().collect();
    if !known.contains(&preset) {
        return Err(Fail::new(code::USAGE, format!("no preset `{preset}`"))
            .hint(format!("there are: {}; without --preset you get a definition to fill in", known.join(", "))));
    }
    let head = format!("source: {name}\npreset: {preset}\n");
    let shipped = checked(&format!("preset {preset}"), &head)?;
    let hints = HINTS.iter().find(|hints| hints.preset == preset);
    let all = || shipped.streams.iter().map(|stream| stream.name.as_str()).collect();
    let streams: Vec<&str> =
        hints.map(|hints| hints.streams.to_vec()).filter(|few| !few.is_empty()).unwrap_or_else(all);
    let app = app(&shipped, preset);
    let (lines, whole) = connection(&shipped, preset, hints, set);
    let text = format!(
        "\
# {name}: laid over the shipped definition `{preset}`; keys written here win over it.
# All keys: docs/definitions.md. Check with `syncline validate`, then `syncline check {name}`.
{head}{app}connections:
  me:                                    # one account; its id on the wire
{}
streams: [{}]
",
        lines.join("\n"),
        streams.join(", ")
    );
    Ok(FirstFile { text, whole })
}

/// The line that names the app for which people sign in, if they do.
fn app(shipped: &Definition, preset: &str) -> String {
    let variable = variable(preset);
    match shipped.auth.tokens().filter(|tokens| tokens.code().is_some() && tokens.client_id.is_none()) {
        Some(_) => format!(
            "auth: {{client_id: \"env:{variable}_CLIENT_ID\", client_secret: \"env:{variable}_CLIENT_SECRET\"}}\n"
        ),
        None => String::new(),
    }
}

/// The lines of a connection, and whether nothing is left to be filled in.
fn connection(
    shipped: &Definition,
    preset: &str,
    hints: Option<&Hints>,
    set: &[(String, String)],
) -> (Vec<String>, bool) {
    let is_set = |field: &str| set.iter().any(|(name, _)| name == field);
    let meaning = |field: &str| hints.and_then(|hints| hints.of(field));
    let left = shipped.auth.needed().filter(|credential| !is_set(credential));
    let unsigned = left.is_some() && shipped.auth.optional;
    let mut lines: Vec<String> = Vec::new();
    if let Some(credential) = left {
        let reference = format!("{credential}: \"env:{}_{}\"", variable(preset), credential.to_uppercase());
        lines.push(match unsigned {
            true => noted(&format!("# {reference}"), hints.map_or("may be left out", |hints| hints.signed)),
            false => noted(&reference, "secrets are references: env:NAME or file:PATH"),
        });
    }
    lines.extend(set.iter().map(|(name, value)| {
        let line = field(name, value, shipped.partitions.contains_key(name));
        meaning(name).map_or_else(|| format!("    {line}"), |(_, meaning)| noted(&line, meaning))
    }));
    let address = hints.and_then(|hints| hints.address).filter(|_| !is_set("base_url"));
    lines.extend(address.map(|(example, meaning)| noted(&format!("base_url: {example}"), meaning)));
    let told = |values: &PartitionValues| matches!(values, PartitionValues::Metadata(_));
    let open = shipped.partitions.iter().filter(|(name, partition)| told(&partition.values) && !is_set(name));
    let open: Vec<&String> = open.map(|(name, _)| name).collect();
    lines.extend(open.iter().map(|partition| {
        let (example, meaning) = meaning(partition).unwrap_or(("", "a list"));
        noted(&format!("{partition}: [{example}]"), meaning)
    }));
    if let Some((schedule, why)) = hints.and_then(|hints| hints.unsigned).filter(|_| unsigned && !is_set("schedule")) {
        lines.push(noted(schedule, why));
    }
    (lines, open.is_empty() && address.is_none() && (left.is_none() || unsigned))
}

/// A line of a connection with a comment.
fn noted(line: &str, comment: &str) -> String {
    format!("    {line:<36} # {comment}")
}

/// A field of a connection as it was set: a list where one is meant.
fn field(name: &str, value: &str, list: bool) -> String {
    if list || value.contains(',') {
        let values: Vec<String> = value.split(',').map(|value| scalar(value.trim())).collect();
        return format!("{}: [{}]", scalar(name), values.join(", "));
    }
    format!("{}: {}", scalar(name), scalar(value))
}

/// Text as YAML writes it, quoted where it would be read as something else.
fn scalar(text: &str) -> String {
    let word = text.chars().all(|c| c.is_ascii_alphanumeric() || "_./-".contains(c));
    let special = ["null", "true", "false"].iter().any(|other| text.eq_ignore_ascii_case(other));
    match word && !special && text.starts_with(|c: char| c.is_ascii_alphabetic()) {
        true => text.to_owned(),
        false => serde_json::Value::from(text).to_string(),
    }
}

fn variable(name: &str) -> String {
    name.to_uppercase().replace('-', "_")
}

fn plain(name: &str, set: &[(String, String)]) -> FirstFile {
    let fields: Vec<String> = set.iter().map(|(name, value)| format!("\n    {}", field(name, value, false))).collect();
    let connection = if fields.is_empty() { " {}".to_owned() } else { fields.concat() };
    let variable = variable(name);
    let text = format!(
        "\
# {name}: one outside system. All keys: docs/definitions.md.
# Check with `syncline validate` (no request), then `syncline check {name}` (one page).
source: {name}
base_url: https://api.example.com        # relative paths below begin here
auth:
  type: bearer                           # none, bearer, basic, api_key
  token: \"env:{variable}_TOKEN\"          # secrets are references: env:NAME or file:PATH
streams:
  - name: Thing                          # the model; capital first
    key: .id                             # jq: what identifies an item
    # modified_at: .updated_at           # jq: its modified time, so that late pages never undo newer data
    schedule: {{every: 5m}}                # add `full: {{every: 24h}}` once `incremental` is set
    list:                                # the complete listing
      get: /things
      params: {{limit: 100}}
      items: .data                       # jq: the items of a page; leave out if the answer is the list
      paginate: {{cursor: .next_cursor, param: cursor}}   # or `link`, {{page: page}}, {{offset: offset, size: 100}}
    # incremental: {{params: {{updated_since: \"{{{{ since | iso8601 }}}}\"}}}}
    # map: {{id: .id, name: .name}}        # what to keep; without it items are kept as they are
    deletes: [{{from_full_list: true}}]    # missing from a proven listing = deleted
connections:
  # one account; its id on the wire
  me:{connection}
"
    );
    FirstFile { text, whole: false }
}

fn settings_text() -> String {
    format!(
        "\
# Settings of the server. All keys: docs/settings.md. Each may also be set as SYNCLINE_… in the environment.
listen: 127.0.0.1:8080                   # API and webhooks
data_dir: ./data                         # one process at a time
sources: ./sources                       # folder of definitions
# public_url: https://sync.example.com   # what providers reach; needed for webhooks from outside
api_keys:
  - name: me
    key: \"file:{KEY_FILE}\"             # or \"env:{KEY_VARIABLE}\"; at least 32 characters
    role: admin                          # reader, writer, admin
# endpoints:                             # who is told when something has changed
#   backend: {{url: \"https://app.example.com/hooks/syncline\", secret: \"env:SYNCLINE_WEBHOOK_SECRET\"}}
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_written_once_and_the_key_is_private() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("a folder");
        let args = InitArgs { name: Some("shop".into()), preset: None, set: vec![], dir: dir.path().into() };
        assert!(run(&args).is_ok());
        let text = std::fs::read_to_string(dir.path().join("sources/shop.yaml")).expect("written");
        assert!(text.contains("source: shop") && text.contains("env:SHOP_TOKEN"), "{text}");
        let named = text.lines().next().and_then(|line| line.strip_prefix("# yaml-language-server: $schema="));
        let named = dir.path().join("sources").join(named.expect("the schema is named"));
        assert_eq!(std::fs::read_to_string(&named).expect("written"), SCHEMA);
        let mode = std::fs::metadata(dir.path().join(KEY_FILE)).expect("written").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let again = run(&args).expect_err("refuses");
        assert!(again.cause.contains("exists") && again.code == code::FAILURE, "{again:?}");
        assert_eq!(std::fs::read_to_string(dir.path().join("sources/shop.yaml")).expect("kept"), text);
        std::fs::write(&named, "of an older version").expect("written");
        assert!(run(&InitArgs { name: Some("other".into()), ..args }).is_ok());
        assert_eq!(std::fs::read_to_string(&named).expect("written anew"), SCHEMA);
    }

    #[test]
    fn names_that_cannot_be_sources_are_refused() {
        for name in ["", "-a", "a b", "../x", "ü"] {
            assert_eq!(check_name(name).map_err(|f| f.code), Err(code::USAGE), "{name}");
        }
    }
}
