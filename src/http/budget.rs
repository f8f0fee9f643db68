//! How often a caller may ask: by address, and by key. Wrong keys are counted by address, so that guessing gets nowhere.
//!
//! It is the outermost that judges a request: handed on to another router or process it is not counted again.

use super::error::Refusal;
use super::{HttpContext, auth, sender};
use crate::admission::{Address, Exhausted};
use crate::telemetry::record;
use axum::extract::{Request, State};
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

/// Lets pass who is within his budgets. Whoever has a good key is a known caller from here on.
pub(crate) async fn keep(State(http): State<HttpContext>, request: Request, next: Next) -> Response {
    let (mut head, body) = request.into_parts();
    match http.spend(&mut head) {
        Ok(()) => next.run(Request::from_parts(head, body)).await,
        Err(refusal) => refusal.into_response(),
    }
}

impl HttpContext {
    /// The same of a head alone.
    pub(crate) fn spend(&self, head: &mut Parts) -> Result<(), Refusal> {
        let (from, now) = (sender(&head.extensions), self.clock.now());
        self.bounds.request(from, now).map_err(refusal)?;
        // A token of another kind is judged where it is used.
        if !head.headers.contains_key(AUTHORIZATION) || auth::is_token(&head.headers) {
            return Ok(());
        }
        match self.caller(&head.headers) {
            Ok(caller) => {
                self.bounds.good_key(caller.key, from, now).map_err(refusal)?;
                head.extensions.insert(caller);
                Ok(())
            }
            // Who is within his budget gets the 401 that says what is wrong.
            Err(_) => self.bounds.wrong_key(from, now).map_err(refusal),
        }
    }
}

impl HttpContext {
    /// A token that stands for nothing came from here: it is counted like a wrong key.
    pub(crate) fn wrong_token(&self, from: Address) -> Result<(), Refusal> {
        self.bounds.wrong_key(from, self.clock.now()).map_err(refusal)
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
