//! Keys that sign requests, as S3 has them: a name that is sent, and a secret that never is.
//!
//! Whoever checks a signature needs the secret itself, so it is kept sealed in the database,
//! and opened for each request, after which it is forgotten.

use grid_core::time::Timestamp;
use grid_store::db::{self, key::Key, key::SealedSecret};

use crate::access::Caller;
use crate::audit::Trail;
use crate::error::{Error, Result};
use crate::vault::Sealed;
use crate::{Clock, Engine, user};

/// Characters of the part of an access key that is drawn: 80 bits, told apart at a glance.
const ACCESS_KEY_LEN: usize = 16;

/// What every access key begins with.
const PREFIX: &str = "GRID";

/// Characters of a secret, 5 bits each: as many as programs expect there to be.
const SECRET_LEN: usize = 40;

/// The letters of both, of which none is taken for another.
const LETTERS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// Longest access key that is looked for: longer is nobody's.
const ACCESS_KEY_BYTES_MAX: usize = 64;

/// A key that may have signed a request.  Whether it has is for whoever checks the
/// signature to say; then it becomes a [`Caller`].
pub struct Signer {
    key: Key,
    user: db::user::User,
    secret: String,
}

// The secret never reaches a log by way of `{:?}`.
impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer")
            .field("key", &self.key.id)
            .finish_non_exhaustive()
    }
}

/// A new name of a key.
pub(super) fn access_key(clock: &dyn Clock) -> String {
    format!("{PREFIX}{}", letters(clock, ACCESS_KEY_LEN))
}

/// A new secret.
pub(super) fn secret(clock: &dyn Clock) -> String {
    letters(clock, SECRET_LEN)
}

fn letters(clock: &dyn Clock, len: usize) -> String {
    let mut text = String::with_capacity(len);
    while text.len() < len {
        let bytes = clock.entropy().to_le_bytes();
        let left = len - text.len();
        text.extend(
            bytes
                .iter()
                .take(left)
                .map(|byte| char::from(LETTERS[usize::from(byte % 32)])),
        );
    }
    text
}

/// What the encrypted text is bound to.
fn place(key: &Key) -> String {
    format!("S3 key {} of {}", key.id, key.user)
}

pub(super) fn seal(engine: &Engine, key: &Key, secret: &str) -> Result<SealedSecret> {
    let inner = &engine.inner;
    let sealed = inner
        .vault
        .seal(&*inner.clock, &place(key), secret.as_bytes())?;
    Ok(SealedSecret {
        text: sealed.text,
        with: sealed.with,
    })
}

/// The key that has this name; `None` where there is none, or none any more.
pub async fn signer(engine: &Engine, trail: &Trail, access_key: &str) -> Result<Option<Signer>> {
    if access_key.len() > ACCESS_KEY_BYTES_MAX {
        trail.failed_login("", "no such access key of S3");
        return Ok(None);
    }
    let mut tx = engine.inner.db.read().await?;
    let found = db::key::by_access_key(&mut tx, access_key).await?;
    drop(tx);
    let Some((key, user, sealed)) = found else {
        trail.failed_login(access_key, "no such access key of S3");
        return Ok(None);
    };
    if let Err(error) = user::usable(&key, &user, engine.inner.clock.now()) {
        trail.failed_login(&user.username, &error.to_string());
        return Ok(None);
    }
    let sealed = Sealed {
        text: sealed.text,
        with: sealed.with,
    };
    let opened = engine.inner.vault.open(&place(&key), &sealed);
    let opened = opened.map_err(|error| match error {
        Error::Unavailable(_) => Error::Unavailable(
            "this key was encrypted with another key than the server has now: make a new one \
             with `grid user keys create NAME --s3`"
                .to_owned(),
        ),
        other => other,
    })?;
    let secret = String::from_utf8(opened).map_err(Error::internal)?;
    Ok(Some(Signer { key, user, secret }))
}

impl Signer {
    /// What checks its signatures.
    pub fn secret(&self) -> &str {
        &self.secret
    }

    /// Its signature was right: who calls, by a request that leaves `trail`.
    pub async fn enter(self, engine: &Engine, trail: &Trail) -> Result<Caller> {
        let now: Timestamp = engine.inner.clock.now();
        let tx = engine.inner.db.read().await?;
        let caller = user::admit(engine, tx, self.key, self.user, now).await?;
        Ok(caller.on(trail.clone()))
    }

    /// Its signature was wrong.
    pub fn refused(&self, trail: &Trail, why: &str) {
        trail.failed_login(&self.user.username, why);
    }
}
