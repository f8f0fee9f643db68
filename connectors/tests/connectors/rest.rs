//! The declarative source against a provider on a free port: pages, ends, proofs, refusals.

use crate::provider::{Asked, Bench, Provider, Read, Reply, at, reply};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use syncline_connectors::rest::Credentials;
use syncline_engine::source::{Body, Confirm, Connection, Failure, Part};

/// A definition with one stream, `Thing`, whose list is `list`.
fn listing(list: &str) -> String {
    with("", list, "")
}

fn with(source: &str, list: &str, stream: &str) -> String {
    format!(
        "source: acme\nbase_url: https://api.acme.example/v1\n{source}\nstreams:\n- name: Thing\n  key: .id\n  list: {list}\n{stream}\n"
    )
}

/// Items with these ids.
fn things(ids: impl IntoIterator<Item = u64>) -> Vec<Value> {
    ids.into_iter().map(|id| json!({"id": id})).collect()
}

async fn read(definition: &str, provider: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> (Read, Vec<Asked>) {
    let bench = Bench::new(definition, provider).await;
    let read = bench.read(Part::Full).await;
    (read, bench.provider.asked())
}

fn number(asked: &Asked, name: &str) -> Option<u64> {
    asked.query.get(name).and_then(|text| text.parse().ok())
}

// --- credentials ---

/// Tokens that follow each other: the first is in force until it is refused.
struct Tokens {
    left: Mutex<Vec<&'static str>>,
    refusals: AtomicUsize,
}

impl Tokens {
    fn new(tokens: &[&'static str]) -> Arc<Tokens> {
        Arc::new(Tokens { left: Mutex::new(tokens.to_vec()), refusals: AtomicUsize::new(0) })
    }

    fn first(&self) -> Option<Map<String, Value>> {
        let token = *self.left.lock().expect("tokens").first()?;
        Some(Map::from_iter([("token".to_owned(), token.into())]))
    }
}

#[async_trait::async_trait]
impl Credentials for Tokens {
    async fn current(&self, source: &str, connection: &Connection) -> Result<Option<Map<String, Value>>, Failure> {
        assert_eq!((source, connection.id.as_str()), ("acme", "me"));
        Ok(self.first())
    }

    async fn refused(&self, _: &str, connection: &Connection) -> Result<Option<Map<String, Value>>, Failure> {
        assert_eq!(Some(connection.credentials.clone()), self.first(), "those that were refused");
        self.refusals.fetch_add(1, Ordering::SeqCst);
        self.left.lock().expect("tokens").remove(0);
        Ok(self.first())
    }
}

const SIGNED: &str = "auth: {type: bearer}\nheaders: {X-Key: \"{{ connection.credentials.token }}\"}";

fn let_in(asked: &Asked) -> Reply {
    match asked.header("authorization").as_deref() {
        Some("Bearer good") if asked.header("x-key").as_deref() == Some("good") => reply(things(1..=2)),
        _ => Reply::text(401, "who are you?"),
    }
}

#[tokio::test]
async fn a_provider_that_refuses_credentials_is_asked_once_more_with_others() {
    let bench = Bench::new(&with(SIGNED, "{get: /things}", ""), let_in).await;
    let tokens = Tokens::new(&["old", "good"]);
    let read = bench.signed_by(tokens.clone()).read(Part::Full).await;
    assert_eq!((read.ids().len(), bench.provider.asked().len()), (2, 2), "{:?}", read.failed);
    assert_eq!(tokens.refusals.load(Ordering::SeqCst), 1);
    // The next page begins with those that are in force.
    assert_eq!(bench.signed_by(tokens).read(Part::Full).await.ids().len(), 2);
    assert_eq!(bench.provider.asked().len(), 3);
}

#[tokio::test]
async fn credentials_are_asked_for_once_more_and_not_again() {
    for (tokens, requests) in [(&["old", "older", "good"][..], 2), (&["old"], 1)] {
        let bench = Bench::new(&with(SIGNED, "{get: /things}", ""), let_in).await;
        let tokens = Tokens::new(tokens);
        let read = bench.signed_by(tokens.clone()).read(Part::Full).await;
        assert_eq!((read.failure().status, bench.provider.asked().len()), (Some(401), requests));
        assert_eq!(tokens.refusals.load(Ordering::SeqCst), 1);
    }
}

// --- pagination ---

#[tokio::test]
async fn without_pagination_one_page_is_all() {
    let (read, asked) = read(&listing("{get: /things, params: {a: [x, y], b: 1}}"), |_| reply(things(1..=2))).await;
    assert_eq!((read.ids(), asked.len()), (vec!["1".into(), "2".into()], 1));
    assert_eq!((asked[0].path.as_str(), asked[0].raw_query.as_str()), ("/v1/things", "a=x&a=y&b=1"));
}

#[tokio::test]
async fn link_headers_are_followed_relative_ones_too_until_there_is_none() {
    let provider = |asked: &Asked| match number(asked, "p") {
        None => reply(things([1])).with("link", "</v1/things?p=2>; rel=\"next\", <x>; rel=\"last\""),
        Some(2) => reply(things([2])).with("link", "<?p=3>; rel=next"),
        _ => reply(things([3])).with("link", "<?p=1>; rel=prev"),
    };
    let (read, asked) = read(&listing("{get: /things, params: {q: 1}, paginate: link}"), provider).await;
    assert_eq!((read.ids().len(), asked.len()), (3, 3));
    assert_eq!(asked[1].raw_query, "p=2", "a link is the whole request, parameters are not laid in again");
    assert!(read.end.expect("an end").doubts.is_empty());
}

#[tokio::test]
async fn a_link_header_that_is_not_ascii_is_followed_all_the_same() {
    let provider = |asked: &Asked| match asked.query.get("p").map(String::as_str) {
        None => reply(things([1])).with("link", "<?p=2>; title=\"Ⅱ\"; rel=next"),
        Some("2") => reply(things([2])).with("link", "<?p=é>; rel=next"),
        Some(_) => reply(things([3])),
    };
    let (read, asked) = read(&listing("{get: /things, paginate: link}"), provider).await;
    assert_eq!((read.ids().len(), asked.last().expect("three").query["p"].as_str()), (3, "é"));
}

#[tokio::test]
async fn links_in_the_body_end_with_null_or_nothing() {
    for last in [json!(null), json!(""), json!({})] {
        let provider = move |asked: &Asked| match number(asked, "p") {
            None => reply(json!({"items": things([1]), "next": "/v1/things?p=2"})),
            _ => {
                reply(json!({"items": things([2]), "next": if last.is_object() { Value::Null } else { last.clone() }}))
            }
        };
        let list = "{get: /things, items: .items, paginate: {link: .next}}";
        assert_eq!(read(&listing(list), provider).await.0.ids().len(), 2);
    }
}

#[tokio::test]
async fn cursors_go_to_query_body_or_header() {
    for place in ["query", "body", "header"] {
        let provider = move |asked: &Asked| {
            let found = match place {
                "query" => asked.query.get("after").cloned(),
                "body" => asked.body.pointer("/page/after").map(|v| v.as_str().expect("text").to_string()),
                _ => asked.header("after"),
            };
            match found.as_deref() {
                None => reply(json!({"data": things([1]), "next": "c1"})),
                Some("c1") => reply(json!({"data": things([2]), "next": "c2"})),
                Some(_) => reply(json!({"data": things([3]), "next": null})),
            }
        };
        let param = if place == "body" { "page.after" } else { "after" };
        let list = format!(
            "{{post: /q, body: {{page: {{size: 1}}}}, items: .data, paginate: {{cursor: .next, param: {param}, in: {place}}}}}"
        );
        let (read, asked) = read(&listing(&list), provider).await;
        assert_eq!(read.ids(), ["1", "2", "3"], "{place}");
        assert_eq!(asked[2].body.pointer("/page/size"), Some(&json!(1)), "the rest of the body stays");
    }
}

#[tokio::test]
async fn a_cursor_listing_ends_when_the_provider_says_there_is_no_more() {
    let provider = |asked: &Asked| {
        let after = number(asked, "after").unwrap_or(0);
        reply(json!({"data": things([after + 1]), "more": after < 2, "next": after + 1}))
    };
    let list = "{get: /q, items: .data, paginate: {cursor: .next, param: after, more: .more}}";
    assert_eq!(read(&listing(list), provider).await.0.ids().len(), 3);
}

#[tokio::test]
async fn a_cursor_listing_that_says_more_but_not_where_is_no_end() {
    let list = "{get: /q, items: .data, paginate: {cursor: .next, param: after, more: .more}}";
    for next in [json!({"next": null}), json!({"next": ""}), json!({})] {
        let provider = move |asked: &Asked| match number(asked, "after") {
            None => reply(json!({"data": things([1]), "more": true, "next": 1})),
            Some(_) => {
                let mut body = json!({"data": things([2]), "more": true});
                body.as_object_mut().expect("a map").extend(next.as_object().expect("a map").clone());
                reply(body)
            }
        };
        let (read, _) = read(&listing(list), provider).await;
        assert_eq!((read.failure().code, read.failure().retry), ("bad_cursor", false), "{}", read.failure());
    }
    let silent = |_: &Asked| reply(json!({"data": things([1]), "more": null}));
    let (read, _) = read(&listing(list), silent).await;
    assert!(read.end.expect("an end").doubts.is_empty(), "nothing said of more: the token alone decides");
}

#[tokio::test]
async fn a_keyset_ends_with_the_empty_page() {
    let provider = |asked: &Asked| {
        let after = number(asked, "after").unwrap_or(0);
        reply(json!({"data": things(after + 1..=(after + 2).min(5))}))
    };
    let list = "{get: /q, items: .data, paginate: {cursor: '.data[-1].id', param: after}}";
    let (read, asked) = read(&listing(list), provider).await;
    assert_eq!((read.ids().len(), asked.len()), (5, 4));
}

#[tokio::test]
async fn offsets_count_what_came_so_that_a_capped_page_leaves_no_gap() {
    // Ten are asked for; the provider never gives more than three.
    let provider = |asked: &Asked| {
        assert_eq!(number(asked, "limit"), Some(10));
        let offset = number(asked, "offset").expect("sent from the first page on");
        reply(things(offset + 1..=(offset + 3).min(7)))
    };
    let list = "{get: /q, paginate: {offset: offset, limit: limit, size: 10}}";
    let (read, asked) = read(&listing(list), provider).await;
    assert_eq!((read.ids().len(), asked.len()), (7, 4), "a short page does not end it, an empty one does");
}

#[tokio::test]
async fn offsets_end_at_the_total_and_where_declared_with_a_short_page() {
    let provider = |asked: &Asked| {
        let offset = number(asked, "offset").unwrap_or(0);
        reply(json!({"total": 5, "data": things(offset + 1..=(offset + 2).min(5))}))
    };
    let total = "{get: /q, items: .data, total: .total, paginate: {offset: offset, size: 2}}";
    let (by_total, asked) = read(&listing(total), provider).await;
    assert_eq!((by_total.ids().len(), asked.len()), (5, 3));
    let short = "{get: /q, items: .data, paginate: {offset: offset, size: 2, short_page_ends: true}}";
    let (by_short, asked) = read(&listing(short), provider).await;
    assert_eq!((by_short.ids().len(), asked.len()), (5, 3));
}

#[tokio::test]
async fn pages_end_empty_at_the_last_number_or_at_the_total() {
    let provider = |asked: &Asked| {
        let page = number(asked, "page").expect("sent from the first page on");
        let data = if page <= 3 { things([page]) } else { vec![] };
        reply(json!({"data": data, "last": 3, "total": 3}))
    };
    for (rule, requests) in [("page: page", 4), ("page: page, last: .last", 3)] {
        let list = format!("{{get: /q, items: .data, paginate: {{{rule}}}}}");
        let (read, asked) = read(&listing(&list), provider).await;
        assert_eq!((read.ids().len(), asked.len()), (3, requests), "{rule}");
    }
    let (_, asked) = read(&listing("{get: /q, items: .data, total: .total, paginate: {page: page}}"), provider).await;
    assert_eq!(asked.len(), 3);
}

#[tokio::test]
async fn going_in_circles_is_noticed() {
    let same = |_: &Asked| reply(json!({"data": things([1]), "next": "again"}));
    let list = "{get: /q, items: .data, paginate: {cursor: .next, param: after}}";
    let (read_same, asked) = read(&listing(list), same).await;
    assert_eq!((read_same.failure().code, asked.len()), ("pagination_loop", 2));
    // New cursors for ever, but nothing new on the pages.
    let stale = |asked: &Asked| {
        let n = number(asked, "after").unwrap_or(0);
        reply(json!({"data": things([1]), "next": n + 1}))
    };
    let (read_stale, asked) = read(&listing(list), stale).await;
    assert_eq!((read_stale.failure().code, asked.len()), ("pagination_loop", 4));
    let links = |asked: &Asked| match number(asked, "p") {
        None => reply(things([1])).with("link", "<?p=2>; rel=next"),
        Some(n) => reply(things([n])).with("link", &format!("<?p={}>; rel=next", if n == 2 { 3 } else { 2 })),
    };
    let (read_links, _) = read(&listing("{get: /q, paginate: link}"), links).await;
    assert_eq!(read_links.failure().code, "pagination_loop");
    assert!(!read_links.failure().retry);
}

#[tokio::test]
async fn neither_links_nor_redirects_take_the_sign_in_to_another_origin() {
    let link = |_: &Asked| reply(things([1])).with("link", "<https://evil.example/>; rel=next");
    assert_eq!(read(&listing("{get: /q, paginate: link}"), link).await.0.failure_after_one().code, "other_origin");
    let away = |_: &Asked| reply(json!(null)).status(302).with("location", "https://evil.example/");
    assert_eq!(read(&listing("{get: /q}"), away).await.0.failure().code, "other_origin");
    let home = |asked: &Asked| match asked.path.as_str() {
        "/v1/q" => reply(json!(null)).status(301).with("location", "/v2/q"),
        _ => reply(things([1])),
    };
    assert_eq!(read(&listing("{get: /q}"), home).await.0.ids(), ["1"]);
}

#[tokio::test]
async fn a_listing_has_a_bound() {
    let endless = |asked: &Asked| reply(things([number(asked, "page").unwrap_or(0)]));
    let (read, _) = read(&listing("{get: /q, max_pages: 5, paginate: {page: page}}"), endless).await;
    assert_eq!((read.failure().code, read.ids().len()), ("max_pages", 5));
}

// --- answers ---

#[tokio::test]
async fn bad_answers_fail_with_what_where_and_whether_to_try_again() {
    let cases: [(Reply, &str, bool, Option<u16>); 6] = [
        (Reply::text(200, "<html>"), "not_json", true, Some(200)),
        (reply(json!({"error": "x"})), "items_not_array", false, None),
        (reply(json!({})).status(404), "http_status", false, Some(404)),
        (reply(json!({})).status(503), "http_status", true, Some(503)),
        (reply(json!({})).status(304), "http_status", false, Some(304)),
        (Reply::text(200, &format!("[\"{}\"]", "x".repeat(3_000))), "response_too_large", false, None),
    ];
    for (answer, code, retry, status) in cases {
        let shown = answer.body.chars().take(30).collect::<String>();
        let definition = with("limits: {max_response: 2KiB}", "{get: /q}", "");
        let (read, _) = read(&definition, move |_| answer.clone()).await;
        let failure = read.failure();
        assert_eq!((failure.code, failure.retry, failure.status), (code, retry, status), "{shown}: {failure}");
    }
}

#[tokio::test]
async fn nobody_at_home_is_a_network_failure_worth_another_attempt() {
    let bench = Bench::new(&listing("{get: /q}"), |_| reply(json!([]))).await;
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = free.local_addr().expect("address");
    drop(free);
    let read = bench.at(&format!("http://{address}")).read(Part::Full).await;
    assert_eq!((read.failure().code, read.failure().retry), ("network", true), "{}", read.failure());
}

#[tokio::test]
async fn http_is_refused_unless_it_is_allowed() {
    let bench = Bench::strict(&listing("{get: /q}"), |_| reply(json!([]))).await;
    let read = bench.read(Part::Full).await;
    assert_eq!((read.failure().code, bench.provider.asked().len()), ("insecure_url", 0));
}

#[tokio::test]
async fn rules_over_answers_retry_fail_skip_and_ignore() {
    let rules = "responses: [{status: [418], do: retry}, {when: .error == \"limit\", do: retry}, {status: [410], do: ignore}, \
                 {status: [403], do: skip}, {when: .error, do: fail}]";
    let outcome = |answer: Reply| async move {
        let definition = with(rules, "{get: /q, items: .data}", "");
        let (read, _) = read(&definition, move |_| answer.clone()).await;
        match read.failed {
            Some(failure) => (failure.code.to_string(), failure.retry, vec![]),
            None => ("ended".to_string(), false, read.end.expect("an end").doubts),
        }
    };
    let status = |status| reply(json!({})).status(status);
    assert_eq!(outcome(status(418)).await, ("http_status".into(), true, vec![]));
    assert_eq!(outcome(reply(json!({"error": "limit"}))).await, ("http_status".into(), true, vec![]));
    assert_eq!(outcome(reply(json!({"error": "other"}))).await, ("http_status".into(), false, vec![]));
    assert_eq!(outcome(status(410)).await, ("ended".into(), false, vec![]), "an empty page proves as well as any");
    let (how, _, doubts) = outcome(status(403)).await;
    assert_eq!((how.as_str(), doubts.len()), ("ended", 1));
    assert!(doubts[0].starts_with("page_skipped"), "{doubts:?}");
}

#[tokio::test]
async fn where_pages_are_counted_a_skipped_one_does_not_lose_those_behind_it() {
    let provider = |asked: &Asked| match number(asked, "page") {
        Some(2) => reply(json!({})).status(500),
        Some(page) if page <= 3 => reply(things([page])),
        _ => reply(json!([])),
    };
    let definition = with("responses: [{status: [500], do: skip}]", "{get: /q, paginate: {page: page}}", "");
    let (read, _) = read(&definition, provider).await;
    assert_eq!(read.ids(), ["1", "3"]);
    assert_eq!(read.end.expect("an end").doubts.len(), 1);
}

#[tokio::test]
async fn the_wish_to_be_left_alone_is_handed_on_and_holds_for_the_whole_connection() {
    let bench = Bench::new(&listing("{get: /q}"), |_| reply(json!({})).status(429).with("retry-after", "7")).await;
    let failure = bench.read(Part::Full).await.failed.expect("fails");
    assert_eq!((failure.retry, failure.retry_after), (true, Some(Duration::from_secs(7))));
    let ask = bench.ask(Part::Full);
    let mut again = Box::pin(bench.poll(&ask, None));
    assert!(futures_util::poll!(again.as_mut()).is_pending());
    assert_eq!(bench.provider.asked().len(), 1, "nothing leaves before the time has come");
    bench.clock.advance(Duration::from_secs(7));
    assert!(again.await.is_err());
    assert_eq!(bench.provider.asked().len(), 2);
}

#[tokio::test]
async fn the_providers_clock_and_its_wish_for_pauses_are_read() {
    let provider =
        |_: &Asked| reply(things([1])).with("date", "Sun, 06 Nov 1994 08:49:37 GMT").with("x-poll-interval", "60");
    let (read, _) = read(&with("limits: {poll_hint: X-Poll-Interval}", "{get: /q}", ""), provider).await;
    assert_eq!(read.pages[0].provider_time, Some(at("1994-11-06T08:49:37Z")));
    assert_eq!(read.pages[0].poll_hint, Some(Duration::from_secs(60)));
}

#[tokio::test]
async fn requests_are_signed_in() {
    let provider = |asked: &Asked| match asked.header("authorization").as_deref() {
        Some("Bearer secret") => reply(things([1])),
        _ => reply(json!({})).status(401),
    };
    let definition = with("auth: {type: bearer, token: 'env:TOKEN'}", "{get: /q}", "");
    assert_eq!(read(&definition, provider).await.0.ids(), ["1"]);
}

// --- proof ---

#[tokio::test]
async fn the_total_counts_before_where_and_proves_the_listing() {
    let provider = |asked: &Asked| {
        let page = number(asked, "page").expect("a page");
        reply(json!({"total": 4, "data": [{"id": page, "mine": true}, {"id": page + 10, "mine": false}]}))
    };
    let list = "{get: /q, items: .data, where: .mine, total: .total, paginate: {page: page}}";
    let stream = "  deletes: [{from_full_list: true}]";
    let (read, asked) = read(&with("", list, stream), provider).await;
    assert_eq!((read.ids(), asked.len()), (vec!["1".into(), "2".into()], 2));
    let end = read.end.expect("an end");
    assert_eq!((end.doubts, end.confirm), (vec![], Confirm::None), "a steady total needs no second look");
}

#[tokio::test]
async fn a_total_that_does_not_match_is_a_doubt_and_one_that_moves_asks_for_a_second_look() {
    let stream = "  deletes: [{from_full_list: true}]";
    let list = "{get: /q, items: .data, total: .total, paginate: {page: page}}";
    let fewer = |asked: &Asked| {
        reply(json!({"total": 9, "data": if number(asked, "page") == Some(1) { things([1, 1]) } else { vec![] }}))
    };
    let (read_fewer, _) = read(&with("", list, stream), fewer).await;
    assert!(read_fewer.end.expect("an end").doubts[0].starts_with("total_mismatch"));
    let moving = |asked: &Asked| match number(asked, "page") {
        Some(1) => reply(json!({"total": 3, "data": things([1])})),
        _ => reply(json!({"total": 2, "data": things([2])})),
    };
    let end = read(&with("", list, stream), moving).await.0.end.expect("an end");
    assert_eq!((end.doubts, end.confirm), (vec![], Confirm::Twice));
}

#[tokio::test]
async fn a_last_page_that_counts_nothing_takes_no_total_back() {
    let stream = "  deletes: [{from_full_list: true}]";
    let list = "{get: /q, items: .data, total: .total, paginate: {page: page}}";
    for total in [2, 500] {
        // An empty page as an API gives it, and one that only the definition takes for empty.
        for last in [reply(json!({"data": []})), Reply::text(410, "")] {
            let provider = move |asked: &Asked| match number(asked, "page") {
                Some(1) => reply(json!({"total": total, "data": things([1])})),
                Some(2) => reply(json!({"data": things([2])})),
                _ => last.clone(),
            };
            let definition = with("responses: [{status: [410], do: ignore}]", list, stream);
            let doubts = read(&definition, provider).await.0.end.expect("an end").doubts;
            let met = total == 2;
            assert_eq!(doubts.is_empty(), met, "{doubts:?}");
            assert!(met || doubts[0].starts_with("total_mismatch: the API counts 500, 2 distinct"), "{doubts:?}");
        }
    }
}

#[tokio::test]
async fn how_missing_records_are_confirmed_follows_the_definition() {
    let confirm = |stream: &'static str| async move {
        let (read, _) = read(&with("", "{get: /q}", stream), |_| reply(things([1]))).await;
        read.end.expect("an end").confirm
    };
    assert_eq!(confirm("").await, Confirm::Never);
    assert_eq!(confirm("  deletes: [{from_full_list: true}]").await, Confirm::Twice);
    assert_eq!(confirm("  deletes: [{from_full_list: true, confirm: none}]").await, Confirm::None);
    let fetch = "  fetch: {get: '/q/{{ key }}'}\n  deletes: [{from_full_list: true}]";
    assert_eq!(confirm(fetch).await, Confirm::Fetch);
}

#[tokio::test]
async fn an_interrupted_listing_goes_on_in_another_process_with_its_proof() {
    let provider = |asked: &Asked| {
        let page = number(asked, "page").expect("a page");
        let data = if page <= 4 { things([page, page + 1]) } else { vec![] };
        reply(json!({"total": 5, "data": data}))
    };
    let list = "{get: /q, items: .data, total: .total, paginate: {page: page}}";
    let bench = Bench::new(&listing(list), provider).await;
    let first = bench.read_pages(Part::Full, None, 2).await;
    let resumed = bench.restarted();
    let rest = resumed.read_from(Part::Full, first.next.clone()).await;
    assert_eq!(rest.end.clone().expect("an end").doubts, Vec::<String>::new(), "5 distinct of 8: it knew the first 3");
    assert_eq!(bench.notes.kept("page/"), 0, "what proved the pages is let go at the end");
    let lost = bench.forgetful().read_from(Part::Full, first.next).await;
    assert!(lost.end.expect("an end").doubts.iter().any(|doubt| doubt.starts_with("resumed")));
}

#[tokio::test]
async fn a_bookmark_of_another_definition_is_refused_as_such() {
    let provider = |asked: &Asked| reply(things([number(asked, "page").expect("a page")]));
    let bench = Bench::new(&listing("{get: /q, paginate: {page: page}}"), provider).await;
    let first = bench.read_pages(Part::Full, None, 1).await;
    let other = bench.redefined(&listing("{get: /r, paginate: {page: page}}"));
    assert_eq!(other.read_from(Part::Full, first.next).await.failure().code, "bad_bookmark");
}

// --- conditional requests ---

/// Two pages with validators; the second one changes with `version`.
fn tagged(asked: &Asked, version: &str) -> Reply {
    let (tag, body) = match asked.query.get("after") {
        None => ("\"one\"".to_string(), json!({"data": things([1, 2]), "next": "b"})),
        Some(_) => (format!("\"two{version}\""), json!({"data": things([3]), "next": null})),
    };
    if asked.header("if-none-match").as_deref() == Some(tag.as_str()) {
        return Reply::text(304, "").with("etag", &tag);
    }
    reply(body).with("etag", &tag)
}

const TAGGED: &str =
    "{get: /q, items: .data, params: {x: '{{ connection.metadata.x }}'}, paginate: {cursor: .next, param: after}}";

#[tokio::test]
async fn an_unchanged_page_counts_as_the_page_it_was() {
    let bench = Bench::new(&with("limits: {conditional: true}", TAGGED, ""), |asked| tagged(asked, "")).await;
    let bench = bench.metadata(json!({"x": 1}));
    let first = bench.read(Part::Full).await;
    assert_eq!(first.pages.iter().map(|page| page.not_modified).sum::<u32>(), 0);
    let second = bench.restarted().read(Part::Full).await;
    assert_eq!(second.pages.iter().map(|page| page.not_modified).sum::<u32>(), 2);
    assert_eq!(second.ids(), ["1", "2", "3"], "its records are seen again");
    assert!(second.pages.iter().flat_map(|page| &page.observations).all(|seen| seen.body == Body::Patch("{}".into())));
    assert!(second.end.expect("an end").doubts.is_empty());
    let third = bench.read(Part::Full).await;
    assert_eq!(third.pages.iter().map(|page| page.not_modified).sum::<u32>(), 2, "and again");
}

#[tokio::test]
async fn a_changed_page_is_read_and_another_request_is_not_conditional() {
    let version = std::sync::Arc::new(std::sync::Mutex::new(String::new()));
    let shared = version.clone();
    let bench = Bench::new(&with("limits: {conditional: true}", TAGGED, ""), move |asked| {
        tagged(asked, &shared.lock().expect("lock"))
    })
    .await
    .metadata(json!({"x": 1}));
    bench.read(Part::Full).await;
    *version.lock().expect("lock") = "!".into();
    let read = bench.read(Part::Full).await;
    let not_modified: Vec<u32> = read.pages.iter().map(|page| page.not_modified).collect();
    assert_eq!((not_modified, read.ids().len()), (vec![1, 0], 3));
    let other = bench.metadata(json!({"x": 2}));
    assert!(other.read(Part::Full).await.pages.iter().all(|page| page.not_modified == 0));
}

#[tokio::test]
async fn a_refreshed_token_keeps_validators_and_other_credentials_do_not() {
    let bench = Bench::new(&with("limits: {conditional: true}", TAGGED, ""), |asked| tagged(asked, "")).await;
    let bench = bench.metadata(json!({"x": 1}));
    let not_modified =
        async |bench: Bench| bench.read(Part::Full).await.pages.iter().map(|page| page.not_modified).sum::<u32>();
    assert_eq!(not_modified(bench.token("of noon", "mine")).await, 0);
    assert_eq!(not_modified(bench.token("of one o'clock", "mine")).await, 2, "a token of the same credentials");
    assert_eq!(not_modified(bench.token("of one o'clock", "theirs")).await, 0, "perhaps another account's");
    assert_eq!(not_modified(bench.token("a", "")).await, 0);
    assert_eq!(not_modified(bench.token("b", "")).await, 0, "without a name the value is all there is");
}

#[tokio::test]
async fn a_page_with_something_in_quarantine_is_never_taken_as_unchanged() {
    let provider = |asked: &Asked| match asked.header("if-none-match") {
        None => reply(json!([{"id": 1}, {"id": null}])).with("etag", "\"a\""),
        Some(_) => Reply::text(304, ""),
    };
    let bench = Bench::new(&with("limits: {conditional: true}", "{get: /q}", ""), provider).await;
    for _ in 0..2 {
        let read = bench.read(Part::Full).await;
        assert_eq!((read.pages[0].not_modified, read.pages[0].quarantined.len()), (0, 1));
    }
}

// --- windows ---

const SEARCH: &str = r#"source: acme
base_url: https://api.acme.example
streams:
- name: Thing
  key: .id
  modified_at: .at
  incremental:
    get: /search
    params: {since: "{{ since | epoch_s }}", until: "{{ until | epoch_s }}"}
    items: .data
    total: .total
    paginate: {offset: offset, size: 5}
    window: {start: "1970-01-01T00:00:00Z", lookback: 0s, split_at: 10, min_span: 4s}
"#;

/// One thing for each second of `seconds`, searchable, but never more than ten.
fn capped(seconds: std::ops::Range<u64>) -> impl Fn(&Asked) -> Reply + Send + Sync + 'static {
    move |asked| {
        let (since, until) = (number(asked, "since").expect("since"), number(asked, "until").expect("until"));
        let found: Vec<u64> = seconds.clone().filter(|second| (since..until).contains(second)).take(10).collect();
        let offset = number(asked, "offset").expect("an offset") as usize;
        let page: Vec<Value> = found.iter().skip(offset).take(5).map(|s| json!({"id": s, "at": s})).collect();
        reply(json!({"total": found.len(), "data": page}))
    }
}

