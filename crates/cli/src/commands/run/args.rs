//! What can be typed after `grid run`.

use std::path::PathBuf;

use clap::Args;
use grid_core::sweep::Strategy;

use crate::values;

const EXAMPLES: &str = "\
Everything behind SCRIPT belongs to the script.  `--` ends the flags of Grid, for
scripts whose names or flags look like them and for commands that are no file.

Values of the script's arguments can stand for many, and make one experiment each:
  [0.1, 0.01]   range(1, 10, 2)   uniform(1e-5, 1e-1, 3)   ['adam', 'sgd']

Examples:
  grid run train.py --lr 0.1
  grid run train.py --lr '[0.1, 0.01]' --layers '[32, 64]'         4 experiments
  grid run --strategy random_search --num_trials 10 train.py --lr 'uniform(0, 1, 100)'
  grid run --gpus 1 --memory 16G --max-duration 8h train.py
  grid run --config run.yml --name bert-1 train.py
  grid run --dry-run train.py --lr '[0.1, 0.01]'                   shows, starts nothing
  grid run --git https://github.com/ada/bert#main train.py
  grid run --datastore_name cats:3 train.py --data /datastores/cats
  grid run -- python -m pkg.train --lr 0.1";

/// Run a script, once or swept over parameters
#[derive(Debug, Clone, Default, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct RunArgs {
    /// Configuration file (YAML); flags win over it
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// Name of the run [default: made up]
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,

    /// Team that the run belongs to [default: your current one]
    #[arg(long, value_name = "TEAM")]
    pub(crate) team: Option<String>,

    /// Cluster to run on [default: the server's]
    #[arg(long, value_name = "CLUSTER")]
    pub(crate) cluster: Option<String>,

    /// How arguments become experiments: grid_search, random_search or none [default: grid_search]
    #[arg(long, value_name = "STRATEGY")]
    pub(crate) strategy: Option<Strategy>,

    /// How many experiments a random search makes
    #[arg(long = "num_trials", value_name = "N", alias = "trials")]
    pub(crate) num_trials: Option<u64>,

    /// Repeats an earlier sweep exactly
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,

    /// Machine to run on, by its name in the cluster
    #[arg(long = "instance_type", value_name = "TYPE")]
    pub(crate) instance_type: Option<String>,

    /// GPUs of each experiment
    #[arg(long, value_name = "N")]
    pub(crate) gpus: Option<u32>,

    /// CPUs of each experiment; 0 for all of the machine [default: 1]
    #[arg(long, value_name = "N")]
    pub(crate) cpus: Option<u32>,

    /// Memory of each experiment, with a unit (16G); a bare number is disk space in GB
    #[arg(long, value_name = "SIZE")]
    pub(crate) memory: Option<String>,

    /// Data to mount: NAME, NAME:VERSION or USER:NAME:VERSION; may be repeated
    #[arg(long = "datastore_name", value_name = "NAME")]
    pub(crate) datastore_name: Vec<String>,

    /// Its version [default: the newest]; repeated like the names
    #[arg(long = "datastore_version", value_name = "N", value_parser = values::version)]
    pub(crate) datastore_version: Vec<u32>,

    /// Where it is mounted [default: /datastores/NAME]; repeated like the names
    #[arg(long = "datastore_mount_dir", value_name = "DIR")]
    pub(crate) datastore_mount_dir: Vec<String>,

    /// Framework that the script uses: lightning, torch, tensorflow, julia, torchelastic
    #[arg(long, value_name = "FRAMEWORK")]
    pub(crate) framework: Option<String>,

    /// The machine may be taken away
    #[arg(long = "use_spot", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
        hide_possible_values = true)]
    pub(crate) use_spot: Option<bool>,

    /// An experiment that is interrupted starts again with its artifacts
    #[arg(long = "auto_resume", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
        hide_possible_values = true)]
    pub(crate) auto_resume: Option<bool>,

    /// Leave out warnings
    #[arg(long = "ignore_warnings")]
    pub(crate) ignore_warnings: bool,

    /// Size of the scratch volume in GB
    #[arg(long = "scratch_size", value_name = "GB")]
    pub(crate) scratch_size: Option<u32>,

    /// Where the scratch volume is mounted
    #[arg(long = "scratch_mount_path", value_name = "DIR")]
    pub(crate) scratch_mount_path: Option<String>,

    /// Send this folder as it is, not what Git tracks
    #[arg(short = 'l', long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
        hide_possible_values = true, conflicts_with = "git")]
    pub(crate) localdir: Option<bool>,

    /// Let the server clone this repository: URL or URL#BRANCH, TAG or COMMIT
    #[arg(long, value_name = "URL[#REF]")]
    pub(crate) git: Option<String>,

    /// Dockerfile to build the environment from
    #[arg(short = 'd', long, value_name = "FILE")]
    pub(crate) dockerfile: Option<String>,

    /// What to install [default: requirements.txt, environment.yml or Project.toml, if there]
    #[arg(long = "dependency_file", value_name = "FILE")]
    pub(crate) dependency_file: Option<String>,

    /// Environment variable of the script; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) env: Vec<String>,

    /// End an experiment after so long: 90s, 30m, 8h, 2d
    #[arg(long = "max-duration", value_name = "TIME")]
    pub(crate) max_duration: Option<String>,

    /// Try a failed experiment again, so many times
    #[arg(long, value_name = "N")]
    pub(crate) retries: Option<u32>,

    /// Show the experiments and start nothing
    #[arg(long = "dry-run")]
    pub(crate) dry_run: bool,

    /// What there is to say about the run; `grid status RUN` shows it
    #[arg(long, value_name = "TEXT")]
    pub(crate) description: Option<String>,

    /// Follow the logs after submitting
    #[arg(short = 'f', long)]
    pub(crate) follow: bool,

    // What old scripts still say; each is answered with a warning.
    #[arg(long, hide = true)]
    pub(crate) credential: Option<String>,
    #[arg(long = "max_nodes", hide = true)]
    pub(crate) max_nodes: Option<String>,
    #[arg(long = "disk_size", hide = true)]
    pub(crate) disk_size: Option<u32>,

    /// The script and its arguments
    #[arg(value_name = "SCRIPT", required = true, trailing_var_arg = true)]
    pub(crate) command: Vec<String>,
}

