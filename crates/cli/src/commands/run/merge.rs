//! From what was typed and what the file says to what is wanted.
//!
//! This is the one place where they meet: a flag wins over the file, the file
//! over the default.  Everything that can be wrong without asking anybody is
//! found here.

use std::collections::BTreeMap;

use grid_core::duration::{parse_duration_millis, parse_size_bytes};
use grid_core::name::{RunName, TeamName};
use grid_core::spec::{
    Actions, DatastoreMount, EnvironmentSpec, PackageManager, Resources, split_command,
};
use grid_core::sweep::{self, Strategy, SweepSpec};

use super::args::RunArgs;
use super::datastores;
use crate::capture;
use crate::config::RunFile;
use crate::error::Problem;

/// Frameworks that the original knew; `julia:1.7.1` and the like come to these.
const FRAMEWORKS: [&str; 6] = [
    "lightning",
    "torch",
    "pytorch",
    "tensorflow",
    "julia",
    "torchelastic",
];

/// What is wanted, checked as far as this machine can.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) name: Option<String>,
    pub(crate) team: Option<String>,
    pub(crate) command: Vec<String>,
    pub(crate) params: Vec<(String, String)>,
    pub(crate) sweep: SweepSpec,
    pub(crate) code: Code,
    pub(crate) environment: EnvironmentSpec,
    pub(crate) resources: Resources,
    pub(crate) datastores: Vec<DatastoreMount>,
    pub(crate) actions: Actions,
    pub(crate) auto_resume: bool,
    pub(crate) retries: u32,
    pub(crate) max_duration_ms: Option<u64>,
    pub(crate) description: String,
    /// What the user should know.
    pub(crate) warnings: Vec<String>,
}

/// Where the code comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Code {
    /// From this machine.
    Here(capture::How),
    /// The server clones it.
    Git {
        url: String,
        reference: Option<String>,
    },
}

/// Merges flags and file.  `cluster` is the one that the settings name.
pub(crate) fn merge(
    args: RunArgs,
    file: RunFile,
    cluster: Option<&str>,
) -> Result<Wanted, Problem> {
    let mut warnings = file.warnings.clone();
    warnings.extend(without_effect(&args));
    let mut wanted = Wanted {
        name: checked_name(args.name.clone())?,
        team: checked_team(args.team.clone())?,
        sweep: SweepSpec {
            strategy: args.strategy.or(file.strategy).unwrap_or_default(),
            num_trials: args.num_trials.or(file.num_trials),
            seed: args.seed.or(file.seed),
        },
        code: code(&args, &file)?,
        environment: environment(&args, &file)?,
        resources: resources(&args, &file, cluster)?,
        auto_resume: args.auto_resume.or(file.auto_resume).unwrap_or_default(),
        retries: args.retries.or(file.retries).unwrap_or_default(),
        max_duration_ms: max_duration(
            args.max_duration
                .as_deref()
                .or(file.max_duration.as_deref()),
        )?,
        description: args.description.clone().unwrap_or_default(),
        datastores: datastores::mounts(&args, &file)?,
        params: file.params,
        actions: file.actions,
        command: args.command,
        warnings,
    };
    check_sweep(&wanted)?;
    wanted.warnings.extend(mistyped(&wanted));
    Ok(wanted)
}

fn without_effect(args: &RunArgs) -> Vec<String> {
    [
        ("--credential", args.credential.is_some()),
        ("--max_nodes", args.max_nodes.is_some()),
    ]
    .iter()
    .filter(|(_, given)| *given)
    .map(|(flag, _)| format!("{flag} has no effect any more"))
    .collect()
}

fn checked_name(name: Option<String>) -> Result<Option<String>, Problem> {
    if let Some(name) = &name {
        RunName::parse(name).map_err(|error| Problem::usage(error.to_string()))?;
    }
    Ok(name)
}

fn checked_team(team: Option<String>) -> Result<Option<String>, Problem> {
    if let Some(team) = &team {
        TeamName::parse(team).map_err(|error| Problem::usage(error.to_string()))?;
    }
    Ok(team)
}

fn code(args: &RunArgs, file: &RunFile) -> Result<Code, Problem> {
    if let Some(git) = &args.git {
        let (url, reference) = match git.split_once('#') {
            Some((url, reference)) => (url, Some(reference.to_owned())),
            None => (git.as_str(), None),
        };
        if url.is_empty() || url.starts_with('-') || reference.as_deref() == Some("") {
            return Err(Problem::usage(format!("'{git}' is not the address of a repository"))
                .hint("write --git https://HOST/OWNER/NAME, with #BRANCH, #TAG or #COMMIT if you like"));
        }
        return Ok(Code::Git {
            url: url.to_owned(),
            reference,
        });
    }
    let localdir = args.localdir.or(file.localdir).unwrap_or_default();
    Ok(Code::Here(if localdir {
        capture::How::Folder
    } else {
        capture::How::Automatic
    }))
}