fn window(since: i64, until: i64) -> Part {
    use syncline_engine::model::Timestamp;
    Part::Incremental { since: Timestamp::from_seconds(since), until: Timestamp::from_seconds(until) }
}

#[tokio::test]
async fn a_window_with_too_many_results_is_halved_until_none_is_cut() {
    let bench = Bench::new(SEARCH, capped(100..163)).await;
    let read = bench.read(window(0, 1_000)).await;
    let mut ids: Vec<u64> = read.ids().iter().map(|id| id.parse().expect("a number")).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids, (100..163).collect::<Vec<u64>>());
    assert_eq!(read.end.expect("an end").doubts, Vec::<String>::new());
}

#[tokio::test]
async fn halving_goes_on_in_another_process() {
    let bench = Bench::new(SEARCH, capped(100..140)).await;
    let (mut next, mut ids) = (None, std::collections::BTreeSet::new());
    loop {
        let step = bench.restarted().read_pages(window(0, 1_000), next.clone(), 1).await;
        assert!(step.failed.is_none(), "{:?}", step.failed);
        ids.extend(step.ids());
        next = step.next;
        if next.is_none() {
            break;
        }
    }
    assert_eq!(ids.len(), 40);
}

#[tokio::test]
async fn a_window_that_cannot_be_halved_fails_instead_of_losing_results() {
    let crowded = |asked: &Asked| {
        let offset = number(asked, "offset").expect("an offset");
        let page: Vec<Value> = (offset..(offset + 5).min(10)).map(|id| json!({"id": id, "at": 1})).collect();
        reply(json!({"total": 10, "data": page}))
    };
    let bench = Bench::new(SEARCH, crowded).await;
    assert_eq!(bench.read(window(0, 1_000)).await.failure().code, "window_cap");
}

