//! What a dependency file depends on itself: other files, and the code beside it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

/// Most files that may refer to each other.  Higher: a mad set of files is read to
/// its end; lower: a large honest one is refused.
const FILES_MAX: usize = 1_000;

/// Largest dependency file, in bytes.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// All that decides what is installed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Requirements {
    /// The files by their path in the code, with their content.
    pub(super) files: BTreeMap<String, Vec<u8>>,
    /// Whether something of the code itself is installed (`-e .`), so that another
    /// code is another environment.
    pub(super) is_local: bool,
    /// Variables that the files name (`${TOKEN}`).
    pub(super) variables: Vec<String>,
}

/// Why the requirements are not known.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("there is no file '{0}' in the code")]
    Missing(String),
    #[error("'{file}' names the file '{named}', which is not in the code")]
    MissingNested { file: String, named: String },
    #[error("'{0}' is outside of the code")]
    Outside(String),
    #[error("the requirements consist of more than {FILES_MAX} files")]
    TooMany,
    #[error("'{0}' is larger than {max} MiB", max = FILE_BYTES_MAX >> 20)]
    TooLarge(String),
    #[error("'{file}' cannot be read: {source}")]
    Read { file: String, source: io::Error },
}

/// Reads a file below `top`, and for pip's files all that they include.
pub(super) fn read(top: &Path, file: &str, is_pip: bool) -> Result<Requirements, Error> {
    let mut requirements = Requirements::default();
    let mut left = vec![(normal(Path::new(file))?, None)];
    while let Some((path, named_by)) = left.pop() {
        if requirements.files.contains_key(&path) {
            continue;
        }
        if requirements.files.len() >= FILES_MAX {
            return Err(Error::TooMany);
        }
        let bytes = content(top, &path, named_by)?;
        if is_pip {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let folder = Path::new(&path)
                .parent()
                .map(Path::to_owned)
                .unwrap_or_default();
            for line in lines(&text) {
                take(&line, &folder, &path, &mut requirements, &mut left)?;
            }
        }
        requirements.files.insert(path, bytes);
    }
    requirements.variables.sort_unstable();
    requirements.variables.dedup();
    Ok(requirements)
}

fn content(top: &Path, path: &str, named_by: Option<String>) -> Result<Vec<u8>, Error> {
    let full = top.join(path);
    let found = fs::metadata(&full);
    if found
        .as_ref()
        .is_ok_and(|found| found.len() > FILE_BYTES_MAX)
    {
        return Err(Error::TooLarge(path.to_owned()));
    }
    fs::read(&full).map_err(|source| match (source.kind(), named_by) {
        (io::ErrorKind::NotFound, Some(file)) => Error::MissingNested {
            file,
            named: path.to_owned(),
        },
        (io::ErrorKind::NotFound, None) => Error::Missing(path.to_owned()),
        _ => Error::Read {
            file: path.to_owned(),
            source,
        },
    })
}

/// Lines without comments, continued ones joined.
fn lines(text: &str) -> Vec<String> {
    let mut all = Vec::new();
    let mut line = String::new();
    for part in text.lines() {
        match part.strip_suffix('\\') {
            Some(part) => line.push_str(part),
            None => {
                line.push_str(part);
                let whole = std::mem::take(&mut line);
                // A `#` begins a comment at the beginning or after a blank.
                let end = whole.find(" #").unwrap_or(whole.len());
                let kept = whole.get(..end).unwrap_or_default().trim();
                if !kept.is_empty() && !kept.starts_with('#') {
                    all.push(kept.to_owned());
                }
            }
        }
    }
    all
}

