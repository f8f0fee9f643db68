//! Bodies and parameters with their placeholders filled in.

use super::{Param, Tree};
use crate::expr::{EvalError, Scope, Template};
use serde_json::{Map, Value};

impl Tree {
    /// The value, with what `scope` holds in the place of placeholders.
    ///
    /// Members whose whole value is a template that `leaves_out` names are left out.
    pub fn fill(&self, scope: &Scope, leaves_out: &dyn Fn(&Template) -> bool) -> Result<Value, EvalError> {
        Ok(match self {
            Tree::Leaf(value) => value.clone(),
            Tree::Text(template) => template.value(scope)?,
            Tree::List(trees) => {
                Value::Array(trees.iter().map(|tree| tree.fill(scope, leaves_out)).collect::<Result<_, _>>()?)
            }
            Tree::Map(entries) => {
                let mut map = Map::new();
                let is_left = |tree: &Tree| !matches!(tree, Tree::Text(template) if leaves_out(template));
                for (name, tree) in entries.iter().filter(|(_, tree)| is_left(tree)) {
                    map.insert(name.text(scope)?, tree.fill(scope, leaves_out)?);
                }
                Value::Object(map)
            }
        })
    }
}

impl Param {
    /// Its values as text: none, one or several.
    pub fn texts(&self, scope: &Scope, leaves_out: &dyn Fn(&Template) -> bool) -> Result<Vec<String>, EvalError> {
        let templates = match self {
            Param::One(template) => std::slice::from_ref(template),
            Param::Many(templates) => templates.as_slice(),
        };
        let mut texts = Vec::with_capacity(templates.len());
        for template in templates.iter().filter(|template| !leaves_out(template)) {
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
