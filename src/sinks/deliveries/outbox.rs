//! The task that makes the attempts: one at a time per lane, a bounded number of lanes at a time.
//!
//! All state is in the store: after a crash the same delivery is tried again under the same id.

use super::lanes::DeliveryQueues;
use super::schedule::{AfterFailure, next};
use super::{DeadLetter, OVERRIDE, dead, environment_of, target};
use crate::config::Endpoint;
use crate::connectors::deliveries::{Attempt, AttemptFailed, Post, attempt};
use crate::connectors::http::Url;
use crate::engine::fault::pass;
use crate::engine::model::Timestamp;
use crate::engine::pipeline::{Batch, Error, Mark};
use crate::engine::sink::Delivery;
use crate::engine::store::journal::JournalLine;
use crate::engine::{Engine, fault};
use crate::keyspaces;
use crate::registry::connections::Connections;
use crate::telemetry::record;
use parking_lot::{Mutex, MutexGuard};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// DeliveryQueues with an attempt on its way.
const LANES: usize = 64;
/// Deliveries read from the store at a time.
const ROUND: usize = 500;
/// Deliveries of one lane whose names are in memory; more are read once these are through. There are at most as many lanes as
/// connections times endpoints.
const HELD: usize = 32;
/// Webhook-made changes are announced this often.
const ANNOUNCE: Duration = Duration::from_millis(500);
/// Dead letters that are too old or too many are looked for this often.
const EXPIRE: Duration = Duration::from_secs(60 * 60);
/// First key part of endpoints that said they are gone.
const DISABLED: &str = "endpoint-disabled";

/// The outgoing side. Cheap to clone.
#[derive(Clone)]
pub struct Outbox {
    inner: Arc<OutboxInner>,
}

struct OutboxInner {
    engine: Engine,
    endpoints: BTreeMap<String, Endpoint>,
    connections: Arc<Connections>,
    client: Arc<dyn Post>,
    lanes: Mutex<DeliveryQueues>,
    enabled: Notify,
    /// Counts commits made for webhooks.
    commits: watch::Receiver<u64>,
}

/// An endpoint, as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointStatus {
    /// Its name; `override:ENVIRONMENT/SOURCE/CONNECTION` for a connection's own receiver.
    pub name: String,
    /// The host of its URL: the rest may be a secret.
    pub host: Option<String>,
    /// Since when it gets nothing, because it said that it is gone.
    pub disabled_at: Option<Timestamp>,
}

impl Outbox {
    /// Over the engine's outbox; attempts leave through `client`. `commits` counts the commits made for webhooks.
    pub fn open(
        engine: Engine,
        endpoints: BTreeMap<String, Endpoint>,
        connections: Arc<Connections>,
        client: Arc<dyn Post>,
        commits: watch::Receiver<u64>,
    ) -> Result<Self, Error> {
        let marks = engine.marks(keyspaces::SETTING, &[DISABLED])?.into_iter();
        let disabled = marks.filter_map(|(mut key, at)| Some((key.pop()?, since(&at))));
        let lanes = Mutex::new(DeliveryQueues::new(HELD, disabled.collect()));
        let enabled = Notify::new();
        Ok(Outbox { inner: Arc::new(OutboxInner { engine, endpoints, connections, client, lanes, enabled, commits }) })
    }

    /// Delivers until `stop` is cancelled or the store fails. An attempt cut off by a stop is made again.
    pub async fn run(&self, stop: CancellationToken) -> Result<(), Error> {
        let work =
            async { tokio::try_join!(deliver(&self.inner), announce(&self.inner), expire(&self.inner)).map(drop) };
        tokio::select! {
            done = work => match done {
                Err(Error::Stopped) => Ok(()),
                done => done,
            },
            () = stop.cancelled() => Ok(()),
        }
    }

    /// Dead letters of an environment behind one with this id, the oldest first, at most so many, and whether there are more.
    pub fn dead_letters(
        &self,
        environment: &str,
        endpoint: Option<&str>,
        after: Option<&str>,
        limit: usize,
    ) -> Result<(Vec<DeadLetter>, bool), Error> {
        let (mut letters, mut more) = (Vec::new(), false);
        dead::read(&self.inner.engine, after, &mut |letter| {
            if letter.is_of(environment) && endpoint.is_none_or(|endpoint| endpoint == letter.delivery.endpoint) {
                more = letters.len() >= limit;
                letters.extend((!more).then_some(letter));
            }
            !more
        })?;
        Ok((letters, more))
    }