fn take(
    line: &str,
    folder: &Path,
    file: &str,
    requirements: &mut Requirements,
    left: &mut Vec<(String, Option<String>)>,
) -> Result<(), Error> {
    let names = line
        .split("${")
        .skip(1)
        .filter_map(|rest| rest.split_once('}'));
    requirements
        .variables
        .extend(names.map(|(name, _)| name.to_owned()));
    for option in ["-r", "--requirement", "-c", "--constraint"] {
        let Some(rest) = line.strip_prefix(option) else {
            continue;
        };
        let named = rest
            .trim_start_matches(['=', ' ', '\t'])
            .trim_matches(['"', '\'']);
        // `-r` only: `-requests` is no option, and a blank or `=` must follow a long one.
        if named.is_empty() || (option.len() > 2 && !rest.starts_with(['=', ' ', '\t'])) {
            continue;
        }
        if !named.contains("://") {
            left.push((normal(&folder.join(named))?, Some(file.to_owned())));
        }
        return Ok(());
    }
    let is_editable = line.starts_with("-e") || line.starts_with("--editable");
    let is_path = line.starts_with(['.', '/']) || line.contains("@ .") || line.contains("file:");
    requirements.is_local |= is_path || (is_editable && !line.contains("://"));
    let is_option = line.starts_with('-');
    requirements.is_local |= !is_option
        && Path::new(line)
            .extension()
            .is_some_and(|kind| kind == "whl")
        && !line.contains("://");
    Ok(())
}

/// A path without `.` and `..`, below the top of the code.
fn normal(path: &Path) -> Result<String, Error> {
    let mut parts = PathBuf::new();
    for part in path.components() {
        let is_good = match part {
            Component::Normal(part) => {
                parts.push(part);
                true
            }
            Component::CurDir => true,
            Component::ParentDir => parts.pop(),
            Component::RootDir | Component::Prefix(_) => false,
        };
        if !is_good {
            return Err(Error::Outside(path.display().to_string()));
        }
    }
    Ok(parts.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(files: &[(&str, &str)]) -> Result<Requirements, Error> {
        let top = tempfile::tempdir().expect("a folder");
        for (path, text) in files {
            let path = top.path().join(path);
            fs::create_dir_all(path.parent().expect("below")).expect("made");
            fs::write(path, text).expect("written");
        }
        read(top.path(), files[0].0, true)
    }

    #[test]
    fn nested_files_are_found() {
        let found = check(&[
            ("a/requirements.txt", "numpy # fast\n-r ./base.txt\n--constraint=../pins.txt\n-r https://x/y.txt\n"),
            ("a/base.txt", "-r requirements.txt\ntorch==2.0 \\\n  --hash=sha256:0\nhttps://${TOKEN}@host/x.whl\n"),
            ("pins.txt", "numpy<3\n"),
        ])
        .expect("they read");
        let names: Vec<&String> = found.files.keys().collect();
        assert_eq!(names, ["a/base.txt", "a/requirements.txt", "pins.txt"]);
        assert_eq!(found.variables, ["TOKEN"]);
        assert!(!found.is_local);
    }

    #[test]
    fn what_is_of_the_code_itself_is_known() {
        for (line, is_local) in [
            ("-e .", true),
            ("--editable ./pkg", true),
            (".", true),
            ("./wheels/x.whl", true),
            ("x.whl", true),
            ("pkg @ file:///x", true),
            ("-e git+https://x/y#egg=z", false),
            ("requests", false),
            ("--index-url https://x/simple", false),
        ] {
            assert_eq!(
                check(&[("r.txt", line)]).expect("reads").is_local,
                is_local,
                "{line}"
            );
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        for (files, message) in [
            (
                vec![("r.txt", "-r base.txt")],
                "'r.txt' names the file 'base.txt', which is not in the code",
            ),
            (
                vec![("r.txt", "-r ../../x")],
                "'../../x' is outside of the code",
            ),
        ] {
            assert_eq!(check(&files).expect_err("refused").to_string(), message);
        }
        let none = read(Path::new("/nowhere"), "r.txt", true);
        assert_eq!(
            none.expect_err("refused").to_string(),
            "there is no file 'r.txt' in the code"
        );
    }
}
