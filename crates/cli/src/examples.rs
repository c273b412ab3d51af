//! Examples that help shows, for the commands that have no longer text of their own.

use clap::Command;

/// Examples by command.
const EXAMPLES: &[(&str, &[&str])] = &[
    (
        "stop run",
        &[
            "grid stop run gifted-seahorse-583",
            "grid stop run sweep-1 sweep-2",
        ],
    ),
    (
        "stop experiment",
        &["grid stop experiment gifted-seahorse-583-exp0"],
    ),
    (
        "delete run",
        &[
            "grid delete run gifted-seahorse-583",
            "grid delete run --yes sweep-1 sweep-2              does not ask",
        ],
    ),
    (
        "delete experiment",
        &["grid delete experiment gifted-seahorse-583-exp0"],
    ),
    ("restore run", &["grid restore run gifted-seahorse-583"]),
    (
        "restore experiment",
        &["grid restore experiment gifted-seahorse-583-exp0"],
    ),
    (
        "datastore create",
        &[
            "grid datastore create data/cats                    the next version of cats",
            "grid datastore create data/cats --name felines",
            "grid datastore create https://example.org/cats.tar.gz",
            "grid datastore create s3://data/cats/ --credential lab",
            "grid datastore create s3://data/cats/ --no-copy    only listed: bytes stay in the bucket",
            "tar c cats | grid datastore create - --name cats",
        ],
    ),
    (
        "datastore resume",
        &[
            "grid datastore resume                              the latest",
            "grid datastore resume cats",
            "grid datastore resume --all",
        ],
    ),
    ("datastore commit", &["grid datastore commit cats"]),
    ("datastore clearcache", &["grid datastore clearcache"]),
    (
        "datastore files",
        &[
            "grid datastore files cats                          the top of the newest version",
            "grid datastore files cats:2 train",
            "grid datastore files ada:cats:2 --recursive",
        ],
    ),
    (
        "datastore diff",
        &[
            "grid datastore diff cats:1 cats:2",
            "grid datastore diff cats:2 ada:cats",
        ],
    ),
    ("datastore cat", &["grid datastore cat cats:2 train/1.txt"]),
    (
        "datastore download",
        &[
            "grid datastore download cats                       the newest, to ./cats",
            "grid datastore download cats:2 train --to data",
        ],
    ),
    (
        "datastore delete",
        &[
            "grid datastore delete cats:1",
            "grid datastore delete --name cats --version 1",
        ],
    ),
    (
        "datastore restore",
        &[
            "grid datastore --deleted                           what is in the trash",
            "grid datastore restore cats:1",
        ],
    ),
    ("datastore rename", &["grid datastore rename cats felines"]),
    (
        "datastore describe",
        &["grid datastore describe cats:2 'without the blurred ones'"],
    ),
    ("datastore used-by", &["grid datastore used-by cats:2"]),
    (
        "share revoke",
        &[
            "grid share --list                                  shows the ids",
            "grid share revoke ID",
        ],
    ),
    (
        "user create",
        &[
            "grid user create bob",
            "grid user create bob --email bob@example.org --first-name Bob",
        ],
    ),
    ("user list", &["grid user list"]),
    ("user set-team", &["grid user set-team vision"]),
    ("user keys list", &["grid user keys list"]),
    (
        "user keys create",
        &[
            "grid user keys create laptop",
            "grid user keys create ci --scope run --expires 90d",
            "grid user keys create buckets --s3",
        ],
    ),
    ("user keys revoke", &["grid user keys revoke ci"]),
    ("user rotate-key", &["grid user rotate-key"]),
    ("team create", &["grid team create vision"]),
    ("team decline", &["grid team decline vision"]),
    (
        "team invitations",
        &[
            "grid team invitations                              those to you",
            "grid team invitations vision",
        ],
    ),
    ("team uninvite", &["grid team uninvite vision bob"]),
    ("team leave", &["grid team leave vision"]),
    ("team remove", &["grid team remove vision bob"]),
    ("team role", &["grid team role vision bob admin"]),
    ("team rename", &["grid team rename vision sight"]),
    (
        "team service-account list",
        &["grid team service-account list vision"],
    ),
    (
        "team service-account create",
        &["grid team service-account create vision vision-ci --expires 90d"],
    ),
    (
        "team service-account add-key",
        &["grid team service-account add-key vision vision-ci nightly"],
    ),
    (
        "team service-account delete",
        &["grid team service-account delete vision vision-ci"],
    ),
    (
        "ssh-keys add",
        &["grid ssh-keys add laptop ~/.ssh/id_ed25519.pub"],
    ),
    ("ssh-keys list", &["grid ssh-keys list"]),
    ("ssh-keys rm", &["grid ssh-keys rm laptop"]),
    (
        "ssh-keys authorized_keys",
        &["grid ssh-keys authorized_keys >> ~/.ssh/authorized_keys"],
    ),
    (
        "credential create",
        &[
            "grid credential create --name lab --access-key-id AKIA...",
            "grid credential create --name minio --access-key-id ada --secret-file key.txt \\",
            "    --endpoint https://minio.example.org",
        ],
    ),
    (
        "credential list",
        &["grid credential list", "grid credential list --global"],
    ),
    (
        "credential update",
        &["grid credential update lab --access-key-id AKIA..."],
    ),
    ("credential delete", &["grid credential delete lab"]),
    (
        "server doctor",
        &[
            "grid server doctor",
            "grid server doctor --deep                          reads every stored byte",
        ],
    ),
    ("server migrate", &["grid server migrate --data /srv/grid"]),
    ("server backup", &["grid server backup /backups/grid.db"]),
    (
        "server collect",
        &[
            "grid server collect --dry-run                      only says what would go",
            "grid server collect",
        ],
    ),
    (
        "server blobs",
        &["grid server blobs move --blobs s3://lab-grid/files"],
    ),
    (
        "server blobs move",
        &["grid server blobs move --blobs s3://lab-grid/files"],
    ),
    ("docs", &["grid docs"]),
    ("version", &["grid version", "grid -o json version"]),
];

