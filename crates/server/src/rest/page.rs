//! What a browser is shown: what an address is for, and the command to type.
//!
//! Nobody is signed in here, so nothing of a team is shown: not what a link to a run leads
//! to, not whether there is a run with an id.  Only an invitation names its team: whoever
//! has it may join.  Pages have no script and ask nothing of other servers.

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{Html, IntoResponse, Response};
use grid_core::id::{RunId, WorkloadId};
use grid_engine::{Error, invitation, share};

use super::App;
use crate::error::Result;
use crate::extract::Path;

const SHELL: &str = include_str!("page.html");

/// Styles are in the page; everything else is forbidden.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; \
     form-action 'none'; frame-ancestors 'none'";

/// A page that says what this is.
pub(super) async fn home(State(app): State<App>, uri: Uri, headers: HeaderMap) -> Response {
    let base = app.base(&uri, &headers);
    let base = base.unwrap_or_else(|_| "http://THIS-SERVER".to_owned());
    let body = format!(
        "<p>This is a Grid server. It runs machine learning experiments; you use it from the \
         command line:\n{}\
         <p>Whoever runs this server makes you a user name and a key with \
         <code>grid user create NAME</code>.\n\
         <p>For programs: <a href=\"{}/openapi.json\">the description of the API</a>.",
        commands(&[
            &format!("grid login --url {base} --username NAME --key KEY"),
            "grid run train.py --lr \"[0.1, 0.01]\"",
            "grid status",
            "grid logs NAME-exp0 --follow",
            "grid artifacts NAME",
        ]),
        grid_api::PREFIX,
    );
    page(StatusCode::OK, "Grid", &body)
}

/// What a link to a run is for.
pub(super) async fn shared(
    State(app): State<App>,
    Path(token): Path<String>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response> {
    let until = match share::peek(&app.engine, &token).await {
        Ok(until) => until,
        Err(error) => return none("This link does not work", error),
    };
    let base = app.base(&uri, &headers)?;
    let until = until.map_or_else(String::new, |at| {
        format!("\n<p>The link works until {}.", escaped(&at.to_string()))
    });
    let body = format!(
        "<p>This link leads to a run, and is for people who are in the same team. To see it, \
         type:\n{}{}{until}",
        commands(&[&format!("grid status {base}/s/{token}")]),
        sign_in(&base),
    );
    Ok(page(StatusCode::OK, "A run is shared with you", &body))
}

/// What an invitation is for.
pub(super) async fn join(
    State(app): State<App>,
    Path(token): Path<String>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response> {
    let found = match invitation::peek(&app.engine, &token).await {
        Ok(found) => found,
        Err(error) => return none("This invitation does not work", error),
    };
    let base = app.base(&uri, &headers)?;
    let link = format!("{base}/join/{token}");
    let (team, role) = (escaped(&found.team), found.row.role);
    let body = format!(
        "<p>Whoever has this link can join team <strong>{team}</strong> with it, as {role}. If \
         you have an account here, type:\n{}\
         <p>If you have none, this makes one and signs you in:\n{}\
         <p>The link works once, until {}.",
        commands(&[&format!("grid team join {link}")]),
        commands(&[&format!("grid team join {link} --username NAME")]),
        escaped(&found.row.expires_at.to_string()),
    );
    Ok(page(StatusCode::OK, "You are invited to a team", &body))
}

/// What `grid view` prints the address of: the same for every run, there or not.
pub(super) async fn run(
    State(app): State<App>,
    Path(id): Path<String>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response> {
    let Ok(id) = id.parse::<RunId>() else {
        return Ok(no_such_page());
    };
    let base = app.base(&uri, &headers)?;
    let body = format!(
        "<p>This is the address of a run. Who is in its team sees it with:\n{}{}",
        commands(&[
            &format!("grid status {id}"),
            &format!("grid artifacts {id}"),
        ]),
        sign_in(&base),
    );
    Ok(page(StatusCode::OK, "A run", &body))
}

/// The same for experiments.
pub(super) async fn experiment(
    State(app): State<App>,
    Path(id): Path<String>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response> {
    let Ok(id) = id.parse::<WorkloadId>() else {
        return Ok(no_such_page());
    };
    let base = app.base(&uri, &headers)?;
    let body = format!(
        "<p>This is the address of an experiment. Who is in its team sees it with:\n{}{}",
        commands(&[
            &format!("grid status {id}"),
            &format!("grid logs {id} --follow"),
            &format!("grid artifacts {id}"),
        ]),
        sign_in(&base),
    );
    Ok(page(StatusCode::OK, "An experiment", &body))
}

fn no_such_page() -> Response {
    let body = "<p>The address is not one that this server has made. <code>grid view NAME</code> \
         prints that of a run or an experiment.";
    page(StatusCode::NOT_FOUND, "There is no such page", body)
}

/// Whatever is wrong with a link, it is the same page.
fn none(title: &str, error: Error) -> Result<Response> {
    let Error::NotFound { hint, .. } = error else {
        return Err(error.into());
    };
    let body = format!(
        "<p>It may be over, it may have been taken back or used, or a part of it is missing.\n\
         <p>What to do: {}.",
        escaped(
            hint.as_deref()
                .unwrap_or("ask whoever sent it for a new one")
        ),
    );
    Ok(page(StatusCode::NOT_FOUND, title, &body))
}

fn sign_in(base: &str) -> String {
    format!(
        "<p>If you are not signed in there yet, sign in before that:\n{}",
        commands(&[&format!(
            "grid login --url {base} --username NAME --key KEY"
        )])
    )
}

fn commands(lines: &[&str]) -> String {
    format!("<pre>{}</pre>\n", escaped(&lines.join("\n")))
}

fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            other => safe.push(other),
        }
    }
    safe
}

/// `title` is ours, `body` is HTML.
fn page(status: StatusCode, title: &str, body: &str) -> Response {
    let html = SHELL
        .replace("{title}", title)
        .replace("{version}", grid_api::VERSION)
        .replace("{body}", body);
    let mut response = (status, Html(html)).into_response();
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(POLICY),
    );
    // The address of the page may be a secret.
    headers.insert(
        header::REFERRER_POLICY,
        HeaderValue::from_static("no-referrer"),
    );
    response
}
