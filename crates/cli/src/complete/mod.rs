//! What a shell offers when a person presses Tab: commands, flags, and names that the server
//! knows.
//!
//! The script of `grid completion` asks the hidden `grid __complete SHELL -- WORD...`, whose
//! last word is the one that is being typed.  The first line of the answer says what follows:
//! `words`, then one on each line, for zsh and fish with an explanation behind a tab; or
//! `files` or `folders`, which the shell completes better itself.  Nothing is ever said on
//! standard error, and who does not answer in time has nothing to offer: a person who types
//! does not wait.
//!
//! A script may be older than the program, so this agreement stays.

mod kinds;
mod names;

use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Result;
use clap_complete::CompletionCandidate;
use clap_complete::engine::complete;

use self::names::{Names, Offer};
use crate::args::{self, Command};
use crate::error::EXIT_OK;
use crate::printer::Printer;
use crate::settings::Settings;

/// The word after `grid` that asks for completions.
pub(crate) const WORD: &str = "__complete";

/// The scripts, by what the shell is called.
const SCRIPTS: [(&str, &str); 3] = [
    ("bash", include_str!("grid.bash")),
    ("zsh", include_str!("grid.zsh")),
    ("fish", include_str!("grid.fish")),
];

/// The script of a shell that asks this program.
pub(crate) fn script(shell: &str) -> Option<&'static str> {
    let mut scripts = SCRIPTS.iter();
    let (_, script) = scripts.find(|(known, _)| *known == shell)?;
    Some(script)
}

/// Answers a shell; `words` are those behind [`WORD`].
pub(crate) fn main(words: &[String], printer: &Printer) -> ExitCode {
    let [shell, dashes, typed @ ..] = words else {
        return ExitCode::from(EXIT_OK);
    };
    if dashes == "--" && !typed.is_empty() {
        // Nobody is there who could be told that it did not work.
        let _ = answer(shell, typed, printer).and_then(|()| printer.flush());
    }
    ExitCode::from(EXIT_OK)
}

fn answer(shell: &str, typed: &[String], printer: &Printer) -> Result<()> {
    if is_of_a_script(typed) {
        return printer.line("files");
    }
    let names = Arc::new(Names::new(Settings::load().ok(), typed));
    let mut command = kinds::with_names(args::plain_command(), "", &names);
    let words: Vec<OsString> = typed.iter().map(OsString::from).collect();
    let folder = std::env::current_dir().ok();
    let last = words.len() - 1;
    let offered = complete(&mut command, words, last, folder.as_deref()).unwrap_or_default();
    match names.offer() {
        Offer::Files => return printer.line("files"),
        Offer::Folders => return printer.line("folders"),
        Offer::Words => printer.line("words")?,
    }
    let is_flag = typed[last].starts_with('-');
    for one in offered {
        let value = one.get_value().to_string_lossy().into_owned();
        // Flags are offered to who begins one.
        if (value.starts_with('-') && !is_flag) || value.contains(char::is_control) {
            continue;
        }
        printer.line(&shown(shell, value, &one))?;
    }
    Ok(())
}

fn shown(shell: &str, value: String, one: &CompletionCandidate) -> String {
    let help = one.get_help().map(ToString::to_string).unwrap_or_default();
    let help = help.lines().next().unwrap_or_default().trim();
    match shell {
        "zsh" | "fish" if !help.is_empty() => format!("{value}\t{help}"),
        _ => value,
    }
}

/// Whether what is typed belongs to the script of a run, of which nothing is known here.
fn is_of_a_script(typed: &[String]) -> bool {
    let before = &typed[..typed.len() - 1];
    let mut behind = before.iter().skip_while(|word| *word != "--");
    let is_run = before
        .iter()
        .any(|word| matches!(word.as_str(), "run" | "train"));
    is_run
        && (matches!(
            args::parse(before).map(|cli| cli.command),
            Ok(Command::Run(_))
        ) || behind.next().is_some())
}

#[cfg(test)]
mod tests {
    use super::is_of_a_script;

    #[test]
    fn what_follows_the_script_is_the_shells_business() {
        for (line, expected) in [
            ("grid run ", false),
            ("grid run train", false),
            ("grid run --name x ", false),
            ("grid run --name ", false),
            ("grid run train.py ", true),
            ("grid run --name x train.py --l", true),
            ("grid run -- ", true),
            ("grid status ", false),
            ("grid stop run ", false),
        ] {
            let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
            assert_eq!(is_of_a_script(&words), expected, "{line}");
        }
    }
}
