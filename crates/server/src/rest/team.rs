//! Teams: members, roles, policy.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use grid_api::team::{
    CurrentTeam, MemberUpdate, MemberView, PolicyResponse, PolicyUpdate, RuleView, TeamCreate,
    TeamLeft, TeamRename, TeamResponse, TeamView, TeamsQuery, TeamsResponse,
};
use grid_api::user::UserResponse;
use grid_core::access::{Action, Decision, Relation, about_team, cell, may};
use grid_engine::Engine;
use grid_engine::team::Info;

use super::views;
use crate::auth::Caller;
use crate::error::Result;
use crate::extract::{JsonBody, Nothing, Path, Query};

/// List my teams
///
/// By name, without members. Operators may ask for all.
#[utoipa::path(get, path = "/teams", tag = "teams", params(TeamsQuery),
    responses((status = 200, body = TeamsResponse)))]
pub(super) async fn team_list(
    State(engine): State<Engine>,
    Caller(caller): Caller,
    Query(query): Query<TeamsQuery>,
) -> Result<Json<TeamsResponse>> {
    let all = query.all.unwrap_or(false);
    let teams = grid_engine::team::list(&engine, &caller, all).await?;
    Ok(Json(TeamsResponse {
        teams: teams.into_iter().map(team).collect(),
    }))
}

/// Create a team, of which I am the owner
#[utoipa::path(post, path = "/teams", tag = "teams", request_body = TeamCreate,
    responses((status = 201, body = TeamResponse)))]
pub(super) async fn team_create(
    State(engine): State<Engine>,
    Caller(caller): Caller,
    _: Query<Nothing>,
    JsonBody(create): JsonBody<TeamCreate>,
) -> Result<(StatusCode, Json<TeamResponse>)> {
    let info = grid_engine::team::create(&engine, &caller, &create.name).await?;
    Ok((StatusCode::CREATED, answer(info)))
}

/// Get a team with its members
#[utoipa::path(get, path = "/teams/{team}", tag = "teams",
    params(("team" = String, Path, description = "Name or id")),
    responses((status = 200, body = TeamResponse)))]
pub(super) async fn team_get(
    State(engine): State<Engine>,
    Caller(caller): Caller,
    Path(team): Path<String>,
    _: Query<Nothing>,
) -> Result<Json<TeamResponse>> {
    Ok(answer(
        grid_engine::team::get(&engine, &caller, &team).await?,
    ))
}

/// Rename a team
#[utoipa::path(post, path = "/teams/{team}/rename", tag = "teams", request_body = TeamRename,
    params(("team" = String, Path, description = "Name or id")),
    responses((status = 200, body = TeamResponse)))]
pub(super) async fn team_rename(
    State(engine): State<Engine>,
    Caller(caller): Caller,
    Path(team): Path<String>,
    _: Query<Nothing>,
    JsonBody(rename): JsonBody<TeamRename>,
) -> Result<Json<TeamResponse>> {
    let info = grid_engine::team::rename(&engine, &caller, &team, &rename.name).await?;
    Ok(answer(info))
}

/// Leave a team
///
/// The last owner cannot.
#[utoipa::path(post, path = "/teams/{team}/leave", tag = "teams",
    params(("team" = String, Path, description = "Name or id")),
    responses((status = 200, body = TeamLeft)))]
pub(super) async fn team_leave(
    State(engine): State<Engine>,
    Caller(caller): Caller,
    Path(team): Path<String>,
    _: Query<Nothing>,
) -> Result<Json<TeamLeft>> {
    let (team, current) = grid_engine::team::leave(&engine, &caller, &team).await?;
    Ok(Json(TeamLeft { team, current }))
}

/// The rules of a team, as they are for me
#[utoipa::path(get, path = "/teams/{team}/policy", tag = "teams",
    params(("team" = String, Path, description = "Name or id")),
    responses((status = 200, body = PolicyResponse)))]
pub(super) async fn team_policy(
    State(engine): State<Engine>,
    Caller(caller): Caller,
    Path(team): Path<String>,
    _: Query<Nothing>,
) -> Result<Json<PolicyResponse>> {
    let info = grid_engine::team::get(&engine, &caller, &team).await?;
    Ok(Json(policy(info)))
}

