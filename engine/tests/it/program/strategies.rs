//! A page's own strategy, and when what it brings was true.

use super::*;

const PROTECTED: Strategy = Strategy::IgnoreIfModifiedAfter;

#[tokio::test]
async fn a_push_behind_the_request_survives_in_the_first_and_in_the_tenth_batch() {
    for batch in [1, 10] {
        let bench = Bench::new();
        bench.run(vec![Save(CONTACT, "1", 1), Save(CONTACT, "2", 1)]).await;
        let mut body = vec![Wins(CONTACT, PROTECTED), Request, Push(CONTACT, "1", 7)];
        for _ in 1..batch {
            // Its own writes do not count as somebody else's.
            body.extend([Save(CONTACT, "2", 3), Checkpoint]);
        }
        body.extend([Save(CONTACT, "1", 2), Save(CONTACT, "2", 4)]);
        let report = bench.run(body).await;
        assert_eq!(report.record.counts.skipped, 1, "batch {batch}");
        assert_eq!(bench.records(CONTACT), [json("1", 7), json("2", 4)], "batch {batch}");
    }
}

#[tokio::test]
async fn a_push_before_the_request_does_not() {
    let bench = Bench::new();
    let body = vec![
        Wins(CONTACT, PROTECTED),
        Request,
        Save(CONTACT, "2", 1),
        Push(CONTACT, "1", 7),
        Request,
        Save(CONTACT, "1", 2),
    ];
    bench.run(body).await;
    assert_eq!(bench.records(CONTACT), [json("1", 2), json("2", 1)]);
}

#[tokio::test]
async fn a_request_counts_for_every_model_until_it_is_saved() {
    let bench = Bench::new();
    let both = [CONTACT, COMPANY].map(|model| Wins(model, PROTECTED));
    let body = vec![Request, Push(COMPANY, "a", 7), Save(CONTACT, "1", 1), Request, Save(COMPANY, "a", 2)];
    bench.run([both.to_vec(), body].concat()).await;
    assert_eq!(bench.records(COMPANY), [json("a", 7)], "it may be of the first answer");
}

#[tokio::test]
async fn a_page_does_not_change_the_datasets_strategy() {
    let bench = Bench::new();
    let script = Arc::new(bench.script(vec![
        Wins(CONTACT, PROTECTED),
        Wins(CONTACT, Strategy::Override),
        Request,
        Push(CONTACT, "1", 7),
        Push(COMPANY, "a", 7),
        Save(CONTACT, "1", 2),
        Save(COMPANY, "a", 2),
    ]));
    bench.execute(script.clone()).await;
    assert_eq!(*script.first_wins.lock().expect("lock"), [true, false]);
    assert_eq!((bench.records(CONTACT), bench.records(COMPANY)), (vec![json("1", 7)], vec![json("a", 2)]));
    bench.run(vec![Request, Push(CONTACT, "1", 8), Save(CONTACT, "1", 2)]).await;
    assert_eq!(bench.records(CONTACT), [json("1", 2)], "the next page is the dataset's again");
}

#[tokio::test]
async fn a_page_may_overrule_a_dataset_of_the_latest() {
    let bench = Bench::open(None, Strategy::Latest);
    let dataset = bench.dataset(CONTACT);
    let at = Timestamp::from_seconds;
    let write = bench.engine.write(&dataset).upsert(serde_json::json!({"id": "1", "n": 1})).at(at(9_000));
    // Patched, so that the record has clocks of its own.
    write.patch(serde_json::json!({"id": "1", "m": 1})).at(at(9_001)).commit().await.expect("commits");
    let kept = bench.run(vec![Save(CONTACT, "1", 2)]).await;
    assert_eq!((kept.record.counts.skipped, bench.ids(CONTACT).len()), (1, 1));
    bench.run(vec![Wins(CONTACT, Strategy::Override), Save(CONTACT, "1", 3)]).await;
    assert_eq!(bench.records(CONTACT), [json("1", 3)]);
}
