//! Making room in the sandbox for what is mounted where the machine has nothing.
//!
//! The root is shown read-only, so no folder can be made in it.  Where one is needed, the
//! folder above is an empty one in memory, in which everything that the machine has there
//! is shown again beside it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::text;

/// Folders in which something has to be made; outer ones come first.
pub(super) fn opened(mounts: &[(PathBuf, PathBuf)]) -> BTreeSet<PathBuf> {
    let above = |(_, to): &(PathBuf, PathBuf)| {
        if to.is_dir() {
            return None;
        }
        let there = to.ancestors().skip(1).find(|path| path.is_dir())?;
        fs::canonicalize(there).ok()
    };
    mounts.iter().filter_map(above).collect()
}

/// The machine's root, with room in these folders.
pub(super) fn with_room(opened: &BTreeSet<PathBuf>) -> Vec<String> {
    let mut words = Vec::new();
    let mut add = |more: &[&str]| words.extend(more.iter().map(|word| (*word).to_owned()));
    let root = Path::new("/");
    if !opened.contains(root) {
        add(&["--ro-bind", "/", "/"]);
    }
    for folder in opened {
        if folder != root {
            add(&["--tmpfs", &text(folder)]);
        }
        let mut inside: Vec<PathBuf> = match fs::read_dir(folder) {
            Ok(entries) => entries.flatten().map(|entry| entry.path()).collect(),
            Err(_) => Vec::new(),
        };
        inside.sort();
        for path in inside {
            let shown = text(&path);
            match fs::read_link(&path) {
                Ok(target) => add(&["--symlink", &text(&target), &shown]),
                Err(_) => add(&["--ro-bind-try", &shown, &shown]),
            }
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_made_only_where_nothing_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let real = fs::canonicalize(folder.path()).expect("there");
        fs::create_dir(real.join("there")).expect("made");
        std::os::unix::fs::symlink("there", real.join("link")).expect("made");
        let to = |path: &str| (PathBuf::from("/from"), real.join(path));
        assert!(opened(&[to("there"), to("link")]).is_empty());
        let made = opened(&[to("a/b/c"), to("there/x")]);
        let expected = [real.clone(), real.join("there")];
        assert_eq!(made.iter().cloned().collect::<Vec<_>>(), expected);
        let words = with_room(&made);
        let at = |wanted: &[&str]| words.windows(wanted.len()).position(|have| have == wanted);
        let there = text(&real.join("there"));
        let shown = at(&["--ro-bind-try", &there, &there]).expect("shown again");
        assert!(at(&["--ro-bind", "/", "/"]).expect("the root") < shown);
        assert!(shown < at(&["--tmpfs", &there]).expect("and made room in"));
        assert!(at(&["--symlink", "there", &text(&real.join("link"))]).is_some());
        let root = opened(&[("/from".into(), "/no-such-folder/x".into())]);
        let words = with_room(&root).join(" ");
        assert!(words.contains("--ro-bind-try /usr /usr"), "{words}");
        assert!(!words.contains("--ro-bind / /"), "{words}");
    }
}
