//! `syncline webhook url`: where providers post to.

use super::check::accounts;
use super::exit::{Fail, code};
use super::{Common, settings, show};
use std::process::ExitCode;

/// What to do.
#[derive(clap::Subcommand)]
pub(crate) enum Verb {
    /// Print the URL to give to the provider, one line for each
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
    let found = accounts(&app, common, source, connection.as_deref()).map(|_| app.hooks.urls(source));
    app.stop().await?;
    let urls = found?;
    if urls.is_empty() {
        return Err(Fail::new(code::FAILURE, format!("source `{source}` takes no webhooks"))
            .hint("add `webhooks:` to its definition"));
    }
    for url in urls {
        show::line(&url)?;
    }
    Ok(ExitCode::SUCCESS)
}
