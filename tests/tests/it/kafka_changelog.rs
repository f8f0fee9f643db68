//! A store's copy on a compacted topic of a real broker: whole commits, in order, by one writer, wherever anyone dies.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use syncline_connectors::kafka::changelog::{KafkaChangelog, state_topic};
use syncline_connectors::kafka::{Cluster, topics};
use syncline_engine::log::{Changelog, Error, Write};
use syncline_tests::broker::{self, Broker};
use tokio::runtime::Runtime;

const PARTITION: i32 = 2;

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

/// A topic for changelogs.
struct Ground {
    cluster: Cluster,
    topic: String,
}

impl Ground {
    fn new(test: &str) -> Self {
        Ground::on(broker::cluster(test), &[])
    }

    fn on(cluster: Cluster, settings: &[(&'static str, &str)]) -> Self {
        let mut wanted = state_topic(&cluster);
        for (key, value) in settings {
            wanted.config.retain(|(k, _)| k != key);
            wanted = wanted.with(key, *value);
        }
        let runtime = Runtime::new().expect("a runtime");
        runtime.block_on(topics::ensure(&cluster, std::slice::from_ref(&wanted))).expect("the topic");
        Ground { cluster, topic: wanted.name }
    }

    fn open(&self) -> Result<KafkaChangelog, Error> {
        self.open_as("owner")
    }

    fn open_as(&self, name: &str) -> Result<KafkaChangelog, Error> {
        let name = format!("{}/{PARTITION}/{name}", self.cluster.prefix);
        KafkaChangelog::open(&self.cluster, &self.topic, PARTITION, &name)
    }
}

fn put(key: &str, value: &str) -> Write {
    Write { key: key.as_bytes().to_vec(), value: Some(value.as_bytes().to_vec()) }
}

fn delete(key: &str) -> Write {
    Write { key: key.as_bytes().to_vec(), value: None }
}

fn apply(map: &mut Map, writes: &[Write]) {
    for write in writes {
        match &write.value {
            Some(value) => map.insert(write.key.clone(), value.clone()),
            None => map.remove(&write.key),
        };
    }
}

/// Reads on from a place onto what was there; how many writes that took.
fn read_on(changelog: &KafkaChangelog, place: u64, map: &mut Map) -> Result<(u64, u64), Error> {
    let (mut last, mut writes) = (place, 0);
    let end = changelog.replay(place, &mut |chunk, at| {
        assert!(at > last || last == 0, "places rise");
        assert!(chunk.len() <= 8_192, "a chunk is bounded");
        last = at;
        writes += chunk.len() as u64;
        apply(map, &chunk);
        Ok(())
    })?;
    assert!(end >= last);
    Ok((end, writes))
}

fn rebuilt(changelog: &KafkaChangelog) -> Map {
    let mut map = Map::new();
    read_on(changelog, 0, &mut map).expect("replays");
    map
}

#[test]
fn what_is_committed_comes_back() {
    let ground = Ground::new("comes");
    let changelog = ground.open().expect("opens");
    assert_eq!(changelog.term(), 1);
    let first = changelog.commit(&[put("a", "1"), put("b", "2"), put("empty", "")]).expect("commits");
    let mut early = rebuilt(&changelog);
    assert_eq!(early.get(b"empty".as_slice()), Some(&Vec::new()), "an empty value is no deletion");
    let second = changelog.commit(&[delete("a"), put("b", "3"), put("b", "4"), delete("never")]).expect("commits");
    assert!(second > first);
    let map = rebuilt(&changelog);
    assert_eq!(map, [("b", "4"), ("empty", "")].map(|(k, v)| (k.into(), v.into())).into());
    let (end, writes) = read_on(&changelog, first, &mut early).expect("replays");
    assert_eq!((early, writes), (map.clone(), 4), "reading on gives the same and no more than the rest");
    assert_eq!(read_on(&changelog, end, &mut Map::new()).expect("replays"), (end, 0));
    assert_eq!(read_on(&changelog, second, &mut Map::new()).expect("replays").1, 0);
    assert!(changelog.commit(&[]).is_ok(), "a commit of nothing is one");
    drop(changelog);
    let changelog = ground.open().expect("opens");
    assert_eq!((changelog.term(), rebuilt(&changelog)), (2, map));
}

#[test]
fn the_second_to_open_ends_the_first() {
    let ground = Ground::new("fence");
    let first = ground.open().expect("opens");
    first.commit(&[put("a", "1")]).expect("commits");
    let second = ground.open().expect("opens");
    let refused = first.commit(&[put("a", "zombie"), put("z", "zombie")]);
    assert!(matches!(refused, Err(Error::Fenced(_))), "{refused:?}");
    let again = first.commit(&[put("a", "zombie")]);
    assert!(matches!(again, Err(Error::Fenced(_))), "{again:?}");
    second.commit(&[put("b", "2")]).expect("commits");
    assert_eq!(rebuilt(&second), [("a", "1"), ("b", "2")].map(|(k, v)| (k.into(), v.into())).into());
    assert_eq!((first.term(), second.term()), (1, 2));
}

/// The broker fences by name. Under another name it lets the zombie through, as a faulty broker would.
#[test]
fn what_a_zombie_writes_past_the_broker_is_left_out() {
    let ground = Ground::new("guard");
    let zombie = ground.open_as("zombie").expect("opens");
    zombie.commit(&[put("a", "1"), put("b", "1")]).expect("commits");
    let owner = ground.open_as("owner").expect("opens");
    assert_eq!((zombie.term(), owner.term()), (1, 2));
    zombie.commit(&[put("a", "zombie"), delete("b"), put("z", "zombie")]).expect("the broker lets it through");
    let expected: Map = [("a", "1"), ("b", "1")].map(|(k, v)| (k.into(), v.into())).into();
    assert_eq!(rebuilt(&owner), expected);
    owner.commit(&[put("b", "2")]).expect("commits");
    zombie.commit(&[put("b", "zombie")]).expect("the broker lets it through");
    assert_eq!(rebuilt(&owner)[b"b".as_slice()], b"2");
    assert_eq!(ground.open_as("next").expect("opens").term(), 3);
}

#[test]
fn a_large_commit_is_whole_and_comes_in_bounded_chunks() {
    let ground = Ground::new("large");
    let changelog = ground.open().expect("opens");
    let writes: Vec<Write> = (0..30_000).map(|n| put(&format!("k{n}"), &format!("{n}").repeat(50))).collect();
    let place = changelog.commit(&writes).expect("commits");
    let big = Write { key: b"big".to_vec(), value: Some(vec![7; 40 << 20]) };
    changelog.commit(&[big.clone(), big.clone(), big.clone()]).expect("commits what is larger than the queue");
    let mut model = Map::new();
    apply(&mut model, &writes);
    apply(&mut model, &[big]);
    assert!(rebuilt(&changelog) == model, "maps differ");
    assert_eq!(read_on(&changelog, place, &mut Map::new()).expect("replays").1, 3);
    let refused = changelog.commit(&[Write { key: vec![1], value: Some(vec![0; 64 << 20]) }]);
    assert!(matches!(refused, Err(Error::TooLarge { .. })), "{refused:?}");
}

#[test]
fn a_topic_made_anew_is_said() {
    let ground = Ground::new("anew");
    let changelog = ground.open().expect("opens");
    let place = changelog.commit(&[put("a", "1")]).expect("commits");
    drop(changelog);
    let arguments = ["--bootstrap-server", &ground.cluster.brokers, "--delete", "--topic", &ground.topic];
    broker::tool(&[&["org.apache.kafka.tools.TopicCommand"], arguments.as_slice()].concat());
    let ground = Ground::on(ground.cluster, &[]);
    let changelog = ground.open().expect("opens");
    for n in 0..5 {
        changelog.commit(&[put("b", &n.to_string())]).expect("commits");
    }
    let gone = read_on(&changelog, place, &mut Map::new());
    assert!(matches!(gone, Err(Error::Gone(_))), "{gone:?}");
    assert_eq!(rebuilt(&changelog).len(), 1);
}

#[test]
fn random_histories_come_back_from_any_place() {
    let seed: u64 = rand::rng().random();
    println!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let ground = Ground::new("random");
    let mut changelog = ground.open().expect("opens");
    let mut model = Map::new();
    let mut copies: Vec<(u64, Map)> = vec![(0, Map::new())];
    for round in 0..120 {
        if rng.random_range(0..15) == 0 {
            changelog = ground.open().expect("opens");
        }
        let writes: Vec<Write> = (0..rng.random_range(1..30))
            .map(|_| {
                let key = format!("k{}", rng.random_range(0..60));
                if rng.random_range(0..3) == 0 { delete(&key) } else { put(&key, &rng.random::<u32>().to_string()) }
            })
            .collect();
        let place = changelog.commit(&writes).expect("commits");
        apply(&mut model, &writes);
        if rng.random_range(0..10) == 0 {
            copies.push((place, model.clone()));
        }
        if rng.random_range(0..12) == 0 {
            let (place, mut copy) = copies[rng.random_range(0..copies.len())].clone();
            read_on(&changelog, place, &mut copy).expect("replays");
            assert_eq!(copy, model, "round {round}, seed {seed}");
        }
    }
    for (place, mut copy) in copies {
        read_on(&changelog, place, &mut copy).expect("replays");
        assert_eq!(copy, model, "seed {seed}");
    }
}

#[test]
fn a_broker_killed_amid_commits_leaves_whole_commits_only() {
    let broker = Broker::start();
    let cluster = Cluster { brokers: broker.address().to_owned(), ..broker::cluster("killed") };
    let ground = Ground::on(cluster, &[]);
    let seed: u64 = rand::rng().random();
    println!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let mut model = Map::new();
    let (mut acknowledged, mut unknown) = (0u64, 0u64);
    for _ in 0..3 {
        let changelog = ground.open().expect("opens");
        assert_eq!(rebuilt(&changelog), model, "seed {seed}");
        std::thread::scope(|scope| {
            // Commits are under way from now on, one after the other.
            let killer = scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(300));
                broker.kill();
                broker.restart();
            });
            let mut after = 0;
            while after < 20 {
                let n = rng.random_range(1..200);
                let writes: Vec<Write> = (0..n)
                    .map(|_| put(&format!("k{}", rng.random_range(0..500)), &rng.random::<u64>().to_string()))
                    .collect();
                let mut with = model.clone();
                apply(&mut with, &writes);
                match changelog.commit(&writes) {
                    Ok(_) => {
                        acknowledged += 1;
                        model = with;
                    }
                    Err(error) => {
                        unknown += 1;
                        println!("outcome unknown: {error}");
                        let found = rebuilt(&ground.open().expect("opens"));
                        assert!(found == model || found == with, "a part of a commit is there; seed {seed}");
                        model = found;
                        break;
                    }
                }
                after += u64::from(killer.is_finished());
            }
            killer.join().expect("killed and restarted");
        });
    }
    println!("{acknowledged} acknowledged, {unknown} unknown");
    assert_eq!(rebuilt(&ground.open().expect("opens")), model, "seed {seed}");
    assert!(acknowledged > 60 || unknown > 0, "nothing was under way when the broker was killed");
}

