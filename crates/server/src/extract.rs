//! Taking requests apart: path, query, body.  What is not understood is refused in
//! the one envelope, by name.
//!
//! A body is kept whole until it is understood.  A small one is so quickly; but of each that
//! is larger than [`LARGE_BYTES`] its sender needs a place, which people share fairly, before
//! more of it is read: else a few senders, however slow, would fill the memory.

use std::io;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt};
use grid_api::error::ErrorCode;
use grid_engine::{Engine, Place, Sender};
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use crate::error::Failure;

/// A usual body.  Higher: many small requests may take more memory together; lower:
/// honest requests with long texts are refused.
pub(crate) const BODY_BYTES_MAX: usize = 1 << 20;

/// From this size on a body needs a place among the large ones, until it is answered.  Higher:
/// many at once take more memory; lower: usual ones wait for each other.
const LARGE_BYTES: usize = 1 << 20;

/// How long the sender of a body may be silent.  Higher: those who only want to hold
/// a connection hold it longer; lower: uploads over bad networks break.
const BODY_SILENCE_MAX: Duration = Duration::from_secs(60);

/// Bytes that come of a body in each [`PACE_TIME`] for which it is waited for, unless it ends.
/// Higher: twenty files at once over a slow line (64 kbit/s) are cut; lower: those who send a
/// byte now and then keep a connection, and a place among what is received, for longer.
const PACE_BYTES_MIN: u64 = 16 << 10;

/// See [`PACE_BYTES_MIN`].  What the server itself takes its time for does not count.
const PACE_TIME: Duration = Duration::from_secs(60);

/// From this size on JSON is read on a thread of its own, so that nobody waits for it.
const JSON_ASIDE_BYTES: usize = 256 << 10;

/// Bytes that are kept ready for a body whose length is said to be larger.
const BODY_RESERVE_BYTES: usize = 64 << 10;

/// The values in the path.
pub(crate) struct Path<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        match axum::extract::Path::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(value)) => Ok(Self(value)),
            Err(rejection) => Err(Failure::invalid(format!(
                "the path '{}' is not understood: {}",
                parts.uri.path(),
                rejection.body_text()
            ))),
        }
    }
}

/// The query.
pub(crate) struct Query<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        match axum::extract::Query::<T>::try_from_uri(&parts.uri) {
            Ok(axum::extract::Query(value)) => Ok(Self(value)),
            Err(rejection) => {
                use std::error::Error as _;
                let why = rejection
                    .source()
                    .map_or_else(|| rejection.to_string(), ToString::to_string);
                Err(query_failure(&why))
            }
        }
    }
}

fn query_failure(why: &str) -> Failure {
    match unknown_field(why) {
        Some((name, known)) if known.is_empty() => {
            Failure::invalid(format!("there is no query parameter '{name}' here"))
        }
        Some((name, known)) => {
            Failure::invalid(format!("there is no query parameter '{name}' here"))
                .hint(format!("there are: {known}"))
        }
        None => Failure::invalid(format!("the query is not understood: {why}")),
    }
}

/// Takes apart serde's "unknown field `x`, expected one of `a`, `b`".
fn unknown_field(why: &str) -> Option<(&str, String)> {
    let rest = &why[why.find("unknown field `")? + "unknown field `".len()..];
    let (name, rest) = rest.split_once('`')?;
    let known: Vec<&str> = rest.split('`').skip(1).step_by(2).collect();
    Some((name, known.join(", ")))
}

/// The query of an operation that has none.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Nothing {}

/// A body in JSON of at most `MAX` bytes; no body is `{}`.
pub(crate) struct JsonBody<T, const MAX: usize = BODY_BYTES_MAX>(pub(crate) T);

