//! Fetching what somebody gave an address of.
//!
//! The server can reach what people cannot: itself, its neighbours, and the address at which
//! clouds hand out keys to whoever asks from inside.  So where an address leads is looked at
//! on every hop, by number and not by name, and what is not the open network is refused
//! unless whoever runs the server allows it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::Policy;
use reqwest::{Client, ClientBuilder, Response, Url};

use crate::error::{Error, Result};

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// How long the other side may be silent.  Higher: a dead one holds a job; lower: slow ones
/// that make an archive as they send it fail.
const READ_TIMEOUT: Duration = Duration::from_secs(120);

/// The same of a bucket, which has its objects ready: whoever waits here for what it says, a
/// person or a machine that mounts, hangs up after a minute, and a silent one is asked twice.
/// Higher: they are told of no reason; lower: busy servers of buckets fail.
const BUCKET_READ_TIMEOUT: Duration = Duration::from_secs(20);

/// Hops that are followed.
const REDIRECTS_MAX: usize = 5;

/// Addresses at which clouds hand out keys, beside the link-local ones.
const METADATA: [IpAddr; 3] = [
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
];

/// Begins to fetch.
pub(super) async fn get(url: &str, is_private_allowed: bool) -> Result<Response> {
    let url = checked(url, is_private_allowed)?;
    let policy = Policy::custom(move |attempt| {
        if attempt.previous().len() > REDIRECTS_MAX {
            return attempt.error("it leads on and on");
        }
        match check_url(attempt.url(), is_private_allowed) {
            Ok(()) => attempt.follow(),
            Err(error) => attempt.error(error.to_string()),
        }
    });
    let client = builder(is_private_allowed)
        .redirect(policy)
        .build()
        .map_err(Error::internal)?;
    let response = client.get(url).send().await.map_err(refused)?;
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    if status.is_server_error() || status.as_u16() == 429 {
        return Err(Error::Unavailable(format!("the address answered {status}")));
    }
    Err(Error::invalid(format!("the address answered {status}")))
}

/// Makes connections to a bucket where the server may look, and follows nobody elsewhere.
pub(super) fn client(is_private_allowed: bool) -> reqwest::Result<Client> {
    builder(is_private_allowed)
        .read_timeout(BUCKET_READ_TIMEOUT)
        .redirect(Policy::none())
        .build()
}

fn builder(is_private_allowed: bool) -> ClientBuilder {
    Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(READ_TIMEOUT)
        .referer(false)
        // A proxy would look names up by itself, and reach what is refused here.
        .no_proxy()
        .user_agent(concat!("grid/", env!("CARGO_PKG_VERSION")))
        .dns_resolver(Arc::new(Guarded { is_private_allowed }))
}

fn refused(error: reqwest::Error) -> Error {
    let is_passing = error.is_timeout() || error.is_connect();
    let error = error.without_url();
    let mut words = format!("the address cannot be fetched: {error}");
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        words = format!("{words}: {error}");
        cause = error.source();
    }
    // Whoever refuses to connect may do so another time; what is refused here, never.
    if is_passing && !words.contains("not fetched") && !words.contains("never fetched") {
        Error::Unavailable(words)
    } else {
        Error::invalid(words)
    }
}

/// Reads an address, and refuses one that is never fetched.
pub(super) fn checked(url: &str, is_private_allowed: bool) -> Result<Url> {
    let parsed = Url::parse(url)
        .map_err(|error| Error::invalid(format!("'{url}' is no address: {error}")))?;
    check_url(&parsed, is_private_allowed)?;
    Ok(parsed)
}

