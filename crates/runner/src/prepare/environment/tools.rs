//! Programs that build environments.

use std::path::PathBuf;

use grid_core::spec::PackageManager;

use super::plan::Error;

/// What this machine has of them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tools {
    pub(crate) python: Option<PathBuf>,
    /// What the interpreter calls itself: another one makes another environment.
    pub(crate) version: String,
    pub(crate) uv: Option<PathBuf>,
    /// micromamba, mamba or conda.
    pub(crate) conda: Option<PathBuf>,
    pub(crate) julia: Option<PathBuf>,
    /// podman or docker.
    pub(crate) images: Option<PathBuf>,
}

impl Tools {
    #[cfg(test)]
    pub(super) fn fake(version: &str) -> Self {
        Self {
            python: Some("/usr/bin/python3".into()),
            version: version.to_owned(),
            ..Self::default()
        }
    }

    pub(super) fn check(&self, manager: PackageManager, file: &str) -> Result<(), Error> {
        let (tool, needs) = match manager {
            PackageManager::Pip => (&self.python, "python3"),
            PackageManager::Conda => (&self.conda, "micromamba, mamba or conda"),
            PackageManager::Julia => (&self.julia, "julia"),
        };
        if tool.is_some() {
            Ok(())
        } else {
            Err(Error::NoTool {
                file: file.to_owned(),
                needs,
            })
        }
    }

    pub(super) fn check_image(&self, dockerfile: &str) -> Result<(), Error> {
        if self.images.is_some() {
            return Ok(());
        }
        Err(Error::NoTool {
            file: dockerfile.to_owned(),
            needs: "podman or docker",
        })
    }
}
