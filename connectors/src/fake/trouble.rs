//! What goes wrong at providers: budgets, failures, slow answers; and what they say about it.
//!
//! Promises: the same row of requests meets the same failures. Everything here happens before the answer is made, except
//! that a 304 gives its request back to the budget, as providers do that want to be asked politely.

use super::generator::Draw;
use super::{Shared, lock};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use syncline_engine::model::Timestamp;

/// Which account a request was signed in for; put into the request by [`guard`].
#[derive(Clone, Copy)]
pub(super) struct SignedIn(pub usize);

/// One account's budget of requests.
#[derive(Debug, Default)]
pub(super) struct Budget {
    began: Option<Timestamp>,
    used: u32,
}

struct Allowance {
    limit: u32,
    remaining: u32,
    reset: Timestamp,
    refused: bool,
}

/// Signs in, counts, delays, refuses or fails; else lets the request through.
pub(super) async fn guard(State(shared): State<Arc<Shared>>, mut request: Request, next: Next) -> Response {
    let number = shared.tally.requests.fetch_add(1, Ordering::Relaxed);
    let Some(account) = sign_in(&shared, request.headers()) else {
        return refuse(StatusCode::UNAUTHORIZED, "unauthorized", "Authorization: Bearer TOKEN is missing or wrong");
    };
    let mut draw = Draw::new(shared.options.seed ^ 0x7407_b1e5 ^ number.wrapping_mul(0x9e37_79b9));
    if let Some((share, span)) = shared.options.slow
        && draw.chance(share)
    {
        shared.options.clock.sleep(span).await;
    }
    let allowance = shared.options.rate.map(|(limit, per)| spend(&shared, account, limit, per));
    let mut response = match &allowance {
        Some(a) if a.refused => {
            shared.tally.limited.fetch_add(1, Ordering::Relaxed);
            refuse(StatusCode::TOO_MANY_REQUESTS, "rate_limited", "too many requests")
        }
        _ if draw.chance(shared.options.failing) => {
            shared.tally.failed.fetch_add(1, Ordering::Relaxed);
            let status =
                if draw.chance(0.5) { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::INTERNAL_SERVER_ERROR };
            refuse(status, "unwell", "something went wrong on our side")
        }
        _ => {
            request.extensions_mut().insert(SignedIn(account));
            next.run(request).await
        }
    };
    if response.status() == StatusCode::NOT_MODIFIED {
        shared.tally.not_modified.fetch_add(1, Ordering::Relaxed);
        give_back(&shared, account);
    }
    tell(&shared, allowance, &mut response);
    response
}

/// An error as this API writes it.
pub(super) fn refuse(status: StatusCode, code: &str, message: &str) -> Response {
    let body = serde_json::json!({"error": {"code": code, "message": message}});
    (status, axum::Json(body)).into_response()
}

fn sign_in(shared: &Shared, headers: &HeaderMap) -> Option<usize> {
    let token = headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")?;
    shared.accounts.iter().position(|a| a.token == token)
}

fn spend(shared: &Shared, account: usize, limit: u32, per: Duration) -> Allowance {
    let now = shared.options.clock.now();
    let Some(account) = shared.accounts.get(account) else {
        return Allowance { limit, remaining: 0, reset: now, refused: true };
    };
    let mut budget = lock(&account.budget);
    let began = budget.began.filter(|began| now < began.plus(per)).unwrap_or_else(|| {
        budget.used = 0;
        now
    });
    budget.began = Some(began);
    let refused = budget.used >= limit;
    if !refused {
        budget.used += 1;
    }
    Allowance { limit, remaining: limit.saturating_sub(budget.used), reset: began.plus(per), refused }
}

fn give_back(shared: &Shared, account: usize) {
    if let Some(account) = shared.accounts.get(account) {
        let mut budget = lock(&account.budget);
        budget.used = budget.used.saturating_sub(1);
    }
}

fn tell(shared: &Shared, allowance: Option<Allowance>, response: &mut Response) {
    let now = shared.options.clock.now();
    let mut put = |name: &'static str, value: String| {
        if let Ok(value) = HeaderValue::from_str(&value) {
            response.headers_mut().insert(name, value);
        }
    };
    let date = std::time::UNIX_EPOCH + Duration::from_secs(u64::try_from(now.seconds()).unwrap_or(0));
    put("date", httpdate::fmt_http_date(date));
    let Some(a) = allowance else { return };
    // Rounded up: who waits as told must find the budget open.
    let wait = a.reset.since(now).as_millis().div_ceil(1_000).max(1);
    put("x-ratelimit-limit", a.limit.to_string());
    put("x-ratelimit-remaining", a.remaining.to_string());
    put("x-ratelimit-reset", a.reset.plus(Duration::from_micros(999_999)).seconds().to_string());
    if a.refused {
        put("retry-after", wait.to_string());
    }
}