impl<S: Send + Sync, T, const MAX: usize> FromRequest<S> for JsonBody<T, MAX>
where
    T: DeserializeOwned + Send + 'static,
{
    type Rejection = Failure;

    async fn from_request(request: Request, _: &S) -> Result<Self, Failure> {
        let (parts, body) = request.into_parts();
        let bytes = read(&parts, body, MAX).await?;
        if bytes.is_empty() {
            return parse(b"{}").map(Self);
        }
        // A page of another site can make a browser send any other type without asking.
        let is_json = parts
            .headers
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .is_some_and(|value| {
                value.split(';').next().unwrap_or_default().trim() == "application/json"
            });
        if !is_json {
            return Err(Failure::invalid("the body must be JSON")
                .hint("say so with the header Content-Type: application/json"));
        }
        if bytes.len() < JSON_ASIDE_BYTES {
            return parse(&bytes).map(Self);
        }
        let parsed = tokio::task::spawn_blocking(move || parse(&bytes)).await;
        parsed.map_err(|e| Failure::internal(&e.into()))?.map(Self)
    }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Failure> {
    // A list is read as a structure whose fields come in the order in which the code has
    // them: nobody means that, and it would end with the next field.
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        return Err(Failure::invalid("the body must be a JSON object"));
    }
    serde_json::from_slice(bytes)
        .map_err(|e| Failure::invalid(format!("the body is not what is expected here: {e}")))
}

/// A body of at most `MAX` bytes.
pub(crate) struct BytesBody<const MAX: usize>(pub(crate) Bytes);

impl<S: Send + Sync, const MAX: usize> FromRequest<S> for BytesBody<MAX> {
    type Rejection = Failure;

    async fn from_request(request: Request, _: &S) -> Result<Self, Failure> {
        let (parts, body) = request.into_parts();
        read(&parts, body, MAX).await.map(Self)
    }
}

/// A body that is read when its handler has looked whether it is wanted.
pub(crate) struct Unread<T> {
    request: Request,
    read_as: PhantomData<fn() -> T>,
}

impl<S: Send + Sync, T> FromRequest<S> for Unread<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, _: &S) -> Result<Self, Failure> {
        Ok(Self {
            request,
            read_as: PhantomData,
        })
    }
}

impl<T: FromRequest<(), Rejection = Failure>> Unread<T> {
    /// Whether it is so large, or may be, that it is worth a look before.
    pub(crate) fn may_be_large(&self) -> bool {
        said(self.request.headers()).is_none_or(|said| said > LARGE_BYTES)
    }

    pub(crate) async fn read(self) -> Result<T, Failure> {
        T::from_request(self.request, &()).await
    }
}

/// Who sends the body of a request; beside it, for those who read it.
#[derive(Clone)]
pub(crate) struct SentBy {
    pub(crate) engine: Engine,
    pub(crate) sender: Sender,
}

/// What the body of a request holds until it is answered.
#[derive(Clone, Default)]
struct Held(Arc<Mutex<Option<Place>>>);

/// Keeps the place of a large body until the request is answered: what was read of it is
/// there until then.
pub(crate) async fn hold(mut request: Request, next: Next) -> Response {
    let held = Held::default();
    request.extensions_mut().insert(held.clone());
    let response = next.run(request).await;
    drop(held);
    response
}

/// Takes the place of a large body.
async fn take_place(parts: &Parts) -> Result<(), Failure> {
    // Nobody is let in unknown where large ones are taken.
    let by = parts.extensions.get::<SentBy>();
    let by = by.ok_or_else(|| too_large(LARGE_BYTES))?;
    let place = by.engine.place_for_request(by.sender.clone()).await?;
    if let Some(held) = parts.extensions.get::<Held>() {
        *held.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(place);
    }
    Ok(())
}

/// How long a body is said to be.
fn said(headers: &HeaderMap) -> Option<usize> {
    let said = headers.get(CONTENT_LENGTH)?;
    said.to_str().ok()?.parse().ok()
}

