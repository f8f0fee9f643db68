//! `/oauth/connect/{key}`: sends a browser to the provider's sign-in; `/oauth/callback`: where it comes back.
//!
//! Promises: the way back is proven by what the browser keeps of its trip; nothing in its address decides where the browser goes
//! next.

use super::page::{framed_by_nobody, secured};
use super::words::words;
use super::{NOT_YET, token_of};
use crate::api::Api;
use crate::api::cluster::target::{alone, local};
use crate::api::routes::Routes;
use crate::app::connect::flows::LASTS;
use crate::app::connect::sessions::ConnectOutcome;
use crate::app::connect::sockets::SocketNotice;
use crate::app::connect::trips::{CALLBACK, DepartureAsk, WayBack};
use crate::http::error::Refusal;
use crate::http::query::QueryFields;
use crate::http::sender;
use askama::Template;
use axum::extract::{Path, Request, State};
use axum::http::header::{COOKIE, LOCATION, SET_COOKIE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// What the name of a cookie of a trip begins with.
const COOKIE_NAME: &str = "syncline-";
/// The same where browsers shall keep it for this host alone, and send it over TLS alone.
const COOKIE_NAME_SECURE: &str = "__Host-syncline-";
/// Cookies that are looked at.
const COOKIES_MAX: usize = 50;
const SCRIPT: &str = include_str!("page/callback.js");

pub(super) fn routes() -> Routes {
    Routes::new().get("/oauth/connect/{key}", depart, alone(NOT_YET)).get(CALLBACK, arrive, alone(NOT_YET)).get(
        "/connect/callback.js",
        async || super::page::asset("text/javascript; charset=utf-8", SCRIPT),
        local(),
    )
}

async fn depart(State(api): State<Api>, Path(key): Path<String>, request: Request) -> Result<Response, Refusal> {
    let (token, ask) = ask(request.uri().query())?;
    let (socket, from, token) = (ask.socket.clone(), sender(request.extensions()), token_of(token, request.headers()));
    drop(request);
    let departed = async {
        let visitor = api.visitor(from, token).await?;
        api.app.depart(&visitor.token, &key, ask).await.map_err(Refusal::from)
    };
    let departed = match departed.await {
        Ok(departed) => departed,
        Err(refusal) => {
            // Whoever waits on a socket sees nothing of this window.
            if let Some(socket) = socket {
                let (code, message) = (refusal.code().to_owned(), refusal.message().to_owned());
                api.app.connect.sockets.tell(&socket, SocketNotice::Failed { code, message });
            }
            return Err(refusal);
        }
    };
    let cookie = cookie(&api, &departed.trip, &departed.nonce);
    let text = |text: &str| HeaderValue::from_str(text).map_err(|why| Refusal::internal(&why.to_string()));
    let headers = [(LOCATION, text(&departed.url)?), (SET_COOKIE, text(&cookie)?)];
    Ok((StatusCode::FOUND, headers).into_response())
}

/// Families of parameters in the query of a departure.
const PARAMS: &str = "params[";
const AUTHORIZATION: &str = "authorization_params[";

/// What the query of a departure says.
fn ask(raw: Option<&str>) -> Result<(Option<String>, DepartureAsk), Refusal> {
    let known = |name: &str| {
        let family = inner(name, PARAMS).or_else(|| inner(name, AUTHORIZATION));
        ["connect_session_token", "ws_client_id", "user_scope"].contains(&name) || family.is_some()
    };
    let mut query = QueryFields::read_with(raw, known);
    let token = query.one("connect_session_token");
    let fields = family(&query, PARAMS).map(|(name, value)| (name, Value::from(value))).collect();
    // A parameter that is taken away is written so by clients.
    let authorize_params = family(&query, AUTHORIZATION).filter(|(_, value)| value != "undefined").collect();
    let (user_scope, socket) = (query.one("user_scope"), query.one("ws_client_id"));
    query.done()?;
    Ok((token, DepartureAsk { fields, user_scope, authorize_params, socket }))
}

/// The parameters of a family, by their inner names.
fn family(query: &QueryFields, family: &'static str) -> impl Iterator<Item = (String, String)> {
    query.family(family).into_iter().filter_map(move |(name, value)| Some((inner(&name, family)?, value)))
}

/// `x` of `family[x]`.
fn inner(name: &str, family: &str) -> Option<String> {
    name.strip_prefix(family)?.strip_suffix(']').filter(|inner| !inner.is_empty()).map(str::to_owned)
}

fn is_secure(api: &Api) -> bool {
    api.app.settings.public_url.as_deref().is_some_and(|url| url.starts_with("https://"))
}

/// What the browser keeps until it is back.
fn cookie(api: &Api, trip: &str, nonce: &str) -> String {
    let (name, secure) = if is_secure(api) { (COOKIE_NAME_SECURE, "; Secure") } else { (COOKIE_NAME, "") };
    format!("{name}{trip}={nonce}; Path=/; HttpOnly; SameSite=Lax; Max-Age={}{secure}", LASTS.as_secs())
}

/// What the browser keeps of its trips.
fn kept(api: &Api, headers: &HeaderMap) -> BTreeMap<String, String> {
    let prefix = if is_secure(api) { COOKIE_NAME_SECURE } else { COOKIE_NAME };
    let all = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok()).flat_map(|text| text.split(';'));
    let pairs = all.take(COOKIES_MAX).filter_map(|pair| pair.trim().split_once('='));
    pairs.filter_map(|(name, value)| Some((name.strip_prefix(prefix)?.to_owned(), value.to_owned()))).collect()
}

