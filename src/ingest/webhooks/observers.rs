//! Definitions made ready to read webhooks.
//!
//! Promises: what is handed out belongs to the definition that is in force; it is made once for each definition.

use crate::connectors::definition::Definition;
use crate::connectors::webhooks::Observer;
use crate::engine::pipeline::Error;
use crate::registry::definitions::Definitions;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;

/// By source.
pub(super) struct Observers {
    definitions: Definitions,
    made: Mutex<BTreeMap<String, (Arc<Definition>, Arc<Observer>)>>,
}

impl Observers {
    /// Those of all definitions: what is wrong with one is said here.
    pub fn open(definitions: Definitions) -> Result<Observers, Error> {
        let observers = Observers { definitions, made: Mutex::default() };
        for (source, definition) in observers.definitions.all().iter() {
            observers.observer(source, definition)?;
        }
        Ok(observers)
    }

    /// That of a source, if there is a definition.
    pub fn get(&self, source: &str) -> Option<Arc<Observer>> {
        let definition = self.definitions.get(source)?;
        let made = self.observer(source, &definition);
        made.inspect_err(|error| tracing::error!(source, %error, "webhooks cannot be read")).ok()
    }

    fn observer(&self, source: &str, definition: &Arc<Definition>) -> Result<Arc<Observer>, Error> {
        let mut made = self.made.lock();
        if let Some((of, observer)) = made.get(source)
            && Arc::ptr_eq(of, definition)
        {
            return Ok(observer.clone());
        }
        let wrong = |why| Error::BadBatch(format!("definition of {source}: {why}"));
        let observer = Arc::new(Observer::new(definition.clone()).map_err(wrong)?);
        made.insert(source.to_owned(), (definition.clone(), observer.clone()));
        Ok(observer)
    }
}
