//! People who sign in at a provider: against a real authorization server, with everything that an attacker could change on the way
//! back.

use reqwest::{Method, Url};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;
use syncline_tests::oidc::{Oidc, Person};
use syncline_tests::serving::{KEY, Serving, client};

/// Longest wait for anything; only a failing test waits so long.
const PATIENCE: Duration = Duration::from_secs(60);

async fn serve(folder: &Path, oidc: &Oidc) -> Serving {
    let sources = folder.join("sources");
    std::fs::create_dir_all(&sources).expect("a folder");
    let auth = oidc.auth().replace("env:APP_SECRET", "file:app.secret");
    let text = format!(
        "source: oidc\ntitle: With a sign-in\nbase_url: {}\n{auth}\
         streams: [{{name: Item, key: .id, schedule: {{every: 12h}}, list: {{get: /api/items}}}}]\n",
        oidc.url
    );
    std::fs::write(sources.join("oidc.yaml"), text).expect("a definition");
    std::fs::write(sources.join("app.secret"), "secret-of-the-app").expect("a secret");
    let serving = Serving::start(folder, &sources).await;
    oidc.allow(&serving.url).await;
    serving
}

async fn call(serving: &Serving, method: Method, path: &str, body: Value) -> (u16, Value) {
    let request = client().request(method, format!("{}{path}", serving.url)).bearer_auth(KEY).json(&body);
    let answer = request.send().await.expect("an answer");
    let status = answer.status().as_u16();
    (status, serde_json::from_str(&answer.text().await.expect("text")).unwrap_or_default())
}

async fn session(serving: &Serving) -> String {
    let body = json!({"end_user": {"id": "ann"}, "allowed_integrations": ["oidc"]});
    token(call(serving, Method::POST, "/connect/sessions", body).await)
}

fn token((status, opened): (u16, Value)) -> String {
    assert_eq!(status, 201, "{opened}");
    opened["data"]["token"].as_str().expect("a token").to_owned()
}

fn departure(serving: &Serving, token: &str) -> String {
    format!("{}/oauth/connect/oidc?connect_session_token={token}", serving.url)
}

/// Somebody who has signed in, and the address that brings them back.
async fn back(serving: &Serving, token: &str, account: Option<&str>) -> (Person, String) {
    let mut person = Person::default();
    let callback = format!("{}/oauth/callback", serving.url);
    let url = person.follow(&departure(serving, token), account, &callback).await.expect("a way back");
    (person, url)
}

async fn outcome(serving: &Serving, token: &str) -> Value {
    let request = client().get(format!("{}/connect/session", serving.url)).bearer_auth(token);
    let seen: Value = request.send().await.expect("an answer").json().await.expect("JSON");
    seen["data"]["outcomes"]["oidc"].clone()
}

async fn connections(serving: &Serving) -> usize {
    let (_, list) = call(serving, Method::GET, "/connections", json!({})).await;
    list["connections"].as_array().map_or(0, Vec::len)
}

