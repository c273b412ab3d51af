//! What goes over the wire, by hand: for what the client itself would never send, and for
//! measuring the server without what starting a client costs.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use base64::Engine as _;
use serde_json::{Value, json};
use tungstenite::client::IntoClientRequest as _;
use tungstenite::{Message, WebSocket};

use super::Person;

/// How long an answer may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a server answered.
#[derive(Debug)]
pub struct Answer {
    /// The number.
    pub status: u16,
    /// The headers, as they were sent.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as JSON; null when it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// A header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let same = |(own, _): &&(String, String)| own.eq_ignore_ascii_case(name);
        self.headers
            .iter()
            .find(same)
            .map(|(_, value)| value.as_str())
    }
}

/// A connection that stays open.
#[derive(Debug)]
pub struct Wire {
    stream: BufReader<TcpStream>,
    host: String,
}

impl Wire {
    /// Connects to the server of an address.
    ///
    /// # Errors
    /// When nobody listens there.
    pub fn open(url: &str) -> Result<Self> {
        let rest = url
            .strip_prefix("http://")
            .context("an address with http")?;
        let host = rest.split('/').next().unwrap_or(rest).to_owned();
        let stream = TcpStream::connect(&host).with_context(|| format!("connecting to {host}"))?;
        stream
            .set_nodelay(true)
            .context("setting up a connection")?;
        let patience = Some(PATIENCE);
        stream
            .set_read_timeout(patience)
            .context("setting up a connection")?;
        let stream = BufReader::new(stream);
        Ok(Self { stream, host })
    }

    /// Asks, and reads the answer.
    ///
    /// # Errors
    /// When the connection breaks.
    pub fn ask(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Answer> {
        self.send(method, path, headers, body.len(), body)?;
        self.answer()
    }

    /// Sends a request that says its body has `length` bytes, with these.
    ///
    /// # Errors
    /// When the connection breaks.
    pub fn send(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        length: usize,
        body: &[u8],
    ) -> Result<()> {
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n", self.host);
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str(&format!("Content-Length: {length}\r\n\r\n"));
        let mut whole = head.into_bytes();
        whole.extend_from_slice(body);
        self.stream
            .get_mut()
            .write_all(&whole)
            .context("asking the server")
    }

    /// Reads one answer.
    ///
    /// # Errors
    /// When there is none.
    pub fn answer(&mut self) -> Result<Answer> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if self
                .stream
                .read_line(&mut line)
                .context("reading an answer")?
                == 0
            {
                bail!("the server closed the connection");
            }
            let line = line.trim_end().to_owned();
            if line.is_empty() {
                break;
            }
            lines.push(line);
        }
        let first = lines.first().context("an answer without a first line")?;
        let status = first
            .split(' ')
            .nth(1)
            .context("an answer without a number")?;
        let headers: Vec<(String, String)> = lines
            .iter()
            .skip(1)
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
            .collect();
        let mut answer = Answer {
            status: status.parse().context("reading an answer's number")?,
            headers,
            body: Vec::new(),
        };
        let length = answer
            .header("content-length")
            .and_then(|text| text.parse().ok());
        answer.body = vec![0; length.unwrap_or(0)];
        self.stream
            .read_exact(&mut answer.body)
            .context("reading an answer")?;
        Ok(answer)
    }
}

/// The headers with which the client signs what it asks.
pub fn signed(person: &Person<'_>) -> [(&'static str, String); 4] {
    let (id, key) = person.credentials();
    let pair = base64::prelude::BASE64_STANDARD.encode(format!("{id}:{key}"));
    [
        ("Authorization", format!("Basic {pair}")),
        ("X-Grid-User", id),
        ("X-Grid-Key", key),
        ("Content-Type", "application/json".to_owned()),
    ]
}

/// One request of somebody over a connection of its own.
///
/// # Panics
/// When the server does not answer.
#[track_caller]
pub fn ask(person: &Person<'_>, method: &str, path: &str, body: &Value) -> Answer {
    let headers = signed(person);
    let headers = headers
        .each_ref()
        .map(|(name, value)| (*name, value.as_str()));
    let body = if body.is_null() {
        String::new()
    } else {
        body.to_string()
    };
    Wire::open(&person.server.url)
        .and_then(|mut wire| wire.ask(method, path, &headers, body.as_bytes()))
        .expect("an answer")
}

