//! Recordings against functions, through the same doors as the command line.

use serde_json::{Value, json};
use sha1::{Digest, Sha1};
use std::fs;
use std::path::Path;
use syncline_runtime::Functions;
use syncline_runtime::mocks::{Mocks, Replay, run};

/// One sync with this body in `exec`, run with these recordings.
fn played(body: &str, mocks: &Value) -> (Replay, Vec<String>) {
    let text = format!(
        "import {{ createSync }} from 'nango';\nimport {{ z }} from 'zod';\nexport default createSync({{ models: {{ Contact: z.object({{ id: z.string() }}) }}, checkpoint: z.object({{ at: z.string() }}), exec: async (nango) => {{\n{body}\n}},\nonWebhook: async (nango, event) => {{ await nango.batchDelete([{{ id: event.id }}], 'Contact'); }} }});\n"
    );
    played_file("crm/syncs/contacts.ts", &text, mocks)
}

/// One file, run with these recordings.
fn played_file(file: &str, text: &str, mocks: &Value) -> (Replay, Vec<String>) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join(file);
    fs::create_dir_all(path.parent().expect("a folder")).expect("made");
    fs::write(path, text).expect("written");
    let functions = Functions::load(folder.path()).expect("functions");
    let mocks = Mocks::parse("contacts.test.json", &mocks.to_string()).expect("recordings");
    let function = &functions.all[0];
    let invocation = mocks.invocation(&function.place, &function.definition);
    let replay = run(functions.modules.clone(), invocation, &mocks).expect("it runs");
    let differences = mocks.differences(&replay);
    (replay, differences)
}

#[test]
fn the_examples_are_as_recorded() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../functions");
    let functions = Functions::load(&folder).unwrap();
    assert_eq!(functions.sources(), ["github", "lists", "pocketbase"]);
    for function in &functions.all {
        let file = format!("{}/tests/{}.test.json", function.place.source, function.place.name);
        let mocks = Mocks::parse(&file, &fs::read_to_string(folder.join(&file)).unwrap()).unwrap();
        let invocation = mocks.invocation(&function.place, &function.definition);
        let replay = run(functions.modules.clone(), invocation, &mocks).unwrap();
        assert_eq!(mocks.differences(&replay), Vec::<String>::new(), "{file}");
        assert_eq!(replay.unmatched, Vec::<String>::new(), "{file}");
        assert!(replay.requests > 0);
    }
}

/// What its hooks post, and what has to come of it; without a request.
#[test]
fn the_example_takes_webhooks() {
    let functions = Functions::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../functions")).unwrap();
    let posts = functions.all.iter().find(|function| function.place.source == "pocketbase").expect("there");
    let subscribes: Vec<_> = posts.definition.webhook_subscriptions.iter().flatten().collect();
    assert_eq!(subscribes, ["created", "changed", "deleted"]);
    let post = json!({"id": "0a2b4c6d8e0f1g3", "title": "First words", "text": "<p>Hello.</p>", "published": true,
        "created": "2024-04-28 09:12:44.120Z", "updated": "2024-04-28 09:12:44.120Z"});
    let mut record = post.clone();
    record["collectionName"] = "posts".into();
    for (action, wanted) in [
        ("created", json!({"batchSave": {"Post": [post]}, "batchDelete": {"Post": []}})),
        ("changed", json!({"batchSave": {"Post": [post]}, "batchDelete": {"Post": []}})),
        ("deleted", json!({"batchSave": {"Post": []}, "batchDelete": {"Post": [{"id": post["id"]}]}})),
    ] {
        let recorded = json!({"webhook": {"action": action, "record": record}, "nango": wanted});
        let mocks = Mocks::parse("posts.json", &recorded.to_string()).expect("recordings");
        let invocation = mocks.invocation(&posts.place, &posts.definition);
        let replay = run(functions.modules.clone(), invocation, &mocks).expect("it runs");
        assert_eq!((mocks.differences(&replay), replay.requests), (vec![], 0), "{action}");
    }
}

#[test]
fn values_of_a_query_are_compared_as_text_and_absent_ones_drop_out() {
    let body = "const { data } = await nango.get({ endpoint: 'contacts?state=all', params: { limit: 10, after: undefined, ids: [1, 2] } });
         await nango.batchSave(data, 'Contact');";
    let mocks = json!({
        "nango": {"batchSave": {"Contact": [{"id": 5, "n": 1.0, "o": {"a": 1, "b": 2}}]}},
        "api": {"get": {"/contacts": {"response": [{"id": 5, "n": 1, "o": {"b": 2, "a": 1}}], "request": {"params": {"state": "all", "limit": "10", "ids": "1,2"}}}}}
    });
    let (replay, differences) = played(body, &mocks);
    assert_eq!((differences, replay.unmatched), (vec![], vec![]));
}

