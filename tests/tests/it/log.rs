//! What every implementation of [`Log`] must do, run for each of them.

use bytes::Bytes;
use futures_util::future::join_all;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use syncline_connectors::kafka::log::{KafkaLog, SharedProducer, log_topic};
use syncline_connectors::kafka::{Cluster, topics};
use syncline_engine::Engine;
use syncline_engine::log::{Error, Log, MemoryLog};
use syncline_engine::pipeline::Options;
use syncline_engine::time::SystemClock;
use syncline_tests::broker::{self, Broker};
use tempfile::TempDir;

/// An implementation under test.
trait Subject {
    /// The log; the same one until `reopen`.
    fn log(&self) -> Arc<dyn Log>;
    /// Closes it cleanly and opens it again; `false` if it does not outlive its program.
    async fn reopen(&mut self) -> bool;
}

/// The log in the engine's store.
struct Stored {
    folder: TempDir,
    engine: Option<Engine>,
}

impl Stored {
    fn new() -> Self {
        let mut stored = Stored { folder: tempfile::tempdir().expect("a folder"), engine: None };
        stored.open();
        stored
    }

    fn open(&mut self) {
        let options = Options {
            data_dir: Some(self.folder.path().to_path_buf()),
            workers: 1,
            clock: Arc::new(SystemClock),
            ..Options::default()
        };
        self.engine = Some(Engine::open(options).expect("opens"));
    }
}

impl Subject for Stored {
    fn log(&self) -> Arc<dyn Log> {
        self.engine.as_ref().expect("open").log()
    }

    async fn reopen(&mut self) -> bool {
        self.engine.as_ref().expect("open").stop().await.expect("stops");
        self.engine = None;
        self.open();
        true
    }
}

/// The log in memory; it does not outlive its program.
#[derive(Default)]
struct Memory(Arc<MemoryLog>);

impl Subject for Memory {
    fn log(&self) -> Arc<dyn Log> {
        self.0.clone()
    }

    async fn reopen(&mut self) -> bool {
        false
    }
}

/// The log on a topic of a real broker.
struct Kafka {
    cluster: Cluster,
    topic: String,
    log: Option<Arc<KafkaLog>>,
}

impl Kafka {
    fn new() -> Self {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(Kafka::on(broker::cluster("log")))
    }

    async fn on(cluster: Cluster) -> Self {
        let wanted = log_topic(&cluster);
        topics::ensure(&cluster, std::slice::from_ref(&wanted)).await.expect("the topic");
        let mut kafka = Kafka { cluster, topic: wanted.name, log: None };
        kafka.log = Some(kafka.another().await);
        kafka
    }

    /// The same log as another process would open it.
    async fn another(&self) -> Arc<KafkaLog> {
        Arc::new(KafkaLog::open(&self.cluster, &self.topic, PARTITION).await.expect("opens"))
    }
}

/// The partition under test.
const PARTITION: i32 = 1;

impl Subject for Kafka {
    fn log(&self) -> Arc<dyn Log> {
        self.log.clone().expect("open")
    }

    async fn reopen(&mut self) -> bool {
        self.log = None;
        self.log = Some(self.another().await);
        true
    }
}

fn run(test: impl Future<Output = ()>) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(60), test).await.expect("in time") });
}

macro_rules! suite {
    ($name:ident, $subject:expr) => {
        mod $name {
            use super::*;

            #[test]
            fn positions_begin_at_one_and_rise_by_one() {
                run(super::positions_begin_at_one_and_rise_by_one($subject));
            }
            #[test]
            fn entries_come_back_as_they_were() {
                run(super::entries_come_back_as_they_were($subject));
            }
            #[test]
            fn concurrent_appends_stay_whole_and_in_order() {
                run(super::concurrent_appends_stay_whole_and_in_order($subject));
            }
            #[test]
            fn an_acknowledged_entry_is_readable_and_wakes_the_watcher() {
                run(super::an_acknowledged_entry_is_readable_and_wakes_the_watcher($subject));
            }
            #[test]
            fn trimming_forgets_the_beginning_only() {
                run(super::trimming_forgets_the_beginning_only($subject));
            }
            #[test]
            fn positions_go_on_after_all_was_trimmed_and_a_restart() {
                run(super::positions_go_on_after_all_was_trimmed_and_a_restart($subject));
            }
            #[test]
            fn an_abandoned_append_is_whole_or_absent() {
                run(super::an_abandoned_append_is_whole_or_absent($subject));
            }
            #[test]
            fn it_behaves_like_a_list() {
                run(super::it_behaves_like_a_list($subject));
            }
        }
    };
}

