//! Output of reading verbs: JSON lines with `--json`, else columns for people.

use super::exit::{Fail, code};
use serde_json::Value;
use std::io::{self, Write};

/// Prints a line on stdout. A reader that has gone (`| head`) ends the command quietly.
pub(crate) fn line(text: &str) -> Result<(), Fail> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush()).map_err(|error| {
        match error.kind() {
            // What a shell reports for a program that SIGPIPE ended.
            io::ErrorKind::BrokenPipe => std::process::exit(0),
            _ => Fail::new(code::FAILURE, format!("stdout: {error}")),
        }
    })
}

/// Says on stderr what is no data. Nobody is harmed if it is not heard.
#[cfg(feature = "functions")]
pub(crate) fn aside(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Prints rows in columns as wide as their widest cell; the last column is as wide as it likes.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) -> Result<(), Fail> {
    for text in columns(head, rows) {
        line(&text)?;
    }
    Ok(())
}

fn columns(head: &[&str], rows: &[Vec<String>]) -> Vec<String> {
    let head: Vec<String> = head.iter().map(|h| h.to_string()).collect();
    let all = || std::iter::once(&head).chain(rows);
    let width = |at: usize| all().filter_map(|row| row.get(at)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    all()
        .map(|row| {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
            cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        })
        .collect()
}

/// A field as text for a column; empty where there is none.
pub(crate) fn text(value: &Value, path: &[&str]) -> String {
    let found = path.iter().try_fold(value, |value, name| value.get(*name));
    match found {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_not_padded_at_the_end() {
        let rows = vec![vec!["a".into(), "long one".into()], vec!["bcd".into(), "x".into()]];
        assert_eq!(columns(&["ID", "NAME"], &rows), ["ID   NAME", "a    long one", "bcd  x"]);
    }

    #[test]
    fn text_of_fields() {
        let value = serde_json::json!({"a": {"b": 1, "c": "x", "d": null}});
        assert_eq!(text(&value, &["a", "b"]), "1");
        assert_eq!(text(&value, &["a", "c"]), "x");
        assert_eq!(text(&value, &["a", "d"]), "");
        assert_eq!(text(&value, &["q"]), "");
    }
}
