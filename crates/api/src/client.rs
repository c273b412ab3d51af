//! The typed HTTP client: the only place that builds a request.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::{Stream, StreamExt};
use reqwest::{Method, RequestBuilder, Response, StatusCode, header};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{ErrorBody, ErrorDetail};
use crate::sse::{self, ServerEvent};

/// How long connecting may take.  Higher: a wrong address hangs; lower: slow networks fail.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the server may be silent within an answer.  Follow streams send a
/// comment more often than that.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// The most of an error answer that is read.
const ERROR_BYTES_MAX: usize = 64 << 10;

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server address is not one.
    #[error("'{url}' is not a server address: {why}; write http://HOST:PORT or https://HOST:PORT")]
    Address { url: String, why: String },
    /// No answer.
    #[error("no Grid server answers at {url}")]
    Unreachable {
        url: String,
        #[source]
        source: reqwest::Error,
    },
    /// The server refused.
    #[error("{}", detail.message)]
    Refused { status: u16, detail: ErrorDetail },
    /// Something answered that does not speak this API.
    #[error("{url} answered {status}, but not as a Grid server does")]
    Strange { url: String, status: u16 },
    /// The answer broke off or does not read.
    #[error("the answer of {url} could not be read")]
    Broken {
        url: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Error {
    /// What to do next, where the server or the situation says.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Refused { detail, .. } => detail.hint.clone(),
            Self::Unreachable { .. } => Some(
                "start one with `grid server`, or name another with GRID_URL or `grid login --url`"
                    .to_owned(),
            ),
            _ => None,
        }
    }

    /// The HTTP status of a refusal.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } | Self::Strange { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// Whether trying again may help: the server was away, busy or full.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Broken { .. } => true,
            Self::Refused { status, .. } | Self::Strange { status, .. } => {
                matches!(status, 429 | 500 | 502 | 503 | 504 | 507)
            }
            Self::Address { .. } => false,
        }
    }
}

/// Who is calling.
#[derive(Clone)]
pub enum Auth {
    /// Nobody (health, login, signed links).
    None,
    /// A user: id and API key.
    User { user_id: String, api_key: String },
    /// A runner, by its token.
    Runner { token: String },
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::User { .. } => "User",
            Self::Runner { .. } => "Runner",
        })
    }
}

/// A client of one server.
#[derive(Debug, Clone)]
pub struct Client {
    base: String,
    auth: Auth,
    http: reqwest::Client,
    /// For sending what takes longer than any answer may; made when it is needed.
    patient: Arc<OnceLock<reqwest::Client>>,
    ca_pem: Option<Arc<[u8]>>,
}

impl Client {
    /// A client of the server at `url` (`http://host:port`, no path).
    ///
    /// `ca_pem` are more certificate authorities to trust, as PEM.
    pub fn new(url: &str, auth: Auth, ca_pem: Option<&[u8]>) -> Result<Self, Error> {
        let address = |why: String| Error::Address {
            url: url.to_owned(),
            why,
        };
        let base = url.trim_end_matches('/').to_owned();
        let parsed = reqwest::Url::parse(&base).map_err(|e| address(e.to_string()))?;
        if !matches!(parsed.scheme(), "http" | "https") || parsed.host_str().is_none() {
            return Err(address("it must begin with http:// or https://".to_owned()));
        }
        let http = connector(&base, ca_pem)
            .and_then(|builder| {
                let builder = builder.read_timeout(READ_TIMEOUT);
                builder.build().map_err(|e| e.to_string())
            })
            .map_err(address)?;
        Ok(Self {
            base,
            auth,
            http,
            patient: Arc::default(),
            ca_pem: ca_pem.map(Arc::from),
        })
    }

