//! Connecting: settings of each database, said once; migrations; who may write.

use std::path::Path;
use std::time::Duration;

use grid_core::time::Timestamp;
use sqlx::any::{AnyConnectOptions, AnyPoolOptions};
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::pool::PoolOptions;
use sqlx::{Any, AnyConnection, AnyPool, ConnectOptions, Connection, Row};

use super::error::{Error, Result};
use super::tx::Tx;

/// How long somebody waits for a connection.  Longer: requests pile up behind a database
/// that hangs.  Shorter: a burst of writers is refused although its turn would have come.
const CONNECTION_WAIT: Duration = Duration::from_secs(10);

/// How long an unused connection is kept.  Longer: an idle server holds memory.  Shorter:
/// statements are prepared again and again.
const IDLE_CONNECTION_KEPT: Duration = Duration::from_secs(120);

/// Connections that read SQLite.  More: each is a thread and a cache of some MiB.  Fewer:
/// a long list makes short ones wait.
const SQLITE_READERS_MAX: u32 = 4;

/// Connections to PostgreSQL.  More: its own limit (100 as delivered) is reached with a few
/// servers.  Fewer: requests wait for each other.
const POSTGRES_CONNECTIONS_MAX: u32 = 16;

/// Said to each connection that writes SQLite.
///
/// `normal`: a crash of the program loses nothing; a crash of the machine can lose the last
/// moments, but never damages.  `journal_size_limit`: a burst does not leave a huge log file.
const SQLITE_WRITER: &str = "pragma busy_timeout = 5000; \
     pragma journal_mode = wal; \
     pragma synchronous = normal; \
     pragma foreign_keys = on; \
     pragma temp_store = memory; \
     pragma cache_size = -16384; \
     pragma journal_size_limit = 67108864";

/// Said to each connection that reads SQLite.
const SQLITE_READER: &str = "pragma busy_timeout = 5000; \
     pragma query_only = on; \
     pragma temp_store = memory; \
     pragma cache_size = -4096";

/// Said to each connection to PostgreSQL.
const POSTGRES: &str = "set lock_timeout = 5000";

pub(super) static MIGRATIONS: Migrator = sqlx::migrate!("src/db/migrations");

const CONNECTING: &str = "connecting to it";

/// Which database it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// A file on this machine.
    Sqlite,
    /// A server.
    Postgres,
}

/// How to connect.
#[derive(Debug, Clone)]
pub struct Options {
    /// Whether an older (or empty) database is brought up to date; otherwise it is refused
    /// with [`Error::TooOld`].
    pub migrate: bool,
    /// Connections at once; `None` for what suits the database.
    pub connections_max: Option<u32>,
    /// As whom leases are held, and what time it is.  With it, an older database is not
    /// brought up to date while somebody else holds one: they would go on with a schema that
    /// they do not know.
    pub holder: Option<(String, Timestamp)>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            migrate: true,
            connections_max: None,
            holder: None,
        }
    }
}

/// The database.  Cheap to clone; clones share their connections.
#[derive(Debug, Clone)]
pub struct Db {
    pub(super) backend: Backend,
    pub(super) url: String,
    readers: AnyPool,
    writers: AnyPool,
}

/// The address of a SQLite file, whatever characters its path has.
pub fn sqlite_url(path: &Path) -> String {
    let mut url = "sqlite://".to_owned();
    for character in path.to_string_lossy().chars() {
        match character {
            '%' => url.push_str("%25"),
            '?' => url.push_str("%3F"),
            '#' => url.push_str("%23"),
            ' ' => url.push_str("%20"),
            _ => url.push(character),
        }
    }
    url
}

