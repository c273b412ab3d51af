//! `grid run`: from a command line to experiments that wait or run.

mod args;
mod datastores;
mod merge;
pub(crate) mod summary;
#[cfg(test)]
mod tests;

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use grid_api::client::Client;
use grid_api::run::{RunCreate, RunCreated};
use grid_core::spec::{RunSpec, Source, split_command};
use reqwest::Method;

pub(crate) use self::args::{RunArgs, deprecated, misplaced, with_spellings};
use self::merge::{Code, Wanted, merge};
use crate::capture::{self, Capture};
use crate::commands::logs;
use crate::config;
use crate::context::Ctx;
use crate::error::Problem;
use crate::progress::Progress;

/// How often a submit that got no answer is sent again.  The idempotency key makes
/// sure that it makes one run.  Higher: a server that is gone is noticed late.
const SUBMITS_MAX: u32 = 4;

/// The pause before the first repetition; each further one is twice as long.
const SUBMIT_PAUSE: Duration = Duration::from_millis(250);

/// Endings of scripts: a word with one of these must be a file.
const SCRIPT_ENDINGS: [&str; 8] = ["py", "sh", "jl", "R", "r", "bash", "pl", "ipynb"];

/// Submits a run.
pub(crate) fn run(mut args: RunArgs, words: &[String], ctx: &Ctx) -> Result<ExitCode> {
    let ignore_warnings = args.ignore_warnings || ctx.settings.ignore_warnings;
    let (dry_run, follow) = (args.dry_run, args.follow);
    let file = match args.config.take() {
        Some(path) => config::load(&path)?,
        None => config::RunFile::default(),
    };
    let before_script = words.len().saturating_sub(args.command.len());
    let mut warnings = deprecated(words.get(..before_script).unwrap_or_default());
    if words.get(before_script.wrapping_sub(1)).map(String::as_str) != Some("--") {
        warnings.extend(misplaced(
            args.command.get(1..).unwrap_or_default(),
            "the script",
        ));
    }
    let mut wanted = merge(args, file, ctx.settings.cluster.as_deref())?;
    warnings.append(&mut wanted.warnings);

    let cwd = std::env::current_dir().context("looking at the current folder")?;
    let captured = match &wanted.code {
        Code::Here(how) => {
            let captured = capture::scan(&cwd, *how, capture::bytes_max()?)?;
            wanted.command = checked_command(wanted.command, &captured, &cwd)?;
            check_files(&wanted, &captured)?;
            Some(captured)
        }
        Code::Git { .. } => None,
    };
    if !ignore_warnings {
        for note in captured.iter().flat_map(|captured| &captured.notes) {
            ctx.printer.note(note);
        }
        for warning in &warnings {
            ctx.printer.warn(warning);
        }
    }
    let client = ctx.client()?;
    if wanted.name.is_none() && !dry_run {
        ctx.printer.debug("no --name: the server makes one up");
    }
    let created = ctx.block_on(submit(ctx, &client, wanted, captured, dry_run))??;
    if !ignore_warnings {
        for warning in &created.warnings {
            ctx.printer.warn(warning);
        }
    }
    summary::print(&ctx.printer, &created, dry_run)?;
    if follow && !dry_run {
        return logs::follow_run(ctx, &client, &created.run.name);
    }
    Ok(ExitCode::SUCCESS)
}

/// Sends the code, then the run.
async fn submit(
    ctx: &Ctx,
    client: &Client,
    wanted: Wanted,
    captured: Option<Capture>,
    dry_run: bool,
) -> Result<RunCreated> {
    let invocation = invocation(&wanted.command);
    let (mut workdir, mut project) = (String::new(), None);
    let source = match (&wanted.code, captured) {
        (_, Some(mut captured)) => {
            workdir.clone_from(&captured.workdir);
            project = captured.project.take();
            let git = captured.git.take();
            if dry_run {
                Source::Nothing
            } else {
                let (files, bytes) = captured.size();
                ctx.printer.debug(&format!("{files} files, {bytes} bytes"));
                let progress = Progress::new(&ctx.printer, "reading", bytes);
                let sent = captured
                    .send(client, ctx.settings.cache_dir(), &progress)
                    .await;
                progress.finish();
                Source::Snapshot {
                    id: sent.context("sending the code")?,
                    git,
                }
            }
        }
        (Code::Git { url, reference }, None) => {
            project = capture::project(url);
            Source::Git {
                url: url.clone(),
                reference: reference.clone(),
            }
        }
        (Code::Here(_), None) => Source::Nothing,
    };
    let create = RunCreate {
        name: wanted.name,
        team: wanted.team,
        invocation,
        project,
        dry_run,
        spec: RunSpec {
            command: wanted.command,
            params: wanted.params,
            sweep: wanted.sweep,
            source,
            workdir,
            environment: wanted.environment,
            resources: wanted.resources,
            datastores: wanted.datastores,
            actions: wanted.actions,
            auto_resume: wanted.auto_resume,
            retries: wanted.retries,
            max_duration_ms: wanted.max_duration_ms,
            description: wanted.description,
        },
    };
    create_run(ctx, client, &create).await
}