async fn read(parts: &Parts, body: Body, max: usize) -> Result<Bytes, Failure> {
    let said = said(&parts.headers);
    if said.is_some_and(|said| said > max) {
        return Err(too_large(max));
    }
    let mut is_placed = said.is_some_and(|said| said > LARGE_BYTES);
    if is_placed {
        take_place(parts).await?;
    }
    let mut pieces = Pieces::new(body);
    let Some(first) = pieces.next().await? else {
        return Ok(Bytes::new());
    };
    let mut whole = BytesMut::new();
    let mut next = Some(first);
    while let Some(piece) = next {
        let length = whole.len() + piece.len();
        if length > max {
            return Err(too_large(max));
        }
        if length > LARGE_BYTES && !is_placed {
            take_place(parts).await?;
            is_placed = true;
        }
        next = pieces.next().await?;
        if whole.is_empty() && next.is_none() {
            return Ok(piece);
        }
        if whole.is_empty() {
            whole.reserve(said.unwrap_or(0).min(BODY_RESERVE_BYTES));
        }
        whole.extend_from_slice(&piece);
    }
    Ok(whole.freeze())
}

fn too_large(max: usize) -> Failure {
    let limit = if max >= 1 << 20 {
        format!("{} MiB", max >> 20)
    } else {
        format!("{} KiB", max >> 10)
    };
    Failure::new(
        ErrorCode::TooLarge,
        format!("the body is larger than the limit of {limit} here"),
    )
}

/// A body, piece by piece, whose sender may neither be silent for long nor trickle.
pub(crate) struct Pieces {
    body: BodyDataStream,
    /// How long it was waited for since the pace was looked at, and what came meanwhile.
    waited: Duration,
    came: u64,
}

/// Why there is no next piece.
pub(crate) enum Cut {
    /// The connection broke.
    Broken(axum::Error),
    /// Its sender is silent, or too slow; in words.
    Slow(String),
}

impl From<Cut> for Failure {
    fn from(cut: Cut) -> Self {
        match cut {
            Cut::Broken(error) => Self::invalid(format!("the body broke off: {error}")),
            Cut::Slow(words) => Self::invalid(words)
                .hint("send it again over a better line, or less at the same time"),
        }
    }
}

impl From<Cut> for io::Error {
    fn from(cut: Cut) -> Self {
        match cut {
            Cut::Broken(error) => Self::new(
                io::ErrorKind::ConnectionReset,
                format!("the body broke off: {error}"),
            ),
            Cut::Slow(words) => Self::new(io::ErrorKind::TimedOut, words),
        }
    }
}

impl Pieces {
    pub(crate) fn new(body: Body) -> Self {
        Self {
            body: body.into_data_stream(),
            waited: Duration::ZERO,
            came: 0,
        }
    }

    /// The next piece; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Cut> {
        let since = Instant::now();
        let next = tokio::time::timeout(BODY_SILENCE_MAX, self.body.next()).await;
        self.waited += since.elapsed();
        match next {
            Ok(None) => Ok(None),
            Ok(Some(Ok(piece))) => {
                self.came += piece.len() as u64;
                self.require_pace()?;
                Ok(Some(piece))
            }
            Ok(Some(Err(error))) => Err(Cut::Broken(error)),
            Err(_) => Err(Cut::Slow(format!(
                "nothing of the body came for {} seconds",
                BODY_SILENCE_MAX.as_secs()
            ))),
        }
    }

    fn require_pace(&mut self) -> Result<(), Cut> {
        if self.waited < PACE_TIME {
            return Ok(());
        }
        let (waited, came) = (self.waited.as_secs(), self.came);
        (self.waited, self.came) = (Duration::ZERO, 0);
        if came >= PACE_BYTES_MIN {
            return Ok(());
        }
        Err(Cut::Slow(format!(
            "only {came} bytes of the body came in {waited} seconds, and at least {} KiB a minute \
             have to",
            PACE_BYTES_MIN >> 10
        )))
    }

    /// The same as a stream, for those who read it as they would a file.
    pub(crate) fn stream(self) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
        futures::stream::unfold(self, |mut pieces| async move {
            let piece = pieces.next().await.map_err(io::Error::from).transpose()?;
            Some((piece, pieces))
        })
    }
}

