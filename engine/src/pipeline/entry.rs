//! Batches of runs as bytes: how they lie in a log between who made them and who applies them.
//!
//! Format: numbers little-endian, texts and byte strings with their length (4 bytes) in front. Rows go as they are, hashes
//! included, since all processes of an installation share one secret. What cannot be read is named, never guessed.
//!
//! Format 2 has a strategy in front of the rows of each page, and any number of ends of the run. A batch that has no use for either
//! is written in format 1, so that processes of an earlier version, which may own the log again, can read it.

use super::Keyspace;
use super::batch::{Batch, Mark, PageBuilder, WindowOp};
use super::{Dataset, Error};
use crate::model::content::KeySeed;
use crate::model::{Cause, DatasetId, DatasetName, Strategy, Timestamp, Via};
use crate::sink::RunEnd;
use crate::state::{ObservationRow, ObservationRows, RowKind};
use std::sync::Arc;

/// Finds a dataset by its number.
pub(super) type DatasetLookup<'a> = &'a dyn Fn(DatasetId) -> Option<Arc<DatasetName>>;

/// First byte of format 2. Format 1 begins with the kind of the cause.
const FORMAT_2: u8 = 0xf2;

/// Writes a batch.
pub(super) fn encode(batch: &Batch, out: &mut Vec<u8>) {
    let second = batch.end_run.len() > 1 || batch.pages.iter().any(|page| page.rows.strategy.is_some());
    if second {
        out.push(FORMAT_2);
    }
    match batch.cause {
        Some(cause) => {
            out.push(1 + via_number(cause.via));
            out.extend_from_slice(&cause.number.to_le_bytes());
        }
        None => out.push(0),
    }
    windows(&batch.open, out);
    number(batch.pages.len(), out);
    for PageBuilder { rows: page, .. } in &batch.pages {
        if second {
            out.push(page.strategy.map_or(0, strategy_number));
        }
        rows(page, out);
    }
    windows(&batch.close, out);
    number(batch.marks.len(), out);
    batch.marks.iter().for_each(|mark| put_mark(mark, out));
    match second {
        true => number(batch.end_run.len(), out),
        false => out.push(u8::from(!batch.end_run.is_empty())),
    }
    for (dataset, end) in &batch.end_run {
        number(dataset.id.0 as usize, out);
        put_end(end, out);
    }
}

fn number(n: usize, out: &mut Vec<u8>) {
    // Lengths here are bounded far below 4 GiB by what a batch may hold.
    out.extend_from_slice(&(n as u32).to_le_bytes());
}

fn bytes(bytes: &[u8], out: &mut Vec<u8>) {
    number(bytes.len(), out);
    out.extend_from_slice(bytes);
}

fn windows(ops: &[WindowOp], out: &mut Vec<u8>) {
    number(ops.len(), out);
    for op in ops {
        let (kind, dataset) = match op {
            WindowOp::Start(dataset) => (0, dataset),
            WindowOp::Restart(dataset) => (1, dataset),
            WindowOp::Sweep(dataset) => (2, dataset),
            WindowOp::Abort(dataset) => (3, dataset),
            WindowOp::SweepOf(dataset, _) => (4, dataset),
            WindowOp::AbortOf(dataset, _) => (5, dataset),
        };
        out.push(kind);
        number(dataset.id.0 as usize, out);
        if let WindowOp::SweepOf(_, opened) | WindowOp::AbortOf(_, opened) = op {
            out.extend_from_slice(&opened.0.to_le_bytes());
        }
    }
}

fn rows(rows: &ObservationRows, out: &mut Vec<u8>) {
    number(rows.dataset.0 as usize, out);
    bytes(&rows.bytes, out);
    number(rows.len as usize, out);
    for row in rows.parts.iter().flatten() {
        out.push(match row.kind {
            RowKind::Whole => 0,
            RowKind::Patch => 1,
            RowKind::Gone => 2,
        });
        for n in [row.key[0], row.key[1], row.raw, row.modified_at.0 as u64, row.observed_at.0 as u64] {
            out.extend_from_slice(&n.to_le_bytes());
        }
        for n in [row.from, row.len, row.place] {
            out.extend_from_slice(&n.to_le_bytes());
        }
    }
}

