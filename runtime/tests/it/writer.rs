//! The JSON of records, against `JSON.stringify` of the same values: odd ones, made up anew each time.
//!
//! A failure prints the least record that differs, and the seed; `SYNCLINE_SEED=…` makes the same records again.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{RngSeed, TestError, TestRunner};
use serde_json::Value;
use std::fs;
use std::sync::Arc;
use syncline_runtime::compile::compile;
use syncline_runtime::sandbox::{Said, Sandbox};
use syncline_runtime::wire::{Ended, Invocation, Limits, Page};

/// Records that one sandbox writes.
const BATCH: usize = 100;
/// Sandboxes.
const BATCHES: u32 = 60;

/// What was made of each record, and what should be. A record is an expression of JavaScript, its id stands where `...head` does.
fn written_and_expected(records: &[String]) -> Vec<(String, String)> {
    let made: String = records.iter().map(|record| format!("(head) => ({record}),\n")).collect();
    let text = format!(
        "// @ts-nocheck\nimport {{ createSync }} from 'nango';\nimport {{ z }} from 'zod';
const made = [{made}];
const told = (error) => `${{error.name}}: ${{error.message}}`;
export default createSync({{ models: {{ Contact: z.object({{ id: z.string() }}) }}, exec: async (nango) => {{
    for (const [at, make] of made.entries()) {{
        const line = {{ at }};
        try {{ line.json = JSON.stringify(make({{}})) ?? 'undefined'; }} catch (error) {{ line.refused = told(error); }}
        try {{ await nango.batchSave([make({{ id: String(at) }})], 'Contact'); }} catch (error) {{ line.thrown = told(error); }}
        await nango.log(JSON.stringify(line));
    }}
}} }});
"
    );
    let ended = ended(&text);
    assert_eq!(ended.result, Ok(None), "{ended:?}");
    let mut written: Vec<Option<String>> = vec![None; records.len()];
    for (id, json) in ended.writes.pages.iter().flat_map(Page::iter) {
        let at: usize = String::from_utf8_lossy(id).parse().expect("the id is a number");
        written[at] = Some(String::from_utf8(json.to_vec()).expect("UTF-8"));
    }
    let lines = ended.writes.lines.iter().map(|line| serde_json::from_str::<Value>(&line.text).expect("JSON"));
    lines
        .zip(written)
        .enumerate()
        .map(|(at, (line, written))| {
            let told = |name: &str| line[name].as_str().map(str::to_owned);
            let expected = told("refused").unwrap_or_else(|| with_id(at, line["json"].as_str().expect("text")));
            (written.or(told("thrown")).unwrap_or_default(), expected)
        })
        .collect()
}

/// The JSON of a record with its id as the first member.
fn with_id(id: usize, json: &str) -> String {
    match json.strip_prefix('{') {
        Some("}") => format!("{{\"id\":\"{id}\"}}"),
        Some(rest) => format!("{{\"id\":\"{id}\",{rest}"),
        // A `toJSON` made something else of it.
        None => "Error: a record must be an object".to_owned(),
    }
}

fn ended(text: &str) -> Ended {
    let folder = tempfile::tempdir().expect("a folder");
    fs::create_dir_all(folder.path().join("crm/syncs")).expect("a folder");
    fs::write(folder.path().join("crm/syncs/odd.ts"), text).expect("a file");
    let modules = Arc::new(compile(folder.path()).unwrap_or_else(|complaints| panic!("{complaints:?}\n{text}")));
    let invocation = Invocation {
        file: "crm/syncs/odd.ts".into(),
        about: r#"{"kind":"exec","checkpoint":null}"#.into(),
        models: vec!["Contact".into()],
        limits: Limits::EXEC,
        now: Some(0),
        seed: 0,
    };
    match Sandbox::begin(modules, invocation).expect("a sandbox").1.as_slice() {
        [Said::Ended(ended)] => ended.clone(),
        other => panic!("expected the end: {other:?}"),
    }
}

