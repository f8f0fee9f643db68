//! Which addresses are not the public internet, and which ports do not speak HTTP.
//!
//! After the registries of special purpose addresses of IANA. Of version 6 only global unicast (2000::/3) is public, without
//! what is set apart inside of it. Addresses that carry one of version 4 are judged by it where they are still in use (mapped
//! ones, NAT64); those of dead transitions (compatible, translated, 6to4, Teredo, ISATAP) are refused whatever they carry.

use ipnet::{Ipv4Net, Ipv6Net};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Why an address is not the public internet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Range {
    name: &'static str,
    net: String,
    /// The address it carries, if that is the reason.
    inner: Option<Ipv4Addr>,
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.inner {
            Some(inner) => write!(f, "it carries {inner}, {} ({})", self.name, self.net),
            None => write!(f, "{} ({})", self.name, self.net),
        }
    }
}

const fn v4(a: u8, b: u8, c: u8, d: u8, bits: u8, name: &'static str) -> (Ipv4Net, &'static str) {
    (Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), bits), name)
}

const fn v6(at: [u16; 8], bits: u8, name: &'static str) -> (Ipv6Net, &'static str) {
    let [a, b, c, d, e, f, g, h] = at;
    (Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, e, f, g, h), bits), name)
}

/// The narrowest first: the first that fits gives its name.
const V4: [(Ipv4Net, &str); 23] = [
    v4(169, 254, 169, 254, 32, "cloud metadata"),
    v4(169, 254, 170, 2, 32, "cloud metadata"),
    v4(100, 100, 100, 200, 32, "cloud metadata"),
    v4(192, 0, 0, 192, 32, "cloud metadata"),
    v4(168, 63, 129, 16, 32, "cloud platform"),
    v4(0, 0, 0, 0, 8, "this network, unspecified"),
    v4(10, 0, 0, 0, 8, "private"),
    v4(100, 64, 0, 0, 10, "shared by a carrier (CGNAT)"),
    v4(127, 0, 0, 0, 8, "loopback"),
    v4(169, 254, 0, 0, 16, "link-local"),
    v4(172, 16, 0, 0, 12, "private"),
    v4(192, 0, 0, 0, 24, "protocol assignments"),
    v4(192, 0, 2, 0, 24, "documentation"),
    v4(192, 31, 196, 0, 24, "AS112"),
    v4(192, 52, 193, 0, 24, "AMT"),
    v4(192, 88, 99, 0, 24, "6to4 relays"),
    v4(192, 168, 0, 0, 16, "private"),
    v4(192, 175, 48, 0, 24, "AS112"),
    v4(198, 18, 0, 0, 15, "benchmarking"),
    v4(198, 51, 100, 0, 24, "documentation"),
    v4(203, 0, 113, 0, 24, "documentation"),
    v4(224, 0, 0, 0, 4, "multicast"),
    v4(240, 0, 0, 0, 4, "reserved, broadcast"),
];

const V6: [(Ipv6Net, &str); 21] = [
    v6([0, 0, 0, 0, 0, 0, 0, 0], 128, "unspecified"),
    v6([0, 0, 0, 0, 0, 0, 0, 1], 128, "loopback"),
    v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254], 128, "cloud metadata"),
    v6([0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254], 128, "cloud metadata"),
    v6([0, 0, 0, 0, 0, 0, 0, 0], 96, "version 4 compatible"),
    v6([0, 0, 0, 0, 0xffff, 0, 0, 0], 96, "version 4 translated"),
    v6([0x64, 0xff9b, 1, 0, 0, 0, 0, 0], 48, "NAT64 of a local network"),
    v6([0x100, 0, 0, 0, 0, 0, 0, 0], 64, "discarded"),
    v6([0x100, 0, 0, 1, 0, 0, 0, 0], 64, "dummy"),
    v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 32, "Teredo"),
    v6([0x2001, 2, 0, 0, 0, 0, 0, 0], 48, "benchmarking"),
    v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 23, "protocol assignments"),
    v6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32, "documentation"),
    v6([0x2002, 0, 0, 0, 0, 0, 0, 0], 16, "6to4"),
    v6([0x2620, 0x4f, 0x8000, 0, 0, 0, 0, 0], 48, "AS112"),
    v6([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20, "documentation"),
    v6([0x5f00, 0, 0, 0, 0, 0, 0, 0], 16, "segment routing"),
    v6([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7, "private (unique local)"),
    v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10, "link-local"),
    v6([0xfec0, 0, 0, 0, 0, 0, 0, 0], 10, "private (site-local)"),
    v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8, "multicast"),
];

const GLOBAL: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);
const NAT64: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), 96);

