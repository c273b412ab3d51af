//! Which bucket, and how it is spoken to.
//!
//! What is secret is never among these: credentials come from the variables and files
//! that the other programs of each kind of bucket read, too.
//!
//! | bucket | variables | files |
//! | --- | --- | --- |
//! | `s3://` | `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN` | `AWS_SHARED_CREDENTIALS_FILE`, `~/.aws/credentials` (the section `AWS_PROFILE`) |
//! | `gs://` | `GOOGLE_APPLICATION_CREDENTIALS` | the file that it names |
//! | `az://` | `AZURE_STORAGE_ACCOUNT_NAME`, `AZURE_STORAGE_ACCOUNT_KEY`, … | |

use std::collections::HashMap;
use std::path::{Path as File, PathBuf};
use std::sync::Arc;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::path::Path;
use object_store::{ClientOptions, ObjectStore};

use super::client::{BucketError, CONNECT_LIMIT, Fault, REQUEST_LIMIT, retries};

/// How much of a bucket is kept on the local disk unless it is told otherwise, in bytes.
/// Higher: a fuller disk.  Lower: what is read again is fetched again.
pub const CACHE_BYTES: u64 = 10 * 1024 * 1024 * 1024;

/// Which bucket, and how it is spoken to; but for its credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketOptions {
    /// `s3://BUCKET/PREFIX`, `gs://BUCKET/PREFIX` or `az://CONTAINER/PREFIX`.
    pub url: String,
    /// Where it is served, if not by the one whose kind it is.
    pub endpoint: Option<String>,
    /// The region of an S3 bucket.
    pub region: Option<String>,
    /// Whether the name of an S3 bucket is a part of the path; else of the host.
    pub path_style: bool,
    /// A file with credentials, if not the usual one.
    pub credentials: Option<PathBuf>,
    /// How much of it is kept on the local disk, in bytes.
    pub cache_bytes: u64,
    /// Whether it is written to.  Who only looks takes it from nobody, and deletes nothing.
    pub is_written: bool,
}

impl BucketOptions {
    /// A bucket with what is usual for its kind.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            endpoint: None,
            region: None,
            path_style: true,
            credentials: None,
            cache_bytes: CACHE_BYTES,
            is_written: true,
        }
    }

    fn wrong(&self, why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> BucketError {
        // Whoever writes keys into an address must not find them in a log.
        let shown = self.url.split(['?', '#']).next().unwrap_or_default();
        let shown = match shown.rsplit_once('@') {
            Some((_, host)) => format!("…@{host}"),
            None => shown.to_owned(),
        };
        BucketError::own("keep anything", &shown, Fault::Settings, why)
    }
}

type Opened = (Arc<dyn ObjectStore>, Path);

/// The store of these options, and where in it blobs are.
pub(super) fn store(options: &BucketOptions) -> Result<Opened, BucketError> {
    // It fails when it was chosen before, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let wrong_url = || {
        options.wrong("its address is not one of s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX")
    };
    let (kind, rest) = options.url.split_once("://").ok_or_else(wrong_url)?;
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    if bucket.is_empty() || rest.contains(['?', '#', '@']) {
        return Err(wrong_url());
    }
    let prefix = Path::parse(prefix).map_err(|error| options.wrong(error))?;
    let built = match kind {
        "s3" => s3(options, bucket)?,
        "gs" => gcs(options, bucket),
        "az" => azure(options, bucket),
        _ => return Err(wrong_url()),
    };
    let store = built.map_err(|error| options.wrong(error))?;
    Ok((store, prefix))
}

type Built = Result<Arc<dyn ObjectStore>, object_store::Error>;

fn client(endpoint: Option<&str>) -> ClientOptions {
    ClientOptions::new()
        .with_timeout(REQUEST_LIMIT)
        .with_connect_timeout(CONNECT_LIMIT)
        // Only where somebody wrote so: to a server beside this one.
        .with_allow_http(endpoint.is_some_and(|endpoint| endpoint.starts_with("http://")))
}

fn s3(options: &BucketOptions, bucket: &str) -> Result<Built, BucketError> {
    let mut builder = AmazonS3Builder::from_env()
        .with_bucket_name(bucket)
        .with_virtual_hosted_style_request(!options.path_style)
        // Not every server of this kind has it, and few objects are deleted.
        .with_disable_bulk_delete(true)
        .with_retry(retries());
    if let Some(endpoint) = &options.endpoint {
        builder = builder.with_endpoint(endpoint);
    }
    if let Some(region) = &options.region {
        builder = builder.with_region(region);
    }
    let endpoint = builder.get_config_value(&AmazonS3ConfigKey::Endpoint);
    builder = builder.with_client_options(client(endpoint.as_deref()));
    let named = options.credentials.as_deref();
    if named.is_some() || std::env::var_os("AWS_ACCESS_KEY_ID").is_none() {
        let found = shared_credentials(named).map_err(|error| options.wrong(error))?;
        match found {
            Some(keys) => {
                builder = builder
                    .with_access_key_id(keys.id)
                    .with_secret_access_key(keys.secret);
                if let Some(token) = keys.token {
                    builder = builder.with_token(token);
                }
            }
            // Elsewhere the machine itself may be known.
            None if endpoint.is_some() => {
                return Err(options.wrong(
                    "it has no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a file with them",
                ));
            }
            None => {}
        }
    }
    Ok(builder.build().map(|store| Arc::new(store) as _))
}

