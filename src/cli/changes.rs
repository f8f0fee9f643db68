//! `syncline changes`: the change stream, from the beginning or a cursor, to its end or for ever.

use super::CommonArgs;
use super::access::{Access, query};
use super::exit::Fail;
use super::show;
use super::signals::Signals;
use serde_json::Value;
use std::process::ExitCode;

/// Changes asked for at a time.
const PAGE: &str = "1000";

/// How long the server may wait for the next change before it answers empty.
const WAIT: &str = "20s";

/// Arguments of `changes`.
#[derive(clap::Args)]
pub(crate) struct ChangesArgs {
    /// Go on and wait for more
    #[arg(long, short)]
    follow: bool,
    /// Start: `earliest`, `now` or a cursor
    #[arg(long, default_value = "earliest")]
    cursor: String,
    /// Only of this source
    #[arg(long)]
    source: Option<String>,
    /// Only of this stream
    #[arg(long)]
    stream: Option<String>,
    /// Only of this connection
    #[arg(long)]
    connection: Option<String>,
    /// Print one JSON object a line, with its cursor
    #[arg(long)]
    json: bool,
}

/// Runs the verb.
pub(crate) async fn run(common: &CommonArgs, args: &ChangesArgs) -> Result<ExitCode, Fail> {
    let mut signals = Signals::new()?;
    let access = Access::open(common).await?;
    let done = tokio::select! {
        done = read(&access, args) => done.map(|()| 0),
        code = signals.wait() => Ok(code),
    };
    access.close().await?;
    done.map(ExitCode::from)
}

async fn read(access: &Access, args: &ChangesArgs) -> Result<(), Fail> {
    let mut cursor = args.cursor.clone();
    let mut wait = None;
    loop {
        let pairs = [
            ("source", args.source.as_deref()),
            ("stream", args.stream.as_deref()),
            ("connection", args.connection.as_deref()),
            ("cursor", Some(cursor.as_str())),
            ("limit", Some(PAGE)),
            ("wait", wait),
        ];
        let page = access.get(&format!("/v1/changes?{}", query(&pairs)), &[]).await?;
        for change in page.get("changes").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default() {
            show::line(&if args.json { change.to_string() } else { short(change) })?;
        }
        if let Some(next) = page.get("cursor").and_then(Value::as_str) {
            cursor = next.to_owned();
        }
        if page.get("up_to_date").and_then(Value::as_bool).unwrap_or(true) {
            if !args.follow {
                return Ok(());
            }
            // Up to date: from now on the server answers when there is something.
            wait = Some(WAIT);
        }
    }
}

/// `2026-… UPDATED github/me/Issue 1 [title] {…}`
fn short(change: &Value) -> String {
    let field = |name| show::text(change, &[name]);
    let changed = match change.get("changed").and_then(Value::as_array) {
        Some(names) if !names.is_empty() => {
            format!(" [{}]", names.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", "))
        }
        _ => String::new(),
    };
    let body = change.get("after").filter(|v| !v.is_null()).or(change.get("before")).map(Value::to_string);
    format!(
        "{} {:<7} {}/{}/{} {}{changed} {}",
        field("committed_at"),
        field("action"),
        field("source"),
        field("connection"),
        field("stream"),
        field("key"),
        body.unwrap_or_default()
    )
}