/// Ports at which something else than HTTP answers: mail, shells, name servers, databases, brokers, caches.
const NOT_HTTP: [u16; 108] = [
    0, 1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 88, 95, 101, 102, 103, 104,
    109, 110, 111, 113, 115, 117, 119, 123, 135, 137, 138, 139, 143, 161, 179, 389, 427, 445, 465, 512, 513, 514, 515,
    526, 530, 531, 532, 540, 548, 554, 556, 563, 587, 601, 636, 873, 989, 990, 993, 995, 1080, 1433, 1434, 1521, 1719,
    1720, 1723, 2049, 2181, 3128, 3268, 3306, 3389, 3659, 4045, 4190, 5060, 5061, 5432, 5672, 5900, 6000, 6379, 6380,
    6432, 6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697, 9042, 9092, 10080, 11211, 26379, 27017, 27018,
];

/// Why this is not an address of the public internet; `None` if it is one. Mapped addresses come as the ones they carry.
pub(super) fn of(address: IpAddr) -> Option<Range> {
    match address {
        IpAddr::V4(address) => of_v4(address),
        IpAddr::V6(address) => of_v6(address),
    }
}

fn of_v4(address: Ipv4Addr) -> Option<Range> {
    let (net, name) = V4.iter().find(|(net, _)| net.contains(&address))?;
    Some(Range { name, net: net.to_string(), inner: None })
}

fn of_v6(address: Ipv6Addr) -> Option<Range> {
    if let Some(inner) = address.to_ipv4_mapped() {
        return of_v4(inner);
    }
    let [.., a, b, c, d] = address.octets();
    let last = Ipv4Addr::new(a, b, c, d);
    if NAT64.contains(&address) {
        return of_v4(last).map(|range| Range { inner: Some(last), ..range });
    }
    if let Some((net, name)) = V6.iter().find(|(net, _)| net.contains(&address)) {
        return Some(Range { name, net: net.to_string(), inner: None });
    }
    let segments = address.segments();
    if segments[4] & 0xfdff == 0 && segments[5] == 0x5efe {
        return Some(Range { name: "ISATAP", net: format!("…:5efe:{last}"), inner: None });
    }
    (!GLOBAL.contains(&address)).then(|| Range { name: "not global unicast", net: GLOBAL.to_string(), inner: None })
}

/// Whether something else than HTTP answers at this port, wherever it is.
pub(super) fn speaks_no_http(port: u16) -> bool {
    NOT_HTTP.contains(&port)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(text: &str) -> Option<String> {
        of(text.parse::<IpAddr>().expect("an address").to_canonical()).map(|range| range.name.to_owned())
    }

    #[test]
    fn both_ends_of_each_range_and_their_neighbours() {
        for (net, _) in V4 {
            assert!(of_v4(net.network()).is_some() && of_v4(net.broadcast()).is_some(), "{net}");
        }
        for (net, _) in V6 {
            assert!(of_v6(net.network()).is_some() && of_v6(net.broadcast()).is_some(), "{net}");
        }
        for public in [
            "1.0.0.0",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "169.253.255.255",
            "169.255.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.0",
            "192.0.3.0",
            "192.167.255.255",
            "192.169.0.0",
            "198.17.255.255",
            "198.20.0.0",
            "198.51.99.255",
            "203.0.112.255",
            "223.255.255.255",
            "2001:200::1",
            "2001:4860:4860::8888",
            "2003::1",
            "2606:4700::1111",
            "3ffe:ffff::1",
            "64:ff9b::8.8.8.8",
            "::ffff:8.8.8.8",
        ] {
            assert_eq!(named(public), None, "{public}");
        }
    }

    #[test]
    fn what_carries_an_address_is_judged_by_it_or_refused() {
        assert_eq!(named("::ffff:10.0.0.1").as_deref(), Some("private"));
        assert_eq!(named("64:ff9b::169.254.169.254").as_deref(), Some("cloud metadata"));
        assert_eq!(named("64:ff9b:1::8.8.8.8").as_deref(), Some("NAT64 of a local network"));
        assert_eq!(named("::127.0.0.1").as_deref(), Some("version 4 compatible"));
        assert_eq!(named("::ffff:0:127.0.0.1").as_deref(), Some("version 4 translated"));
        assert_eq!(named("2002:7f00:1::").as_deref(), Some("6to4"));
        assert_eq!(named("2001:0:4136:e378:8000:63bf:80ff:fffe").as_deref(), Some("Teredo"));
        assert_eq!(named("2606:4700::5efe:10.0.0.1").as_deref(), Some("ISATAP"));
        assert_eq!(named("fd00:ec2::254").as_deref(), Some("cloud metadata"));
        assert_eq!(named("4000::1").as_deref(), Some("not global unicast"));
    }
}
