//! The Kafka topics of an app: those that are read, and those that changes are written to.

use super::{App, ShardContext, ended};
use crate::config::Settings;
use crate::engine::Engine;
use crate::engine::pipeline::Error;
use crate::ingest::topics::{Inputs, InputsParts};
use crate::registry::connections::Connections;
use crate::registry::definitions::Definitions;
use crate::sinks::topics::schemas::Schemas;
use crate::sinks::topics::{ExportOrder, Standing, follow};
use std::sync::Arc;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Topics of one app.
pub struct Topics {
    /// Those that are read, where a cluster is named.
    pub inputs: Option<Inputs>,
}

impl Topics {
    pub(super) fn open(
        engine: &Engine,
        settings: &Settings,
        definitions: &Definitions,
        connections: &Arc<Connections>,
        part: &ShardContext,
    ) -> Result<Topics, Error> {
        let inputs = settings.kafka.as_ref().map(|kafka| {
            Inputs::open(InputsParts {
                engine: engine.clone(),
                cluster: kafka.cluster.clone(),
                input: kafka.input,
                definitions: (*definitions.all()).clone(),
                connections: connections.clone(),
                other_shards: part.other_shards.clone(),
            })
        });
        Ok(Topics { inputs: inputs.transpose()? })
    }

    /// Begins to read topics, and to write changes to topics, as far as the settings ask for it.
    pub(super) fn start(&self, app: &App, tasks: &TaskTracker, stop: &CancellationToken) {
        if let Some(inputs) = self.inputs.clone() {
            let halt = stop.clone();
            tasks.spawn(async move { ended("topics in", inputs.run(halt).await) });
        }
        let Some(kafka) = &app.settings.kafka else { return };
        let Some(shape) = kafka.output.clone() else { return };
        let order = ExportOrder {
            engine: app.engine.clone(),
            cluster: kafka.cluster.clone(),
            shape,
            name: app.part.name.clone(),
            granted: app.part.other_shards.is_some(),
            schemas: Arc::new(Schemas::of(&*app.definitions.all())),
        };
        let (standing, _) = watch::channel(Standing::default());
        // It says itself why it ended.
        let follower = follow(order, standing, stop.clone());
        tasks.spawn(async move { follower.await.ok() });
    }
}
