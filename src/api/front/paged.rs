//! Lists of a whole installation that are read page by page (`/v1/quarantine`, `/v1/deliveries`), and calls that change what
//! stands on them: each owner has its own part.
//!
//! Promises: pages hold what they would hold with one process, each entry on exactly one of them; counts are those of all
//! owners; a partition that cannot be asked is a refusal.

use super::super::{deliveries, quarantine};
use super::{Door, Whole};
use axum::Json;
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value};

/// A list that has pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PagedList {
    /// `/v1/quarantine`.
    Quarantine,
    /// `/v1/deliveries`.
    Deliveries,
}

/// Where an entry stands: each part by length, then by text, as the store orders them.
type PageOrder = Vec<(usize, String)>;

impl PagedList {
    /// The list at a path.
    pub(super) fn at(path: &str) -> Option<PagedList> {
        match path {
            "/v1/quarantine" => Some(PagedList::Quarantine),
            "/v1/deliveries" => Some(PagedList::Deliveries),
            _ => None,
        }
    }

    /// Fields of an answer that hold entries.
    fn fields(self) -> &'static [&'static str] {
        match self {
            PagedList::Quarantine => &["entries", "dropped"],
            PagedList::Deliveries => &["deliveries"],
        }
    }

    fn order(self, id: &str) -> PageOrder {
        let part = |text: &str| (text.len(), text.to_owned());
        match self {
            PagedList::Quarantine => quarantine::place_of(id).iter().flat_map(|row| row.parts()).map(part).collect(),
            PagedList::Deliveries => vec![part(id)],
        }
    }

    /// Entries of a page, as the query says; what is no number is left to the owners to refuse.
    fn limit(self, query: &str) -> usize {
        let said = url::form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "limit");
        let (most, usual) = match self {
            PagedList::Quarantine => (quarantine::LIMIT_MAX, quarantine::LIMIT),
            PagedList::Deliveries => (deliveries::LIMIT_MAX, deliveries::LIMIT),
        };
        let limit = said.and_then(|(_, text)| text.parse::<u64>().ok()).unwrap_or(usual).min(most);
        usize::try_from(limit).unwrap_or(usize::MAX)
    }

    /// What owners answered, as one page.
    fn page(self, answers: Vec<Value>, limit: usize) -> Value {
        let mut more = answers.iter().any(|answer| !answer["cursor"].is_null());
        let mut entries: Vec<(PageOrder, &'static str, Value)> = Vec::new();
        for mut answer in answers {
            for field in self.fields() {
                let listed = answer[field].as_array_mut().map(std::mem::take).unwrap_or_default();
                let order = |entry: &Value| self.order(entry["id"].as_str().unwrap_or_default());
                entries.extend(listed.into_iter().map(|entry| (order(&entry), *field, entry)));
            }
        }
        entries.sort_by(|(a, _, _), (b, _, _)| a.cmp(b));
        more |= entries.len() > limit;
        entries.truncate(limit);
        let cursor = entries.last().filter(|_| more).map_or(Value::Null, |(_, _, last)| last["id"].clone());
        let mut page: Map<String, Value> =
            self.fields().iter().map(|field| (field.to_string(), Value::Array(Vec::new()))).collect();
        for (_, field, entry) in entries {
            if let Some(Value::Array(list)) = page.get_mut(field) {
                list.push(entry);
            }
        }
        page.insert("cursor".to_owned(), cursor);
        Value::Object(page)
    }
}

/// A page of a list.
pub(super) async fn list(door: &Door, list: PagedList, whole: &Whole) -> Result<Response, Box<Response>> {
    let limit = list.limit(whole.head.uri.query().unwrap_or_default());
    Ok(Json(list.page(asked(door, whole).await?, limit)).into_response())
}

/// A call that each owner makes for its own.
pub(super) async fn change(door: &Door, whole: &Whole) -> Result<Response, Box<Response>> {
    let sum = asked(door, whole).await?.into_iter().reduce(add).unwrap_or_default();
    Ok(Json(sum).into_response())
}

async fn asked(door: &Door, whole: &Whole) -> Result<Vec<Value>, Box<Response>> {
    let mut answers = Vec::new();
    for partition in 0..door.node.spread().count {
        let told = door.told(partition, whole).await.map_err(|why| Box::new(why.into_response()))?;
        match told.json() {
            Some(answer) => answers.push(answer),
            None => return Err(Box::new(told.into_response())),
        }
    }
    Ok(answers)
}

/// Counts of two owners together: numbers are added, lists joined, and `more` is true if one has more.
fn add(all: Value, one: Value) -> Value {
    match (all, one) {
        (Value::Object(mut all), Value::Object(one)) => {
            for (name, value) in one {
                let sum = all.remove(&name).map_or(value.clone(), |known| add(known, value));
                all.insert(name, sum);
            }
            Value::Object(all)
        }
        (Value::Array(all), Value::Array(one)) => Value::Array(all.into_iter().chain(one).collect()),
        (Value::Bool(all), Value::Bool(one)) => Value::Bool(all || one),
        (Value::Number(all), Value::Number(one)) => {
            Value::from(all.as_u64().unwrap_or(0).saturating_add(one.as_u64().unwrap_or(0)))
        }
        (all, _) => all,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn owner(ids: &[&str], cursor: Value) -> Value {
        json!({"deliveries": ids.iter().map(|id| json!({"id": id})).collect::<Vec<_>>(), "cursor": cursor})
    }

    #[test]
    fn a_page_is_cut_from_what_all_owners_say() {
        let answers = vec![owner(&["msg_1", "msg_4"], json!("msg_4")), owner(&["msg_2", "msg_3"], Value::Null)];
        let page = PagedList::Deliveries.page(answers, 3);
        assert_eq!(page, owner(&["msg_1", "msg_2", "msg_3"], json!("msg_3")), "msg_4 comes on the next page");
        let page = PagedList::Deliveries.page(vec![owner(&["msg_1"], Value::Null), owner(&[], Value::Null)], 3);
        assert_eq!(page, owner(&["msg_1"], Value::Null));
    }

    #[test]
    fn counts_are_added() {
        let sum =
            add(json!({"taken": 2, "more": false, "listed": [1]}), json!({"taken": 3, "more": true, "listed": [2]}));
        assert_eq!(sum, json!({"taken": 5, "more": true, "listed": [1, 2]}));
    }

    #[test]
    fn limits_are_those_of_one_process() {
        assert_eq!([PagedList::Quarantine.limit(""), PagedList::Deliveries.limit("a=b&limit=7")], [100, 7]);
        assert_eq!(PagedList::Deliveries.limit("limit=9999"), 1_000);
    }
}