// --- partitions ---

fn repo_listing(partition: &str, rest: &str) -> String {
    let source = format!("partitions: {{repo: {partition}}}\n{rest}");
    let stream = "  deletes: [{from_full_list: true, confirm: none}]";
    with(&source, "{get: '/repos/{{ partition.repo | path }}/things', paginate: {page: page}}", stream)
        .replace("key: .id", "key: [$partition.repo, .id]")
}

fn by_repo(asked: &Asked) -> Reply {
    let known = asked.path.contains("/octo/a/") || asked.path.contains("/octo/b/");
    match (known, number(asked, "page")) {
        (true, Some(page)) if page <= 2 => reply(things([page])),
        _ => reply(json!([])),
    }
}

#[tokio::test]
async fn fixed_partitions_are_listed_one_after_the_other() {
    let (read, asked) = read(&repo_listing("{values: [octo/a, octo/b]}", ""), by_repo).await;
    assert_eq!(read.ids(), ["[\"octo/a\",1]", "[\"octo/a\",2]", "[\"octo/b\",1]", "[\"octo/b\",2]"]);
    assert_eq!(asked[0].path, "/v1/repos/octo/a/things");
    assert_eq!(read.end.expect("an end").confirm, Confirm::None);
}

#[tokio::test]
async fn partitions_come_from_metadata_or_are_the_connections_own() {
    let definition = repo_listing("{metadata: github.repos}", "");
    let bench = Bench::new(&definition, by_repo).await;
    assert_eq!(bench.read(Part::Full).await.failure().code, "missing_value");
    let bench = bench.metadata(json!({"github": {"repos": ["octo/b", "octo/b"]}}));
    assert_eq!(bench.read(Part::Full).await.ids().len(), 2, "each value once");
    let bench =
        bench.partitions(BTreeMap::from([("repo".to_string(), vec!["octo/a".to_string(), "octo/b".to_string()])]));
    assert_eq!(bench.read(Part::Full).await.ids().len(), 4);
}

