//! `grid ssh-keys`: what one gets into one's sessions with.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Subcommand};
use grid_api::client::segment;
use grid_api::ssh_key::{SshKeyCreate, SshKeyResponse, SshKeyView, SshKeysResponse};
use grid_core::ssh_key::{LINE_BYTES_MAX, PublicKey};

use crate::context::Ctx;
use crate::error::Problem;
use crate::table::{Cell, Table};

/// Keys that are listed unless another number is asked for.
const LIMIT: usize = 100;

const EXAMPLES: &str = "\
The server keeps the public half: the file that ends in .pub.  Your private key stays
where it is.

Examples:
  grid ssh-keys                              yours
  grid ssh-keys add laptop ~/.ssh/id_ed25519.pub
  grid ssh-keys list
  grid ssh-keys rm laptop";

/// List your public SSH keys, or look after them
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct SshKeysArgs {
    #[command(subcommand)]
    command: Option<SshKeysCommand>,
}

#[derive(Debug, Subcommand)]
enum SshKeysCommand {
    /// Add a key
    Add {
        /// What to call it: laptop
        name: String,
        /// The public half: a file that ends in .pub
        #[arg(value_name = "FILE")]
        key: PathBuf,
    },
    /// List your keys
    List(Limit),
    /// Remove keys
    Rm {
        /// Ids or names, as listed
        #[arg(required = true, value_name = "KEYS")]
        keys: Vec<String>,
    },
    /// Print your keys as an authorized_keys file of an SSH server
    #[command(name = "authorized_keys", alias = "authorized-keys")]
    AuthorizedKeys(Limit),
}

#[derive(Debug, Args)]
struct Limit {
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = LIMIT)]
    limit: usize,
}

/// Shows or changes the caller's keys.
pub(crate) fn run(args: SshKeysArgs, ctx: &Ctx) -> Result<ExitCode> {
    let listing = SshKeysCommand::List(Limit { limit: LIMIT });
    match args.command.unwrap_or(listing) {
        SshKeysCommand::Add { name, key } => add(ctx, name, &key)?,
        SshKeysCommand::List(Limit { limit }) => list(ctx, limit)?,
        SshKeysCommand::Rm { keys } => remove(ctx, &keys)?,
        SshKeysCommand::AuthorizedKeys(Limit { limit }) => authorized_keys(ctx, limit)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn add(ctx: &Ctx, name: String, file: &Path) -> Result<()> {
    let public_key = read(file)?;
    let client = ctx.client()?;
    let body = SshKeyCreate { name, public_key };
    let answer: SshKeyResponse = ctx.block_on(client.post("/user/ssh-keys", &body))??;
    if ctx.printer.is_json() {
        return ctx.printer.json(&answer);
    }
    let key = &answer.ssh_key;
    ctx.printer
        .line(&format!("Added key {} with id: {}", key.name, key.id))
}

/// Reads the file, and looks at it here: a private key does not leave the machine.
fn read(file: &Path) -> Result<String> {
    let path = file.display();
    let unread = |why: String| {
        Problem::new(format!("cannot read {path}: {why}"))
            .hint("name the public half of a key, like ~/.ssh/id_ed25519.pub")
    };
    let bytes = std::fs::metadata(file)
        .map_err(|e| unread(e.to_string()))?
        .len();
    // A file that is larger is something else, if it is not a private key.
    if bytes > 4 * LINE_BYTES_MAX as u64 {
        return Err(unread("it is too large for a public key".to_owned()).into());
    }
    let text = std::fs::read_to_string(file).map_err(|e| unread(e.to_string()))?;
    match text.parse::<PublicKey>() {
        Ok(key) => Ok(key.to_string()),
        Err(error) => Err(Problem::new(format!("{path}: {error}"))
            .hint(format!("is there a file {path}.pub beside it?"))
            .into()),
    }
}

fn all(ctx: &Ctx, limit: usize) -> Result<Vec<SshKeyView>> {
    let client = ctx.client()?;
    let answer: SshKeysResponse = ctx.block_on(client.get("/user/ssh-keys", &()))??;
    let mut keys = answer.ssh_keys;
    keys.truncate(limit);
    Ok(keys)
}

fn list(ctx: &Ctx, limit: usize) -> Result<()> {
    let keys = all(ctx, limit)?;
    if ctx.printer.is_json() {
        return ctx.printer.json(&SshKeysResponse { ssh_keys: keys });
    }
    let mut table = Table::new(["Id", "Name", "Fingerprint", "Created At"]);
    for key in &keys {
        table.row([
            Cell::text(&key.id),
            Cell::text(&key.name),
            Cell::text(&key.fingerprint),
            Cell::time(&key.created_at),
        ]);
    }
    if table.is_empty() {
        ctx.printer
            .note("You have no SSH keys: `grid ssh-keys add NAME FILE` adds one.");
    }
    ctx.printer.table(&table)
}

fn remove(ctx: &Ctx, keys: &[String]) -> Result<()> {
    let client = ctx.client()?;
    let mut removed = Vec::new();
    for key in keys {
        let route = format!("/user/ssh-keys/{}", segment(key));
        let answer: SshKeyResponse = ctx.block_on(client.delete(&route))??;
        if !ctx.printer.is_json() {
            ctx.printer
                .line(&format!("Removed key {}", answer.ssh_key.name))?;
        }
        removed.push(answer.ssh_key);
    }
    if ctx.printer.is_json() {
        return ctx.printer.json(&SshKeysResponse { ssh_keys: removed });
    }
    Ok(())
}

fn authorized_keys(ctx: &Ctx, limit: usize) -> Result<()> {
    let keys = all(ctx, limit)?;
    if ctx.printer.is_json() {
        return ctx.printer.json(&SshKeysResponse { ssh_keys: keys });
    }
    for key in keys {
        // A name may hold anything but the end of a line.
        ctx.printer.line(&format!("#ID {}", key.id))?;
        ctx.printer.line(&format!("#Name {}", key.name))?;
        ctx.printer.line(&key.public_key)?;
    }
    Ok(())
}
