//! Looking for new files in the folder of a script.
//!
//! A file is an artifact when nothing was at its path before the script ran.  Not
//! counted are symbolic links (what they point to inside the folder is found by its
//! own path), sockets, pipes and devices, and Python's compiled files.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Most artifacts of one attempt.  Higher: more memory while it runs; lower: large
/// results are cut off.
pub(crate) const FILES_MAX: usize = 1_000_000;

/// What tells that a file was written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Signature {
    pub(crate) size_bytes: u64,
    pub(crate) modified_ns: i128,
    pub(crate) inode: u64,
}

impl Signature {
    pub(crate) fn of(found: &fs::Metadata) -> Self {
        Self {
            size_bytes: found.size(),
            modified_ns: i128::from(found.mtime()) * 1_000_000_000 + i128::from(found.mtime_nsec()),
            inode: found.ino(),
        }
    }

    pub(crate) fn modified_ms(&self) -> i64 {
        i64::try_from(self.modified_ns.div_euclid(1_000_000)).unwrap_or(0)
    }
}

/// A new file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// Where it is, below the folder.
    pub(crate) path: PathBuf,
    pub(crate) signature: Signature,
    pub(crate) mode: u32,
}

/// All new files, and what was in the way of finding them.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    pub(crate) files: Vec<Found>,
    pub(crate) problems: Vec<String>,
}

/// Looks through a folder.
pub(crate) fn scan(work: &Path, before: &HashSet<String>) -> Scan {
    let mut scan = Scan::default();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        if let Err(error) = look(work, &folder, before, &mut folders, &mut scan)
            // A folder may go while one looks.
            && error.kind() != io::ErrorKind::NotFound
        {
            let problem = format!("the folder '{}' cannot be read: {error}", folder.display());
            scan.problems.push(problem);
        }
        if scan.files.len() >= FILES_MAX {
            scan.problems.push(format!(
                "there are more than {FILES_MAX} new files; the rest is not kept"
            ));
            scan.files.truncate(FILES_MAX);
            break;
        }
    }
    scan
}

fn look(
    work: &Path,
    folder: &Path,
    before: &HashSet<String>,
    folders: &mut Vec<PathBuf>,
    scan: &mut Scan,
) -> io::Result<()> {
    let is_python_cache = folder.file_name() == Some(OsStr::new("__pycache__"));
    for entry in fs::read_dir(work.join(folder))? {
        let entry = entry?;
        let kind = entry.file_type()?;
        let path = folder.join(entry.file_name());
        if kind.is_dir() {
            folders.push(path);
            continue;
        }
        let is_compiled = is_python_cache && path.extension() == Some(OsStr::new("pyc"));
        let was_there = path.to_str().is_some_and(|path| before.contains(path));
        if !kind.is_file() || is_compiled || was_there {
            continue;
        }
        // It may be gone again.
        let Ok(found) = entry.metadata() else {
            continue;
        };
        let signature = Signature::of(&found);
        scan.files.push(Found {
            path,
            signature,
            mode: found.mode() & 0o777,
        });
    }
    Ok(())
}

/// The name of a path on the wire, and whether it had to be changed: what is not
/// UTF-8 is escaped as `%XX`, and then `%` itself too.
pub(crate) fn wire_name(path: &Path) -> (String, bool) {
    let bytes = path.as_os_str().as_bytes();
    if let Ok(text) = str::from_utf8(bytes) {
        return (text.to_owned(), false);
    }
    let mut name = String::new();
    for chunk in bytes.utf8_chunks() {
        name.push_str(&chunk.valid().replace('%', "%25"));
        for byte in chunk.invalid() {
            name.push_str(&format!("%{byte:02X}"));
        }
    }
    (name, true)
}

/// What is known of the files of an attempt.
#[derive(Debug, Default)]
pub(crate) struct Known {
    files: HashMap<PathBuf, State>,
    /// Problems that were told, so that each is told once.
    told: HashSet<String>,
}

#[derive(Debug, Clone, Copy)]
struct State {
    signature: Signature,
    is_listed: bool,
    /// Whether it was there at the last look.
    is_there: bool,
}

/// What a look comes to.
#[derive(Debug, Default)]
pub(crate) struct News {
    /// New or changed, and at rest.
    pub(crate) ready: Vec<Found>,
    /// Listed, and gone again.
    pub(crate) gone: Vec<PathBuf>,
    pub(crate) problems: Vec<String>,
    /// Whether anything changed since the last look.
    pub(crate) is_changed: bool,
}

