//! `syncline functions run NAME`: a function against its provider, with nothing kept.
//!
//! The run is one like any other, on a store that is thrown away: what is printed is what a server would have kept.

use super::super::exit::{Fail, code};
use super::super::signals::Signals;
use super::super::{CommonArgs, run as runs, settings, show};
use crate::app::App;
use crate::engine::model::Position;
use crate::engine::pipeline::run::Outcome;
use crate::engine::pipeline::{Dataset, Filter};
use crate::ingest::poll::{RunOptions, SyncKey};
use std::process::ExitCode;
use tokio_util::sync::CancellationToken;

/// Arguments of `run`.
#[derive(clap::Args)]
pub(crate) struct RunArgs {
    /// SOURCE/NAME, or NAME where only one source has it
    name: String,
    /// The connection it runs for; not needed where there is one
    #[arg(long)]
    connection: Option<String>,
    /// Records printed of each model
    #[arg(long, value_name = "COUNT", default_value_t = 5)]
    records: usize,
}

/// Runs it.
pub(super) async fn run(common: &CommonArgs, args: &RunArgs) -> Result<ExitCode, Fail> {
    let mut signals = Signals::new()?;
    let settings = settings::load(common, &[], true)?;
    let app = settings::scratch(settings).await?;
    let cancel = CancellationToken::new();
    let key = meant(&app, common, args)?;
    let ended = {
        let work = app.syncs.run(&key, RunOptions::default(), cancel.clone(), &|_, _| {});
        let mut work = std::pin::pin!(work);
        tokio::select! {
            ended = work.as_mut() => ended,
            _ = signals.wait() => {
                cancel.cancel();
                work.await
            }
        }
    };
    let report = ended?;
    for dataset in app.syncs.datasets(&key).unwrap_or_default() {
        print(&app, &dataset, args.records)?;
    }
    let status = app.syncs.status(std::slice::from_ref(&key));
    if let Some(checkpoint) = status.first().and_then(|status| status.checkpoint.as_ref()) {
        show::line(&format!("checkpoint {checkpoint}"))?;
    }
    show::line(&runs::summary(&key, &report, true))?;
    app.stop().await?;
    let failed = report.record.status == Outcome::Failed;
    Ok(ExitCode::from(if failed { code::FAILED_STREAMS } else { 0 }))
}

/// The function that is meant, and its connection.
fn meant(app: &App, common: &CommonArgs, args: &RunArgs) -> Result<SyncKey, Fail> {
    let (source, name) = match args.name.split_once('/') {
        Some((source, name)) => (Some(source), name),
        None => (None, args.name.as_str()),
    };
    let is_function = |key: &SyncKey| {
        let definition = app.definitions.get(&key.source);
        definition.is_some_and(|definition| definition.function_sync(&key.stream).is_some())
    };
    let all: Vec<SyncKey> =
        app.syncs.keys().into_iter().filter(|key| key.environment == common.environment && is_function(key)).collect();
    let fits = |key: &&SyncKey| {
        key.stream == name
            && source.is_none_or(|source| source == key.source)
            && args.connection.as_ref().is_none_or(|id| *id == key.connection)
    };
    let found: Vec<&SyncKey> = all.iter().filter(fits).collect();
    let shown = |keys: &[&SyncKey]| {
        let one = |key: &&SyncKey| format!("{}/{} for {}", key.source, key.stream, key.connection);
        keys.iter().map(one).collect::<Vec<_>>().join(", ")
    };
    match found.as_slice() {
        [key] => Ok((*key).clone()),
        [] => {
            let said = match all.is_empty() {
                true => "no function is a sync of a source with a connection in its file".to_owned(),
                false => format!("there are: {}", shown(&all.iter().collect::<Vec<_>>())),
            };
            Err(Fail::new(code::USAGE, format!("there is no sync `{}` to run", args.name)).hint(said))
        }
        several => Err(Fail::new(code::USAGE, format!("`{}` is not one sync: {}", args.name, shown(several)))
            .hint("write SOURCE/NAME and --connection ID")),
    }
}

/// How many records a model has by now, and the first of them.
fn print(app: &App, dataset: &Dataset, most: usize) -> Result<(), Fail> {
    show::line(&format!("{} {}", dataset.name.model, app.engine.live(dataset)))?;
    let mut first = Vec::new();
    app.engine.records(dataset, Position::START, Filter::ALL, &mut |meta, payload| {
        if meta.deleted_at.is_none() && first.len() < most {
            first.push(String::from_utf8_lossy(payload).into_owned());
        }
        first.len() < most
    })?;
    first.iter().try_for_each(|record| show::line(&format!("  {record}")))
}
