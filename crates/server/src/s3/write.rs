//! Objects that are written, whole or in parts, and deleted.

use std::time::Duration;

use axum::http::HeaderMap;
use grid_engine::datastore::staging::Announced;
use grid_engine::objects::{self, Notes, Written};
use grid_engine::{Caller, Engine};
use grid_store::db::staged;
use s3s::dto::{
    CompleteMultipartUploadInput, CompleteMultipartUploadOutput, CompletedPart, DeleteObjectsInput,
    DeleteObjectsOutput, DeletedObject, ETag, ETagCondition, ListMultipartUploadsInput,
    ListMultipartUploadsOutput, ListPartsInput, ListPartsOutput, Metadata, MultipartUpload, Part,
    PutObjectInput, PutObjectOutput, StreamingBlob, UploadPartInput,
};
use s3s::{S3Error, S3Result, TrailingHeaders, s3_error};

use super::body::Sums;
use super::error;
use super::late::{Late, PATIENCE};
use super::read::{Encoding, time};

/// Parts, or uploads, in one answer, as S3 has it.
const ITEMS_MAX: i32 = 1_000;

/// How long a body waits for its turn until its sender is told to slow down.  Most clients
/// wait for a minute for what they send to be taken, then send it again.  Higher: they hear
/// nothing; lower: those who send much at once try again more often.
const SENDER_PATIENCE: Duration = Duration::from_secs(45);

/// Keys that are deleted by one request, as S3 has it.  Higher: one request takes longer.
const DELETED_MAX: usize = 1_000;

/// Writes an object that comes in one piece.
pub(super) async fn put(
    engine: &Engine,
    caller: &Caller,
    input: PutObjectInput,
    (headers, trailing): (&HeaderMap, Option<TrailingHeaders>),
    late: &Late,
) -> S3Result<PutObjectOutput> {
    let place = (input.bucket.as_str(), input.key.as_str());
    if objects::is_commit(&input.key) {
        return commit(engine, caller, place, input.body, late).await;
    }
    require_free(
        engine,
        caller,
        place,
        input.if_match.as_ref(),
        input.if_none_match.as_ref(),
    )
    .await?;
    let sums = Sums::of(headers, input.content_md5.as_deref(), trailing)?;
    let wrong = sums.wrong();
    let body = sums.check(input.body);
    let (notes, len) = (notes(input.metadata), announced(input.content_length));
    let put = objects::put(engine, caller, place, notes, len, body).await;
    let Written { etag, .. } = put.map_err(|failed| wrong.or(error::of(failed)))?;
    Ok(PutObjectOutput {
        e_tag: Some(ETag::Strong(etag)),
        ..PutObjectOutput::default()
    })
}

/// What is noted beside an object.
pub(super) fn notes(metadata: Option<Metadata>) -> Notes {
    metadata.unwrap_or_default().into_iter().collect()
}

/// Makes a version of what was written.  Its number is known before it is made.
async fn commit(
    engine: &Engine,
    caller: &Caller,
    place: (&str, &str),
    body: Option<StreamingBlob>,
    late: &Late,
) -> S3Result<PutObjectOutput> {
    let body = Sums::of(&HeaderMap::new(), None, None)?.check(body);
    let closing = objects::close(engine, caller, place, body).await;
    let closing = closing.map_err(error::of)?;
    let (engine, number) = (engine.clone(), closing.number);
    let made = async move {
        let made = objects::closed(&engine, &closing).await;
        made.map(|()| "<PutObjectResult/>".to_owned())
            .map_err(error::of)
    };
    late.document(made, false).await?;
    Ok(PutObjectOutput {
        e_tag: Some(ETag::Strong(objects::NOTHING.to_owned())),
        version_id: Some(number.to_string()),
        ..PutObjectOutput::default()
    })
}

fn announced(len: Option<i64>) -> Announced {
    Announced {
        size_bytes: len.and_then(|len| u64::try_from(len).ok()),
        patience: Some(SENDER_PATIENCE),
        ..Announced::default()
    }
}

