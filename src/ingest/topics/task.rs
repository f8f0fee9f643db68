//! One topic from its opening to its end: chunk → groups → commits, again after every trouble that may pass.

use super::accounts::InputConnections;
use super::group::{GROUP_BYTES, TopicBatch, TopicTally};
use super::listing::OpenLists;
use super::outcome::MessageOutcome;
use super::place::{self, PartitionPlace};
use super::repeats::{self, Sequences};
use super::spec::{InputSpec, MessageKind};
use super::target::Targets;
use super::{InputState, InputsInner};
use crate::connectors::kafka::input::dead::Dead;
use crate::connectors::kafka::input::reader::{FINAL, Subscription};
use crate::connectors::kafka::input::{Bad, Chunk, Message, StartOffset, TopicReader};
use crate::connectors::kafka::topics;
use crate::engine::model::{Failure, Timestamp};
use crate::engine::pipeline::{CommitWindow, Error, Mark, QuarantineWriter, Receipt, WindowBounds};
use crate::engine::source::Quarantined;
use crate::ingest::dedup::{Dedup, ReservedIds};
use crate::ingest::quarantine::{self, QuarantinePlaces};
use crate::telemetry::record;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Waits before a topic is opened again: doubling between these.
const AGAIN: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(5)];
/// Between two reports of the lag.
const REPORT: Duration = Duration::from_secs(5);

/// Commits on their way at a time, and bytes of their messages.
const IN_FLIGHT: WindowBounds = WindowBounds { commits: 64, bytes: 32 << 20 };

/// What a batch of a topic was made of.
struct TopicOrigin {
    cause: String,
    /// Topic, partition, offsets: for messages.
    range: String,
    reserved: ReservedIds,
}

/// Everything the messages of one topic are worked on with.
pub(super) struct TopicWork {
    pub inner: Arc<InputsInner>,
    pub spec: InputSpec,
    pub targets: Targets,
    pub listings: OpenLists,
    pub sequences: Sequences,
    pub dedup: Dedup,
    pub places: BTreeMap<i32, PartitionPlace>,
    /// (environment, id) of the source's connections, those of other parts included.
    pub accounts: Vec<(String, String)>,
    /// Whether messages of nobody are this shard's to keep.
    keeps_strays: bool,
    /// Our clock at the current chunk.
    pub now: Timestamp,
    window: CommitWindow<TopicOrigin>,
    /// Partitions whose place has moved past messages that had no effect, and is not handed over yet.
    passed: BTreeSet<i32>,
    dead: Dead,
    topic_id: String,
}

/// Why reading ends.
enum ReadTrouble {
    Engine(Error),
    Kafka(Failure),
}

impl From<Error> for ReadTrouble {
    fn from(error: Error) -> Self {
        ReadTrouble::Engine(error)
    }
}

impl From<Failure> for ReadTrouble {
    fn from(failure: Failure) -> Self {
        ReadTrouble::Kafka(failure)
    }
}

/// Reads a topic until `stop` is cancelled or the store fails.
pub(super) async fn run(inner: Arc<InputsInner>, mut spec: InputSpec, stop: CancellationToken) -> Result<(), Error> {
    let clock = inner.parts.engine.clock();
    let mut wait = AGAIN[0];
    let mut said = "";
    loop {
        let ended = tokio::select! {
            ended = attempt(&inner, &spec, &stop, &mut wait) => ended,
            // Only what is before the reading can be cut off here; the reading ends by itself.
            () = async { stop.cancelled().await; clock.sleep(AGAIN[1]).await } => return Ok(()),
        };
        let failure = match ended {
            Ok(()) | Err(ReadTrouble::Engine(Error::Stopped)) => return Ok(()),
            Err(ReadTrouble::Engine(error)) => return Err(error),
            Err(ReadTrouble::Kafka(failure)) => failure,
        };
        let stopped = Some((failure.code.to_owned(), failure.message.clone()));
        inner.tell(state(&spec, stopped));
        if FINAL.contains(&failure.code) {
            tracing::error!(topic = spec.topic, input = spec.name, %failure, "this input has stopped; the others go on");
            tokio::select! {
                start = restarted(&inner, &spec) => spec.start = start?,
                () = stop.cancelled() => return Ok(()),
            }
            continue;
        }
        if said != failure.code {
            tracing::warn!(topic = spec.topic, input = spec.name, %failure, "this topic cannot be read now; trying again");
            said = failure.code;
        }
        tokio::select! {
            () = clock.sleep(wait) => {}
            () = stop.cancelled() => return Ok(()),
        }
        wait = (wait * 2).min(AGAIN[1]);
    }
}

