//! Events that a program takes: one commit with the mark that says so, or nothing.

use super::*;

/// What a program does about an event.
#[derive(Clone, Copy, PartialEq)]
enum Deed {
    Save(&'static str, &'static str, u32),
    Patch(&'static str, &'static str),
    /// Fails unless a record is there.
    Sees(&'static str),
    Counts,
    Asks,
    Window,
    WindowEnd,
    Much,
    Fails,
    Waits,
}

struct Taker {
    deeds: Vec<Deed>,
    clock: Arc<ManualClock>,
}

#[async_trait]
impl Program for Taker {
    async fn run(&self, _: &ProgramAsk, _: &mut Outlet) -> Result<(), Failure> {
        Ok(())
    }

    async fn event(&self, ask: &EventAsk, out: &mut Outlet) -> Result<(), Failure> {
        for deed in &self.deeds {
            match *deed {
                Deed::Save(model, id, n) => out.save(model, id, json(id, n).as_bytes()).await?,
                Deed::Patch(id, text) => out.patch(CONTACT, id, text.as_bytes()).await?,
                Deed::Sees(id) => {
                    let found = out.records_by_ids(CONTACT, vec![id.to_owned()]).await?;
                    assert!(found[0].is_some(), "its own writes are there");
                }
                Deed::Counts => {
                    let known = ask.checkpoint.as_deref().map_or(0, |b| String::from_utf8_lossy(b).parse().expect("n"));
                    out.save_checkpoint(Some(format!("{}", known + 1).into())).await?;
                }
                Deed::Asks => {
                    self.clock.advance(SECOND);
                    out.request(self.clock.now()).await?;
                }
                Deed::Window => out.window_start(CONTACT).await?,
                Deed::WindowEnd => drop(out.window_end(CONTACT).await?),
                Deed::Much => {
                    let text = "x".repeat(1 << 20);
                    for n in 0..20 {
                        let id = format!("m{n:02}");
                        out.save(CONTACT, &id, format!("{{\"id\":\"{id}\",\"t\":\"{text}\"}}").as_bytes()).await?;
                    }
                }
                Deed::Fails => return Err(Failure::lasting("thrown", "no")),
                Deed::Waits => self.clock.sleep(Duration::from_secs(120)).await,
            }
        }
        Ok(())
    }
}

const EVENTS: Keyspace = Keyspace::new(100);

async fn take(bench: &Bench, deeds: &[Deed]) -> EventReport {
    bench.engine.put_marks(vec![Mark::put(EVENTS, &["1"], "waiting")]).await.expect("commits");
    let taker = Taker { deeds: deeds.to_vec(), clock: bench.clock.clone() };
    let order = EventOrder {
        sync: bench.order().sync,
        datasets: bench.order().datasets,
        connection: Arc::default(),
        event: "{}".into(),
        cause: Cause::webhook(5),
        received_at: bench.clock.now(),
        timeout: Duration::from_secs(60),
        done: vec![Mark::delete(EVENTS, &["1"])],
    };
    event(&bench.engine, &taker, order, &|_| {}).await.expect("the engine works")
}

fn waits(bench: &Bench) -> bool {
    bench.engine.mark(EVENTS, &["1"]).expect("reads").is_some()
}

fn checkpoint_of_events(bench: &Bench) -> Option<Vec<u8>> {
    let key = ["default", "crm", "acme", "everyone", "base", "events"];
    bench.engine.mark(Keyspace::BOOKMARK, &key).expect("reads")
}

#[tokio::test]
async fn all_that_an_event_writes_is_one_commit_with_its_end() {
    let bench = Bench::new();
    let deeds = [Deed::Save(CONTACT, "1", 1), Deed::Asks, Deed::Counts, Deed::Save(COMPANY, "a", 2)];
    let report = take(&bench, &deeds).await;
    assert_eq!((report.ended, report.receipts.len()), (Ok(()), 1));
    let (contact, company) = (bench.changes(CONTACT), bench.changes(COMPANY));
    assert_eq!((contact.len(), company.len()), (1, 1));
    assert_eq!(contact[0].2, company[0].2, "one engine time");
    assert!(!waits(&bench));
    let record = bench.engine.record(&bench.dataset(CONTACT), "1").await.expect("reads").expect("there");
    assert_eq!(record.meta.cause, Cause::webhook(5));
    // The checkpoint of events is their own.
    assert_eq!(take(&bench, &[Deed::Counts]).await.ended, Ok(()));
    assert_eq!(checkpoint_of_events(&bench).as_deref(), Some(&b"2"[..]));
    assert_eq!(bench.checkpoint(), None);
}

#[tokio::test]
async fn an_event_that_fails_leaves_nothing_and_waits() {
    let bench = Bench::new();
    let report = take(&bench, &[Deed::Save(CONTACT, "1", 1), Deed::Counts, Deed::Asks, Deed::Fails]).await;
    assert_eq!(report.ended.expect_err("fails").code, "thrown");
    assert!(report.receipts.is_empty() && bench.records(CONTACT).is_empty() && waits(&bench));
    assert_eq!(checkpoint_of_events(&bench), None);

    let late = async {
        loop {
            yield_often(100).await;
            bench.clock.advance(SECOND);
        }
    };
    let report = tokio::select! {
        report = take(&bench, &[Deed::Save(CONTACT, "1", 1), Deed::Waits]) => report,
        () = late => unreachable!("time goes on"),
    };
    assert_eq!(report.ended.expect_err("fails").code, "timeout");
    assert!(bench.records(CONTACT).is_empty() && waits(&bench));
}

#[tokio::test]
async fn what_reads_its_own_writes_is_repeated_without_an_effect() {
    let bench = Bench::new();
    let deeds = [Deed::Save(CONTACT, "1", 1), Deed::Sees("1"), Deed::Save(CONTACT, "2", 2)];
    let mut failing = deeds.to_vec();
    failing.push(Deed::Fails);
    let report = take(&bench, &failing).await;
    assert_eq!((report.ended.is_err(), report.receipts.len()), (true, 1), "what was read was committed");
    assert!(waits(&bench));
    let report = take(&bench, &deeds).await;
    assert_eq!((report.ended, report.receipts.len()), (Ok(()), 2));
    let seen: Vec<_> = bench.changes(CONTACT).into_iter().map(|(action, id, _)| (action, id)).collect();
    assert_eq!(seen, [(Action::Added, "1".to_owned()), (Action::Added, "2".to_owned())]);
}

#[tokio::test]
async fn more_than_one_commit_holds_is_several() {
    let bench = Bench::new();
    let report = take(&bench, &[Deed::Much]).await;
    assert_eq!((report.ended, report.receipts.len()), (Ok(()), 2));
    assert_eq!(bench.records(CONTACT).len(), 20);
}

#[tokio::test]
async fn an_event_has_no_window_of_deletes() {
    for deed in [Deed::Window, Deed::WindowEnd] {
        let bench = Bench::new();
        bench.run(vec![Save(CONTACT, "1", 1)]).await;
        assert_eq!(take(&bench, &[deed]).await.ended.expect_err("refused").code, "no_window");
        assert_eq!(bench.ids(CONTACT), ["1"]);
    }
}

/// A page that was asked for before the event came, and is saved behind it.
#[tokio::test]
async fn an_older_page_does_not_undo_an_event() {
    let bench = Bench::new();
    bench.run(vec![Save(CONTACT, "1", 1)]).await;
    let asked_at = bench.clock.now();
    bench.clock.advance(SECOND);
    assert_eq!(take(&bench, &[Deed::Patch("1", r#"{"n":7}"#)]).await.ended, Ok(()));
    let mut page = bench.engine.page(&bench.dataset(CONTACT));
    page.strategy(Strategy::IgnoreIfModifiedAfter);
    page.save("1", None, asked_at, json("1", 2).as_bytes());
    let batch = Batch { cause: Some(Cause::run(9)), pages: vec![page], ..Batch::default() };
    bench.engine.commit(batch).await.expect("commits");
    assert_eq!(bench.records(CONTACT), [json("1", 7)]);
}
