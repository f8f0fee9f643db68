//! Runs every example and checks what it shows.

#[path = "consumer.rs"]
mod consumer;
#[path = "contacts.rs"]
mod contacts;
#[path = "custom_source.rs"]
mod custom_source;
#[path = "embedded.rs"]
mod embedded;
#[path = "follow.rs"]
mod follow;
#[path = "leaderboard.rs"]
mod leaderboard;
#[path = "open_issues.rs"]
mod open_issues;
#[path = "quickstart.rs"]
mod quickstart;

#[tokio::test(flavor = "multi_thread")]
async fn quickstart() {
    let lines = quickstart::run().await.expect("runs");
    assert_eq!(
        lines,
        [
            r#"ADDED {"id":"1","name":"Ada","email":"a@x"} by run_00000000000001"#,
            r#"UPDATED {"id":"1","name":"Ada","email":"b@x"} by whk_00000000000007"#,
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn custom_source() {
    assert_eq!(custom_source::run().await.expect("runs"), [(3, 0), (1, 1)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn follow() {
    assert_eq!(follow::run(50).await.expect("runs"), (0..50).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn embedded() {
    let told = embedded::run().await.expect("runs");
    assert_eq!(told, ["ADDED hall", "ADDED oven", "UPDATED hall", "ADDED yard", "DELETED oven"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn consumer() {
    let all = (0..200).sum();
    for pages in [1, 2, 5] {
        let (sum, lives) = consumer::run(200, pages).await.expect("runs");
        assert_eq!((sum, lives), (all, 15), "{pages} pages at a time");
    }
}

#[test]
fn open_issues() {
    assert_eq!(
        open_issues::run(),
        [
            r#"ADDED {"id":"ada","open":2}"#,
            r#"UPDATED {"id":"ada","open":1}"#,
            r#"DELETED {"id":"ada","open":1}"#,
            r#"ADDED {"id":"bob","open":1}"#,
        ]
    );
}

#[test]
fn contacts() {
    assert_eq!(
        contacts::run(),
        [
            r#"{"id":"1","name":"Ada","company":"Analytical Engines","last_seen":"2026-03-01"}"#,
            r#"UPDATED {"id":"1","name":"Ada","company":"Difference Engines","last_seen":"2026-03-01"}"#,
        ]
    );
}

#[test]
fn leaderboard() {
    assert_eq!(
        leaderboard::run(),
        [
            r#"{"id":"[\"north\",1]","deal":"b","cents":300}"#,
            r#"{"id":"[\"north\",2]","deal":"c","cents":200}"#,
            r#"{"id":"[\"north\",3]","deal":"a","cents":100}"#,
            r#"UPDATED {"id":"[\"north\",2]","deal":"d","cents":250}"#,
            r#"UPDATED {"id":"[\"north\",3]","deal":"c","cents":200}"#,
        ]
    );
}
