//! What each operation of S3 asks of the one table: what has no row here is not answered.

use std::sync::{Mutex, MutexGuard, PoisonError};

use axum::http::StatusCode;
use grid_core::access::Action;
use grid_engine::Engine;
use grid_engine::audit::Trail;
use grid_engine::key::Signer;
use s3s::access::{S3Access, S3AccessContext};
use s3s::{S3Result, s3_error};

use super::error;
use crate::rest::access::Asks;

/// Every operation by its name, with what it asks: once for each kind of thing that its key
/// may be.
pub(crate) const OPERATIONS: &[(&str, Asks)] = {
    use Asks::{Datastore, Named, Run, SignedIn, Team};
    &[
        ("AbortMultipartUpload", Datastore(Action::ExtendDatastore)),
        (
            "CompleteMultipartUpload",
            Datastore(Action::ExtendDatastore),
        ),
        ("CopyObject", Datastore(Action::ExtendDatastore)),
        ("CopyObject", Datastore(Action::SeeDatastore)),
        ("CopyObject", Named(Action::Create)),
        ("CopyObject", Run(Action::ReadArtifacts)),
        ("CreateBucket", SignedIn),
        ("CreateMultipartUpload", Datastore(Action::ExtendDatastore)),
        ("CreateMultipartUpload", Named(Action::Create)),
        ("DeleteObject", Datastore(Action::ExtendDatastore)),
        ("DeleteObjects", Datastore(Action::ExtendDatastore)),
        ("GetBucketLocation", Team(Action::SeeTeam)),
        ("GetObject", Datastore(Action::SeeDatastore)),
        ("GetObject", Run(Action::ReadArtifacts)),
        ("GetObjectTagging", Datastore(Action::SeeDatastore)),
        ("GetObjectTagging", Run(Action::ReadArtifacts)),
        ("HeadBucket", Team(Action::SeeTeam)),
        ("HeadObject", Datastore(Action::SeeDatastore)),
        ("HeadObject", Run(Action::ReadArtifacts)),
        ("ListBuckets", SignedIn),
        ("ListMultipartUploads", Team(Action::SeeTeam)),
        ("ListObjects", Team(Action::SeeTeam)),
        ("ListObjects", Datastore(Action::SeeDatastore)),
        ("ListObjects", Run(Action::ReadArtifacts)),
        ("ListObjectsV2", Team(Action::SeeTeam)),
        ("ListObjectsV2", Datastore(Action::SeeDatastore)),
        ("ListObjectsV2", Run(Action::ReadArtifacts)),
        ("ListParts", Datastore(Action::ExtendDatastore)),
        ("PutObject", Datastore(Action::ExtendDatastore)),
        ("PutObject", Named(Action::Create)),
        ("UploadPart", Datastore(Action::ExtendDatastore)),
        ("UploadPartCopy", Datastore(Action::ExtendDatastore)),
        ("UploadPartCopy", Datastore(Action::SeeDatastore)),
        ("UploadPartCopy", Run(Action::ReadArtifacts)),
    ]
};

/// The operations as Markdown, behind the table of routes.
pub(crate) fn table() -> String {
    let mut text = String::from(
        "\n## What each operation of S3 asks\n\n\
         The bucket is a team: who is not in it is told that there is none.\n\n\
         | operation | asks for | about |\n| --- | --- | --- |\n",
    );
    for (operation, asks) in OPERATIONS {
        let (what, about) = asks.words();
        text.push_str(&format!("| `{operation}` | {what} | {about} |\n"));
    }
    text
}

/// Who may have signed a request, until the signature is found to be right.
pub(super) struct Gate {
    engine: Engine,
    trail: Trail,
    signer: Mutex<Option<Signer>>,
}

impl Gate {
    pub(super) fn new(engine: Engine, trail: Trail, signer: Option<Signer>) -> Self {
        Self {
            engine,
            trail,
            signer: Mutex::new(signer),
        }
    }

    fn signer(&self) -> MutexGuard<'_, Option<Signer>> {
        self.signer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a signature is checked with.
    pub(super) fn secret(&self) -> Option<String> {
        let signer = self.signer();
        signer.as_ref().map(|signer| signer.secret().to_owned())
    }

    /// The request was answered: who was not let in leaves that behind.  Says whether that is
    /// so.
    pub(super) fn end(&self, status: StatusCode) -> bool {
        let signer = self.signer().take();
        let signer = signer.filter(|_| status == StatusCode::FORBIDDEN);
        if let Some(signer) = &signer {
            signer.refused(&self.trail, "the signature of S3 is wrong, or too old");
        }
        signer.is_some()
    }
}

/// Lets operations in that have a row, for the caller of a right signature.
pub(super) struct Asked(pub(super) std::sync::Arc<Gate>);

#[async_trait::async_trait]
impl S3Access for Asked {
    async fn check(&self, asked: &mut S3AccessContext<'_>) -> S3Result<()> {
        let is_signed = asked.credentials().is_some();
        let signer = self.0.signer().take().filter(|_| is_signed);
        let signer = signer.ok_or_else(|| {
            s3_error!(
                AccessDenied,
                "requests have to be signed: `grid user keys create NAME --s3` makes a key"
            )
        })?;
        let caller = signer.enter(&self.0.engine, &self.0.trail).await;
        let caller = caller.map_err(|failed| error::of(failed.into()))?;
        let name = asked.s3_op().name();
        if !OPERATIONS.iter().any(|(known, _)| *known == name) {
            return Err(s3_error!(NotImplemented, "this server does not do {name}"));
        }
        asked.extensions_mut().insert(caller);
        Ok(())
    }
}
