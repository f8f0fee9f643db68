//! What the program keeps in the engine's store beside records: one line for each keyspace, with who writes it, how much it
//! may hold and for how long. The engine's own stand in [`Keyspace`].
//!
//! | keyspace | written by | bound | kept |
//! |---|---|---|---|
//! | [`CONNECTION`] | `registry` | 100,000 made over REST | until the connection is deleted |
//! | [`DEDUPE`] | `ingest::dedup` | what arrives within its age | until the expiry of the id, 8 days as a rule |
//! | [`UNROUTED`] | `ingest::webhooks` | 10,000 | 7 days |
//! | [`REFETCH`] | `ingest::webhooks` | one for each record and event | until the record was read |
//! | [`EVENT`] | `ingest::webhooks` | one for each event and function that takes it | until the function has taken it |
//! | [`SETTING`] | `sinks::deliveries` | 10,000 dead letters, one entry for each disabled endpoint | 30 days; until it is enabled |
//! | [`ACTION`] | `app::actions` | 1,000 that wait and 100,000 results in an environment | 24 hours from the end of the action |
//! | [`CREATION`] | `registry` | one for each new connection and function on its creation | until the function has run |
//! | [`INTEGRATION`] | `registry` | 1,000 | until the integration is deleted |
//! | [`FLOW`] | `app::connect` | 20,000 | 10 minutes |
//! | [`SESSION`] | `app::connect` | 10,000 live ones in an environment | 30 minutes |

use crate::engine::pipeline::Keyspace;

/// Connections: (environment, source, connection).
pub const CONNECTION: Keyspace = Keyspace::new(1);
/// Ids of events: (environment, source, connection, id); the value is the expiry.
pub const DEDUPE: Keyspace = Keyspace::new(6);
/// Webhooks no connection was found for: (environment, source, position).
pub const UNROUTED: Keyspace = Keyspace::new(9);
/// Records that webhooks asked to be read again: (environment, source, connection, stream, key).
pub const REFETCH: Keyspace = Keyspace::new(10);
/// What is decided while the program runs: dead letters, endpoints that are disabled; free keys.
pub const SETTING: Keyspace = Keyspace::new(11);
/// Events that functions are to take: (environment, source, connection, sync, position, number in the request).
pub const EVENT: Keyspace = Keyspace::new(65);
/// Actions that were called asynchronously: (environment, id).
pub const ACTION: Keyspace = Keyspace::new(66);
/// Functions that are to run because a connection was created: (environment, source, connection, function).
pub const CREATION: Keyspace = Keyspace::new(67);
/// Integrations that stand in no file: (source).
pub const INTEGRATION: Keyspace = Keyspace::new(70);
/// Connect sessions: (hash of the token).
pub const SESSION: Keyspace = Keyspace::new(71);
/// Trips of people to a provider and back: (hash of the state).
pub const FLOW: Keyspace = Keyspace::new(72);
