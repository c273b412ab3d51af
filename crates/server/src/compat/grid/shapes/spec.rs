//! The parts that runs and experiments have in common.

use std::collections::BTreeMap;

use grid_core::spec::{Actions as CoreActions, PackageManager, RunSpec, Source};
use serde::{Deserialize, Serialize};

use super::datastore::shown_id;
use super::read::{Number, Text, or_default};

/// Commands of the user around build and experiment.
#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::compat::grid) struct Actions {
    #[serde(deserialize_with = "or_default")]
    on_build: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    on_build_end: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    on_build_start: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    on_experiment_end: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    on_experiment_start: Vec<String>,
}

impl Actions {
    pub(in crate::compat::grid) fn of(actions: &CoreActions) -> Self {
        Self {
            on_build: actions.on_build.clone(),
            on_build_end: actions.on_build_end.clone(),
            on_build_start: actions.on_build_start.clone(),
            on_experiment_end: actions.on_experiment_end.clone(),
            on_experiment_start: actions.on_experiment_start.clone(),
        }
    }

    pub(in crate::compat::grid) fn read(self) -> CoreActions {
        CoreActions {
            on_build_start: self.on_build_start,
            on_build: self.on_build,
            on_build_end: self.on_build_end,
            on_experiment_start: self.on_experiment_start,
            on_experiment_end: self.on_experiment_end,
        }
    }
}

/// What the environment is made of.
#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::compat::grid) struct Image {
    /// The one thing that may be missing: the client looks at it when it is there.
    pub(in crate::compat::grid) dependency_file_info: Option<DependencyFile>,
    #[serde(deserialize_with = "or_default")]
    pub(in crate::compat::grid) dockerfile: String,
    #[serde(deserialize_with = "or_default")]
    pub(in crate::compat::grid) framework: String,
}

/// A list of dependencies.
#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::compat::grid) struct DependencyFile {
    #[serde(deserialize_with = "or_default")]
    pub(in crate::compat::grid) package_manager: String,
    #[serde(deserialize_with = "or_default")]
    pub(in crate::compat::grid) path: String,
}

impl Image {
    pub(in crate::compat::grid) fn of(spec: &RunSpec) -> Self {
        let environment = &spec.environment;
        let file = environment.dependency_file.as_ref();
        Self {
            dependency_file_info: file.map(|path| DependencyFile {
                package_manager: manager(environment.package_manager).to_owned(),
                path: path.clone(),
            }),
            dockerfile: environment.dockerfile.clone().unwrap_or_default(),
            framework: environment.framework.clone().unwrap_or_default(),
        }
    }
}

fn manager(manager: Option<PackageManager>) -> &'static str {
    match manager {
        Some(PackageManager::Pip) => "PACKAGE_MANAGER_PIP",
        Some(PackageManager::Conda) => "PACKAGE_MANAGER_CONDA",
        Some(PackageManager::Julia) | None => "PACKAGE_MANAGER_UNSPECIFIED",
    }
}

/// What one experiment asks for.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::compat::grid) struct Resources {
    cpu: String,
    extra: BTreeMap<String, String>,
    gpu: String,
    memory_mb: String,
    storage_gb: String,
}

impl Resources {
    pub(in crate::compat::grid) fn of(spec: &RunSpec) -> Self {
        let asked = &spec.resources;
        Self {
            cpu: asked.cpus.unwrap_or(0).to_string(),
            extra: BTreeMap::new(),
            gpu: asked.gpus.unwrap_or(0).to_string(),
            memory_mb: (asked.memory_bytes.unwrap_or(0) >> 20).to_string(),
            storage_gb: asked.disk_gb.unwrap_or(0).to_string(),
        }
    }
}

/// The same, as it is sent.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::compat::grid) struct AskedResources {
    pub(in crate::compat::grid) cpu: Number,
    pub(in crate::compat::grid) gpu: Number,
    pub(in crate::compat::grid) memory_mb: Number,
    pub(in crate::compat::grid) storage_gb: Number,
}

/// A scratch volume.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::compat::grid) struct Scratch {
    mount_path: String,
    size_gb: u32,
}

impl Scratch {
    /// At most one: the client takes more for a mistake.
    pub(in crate::compat::grid) fn of(spec: &RunSpec) -> Vec<Self> {
        let asked = &spec.resources;
        if asked.scratch_gb.is_none() && asked.scratch_mount_path.is_none() {
            return vec![];
        }
        vec![Self {
            mount_path: asked.scratch_mount_path.clone().unwrap_or_default(),
            size_gb: asked.scratch_gb.unwrap_or(0),
        }]
    }
}

/// The same, as it is sent.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::compat::grid) struct AskedScratch {
    #[serde(deserialize_with = "or_default")]
    pub(in crate::compat::grid) mount_path: String,
    pub(in crate::compat::grid) size_gb: Number,
}

/// A datastore and where it is mounted.
#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::compat::grid) struct Mount {
    #[serde(deserialize_with = "or_default")]
    pub(in crate::compat::grid) id: String,
    #[serde(deserialize_with = "or_default")]
    pub(in crate::compat::grid) mount_path: String,
}

impl Mount {
    pub(in crate::compat::grid) fn of(spec: &RunSpec) -> Vec<Self> {
        let mounts = spec.datastores.iter();
        mounts
            .filter_map(|mount| {
                let version = mount.mounted.as_ref()?;
                Some(Self {
                    id: shown_id(version.id),
                    mount_path: mount.mount_dir.clone().unwrap_or_default(),
                })
            })
            .collect()
    }
}

/// Where the code comes from.  `s3:` in it tells the client that it was sent from a folder.
pub(in crate::compat::grid) fn source_code(spec: &RunSpec, cluster: &str) -> String {
    match &spec.source {
        Source::Snapshot { id, git } => {
            let remote = git
                .as_ref()
                .and_then(|git| Some((git.remote.as_ref()?, &git.commit)));
            match remote {
                Some((remote, commit)) => format!("{remote}#ref={commit}"),
                None => format!("s3://{cluster}/code/{id}"),
            }
        }
        Source::Git { url, reference } => match reference {
            Some(reference) => format!("{url}#ref={reference}"),
            None => url.clone(),
        },
        Source::Nothing => String::new(),
    }
}

/// Values that are text, whatever they were sent as.
pub(in crate::compat::grid) fn texts(values: BTreeMap<String, Text>) -> BTreeMap<String, String> {
    values
        .into_iter()
        .map(|(name, value)| (name, value.0))
        .collect()
}
