//! Credentials: made by somebody for their team, encrypted at rest, opened only to be used,
//! and never shown again.
//!
//! Whoever may use one reads what is no secret in it.  Only [`open`] gives all of it, to code
//! of this server that works in the caller's name; what it gives is never sent to people.

use std::collections::HashMap;

use grid_core::access::Action;
use grid_core::credential::{S3, Shown, check_name};
use grid_core::id::{CredentialId, TeamId, UserId};
use grid_store::db::{self, Tx, credential::Credential as Row};

use crate::access::{Caller, Owned};
use crate::audit::Thing;
use crate::error::{Error, Result};
use crate::vault::Sealed;
use crate::{Engine, reference};

/// Credentials of one user, as in the original product.
pub const CREDENTIALS_MAX: usize = 50;

/// What a credential is called when nobody says.
const NAME: &str = "s3";

/// A credential as those see it who may know of it.
#[derive(Debug, Clone)]
pub struct Credential {
    /// The row.
    pub row: Row,
    /// Who made it.
    pub created_by: String,
    /// The team that may use it.
    pub team: String,
    /// What is no secret in it; `None` when the caller may not read that.
    pub shown: Option<Shown>,
    /// Why it cannot be used at all.
    pub problem: Option<String>,
}

/// A new one.
#[derive(Debug, Clone)]
pub struct New {
    /// What to call it; chosen when absent.
    pub name: Option<String>,
    /// The team that may use it; the caller's current one when absent.
    pub team: Option<String>,
    /// What is in it.
    pub content: S3,
}

/// A credential, open, to be used at once and forgotten.
#[derive(Debug)]
pub struct Opened {
    /// Its id.
    pub id: CredentialId,
    /// Its name, as its creator knows it.
    pub name: String,
    /// What is in it.
    pub content: S3,
}

impl Owned for Row {
    fn team(&self) -> TeamId {
        self.team
    }

    fn creator(&self) -> UserId {
        self.creator
    }

    fn called(&self) -> String {
        format!("credential '{}'", self.name)
    }

    fn thing(&self, creator: &str) -> Thing {
        Thing::made("credential", self.id, creator, &self.name)
    }
}

/// What the encrypted text is bound to.
fn place(id: CredentialId, creator: UserId) -> String {
    format!("credential {id} of {creator}")
}

fn seal(engine: &Engine, id: CredentialId, creator: UserId, content: &S3) -> Result<Sealed> {
    let text = serde_json::to_vec(content).map_err(Error::internal)?;
    let inner = &engine.inner;
    inner.vault.seal(&*inner.clock, &place(id, creator), &text)
}

fn unseal(engine: &Engine, row: &Row) -> Result<S3> {
    let sealed = Sealed {
        text: row.sealed.clone(),
        with: row.sealed_with.clone(),
    };
    let place = place(row.id, row.creator);
    let text = engine.inner.vault.open(&place, &sealed)?;
    serde_json::from_slice(&text).map_err(Error::internal)
}

/// The credential that `text` names, by `name`, `user:name` or id, if the caller may know
/// of it.
async fn find(tx: &mut Tx, caller: &Caller, text: &str) -> Result<Row> {
    let found = if let Ok(id) = text.parse::<CredentialId>() {
        db::credential::by_id(tx, id).await?
    } else {
        let (creator, name) = match text.split_once(':') {
            Some((user, name)) => (reference::user_or_nobody(tx, user).await?, name),
            None => (caller.id(), text),
        };
        db::credential::by_name(tx, creator, name).await?
    };
    match found {
        Some(row) if caller.sees(&row, Action::UseCredential) => return Ok(row),
        Some(row) => caller.note_hidden(Action::UseCredential, row.team(), row.thing("")),
        None => {}
    }
    Err(Error::NotFound {
        what: format!("no credential '{text}'"),
        hint: Some("`grid credential list --global` lists those that you can use".to_owned()),
    })
}

/// What the caller may see of a credential.
fn view(engine: &Engine, caller: &Caller, row: Row, names: &Names) -> Credential {
    let (shown, problem) = if caller.would(&row, Action::UseCredential) {
        match unseal(engine, &row) {
            Ok(content) => (Some(content.shown()), None),
            Err(Error::Unavailable(why)) => (None, Some(why)),
            Err(_) => (None, Some("it is damaged in the database".to_owned())),
        }
    } else {
        (None, None)
    };
    Credential {
        created_by: names.users.get(&row.creator).cloned().unwrap_or_default(),
        team: names.teams.get(&row.team).cloned().unwrap_or_default(),
        row,
        shown,
        problem,
    }
}

/// Whether the caller sees that it is there: to use it or, having made it and become a
/// viewer, to delete it.
fn is_known(caller: &Caller, row: &Row) -> bool {
    caller.would(row, Action::UseCredential) || caller.would(row, Action::DeleteCredential)
}

struct Names {
    users: HashMap<UserId, String>,
    teams: HashMap<TeamId, String>,
}

