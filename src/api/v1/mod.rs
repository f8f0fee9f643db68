//! Our own surface, under `/v1`: one file per resource.
//!
//! | file | routes |
//! |---|---|
//! | `current` | `/v1/records` |
//! | `changes` | `/v1/changes` |
//! | `runs` | `/v1/runs`, `/v1/deletes` |
//! | `quarantine` | `/v1/quarantine` |
//! | `deliveries` | `/v1/deliveries` |
//! | `journal` | `/v1/journal` |
//! | `schemas` | `/v1/schemas` |
//! | `input_schema` | `/v1/schemas/input` |
//! | `inputs` | `/v1/inputs` |
//! | `views` | `/v1/views` |
//! | `endpoints` | `/v1/endpoints` |
//! | `functions` | `/v1/functions` |
//! | `checkpoint` | `/v1/checkpoint` |
//! | `webhooks` | `/v1/webhooks` |
//!
//! Connections are made and changed alike on both surfaces, so `/v1/connections` stands with `compat`.

mod changes;
mod checkpoint;
mod current;
mod deliveries;
mod endpoints;
#[cfg(feature = "functions")]
mod functions;
#[cfg(feature = "kafka")]
mod input_schema;
#[cfg(feature = "kafka")]
mod inputs;
mod journal;
mod quarantine;
mod runs;
#[cfg(feature = "kafka")]
mod schemas;
mod views;
mod webhooks;

use super::routes::Routes;

/// Routes whose answers are written in one piece.
pub(super) fn whole() -> Routes {
    topics()
        .merge(runs::routes())
        .merge(quarantine::routes())
        .merge(deliveries::routes())
        .merge(journal::routes())
        .merge(views::routes())
        .merge(endpoints::routes())
        .merge(functions())
        .merge(checkpoint::routes())
        .merge(webhooks::routes())
}

#[cfg(feature = "functions")]
fn functions() -> Routes {
    functions::routes()
}

#[cfg(not(feature = "functions"))]
fn functions() -> Routes {
    Routes::new()
}

/// What is about Kafka topics.
#[cfg(feature = "kafka")]
fn topics() -> Routes {
    inputs::routes().merge(schemas::routes()).merge(input_schema::routes())
}

#[cfg(not(feature = "kafka"))]
fn topics() -> Routes {
    Routes::new()
}

/// Pages and streams, which count their own memory.
pub(super) fn paged() -> Routes {
    current::routes().merge(changes::routes())
}
