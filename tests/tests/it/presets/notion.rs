//! Notion: a cursor in the body, times of the minute, pages that are in the trash, webhooks that name a page.

use super::fake::{
    Call, Hook, Item, Provider, Reply, Seen, StreamCase, World, hmac_hex, iso, now, seconds, token, unknown,
};
use super::walk::{ITEMS, walk};
use serde_json::{Value, json};

struct Notion;

#[tokio::test(flavor = "multi_thread")]
async fn the_preset_of_notion() {
    walk(Notion).await;
}

/// The database that all pages are in.
const OF_PAGES: &str = "d0000000-0000-4000-8000-000000000001";

/// Notion's times have no seconds.
fn minute(item: &Item) -> String {
    iso(item.at - item.at.rem_euclid(60))
}

fn database(item: &Item) -> Value {
    json!({
        "object": "database", "id": item.id, "title": [{"plain_text": item.text}], "url": "https://notion.example/d",
        "created_time": "2026-01-01T00:00:00.000Z", "last_edited_time": minute(item), "archived": false, "in_trash": false,
    })
}

fn page(item: &Item) -> Value {
    json!({
        "object": "page", "id": item.id, "parent": {"type": "database_id", "database_id": OF_PAGES}, "url": "https://notion.example/p",
        "properties": {"Name": {"id": "title", "type": "title", "title": [{"plain_text": item.text}]}, "Done": {"type": "checkbox", "checkbox": false}},
        "created_time": "2026-01-01T00:00:00.000Z", "last_edited_time": minute(item), "archived": false, "in_trash": false,
    })
}

fn person(item: &Item) -> Value {
    json!({"object": "user", "id": item.id, "type": "person", "name": item.text, "person": {"email": "a@example.com"}})
}

fn list(world: &mut World, items: &[Item], from: usize, shown: fn(&Item) -> Value) -> Reply {
    let (page, next) = world.page(items, from);
    let results: Vec<Value> = page.iter().map(shown).collect();
    Reply::ok(json!({"object": "list", "results": results, "next_cursor": token(next), "has_more": next.is_some()}))
}

fn one(item: Option<&Item>, shown: fn(&Item) -> Value) -> Reply {
    let missing =
        || Reply::of(404, json!({"object": "error", "status": 404, "code": "object_not_found", "message": "made up"}));
    item.map_or_else(missing, |item| Reply::ok(shown(item)))
}

impl Provider for Notion {
    fn preset(&self) -> &'static str {
        "notion"
    }

    fn credentials(&self) -> &'static str {
        "token: \"file:token\""
    }

    fn streams(&self) -> Vec<StreamCase> {
        let (list, hooks) = (Seen::List, [true, true]);
        let case = |stream, field, id, incremental, deletes, hooks| StreamCase {
            stream,
            field,
            id,
            incremental,
            deletes,
            hooks,
        };
        vec![
            case("Page", "title", |n| format!("p0000000-0000-4000-8000-{n:012}"), true, list, hooks),
            case("Database", "title", |n| format!("d0000000-0000-4000-8000-{n:012}"), false, Seen::Run, hooks),
            case("User", "name", |n| format!("u0000000-0000-4000-8000-{n:012}"), false, Seen::Run, [false, false]),
        ]
    }

    fn partitions(&self, stream: &str) -> usize {
        if stream == "Page" { ITEMS } else { 0 }
    }

    fn demand(&self, call: &Call) -> Result<(), String> {
        call.demand("authorization", "Bearer token-of-somebody")?;
        call.demand("notion-version", "2022-06-28")
    }

    fn answer(&self, call: &Call, world: &mut World) -> Reply {
        let from = call.place(call.body["start_cursor"].as_str().unwrap_or_default());
        let pages = format!("/v1/databases/{OF_PAGES}/query");
        match (call.method.as_str(), call.path.as_str()) {
            ("GET", "/v1/users/me") => Reply::ok(json!({"object": "user", "id": "b1", "type": "bot"})),
            ("GET", "/v1/users") => {
                list(world, &world.live("User", None), call.place(call.param("start_cursor")), person)
            }
            ("POST", "/v1/search") if call.body["filter"] == json!({"property": "object", "value": "database"}) => {
                list(world, &world.live("Database", None), from, database)
            }
            ("POST", path) if path == pages => {
                let since = call.body["filter"]["last_edited_time"]["on_or_after"].as_str().map(seconds);
                let mut found = world.live("Page", None);
                found.retain(|item| since.is_none_or(|since| item.at - item.at.rem_euclid(60) >= since));
                list(world, &found, from, page)
            }
            ("POST", path) if path.ends_with("/query") => list(world, &[], 0, page),
            ("GET", path) => match (path.strip_prefix("/v1/databases/"), path.strip_prefix("/v1/pages/")) {
                (Some(id), _) => one(world.get("Database", id), database),
                (_, Some(id)) => one(world.get("Page", id), page),
                _ => unknown(),
            },
            _ => unknown(),
        }
    }

    fn limited(&self) -> Reply {
        let body = json!({"object": "error", "status": 429, "code": "rate_limited", "message": "made up"});
        Reply::of(429, body).with("Retry-After", 1)
    }

    fn hook(&self, hook: &Hook) -> (String, Vec<(&'static str, String)>) {
        let kind = if hook.stream == "Page" { "page" } else { "database" };
        let what = match (kind, hook.item.gone) {
            (_, true) => "deleted",
            ("page", false) => "properties_updated",
            _ => "schema_updated",
        };
        let body = json!({
            "id": format!("event-{}", hook.number), "timestamp": iso(now()), "workspace_id": "w1", "type": format!("{kind}.{what}"),
            "entity": {"id": hook.item.id, "type": kind}, "attempt_number": 1,
        });
        (body.to_string(), Vec::new())
    }

    fn sign(&self, _url: &str, body: &str, secret: &str) -> Vec<(&'static str, String)> {
        vec![("x-notion-signature", format!("sha256={}", hmac_hex(secret, body)))]
    }
}
