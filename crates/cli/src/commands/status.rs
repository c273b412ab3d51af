//! `grid status`: what is going on.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use futures::StreamExt as _;
use grid_api::client::{Client, segment};
use grid_api::experiment::{EventsResponse, ExperimentResponse, ExperimentView};
use grid_api::run::{RunResponse, RunView, RunsQuery, UploadView};
use grid_core::time::Timestamp;
use serde::Serialize;

use crate::context::Ctx;
use crate::error::Problem;
use crate::filter::Filter;
use crate::printer::Printer;
use crate::table::{Cell, Table, printable};
use crate::target::Target;
use crate::{clock, lists, target, time, views};

/// Experiments that are shown on a terminal without `--all`.  Higher: the summary
/// scrolls away; lower: people have to ask twice.
const SHOWN_MAX: usize = 100;

/// How often durations are brought up to date while watching.
const TICK: Duration = Duration::from_secs(1);

/// Changes within this time are shown together.  Higher: the screen lags; lower: it flickers.
const GATHER: Duration = Duration::from_millis(100);

/// What stands before the token in a link to a run.
const SHARED_PART: &str = "s";

const EXAMPLES: &str = "\
Examples:
  grid status                        your runs that are going on
  grid status gifted-seahorse-583    experiments of a run, newest first
  grid status ada:bert-1             of a teammate's run
  grid status --global               your teammates' runs, too
  grid status --global ada --state running --since 2d
  grid status LINK                   what `grid share` printed
  grid status --watch
  grid status -o json gifted-seahorse-583";

/// Show the runs that are going on, or the experiments of a run
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct StatusArgs {
    /// A run or an experiment: NAME, USER:NAME, an id, or a link to a run
    #[arg(value_name = "RUN")]
    run: Option<String>,

    /// Your teammates' runs, too, or those of one of them
    #[arg(long, value_name = "USERNAME", num_args = 0..=1, default_missing_value = "")]
    global: Option<String>,

    /// Show changes as they happen, until nothing goes on or Ctrl-C
    #[arg(short, long)]
    watch: bool,

    /// Runs that are over, too; all experiments of a large run
    #[arg(short, long)]
    all: bool,

    #[command(flatten)]
    filter: Filter,
}

/// Shows what is going on.
pub(crate) fn run(args: &StatusArgs, ctx: &Ctx) -> Result<ExitCode> {
    let what = match args.run.as_deref() {
        Some(_) if !args.filter.is_empty() => {
            return Err(
                Problem::usage("--name, --state and --since narrow the list of runs")
                    .hint("leave out RUN, or the flags")
                    .into(),
            );
        }
        Some(word) => What::of(word)?,
        None => What::Runs(query(args)),
    };
    let client = ctx.client()?;
    ctx.block_on(async {
        if args.watch {
            watch(ctx, &client, &what, args).await
        } else {
            let seen = what.read(&client).await?;
            if ctx.printer.is_json() {
                return ctx.printer.json(&seen);
            }
            ctx.printer.text(&seen.text(&ctx.printer, args, None))
        }
    })??;
    Ok(ExitCode::SUCCESS)
}

fn query(args: &StatusArgs) -> RunsQuery {
    args.filter.narrow(RunsQuery {
        // Whoever asks for what is over wants to see it.
        active: (!args.all && !args.filter.wants_final()).then_some(true),
        global: args.global.is_some().then_some(true),
        created_by: args.global.clone().filter(|user| !user.is_empty()),
        ..RunsQuery::default()
    })
}

/// What is asked for.
enum What {
    Runs(RunsQuery),
    /// Path of the run.
    Run(String),
    /// Path of the experiment.
    Experiment(String),
    /// Paths of the experiment and the run with this id.
    Either(String, String),
    /// Token of a link to a run.
    Shared(String),
}

impl What {
    fn of(word: &str) -> Result<Self> {
        if word.contains("://") {
            return Ok(Self::Shared(shared_token(word)?));
        }
        Ok(match Target::parse(word)? {
            Target::Run(_) => Self::Run(target::run_path(word)?),
            Target::Experiment(_) => Self::Experiment(target::experiment_path(word)?),
            Target::Id(_) => Self::Either(target::experiment_path(word)?, target::run_path(word)?),
        })
    }

    async fn read(&self, client: &Client) -> Result<Seen> {
        match self {
            Self::Runs(query) => {
                let (runs, _) = lists::runs(client, query.clone(), usize::MAX).await?;
                Ok(Seen {
                    runs: Some(runs),
                    ..Seen::default()
                })
            }
            Self::Run(path) => Seen::run(client, path).await,
            Self::Shared(token) => {
                let path = format!("/shared/{}", segment(token));
                let RunResponse { run } = client.get(&path, &()).await?;
                Seen::run(client, &target::run_path(&run.id)?).await
            }
            Self::Experiment(path) => Seen::experiment(client, path).await,
            Self::Either(experiment, run) => match Seen::experiment(client, experiment).await {
                Err(error) if is_not_found(&error) => Seen::run(client, run).await,
                seen => seen,
            },
        }
    }
}

