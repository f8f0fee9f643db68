//! `syncline check SOURCE`: signs in and reads the first page of each stream. Nothing is kept.

use super::exit::{Fail, code};
use super::{CommonArgs, settings, show};
use crate::app::App;
use crate::engine::source::{Ask, Failure, Part};
use crate::registry::connections::Account;
use std::process::ExitCode;

/// Arguments of `check`.
#[derive(clap::Args)]
pub(crate) struct CheckArgs {
    /// Source
    source: String,
    /// Only this connection
    #[arg(long)]
    connection: Option<String>,
}

/// Checks every stream of every connection, and fails at the end if one failed.
pub(crate) async fn run(common: &CommonArgs, args: &CheckArgs) -> Result<ExitCode, Fail> {
    let app = settings::scratch(settings::load(common, &[], true)?).await?;
    let worst = check(&app, common, args).await;
    app.stop().await?;
    worst.map(ExitCode::from)
}

async fn check(app: &App, common: &CommonArgs, args: &CheckArgs) -> Result<u8, Fail> {
    let accounts = accounts(app, common, &args.source, args.connection.as_deref())?;
    let mut worst = 0;
    for account in accounts {
        match sign_in(app, &account).await {
            Ok(None) => {}
            Ok(Some(said)) => show::line(&format!("{}/{}: ok, {said}", account.key.source, account.key.id))?,
            Err(failure) => {
                show::line(&format!("{}/{}: FAILED, {failure}", account.key.source, account.key.id))?;
                worst = worst.max(code_of(&failure));
                continue;
            }
        }
        let keys = app.syncs.resolve(&common.environment, &args.source, Some(&account.key.id), &[]);
        for key in keys.map_err(|e| Fail::new(code::FAILURE, e.to_string()))? {
            let place = format!("{}/{}/{}", key.source, key.connection, key.stream);
            match first_page(app, &account, &key.stream).await {
                Ok(said) => show::line(&format!("{place}: ok, {said}"))?,
                Err(failure) => {
                    show::line(&format!("{place}: FAILED, {failure}"))?;
                    worst = worst.max(code_of(&failure));
                }
            }
        }
    }
    Ok(worst)
}

/// The accounts that are meant.
pub(crate) fn accounts(
    app: &App,
    common: &CommonArgs,
    source: &str,
    connection: Option<&str>,
) -> Result<Vec<std::sync::Arc<Account>>, Fail> {
    if app.definitions.get(source).is_none() {
        let all = app.definitions.all();
        let known: Vec<&str> = all.keys().map(String::as_str).collect();
        let fail = Fail::new(code::FAILURE, format!("no source `{source}` is defined"));
        return Err(if known.is_empty() {
            fail.hint("`syncline init` writes a definition")
        } else {
            fail.hint(format!("defined are: {}", known.join(", ")))
        });
    }
    let mut all = app.connections.list(&common.environment);
    all.retain(|a| a.key.source == source && connection.is_none_or(|id| a.key.id == id));
    if all.is_empty() {
        let what = connection.map_or_else(|| "no connection".into(), |id| format!("no connection `{id}`"));
        return Err(Fail::new(code::FAILURE, format!("{what} of source `{source}` in `{}`", common.environment))
            .hint("add one under `connections:` in its definition"));
    }
    Ok(all)
}

/// The definition's own test of the credentials, where it has one.
async fn sign_in(app: &App, account: &Account) -> Result<Option<String>, Failure> {
    let Some(source) = app.sources.get(&account.key.source) else { return Ok(None) };
    let fields = source.check(&account.connection).await?;
    if let Some(credential) = without(app, account) {
        return Ok(Some(format!("without {credential}: requests are not signed in")));
    }
    Ok(fields.map(|fields| match fields.len() {
        0 => "authenticated".to_owned(),
        _ => format!(
            "authenticated; the provider reported: {}",
            fields.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
        ),
    }))
}

/// The credential that an account goes without.
pub(crate) fn without(app: &App, account: &Account) -> Option<&'static str> {
    let definition = app.definitions.get(&account.key.source)?;
    definition.auth.goes_without(&account.connection.credentials)
}

async fn first_page(app: &App, account: &Account, stream: &str) -> Result<String, Failure> {
    let missing = |what: &str| Failure {
        code: "unknown",
        message: format!("{what} is not there"),
        status: None,
        retry: false,
        retry_after: None,
    };
    let source = app.sources.get(&account.key.source).ok_or_else(|| missing("the source"))?;
    let definition = app.definitions.get(&account.key.source).ok_or_else(|| missing("the definition"))?;
    let stream = definition.stream(stream).ok_or_else(|| missing("the stream"))?;
    let now = app.engine.clock().now();
    let start = stream.incremental.as_ref().and_then(|i| i.start).unwrap_or(now);
    let part = if stream.lists() { Part::Full } else { Part::Incremental { since: start, until: now } };
    let connection = account.connection.clone();
    let ask = Ask { stream: stream.name.clone(), connection, variant: "base".into(), part, started_at: now };
    let page = source.poll(&ask, None).await?;
    let more = if page.next.is_some() { ", and there are more pages" } else { "" };
    let aside = match page.quarantined.first() {
        Some(first) => format!("; {} could not be taken ({}: {})", page.quarantined.len(), first.code, first.message),
        None => String::new(),
    };
    Ok(format!("{} record(s) on the first page{more}{aside}", page.observations.len()))
}

fn code_of(failure: &Failure) -> u8 {
    match failure.status {
        Some(401 | 403) => code::DENIED,
        _ => code::FAILURE,
    }
}
