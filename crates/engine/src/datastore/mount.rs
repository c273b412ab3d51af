//! Which versions a new run mounts, and where.

use std::path::Path;

use grid_core::access::Action;
use grid_core::id::{DatastoreVersionId, UserId};
use grid_core::name::DatastoreName;
use grid_core::spec::{DatastoreMount, MountedVersion, RunSpec};
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

/// The folder in which datastores are found by their names, wherever they are mounted.
const ALL: &str = "/datastores";

/// Folders in which people, and programs that they start, have theirs.
const HOMES: [&str; 2] = ["/home", "/root"];

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
    let own = own_folder(engine);
    let mut tx = engine.inner.db.read().await?;
    let mut places: Vec<String> = Vec::new();
    for mount in &mut spec.datastores {
        // Of a run that is repeated the version counts, whatever it is called by now.
        let found = match &mount.mounted {
            Some(mounted) => {
                let found = find(&mut tx, caller, &mounted.id.to_string(), Which::Ready).await;
                found.map_err(|error| as_known(error, mount))?
            }
            None => find(&mut tx, caller, &mount.datastore, Which::Ready).await?,
        };
        caller
            .check(&mut tx, &found.datastore, Action::UseDatastore)
            .await?;
        let (store, version) = (&found.datastore, &found.version);
        let Some(manifest) = version.manifest else {
            return Err(Error::conflict(format!("{} is not ready", found.called())));
        };
        let name = DatastoreName::parse(&store.name).map_err(Error::internal)?;
        let place = match &mount.mount_dir {
            Some(dir) => checked(dir, &own)?,
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
        mount.datastore = called_now(&mut tx, store, version.number).await?;
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

/// Refuses to run again what mounts a version that went away, or that whoever asks for it may
/// not use any more, or whoever the run belongs to: it is they in whose name it runs.
pub(crate) async fn require_usable(
    tx: &mut Tx,
    caller: &Caller,
    run: &db::run::Run,
    spec: &RunSpec,
) -> Result<()> {
    if spec.datastores.is_empty() {
        return Ok(());
    }
    let owner = standing(tx, run.creator).await?;
    for mount in &spec.datastores {
        let Some(mounted) = &mount.mounted else {
            continue;
        };
        let found = find(tx, caller, &mounted.id.to_string(), Which::Any).await;
        let found = found.map_err(|error| as_known(error, mount))?;
        caller
            .check(tx, &found.datastore, Action::UseDatastore)
            .await?;
        let called = called_now(tx, &found.datastore, found.version.number).await?;
        if found.version.deleted.is_some() {
            return Err(Error::Conflict {
                message: format!("datastore '{called}' is in the trash"),
                hint: Some(format!("`grid datastore restore {called}` brings it back")),
            });
        }
        if !may_use(owner.as_ref(), &found.datastore) {
            return Err(Error::Conflict {
                message: format!(
                    "run '{}' runs in the name of whoever made it, and they cannot use \
                     datastore '{called}' any more",
                    run.name
                ),
                hint: Some("`grid clone` makes a run of your own of it".to_owned()),
            });
        }
    }
    Ok(())
}

/// Why experiments of `owner` do not start now, though nobody asks for it but this server: a
/// place was found, the machine was lost, they were interrupted.  `None` when they may.
///
/// What somebody may use is decided again each time, with what they may do then: who left a
/// team gets no more of its data by what they had asked for before.
pub(crate) async fn refused(tx: &mut Tx, owner: UserId, spec: &RunSpec) -> Result<Option<String>> {
    if spec.datastores.is_empty() {
        return Ok(None);
    }
    let owner = standing(tx, owner).await?;
    for mount in &spec.datastores {
        let Some(mounted) = &mount.mounted else {
            continue;
        };
        let version = db::datastore_version::by_id(tx, mounted.id).await?;
        let store = match version {
            Some(version) => db::datastore::by_id(tx, version.datastore).await?,
            None => None,
        };
        if !store.is_some_and(|store| may_use(owner.as_ref(), &store)) {
            return Ok(Some(format!(
                "whoever made the run cannot use datastore '{}' any more",
                mount.datastore
            )));
        }
    }
    Ok(None)
}

/// What somebody may do now, by whatever key; `None` of who is not there any more.
async fn standing(tx: &mut Tx, user: UserId) -> Result<Option<Caller>> {
    let user = db::user::by_id(tx, user).await?;
    match user.filter(|user| user.disabled_at.is_none()) {
        Some(user) => Ok(Some(Caller::load(tx, user, None).await?)),
        None => Ok(None),
    }
}

fn may_use(owner: Option<&Caller>, store: &db::datastore::Datastore) -> bool {
    owner.is_some_and(|owner| owner.would(store, Action::UseDatastore))
}

/// What a version is called now, by everybody.
async fn called_now(tx: &mut Tx, store: &db::datastore::Datastore, number: u32) -> Result<String> {
    let creator = db::user::by_id(tx, store.creator).await?;
    let creator = creator.map_or_else(String::new, |user| user.username);
    Ok(format!("{creator}:{}:{number}", store.name))
}

/// What is said of a version that is not there for somebody, in the words in which they know
/// it: those in which the run names it.
fn as_known(error: Error, mount: &DatastoreMount) -> Error {
    match error {
        Error::NotFound { .. } => Error::NotFound {
            what: format!("no datastore '{}'", mount.datastore),
            hint: Some(
                "it was deleted, or you are not in its team: `grid datastore --global` lists \
                 those that you can use"
                    .to_owned(),
            ),
        },
        other => other,
    }
}

/// What somebody is told now of the versions that a run mounts: their names of now, also when
/// they were called otherwise then, and whether they are gone for good.  Of those that they
/// may not know of it is what the run says.
pub(crate) async fn names(tx: &mut Tx, caller: &Caller, spec: &RunSpec) -> Result<Vec<String>> {
    let mut names = Vec::with_capacity(spec.datastores.len());
    for mount in &spec.datastores {
        let version = match &mount.mounted {
            Some(mounted) => db::datastore_version::by_id(tx, mounted.id).await?,
            None => {
                names.push(mount.datastore.clone());
                continue;
            }
        };
        let Some(version) = version else {
            names.push(format!("{} (deleted)", mount.datastore));
            continue;
        };
        let store = db::datastore::by_id(tx, version.datastore).await?;
        let store = store.filter(|store| caller.sees(store, Action::SeeDatastore));
        names.push(match store {
            Some(store) => called_now(tx, &store, version.number).await?,
            None => mount.datastore.clone(),
        });
    }
    Ok(names)
}

/// The folder of this server, in which its own machine has the work folders of experiments.
fn own_folder(engine: &Engine) -> String {
    let own = engine.inner.scratch.parent().unwrap_or(Path::new("/"));
    let own = std::path::absolute(own).unwrap_or_else(|_| own.to_owned());
    own.to_string_lossy().into_owned()
}

/// A place for a datastore, without a slash at its end.  `own` is the folder of this server.
fn checked(dir: &str, own: &str) -> Result<String> {
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
    if trimmed == ALL {
        return Err(Error::invalid_hint(
            format!("'{dir}' is the folder in which every datastore has its name"),
            format!("write {ALL}/NAME"),
        ));
    }
    let is_above = is_inside(own, trimmed);
    if HOMES.contains(&trimmed) || is_above || is_inside(trimmed, &format!("{own}/runner")) {
        return Err(Error::invalid_hint(
            format!(
                "'{dir}' is in the way of the folders in which experiments work: nothing is \
                 mounted there"
            ),
            "write a path below /datastores or /mnt",
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

#[cfg(test)]
mod tests {
    use super::checked;

    #[test]
    fn a_place_is_in_nobodys_way() {
        for (dir, expected) in [
            ("/datastores/cats", Ok("/datastores/cats")),
            ("/data/x/", Ok("/data/x")),
            ("/srv", Err("in the way")),
            ("/datastores", Err("every datastore has its name")),
            ("/datastores/", Err("every datastore has its name")),
            ("/root", Err("in the way")),
            ("/home", Err("in the way")),
            ("/srv/grid", Err("in the way")),
            ("/srv/grid/data", Err("in the way")),
            ("/srv/grid/data/runner/x", Err("in the way")),
            ("/srv/grid/data/cats", Ok("/srv/grid/data/cats")),
            ("/srv/grid/database", Ok("/srv/grid/database")),
            ("/usr/x", Err("belongs to the system")),
            ("/", Err("not a place")),
            ("x", Err("not a place")),
            ("/a/../b", Err("not a place")),
        ] {
            let found = checked(dir, "/srv/grid/data").map_err(|error| error.to_string());
            match (found, expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected),
                (Err(found), Err(expected)) => assert!(found.contains(expected), "{dir}: {found}"),
                (found, expected) => panic!("{dir}: {found:?}, not {expected:?}"),
            }
        }
    }
}
