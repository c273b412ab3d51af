//! Logs: pages, whole, and live.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use grid_api::log::{FollowQuery, LogLine, LogStream, LogsQuery, LogsResponse, RawQuery};
use grid_engine::Engine;
use grid_engine::log::{Cursor, LINES_MAX, Page};

use super::artifact::attachment;
use super::{App, cursor, views};
use crate::auth::Caller;
use crate::error::{Failure, Result};
use crate::extract::{Path, Query};
use crate::live::{self, Follower, Start};

/// Lines in one answer, unless another number is asked for.
const LIMIT: u32 = 1_000;

/// Read lines of a log
///
/// From the beginning, from a cursor, or the last ones with `tail`. A line that is not over
/// yet is marked as partial and comes again.
#[utoipa::path(get, path = "/experiments/{experiment}/logs", tag = "logs",
    params(("experiment" = String, Path, description = "Name, `user:name`, or id"), LogsQuery),
    responses((status = 200, body = LogsResponse)))]
pub(super) async fn log_list(
    State(engine): State<Engine>,
    Caller(caller): Caller,
    Path(experiment): Path<String>,
    Query(query): Query<LogsQuery>,
) -> Result<Json<LogsResponse>> {
    let stream = query.stream.unwrap_or(LogStream::Experiment);
    let limit = cursor::limit(query.limit, LIMIT, lines_max())? as usize;
    let start = start(query.tail, query.cursor.as_deref())?;
    let reader = grid_engine::log::open(&engine, &caller, &experiment, stream).await?;
    let page = match start {
        Start::Tail(lines) => reader.tail(lines, true).await?,
        Start::At(cursor) => reader.lines(cursor, limit, true).await?,
    };
    Ok(Json(LogsResponse {
        truncated: page.truncated,
        next: (!page.over).then(|| page.next.to_string()),
        lines: lines(page, stream),
    }))
}

fn lines(page: Page, stream: LogStream) -> Vec<LogLine> {
    let (next, over) = (page.next, page.over);
    page.lines
        .into_iter()
        .map(|line| views::line(line, stream, next, over))
        .collect()
}

fn start(tail: Option<u32>, cursor: Option<&str>) -> Result<Start> {
    match (tail, cursor) {
        (Some(_), Some(_)) => Err(Failure::invalid(
            "ask for a tail or for what follows a cursor, not for both",
        )),
        (Some(tail), None) if tail > lines_max() => Err(Failure::invalid(format!(
            "tail is {tail}; ask for at most {LINES_MAX} lines at a time"
        ))),
        (Some(tail), None) => Ok(Start::Tail(tail as usize)),
        (None, Some(cursor)) => Ok(Start::At(Cursor::parse(cursor)?)),
        (None, None) => Ok(Start::At(Cursor::START)),
    }
}

fn lines_max() -> u32 {
    u32::try_from(LINES_MAX).unwrap_or(u32::MAX)
}

/// Download a log as it was written
#[utoipa::path(get, path = "/experiments/{experiment}/logs/raw", tag = "logs",
    params(("experiment" = String, Path, description = "Name, `user:name`, or id"), RawQuery),
    responses((status = 200, description = "The bytes", content_type = "text/plain", body = String)))]
pub(super) async fn log_download(
    State(engine): State<Engine>,
    Caller(caller): Caller,
    Path(experiment): Path<String>,
    Query(query): Query<RawQuery>,
) -> Result<Response> {
    let stream = query.stream.unwrap_or(LogStream::Experiment);
    let reader = grid_engine::log::open(&engine, &caller, &experiment, stream).await?;
    let body = Body::from_stream(live::payload(reader, query.source).await?);
    let name = format!("{}-{}.log", experiment.replace(':', "-"), stream.as_str());
    let mut response = body.into_response();
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    headers.insert(header::CONTENT_DISPOSITION, attachment(&name));
    Ok(response)
}

/// Follow a log
///
/// Server-sent events: `status` (a `LogsStatus`; first, and when it changes), `log` (a
/// `LogLine`, with an id to resume from; partial lines have none and come again when they
/// change), and at the end `end` (a `LogsEnd`) or `error` (an `ErrorBody`).
#[utoipa::path(get, path = "/experiments/{experiment}/logs/follow", tag = "logs",
    params(("experiment" = String, Path, description = "Name, `user:name`, or id"), FollowQuery,
        ("Last-Event-ID" = Option<String>, Header, description = "The id of the last event received")),
    responses((status = 200, description = "Events", content_type = "text/event-stream", body = String)))]
pub(super) async fn log_follow(
    State(app): State<App>,
    Caller(caller): Caller,
    Path(experiment): Path<String>,
    Query(query): Query<FollowQuery>,
    headers: HeaderMap,
) -> Result<Response> {
    let stream = query.stream.unwrap_or(LogStream::Experiment);
    let last = headers
        .get("last-event-id")
        .map(|value| value.to_str().unwrap_or_default());
    let mut start = start(query.tail, query.cursor.as_deref())?;
    if let Some(id) = last.filter(|id| !id.is_empty()) {
        start = Start::At(Cursor::parse(id)?);
    }
    // Before it is asked: what changes from then on is not missed.
    let watchers = (app.engine.watch(), app.engine.watch_people());
    let reader = grid_engine::log::open(&app.engine, &caller, &experiment, stream).await?;
    let follower = Follower::new(reader, stream, start, watchers, app.stop);
    Ok(live::response(follower.events()))
}
