//! Artifacts: lists and downloads.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use grid_api::artifact::{ArtifactsQuery, ArtifactsResponse};
use grid_api::blob::sparse;
use grid_core::blob::BlobId;
use grid_engine::Engine;
use grid_store::blobs::BlobReader;
use grid_store::db::artifact::Artifact;

use super::{cursor, views};
use crate::auth::Caller;
use crate::error::{Failure, Result};
use crate::extract::{Nothing, Path, Query};

/// Artifacts in one answer, unless another number is asked for.
const LIMIT: u32 = 1_000;

/// Most artifacts in one answer.  Higher: one answer holds much memory.
const LIMIT_MAX: u32 = 10_000;

/// List the artifacts of an experiment, by path
#[utoipa::path(get, path = "/experiments/{experiment}/artifacts", tag = "artifacts",
    params(("experiment" = String, Path, description = "Name, `user:name`, or id"), ArtifactsQuery),
    responses((status = 200, body = ArtifactsResponse)))]
pub(super) async fn artifact_list(
    State(engine): State<Engine>,
    Caller(caller): Caller,
    Path(experiment): Path<String>,
    Query(query): Query<ArtifactsQuery>,
) -> Result<Json<ArtifactsResponse>> {
    let limit = cursor::limit(query.limit, LIMIT, LIMIT_MAX)?;
    let after = query.after.as_deref();
    let page = grid_engine::artifact::list(&engine, &caller, &experiment, after, limit).await?;
    Ok(Json(ArtifactsResponse {
        artifacts: page.items.into_iter().map(views::artifact).collect(),
        next: page.next,
    }))
}

/// Download an artifact
///
/// Whole, or a range of it; the `ETag` is its BLAKE3.
#[utoipa::path(get, path = "/experiments/{experiment}/artifacts/{*path}", tag = "artifacts",
    params(
        ("experiment" = String, Path, description = "Name, `user:name`, or id"),
        ("path" = String, Path, description = "Path of the artifact; slashes stay as they are"),
        ("Range" = Option<String>, Header, description = "`bytes=FROM-TO`"),
        ("If-None-Match" = Option<String>, Header, description = "An `ETag` that is known already")),
    responses(
        (status = 200, description = "The bytes", content_type = "application/octet-stream", body = Vec<u8>),
        (status = 206, description = "A range of them", content_type = "application/octet-stream", body = Vec<u8>),
        (status = 304, description = "Known already")))]
pub(super) async fn artifact_download(
    State(engine): State<Engine>,
    Caller(caller): Caller,
    Path((experiment, path)): Path<(String, String)>,
    _: Query<Nothing>,
    headers: HeaderMap,
) -> Result<Response> {
    let path = inside(&path)?;
    let (artifact, reader) =
        grid_engine::artifact::open(&engine, &caller, &experiment, path).await?;
    download(&headers, &artifact, reader).await
}

/// A path below the work directory, or a word about why it is none.
pub(crate) fn inside(path: &str) -> Result<&str> {
    if climbs(path) {
        return Err(
            Failure::invalid(format!("'{path}' is not a path below the work directory"))
                .hint("name the artifact as the list of artifacts does"),
        );
    }
    Ok(path)
}

/// Whether something is no path downwards, part by part.
pub(super) fn climbs(path: &str) -> bool {
    path.split('/').any(|part| matches!(part, "" | "." | ".."))
}

/// The bytes of an artifact, or those that were asked for.
pub(crate) async fn download(
    request: &HeaderMap,
    artifact: &Artifact,
    reader: BlobReader,
) -> Result<Response> {
    send(request, &artifact.path, artifact.blob, reader).await
}

/// The bytes of a file, or those that were asked for.
pub(super) async fn send(
    request: &HeaderMap,
    path: &str,
    blob: BlobId,
    reader: BlobReader,
) -> Result<Response> {
    Ok(
        match Plan::of(request, path, &blob.to_string(), reader.len()) {
            Plan::Answer(response) => *response,
            Plan::Send { mut head, range } if is_sparse_taken(request) && reader.is_sparse() => {
                head.remove(header::CONTENT_LENGTH);
                let media = HeaderValue::from_static(sparse::MEDIA_TYPE);
                head.insert(header::CONTENT_TYPE, media);
                let status = match range {
                    Some(_) => StatusCode::PARTIAL_CONTENT,
                    None => StatusCode::OK,
                };
                let range = range.unwrap_or(0..reader.len());
                let body = begun(reader.stream_sparse(range)).await?;
                (status, head, body).into_response()
            }
            Plan::Send { head, range: None } => {
                (head, begun(reader.stream()).await?).into_response()
            }
            Plan::Send {
                head,
                range: Some(range),
            } => {
                let body = begun(reader.stream_range(range)).await?;
                (StatusCode::PARTIAL_CONTENT, head, body).into_response()
            }
        },
    )
}

/// A body whose first bytes are here: what cannot be read at all is refused in words, and not
/// by a connection that breaks.
pub(super) async fn begun<E>(
    pieces: impl Stream<Item = Result<Bytes, E>> + Send + 'static,
) -> Result<Body>
where
    E: std::error::Error + Send + Sync + 'static,
    grid_engine::Error: From<E>,
{
    let mut pieces = Box::pin(pieces);
    Ok(match pieces.next().await {
        None => Body::empty(),
        Some(Err(error)) => return Err(grid_engine::Error::from(error).into()),
        Some(first) => Body::from_stream(stream::iter([first]).chain(pieces)),
    })
}

/// Whether whoever asks knows what to do with frames, in which long runs of zeros are left
/// out ([`sparse`]).
fn is_sparse_taken(request: &HeaderMap) -> bool {
    let taken = request.get(header::ACCEPT);
    let taken = taken.and_then(|value| value.to_str().ok());
    taken.is_some_and(|taken| taken.contains(sparse::MEDIA_TYPE))
}

