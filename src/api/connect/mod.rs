//! How people connect their accounts. The customer's app opens a session with its key; everything else is asked by the browser of
//! the person, and proven by the token of the session.
//!
//! | file | routes |
//! |---|---|
//! | `sessions` | `POST /connect/sessions…`, with a key |
//! | `session` | `/connect/session`: what a session may, and what came of it |
//! | `socket` | `/` as a socket, on which a browser waits |
//! | `oauth` | `/oauth/…`: to the sign-in of a provider, and back |
//! | `page` | `/connect/`: the page on which a person does it; `words` has its texts |
//! | `forms` | `/api-auth/…`, `/auth/…`, `/oauth2/auth/…`: accounts that are connected by what is entered |
//!
//! Promises: browsers of other origins than `connect.origins` read no answer; no answer is kept in a cache, and no address of these
//! pages is told to other sites.

mod forms;
mod oauth;
mod page;
mod session;
mod sessions;
mod socket;
mod words;

use super::Api;
use super::routes::Routes;
use crate::admission::Address;
use crate::app::connect::ConnectRefused;
use crate::app::connect::sessions::Session;
use crate::config::Settings;
use crate::http::error::{InputFault, Refusal};
use axum::extract::Request;
use axum::http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, REFERRER_POLICY};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use tower_http::cors::{AllowOrigin, CorsLayer};

/// Where several processes share the connections.
const NOT_YET: &str =
    "several processes share the connections: connect accounts by POST /connections, with the credentials of each";

/// Routes with a key.
pub(super) fn keyed() -> Routes {
    sessions::routes()
}

/// Routes that the token of a session proves.
pub(super) fn browser() -> Routes {
    session::routes().merge(forms::routes()).merge(oauth::routes()).merge(page::routes()).merge(socket::routes())
}

/// Which pages of other origins may ask, and read the answer.
pub(super) fn cors(settings: &Settings) -> CorsLayer {
    let origins: Vec<HeaderValue> =
        settings.connect_origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok()).collect();
    CorsLayer::new()
        .allow_origin(AllowOrigin::list(origins))
        .allow_methods([Method::GET, Method::POST, Method::DELETE])
        .allow_headers([CONTENT_TYPE, AUTHORIZATION])
}

/// Answers of these routes hold what is one person's.
pub(super) async fn private(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

/// The token of a session: of the query, or as a bearer.
fn token_of(query: Option<String>, headers: &HeaderMap) -> Option<String> {
    let bearer = || {
        let text = headers.get(AUTHORIZATION)?.to_str().ok()?;
        let (scheme, token) = text.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
    };
    query.or_else(bearer)
}

/// Somebody in a browser who asks under a session.
struct Visitor {
    token: String,
    session: Session,
}

impl Api {
    /// Who asks, where the token is one of a live session. Wrong ones are counted for the address, so that guessing gets nowhere.
    async fn visitor(&self, from: Address, token: Option<String>) -> Result<Visitor, Refusal> {
        let token = token.ok_or_else(|| {
            Refusal::new(
                StatusCode::UNAUTHORIZED,
                "missing_connect_session_token",
                "the token of a connect session is missing",
            )
        })?;
        match self.app.session(&token).await {
            Ok(session) => Ok(Visitor { token, session }),
            Err(why) => {
                self.http.wrong_token(from)?;
                Err(why.into())
            }
        }
    }
}

impl From<ConnectRefused> for Refusal {
    fn from(why: ConnectRefused) -> Self {
        let message = why.to_string();
        let (status, code) = match why {
            ConnectRefused::Session => (StatusCode::UNAUTHORIZED, "invalid_connect_session_token"),
            ConnectRefused::NotAllowed(_) => (StatusCode::FORBIDDEN, "integration_not_allowed"),
            ConnectRefused::Integration(_) => (StatusCode::NOT_FOUND, "unknown_provider_config"),
            ConnectRefused::Done(_) | ConnectRefused::Busy(_) => (StatusCode::CONFLICT, "session_used"),
            ConnectRefused::TooMany => (StatusCode::TOO_MANY_REQUESTS, "too_many_sessions"),
            ConnectRefused::NoSignIn(_) => (StatusCode::BAD_REQUEST, "invalid_auth_mode"),
            ConnectRefused::Unusable(failure) => (StatusCode::BAD_REQUEST, failure.code),
            ConnectRefused::Field(field, _) => {
                return Refusal::invalid("query", vec![InputFault::new("invalid_value", &["params", &field], message)]);
            }
            ConnectRefused::Flow => (StatusCode::BAD_REQUEST, "unknown_sign_in"),
            ConnectRefused::SignIn(..) => (StatusCode::BAD_REQUEST, "sign_in_failed"),
            ConnectRefused::Connection(why) => return why.into(),
        };
        Refusal::new(status, code, message)
    }
}
