//! Integrations that are made, changed and deleted while the program runs, and what follows them: their sources, and the URLs of
//! their webhooks.

use crate::app::App;
use crate::registry::integrations::{IntegrationRefused, MadeIntegration};

impl App {
    /// Makes an integration from a preset: connections of it can be made from now on.
    pub async fn create_integration(&self, key: &str, made: MadeIntegration) -> Result<(), IntegrationRefused> {
        self.integrations.create(&self.sources, key, made).await?;
        self.hooks.refresh();
        Ok(())
    }

    /// Changes one that was made so. What its connections ask for next, they ask for with it.
    pub async fn update_integration(
        &self,
        environment: &str,
        key: &str,
        change: impl FnOnce(&mut MadeIntegration),
    ) -> Result<(), IntegrationRefused> {
        self.integrations.update(&self.sources, environment, key, change).await?;
        self.syncs.refresh().await.map_err(|why| IntegrationRefused::Syncs(why.to_string()))?;
        self.hooks.refresh();
        Ok(())
    }

    /// Deletes one that was made so, and has no connections.
    pub async fn delete_integration(&self, environment: &str, key: &str) -> Result<(), IntegrationRefused> {
        let connections = || self.connections.of_source(key).len();
        self.integrations.delete(&self.sources, environment, key, connections).await?;
        self.hooks.refresh();
        Ok(())
    }
}
