//! Invitations to teams.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::{Extension, Json};
use grid_api::team::{
    InvitationAnswer, InvitationCreate, InvitationCreated, InvitationRegister, InvitationResponse,
    InvitationView, InvitationsResponse, TeamResponse,
};
use grid_api::user::UserKey;
use grid_core::team::Role;
use grid_engine::Engine;
use grid_engine::audit::Trail;
use grid_engine::invitation::{By, Info};
use grid_engine::user::NewUser;

use super::{App, team, views};
use crate::auth::Caller;
use crate::error::{Failure, Result};
use crate::extract::{JsonBody, Nothing, Path, Query};

/// List the open invitations of a team
#[utoipa::path(get, path = "/teams/{team}/invitations", tag = "teams",
    params(("team" = String, Path, description = "Name or id")),
    responses((status = 200, body = InvitationsResponse)))]
pub(super) async fn team_invitation_list(
    State(engine): State<Engine>,
    Caller(caller): Caller,
    Path(team): Path<String>,
    _: Query<Nothing>,
) -> Result<Json<InvitationsResponse>> {
    let all = grid_engine::invitation::of_team(&engine, &caller, &team).await?;
    Ok(Json(InvitationsResponse {
        invitations: all.into_iter().map(view).collect(),
    }))
}

/// Invite somebody, by user name or address
///
/// One to an address has a link, shown this once, for whoever has it. It works once, for 7
/// days. Another to the same name replaces it.
#[utoipa::path(post, path = "/teams/{team}/invitations", tag = "teams",
    request_body = InvitationCreate,
    params(("team" = String, Path, description = "Name or id")),
    responses((status = 201, body = InvitationCreated)))]
pub(super) async fn invitation_create(
    State(app): State<App>,
    Caller(caller): Caller,
    Path(team): Path<String>,
    _: Query<Nothing>,
    uri: Uri,
    headers: HeaderMap,
    JsonBody(create): JsonBody<InvitationCreate>,
) -> Result<(StatusCode, Json<InvitationCreated>)> {
    let base = app.base(&uri, &headers)?;
    let role = create.role.unwrap_or(Role::Member);
    let engine = &app.engine;
    let made = grid_engine::invitation::create(engine, &caller, &team, &create.to, role).await?;
    let url = made
        .token
        .as_ref()
        .map(|token| format!("{base}/join/{token}"));
    let created = InvitationCreated {
        invitation: view(made.info),
        token: made.token,
        url,
    };
    Ok((StatusCode::CREATED, Json(created)))
}

/// Take an invitation back
#[utoipa::path(delete, path = "/teams/{team}/invitations/{invitation}", tag = "teams",
    params(
        ("team" = String, Path, description = "Name or id"),
        ("invitation" = String, Path, description = "Id, or who was invited")),
    responses((status = 200, body = InvitationResponse)))]
pub(super) async fn invitation_revoke(
    State(engine): State<Engine>,
    Caller(caller): Caller,
    Path((team, invitation)): Path<(String, String)>,
    _: Query<Nothing>,
) -> Result<Json<InvitationResponse>> {
    let info = grid_engine::invitation::revoke(&engine, &caller, &team, &invitation).await?;
    Ok(answer(info))
}

/// List the invitations that wait for me
#[utoipa::path(get, path = "/invitations", tag = "teams",
    responses((status = 200, body = InvitationsResponse)))]
pub(super) async fn invitation_list(
    State(engine): State<Engine>,
    Caller(caller): Caller,
    _: Query<Nothing>,
) -> Result<Json<InvitationsResponse>> {
    let all = grid_engine::invitation::of_caller(&engine, &caller).await?;
    Ok(Json(InvitationsResponse {
        invitations: all.into_iter().map(view).collect(),
    }))
}

/// Join a team that invited me, or whose link I have
#[utoipa::path(post, path = "/invitations/accept", tag = "teams",
    request_body = InvitationAnswer, responses((status = 200, body = TeamResponse)))]
pub(super) async fn invitation_accept(
    State(engine): State<Engine>,
    Caller(caller): Caller,
    _: Query<Nothing>,
    JsonBody(body): JsonBody<InvitationAnswer>,
) -> Result<Json<TeamResponse>> {
    let info = grid_engine::invitation::accept(&engine, &caller, by(&body)?).await?;
    Ok(team::answer(info))
}

/// Decline an invitation
#[utoipa::path(post, path = "/invitations/decline", tag = "teams",
    request_body = InvitationAnswer, responses((status = 200, body = InvitationResponse)))]
pub(super) async fn invitation_decline(
    State(engine): State<Engine>,
    Caller(caller): Caller,
    _: Query<Nothing>,
    JsonBody(body): JsonBody<InvitationAnswer>,
) -> Result<Json<InvitationResponse>> {
    let info = grid_engine::invitation::decline(&engine, &caller, by(&body)?).await?;
    Ok(answer(info))
}

/// Make an account with an invitation, and join with it
///
/// Needs no account. The key is shown this once.
#[utoipa::path(post, path = "/invitations/register", tag = "teams",
    request_body = InvitationRegister, responses((status = 201, body = UserKey)))]
pub(super) async fn invitation_register(
    State(engine): State<Engine>,
    Extension(trail): Extension<Trail>,
    _: Query<Nothing>,
    JsonBody(body): JsonBody<InvitationRegister>,
) -> Result<(StatusCode, Json<UserKey>)> {
    let new = NewUser {
        username: body.username,
        email: None,
        first_name: body.first_name,
        last_name: body.last_name,
        operator: false,
    };
    let made = grid_engine::invitation::register(&engine, &trail, &body.token, new).await?;
    Ok((StatusCode::CREATED, Json(views::key(made))))
}

fn by(body: &InvitationAnswer) -> Result<By<'_>> {
    match (&body.team, &body.token) {
        (Some(team), None) => Ok(By::Team(team)),
        (None, Some(token)) => Ok(By::Token(token)),
        _ => Err(Failure::invalid(
            "name the team that invited you, or the token of a link: one of the two",
        )),
    }
}

fn answer(info: Info) -> Json<InvitationResponse> {
    Json(InvitationResponse {
        invitation: view(info),
    })
}

fn view(info: Info) -> InvitationView {
    InvitationView {
        id: info.row.id,
        team: info.team,
        to: info.row.invitee,
        role: info.row.role,
        invited_by: info.invited_by,
        created_at: info.row.created_at.to_string(),
        expires_at: info.row.expires_at.to_string(),
    }
}