impl Names {
    async fn of(tx: &mut Tx, rows: &[Row]) -> Result<Self> {
        let mut users: Vec<UserId> = rows.iter().map(|row| row.creator).collect();
        users.sort_unstable();
        users.dedup();
        let mut teams: Vec<TeamId> = rows.iter().map(|row| row.team).collect();
        teams.sort_unstable();
        teams.dedup();
        let users = db::user::by_ids(tx, &users).await?;
        let teams = db::team::by_ids(tx, &teams).await?;
        Ok(Self {
            users: users
                .into_iter()
                .map(|user| (user.id, user.username))
                .collect(),
            teams: teams.into_iter().map(|team| (team.id, team.name)).collect(),
        })
    }
}

async fn one(engine: &Engine, tx: &mut Tx, caller: &Caller, row: Row) -> Result<Credential> {
    let names = Names::of(tx, std::slice::from_ref(&row)).await?;
    Ok(view(engine, caller, row, &names))
}

/// Makes a credential.
pub async fn create(engine: &Engine, caller: &Caller, new: &New) -> Result<Credential> {
    caller.require_whole("make credentials")?;
    let team = caller.team_for_new(new.team.as_deref())?.id;
    let invalid = |e: grid_core::credential::Error| Error::invalid(e.to_string());
    new.content.check().map_err(invalid)?;
    if let Some(name) = &new.name {
        check_name(name).map_err(invalid)?;
    }
    let (clock, now) = (&engine.inner.clock, engine.inner.clock.now());
    let id = CredentialId::from_parts(now, clock.entropy());
    let sealed = seal(engine, id, caller.id(), &new.content)?;
    let mut tx = engine.inner.db.write().await?;
    let known = db::credential::of_creator(&mut tx, caller.id()).await?;
    if known.len() >= CREDENTIALS_MAX {
        return Err(Error::conflict(format!(
            "you have {CREDENTIALS_MAX} credentials, which is the limit: delete some first"
        )));
    }
    let row = Row {
        id,
        team,
        creator: caller.id(),
        name: free_name(&known, new.name.as_deref())?,
        kind: new.content.kind(),
        sealed: sealed.text,
        sealed_with: sealed.with,
        created_at: now,
        updated_at: now,
    };
    db::credential::insert(&mut tx, &row).await?;
    let event = caller.did(
        "credential.create",
        Some(team),
        row.thing(&caller.user.username),
    );
    let event = event.detail(format!("kind {}", row.kind.as_str()));
    event.write(engine, &mut tx).await?;
    let made = one(engine, &mut tx, caller, row).await?;
    tx.commit().await?;
    Ok(made)
}

/// The name that was asked for, or the first free one: `s3`, `s3-2`, `s3-3`.
fn free_name(known: &[Row], asked: Option<&str>) -> Result<String> {
    let is_taken = |name: &str| known.iter().any(|row| row.name == name);
    match asked {
        Some(name) if is_taken(name) => Err(Error::Conflict {
            message: format!("you have a credential '{name}' already"),
            hint: Some("choose another name, or change or delete that one".to_owned()),
        }),
        Some(name) => Ok(name.to_owned()),
        None => {
            let names = (1..=known.len() + 1).map(|n| match n {
                1 => NAME.to_owned(),
                n => format!("{NAME}-{n}"),
            });
            let mut free = names.filter(|name| !is_taken(name));
            free.next()
                .ok_or_else(|| Error::internal(anyhow::anyhow!("no name is free")))
        }
    }
}

/// The caller's credentials, the oldest first; with `global`, also those that teammates made
/// and the caller may use.
pub async fn list(engine: &Engine, caller: &Caller, global: bool) -> Result<Vec<Credential>> {
    let mut tx = engine.inner.db.read().await?;
    let mut rows = if global {
        let teams: Vec<TeamId> = caller.teams.iter().map(|(team, _)| team.id).collect();
        db::credential::of_teams(&mut tx, &teams).await?
    } else {
        db::credential::of_creator(&mut tx, caller.id()).await?
    };
    rows.retain(|row| is_known(caller, row));
    let names = Names::of(&mut tx, &rows).await?;
    drop(tx);
    let views = rows
        .into_iter()
        .map(|row| view(engine, caller, row, &names));
    Ok(views.collect())
}

/// One credential, without its secret.
pub async fn get(engine: &Engine, caller: &Caller, which: &str) -> Result<Credential> {
    let mut tx = engine.inner.db.read().await?;
    let row = find(&mut tx, caller, which).await?;
    if !is_known(caller, &row) {
        caller.check(&mut tx, &row, Action::UseCredential).await?;
    }
    one(engine, &mut tx, caller, row).await
}

