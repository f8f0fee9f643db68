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
//! source (an outside system), in an environment; no data crosses from one environment to another. How two versions of a record compete is the
//! dataset's [`Strategy`](engine::model::Strategy).
//!
//! Records are written in **batches**. A batch lies in one *epoch*: all of it becomes visible, or nothing, and once
//! [`commit`](engine::pipeline::WriteBuilder::commit) has answered it survives a crash.
//!
//! ```
//! use serde_json::json;
//! use syncline::prelude::*;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let folder = tempfile::tempdir()?;
//! let engine = Engine::open(Options::in_folder(folder.path()))?;
//! let name = DatasetName::base("default", "crm", "acme", "Contact");
//! let contacts = engine.dataset(&name, &DatasetSpec::of(Strategy::Latest))?;
//!
//! let modified = Timestamp::from_seconds(10);
//! let receipt = engine.write(&contacts).upsert(json!({"id": "1", "name": "Ada"})).at(modified).commit().await?;
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
//! Writing a record is not yet a **change**; only different content is. Unchanged content (in whatever order of fields) is
//! counted and not reported, and a version older than the known one is ignored. A change is `ADDED`, `UPDATED` or
//! `DELETED`, and knows what was there before.
//!
//! A **cursor** is a reader's place among the changes. Whoever goes on from the last one misses nothing and meets nothing
//! twice: not after a restart, not if the reader sleeps for a month. [`CursorKey`](engine::model::CursorKey) makes text of
//! it that strangers can keep and nobody can forge.
//!
//! ```
//! # use serde_json::json;
//! # use syncline::prelude::*;
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let engine = Engine::open(Options::temporary())?;
//! # let name = DatasetName::base("default", "crm", "acme", "Contact");
//! # let contacts = engine.dataset(&name, &DatasetSpec::of(Strategy::Latest))?;
//! let at = Timestamp::from_seconds;
//! engine.write(&contacts).upsert(json!({"id": "1", "name": "Ada"})).at(at(10)).commit().await?;
//! engine.write(&contacts).upsert(json!({"name": "Ada", "id": "1"})).at(at(20)).commit().await?; // the same
//! engine.write(&contacts).upsert(json!({"id": "1", "name": "Ada L."})).at(at(30)).commit().await?;
//! engine.write(&contacts).upsert(json!({"id": "1", "name": "A."})).at(at(25)).commit().await?; // older
//!
//! let page = engine.changes_page(&[contacts.clone()], Cursor::START, 100)?;
//! let told: Vec<_> = page.changes.iter().map(|(_, change)| change.to_string()).collect();
//! assert_eq!(told, [r#"ADDED {"id":"1","name":"Ada"}"#, r#"UPDATED {"id":"1","name":"Ada L."}"#]);
//! let (_, last) = &page.changes[1];
//! assert_eq!(last.before.as_deref(), Some(&br#"{"id":"1","name":"Ada"}"#[..]));
//!
//! // A place as text, and on from there.
//! let text = engine.cursor_key().encode(b"my reader", page.next);
//! let place = engine.cursor_key().decode(b"my reader", &text)?;
//! let mut changes = engine.follow(&contacts, place);
//! engine.write(&contacts).upsert(json!({"id": "1", "name": "Countess"})).at(at(40)).commit().await?;
//! let next = changes.try_next().await?.expect("it has no end");
//! assert_eq!(next.change.to_string(), r#"UPDATED {"id":"1","name":"Countess"}"#);
//! # Ok(())
//! # }
//! ```
//!
//! [`changes_page`](Engine::changes_page) reads what there is, [`follow`](Engine::follow) waits for more; each change comes with
//! the cursor behind it. `examples/consumer.rs` is a reader that is stopped again and again.
//!
//! ## Sources
//!
//! A [`Source`](engine::source::Source) makes one attempt at one page and answers. Waiting, repeating, remembering where the
//! listing stood and finding out what was **deleted** is the work of the run that [`sync`](Engine::sync) begins: a listing that
//! is proven complete deletes what it did not name, in one epoch.
//!
//! ```
//! use serde_json::json;
//! use std::sync::Arc;
//! use std::sync::atomic::{AtomicBool, Ordering};
//! use syncline::prelude::*;
//!
//! /// Lists two planets, later one.
//! struct Planets(AtomicBool);
//!
//! #[async_trait]
//! impl Source for Planets {
//!     async fn poll(&self, ask: &Ask, _after: Option<&Bookmark>) -> Result<Page, Failure> {
//!         let listed: &[&str] = if self.0.swap(true, Ordering::Relaxed) { &["Mars"] } else { &["Mars", "Pluto"] };
//!         Ok(Page::last(listed.iter().map(|id| ask.seen(*id, json!({"id": id}))).collect()))
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let engine = Engine::open(Options::temporary())?;
//! let name = DatasetName::base("default", "sky", "ours", "Planet");
//! let planets = engine.dataset(&name, &DatasetSpec::of(Strategy::IgnoreIfModifiedAfter))?;
//! let source = Arc::new(Planets(AtomicBool::new(false)));
//! let first = engine.sync(source.clone()).full(&planets).run().await?.counts();
//! let second = engine.sync(source).full(&planets).run().await?.counts();
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
//! A [`Sink`](engine::sink::Sink) takes the changes of one epoch of one dataset, or fails. [`feed`](Engine::feed) asks
//! again, and keeps its place in the store; `examples/embedded.rs` has a source and a sink of its own.
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
//! `views` go to [`Options::views`](engine::pipeline::Options::views), or, with everything around them, to `syncline::program()`.
//!
//! ## The program around it
//!
//! `syncline::program().views(views).source("x", source).sink("y", sink).main()` is the whole program, command line, server
//! and scheduler, with code of one's own in it: `examples/custom_source.rs` and `examples/custom_sink.rs`.
//!
//! ## Features
//!
//! | feature | what it brings |
//! |---|---|
//! | `program` (default) | everything around the engine that the `syncline` program has: schedules, webhooks, server, command line |
//! | `kafka` (default) | `connectors::kafka`: topics in and out, by librdkafka; with `program` also the log on topics, and clusters |
//! | `functions` (default) | functions in TypeScript, with `program`: the commands `syncline functions …` |
//!
//! `default-features = false` leaves the library: [`engine`], [`views`], and [`connectors`] for REST and webhooks.