/// Change the policy of a team
#[utoipa::path(put, path = "/teams/{team}/policy", tag = "teams", request_body = PolicyUpdate,
    params(("team" = String, Path, description = "Name or id")),
    responses((status = 200, body = PolicyResponse)))]
pub(super) async fn team_set_policy(
    State(engine): State<Engine>,
    Caller(caller): Caller,
    Path(team): Path<String>,
    _: Query<Nothing>,
    JsonBody(update): JsonBody<PolicyUpdate>,
) -> Result<Json<PolicyResponse>> {
    let info = grid_engine::team::set_policy(
        &engine,
        &caller,
        &team,
        update.run_control,
        update.jupyter_access,
    )
    .await?;
    Ok(Json(policy(info)))
}

/// Change what somebody is in a team
#[utoipa::path(put, path = "/teams/{team}/members/{user}", tag = "teams", request_body = MemberUpdate,
    params(
        ("team" = String, Path, description = "Name or id"),
        ("user" = String, Path, description = "User name")),
    responses((status = 200, body = TeamResponse)))]
pub(super) async fn member_update(
    State(engine): State<Engine>,
    Caller(caller): Caller,
    Path((team, user)): Path<(String, String)>,
    _: Query<Nothing>,
    JsonBody(update): JsonBody<MemberUpdate>,
) -> Result<Json<TeamResponse>> {
    let info = grid_engine::team::set_role(&engine, &caller, &team, &user, update.role).await?;
    Ok(answer(info))
}

/// Take somebody out of a team
///
/// At once: their streams end, and their links, too. Their runs stay.
#[utoipa::path(delete, path = "/teams/{team}/members/{user}", tag = "teams",
    params(
        ("team" = String, Path, description = "Name or id"),
        ("user" = String, Path, description = "User name")),
    responses((status = 200, body = TeamResponse)))]
pub(super) async fn member_remove(
    State(engine): State<Engine>,
    Caller(caller): Caller,
    Path((team, user)): Path<(String, String)>,
    _: Query<Nothing>,
) -> Result<Json<TeamResponse>> {
    let info = grid_engine::team::remove(&engine, &caller, &team, &user).await?;
    Ok(answer(info))
}

/// Choose the team that my new things go to
#[utoipa::path(put, path = "/user/team", tag = "teams", request_body = CurrentTeam,
    responses((status = 200, body = UserResponse)))]
pub(super) async fn user_set_team(
    State(engine): State<Engine>,
    Caller(caller): Caller,
    _: Query<Nothing>,
    JsonBody(current): JsonBody<CurrentTeam>,
) -> Result<Json<UserResponse>> {
    let caller = grid_engine::team::set_current(&engine, &caller, &current.team).await?;
    Ok(Json(UserResponse {
        user: views::caller(caller),
    }))
}

pub(super) fn answer(info: Info) -> Json<TeamResponse> {
    Json(TeamResponse { team: team(info) })
}

fn team(info: Info) -> TeamView {
    let member = |member: grid_store::db::team::Member| MemberView {
        role: member.role,
        service_account: member.user.service_team.is_some(),
        since: member.since.to_string(),
        display_name: views::display_name(&member.user),
        username: member.user.username,
    };
    TeamView {
        id: info.team.id.to_string(),
        name: info.team.name,
        personal: info.team.personal,
        created_at: info.team.created_at.to_string(),
        role: info.role,
        current: info.current,
        policy: info.team.policy,
        member_count: info.size,
        members: info.members.into_iter().map(member).collect(),
    }
}

/// The table, for one person.
fn policy(info: Info) -> PolicyResponse {
    let policy = info.team.policy;
    let (mine, theirs) = match info.role {
        Some(role) => (Relation::Creator(role), Relation::Teammate(role)),
        None => (Relation::Operator, Relation::Operator),
    };
    let is_allowed = |decision| matches!(decision, Decision::Allow | Decision::AllowAudited);
    let rule = |action: Action| {
        let (own, others) = (may(mine, action, policy), may(theirs, action, policy));
        RuleView {
            action,
            what: action.label().to_owned(),
            mine: (!about_team(action)).then(|| cell(own)),
            theirs: cell(others),
            mine_allowed: is_allowed(own),
            theirs_allowed: is_allowed(others),
        }
    };
    PolicyResponse {
        team: info.team.name,
        role: info.role,
        policy,
        rules: Action::ALL.into_iter().map(rule).collect(),
    }
}
