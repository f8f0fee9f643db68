//! Runs that end anywhere: no checkpoint is ahead of its records, and in the end there is what an undisturbed run leaves.

use super::*;

/// Two models, checkpoints between, a window around all of it.
fn body() -> Vec<Act> {
    vec![
        Request,
        Save(CONTACT, "1", 2),
        Save(COMPANY, "a", 2),
        Checkpoint,
        Request,
        Save(CONTACT, "2", 2),
        Save(CONTACT, "1", 3),
        Request,
        Save(COMPANY, "b", 2),
        Barrier,
        Checkpoint,
        Save(CONTACT, "3", 2),
        Gone(COMPANY, "b"),
        Checkpoint,
        Save(CONTACT, "4", 2),
        End(CONTACT),
        Clear,
    ]
}

async fn prepared(folder: &Path) -> Bench {
    let bench = Bench::open(Some(folder), Strategy::Override);
    let before = ["1", "2", "8", "9"].map(|id| Save(CONTACT, id, 1));
    bench.run(before.to_vec()).await;
    bench
}

fn script(bench: &Bench, hangs_at: Option<usize>, patience: usize) -> Arc<Script> {
    let mut script = bench.script(body());
    (script.head, script.hangs_at, script.patience) = (vec![Start(CONTACT)], hangs_at, patience);
    Arc::new(script)
}

/// What was saved before the checkpoint is there.
fn no_checkpoint_is_ahead(bench: &Bench, at: usize) {
    let place: usize = bench.checkpoint().map_or(0, |text| text.parse().expect("a place"));
    assert!(place <= at, "a checkpoint of what was not done");
    let (contacts, companies) = (bench.records(CONTACT), bench.changes(COMPANY));
    for act in &body()[..place] {
        match act {
            Save(CONTACT, id, n) => {
                let there = contacts.iter().any(|json| (*n..9).any(|n| *json == super::json(id, n)));
                assert!(there, "killed at {at} with a checkpoint behind {act:?}, and there is {contacts:?}");
            }
            Save(_, id, _) => assert!(companies.iter().any(|(_, known, _)| known == id), "killed at {at}: {act:?}"),
            _ => {}
        }
    }
}

#[tokio::test]
async fn a_run_that_ends_anywhere_leaves_what_an_undisturbed_one_does() {
    let folder = tempfile::tempdir().expect("a folder");
    let bench = prepared(folder.path()).await;
    bench.execute(script(&bench, None, 0)).await;
    let wanted = [bench.records(CONTACT), bench.records(COMPANY)];
    assert_eq!(wanted[0].len(), 4, "{wanted:?}");
    let turns = [0, 20];
    for (at, way, turns) in (0..body().len()).flat_map(|at| turns.map(|turns| (at, (at + turns) % 3, turns))) {
        let folder = tempfile::tempdir().expect("a folder");
        let mut bench = prepared(folder.path()).await;
        let numbered = match way {
            0 => Some(bench.halted(script(&bench, Some(at), turns), Halt::Stop).await.run),
            _ => {
                bench.killed(script(&bench, Some(at), turns)).await;
                None
            }
        };
        if way == 2 {
            // The engine commits what it has taken, as a store does that is opened again.
            drop(bench);
            bench = Bench::open(Some(folder.path()), Strategy::Override);
        }
        bench.engine.commit(Batch::default()).await.expect("what was handed over is through");
        no_checkpoint_is_ahead(&bench, at);
        let report = bench.execute(script(&bench, None, 0)).await;
        assert_eq!(report.record.status, Outcome::Complete, "at {at}, {way}");
        if let Some(number) = numbered.filter(|_| report.resumed) {
            assert_eq!(report.run, number);
        }
        assert_eq!([bench.records(CONTACT), bench.records(COMPANY)], wanted, "at {at}, {way}");
        assert_eq!(
            bench.announced.0.lock().expect("lock").iter().filter(|(model, _)| model == CONTACT).count(),
            if way == 2 { 1 } else { 2 }
        );
        assert_eq!(bench.checkpoint(), None);
    }
}
