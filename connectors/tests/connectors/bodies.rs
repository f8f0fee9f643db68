//! What providers put into bodies besides good JSON, and when they want to be asked again.

use crate::provider::{Asked, Bench, Reply, reply};
use serde_json::json;
use std::time::Duration;
use syncline_engine::source::{Body, Page, Part};

fn listing(source: &str, list: &str) -> String {
    format!(
        "source: acme\nbase_url: https://api.acme.example/v1\n{source}\nstreams:\n- name: Thing\n  key: .id\n  list: {list}\n  fetch: {{get: '/things/{{{{ key }}}}'}}\n"
    )
}

async fn bench(source: &str, list: &str, answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Bench {
    Bench::new(&listing(source, list), answer).await
}

fn names(page: &Page) -> Vec<String> {
    let name = |body: &Body| match body {
        Body::Whole(text) => {
            serde_json::from_str::<serde_json::Value>(text).expect("JSON")["name"].as_str().map(str::to_owned)
        }
        _ => None,
    };
    page.observations.iter().filter_map(|seen| name(&seen.body)).collect()
}

#[tokio::test]
async fn a_byte_order_mark_and_a_declared_charset_are_no_matter() {
    let utf16 = |text: &str, mark: bool| {
        let units = mark.then_some(0xfeff).into_iter().chain(text.encode_utf16());
        units.flat_map(u16::to_le_bytes).collect::<Vec<u8>>()
    };
    let text = r#"[{"id":1,"name":"é"}]"#;
    let latin = |name: u8| [&br#"[{"id":1,"name":""#[..], &[name], &br#""}]"#[..]].concat();
    for (kind, bytes, name) in [
        ("application/json", [b"\xef\xbb\xbf", text.as_bytes()].concat(), "é"),
        ("application/json; charset=utf-8", [b"\xef\xbb\xbf", text.as_bytes()].concat(), "é"),
        ("application/json; charset=ISO-8859-1", latin(0xe9), "é"),
        ("application/json;charset=\"windows-1252\"", latin(0x80), "€"),
        (
            "application/json; Charset=shift_jis",
            [&br#"[{"id":1,"name":""#[..], b"\x93\xfa", &br#""}]"#[..]].concat(),
            "日",
        ),
        ("application/json", utf16(text, true), "é"),
        ("application/json; charset=UTF-16LE", utf16(text, false), "é"),
        ("application/json; charset=ISO-8859-1", text.as_bytes().to_vec(), "é"),
        ("application/json; charset=of-our-own", text.as_bytes().to_vec(), "é"),
    ] {
        let bench = bench("", "{get: /q}", move |_| Reply::bytes(kind, bytes.clone())).await;
        let read = bench.read(Part::Full).await;
        assert!(read.failed.is_none(), "{kind}: {:?}", read.failed);
        assert_eq!(names(&read.pages[0]), [name], "{kind}");
    }
}

#[tokio::test]
async fn what_cannot_be_read_costs_its_item_and_nothing_else() {
    let items: [(&[u8], &str); 9] = [
        (br#"{"id":1,"name":"good","n":1e400}"#, ""),
        (b"{\"id\":2,\"name\":\"\xff\xfe\"}", "not UTF-8 at byte 70"),
        (br#"{"id":3,"name":"\ud800"}"#, "hex escape"),
        (br#"{"id":4,"n":NaN}"#, "NaN is no number"),
        (br#"{"id":5,"n":[-Infinity]}"#, "-Infinity"),
        (b"{\"id\":6,\"name\":\"a\nb\"}", "control character"),
        (br#"{"id":7,"\x":1}"#, "invalid escape"),
        (b"{\"id\":\"8\xff\"}", "not UTF-8"),
        ("{\"id\":9,\"name\":\"gööd\"}".as_bytes(), ""),
    ];
    for expression in [".data", ".data[]", ".data | map(select(.id != 0))"] {
        let page: Vec<u8> =
            [&br#"{"more":true,"data":["#[..], &items.map(|(item, _)| item).join(&b','), b"]}"].concat();
        let answer = move |asked: &Asked| match asked.query.get("page").map(String::as_str) {
            Some("1") => Reply::bytes("application/json", page.clone()),
            Some("2") => reply(json!({"data": [{"id": 10, "name": "behind it"}]})),
            _ => reply(json!({"data": []})),
        };
        let list = format!("{{get: /q, items: '{expression}', paginate: {{page: page, start: 1}}}}");
        let read = bench("", &list, answer).await.read(Part::Full).await;
        assert!(read.failed.is_none(), "{expression}: {:?}", read.failed);
        assert_eq!(read.ids(), ["1", "9", "10"], "{expression}");
        let kept = &read.pages[0].quarantined;
        assert_eq!(kept.len(), 7, "{kept:?}");
        for (kept, (item, why)) in kept.iter().zip(items.iter().filter(|(_, why)| !why.is_empty())) {
            let item = String::from_utf8_lossy(item);
            assert!(
                kept.code == "unreadable" && kept.message.contains(why) && kept.message.contains(" byte "),
                "{item}: {kept:?}"
            );
            assert_eq!(kept.id.is_some(), !item.contains("\"8"), "{item}: the id where it could be read");
        }
    }
}

#[tokio::test]
async fn what_cannot_be_read_outside_of_the_items_may_be_anything() {
    let list = "{get: /q, items: .data, paginate: {cursor: .next, param: after}}";
    let answer = |_: &Asked| Reply::bytes("application/json", &b"{\"data\":[{\"id\":1}],\"next\":\"\xff\"}"[..]);
    let read = bench("", list, answer).await.read(Part::Full).await;
    let failure = read.failure();
    assert_eq!((failure.code, failure.retry), ("not_json", true));
    assert!(failure.message.contains("outside of its items") && failure.message.contains("at byte 27"), "{failure}");
}

#[tokio::test]
async fn a_refusal_says_what_the_parser_knows() {
    for (body, wanted) in [
        (
            &b"{\"data\":[{\"id\":1},\n{\"id\":2"[..],
            "EOF while parsing an object at line 2 column 7, which is byte 26 of 26",
        ),
        (b"[{\"id\":1},]", "trailing comma at line 1 column 11, which is byte 11 of 11"),
        (b"[{\"id\":1}\xff]", "bytes that are not UTF-8 at byte 9"),
        (b"<html>busy</html>", "expected value at line 1 column 1, which is byte 1 of 17"),
    ] {
        let read =
            bench("", "{get: /q, items: .data}", move |_| Reply::bytes("text/html", body)).await.read(Part::Full).await;
        let message = &read.failure().message;
        assert!(message.contains(wanted) && !message.contains("cut off"), "{message}");
    }
}

#[tokio::test]
async fn a_record_that_cannot_be_read_is_not_gone() {
    let answer = |_: &Asked| Reply::bytes("application/json", &b"{\"id\":1,\"name\":\"\xff\"}"[..]);
    let page = bench("", "{get: /q}", answer).await.fetch(Part::Full, &["1"]).await.expect("an answer");
    assert_eq!((page.observations.len(), page.quarantined.len()), (0, 1));
}

#[tokio::test]
async fn whatever_makes_it_a_retry_the_answer_says_when() {
    let limits = |rest: &str| {
        format!(
            "limits: {{headers: {{remaining: Left, reset_epoch: Reset}}, retry: {{backoff: 1s..1s}}}}\nresponses: [{rest}]"
        )
    };
    let reset = "1767225607"; // 2026-01-01T00:00:07Z
    for (rules, answer, seconds) in [
        ("", reply(json!({})).status(429).with("retry-after", "7"), Some(7)),
        ("", reply(json!({})).status(500).with("retry-after", "7"), Some(7)),
        ("", reply(json!({})).status(429).with("reset", reset).with("date", "Thu, 01 Jan 2026 00:00:00 GMT"), Some(7)),
        ("{status: 403, do: retry}", reply(json!({})).status(403).with("retry-after", "7"), Some(7)),
        (
            "{status: 403, when: '.error == \"slow\"', do: retry}",
            reply(json!({"error": "slow"})).status(403).with("retry-after", "7"),
            Some(7),
        ),
        ("{when: .error, do: retry}", reply(json!({"error": "limit"})).with("retry-after", "7"), Some(7)),
        (
            "{when: .error, do: retry}",
            reply(json!({"error": "limit"}))
                .with("left", "0")
                .with("reset", "1767225607000")
                .with("date", "Thu, 01 Jan 2026 00:00:00 GMT"),
            Some(7),
        ),
        (
            "{when: .error, do: retry}",
            reply(json!({"error": "limit"}))
                .with("retry-after", "Thu, 01 Jan 2026 00:00:07 GMT")
                .with("date", "Thu, 01 Jan 2026 00:00:00 GMT"),
            Some(7),
        ),
        ("{when: .error, do: retry}", reply(json!({"error": "limit"})).with("retry-after", "1e12"), Some(24 * 60 * 60)),
        ("{when: .error, do: retry}", reply(json!({"error": "limit"})).with("retry-after", "-7"), None),
        ("{when: .error, do: retry}", reply(json!({"error": "limit"})).with("retry-after", "NaN"), None),
        ("", Reply::text(200, "<html>busy</html>").with("retry-after", "7"), Some(7)),
    ] {
        let told = format!("{rules}: {answer:?}");
        let bench = bench(&limits(rules), "{get: /q}", move |_| answer.clone()).await;
        let wait = seconds.map(Duration::from_secs);
        let listed = bench.read(Part::Full).await;
        assert_eq!((listed.failure().retry, listed.failure().retry_after), (true, wait), "{told}");
        // It is the account that is to be left alone: nothing asks for it earlier.
        assert_eq!(bench.is_held(), wait.is_some(), "{told}");
        if let Some(wait) = wait {
            bench.clock.advance(wait - Duration::from_millis(1));
            assert!(bench.is_held(), "{told}");
            bench.clock.advance(Duration::from_millis(1));
            assert!(!bench.is_held(), "{told}");
        }
        let fetched = bench.fetch(Part::Full, &["1"]).await.expect_err("the same answer");
        assert!(fetched.retry && fetched.retry_after.is_some() == wait.is_some(), "{told}");
    }
}

#[tokio::test]
async fn zero_dates_are_no_times() {
    let definition = listing("", "{get: /q}").replace("key: .id", "key: .id\n  modified_at: .at");
    let answer = |_: &Asked| {
        let at = ["", "0000-00-00 00:00:00", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"];
        reply(at.iter().enumerate().map(|(id, at)| json!({"id": id, "at": at})).collect::<Vec<_>>())
    };
    let read = Bench::new(&definition, answer).await.read(Part::Full).await;
    assert!(read.pages[0].quarantined.is_empty(), "{:?}", read.pages[0].quarantined);
    let times: Vec<bool> = read.pages[0].observations.iter().map(|seen| seen.modified_at.is_some()).collect();
    assert_eq!(times, [false, false, false, true]);
}
