//! Actions: functions, and requests of definitions, that are called by programs over REST and by other functions.
//!
//! | file | what |
//! |---|---|
//! | `places` | how many run at one time |
//! | `kept` | calls that nobody waits for, as they are stored |
//! | `merge` | what the answer of an action says of records |
//! | `on_events` | functions that are called because something happens to a connection |
//!
//! Promises: an action is not repeated unless that was asked for; a call that was accepted is begun, also after a crash, and one
//! that a crash cut off after it may have had effects ends as `unknown_outcome` instead of a second time; a caller who goes
//! away ends nothing.

mod kept;
mod merge;
mod on_events;
mod places;

pub use kept::{FailedAction, shard_of};
pub use on_events::BEFORE_DELETION;

use crate::connectors::actions::{ActionFailure, Chain, DescribedAsk, Effects, Witness};
use crate::connectors::functions::{ActionAsk, InnerCall};
use crate::engine::Engine;
use crate::engine::pipeline::Error;
use crate::engine::source::{Connection, Failure};
use crate::engine::time::{Backoff, Chance, Clock};
use crate::registry::connections::{AccountKey, Connections};
use crate::registry::definitions::Definitions;
use crate::registry::functions::{self, KnownAction};
use async_trait::async_trait;
use kept::{Call, CallKey, Kept, OPEN_MAX, Stage};
use parking_lot::Mutex;
use places::{OF_CONNECTION, Places, WAITING};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long a caller waits for an output, its turn included.
pub const WALL: Duration = Duration::from_secs(60);
/// How long an action may take that nobody waits for.
pub const WALL_LATER: Duration = Duration::from_secs(15 * 60);
/// How often a call may be tried again.
pub const RETRIES_MAX: u32 = 5;
/// The first wait before that; it doubles.
const RETRY_FROM: Duration = Duration::from_secs(1);
const RETRY_TO: Duration = Duration::from_secs(60);
/// How long actions may take to end when the program stops.
const ACTIONS_END: Duration = Duration::from_secs(5);

/// All actions. Cheap to clone.
#[derive(Clone)]
pub struct Actions {
    inner: Arc<ActionsInner>,
}

struct ActionsInner {
    engine: Engine,
    connections: Arc<Connections>,
    actions: functions::Actions,
    on_events: functions::OnEvents,
    definitions: Definitions,
    clock: Arc<dyn Clock>,
    places: Places,
    kept: Kept,
    /// What is being done for new connections.
    creations: Mutex<BTreeMap<AccountKey, JoinHandle<()>>>,
    tasks: TaskTracker,
    /// Calls that nobody waits for begin once this is true.
    begun: watch::Sender<bool>,
    /// Nothing begins after this.
    stopping: CancellationToken,
    /// What still runs is cut off.
    cut: CancellationToken,
}

/// A call of an action.
#[derive(Clone, Debug)]
pub struct ActionCall {
    /// For whom.
    pub key: AccountKey,
    /// The name of the action.
    pub action: String,
    /// What it is given.
    pub input: Option<Value>,
    /// How often it may be tried again.
    pub retries: u32,
    /// Its name, the same for each attempt.
    id: String,
}

impl ActionCall {
    /// One that has not been named before.
    pub fn new(key: AccountKey, action: String, input: Option<Value>, retries: u32) -> ActionCall {
        ActionCall { key, action, input, retries, id: kept::fresh_id() }
    }
}

/// What can be called.
pub struct KnownActions {
    /// By source and name.
    pub actions: functions::Actions,
    /// Because something happens to a connection.
    pub on_events: functions::OnEvents,
    /// What is known of the streams that answers speak of.
    pub definitions: Definitions,
}

