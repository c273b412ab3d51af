//! Users, keys, signing in.

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use grid_api::user::{LoginRequest, UserCreate, UserKey, UserResponse, UsersResponse};
use grid_engine::Engine;
use grid_engine::audit::Trail;
use grid_engine::user::NewUser;

use super::{App, views};
use crate::auth::Caller;
use crate::error::Result;
use crate::extract::{JsonBody, Nothing, Query};

/// Find the id that belongs to a name and a key
#[utoipa::path(post, path = "/auth/login", operation_id = "user_login", tag = "users",
    request_body = LoginRequest, responses((status = 200, body = UserResponse)))]
pub(super) async fn login(
    State(engine): State<Engine>,
    Extension(trail): Extension<Trail>,
    _: Query<Nothing>,
    JsonBody(request): JsonBody<LoginRequest>,
) -> Result<Json<UserResponse>> {
    let caller =
        grid_engine::user::login(&engine, &trail, &request.username, &request.api_key).await?;
    Ok(Json(UserResponse {
        user: views::caller(caller),
    }))
}

/// Who am I
#[utoipa::path(get, path = "/user", tag = "users", responses((status = 200, body = UserResponse)))]
pub(super) async fn user_get(
    Caller(caller): Caller,
    _: Query<Nothing>,
) -> Result<Json<UserResponse>> {
    Ok(Json(UserResponse {
        user: views::caller(caller),
    }))
}

/// Replace my API key
///
/// All former keys end. The new one is shown this once.
#[utoipa::path(post, path = "/user/rotate-key", tag = "users", responses((status = 200, body = UserKey)))]
pub(super) async fn user_rotate_key(
    State(app): State<App>,
    Caller(caller): Caller,
    _: Query<Nothing>,
) -> Result<Json<UserKey>> {
    let key = views::key(grid_engine::user::rotate_key(&app.engine, &caller).await?);
    app.keep_operator_key(&key);
    Ok(Json(key))
}

/// List the users that I may know
///
/// Operators see everybody, others those they share a team with.
#[utoipa::path(get, path = "/users", tag = "users", responses((status = 200, body = UsersResponse)))]
pub(super) async fn user_list(
    State(engine): State<Engine>,
    Caller(caller): Caller,
    _: Query<Nothing>,
) -> Result<Json<UsersResponse>> {
    let users = grid_engine::user::list(&engine, &caller).await?;
    let users = users
        .into_iter()
        .map(|user| views::user(user, vec![]))
        .collect();
    Ok(Json(UsersResponse { users }))
}

/// Create a user
///
/// For operators. The key is shown this once.
#[utoipa::path(post, path = "/users", tag = "users", request_body = UserCreate,
    responses((status = 201, body = UserKey)))]
pub(super) async fn user_create(
    State(engine): State<Engine>,
    Caller(caller): Caller,
    _: Query<Nothing>,
    JsonBody(create): JsonBody<UserCreate>,
) -> Result<(StatusCode, Json<UserKey>)> {
    let new = NewUser {
        username: create.username,
        email: create.email,
        first_name: create.first_name,
        last_name: create.last_name,
        operator: create.operator,
    };
    let with_key = grid_engine::user::create(&engine, &caller, &new).await?;
    Ok((StatusCode::CREATED, Json(views::key(with_key))))
}

impl App {
    /// The file that holds the first operator's key goes on holding a key that works.
    fn keep_operator_key(&self, key: &UserKey) {
        let Some(mut operator) = self.folder.operator() else {
            return;
        };
        if operator.user_id != key.user_id {
            return;
        }
        operator.api_key.clone_from(&key.api_key);
        if let Err(error) = self.folder.write_operator(&operator) {
            tracing::warn!(
                error = format!("{error:#}"),
                "the operator's new key is not in the data folder"
            );
        }
    }
}
