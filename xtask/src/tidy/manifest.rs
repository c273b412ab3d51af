//! One list of dependencies, each with its reason.

use super::Finding;
use super::sources::Sources;

const WORKSPACE: &str = "Cargo.toml";

pub(super) fn check(sources: &Sources) -> Vec<Finding> {
    let mut findings = sources
        .get(WORKSPACE)
        .map(|source| shared(&source.text))
        .unwrap_or_default();
    let members = sources
        .all()
        .filter(|source| source.path.ends_with("/Cargo.toml"));
    for member in members {
        for (line, text) in section(&member.text, |name| name.ends_with("dependencies")) {
            if !text.contains("workspace = true") {
                let message =
                    "has a version of its own: put it into the workspace's list, with its reason";
                findings.push(Finding::new(&member.path, line, message));
            }
        }
    }
    findings
}

/// The workspace's own list: sorted within each block, and a reason on each line.
fn shared(text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut previous: Option<(usize, &str)> = None;
    for (line, text) in section(text, |name| name == "workspace.dependencies") {
        let Some((name, value)) = text.split_once('=') else {
            continue;
        };
        let name = name.trim();
        if let Some((_, before)) = previous.filter(|(at, before)| at + 1 == line && *before > name)
        {
            findings.push(Finding::new(
                WORKSPACE,
                line,
                format!("{name} stands after {before}: sort the list"),
            ));
        }
        previous = Some((line, name));
        let ours = value.contains("path =");
        let reason = value
            .rsplit_once('#')
            .map(|(_, reason)| reason.trim())
            .filter(|reason| !reason.contains('"'));
        if !ours && reason.is_none_or(str::is_empty) {
            findings.push(Finding::new(
                WORKSPACE,
                line,
                format!("{name} has no reason: say on its line what it is for"),
            ));
        }
    }
    findings
}

/// The entries of the sections whose name fits.
fn section(text: &str, fits: impl Fn(&str) -> bool) -> impl Iterator<Item = (usize, &str)> {
    let mut inside = false;
    text.lines().enumerate().filter_map(move |(index, line)| {
        let line = line.trim();
        if let Some(name) = line
            .strip_prefix('[')
            .and_then(|line| line.split_once(']'))
            .map(|(name, _)| name)
        {
            inside = fits(name);
            return None;
        }
        (inside && line.contains('=') && !line.starts_with('#')).then_some((index + 1, line))
    })
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::tidy::sources::Sources;

    fn messages(manifest: &str) -> Vec<String> {
        check(&Sources::of(&[("Cargo.toml", manifest)]))
            .into_iter()
            .map(|found| found.message)
            .collect()
    }

    #[test]
    fn a_dependency_needs_a_reason() {
        let found = messages(
            "[workspace.dependencies]\nb = { path = \"b\" }\n\nanyhow = \"1\" # context\nclap = { version = \"4\", features = [\"a#b\"] }\n",
        );
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("clap has no reason"));
    }

    #[test]
    fn the_list_is_sorted() {
        let found = messages(
            "[workspace.dependencies]\nserde = \"1\" # wire\nclap = \"4\" # flags\n\nanyhow = \"1\" # context\n",
        );
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("clap stands after serde"));
    }

    #[test]
    fn members_take_the_version_of_the_workspace() {
        let manifest = "[package]\nname = \"a\"\n[dependencies]\nserde = { workspace = true }\nclap = \"4\"\n[dev-dependencies]\ninsta = \"1\"\n";
        let found = check(&Sources::of(&[("crates/a/Cargo.toml", manifest)]));
        assert_eq!(
            found.iter().map(|found| found.line).collect::<Vec<_>>(),
            [5, 7]
        );
    }
}