impl Known {
    /// Compares what is there with what was; while the script runs, only files that
    /// are as they were at the last look are at rest.
    pub(crate) fn compare(&mut self, scan: Scan, is_final: bool) -> News {
        let mut news = News::default();
        let is_whole = scan.problems.is_empty();
        for state in self.files.values_mut() {
            state.is_there = false;
        }
        for found in scan.files {
            let state = self.files.get_mut(&found.path);
            let is_same = state
                .as_ref()
                .is_some_and(|state| state.signature == found.signature);
            news.is_changed |= !is_same;
            let is_listed = is_same && state.as_ref().is_some_and(|state| state.is_listed);
            match state {
                Some(state) => {
                    // A changed file stays listed as it was until it is stored anew.
                    *state = State {
                        signature: found.signature,
                        is_listed: state.is_listed,
                        is_there: true,
                    };
                    if !is_same {
                        state.is_listed = false;
                    }
                }
                None => {
                    let state = State {
                        signature: found.signature,
                        is_listed: false,
                        is_there: true,
                    };
                    self.files.insert(found.path.clone(), state);
                }
            }
            if !is_listed && (is_same || is_final) {
                news.ready.push(found);
            }
        }
        if is_whole {
            self.files.retain(|path, state| {
                if !state.is_there {
                    news.gone.push(path.clone());
                }
                state.is_there
            });
        }
        news.is_changed |= !news.gone.is_empty();
        news.problems = scan
            .problems
            .into_iter()
            .filter(|problem| self.told.insert(problem.clone()))
            .collect();
        news
    }

    /// A file is stored and listed as it was then.
    pub(crate) fn listed(&mut self, path: &Path, signature: Signature) {
        let state = State {
            signature,
            is_listed: true,
            is_there: true,
        };
        self.files.insert(path.to_owned(), state);
    }

    /// Whether something is said for the first time.
    pub(crate) fn tell_once(&mut self, what: &str) -> bool {
        self.told.insert(what.to_owned())
    }

    pub(crate) fn len(&self) -> usize {
        self.files.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_no_text_are_escaped() {
        for (bytes, name) in [
            (&b"a b/%.txt"[..], "a b/%.txt"),
            ("ü".as_bytes(), "ü"),
            (b"100%\xff", "100%25%FF"),
            (b"\xc3", "%C3"),
        ] {
            assert_eq!(wire_name(Path::new(OsStr::from_bytes(bytes))).0, name);
        }
    }

    #[test]
    fn only_new_regular_files_count() {
        let work = tempfile::tempdir().expect("a folder");
        let write = |path: &str, text: &str| {
            let path = work.path().join(path);
            fs::create_dir_all(path.parent().expect("below")).expect("made");
            fs::write(path, text).expect("written");
        };
        write("train.py", "changed");
        write("out/a.txt", "1");
        write("__pycache__/x.pyc", "1");
        write("__pycache__/kept.txt", "1");
        write("model.pyc", "1");
        std::os::unix::fs::symlink("out/a.txt", work.path().join("link")).expect("made");
        let before = HashSet::from(["train.py".to_owned()]);
        let mut names: Vec<String> = scan(work.path(), &before)
            .files
            .iter()
            .map(|found| found.path.display().to_string())
            .collect();
        names.sort();
        assert_eq!(names, ["__pycache__/kept.txt", "model.pyc", "out/a.txt"]);
    }

    fn found(path: &str, size_bytes: u64) -> Found {
        Found {
            path: path.into(),
            signature: Signature {
                size_bytes,
                modified_ns: 0,
                inode: 1,
            },
            mode: 0o644,
        }
    }

    fn look(known: &mut Known, files: &[Found], is_final: bool) -> (Vec<String>, Vec<String>) {
        let news = known.compare(
            Scan {
                files: files.to_vec(),
                problems: vec![],
            },
            is_final,
        );
        let names = |paths: Vec<PathBuf>| {
            paths
                .iter()
                .map(|path| path.display().to_string())
                .collect()
        };
        (
            names(news.ready.into_iter().map(|found| found.path).collect()),
            names(news.gone),
        )
    }

    #[test]
    fn files_at_rest_are_stored_and_changed_ones_again() {
        let mut known = Known::default();
        let none: Vec<String> = vec![];
        assert_eq!(
            look(&mut known, &[found("a", 1)], false),
            (none.clone(), none.clone()),
            "it may be half written"
        );
        assert_eq!(look(&mut known, &[found("a", 1)], false).0, ["a"]);
        known.listed(Path::new("a"), found("a", 1).signature);
        assert_eq!(look(&mut known, &[found("a", 1)], true).0, none);
        assert_eq!(look(&mut known, &[found("a", 2)], false).0, none);
        assert_eq!(
            look(&mut known, &[found("a", 2), found("b", 1)], true).0,
            ["a", "b"]
        );
        known.listed(Path::new("a"), found("a", 2).signature);
        assert_eq!(
            look(&mut known, &[found("b", 1)], true),
            (vec!["b".to_owned()], vec!["a".to_owned()])
        );
    }
}
