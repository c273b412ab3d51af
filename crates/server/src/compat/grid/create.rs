//! Asking for a run: from what the client sends to what the engine understands.

use std::collections::BTreeMap;

use grid_core::spec::{EnvironmentSpec, PackageManager, Resources, RunSpec, Source};
use grid_core::sweep::{Strategy, SweepSpec};
use grid_engine::run::NewRun;
use serde::Deserialize;

use super::shapes::read::{Number, Text, or_default};
use super::shapes::run::INVOCATION;
use super::shapes::spec::{Actions, AskedResources, AskedScratch, Image, Mount, texts};
use super::{datastore, words};
use crate::error::{Failure, Result};

/// The machines that the client names when its user names none (the command line and the
/// library have different ones).  Taken for "none": what nobody asked for must not keep a
/// run from a small machine, or a machine from more than one experiment.
const UNNAMED: [&str; 2] = ["m5a.large", "t2.medium"];

/// The list of dependencies that the library names when its user names none, whether or not
/// there is one.  It is looked for anyway.
const UNNAMED_FILE: &str = "requirements.txt";

/// Asking for a run.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Create {
    #[serde(deserialize_with = "or_default")]
    description: String,
    #[serde(deserialize_with = "or_default")]
    name: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) local_dir: bool,
    #[serde(deserialize_with = "or_default")]
    spec: Spec,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    #[serde(deserialize_with = "or_default")]
    actions: Actions,
    #[serde(deserialize_with = "or_default")]
    auto_resume: bool,
    #[serde(deserialize_with = "or_default")]
    datastores: Vec<Mount>,
    #[serde(deserialize_with = "or_default")]
    dry_run: bool,
    #[serde(deserialize_with = "or_default")]
    env: BTreeMap<String, Text>,
    #[serde(deserialize_with = "or_default")]
    image: Image,
    #[serde(deserialize_with = "or_default")]
    instance_type: String,
    #[serde(deserialize_with = "or_default")]
    relative_work_dir: String,
    #[serde(deserialize_with = "or_default")]
    resources: AskedResources,
    #[serde(deserialize_with = "or_default")]
    run_controller_command: String,
    #[serde(deserialize_with = "or_default")]
    scratch: Vec<AskedScratch>,
    #[serde(deserialize_with = "or_default")]
    source_code: String,
    #[serde(deserialize_with = "or_default")]
    sweep_options: BTreeMap<String, Text>,
    #[serde(deserialize_with = "or_default")]
    sweep_type: String,
    #[serde(deserialize_with = "or_default")]
    use_spot: bool,
}

impl Create {
    /// What it means; `nodes` are the machines that can be named.
    pub(super) fn read(self, nodes: &[grid_engine::NodeStatus]) -> Result<NewRun> {
        let spec = self.spec;
        let sent = &spec.run_controller_command;
        let command = words::split(sent)
            .map_err(|why| Failure::invalid(format!("the command '{sent}' has {why}")))?;
        let dry_run = spec.dry_run;
        let source = if self.local_dir {
            Source::Nothing
        } else {
            git(&spec.source_code)?
        };
        let resources = spec.resources(nodes)?;
        let invocation = format!("{INVOCATION}{sent}");
        Ok(NewRun {
            name: Some(self.name).filter(|name| !name.is_empty()),
            team: None,
            invocation,
            project: None,
            cloned_from: None,
            dry_run,
            idempotency_key: None,
            spec: RunSpec {
                command,
                params: vec![],
                sweep: sweep(&spec.sweep_type, &spec.sweep_options)?,
                source,
                workdir: relative(&spec.relative_work_dir),
                environment: environment(spec.image, texts(spec.env))?,
                resources,
                datastores: datastore::mounts(&spec.datastores)?,
                actions: spec.actions.read(),
                auto_resume: spec.auto_resume,
                retries: 0,
                max_duration_ms: None,
                description: self.description,
            },
        })
    }
}

