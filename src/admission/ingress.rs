//! How much each may use up, as the settings `ingress` and `trusted_proxies` say.

use super::Proxies;
use std::time::Duration;

/// What outsiders may use up. An address is an IPv4 address or 64 bits of an IPv6 one; rates are per second.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ingress {
    /// Reverse proxies that are believed who the client is.
    pub proxies: Proxies,
    /// Open connections.
    pub connections: usize,
    /// Open connections of one address.
    pub connections_per_address: usize,
    /// Memory for bodies on their way in.
    pub bodies_bytes: usize,
    /// Memory for answers on their way out.
    pub answers_bytes: usize,
    /// A client that takes nothing of an answer for so long is cut.
    pub send_timeout: Duration,
    /// Requests of one address.
    pub requests_per_address: u32,
    /// Requests with one API key.
    pub requests_per_key: u32,
    /// Webhooks at one path.
    pub webhooks_per_path: u32,
    /// Webhooks at one path from one address.
    pub webhooks_per_sender: u32,
    /// Requests with keys that are none, of one address.
    pub wrong_keys_per_address: u32,
    /// Webhooks that cannot prove themselves, at one path from one address.
    pub wrong_signatures_per_sender: u32,
}

impl Default for Ingress {
    fn default() -> Self {
        Ingress {
            proxies: Proxies::default(),
            connections: 4_096,
            connections_per_address: 1_024,
            bodies_bytes: 128 << 20,
            answers_bytes: 128 << 20,
            send_timeout: Duration::from_secs(30),
            requests_per_address: 5_000,
            requests_per_key: 2_000,
            webhooks_per_path: 2_000,
            webhooks_per_sender: 1_000,
            wrong_keys_per_address: 10,
            wrong_signatures_per_sender: 10,
        }
    }
}
