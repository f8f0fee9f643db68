//! People who connect their accounts: sessions that the customer's app opens, and accounts that are connected by what is entered.

use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::{Json, Router};
use reqwest::{Method, Response};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;
use syncline_tests::serving::{KEY, Serving, client};
use tokio::net::TcpListener;

/// Longest wait for anything; only a failing test waits so long.
const PATIENCE: Duration = Duration::from_secs(30);
const ORIGIN: &str = "https://app.example";

const SOURCES: [(&str, &str); 3] = [
    ("crm", "auth: {type: bearer, test: {get: /me}}"),
    ("shop", "auth: {type: basic, test: {get: /me}}"),
    ("open", "auth: {type: none}"),
];

/// A provider that lets in `let-me-in`, and `ann` with the same word.
pub(super) async fn provider() -> String {
    async fn answer(request: Request) -> axum::response::Response {
        let header = request.headers().get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
        let open = request.uri().path() == "/open";
        // `ann:let-me-in` in base64.
        if open || ["Bearer let-me-in", "Bearer again", "Basic YW5uOmxldC1tZS1pbg=="].contains(&header) {
            return Json(json!([{"id": "1", "of": header.len()}])).into_response();
        }
        StatusCode::UNAUTHORIZED.into_response()
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await });
    url
}

async fn serve(folder: &Path, url: &str) -> Serving {
    let sources = folder.join("sources");
    std::fs::create_dir_all(&sources).expect("a folder");
    for (name, auth) in SOURCES {
        let text = format!(
            "source: {name}\ntitle: The {name}\nbase_url: {url}\n{auth}\n\
             streams: [{{name: Item, key: .id, schedule: {{every: 12h}}, list: {{get: /{name}}}}}]\n"
        );
        std::fs::write(sources.join(format!("{name}.yaml")), text).expect("a definition");
    }
    let more = json!({"connect": {"origins": [ORIGIN]}, "ingress": {"wrong_keys_per_address": 2}});
    Serving::start_with(folder, &sources, more).await
}

async fn with_key(serving: &Serving, method: Method, path: &str, body: Value) -> (u16, Value) {
    let request = client().request(method, format!("{}{path}", serving.url)).bearer_auth(KEY).json(&body);
    read(request.send().await.expect("an answer")).await
}

async fn read(answer: Response) -> (u16, Value) {
    let status = answer.status().as_u16();
    (status, serde_json::from_str(&answer.text().await.expect("text")).unwrap_or_default())
}

/// As a browser asks that has nothing but the token of a session.
async fn enter(serving: &Serving, path: &str, token: &str, body: Value) -> (u16, Value) {
    let mark = if path.contains('?') { '&' } else { '?' };
    let url = format!("{}{path}{mark}connect_session_token={token}", serving.url);
    read(client().post(url).header("origin", ORIGIN).json(&body).send().await.expect("an answer")).await
}

