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
    let folder = tempfile::tempdir().expect("a folder");
    fs::create_dir_all(folder.path().join("crm/syncs")).expect("made");
    fs::write(folder.path().join("crm/syncs/contacts.ts"), text).expect("written");
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
