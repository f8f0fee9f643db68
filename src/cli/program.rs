//! The program with code of one's own in it: [`program`] takes views, sources and sinks, and is then the same command line,
//! server and scheduler as `syncline`.

use crate::app::{App, OpenError, Running};
use crate::config::Extensions;
use crate::config::Settings;
use crate::engine::sink::Sink;
use crate::engine::source::Source;
use crate::engine::time::Clock;
use crate::engine::views::{Definition, Views};
use std::process::ExitCode;
use std::sync::Arc;

/// A program that brings nothing yet.
///
/// ```no_run
/// use serde_json::json;
/// use syncline::prelude::*;
///
/// #[derive(Row, Clone)]
/// struct Planet {
///     rings: u64,
/// }
///
/// fn views(v: &mut Views<'_>) {
///     let planets = v.model::<Planet>("sky", "Planet");
///     v.publish("Ringed", &planets.filter(|_, planet| planet.rings > 0));
/// }
///
/// /// Brings the records of the stream `Planet`; `sources/sky.yaml` says when and for which accounts:
/// /// `{source: sky, streams: [{name: Planet, key: .id, schedule: {every: 5m}}], connections: {ours: {}}}`.
/// struct Sky;
///
/// #[async_trait]
/// impl Source for Sky {
///     async fn poll(&self, ask: &Ask, _after: Option<&Bookmark>) -> Result<Page, Failure> {
///         Ok(Page::last(vec![ask.seen("Saturn", json!({"id": "Saturn", "rings": 7}))]))
///     }
/// }
///
/// struct Printer;
///
/// #[async_trait]
/// impl Sink for Printer {
///     async fn deliver(&self, batch: &ChangeBatch) -> Result<(), Failure> {
///         batch.changes.iter().for_each(|change| println!("{change}"));
///         Ok(())
///     }
/// }
///
/// fn main() -> std::process::ExitCode {
///     syncline::program().views(views).source("sky", Sky).sink("printer", Printer).main()
/// }
/// ```
pub fn program() -> Program {
    Program::default()
}

/// What a program brings. Made by [`program`].
#[derive(Debug, Default)]
#[must_use = "nothing runs before `main`"]
pub struct Program {
    extensions: Extensions,
    /// Names that were given twice.
    twice: Vec<String>,
}

impl Program {
    /// What is derived from the records; see [`views`](crate::views).
    pub fn views(mut self, views: impl for<'s> Fn(&mut Views<'s>) + Send + Sync + 'static) -> Self {
        if self.extensions.views.replace(Definition::new(views)).is_some() {
            self.twice.push("`views` are given twice; define all of them in one function".to_owned());
        }
        self
    }

    /// A source: the definition file of this name says its streams, their keys and schedules and the accounts, and leaves out
    /// `list` and `incremental`. It is scheduled, repeated, stopped and shown like every source.
    pub fn source(mut self, name: impl Into<String>, source: impl Source) -> Self {
        let name = name.into();
        if self.extensions.sources.insert(name.clone(), Arc::new(source)).is_some() {
            self.twice.push(format!("two sources are named `{name}`; give each a name of its own"));
        }
        self
    }

    /// A sink: while the program serves, it gets each set of changes of the datasets it takes, in order and at least once. How far it has come is
    /// stored under its name; a name that is new begins with all changes there are.
    pub fn sink(mut self, name: impl Into<String>, sink: impl Sink) -> Self {
        let name = name.into();
        if self.extensions.sinks.insert(name.clone(), Arc::new(sink)).is_some() {
            self.twice.push(format!("two sinks are named `{name}`; give each a name of its own"));
        }
        self
    }

    /// Runs the command line of this process, as `syncline` does.
    pub fn main(self) -> ExitCode {
        // A worker for functions is this program once more, and nothing of it but the sandbox.
        #[cfg(feature = "functions")]
        if std::env::args().nth(1).is_some_and(|first| first == crate::app::functions::WORKER) {
            return syncline_runtime::worker::main();
        }
        super::main(self.extensions, &self.twice)
    }

    /// Runs scheduler, webhooks and sinks inside of another program, without command line and HTTP server, until
    /// [`Running::stop`].
    pub async fn start(self, mut settings: Settings, clock: Arc<dyn Clock>) -> Result<Running, OpenError> {
        if !self.twice.is_empty() {
            return Err(OpenError::Program(self.twice.join("\n")));
        }
        settings.extensions = self.extensions;
        Ok(App::open(settings, clock).await?.start())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::sink::{ChangeBatch, Failure};
    use crate::engine::time::SystemClock;

    struct Deaf;

    #[async_trait::async_trait]
    impl Sink for Deaf {
        async fn deliver(&self, _: &ChangeBatch) -> Result<(), Failure> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_name_that_is_given_twice_is_refused_before_anything_is_opened() {
        let twice = program().sink("deaf", Deaf).sink("deaf", Deaf);
        let settings = Settings { data_dir: "/nowhere/at/all".into(), ..Settings::default() };
        let refused = twice.start(settings, Arc::new(SystemClock)).await.err().expect("refused");
        assert_eq!(refused.to_string(), "two sinks are named `deaf`; give each a name of its own");
    }
}
