//! Whether a list of paths can be laid out as files, and stays inside itself.

use super::{Entry, Error, Node};

/// Longest path, in bytes; what Linux opens in one go.
pub const PATH_BYTES_MAX: usize = 4_095;

/// Longest name of one file, in bytes; what file systems keep.
const NAME_BYTES_MAX: usize = 255;

/// Longest target of a link, in bytes; what Linux keeps.
pub const TARGET_BYTES_MAX: usize = 4_095;

/// Looks at the entries of a list one after the other.
#[derive(Debug, Default)]
pub struct Check {
    last: String,
    /// Entries before this one whose paths it begins with: what it may lie below.
    above: Vec<(String, bool)>,
}

impl Check {
    /// Takes the next entry, or says what is wrong with it.
    pub fn next(&mut self, entry: &Entry) -> Result<(), Error> {
        let path = entry.path.as_str();
        check_path(path)?;
        if !self.last.is_empty() && path <= self.last.as_str() {
            return Err(Error::Order {
                path: path.to_owned(),
            });
        }
        if let Node::Link { target } = &entry.node {
            check_target(path, target)?;
        }
        // Sorted by bytes, what lies below `a` may come after `a.txt`; but nothing that
        // begins with `a` comes after something behind `a` that does not.
        while self
            .above
            .last()
            .is_some_and(|(above, _)| !path.starts_with(above.as_str()))
        {
            self.above.pop();
        }
        for (above, is_folder) in &self.above {
            if path.as_bytes().get(above.len()) == Some(&b'/') {
                return Err(if *is_folder {
                    Error::NotEmpty {
                        path: above.clone(),
                    }
                } else {
                    Error::Below {
                        path: path.to_owned(),
                        above: above.clone(),
                    }
                });
            }
        }
        self.above
            .push((path.to_owned(), entry.node == Node::Folder));
        path.clone_into(&mut self.last);
        Ok(())
    }
}

/// Refuses what climbs, what is absolute, and what no file system takes.
pub(super) fn check_path(path: &str) -> Result<(), Error> {
    let is_good = |part: &str| {
        !matches!(part, "" | "." | "..") && part.len() <= NAME_BYTES_MAX && !part.contains('\0')
    };
    if path.len() <= PATH_BYTES_MAX && path.split('/').all(is_good) {
        Ok(())
    } else {
        Err(Error::Path {
            path: path.chars().take(PATH_SHOWN_CHARS).collect(),
        })
    }
}

/// Most of a wrong path that is repeated.
const PATH_SHOWN_CHARS: usize = 200;

/// A link may climb first and then go down, and stays inside then whatever other links
/// there are: the folders that it climbs through are none.
fn check_target(path: &str, target: &str) -> Result<(), Error> {
    let outside = || Error::Link {
        path: path.to_owned(),
        target: target.to_owned(),
    };
    let bad = target.is_empty()
        || target.len() > TARGET_BYTES_MAX
        || target.starts_with('/')
        || target.contains('\0');
    if bad {
        return Err(outside());
    }
    let mut depth = path.split('/').count() - 1;
    let mut is_down = false;
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." if is_down => {
                return Err(Error::Wander {
                    path: path.to_owned(),
                    target: target.to_owned(),
                });
            }
            ".." => depth = depth.checked_sub(1).ok_or_else(outside)?,
            _ => is_down = true,
        }
    }
    Ok(())
}
