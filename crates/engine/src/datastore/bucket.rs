//! Buckets elsewhere: their objects are listed and read, and never changed.
//!
//! What was listed is read only as it was then: every read says which content is meant (by
//! its `ETag`, or where a server lists none, by its time and size), and one that changed or
//! went away meanwhile is an error that names it.
//!
//! As with archives, a bucket is asked for by the server, which can reach what people
//! cannot; so addresses inside are refused unless whoever runs the server allows them, and
//! nothing is ever signed with what the machine itself could get.

mod look;
mod place;
mod slash;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use grid_core::credential::S3;
use grid_manifest::{Entry, Node};
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::client::{HttpClient, HttpConnector};
use object_store::path::Path;
use object_store::{ClientOptions, GetOptions, GetRange, ObjectMeta, ObjectStore, RetryConfig};

use super::http;
use crate::error::{Error, Result};

pub(super) use self::place::Place;
use self::slash::{Looking, Slashed};

/// How often a request is tried that fails for no lasting reason, and for how long.
/// Higher: a server that is gone is told of later than anybody waits for it (a minute); lower:
/// one that is busy for a moment makes it fail.  What the server fetches by itself is tried
/// again after that anyway.
const TRIES_MAX: usize = 6;
const TRYING_MAX: Duration = Duration::from_secs(25);

/// The region where nobody says.
const REGION: &str = "us-east-1";

/// Most of a message of the other side that is repeated.
const SAID_CHARS: usize = 300;

/// Objects without bytes that are looked at together, whether they stand for folders.  Higher:
/// more connections; lower: a bucket with many empty files is listed slowly.
const MARKERS_AT_ONCE: usize = 16;

/// What stands before a time that names a content, where a server lists no `ETag`.
const TIME_MARK: char = '@';

/// A bucket that is read.
#[derive(Debug)]
pub(super) struct Bucket {
    store: AmazonS3,
    place: Place,
    /// Objects that were listed and looked at, also those that are left out.
    seen: AtomicU64,
    slashed: Slashed,
}

/// Makes connections that lead only to where the server may look.
#[derive(Debug)]
struct Guarded {
    is_private_allowed: bool,
    slashed: Slashed,
}

impl HttpConnector for Guarded {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        let client = http::client(self.is_private_allowed);
        let client = client.map_err(|source| object_store::Error::Generic {
            store: "S3",
            source: source.into(),
        })?;
        Ok(HttpClient::new(Looking {
            client: HttpClient::new(client),
            slashed: self.slashed.clone(),
        }))
    }
}

/// Objects as they are listed.
pub(super) type Listed<'a> = BoxStream<'a, Result<Entry>>;

/// Bytes of an object as they come.
pub(super) type Pieces = BoxStream<'static, Result<Bytes>>;

impl Bucket {
    /// Opens a bucket; nothing is asked yet.
    pub(super) fn open(place: Place, keys: Option<&S3>, is_private_allowed: bool) -> Result<Self> {
        if let Some(endpoint) = place.endpoint() {
            http::checked(endpoint, is_private_allowed)?;
        }
        let slashed = Slashed::default();
        let retry = RetryConfig {
            max_retries: TRIES_MAX,
            retry_timeout: TRYING_MAX,
            ..RetryConfig::default()
        };
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(place.bucket())
            .with_region(REGION)
            .with_retry(retry)
            .with_allow_http(true)
            .with_http_connector(Guarded {
                is_private_allowed,
                slashed: slashed.clone(),
            });
        if let Some(endpoint) = place.endpoint() {
            builder = builder.with_endpoint(endpoint);
        }
        builder = match keys {
            // What this machine could sign with by itself is nobody's here.
            None => builder.with_skip_signature(true),
            Some(S3::Role { .. }) => {
                return Err(Error::invalid_hint(
                    "this server cannot take on the role of a credential: it has no identity at Amazon",
                    "make a credential of an access key: grid credential create --access-key-id ID",
                ));
            }
            Some(S3::Key {
                access_key_id,
                secret_access_key,
                session_token,
                region,
                ..
            }) => {
                let mut signed = builder
                    .with_access_key_id(access_key_id)
                    .with_secret_access_key(secret_access_key)
                    .with_region(region.as_deref().unwrap_or(REGION));
                if let Some(token) = session_token {
                    signed = signed.with_token(token);
                }
                signed
            }
        };
        let store = builder.build().map_err(Error::internal)?;
        let seen = AtomicU64::new(0);
        Ok(Self {
            store,
            place,
            seen,
            slashed,
        })
    }