#[tokio::test]
async fn partitions_come_from_a_request_of_their_own() {
    let partition = "{request: {get: /repos, paginate: link}, key: .name}";
    let provider = |asked: &Asked| match (asked.path.as_str(), number(asked, "p")) {
        ("/v1/repos", None) => reply(json!([{"name": "octo/a"}])).with("link", "<?p=2>; rel=next"),
        ("/v1/repos", _) => reply(json!([{"name": "octo/b"}])),
        _ => by_repo(asked),
    };
    let (read, asked) = read(&repo_listing(partition, ""), provider).await;
    assert_eq!((read.ids().len(), asked.len()), (4, 8));
    assert_eq!(read.pages.iter().map(|page| page.requests).sum::<u32>(), 8, "all are counted");
}

#[tokio::test]
async fn partitions_come_from_the_records_of_another_stream() {
    let definition = repo_listing("{stream: Repo, key: .name, max: 2}", "")
        .replace("streams:\n", "streams:\n- {name: Repo, key: .id, list: {get: /repos}}\n");
    let bench = Bench::new(&definition, by_repo).await;
    bench.notes.put_records("Repo", vec![json!({"id": "1", "name": "octo/a"}), json!({"id": "2", "name": "octo/b"})]);
    assert_eq!(bench.read(Part::Full).await.ids().len(), 4);
    bench.notes.put_records("Repo", (0..3).map(|n| json!({"id": n, "name": format!("r/{n}")})).collect());
    assert_eq!(bench.read(Part::Full).await.failure().code, "too_many_partitions");
    bench.notes.put_records("Repo", vec![]);
    let none = bench.read(Part::Full).await.end.expect("an end");
    assert!(none.doubts[0].starts_with("no_partitions"), "no parents yet is no reason to delete all children");
}

