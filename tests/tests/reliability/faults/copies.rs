//! A store that is a copy of what lies elsewhere, on a small disk: it waits for space, and what a failed write left is read again
//! from elsewhere.

use super::small::Small;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use syncline_engine::Engine;
use syncline_engine::log::{MemoryChangelog, MemoryLog};
use syncline_engine::model::{Cause, DatasetName, Strategy, Timestamp, Via};
use syncline_engine::pipeline::{Batch, Dataset, DatasetSpec, Error, Options, Receipt, Remote};

const MIB: u32 = 160;

fn open(folder: &Path, changelog: &MemoryChangelog, min_free: Option<u64>) -> (Engine, Dataset) {
    let changelog = Arc::new(changelog.open());
    let remote = Remote { log: Arc::new(MemoryLog::default()), changelog, secret: [7; 32], part: 0 };
    let engine = Engine::open_copy(Options { min_free, ..Options::in_folder(folder) }, remote).expect("opens");
    let name = DatasetName::base("e", "s", "c", "Model");
    let dataset = engine.dataset(&name, &DatasetSpec::of(Strategy::Latest)).expect("a dataset");
    (engine, dataset)
}

/// One record of so many KiB that no compression makes smaller.
async fn put(engine: &Engine, dataset: &Dataset, n: u64, kib: usize) -> Result<Receipt, Error> {
    let mut seed = n + 1;
    let text: String = std::iter::repeat_with(|| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        char::from(b'a' + (seed >> 59) as u8 % 26)
    })
    .take(kib << 10)
    .collect();
    let mut page = engine.page(dataset);
    let payload = format!("{{\"id\":\"{n}\",\"text\":\"{text}\"}}");
    page.save(&n.to_string(), None, Timestamp::from_seconds(1), payload.as_bytes());
    let cause = Some(Cause { via: Via::Push, number: n });
    engine.commit(Batch { cause, pages: vec![page], ..Batch::default() }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_waits_for_space_on_its_disk() {
    let Some(small) = Small::new(MIB, "faults::copies::a_copy_waits_for_space_on_its_disk") else { return };
    let (engine, dataset) = open(small.path(), &MemoryChangelog::default(), None);
    put(&engine, &dataset, 0, 1).await.expect("committed");
    small.fill(6 << 10);
    {
        let mut waiting = std::pin::pin!(put(&engine, &dataset, 1, 1));
        let none = tokio::time::timeout(Duration::from_millis(400), waiting.as_mut()).await;
        assert!(none.is_err() && engine.refusing().is_some(), "it waits: {none:?}");
        assert!(engine.record(&dataset, "0").await.expect("reads go on").is_some());
        small.empty();
        waiting.await.expect("committed");
    }
    assert!(engine.refusing().is_none());
    engine.stop().await.expect("stops");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_whose_write_failed_is_read_again_from_elsewhere() {
    let Some(small) = Small::new(MIB, "faults::copies::a_copy_whose_write_failed_is_read_again_from_elsewhere") else {
        return;
    };
    let changelog = MemoryChangelog::default();
    let (engine, dataset) = open(small.path(), &changelog, Some(0));
    put(&engine, &dataset, 0, 1).await.expect("committed");
    small.fill(0);
    let mut acknowledged = 1;
    let why = loop {
        match put(&engine, &dataset, acknowledged, 900).await {
            Ok(_) => acknowledged += 1,
            Err(why) => break why,
        }
        assert!(acknowledged < 1_000, "the disk is full");
    };
    assert!(matches!(why, Error::Poisoned(_)) && engine.failed().is_some(), "{why}");
    engine.stop().await.expect("stops");
    drop(engine);
    small.empty();
    let (engine, dataset) = open(small.path(), &changelog, Some(0));
    for n in 0..acknowledged {
        assert!(engine.record(&dataset, &n.to_string()).await.expect("read").is_some(), "{n} was acknowledged");
    }
    put(&engine, &dataset, acknowledged, 1).await.expect("committed");
    engine.stop().await.expect("stops");
}