/// The token is the last part of a link to a run.
fn shared_token(link: &str) -> Result<String> {
    let url = reqwest::Url::parse(link).ok();
    let token = url.as_ref().and_then(|url| {
        let mut parts = url.path_segments()?.rev();
        let token = parts.next().filter(|token| !token.is_empty())?;
        (parts.next() == Some(SHARED_PART)).then(|| token.to_owned())
    });
    Ok(token.ok_or_else(|| {
        Problem::usage(format!("'{link}' is no link to a run"))
            .hint("`grid share RUN` makes one; links to artifacts open in a browser")
    })?)
}

pub(crate) fn is_not_found(error: &anyhow::Error) -> bool {
    let refused = error.downcast_ref::<grid_api::client::Error>();
    refused.and_then(grid_api::client::Error::status) == Some(404)
}

/// What the server said.
#[derive(Default, PartialEq, Serialize)]
struct Seen {
    #[serde(skip_serializing_if = "Option::is_none")]
    runs: Option<Vec<RunView>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    experiments: Option<Vec<ExperimentView>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    events: Option<Vec<grid_api::experiment::EventView>>,
}

impl Seen {
    async fn run(client: &Client, path: &str) -> Result<Self> {
        let run = client.get::<_, RunResponse>(path, &());
        let (run, experiments) = futures::future::join(run, lists::experiments(client, path)).await;
        let run = run?.run;
        let mut experiments = match experiments {
            // Until its code has come there are none.
            Err(error) if run.upload.is_some() && is_not_found(&error) => vec![],
            other => other?,
        };
        experiments.reverse();
        Ok(Self {
            runs: Some(vec![run]),
            experiments: Some(experiments),
            events: None,
        })
    }

    async fn experiment(client: &Client, path: &str) -> Result<Self> {
        let answer: ExperimentResponse = client.get(path, &()).await?;
        let events: EventsResponse = client.get(&format!("{path}/events"), &()).await?;
        Ok(Self {
            runs: None,
            experiments: Some(vec![answer.experiment]),
            events: Some(events.events),
        })
    }

    /// Whether anything can still change.
    fn is_open(&self) -> bool {
        match (&self.runs, &self.experiments) {
            (_, Some(experiments)) => experiments
                .iter()
                .any(|experiment| experiment.finished_at.is_none()),
            _ => true,
        }
    }

    /// As people read it, with at most `rows_max` rows.
    fn text(&self, printer: &Printer, args: &StatusArgs, rows_max: Option<usize>) -> String {
        let now = clock::now();
        match (&self.runs, &self.experiments) {
            (runs, Some(experiments)) => {
                let run = runs.iter().flatten().next();
                if let Some((run, upload)) = run.and_then(|run| Some((run, run.upload.as_ref()?))) {
                    return upload_text(run, upload);
                }
                let mut text = experiments_text(printer, args, experiments, rows_max, now);
                if let Some(run) = run {
                    text.push_str(&counts_text(run));
                    text.push_str(&datastores_text(run));
                    text.push_str(&description_text(run));
                }
                text.push_str(&events_text(printer, self.events.as_deref()));
                text
            }
            (runs, None) => runs_text(
                printer,
                args,
                runs.as_deref().unwrap_or_default(),
                rows_max,
                now,
            ),
        }
    }
}

fn runs_text(
    printer: &Printer,
    args: &StatusArgs,
    runs: &[RunView],
    rows_max: Option<usize>,
    now: Timestamp,
) -> String {
    let shown = runs.len().min(rows_max.unwrap_or(usize::MAX));
    let table = views::active_runs(&runs[..shown], args.global.is_some(), now);
    let mut text = if table.is_empty() {
        "None Active.\n".to_owned()
    } else {
        printer.render(&table)
    };
    if shown < runs.len() {
        text.push_str(&format!("… and {} more\n", runs.len() - shown));
    }
    if !args.all {
        text.push_str("Runs that are over: `grid history`\n");
    }
    text
}

fn experiments_text(
    printer: &Printer,
    args: &StatusArgs,
    experiments: &[ExperimentView],
    rows_max: Option<usize>,
    now: Timestamp,
) -> String {
    // A pipe gets everything; a person wants to see the end of the command.
    let limit = if args.all || !printer.out_is_tty() {
        usize::MAX
    } else {
        SHOWN_MAX
    };
    let shown = experiments.len().min(rows_max.unwrap_or(limit));
    let mut text = printer.render(&views::experiments(experiments[..shown].iter(), now));
    if shown < experiments.len() {
        text.push_str(&format!(
            "… and {} more; --all shows them\n",
            experiments.len() - shown
        ));
    }
    text
}

