//! Public SSH keys.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use grid_api::ssh_key::{SshKeyCreate, SshKeyResponse, SshKeyView, SshKeysResponse};
use grid_engine::Engine;
use grid_store::db::ssh_key::SshKey;

use crate::auth::Caller;
use crate::error::Result;
use crate::extract::{JsonBody, Nothing, Path, Query};

/// List my SSH keys
#[utoipa::path(get, path = "/user/ssh-keys", tag = "users",
    responses((status = 200, body = SshKeysResponse)))]
pub(super) async fn ssh_key_list(
    State(engine): State<Engine>,
    Caller(caller): Caller,
    _: Query<Nothing>,
) -> Result<Json<SshKeysResponse>> {
    let keys = grid_engine::ssh_key::list(&engine, &caller).await?;
    Ok(Json(SshKeysResponse {
        ssh_keys: keys.into_iter().map(view).collect(),
    }))
}

/// Add an SSH key of mine
#[utoipa::path(post, path = "/user/ssh-keys", tag = "users", request_body = SshKeyCreate,
    responses((status = 201, body = SshKeyResponse)))]
pub(super) async fn ssh_key_create(
    State(engine): State<Engine>,
    Caller(caller): Caller,
    _: Query<Nothing>,
    JsonBody(create): JsonBody<SshKeyCreate>,
) -> Result<(StatusCode, Json<SshKeyResponse>)> {
    let (name, key) = (&create.name, &create.public_key);
    let key = grid_engine::ssh_key::add(&engine, &caller, name, key).await?;
    let ssh_key = view(key);
    Ok((StatusCode::CREATED, Json(SshKeyResponse { ssh_key })))
}

/// Remove an SSH key of mine
#[utoipa::path(delete, path = "/user/ssh-keys/{key}", tag = "users",
    params(("key" = String, Path, description = "Name or id")),
    responses((status = 200, body = SshKeyResponse)))]
pub(super) async fn ssh_key_remove(
    State(engine): State<Engine>,
    Caller(caller): Caller,
    Path(key): Path<String>,
    _: Query<Nothing>,
) -> Result<Json<SshKeyResponse>> {
    let key = grid_engine::ssh_key::remove(&engine, &caller, &key).await?;
    Ok(Json(SshKeyResponse { ssh_key: view(key) }))
}

fn view(key: SshKey) -> SshKeyView {
    SshKeyView {
        id: key.id.to_string(),
        name: key.name,
        public_key: key.public_key,
        fingerprint: key.fingerprint,
        created_at: key.created_at.to_string(),
    }
}
