//! Links of a version, which S3 knows nothing of: one that leads to a file of the version is
//! read as that file.
//!
//! A link that leads to a folder is no object, or all below it would be there twice, or
//! without end; nor is one that leads nowhere.

use grid_manifest::{Entry, Node};

use super::Result;
use crate::datastore::List;

/// Links on the way to a file, as Linux has it.  Higher: a listing of links that lead in a
/// circle asks more; lower: what a file system opens is not found.
const HOPS_MAX: usize = 40;

/// The file that a link leads to, if it leads to one.
pub(super) async fn target(list: &mut List, link: &Entry) -> Result<Option<Entry>> {
    let mut path = match &link.node {
        Node::Link { target } => joined(&link.path, target),
        _ => return Ok(Some(link.clone())),
    };
    for _ in 0..HOPS_MAX {
        let next = match list.get(&path).await? {
            Some(entry) => match &entry.node {
                Node::File { .. } | Node::Elsewhere { .. } => return Ok(Some(entry)),
                Node::Folder => return Ok(None),
                Node::Link { target } => joined(&entry.path, target),
            },
            None => match around(list, &path).await? {
                Some(next) => next,
                None => return Ok(None),
            },
        };
        path = next;
    }
    Ok(None)
}

/// The way to a path through a link that stands for one of the folders above it, if there is
/// one.
async fn around(list: &mut List, path: &str) -> Result<Option<String>> {
    for (at, _) in path.match_indices('/') {
        if let Some(entry) = list.get(&path[..at]).await? {
            return Ok(match &entry.node {
                Node::Link { target } => {
                    Some(format!("{}{}", joined(&entry.path, target), &path[at..]))
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
