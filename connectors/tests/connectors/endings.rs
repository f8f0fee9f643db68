//! Where a list ends: each statement an API can make about it, what it proves, and what a contradiction does. The table is
//! that of `docs/semantics.md`.

use crate::provider::{Asked, Bench, Read, Reply, reply};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicUsize, Ordering};
use syncline_engine::source::{Body, Confirm, Part};

/// A stream whose list is `list`, with what may stand above it.
fn define(source: &str, list: &str) -> String {
    format!(
        "source: acme\nbase_url: https://api.acme.example\n{source}\nstreams:\n- name: Thing\n  key: .id\n  list: {list}\n  \
         deletes: [{{from_full_list: true, confirm: none}}]\n"
    )
}

/// A page with these ids, and what else it says.
fn page(ids: &[u64], says: Value) -> Reply {
    let mut body = json!({"data": ids.iter().map(|id| json!({"id": id})).collect::<Vec<_>>()});
    body.as_object_mut().expect("a map").extend(says.as_object().expect("a map").clone());
    reply(body)
}

/// Reads a list whose n-th request is answered by the n-th page, and each one after the last by an empty page that says
/// nothing. Gives what was read, and how many requests it took.
async fn read(definition: &str, pages: &[Reply]) -> (Read, usize) {
    let (pages, asked) = (pages.to_vec(), AtomicUsize::new(0));
    let answer = move |_: &Asked| {
        let at = asked.fetch_add(1, Ordering::SeqCst);
        pages.get(at).cloned().unwrap_or_else(|| page(&[], json!({})))
    };
    let bench = Bench::new(definition, answer).await;
    let read = bench.read(Part::Full).await;
    (read, bench.provider.asked().len())
}

/// How a list ended: the code of its failure, or the codes of its doubts.
fn ending(read: &Read) -> Vec<String> {
    match (&read.failed, &read.end) {
        (Some(failure), _) => vec![format!("failed: {}", failure.code)],
        (None, end) => {
            let doubts = &end.as_ref().expect("an end").doubts;
            doubts.iter().map(|doubt| doubt.split(':').next().unwrap_or_default().to_string()).collect()
        }
    }
}

/// One row of the table: what the list is read by, its pages, how many requests are made, and what speaks against it.
struct Row {
    name: &'static str,
    list: &'static str,
    pages: Vec<Reply>,
    asked: usize,
    doubts: &'static [&'static str],
}

fn row(
    name: &'static str,
    list: &'static str,
    pages: Vec<Reply>,
    asked: usize,
    doubts: &'static [&'static str],
) -> Row {
    Row { name, list, pages, asked, doubts }
}

async fn check(rows: Vec<Row>) {
    for Row { name, list, pages, asked, doubts } in rows {
        let (read, requests) = read(&define("", list), &pages).await;
        assert_eq!((ending(&read), requests), (doubts.iter().map(|d| d.to_string()).collect(), asked), "{name}");
    }
}

const LAST: &str = "{get: /q, items: .data, paginate: {page: page, last: .pages}}";

#[tokio::test]
async fn the_number_of_the_last_page() {
    let says = |pages: u64| json!({"pages": pages});
    check(vec![
        row("agrees", LAST, vec![page(&[1, 2], says(2)), page(&[3], says(2))], 2, &[]),
        row(
            "lies beyond an empty page: the pages behind it are asked for",
            LAST,
            vec![page(&[1, 2], says(3)), page(&[], says(3)), page(&[5, 6], says(3))],
            3,
            &["end_mismatch"],
        ),
        row("is that of an empty page", LAST, vec![page(&[1, 2], says(2)), page(&[], says(2))], 2, &["empty_page"]),
        row("of the list of nothing is 1", LAST, vec![page(&[], says(1))], 1, &[]),
        row("of the list of nothing is 0", LAST, vec![page(&[], says(0))], 1, &[]),
        row("rises", LAST, vec![page(&[1], says(2)), page(&[2], says(3)), page(&[3], says(3))], 3, &[]),
        row(
            "falls: what the greater one promised is asked for",
            LAST,
            vec![page(&[1], says(3)), page(&[2], says(2)), page(&[3], says(3))],
            3,
            &["end_mismatch"],
        ),
        row(
            "is less than the page it stands on",
            LAST,
            vec![page(&[1], json!({})), page(&[2], says(1))],
            2,
            &["end_mismatch"],
        ),
        row(
            "is far beyond: three pages without items are enough",
            LAST,
            vec![page(&[1], says(900)), page(&[], says(900)), page(&[], says(900)), page(&[], says(900))],
            4,
            &["end_mismatch", "end_mismatch", "end_mismatch"],
        ),
        row("cannot be read", LAST, vec![page(&[1], json!({"pages": true}))], 2, &["bad_last"]),
        row("is missing", LAST, vec![page(&[1], json!({"pages": null}))], 2, &[]),
    ])
    .await;
}

