//! `syncline serve` with a function in a worker process, killed while it reads: no checkpoint is ahead of its records, and what is
//! there in the end is what an undisturbed run would have left.

use reqwest::Client;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use syncline_tests::ledger::Trial;
use syncline_tests::salesforce::{Salesforce, lay_out};
use syncline_tests::serving::{KEY, answer, client};

const CONTACTS: usize = 6_000;
const CYCLES: u64 = 10;
const WAIT: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_a_function_reads_it_goes_on_at_its_checkpoint() {
    let mut trial = Trial::of("kills");
    let folder = tempfile::tempdir().expect("a folder");
    let (fake, url) = Salesforce::start(200, Duration::from_millis(15)).await;
    fake.fill(CONTACTS);
    lay_out(folder.path(), "salesforce", &url, "contacts", include_str!("../../../runtime/tests/fixtures/contacts.ts"));
    settings(folder.path());
    let mut checkpoints = 0;
    for cycle in 0..CYCLES {
        let mut program = Program::start(folder.path());
        checkpoints += usize::from(program.no_checkpoint_is_ahead(&fake).await);
        tokio::time::sleep(Duration::from_millis(60 + cycle * 7919 % 240)).await;
        program.kill();
        trial.add(1);
    }
    assert!(checkpoints > 2, "kills met runs on their way");
    let program = Program::start(folder.path());
    program.settled().await;
    let rows = program.records().await;
    let expected: BTreeMap<String, Value> = fake
        .since(0)
        .into_iter()
        .map(|c| (c["Id"].as_str().expect("an id").to_owned(), c["LastName"].clone()))
        .collect();
    assert_eq!(rows.len(), expected.len());
    assert_eq!(rows, expected, "final records equal the provider's");
    assert_eq!(program.changes().await, vec!["ADDED"; CONTACTS], "nothing came twice");
}

fn settings(folder: &Path) {
    let settings = json!({
        "listen": "127.0.0.1:0", "data_dir": folder.join("data"), "sources": folder.join("sources"),
        "functions": {"path": folder.join("functions")},
        "api_keys": [{"name": "tests", "key": "env:TEST_KEY", "role": "admin"}],
        "encryption": "off", "workers": 2, "egress": {"allow_http": true, "allow": ["127.0.0.0/8"]},
    });
    std::fs::write(folder.join("syncline.yaml"), settings.to_string()).expect("settings");
}

struct Program {
    child: Child,
    url: String,
    client: Client,
}

impl Program {
    fn start(folder: &Path) -> Program {
        let mut child = Command::new(env!("CARGO_BIN_EXE_program"))
            .arg("serve")
            .current_dir(folder)
            .env("TEST_KEY", KEY)
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("the program starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let url =
            lines.by_ref().map_while(Result::ok).find_map(|line| Some(line.split_once("listening on ")?.1.to_owned()));
        // Its further output must go somewhere, or it would stand still.
        std::thread::spawn(move || lines.for_each(drop));
        Program { child, url: url.expect("it listens"), client: client() }
    }

    async fn get(&self, path: &str) -> Value {
        let request = self.client.get(format!("{}{path}", self.url)).bearer_auth(KEY);
        answer(request.header("provider-config-key", "salesforce").header("connection-id", "acme")).await
    }

    async fn status(&self) -> Value {
        let path = "/sync/status?syncs=contacts&provider_config_key=salesforce&connection_id=acme";
        self.get(path).await["syncs"][0].clone()
    }

    /// Whether there is a checkpoint; all records up to it are there.
    async fn no_checkpoint_is_ahead(&self, fake: &Salesforce) -> bool {
        let status = self.status().await;
        let Some(at) = status["checkpoint"]["lastModifiedISO"].as_str() else { return false };
        let rows = self.records().await;
        let before =
            fake.since(0).into_iter().filter(|contact| contact["LastModifiedDate"].as_str().is_some_and(|m| m <= at));
        for contact in before {
            assert!(rows.contains_key(contact["Id"].as_str().unwrap_or_default()), "{at} is ahead of {contact}");
        }
        true
    }

    async fn settled(&self) {
        let began = Instant::now();
        loop {
            let status = self.status().await;
            if status["status"] == "SUCCESS" {
                return;
            }
            assert!(began.elapsed() < WAIT, "{status}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn records(&self) -> BTreeMap<String, Value> {
        let (mut rows, mut cursor) = (BTreeMap::new(), String::new());
        loop {
            let page = self.get(&format!("/records?model=Contact&limit=2000{cursor}")).await;
            for row in page["records"].as_array().expect("records") {
                rows.insert(row["id"].as_str().expect("an id").to_owned(), row["last_name"].clone());
            }
            let Some(next) = page["next_cursor"].as_str() else { return rows };
            cursor = format!("&cursor={next}");
        }
    }

    async fn changes(&self) -> Vec<String> {
        let (mut actions, mut cursor) = (Vec::new(), "earliest".to_owned());
        loop {
            let path =
                format!("/v1/changes?source=salesforce&connection=acme&stream=Contact&limit=1000&cursor={cursor}");
            let page = self.get(&path).await;
            let new = page["changes"].as_array().expect("changes");
            if new.is_empty() {
                return actions;
            }
            actions.extend(new.iter().map(|change| change["action"].as_str().unwrap_or_default().to_uppercase()));
            cursor = page["cursor"].as_str().expect("a cursor").to_owned();
        }
    }

    fn kill(&mut self) {
        // SIGKILL, by its id.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
    }
}
