//! Google Calendar: events of every calendar, cancelled ones with the changes, notifications that say nothing but that.

use super::fake::{Call, Hook, Item, Provider, Reply, Seen, StreamCase, World, seconds, token, unknown};
use super::walk::{ITEMS, walk};
use serde_json::{Value, json};

struct GoogleCalendar;

#[tokio::test(flavor = "multi_thread")]
async fn the_preset_of_google_calendar() {
    walk(GoogleCalendar).await;
}

const EVENTS: &str = "/calendars/c1@example.com/events";

fn calendar(item: &Item) -> Value {
    json!({"kind": "calendar#calendarListEntry", "id": item.id, "summary": item.text, "timeZone": "Europe/Berlin", "accessRole": "owner"})
}

fn event(item: &Item) -> Value {
    if item.gone {
        return json!({"kind": "calendar#event", "id": item.id, "status": "cancelled", "updated": item.iso()});
    }
    json!({
        "kind": "calendar#event", "id": item.id, "status": "confirmed", "summary": item.text, "start": {"date": "2026-03-01"},
        "end": {"dateTime": "2026-03-02T10:00:00Z"}, "organizer": {"email": "a@example.com"}, "created": "2026-01-01T00:00:00Z",
        "attendees": [{"email": "b@example.com", "responseStatus": "accepted"}], "updated": item.iso(),
    })
}

fn list(call: &Call, world: &mut World, items: &[Item], shown: fn(&Item) -> Value) -> Reply {
    let (page, next) = world.page(items, call.place(call.param("pageToken")));
    let mut body = json!({"items": page.iter().map(shown).collect::<Vec<_>>()});
    if next.is_some() {
        body["nextPageToken"] = token(next);
    }
    Reply::ok(body)
}

impl Provider for GoogleCalendar {
    fn preset(&self) -> &'static str {
        "google-calendar"
    }

    fn credentials(&self) -> &'static str {
        "token: \"file:token\""
    }

    fn streams(&self) -> Vec<StreamCase> {
        let (id, hooks): (fn(usize) -> String, _) = (|n| format!("c{n}@example.com"), [true, true]);
        vec![
            StreamCase { stream: "Calendar", field: "title", id, incremental: false, deletes: Seen::Run, hooks },
            StreamCase {
                stream: "Event",
                field: "title",
                id: |n| format!("event{n}"),
                incremental: true,
                deletes: Seen::Run,
                hooks,
            },
        ]
    }

    /// All events are in the calendar that stays.
    fn key(&self, stream: &str, id: &str) -> String {
        match stream {
            "Event" => json!(["c1@example.com", id]).to_string(),
            _ => id.to_owned(),
        }
    }

    fn more(&self) -> &'static str {
        "auth: {type: bearer}\n"
    }

    fn partitions(&self, stream: &str) -> usize {
        if stream == "Event" { ITEMS } else { 0 }
    }

    fn demand(&self, call: &Call) -> Result<(), String> {
        call.demand("authorization", "Bearer token-of-somebody")
    }

    fn answer(&self, call: &Call, world: &mut World) -> Reply {
        let path = call.path.replace("%40", "@");
        match path.as_str() {
            "/calendars/primary" => Reply::ok(json!({"id": "a@example.com"})),
            "/users/me/calendarList" => list(call, world, &world.live("Calendar", None), calendar),
            EVENTS if call.param("updatedMin").is_empty() => list(call, world, &world.live("Event", None), event),
            EVENTS if call.param("showDeleted") == "true" => {
                list(call, world, &world.all("Event", Some(seconds(call.param("updatedMin")))), event)
            }
            _ if path.ends_with("/events") => Reply::ok(json!({"items": []})),
            _ => match path.strip_prefix("/users/me/calendarList/").map(|id| world.get("Calendar", id)) {
                Some(Some(item)) => Reply::ok(calendar(item)),
                Some(None) => Reply::of(404, json!({"error": {"code": 404, "errors": [{"reason": "notFound"}]}})),
                None => unknown(),
            },
        }
    }

    fn limited(&self) -> Reply {
        let errors =
            json!([{"domain": "usageLimits", "reason": "rateLimitExceeded", "message": "Rate Limit Exceeded"}]);
        Reply::of(403, json!({"error": {"code": 403, "errors": errors}})).with("Retry-After", 1)
    }

    fn hook(&self, hook: &Hook) -> (String, Vec<(&'static str, String)>) {
        let resource =
            if hook.stream == "Calendar" { "users/me/calendarList" } else { "calendars/c1@example.com/events" };
        let headers = vec![
            ("x-goog-channel-id", "channel-1".to_owned()),
            ("x-goog-message-number", hook.number.to_string()),
            ("x-goog-resource-state", "exists".to_owned()),
            ("x-goog-resource-uri", format!("https://www.googleapis.com/calendar/v3/{resource}?alt=json")),
        ];
        (String::new(), headers)
    }

    fn sign(&self, _url: &str, _body: &str, secret: &str) -> Vec<(&'static str, String)> {
        vec![("x-goog-channel-token", secret.to_owned())]
    }
}