fn counts_text(run: &RunView) -> String {
    let counts = &run.counts;
    let parts = [
        (counts.running, "running"),
        (counts.stopping, "stopping"),
        (counts.pending, "pending"),
        (counts.queued, "queued"),
        (counts.succeeded, "succeeded"),
        (counts.failed, "failed"),
        (counts.stopped, "stopped"),
    ];
    let parts: Vec<String> = parts
        .iter()
        .filter(|(n, _)| *n > 0)
        .map(|(n, word)| format!("{n} {word}"))
        .collect();
    format!(
        "{} of {}: {}\n",
        crate::words::counted(counts.total(), "experiment"),
        run.name,
        parts.join(", ")
    )
}

/// What there is to say of a run that has no code.
fn upload_text(run: &RunView, upload: &UploadView) -> String {
    let experiments = crate::words::counted(run.counts.total(), "experiment");
    let until = if upload.waiting {
        format!(", until {}", time::civil(&upload.expires_at))
    } else {
        String::new()
    };
    let name = &run.name;
    let message = printable(&upload.message);
    format!("Run {name} of {experiments} has not begun: {message}{until}\n")
}

fn description_text(run: &RunView) -> String {
    let spec = run.spec.iter();
    spec.filter(|spec| !spec.description.is_empty())
        .map(|spec| format!("{}\n", printable(&spec.description)))
        .collect()
}

/// The exact versions that a run mounts.
fn datastores_text(run: &RunView) -> String {
    let mounts = run.spec.iter().flat_map(|spec| &spec.datastores);
    mounts
        .map(|mount| {
            let place = mount.mount_dir.as_deref().unwrap_or_default();
            format!("datastore {} at {place}\n", mount.datastore)
        })
        .collect()
}

fn events_text(printer: &Printer, events: Option<&[grid_api::experiment::EventView]>) -> String {
    let Some(events) = events.filter(|events| !events.is_empty()) else {
        return String::new();
    };
    let mut table = Table::new(["At", "By", "What happened"]);
    for event in events {
        table.row([
            Cell::time(&event.at),
            Cell::text(&event.actor),
            views::sentence(&event.message),
        ]);
    }
    printer.render(&table)
}

/// Reads again whenever the server says that something changed.
async fn watch(ctx: &Ctx, client: &Client, what: &What, args: &StatusArgs) -> Result<()> {
    let printer = &ctx.printer;
    let mut last: Option<Seen> = None;
    loop {
        // Listening begins before looking, so that no change falls in between.
        let mut changes = client.events("/changes", None).await.ok().map(Box::pin);
        loop {
            let seen = what.read(client).await?;
            let is_open = seen.is_open();
            show(printer, &seen, last.as_ref(), args)?;
            last = Some(seen);
            if !is_open {
                return Ok(());
            }
            let Some(stream) = &mut changes else {
                tokio::time::sleep(TICK).await;
                break;
            };
            let ticks = printer.out_is_tty();
            tokio::select! {
                event = stream.next() => match event {
                    Some(Ok(_)) => tokio::time::sleep(GATHER).await,
                    _ => break,
                },
                () = tokio::time::sleep(TICK), if ticks => {}
            }
        }
    }
}

/// No more lines than a screen has: what scrolls away could not be written over.
fn clipped(text: &str, lines: usize) -> String {
    let shown = lines.saturating_sub(1).max(1);
    if text.lines().count() <= shown {
        return text.to_owned();
    }
    let lines = text.split_inclusive('\n');
    lines.take(shown - 1).chain(["…\n"]).collect()
}

fn show(printer: &Printer, seen: &Seen, last: Option<&Seen>, args: &StatusArgs) -> Result<()> {
    if printer.is_json() {
        if last != Some(seen) {
            printer.json_line(seen)?;
        }
    } else if let Some((_, lines)) = printer.screen() {
        let lines = usize::from(lines);
        let rows = lines.saturating_sub(7).max(1);
        let text = clipped(&seen.text(printer, args, Some(rows)), lines);
        let text = text.replace('\n', "\x1b[K\n");
        let start = if last.is_none() {
            "\x1b[2J\x1b[H"
        } else {
            "\x1b[H"
        };
        printer.text(&format!("{start}{text}\x1b[J"))?;
    } else if last != Some(seen) {
        printer.line(&seen.text(printer, args, None))?;
    }
    printer.flush()
}

#[cfg(test)]
mod tests {
    use super::clipped;

    #[test]
    fn a_watched_screen_never_scrolls() {
        assert_eq!(clipped("a\nb\n", 3), "a\nb\n");
        assert_eq!(clipped("a\nb\nc\nd\n", 3), "a\n…\n");
        assert_eq!(clipped("a\nb\n", 0), "…\n");
    }
}
