//! # Syncline
//!
//! Polled APIs and webhooks become one exact change stream. As a program that is one binary; as a library it is this crate:
//! an [`Engine`] inside of your own process, fed by whatever you have, derived from by Rust code, read by cursor.
//!
//! ```text
//! source ──► log ──► dataflow ──► store ──► sink
//!                    views, too             readers with cursors
//! ```
//!
//! Read from the top; every piece below runs.
//!
//! ## Records
//!
//! A **record** is a JSON object with an `id`. It belongs to a **dataset**: one model of one connection (an account) of one
//! source (an outside system), in an environment, which is what nothing crosses. How two versions of a record compete is the
//! dataset's [`Strategy`](engine::model::Strategy).
//!
//! What was seen of records goes in as **pages** of a **batch**. A batch is one *engine time*: all of it becomes visible, or
//! nothing, and once [`commit`](Engine::commit) has answered it survives a crash.
//!
//! ```
//! use syncline::Engine;
//! use syncline::engine::model::{Cause, DatasetName, Strategy, Timestamp};
//! use syncline::engine::pipeline::{Batch, DatasetSpec, Options};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let folder = tempfile::tempdir()?;
//! let engine = Engine::open(Options::in_folder(folder.path()))?;
//! let name = DatasetName::base("default", "crm", "acme", "Contact");
//! let contacts = engine.dataset(&name, &DatasetSpec::of(Strategy::Latest))?;
//!
//! let mut page = engine.page(&contacts);
//! let (modified, seen) = (Timestamp::from_seconds(10), Timestamp::from_seconds(12));
//! page.save("1", Some(modified), seen, br#"{"id":"1","name":"Ada"}"#);
//! let batch = Batch { cause: Some(Cause::run(engine.next_run()?)), pages: vec![page], ..Batch::default() };
//! let receipt = engine.commit(batch).await?;
//! assert_eq!(receipt.counts_of(&contacts).added, 1);
//!
//! let ada = engine.record(&contacts, "1").await?.expect("she is there");
//! assert_eq!(&ada.payload[..], br#"{"id":"1","name":"Ada"}"#);
//! # engine.stop().await?;
//! # Ok(())
//! # }
//! ```
//!
//! ## Changes
//!
//! Saving a record does not make a **change**; being different does. What is as it was (whatever the order of its fields) is
//! counted as unchanged and told to nobody; what is older than what is known loses. A change is `ADDED`, `UPDATED` or
//! `DELETED`, and knows what was there before.
//!
//! A **cursor** is a reader's place among the changes. Whoever goes on from the last one misses nothing and meets nothing
//! twice: not after a restart, not if the reader sleeps for a month. [`CursorKey`](engine::model::CursorKey) makes text of
//! it that strangers can keep and nobody can forge.
//!
//! ```
//! # use syncline::Engine;
//! # use syncline::engine::model::{Cause, DatasetName, Strategy, Timestamp};
//! # use syncline::engine::pipeline::{Batch, Dataset, DatasetSpec, Error, Options};
//! use syncline::engine::model::Cursor;
//!
//! async fn save(engine: &Engine, to: &Dataset, second: i64, json: &str) -> Result<(), Error> {
//!     let mut page = engine.page(to);
//!     let at = Timestamp::from_seconds(second);
//!     page.save("1", Some(at), at, json.as_bytes());
//!     engine.commit(Batch { cause: Some(Cause::run(1)), pages: vec![page], ..Batch::default() }).await.map(drop)
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let engine = Engine::open(Options::temporary())?;
//! # let name = DatasetName::base("default", "crm", "acme", "Contact");
//! # let contacts = engine.dataset(&name, &DatasetSpec::of(Strategy::Latest))?;
//! save(&engine, &contacts, 10, r#"{"id":"1","name":"Ada"}"#).await?;
//! save(&engine, &contacts, 20, r#"{"name":"Ada","id":"1"}"#).await?; // the same
//! save(&engine, &contacts, 30, r#"{"id":"1","name":"Ada L."}"#).await?;
//! save(&engine, &contacts, 25, r#"{"id":"1","name":"A."}"#).await?; // older
//!
//! let page = engine.changes_page(&[contacts.clone()], Cursor::START, 100)?;
//! let told: Vec<_> = page.changes.iter().map(|(_, change)| change.meta.action.as_str()).collect();
//! assert_eq!(told, ["ADDED", "UPDATED"]);
//! let (_, last) = &page.changes[1];
//! assert_eq!(last.before.as_deref(), Some(&br#"{"id":"1","name":"Ada"}"#[..]));
//!
//! // A place as text, and on from there.
//! let text = engine.cursor_key().encode(b"my reader", page.next);
//! let place = engine.cursor_key().decode(b"my reader", &text)?;
//! save(&engine, &contacts, 40, r#"{"id":"1","name":"Countess"}"#).await?;
//! assert_eq!(engine.changes_page(&[contacts], place, 100)?.changes.len(), 1);
//! # Ok(())
//! # }
//! ```
//!
//! [`Engine::watermark`] wakes a reader that has everything. `examples/consumer.rs` is a reader that is stopped again and
//! again.
//!
//! ## Sources
//!
//! A [`Source`](engine::source::Source) makes one attempt at one page and answers. Waiting, repeating, remembering where the
//! listing stood and finding out what was **deleted** is the run's work ([`run`](engine::pipeline::run::run)): a listing that
//! is proven complete deletes what it did not name, in one engine time.
//!
//! ```
//! use async_trait::async_trait;
//! use std::sync::Arc;
//! use std::sync::atomic::{AtomicBool, Ordering};
//! use syncline::Engine;
//! use syncline::engine::model::{DatasetName, Strategy};
//! use syncline::engine::pipeline::run::{Halt, Order, run};
//! use syncline::engine::pipeline::{DatasetSpec, Options};
//! use syncline::engine::source::{Ask, Body, Bookmark, Connection, Failure, Observation, Page, Source};
//!
//! /// Lists two planets, later one.
//! struct Planets(AtomicBool);
//!
//! #[async_trait]
//! impl Source for Planets {
//!     async fn poll(&self, ask: &Ask, _after: Option<&Bookmark>) -> Result<Page, Failure> {
//!         let listed: &[&str] = if self.0.swap(true, Ordering::Relaxed) { &["Mars"] } else { &["Mars", "Pluto"] };
//!         let seen = |id: &&str| Observation {
//!             id: id.to_string(),
//!             modified_at: None,
//!             observed_at: ask.started_at,
//!             body: Body::Whole(format!(r#"{{"id":"{id}"}}"#)),
//!         };
//!         Ok(Page::last(listed.iter().map(seen).collect()))
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let engine = Engine::open(Options::temporary())?;
//! let name = DatasetName::base("default", "sky", "ours", "Planet");
//! let planets = engine.dataset(&name, &DatasetSpec::of(Strategy::IgnoreIfModifiedAfter))?;
//! let source = Arc::new(Planets(AtomicBool::new(false)));
//! let (_keep, halt) = tokio::sync::watch::channel(Halt::No);
//! let listing = || Order::full(&planets, Connection::default());
//! let first = run(&engine, source.clone(), listing(), halt.clone(), &|_, _| {}).await?.record.counts;
//! let second = run(&engine, source, listing(), halt, &|_, _| {}).await?.record.counts;
//! assert_eq!((first.added, second.unchanged, second.deleted), (2, 1, 1));
//! # Ok(())
//! # }
//! ```
//!
//! APIs that speak REST need no code: [`connectors::rest`] is a source made of a definition file.
//!
//! ## The log
//!
//! What cannot be asked for again, such as a webhook, is kept before anybody is answered: [`Engine::log`]. What a source
//! brings needs no log: the bookmark is committed with its page, and the rest is asked for again.
//!
//! ## Sinks
//!
//! A [`Sink`](engine::sink::Sink) takes the changes of one engine time of one dataset, or fails.
//! [`feed`](engine::pipeline::feed) asks again, and keeps its place in the store; `examples/embedded.rs` has a source and a
//! sink of its own.
//!
//! ## Views
//!
//! A [view](views) is derived from records by Rust code, kept up as they change, and is a dataset like any other: with
//! changes, cursors, sinks. A [`Table`](views::Table) is rows by key; `#[derive(Row)]` says which fields of a record they are.
//!
//! ```
//! use serde_json::json;
//! use syncline::engine::harness::Harness;
//! use syncline::prelude::*;
//!
//! #[derive(Row, Clone)]
//! struct Issue {
//!     state: String,
//!     #[row(path = "assignee.login")]
//!     assignee: Option<String>,
//! }
//!
//! #[derive(Row, Clone)]
//! struct Workload {
//!     open: u64,
//! }
//!
//! fn views(v: &mut Views<'_>) {
//!     let issues = v.model::<Issue>("github", "Issue");
//!     let open = issues.filter(|_, issue| issue.state == "open");
//!     let by_assignee = open.group_by(|_, issue| issue.assignee.clone().unwrap_or("nobody".to_owned()));
//!     v.publish("OpenIssues", &by_assignee.count().map(|_, open| Workload { open: *open }));
//! }
//!
//! let mut github = Harness::new(Definition::new(views));
//! github.save("github", "acme", "Issue", json!({"id": "1", "state": "open", "assignee": {"login": "ada"}}));
//! github.save("github", "acme", "Issue", json!({"id": "2", "state": "open", "assignee": {"login": "ada"}}));
//! github.commit();
//! assert_eq!(github.rows("github", "acme", "OpenIssues"), [json!({"id": "ada", "open": 2})]);
//!
//! github.save("github", "acme", "Issue", json!({"id": "2", "state": "closed"}));
//! github.commit();
//! let changes = github.changes("github", "acme", "OpenIssues");
//! assert_eq!(changes.last(), Some(&("UPDATED", json!({"id": "ada", "open": 1}))));
//! ```
//!
//! The [`Harness`](engine::harness::Harness) is an engine for tests, with a clock that stands;
//! [`check_incremental`](engine::harness::check_incremental) tries a view over random histories. In a program the same
//! `views` go to [`Options::views`](engine::pipeline::Options::views), or, with everything around them, to
//! `syncline::cli::main_with(views)`.
//!
//! ## Features
//!
//! | feature | what it brings |
//! |---|---|
//! | `program` (default) | everything around the engine that the `syncline` program has: schedules, webhooks, server, command line, with `kafka` |
//! | `kafka` | `connectors::kafka`: topics in and out, by librdkafka |
//!
//! `default-features = false` leaves the library: [`engine`], [`views`], and [`connectors`] for REST and webhooks.

pub use syncline_connectors as connectors;
pub use syncline_engine as engine;
pub use syncline_engine::{Engine, views};

#[cfg(feature = "program")]
pub mod admission;
#[cfg(feature = "program")]
pub mod api;
#[cfg(feature = "program")]
pub mod app;
#[cfg(feature = "program")]
pub mod cli;
#[cfg(feature = "program")]
pub mod cluster;
#[cfg(feature = "program")]
pub mod config;
#[cfg(feature = "program")]
pub mod ingest;
#[cfg(feature = "program")]
pub mod registry;
#[cfg(feature = "program")]
pub mod server;
#[cfg(feature = "program")]
pub mod sinks;
#[cfg(feature = "program")]
pub mod telemetry;

/// What a program with views of its own needs.
pub mod prelude {
    pub use crate::views::{Definition, Groups, Row, Table, Views, average, count, sum, tumbling};
    pub use std::cmp::Reverse;
}
