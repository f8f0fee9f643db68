//! `syncline records list` and `syncline records get`: records as they stand.

use super::CommonArgs;
use super::access::{Access, query};
use super::exit::{Fail, code};
use super::show;
use serde_json::Value;
use std::process::ExitCode;

/// Rows asked for at a time.
const PAGE: usize = 1_000;

/// What to read.
#[derive(clap::Subcommand)]
pub(crate) enum RecordsCommand {
    /// Records in order of their last change, deleted ones included
    List {
        #[command(flatten)]
        of: Of,
        /// Go on after this cursor
        #[arg(long)]
        cursor: Option<String>,
        /// Only these last actions: a comma list of added, updated, deleted
        #[arg(long)]
        filter: Option<String>,
        /// At most so many; all if absent
        #[arg(long)]
        limit: Option<usize>,
        /// Print one JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// One record
    Get {
        #[command(flatten)]
        of: Of,
        /// Its id
        id: String,
        /// Print one line of JSON
        #[arg(long)]
        json: bool,
    },
}

/// Of which dataset.
#[derive(clap::Args)]
pub(crate) struct Of {
    /// Source
    source: String,
    /// Stream (model)
    stream: String,
    /// Connection; not needed where the source has one
    #[arg(long)]
    connection: Option<String>,
    /// Variant
    #[arg(long)]
    variant: Option<String>,
}

/// Runs the verb.
pub(crate) async fn run(common: &CommonArgs, verb: &RecordsCommand) -> Result<ExitCode, Fail> {
    let access = Access::open(common).await?;
    let done = match verb {
        RecordsCommand::List { of, cursor, filter, limit, json } => {
            list(&access, of, cursor.clone(), filter.as_deref(), limit.unwrap_or(usize::MAX), *json).await
        }
        RecordsCommand::Get { of, id, json } => get(&access, of, id, *json).await,
    };
    access.close().await?;
    done.map(|()| ExitCode::SUCCESS)
}

async fn list(
    access: &Access,
    of: &Of,
    mut cursor: Option<String>,
    filter: Option<&str>,
    mut left: usize,
    json: bool,
) -> Result<(), Fail> {
    let connection = access.connection(&of.source, of.connection.as_deref()).await?;
    while left > 0 {
        let limit = left.min(PAGE).to_string();
        let pairs = [("cursor", cursor.as_deref()), ("filter", filter), ("limit", Some(limit.as_str()))];
        let page = rows(access, of, &connection, &pairs).await?;
        let records = page.get("records").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        for record in records {
            show::line(&if json { record.to_string() } else { short(record) })?;
        }
        left = left.saturating_sub(records.len());
        cursor = page.get("next_cursor").and_then(Value::as_str).map(str::to_owned);
        if cursor.is_none() {
            break;
        }
    }
    Ok(())
}

async fn get(access: &Access, of: &Of, id: &str, json: bool) -> Result<(), Fail> {
    let connection = access.connection(&of.source, of.connection.as_deref()).await?;
    let page = rows(access, of, &connection, &[("ids", Some(id))]).await?;
    let record = page.get("records").and_then(|rows| rows.get(0));
    let record = record.ok_or_else(|| {
        Fail::new(code::FAILURE, format!("no record `{id}` in {}/{connection}/{}", of.source, of.stream))
            .hint("`syncline records list` shows the ids")
    })?;
    let text = if json { Ok(record.to_string()) } else { serde_json::to_string_pretty(record) };
    show::line(&text.unwrap_or_default())
}

async fn rows(access: &Access, of: &Of, connection: &str, pairs: &[(&str, Option<&str>)]) -> Result<Value, Fail> {
    let mut all = vec![("model", Some(of.stream.as_str())), ("variant", of.variant.as_deref())];
    all.extend_from_slice(pairs);
    let headers = [("connection-id", connection), ("provider-config-key", of.source.as_str())];
    access.get(&format!("/records?{}", query(&all)), &headers).await
}

/// `UPDATED  id  {…}`: the record without its metadata.
fn short(record: &Value) -> String {
    let action = show::text(record, &["_nango_metadata", "last_action"]);
    let id = show::text(record, &["id"]);
    let mut body = record.clone();
    if let Some(fields) = body.as_object_mut() {
        fields.shift_remove("_nango_metadata");
        fields.shift_remove("id");
    }
    format!("{action:<7}  {id}  {body}")
}
