//! What holds for every command: which server, who calls, where things are kept.
//!
//! The environment wins over the files; this is the one place where they meet.
//!
//! | what | environment | file |
//! | --- | --- | --- |
//! | server | `GRID_URL` | `~/.grid/settings.json`: `grid_url` |
//! | user id, API key | `GRID_USER_ID`, `GRID_API_KEY` | `~/.grid/credentials.json` (or `GRID_CREDENTIAL_PATH`) |
//! | cluster | `GRID_CONTEXT_CLUSTER_ID` | `cluster` |
//! | more certificate authorities | `GRID_CA_FILE` | `ca_file` |
//! | debug output, no warnings | | `debug`, `ignore_warnings` |

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::Problem;

/// The server that `grid server` starts when nobody says otherwise.
pub(crate) const URL_DEFAULT: &str = "http://127.0.0.1:8080";

/// The largest file of settings that is read, in bytes.  Nobody's is longer; what is, is another file.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Who calls.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Credentials {
    /// Id of the user.
    #[serde(rename = "UserID")]
    pub(crate) user_id: String,
    /// The secret.
    #[serde(rename = "APIKey")]
    pub(crate) api_key: String,
}

/// Everything that does not come from the command line.
pub(crate) struct Settings {
    /// Address of the server.
    pub(crate) url: String,
    /// Who calls, if anybody has signed in.
    pub(crate) credentials: Option<Credentials>,
    /// Whether the environment has a part in the credentials.
    pub(crate) credentials_from_environment: bool,
    /// Where credentials are kept.
    pub(crate) credentials_path: PathBuf,
    /// Cluster that is meant when none is named.
    pub(crate) cluster: Option<String>,
    /// Whether warnings and questions are left out.
    pub(crate) ignore_warnings: bool,
    /// Whether to say what is done.
    pub(crate) debug: bool,
    /// More certificate authorities to trust, as PEM.
    pub(crate) ca_file: Option<PathBuf>,
    settings_path: PathBuf,
    cache_dir: PathBuf,
}

