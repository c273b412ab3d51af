//! What is below a version, in the order of the bytes of the keys.
//!
//! A list is in the order of paths, in which the folder `a` comes before the file `a-b`.  As
//! an object that folder is `a/`, which comes behind it.  So a folder is put back until all
//! that comes before its key was given; and who begins in the middle looks for folders whose
//! path is behind them and whose key is not.

use std::collections::VecDeque;

use grid_core::id::DatastoreVersionId;
use grid_manifest::{Entry, Node};
use grid_store::db::staged;

use super::Result;
use super::find::{Found, of_entry, of_staged};
use crate::Engine;
use crate::datastore::{List, link};

/// Staged files that are read at a time.  Higher: a page that is full soon reads more than it
/// shows; lower: more questions.
const STEP: u32 = 256;

/// Where lines come from.
pub(super) enum Source {
    /// The list of a version that is finished.
    Listed(DatastoreVersionId, List),
    /// What came so far of one that is being made.
    Staged(Engine, DatastoreVersionId, Read),
}

/// What was read of the files that are staged.
#[derive(Default)]
pub(super) struct Read {
    lines: VecDeque<staged::File>,
    /// Whether nothing is behind those.
    is_end: bool,
    questions: usize,
}

/// A line as it was read.
enum Line {
    Listed(Entry),
    Staged(staged::File),
}

/// The lines of a version from some key on.
pub(super) struct Lines {
    source: Source,
    /// No path before this one any more.
    cursor: String,
    /// Folders whose paths are behind us and whose keys are not: the next one last.
    folders: Vec<Line>,
}

impl Line {
    fn path(&self) -> &str {
        match self {
            Self::Listed(entry) => &entry.path,
            Self::Staged(file) => &file.path,
        }
    }

    fn is_folder(&self) -> bool {
        match self {
            Self::Listed(entry) => entry.node == Node::Folder,
            Self::Staged(file) => file.is_folder,
        }
    }
}

impl Lines {
    /// The lines whose keys, below the version, are not before `from`.
    pub(super) async fn new(source: Source, from: &str) -> Result<Self> {
        let mut lines = Self {
            source,
            cursor: from.to_owned(),
            folders: Vec::new(),
        };
        for (at, byte) in from.bytes().enumerate().skip(1) {
            let is_ahead = byte < b'/' || (byte == b'/' && at + 1 == from.len());
            let Some(folder) = from.get(..at).filter(|_| is_ahead) else {
                continue;
            };
            let line = lines.at(folder).await?;
            lines.folders.extend(line.filter(Line::is_folder));
        }
        Ok(lines)
    }

    /// How many questions it took so far.
    pub(super) fn questions(&self) -> usize {
        match &self.source {
            Source::Listed(_, list) => list.fetched,
            Source::Staged(_, _, read) => read.questions,
        }
    }

    /// The next line as an object below `dir`, if its key, below the version, is not before
    /// `from`.  Links that are none are left out.
    pub(super) async fn next(&mut self, dir: &str, from: &str) -> Result<Option<Found>> {
        if self.cursor.as_str() < from {
            from.clone_into(&mut self.cursor);
        }
        loop {
            let line = self.seek().await?;
            let is_folder_next = match (&line, self.folders.last()) {
                (_, None) => false,
                (None, Some(_)) => true,
                (Some(line), Some(folder)) => is_before(folder.path(), line.path()),
            };
            if is_folder_next {
                let folder = self.folders.pop().map(|folder| self.found(dir, folder));
                return Ok(folder.flatten());
            }
            let Some(line) = line else { return Ok(None) };
            self.cursor = format!("{}\0", line.path());
            if line.is_folder() {
                self.folders.push(line);
                continue;
            }
            if let Some(found) = self.followed(dir, line).await? {
                return Ok(Some(found));
            }
        }
    }

    /// A line that is no folder as an object.
    async fn followed(&mut self, dir: &str, line: Line) -> Result<Option<Found>> {
        if let (Line::Listed(entry), Source::Listed(version, list)) = (&line, &mut self.source)
            && let Node::Link { .. } = entry.node
        {
            let key = format!("{dir}{}", entry.path);
            let target = link::follow(list, &entry.path).await?.file();
            return Ok(target.and_then(|target| of_entry(key, &target, *version)));
        }
        Ok(self.found(dir, line))
    }

    fn found(&self, dir: &str, line: Line) -> Option<Found> {
        let end = if line.is_folder() { "/" } else { "" };
        let key = format!("{dir}{}{end}", line.path());
        match (line, &self.source) {
            (Line::Staged(file), _) => Some(of_staged(key, file)),
            (Line::Listed(entry), Source::Listed(version, _)) => of_entry(key, &entry, *version),
            (Line::Listed(_), Source::Staged(..)) => None,
        }
    }

    /// The line of a path.
    async fn at(&mut self, path: &str) -> Result<Option<Line>> {
        match &mut self.source {
            Source::Listed(_, list) => Ok(list.get(path).await?.map(Line::Listed)),
            Source::Staged(engine, version, read) => {
                read.questions += 1;
                let mut tx = engine.inner.db.read().await?;
                let file = staged::file(&mut tx, *version, path).await?;
                Ok(file.map(Line::Staged))
            }
        }
    }

    /// The first line that is not before the cursor.
    async fn seek(&mut self) -> Result<Option<Line>> {
        let cursor = self.cursor.as_str();
        match &mut self.source {
            Source::Listed(_, list) => Ok(list.seek(cursor, false).await?.map(Line::Listed)),
            Source::Staged(engine, version, read) => {
                let file = read.seek(engine, *version, cursor).await?;
                Ok(file.map(Line::Staged))
            }
        }
    }
}

/// Whether the key of a folder is before a path.
fn is_before(folder: &str, path: &str) -> bool {
    match path.strip_prefix(folder) {
        Some(rest) => rest.as_bytes().first().is_some_and(|byte| *byte >= b'/'),
        None => folder < path,
    }
}

impl Read {
    async fn seek(
        &mut self,
        engine: &Engine,
        version: DatastoreVersionId,
        cursor: &str,
    ) -> Result<Option<staged::File>> {
        while self
            .lines
            .front()
            .is_some_and(|line| line.path.as_str() < cursor)
        {
            self.lines.pop_front();
        }
        if self.lines.is_empty() && !self.is_end {
            self.questions += 1;
            let mut tx = engine.inner.db.read().await?;
            // Databases take no zero byte, which stands for what is directly behind.
            let after = match cursor.strip_suffix('\0') {
                Some(after) => after,
                None => {
                    self.lines
                        .extend(staged::file(&mut tx, version, cursor).await?);
                    cursor
                }
            };
            let after = Some(after).filter(|after| !after.is_empty());
            let page = staged::files(&mut tx, version, "", after, STEP).await?;
            self.is_end = page.next.is_none();
            self.lines.extend(page.items);
        }
        Ok(self.lines.front().cloned())
    }
}

#[cfg(test)]
mod tests {
    use super::is_before;

    #[test]
    fn a_folder_is_before_what_its_key_is_before() {
        for (folder, path, expected) in [
            ("a", "a-b", false),
            ("a", "a.txt", false),
            ("a", "a0", true),
            ("a", "b", true),
            ("b", "a", false),
            ("a-b", "a-b-c", false),
            ("a-b", "a-c", true),
        ] {
            assert_eq!(is_before(folder, path), expected, "{folder}/ {path}");
            assert_eq!(format!("{folder}/").as_str() < path, expected);
        }
    }
}
