//! Canonical content against the oracle's naive one: equal hashes where content is equal, different ones where it is not,
//! and nothing accepted that a reader could not parse.

use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Map, Value};
use syncline_engine::model::content::{Ignore, canonical_hash};
use syncline_tests::oracle::canonical;

fn hash(text: &str) -> Result<u64, String> {
    canonical_hash(text.as_bytes(), &Ignore::default()).map_err(|e| e.to_string())
}

fn number() -> impl Strategy<Value = String> {
    let exponent = prop_oneof![
        Just(String::new()),
        (select(vec!["e", "E", "e+", "e-"]), 0..25u8).prop_map(|(e, n)| format!("{e}{n}"))
    ];
    let fraction = prop_oneof![
        Just(String::new()),
        "[0-9]{1,22}".prop_map(|f| format!(".{f}")),
        "0{0,3}[1-3]0{0,3}".prop_map(|f| format!(".{f}"))
    ];
    let whole = prop_oneof![Just("0".to_string()), "[1-9][0-9]{0,24}", "[1-3]0{0,21}"];
    (select(vec!["", "-"]), whole, fraction, exponent).prop_map(|(s, w, f, e)| format!("{s}{w}{f}{e}"))
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        number().prop_map(|text| serde_json::from_str(&text).expect("a number")),
        select(vec!["", "a", "é", "\n\"\\", "😀", "\u{0}"]).prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::Array),
            prop::collection::vec((select(vec!["a", "b", "é\t"]), inner), 0..3)
                .prop_map(|fields| Value::Object(fields.into_iter().map(|(k, v)| (k.to_string(), v)).collect())),
        ]
    })
}

fn object(value: Value) -> Value {
    Value::Object(Map::from_iter([("v".to_string(), value)]))
}

/// The same text with every character of every string escaped, and white space between all parts.
fn noisy(value: &Value) -> String {
    let text = |s: &str| {
        let units: Vec<String> = s.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect();
        format!("\"{}\"", units.concat())
    };
    match value {
        Value::String(s) => text(s),
        Value::Array(list) => format!("[ {} ]", list.iter().map(noisy).collect::<Vec<_>>().join(" ,\t")),
        Value::Object(fields) => {
            let fields: Vec<_> = fields.iter().rev().map(|(k, v)| format!("{} :\n{}", text(k), noisy(v))).collect();
            format!("{{ {} }}", fields.join(" , "))
        }
        other => other.to_string(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn hashes_are_equal_exactly_where_content_is(left in value(), right in value()) {
        let (left, right) = (object(left), object(right));
        let (l, r) = (hash(&left.to_string()).expect("an object"), hash(&right.to_string()).expect("an object"));
        prop_assert_eq!(l == r, canonical(&left) == canonical(&right), "{} {}", left, right);
    }

    #[test]
    fn notation_does_not_count(value in value()) {
        let value = object(value);
        prop_assert_eq!(hash(&value.to_string()).expect("an object"), hash(&noisy(&value)).expect("an object"), "{}", noisy(&value));
    }

    #[test]
    fn numbers_are_equal_exactly_where_their_decimals_are(left in number(), right in number()) {
        let (l, r) = (format!("{{\"n\":{left}}}"), format!("{{\"n\":{right}}}"));
        let parse = |text: &str| serde_json::from_str::<Value>(text).expect("JSON");
        prop_assert_eq!(hash(&l).expect("a number") == hash(&r).expect("a number"), canonical(&parse(&l)) == canonical(&parse(&r)), "{} {}", left, right);
    }

    #[test]
    fn what_is_accepted_can_be_read(bytes in prop::collection::vec(select(b"{}[]:,\"\\0123456789.eE+-tfnrual \n\xc3\xa9\xff\x01".to_vec()), 0..14)) {
        let mut text = b"{\"a\":".to_vec();
        text.extend_from_slice(&bytes);
        text.push(b'}');
        let ours = canonical_hash(&text, &Ignore::default()).is_ok();
        let theirs = serde_json::from_slice::<Value>(&text).is_ok();
        prop_assert_eq!(ours, theirs, "{}", String::from_utf8_lossy(&text));
    }
}

#[test]
fn texts_that_readers_refuse_are_refused() {
    for bad in ["{\"a\":01}", "{\"a\":1.}", "{\"a\":-01}", "{\"a\":1.e5}", "{\"a\":.5}", "{\"a\":+1}", "{\"a\":00}"] {
        assert!(hash(bad).is_err(), "{bad}");
    }
    for bad in [
        &b"{\"a\":\"\xff\"}"[..],
        b"{\"\xc3\":1}",
        b"{\"a\":\"\xed\xa0\x80\"}",
        b"{\"a\":\"\\n\xff\"}",
        b"{\"a\":\"\xff\\n\"}",
    ] {
        assert!(canonical_hash(bad, &Ignore::default()).is_err(), "{}", String::from_utf8_lossy(bad));
    }
}

#[test]
fn monstrous_exponents_do_not_panic() {
    for monster in [
        "10e9223372036854775807",
        "1000e99999999999999999999",
        "0.1e-9223372036854775808",
        "-100000000000000000000000e9223372036854775807",
    ] {
        assert!(hash(&format!("{{\"a\":{monster}}}")).is_ok(), "{monster}");
    }
}

#[test]
fn ignored_fields_are_found_however_their_names_are_written() {
    let ignore = Ignore::new(["noise", "o.noise"]);
    let hash = |text: &str| canonical_hash(text.as_bytes(), &ignore).expect("an object");
    assert_eq!(hash(r#"{"a":1,"noise":2}"#), hash(r#"{"a":1,"\u006eoise":3}"#));
    assert_eq!(hash(r#"{"a":1,"_nango_metadata":2}"#), hash(r#"{"a":1,"_nango\u005fmetadata":3}"#));
    assert_eq!(hash(r#"{"o":{"noise":1}}"#), hash(r#"{"\u006f":{"n\u006fise":1}}"#));
}

#[test]
fn of_a_key_written_twice_the_last_counts_as_it_does_for_readers() {
    assert_eq!(hash(r#"{"a":1,"a":2}"#), hash(r#"{"a":2}"#));
    assert_ne!(hash(r#"{"a":1,"a":2}"#), hash(r#"{"a":2,"a":1}"#));
}

#[test]
fn doubled_keys_are_found_in_objects_of_any_size() {
    for fields in [2, 60, 63, 64, 65, 66, 500] {
        let list: Vec<String> = (0..fields).map(|n| format!("\"key{n}\":{n}")).collect();
        let plain = format!("{{{}}}", list.join(","));
        for again in [0, fields / 2, fields - 1] {
            let doubled = format!("{{\"key{again}\":\"x\",{}}}", list.join(","));
            assert_eq!(hash(&plain), hash(&doubled), "{fields} fields, {again} twice");
            let changed = format!("{{{},\"key{again}\":\"x\"}}", list.join(","));
            assert_ne!(hash(&plain), hash(&changed), "{fields} fields, {again} changed");
        }
    }
}
