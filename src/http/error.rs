//! Refusals: one body on all routes, written where the request id is known.
//!
//! ```json
//! {"error": {"code": "invalid_query_params", "message": "…", "errors": [{"code": "…", "message": "…", "path": ["limit"]}],
//!            "docs_url": "…", "request_id": "req_…"}}
//! ```
//! Under `/v1`, `Accept: application/problem+json` gets the same as an RFC 9457 problem.

use super::answers::JSON;
use super::request::RequestId;
use crate::connectors::rest::relay::ORIGIN;
use crate::engine::{log, pipeline};
use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{ACCEPT, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Where each code is explained.
const DOCS: &str = "docs/api.md#";

/// Seconds a caller should wait when the server cannot serve just now.
const BUSY_SECONDS: u64 = 5;

/// Why a request is not served.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    status: StatusCode,
    code: &'static str,
    message: String,
    faults: Vec<InputFault>,
    payload: Option<Box<Value>>,
    retry_after: Option<u64>,
}

/// One thing that is wrong with a query or body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InputFault {
    /// Stable word.
    pub code: &'static str,
    /// What is wanted.
    pub message: String,
    /// Where: names from the outside in.
    pub path: Vec<String>,
}

/// What went wrong, in an answer that tells of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CodedMessage {
    /// Stable word.
    pub code: String,
    /// For people.
    pub message: String,
}

impl InputFault {
    /// A fault of one field.
    pub(crate) fn new(code: &'static str, path: &[&str], message: impl Into<String>) -> Self {
        InputFault { code, message: message.into(), path: path.iter().map(|p| p.to_string()).collect() }
    }
}

impl Refusal {
    /// A refusal without further faults.
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Refusal { status, code, message: message.into(), faults: Vec::new(), payload: None, retry_after: None }
    }

    /// 400.
    pub(crate) fn bad(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    /// 400 with the fields that are wrong; `what` is `query`, `headers` or `body`.
    pub(crate) fn invalid(what: &'static str, faults: Vec<InputFault>) -> Self {
        let code = match what {
            "query" => "invalid_query_params",
            "headers" => "invalid_headers",
            _ => "invalid_body",
        };
        let list: Vec<String> = faults.iter().map(|f| format!("{}: {}", f.path.join("."), f.message)).collect();
        let message = format!("{what} refused: {}", list.join("; "));
        Refusal { faults, ..Self::bad(code, message) }
    }

    /// 404.
    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    /// A bad cursor in the field `field` of a query or body.
    pub(crate) fn cursor(what: &'static str, field: &str, message: impl Into<String>) -> Self {
        Self::invalid(what, vec![InputFault::new("invalid_cursor", &[field], message)])
    }

    /// The cursor is ours, but what it stands in is gone.
    pub(crate) fn must_refetch(reason: &'static str) -> Self {
        let message =
            format!("{reason}: records were dropped on request after this cursor; read again from the beginning");
        let faults = vec![InputFault::new(reason, &["cursor"], message.clone())];
        Refusal { faults, ..Self::new(StatusCode::CONFLICT, "must_refetch", message) }
    }

    /// The connection is not known to this key.
    pub(crate) fn unknown_connection(id: &str) -> Self {
        Self::bad("unknown_connection", format!("no connection `{id}` of this source; GET /connections lists them"))
    }

    /// No `provider_config_key`, in whatever place it was wanted.
    pub(crate) fn missing_source() -> Self {
        Self::bad("missing_provider_config_key", "provider_config_key is missing: name the source")
    }

    /// The server is going down.
    pub(crate) fn stopping() -> Self {
        Self::busy("not_ready", "the server is stopping; try again")
    }

    /// 503 with `Retry-After`.
    pub(crate) fn busy(code: &'static str, message: impl Into<String>) -> Self {
        let refusal = Self::new(StatusCode::SERVICE_UNAVAILABLE, code, message);
        Refusal { retry_after: Some(BUSY_SECONDS), ..refusal }
    }

    /// 429 with `Retry-After`.
    pub(crate) fn too_many(seconds: u64, message: impl Into<String>) -> Self {
        let refusal = Self::new(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", message);
        Refusal { retry_after: Some(seconds), ..refusal }
    }

    /// 500; `detail` goes to the log, not to the caller.
    pub(crate) fn internal(detail: &str) -> Self {
        tracing::error!(detail, "request failed");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "server_error",
            "the server failed; its log has more under this request_id",
        )
    }

    /// Its stable word.
    pub(crate) fn code(&self) -> &'static str {
        self.code
    }

    /// What the caller is told.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// Another status for the same refusal.
    pub(crate) fn with_status(self, status: StatusCode) -> Self {
        Refusal { status, ..self }
    }

    /// With what code of the user's says of it.
    pub(crate) fn with_payload(self, payload: Option<Value>) -> Self {
        Refusal { payload: payload.map(Box::new), ..self }
    }

    fn json(&self, request: &str) -> Value {
        let mut error = json!({"code": self.code, "message": self.message});
        if let Some(payload) = &self.payload {
            error["payload"] = (**payload).clone();
        }
        if !self.faults.is_empty() {
            error["errors"] = self.list();
        }
        error["docs_url"] = format!("{DOCS}{}", self.code).into();
        error["request_id"] = request.into();
        json!({ "error": error })
    }

    fn problem(&self, request: &str) -> Value {
        let mut problem = json!({
            "type": format!("{DOCS}{}", self.code),
            "title": self.code,
            "status": self.status.as_u16(),
            "detail": self.message,
            "request_id": request,
        });
        if !self.faults.is_empty() {
            problem["errors"] = self.list();
        }
        problem
    }

    fn list(&self) -> Value {
        self.faults.iter().map(|f| json!({"code": f.code, "message": f.message, "path": f.path})).collect()
    }
}

