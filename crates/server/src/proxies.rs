//! Who a request is from when it came through a reverse proxy.
//!
//! `X-Forwarded-For` is a list to which every proxy adds, on its right, who it was asked
//! by.  Anybody can send one, so it is believed only from a peer that the operator trusts,
//! and only as far as trusted proxies wrote it: from the right, the first address that is
//! no trusted proxy is the client.  What stands further left is the client's own word.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use anyhow::{Context, Result, bail};
use axum::http::HeaderMap;

/// The header.
const FORWARDED_FOR: &str = "x-forwarded-for";

/// Addresses in one header that are looked at.  Higher: a request with a long one costs
/// time; lower: a client behind many proxies is seen as one of them.
const HOPS_MAX: usize = 32;

/// A network, or one address: `10.0.0.0/8`, `::1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Network {
    address: IpAddr,
    bits: u8,
}

impl Network {
    fn has(self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(mine), IpAddr::V4(other)) => {
                let differ = mine.to_bits() ^ other.to_bits();
                differ.leading_zeros() >= u32::from(self.bits)
            }
            (IpAddr::V6(mine), IpAddr::V6(other)) => {
                let differ = mine.to_bits() ^ other.to_bits();
                differ.leading_zeros() >= u32::from(self.bits)
            }
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let what = || {
            format!("'{text}' is no address of a proxy: write one like 10.0.0.7, ::1 or 10.0.0.0/8")
        };
        let address: IpAddr = address.trim().parse().with_context(what)?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            Some(bits) => bits.trim().parse().with_context(what)?,
            None => most,
        };
        if bits > most {
            bail!(what());
        }
        Ok(Self { address, bits })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

/// The proxies whose word is taken; none, unless the operator says so.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct TrustedProxies(Vec<Network>);

impl TrustedProxies {
    /// Reads networks and addresses; each text may have several, with commas or blanks
    /// between them.
    pub(crate) fn parse<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self> {
        let words = texts
            .into_iter()
            .flat_map(|text| text.split([',', ' ']))
            .filter(|word| !word.is_empty());
        Ok(Self(words.map(str::parse).collect::<Result<_>>()?))
    }

    fn has(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.has(address))
    }

    /// Who a request is from that came from `peer` with these headers.
    pub(crate) fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = peer.to_canonical();
        // The common case: no proxy, or none that is trusted.
        if !self.has(client) {
            return client;
        }
        let lines = headers.get_all(FORWARDED_FOR);
        let lines = lines.iter().rev();
        let hops = lines.flat_map(|line| line.to_str().unwrap_or_default().rsplit(','));
        for hop in hops.take(HOPS_MAX) {
            // Behind what does not read, nothing is known: the proxy that wrote it is
            // the last one that is.
            let Some(address) = address(hop.trim()) else {
                return client;
            };
            client = address;
            if !self.has(client) {
                return client;
            }
        }
        client
    }
}

/// An address, as some proxies write it with a port.
fn address(text: &str) -> Option<IpAddr> {
    let plain = text.parse::<IpAddr>().ok();
    let with_port = || text.parse::<SocketAddr>().ok().map(|socket| socket.ip());
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    let found = plain.or_else(with_port).or_else(bracketed);
    found.map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(trusted: &str, peer: &str, lines: &[&str], client: &str) {
        let trusted = TrustedProxies::parse([trusted]).expect("networks");
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(FORWARDED_FOR, line.parse().expect("a header"));
        }
        let found = trusted.client(peer.parse().expect("an address"), &headers);
        assert_eq!(found.to_string(), client, "{trusted:?} {peer} {lines:?}");
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        let net = "10.0.0.0/8, ::1";
        check("", "10.0.0.1", &["203.0.113.9"], "10.0.0.1");
        check(net, "192.0.2.1", &["203.0.113.9"], "192.0.2.1");
        check(net, "10.0.0.1", &[], "10.0.0.1");
        check(net, "10.0.0.1", &["203.0.113.9"], "203.0.113.9");
        check(net, "::1", &["203.0.113.9"], "203.0.113.9");
        check(net, "::ffff:10.0.0.1", &["203.0.113.9"], "203.0.113.9");
    }

    #[test]
    fn what_the_client_wrote_itself_is_not_believed() {
        let net = "10.0.0.0/8";
        check(net, "10.0.0.1", &["1.1.1.1, 203.0.113.9"], "203.0.113.9");
        check(
            net,
            "10.0.0.1",
            &["1.1.1.1, 203.0.113.9, 10.2.3.4"],
            "203.0.113.9",
        );
        check(
            net,
            "10.0.0.1",
            &["1.1.1.1", "203.0.113.9", "10.2.3.4"],
            "203.0.113.9",
        );
        // Everybody is a proxy of ours: the one furthest away is the client.
        check(net, "10.0.0.1", &["10.9.9.9, 10.2.3.4"], "10.9.9.9");
        check(
            net,
            "10.0.0.1",
            &["203.0.113.9, unknown, 10.2.3.4"],
            "10.2.3.4",
        );
        check(net, "10.0.0.1", &["unknown"], "10.0.0.1");
        check(net, "10.0.0.1", &[""], "10.0.0.1");
        let long = vec!["10.1.1.1"; 1_000].join(",");
        check(
            net,
            "10.0.0.1",
            &[&format!("203.0.113.9,{long}")],
            "10.1.1.1",
        );
    }

    #[test]
    fn addresses_are_read_as_proxies_write_them() {
        let net = "10.0.0.1";
        check(net, "10.0.0.1", &["203.0.113.9:4711"], "203.0.113.9");
        check(net, "10.0.0.1", &["[2001:db8::7]:4711"], "2001:db8::7");
        check(net, "10.0.0.1", &["[2001:db8::7]"], "2001:db8::7");
        check(net, "10.0.0.1", &["2001:db8::7"], "2001:db8::7");
        check(net, "10.0.0.1", &["::ffff:203.0.113.9"], "203.0.113.9");
        check(
            "2001:db8::/32",
            "2001:db8:1::1",
            &["192.0.2.1"],
            "192.0.2.1",
        );
        check("0.0.0.0/0", "2001:db8::1", &["192.0.2.1"], "2001:db8::1");
    }

    #[test]
    fn what_is_no_network_is_refused_in_words() {
        for bad in [
            "10.0.0.0/33",
            "::/129",
            "proxy.example",
            "10.0.0.0/",
            "10.0.0/8",
        ] {
            let error = TrustedProxies::parse([bad]).expect_err(bad);
            assert!(error.to_string().contains(bad), "{error}");
        }
        let two = TrustedProxies::parse(["10.0.0.0/8", "::1, 127.0.0.1"]).expect("three");
        assert_eq!(two.0.len(), 3);
        assert_eq!(two.0[1].to_string(), "::1/128");
    }
}
