//! The configuration file of a run: `grid run --config FILE`.
//!
//! Every key is optional, every mistake is named with its line and column, and
//! keys of old files are understood or reported as having no effect.

mod fields;
#[cfg(test)]
mod tests;
mod yaml;

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use grid_core::spec::{Actions, PackageManager};
use grid_core::sweep::Strategy;

use crate::error::Problem;
use fields::File;
use yaml::{Node, Value};

/// The largest file that is read, in bytes.  What is larger is not a configuration.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What a file says; nothing it does not say has a value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct RunFile {
    pub(crate) cluster: Option<String>,
    pub(crate) framework: Option<String>,
    pub(crate) variables: BTreeMap<String, String>,
    pub(crate) package_manager: Option<PackageManager>,
    pub(crate) dependency_file: Option<String>,
    pub(crate) instance_type: Option<String>,
    pub(crate) use_spot: Option<bool>,
    pub(crate) disk_gb: Option<u32>,
    pub(crate) memory: Option<String>,
    pub(crate) localdir: Option<bool>,
    pub(crate) dockerfile: Option<String>,
    pub(crate) auto_resume: Option<bool>,
    pub(crate) datastore_names: Vec<String>,
    pub(crate) datastore_versions: Vec<String>,
    pub(crate) datastore_mount_dirs: Vec<String>,
    pub(crate) cpus: Option<u32>,
    pub(crate) gpus: Option<u32>,
    pub(crate) retries: Option<u32>,
    pub(crate) max_duration: Option<String>,
    pub(crate) actions: Actions,
    pub(crate) scratch_gb: Option<u32>,
    pub(crate) scratch_mount_path: Option<String>,
    pub(crate) strategy: Option<Strategy>,
    pub(crate) num_trials: Option<u64>,
    pub(crate) seed: Option<u64>,
    pub(crate) params: Vec<(String, String)>,
    /// What the user should know about the file.
    pub(crate) warnings: Vec<String>,
}

/// Reads a file.
pub(crate) fn load(path: &Path) -> Result<RunFile> {
    let cannot = |error: std::io::Error| {
        Problem::usage(format!(
            "cannot read the configuration file {}",
            path.display()
        ))
        .because(error)
    };
    let size = std::fs::metadata(path).map_err(cannot)?.len();
    if size > FILE_BYTES_MAX {
        let message = format!("{} is too large for a configuration file", path.display());
        return Err(Problem::usage(message).into());
    }
    let text = std::fs::read_to_string(path).map_err(cannot)?;
    Ok(read(&path.display().to_string(), &text)?)
}

/// Reads the text of a file called `name`.
fn read(name: &str, text: &str) -> Result<RunFile, Problem> {
    let file = File { name };
    let root = yaml::parse(text).map_err(|error| {
        Problem::usage(format!("{name}:{}:{}: {error}", error.line, error.column))
            .hint("the file is YAML: `key: value`, indented by spaces")
    })?;
    let mut run = RunFile::default();
    for (key, node) in file.fields(&root, "the file", &["compute", "hyper_params"])? {
        match key {
            "compute" => compute(&file, node, &mut run)?,
            _ => hyper_params(&file, node, &mut run)?,
        }
    }
    Ok(run)
}

fn compute(file: &File<'_>, node: &Node, run: &mut RunFile) -> Result<(), Problem> {
    for (key, node) in file.fields(node, "compute", &["provider", "train"])? {
        match key {
            "provider" => provider(file, node, run)?,
            _ => train(file, node, run)?,
        }
    }
    Ok(())
}

fn provider(file: &File<'_>, node: &Node, run: &mut RunFile) -> Result<(), Problem> {
    let old = ["credentials", "region", "vendor"];
    for (key, node) in file.fields_and_old(node, "compute.provider", &["cluster"], &old)? {
        match key {
            "cluster" => run.cluster = file.text(node, key)?,
            _ => run.warnings.push(file.without_effect(node, key)),
        }
    }
    Ok(())
}

