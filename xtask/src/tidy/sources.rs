//! The text files of the repository, read once for all rules.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};

use super::rust::Masked;

/// Folders that hold nothing of ours: built, fetched, or made by running the product.
const FOREIGN: &[&str] = &[
    ".git",
    ".demo",
    ".grid",
    ".venv",
    "__pycache__",
    "node_modules",
    "runs",
    "target",
];

/// File endings that the rules read.
const ENDINGS: &[&str] = &[
    "md", "py", "rs", "sh", "sql", "toml", "ts", "tsx", "txt", "yml", "yaml",
];

/// One file, by its path below the root, with `/` between the parts.
pub(super) struct Source {
    pub(super) path: String,
    pub(super) text: String,
    /// For Rust files only: the same text, taken apart.
    pub(super) rust: Option<Masked>,
}

impl Source {
    /// Where the tests begin in the code of a Rust file: for a file of tests, at once.
    pub(super) fn tests_from(&self) -> usize {
        let is_program = self.path.contains("/src/bin/");
        let is_test = (self.path.starts_with("e2e/") && !is_program)
            || self.path.contains("/tests/")
            || self.path.ends_with("/tests.rs");
        match &self.rust {
            Some(rust) if !is_test => rust.code_before_tests().len(),
            _ => 0,
        }
    }
}

/// All files, in the order of their paths.
pub(super) struct Sources {
    files: BTreeMap<String, Source>,
    /// Whether this is the repository, as opposed to a sample of a few files.
    pub(super) whole: bool,
}

impl Sources {
    pub(super) fn read(root: &Path) -> Result<Self> {
        let mut sources = Self {
            files: BTreeMap::new(),
            whole: true,
        };
        sources.add_folder(root, "")?;
        Ok(sources)
    }

    fn add_folder(&mut self, folder: &Path, prefix: &str) -> Result<()> {
        let entries =
            std::fs::read_dir(folder).with_context(|| format!("listing {}", folder.display()))?;
        for entry in entries {
            let entry = entry.with_context(|| format!("listing {}", folder.display()))?;
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            let path = format!("{prefix}{name}");
            let kind = entry
                .file_type()
                .with_context(|| format!("looking at {path}"))?;
            if kind.is_dir() {
                if !FOREIGN.contains(&name.as_str()) {
                    self.add_folder(&entry.path(), &format!("{path}/"))?;
                }
            } else if kind.is_file() && is_read(&path) {
                // Somebody may be removing it at this moment, or it is no text: not ours to judge.
                let Ok(text) = std::fs::read_to_string(entry.path()) else {
                    continue;
                };
                self.add(path, text);
            }
        }
        Ok(())
    }

    fn add(&mut self, path: String, text: String) {
        let rust = path.ends_with(".rs").then(|| Masked::new(&text));
        self.files.insert(path.clone(), Source { path, text, rust });
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Source> {
        self.files.values()
    }

    pub(super) fn get(&self, path: &str) -> Option<&Source> {
        self.files.get(path)
    }

    /// The Rust files and what is in them.
    pub(super) fn rust(&self) -> impl Iterator<Item = (&Source, &Masked)> {
        self.all()
            .filter_map(|source| source.rust.as_ref().map(|rust| (source, rust)))
    }

    /// Samples for the tests of the rules.
    #[cfg(test)]
    pub(super) fn of(files: &[(&str, &str)]) -> Self {
        let mut sources = Self {
            files: BTreeMap::new(),
            whole: false,
        };
        for (path, text) in files {
            sources.add((*path).to_owned(), (*text).to_owned());
        }
        sources
    }
}

fn is_read(path: &str) -> bool {
    path == ".ci/run"
        || path
            .rsplit_once('.')
            .is_some_and(|(_, ending)| ENDINGS.contains(&ending))
}

#[cfg(test)]
mod tests {
    use super::{Sources, is_read};

    #[test]
    fn this_repository_is_read_and_foreign_folders_are_not() {
        let sources = Sources::read(&crate::paths::root()).unwrap();
        assert!(
            sources
                .get("xtask/src/tidy/sources.rs")
                .is_some_and(|source| source.rust.is_some())
        );
        assert!(sources.get(".ci/run").is_some());
        assert!(
            !sources
                .all()
                .any(|source| source.path.starts_with("target/"))
        );
    }

    #[test]
    fn only_texts_are_read() {
        assert!(is_read("docs/limits.md") && is_read("clippy.toml"));
        assert!(!is_read("docs/plot.png") && !is_read("Cargo.lock"));
    }
}
