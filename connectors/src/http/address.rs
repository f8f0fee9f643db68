//! Addresses with placeholders. Credentials go there, so no value may end a host before the definition does.

use super::client::failure;
use crate::expr::{EvalError, Scope, Template};
use reqwest::Url;
use syncline_engine::source::Failure;

/// The URL that a template is with the values of `scope`, which are percent-encoded; `what` is its name in failures.
pub fn address(template: &Template, scope: &Scope, what: &str) -> Result<Url, Failure> {
    fits_a_host(template, scope, what)?;
    let text = template.url_path(scope).map_err(|error| unfilled(what, &error))?;
    Url::parse(&text).map_err(|error| failure("bad_url", format!("{what} «{text}» is no URL: {error}"), false))
}

/// Refuses values in the host of a URL that could be more than a part of one.
pub fn fits_a_host(template: &Template, scope: &Scope, what: &str) -> Result<(), Failure> {
    let in_host = template.in_host(scope).map_err(|error| unfilled(what, &error))?;
    for (name, value) in in_host {
        if value.is_empty() || !value.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-')) {
            let message = format!(
                "{what}: `{name}` stands in the host, where only letters, digits, `.` and `-` are taken, but it is \
                 «{value}»; correct it on the connection"
            );
            return Err(failure("bad_host", message, false));
        }
    }
    Ok(())
}

fn unfilled(what: &str, error: &EvalError) -> Failure {
    failure("missing_value", format!("{what}: {error}"), false)
}
