//! `grid artifacts`: fetches the files that experiments left behind.

pub(crate) mod download;
mod links;
pub(crate) mod place;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Args;
use grid_api::artifact::ArtifactView;
use grid_api::client::{Client, segment};
use grid_api::experiment::{ExperimentResponse, ExperimentView};
use grid_api::run::RunResponse;
use grid_core::duration::format_size;
use regex::Regex;

use crate::commands::status::is_not_found;
use crate::context::Ctx;
use crate::error::{EXIT_FAILED, Problem};
use crate::lists;
use crate::target::{self, Target};
use crate::words::counted;

/// Where files go when nobody says where.
const DOWNLOAD_DIR_DEFAULT: &str = "./grid_artifacts";

const EXAMPLES: &str = "\
Files come to DIR/RUN/EXPERIMENT/PATH for a run and to DIR/EXPERIMENT/PATH for an
experiment.  What is there already is not fetched again; what was interrupted goes on.

Examples:
  grid artifacts gifted-seahorse-583
  grid artifacts gifted-seahorse-583-exp0 ada:bert-1-exp3
  grid artifacts gifted-seahorse-583 -m '\\.ckpt$' --download_dir checkpoints
  grid artifacts gifted-seahorse-583-exp0 --link       links for others, good for 24 h";

/// Fetch the files that experiments left behind
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ArtifactsArgs {
    /// Runs and experiments: NAME, USER:NAME or an id
    #[arg(required = true, value_name = "RUNS_OR_EXPERIMENTS")]
    names: Vec<String>,

    /// Folder to put them in
    #[arg(long = "download_dir", value_name = "DIR", default_value = DOWNLOAD_DIR_DEFAULT)]
    download_dir: PathBuf,

    /// Only files whose path matches this regular expression
    #[arg(short = 'm', long = "match_regex", value_name = "REGEX")]
    match_regex: Option<String>,

    /// Do not fetch: make links that work without an account for 24 hours
    #[arg(long)]
    link: bool,
}

/// The files of one experiment, and where they go.
struct Source {
    experiment: ExperimentView,
    /// Below the download folder.
    folder: PathBuf,
    artifacts: Vec<ArtifactView>,
}

/// Fetches files, or makes links.
pub(crate) fn run(args: &ArtifactsArgs, ctx: &Ctx) -> Result<ExitCode> {
    let filter = match &args.match_regex {
        Some(text) => Some(Regex::new(text).map_err(|error| {
            // The error draws the expression; its last line says what is wrong with it.
            let error = error.to_string();
            let why = error
                .lines()
                .last()
                .unwrap_or_default()
                .trim_start_matches("error: ")
                .to_owned();
            Problem::usage(format!("'{text}' is not a regular expression: {why}"))
        })?),
        None => None,
    };
    let kinds: Vec<Target> = args
        .names
        .iter()
        .map(|name| Target::parse(name))
        .collect::<Result<_>>()?;
    let client = ctx.client()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("starting the runtime")?;
    runtime.block_on(async {
        let mut sources = Vec::new();
        for (name, kind) in args.names.iter().zip(&kinds) {
            find(&client, name, kind, &mut sources).await?;
        }
        check_folders(&sources)?;
        for source in &mut sources {
            let path = format!("/experiments/{}", segment(&source.experiment.id));
            source.artifacts = lists::artifacts(&client, &path).await?;
            if let Some(filter) = &filter {
                source
                    .artifacts
                    .retain(|artifact| filter.is_match(&artifact.path));
            }
        }
        if args.link {
            return links::print(ctx, &client, &sources).await;
        }
        fetch(ctx, &client, args, sources).await
    })
}

/// The experiments that a word means.
async fn find(client: &Client, word: &str, kind: &Target, sources: &mut Vec<Source>) -> Result<()> {
    if !matches!(kind, Target::Run(_)) {
        let path = target::experiment_path(word)?;
        match client
            .get::<_, ExperimentResponse>(&path, &())
            .await
            .map_err(anyhow::Error::from)
        {
            Ok(ExperimentResponse { experiment }) => {
                let folder = PathBuf::from(&experiment.name);
                sources.push(Source {
                    experiment,
                    folder,
                    artifacts: Vec::new(),
                });
                return Ok(());
            }
            Err(error) if is_not_found(&error) && matches!(kind, Target::Id(_)) => {}
            Err(error) => return Err(error),
        }
    }
    let path = target::run_path(word)?;
    let RunResponse { run } = client.get(&path, &()).await?;
    for experiment in lists::experiments(client, &path).await? {
        let folder = PathBuf::from(&run.name).join(&experiment.name);
        sources.push(Source {
            experiment,
            folder,
            artifacts: Vec::new(),
        });
    }
    Ok(())
}

/// Two people may have runs of the same name: their files must not be mixed.
fn check_folders(sources: &[Source]) -> Result<(), Problem> {
    let mut taken = BTreeMap::new();
    for source in sources {
        let id = &source.experiment.id;
        if taken
            .insert(&source.folder, id)
            .is_some_and(|other| other != id)
        {
            return Err(Problem::usage(format!(
                "two of these experiments are called {}",
                source.folder.display()
            ))
            .hint("fetch them one after the other, each into a --download_dir of its own"));
        }
    }
    Ok(())
}

async fn fetch(
    ctx: &Ctx,
    client: &Client,
    args: &ArtifactsArgs,
    sources: Vec<Source>,
) -> Result<ExitCode> {
    let files: usize = sources.iter().map(|source| source.artifacts.len()).sum();
    let open: Vec<&str> = sources
        .iter()
        .filter(|source| source.experiment.finished_at.is_none())
        .map(|source| source.experiment.name.as_str())
        .collect();
    if !open.is_empty() {
        let names = open.iter().take(5).copied().collect::<Vec<_>>().join(", ");
        ctx.printer.note(&format!(
            "Not over yet, so there may be more later: {names}"
        ));
    }
    if files == 0 {
        let which = if args.match_regex.is_some() {
            "No artifact matches."
        } else {
            "No artifacts."
        };
        ctx.printer.note(which);
    } else {
        ctx.printer
            .note("Downloading artifacts. This command may take a while");
    }
    if args.download_dir == Path::new(DOWNLOAD_DIR_DEFAULT) && files > 0 {
        place::keep_out_of_git(&args.download_dir)?;
    }
    let bundles = sources.into_iter().map(|source| download::Bundle {
        route: format!("/experiments/{}/artifacts", segment(&source.experiment.id)),
        name: source.experiment.name,
        folder: source.folder,
        files: source.artifacts,
    });
    let outcome = download::all(ctx, client, &args.download_dir, bundles.collect()).await?;
    if ctx.printer.is_json() {
        ctx.printer
            .json(&serde_json::json!({ "artifacts": outcome.files }))?;
    } else if files > 0 {
        ctx.printer.line(&format!(
            "{}, {} downloaded to {}; {} unchanged{}",
            counted(outcome.files.len() as u64, "file"),
            format_size(outcome.bytes),
            args.download_dir.display(),
            outcome.count(download::FileStatus::Unchanged),
            download::replaced(outcome.count(download::FileStatus::Replaced)),
        ))?;
    }
    for (path, error) in &outcome.failed {
        let mut report = crate::error::Report::of(error);
        report.message = format!("{path}: {}", report.message);
        ctx.printer.error(&report);
    }
    Ok(if outcome.failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(EXIT_FAILED)
    })
}