async fn session(serving: &Serving, more: Value) -> String {
    let mut body = json!({"end_user": {"id": "ann", "email": "ann@example.com"}, "organization": {"id": "org"},
        "tags": {"team": "red"}, "allowed_integrations": ["crm", "shop", "open"]});
    for (name, value) in more.as_object().into_iter().flatten() {
        body[name] = value.clone();
    }
    let (status, opened) = with_key(serving, Method::POST, "/connect/sessions", body).await;
    assert_eq!(status, 201, "{opened}");
    let token = opened["data"]["token"].as_str().expect("a token").to_owned();
    let link = format!("{}/connect/?session_token={token}", serving.url);
    assert_eq!(opened["data"]["connect_link"], link);
    token
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_are_connected_by_what_is_entered() {
    let (folder, url) = (tempfile::tempdir().expect("a folder"), provider().await);
    let serving = serve(folder.path(), &url).await;
    let token = session(&serving, json!({})).await;
    let (status, refused) = enter(&serving, "/api-auth/api-key/crm", &token, json!({"apiKey": "stolen"})).await;
    assert_eq!((status, &refused["error"]["code"]), (400, &json!("connection_test_failed")));
    let (status, made) =
        enter(&serving, "/api-auth/api-key/crm?params[region]=eu", &token, json!({"apiKey": "let-me-in"})).await;
    assert_eq!((status, &made["providerConfigKey"]), (200, &json!("crm")), "{made}");
    let id = made["connectionId"].as_str().expect("an id").to_owned();
    let (_, connection) =
        with_key(&serving, Method::GET, &format!("/connections/{id}?provider_config_key=crm"), json!({})).await;
    assert_eq!(connection["end_user"]["id"], "ann");
    assert_eq!(connection["end_user"]["organization"]["id"], "org");
    assert_eq!(
        (&connection["tags"], &connection["connection_config"]),
        (&json!({"team": "red"}), &json!({"region": "eu"}))
    );
    assert_eq!(serving.changes_of(["crm", &id, "Item"], 1, PATIENCE).await.len(), 1);

    let (status, again) = enter(&serving, "/api-auth/api-key/crm", &token, json!({"apiKey": "let-me-in"})).await;
    assert_eq!((status, &again["error"]["code"]), (409, &json!("session_used")));
    let basic = json!({"username": "ann", "password": "let-me-in"});
    assert_eq!(enter(&serving, "/api-auth/basic/shop", &token, basic).await.0, 200);
    assert_eq!(enter(&serving, "/auth/unauthenticated/open", &token, json!({})).await.0, 200);

    let url = format!("{}/connect/session", serving.url);
    let (_, seen) = read(client().get(&url).bearer_auth(&token).send().await.expect("an answer")).await;
    assert_eq!(seen["data"]["outcomes"]["crm"], json!({"connection_id": id}));
    assert_eq!(seen["data"]["outcomes"].as_object().map(|all| all.len()), Some(3), "{seen}");
    assert_eq!(client().delete(&url).bearer_auth(&token).send().await.expect("an answer").status(), 204);
    assert_eq!(client().get(&url).bearer_auth(&token).send().await.expect("an answer").status(), 401);
    serving.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reconnect_keeps_the_connection_and_its_records() {
    let (folder, url) = (tempfile::tempdir().expect("a folder"), provider().await);
    let serving = serve(folder.path(), &url).await;
    let token = session(&serving, json!({})).await;
    let (_, made) = enter(&serving, "/api-auth/api-key/crm", &token, json!({"apiKey": "let-me-in"})).await;
    let id = made["connectionId"].as_str().expect("an id").to_owned();
    let before = serving.changes_of(["crm", &id, "Item"], 1, PATIENCE).await;
    let body = json!({"connection_id": id, "integration_id": "crm"});
    let (status, opened) = with_key(&serving, Method::POST, "/connect/sessions/reconnect", body).await;
    assert_eq!(status, 201, "{opened}");
    let token = opened["data"]["token"].as_str().expect("a token");
    assert_eq!(enter(&serving, "/api-auth/basic/shop", token, json!({})).await.0, 403, "it is for one connection");
    assert_eq!(enter(&serving, "/api-auth/api-key/crm", token, json!({"apiKey": "stolen"})).await.0, 400);
    let (status, again) = enter(&serving, "/api-auth/api-key/crm", token, json!({"apiKey": "again"})).await;
    assert_eq!((status, &again["connectionId"]), (200, &json!(id)));
    let (_, connection) =
        with_key(&serving, Method::GET, &format!("/connections/{id}?provider_config_key=crm"), json!({})).await;
    assert_eq!(connection["credentials"]["apiKey"], "again");
    assert_eq!(serving.changes_of(["crm", &id, "Item"], 1, PATIENCE).await, before, "records and cursors stay");
    let (status, _) = with_key(
        &serving,
        Method::POST,
        "/connect/sessions/reconnect",
        json!({"connection_id": "x", "integration_id": "crm"}),
    )
    .await;
    assert_eq!(status, 404);
    serving.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_survives_a_restart_and_holds_no_token() {
    let (folder, url) = (tempfile::tempdir().expect("a folder"), provider().await);
    let serving = serve(folder.path(), &url).await;
    let token = session(&serving, json!({})).await;
    serving.stop().await;
    let serving = serve(folder.path(), &url).await;
    assert_eq!(enter(&serving, "/auth/unauthenticated/open", &token, json!({})).await.0, 200);
    serving.stop().await;
    let holds = |bytes: &[u8]| bytes.windows(token.len()).any(|window| window == token.as_bytes());
    let found: Vec<_> = syncline_tests::damage::files(&folder.path().join("data"))
        .into_iter()
        .filter(|(_, bytes)| holds(bytes))
        .collect();
    assert!(found.is_empty(), "{:?}", found.iter().map(|(path, _)| path).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_session_may_not_do_is_refused() {
    let (folder, url) = (tempfile::tempdir().expect("a folder"), provider().await);
    let serving = serve(folder.path(), &url).await;
    let token = session(&serving, json!({"allowed_integrations": ["crm"]})).await;
    let wrong = [
        ("/auth/unauthenticated/open", "integration_not_allowed"),
        ("/api-auth/basic/crm", "invalid_auth_mode"),
        ("/api-auth/api-key/nowhere", "unknown_provider_config"),
        ("/api-auth/api-key/crm?hmac=1", "invalid_query_params"),
    ];
    for (path, code) in wrong {
        assert_eq!(
            enter(&serving, path, &token, json!({"apiKey": "let-me-in"})).await.1["error"]["code"],
            code,
            "{path}"
        );
    }
    let bodies = [
        json!({}),
        json!({"end_user": {"id": ""}}),
        json!({"end_user": {"id": "a"}, "allowed_integrations": ["nowhere"]}),
        json!({"end_user": {"id": "a"}, "more": 1}),
        json!({"tags": {"a": "b"}, "organization": {"id": "o"}}),
    ];
    for body in bodies {
        let (status, refused) = with_key(&serving, Method::POST, "/connect/sessions", body.clone()).await;
        assert_eq!((status, &refused["error"]["code"]), (400, &json!("invalid_body")), "{body}");
    }
    let guess = token.replace(|letter: char| letter.is_ascii_digit(), "x");
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..100 {
        seen.insert(enter(&serving, "/api-auth/api-key/crm", &guess, json!({})).await.0);
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), [401, 429], "who guesses is stopped");
    serving.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn browsers_of_other_origins_read_nothing() {
    let (folder, url) = (tempfile::tempdir().expect("a folder"), provider().await);
    let serving = serve(folder.path(), &url).await;
    let preflight = async |path: &str, origin: &str| {
        let request = client().request(Method::OPTIONS, format!("{}{path}", serving.url)).header("origin", origin);
        let request = request.header("access-control-request-method", "POST");
        let answer = request.header("access-control-request-headers", "content-type").send().await.expect("an answer");
        answer.headers().get("access-control-allow-origin").map(|value| value.to_str().expect("text").to_owned())
    };
    assert_eq!(preflight("/api-auth/api-key/crm", ORIGIN).await.as_deref(), Some(ORIGIN));
    assert_eq!(preflight("/api-auth/api-key/crm", "https://evil.example").await, None);
    for path in ["/records", "/connections", "/connect/sessions", "/integrations"] {
        assert_eq!(preflight(path, ORIGIN).await, None, "{path} is asked with a key, which no browser should have");
    }
    serving.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_names_who_connects_what_and_escapes_it() {
    let (folder, url) = (tempfile::tempdir().expect("a folder"), provider().await);
    let serving = serve(folder.path(), &url).await;
    let user = json!({"id": "ann", "display_name": "<b>Ann</b>"});
    let token = session(&serving, json!({"end_user": user})).await;
    let page = async |query: &str| {
        let answer = client().get(format!("{}/connect/?{query}", serving.url)).send().await.expect("an answer");
        let header = |name: &str| answer.headers().get(name).map(|value| value.to_str().expect("text").to_owned());
        let headers = ["content-security-policy", "cache-control", "referrer-policy"].map(header);
        (answer.status().as_u16(), headers, answer.text().await.expect("text"))
    };
    let (status, [policy, cache, referrer], text) = page(&format!("session_token={token}")).await;
    assert_eq!((status, cache.as_deref(), referrer.as_deref()), (200, Some("no-store"), Some("no-referrer")));
    assert!(policy.is_some_and(|policy| policy.contains(&format!("frame-ancestors {ORIGIN}"))));
    assert!(text.contains("The crm") && text.contains("The shop") && !text.contains("<b>Ann"), "{text}");
    let (_, _, text) = page(&format!("session_token={token}&integration=shop&lang=de")).await;
    assert!(text.contains("Benutzername") && text.contains("data-way=\"/api-auth/basic/shop\""), "{text}");
    let (status, _, text) = page("session_token=nonsense").await;
    assert!(status == 401 && text.contains("This link is over"), "{text}");
    let (status, _, text) = page("apiURL=x&lang=fr&theme=dark").await;
    assert!(status == 200 && text.contains("data-state=\"waiting\"") && text.contains("data-theme=\"dark\""), "{text}");
    serving.stop().await;
}
