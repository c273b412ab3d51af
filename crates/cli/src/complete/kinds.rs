//! What each argument is the name of.

use std::ffi::OsStr;
use std::sync::Arc;

use clap::Arg;
use clap_complete::engine::ArgValueCompleter;

use super::names::Names;

/// What an argument names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A run.
    Run,
    /// An experiment.
    Experiment,
    /// Either.
    RunOrExperiment,
    /// A run in the trash.
    RunInTrash,
    /// A datastore of anybody, or a version of it.
    Version,
    /// A datastore of one's own, without a version.
    Datastore,
    /// A version in the trash.
    VersionInTrash,
    /// The number of a version whose name is in another flag.
    VersionNumber,
    /// A path in the version that stands before it.
    PathInVersion,
    /// Somebody.
    User,
    /// A team of one's own.
    Team,
    /// A file on this machine.
    File,
    /// A folder on this machine.
    Folder,
}

/// The same command, whose arguments offer names.
pub(super) fn with_names(command: clap::Command, path: &str, names: &Arc<Names>) -> clap::Command {
    let command = command.mut_args(|arg| match kind(path, &arg) {
        Some(kind) => {
            let names = Arc::clone(names);
            arg.add(ArgValueCompleter::new(move |word: &OsStr| {
                names.candidates(kind, word.to_str().unwrap_or_default())
            }))
        }
        None => arg,
    });
    command.mut_subcommands(|sub| {
        let path = match path {
            "" => sub.get_name().to_owned(),
            path => format!("{path} {}", sub.get_name()),
        };
        with_names(sub, &path, names)
    })
}

/// What the argument of the command at `path` is the name of.
fn kind(path: &str, arg: &Arg) -> Option<Kind> {
    let value = arg.get_value_names()?.first()?.as_str();
    Some(match (path, value) {
        // What is new is not known yet.
        ("login" | "user create" | "team join", _) => return None,
        ("datastore rename" | "datastore commit", "DATASTORE") => Kind::Datastore,
        ("datastore restore", "DATASTORE") => Kind::VersionInTrash,
        ("datastore" | "datastore list" | "datastore create" | "datastore delete", "NAME") => {
            Kind::Datastore
        }
        ("datastore delete", "N") => Kind::VersionNumber,
        ("run", "NAME") if arg.get_id() != "name" => Kind::Version,
        ("run", "N") if arg.get_id().as_str().starts_with("datastore") => Kind::VersionNumber,
        ("run", "SCRIPT") | ("datastore create", "SOURCE") => Kind::File,
        // Where something is in the sandbox, not here.
        ("run", "DIR") => return None,
        (_, "DATASTORE" | "BEFORE" | "AFTER") => Kind::Version,
        ("datastore files" | "datastore cat" | "datastore download", "PATH") => Kind::PathInVersion,
        ("restore" | "restore run", "RUN_NAMES") => Kind::RunInTrash,
        ("restore experiment", _) => return None,
        ("delete experiment", "NAMES") | (_, "EXPERIMENT_NAMES") => Kind::Experiment,
        ("delete run", "NAMES") | ("clone" | "retry" | "share", "RUN") | (_, "RUN_NAMES") => {
            Kind::Run
        }
        (_, "RUN" | "EXPERIMENT" | "RUN_OR_EXPERIMENT" | "RUNS_OR_EXPERIMENTS") => {
            Kind::RunOrExperiment
        }
        (_, "USERNAME" | "USER" | "USER|EMAIL" | "USER|EMAIL|ID") => Kind::User,
        (_, "TEAM" | "TEAM|TOKEN") => Kind::Team,
        (_, "FILE") => Kind::File,
        (_, "DIR") => Kind::Folder,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(path: &str, id: &str) -> Option<Kind> {
        let mut command = crate::args::plain_command();
        command.build();
        let mut at = &command;
        for word in path.split(' ') {
            at = at.find_subcommand(word)?;
        }
        let arg = at.get_arguments().find(|arg| arg.get_id() == id)?;
        kind(path, arg)
    }

    #[test]
    fn arguments_offer_what_they_name() {
        for (path, id, expected) in [
            ("status", "run", Some(Kind::RunOrExperiment)),
            ("status", "global", Some(Kind::User)),
            ("logs", "name", Some(Kind::RunOrExperiment)),
            ("artifacts", "names", Some(Kind::RunOrExperiment)),
            ("artifacts", "download_dir", Some(Kind::Folder)),
            ("clone", "run", Some(Kind::Run)),
            ("clone", "name", None),
            ("run", "name", None),
            ("run", "config", Some(Kind::File)),
            ("run", "command", Some(Kind::File)),
            ("run", "team", Some(Kind::Team)),
            ("run", "datastore_name", Some(Kind::Version)),
            ("run", "datastore_version", Some(Kind::VersionNumber)),
            ("run", "datastore_mount_dir", None),
            ("datastore files", "datastore", Some(Kind::Version)),
            ("datastore cat", "path", Some(Kind::PathInVersion)),
            ("datastore diff", "after", Some(Kind::Version)),
            ("datastore rename", "datastore", Some(Kind::Datastore)),
            ("datastore restore", "datastore", Some(Kind::VersionInTrash)),
            ("datastore delete", "version", Some(Kind::VersionNumber)),
            ("datastore create", "source", Some(Kind::File)),
            ("user create", "username", None),
            ("team audit", "user", Some(Kind::User)),
        ] {
            assert_eq!(find(path, id), expected, "{path} {id}");
        }
    }
}
