//! What somebody means by the address of a bucket.

use crate::error::{Error, Result};

/// Where Google's buckets speak the same protocol.
const GOOGLE: &str = "https://storage.googleapis.com";

/// Longest name of a bucket, and longest prefix; what S3 allows.
const BUCKET_LEN_MAX: usize = 255;
const PREFIX_LEN_MAX: usize = 1_024;

/// A bucket, and what of it is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Place {
    scheme: &'static str,
    bucket: String,
    /// What all keys begin with: empty, or a folder with its `/`; or the key of one object.
    prefix: String,
    endpoint: Option<String>,
}

impl Place {
    /// Reads `s3://BUCKET/PREFIX`.
    pub(in super::super) fn parse(source: &str, endpoint: Option<&str>) -> Result<Self> {
        let (scheme, rest) = source.split_once("://").unwrap_or_default();
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "s3" => "s3",
            "gs" => "gs",
            _ => {
                return Err(Error::invalid_hint(
                    format!("'{source}' is no bucket that this server can read"),
                    "write s3://BUCKET/PREFIX, or gs://BUCKET/PREFIX",
                ));
            }
        };
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let is_letter = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        let is_bucket = (1..=BUCKET_LEN_MAX).contains(&bucket.len())
            && bucket.chars().all(is_letter)
            && !bucket.starts_with('.');
        if !is_bucket {
            return Err(Error::invalid(format!("'{bucket}' is no name of a bucket")));
        }
        let bare = prefix.strip_suffix('/').unwrap_or(prefix);
        let is_good = |part: &str| !matches!(part, "" | "." | "..") && !part.contains('\0');
        if !bare.is_empty() && !bare.split('/').all(is_good) || bare.len() > PREFIX_LEN_MAX {
            return Err(Error::invalid(format!(
                "'{prefix}' is no prefix that can be read: it has empty parts, dots, or is too long"
            )));
        }
        let endpoint = match (endpoint, scheme) {
            (Some(endpoint), _) => Some(endpoint.trim_end_matches('/').to_owned()),
            (None, "gs") => Some(GOOGLE.to_owned()),
            (None, _) => None,
        };
        Ok(Self {
            scheme,
            bucket: bucket.to_owned(),
            prefix: if bare.is_empty() {
                String::new()
            } else {
                prefix.to_owned()
            },
            endpoint,
        })
    }

    /// As people write it.
    pub(in super::super) fn shown(&self) -> String {
        format!("{}://{}/{}", self.scheme, self.bucket, self.prefix)
    }

    /// The same without what says which server.
    pub(in super::super) fn path(&self) -> String {
        format!("{}/{}", self.bucket, self.prefix)
    }

    /// Where its server is, unless it is Amazon's.
    pub(in super::super) fn endpoint(&self) -> Option<&str> {
        self.endpoint.as_deref()
    }

    /// Whether everything below the prefix is meant, and not one object.
    pub(in super::super) fn is_folder(&self) -> bool {
        self.prefix.is_empty() || self.prefix.ends_with('/')
    }

    /// The same, with everything below it.
    pub(in super::super) fn as_folder(&self) -> Self {
        let mut folder = self.clone();
        if !folder.is_folder() {
            folder.prefix.push('/');
        }
        folder
    }

    /// The key of what is called `path` in a version.
    pub(super) fn key(&self, path: &str) -> String {
        if self.is_folder() {
            return format!("{}{path}", self.prefix);
        }
        self.prefix.clone()
    }

    /// What an object is called in a version.
    pub(super) fn path_of<'k>(&self, key: &'k str) -> Option<&'k str> {
        if self.is_folder() {
            return key.strip_prefix(&self.prefix);
        }
        key.rsplit('/').next().filter(|_| key == self.prefix)
    }

    /// What its bucket is called.
    pub(super) fn bucket(&self) -> &str {
        &self.bucket
    }

    /// What all its keys begin with.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_meant_is_read_from_its_address() {
        for (source, folder, key) in [
            ("s3://data", true, "a/b"),
            ("s3://data/", true, "a/b"),
            ("s3://data/cats/", true, "cats/a/b"),
            ("S3://data/cats/train/", true, "cats/train/a/b"),
            ("gs://data/cats/", true, "cats/a/b"),
            ("s3://data/cats.tar", false, "cats.tar"),
        ] {
            let place = Place::parse(source, None).expect(source);
            assert_eq!(place.is_folder(), folder, "{source}");
            assert_eq!(place.key("a/b"), key, "{source}");
            let again = Place::parse(&place.shown(), place.endpoint()).expect("shown");
            assert_eq!(again, place, "{source}");
        }
        let one = Place::parse("s3://data/x/cats.tar", None).expect("an object");
        assert_eq!(one.path_of("x/cats.tar"), Some("cats.tar"));
        assert_eq!(one.as_folder().path_of("x/cats.tar/a"), Some("a"));
        for source in [
            "s3://",
            "s3:///a",
            "s3://a b/c",
            "s3://data//x",
            "s3://data/../x",
            "s3://.x/a",
            "az://container/x",
            "data",
        ] {
            assert!(Place::parse(source, None).is_err(), "{source}");
        }
    }
}