#[tokio::test(flavor = "multi_thread")]
async fn oauth_flow_from_a_link_to_the_first_records_and_a_reconnect() {
    let folder = tempfile::tempdir().expect("a folder");
    let oidc = tokio::task::spawn_blocking(|| Oidc::start(3_600)).await.expect("it starts");
    let serving = serve(folder.path(), &oidc).await;
    let token_of_session = session(&serving).await;
    let (mut person, url) = back(&serving, &token_of_session, Some("ann")).await;
    let answer = person.ask(&url, None).await;
    assert_eq!(answer.status(), 200);
    let shown = answer.text().await.expect("text");
    assert!(shown.contains("Your account is connected."), "{shown}");
    let id = outcome(&serving, &token_of_session).await["connection_id"].as_str().expect("an id").to_owned();
    let path = format!("/connections/{id}?provider_config_key=oidc");
    let (_, connection) = call(&serving, Method::GET, &path, json!({})).await;
    assert_eq!(
        (&connection["credentials"]["type"], &connection["connection_config"]["account"]),
        (&json!("OAUTH2"), &json!("ann"))
    );
    assert!(
        connection["credentials"]["refresh_token"].is_string() && connection["credentials"]["raw"]["scope"].is_string()
    );
    let before = serving.changes_of(["oidc", &id, "Item"], 3, PATIENCE).await;
    assert_eq!(before.len(), 3);

    let body = json!({"connection_id": id, "integration_id": "oidc"});
    let again = token(call(&serving, Method::POST, "/connect/sessions/reconnect", body).await);
    let (mut person, url) = back(&serving, &again, Some("ann")).await;
    assert_eq!(person.ask(&url, None).await.status(), 200);
    assert_eq!(outcome(&serving, &again).await["connection_id"], id);
    let (_, after) = call(&serving, Method::GET, &path, json!({})).await;
    assert_ne!(after["credentials"]["access_token"], connection["credentials"]["access_token"]);
    assert_eq!(serving.changes_of(["oidc", &id, "Item"], 3, PATIENCE).await, before, "same records, same cursors");
    assert_eq!(connections(&serving).await, 1);
    serving.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn oauth_flow_that_was_changed_on_the_way_makes_no_connection() {
    let folder = tempfile::tempdir().expect("a folder");
    let oidc = tokio::task::spawn_blocking(|| Oidc::start(3_600)).await.expect("it starts");
    let serving = serve(folder.path(), &oidc).await;
    let changed = |url: &str, name: &str, value: Option<&str>| {
        let mut changed = Url::parse(url).expect("an address");
        let pairs: Vec<(String, String)> =
            changed.query_pairs().into_owned().filter(|(known, _)| known != name).collect();
        changed.query_pairs_mut().clear().extend_pairs(pairs);
        if let Some(value) = value {
            changed.query_pairs_mut().append_pair(name, value);
        }
        changed.to_string()
    };
    let ways: [(&str, Option<&str>, bool); 7] = [
        ("state", Some("AQAAnonsense"), false),
        ("state", None, false),
        ("code", Some("another"), true),
        ("code", None, true),
        ("iss", Some("https://evil.example"), true),
        ("iss", None, true),
        ("error", Some("server_error"), true),
    ];
    for (name, value, told) in ways {
        let token = session(&serving).await;
        let (mut person, url) = back(&serving, &token, Some("ann")).await;
        assert_eq!(person.ask(&changed(&url, name, value), None).await.status(), 400, "{name} {value:?}");
        assert_eq!(outcome(&serving, &token).await["error"].is_object(), told, "{name} {value:?}");
        // Where the way back was someone's, it is used up; and where it was nobody's, the right one still counts.
        if told {
            assert_eq!(person.ask(&url, None).await.status(), 400, "a way back counts once");
        }
    }
    assert_eq!(connections(&serving).await, 0);

    // Another browser has the address, and not what the first one kept.
    let token = session(&serving).await;
    let (_, url) = back(&serving, &token, Some("ann")).await;
    assert_eq!(Person::default().ask(&url, None).await.status(), 400);
    let (mut person, url) = back(&serving, &token, Some("ann")).await;
    person.cookies_of(&serving.url).values_mut().for_each(|value| *value = value.replace(['0', '1', '2'], "3"));
    assert_eq!(person.ask(&url, None).await.status(), 400);
    // The person refuses.
    let (mut person, url) = back(&serving, &token, None).await;
    assert_eq!(person.ask(&url, None).await.status(), 400);
    assert_eq!(
        outcome(&serving, &token).await["error"],
        json!({"code": "access_denied", "message": "the user refused"})
    );
    assert_eq!(connections(&serving).await, 0);
    // A session that was refused may be used again. Of two windows that both come back the first one counts.
    let (mut other, late) = back(&serving, &token, Some("ann")).await;
    let (mut person, url) = back(&serving, &token, Some("ann")).await;
    assert_eq!(person.ask(&url, None).await.status(), 200);
    assert_eq!(connections(&serving).await, 1);
    assert_eq!(other.ask(&late, None).await.status(), 400);
    assert!(outcome(&serving, &token).await["connection_id"].is_string(), "what was connected stays so");
    assert_eq!(connections(&serving).await, 1);
    // Its way back, a second time; and another departure under the session.
    assert_eq!(person.ask(&url, None).await.status(), 400);
    assert_eq!(person.ask(&departure(&serving, &token), None).await.status(), 409);
    serving.stop().await;
}
