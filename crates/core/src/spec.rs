//! What a person asked for: the document that describes a run.
//!
//! It is stored as it was accepted, sent to the runner as it is, and shown to
//! people; so its JSON form is stable: fields are only added, with defaults.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::blob::BlobId;
use crate::cluster::Need;
use crate::id::{DatastoreVersionId, SnapshotId};
use crate::sweep::SweepSpec;

/// Everything about a run but its name and its owner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct RunSpec {
    /// The script and its arguments, as typed: `["train.py", "--lr", "[0.1, 0.01]"]`.
    pub command: Vec<String>,
    /// Arguments from the configuration file, appended unless the command has them.
    #[serde(default)]
    pub params: Vec<(String, String)>,
    /// How the arguments become experiments.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schema(value_type = Object))]
    pub sweep: SweepSpec,
    /// Where the code comes from.
    pub source: Source,
    /// The folder in the source where the command runs; empty for its top.
    #[serde(default)]
    pub workdir: String,
    /// What the environment is made of.
    #[serde(default)]
    pub environment: EnvironmentSpec,
    /// What one experiment asks for.
    #[serde(default)]
    pub resources: Resources,
    /// Data that the script finds, beside its code.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub datastores: Vec<DatastoreMount>,
    /// Commands of the user around build and experiment.
    #[serde(default)]
    pub actions: Actions,
    /// Whether an interrupted experiment is started again with its artifacts.
    #[serde(default)]
    pub auto_resume: bool,
    /// How often a failed experiment is tried again.
    #[serde(default)]
    pub retries: u32,
    /// After how many milliseconds an experiment is ended; `None` for never.
    #[serde(default)]
    pub max_duration_ms: Option<u64>,
    /// What there is to say about the run, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
}

/// A datastore that a run mounts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct DatastoreMount {
    /// `NAME`, `NAME:VERSION`, `USER:NAME` or `USER:NAME:VERSION`; of a run that was
    /// accepted, the last.
    pub datastore: String,
    /// Where it is mounted, absolute; `/datastores/NAME` when absent.
    #[serde(default)]
    pub mount_dir: Option<String>,
    /// The version that was chosen.  The server says so, whatever was sent.
    #[serde(default)]
    pub mounted: Option<MountedVersion>,
}

/// The exact version of a datastore that a run uses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct MountedVersion {
    /// Its id.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub id: DatastoreVersionId,
    /// Name of the datastore.
    pub name: String,
    /// Its number.
    pub version: u32,
    /// The blob that lists its files.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub manifest: BlobId,
    /// How many they are.
    pub files: u64,
    /// Their bytes together.
    pub size_bytes: u64,
}

/// Where the code of a run comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub enum Source {
    /// A tree that was uploaded.
    Snapshot {
        /// Its id.
        #[cfg_attr(feature = "schema", schema(value_type = String))]
        id: SnapshotId,
        /// The commit it was taken at, when it came out of a Git work tree.
        #[serde(default)]
        git: Option<GitState>,
    },
    /// A repository that the server clones.
    Git {
        /// What `git clone` takes.
        url: String,
        /// Branch, tag or commit; the default branch when absent.
        #[serde(default)]
        reference: Option<String>,
    },
    /// No code: a bare command.
    Nothing,
}

/// The commit that a captured tree was based on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct GitState {
    /// Commit id in hex; empty before the first commit.
    pub commit: String,
    /// Branch, if one is checked out.
    #[serde(default)]
    pub branch: Option<String>,
    /// Whether anything differed from the commit.
    pub dirty: bool,
    /// The `origin` remote, without credentials.
    #[serde(default)]
    pub remote: Option<String>,
}

/// What an environment is made of.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct EnvironmentSpec {
    /// The framework that the user named; only `julia` changes anything.
    #[serde(default)]
    pub framework: Option<String>,
    /// What installs the dependencies; guessed from the file's name when absent.
    #[serde(default)]
    pub package_manager: Option<PackageManager>,
    /// The dependency file, relative to the working directory.  When absent,
    /// `requirements.txt`, `environment.yml` and `Project.toml` are looked for.
    #[serde(default)]
    pub dependency_file: Option<String>,
    /// A Dockerfile to build an image from, relative to the top of the source.
    #[serde(default)]
    pub dockerfile: Option<String>,
    /// Variables for the process.
    #[serde(default)]
    pub variables: BTreeMap<String, String>,
}

