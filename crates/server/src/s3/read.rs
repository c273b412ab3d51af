//! Buckets, listings, and objects that are read.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use grid_core::time::file_ms;
use grid_engine::objects::{self, Listing, Notes, Object, Wanted};
use grid_engine::{Caller, Engine};
use s3s::dto::{
    CommonPrefix, ETag, ETagCondition, EncodingType, GetObjectInput, GetObjectOutput,
    GetObjectTaggingInput, GetObjectTaggingOutput, HeadObjectInput, HeadObjectOutput,
    ListObjectsInput, ListObjectsOutput, ListObjectsV2Input, ListObjectsV2Output, Metadata,
    ObjectStorageClass, StreamingBlob, Timestamp,
};
use s3s::{S3Error, S3ErrorCode, S3Result, s3_error};

use super::body::Sent;
use super::error;

/// Keys in one answer, as S3 has it.  Higher: one answer takes more memory.
const KEYS_MAX: usize = 1_000;

/// What every object is said to be: nobody says what they are.
const CONTENT_TYPE: &str = "application/octet-stream";

/// A page of keys, as the newer clients ask for it.
pub(super) async fn list_v2(
    engine: &Engine,
    caller: &Caller,
    input: ListObjectsV2Input,
) -> S3Result<ListObjectsV2Output> {
    let limit = limit(input.max_keys)?;
    let prefix = input.prefix.clone().unwrap_or_default();
    let delimiter = input.delimiter.clone().unwrap_or_default();
    let from = match (&input.continuation_token, &input.start_after) {
        (Some(token), _) => place(token)?,
        (None, Some(after)) => behind(after, &prefix, &delimiter),
        (None, None) => String::new(),
    };
    let wanted = Wanted {
        prefix: &prefix,
        delimiter: &delimiter,
        from: &from,
        limit,
    };
    let page = objects::list(engine, caller, &input.bucket, &wanted).await;
    let page = page.map_err(error::of)?;
    let encoding = Encoding::of(input.encoding_type.as_ref());
    let count = page.objects.len() + page.prefixes.len();
    Ok(ListObjectsV2Output {
        name: Some(input.bucket),
        prefix: Some(encoding.text(&prefix)),
        delimiter: input.delimiter.map(|delimiter| encoding.text(&delimiter)),
        max_keys: Some(number(limit)),
        key_count: Some(number(count)),
        is_truncated: Some(page.next.is_some()),
        continuation_token: input.continuation_token,
        next_continuation_token: page
            .next
            .as_ref()
            .map(|next| BASE64_URL_SAFE_NO_PAD.encode(next)),
        start_after: input.start_after.map(|after| encoding.text(&after)),
        contents: Some(contents(&page, encoding)),
        common_prefixes: Some(prefixes(&page, encoding)),
        encoding_type: input.encoding_type,
        ..ListObjectsV2Output::default()
    })
}

/// A page of keys, as the older clients ask for it: behind a key that they name.
pub(super) async fn list(
    engine: &Engine,
    caller: &Caller,
    input: ListObjectsInput,
) -> S3Result<ListObjectsOutput> {
    let limit = limit(input.max_keys)?;
    let prefix = input.prefix.clone().unwrap_or_default();
    let delimiter = input.delimiter.clone().unwrap_or_default();
    let marker = input.marker.clone().unwrap_or_default();
    let from = behind(&marker, &prefix, &delimiter);
    let wanted = Wanted {
        prefix: &prefix,
        delimiter: &delimiter,
        from: &from,
        limit,
    };
    let page = objects::list(engine, caller, &input.bucket, &wanted).await;
    let page = page.map_err(error::of)?;
    let encoding = Encoding::of(input.encoding_type.as_ref());
    // The last of this page; of a page without any, where the search was.
    let last = page.next.as_ref().map(|next| {
        let key = page.objects.last().map(|object| object.key.as_str());
        let prefix = page.prefixes.last().map(String::as_str);
        key.max(prefix).unwrap_or(next).to_owned()
    });
    Ok(ListObjectsOutput {
        name: Some(input.bucket),
        prefix: Some(encoding.text(&prefix)),
        marker: Some(encoding.text(&marker)),
        delimiter: input.delimiter.map(|delimiter| encoding.text(&delimiter)),
        max_keys: Some(number(limit)),
        is_truncated: Some(page.next.is_some()),
        next_marker: last.map(|last| encoding.text(&last)),
        contents: Some(contents(&page, encoding)),
        common_prefixes: Some(prefixes(&page, encoding)),
        encoding_type: input.encoding_type,
        ..ListObjectsOutput::default()
    })
}

