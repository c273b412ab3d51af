//! Flags, environment, file and defaults become [`Settings`], in one function.

use std::ffi::OsString;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result, bail};
use grid_store::blobs::BucketOptions;
use serde::Deserialize;

use crate::bucket;
use crate::proxies::TrustedProxies;

/// Where the server listens unless it is told otherwise: for this machine only.
const LISTEN: &str = "127.0.0.1:8080";

/// The folder of the data below the home folder.
const DATA_BELOW_HOME: &str = ".grid/server";

/// The settings file inside the data folder.
pub(crate) const FILE_NAME: &str = "server.toml";

/// What was typed; `None` where nothing was.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The folder of the data (`GRID_SERVER_DATA`; default `~/.grid/server`).
    pub data: Option<PathBuf>,
    /// `HOST:PORT` to listen on (`GRID_SERVER_LISTEN`; default `127.0.0.1:8080`).
    pub listen: Option<String>,
    /// A settings file, TOML (`GRID_SERVER_CONFIG`; default `DATA/server.toml` if there is one).
    pub config: Option<PathBuf>,
    /// `auto`, `require` or `off` (`GRID_SERVER_SANDBOX`; default `auto`).
    pub sandbox: Option<String>,
    /// CPUs to hand out (`GRID_SERVER_CPUS`; default: those of the machine).
    pub cpus: Option<u32>,
    /// GPUs to hand out (`GRID_SERVER_GPUS`; default: those of the machine).
    pub gpus: Option<u32>,
    /// Certificate chain, PEM (`GRID_SERVER_TLS_CERT`); with `tls_key` the server speaks HTTPS.
    pub tls_cert: Option<PathBuf>,
    /// Its private key, PEM (`GRID_SERVER_TLS_KEY`).
    pub tls_key: Option<PathBuf>,
    /// The address that users reach the server under (`GRID_SERVER_URL`; default: where it listens).
    pub url: Option<String>,
    /// `HOST:PORT` to speak S3 on (`GRID_SERVER_S3_LISTEN`; default: nowhere).
    pub s3_listen: Option<String>,
    /// The address that users reach S3 under (`GRID_SERVER_S3_URL`; default: where it listens).
    pub s3_url: Option<String>,
    /// Another database than the SQLite file in the data folder (`GRID_SERVER_DATABASE_URL`).
    pub database_url: Option<String>,
    /// A bucket for files: `s3://BUCKET/PREFIX`, `gs://…`, `az://…` (`GRID_SERVER_BLOBS`;
    /// default: the data folder).
    pub blobs: Option<String>,
    /// Reverse proxies, `ADDRESS` or `ADDRESS/BITS`, whose `X-Forwarded-For` says who is
    /// asking (`GRID_SERVER_TRUSTED_PROXIES`, with commas between; default: none).
    pub trusted_proxies: Vec<String>,
}

/// What it means.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) data: PathBuf,
    pub(crate) listen: SocketAddr,
    pub(crate) sandbox: Sandbox,
    pub(crate) cpus: Option<u32>,
    pub(crate) gpus: Option<u32>,
    pub(crate) tls: Option<Tls>,
    pub(crate) url: Option<String>,
    pub(crate) s3_listen: Option<SocketAddr>,
    pub(crate) s3_url: Option<String>,
    pub(crate) database_url: Option<String>,
    /// Where files are kept, if not in the data folder.
    pub(crate) bucket: Option<BucketOptions>,
    /// For how many days the audit log is kept; 0 is for ever.
    pub(crate) audit_days: Option<u32>,
    /// Whether data is fetched from addresses of this machine and its network, too.
    pub(crate) fetch_private: bool,
    /// What credentials are encrypted with, if it is not in the data folder.
    pub(crate) credential_key: Option<PathBuf>,
    /// Whose word is taken for who is asking.
    pub(crate) trusted_proxies: TrustedProxies,
    /// The name of the first user, if somebody chose one.
    pub(crate) operator: Option<String>,
    /// The system's name of who started the server, for the same purpose.
    pub(crate) system_user: Option<String>,
}

/// How experiments are kept apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Sandbox {
    /// Where the machine can.
    Auto,
    /// Or not run at all.
    Require,
    /// Not.
    Off,
}

impl Sandbox {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Require => "require",
            Self::Off => "off",
        }
    }
}

