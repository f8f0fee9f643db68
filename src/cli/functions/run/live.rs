//! A function against its provider. A run is one like any other, on a store that is thrown away: what is printed is what a server
//! would have kept.

use super::super::super::exit::{Fail, code};
use super::super::super::signals::Signals;
use super::super::super::{CommonArgs, run as runs, settings, show};
use super::{RunArgs, folder, name, refused};
use crate::app::actions::ActionCall;
use crate::app::{App, OpenError};
use crate::config::Settings;
use crate::connectors::functions::{ByHand, Recording};
use crate::engine::model::Position;
use crate::engine::pipeline::run::Outcome;
use crate::engine::pipeline::{Dataset, Filter};
use crate::engine::time::{Clock, SystemClock};
use crate::ingest::poll::{RunOptions, SyncKey};
use crate::registry::connections::AccountKey;
use crate::registry::definitions;
use bytes::Bytes;
use serde_json::Value;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use syncline_runtime::Function;
use syncline_runtime::compile::FunctionKind;
use tokio_util::sync::CancellationToken;

pub(in crate::cli::functions) async fn run(
    common: &CommonArgs,
    settings: Settings,
    args: &RunArgs,
) -> Result<ExitCode, Fail> {
    let mut signals = Signals::new()?;
    folder(&settings)?;
    if let Some(file) = args.record.as_ref().filter(|file| file.exists()) {
        let cause = format!("{} exists and is left as it is", file.display());
        return Err(Fail::new(code::FAILURE, cause).hint("choose another name for the recording"));
    }
    let mut definitions = definitions::load(&settings).map_err(OpenError::from)?;
    let recording = args.record.as_ref().map(|_| Arc::<Recording>::default());
    // A recording has one time, so that its replay has the same.
    let now = args.now.or_else(|| args.record.as_ref().map(|_| SystemClock.now()));
    definitions.functions.by_hand = ByHand { now, seed: args.seed, recording: recording.clone() };
    let app = settings::scratch_of(settings, definitions).await?;
    let (function, account) = meant(&app, common, args)?;
    if let Some(Value::Object(metadata)) = &args.metadata {
        let ids = std::slice::from_ref(&account.id);
        let done = app.connections.set_metadata(&account.environment, &account.source, ids, metadata).await;
        done.map_err(|why| Fail::new(code::FAILURE, why.to_string()))?;
    }
    let cancel = CancellationToken::new();
    let work = execute(&app, args, &function, account, &cancel);
    let mut work = std::pin::pin!(work);
    let ended = tokio::select! {
        ended = work.as_mut() => ended,
        signal = signals.wait() => match function.place.kind {
            FunctionKind::Sync if args.webhook.is_none() => {
                cancel.cancel();
                work.await
            }
            _ => Ok(ExitCode::from(signal)),
        }
    };
    app.stop().await?;
    let code = ended?;
    if let (Some(recording), Some(file)) = (recording, &args.record) {
        keep(&recording, file)?;
    }
    Ok(code)
}

async fn execute(
    app: &Arc<App>,
    args: &RunArgs,
    function: &Function,
    account: AccountKey,
    cancel: &CancellationToken,
) -> Result<ExitCode, Fail> {
    let name = &function.place.name;
    if function.place.kind != FunctionKind::Sync {
        return called(app, args, function, account).await;
    }
    let of_it = |key: &SyncKey| {
        (&key.environment, &key.source, &key.connection) == (&account.environment, &account.source, &account.id)
    };
    let key = app.syncs.keys().into_iter().find(|key| of_it(key) && key.stream == *name);
    let key = key.ok_or_else(|| Fail::new(code::INTERNAL, format!("the sync `{name}` is not known")))?;
    begin_at(app, args, &key).await?;
    match &args.webhook {
        Some(event) => webhook(app, args, &key, event).await,
        None => sync(app, args, &key, cancel).await,
    }
}

