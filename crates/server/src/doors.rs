//! Where people, and the runner of this machine, come in.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use anyhow::{Context, Result};
use axum_server::Handle;
use tokio::task::JoinSet;

use crate::config::Settings;
use crate::listen::{self, Ender};
use crate::rest::{self, App};

/// The listeners and what leads to them.
pub(crate) struct Doors {
    listener: TcpListener,
    /// With TLS the runner comes in by a door of its own: no certificate names loopback.
    local: Option<TcpListener>,
    /// S3, if it is spoken.
    s3: Option<TcpListener>,
    pub(crate) tls: Option<axum_server::tls_rustls::RustlsConfig>,
    /// What people are told.
    pub(crate) url: String,
    /// What this machine uses.
    pub(crate) local_url: String,
    /// Where S3 is spoken, as people are told.
    pub(crate) s3_url: Option<String>,
}

impl Doors {
    /// Binds.
    pub(crate) async fn open(settings: &Settings) -> Result<Self> {
        let listener = listen::bind(settings.listen)?;
        let address = listener
            .local_addr()
            .context("cannot tell the own address")?;
        let tls = match &settings.tls {
            Some(files) => Some(listen::tls(files).await?),
            None => None,
        };
        let local = tls
            .is_some()
            .then(|| listen::bind((Ipv4Addr::LOCALHOST, 0).into()))
            .transpose()?;
        let local_address = match &local {
            Some(local) => local.local_addr().context("cannot tell the own address")?,
            None => reachable(address),
        };
        warn_if_open(address, tls.is_some());
        let own = own_url(address, tls.is_some());
        let (s3, s3_url) = match settings.s3_listen {
            None => (None, None),
            Some(wanted) => {
                let listener = listen::bind(wanted)?;
                let address = listener
                    .local_addr()
                    .context("cannot tell the own address")?;
                warn_if_open(address, tls.is_some());
                let url = settings.s3_url.clone();
                let url = url.unwrap_or_else(|| own_url(address, tls.is_some()));
                tracing::info!("S3 is spoken on {url}");
                (Some(listener), Some(url))
            }
        };
        Ok(Self {
            listener,
            local,
            s3,
            tls,
            url: settings.url.clone().unwrap_or(own),
            local_url: format!("http://{local_address}"),
            s3_url,
        })
    }

    /// Begins to answer.
    pub(crate) fn serve(self, app: &App) -> (Vec<Ender>, JoinSet<std::io::Result<()>>) {
        let mut listeners = JoinSet::new();
        let ender: Ender = Handle::new();
        let router = rest::router(app.clone());
        let tls = self.tls.clone();
        listeners.spawn(listen::serve(self.listener, router, tls, ender.clone()));
        let mut enders = vec![ender];
        if let Some(s3) = self.s3 {
            let ender: Ender = Handle::new();
            let router = crate::s3::router(app.clone());
            listeners.spawn(listen::serve(s3, router, self.tls, ender.clone()));
            enders.push(ender);
        }
        if let Some(local) = self.local {
            let ender: Ender = Handle::new();
            let router = rest::runner_router(app.clone());
            listeners.spawn(listen::serve(local, router, None, ender.clone()));
            enders.push(ender);
        }
        (enders, listeners)
    }
}

/// Where a listener is, for people.
fn own_url(address: SocketAddr, is_tls: bool) -> String {
    let near = reachable(address);
    match is_tls {
        // Certificates name hosts.
        true if near.ip().is_loopback() => format!("https://localhost:{}", near.port()),
        true => format!("https://{near}"),
        false => format!("http://{near}"),
    }
}

fn warn_if_open(address: SocketAddr, is_tls: bool) {
    if !is_tls && !address.ip().is_loopback() {
        tracing::warn!(
            %address,
            "plain HTTP on other than loopback: keys and data can be read on the way; \
             give --tls-cert and --tls-key, or put a proxy with HTTPS before it"
        );
    }
}

/// The address under which this machine reaches a listener.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_on_every_address_is_reached_by_loopback() {
        for (listening, reached) in [
            ("0.0.0.0:80", "127.0.0.1:80"),
            ("[::]:80", "[::1]:80"),
            ("192.0.2.1:80", "192.0.2.1:80"),
            ("127.0.0.1:80", "127.0.0.1:80"),
        ] {
            let listening: SocketAddr = listening.parse().expect("an address");
            assert_eq!(reachable(listening).to_string(), reached);
        }
    }
}
