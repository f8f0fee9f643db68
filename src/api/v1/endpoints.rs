//! `/v1/endpoints`: who is told by outgoing webhooks, who of them said that it is gone, and the way back for it.

use crate::api::Api;
use crate::api::cluster::across::MergedAnswer;
use crate::api::cluster::target::all_owners;
use crate::api::routes::Routes;
use crate::config::Role;
use crate::http::auth::Caller;
use crate::http::error::Refusal;
use crate::http::query::QueryFields;
use crate::sinks::deliveries::EndpointStatus;
use axum::extract::{Path, RawQuery, State};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};

pub(super) fn routes() -> Routes {
    // Each owner delivers for its own connections, and each may have been told that the endpoint is gone.
    Routes::new().get("/v1/endpoints", list, all_owners::<EndpointList>()).post(
        "/v1/endpoints/{name}/enable",
        enable,
        all_owners::<EnabledEndpoint>(),
    )
}

/// Receivers of outgoing webhooks.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct EndpointList {
    endpoints: Vec<EndpointReport>,
}

/// One of them, as it stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct EndpointReport {
    name: String,
    host: Option<String>,
    disabled: bool,
    disabled_at: Option<String>,
}

/// One that gets deliveries again.
#[derive(Serialize, Deserialize)]
struct EnabledEndpoint {
    endpoint: String,
    disabled: bool,
}

impl MergedAnswer for EndpointList {
    /// One that is disabled for some connections is disabled.
    fn merge(mut self, other: EndpointList) -> EndpointList {
        for one in other.endpoints {
            match self.endpoints.iter_mut().find(|known| known.name == one.name) {
                Some(known) => {
                    known.disabled |= one.disabled;
                    known.host = known.host.take().or(one.host);
                    known.disabled_at = known.disabled_at.take().or(one.disabled_at);
                }
                None => self.endpoints.push(one),
            }
        }
        self
    }
}

impl MergedAnswer for EnabledEndpoint {
    fn merge(self, _: EnabledEndpoint) -> EnabledEndpoint {
        self
    }
}

async fn list(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
) -> Result<Json<EndpointList>, Refusal> {
    QueryFields::read(query.as_deref(), &[]).done()?;
    let all = api.app.outbox.endpoints(&caller.environment);
    Ok(Json(EndpointList { endpoints: all.into_iter().map(describe).collect() }))
}

/// Delivers again, from the first undelivered on. One that is not disabled stays as it is.
async fn enable(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<Json<EnabledEndpoint>, Refusal> {
    caller.must_be(Role::Admin)?;
    if !api.app.outbox.has(&name, &caller.environment) {
        return Err(Refusal::not_found(format!("no endpoint `{name}`; GET /v1/endpoints lists them")));
    }
    api.app.outbox.enable(&name).await?;
    Ok(Json(EnabledEndpoint { endpoint: name, disabled: false }))
}

fn describe(endpoint: EndpointStatus) -> EndpointReport {
    EndpointReport {
        name: endpoint.name,
        host: endpoint.host,
        disabled: endpoint.disabled_at.is_some(),
        disabled_at: endpoint.disabled_at.map(|at| at.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_disabled_where_one_partition_was_told_so() {
        let endpoint = |name: &str, at: Option<&str>| EndpointReport {
            name: name.to_owned(),
            host: Some("example.com".to_owned()),
            disabled: at.is_some(),
            disabled_at: at.map(str::to_owned),
        };
        let at = Some("2026-04-14T18:46:03.000000Z");
        let list = |endpoints: [EndpointReport; 2]| EndpointList { endpoints: endpoints.into() };
        let all =
            list([endpoint("a", None), endpoint("b", None)]).merge(list([endpoint("a", at), endpoint("b", None)]));
        assert_eq!(all, list([endpoint("a", at), endpoint("b", None)]));
    }
}