fn limit(asked: Option<i32>) -> S3Result<usize> {
    match asked.map(usize::try_from) {
        None => Ok(KEYS_MAX),
        Some(Ok(asked)) => Ok(asked.min(KEYS_MAX)),
        Some(Err(_)) => Err(s3_error!(InvalidArgument, "max-keys is not negative")),
    }
}

fn number(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

/// The place that a token stands for.
fn place(token: &str) -> S3Result<String> {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(token).ok();
    bytes
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .ok_or_else(|| s3_error!(InvalidArgument, "The continuation token is not one of ours"))
}

/// The first place behind a key, or behind all that have it in common.
fn behind(marker: &str, prefix: &str, delimiter: &str) -> String {
    if marker.is_empty() {
        return String::new();
    }
    let is_common = !delimiter.is_empty()
        && marker.ends_with(delimiter)
        && marker
            .strip_prefix(prefix)
            .is_some_and(|rest| !rest.is_empty());
    match is_common.then(|| objects::behind(marker)).flatten() {
        Some(place) => place,
        None => format!("{marker}\0"),
    }
}

/// How keys are written in answers.
#[derive(Clone, Copy)]
pub(super) enum Encoding {
    /// As they are.
    Plain,
    /// With everything but letters, digits, `-_.~/` as `%XX`.
    Url,
}

impl Encoding {
    pub(super) fn of(asked: Option<&EncodingType>) -> Self {
        match asked.map(EncodingType::as_str) {
            Some(EncodingType::URL) => Self::Url,
            _ => Self::Plain,
        }
    }

    pub(super) fn text(self, key: &str) -> String {
        use std::fmt::Write;
        if let Self::Plain = self {
            return key.to_owned();
        }
        let mut text = String::with_capacity(key.len());
        for byte in key.bytes() {
            if byte.is_ascii_alphanumeric() || b"-_.~/".contains(&byte) {
                text.push(char::from(byte));
            } else {
                // Writing to a string cannot fail.
                let _ = write!(text, "%{byte:02X}");
            }
        }
        text
    }
}

fn contents(page: &Listing, encoding: Encoding) -> Vec<s3s::dto::Object> {
    let object = |object: &Object| s3s::dto::Object {
        key: Some(encoding.text(&object.key)),
        size: Some(size(object.size_bytes)),
        e_tag: Some(ETag::Strong(object.etag.clone())),
        last_modified: Some(time(object.modified_ms)),
        storage_class: Some(ObjectStorageClass::from_static(
            ObjectStorageClass::STANDARD,
        )),
        ..s3s::dto::Object::default()
    };
    page.objects.iter().map(object).collect()
}

fn prefixes(page: &Listing, encoding: Encoding) -> Vec<CommonPrefix> {
    let prefix = |prefix: &String| CommonPrefix {
        prefix: Some(encoding.text(prefix)),
    };
    page.prefixes.iter().map(prefix).collect()
}

fn size(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// A time of milliseconds since 1970; what was before is 1970, as S3 has nothing older.  What
/// comes later than any date that can be written is the last of those.
pub(super) fn time(ms: i64) -> Timestamp {
    let since = Duration::from_millis(u64::try_from(file_ms(ms)).unwrap_or(0));
    let at: SystemTime = UNIX_EPOCH.checked_add(since).unwrap_or(UNIX_EPOCH);
    Timestamp::from(at)
}

/// What a request says of the object that it wants: of several kinds, in the same words.
macro_rules! conditions {
    ($input:ident) => {
        Conditions {
            is: $input.if_match.as_ref(),
            is_not: $input.if_none_match.as_ref(),
            since: $input.if_modified_since.as_ref(),
            until: $input.if_unmodified_since.as_ref(),
        }
    };
}

/// An object without its bytes.
pub(super) async fn head(
    engine: &Engine,
    caller: &Caller,
    input: HeadObjectInput,
) -> S3Result<HeadObjectOutput> {
    require_whole(&input.key, input.part_number, input.version_id.as_deref())?;
    let found = objects::stat(engine, caller, &input.bucket, &input.key).await;
    let object = found.map_err(error::of)?;
    conditions!(input).check(&object)?;
    Ok(HeadObjectOutput {
        accept_ranges: Some("bytes".to_owned()),
        content_length: Some(size(object.size_bytes)),
        content_type: content_type(CONTENT_TYPE),
        last_modified: Some(time(object.modified_ms)),
        metadata: metadata(object.notes),
        e_tag: Some(ETag::Strong(object.etag)),
        ..HeadObjectOutput::default()
    })
}

/// An object, or a range of it.
pub(super) async fn get(
    engine: &Engine,
    caller: &Caller,
    input: GetObjectInput,
) -> S3Result<GetObjectOutput> {
    require_whole(&input.key, input.part_number, input.version_id.as_deref())?;
    let opened = objects::open(engine, caller, &input.bucket, &input.key).await;
    let opened = opened.map_err(error::of)?;
    let object = opened.object;
    conditions!(input).check(&object)?;
    let whole = 0..object.size_bytes;
    let range = match input.range {
        None => None,
        Some(range) => Some(range.check(object.size_bytes).map_err(|_| {
            let mut error = s3_error!(
                InvalidRange,
                "the object has only {} bytes",
                object.size_bytes
            );
            error.set_headers(sole(
                header::CONTENT_RANGE,
                &format!("bytes */{}", object.size_bytes),
            ));
            error
        })?),
    };
    let content_range = range.as_ref().map(|range| {
        let (from, last) = (range.start, range.end - 1);
        format!("bytes {from}-{last}/{}", object.size_bytes)
    });
    let range = range.unwrap_or(whole);
    let len = range.end - range.start;
    let body = match opened.reader {
        None => StreamingBlob::new(Sent::new(nothing(), len)),
        Some(grid_engine::datastore::Reader::Stored(reader)) => {
            StreamingBlob::new(Sent::new(reader.stream_range(range), len))
        }
        Some(grid_engine::datastore::Reader::Elsewhere(remote)) => {
            let pieces = remote.stream(Some(range)).await;
            let pieces = pieces.map_err(|failed| error::of(failed.into()))?;
            StreamingBlob::new(Sent::new(pieces, len))
        }
    };
    Ok(GetObjectOutput {
        accept_ranges: Some("bytes".to_owned()),
        body: Some(body),
        content_length: Some(size(len)),
        content_range,
        content_type: content_type(CONTENT_TYPE),
        last_modified: Some(time(object.modified_ms)),
        metadata: metadata(object.notes),
        e_tag: Some(ETag::Strong(object.etag)),
        ..GetObjectOutput::default()
    })
}

/// The bytes of what has none.
fn nothing() -> futures::stream::Empty<std::io::Result<bytes::Bytes>> {
    futures::stream::empty()
}

/// What is noted beside an object.
fn metadata(notes: Notes) -> Option<Metadata> {
    (!notes.is_empty()).then(|| notes.into_iter().collect())
}

fn content_type(text: &str) -> Option<s3s::dto::ContentType> {
    text.parse().ok()
}

/// The tags of an object, which has none: clients ask before they copy.
pub(super) async fn tags(
    engine: &Engine,
    caller: &Caller,
    input: GetObjectTaggingInput,
) -> S3Result<GetObjectTaggingOutput> {
    require_whole(&input.key, None, input.version_id.as_deref())?;
    let found = objects::stat(engine, caller, &input.bucket, &input.key).await;
    found.map_err(error::of)?;
    Ok(GetObjectTaggingOutput::default())
}

/// Objects have one part and one version here; but what is written to end a version is asked
/// for by that, where a client remembers it.
pub(super) fn require_whole(key: &str, part: Option<i32>, version: Option<&str>) -> S3Result<()> {
    let is_commit = key.rsplit('/').next() == Some(objects::COMMIT);
    if !is_commit && version.is_some_and(|version| !matches!(version, "" | "null")) {
        return Err(s3_error!(
            NoSuchVersion,
            "an object has no versions by itself here"
        ));
    }
    if part.is_some_and(|part| part != 1) {
        return Err(s3_error!(InvalidPart, "an object has one part here"));
    }
    Ok(())
}

/// Whether an object is wanted at all.
pub(super) struct Conditions<'a> {
    pub(super) is: Option<&'a ETagCondition>,
    pub(super) is_not: Option<&'a ETagCondition>,
    pub(super) since: Option<&'a Timestamp>,
    pub(super) until: Option<&'a Timestamp>,
}

impl Conditions<'_> {
    /// In the order that HTTP gives: what must hold first, then what would be no news.
    pub(super) fn check(&self, object: &Object) -> S3Result<()> {
        let tag = ETag::Strong(object.etag.clone());
        let has = |wanted: &ETagCondition| match wanted {
            ETagCondition::Any => true,
            ETagCondition::ETag(wanted) => wanted.weak_cmp(&tag),
        };
        // HTTP knows no parts of a second.
        let modified_ms = file_ms(object.modified_ms);
        let modified = time(modified_ms - modified_ms.rem_euclid(1_000));
        let holds = match (self.is, self.until) {
            (Some(wanted), _) => has(wanted),
            (None, Some(until)) => modified <= *until,
            (None, None) => true,
        };
        if !holds {
            return Err(s3_error!(
                PreconditionFailed,
                "At least one of the pre-conditions you specified did not hold"
            ));
        }
        let is_news = match (self.is_not, self.since) {
            (Some(known), _) => !has(known),
            (None, Some(since)) => modified > *since,
            (None, None) => true,
        };
        if is_news {
            return Ok(());
        }
        let mut error = S3Error::new(S3ErrorCode::NotModified);
        error.set_status_code(StatusCode::NOT_MODIFIED);
        error.set_headers(sole(header::ETAG, &format!("\"{}\"", object.etag)));
        Err(error)
    }
}

