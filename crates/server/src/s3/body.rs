//! Bytes on their way in and out.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use axum::http::HeaderMap;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use futures::{Stream, StreamExt};
use s3s::checksum::ChecksumHasher;
use s3s::crypto::{Checksum as _, Crc32, Crc32c, Crc64Nvme, Md5, Sha1, Sha256};
use s3s::dto::StreamingBlob;
use s3s::stream::{ByteStream, RemainingLength};
use s3s::{S3Error, S3Result, StdError, TrailingHeaders, s3_error};

/// The headers that say what a body adds up to, each by its own way of adding.
const SUMS: [&str; 5] = [
    "x-amz-checksum-crc32",
    "x-amz-checksum-crc32c",
    "x-amz-checksum-crc64nvme",
    "x-amz-checksum-sha1",
    "x-amz-checksum-sha256",
];

/// The header that names what comes behind a body.
const TRAILER: &str = "x-amz-trailer";

/// Bytes that are sent, of a known number.
pub(super) struct Sent<S> {
    /// Only ever reached by whoever holds all of it: it need not be shared for that.
    pieces: Mutex<Pin<Box<S>>>,
    left: u64,
}

impl<S> Sent<S> {
    pub(super) fn new(pieces: S, len: u64) -> Self {
        Self {
            pieces: Mutex::new(Box::pin(pieces)),
            left: len,
        }
    }
}

impl<S, E> Stream for Sent<S>
where
    S: Stream<Item = Result<Bytes, E>> + Send,
    E: std::error::Error + Send + Sync + 'static,
{
    type Item = Result<Bytes, StdError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let pieces = self.pieces.get_mut();
        let pieces = pieces.unwrap_or_else(PoisonError::into_inner);
        let polled = pieces.as_mut().poll_next(cx);
        if let Poll::Ready(Some(Ok(piece))) = &polled {
            self.left = self.left.saturating_sub(piece.len() as u64);
        }
        polled.map(|piece| piece.map(|piece| piece.map_err(Into::into)))
    }
}

impl<S, E> ByteStream for Sent<S>
where
    S: Stream<Item = Result<Bytes, E>> + Send,
    E: std::error::Error + Send + Sync + 'static,
{
    fn remaining_length(&self) -> RemainingLength {
        match usize::try_from(self.left) {
            Ok(left) => RemainingLength::new_exact(left),
            Err(_) => RemainingLength::unknown(),
        }
    }
}

/// What is wrong with a body that comes, once that is known.
#[derive(Clone, Default)]
pub(super) struct Wrong(Arc<Mutex<Option<S3Error>>>);

impl Wrong {
    fn set(&self, error: S3Error) -> io::Error {
        let text = error.message().unwrap_or_default().to_owned();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        io::Error::new(io::ErrorKind::InvalidData, text)
    }

    /// That, or else what was made of it.
    pub(super) fn or(&self, error: S3Error) -> S3Error {
        let wrong = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        wrong.unwrap_or(error)
    }
}

/// That a body came too slowly, wherever that stands among what went wrong.
fn slowness<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a io::Error> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let slow = error.downcast_ref::<io::Error>();
        if let Some(slow) = slow.filter(|error| error.kind() == io::ErrorKind::TimedOut) {
            return Some(slow);
        }
        cause = error.source();
    }
    None
}

