//! Partitions: the lists a stream is split in.
//!
//! The values are read once, when a listing begins, and kept with it: a listing interrupted and resumed covers the same
//! lists. Of several partitions every combination is one list.

use super::answer::{self, AnswerVerdict, items, judge};
use super::request::{Filling, base, draft, refused};
use super::source::RestSource;
use crate::definition::{Partition, PartitionValues, Request};
use crate::expr::{Expr, Vars};
use crate::http::limits::RequestPriority;
use crate::http::paginate::{self, PageToken, STALE_PAGES_MAX, Trail, loop_failure};
use crate::http::proof::{CountVerdict, Judged, Proof};
use crate::http::statements::{Facts, Statements};
use crate::mapping;
use serde_json::{Map, Value};
use std::collections::HashSet;
use std::sync::Arc;
use syncline_engine::model::{DatasetName, Timestamp, record_id};
use syncline_engine::source::{Ask, Failure, Part};

/// Most combinations of all partitions of a stream.
const COMBINATIONS_MAX: usize = 100_000;

/// The lists a request is split in: one JSON object of partition values for each; a single empty one without partitions.
pub(super) async fn combinations(
    source: &RestSource,
    ask: &Ask,
    request: &Request,
    parents_since: Option<Timestamp>,
    requests: &mut u32,
) -> Result<Vec<Value>, Failure> {
    let mut lists = vec![Map::new()];
    for name in &request.partitions {
        let values = values(source, ask, name, parents_since, requests).await?;
        if lists.len().saturating_mul(values.len()) > COMBINATIONS_MAX {
            let message = format!("the partitions of {} make more than {COMBINATIONS_MAX} lists", ask.stream);
            return Err(refused("too_many_partitions", message));
        }
        lists = lists.iter().flat_map(|list| values.iter().map(move |value| joined(list, name, value))).collect();
    }
    Ok(lists.into_iter().map(Value::Object).collect())
}

fn joined(list: &Map<String, Value>, name: &str, value: &str) -> Map<String, Value> {
    let mut list = list.clone();
    list.insert(name.to_string(), value.into());
    list
}

/// The values of one partition, each once, in order.
async fn values(
    source: &RestSource,
    ask: &Ask,
    name: &str,
    parents_since: Option<Timestamp>,
    requests: &mut u32,
) -> Result<Vec<String>, Failure> {
    let Some(partition) = source.definition().partitions.get(name) else {
        return Err(refused("unknown_partition", format!("the definition has no partition «{name}»")));
    };
    let found = match (ask.connection.partitions.get(name), &partition.values) {
        (Some(own), _) => own.clone(),
        (None, PartitionValues::Fixed(values)) => values.clone(),
        (None, PartitionValues::Metadata(path)) => from_metadata(&ask.connection.metadata, name, path)?,
        (None, PartitionValues::Stream { stream, key, only_changed }) => {
            let incremental = matches!(ask.part, Part::Incremental { .. });
            let since = parents_since.filter(|_| *only_changed && incremental);
            from_stream(source, ask, stream, key, since, partition.max).await?
        }
        (None, PartitionValues::Request { request, key }) => {
            from_request(source, ask, name, partition, request, key, requests).await?
        }
    };
    let mut known = HashSet::new();
    let values: Vec<String> = found.into_iter().filter(|value| known.insert(value.clone())).collect();
    bounded(name, values.len(), partition.max)?;
    Ok(values)
}

fn bounded(name: &str, count: usize, max: usize) -> Result<(), Failure> {
    if count <= max {
        return Ok(());
    }
    let message = format!("partition «{name}» has more than {max} values; raise max or narrow it");
    Err(refused("too_many_partitions", message))
}

fn from_metadata(metadata: &Value, name: &str, path: &str) -> Result<Vec<String>, Failure> {
    let found = path.split('.').try_fold(metadata, |value, part| value.get(part)).unwrap_or(&Value::Null);
    let one = |value: &Value| {
        record_id(value).map_err(|_| {
            let message = format!("partition «{name}»: metadata {path} holds {value}, text or numbers are wanted");
            refused("bad_partition", message)
        })
    };
    match found {
        Value::Array(values) => values.iter().map(one).collect(),
        Value::Null => {
            let message = format!("partition «{name}» comes from the connection's metadata {path}, which is not set");
            Err(refused("missing_value", message))
        }
        value => Ok(vec![one(value)?]),
    }
}

/// Adds what `key` gives for `value`; nulls name no list.
fn add(found: &mut Vec<String>, key: &Expr, value: &Value, vars: &Vars) -> Result<(), Failure> {
    let outputs = key.all(value, vars);
    for output in outputs.map_err(|e| refused("bad_expression", format!("partition key {}: {e}", key.text())))? {
        if !output.is_null() {
            found.push(record_id(&output).map_err(|e| refused("bad_partition", format!("{}: {e}", key.text())))?);
        }
    }
    Ok(())
}

