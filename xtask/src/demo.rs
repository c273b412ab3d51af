//! `cargo xtask demo`: the main job, for somebody who has just cloned the repository.
//!
//! A server of one's own in `.demo`, one user, and a real training swept over learning rate and
//! size. Every command is shown as it is typed, with its real output. It needs no settings and
//! touches none; what an earlier demo has left in `.demo` is removed first.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::args::Args;
use crate::local::{Person, Server, end_leftovers};
use crate::postgres::free_port;
use crate::process::{must, quoted};
use crate::{build, clock, interrupt, paths, setup, ui};

/// How long the sweep may take, the making of its environment included.
/// Lower, and a slow connection to the package index fails the demo; higher, and one that hangs
/// is noticed late.
const SWEEP_LIMIT: Duration = Duration::from_secs(600);

const USER: &str = "ada";
const RUN: &str = "digits";
/// The experiment whose log is followed.
const FOLLOWED: &str = "digits-exp0";

/// What is typed to begin the sweep: six experiments, slow enough to be watched.
const SWEEP: &[&str] = &[
    "run",
    "--name",
    RUN,
    "--cpus",
    "1",
    "train.py",
    "--lr",
    "[0.001,0.01,0.1]",
    "--hidden",
    "[32,64]",
    "--epoch-seconds",
    "0.1",
];

/// Shows the main job; with `--exit` it ends afterwards instead of leaving the server running.
pub(crate) fn command(mut args: Args<'_>) -> Result<bool> {
    let exit = args.flag("--exit");
    args.end()?;
    setup::ensure()?;
    ui::say("building grid");
    must(&mut build::grid_only())?;
    show(exit)?;
    Ok(true)
}

/// The demo as a step of `check`, with the `grid` that is built already.
pub(crate) fn check() -> Result<bool> {
    show(true)?;
    Ok(true)
}

fn show(exit: bool) -> Result<()> {
    let folder = paths::root().join(".demo");
    if folder.exists() {
        end_leftovers(&folder)?;
        std::fs::remove_dir_all(&folder)
            .with_context(|| format!("removing {}", folder.display()))?;
    }
    let mut server = Server::start(&folder, free_port()?)?;
    ui::say(&format!(
        "Grid runs at {}; all it keeps is in {}",
        server.url,
        folder.display()
    ));
    let user = sign_in(&server, &folder)?;
    sweep(&user)?;
    fetch(&user, &folder)?;
    if !exit {
        say_what_is_next(&server, &user);
        server.wait_for_interrupt()?;
        ui::say("\nstopping the server");
    }
    Ok(())
}

/// The operator makes a user, who logs in.
fn sign_in(server: &Server, folder: &Path) -> Result<Person> {
    let operator = server.operator()?;
    ui::say(&format!(
        "\n$ grid user create {USER}        # as the operator"
    ));
    let created = operator.asks(&["user", "create", USER])?;
    let key = created["api_key"]
        .as_str()
        .context("the new user has no api_key")?;
    ui::say(&format!("created {USER}; the API key is shown once: {key}"));
    let user = server.person(USER)?;
    user.types(
        folder,
        &[
            "login",
            "--url",
            &server.url,
            "--username",
            USER,
            "--key",
            key,
        ],
    )?;
    Ok(user)
}

/// The sweep, from its start until every experiment has ended.
fn sweep(user: &Person) -> Result<()> {
    let example = paths::root().join("examples").join("digits");
    ui::say("\n$ cd examples/digits");
    user.types(&example, SWEEP)?;
    user.types(&example, &["status"])?;
    user.types(&example, &["logs", FOLLOWED, "--follow"])?;
    user.types(&example, &["status", RUN])?;
    ui::say("\nwaiting for the last of them");
    let ended = clock::wait_for(SWEEP_LIMIT, || {
        if interrupt::requested() {
            return Some(Err(anyhow::anyhow!("interrupted")));
        }
        match user
            .asks(&["status", RUN])
            .and_then(|status| statuses(&status))
        {
            Ok(statuses) if statuses.iter().all(|status| is_final(status)) => Some(Ok(statuses)),
            Ok(_) => None,
            Err(error) => Some(Err(error)),
        }
    });
    let statuses = ended.with_context(|| {
        format!(
            "the sweep has not ended after {}",
            clock::human(SWEEP_LIMIT)
        )
    })??;
    user.types(&example, &["status", RUN])?;
    if let Some(other) = statuses.iter().find(|status| *status != "succeeded") {
        bail!("an experiment of the sweep ended as {other}");
    }
    Ok(())
}

