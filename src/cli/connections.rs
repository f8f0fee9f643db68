//! `syncline connections list`.

use super::CommonArgs;
use super::access::{Access, query};
use super::exit::Fail;
use super::show;
use serde_json::Value;
use std::process::ExitCode;

/// What to look at.
#[derive(clap::Subcommand)]
pub(crate) enum ConnectionsCommand {
    /// The accounts of this environment
    List {
        /// Only of this source
        #[arg(long)]
        source: Option<String>,
        /// Print one JSON object a line
        #[arg(long)]
        json: bool,
    },
}

/// Runs the verb.
pub(crate) async fn run(common: &CommonArgs, verb: &ConnectionsCommand) -> Result<ExitCode, Fail> {
    let ConnectionsCommand::List { source, json } = verb;
    let access = Access::open(common).await?;
    let answer = access.get(&format!("/connections?{}", query(&[("integrationId", source.as_deref())])), &[]).await;
    access.close().await?;
    let answer = answer?;
    let all = answer.get("connections").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    if *json {
        all.iter().try_for_each(|one| show::line(&one.to_string()))?;
        return Ok(ExitCode::SUCCESS);
    }
    let row = |one: &Value| {
        vec![
            show::text(one, &["provider_config_key"]),
            show::text(one, &["connection_id"]),
            show::text(one, &["provider"]),
            show::text(one, &["created"]),
            one.get("errors").and_then(Value::as_array).map_or(0, Vec::len).to_string(),
        ]
    };
    let rows: Vec<Vec<String>> = all.iter().map(row).collect();
    show::table(&["SOURCE", "CONNECTION", "PROVIDER", "CREATED", "ERRORS"], &rows)?;
    Ok(ExitCode::SUCCESS)
}
