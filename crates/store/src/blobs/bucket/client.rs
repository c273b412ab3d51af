//! One bucket, spoken to by threads that may wait for it.
//!
//! All requests run on a small runtime of their own, so that whoever waits, on whatever
//! thread, is never waited for in turn.  Every request has time limits and is tried again
//! a limited number of times; what then still fails is said with the bucket's name and
//! with what to look at.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, RetryConfig};
use tokio::runtime::{Builder, Runtime};

use super::options::{self, BucketOptions};

/// How long one request may take, its body included.
/// Higher: a server that hangs is noticed later.  Lower: a pack does not get through a
/// slow line.
pub(super) const REQUEST_LIMIT: Duration = Duration::from_secs(60);

/// How long reading an object, or a part of one, may take with all tries.
/// Higher: whoever waits for it gives up first, after a minute, and never hears why.
/// Lower: parts do not get through a slow line.
const READ_LIMIT: Duration = Duration::from_secs(40);

/// How long a connection may take to be made.
/// Higher: a bucket that cannot be reached is noticed later.  Lower: one that is far away
/// cannot be used.
pub(super) const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// How often a request is tried again.
/// Higher: whoever waits is told later that the bucket is away.  Lower: a bucket that is
/// busy for a moment fails an upload.
const RETRIES_MAX: usize = 5;

/// After how long a request is not tried again.  See [`RETRIES_MAX`].
const RETRY_LIMIT: Duration = Duration::from_secs(15);

/// Longest pause between two tries.
/// Higher: one that would succeed again is noticed late.  Lower: a busy bucket is asked
/// too often.
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(3);

/// Requests of one kind that are under way together.
/// Higher: more memory, and a bucket that says "slow down".  Lower: a start on a new
/// machine takes longer.
const REQUESTS_MAX: usize = 16;

/// Threads that speak to the bucket.
/// Higher: threads that wait.  Lower: encryption keeps up with one upload only.
const THREADS: usize = 2;

/// Where a machine of a cloud is asked for keys.
const CLOUD_ADDRESS: &str = "http://169.254.169.254/latest/";

/// How often what is under way is tried again.
pub(super) fn retries() -> RetryConfig {
    RetryConfig {
        backoff: object_store::BackoffConfig {
            init_backoff: Duration::from_millis(100),
            max_backoff: RETRY_PAUSE_MAX,
            base: 2.0,
        },
        max_retries: RETRIES_MAX,
        retry_timeout: RETRY_LIMIT,
    }
}

/// A bucket, or a part of one, that blobs are kept in.
#[derive(Clone)]
pub struct Bucket {
    inner: Arc<Inner>,
}

struct Inner {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    name: String,
    cache_bytes: u64,
    is_written: bool,
    /// Absent only while this is dropped.
    runtime: Option<Runtime>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Whoever drops this may be a task, and must not wait.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Bucket").field(&self.inner.name).finish()
    }
}

/// Why a bucket did not do what it was asked.
#[derive(Clone, Debug, thiserror::Error)]
#[error("could not {doing} in the bucket {bucket}: {}", fault.advice())]
pub struct BucketError {
    doing: String,
    bucket: String,
    fault: Fault,
    source: Arc<dyn std::error::Error + Send + Sync>,
}

/// What kind of trouble it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It says no.
    Refused,
    /// It says that there is no such thing.
    NotThere,
    /// It cannot be reached, or is broken.
    Away,
    /// It was told in a way that makes no sense.
    Settings,
    /// No keys were given, and this machine is none that a cloud gives some.
    Keyless,
}

impl Fault {
    fn advice(self) -> &'static str {
        match self {
            Self::Refused => {
                "check its credentials, and that they may read, write, list and delete there"
            }
            Self::NotThere => "check that it exists, and its name, region and endpoint",
            Self::Away => {
                "check its endpoint and region, and that it can be reached; then try again"
            }
            Self::Settings => "check the settings of the bucket",
            Self::Keyless => {
                "no keys for it were found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a file with them as `credentials` below [bucket] in server.toml"
            }
        }
    }
}

impl BucketError {
    fn new(doing: &str, bucket: &str, error: Error) -> Self {
        let fault = match &error {
            Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => Fault::Refused,
            Error::NotFound { .. } => Fault::NotThere,
            Error::InvalidPath { .. } | Error::UnknownConfigurationKey { .. } => Fault::Settings,
            Error::Generic { source, .. } if asked_for_keys(&**source) => Fault::Keyless,
            _ => Fault::Away,
        };
        Self {
            doing: doing.to_owned(),
            bucket: bucket.to_owned(),
            fault,
            source: Arc::new(error),
        }
    }

    /// An error that the bucket has not made.
    pub(super) fn own(
        doing: &str,
        bucket: &str,
        fault: Fault,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self {
            doing: doing.to_owned(),
            bucket: bucket.to_owned(),
            fault,
            source: source.into().into(),
        }
    }

    /// Whether the bucket says that there is no such object.
    pub(super) fn is_not_there(&self) -> bool {
        self.fault == Fault::NotThere
    }
}

/// Whether what failed was asking the machine itself for keys, which the library does when it
/// was given none.  It has no error of its own for that, but names whom it asked.
fn asked_for_keys(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut causes = std::iter::successors(Some(error), |error| error.source());
    causes.any(|cause| cause.to_string().contains(CLOUD_ADDRESS))
}

/// An object of a bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Object {
    /// Its name below its folder.
    pub(super) name: String,
    pub(super) bytes: u64,
}

