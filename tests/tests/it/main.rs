//! The program and the engine through their public doors, with real servers and real clients: one module for each subject.
//!
//! One executable, since each links the database anew.

mod actions;
mod api;
mod connect;
mod connect_browser;
mod connections;
mod content;
mod described_actions;
mod elsewhere;
mod engine;
mod events;
mod functions;
mod functions_by_hand;
mod functions_reload;
mod imports;
mod integrations;
mod kafka_changelog;
mod kafka_in;
mod kafka_members;
mod kafka_out;
mod kafka_secure;
mod large;
mod log;
mod nango;
mod oauth_flow;
mod octokit;
mod on_events;
mod oracle;
mod pocketbase;
mod presets;
mod proxy;
mod quarantine;
mod reading;
mod secrets;
mod storage;
mod syncs;
mod webhooks;
#[cfg(target_os = "linux")]
mod worker_memory;
