//! A real Kafka broker for tests: started by `scripts/kafka.sh`, on loopback, gone with the test program.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use syncline_connectors::kafka::{Cluster, NewTopics};
use tempfile::TempDir;

/// Name of the variable with the address of a broker that is already running.
pub const RUNNING: &str = "SYNCLINE_TEST_KAFKA";

/// A broker of one's own, to be killed and started again.
pub struct Broker {
    folder: TempDir,
    address: String,
}

impl Broker {
    /// Starts one on free ports.
    pub fn start() -> Broker {
        let folder = tempfile::tempdir().expect("a folder");
        let address = start(&folder.path().join("broker"));
        Broker { folder, address }
    }

    /// Starts one whose address speaks TLS and wants a password; `secrets` are what a client needs.
    pub fn start_secure() -> (Broker, Secrets) {
        let folder = tempfile::tempdir().expect("a folder");
        let place = folder.path().join("broker");
        let address = script(&["start", "--secure", &place.display().to_string(), &std::process::id().to_string()]);
        let secrets = Secrets { ca: place.join("ca.pem"), user: "syncline", password: "syncline-secret" };
        (Broker { folder, address }, secrets)
    }

    /// `host:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Ends it at once, as a crash would.
    pub fn kill(&self) {
        script(&["kill", &self.place()]);
    }

    /// Starts it again on the same port with the data it had.
    pub fn restart(&self) {
        start(Path::new(&self.place()));
    }

    fn place(&self) -> String {
        self.folder.path().join("broker").display().to_string()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // What cannot be ended here ends with the program: `start` named its number.
        let _ = run(&["kill", &self.place()], Stdio::null());
    }
}

/// What a client of a secure broker needs.
pub struct Secrets {
    /// File with the certificate that vouches for the broker.
    pub ca: PathBuf,
    /// Who it is.
    pub user: &'static str,
    /// What it knows.
    pub password: &'static str,
}

/// The broker that the tests of one program share; it ends with the program. Its address.
pub fn shared() -> &'static str {
    static SHARED: OnceLock<String> = OnceLock::new();
    SHARED.get_or_init(|| {
        if let Some(address) = std::env::var(RUNNING).ok().filter(|address| !address.is_empty()) {
            return address;
        }
        let folder = std::env::temp_dir().join(format!("syncline-kafka-{}", std::process::id()));
        start(&folder)
    })
}

/// The shared broker under a prefix that nobody else uses: tests do not see each other's topics.
pub fn cluster(test: &str) -> Cluster {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    Cluster {
        brokers: shared().to_owned(),
        prefix: format!("{test}-{}-{number}", std::process::id()),
        topics: NewTopics { partitions: 3, replication: 1, ..NewTopics::default() },
        ..Cluster::default()
    }
}

/// The same with something to read.
pub fn tool_with(arguments: &[&str], input: &str) -> String {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), input).expect("input");
    fed(&[&["tool"], arguments].concat(), file.reopen().expect("a file").into())
}

/// Runs one of Kafka's own tools, e.g. `org.apache.kafka.tools.consumer.ConsoleConsumer`; what it printed.
pub fn tool(arguments: &[&str]) -> String {
    script(&[&["tool"], arguments].concat())
}

fn start(folder: &Path) -> String {
    let address = script(&["start", &folder.display().to_string(), &std::process::id().to_string()]);
    address.lines().last().unwrap_or_default().to_owned()
}

/// What the script printed; a test that needs a broker fails with what the script said when there is none to be had.
fn script(arguments: &[&str]) -> String {
    fed(arguments, Stdio::null())
}

fn fed(arguments: &[&str], input: Stdio) -> String {
    run(arguments, input).unwrap_or_else(|why| panic!("kafka.sh {}: {why}", arguments.first().unwrap_or(&"")))
}

fn run(arguments: &[&str], input: Stdio) -> Result<String, String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/kafka.sh");
    let told = |e: std::io::Error| format!("{}: {e}", script.display());
    let errors = tempfile::NamedTempFile::new().map_err(told)?;
    let mut command = Command::new(&script);
    command.args(arguments).stdin(input).stderr(errors.reopen().map_err(told)?);
    command.env("SYNCLINE_KAFKA_JARS", jars());
    // Its output goes to a pipe that no process of the script's keeps open: the broker's own goes to a file.
    let output = command.output().map_err(told)?;
    let said = std::fs::read_to_string(errors.path()).unwrap_or_default();
    if !output.status.success() {
        return Err(format!("{}\n{said}", output.status));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Where the jars lie: beside what other interop tests fetch.
fn jars() -> PathBuf {
    crate::tools::cache("kafka").join("jars")
}
