//! What the environment of an experiment is made of, and the key of its content.

use std::path::Path;

use grid_core::spec::{PackageManager, RunSpec, Source};

use super::requirements::{self, Requirements};
use super::tools::Tools;

/// Raised when environments are built in another way, so that old ones are not used.
const RECIPE: u32 = 1;

/// Names of dependency files that are looked for.
const WELL_KNOWN: [(&str, PackageManager); 4] = [
    ("requirements.txt", PackageManager::Pip),
    ("environment.yml", PackageManager::Conda),
    ("environment.yaml", PackageManager::Conda),
    ("Project.toml", PackageManager::Julia),
];

/// Variables with these beginnings tell installers where packages are.
const INSTALLER_PREFIXES: [&str; 3] = ["PIP_", "UV_", "CONDA_"];

/// What builds the environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// Only the user's actions.
    Actions,
    /// Packages of a dependency file.
    Packages {
        manager: PackageManager,
        file: String,
    },
    /// An image.
    Image { dockerfile: String },
}

/// An environment to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) kind: Kind,
    /// The content, as a name.
    pub(super) key: String,
    /// Variables that the build sees.
    pub(super) variables: Vec<(String, String)>,
    /// The code that was built in is what experiments start with.
    pub(super) uses_tree: bool,
    /// The code that was built in must stay where it is.
    pub(super) keeps_tree: bool,
}

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("{0}")]
    Requirements(#[from] requirements::Error),
    #[error("there is no dependency file '{0}' in the working directory or at the top of the code")]
    NoFile(String),
    #[error("there is no Dockerfile '{0}' in the code")]
    NoDockerfile(String),
    #[error(
        "build actions and a Dockerfile do not go together; write them into '{0}', as lines with RUN"
    )]
    DockerfileActions(String),
    #[error("'{file}' needs {needs}, which this machine does not have")]
    NoTool { file: String, needs: &'static str },
}

/// Looks at the code in `work`; `None` when nothing is to be built.
pub(super) fn plan(
    work: &Path,
    spec: &RunSpec,
    user: &str,
    tools: &Tools,
) -> Result<Option<Plan>, Error> {
    let Some(kind) = kind(work, spec)? else {
        return Ok(None);
    };
    let requirements = match &kind {
        Kind::Packages { manager, file } => {
            tools.check(*manager, file)?;
            requirements::read(work, file, *manager == PackageManager::Pip)?
        }
        Kind::Image { dockerfile } => {
            // What builds images is not sandboxed, so nothing else may happen beside it.
            if has_actions(spec) {
                return Err(Error::DockerfileActions(dockerfile.clone()));
            }
            tools.check_image(dockerfile)?;
            Requirements {
                is_local: true,
                ..requirements::read(work, dockerfile, false)?
            }
        }
        Kind::Actions => Requirements::default(),
    };
    let has_actions = has_actions(spec);
    let is_julia = matches!(
        kind,
        Kind::Packages {
            manager: PackageManager::Julia,
            ..
        }
    );
    let is_image = matches!(kind, Kind::Image { .. });
    let variables = match is_image {
        true => vec![],
        false => variables(spec, has_actions, &requirements),
    };
    let uses_tree = has_actions || is_julia;
    let keeps_tree = uses_tree || requirements.is_local;
    let content = Content {
        work,
        spec,
        user,
        tools,
        kind: &kind,
        requirements: &requirements,
        variables: &variables,
    };
    let key = content.key(has_actions, keeps_tree);
    Ok(Some(Plan {
        kind,
        key,
        variables,
        uses_tree,
        keeps_tree,
    }))
}

/// All that decides what an environment holds.
struct Content<'a> {
    work: &'a Path,
    spec: &'a RunSpec,
    user: &'a str,
    tools: &'a Tools,
    kind: &'a Kind,
    requirements: &'a Requirements,
    variables: &'a [(String, String)],
}

