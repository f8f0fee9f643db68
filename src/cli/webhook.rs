//! `syncline webhook url`: where providers post to.

use super::access::{Access, query};
use super::exit::{Fail, code};
use super::{CommonArgs, show};
use serde_json::Value;
use std::process::ExitCode;

/// What to do.
#[derive(clap::Subcommand)]
pub(crate) enum WebhookCommand {
    /// Print the URL to give to the provider, one line for each, with whose it is where there are several
    Url {
        /// Source
        source: String,
        /// Only of this connection, where each has its own URL
        #[arg(long)]
        connection: Option<String>,
    },
}

/// Runs the verb.
pub(crate) async fn run(common: &CommonArgs, verb: &WebhookCommand) -> Result<ExitCode, Fail> {
    let WebhookCommand::Url { source, connection } = verb;
    let access = Access::open(common).await?;
    let path = query(&[("source", Some(source)), ("connection", connection.as_deref())]);
    let answer = access.get(&format!("/v1/webhooks?{path}"), &[]).await;
    access.close().await?;
    let answer = answer?;
    let hooks = answer.get("webhooks").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    if hooks.is_empty() {
        return Err(Fail::new(code::FAILURE, format!("source `{source}` takes no webhooks"))
            .hint("add `webhooks:` to its definition, and a connection"));
    }
    let text = |hook: &Value, name: &str| hook.get(name).and_then(Value::as_str).map(str::to_owned);
    for hook in hooks {
        let url = text(hook, "url").unwrap_or_default();
        let whose =
            text(hook, "whose").filter(|_| hooks.len() > 1).map(|whose| format!("  {whose}")).unwrap_or_default();
        let secret = text(hook, "secret").map(|secret| format!("  secret {secret}")).unwrap_or_default();
        show::line(&format!("{url}{whose}{secret}"))?;
    }
    Ok(ExitCode::SUCCESS)
}
