//! Lines out of a log: pages forwards and backwards, and a reader that keeps its
//! place for followers.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;

use grid_core::logframe::{HEADER_BYTES, Source};

use super::log::Log;
use super::scan::{Checkpoint, Line, Scanner, Sink, index};
use super::segment::SegmentReader;
use super::{LogError, blocking};

/// Size of the pieces in which lines are read.
/// Higher: a reader of few lines assembles more than it returns.
/// Lower: more system calls for a long page.
const READ_BYTES: usize = 64 * 1024;

/// One line of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// Where in the log its first byte is.
    pub offset: u64,
    /// The cursor behind it: reading from here begins with the next line.
    pub end: u64,
    /// How many lines ended before this one.
    pub number: u64,
    /// When its first byte was written, in milliseconds since 1970.
    pub at_ms: i64,
    /// Where it came from.
    pub source: Source,
    /// What a terminal would show of it: after the last carriage return, without
    /// the line end.  Bytes that are not UTF-8 are replaced.
    pub text: String,
    /// It has not ended yet and may still change.
    pub partial: bool,
}

/// How much of a log to return, and what of its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineLimits {
    /// At most so many lines.
    pub lines: usize,
    /// At most so many bytes of text, but always one line if there is one.
    pub bytes: usize,
    /// At the end of the log, also the lines that have not ended.
    pub partial: bool,
}

/// Lines of a log, in the order in which they ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinePage {
    /// The lines.
    pub lines: Vec<LogLine>,
    /// The cursor behind the last of them that has ended.
    pub next: u64,
    /// Nothing is behind them now.
    pub at_end: bool,
}

/// Reads the lines of a log one page after another, as the log grows.
pub struct LineReader {
    log: Arc<Log>,
    next: u64,
    /// Where reading stands.  Absent at first, and after a call was dropped midway:
    /// then it is found anew from `next`.
    place: Option<Box<Place>>,
}

impl LineReader {
    pub(super) fn new(log: Arc<Log>, from: u64) -> Self {
        Self {
            log,
            next: from,
            place: None,
        }
    }

    /// The cursor behind the last line that was returned.
    pub fn cursor(&self) -> u64 {
        self.next
    }

    /// The next lines; none when there are no more now.  Unfinished lines, if asked
    /// for, come again with each call, until they are finished.
    pub async fn next(&mut self, limits: LineLimits) -> Result<LinePage, LogError> {
        let log = Arc::clone(&self.log);
        let place = self.place.take();
        let from = self.next;
        let (place, page) = blocking(move || {
            let mut place = match place {
                Some(place) => place,
                None => Box::new(Place::at_cursor(&log, from)?),
            };
            let page = place.page(&log, from, limits)?;
            Ok((place, page))
        })
        .await?;
        self.place = Some(place);
        self.next = page.next;
        Ok(page)
    }
}

/// The last lines that ended at `until` or before, oldest first.
pub(super) fn last(
    log: &Arc<Log>,
    until: Option<u64>,
    limits: LineLimits,
) -> Result<LinePage, LogError> {
    let (progress, total) = log.count()?;
    let (until, total) = match until {
        Some(until) if until < progress.len => (until, lines_until(log, until)?),
        _ => (u64::MAX, total),
    };
    let first = total.saturating_sub(limits.lines.max(1) as u64);
    let checkpoint = log.checkpoint(|checkpoint| checkpoint.lines <= first)?;
    let mut place = Place::new(log, &checkpoint, move |line| line.number >= first);
    let mut found = VecDeque::new();
    let mut bytes = 0;
    let stop = progress.len.min(until.saturating_add(HEADER_BYTES as u64));
    loop {
        let more = place.read(log, stop)?;
        for line in place.found.ready.drain(..).filter(|line| line.end <= until) {
            bytes += line.text.len();
            found.push_back(line);
            while found.len() > limits.lines.max(1) || (bytes > limits.bytes && found.len() > 1) {
                bytes -= found.pop_front().map_or(0, |line: LogLine| line.text.len());
            }
        }
        if !more {
            break;
        }
    }
    let next = found.back().map_or(0, |line| line.end);
    let mut lines = Vec::from(found);
    if limits.lines == 0 {
        lines.clear();
    }
    let at_end = until == u64::MAX;
    if at_end && limits.partial {
        place.unfinished(&mut lines);
    }
    Ok(LinePage {
        lines,
        next,
        at_end,
    })
}

