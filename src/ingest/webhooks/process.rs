//! Webhooks from the log to commits; the log is followed by the engine ([`LogFollower`]).

use super::prepare::{FollowUp, Prepared, prepare, refused};
use super::{HooksInner, add};
use crate::engine::model::Cause;
use crate::engine::pipeline::{Batch, EntryProcessor, Error, LogFollower, Receipt};
use crate::engine::store::journal::JournalLine;
use crate::engine::{Engine, fault};
use crate::ingest::dedup::ReservedIds;
use crate::ingest::quarantine;
use crate::keyspaces;
use crate::telemetry::record;
use async_trait::async_trait;
use bytes::Bytes;

/// Name of our place in the log.
pub(super) const PLACE: &str = "webhooks";

/// Up to where the log was processed.
pub(crate) fn place(engine: &Engine) -> Result<u64, Error> {
    LogFollower::place(engine, PLACE)
}

/// What is to be done once the batch of a webhook is committed.
pub(super) struct WebhookOrigin {
    follow_up: FollowUp,
    line: Option<JournalLine>,
    reserved: ReservedIds,
}

#[async_trait]
impl EntryProcessor for HooksInner {
    type Origin = WebhookOrigin;

    async fn batch(&self, position: u64, entry: &Bytes) -> Result<(Batch, WebhookOrigin), Error> {
        let Prepared { batch, reserved, follow_up, line } = prepare(self, position, entry)?;
        if fault::planted("dedupe_key_outside_the_batch") {
            let keys = batch.marks.iter().filter(|mark| mark.keyspace == keyspaces::DEDUPE).cloned().collect();
            self.parts.engine.put_marks(keys).await?;
        }
        Ok((batch, WebhookOrigin { follow_up, line, reserved }))
    }

    async fn refused(&self, position: u64, origin: Option<WebhookOrigin>, why: &str) -> Result<Batch, Error> {
        if let Some(origin) = origin {
            origin.reserved.release();
        }
        Ok(refused(self, position, "bad_batch", why)?.batch)
    }

    async fn committed(&self, position: u64, origin: Option<WebhookOrigin>, receipt: Receipt) -> Result<(), Error> {
        if let Some(origin) = &origin {
            origin.reserved.release();
        }
        record::committed(&self.parts.engine, &receipt);
        rejected(self, &Cause::webhook(position).to_string(), &receipt).await?;
        if let Some(origin) = origin {
            self.follow_up(origin.follow_up);
            if let Some(line) = origin.line {
                self.parts.engine.journal().write(line);
            }
        }
        HooksInner::committed(self);
        Ok(())
    }
}

/// Says what of a committed batch was no record; `batch` names it among all of its request.
pub(super) async fn rejected(inner: &HooksInner, batch: &str, receipt: &Receipt) -> Result<(), Error> {
    if receipt.rejected.is_empty() {
        return Ok(());
    }
    let position = batch.split('.').next().and_then(Cause::parse).map_or(0, |cause| cause.number);
    let marks = quarantine::rejected(&inner.parts.engine, receipt, |name, n, what| {
        add(&inner.tally.rejected, 1);
        let place = [&*name.environment, &*name.source, &*name.connection, &*name.model];
        inner.quarantine(place, &format!("{batch}.record.{n}"), position, &what)
    })?;
    inner.parts.engine.commit(Batch { marks, ..Batch::default() }).await.map(drop)
}