    /// A client that waits for an answer as long as the connection is there: while a body
    /// is sent, nothing is read.
    fn patient(&self) -> Result<&reqwest::Client, Error> {
        if let Some(patient) = self.patient.get() {
            return Ok(patient);
        }
        let made = connector(&self.base, self.ca_pem.as_deref())
            .and_then(|builder| builder.build().map_err(|e| e.to_string()));
        let made = made.map_err(|why| Error::Address {
            url: self.base.clone(),
            why,
        })?;
        Ok(self.patient.get_or_init(|| made))
    }

    /// The address this client talks to.
    pub fn url(&self) -> &str {
        &self.base
    }

    /// A request with credentials; `path` begins with `/` below the API prefix.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.request_by(&self.http, method, path)
    }

    fn request_by(&self, http: &reqwest::Client, method: Method, path: &str) -> RequestBuilder {
        let request = http.request(method, format!("{}{}{path}", self.base, crate::PREFIX));
        match &self.auth {
            Auth::None => request,
            Auth::User { user_id, api_key } => request.basic_auth(user_id, Some(api_key)),
            Auth::Runner { token } => request.bearer_auth(token),
        }
    }

    /// Sends a request; an answer of 400 and more is an error.
    pub async fn send(&self, request: RequestBuilder) -> Result<Response, Error> {
        let response = request.send().await.map_err(|source| Error::Unreachable {
            url: self.base.clone(),
            source,
        })?;
        if response.status().is_success() || response.status() == StatusCode::NOT_MODIFIED {
            return Ok(response);
        }
        Err(self.refusal(response).await)
    }

    async fn refusal(&self, response: Response) -> Error {
        let status = response.status().as_u16();
        let mut body = Vec::new();
        let mut stream = response.bytes_stream();
        while let Some(Ok(chunk)) = stream.next().await {
            body.extend_from_slice(&chunk);
            if body.len() > ERROR_BYTES_MAX {
                break;
            }
        }
        match serde_json::from_slice::<ErrorBody>(&body) {
            Ok(body) => Error::Refused {
                status,
                detail: body.error,
            },
            Err(_) => Error::Strange {
                url: self.base.clone(),
                status,
            },
        }
    }

    /// Sends a request and reads the JSON answer.
    pub async fn json<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, Error> {
        let response = self.send(request).await?;
        response.json().await.map_err(|e| self.broken(e))
    }

    /// `GET` with a query.
    pub async fn get<Q: Serialize + Sync, T: DeserializeOwned>(
        &self,
        path: &str,
        query: &Q,
    ) -> Result<T, Error> {
        self.json(self.request(Method::GET, path).query(query))
            .await
    }

    /// `POST` of JSON.
    pub async fn post<B: Serialize + Sync, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<T, Error> {
        self.json(self.request(Method::POST, path).json(body)).await
    }

    /// `POST` of JSON whose answer may take as long as the server likes: it reads what is
    /// named, and that may be terabytes.
    pub async fn post_patiently<B: Serialize + Sync, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<T, Error> {
        let request = self.request_by(self.patient()?, Method::POST, path);
        self.json(request.json(body)).await
    }

    /// `PUT` of JSON.
    pub async fn put<B: Serialize + Sync, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<T, Error> {
        self.json(self.request(Method::PUT, path).json(body)).await
    }

    /// `DELETE`.
    pub async fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        self.json(self.request(Method::DELETE, path)).await
    }

    /// `PUT` of a body that is streamed; the answer is JSON.
    pub async fn put_stream<S, B, T>(&self, path: &str, body: S) -> Result<T, Error>
    where
        S: Stream<Item = std::io::Result<B>> + Send + 'static,
        B: 'static,
        bytes::Bytes: From<B>,
        T: DeserializeOwned,
    {
        let request = self
            .request_by(self.patient()?, Method::PUT, path)
            .header(header::CONTENT_TYPE, "application/octet-stream")
            .body(reqwest::Body::wrap_stream(body));
        self.json(request).await
    }

    /// `PUT` of bytes; the answer is JSON.
    pub async fn put_bytes<T: DeserializeOwned>(
        &self,
        path: &str,
        body: Vec<u8>,
    ) -> Result<T, Error> {
        let request = self
            .request(Method::PUT, path)
            .header(header::CONTENT_TYPE, "application/octet-stream")
            .body(body);
        self.json(request).await
    }

    /// `GET` of bytes from `offset` on.
    pub async fn download(&self, path: &str, offset: u64) -> Result<Response, Error> {
        let mut request = self.request(Method::GET, path);
        if offset > 0 {
            request = request.header(header::RANGE, format!("bytes={offset}-"));
        }
        self.send(request).await
    }

    /// The same, whose long runs of zeros may be left out: an answer of the type
    /// [`grid_chunk::sparse::MEDIA_TYPE`] has frames.
    pub async fn download_sparse(&self, path: &str, offset: u64) -> Result<Response, Error> {
        let mut request = self.request(Method::GET, path);
        let taken = format!("{}, */*", grid_chunk::sparse::MEDIA_TYPE);
        request = request.header(header::ACCEPT, taken);
        if offset > 0 {
            request = request.header(header::RANGE, format!("bytes={offset}-"));
        }
        self.send(request).await
    }

    /// `GET` of server-sent events, from after the event `last_id`.
    pub async fn events(
        &self,
        path: &str,
        last_id: Option<&str>,
    ) -> Result<impl Stream<Item = Result<ServerEvent, Error>> + use<>, Error> {
        let mut request = self
            .request(Method::GET, path)
            .header(header::ACCEPT, "text/event-stream");
        if let Some(id) = last_id {
            request = request.header("Last-Event-ID", id);
        }
        let response = self.send(request).await?;
        let url = self.base.clone();
        let bytes = response.bytes_stream().map(move |chunk| {
            chunk.map(|b| b.to_vec()).map_err(|e| Error::Broken {
                url: url.clone(),
                source: e.into(),
            })
        });
        Ok(sse::events(bytes))
    }

    fn broken(&self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
        Error::Broken {
            url: self.base.clone(),
            source: source.into(),
        }
    }
}

