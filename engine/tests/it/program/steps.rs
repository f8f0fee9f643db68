//! Steps: what becomes visible together, in which order, and how much may be on its way.

use super::*;

#[tokio::test]
async fn a_run_stores_its_steps_its_record_and_its_checkpoint() {
    let bench = Bench::new();
    let body = vec![
        Request,
        Save(CONTACT, "1", 1),
        Save(COMPANY, "a", 1),
        Barrier,
        Request,
        Save(CONTACT, "2", 1),
        Warn("odd"),
        Checkpoint,
        Save(CONTACT, "3", 1),
    ];
    let script = Arc::new(bench.script(body));
    let report = bench.execute(script.clone()).await;
    let record = &report.record;
    assert_eq!(
        (record.status, record.kind.as_str(), record.pages, record.requests),
        (Outcome::Complete, "INITIAL", 3, 2)
    );
    assert_eq!((record.counts.added, record.models[CONTACT].added, record.models[COMPANY].added), (4, 3, 1));
    assert_eq!((record.warnings, record.samples.as_slice()), (1, &["odd".to_owned()][..]));
    assert_eq!(*bench.lines.lock().expect("lock"), ["odd"]);
    assert_eq!((bench.stored_run(&report), bench.checkpoint().as_deref()), (record.clone(), Some("8")));
    let epochs: Vec<u64> = bench.changes(CONTACT).iter().map(|(_, _, epoch)| *epoch).collect();
    assert!(epochs[0] < epochs[1] && epochs[1] <= epochs[2], "{epochs:?}");
    assert_eq!(bench.changes(COMPANY)[0].2, epochs[0], "two models of one step have one engine time");
    let announced = std::mem::take(&mut *bench.announced.0.lock().expect("lock"));
    assert_eq!(
        announced.iter().map(|(model, counts)| (model.as_str(), counts.added)).collect::<Vec<_>>(),
        [(COMPANY, 1), (CONTACT, 3)]
    );

    let again = bench.execute(script.clone()).await;
    assert_eq!((again.record.kind.as_str(), again.record.counts.unchanged, again.resumed), ("INCREMENTAL", 1, false));
    let asked = script.asked.lock().expect("lock");
    assert_eq!((asked[0].last_success, asked[1].last_success), (None, Some(asked[0].started_at)));
    assert_eq!(
        (asked[0].run + 1, asked[0].kind, asked[1].kind),
        (asked[1].run, RunKind::Initial, RunKind::Incremental)
    );
}

#[tokio::test]
async fn a_failure_keeps_what_was_written_and_announces_it() {
    let bench = Bench::new();
    let report = bench.run(vec![Save(CONTACT, "1", 1), Checkpoint, Save(CONTACT, "2", 1), Fail]).await;
    assert_eq!(report.record.status, Outcome::Failed);
    assert_eq!(report.record.error, Some(("thrown".to_owned(), "no".to_owned())));
    assert_eq!(
        (bench.ids(CONTACT), report.progress.failures, report.record.bookmark),
        (vec!["1".into(), "2".into()], 1, true)
    );
    assert_eq!(bench.announced.0.lock().expect("lock").len(), 2);
    let next = bench.run(vec![]).await;
    assert_eq!((next.record.kind.as_str(), next.run, next.progress.failures), ("INITIAL", report.run + 1, 0));
}

#[tokio::test]
async fn a_run_is_stopped_and_goes_on_or_is_cancelled_or_takes_too_long() {
    let mut bench = Bench::new();
    let body = vec![Save(CONTACT, "1", 1), Checkpoint, Save(CONTACT, "2", 1), Hang];
    let stopped = bench.halted(Arc::new(bench.script(body.clone())), Halt::Stop).await;
    assert_eq!(stopped.record.status, Outcome::Running);
    let sync = bench.order().sync;
    assert_eq!(interrupted(&bench.engine, &sync).expect("reads").expect("one").id, stopped.record.id);
    let cancelled = bench.halted(Arc::new(bench.script(body)), Halt::Cancel).await;
    assert_eq!((cancelled.run, cancelled.resumed, cancelled.record.status), (stopped.run, true, Outcome::Cancelled));
    assert_eq!(bench.ids(CONTACT), ["1", "2"], "what it read stays");
    bench.fresh = true;
    let turning = async {
        loop {
            tokio::task::yield_now().await;
            bench.clock.advance(60 * SECOND);
        }
    };
    let late = tokio::select! {
        late = bench.execute(Arc::new(bench.script(vec![Hang]))) => late,
        () = turning => unreachable!("turns for ever"),
    };
    assert_eq!(late.record.error.map(|(code, _)| code).as_deref(), Some("timeout"));
}

#[tokio::test]
async fn what_a_fresh_run_does_not_go_on_with_is_ended() {
    let mut bench = Bench::new();
    let body = vec![Start(CONTACT), Save(CONTACT, "1", 1), Checkpoint, Hang];
    let stopped = bench.halted(Arc::new(bench.script(body)), Halt::Stop).await;
    bench.fresh = true;
    let script = Arc::new(bench.script(vec![Save(CONTACT, "1", 1), End(CONTACT)]));
    let report = bench.execute(script.clone()).await;
    assert_eq!(report.run, stopped.run + 1);
    assert_eq!((bench.stored_run(&stopped).status, bench.checkpoint()), (Outcome::Failed, None));
    let ended = script.ended.lock().expect("lock");
    assert!(ended[0].is_err(), "its window is not this run's");
}

