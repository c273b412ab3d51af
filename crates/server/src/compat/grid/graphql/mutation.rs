//! What the original client changes by GraphQL: the public SSH keys of who is signed in.
//!
//! What is refused is an error and not a `success` of `false`: of that the client says
//! nothing, or not why.

use async_graphql::{Context, ID, Object, Result};

use super::credentials::CloudCredentialProperties;
use super::types::{AddKeyResult, MutationResult};
use super::{asked, refused};

pub(super) struct Mutation;

/// Changes of the original client.
#[Object]
impl Mutation {
    #[graphql(name = "addSSHPublicKey")]
    async fn add_ssh_public_key(
        &self,
        ctx: &Context<'_>,
        name: String,
        public_key: String,
    ) -> Result<AddKeyResult> {
        let asked = asked(ctx)?;
        let engine = &asked.app.engine;
        let added = grid_engine::ssh_key::add(engine, &asked.caller, &name, &public_key).await;
        let key = added.map_err(refused)?;
        Ok(AddKeyResult {
            success: true,
            message: format!("added {}", key.fingerprint),
            id: Some(key.id.to_string().into()),
        })
    }

    async fn create_cloud_credential(
        &self,
        ctx: &Context<'_>,
        properties: CloudCredentialProperties,
    ) -> Result<MutationResult> {
        let new = properties.credential()?;
        let asked = asked(ctx)?;
        let made = grid_engine::credential::create(&asked.app.engine, &asked.caller, &new).await;
        let name = made.map_err(refused)?.row.name;
        Ok(MutationResult {
            success: true,
            message: format!("Made credential {name}"),
        })
    }

    /// There is nothing to choose: who uses a credential names it.
    async fn update_cloud_credential(
        &self,
        credential_id: ID,
        #[graphql(name = "alias")] _alias: Option<String>,
        #[graphql(name = "description")] _description: Option<String>,
        #[graphql(name = "isDefault")] _is_default: Option<bool>,
    ) -> Result<MutationResult> {
        let why = format!(
            "credential {} was left as it is: here is no default credential, one is named where \
             it is used",
            credential_id.as_str()
        );
        Err(async_graphql::Error::new(why))
    }

    #[graphql(name = "deleteSSHPublicKey")]
    async fn delete_ssh_public_key(&self, ctx: &Context<'_>, id: ID) -> Result<MutationResult> {
        let asked = asked(ctx)?;
        let engine = &asked.app.engine;
        let removed = grid_engine::ssh_key::remove(engine, &asked.caller, &id).await;
        let key = removed.map_err(refused)?;
        Ok(MutationResult {
            success: true,
            message: format!("removed {}", key.name),
        })
    }
}
