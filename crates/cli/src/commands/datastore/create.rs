//! Making a version, and going on with one that was interrupted.

use std::path::Path;

use anyhow::{Context as _, Result};
use clap::Args;
use grid_api::client::{Client, segment};
use grid_api::cluster::ClustersResponse;
use grid_api::datastore::{DatastoreCreate, DatastoreResponse, DatastoreView};
use grid_core::datastore::{SourceKind, State};
use grid_core::duration::format_size;
use grid_core::name::DatastoreName;

use super::change::called;
use super::state::{Held, Upload, left_over};
use super::{remote, upload};
use crate::capture::data::{self, Data};
use crate::context::Ctx;
use crate::error::Problem;
use crate::progress::Progress;

/// How often what a server has lost is sent again.  Higher: a broken disk is written to for
/// ever; lower: somebody has to say it once more.
const ROUNDS_MAX: usize = 3;

/// Make the next version of a datastore
#[derive(Debug, Args)]
pub(super) struct CreateArgs {
    /// A folder, a file, an http(s) address of an archive, s3://BUCKET/PREFIX of a bucket, or -
    /// for a tar on standard input
    #[arg(required_unless_present = "old_source")]
    source: Option<String>,

    /// Name of the datastore [default: the last part of SOURCE]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,

    /// Team that a new datastore belongs to [default: your current one]
    #[arg(long, value_name = "TEAM")]
    team: Option<String>,

    /// What there is to say about this version
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    description: String,

    /// Cluster [default: the server's]
    #[arg(long, value_name = "CLUSTER")]
    cluster: Option<String>,

    /// Leave the objects of a bucket where they are, and only list them
    #[arg(long = "no-copy")]
    no_copy: bool,

    /// What opens the bucket: NAME or USER:NAME [default: nothing, or one of yours that does]
    #[arg(long, value_name = "CREDENTIAL", alias = "grid_credential")]
    credential: Option<String>,

    /// Address of the server of the bucket [default: that of the credential, or Amazon's]
    #[arg(long, value_name = "URL")]
    endpoint: Option<String>,

    /// Begin a new version even if an upload from there was interrupted
    #[arg(long)]
    fresh: bool,

    #[arg(long = "source", hide = true, conflicts_with = "source")]
    old_source: Option<String>,
}

/// Go on with uploads that were interrupted on this machine
#[derive(Debug, Args)]
pub(super) struct ResumeArgs {
    /// Only that of this datastore: NAME, NAME:VERSION or an id
    datastore: Option<String>,

    /// All of them
    #[arg(short, long)]
    all: bool,
}

