//! A function from its text to what it says.

use super::*;
use crate::compile::compile;
use crate::wire::{Ask, Page};
use std::fs;
use std::time::Duration;

#[path = "../../tests/fixtures/bombs.rs"]
mod bombs;

/// A folder of one sync, compiled.
fn sync(text: &str) -> Arc<Modules> {
    folder(&[("crm/syncs/contacts.ts", text)])
}

fn folder(files: &[(&str, &str)]) -> Arc<Modules> {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    match compile(folder.path()) {
        Ok(modules) => Arc::new(modules),
        Err(complaints) => panic!("{}", complaints.iter().map(|c| format!("{c}\n")).collect::<String>()),
    }
}

/// A sync whose `exec` has this body, with zod and one model.
fn exec(body: &str) -> Arc<Modules> {
    sync(&format!(
        "import {{ createSync }} from 'nango';\nimport {{ z }} from 'zod';\nconst Contact = z.object({{ id: z.string() }});\nexport default createSync({{ models: {{ Contact }}, checkpoint: z.object({{ at: z.string() }}), exec: async (nango) => {{\n{body}\n}} }});\n"
    ))
}

fn invocation() -> Invocation {
    Invocation {
        file: "crm/syncs/contacts.ts".into(),
        about: r#"{"kind":"exec","connectionId":"acme","providerConfigKey":"crm","environmentName":"dev","variant":"base","syncName":"contacts","checkpoint":null}"#.into(),
        models: vec!["Contact".into()],
        limits: Limits { cpu_step: Duration::from_secs(2), ..Limits::EXEC },
        now: Some(1_000_000),
        seed: 7,
    }
}

fn begin(modules: Arc<Modules>) -> (Sandbox, Vec<Said>) {
    Sandbox::begin(modules, invocation()).unwrap()
}

fn ended(said: Vec<Said>) -> Ended {
    match said.as_slice() {
        [Said::Ended(ended)] => ended.clone(),
        other => panic!("expected the end: {other:?}"),
    }
}

fn fault(modules: Arc<Modules>) -> Fault {
    ended(begin(modules).1).result.unwrap_err()
}

fn call(said: &[Said]) -> Call {
    match said {
        [Said::Call(call)] => call.clone(),
        other => panic!("expected one call: {other:?}"),
    }
}

fn rows(page: &Page) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    page.iter().map(|(id, json)| (text(id), text(json))).collect()
}

fn response(body: &str) -> Answer {
    Answer::Response { status: 200, headers: vec![("x-total".into(), "2".into())], body: body.as_bytes().to_vec() }
}

