//! Reading the journal: the newest first, filtered on the way, bounded by what is found and by what is looked at.

use super::expire::kept_since;
use super::line::Stored;
use super::{JournalKind, JournalLine, Shared, key, time_of};
use crate::model::Timestamp;
use crate::store::{Error, Family, Result, Store};
use rocksdb::ReadOptions;

/// Most lines of a page.
pub const PAGE_LINES: usize = 1_000;
/// Most lines that are looked at for a page: a filter that few lines meet comes to its end in several.
pub const PAGE_LOOKED_AT: usize = 50_000;

/// Which lines are wanted: those that meet all of it.
#[derive(Clone, Debug, Default)]
pub struct JournalSelection {
    /// Of this environment; `None` for those of all.
    pub environment: Option<String>,
    /// Of these kinds; empty for all.
    pub kinds: Vec<JournalKind>,
    /// About this source.
    pub source: Option<String>,
    /// About this connection.
    pub connection: Option<String>,
    /// About this stream.
    pub stream: Option<String>,
    /// About this endpoint.
    pub endpoint: Option<String>,
    /// With this id.
    pub id: Option<String>,
    /// That went so.
    pub outcome: Option<String>,
    /// Older than this: the `next` of an earlier page.
    pub before: Option<Timestamp>,
}

/// Some lines, and where to go on.
#[derive(Clone, Debug, Default)]
pub struct JournalPage {
    /// The newest first.
    pub lines: Vec<JournalLine>,
    /// [`JournalSelection::before`] of the next page; `None` if there is nothing older. A page without a line may have one: so far
    /// back was looked.
    pub next: Option<Timestamp>,
}

impl JournalSelection {
    /// Whether a line is wanted. Missing lines might have been any: whoever does not say which kinds he wants is told of them.
    fn wants(&self, line: &Stored<'_>) -> bool {
        if !(self.kinds.is_empty() || self.kinds.contains(&line.kind)) {
            return false;
        }
        let subjects =
            [&self.environment, &self.source, &self.connection, &self.stream, &self.endpoint, &self.id, &self.outcome];
        let meets = |(n, wanted): (usize, &Option<String>)| wanted.as_ref().is_none_or(|wanted| line.is(n, wanted));
        line.kind == JournalKind::Gap || subjects.into_iter().enumerate().all(meets)
    }
}

/// A page of at most `limit` lines.
pub(super) fn read(store: &Store, shared: &Shared, selection: &JournalSelection, limit: usize) -> Result<JournalPage> {
    let limit = limit.clamp(1, PAGE_LINES);
    let mut options = ReadOptions::default();
    // What nobody is to see any more, though it may be there still.
    options.set_iterate_lower_bound(key(kept_since(shared)));
    options.set_iterate_upper_bound(key(selection.before.unwrap_or(Timestamp(i64::MAX))));
    options.fill_cache(false);
    let mut scan = store.scan(Family::Journal, options);
    scan.seek_to_last();
    let (mut page, mut looked_at) = (JournalPage::default(), 0);
    while let (Some(at), Some(value)) = (scan.key().map(time_of), scan.value()) {
        let damaged = |what| Error::Damaged(format!("the line of the journal at {at}: {what}"));
        if page.lines.len() == limit || looked_at == PAGE_LOOKED_AT {
            page.next = Some(Timestamp(at.0.saturating_add(1)));
            return Ok(page);
        }
        looked_at += 1;
        if let Some(line) = Stored::decode(value).map_err(damaged)?.filter(|line| selection.wants(line)) {
            page.lines.push(line.line(at).map_err(damaged)?);
        }
        scan.prev();
    }
    scan.status()?;
    Ok(page)
}
