//! Zendesk: the export of what changed with deleted ones in it, a cursor in brackets, webhooks that name a ticket.

use super::fake::{Call, Hook, Item, Provider, Reply, Seen, StreamCase, World, hmac_base64, iso, now, token, unknown};
use super::walk::walk;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

struct Zendesk;

#[tokio::test(flavor = "multi_thread")]
async fn the_preset_of_zendesk() {
    walk(Zendesk).await;
}

fn ticket(item: &Item) -> Value {
    let id: u64 = item.id.parse().expect("a number");
    let status = if item.gone { "deleted" } else { "open" };
    json!({
        "id": id, "subject": item.text, "description": "made up", "status": status, "priority": null, "type": "question",
        "requester_id": 9, "tags": ["a"], "via": {"channel": "web"}, "created_at": "2026-01-01T00:00:00Z", "updated_at": item.iso(),
    })
}

fn user(item: &Item) -> Value {
    let id: u64 = item.id.parse().expect("a number");
    json!({
        "id": id, "name": item.text, "email": "a@example.com", "role": "end-user", "active": !item.gone, "suspended": false,
        "created_at": "2026-01-01T00:00:00Z", "updated_at": item.iso(),
    })
}

fn organization(item: &Item) -> Value {
    let id: u64 = item.id.parse().expect("a number");
    json!({"id": id, "name": item.text, "domain_names": [], "created_at": "2026-01-01T00:00:00Z", "updated_at": item.iso()})
}

fn export(call: &Call, world: &mut World, stream: &str, name: &str, shown: fn(&Item) -> Value) -> Reply {
    // The cursor of an export stands for its start as well.
    let (start, place) = match call.param("cursor").split_once('.') {
        Some((start, place)) => (start.to_owned(), place.parse().expect("a cursor of ours")),
        None => (call.param("start_time").to_owned(), 0),
    };
    let since: i64 = start.parse().expect("seconds");
    if since > now() - 60 {
        return Reply::of(400, json!({"error": "InvalidValue", "description": "too recent"}));
    }
    let (page, next) = world.page(&world.all(stream, Some(since)), place);
    let cursor = format!("{start}.{}", next.unwrap_or(place + page.len()));
    let url = format!("{}{}?cursor={cursor}", world.url, call.path);
    let mut body = json!({"after_cursor": cursor, "after_url": url, "end_of_stream": next.is_none()});
    body[name] = page.iter().map(shown).collect::<Vec<_>>().into();
    Reply::ok(body).with("ratelimit-remaining", 390).with("ratelimit-reset", 30)
}

fn one(item: Option<&Item>, name: &str, shown: fn(&Item) -> Value) -> Reply {
    let Some(item) = item else {
        return Reply::of(404, json!({"error": "RecordNotFound", "description": "Not found"}));
    };
    let mut body = json!({});
    body[name] = shown(item);
    Reply::ok(body)
}

impl Provider for Zendesk {
    fn preset(&self) -> &'static str {
        "zendesk"
    }

    fn credentials(&self) -> &'static str {
        "username: a@example.com/token, password: \"file:token\""
    }

    fn streams(&self) -> Vec<StreamCase> {
        let (deletes, hooks) = (Seen::Run, [true, true]);
        let case = |stream, field, id, incremental| StreamCase { stream, field, id, incremental, deletes, hooks };
        vec![
            case("Ticket", "subject", |n| (11 + n).to_string(), true),
            case("User", "name", |n| (21 + n).to_string(), true),
            case("Organization", "name", |n| (31 + n).to_string(), false),
        ]
    }

    fn demand(&self, call: &Call) -> Result<(), String> {
        call.demand("authorization", &format!("Basic {}", STANDARD.encode("a@example.com/token:token-of-somebody")))
    }

    fn answer(&self, call: &Call, world: &mut World) -> Reply {
        match call.path.as_str() {
            "/api/v2/users/me" => Reply::ok(json!({"user": {"id": 9}})),
            "/api/v2/incremental/tickets/cursor" => export(call, world, "Ticket", "tickets", ticket),
            "/api/v2/incremental/users/cursor" => export(call, world, "User", "users", user),
            "/api/v2/organizations" => {
                let (page, next) = world.page(&world.live("Organization", None), call.place(call.param("page[after]")));
                let list: Vec<Value> = page.iter().map(organization).collect();
                Reply::ok(
                    json!({"organizations": list, "meta": {"has_more": next.is_some(), "after_cursor": token(next.or(Some(99)))}}),
                )
            }
            path => match path.trim_start_matches("/api/v2/").split_once('/') {
                Some(("tickets", id)) => one(world.get("Ticket", id), "ticket", ticket),
                Some(("users", id)) => one(world.get("User", id), "user", user),
                Some(("organizations", id)) => one(world.get("Organization", id), "organization", organization),
                _ => unknown(),
            },
        }
    }

    fn limited(&self) -> Reply {
        Reply::of(
            429,
            json!({"error": "APIRateLimitExceeded", "description": "Number of allowed API requests exceeded"}),
        )
        .with("Retry-After", 1)
    }

    fn hook(&self, hook: &Hook) -> (String, Vec<(&'static str, String)>) {
        let (kind, what) = match (hook.stream, hook.item.gone) {
            ("Ticket", true) => ("ticket", "soft_deleted"),
            ("Ticket", false) => ("ticket", "subject_changed"),
            ("User", true) => ("user", "deleted"),
            ("User", false) => ("user", "name_changed"),
            (_, true) => ("organization", "deleted"),
            (_, false) => ("organization", "name_changed"),
        };
        let body = json!({
            "type": format!("zen:event-type:{kind}.{what}"), "account_id": 1, "id": format!("event-{}", hook.number), "time": iso(now()),
            "zendesk_event_version": "2022-11-06", "subject": format!("zen:{kind}:{}", hook.item.id), "detail": {"id": hook.item.id}, "event": {},
        });
        (body.to_string(), vec![("x-zendesk-webhook-invocation-id", format!("invocation-{}", hook.number))])
    }

    fn sign(&self, _url: &str, body: &str, secret: &str) -> Vec<(&'static str, String)> {
        let stamp = iso(now());
        let signature = hmac_base64(secret, &format!("{stamp}{body}"));
        vec![("x-zendesk-webhook-signature", signature), ("x-zendesk-webhook-signature-timestamp", stamp)]
    }
}