suite!(stored, Stored::new());
suite!(memory, Memory::default());
suite!(kafka, Kafka::new());

fn all(log: &Arc<dyn Log>) -> Vec<(u64, Bytes)> {
    let mut all: Vec<(u64, Bytes)> = Vec::new();
    loop {
        let after = all.last().map_or(0, |(position, _)| *position);
        let page = log.read(after, 7).expect("reads");
        assert!(page.len() <= 7, "a limit is a limit");
        if page.is_empty() {
            return all;
        }
        all.extend(page);
    }
}

/// What reading after the end may give: nothing, or the word that it was never there.
fn nothing(read: Result<Vec<(u64, Bytes)>, Error>) -> bool {
    matches!(read.as_deref(), Ok([]) | Err(Error::Gone(_)))
}

fn text(n: u64) -> Vec<u8> {
    n.to_string().into_bytes()
}

async fn positions_begin_at_one_and_rise_by_one(subject: impl Subject) {
    let log = subject.log();
    assert_eq!(*log.end().borrow(), 0);
    assert!(log.read(0, 10).expect("reads").is_empty());
    assert_eq!(log.append(vec![text(1)]).await.expect("appends"), 1);
    assert_eq!(log.append(vec![text(2), text(3), text(4)]).await.expect("appends"), 4);
    assert_eq!(*log.end().borrow(), 4);
    let positions: Vec<u64> = log.read(0, 10).expect("reads").into_iter().map(|(p, _)| p).collect();
    assert_eq!(positions, [1, 2, 3, 4]);
    let positions: Vec<u64> = log.read(1, 2).expect("reads").into_iter().map(|(p, _)| p).collect();
    assert_eq!(positions, [2, 3]);
    assert!(log.read(4, 10).expect("reads").is_empty());
    assert!(nothing(log.read(u64::MAX, 10)));
    assert!(log.read(0, 0).expect("reads").is_empty());
}

async fn entries_come_back_as_they_were(mut subject: impl Subject) {
    let entries: Vec<Vec<u8>> =
        vec![vec![], vec![0], vec![255; 3], (0..=255).collect(), vec![7; 1 << 20], b"\0\0\0\x01".to_vec(), vec![]];
    assert_eq!(subject.log().append(entries.clone()).await.expect("appends"), 7);
    for _ in 0..2 {
        let read: Vec<Vec<u8>> = all(&subject.log()).into_iter().map(|(_, entry)| entry.to_vec()).collect();
        assert!(read == entries, "entries differ");
        if !subject.reopen().await {
            return;
        }
    }
}

async fn concurrent_appends_stay_whole_and_in_order(subject: impl Subject) {
    const WRITERS: u64 = 8;
    const APPENDS: u64 = 40;
    let log = subject.log();
    let mut tasks = Vec::new();
    for writer in 0..WRITERS {
        let log = log.clone();
        tasks.push(tokio::spawn(async move {
            let mut last = 0;
            for n in 0..APPENDS {
                let size = 1 + (writer + n) % 3;
                let entries = (0..size).map(|part| format!("{writer} {n} {part} {size}").into_bytes()).collect();
                let position = log.append(entries).await.expect("appends");
                assert!(position > last, "positions of one writer rise");
                last = position;
                let there = log.read(position - size, size as usize).expect("reads");
                let expected: Vec<_> = (0..size).map(|part| format!("{writer} {n} {part} {size}")).collect();
                let there: Vec<_> = there.iter().map(|(_, e)| String::from_utf8_lossy(e).into_owned()).collect();
                assert_eq!(there, expected, "the entries of one append stand together");
            }
        }));
    }
    for task in tasks {
        task.await.expect("the writer");
    }
    let entries = all(&log);
    assert!(entries.iter().map(|(p, _)| *p).eq(1..=entries.len() as u64), "no gap, no double");
    let sum: u64 = (0..WRITERS).flat_map(|w| (0..APPENDS).map(move |n| 1 + (w + n) % 3)).sum();
    assert_eq!(entries.len() as u64, sum);
    assert_eq!(*log.end().borrow(), sum);
}

