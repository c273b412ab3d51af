//! Credentials for buckets, as they are sent and shown.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use base64::prelude::BASE64_STANDARD;
use grid_core::credential::{S3, Shown};
use serde::{Deserialize, Serialize};

use super::read::or_default;
use super::time;
use crate::error::{Failure, Result};

/// The one kind that the client knows.
pub(in crate::compat::grid) const TYPE: &str = "CREDENTIAL_TYPE_BUCKET_ACCESS";

/// Padding may be missing: programs disagree about it.
const CONFIG: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, CONFIG);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, CONFIG);

/// A list of credentials.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::compat::grid) struct Credentials {
    pub(in crate::compat::grid) credentials: Vec<Credential>,
    pub(in crate::compat::grid) next_page_token: String,
    pub(in crate::compat::grid) previous_page_token: String,
    pub(in crate::compat::grid) total_size: String,
}

/// A credential.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::compat::grid) struct Credential {
    cluster_id: String,
    creation_timestamp: String,
    credential: String,
    deletion_timestamp: Option<String>,
    id: String,
    r#type: &'static str,
    update_timestamp: String,
    user_id: String,
}

/// What is in one, inside of its base64.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Content {
    aws: Option<Role>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Role {
    #[serde(deserialize_with = "or_default")]
    role_arn: String,
    #[serde(deserialize_with = "or_default")]
    external_id: String,
}

impl Credential {
    /// One whose open part the caller may read; nothing of the others is shown here.
    pub(in crate::compat::grid) fn new(
        credential: grid_engine::credential::Credential,
        cluster: &str,
    ) -> Option<Self> {
        let content = Content {
            aws: Some(match credential.shown? {
                Shown::Role {
                    role_arn,
                    external_id,
                } => Role {
                    role_arn,
                    external_id,
                },
                // The client has no words for keys; this is what is no secret of one.
                Shown::Key { access_key_id, .. } => Role {
                    role_arn: format!("access key {access_key_id}"),
                    external_id: String::new(),
                },
            }),
        };
        let row = credential.row;
        Some(Self {
            cluster_id: cluster.to_owned(),
            creation_timestamp: time(row.created_at),
            credential: encoded(&content),
            deletion_timestamp: None,
            id: row.id.to_string(),
            r#type: TYPE,
            update_timestamp: time(row.updated_at),
            user_id: row.creator.to_string(),
        })
    }
}

/// The client checks for one alphabet of base64 and reads another.  Only `>`, `?` and `~`
/// make letters that are not in both, and JSON can write these otherwise.
fn encoded(content: &Content) -> String {
    let json = serde_json::to_string(content).unwrap_or_default();
    let json = json
        .replace('>', "\\u003e")
        .replace('?', "\\u003f")
        .replace('~', "\\u007e");
    BASE64_STANDARD.encode(json)
}

/// Making a credential.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(in crate::compat::grid) struct Create {
    #[serde(deserialize_with = "or_default")]
    credential: Asked,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Asked {
    #[serde(deserialize_with = "or_default")]
    credential: String,
    #[serde(deserialize_with = "or_default")]
    r#type: String,
}

impl Create {
    /// What is to be kept.
    pub(in crate::compat::grid) fn read(&self) -> Result<S3> {
        let asked = &self.credential;
        if asked.r#type != TYPE {
            return Err(Failure::invalid(format!(
                "there is no kind of credential '{}' here",
                asked.r#type
            )));
        }
        let text = asked.credential.trim();
        let bytes = STANDARD.decode(text).or_else(|_| URL_SAFE.decode(text));
        let content = bytes
            .ok()
            .and_then(|bytes| serde_json::from_slice::<Content>(&bytes).ok());
        // What was sent is secret, and stays out of the answer.
        let role = content.and_then(|content| content.aws).ok_or_else(|| {
            Failure::invalid("the credential does not read as a role and its external id")
        })?;
        Ok(S3::Role {
            role_arn: role.role_arn,
            external_id: role.external_id,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(credential: &str) -> Result<S3> {
        let body = serde_json::json!({ "credential": { "type": TYPE, "credential": credential } });
        serde_json::from_value::<Create>(body).expect("read").read()
    }

    #[test]
    fn what_is_shown_reads_in_both_alphabets() {
        let content = Content {
            aws: Some(Role {
                role_arn: "arn:aws:iam::123456789012:role/x".to_owned(),
                external_id: "a>>>b???c~~~d".to_owned(),
            }),
        };
        for shift in 0..3 {
            let mut content = Content {
                aws: content.aws.as_ref().map(|role| Role {
                    role_arn: format!("{}{}", role.role_arn, "x".repeat(shift)),
                    external_id: role.external_id.clone(),
                }),
            };
            let text = encoded(&content);
            assert!(!text.contains(['+', '/']), "{text}");
            let role = content.aws.take().expect("a role");
            let read = read(&text).expect("a role");
            assert_eq!(
                read,
                S3::Role {
                    role_arn: role.role_arn,
                    external_id: role.external_id
                }
            );
        }
    }

    #[test]
    fn what_is_no_credential_is_refused_without_showing_it() {
        for text in ["", "%%%", "c2VjcmV0", "e30="] {
            let failure = read(text).expect_err(text);
            let message = failure.body().error.message;
            assert!(message.contains("does not read"), "{message}");
        }
    }
}
