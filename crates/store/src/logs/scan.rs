//! Finds frames and lines in a stream of log bytes, one piece at a time.
//!
//! The scanner holds no text: it says where lines begin and end, and hands the
//! bytes on to a [`Sink`].  The index counts lines with it and readers assemble
//! them, so that both always agree.  Its state at any byte depends on nothing but
//! the bytes before.
//!
//! The rules of lines, per source:
//! - `\n` ends a line, and a `\r` right before it is not part of it.
//! - Any other `\r` rewinds: the line is what comes after the last one.
//! - A line longer than [`LINE_BYTES_MAX`] is split, but not inside a character.
//! - A line still open after [`LINE_SPAN_BYTES_MAX`] of log is split too.
//! - Damaged bytes between frames are skipped and reported as one line.

use grid_core::logframe::{HEADER_BYTES, Header, Source};

/// Longest line in bytes; what is longer comes in pieces.
/// Higher: a process that never ends a line costs every reader more memory.
/// Lower: long lines (JSON, base64) fall apart.
pub const LINE_BYTES_MAX: usize = 64 * 1024;

/// How much log may follow the beginning of a line before it is split, in bytes.
/// It bounds how far back a reader starts to get a line whole.
/// Higher: paging gets slower beside a line that stays open for long.
/// Lower: a slow line (dots on stderr) is cut where a busy stdout runs beside it.
pub const LINE_SPAN_BYTES_MAX: u64 = 1024 * 1024;

/// Longest tail of a UTF-8 character, in bytes.
const CHARACTER_TAIL_BYTES: usize = 3;

/// Hears what a scanner finds.
pub(super) trait Sink {
    /// More text of the open line of a source.
    fn text(&mut self, source: Source, bytes: &[u8]);
    /// The open line of a source begins anew.
    fn rewind(&mut self, source: Source);
    /// The open line of a source is complete.
    fn line(&mut self, line: Line);
    /// Bytes that are no frame were skipped.  They count as a line.
    fn damage(&mut self, line: Line, skipped_bytes: u64);
    /// A frame ended here; the scanner's state can be kept.
    fn boundary(&mut self, scanner: &Scanner);
}

/// A line that has come to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) source: Source,
    /// Where in the log its first byte is.
    pub(super) start: u64,
    /// Where reading goes on after this line.  Rises from line to line, and no two
    /// lines share one: so it serves as a cursor.
    pub(super) end: u64,
    /// When its first byte was written.
    pub(super) at_ms: i64,
    /// How many lines ended before this one.
    pub(super) number: u64,
}

/// A line that has begun and not ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Open {
    /// Where in the log its first byte is.
    pub(super) start: u64,
    /// Where the frame of that byte begins.
    pub(super) frame: u64,
    /// When that byte was written.
    pub(super) at_ms: i64,
    /// Bytes of text so far.
    len: usize,
    /// The last byte was a `\r`: the next one decides what it meant.
    returned: bool,
}

/// Where one piece of a log ended and what is unfinished there.
#[derive(Clone, Debug)]
pub(super) struct Scanner {
    /// The log offset of the next byte.
    position: u64,
    /// Header bytes gathered so far, while between payloads.
    head: [u8; HEADER_BYTES],
    head_len: usize,
    /// The frame whose payload is being read.
    header: Option<Header>,
    frame: u64,
    left: usize,
    /// Bytes skipped since the last good frame.
    skipped: u64,
    lines: u64,
    at_ms: i64,
    open: [Option<Open>; Source::ALL.len()],
    /// Bytes of a source before its offset here belong to lines that have ended.
    from: [u64; Source::ALL.len()],
    /// What was damaged before this offset is counted in `lines` already.
    counted_to: u64,
}

/// The state of a scanner between two frames, as the index keeps it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Checkpoint {
    /// Where the next frame begins.
    pub(super) offset: u64,
    /// How many lines have ended.
    pub(super) lines: u64,
    /// The time of the last frame.
    pub(super) at_ms: i64,
    /// The open lines, by source.
    pub(super) open: [Option<OpenAt>; Source::ALL.len()],
}

/// Where an open line begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OpenAt {
    /// The log offset of its first byte.
    pub(super) start: u64,
    /// Where the frame of that byte begins.
    pub(super) frame: u64,
}

impl Scanner {
    /// A scanner that goes on as the one did whose state `checkpoint` kept.  It
    /// begins with the frames of the lines that were open there, and of these hears
    /// nothing but the open lines.
    pub(super) fn resume(checkpoint: &Checkpoint) -> Self {
        let position = checkpoint.open.iter().flatten().map(|open| open.frame);
        let position = position.fold(checkpoint.offset, u64::min);
        Self {
            position,
            head: [0; HEADER_BYTES],
            head_len: 0,
            header: None,
            frame: position,
            left: 0,
            skipped: 0,
            lines: checkpoint.lines,
            at_ms: checkpoint.at_ms,
            open: [None; Source::ALL.len()],
            from: checkpoint.open.map(|open| match open {
                Some(open) => open.start,
                None => checkpoint.offset,
            }),
            counted_to: checkpoint.offset,
        }
    }

    /// What [`Scanner::resume`] needs to go on from here, which must be a boundary.
    pub(super) fn checkpoint(&self) -> Checkpoint {
        Checkpoint {
            offset: self.position,
            lines: self.lines,
            at_ms: self.at_ms,
            open: self.open.map(|open| {
                open.map(|open| OpenAt {
                    start: open.start,
                    frame: open.frame,
                })
            }),
        }
    }

    /// The log offset of the next byte to feed.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// How many lines have ended.
    pub(super) fn lines(&self) -> u64 {
        self.lines
    }

