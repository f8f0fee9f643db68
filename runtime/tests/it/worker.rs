//! Worker processes from outside: what functions do to them, what is done to them, and what is told of it.

use crate::bombs::{self, BOMBS};
use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use syncline_runtime::compile::compile;
use syncline_runtime::wire::{Answer, Ask, Call, Ended, Fault, Invocation, Limits};
use syncline_runtime::worker::{Heard, Options, Running, Worker, Workers};
use syncline_runtime::{Modules, wire};
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_functions-worker");
/// What is waited for comes sooner, or the test fails.
const LONG: Duration = Duration::from_secs(60);
const SORTS: &str =
    "const all = Array.from({ length: 200000 }, (_, i) => (i * 7919) % 200003); for (;;) { all.slice().sort(); }";

/// A folder with one sync for each of these bodies, named `a`, `b`, …
fn folder(bodies: &[&str]) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    fs::create_dir_all(folder.path().join("crm/syncs")).expect("a folder");
    for (body, name) in bodies.iter().zip('a'..) {
        let text = format!(
            "import {{ createSync }} from 'nango';\nimport {{ z }} from 'zod';\nconst Contact = z.object({{ id: z.string() }});\nexport default createSync({{ models: {{ Contact }}, exec: async (nango) => {{\n{body}\n}} }});\n"
        );
        fs::write(folder.path().join(format!("crm/syncs/{name}.ts")), text).expect("a file");
    }
    folder
}

fn modules(bodies: &[&str]) -> Modules {
    compile(folder(bodies).path()).expect("modules")
}

fn invocation(name: char) -> Invocation {
    Invocation {
        file: format!("crm/syncs/{name}.ts"),
        about: r#"{"kind":"exec","connectionId":"acme","providerConfigKey":"crm","syncName":"a","checkpoint":null}"#
            .into(),
        models: vec!["Contact".into()],
        limits: Limits { cpu_step: Duration::from_millis(500), memory: 32 << 20, ..Limits::EXEC },
        now: Some(1_000_000),
        seed: 7,
    }
}

fn ill(how: &str) -> Command {
    let mut command = Command::new(PROGRAM);
    command.arg(how);
    command
}

fn options() -> Options {
    Options { grace: Duration::from_secs(1), ..Options::default() }
}

async fn worker() -> Worker {
    Worker::spawn(Command::new(PROGRAM), options()).await.expect("a worker")
}

async fn next(running: &mut Running) -> Heard {
    tokio::time::timeout(LONG, running.next()).await.expect("in time").expect("before the end")
}

async fn call(running: &mut Running) -> Call {
    match next(running).await {
        Heard::Call(call) => call,
        other => panic!("expected a call: {other:?}"),
    }
}

async fn ended(running: &mut Running) -> Ended {
    match next(running).await {
        Heard::Ended(ended) => ended,
        other => panic!("expected the end: {other:?}"),
    }
}

async fn fault(running: &mut Running) -> Fault {
    ended(running).await.result.expect_err("a fault")
}

async fn lost(running: &mut Running) -> String {
    match next(running).await {
        Heard::Lost(gone) => gone.to_string(),
        other => panic!("expected to be lost: {other:?}"),
    }
}

fn response(body: &str) -> Answer {
    Answer::Response { status: 200, headers: Vec::new(), body: body.as_bytes().to_vec() }
}

fn is_there(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.lines().any(|line| line.starts_with("State:") && !line.contains('Z'))
}

