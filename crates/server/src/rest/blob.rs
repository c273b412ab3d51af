//! Uploads of blobs.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use grid_api::blob::BlobsStored;
use grid_api::error::ErrorCode;
use grid_engine::Engine;
use grid_engine::blob::Upload;

use crate::auth::Caller;
use crate::error::{Failure, Result};
use crate::extract::{Nothing, Pieces, Query};

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
    store(Upload::by(&engine, &caller), body).await
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
            Err(failure) => break Some(failure),
        }
    };
    let stored = upload.finish(cut.is_some()).await?;
    match cut {
        None => Ok(Json(BlobsStored { stored })),
        Some(failure) => Err(failure),
    }
}
