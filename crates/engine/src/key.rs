//! API keys: several per user, each with a name, a scope and an end; and accounts for
//! programs, which are nothing but keys that a team owns.

mod signing;

use grid_core::access::{Action, Scope};
use grid_core::id::{KeyId, UserId};
use grid_core::name::UserName;
use grid_core::team::Role;
use grid_core::time::Timestamp;
use grid_store::db::{self, Tx, key::Key};

use crate::access::Caller;
use crate::audit::Thing;
use crate::error::{Error, Result};
use crate::secret::hash_key;
use crate::{Engine, team, user};

pub use signing::{Signer, signer};

/// Keys of one user that work.  Higher: nobody knows any more what they are for.
const KEYS_MAX: usize = 100;

/// Longest name of a key, in characters.
const NAME_MAX: usize = 64;

/// Longest life that can be asked for, in seconds: ten years.
pub(crate) const LIFE_S_MAX: u64 = 10 * 365 * 24 * 60 * 60;

/// What a new key is to be.
#[derive(Debug, Clone)]
pub struct NewKey {
    /// Whether it signs requests of S3 instead of being sent.
    pub signs: bool,
    /// What to call it.
    pub name: String,
    /// What it is good for.
    pub scope: Scope,
    /// After how many seconds it ends.
    pub expires_in_s: Option<u64>,
}

/// A new key, in clear this once.
pub struct Created {
    /// Whose.
    pub user: db::user::User,
    /// The key without its secret.
    pub key: Key,
    /// The secret.
    pub secret: String,
}

/// When something ends that lives so many seconds from now.
pub(crate) fn end(now: Timestamp, seconds: Option<u64>) -> Result<Option<Timestamp>> {
    let Some(seconds) = seconds else {
        return Ok(None);
    };
    if seconds == 0 || seconds > LIFE_S_MAX {
        return Err(Error::invalid(format!(
            "it can end after 1 to {LIFE_S_MAX} seconds"
        )));
    }
    let ms = i64::try_from(seconds * 1_000).unwrap_or(i64::MAX);
    Ok(Some(now.plus_millis(ms)))
}

fn works(key: &Key, now: Timestamp) -> bool {
    key.revoked_at.is_none() && key.expires_at.is_none_or(|at| at > now)
}

/// Adds a key for a user, in a transaction of the caller.
pub(crate) async fn insert(
    engine: &Engine,
    tx: &mut Tx,
    user: UserId,
    new: &NewKey,
) -> Result<(Key, String)> {
    let (clock, now) = (&engine.inner.clock, engine.inner.clock.now());
    let name = new.name.trim();
    let len = name.chars().count();
    if len == 0 || len > NAME_MAX || name.contains(char::is_control) {
        return Err(Error::invalid(format!(
            "the name of a key has 1 to {NAME_MAX} characters"
        )));
    }
    let keys = db::key::of_user(tx, user).await?;
    let working: Vec<&Key> = keys.iter().filter(|key| works(key, now)).collect();
    if working.iter().any(|key| key.name == name) {
        return Err(Error::Conflict {
            message: format!("there is a key '{name}' already"),
            hint: Some("choose another name, or revoke that one first".to_owned()),
        });
    }
    if working.len() >= KEYS_MAX {
        return Err(Error::conflict(format!(
            "there are {KEYS_MAX} keys, which is the limit: revoke some first"
        )));
    }
    let key = Key {
        id: KeyId::from_parts(now, clock.entropy()),
        user,
        name: name.to_owned(),
        scope: new.scope.as_str().to_owned(),
        created_at: now,
        expires_at: end(now, new.expires_in_s)?,
        last_used_at: None,
        revoked_at: None,
        access_key: new.signs.then(|| signing::access_key(&**clock)),
    };
    if new.signs {
        let secret = signing::secret(&**clock);
        let sealed = signing::seal(engine, &key, &secret)?;
        db::key::insert_signing(tx, &key, &sealed).await?;
        return Ok((key, secret));
    }
    // The shape of a UUID, as the original's keys have.
    let api_key = UserId::from_entropy(clock.entropy()).to_string();
    db::key::insert(tx, &key, &hash_key(&api_key)).await?;
    Ok((key, api_key))
}

