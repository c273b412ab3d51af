//! A connected client: requests in, messages out, never waiting for it.

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;

use super::protocol::{Message, REQUEST_BYTES_MAX, Request};

/// Bytes that may wait for a client that does not read.  Beyond it the client is
/// dropped; it connects again and asks for the list.
/// Higher: a hanging client costs memory.  Lower: the list of many tasks does not fit.
const OUTPUT_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Bytes that may wait before announcements of growth are left out.
const OUTPUT_BYTES_BUSY: usize = 256 * 1024;

/// Bytes read from one client before others have their turn.
const TURN_BYTES: usize = 256 * 1024;

pub(crate) struct Conn {
    pub(crate) stream: UnixStream,
    input: Vec<u8>,
    output: Vec<u8>,
    sent: usize,
    /// Whether epoll was told to say when the client can take more.
    pub(crate) watched_for_output: bool,
}

/// The client is gone, or not to be served any longer.
pub(crate) struct Gone;

impl Conn {
    pub(crate) fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream,
            input: Vec::new(),
            output: Vec::new(),
            sent: 0,
            watched_for_output: false,
        })
    }

    /// Reads what is there.  A line that is no request gives its error.
    pub(crate) fn requests(&mut self) -> Result<Vec<Result<Request, String>>, Gone> {
        let mut buffer = [0; 16 * 1024];
        let mut read = 0;
        let mut gone = false;
        while read < TURN_BYTES {
            match self.stream.read(&mut buffer) {
                Ok(0) => {
                    gone = true;
                    break;
                }
                Ok(count) => {
                    read += count;
                    self.input
                        .extend_from_slice(buffer.get(..count).unwrap_or_default());
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => {
                    gone = true;
                    break;
                }
            }
        }
        let requests = self.split();
        // What was asked before the client died is done all the same.
        if requests.is_empty() && (gone || self.input.len() > REQUEST_BYTES_MAX) {
            return Err(Gone);
        }
        Ok(requests)
    }

    fn split(&mut self) -> Vec<Result<Request, String>> {
        let Some(end) = self.input.iter().rposition(|byte| *byte == b'\n') else {
            return Vec::new();
        };
        let rest = self.input.split_off(end + 1);
        let lines = std::mem::replace(&mut self.input, rest);
        let lines = lines
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty());
        lines
            .map(|line| serde_json::from_slice(line).map_err(|error| error.to_string()))
            .collect()
    }

    pub(crate) fn send(&mut self, message: &Message) {
        self.send_line(&line(message));
    }

    pub(crate) fn send_line(&mut self, line: &[u8]) {
        self.output.extend_from_slice(line);
    }

    /// Whether the client reads too slowly to be told of every growth.
    pub(crate) fn is_busy(&self) -> bool {
        self.output.len() - self.sent > OUTPUT_BYTES_BUSY
    }

    pub(crate) fn has_output(&self) -> bool {
        self.sent < self.output.len()
    }

    /// Writes what the client takes.
    pub(crate) fn flush(&mut self) -> Result<(), Gone> {
        while let Some(rest) = self.output.get(self.sent..).filter(|rest| !rest.is_empty()) {
            match self.stream.write(rest) {
                Ok(0) => return Err(Gone),
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Err(Gone),
            }
        }
        if self.sent == self.output.len() {
            self.output.clear();
            self.output.shrink_to(OUTPUT_BYTES_BUSY);
            self.sent = 0;
        }
        if self.output.len() - self.sent > OUTPUT_BYTES_MAX {
            Err(Gone)
        } else {
            Ok(())
        }
    }
}

/// A message as it goes over the socket.
pub(crate) fn line(message: &Message) -> Vec<u8> {
    let mut line = serde_json::to_vec(message).unwrap_or_default();
    line.push(b'\n');
    line
}
