//! Placeholders in text: `{{ name | filter }}`.
//!
//! Values come from a [`Scope`], one JSON object: `since`, `until` (RFC 3339 text with six digits, UTC), `partition`,
//! `key`, `keys`, `connection`, `variant`, `webhook_url`, `webhook_secret`, `id`; `event` is what `.path` reads.

use super::{CompileError, EvalError};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use syncline_engine::model::Timestamp;

/// Longest text with placeholders.
const MAX_TEXT: usize = 64 << 10;
/// Most placeholders of one text.
const MAX_PLACEHOLDERS: usize = 64;
/// What stays as it is in a path segment.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Values placeholders may name, as one JSON object: `since`, `partition`, `key`, `connection`…; `event` for `.path`.
#[derive(Clone, Debug, Default)]
pub struct Scope(pub serde_json::Map<String, Value>);

/// Text with placeholders, compiled.
#[derive(Clone, Debug, PartialEq)]
pub struct Template {
    parts: Vec<TemplatePart>,
}

#[derive(Clone, Debug, PartialEq)]
enum TemplatePart {
    Text(String),
    Value(Placeholder),
}

#[derive(Clone, Debug, PartialEq)]
struct Placeholder {
    /// As written: `partition.repo`, `.path.to.value`.
    name: String,
    /// Keys from the root of the scope.
    keys: Vec<String>,
    filters: Vec<TemplateFilter>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TemplateFilter {
    Iso8601,
    EpochSeconds,
    EpochMillis,
    DateTime,
    Date,
    Path,
    Json,
    Lower,
    Upper,
}

const FILTERS: [(&str, TemplateFilter); 9] = [
    ("iso8601", TemplateFilter::Iso8601),
    ("epoch_s", TemplateFilter::EpochSeconds),
    ("epoch_ms", TemplateFilter::EpochMillis),
    ("datetime", TemplateFilter::DateTime),
    ("date", TemplateFilter::Date),
    ("path", TemplateFilter::Path),
    ("json", TemplateFilter::Json),
    ("lower", TemplateFilter::Lower),
    ("upper", TemplateFilter::Upper),
];

impl Template {
    /// Compiles `text`.
    pub fn compile(text: &str) -> Result<Template, CompileError> {
        if text.len() > MAX_TEXT {
            return Err(bad(format!("the text has {} bytes; {MAX_TEXT} are allowed", text.len()), 0));
        }
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{{") {
            let at = text.len() - after.len();
            let (inner, tail) =
                after.split_once("}}").ok_or_else(|| bad("`{{` without `}}`".to_owned(), at.saturating_sub(2)))?;
            if !before.is_empty() {
                parts.push(TemplatePart::Text(before.to_owned()));
            }
            parts.push(TemplatePart::Value(Placeholder::compile(inner, at)?));
            if parts.len() > 2 * MAX_PLACEHOLDERS {
                return Err(bad(format!("more than {MAX_PLACEHOLDERS} placeholders"), at));
            }
            rest = tail;
        }
        if !rest.is_empty() || parts.is_empty() {
            parts.push(TemplatePart::Text(rest.to_owned()));
        }
        Ok(Template { parts })
    }

    /// Text without placeholders, taken as it is.
    pub fn literal(text: &str) -> Template {
        Template { parts: vec![TemplatePart::Text(text.to_owned())] }
    }

    /// The text, if there is no placeholder in it.
    pub fn as_literal(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [TemplatePart::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// The text before the first placeholder.
    pub fn head(&self) -> &str {
        match self.parts.first() {
            Some(TemplatePart::Text(text)) => text,
            _ => "",
        }
    }

    /// The value: a text that is one placeholder keeps its JSON type, everything else is text.
    /// A null inside is an error (`missing_value`).
    pub fn value(&self, scope: &Scope) -> Result<Value, EvalError> {
        match self.parts.as_slice() {
            [TemplatePart::Value(placeholder)] => placeholder.value(scope),
            _ => self.text(scope).map(Value::String),
        }
    }

    /// Whether it is one placeholder below `root` of the scope, and nothing is there.
    pub fn is_absent(&self, root: &str, scope: &Scope) -> bool {
        let [TemplatePart::Value(placeholder)] = self.parts.as_slice() else { return false };
        let Some((first, rest)) = placeholder.keys.split_first() else { return false };
        let below = rest.iter().try_fold(scope.0.get(first).unwrap_or(&Value::Null), |value, key| value.get(key));
        first == root && !rest.is_empty() && below.is_none_or(Value::is_null)
    }

    /// As text.
    pub fn text(&self, scope: &Scope) -> Result<String, EvalError> {
        self.join(scope, |placeholder, scope| placeholder.text(scope))
    }

    /// As a URL path: each placeholder's value percent-encoded; the filter `path` keeps `/` and refuses `.` and `..` parts.
    pub fn url_path(&self, scope: &Scope) -> Result<String, EvalError> {
        self.join(scope, |placeholder, scope| {
            let text = placeholder.text(scope)?;
            if placeholder.filters.contains(&TemplateFilter::Path) {
                return Ok(text);
            }
            if matches!(text.as_str(), "" | "." | "..") {
                return Err(EvalError(format!(
                    "bad_value: `{}` is {text:?}, which cannot be part of a path",
                    placeholder.name
                )));
            }
            Ok(utf8_percent_encode(&text, SEGMENT).to_string())
        })
    }

    /// As a URL: names and values of the placeholders that stand before the end of its host.
    pub fn in_host(&self, scope: &Scope) -> Result<Vec<(&str, String)>, EvalError> {
        let placeholders = self.host_placeholders().into_iter();
        placeholders.map(|placeholder| Ok((placeholder.name.as_str(), placeholder.text(scope)?))).collect()
    }

    /// As a URL: names of the placeholders that stand before the end of its host.
    pub fn host_names(&self) -> Vec<&str> {
        self.host_placeholders().into_iter().map(|placeholder| placeholder.name.as_str()).collect()
    }

    fn host_placeholders(&self) -> Vec<&Placeholder> {
        let mut found = Vec::new();
        for (place, part) in self.parts.iter().enumerate() {
            match part {
                TemplatePart::Value(placeholder) => found.push(placeholder),
                TemplatePart::Text(text) => {
                    // The host begins behind the scheme, however many slashes follow it.
                    let scheme = text.split_once(':').filter(|_| place == 0);
                    let text = scheme.map_or(text.as_str(), |(_, rest)| rest.trim_start_matches(['/', '\\']));
                    if text.contains(['/', '\\', '?', '#']) {
                        break;
                    }
                }
            }
        }
        found
    }

    /// Names of all placeholders, e.g. `partition.repo`, `since`.
    pub fn names(&self) -> Vec<&str> {
        self.placeholders().map(|p| p.name.as_str()).collect()
    }

    fn placeholders(&self) -> impl Iterator<Item = &Placeholder> {
        self.parts.iter().filter_map(|part| match part {
            TemplatePart::Value(placeholder) => Some(placeholder),
            TemplatePart::Text(_) => None,
        })
    }

    fn join(
        &self,
        scope: &Scope,
        show: impl Fn(&Placeholder, &Scope) -> Result<String, EvalError>,
    ) -> Result<String, EvalError> {
        let mut text = String::new();
        for part in &self.parts {
            match part {
                TemplatePart::Text(literal) => text.push_str(literal),
                TemplatePart::Value(placeholder) => text.push_str(&show(placeholder, scope)?),
            }
        }
        Ok(text)
    }
}

impl Placeholder {
    fn compile(inner: &str, at: usize) -> Result<Placeholder, CompileError> {
        let mut pieces = inner.split('|').map(str::trim);
        let name = pieces.next().unwrap_or_default();
        let dotted = name.strip_prefix('.');
        let path = dotted.unwrap_or(name);
        let word = |s: &str| !s.is_empty() && s.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '-');
        if !path.split('.').all(word) {
            let example = "write {{ name }}, {{ name.field }} or {{ name | filter }}";
            return Err(bad(format!("`{name}` is not a name; {example}"), at));
        }
        let mut keys: Vec<String> = path.split('.').map(str::to_owned).collect();
        if dotted.is_some() {
            keys.insert(0, "event".to_owned());
        }
        let filters = pieces.map(|word| filter(word, at)).collect::<Result<Vec<_>, _>>()?;
        Ok(Placeholder { name: name.to_owned(), keys, filters })
    }

    fn value(&self, scope: &Scope) -> Result<Value, EvalError> {
        let missing = || EvalError(format!("missing_value: `{}` has no value", self.name));
        let (first, rest) = self.keys.split_first().ok_or_else(missing)?;
        let mut value = scope.0.get(first).ok_or_else(missing)?;
        for key in rest {
            value = value.get(key).ok_or_else(missing)?;
        }
        if value.is_null() {
            return Err(missing());
        }
        self.filters.iter().try_fold(value.clone(), |value, filter| filter.apply(&self.name, value))
    }

    fn text(&self, scope: &Scope) -> Result<String, EvalError> {
        match self.value(scope)? {
            Value::String(text) => Ok(text),
            Value::Array(_) | Value::Object(_) => Err(EvalError(format!(
                "bad_value: `{}` is a list or an object; add `| json` if its text is wanted",
                self.name
            ))),
            other => Ok(other.to_string()),
        }
    }
}

impl TemplateFilter {
    fn apply(self, name: &str, value: Value) -> Result<Value, EvalError> {
        let time = |value: &Value| -> Result<Timestamp, EvalError> {
            match super::read_time(value, None) {
                Ok(Some(time)) => Ok(time),
                _ => Err(EvalError(format!("bad_time: `{name}` is not a time: {value}"))),
            }
        };
        Ok(match self {
            TemplateFilter::Iso8601 => Value::String(iso8601(time(&value)?)),
            TemplateFilter::EpochSeconds => Value::from(time(&value)?.seconds()),
            TemplateFilter::EpochMillis => Value::from(time(&value)?.millis()),
            TemplateFilter::DateTime => Value::String(datetime(time(&value)?)),
            TemplateFilter::Date => {
                Value::String(time(&value)?.to_string().chars().take_while(|c| *c != 'T').collect())
            }
            TemplateFilter::Json => Value::String(value.to_string()),
            TemplateFilter::Lower => Value::String(plain(name, value)?.to_lowercase()),
            TemplateFilter::Upper => Value::String(plain(name, value)?.to_uppercase()),
            TemplateFilter::Path => Value::String(path(name, &plain(name, value)?)?),
        })
    }
}

/// RFC 3339 in UTC: whole seconds where that is exact, else with fraction digits as needed.
fn iso8601(time: Timestamp) -> String {
    let text = time.to_string();
    match text.strip_suffix('Z').map(|t| t.trim_end_matches('0').trim_end_matches('.')) {
        Some(short) if text.contains('.') => format!("{short}Z"),
        _ => text,
    }
}

/// As SQL databases write times, cut to milliseconds: `2026-01-02 03:04:05.250Z`. They compare it as text.
fn datetime(time: Timestamp) -> String {
    let text = time.to_string().replacen('T', " ", 1);
    format!("{}Z", text.get(..23).unwrap_or(&text))
}

fn plain(name: &str, value: Value) -> Result<String, EvalError> {
    match value {
        Value::String(text) => Ok(text),
        Value::Number(number) => Ok(number.to_string()),
        Value::Bool(b) => Ok(b.to_string()),
        other => Err(EvalError(format!("bad_value: `{name}` is not text: {other}"))),
    }
}

/// Percent-encodes each part between `/`.
fn path(name: &str, text: &str) -> Result<String, EvalError> {
    let parts: Vec<&str> = text.split('/').collect();
    if parts.iter().any(|p| matches!(*p, "" | "." | "..")) {
        return Err(EvalError(format!(
            "bad_value: `{name}` is {text:?}: empty, `.` and `..` parts are refused in a path"
        )));
    }
    let encoded: Vec<String> = parts.iter().map(|p| utf8_percent_encode(p, SEGMENT).to_string()).collect();
    Ok(encoded.join("/"))
}

fn filter(word: &str, at: usize) -> Result<TemplateFilter, CompileError> {
    FILTERS.iter().find(|(name, _)| *name == word).map(|(_, filter)| *filter).ok_or_else(|| {
        let names: Vec<&str> = FILTERS.iter().map(|(name, _)| *name).collect();
        bad(format!("there is no filter `{word}`; known filters: {}", names.join(", ")), at)
    })
}

fn bad(message: String, at: usize) -> CompileError {
    CompileError { code: "bad_placeholder", message, at }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn scope() -> Scope {
        let value = json!({
            "since": "2026-01-02T03:04:05.000000Z",
            "until": "2026-01-02T03:04:05.250000Z",
            "partition": {"repo": "octo/hello world", "up": "../x"},
            "key": 7, "keys": [1, 2], "none": null,
            "event": {"name": "email"},
        });
        match value {
            Value::Object(map) => Scope(map),
            _ => Scope::default(),
        }
    }

    fn text(template: &str) -> Result<String, EvalError> {
        Template::compile(template).expect("compiles").text(&scope())
    }

    #[test]
    fn filters_of_time() {
        assert_eq!(text("{{ since | iso8601 }}"), Ok("2026-01-02T03:04:05Z".into()));
        assert_eq!(text("{{ until | iso8601 }}"), Ok("2026-01-02T03:04:05.25Z".into()));
        assert_eq!(text("{{ until | datetime }}"), Ok("2026-01-02 03:04:05.250Z".into()));
        assert_eq!(text("{{ since | epoch_s }}"), Ok("1767323045".into()));
        assert_eq!(text("{{ until | epoch_ms }}"), Ok("1767323045250".into()));
        assert_eq!(text("{{since|date}}"), Ok("2026-01-02".into()));
    }

    #[test]
    fn one_placeholder_keeps_its_type() {
        let value = |t: &str| Template::compile(t).expect("compiles").value(&scope());
        assert_eq!(value("{{ key }}"), Ok(json!(7)));
        assert_eq!(value("{{ keys }}"), Ok(json!([1, 2])));
        assert_eq!(value("k{{ key }}"), Ok(json!("k7")));
        assert_eq!(value("{{ keys | json }}"), Ok(json!("[1,2]")));
        assert_eq!(value("properties.{{ .name }}"), Ok(json!("properties.email")));
        assert!(value("a{{ keys }}").is_err());
    }

    #[test]
    fn missing_and_null_are_errors() {
        for template in ["{{ none }}", "{{ nothing }}", "{{ partition.other }}", "{{ key.deeper }}"] {
            let error = text(template).expect_err("no value");
            assert!(error.0.starts_with("missing_value"), "{error}");
        }
    }

    #[test]
    fn paths_are_encoded() {
        let path = |t: &str| Template::compile(t).expect("compiles").url_path(&scope());
        assert_eq!(path("/r/{{ partition.repo }}/x"), Ok("/r/octo%2Fhello%20world/x".into()));
        assert_eq!(path("/r/{{ partition.repo | path }}/x"), Ok("/r/octo/hello%20world/x".into()));
        assert!(path("/r/{{ partition.up | path }}").is_err());
        assert_eq!(path("/c/{{ key }}"), Ok("/c/7".into()));
    }

    #[test]
    fn a_host_ends_where_the_file_ends_it() {
        let names = |t: &str| {
            let template = Template::compile(t).expect("compiles");
            let found = template.in_host(&scope()).expect("filled in");
            found.into_iter().map(|(name, _)| name.to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(names("https://{{ key }}.a.example:{{ since }}/{{ until }}"), ["key", "since"]);
        assert_eq!(names("https:///{{ key }}"), ["key"], "slashes too many are none");
        assert_eq!(names("https://a.example{{ key }}"), ["key"]);
        assert_eq!(names("https://a.example?{{ key }}"), Vec::<String>::new());
        let value = Template::compile("https://{{ partition.repo | upper }}").expect("compiles");
        assert_eq!(value.in_host(&scope()), Ok(vec![("partition.repo", "OCTO/HELLO WORLD".into())]));
    }

    #[test]
    fn what_is_no_placeholder() {
        for bad in ["{{", "a {{ b", "{{ }}", "{{ a b }}", "{{ a | nope }}", "{{ a..b }}", "{{ a.[0] }}"] {
            assert_eq!(Template::compile(bad).map_err(|e| e.code), Err("bad_placeholder"), "{bad}");
        }
        let template = Template::compile("/{{ partition.repo | path }}?s={{ since }}").expect("compiles");
        assert_eq!(template.names(), ["partition.repo", "since"]);
        assert_eq!(Template::compile("a } b { c").expect("text").as_literal(), Some("a } b { c"));
    }
}