const TOTAL: &str = "{get: /q, items: .data, total: .total, paginate: {page: page}}";
const TOTAL_OFFSET: &str = "{get: /q, items: .data, total: .total, paginate: {offset: skip, size: 2}}";
const TOTAL_CURSOR: &str = "{get: /q, items: .data, total: .total, paginate: {cursor: .next, param: after}}";

#[tokio::test]
async fn the_total() {
    let says = |total: u64| json!({"total": total});
    let next = |total: u64, next: Value| json!({"total": total, "next": next});
    check(vec![
        row("agrees", TOTAL, vec![page(&[1, 2], says(3)), page(&[3], says(3))], 2, &[]),
        row("lies beyond an empty page", TOTAL, vec![page(&[1, 2], says(3))], 2, &["total_mismatch"]),
        row(
            "lies beyond us, by offset",
            TOTAL_OFFSET,
            vec![page(&[1, 2], says(4)), page(&[], says(4))],
            2,
            &["total_mismatch"],
        ),
        row(
            "lies beyond the last token",
            TOTAL_CURSOR,
            vec![page(&[1], next(3, json!("a"))), page(&[2], next(3, Value::Null))],
            2,
            &["total_mismatch"],
        ),
        row(
            "is less than what was read",
            TOTAL_CURSOR,
            vec![page(&[1], next(1, json!("a"))), page(&[2], next(1, Value::Null))],
            2,
            &["total_mismatch"],
        ),
        row("rises", TOTAL, vec![page(&[1, 2], says(3)), page(&[3, 4], says(4))], 2, &[]),
        row("cannot be read", TOTAL, vec![page(&[1], json!({"total": {"value": 1}}))], 2, &["bad_total"]),
        row("is negative", TOTAL, vec![page(&[1], json!({"total": -1}))], 2, &["bad_total"]),
        row("is text", TOTAL, vec![page(&[1], json!({"total": "1"}))], 1, &[]),
    ])
    .await;
}

#[tokio::test]
async fn a_total_that_falls_needs_a_second_look_in_which_it_stands() {
    let list = "{get: /q, items: .data, total: .total, paginate: {page: page}}";
    let falls = [page(&[1], json!({"total": 3})), page(&[2], json!({"total": 2}))];
    let (read_once, _) = read(&define("", list), &falls).await;
    let end = read_once.end.expect("an end");
    assert_eq!((end.doubts, end.confirm), (vec![], Confirm::Twice), "`confirm: none` is not enough then");
    let twice = |second: [Reply; 2]| async move {
        let pages: Vec<Reply> =
            [page(&[1], json!({"total": 3})), page(&[2], json!({"total": 2}))].into_iter().chain(second).collect();
        let asked = AtomicUsize::new(0);
        let bench = Bench::new(&define("", list), move |_| pages[asked.fetch_add(1, Ordering::SeqCst)].clone()).await;
        bench.read(Part::Full).await;
        ending(&bench.restarted().read(Part::Full).await)
    };
    assert_eq!(twice([page(&[1], json!({"total": 2})), page(&[2], json!({"total": 2}))]).await, Vec::<String>::new());
    assert_eq!(twice([page(&[1], json!({"total": 3})), page(&[2], json!({"total": 2}))]).await, ["total_fell"]);
}

const MORE: &str = "{get: /q, items: .data, paginate: {page: page, more: .more}}";
const MORE_OFFSET: &str = "{get: /q, items: .data, paginate: {offset: skip, size: 2, more: .more}}";
const MORE_CURSOR: &str = "{get: /q, items: .data, paginate: {cursor: .next, param: after, more: .more}}";
const MORE_LAST: &str = "{get: /q, items: .data, paginate: {page: page, more: .more, last: .pages}}";
const MORE_TOTAL: &str = "{get: /q, items: .data, total: .total, paginate: {page: page, more: .more}}";