#[tokio::test]
async fn records_of_a_vanished_partition_are_kept_unless_they_are_to_go() {
    let confirm = |on_remove: &'static str| async move {
        let definition = repo_listing(&format!("{{metadata: repos{on_remove}}}"), "");
        let bench = Bench::new(&definition, by_repo).await.metadata(json!({"repos": ["octo/a", "octo/b"]}));
        assert_eq!(bench.read(Part::Full).await.end.expect("an end").confirm, Confirm::None);
        let fewer = bench.metadata(json!({"repos": ["octo/a"]}));
        fewer.read(Part::Full).await.end.expect("an end").confirm
    };
    assert_eq!(confirm("").await, Confirm::Never);
    assert_eq!(confirm(", on_remove: delete").await, Confirm::None);
}

#[tokio::test]
async fn partitioned_listings_go_on_where_they_were() {
    let bench = Bench::new(&repo_listing("{values: [octo/a, octo/b]}", ""), by_repo).await;
    let (mut next, mut ids) = (None, Vec::new());
    loop {
        let step = bench.restarted().read_pages(Part::Full, next.clone(), 1).await;
        assert!(step.failed.is_none(), "{:?}", step.failed);
        ids.extend(step.ids());
        next = step.next.clone();
        if let Some(end) = step.end {
            assert_eq!(end.doubts, Vec::<String>::new());
            break;
        }
    }
    assert_eq!(ids.len(), 4);
}

