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
    /// The last entry, and those before it whose paths it begins with, with whether they are
    /// folders: what the next one may lie below.
    above: Vec<(String, bool)>,
}

impl Check {
    /// Takes the next entry, or says what is wrong with it.
    pub fn next(&mut self, entry: &Entry) -> Result<(), Error> {
        let path = entry.path.as_str();
        check_path(path)?;
        self.comes_next(path)?;
        if let Node::Link { target } = &entry.node {
            check_target(path, target)?;
        }
        self.leave(path);
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
        Ok(())
    }

    /// Goes on behind entries that were looked at by themselves: they begin with `first`, and
    /// `end` is what was left over of them.  `false` when they have to be looked at one by
    /// one, because some of them may lie below an entry before.
    pub fn join(&mut self, first: &str, end: Self) -> Result<bool, Error> {
        self.comes_next(first)?;
        self.leave(first);
        if !self.above.is_empty() {
            return Ok(false);
        }
        *self = end;
        Ok(true)
    }

    /// What is left over, as a text without line for what follows; see [`Check::parse`].
    pub fn text(&self) -> String {
        let kinds = self.above.iter().map(|(path, is_folder)| {
            let kind = if *is_folder { FOLDER } else { OTHER };
            format!("{kind}{path}")
        });
        kinds.collect::<Vec<_>>().join(BETWEEN)
    }

    /// Reads what [`Check::text`] wrote.
    pub fn parse(text: &str) -> Self {
        let parts = text.split(BETWEEN).filter(|part| !part.is_empty());
        let one = |part: &str| match part.strip_prefix(FOLDER) {
            Some(path) => (path.to_owned(), true),
            None => (part.strip_prefix(OTHER).unwrap_or(part).to_owned(), false),
        };
        Self {
            above: parts.map(one).collect(),
        }
    }

    fn comes_next(&self, path: &str) -> Result<(), Error> {
        match self.above.last() {
            Some((last, _)) if path <= last.as_str() => Err(Error::Order {
                path: path.to_owned(),
            }),
            _ => Ok(()),
        }
    }

    /// Sorted by bytes, what lies below `a` may come after `a.txt`; but nothing that begins
    /// with `a` comes after something behind `a` that does not.
    fn leave(&mut self, path: &str) {
        while self
            .above
            .last()
            .is_some_and(|(above, _)| !path.starts_with(above.as_str()))
        {
            self.above.pop();
        }
    }
}

/// What stands before a path in a text, and between two: no path has it.
const FOLDER: &str = "/";
const OTHER: &str = ".";
const BETWEEN: &str = "//";

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
