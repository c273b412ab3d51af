//! Users, their keys, and signing in.

use std::sync::atomic::Ordering;

use grid_core::access::Scope;
use grid_core::id::{KeyId, TeamId, UserId};
use grid_core::name::UserName;
use grid_core::team::{Role, TeamPolicy};
use grid_core::time::Timestamp;
use grid_store::db::{self, Tx};
use tokio::time::Instant;

use crate::access::Caller;
use crate::audit::{Thing, Trail};
use crate::error::{Error, Result};
use crate::secret::hash_key;
use crate::{Clock, Engine};

/// How often the last use of a key is written down.  Lower: a write per request.
const TOUCH_EVERY_MS: i64 = 60_000;

/// Users in one answer.
const USERS_MAX: u32 = 10_000;

/// Longest first name, last name or e-mail address, in bytes.
const TEXT_MAX: usize = 254;

/// Who a new user is.
#[derive(Debug, Clone, Default)]
pub struct NewUser {
    /// Name to sign in with.
    pub username: String,
    /// E-mail address.
    pub email: Option<String>,
    /// First name.
    pub first_name: Option<String>,
    /// Last name.
    pub last_name: Option<String>,
    /// Whether they run the server.
    pub operator: bool,
}

/// A user and a key, in clear this once.
pub struct WithKey {
    /// The user.
    pub user: db::user::User,
    /// The key.
    pub api_key: String,
}

/// Creates a user with a key and a team of one.  Operators only.
pub async fn create(engine: &Engine, caller: &Caller, new: &NewUser) -> Result<WithKey> {
    caller.require_operator("create users")?;
    create_unchecked(engine, Some(caller), new).await
}

/// Creates the first operator, unless there are users already.
pub async fn create_first(engine: &Engine, username: &str) -> Result<Option<WithKey>> {
    let mut tx = engine.inner.db.read().await?;
    let any = !db::user::list(&mut tx, None, 1).await?.items.is_empty();
    drop(tx);
    if any {
        return Ok(None);
    }
    let new = NewUser {
        username: username.to_owned(),
        operator: true,
        ..NewUser::default()
    };
    create_unchecked(engine, None, &new).await.map(Some)
}

/// Another key for the oldest operator, for whoever owns the server's data and has lost
/// the first one.  `None` when there is no operator.
pub async fn recover_operator(engine: &Engine) -> Result<Option<WithKey>> {
    let inner = &engine.inner;
    let mut tx = inner.db.write().await?;
    let users = db::user::list(&mut tx, None, USERS_MAX).await?.items;
    let operators = users
        .into_iter()
        .filter(|user| user.operator && user.disabled_at.is_none());
    let Some(user) = operators.min_by_key(|user| user.created_at) else {
        return Ok(None);
    };
    let api_key = new_key(&mut tx, &*inner.clock, user.id, inner.clock.now()).await?;
    tx.commit().await?;
    Ok(Some(WithKey { user, api_key }))
}

async fn create_unchecked(engine: &Engine, by: Option<&Caller>, new: &NewUser) -> Result<WithKey> {
    let mut tx = engine.inner.db.write().await?;
    let made = insert(engine, &mut tx, new).await?;
    if let Some(caller) = by {
        let event = caller.did("user.create", None, Thing::user(&made.user));
        event.by_operator().write(engine, &mut tx).await?;
    }
    tx.commit().await?;
    Ok(made)
}

pub(crate) fn name_taken(username: &UserName) -> Error {
    Error::Conflict {
        message: format!("there is a user or a team '{username}' already"),
        hint: Some("choose another name, or see `grid user list`".to_owned()),
    }
}

/// Adds a user with a key and a team of one, in a transaction of the caller.
pub(crate) async fn insert(engine: &Engine, tx: &mut Tx, new: &NewUser) -> Result<WithKey> {
    let inner = &engine.inner;
    let username = UserName::parse(&new.username).map_err(|e| Error::invalid(e.to_string()))?;
    let text = |what: &str, value: &Option<String>| -> Result<String> {
        let value = value.clone().unwrap_or_default();
        if value.len() > TEXT_MAX || value.chars().any(char::is_control) {
            return Err(Error::invalid(format!(
                "{what} may have at most {TEXT_MAX} bytes and no control characters"
            )));
        }
        Ok(value)
    };
    let now = inner.clock.now();
    let clock = &*inner.clock;
    let team = db::team::Team {
        id: TeamId::from_parts(now, clock.entropy()),
        name: username.to_string(),
        personal: true,
        policy: TeamPolicy::default(),
        created_at: now,
    };
    let user = db::user::User {
        id: UserId::from_entropy(clock.entropy()),
        username: username.to_string(),
        email: text("an e-mail address", &new.email)?,
        first_name: text("a first name", &new.first_name)?,
        last_name: text("a last name", &new.last_name)?,
        operator: new.operator,
        current_team: Some(team.id),
        created_at: now,
        disabled_at: None,
        service_team: None,
    };
    let taken = |error| match error {
        db::Error::Conflict { .. } => name_taken(&username),
        other => Error::from(other),
    };
    db::user::insert(tx, &user).await.map_err(taken)?;
    db::team::insert(tx, &team).await.map_err(taken)?;
    db::team::set_role(tx, team.id, user.id, Role::Owner, now).await?;
    let api_key = new_key(tx, clock, user.id, now).await?;
    Ok(WithKey { user, api_key })
}

