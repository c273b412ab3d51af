//! Names of datastores, and the ways to say which version of which one.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{DATASTORE_NAME_LEN_MAX, NameError, NameKind, Rules, UserName};

/// The folder below which datastores are mounted, and the middle of the long way to name one.
const FOLDER: &str = "datastores";

/// The name of a datastore, unique among its creator's.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DatastoreName(pub(super) String);

impl DatastoreName {
    const FORM: &str =
        "use lowercase letters, digits, `-`, `_` and `.`, with a letter or digit at both ends";

    /// Reads a name, or says which character is wrong.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let rules = Rules {
            kind: NameKind::Datastore,
            form: Self::FORM,
            max: DATASTORE_NAME_LEN_MAX,
        };
        let is_start = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        rules.check(text, is_start, |c| {
            is_start(c) || matches!(c, '-' | '_' | '.')
        })?;
        if text.bytes().all(|b| b.is_ascii_digit()) {
            return Err(NameError::LooksLikeVersion {
                name: text.to_owned(),
            });
        }
        Ok(Self(text.to_owned()))
    }

    /// A name made of where data comes from: its last part in lower case, without what
    /// says that it is an archive.  None where nothing is left.
    pub fn of_source(source: &str) -> Option<Self> {
        const ARCHIVES: [&str; 7] = [
            ".tar.gz", ".tar.zst", ".tar.bz2", ".tar.xz", ".tgz", ".tar", ".zip",
        ];
        let source = source.split(['?', '#']).next().unwrap_or_default();
        let last = source.trim_end_matches('/').rsplit('/').next()?;
        let lower = last.to_lowercase();
        let bare = ARCHIVES
            .iter()
            .find_map(|suffix| lower.strip_suffix(suffix))
            .unwrap_or(&lower);
        let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c);
        let name: String = bare
            .chars()
            .filter(|c| !c.is_whitespace())
            .map(|c| if good(c) { c } else { '-' })
            .take(DATASTORE_NAME_LEN_MAX)
            .collect();
        let name = name.trim_matches(|c: char| !c.is_ascii_alphanumeric());
        Self::parse(name)
            .or_else(|_| Self::parse(&format!("data-{name}")))
            .ok()
            .filter(|_| !name.is_empty())
    }

    /// Where it is mounted when nobody says otherwise.
    pub fn mount_dir(&self) -> String {
        format!("/{FOLDER}/{}", self.0)
    }
}

/// A version of a datastore as people name it: `NAME`, `NAME:VERSION`, `USER:NAME`,
/// `USER:NAME:VERSION` or `USER:/datastores/NAME/VERSION`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DatastoreRef {
    /// Whose it is; none for the caller's own.
    pub user: Option<UserName>,
    /// What it is called there.
    pub name: DatastoreName,
    /// Which version; none for the newest.
    pub version: Option<u32>,
}

impl FromStr for DatastoreRef {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if let Some((user, path)) = text.split_once(":/") {
            return long(Some(user), path);
        }
        if let Some(path) = text.strip_prefix('/') {
            return long(None, path);
        }
        let parts: Vec<&str> = text.split(':').collect();
        let (user, name, version) = match parts[..] {
            [user, name, version] => (Some(user), name, Some(version)),
            // Whoever leaves it empty has forgotten the version, not the name.
            [name, version] if version.is_empty() || is_number(version) => {
                (None, name, Some(version))
            }
            [user, name] => (Some(user), name, None),
            _ => (None, text, None),
        };
        of_parts(user, name, version)
    }
}

fn long(user: Option<&str>, path: &str) -> Result<DatastoreRef, NameError> {
    let parts: Vec<&str> = path.trim_end_matches('/').split('/').collect();
    match parts[..] {
        [FOLDER, name] => of_parts(user, name, None),
        [FOLDER, name, version] => of_parts(user, name, Some(version)),
        _ => of_parts(user, path, None),
    }
}

fn of_parts(
    user: Option<&str>,
    name: &str,
    version: Option<&str>,
) -> Result<DatastoreRef, NameError> {
    Ok(DatastoreRef {
        user: user.map(UserName::parse).transpose()?,
        name: DatastoreName::parse(name)?,
        version: version.map(number).transpose()?,
    })
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

fn number(text: &str) -> Result<u32, NameError> {
    if text.is_empty() {
        return Err(NameError::NoVersion);
    }
    let number = text.parse().ok().filter(|number| *number > 0);
    number
        .filter(|_| is_number(text))
        .ok_or_else(|| NameError::NotVersion {
            text: text.chars().take(80).collect(),
        })
}

impl fmt::Display for DatastoreRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(user) = &self.user {
            write!(f, "{user}:")?;
        }
        write!(f, "{}", self.name)?;
        match self.version {
            Some(version) => write!(f, ":{version}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_name_a_version_is_read() {
        for (text, expected) in [
            ("cats", "cats"),
            ("cats:3", "cats:3"),
            ("ada:cats", "ada:cats"),
            ("ada:cats:3", "ada:cats:3"),
            ("ada@example.org:cats", "ada@example.org:cats"),
            ("ada:/datastores/cats/3", "ada:cats:3"),
            ("ada:/datastores/cats", "ada:cats"),
            ("/datastores/cats/3", "cats:3"),
            ("2021-data:1", "2021-data:1"),
        ] {
            let read = text.parse::<DatastoreRef>().map(|read| read.to_string());
            assert_eq!(read.as_deref(), Ok(expected), "{text}");
        }
        for bad in [
            "",
            "Cats",
            "cats:0",
            "ada:cats:x",
            "a:b:c:d",
            "12",
            "ada:12:1",
            "../x",
            "ada:/x/cats/1",
            "cats:99999999999",
            "cats:",
        ] {
            assert!(bad.parse::<DatastoreRef>().is_err(), "{bad}");
        }
        for bad in ["cats:", "ada:cats:"] {
            let said = bad.parse::<DatastoreRef>().map_err(|e| e.to_string());
            assert!(
                said.as_ref()
                    .is_err_and(|said| said.contains("the version is missing")),
                "{said:?}"
            );
        }
    }

    #[test]
    fn a_source_gives_a_name() {
        for (source, expected) in [
            ("data/path/", Some("path")),
            (
                "https://x.org/trainingSet.tar.gz?a=b/c",
                Some("trainingset"),
            ),
            ("s3://bucket/esRedditJson/", Some("esredditjson")),
            ("/data/My Images (1)", Some("myimages-1")),
            ("2021", Some("data-2021")),
            ("/", None),
            ("…", None),
        ] {
            let name = DatastoreName::of_source(source);
            assert_eq!(
                name.as_ref().map(DatastoreName::as_str),
                expected,
                "{source}"
            );
        }
    }
}