    /// Those of an environment with these ids.
    pub fn named_letters(&self, environment: &str, ids: &[String]) -> Result<Vec<DeadLetter>, Error> {
        let mut letters = Vec::new();
        for id in ids {
            letters.extend(dead::one(&self.inner.engine, id)?.filter(|letter| letter.is_of(environment)));
        }
        Ok(letters)
    }

    /// Owed deliveries of an environment behind one with this id, the oldest first, at most so many, and whether there are more.
    pub fn owed(
        &self,
        environment: &str,
        endpoint: Option<&str>,
        after: Option<&str>,
        limit: usize,
    ) -> Result<(Vec<Delivery>, bool), Error> {
        let (mut found, mut after) = (Vec::new(), after.map(str::to_owned));
        loop {
            let round = self.inner.engine.outbox_after(after.as_deref(), ROUND)?;
            let Some(last) = round.last() else { return Ok((found, false)) };
            after = Some(last.id.clone());
            for delivery in round {
                let wanted = environment_of(&delivery) == Some(environment);
                if wanted && endpoint.is_none_or(|endpoint| endpoint == delivery.endpoint) {
                    if found.len() >= limit {
                        return Ok((found, true));
                    }
                    found.push(delivery);
                }
            }
        }
    }

    /// Owes dead letters again.
    pub async fn send_again(&self, letters: Vec<DeadLetter>) -> Result<(), Error> {
        for letter in letters {
            let delivery = letter.owed_again(self.inner.engine.clock().now());
            // A crash in between leaves it both owed and dead: sent again, under the same id.
            self.inner.engine.settle(&delivery.id, Some(delivery.clone())).await?;
            self.inner.engine.put_marks(vec![letter.remove()]).await?;
            self.inner.lanes().push(&delivery);
        }
        self.inner.enabled.notify_one();
        Ok(())
    }

    /// Drops dead letters.
    pub async fn drop_letters(&self, letters: Vec<DeadLetter>) -> Result<(), Error> {
        self.inner.engine.put_marks(letters.iter().map(DeadLetter::remove).collect()).await
    }

    /// What an environment may know of: its endpoints of the settings, and receivers of its connections that are disabled.
    pub fn endpoints(&self, environment: &str) -> Vec<EndpointStatus> {
        let disabled = self.inner.lanes().disabled().clone();
        let named = self.inner.endpoints.iter().filter(|(_, e)| e.environment == environment).map(|(name, _)| name);
        let own = disabled.keys().filter(|name| is_receiver_of(name, environment));
        let status = |name: &String| EndpointStatus {
            name: name.clone(),
            host: self.inner.host(name),
            disabled_at: disabled.get(name).copied(),
        };
        named.chain(own).map(status).collect()
    }

    /// Whether an environment may know of an endpoint. Connections come and go: any of its own may have had a receiver.
    pub fn has(&self, endpoint: &str, environment: &str) -> bool {
        let named = self.inner.endpoints.get(endpoint);
        named.is_some_and(|named| named.environment == environment) || is_receiver_of(endpoint, environment)
    }

    /// Delivers to an endpoint again, from its first undelivered on.
    pub async fn enable(&self, endpoint: &str) -> Result<(), Error> {
        let marks = vec![Mark::delete(keyspaces::SETTING, &[DISABLED, endpoint])];
        self.inner.engine.commit(Batch { marks, ..Batch::default() }).await?;
        self.inner.lanes().enable(endpoint);
        self.inner.enabled.notify_one();
        Ok(())
    }
}

/// Whether this is the name of a receiver that a connection of the environment has for itself.
fn is_receiver_of(name: &str, environment: &str) -> bool {
    let place = name.strip_prefix(OVERRIDE);
    place.and_then(|place| place.split('/').next()) == Some(environment)
}

/// When an endpoint was disabled, as its mark says.
fn since(mark: &[u8]) -> Timestamp {
    std::str::from_utf8(mark).ok().and_then(Timestamp::parse).unwrap_or(Timestamp::NONE)
}

/// Announces what webhooks changed: once at the start for what a crash left, then while there are commits.
async fn announce(inner: &OutboxInner) -> Result<(), Error> {
    let clock = inner.engine.clock();
    let mut commits = inner.commits.clone();
    loop {
        // Marked as seen before announcing: a commit made meanwhile is announced next time.
        commits.borrow_and_update();
        inner.engine.announce_webhooks().await?;
        if commits.changed().await.is_err() {
            return std::future::pending().await;
        }
        clock.sleep(ANNOUNCE).await;
    }
}

