//! `grid logs`: what experiments printed, and what they print.

mod follow;
mod lines;

use std::collections::VecDeque;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use grid_api::client::{Client, segment};
use grid_api::experiment::{ExperimentResponse, ExperimentView};
use grid_api::log::{LogStream, LogsQuery, LogsResponse};
use grid_core::workload::{ReasonCode, Status};

use crate::commands::status::is_not_found;
use crate::context::Ctx;
use crate::error::{EXIT_FAILED, EXIT_INTERRUPTED};
use crate::lists;
use crate::table::printable;
use crate::target::{self, Target};
use lines::Lines;

/// Lines of one page; the most that the server gives.  Lower: more round trips.
const PAGE: u32 = 10_000;

const EXAMPLES: &str = "\
Examples:
  grid logs gifted-seahorse-583-exp0
  grid logs gifted-seahorse-583-exp0 --follow
  grid logs gifted-seahorse-583-exp0 -l 100       the last 100 lines
  grid logs gifted-seahorse-583 -f                all experiments of a run as they print
  grid logs ada:bert-1-exp0 --show-build-logs     how its environment was built, too";

/// Show what experiments printed
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct LogsArgs {
    /// An experiment or a run: NAME, USER:NAME or an id
    #[arg(value_name = "EXPERIMENT")]
    name: String,

    /// Go on as it prints, until it ends or Ctrl-C
    #[arg(short, long)]
    follow: bool,

    /// Only the last N lines
    #[arg(short = 'l', long = "tail-lines", value_name = "N")]
    tail_lines: Option<u32>,

    /// How its environment was built, too
    #[arg(long = "show-build-logs")]
    show_build_logs: bool,

    /// Only how its environment was built
    #[arg(long, conflicts_with = "show_build_logs")]
    build: bool,
}

/// Shows the logs.
pub(crate) fn run(args: &LogsArgs, ctx: &Ctx) -> Result<ExitCode> {
    let kind = Target::parse(&args.name)?;
    let client = ctx.client()?;
    ctx.block_on(async {
        let (experiments, is_run) = experiments(&client, &args.name, &kind).await?;
        if args.follow {
            let wanted = |experiment: &ExperimentView| streams(args, experiment);
            let tail = args.tail_lines.map(|tail| tail.min(PAGE));
            if tail != args.tail_lines {
                ctx.printer
                    .note(&format!("Following begins with the last {PAGE} lines"));
            }
            follow::follow(ctx, &client, &experiments, is_run, tail, &wanted).await?;
        } else {
            print_all(ctx, &client, &experiments, is_run, args).await?;
        }
        Ok(ExitCode::SUCCESS)
    })?
}

/// Follows the run that was just submitted; fails when any of its experiments does.
pub(crate) fn follow_run(ctx: &Ctx, client: &Client, run: &str) -> Result<ExitCode> {
    let path = target::run_path(run)?;
    ctx.block_on(async {
        let experiments = lists::experiments(client, &path).await?;
        let wanted = |_: &ExperimentView| vec![LogStream::Build, LogStream::Experiment];
        let is_many = experiments.len() > 1;
        let follow = follow::follow(ctx, client, &experiments, is_many, None, &wanted);
        let ended = tokio::select! {
            ended = follow => ended?,
            _ = tokio::signal::ctrl_c() => {
                // Who interrupts a program here may believe to have stopped the run.
                ctx.printer.note(&format!(
                    "\nRun {run} goes on: `grid logs {run} --follow` follows it again, `grid stop run {run}` ends it"
                ));
                return Ok(ExitCode::from(EXIT_INTERRUPTED));
            }
        };
        let all_well = ended.values().all(|status| *status == Status::Succeeded);
        Ok(if all_well {
            ExitCode::SUCCESS
        } else {
            ExitCode::from(EXIT_FAILED)
        })
    })?
}

