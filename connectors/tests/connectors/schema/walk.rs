//! The schema, and a walk through it along a document: which part of it each value of the document meets.

use jsonschema::Validator;
use serde_json::{Value, json};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use syncline_connectors::definition::SCHEMA;

/// The schema of definition files.
pub struct Schema {
    root: Value,
    whole: Validator,
    validators: RefCell<BTreeMap<String, Rc<Validator>>>,
}

/// A part of the schema, and its place in it as a JSON pointer.
#[derive(Clone)]
pub struct Part<'s> {
    pub at: String,
    pub schema: &'s Value,
}

/// A value of the document that the schema describes.
pub struct Met<'s> {
    /// Its place in the document, as a JSON pointer.
    pub path: String,
    /// What describes it.
    pub part: Part<'s>,
    /// The words it may be, if it may be some words only.
    pub words: BTreeSet<String>,
}

/// What a walk met.
#[derive(Default)]
pub struct Walk<'s> {
    /// Maps: their place in the document, and the part they fit.
    pub maps: Vec<(String, Part<'s>)>,
    /// Values of known keys, and entries of lists.
    pub values: Vec<Met<'s>>,
}

impl Schema {
    pub fn load() -> Schema {
        let root: Value = serde_json::from_str(SCHEMA).expect("the schema is JSON");
        let whole = jsonschema::draft202012::new(&root).expect("the schema is a schema");
        Schema { root, whole, validators: RefCell::default() }
    }

    /// Why the schema refuses a document, if it does.
    pub fn refusal(&self, document: &Value) -> Option<String> {
        self.whole.iter_errors(document).next().map(|error| format!("{}: {error}", error.instance_path()))
    }