/// A socket for subscriptions.
pub struct Socket {
    socket: WebSocket<TcpStream>,
}

impl Socket {
    /// Opens one, and says nothing yet.
    ///
    /// # Errors
    /// When the server does not want it.
    pub fn open(url: &str, protocol: &str) -> Result<Self> {
        let address = format!("{}/subscriptions", url.replacen("http", "ws", 1));
        let mut request = address.into_client_request().context("making a request")?;
        let protocol = protocol.parse().context("naming a protocol")?;
        request
            .headers_mut()
            .insert("Sec-WebSocket-Protocol", protocol);
        let host = url.trim_start_matches("http://");
        let stream = TcpStream::connect(host).context("connecting")?;
        stream
            .set_nodelay(true)
            .context("setting up a connection")?;
        let patience = Some(PATIENCE);
        stream
            .set_read_timeout(patience)
            .context("setting up a connection")?;
        let opened = tungstenite::client(request, stream);
        let (socket, _) = opened.map_err(|error| anyhow::anyhow!("opening a socket: {error}"))?;
        Ok(Self { socket })
    }

    /// Opens one for somebody, as the client does, up to the server's acknowledgement.
    ///
    /// # Errors
    /// When the server does not acknowledge.
    pub fn of(person: &Person<'_>, protocol: &str) -> Result<Self> {
        let mut socket = Self::open(&person.server.url, protocol)?;
        let (id, key) = person.credentials();
        let payload = json!({ "X-Grid-User": id, "X-Grid-Key": key });
        socket.send(&json!({ "type": "connection_init", "payload": payload }))?;
        let said = socket.hear()?.context("the server closed the socket")?;
        if said["type"] != "connection_ack" {
            bail!("not acknowledged: {said}");
        }
        Ok(socket)
    }

    /// Says something.
    ///
    /// # Errors
    /// When the socket is closed.
    pub fn send(&mut self, message: &Value) -> Result<()> {
        let text = Message::text(message.to_string());
        self.socket.send(text).context("writing to a socket")
    }

    /// The next thing that is said; nothing when the other side has closed it.
    ///
    /// # Errors
    /// When it broke.
    pub fn hear(&mut self) -> Result<Option<Value>> {
        loop {
            match self.socket.read() {
                Ok(Message::Text(text)) => {
                    let said = serde_json::from_str(text.as_str());
                    return said.map(Some).context("reading what is said on a socket");
                }
                Ok(Message::Close(_)) => return Ok(None),
                Ok(_) => {}
                Err(
                    tungstenite::Error::ConnectionClosed
                    | tungstenite::Error::AlreadyClosed
                    | tungstenite::Error::Protocol(_),
                ) => return Ok(None),
                Err(tungstenite::Error::Io(error))
                    if error.kind() == std::io::ErrorKind::ConnectionReset =>
                {
                    return Ok(None);
                }
                Err(error) => return Err(error).context("reading from a socket"),
            }
        }
    }

    /// Follows the log of an experiment, as operation `id`.
    ///
    /// # Errors
    /// When the socket is closed.
    pub fn follow(&mut self, id: &str, experiment: &str) -> Result<()> {
        let query = "subscription ($experimentId: ID!, $limit: Int) { getLiveExperimentLogs(experimentId: $experimentId, limit: $limit) { message timestamp } }";
        let variables = json!({ "experimentId": experiment, "limit": null });
        let payload = json!({ "query": query, "variables": variables });
        self.send(&json!({ "type": "subscribe", "id": id, "payload": payload }))
    }
}

/// The id of an experiment by its name.
///
/// # Panics
/// When there is none.
#[track_caller]
pub fn experiment_id(person: &Person<'_>, name: &str) -> String {
    let query = "query ($experimentName: String!) { getExperimentId(experimentName: $experimentName) { success message experimentId } }";
    let body = json!({ "query": query, "variables": { "experimentName": name } });
    let answer = ask(person, "POST", "/graphql", &body).json();
    let id = answer["data"]["getExperimentId"]["experimentId"].as_str();
    id.unwrap_or_else(|| panic!("no id of {name}: {answer}"))
        .to_owned()
}
