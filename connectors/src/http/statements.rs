//! What one page states about the list it is part of: how long the list is, where it ends, whether more follows.
//!
//! Promises: every expression is read with the variables of the answer; a value that means neither yes nor no is an error of
//! its page and never taken for yes; a count that cannot be read speaks against the list, it is not left out in silence.

use super::HeaderMap;
use super::client::{failure, shown};
use super::paginate::{PageToken, absolute, link_header};
use crate::definition::{Paginate, Request};
use crate::expr::{Expr, Vars};
use reqwest::Url;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use syncline_engine::source::Failure;

/// Longest part of a value that is shown.
const SHOWN_CHARS_MAX: usize = 80;

/// A page as it came, before anything is made of it.
pub struct Facts<'a> {
    /// Its body.
    pub body: &'a Value,
    /// Its headers.
    pub headers: &'a HeaderMap,
    /// The URL that answered.
    pub url: &'a Url,
    /// Items on it, before any are left out.
    pub items: u64,
    /// Variables of expressions.
    pub vars: &'a Vars,
}

/// What a page states.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Statements {
    /// Items on it.
    pub items: u64,
    /// Items of the whole list.
    pub total: Option<u64>,
    /// Number of the last page.
    pub last: Option<u64>,
    /// Whether more follows.
    pub more: Option<bool>,
    /// Where the list goes on, by link or token.
    pub next: Option<PageToken>,
    /// A `Link` header names a next page, though links are not how this list goes on.
    pub link: bool,
    /// The status, where it is not that of a whole answer.
    pub part: Option<u16>,
    /// Statements that were made and could not be read.
    pub unclear: Vec<String>,
}

impl Statements {
    /// Reads them off a page.
    pub fn read(request: &Request, facts: &Facts) -> Result<Statements, Failure> {
        let mut page = Statements { items: facts.items, ..Statements::default() };
        page.total = page.count("total", request.total.as_ref(), facts)?;
        match &request.paginate {
            Paginate::None => {}
            Paginate::LinkHeader { rel } => {
                let link = link_header(facts.headers, rel, facts.url)?;
                page.next = link.map(|link| absolute(&link, facts.url)).transpose()?;
            }
            Paginate::LinkBody(link) => page.next = linked(link, facts)?,
            Paginate::Cursor { cursor, more, .. } => {
                page.more = says_more(more.as_ref(), facts)?;
                page.next = token(cursor, page.more, facts)?.map(PageToken::Token);
            }
            Paginate::Offset { more, .. } => page.more = says_more(more.as_ref(), facts)?,
            Paginate::Page { more, last, .. } => {
                page.more = says_more(more.as_ref(), facts)?;
                page.last = page.count("last", last.as_ref(), facts)?;
            }
        }
        // One that cannot be read still says that there is a next page.
        let linked = || link_header(facts.headers, "next", facts.url).map_or(true, |link| link.is_some());
        page.link = !matches!(request.paginate, Paginate::LinkHeader { .. }) && linked();
        Ok(page)
    }

    fn count(&mut self, name: &str, expression: Option<&Expr>, facts: &Facts) -> Result<Option<u64>, Failure> {
        let Some(expression) = expression else { return Ok(None) };
        let value = evaluate(expression, facts)?;
        let absent = value.is_null() || value.as_str().is_some_and(|text| text.trim().is_empty());
        let number = whole_number(&value);
        if number.is_none() && !absent {
            let (text, value, page) = (expression.text(), short(&value), shown(facts.url));
            self.unclear.push(format!("bad_{name}: {name} {text} gives {value} on {page}, which is no whole number"));
        }
        Ok(number)
    }
}

