//! Credentials, without their secrets.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use grid_api::credential::{
    CredentialContent, CredentialCreate, CredentialResponse, CredentialUpdate, CredentialView,
    CredentialsQuery, CredentialsResponse,
};
use grid_core::credential::{S3, Shown};
use grid_engine::Engine;
use grid_engine::credential::{Credential, New};

use crate::auth::Caller;
use crate::error::Result;
use crate::extract::{JsonBody, Nothing, Path, Query};

/// List my credentials, and with `global` those of teammates that I may use
#[utoipa::path(get, path = "/credentials", tag = "credentials", params(CredentialsQuery),
    responses((status = 200, body = CredentialsResponse)))]
pub(super) async fn credential_list(
    State(engine): State<Engine>,
    Caller(caller): Caller,
    Query(query): Query<CredentialsQuery>,
) -> Result<Json<CredentialsResponse>> {
    let global = query.global.unwrap_or(false);
    let all = grid_engine::credential::list(&engine, &caller, global).await?;
    Ok(Json(CredentialsResponse {
        credentials: all.into_iter().map(view).collect(),
    }))
}

/// Make a credential
///
/// What is secret in it is never shown again.
#[utoipa::path(post, path = "/credentials", tag = "credentials", request_body = CredentialCreate,
    responses((status = 201, body = CredentialResponse)))]
pub(super) async fn credential_create(
    State(engine): State<Engine>,
    Caller(caller): Caller,
    _: Query<Nothing>,
    JsonBody(create): JsonBody<CredentialCreate>,
) -> Result<(StatusCode, Json<CredentialResponse>)> {
    let new = New {
        name: create.name,
        team: create.team,
        content: content(create.content),
    };
    let made = grid_engine::credential::create(&engine, &caller, &new).await?;
    Ok((StatusCode::CREATED, answer(made)))
}

/// Show a credential, without its secret
#[utoipa::path(get, path = "/credentials/{credential}", tag = "credentials",
    params(("credential" = String, Path, description = "Name, `user:name`, or id")),
    responses((status = 200, body = CredentialResponse)))]
pub(super) async fn credential_get(
    State(engine): State<Engine>,
    Caller(caller): Caller,
    Path(credential): Path<String>,
    _: Query<Nothing>,
) -> Result<Json<CredentialResponse>> {
    let found = grid_engine::credential::get(&engine, &caller, &credential).await?;
    Ok(answer(found))
}

/// Put something else into a credential of mine
#[utoipa::path(put, path = "/credentials/{credential}", tag = "credentials",
    request_body = CredentialUpdate,
    params(("credential" = String, Path, description = "Name, `user:name`, or id")),
    responses((status = 200, body = CredentialResponse)))]
pub(super) async fn credential_update(
    State(engine): State<Engine>,
    Caller(caller): Caller,
    Path(credential): Path<String>,
    _: Query<Nothing>,
    JsonBody(update): JsonBody<CredentialUpdate>,
) -> Result<Json<CredentialResponse>> {
    let content = content(update.content);
    let changed = grid_engine::credential::update(&engine, &caller, &credential, &content).await?;
    Ok(answer(changed))
}

/// Delete a credential, at once and for ever
#[utoipa::path(delete, path = "/credentials/{credential}", tag = "credentials",
    params(("credential" = String, Path, description = "Name, `user:name`, or id")),
    responses((status = 200, body = CredentialResponse)))]
pub(super) async fn credential_delete(
    State(engine): State<Engine>,
    Caller(caller): Caller,
    Path(credential): Path<String>,
    _: Query<Nothing>,
) -> Result<Json<CredentialResponse>> {
    let gone = grid_engine::credential::delete(&engine, &caller, &credential).await?;
    Ok(answer(gone))
}

fn content(content: CredentialContent) -> S3 {
    match content {
        CredentialContent::S3Role {
            role_arn,
            external_id,
        } => S3::Role {
            role_arn,
            external_id,
        },
        CredentialContent::S3Key {
            access_key_id,
            secret_access_key,
            session_token,
            endpoint,
            region,
        } => S3::Key {
            access_key_id,
            secret_access_key,
            session_token,
            endpoint,
            region,
        },
    }
}

fn answer(credential: Credential) -> Json<CredentialResponse> {
    Json(CredentialResponse {
        credential: view(credential),
    })
}

fn view(credential: Credential) -> CredentialView {
    let row = credential.row;
    let mut view = CredentialView {
        id: row.id.to_string(),
        name: row.name,
        kind: row.kind,
        created_by: credential.created_by,
        team: credential.team,
        role_arn: None,
        external_id: None,
        access_key_id: None,
        endpoint: None,
        region: None,
        created_at: row.created_at.to_string(),
        updated_at: row.updated_at.to_string(),
        problem: credential.problem,
    };
    match credential.shown {
        Some(Shown::Role {
            role_arn,
            external_id,
        }) => {
            view.role_arn = Some(role_arn);
            view.external_id = Some(external_id);
        }
        Some(Shown::Key {
            access_key_id,
            endpoint,
            region,
        }) => {
            view.access_key_id = Some(access_key_id);
            view.endpoint = endpoint;
            view.region = region;
        }
        None => {}
    }
    view
}
