//! Forgets what is past its time: entries of the log, delivery ids, unrouted events, entries of the quarantine.

use super::{HooksInner, unrouted};
use crate::connectors::webhooks::StoredWebhook;
use crate::engine::fault::pass;
use crate::engine::model::Timestamp;
use crate::engine::pipeline::{Batch, Error, Keyspace, Mark, expire_quarantine};
use crate::ingest::dedup;
use crate::telemetry::record;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How long requests stay in the log: longer than anything that refers to them.
pub const KEEP: Duration = Duration::from_secs(8 * 24 * 60 * 60);
const EVERY: Duration = Duration::from_secs(60);
/// The quarantine is read as a whole for it.
const QUARANTINE_EVERY: Duration = Duration::from_secs(60 * 60);
/// Entries read at a time while looking for old ones.
const PAGE: usize = 32;
/// Minutes looked at in one sweep: after a long stop it takes several.
const MINUTES: i64 = 20_000;
/// Name of the minute up to which delivery ids were forgotten.
const PLACE: &str = "webhook ids";

/// Sweeps at the start and once a minute until `stop` is cancelled or the store fails.
pub(super) async fn run(inner: Arc<HooksInner>, stop: CancellationToken) -> Result<(), Error> {
    let clock = inner.parts.engine.clock();
    let (mut trimmed, mut quarantine_at) = (0, Timestamp::NONE);
    loop {
        let now = clock.now();
        let swept = async {
            once(&inner, now, &mut trimmed).await?;
            if quarantine_at <= now {
                quarantine_at = now.plus(QUARANTINE_EVERY);
                forget_quarantined(&inner, now).await?;
            }
            Ok(())
        };
        match swept.await {
            Err(Error::Stopped) => return Ok(()),
            done => done?,
        }
        tokio::select! {
            () = clock.sleep(EVERY) => {}
            () = stop.cancelled() => return Ok(()),
        }
    }
}

async fn once(inner: &HooksInner, now: Timestamp, trimmed: &mut u64) -> Result<(), Error> {
    forget_ids(inner, now).await?;
    unrouted::expire(inner, now).await?;
    trim(inner, now, trimmed)
}

async fn forget_quarantined(inner: &HooksInner, now: Timestamp) -> Result<(), Error> {
    let old = expire_quarantine(&inner.parts.engine, now).await?;
    if old > 0 {
        record::quarantine_dropped("too_old", old);
        tracing::warn!(entries = old, "what was in quarantine for 30 days is dropped");
    }
    Ok(())
}

/// Forgets ids minute by minute, so that no more than a minute's worth is in memory.
async fn forget_ids(inner: &HooksInner, now: Timestamp) -> Result<(), Error> {
    let engine = &inner.parts.engine;
    let stored = engine.mark(Keyspace::PLACE, &[PLACE])?;
    let stored = stored.and_then(|value| String::from_utf8_lossy(&value).parse::<i64>().ok());
    let current = now.seconds().div_euclid(60);
    // Ids live for days at most: without a place nothing older can stand.
    let oldest = current - i64::try_from(KEEP.as_secs() / 60).unwrap_or(i64::MAX) - 1;
    let from = stored.unwrap_or(oldest);
    let current = current.min(from + MINUTES);
    for minute in from..current {
        let last = Timestamp::from_seconds((minute + 1).saturating_mul(60)).minus(Duration::from_micros(1));
        let mut marks = dedup::forget(engine, last)?;
        if marks.is_empty() && minute + 1 < current {
            continue;
        }
        pass("ttl.sweep");
        marks.push(Mark::put(Keyspace::PLACE, &[PLACE], (minute + 1).to_string()));
        engine.commit(Batch { marks, ..Batch::default() }).await?;
    }
    Ok(())
}

/// Trims entries of the log that were processed and are old.
fn trim(inner: &HooksInner, now: Timestamp, trimmed: &mut u64) -> Result<(), Error> {
    let log = inner.parts.engine.log();
    let processed = inner.follower.processed();
    loop {
        let entries = log.read(*trimmed, PAGE)?;
        let old = |(position, bytes): &&(u64, bytes::Bytes)| {
            let received = StoredWebhook::decode(bytes).map_or(Timestamp::NONE, |s| s.received_at());
            *position <= processed && received.plus(KEEP) <= now
        };
        let last_old = entries.iter().take_while(old).last().map(|(position, _)| *position);
        let Some(through) = last_old else { return Ok(()) };
        log.trim(through)?;
        *trimmed = through;
        if entries.last().is_none_or(|(position, _)| *position != through) {
            return Ok(());
        }
    }
}