#[test]
fn a_form_may_be_recorded_as_an_object_or_as_text() {
    let body = "for (const id of [1, 2, 3]) await nango.post({ endpoint: '/token', data: new URLSearchParams({ id: String(id), q: 'a b' }) });";
    let recording = |data: Value| json!({"response": {}, "request": {"data": data}});
    let answers = json!([recording(json!({"id": 1, "q": "a b"})), recording(json!("q=a+b&id=2"))]);
    let (replay, _) = played(body, &json!({"api": {"post": {"/token": answers}}}));
    assert_eq!(replay.requests, 3);
    assert!(matches!(replay.unmatched.as_slice(), [third] if third.contains("with the body.id \"1\"")), "{replay:?}");
}

#[test]
fn a_body_may_be_recorded_as_base64_and_a_long_one_as_its_hash() {
    let long = format!("{{\"text\":\"{}\"}}", "é".repeat(990));
    let bodies = [
        "sha1:".to_owned() + &hex::encode(Sha1::digest(&long)),
        "AP8=".to_owned(),
        // Bytes of a text are text too.
        "cGxhaW4=".to_owned(),
    ];
    let answers = bodies.iter().map(|body| json!({"response": {}, "request": {"data": body}})).collect();
    let body = "await nango.post({ endpoint: '/a', data: { text: 'é'.repeat(990) } });
         await nango.post({ endpoint: '/a', data: new Uint8Array([0, 255]).buffer });
         await nango.post({ endpoint: '/a', data: Buffer.from('plain') });";
    let (replay, _) = played(body, &json!({"api": {"post": {"/a": Value::Array(answers)}}}));
    assert_eq!((replay.requests, replay.unmatched), (3, vec![]));
    let short = json!({"response": {}, "request": {"data": format!("sha1:{}", hex::encode(Sha1::digest("{}")))}});
    let (replay, _) =
        played("await nango.post({ endpoint: '/a', data: {} });", &json!({"api": {"post": {"/a": short}}}));
    assert_eq!(replay.unmatched.len(), 1, "a short body is recorded as it is");
}

#[test]
fn paths_are_compared_as_they_stand_in_an_address() {
    let mocks = json!({"api": {"get": {"/files/a%20b/%C3%A9": {"response": [], "request": {"params": {"q": "c d"}}}}}});
    let (replay, _) = played("await nango.get({ endpoint: '/files/a b/é?q=c%20d' });", &mocks);
    assert_eq!(replay.unmatched, Vec::<String>::new());
}

#[test]
fn the_clock_is_put_right_where_a_request_differs_in_moments_alone() {
    let body = "const now = new Date();
         const before = new Date(now - 3600000).toISOString();
         await nango.get({ endpoint: '/a', params: { since: before, filter: `at gt ${before} and at lt ${now.toISOString()}`, to: Math.floor(now / 1000) } });
         await nango.log(now.toISOString());";
    let recorded = |hour: u32, last: &str| {
        let (since, now) = (format!("2026-03-01T0{}:59:58.000Z", hour - 1), format!("2026-03-01T0{hour}:59:58.000Z"));
        let filter = format!("at gt {since} and at lt {last}");
        let params = json!({"since": since, "filter": filter, "to": 1_772_326_798 + 3_600 * hour});
        let headers = json!({"date": "Sun, 01 Mar 2026 03:00:00 GMT"});
        let answer = json!({"response": [], "headers": headers, "request": {"params": params}});
        let later = json!({"response": [], "headers": {"date": "Sun, 01 Mar 2026 03:00:04 GMT"}});
        (played(body, &json!({"api": {"get": {"/a": answer, "/": later}}})).0, now)
    };
    let (replay, now) = recorded(2, "2026-03-01T02:59:58.000Z");
    assert_eq!((replay.unmatched, replay.lines.len()), (vec![], 1), "two seconds before the answer");
    assert_eq!(replay.lines[0].text, now);
    let (replay, _) = recorded(2, "2026-03-01T02:59:58.100Z");
    assert_eq!(replay.unmatched.len(), 1, "not all by the same");
    let (replay, _) = recorded(4, "2026-03-01T04:59:58.000Z");
    assert_eq!(replay.unmatched.len(), 1, "two hours are no matter of the clock");
}

