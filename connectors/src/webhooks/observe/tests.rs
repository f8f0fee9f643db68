//! What stored requests say, case by case; and that no request makes the reading panic.

use super::*;
use crate::definition::parse;
use crate::webhooks::Head;
use proptest::prelude::*;
use serde_json::json;
use syncline_engine::model::Timestamp;
use syncline_engine::source::Body;

const TEXT: &str = r#"
source: crm
base_url: https://crm.example
auth: {type: none}
streams:
  - name: Contact
    key: .id
    modified_at: .updatedAt
    list: {get: /contacts}
    fetch: {get: "/contacts/{{ key }}"}
    map: {id: .id, email: .properties.email, all: .properties, upper: ".properties.email | ascii_downcase"}
webhooks:
  verify: {scheme: none}
  route: .portal
  EVENTS
  dedupe: ['$h["x-delivery"]', "[.a, .b]"]
  map:
    - {when: .hint, stream: Contact, key: .id, hydrate: now, all: true}
    - {when: .name, stream: Contact, key: .id, at: .at, patch: {"properties.{{ .name }}": .value}}
    - {when: .gone, stream: Contact, key: .id, at: .at, delete: true}
    - {when: .record, stream: Contact, record: .record}
"#;

fn observer(events: &str) -> Observer {
    match parse("test.yaml", &TEXT.replace("EVENTS", events), &|_| Ok(String::new())) {
        Ok((definition, _)) => Observer::new(Arc::new(definition)).expect("schemas"),
        Err(complaints) => panic!("{complaints:?}"),
    }
}

fn stored(headers: &[(&str, &str)], body: &[u8]) -> StoredWebhook {
    let headers = headers.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    let head = Head {
        environment: "e".into(),
        source: "crm".into(),
        received_at: 1_000_000_000_000_000,
        headers,
        ..Head::default()
    };
    StoredWebhook { head, body: body.to_vec() }
}

fn accounts() -> Vec<Arc<Connection>> {
    let account = |id: &str, portal: Value| {
        let metadata = json!({"portal": portal});
        Arc::new(Connection { environment: "e".into(), id: id.into(), metadata, ..Connection::default() })
    };
    vec![account("one", json!(7)), account("two", json!("7")), account("list", json!([8, 9]))]
}

fn said(events: &str, headers: &[(&str, &str)], body: &Value) -> Vec<EventOutcome> {
    observer(events).observe(&stored(headers, body.to_string().as_bytes()), &accounts())
}

fn effects(body: &Value) -> Vec<Effect> {
    match said("", &[], body).remove(0).verdict {
        Verdict::Routed(mut routed) => routed.remove(0).effects,
        other => panic!("{other:?}"),
    }
}

fn seen(effect: &Effect) -> &Observation {
    match effect {
        Effect::Seen { observation, .. } => observation,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_value_finds_every_connection_that_has_it() {
    let owners = |portal: Value| match said("", &[], &json!({"portal": portal})).remove(0).verdict {
        Verdict::Routed(routed) => routed.iter().map(|r| r.connection.id.clone()).collect::<Vec<_>>(),
        Verdict::Unrouted { field, .. } => vec![field],
        other => panic!("{other:?}"),
    };
    assert_eq!(owners(json!("7")), ["one", "two"]);
    assert_eq!(owners(json!(9)), ["list"]);
    for nobody in [json!(10), json!(null), json!(""), json!({}), json!([7])] {
        assert_eq!(owners(nobody), ["portal"]);
    }
}

#[test]
fn a_patch_reaches_the_lines_that_read_its_path() {
    let effects = effects(&json!({"portal": 7, "id": 5, "name": "email", "value": "A@x", "at": 900_000_000}));
    let seen = seen(&effects[0]);
    assert_eq!((seen.id.as_str(), seen.modified_at), ("5", Some(Timestamp::from_seconds(900_000_000))));
    let Body::Patch(patch) = &seen.body else { panic!("{seen:?}") };
    let patch: Value = serde_json::from_str(patch).expect("json");
    assert_eq!(patch, json!({"email": "A@x", "all": {"email": "A@x"}}), "the computed line waits for a fetch");
}

#[test]
fn several_entries_and_times() {
    let effects = effects(&json!({"portal": 7, "id": "5", "hint": true, "gone": true, "at": 2_000_000_000}));
    assert!(matches!(&effects[0], Effect::Fetch { key, when: Hydrate::Now, .. } if key == "5"));
    let gone = seen(&effects[1]);
    // A time in the future counts as of receipt.
    assert_eq!(gone.modified_at, Some(Timestamp::from_seconds(1_000_000_000)));
    assert!(matches!(gone.body, Body::Gone { .. }));
}

#[test]
fn ids_of_events() {
    let ids = |events: &str, headers: &[(&str, &str)], body: &Value| -> Vec<(String, bool)> {
        let outcomes = said(events, headers, body).into_iter();
        outcomes.filter_map(|o| o.event_id).map(|id| (id.text, id.given)).collect()
    };
    let split = "events: .[]";
    let two = json!([{"a": 1, "b": 2}, {"a": 1}]);
    assert_eq!(ids(split, &[("x-delivery", "d")], &two), [("d".into(), true), ("d#2".into(), true)]);
    assert_eq!(ids(split, &[], &two), [("[1,2]".into(), true), ("[1,null]".to_owned(), true)]);
    let bare = json!({"x": 1});
    let first = ids("", &[], &bare);
    assert!(!first[0].1 && first == ids("", &[], &bare), "a hash, and the same for the same request");
    assert_ne!(first, ids("", &[], &json!({"x": 2})));
    assert_ne!(first, ids("", &[("x-request-timestamp", "1")], &bare));
    assert_ne!(first, ids("", &[("x-signature", "1")], &bare));
    assert_ne!(first, ids("", &[("x-event-key", "1")], &bare), "a header may be all that tells two events apart");
    let again = [("date", "later"), ("traceparent", "00-1"), ("x-slack-retry-num", "1"), ("user-agent", "2")];
    assert_eq!(first, ids("", &again, &bare), "a retry");
    let long = ids("", &[("x-delivery", &"d".repeat(500))], &bare);
    assert!(long[0].0.len() < 100 && long[0].1);
}

#[test]
fn bodies_that_are_not_json() {
    let form = stored(&[("content-type", "application/x-www-form-urlencoded; charset=utf-8")], b"portal=7&id=5&gone=1");
    assert!(matches!(&observer("").observe(&form, &accounts())[0].verdict, Verdict::Routed(r) if r.len() == 2));
    let deep = ["[".repeat(65), "]".repeat(65)].concat();
    for body in ["{", "nope", deep.as_str(), "\u{0}"] {
        let outcomes = observer("").observe(&stored(&[], body.as_bytes()), &accounts());
        assert!(matches!(&outcomes[0].verdict, Verdict::Rejected(why) if why.code == "bad_body"), "{body}");
    }
}

proptest! {
    #[test]
    fn nothing_panics(body in proptest::collection::vec(any::<u8>(), 0..200), text in "[ -~]{0,60}", split: bool) {
        let observer = observer(if split { "events: .[]" } else { "" });
        for body in [body, text.clone().into_bytes(), json!({"portal": 7, "id": text, "record": {"id": text}}).to_string().into_bytes()] {
            observer.observe(&stored(&[("x-delivery", &text)], &body), &accounts());
        }
    }
}
