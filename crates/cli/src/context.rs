//! What every command is given: settings, a printer, and a way to the server.

use std::future::Future;

use anyhow::{Context as _, Result};
use grid_api::client::{Auth, Client};

use crate::error::Problem;
use crate::printer::Printer;
use crate::settings::Settings;

/// What every command is given.
pub(crate) struct Ctx {
    pub(crate) settings: Settings,
    pub(crate) printer: Printer,
}

impl Ctx {
    /// A client with the caller's credentials.
    pub(crate) fn client(&self) -> Result<Client> {
        let Some(credentials) = &self.settings.credentials else {
            let operator = self.settings.operator_file();
            let problem = Problem::new("nobody has signed in on this machine");
            return Err(if operator.exists() {
                problem.hint(format!(
                    "run `grid login`; the first user's name and key are in {}",
                    operator.display()
                ))
            } else {
                problem.hint("run `grid login`, or set GRID_USER_ID and GRID_API_KEY")
            }
            .into());
        };
        let (user_id, api_key) = (credentials.user_id.clone(), credentials.api_key.clone());
        self.connect(&self.settings.url, Auth::User { user_id, api_key })
    }

    /// A client of the server at `url` that is nobody yet.
    pub(crate) fn anonymous(&self, url: &str) -> Result<Client> {
        self.connect(url, Auth::None)
    }

    fn connect(&self, url: &str, auth: Auth) -> Result<Client> {
        let client = open(&self.settings, url, auth)?;
        if is_open(url) && !self.settings.ignore_warnings {
            self.printer.warn(&format!(
                "{url} is not encrypted: everybody between here and there can read your API key; use https"
            ));
        }
        self.printer.debug(&format!("server {url}"));
        Ok(client)
    }

    /// Runs a future to its end on this thread.
    pub(crate) fn block_on<F: Future>(&self, future: F) -> Result<F::Output> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("starting the runtime")?;
        Ok(runtime.block_on(future))
    }
}

/// A client of the server at `url`, of which nothing is said.
pub(crate) fn open(settings: &Settings, url: &str, auth: Auth) -> Result<Client> {
    // Whoever came first has installed the same one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let pem = match &settings.ca_file {
        Some(path) => Some(std::fs::read(path).map_err(|error| {
            Problem::usage(format!(
                "cannot read the certificate file {}",
                path.display()
            ))
            .because(error)
            .hint("it is named by GRID_CA_FILE or `ca_file` in ~/.grid/settings.json")
        })?),
        None => None,
    };
    Ok(Client::new(url, auth, pem.as_deref())?)
}

/// Whether a key sent to this address can be read on the way.
fn is_open(url: &str) -> bool {
    let Ok(url) = reqwest::Url::parse(url) else {
        return false;
    };
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let is_loopback = host == "localhost"
        || host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|ip| ip.is_loopback());
    url.scheme() == "http" && !is_loopback
}

#[cfg(test)]
mod tests {
    use super::is_open;

    #[test]
    fn only_plain_http_to_elsewhere_is_open() {
        for (url, expected) in [
            ("http://127.0.0.1:8080", false),
            ("http://[::1]:8080", false),
            ("http://localhost", false),
            ("https://grid.example", false),
            ("http://grid.example", true),
            ("http://10.0.0.1:8080", true),
        ] {
            assert_eq!(is_open(url), expected, "{url}");
        }
    }
}
