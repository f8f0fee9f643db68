//! What should run: settings, connections, schedules, runs, deliveries. [`App`] joins them; surfaces hold an `Arc<App>`.

pub mod config;
pub mod connections;
pub mod deliver;
pub mod hooks;
pub mod scheduler;
pub mod scope;
pub mod syncs;

use crate::connectors::rest::definition::Definition;
use crate::engine::Engine;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The running program: one engine, the definitions, the connections and what is scheduled for them.
pub struct App {
    /// The engine.
    pub engine: Engine,
    /// Settings in force.
    pub settings: config::Settings,
    /// Definitions by source name.
    pub definitions: BTreeMap<String, Arc<Definition>>,
    /// Accounts.
    pub connections: connections::Connections,
    /// Syncs: one stream of one connection on a schedule.
    pub syncs: syncs::Syncs,
    /// Webhooks on their way in.
    pub hooks: hooks::Hooks,
}
