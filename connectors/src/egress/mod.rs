//! Where requests may go: judged as a URL is read or saved, and again with every address a name stands for.
//!
//! | file | what it holds |
//! |---|---|
//! | `ranges` | which addresses are not the public internet, and which ports do not speak HTTP |
//! | `allow` | what the operator allows all the same: one entry of `egress.allow` |
//!
//! Whoever may name a host (a definition, metadata of a connection, an answer's next link) must not be able to name the
//! machine we run on, the network beside it, or the place where a cloud hands out its keys. Promises: the host is the one the
//! HTTP client dials, read by the same parser, whatever its spelling; of several addresses of a name all are judged, and one
//! that is refused refuses the name; what is refused is named with its range and what to set.
//! Pure: looks nothing up and dials nothing. Brokers of Kafka are the operator's own choice and are not judged here.

mod allow;
mod ranges;

pub use allow::{Allowed, BadAllowance};

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use url::{Host, Url};

/// Names that are this machine whatever a name server says.
const LOCAL: &str = "localhost";

/// Where requests may go: the public internet, and what is allowed beside it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Egress {
    allow: Vec<Allowed>,
}

/// Why nothing is sent to a URL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Blocked {
    /// The address is none of the public internet.
    #[error(
        "{host} {}is refused: {range}. Nothing is sent there unless the settings allow it: add \"{address}\" to egress.allow",
        of(host, address)
    )]
    Address {
        /// As it stands in the URL.
        host: String,
        /// What it is or stands for.
        address: IpAddr,
        /// What kind of address that is.
        range: String,
    },
    /// What answers at this port speaks another protocol.
    #[error(
        "port {port} of {host} is refused: it belongs to another protocol than HTTP. Where it does speak HTTP, add \
         \"{host}:{port}\" to egress.allow in the settings"
    )]
    Port {
        /// As it stands in the URL.
        host: String,
        /// The port.
        port: u16,
    },
    /// Not `http:` or `https:`.
    #[error("{0}: is not a scheme to send to; use https")]
    Scheme(String),
    /// A user name or password in the URL.
    #[error("a URL must not hold a user name or password: use `auth` in the definition")]
    UserInfo,
    /// No host at all.
    #[error("the URL has no host")]
    NoHost,
}

fn of(host: &str, address: &IpAddr) -> String {
    let plain = host.trim_matches(['[', ']']);
    if plain == address.to_string() { String::new() } else { format!("is {address} and ") }
}

impl Egress {
    /// With these allowances.
    pub fn new(allow: Vec<Allowed>) -> Egress {
        Egress { allow }
    }

    /// With this machine allowed: for the demo, tests and development.
    pub fn loopback() -> Egress {
        let nets = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        Egress { allow: nets.map(|address| Allowed::net(address, if address.is_ipv4() { 8 } else { 128 })).into() }
    }

    /// Ports with allowances of their own.
    pub fn ports(&self) -> BTreeSet<u16> {
        self.allow.iter().filter_map(Allowed::port).collect()
    }

