//! Secrets of a connection and the process that runs a function's code: with handles they are nowhere in its memory, and in nothing
//! that is written or answered. With `credentials: visible` they are found, so the search finds what is there.

use axum::Router;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use syncline_tests::damage;
use syncline_tests::process::{Program, command, settle};

/// Nothing else begins or ends like it.
const SECRET: &str = "canary9f31c2d07be84a6650-of-a-token-nobody-sees-77ab01";
/// What the function holds beside it.
const MARKER: &str = "a-marker-that-the-function-holds";
const PATIENCE: Duration = Duration::from_secs(60);

/// Asks for all it may know of its connection, uses it, and then waits in the middle of its run.
const FUNCTION: &str = r#"
import { createSync } from 'nango';
import { z } from 'zod';

export default createSync({
    frequency: 'every hour',
    models: { Kept: z.object({ id: z.string(), text: z.string() }) },
    exec: async (nango) => {
        const connection: any = await nango.getConnection();
        const token: any = await nango.getToken();
        await nango.get({ endpoint: '/signed' });
        await nango.get({ endpoint: '/handle', headers: { 'x-token': token }, params: { token } });
        await nango.uncontrolledFetch({
            url: 'PROVIDER/elsewhere?token=' + encodeURIComponent(token),
            method: 'POST',
            headers: { 'x-token': token },
            body: 'it is ' + token,
        });
        const text = ['a-marker', 'that-the-function-holds', token, JSON.stringify(connection)].join('-');
        await nango.get({ endpoint: '/hold' });
        await nango.log(text, { level: 'warn' });
        await nango.batchSave([{ id: '1', text }], 'Kept');
        await nango.get({ endpoint: '/fails' });
    },
});
"#;

#[derive(Default)]
struct Provider {
    /// Paths that were asked for with the secret, in the header that signs in.
    signed: parking_lot::Mutex<Vec<String>>,
    /// The secret was in the header and the parameter where the function had put its handle.
    handles: AtomicBool,
    /// What came with a request that is nobody's: where to, what with.
    elsewhere: parking_lot::Mutex<String>,
    held: AtomicBool,
    well: AtomicBool,
    goes_on: AtomicBool,
}