    /// Walks a document that the schema accepts.
    pub fn walk<'s>(&'s self, document: &Value) -> Walk<'s> {
        let mut walk = Walk::default();
        self.step("", Part { at: String::new(), schema: &self.root }, document, &mut walk);
        walk
    }

    /// Every known key of every map: the place of what describes it.
    pub fn keys(&self) -> Vec<Part<'_>> {
        let mut keys = Vec::new();
        let mut seen = BTreeSet::new();
        let mut left = vec![Part { at: String::new(), schema: &self.root }];
        while let Some(part) = left.pop() {
            for part in self.parts(part).into_iter().filter(|part| seen.insert(part.at.clone())) {
                let own = part.below("properties");
                left.extend(own.iter().cloned());
                left.extend(["additionalProperties", "items"].iter().filter_map(|key| part.get(key)));
                keys.extend(own);
            }
        }
        keys
    }

    /// A keyword of a part, or of what it refers to.
    pub fn keyword<'s>(&'s self, part: &Part<'s>, name: &str) -> Option<&'s Value> {
        match part.schema.get(name) {
            Some(found) => Some(found),
            None => self.keyword(&self.referred(part)?, name),
        }
    }

    fn referred<'s>(&'s self, part: &Part<'s>) -> Option<Part<'s>> {
        let at = part.schema.get("$ref")?.as_str()?.strip_prefix('#')?;
        let schema = self.root.pointer(at).unwrap_or_else(|| panic!("{} refers to {at}", part.at));
        Some(Part { at: at.to_owned(), schema })
    }

    /// The alternatives that a part consists of.
    fn parts<'s>(&'s self, part: Part<'s>) -> Vec<Part<'s>> {
        if let Some(referred) = self.referred(&part) {
            return self.parts(referred);
        }
        match part.schema.get("anyOf").and_then(Value::as_array) {
            None => vec![part],
            Some(parts) => {
                let parts = parts.iter().enumerate();
                parts
                    .flat_map(|(n, schema)| self.parts(Part { at: format!("{}/anyOf/{n}", part.at), schema }))
                    .collect()
            }
        }
    }

    fn fits(&self, part: &Part<'_>, value: &Value) -> bool {
        let mut validators = self.validators.borrow_mut();
        let validator = validators.entry(part.at.clone()).or_insert_with(|| {
            let schema = json!({"$defs": self.root.get("$defs"), "allOf": [part.schema]});
            Rc::new(jsonschema::draft202012::new(&schema).expect("a part of the schema is a schema"))
        });
        validator.is_valid(value)
    }

    fn step<'s>(&'s self, path: &str, part: Part<'s>, value: &Value, walk: &mut Walk<'s>) {
        let kin = self.parts(part);
        let mut fitting = kin.iter().filter(|part| kin.len() == 1 || self.fits(part, value));
        let Some(part) = fitting.next().filter(|_| value.is_object() || value.is_array()) else { return };
        if let Some(other) = fitting.next() {
            panic!("{path} fits {} as well as {}", part.at, other.at);
        }
        if value.is_object() {
            walk.maps.push((path.to_owned(), part.clone()));
        }
        for (key, value) in value.as_object().into_iter().flatten() {
            let path = format!("{path}/{}", escaped(key));
            if let Some(found) = part.property(key) {
                self.meet(&path, found.clone(), self.words(&kin, key, &found), walk);
                self.step(&path, found, value, walk);
            } else if let Some(any) = part.get("additionalProperties") {
                self.step(&path, any, value, walk);
            }
        }
        for (n, value) in value.as_array().into_iter().flatten().enumerate() {
            let Some(item) = part.get("items") else { return };
            let path = format!("{path}/{n}");
            self.meet(&path, item.clone(), self.own_words(&item).0, walk);
            self.step(&path, item, value, walk);
        }
    }

    fn meet<'s>(&'s self, path: &str, part: Part<'s>, words: BTreeSet<String>, walk: &mut Walk<'s>) {
        walk.values.push(Met { path: path.to_owned(), part, words });
    }

    /// The words of a key. One that tells alternatives apart has a word in each.
    fn words<'s>(&'s self, kin: &[Part<'s>], key: &str, found: &Part<'s>) -> BTreeSet<String> {
        match self.own_words(found) {
            (words, false) => words,
            (_, true) => kin.iter().filter_map(|part| part.property(key)).flat_map(|p| self.own_words(&p).0).collect(),
        }
    }

    /// Words, and whether the part is an alternative of its own for one.
    fn own_words(&self, part: &Part<'_>) -> (BTreeSet<String>, bool) {
        let mut words = BTreeSet::new();
        let mut one = false;
        for part in self.parts(part.clone()) {
            let some = part.schema.get("enum").and_then(Value::as_array);
            let only = part.schema.get("const");
            one |= only.is_some();
            words.extend(some.into_iter().flatten().chain(only).filter_map(word));
        }
        (words, one)
    }
}

impl<'s> Part<'s> {
    /// The keys a map of this part may have.
    pub fn names(&self) -> BTreeSet<String> {
        self.schema.get("properties").and_then(Value::as_object).into_iter().flatten().map(|(k, _)| k.clone()).collect()
    }

    /// Whether a map of this part may have any key.
    pub fn open(&self) -> bool {
        self.schema.get("additionalProperties") != Some(&Value::Bool(false))
    }

    fn get(&self, key: &str) -> Option<Part<'s>> {
        let schema = self.schema.get(key).filter(|found| found.is_object())?;
        Some(Part { at: format!("{}/{}", self.at, escaped(key)), schema })
    }

    fn property(&self, key: &str) -> Option<Part<'s>> {
        self.get("properties")?.get(key)
    }

    fn below(&self, key: &str) -> Vec<Part<'s>> {
        let Some(map) = self.get(key) else { return Vec::new() };
        map.schema.as_object().into_iter().flatten().filter_map(|(name, _)| map.get(name)).collect()
    }
}

fn word(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(yes) => Some(yes.to_string()),
        _ => None,
    }
}

fn escaped(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}
