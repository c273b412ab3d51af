//! Running a process in an image that was built from a Dockerfile.
//!
//! What builds and runs images does so outside of any sandbox, with the rights of this
//! program.  So nothing that a user chose is in its environment: what users set is handed
//! over in a file, and is seen in the image only.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::data::Mounted;
use crate::attempt::Attempt;
use crate::keeper::protocol::Spawn;

/// Where images expect the code, as the original product had it.
const PROJECT: &str = "/gridai/project";

/// Variables that belong to the machine and not to the image.
const OUTSIDE: [&str; 5] = ["PATH", "HOME", "TMPDIR", "SHELL", "VIRTUAL_ENV"];

/// Settings of the machine that podman and docker need to find what they keep, and each
/// other.
const TOOL_VARIABLES: [&str; 16] = [
    "BUILDAH_ISOLATION",
    "CONTAINERS_CONF",
    "CONTAINERS_REGISTRIES_CONF",
    "CONTAINERS_STORAGE_CONF",
    "CONTAINER_HOST",
    "DOCKER_CERT_PATH",
    "DOCKER_CONFIG",
    "DOCKER_CONTEXT",
    "DOCKER_HOST",
    "DOCKER_TLS_VERIFY",
    "HOME",
    "REGISTRY_AUTH_FILE",
    "STORAGE_DRIVER",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
    "XDG_RUNTIME_DIR",
];

/// The file with the variables of a process, beside its folders.
const VARIABLES_FILE: &str = "container.env";

/// Longest value in that file, in bytes.  Podman reads lines of at most 64 KiB.
const LINE_BYTES_MAX: usize = 32 << 10;

/// The variables with which podman or docker is started.
pub(crate) fn tool_variables() -> Vec<(String, String)> {
    let value = |name: &str| Some((name.to_owned(), std::env::var(name).ok()?));
    TOOL_VARIABLES.into_iter().filter_map(value).collect()
}

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

    /// The process that runs another one in the image; `path` is where programs are looked for.
    pub(crate) fn enclose(
        &self,
        spawn: Spawn,
        attempt: &Attempt,
        mounts: &[Mounted],
        path: &[PathBuf],
    ) -> io::Result<Spawn> {
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
        let file = attempt.folder.join(VARIABLES_FILE);
        let rest = write_variables(&file, &spawn.env)?;
        add(&["--env-file", &show(&file)]);
        for (name, value) in rest {
            add(&["--env", &format!("{name}={value}")]);
        }
        add(&["--entrypoint", "", &self.image]);
        argv.extend(spawn.argv);
        let path: Vec<String> = path.iter().map(|path| show(path)).collect();
        let mut env = tool_variables();
        env.push(("PATH".to_owned(), path.join(":")));
        Ok(Spawn { argv, env, ..spawn })
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

/// Writes what the image is to see, for nobody else to read; answers with what does not fit
/// into lines.
fn write_variables<'e>(
    file: &Path,
    all: &'e [(String, String)],
) -> io::Result<Vec<&'e (String, String)>> {
    // Begun anew, so that nobody has it open and its rights are these.
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = fs::OpenOptions::new();
    let mut out = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file)?;
    let mut rest = Vec::new();
    let mut text = String::new();
    for variable in all {
        let (name, value) = variable;
        if OUTSIDE.contains(&name.as_str()) {
            continue;
        }
        if value.contains(['\n', '\r']) || name.len() + value.len() > LINE_BYTES_MAX {
            rest.push(variable);
        } else {
            text.push_str(&format!("{name}={value}\n"));
        }
    }
    out.write_all(text.as_bytes())?;
    Ok(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_in_a_file_for_nobody_else() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("env");
        fs::write(&file, "OLD=1\n").expect("written");
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let long = "x".repeat(LINE_BYTES_MAX);
        let all = [
            pair("COLOUR", "dark blue = #1"),
            pair("PATH", "/evil"),
            pair("LINES", "a\nb"),
            pair("LONG", &long),
        ];
        let rest = write_variables(&file, &all).expect("written");
        let names: Vec<&str> = rest.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["LINES", "LONG"]);
        let text = fs::read_to_string(&file).expect("read");
        assert_eq!(text, "COLOUR=dark blue = #1\n");
        let mode = file.metadata().expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