impl FromStr for Sandbox {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        Ok(match text {
            "auto" => Self::Auto,
            "require" => Self::Require,
            "off" => Self::Off,
            _ => bail!("'{text}' is not a way to sandbox: choose auto, require or off"),
        })
    }
}

/// Where certificate and key are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tls {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

/// What a settings file may say.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    data: Option<PathBuf>,
    listen: Option<String>,
    sandbox: Option<Sandbox>,
    cpus: Option<u32>,
    gpus: Option<u32>,
    tls_cert: Option<PathBuf>,
    tls_key: Option<PathBuf>,
    url: Option<String>,
    s3_listen: Option<String>,
    s3_url: Option<String>,
    database_url: Option<String>,
    blobs: Option<String>,
    bucket: Option<bucket::Section>,
    audit_days: Option<u32>,
    fetch_private: Option<bool>,
    credential_key: Option<PathBuf>,
    trusted_proxies: Option<Vec<String>>,
    operator: Option<String>,
}

/// The environment of this process.
pub(crate) fn environment(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}

/// Merges what was typed with environment, file and defaults, in this order.
pub(crate) fn settings(
    options: Options,
    environment: impl Fn(&str) -> Option<OsString>,
) -> Result<Settings> {
    let variables = Variables(environment);
    let typed_data = options.data.or(variables.path("GRID_SERVER_DATA"));
    let named = options.config.or(variables.path("GRID_SERVER_CONFIG"));
    let file = file(named, typed_data.as_deref(), &variables)?;
    let data = typed_data.or(file.data);
    let data = data.map_or_else(|| default_data(&variables), Ok)?;
    let listen = variables.chosen(options.listen, "GRID_SERVER_LISTEN", file.listen)?;
    let sandbox = options.sandbox.or(variables.text("GRID_SERVER_SANDBOX")?);
    let sandbox = sandbox
        .map(|text| text.parse())
        .transpose()?
        .or(file.sandbox);
    let cpus = options
        .cpus
        .or(variables.number("GRID_SERVER_CPUS")?)
        .or(file.cpus);
    if cpus == Some(0) {
        bail!("a server with no CPUs to hand out runs nothing: give --cpus 1 or more");
    }
    let cert = options
        .tls_cert
        .or(variables.path("GRID_SERVER_TLS_CERT"))
        .or(file.tls_cert);
    let key = options
        .tls_key
        .or(variables.path("GRID_SERVER_TLS_KEY"))
        .or(file.tls_key);
    let url = variables.chosen(options.url, "GRID_SERVER_URL", file.url)?;
    let s3_listen = variables.chosen(options.s3_listen, "GRID_SERVER_S3_LISTEN", file.s3_listen)?;
    let s3_url = variables.chosen(options.s3_url, "GRID_SERVER_S3_URL", file.s3_url)?;
    let database = options
        .database_url
        .or(variables.text("GRID_SERVER_DATABASE_URL")?);
    let blobs = variables.chosen(options.blobs, "GRID_SERVER_BLOBS", file.blobs)?;
    let proxies = variables.text("GRID_SERVER_TRUSTED_PROXIES")?;
    Ok(Settings {
        data: std::path::absolute(&data)
            .with_context(|| format!("'{}' is not a folder", data.display()))?,
        listen: address(listen.as_deref().unwrap_or(LISTEN))?,
        sandbox: sandbox.unwrap_or(Sandbox::Auto),
        cpus,
        gpus: options
            .gpus
            .or(variables.number("GRID_SERVER_GPUS")?)
            .or(file.gpus),
        tls: tls(cert, key)?,
        url: url.as_deref().map(public_url).transpose()?,
        s3_listen: s3_listen.as_deref().map(address).transpose()?,
        s3_url: s3_url.as_deref().map(public_url).transpose()?,
        database_url: database.or(file.database_url),
        bucket: bucket::options(blobs, file.bucket)?,
        trusted_proxies: trusted_proxies(options.trusted_proxies, proxies, file.trusted_proxies)?,
        audit_days: variables
            .number("GRID_SERVER_AUDIT_DAYS")?
            .or(file.audit_days),
        fetch_private: variables
            .flag("GRID_SERVER_FETCH_PRIVATE")?
            .or(file.fetch_private)
            .unwrap_or(false),
        credential_key: variables
            .path("GRID_SERVER_CREDENTIAL_KEY")
            .or(file.credential_key),
        operator: variables.text("GRID_OPERATOR")?.or(file.operator),
        system_user: variables.text("USER").ok().flatten(),
    })
}