fn sole(name: header::HeaderName, value: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
    headers
}

#[cfg(test)]
mod tests {
    use s3s::dto::TimestampFormat;

    use super::*;

    #[test]
    fn a_marker_is_behind_itself_or_all_that_have_it_in_common() {
        for (marker, delimiter, expected) in [
            ("", "/", ""),
            ("a/b", "/", "a/b\0"),
            ("a/b/", "/", "a/b0"),
            ("a/b/", "", "a/b/\0"),
        ] {
            assert_eq!(behind(marker, "a/", delimiter), expected, "{marker}");
        }
    }

    #[test]
    fn no_time_is_too_early_or_too_late_to_be_told() {
        let object = |modified_ms| Object {
            key: String::new(),
            size_bytes: 0,
            etag: "e".to_owned(),
            modified_ms,
            notes: Notes::new(),
        };
        for ms in [i64::MIN, -1, 0, 1_000_000_000_000_000, i64::MAX] {
            let mut text = Vec::new();
            for format in [TimestampFormat::DateTime, TimestampFormat::HttpDate] {
                time(ms).format(format, &mut text).expect("told");
            }
            assert!(text.is_ascii(), "{text:?}");
            let since = time(0);
            let conditions = Conditions {
                is: None,
                is_not: None,
                since: Some(&since),
                until: None,
            };
            assert_eq!(conditions.check(&object(ms)).is_ok(), ms > 0, "{ms}");
        }
    }

