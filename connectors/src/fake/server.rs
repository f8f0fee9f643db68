//! The API: routes, conditional answers, single contacts.
//!
//! | route | pages by |
//! |---|---|
//! | `GET /v1/contacts` | cursor: `{data, total, next}`, parameter `after` |
//! | `GET /v1/contacts/pages` | page number: `{data, total, pages}`, parameters `page`, `per_page` |
//! | `GET /v1/contacts/offsets` | offset: `{data, total}`, parameters `offset`, `limit` |
//! | `GET /v1/contacts/links` | `Link` header; the answer is the array |
//! | `POST /v1/contacts/search` | cursor in the body; never more than the cap |
//! | `GET /v1/contacts/deleted` | cursor: `{id, deleted_at}` |
//! | `GET /v1/contacts/{id}` | one; 404 when gone |
//! | `GET /v1/me` | who is signed in |
//!
//! Listings take `updated_since`, `updated_until` (RFC 3339 or epoch milliseconds; from inclusive, to exclusive).

use super::listing::{self, Query};
use super::trouble::{SignedIn, guard, refuse};
use super::{Shared, lock};
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Extension, Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use sha2::{Digest, Sha256};
use std::sync::Arc;

type Api = State<Arc<Shared>>;
type Who = Extension<SignedIn>;

pub(super) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/v1/me", get(me))
        .route("/v1/contacts", get(cursor))
        .route("/v1/contacts/pages", get(pages))
        .route("/v1/contacts/offsets", get(offsets))
        .route("/v1/contacts/links", get(links))
        .route("/v1/contacts/search", post(search))
        .route("/v1/contacts/deleted", get(deleted))
        .route("/v1/contacts/{id}", get(one))
        .layer(axum::middleware::from_fn_with_state(Arc::clone(&shared), guard))
        .with_state(shared)
}

async fn me(State(shared): Api, Extension(who): Who) -> Response {
    let name = shared.accounts.get(who.0).map(|a| a.name.as_str()).unwrap_or_default();
    axum::Json(serde_json::json!({"account": name})).into_response()
}

async fn one(State(shared): Api, Extension(who): Who, Path(id): Path<String>, headers: HeaderMap) -> Response {
    shared.turn(who.0);
    let mut body = Vec::new();
    let found = id.parse().is_ok_and(|id| shared.world(who.0).is_some_and(|w| w.write(id, &mut body)));
    match found {
        true => answer(&headers, body, None),
        false => refuse(StatusCode::NOT_FOUND, "not_found", "no such contact"),
    }
}

async fn cursor(api: Api, who: Who, uri: axum::http::Uri, headers: HeaderMap) -> Response {
    list(api, who, uri.query(), headers, listing::by_cursor).await
}

async fn pages(api: Api, who: Who, uri: axum::http::Uri, headers: HeaderMap) -> Response {
    list(api, who, uri.query(), headers, listing::by_page).await
}

async fn offsets(api: Api, who: Who, uri: axum::http::Uri, headers: HeaderMap) -> Response {
    list(api, who, uri.query(), headers, listing::by_offset).await
}

async fn links(api: Api, who: Who, uri: axum::http::Uri, headers: HeaderMap) -> Response {
    list(api, who, uri.query(), headers, listing::by_link).await
}

async fn deleted(api: Api, who: Who, uri: axum::http::Uri, headers: HeaderMap) -> Response {
    list(api, who, uri.query(), headers, listing::deleted).await
}

async fn search(State(shared): Api, Extension(who): Who, headers: HeaderMap, body: Bytes) -> Response {
    match Query::from_body(&body) {
        Ok(query) => give(&shared, who.0, &query, &headers, listing::search).await,
        Err(message) => refuse(StatusCode::BAD_REQUEST, "bad_request", &message),
    }
}

type List = fn(&Shared, &super::World, &Query) -> Result<listing::Listing, String>;

async fn list(State(shared): Api, Extension(who): Who, query: Option<&str>, headers: HeaderMap, how: List) -> Response {
    match Query::from_text(query.unwrap_or_default()) {
        Ok(query) => give(&shared, who.0, &query, &headers, how).await,
        Err(message) => refuse(StatusCode::BAD_REQUEST, "bad_request", &message),
    }
}

async fn give(shared: &Shared, account: usize, query: &Query, headers: &HeaderMap, how: List) -> Response {
    shared.turn(account);
    let made = match shared.accounts.get(account) {
        Some(a) => how(shared, &lock(&a.world), query),
        None => Err("unknown account".to_owned()),
    };
    match made {
        Ok(listing) => {
            shared.hold(account, &listing.ids).await;
            answer(headers, listing.body, listing.link)
        }
        Err(message) => refuse(StatusCode::BAD_REQUEST, "bad_request", &message),
    }
}

/// 200 with a validator, or 304 if the asker has just that.
fn answer(headers: &HeaderMap, body: Vec<u8>, link: Option<(String, u64)>) -> Response {
    let link = link.map(|(link, total)| (HeaderValue::from_str(&link), HeaderValue::from(total)));
    let mut print = Sha256::new();
    print.update(&body);
    if let Some((Ok(link), total)) = &link {
        // Where to go on belongs to the answer as well.
        print.update(link.as_bytes());
        print.update(total.as_bytes());
    }
    let tag = format!("\"{}\"", hex::encode(&print.finalize()[..12]));
    let known = headers.get(header::IF_NONE_MATCH).and_then(|v| v.to_str().ok()).is_some_and(|v| v == tag);
    let mut response = match known {
        true => StatusCode::NOT_MODIFIED.into_response(),
        false => ([(header::CONTENT_TYPE, "application/json")], body).into_response(),
    };
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    if let Some((link, total)) = link {
        if let Some(link) = link.ok().filter(|l| !l.is_empty()) {
            response.headers_mut().insert(header::LINK, link);
        }
        response.headers_mut().insert("x-total-count", total);
    }
    response
}
