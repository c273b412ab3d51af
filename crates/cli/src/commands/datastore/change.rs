//! Deleting, restoring, renaming, describing.

use anyhow::Result;
use clap::Args;
use grid_api::datastore::{DatastoreResponse, DatastoreUpdate, DatastoreView};
use grid_core::id::DatastoreVersionId;
use grid_core::name::DatastoreRef;
use reqwest::Method;

use super::{exact_path, path};
use crate::context::Ctx;
use crate::error::Problem;
use crate::values;

/// Move a version to the trash, from where it can be restored for 7 days
#[derive(Debug, Args)]
pub(super) struct DeleteArgs {
    /// NAME:VERSION, USER:NAME:VERSION or an id; or NAME with --version
    #[arg(required_unless_present = "name")]
    datastore: Option<String>,

    /// Name of the datastore
    #[arg(
        long,
        value_name = "NAME",
        requires = "version",
        conflicts_with = "datastore"
    )]
    name: Option<String>,

    /// Its version
    #[arg(long, value_name = "N", value_parser = values::version)]
    version: Option<u32>,

    /// Cluster [default: the server's]
    #[arg(long, value_name = "CLUSTER")]
    cluster: Option<String>,
}

/// Deletes a version.
pub(super) fn delete(args: &DeleteArgs, ctx: &Ctx) -> Result<()> {
    let word = match (&args.datastore, &args.name, args.version) {
        (Some(word), _, None) => word.clone(),
        (Some(word), _, Some(version)) => with_version(word, version)?,
        (None, Some(name), Some(version)) => format!("{name}:{version}"),
        _ => {
            return Err(Problem::usage("which version is to be deleted?")
                .hint("grid datastore delete --name NAME --version N")
                .into());
        }
    };
    let route = exact_path(&word, "grid datastore")?;
    if let Some(cluster) = &args.cluster {
        ctx.printer.debug(&format!(
            "datastores of '{cluster}' are those of the server"
        ));
    }
    let client = ctx.client()?;
    let answer: DatastoreResponse = ctx.block_on(client.delete(&route))??;
    said(ctx, &answer.datastore, |one| {
        format!(
            "Datastore {} has been deleted; `grid datastore restore {}` brings it back within 7 days",
            called(one),
            found_by(&word, one)
        )
    })
}

/// The version that is meant where its number is said by itself: of two that are said, one
/// would be ignored.
fn with_version(word: &str, version: u32) -> Result<String, Problem> {
    let twice = || {
        Problem::usage(format!(
            "'{word}' and --version {version} are not the same version"
        ))
        .hint("say one of them; nothing was deleted")
    };
    // An id may be read as a name, too.
    if word.parse::<DatastoreVersionId>().is_ok() {
        return Err(twice());
    }
    match word.parse::<DatastoreRef>() {
        Ok(named) if named.version.is_none_or(|said| said == version) => {
            let named = DatastoreRef {
                version: Some(version),
                ..named
            };
            Ok(named.to_string())
        }
        Ok(_) => Err(twice()),
        // It is said what is wrong with it.
        Err(_) => Ok(word.to_owned()),
    }
}

/// Bring a version back from the trash
#[derive(Debug, Args)]
pub(super) struct RestoreArgs {
    /// NAME:VERSION, USER:NAME:VERSION or an id
    datastore: String,
}

/// Restores a version.
pub(super) fn restore(args: &RestoreArgs, ctx: &Ctx) -> Result<()> {
    let route = format!(
        "{}/restore",
        exact_path(&args.datastore, "grid datastore --deleted")?
    );
    let client = ctx.client()?;
    let request = client.request(Method::POST, &route);
    let answer: DatastoreResponse = ctx.block_on(client.json(request))??;
    said(ctx, &answer.datastore, |one| {
        format!("Datastore {} is back", called(one))
    })
}

/// Give a datastore, with all its versions, another name
#[derive(Debug, Args)]
pub(super) struct RenameArgs {
    /// NAME
    datastore: String,

    /// The new name
    new_name: String,
}

/// Renames a datastore.
pub(super) fn rename(args: &RenameArgs, ctx: &Ctx) -> Result<()> {
    update(
        ctx,
        &args.datastore,
        &DatastoreUpdate {
            name: Some(args.new_name.clone()),
            description: None,
        },
        |one| format!("It is called {} now, in all versions", one.name),
    )
}

/// Say something about a version
#[derive(Debug, Args)]
pub(super) struct DescribeArgs {
    /// NAME, NAME:VERSION or an id
    datastore: String,

    /// What there is to say; empty for nothing
    text: String,
}

/// Describes a version.
pub(super) fn describe(args: &DescribeArgs, ctx: &Ctx) -> Result<()> {
    update(
        ctx,
        &args.datastore,
        &DatastoreUpdate {
            name: None,
            description: Some(args.text.clone()),
        },
        |one| format!("Datastore {} is described", called(one)),
    )
}

fn update(
    ctx: &Ctx,
    word: &str,
    update: &DatastoreUpdate,
    words: impl Fn(&DatastoreView) -> String,
) -> Result<()> {
    let route = path(word)?;
    let client = ctx.client()?;
    let answer: DatastoreResponse = ctx.block_on(client.put(&route, update))??;
    said(ctx, &answer.datastore, words)
}

fn said(ctx: &Ctx, one: &DatastoreView, words: impl Fn(&DatastoreView) -> String) -> Result<()> {
    if ctx.printer.is_json() {
        return ctx.printer.json(&serde_json::json!({ "datastore": one }));
    }
    ctx.printer.line(&words(one))
}

/// How whoever typed `word` for a version finds it again: one's own by its name, that of
/// somebody else by theirs, too.
pub(super) fn found_by(word: &str, one: &DatastoreView) -> String {
    let is_id = word.parse::<DatastoreVersionId>().is_ok();
    let typed = word.parse::<DatastoreRef>();
    match !is_id && typed.is_ok_and(|named| named.user.is_none()) {
        true => called(one),
        false => format!("{}:{}", one.created_by, called(one)),
    }
}

/// How a version is written.
pub(super) fn called(one: &DatastoreView) -> String {
    format!("{}:{}", one.name, one.version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_that_is_said_twice_is_the_same_or_refused() {
        for (word, expected) in [
            ("cats", Some("cats:1")),
            ("cats:1", Some("cats:1")),
            ("bob:cats", Some("bob:cats:1")),
            ("cats:2", None),
            ("bob:cats:2", None),
            ("01arz3ndektsv4rrffq69g5fav", None),
        ] {
            let meant = with_version(word, 1).ok();
            assert_eq!(meant.as_deref(), expected, "{word}");
        }
    }
}
