//! `/proxy`: any request to the provider of a connection, with its sign-in and within its limits, passed on as it comes both ways.
//!
//! Promises: a refusal of ours bears `Syncline-Origin: syncline`, and no answer of a provider does; each request is one line of the
//! log, without query, headers and body.

use crate::api::Api;
use crate::api::cluster::target::{ConnectionNames, NamedIn, passed_to_owner_of};
use crate::api::routes::Routes;
use crate::config::Role;
use crate::connectors::http::{HeaderMap, HeaderName, Method, PassedBody};
use crate::connectors::rest::{RestSource, relay};
use crate::engine::model::Timestamp;
use crate::engine::source::{Connection, Failure};
use crate::http::auth::Caller;
use crate::http::error::{InputFault, Refusal};
use crate::http::passing::PassingBody;
use crate::http::query::{account_headers, header};
use crate::http::{body, sender};
use axum::Extension;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use std::str::FromStr;
use std::sync::Arc;

/// What the path begins with.
const PREFIX: &str = "/proxy";
/// What headers begin with that the provider gets without it.
const FOR_PROVIDER: &str = "nango-proxy-";
/// Headers that it gets as they are.
const AS_THEY_ARE: [&str; 3] = ["accept", "accept-encoding", "content-type"];
/// Most statuses of `Retry-On`.
const STATUSES_MAX: usize = 100;

/// Both headers are demanded.
const NAMED: ConnectionNames = ConnectionNames {
    source: &[NamedIn::Header("provider-config-key")],
    connection: &[NamedIn::Header("connection-id")],
};

pub(super) fn routes() -> Routes {
    let routes = Routes::new().any(PREFIX, proxy, passed_to_owner_of(NAMED));
    routes.any(&format!("{PREFIX}/{{*path}}"), proxy, passed_to_owner_of(NAMED))
}

