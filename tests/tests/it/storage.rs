//! `syncline serve` over a data folder that something happened to: refused with the file, nothing touched, repaired by a
//! command of its own; backed up while it serves and restored elsewhere; and nobody else's to read.

use reqwest::Client;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use syncline_tests::crm::DEFINITION;
use syncline_tests::damage::{files, kind};
use syncline_tests::ledger::Trial;
use syncline_tests::serving::client;

const KEY: &str = "a-key-for-tests-of-32-characters-or-more";
const WAIT: Duration = Duration::from_secs(60);
/// The exit code of a damaged folder.
const DAMAGED: i32 = 74;

/// A folder with settings, and a data folder in it.
struct Place {
    folder: tempfile::TempDir,
    listen: String,
}

impl Place {
    fn new() -> Place {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("sources")).expect("folder");
        std::fs::write(folder.path().join("sources/crm.yaml"), DEFINITION).expect("definition");
        // Commands look for the server where the settings say it is.
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let listen = free.local_addr().expect("an address").to_string();
        let settings = json!({
            "listen": listen, "data_dir": folder.path().join("data"), "sources": folder.path().join("sources"),
            "api_keys": [{"name": "tests", "key": "env:TEST_KEY", "role": "admin"}],
            "encryption": "off", "egress": {"allow_http": true, "allow": ["127.0.0.1:9"]}, "workers": 1,
        });
        std::fs::write(folder.path().join("syncline.yaml"), settings.to_string()).expect("settings");
        Place { folder, listen }
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        // Under the usual umask, whatever this test was started with.
        let mut command = Command::new("sh");
        command.args(["-c", "umask 022; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_program")]).args(arguments);
        command
            .current_dir(self.folder.path())
            .env("TEST_KEY", KEY)
            .env("SYNCLINE_API_KEY", KEY)
            .env("SECRET", "s3cret");
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("the program runs")
    }

    /// What a command that succeeds prints.
    fn done(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}{}", text(&output.stdout), text(&output.stderr));
        text(&output.stdout)
    }

    /// What a command that is refused for damage says.
    fn refused(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(DAMAGED), "{arguments:?}: {said}{}", text(&output.stdout));
        said
    }

    fn serve(&self) -> Server {
        let mut child =
            self.command(&["serve"]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let hook = lines.by_ref().map_while(Result::ok).find_map(|line| {
            let at = line.find("/hooks/").filter(|_| line.starts_with("webhook"))?;
            Some(line[at..].to_owned())
        });
        // Its further output must go somewhere, or it would stand still.
        std::thread::spawn(move || lines.for_each(drop));
        let hook = hook.unwrap_or_else(|| panic!("it does not take webhooks: {:?}", child.wait()));
        Server { child, client: client(), url: format!("http://{}", self.listen), hook }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

struct Server {
    child: Child,
    client: Client,
    url: String,
    hook: String,
}

impl Server {
    async fn post(&self, numbers: std::ops::Range<u64>) {
        for n in numbers {
            let record = json!({"id": format!("r{n}"), "n": n});
            let event = json!([{"kind": "whole", "portal": 7, "eventId": format!("e{n}"), "record": record}]);
            let hook = format!("{}{}", self.url, self.hook);
            let request = self.client.post(hook).header("x-token", "s3cret").body(event.to_string());
            let answer = request.send().await.expect("an answer");
            assert!(answer.status().is_success(), "{n}: {answer:?}");
        }
    }

    /// How many records there are, once there are `count`.
    async fn records(&self, count: usize) -> usize {
        let began = Instant::now();
        loop {
            let request = self.client.get(format!("{}/records?model=Contact&limit=1000", self.url)).bearer_auth(KEY);
            let answer = request.header("provider-config-key", "crm").header("connection-id", "acme").send().await;
            let page: Value = serde_json::from_str(&answer.expect("sent").text().await.expect("text")).expect("JSON");
            let there = page["records"].as_array().unwrap_or_else(|| panic!("{page}")).len();
            if there >= count || began.elapsed() > WAIT {
                return there;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// SIGKILL, by its id.
    fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM, and its end.
    fn stop(mut self) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").arg(id).status().expect("kill runs").success());
        self.child.wait().expect("it ends");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

/// The files of one kind in the database's folder.
fn of_kind(data: &Path, wanted: &str) -> Vec<PathBuf> {
    let files = files(data).into_iter().map(|(name, _)| name);
    files.filter(|name| kind(name) == wanted).map(|name| data.join(name)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_ahead_log_that_is_gone_is_noticed() {
    let place = Place::new();
    let server = place.serve();
    server.post(0..200).await;
    server.kill();
    for log in of_kind(&place.data(), "log") {
        std::fs::remove_file(log).expect("removed");
    }
    let before = files(&place.data());
    let said = place.refused(&["serve"]);
    assert!(said.contains(".log: the write-ahead log is missing"), "{said}");
    assert!(said.contains("acknowledged writes are missing") && said.contains("up to 200"), "{said}");
    assert!(said.contains("syncline repair --dry-run"), "{said}");
    let would = place.done(&["repair", "--dry-run"]);
    assert!(would.contains("200 acknowledged entries of the log"), "{would}");
    assert!(files(&place.data()) == before, "nothing is touched");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_a_log_is_noticed_and_a_repair_keeps_the_other_half() {
    let place = Place::new();
    let server = place.serve();
    server.post(0..200).await;
    assert_eq!(server.records(200).await, 200);
    server.kill();
    let logs = of_kind(&place.data(), "log");
    let log = logs.last().expect("a log");
    let length = std::fs::metadata(log).expect("there").len();
    std::fs::File::options().write(true).open(log).expect("opened").set_len(length / 2).expect("cut");
    let before = files(&place.data());
    let said = place.refused(&["serve"]);
    assert!(said.contains(".log, offset") && said.contains("ends too early"), "{said}");
    assert!(files(&place.data()) == before, "nothing is touched");

    let did = place.done(&["repair"]);
    assert!(did.contains("lost") && did.contains("damaged-1"), "{did}");
    assert!(place.data().join("damaged-1/store").is_dir(), "what was there is kept");
    let server = place.serve();
    let left = server.records(1).await;
    assert!((20..200).contains(&left), "{left} of 200");
    server.post(0..200).await;
    assert_eq!(server.records(200).await, 200);
    server.stop();
    assert!(place.done(&["repair"]).contains("nothing is damaged"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manifest_that_was_cut_is_noticed_and_no_table_is_deleted() {
    let place = Place::new();
    for life in 0..3 {
        let server = place.serve();
        server.post(life * 50..life * 50 + 50).await;
        assert_eq!(server.records(life as usize * 50 + 50).await, life as usize * 50 + 50);
        server.stop();
    }
    let tables = of_kind(&place.data(), "sst");
    assert!(tables.len() > 5, "{tables:?}");
    let manifests = of_kind(&place.data(), "MANIFEST");
    let manifest = manifests.last().expect("a manifest");
    let length = std::fs::metadata(manifest).expect("there").len();
    std::fs::File::options().write(true).open(manifest).expect("opened").set_len(length / 2).expect("cut");
    let before = files(&place.data());
    let said = place.refused(&["serve"]);
    assert!(said.contains("MANIFEST-"), "{said}");
    assert!(files(&place.data()) == before, "nothing is touched");
    assert_eq!(of_kind(&place.data(), "sst"), tables);

    // The tables are all there: RocksDB makes a new manifest of them.
    let did = place.done(&["repair"]);
    assert!(did.contains("damaged-1"), "{did}");
    let server = place.serve();
    assert_eq!(server.records(150).await, 150);
    server.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_taken_while_it_serves_is_restored_elsewhere() {
    let mut trial = Trial::of("restores");
    let (here, there) = (Place::new(), Place::new());
    let backups = here.folder.path().join("backups");
    let to = backups.display().to_string();
    let server = here.serve();
    server.post(0..100).await;
    assert_eq!(server.records(100).await, 100);
    here.done(&["backup", &to]);
    server.post(100..150).await;
    server.kill();
    // Of a folder that nobody holds.
    here.done(&["backup", &to, "--keep", "2"]);
    let mut all: Vec<_> = std::fs::read_dir(&backups).expect("backups").map(|one| one.expect("one").path()).collect();
    all.sort();
    assert_eq!(all.len(), 2, "{all:?}");

    for (backup, records) in [(all[0].display().to_string(), 100), (to.clone(), 150)] {
        if there.data().exists() {
            let output = there.run(&["restore", &backup]);
            assert!(!output.status.success() && text(&output.stderr).contains("--replace"), "{output:?}");
        }
        there.done(&["restore", &backup, "--replace"]);
        let server = there.serve();
        assert_eq!(server.records(records).await, records);
        server.post(1_000..1_001).await;
        assert_eq!(server.records(records + 1).await, records + 1);
        server.stop();
        trial.add(1);
    }

    // The youngest is damaged: refused, and the one before is still good.
    let before = files(&there.data());
    for name in ["BACKUP.json".to_owned(), of_kind(&all[1], "sst")[0].display().to_string()] {
        let path = all[1].join(name);
        let mut bytes = std::fs::read(&path).expect("read");
        let (at, old) = (bytes.len() / 2, bytes[bytes.len() / 2]);
        bytes[at] ^= 1;
        std::fs::write(&path, &bytes).expect("written");
        let said = there.refused(&["restore", &to, "--replace"]);
        assert!(said.contains(&*path.file_name().expect("a name").to_string_lossy()), "{said}");
        bytes[at] = old;
        std::fs::write(&path, &bytes).expect("written");
        trial.add(1);
    }
    assert!(files(&there.data()) == before, "nothing is touched");
    std::fs::remove_file(all[1].join("BACKUP.json")).expect("removed");
    // Without its list it is not complete: the youngest that is, is taken.
    there.done(&["restore", &to, "--replace"]);
    let server = there.serve();
    assert_eq!(server.records(100).await, 100);
    server.stop();
}

/// Killed in the middle, each of the commands leaves what was there, and goes through when it is given again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_is_killed_is_given_again() {
    let place = Place::new();
    let (backups, killed) =
        (place.folder.path().join("backups").display().to_string(), |arguments: &[&str], at: &str| {
            let output =
                place.command(arguments).env("SYNCLINE_FAULTS", format!("{at}=kill@1")).output().expect("it runs");
            assert_eq!(output.status.code(), None, "{at}: killed, not {}", text(&output.stderr));
        });
    let server = place.serve();
    server.post(0..50).await;
    assert_eq!(server.records(50).await, 50);
    server.kill();
    for at in ["backup.copied", "backup.complete"] {
        killed(&["backup", &backups], at);
        let output = place.run(&["restore", &backups, "--replace"]);
        assert!(!output.status.success() && text(&output.stderr).contains("no complete backup"), "{output:?}");
    }
    place.done(&["backup", &backups]);

    let left: Vec<_> = std::fs::read_dir(&backups).expect("backups").map(|one| one.expect("one").path()).collect();
    assert_eq!(left.len(), 1, "what was broken off is gone: {left:?}");

    std::fs::remove_file(place.data().join("HIGHWATER")).expect("removed");
    killed(&["repair"], "repair.set_aside");
    place.refused(&["serve"]);
    assert!(place.done(&["repair", "--dry-run"]).contains("broken off"));
    place.done(&["repair"]);
    assert!(place.done(&["repair", "--dry-run"]).contains("nothing is damaged"));

    for at in ["restore.copied", "restore.set_aside"] {
        killed(&["restore", &backups, "--replace"], at);
        if at == "restore.set_aside" {
            assert!(place.refused(&["serve"]).contains("run it again"));
        }
    }
    place.done(&["restore", &backups, "--replace"]);
    let server = place.serve();
    assert_eq!(server.records(50).await, 50);
    server.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_data_folder_is_nobody_elses_to_read() {
    let place = Place::new();
    let server = place.serve();
    server.post(0..3).await;
    let mode = |path: &Path| std::fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!(mode(&place.data()), 0o700);
    for (name, _) in files(&place.data()) {
        assert_eq!(mode(&place.data().join(&name)), 0o600, "{}", name.display());
    }
    server.stop();
    // One that was made by an earlier version is closed as well.
    std::fs::set_permissions(place.data(), std::fs::Permissions::from_mode(0o755)).expect("set");
    place.serve().stop();
    assert_eq!(mode(&place.data()), 0o700);
}