/// Sends the run until it is known whether it was made.
async fn create_run(ctx: &Ctx, client: &Client, create: &RunCreate) -> Result<RunCreated> {
    let key = idempotency_key()?;
    let mut pause = SUBMIT_PAUSE;
    let mut attempt = 1;
    loop {
        let request = client
            .request(Method::POST, "/runs")
            .header("Idempotency-Key", &key)
            .json(create);
        match client.json(request).await {
            Ok(created) => return Ok(created),
            Err(error) if error.is_transient() && attempt < SUBMITS_MAX => {
                ctx.printer
                    .debug(&format!("no answer ({error}); sending the run again"));
                tokio::time::sleep(pause).await;
                pause *= 2;
                attempt += 1;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

fn idempotency_key() -> Result<String> {
    let mut bytes = [0_u8; 16];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .context("asking the system for random bytes")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The command as it is typed again.
fn invocation(command: &[String]) -> String {
    let mut text = "grid run ".to_owned();
    if command.first().is_some_and(|first| first.starts_with('-')) {
        text.push_str("-- ");
    }
    text.push_str(&crate::words::joined(command));
    text
}

/// The command with the script as it is called in the tree; a script that is not
/// there is an error now, not in a machine's log later.
fn checked_command(
    mut command: Vec<String>,
    captured: &Capture,
    cwd: &Path,
) -> Result<Vec<String>> {
    let at = split_command(&command).0.len() - 1;
    let is_module = at == 2;
    let Some(word) = command.get_mut(at).filter(|_| !is_module) else {
        return Ok(command);
    };
    let path = Path::new(word.as_str());
    if path.is_absolute() {
        // A path of this machine means something elsewhere only when it is sent along.
        if let Some(inside) = captured.within(path) {
            *word = inside;
        } else {
            return Ok(command);
        }
    }
    if captured.has(word) {
        if at == 0 && needs_permission(word) {
            require_executable(word, &cwd.join(&*word))?;
        }
        return Ok(command);
    }
    if !must_be_file(word, at > 0) {
        return Ok(command);
    }
    let problem = if cwd.join(&*word).exists() {
        Problem::usage(format!("'{word}' is there, but is not sent: Git or an ignore file ignores it"))
            .hint("take it out of the ignore file, or `git add -f` it; --localdir sends the folder as it is")
    } else {
        Problem::usage(format!("there is no file '{word}' in {}", cwd.display())).hint(
            "give the path of the script from this folder; a command that is no file follows `--`",
        )
    };
    Err(problem.into())
}

/// Whether a word can only be a file: `train.py`, `./prog`, or what an interpreter is given.
fn must_be_file(word: &str, after_interpreter: bool) -> bool {
    let ending = word.rsplit_once('.').map(|(_, ending)| ending);
    after_interpreter || word.contains('/') || ending.is_some_and(|e| SCRIPT_ENDINGS.contains(&e))
}

/// Whether a file is started by itself, and not by what its ending stands for.
fn needs_permission(word: &str) -> bool {
    let ending = word.rsplit_once('.').map(|(_, ending)| ending);
    !ending.is_some_and(|ending| ["py", "sh", "jl", "R", "r"].contains(&ending))
}

/// What nobody may execute fails on the machine, too: it is said before anything is sent.
fn require_executable(word: &str, file: &Path) -> Result<(), Problem> {
    let metadata = file.metadata().ok().filter(std::fs::Metadata::is_file);
    if metadata.is_none_or(|metadata| metadata.permissions().mode() & 0o111 != 0) {
        return Ok(());
    }
    Err(
        Problem::usage(format!("'{word}' is not executable")).hint(format!(
            "run `chmod +x {word}`, or name its interpreter before it: grid run bash {word}"
        )),
    )
}

/// Files that are named must be there, too.
fn check_files(wanted: &Wanted, captured: &Capture) -> Result<(), Problem> {
    let environment = &wanted.environment;
    let named = [
        ("--dependency_file", &environment.dependency_file),
        ("--dockerfile", &environment.dockerfile),
    ];
    for (flag, path) in named {
        if let Some(path) = path.as_deref().filter(|path| !captured.has(path)) {
            return Err(Problem::usage(format!(
                "{flag}: '{path}' is not among the files that are sent"
            ))
            .hint("give its path from this folder, and see that no ignore file names it"));
        }
    }
    Ok(())
}