fn state(spec: &InputSpec, stopped: Option<(String, String)>) -> InputState {
    let (topic, name, environment) = (spec.topic.clone(), spec.name.clone(), spec.environment.clone());
    InputState { topic, name, environment, reading: stopped.is_none(), stopped }
}

/// Waits until somebody says where to begin anew, and forgets the places of before.
async fn restarted(inner: &InputsInner, spec: &InputSpec) -> Result<StartOffset, Error> {
    let key = (spec.name.clone(), spec.topic.clone());
    let mut restarts = inner.restarts.subscribe();
    let start = restarts.wait_for(|all| all.contains_key(&key)).await.map_err(|_| Error::Stopped)?.get(&key).copied();
    inner.restarts.send_modify(|all| _ = all.remove(&key));
    let engine = &inner.parts.engine;
    let mut listings = OpenLists::load(engine, spec)?;
    let mut marks = place::forget(&place::load(engine, spec)?, spec);
    marks.extend(listings.give_up(spec));
    engine.put_marks(marks).await?;
    Ok(start.unwrap_or(spec.start))
}

async fn attempt(
    inner: &Arc<InputsInner>,
    spec: &InputSpec,
    stop: &CancellationToken,
    wait: &mut Duration,
) -> Result<(), ReadTrouble> {
    let (mut work, mut reader) = TopicWork::open(inner.clone(), spec.clone()).await?;
    *wait = AGAIN[0];
    inner.tell(state(spec, None));
    work.settle_all(work.listings.unsettled()).await?;
    let ended = work.read(&mut reader, stop).await;
    // What was handed over is committed in any case; the marks say so when the topic is opened again.
    let completed = work.complete_all().await;
    ended.and(completed.map_err(ReadTrouble::from))
}

impl TopicWork {
    async fn open(inner: Arc<InputsInner>, spec: InputSpec) -> Result<(TopicWork, TopicReader), ReadTrouble> {
        let (engine, cluster) = (&inner.parts.engine, &inner.parts.cluster);
        let places = place::load(engine, &spec)?;
        let mut listings = OpenLists::load(engine, &spec)?;
        if let (MessageKind::Messages, true) = (&spec.feed, places.is_empty()) {
            topics::ensure(cluster, &[topics::TopicSpec::new(&spec.topic)]).await?;
        }
        let dead = Dead::open(cluster, &spec.environment, engine.clock()).await?;
        let accounts = InputConnections::of(&inner, &spec);
        let reader = open_reader(&inner, &spec, (&places, accounts.elsewhere), &mut listings).await?;
        let now = engine.clock().now();
        let topic_id = reader.id().to_owned();
        let mut work = TopicWork {
            inner,
            spec,
            targets: Targets::default(),
            listings,
            sequences: Sequences::default(),
            dedup: Dedup::default(),
            places,
            accounts: accounts.all,
            keeps_strays: accounts.keeps_strays,
            now,
            window: CommitWindow::new(IN_FLIGHT),
            passed: BTreeSet::new(),
            dead,
            topic_id,
        };
        work.store_begins(&reader).await?;
        Ok((work, reader))
    }

    /// Where partitions begin is stored before anything is read: after a crash they begin there again, and not later.
    async fn store_begins(&mut self, reader: &TopicReader) -> Result<(), Error> {
        let mut marks = Vec::new();
        for (partition, begin) in reader.begins() {
            if !self.places.contains_key(partition) {
                let place = PartitionPlace::new(*begin, &self.topic_id, self.inner.numbers.next());
                marks.push(place.mark(&self.spec, *partition));
                self.places.insert(*partition, place);
            }
        }
        if marks.is_empty() { Ok(()) } else { self.inner.parts.engine.put_marks(marks).await }
    }

