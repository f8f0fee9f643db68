//! Fetch: the records behind keys, one by one or in batches.
//!
//! Promises: a key is called gone only by an answer that says so. With partitions and no hint which one, a record is gone
//! only if every list says so.

use super::answer::{Verdict, items, judge};
use super::definition::{Fetch, Stream};
use super::mapping::{self, Mapped, Mapper, Seen};
use super::partitions;
use super::request::{Filling, base, draft, refused};
use super::source::RestSource;
use crate::expr::Vars;
use crate::http::Answer;
use crate::http::limits::Lane;
use serde_json::Value;
use std::collections::HashSet;
use syncline_engine::source::{Ask, Failure, Page, Part};

/// Keys taken in one call.
const KEYS_MAX: usize = 10_000;

/// Fetches the records behind `keys`.
pub(super) async fn fetch(source: &RestSource, ask: &Ask, keys: &[String]) -> Result<Page, Failure> {
    let (stream, mapper) = stream(source, ask)?;
    let Some(rule) = &stream.fetch else {
        return Err(refused("no_fetch", format!("stream {} has no fetch", stream.name)));
    };
    if keys.len() > KEYS_MAX {
        return Err(refused("too_many_keys", format!("{} keys at once; {KEYS_MAX} are allowed", keys.len())));
    }
    let mut page = Page::default();
    let lists = partitions::combinations(source, ask, &rule.request, None, &mut page.requests).await?;
    let call = Call { source, ask, rule, mapper };
    for batch in keys.chunks(rule.batch.max(1)) {
        call.batch(batch, &lists, &mut page).await?;
    }
    Ok(page)
}

fn stream<'a>(source: &'a RestSource, ask: &Ask) -> Result<(&'a Stream, &'a Mapper), Failure> {
    let mapper = source.mapper(&ask.stream);
    let mapper = mapper.ok_or_else(|| refused("unknown_stream", format!("there is no stream {}", ask.stream)))?;
    Ok((mapper.stream(), mapper))
}

struct Call<'a> {
    source: &'a RestSource,
    ask: &'a Ask,
    rule: &'a Fetch,
    mapper: &'a Mapper,
}

/// What one list said of some keys.
enum Said {
    Items(Vec<Value>, Seen),
    Nothing(Seen),
    /// Left aside by a rule: says nothing about any key.
    Unclear,
}

impl Call<'_> {
    async fn batch(&self, keys: &[String], lists: &[Value], page: &mut Page) -> Result<(), Failure> {
        let mut open: HashSet<&str> = keys.iter().map(String::as_str).collect();
        let mut last = None;
        for list in lists {
            let asked: Vec<&str> = keys.iter().map(String::as_str).filter(|key| open.contains(key)).collect();
            if asked.is_empty() {
                break;
            }
            let vars = mapping::vars(&self.ask.connection, list);
            match self.ask_for(&asked, list, &vars, page).await? {
                Said::Nothing(seen) => last = Some(seen),
                Said::Unclear => open.clear(),
                Said::Items(items, seen) => {
                    self.take(&items, seen, &vars, &mut open, page)?;
                    last = Some(seen);
                }
            }
        }
        // While a missing key is being confirmed, "not found" is the very thing asked about.
        let deletes = self.rule.not_found_deletes || self.ask.part == Part::Full;
        if let (true, Some(seen)) = (deletes, last) {
            let gone = keys.iter().filter(|key| open.contains(key.as_str()));
            page.observations.extend(gone.map(|key| self.mapper.gone(key.clone(), None, None, seen)));
        }
        Ok(())
    }

    async fn ask_for(&self, keys: &[&str], list: &Value, vars: &Vars, page: &mut Page) -> Result<Said, Failure> {
        let (definition, request) = (self.source.definition(), &self.rule.request);
        let filling = Filling::new(&self.ask.connection, &self.ask.variant)
            .with("partition", list.clone())
            .with("key", keys.first().copied().unwrap_or_default().into())
            .with("keys", keys.iter().copied().collect());
        let base = base(&definition.base_url, &self.ask.connection, &filling)?;
        let draft = draft(request, &base, &filling)?;
        let exchange = self.source.exchange(&self.ask.connection, &draft, request.timeout, Lane::Fetch, None).await?;
        page.requests += 1;
        let (answer, seen) = (&exchange.answer, seen(&exchange.answer));
        if matches!(answer.status, 404 | 410) {
            return Ok(Said::Nothing(seen));
        }
        match judge(definition, request, answer, exchange.wait, vars)? {
            Verdict::Page(body) if request.items.is_some() => {
                Ok(Said::Items(items(request, &body, vars)?.into_owned(), seen))
            }
            Verdict::Page(Value::Array(items)) if self.rule.batch > 1 => Ok(Said::Items(items, seen)),
            Verdict::Page(body) => Ok(Said::Items(vec![body], seen)),
            Verdict::Ignored => Ok(Said::Unclear),
            Verdict::Skipped | Verdict::NotModified => {
                Err(refused("no_answer", format!("the answer for {} was left out by a rule", keys.join(", "))))
            }
        }
    }

    fn take(
        &self,
        items: &[Value],
        seen: Seen,
        vars: &Vars,
        open: &mut HashSet<&str>,
        page: &mut Page,
    ) -> Result<(), Failure> {
        for item in items {
            let filter = self.rule.request.filter.as_ref().map(|filter| filter.truthy(item, vars)).transpose();
            if !filter.map_err(|e| refused("bad_expression", format!("where: {e}")))?.unwrap_or(true) {
                // It is there, but not of this stream: for the stream it is gone.
                continue;
            }
            match self.mapper.read(item, seen, vars) {
                Mapped::Taken(observation, warning) => {
                    open.remove(observation.id.as_str());
                    page.observations.push(observation);
                    page.warnings.extend(warning);
                }
                Mapped::Refused(quarantined) => {
                    match &quarantined.id {
                        Some(id) => _ = open.remove(id.as_str()),
                        // It could be any of those asked for, so none of them may be called gone.
                        None => open.clear(),
                    }
                    page.quarantined.push(quarantined);
                }
            }
        }
        Ok(())
    }
}

fn seen(answer: &Answer) -> Seen {
    Seen { observed_at: answer.sent_at, answered_at: answer.date().unwrap_or(answer.sent_at) }
}
