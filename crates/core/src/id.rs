//! Typed identifiers, parsed and displayed in one way.
//!
//! Most are ULIDs (<https://github.com/ulid/spec>), written in lower case: 48
//! bits of milliseconds and 80 bits of entropy, so that they sort by age and
//! an index on them stays dense.  User ids are UUIDs, as in the original product.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An identifier that does not parse.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not {what}")]
pub struct IdError {
    what: &'static str,
    text: String,
}

impl IdError {
    fn new(what: &'static str, text: &str) -> Self {
        const SHOWN_MAX: usize = 64;
        Self {
            what,
            text: text.chars().take(SHOWN_MAX).collect(),
        }
    }
}

macro_rules! ulid_id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(u128);

        impl $name {
            /// Makes an id from milliseconds since the epoch and entropy (80 bits are used).
            pub fn from_parts(at: crate::time::Timestamp, entropy: u128) -> Self {
                let at_ms = u64::try_from(at.as_millis()).unwrap_or(0);
                Self(ulid::Ulid::from_parts(at_ms, entropy).0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let mut buffer = [0; ulid::ULID_LEN];
                let text = ulid::Ulid(self.0).array_to_str(&mut buffer);
                text.make_ascii_lowercase();
                f.pad(text)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                // One way of writing: an id in capitals is somebody else's.
                let lower = !text.bytes().any(|b| b.is_ascii_uppercase());
                match ulid::Ulid::from_string(text) {
                    Ok(id) if lower => Ok(Self(id.0)),
                    _ => Err(IdError::new($what, text)),
                }
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

ulid_id!(
    /// A run: what one `grid run` made.
    RunId,
    "a run id"
);
ulid_id!(
    /// An experiment or a session, as the scheduler sees it.
    WorkloadId,
    "an experiment id"
);
ulid_id!(
    /// A team.
    TeamId,
    "a team id"
);
ulid_id!(
    /// A captured tree of source files.
    SnapshotId,
    "a snapshot id"
);
ulid_id!(
    /// An API key of a user (the public part).
    KeyId,
    "a key id"
);

ulid_id!(
    /// A datastore: data under one name, in versions.
    DatastoreId,
    "the id of a datastore"
);
ulid_id!(
    /// A version of a datastore.
    DatastoreVersionId,
    "the id of a datastore version"
);
ulid_id!(
    /// An upload of one file of a datastore version, in parts.
    UploadId,
    "the id of an upload"
);
ulid_id!(
    /// A public SSH key of a user.
    SshKeyId,
    "the id of an SSH key"
);
ulid_id!(
    /// A credential: what opens something elsewhere.
    CredentialId,
    "the id of a credential"
);

ulid_id!(
    /// A line of the audit log.
    AuditId,
    "the id of an audit event"
);
ulid_id!(
    /// An invitation to a team.
    InvitationId,
    "the id of an invitation"
);
ulid_id!(
    /// A link that people pass on.
    ShareId,
    "the id of a link"
);

/// A user; a UUID in its usual form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserId(u128);

impl UserId {
    /// Makes a version 4 UUID from entropy (122 bits are used).
    pub fn from_entropy(entropy: u128) -> Self {
        const VERSION: u128 = 0xf << 76;
        const VARIANT: u128 = 0b11 << 62;
        Self((entropy & !VERSION & !VARIANT) | (0x4 << 76) | (0b10 << 62))
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = format!("{:032x}", self.0);
        write!(
            f,
            "{}-{}-{}-{}-{}",
            &hex[..8],
            &hex[8..12],
            &hex[12..16],
            &hex[16..20],
            &hex[20..]
        )
    }
}

impl FromStr for UserId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let bad = || IdError::new("a user id", text);
        let hyphens = [8, 13, 18, 23];
        let shape = text.len() == 36
            && text.bytes().enumerate().all(|(i, b)| {
                if hyphens.contains(&i) {
                    b == b'-'
                } else {
                    matches!(b, b'0'..=b'9' | b'a'..=b'f')
                }
            });
        if !shape {
            return Err(bad());
        }
        u128::from_str_radix(&text.replace('-', ""), 16)
            .map(Self)
            .map_err(|_| bad())
    }
}

impl Serialize for UserId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for UserId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// One try to execute a workload: the fence for reports, uploads and effects.
///
/// Written `<workload>.<number>`; numbers start at 1 and never repeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttemptId {
    /// The workload that is tried.
    pub workload: WorkloadId,
    /// Which try, from 1.
    pub number: u32,
}

impl fmt::Display for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.workload, self.number)
    }
}

impl FromStr for AttemptId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let bad = || IdError::new("an attempt id", text);
        let (workload, number) = text.split_once('.').ok_or_else(bad)?;
        let number: u32 = number.parse().map_err(|_| bad())?;
        let id = Self {
            workload: workload.parse().map_err(|_| bad())?,
            number,
        };
        // `+1` and `01` parse as numbers; an id has one way of writing.
        if number == 0 || id.to_string() != text {
            Err(bad())
        } else {
            Ok(id)
        }
    }
}

impl Serialize for AttemptId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for AttemptId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A machine of a cluster, named by its operator: `local` on a single machine.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeId(String);

impl NodeId {
    /// The longest name of a node, in bytes.  It becomes a folder name.
    pub const LEN_MAX: usize = 64;

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for NodeId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        let ok = !text.is_empty()
            && text.len() <= Self::LEN_MAX
            && text.bytes().all(good)
            && !text.starts_with('.');
        if ok {
            Ok(Self(text.to_owned()))
        } else {
            Err(IdError::new("a node name", text))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Timestamp;

    #[test]
    fn ids_read_back_what_they_write() {
        let run = RunId::from_parts(Timestamp::from_millis(1_700_000_000_000), 42);
        assert_eq!(run.to_string().parse(), Ok(run));
        assert_eq!(run.to_string().len(), 26);
        let user = UserId::from_entropy(u128::MAX);
        assert_eq!(user.to_string(), "ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_eq!(user.to_string().parse(), Ok(user));
        let workload = WorkloadId::from_parts(Timestamp::from_millis(5), 1);
        let attempt = AttemptId {
            workload,
            number: 3,
        };
        assert_eq!(attempt.to_string().parse(), Ok(attempt));
    }

    #[test]
    fn an_id_has_one_way_of_writing() {
        let run = RunId::from_parts(Timestamp::from_millis(1_700_000_000_000), 42).to_string();
        assert!(run.to_uppercase().parse::<RunId>().is_err());
        for number in ["0", "+1", "01", "", "4294967296"] {
            assert!(
                format!("{run}.{number}").parse::<AttemptId>().is_err(),
                "{number}"
            );
        }
        assert!("../x".parse::<NodeId>().is_err());
        assert!(
            "FFFFFFFF-ffff-4fff-bfff-ffffffffffff"
                .parse::<UserId>()
                .is_err()
        );
    }

    #[test]
    fn ids_sort_by_age() {
        let old = RunId::from_parts(Timestamp::from_millis(1), u128::MAX);
        let new = RunId::from_parts(Timestamp::from_millis(2), 0);
        assert!(old < new && old.to_string() < new.to_string());
    }
}
