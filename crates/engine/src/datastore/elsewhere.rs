//! Reading what was left where it is: through this server, with the credential that the
//! version was made with, and only as it was when it was listed.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use grid_core::credential::Shown;
use grid_core::id::{CredentialId, DatastoreVersionId, NodeId};
use grid_core::time::Timestamp;
use grid_manifest::{Entry, Node};
use grid_store::blobs::BlobReader;
use grid_store::db;
use tokio::time::Instant;

use super::bucket::{Bucket, Pieces, Place, Shared};
use super::list::List;
use super::upload::NewVersion;
use crate::Engine;
use crate::access::Caller;
use crate::credential;
use crate::error::{Error, Result};

/// How long an open bucket is kept.  Higher: connections that nobody needs stay open; lower:
/// reads that come now and then cost a new connection each.
const KEPT: Duration = Duration::from_secs(60);

/// Buckets that are kept open.
const KEPT_MAX: usize = 64;

/// Credentials that are tried where none was named.
const TRIED_MAX: usize = 8;

/// Buckets that were used lately.
#[derive(Default)]
pub(crate) struct Lately(Mutex<HashMap<DatastoreVersionId, Kept>>);

/// A bucket that is open.
#[derive(Clone)]
struct Kept {
    since: Instant,
    /// What its credential was when it was opened: another one opens another.
    credential: Option<(CredentialId, Timestamp)>,
    bucket: Shared,
}

/// The bytes of a file, wherever they are.
pub enum Reader {
    /// Stored here.
    Stored(BlobReader),
    /// In a bucket.
    Elsewhere(Remote),
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Stored(reader) => reader.fmt(f),
            Self::Elsewhere(remote) => remote.entry.fmt(f),
        }
    }
}

/// An object that is read where it is.
pub struct Remote {
    bucket: Shared,
    entry: Entry,
}