impl From<pipeline::Error> for Refusal {
    fn from(error: pipeline::Error) -> Self {
        match error {
            pipeline::Error::Stopped => Refusal::stopping(),
            pipeline::Error::Poisoned(_) => Refusal::busy("store_failed", error.to_string()),
            pipeline::Error::Full(_) => Refusal::busy("disk_full", error.to_string()),
            pipeline::Error::BadBatch(ref reason) => Refusal::bad("invalid_body", reason.clone()),
            other => Refusal::internal(&other.to_string()),
        }
    }
}

impl From<log::Error> for Refusal {
    fn from(error: log::Error) -> Self {
        match error {
            log::Error::Poisoned(_) => Refusal::busy("store_failed", error.to_string()),
            log::Error::Full(_) => Refusal::busy("disk_full", error.to_string()),
            log::Error::Overloaded(_) => Refusal::busy("overloaded", error.to_string()),
            log::Error::Unreachable(_) => Refusal::busy("log_unreachable", error.to_string()),
            log::Error::Fenced(_) => Refusal::busy("fenced", error.to_string()),
            log::Error::TooLarge { .. } => Refusal::bad("too_large", error.to_string()),
            log::Error::Gone(_) => Refusal::internal(&error.to_string()),
        }
    }
}

impl IntoResponse for Refusal {
    /// Status and the refusal itself; [`render`] writes the body.
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response.extensions_mut().insert(self);
        response
    }
}

/// Writes the bodies of refusals.
pub(crate) async fn render(request: Request, next: Next) -> Response {
    let id = request.extensions().get::<RequestId>().map(|id| id.0.clone()).unwrap_or_default();
    let wants_problem = request.uri().path().starts_with("/v1/")
        && request
            .headers()
            .get_all(ACCEPT)
            .iter()
            .any(|v| v.to_str().is_ok_and(|v| v.contains("application/problem+json")));
    let mut response = next.run(request).await;
    if let Some(refusal) = response.extensions_mut().remove::<Refusal>() {
        let (kind, value) =
            if wants_problem { ("application/problem+json", refusal.problem(&id)) } else { (JSON, refusal.json(&id)) };
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        // What a provider answers by way of us does not bear it.
        response.headers_mut().insert(ORIGIN, HeaderValue::from_static("syncline"));
        *response.body_mut() = Body::from(value.to_string());
    }
    response
}

/// 404 for paths nobody serves.
pub(crate) async fn unknown_path(request: Request) -> Refusal {
    Refusal::not_found(format!("nothing is served at {}", request.uri().path()))
}

/// 405 for methods a path does not take; the router adds `Allow`.
pub(crate) async fn unknown_method(request: Request) -> Refusal {
    let message = format!("{} does not take {}", request.uri().path(), request.method());
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
}