async fn an_acknowledged_entry_is_readable_and_wakes_the_watcher(subject: impl Subject) {
    let log = subject.log();
    let mut end = log.end();
    for n in 1..=20u64 {
        end.borrow_and_update();
        let (position, woken) = tokio::join!(log.append(vec![text(n)]), end.changed());
        woken.expect("the log is there");
        assert_eq!(position.expect("appends"), n);
        assert_eq!(*end.borrow(), n);
        assert_eq!(log.read(n - 1, 1).expect("reads"), [(n, Bytes::from(text(n)))]);
    }
    // What is handed over in order gets positions in that order, also when nobody waits in between.
    let positions = join_all((21..=60u64).map(|n| log.append(vec![text(n)]))).await;
    let positions: Vec<u64> = positions.into_iter().map(|p| p.expect("appends")).collect();
    assert!(positions.iter().copied().eq(21..=60), "{positions:?}");
}

async fn trimming_forgets_the_beginning_only(mut subject: impl Subject) {
    let log = subject.log();
    log.append((1..=10).map(text).collect()).await.expect("appends");
    log.trim(0).expect("trims");
    assert_eq!(all(&log).len(), 10);
    log.trim(4).expect("trims");
    let left: Vec<u64> = all(&log).into_iter().map(|(p, _)| p).collect();
    assert_eq!(left, [5, 6, 7, 8, 9, 10]);
    log.trim(2).expect("trims");
    assert_eq!(all(&log).len(), 6, "trimming less than before changes nothing");
    assert_eq!(log.append(vec![text(11)]).await.expect("appends"), 11);
    drop(log);
    if subject.reopen().await {
        let left: Vec<(u64, Bytes)> = all(&subject.log());
        assert!(left.iter().map(|(p, _)| *p).eq(5..=11), "{left:?}");
        assert!(left.iter().all(|(p, entry)| *entry == text(*p)));
    }
}

async fn positions_go_on_after_all_was_trimmed_and_a_restart(mut subject: impl Subject) {
    subject.log().append((1..=3).map(text).collect()).await.expect("appends");
    subject.log().trim(3).expect("trims");
    subject.log().trim(1).expect("trims");
    assert!(all(&subject.log()).is_empty());
    assert_eq!(*subject.log().end().borrow(), 3, "trimming does not move the end");
    subject.reopen().await;
    assert_eq!(*subject.log().end().borrow(), 3, "a position is never used twice");
    assert_eq!(subject.log().append(vec![text(4)]).await.expect("appends"), 4);
    assert_eq!(all(&subject.log()), [(4, Bytes::from(text(4)))]);
}

async fn an_abandoned_append_is_whole_or_absent(subject: impl Subject) {
    let log = subject.log();
    for n in 0..50u64 {
        let append = log.append((0..3).map(|part| format!("{n} {part}").into_bytes()).collect());
        let _ = tokio::time::timeout(Duration::from_micros(n * 20), append).await;
    }
    log.append(vec![b"end 0".to_vec()]).await.expect("appends");
    let entries = all(&log);
    let mut parts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (_, entry) in &entries {
        let entry = String::from_utf8_lossy(entry).into_owned();
        let (n, part) = entry.split_once(' ').expect("two words");
        parts.entry(n.to_string()).or_default().push(part.to_string());
    }
    for (n, parts) in parts {
        assert!(n == "end" || parts == ["0", "1", "2"], "append {n} is there as {parts:?}");
    }
    assert!(entries.iter().map(|(p, _)| *p).eq(1..=entries.len() as u64), "no gap");
}