/// Closes an account: nobody signs in with it any more, and its keys end.
pub(crate) async fn close(engine: &Engine, tx: &mut Tx, user: UserId) -> Result<()> {
    let now = engine.inner.clock.now();
    db::user::set_disabled(tx, user, Some(now)).await?;
    for key in db::key::of_user(tx, user).await? {
        if key.revoked_at.is_none() {
            db::key::revoke(tx, key.id, now).await?;
        }
    }
    Ok(())
}

async fn new_key(tx: &mut Tx, clock: &dyn Clock, user: UserId, now: Timestamp) -> Result<String> {
    // The shape of a UUID, as the original's keys have.
    let api_key = UserId::from_entropy(clock.entropy()).to_string();
    let key = db::key::Key {
        id: KeyId::from_parts(now, clock.entropy()),
        user,
        name: "default".to_owned(),
        scope: "all".to_owned(),
        created_at: now,
        expires_at: None,
        last_used_at: None,
        revoked_at: None,
        access_key: None,
    };
    db::key::insert(tx, &key, &hash_key(&api_key)).await?;
    Ok(api_key)
}

/// Everybody, by name.  Operators see all; others see whom they share a team with.
pub async fn list(engine: &Engine, caller: &Caller) -> Result<Vec<db::user::User>> {
    let mut tx = engine.inner.db.read().await?;
    if caller.user.operator {
        return Ok(db::user::list(&mut tx, None, USERS_MAX).await?.items);
    }
    let mut users: Vec<db::user::User> = Vec::new();
    for (team, _) in &caller.teams {
        for member in db::team::members(&mut tx, team.id).await? {
            if users.iter().all(|user| user.id != member.user.id) {
                users.push(member.user);
            }
        }
    }
    users.sort_by(|a, b| a.username.cmp(&b.username));
    Ok(users)
}

/// Revokes every key of the caller and makes a new one.
pub async fn rotate_key(engine: &Engine, caller: &Caller) -> Result<WithKey> {
    caller.require_whole("replace your keys")?;
    let inner = &engine.inner;
    let now = inner.clock.now();
    let mut tx = inner.db.write().await?;
    for key in db::key::of_user(&mut tx, caller.id()).await? {
        if key.revoked_at.is_none() {
            db::key::revoke(&mut tx, key.id, now).await?;
        }
    }
    let api_key = new_key(&mut tx, &*inner.clock, caller.id(), now).await?;
    let event = caller.did("key.rotate", None, Thing::user(&caller.user));
    event.write(engine, &mut tx).await?;
    tx.commit().await?;
    inner.watch.people_changed();
    Ok(WithKey {
        user: caller.user.clone(),
        api_key,
    })
}

/// Who has this user id and key?  The id may be absent (a bearer key).
pub async fn authenticate(engine: &Engine, user_id: Option<&str>, api_key: &str) -> Result<Caller> {
    let inner = &engine.inner;
    let wrong = || {
        Error::Unauthenticated(
            "the user id or the API key is wrong; sign in with `grid login --username NAME --key KEY`".to_owned(),
        )
    };
    let now = inner.clock.now();
    let mut tx = inner.db.read().await?;
    let Some((key, user)) = db::key::by_hash(&mut tx, &hash_key(api_key)).await? else {
        return Err(wrong());
    };
    if user_id.is_some_and(|id| id != user.id.to_string()) {
        return Err(wrong());
    }
    usable(&key, &user, now)?;
    admit(engine, tx, key, user, now).await
}

