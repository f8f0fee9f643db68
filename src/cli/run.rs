//! `syncline run SOURCE [STREAM]`: one run in the foreground, on the data folder.

use super::check::accounts;
use super::exit::{Fail, code};
use super::signals::Signals;
use super::{Common, settings, show};
use crate::control::App;
use crate::control::syncs::{LastRun, Outcome, RunOptions, SyncKey, TriggerOptions};
use crate::engine::model::Timestamp;
use std::process::ExitCode;
use tokio_util::sync::CancellationToken;

/// Arguments of `run`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Source
    source: String,
    /// Only this stream
    stream: Option<String>,
    /// Only this connection
    #[arg(long)]
    connection: Option<String>,
    /// The complete listing, also where an incremental run would do
    #[arg(long)]
    full: bool,
    /// Read everything and keep nothing
    #[arg(long)]
    dry_run: bool,
    /// Lower end of the incremental window (RFC 3339), instead of where the last run stood
    #[arg(long, value_parser = time, conflicts_with = "full")]
    since: Option<Timestamp>,
    /// Print one JSON object for each run
    #[arg(long)]
    json: bool,
}

fn time(text: &str) -> Result<Timestamp, String> {
    Timestamp::parse(text).ok_or_else(|| "write a time such as 2026-04-14T18:46:03Z".into())
}

/// Runs the syncs that are meant, one after the other.
pub(crate) async fn run(common: &Common, args: &Args) -> Result<ExitCode, Fail> {
    let mut signals = Signals::new()?;
    let settings = settings::load(common, &[], true)?;
    let app = if args.dry_run { settings::scratch(settings).await? } else { settings::open(settings).await? };
    let cancel = CancellationToken::new();
    let work = all(&app, common, args, &cancel);
    let mut work = std::pin::pin!(work);
    let ended = tokio::select! {
        ended = work.as_mut() => ended,
        signal = signals.wait() => {
            // The page in hand is committed; the next run goes on from there.
            cancel.cancel();
            work.as_mut().await.map(|_| signal)
        }
    };
    app.stop().await?;
    ended.map(ExitCode::from)
}

async fn all(app: &App, common: &Common, args: &Args, cancel: &CancellationToken) -> Result<u8, Fail> {
    let keys = meant(app, common, args)?;
    let mut worst = 0;
    for key in keys {
        if cancel.is_cancelled() {
            break;
        }
        let trigger = TriggerOptions { full: args.full, ..TriggerOptions::default() };
        let options = RunOptions { trigger, since: args.since };
        let last = app.syncs.run(&key, options, cancel.clone()).await?;
        show::line(&if args.json { json(&key, &last) } else { summary(&key, &last, args.dry_run) })?;
        worst = match (worst, last.outcome) {
            (_, Outcome::Failed) => code::FAILED_STREAMS,
            (0, Outcome::Held) => code::HELD,
            (so_far, _) => so_far,
        };
    }
    Ok(worst)
}

fn meant(app: &App, common: &Common, args: &Args) -> Result<Vec<SyncKey>, Fail> {
    accounts(app, common, &args.source, args.connection.as_deref())?;
    let mut keys = app
        .syncs
        .resolve(&common.environment, &args.source, args.connection.as_deref(), &[])
        .map_err(|e| Fail::new(code::FAILURE, e.to_string()))?;
    if let Some(stream) = &args.stream {
        let streams: Vec<String> = keys.iter().map(|key| key.stream.clone()).collect();
        keys.retain(|key| key.stream == *stream);
        if keys.is_empty() {
            return Err(Fail::new(code::FAILURE, format!("source `{}` has no stream `{stream}`", args.source))
                .hint(format!("it has: {}", streams.join(", "))));
        }
    }
    Ok(keys)
}

fn summary(key: &SyncKey, last: &LastRun, dry: bool) -> String {
    let c = &last.counts;
    let seconds = last.finished_at.since(last.started_at).as_secs_f64();
    let outcome = match last.outcome {
        Outcome::Complete => "complete",
        Outcome::Incomplete => "incomplete",
        Outcome::Failed => "FAILED",
        Outcome::Held => "HELD",
        Outcome::Cancelled => "interrupted",
    };
    let mut text = format!(
        "{}/{}/{}: {} {outcome}{}, {} added, {} updated, {} deleted, {} unchanged in {seconds:.1} s",
        key.source,
        key.connection,
        key.stream,
        last.kind.as_str().to_lowercase(),
        if dry { " (dry run, nothing kept)" } else { "" },
        c.added,
        c.updated,
        c.deleted,
        c.unchanged,
    );
    if let Some(error) = &last.error {
        text.push_str(&format!("\n  {error}"));
    }
    if last.outcome == Outcome::Held {
        text.push_str(&format!("\n  deletes wait: `syncline approve {0}` or `syncline reject {0}`", last.run));
    }
    text
}

fn json(key: &SyncKey, last: &LastRun) -> String {
    serde_json::json!({
        "source": key.source, "connection": key.connection, "stream": key.stream, "variant": key.variant,
        "run": last.run, "kind": last.kind, "outcome": last.outcome, "counts": last.counts, "error": last.error,
        "started_at": last.started_at.to_string(), "finished_at": last.finished_at.to_string(),
    })
    .to_string()
}
