//! Integrations over REST: those of files are shown, others are made from a preset while the server runs, and their connections
//! sync at once; and the functions of both as clients list them.

use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use syncline::engine::time::SystemClock;
use syncline_provider::github::{GitHub, GitHubOptions};
use syncline_tests::served::{ADMIN, OTHER, READER, Served, WRITER, folder};
use syncline_tests::serving::{KEY, Serving, client};

/// Longest wait for anything; only a failing test waits so long.
const PATIENCE: Duration = Duration::from_secs(30);

fn github(key: &str) -> Value {
    json!({"provider": "github", "unique_key": key, "display_name": "Ours", "custom": {"team": "red"}})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_made_from_a_preset_syncs_at_once_and_after_a_restart() {
    let dir = tempfile::tempdir().expect("a folder");
    let hub = GitHub::start(GitHubOptions::new("octo/hello", 12), Arc::new(SystemClock)).await.expect("a GitHub");
    let sources = dir.path().join("sources");
    let call = async |serving: &Serving, method: reqwest::Method, path: &str, body: Value| {
        let request = client().request(method, format!("{}{path}", serving.url)).bearer_auth(KEY).json(&body);
        let answer = request.send().await.expect("an answer");
        (answer.status().as_u16(), answer.json::<Value>().await.expect("JSON"))
    };
    let serving = Serving::start(dir.path(), &sources).await;
    let (status, made) = call(&serving, reqwest::Method::POST, "/integrations", github("hub")).await;
    assert_eq!(
        (status, &made["data"]["provider"], &made["data"]["display_name"]),
        (200, &json!("github"), &json!("Ours"))
    );
    let body = json!({"connection_id": "free", "provider_config_key": "hub", "base_url": hub.url(),
        "metadata": {"repo": ["octo/hello"]}});
    let (status, connection) = call(&serving, reqwest::Method::POST, "/connections", body).await;
    assert_eq!((status, &connection["provider"]), (201, &json!("github")), "{connection}");
    let changes = serving.changes_of(["hub", "free", "Issue"], hub.issues(), PATIENCE).await;
    assert_eq!(changes.len(), hub.issues());
    assert_eq!(serving.app().hooks.urls("hub").len(), 1, "its connection has a URL for webhooks");
    serving.stop().await;

    let serving = Serving::start(dir.path(), &sources).await;
    let rows = serving.changes_of(["hub", "free", "Issue"], hub.issues(), PATIENCE).await;
    assert_eq!(rows.len(), hub.issues());
    let (status, _) = call(&serving, reqwest::Method::DELETE, "/integrations/hub", json!({})).await;
    assert_eq!(status, 409, "it has a connection");
    let gone = "/connections/free?provider_config_key=hub";
    assert_eq!(call(&serving, reqwest::Method::DELETE, gone, json!({})).await.0, 200);
    assert_eq!(call(&serving, reqwest::Method::DELETE, "/integrations/hub", json!({})).await.0, 200);
    assert_eq!(call(&serving, reqwest::Method::GET, "/integrations/hub", json!({})).await.0, 404);
    serving.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn integrations_are_made_changed_and_deleted_by_their_environment() {
    let dir = folder();
    let served = Served::open(dir.path()).await;
    let ask = async |key: &str, method: &str, path: &str, body: Value| served.ask(key, method, path, Some(body)).await;
    let credentials = json!({"type": "API_KEY", "webhook_secret": "signed-with"});
    let secret = json!({"credentials": credentials.clone()});
    assert_eq!(ask(ADMIN, "POST", "/integrations", github("hub")).await.status, 200);

    let shown = ask(READER, "GET", "/integrations/hub?include=webhook", json!({})).await.json();
    assert_eq!(shown["data"]["unique_key"], "hub");
    assert_eq!(shown["data"]["credentials"], Value::Null);
    assert_eq!(ask(READER, "GET", "/integrations/hub?include=credentials", json!({})).await.status, 403);
    assert_eq!(ask(READER, "GET", "/integrations/hub?include=all", json!({})).await.code(), "invalid_query_params");
    let changed = ask(ADMIN, "PATCH", "/integrations/hub", json!({"display_name": "Hub"})).await;
    assert_eq!(changed.json()["data"]["display_name"], "Hub");
    let refused = ask(ADMIN, "PATCH", "/integrations/hub", json!({"credentials": credentials})).await;
    assert_eq!(refused.code(), "invalid_body", "GitHub signs with a secret of each connection");

    let list = ask(ADMIN, "GET", "/integrations", json!({})).await.json();
    let names: Vec<&str> =
        list["data"].as_array().expect("a list").iter().filter_map(|one| one["unique_key"].as_str()).collect();
    assert_eq!(names, ["crm", "hub"]);
    let list = ask(OTHER, "GET", "/integrations", json!({})).await.json();
    assert_eq!(list["data"].as_array().map(Vec::len), Some(1), "another environment's is not seen: {list}");
    for (method, body) in [("PATCH", json!({"display_name": "Mine"})), ("DELETE", json!({}))] {
        assert_eq!(ask(OTHER, method, "/integrations/hub", body).await.code(), "not_found");
    }

    let cases = [
        (WRITER, "POST", "/integrations", github("w"), "forbidden"),
        (ADMIN, "POST", "/integrations", github("hub"), "integration_exists"),
        (ADMIN, "POST", "/integrations", github("crm"), "integration_exists"),
        (ADMIN, "POST", "/integrations", github("a b"), "invalid_body"),
        (ADMIN, "POST", "/integrations", json!({"provider": "nowhere", "unique_key": "n"}), "unknown_provider"),
        (ADMIN, "POST", "/integrations", json!({"provider": "github"}), "invalid_body"),
        (ADMIN, "PATCH", "/integrations/hub", json!({"unique_key": "other"}), "invalid_body"),
        (ADMIN, "PATCH", "/integrations/crm", secret, "defined_in_file"),
        (ADMIN, "DELETE", "/integrations/crm", json!({}), "defined_in_file"),
        (ADMIN, "DELETE", "/integrations/none", json!({}), "not_found"),
        (ADMIN, "POST", "/integrations/quickstart", github("q"), "not_supported"),
    ];
    for (key, method, path, body, code) in cases {
        let answer = ask(key, method, path, body.clone()).await;
        assert_eq!(answer.code(), code, "{method} {path} {body}");
    }
    assert_eq!(ask(ADMIN, "DELETE", "/integrations/hub", json!({})).await.status, 200);
    served.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_integrations_do_is_listed_as_functions() {
    let dir = folder();
    let served = Served::open(dir.path()).await;
    let get = async |path: &str| served.ask(ADMIN, "GET", path, None).await;
    let list = get("/integrations/crm/functions?type=sync&limit=1").await.json();
    assert_eq!(list["pagination"], json!({"total": 2, "page": 0, "limit": 1}));
    assert_eq!((&list["data"][0]["name"], &list["data"][0]["returns"]), (&json!("contacts"), &json!(["Contact"])));
    assert_eq!(get("/integrations/crm/functions/deals").await.json()["data"]["runs"], "every 2h");
    let code = get("/integrations/crm/functions/deals/code").await.json();
    assert!(code["code"].as_str().is_some_and(|text| text.contains("get: /deals")), "{code}");
    assert_eq!(get("/integrations/crm/functions/none").await.code(), "not_found");
    let deleted = served.ask(ADMIN, "DELETE", "/integrations/crm/functions/deals?type=sync", None).await;
    assert_eq!((deleted.status, deleted.code().as_str()), (409, "defined_in_file"));
    let config = get("/scripts/config").await.json();
    assert_eq!(config[0]["syncs"].as_array().map(Vec::len), Some(2), "{config}");
    assert_eq!(get("/scripts/config?format=openai").await.json(), json!({"data": []}));
    assert_eq!(get("/environment-variables").await.json(), json!([]));

    let providers = get("/providers?search=git").await.json();
    assert_eq!(providers["data"][0]["display_name"], "GitHub");
    assert_eq!(get("/providers/github").await.json()["data"]["name"], "github");
    assert_eq!(get("/providers/github/templates").await.json(), json!({"data": []}));
    assert_eq!(get("/providers/nowhere").await.code(), "not_found");
    served.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_found_by_their_end_users() {
    let dir = folder();
    let served = Served::open(dir.path()).await;
    let ask = async |method: &str, path: &str, body: Value| served.ask(ADMIN, method, path, Some(body)).await;
    let user = |id: &str| {
        json!({"id": id, "email": "a@example.com", "display_name": null, "tags": {"plan": "pro"},
        "organization": {"id": "org", "display_name": "Org"}})
    };
    for (id, of) in [("one", "ann"), ("two", "bob")] {
        let body = json!({"connection_id": id, "provider_config_key": "crm", "credentials": {"apiKey": "k"}, "end_user": user(of)});
        let made = ask("POST", "/connections", body).await;
        assert_eq!((made.status, &made.json()["end_user"]), (201, &user(of)));
    }
    let found = async |query: &str| {
        let list = served.ask(READER, "GET", &format!("/connections?{query}"), None).await.json();
        let rows = list["connections"].as_array().cloned().expect("a list");
        let mut names: Vec<String> =
            rows.iter().filter_map(|row| Some(row["connection_id"].as_str()?.to_owned())).collect();
        names.sort();
        names
    };
    assert_eq!(found("endUserId=ann").await, ["one"]);
    assert_eq!(found("endUserOrganizationId=org").await, ["one", "two"]);
    assert_eq!(found("endUserId=nobody").await, Vec::<String>::new());
    let one = "/connections/one?provider_config_key=crm";
    assert_eq!(ask("PATCH", one, json!({"end_user": {"id": "eve"}, "tags": {"team": "red"}})).await.status, 200);
    assert_eq!(found("endUserId=eve&tags[team]=red").await, ["one"]);
    assert_eq!(ask("PATCH", one, json!({"end_user": {"id": ""}})).await.code(), "invalid_body");
    assert_eq!(ask("PATCH", one, json!({"end_user": null})).await.status, 200);
    assert_eq!(found("endUserId=eve").await, Vec::<String>::new());
    served.close().await;
}