    /// What is read.
    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// How many objects were listed, by whomever.
    pub(super) fn seen(&self) -> u64 {
        self.seen.load(Ordering::Relaxed)
    }

    fn saw(&self) {
        self.seen.fetch_add(1, Ordering::Relaxed);
    }

    /// All objects, by key, as entries of a version that are elsewhere.
    pub(super) fn list(&self) -> Listed<'_> {
        let place = &self.place;
        if !place.is_folder() {
            let one = async move {
                let key = place.prefix();
                let options = GetOptions {
                    head: true,
                    ..GetOptions::default()
                };
                let found = self.store.get_opts(&self.path(key)?, options).await;
                let found = found.map_err(|error| self.fault(key, error))?;
                self.entry(&found.meta)
            };
            let one = futures::stream::once(one);
            let one = one.inspect(|_| self.saw());
            return one.try_filter_map(async |entry| Ok(entry)).boxed();
        }
        let prefix = place.prefix().trim_end_matches('/');
        let prefix = match self.path(prefix) {
            Ok(prefix) => prefix,
            Err(error) => return futures::stream::once(async { Err(error) }).boxed(),
        };
        let prefix = (!place.prefix().is_empty()).then_some(&prefix);
        let listed = self.store.list(prefix);
        listed
            .map(move |object| match object {
                Ok(object) => {
                    self.slashed.require_none(&self.place)?;
                    self.entry(&object)
                }
                Err(error) => Err(self.fault("", error)),
            })
            .try_filter_map(async |entry| Ok(entry))
            .map(|entry| self.unless_marker(entry))
            .buffered(MARKERS_AT_ONCE)
            .inspect(|_| self.saw())
            .try_filter_map(async |entry| Ok(entry))
            .boxed()
    }

    /// Leaves out an object that stands for a folder: one without bytes whose key ends with a
    /// `/`, which the list does not show.  Nothing has the key without it.
    async fn unless_marker(&self, entry: Result<Entry>) -> Result<Option<Entry>> {
        let entry = entry?;
        if entry.size_bytes() > 0 {
            return Ok(Some(entry));
        }
        let key = self.place.key(&entry.path);
        let options = GetOptions {
            head: true,
            ..GetOptions::default()
        };
        match self.store.get_opts(&self.path(&key)?, options).await {
            Ok(_) => Ok(Some(entry)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.fault(&key, error)),
        }
    }

    /// Bytes of an object as it was when it was listed, or of a part of it.
    pub(super) async fn read(&self, entry: &Entry, range: Option<Range<u64>>) -> Result<Pieces> {
        let Node::Elsewhere { size_bytes, tag } = &entry.node else {
            return Err(Error::internal(anyhow::anyhow!(
                "'{}' is not in a bucket",
                entry.path
            )));
        };
        let key = self.place.key(&entry.path);
        let is_strong = tag.starts_with('"');
        let options = GetOptions {
            if_match: is_strong.then(|| tag.clone()),
            range: range.map(GetRange::Bounded),
            ..GetOptions::default()
        };
        let got = self.store.get_opts(&self.path(&key)?, options).await;
        let got = got.map_err(|error| self.fault(&key, error))?;
        // Not every server heeds what it was asked for.
        if got.meta.size != *size_bytes || !is_same(tag, &got.meta) {
            return Err(self.changed(&key));
        }
        let pieces = got.into_stream().map_err(move |error| {
            Error::Unavailable(format!("reading '{key}' broke off: {}", said(&error)))
        });
        Ok(pieces.boxed())
    }

    fn path(&self, key: &str) -> Result<Path> {
        Path::parse(key).map_err(|_| {
            Error::invalid(format!(
                "'{key}' in {} has a name that no file can have",
                self.place.shown()
            ))
        })
    }

    /// An object as an entry; nothing for the one that stands for the folder itself.
    fn entry(&self, object: &ObjectMeta) -> Result<Option<Entry>> {
        let key = object.location.as_ref();
        if self.place.prefix().strip_suffix('/') == Some(key) {
            return Ok(None);
        }
        let path = self.place.path_of(key).ok_or_else(|| {
            Error::invalid(format!(
                "the server of {} lists '{key}', which it was not asked for",
                self.place.shown()
            ))
        })?;
        let modified_ms = object.last_modified.timestamp_millis();
        let tag = match &object.e_tag {
            Some(tag) => tag.clone(),
            None => format!("{TIME_MARK}{modified_ms}"),
        };
        Ok(Some(Entry {
            path: path.to_owned(),
            mode: 0o644,
            modified_ms,
            node: Node::Elsewhere {
                size_bytes: object.size,
                tag,
            },
        }))
    }

    fn changed(&self, key: &str) -> Error {
        Error::Conflict {
            message: format!(
                "'{key}' of {} is not any more what it was when it was listed",
                self.place.shown()
            ),
            hint: Some("another `grid datastore create` makes a version of what it is now".into()),
        }
    }

    fn fault(&self, key: &str, error: object_store::Error) -> Error {
        use object_store::Error as E;
        let shown = self.place.shown();
        // What became of a list is told in words only.
        let words = said(&error);
        let has_status = |status: &str| words.contains(&format!("status code: {status}"));
        match error {
            E::Precondition { .. } => self.changed(key),
            _ if key.is_empty() && has_status("404") => {
                Error::invalid(format!("there is no bucket of {shown}"))
            }
            _ if has_status("401") || has_status("403") => self.refused(),
            E::NotFound { .. } => Error::Conflict {
                message: format!("'{key}' of {shown} is not there any more"),
                hint: Some(
                    "another `grid datastore create` makes a version of what is there now".into(),
                ),
            },
            E::PermissionDenied { .. } | E::Unauthenticated { .. } => self.refused(),
            E::InvalidPath { source } => Error::invalid(format!(
                "{shown} has an object with a name that no file can have: {source}"
            )),
            _ => {
                let at = self.place.endpoint().map(|at| format!(" at {at}"));
                let at = at.unwrap_or_default();
                Error::Unavailable(format!("{shown}{at} cannot be read: {words}"))
            }
        }
    }

    fn refused(&self) -> Error {
        Error::Forbidden {
            message: format!(
                "the server of {} does not let us read it",
                self.place.shown()
            ),
            hint: Some(
                "make a version with a credential that may: --credential NAME; `grid credential` lists them"
                    .into(),
            ),
        }
    }
}