async fn proxy(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Refusal> {
    let (head, body) = request.into_parts();
    let (source, id) = account_headers(&head.headers)?;
    let wanted = wanted(&head)?;
    let rest = api.app.rest(&source);
    let readers = rest.as_ref().is_some_and(|rest| rest.definition().proxy.readers);
    let reads = readers && matches!(head.method, Method::GET | Method::HEAD);
    caller.must_be(if reads { Role::Reader } else { Role::Writer })?;
    let account = api.app.connections.get(&caller.environment, &source, &id);
    let account = account.ok_or_else(|| Refusal::unknown_connection(&id))?;
    let rest = rest.ok_or_else(|| {
        let message = format!("`{source}` is asked by the program's own code, so nothing can be passed on to it");
        Refusal::bad(relay::NO_BASE, message)
    })?;
    let passing = passing(&api, &head, body, rest.definition().proxy.max, caller.key).await?;
    let broken = passing.broken();
    let relayed = Relaying { rest, connection: account.connection.clone(), began: api.app.engine.clock().now() };
    relayed.answer(&api, wanted, passing.body).await.map_err(|why| match broken() {
        Some(why) => body::refusal(why, relayed.rest.definition().proxy.max),
        None => refusal(why),
    })
}

/// The body of a request, as far as it is kept.
async fn passing(
    api: &Api,
    head: &Parts,
    body: Body,
    most: u64,
    key: crate::admission::Holder,
) -> Result<PassingBody, Refusal> {
    let length = header(&head.headers, "content-length").and_then(|text| text.parse().ok());
    let memory = api.http.bounds.bodies.share([key, sender(&head.extensions).holder()]);
    let begun = PassingBody::begin(body, length, most, memory, api.app.engine.clock()).await;
    begun.map_err(|why| body::refusal(why, most))
}

/// A request on its way, as the log tells of it.
struct Relaying {
    rest: Arc<RestSource>,
    connection: Arc<Connection>,
    began: Timestamp,
}

impl Relaying {
    async fn answer(&self, api: &Api, request: relay::RelayRequest, body: PassedBody) -> Result<Response, Failure> {
        let (method, path) = (request.method.clone(), self.rest.veiled(&self.connection, &request.path));
        let relayed = self.rest.relay(&self.connection, request, body).await;
        let (source, connection) = (&self.rest.definition().source, &*self.connection);
        let (environment, connection) = (&connection.environment, &connection.id);
        let ms = u64::try_from(api.app.engine.clock().now().since(self.began).as_millis()).unwrap_or(u64::MAX);
        match relayed {
            Ok(relayed) => {
                let (status, attempts) = (relayed.status, relayed.attempts);
                tracing::info!(source, environment, connection, %method, path, status, attempts, ms, "proxied");
                let mut response = Response::new(Body::from_stream(relayed.body));
                *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
                *response.headers_mut() = relayed.headers;
                Ok(response)
            }
            Err(why) => {
                let (code, message) = (why.code, &why.message);
                tracing::warn!(source, environment, connection, %method, path, code, ms, "not proxied: {message}");
                Err(why)
            }
        }
    }
}

/// What is asked for, short of the body.
fn wanted(head: &Parts) -> Result<relay::RelayRequest, Refusal> {
    let mut faults = Vec::new();
    let mut fault = |name: &str, code, wanted: String| faults.push(InputFault::new(code, &[name], wanted));
    let headers = &head.headers;
    let mut flag = |name: &str| match header(headers, name).map(|text| bool::from_str(&text)) {
        None => false,
        Some(Ok(flag)) => flag,
        Some(Err(_)) => {
            fault(name, "invalid_type", "true or false is wanted".to_owned());
            false
        }
    };
    let (decompress, forward) = (flag("decompress"), flag("forward-headers-on-redirect"));
    let most = relay::RETRIES_MAX;
    let retries = header(headers, "retries").map_or(Some(0), |text| text.parse().ok().filter(|n| *n <= most));
    if retries.is_none() {
        fault("retries", "invalid_number", format!("a whole number from 0 to {most} is wanted"));
    }
    let retry_on = statuses(header(headers, "retry-on").as_deref().unwrap_or_default());
    if retry_on.is_none() {
        fault(
            "retry-on",
            "invalid_number",
            format!("statuses with commas between them are wanted, at most {STATUSES_MAX}"),
        );
    }
    let for_provider = for_provider(headers);
    if for_provider.is_none() {
        fault(FOR_PROVIDER, "invalid_type", "the name of a header is wanted behind it".to_owned());
    }
    if !faults.is_empty() {
        return Err(Refusal::invalid("headers", faults));
    }
    let path = head.uri.path().strip_prefix(PREFIX).filter(|path| !path.is_empty()).unwrap_or("/");
    Ok(relay::RelayRequest {
        method: head.method.clone(),
        path: path.to_owned(),
        query: head.uri.query().map(str::to_owned),
        headers: for_provider.unwrap_or_default(),
        base: header(headers, "base-url-override"),
        retries: retries.unwrap_or_default(),
        retry_on: retry_on.unwrap_or_default(),
        decompress,
        forward,
    })
}

fn statuses(text: &str) -> Option<Vec<u16>> {
    let all = text.split(',').map(str::trim).filter(|one| !one.is_empty());
    let all: Vec<u16> = all.map(|one| one.parse().ok().filter(|n| (100..=599).contains(n))).collect::<Option<_>>()?;
    Some(all).filter(|all| all.len() <= STATUSES_MAX)
}

/// The headers that the provider is to get; `None` if one of them has no name.
fn for_provider(headers: &HeaderMap) -> Option<HeaderMap> {
    let mut own = HeaderMap::new();
    for (name, value) in headers {
        if let Some(name) = name.as_str().strip_prefix(FOR_PROVIDER) {
            own.append(HeaderName::from_str(name).ok()?, value.clone());
        }
    }
    for name in AS_THEY_ARE.into_iter().filter(|name| !headers.contains_key(format!("{FOR_PROVIDER}{name}"))) {
        let values: Vec<HeaderValue> = headers.get_all(name).iter().cloned().collect();
        for value in values {
            own.append(HeaderName::from_static(name), value);
        }
    }
    Some(own)
}

/// What is wrong here and not at the provider.
fn refusal(why: Failure) -> Refusal {
    let status = match why.code {
        relay::BAD_PATH | relay::BAD_BASE | relay::FORBIDDEN | relay::NO_BASE => StatusCode::BAD_REQUEST,
        "bad_url" | "bad_host" | "bad_header" | "missing_value" => StatusCode::BAD_REQUEST,
        relay::NOT_ALLOWED | "egress_blocked" | "insecure_url" => StatusCode::FORBIDDEN,
        relay::SPENT | relay::OVERLOADED => {
            let seconds = why.retry_after.unwrap_or_default().as_secs_f64().ceil().max(1.0);
            return Refusal::too_many(seconds as u64, why.message);
        }
        _ => StatusCode::FAILED_DEPENDENCY,
    };
    Refusal::new(status, why.code, why.message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(headers: &[(&str, &str)]) -> Result<relay::RelayRequest, Vec<String>> {
        let mut request = axum::http::Request::builder().uri("/proxy/v1/a%20b?x=1&y");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (head, ()) = request.body(()).expect("a request").into_parts();
        wanted(&head).map_err(|why| vec![why.message().to_owned()])
    }

    #[test]
    fn what_is_asked_for_stands_in_headers() {
        let asked = read(&[
            ("retries", "3"),
            ("retry-on", "409, 423"),
            ("decompress", "true"),
            ("base-url-override", ""),
            ("nango-proxy-x-version", "2"),
            ("nango-proxy-accept", "text/csv"),
            ("accept", "*/*"),
            ("content-type", "text/plain"),
            ("cookie", "a=b"),
            ("authorization", "Bearer of-ours"),
            ("x-other", "1"),
        ]);
        let asked = asked.expect("well made");
        assert_eq!((asked.path.as_str(), asked.query.as_deref()), ("/v1/a%20b", Some("x=1&y")));
        assert_eq!((asked.retries, asked.retry_on, asked.decompress, asked.base), (3, vec![409, 423], true, None));
        let mut names: Vec<_> = asked.headers.iter().map(|(n, v)| (n.as_str(), v.to_str().expect("text"))).collect();
        names.sort_unstable();
        assert_eq!(names, [("accept", "text/csv"), ("content-type", "text/plain"), ("x-version", "2")]);
    }

    #[test]
    fn all_that_is_wrong_is_told_at_once() {
        let wrong = read(&[
            ("retries", "11"),
            ("retry-on", "409,often"),
            ("decompress", "1"),
            ("forward-headers-on-redirect", "yes"),
            ("nango-proxy-", "x"),
        ]);
        let told = wrong.err().expect("refused").remove(0);
        for name in ["retries", "retry-on", "decompress", "forward-headers-on-redirect", "nango-proxy-"] {
            assert!(told.contains(&format!("{name}: ")), "{name}: {told}");
        }
    }
}