/// What installs dependencies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub enum PackageManager {
    /// `requirements.txt`, by uv.
    Pip,
    /// `environment.yml`, by micromamba, mamba or conda.
    Conda,
    /// `Project.toml`, by Julia.
    Julia,
}

/// What one experiment asks for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Resources {
    /// Cluster by name; the default one when absent.
    #[serde(default)]
    pub cluster: Option<String>,
    /// Instance type as the user named it; decides CPUs, GPUs and memory not named themselves.
    #[serde(default)]
    pub instance_type: Option<String>,
    /// CPUs; `None` for the instance type's, or 1; 0 for all of the machine.
    #[serde(default)]
    pub cpus: Option<u32>,
    /// GPUs; `None` for the instance type's, or 0.
    #[serde(default)]
    pub gpus: Option<u32>,
    /// Memory in bytes; `None` for the instance type's, or in proportion to the CPUs.
    #[serde(default)]
    pub memory_bytes: Option<u64>,
    /// Disk in GB; recorded, and enforced where the cluster can.
    #[serde(default)]
    pub disk_gb: Option<u32>,
    /// Whether a machine may be taken away.
    #[serde(default)]
    pub use_spot: bool,
    /// Scratch volume in GB.
    #[serde(default)]
    pub scratch_gb: Option<u32>,
    /// Where the scratch volume is mounted.
    #[serde(default)]
    pub scratch_mount_path: Option<String>,
}

impl Resources {
    /// What the scheduler is asked for, given the named instance type's shape.
    pub fn need(&self, instance: Option<&Need>) -> Need {
        let base = instance.cloned().unwrap_or(Need {
            cpus: 1,
            gpus: 0,
            memory_bytes: 0,
        });
        Need {
            cpus: self.cpus.unwrap_or(base.cpus),
            gpus: self.gpus.unwrap_or(base.gpus),
            memory_bytes: self.memory_bytes.unwrap_or(base.memory_bytes),
        }
    }
}

/// Commands of the user, run in order by `sh -c`; a failing one fails the experiment.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Actions {
    /// Before dependencies are installed.
    #[serde(default)]
    pub on_build_start: Vec<String>,
    /// While the environment is built, after the dependencies.
    #[serde(default)]
    pub on_build: Vec<String>,
    /// When the environment is built.
    #[serde(default)]
    pub on_build_end: Vec<String>,
    /// Just before the script, where the script runs.
    #[serde(default)]
    pub on_experiment_start: Vec<String>,
    /// After the script has ended, however it did.
    #[serde(default)]
    pub on_experiment_end: Vec<String>,
}

/// Splits a command into the program with what belongs to it, and its arguments.
///
/// `train.py --lr 1` is a script and two arguments; `python -m pkg --lr 1` and
/// `bash run.sh x` name their interpreter, which is not an argument to sweep over.
pub fn split_command(command: &[String]) -> (&[String], &[String]) {
    const INTERPRETERS: [&str; 9] = [
        "python", "python3", "bash", "sh", "julia", "Rscript", "torchrun", "node", "perl",
    ];
    let name = command
        .first()
        .map(|first| first.rsplit('/').next().unwrap_or(first));
    let interpreter = name.is_some_and(|name| {
        INTERPRETERS.contains(&name)
            || name
                .strip_prefix("python3.")
                .is_some_and(|v| v.parse::<u8>().is_ok())
    });
    let program = match (
        interpreter,
        command.get(1).map(String::as_str),
        command.len(),
    ) {
        (true, Some("-m"), 3..) => 3,
        (true, Some(second), _) if !second.starts_with('-') => 2,
        _ => 1,
    };
    command.split_at(program.min(command.len()))
}

#[cfg(test)]
mod tests {
    use super::split_command;

    #[test]
    fn the_interpreter_belongs_to_the_program() {
        for (command, program) in [
            ("train.py --lr 1", 1),
            ("python -m pkg --lr 1", 3),
            ("python3.11 train.py --lr 1", 2),
            ("/usr/bin/bash run.sh x", 2),
            ("python -c x", 1),
            ("true", 1),
            ("python", 1),
        ] {
            let command: Vec<String> = command.split(' ').map(str::to_owned).collect();
            assert_eq!(split_command(&command).0.len(), program, "{command:?}");
        }
        assert_eq!(split_command(&[]).0.len(), 0);
    }
}
