//! Linear: one URL for all, a cursor among the variables of a query, a limit as 400 with a code, times in webhooks.

use super::fake::{
    Call, Hook, Item, Provider, Reply, Seen, StreamCase, World, hmac_hex, iso, now, seconds, token, unknown,
};
use super::walk::walk;
use serde_json::{Value, json};

struct Linear;

#[tokio::test(flavor = "multi_thread")]
async fn the_preset_of_linear() {
    walk(Linear).await;
}

fn shown(stream: &str, item: &Item) -> Value {
    let mut node = json!({
        "id": item.id, "url": "https://linear.example/x", "createdAt": "2026-01-01T00:00:00.000Z", "updatedAt": item.iso(),
        "archivedAt": null, "trashed": null,
    });
    match stream {
        "Issue" => {
            node["title"] = item.text.as_str().into();
            node["state"] = json!({"id": "s1", "name": "Todo", "type": "unstarted"});
            node["team"] = json!({"id": "t1", "key": "ENG", "name": "Engineering"});
        }
        _ => node["name"] = item.text.as_str().into(),
    }
    node
}

/// In a query labels are a connection, in a webhook a list.
fn labelled(mut node: Value, labels: Value) -> Value {
    node["labels"] = labels;
    node
}

fn refused(code: &str) -> Value {
    json!({"errors": [{"message": "made up", "extensions": {"code": code}}]})
}

impl Provider for Linear {
    fn preset(&self) -> &'static str {
        "linear"
    }

    fn credentials(&self) -> &'static str {
        "key: \"file:token\""
    }

    fn streams(&self) -> Vec<StreamCase> {
        let case = |stream, field, id, incremental, deletes| StreamCase {
            stream,
            field,
            id,
            incremental,
            deletes,
            hooks: [true, true],
        };
        vec![
            case("Issue", "title", |n| format!("issue-{n}"), true, Seen::List),
            case("Project", "name", |n| format!("project-{n}"), true, Seen::List),
            case("User", "name", |n| format!("user-{n}"), false, Seen::Run),
        ]
    }

    fn demand(&self, call: &Call) -> Result<(), String> {
        call.demand("authorization", "token-of-somebody")
    }

    fn answer(&self, call: &Call, world: &mut World) -> Reply {
        let query = call.body["query"].as_str().unwrap_or_default();
        if query.contains("viewer") {
            return Reply::ok(json!({"data": {"viewer": {"id": "me", "organization": {"id": "org-1"}}}}));
        }
        let known = [("issues(", "issues", "Issue"), ("projects(", "projects", "Project"), ("users(", "users", "User")];
        let Some((_, name, stream)) = known.iter().find(|(call, ..)| query.contains(call)) else { return unknown() };
        let variables = &call.body["variables"];
        if query.matches('{').count() != query.matches('}').count() || !query.contains("$after: String") {
            return Reply::of(400, refused("GRAPHQL_PARSE_FAILED"));
        }
        let since = variables["filter"]["updatedAt"]["gte"].as_str().map(seconds);
        let mut found = world.live(stream, since);
        if let Some(ids) = variables["filter"]["id"]["in"].as_array() {
            found.retain(|item| ids.iter().any(|id| *id == item.id.as_str()));
        }
        let (page, next) = world.page(&found, call.place(variables["after"].as_str().unwrap_or_default()));
        let nodes: Vec<Value> = page
            .iter()
            .map(|item| labelled(shown(stream, item), json!({"nodes": [{"id": "l1", "name": "bug"}]})))
            .collect();
        let mut body = json!({"data": {}});
        body["data"][*name] =
            json!({"nodes": nodes, "pageInfo": {"hasNextPage": next.is_some(), "endCursor": token(next)}});
        Reply::ok(body).with("X-RateLimit-Requests-Remaining", 1_400)
    }

    fn limited(&self) -> Reply {
        let reply = Reply::of(400, refused("RATELIMITED"));
        reply.with("X-RateLimit-Requests-Remaining", 0).with("X-RateLimit-Requests-Reset", (now() + 2) * 1_000)
    }

    fn hook(&self, hook: &Hook) -> (String, Vec<(&'static str, String)>) {
        let body = json!({
            "action": if hook.item.gone { "remove" } else { "update" }, "type": hook.stream, "organizationId": "org-1",
            "data": labelled(shown(hook.stream, &hook.item), json!([{"id": "l1", "name": "bug"}])), "createdAt": iso(now()),
            "webhookTimestamp": now() * 1_000, "webhookId": "w1",
        });
        (
            body.to_string(),
            vec![("linear-delivery", format!("delivery-{}", hook.number)), ("linear-event", hook.stream.to_owned())],
        )
    }

    fn sign(&self, _url: &str, body: &str, secret: &str) -> Vec<(&'static str, String)> {
        vec![("linear-signature", hmac_hex(secret, body))]
    }
}