impl Remote {
    /// How many bytes it has.
    pub fn len(&self) -> u64 {
        self.entry.size_bytes()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What its server calls the content that was listed, without quotes.
    pub fn tag(&self) -> &str {
        match &self.entry.node {
            Node::Elsewhere { tag, .. } => bare_tag(tag),
            _ => "",
        }
    }

    /// Its bytes, or some of them.  The object is asked for before this answers: one that
    /// changed is an error here.
    pub async fn stream(&self, range: Option<Range<u64>>) -> Result<Pieces> {
        if range.as_ref().map_or(self.is_empty(), Range::is_empty) {
            // Still it is asked whether it is what it was.
            let pieces = self.bucket.read(&self.entry, None).await?;
            return Ok(pieces.take(0).boxed());
        }
        self.bucket.read(&self.entry, range).await
    }
}

/// What another server calls a content, without the quotes and marks that headers have.
pub(crate) fn bare_tag(tag: &str) -> &str {
    tag.strip_prefix("W/").unwrap_or(tag).trim_matches('"')
}

/// The bucket of a version.
///
/// Whether its credential is there, and may be used, is asked each time: who deletes one ends
/// what uses it.
pub(super) async fn bucket(
    engine: &Engine,
    version: &db::datastore_version::Version,
) -> Result<Shared> {
    let row = match version.credential {
        Some(id) => Some(credential::of_maker(engine, id, version.owner).await?),
        None => None,
    };
    let credential = row.as_ref().map(|row| (row.id, row.updated_at));
    let lately = &engine.inner.datastores.buckets.0;
    let known = {
        let lately = lately.lock().unwrap_or_else(PoisonError::into_inner);
        lately.get(&version.id).cloned()
    };
    if let Some(kept) = known
        && kept.since.elapsed() < KEPT
        && kept.credential == credential
    {
        return Ok(kept.bucket);
    }
    let keys = match &row {
        Some(row) => Some(credential::open_row(engine, row)?),
        None => None,
    };
    let place = Place::parse(&version.source, version.endpoint.as_deref())?;
    let is_private_allowed = engine.inner.fetches_private.load(Ordering::Relaxed);
    let bucket = Bucket::open(place, keys.as_ref(), is_private_allowed)?;
    let bucket = Arc::new(bucket);
    let mut lately = lately.lock().unwrap_or_else(PoisonError::into_inner);
    if lately.len() >= KEPT_MAX {
        lately.clear();
    }
    let kept = Kept {
        since: Instant::now(),
        credential,
        bucket: Arc::clone(&bucket),
    };
    lately.insert(version.id, kept);
    Ok(bucket)
}

/// A file of a version that was left where it is.
pub(super) async fn open(
    engine: &Engine,
    version: &db::datastore_version::Version,
    entry: Entry,
) -> Result<Remote> {
    let bucket = bucket(engine, version).await?;
    Ok(Remote { bucket, entry })
}

/// A file of a version that an attempt on a node mounts, for its runner.
pub async fn open_for_node(
    engine: &Engine,
    node: &NodeId,
    id: DatastoreVersionId,
    path: &str,
) -> Result<Remote> {
    // Only what runs there: a runner's token opens no other team's data.
    let is_mounted = {
        let book = engine.inner.book();
        book.placed().any(|entry| {
            let mounts = &entry.run.spec.datastores;
            let is_it = |mounted: &grid_core::spec::MountedVersion| mounted.id == id;
            entry.attempt().is_some_and(|(_, on)| on == node)
                && mounts.iter().any(|m| m.mounted.as_ref().is_some_and(is_it))
        })
    };
    let none = || Error::not_found(format!("no datastore '{id}' for an attempt on '{node}'"));
    if !is_mounted {
        return Err(none());
    }
    let mut tx = engine.inner.db.read().await?;
    let version = db::datastore_version::by_id(&mut tx, id).await?;
    drop(tx);
    let version = version.ok_or_else(none)?;
    let mut list = List::open(engine, &version).await?;
    let entry = list.get(path).await?;
    let entry = entry.filter(|entry| matches!(entry.node, Node::Elsewhere { .. }));
    let entry =
        entry.ok_or_else(|| Error::not_found(format!("nothing is elsewhere at '{path}'")))?;
    open(engine, &version, entry).await
}

/// A bucket that somebody wants a version of: what is meant, and what opens it.
pub(super) struct Chosen {
    pub(super) source: String,
    pub(super) endpoint: Option<String>,
    pub(super) credential: Option<CredentialId>,
}

/// Finds out what is meant, and that it can be read, before a number is given to it.
///
/// Where no credential was named and the bucket is not open to all, those are tried that
/// the caller may use at that server.
pub(super) async fn choose(engine: &Engine, caller: &Caller, new: &NewVersion) -> Result<Chosen> {
    let wish = &new.bucket;
    let named = match &wish.credential {
        Some(which) => Some(credential::open(engine, caller, which).await?),
        None => None,
    };
    let endpoint = match &named {
        Some(opened) => endpoint_of(
            &opened.name,
            &opened.content.shown(),
            wish.endpoint.as_deref(),
        )?,
        None => wish.endpoint.clone(),
    };
    let place = Place::parse(&new.source, endpoint.as_deref())?;
    require_meant(&new.source, &place, named.as_ref())?;
    let keys = named.as_ref().map(|opened| &opened.content);
    let refused = match probe(engine, &place, keys).await {
        Ok(place) => return Ok(chosen(&place, named.map(|opened| opened.id))),
        Err(error @ Error::Forbidden { .. }) if named.is_none() => error,
        Err(error) => return Err(error),
    };
    let usable = credential::list(engine, caller, true).await?;
    let is_there = |one: &credential::Credential| {
        let shown = one.shown.as_ref();
        shown.is_some_and(|shown| matches!(shown, Shown::Key { endpoint, .. } if endpoint.as_deref().map(bare) == place.endpoint().map(bare)))
    };
    for one in usable.into_iter().filter(is_there).take(TRIED_MAX) {
        let opened = credential::open(engine, caller, &one.row.id.to_string()).await?;
        if let Ok(place) = probe(engine, &place, Some(&opened.content)).await {
            return Ok(chosen(&place, Some(opened.id)));
        }
    }
    Err(refused)
}

/// Refuses what says two things: `gs://` is Google's, whatever a credential is for.
fn require_meant(source: &str, place: &Place, named: Option<&credential::Opened>) -> Result<()> {
    let google = Place::parse(source, None)?;
    let Some(own) = google.endpoint() else {
        return Ok(());
    };
    let is_for = |endpoint: Option<&str>| endpoint.map(bare) == Some(own);
    let hint = format!(
        "write s3://{} for a bucket of another server",
        google.path()
    );
    if let Some(opened) = named {
        let shown = opened.content.shown();
        let for_whom = match &shown {
            Shown::Key { endpoint, .. } => endpoint.as_deref(),
            Shown::Role { .. } => None,
        };
        if !is_for(for_whom) {
            return Err(Error::invalid_hint(
                format!(
                    "'{source}' is a bucket of Google's, and credential '{}' is for {}",
                    opened.name,
                    for_whom.unwrap_or("Amazon S3")
                ),
                format!("{hint}, or make a credential with --endpoint {own}"),
            ));
        }
    }
    if !is_for(place.endpoint()) {
        return Err(Error::invalid_hint(
            format!(
                "'{source}' is a bucket of Google's, and not at {}",
                place.endpoint().unwrap_or("Amazon S3")
            ),
            hint,
        ));
    }
    Ok(())
}

fn bare(address: &str) -> &str {
    address.trim_end_matches('/')
}

fn chosen(place: &Place, credential: Option<CredentialId>) -> Chosen {
    Chosen {
        source: place.shown(),
        endpoint: place.endpoint().map(str::to_owned),
        credential,
    }
}

/// The server that a credential is for.  What signs for one server is shown to no other.
fn endpoint_of(name: &str, shown: &Shown, asked: Option<&str>) -> Result<Option<String>> {
    let own = match shown {
        Shown::Key { endpoint, .. } => endpoint.clone(),
        Shown::Role { .. } => None,
    };
    match asked {
        Some(asked) if own.as_deref().map(bare) != Some(bare(asked)) => Err(Error::invalid_hint(
            format!(
                "credential '{name}' is for {}, and is shown to no other server",
                own.as_deref().unwrap_or("Amazon S3")
            ),
            "leave --endpoint out, or make a credential with that endpoint",
        )),
        _ => Ok(own),
    }
}

/// Asks for the first object, and whether it may be read: a list may be open where nothing
/// else is.  Says whether a folder is meant or an object.
async fn probe(
    engine: &Engine,
    place: &Place,
    keys: Option<&grid_core::credential::S3>,
) -> Result<Place> {
    let is_private_allowed = engine.inner.fetches_private.load(Ordering::Relaxed);
    let folder = Bucket::open(place.as_folder(), keys, is_private_allowed)?;
    if let Some(first) = folder.list().try_next().await? {
        folder.require_readable(&first).await?;
        return Ok(place.as_folder());
    }
    let nothing = || {
        Error::invalid_hint(
            format!("there is nothing at {}", place.shown()),
            "list the bucket with the tools of its server, and look for the prefix",
        )
    };
    if place.is_folder() {
        return Err(nothing());
    }
    let object = Bucket::open(place.clone(), keys, is_private_allowed)?;
    match object.list().try_next().await {
        Ok(Some(_)) => Ok(place.clone()),
        Ok(None) | Err(Error::Conflict { .. }) => Err(nothing()),
        Err(error) => Err(error),
    }
}