/// The experiments that are meant, and whether a run was named.
async fn experiments(
    client: &Client,
    word: &str,
    kind: &Target,
) -> Result<(Vec<ExperimentView>, bool)> {
    if !matches!(kind, Target::Run(_)) {
        let path = target::experiment_path(word)?;
        match client
            .get::<_, ExperimentResponse>(&path, &())
            .await
            .map_err(anyhow::Error::from)
        {
            Ok(answer) => return Ok((vec![answer.experiment], false)),
            Err(error) if is_not_found(&error) && matches!(kind, Target::Id(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok((
        lists::experiments(client, &target::run_path(word)?).await?,
        true,
    ))
}

/// Which logs are shown: a build that failed explains itself.
fn streams(args: &LogsArgs, experiment: &ExperimentView) -> Vec<LogStream> {
    let build_failed = experiment
        .reason
        .as_ref()
        .is_some_and(|reason| reason.code == ReasonCode::Build);
    if args.build {
        vec![LogStream::Build]
    } else if args.show_build_logs || build_failed {
        vec![LogStream::Build, LogStream::Experiment]
    } else {
        vec![LogStream::Experiment]
    }
}

/// What is said instead of a log that does not exist yet.
pub(crate) fn waiting(name: Option<&str>, message: Option<&str>) -> String {
    let subject = name.map_or_else(
        || "Experiment".to_owned(),
        |name| format!("Experiment {name}"),
    );
    let reason = message
        .filter(|m| !m.is_empty())
        .map(|m| format!(" ({m})"))
        .unwrap_or_default();
    format!("{subject} is pending. Logs will be available when experiment starts.{reason}")
}

/// Why there is no line.
fn nothing(args: &LogsArgs, name: Option<&str>, experiment: &ExperimentView) -> String {
    if matches!(experiment.status, Status::Queued | Status::Pending) {
        return waiting(name, experiment.message.as_deref());
    }
    let name = &experiment.name;
    if args.build {
        return format!("Nothing was built for experiment {name}.");
    }
    let why = experiment.message.as_deref();
    let why = why.and_then(|why| why.lines().next());
    let why = why.map(|why| format!(" ({})", printable(why)));
    format!(
        "Experiment {name} has printed nothing: {}{}",
        experiment.status,
        why.unwrap_or_default()
    )
}

async fn print_all(
    ctx: &Ctx,
    client: &Client,
    experiments: &[ExperimentView],
    is_run: bool,
    args: &LogsArgs,
) -> Result<()> {
    let mut lines = Lines::new(&ctx.printer, is_run, false);
    lines.begin()?;
    for experiment in experiments {
        let name = is_run.then_some(experiment.name.as_str());
        let mut n_lines = 0;
        for stream in streams(args, experiment) {
            n_lines += print_one(client, experiment, stream, args.tail_lines, &mut lines).await?;
        }
        if n_lines == 0 {
            ctx.printer.note(&nothing(args, name, experiment));
        }
    }
    lines.end()
}

/// Prints one log as far as it goes now.
async fn print_one(
    client: &Client,
    experiment: &ExperimentView,
    stream: LogStream,
    tail: Option<u32>,
    lines: &mut Lines<'_>,
) -> Result<usize> {
    let path = format!("{}/logs", path_of(experiment));
    let most = tail.map_or(usize::MAX, |tail| tail as usize);
    if most > PAGE as usize && most < usize::MAX {
        return print_long_tail(client, experiment, stream, most, lines).await;
    }
    let mut query = LogsQuery {
        stream: Some(stream),
        tail,
        cursor: None,
        limit: Some(PAGE),
    };
    let mut n_lines = 0;
    loop {
        let page: LogsResponse = client.get(&path, &query).await?;
        // A line that is still written comes again with every page.
        let n_whole = page.lines.iter().filter(|line| !line.partial).count();
        for line in &page.lines {
            lines.write(&experiment.name, line)?;
        }
        n_lines += page.lines.len();
        // What is still written has no last page, but one with nothing new.
        if page.next.is_none() || n_whole == 0 || n_lines >= most {
            break;
        }
        (query.cursor, query.tail) = (page.next, None);
    }
    lines.settle()?;
    Ok(n_lines)
}

/// Prints more last lines than the server gives at a time: all are read, and the last ones
/// are kept.
async fn print_long_tail(
    client: &Client,
    experiment: &ExperimentView,
    stream: LogStream,
    most: usize,
    lines: &mut Lines<'_>,
) -> Result<usize> {
    let path = format!("{}/logs", path_of(experiment));
    let mut query = LogsQuery {
        stream: Some(stream),
        tail: None,
        cursor: None,
        limit: Some(PAGE),
    };
    let mut kept = VecDeque::new();
    loop {
        let page: LogsResponse = client.get(&path, &query).await?;
        let (whole, partial): (Vec<_>, Vec<_>) =
            page.lines.into_iter().partition(|line| !line.partial);
        let is_last = page.next.is_none() || whole.is_empty();
        kept.extend(whole);
        // A line that is still written comes again with every page.
        if is_last {
            kept.extend(partial);
        }
        kept.drain(..kept.len().saturating_sub(most));
        if is_last {
            break;
        }
        query.cursor = page.next;
    }
    for line in &kept {
        lines.write(&experiment.name, line)?;
    }
    lines.settle()?;
    Ok(kept.len())
}

/// Ids are safe against runs that are renamed, deleted and made again meanwhile.
fn path_of(experiment: &ExperimentView) -> String {
    format!("/experiments/{}", segment(&experiment.id))
}