#[tokio::test]
async fn the_flag_that_more_follows() {
    let says = |more: Value| json!({"more": more});
    let (yes, no) = (|| says(json!(true)), || says(json!(false)));
    let mut rows = Vec::new();
    for (style, list) in [("page", MORE), ("offset", MORE_OFFSET)] {
        rows.push(row(style, list, vec![page(&[1, 2], yes()), page(&[3], no())], 2, &[]));
        rows.push(row(
            "more, but no items",
            list,
            vec![page(&[1, 2], yes()), page(&[], yes()), page(&[5], no())],
            3,
            &["end_mismatch"],
        ));
        rows.push(row(
            "more for ever",
            list,
            vec![page(&[1, 2], yes()), page(&[], yes()), page(&[], yes()), page(&[], yes())],
            4,
            &["end_mismatch", "end_mismatch", "end_mismatch"],
        ));
        for nothing in [json!(null), json!(""), json!(" ")] {
            rows.push(row("says nothing: the empty page ends it", list, vec![page(&[1, 2], says(nothing))], 2, &[]));
        }
    }
    for no in [json!(false), json!(0), json!("false"), json!("0"), json!("False")] {
        rows.push(row("no", MORE, vec![page(&[1], says(json!(1))), page(&[2], says(no.clone()))], 2, &[]));
        let last = json!({"more": no, "next": "b"});
        let first = json!({"more": "true", "next": "a"});
        rows.push(row("no, whatever the token", MORE_CURSOR, vec![page(&[1], first), page(&[2], last)], 2, &[]));
    }
    for neither in [json!("maybe"), json!(2), json!([]), json!({}), json!("no")] {
        for list in [MORE, MORE_OFFSET, MORE_CURSOR] {
            let says = json!({"more": neither, "next": "a"});
            rows.push(row("neither yes nor no", list, vec![page(&[1], says)], 1, &["failed: bad_more"]));
        }
    }
    rows.push(row(
        "no, but `last` knows another page",
        MORE_LAST,
        vec![page(&[1], json!({"more": false, "pages": 2})), page(&[2], json!({"more": false, "pages": 2}))],
        2,
        &["end_mismatch"],
    ));
    rows.push(row(
        "yes, but the total is reached",
        MORE_TOTAL,
        vec![page(&[1], json!({"more": true, "total": 1})), page(&[2], json!({"more": false, "total": 1}))],
        2,
        &["end_mismatch", "total_mismatch"],
    ));
    rows.push(row(
        "no, but the total is not reached",
        MORE_TOTAL,
        vec![page(&[1], json!({"more": false, "total": 2}))],
        1,
        &["total_mismatch"],
    ));
    check(rows).await;
}

#[tokio::test]
async fn next_links_and_tokens() {
    const CURSOR: &str = "{get: /q, items: .data, paginate: {cursor: .next, param: after}}";
    const LENIENT: &str = "{get: /q, items: .data, paginate: {cursor: .next, param: after, empty_pages: true}}";
    const LINK: &str = "{get: /q, items: .data, paginate: {link: .next}}";
    const ONE: &str = "{get: /q, items: .data}";
    const PAGE: &str = "{get: /q, items: .data, paginate: {page: page}}";
    let next = |next: Value| json!({"next": next});
    let linked = |reply: Reply| reply.with("link", "</q?p=9>; rel=\"next\"");
    check(vec![
        row("token", CURSOR, vec![page(&[1], next(json!("a"))), page(&[2], next(json!(null)))], 2, &[]),
        row("no link", LINK, vec![page(&[1], next(json!("/q?p=2"))), page(&[2], next(json!(false)))], 2, &[]),
        row(
            "an empty page in between",
            CURSOR,
            vec![page(&[1], next(json!("a"))), page(&[], next(json!("b"))), page(&[2], json!({}))],
            3,
            &["empty_page"],
        ),
        row(
            "an empty page in between, where they are usual",
            LENIENT,
            vec![page(&[1], next(json!("a"))), page(&[], next(json!("b"))), page(&[2], json!({}))],
            3,
            &[],
        ),
        row("an empty page at the end", CURSOR, vec![page(&[1], next(json!("a"))), page(&[], json!({}))], 2, &[]),
        row(
            "a `Link` header where tokens are the way on",
            CURSOR,
            vec![page(&[1], next(json!("a"))), linked(page(&[2], json!({})))],
            2,
            &["end_mismatch"],
        ),
        row("a `Link` header where one page is all", ONE, vec![linked(page(&[1], json!({})))], 1, &["end_mismatch"]),
        row(
            "a `Link` header on an empty page",
            PAGE,
            vec![page(&[1], json!({})), linked(page(&[], json!({}))), page(&[3], json!({}))],
            4,
            &["end_mismatch"],
        ),
        row(
            "a page that brings the one before it again",
            CURSOR,
            vec![page(&[1, 2], next(json!("a"))), page(&[2, 1], next(json!("b"))), page(&[3], json!({}))],
            3,
            &["repeated_page"],
        ),
    ])
    .await;
}

