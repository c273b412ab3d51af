//! Objects that are copied from one key to another, without their bytes going to and fro.

use axum::http::{HeaderMap, header};
use grid_engine::objects::{self, Notes, Opened, Written};
use grid_engine::{Caller, Clock, Engine, SystemClock};
use s3s::dto::{
    CopyObjectInput, CopyObjectOutput, CopyObjectResult, CopyPartResult, CopySource, ETag,
    ETagCondition, MetadataDirective, Timestamp, TimestampFormat, UploadPartCopyInput,
    UploadPartCopyOutput,
};
use s3s::{S3Error, S3ErrorCode, S3Result, s3_error};

use super::error;
use super::late::{Late, escaped};
use super::read::{Conditions, require_whole, time};
use super::write::{notes, part_number, require_free};

/// Where a copy comes from, as a request names it.
fn place(source: &CopySource) -> S3Result<(&str, &str)> {
    match source {
        CopySource::Bucket {
            bucket,
            key,
            version_id,
        } => {
            require_whole(key, None, version_id.as_deref())?;
            Ok((bucket, key))
        }
        _ => Err(s3_error!(
            NotImplemented,
            "name the source of a copy as BUCKET/KEY"
        )),
    }
}

/// What is copied, if the caller may write where it goes and may read it, and if it is what
/// the request says.
async fn open(
    engine: &Engine,
    caller: &Caller,
    (source, target): (&CopySource, (&str, &str)),
    conditions: &Conditions<'_>,
) -> S3Result<Opened> {
    let may = objects::require_writable(engine, caller, target).await;
    may.map_err(error::of)?;
    let (bucket, key) = place(source)?;
    let opened = objects::open(engine, caller, bucket, key).await;
    let opened = opened.map_err(error::of)?;
    // What would be no news to who reads is a condition that does not hold to who copies.
    conditions.check(&opened.object).map_err(|_| {
        s3_error!(
            PreconditionFailed,
            "At least one of the pre-conditions you specified did not hold"
        )
    })?;
    Ok(opened)
}

/// Copies an object.
pub(super) async fn object(
    engine: &Engine,
    caller: &Caller,
    input: CopyObjectInput,
    headers: &HeaderMap,
    late: &Late,
) -> S3Result<CopyObjectOutput> {
    let conditions = Conditions {
        is: input.copy_source_if_match.as_ref(),
        is_not: input.copy_source_if_none_match.as_ref(),
        since: input.copy_source_if_modified_since.as_ref(),
        until: input.copy_source_if_unmodified_since.as_ref(),
    };
    let target = (input.bucket.as_str(), input.key.as_str());
    let places = (&input.copy_source, target);
    let source = open(engine, caller, places, &conditions).await?;
    let is_new_only = headers
        .get(header::IF_NONE_MATCH)
        .is_some_and(|tag| tag == "*");
    let is_not = is_new_only.then_some(&ETagCondition::Any);
    require_free(engine, caller, target, None, is_not).await?;
    let directive = input.metadata_directive.as_ref();
    let is_new = directive.is_some_and(|one| one.as_str() == MetadataDirective::REPLACE);
    let noted: Notes = match is_new {
        true => notes(input.metadata),
        false => source.object.notes.clone(),
    };
    let (engine, caller) = (engine.clone(), caller.clone());
    let (bucket, key) = (input.bucket, input.key);
    let (tell, mut told) = tokio::sync::oneshot::channel();
    let work = async move {
        let target = (bucket.as_str(), key.as_str());
        let copied = objects::copy(&engine, &caller, source, target, noted).await;
        let Written { etag, modified_ms } = copied.map_err(error::of)?;
        let modified = time(modified_ms);
        let document = document("CopyObjectResult", &etag, &modified)?;
        // Whoever does not wait reads the document.
        let _ = tell.send((etag, modified));
        Ok(document)
    };
    late.document(work, true).await?;
    let result = told
        .try_recv()
        .ok()
        .map(|(etag, modified)| CopyObjectResult {
            e_tag: Some(ETag::Strong(etag)),
            last_modified: Some(modified),
            ..CopyObjectResult::default()
        });
    Ok(CopyObjectOutput {
        copy_object_result: result,
        ..CopyObjectOutput::default()
    })
}

