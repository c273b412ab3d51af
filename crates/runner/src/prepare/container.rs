//! Running a process in an image that was built from a Dockerfile.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::data::Mounted;
use crate::attempt::Attempt;
use crate::keeper::protocol::Spawn;

/// Where images expect the code, as the original product had it.
const PROJECT: &str = "/gridai/project";

/// Variables that belong to the machine and not to the image.
const OUTSIDE: [&str; 5] = ["PATH", "HOME", "TMPDIR", "SHELL", "VIRTUAL_ENV"];

/// An image and what runs it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Container {
    /// podman or docker.
    pub(crate) tool: PathBuf,
    pub(crate) image: String,
    /// Where the command runs, below the code.
    pub(crate) workdir: String,
}

impl Container {
    fn name(attempt: &Attempt) -> String {
        format!("grid-{}", attempt.id)
    }

    /// Program and arguments as they are called in the image, which has its own
    /// interpreters.
    pub(crate) fn argv(program: &[String], args: &[String]) -> Vec<String> {
        let first = program.first().map(String::as_str).unwrap_or_default();
        let interpreter = match Path::new(first).extension().and_then(|kind| kind.to_str()) {
            Some("py") => Some("python"),
            Some("sh") => Some("bash"),
            Some("jl") => Some("julia"),
            Some("R" | "r") => Some("Rscript"),
            _ => None,
        };
        interpreter
            .map(str::to_owned)
            .into_iter()
            .chain(program.iter().chain(args).cloned())
            .collect()
    }

    /// The process that runs another one in the image.
    pub(crate) fn enclose(&self, spawn: Spawn, attempt: &Attempt, mounts: &[Mounted]) -> Spawn {
        let show = |path: &Path| path.display().to_string();
        let placement = &attempt.launch.placement;
        let work = show(&attempt.work());
        let mut argv = vec![show(&self.tool)];
        let mut add = |words: &[&str]| argv.extend(words.iter().map(|word| (*word).to_owned()));
        add(&[
            "run",
            "--rm",
            "--init",
            "--name",
            &Self::name(attempt),
            "--network",
            "host",
        ]);
        add(&[
            "--volume",
            &format!("{work}:{PROJECT}"),
            "--volume",
            &format!("{0}:{0}", show(&attempt.home())),
        ]);
        for mount in mounts {
            let volume = format!("{}:{}:ro", show(&mount.from), show(&mount.to));
            add(&["--volume", &volume]);
        }
        add(&["--workdir", &show(&Path::new(PROJECT).join(&self.workdir))]);
        if placement.cpus > 0 {
            add(&["--cpus", &placement.cpus.to_string()]);
        }
        if placement.memory_bytes > 0 {
            add(&["--memory", &placement.memory_bytes.to_string()]);
        }
        if !placement.gpus.is_empty() {
            let gpus: Vec<String> = placement.gpus.iter().map(u32::to_string).collect();
            add(&["--gpus", &format!("\"device={}\"", gpus.join(","))]);
        }
        for (name, _) in spawn
            .env
            .iter()
            .filter(|(name, _)| !OUTSIDE.contains(&name.as_str()))
        {
            // By name only: values are taken from the environment, not shown in process lists.
            add(&["--env", name]);
        }
        add(&["--entrypoint", "", &self.image]);
        argv.extend(spawn.argv);
        Spawn { argv, ..spawn }
    }

    /// Ends what a killed client left running.
    pub(crate) async fn remove(&self, attempt: &Attempt) {
        let removed = tokio::process::Command::new(&self.tool)
            .args(["rm", "--force", &Self::name(attempt)])
            .stdin(std::process::Stdio::null())
            .output()
            .await;
        if let Err(error) = removed {
            tracing::warn!(attempt = %attempt.id, %error, "a container may be left");
        }
    }
}
