//! Uploads of blobs: which are missing, their bytes, and what large ones are made of.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use futures::TryStreamExt;
use grid_api::blob::{
    BlobList, BlobRecipes, BlobRecipesAnswer, BlobsNamed, BlobsNear, BlobsStored, RECIPES_BYTES_MAX,
};
use grid_api::error::ErrorCode;
use grid_api::upload::written;
use grid_core::blob::BlobId;
use grid_engine::Engine;
use grid_engine::blob::{self, Upload};

use crate::auth::Caller;
use crate::error::{Failure, Result};
use crate::extract::{JsonBody, Nothing, Pieces, Query};
use crate::rest::App;

/// The largest upload in one request (512 GiB).  Higher: one request may run for days;
/// lower: the largest blob does not fit.
const UPLOAD_BYTES_MAX: u64 = 512 << 30;

/// Upload blobs
///
/// The body is a sequence of records: BLAKE3 of the bytes (32 bytes), their number
/// (8 bytes, little endian), the bytes. Whole records are kept whatever happens to the rest.
#[utoipa::path(put, path = "/blobs", tag = "code",
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 200, body = BlobsStored)))]
pub(super) async fn blob_upload(
    State(engine): State<Engine>,
    Caller(caller): Caller,
    _: Query<Nothing>,
    body: Body,
) -> Result<Json<BlobsStored>> {
    caller.require_run_scope("upload files")?;
    store(Upload::by(&engine, &caller).await?, body).await
}

/// Upload files from the machine of the server
///
/// The body is a sequence of files: their number of bytes (8 bytes, little endian), the bytes.
/// The server cuts and hashes them, and says what they are once all are stored. Without a body
/// it says whether it is on the same machine, and where it takes open files: from another one
/// it is refused, because there only what is new should travel.
#[utoipa::path(put, path = "/blobs/near", tag = "code", params(BlobsNear),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 200, body = BlobsNamed)))]
pub(super) async fn blob_near_upload(
    State(app): State<App>,
    Caller(caller): Caller,
    Query(near): Query<BlobsNear>,
    body: Body,
) -> Result<Json<BlobsNamed>> {
    caller.require_run_scope("upload files")?;
    if grid_api::upload::machine().as_deref() != Some(near.machine.as_str()) {
        return Err(Failure::new(
            ErrorCode::Conflict,
            "files are taken as they are only from the machine of the server",
        )
        .hint("cut them into chunks, and send those that are missing"));
    }
    let mut files = blob::Files::begin(&app.engine, &caller).await?;
    let mut pieces = Pieces::new(body);
    let mut received = 0;
    while let Some(piece) = pieces.next().await? {
        received += piece.len() as u64;
        if received > UPLOAD_BYTES_MAX {
            let limit = UPLOAD_BYTES_MAX >> 30;
            let message =
                format!("one upload may have at most {limit} GiB: send the rest in another");
            return Err(Failure::new(ErrorCode::TooLarge, message));
        }
        files.push(&piece).await?;
    }
    let named = files.finish().await?;
    Ok(Json(BlobsNamed {
        blobs: written(&named.blobs),
        new_bytes: named.new_bytes,
        handover: (received == 0)
            .then(|| app.handover.offer(&app.engine, &caller))
            .flatten(),
    }))
}

/// The largest list of blobs: 10,000 hashes.
const LIST_BYTES_MAX: usize = 1 << 20;

/// Which blobs, or chunks of large ones, have to be sent
///
/// Of at most 10,000. What does not have to be sent stays for at least a day, so that it can
/// be referred to.
#[utoipa::path(post, path = "/blobs/missing", tag = "code", request_body = BlobList,
    responses((status = 200, body = BlobList)))]
pub(super) async fn blob_missing(
    State(engine): State<Engine>,
    Caller(caller): Caller,
    _: Query<Nothing>,
    JsonBody(list): JsonBody<BlobList, LIST_BYTES_MAX>,
) -> Result<Json<BlobList>> {
    caller.require_run_scope("upload files")?;
    let ids = list.blobs.iter().map(|id| blob::parse(id));
    let ids = ids.collect::<std::result::Result<Vec<_>, _>>()?;
    let missing = blob::missing_by(&engine, &caller, ids).await?;
    Ok(Json(BlobList {
        blobs: missing.iter().map(ToString::to_string).collect(),
    }))
}

/// Make large blobs of chunks that were sent
///
/// A blob of more than 256 KiB is cut into chunks of at most that by whoever sends it; the
/// chunks are sent like blobs, and a blob of no more than that as it is. A chunk that comes
/// several times in a row has at least 32 KiB. A blob counts once all its chunks are here and
/// were found to have its hash together. Until then the answer names chunks that have to be
/// sent; asking again is harmless.
#[utoipa::path(post, path = "/blobs/recipes", tag = "code", request_body = BlobRecipes,
    responses((status = 200, body = BlobRecipesAnswer)))]
pub(super) async fn blob_recipes(
    State(engine): State<Engine>,
    Caller(caller): Caller,
    _: Query<Nothing>,
    JsonBody(announced): JsonBody<BlobRecipes, RECIPES_BYTES_MAX>,
) -> Result<Json<BlobRecipesAnswer>> {
    caller.require_run_scope("upload files")?;
    let answer = blob::announce(&engine, &caller, &announced.recipes).await?;
    Ok(Json(answer))
}

/// The records of blobs as a body; `is_sparse`: whoever reads it knows frames.
pub(super) fn records(engine: &Engine, ids: Vec<BlobId>, is_sparse: bool) -> Response {
    let records = blob::records(engine, ids, is_sparse).map_err(|error| {
        let message = Failure::from(error).body().error.message;
        std::io::Error::other(message)
    });
    let mut response = Body::from_stream(records).into_response();
    let bytes = HeaderValue::from_static("application/octet-stream");
    response.headers_mut().insert(header::CONTENT_TYPE, bytes);
    response
}

/// Stores the records of a body as they come.
pub(super) async fn store(mut upload: Upload, body: Body) -> Result<Json<BlobsStored>> {
    let mut pieces = Pieces::new(body);
    let mut received = 0;
    let cut = loop {
        match pieces.next().await {
            Ok(None) => break None,
            Ok(Some(piece)) => {
                received += piece.len() as u64;
                if received > UPLOAD_BYTES_MAX {
                    let limit = UPLOAD_BYTES_MAX >> 30;
                    let message = format!(
                        "one upload may have at most {limit} GiB: send the rest in another"
                    );
                    break Some(Failure::new(ErrorCode::TooLarge, message));
                }
                upload.push(piece).await?;
            }
            // Most likely nobody is there to be told, but what came whole is kept.
            Err(cut) => break Some(cut.into()),
        }
    };
    let stored = upload.finish(cut.is_some()).await?;
    match cut {
        None => Ok(Json(BlobsStored { stored })),
        Some(failure) => Err(failure),
    }
}
