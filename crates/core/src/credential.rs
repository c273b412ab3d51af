//! Credentials: what opens something elsewhere, for programs that work in the name of
//! whoever made it, and of their team.
//!
//! What is secret in one is never shown again, to nobody; so the types here do not print it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Longest name, in characters.
pub const NAME_LEN_MAX: usize = 63;

/// Longest part of a credential, in bytes.  Session tokens of clouds have about 1 KiB.
const PART_BYTES_MAX: usize = 4 << 10;

/// Why something is no credential.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A name that is not allowed.
    #[error(
        "'{0}' cannot be the name of a credential: it has 1 to {NAME_LEN_MAX} lowercase letters, \
         digits, '-', '_' and '.', and begins with a letter or a digit"
    )]
    Name(String),
    /// A part that is missing, too long, or holds what cannot be in it.
    #[error("the {0} has 1 to {PART_BYTES_MAX} bytes, without blanks or control characters")]
    Part(&'static str),
    /// Not the name of a role.
    #[error("'{0}' is not the ARN of a role: these are like arn:aws:iam::123456789012:role/NAME")]
    RoleArn(String),
    /// Not an address.
    #[error("'{0}' is not the address of an S3 server: these begin with https:// or http://")]
    Endpoint(String),
}

/// What opens a bucket of S3.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum S3 {
    /// A role that may be taken on, by whoever knows the id that its owner chose.
    #[serde(rename = "s3_role")]
    Role {
        /// Its name.
        role_arn: String,
        /// The id.
        external_id: String,
    },
    /// A pair of keys.
    #[serde(rename = "s3_key")]
    Key {
        /// The part that is no secret.
        access_key_id: String,
        /// The secret.
        secret_access_key: String,
        /// With keys that end, what comes with them.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        session_token: Option<String>,
        /// Where the server is; Amazon's when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        endpoint: Option<String>,
        /// The region; `us-east-1` when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        region: Option<String>,
    },
}

// What is secret never reaches a log by way of `{:?}`.
impl fmt::Debug for S3 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct(self.kind().as_str()).finish_non_exhaustive()
    }
}

/// What kind of credential it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub enum Kind {
    /// A role for buckets.
    #[serde(rename = "s3_role")]
    S3Role,
    /// A pair of keys for buckets.
    #[serde(rename = "s3_key")]
    S3Key,
}

impl Kind {
    /// The word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::S3Role => "s3_role",
            Self::S3Key => "s3_key",
        }
    }

    /// Reads the word.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::S3Role, Self::S3Key]
            .into_iter()
            .find(|kind| kind.as_str() == text)
    }
}

/// What may be read of a credential by whoever may use it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shown {
    /// Of a role: all of it.
    Role {
        /// Its name.
        role_arn: String,
        /// The id.
        external_id: String,
    },
    /// Of a pair of keys: what is no secret.
    Key {
        /// The part that is no secret.
        access_key_id: String,
        /// Where the server is.
        endpoint: Option<String>,
        /// The region.
        region: Option<String>,
    },
}

impl S3 {
    /// What kind it is.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Role { .. } => Kind::S3Role,
            Self::Key { .. } => Kind::S3Key,
        }
    }

    /// What may be read of it.
    pub fn shown(&self) -> Shown {
        match self {
            Self::Role {
                role_arn,
                external_id,
            } => Shown::Role {
                role_arn: role_arn.clone(),
                external_id: external_id.clone(),
            },
            Self::Key {
                access_key_id,
                endpoint,
                region,
                ..
            } => Shown::Key {
                access_key_id: access_key_id.clone(),
                endpoint: endpoint.clone(),
                region: region.clone(),
            },
        }
    }

    /// Whether it can be one at all.
    pub fn check(&self) -> Result<(), Error> {
        match self {
            Self::Role {
                role_arn,
                external_id,
            } => {
                if !is_role(role_arn) {
                    return Err(Error::RoleArn(shortened(role_arn)));
                }
                part("external id", external_id)
            }
            Self::Key {
                access_key_id,
                secret_access_key,
                session_token,
                endpoint,
                region,
            } => {
                part("access key id", access_key_id)?;
                part("secret access key", secret_access_key)?;
                if let Some(token) = session_token {
                    part("session token", token)?;
                }
                if let Some(region) = region {
                    part("region", region)?;
                }
                match endpoint {
                    Some(endpoint) if !is_address(endpoint) => {
                        Err(Error::Endpoint(shortened(endpoint)))
                    }
                    _ => Ok(()),
                }
            }
        }
    }
}