/// Answers where there is no route.
pub(crate) async fn no_such_path(uri: Uri) -> Response {
    Failure::new(
        ErrorCode::NotFound,
        format!("there is nothing at {}", uri.path()),
    )
    .hint(format!(
        "{}/openapi.json lists what there is",
        grid_api::PREFIX
    ))
    .into_response()
}

/// Answers where the path has other methods only.
pub(crate) async fn no_such_method(method: Method, uri: Uri) -> Response {
    Failure::new(
        ErrorCode::MethodNotAllowed,
        format!("{} does not take {method}", uri.path()),
    )
    .hint(format!(
        "{}/openapi.json lists what it takes",
        grid_api::PREFIX
    ))
    .into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_parameter_is_named() {
        let query = |text: &str| {
            let uri: Uri = format!("/x?{text}").parse().expect("a path");
            let (mut parts, ()) = Request::builder()
                .uri(uri)
                .body(())
                .expect("a request")
                .into_parts();
            let found = futures::executor::block_on(
                Query::<grid_api::run::RunsQuery>::from_request_parts(&mut parts, &()),
            );
            found
                .map(|query| query.0)
                .map_err(|failure| failure.body().error)
        };
        assert_eq!(query("limit=5").expect("read").limit, Some(5));
        let error = query("colour=red").expect_err("refused");
        assert_eq!(error.message, "there is no query parameter 'colour' here");
        assert!(
            error
                .hint
                .is_some_and(|hint| hint.contains("created_by, name, state, since, limit"))
        );
        let error = query("limit=many").expect_err("refused");
        assert!(
            error.message.contains("limit") && error.message.contains("invalid digit"),
            "{}",
            error.message
        );
    }

    /// Sends so many bytes, again and again after a pause.
    async fn send(bytes: usize, pause: Duration, times: usize) -> Result<u64, String> {
        let pieces = futures::stream::unfold(0, move |sent| async move {
            if sent == times {
                return None;
            }
            // The clock of these tests moves when nobody has anything to do.
            let wait = tokio::time::timeout(pause, std::future::pending::<()>());
            assert!(wait.await.is_err());
            Some((Ok::<_, io::Error>(Bytes::from(vec![1; bytes])), sent + 1))
        });
        let mut pieces = Pieces::new(Body::from_stream(pieces));
        let mut came = 0;
        loop {
            match pieces.next().await {
                Ok(Some(piece)) => came += piece.len() as u64,
                Ok(None) => return Ok(came),
                Err(cut) => return Err(io::Error::from(cut).to_string()),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_trickles_is_cut_and_who_is_slow_is_not() {
        let second = Duration::from_secs(1);
        let slow = send(300, second, 1_000).await;
        assert_eq!(slow, Ok(300_000));
        assert_eq!(send(10, 50 * second, 1).await, Ok(10));
        assert_eq!(send(10, 5 * second, 11).await, Ok(110));
        let cut = send(100, 10 * second, 100).await.expect_err("it trickles");
        let expected = "only 600 bytes of the body came in 60 seconds";
        assert!(cut.contains(expected), "{cut}");
        let cut = send(1 << 20, 61 * second, 2).await.expect_err("silent");
        assert!(cut.contains("came for 60 seconds"), "{cut}");
    }

    #[test]
    fn a_body_is_an_object() {
        let read = |text: &str| parse::<grid_api::team::PolicyUpdate>(text.as_bytes());
        for good in ["{}", " \n{\"run_control\": null}"] {
            assert!(read(good).is_ok(), "{good}");
        }
        for bad in ["[]", "[null, null]", "null", "1", "", " ", "{", "{}{}"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
