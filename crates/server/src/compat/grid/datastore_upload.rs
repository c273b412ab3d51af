//! Sending the files of a datastore: an address for each part, good for that and for a
//! while, to which the client sends its bytes without other credentials.

use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CONTENT_LENGTH, ETAG};
use axum::http::{HeaderMap, HeaderValue, Uri};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use grid_core::id::{DatastoreVersionId, UploadId};
use grid_engine::audit::Trail;
use grid_engine::datastore::staging::{self, Announced, Completion, PARTS_MAX};
use grid_engine::ticket::{self, Purpose};
use grid_engine::{Caller as EngineCaller, Engine};

use super::asked::{self, Parameters};
use super::auth::Caller;
use super::shapes::Empty;
use super::shapes::datastore::{Given, Objects, PartUrl, Sent, Wanted, meant_id, shown_id};
use super::transfer::TICKET;
use crate::error::{Failure, Result};
use crate::extract::{JsonBody, Path, Pieces, Query};
use crate::rest::App;

/// How long a part can be sent after its address was asked for.  Higher: an address that
/// leaks is good for longer; lower: the last parts of a batch of 2 GiB come too late over a
/// slow line.
pub(crate) const PART_LIFE_MS: i64 = 24 * 60 * 60 * 1_000;

/// Most bytes that are taken at one address.  The client sends 50 MiB at a time unless it is
/// told otherwise.  Higher: more is sent again when a line is cut.
const PART_BYTES_MAX: u64 = 2 << 30;

/// Addresses in one answer: a batch of files, and one large file in its end.  Higher: one
/// answer holds much memory.
const URLS_MAX: u64 = 20_000;

/// The largest request for addresses, and to put files together.
const BODY_BYTES_MAX: usize = 32 << 20;

fn part_count(wanted: &Wanted) -> Result<u32> {
    let count = wanted.part_count.positive::<u32>("partCount");
    let count = count.map_err(Failure::invalid)?.unwrap_or(1);
    if count > PARTS_MAX {
        return Err(Failure::invalid(format!(
            "'{}' has {count} parts; a file is sent in at most {PARTS_MAX}",
            wanted.key
        ))
        .hint("let GRID_DATASTORE_MAX_BYTES_PER_FILE_PART_UPLOAD be larger"));
    }
    Ok(count)
}

/// Gives addresses for the parts of files, in the order in which they are asked for.
pub(super) async fn addresses(
    State(app): State<App>,
    Caller(caller): Caller,
    Path((cluster, id)): Path<(String, String)>,
    uri: Uri,
    headers: HeaderMap,
    JsonBody(wanted): JsonBody<Objects<Wanted>, BODY_BYTES_MAX>,
) -> Result<Json<Objects<Given>>> {
    let engine = &app.engine;
    asked::cluster(engine, &cluster)?;
    let base = app.base(&uri, &headers)?;
    let version = meant_id(&id)?;
    let mut urls = 0;
    for wanted in &wanted.objects {
        urls += u64::from(part_count(wanted)?);
    }
    if urls > URLS_MAX {
        return Err(Failure::invalid(format!(
            "{urls} addresses are asked for; ask for at most {URLS_MAX} at a time"
        )));
    }
    let uploads = uploads(engine, &caller, version, &wanted.objects).await?;
    let mut objects = Vec::with_capacity(uploads.len());
    for (wanted, upload) in wanted.objects.into_iter().zip(uploads) {
        let count = part_count(&wanted)?;
        let mut expiry_time = String::new();
        let mut urls = Vec::new();
        for number in 1..=count {
            let purpose = Purpose::SendPart(upload, number);
            let ticket = ticket::issue(engine, &caller, &purpose, PART_LIFE_MS);
            expiry_time = (ticket.expires_at.as_millis() / 1_000).to_string();
            urls.push(PartUrl {
                part_number: number.to_string(),
                url: format!(
                    "{base}/v1/uploads/{}/{upload}/{number}?{TICKET}={}",
                    shown_id(version),
                    ticket.text
                ),
            });
        }
        objects.push(Given {
            expiry_time,
            key: wanted.key,
            part_count: count.to_string(),
            upload_id: upload.to_string(),
            urls,
        });
    }
    Ok(Json(Objects { objects }))
}

