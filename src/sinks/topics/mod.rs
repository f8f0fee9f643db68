//! Changes → topics: follows an engine's change stream and writes it to Kafka, every change once.
//!
//! Promises: all datasets of all environments are followed, new ones as they appear, in order of commit; whole engine times
//! become visible together; each change appears once to `read_committed` readers, whatever is killed when, because the place
//! is stored in the transaction of the messages before it. A broker that is slow or away holds up nobody else: changes wait
//! in the store, and it is said once, and once when it is over.
//!
//! What ends it for good, with a named error: a younger instance of the same name (`output_fenced`), topics that are ahead
//! of this data folder (`topic_ahead`) or were written from another (`topic_foreign`), names that Kafka cannot keep apart
//! (`topic_clash`), a place it cannot read (`place_unreadable`). What may pass is tried again, with growing waits. Where a
//! group says who has a partition, another writer of the same name passes too: it is a former owner who has not heard yet.
//!
//! A dataset that was emptied on request tells nobody which records it had. Its topics keep what they were told; a full
//! listing brings what there is now as changes. It is counted and logged (`output_emptied`).
//!
//! | file | what |
//! |---|---|
//! | `emptied` | notices datasets that were emptied behind the follower's back |
//! | `outlets` | datasets → their topics, made when a dataset appears |
//! | [`schemas`] | JSON Schemas of streams, by hash |
//! | `scribe` | one round: changes up to the watermark → transactions. Blocks |

mod emptied;
mod outlets;
pub mod schemas;
mod scribe;

use crate::connectors::kafka::Cluster;
use crate::connectors::kafka::output::writer::WriterTrouble;
use crate::connectors::kafka::output::{Shape, places};
use crate::engine::Engine;
use crate::engine::model::Position;
use crate::engine::source::Failure;
use crate::engine::time::{Backoff, Chance, entropy};
use crate::sinks::topics::schemas::{Schemas, hex};
use outlets::Outlets;
use scribe::{Me, TransactionalWriter, nobody_else, superseded};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// First and longest wait before another attempt.
const WAITS: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(10));

/// What is followed, and where to.
#[derive(Clone)]
pub struct ExportOrder {
    /// The engine whose changes are written.
    pub engine: Engine,
    /// The cluster.
    pub cluster: Cluster,
    /// What is written, and how.
    pub shape: Shape,
    /// Name of the producer: one engine, one name.
    pub name: String,
    /// Whether something else says who has the name, as a group does of partitions. Then somebody else who writes under it
    /// is outlasted: who has lost the name is stopped. Otherwise the younger of two goes on.
    pub granted: bool,
    /// Schemas named in headers.
    pub schemas: Arc<Schemas>,
}

/// How a follower stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Everything before this position is in the topics.
    pub place: Position,
    /// What holds it up, or has ended it.
    pub trouble: Option<Failure>,
    /// It has ended and will not go on by itself.
    pub ended: bool,
}

/// What is to be done about a failure.
enum FailureAction {
    /// Wait, then go on.
    Again(Failure),
    /// Wait, then begin with a new producer.
    Reopen(Failure),
    /// Find out whether somebody else has taken over.
    Fenced(Failure),
    /// Somebody else has.
    Superseded(Failure),
    /// Stop for good.
    Ended(Failure),
}

impl From<Failure> for FailureAction {
    fn from(failure: Failure) -> Self {
        // A topic that is missing may be made by somebody any time.
        if failure.retry || failure.code == "topic_missing" {
            FailureAction::Again(failure)
        } else {
            FailureAction::Ended(failure)
        }
    }
}

impl From<WriterTrouble> for FailureAction {
    fn from(trouble: WriterTrouble) -> Self {
        match trouble {
            WriterTrouble::Again(failure) => FailureAction::Again(failure),
            WriterTrouble::Reopen(failure) if failure.retry => FailureAction::Reopen(failure),
            WriterTrouble::Reopen(failure) => FailureAction::Ended(failure),
            WriterTrouble::Fenced(failure) => FailureAction::Fenced(failure),
        }
    }
}

/// Name of the producer where one engine serves all.
pub const MAIN: &str = "main";