#[test]
fn what_pages_a_list_may_stand_deep_in_a_body() {
    let body = "const data = { query: 'q', variables: { kind: 'a' } };
         const paginate = { type: 'offset', offset_name_in_request: 'variables.page', offset_start_value: 1, offset_calculation_method: 'per-page', limit_name_in_request: 'variables.first', limit: 1, response_path: 'data' };
         for await (const page of nango.paginate({ endpoint: '/graphql', method: 'POST', data, paginate })) await nango.batchSave(page, 'Contact');
         await nango.log(data);";
    let page = |page: u32, ids: Value| json!({"response": {"data": ids}, "request": {"data": {"query": "q", "variables": {"kind": "a", "first": 1, "page": page}}}});
    let answers = json!([page(1, json!([{"id": "1"}])), page(2, json!([]))]);
    let (replay, _) = played(body, &json!({"api": {"post": {"/graphql": answers}}}));
    assert_eq!(replay.unmatched, Vec::<String>::new());
    assert_eq!(replay.saved["Contact"], [json!({"id": "1"})]);
    assert_eq!(replay.lines[0].text, r#"{"query":"q","variables":{"kind":"a"}}"#);
}

#[test]
fn a_page_is_told_behind_what_was_done_with_it() {
    let told = |paginate: &str, answers: Value| {
        let body = format!(
            "for await (const page of nango.paginate({{ endpoint: '/a', paginate: {{ {paginate}, on_page: async ({{ nextPageParam }}) => nango.log('told', nextPageParam) }} }})) await nango.log(page);"
        );
        let (replay, _) = played(&body, &json!({"api": {"get": {"/a": answers}}}));
        assert_eq!(replay.unmatched, Vec::<String>::new());
        replay.lines.into_iter().map(|line| line.text).collect::<Vec<String>>()
    };
    let answer = |params: Value, response: Value| json!({"response": response, "request": {"params": params}});
    let by_cursor = json!([
        answer(json!({}), json!({"items": [1], "next": " b "})),
        answer(json!({"after": "b"}), json!({"items": [2], "next": ""})),
    ]);
    let cursor =
        "type: 'cursor', cursor_path_in_response: 'next', cursor_name_in_request: 'after', response_path: 'items'";
    assert_eq!(told(cursor, by_cursor), ["[1]", "told b", "[2]", "told undefined"]);
    // Of an offset it is the one of this page, and of the last page nothing is told.
    let by_offset = json!([
        answer(json!({"page": 0, "size": 2}), json!([1, 2])),
        answer(json!({"page": 2, "size": 2}), json!([3]))
    ]);
    let offset = "type: 'offset', offset_name_in_request: 'page', limit_name_in_request: 'size', limit: 2";
    assert_eq!(told(offset, by_offset), ["[1,2]", "told 0", "[3]"]);
    // An answer by link need not be a list.
    let by_link =
        json!([answer(json!({}), json!({"next": "/a?after=b"})), answer(json!({"after": "b"}), json!({"last": 1}))]);
    let link = "type: 'link', link_path_in_response_body: 'next'";
    assert_eq!(told(link, by_link), [r#"{"next":"/a?after=b"}"#, "told /a?after=b", r#"{"last":1}"#, "told undefined"]);
}

#[test]
fn a_later_page_that_fails_names_the_loop_that_asked_for_it() {
    let body = "const paginate = { type: 'offset', offset_name_in_request: 'page', on_page: async () => {} };
         for await (const page of nango.paginate({ endpoint: '/a', paginate })) await nango.log(page);";
    let first = json!({"response": [1], "request": {"params": {"page": 0}}});
    let (replay, _) = played(body, &json!({"api": {"get": {"/a": first}}}));
    let fault = replay.ended.result.unwrap_err();
    assert_eq!(fault.frames.first().map(|frame| frame.line), Some(5), "{fault}");
}

#[test]
fn a_name_with_dots_may_be_that_of_a_member() {
    let body = "const by = (link_path_in_response_body) => ({ endpoint: '/a', paginate: { type: 'link', link_path_in_response_body, response_path: 'value' } });
         for (const path of ['@odata.nextLink', 'pages[0].next']) for await (const page of nango.paginate(by(path))) await nango.log(page);";
    let first = json!({"value": [1], "@odata.nextLink": "/b", "pages": [{"next": "/c"}]});
    let last = |value: u32| json!({"response": {"value": [value]}});
    let (replay, _) = played(body, &json!({"api": {"get": {"/a": {"response": first}, "/b": last(2), "/c": last(3)}}}));
    let lines: Vec<&str> = replay.lines.iter().map(|line| line.text.as_str()).collect();
    assert_eq!((lines, replay.unmatched), (vec!["[1]", "[2]", "[1]", "[3]"], vec![]));
}

#[test]
fn several_values_of_a_parameter_count_each_in_a_hash() {
    let canonical = r#"{"method":"get","endpoint":"a","params":[["id","2"],["id","1"],["x","0"]],"headers":[]}"#;
    let recording =
        json!({"response": [], "hash": hex::encode(Sha1::digest(canonical)), "request": {"params": {"id": "1"}}});
    let (replay, _) = played(
        "await nango.get({ endpoint: '/a?id=2', params: { x: 0, id: [1] } });",
        &json!({"api": {"get": {"/a": recording}}}),
    );
    assert_eq!(replay.unmatched, Vec::<String>::new());
}

#[test]
fn a_schema_of_nothing_is_given_nothing_where_null_was_recorded() {
    let text = |input: &str| {
        format!(
            "import {{ createAction }} from 'nango';\nimport {{ z }} from 'zod';\nexport default createAction({{ input: {input}, output: z.string(), exec: async (nango, input) => String(input) }});\n"
        )
    };
    for (input, output) in [("z.void()", "undefined"), ("z.null()", "null"), ("z.string().nullish()", "null")] {
        let mocks = json!({"input": null, "output": output});
        let (_, differences) = played_file("crm/actions/ping.ts", &text(input), &mocks);
        assert_eq!(differences, Vec::<String>::new(), "{input}");
    }
    let (_, differences) = played_file("crm/actions/ping.ts", &text("z.string()"), &json!({"input": null}));
    assert!(differences[0].contains("the input does not fit its schema"), "{differences:?}");
}

#[test]
fn a_request_that_was_not_recorded_says_what_was() {
    let answer =
        |after: &str| json!({"response": [], "request": {"params": {"after": after}, "headers": {"X-Kind": "a"}}});
    let mocks = json!({"api": {
        "get": {"/contacts": [answer("1"), answer("2")], "/companies": {"response": []}},
        "post": {"/contacts": {"response": {}, "request": {"data": {"name": "Ada", "tags": ["x"]}}}},
    }});
    let (replay, differences) =
        played("await nango.get({ endpoint: '/contacts', params: { after: 3 }, headers: { 'x-kind': 'a' } });", &mocks);
    let said = "GET /contacts?after=3 was not recorded; nearest are: GET /contacts?after=1 with the parameter after `1`; GET /contacts?after=2 with the parameter after `2`; POST /contacts";
    assert_eq!(replay.unmatched, [said]);
    assert_eq!(replay.ended.result.unwrap_err().code, "not_recorded");
    assert!(
        differences[0].starts_with("crm/syncs/contacts.ts:4:13 ") && differences[0].contains(said),
        "{differences:?}"
    );
    let (posted, _) =
        played("await nango.post({ endpoint: '/contacts', data: { name: 'Ada', tags: ['y'] } });", &mocks);
    assert!(posted.unmatched[0].contains("POST /contacts with the body.tags[0] \"x\""), "{posted:?}");
}

#[test]
fn equal_requests_are_answered_in_the_order_of_their_recordings_and_the_last_one_again() {
    let mocks = json!({"api": {"get": {"/job": [{"response": {"at": 1}}, {"response": {"at": 2}, "headers": {"Retry-After": 3}}]}}});
    let body = "for (let n = 0; n < 3; n++) { const { data, headers } = await nango.get({ endpoint: '/job' }); await nango.log(data.at, headers['retry-after']); await new Promise((done) => setTimeout(done, 60000)); }";
    let (replay, differences) = played(body, &mocks);
    assert_eq!(differences, Vec::<String>::new());
    let lines: Vec<(&str, i64)> =
        replay.lines.iter().map(|line| (line.text.as_str(), (line.at - replay.lines[0].at) / 1000)).collect();
    assert_eq!(lines, [("1 undefined", 0), ("2 3", 60), ("2 3", 120)]);
}

#[test]
fn a_hash_finds_its_request() {
    let canonical = r#"{"method":"post","endpoint":"contacts","params":[["a","1"],["b","2"]],"headers":[],"data":"{\"name\":\"Ada\"}"}"#;
    let hash = hex::encode(Sha1::digest(canonical));
    let answers = json!([
        {"response": {"at": "other"}, "request": {"params": {"a": "1", "b": "2"}, "data": {"name": "Ada"}}},
        {"response": {"at": "hash"}, "hash": hash, "request": {"data": "elsewhere"}},
    ]);
    let body = "const { data } = await nango.post({ endpoint: '/contacts', params: { b: 2, a: 1 }, data: { name: 'Ada' } }); await nango.log(data.at);";
    let (replay, _) = played(body, &json!({"api": {"post": {"contacts": answers}}}));
    assert_eq!(replay.lines[0].text, "hash");
}

#[test]
fn the_connection_is_as_recorded_or_new() {
    let body = "await nango.log(await nango.getMetadata(), (await nango.getConnection()).connection_config, await nango.getCheckpoint());
         await nango.updateMetadata({ b: 2 });
         await nango.saveCheckpoint({ at: 'now' });
         await nango.batchSave([{ id: '1', a: { b: 1 } }, { id: '2' }], 'Contact');
         await nango.batchUpdate([{ id: '1', a: { c: 2 } }], 'Contact');
         await nango.batchDelete([{ id: '2' }], 'Contact');
         const all = []; for await (const one of nango.listRecords('Contact')) all.push(one);
         await nango.log(await nango.getMetadata(), all, [...(await nango.getRecordsByIds(['1', '3'], 'Contact')).keys()]);
         await nango.getToken();";
    let (new, differences) = played(body, &json!({}));
    let lines: Vec<&str> = new.lines.iter().map(|line| line.text.as_str()).collect();
    assert_eq!(lines, ["{} {} null", r#"{"b":2} [{"id":"1","a":{"b":1,"c":2}}] ["1"]"#]);
    assert_eq!(new.checkpoint, Some(json!({"at": "now"})));
    assert!(differences[0].contains("nango.getToken was not recorded"), "{differences:?}");
    let recorded = json!({"nango": {"getConnection": {"metadata": {"a": 1}, "connection_config": {"c": 2}}, "getCheckpoint": {"at": "then"}, "getToken": "t"}});
    let (recorded, differences) = played(body, &recorded);
    assert_eq!(recorded.lines[0].text, r#"{"a":1} {"c":2} {"at":"then"}"#);
    assert_eq!(
        differences[0],
        "Contact: 2 records are saved, 0 were recorded; the first that was not recorded: {\"id\":\"1\",\"a\":{\"b\":1}}"
    );
    assert_eq!(differences.len(), 3, "{differences:?}");
}

#[test]
fn the_first_field_that_differs_is_told() {
    let body =
        "await nango.batchSave([{ id: '1', a: { b: [1] } }, { id: '2', a: { b: [1, 3] } }, { id: '3' }], 'Contact');";
    let recorded = |records: Value| played(body, &json!({"nango": {"batchSave": {"Contact": records}}})).1;
    let first = json!({"id": "1", "a": {"b": [1]}});
    assert_eq!(
        recorded(json!([first, {"id": "2", "a": {"b": [1, 2]}}])),
        ["Contact, saved record 2 (id 2): .a.b[1] is 3; recorded is 2"]
    );
    assert_eq!(
        recorded(json!([first, {"id": "2", "a": {"b": [1, 3]}, "c": "d"}])),
        ["Contact, saved record 2 (id 2): .c is absent; recorded is \"d\""]
    );
    assert_eq!(
        recorded(json!([first])),
        [
            "Contact: 3 records are saved, 1 were recorded; the first that was not recorded: {\"id\":\"2\",\"a\":{\"b\":[1,3]}}"
        ]
    );
}

#[test]
fn a_webhook_is_given_to_its_function() {
    let (replay, differences) =
        played("", &json!({"webhook": {"id": "7"}, "nango": {"batchDelete": {"Contact": [{"id": "7"}]}}}));
    assert_eq!((replay.deleted["Contact"].len(), differences), (1, vec![]));
}

#[test]
fn what_is_no_recording_is_refused_with_its_place() {
    let refused = |text: &str| Mocks::parse("a.test.json", text).unwrap_err().to_string();
    assert!(refused("{\n  \"api\": [}").starts_with("a.test.json:2:"), "{}", refused("{\n  \"api\": [}"));
    assert_eq!(
        refused(r#"{"api": {"get": {"/a": {"answer": 1}}}}"#),
        r#"a.test.json bad_recording api.get "/a": expected {response, status, headers, request}"#
    );
    let status = refused(r#"{"api": {"get": {"/a": [{"response": 1, "status": 70000}]}}}"#);
    assert!(status.ends_with("`status` is 70000; expected a number such as 200"), "{status}");
}
