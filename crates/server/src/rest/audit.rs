//! The audit log.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::Stream;
use grid_api::audit::{AuditEvent, AuditQuery, AuditResponse};
use grid_engine::Engine;
use grid_engine::audit::{Event, Events, Filter};

use super::cursor;
use crate::auth::Caller;
use crate::error::{Failure, Result};
use crate::extract::{Path, Query};

/// Events in one answer, unless another number is asked for.
const LIMIT: u32 = 100;

/// Most events in one answer, and as many as are read at a time for an export.
const LIMIT_MAX: u32 = 1_000;

/// The audit log of a team, the newest first
///
/// Admins see all of it, everybody else what they did themselves.
#[utoipa::path(get, path = "/teams/{team}/audit", tag = "audit",
    params(("team" = String, Path, description = "Name or id"), AuditQuery),
    responses((status = 200, body = AuditResponse)))]
pub(super) async fn team_audit(
    State(engine): State<Engine>,
    Caller(caller): Caller,
    Path(team): Path<String>,
    Query(query): Query<AuditQuery>,
) -> Result<Json<AuditResponse>> {
    let filter = filter(query)?;
    let page = grid_engine::audit::of_team(&engine, &caller, &team, &filter).await?;
    Ok(Json(answer(page)))
}

/// The audit log of a team as JSON lines
///
/// Everything that matches, the newest first.
#[utoipa::path(get, path = "/teams/{team}/audit/export", tag = "audit",
    params(("team" = String, Path, description = "Name or id"), AuditQuery),
    responses((status = 200, description = "One `AuditEvent` a line", content_type = "application/jsonl", body = String)))]
pub(super) async fn team_audit_export(
    State(engine): State<Engine>,
    Caller(caller): Caller,
    Path(team): Path<String>,
    Query(query): Query<AuditQuery>,
) -> Result<Response> {
    export(engine, caller, Some(team), filter(query)?).await
}

/// What I did, the newest first
///
/// Operators may ask for what everybody did.
#[utoipa::path(get, path = "/audit", tag = "audit", params(AuditQuery),
    responses((status = 200, body = AuditResponse)))]
pub(super) async fn audit_list(
    State(engine): State<Engine>,
    Caller(caller): Caller,
    Query(query): Query<AuditQuery>,
) -> Result<Json<AuditResponse>> {
    let filter = filter(query)?;
    let page = grid_engine::audit::of_caller(&engine, &caller, &filter).await?;
    Ok(Json(answer(page)))
}

/// What I did, as JSON lines
#[utoipa::path(get, path = "/audit/export", tag = "audit", params(AuditQuery),
    responses((status = 200, description = "One `AuditEvent` a line", content_type = "application/jsonl", body = String)))]
pub(super) async fn audit_export(
    State(engine): State<Engine>,
    Caller(caller): Caller,
    Query(query): Query<AuditQuery>,
) -> Result<Response> {
    export(engine, caller, None, filter(query)?).await
}

fn filter(query: AuditQuery) -> Result<Filter> {
    Ok(Filter {
        all: query.all.unwrap_or(false),
        since: cursor::time("since", query.since)?,
        until: cursor::time("until", query.until)?,
        user: query.user,
        action: query.action,
        thing: query.resource,
        result: query.result,
        after: query.cursor.as_deref().map(cursor::audit).transpose()?,
        limit: cursor::limit(query.limit, LIMIT, LIMIT_MAX)?,
    })
}

fn answer(page: Events) -> AuditResponse {
    AuditResponse {
        events: page.items.into_iter().map(event).collect(),
        next: page.next.as_ref().map(cursor::of_audit),
    }
}

fn event(event: Event) -> AuditEvent {
    let entry = event.entry;
    AuditEvent {
        id: entry.id,
        at: entry.at.to_string(),
        actor_kind: entry.actor_kind,
        actor: entry.actor,
        team: event.team,
        action: entry.action,
        thing_kind: entry.thing_kind,
        thing_id: entry.thing_id,
        thing: entry.thing_name,
        result: entry.result,
        detail: entry.detail,
        address: entry.address,
        client: entry.client,
    }
}

/// What an export still has to read.
struct Export {
    engine: Engine,
    caller: grid_engine::Caller,
    team: Option<String>,
    filter: Filter,
    /// A page that was read before the answer began.
    page: Option<Events>,
}

impl Export {
    async fn read(&self) -> grid_engine::Result<Events> {
        let (engine, caller) = (&self.engine, &self.caller);
        match &self.team {
            Some(team) => grid_engine::audit::of_team(engine, caller, team, &self.filter).await,
            None => grid_engine::audit::of_caller(engine, caller, &self.filter).await,
        }
    }

    fn lines(self) -> impl Stream<Item = Result<Bytes, std::io::Error>> + Send {
        futures::stream::try_unfold(self, |mut export| async move {
            let Some(page) = export.page.take() else {
                return Ok(None);
            };
            let mut text = Vec::new();
            for one in page.items {
                serde_json::to_writer(&mut text, &event(one))?;
                text.push(b'\n');
            }
            if page.next.is_some() {
                export.filter.after = page.next;
                let next = export.read().await;
                let failed = |error| {
                    let failure = Failure::from(error);
                    std::io::Error::other(failure.body().error.message)
                };
                export.page = Some(next.map_err(failed)?);
            }
            Ok(Some((Bytes::from(text), export)))
        })
    }
}

async fn export(
    engine: Engine,
    caller: grid_engine::Caller,
    team: Option<String>,
    mut filter: Filter,
) -> Result<Response> {
    filter.limit = LIMIT_MAX;
    filter.after = None;
    let mut export = Export {
        engine,
        caller,
        team,
        filter,
        page: None,
    };
    // Read before the answer begins: whoever may not is told so by a status.
    export.page = Some(export.read().await?);
    let mut response = Body::from_stream(export.lines()).into_response();
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/jsonl"),
    );
    headers.insert(
        header::CONTENT_DISPOSITION,
        HeaderValue::from_static("attachment; filename=\"audit.jsonl\""),
    );
    Ok(response)
}