fn environment(args: &RunArgs, file: &RunFile) -> Result<EnvironmentSpec, Problem> {
    let framework = args.framework.clone().or_else(|| file.framework.clone());
    if let Some(name) = &framework {
        let known = FRAMEWORKS.contains(&name.as_str())
            || name
                .strip_prefix("julia:")
                .is_some_and(|version| !version.is_empty());
        if !known {
            return Err(
                Problem::usage(format!("'{name}' is not a framework")).hint(format!(
                    "use one of {}, or julia:VERSION",
                    FRAMEWORKS.join(", ")
                )),
            );
        }
    }
    let dependency_file = args
        .dependency_file
        .clone()
        .or_else(|| file.dependency_file.clone());
    // A manager that the file names belongs to the file's dependency file.
    let package_manager = if args.dependency_file.is_some() {
        guessed(&dependency_file)
    } else {
        file.package_manager
    };
    Ok(EnvironmentSpec {
        framework,
        package_manager,
        dependency_file,
        dockerfile: args.dockerfile.clone().or_else(|| file.dockerfile.clone()),
        variables: variables(args, file)?,
    })
}

/// The manager of a file whose name says it; otherwise the runner looks inside.
fn guessed(dependency_file: &Option<String>) -> Option<PackageManager> {
    let name = dependency_file.as_deref()?.rsplit('/').next()?;
    match name.rsplit_once('.')?.1 {
        "yml" | "yaml" => Some(PackageManager::Conda),
        "toml" => Some(PackageManager::Julia),
        "txt" => Some(PackageManager::Pip),
        _ => None,
    }
}

fn variables(args: &RunArgs, file: &RunFile) -> Result<BTreeMap<String, String>, Problem> {
    let mut variables = file.variables.clone();
    for pair in &args.env {
        let Some((key, value)) = pair.split_once('=') else {
            return Err(
                Problem::usage(format!("--env {pair} sets nothing")).hint("write --env KEY=VALUE")
            );
        };
        variables.insert(key.to_owned(), value.to_owned());
    }
    for key in variables.keys() {
        let good = key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
            && !key.starts_with(|c: char| c.is_ascii_digit())
            && !key.is_empty();
        if !good {
            return Err(Problem::usage(format!(
                "'{key}' is not the name of an environment variable"
            ))
            .hint("names are letters, digits and _, and do not begin with a digit"));
        }
    }
    Ok(variables)
}

fn resources(args: &RunArgs, file: &RunFile, cluster: Option<&str>) -> Result<Resources, Problem> {
    let (memory_bytes, disk_gb) = match args.memory.as_deref() {
        Some(text) => memory(text)?,
        None => (None, None),
    };
    let (file_memory, file_disk) = match file.memory.as_deref() {
        Some(text) => memory(text)?,
        None => (None, None),
    };
    let cluster = args
        .cluster
        .as_deref()
        .or(file.cluster.as_deref())
        .or(cluster);
    Ok(Resources {
        cluster: cluster.map(str::to_owned),
        instance_type: args
            .instance_type
            .clone()
            .or_else(|| file.instance_type.clone()),
        cpus: args.cpus.or(file.cpus),
        gpus: args.gpus.or(file.gpus),
        memory_bytes: memory_bytes.or(file_memory),
        disk_gb: disk_gb.or(args.disk_size).or(file.disk_gb).or(file_disk),
        use_spot: args.use_spot.or(file.use_spot).unwrap_or_default(),
        scratch_gb: args.scratch_size.or(file.scratch_gb),
        scratch_mount_path: args
            .scratch_mount_path
            .clone()
            .or_else(|| file.scratch_mount_path.clone()),
    })
}

/// `--memory 100` has always meant disk space in GB; with a unit it is memory.
fn memory(text: &str) -> Result<(Option<u64>, Option<u32>), Problem> {
    if let Ok(gb) = text.parse() {
        return Ok((None, Some(gb)));
    }
    let bytes = parse_size_bytes(text).map_err(|error| {
        Problem::usage(format!("memory: {error}"))
            .hint("16G is memory; a bare number is disk space in GB")
    })?;
    Ok((Some(bytes), None))
}

fn max_duration(text: Option<&str>) -> Result<Option<u64>, Problem> {
    let Some(text) = text else {
        return Ok(None);
    };
    let millis = parse_duration_millis(text)
        .map_err(|error| Problem::usage(format!("max-duration: {error}")))?;
    match u64::try_from(millis) {
        Ok(millis @ 1..) => Ok(Some(millis)),
        _ => Err(
            Problem::usage("a max-duration of 0 would end every experiment before it starts")
                .hint("leave it out for no limit"),
        ),
    }
}

/// The server makes the experiments; whether it can is known here.
fn check_sweep(wanted: &Wanted) -> Result<(), Problem> {
    let (_, arguments) = split_command(&wanted.command);
    sweep::expand(arguments, &wanted.params, &wanted.sweep, 0)
        .map(|_| ())
        .map_err(|error| {
            let problem = Problem::usage(error.to_string());
            match error.hint() {
                Some(hint) => problem.hint(hint),
                None => problem,
            }
        })
}

/// Values that were probably to be drawn, and are not.
fn mistyped(wanted: &Wanted) -> Vec<String> {
    if wanted.sweep.strategy == Strategy::None {
        return Vec::new();
    }
    let (_, arguments) = split_command(&wanted.command);
    let typed = arguments.iter().map(|word| match word.split_once('=') {
        Some((flag, value)) if flag.starts_with('-') => value,
        _ => word.as_str(),
    });
    let values = typed.chain(wanted.params.iter().map(|(_, value)| value.as_str()));
    values
        .filter_map(|value| {
            let meant = sweep::mistyped(value)?;
            Some(format!(
                "'{value}' is passed as it is: did you mean {meant}(…)?"
            ))
        })
        .collect()
}
