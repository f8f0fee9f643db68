//! Bodies and parameters with their placeholders filled in.

use super::{Param, Tree};
use crate::expr::{EvalError, Scope};
use serde_json::{Map, Value};

impl Tree {
    /// The value, with what `scope` holds in the place of placeholders.
    pub fn fill(&self, scope: &Scope) -> Result<Value, EvalError> {
        Ok(match self {
            Tree::Leaf(value) => value.clone(),
            Tree::Text(template) => template.value(scope)?,
            Tree::List(trees) => Value::Array(trees.iter().map(|tree| tree.fill(scope)).collect::<Result<_, _>>()?),
            Tree::Map(entries) => {
                let mut map = Map::new();
                for (name, tree) in entries {
                    map.insert(name.text(scope)?, tree.fill(scope)?);
                }
                Value::Object(map)
            }
        })
    }
}

impl Param {
    /// Its values as text: none, one or several.
    pub fn texts(&self, scope: &Scope) -> Result<Vec<String>, EvalError> {
        let templates = match self {
            Param::One(template) => std::slice::from_ref(template),
            Param::Many(templates) => templates.as_slice(),
        };
        let mut texts = Vec::with_capacity(templates.len());
        for template in templates {
            match template.value(scope)? {
                Value::Array(values) => texts.extend(values.iter().map(plain)),
                value => texts.push(plain(&value)),
            }
        }
        Ok(texts)
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