    async fn read(&mut self, reader: &mut TopicReader, stop: &CancellationToken) -> Result<(), ReadTrouble> {
        let clock = self.inner.parts.engine.clock();
        let mut reported = Timestamp(0);
        loop {
            let chunk = tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                chunk = reader.next() => chunk?,
                Some((origin, result)) = self.window.oldest() => {
                    self.completed(origin, result).await?;
                    continue;
                }
                () = clock.sleep(REPORT) => {
                    self.report(reader);
                    self.store_passed().await?;
                    continue;
                }
            };
            self.now = clock.now();
            self.targets.refresh(&self.inner.parts);
            if self.sequences.len() > repeats::REMEMBERED {
                self.complete_all().await?;
                self.sequences.forget();
            }
            self.work(&chunk).await?;
            if self.now.since(reported) > REPORT {
                reported = self.now;
                self.report(reader);
                self.store_passed().await?;
            }
        }
    }

    fn report(&self, reader: &TopicReader) {
        for (partition, lag) in reader.lag() {
            let labels = [("topic", self.spec.topic.clone()), ("partition", partition.to_string())];
            metrics::gauge!("syncline_kafka_input_lag_messages", &labels).set(lag as f64);
        }
    }

    /// Everything in a chunk.
    async fn work(&mut self, chunk: &Chunk) -> Result<(), Error> {
        let mut group: Option<TopicBatch<'_>> = None;
        for message in chunk.messages() {
            let full = |g: &TopicBatch<'_>| {
                g.partition != message.partition() || g.bytes >= GROUP_BYTES || !g.ended.is_empty()
            };
            if group.as_ref().is_some_and(full) {
                self.launch(group.take()).await?;
            }
            if self.place(message).is_some_and(|next| message.offset() < next) {
                self.recount(message)?;
                continue;
            }
            loop {
                let mut current = match group.take() {
                    Some(current) => current,
                    None => self.group(message)?,
                };
                let later = self.take(&mut current, message)?;
                group = Some(current);
                if !later {
                    break;
                }
                self.launch(group.take()).await?;
            }
        }
        self.pass(chunk);
        self.launch(group).await
    }

    /// Moves the places behind messages of others.
    fn pass(&mut self, chunk: &Chunk) {
        for (partition, next) in chunk.passed() {
            let (id, numbers) = (&self.topic_id, &self.inner.numbers);
            let place = self.places.entry(partition).or_insert_with(|| PartitionPlace::new(next, id, numbers.next()));
            place.next = place.next.max(next);
            self.passed.insert(partition);
        }
        self.count(&TopicTally { ignored: chunk.passes(), ..TopicTally::default() });
    }

    /// Marks of all places that have moved past messages without effect.
    fn passed_marks(&mut self) -> Vec<Mark> {
        let moved = std::mem::take(&mut self.passed);
        moved.iter().filter_map(|p| Some(self.places.get(p)?.mark(&self.spec, *p))).collect()
    }

    /// Stores how far was read where nothing had an effect: nobody waits for that, and a stop does
    /// not either; it only saves reading it again.
    async fn store_passed(&mut self) -> Result<(), Error> {
        let marks = self.passed_marks();
        if marks.is_empty() { Ok(()) } else { self.inner.parts.engine.put_marks(marks).await }
    }

    fn place(&self, message: Message<'_>) -> Option<i64> {
        self.places.get(&message.partition()).map(|place| place.next)
    }

    fn group<'c>(&mut self, message: Message<'c>) -> Result<TopicBatch<'c>, Error> {
        let (partition, offset) = (message.partition(), message.offset());
        let (id, numbers) = (&self.topic_id, &self.inner.numbers);
        let place = self.places.entry(partition).or_insert_with(|| PartitionPlace::new(offset, id, numbers.next()));
        Ok(TopicBatch::new(partition, offset, place.cause(offset), self.dedup.batch()))
    }

    /// Takes a message into the group and moves the place behind it. True if it has to wait for the next group.
    fn take<'c>(&mut self, group: &mut TopicBatch<'c>, message: Message<'c>) -> Result<bool, Error> {
        let at = self.observed(message);
        let feed = self.spec.feed.clone();
        let outcome = match &feed {
            MessageKind::Messages => self.message(group, message, at),
            MessageKind::Records { stream, topic } => self.record(group, (stream, topic), message, at),
        };
        let mut has_effect = true;
        match outcome.inspect_err(|_| group.reserved.release())? {
            MessageOutcome::Later => return Ok(true),
            MessageOutcome::Applied => group.tally.applied += 1,
            MessageOutcome::Duplicate => group.tally.duplicate += 1,
            MessageOutcome::Ignored => has_effect = false,
            MessageOutcome::Nobodys(_) if !self.keeps_strays => has_effect = false,
            MessageOutcome::Dead(bad) | MessageOutcome::Nobodys(bad) => {
                group.tally.dead += 1;
                group.dead.push((message, bad));
            }
        }
        if has_effect {
            group.bytes += message.size();
            group.messages.push(message);
        } else {
            group.tally.ignored += 1;
        }
        if let Some(place) = self.places.get_mut(&message.partition()) {
            place.next = message.offset() + 1;
            // Room for the entries of a batch, which follow each other by a microsecond.
            place.at = at.plus(Duration::from_micros(std::mem::replace(&mut group.entries, 1).saturating_sub(1)));
        }
        Ok(false)
    }

    /// The message's time, but later than that of the message before it and not in the future.
    fn observed(&self, message: Message<'_>) -> Timestamp {
        let said = message.timestamp().unwrap_or(self.now).min(self.now);
        let before = self.places.get(&message.partition()).map_or(Timestamp(0), |place| place.at);
        said.max(before.plus(Duration::from_micros(1)))
    }

    /// Hands a group over: first what cannot be taken is buried, then everything else is committed with the place.
    async fn launch(&mut self, group: Option<TopicBatch<'_>>) -> Result<(), Error> {
        let Some(mut group) = group else { return Ok(()) };
        if group.messages.is_empty() {
            self.passed.insert(group.partition);
            self.count(&group.tally);
            return Ok(());
        }
        let engine = self.inner.parts.engine.clone();
        while self.window.is_full() {
            self.complete().await?;
        }
        let dead = std::mem::take(&mut group.dead);
        dead_letter(&self.dead, &self.spec.topic, &dead).await;
        let Some(place) = self.places.get(&group.partition).cloned() else { return Ok(()) };
        self.passed.insert(group.partition);
        let mut marks = self.passed_marks();
        marks.extend(group.listings.iter().filter_map(|dataset| self.listings.mark(&self.spec, *dataset)));
        let (tally, ended, bytes) = (group.tally, std::mem::take(&mut group.ended), group.bytes);
        let messages = std::mem::take(&mut group.messages);
        let range =
            format!("topic {} partition {} offsets {}..{}", self.spec.topic, group.partition, group.first, place.next);
        let cause = group.cause.to_string();
        let (batch, reserved) = group.finish(&self.spec, marks, self.now);
        let origin = TopicOrigin { cause, range, reserved };
        if let Some((why, origin)) = self.window.submit(&engine, batch, bytes, origin).await? {
            origin.reserved.release();
            let bad = Bad::new("bad_batch", format!("too much for one commit: {why}"));
            let all: Vec<_> = messages.into_iter().map(|message| (message, bad.clone())).collect();
            dead_letter(&self.dead, &self.spec.topic, &all).await;
            engine.put_marks(vec![place.mark(&self.spec, all.first().map_or(0, |(m, _)| m.partition()))]).await?;
        }
        self.count(&tally);
        self.settle_all(ended).await
    }

    /// Settles lists that have ended, once their last pages are committed.
    async fn settle_all(&mut self, ended: Vec<crate::engine::model::DatasetId>) -> Result<(), Error> {
        if ended.is_empty() {
            return Ok(());
        }
        self.complete_all().await?;
        let engine = self.inner.parts.engine.clone();
        for dataset in ended {
            let Some(model) = self.listings.model(dataset) else { continue };
            let definition = self.spec.definition.clone();
            let Some(stream) = definition.stream(&model) else { continue };
            self.listings.settle(&engine, &self.spec, dataset, stream, &self.places).await?;
        }
        Ok(())
    }

    /// Completes the oldest commit; false if there is none.
    async fn complete(&mut self) -> Result<bool, Error> {
        let Some((origin, result)) = self.window.oldest().await else { return Ok(false) };
        self.completed(origin, result).await.map(|()| true)
    }

    async fn complete_all(&mut self) -> Result<(), Error> {
        while self.complete().await? {}
        Ok(())
    }

    /// Quarantines what of a committed batch was no record.
    async fn completed(&self, origin: TopicOrigin, result: Result<Receipt, Error>) -> Result<(), Error> {
        let engine = &self.inner.parts.engine;
        // Read anew: the targets keep count of what they quarantine themselves.
        let quarantine = QuarantinePlaces::new(engine.clone(), QuarantineWriter::Topic);
        origin.reserved.release();
        let receipt = result?;
        record::committed(engine, &receipt);
        let marks = quarantine::rejected(engine, &receipt, |name, n, what| {
            tracing::warn!(dataset = %name, why = what.message, place = origin.range, "a record was refused by the engine");
            let what = Quarantined { message: format!("{} (in {})", what.message, origin.range), ..what };
            let place = [&*name.environment, &*name.source, &*name.connection, &*name.model];
            quarantine.keep(place, &format!("{}.{n}", origin.cause), origin.cause.clone(), &what)
        })?;
        if marks.is_empty() {
            return Ok(());
        }
        metrics::counter!("syncline_kafka_records_total", "outcome" => "quarantined").increment(marks.len() as u64);
        engine.put_marks(marks).await
    }

    fn count(&self, tally: &TopicTally) {
        let outcomes = [
            ("applied", tally.applied),
            ("duplicate", tally.duplicate),
            ("ignored", tally.ignored),
            ("dead", tally.dead),
        ];
        for (outcome, count) in outcomes.into_iter().filter(|(_, count)| *count > 0) {
            let labels = [("topic", self.spec.topic.clone()), ("outcome", outcome.to_owned())];
            metrics::counter!("syncline_kafka_messages_total", &labels).increment(count);
        }
        metrics::counter!("syncline_kafka_records_total", "outcome" => "taken").increment(tally.records);
        if tally.quarantined > 0 {
            metrics::counter!("syncline_kafka_records_total", "outcome" => "quarantined").increment(tally.quarantined);
        }
    }
}