impl Db {
    /// Connects to `sqlite:///path/grid.db` (made if it is not there) or
    /// `postgres://user@host/name`, and brings its schema up to date.
    pub async fn connect(url: &str, options: &Options) -> Result<Self> {
        sqlx::any::install_default_drivers();
        let db = match url.split_once(':').map(|(scheme, _)| scheme) {
            Some("sqlite") => Self::sqlite(url, options).await?,
            Some("postgres" | "postgresql") => Self::postgres(url, options).await?,
            _ => {
                let message =
                    "the address of the database must begin with 'sqlite://' or 'postgres://'";
                return Err(Error::Refused(message.to_owned()));
            }
        };
        Ok(db)
    }

    async fn sqlite(url: &str, options: &Options) -> Result<Self> {
        let mode = |mode| {
            if url.contains('?') {
                url.to_owned()
            } else {
                format!("{url}?mode={mode}")
            }
        };
        // The file exists and has its schema before anybody reads.
        let first = prepare(&mode("rwc"), SQLITE_WRITER, options).await?;
        let writers = pool(SQLITE_WRITER).max_connections(1);
        let writers = open(
            writers.max_lifetime(None).test_before_acquire(false),
            &mode("rw"),
        )?;
        let readers = pool(SQLITE_READER);
        let readers =
            readers.max_connections(options.connections_max.unwrap_or(SQLITE_READERS_MAX));
        let readers = open(
            readers.max_lifetime(None).test_before_acquire(false),
            &mode("rw"),
        )?;
        let db = Self {
            backend: Backend::Sqlite,
            url: url.to_owned(),
            readers,
            writers,
        };
        // The last connection that closes merges the log of the file; better not yet.
        db.ping().await?;
        close(first).await?;
        Ok(db)
    }

    async fn postgres(url: &str, options: &Options) -> Result<Self> {
        let first = prepare(url, POSTGRES, options).await?;
        close(first).await?;
        let connections = options.connections_max.unwrap_or(POSTGRES_CONNECTIONS_MAX);
        let pool = open(pool(POSTGRES).max_connections(connections), url)?;
        Ok(Self {
            backend: Backend::Postgres,
            url: url.to_owned(),
            readers: pool.clone(),
            writers: pool,
        })
    }

    /// Which database it is.
    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// Begins to read: one consistent view, until the transaction is dropped.
    pub async fn read(&self) -> Result<Tx> {
        const DOING: &str = "beginning to read";
        let begun = match self.backend {
            Backend::Sqlite => self.readers.begin().await,
            Backend::Postgres => {
                let statement = "begin isolation level repeatable read read only";
                self.readers.begin_with(statement).await
            }
        };
        begun.map(Tx::new).map_err(|e| Error::of(DOING, e))
    }

    /// Begins to write.  On SQLite there is one writer at a time, and the others wait here.
    pub async fn write(&self) -> Result<Tx> {
        const DOING: &str = "beginning to write";
        let begun = match self.backend {
            Backend::Sqlite => self.writers.begin_with("begin immediate").await,
            Backend::Postgres => self.writers.begin().await,
        };
        begun.map(Tx::new).map_err(|e| Error::of(DOING, e))
    }

    /// Closes all connections, once those in use have come back.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writers.close().await;
    }
}

fn pool(said_first: &'static str) -> PoolOptions<Any> {
    AnyPoolOptions::new()
        .acquire_timeout(CONNECTION_WAIT)
        .idle_timeout(IDLE_CONNECTION_KEPT)
        .after_connect(move |connection, _| {
            Box::pin(async move {
                sqlx::raw_sql(said_first)
                    .execute(connection)
                    .await
                    .map(drop)
            })
        })
        .after_release(|connection, _| Box::pin(is_clean(connection)))
}

/// Whether a connection that comes back is out of its transaction.
///
/// SQLite ends a transaction by itself when the disk is full.  The driver does not notice,
/// and would refuse to begin another one on this connection for ever.
async fn is_clean(connection: &mut AnyConnection) -> Result<bool, sqlx::Error> {
    // A rollback may be on its way; an answer to this comes after it.
    connection.ping().await?;
    Ok(!connection.is_in_transaction())
}

