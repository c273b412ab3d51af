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
    pub(crate) tls: Option<axum_server::tls_rustls::RustlsConfig>,
    /// What people are told.
    pub(crate) url: String,
    /// What this machine uses.
    pub(crate) local_url: String,
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
        let near = reachable(address);
        let own = match &tls {
            // Certificates name hosts.
            Some(_) if near.ip().is_loopback() => format!("https://localhost:{}", near.port()),
            Some(_) => format!("https://{near}"),
            None => format!("http://{near}"),
        };
        if tls.is_none() && !address.ip().is_loopback() {
            tracing::warn!(
                %address,
                "plain HTTP on other than loopback: keys and data can be read on the way; \
                 give --tls-cert and --tls-key, or put a proxy with HTTPS before it"
            );
        }
        Ok(Self {
            listener,
            local,
            tls,
            url: settings.url.clone().unwrap_or(own),
            local_url: format!("http://{local_address}"),
        })
    }

    /// Begins to answer.
    pub(crate) fn serve(self, app: &App) -> (Vec<Ender>, JoinSet<std::io::Result<()>>) {
        let mut listeners = JoinSet::new();
        let ender: Ender = Handle::new();
        let router = rest::router(app.clone());
        listeners.spawn(listen::serve(
            self.listener,
            router,
            self.tls,
            ender.clone(),
        ));
        let mut enders = vec![ender];
        if let Some(local) = self.local {
            let ender: Ender = Handle::new();
            let router = rest::runner_router(app.clone());
            listeners.spawn(listen::serve(local, router, None, ender.clone()));
            enders.push(ender);
        }
        (enders, listeners)
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
