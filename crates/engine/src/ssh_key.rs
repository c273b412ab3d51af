//! Public SSH keys: what a user may get into their sessions with.  They are a user's own:
//! nobody else sees them, and no team has a say.

use grid_core::id::SshKeyId;
use grid_core::ssh_key::PublicKey;
use grid_store::db::{self, ssh_key::SshKey};

use crate::Engine;
use crate::access::Caller;
use crate::audit::Thing;
use crate::error::{Error, Result};

/// Keys of one user.  Higher: nobody knows any more whose they are; lower: people with many
/// machines are turned away.
pub const KEYS_MAX: usize = 100;

/// Longest name of a key, in characters.
const NAME_MAX: usize = 64;

fn thing(key: &SshKey) -> Thing {
    Thing::new("ssh_key", key.id, key.name.clone())
}

/// Adds a key of the caller's.
pub async fn add(engine: &Engine, caller: &Caller, name: &str, public_key: &str) -> Result<SshKey> {
    caller.require_whole("add SSH keys")?;
    let public: PublicKey = public_key
        .parse()
        .map_err(|e: grid_core::ssh_key::Error| Error::invalid(e.to_string()))?;
    let name = name.trim();
    let len = name.chars().count();
    if len == 0 || len > NAME_MAX || name.contains(char::is_control) {
        return Err(Error::invalid(format!(
            "the name of an SSH key has 1 to {NAME_MAX} characters"
        )));
    }
    let (clock, now) = (&engine.inner.clock, engine.inner.clock.now());
    let key = SshKey {
        id: SshKeyId::from_parts(now, clock.entropy()),
        user: caller.id(),
        name: name.to_owned(),
        fingerprint: public.fingerprint(),
        public_key: public.to_string(),
        created_at: now,
    };
    let mut tx = engine.inner.db.write().await?;
    let known = db::ssh_key::of_user(&mut tx, caller.id()).await?;
    require_new(&known, &key)?;
    db::ssh_key::insert(&mut tx, &key).await?;
    let event = caller.did("ssh_key.add", None, thing(&key));
    let event = event.detail(format!("{} {}", public.kind(), key.fingerprint));
    event.write(engine, &mut tx).await?;
    tx.commit().await?;
    Ok(key)
}

fn require_new(known: &[SshKey], key: &SshKey) -> Result<()> {
    if let Some(same) = known.iter().find(|one| one.fingerprint == key.fingerprint) {
        return Err(Error::conflict(format!(
            "you have this SSH key already, as '{}'",
            same.name
        )));
    }
    if known.iter().any(|one| one.name == key.name) {
        return Err(Error::Conflict {
            message: format!("you have an SSH key '{}' already", key.name),
            hint: Some("choose another name, or remove that one first".to_owned()),
        });
    }
    if known.len() >= KEYS_MAX {
        return Err(Error::conflict(format!(
            "you have {KEYS_MAX} SSH keys, which is the limit: remove some first"
        )));
    }
    Ok(())
}

/// The caller's keys, the oldest first.
pub async fn list(engine: &Engine, caller: &Caller) -> Result<Vec<SshKey>> {
    let mut tx = engine.inner.db.read().await?;
    Ok(db::ssh_key::of_user(&mut tx, caller.id()).await?)
}

/// Removes a key of the caller's, by its id or its name.
pub async fn remove(engine: &Engine, caller: &Caller, which: &str) -> Result<SshKey> {
    caller.require_whole("remove SSH keys")?;
    let mut tx = engine.inner.db.write().await?;
    let known = db::ssh_key::of_user(&mut tx, caller.id()).await?;
    let is_it = |key: &SshKey| key.name == which || key.id.to_string() == which;
    let Some(key) = known.into_iter().find(is_it) else {
        return Err(Error::NotFound {
            what: format!("no SSH key '{which}' of yours"),
            hint: Some("`grid ssh-keys list` lists them".to_owned()),
        });
    };
    db::ssh_key::remove(&mut tx, caller.id(), key.id).await?;
    let event = caller.did("ssh_key.remove", None, thing(&key));
    event.write(engine, &mut tx).await?;
    tx.commit().await?;
    Ok(key)
}