// Without Kafka there is no cluster: nobody reads what routes declare for one.
#![cfg_attr(not(feature = "kafka"), allow(dead_code))]

pub use syncline_connectors as connectors;
pub use syncline_engine as engine;
pub use syncline_engine::pipeline::Error;
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
mod http;
#[cfg(feature = "program")]
pub mod ingest;
#[cfg(feature = "program")]
pub mod keyspaces;
#[cfg(feature = "program")]
pub mod registry;
#[cfg(feature = "program")]
pub mod server;
#[cfg(feature = "program")]
pub mod sinks;
#[cfg(feature = "program")]
pub mod telemetry;

#[cfg(feature = "program")]
pub use cli::program::{Program, program};

pub mod prelude {
    //! What most programs with a library of their own need: `use syncline::prelude::*`.
    //!
    //! | for | there is |
    //! |---|---|
    //! | reading and writing | [`Engine`], [`Options`], [`Dataset`], [`DatasetName`], [`DatasetSpec`], [`DatasetFilter`], [`Strategy`], [`Timestamp`], [`Cursor`]; what streams can do, such as `try_next` of what is followed |
    //! | a source | [`Source`], [`Ask`], [`Bookmark`], [`Page`], [`Observation`], [`Failure`], [`Retry`], [`async_trait`](macro@async_trait) |
    //! | a sink | [`Sink`], [`ChangeBatch`], [`Change`] |
    //! | views | [`Views`], [`Table`], [`Groups`], [`Row`], [`Definition`] and what sums up |

    pub use crate::engine::Engine;
    pub use crate::engine::model::{Change, Cursor, DatasetName, Strategy, Timestamp};
    pub use crate::engine::pipeline::{Dataset, DatasetFilter, DatasetSpec, Options};
    pub use crate::engine::sink::{ChangeBatch, Failure, Retry, Sink};
    pub use crate::engine::source::{Ask, Bookmark, Observation, Page, Source};
    pub use crate::views::{Definition, Groups, Row, Table, Views, average, count, sum, tumbling};
    pub use async_trait::async_trait;
    pub use futures_util::{StreamExt, TryStreamExt};
    pub use std::cmp::Reverse;
}