/// Puts something else into a credential of the caller's.
pub async fn update(
    engine: &Engine,
    caller: &Caller,
    which: &str,
    content: &S3,
) -> Result<Credential> {
    content.check().map_err(|e| Error::invalid(e.to_string()))?;
    let mut tx = engine.inner.db.write().await?;
    let before = find(&mut tx, caller, which).await?;
    caller
        .check(&mut tx, &before, Action::ChangeCredential)
        .await?;
    let sealed = seal(engine, before.id, before.creator, content)?;
    let since = before.updated_at;
    let row = Row {
        kind: content.kind(),
        sealed: sealed.text,
        sealed_with: sealed.with,
        // Later than before also where the clock went backwards: it guards the next change.
        updated_at: engine.inner.clock.now().max(since.plus_millis(1)),
        ..before
    };
    if !db::credential::update(&mut tx, &row, since).await? {
        return Err(Error::conflict(format!(
            "credential '{}' was changed meanwhile: try again",
            row.name
        )));
    }
    let event = caller.did(
        Action::ChangeCredential.word(),
        Some(row.team),
        row.thing(&caller.user.username),
    );
    event.write(engine, &mut tx).await?;
    let changed = one(engine, &mut tx, caller, row).await?;
    tx.commit().await?;
    Ok(changed)
}

/// Deletes a credential at once and for ever.  What uses it cannot any more.
pub async fn delete(engine: &Engine, caller: &Caller, which: &str) -> Result<Credential> {
    let mut tx = engine.inner.db.write().await?;
    let row = find(&mut tx, caller, which).await?;
    caller
        .check(&mut tx, &row, Action::DeleteCredential)
        .await?;
    let gone = one(engine, &mut tx, caller, row).await?;
    db::credential::remove(&mut tx, gone.row.id).await?;
    let event = caller.did(
        Action::DeleteCredential.word(),
        Some(gone.row.team),
        gone.row.thing(&gone.created_by),
    );
    event.write(engine, &mut tx).await?;
    tx.commit().await?;
    Ok(gone)
}

/// Opens a credential that the caller may use, by `name`, `user:name` or id, for this server
/// to use in their name.  What it says must not be sent to anybody.
pub async fn open(engine: &Engine, caller: &Caller, which: &str) -> Result<Opened> {
    let mut tx = engine.inner.db.read().await?;
    let row = find(&mut tx, caller, which).await?;
    caller.check(&mut tx, &row, Action::UseCredential).await?;
    let names = Names::of(&mut tx, std::slice::from_ref(&row)).await?;
    drop(tx);
    let content = unseal(engine, &row)?;
    let creator = names.users.get(&row.creator).cloned().unwrap_or_default();
    let event = caller.did(
        Action::UseCredential.word(),
        Some(row.team),
        row.thing(&creator),
    );
    event.write_alone(engine).await?;
    Ok(Opened {
        id: row.id,
        name: row.name,
        content,
    })
}

/// The credential that a thing was made with, as it is now, for whoever made that: as long as
/// it is there, and they may use it.
pub(crate) async fn of_maker(engine: &Engine, id: CredentialId, user: UserId) -> Result<Row> {
    let mut tx = engine.inner.db.read().await?;
    let row = db::credential::by_id(&mut tx, id).await?;
    let Some(row) = row else {
        return Err(Error::conflict(
            "the credential that opens it was deleted: make another version of it",
        ));
    };
    let maker = db::user::by_id(&mut tx, user).await?;
    let maker = match maker {
        Some(maker) => Some(Caller::load(&mut tx, maker, None).await?),
        None => None,
    };
    drop(tx);
    if !maker.is_some_and(|maker| maker.would(&row, Action::UseCredential)) {
        return Err(Error::conflict(format!(
            "whoever made it may not use credential '{}' any more",
            row.name
        )));
    }
    Ok(row)
}

/// Opens what [`of_maker`] gave.
pub(crate) fn open_row(engine: &Engine, row: &Row) -> Result<S3> {
    unseal(engine, row)
}

/// What the key of this server does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SealedOtherwise {
    /// Credentials.
    pub credentials: u64,
    /// Keys that sign requests of S3.
    pub signing_keys: u64,
}

impl SealedOtherwise {
    /// Whether it opens everything.
    pub fn is_nothing(self) -> bool {
        self.credentials == 0 && self.signing_keys == 0
    }
}

impl std::fmt::Display for SealedOtherwise {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.credentials, self.signing_keys) {
            (credentials, 0) => write!(f, "{credentials} credential(s)"),
            (0, keys) => write!(f, "{keys} key(s) for S3"),
            (credentials, keys) => {
                write!(f, "{credentials} credential(s) and {keys} key(s) for S3")
            }
        }
    }
}

/// Counts what was encrypted with another key than that of this server.
pub async fn sealed_otherwise(engine: &Engine) -> Result<SealedOtherwise> {
    let mut tx = engine.inner.db.read().await?;
    let key = engine.inner.vault.name();
    let now = engine.inner.clock.now();
    Ok(SealedOtherwise {
        credentials: db::credential::sealed_otherwise(&mut tx, key).await?,
        signing_keys: db::key::sealed_otherwise(&mut tx, key, now).await?,
    })
}