/// Makes a version.
pub(super) fn run(args: &CreateArgs, ctx: &Ctx) -> Result<()> {
    let typed = args.source.as_deref().or(args.old_source.as_deref());
    let source = typed.unwrap_or_default();
    if args.old_source.is_some() {
        ctx.printer
            .warn("--source is not needed any more: write `grid datastore create SOURCE`");
    }
    let kind = kind_of(source);
    if args.no_copy && kind != SourceKind::S3 {
        return Err(Problem::usage("--no-copy is for buckets: s3://BUCKET/PREFIX").into());
    }
    if (args.credential.is_some() || args.endpoint.is_some()) && kind != SourceKind::S3 {
        return Err(Problem::usage(
            "--credential and --endpoint are for buckets: s3://BUCKET/PREFIX",
        )
        .into());
    }
    let name = name(args, source)?;
    let client = ctx.client()?;
    if let Some(cluster) = &args.cluster {
        ctx.block_on(require_cluster(&client, cluster))??;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("starting the runtime")?;
    let made = match kind {
        SourceKind::Folder | SourceKind::File => {
            let (held, data) = held(args, ctx, &client, &runtime, &name, Path::new(source))?;
            runtime.block_on(go_on(ctx, &client, held, data))?
        }
        SourceKind::Stream => runtime.block_on(remote::stream(
            ctx,
            &client,
            &wish(args, &name, source, kind),
        ))?,
        SourceKind::Http | SourceKind::S3 => runtime.block_on(remote::fetched(
            ctx,
            &client,
            &wish(args, &name, source, kind),
        ))?,
    };
    tell(ctx, &made)?;
    if kind == SourceKind::File && looks_packed(source) {
        ctx.printer.note(&format!(
            "{source} is kept as the one file that it is; to have it taken apart: grid datastore create - --name {name} < {source}"
        ));
    }
    Ok(())
}

/// Data is where the server is; another cluster is none that it could go to.
pub(super) async fn require_cluster(client: &Client, wanted: &str) -> Result<()> {
    let known: ClustersResponse = client.get("/clusters", &()).await?;
    if known.clusters.iter().any(|one| one.name == wanted) {
        return Ok(());
    }
    let problem = Problem::new(format!("there is no cluster '{wanted}'"));
    Err(problem
        .hint("leave --cluster out, or see `grid clusters`")
        .into())
}

/// Whether a file is an archive by its name, which somebody may want to have taken apart.
fn looks_packed(source: &str) -> bool {
    let lower = source.to_ascii_lowercase();
    let endings = [".tar", ".tar.gz", ".tgz", ".tar.zst", ".zip"];
    endings.iter().any(|ending| lower.ends_with(ending))
}

fn kind_of(source: &str) -> SourceKind {
    let lower = source.to_ascii_lowercase();
    if source == "-" {
        SourceKind::Stream
    } else if lower.starts_with("http://") || lower.starts_with("https://") {
        SourceKind::Http
    } else if ["s3://", "gs://", "az://"]
        .iter()
        .any(|bucket| lower.starts_with(bucket))
    {
        SourceKind::S3
    } else if Path::new(source).is_file() {
        SourceKind::File
    } else {
        SourceKind::Folder
    }
}

fn name(args: &CreateArgs, source: &str) -> Result<DatastoreName> {
    if let Some(name) = &args.name {
        return DatastoreName::parse(name)
            .map_err(|error| Problem::usage(error.to_string()).into());
    }
    let real = Path::new(source).canonicalize().ok();
    let source = real.as_deref().and_then(Path::to_str).unwrap_or(source);
    DatastoreName::of_source(source).ok_or_else(|| {
        Problem::usage(format!("'{source}' gives no name"))
            .hint("say one with --name")
            .into()
    })
}

/// The upload to work on: the one that was interrupted, or a new one.
fn held(
    args: &CreateArgs,
    ctx: &Ctx,
    client: &Client,
    runtime: &tokio::runtime::Runtime,
    name: &DatastoreName,
    source: &Path,
) -> Result<(Held, Option<Data>)> {
    let real = source.canonicalize().map_err(|error| {
        Problem::usage(format!("cannot take '{}'", source.display()))
            .because(error)
            .hint("SOURCE is a folder, a file, http(s)://…, s3://BUCKET/PREFIX, or - for standard input")
    })?;
    let text = real
        .to_str()
        .ok_or_else(|| Problem::usage(format!("the path {} is not UTF-8", real.display())))?;
    let user_id = user_id(ctx);
    if !args.fresh {
        for held in left_over(ctx, &user_id) {
            let is_same = held.upload.name == name.as_str() && held.upload.source == text;
            if is_same && runtime.block_on(is_open(client, &held.upload.id))? {
                ctx.printer.note(&format!(
                    "Going on with {}:{}, which was interrupted",
                    held.upload.name, held.upload.version
                ));
                return Ok((held, None));
            }
        }
    }
    let create = wish(args, name, text, kind_of(text));
    // What cannot be read or sent is found before a number is given to it.
    let data = Data::scan(&real, ctx.settings.cache_dir())?;
    let begun: DatastoreResponse = runtime.block_on(client.post("/datastores", &create))?;
    let held = Held::begin(
        ctx,
        Upload {
            url: ctx.settings.url.clone(),
            user_id,
            id: begun.datastore.id,
            name: begun.datastore.name,
            version: begun.datastore.version,
            source: text.to_owned(),
        },
    )?;
    Ok((held, Some(data)))
}

/// What the server is asked for.
fn wish(
    args: &CreateArgs,
    name: &DatastoreName,
    source: &str,
    source_kind: SourceKind,
) -> DatastoreCreate {
    DatastoreCreate {
        name: name.to_string(),
        team: args.team.clone(),
        source: source.to_owned(),
        source_kind,
        description: args.description.clone(),
        credential: args.credential.clone(),
        endpoint: args.endpoint.clone(),
        no_copy: args.no_copy,
    }
}

fn user_id(ctx: &Ctx) -> String {
    let credentials = ctx.settings.credentials.as_ref();
    credentials.map_or_else(String::new, |credentials| credentials.user_id.clone())
}

/// Whether an upload can be gone on with.
async fn is_open(client: &Client, id: &str) -> Result<bool> {
    let route = format!("/datastores/{}", segment(id));
    let answer: Result<DatastoreResponse, grid_api::client::Error> = client.get(&route, &()).await;
    match answer {
        Ok(answer) => {
            let one = answer.datastore;
            Ok(one.state == State::Uploading && one.deleted_at.is_none())
        }
        Err(error) if error.status() == Some(404) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Sends what is missing; Ctrl-C loses nothing.
async fn go_on(
    ctx: &Ctx,
    client: &Client,
    held: Held,
    scanned: Option<Data>,
) -> Result<DatastoreView> {
    let upload = held.upload.clone();
    let called = format!("{}:{}", upload.name, upload.version);
    let work = async {
        let mut scanned = scanned;
        for _ in 0..ROUNDS_MAX {
            let sent = send(ctx, client, &upload, scanned.take()).await?;
            if sent.state != State::Uploading {
                return Ok(sent);
            }
            ctx.printer.note(&format!(
                "The server has not kept all that was sent of {called}; sending that again"
            ));
        }
        let problem = Problem::new(format!("the server does not keep what is sent of {called}"));
        let hint = "let whoever runs it look with `grid server doctor`; then `grid datastore resume` goes on";
        Err(problem.hint(hint).into())
    };
    tokio::select! {
        sent = work => {
            let sent = sent.map_err(|error| interrupted(error, &called))?;
            held.end();
            Ok(sent)
        }
        _ = tokio::signal::ctrl_c() => Err(Problem::new(format!("interrupted: what was sent of {called} is kept"))
            .hint(format!("`grid datastore resume {}` goes on, and so does the same create", upload.name))
            .into()),
    }
}

/// Sends what the server lacks.
async fn send(
    ctx: &Ctx,
    client: &Client,
    upload: &Upload,
    scanned: Option<Data>,
) -> Result<DatastoreView> {
    let called = format!("{}:{}", upload.name, upload.version);
    let source = Path::new(&upload.source);
    let cache_dir = ctx.settings.cache_dir();
    let data = match scanned {
        Some(data) => data,
        None => tokio::task::block_in_place(|| Data::scan(source, cache_dir))?,
    };
    let bytes = data.size_bytes();
    let progress = Progress::new(&ctx.printer, &called, bytes.unwrap_or_default());
    if bytes.is_none() && progress.is_shown() {
        // Of very many files it is known later, and then also how long it takes.
        let shown = progress.clone();
        data.count(move |bytes| shown.set_total(bytes));
    }
    let sent = upload::send(client, &upload.id, data, &progress).await;
    progress.finish();
    let sent = sent?;
    if !sent.changed.is_empty() {
        ctx.printer.warn(&format!(
            "files changed while they were read; {called} has them as they were then: {}",
            data::named(sent.changed)
        ));
    }
    if !sent.untimely.is_empty() {
        ctx.printer.warn(&format!(
            "times before 1677 and after 2262 cannot be kept; {called} has the nearest one for: {}",
            data::named(sent.untimely)
        ));
    }
    Ok(sent.view)
}

/// What to do after a failure in the middle.
fn interrupted(error: anyhow::Error, called: &str) -> anyhow::Error {
    let is_transient = error.chain().any(|cause| {
        cause
            .downcast_ref::<grid_api::client::Error>()
            .is_some_and(grid_api::client::Error::is_transient)
    });
    if is_transient {
        return Problem::new(format!(
            "the upload of {called} was cut; what was sent is kept"
        ))
        .because(format!("{error:#}"))
        .hint("`grid datastore resume` goes on when the server answers again")
        .into();
    }
    let is_of_a_file = error.root_cause().is::<std::io::Error>();
    if is_of_a_file && error.downcast_ref::<Problem>().is_none() {
        return Problem::new(format!("{called} is not whole: {error:#}"))
            .hint("mend that; the same create goes on, and so does `grid datastore resume`")
            .into();
    }
    error
}

/// Goes on with what was interrupted.
pub(super) fn resume(args: &ResumeArgs, ctx: &Ctx) -> Result<()> {
    let client = ctx.client()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("starting the runtime")?;
    let (mut open, mut others) = (Vec::new(), Vec::new());
    for held in left_over(ctx, &user_id(ctx)) {
        let called = format!("{}:{}", held.upload.name, held.upload.version);
        let is_meant = args.datastore.as_ref().is_none_or(|word| {
            *word == held.upload.name || *word == called || *word == held.upload.id
        });
        if !is_meant {
            others.push(called);
            continue;
        }
        if runtime.block_on(is_open(&client, &held.upload.id))? {
            open.push(held);
        } else if held.upload.url == ctx.settings.url {
            held.end();
        }
    }
    if open.is_empty() {
        let of = args.datastore.as_ref();
        let of = of.map_or_else(String::new, |word| format!(" of '{word}'"));
        let problem = Problem::new(format!(
            "there is no interrupted upload{of} on this machine"
        ));
        let hint = match others.is_empty() {
            true => "`grid datastore create SOURCE` begins one".to_owned(),
            false => format!("there may be one of {}", others.join(", ")),
        };
        return Err(problem.hint(hint).into());
    }
    if !args.all && args.datastore.is_none() {
        // The latest, as the original did.
        open.drain(..open.len() - 1);
    }
    for held in open {
        let made = runtime.block_on(go_on(ctx, &client, held, None))?;
        tell(ctx, &made)?;
    }
    Ok(())
}

/// Says what was made, and how it is used.
pub(super) fn tell(ctx: &Ctx, made: &DatastoreView) -> Result<()> {
    if made.state == State::Failed {
        let why = made.message.as_deref().unwrap_or_default();
        let name = called(made);
        let problem = Problem::new(format!("datastore {name} has failed: {why}"));
        return Err(problem
            .hint(format!(
                "mend that and create it again; `grid datastore delete {name}` takes this one off the list"
            ))
            .into());
    }
    if ctx.printer.is_json() {
        return ctx.printer.json(&serde_json::json!({ "datastore": made }));
    }
    let what = if made.no_copy {
        "which stay where they are".to_owned()
    } else {
        format!("of which {} were new", format_size(made.new_bytes))
    };
    ctx.printer.line(&format!(
        "Datastore {} is {}: {} file(s), {}, {what}",
        called(made),
        made.state,
        made.files,
        format_size(made.size_bytes),
    ))?;
    ctx.printer.note(&format!(
        "Use it: grid run --datastore_name {} SCRIPT, which finds it at /datastores/{}",
        called(made),
        made.name
    ));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Report;

    #[test]
    fn a_file_that_cannot_be_read_says_how_to_go_on() {
        let denied = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
        let error = anyhow::Error::new(denied).context("sending b");
        let report = Report::of(&interrupted(error, "cats:1"));
        assert!(
            report
                .message
                .starts_with("cats:1 is not whole: sending b: ")
        );
        assert!(
            report
                .hint
                .is_some_and(|hint| hint.contains("grid datastore resume"))
        );
        // What says already what to do says nothing else.
        let error = anyhow::Error::new(Problem::new("no room").hint("make room"));
        let report = Report::of(&interrupted(error, "cats:1"));
        assert_eq!(report.message, "no room");
    }
}
