//! One log of an attempt as a string of frames.
//!
//! The frames are a function of what is on disk: the spools of the attempt's
//! processes, one after the other, and the platform's own messages, each at a
//! noted place between them.  So the same frames are made again after a restart,
//! and the server's length says where to go on.
//!
//! A frame ends where the keeper took a piece, where a message stands, and at every
//! multiple of [`PAYLOAD_BYTES_MAX`] of the position; not where a read ended.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use grid_core::logframe::{self, PAYLOAD_BYTES_MAX, Source};
use serde::{Deserialize, Serialize};

use crate::keeper::reader::{self, SpoolReader, Stream};

/// What is read from a spool at a time, in multiples of [`PAYLOAD_BYTES_MAX`].
/// Higher: more memory per busy log; lower: more reads.
const READ_PAYLOADS: u64 = 16;

/// Most messages of the platform in one log.  Higher: a fault that repeats fills
/// the disk; lower: the one that explains things is missing.
const MESSAGES_MAX: usize = 1_000;

/// Why the frames could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot read what the process wrote")]
    Spool(#[source] reader::Error),
    #[error("cannot use {path}")]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// A place in the sources of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub(crate) struct Place {
    /// Which spool.
    segment: usize,
    /// Bytes of it before this place.
    position: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Message {
    place: Place,
    at_ms: i64,
    text: String,
}

/// Where the making of frames stands; enough to go on from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Mark {
    /// Bytes of frames before this mark.
    pub(crate) offset: u64,
    place: Place,
    /// Messages before this mark.
    messages: usize,
}

/// Makes the frames of one log.
pub(crate) struct Framer {
    spools: Vec<PathBuf>,
    /// The reader of the present spool.
    reader: Option<SpoolReader>,
    messages: Vec<Message>,
    /// The file of messages; made when there is one.
    path: PathBuf,
    mark: Mark,
}

impl Framer {
    /// A log of an attempt that is new: nothing is on disk.
    pub(crate) fn new(spools: Vec<PathBuf>, messages: PathBuf) -> Self {
        Self {
            spools,
            reader: None,
            messages: Vec::new(),
            path: messages,
            mark: Mark::default(),
        }
    }

    /// A log of which parts may be on disk, from `mark` on.
    pub(crate) fn reopen(spools: Vec<PathBuf>, messages: PathBuf, mark: Mark) -> Self {
        let text = fs::read(&messages).unwrap_or_default();
        // The last line may be torn; what it said was never sent.
        let known = text
            .split(|byte| *byte == b'\n')
            .map_while(|line| serde_json::from_slice(line).ok());
        Self {
            spools,
            reader: None,
            messages: known.collect(),
            path: messages,
            mark,
        }
    }

    pub(crate) fn mark(&self) -> Mark {
        self.mark
    }

    /// Goes back to a mark.
    pub(crate) fn rewind(&mut self, mark: Mark) {
        self.mark = mark;
        self.reader = None;
    }

    /// From now on every offset is smaller by `lost`: the server's log is shorter.
    pub(crate) fn rebase(&mut self, lost: u64) {
        self.mark.offset = self.mark.offset.saturating_sub(lost);
    }

    /// The frames up to `mark` are stored: gives their disk space back.
    pub(crate) fn discard(&mut self, mark: &Mark) -> Result<(), Error> {
        let Some(spool) = self.spools.get(mark.place.segment) else {
            return Ok(());
        };
        SpoolReader::open(spool)
            .discard_until(mark.place.position)
            .map_err(Error::Spool)
    }

    /// Puts a line of the platform where the log stands now.
    pub(crate) fn say(&mut self, at_ms: i64, text: &str) -> Result<(), Error> {
        self.say_from(self.mark.place, at_ms, text)
    }

    /// Puts a line of the platform after the first process's last byte.
    pub(crate) fn say_at_end(&mut self, at_ms: i64, text: &str) -> Result<(), Error> {
        let end = match self.spools.first() {
            Some(spool) => SpoolReader::open(spool)
                .end_position()
                .map_err(Error::Spool)?,
            None => 0,
        };
        self.say_from(
            self.mark.place.max(Place {
                segment: 0,
                position: end,
            }),
            at_ms,
            text,
        )
    }

    fn say_from(&mut self, place: Place, at_ms: i64, text: &str) -> Result<(), Error> {
        if self.messages.len() >= MESSAGES_MAX {
            return Ok(());
        }
        // Messages stand in the order in which they were said.
        let place = self
            .messages
            .last()
            .map_or(place, |last| last.place.max(place));
        let message = Message {
            place,
            at_ms,
            text: format!("{text}\n"),
        };
        let failed = |source| Error::File {
            path: self.path.clone(),
            source,
        };
        let mut line = serde_json::to_vec(&message)
            .map_err(io::Error::other)
            .map_err(failed)?;
        line.push(b'\n');
        let file = File::options().create(true).append(true).open(&self.path);
        file.and_then(|mut file| file.write_all(&line))
            .map_err(failed)?;
        self.messages.push(message);
        Ok(())
    }

