//! Links of a version: where they lead, in the list alone.
//!
//! One that leads to a file of the version is read as that file, also through links that
//! stand for folders; whoever lists files decides what is made of the others.

use grid_manifest::{Entry, Node};

use super::List;
use crate::error::Result;

/// Links on the way to a file, as Linux has it.  Higher: a listing of links that lead in a
/// circle asks more; lower: what a file system opens is not found.
const HOPS_MAX: usize = 40;

/// Where a path ends.
pub(crate) enum End {
    /// At a file.
    File(Entry),
    /// At a folder, by this path; the top when empty.
    Folder(String),
    /// At this path, where nothing is.
    Nothing(String),
    /// Nowhere: links lead to each other.
    Circle,
}

impl End {
    /// The file, where there is one.
    pub(crate) fn file(self) -> Option<Entry> {
        match self {
            Self::File(entry) => Some(entry),
            Self::Folder(_) | Self::Nothing(_) | Self::Circle => None,
        }
    }
}

/// Goes to a path, through all links on the way.
pub(crate) async fn follow(list: &mut List, path: &str) -> Result<End> {
    let mut path = path.to_owned();
    for _ in 0..=HOPS_MAX {
        let next = match list.get(&path).await? {
            Some(entry) => match &entry.node {
                Node::File { .. } | Node::Elsewhere { .. } => return Ok(End::File(entry)),
                Node::Folder => return Ok(End::Folder(path)),
                Node::Link { target } => joined(&entry.path, target),
            },
            None => match around(list, &path).await? {
                Some(next) => next,
                None if is_folder(list, &path).await? => return Ok(End::Folder(path)),
                None => return Ok(End::Nothing(path)),
            },
        };
        path = next;
    }
    Ok(End::Circle)
}

/// Whether anything is below a path.
async fn is_folder(list: &mut List, path: &str) -> Result<bool> {
    if path.is_empty() {
        return Ok(true);
    }
    let prefix = format!("{path}/");
    let first = list.seek(&prefix, false).await?;
    Ok(first.is_some_and(|entry| entry.path.starts_with(&prefix)))
}

/// The way to a path through a link that stands for one of the folders above it, if there is
/// one.
async fn around(list: &mut List, path: &str) -> Result<Option<String>> {
    for (at, _) in path.match_indices('/') {
        if let Some(entry) = list.get(&path[..at]).await? {
            return Ok(match &entry.node {
                Node::Link { target } => {
                    let above = joined(&entry.path, target);
                    let below = &path[at..];
                    // A link to the top has nothing before what is below it.
                    let next = format!("{above}{below}");
                    Some(next.trim_start_matches('/').to_owned())
                }
                _ => None,
            });
        }
    }
    Ok(None)
}

/// Where a link points, from the top.  A link of a list climbs first, through folders that
/// are none themselves, and stays inside.
fn joined(link: &str, target: &str) -> String {
    let mut parts: Vec<&str> = link.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            name => parts.push(name),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::joined;

    #[test]
    fn a_link_points_from_the_folder_that_it_is_in() {
        for (link, target, expected) in [
            ("a", "b", "b"),
            ("x/a", "b", "x/b"),
            ("x/y/a", "../b/./c", "x/b/c"),
            ("x/y/a", "../../b", "b"),
            ("x/a", "..", ""),
        ] {
            assert_eq!(joined(link, target), expected, "{link} -> {target}");
        }
    }
}