impl Spec {
    fn resources(&self, nodes: &[grid_engine::NodeStatus]) -> Result<Resources> {
        let number = |number: Number, what: &str| -> Result<Option<u32>> {
            number.positive(what).map_err(Failure::invalid)
        };
        let memory_mb: Option<u32> = number(self.resources.memory_mb, "memoryMb")?;
        let mut resources = Resources {
            cluster: None,
            instance_type: Some(self.instance_type.clone())
                .filter(|name| !name.is_empty() && !UNNAMED.contains(&name.as_str())),
            cpus: number(self.resources.cpu, "cpu")?,
            gpus: number(self.resources.gpu, "gpu")?,
            memory_bytes: memory_mb.map(|mb| u64::from(mb) << 20),
            disk_gb: number(self.resources.storage_gb, "storageGb")?,
            use_spot: self.use_spot,
            scratch_gb: None,
            scratch_mount_path: None,
        };
        if let [scratch, more @ ..] = self.scratch.as_slice() {
            if !more.is_empty() {
                return Err(Failure::invalid("a run has at most one scratch volume"));
            }
            resources.scratch_gb = number(scratch.size_gb, "sizeGb")?;
            resources.scratch_mount_path =
                Some(scratch.mount_path.clone()).filter(|path| !path.is_empty());
        }
        // A machine by its own name is all of it.
        let named = resources.instance_type.as_deref();
        let node = nodes
            .iter()
            .find(|status| Some(status.node.id.as_str()) == named);
        if let Some(status) = node {
            resources.instance_type = None;
            resources.cpus = resources.cpus.or(Some(0));
            resources.gpus = resources.gpus.or(Some(status.node.gpus));
        }
        Ok(resources)
    }
}

/// `https://host/owner/name.git#ref=COMMIT`.
fn git(source: &str) -> Result<Source> {
    if source.is_empty() {
        return Err(Failure::invalid("the run has no source code")
            .hint("run it in a clone of a repository, or send a folder with --localdir"));
    }
    let (url, reference) = match source.split_once('#') {
        Some((url, reference)) => (url, Some(reference)),
        None => (source, None),
    };
    let reference = reference.map(|text| text.strip_prefix("ref=").unwrap_or(text).to_owned());
    Ok(Source::Git {
        url: url.to_owned(),
        reference: reference.filter(|text| !text.is_empty()),
    })
}

/// A path below the top; the top itself is `.` to the client.
fn relative(path: &str) -> String {
    match path {
        "." | "./" => String::new(),
        _ => path.strip_prefix("./").unwrap_or(path).to_owned(),
    }
}

fn sweep(kind: &str, options: &BTreeMap<String, Text>) -> Result<SweepSpec> {
    let strategy = match kind {
        "" | "grid_search" => Strategy::GridSearch,
        "random_search" => Strategy::RandomSearch,
        "none" => Strategy::None,
        other => {
            return Err(Failure::invalid(format!("there is no strategy '{other}'"))
                .hint("there are grid_search, random_search and none"));
        }
    };
    let number = |name: &str| -> Result<Option<u64>> {
        let Some(Text(text)) = options.get(name) else {
            return Ok(None);
        };
        match text.trim() {
            "" | "None" => Ok(None),
            text => text.parse().map(Some).map_err(|_| {
                Failure::invalid(format!("the option {name} of the sweep cannot be '{text}'"))
            }),
        }
    };
    Ok(SweepSpec {
        strategy,
        num_trials: number("num_trials")?,
        seed: number("seed")?,
    })
}

