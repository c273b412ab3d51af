//! What stands for a signed-in user for one purpose and for a while: a token after signing
//! in by name, an address that is fetched or written to without other credentials.
//!
//! A ticket is signed, not stored.  It names its user, their key and its end; what it is
//! good for is signed with it but not in it, so that whoever takes it must say what they
//! take it for.  It opens nothing that its user could not open with their key at that
//! moment: a key that was revoked, or a team that was left, ends it, too.

use grid_core::access::Scope;
use grid_core::id::{KeyId, RunId, UploadId, UserId, WorkloadId};
use grid_core::time::Timestamp;
use grid_store::db;
use tokio::time::Instant;

use crate::Engine;
use crate::access::Caller;
use crate::audit::Trail;
use crate::error::{Error, Result};
use crate::user;

/// The first part of every ticket; another form gets another word.
const FORM: &str = "t1";

/// Longest ticket that is looked at, in bytes.  The longest that is made has 145.
const BYTES_MAX: usize = 256;

/// What a ticket is good for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Purpose {
    /// Everything that the key is good for, as after signing in.
    SignIn,
    /// Sending the code of a run that waits for it.
    SendCode(RunId),
    /// Sending one part of a file of a datastore, by its upload and number.
    SendPart(UploadId, u32),
    /// Handing files of the server's machine over.
    HandOver,
    /// Fetching one artifact.
    FetchArtifact(WorkloadId, String),
}

impl Purpose {
    /// What is signed; no two purposes have the same text.
    fn text(&self) -> String {
        match self {
            Self::SignIn => "sign in".to_owned(),
            Self::SendCode(run) => format!("send code of {run}"),
            Self::SendPart(upload, number) => format!("send part {number} of {upload}"),
            Self::HandOver => "hand files over".to_owned(),
            Self::FetchArtifact(workload, path) => format!("fetch artifact of {workload}: {path}"),
        }
    }
}

/// A ticket, and until when it works.
#[derive(Debug, Clone)]
pub struct Ticket {
    /// What is shown to be let in.  Letters, digits, `-` and `.`.
    pub text: String,
    /// Until when.
    pub expires_at: Timestamp,
}

/// Why a ticket does not let anybody in.
enum Wrong {
    /// It is not one of ours, or not for this.
    Strange,
    /// Its time is over.
    Over(Timestamp),
    /// Something else.
    Error(Error),
}

impl From<Error> for Wrong {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl From<db::Error> for Wrong {
    fn from(error: db::Error) -> Self {
        Self::Error(error.into())
    }
}

/// Makes a ticket that stands for `caller` for `life_ms`.
pub fn issue(engine: &Engine, caller: &Caller, purpose: &Purpose, life_ms: i64) -> Ticket {
    let expires_at = engine.inner.clock.now().plus_millis(life_ms);
    let key = caller.key.map_or_else(String::new, |key| key.to_string());
    let user = caller.id().to_string();
    let named = format!("{FORM}.{:x}.{user}.{key}", expires_at.as_millis());
    let signature = sign(engine, &named, purpose);
    Ticket {
        text: format!("{named}.{}", signature.to_hex()),
        expires_at,
    }
}

/// Whether `text` has the form of a ticket at all, and so is no key.
pub fn is_one(text: &str) -> bool {
    parts(text).is_some()
}

/// Lets in whoever shows a ticket in an address.  One that does not work is refused with
/// words for whoever follows the address.
pub async fn admit(
    engine: &Engine,
    trail: &Trail,
    text: &str,
    purpose: &Purpose,
) -> Result<Caller> {
    match caller(engine, text, purpose).await {
        Ok(caller) => Ok(caller.on(trail.clone())),
        Err(Wrong::Strange) => Err(Error::Forbidden {
            message: "this address is not one that this server gave out for this".to_owned(),
            hint: Some("use the address as it was given, for what it was given".to_owned()),
        }),
        Err(Wrong::Over(at)) => Err(Error::Forbidden {
            message: format!("this address has expired: it worked until {at}"),
            hint: Some("ask for it again and use the new one".to_owned()),
        }),
        // What the user has lost meanwhile, the address has lost, too.
        Err(Wrong::Error(Error::Unauthenticated(why))) => Err(Error::forbidden(format!(
            "this address does not work any more: {why}"
        ))),
        Err(Wrong::Error(error)) => Err(error),
    }
}

/// Lets somebody in who signed in a while ago.  Wrong tickets count like wrong keys.
pub async fn enter(engine: &Engine, trail: &Trail, text: &str) -> Result<Caller> {
    let (guard, address) = (&engine.inner.guard, trail.origin().address.as_str());
    let now = Instant::now();
    if guard.is_closed("", address, now) {
        return Err(Error::TooMany(
            "too many wrong keys were tried from this address: wait a minute, and try again"
                .to_owned(),
        ));
    }
    let why = match caller(engine, text, &Purpose::SignIn).await {
        Ok(caller) => return Ok(caller.on(trail.clone())),
        Err(Wrong::Over(_)) => "this token has expired; sign in again".to_owned(),
        Err(Wrong::Strange) => "this token is not one of this server; sign in again".to_owned(),
        Err(Wrong::Error(Error::Unauthenticated(why))) => why,
        Err(Wrong::Error(error)) => return Err(error),
    };
    guard.failed("", address, now);
    trail.failed_login("", &why);
    Err(Error::Unauthenticated(why))
}

struct Parts<'a> {
    named: &'a str,
    expires_at: Timestamp,
    user: UserId,
    key: Option<KeyId>,
    signature: blake3::Hash,
}