/// Random operations against a map.
async fn it_behaves_like_a_list(mut subject: impl Subject) {
    let mut rng = StdRng::seed_from_u64(42);
    let (mut model, mut end) = (BTreeMap::new(), 0u64);
    for round in 0..300u64 {
        match rng.random_range(0..20) {
            0..10 => {
                let entries: Vec<Vec<u8>> = (0..rng.random_range(1..6u64)).map(|n| text(round * 10 + n)).collect();
                for entry in &entries {
                    end += 1;
                    model.insert(end, entry.clone());
                }
                assert_eq!(subject.log().append(entries).await.expect("appends"), end);
            }
            10..12 => {
                let through = rng.random_range(0..=end);
                subject.log().trim(through).expect("trims");
                model.retain(|position, _| *position > through);
            }
            12 => {
                if !subject.reopen().await {
                    continue;
                }
            }
            _ => {
                let (after, limit) = (rng.random_range(0..=end + 2), rng.random_range(1..20usize));
                let read = subject.log().read(after, limit);
                if after > end {
                    assert!(nothing(read), "read({after}, {limit}) in round {round}");
                    continue;
                }
                let read = read.expect("reads");
                let expected: Vec<_> =
                    model.range(after + 1..).take(limit).map(|(p, e)| (*p, Bytes::from(e.clone()))).collect();
                assert_eq!(read, expected, "read({after}, {limit}) in round {round}");
            }
        }
        assert_eq!(*subject.log().end().borrow(), end);
    }
}

/// Kafka alone: several processes, a broker that goes away, and a topic that is not what it was.
mod kafka_only {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[test]
    fn what_another_process_appends_wakes_the_watcher_and_is_read() {
        run(async {
            let kafka = Kafka::on(broker::cluster("two")).await;
            let (ours, theirs) = (kafka.log(), kafka.another().await);
            let mut end = ours.end();
            for n in 1..=50u64 {
                theirs.append(vec![text(n)]).await.expect("appends");
                tokio::time::timeout(Duration::from_secs(5), end.wait_for(|end| *end >= n))
                    .await
                    .expect("woken")
                    .expect("there");
                assert_eq!(ours.read(n - 1, 10).expect("reads"), [(n, Bytes::from(text(n)))]);
            }
        });
    }

    #[test]
    fn two_processes_append_at_once_and_read_the_same() {
        run(async {
            let kafka = Kafka::on(broker::cluster("race")).await;
            let logs: [Arc<dyn Log>; 2] = [kafka.log(), kafka.another().await];
            let writers = logs.iter().enumerate().map(|(who, log)| async move {
                for n in 0..200u64 {
                    log.append(vec![format!("{who} {n}").into_bytes()]).await.expect("appends");
                }
            });
            join_all(writers).await;
            let mut end = logs[0].end();
            end.wait_for(|end| *end == 400).await.expect("there");
            let entries = all(&logs[0]);
            assert!(entries.iter().map(|(p, _)| *p).eq(1..=400));
            let texts: Vec<_> = entries.iter().map(|(_, e)| String::from_utf8_lossy(e).into_owned()).collect();
            for who in 0..2 {
                let own = texts.iter().filter(|t| t.starts_with(&format!("{who} ")));
                assert!(own.cloned().eq((0..200).map(|n| format!("{who} {n}"))), "the order of one writer holds");
            }
            logs[1].end().wait_for(|end| *end == 400).await.expect("there");
            assert_eq!(all(&logs[1]), entries);
        });
    }

    #[test]
    fn partitions_share_a_producer_and_stay_apart() {
        run(async {
            let kafka = Kafka::on(broker::cluster("parts")).await;
            let producer = SharedProducer::new(&kafka.cluster).expect("a producer");
            let open = |partition| KafkaLog::open_with(&producer, &kafka.topic, partition);
            let logs = [open(0).await.expect("opens"), open(2).await.expect("opens")];
            let (a, b) = tokio::join!(
                join_all((0..30).map(|n| logs[0].append(vec![text(n)]))),
                join_all((100..110).map(|n| logs[1].append(vec![text(n)])))
            );
            assert!(a.iter().chain(&b).all(Result::is_ok));
            assert_eq!((*logs[0].end().borrow(), *logs[1].end().borrow()), (30, 10));
            assert_eq!(logs[0].read(29, 5).expect("reads"), [(30, Bytes::from(text(29)))]);
            assert_eq!(logs[1].read(0, 1).expect("reads"), [(1, Bytes::from(text(100)))]);
        });
    }