/// Whether an object is still what a tag says.
fn is_same(tag: &str, now: &ObjectMeta) -> bool {
    if let Some(listed_ms) = tag.strip_prefix(TIME_MARK) {
        // A header tells whole seconds, a list often more.
        let listed_s = listed_ms.parse::<i64>().map(|ms| ms.div_euclid(1_000));
        return listed_s.is_ok_and(|listed| listed == now.last_modified.timestamp());
    }
    now.e_tag.as_ref().is_none_or(|now| now == tag)
}

/// What an error says, with its causes, in a bounded line.
fn said(error: &(dyn std::error::Error + 'static)) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !words.contains(&more) {
            words = format!("{words}: {more}");
        }
        cause = error.source();
    }
    in_short(&words).chars().take(SAID_CHARS).collect()
}

/// Without how the library asked and how often it tried: only what came of it.
fn in_short(words: &str) -> &str {
    let mut words = match words.split_once("retry_timeout: ") {
        Some((_, rest)) => rest.split_once(" - ").map_or(rest, |(_, said)| said),
        None => words,
    };
    words = words.trim();
    for noise in [
        "HTTP error: ",
        "error sending request: ",
        "client error (Connect): ",
    ] {
        words = words.strip_prefix(noise).unwrap_or(words);
    }
    words
}