/// The settings file: the one that was named, or the one in the data folder if there is one.
fn file(
    named: Option<PathBuf>,
    data: Option<&Path>,
    variables: &Variables<impl Fn(&str) -> Option<OsString>>,
) -> Result<File> {
    if let Some(path) = named {
        return read(&path)?.with_context(|| format!("there is no file {}", path.display()));
    }
    let data = data.map_or_else(|| default_data(variables), |data| Ok(data.to_owned()))?;
    Ok(read(&data.join(FILE_NAME))?.unwrap_or_default())
}

/// Those that were typed, else those of the environment, else those of the file.
fn trusted_proxies(
    typed: Vec<String>,
    variable: Option<String>,
    file: Option<Vec<String>>,
) -> Result<TrustedProxies> {
    let typed = Some(typed).filter(|typed| !typed.is_empty());
    let chosen = typed.or(variable.map(|text| vec![text])).or(file);
    TrustedProxies::parse(chosen.iter().flatten().map(String::as_str))
        .context("the setting trusted_proxies is not understood")
}

fn tls(cert: Option<PathBuf>, key: Option<PathBuf>) -> Result<Option<Tls>> {
    match (cert, key) {
        (Some(cert), Some(key)) => Ok(Some(Tls { cert, key })),
        (None, None) => Ok(None),
        _ => bail!("HTTPS needs both a certificate (--tls-cert) and its key (--tls-key)"),
    }
}

fn default_data(variables: &Variables<impl Fn(&str) -> Option<OsString>>) -> Result<PathBuf> {
    let home = variables.path("HOME").context(
        "there is no HOME to keep the data in: name a folder with --data DIR or GRID_SERVER_DATA",
    )?;
    Ok(home.join(DATA_BELOW_HOME))
}

fn read(path: &Path) -> Result<Option<File>> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            return Err(error).with_context(|| format!("cannot read {}", path.display()));
        }
    };
    let file = toml::from_str(&text)
        .with_context(|| format!("the settings in {} are not understood", path.display()))?;
    Ok(Some(file))
}

fn address(text: &str) -> Result<SocketAddr> {
    let mut found = text.to_socket_addrs().with_context(|| {
        format!("'{text}' is not an address to listen on: write HOST:PORT, for example {LISTEN}")
    })?;
    found
        .next()
        .with_context(|| format!("'{text}' names no address of this machine"))
}

fn public_url(text: &str) -> Result<String> {
    let host = text
        .strip_prefix("http://")
        .or(text.strip_prefix("https://"));
    if host.is_none_or(|host| host.is_empty() || host.starts_with('/')) {
        bail!("'{text}' is not an address for users: write http://HOST:PORT or https://HOST");
    }
    Ok(text.trim_end_matches('/').to_owned())
}

/// The environment, read by kinds.
struct Variables<F>(F);

impl<F: Fn(&str) -> Option<OsString>> Variables<F> {
    fn path(&self, name: &str) -> Option<PathBuf> {
        (self.0)(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    }

    fn text(&self, name: &str) -> Result<Option<String>> {
        match (self.0)(name)
            .filter(|value| !value.is_empty())
            .map(OsString::into_string)
        {
            None => Ok(None),
            Some(Ok(text)) => Ok(Some(text)),
            Some(Err(_)) => bail!("the variable {name} is not UTF-8 text"),
        }
    }

    /// What was typed, else the variable, else what the file says.
    fn chosen(
        &self,
        typed: Option<String>,
        name: &str,
        file: Option<String>,
    ) -> Result<Option<String>> {
        Ok(typed.or(self.text(name)?).or(file))
    }

    fn flag(&self, name: &str) -> Result<Option<bool>> {
        match self.text(name)?.as_deref() {
            None => Ok(None),
            Some("true" | "1" | "yes") => Ok(Some(true)),
            Some("false" | "0" | "no") => Ok(Some(false)),
            Some(other) => bail!("the variable {name} is '{other}', not true or false"),
        }
    }

    fn number(&self, name: &str) -> Result<Option<u32>> {
        let text = self.text(name)?;
        let number = text.map(|text| {
            text.parse()
                .with_context(|| format!("the variable {name} is '{text}', not a number"))
        });
        number.transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(options: Options, variables: &[(&str, &str)]) -> Result<Settings> {
        settings(options, |name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| OsString::from(value))
        })
    }

