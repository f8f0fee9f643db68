//! Errors injected into log and changelog by librdkafka's mock cluster: hundreds a broker gives once a year.
//!
//! The mock ignores isolation levels: messages of an aborted transaction stay visible on it. So these tests prove that
//! errors are survived or said, that nothing acknowledged is lost, and the order; that a commit is whole is proved on a
//! real broker. Nor does it append what it answers with an error.

use super::changelog::KafkaChangelog;
use super::cluster::Cluster;
use super::log::KafkaLog;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::RDKafkaApiKey::{self, AddPartitionsToTxn, EndTxn, InitProducerId, Produce};
use rdkafka::types::RDKafkaRespErr::{
    self, RD_KAFKA_RESP_ERR__TRANSPORT, RD_KAFKA_RESP_ERR_CONCURRENT_TRANSACTIONS,
    RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS, RD_KAFKA_RESP_ERR_COORDINATOR_NOT_AVAILABLE,
    RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE, RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE, RD_KAFKA_RESP_ERR_NOT_COORDINATOR,
    RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS, RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS_AFTER_APPEND,
    RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION, RD_KAFKA_RESP_ERR_PRODUCER_FENCED, RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT,
    RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use syncline_engine::log::{Changelog, Error, Log, Write};

const TOPIC: &str = "t";

/// What a broker in trouble answers to writing.
const PRODUCE: [RDKafkaRespErr; 8] = [
    RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS,
    RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS_AFTER_APPEND,
    RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT,
    RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS,
    RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT,
    RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE,
    RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
    RD_KAFKA_RESP_ERR__TRANSPORT,
];
/// What a coordinator in trouble answers to a transaction's steps; an unanswered end leaves the outcome unknown.
const COORDINATE: [RDKafkaRespErr; 8] = [
    RD_KAFKA_RESP_ERR_CONCURRENT_TRANSACTIONS,
    RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS,
    RD_KAFKA_RESP_ERR_CONCURRENT_TRANSACTIONS,
    RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS,
    RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT,
    RD_KAFKA_RESP_ERR__TRANSPORT,
    RD_KAFKA_RESP_ERR_COORDINATOR_NOT_AVAILABLE,
    RD_KAFKA_RESP_ERR_NOT_COORDINATOR,
];

struct BrokerFaults {
    mock: MockCluster<'static, DefaultProducerContext>,
    cluster: Cluster,
    rng: StdRng,
    injected: usize,
}

impl BrokerFaults {
    fn new(seed: u64) -> Self {
        let mock = MockCluster::new(1).expect("a mock cluster");
        mock.create_topic(TOPIC, 1, 1).expect("a topic");
        let cluster = Cluster { brokers: mock.bootstrap_servers(), ..Cluster::default() };
        BrokerFaults { mock, cluster, rng: StdRng::seed_from_u64(seed), injected: 0 }
    }

    /// The next requests of this kind fail, up to this many of them.
    fn inject(&mut self, kind: RDKafkaApiKey, errors: &[RDKafkaRespErr], most: usize) {
        let count = self.rng.random_range(1..=most);
        let chosen: Vec<_> = (0..count).map(|_| errors[self.rng.random_range(0..errors.len())]).collect();
        self.mock.request_errors(kind, &chosen);
        self.injected += count;
    }

    fn changelog(&self) -> KafkaChangelog {
        KafkaChangelog::open(&self.cluster, TOPIC, 0, "name").expect("opens")
    }
}

#[test]
fn the_log_survives_what_a_broker_answers() {
    let mut ground = BrokerFaults::new(1);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let log = Arc::new(KafkaLog::open(&ground.cluster, TOPIC, 0).await.expect("opens"));
        let (mut acknowledged, mut refused, mut unknown) = (Vec::new(), 0, Vec::new());
        for round in 0..40 {
            let too_large = round % 8 == 7;
            match too_large {
                true => ground.inject(Produce, &[RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE], 1),
                false => ground.inject(Produce, &PRODUCE, 5),
            }
            let appends = (0..4).map(|n| {
                let text = format!("{round:03} {n}");
                let log = log.clone();
                async move { (text.clone(), log.append(vec![text.into_bytes()]).await) }
            });
            for (text, answer) in futures_util::future::join_all(appends).await {
                match answer {
                    Ok(position) => acknowledged.push((position, text)),
                    Err(Error::TooLarge { .. }) if too_large => refused += 1,
                    // The broker has it and forgot where: what is refused in doubt may be there.
                    Err(Error::Unreachable(_)) => unknown.push(text),
                    Err(error) => panic!("round {round}: {error}"),
                }
            }
        }
        assert!(ground.injected > 100, "{} errors", ground.injected);
        assert!((1..=20).contains(&refused), "{refused} refused");
        let there: Vec<(u64, String)> = log
            .read(0, 1_000)
            .expect("reads")
            .into_iter()
            .map(|(position, entry)| (position, String::from_utf8_lossy(&entry).into_owned()))
            .collect();
        // The mock looks at the numbers of transactional producers only: what was sent again after a broken connection may
        // stand there twice, where a broker drops it (`tests/tests/it/log.rs` kills a real one and counts).
        let lost: Vec<_> = acknowledged.iter().filter(|entry| !there.contains(entry)).collect();
        assert!(lost.is_empty(), "acknowledged and not in its place: {lost:?}");
        assert!(acknowledged.is_sorted(), "positions rise in the order in which entries were handed over");
        let known = |text: &String| unknown.contains(text) || acknowledged.iter().any(|(_, other)| other == text);
        let strange: Vec<_> = there.iter().filter(|(_, text)| !known(text)).collect();
        assert!(strange.is_empty(), "refused, and there all the same: {strange:?}");
        assert!(unknown.len() < 20, "{unknown:?}");
    });
}