const TRAIN: &[&str] = &[
    "framework",
    "environment",
    "dependency_file_info",
    "instance",
    "use_spot",
    "storage_gb",
    "localdir",
    "dockerfile",
    "auto_resume",
    "datastore_name",
    "datastore_version",
    "datastore_mount_dir",
    "cpus",
    "gpus",
    "memory",
    "retries",
    "max_duration",
    "actions",
    "scratch",
];

const TRAIN_OLD: &[&str] = &[
    "instance_type",
    "nodes",
    "max_nodes",
    "scale_down_seconds",
    "disk_size",
    "distributed",
];

fn train(file: &File<'_>, node: &Node, run: &mut RunFile) -> Result<(), Problem> {
    for (key, node) in file.fields_and_old(node, "compute.train", TRAIN, TRAIN_OLD)? {
        match key {
            "framework" => run.framework = file.text(node, key)?,
            "environment" => run.variables = file.texts(node, key)?,
            "dependency_file_info" => dependency_file(file, node, run)?,
            "instance" => run.instance_type = file.text(node, key)?,
            "use_spot" => run.use_spot = file.boolean(node, key)?,
            "storage_gb" => run.disk_gb = file.number(node, key)?,
            "localdir" => run.localdir = file.boolean(node, key)?,
            "dockerfile" => run.dockerfile = file.text(node, key)?,
            "auto_resume" => run.auto_resume = file.boolean(node, key)?,
            "datastore_name" => run.datastore_names = file.commands(node, key)?,
            "datastore_version" => run.datastore_versions = file.commands(node, key)?,
            "datastore_mount_dir" => run.datastore_mount_dirs = file.commands(node, key)?,
            "cpus" => run.cpus = file.number(node, key)?,
            "gpus" => run.gpus = file.number(node, key)?,
            "memory" => run.memory = file.text(node, key)?,
            "retries" => run.retries = file.number(node, key)?,
            "max_duration" => run.max_duration = file.text(node, key)?,
            "actions" => actions(file, node, run)?,
            "scratch" => scratch(file, node, run)?,
            "instance_type" => {
                run.warnings.push(file.renamed(node, key, "instance"));
                run.instance_type = file.text(node, key)?;
            }
            "disk_size" => {
                run.warnings.push(file.renamed(node, key, "storage_gb"));
                run.disk_gb = file.number(node, key)?;
            }
            _ => run.warnings.push(file.without_effect(node, key)),
        }
    }
    Ok(())
}

fn dependency_file(file: &File<'_>, node: &Node, run: &mut RunFile) -> Result<(), Problem> {
    let place = "compute.train.dependency_file_info";
    for (key, node) in file.fields(node, place, &["package_manager", "path"])? {
        match key {
            "path" => run.dependency_file = file.text(node, key)?,
            _ => {
                let choices = [
                    ("pip", PackageManager::Pip),
                    ("conda", PackageManager::Conda),
                    ("julia", PackageManager::Julia),
                ];
                run.package_manager = file.choice(node, key, &choices)?;
            }
        }
    }
    Ok(())
}

fn scratch(file: &File<'_>, node: &Node, run: &mut RunFile) -> Result<(), Problem> {
    for (key, node) in file.fields(node, "compute.train.scratch", &["size_gb", "mount_path"])? {
        match key {
            "size_gb" => run.scratch_gb = file.number(node, key)?,
            _ => run.scratch_mount_path = file.text(node, key)?,
        }
    }
    Ok(())
}

fn actions(file: &File<'_>, node: &Node, run: &mut RunFile) -> Result<(), Problem> {
    let keys = [
        "on_build",
        "on_build_start",
        "on_build_end",
        "on_experiment_start",
        "on_experiment_end",
    ];
    let old = [
        "on_image_build",
        "on_before_training_start",
        "on_after_training_end",
    ];
    for (key, node) in file.fields_and_old(node, "compute.train.actions", &keys, &old)? {
        let now = match key {
            "on_image_build" => "on_build",
            "on_before_training_start" => "on_experiment_start",
            "on_after_training_end" => "on_experiment_end",
            key => key,
        };
        if now != key {
            run.warnings.push(file.renamed(node, key, now));
        }
        let commands = file.commands(node, key)?;
        let actions = &mut run.actions;
        let slot = match now {
            "on_build" => &mut actions.on_build,
            "on_build_start" => &mut actions.on_build_start,
            "on_build_end" => &mut actions.on_build_end,
            "on_experiment_start" => &mut actions.on_experiment_start,
            _ => &mut actions.on_experiment_end,
        };
        slot.extend(commands);
    }
    Ok(())
}

