//! From notices of the engine to owed deliveries, in the form Nango's receivers know.
//!
//! Bodies are compact JSON with keys sorted at every level, so that a receiver that parses and serialises them again gets the
//! same bytes.

use super::{first_of, override_name};
use crate::config::Endpoint;
use crate::engine::model::{Cursor, CursorKey, DatasetId, Timestamp};
use crate::engine::sink::{Announce, Notice, Owed};
use crate::registry::connections::Connections;
use crate::registry::definitions::Definitions;
use crate::registry::scope::records_scope;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Notices of webhook-made changes cover at most about this span before their commit time.
const WEBHOOK_SPAN: Duration = Duration::from_secs(60);

/// Turns notices into owed deliveries: one per endpoint, or one to the connection's own receiver.
pub struct Announcer {
    endpoints: BTreeMap<String, Endpoint>,
    definitions: Definitions,
    /// What exists only once the engine is open.
    late: OnceLock<Late>,
}

struct Late {
    cursors: CursorKey,
    connections: Arc<Connections>,
}

impl Announcer {
    /// For these endpoints. Call [`attach`](Announcer::attach) once the engine is open.
    pub fn new(endpoints: &BTreeMap<String, Endpoint>, definitions: &Definitions) -> Self {
        Announcer { endpoints: endpoints.clone(), definitions: definitions.clone(), late: OnceLock::new() }
    }

    /// The name of the sync that writes a model.
    fn sync(&self, source: &str, model: &str) -> Option<String> {
        let definition = self.definitions.get(source)?;
        let stream = || definition.stream(model).map(|stream| stream.sync.clone());
        // A model of a function is a stream as well: the name of its function counts.
        definition.writer(model).map(|function| function.name.clone()).or_else(stream)
    }

    /// Gives it what exists only once the engine is open; until then bodies bear no cursor and overrides are not known.
    pub fn attach(&self, cursors: CursorKey, connections: Arc<Connections>) {
        // A second call would bring the same: the first one stands.
        let _ = self.late.set(Late { cursors, connections });
    }

    fn overridden(&self, notice: &Notice) -> bool {
        let name = &notice.dataset;
        self.late
            .get()
            .and_then(|late| late.connections.get(&name.environment, &name.source, &name.connection))
            .is_some_and(|account| account.webhook_url_override.is_some())
    }

    fn cursor(&self, notice: &Notice) -> Option<String> {
        let place = Cursor { position: notice.from, dataset: DatasetId(0) };
        self.late.get().map(|late| late.cursors.encode(&records_scope(&notice.dataset), place))
    }

    fn body(&self, notice: &Notice, sequence: u64) -> Value {
        let name = &notice.dataset;
        let ended = notice.ended.as_ref();
        let sync =
            ended.map(|e| e.sync.clone()).filter(|s| !s.is_empty()).or_else(|| self.sync(&name.source, &name.model));
        let mut body = Map::new();
        body.insert("environment".into(), name.environment.as_ref().into());
        body.insert("from".into(), "nango".into());
        body.insert("type".into(), "sync".into());
        body.insert("connectionId".into(), name.connection.as_ref().into());
        body.insert("providerConfigKey".into(), name.source.as_ref().into());
        body.insert("syncName".into(), sync.unwrap_or_else(|| name.model.to_string()).into());
        body.insert("syncVariant".into(), name.variant.as_ref().into());
        body.insert("model".into(), name.model.as_ref().into());
        body.insert("syncType".into(), ended.map_or("WEBHOOK", |e| e.kind.as_str()).into());
        body.insert("sequence".into(), sequence.into());
        if let Some(cursor) = self.cursor(notice) {
            body.insert("cursor".into(), cursor.into());
        }
        outcome(&mut body, notice);
        sorted(Value::Object(body))
    }
}

/// The fields that differ between success and failure.
fn outcome(body: &mut Map<String, Value>, notice: &Notice) {
    let ended = notice.ended.as_ref();
    let started = ended.and_then(|e| e.started_at).unwrap_or_else(|| begun(notice));
    let failure = ended.and_then(|e| e.error.as_ref());
    body.insert("success".into(), failure.is_none().into());
    if let Some((kind, description)) = failure {
        body.insert("error".into(), json!({"type": kind, "description": description}));
        body.insert("startedAt".into(), started.to_string().into());
        body.insert("failedAt".into(), notice.at.to_string().into());
    }
    // What a run changed before it failed stands, and is told all the same.
    if failure.is_none() || notice.counts.changes() > 0 {
        let counts = &notice.counts;
        let results = json!({"added": counts.added, "updated": counts.updated, "deleted": counts.deleted});
        body.insert("responseResults".into(), results);
        body.insert("modifiedAfter".into(), started.to_string().into());
        body.insert("queryTimeStamp".into(), started.to_string().into());
    }
}

fn begun(notice: &Notice) -> Timestamp {
    notice.at.minus(WEBHOOK_SPAN)
}

impl Announce for Announcer {
    fn announce(&self, notice: &Notice, sequence: &mut dyn FnMut(&str) -> u64) -> Vec<Owed> {
        let changes = notice.counts.changes() > 0;
        let failed = notice.ended.as_ref().is_some_and(|e| e.error.is_some());
        let name = &notice.dataset;
        let wanted = |endpoint: &Endpoint| {
            let heard = changes
                || (failed && endpoint.on_sync_error)
                || (!failed && notice.ended.is_some() && endpoint.sync_always);
            heard && endpoint.environment == *name.environment
        };
        let mut receivers: Vec<String> =
            self.endpoints.iter().filter(|(_, e)| wanted(e)).map(|(n, _)| n.clone()).collect();
        if self.overridden(notice) {
            // Without an endpoint in its environment there is nothing to sign with.
            let first = first_of(&self.endpoints, &name.environment).filter(|e| wanted(e));
            receivers =
                first.iter().map(|_| override_name(&name.environment, &name.source, &name.connection)).collect();
        }
        let owed = receivers.into_iter().map(|endpoint| {
            let lane = format!("{endpoint}|{}/{}/{}", name.environment, name.source, name.connection);
            let body = self.body(notice, sequence(&lane)).to_string().into_bytes();
            Owed { endpoint, lane, body }
        });
        owed.collect()
    }
}