// --- items ---

#[tokio::test]
async fn items_that_cannot_be_taken_are_kept_aside_with_their_reason() {
    let stream = "  modified_at: .at\n  map: {id: .id, n: '.n | tonumber'}\n";
    let items = json!([
        {"id": 1, "at": "2026-01-01T00:00:00Z", "n": "5"},
        {"id": null, "n": "1"},
        {"id": [1], "n": "1"},
        {"id": 2, "at": "yesterday", "n": "1"},
        {"id": 3, "n": "x"},
        "text",
    ]);
    let (read, _) = read(&with("", "{get: /q}", stream), move |_| reply(items.clone())).await;
    assert_eq!(read.ids(), ["1"]);
    let reasons: Vec<(&str, Option<&str>)> =
        read.pages[0].quarantined.iter().map(|q| (q.code, q.id.as_deref())).collect();
    let expected = [
        ("bad_key", None),
        ("bad_key", None),
        ("bad_time", Some("2")),
        ("bad_expression", Some("3")),
        ("bad_key", None),
    ];
    assert_eq!(reasons, expected);
    assert_eq!(read.pages[0].quarantined[4].item, "\"text\"");
}

#[tokio::test]
async fn records_keep_exact_numbers_and_carry_their_id_as_text() {
    let body =
        r#"[{"id": 12345678901234567890, "amount": 0.1000000000000000055, "big": 123456789012345678901234567890}]"#;
    let (read, _) = read(&listing("{get: /q}"), move |_| Reply::text(200, body)).await;
    let Body::Whole(text) = &read.pages[0].observations[0].body else { panic!("a whole record") };
    let expected =
        r#"{"id":"12345678901234567890","amount":0.1000000000000000055,"big":123456789012345678901234567890}"#;
    assert_eq!(text, expected);
}

