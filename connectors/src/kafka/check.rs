//! Whether a broker answers, and if not, why: told in our words, in bounded time.
//!
//! Promises: [`Cluster::check`] ends within [`PATIENCE`]; a refused password and a certificate nobody vouches for are told
//! at once and apart from a broker that does not answer; the message says what to look at next and holds no secret.
//! librdkafka itself never gives up and reports such things only to a callback: [`Witness`] is that callback.

use super::cluster::Cluster;
use crate::kafka::polled::Polled;
use parking_lot::Mutex;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{Producer, ProducerContext};
use std::time::Duration;
use syncline_engine::model::Failure;

/// Longest wait for a broker's answer.
pub const PATIENCE: Duration = Duration::from_secs(8);
/// Between two looks at what the client has complained about.
const LOOK: Duration = Duration::from_millis(200);

/// What keeps a client from its broker; the later, the more it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Obstacle {
    /// No answer.
    Silence,
    /// A connection, cut off at our first word: so does a broker that wants TLS and is spoken to without. One that is just
    /// starting may do it too, so this counts only when it stays so.
    HungUp,
    /// An answer, but no TLS connection, or one side speaks TLS and the other does not.
    Tls,
    /// Who we are is not believed.
    Denied,
}

/// Listens to what the client complains about and keeps the complaint that says most.
#[derive(Default)]
struct Witness {
    heard: Mutex<Option<(Obstacle, String)>>,
}

impl Cluster {
    /// Asks the brokers for a sign of life.
    ///
    /// Failures: `kafka_unreachable` (no answer in time), `kafka_denied` (user or password refused), `kafka_tls` (no
    /// encrypted connection), `kafka_settings` (the client cannot be made of the properties).
    pub async fn check(&self) -> Result<(), Failure> {
        let cluster = self.clone();
        let asked = tokio::task::spawn_blocking(move || cluster.ask()).await;
        asked.unwrap_or_else(|died| Err(failed("kafka_unreachable", format!("the question ended early: {died}"), true)))
    }

    fn ask(&self) -> Result<(), Failure> {
        let mut config = self.client();
        // Quick to try again: whoever waits here is a person or the program's start.
        config.set("reconnect.backoff.max.ms", "500");
        // The lowest level on which it says that a broker hung up.
        config.set_log_level(RDKafkaLogLevel::Info);
        let client: Polled<Witness> =
            config.create_with_context(Witness::default()).map_err(|error| self.unmade(&error))?;
        for _ in 0..PATIENCE.as_millis() / LOOK.as_millis() {
            if client.client().fetch_cluster_id(LOOK).is_some() {
                return Ok(());
            }
            // Only time can help against silence; trying again helps against nothing else.
            match client.context().heard() {
                Some((obstacle, reason)) if obstacle > Obstacle::HungUp => return Err(self.explain(obstacle, &reason)),
                _ => {}
            }
        }
        let (obstacle, reason) = client.context().heard().unwrap_or((Obstacle::Silence, "no answer".into()));
        Err(self.explain(obstacle, &reason))
    }

    fn explain(&self, obstacle: Obstacle, reason: &str) -> Failure {
        let (code, fact, next) = match obstacle {
            Obstacle::Silence => (
                "kafka_unreachable",
                "cannot be reached",
                "see whether the broker runs and listens there, and whether `kafka.brokers` and, for a broker with TLS or \
                 passwords, `security.protocol` in `kafka.properties` are right",
            ),
            Obstacle::HungUp => (
                "kafka_tls",
                "hangs up on a client that speaks without TLS",
                "set `security.protocol` in `kafka.properties` to ssl or sasl_ssl",
            ),
            Obstacle::Tls => (
                "kafka_tls",
                "cannot be spoken to with TLS as set",
                "see `security.protocol` and `ssl.ca.location` in `kafka.properties`: the file must hold the certificate \
                 that vouches for the broker, under the very name in `kafka.brokers`",
            ),
            Obstacle::Denied => (
                "kafka_denied",
                "refused who we are",
                "see `sasl.username`, `sasl.password` and `sasl.mechanism` in `kafka.properties`",
            ),
        };
        let message = format!("the Kafka broker {} {fact} ({reason}); {next}", self.brokers);
        failed(code, message, obstacle == Obstacle::Silence)
    }

