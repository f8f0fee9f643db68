//! The HTTP API through its own door: paging, filters, ids, pruning, the change stream, refusals, isolation.

use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use syncline::prelude::*;
use syncline_engine::model::Cause;
use syncline_engine::pipeline::Batch;
use syncline_engine::time::Clock;
use syncline_tests::served::{ADMIN, FIGURES, OTHER, READER, Served, WRITER, folder};
use syncline_tests::wire::{self, Answer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

type Row = (String, i64, String);

fn rows(answer: &Answer) -> Vec<Row> {
    assert_eq!(answer.status, 200, "{}", answer.text());
    let records = answer.json()["records"].as_array().cloned().expect("records");
    records
        .iter()
        .map(|r| {
            let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
            (text(&r["id"]), r["v"].as_i64().unwrap_or(-1), text(&r["_nango_metadata"]["last_action"]))
        })
        .collect()
}

fn row(id: &str, v: i64, action: &str) -> Row {
    (id.to_owned(), v, action.to_owned())
}

fn next(answer: &Answer) -> Option<String> {
    answer.json()["next_cursor"].as_str().map(str::to_owned)
}

/// Codes of the faults with their paths.
fn faults(answer: &Answer) -> Vec<String> {
    let list = answer.json()["error"]["errors"].as_array().cloned().unwrap_or_default();
    let path =
        |f: &Value| f["path"].as_array().map(|p| p.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("."));
    list.iter().map(|f| path(f).unwrap_or_default()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn records_page_to_the_end_in_the_order_of_change() {
    let dir = folder();
    let served = Served::open(dir.path()).await;
    let contacts = served.dataset("acme", "Contact");
    served.put(&contacts, &[("a", Some(1)), ("b", Some(1)), ("c", Some(1)), ("d", Some(1))]).await;
    served.put(&contacts, &[("a", Some(2)), ("c", None)]).await;

    let first = served.records("model=Contact&limit=3").await;
    assert_eq!(rows(&first), [row("b", 1, "ADDED"), row("d", 1, "ADDED"), row("a", 2, "UPDATED")]);
    let cursor = next(&first).expect("more follows");
    assert_eq!(first.json()["records"][2]["_nango_metadata"]["cursor"], cursor.as_str());
    let second = served.records(&format!("model=Contact&limit=3&cursor={cursor}")).await;
    assert_eq!(rows(&second), [row("c", 1, "DELETED")]);
    assert_eq!(next(&second), None, "the last page has no cursor");

    // A page that is exactly full is the last one all the same.
    let whole = served.records("model=Contact&limit=4").await;
    assert_eq!((rows(&whole).len(), next(&whole)), (4, None));

    // The last row's own cursor goes on later.
    let last = second.json()["records"][0]["_nango_metadata"]["cursor"].as_str().map(str::to_owned).expect("cursor");
    assert!(rows(&served.records(&format!("model=Contact&cursor={last}")).await).is_empty());
    served.put(&contacts, &[("c", Some(3))]).await;
    let later = served.records(&format!("model=Contact&cursor={last}")).await;
    assert_eq!(rows(&later), [row("c", 3, "ADDED")]);
    served.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_carry_their_metadata() {
    let dir = folder();
    let served = Served::open(dir.path()).await;
    let contacts = served.dataset("acme", "Contact");
    served.put(&contacts, &[("a", Some(1))]).await;
    served.put(&contacts, &[("a", None)]).await;
    let answer = served.records("model=Contact").await;
    let meta = answer.json()["records"][0]["_nango_metadata"].clone();
    let times = [&meta["first_seen_at"], &meta["last_modified_at"], &meta["deleted_at"]];
    for time in times {
        let text = time.as_str().expect("a time");
        assert!(text.len() == 32 && text.ends_with("+00:00"), "{text}");
    }
    assert!(meta["first_seen_at"].as_str() < meta["last_modified_at"].as_str());
    assert_eq!(meta["pruned_at"], Value::Null);
    assert_eq!(answer.json()["records"][0]["v"], 1, "a deleted row keeps its last payload");
    served.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_times_and_ids_hold_together() {
    let dir = folder();
    let served = Served::open(dir.path()).await;
    let contacts = served.dataset("acme", "Contact");
    served.put(&contacts, &[("a", Some(1)), ("b", Some(1)), ("c", Some(1))]).await;
    let second = served.put(&contacts, &[("a", Some(2)), ("b", None)]).await;

    let of = async |query: &str| rows(&served.records(&format!("model=Contact&{query}")).await);
    assert_eq!(of("filter=added").await, [row("c", 1, "ADDED")]);
    assert_eq!(of("filter=updated,DELETED").await, [row("a", 2, "UPDATED"), row("b", 1, "DELETED")]);
    assert_eq!(of("ids=c&ids=a&ids=none").await, [row("c", 1, "ADDED"), row("a", 2, "UPDATED")]);
    assert_eq!(of("ids=c&ids=a&filter=updated").await, [row("a", 2, "UPDATED")]);
    // The commit's own time is within: the border is inclusive, to the millisecond.
    let at = second.at.to_string();
    assert_eq!(of(&format!("modified_after={at}")).await, [row("a", 2, "UPDATED"), row("b", 1, "DELETED")]);
    assert_eq!(of(&format!("delta={at}&modified_after=2026-01-01T00:00:00Z&ids=c")).await, []);
    let later = second.at.plus(Duration::from_millis(1)).to_string();
    assert_eq!(of(&format!("modified_after={later}")).await, []);

    // Ids page like everything else.
    let page = served.records("model=Contact&ids=a&ids=b&ids=c&limit=2").await;
    assert_eq!(rows(&page), [row("c", 1, "ADDED"), row("a", 2, "UPDATED")]);
    let cursor = next(&page).expect("more follows");
    assert_eq!(of(&format!("ids=a&ids=b&ids=c&limit=2&cursor={cursor}")).await, [row("b", 1, "DELETED")]);
    served.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_asked_for_by_id_is_there_while_it_changes() {
    let dir = folder();
    let served = Arc::new(Served::open(dir.path()).await);
    let contacts = served.dataset("acme", "Contact");
    served.put(&contacts, &[("a", Some(0)), ("b", Some(0))]).await;
    let last = 300;
    let writer = tokio::spawn({
        let served = served.clone();
        async move {
            for v in 1..=last {
                served.put(&contacts, &[("a", Some(v)), ("b", Some(v))]).await;
            }
        }
    });
    let mut cursors = BTreeSet::new();
    while !writer.is_finished() {
        let answer = served.records("model=Contact&ids=a&ids=b").await;
        let met: BTreeSet<String> = rows(&answer).into_iter().map(|(id, _, _)| id).collect();
        assert_eq!(met, BTreeSet::from(["a".into(), "b".into()]), "{}", answer.text());
        let shown = answer.json()["records"].as_array().cloned().expect("records");
        if shown.iter().any(|record| record["v"] != last) {
            cursors.extend(shown[1]["_nango_metadata"]["cursor"].as_str().map(str::to_owned));
        }
    }
    writer.await.expect("writes");
    // Nothing that was not shown lies before a cursor.
    for cursor in cursors {
        let rest = served.records(&format!("model=Contact&ids=a&ids=b&cursor={cursor}")).await;
        let values: Vec<i64> = rows(&rest).into_iter().map(|(_, v, _)| v).collect();
        assert_eq!(values, [last, last], "{}", rest.text());
    }
    let served = Arc::into_inner(served).expect("nobody else");
    served.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cursors_of_another_server_repeat_but_leave_nothing_out() {
    let dir = folder();
    let served = Served::open(dir.path()).await;
    let contacts = served.dataset("acme", "Contact");
    served.put(&contacts, &[("a", Some(1))]).await;
    let second = served.put(&contacts, &[("b", Some(1))]).await;
    served.put(&contacts, &[("c", Some(1))]).await;
    let encode = |time: &str| {
        // base64 of `time||uuid`, percent-encoded.
        let text = format!("{time}||0a1b2c3d-0000-4000-8000-000000000000");
        base64(text.as_bytes()).replace('+', "%2B").replace('/', "%2F").replace('=', "%3D")
    };
    let from = |time: String| format!("model=Contact&cursor={}", encode(&time));
    let at = served.records(&from(second.at.with_offset())).await;
    assert_eq!(rows(&at), [row("b", 1, "ADDED"), row("c", 1, "ADDED")]);
    let late = served.records(&from("2030-01-01T00:00:00.000000+00:00".into())).await;
    assert!(rows(&late).is_empty());
    served.close().await;
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0u32, |w, b| w << 8 | u32::from(*b)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let digit = DIGITS[(word >> (18 - 6 * place) & 63) as usize] as char;
            out.push(if place <= chunk.len() { digit } else { '=' });
        }
    }
    out
}

#[tokio::test(flavor = "multi_thread")]
async fn pruning_keeps_the_rows_and_says_whether_more_is_left() {
    let dir = folder();
    let served = Served::open(dir.path()).await;
    let contacts = served.dataset("acme", "Contact");
    served.put(&contacts, &[("a", Some(1)), ("b", Some(1)), ("c", Some(1))]).await;
    let all = served.records("model=Contact").await.json();
    let until = all["records"][2]["_nango_metadata"]["cursor"].clone();
    let prune = async |key: &str, limit: u64| {
        let bearer = format!("Bearer {key}");
        let headers = [("authorization", bearer.as_str()), ("provider-config-key", "crm"), ("connection-id", "acme")];
        let body = json!({"model": "Contact", "until_cursor": until, "limit": limit}).to_string();
        served.raw("PATCH", "/records/prune", &headers, body.as_bytes()).await
    };
    assert_eq!(prune(READER, 2).await.code(), "forbidden");
    assert_eq!(prune(WRITER, 2).await.json(), json!({"count": 2, "has_more": true}));
    assert_eq!(prune(WRITER, 2).await.json(), json!({"count": 1, "has_more": false}));
    assert_eq!(prune(WRITER, 2).await.json(), json!({"count": 0, "has_more": false}));
    let after = served.records("model=Contact").await.json();
    let pruned = &after["records"][0];
    assert_eq!(pruned["id"], "a");
    assert_eq!(pruned.get("v"), None);
    assert!(pruned["_nango_metadata"]["pruned_at"].is_string());
    assert_eq!(pruned["_nango_metadata"]["cursor"], all["records"][0]["_nango_metadata"]["cursor"]);
    served.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_into_an_emptied_dataset_has_to_begin_anew() {
    let dir = folder();
    let served = Served::open(dir.path()).await;
    let contacts = served.dataset("acme", "Contact");
    served.put(&contacts, &[("a", Some(1)), ("b", Some(1))]).await;
    let cursor = next(&served.records("model=Contact&limit=1").await).expect("more follows");
    served.app.engine.clear(&contacts).await.expect("clears");
    served.put(&contacts, &[("a", Some(1))]).await;
    let refused = served.records(&format!("model=Contact&cursor={cursor}")).await;
    assert_eq!((refused.status, refused.json()["error"]["code"].as_str()), (409, Some("must_refetch")));
    assert_eq!(refused.json()["error"]["errors"][0]["code"], "emptied");
    let anew = served.records("model=Contact").await;
    assert_eq!(rows(&anew), [row("a", 1, "ADDED")]);
    let cursor = anew.json()["records"][0]["_nango_metadata"]["cursor"].as_str().map(str::to_owned).expect("cursor");
    assert!(rows(&served.records(&format!("model=Contact&cursor={cursor}")).await).is_empty());
    served.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_questions_for_records_are_refused_with_their_fields() {
    let dir = folder();
    let served = Served::open(dir.path()).await;
    let contacts = served.dataset("acme", "Contact");
    served.put(&contacts, &[("a", Some(1)), ("b", Some(1))]).await;
    let deals = served.dataset("acme", "Deal");
    served.put(&deals, &[("a", Some(1)), ("b", Some(1))]).await;
    let foreign = next(&served.records("model=Deal&limit=1").await).expect("cursor");
    let long = "x".repeat(257);
    let many = "&ids=1".repeat(101);
    for (query, wanted) in [
        ("", vec!["model"]),
        ("model=contact", vec!["model"]),
        ("model=Contact&modle=x", vec!["modle"]),
        ("model=Contact&model=Deal", vec!["model"]),
        ("model=Contact&limit=0", vec!["limit"]),
        ("model=Contact&limit=10001", vec!["limit"]),
        ("model=Contact&limit=ten", vec!["limit"]),
        ("model=Contact&filter=Added", vec!["filter"]),
        ("model=Contact&modified_after=yesterday", vec!["modified_after"]),
        ("model=Contact&modified_after=2025-04-13T00:00:00Z", vec!["modified_after"]),
        ("model=Contact&cursor=", vec!["cursor"]),
        ("model=Contact&cursor=nonsense", vec!["cursor"]),
        (&format!("model=Contact&cursor={}A", &foreign[..foreign.len() - 1]), vec!["cursor"]),
        (&format!("model=Contact&cursor={foreign}"), vec!["cursor"]),
        (&format!("model=Contact&ids={long}"), vec!["ids"]),
        (&format!("model=Contact{many}"), vec!["ids"]),
        ("model=Contact&variant=a/b", vec!["variant"]),
        ("limit=0&x=1&filter=q", vec!["x", "model", "limit", "filter"]),
    ] {
        let answer = served.records(query).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "invalid_query_params"), "{query}");
        assert_eq!(faults(&answer), wanted, "{query}: {}", answer.text());
    }
    served.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn checks_run_in_the_order_query_headers_connection() {
    let dir = folder();
    let served = Served::open(dir.path()).await;
    let bearer = format!("Bearer {READER}");
    let key = ("authorization", bearer.as_str());
    let code = async |path: &str, headers: &[(&str, &str)]| served.raw("GET", path, headers, b"").await;
    let none = code("/records?model=contact", &[key]).await;
    assert_eq!(none.code(), "invalid_query_params");
    let no_headers = code("/records?model=Contact", &[key]).await;
    assert_eq!(
        (no_headers.code().as_str(), faults(&no_headers)),
        ("invalid_headers", vec!["provider-config-key".into(), "connection-id".into()])
    );
    let unknown = [key, ("provider-config-key", "crm"), ("connection-id", "nobody")];
    assert_eq!(code("/records?model=Contact", &unknown).await.code(), "unknown_connection");
    let unknown_source = [key, ("provider-config-key", "none"), ("connection-id", "acme")];
    assert_eq!(code("/records?model=Contact", &unknown_source).await.code(), "unknown_connection");
    served.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_open_their_environment_and_no_other() {
    let dir = folder();
    let served = Served::open(dir.path()).await;
    let hidden = served.dataset_in("other", "hidden", "Contact");
    served.put(&hidden, &[("a", Some(1)), ("b", Some(1))]).await;
    assert_eq!(rows(&served.records_of(OTHER, "hidden", "model=Contact").await).len(), 2);

    // Another environment's connection answers exactly as one that does not exist.
    let strip = |answer: Answer| {
        let mut json = answer.json();
        json["error"]["request_id"] = Value::Null;
        json.to_string().replace("hidden", "NAME").replace("nobody", "NAME")
    };
    let theirs = served.records_of(ADMIN, "hidden", "model=Contact").await;
    let unknown = served.records_of(ADMIN, "nobody", "model=Contact").await;
    assert_eq!(theirs.status, unknown.status);
    assert_eq!(strip(theirs), strip(unknown));
    let theirs = served.ask(ADMIN, "GET", "/connections/hidden?provider_config_key=crm", None).await;
    let unknown = served.ask(ADMIN, "GET", "/connections/nobody?provider_config_key=crm", None).await;
    assert_eq!(theirs.status, 400);
    assert_eq!(strip(theirs), strip(unknown));
    let body = |id: &str| Some(json!({"connection_id": id, "provider_config_key": "crm", "metadata": {}}));
    let theirs = served.ask(ADMIN, "POST", "/connections/metadata", body("hidden")).await;
    assert_eq!((theirs.status, theirs.code().as_str()), (404, "unknown_connection"));
    let status =
        served.ask(ADMIN, "GET", "/sync/status?syncs=*&provider_config_key=crm&connection_id=hidden", None).await;
    assert_eq!(status.code(), "unknown_connection");

    // Lists and streams hold nothing of it, and its cursors are foreign.
    let list = served.ask(ADMIN, "GET", "/connections", None).await.json();
    let mut ids: Vec<_> =
        list["connections"].as_array().expect("list").iter().map(|c| c["connection_id"].clone()).collect();
    ids.sort_by_key(Value::to_string);
    assert_eq!(ids, [json!("acme"), json!("zenith")]);
    assert_eq!(served.ask(ADMIN, "GET", "/v1/changes", None).await.json()["changes"], json!([]));
    let cursor = served.ask(OTHER, "GET", "/v1/changes?limit=1", None).await.json()["cursor"].clone();
    let path = format!("/v1/changes?cursor={}", cursor.as_str().expect("cursor"));
    assert_eq!(served.ask(ADMIN, "GET", &path, None).await.code(), "invalid_cursor");
    assert_eq!(served.ask(OTHER, "GET", &path, None).await.status, 200);
    served.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_without_a_good_key_are_refused() {
    let dir = folder();
    let served = Served::open(dir.path()).await;
    for (header, wanted) in [
        (None, "missing_auth_header"),
        (Some("Basic abc"), "malformed_auth_header"),
        (Some("Bearer short"), "invalid_secret_key_format"),
        (Some("Bearer 0123456789abcdef0123456789abcdef"), "unknown_account"),
    ] {
        let headers: Vec<_> = header.iter().map(|h| ("authorization", *h)).collect();
        for path in ["/records?model=Contact", "/connections", "/v1/changes", "/proxy/x", "/sync/status"] {
            let answer = served.raw("GET", path, &headers, b"").await;
            assert_eq!((answer.status, answer.code().as_str()), (401, wanted), "{path}");
        }
    }
    let in_query = served.raw("GET", &format!("/connections?key={ADMIN}"), &[], b"").await;
    assert_eq!(in_query.code(), "missing_auth_header");
    for path in ["/healthz", "/healthz/", "/readyz"] {
        assert_eq!(served.raw("GET", path, &[], b"").await.status, 200, "{path}");
    }
    served.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_has_a_request_id_and_refusals_their_form() {
    let dir = folder();
    let served = Served::open(dir.path()).await;
    let echoed = served.raw("GET", "/healthz", &[("x-request-id", "mine-1")], b"").await;
    assert_eq!(echoed.header("x-request-id"), Some("mine-1"));
    let made = served.raw("GET", "/healthz", &[("x-request-id", "has space")], b"").await;
    assert!(made.header("x-request-id").is_some_and(|id| id.starts_with("req_")));

    let refused = served.ask(READER, "GET", "/nowhere", None).await;
    let error = refused.json()["error"].clone();
    assert_eq!((refused.status, error["code"].as_str()), (404, Some("not_found")));
    assert_eq!(error["request_id"].as_str(), refused.header("x-request-id"));
    assert!(error["docs_url"].as_str().is_some_and(|url| url.ends_with("#not_found")));
    assert_eq!(served.ask(READER, "DELETE", "/records", None).await.code(), "method_not_allowed");

    let bearer = format!("Bearer {READER}");
    let headers = [("authorization", bearer.as_str()), ("accept", "application/problem+json")];
    let problem = served.raw("GET", "/v1/changes?limit=0", &headers, b"").await;
    assert_eq!(problem.header("content-type"), Some("application/problem+json"));
    assert_eq!(
        (problem.json()["title"].as_str(), problem.json()["status"].as_u64()),
        (Some("invalid_query_params"), Some(400))
    );
    served.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_built_says_so() {
    let dir = folder();
    let served = Served::open(dir.path()).await;
    {
        let (method, path) = ("POST", "/sync/deploy");
        let answer = served.ask(ADMIN, method, path, Some(json!({}))).await;
        assert_eq!((answer.status, answer.code().as_str()), (501, "not_supported"), "{method} {path}");
    }
    served.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_are_strict() {
    let dir = folder();
    let served = Served::open(dir.path()).await;
    let bearer = format!("Bearer {WRITER}");
    let headers = [("authorization", bearer.as_str())];
    let post = async |body: &[u8]| served.raw("POST", "/sync/trigger", &headers, body).await;
    for body in [&b""[..], b"[]", b"{", b"\xff", br#"{"syncs":[]} x"#] {
        assert_eq!(post(body).await.code(), "invalid_body", "{}", String::from_utf8_lossy(body));
    }
    let wrong =
        post(br#"{"syncs":[1],"provider_config_key":"crm","x":1,"opts":{"rest":true},"sync_mode":"full"}"#).await;
    assert_eq!(faults(&wrong), ["x", "syncs.0", "opts", "opts.rest"], "{}", wrong.text());
    let large = vec![b' '; 1024 * 1024 + 1];
    assert_eq!(post(&large).await.code(), "too_large");
    let packed = [headers[0], ("content-encoding", "gzip")];
    assert_eq!(served.raw("POST", "/sync/trigger", &packed, b"{}").await.code(), "unsupported_encoding");
    served.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_does_not_come_is_waited_for_within_bounds() {
    /// Turns of the clock before the server is said to wait for ever.
    const TURNS: usize = 500;
    let dir = folder();
    let served = Served::open(dir.path()).await;
    let mut stream = tokio::net::TcpStream::connect(served.address()).await.expect("connects");
    let head = format!(
        "POST /connections/metadata HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {WRITER}\r\nContent-Length: 100\r\n\r\n{{"
    );
    stream.write_all(head.as_bytes()).await.expect("sent");
    let mut reading = std::pin::pin!(read_until(&mut stream, "\"too_slow\""));
    for turn in 0.. {
        assert!(turn < TURNS, "it waits for ever");
        // The server may not have begun to wait at the first turns.
        served.clock.advance(Duration::from_secs(30));
        if let Ok(answer) = tokio::time::timeout(Duration::from_millis(20), reading.as_mut()).await {
            assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
            break;
        }
    }
    served.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn syncs_are_asked_and_changed() {
    let dir = folder();
    let served = Served::open(dir.path()).await;
    let ask = async |method: &str, path: &str, body: Value| served.ask(WRITER, method, path, Some(body)).await;
    let status = async |query: &str| served.ask(READER, "GET", &format!("/sync/status?{query}"), None).await;

    let all = status("syncs=*&provider_config_key=crm&connection_id=acme").await.json();
    let names: Vec<_> = all["syncs"].as_array().expect("syncs").iter().map(|s| s["name"].clone()).collect();
    assert_eq!(names, [json!("contacts"), json!("deals")]);
    let one = &all["syncs"][0];
    assert_eq!(
        (&one["type"], &one["frequency"], &one["latestResult"]),
        (&json!("INITIAL"), &json!("every 1h"), &json!({}))
    );
    assert_eq!((&one["recordCount"], &one["finishedAt"]), (&json!({"Contact": 0}), &Value::Null));

    let paused = ask(
        "POST",
        "/sync/pause/",
        json!({"syncs": ["contacts"], "provider_config_key": "crm", "connection_id": "acme"}),
    );
    assert_eq!(paused.await.json(), json!({"success": true}));
    let of = async |connection: &str| {
        let query = format!("syncs=contacts&provider_config_key=crm&connection_id={connection}");
        status(&query).await.json()["syncs"][0]["status"].clone()
    };
    assert_eq!(of("acme").await, "PAUSED");
    assert_ne!(of("zenith").await, "PAUSED");
    // No names mean all, no connection means every one.
    ask("POST", "/sync/pause", json!({"syncs": [], "provider_config_key": "crm"})).await;
    assert_eq!(of("zenith").await, "PAUSED");

    let frequency = |value: Value| json!({"sync_name": "contacts", "provider_config_key": "crm", "connection_id": "acme", "frequency": value});
    let path = "/sync/update-connection-frequency";
    assert_eq!(ask("PUT", path, frequency(json!("every 5m"))).await.json()["frequency"], "every 5m");
    assert_eq!(ask("PUT", path, frequency(Value::Null)).await.json()["frequency"], "every 1h");
    assert_eq!(faults(&ask("PUT", path, frequency(json!("often"))).await), ["frequency"]);
    assert_eq!(faults(&ask("PUT", path, frequency(json!(5))).await), ["frequency"]);

    for (body, wanted) in [
        (json!({"syncs": ["none"], "provider_config_key": "crm"}), "unknown_sync"),
        (json!({"syncs": ["contacts"], "provider_config_key": "none"}), "unknown_provider_config"),
        (json!({"syncs": ["contacts"], "provider_config_key": "crm", "connection_id": "none"}), "unknown_connection"),
        (json!({"syncs": ["contacts"]}), "missing_provider_config_key"),
        (json!({"provider_config_key": "crm"}), "invalid_body"),
    ] {
        assert_eq!(ask("POST", "/sync/trigger", body.clone()).await.code(), wanted, "{body}");
        assert_eq!(ask("POST", "/sync/pause", body.clone()).await.code(), wanted, "{body}");
    }
    assert_eq!(status("syncs=&provider_config_key=crm").await.code(), "invalid_query_params");
    assert_eq!(status("syncs=*").await.code(), "missing_provider_config_key");
    assert_eq!(served.ask(READER, "POST", "/sync/trigger", Some(json!({}))).await.code(), "forbidden");
    served.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn variants_are_made_once_and_base_is_reserved() {
    let dir = folder();
    let served = Served::open(dir.path()).await;
    let body = || Some(json!({"provider_config_key": "crm", "connection_id": "acme"}));
    let post = async |path: &str| served.ask(WRITER, "POST", path, body()).await;
    let made = post("/sync/contacts/variant/emea").await.json();
    assert_eq!((&made["name"], &made["variant"]), (&json!("contacts"), &json!("emea")));
    assert_eq!(post("/sync/contacts/variant/emea").await.code(), "sync_variant_already_exists");
    assert_eq!(post("/sync/contacts/variant/base").await.code(), "invalid_variant");
    assert_eq!(post("/sync/none/variant/x").await.code(), "unknown_sync");
    let query = "/sync/status?syncs=contacts::emea&provider_config_key=crm&connection_id=acme";
    let status = served.ask(READER, "GET", query, None).await.json();
    assert_eq!((&status["syncs"][0]["variant"], &status["syncs"][0]["id"]), (&json!("emea"), &made["id"]));
    assert_eq!(
        served.ask(WRITER, "DELETE", "/sync/contacts/variant/emea", body()).await.json(),
        json!({"success": true})
    );
    assert_eq!(served.ask(READER, "GET", query, None).await.code(), "unknown_sync");
    served.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_listed_and_shown_to_whom_it_concerns() {
    let dir = folder();
    let served = Served::open(dir.path()).await;
    let list = async |query: &str| {
        let answer = served.ask(READER, "GET", &format!("/connections?{query}"), None).await.json();
        let ids = answer["connections"].as_array().cloned().expect("a list");
        ids.iter().map(|c| c["connection_id"].as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(list("").await.len(), 2);
    assert_eq!(list("connectionId=acme").await, ["acme"]);
    assert_eq!(list("search=ZEN").await, ["zenith"]);
    assert_eq!(list("tags[team]=red").await, ["acme"]);
    assert_eq!(list("tags[team]=blue").await, Vec::<String>::new());
    assert_eq!(list("integrationId=other,crm").await.len(), 2);
    assert_eq!(list("integrationId=other").await, Vec::<String>::new());
    let (first, second) = (list("limit=1").await, list("limit=1&page=1").await);
    assert_eq!((first.len(), second.len()), (1, 1));
    assert_ne!(first, second);
    assert_eq!(served.ask(READER, "GET", "/connections?connection_id=a", None).await.code(), "invalid_query_params");

    let path = "/connection/acme?provider_config_key=crm&force_refresh=false&refresh_token=true";
    let shown = served.ask(ADMIN, "GET", path, None).await.json();
    assert_eq!(shown["credentials"], json!({"type": "API_KEY", "apiKey": "t0ken"}));
    assert_eq!(shown["metadata"], json!({"plan": "pro", "region": "eu"}));
    assert_eq!((&shown["provider_config_key"], &shown["tags"]), (&json!("crm"), &json!({"team": "red"})));
    let covered = served.ask(WRITER, "GET", path, None).await;
    assert_eq!(covered.json()["credentials"], json!({"type": "API_KEY"}));
    assert!(!covered.text().contains("t0ken"));
    assert_eq!(served.ask(ADMIN, "GET", "/connections/acme", None).await.code(), "missing_provider_config_key");
    served.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_is_changed_for_all_or_none_and_survives_a_restart() {
    let dir = folder();
    let served = Served::open(dir.path()).await;
    let body = |ids: Value, metadata: Value| {
        Some(json!({"connection_id": ids, "provider_config_key": "crm", "metadata": metadata}))
    };
    let path = "/connections/metadata";
    let of = async |served: &Served, id: &str| {
        let path = format!("/connections/{id}?provider_config_key=crm");
        served.ask(READER, "GET", &path, None).await.json()["metadata"].clone()
    };

    let merged = served.ask(WRITER, "PATCH", path, body(json!("acme"), json!({"plan": "free", "n": 1.50}))).await;
    assert_eq!(merged.status, 200);
    assert_eq!(of(&served, "acme").await, json!({"plan": "free", "region": "eu", "n": 1.50}));
    let both = served.ask(WRITER, "PATCH", path, body(json!(["acme", "zenith"]), json!({"x": 1}))).await;
    assert_eq!(both.json()["connection_id"], json!(["acme", "zenith"]));
    assert_eq!(of(&served, "zenith").await, json!({"x": 1}));
    let half = served.ask(WRITER, "POST", path, body(json!(["zenith", "nobody"]), json!({"y": 1}))).await;
    assert_eq!((half.status, half.code().as_str()), (404, "unknown_connection"));
    assert_eq!(of(&served, "zenith").await, json!({"x": 1}), "nothing was changed");
    served.ask(WRITER, "POST", path, body(json!("zenith"), json!({"z": 1}))).await;

    for wrong in
        [body(json!([]), json!({})), body(json!(1), json!({})), body(json!("acme"), json!([])), Some(json!({}))]
    {
        assert_eq!(served.ask(WRITER, "PATCH", path, wrong).await.code(), "invalid_body");
    }
    assert_eq!(served.ask(READER, "PATCH", path, body(json!("acme"), json!({}))).await.code(), "forbidden");
    served.close().await;

    let again = Served::open(dir.path()).await;
    assert_eq!(of(&again, "acme").await, json!({"plan": "free", "region": "eu", "n": 1.50, "x": 1}));
    assert_eq!(of(&again, "zenith").await, json!({"z": 1}));
    again.close().await;
}

/// A source with webhooks, and a connection that owns nothing yet.
const DESK: &str = r#"
source: desk
base_url: http://127.0.0.1:9
auth: {type: none}
streams:
  - name: Contact
    key: .id
    list: {get: /contacts}
webhooks:
  verify: {scheme: shared_secret, header: X-Token, secret: "file:acme.token"}
  route: .portal
  map: [{stream: Contact, record: .record}]
connections:
  late: {}
"#;

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_waits_finds_the_connection_that_new_metadata_makes() {
    let dir = folder();
    std::fs::write(dir.path().join("sources/desk.yaml"), DESK).expect("definition");
    let served = Served::open(dir.path()).await;
    let hooks = served.app.hooks.clone();
    let stop = tokio_util::sync::CancellationToken::new();
    let (working, halt) = (hooks.clone(), stop.clone());
    let work = tokio::spawn(async move { working.run(halt).await });
    let mut commits = hooks.commits();
    let mut committed = async || {
        let change = tokio::time::timeout(Duration::from_secs(30), commits.changed());
        change.await.expect("in time").expect("hooks run");
    };

    let urls = hooks.hook_urls(Some("desk"));
    let url = &urls.iter().find(|hook| hook.entrance.environment == "default").expect("a URL").url;
    let path = url.get(url.find("/hooks/").expect("a path")..).expect("a path");
    let event = json!({"portal": 99, "record": {"id": "a", "v": 1}}).to_string();
    assert_eq!(served.raw("POST", path, &[("x-token", "t0ken")], event.as_bytes()).await.status, 200);
    committed().await;
    assert_eq!(hooks.unrouted("default", "desk").expect("reads"), 1);

    let body = json!({"connection_id": "late", "provider_config_key": "desk", "metadata": {"portal": 99}});
    assert_eq!(served.ask(WRITER, "POST", "/connections/metadata", Some(body)).await.status, 201);
    committed().await;
    assert_eq!(hooks.unrouted("default", "desk").expect("reads"), 0);
    let bearer = format!("Bearer {READER}");
    let headers = [("authorization", bearer.as_str()), ("provider-config-key", "desk"), ("connection-id", "late")];
    let found = served.raw("GET", "/records?model=Contact", &headers, b"").await;
    assert_eq!(rows(&found), [row("a", 1, "ADDED")]);
    stop.cancel();
    work.await.expect("no panic").expect("a clean end");
    served.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_does_not_send_credentials_into_the_own_network() {
    let dir = folder();
    let sources = dir.path().join("sources");
    let definition = std::fs::read_to_string(sources.join("crm.yaml")).expect("a definition");
    let named = definition.replace("http://127.0.0.1:9", "\"https://{{ connection.metadata.host }}/api\"");
    std::fs::write(sources.join("crm.yaml"), named).expect("written");
    let served = Served::open(dir.path()).await;
    let ask = async |method: &str, host: &str| {
        let body = json!({"connection_id": "acme", "provider_config_key": "crm", "metadata": {"host": host}});
        served.ask(ADMIN, method, "/connections/metadata", Some(body)).await
    };
    for host in ["10.1.2.3", "10.1", "167837955", "0xa010203", "169.254.169.254", "0", "192.168.1.1."] {
        for method in ["POST", "PATCH"] {
            let refused = ask(method, host).await;
            assert_eq!((refused.status, refused.code()), (400, "egress_blocked".into()), "{method} {host}");
            assert!(refused.text().contains("egress.allow"), "{}", refused.text());
        }
    }
    assert_eq!(ask("PATCH", "crm.example").await.status, 200);
    // What the settings allow; a name is judged when it is looked up.
    assert_eq!(ask("POST", "127.1").await.status, 201);
    served.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_admins_change_where_credentials_go() {
    let dir = folder();
    let sources = dir.path().join("sources");
    let definition = std::fs::read_to_string(sources.join("crm.yaml")).expect("a definition");
    let named = definition.replace("http://127.0.0.1:9", "\"https://{{ connection.metadata.region }}.crm.example\"");
    std::fs::write(sources.join("crm.yaml"), named).expect("written");
    let served = Served::open(dir.path()).await;
    let ask = async |key: &str, method: &str, ids: Value, metadata: Value| {
        let body = json!({"connection_id": ids, "provider_config_key": "crm", "metadata": metadata});
        served.ask(key, method, "/connections/metadata", Some(body)).await
    };
    let elsewhere = json!({"region": "evil.example/#"});
    for (method, ids, metadata) in [
        ("PATCH", json!("acme"), elsewhere.clone()),
        ("PATCH", json!(["zenith", "acme"]), json!({"region": "eu"})),
        ("POST", json!("acme"), elsewhere.clone()),
        ("POST", json!("acme"), json!({"plan": "free"})),
    ] {
        let refused = ask(WRITER, method, ids, metadata.clone()).await;
        assert_eq!((refused.status, refused.code().as_str()), (403, "forbidden"), "{method} {metadata}");
        let said = refused.text();
        assert!(said.contains("`region`") && said.contains("admin"), "{said}");
    }
    let kept = async || {
        let shown = served.ask(READER, "GET", "/connections/acme?provider_config_key=crm", None).await;
        shown.json()["metadata"].clone()
    };
    assert_eq!(kept().await, json!({"plan": "pro", "region": "eu"}));
    assert_eq!(ask(WRITER, "PATCH", json!("acme"), json!({"plan": "free"})).await.status, 200);
    assert_eq!(ask(WRITER, "POST", json!("acme"), json!({"region": "eu", "n": 1})).await.status, 201, "as it was");
    assert_eq!(ask(ADMIN, "PATCH", json!("acme"), json!({"region": "us"})).await.status, 200);
    assert_eq!(kept().await, json!({"region": "us", "n": 1}));
    served.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_change_stream_tells_every_change_once() {
    let dir = folder();
    let served = Served::open(dir.path()).await;
    let contacts = served.dataset("acme", "Contact");
    let deals = served.dataset("zenith", "Deal");
    served.put(&contacts, &[("a", Some(1)), ("b", Some(1))]).await;
    served.put(&deals, &[("d", Some(1))]).await;
    served.put(&contacts, &[("a", Some(2))]).await;
    served.put(&contacts, &[("b", None)]).await;

    let read = async |query: &str| served.ask(READER, "GET", &format!("/v1/changes?{query}"), None).await.json();
    let mut seen = Vec::new();
    let mut cursor = "earliest".to_owned();
    loop {
        let page = read(&format!("limit=2&cursor={cursor}")).await;
        seen.extend(page["changes"].as_array().cloned().expect("changes"));
        cursor = page["cursor"].as_str().expect("a cursor").to_owned();
        if page["up_to_date"] == true {
            break;
        }
    }
    let brief: Vec<_> =
        seen.iter().map(|c| json!([c["key"], c["action"], c["stream"], c["changed"], c["last"]])).collect();
    // Inside one commit the order is the engine's own.
    let (ab, rest) = brief.split_at(2);
    assert_eq!(
        rest,
        [
            json!(["d", "ADDED", "Deal", [], true]),
            json!(["a", "UPDATED", "Contact", ["v"], true]),
            json!(["b", "DELETED", "Contact", [], true]),
        ]
    );
    assert_eq!((&ab[0][4], &ab[1][4]), (&json!(false), &json!(true)));
    assert_eq!(seen[0]["time"], seen[1]["time"]);
    assert_eq!((&seen[3]["before"]["v"], &seen[3]["after"]["v"]), (&json!(1), &json!(2)));
    assert!(read(&format!("cursor={cursor}")).await["changes"].as_array().is_some_and(Vec::is_empty));

    let keys = |page: &Value| {
        page["changes"].as_array().expect("changes").iter().map(|c| c["key"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(keys(&read("connection=zenith").await), [json!("d")]);
    assert_eq!(keys(&read("stream=Deal&connection=zenith").await), [json!("d")]);
    assert_eq!(keys(&read("action=updated,deleted").await), [json!("a"), json!("b")]);
    assert_eq!(keys(&read("cursor=now").await), Vec::<Value>::new());
    let from_now = read("cursor=now").await["cursor"].clone();
    served.put(&deals, &[("e", Some(1))]).await;
    assert_eq!(keys(&read(&format!("cursor={}", from_now.as_str().expect("cursor"))).await), [json!("e")]);
    served.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_questions_for_changes_are_refused() {
    let dir = folder();
    let served = Served::open(dir.path()).await;
    let read = async |query: &str| served.ask(READER, "GET", &format!("/v1/changes?{query}"), None).await;
    for (query, wanted) in [
        ("limit=0", "invalid_query_params"),
        ("model=Contact", "invalid_query_params"),
        ("action=changed", "invalid_query_params"),
        ("wait=61s", "invalid_query_params"),
        ("wait=soon", "invalid_query_params"),
        ("cursor=nonsense", "invalid_cursor"),
    ] {
        let answer = read(query).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, wanted), "{query}");
    }
    served.dataset("acme", "Deal");
    let cursor = read("stream=Contact").await.json()["cursor"].as_str().map(str::to_owned).expect("cursor");
    assert_eq!(read(&format!("stream=Contact&action=added&cursor={cursor}")).await.status, 200);
    assert_eq!(read(&format!("stream=Deal&cursor={cursor}")).await.code(), "invalid_cursor");
    served.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_or_stream_nobody_has_heard_of_is_refused() {
    let dir = folder();
    let served = Served::open(dir.path()).await;
    for path in ["/v1/changes", "/v1/records"] {
        let read = async |query: &str| served.ask(READER, "GET", &format!("{path}?{query}"), None).await;
        for (query, wanted) in [
            ("source=crn", "no source `crn` is defined; there is crm"),
            ("stream=Contakt", "no stream `Contakt` is defined; there is Contact"),
            ("source=crm&stream=Contact&stream=Order", "no stream `Order` is defined; there is Contact"),
        ] {
            let answer = read(query).await;
            assert_eq!((answer.status, answer.code().as_str()), (400, "invalid_query_params"), "{path}?{query}");
            let message = answer.json()["error"]["errors"][0]["message"].to_string();
            assert!(message.contains(wanted), "{message}");
        }
        // Defined and still empty; a connection may come later; records outlive the definition they came by.
        assert_eq!(read("source=crm&stream=Contact&connection=later").await.status, 200);
        let older = if path == "/v1/changes" { "Invoice" } else { "Ticket" };
        assert_eq!(read(&format!("stream={older}")).await.status, 400);
        served.dataset("acme", older);
        assert_eq!(read(&format!("stream={older}")).await.status, 200);
    }
    served.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_poll_answers_with_the_first_change_or_at_its_end() {
    let dir = folder();
    let served = Served::open(dir.path()).await;
    let contacts = served.dataset("acme", "Contact");
    served.put(&contacts, &[("a", Some(1))]).await;
    // There is something: no wait.
    let at_once = served.ask(READER, "GET", "/v1/changes?wait=60s", None).await.json();
    assert_eq!(at_once["changes"][0]["key"], "a");
    let cursor = at_once["cursor"].as_str().expect("cursor");
    let path = format!("/v1/changes?wait=60s&cursor={cursor}");

    // The clock of the app stands still, so this wait can only end with a change.
    let bearer = format!("Bearer {READER}");
    let headers = [("authorization", bearer.as_str())];
    let mut stream = wire::open(served.address(), "GET", &path, &headers, b"").await.expect("connected");
    served.put(&contacts, &[("b", Some(1))]).await;
    let mut text = String::new();
    stream.read_to_string(&mut text).await.expect("answered");
    assert!(text.contains("\"key\":\"b\""), "{text}");

    // And this one only with the clock.
    let now = served.ask(READER, "GET", "/v1/changes?cursor=now", None).await.json()["cursor"].clone();
    let path = format!("/v1/changes?wait=60s&cursor={}", now.as_str().expect("cursor"));
    let clock = served.clock.clone();
    let turning = tokio::spawn(async move {
        loop {
            clock.advance(Duration::from_secs(61));
            tokio::task::yield_now().await;
        }
    });
    let empty = served.ask(READER, "GET", &path, None).await.json();
    turning.abort();
    assert_eq!((&empty["changes"], &empty["up_to_date"]), (&json!([]), &json!(true)));
    served.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_end_with_a_control_and_events_go_on() {
    let dir = folder();
    let served = Served::open(dir.path()).await;
    let contacts = served.dataset("acme", "Contact");
    served.put(&contacts, &[("a", Some(1)), ("b", Some(1)), ("c", Some(1))]).await;
    let bearer = format!("Bearer {READER}");
    let lines = [("authorization", bearer.as_str()), ("accept", "application/x-ndjson")];
    let answer = served.raw("GET", "/v1/changes?limit=2", &lines, b"").await;
    let all: Vec<Value> = answer.text().lines().map(|l| serde_json::from_str(l).expect("JSON")).collect();
    assert_eq!(all.len(), 4);
    assert_eq!(all[3]["control"], "up_to_date");

    let second = all[1]["cursor"].as_str().expect("cursor");
    let events = [("authorization", bearer.as_str()), ("accept", "text/event-stream"), ("last-event-id", second)];
    let mut stream = wire::open(served.address(), "GET", "/v1/changes", &events, b"").await.expect("connected");
    let mut text = read_until(&mut stream, "up_to_date").await;
    assert_eq!(text.matches("event: change\n").count(), 1, "{text}");
    served.put(&contacts, &[("d", Some(1))]).await;
    text = read_until(&mut stream, "\"key\":\"d\"").await;
    assert!(text.contains("event: change\nid: "), "{text}");
    // The stream ends with the server, at once.
    served.close().await;
    let mut rest = String::new();
    stream.read_to_string(&mut rest).await.expect("an orderly end");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_changes_hears_of_an_emptied_dataset() {
    let dir = folder();
    let served = Served::open(dir.path()).await;
    let (contacts, deals) = (served.dataset("acme", "Contact"), served.dataset("acme", "Deal"));
    served.put(&contacts, &[("a", Some(1)), ("b", Some(1))]).await;
    let of = "/v1/changes?stream=Contact";
    let now = served.ask(READER, "GET", &format!("{of}&cursor=now"), None).await.json()["cursor"].clone();
    let now = now.as_str().expect("cursor");
    let bearer = format!("Bearer {READER}");
    let plain = [("authorization", bearer.as_str())];
    let events = [plain[0], ("accept", "text/event-stream"), ("last-event-id", now)];

    let mut following = wire::open(served.address(), "GET", of, &events, b"").await.expect("connected");
    read_until(&mut following, "up_to_date").await;
    let path = format!("{of}&wait=20s&cursor={now}");
    let mut waiting = wire::open(served.address(), "GET", &path, &plain, b"").await.expect("connected");
    // Wakes both, for nothing.
    served.put(&deals, &[("d", Some(1))]).await;
    served.app.engine.clear(&contacts).await.expect("clears");
    // What is listed anew would be read on from the old place.
    served.put(&contacts, &[("a", Some(1))]).await;

    let mut text = String::new();
    waiting.read_to_string(&mut text).await.expect("answered");
    assert!(text.starts_with("HTTP/1.1 409 ") && text.contains("\"must_refetch\""), "{text}");
    let mut told = read_until(&mut following, "\n\n").await;
    following.read_to_string(&mut told).await.expect("the stream ends");
    assert!(told.contains("event: must_refetch\ndata: {"), "{told}");
    assert!(!told.contains("event: change") && !told.contains("id: "), "{told}");
    served.close().await;
}

async fn read_until(stream: &mut tokio::net::TcpStream, wanted: &str) -> String {
    let mut text = String::new();
    let mut buffer = [0u8; 4096];
    while !text.contains(wanted) {
        let read = stream.read(&mut buffer).await.expect("open");
        assert!(read > 0, "the stream ended early: {text}");
        text.push_str(&String::from_utf8_lossy(&buffer[..read]));
    }
    text
}

/// Commits a record as a webhook does, and what is owed for it.
async fn owe(served: &Served, id: &str, number: u64) {
    let contacts = served.dataset("acme", "Contact");
    let mut page = served.app.engine.page(&contacts);
    page.save(id, None, served.clock.now(), json!({"id": id}).to_string().as_bytes());
    let batch = Batch { cause: Some(Cause::webhook(number)), pages: vec![page], ..Batch::default() };
    served.app.engine.commit(batch).await.expect("a commit");
    served.app.engine.announce_webhooks().await.expect("announces");
    // Commits stamp rising times even while the clock stands: what is owed now is due a moment later.
    served.clock.advance(Duration::from_secs(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_said_it_is_gone_is_shown_and_enabled_again() {
    let dir = folder();
    let (told, mut heard) = tokio::sync::mpsc::unbounded_channel::<String>();
    let gone = Arc::new(AtomicBool::new(true));
    let receiver = axum::Router::new().fallback({
        let gone = gone.clone();
        async move |body: String| {
            told.send(body).expect("the test listens");
            if gone.load(Ordering::SeqCst) { axum::http::StatusCode::GONE } else { axum::http::StatusCode::OK }
        }
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}/hook/s3cret-path", listener.local_addr().expect("an address"));
    tokio::spawn(async move { axum::serve(listener, receiver).await });
    let settings = std::fs::read_to_string(dir.path().join("syncline.yaml")).expect("settings");
    let settings = format!("{settings}endpoints:\n  backend: {{url: '{url}', secret: 'env:ADMIN'}}\n");
    std::fs::write(dir.path().join("syncline.yaml"), settings).expect("settings");
    let served = Served::open(dir.path()).await;
    let stop = CancellationToken::new();
    let delivering = tokio::spawn({
        let (outbox, stop) = (served.app.outbox.clone(), stop.clone());
        async move { outbox.run(stop).await }
    });

    let list = async || served.ask(READER, "GET", "/v1/endpoints", None).await;
    let theirs = served.ask(OTHER, "GET", "/v1/endpoints", None).await;
    assert_eq!(theirs.json(), json!({"endpoints": []}), "an endpoint belongs to one environment");
    let foreign = served.ask(OTHER, "POST", "/v1/endpoints/backend/enable", None).await;
    assert_eq!(foreign.code(), "not_found");
    let fine = json!({"name": "backend", "host": "127.0.0.1", "disabled": false, "disabled_at": null});
    assert_eq!(list().await.json(), json!({"endpoints": [fine]}));
    owe(&served, "a", 1).await;
    let first = heard.recv().await.expect("tried");
    let told_at = served.clock.now();
    while list().await.json()["endpoints"][0]["disabled"] == false {}
    let shown = list().await;
    assert_eq!(shown.json()["endpoints"][0]["disabled_at"], told_at.to_string());
    assert!(!shown.text().contains("s3cret"), "{}", shown.text());
    owe(&served, "b", 2).await;
    served.clock.advance(Duration::from_secs(3_600));

    gone.store(false, Ordering::SeqCst);
    let enable =
        async |key: &str, name: &str| served.ask(key, "POST", &format!("/v1/endpoints/{name}/enable"), None).await;
    assert_eq!(enable(WRITER, "backend").await.code(), "forbidden");
    assert_eq!(enable(ADMIN, "nobody").await.code(), "not_found");
    assert_eq!(enable(ADMIN, "override:other%2Fcrm%2Fhidden").await.code(), "not_found", "another environment's");
    assert_eq!(enable(ADMIN, "override:default%2Fcrm%2Facme").await.status, 200);
    assert!(heard.try_recv().is_err(), "nothing while disabled");
    assert_eq!(enable(ADMIN, "backend").await.json(), json!({"endpoint": "backend", "disabled": false}));
    assert_eq!(heard.recv().await.expect("delivered"), first);
    let second: Value = serde_json::from_str(&heard.recv().await.expect("delivered")).expect("JSON");
    assert_eq!(second["sequence"], 2);
    assert_eq!(list().await.json(), json!({"endpoints": [fine]}));
    stop.cancel();
    delivering.await.expect("ends").expect("well");
    served.close().await;
}

#[derive(Row, Clone)]
struct Contact {
    v: i64,
}

#[tokio::test(flavor = "multi_thread")]
async fn views_are_read_like_models() {
    let dir = folder();
    let views = Definition::new(|v| {
        let contacts = v.model::<Contact>("crm", "Contact");
        v.publish("ByValue", &contacts.group_by(|_, c| c.v).count());
        v.publish("Everywhere", &contacts.across_connections().group_by(|_, c| c.v).count());
    });
    let served = Served::open_with(dir.path(), Some(views)).await;
    let (acme, zenith) = (served.dataset("acme", "Contact"), served.dataset("zenith", "Contact"));
    served.put(&acme, &[("a", Some(1)), ("b", Some(1))]).await;
    served.put(&zenith, &[("a", Some(1))]).await;
    served.put(&acme, &[("b", Some(2))]).await;

    let first = served.records("model=ByValue&limit=1").await;
    let value = |answer: &Answer| answer.json()["records"][0]["value"].clone();
    assert_eq!((rows(&first).len(), value(&first)), (1, json!(1)));
    let second = served.records(&format!("model=ByValue&cursor={}", next(&first).expect("more follows"))).await;
    assert_eq!((rows(&second).len(), next(&second)), (1, None));
    let all = served.records_of(READER, "*", "model=Everywhere").await;
    let mut counted: Vec<_> = rows(&all).into_iter().map(|(id, _, _)| id).collect();
    counted.sort();
    assert_eq!(counted, ["1", "2"]);
    let none = served.records_of(OTHER, "*", "model=Everywhere").await;
    assert!(rows(&none).is_empty(), "another environment has its own: {}", none.text());

    let of = "source=crm&connection=acme&stream=ByValue";
    let changes = served.ask(READER, "GET", &format!("/v1/changes?{of}&cursor=earliest"), None).await;
    let told: Vec<Value> = changes.json()["changes"].as_array().cloned().expect("changes");
    let first = &told[0];
    assert_eq!(
        (&first["action"], &first["after"]["value"], &first["via"]),
        (&json!("ADDED"), &json!(2), &json!("view"))
    );
    assert!(told.iter().any(|c| c["before"]["value"] == 2 && c["after"]["value"] == 1), "{told:?}");

    let listed = served.ask(READER, "GET", "/v1/views", None).await.json();
    let names: Vec<&Value> = listed["views"].as_array().expect("views").iter().map(|v| &v["name"]).collect();
    assert_eq!(names, ["ByValue", "Everywhere"]);
    assert_eq!(listed["views"][0]["stopped"], false);
    assert_eq!(served.ask(READER, "GET", "/v1/views/Nothing", None).await.status, 404);
    served.close().await;
}

fn by_value() -> Definition {
    Definition::new(|v| {
        let contacts = v.model::<Contact>("crm", "Contact");
        v.publish("ByValue", &contacts.group_by(|_, c| c.v).count());
    })
}

/// Of a list of rows: stream and key with what the record says.
fn current(answer: &Value) -> BTreeMap<(String, String), Value> {
    let rows = answer["records"].as_array().cloned().expect("records");
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    rows.iter().map(|r| ((text(&r["stream"]), text(&r["key"])), r["record"].clone())).collect()
}

/// How many contacts of each value there are, and how many the view says.
fn counted(rows: &BTreeMap<(String, String), Value>) -> [BTreeMap<String, i64>; 2] {
    let (mut recounted, mut told) = (BTreeMap::new(), BTreeMap::new());
    for ((stream, key), record) in rows {
        match stream.as_str() {
            "Contact" => *recounted.entry(record["v"].to_string()).or_default() += 1,
            _ => drop(told.insert(key.clone(), record["value"].as_i64().unwrap_or(-1))),
        }
    }
    [recounted, told]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consistent_answer_is_of_one_engine_time_and_changes_go_on_from_it() {
    let dir = folder();
    let served = Arc::new(Served::open_with(dir.path(), Some(by_value())).await);
    let contacts = served.dataset("acme", "Contact");
    let ids: Vec<String> = (0..200).map(|n| format!("c{n}")).collect();
    let all: Vec<(&str, Option<i64>)> = ids.iter().map(|id| (id.as_str(), Some(0))).collect();
    served.put(&contacts, &all).await;

    // Every commit moves contacts from value to value, so a mixture of two times does not add up.
    let writer = tokio::spawn({
        let (served, ids) = (served.clone(), ids.clone());
        async move {
            for n in 0..150usize {
                let moved: Vec<(&str, Option<i64>)> =
                    (0..7).map(|k| (ids[(n * 13 + k * 31) % ids.len()].as_str(), Some(((n + k) % 5) as i64))).collect();
                served.put(&contacts, &moved).await;
            }
        }
    });
    let selection = "stream=Contact&view=ByValue&connection=acme";
    let mut times = BTreeSet::new();
    let mut first = None;
    while !writer.is_finished() {
        let answer = served.ask(READER, "GET", &format!("/v1/records?{selection}&consistent=true"), None).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let json = answer.json();
        let rows = current(&json);
        let [recounted, told] = counted(&rows);
        assert_eq!(recounted.values().sum::<i64>(), 200);
        assert_eq!(recounted, told, "at engine time {}", json["time"]);
        times.insert(json["time"].as_u64());
        first.get_or_insert(json);
    }
    writer.await.expect("writes");
    assert!(times.len() > 1, "read while it was written: {times:?}");
    let first = first.expect("an answer");

    // From the first answer on, changes lead to what is there now.
    let mut rows = current(&first);
    let mut cursor = first["cursor"].as_str().map(str::to_owned).expect("a cursor");
    loop {
        let page = served.ask(READER, "GET", &format!("/v1/changes?{selection}&cursor={cursor}&limit=50"), None).await;
        assert_eq!(page.status, 200, "{}", page.text());
        for change in page.json()["changes"].as_array().cloned().expect("changes") {
            let key = (
                change["stream"].as_str().unwrap_or_default().to_owned(),
                change["key"].as_str().unwrap_or_default().to_owned(),
            );
            assert!(change["time"].as_u64() > first["time"].as_u64(), "{change}");
            match change["action"] == "DELETED" {
                true => rows.remove(&key),
                false => rows.insert(key, change["after"].clone()),
            };
        }
        cursor = page.json()["cursor"].as_str().map(str::to_owned).expect("a cursor");
        if page.json()["up_to_date"] == true {
            break;
        }
    }
    let now = served.ask(READER, "GET", &format!("/v1/records?{selection}&consistent=true"), None).await.json();
    assert_eq!(rows, current(&now));
    let served = Arc::into_inner(served).expect("nobody else");
    served.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn current_records_are_read_by_stream_view_and_key() {
    let dir = folder();
    let served = Served::open_with(dir.path(), Some(by_value())).await;
    let (acme, zenith) = (served.dataset("acme", "Contact"), served.dataset("zenith", "Contact"));
    served.put(&acme, &[("a", Some(1)), ("b", Some(1)), ("c", Some(2))]).await;
    served.put(&zenith, &[("a", Some(9))]).await;
    served.put(&acme, &[("c", None)]).await;
    let ask = async |query: &str| served.ask(READER, "GET", &format!("/v1/records?{query}"), None).await;

    let mut met = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = ask(&format!("stream=Contact&limit=2{cursor}")).await.json();
        let rows = page["records"].as_array().cloned().expect("records");
        met.extend(rows.iter().map(|r| (r["connection"].clone(), r["key"].clone(), r["record"]["v"].clone())));
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    let row = |connection: &str, key: &str, v: i64| (json!(connection), json!(key), json!(v));
    assert_eq!(met, [row("acme", "a", 1), row("acme", "b", 1), row("zenith", "a", 9)], "what is deleted is left out");

    let first = ask("stream=Contact&key=a&connection=acme").await.json()["records"][0].clone();
    assert_eq!((&first["record"], &first["source"]), (&json!({"id": "a", "v": 1}), &json!("crm")));
    assert!(first["committed_at"].as_str().is_some_and(|at| at.ends_with('Z')) && first["time"].is_u64(), "{first}");
    let view = ask("view=ByValue&connection=acme").await.json();
    assert_eq!(current(&view), BTreeMap::from([(("ByValue".into(), "1".into()), json!({"id": "1", "value": 2}))]));
    let changes = served.ask(READER, "GET", "/v1/changes?view=ByValue&connection=zenith", None).await.json();
    assert_eq!(changes["changes"][0]["after"], json!({"id": "9", "value": 1}));
    let other = served.ask(OTHER, "GET", "/v1/records?consistent=true", None).await.json();
    assert_eq!(other["records"], json!([]), "another environment has its own");

    for (query, at) in [
        ("view=Nothing", "view"),
        ("consistent=true&limit=5", "limit"),
        ("consistent=true&key=a", "key"),
        ("consistent=yes", "consistent"),
        ("model=Contact", "model"),
        ("stream=Contact&cursor=x", "cursor"),
    ] {
        let refused = ask(query).await;
        assert_eq!((refused.status, faults(&refused)), (400, vec![at.to_owned()]), "{query}: {}", refused.text());
    }
    let foreign = served.ask(READER, "GET", "/v1/records?stream=Contact&limit=1", None).await.json();
    let foreign = foreign["next_cursor"].as_str().map(str::to_owned).expect("more follows");
    assert_eq!(faults(&ask(&format!("stream=Deal&cursor={foreign}")).await), ["cursor"]);
    served.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_removed_view_left_is_shown_and_goes_on_request() {
    let dir = folder();
    let served = Served::open_with(dir.path(), Some(by_value())).await;
    let acme = served.dataset("acme", "Contact");
    served.put(&acme, &[("a", Some(1)), ("b", Some(2))]).await;
    let view = async |served: &Served| served.ask(READER, "GET", "/v1/views/ByValue", None).await;
    let defined = view(&served).await.json();
    assert_eq!((&defined["removed"], &defined["skewed"], &defined["rows"]), (&json!(false), &json!([]), &json!(2)));
    assert!(defined["bytes"].as_u64().is_some_and(|bytes| bytes > 0), "{defined}");
    let delete = async |served: &Served, key| served.ask(key, "DELETE", "/v1/views/ByValue", None).await;
    assert_eq!(delete(&served, WRITER).await.status, 409, "it is defined");
    served.close().await;

    let served = Served::open(dir.path()).await;
    assert_eq!(view(&served).await.json(), json!({"name": "ByValue", "source": "crm", "removed": true, "records": 2}));
    assert_eq!(rows(&served.records("model=ByValue").await).len(), 2, "they stay");
    assert_eq!(delete(&served, READER).await.status, 403);
    let other = delete(&served, OTHER).await;
    assert_eq!(other.json(), json!({"view": "ByValue", "deleted": 0}), "another environment has its own");
    let deleted = delete(&served, WRITER).await;
    assert_eq!((deleted.status, deleted.json()), (200, json!({"view": "ByValue", "deleted": 2})));
    let again = delete(&served, WRITER).await;
    assert_eq!((again.status, again.json()), (200, json!({"view": "ByValue", "deleted": 0})), "asked again it is done");
    assert_eq!(view(&served).await.status, 404);
    assert_eq!(served.ask(WRITER, "DELETE", "/v1/views/Nothing", None).await.status, 404);
    served.close().await;

    let served = Served::open_with(dir.path(), Some(by_value())).await;
    let changes = served.ask(READER, "GET", "/v1/changes?view=ByValue", None).await.json();
    let told: Vec<_> = changes["changes"].as_array().expect("changes").iter().map(|c| c["action"].clone()).collect();
    assert_eq!(told[told.len() - 2..], ["ADDED", "ADDED"], "defined again: {told:?}");
    served.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_views_hold_is_metered() {
    let dir = folder();
    let views = Definition::new(|v| {
        let contacts = v.model::<Contact>("crm", "Contact");
        v.publish("Metered", &contacts.group_by(|_, c| c.v).max(|id, _| id.clone()));
    });
    let served = Served::open_with(dir.path(), Some(views)).await;
    let running = served.app.start();
    served.put(&served.dataset("acme", "Contact"), &[("a", Some(1)), ("b", Some(2))]).await;
    // What a view holds is a sum over all environments.
    let text = served.ask(FIGURES, "GET", "/metrics", None).await.text();
    let told = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(&format!("{name}{{view=\"Metered\"}} ")));
        line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
    };
    let view = served.ask(READER, "GET", "/v1/views/Metered", None).await.json();
    assert!(view["rows"].as_u64().is_some_and(|rows| rows >= 2), "{view}");
    let said = |name: &str| view[name].as_f64();
    assert_eq!((told("syncline_view_rows"), told("syncline_view_bytes")), (said("rows"), said("bytes")), "{text}");
    running.stop().await.expect("a clean stop");
    served.close().await;
}
