//! Reading a spool, while the keeper writes it or long after.
//!
//! What a task wrote is one string of bytes, both streams in the order in which
//! they were taken; a position in it is a number of bytes.  Reading from the same
//! position gives the same bytes again, in pieces that know their stream and time,
//! until they are discarded.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use super::protocol::Exit;
pub use super::spool::Stream;
use super::spool::{self, INDEX_FILE, RECORD_BYTES, Record};

/// Records read from the index at a time.
const RECORDS_PER_READ: usize = 128;

/// Holes begin and end at multiples of this, in bytes: the size of a page.
const HOLE_BYTES: u64 = 4096;

/// Why a spool cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read the spool {path}")]
    Io { path: PathBuf, source: io::Error },
    #[error("position {position} of the spool {path} was discarded; it begins at {first}")]
    Discarded {
        path: PathBuf,
        position: u64,
        first: u64,
    },
    #[error("position {position} of the spool {path} does not exist; it ends at {end}")]
    Beyond {
        path: PathBuf,
        position: u64,
        end: u64,
    },
}

/// Bytes that were taken from one stream in one go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub stream: Stream,
    /// When they were taken, in milliseconds since 1970.
    pub at_ms: i64,
    pub bytes: Vec<u8>,
}

/// What there is from a position on, up to what was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    pub frames: Vec<Frame>,
    /// Where to read on.
    pub next: u64,
    /// How the task ended: there when nothing comes after `next`, ever.
    pub end: Option<Exit>,
}

/// Reads one spool.
pub struct SpoolReader {
    folder: PathBuf,
    index: Option<File>,
    files: [Option<File>; 2],
    exit: Option<Exit>,
    /// The record in which the last read ended: the next one begins there.
    hint: u64,
}