fn options(url: &str) -> Result<AnyConnectOptions> {
    let options: AnyConnectOptions = url.parse().map_err(|e| Error::of(CONNECTING, e))?;
    // The statements are ours and many; who debugs them asks the database.
    Ok(options.disable_statement_logging())
}

fn open(pool: PoolOptions<Any>, url: &str) -> Result<AnyPool> {
    Ok(pool.connect_lazy_with(options(url)?))
}

/// Connects once, without the patience of a pool: what is wrong at the start stays wrong.
async fn prepare(url: &str, said_first: &'static str, how: &Options) -> Result<AnyConnection> {
    let options = options(url)?;
    let connect = async {
        let mut connection = AnyConnection::connect_with(&options).await?;
        sqlx::raw_sql(said_first).execute(&mut connection).await?;
        Ok(connection)
    };
    let mut connection = tokio::time::timeout(CONNECTION_WAIT, connect)
        .await
        .unwrap_or(Err(sqlx::Error::PoolTimedOut))
        .map_err(|e| Error::of(CONNECTING, e))?;
    bring_up_to_date(&mut connection, how).await?;
    Ok(connection)
}

async fn close(connection: AnyConnection) -> Result<()> {
    connection
        .close()
        .await
        .map_err(|e| Error::of(CONNECTING, e))
}

async fn bring_up_to_date(connection: &mut AnyConnection, how: &Options) -> Result<()> {
    const DOING: &str = "bringing its schema up to date";
    let known = MIGRATIONS
        .iter()
        .map(|migration| migration.version)
        .max()
        .unwrap_or(0);
    let found = version(connection).await?;
    if found.is_none_or(|found| found < known) {
        if !how.migrate {
            return Err(Error::TooOld);
        }
        if let (Some(_), Some((holder, now))) = (found, &how.holder) {
            require_unused(connection, holder, *now).await?;
        }
    }
    // Not `run`: its future does not prove to be `Send`, which servers need.
    match MIGRATIONS.run_direct(None, connection, false).await {
        Ok(()) => Ok(()),
        Err(MigrateError::VersionMissing(found)) => Err(Error::TooNew { found, known }),
        Err(MigrateError::Execute(e) | MigrateError::ExecuteMigration(e, _)) => {
            Err(Error::of(DOING, e))
        }
        Err(e) => Err(Error::internal(DOING, e)),
    }
}

/// Refuses when somebody else works with the database.
async fn require_unused(
    connection: &mut AnyConnection,
    holder: &str,
    now: Timestamp,
) -> Result<()> {
    const DOING: &str = "looking who works with it";
    let sql = "select holder from lease where expires_at > $1 and holder <> $2";
    let row = sqlx::query(sql)
        .bind(now.as_millis())
        .bind(holder.to_owned())
        .fetch_optional(&mut *connection)
        .await
        .map_err(|e| Error::of(DOING, e))?;
    let Some(row) = row else { return Ok(()) };
    let other: String = row.try_get(0).map_err(|e| Error::of(DOING, e))?;
    Err(Error::Refused(format!(
        "the database is older than this program, and another server works with it ({other}): \
         stop that one before this one brings the database up to date"
    )))
}

/// The version of the schema that is there; `None` when there is none.
async fn version(connection: &mut AnyConnection) -> Result<Option<i64>> {
    const DOING: &str = "looking at its schema version";
    match sqlx::query("select max(version) from _sqlx_migrations")
        .fetch_one(&mut *connection)
        .await
    {
        Ok(row) => row.try_get(0).map_err(|e| Error::of(DOING, e)),
        // There is no such table: nobody has made a schema yet.
        Err(sqlx::Error::Database(e)) if matches!(e.code().as_deref(), Some("1" | "42P01")) => {
            Ok(None)
        }
        Err(e) => Err(Error::of(DOING, e)),
    }
}
