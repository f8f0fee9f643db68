//! Salesforce: queries with a locator for the next records, deleted ones by `queryAll`, a limit as 403 without a time.

use super::fake::{Call, Hook, Item, Provider, Reply, Seen, StreamCase, World, seconds, unknown};
use super::walk::walk;
use serde_json::{Value, json};

struct Salesforce;

#[tokio::test(flavor = "multi_thread")]
async fn the_preset_of_salesforce() {
    walk(Salesforce).await;
}

const QUERY: &str = "/services/data/v62.0/query";

fn shown(stream: &str, item: &Item) -> Value {
    let mut record = json!({"attributes": {"type": stream}, "Id": item.id, "SystemModstamp": item.iso().replace(".000Z", ".000+0000")});
    let name = if stream == "Contact" { "LastName" } else { "Name" };
    record[name] = item.text.as_str().into();
    record
}

fn query(text: &str, all: bool, from: usize, world: &mut World) -> Reply {
    let stream = text.split(" FROM ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap_or_default().to_owned();
    let since = text.split("SystemModstamp >= ").nth(1).and_then(|rest| rest.split(' ').next()).map(seconds);
    let found = match all {
        true if text.contains("IsDeleted = TRUE") => world.gone(&stream, since),
        true => return Reply::of(400, json!([{"errorCode": "MALFORMED_QUERY", "message": "made up"}])),
        false => world.live(&stream, since),
    };
    let (page, next) = world.page(&found, from);
    let records: Vec<Value> = page.iter().map(|item| shown(&stream, item)).collect();
    let mut body = json!({"totalSize": found.len(), "done": next.is_none(), "records": records});
    if let Some(place) = next {
        // What the locator stands for, in our fake: the query itself.
        let locator: String = url::form_urlencoded::byte_serialize(text.as_bytes()).collect();
        body["nextRecordsUrl"] = format!("{QUERY}/01g000-{place}?all={all}&q={locator}").into();
    }
    Reply::ok(body)
}

impl Provider for Salesforce {
    fn preset(&self) -> &'static str {
        "salesforce"
    }

    fn credentials(&self) -> &'static str {
        "token: \"file:token\""
    }

    fn streams(&self) -> Vec<StreamCase> {
        let case = |stream, field, id| StreamCase {
            stream,
            field,
            id,
            incremental: true,
            deletes: Seen::Run,
            hooks: [false, false],
        };
        vec![
            case("Account", "name", |n| format!("001{n:015}")),
            case("Contact", "last_name", |n| format!("003{n:015}")),
            case("Opportunity", "name", |n| format!("006{n:015}")),
        ]
    }

    fn more(&self) -> &'static str {
        "auth: {type: bearer}\n"
    }

    fn demand(&self, call: &Call) -> Result<(), String> {
        call.demand("authorization", "Bearer token-of-somebody")
    }

    fn answer(&self, call: &Call, world: &mut World) -> Reply {
        match call.path.strip_prefix(QUERY) {
            Some("") => query(call.param("q"), false, 0, world),
            Some("All") => query(call.param("q"), true, 0, world),
            Some(rest) => {
                let place = rest.rsplit('-').next().and_then(|place| place.parse().ok()).expect("a locator of ours");
                query(call.param("q"), call.param("all") == "true", place, world)
            }
            None if call.path == "/services/oauth2/userinfo" => Reply::ok(json!({"sub": "made up"})),
            None => unknown(),
        }
    }

    fn limited(&self) -> Reply {
        let body = json!([{"errorCode": "REQUEST_LIMIT_EXCEEDED", "message": "TotalRequests Limit exceeded."}]);
        Reply::of(403, body).with("Retry-After", 1)
    }

    fn hook(&self, _hook: &Hook) -> (String, Vec<(&'static str, String)>) {
        unreachable!("Salesforce sends none")
    }

    fn sign(&self, _url: &str, _body: &str, _secret: &str) -> Vec<(&'static str, String)> {
        unreachable!("Salesforce sends none")
    }
}
