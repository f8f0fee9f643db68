//! The program without Kafka: an app has no topics, and settings that name a cluster are refused before it opens.

use super::{App, ShardContext};
use crate::config::Settings;
use crate::engine::Engine;
use crate::engine::pipeline::Error;
use crate::registry::connections::Connections;
use crate::registry::definitions::Definitions;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// No topics.
pub struct Topics;

impl Topics {
    pub(super) fn open(
        _engine: &Engine,
        _settings: &Settings,
        _definitions: &Definitions,
        _connections: &Arc<Connections>,
        _part: &ShardContext,
    ) -> Result<Topics, Error> {
        Ok(Topics)
    }

    pub(super) fn start(&self, _app: &App, _tasks: &TaskTracker, _stop: &CancellationToken) {}
}