/// How many lines ended at `until` or before.
fn lines_until(log: &Arc<Log>, until: u64) -> Result<u64, LogError> {
    let checkpoint = log.checkpoint(|checkpoint| checkpoint.offset <= until)?;
    let mut place = Place::new(log, &checkpoint, |_| true);
    let mut lines = checkpoint.lines;
    // What happens at a frame's boundary is known only behind the frame's header.
    let stop = log.progress()?.len.min(until + HEADER_BYTES as u64);
    loop {
        let more = place.read(log, stop)?;
        let before = place.found.ready.drain(..).filter(|line| line.end <= until);
        lines += before.count() as u64;
        if !more {
            return Ok(lines);
        }
    }
}

/// A place in a log, with the lines that are open there.
struct Place {
    reader: SegmentReader,
    scanner: Scanner,
    found: Found,
    buffer: Vec<u8>,
}

impl Place {
    fn new(
        log: &Log,
        checkpoint: &Checkpoint,
        wanted: impl Fn(&Line) -> bool + Send + 'static,
    ) -> Self {
        Self {
            reader: SegmentReader::new(log.segments().clone()),
            scanner: Scanner::resume(checkpoint),
            found: Found {
                wanted: Box::new(wanted),
                text: Default::default(),
                ready: VecDeque::new(),
            },
            buffer: vec![0; READ_BYTES],
        }
    }

    fn at_cursor(log: &Log, from: u64) -> Result<Self, LogError> {
        let checkpoint = log.checkpoint(|checkpoint| checkpoint.offset <= from)?;
        Ok(Self::new(log, &checkpoint, move |line| line.end > from))
    }

    /// Takes the next piece of the log, up to `stop`; says whether there is more.
    fn read(&mut self, log: &Log, stop: u64) -> Result<bool, LogError> {
        let at = self.scanner.position();
        let want = usize::try_from(stop.saturating_sub(at)).unwrap_or(READ_BYTES);
        let want = want.min(READ_BYTES);
        let read = self
            .reader
            .read_at(at, &mut self.buffer[..want])
            .map_err(log.error("read"))?;
        self.scanner.feed(&self.buffer[..read], &mut self.found);
        Ok(read > 0 && at + (read as u64) < stop)
    }

    fn page(&mut self, log: &Log, from: u64, limits: LineLimits) -> Result<LinePage, LogError> {
        let len = log.progress()?.len;
        let mut page = LinePage {
            lines: Vec::new(),
            next: from,
            at_end: false,
        };
        let mut bytes = 0;
        let mut more = true;
        loop {
            while let Some(line) = self.found.ready.front() {
                bytes += line.text.len();
                let full = page.lines.len() >= limits.lines
                    || (bytes > limits.bytes && !page.lines.is_empty());
                if full {
                    return Ok(page);
                }
                page.next = line.end;
                page.lines.extend(self.found.ready.pop_front());
            }
            if !more {
                break;
            }
            more = self.read(log, len)?;
        }
        page.at_end = true;
        if limits.partial {
            self.unfinished(&mut page.lines);
        }
        Ok(page)
    }

    fn unfinished(&self, lines: &mut Vec<LogLine>) {
        for source in Source::ALL {
            let text = &self.found.text[index(source)];
            let Some(open) = self.scanner.open(source) else {
                continue;
            };
            if !text.is_empty() {
                lines.push(LogLine {
                    offset: open.start,
                    end: open.start,
                    number: self.scanner.lines(),
                    at_ms: open.at_ms,
                    source,
                    text: String::from_utf8_lossy(text).into_owned(),
                    partial: true,
                });
            }
        }
    }
}

/// The sink that assembles text.
struct Found {
    wanted: Box<dyn Fn(&Line) -> bool + Send>,
    text: [Vec<u8>; Source::ALL.len()],
    ready: VecDeque<LogLine>,
}

impl Found {
    fn push(&mut self, line: Line, text: impl FnOnce() -> String) {
        if (self.wanted)(&line) {
            self.ready.push_back(LogLine {
                offset: line.start,
                end: line.end,
                number: line.number,
                at_ms: line.at_ms,
                source: line.source,
                text: text(),
                partial: false,
            });
        }
    }
}

impl Sink for Found {
    fn text(&mut self, source: Source, bytes: &[u8]) {
        self.text[index(source)].extend_from_slice(bytes);
    }

    fn rewind(&mut self, source: Source) {
        self.text[index(source)].clear();
    }

    fn line(&mut self, line: Line) {
        let mut bytes = mem::take(&mut self.text[index(line.source)]);
        self.push(line, || String::from_utf8_lossy(&bytes).into_owned());
        bytes.clear();
        self.text[index(line.source)] = bytes;
    }

    fn damage(&mut self, line: Line, skipped_bytes: u64) {
        self.push(line, || {
            format!("[{skipped_bytes} bytes of this log are damaged and left out]")
        });
    }

    fn boundary(&mut self, _: &Scanner) {}
}