    /// A client that cannot even be made: a property is wrong, or a file it names.
    fn unmade(&self, error: &KafkaError) -> Failure {
        let reason = error.to_string();
        if reason.contains("ssl.") || reason.contains("SSL") {
            return self.explain(Obstacle::Tls, &short(&reason));
        }
        failed("kafka_settings", format!("the Kafka client cannot be made; see `kafka.properties`: {reason}"), false)
    }
}

fn failed(code: &'static str, message: String, retry: bool) -> Failure {
    Failure { code, message, status: None, retry, retry_after: None }
}

impl Witness {
    fn heard(&self) -> Option<(Obstacle, String)> {
        self.heard.lock().clone()
    }

    /// Log lines begin with the thread that wrote them.
    fn keep(&self, obstacle: Obstacle, reason: &str) {
        let mut heard = self.heard.lock();
        if heard.as_ref().is_none_or(|(known, _)| obstacle > *known) {
            let reason = reason.strip_prefix("[thrd:").and_then(|r| r.split_once("]: ")).map_or(reason, |(_, r)| r);
            *heard = Some((obstacle, short(reason)));
        }
    }
}

/// Sorts a complaint of librdkafka's.
fn sort(code: Option<RDKafkaErrorCode>, reason: &str) -> Option<Obstacle> {
    use RDKafkaErrorCode as Code;
    match code? {
        Code::Authentication
        | Code::SaslAuthenticationFailed
        | Code::UnsupportedSASLMechanism
        | Code::IllegalSASLState => Some(Obstacle::Denied),
        Code::SSL => Some(Obstacle::Tls),
        Code::BrokerTransportFailure if hung_up(reason) => Some(Obstacle::HungUp),
        // Said after every single failure when there is one broker: says nothing.
        Code::AllBrokersDown => None,
        _ => Some(Obstacle::Silence),
    }
}

/// Whether a broker cut the connection at the very first question, which is about versions.
fn hung_up(reason: &str) -> bool {
    reason.contains("Disconnected") && (reason.contains("APIVERSION_QUERY") || reason.contains("security.protocol"))
}

/// Without what only librdkafka's authors can use: `… (after 5ms in state CONNECT, 1 identical error(s) suppressed)`.
fn short(reason: &str) -> String {
    let cut = reason.rfind(" (after ").map_or(reason, |at| reason.get(..at).unwrap_or(reason));
    cut.trim_end_matches([':', ' ']).to_owned()
}

impl ClientContext for Witness {
    fn error(&self, error: KafkaError, reason: &str) {
        if let Some(obstacle) = sort(error.rdkafka_error_code(), reason) {
            self.keep(obstacle, reason);
        }
    }

    fn log(&self, _level: RDKafkaLogLevel, area: &str, text: &str) {
        // Most of what matters comes to `error` too.
        if area == "FAIL" && hung_up(text) {
            self.keep(Obstacle::HungUp, text);
        }
        tracing::debug!(target: "librdkafka", area, "{text}");
    }
}

impl ProducerContext for Witness {
    type DeliveryOpaque = ();

    fn delivery(&self, _result: &DeliveryResult<'_>, _opaque: ()) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_complaint_that_says_most_is_kept() {
        let witness = Witness::default();
        let say = |code, reason: &str| witness.error(KafkaError::Global(code), reason);
        say(RDKafkaErrorCode::AllBrokersDown, "1/1 brokers are down");
        assert_eq!(witness.heard(), None);
        say(RDKafkaErrorCode::BrokerTransportFailure, "a:1: Connect failed: refused (after 5ms in state CONNECT)");
        assert_eq!(witness.heard(), Some((Obstacle::Silence, "a:1: Connect failed: refused".into())));
        say(RDKafkaErrorCode::Authentication, "a:1: bad password");
        say(RDKafkaErrorCode::SSL, "later");
        assert_eq!(witness.heard(), Some((Obstacle::Denied, "a:1: bad password".into())));
    }

    #[test]
    fn a_broker_that_hangs_up_at_the_first_word_is_told_apart() {
        let told = "a:1: Disconnected: connection closed by peer (after 36ms in state APIVERSION_QUERY)";
        assert_eq!(sort(Some(RDKafkaErrorCode::BrokerTransportFailure), told), Some(Obstacle::HungUp));
        assert_eq!(sort(Some(RDKafkaErrorCode::BrokerTransportFailure), "timed out"), Some(Obstacle::Silence));
    }
}