fn statuses(status: &Value) -> Result<Vec<String>> {
    let experiments = status["experiments"]
        .as_array()
        .context("the status names no experiments")?;
    let word = |experiment: &Value| experiment["status"].as_str().map(str::to_owned);
    experiments
        .iter()
        .map(word)
        .collect::<Option<_>>()
        .context("an experiment has no status")
}

fn is_final(status: &str) -> bool {
    matches!(status, "succeeded" | "failed" | "stopped" | "cancelled")
}

/// Downloads what the experiments wrote, and shows it.
fn fetch(user: &Person, folder: &Path) -> Result<()> {
    let artifacts = folder.join("artifacts");
    ui::say("\n$ cd ../..");
    let download = ["artifacts", RUN, "--download_dir", ".demo/artifacts"];
    user.types(&paths::root(), &download)?;
    let mut files = Vec::new();
    list(&artifacts, &mut files)?;
    files.sort();
    ui::say(&format!(
        "\n{} files, of the first experiment:",
        files.len()
    ));
    let prefix = format!("{RUN}/{FOLLOWED}/");
    for file in files
        .iter()
        .filter_map(|file| file.strip_prefix(&artifacts).ok())
    {
        if file.starts_with(&prefix) {
            ui::say(&format!("  {}", file.display()));
        }
    }
    for needed in ["checkpoint.joblib", "digits.png"] {
        let count = files.iter().filter(|file| file.ends_with(needed)).count();
        if count != 6 {
            bail!("{count} of 6 experiments left a {needed}");
        }
    }
    Ok(())
}

fn list(folder: &Path, files: &mut Vec<std::path::PathBuf>) -> Result<()> {
    for entry in
        std::fs::read_dir(folder).with_context(|| format!("listing {}", folder.display()))?
    {
        let path = entry
            .with_context(|| format!("listing {}", folder.display()))?
            .path();
        if path.is_dir() {
            list(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}

fn say_what_is_next(server: &Server, user: &Person) {
    let grid = build::grid();
    let bin = grid.parent().unwrap_or(&grid).to_string_lossy();
    ui::say(&format!(
        "\nThe server goes on at {url}. To be {name} in another terminal:\n\n{exports}\n  export PATH={bin}:$PATH\n\n\
         and then, for example:\n\n\
         \x20 grid history                              # what ran\n\
         \x20 grid logs {RUN}-exp3 --tail-lines 5       # the end of one log\n\
         \x20 grid run --cpus 1 examples/digits/train.py --lr \"uniform(0.01,0.1,4)\"\n\
         \x20 grid --help\n\n\
         Ctrl-C here stops the server.",
        url = server.url,
        name = user.name,
        exports = user.exports(),
        bin = quoted(&bin),
    ));
}

#[cfg(test)]
mod tests {
    use super::{is_final, statuses};

    #[test]
    fn the_sweep_has_ended_when_all_of_it_has() {
        let status =
            serde_json::json!({"experiments": [{"status": "running"}, {"status": "failed"}]});
        let words = statuses(&status).unwrap();
        assert_eq!(
            words.iter().map(|word| is_final(word)).collect::<Vec<_>>(),
            [false, true]
        );
        assert!(statuses(&serde_json::json!({})).is_err());
        assert!(statuses(&serde_json::json!({"experiments": [{}]})).is_err());
    }
}