/// Makes a key for the caller.
pub async fn create(engine: &Engine, caller: &Caller, new: &NewKey) -> Result<Created> {
    caller.require_whole("make keys")?;
    let mut tx = engine.inner.db.write().await?;
    let (key, secret) = insert(engine, &mut tx, caller.id(), new).await?;
    let event = caller.did("key.create", None, thing(&key));
    let event = event.detail(format!("scope {}{}", key.scope, kind(&key)));
    event.write(engine, &mut tx).await?;
    tx.commit().await?;
    Ok(Created {
        user: caller.user.clone(),
        key,
        secret,
    })
}

/// What kind of key it is, behind its scope in the audit log.
fn kind(key: &Key) -> String {
    let access_key = key.access_key.as_ref();
    access_key.map_or_else(String::new, |id| format!(", for S3 as {id}"))
}

fn thing(key: &Key) -> Thing {
    Thing::new("key", key.id, key.name.clone())
}

/// The caller's keys, the oldest first; with `all`, also those that ended.
pub async fn list(engine: &Engine, caller: &Caller, all: bool) -> Result<Vec<Key>> {
    let mut tx = engine.inner.db.read().await?;
    let mut keys = db::key::of_user(&mut tx, caller.id()).await?;
    let now = engine.inner.clock.now();
    keys.retain(|key| all || works(key, now));
    Ok(keys)
}

/// Ends a key of the caller, by its id or its name.
pub async fn revoke(engine: &Engine, caller: &Caller, which: &str) -> Result<Key> {
    caller.require_whole("revoke keys")?;
    let now = engine.inner.clock.now();
    let mut tx = engine.inner.db.write().await?;
    let keys = db::key::of_user(&mut tx, caller.id()).await?;
    let working: Vec<&Key> = keys.iter().filter(|key| works(key, now)).collect();
    let is_it = |key: &&&Key| key.name == which || key.id.to_string() == which;
    let Some(key) = working.iter().find(is_it) else {
        return Err(Error::NotFound {
            what: format!("no key '{which}' of yours works"),
            hint: Some("`grid user keys` lists those that do".to_owned()),
        });
    };
    let mut key = Key::clone(key);
    let is_sent = |key: &&&Key| key.access_key.is_none();
    if key.access_key.is_none() && working.iter().filter(is_sent).count() == 1 {
        return Err(Error::Conflict {
            message: format!(
                "'{}' is your only key: you could not sign in any more",
                key.name
            ),
            hint: Some("replace it instead: grid user rotate-key".to_owned()),
        });
    }
    db::key::revoke(&mut tx, key.id, now).await?;
    let event = caller.did("key.revoke", None, thing(&key));
    event.write(engine, &mut tx).await?;
    tx.commit().await?;
    engine.inner.watch.people_changed();
    key.revoked_at = Some(now);
    Ok(key)
}

/// An account for programs with its keys that work.
#[derive(Debug, Clone)]
pub struct Account {
    /// The account.
    pub user: db::user::User,
    /// What it is in the team.
    pub role: Role,
    /// Its keys.
    pub keys: Vec<Key>,
}

/// The accounts for programs that a team owns.
pub async fn accounts(engine: &Engine, caller: &Caller, team: &str) -> Result<Vec<Account>> {
    let mut tx = engine.inner.db.read().await?;
    let found = caller.team(&mut tx, team).await?;
    caller.check_team(&found, Action::SeeTeam)?;
    list_accounts(engine, &mut tx, found.team.id).await
}

async fn list_accounts(
    engine: &Engine,
    tx: &mut Tx,
    team: grid_core::id::TeamId,
) -> Result<Vec<Account>> {
    let now = engine.inner.clock.now();
    let mut accounts = Vec::new();
    for user in db::user::of_service_team(tx, team).await? {
        let mut keys = db::key::of_user(tx, user.id).await?;
        keys.retain(|key| works(key, now));
        let role = db::team::role_of(tx, user.id, team).await?;
        accounts.push(Account {
            role: role.unwrap_or(Role::Viewer),
            user,
            keys,
        });
    }
    Ok(accounts)
}