fn put_mark(mark: &Mark, out: &mut Vec<u8>) {
    out.push(mark.keyspace.number());
    number(mark.key.len(), out);
    mark.key.iter().for_each(|part| bytes(part.as_bytes(), out));
    match &mark.value {
        Some(value) => {
            out.push(1);
            bytes(value, out);
        }
        None => out.push(0),
    }
}

fn put_end(end: &RunEnd, out: &mut Vec<u8>) {
    bytes(end.sync.as_bytes(), out);
    bytes(end.kind.as_bytes(), out);
    out.extend_from_slice(&end.started_at.unwrap_or(Timestamp::NONE).0.to_le_bytes());
    match &end.error {
        Some((kind, text)) => {
            out.push(1);
            bytes(kind.as_bytes(), out);
            bytes(text.as_bytes(), out);
        }
        None => out.push(0),
    }
}

/// Reads a batch back for an engine of so many workers.
pub(super) fn decode(entry: &[u8], workers: usize, seed: &KeySeed, find: DatasetLookup<'_>) -> Result<Batch, Error> {
    let mut reader = EntryReader { rest: entry, find };
    let batch = reader.batch(workers, seed).ok_or_else(|| {
        Error::BadBatch("a batch in the log is damaged or names an unknown dataset; it cannot be applied".to_owned())
    })?;
    if reader.rest.is_empty() {
        Ok(batch)
    } else {
        Err(Error::BadBatch("a batch in the log is longer than it says; it was written by a newer program".to_owned()))
    }
}

struct EntryReader<'a> {
    rest: &'a [u8],
    find: DatasetLookup<'a>,
}

