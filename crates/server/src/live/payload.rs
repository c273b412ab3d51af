//! The bytes of a log without their frames.

use bytes::{Buf, Bytes, BytesMut};
use futures::Stream;
use grid_api::log::LogSource;
use grid_core::logframe::{DecodeError, HEADER_BYTES, Source, decode};
use grid_engine::log::{Cursor, Reader};

use crate::error::{Failure, Result};

/// Bytes read at a time.  Higher: more memory per download; lower: more thread changes.
const READ_BYTES: usize = 512 << 10;

struct State {
    reader: Reader,
    cursor: Cursor,
    /// Attempts there were when the download began.
    attempts: u32,
    /// What was read and is not a whole frame yet.
    rest: BytesMut,
    source: Option<Source>,
}

/// What was written so far, of one source or all.
pub(crate) async fn payload(
    reader: Reader,
    source: Option<LogSource>,
) -> Result<impl Stream<Item = Result<Bytes, std::io::Error>> + Send> {
    let source = source.map(|source| match source {
        LogSource::Stdout => Source::Stdout,
        LogSource::Stderr => Source::Stderr,
        LogSource::Grid => Source::Platform,
    });
    let attempts = reader.standing().await?.attempts;
    let state = State {
        reader,
        cursor: Cursor::START,
        attempts,
        rest: BytesMut::new(),
        source,
    };
    Ok(futures::stream::try_unfold(state, |mut state| async move {
        match state.next().await {
            Ok(piece) => Ok(piece.map(|piece| (piece, state))),
            Err(error) => {
                let failure = Failure::from(error);
                Err(std::io::Error::other(failure.body().error.message))
            }
        }
    }))
}

impl State {
    async fn next(&mut self) -> grid_engine::Result<Option<Bytes>> {
        loop {
            let (bytes, next) = self.reader.frames(self.cursor, READ_BYTES).await?;
            if bytes.is_empty() {
                if self.cursor.attempt >= self.attempts {
                    return Ok(None);
                }
                self.rest.clear();
                self.cursor = Cursor {
                    attempt: self.cursor.attempt + 1,
                    at: 0,
                };
                continue;
            }
            self.cursor = next;
            self.rest.extend_from_slice(&bytes);
            let out = take(&mut self.rest, self.source);
            if !out.is_empty() {
                return Ok(Some(out));
            }
        }
    }
}

/// Takes the whole frames off `bytes` and returns what is in them.
fn take(bytes: &mut BytesMut, source: Option<Source>) -> Bytes {
    let mut out = BytesMut::with_capacity(bytes.len());
    loop {
        match decode(bytes) {
            Ok((header, payload, _)) => {
                if source.is_none_or(|source| source == header.source) {
                    out.extend_from_slice(payload);
                }
                let whole = HEADER_BYTES + payload.len();
                bytes.advance(whole);
            }
            Err(DecodeError::Incomplete) => return out.freeze(),
            // The next header is somewhere behind.
            Err(DecodeError::Damaged) => bytes.advance(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use grid_core::logframe::encode;

    #[test]
    fn payload_comes_out_however_it_is_cut() {
        let mut log = Vec::new();
        encode(&mut log, 1, Source::Stdout, b"one\r");
        encode(&mut log, 2, Source::Stderr, b"two");
        encode(&mut log, 3, Source::Stdout, b"three\n");
        for cut in 0..=log.len() {
            let mut rest = BytesMut::new();
            let mut out = Vec::new();
            for piece in [&log[..cut], &log[cut..]] {
                rest.extend_from_slice(piece);
                out.extend_from_slice(&take(&mut rest, Some(Source::Stdout)));
            }
            assert_eq!(out, b"one\rthree\n", "cut at {cut}");
        }
    }

    #[test]
    fn damage_costs_what_is_damaged() {
        let mut log = b"garbage that is longer than a header".to_vec();
        encode(&mut log, 1, Source::Stdout, b"fine");
        assert_eq!(&take(&mut log.as_slice().into(), None)[..], b"fine");
    }
}
