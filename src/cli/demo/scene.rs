//! The scene: a polled page is held back while a webhook overtakes it, and then loses.
//!
//! It plays with a contact that chance leaves alone, so it does not disturb what the seed decides.

use super::lines::Lines;
use super::stage::DemoStage;
use super::{LOOK_EVERY, SETTLE_MAX};
use crate::engine::model::{Timestamp, Via};
use crate::engine::pipeline::Dataset;
use crate::engine::time::Clock;
use std::sync::Arc;
use std::time::Duration;
use syncline_provider::{Edit, Notify};
use tokio_util::sync::CancellationToken;

/// After the first lines have been read.
const BEGINS: Duration = Duration::from_secs(4);
/// The contact of the scene, in the first account.
const CONTACT: u64 = 2;
/// Longest wait for a poll to bring the page.
const PAGE_MAX: Duration = Duration::from_secs(8);

/// Plays it once, if there is time.
pub(super) async fn play(stage: Arc<DemoStage>, lines: Arc<Lines>, over: CancellationToken) {
    let clock = stage.app.engine.clock();
    tokio::select! {
        () = clock.sleep(BEGINS) => {}
        () = over.cancelled() => return,
    }
    let Some((account, _)) = stage.fake.accounts().into_iter().next() else { return };
    let key = stage.app.syncs.keys().into_iter().find(|k| k.connection == account);
    let Some(dataset) = key.as_ref().and_then(|key| stage.app.syncs.datasets(key)?.pop()) else { return };
    // A version only a poll can bring: its page is the one to be held.
    let held = stage.fake.hold_page(0, CONTACT);
    stage.fake.edit(0, Edit::Update(CONTACT), Notify::Never);
    let rendered = tokio::select! {
        rendered = held.rendered => rendered,
        () = clock.sleep(PAGE_MAX) => return,
        () = over.cancelled() => return,
    };
    let Ok(old) = rendered else { return };
    lines.scene(&account, CONTACT, &format!("the provider holds back a page that has version {old}"));
    let Some(newer) = stage.fake.edit(0, Edit::Update(CONTACT), Notify::Now) else { return };
    let overtaken = seen_by_webhook(&stage, &dataset, newer.at, &*clock).await;
    // Whoever held the page lets go whatever happened: a poll must not hang on a scene.
    let released_at = clock.now();
    let _ = held.release.send(());
    if overtaken {
        lines.scene(
            &account,
            CONTACT,
            &format!("a webhook brought version {} meanwhile; now the page arrives", newer.version),
        );
        if lost(&stage, &dataset, (newer.at, released_at), &*clock).await {
            let told = format!(
                "STALE: version {old} came by poll after version {} by webhook: skipped, no change",
                newer.version
            );
            lines.scene(&account, CONTACT, &told);
        }
    }
}

/// Waits until the newer version is committed, by the webhook.
async fn seen_by_webhook(stage: &DemoStage, dataset: &Dataset, at: Timestamp, clock: &dyn Clock) -> bool {
    let limit = clock.now().plus(SETTLE_MAX);
    while clock.now() < limit {
        if let Ok(Some(record)) = stage.app.engine.record(dataset, &CONTACT.to_string()).await
            && record.meta.modified_at >= at
        {
            return record.meta.cause.via == Via::Webhook;
        }
        clock.sleep(LOOK_EVERY).await;
    }
    false
}

/// Waits for the run with the held page to end; true if it skipped a record and the newer version still stands.
async fn lost(
    stage: &DemoStage,
    dataset: &Dataset,
    (at, released_at): (Timestamp, Timestamp),
    clock: &dyn Clock,
) -> bool {
    let limit = clock.now().plus(SETTLE_MAX);
    let keys: Vec<_> =
        stage.app.syncs.keys().into_iter().filter(|k| *k.connection == *dataset.name.connection).collect();
    while clock.now() < limit {
        let status = stage.app.syncs.status(&keys).into_iter().next();
        if let Some(last) = status.and_then(|s| s.last).filter(|last| last.finished_at >= released_at) {
            let record = stage.app.engine.record(dataset, &CONTACT.to_string()).await;
            return last.counts.skipped > 0 && record.is_ok_and(|r| r.is_some_and(|r| r.meta.modified_at >= at));
        }
        clock.sleep(LOOK_EVERY).await;
    }
    false
}
