//! Datastores: data that is uploaded once, in versions that never change, and mounted by
//! many.
//!
//! A version is uploaded in parts of its list of files, each kept once its bytes are there,
//! so that an upload may be cut at any moment and go on.  When the list is whole it is filed
//! as a manifest (`grid_manifest`), and from then on the version is available.

mod bucket;
mod change;
mod copy;
mod diff;
mod drift;
mod elsewhere;
mod files;
mod filing;
mod http;
mod import;
pub(crate) mod link;
mod list;
mod mount;
mod name;
mod offer;
mod pace;
pub mod staging;
mod unpack;
mod upload;
mod whole;
mod work;

use std::collections::{HashMap, HashSet};

use grid_core::access::Action;
use grid_core::id::{DatastoreId, DatastoreVersionId, RunId, UserId};
use grid_store::db::{self, Tx};

use crate::Engine;
use crate::access::{Caller, Owned};
use crate::audit::Thing;
use crate::error::Result;
use crate::reference;

pub use change::{delete, restore, update};
pub use diff::{Change, Changes, diff};
pub(crate) use drift::drifted;
pub(crate) use elsewhere::bare_tag;
pub use elsewhere::{Reader, Remote, open_for_node};
pub use files::{Item, Items, Opened, Wanted, fetch, files, open};
pub use import::receive;
pub(crate) use list::{List, referenced};
pub use mount::known;
pub(crate) use mount::{names, refused, require_usable, resolve};
pub(crate) use name::store;
pub use offer::{Offered, Taken, put_parts};
pub use upload::{
    BucketWish, NewVersion, Outcome, PART_ENTRIES_MAX, begin, commit, parts, put_part, takes_parts,
};
pub(crate) use work::Jobs;

/// Users of a version that a list names.  More: tables get wide.
const USERS_NAMED_MAX: u32 = 5;

/// A version with what is derived.
#[derive(Debug, Clone)]
pub struct Version {
    /// The row.
    pub row: db::datastore_version::Version,
    /// Name of its datastore.
    pub name: String,
    /// User name of the creator.
    pub created_by: String,
    /// Name of the team.
    pub team: String,
    /// User name of who moved it to the trash.
    pub deleted_by: Option<String>,
    /// Some of the runs that mount it now, as the caller may know of them.
    pub used_by: Vec<String>,
}

/// Which versions a list shows.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Teammates', too.
    pub global: bool,
    /// Only this user's.
    pub created_by: Option<String>,
    /// Only those of the datastore of this name.
    pub name: Option<String>,
    /// Those that are being uploaded, too.
    pub incomplete: bool,
    /// The trash instead.
    pub deleted: bool,
    /// After this place.
    pub after: Option<db::Position<DatastoreVersionId>>,
    /// At most so many.
    pub limit: u32,
}

/// A version and the datastore that it is of: what the rules are asked about.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) datastore: db::datastore::Datastore,
    pub(crate) version: db::datastore_version::Version,
}

impl Owned for db::datastore::Datastore {
    fn team(&self) -> grid_core::id::TeamId {
        self.team
    }

    fn creator(&self) -> UserId {
        self.creator
    }

    fn called(&self) -> String {
        format!("datastore '{}'", self.name)
    }

    fn thing(&self, creator: &str) -> Thing {
        let name = match creator {
            "" => self.name.clone(),
            creator => format!("{creator}:{}", self.name),
        };
        Thing::new("datastore", self.id, name)
    }
}

impl Found {
    /// What it is called: `datastore 'cats:3'`.
    pub(crate) fn called(&self) -> String {
        format!(
            "datastore '{}:{}'",
            self.datastore.name, self.version.number
        )
    }

    /// What it is called in the audit log.
    pub(crate) fn thing(&self, creator: &str) -> Thing {
        let name = format!("{creator}:{}:{}", self.datastore.name, self.version.number);
        Thing::new("datastore", self.version.id, name)
    }
}

/// One page of versions, the newest first.
pub async fn list(
    engine: &Engine,
    caller: &Caller,
    filter: &Filter,
) -> Result<db::Page<Version, db::Position<DatastoreVersionId>>> {
    let mut tx = engine.inner.db.read().await?;
    let teams: Vec<_> = caller.teams.iter().map(|(team, _)| team.id).collect();
    let owner: Option<UserId> = match &filter.created_by {
        // Somebody unknown has no datastores that one can see.
        Some(name) => Some(reference::user_or_nobody(&mut tx, name).await?),
        None if filter.global => None,
        None => Some(caller.id()),
    };
    let wanted = db::datastore_version::Filter {
        scope: db::Scope {
            owner,
            teams: Some(&teams),
        },
        name: filter.name.as_deref(),
        incomplete: filter.incomplete,
        trash: if filter.deleted {
            db::Trash::Only
        } else {
            db::Trash::Without
        },
        after: filter.after,
    };
    let page = db::datastore_version::list(&mut tx, &wanted, filter.limit).await?;
    if let (Some(name), true) = (&filter.created_by, page.items.is_empty()) {
        reference::require_known(&mut tx, caller, name).await?;
    }
    let mut items = derive(&mut tx, caller, page.items).await?;
    for version in &mut items {
        say_what_it_waits_for(engine, version);
    }
    Ok(db::Page {
        items,
        next: page.next,
    })
}

