//! Every link in the documentation leads somewhere.

use std::collections::BTreeSet;

use super::Finding;
use super::sources::{Source, Sources};

pub(super) fn check(sources: &Sources) -> Vec<Finding> {
    let pages = sources.all().filter(|source| source.path.ends_with(".md"));
    pages.flat_map(|page| broken(page, sources)).collect()
}

fn broken(page: &Source, sources: &Sources) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (line, text) in prose(&page.text) {
        for target in
            targets(text).filter(|target| !target.contains("://") && !target.starts_with("mailto:"))
        {
            let (file, heading) = target.split_once('#').unwrap_or((target, ""));
            let path = if file.is_empty() {
                Some(page.path.clone())
            } else {
                joined(&page.path, file)
            };
            let Some(path) = path.filter(|path| exists(path, sources)) else {
                findings.push(Finding::new(
                    &page.path,
                    line,
                    format!("links to {target}, which is not there"),
                ));
                continue;
            };
            let other = sources.get(&path);
            if !heading.is_empty()
                && !other.is_some_and(|other| headings(&other.text).contains(heading))
            {
                findings.push(Finding::new(
                    &page.path,
                    line,
                    format!("links to {target}: {path} has no such heading"),
                ));
            }
        }
    }
    findings
}

/// Lines outside of code blocks, with their numbers.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    text.lines().enumerate().filter_map(move |(index, line)| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        (!fenced && !fence).then_some((index + 1, line))
    })
}

/// What `[text](target)` points to, leaving out what stands in backquotes.
fn targets(line: &str) -> impl Iterator<Item = &str> {
    let outside_code = line.split('`').step_by(2);
    // A link whose text is code is cut in two: its target follows the backquote.
    outside_code.flat_map(|part| {
        part.match_indices("](").filter_map(move |(at, _)| {
            let rest = &part[at + 2..];
            rest.split_once(')')
                .map(|(target, _)| target.split_whitespace().next().unwrap_or_default())
        })
    })
}

/// A path beside a page, without `.` and `..`; nothing when it leaves the repository.
fn joined(page: &str, file: &str) -> Option<String> {
    let mut parts: Vec<&str> = page.split('/').collect();
    parts.pop();
    for part in file.split('/') {
        match part {
            "." | "" => {}
            ".." => {
                parts.pop()?;
            }
            _ => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

fn exists(path: &str, sources: &Sources) -> bool {
    sources.get(path).is_some() || crate::paths::root().join(path).exists()
}

/// The names under which the headings of a page can be linked.
fn headings(text: &str) -> BTreeSet<String> {
    let titles = prose(text).filter_map(|(_, line)| line.strip_prefix('#'));
    let name = |title: &str| -> String {
        let title = title.trim_start_matches('#').trim().to_lowercase();
        let kept = title
            .chars()
            .filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    titles.map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::{check, targets};
    use crate::tidy::sources::Sources;

    #[test]
    fn broken_links_are_found() {
        let page = "[a](guide/one.md)\n[b](gone.md)\n[c](guide/one.md#second-part)\n[d](guide/one.md#third)\n[e](#here)\n# Here\n";
        let sources = Sources::of(&[
            ("docs/index.md", page),
            (
                "docs/guide/one.md",
                "# One\n## Second part!\n[up](../index.md)\n[out](../../../x)\n",
            ),
        ]);
        let found: Vec<_> = check(&sources)
            .into_iter()
            .map(|found| (found.path, found.line))
            .collect();
        let expected = [
            ("docs/guide/one.md", 4),
            ("docs/index.md", 2),
            ("docs/index.md", 4),
        ];
        assert_eq!(found, expected.map(|(path, line)| (path.to_owned(), line)));
    }

    #[test]
    fn code_and_the_outside_world_are_not_followed() {
        let page = "`[a](b)` and [c](https://example.com/#d)\n```\n[e](f)\n```\n";
        assert_eq!(check(&Sources::of(&[("a.md", page)])), []);
        assert_eq!(
            targets("see [`code`](a.md) and [b](c.md \"title\")").collect::<Vec<_>>(),
            ["a.md", "c.md"]
        );
    }
}
