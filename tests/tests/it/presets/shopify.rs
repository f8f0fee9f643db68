//! Shopify: the GraphQL Admin API with its throttle as 200, and webhooks in the form of another API.

use super::fake::{
    Call, Hook, Item, Provider, Reply, Seen, StreamCase, World, hmac_base64, iso, now, seconds, token, unknown,
};
use super::walk::walk;
use serde_json::{Value, json};

struct Shopify;

#[tokio::test(flavor = "multi_thread")]
async fn the_preset_of_shopify() {
    walk(Shopify).await;
}

/// Stream, its name in queries and topics, the field that holds the text.
const OBJECTS: [(&str, &str, &str); 3] =
    [("Product", "products", "title"), ("Customer", "customers", "firstName"), ("Order", "orders", "name")];

fn shown(item: &Item, field: &str) -> Value {
    let mut node = json!({"id": item.id, "tags": [], "createdAt": "2026-01-01T00:00:00Z", "updatedAt": item.iso()});
    node[field] = item.text.as_str().into();
    node
}

/// The time of `updated_at:>='…'`.
fn since(variables: &Value) -> Option<i64> {
    let text = variables["query"].as_str()?.strip_prefix("updated_at:>='")?.strip_suffix('\'')?;
    Some(seconds(text))
}

fn nodes(query: &str, variables: &Value, world: &World) -> Reply {
    let Some((stream, _, field)) = OBJECTS.iter().find(|(stream, ..)| query.contains(&format!("... on {stream} ")))
    else {
        return unknown();
    };
    let ids = variables["ids"].as_array().cloned().unwrap_or_default();
    let found = |id: &Value| world.get(stream, id.as_str()?).map(|item| shown(item, field));
    let nodes: Vec<Value> = ids.iter().map(|id| found(id).unwrap_or(Value::Null)).collect();
    Reply::ok(json!({"data": {"nodes": nodes}}))
}

impl Provider for Shopify {
    fn preset(&self) -> &'static str {
        "shopify"
    }

    fn credentials(&self) -> &'static str {
        "key: \"file:token\""
    }

    fn streams(&self) -> Vec<StreamCase> {
        let case = |stream, field, id, deletes| StreamCase {
            stream,
            field,
            id,
            incremental: true,
            deletes,
            hooks: [true, true],
        };
        vec![
            case("Product", "title", |n| format!("gid://shopify/Product/{}", 100 + n), Seen::List),
            case("Customer", "first_name", |n| format!("gid://shopify/Customer/{}", 200 + n), Seen::List),
            case("Order", "name", |n| format!("gid://shopify/Order/{}", 300 + n), Seen::Never),
        ]
    }

    fn demand(&self, call: &Call) -> Result<(), String> {
        call.demand("x-shopify-access-token", "token-of-somebody")
    }

    fn answer(&self, call: &Call, world: &mut World) -> Reply {
        if (call.method.as_str(), call.path.as_str()) != ("POST", "/admin/api/2025-07/graphql.json") {
            return unknown();
        }
        let (query, variables) = (call.body["query"].as_str().unwrap_or_default(), &call.body["variables"]);
        if query.matches('{').count() != query.matches('}').count() {
            return Reply::of(400, json!({"errors": [{"message": "syntax error"}]}));
        }
        if query.contains("myshopifyDomain") {
            return Reply::ok(
                json!({"data": {"shop": {"id": "gid://shopify/Shop/1", "myshopifyDomain": "made-up.myshopify.com"}}}),
            );
        }
        if query.contains("nodes(ids: $ids)") {
            return nodes(query, variables, world);
        }
        let Some((stream, name, field)) = OBJECTS.iter().find(|(_, name, _)| query.contains(&format!("{name}(")))
        else {
            return unknown();
        };
        let found = world.live(stream, since(variables));
        let (page, next) = world.page(&found, call.place(variables["after"].as_str().unwrap_or_default()));
        let nodes: Vec<Value> = page.iter().map(|item| shown(item, field)).collect();
        let mut body = json!({"data": {}, "extensions": {"cost": {"requestedQueryCost": 12}}});
        body["data"][*name] =
            json!({"nodes": nodes, "pageInfo": {"hasNextPage": next.is_some(), "endCursor": token(next)}});
        Reply::ok(body)
    }

    fn limited(&self) -> Reply {
        let body = json!({"errors": [{"message": "Throttled", "extensions": {"code": "THROTTLED"}}]});
        Reply::ok(body).with("Retry-After", "2.0")
    }

    fn hook(&self, hook: &Hook) -> (String, Vec<(&'static str, String)>) {
        let (_, name, _) = OBJECTS.iter().find(|(stream, ..)| *stream == hook.stream).expect("an object");
        let number: u64 = hook.item.id.rsplit('/').next().and_then(|id| id.parse().ok()).expect("a number");
        let what = match (*name, hook.item.gone) {
            (_, true) => "delete",
            ("orders", false) => "updated",
            _ => "update",
        };
        let body = match hook.item.gone {
            true => json!({"id": number}),
            false => json!({"id": number, "admin_graphql_api_id": hook.item.id, "updated_at": hook.item.iso()}),
        };
        let headers = vec![
            ("x-shopify-topic", format!("{name}/{what}")),
            ("x-shopify-shop-domain", "made-up.myshopify.com".to_owned()),
            ("x-shopify-webhook-id", format!("webhook-{}", hook.number)),
            ("x-shopify-triggered-at", iso(now())),
        ];
        (body.to_string(), headers)
    }

    fn sign(&self, _url: &str, body: &str, secret: &str) -> Vec<(&'static str, String)> {
        vec![("x-shopify-hmac-sha256", hmac_base64(secret, body))]
    }
}
