//! `syncline runs list` and `syncline runs show RUN`.

use super::CommonArgs;
use super::access::{Access, part, query};
use super::exit::Fail;
use super::show;
use serde_json::Value;
use std::process::ExitCode;

/// What to look at.
#[derive(clap::Subcommand)]
pub(crate) enum RunsCommand {
    /// The latest runs, newest first
    List {
        /// Only of this source
        #[arg(long)]
        source: Option<String>,
        /// Only of this stream
        #[arg(long)]
        stream: Option<String>,
        /// At most so many
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1000))]
        limit: u16,
        /// Print one JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// One run
    Show {
        /// The run (`run_…`)
        run: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// Runs the verb.
pub(crate) async fn run(common: &CommonArgs, verb: &RunsCommand) -> Result<ExitCode, Fail> {
    let access = Access::open(common).await?;
    let answer = match verb {
        RunsCommand::List { source, stream, limit, .. } => {
            let limit = limit.to_string();
            let pairs = [("source", source.as_deref()), ("stream", stream.as_deref()), ("limit", Some(limit.as_str()))];
            access.get(&format!("/v1/runs?{}", query(&pairs)), &[]).await
        }
        RunsCommand::Show { run, .. } => access.get(&format!("/v1/runs/{}", part(run)), &[]).await,
    };
    access.close().await?;
    let answer = answer?;
    match verb {
        RunsCommand::List { json, .. } => list(&answer, *json)?,
        RunsCommand::Show { json, .. } => one(&answer, *json)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn list(answer: &Value, json: bool) -> Result<(), Fail> {
    let runs = answer.get("runs").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    if json {
        return runs.iter().try_for_each(|run| show::line(&run.to_string()));
    }
    let row = |run: &Value| {
        let counts = |name| show::text(run, &["counts", name]);
        vec![
            show::text(run, &["id"]),
            show::text(run, &["source"]),
            show::text(run, &["connection"]),
            show::text(run, &["stream"]),
            show::text(run, &["kind"]),
            show::text(run, &["outcome"]),
            format!("+{} ~{} -{}", counts("added"), counts("updated"), counts("deleted")),
            show::text(run, &["started_at"]),
        ]
    };
    let rows: Vec<Vec<String>> = runs.iter().map(row).collect();
    show::table(&["RUN", "SOURCE", "CONNECTION", "STREAM", "KIND", "OUTCOME", "CHANGES", "STARTED"], &rows)
}

fn one(run: &Value, json: bool) -> Result<(), Fail> {
    if json {
        return show::line(&run.to_string());
    }
    let Value::Object(fields) = run else { return show::line(&run.to_string()) };
    let rows: Vec<Vec<String>> =
        fields.iter().map(|(name, value)| vec![name.clone(), show::text(value, &[])]).collect();
    show::table(&["FIELD", "VALUE"], &rows)
}
