//! `syncline serve`: the API, the scheduler and the webhooks, until a signal or a store that has failed.
//!
//! A failed write closes the store for good, and only a restart reads again what the disk has: the program tells why, answers
//! probes with it for a moment, and ends with a code of its own, so that whoever watches over it starts it again.

use super::exit::{Fail, code};
#[cfg(feature = "kafka")]
use super::serve_cluster;
use super::signals::Signals;
use super::{CommonArgs, settings, show};
use crate::api;
use crate::app::App;
use crate::config::Settings;
use crate::engine::pipeline::Error;
use crate::ingest::webhooks::HookUrl;
use crate::server;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

/// How long a server whose store has failed still answers, so that probes hear why.
const LINGER: Duration = Duration::from_secs(3);

/// Arguments of `serve`.
#[derive(clap::Args)]
pub(crate) struct ServeArgs {
    /// Address to listen on; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
}

/// Serves until SIGINT or SIGTERM.
pub(crate) async fn run(common: &CommonArgs, args: &ServeArgs) -> Result<ExitCode, Fail> {
    let mut signals = Signals::new()?;
    let flags: Vec<(&str, &str)> = args.listen.iter().map(|address| ("listen", address.as_str())).collect();
    let settings = settings::load(common, &flags, false)?;
    must_have_keys(&settings)?;
    // The port first: it is quickly had and quickly given back.
    let listener = server::bind(&settings.listen).await?;
    let address = listener.local_addr().map_err(|e| Fail::new(code::INTERNAL, e.to_string()))?;
    #[cfg(feature = "kafka")]
    {
        tokio::select! {
            answered = serve_cluster::kafka_must_answer(&settings) => answered?,
            code = signals.wait() => return Ok(ExitCode::from(code)),
        }
        if settings.log == crate::config::LogKind::Kafka {
            return serve_cluster::run(settings, listener, address, signals).await;
        }
    }
    let app = settings::open(settings).await?;
    let running = app.start();
    reload_at_hangup(&app)?;
    announce(&app, address)?;
    let (router, ingress) = (api::router_until(app.clone(), running.stopping()), app.settings.ingress.clone());
    let serving = tokio::spawn(server::serve_within(listener, router, running.stopping(), ingress));
    let ended = tokio::select! {
        code = signals.wait() => Ok(code),
        why = app.engine.until_failed() => Err(why),
    };
    if let Err(why) = &ended {
        tracing::error!(
            why,
            "the store has failed: nothing more is taken, and the program ends; what was answered is kept"
        );
        let clock = app.engine.clock();
        tokio::select! {
            () = clock.sleep(LINGER) => {}
            _ = signals.wait() => {}
        }
    }
    signals.hard();
    tracing::info!("stopping");
    running.stopping().cancel();
    // Requests in progress are answered while the store is still open.
    let _ = serving.await;
    drop(app);
    let stopped = running.stop().await;
    let code = ended.map_err(Error::Poisoned)?;
    stopped?;
    tracing::info!("stopped");
    Ok(ExitCode::from(code))
}

/// Functions are read again at SIGHUP, as they are when their files change.
#[cfg(feature = "functions")]
pub(super) fn reload_at_hangup(app: &App) -> Result<(), Fail> {
    match app.definitions.functions.reload.clone() {
        Some(reload) => super::signals::at_hangup(move || reload.ask()),
        None => Ok(()),
    }
}

#[cfg(not(feature = "functions"))]
pub(super) fn reload_at_hangup(_: &App) -> Result<(), Fail> {
    Ok(())
}

fn must_have_keys(settings: &Settings) -> Result<(), Fail> {
    if settings.api_keys.is_empty() {
        return Err(Fail::new(code::CONFIG, "no API key is set, so no client could read anything").hint(
            "`syncline init` writes one; or add `api_keys: [{name: me, key: \"env:SYNCLINE_API_KEY\", role: admin}]` \
             to syncline.yaml",
        ));
    }
    Ok(())
}

fn announce(app: &App, address: SocketAddr) -> Result<(), Fail> {
    show::line(&format!("syncline {} listening on http://{address}", env!("CARGO_PKG_VERSION")))?;
    show::line(&format!("data     {}", app.settings.data_dir.display()))?;
    if app.definitions.is_empty() {
        show::line(&format!("sources  none in {}; `syncline init` writes one", app.settings.sources.join(", ")))?;
    }
    for (name, definition) in app.definitions.all().iter() {
        let streams: Vec<&str> = definition.streams.iter().map(|s| s.name.as_str()).collect();
        let connections = app.connections.of_source(name).len();
        show::line(&format!("source   {name}: {} ({connections} connection(s))", streams.join(", ")))?;
        webhooks(app, name)?;
    }
    Ok(())
}

/// Says where providers of a source post to.
pub(super) fn webhooks(app: &App, source: &str) -> Result<(), Fail> {
    let urls = app.hooks.hook_urls(Some(source)).into_iter();
    urls.map(|HookUrl { entrance, url, .. }| format!("webhook  {source}, {entrance}: {url}"))
        .try_for_each(|line| show::line(&line))
}