#[tokio::test]
async fn reserved_fields_and_records_that_are_no_objects_are_refused() {
    for (map, code) in [("{id: .id, _x: 1}", None), (".name", Some("not_an_object")), (".", Some("reserved_field"))] {
        let item = json!([{"id": 1, "name": "x", "_nango_metadata": {}}]);
        let (read, _) = read(&with("", "{get: /q}", &format!("  map: {map}")), move |_| reply(item.clone())).await;
        assert_eq!(read.pages[0].quarantined.first().map(|q| q.code), code, "{map}");
    }
}

#[tokio::test]
async fn times_from_the_future_are_cut_back_to_the_answers_own() {
    let provider = |_: &Asked| {
        let items = json!([{"id": 1, "at": "1994-11-06T09:49:37Z"}, {"id": 2, "at": "1994-11-06T08:50:00Z"}]);
        reply(items).with("date", "Sun, 06 Nov 1994 08:49:37 GMT")
    };
    let (read, _) = read(&with("", "{get: /q}", "  modified_at: .at"), provider).await;
    let times: Vec<_> = read.pages[0].observations.iter().map(|seen| seen.modified_at).collect();
    assert_eq!(times, [Some(at("1994-11-06T08:49:37Z")), Some(at("1994-11-06T08:50:00Z"))]);
}

#[tokio::test]
async fn an_item_may_say_of_itself_that_it_is_deleted() {
    let stream = "  modified_at: .at\n  deletes: [{flag: .archived, at: .gone}]";
    let items = json!([{"id": 1, "at": 100, "archived": true, "gone": 200}, {"id": 2, "at": 100, "archived": false}]);
    let (read, _) = read(&with("", "{get: /q}", stream), move |_| reply(items.clone())).await;
    let seen = &read.pages[0].observations;
    assert_eq!(seen[0].body, Body::Gone { deleted_at: Some(at("1970-01-01T00:03:20Z")) });
    assert_eq!(seen[0].modified_at, Some(at("1970-01-01T00:03:20Z")), "the delete wins over the version it deletes");
    assert!(matches!(seen[1].body, Body::Whole(_)));
}

#[tokio::test]
async fn records_are_checked_against_their_schema() {
    let schema = |on_invalid: &str| {
        format!(
            "  on_invalid: {on_invalid}\n  schema: {{type: object, properties: {{id: {{type: string}}, n: {{type: integer}}}}}}"
        )
    };
    for (on_invalid, taken, warned, refused) in [("warn", 2, 1, 0), ("quarantine", 1, 0, 1), ("off", 2, 0, 0)] {
        let items = json!([{"id": 1, "n": 1}, {"id": 2, "n": "x"}]);
        let (read, _) = read(&with("", "{get: /q}", &schema(on_invalid)), move |_| reply(items.clone())).await;
        let page = &read.pages[0];
        assert_eq!((page.observations.len(), page.warnings.len(), page.quarantined.len()), (taken, warned, refused));
    }
}