/// Text in quotes, half characters included.
fn quoted(units: &[u16]) -> String {
    units.iter().map(|unit| format!("\\u{unit:04x}")).fold("\"".to_owned(), |text, unit| text + &unit) + "\""
}

fn text() -> impl Strategy<Value = String> {
    let unit = prop_oneof![
        select(vec![
            0, 8, 9, 10, 12, 13, 0x1f, 0x20, 0x22, 0x2f, 0x5c, 0x7f, 0x85, 0x2028, 0xd7ff, 0xe000, 0xfeff, 0xffff
        ]),
        select(vec![0xd800, 0xdbff, 0xdc00, 0xdfff]),
        any::<u16>(),
        0x20..0x7fu16,
    ];
    vec(unit, 0..6).prop_map(|units| quoted(&units))
}

fn name() -> impl Strategy<Value = String> {
    let odd =
        ["0", "1", "007", "4294967295", "-1", "", "__proto__", "constructor", "toString", "length", "Id", "a b", "é"];
    prop_oneof![
        3 => select(odd.to_vec()).prop_map(|name| format!("{name:?}")),
        3 => "[a-e]".prop_map(|name| format!("{name:?}")),
        1 => text(),
    ]
}

fn number() -> impl Strategy<Value = String> {
    let borders = [31, 32, 53, 63, 64, 70].map(|bits: i32| 2f64.powi(bits));
    prop_oneof![
        (select(borders.to_vec()), select(vec![-1.0, 1.0]), -2i32..=2)
            .prop_map(|(border, sign, off)| format!("({:?} + {off})", border * sign)),
        any::<f64>().prop_map(js_number),
        any::<u64>().prop_map(|bits| js_number(f64::from_bits(bits))),
        (-1_000_000i64..1_000_000, -25i32..25).prop_map(|(digits, ten)| format!("{digits}e{ten}")),
        select(vec![
            "-0",
            "0",
            "1e21",
            "1e-7",
            "5e-324",
            "1.7976931348623157e308",
            "9e15",
            "-9e15",
            "NaN",
            "-Infinity"
        ])
        .prop_map(str::to_owned),
    ]
}

fn js_number(number: f64) -> String {
    match number {
        number if number.is_nan() => "NaN".into(),
        number if number.is_infinite() => if number > 0.0 { "Infinity" } else { "-Infinity" }.into(),
        number => format!("{number:e}"),
    }
}

fn leaf() -> impl Strategy<Value = String> {
    let plain = ["null", "undefined", "true", "false", "Symbol('s')", "() => 1", "class {}", "[]", "{}", "[,]", "/x/g"];
    let odd = [
        "new Date(5)",
        "new Date(NaN)",
        "new Number(-0)",
        "new String('\\ud800\"')",
        "new Boolean(false)",
        "Object(Symbol('s'))",
        "new Map([[1, 2]])",
        "new Set([1])",
        "new Uint8Array([1, 2])",
        "Buffer.from('x')",
        "new Error('e')",
        "Object.create(null)",
        "Object.create({ inherited: 1 })",
        "new (class extends Array {})(2)",
        "(function () { return arguments; })(1, 2)",
        "10n",
        "Object(10n)",
    ];
    prop_oneof![
        4 => number(),
        4 => text(),
        4 => select(plain.to_vec()).prop_map(|source| format!("({source})")),
        1 => select(odd.to_vec()).prop_map(|source| format!("({source})")),
    ]
}

/// One member of an object. Later ones of the same name replace it.
fn member(value: impl Strategy<Value = String> + Clone + 'static) -> impl Strategy<Value = String> {
    (name(), value, 0..40u8).prop_map(|(name, value, how)| match how {
        0 => format!("get [{name}]() {{ return {value}; }}"),
        1 => format!("set [{name}](_) {{}}"),
        2 => format!("[Symbol({name})]: {value}"),
        3 => format!("toJSON: {value}"),
        4 => format!("toJSON(name) {{ return [name, {value}]; }}"),
        _ => format!("[{name}]: {value}"),
    })
}

