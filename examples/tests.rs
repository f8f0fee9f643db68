//! Runs every example and checks what it shows.

#[path = "consumer.rs"]
mod consumer;
#[path = "contacts.rs"]
mod contacts;
#[path = "custom_sink.rs"]
mod custom_sink;
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
    let folder = tempfile::tempdir().expect("a folder");
    let shown = custom_sink::custom_source::run(folder.path()).await.expect("runs");
    let lines = [r#"ADDED {"id":"one","bytes":1}"#, r#"ADDED {"id":"three","bytes":3}"#];
    assert_eq!(shown, lines.map(str::to_owned).into());
}

#[tokio::test(flavor = "multi_thread")]
async fn custom_sink() {
    let folder = tempfile::tempdir().expect("a folder");
    let told = custom_sink::run(folder.path()).await.expect("runs");
    let (_, change) = told.split_once(' ').expect("an engine time, and what changed");
    assert_eq!(change, "ADDED {\"id\":\"one\",\"bytes\":1}\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn follow() {
    let met = follow::run(50).await.expect("runs");
    assert_eq!(met.iter().filter_map(|n| n.as_i64()).collect::<Vec<_>>(), (0..50).collect::<Vec<_>>());
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
