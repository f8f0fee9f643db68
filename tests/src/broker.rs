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
        script(&["kill", &self.place()]);
    }
}

/// The broker that the tests of one program share; it ends with the program. Its address.
pub fn shared() -> &'static str {
    static SHARED: OnceLock<String> = OnceLock::new();
    SHARED.get_or_init(|| {
        if let Ok(address) = std::env::var(RUNNING) {
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
    run(&[&["tool"], arguments].concat(), file.reopen().expect("a file").into())
}

/// Runs one of Kafka's own tools, e.g. `org.apache.kafka.tools.consumer.ConsoleConsumer`; what it printed.
pub fn tool(arguments: &[&str]) -> String {
    script(&[&["tool"], arguments].concat())
}

fn start(folder: &Path) -> String {
    let address = script(&["start", &folder.display().to_string(), &std::process::id().to_string()]);
    address.lines().last().unwrap_or_default().to_owned()
}

fn script(arguments: &[&str]) -> String {
    run(arguments, Stdio::null())
}

fn run(arguments: &[&str], input: Stdio) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/kafka.sh");
    let errors = tempfile::NamedTempFile::new().expect("a file");
    let mut command = Command::new(&script);
    command.args(arguments).stdin(input).stderr(errors.reopen().expect("a file"));
    command.env("SYNCLINE_KAFKA_JARS", jars());
    // Its output goes to a pipe that no process of the script's keeps open: the broker's own goes to a file.
    let output = command.output().unwrap_or_else(|e| panic!("{}: {e}", script.display()));
    let said = std::fs::read_to_string(errors.path()).unwrap_or_default();
    assert!(output.status.success(), "kafka.sh {arguments:?}: {}\n{said}", output.status);
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Where the jars lie: beside what other interop tests fetch.
fn jars() -> PathBuf {
    crate::tools::cache("kafka").join("jars")
}
