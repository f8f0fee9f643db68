//! `syncline run SOURCE [STREAM]`: one run in the foreground, on the data folder.

use super::check::{accounts, without};
use super::exit::{Fail, code};
use super::signals::Signals;
use super::{CommonArgs, settings, show};
use crate::app::App;
use crate::engine::model::Timestamp;
use crate::engine::pipeline::run::{Outcome, RunEndReport, RunRecord};
use crate::ingest::poll::{RunError, RunOptions, SyncKey, TriggerOptions};
use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Between two looks whether a run waits for its provider.
const LOOK: Duration = Duration::from_secs(1);

/// Complaints shown of one run.
const SAMPLES: usize = 3;

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
pub(crate) async fn run(common: &CommonArgs, args: &Args) -> Result<ExitCode, Fail> {
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

async fn all(app: &App, common: &CommonArgs, args: &Args, cancel: &CancellationToken) -> Result<u8, Fail> {
    let keys = meant(app, common, args)?;
    let (mut worst, several) = (0, keys.len() > 1);
    for key in keys {
        let bar = Bar::new(&key);
        let trigger = TriggerOptions { full: args.full, ..TriggerOptions::default() };
        let options = RunOptions { trigger, since: args.since };
        let told = |record: &RunRecord, expected: Option<u64>| bar.show(record, expected);
        let run = app.syncs.run(&key, options, cancel.clone(), &told);
        let report = match watched(app, &key, &bar, run).await {
            Err(RunError::Stopping) if cancel.is_cancelled() => break,
            // Fed by topics: nothing to run, and nobody asked for this one by name.
            Err(RunError::Fed(_)) if several => continue,
            other => other?,
        };
        bar.clear();
        show::line(&if args.json { json(&key, &report.record) } else { summary(&key, &report, args.dry_run) })?;
        worst = match (worst, report.record.status) {
            (_, Outcome::Failed) => code::FAILED_STREAMS,
            (0, Outcome::Held) => code::HELD,
            (so_far, _) => so_far,
        };
    }
    Ok(worst)
}

/// Awaits a run, and says so where it waits for a provider that lets nothing through: that may last an hour.
async fn watched<T>(app: &App, key: &SyncKey, bar: &Bar, run: impl Future<Output = T>) -> T {
    let account = app.connections.get(&key.environment, &key.source, &key.connection);
    let (mut run, mut said, clock) = (std::pin::pin!(run), None, app.engine.clock());
    loop {
        tokio::select! {
            ended = run.as_mut() => return ended,
            () = clock.sleep(LOOK) => {}
        }
        let (Some(account), Some(source)) = (&account, app.sources.get(&key.source)) else { continue };
        let Some(until) = source.waits_until(&account.connection).filter(|until| said.is_none_or(|said| *until > said))
        else {
            continue;
        };
        said = Some(until);
        let credential = without(app, account).map(|name| format!("; it has no {name}")).unwrap_or_default();
        bar.aside(|| {
            tracing::warn!(
                "{}/{}: the provider lets nothing through until {until}{credential}. The run goes on then; Ctrl-C loses nothing",
                key.source,
                key.connection,
            )
        });
    }
}

/// Records seen so far, on a terminal only.
struct Bar(ProgressBar);

impl Bar {
    fn new(key: &SyncKey) -> Self {
        if !std::io::stdout().is_terminal() || !std::io::stderr().is_terminal() {
            return Bar(ProgressBar::hidden());
        }
        let bar = ProgressBar::no_length();
        // A template that does not parse would only cost its looks.
        if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix}: {pos} records {msg} {elapsed}") {
            bar.set_style(style);
        }
        bar.set_prefix(format!("{}/{}/{}", key.source, key.connection, key.stream));
        Bar(bar)
    }

    fn show(&self, record: &RunRecord, expected: Option<u64>) {
        let c = &record.counts;
        self.0.set_position(c.changes() + c.unchanged + c.skipped + c.ignored);
        let of = expected.map(|n| format!("of {n} ")).unwrap_or_default();
        self.0.set_message(format!("{of}in {} pages", record.pages));
    }

    /// Lets others write.
    fn aside(&self, write: impl FnOnce()) {
        self.0.suspend(write);
    }

    fn clear(&self) {
        self.0.finish_and_clear();
    }
}

fn meant(app: &App, common: &CommonArgs, args: &Args) -> Result<Vec<SyncKey>, Fail> {
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

pub(super) fn summary(key: &SyncKey, report: &RunEndReport, dry: bool) -> String {
    let record = &report.record;
    let c = &record.counts;
    let seconds = record.ended_at.map_or(0.0, |end| end.since(record.started_at).as_secs_f64());
    let outcome = match record.status {
        Outcome::Complete => "complete",
        Outcome::Incomplete => "incomplete",
        Outcome::Failed => "FAILED",
        Outcome::Held => "HELD",
        Outcome::Cancelled => "cancelled",
        Outcome::Running => "interrupted; the next run goes on here",
    };
    let mut lines = vec![format!(
        "{}/{}/{}: {} {outcome}{}, {} added, {} updated, {} deleted, {} unchanged; {} requests, {seconds:.1} s",
        key.source,
        key.connection,
        key.stream,
        record.kind.to_lowercase(),
        if dry { " (dry run, nothing kept)" } else { "" },
        c.added,
        c.updated,
        c.deleted,
        c.unchanged,
        record.requests,
    )];
    if report.resumed {
        lines.push("went on where an earlier run had stopped".into());
    }
    if let Some((code, text)) = &record.error {
        lines.push(format!("{code}: {text}"));
    }
    lines.extend(record.doubts.iter().map(|doubt| format!("not proven complete: {doubt}")));
    if record.quarantined > 0 {
        lines.push(format!("{} could not be taken, for example:", record.quarantined));
        lines.extend(record.samples.iter().take(SAMPLES).map(|sample| format!("  {sample}")));
    }
    if let Some((live, missing)) = record.held {
        lines.push(format!("{missing} of {live} records are missing and wait to be deleted:"));
        lines.push(format!("  `syncline approve {0}` deletes them, `syncline reject {0}` keeps them", record.id));
    }
    lines.join("\n  ")
}

fn json(key: &SyncKey, record: &RunRecord) -> String {
    let c = &record.counts;
    serde_json::json!({
        "id": record.id, "source": key.source, "connection": key.connection, "stream": key.stream,
        "variant": key.variant, "kind": record.kind, "outcome": record.status,
        "counts": {"added": c.added, "updated": c.updated, "deleted": c.deleted, "unchanged": c.unchanged,
                   "skipped": c.skipped, "ignored": c.ignored},
        "pages": record.pages, "requests": record.requests, "not_modified": record.not_modified,
        "quarantined": record.quarantined, "doubts": record.doubts,
        "error": record.error.as_ref().map(|(code, text)| serde_json::json!({"code": code, "message": text})),
        "held": record.held.map(|(live, missing)| serde_json::json!({"live": live, "missing": missing})),
        "started_at": record.started_at.to_string(), "ended_at": record.ended_at.map(|at| at.to_string()),
    })
    .to_string()
}
