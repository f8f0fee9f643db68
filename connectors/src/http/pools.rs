//! Connections that are kept open: what makes them, and which of them a request uses.

use super::client::{ClientOptions, failure};
use super::dial::{Dial, Lookup};
use crate::egress::Egress;
use reqwest::Url;
use std::collections::BTreeMap;
use std::sync::Arc;
use syncline_engine::source::Failure;

/// Pools of connections, alike but for where they may go.
pub(super) struct Pools {
    any: reqwest::Client,
    /// For ports with allowances of their own: a name is judged without knowing the port, but for these.
    by_port: BTreeMap<u16, reqwest::Client>,
}

impl Pools {
    /// Without open connections. With `decode` they ask for compressed answers and hand them out decompressed.
    pub(super) fn new(
        options: &ClientOptions,
        egress: &Arc<Egress>,
        lookup: &Arc<dyn Lookup>,
        decode: bool,
    ) -> Result<Pools, Failure> {
        // An error means that a provider is installed already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let make = |port| {
            reqwest::Client::builder()
                .no_proxy()
                .redirect(reqwest::redirect::Policy::none())
                .retry(reqwest::retry::never())
                .connect_timeout(options.connect_timeout)
                .user_agent(options.user_agent.as_str())
                .dns_resolver(Dial { egress: egress.clone(), port, lookup: lookup.clone() })
                .gzip(decode)
                .build()
                .map_err(|error| failure("client", format!("the HTTP client cannot be made: {error}"), false))
        };
        let by_port = egress.ports().into_iter().map(|port| Ok((port, make(Some(port))?)));
        Ok(Pools { by_port: by_port.collect::<Result<_, Failure>>()?, any: make(None)? })
    }

    /// What sends to `url`.
    pub(super) fn of(&self, url: &Url) -> &reqwest::Client {
        url.port_or_known_default().and_then(|port| self.by_port.get(&port)).unwrap_or(&self.any)
    }
}
