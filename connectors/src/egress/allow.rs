//! One entry of `egress.allow`: an address, a network or a name, with or without a port.

use ipnet::IpNet;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use url::Host;

/// What the operator allows beside the public internet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowed {
    place: AllowedPlace,
    port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum AllowedPlace {
    Net(IpNet),
    /// Lower case, without a dot at its end.
    Name(String),
}

/// Why a text allows nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is neither an address, a network nor a host name")]
pub struct BadAllowance(String);

impl Allowed {
    /// A network.
    pub(super) fn net(address: IpAddr, prefix: u8) -> Allowed {
        let net = IpNet::new(address, prefix).unwrap_or_else(|_| IpNet::from(address));
        Allowed { place: AllowedPlace::Net(net.trunc()), port: None }
    }

    /// The only port it is about.
    pub(super) fn port(&self) -> Option<u16> {
        self.port
    }

    /// Whether it allows an address.
    pub(super) fn has(&self, address: IpAddr, port: Option<u16>) -> bool {
        self.is_of(port) && matches!(&self.place, AllowedPlace::Net(net) if net.contains(&address))
    }

    /// Whether it allows whatever a name stands for.
    pub(super) fn has_name(&self, name: &str, port: Option<u16>) -> bool {
        let plain = name.trim_end_matches('.');
        self.is_of(port) && matches!(&self.place, AllowedPlace::Name(known) if plain.eq_ignore_ascii_case(known))
    }

    fn is_of(&self, port: Option<u16>) -> bool {
        self.port.is_none() || self.port == port
    }
}

impl FromStr for Allowed {
    type Err = BadAllowance;

    fn from_str(text: &str) -> Result<Self, BadAllowance> {
        let bad = || BadAllowance(text.to_owned());
        if let Some(place) = place(text) {
            return Ok(Allowed { place, port: None });
        }
        let (before, port) = text.rsplit_once(':').ok_or_else(bad)?;
        let port = port.parse().ok().filter(|port| *port > 0).ok_or_else(bad)?;
        let inner = before.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        // A port behind an address of version 6 can only be told where there are brackets.
        let place = match inner {
            Some(inner) => place(inner).filter(|place| matches!(place, AllowedPlace::Net(_))),
            None => place(before).filter(|_| !before.contains(':')),
        };
        Ok(Allowed { place: place.ok_or_else(bad)?, port: Some(port) })
    }
}

fn place(text: &str) -> Option<AllowedPlace> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    if let Ok(address) = bare.parse::<IpAddr>() {
        return Some(AllowedPlace::Net(IpNet::from(address.to_canonical())));
    }
    if let Ok(net) = text.parse::<IpNet>() {
        return Some(AllowedPlace::Net(net.trunc()));
    }
    let label = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.');
    if text.is_empty() || !text.chars().all(label) {
        return None;
    }
    match Host::parse(text).ok()? {
        Host::Domain(name) => Some(AllowedPlace::Name(name.trim_end_matches('.').to_owned())).filter(|_| name != "."),
        // An odd spelling of an address, such as `127.1`: what is allowed is written plainly.
        Host::Ipv4(_) | Host::Ipv6(_) => None,
    }
}

impl fmt::Display for Allowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let single = |net: &IpNet| net.prefix_len() == net.max_prefix_len();
        let place = match &self.place {
            AllowedPlace::Net(net) if single(net) => net.addr().to_string(),
            AllowedPlace::Net(net) => net.to_string(),
            AllowedPlace::Name(name) => name.clone(),
        };
        match self.port {
            Some(port) if place.contains(':') => write!(f, "[{place}]:{port}"),
            Some(port) => write!(f, "{place}:{port}"),
            None => f.write_str(&place),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_reads_back() {
        for text in [
            "10.0.0.0/8",
            "10.1.2.3",
            "10.1.2.3:8080",
            "10.0.0.0/8:8080",
            "::1",
            "fd00::/8",
            "[::1]:80",
            "[fd00::/8]:443",
            "crm.internal",
            "crm.internal:8443",
            "localhost",
        ] {
            assert_eq!(text.parse::<Allowed>().map(|a| a.to_string()), Ok(text.to_owned()));
        }
        for (text, plain) in
            [("10.1.2.3/8", "10.0.0.0/8"), ("CRM.Internal.", "crm.internal"), ("::ffff:10.0.0.1", "10.0.0.1")]
        {
            assert_eq!(text.parse::<Allowed>().map(|a| a.to_string()), Ok(plain.to_owned()));
        }
    }

    #[test]
    fn what_is_none_is_refused() {
        for text in [
            "",
            "*",
            "10.0.0.0/33",
            "127.1",
            "0x7f000001",
            "http://a.example",
            "a.example:0",
            "a.example:99999",
            "a b",
            "::1:",
            ".",
        ] {
            assert!(text.parse::<Allowed>().is_err(), "{text}");
        }
    }
}