/// Copies an object, or a range of it, as a part of another.
pub(super) async fn part(
    engine: &Engine,
    caller: &Caller,
    input: UploadPartCopyInput,
    late: &Late,
) -> S3Result<UploadPartCopyOutput> {
    let conditions = Conditions {
        is: input.copy_source_if_match.as_ref(),
        is_not: input.copy_source_if_none_match.as_ref(),
        since: input.copy_source_if_modified_since.as_ref(),
        until: input.copy_source_if_unmodified_since.as_ref(),
    };
    let places = (&input.copy_source, (&*input.bucket, &*input.key));
    let source = open(engine, caller, places, &conditions).await?;
    let size = source.object.size_bytes;
    let range = input.copy_source_range.as_deref();
    let range = range.map(|range| bytes(range, size)).transpose()?;
    let number = part_number(input.part_number)?;
    let (engine, caller) = (engine.clone(), caller.clone());
    let (bucket, key, id) = (input.bucket, input.key, input.upload_id);
    let (tell, mut told) = tokio::sync::oneshot::channel();
    let work = async move {
        let target = (bucket.as_str(), key.as_str());
        let part = (id.as_str(), number);
        let copied = objects::copy_part(&engine, &caller, source, range, target, part).await;
        let etag = copied.map_err(error::of)?;
        let modified = time(SystemClock.now().as_millis());
        let document = document("CopyPartResult", &etag, &modified)?;
        let _ = tell.send((etag, modified));
        Ok(document)
    };
    late.document(work, true).await?;
    let result = told.try_recv().ok().map(|(etag, modified)| CopyPartResult {
        e_tag: Some(ETag::Strong(etag)),
        last_modified: Some(modified),
        ..CopyPartResult::default()
    });
    Ok(UploadPartCopyOutput {
        copy_part_result: result,
        ..UploadPartCopyOutput::default()
    })
}

/// The bytes that a range of a copy names, which has both ends: `bytes=0-9`.
fn bytes(text: &str, size: u64) -> S3Result<std::ops::Range<u64>> {
    let wrong = || s3_error!(InvalidArgument, "the range of a copy is bytes=FIRST-LAST");
    let (first, last) = text
        .strip_prefix("bytes=")
        .and_then(|range| range.split_once('-'))
        .ok_or_else(wrong)?;
    let first: u64 = first.parse().map_err(|_| wrong())?;
    let last: u64 = last.parse().map_err(|_| wrong())?;
    if first > last {
        return Err(wrong());
    }
    if last >= size {
        return Err(s3_error!(
            InvalidRange,
            "the source of the copy has only {size} bytes"
        ));
    }
    Ok(first..last + 1)
}

/// The rest of a document that says what was made.
fn document(name: &str, etag: &str, modified: &Timestamp) -> S3Result<String> {
    let mut when = Vec::new();
    modified
        .format(TimestampFormat::DateTime, &mut when)
        .map_err(|error| S3Error::with_message(S3ErrorCode::InternalError, error.to_string()))?;
    let (etag, when) = (escaped(etag), String::from_utf8_lossy(&when));
    Ok(format!(
        "<{name} xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
         <LastModified>{when}</LastModified><ETag>&quot;{etag}&quot;</ETag></{name}>"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_of_a_copy_has_both_ends() {
        let read = |text| bytes(text, 10).map_err(|error| error.code().as_str().to_owned());
        assert_eq!(read("bytes=0-9"), Ok(0..10));
        assert_eq!(read("bytes=3-3"), Ok(3..4));
        assert_eq!(read("bytes=0-10"), Err("InvalidRange".to_owned()));
        for wrong in [
            "",
            "bytes=",
            "bytes=5",
            "bytes=5-",
            "bytes=-5",
            "bytes=5-4",
            "0-9",
        ] {
            assert_eq!(read(wrong), Err("InvalidArgument".to_owned()), "{wrong}");
        }
    }

    #[test]
    fn a_document_says_what_was_made() {
        let text = document("CopyObjectResult", "abc-1", &time(0)).expect("a document");
        let end = "<LastModified>1970-01-01T00:00:00.000Z</LastModified>\
             <ETag>&quot;abc-1&quot;</ETag></CopyObjectResult>";
        assert!(text.ends_with(end), "{text}");
    }
}
