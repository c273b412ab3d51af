//! Finding the version that people name.

use grid_core::access::Action;
use grid_core::datastore::State;
use grid_core::id::{DatastoreId, DatastoreVersionId, UserId};
use grid_core::name::DatastoreRef;
use grid_core::time::Timestamp;
use grid_store::db::{self, Tx};

use super::Found;
use crate::access::{Caller, Owned};
use crate::error::{Error, Result};
use crate::reference;

/// Which versions are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    /// Those that can be read; without a number, the newest of them.
    Ready,
    /// Also those that are on their way, and those in the trash, by number or id.
    Any,
}

/// The version that `text` names, if the caller may see it.
pub(super) async fn find(tx: &mut Tx, caller: &Caller, text: &str, which: Which) -> Result<Found> {
    let found = match text.parse::<DatastoreVersionId>() {
        Ok(id) => by_id(tx, caller, id, text).await?,
        Err(_) => by_name(tx, caller, text).await?,
    };
    if which == Which::Ready {
        require_ready(tx, caller, &found).await?;
    }
    Ok(found)
}

async fn by_id(tx: &mut Tx, caller: &Caller, id: DatastoreVersionId, text: &str) -> Result<Found> {
    let none = || Error::not_found(format!("no datastore '{text}'"));
    let version = db::datastore_version::by_id(tx, id).await?;
    // Looked for also where there is none: the same statements for everybody.
    let of = version.as_ref().map_or_else(
        || DatastoreId::from_parts(Timestamp::from_millis(0), 0),
        |version| version.datastore,
    );
    let datastore = shown(caller, db::datastore::by_id(tx, of).await?);
    let (datastore, version) = datastore.zip(version).ok_or_else(none)?;
    Ok(Found { datastore, version })
}

async fn by_name(tx: &mut Tx, caller: &Caller, text: &str) -> Result<Found> {
    let named: DatastoreRef = text
        .parse()
        .map_err(|error| Error::not_found(format!("no datastore '{text}': {error}")))?;
    let datastore = store(tx, caller, &named).await?;
    let version = match named.version {
        Some(number) => db::datastore_version::by_number(tx, datastore.id, number).await?,
        None => db::datastore_version::newest(tx, datastore.id).await?,
    };
    match version {
        Some(version) => Ok(Found { datastore, version }),
        None => Err(no_version(tx, &datastore, &named).await?),
    }
}

/// Why there is no version that is meant.
async fn no_version(
    tx: &mut Tx,
    datastore: &db::datastore::Datastore,
    named: &DatastoreRef,
) -> Result<Error> {
    let name = &datastore.name;
    // Lists are of the caller's own unless they say otherwise.
    let whose = match &named.user {
        Some(user) => format!(" --global {user}"),
        None => String::new(),
    };
    let is_in_trash = !db::datastore_version::has_any_outside_trash(tx, datastore.id).await?
        && db::datastore_version::has_any(tx, datastore.id).await?;
    let (what, lister, lists) = match (named.version, is_in_trash) {
        (Some(number), _) => (
            format!("datastore '{name}' has no version {number}"),
            "--show-incomplete",
            "the versions",
        ),
        (None, true) => (
            format!("all versions of datastore '{name}' are in the trash"),
            "--deleted",
            "them; `grid datastore restore` brings one back",
        ),
        (None, false) => (
            format!("datastore '{name}' has no version that is ready"),
            "--show-incomplete",
            "the versions",
        ),
    };
    Ok(Error::NotFound {
        what,
        hint: Some(format!("`grid datastore {lister}{whose}` lists {lists}")),
    })
}

/// The datastore that is named, whatever its versions are.
pub(crate) async fn store(
    tx: &mut Tx,
    caller: &Caller,
    named: &DatastoreRef,
) -> Result<db::datastore::Datastore> {
    let creator = match &named.user {
        None => caller.id(),
        // Looked for like somebody who has no such datastore.
        Some(user) => reference::user_by_name(tx, user.as_str())
            .await?
            .map_or_else(|| UserId::from_entropy(0), |user| user.id),
    };
    let found = db::datastore::by_name(tx, creator, named.name.as_str()).await?;
    if let Some(datastore) = shown(caller, found) {
        return Ok(datastore);
    }
    let what = match &named.user {
        None => format!("no datastore '{}' of yours", named.name),
        Some(user) => format!("no datastore '{user}:{}'", named.name),
    };
    let mut hint = suggest(tx, caller, named.name.as_str()).await?;
    if hint.is_none() && named.user.is_none() {
        let (own, teams) = (caller.id(), caller.team_ids());
        let names = db::datastore::newest_names(tx, own, &teams, reference::NEAR_MAX).await?;
        hint = reference::nearly(named.name.as_str(), &names);
    }
    let hint = match hint {
        None => Some("`grid datastore --global` lists those of your teams".to_owned()),
        hint => hint,
    };
    Err(Error::NotFound { what, hint })
}

/// Refuses what cannot be read, and says why.
async fn require_ready(tx: &mut Tx, caller: &Caller, found: &Found) -> Result<()> {
    let called = found.called();
    if found.version.deleted.is_some() {
        let whose = match found.datastore.creator == caller.id() {
            true => None,
            false => db::user::by_id(tx, found.datastore.creator).await?,
        };
        let whose = whose.map_or_else(String::new, |user| format!("{}:", user.username));
        return Err(Error::Conflict {
            message: format!("{called} is in the trash"),
            hint: Some(format!(
                "`grid datastore restore {whose}{}:{}` brings it back",
                found.datastore.name, found.version.number
            )),
        });
    }
    match found.version.state {
        State::Available => Ok(()),
        State::Uploading | State::Processing => Err(Error::Conflict {
            message: format!("{called} is not ready: it is {}", found.version.state),
            hint: Some("`grid datastore --show-incomplete` shows how far it is".to_owned()),
        }),
        State::Failed => Err(Error::conflict(format!(
            "{called} has failed: {}",
            found.version.message.as_deref().unwrap_or_default()
        ))),
    }
}

/// What was asked for, if the caller may know of it; that they asked for what they may not
/// is noted.
fn shown(
    caller: &Caller,
    found: Option<db::datastore::Datastore>,
) -> Option<db::datastore::Datastore> {
    let datastore = found?;
    if caller.sees(&datastore, Action::SeeDatastore) {
        return Some(datastore);
    }
    caller.note_hidden(Action::SeeDatastore, datastore.team, datastore.thing(""));
    None
}

/// If exactly one teammate has a datastore of this name: "did you mean".
async fn suggest(tx: &mut Tx, caller: &Caller, name: &str) -> Result<Option<String>> {
    let mut candidates = Vec::new();
    for (team, _) in caller.teams.iter().filter(|(team, _)| !team.personal) {
        for member in db::team::members(tx, team.id).await? {
            if member.user.id == caller.id() || candidates.contains(&member.user.username) {
                continue;
            }
            let found = db::datastore::by_name(tx, member.user.id, name).await?;
            if found.is_some_and(|found| caller.sees(&found, Action::SeeDatastore)) {
                candidates.push(member.user.username);
            }
        }
    }
    Ok(match candidates.as_slice() {
        [only] => Some(format!("did you mean {only}:{name}?")),
        _ => None,
    })
}
