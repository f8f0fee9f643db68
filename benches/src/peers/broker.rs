//! The broker all systems share: `scripts/kafka.sh`, with the JVM's full compiler.

use crate::Fault;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What `scripts/kafka/pom.xml` names.
pub const VERSION: &str = "4.1.0";

/// A running broker; ends with this value.
pub struct Broker {
    /// `host:port`.
    pub address: String,
    script: PathBuf,
    folder: PathBuf,
}

impl Broker {
    /// Starts one with its data in `folder`.
    pub fn start(root: &Path, folder: &Path) -> Result<Broker, Fault> {
        let script = root.join("scripts/kafka.sh");
        let mut command = Command::new(&script);
        command.arg("start").arg(folder).arg(std::process::id().to_string()).stdin(Stdio::null());
        command.env("SYNCLINE_KAFKA_FULL_JIT", "1").env("SYNCLINE_KAFKA_HEAP", "1g");
        let output = command.stderr(Stdio::inherit()).output()?;
        if !output.status.success() {
            return Err("no broker could be started; see above".into());
        }
        let address = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        Ok(Broker { address, script, folder: folder.to_owned() })
    }

    /// Its process.
    pub fn pid(&self) -> Result<u32, Fault> {
        Ok(std::fs::read_to_string(self.folder.join("pid"))?.trim().parse()?)
    }

    /// What every client begins with.
    pub fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.address);
        config
    }

    /// Makes topics.
    pub fn make(&self, names: &[&str], partitions: i32) -> Result<(), Fault> {
        let admin: AdminClient<DefaultClientContext> = self.client().create()?;
        let new: Vec<NewTopic> =
            names.iter().map(|name| NewTopic::new(name, partitions, TopicReplication::Fixed(1))).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        for made in runtime.block_on(admin.create_topics(&new, &AdminOptions::new()))? {
            made.map_err(|(name, code)| format!("the topic {name} cannot be made: {code}"))?;
        }
        Ok(())
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // Nothing of it is worth keeping; it ends with this program anyway.
        let _ = Command::new(&self.script).arg("kill").arg(&self.folder).status();
    }
}
