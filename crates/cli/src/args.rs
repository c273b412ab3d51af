//! What can be typed.

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::commands::{
    artifacts, clone, clusters, completion, credential, datastore, delete, docs, history, login,
    logs, restore, retry, run, share, ssh_keys, status, stop, team, user, version, view,
};
use crate::examples;
use crate::printer::Format;

const AFTER_HELP: &str = "\
Exit codes: 0 done, 1 refused or failed, 2 the command line is wrong.

Environment: GRID_URL, GRID_USER_ID, GRID_API_KEY, GRID_CREDENTIAL_PATH,
GRID_CONTEXT_CLUSTER_ID, GRID_CA_FILE, GRID_CAPTURE_MAX, NO_COLOR.

Names: NAME is yours, USER:NAME is a teammate's.

Examples:
  grid server                                         start a server on this machine
  grid login                                          sign in
  grid run train.py --lr '[0.1, 0.01]'                two experiments
  grid status
  grid logs --follow RUN-exp0
  grid artifacts RUN";

/// Run machine-learning experiments: sweep, watch, fetch what they made
#[derive(Debug, Parser)]
#[command(name = "grid", version, after_help = AFTER_HELP, propagate_version = false, max_term_width = 100)]
pub(crate) struct Cli {
    /// How data is printed: console or json
    #[arg(
        short,
        long,
        global = true,
        value_enum,
        default_value = "console",
        value_name = "FORMAT",
        hide_possible_values = true,
        help_heading = "Global options"
    )]
    pub(crate) output: Format,

    /// Say what is done
    #[arg(long, global = true, help_heading = "Global options")]
    pub(crate) debug: bool,

    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    #[command(alias = "train")]
    Run(Box<run::RunArgs>),
    Status(status::StatusArgs),
    History(history::HistoryArgs),
    Logs(logs::LogsArgs),
    Artifacts(artifacts::ArtifactsArgs),
    #[command(alias = "cancel")]
    Stop(stop::StopArgs),
    Delete(delete::DeleteArgs),
    Restore(restore::RestoreArgs),
    Clone(clone::CloneArgs),
    Retry(retry::RetryArgs),
    #[command(alias = "datastores")]
    Datastore(datastore::DatastoreArgs),
    Share(share::ShareArgs),
    View(view::ViewArgs),
    Clusters(clusters::ClustersArgs),
    Login(login::LoginArgs),
    User(user::UserArgs),
    #[command(alias = "teams")]
    Team(team::TeamArgs),
    SshKeys(ssh_keys::SshKeysArgs),
    #[command(alias = "credentials")]
    Credential(credential::CredentialArgs),
    #[cfg(feature = "server")]
    Server(crate::commands::server::ServerArgs),
    Docs(docs::DocsArgs),
    Version(version::VersionArgs),
    Completion(completion::CompletionArgs),
    /// Print the reference of all commands
    #[command(hide = true)]
    HelpMarkdown,
}

/// Reads the words of the command line.
pub(crate) fn parse(words: &[String]) -> Result<Cli, clap::Error> {
    let mut command = command();
    let matches = command.try_get_matches_from_mut(words)?;
    Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
}

/// The definition as documentation and completion show it.
pub(crate) fn plain_command() -> clap::Command {
    examples::with_examples(Cli::command())
}

/// The definition with every spelling that is understood.
fn command() -> clap::Command {
    plain_command().mut_subcommands(with_spellings)
}

fn with_spellings(command: clap::Command) -> clap::Command {
    run::with_spellings(command).mut_subcommands(with_spellings)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Cli, clap::Error> {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        parse(&words)
    }

    #[test]
    fn the_definition_is_sound() {
        command().debug_assert();
    }

    #[test]
    fn what_follows_the_script_is_the_scripts() -> Result<(), clap::Error> {
        for (line, expected) in [
            (
                "grid run train.py --name x -o json --help",
                "train.py --name x -o json --help",
            ),
            (
                "grid run --gpus 1 -- train.py --config a -- b",
                "train.py --config a -- b",
            ),
            ("grid run -- ./prog -x", "./prog -x"),
            ("grid train -l python -m pkg --lr=1", "python -m pkg --lr=1"),
            ("grid run --use_spot train.py", "train.py"),
        ] {
            let Command::Run(run) = parsed(line)?.command else {
                panic!("{line}")
            };
            assert_eq!(run.command.join(" "), expected, "{line}");
        }
        Ok(())
    }

    #[test]
    fn flags_are_understood_in_every_spelling() -> Result<(), clap::Error> {
        for line in [
            "grid run --instance_type a --num_trials 3 --scratch_size 5 x.py",
            "grid run --instance-type a --num-trials 3 --scratch-size 5 x.py",
            "grid run --grid_instance_type a --trials 3 --g_scratch_size=5 x.py",
            "grid run --grid-instance-type a --grid_trials 3 --g-scratch-size 5 x.py",
        ] {
            let Command::Run(run) = parsed(line)?.command else {
                panic!("{line}")
            };
            assert_eq!(run.instance_type.as_deref(), Some("a"), "{line}");
            assert_eq!(
                (run.num_trials, run.scratch_size),
                (Some(3), Some(5)),
                "{line}"
            );
        }
        parsed("grid logs x --tail_lines 3")?;
        parsed("grid artifacts x --download-dir d")?;
        Ok(())
    }

    #[test]
    fn the_format_may_stand_anywhere_before_the_script() -> Result<(), clap::Error> {
        for line in [
            "grid -o json status",
            "grid status -o json",
            "grid status --output=json x",
        ] {
            assert_eq!(parsed(line)?.output, Format::Json, "{line}");
        }
        Ok(())
    }

    #[test]
    fn a_negative_number_is_a_wrong_number() {
        let said = parsed("grid run --gpus -1 train.py")
            .err()
            .map(|error| error.to_string());
        assert!(said.is_some_and(|text| text.contains("invalid value '-1'")));
    }

    #[test]
    fn unknown_flags_are_refused() {
        for line in [
            "grid run --gpu 1 train.py",
            "grid run",
            "grid status --nope",
            "grid stop",
            "grid",
        ] {
            assert!(parsed(line).is_err(), "{line}");
        }
    }
}