#[tokio::test]
async fn the_status_of_an_answer() {
    let list = "{get: /q, items: .data, paginate: {page: page}}";
    let rule = |status: u16, action: &str| format!("responses: [{{status: {status}, do: {action}}}]");
    for status in [202, 206, 207, 226] {
        let pages = [page(&[1], json!({})), page(&[2], json!({})).status(status)];
        let (part, _) = read(&define("", list), &pages).await;
        assert_eq!((part.ids().len(), ending(&part)), (2, vec!["partial_answer".to_string()]), "{status}");
        let (whole, _) = read(&define(&rule(status, "take"), list), &pages).await;
        assert_eq!(ending(&whole), Vec::<String>::new(), "{status} taken for a whole answer");
    }
    for status in [202, 204, 205] {
        let pages = [page(&[1], json!({})), Reply::text(status, "")];
        let (part, asked) = read(&define("", list), &pages).await;
        assert_eq!((ending(&part), asked), (vec!["partial_answer".to_string()], 2), "{status}");
        let (empty, _) = read(&define(&rule(status, "ignore"), list), &pages).await;
        assert_eq!(ending(&empty), Vec::<String>::new(), "{status} counts as an empty page");
    }
    for status in [200, 201, 203] {
        assert_eq!(
            ending(&read(&define("", list), &[page(&[1], json!({})).status(status)]).await.0),
            Vec::<String>::new()
        );
    }
    // A page that a rule counts as empty meets what was stated before.
    let last = "{get: /q, items: .data, paginate: {page: page, last: .pages}}";
    let pages = [page(&[1], json!({"pages": 3})), Reply::text(410, ""), page(&[3], json!({"pages": 3}))];
    let (ignored, asked) = read(&define(&rule(410, "ignore"), last), &pages).await;
    assert_eq!((ending(&ignored), asked), (vec!["end_mismatch".to_string()], 3));
}

#[tokio::test]
async fn a_fetch_that_states_more_than_it_brought_calls_nothing_gone() {
    let found = || page(&[1], json!({}));
    let cases = [
        ("whole", found(), 1),
        ("counts more", page(&[1], json!({"total": 2})), 0),
        ("counts what it has", page(&[1], json!({"total": 1})), 1),
        ("is a part", found().status(206), 0),
        ("is not there yet", Reply::text(202, ""), 0),
        ("has a next page", found().with("link", "<?p=2>; rel=next"), 0),
        ("counts nothing readable", page(&[1], json!({"total": "some"})), 0),
    ];
    for (name, answer, gone) in cases {
        let fetch = "fetch: {get: /q, params: {ids: '{{ keys }}'}, items: .data, total: .total}\n  deletes";
        let definition = define("", "{get: /q}").replace("deletes", fetch);
        let bench = Bench::new(&definition, move |_| answer.clone()).await;
        let seen = bench.fetch(Part::Full, &["1", "2"]).await.expect("an answer").observations;
        let found_gone = seen.iter().filter(|seen| matches!(seen.body, Body::Gone { .. })).count();
        assert_eq!(found_gone, gone, "{name}");
    }
}

#[tokio::test]
async fn a_list_of_partitions_that_is_not_proven_fails_the_run() {
    let partition = |request: &str| {
        let partitions = format!("partitions: {{repo: {{request: {request}, key: .name}}}}");
        define(&partitions, "{get: '/repos/{{ partition.repo }}'}")
    };
    let names = |names: &[&str], says: Value| {
        let mut body =
            json!({"data": names.iter().map(|name| json!({"name": name, "ours": *name != "c"})).collect::<Vec<_>>()});
        body.as_object_mut().expect("a map").extend(says.as_object().expect("a map").clone());
        reply(body)
    };
    const PAGED: &str =
        "{get: /repos, items: .data, where: .ours, total: .total, paginate: {page: page, last: .pages}}";
    let cases = [
        ("proven", vec![names(&["a"], json!({"pages": 2})), names(&["b", "c"], json!({"pages": 2}))], None),
        ("an empty page", vec![names(&["a"], json!({"pages": 2})), names(&[], json!({"pages": 2}))], Some(false)),
        ("a total", vec![names(&["a"], json!({"pages": 1, "total": 2}))], Some(false)),
        ("a part", vec![names(&["a"], json!({"pages": 1})).status(206)], Some(false)),
        (
            "a total that falls",
            vec![names(&["a"], json!({"total": 3})), names(&["b"], json!({"total": 2}))],
            Some(true),
        ),
    ];
    for (name, pages, fails) in cases {
        let asked = AtomicUsize::new(0);
        let answer = move |request: &Asked| match request.path.as_str() {
            "/repos" => pages[asked.fetch_add(1, Ordering::SeqCst)].clone(),
            path => reply(json!([{"id": path}])),
        };
        let read = Bench::new(&partition(PAGED), answer).await.read(Part::Full).await;
        match fails {
            None => assert_eq!(read.ids(), ["/repos/a", "/repos/b"], "{name}"),
            Some(retry) => assert_eq!((read.failure().code, read.failure().retry), ("bad_partition", retry), "{name}"),
        }
    }
}