/// A name that a credential may have.
pub fn check_name(name: &str) -> Result<(), Error> {
    let is_good =
        |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.');
    let begins = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let ok = name.len() <= NAME_LEN_MAX
        && name.bytes().all(is_good)
        && name.bytes().next().is_some_and(begins);
    if ok {
        Ok(())
    } else {
        Err(Error::Name(shortened(name)))
    }
}

fn part(what: &'static str, text: &str) -> Result<(), Error> {
    let ok = !text.is_empty()
        && text.len() <= PART_BYTES_MAX
        && !text.contains(|c: char| c.is_whitespace() || c.is_control());
    if ok { Ok(()) } else { Err(Error::Part(what)) }
}

/// `arn:PARTITION:iam::ACCOUNT:role/NAME`.
fn is_role(text: &str) -> bool {
    const ACCOUNT_DIGITS: usize = 12;
    const ROLE_ARN_LEN_MAX: usize = 2_048;
    let parts: Vec<&str> = text.splitn(6, ':').collect();
    let [arn, partition, service, region, account, resource] = parts[..] else {
        return false;
    };
    let name = resource.strip_prefix("role/").unwrap_or_default();
    arn == "arn"
        && partition.starts_with("aws")
        && service == "iam"
        && region.is_empty()
        && account.len() == ACCOUNT_DIGITS
        && account.bytes().all(|b| b.is_ascii_digit())
        && !name.is_empty()
        && text.len() <= ROLE_ARN_LEN_MAX
        && !text.contains(|c: char| c.is_whitespace() || c.is_control())
}

fn is_address(text: &str) -> bool {
    let rest = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"));
    rest.is_some_and(|rest| part("address", rest).is_ok() && !rest.starts_with('/'))
}

fn shortened(text: &str) -> String {
    const SHOWN_MAX: usize = 80;
    text.chars().take(SHOWN_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> S3 {
        S3::Key {
            access_key_id: "AKIAEXAMPLE".to_owned(),
            secret_access_key: "very-secret".to_owned(),
            session_token: None,
            endpoint: Some("http://127.0.0.1:9000".to_owned()),
            region: None,
        }
    }

    #[test]
    fn what_is_secret_is_neither_shown_nor_printed() {
        let key = key();
        key.check().expect("good");
        for text in [format!("{key:?}"), format!("{:?}", key.shown())] {
            assert!(!text.contains("very-secret"), "{text}");
        }
        let stored = serde_json::to_string(&key).expect("JSON");
        assert_eq!(serde_json::from_str::<S3>(&stored).expect("read"), key);
    }

    #[test]
    fn what_cannot_work_is_refused() {
        let role = |arn: &str, id: &str| {
            S3::Role {
                role_arn: arn.to_owned(),
                external_id: id.to_owned(),
            }
            .check()
        };
        let good = "arn:aws:iam::123456789012:role/grid-s3-access-ada";
        role(good, "6f1d").expect("good");
        assert_eq!(role(good, ""), Err(Error::Part("external id")));
        for arn in [
            "",
            "role",
            "arn:aws:iam::12:role/x",
            "arn:aws:s3:::bucket",
            "arn:aws:iam::123456789012:role/",
        ] {
            assert!(matches!(role(arn, "x"), Err(Error::RoleArn(_))), "{arn}");
        }
        let S3::Key {
            access_key_id,
            secret_access_key,
            session_token,
            region,
            ..
        } = key()
        else {
            unreachable!("it is a key")
        };
        let elsewhere = S3::Key {
            access_key_id,
            secret_access_key,
            session_token,
            endpoint: Some("ftp://x".to_owned()),
            region,
        };
        assert!(matches!(elsewhere.check(), Err(Error::Endpoint(_))));
        for name in ["", "-a", "A", "a b", "ä"] {
            assert!(check_name(name).is_err(), "{name}");
        }
        check_name("s3-2").expect("good");
    }
}