/// Why an action was not called.
#[derive(Clone, Debug, thiserror::Error)]
pub enum NotCalled {
    /// There is no such connection.
    #[error("there is no connection `{0}` of the source in this environment")]
    Connection(String),
    /// There is no such action; those there are.
    #[error("there is no action `{0}`; {1}")]
    Action(String, String),
    /// There are too many.
    #[error("{0}")]
    Busy(String),
    /// The program stops.
    #[error("the program is stopping")]
    Stopping,
    /// The store failed.
    #[error(transparent)]
    Engine(#[from] Error),
}

/// As a function is told that called it.
impl From<NotCalled> for ActionFailure {
    fn from(why: NotCalled) -> ActionFailure {
        let code = match why {
            NotCalled::Connection(_) => ActionFailure::NO_CONNECTION,
            NotCalled::Action(..) => ActionFailure::NO_ACTION,
            NotCalled::Busy(_) => ActionFailure::BUSY,
            NotCalled::Stopping | NotCalled::Engine(_) => "killed",
        };
        ActionFailure::new(code, why.to_string())
    }
}

/// How a call ended: its output as JSON, or why there is none.
pub type Outcome = Result<String, ActionFailure>;

impl Actions {
    /// Reads what is stored. Calls that nobody waits for begin with [`run`](Actions::run).
    pub(super) fn open(
        engine: Engine,
        connections: Arc<Connections>,
        known: KnownActions,
        shard: u16,
    ) -> Result<Actions, Error> {
        let KnownActions { actions, on_events, definitions } = known;
        let clock = engine.clock();
        let (kept, open) = Kept::open(engine.clone(), shard)?;
        let inner = ActionsInner {
            engine,
            connections,
            actions,
            on_events,
            definitions,
            clock,
            places: Places::default(),
            kept,
            creations: Mutex::default(),
            tasks: TaskTracker::new(),
            begun: watch::Sender::new(false),
            stopping: CancellationToken::new(),
            cut: CancellationToken::new(),
        };
        let all = Actions { inner: Arc::new(inner) };
        open.into_iter().for_each(|key| all.begin(key));
        all.resume_creations()?;
        Ok(all)
    }

    /// Runs an action and waits for its output.
    pub async fn call(&self, call: ActionCall) -> Result<Outcome, NotCalled> {
        self.find(&call)?;
        let inner = self.inner.clone();
        let until = inner.clock.now().plus(WALL);
        // A task of its own: an action whose caller went away is not left half done.
        let work = async move {
            let late = || {
                let message = format!("no place became free within {} s; the action was not begun", WALL.as_secs());
                ActionFailure::new(ActionFailure::TIMEOUT, message)
            };
            let place = tokio::select! {
                place = inner.places.now(&call.key) => place.ok_or_else(|| busy(&call.key.id))?,
                () = inner.clock.sleep_until(until) => return Ok(Err(late())),
                () = inner.stopping.cancelled() => return Err(NotCalled::Stopping),
            };
            let chain = Chain::default();
            let ended = tokio::select! {
                ended = inner.tries(&call, &chain, until.since(inner.clock.now())) => ended,
                () = inner.cut.cancelled() => return Err(NotCalled::Stopping),
            };
            drop(place);
            Ok(ended)
        };
        self.spawned(work).await
    }

    /// Accepts a call that nobody waits for; its id.
    pub async fn call_later(&self, call: ActionCall) -> Result<String, NotCalled> {
        self.find(&call)?;
        let AccountKey { environment, source, id: connection } = call.key;
        let made_at = self.inner.clock.now();
        let (action, input, retries) = (call.action, call.input, call.retries);
        let stored = Call { source, connection, action, input, retries, made_at, stage: Stage::Waiting };
        let kept = self.inner.kept.add(&environment, &stored).await?;
        let key = kept.ok_or_else(|| {
            let message = format!("{OPEN_MAX} calls of this environment have not ended yet: call again later");
            NotCalled::Busy(message)
        })?;
        let id = key.1.clone();
        self.begin(key);
        Ok(id)
    }

    /// How a call ended that nobody waited for; `None` if it has not, or is unknown. Blocks.
    pub fn outcome(&self, environment: &str, id: &str) -> Result<Option<Outcome>, Error> {
        Ok(self.inner.kept.get(environment, id)?.and_then(|call| match call.stage {
            Stage::Waiting | Stage::Acting => None,
            Stage::Output(output, _) => Some(Ok(output)),
            Stage::Failed(why, _) => Some(Err(why.into())),
        }))
    }

    /// Runs an action for a function that calls it.
    pub(super) async fn call_within(&self, environment: &str, call: InnerCall) -> Outcome {
        let InnerCall { source, connection, action, input, chain } = call;
        let key = AccountKey::new(environment, &source, &connection);
        let call = ActionCall::new(key, action, input, 0);
        self.find(&call)?;
        let place = self.inner.places.within(environment, chain.depth).await;
        let _place = place.ok_or(NotCalled::Stopping)?;
        self.inner.tries(&call, &chain, WALL_LATER).await
    }