#[tokio::test]
async fn a_step_waits_no_longer_than_its_age() {
    let bench = Bench::new();
    let script = Arc::new(bench.script(vec![Save(CONTACT, "1", 1), Hang]));
    let mut committed = bench.engine.watermark();
    let turning = async {
        script.hanging.subscribe().wait_for(|hanging| *hanging).await.expect("open");
        bench.clock.advance(STEP_AGE - Duration::from_millis(1));
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert!(bench.ids(CONTACT).is_empty(), "it is open");
        bench.clock.advance(Duration::from_millis(1));
        while bench.ids(CONTACT).is_empty() {
            committed.changed().await.expect("open");
        }
    };
    tokio::select! {
        report = bench.execute(script.clone()) => panic!("it hangs: {report:?}"),
        () = turning => {}
    }
    assert_eq!(bench.ids(CONTACT), ["1"]);
}

#[tokio::test]
async fn no_more_than_four_steps_are_on_their_way() {
    let clock = Arc::new(ManualClock::new(Timestamp(0)));
    let (mut outlet, mut inlet) = channel(clock, [CONTACT.to_owned()], None);
    let writing = async move {
        for n in 1..=6 {
            outlet.save(CONTACT, "1", b"{}").await.expect("taken");
            outlet.save_checkpoint(Some(n.to_string().into())).await.expect("taken");
        }
    };
    let mut writing = Box::pin(writing);
    let mut taken = Vec::new();
    for _ in 0..100 {
        tokio::select! {
            biased;
            () = &mut writing => panic!("six steps, and none was committed"),
            Some(Handed::Step(step)) = inlet.next() => taken.push(step),
            () = tokio::task::yield_now() => {}
        }
    }
    assert_eq!(taken.len(), STEPS_ON_THEIR_WAY);
    taken.remove(0);
    for _ in 0..100 {
        tokio::select! {
            biased;
            () = &mut writing => panic!("one step is left"),
            Some(Handed::Step(step)) = inlet.next() => taken.push(step),
            () = tokio::task::yield_now() => {}
        }
    }
    assert_eq!(taken.len(), STEPS_ON_THEIR_WAY);
    let last = taken.last().and_then(|handed| handed.step.checkpoint.clone()).flatten();
    assert_eq!(last.as_deref(), Some(&b"5"[..]));
    inlet.fail(Failure::lasting("broken", "no"));
}

/// Writes more than one step holds.
struct Many(usize);

#[async_trait]
impl Program for Many {
    async fn run(&self, _: &ProgramAsk, out: &mut Outlet) -> Result<(), Failure> {
        for n in 0..self.0 {
            out.save(CONTACT, &n.to_string(), json(&n.to_string(), 1).as_bytes()).await?;
        }
        Ok(())
    }
}

#[tokio::test]
async fn a_step_has_a_bound_and_the_rest_follows() {
    let bench = Bench::new();
    let (_never, halt) = watch::channel(Halt::No);
    let many = Arc::new(Many(5 * STEP_RECORDS + 1));
    let report = program(&bench.engine, many, bench.order(), halt, &|_| {}).await.expect("the engine works");
    assert_eq!((report.record.pages, report.record.counts.added), (6, 50_001));
}

/// Reads what it has just written.
struct Reader;

#[async_trait]
impl Program for Reader {
    async fn run(&self, _: &ProgramAsk, out: &mut Outlet) -> Result<(), Failure> {
        out.save(CONTACT, "1", b"{\"id\":\"1\"}").await?;
        out.patch(CONTACT, "1", b"{\"name\":\"Ada\"}").await?;
        let found = out.records_by_ids(CONTACT, vec!["2".into(), "1".into()]).await?;
        assert!(found[0].is_none());
        assert_eq!(found[1].as_ref().expect("there").payload, "{\"id\":\"1\",\"name\":\"Ada\"}");
        out.save(CONTACT, "2", b"{\"id\":\"2\"}").await?;
        let page = out.list(CONTACT, Position::START).await?;
        assert_eq!((page.records.len(), page.next), (2, None));
        let behind = out.list(CONTACT, page.records[0].meta.position).await?;
        assert_eq!(behind.records.len(), 1);
        let unknown = out.save("Nobody", "1", b"{}").await.expect_err("unknown");
        assert_eq!(unknown.code, "unknown_model");
        let large = out.save_checkpoint(Some(vec![0; CHECKPOINT_BYTES_MAX + 1].into())).await.expect_err("large");
        assert_eq!(large.code, "checkpoint_too_large");
        out.save_checkpoint(Some("x".into())).await?;
        assert_eq!(out.checkpoint().map(|bytes| &bytes[..]), Some(&b"x"[..]));
        let mut step = Step::default();
        step.push(CONTACT, "3", StepBody::Whole(b"{\"id\":\"3\"}"));
        out.hand_over(step).await
    }
}

#[tokio::test]
async fn a_program_reads_what_it_has_written() {
    let bench = Bench::new();
    let (_never, halt) = watch::channel(Halt::No);
    let report =
        program(&bench.engine, Arc::new(Reader), bench.order(), halt, &|_| {}).await.expect("the engine works");
    assert_eq!((report.record.status, report.record.error), (Outcome::Complete, None));
    assert_eq!(bench.ids(CONTACT), ["1", "2", "3"]);
}