async fn from_stream(
    source: &RestSource,
    ask: &Ask,
    stream: &str,
    key: &Expr,
    since: Option<Timestamp>,
    max: usize,
) -> Result<Vec<String>, Failure> {
    let parents =
        DatasetName::base(&ask.connection.environment, &source.definition().source, &ask.connection.id, stream);
    let (notes, key, vars) = (Arc::clone(source.notes()), key.clone(), mapping::vars(&ask.connection, &Value::Null));
    let name = stream.to_string();
    // The store may hold many parents: off the threads that serve requests.
    let read = tokio::task::spawn_blocking(move || {
        let (mut found, mut failed) = (Vec::new(), None);
        notes.records(&parents, since, &mut |payload| {
            let added = serde_json::from_slice(payload)
                .map_err(|e| refused("bad_partition", format!("a record of {name} cannot be read: {e}")))
                .and_then(|record| add(&mut found, &key, &record, &vars))
                .and_then(|()| bounded(&name, found.len(), max));
            failed = added.err();
            failed.is_none()
        })?;
        failed.map_or(Ok(found), Err)
    });
    read.await.map_err(|e| refused("bad_partition", format!("reading the records of {stream} ended: {e}")))?
}

async fn from_request(
    source: &RestSource,
    ask: &Ask,
    name: &str,
    partition: &Partition,
    request: &Request,
    key: &Expr,
    requests: &mut u32,
) -> Result<Vec<String>, Failure> {
    let filling = Filling::new(&ask.connection, &ask.variant);
    let base = base(&source.definition().base_url, &ask.connection, &filling)?;
    let (mut found, mut seen, mut spot) = (Vec::new(), HashSet::new(), PageToken::Start);
    let (mut trail, mut proof, mut doubts) = (Trail::default(), Proof::default(), Vec::new());
    loop {
        let mut draft = draft(request, &base, &filling)?;
        paginate::lay(&request.paginate, &spot, &mut draft)?;
        let exchange = source.exchange(&ask.connection, &draft, request.timeout, RequestPriority::Poll, None).await?;
        *requests += 1;
        let answer = &exchange.answer;
        let vars = answer::vars(&ask.connection, &Value::Null, answer);
        let (verdict, faults) = judge(source.definition(), request, answer, &exchange.budget, &vars)?;
        // A value left out would make records look gone.
        answer::readable(source.definition(), answer, &faults, &[])?;
        let (body, part) = match verdict {
            AnswerVerdict::Page(body) => (Some(body), None),
            AnswerVerdict::Part(body) => (body, Some(answer.status)),
            AnswerVerdict::Ignored => (None, None),
            AnswerVerdict::Skipped | AnswerVerdict::NotModified => return Err(unproven(name, "a page was left out")),
        };
        let before = seen.len();
        let mut page = Statements::default();
        if let Some(body) = &body {
            let items = items(request, body, &vars)?;
            for item in items.iter() {
                seen.insert(twox_hash::XxHash3_64::oneshot(item.to_string().as_bytes()));
                let belongs = request.filter.as_ref().map_or(Ok(true), |filter| filter.truthy(item, &vars));
                if belongs.map_err(|e| refused("bad_expression", format!("where: {e}")))? {
                    add(&mut found, key, item, &vars)?;
                }
                bounded(name, found.len(), partition.max)?;
            }
            let (headers, url, items) = (&answer.headers, &answer.url, items.len() as u64);
            page = Statements::read(request, &Facts { body, headers, url, items, vars: &vars })?;
        }
        page.part = part;
        let (fresh, name_of_page) = (Some((seen.len() - before) as u64), answer.url.path());
        let judged = Judged { request, spot: &spot, page: &page, fresh, name: name_of_page };
        match proof.step(&judged, &mut doubts) {
            None => break,
            Some(next) if trail.step(&next) && proof.stale < STALE_PAGES_MAX => spot = next,
            Some(_) => return Err(loop_failure(&answer.url, "the same page came again")),
        }
    }
    match (doubts.first(), proof.tally()) {
        (Some(doubt), _) => Err(unproven(name, doubt)),
        (None, CountVerdict::Wrong { total, distinct }) => {
            Err(unproven(name, &format!("the API counts {total}, {distinct} distinct items were read")))
        }
        (None, CountVerdict::Fell) => {
            Err(Failure { retry: true, ..unproven(name, "its count fell while it was read") })
        }
        (None, CountVerdict::Unstated | CountVerdict::Steady | CountVerdict::Rose) => Ok(found),
    }
}

/// A list of lists with a hole would make records look gone.
fn unproven(name: &str, why: &str) -> Failure {
    refused("bad_partition", format!("the list of the values of partition «{name}» is not proven complete: {why}"))
}