fn gcs(options: &BucketOptions, bucket: &str) -> Built {
    let mut builder = GoogleCloudStorageBuilder::from_env()
        .with_bucket_name(bucket)
        .with_client_options(client(options.endpoint.as_deref()))
        .with_retry(retries());
    if let Some(endpoint) = &options.endpoint {
        builder = builder.with_base_url(endpoint);
    }
    if let Some(file) = &options.credentials {
        builder = builder.with_service_account_path(file.to_string_lossy());
    }
    builder.build().map(|store| Arc::new(store) as _)
}

fn azure(options: &BucketOptions, container: &str) -> Built {
    let mut builder = MicrosoftAzureBuilder::from_env()
        .with_container_name(container)
        .with_client_options(client(options.endpoint.as_deref()))
        .with_retry(retries());
    if let Some(endpoint) = &options.endpoint {
        builder = builder.with_endpoint(endpoint.clone());
    }
    builder.build().map(|store| Arc::new(store) as _)
}

struct Keys {
    id: String,
    secret: String,
    token: Option<String>,
}

/// The keys of an S3 bucket in a shared file: the one that is named, or the usual one.
fn shared_credentials(named: Option<&File>) -> Result<Option<Keys>, String> {
    let usual = || {
        let variable = std::env::var_os("AWS_SHARED_CREDENTIALS_FILE").map(PathBuf::from);
        let below_home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".aws/credentials"));
        variable.or_else(below_home)
    };
    let Some(path) = named.map(File::to_owned).or_else(usual) else {
        return Ok(None);
    };
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && named.is_none() => {
            return Ok(None);
        }
        Err(error) => return Err(format!("cannot read {}: {error}", path.display())),
    };
    let profile = std::env::var("AWS_PROFILE").unwrap_or_else(|_| "default".to_owned());
    match keys_of(&text, &profile) {
        Some(keys) => Ok(Some(keys)),
        None if named.is_none() => Ok(None),
        None => Err(format!(
            "{} has no aws_access_key_id and aws_secret_access_key in a section [{profile}]",
            path.display()
        )),
    }
}

fn keys_of(text: &str, profile: &str) -> Option<Keys> {
    let mut is_ours = false;
    let mut values = HashMap::new();
    for line in text.lines().map(str::trim) {
        if let Some(section) = line
            .strip_prefix('[')
            .and_then(|line| line.strip_suffix(']'))
        {
            is_ours = section.trim() == profile;
        } else if is_ours && let Some((name, value)) = line.split_once('=') {
            values.insert(name.trim(), value.trim().to_owned());
        }
    }
    Some(Keys {
        id: values.remove("aws_access_key_id")?,
        secret: values.remove("aws_secret_access_key")?,
        token: values.remove("aws_session_token"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_from_their_section() {
        let text = "# mine\n[default]\naws_access_key_id = A\naws_secret_access_key=B=\n\
                    [other]\naws_access_key_id=C\naws_secret_access_key = D\naws_session_token=E\n";
        let keys = keys_of(text, "default").unwrap();
        assert_eq!(
            (&keys.id[..], &keys.secret[..], keys.token),
            ("A", "B=", None)
        );
        let keys = keys_of(text, "other").unwrap();
        assert_eq!((&keys.id[..], keys.token.as_deref()), ("C", Some("E")));
        assert!(keys_of(text, "third").is_none());
    }

    #[test]
    fn what_is_no_bucket_is_said() {
        for url in [
            "",
            "bucket",
            "s3://",
            "ftp://b/p",
            "s3://b/p?key=SECRET",
            "s3://k:SECRET@b",
        ] {
            let Err(error) = store(&BucketOptions::new(url)) else {
                panic!("{url} is no bucket")
            };
            assert!(error.to_string().contains("check the settings"), "{error}");
            assert!(!error.to_string().contains("SECRET"), "{error}");
        }
        let mut options = BucketOptions::new("s3://bucket/some/where");
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("keys");
        std::fs::write(&file, "[default]\n").unwrap();
        options.credentials = Some(file.clone());
        assert!(store(&options).is_err());
        std::fs::write(
            &file,
            "[default]\naws_access_key_id=a\naws_secret_access_key=b\n",
        )
        .unwrap();
        let (_, prefix) = store(&options).unwrap();
        assert_eq!(prefix.as_ref(), "some/where");
        for url in ["gs://bucket/x", "az://box/x"] {
            // They are built, or say which variable is not there.
            if let Err(error) = store(&BucketOptions::new(url)) {
                assert!(error.to_string().contains(url), "{error}");
            }
        }
    }
}