impl Provider {
    async fn start() -> (Arc<Provider>, String) {
        let provider = Arc::new(Provider::default());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let router = Router::new().fallback(answer).with_state(provider.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (provider, url)
    }
}

async fn answer(
    State(provider): State<Arc<Provider>>,
    uri: Uri,
    Query(query): Query<BTreeMap<String, String>>,
    headers: HeaderMap,
    body: String,
) -> (StatusCode, String) {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    if header("authorization") == format!("Bearer {SECRET}") {
        provider.signed.lock().push(uri.path().to_owned());
    }
    match uri.path() {
        "/handle" => {
            let both = header("x-token") == SECRET && query.get("token").is_some_and(|token| token == SECRET);
            provider.handles.store(both, Ordering::SeqCst);
        }
        "/elsewhere" => *provider.elsewhere.lock() = format!("{uri} {headers:?} {body}"),
        "/hold" => {
            provider.held.store(true, Ordering::SeqCst);
            while !provider.goes_on.load(Ordering::SeqCst) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        // It repeats what it was asked with.
        "/fails" if !provider.well.load(Ordering::SeqCst) => {
            return (StatusCode::BAD_REQUEST, format!("no: {} {SECRET}", header("authorization")));
        }
        _ => {}
    }
    (StatusCode::OK, "{}".to_owned())
}

fn lay_out(folder: &Path, url: &str, functions: Value) {
    let syncs = folder.join("functions/shop/syncs");
    fs::create_dir_all(&syncs).expect("a folder");
    fs::create_dir_all(folder.join("sources")).expect("a folder");
    fs::write(syncs.join("kept.ts"), FUNCTION.replace("PROVIDER", url)).expect("a function");
    let definition = json!({
        "source": "shop", "base_url": url, "auth": {"type": "bearer"}, "functions": functions,
        "limits": {"retry": {"max": 0}}, "connections": {"acme": {"credentials": {"token": "env:SHOP_TOKEN"}}},
    });
    fs::write(folder.join("sources/shop.yaml"), definition.to_string()).expect("a definition");
    settle(folder, json!({"logs": {"level": "debug"}}));
}

/// A server whose function is in the middle of its run.
async fn held(folder: &Path, provider: &Provider) -> Program {
    let program = Program::start(folder, &[("SHOP_TOKEN", SECRET)]);
    let began = Instant::now();
    while !provider.held.load(Ordering::SeqCst) {
        assert!(began.elapsed() < PATIENCE, "the function does not come so far\n{}", program.said());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(*provider.signed.lock(), ["/signed", "/handle", "/hold"]);
    assert!(provider.handles.load(Ordering::SeqCst), "the secret is where the function had it put");
    program
}

/// Processes that a process has begun.
fn children(parent: u32) -> Vec<u32> {
    let parent_of = |id: u32| {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        // The name before may hold anything.
        stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse::<u32>().ok()
    };
    let all = fs::read_dir("/proc").expect("processes").flatten();
    let ids = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    ids.filter(|id| parent_of(*id) == Some(parent)).collect()
}

/// What a process has in memory, but for what it has mapped of files to read: its own program.
fn memory(id: u32) -> Vec<Vec<u8>> {
    let maps = fs::read_to_string(format!("/proc/{id}/maps")).expect("its maps");
    let file = File::open(format!("/proc/{id}/mem")).expect("its memory");
    let mut parts = Vec::new();
    for line in maps.lines() {
        let (range, rest) = line.split_once(' ').expect("a range");
        let private = rest.starts_with("rw") || (rest.starts_with('r') && !rest.contains('/') && !rest.contains("[v"));
        if !private {
            continue;
        }
        let (from, to) = range.split_once('-').expect("two ends");
        let end = |text: &str| u64::from_str_radix(text, 16).expect("an address");
        let mut part = vec![0; (end(to) - end(from)) as usize];
        file.read_exact_at(&mut part, end(from)).unwrap_or_else(|why| panic!("{line}: {why}"));
        parts.push(part);
    }
    parts
}

fn holds(bytes: &[u8], what: &str) -> bool {
    let what = what.as_bytes();
    let begins = bytes.iter().enumerate().filter(|(_, byte)| **byte == what[0]);
    begins.into_iter().any(|(at, _)| bytes[at..].starts_with(what))
}

/// The secret and what tells of it: each half, and as it is written for basic authentication.
fn tellers() -> Vec<String> {
    let (first, second) = SECRET.split_at(SECRET.len() / 2);
    vec![first.to_owned(), second.to_owned(), STANDARD.encode(SECRET)]
}

fn hides(what: &str, bytes: &[u8]) {
    for teller in tellers() {
        assert!(!holds(bytes, &teller), "{what} holds {teller}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_and_what_is_written_hold_no_secret() {
    let folder = tempfile::tempdir().expect("a folder");
    let (provider, url) = Provider::start().await;
    lay_out(folder.path(), &url, json!({}));
    let mut program = held(folder.path(), &provider).await;
    // Sent elsewhere, a handle stays one: in the address, in a header, in the body.
    let elsewhere = provider.elsewhere.lock().clone();
    assert!(elsewhere.contains("it is secret-handle:token:"), "{elsewhere}");
    hides("a request that is not signed in", elsewhere.as_bytes());
    let workers = children(program.id());
    assert_eq!(workers.len(), 1, "one worker: {workers:?}");
    let parts = memory(workers[0]);
    assert!(parts.iter().any(|part| holds(part, MARKER)), "what the function holds is found");
    assert!(parts.iter().any(|part| holds(part, "secret-handle:token:")), "and its handle");
    parts.iter().for_each(|part| hides("the worker's memory", part));
    for file in ["environ", "cmdline"] {
        hides(file, &fs::read(format!("/proc/{}/{file}", workers[0])).expect("read"));
    }
    // The search finds it where it is.
    assert!(memory(program.id()).iter().any(|part| holds(part, SECRET)), "the server has it");

    // The run goes on, tells what it knows, and fails by an answer that repeats the secret.
    provider.goes_on.store(true, Ordering::SeqCst);
    let began = Instant::now();
    let runs = loop {
        let (_, runs) = program.get("/v1/runs?source=shop", "shop").await.expect("it answers");
        if runs.to_string().contains("script_error") || runs.to_string().contains("\"failed\"") {
            break runs;
        }
        assert!(began.elapsed() < PATIENCE, "it does not end: {runs}\n{}", program.said());
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert!(runs.to_string().contains("[secret]"), "{runs}");
    hides("an answer", runs.to_string().as_bytes());
    let status = "/sync/status?syncs=kept&provider_config_key=shop&connection_id=acme";
    for path in [status, "/records?model=Kept", "/v1/changes?source=shop&connection=acme&stream=Kept", "/v1/functions"]
    {
        let (_, answer) = program.get(path, "shop").await.expect("it answers");
        hides(path, answer.to_string().as_bytes());
    }
    let said = program.said();
    assert!(said.contains(MARKER), "the function's line is in the log: {said}");
    hides("the log", said.as_bytes());
    program.kill();
    let files = damage::files(&folder.path().join("data"));
    assert!(files.iter().any(|(_, bytes)| holds(bytes, MARKER)), "what the function saved is found");
    files.iter().for_each(|(name, bytes)| hides(&name.display().to_string(), bytes));
    a_recording_holds_no_secret(folder.path(), &provider);
}

/// A run by hand, of which everything is written down.
fn a_recording_holds_no_secret(folder: &Path, provider: &Provider) {
    provider.well.store(true, Ordering::SeqCst);
    let arguments = ["functions", "run", "kept", "--record", "kept.test.json", "--log-level", "debug"];
    let output = command(folder, &arguments, &[("SHOP_TOKEN", SECRET)]).output().expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let recorded = fs::read(folder.join("kept.test.json")).expect("recorded");
    for (what, bytes) in [("the recording", &recorded), ("the output", &output.stdout)] {
        assert!(holds(bytes, MARKER), "{what} shows what was saved");
        hides(what, bytes);
    }
    hides("the lines of a run by hand", &output.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_code_may_see_is_found_in_its_worker() {
    let folder = tempfile::tempdir().expect("a folder");
    let (provider, url) = Provider::start().await;
    lay_out(folder.path(), &url, json!({"credentials": "visible"}));
    let program = held(folder.path(), &provider).await;
    let found = |id: &u32| memory(*id).iter().any(|part| holds(part, SECRET));
    assert!(children(program.id()).iter().any(found));
}
