//! Sinks of the program's own code: each is fed by the engine, and left alone for a while after it has refused changes.

use crate::engine::Engine;
use crate::engine::pipeline::Fed;
use crate::engine::sink::Sink;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long a sink that has refused a set of changes is left alone before it is offered the same set again.
pub const SINK_REST: Duration = Duration::from_secs(60);

/// Begins to feed sinks.
pub(crate) fn start(
    engine: &Engine,
    sinks: &BTreeMap<String, Arc<dyn Sink>>,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) {
    for (name, sink) in sinks {
        tasks.spawn(keep_fed(engine.clone(), name.clone(), sink.clone(), stop.clone()));
    }
}

/// Feeds a sink until the stop. One that refuses is left alone for a while: nothing is passed over for it.
async fn keep_fed(engine: Engine, name: String, sink: Arc<dyn Sink>, stop: CancellationToken) {
    loop {
        match engine.feed(&name, sink.clone(), stop.clone().cancelled_owned()).await {
            Ok(Fed::Halted) => return,
            Ok(Fed::Refused(why)) => {
                tracing::error!(sink = name, code = why.code, %why, rest = ?SINK_REST, "a sink refuses changes; they are offered again later");
            }
            Err(error) => {
                tracing::error!(sink = name, %error, "a sink gets no more changes until the next start");
                return;
            }
        }
        let clock = engine.clock();
        tokio::select! {
            () = clock.sleep(SINK_REST) => {}
            () = stop.cancelled() => return,
        }
    }
}
