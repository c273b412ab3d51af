//! A real S3 server over a folder, which asks for signatures.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use crate::blobs::{Bucket, BucketOptions};

pub(super) const BUCKET: &str = "things";

/// One that answers until it is dropped.
pub(super) struct Server {
    root: PathBuf,
    pub(super) address: SocketAddr,
    runtime: Option<Runtime>,
}

impl Server {
    /// Over this folder, on a port that the system chooses.
    pub(super) fn start(root: &Path) -> Self {
        Self::start_at(root, "127.0.0.1:0".parse().unwrap())
    }

    pub(super) fn start_at(root: &Path, address: SocketAddr) -> Self {
        std::fs::create_dir_all(root.join(BUCKET)).unwrap();
        let mut builder = S3ServiceBuilder::new(s3s_fs::FileSystem::new(root).unwrap());
        builder.set_auth(SimpleAuth::from_single("ada", "lovelace"));
        let service = builder.build();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        // Not on the thread of a test, which may be one of another runtime.
        let listening = std::thread::scope(|scope| {
            let bind = || runtime.block_on(TcpListener::bind(address)).unwrap();
            scope.spawn(bind).join().unwrap()
        });
        let address = listening.local_addr().unwrap();
        runtime.spawn(serve(listening, service));
        Self {
            root: root.to_owned(),
            address,
            runtime: Some(runtime),
        }
    }

    /// Where the objects are.
    pub(super) fn objects(&self) -> PathBuf {
        self.root.join(BUCKET).join("blobs")
    }

    /// How to speak to it.
    pub(super) fn options(&self) -> BucketOptions {
        let keys = self.root.join("keys");
        let text = "[default]\naws_access_key_id = ada\naws_secret_access_key = lovelace\n";
        std::fs::write(&keys, text).unwrap();
        BucketOptions {
            endpoint: Some(format!("http://{}", self.address)),
            credentials: Some(keys),
            ..BucketOptions::new(format!("s3://{BUCKET}/blobs"))
        }
    }

    pub(super) fn bucket(&self) -> Bucket {
        Bucket::new(&self.options()).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn serve(listening: TcpListener, service: S3Service) {
    let service = Arc::new(service);
    while let Ok((stream, _)) = listening.accept().await {
        let service = S3Service::clone(&service);
        tokio::spawn(async move {
            let connection = Builder::new(TokioExecutor::new());
            // Who breaks it off knows why.
            let _ = connection
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}