fn hyper_params(file: &File<'_>, node: &Node, run: &mut RunFile) -> Result<(), Problem> {
    for (key, node) in file.fields(node, "hyper_params", &["settings", "params"])? {
        match key {
            "settings" => settings(file, node, run)?,
            _ => run.params = params(file, node)?,
        }
    }
    Ok(())
}

fn settings(file: &File<'_>, node: &Node, run: &mut RunFile) -> Result<(), Problem> {
    let keys = ["strategy", "strategy_options"];
    let old = ["trials", "num_trials", "seed"];
    for (key, node) in file.fields_and_old(node, "hyper_params.settings", &keys, &old)? {
        match key {
            "strategy" => {
                let choices = [Strategy::GridSearch, Strategy::RandomSearch, Strategy::None];
                let names: Vec<String> = choices.iter().map(ToString::to_string).collect();
                let choices: Vec<_> = names.iter().map(String::as_str).zip(choices).collect();
                run.strategy = file.choice(node, key, &choices)?;
            }
            "trials" | "num_trials" => {
                run.warnings
                    .push(file.renamed(node, key, "strategy_options.num_trials"));
                run.num_trials = file.number(node, key)?;
            }
            "seed" => {
                run.warnings
                    .push(file.renamed(node, key, "strategy_options.seed"));
                run.seed = file.number(node, key)?;
            }
            _ => {
                let place = "hyper_params.settings.strategy_options";
                for (key, node) in file.fields(node, place, &["num_trials", "seed"])? {
                    match key {
                        "num_trials" => run.num_trials = file.number(node, key)?,
                        _ => run.seed = file.number(node, key)?,
                    }
                }
            }
        }
    }
    Ok(())
}

/// The script's arguments: whatever keys, and values as they are written.
fn params(file: &File<'_>, node: &Node) -> Result<Vec<(String, String)>, Problem> {
    let pairs = match &node.value {
        _ if node.is_null() => return Ok(Vec::new()),
        Value::Mapping(pairs) => pairs,
        _ => return Err(file.wrong(node, "hyper_params.params must be `--flag: value` lines")),
    };
    let mut params = Vec::with_capacity(pairs.len());
    for (key, node) in pairs {
        let Value::Scalar { text: key, .. } = &key.value else {
            return Err(file.wrong(key, "the name of an argument must be a word, like --lr"));
        };
        params.push((key.clone(), expression(file, node)?));
    }
    Ok(params)
}

/// The text that stands for a value: a list becomes a sweep over it.
fn expression(file: &File<'_>, node: &Node) -> Result<String, Problem> {
    match &node.value {
        _ if node.is_null() => Ok(String::new()),
        Value::Scalar { text, .. } => Ok(text.clone()),
        Value::Sequence(items) => {
            let items: Result<Vec<String>, Problem> =
                items.iter().map(|item| list_item(file, item)).collect();
            Ok(format!("[{}]", items?.join(", ")))
        }
        Value::Mapping(_) => Err(file.wrong(
            node,
            "the value of an argument must be a word, a number or a list of them",
        )),
    }
}

fn list_item(file: &File<'_>, node: &Node) -> Result<String, Problem> {
    match &node.value {
        Value::Scalar {
            text,
            is_plain: true,
        } if text.chars().all(is_bare) && !text.is_empty() => Ok(text.clone()),
        Value::Scalar { text, .. } => Ok(format!(
            "'{}'",
            text.replace('\\', "\\\\").replace('\'', "\\'")
        )),
        _ => Err(file.wrong(node, "a list of values holds words and numbers")),
    }
}

/// Characters that mean nothing in an expression but themselves.
fn is_bare(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '.' | '+' | '-' | '_')
}
