//! `syncline quarantine list | retry | drop`: what could not be taken.

use super::CommonArgs;
use super::access::{Access, query};
use super::exit::{Fail, code};
use super::show;
use serde_json::{Map, Value};
use std::process::ExitCode;

/// Entries asked for at a time.
const PAGE: &str = "1000";

/// What to do.
#[derive(clap::Subcommand)]
pub(crate) enum QuarantineCommand {
    /// What is in quarantine, with the reason
    List {
        #[command(flatten)]
        which: EntrySelection,
        /// At most so many
        #[arg(long, default_value_t = 100)]
        limit: usize,
        /// Print one JSON object a line, with the items themselves
        #[arg(long)]
        json: bool,
    },
    /// Try it again: webhooks are processed once more, streams are listed once more
    Retry(Meant),
    /// Drop it for good
    Drop(Meant),
}

/// What is tried again or dropped.
#[derive(clap::Args)]
pub(crate) struct Meant {
    /// Entries of the list (`qrn_…`)
    #[arg(conflicts_with_all = ["source", "connection", "stream", "code"])]
    ids: Vec<String>,
    #[command(flatten)]
    which: EntrySelection,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Which entries.
#[derive(clap::Args)]
pub(crate) struct EntrySelection {
    /// Only of this source
    #[arg(long)]
    source: Option<String>,
    /// Only of this connection
    #[arg(long)]
    connection: Option<String>,
    /// Only of this stream
    #[arg(long)]
    stream: Option<String>,
    /// Only with this reason, such as bad_value
    #[arg(long)]
    code: Option<String>,
}

impl EntrySelection {
    fn pairs(&self) -> [(&'static str, Option<&str>); 4] {
        [
            ("source", self.source.as_deref()),
            ("connection", self.connection.as_deref()),
            ("stream", self.stream.as_deref()),
            ("code", self.code.as_deref()),
        ]
    }

    /// The body that names entries.
    fn body(&self, ids: &[String]) -> Result<Value, Fail> {
        if ids.is_empty() && self.source.is_none() {
            return Err(Fail::new(code::USAGE, "which entries?")
                .hint("name entries of `syncline quarantine list`, or select them by --source"));
        }
        let mut body: Map<String, Value> =
            self.pairs().into_iter().filter_map(|(name, value)| Some((name.to_owned(), Value::from(value?)))).collect();
        if !ids.is_empty() {
            body.insert("ids".to_owned(), ids.into());
        }
        Ok(body.into())
    }
}

/// Runs the verb.
pub(crate) async fn run(common: &CommonArgs, verb: &QuarantineCommand) -> Result<ExitCode, Fail> {
    let body = match verb {
        QuarantineCommand::List { .. } => Value::Null,
        QuarantineCommand::Retry(meant) | QuarantineCommand::Drop(meant) => meant.which.body(&meant.ids)?,
    };
    let access = Access::open(common).await?;
    let answer = match verb {
        QuarantineCommand::List { which, limit, .. } => all(&access, which, *limit).await,
        QuarantineCommand::Retry(_) => access.post("/v1/quarantine/retry", Some(&body)).await,
        QuarantineCommand::Drop(_) => access.post("/v1/quarantine/drop", Some(&body)).await,
    };
    let served = matches!(access, Access::Server { .. });
    access.close().await?;
    let answer = answer?;
    match verb {
        QuarantineCommand::List { json, .. } => list(&answer, *json)?,
        QuarantineCommand::Retry(meant) | QuarantineCommand::Drop(meant) if meant.json => {
            show::line(&answer.to_string())?
        }
        QuarantineCommand::Retry(_) => retried(&answer, served)?,
        QuarantineCommand::Drop(_) => show::line(&format!("{} entries dropped", show::text(&answer, &["dropped"])))?,
    }
    if answer["more"] == true {
        show::line("there are more of them: give the command again")?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Pages, one after the other.
async fn all(access: &Access, which: &EntrySelection, limit: usize) -> Result<Value, Fail> {
    let (mut entries, mut dropped, mut cursor) = (Vec::new(), Vec::new(), None::<String>);
    loop {
        let page = [("limit", Some(PAGE)), ("cursor", cursor.as_deref())];
        let pairs: Vec<_> = which.pairs().into_iter().chain(page).collect();
        let mut answer = access.get(&format!("/v1/quarantine?{}", query(&pairs)), &[]).await?;
        for (field, list) in [("entries", &mut entries), ("dropped", &mut dropped)] {
            list.extend(answer[field].as_array_mut().map(std::mem::take).unwrap_or_default());
        }
        cursor = answer["cursor"].as_str().map(str::to_owned);
        if cursor.is_none() || entries.len() >= limit {
            entries.truncate(limit);
            return Ok(serde_json::json!({"entries": entries, "dropped": dropped}));
        }
    }
}

fn rows<'a>(answer: &'a Value, field: &str) -> &'a [Value] {
    answer[field].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn list(answer: &Value, json: bool) -> Result<(), Fail> {
    let entries = rows(answer, "entries");
    if json {
        return entries.iter().try_for_each(|entry| show::line(&entry.to_string()));
    }
    let cells = |entry: &Value| {
        ["id", "source", "connection", "stream", "key", "code", "at", "message"]
            .map(|name| show::text(entry, &[name]))
            .into()
    };
    let cells: Vec<Vec<String>> = entries.iter().map(cells).collect();
    show::table(&["ENTRY", "SOURCE", "CONNECTION", "STREAM", "KEY", "CODE", "AT", "REASON"], &cells)?;
    for one in rows(answer, "dropped") {
        let [source, connection, stream, count, at] =
            ["source", "connection", "stream", "count", "at"].map(|name| show::text(one, &[name]));
        show::line(&format!("{source} {connection} {stream}: {count} more were dropped, the last at {at}"))?;
    }
    Ok(())
}

fn retried(answer: &Value, served: bool) -> Result<(), Fail> {
    let [taken, kept] = ["taken", "kept"].map(|name| show::text(answer, &[name]));
    show::line(&format!("{taken} taken, {kept} in quarantine again"))?;
    for one in rows(answer, "listed") {
        let [source, connection, stream] = ["source", "connection", "stream"].map(|name| show::text(one, &[name]));
        let how = match served {
            true => "is listed in full at the next moment".to_owned(),
            false => format!("has to be listed in full: `syncline run {source} --connection {connection} --full`"),
        };
        show::line(&format!("{source} {connection} {stream} {how}"))?;
    }
    rows(answer, "impossible")
        .iter()
        .try_for_each(|one| show::line(&format!("{}: {}", show::text(one, &["id"]), show::text(one, &["message"]))))
}
