//! Writing by hand: [`Engine::write`] takes records as the caller has them and commits them as one batch.
//!
//! Promises: all of a commit becomes visible at once, or nothing of it; what cannot be a record is refused before anything is
//! written, and the error names it. Pages that come by the thousand are built with [`Engine::page`](super::Engine::page)
//! instead, which copies bytes and reads nothing.

use super::Engine;
use crate::model::{Cause, Timestamp, record_id};
use crate::pipeline::{Batch, Dataset, Error, PageBuilder, Receipt};
use serde::Serialize;
use serde_json::Value;

impl Engine {
    /// Begins a commit of records to `dataset`.
    ///
    /// ```
    /// use serde_json::json;
    /// use syncline_engine::{Engine, model::*, pipeline::*};
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let engine = Engine::open(Options::temporary())?;
    /// let name = DatasetName::base("default", "crm", "acme", "Contact");
    /// let contacts = engine.dataset(&name, &DatasetSpec::of(Strategy::Latest))?;
    /// let at = Timestamp::from_seconds;
    ///
    /// let receipt = engine
    ///     .write(&contacts)
    ///     .upsert(json!({"id": "1", "name": "Ada"})).at(at(10))
    ///     .upsert(json!({"id": "2", "name": "Bob"})).at(at(10))
    ///     .commit().await?;
    /// assert_eq!(receipt.counts_of(&contacts).added, 2);
    ///
    /// // Some fields of a record; a record that goes.
    /// engine.write(&contacts).patch(json!({"id": "1", "city": "London"})).at(at(20)).delete("2").at(at(20)).commit().await?;
    ///
    /// let nameless = engine.write(&contacts).upsert(json!({"name": "Eve"})).commit().await;
    /// assert_eq!(nameless.unwrap_err().to_string(), "bad batch: record 1: id is missing, null or empty");
    /// # Ok::<(), Error>(()) }).unwrap();
    /// ```
    pub fn write(&self, dataset: &Dataset) -> WriteBuilder {
        WriteBuilder { engine: self.clone(), dataset: dataset.clone(), rows: Vec::new(), cause: None, wrong: None }
    }
}

/// Records on their way into one dataset, in the order they were given. Made by [`Engine::write`].
#[must_use = "nothing is written before `commit`"]
pub struct WriteBuilder {
    engine: Engine,
    dataset: Dataset,
    rows: Vec<WrittenRow>,
    cause: Option<Cause>,
    /// The first thing that is wrong: told by `commit`.
    wrong: Option<String>,
}

struct WrittenRow {
    id: String,
    modified_at: Option<Timestamp>,
    body: WrittenBody,
}

enum WrittenBody {
    Whole(Vec<u8>),
    Patch(Vec<u8>),
    Gone,
}

impl WriteBuilder {
    /// A whole record: an object with an `id`, or anything that serializes as one.
    pub fn upsert(self, record: impl Serialize) -> Self {
        self.object(&record, WrittenBody::Whole)
    }

    /// Some fields of a record that is there, its `id` among them; merged deeply into what is known.
    pub fn patch(self, fields: impl Serialize) -> Self {
        self.object(&fields, WrittenBody::Patch)
    }

    /// The record with this id is gone.
    pub fn delete(mut self, id: impl Into<String>) -> Self {
        match record_id(&Value::String(id.into())) {
            Ok(id) => self.rows.push(WrittenRow { id, modified_at: None, body: WrittenBody::Gone }),
            Err(why) => self.complain(&why),
        }
        self
    }

    /// When the last record given was modified at its origin: what [`Strategy::Latest`](crate::model::Strategy::Latest)
    /// compares. Left out, the record has no such time, and the one that was written later wins.
    pub fn at(mut self, modified_at: Timestamp) -> Self {
        match self.rows.last_mut() {
            Some(row) => row.modified_at = Some(modified_at),
            None => {
                self.wrong.get_or_insert_with(|| "`at` before any record; give the record first".to_owned());
            }
        }
        self
    }

    /// What the changes are said to come from, in place of a push with a number of its own.
    pub fn by(mut self, cause: Cause) -> Self {
        self.cause = Some(cause);
        self
    }

    /// Commits all of it as one batch; see [`Engine::commit`](super::Engine::commit).
    pub async fn commit(self) -> Result<Receipt, Error> {
        if let Some(wrong) = self.wrong {
            return Err(Error::BadBatch(wrong));
        }
        let seen = self.engine.clock().now();
        let mut page = self.engine.page(&self.dataset);
        self.rows.iter().for_each(|row| row.add_to(&mut page, seen));
        let cause = match self.cause {
            Some(cause) => cause,
            None => Cause::push(self.engine.next_run()?),
        };
        self.engine.commit(Batch { cause: Some(cause), pages: vec![page], ..Batch::default() }).await
    }

    fn object(mut self, record: &impl Serialize, body: fn(Vec<u8>) -> WrittenBody) -> Self {
        match read(record) {
            Ok((id, json)) => self.rows.push(WrittenRow { id, modified_at: None, body: body(json) }),
            Err(why) => self.complain(&why),
        }
        self
    }

    fn complain(&mut self, why: &dyn std::fmt::Display) {
        let number = self.rows.len() + 1;
        self.wrong.get_or_insert_with(|| format!("record {number}: {why}"));
    }
}

impl WrittenRow {
    fn add_to(&self, page: &mut PageBuilder, seen: Timestamp) {
        match &self.body {
            WrittenBody::Whole(json) => page.save(&self.id, self.modified_at, seen, json),
            WrittenBody::Patch(json) => page.patch(&self.id, self.modified_at, seen, json),
            WrittenBody::Gone => page.delete(&self.id, self.modified_at, seen, None),
        }
    }
}

/// The id of a record and its JSON text, in which the id is text.
fn read(record: &impl Serialize) -> Result<(String, Vec<u8>), String> {
    let mut value = serde_json::to_value(record).map_err(|e| format!("it cannot be written as JSON: {e}"))?;
    let Some(object) = value.as_object_mut() else {
        return Err("it is no JSON object; give an object with an `id`".to_owned());
    };
    let id = record_id(object.get("id").unwrap_or(&Value::Null)).map_err(|why| why.to_string())?;
    object.insert("id".to_owned(), Value::String(id.clone()));
    let json = serde_json::to_vec(&value).map_err(|e| format!("it cannot be written as JSON: {e}"))?;
    Ok((id, json))
}
