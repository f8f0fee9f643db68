//! `/metrics`: what the program counts and times, for Prometheus.
//!
//! They are on the port that providers send webhooks to, so a key is asked for (any role) unless the settings say
//! `metrics: {open: true}`. A key sees the figures of its environment; those of the whole process, over all environments, see
//! keys that belong to none, and everybody where there is but one.

use super::Api;
use super::auth::Caller;
use super::cluster::target::local;
use super::error::Refusal;
use super::routes::Routes;
use crate::telemetry::{record, scrape};
use axum::Extension;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderValue, Method, header};
use axum::middleware::Next;
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

/// Times every request of a route there is, from its head to the head of its answer.
pub(super) async fn time(State(api): State<Api>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let method = method(request.method());
    let clock = api.app.engine.clock();
    let came = clock.now();
    let response = next.run(request).await;
    if let Some(route) = route {
        record::request(method, route, response.status().as_u16(), clock.now().since(came));
    }
    response
}

/// Anybody can send any word as a method: those nobody serves share one.
fn method(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "HEAD" => "HEAD",
        _ => "_OTHER",
    }
}
