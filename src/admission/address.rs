//! Who is on the other side: an address as far as one client can be told from another.
//!
//! An IPv6 client has a whole /64 to choose from, so that is what counts. Behind a reverse proxy all come from its address;
//! what it says in `X-Forwarded-For` or `Forwarded` is believed only if the settings name the proxy.

use super::Holder;
use http::HeaderMap;
use ipnet::IpNet;
use std::fmt;
use std::net::{AddrParseError, IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// Most hops of a forwarding header that are looked at.
const HOPS_MAX: usize = 16;

/// An address: IPv4 whole, IPv6 by its first 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address(IpAddr);

impl From<IpAddr> for Address {
    fn from(ip: IpAddr) -> Address {
        Address(match ip.to_canonical() {
            IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX))),
            four => four,
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Address {
    type Err = AddrParseError;

    fn from_str(text: &str) -> Result<Address, AddrParseError> {
        text.parse::<IpAddr>().map(Address::from)
    }
}

impl Address {
    /// Of one of whom nothing is known: the routes are called without a socket.
    pub const UNKNOWN: Address = Address(IpAddr::V4(Ipv4Addr::UNSPECIFIED));

    /// As one whom things are counted for.
    pub fn holder(self) -> Holder {
        Holder::of("address", self.0)
    }
}

/// Reverse proxies whose word on the client's address is taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies(pub Vec<IpNet>);

impl Proxies {
    /// Whether it is one of them.
    pub fn has(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        self.0.iter().any(|net| net.contains(&ip))
    }

    /// The client: the peer itself, or whom a trusted peer names. What does not make sense is the proxy's own.
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap) -> Address {
        if !self.has(peer) {
            return peer.into();
        }
        let (theirs, standard) = (hops(headers, "x-forwarded-for"), hops(headers, "forwarded"));
        let (by_list, by_standard) = (self.nearest(&theirs), self.nearest(&standard));
        match (by_list, by_standard) {
            // A proxy writes one of the two and may pass the other on as the client made it up.
            (Some(one), Some(other)) if one != other => peer.into(),
            (Some(ip), _) | (None, Some(ip)) => ip.into(),
            (None, None) => peer.into(),
        }
    }

    /// The last hop that is none of ours: what stands before it may be made up.
    fn nearest(&self, hops: &[Option<IpAddr>]) -> Option<IpAddr> {
        let outside = hops.iter().rev().find(|hop| hop.is_none_or(|ip| !self.has(ip)));
        outside.copied().flatten()
    }
}

/// The hops a header names, the client's first; `None` for what is no address.
fn hops(headers: &HeaderMap, name: &str) -> Vec<Option<IpAddr>> {
    let lines = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    let mut hops: Vec<Option<IpAddr>> =
        lines.flat_map(|line| line.rsplit(',').take(HOPS_MAX).collect::<Vec<_>>().into_iter().rev()).map(hop).collect();
    // Only the last ones count; a client may send any number.
    hops.drain(..hops.len().saturating_sub(HOPS_MAX));
    hops
}

/// `1.2.3.4`, `1.2.3.4:5`, `2001:db8::1`, `[2001:db8::1]:5`, or `for="[2001:db8::1]:5";proto=https`.
fn hop(text: &str) -> Option<IpAddr> {
    let named = text.split(';').find_map(|pair| {
        let (name, value) = pair.trim().split_once('=')?;
        name.trim().eq_ignore_ascii_case("for").then_some(value)
    });
    let text = named.unwrap_or(text).trim().trim_matches('"');
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    bare.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(peer: &str, headers: &[(&'static str, &str)]) -> String {
        let proxies = Proxies(vec!["10.0.0.0/8".parse().expect("net"), "fd00::/8".parse().expect("net")]);
        let pairs = headers.iter().map(|(name, value)| (name.parse().expect("name"), value.parse().expect("value")));
        let headers: HeaderMap = pairs.collect();
        proxies.client(peer.parse().expect("ip"), &headers).0.to_string()
    }

    #[test]
    fn nobody_but_a_named_proxy_says_who_the_client_is() {
        let claimed = [("x-forwarded-for", "1.1.1.1"), ("forwarded", "for=1.1.1.1")];
        assert_eq!(client("9.9.9.9", &claimed), "9.9.9.9");
        assert_eq!(client("10.0.0.1", &claimed), "1.1.1.1");
        assert_eq!(client("::ffff:10.0.0.1", &claimed), "1.1.1.1", "IPv4 inside IPv6 is IPv4");
        assert_eq!(client("10.0.0.1", &[]), "10.0.0.1");
    }

    #[test]
    fn what_the_client_made_up_stands_before_what_the_proxy_saw() {
        let client = |value| client("10.0.0.1", &[("x-forwarded-for", value)]);
        assert_eq!(client("1.1.1.1, 2.2.2.2"), "2.2.2.2");
        assert_eq!(client("1.1.1.1, 2.2.2.2, 10.0.0.9"), "2.2.2.2", "a chain of our own proxies");
        assert_eq!(client("1.1.1.1, nonsense"), "10.0.0.1", "what cannot be read is not skipped");
        assert_eq!(client(&format!("{}3.3.3.3", "1.1.1.1,".repeat(1_000))), "3.3.3.3");
    }

    #[test]
    fn headers_that_disagree_are_not_believed() {
        assert_eq!(client("10.0.0.1", &[("x-forwarded-for", "1.1.1.1"), ("forwarded", "for=2.2.2.2")]), "10.0.0.1");
        let of = |value| client("10.0.0.1", &[("forwarded", value)]);
        assert_eq!(of("for=1.1.1.1, for=\"2.2.2.2:443\";proto=https"), "2.2.2.2");
        assert_eq!(of("proto=https;For=\"[2001:db8:1:2:3::4]:443\""), "2001:db8:1:2::");
        assert_eq!(of("for=_hidden"), "10.0.0.1");
    }

    #[test]
    fn an_ipv6_client_is_its_64_bits() {
        let of = |text: &str| Address::from(text.parse::<IpAddr>().expect("ip"));
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1:2"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:1.2.3.4"), of("1.2.3.4"));
        assert_ne!(of("1.2.3.4"), of("1.2.3.5"));
    }
}