/// Checks a body against what was said of it.
pub(super) struct Sums {
    hasher: ChecksumHasher,
    md5: Option<(Md5, [u8; 16])>,
    /// By name.
    expected: Vec<(&'static str, String)>,
    trailing: Option<TrailingHeaders>,
    wrong: Wrong,
}

impl Sums {
    /// What is said before the body, and what will be said behind it.
    pub(super) fn of(
        headers: &HeaderMap,
        md5: Option<&str>,
        trailing: Option<TrailingHeaders>,
    ) -> S3Result<Self> {
        let announced = headers.get_all(TRAILER).iter();
        let announced: Vec<String> = announced
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .map(|name| name.trim().to_ascii_lowercase())
            .collect();
        let mut expected = Vec::new();
        let mut hasher = ChecksumHasher::default();
        for name in SUMS {
            let given = headers.get(name).and_then(|value| value.to_str().ok());
            expected.extend(given.map(|given| (name, given.to_owned())));
            if given.is_none() && !announced.iter().any(|known| known == name) {
                continue;
            }
            match name {
                "x-amz-checksum-crc32" => hasher.crc32 = Some(Crc32::new()),
                "x-amz-checksum-crc32c" => hasher.crc32c = Some(Crc32c::new()),
                "x-amz-checksum-crc64nvme" => hasher.crc64nvme = Some(Crc64Nvme::new()),
                "x-amz-checksum-sha1" => hasher.sha1 = Some(Sha1::new()),
                _ => hasher.sha256 = Some(Sha256::new()),
            }
        }
        let md5 = match md5 {
            None => None,
            Some(text) => {
                let sum = BASE64_STANDARD.decode(text).ok();
                let sum = sum.and_then(|sum| <[u8; 16]>::try_from(sum).ok());
                let wrong = || s3_error!(InvalidDigest, "Content-MD5 is not 16 bytes in Base64");
                Some((Md5::new(), sum.ok_or_else(wrong)?))
            }
        };
        Ok(Self {
            hasher,
            md5,
            expected,
            trailing,
            wrong: Wrong::default(),
        })
    }

    /// Where it is told what is wrong.
    pub(super) fn wrong(&self) -> Wrong {
        self.wrong.clone()
    }

    /// The bytes, at whose end it is seen whether they are what was said.
    pub(super) fn check(
        self,
        body: Option<StreamingBlob>,
    ) -> impl Stream<Item = io::Result<Bytes>> + Send {
        let state = Some((self, body));
        futures::stream::unfold(state, |state| async move {
            let (mut sums, mut body) = state?;
            let piece = match &mut body {
                Some(body) => body.next().await,
                None => None,
            };
            match piece {
                Some(Ok(piece)) => {
                    sums.add(&piece);
                    Some((Ok(piece), Some((sums, body))))
                }
                Some(Err(error)) => {
                    let error = match slowness(&*error) {
                        Some(slow) => s3_error!(RequestTimeout, "{slow}"),
                        None => s3_error!(
                            IncompleteBody,
                            "the body was cut, or is not what was signed: {error}"
                        ),
                    };
                    Some((Err(sums.wrong.set(error)), None))
                }
                None => sums.end().map(|error| (Err(error), None)),
            }
        })
    }

    fn add(&mut self, piece: &[u8]) {
        self.hasher.update(piece);
        if let Some((md5, _)) = &mut self.md5 {
            md5.update(piece);
        }
    }

    /// The end of the body: what is wrong with it.
    fn end(mut self) -> Option<io::Error> {
        if let Some(trailing) = self.trailing.take() {
            let named = trailing.read(|headers| {
                let value = |name: &'static str| {
                    let value = headers.get(name)?.to_str().ok()?;
                    Some((name, value.to_owned()))
                };
                SUMS.into_iter().filter_map(value).collect::<Vec<_>>()
            });
            self.expected.extend(named.unwrap_or_default());
        }
        if let Some((md5, expected)) = self.md5.take()
            && md5.finalize() != expected
        {
            let error = s3_error!(BadDigest, "the body has another MD5 than Content-MD5 says");
            return Some(self.wrong.set(error));
        }
        let sums = self.hasher.finalize();
        for (name, expected) in self.expected {
            let found = match name {
                "x-amz-checksum-crc32" => &sums.checksum_crc32,
                "x-amz-checksum-crc32c" => &sums.checksum_crc32c,
                "x-amz-checksum-crc64nvme" => &sums.checksum_crc64nvme,
                "x-amz-checksum-sha1" => &sums.checksum_sha1,
                _ => &sums.checksum_sha256,
            };
            if found.as_ref().is_some_and(|found| *found != expected) {
                let error = s3_error!(BadDigest, "the body adds up to another {name}");
                return Some(self.wrong.set(error));
            }
        }
        None
    }
}
