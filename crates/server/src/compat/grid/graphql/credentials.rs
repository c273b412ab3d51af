//! Credentials as the versions up to 0.8.50 add and list them; later ones use REST.

use async_graphql::{Error, ID, InputObject, InputValueError, InputValueResult, Result};
use async_graphql::{Scalar, ScalarType, SimpleObject, Value};
use grid_core::credential::S3;
use grid_engine::credential::{Credential, New};

use super::scalar::text;

/// The only provider that there is.
const PROVIDER: &str = "aws";

/// A document of JSON in a text.
pub(super) struct Document(serde_json::Value);

#[Scalar(name = "JSONString")]
impl ScalarType for Document {
    fn parse(value: Value) -> InputValueResult<Self> {
        let Value::String(text) = &value else {
            return Err(InputValueError::expected_type(value));
        };
        // What is in it is secret: the words of the error do not repeat it.
        let document = serde_json::from_str(text);
        document
            .map(Self)
            .map_err(|_| InputValueError::custom("the file is not JSON"))
    }

    fn to_value(&self) -> Value {
        Value::Null
    }
}

/// What is to be kept.
#[derive(InputObject)]
pub(super) struct CloudCredentialProperties {
    provider: String,
    credentials: Document,
    alias: Option<String>,
    /// Shown nowhere.
    description: Option<String>,
}

impl CloudCredentialProperties {
    /// The credential that it describes.
    pub(super) fn credential(self) -> Result<New> {
        if self.provider != PROVIDER {
            return Err(Error::new(format!(
                "there are only credentials of the provider '{PROVIDER}'"
            )));
        }
        drop(self.description);
        Ok(New {
            name: self.alias.map(|alias| alias.to_lowercase()),
            team: None,
            content: content(&self.credentials.0)?,
        })
    }
}

/// Reads a pair of keys or a role, in the spellings of the tools that write such files.
fn content(document: &serde_json::Value) -> Result<S3> {
    // As `aws iam create-access-key` prints it.
    let document = document.get("AccessKey").unwrap_or(document);
    let field = |wanted: &str| {
        let fields = document.as_object()?.iter();
        let mut found = fields.filter(|(name, _)| {
            let letters = name.chars().filter(char::is_ascii_alphanumeric);
            let name = letters.collect::<String>().to_ascii_lowercase();
            name.strip_prefix(PROVIDER).unwrap_or(&name) == wanted
        });
        found.next()?.1.as_str().map(str::to_owned)
    };
    if let (Some(role_arn), Some(external_id)) = (field("rolearn"), field("externalid")) {
        return Ok(S3::Role {
            role_arn,
            external_id,
        });
    }
    match (field("accesskeyid"), field("secretaccesskey")) {
        (Some(access_key_id), Some(secret_access_key)) => Ok(S3::Key {
            access_key_id,
            secret_access_key,
            session_token: field("sessiontoken"),
            endpoint: field("endpoint"),
            region: field("region").or_else(|| field("defaultregion")),
        }),
        _ => Err(Error::new(
            "the file has neither AccessKeyId and SecretAccessKey nor RoleArn and ExternalId",
        )),
    }
}

/// A credential in a list.
#[derive(SimpleObject)]
pub(super) struct UserCredential {
    credential_id: ID,
    provider: &'static str,
    alias: String,
    created_at: String,
    last_used_at: Option<String>,
    default_credential: bool,
}

impl UserCredential {
    pub(super) fn new(credential: &Credential) -> Self {
        Self {
            credential_id: credential.row.id.to_string().into(),
            provider: PROVIDER,
            alias: credential.row.name.clone(),
            created_at: text(credential.row.created_at),
            last_used_at: None,
            default_credential: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn files_of_several_tools_are_read() {
        for document in [
            json!({ "AccessKey": { "UserName": "x", "AccessKeyId": "A", "SecretAccessKey": "S" } }),
            json!({ "aws_access_key_id": "A", "aws_secret_access_key": "S" }),
            json!({ "accessKeyId": "A", "secretAccessKey": "S" }),
        ] {
            let S3::Key {
                access_key_id,
                secret_access_key,
                ..
            } = content(&document).expect("read")
            else {
                panic!("keys")
            };
            assert_eq!((access_key_id, secret_access_key), ("A".into(), "S".into()));
        }
        let role = content(&json!({ "roleArn": "r", "externalId": "e" })).expect("read");
        assert!(matches!(role, S3::Role { .. }));
        for document in [json!({}), json!([]), json!({ "AccessKeyId": "A" })] {
            assert!(content(&document).is_err());
        }
    }
}
