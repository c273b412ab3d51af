//! Tables of datastores and of who uses them.

use anyhow::Result;
use clap::Args;
use grid_api::client::Client;
use grid_api::datastore::{
    DatastoreUsersQuery, DatastoreUsersResponse, DatastoreView, DatastoresQuery, DatastoresResponse,
};
use grid_core::datastore::{SourceKind, State};
use grid_core::duration::format_size;

use super::state;
use crate::context::Ctx;
use crate::table::{Cell, Table};

/// Versions of a page; the most that the server gives.
const PAGE: u32 = 1_000;

/// The source of what is written object by object.
const BY_S3: &str = "S3";

/// What is listed.
#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Your teammates' datastores, too, or those of one of them
    #[arg(long, value_name = "USERNAME", num_args = 0..=1, default_missing_value = "")]
    global: Option<String>,

    /// Uploads that are not over, too
    #[arg(long = "show-incomplete")]
    show_incomplete: bool,

    /// What is in the trash
    #[arg(long)]
    deleted: bool,

    /// Only versions of this datastore
    #[arg(long, value_name = "NAME")]
    name: Option<String>,

    /// Cluster [default: the server's]
    #[arg(long, value_name = "CLUSTER")]
    cluster: Option<String>,
}

/// Lists versions, the newest first.
pub(super) fn run(args: &ListArgs, ctx: &Ctx) -> Result<()> {
    let query = DatastoresQuery {
        global: args.global.is_some().then_some(true),
        created_by: args.global.clone().filter(|user| !user.is_empty()),
        name: args.name.clone(),
        incomplete: args.show_incomplete.then_some(true),
        deleted: args.deleted.then_some(true),
        ..DatastoresQuery::default()
    };
    let client = ctx.client()?;
    let mut listed = ctx.block_on(all(&client, query))??;
    if let Some(cluster) = &args.cluster {
        listed.retain(|one| one.cluster == *cluster);
        if listed.is_empty() {
            ctx.block_on(super::create::require_cluster(&client, cluster))??;
        }
    }
    if ctx.printer.is_json() {
        return ctx
            .printer
            .json(&serde_json::json!({ "datastores": listed }));
    }
    if listed.is_empty() {
        return ctx.printer.line(&nothing(args));
    }
    ctx.printer.table(&table(&listed, args))?;
    let mut here = state::known(ctx);
    here.retain(|upload| {
        let is_it = |one: &&DatastoreView| one.id == upload.id && one.state == State::Uploading;
        listed.iter().any(|one| is_it(&one))
    });
    if let [first, ..] = here.as_slice() {
        let name = &first.name;
        let what = match here.len() {
            1 => format!("{name}:{} was", first.version),
            more => format!("{more} of them were"),
        };
        ctx.printer.note(&format!(
            "{what} begun on this machine: if nothing sends it, `grid datastore resume {name}` goes on"
        ));
    }
    Ok(())
}

/// That there is nothing, of what was asked for.
fn nothing(args: &ListArgs) -> String {
    let what = match &args.name {
        Some(name) => format!("No datastore '{name}'"),
        None => "No datastores".to_owned(),
    };
    let whose = match args.global.as_deref() {
        None | Some("") => String::new(),
        Some(user) => format!(" of {user} that you can see"),
    };
    let place = if args.deleted { " in the trash" } else { "" };
    format!("{what}{whose}{place}.")
}

/// All versions that a query means.
pub(super) async fn all(client: &Client, mut query: DatastoresQuery) -> Result<Vec<DatastoreView>> {
    query.limit = Some(PAGE);
    let mut listed = Vec::new();
    loop {
        let page: DatastoresResponse = client.get("/datastores", &query).await?;
        let is_last = page.next.is_none() || page.datastores.is_empty();
        listed.extend(page.datastores);
        if is_last {
            return Ok(listed);
        }
        query.cursor = page.next;
    }
}

