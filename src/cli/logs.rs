//! Logs on stderr: pretty for people, JSON for machines. Data goes to stdout and never here.
//!
//! A line says one thing: what a value holds of line breaks and control characters is written out as an escape, so that nobody
//! whose words are logged can make a line of their own. JSON lines have the fields `ts level target msg` and then what the line says: `source stream connection run_id error` …

use super::exit::{Fail, code};
use crate::connectors::http::on_one_line;
use clap::ValueEnum;
use serde_json::{Map, Value};
use std::fmt;
use std::io::IsTerminal;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::fmt::format::{Writer, debug_fn};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Pretty on a terminal, else JSON.
    Auto,
    /// For people.
    Pretty,
    /// For machines.
    Json,
}

/// Begins logging. `level` is a level or a filter such as `warn,syncline=debug`.
pub fn begin(format: Format, level: &str) -> Result<(), Fail> {
    let refused = |why: &dyn fmt::Display| {
        Fail::new(code::USAGE, format!("`{level}` is not a log level: {why}"))
            .hint("use error, warn, info, debug or trace, or a filter such as syncline=debug,warn")
    };
    let filter = EnvFilter::try_new(level).map_err(|e| refused(&e))?;
    // The filter takes any word for the name of a module, all of whose lines it then wants, and none of others.
    if let Some(word) = level.split(',').find(|part| !ends_in_level(part)) {
        return Err(refused(&format!("`{}` names none", word.trim())));
    }
    let filter = if level.contains(TWICE) { filter } else { without(filter) };
    let terminal = std::io::stderr().is_terminal();
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A line that cannot be written is lost: to complain about it on the same full disk would end the thread that logs.
    let builder = builder.log_internal_errors(false);
    // A subscriber that is there already (tests in one process) stays: not a failure.
    let _ = if format == Format::Json || format == Format::Auto && !terminal {
        builder.event_format(Json).try_init()
    } else {
        let colour = terminal && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
        builder.fmt_fields(debug_fn(field).delimited(" ")).with_ansi(colour).with_target(false).try_init()
    };
    Ok(())
}

/// One field of a pretty line.
fn field(writer: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug) -> fmt::Result {
    let value = on_one_line(&format!("{value:?}"));
    match field.name() {
        "message" => write!(writer, "{value}"),
        name => write!(writer, "{name}={value}"),
    }
}

/// Whether a part of a filter is a level, or `=` and a level stand at its end.
fn ends_in_level(part: &str) -> bool {
    let level = part.rsplit_once('=').map_or(part, |(_, level)| level);
    level.trim().parse::<tracing::level_filters::LevelFilter>().is_ok()
}

/// What the Kafka client says under this name it says a second time itself, and each end of a partition it calls an error.
const TWICE: &str = "rdkafka::client";

fn without(filter: EnvFilter) -> EnvFilter {
    match format!("{TWICE}=off").parse() {
        Ok(directive) => filter.add_directive(directive),
        Err(_) => filter,
    }
}

/// One JSON object a line.
struct Json;

impl<S, N> FormatEvent<S, N> for Json
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let meta = event.metadata();
        let mut fields = LineFields(Map::new());
        let now = crate::engine::time::Clock::now(&crate::engine::time::SystemClock);
        fields.0.insert("ts".into(), now.to_string().into());
        fields.0.insert("level".into(), meta.level().as_str().to_lowercase().into());
        fields.0.insert("target".into(), meta.target().into());
        fields.0.insert("msg".into(), "".into());
        event.record(&mut fields);
        writeln!(writer, "{}", Value::Object(fields.0))
    }
}

struct LineFields(Map<String, Value>);

impl LineFields {
    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        let name = if field.name() == "message" { "msg" } else { field.name() };
        self.0.insert(name.to_owned(), value.into());
    }
}

impl Visit for LineFields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}"));
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value);
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }
    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.put(field, value.to_string());
    }
}
