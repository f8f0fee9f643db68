//! The benchmarks: how much work is a record, and how soon is it seen?
//!
//! One program, one question a file. Records come from the fake provider's generator and go through the engine's public
//! ways in, with RocksDB on a real folder and a synced write behind every commit. Generating is never counted: records
//! are made in chunks while the clock stands still, and the clock only runs from the first page of a chunk being handed
//! over until its last is committed. `docs/benchmarks.md` says what each figure means.

mod feed;
mod gauge;
mod poll;
mod report;
mod shop;
mod w1_load;
mod w2_repoll;
mod w3_webhooks;
mod w4_http;
mod w4_read;
mod w5_restart;
mod w7_view;
#[cfg(feature = "functions")]
mod w8_functions;

use clap::Parser;
use feed::Feed;
use report::Report;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use syncline_engine::Engine;
use syncline_engine::model::{DatasetName, Strategy};
use syncline_engine::pipeline::{Dataset, DatasetSpec, Options};
use syncline_engine::time::SystemClock;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Anything that ends a benchmark early.
type Fault = Box<dyn std::error::Error + Send + Sync>;

/// What is run.
#[derive(Parser, Clone, Debug)]
#[command(
    name = "bench",
    about = "Benchmarks of the engine: W1 load, W2 re-poll, W3 webhooks, W4 read, W5 restart, W7 view, W8 functions"
)]
struct Args {
    /// Records in all, over ten connections.
    #[arg(long, default_value_t = 1_000_000)]
    records: u64,
    /// Timely workers.
    #[arg(long, default_value_t = 2)]
    workers: usize,
    /// Memory for what is known of records, in MiB; beyond, datasets are spilled.
    #[arg(long, default_value_t = syncline_engine::pipeline::TABLE_BYTES >> 20)]
    tables_mb: usize,
    /// From so many contents of a commit on they are stored in blocks.
    #[arg(long, default_value_t = syncline_engine::pipeline::BLOCK_LEAST)]
    block_least: usize,
    /// Only these, such as `w1,w2`. W1 runs with all but W7 and W8: the others need its records.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Records a page, one page a commit.
    #[arg(long, default_value_t = 1_000)]
    page: usize,
    /// Webhooks a second in W3; several are run one after the other.
    #[arg(long, value_delimiter = ',', default_values_t = [200, 5_000])]
    rate: Vec<u64>,
    /// How long each rate of W3 is kept up.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Orders of W7, and as many customers; each is measured by itself.
    #[arg(long, value_delimiter = ',', default_values_t = [10_000, 100_000, 1_000_000])]
    view_sizes: Vec<u64>,
    /// Keep the data folder.
    #[arg(long)]
    keep: bool,
    /// Where the figures are written as JSON; `target/bench.json` if not said.
    #[arg(long)]
    json: Option<PathBuf>,
    /// W7 in a process of its own: this size alone.
    #[arg(long, hide = true)]
    view_child: Option<u64>,
    /// With it: without the view.
    #[arg(long, hide = true)]
    no_view: bool,
}

impl Args {
    fn wants(&self, work: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|w| w.eq_ignore_ascii_case(work))
    }
}

/// An open engine with its datasets, one per connection.
struct Bench {
    args: Args,
    dir: PathBuf,
    feed: Feed,
    engine: Engine,
    datasets: Vec<Dataset>,
}

impl Bench {
    fn open(args: &Args, dir: &Path) -> Result<Bench, Fault> {
        let engine = Engine::open(Options {
            data_dir: Some(dir.to_owned()),
            workers: args.workers,
            clock: Arc::new(SystemClock),
            table_bytes: args.tables_mb << 20,
            block_least: args.block_least,
            ..Options::default()
        })?;
        let feed = Feed::new(args.records, args.page);
        let spec = DatasetSpec::of(Strategy::Latest);
        let datasets = (0..feed::CONNECTIONS)
            .map(|n| engine.dataset(&DatasetName::base("default", "fake", &format!("account-{n}"), "Contact"), &spec))
            .collect::<Result<_, _>>()?;
        Ok(Bench { args: args.clone(), dir: dir.to_owned(), feed, engine, datasets })
    }
}

fn main() -> ExitCode {
    #[cfg(feature = "functions")]
    if std::env::args().nth(1).as_deref() == Some(w8_functions::WORKER) {
        return syncline_runtime::worker::main();
    }
    let args = Args::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(fault) => return fail(&fault.into()),
    };
    match runtime.block_on(run(&args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => fail(&fault),
    }
}

fn fail(fault: &Fault) -> ExitCode {
    eprintln!("bench: {fault}");
    ExitCode::FAILURE
}

async fn run(args: &Args) -> Result<(), Fault> {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
    let base = std::env::var_os("BENCH_DIR").map_or_else(|| target.join("bench-data"), PathBuf::from);
    let dir = base.join(format!("run-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    if let Some(size) = args.view_child {
        let outcome = w7_view::one(args, size, &dir).await;
        std::fs::remove_dir_all(&dir)?;
        return outcome;
    }
    let mut report = Report::new(args.records, args.workers);
    let outcome = works(args, &dir, &mut report).await;
    if !args.keep {
        std::fs::remove_dir_all(&dir)?;
    }
    report.write(&args.json.clone().unwrap_or_else(|| target.join("bench.json")))?;
    outcome
}

async fn works(args: &Args, dir: &Path, report: &mut Report) -> Result<(), Fault> {
    if ["w1", "w2", "w3", "w4", "w5"].iter().any(|work| args.wants(work)) {
        on_records(args, dir, report).await?;
    }
    if args.wants("w7") {
        w7_view::run(args, report)?;
    }
    #[cfg(feature = "functions")]
    if args.wants("w8") {
        w8_functions::run(dir, report).await?;
    }
    Ok(())
}

async fn on_records(args: &Args, dir: &Path, report: &mut Report) -> Result<(), Fault> {
    let mut bench = Bench::open(args, dir)?;
    w1_load::run(&bench, report).await?;
    if args.wants("w2") {
        w2_repoll::run(&bench, report).await?;
    }
    if args.wants("w3") {
        report_sync(dir, report)?;
        for rate in &args.rate {
            w3_webhooks::run(&bench, *rate, report).await?;
        }
    }
    if args.wants("w4") {
        w4_read::run(&bench, report).await?;
        bench = w4_http::run(bench, report).await?;
    }
    match args.wants("w5") {
        true => w5_restart::run(bench, report).await,
        false => Ok(bench.engine.stop().await?),
    }
}

/// What the disk itself takes to sync a small write: W3 cannot be quicker than that.
fn report_sync(dir: &Path, report: &mut Report) -> Result<(), Fault> {
    let times = gauge::sync_times(dir)?;
    for (name, at) in [("p50", times.len() / 2), ("p99", times.len() * 99 / 100)] {
        let time = times.get(at).copied().unwrap_or_default();
        report.add("W3", &format!("the disk alone: a synced write of 4 KiB, {name}"), time.as_secs_f64() * 1e3, "ms");
    }
    Ok(())
}
