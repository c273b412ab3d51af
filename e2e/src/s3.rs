//! A real S3 server over a folder, in the process of whoever tests or measures.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::Request;
use axum::http::Method;
use axum::response::IntoResponse;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use tokio::sync::watch;

/// Who may read and write, and by which secret.
pub const KEY: &str = "ada-at-the-lab";
/// The secret: text that stands nowhere else.
pub const SECRET: &str = "not-to-be-seen-anywhere-4711";

/// The one bucket.
pub const NAME: &str = "data";

/// A server with one bucket.
pub struct Bucket {
    folder: tempfile::TempDir,
    /// Where it listens.
    pub url: String,
    asked: Arc<Asked>,
    _runtime: tokio::runtime::Runtime,
}

/// What was asked of it, and how much it answers before it waits.
struct Asked {
    reads: Mutex<HashMap<String, usize>>,
    lists: Mutex<usize>,
    most: watch::Sender<usize>,
}

impl Asked {
    async fn ask(&self, method: Method, path: String) {
        let path = path.trim_start_matches('/');
        let key = path
            .strip_prefix(NAME)
            .and_then(|key| key.strip_prefix('/'));
        let is_read = method == Method::GET;
        let Some(key) = key.filter(|key| !key.is_empty() && is_read) else {
            *self.lists.lock().unwrap_or_else(PoisonError::into_inner) += 1;
            return;
        };
        let number = {
            let mut reads = self.reads.lock().unwrap_or_else(PoisonError::into_inner);
            let so_far = reads.values().sum::<usize>();
            *reads.entry(key.to_owned()).or_default() += 1;
            so_far
        };
        let mut most = self.most.subscribe();
        // Nobody lets it go on any more only when it is over.
        let _ = most.wait_for(|most| number < *most).await;
    }
}

impl Bucket {
    /// One that only who has the key may use, below `parent`.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(parent: &Path) -> Self {
        let folder = tempfile::tempdir_in(parent).expect("a folder");
        std::fs::create_dir(folder.path().join(NAME)).expect("a bucket");
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let files = s3s_fs::FileSystem::new(folder.path()).expect("a folder");
        let mut service = S3ServiceBuilder::new(files);
        service.set_auth(SimpleAuth::from_single(KEY, SECRET));
        let service = service.build();
        let asked = Arc::new(Asked {
            reads: Mutex::default(),
            lists: Mutex::default(),
            most: watch::channel(usize::MAX).0,
        });
        let seen = Arc::clone(&asked);
        let answer = move |request: Request| {
            let (service, seen) = (service.clone(), Arc::clone(&seen));
            let (method, path) = (request.method().clone(), request.uri().path().to_owned());
            async move {
                seen.ask(method, path).await;
                let request = request.map(s3s::Body::http_body_unsync);
                match service.call(request).await {
                    Ok(answer) => answer.map(axum::body::Body::new),
                    Err(_) => axum::http::StatusCode::INTERNAL_SERVER_ERROR.into_response(),
                }
            }
        };
        let router = axum::Router::new().fallback(answer);
        let listening = tokio::net::TcpListener::bind("127.0.0.1:0");
        let listener = runtime.block_on(listening).expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        runtime.spawn(async move { axum::serve(listener, router).await });
        Self {
            folder,
            url,
            asked,
            _runtime: runtime,
        }
    }

    /// Where an object lies.
    pub fn path(&self, key: &str) -> PathBuf {
        self.folder.path().join(NAME).join(key)
    }

    /// Puts objects there.
    ///
    /// # Panics
    /// When they cannot be written.
    pub fn put(&self, objects: &[(&str, &[u8])]) {
        for (key, bytes) in objects {
            let path = self.path(key);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            std::fs::write(path, bytes).expect("written");
        }
    }

    /// How often each object was asked for.
    pub fn reads(&self) -> HashMap<String, usize> {
        let reads = self.asked.reads.lock();
        reads.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How often the bucket was listed.
    pub fn lists(&self) -> usize {
        let lists = self.asked.lists.lock();
        *lists.unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on only so many reads are answered in all; further ones wait.
    pub fn answer_only(&self, reads: usize) {
        self.asked.most.send_replace(reads);
    }
}