fn parts(text: &str) -> Option<Parts<'_>> {
    if text.len() > BYTES_MAX {
        return None;
    }
    let (named, signature) = text.rsplit_once('.')?;
    let mut fields = named.split('.');
    if fields.next()? != FORM {
        return None;
    }
    let expires_at = i64::from_str_radix(fields.next()?, 16).ok()?;
    let user = fields.next()?.parse().ok()?;
    let key = match fields.next()? {
        "" => None,
        key => Some(key.parse().ok()?),
    };
    if fields.next().is_some() {
        return None;
    }
    Some(Parts {
        named,
        expires_at: Timestamp::from_millis(expires_at),
        user,
        key,
        signature: blake3::Hash::from_hex(signature).ok()?,
    })
}

fn sign(engine: &Engine, named: &str, purpose: &Purpose) -> blake3::Hash {
    // A key of its own: what is signed here is never taken for what is sealed elsewhere.
    let key = blake3::derive_key(
        "grid tickets: who, until when, for what",
        &engine.inner.secret,
    );
    let text = format!("{named}\n{}", purpose.text());
    blake3::keyed_hash(&key, text.as_bytes())
}

async fn caller(engine: &Engine, text: &str, purpose: &Purpose) -> Result<Caller, Wrong> {
    let parts = parts(text).ok_or(Wrong::Strange)?;
    // Compared in the same time whatever is wrong with it.
    if sign(engine, parts.named, purpose) != parts.signature {
        return Err(Wrong::Strange);
    }
    if engine.inner.clock.now() >= parts.expires_at {
        return Err(Wrong::Over(parts.expires_at));
    }
    let gone = |what: &str| Error::Unauthenticated(format!("its {what} is gone"));
    let mut tx = engine.inner.db.read().await?;
    let user = db::user::by_id(&mut tx, parts.user).await?;
    let user = user.ok_or_else(|| gone("account"))?;
    let scope = match parts.key {
        None => Scope::All,
        Some(id) => {
            let keys = db::key::of_user(&mut tx, user.id).await?;
            let key = keys.iter().find(|key| key.id == id);
            let key = key.ok_or_else(|| gone("API key"))?;
            // What is not understood is good for the least.
            Scope::parse(&key.scope).unwrap_or(Scope::Read)
        }
    };
    let named = Caller {
        user,
        key: parts.key,
        scope,
        teams: Vec::new(),
        trail: Trail::default(),
    };
    Ok(user::again(engine, &mut tx, &named).await?)
}