#[test]
fn a_sync_asks_for_a_page_saves_it_and_ends() {
    let modules = exec(
        "const answer = await nango.get({ endpoint: '/contacts', params: { limit: 2 }, retries: 3 });
         await nango.batchSave(answer.data.items.map((c: any) => ({ id: c.id, name: c.name, total: answer.headers['x-total'] })), 'Contact');
         await nango.saveCheckpoint({ at: 'now' });",
    );
    let (mut sandbox, said) = begin(modules);
    let asked = call(&said);
    let Ask::Request(request) = &asked.ask else { panic!("{asked:?}") };
    assert_eq!((request.method.as_str(), request.endpoint.as_str(), request.retries), ("GET", "/contacts", Some(3)));
    assert_eq!(request.params, [("limit".to_owned(), "2".to_owned())]);
    let said = sandbox.answer(asked.id, response(r#"{"items":[{"id":5,"name":"Ä\n"},{"id":"b","name":null}]}"#));
    let asked = call(&said);
    assert_eq!(asked.ask, Ask::Checkpoint(Some(r#"{"at":"now"}"#.into())));
    let [page] = asked.writes.pages.as_slice() else { panic!("{asked:?}") };
    assert_eq!(
        rows(page),
        [
            ("5".to_owned(), r#"{"id":"5","name":"Ä\n","total":"2"}"#.to_owned()),
            ("b".to_owned(), r#"{"id":"b","name":null,"total":"2"}"#.to_owned()),
        ]
    );
    assert_eq!(ended(sandbox.answer(asked.id, Answer::Done)).result, Ok(None));
    assert!(sandbox.has_ended());
}

#[test]
fn errors_name_the_line_of_the_typescript_also_behind_an_await_and_in_helpers() {
    let helper = "type Row = { id: string };\n\nexport function fail(rows: Row[]): never {\n    throw new Error(`no ${rows.length}`);\n}\n";
    let text = "import { createSync } from 'nango';\nimport { z } from 'zod';\nimport { fail } from '../helpers.js';\n\ninterface A {\n    b: string;\n}\nexport default createSync({\n    models: { Contact: z.object({ id: z.string() }) },\n    exec: async (nango) => {\n        const a: A = { b: 'c' };\n        await nango.log(a);\n        fail([]);\n    },\n});\n";
    let modules = folder(&[("crm/syncs/contacts.ts", text), ("crm/helpers.ts", helper)]);
    let fault = fault(modules);
    assert_eq!(fault.to_string(), "crm/helpers.ts:4:27 Error: no 0\n    at exec crm/syncs/contacts.ts:13:9");
    assert_eq!(fault.code, "script_error");
}

#[test]
fn a_failed_request_names_the_line_that_made_it() {
    let modules = exec("const x: number = 1;\nawait nango.get({ endpoint: '/gone' });");
    let (mut sandbox, said) = begin(modules);
    let asked = call(&said);
    let answer = Answer::Response { status: 404, headers: Vec::new(), body: b"{\"error\":\"none\"}".to_vec() };
    let fault = ended(sandbox.answer(asked.id, answer)).result.unwrap_err();
    assert_eq!(fault.code, "ERR_BAD_REQUEST");
    assert_eq!(fault.answer, Some(Box::new((404, r#"{"error":"none"}"#.into()))));
    assert_eq!(fault.message, "AxiosError: Request failed with status code 404");
    assert_eq!(fault.frames.first().map(|frame| frame.line), Some(6), "{fault}");
}

#[test]
fn bombs_end_with_a_code() {
    for (code, body) in bombs::BOMBS {
        let fault = fault(exec(body));
        assert!(bombs::ends(code, body, &fault.code), "{body}: {fault:?}");
    }
}

#[test]
fn code_reaches_nothing_but_what_it_is_offered() {
    let modules = exec(
        "const g = globalThis as any;
         const names = ['fetch', 'process', 'require', '__host', 'std', 'os', 'bjson', 'scriptArgs', 'navigator'].filter((n) => g[n] !== undefined);
         const inner = await import('syncline:invoke').then(() => 'reached', (e) => String(e.message));
         const above = await import('../../../secret.js').then(() => 'reached', (e) => String(e.message));
         const evaluated = (0, eval)('typeof __host');
         await nango.log(JSON.stringify({ names, inner, above, evaluated }));",
    );
    let ended = ended(begin(modules).1);
    assert_eq!(ended.result, Ok(None));
    let said = &ended.writes.lines[0].text;
    assert!(
        said.contains(r#""names":[]"#) && !said.contains("reached") && said.contains(r#""evaluated":"undefined""#),
        "{said}"
    );
}

#[test]
fn time_and_chance_are_the_hosts() {
    let body = "const before = Date.now(); await new Promise((r) => setTimeout(r, 250));
        await nango.log(before, new Date().toISOString(), new Date(5).getTime(), Math.random(), crypto.randomUUID(), (new Date()) instanceof Date);";
    let text = format!(
        "import crypto from 'node:crypto';\nimport {{ createSync }} from 'nango';\nimport {{ z }} from 'zod';\nexport default createSync({{ models: {{ Contact: z.object({{ id: z.string() }}) }}, exec: async (nango) => {{ {body} }} }});"
    );
    let run = || {
        let (mut sandbox, said) = begin(sync(&text));
        let asked = call(&said);
        assert_eq!(asked.ask, Ask::Sleep { millis: 250 });
        ended(sandbox.answer(asked.id, Answer::Done)).writes
    };
    let first = run();
    assert_eq!(first, run());
    assert!(first.lines[0].text.starts_with("1000000 1970-01-01T00:16:40.250Z 5 0."), "{:?}", first.lines);
    assert!(first.lines[0].text.ends_with("true"));
}

#[test]
fn a_refused_record_stores_nothing_of_its_call() {
    let modules = exec(
        "for (const bad of [[{ id: 'a' }, { name: 'no id' }], [{ id: 'b' }, 5], [{ id: '' }], [{ id: 'x'.repeat(256) }], [{ id: 1.5 }]]) {
             try { await nango.batchSave(bad as any, 'Contact'); } catch (e: any) { await nango.log(e.message); }
         }
         try { await nango.batchSave([{ id: 'a' }], 'Other'); } catch (e: any) { await nango.log(e.message); }
         await nango.batchSave([{ id: 'c', n: 1 }, { id: 'c', n: 2 }, { id: 'd', _nango_metadata: {} }] as any, 'Contact');",
    );
    let ended = ended(begin(modules).1);
    assert_eq!(ended.result, Ok(None), "{ended:?}");
    assert!(ended.writes.refused);
    let lines: Vec<&str> = ended.writes.lines.iter().map(|line| line.text.as_str()).collect();
    assert_eq!(lines[0], "Missing id field in record");
    assert_eq!(lines[1], "a record must be an object");
    assert_eq!(lines[5], "the function has no model `Other`; its models are: Contact");
    assert!(lines[6].starts_with("1 records of Contact came with an id"), "{lines:?}");
    let saved: Vec<_> = ended.writes.pages.iter().flat_map(rows).map(|(_, json)| json).collect();
    assert_eq!(saved, [r#"{"id":"c","n":1}"#, r#"{"id":"d"}"#]);
}

#[test]
fn the_writer_equals_stringify_on_odd_values() {
    let modules = exec(
        r#"const odd: any[] = [
             { id: 'a', d: new Date(0), u: undefined, f() {}, s: Symbol('x'), n: NaN, i: -Infinity, z: -0, big: 1e21, small: 1e-7, frac: 0.1 + 0.2 },
             { id: 'b', list: [undefined, () => 1, null, [[]], {}], nested: { toJSON: () => 'told' }, map: new Map([[1, 2]]), bool: new Boolean(false) },
             { id: 'c', lone: '\ud800', pair: '\ud83d\ude00', esc: '"\\\b\f\n\r\t\u0001\u2028', 'ke"y': 1 },
             { id: 'd', get g() { return this.h + 1; }, h: 41, proto: Object.create({ inherited: 1 }), nul: Object.create(null) },
             { id: 'e', deep: (() => { let v: any = 1; for (let i = 0; i < 300; i += 1) { v = [v]; } return v; })(), max: 9007199254740993, neg: -2147483649 },
             { id: 'f', proxy: new Proxy({ a: 1 }, {}), typed: new Uint8Array([1, 2]), buf: Buffer.from('x') },
           ];
           await nango.batchSave(odd, 'Contact');
           for (const value of odd) { await nango.log(JSON.stringify(value)); }"#,
    );
    let ended = ended(begin(modules).1);
    assert_eq!(ended.result, Ok(None), "{ended:?}");
    let written: Vec<String> = ended.writes.pages.iter().flat_map(rows).map(|(_, json)| json).collect();
    let expected: Vec<String> = ended.writes.lines.iter().map(|line| line.text.clone()).collect();
    assert_eq!(written.len(), 6);
    for (written, expected) in written.iter().zip(&expected) {
        assert_eq!(written, expected);
    }
}

#[test]
fn definitions_are_read_and_wrong_ones_named() {
    let modules = exec("await nango.log('x');");
    let definition = describe(&modules, &modules.functions[0]).unwrap();
    assert_eq!(definition.declared, definition::Declared::Sync);
    assert_eq!(definition.models["Contact"]["properties"]["id"]["type"], "string");
    assert_eq!(definition.checkpoint.unwrap()["properties"]["at"]["type"], "string");
    for (code, text) in [
        ("old_format", "export default async function fetchData(nango: any) {}"),
        ("no_definition", "export default 5;"),
        ("load_failed", "const a: any = undefined;\nexport default a.b;"),
        ("no_models", "import { createSync } from 'nango';\nexport default createSync({ exec: async () => {} });"),
    ] {
        let modules = sync(text);
        let complaint = describe(&modules, &modules.functions[0]).unwrap_err();
        assert_eq!(complaint.code, code, "{complaint}");
    }
    let modules = sync("const a: any = undefined;\nexport default a.b;");
    let complaint = describe(&modules, &modules.functions[0]).unwrap_err();
    assert_eq!((complaint.file.as_str(), complaint.line), ("crm/syncs/contacts.ts", 2), "{complaint}");
}
