//! `syncline deliveries list | retry | drop`: outgoing webhooks that are owed, and those that were given up.

use super::CommonArgs;
use super::access::{Access, query};
use super::exit::{Fail, code};
use super::show;
use serde_json::{Value, json};
use std::process::ExitCode;

/// What to do.
#[derive(clap::Subcommand)]
pub(crate) enum DeliveriesCommand {
    /// The oldest first
    List {
        /// Those that were given up, instead of those that are owed
        #[arg(long)]
        dead: bool,
        /// Only of this endpoint
        #[arg(long)]
        endpoint: Option<String>,
        /// At most so many
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=1000))]
        limit: u16,
        /// Print one JSON object a line, with the bodies
        #[arg(long)]
        json: bool,
    },
    /// Send again what was given up
    Retry(LetterSelection),
    /// Drop for good what was given up
    Drop(LetterSelection),
}

/// Which dead letters.
#[derive(clap::Args)]
pub(crate) struct LetterSelection {
    /// Dead letters of the list (`msg_…`)
    #[arg(conflicts_with = "endpoint")]
    ids: Vec<String>,
    /// All of this endpoint
    #[arg(long)]
    endpoint: Option<String>,
}

impl LetterSelection {
    fn body(&self) -> Result<Value, Fail> {
        match (&self.endpoint, self.ids.as_slice()) {
            (Some(endpoint), _) => Ok(json!({"endpoint": endpoint})),
            (None, []) => Err(Fail::new(code::USAGE, "which deliveries?")
                .hint("name some of `syncline deliveries list --dead`, or all of an endpoint by --endpoint")),
            (None, ids) => Ok(json!({"ids": ids})),
        }
    }
}

/// Runs the verb.
pub(crate) async fn run(common: &CommonArgs, verb: &DeliveriesCommand) -> Result<ExitCode, Fail> {
    let body = match verb {
        DeliveriesCommand::List { .. } => Value::Null,
        DeliveriesCommand::Retry(which) | DeliveriesCommand::Drop(which) => which.body()?,
    };
    let access = Access::open(common).await?;
    let answer = match verb {
        DeliveriesCommand::List { dead, endpoint, limit, .. } => {
            let (state, limit) = (if *dead { "dead" } else { "owed" }, limit.to_string());
            let pairs = [("state", Some(state)), ("endpoint", endpoint.as_deref()), ("limit", Some(limit.as_str()))];
            access.get(&format!("/v1/deliveries?{}", query(&pairs)), &[]).await
        }
        DeliveriesCommand::Retry(_) => access.post("/v1/deliveries/retry", Some(&body)).await,
        DeliveriesCommand::Drop(_) => access.post("/v1/deliveries/drop", Some(&body)).await,
    };
    access.close().await?;
    let answer = answer?;
    match verb {
        DeliveriesCommand::List { json, .. } => list(&answer, *json)?,
        DeliveriesCommand::Retry(_) => show::line(&format!("{} sent again", show::text(&answer, &["retried"])))?,
        DeliveriesCommand::Drop(_) => show::line(&format!("{} dropped", show::text(&answer, &["dropped"])))?,
    }
    if answer["more"] == true || !answer["cursor"].is_null() {
        show::line("there are more of them")?;
    }
    Ok(ExitCode::SUCCESS)
}

fn list(answer: &Value, json: bool) -> Result<(), Fail> {
    let deliveries = answer["deliveries"].as_array().map(Vec::as_slice).unwrap_or_default();
    if json {
        return deliveries.iter().try_for_each(|delivery| show::line(&delivery.to_string()));
    }
    let cells = |delivery: &Value| {
        ["id", "endpoint", "state", "tries", "created_at", "reason", "last_error"]
            .map(|name| show::text(delivery, &[name]))
            .into()
    };
    let cells: Vec<Vec<String>> = deliveries.iter().map(cells).collect();
    show::table(&["DELIVERY", "ENDPOINT", "STATE", "TRIES", "CREATED", "REASON", "LAST ERROR"], &cells)
}
