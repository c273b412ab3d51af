//! One connection to the server that stays open: what an answer costs the server, without
//! what starting a program costs.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use anyhow::{Context, Result, bail};
use base64::Engine as _;
use grid_e2e::Server;
use serde_json::Value;

/// A connection of somebody.
pub(crate) struct Api {
    stream: BufReader<TcpStream>,
    head: String,
}

impl Api {
    /// Connects as the operator.
    pub(crate) fn open(server: &Server) -> Result<Self> {
        let text = std::fs::read_to_string(server.data().join("operator.json"))
            .context("reading the operator's key")?;
        let operator: Value = serde_json::from_str(&text).context("reading the operator's key")?;
        Self::of(&server.url, &operator)
    }

    /// Connects as whoever has this `user_id` and `api_key`.
    pub(crate) fn of(url: &str, who: &Value) -> Result<Self> {
        let word = |name: &str| who[name].as_str().unwrap_or_default().to_owned();
        let pair = format!("{}:{}", word("user_id"), word("api_key"));
        let key = base64::prelude::BASE64_STANDARD.encode(pair);
        let host = url.trim_start_matches("http://").to_owned();
        let stream = TcpStream::connect(&host).with_context(|| format!("connecting to {host}"))?;
        stream
            .set_nodelay(true)
            .context("setting up a connection")?;
        Ok(Self {
            stream: BufReader::new(stream),
            head: format!("HTTP/1.1\r\nHost: {host}\r\nAuthorization: Basic {key}\r\n"),
        })
    }

    /// `GET`s a path below `/api/v1`.
    pub(crate) fn get(&mut self, path: &str) -> Result<Value> {
        let (status, length) = self.ask("GET", path, "", "")?;
        self.answer(path, &status, length)
    }

    /// `POST`s JSON to a path below `/api/v1`.
    pub(crate) fn post(&mut self, path: &str, body: &Value) -> Result<Value> {
        let body = body.to_string();
        let more = format!(
            "Content-Type: application/json\r\nContent-Length: {}\r\n",
            body.len()
        );
        let (status, length) = self.ask("POST", path, &more, &body)?;
        self.answer(path, &status, length)
    }

    fn answer(&mut self, path: &str, status: &str, length: Option<usize>) -> Result<Value> {
        let mut body = vec![0; length.context("an answer without a length")?];
        self.stream.read_exact(&mut body)?;
        if !status.contains(" 200 ") && !status.contains(" 201 ") {
            bail!("{path}: {status}: {}", String::from_utf8_lossy(&body));
        }
        serde_json::from_slice(&body).context("reading an answer")
    }

    /// `GET`s a stream of events to its end, as long as it is `wanted`: hands each one, with
    /// its data, to `told`.
    pub(crate) fn follow(
        &mut self,
        path: &str,
        wanted: impl Fn() -> bool,
        mut told: impl FnMut(&str, &str),
    ) -> Result<()> {
        let (status, length) = self.ask("GET", path, "", "")?;
        if !status.contains(" 200 ") || length.is_some() {
            bail!("{path}: {status}");
        }
        let mut event = String::new();
        let mut rest = Vec::new();
        while let Some(chunk) = self.chunk()? {
            if !wanted() {
                bail!("{path}: nobody waits for it any more");
            }
            rest.extend(chunk);
            while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = rest.drain(..=end).collect();
                let line = String::from_utf8_lossy(&line);
                if let Some(name) = line.strip_prefix("event: ") {
                    name.trim_end().clone_into(&mut event);
                } else if let Some(data) = line.strip_prefix("data: ") {
                    told(&event, data.trim_end());
                }
            }
        }
        Ok(())
    }

    /// A piece of a body whose length nobody knows; `None` at its end.
    fn chunk(&mut self) -> Result<Option<Vec<u8>>> {
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        let length = usize::from_str_radix(line.trim_end(), 16).context("reading a stream")?;
        let mut chunk = vec![0; length + 2];
        self.stream.read_exact(&mut chunk)?;
        chunk.truncate(length);
        Ok((length > 0).then_some(chunk))
    }

    /// Asks, and reads the head of the answer: its status, and how long the body is.
    fn ask(
        &mut self,
        method: &str,
        path: &str,
        more: &str,
        body: &str,
    ) -> Result<(String, Option<usize>)> {
        let request = format!("{method} /api/v1{path} {}{more}\r\n{body}", self.head);
        self.stream
            .get_mut()
            .write_all(request.as_bytes())
            .context("asking the server")?;
        let mut status = String::new();
        let mut length = None;
        loop {
            let mut line = String::new();
            if self.stream.read_line(&mut line)? == 0 {
                bail!("the server closed the connection");
            }
            let line = line.trim_end();
            if line.is_empty() {
                return Ok((status, length));
            }
            if status.is_empty() {
                line.clone_into(&mut status);
            } else if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse::<usize>().ok();
            }
        }
    }
}
