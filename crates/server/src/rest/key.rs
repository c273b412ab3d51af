//! API keys, and accounts for programs.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use grid_api::key::{
    KeyCreate, KeyCreated, KeyResponse, KeyView, KeysQuery, KeysResponse, S3Secret,
};
use grid_api::team::{ServiceAccountCreate, ServiceAccountView, ServiceAccountsResponse};
use grid_core::access::Scope;
use grid_core::id::KeyId;
use grid_core::team::Role;
use grid_engine::Engine;
use grid_engine::key::{Account, Created, NewKey};
use grid_store::db::key::Key;

use super::App;
use crate::auth::Caller;
use crate::error::Result;
use crate::extract::{JsonBody, Nothing, Path, Query};

/// What the first key of an account for programs is called.
const FIRST_KEY: &str = "default";

/// List my API keys, without their secrets
#[utoipa::path(get, path = "/user/keys", tag = "users", params(KeysQuery),
    responses((status = 200, body = KeysResponse)))]
pub(super) async fn key_list(
    State(engine): State<Engine>,
    Caller(caller): Caller,
    Query(query): Query<KeysQuery>,
) -> Result<Json<KeysResponse>> {
    let all = query.all.unwrap_or(false);
    let keys = grid_engine::key::list(&engine, &caller, all).await?;
    Ok(Json(KeysResponse {
        keys: keys.into_iter().map(|key| view(key, caller.key)).collect(),
    }))
}

/// Make another API key
///
/// It is shown this once. One of S3 signs requests there and is good for nothing else.
#[utoipa::path(post, path = "/user/keys", tag = "users", request_body = KeyCreate,
    responses((status = 201, body = KeyCreated)))]
pub(super) async fn key_create(
    State(app): State<App>,
    Caller(caller): Caller,
    _: Query<Nothing>,
    JsonBody(create): JsonBody<KeyCreate>,
) -> Result<(StatusCode, Json<KeyCreated>)> {
    let new = new_key(create, Scope::All);
    let made = grid_engine::key::create(&app.engine, &caller, &new).await?;
    Ok((StatusCode::CREATED, Json(created(&app, made))))
}

/// Revoke an API key of mine
#[utoipa::path(delete, path = "/user/keys/{key}", tag = "users",
    params(("key" = String, Path, description = "Name or id")),
    responses((status = 200, body = KeyResponse)))]
pub(super) async fn key_revoke(
    State(engine): State<Engine>,
    Caller(caller): Caller,
    Path(key): Path<String>,
    _: Query<Nothing>,
) -> Result<Json<KeyResponse>> {
    let key = grid_engine::key::revoke(&engine, &caller, &key).await?;
    Ok(Json(KeyResponse {
        key: view(key, caller.key),
    }))
}

/// List the accounts for programs of a team
#[utoipa::path(get, path = "/teams/{team}/service-accounts", tag = "teams",
    params(("team" = String, Path, description = "Name or id")),
    responses((status = 200, body = ServiceAccountsResponse)))]
pub(super) async fn service_account_list(
    State(engine): State<Engine>,
    Caller(caller): Caller,
    Path(team): Path<String>,
    _: Query<Nothing>,
) -> Result<Json<ServiceAccountsResponse>> {
    let all = grid_engine::key::accounts(&engine, &caller, &team).await?;
    Ok(accounts(all))
}

/// Make an account for programs, with its first key
///
/// The key is shown this once.
#[utoipa::path(post, path = "/teams/{team}/service-accounts", tag = "teams",
    request_body = ServiceAccountCreate,
    params(("team" = String, Path, description = "Name or id")),
    responses((status = 201, body = KeyCreated)))]