impl<'a> EntryReader<'a> {
    fn batch(&mut self, workers: usize, seed: &KeySeed) -> Option<Batch> {
        let (second, first) = match self.byte()? {
            FORMAT_2 => (true, self.byte()?),
            first => (false, first),
        };
        let cause = match first {
            0 => None,
            n => Some(Cause { via: via_of(n - 1)?, number: self.long()? }),
        };
        let open = self.windows()?;
        let pages = (0..self.number()?).map(|_| self.page(second, workers, seed)).collect::<Option<Vec<_>>>()?;
        let close = self.windows()?;
        let marks = (0..self.number()?).map(|_| self.mark()).collect::<Option<Vec<_>>>()?;
        let ends = if second { self.number()? } else { u32::from(self.byte()?.min(1)) };
        let end_run = (0..ends).map(|_| Some((self.dataset()?, self.end()?))).collect::<Option<Vec<_>>>()?;
        Some(Batch { cause, open, pages, close, marks, end_run })
    }

    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.rest.split_at_checked(n)?;
        self.rest = tail;
        Some(head)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|b| b[0])
    }

    fn number(&mut self) -> Option<u32> {
        self.take(4)?.try_into().ok().map(u32::from_le_bytes)
    }

    fn long(&mut self) -> Option<u64> {
        self.take(8)?.try_into().ok().map(u64::from_le_bytes)
    }

    fn time(&mut self) -> Option<Timestamp> {
        self.long().map(|n| Timestamp(n as i64))
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let n = self.number()? as usize;
        self.take(n)
    }

    fn text(&mut self) -> Option<String> {
        String::from_utf8(self.bytes()?.to_vec()).ok()
    }

    fn dataset(&mut self) -> Option<Dataset> {
        let id = DatasetId(self.number()?);
        Some(Dataset { id, name: (self.find)(id)? })
    }

    fn windows(&mut self) -> Option<Vec<WindowOp>> {
        (0..self.number()?).map(|_| self.window()).collect()
    }

    fn window(&mut self) -> Option<WindowOp> {
        let (kind, dataset) = (self.byte()?, self.dataset()?);
        Some(match kind {
            0 => WindowOp::Start(dataset),
            1 => WindowOp::Restart(dataset),
            2 => WindowOp::Sweep(dataset),
            3 => WindowOp::Abort(dataset),
            4 => WindowOp::SweepOf(dataset, self.time()?),
            5 => WindowOp::AbortOf(dataset, self.time()?),
            _ => return None,
        })
    }

    fn page(&mut self, second: bool, workers: usize, seed: &KeySeed) -> Option<PageBuilder> {
        let strategy = match second {
            true => strategy_of(self.byte()?)?,
            false => None,
        };
        let dataset = self.dataset()?.id;
        let mut page = PageBuilder::new(dataset, workers, seed.clone());
        page.rows.strategy = strategy;
        page.rows.bytes = self.bytes()?.to_vec();
        let len = self.number()?;
        let mut all = (0..len).map(|_| self.row()).collect::<Option<Vec<ObservationRow>>>()?;
        // They came worker by worker; another number of workers needs them in their own order first.
        all.sort_unstable_by_key(|row| row.place);
        let size = page.rows.bytes.len();
        for row in all {
            if (row.from as usize).checked_add(row.len as usize)? > size {
                return None;
            }
            let part = row.key[1] as usize % page.rows.parts.len();
            page.rows.parts.get_mut(part)?.push(row);
        }
        page.rows.len = len;
        Some(page)
    }

    fn row(&mut self) -> Option<ObservationRow> {
        let kind = match self.byte()? {
            0 => RowKind::Whole,
            1 => RowKind::Patch,
            2 => RowKind::Gone,
            _ => return None,
        };
        let key = [self.long()?, self.long()?];
        let raw = self.long()?;
        let (modified_at, observed_at) = (self.time()?, self.time()?);
        let (from, len, place) = (self.number()?, self.number()?, self.number()?);
        Some(ObservationRow { key, raw, modified_at, observed_at, from, len, place, kind })
    }

    fn mark(&mut self) -> Option<Mark> {
        let keyspace = Keyspace::new(self.byte()?);
        let key = (0..self.number()?).map(|_| self.text()).collect::<Option<Vec<_>>>()?;
        let value = match self.byte()? {
            0 => None,
            _ => Some(self.bytes()?.to_vec()),
        };
        Some(Mark { keyspace, key, value })
    }

    fn end(&mut self) -> Option<RunEnd> {
        let (sync, kind) = (self.text()?, self.text()?);
        let started_at = Some(self.time()?).filter(|at| *at != Timestamp::NONE);
        let error = match self.byte()? {
            0 => None,
            _ => Some((self.text()?, self.text()?)),
        };
        Some(RunEnd { sync, kind, started_at, error })
    }
}

fn via_number(via: Via) -> u8 {
    match via {
        Via::Poll => 0,
        Via::Webhook => 1,
        Via::Push => 2,
        Via::View => 3,
    }
}

fn via_of(number: u8) -> Option<Via> {
    [Via::Poll, Via::Webhook, Via::Push, Via::View].into_iter().find(|via| via_number(*via) == number)
}

/// Numbers of strategies, from 1.
const STRATEGIES: [Strategy; 3] = [Strategy::Latest, Strategy::IgnoreIfModifiedAfter, Strategy::Override];

fn strategy_number(strategy: Strategy) -> u8 {
    (1..).zip(STRATEGIES).find(|(_, known)| *known == strategy).map_or(0, |(number, _)| number)
}

