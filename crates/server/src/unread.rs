//! Requests that are answered before their body was read.
//!
//! Who waits to be told to go on (`Expect: 100-continue`) sends no body to an answer that says
//! no, and the HTTP below would take the first bytes of their next request for it.  Who sends
//! without waiting hears nothing if the connection ends under them, and tries again and again.
//! So such an answer says that it is the last of its connection; and what still comes is
//! taken, within limits, and thrown away.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, BodyDataStream, HttpBody};
use axum::extract::Request;
use axum::http::{HeaderValue, Version, header};
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use futures::{Stream, StreamExt};

/// Bytes that are thrown away of a body that nobody reads.  Higher: refused uploads cost more;
/// lower: who sends more hears no answer.
const TAKEN_BYTES_MAX: u64 = 64 << 20;

/// How long they are taken.  Higher: who only wants to hold a connection holds it longer;
/// lower: over a slow line the answer is not heard.
const TAKEN_FOR: Duration = Duration::from_secs(30);

/// Bytes of such a body that are taken before the answer goes out, so that the connection goes
/// on: what is said in vain is small most often.  Higher: refusals wait for those who send more.
const SMALL_BYTES_MAX: u64 = 64 << 10;

/// How long that may take: it is here already, or nearly.
const SMALL_FOR: Duration = Duration::from_millis(100);

/// A body that may be read to its end, or not.
struct Rest {
    pieces: BodyDataStream,
    is_over: bool,
    is_asked: bool,
}

/// Somebody's hold on it.
#[derive(Clone)]
struct Shared(Arc<Mutex<Rest>>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Rest> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_over(&self) -> bool {
        let rest = self.lock();
        rest.is_over || rest.pieces.is_end_stream()
    }
}

impl Stream for Shared {
    type Item = Result<Bytes, axum::Error>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut rest = self.lock();
        rest.is_asked = true;
        let polled = Pin::new(&mut rest.pieces).poll_next(cx);
        if let Poll::Ready(None | Some(Err(_))) = &polled {
            rest.is_over = true;
        }
        polled
    }
}

/// Sees to it that an answer to a request whose body was not read is the last of its
/// connection.
pub(crate) async fn close(request: Request, next: Next) -> Response {
    let is_numbered = matches!(request.version(), Version::HTTP_10 | Version::HTTP_11);
    if !is_numbered || request.body().is_end_stream() {
        return next.run(request).await;
    }
    let is_waiting = request.headers().contains_key(header::EXPECT);
    let size = request.body().size_hint().upper();
    let is_small = size.is_some_and(|bytes| bytes <= SMALL_BYTES_MAX);
    let (parts, body) = request.into_parts();
    let rest = Shared(Arc::new(Mutex::new(Rest {
        pieces: body.into_data_stream(),
        is_over: false,
        is_asked: false,
    })));
    let watched = Body::from_stream(rest.clone());
    let mut response = next.run(Request::from_parts(parts, watched)).await;
    if rest.is_over() {
        return response;
    }
    // Of whoever still waits nothing comes; to read would be to tell them to send.
    let is_coming = rest.lock().is_asked || !is_waiting;
    if is_coming && is_small {
        take(rest.clone(), SMALL_BYTES_MAX, SMALL_FOR).await;
        if rest.is_over() {
            return response;
        }
    }
    let close = HeaderValue::from_static("close");
    response.headers_mut().insert(header::CONNECTION, close);
    if is_coming {
        tokio::spawn(take(rest, TAKEN_BYTES_MAX, TAKEN_FOR));
    }
    response
}

/// Throws away what still comes.
async fn take(mut rest: Shared, most: u64, time: Duration) {
    let taken = async {
        let mut taken = 0_u64;
        while let Some(Ok(piece)) = rest.next().await {
            taken += piece.len() as u64;
            if taken > most {
                return;
            }
        }
    };
    // If it is not over then, the connection ends.
    let _ = tokio::time::timeout(time, taken).await;
}
