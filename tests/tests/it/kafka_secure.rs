//! TLS and passwords (SASL) against a real broker that wants both: what works, and how what does not is told.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::OnceLock;
use syncline_connectors::kafka::topics::{self, TopicSpec};
use syncline_connectors::kafka::{Cluster, NewTopics};
use syncline_tests::broker::{Broker, Secrets};

/// One secure broker for the tests of this file: never dropped, it ends with the program.
fn broker() -> &'static (Broker, Secrets) {
    static SHARED: OnceLock<(Broker, Secrets)> = OnceLock::new();
    SHARED.get_or_init(Broker::start_secure)
}

/// The secure broker, as the settings of somebody who knows everything describe it, after `change`.
fn cluster(change: impl FnOnce(&mut BTreeMap<String, String>)) -> Cluster {
    let (broker, secrets) = broker();
    let known = [
        ("security.protocol", "sasl_ssl"),
        ("sasl.mechanism", "SCRAM-SHA-512"),
        ("sasl.username", secrets.user),
        ("sasl.password", secrets.password),
        ("ssl.ca.location", secrets.ca.to_str().expect("a path of text")),
    ];
    let mut properties = known.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    change(&mut properties);
    Cluster {
        brokers: broker.address().to_owned(),
        properties,
        topics: NewTopics { partitions: 2, replication: 1, ..NewTopics::default() },
        ..Cluster::default()
    }
}

/// Code and message of a check that fails.
async fn refused(cluster: Cluster) -> (&'static str, String) {
    let failure = cluster.check().await.expect_err("this must not work");
    assert!(!failure.message.contains("syncline-secret"), "a secret is told: {}", failure.message);
    (failure.code, failure.message)
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_right_certificate_and_password_everything_works() {
    for mechanism in ["SCRAM-SHA-512", "PLAIN"] {
        let cluster = cluster(|p| drop(p.insert("sasl.mechanism".into(), mechanism.into())));
        cluster.check().await.unwrap_or_else(|f| panic!("{mechanism}: {}", f.message));
        let topic = format!("secure.{mechanism}");
        let counts = topics::ensure(&cluster, &[TopicSpec::new(&topic)]).await.expect("made");
        assert_eq!(counts, [2]);
        assert_eq!(topics::count(&cluster, &topic).await.expect("an answer"), Some(2));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_denied_and_named() {
    for mechanism in ["SCRAM-SHA-512", "PLAIN"] {
        let wrong = cluster(|p| {
            p.insert("sasl.mechanism".into(), mechanism.into());
            p.insert("sasl.password".into(), "guessed".into());
        });
        let (code, message) = refused(wrong).await;
        assert_eq!(code, "kafka_denied", "{message}");
        assert!(message.contains("sasl.password") && message.contains(broker().0.address()), "{message}");
        assert!(!message.contains("guessed"), "{message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mechanism_the_broker_does_not_have_is_denied() {
    let (code, message) = refused(cluster(|p| drop(p.insert("sasl.mechanism".into(), "SCRAM-SHA-256".into())))).await;
    assert_eq!(code, "kafka_denied", "{message}");
    assert!(message.contains("sasl.mechanism"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_nobody_vouches_for_is_a_matter_of_tls() {
    // Without our file, the authorities of the system count; they know nothing of this broker.
    let (code, message) = refused(cluster(|p| drop(p.remove("ssl.ca.location")))).await;
    assert_eq!(code, "kafka_tls", "{message}");
    assert!(message.contains("ssl.ca.location"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_nobody_knows_is_unreachable() {
    let mut cluster = cluster(|_| {});
    cluster.brokers = cluster.brokers.replace("127.0.0.1", "broker.invalid");
    let (code, message) = refused(cluster).await;
    assert_eq!(code, "kafka_unreachable", "{message}");
    assert!(message.contains("broker.invalid"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_certificate_file_is_named() {
    let missing = Path::new("/nowhere/ca.pem").display().to_string();
    let (code, message) = refused(cluster(|p| drop(p.insert("ssl.ca.location".into(), missing)))).await;
    assert_eq!(code, "kafka_tls", "{message}");
    assert!(message.contains("ssl.ca.location"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_text_to_a_broker_that_wants_tls_is_told_as_such() {
    let (code, message) = refused(cluster(BTreeMap::clear)).await;
    assert_eq!(code, "kafka_tls", "{message}");
    assert!(message.contains("security.protocol"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_broker_at_all_is_unreachable() {
    // A port that was ours a moment ago: nobody listens on it.
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port();
    let nobody = Cluster { brokers: format!("127.0.0.1:{port}"), ..Cluster::default() };
    let (code, message) = refused(nobody.clone()).await;
    assert_eq!(code, "kafka_unreachable", "{message}");
    assert!(message.contains(&nobody.brokers) && message.contains("kafka.brokers"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_property_that_does_not_exist_is_named() {
    let (code, message) = refused(cluster(|p| drop(p.insert("sasl.pasword".into(), "x".into())))).await;
    assert_eq!(code, "kafka_settings", "{message}");
    assert!(message.contains("sasl.pasword"), "{message}");
}