/// What is tried again and again says why.
fn say_what_it_waits_for(engine: &Engine, version: &mut Version) {
    let row = &mut version.row;
    if row.state == grid_core::datastore::State::Processing && row.message.is_none() {
        row.message = engine.inner.datastores.waits_for(row.id);
    }
}

/// One version; also one that is on its way, or in the trash.
pub async fn get(engine: &Engine, caller: &Caller, text: &str) -> Result<Version> {
    let mut tx = engine.inner.db.read().await?;
    let found = name::find(&mut tx, caller, text, name::Which::Any).await?;
    caller
        .check(&mut tx, &found.datastore, Action::SeeDatastore)
        .await?;
    let mut version = one(&mut tx, caller, found.version).await?;
    say_what_it_waits_for(engine, &mut version);
    Ok(version)
}

/// A run that uses a version.
#[derive(Debug, Clone)]
pub struct User {
    /// Name of the run; none where the caller may not know of it.
    pub run: Option<String>,
    /// User name of who made it; none with it.
    pub created_by: Option<String>,
    /// When.
    pub created_at: grid_core::time::Timestamp,
    /// Whether it may still read the version.
    pub is_open: bool,
}

/// A page of users, and where the next one begins.
pub type Users = db::Page<User, db::Position<RunId>>;

/// Runs that use a version or did, the newest first.
pub async fn users(
    engine: &Engine,
    caller: &Caller,
    text: &str,
    after: Option<db::Position<RunId>>,
    limit: u32,
) -> Result<Users> {
    let mut tx = engine.inner.db.read().await?;
    let found = name::find(&mut tx, caller, text, name::Which::Any).await?;
    caller
        .check(&mut tx, &found.datastore, Action::SeeDatastore)
        .await?;
    let page = db::mount::users(&mut tx, found.version.id, after, limit).await?;
    let names = names_of(&mut tx, page.items.iter().map(|one| one.creator)).await?;
    let mut items = Vec::with_capacity(page.items.len());
    for used in page.items {
        let seen = is_seen(&mut tx, caller, used.run).await?;
        items.push(User {
            run: seen.then_some(used.name),
            created_by: names.get(&used.creator).cloned().filter(|_| seen),
            created_at: used.created_at,
            is_open: used.is_open,
        });
    }
    Ok(db::Page {
        items,
        next: page.next,
    })
}

async fn is_seen(tx: &mut Tx, caller: &Caller, run: RunId) -> Result<bool> {
    let run = db::run::by_id(tx, run).await?;
    Ok(run.is_some_and(|run| caller.sees(&run, Action::SeeRun)))
}

/// Who mounts a version now, in words.
async fn open_users(
    tx: &mut Tx,
    caller: &Caller,
    version: DatastoreVersionId,
) -> Result<Vec<String>> {
    let users = db::mount::open_users(tx, version, USERS_NAMED_MAX).await?;
    let names = names_of(tx, users.iter().map(|one| one.creator)).await?;
    let mut words = Vec::with_capacity(users.len());
    for used in users {
        words.push(if is_seen(tx, caller, used.run).await? {
            let creator = names.get(&used.creator).map_or("", String::as_str);
            format!("{creator}:{}", used.name)
        } else {
            "a run of another team".to_owned()
        });
    }
    Ok(words)
}

async fn names_of(
    tx: &mut Tx,
    people: impl Iterator<Item = UserId>,
) -> Result<HashMap<UserId, String>> {
    let mut people: Vec<UserId> = people.collect();
    people.sort_unstable();
    people.dedup();
    let users = db::user::by_ids(tx, &people).await?;
    Ok(users
        .into_iter()
        .map(|user| (user.id, user.username))
        .collect())
}

async fn one(tx: &mut Tx, caller: &Caller, row: db::datastore_version::Version) -> Result<Version> {
    let derived = derive(tx, caller, vec![row]).await?;
    derived
        .into_iter()
        .next()
        .ok_or_else(|| crate::Error::internal(anyhow::anyhow!("a list of one is empty")))
}

/// Adds what is derived, for a whole page at once.
async fn derive(
    tx: &mut Tx,
    caller: &Caller,
    rows: Vec<db::datastore_version::Version>,
) -> Result<Vec<Version>> {
    let unique: HashSet<DatastoreId> = rows.iter().map(|row| row.datastore).collect();
    let unique: Vec<DatastoreId> = unique.into_iter().collect();
    let stores: HashMap<DatastoreId, db::datastore::Datastore> = db::datastore::by_ids(tx, &unique)
        .await?
        .into_iter()
        .map(|store| (store.id, store))
        .collect();
    let people = rows
        .iter()
        .flat_map(|row| std::iter::once(row.owner).chain(row.deleted.map(|deleted| deleted.by)));
    let names = names_of(tx, people).await?;
    let mut versions = Vec::with_capacity(rows.len());
    for row in rows {
        let mine = caller
            .teams
            .iter()
            .find(|(team, _)| team.id == row.owner_team);
        let team = match mine {
            Some((team, _)) => team.name.clone(),
            None => db::team::by_id(tx, row.owner_team)
                .await?
                .map_or_else(String::new, |team| team.name),
        };
        versions.push(Version {
            name: stores
                .get(&row.datastore)
                .map_or_else(String::new, |store| store.name.clone()),
            created_by: names.get(&row.owner).cloned().unwrap_or_default(),
            team,
            deleted_by: row
                .deleted
                .and_then(|deleted| names.get(&deleted.by).cloned()),
            used_by: open_users(tx, caller, row.id).await?,
            row,
        });
    }
    Ok(versions)
}
