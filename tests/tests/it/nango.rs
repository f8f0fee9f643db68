//! The Nango client library, unchanged, against the running server: every call this release serves, and the signature of a
//! webhook that was really sent: of a definition, and of functions in TypeScript.

use serde_json::json;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use syncline_connectors::egress::Egress;
use syncline_connectors::http::{Client, ClientOptions};
use syncline_engine::time::SystemClock;
use syncline_provider::webhooks::ClientCourier;
use syncline_provider::{DefinitionOptions, Fake, FakeOptions, definition};
use syncline_tests::contacts::{self, Contacts};
use syncline_tests::mirror::Mirror;
use syncline_tests::salesforce::{self, Salesforce};
use syncline_tests::serving::{KEY, Serving};
use syncline_tests::tools::{install_npm, node};

/// Longest wait for the whole of it.
const PATIENCE: Duration = Duration::from_secs(240);
const LOOK_AGAIN: Duration = Duration::from_millis(25);
const SIGNING_KEY: &str = "what the server signs with and the client checks";
const RECORDS: u64 = 250;

/// The token of the connection whose requests are passed on.
const MIRRORED: &str = "a-token-that-nobody-may-see";

/// A sync in TypeScript that the client hears of.
const CONTACTS: &str = include_str!("../../../runtime/tests/fixtures/contacts.ts");

/// What the client calls.
const GREET: &str = r#"
import { createAction, ActionError } from 'nango';
import { z } from 'zod';

export default createAction({
    input: z.object({ name: z.string() }),
    output: z.object({ text: z.string(), connection: z.string() }),
    exec: async (nango, { name }) => {
        if (name === 'nobody') {
            throw new ActionError({ message: 'nobody is there', name, tries: [1, 2] });
        }
        return { text: `hello ${name}`, connection: nango.connectionId };
    }
});
"#;

/// The client's program; it ends with this value.
struct Driver(Child);

impl Drop for Driver {
    fn drop(&mut self) {
        // Already gone is as good; there is nobody to tell.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_library_finds_everything_as_it_knows_it() {
    let project = tokio::task::spawn_blocking(|| install_npm("interop/nango", "nango")).await.expect("it ran");
    let project = project.unwrap_or_else(|why| panic!("{why}"));
    let folder = tempfile::tempdir().expect("a temporary folder");
    let log = folder.path().join("drive.log");
    let mut driver = start(&project, &log);
    let port = said(&log, &mut driver, |text| Some(text.lines().next()?.strip_prefix("port ")?.to_owned())).await;

    let mut options = FakeOptions::new(7, Arc::new(SystemClock));
    (options.records, options.connections) = (RECORDS, 2);
    // The fake sends no webhooks here.
    let client = Client::new(
        ClientOptions { allow_http: true, egress: Egress::loopback(), ..ClientOptions::default() },
        Arc::new(SystemClock),
    );
    let courier = ClientCourier(client.expect("a client"));
    let fake = Fake::start(options, Arc::new(courier)).await.expect("a fake provider");
    let names: Vec<String> = fake.accounts().into_iter().map(|(name, _)| name).collect();
    let sources = definitions(folder.path(), &fake);
    fs::write(folder.path().join("signing.key"), SIGNING_KEY).expect("written");
    let endpoint = json!({"url": format!("http://127.0.0.1:{port}/"), "secret": "file:signing.key"});
    let functions = folder.path().join("functions");
    fs::create_dir_all(functions.join("fake/actions")).expect("a folder for actions");
    fs::write(functions.join("fake/actions/greet.ts"), GREET).expect("written");
    let (polling, url) = Salesforce::start(100, Duration::ZERO).await;
    polling.fill(RECORDS as usize);
    salesforce::lay_out(folder.path(), "salesforce", &url, "contacts", CONTACTS);
    let (_both, url) = Contacts::start(RECORDS as u32).await;
    contacts::lay_out(folder.path(), &url);
    let mirror = Mirror::start().await;
    fs::write(sources.join("mirror.token"), MIRRORED).expect("written");
    let text = format!(
        "source: mirror\nbase_url: {}\nauth: {{type: bearer}}\n\
         connections: {{acme: {{credentials: {{token: \"file:mirror.token\"}}}}}}\nlimits: {{retry: {{backoff: 5ms..20ms}}}}\nproxy: {{}}\n",
        mirror.url
    );
    fs::write(sources.join("mirror.yaml"), text).expect("written");
    let more = json!({"endpoints": {"app": endpoint}, "functions": {"path": functions, "in_process": true}});
    let syncline = Serving::start_with(folder.path(), &sources, more).await;

    let of_functions = ["salesforce", "hubspot"].map(|source| {
        json!({"source": source, "connectionId": "acme", "model": "Contact", "sync": "contacts", "records": RECORDS})
    });
    let line = json!({
        "url": syncline.url, "apiKey": KEY, "signingKey": SIGNING_KEY, "source": "fake", "connections": names,
        "model": "Contact", "sync": "contacts", "records": RECORDS, "hook": syncline.hook_url("hubspot"),
        "functions": of_functions, "mirrored": {"source": "mirror", "secret": MIRRORED},
    });
    let mut stdin = driver.0.stdin.take().expect("a way in");
    stdin.write_all(format!("{line}\n").as_bytes()).expect("told");
    drop(stdin);
    said(&log, &mut driver, |text| text.lines().any(|line| line == "done").then_some(())).await;
    syncline.stop().await;
}

fn start(project: &Path, log: &Path) -> Driver {
    let (node, _) = node().unwrap_or_else(|why| panic!("{why}"));
    let out = fs::File::create(log).expect("a log");
    let errors = out.try_clone().expect("a log");
    let child = Command::new(node)
        .current_dir(project)
        .arg("drive.mjs")
        .stdin(Stdio::piped())
        .stdout(out)
        .stderr(errors)
        .spawn();
    Driver(child.unwrap_or_else(|why| panic!("node does not start: {why}")))
}

/// Waits for what the program should say; panics with all it said if it ends without.
async fn said<T>(log: &Path, driver: &mut Driver, find: impl Fn(&str) -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        // Asked first: what it said before its end is in the log then.
        let ended = driver.0.try_wait().expect("asked");
        let text = fs::read_to_string(log).unwrap_or_default();
        if let Some(found) = find(&text) {
            return found;
        }
        assert!(ended.is_none() && began.elapsed() < PATIENCE, "ended: {ended:?}\n{text}");
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// The fake's definition, polled once an hour: every further run is the client's doing.
fn definitions(folder: &Path, fake: &Fake) -> std::path::PathBuf {
    let sources = folder.join("sources");
    fs::create_dir_all(&sources).expect("a folder for definitions");
    let mut options = DefinitionOptions::new(&fake.url());
    options.every = "1h".into();
    for (name, token) in fake.accounts() {
        fs::write(sources.join(format!("{name}.token")), token).expect("written");
        options.connections.push((name.clone(), format!("file:{name}.token")));
    }
    fs::write(sources.join("fake.yaml"), definition(&options)).expect("written");
    sources
}