/// The caller whose key was right, and notes that it was used.
pub(crate) async fn admit(
    engine: &Engine,
    mut tx: Tx,
    key: db::key::Key,
    user: db::user::User,
    now: Timestamp,
) -> Result<Caller> {
    let stale = key
        .last_used_at
        .is_none_or(|at| now.millis_since(at) > TOUCH_EVERY_MS);
    let key_id = key.id;
    let mut caller = Caller::load(&mut tx, user, Some(key_id)).await?;
    // What is not understood is good for the least.
    caller.scope = Scope::parse(&key.scope).unwrap_or(Scope::Read);
    drop(tx);
    let inner = &engine.inner;
    if stale && !inner.touching.swap(true, Ordering::AcqRel) {
        // Beside the request: who reads need not wait for those who write, nor fail
        // because the disk is full.
        let engine = engine.clone();
        tokio::spawn(async move {
            if let Err(error) = touch(&engine, key_id, now).await {
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "the use of a key was not written down"
                );
            }
            engine.inner.touching.store(false, Ordering::Release);
        });
    }
    Ok(caller)
}

async fn touch(engine: &Engine, key: KeyId, now: Timestamp) -> Result<()> {
    let mut tx = engine.inner.db.write().await?;
    db::key::touch(&mut tx, key, now).await?;
    Ok(tx.commit().await?)
}

/// Lets somebody in by a request that leaves `trail`, unless too many wrong keys were tried
/// of the same user from the same address.
pub async fn enter(
    engine: &Engine,
    trail: &Trail,
    user_id: Option<&str>,
    api_key: &str,
) -> Result<Caller> {
    let (guard, address) = (&engine.inner.guard, trail.origin().address.as_str());
    let (who, hash) = (user_id.unwrap_or_default(), hash_key(api_key));
    let now = Instant::now();
    if guard.is_closed(who, address, now) && !guard.knows(&hash, now) {
        return Err(Error::TooMany(
            "too many wrong keys were tried from this address: wait a minute, and try again"
                .to_owned(),
        ));
    }
    match authenticate(engine, user_id, api_key).await {
        Ok(caller) => {
            guard.succeeded(&hash, now);
            Ok(caller.on(trail.clone()))
        }
        Err(error) => {
            if let Error::Unauthenticated(why) = &error {
                guard.failed(who, address, now);
                trail.failed_login(who, why);
            }
            Err(error)
        }
    }
}

/// Signs in by name or e-mail address, as the command line does once.
pub async fn login(engine: &Engine, trail: &Trail, login: &str, api_key: &str) -> Result<Caller> {
    let caller = enter(engine, trail, None, api_key).await?;
    let mut tx = engine.inner.db.read().await?;
    match db::user::by_login(&mut tx, login).await? {
        Some(user) if user.id == caller.user.id => Ok(caller),
        // The same words whether the name is unknown or the key is somebody else's.
        _ => Err(Error::Unauthenticated(
            "the user name or the API key is wrong".to_owned(),
        )),
    }
}

/// The same caller as they are now, if their account and their key still open anything.
/// Leaves no trail: it was let in before.
pub(crate) async fn again(engine: &Engine, tx: &mut Tx, caller: &Caller) -> Result<Caller> {
    let gone = |what: &str| Error::Unauthenticated(format!("this {what} is gone"));
    let user = db::user::by_id(tx, caller.id()).await?;
    let user = user.ok_or_else(|| gone("account"))?;
    if let Some(id) = caller.key {
        let keys = db::key::of_user(tx, user.id).await?;
        let key = keys.iter().find(|key| key.id == id);
        usable(
            key.ok_or_else(|| gone("API key"))?,
            &user,
            engine.inner.clock.now(),
        )?;
    }
    let mut again = Caller::load(tx, user, caller.key).await?;
    again.scope = caller.scope;
    Ok(again)
}

/// Whether a key still opens anything.
pub(crate) fn usable(key: &db::key::Key, user: &db::user::User, now: Timestamp) -> Result<()> {
    if key.revoked_at.is_some() {
        return Err(Error::Unauthenticated(
            "this API key has been revoked; ask for a new one, or sign in with the one that replaced it".to_owned(),
        ));
    }
    if key.expires_at.is_some_and(|at| at <= now) {
        return Err(Error::Unauthenticated(
            "this API key has expired; make a new one with `grid user rotate-key`".to_owned(),
        ));
    }
    if user.disabled_at.is_some() {
        return Err(Error::Unauthenticated(
            "this account is closed; ask the operator of the server".to_owned(),
        ));
    }
    Ok(())
}

/// Names of users by id, for views.
pub async fn names(
    engine: &Engine,
    ids: &[UserId],
) -> Result<std::collections::HashMap<UserId, String>> {
    let mut unique: Vec<UserId> = ids.to_vec();
    unique.sort_unstable();
    unique.dedup();
    let mut tx = engine.inner.db.read().await?;
    let users = db::user::by_ids(&mut tx, &unique).await?;
    Ok(users
        .into_iter()
        .map(|user| (user.id, user.username))
        .collect())
}
