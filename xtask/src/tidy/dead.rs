//! A Rust file that no module names is compiled by nobody and read by everybody.

use std::collections::BTreeSet;

use super::Finding;
use super::edges::Workspace;
use super::sources::Sources;

pub(super) fn check(sources: &Sources, workspace: &Workspace) -> Vec<Finding> {
    let roots = workspace.packages.iter().flat_map(|package| &package.roots);
    unreached(sources, roots.map(String::as_str))
}

fn unreached<'a>(sources: &Sources, roots: impl Iterator<Item = &'a str>) -> Vec<Finding> {
    let roots: BTreeSet<String> = roots.map(str::to_owned).collect();
    let mut reached = BTreeSet::new();
    let mut open: Vec<String> = roots.iter().cloned().collect();
    while let Some(path) = open.pop() {
        let Some(rust) = sources.get(&path).and_then(|source| source.rust.as_ref()) else {
            continue;
        };
        open.extend(modules(&rust.code, &path, roots.contains(&path), sources));
        open.extend(included(&rust.strings, &path, sources));
        reached.insert(path);
        open.retain(|path| !reached.contains(path));
    }
    let dead = sources
        .rust()
        .filter(|(source, _)| !reached.contains(&source.path));
    dead.map(|(source, _)| {
        Finding::new(&source.path, 1, "is named by no `mod`: nothing compiles it")
    })
    .collect()
}

/// Files of the modules that this file declares.
fn modules(code: &str, path: &str, is_root: bool, sources: &Sources) -> Vec<String> {
    let (folder, file) = path.rsplit_once('/').unwrap_or(("", path));
    let stem = file.trim_end_matches(".rs");
    let base = if is_root || stem == "mod" {
        folder.to_owned()
    } else {
        format!("{folder}/{stem}")
    };
    let mut found = Vec::new();
    for name in declared(code) {
        for candidate in [format!("{base}/{name}.rs"), format!("{base}/{name}/mod.rs")] {
            if sources.get(&candidate).is_some() {
                found.push(candidate);
            }
        }
    }
    found
}

/// Names in `mod name;`.
fn declared(code: &str) -> impl Iterator<Item = &str> {
    code.match_indices("mod ").filter_map(|(at, word)| {
        let whole = !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let (name, _) = code[at + word.len()..].split_once(';')?;
        let name = name.trim();
        (whole && name.chars().all(|c| c.is_alphanumeric() || c == '_')).then_some(name)
    })
}

/// Rust files that are named as text beside this one: by `#[path]` or `include!`.
fn included(strings: &[(usize, String)], path: &str, sources: &Sources) -> Vec<String> {
    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let names = strings
        .iter()
        .map(|(_, text)| text)
        .filter(|text| text.ends_with(".rs"));
    names
        .map(|name| format!("{folder}/{name}"))
        .filter(|path| sources.get(path).is_some())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::unreached;
    use crate::tidy::sources::Sources;

    #[test]
    fn files_that_nothing_names_are_found() {
        let sources = Sources::of(&[
            (
                "crates/a/src/lib.rs",
                "pub mod b;\nmod c;\n// mod forgotten;\n",
            ),
            ("crates/a/src/b.rs", "mod inner;"),
            (
                "crates/a/src/b/inner.rs",
                "#[path = \"odd.rs\"]\nmod odd_one;",
            ),
            ("crates/a/src/b/odd.rs", ""),
            ("crates/a/src/c/mod.rs", "mod deep;"),
            ("crates/a/src/c/deep.rs", ""),
            ("crates/a/src/forgotten.rs", ""),
            ("crates/a/tests/one.rs", ""),
        ]);
        let roots = ["crates/a/src/lib.rs", "crates/a/tests/one.rs"];
        let found: Vec<_> = unreached(&sources, roots.into_iter())
            .into_iter()
            .map(|found| found.path)
            .collect();
        assert_eq!(found, ["crates/a/src/forgotten.rs"]);
    }
}
