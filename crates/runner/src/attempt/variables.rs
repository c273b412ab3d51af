//! The environment of an experiment: made from nothing, so that no secret of the
//! server or of the user who started it gets in.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::prepare::Prepared;
use crate::table::Grant;

use super::Attempt;

/// The places a process may write to, as it sees them.
pub(crate) struct Seen<'a> {
    pub(crate) home: &'a Path,
    pub(crate) tmp: &'a Path,
}

/// Variables that the user cannot set: they say what was granted.
fn is_ours(name: &str) -> bool {
    name == "CUDA_VISIBLE_DEVICES" || (name.starts_with("GRID_") && PLATFORM.contains(&name))
}

/// The `GRID_*` variables.
const PLATFORM: [&str; 12] = [
    "GRID_EXPERIMENT_ID",
    "GRID_EXPERIMENT_NAME",
    "GRID_RUN_NAME",
    "GRID_USER_ID",
    "GRID_USERNAME",
    "GRID_CLUSTER_ID",
    "GRID_INSTANCE_TYPE",
    "GRID_ATTEMPT",
    "GRID_CPUS",
    "GRID_GPUS",
    "GRID_SLOT",
    "GRID_SLOTS",
];

/// The whole environment of the script and of its actions.
pub(crate) fn variables(
    attempt: &Attempt,
    grant: &Grant,
    prepared: &Prepared,
    search_path: &[PathBuf],
    seen: &Seen<'_>,
) -> BTreeMap<String, String> {
    let launch = &attempt.launch;
    let mut all = BTreeMap::new();
    let mut set = |name: &str, value: String| {
        all.insert(name.to_owned(), value);
    };
    set("HOME", seen.home.display().to_string());
    set("TMPDIR", seen.tmp.display().to_string());
    set("LANG", "C.UTF-8".to_owned());
    set("USER", launch.username.clone());
    set("LOGNAME", launch.username.clone());
    set("SHELL", "/bin/sh".to_owned());
    // Otherwise Python keeps lines back when it does not write to a terminal.
    set("PYTHONUNBUFFERED", "1".to_owned());
    for (name, value) in &prepared.variables {
        set(name, value.clone());
    }
    let user = &launch.spec.environment.variables;
    for (name, value) in user.iter().filter(|(name, _)| !is_ours(name)) {
        set(name, value.clone());
    }
    set("PATH", path(user.get("PATH"), prepared, search_path));
    let list = |numbers: &[u32]| {
        numbers
            .iter()
            .map(u32::to_string)
            .collect::<Vec<_>>()
            .join(",")
    };
    let values = [
        launch.workload.to_string(),
        launch.experiment.clone(),
        launch.run.clone(),
        launch.user_id.clone(),
        launch.username.clone(),
        launch.cluster.clone(),
        launch
            .spec
            .resources
            .instance_type
            .clone()
            .unwrap_or_default(),
        attempt.id.number.to_string(),
        launch.placement.cpus.to_string(),
        launch.placement.gpus.len().to_string(),
        grant.cpus.first().map(u32::to_string).unwrap_or_default(),
        list(&grant.cpus),
    ];
    for (name, value) in PLATFORM.iter().zip(values) {
        set(name, value);
    }
    // Set even when there is none: a process must not take what was not granted.
    set("CUDA_VISIBLE_DEVICES", list(&launch.placement.gpus));
    all
}

/// The environment comes first, even before a `PATH` of the user's own.
fn path(own: Option<&String>, prepared: &Prepared, search_path: &[PathBuf]) -> String {
    let show = |path: &PathBuf| path.display().to_string();
    let mut path: Vec<String> = prepared.path_first.iter().map(show).collect();
    match own {
        Some(own) => path.push(own.clone()),
        None => path.extend(search_path.iter().map(show)),
    }
    path.join(":")
}
