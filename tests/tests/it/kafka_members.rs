//! Who owns which partitions, decided by a group on a real broker; and the board on which the owners say where they are.

use std::collections::BTreeSet;
use std::time::Duration;
use syncline_connectors::kafka::board::Board;
use syncline_connectors::kafka::log::{SharedProducer, log_topic};
use syncline_connectors::kafka::members::{Assignment, Group, Membership, Release};
use syncline_connectors::kafka::{Cluster, topics};
use syncline_tests::broker;

const PARTITIONS: i32 = 6;

/// A member and what it has.
struct Member {
    group: Group,
    owned: BTreeSet<i32>,
}

impl Member {
    fn join(cluster: &Cluster, topic: &str) -> Member {
        let membership =
            Membership { session: Duration::from_secs(2), let_go: Duration::from_secs(10), instance: None };
        let group = Group::join(cluster, &format!("{}.owners", cluster.prefix), topic, &membership).expect("joins");
        Member { group, owned: BTreeSet::new() }
    }

    /// Takes the next change in; what is to be let go is still held by the release.
    async fn next(&mut self) -> Option<Release> {
        match self.group.next().await.expect("still a member") {
            Assignment::Assigned(new) => {
                for partition in new {
                    assert!(self.owned.insert(partition), "{partition} was ours already");
                }
                None
            }
            Assignment::Revoked(old, release) => {
                for partition in old {
                    assert!(self.owned.remove(&partition), "{partition} was not ours");
                }
                Some(release)
            }
            Assignment::Lost(lost) => panic!("{lost:?} lost"),
        }
    }

    async fn until(&mut self, count: usize) {
        while self.owned.len() != count {
            drop(self.next().await);
        }
    }
}

async fn topic(cluster: &Cluster) -> String {
    let wanted = log_topic(cluster).partitions(PARTITIONS);
    topics::ensure(cluster, std::slice::from_ref(&wanted)).await.expect("the topic");
    wanted.name
}

async fn in_time(test: impl Future<Output = ()>) {
    tokio::time::timeout(Duration::from_secs(60), test).await.expect("in time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_members_share_and_who_stays_gets_all() {
    in_time(async {
        let cluster = broker::cluster("members");
        let topic = topic(&cluster).await;
        let mut first = Member::join(&cluster, &topic);
        first.until(6).await;
        let mut second = Member::join(&cluster, &topic);
        tokio::join!(first.until(3), second.until(3));
        assert!(first.owned.is_disjoint(&second.owned));
        assert_eq!(&first.owned | &second.owned, (0..PARTITIONS).collect());
        second.group.leave().await;
        first.until(6).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_given_away_before_it_is_let_go() {
    in_time(async {
        let cluster = broker::cluster("letgo");
        let topic = topic(&cluster).await;
        let mut first = Member::join(&cluster, &topic);
        first.until(6).await;
        let mut second = Member::join(&cluster, &topic);
        let release = loop {
            if let Some(release) = first.next().await {
                break release;
            }
        };
        assert_eq!(first.owned.len(), 3);
        // Longer than a session: who takes long to let go is still a member.
        let early = tokio::time::timeout(Duration::from_secs(3), second.until(1)).await;
        assert!(early.is_err(), "{:?} were given away before they were let go", second.owned);
        drop(release);
        second.until(3).await;
        assert!(first.owned.is_disjoint(&second.owned));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everybody_sees_what_is_on_the_board() {
    in_time(async {
        let cluster = broker::cluster("board");
        let open = || async { Board::open(&SharedProducer::new(&cluster).expect("a producer")).await.expect("opens") };
        let (ours, theirs) = (open().await, open().await);
        assert!(ours.all().is_empty());
        ours.put("7", r#"{"url":"http://a"}"#).await.expect("writes");
        assert_eq!(ours.get("7").as_deref(), Some(r#"{"url":"http://a"}"#), "who wrote it sees it");
        let mut changed = theirs.changed();
        changed.wait_for(|notes| notes.contains_key("7")).await.expect("seen");
        theirs.put("7", r#"{"url":"http://b"}"#).await.expect("writes");
        theirs.put("8", "{}").await.expect("writes");
        ours.changed().wait_for(|notes| notes.len() == 2 && notes["7"].contains("http://b")).await.expect("seen");
        ours.remove("8").await.expect("writes");
        changed.wait_for(|notes| !notes.contains_key("8")).await.expect("seen");
        assert_eq!(*open().await.all(), *ours.all(), "who comes later sees the same");
        assert!(ours.put("9", &"x".repeat(1 << 20)).await.is_err());
    })
    .await;
}
