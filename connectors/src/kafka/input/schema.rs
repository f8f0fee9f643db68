//! The served schema and the parser say the same of every message: compared on random ones.

use super::SCHEMA;
use super::message::parse;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Map, Value, json};

/// For each field values that fit and values that do not.
fn fields() -> Vec<(&'static str, Vec<Value>)> {
    let names = || {
        vec![
            json!("c"),
            json!("c"),
            json!("c"),
            json!(""),
            json!(5),
            json!(null),
            json!("é".repeat(256)),
            json!("é".repeat(255)),
        ]
    };
    let item = |extra: Value| {
        let mut item = json!({"op": "delete", "key": "k"});
        if let (Some(item), Some(extra)) = (item.as_object_mut(), extra.as_object()) {
            item.extend(extra.clone());
        }
        item
    };
    vec![
        ("v", vec![json!(1), json!(1), json!(1), json!(1), json!(1.0), json!(2), json!("1"), json!(null), json!(true)]),
        ("connection", names()),
        ("stream", names()),
        ("variant", names()),
        ("id", vec![json!("x"), json!("x"), json!(""), json!("x".repeat(257)), json!(1), json!(null)]),
        (
            "op",
            vec![
                json!("upsert"),
                json!("upsert"),
                json!("patch"),
                json!("delete"),
                json!("UPSERT"),
                json!(null),
                json!(1),
            ],
        ),
        (
            "key",
            vec![
                json!("k"),
                json!("k"),
                json!(7),
                json!(["a", 1]),
                json!([]),
                json!([null]),
                json!([["a"]]),
                json!({}),
                json!(null),
                json!(""),
            ],
        ),
        ("record", vec![json!({}), json!({"id": 1}), json!({"id": 1}), json!([]), json!(null), json!("x")]),
        ("patch", vec![json!({}), json!({"a": [1]}), json!(null), json!(3)]),
        (
            "modified_at",
            vec![
                json!("2026-11-21T09:00:00Z"),
                json!("2026-11-21T09:00:00.5+01:00"),
                json!(1795251600123i64),
                json!(1.5),
                json!("yesterday"),
                json!("2026-11-21"),
                json!(null),
                json!(true),
                json!(-1),
            ],
        ),
        (
            "records",
            vec![
                json!([]),
                json!([item(json!({}))]),
                json!([item(json!({})), item(json!({"modified_at": 1}))]),
                json!([item(json!({"record": {}}))]),
                json!([item(json!({"patch": {}}))]),
                json!([item(json!({"more": 1}))]),
                json!([item(json!({"id": "x"}))]),
                json!([{"op": "upsert", "record": {}}]),
                json!([{"op": "patch", "patch": {}}]),
                json!([{}]),
                json!([[]]),
                json!([null]),
                json!({}),
                json!(null),
            ],
        ),
        (
            "listing",
            vec![
                json!({"id": "l"}),
                json!({"id": ""}),
                json!({"id": "l", "end": false}),
                json!({"id": "l", "end": true}),
                json!({"id": "l", "end": true, "total": 0}),
                json!({"id": "l", "total": 3}),
                json!({"id": "l", "end": true, "total": -1}),
                json!({"id": "l", "end": true, "total": 1.5}),
                json!({"id": "l", "end": null}),
                json!({"id": "l", "partition": "p"}),
                json!({"id": "l", "partition": 1}),
                json!({"id": "l", "more": 1}),
                json!({"id": 1}),
                json!({}),
                json!([]),
                json!(null),
            ],
        ),
        ("other", vec![json!(1)]),
    ]
}

/// Some fields with some values; those every message needs are there more often than not.
fn message() -> impl Strategy<Value = Value> {
    let all = fields();
    let count = all.len();
    (subsequence((3..count).collect::<Vec<_>>(), 0..5), proptest::collection::vec(any::<u64>(), count), 0..10u8)
        .prop_map(move |(some, picks, needed)| {
            let mut map = Map::new();
            for (n, (name, values)) in all.iter().enumerate() {
                let there = if n < 3 { needed != 9 || picks[n] & 1 == 0 } else { some.contains(&n) };
                if there {
                    // Half of the time the first value, which fits.
                    let pick = picks[n] as usize;
                    let value = if pick & 1 == 0 { &values[0] } else { &values[(pick / 2) % values.len()] };
                    map.insert((*name).to_owned(), value.clone());
                }
            }
            Value::Object(map)
        })
}

fn validator() -> jsonschema::Validator {
    let schema: Value = serde_json::from_str(SCHEMA).expect("the schema is JSON");
    jsonschema::options()
        .with_draft(jsonschema::Draft::Draft202012)
        .should_validate_formats(true)
        .build(&schema)
        .expect("the schema is a schema")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, ..ProptestConfig::default() })]

    #[test]
    fn schema_and_parser_agree(message in message()) {
        thread_local!(static SCHEMA_OF: jsonschema::Validator = validator());
        let text = message.to_string();
        let (said, read) = (SCHEMA_OF.with(|schema| schema.is_valid(&message)), parse(text.as_bytes()));
        prop_assert_eq!(said, read.is_ok(), "{}: {:?}", text, read.err());
    }

    #[test]
    fn any_bytes_are_refused_or_read(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse(&bytes);
    }

    #[test]
    fn values_that_are_no_objects_are_refused(value in select(vec![json!([]), json!(1), json!(null), json!("x"), json!(true)])) {
        prop_assert!(parse(value.to_string().as_bytes()).is_err());
        prop_assert!(!validator().is_valid(&value));
    }
}
