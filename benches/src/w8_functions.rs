//! W8: what does a function cost, and how soon does it begin?
//!
//! A sync in TypeScript in a worker process: it asks for pages of 1,000 items, maps each to a record of 502 bytes, saves them
//! and the checkpoint. The host is this process; it answers with pages that were made before the clock ran, and looks at no
//! record. The worker's share is its time on the processor, the parent's that of this process.

use crate::Fault;
use crate::gauge::Watch;
use crate::report::Report;
use serde_json::json;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use syncline_runtime::compile::compile;
use syncline_runtime::wire::{Answer, Ask, Invocation, Limits};
use syncline_runtime::worker::{Heard, Options, Running, Worker};
use syncline_runtime::{Modules, wire};

/// The argument that makes this program a worker.
pub const WORKER: &str = "functions-worker";
/// Items a page.
const PAGE: usize = 1_000;
/// Bytes of a record.
const RECORD: usize = 502;
/// Pages that are asked for before the clock runs, and while it does.
const PAGES: (usize, usize) = (50, 500);
/// Starts that are measured of each kind.
const STARTS: usize = 50;

/// With `validate` each record goes through its model.
fn text(validate: bool) -> String {
    let checked = if validate { ".filter((c) => Contact.safeParse(c).success)" } else { "" };
    format!(
        r#"import {{ createSync }} from 'nango';
import {{ z }} from 'zod';
const Contact = z.object({{ id: z.string(), first_name: z.string(), last_name: z.string(), email: z.string(), account_id: z.string(),
  stage: z.string(), amount: z.number(), note: z.string(), last_modified_date: z.string() }});
export default createSync({{ models: {{ Contact }}, checkpoint: z.object({{ at: z.string() }}), exec: async (nango) => {{
  for (let page = 0; ; page += 1) {{
    const {{ data }} = await nango.get({{ endpoint: '/contacts', params: {{ page }} }});
    if (data.records.length === 0) {{ return; }}
    const contacts = data.records.map((c: any) => ({{ id: c.Id, first_name: c.FirstName, last_name: c.LastName, email: c.Email,
      account_id: c.AccountId, stage: c.Stage, amount: c.Amount, note: c.Note, last_modified_date: c.LastModifiedDate }})){checked};
    await nango.batchSave(contacts, 'Contact');
    await nango.saveCheckpoint({{ at: contacts[contacts.length - 1].last_modified_date }});
  }}
}} }});
"#
    )
}

/// Measures starts, then pages.
pub async fn run(dir: &Path, report: &mut Report) -> Result<(), Fault> {
    let plain = modules(&dir.join("plain"), false)?;
    starts(&plain, report).await?;
    pages("saved", &plain, report).await?;
    pages("checked by zod and saved", &modules(&dir.join("checked"), true)?, report).await
}

fn modules(dir: &Path, validate: bool) -> Result<Modules, Fault> {
    std::fs::create_dir_all(dir.join("crm/syncs"))?;
    std::fs::write(dir.join("crm/syncs/contacts.ts"), text(validate))?;
    compile(dir).map_err(|complaints| complaints.iter().map(|c| format!("{c}\n")).collect::<String>().into())
}

fn invocation() -> Invocation {
    Invocation {
        file: "crm/syncs/contacts.ts".to_owned(),
        about:
            r#"{"kind":"exec","connectionId":"acme","providerConfigKey":"crm","syncName":"contacts","checkpoint":null}"#
                .to_owned(),
        models: vec!["Contact".to_owned()],
        limits: Limits::EXEC,
        now: None,
        seed: 1,
    }
}

async fn worker() -> Result<Worker, Fault> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(WORKER);
    Ok(Worker::spawn(command, Options::default()).await?)
}

