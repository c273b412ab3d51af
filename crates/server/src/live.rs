//! What is live: server-sent events, made when the reader has room for them.
//!
//! A stream here is pulled by the connection.  Whoever reads slowly is behind, and
//! costs the server its place in the log and no more.

mod follow;
mod payload;

use std::fmt::Write as _;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::Stream;
use grid_engine::Changes;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub(crate) use follow::{Follower, Start, Told};
pub(crate) use payload::payload;

/// How often something is said when there is nothing to say.  Higher: proxies and
/// clients take the connection for dead; lower: many followers cost traffic.
pub(crate) const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// How long a reader should wait before it comes back, in milliseconds.
const RETRY_MS: u32 = 1_000;

/// How soon after one change the next is told.  Higher: screens lag; lower: a busy
/// sweep makes every watcher read its lists all the time.
const CHANGES_APART: Duration = Duration::from_millis(100);

/// How long one stream of changes lives.  Whoever comes back signs in again, so a key
/// that was revoked sees nothing for longer than this.
const CHANGES_LIFE: Duration = Duration::from_secs(15 * 60);

/// Events as text.
#[derive(Debug, Default)]
pub(crate) struct Events(String);

impl Events {
    /// The beginning of a stream.
    pub(crate) fn begin() -> Self {
        Self(format!("retry: {RETRY_MS}\n\n"))
    }

    /// Adds one; `data` is one line.
    pub(crate) fn push(&mut self, event: &str, id: Option<&dyn std::fmt::Display>, data: &str) {
        // Writing to a string does not fail.
        let _ = writeln!(self.0, "event: {event}");
        if let Some(id) = id {
            let _ = writeln!(self.0, "id: {id}");
        }
        let _ = write!(self.0, "data: {data}\n\n");
    }

    /// Adds one whose data is JSON.
    pub(crate) fn push_json(
        &mut self,
        event: &str,
        id: Option<&dyn std::fmt::Display>,
        data: &impl serde::Serialize,
    ) {
        // The shapes of the wire are plain data and always written.
        let data = serde_json::to_string(data).unwrap_or_else(|_| "{}".to_owned());
        self.push(event, id, &data);
    }

    /// Nothing, said aloud.
    pub(crate) fn keep_alive() -> Self {
        Self(":\n\n".to_owned())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn into_bytes(self) -> Bytes {
        self.0.into()
    }
}

/// The answer whose body are these events.
pub(crate) fn response(events: impl Stream<Item = Bytes> + Send + 'static) -> Response {
    use futures::StreamExt;
    let body = Body::from_stream(events.map(Ok::<_, std::convert::Infallible>));
    let mut response = body.into_response();
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/event-stream"),
    );
    // Some proxies collect answers unless they are told.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// `changed`, now and whenever something may have changed that the caller sees.
pub(crate) fn changes(
    changes: Changes,
    stop: CancellationToken,
) -> impl Stream<Item = Bytes> + Send {
    let until = Instant::now() + CHANGES_LIFE;
    let state = (changes, stop, true);
    futures::stream::unfold(state, move |(mut changes, stop, first)| async move {
        let mut events = if first {
            Events::begin()
        } else {
            Events::default()
        };
        if !first {
            tokio::select! {
                () = stop.cancelled() => return None,
                () = tokio::time::sleep_until(until) => return None,
                () = tokio::time::sleep(KEEP_ALIVE) => {
                    return Some((Events::keep_alive().into_bytes(), (changes, stop, false)));
                }
                still = changes.next() => {
                    // Whoever is not let in any more is told so when they come back.
                    if still.is_err() {
                        return None;
                    }
                }
            }
            tokio::select! {
                () = stop.cancelled() => return None,
                () = tokio::time::sleep(CHANGES_APART) => {}
            }
        }
        events.push("changed", None, "{}");
        Some((events.into_bytes(), (changes, stop, false)))
    })
}
