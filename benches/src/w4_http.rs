//! W4 over HTTP: how fast is the change log read through the API, in pages of 1,000?
//!
//! The same data folder, opened by the whole program; one reader on loopback asks `GET /records` page after page.

use crate::feed::CONNECTIONS;
use crate::gauge::Watch;
use crate::report::Report;
use crate::{Bench, Fault};
use sha2::{Digest, Sha256};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use syncline::api;
use syncline::app::App;
use syncline::config::{ApiKey, Role, Settings};
use syncline::connectors::egress::Egress;
use syncline::connectors::http::{Client, ClientOptions, HeaderMap, HeaderValue, Outgoing, Url};
use syncline::server;
use syncline_engine::time::SystemClock;
use syncline_provider::{DefinitionOptions, definition};

const KEY: &str = "bench-key-0123456789-0123456789-0123456789";

/// Closes the engine, opens the program on its folder, reads, and opens the engine again.
pub async fn run(bench: Bench, report: &mut Report) -> Result<Bench, Fault> {
    bench.engine.stop().await?;
    let (args, dir) = (bench.args.clone(), bench.dir.clone());
    // The store is closed with the last handle to it.
    drop(bench);
    let app = App::open(settings(&dir, args.workers)?, Arc::new(SystemClock)).await?;
    let running = app.start();
    let listener = server::bind("127.0.0.1:0").await?;
    let base = format!("http://{}", listener.local_addr()?);
    let serving = tokio::spawn(server::serve(listener, api::router(app.clone()), running.stopping()));
    let client = Client::new(
        ClientOptions { allow_http: true, egress: Egress::loopback(), ..ClientOptions::default() },
        Arc::new(SystemClock),
    )?;
    let (mut watch, mut rows, mut bytes) = (Watch::default(), 0, 0);
    watch.start();
    for number in 0..CONNECTIONS {
        let (r, b) = read(&client, &base, number).await?;
        rows += r;
        bytes += b;
    }
    watch.stop();
    report.add("W4", "over HTTP, records a second", watch.rate(rows), "/s");
    report.add("W4", "over HTTP, CPU a record, the reader included", watch.cpu_us(rows), "us");
    report.add("W4", "over HTTP, payload", watch.rate(bytes) / 1e6, "MB/s");
    drop(app);
    running.stop().await?;
    serving.await?;
    Bench::open(&args, &dir)
}

/// Reads one connection to its end: rows and bytes.
async fn read(client: &Client, base: &str, number: usize) -> Result<(u64, u64), Fault> {
    let mut headers = HeaderMap::new();
    headers.insert("authorization", HeaderValue::from_str(&format!("Bearer {KEY}"))?);
    headers.insert("connection-id", HeaderValue::from_str(&format!("account-{number}"))?);
    headers.insert("provider-config-key", HeaderValue::from_static("fake"));
    let mut url = Url::parse(&format!("{base}/records?model=Contact&limit=1000"))?;
    let first = url.clone();
    let (mut rows, mut bytes) = (0, 0);
    loop {
        let request = Outgoing {
            method: "GET".parse()?,
            url: url.clone(),
            headers: headers.clone(),
            body: None,
            timeout: Duration::from_secs(30),
            max_response: 64 << 20,
            follow: false,
            veil: Default::default(),
        };
        let answer = client.send(request).await?;
        if answer.status != 200 {
            return Err(format!("GET /records answered {}: {}", answer.status, answer.quote()).into());
        }
        bytes += answer.body.len() as u64;
        // Counting by what every row has once: parsing would measure the reader instead.
        rows += count(&answer.body, b"\"_nango_metadata\":");
        let Some(cursor) = next_cursor(&answer.body) else { return Ok((rows, bytes)) };
        url = first.clone();
        url.query_pairs_mut().append_pair("cursor", &cursor);
    }
}

fn count(body: &[u8], what: &[u8]) -> u64 {
    body.windows(what.len()).filter(|w| w.first() == what.first() && *w == what).count() as u64
}

/// The value of `next_cursor`, wherever it stands in the answer.
fn next_cursor(body: &[u8]) -> Option<String> {
    const NAME: &[u8] = b"\"next_cursor\":\"";
    let ends = [&body[body.len().saturating_sub(400)..], &body[..body.len().min(400)]];
    ends.into_iter().find_map(|part| {
        let at = part.windows(NAME.len()).position(|w| w == NAME)? + NAME.len();
        let rest = part.get(at..)?;
        let end = rest.iter().position(|b| *b == b'"')?;
        String::from_utf8(rest.get(..end)?.to_vec()).ok()
    })
}

fn settings(dir: &Path, workers: usize) -> Result<Settings, Fault> {
    let sources = dir.join("sources");
    std::fs::create_dir_all(&sources)?;
    // Nobody listens there: nothing is polled while reading.
    let mut options = DefinitionOptions::new("http://127.0.0.1:9");
    options.paused = true;
    std::fs::write(sources.join("token"), "no-token")?;
    options.connections = (0..CONNECTIONS).map(|n| (format!("account-{n}"), "file:token".to_owned())).collect();
    std::fs::write(sources.join("fake.yaml"), definition(&options))?;
    let key = ApiKey {
        name: "bench".to_owned(),
        hash: Sha256::digest(KEY).into(),
        environment: "default".to_owned(),
        role: Role::Reader,
    };
    Ok(Settings {
        data_dir: dir.to_owned(),
        sources: vec![sources.display().to_string()],
        api_keys: vec![key],
        allow_http: true,
        egress: Egress::new(vec!["127.0.0.1:9".parse()?]),
        workers,
        ..Settings::default()
    })
}