#[tokio::test]
async fn short_pages() {
    const ENDS: &str = "{get: /q, items: .data, paginate: {page: page, size: 2, short_page_ends: true, more: .more}}";
    const OPEN: &str = "{get: /q, items: .data, paginate: {page: page}}";
    check(vec![
        row("end it where the definition says so", ENDS, vec![page(&[1, 2], json!({})), page(&[3], json!({}))], 2, &[]),
        row("do not end it otherwise", OPEN, vec![page(&[1, 2], json!({})), page(&[3], json!({}))], 3, &[]),
        row(
            "do not end it where more is said to follow",
            ENDS,
            vec![page(&[1], json!({"more": true})), page(&[3], json!({"more": false}))],
            2,
            &["end_mismatch"],
        ),
    ])
    .await;
}

#[tokio::test]
async fn an_empty_page_is_no_end_where_items_may_have_emptied_it() {
    const SELECTS: &str = "{get: /q, items: '.data[] | select(.mine)', paginate: {page: page}}";
    const LAST: &str = "{get: /q, items: '.data[] | select(.mine)', paginate: {page: page, last: .pages}}";
    const WHERE: &str = "{get: /q, items: .data, where: .mine, paginate: {page: page}}";
    let of = |id: u64, mine: bool| reply(json!({"data": [{"id": id, "mine": mine}], "pages": 3}));
    let pages = [of(1, true), of(2, false), of(3, true)];
    for (list, asked, doubts) in
        [(SELECTS, 6, vec!["filtered_page"]), (LAST, 3, vec!["end_mismatch"]), (WHERE, 4, vec![])]
    {
        let (read, requests) = read(&define("", list), &pages).await;
        assert_eq!(
            (read.ids(), ending(&read), requests),
            (vec!["1".into(), "3".into()], doubts.iter().map(|d| d.to_string()).collect(), asked),
            "{list}"
        );
    }
}

#[tokio::test]
async fn statements_in_headers_count_like_those_in_the_body() {
    let next = "{get: /q, items: .data, paginate: {link: '$h[\"next-page\"]'}}";
    let pages = [page(&[1], json!({})).with("Next-Page", "/q?_token=2"), page(&[2], json!({}))];
    let (by_link, asked) = read(&define("", next), &pages).await;
    assert_eq!((by_link.ids().len(), ending(&by_link), asked), (2, vec![], 2), "Kinto pages by a header of its own");
    let token = "{get: /q, items: .data, paginate: {cursor: '$h[\"x-next-page\"]', param: page}}";
    let pages = [page(&[1], json!({})).with("X-Next-Page", "2"), page(&[2], json!({})).with("X-Next-Page", "")];
    assert_eq!(read(&define("", token), &pages).await.0.ids().len(), 2);
    let more = "{get: /q, items: .data, paginate: {page: page, more: '$h[\"x-more\"]'}}";
    let pages = [page(&[1], json!({})).with("X-More", "true"), page(&[2], json!({})).with("X-More", "0")];
    assert_eq!(read(&define("", more), &pages).await.1, 2);
    let counted =
        "{get: /q, items: .data, total: '$h[\"x-total\"]', paginate: {page: page, last: '$h[\"x-wp-totalpages\"]'}}";
    let says = |page: Reply, total: &str, pages: &str| page.with("X-Total", total).with("X-WP-TotalPages", pages);
    for (total, last, doubts) in
        [("2", "2", vec![]), ("3", "2", vec!["total_mismatch"]), ("about 2", "2", vec!["bad_total"])]
    {
        let pages = [says(page(&[1], json!({})), total, last), says(page(&[2], json!({})), total, last)];
        let (read, asked) = read(&define("", counted), &pages).await;
        assert_eq!((ending(&read), asked), (doubts.iter().map(|d| d.to_string()).collect(), 2), "{total} {last}");
    }
    let items = "{get: /q, items: '[.data[] | {id, of: $h[\"x-account\"]}]', where: '$h[\"x-account\"] == \"a\"'}";
    let (read, _) = read(&define("", items), &[page(&[1], json!({})).with("X-Account", "a")]).await;
    assert_eq!(read.ids(), ["1"]);
}
