//! `/metrics`: what the program counts and times, for Prometheus.
//!
//! They are on the port that providers send webhooks to, so a key is asked for (any role) unless the settings say
//! `metrics: {open: true}`. A key sees the figures of its environment; those of the whole process, over all environments, see
//! keys that belong to none, and everybody where there is but one.

use super::Api;
use super::cluster::target::local;
use super::routes::Routes;
use crate::http::auth::Caller;
use crate::http::error::Refusal;
use crate::telemetry::scrape;
use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};

/// What Prometheus expects of the text.
const FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

pub(super) fn routes() -> Routes {
    Routes::new().get("/metrics", show, local())
}

async fn show(State(api): State<Api>, caller: Option<Extension<Caller>>) -> Result<Response, Refusal> {
    let app = api.app.clone();
    let seen = move || Ok(scrape(caller.as_ref().and_then(|caller| app.figures_of(&caller.environment))));
    let text = api.read(seen).await?;
    let elsewhere = || Refusal::busy("metrics_elsewhere", "the program around this one collects the metrics");
    let mut response = text.ok_or_else(elsewhere)?.into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(FORMAT));
    Ok(response)
}