/// Refuses to replace what the request says must not be there, or must be another.
pub(super) async fn require_free(
    engine: &Engine,
    caller: &Caller,
    (bucket, key): (&str, &str),
    is: Option<&ETagCondition>,
    is_not: Option<&ETagCondition>,
) -> S3Result<()> {
    if is.is_none() && is_not.is_none() {
        return Ok(());
    }
    let found = match objects::stat(engine, caller, bucket, key).await {
        Ok(found) => Some(ETag::Strong(found.etag)),
        Err(objects::Error::NoKey) => None,
        Err(other) => return Err(error::of(other)),
    };
    let is_it = |condition: &ETagCondition| match (condition, &found) {
        (_, None) => false,
        (ETagCondition::Any, Some(_)) => true,
        (ETagCondition::ETag(wanted), Some(found)) => wanted.weak_cmp(found),
    };
    if is.is_none_or(is_it) && !is_not.is_some_and(is_it) {
        return Ok(());
    }
    Err(s3_error!(
        PreconditionFailed,
        "At least one of the pre-conditions you specified did not hold"
    ))
}

/// Keeps a part.
pub(super) async fn put_part(
    engine: &Engine,
    caller: &Caller,
    input: UploadPartInput,
    (headers, trailing): (&HeaderMap, Option<TrailingHeaders>),
) -> S3Result<ETag> {
    let place = (input.bucket.as_str(), input.key.as_str());
    let part = (input.upload_id.as_str(), part_number(input.part_number)?);
    let sums = Sums::of(headers, input.content_md5.as_deref(), trailing)?;
    let wrong = sums.wrong();
    let body: Option<StreamingBlob> = input.body;
    let announced = announced(input.content_length);
    let body = sums.check(body);
    let put = objects::put_part(engine, caller, place, part, announced, body).await;
    let etag = put.map_err(|failed| wrong.or(error::of(failed)))?;
    Ok(ETag::Strong(etag))
}

pub(super) fn part_number(number: i32) -> S3Result<u32> {
    u32::try_from(number)
        .map_err(|_| s3_error!(InvalidArgument, "parts are counted from 1 to 10000"))
}

/// Puts an object together from its parts.
pub(super) async fn complete(
    engine: &Engine,
    caller: &Caller,
    input: CompleteMultipartUploadInput,
) -> S3Result<CompleteMultipartUploadOutput> {
    require_free(
        engine,
        caller,
        (&input.bucket, &input.key),
        input.if_match.as_ref(),
        input.if_none_match.as_ref(),
    )
    .await?;
    let named = input.multipart_upload.and_then(|upload| upload.parts);
    let parts = named.unwrap_or_default().into_iter().map(named_part);
    let parts = parts.collect::<S3Result<Vec<_>>>()?;
    if !parts.is_sorted_by(|(one, _), (next, _)| one < next) {
        return Err(s3_error!(
            InvalidPartOrder,
            "the parts are not named in the order of their numbers"
        ));
    }
    let (engine, caller) = (engine.clone(), caller.clone());
    let (bucket, key, id) = (input.bucket, input.key, input.upload_id);
    let mut work = tokio::spawn(async move {
        let place = (bucket.as_str(), key.as_str());
        let done = objects::complete(&engine, &caller, place, &id, parts).await;
        let done = done.map_err(|failed| match failed {
            objects::Error::Other(grid_engine::Error::Invalid { message, .. }) => {
                s3_error!(InvalidPart, "{message}")
            }
            other => error::of(other),
        })?;
        Ok(CompleteMultipartUploadOutput {
            bucket: Some(bucket),
            key: Some(key),
            e_tag: Some(ETag::Strong(done.etag)),
            ..CompleteMultipartUploadOutput::default()
        })
    });
    match tokio::time::timeout(PATIENCE, &mut work).await {
        Ok(done) => done.map_err(S3Error::internal_error)?,
        Err(_) => Ok(CompleteMultipartUploadOutput {
            future: Some(Box::pin(async move {
                work.await.map_err(S3Error::internal_error)?
            })),
            ..CompleteMultipartUploadOutput::default()
        }),
    }
}

fn named_part(part: CompletedPart) -> S3Result<(u32, String)> {
    let wrong = || s3_error!(InvalidPart, "each part is named by its number and its etag");
    let number = part.part_number.ok_or_else(wrong)?;
    let etag = part.e_tag.ok_or_else(wrong)?;
    Ok((part_number(number)?, etag.value().to_owned()))
}