#[test]
fn compaction_takes_nothing_that_counts() {
    let quick =
        [("segment.bytes", "1048576"), ("min.cleanable.dirty.ratio", "0.001"), ("max.compaction.lag.ms", "100")];
    let ground = Ground::on(broker::cluster("compact"), &quick);
    let changelog = ground.open().expect("opens");
    let mut rng = StdRng::seed_from_u64(7);
    let (mut model, mut middle, mut total) = (Map::new(), (0, Map::new()), 0u64);
    for round in 0..60u64 {
        let writes: Vec<Write> = (0..100)
            .map(|_| {
                let key = format!("k{}", rng.random_range(0..150));
                // Chance text, so that compression leaves segments to fill.
                let value: Vec<u8> = (0..1_000).map(|_| rng.random()).collect();
                let gone = rng.random_range(0..3) == 0;
                Write { key: key.into_bytes(), value: (!gone).then_some(value) }
            })
            .collect();
        total += writes.len() as u64;
        let place = changelog.commit(&writes).expect("commits");
        apply(&mut model, &writes);
        if round == 20 {
            middle = (place, model.clone());
        }
    }
    // An answered commit may be marked as ended a moment later; whoever takes over waits for that.
    let changelog = ground.open().expect("opens");
    // The broker looks every 15 s whether there is something to compact.
    for _ in 0..80 {
        let mut map = Map::new();
        let (_, writes) = read_on(&changelog, 0, &mut map).expect("replays");
        assert!(map == model, "maps differ after {writes} of {total} writes");
        if writes < total / 2 {
            let (place, mut copy) = middle;
            read_on(&changelog, place, &mut copy).expect("replays");
            assert!(copy == model, "reading on gives something else after compaction");
            return;
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    panic!("the broker compacted nothing within 40 s");
}

#[test]
#[ignore = "prints figures"]
fn figures() {
    let ground = Ground::new("figures");
    let changelog = ground.open().expect("opens");
    for (size, rounds) in [(1usize, 200), (10, 200), (1_000, 50), (10_000, 15)] {
        let writes: Vec<Write> = (0..size).map(|n| put(&format!("key-{n:012}"), &"v".repeat(200))).collect();
        let mut spans: Vec<Duration> = (0..rounds)
            .map(|_| {
                let began = Instant::now();
                changelog.commit(&writes).expect("commits");
                began.elapsed()
            })
            .collect();
        spans.sort_unstable();
        println!("commit of {size}: p50 {:?}, p99 {:?}", spans[rounds / 2], spans[rounds * 99 / 100]);
    }
    let began = Instant::now();
    let (_, writes) = read_on(&changelog, 0, &mut Map::new()).expect("replays");
    println!("replay: {writes} writes, {:.0}/s", writes as f64 / began.elapsed().as_secs_f64());
    let began = Instant::now();
    drop(ground.open().expect("opens"));
    println!("open: {:?}", began.elapsed());
}