fn table(listed: &[DatastoreView], args: &ListArgs) -> Table {
    let with_creator = args.global.is_some();
    let mut head = vec!["Name"];
    head.extend(with_creator.then_some("Created by"));
    head.extend([
        "Cluster ID",
        "Version",
        "Size",
        "Files",
        "Created At",
        "Status",
        "Used by",
    ]);
    if args.deleted {
        head.extend(["Deleted At", "Deleted by"]);
    }
    let described = listed.iter().any(|one| !one.description.is_empty());
    head.extend(described.then_some("Description"));
    let mut table = Table::new(head)
        .short(&[("Cluster ID", "Cluster"), ("Version", "V")])
        .spare(&[
            "Cluster ID",
            "Files",
            "Deleted by",
            "Used by",
            "Description",
        ]);
    for one in listed {
        let is_counted = one.state != State::Uploading || one.files > 0 || one.size_bytes > 0;
        let mut row = vec![Cell::text(&one.name)];
        row.extend(with_creator.then(|| Cell::text(&one.created_by)));
        row.extend([
            Cell::text(&one.cluster),
            Cell::number(one.version.into()),
            if is_counted {
                Cell::text(format_size(one.size_bytes))
            } else {
                Cell::text("-")
            },
            if is_counted {
                Cell::number(one.files)
            } else {
                Cell::text("-")
            },
            Cell::time(&one.created_at),
            Cell::text(status(one, with_creator)),
            Cell::maybe(Some(one.used_by.join(", ")).filter(|users| !users.is_empty())),
        ]);
        if args.deleted {
            row.push(Cell::maybe_time(one.deleted_at.as_deref()));
            row.push(Cell::maybe(one.deleted_by.as_deref()));
        }
        row.extend(described.then(|| Cell::text(&one.description)));
        table.row(row);
    }
    table
}

/// The state in words, with how far it is or why it has failed.  Those of others are called
/// by the name of their creator, too.
fn status(one: &DatastoreView, with_creator: bool) -> String {
    let message = one.message.as_deref().unwrap_or_default();
    match (one.state, one.progress_total_bytes) {
        (State::Failed, _) => format!("failed: {message}"),
        (State::Processing, _) if !message.is_empty() => format!("waiting: {message}"),
        (State::Processing, Some(total)) if total > 0 => format!(
            "processing, {} of {}",
            format_size(one.progress_bytes),
            format_size(total)
        ),
        (State::Processing, None) if one.progress_bytes > 0 => {
            format!("processing, {}", format_size(one.progress_bytes))
        }
        (State::Uploading, _) if one.progress_bytes > 0 => {
            format!("uploading, {} so far", format_size(one.progress_bytes))
        }
        // An archive is taken apart as it comes, and what was cut is not gone on with.
        (State::Uploading, _) if one.source_kind == SourceKind::Stream => {
            "uploading an archive".to_owned()
        }
        // Folders of this or another machine are named by their whole path.
        (State::Uploading, _) if one.source == BY_S3 => {
            let name = match with_creator {
                true => format!("{}:{}", one.created_by, one.name),
                false => one.name.clone(),
            };
            format!("uploading by S3, until `grid datastore commit {name}`")
        }
        // The server counts what is whole in its list, and files come before their list.
        (State::Uploading, _) if one.files == 0 && one.size_bytes == 0 => {
            "uploading: what came is kept, but not counted yet".to_owned()
        }
        (state, _) => state.to_string(),
    }
}

/// List the runs that use a version or did
#[derive(Debug, Args)]
pub(super) struct UsedByArgs {
    /// NAME, NAME:VERSION, USER:NAME:VERSION or an id
    datastore: String,
}

/// Lists the users of a version, the newest first.
pub(super) fn used_by(args: &UsedByArgs, ctx: &Ctx) -> Result<()> {
    let route = format!("{}/users", super::path(&args.datastore)?);
    let client = ctx.client()?;
    let users = ctx.block_on(async {
        let mut query = DatastoreUsersQuery {
            limit: Some(PAGE),
            cursor: None,
        };
        let mut users = Vec::new();
        loop {
            let page: DatastoreUsersResponse = client.get(&route, &query).await?;
            users.extend(page.users);
            match page.next {
                Some(next) => query.cursor = Some(next),
                None => return anyhow::Ok(users),
            }
        }
    })??;
    if ctx.printer.is_json() {
        return ctx.printer.json(&serde_json::json!({ "users": users }));
    }
    if users.is_empty() {
        return ctx.printer.line("No run has used it.");
    }
    let mut table = Table::new(["Run", "Created by", "Created At", "Mounted now"]);
    for user in &users {
        table.row([
            Cell::text(user.run.as_deref().unwrap_or("(of another team)")),
            Cell::maybe(user.created_by.as_deref()),
            Cell::time(&user.created_at),
            Cell::text(if user.active { "yes" } else { "no" }),
        ]);
    }
    ctx.printer.table(&table)
}