/// Follows the engine until `stop`, or until something ends it for good.
pub async fn follow(
    order: ExportOrder,
    standing: watch::Sender<Standing>,
    stop: CancellationToken,
) -> Result<(), Failure> {
    let mut watermark = order.engine.watermark();
    let mut follower = ChangeExporter::new(order, standing);
    let halting = follower.halt.clone();
    let ended = loop {
        tokio::select! {
            () = stop.cancelled() => break Ok(()),
            () = tokio::time::sleep(follower.rest()) => {}
        }
        let end = *watermark.borrow_and_update();
        let result = {
            let cycle = follower.cycle(end);
            tokio::pin!(cycle);
            tokio::select! {
                result = &mut cycle => result,
                () = stop.cancelled() => {
                    // What is under way ends within a moment: it is all written, or not at all.
                    halting.store(true, Ordering::Relaxed);
                    let _ = cycle.await;
                    break Ok(());
                }
            }
        };
        let wait = follower.note(result);
        tokio::select! {
            () = stop.cancelled() => break Ok(()),
            next = next(wait, &follower.order.engine, &mut watermark) => if let Err(end) = next { break end },
        }
    };
    if let Err(failure) = &ended {
        tracing::error!(code = failure.code, name = follower.order.name, "topics are not written any more: {failure}");
        follower.tell(|standing| (standing.trouble, standing.ended) = (Some(failure.clone()), true));
    }
    ended
}

/// What comes after a round.
enum Wait {
    /// The next commit.
    Commit,
    /// Some time.
    Span(Duration),
    /// Nothing more.
    Never(Failure),
}

/// `Err` ends the follower.
async fn next(
    wait: Wait,
    engine: &Engine,
    watermark: &mut watch::Receiver<Position>,
) -> Result<(), Result<(), Failure>> {
    match wait {
        Wait::Commit => watermark.changed().await.map_err(|_| Ok(())),
        Wait::Span(span) => {
            engine.clock().sleep(span).await;
            Ok(())
        }
        Wait::Never(failure) => Err(Err(failure)),
    }
}

struct ChangeExporter {
    order: ExportOrder,
    me: Me,
    outlets: Outlets,
    scribe: Option<TransactionalWriter>,
    halt: Arc<AtomicBool>,
    backoff: Backoff,
    standing: watch::Sender<Standing>,
}

impl ChangeExporter {
    fn new(order: ExportOrder, standing: watch::Sender<Standing>) -> Self {
        let token = hex(&entropy());
        let me = Me { log: outlets::log_of(&order.engine, ""), token, last: None };
        let outlets = Outlets::new(&order);
        let chance = Chance::from_seed(entropy().iter().take(8).fold(0, |n, b| n << 8 | u64::from(*b)));
        let backoff = Backoff::new(WAITS.0, WAITS.1, true, chance);
        ChangeExporter { order, me, outlets, scribe: None, halt: Arc::default(), backoff, standing }
    }

    /// How long the next round had better wait: what comes meanwhile is part of it.
    fn rest(&self) -> Duration {
        self.scribe.as_ref().map_or(Duration::ZERO, TransactionalWriter::rest)
    }

    /// Writes everything before `end`, with a producer made for it if there is none.
    async fn cycle(&mut self, end: Position) -> Result<Position, FailureAction> {
        let result = match self.round(end).await {
            Err(FailureAction::Fenced(fence)) => Err(self.after_fence(fence).await),
            result => result,
        };
        match result {
            Err(FailureAction::Superseded(failure)) if self.order.granted => {
                // Whoever it was: the next attempt takes the name back.
                self.me.last = None;
                Err(FailureAction::Reopen(failure))
            }
            Err(FailureAction::Superseded(failure)) => Err(FailureAction::Ended(failure)),
            result => result,
        }
    }

