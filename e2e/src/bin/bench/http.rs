//! One connection to the server that stays open: what an answer costs the server, without
//! what starting a program costs.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use anyhow::{Context, Result, bail};
use base64::Engine as _;
use grid_e2e::Server;
use serde_json::Value;

/// A connection of the operator.
pub(crate) struct Api {
    stream: BufReader<TcpStream>,
    head: String,
}

impl Api {
    /// Connects.
    pub(crate) fn open(server: &Server) -> Result<Self> {
        let text = std::fs::read_to_string(server.data().join("operator.json"))
            .context("reading the operator's key")?;
        let operator: Value = serde_json::from_str(&text).context("reading the operator's key")?;
        let word = |name: &str| operator[name].as_str().unwrap_or_default().to_owned();
        let pair = format!("{}:{}", word("user_id"), word("api_key"));
        let key = base64::prelude::BASE64_STANDARD.encode(pair);
        let host = server.url.trim_start_matches("http://").to_owned();
        let stream = TcpStream::connect(&host).with_context(|| format!("connecting to {host}"))?;
        stream
            .set_nodelay(true)
            .context("setting up a connection")?;
        Ok(Self {
            stream: BufReader::new(stream),
            head: format!("HTTP/1.1\r\nHost: {host}\r\nAuthorization: Basic {key}\r\n\r\n"),
        })
    }

    /// `GET`s a path below `/api/v1`.
    pub(crate) fn get(&mut self, path: &str) -> Result<Value> {
        let request = format!("GET /api/v1{path} {}", self.head);
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
                break;
            }
            if status.is_empty() {
                line.clone_into(&mut status);
            } else if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse::<usize>().ok();
            }
        }
        let mut body = vec![0; length.context("an answer without a length")?];
        self.stream.read_exact(&mut body)?;
        if !status.contains(" 200 ") {
            bail!("{path}: {status}: {}", String::from_utf8_lossy(&body));
        }
        serde_json::from_slice(&body).context("reading an answer")
    }
}