/// How connections to a server are made.
fn connector(base: &str, ca_pem: Option<&[u8]>) -> Result<reqwest::ClientBuilder, String> {
    let parsed = reqwest::Url::parse(base).map_err(|e| e.to_string())?;
    let mut builder = reqwest::Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .user_agent(concat!("grid/", env!("CARGO_PKG_VERSION")));
    if let Some(pem) = ca_pem {
        let more = reqwest::Certificate::from_pem_bundle(pem)
            .map_err(|e| format!("its certificate file does not read: {e}"))?;
        builder = builder.tls_certs_merge(more);
    } else if parsed.scheme() == "http" {
        // Loading the system's certificates takes longer than a whole command.
        builder = builder.tls_certs_only([]);
    }
    if is_loopback(&parsed) {
        builder = builder.no_proxy();
    }
    Ok(builder)
}

fn is_loopback(url: &reqwest::Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost"
        || host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|ip| ip.is_loopback())
}

/// Escapes one segment of a path.
pub fn segment(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b':' => {
                escaped.push(char::from(byte));
            }
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    // A segment of dots would climb.
    if matches!(escaped.as_str(), "." | "..") {
        escaped.replace('.', "%2E")
    } else {
        escaped
    }
}

/// Escapes a path of several segments.
pub fn segments(path: &str) -> String {
    path.split('/').map(segment).collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_escaped() {
        assert_eq!(segments("a b/100%/ü.txt"), "a%20b/100%25/%C3%BC.txt");
        assert_eq!(segments("../x"), "%2E%2E/x");
        assert_eq!(segment("ada:bert-1"), "ada:bert-1");
    }

    #[test]
    fn an_address_that_is_none_is_said_to_be_none() {
        for url in ["", "localhost:8080", "ftp://x", "http://"] {
            assert!(
                matches!(
                    Client::new(url, Auth::None, None),
                    Err(Error::Address { .. })
                ),
                "{url}"
            );
        }
    }
}
