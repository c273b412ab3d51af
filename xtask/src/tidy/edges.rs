//! Which crate may use which: the picture in ARCHITECTURE.md as a table.
//!
//! A new edge is a decision about the architecture. It is made here, in one line, and reviewed.

use anyhow::{Context, Result};
use serde_json::Value;

use super::Finding;
use crate::process::{cargo, output_of};

/// What each crate of the workspace may build upon. What is not named here may use nothing.
const ALLOWED: &[(&str, &[&str])] = &[
    ("grid-core", &[]),
    ("grid-chunk", &["grid-core"]),
    ("grid-manifest", &["grid-core"]),
    ("grid-api", &["grid-core", "grid-chunk"]),
    ("grid-store", &["grid-core", "grid-chunk"]),
    ("grid-executor", &["grid-core", "grid-api"]),
    // `grid-api` for what it has in common with the runner: protocol, snapshots, blob records.
    (
        "grid-engine",
        &[
            "grid-core",
            "grid-chunk",
            "grid-manifest",
            "grid-api",
            "grid-store",
            "grid-executor",
        ],
    ),
    (
        "grid-server",
        &[
            "grid-core",
            "grid-chunk",
            "grid-manifest",
            "grid-api",
            "grid-store",
            "grid-executor",
            "grid-engine",
        ],
    ),
    (
        "grid-runner",
        &["grid-core", "grid-chunk", "grid-manifest", "grid-api"],
    ),
    (
        "grid-cli",
        &[
            "grid-core",
            "grid-chunk",
            "grid-manifest",
            "grid-api",
            "grid-server",
            "grid-runner",
        ],
    ),
    ("grid-testing", &["grid-core", "grid-executor"]),
];

/// Helpers of tests: nothing that people run contains them.
const ONLY_FOR_TESTS: &str = "grid-testing";

/// The crates of this workspace, as cargo sees them.
pub(super) struct Workspace {
    pub(super) packages: Vec<Package>,
}

pub(super) struct Package {
    name: String,
    /// Names of crates of this workspace that it depends on, and whether only its tests do.
    uses: Vec<(String, bool)>,
    /// Files that a compilation begins with, from the root of the repository.
    pub(super) roots: Vec<String>,
}

impl Workspace {
    pub(super) fn read() -> Result<Self> {
        let root = crate::paths::root();
        let mut metadata = cargo();
        metadata
            .args([
                "metadata",
                "--no-deps",
                "--format-version",
                "1",
                "--offline",
            ])
            .current_dir(&root);
        let metadata: Value =
            serde_json::from_str(&output_of(&mut metadata)?).context("reading cargo metadata")?;
        let packages = metadata["packages"]
            .as_array()
            .context("cargo metadata names no packages")?;
        let prefix = format!("{}/", root.display());
        Ok(Self {
            packages: packages
                .iter()
                .map(|package| Package::read(package, &prefix))
                .collect(),
        })
    }
}

impl Package {
    fn read(package: &Value, prefix: &str) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let list = |name: &str| package[name].as_array().cloned().unwrap_or_default();
        let mut uses = Vec::new();
        for dependency in list("dependencies")
            .iter()
            .filter(|dependency| dependency["path"].is_string())
        {
            let only_tests = dependency["kind"].as_str() == Some("dev");
            uses.push((text(&dependency["name"]), only_tests));
        }
        let roots = list("targets")
            .iter()
            .map(|target| text(&target["src_path"]).replace(prefix, ""))
            .collect();
        Self {
            name: text(&package["name"]),
            uses,
            roots,
        }
    }
}

pub(super) fn check(workspace: &Workspace) -> Vec<Finding> {
    workspace.packages.iter().flat_map(refused).collect()
}

fn refused(package: &Package) -> Vec<Finding> {
    let allowed = ALLOWED
        .iter()
        .find(|(name, _)| *name == package.name)
        .map_or(&[][..], |(_, uses)| uses);
    let not_allowed = |(used, only_tests): &&(String, bool)| {
        let for_tests = *only_tests && used == ONLY_FOR_TESTS && package.name != "grid-e2e";
        !for_tests && !allowed.contains(&used.as_str())
    };
    let describe = |(used, _): &(String, bool)| {
        let message = format!(
            "{} may not use {used}; the table of edges is in xtask/src/tidy/edges.rs",
            package.name
        );
        Finding::new("Cargo.toml", 1, message)
    };
    package
        .uses
        .iter()
        .filter(not_allowed)
        .map(describe)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{ALLOWED, Package, Workspace, check};

    fn package(name: &str, uses: &[(&str, bool)]) -> Workspace {
        let uses = uses
            .iter()
            .map(|(used, only_tests)| ((*used).to_owned(), *only_tests))
            .collect();
        Workspace {
            packages: vec![Package {
                name: name.to_owned(),
                uses,
                roots: vec![],
            }],
        }
    }

    #[test]
    fn edges_that_the_table_does_not_have_are_found() {
        assert_eq!(
            check(&package("grid-core", &[("grid-store", false)])).len(),
            1
        );
        assert_eq!(
            check(&package("grid-e2e", &[("grid-core", false)])).len(),
            1
        );
        assert_eq!(
            check(&package("grid-cli", &[("grid-store", true)])).len(),
            1
        );
        assert_eq!(
            check(&package(
                "grid-engine",
                &[("grid-core", false), ("grid-store", false)]
            )),
            []
        );
    }

    #[test]
    fn test_helpers_are_only_for_tests() {
        assert_eq!(
            check(&package("grid-engine", &[("grid-testing", false)])).len(),
            1
        );
        assert_eq!(
            check(&package("grid-engine", &[("grid-testing", true)])),
            []
        );
    }

    #[test]
    fn the_table_has_no_circles() {
        for (at, (_, uses)) in ALLOWED.iter().enumerate() {
            for used in *uses {
                let position = ALLOWED.iter().position(|(name, _)| name == used);
                assert!(position.is_some_and(|position| position < at), "{used}");
            }
        }
    }

    #[test]
    fn the_workspace_is_read_from_cargo() {
        let workspace = Workspace::read().unwrap();
        let core = workspace
            .packages
            .iter()
            .find(|package| package.name == "grid-core")
            .unwrap();
        assert!(core.uses.is_empty());
        assert!(core.roots.contains(&"crates/core/src/lib.rs".to_owned()));
    }
}