pub(super) async fn service_account_create(
    State(app): State<App>,
    Caller(caller): Caller,
    Path(team): Path<String>,
    _: Query<Nothing>,
    JsonBody(create): JsonBody<ServiceAccountCreate>,
) -> Result<(StatusCode, Json<KeyCreated>)> {
    let key = NewKey {
        signs: false,
        name: FIRST_KEY.to_owned(),
        scope: create.scope.unwrap_or(Scope::Run),
        expires_in_s: create.expires_in_s,
    };
    let role = create.role.unwrap_or(Role::Member);
    let name = &create.name;
    let made =
        grid_engine::key::create_account(&app.engine, &caller, &team, name, role, &key).await?;
    Ok((StatusCode::CREATED, Json(created(&app, made))))
}

/// Make another key for an account for programs
#[utoipa::path(post, path = "/teams/{team}/service-accounts/{account}/keys", tag = "teams",
    request_body = KeyCreate,
    params(
        ("team" = String, Path, description = "Name or id"),
        ("account" = String, Path, description = "Name")),
    responses((status = 201, body = KeyCreated)))]
pub(super) async fn service_account_key_create(
    State(app): State<App>,
    Caller(caller): Caller,
    Path((team, account)): Path<(String, String)>,
    _: Query<Nothing>,
    JsonBody(create): JsonBody<KeyCreate>,
) -> Result<(StatusCode, Json<KeyCreated>)> {
    let new = new_key(create, Scope::Run);
    let made =
        grid_engine::key::create_account_key(&app.engine, &caller, &team, &account, &new).await?;
    Ok((StatusCode::CREATED, Json(created(&app, made))))
}

/// Close an account for programs
///
/// Its keys end at once. Its runs stay.
#[utoipa::path(delete, path = "/teams/{team}/service-accounts/{account}", tag = "teams",
    params(
        ("team" = String, Path, description = "Name or id"),
        ("account" = String, Path, description = "Name")),
    responses((status = 200, body = ServiceAccountsResponse)))]
pub(super) async fn service_account_remove(
    State(engine): State<Engine>,
    Caller(caller): Caller,
    Path((team, account)): Path<(String, String)>,
    _: Query<Nothing>,
) -> Result<Json<ServiceAccountsResponse>> {
    let left = grid_engine::key::remove_account(&engine, &caller, &team, &account).await?;
    Ok(accounts(left))
}

fn new_key(create: KeyCreate, usual: Scope) -> NewKey {
    NewKey {
        signs: create.s3.unwrap_or(false),
        name: create.name,
        scope: create.scope.unwrap_or(usual),
        expires_in_s: create.expires_in_s,
    }
}

fn created(app: &App, made: Created) -> KeyCreated {
    let (api_key, s3) = match &made.key.access_key {
        None => (Some(made.secret), None),
        Some(access_key) => {
            let secret = S3Secret {
                access_key_id: access_key.clone(),
                secret_access_key: made.secret,
                endpoint: app.s3_url.as_deref().map(str::to_owned),
            };
            (None, Some(secret))
        }
    };
    KeyCreated {
        username: made.user.username,
        user_id: made.user.id.to_string(),
        key: view(made.key, None),
        api_key,
        s3,
    }
}

fn accounts(all: Vec<Account>) -> Json<ServiceAccountsResponse> {
    let account = |account: Account| ServiceAccountView {
        user_id: account.user.id.to_string(),
        created_at: account.user.created_at.to_string(),
        username: account.user.username,
        role: account.role,
        keys: account
            .keys
            .into_iter()
            .map(|key| view(key, None))
            .collect(),
    };
    Json(ServiceAccountsResponse {
        service_accounts: all.into_iter().map(account).collect(),
    })
}

fn view(key: Key, current: Option<KeyId>) -> KeyView {
    KeyView {
        id: key.id.to_string(),
        name: key.name,
        scope: Scope::parse(&key.scope).unwrap_or(Scope::Read),
        created_at: key.created_at.to_string(),
        expires_at: key.expires_at.map(|at| at.to_string()),
        last_used_at: key.last_used_at.map(|at| at.to_string()),
        revoked_at: key.revoked_at.map(|at| at.to_string()),
        current: Some(key.id) == current,
        access_key_id: key.access_key,
    }
}