fn check_url(url: &Url, is_private_allowed: bool) -> Result<()> {
    if !matches!(url.scheme(), "http" | "https") {
        return Err(Error::invalid("only http:// and https:// are fetched"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Error::invalid_hint(
            "an address with a password in it is not fetched: everybody in the team would see it",
            "download the archive, and create the datastore from the file",
        ));
    }
    let host = url.host_str().unwrap_or_default();
    let bare = host.trim_matches(['[', ']']);
    match bare.parse::<IpAddr>() {
        Ok(address) => check_address(address, is_private_allowed),
        Err(_) => Ok(()),
    }
}

/// Refuses addresses that are not the open network.
fn check_address(address: IpAddr, is_private_allowed: bool) -> Result<()> {
    match kind_of(address) {
        Kind::Open => Ok(()),
        Kind::Private if is_private_allowed => Ok(()),
        Kind::Private => Err(Error::invalid_hint(
            format!("{address} is an address inside: it is not fetched"),
            "whoever runs the server can allow it: fetch_private = true in server.toml",
        )),
        Kind::Never => Err(Error::invalid(format!(
            "{address} is an address that is never fetched"
        ))),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Open,
    Private,
    Never,
}

fn kind_of(address: IpAddr) -> Kind {
    if METADATA.contains(&address) {
        return Kind::Never;
    }
    match address {
        IpAddr::V4(v4) => kind_of_v4(v4),
        IpAddr::V6(v6) => kind_of_v6(v6),
    }
}

fn kind_of_v4(address: Ipv4Addr) -> Kind {
    let [a, b, c, _] = address.octets();
    // Kept for protocols of one network, and for what once led from IPv4 to IPv6.
    let is_of_protocols = matches!([a, b, c], [192, 0, 0] | [192, 88, 99]);
    let is_shared = a == 100 && (64..128).contains(&b);
    let is_benchmark = a == 198 && (18..20).contains(&b);
    if address.is_link_local() || address.is_multicast() || address.is_broadcast() || a == 0 {
        Kind::Never
    } else if address.is_loopback()
        || address.is_private()
        || is_shared
        || is_benchmark
        || is_of_protocols
        || a >= 240
    {
        Kind::Private
    } else {
        Kind::Open
    }
}

fn kind_of_v6(address: Ipv6Addr) -> Kind {
    // An IPv4 address in the dress of IPv6 is judged as what it is.
    if let Some(v4) = address.to_ipv4_mapped() {
        return kind_of(v4.into());
    }
    let parts = address.segments();
    if parts[..6] == [0x64, 0xff9b, 0, 0, 0, 0] || (parts[0] == 0x2002) {
        let at = if parts[0] == 0x2002 { 1 } else { 6 };
        let [a, b] = parts[at].to_be_bytes();
        let [c, d] = parts[at + 1].to_be_bytes();
        return kind_of(Ipv4Addr::new(a, b, c, d).into());
    }
    // Where a network of one's own translates to IPv4, to which address only it knows.
    let is_translated = parts[..3] == [0x64, 0xff9b, 1];
    // What unique local addresses were called before.
    let is_site_local = parts[0] & 0xffc0 == 0xfec0;
    if address.is_unicast_link_local()
        || address.is_multicast()
        || address.is_unspecified()
        || is_translated
    {
        Kind::Never
    } else if address.is_loopback() || address.is_unique_local() || is_site_local {
        Kind::Private
    } else {
        Kind::Open
    }
}

/// Looks names up, and forgets what they must not lead to.
struct Guarded {
    is_private_allowed: bool,
}

impl Resolve for Guarded {
    fn resolve(&self, name: Name) -> Resolving {
        let is_private_allowed = self.is_private_allowed;
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let (mut good, mut why) = (Vec::new(), None);
            for address in found {
                match check_address(address.ip(), is_private_allowed) {
                    Ok(()) => good.push(address),
                    Err(error) => why = Some(error),
                }
            }
            match why {
                Some(error) if good.is_empty() => Err(error.into()),
                _ => Ok(Box::new(good.into_iter()) as Addrs),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_inside_is_told_from_what_is_outside() {
        for (address, expected) in [
            ("93.184.216.34", Kind::Open),
            ("2606:2800:220:1:248:1893:25c8:1946", Kind::Open),
            ("127.0.0.1", Kind::Private),
            ("10.1.2.3", Kind::Private),
            ("192.168.0.1", Kind::Private),
            ("172.31.0.1", Kind::Private),
            ("100.64.0.1", Kind::Private),
            ("::1", Kind::Private),
            ("fd12::1", Kind::Private),
            ("169.254.169.254", Kind::Never),
            ("100.100.100.200", Kind::Never),
            ("fd00:ec2::254", Kind::Never),
            ("fe80::1", Kind::Never),
            ("0.0.0.0", Kind::Never),
            ("::", Kind::Never),
            ("::ffff:169.254.169.254", Kind::Never),
            ("::ffff:127.0.0.1", Kind::Private),
            ("64:ff9b::a9fe:a9fe", Kind::Never),
            ("2002:7f00:1::", Kind::Private),
            ("192.0.0.1", Kind::Private),
            ("192.0.1.1", Kind::Open),
            ("192.88.99.1", Kind::Private),
            ("192.88.98.1", Kind::Open),
            ("fec0::1", Kind::Private),
            ("feff::1", Kind::Private),
            ("64:ff9b:1::a9fe:a9fe", Kind::Never),
            ("64:ff9b:1:2::1", Kind::Never),
        ] {
            let parsed: IpAddr = address.parse().expect("an address");
            assert_eq!(kind_of(parsed), expected, "{address}");
        }
    }

    #[test]
    fn an_address_is_looked_at_before_it_is_fetched() {
        for (url, is_allowed, expected) in [
            ("https://example.org/x.zip", false, ""),
            ("http://127.0.0.1:8000/x.zip", true, ""),
            ("http://127.0.0.1:8000/x.zip", false, "inside"),
            ("http://[::1]/x", false, "inside"),
            ("http://169.254.169.254/latest", true, "never"),
            ("http://2852039166/latest", true, "never"),
            ("http://[::ffff:a9fe:a9fe]/", true, "never"),
            ("ftp://example.org/x", true, "only http"),
            ("https://ada:pw@example.org/x", true, "password"),
            ("x", true, "no address"),
        ] {
            let found = checked(url, is_allowed).map_err(|error| error.to_string());
            match found {
                Ok(_) => assert_eq!(expected, "", "{url}"),
                Err(error) => {
                    assert!(
                        !expected.is_empty() && error.contains(expected),
                        "{url}: {error}"
                    );
                }
            }
        }
    }
}
