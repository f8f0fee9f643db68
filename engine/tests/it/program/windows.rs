//! Windows: what a program did not bring is deleted in one commit, held, or left.

use super::*;

fn all(ids: &[&'static str]) -> Vec<Act> {
    ids.iter().map(|id| Save(CONTACT, id, 1)).collect()
}

/// A complete listing with a window around it.
fn listing(ids: &[&'static str]) -> Vec<Act> {
    [vec![Start(CONTACT), Request], all(ids), vec![End(CONTACT)]].concat()
}

const FIVE: [&str; 5] = ["1", "2", "3", "4", "5"];

#[tokio::test]
async fn a_window_over_two_executions_deletes_the_absent_in_one_commit() {
    for reopened in [false, true] {
        let folder = tempfile::tempdir().expect("a folder");
        let mut bench = Bench::open(Some(folder.path()), Strategy::Override);
        bench.run(all(&FIVE)).await;
        bench.run(vec![Clear]).await;
        let body =
            vec![Request, Save(CONTACT, "1", 1), Checkpoint, Request, Save(CONTACT, "4", 2), End(CONTACT), Clear];
        let mut script = bench.script(body.clone());
        (script.head, script.hangs_at, script.patience) = (vec![Start(CONTACT)], Some(4), 10);
        bench.killed(Arc::new(script)).await;
        if reopened {
            drop(bench);
            bench = Bench::open(Some(folder.path()), Strategy::Override);
        }
        let mut script = bench.script(body);
        script.head = vec![Start(CONTACT)];
        let script = Arc::new(script);
        let report = bench.execute(script.clone()).await;
        assert!(report.resumed);
        assert_eq!(script.ended.lock().expect("lock").as_slice(), [Ok(vec!["2".into(), "3".into(), "5".into()])]);
        assert_eq!(bench.ids(CONTACT), ["1", "4"]);
        let gone: Vec<_> =
            bench.changes(CONTACT).into_iter().filter(|(action, _, _)| *action == Action::Deleted).collect();
        assert!(gone.len() == 3 && gone.iter().all(|(_, _, epoch)| *epoch == gone[0].2), "{gone:?}");
        assert_eq!((report.record.counts.deleted, report.record.status), (3, Outcome::Complete));
    }
}

#[tokio::test]
async fn a_window_that_was_never_begun_cannot_end() {
    let bench = Bench::new();
    let script = Arc::new(bench.script(vec![End(CONTACT)]));
    bench.execute(script.clone()).await;
    let ended = script.ended.lock().expect("lock")[0].clone().expect_err("none");
    assert_eq!(
        (ended.code, ended.message.as_str()),
        ("no_window", "No track deletes starting point found for model 'Contact'.")
    );
}

#[tokio::test]
async fn what_comes_before_a_window_does_not_belong_to_it() {
    let bench = Bench::new();
    bench.run(all(&FIVE)).await;
    bench.run(vec![Save(CONTACT, "1", 1), Start(CONTACT), Save(CONTACT, "2", 1), Start(CONTACT), End(CONTACT)]).await;
    assert_eq!(bench.ids(CONTACT), ["2"]);
}

#[tokio::test]
async fn deletes_beyond_the_guard_are_held_and_may_be_approved() {
    for approved in [true, false] {
        let mut bench = Bench::new();
        bench.run(all(&FIVE)).await;
        bench.guard = Some(DeleteGuard { max_fraction: 0.5, min_count: 5 });
        let few = bench.run(listing(&["1", "2", "3", "4"])).await;
        assert_eq!((few.record.status, few.record.counts.deleted), (Outcome::Complete, 1));
        bench.run(all(&FIVE)).await;
        let script = Arc::new(bench.script(listing(&["1"])));
        let report = bench.execute(script.clone()).await;
        assert_eq!((report.record.status, report.record.held), (Outcome::Held, Some((5, 4))));
        assert_eq!(script.ended.lock().expect("lock").as_slice(), [Ok(vec![])]);
        assert_eq!(bench.ids(CONTACT), FIVE);
        let dataset = bench.dataset(CONTACT);
        match approved {
            true => assert!(approve(&bench.engine, &dataset, &report.record.id).await.expect("works")),
            false => assert!(reject(&bench.engine, &dataset, &report.record.id).await.expect("works")),
        }
        assert_eq!(bench.ids(CONTACT), if approved { vec!["1"] } else { FIVE.to_vec() });
        let status = if approved { Outcome::Complete } else { Outcome::Incomplete };
        assert_eq!((bench.stored_run(&report).status, bench.stored_run(&report).held), (status, None));
    }
}

#[tokio::test]
async fn after_a_caught_failure_the_guard_has_no_exception_for_few_records() {
    for doubt in [Some(RequestFailed), Some(Refused(CONTACT)), None] {
        let mut bench = Bench::new();
        bench.run(all(&FIVE)).await;
        bench.guard = Some(DeleteGuard { max_fraction: 0.5, min_count: 1_000 });
        let mut body = listing(&["1"]);
        body.splice(2..2, doubt.clone().into_iter().chain([Checkpoint]));
        // The doubt outlasts a failed run, as the window does.
        let failing = [&body[..4 - usize::from(doubt.is_none())], &[Fail]].concat();
        bench.run(failing).await;
        let report = bench.run(body).await;
        let held = doubt.is_some();
        assert_eq!(report.record.status == Outcome::Held, held, "{doubt:?}");
        assert_eq!(bench.ids(CONTACT).len(), if held { 5 } else { 1 }, "{doubt:?}");
        // The next listing finds for itself what is missing.
        bench.fresh = true;
        bench.run(listing(&["1", "2", "3"])).await;
        assert!(held_deletes(&bench).is_empty());
    }
}

fn held_deletes(bench: &Bench) -> Vec<Hold> {
    held(&bench.engine, &name(CONTACT)).expect("reads")
}

#[tokio::test]
async fn a_record_that_was_rejected_is_neither_here_nor_gone() {
    let bench = Bench::new();
    bench.run(all(&FIVE)).await;
    let mut body = listing(&["1"]);
    body.insert(3, Bad(CONTACT, "2"));
    let script = Arc::new(bench.script(body));
    let report = bench.execute(script.clone()).await;
    assert_eq!((report.record.status, report.record.counts.rejected), (Outcome::Incomplete, 1));
    assert_eq!(script.ended.lock().expect("lock").as_slice(), [Ok(vec![])]);
    assert_eq!(bench.ids(CONTACT), FIVE);
    assert_eq!(bench.run(listing(&["1"])).await.record.counts.deleted, 4, "the next window is another one");
}

#[tokio::test]
async fn an_execution_from_behind_a_listing_that_had_its_end_deletes_nothing() {
    for thrown in [true, false] {
        let bench = Bench::new();
        bench.run(all(&FIVE)).await;
        let body = vec![Save(CONTACT, "1", 1), Checkpoint, Save(CONTACT, "2", 1), End(CONTACT), Clear];
        let cut = |last: Act| [&body[..4], &[last]].concat();
        let mut script = bench.script(cut(if thrown { Fail } else { Hang }));
        script.head = vec![Start(CONTACT)];
        match thrown {
            true => drop(bench.execute(Arc::new(script)).await),
            false => bench.killed(Arc::new(script)).await,
        }
        assert_eq!(bench.ids(CONTACT), ["1", "2"]);
        let mut script = bench.script(body);
        script.head = vec![Start(CONTACT)];
        let script = Arc::new(script);
        bench.execute(script.clone()).await;
        assert_eq!(script.ended.lock().expect("lock").as_slice(), [Ok(vec![])]);
        assert_eq!(bench.ids(CONTACT), ["1", "2"], "record 1 was not listed again");
        bench.run(listing(&["1"])).await;
        assert_eq!(bench.ids(CONTACT), ["1"], "the next run is another listing");
    }
}

#[tokio::test]
async fn tracked_deletes_go_with_the_end_of_a_run_that_began_anew() {
    let mut bench = Bench::new();
    bench.track_deletes = true;
    bench.run([all(&FIVE), vec![Save(COMPANY, "a", 1)]].concat()).await;
    let failed = bench.run(vec![Save(CONTACT, "1", 1), Fail]).await;
    assert_eq!((failed.record.counts.deleted, bench.ids(CONTACT).len()), (0, 5));
    let report = bench.run(vec![Save(CONTACT, "1", 1), Save(COMPANY, "a", 1)]).await;
    assert_eq!((report.record.status, report.record.counts.deleted), (Outcome::Complete, 4));
    assert_eq!(bench.stored_run(&report), report.record);
    assert_eq!((bench.ids(CONTACT), bench.ids(COMPANY)), (vec!["1".into()], vec!["a".into()]));
}

#[tokio::test]
async fn tracked_deletes_with_a_checkpoint_delete_nothing() {
    let mut bench = Bench::new();
    bench.track_deletes = true;
    bench.run([all(&FIVE), vec![Checkpoint]].concat()).await;
    let script = bench.script([all(&FIVE), vec![Checkpoint, Save(CONTACT, "1", 2)]].concat());
    let report = bench.execute(Arc::new(script)).await;
    assert_eq!(
        (report.record.kind.as_str(), report.record.counts.deleted, report.record.warnings),
        ("INCREMENTAL", 0, 1)
    );
    assert!(report.record.samples[0].contains("nothing is deleted"), "{:?}", report.record.samples);
    assert_eq!(bench.ids(CONTACT), FIVE);
}

#[tokio::test]
async fn an_interrupted_run_that_tracks_goes_on_tracking() {
    let mut bench = Bench::new();
    bench.track_deletes = true;
    bench.run(all(&FIVE)).await;
    let body = vec![Save(CONTACT, "1", 1), Checkpoint, Save(CONTACT, "2", 1)];
    let mut script = bench.script(body.clone());
    script.hangs_at = Some(2);
    bench.halted(Arc::new(script), Halt::Stop).await;
    let report = bench.run(body).await;
    assert_eq!((report.resumed, report.record.counts.deleted, report.record.warnings), (true, 3, 0));
    assert_eq!(bench.ids(CONTACT), ["1", "2"]);
}

#[tokio::test]
async fn what_others_bring_within_a_window_stays() {
    let bench = Bench::new();
    bench.run(all(&FIVE)).await;
    let script = Arc::new(bench.script(vec![
        Start(CONTACT),
        Request,
        Push(CONTACT, "6", 1),
        Push(CONTACT, "5", 1),
        Gone(CONTACT, "4"),
        End(CONTACT),
    ]));
    bench.execute(script.clone()).await;
    assert_eq!(bench.ids(CONTACT), ["5", "6"]);
    assert_eq!(script.ended.lock().expect("lock").as_slice(), [Ok(vec!["1".into(), "2".into(), "3".into()])]);
}
