//! What is said about words that are no command.

use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::args;
use crate::error::Problem;

/// The mistake in one sentence, for programs and for what the library's own words
/// explain badly; with what shows how it is typed.
pub(crate) fn problem(words: &[String], error: &clap::Error) -> Problem {
    let command = command_of(words);
    if let Some(flag) = flag_of_script(&command, error) {
        return Problem::usage(format!("`grid run` has no flag '{flag}'")).hint(format!(
            "flags of the script stand behind it: grid run SCRIPT {flag} …; those of Grid: `grid run --help`"
        ));
    }
    let help = format!("`{command} --help` shows how it is typed");
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return Problem::usage(format!("`{command}` needs a further word")).hint(help);
    }
    let text = error.render().to_string();
    let sentence = text.lines().take_while(|line| !line.trim().is_empty());
    let sentence: Vec<&str> = sentence.map(str::trim).collect();
    let sentence = sentence.join(" ");
    let message = sentence.strip_prefix("error: ").unwrap_or(&sentence);
    let tip = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("tip: "));
    Problem::usage(message).hint(match tip {
        Some(tip) => format!("{tip}; {help}"),
        None => help,
    })
}

/// Whether people read our own words about it, and not the library's.
pub(crate) fn is_ours(words: &[String], error: &clap::Error) -> bool {
    flag_of_script(&command_of(words), error).is_some()
}

/// A flag before the script that Grid does not have, and that is like none that it has:
/// it was meant for the script.
fn flag_of_script(command: &str, error: &clap::Error) -> Option<String> {
    let is_unknown = error.kind() == ErrorKind::UnknownArgument;
    if command != "grid run" || !is_unknown || error.get(ContextKind::SuggestedArg).is_some() {
        return None;
    }
    match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(flag)) => Some(flag.clone()),
        _ => None,
    }
}

/// The command that was begun: `grid datastore create`.
fn command_of(words: &[String]) -> String {
    let definition = args::plain_command();
    let mut here = &definition;
    let mut path = "grid".to_owned();
    for word in words.iter().skip(1) {
        if let Some(next) = here.find_subcommand(word) {
            path = format!("{path} {}", next.get_name());
            here = next;
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Report;

    fn said(line: &str) -> Option<Report> {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let error = args::parse(&words).err()?;
        Some(Report::of(&problem(&words, &error).into()))
    }

    #[test]
    fn a_program_reads_what_is_missing_and_where_it_is_explained() {
        for (line, message, hint) in [
            ("grid share", "not provided: <RUN>", "`grid share --help`"),
            (
                "grid -o json datastore create",
                "not provided: <SOURCE>",
                "`grid datastore create --help`",
            ),
            (
                "grid stop",
                "`grid stop` needs a further word",
                "`grid stop --help`",
            ),
            ("grid stauts", "unrecognized subcommand 'stauts'", "similar"),
        ] {
            let report = said(line);
            let told = report.as_ref().is_some_and(|report| {
                report.message.contains(message)
                    && report.hint.as_ref().is_some_and(|said| said.contains(hint))
            });
            assert!(told, "{line}: {report:?}");
        }
    }

    #[test]
    fn a_flag_of_the_script_is_told_where_to_stand() {
        let report = said("grid run --lr 0.1 train.py").expect("refused");
        assert_eq!(report.message, "`grid run` has no flag '--lr'");
        assert!(
            report
                .hint
                .is_some_and(|hint| hint.contains("grid run SCRIPT --lr"))
        );
        // What is a slip is told apart.
        let report = said("grid run --gpu 1 train.py").expect("refused");
        assert!(report.hint.is_some_and(|hint| hint.contains("--gpus")));
    }
}
