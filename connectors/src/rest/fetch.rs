//! Fetch: the records behind keys, one by one or in batches.
//!
//! Promises: a key is called gone only by a whole answer that says so. With partitions and no hint which one, a record is gone
//! only if every list says so.

use super::answer::{self, AnswerVerdict, items, judge};
use super::partitions;
use super::request::{Filling, base, draft, refused};
use super::source::RestSource;
use crate::definition::{Fetch, Stream};
use crate::expr::Vars;
use crate::http::Answer;
use crate::http::body::Faults;
use crate::http::limits::RequestPriority;
use crate::http::statements::{Facts, Statements};
use crate::mapping::{Mapped, Mapper, SeenAt};
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
    let call = FetchRequest { source, ask, rule, mapper };
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

struct FetchRequest<'a> {
    source: &'a RestSource,
    ask: &'a Ask,
    rule: &'a Fetch,
    mapper: &'a Mapper,
}

/// What one list said of some keys.
enum FetchAnswer {
    Items(Vec<Value>, SeenAt),
    /// Some items, of an answer that was not all of it: keys that are not there may be in the rest.
    Part(Vec<Value>, SeenAt),
    Nothing(SeenAt),
    /// Left aside by a rule: says nothing about any key.
    Unclear,
}

impl FetchRequest<'_> {
    async fn batch(&self, keys: &[String], lists: &[Value], page: &mut Page) -> Result<(), Failure> {
        let mut open: HashSet<&str> = keys.iter().map(String::as_str).collect();
        let mut last = None;
        for list in lists {
            let asked: Vec<&str> = keys.iter().map(String::as_str).filter(|key| open.contains(key)).collect();
            if asked.is_empty() {
                break;
            }
            let (said, faults, vars) = self.ask_for(&asked, list, page).await?;
            match said {
                FetchAnswer::Nothing(seen) => last = Some(seen),
                FetchAnswer::Unclear => open.clear(),
                FetchAnswer::Part(items, seen) => {
                    self.take(&items, &faults, seen, &vars, &mut open, page)?;
                    open.clear();
                }
                FetchAnswer::Items(items, seen) => {
                    self.take(&items, &faults, seen, &vars, &mut open, page)?;
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

    async fn ask_for(
        &self,
        keys: &[&str],
        list: &Value,
        page: &mut Page,
    ) -> Result<(FetchAnswer, Faults, Vars), Failure> {
        let (definition, request) = (self.source.definition(), &self.rule.request);
        let filling = Filling::new(&self.ask.connection, &self.ask.variant)
            .with("partition", list.clone())
            .with("key", keys.first().copied().unwrap_or_default().into())
            .with("keys", keys.iter().copied().collect());
        let base = base(&definition.base_url, &self.ask.connection, &filling)?;
        let draft = draft(request, &base, &filling)?;
        let exchange =
            self.source.exchange(&self.ask.connection, &draft, request.timeout, RequestPriority::Fetch, None).await?;
        page.requests += 1;
        let (answer, seen) = (&exchange.answer, seen(&exchange.answer));
        let vars = answer::vars(&self.ask.connection, list, answer);
        if matches!(answer.status, 404 | 410) {
            return Ok((FetchAnswer::Nothing(seen), Faults::default(), vars));
        }
        let (verdict, faults) = judge(definition, request, answer, &exchange.budget, &vars)?;
        let said = match verdict {
            AnswerVerdict::Page(body) => {
                let items = self.items(&body, &vars)?;
                answer::readable(definition, answer, &faults, &items)?;
                if self.is_whole(&body, answer, items.len(), &vars)? {
                    FetchAnswer::Items(items, seen)
                } else {
                    FetchAnswer::Part(items, seen)
                }
            }
            AnswerVerdict::Part(Some(body)) => {
                let items = self.items(&body, &vars)?;
                answer::readable(definition, answer, &faults, &items)?;
                FetchAnswer::Part(items, seen)
            }
            AnswerVerdict::Part(None) | AnswerVerdict::Ignored => FetchAnswer::Unclear,
            AnswerVerdict::Skipped | AnswerVerdict::NotModified => {
                return Err(refused("no_answer", format!("the answer for {} was left out by a rule", keys.join(", "))));
            }
        };
        Ok((said, faults, vars))
    }

    fn items(&self, body: &Value, vars: &Vars) -> Result<Vec<Value>, Failure> {
        match body {
            _ if self.rule.request.items.is_some() => Ok(items(&self.rule.request, body, vars)?.into_owned()),
            Value::Array(items) if self.rule.batch > 1 => Ok(items.clone()),
            body => Ok(vec![body.clone()]),
        }
    }

    /// Whether nothing the answer states says that there is more than it brought.
    fn is_whole(&self, body: &Value, answer: &Answer, items: usize, vars: &Vars) -> Result<bool, Failure> {
        let (headers, url, items) = (&answer.headers, &answer.url, items as u64);
        let page = Statements::read(&self.rule.request, &Facts { body, headers, url, items, vars })?;
        Ok(!page.link && page.unclear.is_empty() && page.total.is_none_or(|total| total <= items))
    }

    fn take(
        &self,
        items: &[Value],
        faults: &Faults,
        seen: SeenAt,
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
            let mapped = match faults.within(item) {
                Some(why) => Mapped::Refused(self.mapper.unreadable(item, why, vars)),
                None => self.mapper.read(item, seen, vars),
            };
            match mapped {
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

fn seen(answer: &Answer) -> SeenAt {
    SeenAt { observed_at: answer.sent_at, answered_at: answer.date().unwrap_or(answer.sent_at) }
}