#[test]
fn the_changelog_survives_what_brokers_and_coordinators_answer() {
    let mut ground = BrokerFaults::new(2);
    let mut changelog = ground.changelog();
    let mut model: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    for round in 0..36u32 {
        match round % 18 {
            0..7 => ground.inject(Produce, &PRODUCE, 6),
            7..11 => ground.inject(AddPartitionsToTxn, &COORDINATE, 4),
            11..15 => ground.inject(EndTxn, &COORDINATE, 4),
            15..17 => ground.inject(AddPartitionsToTxn, &[RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED], 2),
            _ => {
                ground.inject(InitProducerId, &COORDINATE, 3);
                changelog = ground.changelog();
            }
        }
        let writes: Vec<Write> = (0..ground.rng.random_range(1..20u8))
            .map(|n| {
                let value = (ground.rng.random_range(0..4) > 0).then(|| format!("{round} {n}").into_bytes());
                Write { key: vec![1, ground.rng.random_range(0..30)], value }
            })
            .collect();
        changelog.commit(&writes).unwrap_or_else(|error| panic!("round {round}: {error}"));
        for write in writes {
            match write.value {
                Some(value) => model.insert(write.key, value),
                None => model.remove(&write.key),
            };
        }
    }
    assert!(ground.injected >= 80, "{} errors", ground.injected);
    let mut found = BTreeMap::new();
    let each = &mut |chunk: Vec<Write>, _| {
        for write in chunk {
            match write.value {
                Some(value) => found.insert(write.key, value),
                None => found.remove(&write.key),
            };
        }
        Ok(())
    };
    changelog.replay(0, each).expect("replays");
    assert_eq!(found, model);
}

#[test]
fn what_cannot_be_survived_is_said_and_closes_the_changelog() {
    let ground = BrokerFaults::new(3);
    let write = Write { key: vec![1], value: Some(vec![1]) };
    let changelog = ground.changelog();
    ground.mock.request_errors(EndTxn, &[RD_KAFKA_RESP_ERR_PRODUCER_FENCED]);
    let fenced = changelog.commit(std::slice::from_ref(&write));
    assert!(matches!(fenced, Err(Error::Fenced(_))), "{fenced:?}");
    assert!(matches!(changelog.commit(std::slice::from_ref(&write)), Err(Error::Fenced(_))), "closed");
    let changelog = ground.changelog();
    ground.mock.request_errors(Produce, &[RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE]);
    let large = changelog.commit(std::slice::from_ref(&write));
    assert!(matches!(large, Err(Error::TooLarge { .. })), "{large:?}");
    let changelog = ground.changelog();
    let never = [RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED; 20];
    ground.mock.request_errors(AddPartitionsToTxn, &never);
    let bounded = changelog.commit(std::slice::from_ref(&write));
    assert!(matches!(bounded, Err(Error::Unreachable(_))), "{bounded:?}");
}
