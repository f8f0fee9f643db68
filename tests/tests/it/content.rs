//! Canonical content against the oracle's naive one: equal hashes where content is equal, different ones where it is not,
//! and nothing accepted that a reader could not parse. The same of ids: one where values are the same, else two.

use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Map, Value};
use syncline_connectors::kafka::input::MessageKey;
use syncline_connectors::mapping::text::scalar_id;
use syncline_engine::model::content::{Ignore, canonical_hash};
use syncline_engine::model::record_id;
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

/// Values that somebody may use as ids, of which many are alike.
fn scalar() -> impl Strategy<Value = Value> {
    let parse = |text: String| serde_json::from_str::<Value>(&text).expect("a number");
    let near =
        ("(-?(0|1|12|9007199254740991|18446744073709551615))", "(|[.]0{0,3}[01]?|[.]12345678901234567[0-9]{0,4})")
            .prop_map(|(whole, fraction)| if fraction == "." { whole } else { whole + &fraction });
    let power = select(vec!["", "", "e0", "E+1", "e-1", "e400", "e-400", "e99999999999999999999"]);
    let number = prop_oneof![number(), (near, power).prop_map(|(number, power)| number + power)];
    let text = select(vec![
        "a", "A", " a", "a ", "n\0ul", "nul", "\0", "é", "e\u{301}", "ß", "ss", "null", "true", "[1]", "-0", "1e1",
        "😀",
    ]);
    prop_oneof![
        3 => number.clone().prop_map(parse),
        1 => number.prop_map(Value::from),
        2 => text.prop_map(Value::from),
        1 => select(vec![Value::Null, Value::from(true), serde_json::json!([1]), serde_json::json!({"a": 1}), Value::from("")]),
    ]
}

/// A number written out: no exponent, no zeros that say nothing.
fn plain(number: &Value) -> String {
    let mantissa = number.to_string();
    if !mantissa
        .split(['e', 'E'])
        .next()
        .is_some_and(|digits| digits.contains(|c: char| c.is_ascii_digit() && c != '0'))
    {
        return "0".to_owned();
    }
    let text = canonical(number);
    let Some((digits, power)) = text.split_once('e') else { return text };
    let (sign, digits) = digits.strip_prefix('-').map_or(("", digits), |rest| ("-", rest));
    let power: i64 = power.parse().expect("a power of ten");
    if power >= 0 {
        return format!("{sign}{digits}{}", "0".repeat(power as usize));
    }
    let point = digits.len() as i64 + power;
    let (whole, fraction) = digits.split_at(point.max(0) as usize);
    let whole = if whole.is_empty() { "0" } else { whole };
    format!("{sign}{whole}.{}{fraction}", "0".repeat(point.min(0).unsigned_abs() as usize))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn ids_are_equal_exactly_where_values_are(left in scalar(), right in scalar()) {
        let ids = [&left, &right].map(|value| record_id(value).ok());
        let written = |value: &Value| match value {
            Value::String(text) => text.clone(),
            number => plain(number),
        };
        if let [Some(l), Some(r)] = &ids {
            prop_assert_eq!(l == r, written(&left) == written(&right), "{} {}", left, right);
            prop_assert_eq!(l, &written(&left), "the id of {}", left);
        }
        // Whoever reads an id, as an item's text or as a message's key, reads the same.
        let text = left.to_string();
        prop_assert_eq!(scalar_id(&text).ok().map(|id| id.into_owned()), ids[0].clone(), "{}", text);
        if let Some(key) = MessageKey::of_bytes(text.as_bytes()).filter(|_| left.is_number() || left.is_string()) {
            prop_assert_eq!(key.id(false).ok().map(|id| id.into_owned()), ids[0].clone(), "{}", text);
        }
    }

    #[test]
    fn composite_ids_are_equal_exactly_where_their_parts_are(left in [scalar(), scalar()], right in [scalar(), scalar()]) {
        let id = |parts: &[Value; 2]| {
            let text = Value::from(parts.to_vec()).to_string();
            MessageKey::of_bytes(text.as_bytes()).and_then(|key| key.id(true).ok().map(|id| id.into_owned()))
        };
        let written = |parts: &[Value; 2]| parts.each_ref().map(|part| match part {
            Value::String(_) => part.to_string(),
            number => plain(number),
        });
        if let (Some(l), Some(r)) = (id(&left), id(&right)) {
            prop_assert_eq!(l == r, written(&left) == written(&right), "{:?} {:?}", left, right);
        }
    }
}

#[test]
fn what_would_become_the_id_of_others_is_refused_by_name() {
    let refusal = |text: &str| match record_id(&serde_json::from_str(text).expect("JSON")) {
        Ok(id) => format!("taken as {id}"),
        Err(why) => why.to_string(),
    };
    for number in [
        "0.12345678901234567891",
        "0.12345678901234567892",
        "1e+400",
        "1e-400",
        "9007199254740993.0",
        "18446744073709551616",
    ] {
        assert!(
            refusal(number).contains(&format!("number {number}, of which 64 bits do not hold every digit")),
            "{}",
            refusal(number)
        );
    }
    assert!(refusal("\"n\\u0000ul\"").contains("NUL"));
    let kept = [
        ("0.1", "0.1"),
        ("5.0", "5"),
        ("50e-1", "5"),
        ("-0.0", "0"),
        ("-0", "0"),
        ("1e3", "1000"),
        ("1.50", "1.5"),
        ("\" a\"", " a"),
    ];
    for (text, id) in kept {
        assert_eq!(refusal(text), format!("taken as {id}"));
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
