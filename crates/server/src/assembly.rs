//! Putting the parts together: database, stores, engine, runner, first user.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use grid_core::id::NodeId;
use grid_core::name::UserName;
use grid_engine::{Clock, Engine, Parts, SystemClock};
use grid_executor::{Executor, Hub, ProcessExecutor, ProcessOptions};
use grid_store::blobs::{Blobs, BucketOptions, GC_GRACE, Settings as BlobSettings};
use grid_store::db::{self, Db};
use grid_store::logs::LogStore;

use crate::bucket::blob_settings;
use crate::config::{self, Settings};
use crate::doors::Doors;
use crate::folder::{Folder, Operator};
use crate::lease;

/// The name of the one cluster, and of its one node.
const LOCAL: &str = "local";

/// Who the first user is when nobody says.
const OPERATOR: &str = "operator";

/// Connects to the database of the settings.
pub(crate) async fn connect(settings: &Settings, folder: &Folder, migrate: bool) -> Result<Db> {
    let url = match &settings.database_url {
        Some(url) => url.clone(),
        None => db::sqlite_url(&folder.database()),
    };
    let options = db::Options {
        migrate,
        holder: Some((lease::holder(folder.path()), SystemClock.now())),
        ..db::Options::default()
    };
    Db::connect(&url, &options)
        .await
        .context("cannot use the database")
}

/// The runner of this machine, with a token of its own.
pub(crate) async fn executor(
    settings: &Settings,
    folder: &Folder,
    doors: &Doors,
    db: &Db,
    hub: Hub,
) -> Result<Arc<ProcessExecutor>> {
    let node: NodeId = LOCAL.parse()?;
    let options = ProcessOptions {
        dir: folder.runner(),
        url: doors.local_url.clone(),
        token: new_token(db, &node).await?,
        node,
        sandbox: settings.sandbox.as_str().to_owned(),
        cpus: settings.cpus,
        gpus: settings.gpus,
        ca_file: None,
        hide: hidden(settings, folder),
    };
    Ok(Arc::new(ProcessExecutor::new(hub, options)?))
}

/// A new token for a runner.  Here and not in the engine, which is made with the
/// executor that needs it.
pub(crate) async fn new_token(db: &Db, node: &NodeId) -> Result<String> {
    let clock = SystemClock;
    let token = format!("{:032x}{:032x}", clock.entropy(), clock.entropy());
    let mut tx = db.write().await?;
    let hash = grid_engine::hash_key(&token);
    db::runner_token::put(&mut tx, node, &hash, clock.now()).await?;
    tx.commit().await?;
    Ok(token)
}

/// What no experiment may see: this server's data, and keys of who runs it.
fn hidden(settings: &Settings, folder: &Folder) -> Vec<PathBuf> {
    let mut hidden = vec![folder.path().to_owned()];
    hidden.extend(settings.credential_key.clone());
    if let Some(home) = config::environment("HOME") {
        let keys = PathBuf::from(home).join(".grid");
        if keys.is_dir() {
            hidden.push(keys);
        }
    }
    hidden
}

/// What a server knows and its database does not.
pub(crate) struct Secrets {
    /// Signs links.
    pub(crate) signing: [u8; 32],
    /// Encrypts credentials.
    pub(crate) credentials: [u8; 32],
}

/// Where the key of credentials is.
pub(crate) fn credential_key_path(settings: &Settings, folder: &Folder) -> PathBuf {
    let named = settings.credential_key.clone();
    named.unwrap_or_else(|| folder.credential_key_path())
}

/// Says how much the key does not open.  The server starts all the same: what does
/// not need them works, and the right key may be put back.
pub(crate) async fn look_at_credentials(engine: &Engine, key: &Path) -> Result<()> {
    let closed = grid_engine::credential::sealed_otherwise(engine).await?;
    if !closed.is_nothing() {
        tracing::error!(
            "{closed} were encrypted with another key than the one in {}: put the \
             right file back and start again, or have their owners make them anew",
            key.display()
        );
    }
    Ok(())
}

/// Opens the stores in the folder and the engine over them.
pub(crate) async fn open_engine(
    folder: &Folder,
    db: Db,
    hub: Hub,
    executor: Arc<dyn Executor>,
    secrets: Secrets,
    bucket: Option<&BucketOptions>,
) -> Result<Engine> {
    open_engine_with(folder, db, hub, executor, secrets, bucket, GC_GRACE).await
}

/// The same, where what was just uploaded is kept for another time.
pub(crate) async fn open_engine_with(
    folder: &Folder,
    db: Db,
    hub: Hub,
    executor: Arc<dyn Executor>,
    secrets: Secrets,
    bucket: Option<&BucketOptions>,
    grace: Duration,
) -> Result<Engine> {
    let (logs, blobs) = (folder.logs(), folder.blobs());
    let bucket = bucket.cloned();
    let stores = tokio::task::spawn_blocking(move || {
        let logs = LogStore::open(&logs).context("cannot open the logs")?;
        let settings = BlobSettings {
            grace,
            ..blob_settings(bucket.as_ref())?
        };
        let blobs = Blobs::open(&blobs, settings).context("cannot open the blobs")?;
        Ok::<_, anyhow::Error>((logs, blobs))
    });
    let (logs, blobs) = stores.await??;
    let parts = Parts {
        db,
        logs,
        blobs,
        hub,
        executor,
        clock: Arc::new(SystemClock),
        secret: secrets.signing,
        credential_key: secrets.credentials,
        scratch: folder.tmp(),
        cluster: LOCAL.to_owned(),
    };
    Engine::open(parts).await.context("cannot open the engine")
}

/// The first user, made at the first start; their file names where the server is now.
pub(crate) async fn operator(
    engine: &Engine,
    settings: &Settings,
    folder: &Folder,
    url: &str,
) -> Result<String> {
    let name = operator_name(settings)?;
    let created = match grid_engine::user::create_first(engine, &name).await? {
        None if folder.operator().is_none() => {
            // Somebody lost the file, or the first start was cut short.  Who owns the
            // folder owns the server.
            grid_engine::user::recover_operator(engine).await?
        }
        created => created,
    };
    let operator = match (created, folder.operator()) {
        (Some(with_key), _) => Operator {
            url: url.to_owned(),
            username: with_key.user.username,
            user_id: with_key.user.id.to_string(),
            api_key: with_key.api_key,
        },
        (None, Some(known)) => Operator {
            url: url.to_owned(),
            ..known
        },
        (None, None) => {
            tracing::warn!("no user of this server is an operator: nobody can create users");
            return Ok("nobody".to_owned());
        }
    };
    folder.write_operator(&operator)?;
    Ok(operator.username)
}

fn operator_name(settings: &Settings) -> Result<String> {
    if let Some(name) = &settings.operator {
        let name = UserName::parse(name);
        return Ok(name
            .context("GRID_OPERATOR cannot be the name of a user")?
            .to_string());
    }
    let name = settings
        .system_user
        .as_deref()
        .and_then(|name| UserName::parse(name).ok());
    Ok(name.map_or_else(|| OPERATOR.to_owned(), |name| name.to_string()))
}