fn environment(image: Image, variables: BTreeMap<String, String>) -> Result<EnvironmentSpec> {
    let some = |text: String| Some(text).filter(|text| !text.is_empty());
    let mut environment = EnvironmentSpec {
        framework: some(image.framework),
        package_manager: None,
        dependency_file: None,
        dockerfile: some(image.dockerfile),
        variables,
    };
    let file = image.dependency_file_info.unwrap_or_default();
    let path = relative(&file.path);
    if !path.is_empty() && path != UNNAMED_FILE {
        environment.dependency_file = Some(path);
        environment.package_manager = match file.package_manager.as_str() {
            "PACKAGE_MANAGER_PIP" => Some(PackageManager::Pip),
            "PACKAGE_MANAGER_CONDA" => Some(PackageManager::Conda),
            "" | "PACKAGE_MANAGER_UNSPECIFIED" => None,
            other => {
                return Err(Failure::invalid(format!(
                    "there is no package manager '{other}'"
                )));
            }
        };
    }
    Ok(environment)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Result<NewRun> {
        let create: Create = serde_json::from_str(body).expect("JSON that is understood");
        create.read(&[])
    }

    #[test]
    fn what_the_client_sends_becomes_a_run() {
        let new = read(
            r#"{"localDir":true,"name":"my-run","spec":{"actions":{"onBuild":null},"autoResume":false,
            "clusterId":"prod-2","desiredState":"RUN_STATE_SUCCEEDED","dryRun":false,"env":{"N":3},
            "image":{"framework":"lightning"},"instanceType":"m5a.large",
            "resources":{"cpu":0,"extra":{},"gpu":0,"storageGb":"100"},
            "runControllerCommand":"train.py  --lr '[0.1,0.2]' --flag",
            "scratch":[{"mountPath":"/tmp/scratch","sizeGb":100}],
            "sweepOptions":{"num_trials":"4","seed":"7"},"sweepType":"random_search","useSpot":false}}"#,
        )
        .expect("a run");
        assert_eq!(
            new.spec.command,
            ["train.py", "--lr", "[0.1,0.2]", "--flag"]
        );
        assert_eq!(new.invocation, "grid run train.py  --lr '[0.1,0.2]' --flag");
        assert_eq!(new.spec.sweep.strategy, Strategy::RandomSearch);
        assert_eq!(
            (new.spec.sweep.num_trials, new.spec.sweep.seed),
            (Some(4), Some(7))
        );
        let resources = new.spec.resources;
        assert_eq!(resources.instance_type, None, "nobody named it");
        assert_eq!((resources.cpus, resources.disk_gb), (None, Some(100)));
        assert_eq!(new.spec.environment.variables["N"], "3");
        assert_eq!(new.spec.source, Source::Nothing);
    }

    #[test]
    fn a_repository_is_named_with_its_commit() {
        assert_eq!(
            git("https://github.com/a/b.git#ref=abc").ok(),
            Some(Source::Git {
                url: "https://github.com/a/b.git".to_owned(),
                reference: Some("abc".to_owned()),
            })
        );
        assert!(git("").is_err());
        assert_eq!(relative("."), "");
        assert_eq!(relative("./sub/x"), "sub/x");
    }

    #[test]
    fn a_list_of_dependencies_that_nobody_named_is_looked_for() {
        let file = |path: &str, manager: &str| {
            let image = Image {
                dependency_file_info: Some(super::super::shapes::spec::DependencyFile {
                    package_manager: manager.to_owned(),
                    path: path.to_owned(),
                }),
                ..Image::default()
            };
            environment(image, BTreeMap::new()).map(|environment| environment.dependency_file)
        };
        assert_eq!(
            file("./requirements.txt", "PACKAGE_MANAGER_PIP").ok(),
            Some(None)
        );
        assert_eq!(
            file("./deps/gpu.txt", "PACKAGE_MANAGER_PIP").ok(),
            Some(Some("deps/gpu.txt".to_owned()))
        );
        assert!(file("x", "PACKAGE_MANAGER_SPACK").is_err());
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for (body, word) in [
            (r#"{"spec":{"runControllerCommand":"a 'b"}}"#, "quote"),
            (r#"{"spec":{"runControllerCommand":"a"}}"#, "source"),
            (
                r#"{"localDir":true,"spec":{"runControllerCommand":"a","sweepType":"x"}}"#,
                "strategy",
            ),
            (
                r#"{"localDir":true,"spec":{"runControllerCommand":"a","resources":{"cpu":-2}}}"#,
                "cpu",
            ),
            (
                r#"{"localDir":true,"spec":{"sweepOptions":{"num_trials":"x"}}}"#,
                "num_trials",
            ),
        ] {
            let failure = read(body).expect_err(body);
            let error = failure.body().error;
            assert!(error.message.contains(word), "{body}: {error:?}");
        }
    }
}