impl SpoolReader {
    /// Opens the spool in a folder.  It may be empty still.
    pub fn open(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            index: None,
            files: [None, None],
            exit: None,
            hint: 0,
        }
    }

    /// How the task ended; `None` while its spool may grow.
    pub fn exit(&mut self) -> Result<Option<Exit>, Error> {
        if self.exit.is_none() {
            self.exit = spool::read_exit(&self.folder).map_err(|source| self.error(source))?;
        }
        Ok(self.exit.clone())
    }

    /// The position after the last byte that there is now.
    pub fn end_position(&mut self) -> Result<u64, Error> {
        let found = self.records().and_then(|count| self.end_of(count));
        found.map_err(|source| self.error(source))
    }

    /// Reads on from a position, at most `max_bytes` (but at least one byte, if there is one).
    pub fn read_from(&mut self, position: u64, max_bytes: usize) -> Result<Batch, Error> {
        // First the end, then the index: in this order an end is never seen too early.
        let exit = self.exit()?;
        let count = self.records().map_err(|source| self.error(source))?;
        let Some(first) = self.find(position, count)? else {
            return Ok(Batch {
                frames: Vec::new(),
                next: position,
                end: exit,
            });
        };
        let mut batch = Batch {
            frames: Vec::new(),
            next: position,
            end: None,
        };
        let mut left = max_bytes.max(1) as u64;
        let mut number = first;
        while number < count && left > 0 {
            let records = self
                .load(number, count)
                .map_err(|source| self.error(source))?;
            for record in records {
                let skip = batch.next - record.position;
                let length = (u64::from(record.length) - skip).min(left);
                let frame = self
                    .frame(&record, skip, length)
                    .map_err(|source| self.error(source))?;
                batch.frames.push(frame);
                batch.next += length;
                left -= length;
                if batch.next < record.end() || left == 0 {
                    break;
                }
                number += 1;
            }
        }
        self.hint = number;
        if let Some(exit) = exit
            && batch.next == self.end_of(count).map_err(|source| self.error(source))?
        {
            batch.end = Some(exit);
        }
        Ok(batch)
    }

    /// Gives the disk back what lies before a position; it can not be read again.
    /// Does nothing on file systems that cannot.
    pub fn discard_until(&mut self, position: u64) -> Result<(), Error> {
        let result = self.try_discard(position);
        match result {
            Ok(()) => Ok(()),
            Err(source) => Err(self.error(source)),
        }
    }

    fn try_discard(&mut self, position: u64) -> io::Result<()> {
        let count = self.records()?;
        // The last record always stays: it tells where the spool ends.
        let Some(last) = count.checked_sub(1) else {
            return Ok(());
        };
        let number = self.search(position, count)?.min(last);
        let Some(record) = self.record(number)? else {
            return Ok(());
        };
        let inside = position.clamp(record.position, record.end()) - record.position;
        let mut ends = [0; 2];
        for stream in Stream::ALL {
            // All that comes before a piece and is not of its stream is of the other.
            let end = if stream == record.stream {
                record.offset + inside
            } else {
                record.position - record.offset
            };
            ends[stream.number()] = end;
        }
        for stream in Stream::ALL {
            punch(&self.folder.join(stream.file_name()), ends[stream.number()])?;
        }
        punch(&self.folder.join(INDEX_FILE), number * RECORD_BYTES as u64)
    }

    fn error(&self, source: io::Error) -> Error {
        Error::Io {
            path: self.folder.clone(),
            source,
        }
    }

    /// How many whole records the index has.  One that is being written, or was
    /// when the keeper was killed, does not count.
    fn records(&mut self) -> io::Result<u64> {
        if self.index.is_none() {
            self.index = match File::open(self.folder.join(INDEX_FILE)) {
                Ok(file) => Some(file),
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(0),
                Err(error) => return Err(error),
            };
        }
        let Some(index) = &self.index else {
            return Ok(0);
        };
        let mut count = index.metadata()?.len() / RECORD_BYTES as u64;
        while count > 0 && self.record(count - 1)?.is_none() {
            count -= 1;
        }
        Ok(count)
    }

    fn record(&self, number: u64) -> io::Result<Option<Record>> {
        let Some(index) = &self.index else {
            return Ok(None);
        };
        let mut bytes = [0; RECORD_BYTES];
        index.read_exact_at(&mut bytes, number * RECORD_BYTES as u64)?;
        Ok(Record::decode(&bytes))
    }

    /// Records from a number on; never none.
    fn load(&self, number: u64, count: u64) -> io::Result<Vec<Record>> {
        let wanted = usize::try_from(count - number)
            .unwrap_or(usize::MAX)
            .min(RECORDS_PER_READ);
        let mut bytes = vec![0; wanted * RECORD_BYTES];
        if let Some(index) = &self.index {
            index.read_exact_at(&mut bytes, number * RECORD_BYTES as u64)?;
        }
        let records: Vec<Record> = bytes
            .chunks_exact(RECORD_BYTES)
            .map_while(Record::decode)
            .collect();
        if records.is_empty() {
            return Err(io::Error::new(
                ErrorKind::InvalidData,
                format!("record {number} of its index is damaged"),
            ));
        }
        Ok(records)
    }

    fn end_of(&self, count: u64) -> io::Result<u64> {
        let Some(last) = count.checked_sub(1) else {
            return Ok(0);
        };
        Ok(self.record(last)?.map_or(0, |record| record.end()))
    }

    /// The record that holds a position; `None` for the position after the last.
    fn find(&self, position: u64, count: u64) -> Result<Option<u64>, Error> {
        let io_error = |source| self.error(source);
        let end = self.end_of(count).map_err(io_error)?;
        if position == end {
            return Ok(None);
        }
        if position > end {
            return Err(Error::Beyond {
                path: self.folder.clone(),
                position,
                end,
            });
        }
        let number = self.search(position, count).map_err(io_error)?;
        match self.record(number).map_err(io_error)? {
            Some(record) if record.position <= position => Ok(Some(number)),
            Some(record) => Err(Error::Discarded {
                path: self.folder.clone(),
                position,
                first: record.position,
            }),
            None => Err(Error::Discarded {
                path: self.folder.clone(),
                position,
                first: end,
            }),
        }
    }

    /// The first record that ends after a position.  What is no record was
    /// discarded, and comes before all others.
    fn search(&self, position: u64, count: u64) -> io::Result<u64> {
        let is_before = |number: u64| -> io::Result<bool> {
            Ok(self
                .record(number)?
                .is_none_or(|record| record.end() <= position))
        };
        let hint = self.hint;
        if hint < count && !is_before(hint)? && (hint == 0 || is_before(hint - 1)?) {
            return Ok(hint);
        }
        let (mut low, mut high) = (0, count);
        while low < high {
            let middle = low + (high - low) / 2;
            if is_before(middle)? {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    fn frame(&mut self, record: &Record, skip: u64, length: u64) -> io::Result<Frame> {
        let slot = &mut self.files[record.stream.number()];
        let file = match slot {
            Some(file) => file,
            None => slot.insert(File::open(self.folder.join(record.stream.file_name()))?),
        };
        let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        file.read_exact_at(&mut bytes, record.offset + skip)?;
        Ok(Frame {
            stream: record.stream,
            at_ms: record.at_ms,
            bytes,
        })
    }
}

/// Makes a hole from the beginning of a file up to the last whole page before `end`.
fn punch(path: &Path, end: u64) -> io::Result<()> {
    let length = end / HOLE_BYTES * HOLE_BYTES;
    if length == 0 {
        return Ok(());
    }
    let file = match File::options().write(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    match fallocate(
        &file,
        FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
        0,
        length,
    ) {
        Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::protocol::{Ending, Usage};
    use super::super::spool::{Spool, repair};
    use super::*;

    fn write(folder: &Path, pieces: &[(Stream, &[u8])]) -> Spool {
        let mut spool = Spool::new(folder.to_owned());
        for (stream, bytes) in pieces {
            let (read, write) = rustix::pipe::pipe().unwrap();
            assert_eq!(rustix::io::write(&write, bytes).unwrap(), bytes.len());
            let moved = spool.take(*stream, &read);
            assert!(
                matches!(moved, spool::Moved::Bytes(count) if count == bytes.len()),
                "{moved:?}"
            );
        }
        spool
    }

    fn lost() -> Exit {
        Exit {
            how: Ending::Lost,
            started_at_ms: 1,
            ended_at_ms: 2,
            usage: Usage::default(),
        }
    }

    fn text(batch: &Batch) -> String {
        let piece = |frame: &Frame| {
            format!(
                "{:?}:{} ",
                frame.stream,
                String::from_utf8_lossy(&frame.bytes)
            )
        };
        batch.frames.iter().map(piece).collect()
    }

    #[test]
    fn any_position_and_size_gives_the_same_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let (out, err) = (Stream::Stdout, Stream::Stderr);
        let mut spool = write(
            folder.path(),
            &[(out, b"hello "), (err, b"oh"), (out, b"world"), (err, b"!")],
        );
        let mut reader = SpoolReader::open(folder.path());
        let all = reader.read_from(0, 1000).unwrap();
        assert_eq!(text(&all), "Stdout:hello  Stderr:oh Stdout:world Stderr:! ");
        assert_eq!((all.next, all.end.clone()), (14, None));
        assert_eq!(
            text(&reader.read_from(3, 4).unwrap()),
            "Stdout:lo  Stderr:o "
        );
        spool.finish(&lost()).unwrap();
        for size in 1..16 {
            let (mut position, mut bytes) = (0, Vec::new());
            loop {
                let batch = reader.read_from(position, size).unwrap();
                bytes.extend(batch.frames.iter().flat_map(|frame| frame.bytes.clone()));
                position = batch.next;
                if batch.end.is_some() {
                    break;
                }
            }
            assert_eq!(bytes, b"hello ohworld!", "{size}");
        }
        assert!(matches!(
            reader.read_from(15, 1),
            Err(Error::Beyond { end: 14, .. })
        ));
    }

    #[test]
    fn an_empty_spool_is_not_there_until_it_ends() {
        let folder = tempfile::tempdir().unwrap();
        let mut reader = SpoolReader::open(folder.path());
        assert_eq!(
            reader.read_from(0, 10).unwrap(),
            Batch {
                frames: Vec::new(),
                next: 0,
                end: None
            }
        );
        Spool::new(folder.path().to_owned())
            .finish(&lost())
            .unwrap();
        assert_eq!(reader.read_from(0, 10).unwrap().end, Some(lost()));
    }

    #[test]
    fn what_was_moved_but_not_noted_is_found_by_repair() {
        let folder = tempfile::tempdir().unwrap();
        write(
            folder.path(),
            &[(Stream::Stdout, b"noted"), (Stream::Stderr, b"too")],
        );
        let index = folder.path().join(INDEX_FILE);
        let mut torn = fs::read(&index).unwrap();
        torn.extend_from_slice(&[7; 20]);
        fs::write(&index, torn).unwrap();
        fs::write(folder.path().join("out"), b"notedand this").unwrap();
        let mut reader = SpoolReader::open(folder.path());
        assert_eq!(reader.read_from(0, 100).unwrap().next, 8);

        repair(folder.path()).unwrap().finish(&lost()).unwrap();
        let batch = reader.read_from(0, 100).unwrap();
        assert_eq!(text(&batch), "Stdout:noted Stderr:too Stdout:and this ");
        assert_eq!(batch.end, Some(lost()));
    }

    #[test]
    fn discarded_bytes_are_gone_from_the_disk_and_the_rest_is_not() {
        use std::os::unix::fs::MetadataExt;
        let folder = tempfile::tempdir().unwrap();
        let page = vec![b'x'; 60_000];
        let pieces: Vec<(Stream, &[u8])> = (0..400)
            .map(|number| (Stream::ALL[number % 2], &page[..60_000]))
            .collect();
        let mut spool = write(folder.path(), &pieces);
        let blocks = |name: &str| fs::metadata(folder.path().join(name)).unwrap().blocks();
        let before = blocks("out") + blocks("err");
        let mut reader = SpoolReader::open(folder.path());
        let position = 300 * 60_000 + 1_234;
        reader.discard_until(position).unwrap();
        assert!(blocks("out") + blocks("err") < before / 3, "{before}");
        assert!(matches!(
            reader.read_from(5, 10),
            Err(Error::Discarded { .. })
        ));
        for mut reader in [reader, SpoolReader::open(folder.path())] {
            let batch = reader.read_from(position, usize::MAX).unwrap();
            assert_eq!(batch.next, 400 * 60_000);
            let bytes: Vec<u8> = batch
                .frames
                .into_iter()
                .flat_map(|frame| frame.bytes)
                .collect();
            assert!(bytes.iter().all(|byte| *byte == b'x') && bytes.len() == 100 * 60_000 - 1_234);
        }
        spool.finish(&lost()).unwrap();
        let mut reader = SpoolReader::open(folder.path());
        reader.discard_until(400 * 60_000).unwrap();
        assert_eq!(
            reader.read_from(400 * 60_000, 10).unwrap().end,
            Some(lost())
        );
        assert_eq!(repair(folder.path()).unwrap().total_bytes(), 400 * 60_000);
    }
}
