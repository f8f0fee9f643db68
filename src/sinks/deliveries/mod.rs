//! Webhooks on their way out: what is owed, when to try, what becomes of what cannot be delivered.
//!
//! | file | what |
//! |---|---|
//! | [`announce`] | from notices of the engine to owed deliveries: pure |
//! | [`lanes`] | what waits in which lane: pure |
//! | [`schedule`] | when the next attempt is: pure |
//! | [`dead`] | what was given up |
//! | [`outbox`] | the task that makes the attempts, lane by lane |
//!
//! Promises: what is owed is committed with the changes it tells of; it is tried at least once, in order within a lane, with
//! the same id on every try; what is given up is kept with its reason.

pub mod announce;
pub mod dead;
mod lanes;
pub mod outbox;
pub mod schedule;

pub use announce::Announcer;
pub use dead::DeadLetter;
pub use outbox::{EndpointStatus, Outbox};

use crate::config::Endpoint;
use crate::connectors::deliveries::DeliveryTarget;
use crate::engine::sink::Delivery;
use crate::registry::connections::Connections;
use std::collections::BTreeMap;

/// Name under which a connection's own receiver stands in the outbox.
const OVERRIDE: &str = "override:";

fn override_name(environment: &str, source: &str, connection: &str) -> String {
    format!("{OVERRIDE}{environment}/{source}/{connection}")
}

/// A connection's own receiver has the rules and secrets of the first endpoint of its environment.
fn first_of<'e>(endpoints: &'e BTreeMap<String, Endpoint>, environment: &str) -> Option<&'e Endpoint> {
    endpoints.values().find(|endpoint| endpoint.environment == environment)
}

/// The environment of the connection a delivery tells of, as its lane says.
fn environment_of(delivery: &Delivery) -> Option<&str> {
    let place = delivery.lane.strip_prefix(delivery.endpoint.as_str())?.strip_prefix('|')?;
    place.split_once('/').map(|(environment, _)| environment)
}

/// Where deliveries of an endpoint name go; `None` if it is not there any more.
fn target(
    endpoints: &BTreeMap<String, Endpoint>,
    connections: &Connections,
    name: &str,
) -> Option<(DeliveryTarget, Vec<u64>)> {
    let (url, endpoint) = match name.strip_prefix(OVERRIDE) {
        None => endpoints.get(name).map(|endpoint| (endpoint.url.clone(), endpoint))?,
        Some(place) => {
            let mut parts = place.splitn(3, '/');
            let environment = parts.next()?;
            let account = connections.get(environment, parts.next()?, parts.next()?)?;
            (account.webhook_url_override.clone()?, first_of(endpoints, environment)?)
        }
    };
    let target = DeliveryTarget { url, secrets: endpoint.secrets.clone(), legacy_signature: endpoint.legacy_signature };
    Some((target, endpoint.schedule.clone()))
}
