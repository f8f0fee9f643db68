//! `syncline approve RUN` and `syncline reject RUN`: what becomes of deletes that are held.

use super::CommonArgs;
use super::access::Access;
use super::exit::Fail;
use super::show;
use std::process::ExitCode;

/// Arguments of `approve` and `reject`.
#[derive(clap::Args)]
pub(crate) struct DecideArgs {
    /// The run that holds deletes (`run_…`)
    run: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Decides.
pub(crate) async fn run(common: &CommonArgs, args: &DecideArgs, approve: bool) -> Result<ExitCode, Fail> {
    let access = Access::open(common).await?;
    let verb = if approve { "approve" } else { "reject" };
    let answer = access.post(&format!("/v1/deletes/{}/{verb}", super::access::part(&args.run)), None).await;
    access.close().await?;
    let answer = answer?;
    if args.json {
        show::line(&answer.to_string())?;
    } else if approve {
        show::line(&format!("{}: {} records deleted", args.run, show::text(&answer, &["deleted"])))?;
    } else {
        show::line(&format!("{}: nothing deleted; the next full listing looks again", args.run))?;
    }
    Ok(ExitCode::SUCCESS)
}
