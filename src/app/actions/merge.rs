//! What the answer of an action says of records: an observation of its own, as of when the request was sent.
//!
//! So the next poll brings nothing new, and a page that was asked for before the action does not undo it. It is a push, and is
//! announced as one.

use super::ActionsInner;
use crate::engine::model::{Cause, DatasetName};
use crate::engine::pipeline::{Batch, DatasetSpec, Error};
use crate::engine::source::{Body, Observation};
use crate::registry::connections::AccountKey;

impl ActionsInner {
    /// Commits what was seen of a stream, unless the connection leaves the stream out.
    pub(super) async fn merge(&self, key: &AccountKey, stream: &str, seen: &[Observation]) -> Result<(), Error> {
        let AccountKey { environment, source, id } = key;
        let Some(definition) = self.definitions.get(source) else { return Ok(()) };
        let Some(account) = self.connections.get(environment, source, id) else { return Ok(()) };
        let taken = match definition.writer(stream) {
            Some(function) => account.takes(function),
            None => account.takes_stream(stream),
        };
        let Some(known) = definition.stream(stream).filter(|_| taken) else { return Ok(()) };
        let name = DatasetName::base(environment, source, id, stream);
        let dataset = match self.engine.find(&name) {
            Some(dataset) => dataset,
            None => {
                let spec = DatasetSpec { strategy: known.merge, ignore_in_diff: known.ignore_in_diff.clone() };
                self.engine.dataset(&name, &spec)?
            }
        };
        let mut page = self.engine.page(&dataset);
        for one in seen {
            match &one.body {
                Body::Whole(text) => page.save(&one.id, one.modified_at, one.observed_at, text.as_bytes()),
                Body::Patch(text) => page.patch(&one.id, one.modified_at, one.observed_at, text.as_bytes()),
                Body::Gone { deleted_at } => page.delete(&one.id, one.modified_at, one.observed_at, *deleted_at),
            }
        }
        let cause = Some(Cause::push(self.engine.next_run()?));
        self.engine.commit(Batch { cause, pages: vec![page], ..Batch::default() }).await.map(drop)
    }
}