/// What the window of the sign-in shows at its end.
#[derive(Template)]
#[template(path = "callback.html")]
struct CallbackPage<'a> {
    lang: &'static str,
    base: &'a str,
    /// What was to be connected; empty where that is not known.
    integration: &'a str,
    good: bool,
    said: &'a str,
    close: &'static str,
}

async fn arrive(State(api): State<Api>, request: Request) -> Result<Response, Refusal> {
    let accepted = request.headers().get("accept-language").and_then(|value| value.to_str().ok());
    let (lang, words) = words(accepted);
    let (from, back) = (sender(request.extensions()), way_back(&api, &request));
    drop(request);
    let arrival = api.app.arrive(back).await;
    let base = api.app.settings.public_url.as_deref().unwrap_or_default();
    let page = |integration, good, said| CallbackPage { lang, base, integration, good, said, close: words.close };
    let (status, page) = match &arrival {
        Ok(arrival) => match &arrival.outcome {
            ConnectOutcome::Connected(_) => (StatusCode::OK, page(arrival.integration.as_str(), true, words.done)),
            ConnectOutcome::Failed(_, message) => {
                (StatusCode::BAD_REQUEST, page(arrival.integration.as_str(), false, message.as_str()))
            }
        },
        Err(_) => {
            api.http.wrong_token(from)?;
            (StatusCode::BAD_REQUEST, page("", false, words.over))
        }
    };
    let html = page.render().map_err(|why| Refusal::internal(&format!("the page of a sign-in: {why}")))?;
    Ok((status, secured(framed_by_nobody())?, html).into_response())
}

fn way_back(api: &Api, request: &Request) -> WayBack {
    let query = request.uri().query().unwrap_or_default();
    // Of a parameter that comes twice the first counts.
    let mut params = Map::new();
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        params.entry(name.into_owned()).or_insert_with(|| Value::from(value.into_owned()));
    }
    let one = |name: &str| params.get(name).and_then(Value::as_str).map(str::to_owned);
    let error = one("error").map(|code| {
        let said = one("error_description").unwrap_or_else(|| format!("the provider says {code}"));
        (code, said)
    });
    WayBack {
        state: one("state").unwrap_or_default(),
        code: one("code").filter(|code| !code.is_empty()),
        error,
        issuer: one("iss"),
        kept: kept(api, request.headers()),
        params,
    }
}