/// The parts that came.
pub(super) async fn parts(
    engine: &Engine,
    caller: &Caller,
    input: ListPartsInput,
) -> S3Result<ListPartsOutput> {
    let limit = items(input.max_parts)?;
    let after = input.part_number_marker.map(part_number).transpose()?;
    let place = (input.bucket.as_str(), input.key.as_str());
    let id = input.upload_id.as_str();
    let page = objects::parts(engine, caller, place, id, after, limit).await;
    let page = page.map_err(error::of)?;
    let part = |part: staged::Part| Part {
        part_number: i32::try_from(part.number).ok(),
        size: i64::try_from(part.size_bytes).ok(),
        e_tag: Some(ETag::Strong(part.etag)),
        last_modified: Some(time(part.sent_at.as_millis())),
        ..Part::default()
    };
    Ok(ListPartsOutput {
        is_truncated: Some(page.next.is_some()),
        next_part_number_marker: page.next.and_then(|next| i32::try_from(next).ok()),
        part_number_marker: input.part_number_marker,
        max_parts: i32::try_from(limit).ok(),
        parts: Some(page.items.into_iter().map(part).collect()),
        bucket: Some(input.bucket),
        key: Some(input.key),
        upload_id: Some(input.upload_id),
        ..ListPartsOutput::default()
    })
}

fn items(asked: Option<i32>) -> S3Result<u32> {
    let asked = asked.unwrap_or(ITEMS_MAX).min(ITEMS_MAX);
    match u32::try_from(asked) {
        Ok(asked) if asked > 0 => Ok(asked),
        _ => Err(s3_error!(
            InvalidArgument,
            "the number of items is from 1 to 1000"
        )),
    }
}

/// The objects of which parts come.
pub(super) async fn incoming(
    engine: &Engine,
    caller: &Caller,
    input: ListMultipartUploadsInput,
) -> S3Result<ListMultipartUploadsOutput> {
    let limit = items(input.max_uploads)?;
    let prefix = input.prefix.clone().unwrap_or_default();
    let key = input.key_marker.as_deref();
    // Without an upload, all of that key are behind us: no id is as great.
    let id = input.upload_id_marker.as_deref().unwrap_or("~");
    let after = key.filter(|key| !key.is_empty()).map(|key| (key, id));
    let found = objects::incoming(
        engine,
        caller,
        &input.bucket,
        &prefix,
        after,
        limit as usize,
    );
    let (found, is_truncated) = found.await.map_err(error::of)?;
    let encoding = Encoding::of(input.encoding_type.as_ref());
    let last = found.last().filter(|_| is_truncated);
    let (next_key, next_id) = last
        .map(|last| (encoding.text(&last.key), last.upload.id.to_string()))
        .unzip();
    let upload = |one: &objects::Incoming| MultipartUpload {
        key: Some(encoding.text(&one.key)),
        upload_id: Some(one.upload.id.to_string()),
        initiated: Some(time(one.upload.begun_at.as_millis())),
        ..MultipartUpload::default()
    };
    Ok(ListMultipartUploadsOutput {
        is_truncated: Some(is_truncated),
        next_key_marker: next_key,
        next_upload_id_marker: next_id,
        uploads: Some(found.iter().map(upload).collect()),
        max_uploads: i32::try_from(limit).ok(),
        prefix: Some(encoding.text(&prefix)),
        key_marker: input.key_marker.map(|key| encoding.text(&key)),
        upload_id_marker: input.upload_id_marker,
        encoding_type: input.encoding_type,
        bucket: Some(input.bucket),
        ..ListMultipartUploadsOutput::default()
    })
}

/// Deletes many; each is deleted or not.
pub(super) async fn delete_many(
    engine: &Engine,
    caller: &Caller,
    input: DeleteObjectsInput,
) -> S3Result<DeleteObjectsOutput> {
    let wanted = input.delete.objects;
    if wanted.len() > DELETED_MAX {
        return Err(s3_error!(
            MalformedXML,
            "delete at most {DELETED_MAX} objects at a time"
        ));
    }
    // Of no bucket at all, none is tried.
    objects::bucket(engine, caller, &input.bucket)
        .await
        .map_err(error::of)?;
    let (mut deleted, mut errors) = (Vec::new(), Vec::new());
    for one in wanted {
        match objects::remove(engine, caller, &input.bucket, &one.key).await {
            Ok(()) => deleted.push(DeletedObject {
                key: Some(one.key),
                ..DeletedObject::default()
            }),
            Err(failed) => {
                let failed = error::of(failed);
                errors.push(s3s::dto::Error {
                    code: Some(failed.code().as_str().to_owned()),
                    message: failed.message().map(str::to_owned),
                    key: Some(one.key),
                    ..s3s::dto::Error::default()
                });
            }
        }
    }
    let is_quiet = input.delete.quiet.unwrap_or(false);
    Ok(DeleteObjectsOutput {
        deleted: Some(deleted).filter(|_| !is_quiet),
        errors: Some(errors),
        ..DeleteObjectsOutput::default()
    })
}