impl Bucket {
    /// Gets ready to speak to a bucket; nothing is sent yet.  Credentials come from the
    /// usual variables and files of its kind.
    pub fn new(options: &BucketOptions) -> Result<Self, BucketError> {
        let (store, prefix) = options::store(options)?;
        let name = options.url.trim_end_matches('/').to_owned();
        let kept = (options.cache_bytes, options.is_written);
        Self::over(store, prefix, name, kept)
    }

    pub(in super::super) fn over(
        store: Arc<dyn ObjectStore>,
        prefix: Path,
        name: String,
        (cache_bytes, is_written): (u64, bool),
    ) -> Result<Self, BucketError> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("bucket")
            .enable_all()
            .build();
        let runtime = runtime
            .map_err(|error| BucketError::own("start to work", &name, Fault::Settings, error))?;
        Ok(Self {
            inner: Arc::new(Inner {
                store,
                prefix,
                name,
                cache_bytes,
                is_written,
                runtime: Some(runtime),
            }),
        })
    }

    /// What people call it: `s3://bucket/prefix`.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// How much of it may be kept on the local disk, in bytes.
    pub(super) fn cache_bytes(&self) -> u64 {
        self.inner.cache_bytes
    }

    /// Whether anything may be changed in it.
    pub(super) fn is_written(&self) -> bool {
        self.inner.is_written
    }

    fn path(&self, name: &str) -> Path {
        let parts = self.inner.prefix.parts();
        parts
            .chain(Path::from(name).parts())
            .map(|part| part.as_ref().to_owned())
            .collect()
    }

    /// Waits for an answer of the bucket.
    fn wait<T: Send + 'static>(
        &self,
        doing: &str,
        work: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, BucketError> {
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        if let Some(runtime) = &self.inner.runtime {
            runtime.spawn(async move {
                // Who asked waits until it is here.
                let _ = sender.send(work.await);
            });
        }
        match receiver.recv() {
            Ok(result) => result.map_err(|error| BucketError::new(doing, self.name(), error)),
            Err(_) => Err(self.gone(doing)),
        }
    }

    fn gone(&self, doing: &str) -> BucketError {
        let why = "what speaks to the bucket has ended";
        BucketError::own(doing, self.name(), Fault::Away, why)
    }

    /// Stores an object, whole or not at all.
    pub(super) fn put(&self, name: &str, bytes: Bytes, doing: &str) -> Result<(), BucketError> {
        let (store, path) = (Arc::clone(&self.inner.store), self.path(name));
        self.wait(doing, async move {
            store.put(&path, bytes.into()).await.map(drop)
        })
    }

    /// Deletes an object; one that is not there is as good.
    pub(super) fn delete(&self, name: &str, doing: &str) -> Result<(), BucketError> {
        let (store, path) = (Arc::clone(&self.inner.store), self.path(name));
        let deleted = self.wait(doing, async move { store.delete(&path).await });
        match deleted {
            Err(error) if error.is_not_there() => Ok(()),
            result => result,
        }
    }

    /// The whole of an object; `None` when it is not there.
    pub(super) fn get(&self, name: &str, doing: &str) -> Result<Option<Bytes>, BucketError> {
        let (store, path) = (Arc::clone(&self.inner.store), self.path(name));
        let read = async move { store.get(&path).await?.bytes().await };
        let got = self.wait(doing, in_time(read));
        if_there(got)
    }

    /// A part of an object; `None` when it is not there.
    pub(super) fn get_range(
        &self,
        name: &str,
        range: Range<u64>,
        doing: &str,
    ) -> Result<Option<Bytes>, BucketError> {
        let (store, path) = (Arc::clone(&self.inner.store), self.path(name));
        let read = async move { store.get_range(&path, range).await };
        let got = self.wait(doing, in_time(read));
        if_there(got)
    }

    /// Parts of many objects, several at a time; in the order in which they were asked for.
    pub(super) fn get_ranges(
        &self,
        parts: Vec<(String, Range<u64>)>,
        doing: &str,
    ) -> Result<Vec<Option<Bytes>>, BucketError> {
        let store = Arc::clone(&self.inner.store);
        let parts: Vec<(Path, Range<u64>)> = parts
            .into_iter()
            .map(|(name, range)| (self.path(&name), range))
            .collect();
        self.wait(doing, async move {
            futures::stream::iter(parts)
                .map(|(path, range)| {
                    let store = Arc::clone(&store);
                    async move {
                        match in_time(store.get_range(&path, range)).await {
                            Ok(bytes) => Ok(Some(bytes)),
                            Err(Error::NotFound { .. }) => Ok(None),
                            Err(error) => Err(error),
                        }
                    }
                })
                .buffered(REQUESTS_MAX)
                .try_collect()
                .await
        })
    }

    /// All objects in a folder.
    pub(super) fn list(&self, folder: &str, doing: &str) -> Result<Vec<Object>, BucketError> {
        let (store, path) = (Arc::clone(&self.inner.store), self.path(folder));
        self.wait(doing, async move {
            store
                .list(Some(&path))
                .map_ok(|meta| Object {
                    name: meta.location.filename().unwrap_or_default().to_owned(),
                    bytes: meta.size,
                })
                .try_collect()
                .await
        })
    }
}

/// Waits for what is read no longer than [`READ_LIMIT`].
async fn in_time<T>(read: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let silent = |_| Error::Generic {
        store: "bucket",
        source: format!(
            "it answered nothing whole in {} seconds",
            READ_LIMIT.as_secs()
        )
        .into(),
    };
    tokio::time::timeout(READ_LIMIT, read)
        .await
        .map_err(silent)?
}

fn if_there(got: Result<Bytes, BucketError>) -> Result<Option<Bytes>, BucketError> {
    match got {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.is_not_there() => Ok(None),
        Err(error) => Err(error),
    }
}