    async fn round(&mut self, end: Position) -> Result<Position, FailureAction> {
        // Datasets are listed after the end was looked at: whatever changed before the end is among them.
        self.outlets.refresh(&self.order.engine).await?;
        let batch = self.outlets.batch();
        let mut scribe = match self.scribe.take() {
            Some(scribe) if scribe.batch() <= batch => scribe,
            Some(scribe) => {
                close(scribe).await;
                self.open(batch).await?
            }
            None => self.open(batch).await?,
        };
        let outlets = self.outlets.snapshot();
        let blocking = tokio::task::spawn_blocking(move || {
            let result = scribe.write_up_to(end, &outlets);
            (scribe, result)
        });
        let (scribe, result) = blocking.await.map_err(|e| FailureAction::Reopen(broken(&e)))?;
        if matches!(result, Ok(_) | Err(FailureAction::Again(_))) {
            self.scribe = Some(scribe);
        } else {
            close(scribe).await;
        }
        result
    }

    /// A producer that was fenced: if nobody else has written under its name, the broker only gave it up for dead.
    async fn after_fence(&self, fence: Failure) -> FailureAction {
        let (order, me, halt) = (self.order.clone(), self.me.clone(), self.halt.clone());
        match tokio::task::spawn_blocking(move || nobody_else(&order, &me, &halt)).await {
            Ok(Ok(true)) => FailureAction::Reopen(Failure { code: "output_given_up", retry: true, ..fence }),
            Ok(Ok(false)) => FailureAction::Superseded(superseded(&self.order)),
            Ok(Err(failure)) => FailureAction::Reopen(failure),
            Err(error) => FailureAction::Reopen(broken(&error)),
        }
    }

    async fn open(&mut self, batch: usize) -> Result<TransactionalWriter, FailureAction> {
        let order = self.order.clone();
        topics_of_places(&order.cluster).await?;
        let (mut me, halt) = (self.me.clone(), self.halt.clone());
        let opened = tokio::task::spawn_blocking(move || {
            let scribe = TransactionalWriter::open(&order, &mut me, batch, halt);
            (me, scribe)
        });
        let (me, scribe) = opened.await.map_err(|e| FailureAction::Reopen(broken(&e)))?;
        self.me = me;
        scribe
    }

    /// Tells how a round went, and says what to wait for.
    fn note(&mut self, result: Result<Position, FailureAction>) -> Wait {
        let (failure, reopen) = match result {
            Ok(place) => {
                let end = *self.order.engine.watermark().borrow();
                self.tell(|standing| standing.place = place);
                metrics::gauge!("syncline_kafka_output_lag_epochs")
                    .set(end.epoch().saturating_sub(place.epoch()) as f64);
                self.well();
                return if place < end { Wait::Span(Duration::ZERO) } else { Wait::Commit };
            }
            Err(
                FailureAction::Ended(failure) | FailureAction::Fenced(failure) | FailureAction::Superseded(failure),
            ) => {
                return Wait::Never(failure);
            }
            Err(FailureAction::Again(failure)) => (failure, false),
            Err(FailureAction::Reopen(failure)) => (failure, true),
        };
        metrics::counter!("syncline_kafka_output_errors_total", "code" => failure.code).increment(1);
        if failure.code == "message_too_large" {
            self.outlets.forget();
        }
        let known = self.standing.borrow().trouble.as_ref().map(|trouble| trouble.code);
        if known == Some(failure.code) {
            tracing::debug!(code = failure.code, reopen, "topics still wait: {failure}");
        } else {
            tracing::warn!(code = failure.code, "topics wait, nothing is lost: {failure}");
        }
        self.tell(|standing| standing.trouble = Some(failure));
        Wait::Span(self.backoff.next_wait())
    }

    fn well(&mut self) {
        self.backoff.reset();
        if self.standing.borrow().trouble.is_some() {
            tracing::info!(name = self.order.name, "topics are written again");
            self.tell(|standing| standing.trouble = None);
        }
    }

    fn tell(&self, change: impl FnOnce(&mut Standing)) {
        self.standing.send_modify(change);
    }
}

async fn topics_of_places(cluster: &Cluster) -> Result<(), Failure> {
    crate::connectors::kafka::topics::ensure(cluster, &[places::wanted(cluster)]).await.map(drop)
}

/// A producer says goodbye for a while: not on a thread that serves others.
async fn close(scribe: TransactionalWriter) {
    let _ = tokio::task::spawn_blocking(move || drop(scribe)).await;
}

fn broken(error: &tokio::task::JoinError) -> Failure {
    crate::connectors::kafka::cluster::failure("output_broken", "a round of the output ended early", error)
}