/// The function that is meant, and its connection.
fn meant(app: &App, common: &CommonArgs, args: &RunArgs) -> Result<(Function, AccountKey), Fail> {
    let mut all = Vec::new();
    for function in app.definitions.functions.all().iter().filter(|function| args.fits(function)) {
        for account in app.connections.of_source(&function.place.source) {
            let key = account.key.clone();
            if key.environment == common.environment {
                all.push((format!("{} for {}", name(function), key.id), (function.clone(), key)));
            }
        }
    }
    let functions = app.definitions.functions.all();
    let has_none = |function: &&Function| all.iter().all(|(_, (known, _))| known.place != function.place);
    if let Some(function) = functions.iter().find(|one| args.fits(one) && args.names(one) && has_none(one)) {
        let (name, source) = (name(function), &function.place.source);
        let hint = format!(
            "write one into the definition of `{source}`: connections: {{me: {{credentials: {{token: env:TOKEN}}}}}}; \
             or run it with --mocks FILE"
        );
        return Err(Fail::new(code::USAGE, format!("{name} has no connection to run for")).hint(hint));
    }
    let told = all.iter().map(|(told, _)| told.clone()).collect();
    all.retain(|(_, (function, key))| {
        args.names(function) && args.connection.as_ref().is_none_or(|connection| *connection == key.id)
    });
    args.one(all, told)
}

/// An action with its output, or a function on an event, which has none.
async fn called(app: &App, args: &RunArgs, function: &Function, key: AccountKey) -> Result<ExitCode, Fail> {
    let name = function.place.name.clone();
    let ended = match function.place.kind {
        FunctionKind::OnEvent => app.actions.on_event(&key, &name).await.map(|ended| ended.map(|()| "null".to_owned())),
        _ => app.actions.call(ActionCall::new(key, name, args.input.clone(), 0)).await,
    };
    match ended.map_err(|why| Fail::new(code::FAILURE, why.to_string()))? {
        Ok(output) => {
            show::line(&output)?;
            Ok(ExitCode::SUCCESS)
        }
        Err(why) => refused(why.code, &why.message, why.payload),
    }
}

async fn sync(app: &App, args: &RunArgs, key: &SyncKey, cancel: &CancellationToken) -> Result<ExitCode, Fail> {
    let report = app.syncs.run(key, RunOptions::default(), cancel.clone(), &|_, _| {}).await?;
    for dataset in app.syncs.datasets(key).unwrap_or_default() {
        print(app, &dataset, args.records)?;
    }
    let status = app.syncs.status(std::slice::from_ref(key));
    if let Some(checkpoint) = status.first().and_then(|status| status.checkpoint.as_ref()) {
        show::line(&format!("checkpoint {checkpoint}"))?;
    }
    show::line(&runs::summary(key, &report, true))?;
    let failed = report.record.status == Outcome::Failed;
    Ok(ExitCode::from(if failed { code::FAILED_STREAMS } else { 0 }))
}

async fn webhook(app: &App, args: &RunArgs, key: &SyncKey, event: &Value) -> Result<ExitCode, Fail> {
    let report = app.syncs.take_event(key, event.to_string().into()).await?;
    for dataset in app.syncs.datasets(key).unwrap_or_default() {
        print(app, &dataset, args.records)?;
    }
    if let Some(checkpoint) = app.syncs.event_checkpoint(key)? {
        show::line(&format!("checkpoint {}", String::from_utf8_lossy(&checkpoint)))?;
    }
    let how = if report.ended.is_ok() { "taken" } else { "FAILED" };
    show::line(&format!("{}/{}/{}: event {how} (dry run, nothing kept)", key.source, key.connection, key.stream))?;
    let Err(why) = report.ended else { return Ok(ExitCode::SUCCESS) };
    show::line(&format!("  {}: {}", why.code, why.message))?;
    Ok(ExitCode::from(code::FAILED_STREAMS))
}

/// Stores the checkpoint that is given, as a run before would have.
async fn begin_at(app: &App, args: &RunArgs, key: &SyncKey) -> Result<(), Fail> {
    let Some(checkpoint) = &args.checkpoint else { return Ok(()) };
    let checkpoint = Bytes::from(checkpoint.to_string());
    let begun = match args.webhook {
        Some(_) => app.syncs.take_events_at(key, checkpoint).await?,
        None => app.syncs.begin_at(key, checkpoint).await?,
    };
    begun.map_err(|why| Fail::new(code::USAGE, format!("--checkpoint: {why}")))
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

/// Writes the recording, never over something.
fn keep(recording: &Recording, file: &Path) -> Result<(), Fail> {
    let written = recording.file().map_err(|why| Fail::new(code::FAILURE, why.message))?;
    let text = serde_json::to_string_pretty(&written).map_err(|why| Fail::new(code::INTERNAL, why.to_string()))?;
    let done = std::fs::File::create_new(file).and_then(|mut out| {
        use std::io::Write;
        out.write_all(text.as_bytes())?;
        out.write_all(b"\n")
    });
    done.map_err(|why| Fail::new(code::FAILURE, format!("{} cannot be written: {why}", file.display())))?;
    show::aside(&format!("recorded in {}", file.display()));
    Ok(())
}