async fn dead_letter(to: &Dead, topic: &str, dead: &[(Message<'_>, Bad)]) {
    futures_util::future::join_all(dead.iter().map(|(message, why)| to.dead_letter(topic, *message, why))).await;
}

async fn open_reader(
    inner: &InputsInner,
    spec: &InputSpec,
    (places, elsewhere): (&BTreeMap<i32, PartitionPlace>, HashSet<String>),
    listings: &mut OpenLists,
) -> Result<TopicReader, Failure> {
    let clock = inner.parts.engine.clock();
    let rewinds = listings.rewinds();
    let wanted = |rewinds: &BTreeMap<i32, i64>| Subscription {
        topic: spec.topic.clone(),
        id: places.values().next().map(|place| place.topic_id.clone()),
        partitions: places
            .iter()
            .map(|(p, place)| (*p, StartOffset::At(rewinds.get(p).map_or(place.next, |first| place.next.min(*first)))))
            .collect(),
        // Partitions that appear later are read whole, wherever the topic was begun.
        rest: Some(if places.is_empty() { spec.start } else { StartOffset::Earliest }),
        elsewhere: elsewhere.clone(),
    };
    match TopicReader::open(&inner.parts.cluster, wanted(&rewinds), clock.clone()).await {
        Err(failure) if failure.code == "offset_out_of_range" && !rewinds.is_empty() => {
            listings.lose_keys();
            TopicReader::open(&inner.parts.cluster, wanted(&BTreeMap::new()), clock).await
        }
        opened => opened,
    }
}
