//! `grid datastore`: data that is uploaded once, in versions, and mounted by many.

mod before;
mod change;
mod commit;
mod create;
mod download;
mod files;
mod list;
mod remote;
mod small;
mod state;
mod upload;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Subcommand};
use grid_api::client::segment;
use grid_core::id::DatastoreVersionId;
use grid_core::name::DatastoreRef;

use crate::context::Ctx;
use crate::error::Problem;

const EXAMPLES: &str = "\
A datastore is NAME, NAME:VERSION, USER:NAME or USER:NAME:VERSION; without a version, the
newest that is ready.  Every create under a name makes the next version; none ever changes.

Examples:
  grid datastore                                     yours
  grid datastore --global                            your teammates', too
  grid datastore create data/cats                    version 1 of cats
  grid datastore create data/cats                    version 2: only what is new is sent
  grid datastore create https://example.org/cats.tar.gz
  grid datastore create s3://data/cats/ --credential lab
  grid datastore create s3://data/cats/ --no-copy    only listed: bytes stay in the bucket
  tar c cats | grid datastore create - --name cats
  grid datastore files cats:2 train
  grid datastore diff cats:1 cats:2
  grid datastore download cats:2 --to ./cats
  grid run --datastore_name cats:2 train.py --data /datastores/cats";

/// List datastores, or make, read and delete them
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub(crate) struct DatastoreArgs {
    #[command(subcommand)]
    command: Option<DatastoreCommand>,

    #[command(flatten)]
    list: list::ListArgs,
}

#[derive(Debug, Subcommand)]
enum DatastoreCommand {
    /// List datastores
    #[command(hide = true)]
    List(list::ListArgs),
    Create(create::CreateArgs),
    Resume(create::ResumeArgs),
    Commit(commit::CommitArgs),
    /// Forget what is known of uploads on this machine: they cannot be resumed then
    Clearcache,
    Files(files::FilesArgs),
    Diff(files::DiffArgs),
    Cat(files::CatArgs),
    Download(download::DownloadArgs),
    Delete(change::DeleteArgs),
    Restore(change::RestoreArgs),
    Rename(change::RenameArgs),
    Describe(change::DescribeArgs),
    #[command(name = "used-by", alias = "used_by")]
    UsedBy(list::UsedByArgs),
}

/// Does one of them.
pub(crate) fn run(args: DatastoreArgs, ctx: &Ctx) -> Result<ExitCode> {
    use DatastoreCommand as C;
    match args.command {
        None => list::run(&args.list, ctx)?,
        Some(C::List(list)) => list::run(&list, ctx)?,
        Some(C::Create(create)) => create::run(&create, ctx)?,
        Some(C::Resume(resume)) => create::resume(&resume, ctx)?,
        Some(C::Commit(commit)) => commit::run(&commit, ctx)?,
        Some(C::Clearcache) => state::clear(ctx)?,
        Some(C::Files(files)) => files::run(&files, ctx)?,
        Some(C::Diff(diff)) => files::diff(&diff, ctx)?,
        Some(C::Cat(cat)) => files::cat(&cat, ctx)?,
        Some(C::Download(download)) => return download::run(&download, ctx),
        Some(C::Delete(delete)) => change::delete(&delete, ctx)?,
        Some(C::Restore(restore)) => change::restore(&restore, ctx)?,
        Some(C::Rename(rename)) => change::rename(&rename, ctx)?,
        Some(C::Describe(describe)) => change::describe(&describe, ctx)?,
        Some(C::UsedBy(used_by)) => list::used_by(&used_by, ctx)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Checks the name of a version, and makes it a piece of a path.
fn path(word: &str) -> Result<String> {
    if word.parse::<DatastoreVersionId>().is_ok() {
        return Ok(format!("/datastores/{}", segment(word)));
    }
    let named: DatastoreRef = word.parse().map_err(|error: grid_core::name::NameError| {
        Problem::usage(error.to_string()).hint("`grid datastore` lists the names")
    })?;
    Ok(format!("/datastores/{}", segment(&named.to_string())))
}

/// The same, of what is about to be changed: the version must be said, and is one of those
/// that the command `lister` lists.
fn exact_path(word: &str, lister: &str) -> Result<String> {
    let is_exact = word.parse::<DatastoreVersionId>().is_ok()
        || word
            .parse::<DatastoreRef>()
            .is_ok_and(|named| named.version.is_some());
    if is_exact {
        return path(word);
    }
    path(word)?;
    Err(
        Problem::usage(format!("which version of '{word}' is meant?"))
            .hint(format!("write {word}:VERSION; `{lister}` lists them"))
            .into(),
    )
}
