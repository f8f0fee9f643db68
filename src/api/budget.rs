//! How often a caller may ask: by address, and by key. Wrong keys are counted by address, so that guessing gets nowhere.
//!
//! It is the outermost that judges a request: handed on to another router or process it is not counted again.

use super::Api;
use super::auth;
use super::error::Refusal;
use crate::admission::{Address, Bounds, Exhausted};
use crate::config::ApiKey;
use crate::engine::model::Timestamp;
use crate::telemetry::record;
use axum::extract::{Request, State};
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

/// Lets pass who is within his budgets. Whoever has a good key is a known caller from here on.
pub(super) async fn keep(State(api): State<Api>, request: Request, next: Next) -> Response {
    let (mut head, body) = request.into_parts();
    let now = api.app.engine.clock().now();
    match check(&api.bounds, &api.app.settings.api_keys, &mut head, now) {
        Ok(()) => next.run(Request::from_parts(head, body)).await,
        Err(refusal) => refusal.into_response(),
    }
}

/// The same of a head alone.
pub(super) fn check(bounds: &Bounds, keys: &[ApiKey], head: &mut Parts, now: Timestamp) -> Result<(), Refusal> {
    let from = head.extensions.get::<Address>().copied().unwrap_or(Address::UNKNOWN);
    bounds.request(from, now).map_err(refusal)?;
    if !head.headers.contains_key(AUTHORIZATION) {
        return Ok(());
    }
    match auth::find(&head.headers, keys) {
        Ok(caller) => {
            bounds.good_key(caller.key, from, now).map_err(refusal)?;
            head.extensions.insert(caller);
            Ok(())
        }
        // Who is within his budget gets the 401 that says what is wrong.
        Err(_) => bounds.wrong_key(from, now).map_err(refusal),
    }
}

fn refusal(why: Exhausted) -> Refusal {
    record::over_budget(why.budget);
    let message = match why.budget {
        "key" => "too many requests with this key",
        "wrong_keys" => "too many wrong keys came from this address",
        _ => "too many requests from this address",
    };
    Refusal::too_many(why.seconds(), format!("{message}; wait for {} s", why.seconds()))
}
