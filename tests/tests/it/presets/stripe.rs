//! Stripe: lists by the last id, events of deleted objects, signed webhooks with the whole object.

use super::fake::{Call, Hook, Item, Provider, Reply, Seen, StreamCase, World, hmac_hex, now, unknown};
use super::walk::walk;
use serde_json::{Value, json};

struct Stripe;

#[tokio::test(flavor = "multi_thread")]
async fn the_preset_of_stripe() {
    walk(Stripe).await;
}

/// Stream, its name in URLs, its kind, the field that holds the text, the prefix of its events.
const OBJECTS: [(&str, &str, &str, &str, &str); 3] = [
    ("Customer", "customers", "customer", "name", "customer"),
    ("Subscription", "subscriptions", "subscription", "status", "customer.subscription"),
    ("Invoice", "invoices", "invoice", "number", "invoice"),
];

fn shown(item: &Item, kind: &str, field: &str) -> Value {
    let mut object =
        json!({"id": item.id, "object": kind, "created": 1_700_000_000, "metadata": {}, "livemode": false});
    object[field] = item.text.as_str().into();
    object
}

/// A list goes on behind the last id of the page before.
fn list(call: &Call, world: &mut World, items: &[Item], shown: impl Fn(&Item) -> Value) -> Reply {
    let after = call.param("starting_after");
    let id = |item: &Item| shown(item)["id"] == after;
    let from = if after.is_empty() { 0 } else { items.iter().position(id).expect("an id of ours") + 1 };
    let (page, next) = world.page(items, from);
    let data: Vec<Value> = page.iter().map(shown).collect();
    Reply::ok(json!({"object": "list", "data": data, "has_more": next.is_some(), "url": call.path}))
}

fn deleted(call: &Call, world: &mut World) -> Reply {
    let stream = match call.param("type") {
        "customer.deleted" => "Customer",
        "invoice.deleted" => "Invoice",
        _ => return unknown(),
    };
    let since: i64 = call.param("created[gte]").parse().expect("seconds");
    let (kind, id) = (call.param("type").to_owned(), |item: &Item| format!("evt_{}", item.id));
    list(
        call,
        world,
        &world.gone(stream, Some(since)),
        |item| json!({"id": id(item), "object": "event", "type": kind, "created": item.at, "data": {"object": {"id": item.id}}}),
    )
}

impl Provider for Stripe {
    fn preset(&self) -> &'static str {
        "stripe"
    }

    fn credentials(&self) -> &'static str {
        "token: \"file:token\""
    }

    fn streams(&self) -> Vec<StreamCase> {
        let case =
            |stream, field, id, hooks| StreamCase { stream, field, id, incremental: false, deletes: Seen::Run, hooks };
        vec![
            case("Customer", "name", |n| format!("cus_{n}"), [true, true]),
            case("Subscription", "status", |n| format!("sub_{n}"), [true, false]),
            case("Invoice", "number", |n| format!("in_{n}"), [true, true]),
        ]
    }

    fn demand(&self, call: &Call) -> Result<(), String> {
        call.demand("authorization", "Bearer token-of-somebody")?;
        call.demand("stripe-version", "2024-06-20")
    }

    fn answer(&self, call: &Call, world: &mut World) -> Reply {
        match call.path.as_str() {
            "/v1/account" => return Reply::ok(json!({"id": "acct_1", "object": "account"})),
            "/v1/events" => return deleted(call, world),
            _ => {}
        }
        let Some(rest) = call.path.strip_prefix("/v1/") else { return unknown() };
        let (name, id) = rest.split_once('/').unwrap_or((rest, ""));
        let Some((stream, _, kind, field, _)) = OBJECTS.iter().find(|(_, plural, ..)| *plural == name) else {
            return unknown();
        };
        if id.is_empty() {
            return list(call, world, &world.live(stream, None), |item| shown(item, kind, field));
        }
        match world.get(stream, id) {
            Some(item) => Reply::ok(shown(item, kind, field)),
            None if *stream == "Customer" => Reply::ok(json!({"id": id, "object": kind, "deleted": true})),
            None => Reply::of(
                404,
                json!({"error": {"type": "invalid_request_error", "code": "resource_missing", "message": "made up"}}),
            ),
        }
    }

    fn limited(&self) -> Reply {
        let body = json!({"error": {"type": "invalid_request_error", "code": "rate_limit", "message": "made up"}});
        Reply::of(429, body).with("Retry-After", 1)
    }

    fn hook(&self, hook: &Hook) -> (String, Vec<(&'static str, String)>) {
        let (_, _, kind, field, prefix) =
            OBJECTS.iter().find(|(stream, ..)| *stream == hook.stream).expect("an object");
        let what = if hook.item.gone { "deleted" } else { "updated" };
        let body = json!({
            "id": format!("evt_hook_{}", hook.number), "object": "event", "type": format!("{prefix}.{what}"), "created": now(),
            "data": {"object": shown(&hook.item, kind, field)}, "livemode": false,
        });
        (body.to_string(), Vec::new())
    }

    fn sign(&self, _url: &str, body: &str, secret: &str) -> Vec<(&'static str, String)> {
        let stamp = now();
        vec![("stripe-signature", format!("t={stamp},v1={}", hmac_hex(secret, &format!("{stamp}.{body}"))))]
    }
}