/// Adds the other spellings of flags: `-` for `_` and the other way round, and the
/// prefixes of the oldest versions.
pub(crate) fn with_spellings(command: clap::Command) -> clap::Command {
    let is_run = command.get_name() == "run";
    command.mut_args(|arg| {
        let Some(names) = arg.get_long_and_visible_aliases() else {
            return arg;
        };
        let hidden = arg.get_aliases().unwrap_or_default();
        let known: Vec<String> = names
            .iter()
            .chain(&hidden)
            .map(|&name| name.to_owned())
            .collect();
        let mut spellings = Vec::new();
        for name in &known {
            let plain = name.replace('-', "_");
            let prefixed = [format!("grid_{plain}"), format!("g_{plain}")];
            let old = if is_run { &prefixed[..] } else { &[] };
            for spelling in old.iter().chain([&plain]) {
                spellings.extend([spelling.clone(), spelling.replace('_', "-")]);
            }
        }
        spellings.sort_unstable();
        spellings.dedup();
        spellings.retain(|spelling| !known.contains(spelling));
        // `--gpus -1` is a wrong number, not a flag called `-1`.
        let takes_value = arg.get_action().takes_values();
        arg.aliases(spellings).allow_negative_numbers(takes_value)
    })
}

/// Warnings about spellings that are going away, among the words before the script.
pub(crate) fn deprecated(words: &[String]) -> Vec<String> {
    let mut warnings = Vec::new();
    for word in words {
        let flag = word.split('=').next().unwrap_or(word).replace('-', "_");
        let Some(name) = flag.strip_prefix("__") else {
            continue;
        };
        let bare = name
            .strip_prefix("grid_")
            .or_else(|| name.strip_prefix("g_"));
        let now = match (bare, bare.unwrap_or(name)) {
            (_, "trials") => "num_trials",
            (_, "disk_size") => "memory",
            (Some(_), now) => now,
            (None, _) => continue,
        };
        let typed = word.split('=').next().unwrap_or(word);
        warnings.push(format!("{typed} is called --{now} now"));
    }
    warnings
}

/// Flags that hardly any script has, so that one behind the script was meant for Grid.
const SELDOM_OF_SCRIPTS: [&str; 14] = [
    "auto_resume",
    "datastore_mount_dir",
    "datastore_name",
    "datastore_version",
    "dependency_file",
    "dockerfile",
    "dry_run",
    "ignore_warnings",
    "instance_type",
    "localdir",
    "max_duration",
    "num_trials",
    "scratch_size",
    "use_spot",
];

/// Flags of Grid that stand where they belong to the script.
pub(crate) fn misplaced(words: &[String], behind: &str) -> Vec<String> {
    let mut warnings = Vec::new();
    for word in words {
        let typed = word.split('=').next().unwrap_or(word);
        let flag = typed.replace('-', "_");
        let name = flag.strip_prefix("__").unwrap_or_default();
        if SELDOM_OF_SCRIPTS.contains(&name) {
            warnings.push(format!(
                "{typed} stands behind {behind}, so the script gets it and Grid does not; write it before {behind} if Grid is meant"
            ));
        }
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_spellings_are_recognised() {
        let words = [
            "--grid_name",
            "x",
            "--trials=3",
            "--g-gpus",
            "--num-trials",
            "-l",
            "--disk_size",
        ];
        let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
        assert_eq!(
            deprecated(&words),
            [
                "--grid_name is called --name now",
                "--trials is called --num_trials now",
                "--g-gpus is called --gpus now",
                "--disk_size is called --memory now",
            ]
        );
    }

    #[test]
    fn flags_of_grid_behind_the_script_are_noticed() {
        let words = [
            "--lr",
            "1",
            "--dry-run",
            "--datastore_name=cats",
            "--seed",
            "3",
            "dry-run",
        ];
        let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
        let said = misplaced(&words, "the script");
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(
            said[0].starts_with("--dry-run stands behind the script"),
            "{said:?}"
        );
        assert!(
            said[1].starts_with("--datastore_name stands behind"),
            "{said:?}"
        );
    }
}