    /// Runs an action for a function of another shard; `None` if this one is being let go, and nothing was begun.
    pub(super) async fn call_for_other(&self, environment: &str, call: InnerCall) -> Option<Outcome> {
        let inner = &self.inner;
        if inner.stopping.is_cancelled() {
            return None;
        }
        let work = async {
            tokio::select! {
                ended = self.call_within(environment, call) => ended,
                () = inner.cut.cancelled() => {
                    let message = "the process of the connection stopped while the action ran: what it does may have happened";
                    Err(ActionFailure::new(ActionFailure::UNKNOWN_OUTCOME, message))
                }
            }
        };
        Some(inner.tasks.track_future(work).await)
    }

    /// Begins calls that nobody waits for, and forgets what is past its time, until `stop` is cancelled or the store fails.
    pub(super) async fn run(&self, stop: CancellationToken) -> Result<(), Error> {
        let (inner, clock) = (&self.inner, &self.inner.clock);
        inner.begun.send_replace(true);
        let mut next = clock.now();
        loop {
            tokio::select! {
                () = clock.sleep_until(next) => {}
                () = stop.cancelled() => return Ok(()),
            }
            // Not more often than this, however the ends of actions lie.
            next = inner.kept.forget(clock.now()).await?.max(clock.now().plus(Duration::from_secs(60)));
        }
    }

    /// Begins nothing more, waits a little for what runs, and cuts off the rest.
    pub(super) async fn stop(&self) {
        let inner = &self.inner;
        inner.stopping.cancel();
        inner.tasks.close();
        tokio::select! {
            () = inner.tasks.wait() => {}
            () = inner.clock.sleep(ACTIONS_END) => {
                inner.cut.cancel();
                inner.tasks.wait().await;
            }
        }
    }

    /// The action that a call means, and its connection.
    fn find(&self, call: &ActionCall) -> Result<(KnownAction, Arc<Connection>), NotCalled> {
        let inner = &self.inner;
        if inner.stopping.is_cancelled() {
            return Err(NotCalled::Stopping);
        }
        inner.find(call)
    }

    async fn spawned<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, NotCalled>> + Send + 'static,
    ) -> Result<T, NotCalled> {
        match self.inner.tasks.spawn(work).await {
            Ok(done) => done,
            Err(died) => Err(Error::Storage(format!("an action ended early: {died}")).into()),
        }
    }

    /// Begins a stored call as soon as it may.
    fn begin(&self, key: CallKey) {
        let inner = self.inner.clone();
        self.inner.tasks.spawn(async move {
            let mut begun = inner.begun.subscribe();
            tokio::select! {
                _ = begun.wait_for(|begun| *begun) => {}
                () = inner.stopping.cancelled() => return,
            }
            if let Err(error) = inner.clone().work(&key).await {
                let (environment, id) = key;
                tracing::error!(environment, id, %error, "an action is left as it is stored");
            }
        });
    }
}

impl ActionsInner {
    fn find(&self, call: &ActionCall) -> Result<(KnownAction, Arc<Connection>), NotCalled> {
        let AccountKey { environment, source, id } = &call.key;
        let account = self.connections.get(environment, source, id).ok_or_else(|| NotCalled::Connection(id.clone()))?;
        let action = self.actions.get(&(source.clone(), call.action.clone())).ok_or_else(|| {
            let names: Vec<&str> =
                self.actions.keys().filter(|(of, _)| of == source).map(|(_, n)| n.as_str()).collect();
            let known = match names.as_slice() {
                [] => format!("`{source}` has none"),
                names => format!("`{source}` has {}", names.join(", ")),
            };
            NotCalled::Action(call.action.clone(), known)
        })?;
        Ok((action.clone(), account.connection.clone()))
    }