/// A bucket that requests share.
pub(super) type Shared = Arc<Bucket>;

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use axum::http::StatusCode;

    use super::*;

    #[test]
    fn a_server_that_does_not_answer_is_said_in_a_sentence() {
        let words = "Generic S3 error: Error performing list request: Error performing GET \
             https://s3.example.org/x?list-type=2 in 901.174947ms, after 6 retries, \
             max_retries: 6, retry_timeout: 90s  - HTTP error: error sending request: client \
             error (Connect): dns error: failed to lookup address information";
        assert_eq!(
            in_short(words),
            "dns error: failed to lookup address information"
        );
        assert_eq!(in_short("status code: 503"), "status code: 503");
    }

    /// As the program does at its start.
    fn install_tls() {
        let _ = rustls::crypto::ring::default_provider().install_default();
    }

    /// A server of one object that lists its `ETag`, and whose content may change.
    async fn server(tag: Arc<Mutex<&'static str>>, heeds: bool) -> String {
        let answer = move |request: axum::extract::Request| {
            let tag = *tag.lock().expect("no panic");
            let head = request.headers().get("if-match").cloned();
            async move {
                let is_list = request
                    .uri()
                    .query()
                    .unwrap_or_default()
                    .contains("list-type");
                if is_list {
                    let object = format!(
                        "<Contents><Key>cats/a</Key><LastModified>2026-01-02T03:04:05.678Z\
                         </LastModified><ETag>&quot;{tag}&quot;</ETag><Size>4</Size></Contents>"
                    );
                    let list = format!("<ListBucketResult>{object}</ListBucketResult>");
                    return (StatusCode::OK, [("ETag", String::new())], list);
                }
                let quoted = format!("\"{tag}\"");
                if tag == "gone" {
                    return (
                        StatusCode::NOT_FOUND,
                        [("ETag", String::new())],
                        String::new(),
                    );
                }
                if heeds && head.is_some_and(|wanted| wanted != quoted.as_str()) {
                    let status = StatusCode::PRECONDITION_FAILED;
                    return (status, [("ETag", quoted)], String::new());
                }
                (StatusCode::OK, [("ETag", quoted)], "meow".to_owned())
            }
        };
        let router = axum::Router::new().fallback(answer);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move { axum::serve(listener, router).await });
        format!("http://{address}")
    }

    #[tokio::test]
    async fn an_object_is_read_only_as_it_was_listed() {
        install_tls();
        for heeds in [true, false] {
            let tag = Arc::new(Mutex::new("one"));
            let url = server(Arc::clone(&tag), heeds).await;
            let place = Place::parse("s3://data/cats/", Some(&url)).expect("read");
            let bucket = Bucket::open(place, None, true).expect("open");
            let entry = bucket.list().try_next().await.expect("a list");
            let entry = entry.expect("an object");
            let Node::Elsewhere {
                size_bytes,
                tag: listed,
            } = &entry.node
            else {
                panic!("it is elsewhere")
            };
            assert_eq!((entry.path.as_str(), *size_bytes), ("a", 4));
            assert_eq!(listed, "\"one\"");
            let read = bucket.read(&entry, None).await.expect("bytes");
            let read: Vec<Bytes> = read.try_collect().await.expect("all of them");
            assert_eq!(read.concat(), b"meow");
            for (now, expected) in [
                ("two", "is not any more what it was"),
                ("gone", "is not there"),
            ] {
                *tag.lock().expect("no panic") = now;
                let error = bucket.read(&entry, None).await.map(drop);
                let error = error.expect_err("it changed").to_string();
                assert!(error.contains("'cats/a' of s3://data/cats/"), "{error}");
                assert!(error.contains(expected), "{error}");
            }
        }
    }

    #[test]
    fn the_machines_own_neighbours_are_not_asked() {
        install_tls();
        let place = Place::parse("s3://data/x", Some("http://127.0.0.1:9000")).expect("read");
        assert!(Bucket::open(place.clone(), None, false).is_err());
        assert!(Bucket::open(place, None, true).is_ok());
        let cloud = Place::parse("s3://data/x", Some("http://169.254.169.254")).expect("read");
        assert!(Bucket::open(cloud, None, true).is_err());
    }
}
