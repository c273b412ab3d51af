//! Whether a list of paths can be laid out as files, and stays inside itself.

use super::{Entry, Error, Line, What};

/// Longest path, in bytes; what Linux opens in one go.
pub const PATH_BYTES_MAX: usize = 4_095;

/// Longest name of one file, in bytes; what file systems keep.
const NAME_BYTES_MAX: usize = 255;

/// Longest target of a link, in bytes; what Linux keeps.
pub const TARGET_BYTES_MAX: usize = 4_095;

/// Looks at the entries of a list one after the other.
#[derive(Debug, Default)]
pub struct Check {
    /// The path of the last entry.
    last: String,
    /// Entries before it whose paths it begins with, and itself: how long their paths are, and
    /// whether they are folders.  The next one may lie below any of them.
    above: Vec<(usize, bool)>,
}

impl Check {
    /// Takes the next entry, or says what is wrong with it.
    pub fn next(&mut self, entry: &Entry) -> Result<(), Error> {
        self.next_line(entry.line())
    }

    /// The same, of an entry that is kept otherwise.
    pub(super) fn next_line(&mut self, line: Line<'_>) -> Result<(), Error> {
        let path = line.path;
        check_path(path)?;
        self.comes_next(path)?;
        if let What::Link { target } = line.what {
            check_target(path, target)?;
        }
        self.leave(path);
        for (above, is_folder) in self.paths() {
            if path.as_bytes().get(above.len()) == Some(&b'/') {
                let above = above.to_owned();
                return Err(if is_folder {
                    Error::NotEmpty { path: above }
                } else {
                    Error::Below {
                        path: path.to_owned(),
                        above,
                    }
                });
            }
        }
        self.push(path, matches!(line.what, What::Folder));
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

    /// The path of the last entry.
    pub fn last(&self) -> &str {
        &self.last
    }

    /// What is left over, as a text without line for what follows; see [`Check::parse`].
    pub fn text(&self) -> String {
        let kinds = self.paths().map(|(path, is_folder)| {
            let kind = if is_folder { FOLDER } else { OTHER };
            format!("{kind}{path}")
        });
        kinds.collect::<Vec<_>>().join(BETWEEN)
    }

    /// Reads what [`Check::text`] wrote.
    pub fn parse(text: &str) -> Self {
        let mut check = Self::default();
        for part in text.split(BETWEEN).filter(|part| !part.is_empty()) {
            let (path, is_folder) = match part.strip_prefix(FOLDER) {
                Some(path) => (path, true),
                None => (part.strip_prefix(OTHER).unwrap_or(part), false),
            };
            check.leave(path);
            check.push(path, is_folder);
        }
        check
    }

    /// Each begins with the one before.
    fn paths(&self) -> impl Iterator<Item = (&str, bool)> {
        let above = self.above.iter();
        above.filter_map(|(length, is_folder)| Some((self.last.get(..*length)?, *is_folder)))
    }

    fn push(&mut self, path: &str, is_folder: bool) {
        path.clone_into(&mut self.last);
        self.above.push((path.len(), is_folder));
    }

    fn comes_next(&self, path: &str) -> Result<(), Error> {
        if !self.above.is_empty() && path <= self.last.as_str() {
            return Err(Error::Order {
                path: path.to_owned(),
            });
        }
        Ok(())
    }

    /// Sorted by bytes, what lies below `a` may come after `a.txt`; but nothing that begins
    /// with `a` comes after something behind `a` that does not.
    fn leave(&mut self, path: &str) {
        let shared = shared_bytes(&self.last, path);
        while self
            .above
            .last()
            .is_some_and(|(length, _)| *length > shared)
        {
            self.above.pop();
        }
        self.last
            .truncate(self.above.last().map_or(0, |(length, _)| *length));
    }
}

/// How many bytes two paths have in common at their beginning.
pub(super) fn shared_bytes(one: &str, other: &str) -> usize {
    let pairs = one.bytes().zip(other.bytes());
    pairs.take_while(|(one, other)| one == other).count()
}

/// What stands before a path in a text, and between two: no path has it.
const FOLDER: &str = "/";
const OTHER: &str = ".";
const BETWEEN: &str = "//";

/// Refuses what climbs, what is absolute, and what no file system takes.
pub(super) fn check_path(path: &str) -> Result<(), Error> {
    let is_good = |part: &[u8]| !matches!(part, b"" | b"." | b"..") && part.len() <= NAME_BYTES_MAX;
    let bytes = path.as_bytes();
    let is_good = bytes.len() <= PATH_BYTES_MAX
        && !bytes.contains(&0)
        && bytes.split(|byte| *byte == b'/').all(is_good);
    if is_good {
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