fn sorted(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let ordered: BTreeMap<String, Value> = map.into_iter().map(|(k, v)| (k, sorted(v))).collect();
            Value::Object(ordered.into_iter().collect())
        }
        Value::Array(list) => Value::Array(list.into_iter().map(sorted).collect()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::model::{Cause, Counts, DatasetName, Position};
    use crate::engine::sink::RunEnd;

    fn endpoint() -> Endpoint {
        Endpoint {
            environment: "default".into(),
            url: "https://example.com/hook".into(),
            secrets: vec!["s".into()],
            sync_always: false,
            on_sync_error: true,
            schedule: Vec::new(),
            legacy_signature: false,
        }
    }

    fn announcer(endpoints: &[(&str, Endpoint)]) -> Announcer {
        let endpoints = endpoints.iter().map(|(n, e)| (n.to_string(), e.clone())).collect();
        Announcer::new(&endpoints, &Definitions::default())
    }

    fn notice(added: u64, ended: Option<RunEnd>) -> Notice {
        Notice {
            dataset: DatasetName::base("default", "github", "acme", "Issue"),
            cause: Cause::run(1),
            ended,
            counts: Counts { added, ..Counts::default() },
            from: Position(0),
            to: Position(9),
            at: Timestamp::from_seconds(1_000),
        }
    }

    fn run(error: Option<(&str, &str)>) -> Option<RunEnd> {
        Some(RunEnd {
            sync: "issues".into(),
            kind: "INCREMENTAL".into(),
            started_at: Some(Timestamp::from_seconds(900)),
            error: error.map(|(a, b)| (a.into(), b.into())),
        })
    }

    fn owed(announcer: &Announcer, notice: &Notice) -> Vec<Owed> {
        let mut n = 0;
        announcer.announce(notice, &mut |_| {
            n += 1;
            n
        })
    }

    #[test]
    fn success_body_is_sorted_and_complete() {
        let all = owed(&announcer(&[("a", endpoint())]), &notice(3, run(None)));
        assert_eq!(all.len(), 1);
        assert_eq!(all[0].lane, "a|default/github/acme");
        let expected = r#"{"connectionId":"acme","environment":"default","from":"nango","model":"Issue","modifiedAfter":"1970-01-01T00:15:00.000000Z","providerConfigKey":"github","queryTimeStamp":"1970-01-01T00:15:00.000000Z","responseResults":{"added":3,"deleted":0,"updated":0},"sequence":1,"success":true,"syncName":"issues","syncType":"INCREMENTAL","syncVariant":"base","type":"sync"}"#;
        assert_eq!(String::from_utf8_lossy(&all[0].body), expected);
    }

    #[test]
    fn an_endpoint_is_told_of_its_own_environment_alone() {
        let theirs = Endpoint { environment: "prod".into(), ..endpoint() };
        let announcer = announcer(&[("a", endpoint()), ("b", theirs)]);
        let names = |notice: &Notice| owed(&announcer, notice).into_iter().map(|o| o.endpoint).collect::<Vec<_>>();
        let mut notice = notice(1, run(None));
        assert_eq!(names(&notice), ["a"]);
        notice.dataset = DatasetName::base("prod", "github", "acme", "Issue");
        assert_eq!(names(&notice), ["b"]);
        let body: Value = serde_json::from_slice(&owed(&announcer, &notice)[0].body).expect("json");
        assert_eq!(body["environment"], json!("prod"));
        notice.dataset = DatasetName::base("test", "github", "acme", "Issue");
        assert_eq!(names(&notice), Vec::<String>::new());
    }

    #[test]
    fn failures_and_empty_runs() {
        let failed = notice(0, run(Some(("http_status", "500"))));
        let body: Value =
            serde_json::from_slice(&owed(&announcer(&[("a", endpoint())]), &failed)[0].body).expect("json");
        assert_eq!(body["success"], json!(false));
        assert_eq!(body["error"], json!({"type": "http_status", "description": "500"}));
        assert_eq!(body.get("responseResults"), None);
        let deaf = Endpoint { on_sync_error: false, ..endpoint() };
        assert!(owed(&announcer(&[("a", deaf.clone())]), &failed).is_empty());
        let partly = notice(2, run(Some(("http_status", "500"))));
        let body: Value = serde_json::from_slice(&owed(&announcer(&[("a", deaf)]), &partly)[0].body).expect("json");
        assert_eq!(body["responseResults"]["added"].to_string(), "2");
        assert!(owed(&announcer(&[("a", endpoint())]), &notice(0, run(None))).is_empty());
        let always = Endpoint { sync_always: true, ..endpoint() };
        assert_eq!(owed(&announcer(&[("a", always), ("b", endpoint())]), &notice(0, run(None))).len(), 1);
    }

    #[test]
    fn webhook_made_changes() {
        let all = owed(&announcer(&[("a", endpoint()), ("b", endpoint())]), &notice(1, None));
        assert_eq!(all.len(), 2);
        let body: Value = serde_json::from_slice(&all[0].body).expect("json");
        assert_eq!(body["syncType"], json!("WEBHOOK"));
        assert_eq!(body["syncName"], json!("Issue"));
    }
}