/// What becomes of a request for a file, before its bytes are read.
pub(super) enum Plan {
    /// It is answered without them.
    Answer(Box<Response>),
    /// They are sent, or a range of them.
    Send {
        /// With this at the head.
        head: HeaderMap,
        /// Nothing: all of them.
        range: Option<std::ops::Range<u64>>,
    },
}

impl Plan {
    /// For a file of `len` bytes, whose content is called `tag`.
    pub(super) fn of(request: &HeaderMap, path: &str, tag: &str, len: u64) -> Self {
        let tag = format!("\"{tag}\"");
        let mut head = HeaderMap::new();
        if let Ok(tag) = HeaderValue::from_str(&tag) {
            head.insert(header::ETAG, tag);
        }
        // The same address always has the same bytes only while nobody overwrites the file.
        head.insert(
            header::CACHE_CONTROL,
            HeaderValue::from_static("private, no-cache"),
        );
        if names(request, &header::IF_NONE_MATCH, &tag) {
            let response = (StatusCode::NOT_MODIFIED, head).into_response();
            return Self::Answer(Box::new(response));
        }
        head.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        head.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/octet-stream"),
        );
        let name = path.rsplit('/').next().unwrap_or("artifact");
        head.insert(header::CONTENT_DISPOSITION, attachment(name));
        let same =
            !request.contains_key(header::IF_RANGE) || names(request, &header::IF_RANGE, &tag);
        let range = request
            .get(header::RANGE)
            .filter(|_| same)
            .and_then(|value| value.to_str().ok());
        match range.map_or(Range::All, |text| Range::parse(text, len)) {
            Range::All => {
                head.insert(header::CONTENT_LENGTH, len.into());
                Self::Send { head, range: None }
            }
            Range::Part { from, to } => {
                head.insert(header::CONTENT_LENGTH, (to - from).into());
                insert_range(&mut head, &format!("bytes {from}-{}/{len}", to - 1));
                let range = Some(from..to);
                Self::Send { head, range }
            }
            Range::Outside => {
                let failure = Failure::invalid(format!("'{path}' has only {len} bytes"));
                let mut response = failure.into_response();
                *response.status_mut() = StatusCode::RANGE_NOT_SATISFIABLE;
                insert_range(response.headers_mut(), &format!("bytes */{len}"));
                Self::Answer(Box::new(response))
            }
        }
    }
}

fn insert_range(headers: &mut HeaderMap, text: &str) {
    if let Ok(value) = HeaderValue::from_str(text) {
        headers.insert(header::CONTENT_RANGE, value);
    }
}

fn names(request: &HeaderMap, header: &header::HeaderName, tag: &str) -> bool {
    let tags = request
        .get(header)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    tags.split(',')
        .map(|one| one.trim().trim_start_matches("W/"))
        .any(|one| one == tag || one == "*")
}

/// The name under which a browser saves it; never shown in place.
pub(super) fn attachment(name: &str) -> HeaderValue {
    let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '\\' | '/') || c == ' ';
    let fallback: String = name
        .chars()
        .map(|c| if plain(c) { c } else { '_' })
        .collect();
    let escaped = grid_api::client::segment(name);
    let text = format!("attachment; filename=\"{fallback}\"; filename*=UTF-8''{escaped}");
    HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static("attachment"))
}

/// What of a file is asked for.
#[derive(Debug, PartialEq, Eq)]
enum Range {
    All,
    Part { from: u64, to: u64 },
    Outside,
}

impl Range {
    /// Reads `bytes=FROM-TO`.  Several ranges at once, and what does not read, are
    /// answered with everything, as HTTP allows.
    fn parse(text: &str, len: u64) -> Self {
        let Some((from, to)) = text
            .strip_prefix("bytes=")
            .and_then(|range| range.trim().split_once('-'))
        else {
            return Self::All;
        };
        let (from, to) = match (from.parse::<u64>(), to.parse::<u64>()) {
            (Ok(from), Ok(to)) if to < from => return Self::All,
            (Ok(from), Ok(to)) => (from, to.saturating_add(1).min(len)),
            (Ok(from), Err(_)) if to.is_empty() => (from, len),
            (Err(_), Ok(last)) if from.is_empty() => (len.saturating_sub(last), len),
            _ => return Self::All,
        };
        if from < to {
            Self::Part { from, to }
        } else {
            Self::Outside
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_read_as_http_says() {
        let part = |from, to| Range::Part { from, to };
        for (text, expected) in [
            ("bytes=0-4", part(0, 5)),
            ("bytes=5-", part(5, 10)),
            ("bytes=-3", part(7, 10)),
            ("bytes=-99", part(0, 10)),
            ("bytes=8-99", part(8, 10)),
            ("bytes=10-", Range::Outside),
            ("bytes=-0", Range::Outside),
            ("bytes=4-2", Range::All),
            ("bytes=0-1,4-5", Range::All),
            ("lines=0-1", Range::All),
            ("bytes=a-b", Range::All),
        ] {
            assert_eq!(Range::parse(text, 10), expected, "{text}");
        }
        assert_eq!(Range::parse("bytes=0-", 0), Range::Outside);
    }

    #[test]
    fn a_name_cannot_end_its_header() {
        let value = attachment("we\"ird\r\nX: y/ü.txt");
        let text = value.to_str().expect("ASCII");
        assert_eq!(
            text,
            "attachment; filename=\"we_ird__X: y__.txt\"; filename*=UTF-8''we%22ird%0D%0AX:%20y%2F%C3%BC.txt"
        );
    }
}