impl Content<'_> {
    /// The name that the same content always gets.
    fn key(&self, has_actions: bool, keeps_tree: bool) -> String {
        let mut hash = Hash::new();
        hash.add(&RECIPE.to_le_bytes());
        // Whoever builds decides what is in it: people do not share what others built.
        hash.add(self.user.as_bytes());
        hash.add(format!("{:?}", self.kind).as_bytes());
        hash.add(self.tools.version.as_bytes());
        for (path, bytes) in &self.requirements.files {
            hash.add(path.as_bytes());
            hash.add(bytes);
        }
        // Settings of uv are read beside the code.
        for folder in [self.work.to_owned(), self.work.join(&self.spec.workdir)] {
            for name in ["uv.toml", "pyproject.toml"] {
                hash.add(&std::fs::read(folder.join(name)).unwrap_or_default());
            }
        }
        for (name, value) in self.variables {
            hash.add(name.as_bytes());
            hash.add(value.as_bytes());
        }
        if has_actions {
            let actions = &self.spec.actions;
            let build = [
                &actions.on_build_start,
                &actions.on_build,
                &actions.on_build_end,
            ];
            hash.add(&serde_json::to_vec(&build).unwrap_or_default());
            hash.add(self.spec.workdir.as_bytes());
        }
        if keeps_tree && let Source::Snapshot { id, .. } = &self.spec.source {
            hash.add(id.to_string().as_bytes());
        }
        hash.name()
    }
}

fn has_actions(spec: &RunSpec) -> bool {
    let actions = &spec.actions;
    let build = [
        &actions.on_build_start,
        &actions.on_build,
        &actions.on_build_end,
    ];
    build.iter().any(|actions| !actions.is_empty())
}

