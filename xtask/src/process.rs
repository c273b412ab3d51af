//! Starting other programs, and never leaving one behind.

use std::ffi::OsStr;
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::{clock, interrupt};

/// Variables of the caller that must not reach a child.
/// The first makes every Python start compile everything again; the second names a
/// certificate bundle in a form that other clients of the same name refuse.
const SCRUBBED: &[&str] = &["PYTHONDONTWRITEBYTECODE", "AWS_CA_BUNDLE"];

/// How long a program that was asked to end may take before it is ended.
/// Lower, and a server is cut off while it closes its files; higher, and Ctrl-C seems dead.
const GRACE: Duration = Duration::from_secs(15);

/// A command with a clean environment.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    for name in SCRUBBED {
        command.env_remove(name);
    }
    command
}

/// A command of the cargo that runs this tool.
pub(crate) fn cargo() -> Command {
    command(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// Runs a command to its end and says whether it succeeded.
pub(crate) fn run(command: &mut Command) -> Result<bool> {
    let child = command
        .spawn()
        .with_context(|| format!("starting {}", shown(command)))?;
    Ok(wait(child)?.success())
}

/// Runs a command that has to succeed.
pub(crate) fn must(command: &mut Command) -> Result<()> {
    if !run(command)? {
        bail!("this command failed: {}", shown(command));
    }
    Ok(())
}

/// What a command prints, or an error with what it said instead.
pub(crate) fn output_of(command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("starting {}", shown(command)))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!(
            "this command failed ({}): {}\n{}",
            output.status,
            shown(command),
            said.trim_end()
        );
    }
    String::from_utf8(output.stdout)
        .with_context(|| format!("reading what {} printed", shown(command)))
}

/// Waits for a child; when the person asks this tool to end, the child is ended first.
pub(crate) fn wait(mut child: Child) -> Result<ExitStatus> {
    loop {
        if let Some(status) = child.try_wait().context("waiting for a child process")? {
            if interrupt::requested() {
                bail!("interrupted");
            }
            return Ok(status);
        }
        if interrupt::requested() {
            end(&mut child, Signal::TERM);
            bail!("interrupted");
        }
        clock::pause();
    }
}

/// Ends a child: asks with `signal`, waits a grace, then insists.
/// A child that has ended already is left alone.
pub(crate) fn end(child: &mut Child, signal: Signal) {
    let ended = |child: &mut Child| !matches!(child.try_wait(), Ok(None));
    if ended(child) {
        return;
    }
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        let _gone_is_fine = kill_process(pid, signal);
    }
    if clock::wait_for(GRACE, || ended(child).then_some(())).is_none() {
        let _gone_is_fine = child.kill();
        let _reaped = child.wait();
    }
}

/// A command as one would type it.
pub(crate) fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words
        .map(|word| quoted(&word.to_string_lossy()))
        .collect::<Vec<_>>()
        .join(" ")
}

/// A word as one would type it in a shell.
pub(crate) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:@%+,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::{Signal, command, end, output_of, quoted, shown};

    #[test]
    fn words_are_shown_as_they_would_be_typed() {
        let cases = [
            ("plain", "plain"),
            ("", "''"),
            ("[1, 2]", "'[1, 2]'"),
            ("it's", r"'it'\''s'"),
        ];
        for (word, expected) in cases {
            assert_eq!(quoted(word), expected);
        }
        assert_eq!(
            shown(command("grid").arg("--lr").arg("[0.1,0.2]")),
            "grid --lr '[0.1,0.2]'"
        );
    }

    #[test]
    fn children_do_not_see_the_scrubbed_variables() {
        let mut env = command("env");
        env.env("GRID_SEEN", "yes");
        for name in super::SCRUBBED {
            assert!(
                env.get_envs()
                    .any(|(key, value)| key == *name && value.is_none())
            );
        }
        assert!(output_of(&mut env).is_ok_and(|text| text.contains("GRID_SEEN=yes")));
    }

    #[test]
    fn a_failing_command_says_what_it_said() {
        let failed = output_of(command("sh").args(["-c", "echo too bad >&2; exit 3"]));
        assert!(failed.is_err_and(|error| error.to_string().contains("too bad")));
    }

    #[test]
    fn a_child_is_ended_once_and_for_all() {
        let mut child = command("sh")
            .args(["-c", "exec cat"])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        end(&mut child, Signal::TERM);
        assert!(child.try_wait().unwrap().is_some());
        end(&mut child, Signal::TERM);
    }
}
