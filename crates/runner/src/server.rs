//! The runner's way to the server, which may be away, move and come back.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use grid_api::client::{Auth, Client, Error};

use crate::settings::{self, Config, Settings};

/// The first pause after a failed request.  Higher: a server that was only started
/// anew is found later; lower: one that is away costs more.
pub(crate) const PAUSE_MIN: Duration = Duration::from_millis(100);

/// The longest pause between two tries.
pub(crate) const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Pauses that grow.
#[derive(Debug)]
pub(crate) struct Backoff(Duration);

impl Backoff {
    pub(crate) fn new() -> Self {
        Self(PAUSE_MIN)
    }

    /// How long to wait this time.
    pub(crate) fn next(&mut self) -> Duration {
        let pause = self.0;
        self.0 = (self.0 * 2).min(PAUSE_MAX);
        pause
    }

    pub(crate) async fn wait(&mut self) {
        tokio::time::sleep(self.next()).await;
    }
}

/// The server, wherever it is now.
pub(crate) struct Server {
    path: PathBuf,
    current: RwLock<Current>,
}

struct Current {
    url: String,
    token: String,
    ca_file: Option<PathBuf>,
    client: Arc<Client>,
}

impl Server {
    pub(crate) fn new(settings: &Settings) -> anyhow::Result<Self> {
        let client = connect(&settings.config)?;
        Ok(Self {
            path: settings.path.clone(),
            current: RwLock::new(Current::new(&settings.config, client)),
        })
    }

    pub(crate) fn client(&self) -> Arc<Client> {
        Arc::clone(
            &self
                .current
                .read()
                .unwrap_or_else(PoisonError::into_inner)
                .client,
        )
    }

    /// Whether the server is on this machine, by its address.
    pub(crate) fn is_near(&self) -> bool {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        is_loopback(&current.url)
    }

    /// Reads again where the server is.
    pub(crate) fn look_again(&self) {
        let config = match settings::read(&self.path) {
            Ok(config) => config,
            Err(error) => {
                tracing::warn!(
                    error = format!("{error:#}"),
                    "going on with the former configuration"
                );
                return;
            }
        };
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if (&config.url, &config.token, &config.ca_file)
            == (&current.url, &current.token, &current.ca_file)
        {
            return;
        }
        match connect(&config) {
            Ok(client) => {
                tracing::info!(url = config.url, "the server has moved");
                *current = Current::new(&config, client);
            }
            Err(error) => tracing::warn!(
                error = format!("{error:#}"),
                "going on with the former address"
            ),
        }
    }

    /// Does a request until it succeeds or fails for good: the server may be away for
    /// any time, and what is to be told or fetched stays wanted meanwhile.  Whoever
    /// does not want it any more drops the future.
    pub(crate) async fn persist<T, F>(
        &self,
        what: &str,
        request: impl Fn(Arc<Client>) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let mut backoff = Backoff::new();
        loop {
            match request(self.client()).await {
                Err(error) if error.is_transient() || error.status() == Some(401) => {
                    tracing::debug!(
                        what,
                        error = &error as &dyn std::error::Error,
                        "trying again"
                    );
                    backoff.wait().await;
                    self.look_again();
                }
                result => return result,
            }
        }
    }
}

impl Current {
    fn new(config: &Config, client: Client) -> Self {
        Self {
            url: config.url.clone(),
            token: config.token.clone(),
            ca_file: config.ca_file.clone(),
            client: Arc::new(client),
        }
    }
}

/// Whether an address is one of this machine that no other can reach.
fn is_loopback(url: &str) -> bool {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split('/').next().unwrap_or_default();
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let is_own = |address: std::net::IpAddr| address.is_loopback();
    host == "localhost" || host.parse().is_ok_and(is_own)
}

fn connect(config: &Config) -> anyhow::Result<Client> {
    use anyhow::Context as _;
    let pem = match &config.ca_file {
        Some(path) => Some(
            std::fs::read(path)
                .with_context(|| format!("cannot read the certificates {}", path.display()))?,
        ),
        None => None,
    };
    let auth = Auth::Runner {
        token: config.token.clone(),
    };
    Ok(Client::new(&config.url, auth, pem.as_deref())?)
}

#[cfg(test)]
mod tests {
    use super::is_loopback;

    #[test]
    fn what_is_near_is_told_by_the_address() {
        for near in [
            "http://127.0.0.1:8080",
            "https://127.1.2.3",
            "http://[::1]:8080/api",
            "http://localhost:1",
            "http://[::1]",
        ] {
            assert!(is_loopback(near), "{near}");
        }
        for far in [
            "http://10.0.0.1:8080",
            "https://grid.example.org",
            "http://127.0.0.1.example.org",
            "http://localhost.example.org:80",
            "http://[2001:db8::1]:8080",
            "",
        ] {
            assert!(!is_loopback(far), "{far}");
        }
    }
}
