//! Who is calling: `Basic` with user id and key, or `Bearer` with the token that signing in
//! by name gave.

use axum::extract::{FromRequestParts, State};
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::{Extension, Json};
use grid_engine::audit::Trail;
use grid_engine::ticket::{self, Purpose};

use super::shapes::user::{LoggedIn, Login, User};
use crate::auth;
use crate::error::{Failure, Result};
use crate::extract::JsonBody;
use crate::rest::App;

/// How long a token works: the client uses it once, for its next request.  Higher: one that
/// leaks is good for longer.
const TOKEN_LIFE_MS: i64 = 15 * 60 * 1_000;

/// Somebody who is signed in.
pub(super) struct Caller(pub(super) grid_engine::Caller);

impl FromRequestParts<App> for Caller {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self> {
        if let Some(token) = token(parts) {
            let trail = auth::trail(parts);
            return Ok(Self(ticket::enter(&app.engine, &trail, &token).await?));
        }
        let auth::Caller(caller) = auth::Caller::from_request_parts(parts, app).await?;
        Ok(Self(caller))
    }
}

fn token(parts: &Parts) -> Option<String> {
    let header = parts.headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = header.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && ticket::is_one(token)).then(|| token.to_owned())
}

pub(super) async fn login(
    State(app): State<App>,
    Extension(trail): Extension<Trail>,
    JsonBody(login): JsonBody<Login>,
) -> Result<Json<LoggedIn>> {
    let (username, key) = (&login.username, &login.api_key);
    let caller = grid_engine::user::login(&app.engine, &trail, username, key).await?;
    let ticket = ticket::issue(&app.engine, &caller, &Purpose::SignIn, TOKEN_LIFE_MS);
    Ok(Json(LoggedIn { token: ticket.text }))
}

pub(super) async fn user(Caller(caller): Caller) -> Json<User> {
    Json(User::new(caller.user))
}
