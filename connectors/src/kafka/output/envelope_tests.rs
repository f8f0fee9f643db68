//! Golden texts of messages.

use super::*;
use bytes::Bytes;
use serde_json::{Value, json};
use syncline_engine::model::{Cause, DatasetName, Meta, Timestamp};

fn change(action: Action, before: Option<&'static str>, after: Option<&'static str>) -> Change {
    let meta = Meta {
        position: Position(Position::first_of(8812).0 + 7),
        action,
        first_seen_at: Timestamp(0),
        last_modified_at: Timestamp::from_millis(1_790_000_000_123),
        deleted_at: None,
        pruned_at: None,
        modified_at: Timestamp::from_millis(1_789_999_999_000),
        cause: Cause::webhook(5),
    };
    Change { meta, before: before.map(Bytes::from), after: after.map(Bytes::from) }
}

fn update() -> Change {
    change(Action::Updated, Some(r#"{"id":"1","email":"a@x"}"#), Some(r#"{"id":"1","email":"b@x"}"#))
}

fn target(name: &str, compacted: bool) -> OutputTopic {
    OutputTopic { name: name.into(), partitions: 3, largest: 1_000, compacted }
}

fn spot(first_listing: bool) -> ChangePosition<'static> {
    ChangePosition { producer: "main", cursor: "AQ", order: 3, order_in_dataset: 2, first_listing }
}

fn all(shape: &Shape, change: &Change, first_listing: bool, compacted: bool) -> Vec<OutgoingMessage> {
    let name = Arc::new(DatasetName::base("default", "hubspot", "conn_1", "Contact"));
    let topics = (Some(target("c", compacted)), shape.state.then(|| target("s", true)), target("d", false));
    let outlet = TopicBinding::new(shape, name, "log", topics);
    let mut all = Vec::new();
    messages(shape, &outlet, change, &spot(first_listing), &mut |message, _| all.push(message));
    all
}

fn text(message: &OutgoingMessage) -> &str {
    std::str::from_utf8(message.value.as_deref().expect("a value")).expect("text")
}

#[test]
fn debezium_is_the_agreed_text() {
    let written = all(&Shape::default(), &update(), false, false);
    let wanted =
        r#"{"before":{"id":"1","email":"a@x"},"after":{"id":"1","email":"b@x"},"op":"u","ts_ms":1790000000123,"#
            .to_owned()
            + r#""source":{"version":"0.1.0","connector":"hubspot","name":"syncline","ts_ms":1789999999000,"snapshot":"false","#
            + r#""db":"conn_1","table":"Contact","sequence":"[\"8812\",\"3\"]","via":"webhook","cause":"whk_00000000000005","#
            + r#""changed":["email"]},"transaction":{"id":"8812","total_order":3,"data_collection_order":2}}"#;
    assert_eq!(text(&written[0]), wanted);
    assert_eq!((written.len(), &written[0].key[..]), (1, &br#"["conn_1","1"]"#[..]));
    assert_eq!(written[0].timestamp, 1_790_000_000_123);
}

#[test]
fn headers_are_the_agreed_ones() {
    let written = all(&Shape::default(), &update(), false, false);
    let headers: Vec<(&str, &str)> =
        written[0].headers.iter().map(|(name, value)| (*name, std::str::from_utf8(value).expect("text"))).collect();
    let position = (8812u64 << 22) + 7;
    let (id, sequence) = (format!("log-{position}"), ((8812u64 << 22) + 3).to_string());
    let wanted = [
        ("ce_specversion", "1.0"),
        ("ce_type", "syncline.record.updated.v1"),
        ("ce_source", "/syncline/hubspot/conn_1/Contact"),
        ("ce_id", id.as_str()),
        ("ce_time", "2026-09-21T14:13:20.123000Z"),
        ("ce_subject", r#"["conn_1","1"]"#),
        ("content-type", "application/json"),
        ("syncline-op", "u"),
        ("syncline-cursor", "AQ"),
        ("syncline-cause", "whk_00000000000005"),
        ("syncline-producer", "main"),
        ("syncline-seq", sequence.as_str()),
    ];
    assert_eq!(headers, wanted);
}

#[test]
fn headers_can_be_few() {
    let written = all(&Shape { headers: HeaderForm::Few, ..Shape::default() }, &update(), false, false);
    let names: Vec<&str> = written[0].headers.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["content-type", "syncline-op", "syncline-producer", "syncline-seq"]);
}

#[test]
fn a_cloud_event_is_the_agreed_text() {
    let shape = Shape { format: ChangeFormat::CloudEvents, ..Shape::default() };
    let written = all(&shape, &update(), false, false);
    let id = (8812u64 << 22) + 7;
    let wanted = format!(
        "{}{id}{}{}",
        r#"{"specversion":"1.0","type":"syncline.record.updated.v1","source":"/syncline/hubspot/conn_1/Contact","id":"log-"#,
        r#"","time":"2026-09-21T14:13:20.123000Z","subject":"[\"conn_1\",\"1\"]","datacontenttype":"application/json","#,
        r#""data":{"before":{"id":"1","email":"a@x"},"after":{"id":"1","email":"b@x"},"op":"u","changed":["email"],"modified_at":"2026-09-21T14:13:19.000000Z","time":8812,"order":3,"via":"webhook","cause":"whk_00000000000005","first_listing":false}}"#
    );
    assert_eq!(text(&written[0]), wanted);
    assert!(written[0].headers.contains(&("content-type", bytes::Bytes::from_static(b"application/cloudevents+json"))));
}

#[test]
fn flat_is_the_content_with_three_fields() {
    let shape = Shape { format: ChangeFormat::Flat, ..Shape::default() };
    let written = all(&shape, &update(), false, false);
    let wanted = r#"{"id":"1","email":"b@x","__op":"u","__deleted":"false","__ts_ms":1790000000123}"#;
    assert_eq!(text(&written[0]), wanted);
    let last = r#"{"id":"1"}"#;
    let gone = all(&shape, &change(Action::Deleted, Some(last), Some(last)), false, false);
    assert_eq!(text(&gone[0]), r#"{"id":"1","__op":"d","__deleted":"true","__ts_ms":1790000000123}"#);
}

#[test]
fn a_delete_has_no_after_and_its_state_is_null() {
    let last = r#"{"id":"1","email":"b@x"}"#;
    let gone = change(Action::Deleted, Some(last), Some(last));
    let shape = Shape { state: true, ..Shape::default() };
    let written = all(&shape, &gone, false, false);
    let value: Value = serde_json::from_str(text(&written[0])).expect("JSON");
    assert_eq!((&value["before"]["email"], &value["after"], &value["op"]), (&json!("b@x"), &Value::Null, &json!("d")));
    assert_eq!((written.len(), &*written[1].topic, &written[1].value), (2, "s", &None));
    let compacted = all(&shape, &gone, false, true);
    assert_eq!((compacted.len(), &*compacted[1].topic, &compacted[1].value), (3, "c", &None));
    assert_eq!(compacted[1].key, compacted[0].key);
}

#[test]
fn state_is_the_content_as_it_is() {
    let shape = Shape { changes: true, state: true, ..Shape::default() };
    let written = all(&shape, &update(), false, false);
    assert_eq!(text(&written[1]), r#"{"id":"1","email":"b@x"}"#);
}

#[test]
fn a_first_listing_reads() {
    let added = change(Action::Added, None, Some(r#"{"id":"1"}"#));
    let of =
        |first| serde_json::from_str::<Value>(text(&all(&Shape::default(), &added, first, false)[0])).expect("JSON");
    assert_eq!((&of(true)["op"], &of(true)["source"]["snapshot"]), (&json!("r"), &json!("true")));
    assert_eq!((&of(false)["op"], &of(false)["source"]["snapshot"]), (&json!("c"), &json!("false")));
    assert_eq!(of(false)["before"], Value::Null);
}
