//! From a name to the addresses that are dialled: looked up once, judged, and handed to the connection as they were judged.
//!
//! Promises: no connection is made to an address [`Egress`] refuses, whatever a name server answers and however often it
//! changes its mind: there is no second look-up between judging and dialling.

use crate::egress::Egress;
use async_trait::async_trait;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// Who knows what a name stands for.
#[async_trait]
pub trait Lookup: Send + Sync + 'static {
    /// All addresses of a name.
    async fn lookup(&self, name: &str) -> io::Result<Vec<IpAddr>>;
}

/// The machine's own resolver.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemLookup;

#[async_trait]
impl Lookup for SystemLookup {
    async fn lookup(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        Ok(tokio::net::lookup_host((name, 0)).await?.map(|found| found.ip()).collect())
    }
}

/// Looks names up for the HTTP client, as far as they may be dialled.
pub(super) struct Dial {
    pub(super) egress: Arc<Egress>,
    /// The port that is dialled, where allowances name it.
    pub(super) port: Option<u16>,
    pub(super) lookup: Arc<dyn Lookup>,
}

impl Resolve for Dial {
    fn resolve(&self, name: Name) -> Resolving {
        let (egress, port, lookup) = (self.egress.clone(), self.port, self.lookup.clone());
        Box::pin(async move {
            let found = lookup.lookup(name.as_str()).await?;
            egress.judge_answers(name.as_str(), port, &found)?;
            // Port 0 stands for the one of the URL.
            let addresses: Addrs = Box::new(found.into_iter().map(|address| SocketAddr::new(address, 0)));
            Ok(addresses)
        })
    }
}