impl Settings {
    /// Reads the environment of this process and the files.
    pub(crate) fn load() -> Result<Self> {
        Self::resolve(&|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    }

    fn resolve(environment: &dyn Fn(&str) -> Option<String>) -> Result<Self> {
        let home = PathBuf::from(environment("HOME").unwrap_or_else(|| "/".to_owned()));
        let folder = home.join(".grid");
        let settings_path = folder.join("settings.json");
        let file = read_object(&settings_path)?;
        let text = |key: &str| file.get(key).and_then(Value::as_str).map(str::to_owned);
        let flag = |key: &str| file.get(key).and_then(Value::as_bool).unwrap_or_default();

        let credentials_path = environment("GRID_CREDENTIAL_PATH")
            .map_or_else(|| folder.join("credentials.json"), PathBuf::from);
        let (user_id, api_key) = (environment("GRID_USER_ID"), environment("GRID_API_KEY"));
        let credentials_from_environment = user_id.is_some() || api_key.is_some();
        let credentials = match (user_id, api_key) {
            (Some(user_id), Some(api_key)) => Some(Credentials { user_id, api_key }),
            (user_id, api_key) => read_credentials(&credentials_path)?.map(|kept| Credentials {
                user_id: user_id.unwrap_or(kept.user_id),
                api_key: api_key.unwrap_or(kept.api_key),
            }),
        };
        Ok(Self {
            url: environment("GRID_URL")
                .or_else(|| text("grid_url"))
                .unwrap_or_else(|| URL_DEFAULT.to_owned()),
            credentials,
            credentials_from_environment,
            credentials_path,
            cluster: environment("GRID_CONTEXT_CLUSTER_ID").or_else(|| text("cluster")),
            ignore_warnings: flag("ignore_warnings"),
            debug: flag("debug"),
            ca_file: environment("GRID_CA_FILE")
                .or_else(|| text("ca_file"))
                .map(PathBuf::from),
            settings_path,
            cache_dir: environment("XDG_CACHE_HOME")
                .map(PathBuf::from)
                .filter(|path| path.is_absolute())
                .unwrap_or_else(|| home.join(".cache"))
                .join("grid"),
        })
    }

    /// Where things are kept that can be made again.
    pub(crate) fn cache_dir(&self) -> &Path {
        &self.cache_dir
    }

    /// Where this machine's own server keeps the operator's key.
    pub(crate) fn operator_file(&self) -> PathBuf {
        self.settings_path
            .with_file_name("server")
            .join("operator.json")
    }

    /// Remembers which server is meant; other settings in the file stay as they are.
    pub(crate) fn save_url(&self, url: &str) -> Result<()> {
        let mut file = read_object(&self.settings_path)?;
        file.insert("grid_url".to_owned(), Value::String(url.to_owned()));
        write_private(&self.settings_path, &file)
    }

    /// Remembers who calls, in a file that nobody else can read.
    pub(crate) fn save_credentials(&self, credentials: &Credentials) -> Result<()> {
        write_private(&self.credentials_path, credentials)
    }
}

fn read_object(path: &Path) -> Result<Map<String, Value>> {
    let Some(text) = read_file(path)? else {
        return Ok(Map::new());
    };
    serde_json::from_str(&text).map_err(|error| {
        Problem::usage(format!("{} is not a JSON object", path.display()))
            .because(error)
            .hint("mend it, or remove it and run `grid login` again")
            .into()
    })
}

fn read_credentials(path: &Path) -> Result<Option<Credentials>> {
    let Some(text) = read_file(path)? else {
        return Ok(None);
    };
    let read = serde_json::from_str(&text).map_err(|error| {
        Problem::usage(format!("{} does not hold credentials", path.display()))
            .because(error)
            .hint("run `grid login` again; the file is {\"UserID\": …, \"APIKey\": …}")
    })?;
    Ok(Some(read))
}

fn read_file(path: &Path) -> Result<Option<String>> {
    let reading = || format!("reading {}", path.display());
    match fs::metadata(path) {
        Ok(found) if found.len() > FILE_BYTES_MAX => {
            let message = format!(
                "{} is far too large for what it should hold",
                path.display()
            );
            Err(Problem::usage(message).into())
        }
        Ok(_) => fs::read_to_string(path).map(Some).with_context(reading),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => Ok(None),
        Err(error) => Err(error).with_context(reading),
    }
}

/// Replaces a file as a whole: a crash leaves the old one.
fn write_private<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    let writing = || format!("writing {}", path.display());
    let folder = path
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    fs::create_dir_all(folder).with_context(writing)?;
    let mut text = serde_json::to_string_pretty(value).with_context(writing)?;
    text.push('\n');
    let mut file = tempfile::NamedTempFile::new_in(folder).with_context(writing)?;
    file.as_file()
        .set_permissions(fs::Permissions::from_mode(0o600))
        .with_context(writing)?;
    file.write_all(text.as_bytes()).with_context(writing)?;
    file.persist(path)
        .map_err(|error| error.error)
        .with_context(writing)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(home: &Path, pairs: &[(&str, &str)]) -> Result<Settings> {
        let home = home.display().to_string();
        Settings::resolve(&|name| {
            let given = pairs
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).to_owned());
            given.or_else(|| (name == "HOME").then(|| home.clone()))
        })
    }

    #[test]
    fn the_environment_wins_over_the_files() -> Result<()> {
        let home = tempfile::tempdir()?;
        let settings = resolve(home.path(), &[])?;
        assert_eq!(settings.url, URL_DEFAULT);
        assert!(settings.credentials.is_none());

        fs::create_dir(home.path().join(".grid"))?;
        fs::write(
            home.path().join(".grid/settings.json"),
            r#"{"theme": "dark", "debug": true}"#,
        )?;
        settings.save_url("https://grid.example")?;
        let kept = Credentials {
            user_id: "u".to_owned(),
            api_key: "k".to_owned(),
        };
        settings.save_credentials(&kept)?;

        let settings = resolve(home.path(), &[])?;
        assert_eq!(settings.url, "https://grid.example");
        assert!(settings.debug);
        assert!(settings.credentials == Some(kept));
        let file = fs::read_to_string(home.path().join(".grid/settings.json"))?;
        assert!(file.contains("dark"), "unknown keys stay: {file}");
        let mode = fs::metadata(home.path().join(".grid/credentials.json"))?
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);

        let settings = resolve(
            home.path(),
            &[("GRID_URL", "http://h:1"), ("GRID_API_KEY", "other")],
        )?;
        assert_eq!(settings.url, "http://h:1");
        let credentials = settings.credentials.context("some")?;
        assert_eq!(
            (credentials.user_id.as_str(), credentials.api_key.as_str()),
            ("u", "other")
        );
        Ok(())
    }

    #[test]
    fn a_broken_file_is_named() -> Result<()> {
        let home = tempfile::tempdir()?;
        fs::create_dir(home.path().join(".grid"))?;
        fs::write(home.path().join(".grid/credentials.json"), "{")?;
        let error = resolve(home.path(), &[]).err().context("refused")?;
        assert!(error.to_string().contains("credentials.json"), "{error}");
        Ok(())
    }
}