    /// The line of a source that is not finished.
    pub(super) fn open(&self, source: Source) -> Option<Open> {
        self.open[index(source)]
    }

    /// Takes the next bytes of the log.
    pub(super) fn feed(&mut self, mut bytes: &[u8], sink: &mut impl Sink) {
        while !bytes.is_empty() {
            let taken = match self.header {
                Some(header) => self.feed_payload(header, bytes, sink),
                None => self.feed_head(bytes, sink),
            };
            bytes = bytes.get(taken..).unwrap_or_default();
        }
    }

    fn feed_head(&mut self, bytes: &[u8], sink: &mut impl Sink) -> usize {
        let taken = bytes.len().min(HEADER_BYTES - self.head_len);
        self.head[self.head_len..][..taken].copy_from_slice(&bytes[..taken]);
        self.head_len += taken;
        self.position += taken as u64;
        if self.head_len == HEADER_BYTES {
            match Header::parse(&self.head) {
                Some(header) => self.begin_frame(header, sink),
                None => {
                    self.head.copy_within(1.., 0);
                    self.head_len -= 1;
                    self.skipped += 1;
                }
            }
        }
        taken
    }

    fn begin_frame(&mut self, header: Header, sink: &mut impl Sink) {
        self.frame = self.position - HEADER_BYTES as u64;
        self.head_len = 0;
        self.at_ms = header.at_ms;
        // No text is inside a header, so its first bytes are free to serve as distinct
        // cursors of what happens at this boundary.
        for source in Source::ALL {
            let at = self.frame + u64::from(source.code());
            let over = self.open[index(source)]
                .is_some_and(|open| self.frame - open.frame > LINE_SPAN_BYTES_MAX);
            if over {
                self.end_line(source, at, sink);
            }
        }
        if self.skipped > 0 && self.frame >= self.counted_to {
            let line = Line {
                source: Source::Platform,
                start: self.frame - self.skipped,
                end: self.frame + Source::ALL.len() as u64,
                at_ms: header.at_ms,
                number: self.lines,
            };
            self.lines += 1;
            sink.damage(line, self.skipped);
        }
        self.skipped = 0;
        self.left = header.len as usize;
        self.header = Some(header);
        self.end_frame_if_done(sink);
    }

    fn end_frame_if_done(&mut self, sink: &mut impl Sink) {
        if self.left == 0 {
            self.header = None;
            sink.boundary(self);
        }
    }

    fn feed_payload(&mut self, header: Header, bytes: &[u8], sink: &mut impl Sink) -> usize {
        let taken = bytes.len().min(self.left);
        let mut rest = &bytes[..taken];
        let end = self.position + taken as u64;
        let muted = self.from[index(header.source)].saturating_sub(self.position);
        let muted = usize::try_from(muted).unwrap_or(usize::MAX).min(taken);
        rest = &rest[muted..];
        self.position += muted as u64;
        while !rest.is_empty() {
            let used = self.feed_text(header, rest, sink);
            self.position += used as u64;
            rest = &rest[used..];
        }
        debug_assert_eq!(self.position, end);
        self.left -= taken;
        self.end_frame_if_done(sink);
        taken
    }

    /// Takes text up to and including the next control byte or split.
    fn feed_text(&mut self, header: Header, text: &[u8], sink: &mut impl Sink) -> usize {
        let source = header.source;
        let slot = index(source);
        let fresh = Open {
            start: self.position,
            frame: self.frame,
            at_ms: header.at_ms,
            len: 0,
            returned: false,
        };
        let mut open = self.open[slot].unwrap_or(fresh);
        if open.returned && text[0] != b'\n' && text[0] != b'\r' {
            sink.rewind(source);
            open = fresh;
        }
        let plain = memchr::memchr2(b'\n', b'\r', text).unwrap_or(text.len());
        let room = LINE_BYTES_MAX.saturating_sub(open.len);
        let plain = plain.min(room + character_tail(&text[..plain], room, open.len));
        if plain > 0 {
            sink.text(source, &text[..plain]);
            open.len += plain;
        }
        self.open[slot] = Some(open);
        match text.get(plain) {
            Some(b'\n') => {
                self.end_line(source, self.position + plain as u64 + 1, sink);
                plain + 1
            }
            Some(b'\r') => {
                // On an empty line there is nothing to rewind.
                self.open[slot] = (open.len > 0).then_some(Open {
                    returned: true,
                    ..open
                });
                plain + 1
            }
            // The line is full and this byte begins the next one.  The cursor stands
            // behind it, so that no line ends before it is known to have ended.
            Some(_) => {
                self.end_line(source, self.position + plain as u64 + 1, sink);
                plain
            }
            None => plain,
        }
    }

    fn end_line(&mut self, source: Source, end: u64, sink: &mut impl Sink) {
        let Some(open) = self.open[index(source)].take() else {
            return;
        };
        let line = Line {
            source,
            start: open.start,
            end,
            at_ms: open.at_ms,
            number: self.lines,
        };
        self.lines += 1;
        sink.line(line);
    }
}

pub(super) fn index(source: Source) -> usize {
    usize::from(source.code())
}

/// How many bytes after `room` still belong to the character before it.
fn character_tail(text: &[u8], room: usize, len: usize) -> usize {
    let over = len.saturating_sub(LINE_BYTES_MAX);
    text.get(room..)
        .unwrap_or_default()
        .iter()
        .take(CHARACTER_TAIL_BYTES.saturating_sub(over))
        .take_while(|byte| **byte & 0xC0 == 0x80)
        .count()
}
