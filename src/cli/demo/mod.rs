//! `syncline demo`: a fake provider, its webhooks and the engine in one process, to be watched for a minute.
//!
//! Promises: needs no account, no network, no settings, and leaves no files; every change is on the screen as it is
//! committed, with what brought it; the same seed brings the same changes of each record; at the end the records are
//! compared with the provider's own list. What runs is the program itself (definition file, runs, hooks, store), only
//! polled more often than a schedule may ask for.

mod lines;
mod scene;
mod stage;

use super::exit::{Fail, code};
use crate::engine::model::Counts;
use crate::engine::time::{Clock, SystemClock};
use lines::Lines;
use stage::DemoStage;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How often each account is polled. Schedules allow no less than 15 s; a demo has less patience.
const POLL_EVERY: Duration = Duration::from_millis(1_500);
/// The last seconds belong to late webhooks and the last polls: changes end before them.
const TAIL: Duration = Duration::from_secs(5);
/// Longest wait for webhooks that are still on their way at the end.
const SETTLE_MAX: Duration = Duration::from_secs(5);
/// How often something that others bring about is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Arguments of `demo`.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct DemoArgs {
    /// Ends by itself after so long; Ctrl-C ends it sooner
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// One change a line as JSON, and nothing else on stdout
    #[arg(long)]
    json: bool,
    /// The same seed brings the same changes of each record
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
}

/// Runs the demo.
pub(crate) fn run(args: DemoArgs) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => return Fail::new(code::INTERNAL, format!("the runtime could not be started: {e}")).end(),
    };
    let ended = runtime.block_on(play(&args));
    // Nothing of the demo is worth waiting for once it has ended.
    runtime.shutdown_background();
    ended.unwrap_or_else(|fail| fail.end())
}

async fn play(args: &DemoArgs) -> Result<ExitCode, Fail> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let end = clock.now().plus(Duration::from_secs(args.seconds));
    let whole = Duration::from_secs(args.seconds);
    let stage = Arc::new(DemoStage::set(args.seed, whole.saturating_sub(TAIL).max(whole / 2), clock.clone()).await?);
    let lines = Arc::new(Lines::new(args.json));
    lines.head(&stage.fake.url(), &stage.hook);
    let (over, shown, tasks) = (CancellationToken::new(), CancellationToken::new(), TaskTracker::new());
    let printing = tokio::spawn(lines::follow(stage.app.engine.clone(), lines.clone(), shown.clone()));
    let polled = poll_all(&stage, &over, &tasks);
    tasks.spawn(scene::play(stage.clone(), lines.clone(), over.clone()));

    let stopped = tokio::select! {
        () = clock.sleep_until(end.minus(TAIL.min(whole / 3))) => false,
        _ = tokio::signal::ctrl_c() => true,
        () = lines.closed() => true,
    };
    stage.fake.rest();
    settle(&stage, stopped).await;
    over.cancel();
    tasks.close();
    tasks.wait().await;
    let mut sums = polled.sums();
    sums.add(&stage.poll_whole().await?);
    let equal = stage.equals_truth().await?;
    shown.cancel();
    // The last lines are read before the store closes.
    let _ = printing.await;
    lines.tail(&stage, &sums, polled.runs(), equal);
    let clean = stage.strike().await;
    clean?;
    Ok(if equal { ExitCode::SUCCESS } else { ExitCode::from(code::FAILURE) })
}

/// Waits for the webhooks that are still on their way, and for one more poll of each account; not long.
async fn settle(stage: &DemoStage, hurried: bool) {
    let clock = stage.app.engine.clock();
    let limit = clock.now().plus(if hurried { SETTLE_MAX / 5 } else { SETTLE_MAX });
    while stage.fake.webhooks_waiting() > 0 && clock.now() < limit {
        clock.sleep(LOOK_EVERY).await;
    }
    if !hurried {
        clock.sleep(POLL_EVERY).await;
    }
}

/// What the polls found so far.
#[derive(Clone, Default)]
struct PolledSoFar(Arc<parking_lot::Mutex<(Counts, u64)>>);

impl PolledSoFar {
    fn add(&self, counts: &Counts) {
        let mut sums = self.0.lock();
        sums.0.add(counts);
        sums.1 += 1;
    }

    fn sums(&self) -> Counts {
        self.0.lock().0
    }

    fn runs(&self) -> u64 {
        self.0.lock().1
    }
}

/// Polls every account again and again until it is over.
fn poll_all(stage: &Arc<DemoStage>, over: &CancellationToken, tasks: &TaskTracker) -> PolledSoFar {
    let polled = PolledSoFar::default();
    for key in stage.app.syncs.keys() {
        let (stage, over, polled) = (stage.clone(), over.clone(), polled.clone());
        tasks.spawn(async move {
            let clock = stage.app.engine.clock();
            while !over.is_cancelled() {
                match stage.poll(&key, false).await {
                    Ok(counts) => polled.add(&counts),
                    Err(error) => {
                        tracing::warn!(sync = %key, %error, "a poll of the demo failed; the next one follows")
                    }
                }
                tokio::select! {
                    () = clock.sleep(POLL_EVERY) => {}
                    () = over.cancelled() => {}
                }
            }
        });
    }
    polled
}
