//! `GET /connections` of a whole installation: each owner knows its own, here they become one list, the newest first.
//!
//! Promises: a page holds what it would hold with one process; a partition that cannot be asked is a refusal that says so,
//! never a shorter list.

use super::super::connections::{LIMIT, LIMIT_MAX};
use super::{Door, Whole};
use axum::Json;
use axum::http::Uri;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// What the query says of paging, and the rest of it.
struct Asked {
    path: String,
    rest: Vec<(String, String)>,
    limit: u64,
    page: u64,
}

/// Answers for all partitions.
pub(super) async fn answer(door: &Door, whole: &Whole) -> Result<Response, Box<Response>> {
    let Some(asked) = Asked::read(&whole.head.uri) else {
        // Its owner has the right refusal.
        return Ok(door.ask_all(whole).await);
    };
    let mut said = Vec::new();
    for partition in 0..door.node.spread().count {
        for page in 0.. {
            let mut head = whole.head.clone();
            head.uri = asked.uri(page);
            let told = door.told(partition, &whole.headed(head)).await;
            let told = told.map_err(|why| Box::new(why.into_response()))?;
            let Some(mut value) = told.json() else { return Err(Box::new(told.into_response())) };
            let listed = value["connections"].as_array_mut().map(std::mem::take).unwrap_or_default();
            let full = listed.len() as u64 >= LIMIT_MAX;
            said.extend(listed);
            if !full {
                break;
            }
        }
    }
    Ok(Json(json!({"connections": asked.page_of(said)})).into_response())
}

impl Asked {
    /// Nothing where the owner would refuse.
    fn read(uri: &Uri) -> Option<Asked> {
        let mut asked = Asked { path: uri.path().to_owned(), rest: Vec::new(), limit: LIMIT, page: 0 };
        for (name, value) in url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()).into_owned() {
            match name.as_str() {
                "limit" => asked.limit = value.parse().ok().filter(|n| (1..=LIMIT_MAX).contains(n))?,
                "page" => asked.page = u64::from(value.parse::<u32>().ok()?),
                _ => asked.rest.push((name, value)),
            }
        }
        Some(asked)
    }

    /// Where an owner is asked for its own.
    fn uri(&self, page: u64) -> Uri {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(&self.rest);
        query.append_pair("limit", &LIMIT_MAX.to_string()).append_pair("page", &page.to_string());
        format!("{}?{}", self.path, query.finish()).parse().unwrap_or_default()
    }

    /// The newest first; among those of one time the order in which they were met.
    fn page_of(&self, mut said: Vec<Value>) -> Vec<Value> {
        said.sort_by(|a, b| b["created"].as_str().cmp(&a["created"].as_str()));
        let size = usize::try_from(self.limit).unwrap_or(usize::MAX);
        let from = usize::try_from(self.page).unwrap_or(usize::MAX).saturating_mul(size);
        said.into_iter().skip(from).take(size).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(uri: &'static str) -> Option<Asked> {
        Asked::read(&Uri::from_static(uri))
    }

    #[test]
    fn owners_are_asked_for_all_of_theirs() {
        let asked = asked("/connections?search=a%26b&limit=2&page=1&tags%5Bteam%5D=red").expect("good");
        let uri = asked.uri(3).to_string();
        assert_eq!(uri, "/connections?search=a%26b&tags%5Bteam%5D=red&limit=2000&page=3");
    }

    #[test]
    fn a_page_is_cut_from_what_all_owners_say() {
        let created = |day: u8| json!({"created": format!("2026-01-0{day}T00:00:00.000000+00:00")});
        let said = vec![created(4), created(1), created(5), created(2), created(3)];
        let page = |uri| asked(uri).expect("good").page_of(said.clone());
        assert_eq!(page("/connections?limit=2"), [created(5), created(4)]);
        assert_eq!(page("/connections?limit=2&page=2"), [created(1)]);
        assert_eq!(page("/connections").len(), 5);
    }

    #[test]
    fn what_an_owner_would_refuse_is_left_to_it() {
        for wrong in ["/connections?limit=0", "/connections?limit=2001", "/connections?page=x"] {
            assert!(asked(wrong).is_none(), "{wrong}");
        }
    }
}
