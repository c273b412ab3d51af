//! `grid server`: the server itself, and what looks after it.
//!
//! Only a translation of flags; everything else is in the crate of the server.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};
use grid_server::{Collecting, Options};

use crate::context::Ctx;
use crate::error::{EXIT_FAILED, Problem};

const EXAMPLES: &str = "\
The first start makes the data folder and the first user, whose key is then in
DIR/operator.json.  Running experiments go on while the server is away.

Examples:
  grid server
  grid server --listen 0.0.0.0:8443 --tls-cert cert.pem --tls-key key.pem
  grid server --blobs s3://bucket/prefix
  grid server doctor --deep
  grid server collect --dry-run
  grid server backup /backups/grid.db";

/// Start a server on this machine, or look after one
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ServerArgs {
    #[command(subcommand)]
    command: Option<ServerCommand>,

    /// Folder of everything the server keeps [default: ~/.grid/server]
    #[arg(long, global = true, value_name = "DIR")]
    data: Option<PathBuf>,

    /// Settings of the server (TOML); flags and environment win over it
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Address to listen on [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,

    /// Whether experiments see only their own files: auto, require or off
    #[arg(long, value_name = "MODE", value_parser = ["auto", "require", "off"], hide_possible_values = true)]
    sandbox: Option<String>,

    /// CPUs to hand out [default: all of this machine]
    #[arg(long, value_name = "N")]
    cpus: Option<u32>,

    /// GPUs to hand out [default: all of this machine]
    #[arg(long, value_name = "N")]
    gpus: Option<u32>,

    /// Certificate chain for HTTPS, as PEM
    #[arg(long = "tls-cert", value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,

    /// Private key of the certificate, as PEM
    #[arg(long = "tls-key", value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,

    /// Address that people reach the server under, where it differs from --listen
    #[arg(long, value_name = "URL")]
    url: Option<String>,

    /// Address to speak S3 on, for boto3, s3fs, aws and rclone [default: nowhere]
    #[arg(long = "s3-listen", value_name = "ADDR")]
    s3_listen: Option<String>,

    /// Address that people reach S3 under [default: where it listens]
    #[arg(long = "s3-url", value_name = "URL")]
    s3_url: Option<String>,

    /// Database: postgres://… [default: SQLite in the data folder]
    #[arg(long = "database-url", global = true, value_name = "URL")]
    database_url: Option<String>,

    /// Bucket to keep files in: s3://BUCKET/PREFIX, gs://… or az://… [default: the data folder]
    #[arg(long, global = true, value_name = "URL")]
    blobs: Option<String>,

    /// Reverse proxies whose X-Forwarded-For is believed: ADDRESS or ADDRESS/BITS
    #[arg(
        long = "trusted-proxies",
        value_name = "NETWORKS",
        value_delimiter = ','
    )]
    trusted_proxies: Vec<String>,
}

#[derive(Debug, Subcommand)]
enum ServerCommand {
    /// Prove that what is stored is consistent
    Doctor {
        /// Read and hash every stored byte, too
        #[arg(long)]
        deep: bool,
    },
    /// Bring the database to this version
    Migrate,
    /// Copy the database, consistently, also while the server runs
    Backup {
        /// Where to
        file: PathBuf,
    },
    /// Delete stored bytes that nothing refers to any more
    Collect {
        /// Only say what would be deleted
        #[arg(long = "dry-run")]
        dry_run: bool,

        /// Also what was uploaded within the last day; while no server runs
        #[arg(long)]
        now: bool,

        /// Empty the trash before, which nobody can bring back then; while no server runs
        #[arg(long)]
        trash: bool,
    },
    /// Look after the files that are kept
    Blobs {
        #[command(subcommand)]
        command: BlobsCommand,
    },
    /// Print the description of the API
    #[command(hide = true)]
    Openapi,
    /// Print the table of states and commands
    #[command(hide = true)]
    States,
    /// Print who may do what
    #[command(hide = true)]
    AccessTable,
}

#[derive(Debug, Subcommand)]
enum BlobsCommand {
    /// Move the files of the data folder into the bucket of --blobs, while no server runs
    Move,
}

/// Starts the server, or looks after it.
pub(crate) fn run(args: ServerArgs, ctx: &Ctx) -> Result<ExitCode> {
    let options = Options {
        data: args.data,
        listen: args.listen,
        config: args.config,
        sandbox: args.sandbox,
        cpus: args.cpus,
        gpus: args.gpus,
        tls_cert: args.tls_cert,
        tls_key: args.tls_key,
        url: args.url,
        s3_listen: args.s3_listen,
        s3_url: args.s3_url,
        database_url: args.database_url,
        blobs: args.blobs,
        trusted_proxies: args.trusted_proxies,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("starting the runtime")?;
    let mut said = Vec::new();
    let done = match args.command {
        None => runtime.block_on(grid_server::run(options)).map(|()| true),
        Some(ServerCommand::Doctor { deep }) => {
            runtime.block_on(grid_server::doctor(options, deep, &mut said))
        }
        Some(ServerCommand::Migrate) => runtime
            .block_on(grid_server::migrate(options, &mut said))
            .map(|()| true),
        Some(ServerCommand::Backup { file }) => runtime
            .block_on(grid_server::backup(options, &file, &mut said))
            .map(|()| true),
        Some(ServerCommand::Collect {
            dry_run,
            now,
            trash,
        }) => {
            require_told(dry_run, trash)?;
            let collecting = Collecting {
                dry_run,
                now,
                trash,
            };
            let done = grid_server::collect(options, collecting, &mut said);
            runtime.block_on(done).map(|()| true)
        }
        Some(ServerCommand::Blobs {
            command: BlobsCommand::Move,
        }) => runtime
            .block_on(grid_server::move_blobs(options, &mut said))
            .map(|()| true),
        Some(ServerCommand::Openapi) => return print(ctx, &grid_server::openapi()),
        Some(ServerCommand::States) => return print(ctx, &grid_server::states()),
        Some(ServerCommand::AccessTable) => return print(ctx, &grid_server::access_table()),
    };
    report(
        ctx,
        &String::from_utf8_lossy(&said),
        done.as_ref().is_ok_and(|well| *well),
    )?;
    Ok(if done? {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(EXIT_FAILED)
    })
}

/// Refuses to say before what emptying the trash would free: only once its things are gone is
/// it known which bytes nothing else names.
fn require_told(dry_run: bool, trash: bool) -> Result<()> {
    if !(dry_run && trash) {
        return Ok(());
    }
    Err(Problem::usage("what emptying the trash would free cannot be said before")
        .hint("`grid server collect --dry-run` says what would go without it; `grid history --deleted` and `grid datastore --deleted` list the trash")
        .into())
}

/// What was found and done, also when it ended badly.
fn report(ctx: &Ctx, said: &str, well: bool) -> Result<()> {
    if said.is_empty() {
        return Ok(());
    }
    if ctx.printer.is_json() {
        let lines: Vec<&str> = said.lines().collect();
        return ctx
            .printer
            .json(&serde_json::json!({ "ok": well, "lines": lines }));
    }
    ctx.printer.text(said)
}

fn print(ctx: &Ctx, page: &str) -> Result<ExitCode> {
    ctx.printer.text(page)?;
    if !page.ends_with('\n') {
        ctx.printer.text("\n")?;
    }
    Ok(ExitCode::SUCCESS)
}