// --- deleted records, fetch ---

#[tokio::test]
async fn listings_of_deleted_records_give_deletes_with_a_clock() {
    let stream = "  modified_at: .at\n  deletes: [{key: .id, at: .gone, list: {get: /deleted, params: {since: '{{ since | epoch_s }}'}}}]";
    let bench = Bench::new(&with("", "{get: /q}", stream), |asked| {
        assert_eq!((asked.path.as_str(), asked.raw_query.as_str()), ("/v1/deleted", "since=50"));
        reply(json!([{"id": 1, "gone": 100}, {"id": 2}, {}]))
    })
    .await;
    let part = Part::Deletes { index: 0, since: at("1970-01-01T00:00:50Z"), until: at("1970-01-02T00:00:00Z") };
    let read = bench.read(part).await;
    let seen = &read.pages[0].observations;
    assert_eq!(seen[0].body, Body::Gone { deleted_at: Some(at("1970-01-01T00:01:40Z")) });
    assert_eq!(seen[0].modified_at, Some(at("1970-01-01T00:01:40Z")));
    assert!(seen[1].modified_at.is_some(), "without a time of its own the answer's, or it would lose to every version");
    assert_eq!(read.pages[0].quarantined[0].code, "bad_key");
}

const FETCH: &str = "  fetch: {get: '/things/{{ key }}', where: '.hidden | not'}";

fn one_thing(asked: &Asked) -> Reply {
    match asked.path.as_str() {
        "/v1/things/1" => reply(json!({"id": 1, "n": 1})),
        "/v1/things/2" => reply(json!({"id": 2, "hidden": true})),
        "/v1/things/a%2Fb" => reply(json!({"id": "a/b"})),
        "/v1/things/500" => reply(json!({})).status(500),
        _ => reply(json!({})).status(404),
    }
}

#[tokio::test]
async fn fetch_reads_records_by_key() {
    let bench = Bench::new(&with("", "{get: /q}", FETCH), one_thing).await;
    let hint = window(0, 0);
    let page = bench.fetch(hint, &["1", "a/b", "3"]).await.expect("answers");
    let ids: Vec<&str> = page.observations.iter().map(|seen| seen.id.as_str()).collect();
    assert_eq!((ids, page.requests), (vec!["1", "a/b"], 3), "not found is ignored unless it is declared a delete");
    assert!(bench.fetch(hint, &["500"]).await.expect_err("fails").retry);
    let deletes =
        Bench::new(&with("", "{get: /q}", &FETCH.replace("where", "not_found: delete, where")), one_thing).await;
    let page = deletes.fetch(hint, &["3"]).await.expect("answers");
    assert!(matches!(page.observations[0].body, Body::Gone { .. }));
}

#[tokio::test]
async fn a_missing_key_is_confirmed_by_what_fetch_says() {
    let bench = Bench::new(&with("", "{get: /q}", FETCH), one_thing).await;
    let page = bench.fetch(Part::Full, &["1", "2", "3"]).await.expect("answers");
    let gone = |id: &str| {
        let seen = page.observations.iter().find(|seen| seen.id == id).expect("an answer for each");
        matches!(seen.body, Body::Gone { .. })
    };
    assert_eq!(
        (gone("1"), gone("2"), gone("3")),
        (false, true, true),
        "one that is not of this stream is gone from it"
    );
}

#[tokio::test]
async fn fetch_takes_keys_in_batches() {
    let stream = "  fetch: {post: /batch, batch: 2, body: {ids: '{{ keys }}'}, items: .found}";
    let bench = Bench::new(&with("", "{get: /q}", stream), |asked| {
        let ids = asked.body["ids"].as_array().expect("a list of keys").clone();
        let found: Vec<Value> = ids.iter().filter(|id| *id != "2").map(|id| json!({"id": id})).collect();
        reply(json!({"found": found}))
    })
    .await;
    let page = bench.fetch(Part::Full, &["1", "2", "3"]).await.expect("answers");
    assert_eq!((page.requests, page.observations.len()), (2, 3));
    assert_eq!(page.observations.iter().filter(|seen| matches!(seen.body, Body::Gone { .. })).count(), 1);
}

#[tokio::test]
async fn with_partitions_a_record_is_gone_only_if_every_list_says_so() {
    let definition = repo_listing("{values: [octo/a, octo/b]}", "")
        .replace("[$partition.repo, .id]", ".id")
        .replace("  deletes:", "  fetch: {get: '/repos/{{ partition.repo | path }}/things/{{ key }}'}\n  deletes:");
    let bench = Bench::new(&definition, |asked| match asked.path.as_str() {
        "/v1/repos/octo/b/things/1" => reply(json!({"id": 1})),
        _ => reply(json!({})).status(404),
    });
    let page = bench.await.fetch(Part::Full, &["1", "2"]).await.expect("answers");
    let gone: Vec<(&str, bool)> =
        page.observations.iter().map(|seen| (seen.id.as_str(), matches!(seen.body, Body::Gone { .. }))).collect();
    assert_eq!(gone, [("1", false), ("2", true)]);
}

#[tokio::test]
async fn a_sign_in_is_proven_and_tells_about_the_account() {
    let auth = "auth: {type: bearer, token: 'env:TOKEN', test: {get: /me}, connection_fields: {portal: .hub}}";
    let bench = Bench::new(&with(auth, "{get: /q}", ""), |asked| match asked.path.as_str() {
        "/v1/me" => reply(json!({"hub": 7})),
        _ => reply(json!({})).status(404),
    })
    .await;
    assert_eq!(bench.check().await.expect("signed in"), Some(json!({"portal": 7})));
    let refused: Provider = Provider::start(|_| reply(json!({})).status(401)).await;
    let bench = Bench::over(&with(auth, "{get: /q}", ""), refused, true);
    assert_eq!(bench.check().await.expect_err("refused").status, Some(401));
}