/// Makes an account for programs in a team, with its first key.
pub async fn create_account(
    engine: &Engine,
    caller: &Caller,
    team: &str,
    name: &str,
    role: Role,
    key: &NewKey,
) -> Result<Created> {
    let (clock, now) = (&engine.inner.clock, engine.inner.clock.now());
    let mut tx = engine.inner.db.write().await?;
    let found = team::locked(&mut tx, caller, team, Action::ManageTeam).await?;
    team::require_shared(&found.team)?;
    let name = UserName::parse(name).map_err(|e| Error::invalid(e.to_string()))?;
    if role > Role::Member {
        return Err(Error::invalid(
            "a service account can be a member or a viewer, and no more",
        ));
    }
    require_narrow(key)?;
    let account = db::user::User {
        id: UserId::from_entropy(clock.entropy()),
        username: name.to_string(),
        email: String::new(),
        first_name: String::new(),
        last_name: String::new(),
        operator: false,
        current_team: Some(found.team.id),
        created_at: now,
        disabled_at: None,
        service_team: Some(found.team.id),
    };
    // Nobody's own team may have its name either: `user:run` must mean one thing.
    if db::team::by_name(&mut tx, name.as_str()).await?.is_some() {
        return Err(user::name_taken(&name));
    }
    let inserted = db::user::insert(&mut tx, &account).await;
    inserted.map_err(|error| match error {
        db::Error::Conflict { .. } => user::name_taken(&name),
        other => other.into(),
    })?;
    db::team::set_role(&mut tx, found.team.id, account.id, role, now).await?;
    let (key, secret) = insert(engine, &mut tx, account.id, key).await?;
    let thing = Thing::user(&account);
    let event = caller.did("service_account.create", Some(found.team.id), thing);
    let event = event.detail(format!("as {role}, key of scope {}", key.scope));
    event.write(engine, &mut tx).await?;
    tx.commit().await?;
    engine.inner.watch.people_changed();
    Ok(Created {
        user: account,
        key,
        secret,
    })
}

/// An account for programs looks after no team.
fn require_narrow(key: &NewKey) -> Result<()> {
    if key.scope < Scope::All {
        return Ok(());
    }
    Err(Error::invalid(
        "a key of a service account has the scope 'read' or 'run'",
    ))
}

async fn account(tx: &mut Tx, team: &db::team::Team, name: &str) -> Result<db::user::User> {
    let accounts = db::user::of_service_team(tx, team.id).await?;
    let name = name.to_lowercase();
    let found = accounts.into_iter().find(|user| user.username == name);
    found.ok_or_else(|| {
        Error::not_found(format!(
            "team '{}' has no service account '{name}'",
            team.name
        ))
    })
}

/// Makes another key for an account for programs.
pub async fn create_account_key(
    engine: &Engine,
    caller: &Caller,
    team: &str,
    name: &str,
    new: &NewKey,
) -> Result<Created> {
    let mut tx = engine.inner.db.write().await?;
    let found = team::locked(&mut tx, caller, team, Action::ManageTeam).await?;
    require_narrow(new)?;
    let user = account(&mut tx, &found.team, name).await?;
    let (key, secret) = insert(engine, &mut tx, user.id, new).await?;
    let event = caller.did("key.create", Some(found.team.id), thing(&key));
    let event = event.detail(format!(
        "for {}, scope {}{}",
        user.username,
        key.scope,
        kind(&key)
    ));
    event.write(engine, &mut tx).await?;
    tx.commit().await?;
    Ok(Created { user, key, secret })
}

/// Closes an account for programs: its keys end at once.  Its runs stay.
pub async fn remove_account(
    engine: &Engine,
    caller: &Caller,
    team: &str,
    name: &str,
) -> Result<Vec<Account>> {
    let mut tx = engine.inner.db.write().await?;
    let found = team::locked(&mut tx, caller, team, Action::ManageTeam).await?;
    let user = account(&mut tx, &found.team, name).await?;
    team::part(engine, &mut tx, &user, found.team.id).await?;
    let thing = Thing::user(&user);
    let event = caller.did("service_account.remove", Some(found.team.id), thing);
    event.write(engine, &mut tx).await?;
    let accounts = list_accounts(engine, &mut tx, found.team.id).await?;
    tx.commit().await?;
    engine.inner.watch.people_changed();
    Ok(accounts)
}
