//! Links to artifacts that work without an account.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::Response;
use axum::{Extension, Json};
use grid_api::artifact::{ArtifactLink, ArtifactLinkCreate, ArtifactLinksResponse};
use grid_api::client::segments;
use grid_engine::Engine;
use grid_engine::audit::Trail;

use super::App;
use super::artifact::{download, inside};
use crate::auth::Caller;
use crate::error::{Failure, Result};
use crate::extract::{JsonBody, Nothing, Path, Query};

/// Make links to artifacts
///
/// They work without an account, for 24 hours.
#[utoipa::path(post, path = "/experiments/{experiment}/artifact-links", tag = "artifacts",
    request_body = ArtifactLinkCreate,
    params(("experiment" = String, Path, description = "Name, `user:name`, or id")),
    responses((status = 201, body = ArtifactLinksResponse)))]
pub(super) async fn link_create(
    State(app): State<App>,
    Caller(caller): Caller,
    Path(experiment): Path<String>,
    _: Query<Nothing>,
    uri: Uri,
    headers: HeaderMap,
    JsonBody(create): JsonBody<ArtifactLinkCreate>,
) -> Result<(StatusCode, Json<ArtifactLinksResponse>)> {
    let links =
        grid_engine::artifact::links(&app.engine, &caller, &experiment, &create.paths).await?;
    let base = app.base(&uri, &headers)?;
    let links = links.into_iter().map(|link| ArtifactLink {
        url: format!(
            "{base}{}/links/{}/{}",
            grid_api::PREFIX,
            link.token,
            segments(&link.path)
        ),
        path: link.path,
        expires_at: link.expires_at.to_string(),
    });
    Ok((
        StatusCode::CREATED,
        Json(ArtifactLinksResponse {
            links: links.collect(),
        }),
    ))
}

/// Download what a link leads to
#[utoipa::path(get, path = "/links/{token}/{*path}", tag = "artifacts",
    params(
        ("token" = String, Path, description = "What the link has"),
        ("path" = String, Path, description = "Path of the artifact")),
    responses((status = 200, description = "The bytes", content_type = "application/octet-stream", body = Vec<u8>)))]
pub(super) async fn link_follow(
    State(engine): State<Engine>,
    Extension(trail): Extension<Trail>,
    Path((token, path)): Path<(String, String)>,
    _: Query<Nothing>,
    headers: HeaderMap,
) -> Result<Response> {
    let (artifact, reader) =
        grid_engine::artifact::follow_link(&engine, &trail, &token, inside(&path)?).await?;
    download(&headers, &artifact, reader).await
}

impl App {
    /// What links begin with: the address that was set, or the one that was asked.
    pub(crate) fn base(&self, uri: &Uri, headers: &HeaderMap) -> Result<String> {
        if let Some(url) = &self.url {
            return Ok(url.to_string());
        }
        let plain = |host: &&str| {
            !host.is_empty()
                && host
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b".-:[]_".contains(&b))
        };
        // HTTP/2 names the host in the address, HTTP/1 in a header.
        let named = uri.authority().map(axum::http::uri::Authority::as_str);
        let header = headers
            .get(header::HOST)
            .and_then(|value| value.to_str().ok());
        let host = named.or(header).filter(plain);
        let host = host.ok_or_else(|| {
            Failure::invalid("the request does not say which host it asks")
                .hint("set the address that users reach this server under: grid server --url URL")
        })?;
        Ok(format!(
            "{}://{host}",
            if self.tls { "https" } else { "http" }
        ))
    }
}
