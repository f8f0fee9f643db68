//! `functions.validate`: whole records that code saves, held against the schemas of their models. Patches are not: what is absent in
//! one may be there already.

use crate::definition::{Definition, FunctionSync, Validation};
use crate::mapping::{compile, fault};
use jsonschema::Validator;
use std::collections::BTreeMap;
use syncline_engine::source::Failure;
use syncline_runtime::wire::{Page, PageKind, Writes};

/// The schemas of a function's models; none where nothing is checked.
#[derive(Default)]
pub struct ModelSchemas {
    by_model: BTreeMap<String, Validator>,
    rejects: bool,
}

impl ModelSchemas {
    /// What the source asks for. A schema that cannot be used is a failure, which says how to do without it.
    pub fn of(definition: &Definition, sync: &FunctionSync) -> Result<ModelSchemas, Failure> {
        let validation = definition.functions.validate;
        if validation == Validation::Off {
            return Ok(ModelSchemas::default());
        }
        let streams = sync.models.iter().filter_map(|model| definition.stream(model));
        let schemas = streams.filter_map(|stream| Some((&stream.name, stream.schema.as_ref()?)));
        let compiled = schemas.map(|(model, schema)| match compile(schema) {
            Ok(validator) => Ok((model.clone(), validator)),
            Err(why) => {
                let hint = "change the model, or set functions.validate to off";
                Err(Failure::lasting("bad_schema", format!("records of {model} cannot be checked: {why}; {hint}")))
            }
        });
        Ok(ModelSchemas { by_model: compiled.collect::<Result<_, _>>()?, rejects: validation == Validation::Reject })
    }

    /// Checks the records of a step: a line for each page with some that do not fit, or the failure that the first of them is.
    pub(super) fn check(&self, writes: &Writes) -> Result<Vec<String>, Failure> {
        let wrong = writes.pages.iter().filter(|page| page.kind == PageKind::Save).filter_map(|page| {
            let validator = self.by_model.get(&page.model)?;
            complaint(page, validator)
        });
        match self.rejects {
            true => wrong.map(|why| Err(Failure::lasting("invalid_record", why))).next().unwrap_or(Ok(Vec::new())),
            false => Ok(wrong.collect()),
        }
    }
}

fn complaint(page: &Page, validator: &Validator) -> Option<String> {
    let mut wrong = page.iter().filter_map(|(id, json)| {
        let record = serde_json::from_slice(json).ok()?;
        fault(validator, &record).map(|why| (String::from_utf8_lossy(id).into_owned(), why))
    });
    let (id, why) = wrong.next()?;
    let more = wrong.count();
    let behind =
        if more == 0 { String::new() } else { format!(" ({more} more of {} do not fit either)", page.rows.len()) };
    Some(format!("a record of {} does not fit its model: id {id}, {why}{behind}", page.model))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn page(kind: PageKind, records: &[(&str, &str)]) -> Page {
        let (mut bytes, mut rows) = (Vec::new(), Vec::new());
        for (id, json) in records {
            bytes.extend_from_slice(id.as_bytes());
            bytes.extend_from_slice(json.as_bytes());
            rows.push((id.len() as u32, json.len() as u32));
        }
        Page { model: "Person".into(), kind, bytes, rows }
    }

    #[test]
    fn a_line_names_the_first_that_does_not_fit_and_counts_the_others() {
        let validator =
            compile(&json!({"type": "object", "properties": {"name": {"type": "string"}}})).expect("a schema");
        let by_model = BTreeMap::from([("Person".to_owned(), validator)]);
        let mut schemas = ModelSchemas { by_model, rejects: false };
        let rows =
            [("1", r#"{"id":"1","name":"Ada"}"#), ("2", r#"{"id":"2","name":5}"#), ("3", r#"{"id":"3","name":null}"#)];
        let pages = vec![page(PageKind::Patch, &rows), page(PageKind::Save, &rows)];
        let writes = Writes { pages, ..Writes::default() };
        let line = "a record of Person does not fit its model: id 2, /name: 5 is not of type \"string\" (1 more of 3 do not fit either)";
        assert_eq!(schemas.check(&writes), Ok(vec![line.to_owned()]));
        schemas.rejects = true;
        let failed = schemas.check(&writes).expect_err("it is refused");
        assert_eq!((failed.code, failed.message.as_str()), ("invalid_record", line));
        assert_eq!(ModelSchemas::default().check(&writes), Ok(Vec::new()));
    }
}
