//! Answers that take long: they begin before it is known how they end, and are kept alive with
//! spaces, as those of the real thing are.
//!
//! Clients wait for a while until something comes (a minute; those that are made with Amazon's
//! library for C++, as `pyarrow` is, three seconds), and then ask again, for what is not done any
//! faster by that.  So after [`PATIENCE`] the head of the answer is sent, and the
//! beginning of a document; a space every [`EVERY`]; and the rest of the document at the end.

use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use bytes::Bytes;
use futures::stream;
use s3s::{S3Error, S3Result};
use tokio::task::JoinHandle;

/// How long something is worked on before its answer begins.  Higher: clients give up; lower:
/// what goes wrong is told behind a status that says it went well.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// How often something is sent while nothing is known.  Higher: clients give up.
const EVERY: Duration = Duration::from_secs(1);

/// What a document begins with.
const BEGIN: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n";

/// What is sent while nothing is known.
const SPACE: &str = " ";

/// What is still worked on when the answer to a request begins.
#[derive(Default)]
pub(super) struct Late(Mutex<Option<Unknown>>);

/// An end that is not known.
struct Unknown {
    work: JoinHandle<S3Result<String>>,
    /// Whether clients read the document: those that do not have to be cut off to notice.
    is_read: bool,
}

/// Where the answer is.
enum State {
    Begin(Unknown),
    Wait(Unknown),
    End,
}

impl Late {
    /// Does something that ends with a document; gives `None` where that takes longer than
    /// whoever asks waits.
    pub(super) async fn document(
        &self,
        work: impl Future<Output = S3Result<String>> + Send + 'static,
        is_read: bool,
    ) -> S3Result<Option<String>> {
        let mut work = tokio::spawn(work);
        match tokio::time::timeout(PATIENCE, &mut work).await {
            Ok(done) => Ok(Some(done.map_err(S3Error::internal_error)??)),
            Err(_) => {
                let mut unknown = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                *unknown = Some(Unknown { work, is_read });
                Ok(None)
            }
        }
    }

    /// The answer with the body that it will have.
    pub(super) fn finish(&self, response: Response) -> Response {
        let unknown = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(unknown) = unknown.filter(|_| response.status().is_success()) else {
            return response;
        };
        let (mut parts, _) = response.into_parts();
        parts.headers.remove(header::CONTENT_LENGTH);
        let xml = HeaderValue::from_static("application/xml");
        parts.headers.insert(header::CONTENT_TYPE, xml);
        let pieces = stream::unfold(State::Begin(unknown), next);
        Response::from_parts(parts, Body::from_stream(pieces))
    }
}

async fn next(state: State) -> Option<(io::Result<Bytes>, State)> {
    let mut unknown = match state {
        State::Begin(unknown) => {
            return Some((
                Ok(Bytes::from_static(BEGIN.as_bytes())),
                State::Wait(unknown),
            ));
        }
        State::Wait(unknown) => unknown,
        State::End => return None,
    };
    let Ok(done) = tokio::time::timeout(EVERY, &mut unknown.work).await else {
        let space = Bytes::from_static(SPACE.as_bytes());
        return Some((Ok(space), State::Wait(unknown)));
    };
    let error = match done.map_err(S3Error::internal_error).flatten() {
        Ok(document) => return Some((Ok(document.into()), State::End)),
        Err(error) => error,
    };
    tracing::info!(%error, "an answer of S3 that had begun ends with an error");
    let piece = match unknown.is_read {
        true => Ok(refusal(&error).into()),
        false => Err(io::Error::other(error.to_string())),
    };
    Some((piece, State::End))
}

/// An error as the rest of a document.
fn refusal(error: &S3Error) -> String {
    let code = escaped(error.code().as_str());
    let message = escaped(error.message().unwrap_or_default());
    format!("<Error><Code>{code}</Code><Message>{message}</Message></Error>")
}

/// A text as it stands in a document.
pub(super) fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '&' => safe.push_str("&amp;"),
            '"' => safe.push_str("&quot;"),
            c if c.is_control() && !matches!(c, '\t' | '\n') => safe.push('\u{FFFD}'),
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;
    use s3s::s3_error;

    use super::*;

    async fn text(late: &Late) -> Result<String, axum::Error> {
        let mut plain = Response::new(Body::from("replaced"));
        let length = HeaderValue::from_static("8");
        plain.headers_mut().insert(header::CONTENT_LENGTH, length);
        let response = late.finish(plain);
        assert_eq!(response.status(), StatusCode::OK);
        let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    async fn slowly(end: S3Result<String>) -> S3Result<String> {
        // The clock of these tests moves when nobody has anything to do.
        let long = Duration::from_millis(4_500);
        let over = tokio::time::timeout(long, std::future::pending::<()>());
        assert!(over.await.is_err());
        end
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_done_soon_is_answered_at_once() {
        let late = Late::default();
        let done = late.document(async { Ok("<A/>".to_owned()) }, true).await;
        assert_eq!(done.expect("done").as_deref(), Some("<A/>"));
        assert_eq!(text(&late).await.expect("whole"), "replaced");
        let failed = late.document(async { Err(s3_error!(SlowDown)) }, true);
        assert!(failed.await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn what_takes_longer_is_answered_with_spaces_until_it_is_known() {
        let late = Late::default();
        let done = late.document(slowly(Ok("<A/>".to_owned())), true).await;
        assert_eq!(done.expect("under way"), None);
        assert_eq!(text(&late).await.expect("whole"), format!("{BEGIN}  <A/>"));
        assert_eq!(text(&late).await.expect("whole"), "replaced");
    }

    #[tokio::test(start_paused = true)]
    async fn what_fails_late_is_told_or_cut_off() {
        let late = Late::default();
        let failed = || slowly(Err(s3_error!(OperationAborted, "a < b")));
        let done = late.document(failed(), true).await;
        assert_eq!(done.expect("under way"), None);
        let told = text(&late).await.expect("whole");
        assert!(told.ends_with("<Code>OperationAborted</Code><Message>a &lt; b</Message></Error>"));
        let done = late.document(failed(), false).await;
        assert_eq!(done.expect("under way"), None);
        assert!(text(&late).await.is_err());
    }
}