    /// Judges a URL as far as it says where it leads: scheme, sign-in, port, and the host if it is an address. The addresses
    /// of a name are judged once they are known, by [`judge_answers`](Egress::judge_answers).
    pub fn judge(&self, url: &Url) -> Result<(), Blocked> {
        if !matches!(url.scheme(), "http" | "https") {
            return Err(Blocked::Scheme(url.scheme().to_owned()));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Blocked::UserInfo);
        }
        let port = url.port_or_known_default();
        let shown = url.host_str().unwrap_or_default();
        match url.host() {
            None => Err(Blocked::NoHost),
            Some(Host::Ipv4(address)) => self.judge_address(shown, address.into(), port),
            Some(Host::Ipv6(address)) => self.judge_address(shown, address.into(), port),
            Some(Host::Domain(name)) => self.judge_name(name, port),
        }
    }

    /// Judges everything a name stands for; `port` is the one that is dialled, as far as it matters here.
    pub fn judge_answers(&self, host: &str, port: Option<u16>, answers: &[IpAddr]) -> Result<(), Blocked> {
        if self.allow.iter().any(|allowed| allowed.has_name(host, port)) {
            return Ok(());
        }
        answers.iter().try_for_each(|address| self.judge_address(host, *address, port))
    }

    fn judge_name(&self, name: &str, port: Option<u16>) -> Result<(), Blocked> {
        if self.allow.iter().any(|allowed| allowed.has_name(name, port)) {
            return Ok(());
        }
        if let Some(port) = port.filter(|port| ranges::speaks_no_http(*port) && !self.ports().contains(port)) {
            return Err(Blocked::Port { host: name.to_owned(), port });
        }
        let plain = name.trim_end_matches('.');
        let local = plain == LOCAL || plain.ends_with(".localhost");
        // Some machines have but one of the two: which one it is shows when it is looked up.
        let allowed = |address: IpAddr| self.allow.iter().any(|allowed| allowed.has(address, port));
        if local && !allowed(Ipv4Addr::LOCALHOST.into()) && !allowed(Ipv6Addr::LOCALHOST.into()) {
            return self.judge_address(name, Ipv4Addr::LOCALHOST.into(), port);
        }
        Ok(())
    }

    fn judge_address(&self, host: &str, address: IpAddr, port: Option<u16>) -> Result<(), Blocked> {
        // `::ffff:10.0.0.1` is dialled as 10.0.0.1, so it is judged and allowed as that.
        let address = address.to_canonical();
        if let Some(port) = port.filter(|port| ranges::speaks_no_http(*port)) {
            let named =
                self.allow.iter().any(|allowed| allowed.port() == Some(port) && allowed.has(address, Some(port)));
            return if named { Ok(()) } else { Err(Blocked::Port { host: host.to_owned(), port }) };
        }
        match ranges::of(address) {
            Some(range) if !self.allow.iter().any(|allowed| allowed.has(address, port)) => {
                Err(Blocked::Address { host: host.to_owned(), address, range: range.to_string() })
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Egress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<String> = self.allow.iter().map(Allowed::to_string).collect();
        f.write_str(&all.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(allow: &[&str], url: &str) -> Result<(), Blocked> {
        let allow = allow.iter().map(|text| text.parse().expect("an allowance")).collect();
        Egress::new(allow).judge(&Url::parse(url).expect("a URL"))
    }

    #[test]
    fn the_public_internet_needs_no_allowance() {
        for url in ["https://api.example.com/x", "https://93.184.216.34", "https://[2606:2800:220:1::1]:8443/"] {
            assert_eq!(judged(&[], url), Ok(()), "{url}");
        }
    }

    #[test]
    fn what_is_refused_is_named_with_its_range_and_what_to_set() {
        let said = |url| judged(&[], url).expect_err("refused").to_string();
        let private = said("http://10.1.2.3/x");
        assert!(private.starts_with("10.1.2.3 is refused: private (10.0.0.0/8)."), "{private}");
        assert!(private.ends_with("add \"10.1.2.3\" to egress.allow"), "{private}");
        assert!(said("http://localhost:1234/").contains("localhost is 127.0.0.1 and is refused: loopback"));
        assert!(said("http://[::ffff:169.254.169.254]/").contains("cloud metadata"));
        assert!(said("http://a.example:6379/").contains("add \"a.example:6379\" to egress.allow"));
        assert!(matches!(judged(&[], "ftp://a.example/"), Err(Blocked::Scheme(_))));
        assert_eq!(judged(&["127.0.0.1"], "http://user@127.0.0.1/"), Err(Blocked::UserInfo));
    }

    #[test]
    fn allowances_are_as_wide_as_they_say() {
        let url = "http://10.1.2.3:8080/";
        for allow in ["10.0.0.0/8", "10.1.2.3", "10.1.2.3:8080", "10.0.0.0/8:8080"] {
            assert_eq!(judged(&[allow], url), Ok(()), "{allow}");
        }
        for allow in ["10.1.2.4", "10.1.2.3:8081", "11.0.0.0/8", "a.example"] {
            assert!(judged(&[allow], url).is_err(), "{allow}");
        }
        assert_eq!(judged(&["::1"], "http://[::1]:80/"), Ok(()));
        assert_eq!(judged(&["[::1]:80"], "http://[::1]:80/"), Ok(()));
        assert_eq!(judged(&["127.0.0.0/8"], "http://localhost:80/"), Ok(()));
        assert_eq!(judged(&["localhost:81"], "http://LOCALHOST.:81/"), Ok(()));
        // A port of another protocol is allowed by its number alone.
        assert!(judged(&["127.0.0.0/8"], "http://127.0.0.1:22/").is_err());
        assert_eq!(judged(&["127.0.0.1:22"], "http://127.0.0.1:22/"), Ok(()));
    }

    #[test]
    fn one_refused_answer_refuses_the_name() {
        let public: IpAddr = "93.184.216.34".parse().expect("an address");
        let private: IpAddr = "fd00::1".parse().expect("an address");
        let strict = Egress::default();
        assert_eq!(strict.judge_answers("a.example", None, &[public]), Ok(()));
        for answers in [[public, private], [private, public]] {
            assert!(matches!(strict.judge_answers("a.example", None, &answers), Err(Blocked::Address { .. })));
        }
        let named = Egress::new(vec!["a.example:8080".parse().expect("an allowance")]);
        assert_eq!(named.judge_answers("a.example", Some(8080), &[private]), Ok(()));
        assert!(named.judge_answers("a.example", None, &[private]).is_err(), "another port");
        assert!(named.judge_answers("b.example", Some(8080), &[private]).is_err(), "another name");
    }
}