/// Drops dead letters that are too old or too many.
async fn expire(inner: &OutboxInner) -> Result<(), Error> {
    let clock = inner.engine.clock();
    loop {
        let dropped = dead::expire(&inner.engine, clock.now()).await?;
        if dropped > 0 {
            record::dead_letters_dropped(dropped);
            tracing::warn!(dropped, "dead letters older than 30 days, or the oldest of too many, are dropped");
        }
        clock.sleep(EXPIRE).await;
    }
}

async fn deliver(inner: &Arc<OutboxInner>) -> Result<(), Error> {
    let clock = inner.engine.clock();
    let mut changed = inner.engine.outbox_changed();
    let mut last: Option<String> = None;
    let mut tasks: JoinSet<Tried> = JoinSet::new();
    loop {
        changed.borrow_and_update();
        inner.gather(&mut last)?;
        while tasks.len() < LANES {
            let Some((lane, id)) = inner.lanes().take(clock.now()) else { break };
            let inner = inner.clone();
            tasks.spawn(async move { (lane, inner.one(&id).await) });
        }
        let due = inner.lanes().due().filter(|_| tasks.len() < LANES);
        let tick = async {
            match due {
                Some(at) => clock.sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            seen = changed.changed() => if seen.is_err() { return Err(Error::Stopped) },
            () = tick => {}
            () = inner.enabled.notified() => {}
            Some(done) = tasks.join_next() => match done {
                Ok((lane, again)) => inner.lanes().done(&lane, again?),
                // Its lane stays closed until a restart: going on could break the order.
                Err(died) => tracing::error!(%died, "an attempt to deliver ended early"),
            },
        }
    }
}

/// A lane, and when its head is to be tried again if it is.
type Tried = (Arc<str>, Result<Option<Timestamp>, Error>);

impl OutboxInner {
    fn lanes(&self) -> MutexGuard<'_, DeliveryQueues> {
        self.lanes.lock()
    }

    fn host(&self, endpoint: &str) -> Option<String> {
        let (target, _) = target(&self.endpoints, &self.connections, endpoint)?;
        Url::parse(&target.url).ok()?.host_str().map(str::to_owned)
    }

    /// Reads deliveries owed since the last time, after those that lanes had no room for until now.
    fn gather(&self, last: &mut Option<String>) -> Result<(), Error> {
        // Closures let go of the lock before it is taken again.
        let needs_refill = || self.lanes().needs_refill();
        let takes = |lane: &Arc<str>| self.lanes().takes(lane);
        while let Some((first, lane)) = needs_refill() {
            if let Some(delivery) = self.engine.delivery(&first)? {
                self.lanes().push(&delivery);
            }
            let mut from = Some(first);
            while takes(&lane) && self.round(&mut from)? {}
        }
        while self.round(last)? {}
        Ok(())
    }

    /// Reads some deliveries behind a place and moves it; false at the end.
    fn round(&self, from: &mut Option<String>) -> Result<bool, Error> {
        // Locked while reading: no delivery leaves its lane in between, and none is taken twice.
        let mut lanes = self.lanes();
        let owed = self.engine.outbox_after(from.as_deref(), ROUND)?;
        owed.iter().for_each(|delivery| lanes.push(delivery));
        let Some(newest) = owed.last() else { return Ok(false) };
        *from = Some(newest.id.clone());
        Ok(true)
    }

    /// One attempt, and what follows from it: when to try again.
    async fn one(&self, id: &str) -> Result<Option<Timestamp>, Error> {
        let Some(delivery) = self.engine.delivery(id)? else { return Ok(None) };
        pass("out.claim");
        let Some((target, schedule)) = target(&self.endpoints, &self.connections, &delivery.endpoint) else {
            return self.dead_letter(delivery, "no_endpoint").await;
        };
        if !self.is_of_its_environment(&delivery) {
            return self.dead_letter(delivery, "other_environment").await;
        }
        if fault::planted("delivery_settled_before_its_answer") {
            self.engine.settle(&delivery.id, None).await?;
        }
        match attempt(self.client.as_ref(), &target, &delivery, self.engine.clock().now()).await {
            Attempt::Delivered { status } => {
                tracing::debug!(webhook = %delivery.id, status, "webhook delivered");
                pass("out.got_2xx");
                self.report(&delivery, "delivered", json!({"try": delivery.tries + 1, "status": status}));
                self.engine.settle(&delivery.id, None).await?;
                pass("out.mark_after");
                Ok(None)
            }
            Attempt::Failed(failed) => self.failed(delivery, failed, &schedule).await,
        }
    }

    /// Whether a delivery may go to its endpoint: the settings may have given that one to another environment since.
    fn is_of_its_environment(&self, delivery: &Delivery) -> bool {
        let endpoint = self.endpoints.get(&delivery.endpoint);
        endpoint.zip(environment_of(delivery)).is_none_or(|(endpoint, environment)| endpoint.environment == environment)
    }

    /// Counts an attempt, or the end of them, and writes a line of the journal about it. Receivers of connections' own are counted
    /// under one name: there may be as many as connections.
    fn report(&self, delivery: &Delivery, outcome: &'static str, details: Value) {
        let environment = environment_of(delivery);
        let known = self.endpoints.contains_key(&delivery.endpoint);
        let endpoint = if known { &delivery.endpoint } else { "connection" };
        record::delivery(environment.unwrap_or_default(), endpoint, outcome);
        let line = JournalLine::delivery(&*delivery.id, outcome).endpoint(&*delivery.endpoint).details(details);
        self.engine.journal().write(match environment {
            Some(environment) => line.environment(environment),
            None => line,
        });
    }

    async fn failed(
        &self,
        delivery: Delivery,
        failed: AttemptFailed,
        schedule: &[u64],
    ) -> Result<Option<Timestamp>, Error> {
        let (endpoint, tries) = (&delivery.endpoint, delivery.tries + 1);
        tracing::warn!(webhook = %delivery.id, endpoint, tries, why = %failed.text, "webhook not delivered");
        self.report(&delivery, "failed", json!({"try": tries, "status": failed.status, "error": failed.text}));
        let after = match next(&delivery, &failed, schedule, self.engine.clock().now()) {
            AfterFailure::Again(after) => after,
            AfterFailure::Dead(after, reason) => return self.dead_letter(after, reason).await,
            AfterFailure::Disable(after) => {
                tracing::error!(
                    endpoint,
                    "the endpoint answered 410 and is disabled; POST /v1/endpoints/NAME/enable to go on"
                );
                let at = self.engine.clock().now();
                let marks = vec![Mark::put(keyspaces::SETTING, &[DISABLED, endpoint], at.to_string())];
                self.engine.commit(Batch { marks, ..Batch::default() }).await?;
                pass("out.disable");
                self.lanes().disable(endpoint, at);
                after
            }
        };
        let at = after.next_at;
        pass("out.retry_scheduled");
        self.engine.settle(&delivery.id, Some(after)).await?;
        Ok(Some(at))
    }

    /// Keeps a delivery that is given up, then takes it out: a crash between the two repeats this, nothing else.
    async fn dead_letter(&self, delivery: Delivery, reason: &str) -> Result<Option<Timestamp>, Error> {
        tracing::error!(webhook = %delivery.id, endpoint = %delivery.endpoint, reason, "webhook given up");
        self.report(&delivery, "dead", json!({"tries": delivery.tries, "reason": reason}));
        let letter = DeadLetter { delivery, reason: reason.to_owned(), at: self.engine.clock().now() };
        self.engine.put_marks(vec![letter.keep()?]).await?;
        pass("out.dead_letter");
        self.engine.settle(&letter.delivery.id, None).await?;
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connectors::deliveries::{ReceiverAnswer, Unsent};
    use crate::engine::model::{Cause, DatasetName, Strategy};
    use crate::engine::pipeline::{DatasetSpec, Options};
    use crate::engine::sink::{Announce, Notice, Owed};
    use crate::engine::time::{Clock, ManualClock};
    use crate::registry::definitions::Definitions;
    use std::sync::atomic::{AtomicU16, Ordering};
    use tokio::sync::mpsc;

    /// Room of a lane here, and more deliveries than it has room for.
    const ROOM: usize = 2;
    const OWED: u64 = 7;
    /// Longest wait for what happens at once; only a failing test waits so long.
    const PATIENCE: Duration = Duration::from_secs(20);

    /// Owes each notice to both endpoints, `gone` first.
    struct Both;

    impl Announce for Both {
        fn announce(&self, _: &Notice, sequence: &mut dyn FnMut(&str) -> u64) -> Vec<Owed> {
            let owed = |endpoint: &str| {
                let lane = format!("{endpoint}|acme");
                let body = sequence(&lane).to_string().into_bytes();
                Owed { endpoint: endpoint.into(), lane, body }
            };
            ["gone", "well"].map(owed).into()
        }
    }

    /// Tells what it gets: endpoint and number.
    struct Receiver {
        told: mpsc::UnboundedSender<(String, u64)>,
        gone_says: AtomicU16,
    }

    #[async_trait::async_trait]
    impl Post for Receiver {
        async fn post(
            &self,
            url: &str,
            _: Vec<(&'static str, String)>,
            body: bytes::Bytes,
        ) -> Result<ReceiverAnswer, Unsent> {
            let number = std::str::from_utf8(&body).expect("text").parse().expect("a number");
            self.told.send((url.to_owned(), number)).expect("the test listens");
            let status = if url == "gone" { self.gone_says.load(Ordering::SeqCst) } else { 200 };
            Ok(ReceiverAnswer { status, ..ReceiverAnswer::default() })
        }
    }

    fn endpoint(url: &str) -> (String, Endpoint) {
        let secrets = vec!["secret".to_owned()];
        let (sync_always, on_sync_error, legacy_signature) = (false, false, false);
        let schedule = Vec::new();
        let (name, url, environment) = (url.to_owned(), url.to_owned(), "default".to_owned());
        (name, Endpoint { environment, url, secrets, sync_always, on_sync_error, schedule, legacy_signature })
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_disabled_endpoint_takes_no_room_from_others_and_gets_everything_in_the_end() {
        let clock = Arc::new(ManualClock::new(Timestamp::from_seconds(1_000)));
        let (clock_, announce) = (clock.clone(), Some(Arc::new(Both) as Arc<dyn Announce>));
        let engine = Engine::open(Options { clock: clock_, announce, ..Options::temporary() }).expect("opens");
        let name = DatasetName::base("default", "crm", "acme", "Contact");
        let contacts = engine.dataset(&name, &DatasetSpec::of(Strategy::Override)).expect("a dataset");
        let owe = async |number: u64| {
            let mut page = engine.page(&contacts);
            let id = number.to_string();
            page.save(&id, None, clock.now(), format!(r#"{{"id":"{id}"}}"#).as_bytes());
            let batch = Batch { cause: Some(Cause::webhook(number)), pages: vec![page], ..Batch::default() };
            engine.commit(batch).await.expect("a commit");
            engine.announce_webhooks().await.expect("announces");
            clock.advance(Duration::from_secs(1));
        };
        let (told, mut heard) = mpsc::unbounded_channel();
        let receiver = Arc::new(Receiver { told, gone_says: AtomicU16::new(410) });
        let endpoints = ["gone", "well"].map(endpoint).into();
        let connections = Arc::new(Connections::open(engine.clone(), &Definitions::default()).await.expect("opens"));
        let (_commits, commits) = watch::channel(0);
        let outbox = Outbox::open(engine.clone(), endpoints, connections, receiver.clone(), commits).expect("opens");
        outbox.inner.lanes().room = ROOM;
        let stop = CancellationToken::new();
        let running = tokio::spawn({
            let (outbox, stop) = (outbox.clone(), stop.clone());
            async move { outbox.run(stop).await }
        });
        let mut next = async |endpoint: &str| loop {
            let (to, number) = tokio::time::timeout(PATIENCE, heard.recv()).await.expect("in time").expect("told");
            if to == endpoint {
                return number;
            }
        };

        for number in 1..=OWED {
            owe(number).await;
        }
        for number in 1..=OWED {
            assert_eq!(next("well").await, number);
        }
        let disabled = || outbox.endpoints("default").iter().any(|e| e.disabled_at.is_some());
        while !disabled() {
            tokio::task::yield_now().await;
        }
        receiver.gone_says.store(200, Ordering::SeqCst);
        outbox.enable("gone").await.expect("enables");
        let mut got = Vec::new();
        while got.last() != Some(&OWED) {
            got.push(next("gone").await);
        }
        got.dedup();
        assert_eq!(got, (1..=OWED).collect::<Vec<_>>());
        stop.cancel();
        running.await.expect("ends").expect("well");
    }
}