    /// Runs a stored call to its end, unless the program stops.
    async fn work(self: Arc<Self>, key: &CallKey) -> Result<(), Error> {
        let Some(mut stored) = self.read(key).await? else { return Ok(()) };
        let call = ActionCall {
            key: AccountKey::new(&key.0, &stored.source, &stored.connection),
            action: stored.action.clone(),
            input: stored.input.clone(),
            retries: stored.retries,
            id: key.1.clone(),
        };
        let ended = match stored.stage {
            Stage::Acting if !self.repeats(&call) => {
                let message =
                    "the program ended while the action ran: what it had asked of its provider may have happened";
                Err(ActionFailure::new(ActionFailure::UNKNOWN_OUTCOME, message))
            }
            Stage::Waiting | Stage::Acting => {
                let place = tokio::select! {
                    place = self.places.later(&call.key) => place,
                    () = self.stopping.cancelled() => return Ok(()),
                };
                let witness = StoredCall { inner: self.clone(), key: key.clone(), call: stored.clone() };
                let chain = Chain { effects: Some(Arc::new(Effects::witnessed(witness))), ..Chain::default() };
                let ended = tokio::select! {
                    ended = self.tries(&call, &chain, WALL_LATER) => ended,
                    () = self.cut.cancelled() => return Ok(()),
                };
                drop(place);
                ended
            }
            Stage::Output(..) | Stage::Failed(..) => return Ok(()),
        };
        if let Err(why) = &ended {
            let AccountKey { environment, source, id: connection } = &call.key;
            let (action, id, code) = (&call.action, &key.1, why.code);
            tracing::warn!(environment, source, connection, action, id, code, "an action failed: {}", why.message);
        }
        let now = self.clock.now();
        stored.input = None;
        stored.stage = match ended {
            Ok(output) => Stage::Output(output, now),
            Err(why) => Stage::Failed(why.into(), now),
        };
        match self.kept.set(key, &stored).await {
            Err(Error::BadBatch(why)) => {
                let message = format!("the action has run, but its output cannot be stored: {why}");
                stored.stage = Stage::Failed(ActionFailure::new("output_too_large", message).into(), now);
                self.kept.set(key, &stored).await
            }
            stored => stored,
        }
    }

    async fn read(self: &Arc<Self>, key: &CallKey) -> Result<Option<Call>, Error> {
        let (inner, (environment, id)) = (self.clone(), key.clone());
        let read = tokio::task::spawn_blocking(move || inner.kept.get(&environment, &id));
        read.await.map_err(|died| Error::Storage(died.to_string()))?
    }

    /// Runs an action, and again as often as it may be.
    async fn tries(&self, call: &ActionCall, chain: &Chain, wall: Duration) -> Outcome {
        let mut backoff = Backoff::new(RETRY_FROM, RETRY_TO, true, Chance::from_system());
        let until = self.clock.now().plus(wall);
        loop {
            let ended = self.once(call, chain, until.since(self.clock.now())).await;
            match ended {
                Err(why) if backoff.tries() < call.retries && repeats(&why) => {
                    let wait = backoff.next_wait();
                    if self.clock.now().plus(wait) >= until {
                        return Err(why);
                    }
                    self.clock.sleep(wait).await;
                }
                ended => return ended,
            }
        }
    }

    async fn once(&self, call: &ActionCall, chain: &Chain, wall: Duration) -> Outcome {
        let (action, connection) = self.find(call)?;
        let (input, chain) = (call.input.clone(), chain.clone());
        match action {
            KnownAction::Function(function) => function.call(ActionAsk { connection, input, chain, wall }).await,
            KnownAction::Described(described) => {
                let id = call.id.clone();
                let ended = described.call(DescribedAsk { connection, input, chain, wall, id }).await?;
                // Behind the effect, and before anybody is told of it.
                if let Some((stream, seen)) = &ended.records {
                    self.merge(&call.key, stream, seen).await.map_err(NotCalled::from)?;
                }
                ended.output
            }
        }
    }

    /// Whether a call that a crash cut off may be made once more.
    fn repeats(&self, call: &ActionCall) -> bool {
        matches!(self.find(call), Ok((KnownAction::Described(described), _)) if described.repeats())
    }
}

/// Whether another try may end otherwise, and is no second effect that nobody asked for.
fn repeats(why: &ActionFailure) -> bool {
    const LASTING: [&str; 6] = [
        ActionFailure::INPUT,
        // What it does has happened.
        ActionFailure::OUTPUT,
        ActionFailure::TOO_LARGE,
        ActionFailure::UNKNOWN_OUTCOME,
        ActionFailure::NO_CONNECTION,
        ActionFailure::NO_ACTION,
    ];
    !LASTING.contains(&why.code)
}

fn busy(connection: &str) -> NotCalled {
    NotCalled::Busy(format!(
        "{OF_CONNECTION} actions of `{connection}` run and {WAITING} wait: call again later, or with X-Async"
    ))
}

/// A stored call that is about to have effects.
struct StoredCall {
    inner: Arc<ActionsInner>,
    key: CallKey,
    call: Call,
}

#[async_trait]
impl Witness for StoredCall {
    async fn note(&self) -> Result<(), Failure> {
        let call = Call { stage: Stage::Acting, ..self.call.clone() };
        let stored = self.inner.kept.set(&self.key, &call).await;
        stored.map_err(|why| {
            Failure::lasting("not_stored", format!("the action cannot be kept, so it goes no further: {why}"))
        })
    }
}
