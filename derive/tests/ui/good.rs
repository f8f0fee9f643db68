//! All that can be said of a field.
#![allow(warnings)]

#[path = "../home/model.rs"]
mod model;
#[path = "../home/views.rs"]
mod views;

use syncline_derive::Row;

use model::Timestamp;
use views::Row as _;

#[derive(Row, Clone, Debug, PartialEq)]
#[row(crate = crate)]
struct Good {
    plain: i64,
    #[row(name = "other-name", default)]
    named: Vec<(String, f64)>,
    #[row(path = "deep.er")]
    deep: Option<bool>,
    #[row(default)]
    #[row(path = "deep.text")]
    text: String,
    #[row(modified_at)]
    at: Timestamp,
    r#type: Option<String>,
}

/// Names that the library has as well are those of who writes them.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
struct Moment(String);

#[derive(Row, Clone, Debug, PartialEq)]
#[row(crate = crate)]
struct Fields {
    at: Moment,
}

fn main() {
    let fields = Fields { at: Moment("noon".to_owned()) };
    assert_eq!(Fields::project(br#"{"at":"noon"}"#, None).unwrap(), fields);

    let record = br#"{"plain":1,"other-name":[["a",1]],"deep":{"er":true},"type":"t"}"#;
    let (named, text, r#type) = (vec![("a".to_owned(), 1.0)], String::new(), Some("t".to_owned()));
    let good = Good { plain: 1, named, deep: Some(true), text, at: Timestamp(5), r#type };
    assert_eq!(Good::project(record, Some(Timestamp(5))).unwrap(), good);
}
