//! `syncline serve` where settings name a Kafka cluster: the broker is asked, and with the log in Kafka the process joins others.

use super::exit::{Fail, code};
use super::show;
use super::signals::Signals;
use crate::api;
use crate::cluster::{ClusterMember, ClusterNode};
use crate::config::{LogKind, Settings};
use crate::engine::time::SystemClock;
use crate::server;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Serves as one process among others, with the log in Kafka.
pub(super) async fn run(
    settings: Settings,
    listener: tokio::net::TcpListener,
    address: SocketAddr,
    mut signals: Signals,
) -> Result<ExitCode, Fail> {
    let node = ClusterNode::start(settings, Arc::new(SystemClock), &format!("http://{address}")).await?;
    super::serve::reload_at_hangup(node.front())?;
    let stop = CancellationToken::new();
    show::line(&format!("syncline {} listening on http://{address}", env!("CARGO_PKG_VERSION")))?;
    for name in node.front().definitions.all().keys() {
        let connections = node.front().connections.of_source(name).len();
        show::line(&format!("source   {name}: {connections} connection(s) over {} partitions", node.spread().count))?;
        super::serve::webhooks(node.front(), name)?;
    }
    let router =
        api::cluster::router(node.clone(), stop.clone()).map_err(|e| Fail::new(code::INTERNAL, e.to_string()))?;
    let ingress = node.front().settings.ingress.clone();
    let serving = tokio::spawn(server::serve_within(listener, router, stop.clone(), ingress));
    let code = signals.wait().await;
    signals.hard();
    tracing::info!("stopping");
    stop.cancel();
    let _ = serving.await;
    node.stop().await?;
    tracing::info!("stopped");
    Ok(ExitCode::from(code))
}

/// With the log in Kafka nothing works without it. With the log in the data folder, polls and webhooks do: a broker that is
/// not there is told, and topics follow when it comes.
pub(super) async fn kafka_must_answer(settings: &Settings) -> Result<(), Fail> {
    let Some(kafka) = &settings.kafka else { return Ok(()) };
    let cluster = kafka.cluster.clone();
    if settings.log == LogKind::Kafka {
        return cluster.check().await.map_err(|failure| {
            Fail::new(code::UNAVAILABLE, format!("{}: {}", failure.code, failure.message))
                .hint("the log is kept in Kafka (`log: kafka`), so nothing can begin without it")
        });
    }
    tokio::spawn(async move {
        if let Err(failure) = cluster.check().await {
            tracing::warn!(code = failure.code, "topics must wait, everything else goes on: {}", failure.message);
        }
    });
    Ok(())
}
