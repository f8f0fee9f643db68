//! The program without functions: nothing is called when something happens to a connection.

use crate::app::connections::ConnectionError;
use crate::engine::pipeline::{Error, QuarantineRow};
use crate::engine::source::Connection;
use crate::ingest::webhooks::Retried;
use crate::registry::connections::AccountKey;
use std::sync::Arc;

/// No functions.
pub struct Actions;

impl Actions {
    /// Nothing is to be done for it.
    pub fn created(&self, _: &AccountKey) {}

    /// Nobody is against it.
    pub async fn validate(&self, _: &str, _: Arc<Connection>) -> Result<(), ConnectionError> {
        Ok(())
    }

    /// Nothing is to be done before it.
    pub async fn before_deletion(&self, _: &AccountKey) -> Result<(), ConnectionError> {
        Ok(())
    }

    /// What a program with functions kept.
    pub async fn retry(&self, _: &str, _: &QuarantineRow) -> Result<Retried, Error> {
        Ok(Retried::Impossible("this program is built without functions: run one that has them, or drop the entry"))
    }
}