    #[test]
    fn too_large_is_refused_at_once_and_nothing_of_it_is_there() {
        run(async {
            let kafka = Kafka::on(broker::cluster("large")).await;
            let refused = kafka.log().append(vec![text(1), vec![0; 64 << 20]]).await;
            assert!(matches!(refused, Err(Error::TooLarge { .. })), "{refused:?}");
            let many = (0..65).map(|_| vec![0; 1 << 20]).collect();
            let refused = kafka.log().append(many).await;
            assert!(matches!(refused, Err(Error::Overloaded(_))), "{refused:?}");
            assert_eq!(kafka.log().append(vec![vec![7; 60 << 20]]).await.expect("appends"), 1);
            assert_eq!(kafka.another().await.read(0, 9).expect("reads")[0].1.len(), 60 << 20);
        });
    }

    #[test]
    fn a_broker_killed_amid_appends_loses_and_doubles_nothing() {
        let broker = Broker::start();
        let cluster = Cluster { brokers: broker.address().to_owned(), ..broker::cluster("killed") };
        run(async move {
            let kafka = Kafka::on(cluster).await;
            let (log, reader) = (kafka.log(), kafka.another().await);
            let stop = Arc::new(AtomicBool::new(false));
            let writers: Vec<_> = (0..4)
                .map(|who| {
                    let (log, stop) = (log.clone(), stop.clone());
                    tokio::spawn(async move {
                        let mut n = 0u64;
                        while !stop.load(Ordering::Relaxed) {
                            let pair = vec![format!("{who} {n} a").into_bytes(), format!("{who} {n} b").into_bytes()];
                            log.append(pair).await.expect("the broker is back within the bound");
                            n += 1;
                        }
                        n
                    })
                })
                .collect();
            let follower = tokio::spawn(follow(reader, stop.clone()));
            for _ in 0..2 {
                tokio::time::sleep(Duration::from_millis(400)).await;
                tokio::task::block_in_place(|| {
                    broker.kill();
                    broker.restart();
                });
                let at = *log.end().borrow();
                log.end().wait_for(|end| *end > at + 50).await.expect("it goes on");
            }
            stop.store(true, Ordering::Relaxed);
            let counts: Vec<u64> = join_all(writers).await.into_iter().map(|n| n.expect("a writer")).collect();
            let entries = all(&kafka.log());
            assert!(entries.iter().map(|(p, _)| *p).eq(1..=entries.len() as u64), "no gap");
            let texts: Vec<_> = entries.iter().map(|(_, e)| String::from_utf8_lossy(e).into_owned()).collect();
            for (who, count) in counts.into_iter().enumerate() {
                let own = texts.iter().filter(|t| t.starts_with(&format!("{who} "))).cloned();
                let expected = (0..count).flat_map(|n| [format!("{who} {n} a"), format!("{who} {n} b")]);
                assert!(own.eq(expected), "each entry of writer {who} once and in order");
            }
            let followed = follower.await.expect("the follower");
            assert_eq!(followed[..], entries[..followed.len()], "who read along saw the same");
            assert!(followed.len() > 100);
        });
    }