    /// Appends frames to `out`, about `bytes` of them if there are so many.
    pub(crate) fn pull(&mut self, out: &mut Vec<u8>, bytes: usize) -> Result<(), Error> {
        let begin = out.len();
        while out.len() - begin < bytes {
            self.pull_messages(out);
            let Some(spool) = self.spools.get(self.mark.place.segment) else {
                return Ok(());
            };
            let reader = self.reader.get_or_insert_with(|| SpoolReader::open(spool));
            let wanted = wanted(self.mark.place, self.messages.get(self.mark.messages));
            let batch = reader
                .read_from(self.mark.place.position, wanted)
                .map_err(Error::Spool)?;
            let before = out.len();
            let mut position = self.mark.place.position;
            for frame in &batch.frames {
                let source = match frame.stream {
                    Stream::Stdout => Source::Stdout,
                    Stream::Stderr => Source::Stderr,
                };
                position = encode(out, position, frame.at_ms, source, &frame.bytes);
            }
            self.mark.place.position = position;
            self.mark.offset += (out.len() - before) as u64;
            if batch.end.is_some() {
                self.pull_messages(out);
                self.mark.place = Place {
                    segment: self.mark.place.segment + 1,
                    position: 0,
                };
                self.reader = None;
            } else if batch.frames.is_empty() {
                return Ok(());
            }
        }
        Ok(())
    }

    fn pull_messages(&mut self, out: &mut Vec<u8>) {
        while let Some(message) = self.messages.get(self.mark.messages)
            && message.place <= self.mark.place
        {
            let before = out.len();
            logframe::encode(
                out,
                message.at_ms,
                Source::Platform,
                message.text.as_bytes(),
            );
            self.mark.offset += (out.len() - before) as u64;
            self.mark.messages += 1;
        }
    }
}

/// How many bytes to read so that the read ends where a frame may end.
fn wanted(place: Place, next: Option<&Message>) -> usize {
    const UNIT: u64 = PAYLOAD_BYTES_MAX as u64;
    let mut end = (place.position / UNIT + READ_PAYLOADS) * UNIT;
    if let Some(message) = next
        && message.place.segment == place.segment
    {
        end = end.min(message.place.position);
    }
    usize::try_from(end - place.position).unwrap_or(PAYLOAD_BYTES_MAX)
}

/// Encodes a piece that begins at `position`; gives the position after it.
fn encode(
    out: &mut Vec<u8>,
    mut position: u64,
    at_ms: i64,
    source: Source,
    mut bytes: &[u8],
) -> u64 {
    while !bytes.is_empty() {
        let in_unit = usize::try_from(position % PAYLOAD_BYTES_MAX as u64).unwrap_or(0);
        let (part, rest) = bytes.split_at(bytes.len().min(PAYLOAD_BYTES_MAX - in_unit));
        logframe::encode(out, at_ms, source, part);
        position += part.len() as u64;
        bytes = rest;
    }
    position
}

/// Reads the mark that was written last; the beginning when there is none.
pub(crate) fn read_mark(path: &Path) -> Mark {
    fs::read(path)
        .ok()
        .and_then(|text| serde_json::from_slice(&text).ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::keeper::testing::write_spool;

    /// Everything, pulled in portions of these sizes.
    fn all(spools: &[PathBuf], messages: &Path, sizes: &[usize]) -> Vec<u8> {
        let mut framer = Framer::reopen(spools.to_vec(), messages.to_owned(), Mark::default());
        let mut out = Vec::new();
        for size in sizes.iter().cycle() {
            let before = framer.mark();
            framer.pull(&mut out, *size).expect("it reads");
            if framer.mark() == before {
                break;
            }
        }
        out
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        /// Whatever the portions, and whenever a line of the platform was said, the frames
        /// are the same when they are made again, from the beginning or from any mark.
        #[test]
        fn frames_are_made_again_as_they_were(
            first in prop::collection::vec((any::<bool>(), 1..150_000_usize), 0..6),
            second in prop::collection::vec((any::<bool>(), 1..200_usize), 0..4),
            portions in prop::collection::vec(1..300_000_usize, 1..5),
            others in prop::collection::vec(1..300_000_usize, 1..5),
            said_after in prop::collection::vec(0..4_usize, 0..3),
        ) {
            let dir = tempfile::tempdir().expect("a folder");
            let spools = [dir.path().join("a"), dir.path().join("b")];
            for (spool, pieces) in spools.iter().zip([&first, &second]) {
                write_spool(spool, pieces);
            }
            let messages = dir.path().join("messages");
            let mut framer = Framer::new(spools.to_vec(), messages.clone());
            let mut out = Vec::new();
            let mut marks = Vec::new();
            for (turn, portion) in portions.iter().cycle().enumerate() {
                if said_after.contains(&turn) {
                    framer.say(7, "between").expect("written");
                }
                let before = framer.mark();
                framer.pull(&mut out, *portion).expect("it reads");
                prop_assert_eq!(framer.mark().offset, out.len() as u64);
                marks.push(framer.mark());
                if framer.mark() == before {
                    break;
                }
            }
            framer.say_at_end(9, "last").expect("written");
            framer.pull(&mut out, 1).expect("it reads");
            prop_assert_eq!(&all(&spools, &messages, &others), &out);
            for mark in marks {
                let mut framer = Framer::reopen(spools.to_vec(), messages.clone(), mark);
                let mut rest = Vec::new();
                framer.pull(&mut rest, usize::MAX).expect("it reads");
                prop_assert_eq!(rest.as_slice(), &out[usize::try_from(mark.offset).expect("small")..]);
            }
        }
    }
}