/// The variables that a build may depend on, and no others: each is in the key.
fn variables(
    spec: &RunSpec,
    has_actions: bool,
    requirements: &Requirements,
) -> Vec<(String, String)> {
    let is_used = |name: &String| {
        let is_installers = INSTALLER_PREFIXES
            .iter()
            .any(|prefix| name.starts_with(prefix));
        has_actions || is_installers || requirements.variables.contains(name)
    };
    let all = spec.environment.variables.iter();
    all.filter(|(name, _)| is_used(name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

fn kind(work: &Path, spec: &RunSpec) -> Result<Option<Kind>, Error> {
    let environment = &spec.environment;
    if let Some(dockerfile) = &environment.dockerfile {
        let path = Path::new(dockerfile);
        let is_inside = path.is_relative() && !path.iter().any(|part| part == "..");
        return match is_inside && work.join(path).is_file() {
            true => Ok(Some(Kind::Image {
                dockerfile: dockerfile.clone(),
            })),
            false => Err(Error::NoDockerfile(dockerfile.clone())),
        };
    }
    let place = |file: &str| {
        let here = (!spec.workdir.is_empty())
            .then(|| Path::new(&spec.workdir).join(file).display().to_string());
        here.into_iter()
            .chain([file.to_owned()])
            .find(|path| work.join(path).is_file())
    };
    if let Some(file) = &environment.dependency_file {
        let found = place(file).ok_or_else(|| Error::NoFile(file.clone()))?;
        let manager = environment
            .package_manager
            .unwrap_or_else(|| manager_of(file));
        return Ok(Some(Kind::Packages {
            manager,
            file: found,
        }));
    }
    let has_code = spec.source != Source::Nothing;
    let is_wanted = |manager: PackageManager| match (
        environment.package_manager,
        environment.framework.as_deref(),
    ) {
        (Some(wanted), _) => wanted == manager,
        (None, Some("julia")) => manager == PackageManager::Julia,
        (None, _) => true,
    };
    let wanted = WELL_KNOWN
        .iter()
        .filter(|(_, manager)| has_code && is_wanted(*manager));
    let found = wanted
        .clone()
        .find_map(|(file, manager)| Some((place(file)?, *manager)));
    if let Some((file, manager)) = found {
        return Ok(Some(Kind::Packages { manager, file }));
    }
    Ok(has_actions(spec).then_some(Kind::Actions))
}

fn manager_of(file: &str) -> PackageManager {
    let name = Path::new(file);
    match name.extension().and_then(|kind| kind.to_str()) {
        Some("yml" | "yaml") => PackageManager::Conda,
        Some("toml")
            if name
                .file_name()
                .is_some_and(|name| name == "Project.toml" || name == "JuliaProject.toml") =>
        {
            PackageManager::Julia
        }
        _ => PackageManager::Pip,
    }
}

struct Hash(blake3::Hasher);

impl Hash {
    fn new() -> Self {
        Self(blake3::Hasher::new())
    }

    /// With its length, so that no two lists of parts look the same.
    fn add(&mut self, bytes: &[u8]) {
        self.0.update(&(bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    fn name(&self) -> String {
        self.0.finalize().to_hex().chars().take(16).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn spec() -> RunSpec {
        serde_json::from_value(serde_json::json!({
            "command": ["train.py"],
            "source": {"kind": "snapshot", "id": "01hf7yat000000000000000002"},
        }))
        .expect("a spec")
    }

    fn key(files: &[(&str, &str)], change: impl Fn(&mut RunSpec), user: &str) -> Option<String> {
        let work = tempfile::tempdir().expect("a folder");
        for (path, text) in files {
            let path = work.path().join(path);
            std::fs::create_dir_all(path.parent().expect("below")).expect("made");
            std::fs::write(path, text).expect("written");
        }
        let mut spec = spec();
        change(&mut spec);
        plan(work.path(), &spec, user, &Tools::fake("python 3"))
            .expect("a plan")
            .map(|plan| plan.key)
    }

    #[test]
    fn the_key_is_of_all_that_decides_and_of_nothing_else() {
        let files = [
            ("requirements.txt", "numpy\n-r more.txt"),
            ("more.txt", "scipy"),
            ("train.py", "1"),
        ];
        let base = key(&files, |_| {}, "ada").expect("something to build");
        let same = [
            key(
                &[
                    ("requirements.txt", "numpy\n-r more.txt"),
                    ("more.txt", "scipy"),
                    ("train.py", "2"),
                ],
                |_| {},
                "ada",
            ),
            key(
                &files,
                |spec| spec.command = vec!["other.py".to_owned()],
                "ada",
            ),
            key(
                &files,
                |spec| {
                    spec.environment.variables =
                        BTreeMap::from([("SEED".to_owned(), "1".to_owned())]);
                },
                "ada",
            ),
            key(
                &files,
                |spec| spec.actions.on_experiment_start = vec!["true".to_owned()],
                "ada",
            ),
        ];
        for (number, other) in same.iter().enumerate() {
            assert_eq!(other.as_deref(), Some(base.as_str()), "{number}");
        }
        let others = [
            key(
                &[
                    ("requirements.txt", "numpy\n-r more.txt"),
                    ("more.txt", "scipy<2"),
                    ("train.py", "1"),
                ],
                |_| {},
                "ada",
            ),
            key(&files, |_| {}, "bob"),
            key(
                &files,
                |spec| spec.actions.on_build = vec!["make".to_owned()],
                "ada",
            ),
            key(
                &files,
                |spec| {
                    spec.environment.variables =
                        BTreeMap::from([("UV_INDEX_URL".to_owned(), "x".to_owned())]);
                },
                "ada",
            ),
            key(
                &files,
                |spec| spec.environment.dependency_file = Some("more.txt".to_owned()),
                "ada",
            ),
            key(&[("requirements.txt", "numpy\n-e .")], |_| {}, "ada"),
        ];
        for (number, other) in others.iter().enumerate() {
            assert_ne!(other.as_deref(), Some(base.as_str()), "{number}");
        }
        assert_eq!(key(&[("train.py", "1")], |_| {}, "ada"), None);
    }

    #[test]
    fn the_file_beside_the_script_comes_first() {
        let files = [("requirements.txt", "top"), ("sub/requirements.txt", "sub")];
        let top = key(&files, |_| {}, "ada");
        let sub = key(&files, |spec| spec.workdir = "sub".to_owned(), "ada");
        assert_ne!(top, sub);
    }

    #[test]
    fn what_is_missing_is_said() {
        let work = tempfile::tempdir().expect("a folder");
        std::fs::write(work.path().join("environment.yml"), "name: x").expect("written");
        let tools = Tools::fake("python 3");
        let error = plan(work.path(), &spec(), "ada", &tools).expect_err("no conda");
        assert_eq!(
            error.to_string(),
            "'environment.yml' needs micromamba, mamba or conda, which this machine does not have"
        );
        let mut named = spec();
        named.environment.dependency_file = Some("deps.txt".to_owned());
        assert!(matches!(
            plan(work.path(), &named, "ada", &tools),
            Err(Error::NoFile(_))
        ));
    }
}