/// From nothing, and in a worker that is there, until the first request of the function is heard; and what a call takes there
/// and back.
async fn starts(modules: &Modules, report: &mut Report) -> Result<(), Fault> {
    let (mut spawned, mut cold, mut warm, mut calls) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..STARTS {
        let begin = Instant::now();
        let worker = worker().await?;
        spawned.push(begin.elapsed());
        let mut running = worker.begin(modules, invocation()).await?;
        request(&mut running).await?;
        cold.push(begin.elapsed());
    }
    let worker = worker().await?;
    for _ in 0..STARTS {
        // While it has nothing to do, it makes heaps ready.
        tokio::time::sleep(Duration::from_millis(50)).await;
        let begin = Instant::now();
        let mut running = worker.begin(modules, invocation()).await?;
        let mut call = request(&mut running).await?;
        warm.push(begin.elapsed());
        for page in 0..4 {
            let body = json!({"records": [item(page)]}).to_string().into_bytes();
            let begin = Instant::now();
            running.answer(call, response(body)).await;
            let saved = checkpoint(&mut running).await?;
            calls.push(begin.elapsed());
            running.answer(saved, Answer::Done).await;
            call = request(&mut running).await?;
        }
    }
    for (name, mut times) in [
        ("a worker is ready", spawned),
        ("the first request, in a new worker", cold),
        ("the first request, in a worker that is there", warm),
        ("an answer of one record until it is saved", calls),
    ] {
        times.sort_unstable();
        for (share, at) in [("p50", times.len() / 2), ("p99", times.len() * 99 / 100)] {
            let time = times.get(at).copied().unwrap_or_default();
            report.add("W8", &format!("{name}, {share}"), time.as_secs_f64() * 1e3, "ms");
        }
    }
    Ok(())
}

async fn pages(what: &str, modules: &Modules, report: &mut Report) -> Result<(), Fault> {
    let worker = worker().await?;
    let bodies: Vec<Vec<u8>> = (0..PAGES.0 + PAGES.1).map(|page| body(page * PAGE)).collect();
    let (mut watch, mut before) = (Watch::default(), Duration::ZERO);
    let mut running = worker.begin(modules, invocation()).await?;
    for (page, body) in bodies.into_iter().enumerate() {
        let call = request(&mut running).await?;
        if page == PAGES.0 {
            before = processor_time(worker.pid())?;
            watch.start();
        }
        running.answer(call, response(body)).await;
        let saved = checkpoint(&mut running).await?;
        running.answer(saved, Answer::Done).await;
    }
    let call = request(&mut running).await?;
    watch.stop();
    let records = (PAGES.1 * PAGE) as u64;
    let cpu = processor_time(worker.pid())?.saturating_sub(before);
    report.add("W8", &format!("records a second, {what}"), watch.rate(records), "/s");
    report.add("W8", &format!("CPU a record in the worker, {what}"), cpu.as_secs_f64() * 1e6 / records as f64, "us");
    report.add("W8", &format!("CPU a record in the parent, {what}"), watch.cpu_us(records), "us");
    running.answer(call, response(br#"{"records":[]}"#.to_vec())).await;
    match running.next().await {
        Some(Heard::Ended(ended)) if ended.result.is_ok() => Ok(()),
        other => Err(format!("W8: the function did not end well: {other:?}").into()),
    }
}

/// The next call, which is a request.
async fn request(running: &mut Running) -> Result<u32, Fault> {
    match running.next().await {
        Some(Heard::Call(call)) if matches!(call.ask, Ask::Request(_)) => Ok(call.id),
        other => Err(format!("W8: expected a request: {other:?}").into()),
    }
}

/// The next call, which saves a checkpoint and a page before it.
async fn checkpoint(running: &mut Running) -> Result<u32, Fault> {
    match running.next().await {
        Some(Heard::Call(call)) if matches!(call.ask, Ask::Checkpoint(_)) => {
            match call.writes.pages.first().and_then(|page: &wire::Page| page.iter().next()) {
                Some((_, json)) if json.len() == RECORD => Ok(call.id),
                other => Err(format!("W8: a record has {} bytes", other.map_or(0, |(_, json)| json.len())).into()),
            }
        }
        other => Err(format!("W8: expected a checkpoint: {other:?}").into()),
    }
}

fn response(body: Vec<u8>) -> Answer {
    Answer::Response { status: 200, headers: vec![("content-type".to_owned(), "application/json".to_owned())], body }
}

fn body(from: usize) -> Vec<u8> {
    let records: Vec<_> = (from..from + PAGE).map(item).collect();
    json!({ "records": records }).to_string().into_bytes()
}

fn item(n: usize) -> serde_json::Value {
    json!({
        "Id": format!("0035g00000{n:08}"), "FirstName": "Bela", "LastName": "Dubois", "Email": format!("bela{n:08}@example.com"),
        "AccountId": format!("0015g00000{:08}", n / 7), "Stage": "proposal", "Amount": 10_000 + n % 10_000,
        "Note": "x".repeat(273), "LastModifiedDate": "2026-01-01T00:00:00.000Z",
    })
}

/// Time of the worker's one thread on the processor.
fn processor_time(pid: u32) -> Result<Duration, Fault> {
    let told = std::fs::read_to_string(format!("/proc/{pid}/schedstat"))?;
    let nanos = told.split_whitespace().next().ok_or("no time of a process")?;
    Ok(Duration::from_nanos(nanos.parse()?))
}
