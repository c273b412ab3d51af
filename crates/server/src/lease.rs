//! One server on one database, also when the database is elsewhere.
//!
//! The lock of the data folder keeps two servers out of one folder; a database with an
//! address of its own can be named by servers in two folders, or on two machines.  So the
//! server holds a lease there, prolongs it, and ends when somebody else has it.
//!
//! A lease says who holds it by machine and folder: the next server in the same folder,
//! which has the lock, need not wait for the lease of one that was killed.  Machines' clocks
//! must agree within seconds.  Should two servers write all the same (one was asleep when
//! its time was over), each commit names the version of what it changes, and the later one
//! is refused.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use grid_engine::{Clock, SystemClock};
use grid_store::db::{self, Db};
use tokio::task::JoinHandle;

/// The name of the lease.
const NAME: &str = "server";

/// How long it lasts unprolonged.  Higher: after a machine died, the next one waits for
/// longer; lower: a database that hangs for a moment costs the lease.
const LIFE: Duration = Duration::from_secs(30);

/// How often it is prolonged.
const PROLONG_EVERY: Duration = Duration::from_secs(10);

/// A lease that is held, and prolonged until it is given back or lost.
#[derive(Debug)]
pub(crate) struct Lease {
    db: Db,
    holder: String,
    prolonging: JoinHandle<anyhow::Error>,
}

/// Who works in a folder: what a refusal names.
pub(crate) fn holder(folder: &Path) -> String {
    let host = rustix::system::uname();
    let host = host.nodename().to_string_lossy();
    format!("machine {host}, data in {}", folder.display())
}

impl Lease {
    /// Takes the lease, or says who has it.
    pub(crate) async fn take(db: &Db, holder: String) -> Result<Self> {
        if let Err((other, until)) = acquire(db, &holder).await.context("taking the lease")? {
            bail!(
                "another server works with this database ({other}): stop it first. If it is \
                 dead, its lease ends at {until}; start this one again then"
            );
        }
        let (own_db, own_holder) = (db.clone(), holder.clone());
        let prolonging =
            tokio::spawn(async move { prolong(&own_db, &own_holder, PROLONG_EVERY).await });
        Ok(Self {
            db: db.clone(),
            holder,
            prolonging,
        })
    }

    /// Waits until the lease is somebody else's; says whose.
    pub(crate) async fn lost(&mut self) -> anyhow::Error {
        match (&mut self.prolonging).await {
            Ok(why) => why,
            Err(error) => anyhow::Error::from(error).context("prolonging the lease"),
        }
    }

    /// Looks now whether it is still held; says why not.
    #[cfg(test)]
    pub(crate) async fn looked(&mut self) -> anyhow::Error {
        self.prolonging.abort();
        let (db, holder) = (self.db.clone(), self.holder.clone());
        self.prolonging = tokio::spawn(async move { prolong(&db, &holder, Duration::ZERO).await });
        self.lost().await
    }

    /// Gives it back, so that the next one need not wait.
    pub(crate) async fn give_back(&mut self) {
        self.prolonging.abort();
        let given = async {
            let mut tx = self.db.write().await?;
            db::lease::release(&mut tx, NAME, &self.holder).await?;
            tx.commit().await
        };
        if let Err(error) = given.await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the lease was not given back; it ends by itself"
            );
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.prolonging.abort();
    }
}

/// Takes or prolongs; else who holds it, and until when.
async fn acquire(db: &Db, holder: &str) -> Result<Result<(), (String, String)>, db::Error> {
    let now = SystemClock.now();
    let life_ms = i64::try_from(LIFE.as_millis()).unwrap_or(i64::MAX);
    let mut tx = db.write().await?;
    if db::lease::acquire(&mut tx, NAME, holder, now, now.plus_millis(life_ms)).await? {
        tx.commit().await?;
        return Ok(Ok(()));
    }
    let other = db::lease::holder(&mut tx, NAME).await?;
    let (other, until) = other.unwrap_or_else(|| ("one that just ended".to_owned(), now));
    Ok(Err((other, until.to_string())))
}

/// Prolongs until somebody else has the lease.  A database that does not answer is asked
/// again: nobody else can take the lease there meanwhile.
async fn prolong(db: &Db, holder: &str, every: Duration) -> anyhow::Error {
    loop {
        tokio::time::sleep(every).await;
        match acquire(db, holder).await {
            Ok(Ok(())) => {}
            Ok(Err((other, _))) => {
                return anyhow::anyhow!(
                    "another server has taken over this database ({other}) while this one was \
                     not heard of for {} seconds",
                    LIFE.as_secs()
                );
            }
            Err(error) => tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the lease could not be prolonged; trying again"
            ),
        }
    }
}