async fn is_gone(pid: u32) {
    let since = Instant::now();
    while is_there(pid) {
        assert!(since.elapsed() < LONG, "{pid} is still there");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(pid as i32).expect("a process");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("killed");
}

const ONE_PAGE: &str =
    "const answer = await nango.get({ endpoint: '/contacts' }); await nango.batchSave(answer.data, 'Contact');";

#[tokio::test]
async fn a_function_asks_is_answered_and_ends() {
    let (worker, modules) = (worker().await, modules(&[ONE_PAGE]));
    let mut running = worker.begin(&modules, invocation('a')).await.unwrap();
    let asked = call(&mut running).await;
    assert!(matches!(&asked.ask, Ask::Request(request) if request.endpoint == "/contacts"), "{asked:?}");
    running.answer(asked.id + 1, response("[]")).await;
    running.answer(asked.id, response(r#"[{"id":"x","name":"Ä"}]"#)).await;
    let ended = ended(&mut running).await;
    assert_eq!(ended.result, Ok(None));
    let rows: Vec<_> = ended.writes.pages.iter().flat_map(wire::Page::iter).collect();
    assert_eq!(rows, [(b"x".as_slice(), r#"{"id":"x","name":"Ä"}"#.as_bytes())]);
    assert!(running.next().await.is_none());
}

#[tokio::test]
async fn a_link_goes_to_the_origin_it_names_and_a_path_below_the_base() {
    let body = "for await (const _ of nango.paginate({ endpoint: '/v2/a', params: { n: 1 }, paginate: { type: 'link', link_rel_in_response_header: 'next' } })) {}";
    let (worker, modules) = (worker().await, modules(&[body]));
    let mut running = worker.begin(&modules, invocation('a')).await.unwrap();
    let mut gone = Vec::new();
    for link in ["https://api.crm.com/v2/a?n=2", "/a?n=3", ""] {
        let asked = call(&mut running).await;
        let Ask::Request(request) = asked.ask else { panic!("{asked:?}") };
        gone.push((request.base, request.endpoint, request.params.len()));
        let headers = vec![("link".to_owned(), format!("<{link}>; rel=\"next\""))];
        running.answer(asked.id, Answer::Response { status: 200, headers, body: b"[1]".to_vec() }).await;
    }
    assert_eq!(ended(&mut running).await.result, Ok(None));
    let origin = Some("https://api.crm.com".to_owned());
    let expected = [(None, "/v2/a", 1), (origin.clone(), "/v2/a?n=2", 0), (origin, "/a?n=3", 0)];
    assert_eq!(gone, expected.map(|(base, endpoint, params)| (base, endpoint.to_owned(), params)));
}

#[tokio::test]
async fn a_worker_tells_what_a_file_declares() {
    let (worker, modules) =
        (worker().await, modules(&["", "}, exec2: (() => { throw new Error('at load'); })(), x: async () => {"]));
    let definition = worker.describe(&modules, &modules.functions[0]).await.unwrap().unwrap();
    assert_eq!(definition.models["Contact"]["properties"]["id"]["type"], "string");
    let complaint = worker.describe(&modules, &modules.functions[1]).await.unwrap().unwrap_err();
    assert_eq!((complaint.code, complaint.file.as_str(), complaint.line), ("load_failed", "crm/syncs/b.ts", 5));
}

#[tokio::test]
async fn bombs_end_and_their_neighbour_goes_on() {
    let bodies: Vec<&str> = BOMBS.iter().map(|(_, body)| *body).chain([ONE_PAGE]).collect();
    let (worker, modules) = (worker().await, modules(&bodies));
    let mut neighbour = worker.begin(&modules, invocation('k')).await.unwrap();
    let asked = call(&mut neighbour).await;
    for ((code, body), name) in BOMBS.iter().zip('a'..) {
        let since = Instant::now();
        let mut running = worker.begin(&modules, invocation(name)).await.unwrap();
        let fault = fault(&mut running).await;
        assert!(bombs::ends(code, body, &fault.code), "{body}: {fault:?}");
        assert!(since.elapsed() < Duration::from_millis(6_500), "{body}: {:?}", since.elapsed());
    }
    neighbour.answer(asked.id, response("[]")).await;
    assert_eq!(ended(&mut neighbour).await.result, Ok(None));
}

#[tokio::test]
async fn code_that_does_not_come_back_is_ended_with_its_worker_and_its_neighbour_is_lost() {
    let (worker, modules) = (worker().await, modules(&[SORTS, ONE_PAGE]));
    let mut neighbour = worker.begin(&modules, invocation('b')).await.unwrap();
    call(&mut neighbour).await;
    let since = Instant::now();
    let mut sorting = worker.begin(&modules, invocation('a')).await.unwrap();
    let fault = fault(&mut sorting).await;
    assert_eq!(fault.code, "killed");
    assert!(fault.message.contains("more than 0.5 s"), "{fault}");
    assert!(since.elapsed() > Duration::from_millis(1_500), "{:?}", since.elapsed());
    let lost = lost(&mut neighbour).await;
    assert!(lost.contains("did not come back"), "{lost}");
    assert!(neighbour.next().await.is_none());
    is_gone(worker.pid()).await;
    let refused = worker.begin(&modules, invocation('b')).await.err().expect("no worker");
    assert!(refused.to_string().contains("did not come back"), "{refused}");
}

#[tokio::test]
async fn an_owner_that_left_does_not_free_code_that_does_not_come_back() {
    let (worker, modules) = (worker().await, modules(&[SORTS]));
    drop(worker.begin(&modules, invocation('a')).await.unwrap());
    is_gone(worker.pid()).await;
}

#[tokio::test]
async fn a_killed_worker_is_replaced_and_who_waited_in_it_is_lost() {
    let workers = Workers::new(|| Command::new(PROGRAM), options());
    let modules = modules(&[ONE_PAGE]);
    let mut running = workers.begin("prod", &modules, invocation('a')).await.unwrap();
    call(&mut running).await;
    let pid = workers.worker("prod").await.unwrap().pid();
    assert_ne!(workers.worker("dev").await.unwrap().pid(), pid);
    kill(pid);
    assert!(lost(&mut running).await.contains("ended by itself (signal: 9 (SIGKILL))"));
    let mut again = workers.begin("prod", &modules, invocation('a')).await.unwrap();
    let asked = call(&mut again).await;
    again.answer(asked.id, response("[]")).await;
    assert_eq!(ended(&mut again).await.result, Ok(None));
}

#[tokio::test]
async fn a_worker_killed_while_code_runs_fails_that_one_alone() {
    let (worker, modules) = (worker().await, modules(&[SORTS, ONE_PAGE]));
    let mut neighbour = worker.begin(&modules, invocation('b')).await.unwrap();
    call(&mut neighbour).await;
    let mut sorting = worker.begin(&modules, invocation('a')).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    kill(worker.pid());
    let fault = fault(&mut sorting).await;
    assert_eq!(fault.code, "killed");
    assert!(fault.message.contains("SIGKILL"), "{fault}");
    lost(&mut neighbour).await;
}

#[tokio::test]
async fn a_worker_that_sends_what_cannot_be_is_ended() {
    for (how, told) in [("garbage", "a frame that cannot be read"), ("huge", "at most 67108864 are allowed")] {
        let worker = Worker::spawn(ill(how), options()).await.unwrap();
        is_gone(worker.pid()).await;
        while worker.gone().is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(worker.gone().unwrap().to_string().contains(told), "{how}: {:?}", worker.gone());
    }
}

/// What a process wrote to standard error that was told this and nothing more.
fn by_hand(how: &str, say: &[u8]) -> String {
    let (mut ours, theirs) = UnixStream::pair().expect("a socket");
    let begun = ill(how).stdin(Stdio::from(OwnedFd::from(theirs))).stderr(Stdio::piped()).spawn();
    let child = begun.expect("a process");
    let mut ready = [0; 5];
    ours.read_exact(&mut ready).expect("a frame");
    assert_eq!(ready, [1, 0, 0, 0, 0]);
    ours.write_all(say).expect("written");
    drop(ours);
    let output = child.wait_with_output().expect("an end");
    String::from_utf8(output.stderr).expect("text")
}

#[test]
fn a_worker_that_is_told_what_cannot_be_ends_with_an_error() {
    for (say, told) in [
        (vec![3, 0, 0, 0, 9, 9, 9], "a frame that cannot be read"),
        (vec![0, 0, 0, 255], "at most 67108864 are allowed"),
        (vec![9, 0, 0, 0, 1], "unexpected end of file"),
    ] {
        let written = by_hand("serve", &say);
        assert!(written.contains(told), "{say:?}: {written}");
    }
    assert_eq!(by_hand("serve", &[]), "");
}

#[test]
#[cfg(target_os = "linux")]
fn code_that_got_out_of_its_sandbox_opens_nothing() {
    let told = by_hand("probe", &[]);
    for what in ["file", "written", "socket", "program"] {
        let line = told.lines().find(|line| line.starts_with(what)).unwrap_or_default();
        assert!(line.contains("Operation not permitted"), "{told}");
    }
    assert!(!Path::new("/tmp/escaped").exists());
}

#[tokio::test]
#[cfg(target_os = "linux")]
async fn a_worker_has_nothing_of_its_parent() {
    // A descriptor that is inherited, as a library in C may leave one.
    let leaked = fs::File::open("/etc/passwd").unwrap();
    rustix::io::fcntl_setfd(&leaked, rustix::io::FdFlags::empty()).unwrap();
    let worker = worker().await;
    let of = |what: &str| format!("/proc/{}/{what}", worker.pid());
    let open: HashMap<String, String> = fs::read_dir(of("fd"))
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| {
            (entry.file_name().into_string().unwrap(), fs::read_link(entry.path()).unwrap().display().to_string())
        })
        .collect();
    assert_eq!(open.len(), 3, "{open:?}");
    assert!(open["0"].starts_with("socket:") && open["1"] == "/dev/null" && open["2"].starts_with("pipe:"), "{open:?}");
    assert_eq!(fs::read(of("environ")).unwrap(), b"");
    assert_eq!(fs::read_link(of("cwd")).unwrap(), Path::new("/"));
    assert_eq!(fs::read_dir(of("task")).unwrap().count(), 1);
    let status = fs::read_to_string(of("status")).unwrap();
    assert!(status.contains("NoNewPrivs:\t1") && status.contains("Seccomp:\t2"), "{status}");
    let limits = fs::read_to_string(of("limits")).unwrap();
    for (name, most) in [
        ("Max address space", "4294967296"),
        ("Max core file size", "0"),
        ("Max file size", "0"),
        ("Max open files", "4"),
    ] {
        let line = limits.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        let values: Vec<&str> = line[name.len()..].split_whitespace().collect();
        assert_eq!(values[..2], [most, most], "{limits}");
    }
    drop(leaked);
}

#[tokio::test]
async fn sixty_four_run_at_one_time_and_the_next_waits() {
    let (worker, modules) = (worker().await, modules(&[ONE_PAGE]));
    let mut all = Vec::new();
    for _ in 0..64 {
        let mut running = worker.begin(&modules, invocation('a')).await.unwrap();
        let asked = call(&mut running).await;
        all.push((running, asked));
    }
    let mut next = Box::pin(worker.begin(&modules, invocation('a')));
    assert!(tokio::time::timeout(Duration::from_millis(100), &mut next).await.is_err());
    // The last one first: their order is theirs.
    for (running, asked) in all.iter_mut().rev() {
        running.answer(asked.id, response("[]")).await;
        assert_eq!(ended(running).await.result, Ok(None));
    }
    let mut running = tokio::time::timeout(LONG, next).await.unwrap().unwrap();
    call(&mut running).await;
    running.stop("halted", "the program ends");
    assert_eq!(fault(&mut running).await.code, "halted");
}

#[tokio::test]
async fn a_host_that_does_not_answer_holds_up_nobody_and_nothing_grows() {
    let body = "for (let i = 0; ; i += 1) { const all = Array.from({ length: 9000 }, (_, n) => ({ id: `${i}-${n}`, t: 'x'.repeat(500) })); const saved = nango.batchSave(all, 'Contact'); if (i % 2) { await saved; } }";
    let (worker, modules) = (worker().await, modules(&[body, ONE_PAGE]));
    let slow = worker.begin(&modules, invocation('a')).await.unwrap();
    for _ in 0..20 {
        let mut running = worker.begin(&modules, invocation('b')).await.unwrap();
        let asked = call(&mut running).await;
        running.answer(asked.id, response("[]")).await;
        assert_eq!(ended(&mut running).await.result, Ok(None));
    }
    let status = fs::read_to_string(format!("/proc/{}/status", worker.pid())).unwrap();
    let most =
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.strip_suffix(" kB")?.trim().parse::<u64>().ok());
    assert!(most.is_none_or(|most| most < 200 << 10), "{status}");
    drop(slow);
    worker.describe(&modules, &modules.functions[1]).await.unwrap().unwrap();
}

#[tokio::test]
async fn what_does_not_fit_into_a_frame_fails_its_call_or_its_function() {
    let answered = "try { await nango.get({ endpoint: '/large' }); } catch (e: any) { await nango.log(e.code); }";
    let written = "const t = 'x'.repeat(1 << 20); await nango.batchSave(Array.from({ length: 70 }, (_, n) => ({ id: String(n), t })), 'Contact');";
    let (worker, modules) = (worker().await, modules(&[answered, written]));
    let mut running = worker.begin(&modules, invocation('a')).await.unwrap();
    let asked = call(&mut running).await;
    running.answer(asked.id, Answer::Json(vec![b' '; 65 << 20])).await;
    assert_eq!(ended(&mut running).await.writes.lines[0].text, "answer_too_large");
    let limits = Limits { memory: 256 << 20, ..invocation('b').limits };
    let mut running = worker.begin(&modules, Invocation { limits, ..invocation('b') }).await.unwrap();
    assert_eq!(fault(&mut running).await.code, "step_too_large");
}

#[tokio::test]
async fn a_worker_ends_with_its_last_owner() {
    let (worker, modules) = (worker().await, modules(&[ONE_PAGE]));
    let pid = worker.pid();
    let mut running = worker.begin(&modules, invocation('a')).await.unwrap();
    drop(worker);
    let asked = call(&mut running).await;
    running.answer(asked.id, response("[]")).await;
    assert_eq!(ended(&mut running).await.result, Ok(None));
    drop(running);
    is_gone(pid).await;
}

#[tokio::test]
async fn an_idle_worker_ends_and_another_begins_when_it_is_needed() {
    let workers = Workers::new(|| Command::new(PROGRAM), Options { idle: Duration::from_millis(300), ..options() });
    let modules = modules(&[ONE_PAGE]);
    let mut running = workers.begin("prod", &modules, invocation('a')).await.unwrap();
    let pid = workers.worker("prod").await.unwrap().pid();
    let asked = call(&mut running).await;
    tokio::time::sleep(Duration::from_millis(900)).await;
    assert!(is_there(pid), "it waits for an answer");
    running.answer(asked.id, response("[]")).await;
    assert_eq!(ended(&mut running).await.result, Ok(None));
    is_gone(pid).await;
    let mut running = workers.begin("prod", &modules, invocation('a')).await.unwrap();
    call(&mut running).await;
}

#[tokio::test]
async fn a_worker_that_cannot_begin_is_not_tried_in_a_loop_and_its_words_are_told() {
    let begun = Arc::new(AtomicUsize::new(0));
    let counted = begun.clone();
    let command = move || {
        counted.fetch_add(1, Ordering::Relaxed);
        ill("crash")
    };
    let workers = Workers::new(command, options());
    let modules = modules(&[ONE_PAGE]);
    for _ in 0..50 {
        let gone = workers.begin("prod", &modules, invocation('a')).await.err().expect("no worker").to_string();
        assert!(gone.contains("exit status: 3") && gone.contains("no library libmissing.so"), "{gone}");
    }
    assert_eq!(begun.load(Ordering::Relaxed), 1);
    let missing = Worker::spawn(Command::new("/nowhere/syncline"), options()).await.err().expect("no program");
    assert!(missing.to_string().contains("could not be begun"), "{missing}");
}

#[tokio::test]
async fn a_busy_worker_ends_with_its_killed_parent() {
    let folder = folder(&[SORTS]);
    let mut parent = ill("parent").arg(folder.path()).arg("crm/syncs/a.ts").stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(parent.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let pid: u32 = line.trim().parse().unwrap();
    assert!(is_there(pid));
    tokio::time::sleep(Duration::from_millis(200)).await;
    let since = Instant::now();
    parent.kill().unwrap();
    parent.wait().unwrap();
    is_gone(pid).await;
    assert!(since.elapsed() < Duration::from_secs(2), "{:?}", since.elapsed());
}
