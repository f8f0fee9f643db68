//! Slack: refusals as 200, an empty cursor at the end, members that are deactivated, events in envelopes, a challenge.

use super::fake::{Call, Fake, Hook, Item, Provider, Reply, Seen, StreamCase, World, hmac_hex, now, token, unknown};
use super::walk::walk;
use serde_json::{Value, json};
use syncline_tests::serving::{Serving, client};

struct Slack;

#[tokio::test(flavor = "multi_thread")]
async fn the_preset_of_slack() {
    walk(Slack).await;
}

/// Slack takes a URL only if it answers a signed challenge; the same body without proof is refused.
#[tokio::test(flavor = "multi_thread")]
async fn slack_has_its_challenge_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let fake = Fake::start(Box::new(Slack)).await;
    let url = fake.world.lock().url.clone();
    std::fs::write(folder.path().join("secret"), "secret-of-the-app").expect("written");
    let text = format!(
        "source: slack\npreset: slack\nbase_url: {url}\nconnections:\n  me: {{token: \"file:secret\", webhook_secret: \"file:secret\"}}\n"
    );
    let sources = folder.path().join("slack.yaml");
    std::fs::write(&sources, text).expect("written");
    let serving = Serving::start(folder.path(), &sources).await;
    let hook = serving.hook_url("slack");
    let body = json!({"type": "url_verification", "token": "made up", "challenge": "say this"}).to_string();
    let signed = Slack.sign(&hook, &body, "secret-of-the-app").into_iter();
    let request = client().post(&hook).header("content-type", "application/json").body(body.clone());
    let answer =
        signed.fold(request, |request, (name, value)| request.header(name, value)).send().await.expect("an answer");
    assert_eq!((answer.status().as_u16(), answer.text().await.expect("text").as_str()), (200, "say this"));
    let answer =
        client().post(&hook).header("content-type", "application/json").body(body).send().await.expect("an answer");
    assert_eq!(answer.status().as_u16(), 401);
    serving.stop().await;
}

fn member(item: &Item) -> Value {
    json!({
        "id": item.id, "team_id": "T1", "name": "made.up", "deleted": item.gone, "real_name": item.text, "tz": "Europe/Berlin",
        "profile": {"email": "a@example.com", "title": ""}, "is_admin": false, "is_bot": false, "updated": item.at,
    })
}

fn channel(item: &Item) -> Value {
    json!({
        "id": item.id, "name": item.text, "is_channel": true, "is_archived": false, "created": 1_700_000_000, "creator": "U1",
        "topic": {"value": "made up"}, "purpose": {"value": ""},
    })
}

fn list(call: &Call, world: &mut World, items: &[Item], name: &str, shown: fn(&Item) -> Value) -> Reply {
    let (page, next) = world.page(items, call.place(call.param("cursor")));
    let cursor = next.map_or_else(|| json!(""), |_| token(next));
    let mut body = json!({"ok": true, "response_metadata": {"next_cursor": cursor}});
    body[name] = page.iter().map(shown).collect::<Vec<_>>().into();
    Reply::ok(body)
}

impl Provider for Slack {
    fn preset(&self) -> &'static str {
        "slack"
    }

    fn credentials(&self) -> &'static str {
        "token: \"file:token\""
    }

    fn streams(&self) -> Vec<StreamCase> {
        let hooks = [true, true];
        vec![
            StreamCase {
                stream: "User",
                field: "real_name",
                id: |n| format!("U{n:03}"),
                incremental: false,
                deletes: Seen::Run,
                hooks,
            },
            StreamCase {
                stream: "Channel",
                field: "name",
                id: |n| format!("C{n:03}"),
                incremental: false,
                deletes: Seen::Run,
                hooks,
            },
        ]
    }

    fn demand(&self, call: &Call) -> Result<(), String> {
        match call.header("authorization") {
            "Bearer token-of-somebody" | "Bearer secret-of-the-app" => Ok(()),
            other => Err(format!("{}: {other}", call.path)),
        }
    }

    fn answer(&self, call: &Call, world: &mut World) -> Reply {
        let refused = |error: &str| Reply::ok(json!({"ok": false, "error": error}));
        match call.path.as_str() {
            "/auth.test" => Reply::ok(json!({"ok": true, "team_id": "T1", "user_id": "U9"})),
            "/users.list" => list(call, world, &world.all("User", None), "members", member),
            "/conversations.list" if call.param("types") == "public_channel" => {
                list(call, world, &world.live("Channel", None), "channels", channel)
            }
            "/conversations.info" => match world.get("Channel", call.param("channel")) {
                Some(item) => Reply::ok(json!({"ok": true, "channel": channel(item)})),
                None => refused("channel_not_found"),
            },
            "/users.info" => match world.get("User", call.param("user")) {
                Some(item) => Reply::ok(json!({"ok": true, "user": member(item)})),
                None => refused("user_not_found"),
            },
            _ => unknown(),
        }
    }

    fn limited(&self) -> Reply {
        Reply::of(429, json!({"ok": false, "error": "ratelimited"})).with("Retry-After", 1)
    }

    fn hook(&self, hook: &Hook) -> (String, Vec<(&'static str, String)>) {
        let event = match (hook.stream, hook.item.gone) {
            ("User", _) => json!({"type": "user_change", "user": member(&hook.item)}),
            (_, true) => json!({"type": "channel_deleted", "channel": hook.item.id}),
            (_, false) => json!({"type": "channel_rename", "channel": {"id": hook.item.id, "name": hook.item.text}}),
        };
        let body = json!({
            "type": "event_callback", "team_id": "T1", "api_app_id": "A1", "event": event, "event_id": format!("Ev{}", hook.number),
            "event_time": now(),
        });
        (body.to_string(), Vec::new())
    }

    fn sign(&self, _url: &str, body: &str, secret: &str) -> Vec<(&'static str, String)> {
        let stamp = now();
        let signature = format!("v0={}", hmac_hex(secret, &format!("v0:{stamp}:{body}")));
        vec![("x-slack-signature", signature), ("x-slack-request-timestamp", stamp.to_string())]
    }
}
