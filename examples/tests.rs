//! Runs every example and checks what it shows.

#[path = "custom_source.rs"]
mod custom_source;
#[path = "follow.rs"]
mod follow;
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
