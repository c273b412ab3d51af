//! Changing what can be changed: names and descriptions, and whether it is in the trash.

use grid_core::access::Action;
use grid_core::name::DatastoreName;
use grid_store::db;

use super::{Found, Version, name, one, open_users};
use crate::Engine;
use crate::access::Caller;
use crate::error::{Error, Result};
use crate::trash;

/// Longest description, in bytes.  Higher: lists carry pages of prose; lower: a licence with
/// its source does not fit.
const DESCRIPTION_BYTES_MAX: usize = 4_096;

async fn find(engine: &Engine, caller: &Caller, text: &str, action: Action) -> Result<Found> {
    let mut tx = engine.inner.db.read().await?;
    let found = name::find(&mut tx, caller, text, name::Which::Any).await?;
    caller.check(&mut tx, &found.datastore, action).await?;
    Ok(found)
}

async fn creator(engine: &Engine, caller: &Caller, found: &Found) -> Result<String> {
    if found.datastore.creator == caller.id() {
        return Ok(caller.user.username.clone());
    }
    let mut tx = engine.inner.db.read().await?;
    let user = db::user::by_id(&mut tx, found.datastore.creator).await?;
    Ok(user.map_or_else(String::new, |user| user.username))
}

async fn described(engine: &Engine, caller: &Caller, found: &Found) -> Result<Version> {
    engine.inner.watch.changed([found.datastore.team]);
    let mut tx = engine.inner.db.read().await?;
    let row = db::datastore_version::by_id(&mut tx, found.version.id).await?;
    let row = row.ok_or_else(|| Error::not_found("the datastore is gone"))?;
    one(&mut tx, caller, row).await
}

/// Moves a version to the trash, unless an experiment may still read it.  One that is on
/// its way is given up by that.
pub async fn delete(engine: &Engine, caller: &Caller, text: &str) -> Result<Version> {
    let found = find(engine, caller, text, Action::DeleteDatastore).await?;
    let thing = found.thing(&creator(engine, caller, &found).await?);
    let event = caller.did(
        Action::DeleteDatastore.word(),
        Some(found.datastore.team),
        thing,
    );
    let id = found.version.id;
    let mut tx = engine.inner.db.write().await?;
    // From here on nobody begins to mount it.
    db::mount::hold(&mut tx, id).await?;
    let users = open_users(&mut tx, caller, id).await?;
    if !users.is_empty() {
        return Err(Error::Conflict {
            message: format!("{} is mounted by {}", found.called(), users.join(", ")),
            hint: Some("stop them first, or wait until they are over".to_owned()),
        });
    }
    let now = engine.inner.clock.now();
    if !db::datastore_version::set_deleted(&mut tx, id, caller.id(), now).await? {
        return Err(Error::conflict(format!(
            "{} is in the trash already",
            found.called()
        )));
    }
    event.write(engine, &mut tx).await?;
    tx.commit().await?;
    described(engine, caller, &found).await
}

/// Takes a version out of the trash.
pub async fn restore(engine: &Engine, caller: &Caller, text: &str) -> Result<Version> {
    let found = find(engine, caller, text, Action::DeleteDatastore).await?;
    let not_there = || Error::conflict(format!("{} is not in the trash", found.called()));
    let thing = found.thing(&creator(engine, caller, &found).await?);
    let event = caller.did("datastore.restore", Some(found.datastore.team), thing);
    let mut tx = engine.inner.db.write().await?;
    let row = db::datastore_version::by_id(&mut tx, found.version.id).await?;
    let deleted = row.and_then(|row| row.deleted).ok_or_else(not_there)?;
    trash::require_restorable(deleted.at, engine.inner.clock.now(), &found.called())?;
    if !db::datastore_version::restore(&mut tx, found.version.id).await? {
        return Err(not_there());
    }
    event.write(engine, &mut tx).await?;
    tx.commit().await?;
    described(engine, caller, &found).await
}

/// Gives a datastore, with all its versions, another name, or says something about a
/// version, or both.
pub async fn update(
    engine: &Engine,
    caller: &Caller,
    text: &str,
    new_name: Option<String>,
    description: Option<String>,
) -> Result<Version> {
    let found = find(engine, caller, text, Action::ExtendDatastore).await?;
    // By its id: its name may be another one in between.
    let id = found.version.id.to_string();
    if let Some(description) = description {
        describe(engine, caller, &id, &description).await?;
    }
    if let Some(new_name) = new_name {
        rename(engine, caller, &id, &new_name).await?;
    }
    described(engine, caller, &found).await
}

async fn rename(engine: &Engine, caller: &Caller, text: &str, new_name: &str) -> Result<Version> {
    let found = find(engine, caller, text, Action::ExtendDatastore).await?;
    let new_name = DatastoreName::parse(new_name).map_err(|e| Error::invalid(e.to_string()))?;
    let team = Some(found.datastore.team);
    let store = &found.datastore;
    let event = caller.did("datastore.rename", team, found.thing(&caller.user.username));
    let mut tx = engine.inner.db.write().await?;
    let holder = db::datastore::by_name(&mut tx, store.creator, new_name.as_str()).await?;
    if let Some(holder) = holder.filter(|holder| holder.id != store.id) {
        // A name that has nothing left under it is free; but its numbers stay given.
        if !db::datastore::remove_empty(&mut tx, holder.id).await? {
            return Err(Error::conflict(format!(
                "you have a datastore '{new_name}' already"
            )));
        }
        db::datastore::skip_numbers(&mut tx, store.id, holder.numbers).await?;
    }
    db::datastore::rename(&mut tx, store.id, new_name.as_str()).await?;
    event
        .detail(format!("{new_name}"))
        .write(engine, &mut tx)
        .await?;
    tx.commit().await?;
    described(engine, caller, &found).await
}

async fn describe(
    engine: &Engine,
    caller: &Caller,
    text: &str,
    description: &str,
) -> Result<Version> {
    let found = find(engine, caller, text, Action::ExtendDatastore).await?;
    check_description(description)?;
    let team = Some(found.datastore.team);
    let event = caller.did(
        "datastore.describe",
        team,
        found.thing(&caller.user.username),
    );
    let mut tx = engine.inner.db.write().await?;
    db::datastore_version::describe(&mut tx, found.version.id, description).await?;
    event.detail(description).write(engine, &mut tx).await?;
    tx.commit().await?;
    described(engine, caller, &found).await
}

pub(super) fn check_description(description: &str) -> Result<()> {
    if description.len() > DESCRIPTION_BYTES_MAX {
        return Err(Error::invalid(format!(
            "a description has at most {DESCRIPTION_BYTES_MAX} bytes; put more into a file of the datastore"
        )));
    }
    Ok(())
}
