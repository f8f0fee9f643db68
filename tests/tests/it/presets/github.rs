//! GitHub: `Link` paging, pull requests among the issues, a limit as 403 with the time of its end.

use super::fake::{Call, Hook, Item, Provider, Reply, Seen, StreamCase, World, hmac_hex, now, seconds, unknown};
use super::walk::walk;
use serde_json::{Value, json};

struct GitHub;

#[tokio::test(flavor = "multi_thread")]
async fn the_preset_of_github() {
    walk(GitHub).await;
}

fn issue(item: &Item) -> Value {
    let id: u64 = item.id.parse().expect("a number");
    json!({
        "id": id, "number": id - 100, "title": item.text, "state": "open", "body": "made up", "user": {"login": "octo"},
        "labels": [{"name": "bug"}], "updated_at": item.iso(),
    })
}

fn comment(item: &Item) -> Value {
    let id: u64 = item.id.parse().expect("a number");
    json!({
        "id": id, "issue_url": "https://api.github.example/repos/octo/hello/issues/7", "body": item.text,
        "user": {"login": "octo"}, "created_at": item.iso(), "updated_at": item.iso(),
    })
}

fn list(call: &Call, world: &mut World, stream: &str, shown: fn(&Item) -> Value) -> Reply {
    let since = Some(call.param("since")).filter(|since| !since.is_empty()).map(seconds);
    let (page, next) = world.page(&world.live(stream, since), call.place(call.param("page")));
    let mut items: Vec<Value> = page.iter().map(shown).collect();
    if stream == "Issue" {
        items.push(json!({"id": 900, "number": 800, "title": "a pull request", "pull_request": {}, "updated_at": "2026-01-01T00:00:00Z"}));
    }
    let reply = Reply::ok(items.into()).with("X-RateLimit-Remaining", 4_000);
    match next {
        Some(place) => {
            let url = format!("{}{}?page={place}&since={}", world.url, call.path, call.param("since"));
            reply.with("Link", format!("<{url}>; rel=\"next\""))
        }
        None => reply,
    }
}

impl Provider for GitHub {
    fn preset(&self) -> &'static str {
        "github"
    }

    fn credentials(&self) -> &'static str {
        "token: \"file:token\", repo: [octo/hello]"
    }

    fn streams(&self) -> Vec<StreamCase> {
        let (deletes, hooks) = (Seen::List, [true, true]);
        vec![
            StreamCase {
                stream: "Issue",
                field: "title",
                id: |n| (101 + n).to_string(),
                incremental: true,
                deletes,
                hooks,
            },
            StreamCase {
                stream: "IssueComment",
                field: "body",
                id: |n| (501 + n).to_string(),
                incremental: true,
                deletes,
                hooks,
            },
        ]
    }

    fn demand(&self, call: &Call) -> Result<(), String> {
        call.demand("authorization", "Bearer token-of-somebody")?;
        call.demand("accept", "application/vnd.github+json")?;
        call.demand("x-github-api-version", "2022-11-28")
    }

    fn answer(&self, call: &Call, world: &mut World) -> Reply {
        match call.path.as_str() {
            "/user" => Reply::ok(json!({"login": "octo"})),
            "/repos/octo/hello/issues" => list(call, world, "Issue", issue),
            "/repos/octo/hello/issues/comments" => list(call, world, "IssueComment", comment),
            _ => unknown(),
        }
    }

    fn limited(&self) -> Reply {
        let reply = Reply::of(403, json!({"message": "API rate limit exceeded for somebody."}));
        reply.with("X-RateLimit-Remaining", 0).with("X-RateLimit-Reset", now() + 2)
    }

    fn hook(&self, hook: &Hook) -> (String, Vec<(&'static str, String)>) {
        let action = if hook.item.gone { "deleted" } else { "edited" };
        let (kind, body) = match hook.stream {
            "Issue" => ("issues", json!({"action": action, "issue": issue(&hook.item)})),
            _ => ("issue_comment", json!({"action": action, "comment": comment(&hook.item), "issue": {"id": 7}})),
        };
        let headers =
            vec![("x-github-event", kind.to_owned()), ("x-github-delivery", format!("delivery-{}", hook.number))];
        (body.to_string(), headers)
    }

    fn sign(&self, _url: &str, body: &str, secret: &str) -> Vec<(&'static str, String)> {
        vec![("x-hub-signature-256", format!("sha256={}", hmac_hex(secret, body)))]
    }
}
