//! `syncline webhook url`: where providers post to.

use super::check::accounts;
use super::exit::{Fail, code};
use super::{Common, settings, show};
use crate::control::hooks::{Entrance, HookUrl};
use std::process::ExitCode;

/// What to do.
#[derive(clap::Subcommand)]
pub(crate) enum Verb {
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
pub(crate) async fn run(common: &Common, verb: &Verb) -> Result<ExitCode, Fail> {
    let Verb::Url { source, connection } = verb;
    let app = settings::open(settings::load(common, &[], true)?).await?;
    let found = accounts(&app, common, source, connection.as_deref()).map(|_| app.hooks.hook_urls(Some(source)));
    app.stop().await?;
    let mut hooks = found?;
    let wanted = |of: &Entrance| {
        // One for all connections is also this one's.
        let its_own = of.connection.is_none() || connection.is_none() || of.connection == *connection;
        of.environment == common.environment && its_own
    };
    hooks.retain(|hook| wanted(&hook.entrance));
    if hooks.is_empty() {
        return Err(Fail::new(code::FAILURE, format!("source `{source}` takes no webhooks"))
            .hint("add `webhooks:` to its definition"));
    }
    let several = hooks.len() > 1;
    for HookUrl { entrance, url, secret } in hooks {
        let whose = if several { format!("  {entrance}") } else { String::new() };
        let secret = secret.map(|secret| format!("  secret {secret}")).unwrap_or_default();
        show::line(&format!("{url}{whose}{secret}"))?;
    }
    Ok(ExitCode::SUCCESS)
}