    #[test]
    fn flags_come_before_environment_before_file_before_defaults() {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::write(
            dir.path().join(FILE_NAME),
            "listen = '127.0.0.1:1'\nsandbox = 'off'\ncpus = 1\ngpus = 1\n",
        )
        .expect("written");
        let data = dir.path().to_str().expect("UTF-8");
        let options = Options {
            listen: Some("127.0.0.1:3".to_owned()),
            ..Options::default()
        };
        let variables = [
            ("GRID_SERVER_DATA", data),
            ("GRID_SERVER_LISTEN", "127.0.0.1:2"),
            ("GRID_SERVER_CPUS", "2"),
        ];
        let settings = merged(options, &variables).expect("settings");
        assert_eq!(settings.data, dir.path());
        assert_eq!(settings.listen.port(), 3, "the flag");
        assert_eq!(settings.cpus, Some(2), "the environment");
        assert_eq!(
            (settings.sandbox, settings.gpus),
            (Sandbox::Off, Some(1)),
            "the file"
        );
        let proxies = |options: Options, variables: &[(&str, &str)]| {
            let settings = merged(options, variables).expect("settings");
            settings.trusted_proxies
        };
        let networks = |text| TrustedProxies::parse([text]).expect("networks");
        std::fs::write(
            dir.path().join(FILE_NAME),
            "trusted_proxies = ['10.0.0.0/8', '::1']\n",
        )
        .expect("written");
        let none = Options::default;
        let variable = ("GRID_SERVER_TRUSTED_PROXIES", "192.0.2.1, 192.0.2.2");
        let typed = Options {
            trusted_proxies: vec!["198.51.100.7".to_owned()],
            ..none()
        };
        let here = ("GRID_SERVER_DATA", data);
        assert_eq!(proxies(none(), &[("HOME", "/x")]), networks(""));
        assert_eq!(proxies(none(), &[here]), networks("10.0.0.0/8,::1"));
        assert_eq!(
            proxies(none(), &[here, variable]),
            networks("192.0.2.1,192.0.2.2")
        );
        assert_eq!(proxies(typed, &[here, variable]), networks("198.51.100.7"));
        let settings = merged(Options::default(), &[("HOME", "/home/ada")]).expect("settings");
        assert_eq!(settings.data, Path::new("/home/ada/.grid/server"));
        assert_eq!(settings.listen.to_string(), LISTEN);
        assert_eq!(settings.sandbox, Sandbox::Auto);
    }

    #[test]
    fn what_makes_no_sense_is_said() {
        let home = ("HOME", "/nonexistent");
        let with = |change: fn(&mut Options)| {
            let mut options = Options::default();
            change(&mut options);
            options
        };
        let none = Options::default;
        for (options, variables, says) in [
            (none(), vec![], "no HOME"),
            (
                none(),
                vec![home, ("GRID_SERVER_CPUS", "many")],
                "GRID_SERVER_CPUS is 'many'",
            ),
            (
                none(),
                vec![home, ("GRID_SERVER_SANDBOX", "on")],
                "auto, require or off",
            ),
            (
                with(|o| o.listen = Some("8080".to_owned())),
                vec![home],
                "HOST:PORT",
            ),
            (with(|o| o.cpus = Some(0)), vec![home], "--cpus 1"),
            (
                with(|o| o.tls_cert = Some("a".into())),
                vec![home],
                "both a certificate",
            ),
            (
                with(|o| o.url = Some("grid.example".to_owned())),
                vec![home],
                "https://HOST",
            ),
            (
                with(|o| o.trusted_proxies = vec!["proxy".to_owned()]),
                vec![home],
                "'proxy' is no address",
            ),
            (
                with(|o| o.config = Some("/nonexistent/x".into())),
                vec![home],
                "no file",
            ),
        ] {
            let error = merged(options, &variables).expect_err(says);
            assert!(format!("{error:#}").contains(says), "{error:#}");
        }
    }

    #[test]
    fn an_unknown_setting_is_named_with_its_place() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("my.toml");
        std::fs::write(&path, "cpus = 2\nlisten_on = '[::]:80'\n").expect("written");
        let options = Options {
            config: Some(path),
            ..Options::default()
        };
        let error = format!("{:#}", merged(options, &[]).expect_err("refused"));
        assert!(
            error.contains("listen_on") && error.contains("line 2"),
            "{error}"
        );
    }
}
