//! What an execution is part of: how deep it is nested, and whether what it belongs to has begun something that cannot be taken
//! back.

use async_trait::async_trait;
use std::sync::Arc;
use syncline_engine::source::Failure;
use tokio::sync::OnceCell;

/// Most actions within each other.
pub const NESTING_MAX: u32 = 4;

/// What an execution is part of. Without anything it is a run of a sync.
#[derive(Clone, Default)]
pub struct Chain {
    /// How many actions it is within, itself included.
    pub depth: u32,
    /// The action in whose name it writes at its provider.
    pub action: Option<Arc<str>>,
    /// What the outermost action has begun.
    pub effects: Option<Arc<Effects>>,
}

impl Chain {
    /// What an action is part of that begins within this.
    pub fn within(&self, action: &str) -> Chain {
        Chain { depth: self.depth + 1, action: Some(action.into()), effects: self.effects.clone() }
    }

    /// Something is about to be done that cannot be taken back.
    pub async fn begins_effect(&self) -> Result<(), Failure> {
        match &self.effects {
            Some(effects) => effects.begin().await,
            None => Ok(()),
        }
    }
}

/// Whether something was begun that cannot be taken back, and who has to know before the first.
#[derive(Default)]
pub struct Effects {
    begun: OnceCell<()>,
    witness: Option<Box<dyn Witness>>,
}

/// Whoever has to know before the first effect.
#[async_trait]
pub trait Witness: Send + Sync {
    /// Keeps that it is about to be. If it cannot be kept, nothing is done.
    async fn note(&self) -> Result<(), Failure>;
}

impl Effects {
    /// With somebody who has to know.
    pub fn witnessed(witness: impl Witness + 'static) -> Effects {
        Effects { begun: OnceCell::new(), witness: Some(Box::new(witness)) }
    }

    /// Whether there may be any.
    pub fn any(&self) -> bool {
        self.begun.initialized()
    }

    async fn begin(&self) -> Result<(), Failure> {
        let note = async || match &self.witness {
            Some(witness) => witness.note().await,
            None => Ok(()),
        };
        self.begun.get_or_try_init(note).await.map(drop)
    }
}