    #[test]
    fn keys_can_be_written_in_plain_letters() {
        assert_eq!(Encoding::Url.text("a b/ä+~"), "a%20b/%C3%A4%2B~");
        assert_eq!(Encoding::Plain.text("a b"), "a b");
        assert_eq!(place("YS9i").expect("ours"), "a/b");
        assert!(place("%").is_err());
    }

    #[test]
    fn conditions_are_asked_in_the_order_of_http() {
        let object = Object {
            key: "k".to_owned(),
            size_bytes: 1,
            etag: "x".to_owned(),
            modified_ms: 10_500,
            notes: Notes::new(),
        };
        let tag = |text: &str| ETagCondition::ETag(ETag::Strong(text.to_owned()));
        let (same, other, any) = (tag("x"), tag("y"), ETagCondition::Any);
        let (before, at) = (time(9_000), time(10_000));
        let check = |is, is_not, since, until| {
            let conditions = Conditions {
                is,
                is_not,
                since,
                until,
            };
            conditions
                .check(&object)
                .map_err(|error| error.code().as_str().to_owned())
        };
        let failed = Err("PreconditionFailed".to_owned());
        let known = Err("NotModified".to_owned());
        assert_eq!(check(None, None, None, None), Ok(()));
        assert_eq!(check(Some(&same), None, None, Some(&before)), Ok(()));
        assert_eq!(check(Some(&other), None, None, None), failed);
        assert_eq!(check(None, None, None, Some(&before)), failed);
        assert_eq!(check(None, None, None, Some(&at)), Ok(()));
        assert_eq!(check(None, Some(&same), None, None), known);
        assert_eq!(check(None, Some(&any), None, None), known);
        assert_eq!(check(None, Some(&other), Some(&at), None), Ok(()));
        assert_eq!(check(None, None, Some(&at), None), known);
        assert_eq!(check(None, None, Some(&before), None), Ok(()));
    }
}