    /// Reads along until told to stop.
    async fn follow(log: Arc<KafkaLog>, stop: Arc<AtomicBool>) -> Vec<(u64, Bytes)> {
        let mut read: Vec<(u64, Bytes)> = Vec::new();
        let mut end = log.end();
        while !stop.load(Ordering::Relaxed) {
            end.borrow_and_update();
            loop {
                match log.read(read.last().map_or(0, |e| e.0), 32) {
                    Ok(page) if page.is_empty() => break,
                    Ok(page) => read.extend(page),
                    Err(Error::Unreachable(_)) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            let _ = tokio::time::timeout(Duration::from_millis(200), end.changed()).await;
        }
        read
    }

    #[test]
    fn a_broker_that_stays_away_is_said_within_the_bound() {
        let broker = Broker::start();
        let cluster = Cluster { brokers: broker.address().to_owned(), ..broker::cluster("away") };
        run(async move {
            let kafka = Kafka::on(cluster).await;
            kafka.log().append(vec![text(1)]).await.expect("appends");
            tokio::task::block_in_place(|| broker.kill());
            let refused = kafka.log().append(vec![text(2)]).await;
            assert!(matches!(refused, Err(Error::Unreachable(_))), "{refused:?}");
            tokio::task::block_in_place(|| broker.restart());
            let position = kafka.log().append(vec![text(3)]).await.expect("appends");
            let entries = all(&(kafka.another().await as Arc<dyn Log>));
            assert_eq!(entries.last(), Some(&(position, Bytes::from(text(3)))));
        });
    }

    #[test]
    fn a_place_that_has_gone_is_said() {
        run(async {
            let mut kafka = Kafka::on(broker::cluster("gone")).await;
            kafka.log().append((1..=10).map(text).collect()).await.expect("appends");
            let reader = kafka.another().await;
            assert_eq!(reader.read(0, 1).expect("reads").len(), 1);
            // Not by who reads: to that one it is a loss.
            kafka.log().trim(6).expect("trims");
            let read = reader.read(3, 5);
            assert!(matches!(read, Err(Error::Gone(_))), "{read:?}");
            assert_eq!(reader.read(6, 9).expect("reads").len(), 4);
            kafka.reopen().await;
            let opened = kafka.another().await;
            assert!(matches!(opened.check(2), Err(Error::Gone(_))));
            assert!(matches!(opened.check(11), Err(Error::Gone(_))));
            assert!(opened.check(6).is_ok() && opened.check(10).is_ok());
        });
    }

    #[test]
    fn a_topic_made_anew_is_said() {
        run(async {
            let kafka = Kafka::on(broker::cluster("anew")).await;
            kafka.log().append((1..=10).map(text).collect()).await.expect("appends");
            let before = kafka.log.as_ref().and_then(|log| log.topic_id()).expect("an id");
            kafka.log().read(0, 10).expect("reads");
            delete(&kafka.cluster, &kafka.topic).await;
            topics::ensure(&kafka.cluster, &[log_topic(&kafka.cluster)]).await.expect("the topic");
            let fresh = kafka.another().await;
            assert_ne!(fresh.topic_id(), Some(before));
            // Longer than the old one was: its length alone does not give it away.
            fresh.append((1..=30).map(text).collect()).await.expect("appends");
            let told = tokio::time::timeout(Duration::from_secs(40), async {
                loop {
                    match kafka.log().read(0, 1).and(kafka.log().read(10, 1)) {
                        Err(Error::Gone(why)) => return why,
                        _ => tokio::time::sleep(Duration::from_millis(50)).await,
                    }
                }
            });
            let why = told.await.expect("said in time");
            assert!(why.contains("made anew") || why.contains("ends at"), "{why}");
        });
    }

    #[test]
    #[ignore = "prints figures"]
    fn figures() {
        run(async {
            let kafka = Kafka::on(broker::cluster("figures")).await;
            for following in [false, true] {
                if following {
                    kafka.log().end();
                }
                let mut spans = Vec::new();
                for _ in 0..1_000 {
                    let began = std::time::Instant::now();
                    kafka.log().append(vec![vec![7; 500]]).await.expect("appends");
                    spans.push(began.elapsed());
                }
                spans.sort_unstable();
                println!("append, followed {following}: p50 {:?}, p99 {:?}", spans[500], spans[990]);
            }
            let (log, began) = (kafka.log(), std::time::Instant::now());
            for _ in 0..50 {
                join_all((0..1_000).map(|_| log.append(vec![vec![7; 500]]))).await;
            }
            println!("appends, 1,000 at a time: {:.0}/s", 50_000.0 / began.elapsed().as_secs_f64());
            let began = std::time::Instant::now();
            let other = kafka.another().await;
            let (mut at, mut count) = (0, 0);
            while at < 52_000 {
                let page = other.read(at, 1_000).expect("reads");
                at = page.last().map_or(at, |entry| entry.0);
                count += page.len();
            }
            println!("read from the beginning: {:.0}/s", f64::from(count as u32) / began.elapsed().as_secs_f64());
        });
    }

    async fn delete(cluster: &Cluster, topic: &str) {
        let (brokers, topic) = (cluster.brokers.clone(), topic.to_owned());
        let deleted = tokio::task::spawn_blocking(move || {
            broker::tool(&[
                "org.apache.kafka.tools.TopicCommand",
                "--bootstrap-server",
                &brokers,
                "--delete",
                "--topic",
                &topic,
            ])
        });
        deleted.await.expect("deleted");
    }
}