/// An upload for each file: the one that it had, if that is still open, or a new one.
async fn uploads(
    engine: &Engine,
    caller: &EngineCaller,
    version: DatastoreVersionId,
    wanted: &[Wanted],
) -> Result<Vec<UploadId>> {
    let version = version.to_string();
    let mut given = Vec::with_capacity(wanted.len());
    for wanted in wanted {
        given.push(open(engine, caller, &version, wanted).await);
    }
    let without = wanted.iter().zip(&given).filter(|(_, id)| id.is_none());
    let paths: Vec<String> = without.map(|(wanted, _)| wanted.key.clone()).collect();
    let begun = staging::begin(engine, caller, &version, &paths).await?;
    let mut begun = begun.into_iter().map(|upload| upload.id);
    Ok(given
        .into_iter()
        .filter_map(|id| id.or_else(|| begun.next()))
        .collect())
}

async fn open(
    engine: &Engine,
    caller: &EngineCaller,
    version: &str,
    wanted: &Wanted,
) -> Option<UploadId> {
    let id = wanted.upload_id.parse().ok()?;
    let upload = staging::upload(engine, caller, version, id).await.ok()?;
    (upload.path == wanted.key).then_some(upload.id)
}

/// Takes one part.
pub(super) async fn put(
    State(app): State<App>,
    Extension(trail): Extension<Trail>,
    Path((version, upload, number)): Path<(String, String, String)>,
    Query(parameters): Parameters,
    headers: HeaderMap,
    body: Body,
) -> Result<Response> {
    let announced = headers
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let pieces = Pieces::new(body);
    let ticket = asked::one(&parameters, TICKET).unwrap_or_default();
    let admitted = admit(&app.engine, &trail, ticket, &version, &upload, &number).await;
    let (caller, version, upload, number) = admitted?;
    let announced = Announced {
        size_bytes: announced,
        md5: None,
        most_bytes: Some(PART_BYTES_MAX),
        patience: None,
    };
    let version = version.to_string();
    let kept = staging::put_part(
        &app.engine,
        &caller,
        &version,
        upload,
        number,
        announced,
        pieces.stream(),
    )
    .await?;
    let tag = HeaderValue::from_str(&format!("\"{}\"", kept.etag));
    let tag = tag.map_err(|e| Failure::internal(&e.into()))?;
    Ok(([(ETAG, tag)], Json(Empty {})).into_response())
}

async fn admit(
    engine: &Engine,
    trail: &Trail,
    ticket: &str,
    version: &str,
    upload: &str,
    number: &str,
) -> Result<(EngineCaller, DatastoreVersionId, UploadId, u32)> {
    let none = || Failure::invalid("this is not an address to which anything is sent");
    let version = meant_id(version).map_err(|_| none())?;
    let upload: UploadId = upload.parse().map_err(|_| none())?;
    let number: u32 = number.parse().map_err(|_| none())?;
    let purpose = Purpose::SendPart(upload, number);
    let caller = ticket::admit(engine, trail, ticket, &purpose).await?;
    Ok((caller, version, upload, number))
}

/// Puts files together whose parts were all sent.
pub(super) async fn put_together(
    State(app): State<App>,
    Caller(caller): Caller,
    Path((cluster, id)): Path<(String, String)>,
    JsonBody(sent): JsonBody<Objects<Sent>, BODY_BYTES_MAX>,
) -> Result<Json<Empty>> {
    asked::cluster(&app.engine, &cluster)?;
    let version = meant_id(&id)?.to_string();
    let completions: Result<Vec<Completion>> = sent.objects.into_iter().map(completion).collect();
    staging::complete(&app.engine, &caller, &version, completions?).await?;
    Ok(Json(Empty {}))
}

fn completion(sent: Sent) -> Result<Completion> {
    let upload = sent.upload_id.parse().map_err(|_| {
        Failure::invalid(format!(
            "'{}' is not an upload of '{}'",
            sent.upload_id, sent.key
        ))
    })?;
    let mut parts = Vec::with_capacity(sent.urls.len());
    for part in sent.urls {
        let number = part.part_number.positive::<u32>("partNumber");
        let number = number.map_err(Failure::invalid)?.unwrap_or(0);
        parts.push((number, part.etag.0));
    }
    Ok(Completion {
        upload,
        path: sent.key,
        parts,
    })
}