/// `Some(None)`: the dataset's own.
fn strategy_of(number: u8) -> Option<Option<Strategy>> {
    match number.checked_sub(1) {
        None => Some(None),
        Some(place) => STRATEGIES.get(usize::from(place)).copied().map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Cause;

    fn dataset(n: u32) -> Dataset {
        Dataset { id: DatasetId(n), name: Arc::new(DatasetName::base("e", "s", "c", &n.to_string())) }
    }

    /// The first format, or the second.
    fn samples(workers: usize) -> [Batch; 2] {
        let (first, mut second) = (sample(workers), sample(workers));
        for strategy in STRATEGIES {
            let mut page = PageBuilder::new(DatasetId(3), workers, KeySeed::new(&[7; 32]));
            page.strategy(strategy);
            page.save("1", None, Timestamp(1), b"{}");
            second.pages.push(page);
        }
        second.end_run.push((dataset(2), RunEnd::default()));
        [first, second]
    }

    fn sample(workers: usize) -> Batch {
        let seed = KeySeed::new(&[7; 32]);
        let mut page = PageBuilder::new(DatasetId(2), workers, seed);
        for n in 0..50 {
            let id = n.to_string();
            page.save(&id, Some(Timestamp(n)), Timestamp(9), format!("{{\"id\":\"{id}\"}}").as_bytes());
            page.patch(&id, None, Timestamp(10), b"{}");
            page.delete(&id, None, Timestamp(11), Some(Timestamp(5)));
        }
        let end = RunEnd {
            sync: "s".into(),
            kind: "FULL".into(),
            started_at: Some(Timestamp(3)),
            error: Some(("a".into(), "b".into())),
        };
        Batch {
            cause: Some(Cause::run(77)),
            open: vec![WindowOp::Restart(dataset(2))],
            pages: vec![page],
            close: vec![
                WindowOp::Sweep(dataset(2)),
                WindowOp::Abort(dataset(3)),
                WindowOp::SweepOf(dataset(2), Timestamp(7)),
                WindowOp::AbortOf(dataset(3), Timestamp(-8)),
            ],
            marks: vec![Mark::put(Keyspace::RUN, &["a", ""], vec![0, 255]), Mark::delete(Keyspace::HELD, &["x"])],
            end_run: vec![(dataset(3), end)],
        }
    }

    fn text(batch: &Batch) -> String {
        let rows: Vec<_> = batch.pages.iter().map(|page| &page.rows).collect();
        let Batch { cause, open, close, marks, end_run, .. } = batch;
        format!("{cause:?} {open:?} {rows:?} {close:?} {marks:?} {end_run:?}")
    }

    fn read(bytes: &[u8], workers: usize) -> Result<Batch, Error> {
        decode(bytes, workers, &KeySeed::new(&[7; 32]), &|id| Some(dataset(id.0).name))
    }

    #[test]
    fn a_batch_comes_back_whatever_the_number_of_workers() {
        for (from, to) in [(1, 1), (1, 3), (3, 2), (4, 1)] {
            for (written, wanted) in samples(from).iter().zip(&samples(to)) {
                let mut bytes = Vec::new();
                encode(written, &mut bytes);
                assert_eq!(text(&read(&bytes, to).expect("whole")), text(wanted), "{from} to {to} workers");
            }
        }
    }

    #[test]
    fn what_the_first_format_can_say_is_written_in_it() {
        let firsts = samples(1).map(|batch| {
            let mut bytes = Vec::new();
            encode(&batch, &mut bytes);
            bytes[0]
        });
        assert_eq!(firsts, [1 + via_number(Via::Poll), FORMAT_2]);
        // An end of a run, as the first format has always had it.
        let mut bytes = Vec::new();
        encode(&Batch { end_run: vec![(dataset(1), RunEnd::default())], ..Batch::default() }, &mut bytes);
        let lists = [0; 4 * 4];
        assert_eq!(bytes[..22], [&[0][..], &lists, &[1], &[1, 0, 0, 0]].concat());
    }

    #[test]
    fn damage_is_refused_and_never_a_panic() {
        for batch in &samples(2) {
            refuses_damage(batch);
        }
    }

    fn refuses_damage(batch: &Batch) {
        let mut bytes = Vec::new();
        encode(batch, &mut bytes);
        for cut in 0..bytes.len() {
            assert!(read(&bytes[..cut], 2).is_err(), "cut at {cut}");
        }
        for at in 0..bytes.len() {
            let mut altered = bytes.clone();
            altered[at] ^= 0xff;
            // Whether it is refused depends on the byte; it must only not be fatal.
            let _ = read(&altered, 2);
        }
        bytes.push(0);
        assert!(read(&bytes, 2).is_err());
        assert!(decode(&bytes, 2, &KeySeed::new(&[7; 32]), &|_| None).is_err(), "unknown dataset");
    }
}