/// An object as it is, or as something that looks like it.
fn guise(object: String, how: u8) -> String {
    match how {
        0 => format!("new Proxy({object}, {{}})"),
        1 => format!("Object.assign(Object.create({{ inherited: 1 }}), {object})"),
        2 => format!("Object.assign(Object.create(null), {object})"),
        3 => format!("Object.defineProperty({object}, 'a', {{ value: 1, enumerable: false, configurable: true }})"),
        4 => format!("Object.defineProperty({object}, 'toJSON', {{ value: (name) => [name] }})"),
        5 => format!("Object.setPrototypeOf({object}, [])"),
        6 => format!("Object.freeze({object})"),
        _ => object,
    }
}

fn value() -> impl Strategy<Value = String> + Clone {
    leaf()
        .prop_recursive(4, 24, 5, |inner| {
            let inner = inner.boxed();
            let element = prop_oneof![6 => inner.clone(), 1 => Just(String::new())];
            let list = (vec(element, 0..5), 0..40u8).prop_map(|(elements, how)| {
                let list = format!("[{}]", elements.iter().map(|element| format!("{element},")).collect::<String>());
                match how {
                    0 => format!("Object.assign({list}, {{ extra: 1 }})"),
                    1 => format!("Object.assign({list}, {{ toJSON: (name) => name }})"),
                    2 => format!("new Proxy({list}, {{}})"),
                    3 => format!("Object.defineProperty({list}, 0, {{ get: () => 'got' }})"),
                    4 => format!("Object.setPrototypeOf({list}, null)"),
                    _ => list,
                }
            });
            let object = (vec(member(inner), 0..5), 0..40u8)
                .prop_map(|(members, how)| guise(format!("{{ {} }}", members.join(", ")), how));
            prop_oneof![list, object.prop_map(|object| format!("({object})"))]
        })
        .boxed()
}

fn record() -> impl Strategy<Value = String> {
    // A record with a `toJSON` of its own may tell of no id; nested ones may have it.
    let plain = member(value()).prop_filter("of a record", |member| !member.starts_with("toJSON"));
    (vec(plain, 0..6), 0..60u8).prop_map(|(members, how)| {
        let how = if how == 4 { u8::MAX } else { how };
        guise(format!("{{ ...head, {} }}", members.join(", ")), how)
    })
}

#[test]
fn the_writer_equals_stringify_on_names_that_the_engine_treats_in_its_own_way() {
    let records = [
        "{ ...head, ['__proto__']: 1, b: [,] , odd: new Date(0) }",
        "{ ...head, b: 1, 7: 2, odd: new Date(0) }",
        "new Proxy({ ...head, text: '\",\\\\\\\"{', b: { c: ',' } }, {})",
        "{ ...head, list: Object.assign([1], { toJSON: (name) => name }) }",
        "{ ...head, hidden: Object.defineProperty({}, 'toJSON', { value: () => 'told' }) }",
        "{ ...head, idle: { toJSON: 5 } }",
        "Object.setPrototypeOf({ ...head }, { toJSON: () => [1] })",
        "Object.setPrototypeOf({ ...head }, { toJSON: () => ({ _nango_metadata: {}, a: 1 }) })",
        "{ ...head, big: 10n }",
    ]
    .map(str::to_owned);
    for (record, (written, expected)) in records.iter().zip(written_and_expected(&records)) {
        assert_eq!(written, expected.replace("\"_nango_metadata\":{},", ""), "{record}");
    }
}

#[test]
fn the_writer_equals_stringify() {
    let seed = std::env::var("SYNCLINE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random);
    let config = ProptestConfig {
        cases: BATCHES,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(seed),
        ..ProptestConfig::default()
    };
    let outcome = TestRunner::new(config).run(&vec(record(), BATCH), |records| {
        for (record, (written, expected)) in records.iter().zip(written_and_expected(&records)) {
            prop_assert_eq!(written, expected, "{}", record);
        }
        Ok(())
    });
    if let Err(TestError::Fail(difference, _) | TestError::Abort(difference)) = outcome {
        panic!("SYNCLINE_SEED={seed}: {difference}");
    }
}