/// Adds the examples to the help of each command.
pub(crate) fn with_examples(command: Command) -> Command {
    below("", command)
}

fn below(path: &str, command: Command) -> Command {
    command.mut_subcommands(|command| {
        let path = format!("{path} {}", command.get_name());
        let path = path.trim_start();
        let found = EXAMPLES.iter().find(|(known, _)| *known == path);
        let command = match found {
            Some((_, lines)) if command.get_after_help().is_none() => {
                let lines = lines.iter().map(|line| format!("\n  {line}"));
                let lines: String = lines.collect();
                command.after_help(format!("Examples:{lines}"))
            }
            _ => command,
        };
        below(path, command)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{parse, plain_command};

    /// The commands below one, by what is typed.
    fn leaves(path: &str, command: &Command, found: &mut Vec<(String, String)>) {
        for below in command
            .get_subcommands()
            .filter(|below| !below.is_hide_set())
        {
            let path = format!("{path} {}", below.get_name());
            let help = below.clone().render_help().to_string();
            found.push((path.clone(), help));
            leaves(&path, below, found);
        }
    }

    #[test]
    fn every_command_shows_an_example() {
        let mut found = Vec::new();
        leaves("grid", &plain_command(), &mut found);
        assert!(found.len() > 60, "{}", found.len());
        for (path, help) in found {
            assert!(help.contains("Examples:"), "{path}\n{help}");
            assert!(help.contains(&path), "{path}\n{help}");
        }
    }

    #[test]
    fn every_example_can_be_typed() {
        let is_here = |command: &str| cfg!(feature = "server") || !command.starts_with("server");
        for (command, lines) in EXAMPLES.iter().filter(|(command, _)| is_here(command)) {
            for line in lines.iter().filter(|line| line.starts_with("grid ")) {
                let typed = line.split("   ").next().unwrap_or(line);
                let typed = typed.split(" >>").next().unwrap_or(typed);
                let words = typed.trim_end_matches('\\').split_whitespace();
                let mut words: Vec<String> = words.map(str::to_owned).collect();
                // One quoted sentence is one word.
                if let Some(at) = words.iter().position(|word| word.starts_with('\'')) {
                    words.truncate(at + 1);
                }
                let parsed = parse(&words);
                assert!(parsed.is_ok(), "{command}: {line}: {:?}", parsed.err());
            }
        }
    }
}
