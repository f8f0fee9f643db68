//! HubSpot: lists by cursor, the search for changes with its window, events that carry one property.

use super::fake::{Call, Hook, Item, Provider, Reply, Seen, StreamCase, World, hmac_base64, now, token, unknown};
use super::walk::walk;
use serde_json::{Value, json};
use std::time::{SystemTime, UNIX_EPOCH};

struct HubSpot;

#[tokio::test(flavor = "multi_thread")]
async fn the_preset_of_hubspot() {
    walk(HubSpot).await;
}

/// Stream, its name in URLs, in events, and the property that holds the text.
const OBJECTS: [(&str, &str, &str, &str); 3] = [
    ("Contact", "contacts", "contact", "firstname"),
    ("Company", "companies", "company", "name"),
    ("Deal", "deals", "deal", "dealname"),
];

fn shown(item: &Item, property: &str) -> Value {
    let mut object = json!({"id": item.id, "properties": {}, "createdAt": "2026-01-01T00:00:00.000Z", "updatedAt": item.iso(), "archived": item.gone});
    object["properties"][property] = item.text.as_str().into();
    if item.gone {
        object["archivedAt"] = item.iso().into();
    }
    object
}

fn page(world: &mut World, items: &[Item], from: usize, property: &str) -> Value {
    let (page, next) = world.page(items, from);
    let results: Vec<Value> = page.iter().map(|item| shown(item, property)).collect();
    match next {
        Some(_) => json!({"results": results, "paging": {"next": {"after": token(next)}}}),
        None => json!({"results": results}),
    }
}

/// What the search was asked for: a property between two times in milliseconds.
fn window(call: &Call, stream: &str) -> Option<(i64, i64)> {
    let modified = if stream == "Contact" { "lastmodifieddate" } else { "hs_lastmodifieddate" };
    let filters = call.body["filterGroups"][0]["filters"].as_array()?;
    let of = |operator: &str| {
        let mut found = filters.iter().filter(|f| f["operator"] == operator && f["propertyName"] == modified);
        found.next()?["value"].as_i64()
    };
    let sorted = call.body["sorts"][0]["propertyName"] == modified;
    Some((of("GTE")?, of("LT")?)).filter(|_| sorted)
}

fn search(call: &Call, world: &mut World, stream: &str, property: &str) -> Reply {
    let asks = |wanted: &str| call.body["properties"].as_array().is_some_and(|list| list.iter().any(|p| p == wanted));
    let Some((since, until)) = window(call, stream).filter(|_| asks(property)) else {
        return Reply::of(400, json!({"status": "error", "category": "VALIDATION_ERROR", "message": "made up"}));
    };
    let mut found = world.live(stream, None);
    found.retain(|item| (since..until).contains(&(item.at * 1_000)));
    let total = found.len();
    let mut body = page(world, &found, call.place(call.body["after"].as_str().unwrap_or_default()), property);
    body["total"] = total.into();
    Reply::ok(body)
}

impl Provider for HubSpot {
    fn preset(&self) -> &'static str {
        "hubspot"
    }

    fn credentials(&self) -> &'static str {
        "token: \"file:token\""
    }

    fn streams(&self) -> Vec<StreamCase> {
        let case = |stream, field| StreamCase {
            stream,
            field,
            id: |n| (2_001 + n).to_string(),
            incremental: true,
            deletes: Seen::List,
            hooks: [true, true],
        };
        vec![case("Contact", "first_name"), case("Company", "name"), case("Deal", "name")]
    }

    fn demand(&self, call: &Call) -> Result<(), String> {
        call.demand("authorization", "Bearer token-of-somebody")
    }

    fn answer(&self, call: &Call, world: &mut World) -> Reply {
        if call.path == "/account-info/v3/details" {
            return Reply::ok(json!({"portalId": 4711, "timeZone": "Europe/Berlin"}));
        }
        let Some(rest) = call.path.strip_prefix("/crm/v3/objects/") else { return unknown() };
        let (name, rest) = rest.split_once('/').unwrap_or((rest, ""));
        let Some((stream, _, _, property)) = OBJECTS.iter().find(|(_, plural, ..)| *plural == name) else {
            return unknown();
        };
        let property = *property;
        match (call.method.as_str(), rest) {
            ("POST", "search") => search(call, world, stream, property),
            ("GET", "") if call.param("archived") == "true" => {
                Reply::ok(page(world, &world.gone(stream, None), call.place(call.param("after")), property))
            }
            ("GET", "") if call.param("properties").split(',').any(|p| p == property) => {
                Reply::ok(page(world, &world.live(stream, None), call.place(call.param("after")), property))
            }
            ("GET", id) => match world.get(stream, id) {
                Some(item) => Reply::ok(shown(item, property)),
                None => {
                    Reply::of(404, json!({"status": "error", "category": "OBJECT_NOT_FOUND", "message": "made up"}))
                }
            },
            _ => unknown(),
        }
    }

    fn limited(&self) -> Reply {
        let body = json!({"status": "error", "message": "You have reached your secondly limit.", "errorType": "RATE_LIMIT", "policyName": "SECONDLY"});
        Reply::of(429, body)
            .with("X-HubSpot-RateLimit-Remaining", 0)
            .with("X-HubSpot-RateLimit-Interval-Milliseconds", 1_200)
    }

    fn hook(&self, hook: &Hook) -> (String, Vec<(&'static str, String)>) {
        let (_, _, kind, property) = OBJECTS.iter().find(|(stream, ..)| *stream == hook.stream).expect("an object");
        let id: u64 = hook.item.id.parse().expect("a number");
        let mut event = json!({
            "eventId": hook.number, "subscriptionId": 12, "portalId": 4711, "occurredAt": now() * 1_000, "attemptNumber": 0,
            "objectId": id, "subscriptionType": format!("{kind}.propertyChange"), "propertyName": property, "propertyValue": hook.item.text,
        });
        if hook.item.gone {
            // As newer apps name it.
            let number = match *kind {
                "contact" => "0-1",
                "company" => "0-2",
                _ => "0-3",
            };
            event["subscriptionType"] = "object.deletion".into();
            event["objectTypeId"] = number.into();
        }
        (json!([event]).to_string(), Vec::new())
    }

    fn sign(&self, url: &str, body: &str, secret: &str) -> Vec<(&'static str, String)> {
        let stamp = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis();
        let signature = hmac_base64(secret, &format!("POST{url}{body}{stamp}"));
        vec![("x-hubspot-signature-v3", signature), ("x-hubspot-request-timestamp", stamp.to_string())]
    }
}
