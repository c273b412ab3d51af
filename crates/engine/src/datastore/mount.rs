//! Which versions a new run mounts, and where.

use grid_core::access::Action;
use grid_core::id::DatastoreVersionId;
use grid_core::name::DatastoreName;
use grid_core::spec::{MountedVersion, RunSpec};
use grid_store::db::{self, Tx};

use super::name::{Which, find};
use crate::Engine;
use crate::access::Caller;
use crate::error::{Error, Result};

/// Datastores of one run.  Higher: each start has more to mount; lower: somebody has to
/// copy data together.
const MOUNTS_MAX: usize = 32;

/// Folders of the system, over which nothing is mounted: programs would find other things
/// there than they need.
const SYSTEM: [&str; 14] = [
    "/bin", "/boot", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/proc", "/run", "/sbin", "/sys",
    "/tmp", "/usr", "/var",
];

/// Versions that one machine may ask about in one request.  Higher: it holds the database for
/// longer; lower: more requests.
const KNOWN_MAX: usize = 1_000;

/// Which of these versions are not gone for good: a machine need not keep the others.
pub async fn known(
    engine: &Engine,
    ids: Vec<DatastoreVersionId>,
) -> Result<Vec<DatastoreVersionId>> {
    if ids.len() > KNOWN_MAX {
        return Err(Error::invalid(format!(
            "ask about at most {KNOWN_MAX} versions at a time"
        )));
    }
    let mut tx = engine.inner.db.read().await?;
    let mut known = Vec::with_capacity(ids.len());
    for id in ids {
        if db::datastore_version::by_id(&mut tx, id).await?.is_some() {
            known.push(id);
        }
    }
    Ok(known)
}

/// Finds the exact versions that a spec names, and writes them into it.
pub(crate) async fn resolve(engine: &Engine, caller: &Caller, spec: &mut RunSpec) -> Result<()> {
    if spec.datastores.is_empty() {
        return Ok(());
    }
    if spec.datastores.len() > MOUNTS_MAX {
        return Err(Error::invalid(format!(
            "a run mounts at most {MOUNTS_MAX} datastores"
        )));
    }
    let mut tx = engine.inner.db.read().await?;
    let mut places: Vec<String> = Vec::new();
    for mount in &mut spec.datastores {
        // Of a run that is repeated the version counts, whatever it is called by now.
        let text = match &mount.mounted {
            Some(mounted) => mounted.id.to_string(),
            None => mount.datastore.clone(),
        };
        let found = find(&mut tx, caller, &text, Which::Ready).await?;
        caller
            .check(&mut tx, &found.datastore, Action::UseDatastore)
            .await?;
        let (store, version) = (&found.datastore, &found.version);
        let Some(manifest) = version.manifest else {
            return Err(Error::conflict(format!("{} is not ready", found.called())));
        };
        let name = DatastoreName::parse(&store.name).map_err(Error::internal)?;
        let place = match &mount.mount_dir {
            Some(dir) => checked(dir)?,
            None => name.mount_dir(),
        };
        let clash = places.iter().find(|other| are_nested(other, &place));
        if let Some(other) = clash {
            return Err(Error::invalid_hint(
                format!(
                    "{} cannot be mounted at {place}: {other} is taken",
                    found.called()
                ),
                "say where with --datastore_mount_dir, once for each --datastore_name",
            ));
        }
        places.push(place.clone());
        let creator = db::user::by_id(&mut tx, store.creator).await?;
        let creator = creator.map_or_else(String::new, |user| user.username);
        mount.datastore = format!("{creator}:{}:{}", store.name, version.number);
        mount.mount_dir = Some(place);
        mount.mounted = Some(MountedVersion {
            id: version.id,
            name: store.name.clone(),
            version: version.number,
            manifest,
            files: version.files,
            size_bytes: version.size_bytes,
        });
    }
    Ok(())
}

/// Refuses to run again what mounts a version that went away.
pub(crate) async fn still_there(tx: &mut Tx, spec: &RunSpec) -> Result<()> {
    for mount in &spec.datastores {
        let Some(mounted) = &mount.mounted else {
            continue;
        };
        let row = db::datastore_version::by_id(tx, mounted.id).await?;
        match row {
            Some(row) if row.deleted.is_none() => {}
            Some(_) => {
                return Err(Error::Conflict {
                    message: format!("datastore '{}' is in the trash", mount.datastore),
                    hint: Some(format!(
                        "`grid datastore restore {}` brings it back",
                        mount.datastore
                    )),
                });
            }
            None => {
                return Err(Error::conflict(format!(
                    "datastore '{}' was deleted",
                    mount.datastore
                )));
            }
        }
    }
    Ok(())
}

fn checked(dir: &str) -> Result<String> {
    let trimmed = dir.trim_end_matches('/');
    let parts = trimmed.strip_prefix('/').unwrap_or_default();
    let is_path = trimmed.len() < 1_024
        && !trimmed.contains('\0')
        && !parts.split('/').any(|part| matches!(part, "" | "." | ".."));
    if !is_path {
        return Err(Error::invalid_hint(
            format!("'{dir}' is not a place to mount a datastore at"),
            "write an absolute path, like /datastores/NAME",
        ));
    }
    if SYSTEM.iter().any(|folder| is_inside(trimmed, folder)) {
        return Err(Error::invalid_hint(
            format!("'{dir}' belongs to the system: nothing is mounted there"),
            "write a path below /datastores, /data or /mnt",
        ));
    }
    Ok(trimmed.to_owned())
}

fn are_nested(one: &str, other: &str) -> bool {
    is_inside(one, other) || is_inside(other, one)
}

fn is_inside(inner: &str, outer: &str) -> bool {
    inner
        .strip_prefix(outer)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
