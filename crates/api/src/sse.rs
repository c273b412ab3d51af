//! Reading server-sent events (<https://html.spec.whatwg.org/multipage/server-sent-events.html>).

use futures::{Stream, StreamExt};

use crate::client::Error;

/// The longest event, in bytes.  A server that never ends a line is not believed further.
const EVENT_BYTES_MAX: usize = 16 << 20;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServerEvent {
    /// Its kind; `message` when the server named none.
    pub event: String,
    /// Its data; lines are joined by `\n`.
    pub data: String,
    /// Where to resume after it.
    pub id: Option<String>,
}

/// Splits a stream of bytes into events.
pub(crate) fn events(
    bytes: impl Stream<Item = Result<Vec<u8>, Error>> + Send + 'static,
) -> impl Stream<Item = Result<ServerEvent, Error>> {
    let state = (Box::pin(bytes), Parser::default());
    futures::stream::unfold(state, |(mut bytes, mut parser)| async move {
        loop {
            if let Some(event) = parser.next_event() {
                return Some((Ok(event), (bytes, parser)));
            }
            match bytes.next().await {
                None => return None,
                Some(Ok(chunk)) if parser.buffer.len() + chunk.len() > EVENT_BYTES_MAX => {
                    return None;
                }
                Some(Ok(chunk)) => parser.buffer.extend_from_slice(&chunk),
                Some(Err(error)) => return Some((Err(error), (bytes, parser))),
            }
        }
    })
}

#[derive(Default)]
struct Parser {
    buffer: Vec<u8>,
    event: ServerEvent,
    has_data: bool,
}

impl Parser {
    fn next_event(&mut self) -> Option<ServerEvent> {
        let mut from = 0;
        let mut found = None;
        while let Some(length) = self.buffer[from..].iter().position(|b| *b == b'\n') {
            let line = String::from_utf8_lossy(&self.buffer[from..from + length]).into_owned();
            from += length + 1;
            if self.line(line.strip_suffix('\r').unwrap_or(&line)) {
                found = Some(std::mem::take(&mut self.event));
                self.has_data = false;
                break;
            }
        }
        self.buffer.drain(..from);
        found.map(|mut event| {
            if event.event.is_empty() {
                "message".clone_into(&mut event.event);
            }
            event
        })
    }

    /// Takes one line; true when it ended an event.
    fn line(&mut self, line: &str) -> bool {
        if line.is_empty() {
            return self.has_data;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.event.event),
            "id" => self.event.id = Some(value.to_owned()),
            "data" => {
                if self.has_data {
                    self.event.data.push('\n');
                }
                self.event.data.push_str(value);
                self.has_data = true;
            }
            // A comment (empty field) or something newer than this reader.
            _ => {}
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_read_however_they_are_cut() {
        let text = ": hi\r\nevent: log\nid: 7\ndata: a\ndata: b\n\ndata:x\n\nevent: lost";
        for cut in 0..text.len() {
            let mut parser = Parser::default();
            let mut seen = Vec::new();
            for part in [&text[..cut], &text[cut..]] {
                parser.buffer.extend_from_slice(part.as_bytes());
                while let Some(event) = parser.next_event() {
                    seen.push(event);
                }
            }
            let log = ServerEvent {
                event: "log".into(),
                data: "a\nb".into(),
                id: Some("7".into()),
            };
            let message = ServerEvent {
                event: "message".into(),
                data: "x".into(),
                id: None,
            };
            assert_eq!(seen, [log, message], "cut at {cut}");
        }
    }
}