/// A whole number, also when it is written as text or with `.0`.
pub fn whole_number(value: &Value) -> Option<u64> {
    match value {
        Value::Number(number) => number
            .as_u64()
            .or_else(|| number.as_f64().filter(|f| f.fract() == 0.0 && (0.0..9e15).contains(f)).map(|f| f as u64)),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

/// Yes or no in all the forms APIs give them: `true`, `1`, `"true"`, `"1"`, and `false`, `0`, `"false"`, `"0"`. Null and empty
/// text say nothing. Anything else is an error: taken for either it would be a guess.
fn truth(value: &Value) -> Result<Option<bool>, ()> {
    let word = match value {
        Value::Null => return Ok(None),
        Value::Bool(yes) => return Ok(Some(*yes)),
        Value::Number(_) => whole_number(value).ok_or(())?.to_string(),
        Value::String(text) => text.trim().to_ascii_lowercase(),
        Value::Array(_) | Value::Object(_) => return Err(()),
    };
    match word.as_str() {
        "" => Ok(None),
        "true" | "1" => Ok(Some(true)),
        "false" | "0" => Ok(Some(false)),
        _ => Err(()),
    }
}

fn says_more(more: Option<&Expr>, facts: &Facts) -> Result<Option<bool>, Failure> {
    let Some(more) = more else { return Ok(None) };
    let value = evaluate(more, facts)?;
    truth(&value).map_err(|()| {
        let (text, value, page) = (more.text(), short(&value), shown(facts.url));
        let advice = "true, false, 1, 0 or nothing is wanted: compare in the expression, as in `.left > 0`";
        failure("bad_more", format!("more {text} gives {value} on the answer of {page}; {advice}"), false)
    })
}

fn linked(link: &Expr, facts: &Facts) -> Result<Option<PageToken>, Failure> {
    match evaluate(link, facts)? {
        Value::String(text) if !text.trim().is_empty() => absolute(text.trim(), facts.url).map(Some),
        Value::Null | Value::String(_) | Value::Bool(false) => Ok(None),
        other => {
            let message = format!("link {} gives {}, which is no link", link.text(), short(&other));
            Err(failure("bad_link", message, false))
        }
    }
}

/// The token of the next page. An answer that says that more follows, but not where, is cut off, not the last one.
fn token(cursor: &Expr, more: Option<bool>, facts: &Facts) -> Result<Option<Value>, Failure> {
    let is_token = |value: &Value| !matches!(value, Value::Null | Value::Bool(false)) && value.as_str() != Some("");
    let token = Some(evaluate(cursor, facts)?).filter(is_token);
    if token.is_none() && more == Some(true) {
        let (page, cursor) = (shown(facts.url), cursor.text());
        let message = format!(
            "the answer of {page} says that more follows, but {cursor} gives no token; check paginate in the definition"
        );
        return Err(failure("bad_cursor", message, false));
    }
    Ok(token)
}

fn evaluate(expression: &Expr, facts: &Facts) -> Result<Value, Failure> {
    expression.first(facts.body, facts.vars).map_err(|error| {
        let (text, page) = (expression.text(), shown(facts.url));
        failure("bad_expression", format!("{text} on the answer of {page}: {error}"), false)
    })
}

fn short(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn whole_numbers_in_all_their_clothes() {
        let read = |text: &str| whole_number(&serde_json::from_str(text).expect("JSON"));
        assert_eq!((read("7"), read("7.0"), read("\"7\""), read("\" 7 \"")), (Some(7), Some(7), Some(7), Some(7)));
        assert_eq!((read("7.5"), read("-1"), read("null")), (None, None, None));
    }

    #[test]
    fn yes_and_no_in_all_their_clothes() {
        for yes in [json!(true), json!(1), json!(1.0), json!("true"), json!("True"), json!("1")] {
            assert_eq!(truth(&yes), Ok(Some(true)), "{yes}");
        }
        for no in [json!(false), json!(0), json!(0.0), json!("false"), json!("FALSE"), json!("0"), json!(" 0 ")] {
            assert_eq!(truth(&no), Ok(Some(false)), "{no}");
        }
        for nothing in [json!(null), json!(""), json!(" ")] {
            assert_eq!(truth(&nothing), Ok(None), "{nothing}");
        }
        for neither in [json!(2), json!(-1), json!(0.5), json!("maybe"), json!("no"), json!([]), json!([1]), json!({})]
        {
            assert_eq!(truth(&neither), Err(()), "{neither}");
        }
    }
}
