//! What Git says about a work tree.
//!
//! Three questions are asked at the same time, because starting `git` takes
//! longer than its answers.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use anyhow::{Context as _, Result};
use grid_core::spec::GitState;

use super::{List, not_utf8};
use crate::error::Problem;

/// How deep repositories lie within repositories.  Deeper: nobody's do, but links can make it look so.
const NESTING_MAX: usize = 16;

/// The top of the work tree around a folder.
pub(super) fn find_root(cwd: &Path) -> Option<PathBuf> {
    cwd.ancestors()
        .find(|folder| folder.join(".git").exists())
        .map(Path::to_path_buf)
}

/// What is in the work tree at `root` and not ignored.
pub(super) fn list(root: &Path) -> Result<List> {
    let files = ask(root, LIST)?;
    let status = ask(
        root,
        &[
            "status",
            "--porcelain=v2",
            "--branch",
            "-z",
            "--untracked-files=normal",
        ],
    )?;
    let remote = ask(root, &["config", "--get", "remote.origin.url"])?;

    let mut list = List::default();
    let mut bad = Vec::new();
    add_files(root, "", &answer(root, files)?, 0, &mut list, &mut bad)?;
    if !bad.is_empty() {
        return Err(not_utf8(bad).into());
    }
    let mut state = state(&answer(root, status)?);
    let remote = remote
        .wait_with_output()
        .context("reading the remote of the repository")?;
    // No remote is no failure.
    if remote.status.success() {
        let url = String::from_utf8_lossy(&remote.stdout).trim().to_owned();
        list.project = project(&url);
        state.remote = Some(without_credentials(&url)).filter(|url| !url.is_empty());
    }
    list.git = Some(state);
    Ok(list)
}

const LIST: &[&str] = &["ls-files", "-z", "-c", "-o", "--exclude-standard"];

fn ask(root: &Path, arguments: &[&str]) -> Result<Child> {
    let mut git = Command::new("git");
    git.arg("--no-optional-locks")
        .arg("-C")
        .arg(root)
        .args(arguments);
    // In a hook these point to somewhere else than the folder we are in.
    for variable in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX"] {
        git.env_remove(variable);
    }
    git.stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    git.spawn().map_err(|error| {
        Problem::new(format!(
            "{} is a Git work tree, but `git` cannot be started",
            root.display()
        ))
        .because(error)
        .hint("install Git, or send the folder as it is: --localdir")
        .into()
    })
}

fn answer(root: &Path, child: Child) -> Result<Vec<u8>> {
    let Output {
        status,
        stdout,
        stderr,
    } = child.wait_with_output().context("reading what git says")?;
    if status.success() {
        return Ok(stdout);
    }
    let said = String::from_utf8_lossy(&stderr);
    let said = said
        .lines()
        .find(|line| !line.trim().is_empty())
        .unwrap_or("it did not say why");
    let message = format!(
        "git cannot read the work tree {}: {}",
        root.display(),
        said.trim()
    );
    Err(Problem::new(message)
        .hint("mend that, or send the folder as it is: --localdir")
        .into())
}

/// Adds the files of one repository, which lies at `prefix` below the top.
fn add_files(
    root: &Path,
    prefix: &str,
    names: &[u8],
    depth: usize,
    list: &mut List,
    bad: &mut Vec<String>,
) -> Result<()> {
    for name in names
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
    {
        let name = name.strip_suffix(b"/").unwrap_or(name);
        let Ok(text) = std::str::from_utf8(name) else {
            bad.push(format!("{prefix}{}", String::from_utf8_lossy(name)));
            continue;
        };
        let path = format!("{prefix}{text}");
        let on_disk = root.join(prefix).join(OsStr::from_bytes(name));
        // A folder in this list is a repository of its own: a submodule, or one that just lies there.
        let is_folder = std::fs::symlink_metadata(&on_disk).is_ok_and(|metadata| metadata.is_dir());
        if !is_folder {
            list.paths.push(path);
        } else if on_disk.join(".git").exists() && depth < NESTING_MAX {
            let inner = answer(&on_disk, ask(&on_disk, LIST)?)?;
            add_files(root, &format!("{path}/"), &inner, depth + 1, list, bad)?;
        } else if on_disk
            .read_dir()
            .is_ok_and(|mut entries| entries.next().is_none())
        {
            list.notes.push(format!(
                "the submodule {path} is empty: `git submodule update --init {path}` fetches it"
            ));
        }
    }
    Ok(())
}

/// Commit, branch, and whether anything differs.
fn state(status: &[u8]) -> GitState {
    let mut state = GitState {
        commit: String::new(),
        branch: None,
        dirty: false,
        remote: None,
    };
    for record in status
        .split(|byte| *byte == 0)
        .filter(|record| !record.is_empty())
    {
        let record = String::from_utf8_lossy(record);
        if let Some(commit) = record.strip_prefix("# branch.oid ") {
            commit
                .strip_prefix("(initial")
                .map_or(commit, |_| "")
                .clone_into(&mut state.commit);
        } else if let Some(branch) = record.strip_prefix("# branch.head ") {
            state.branch = (branch != "(detached)").then(|| branch.to_owned());
        } else if !record.starts_with("# ") {
            state.dirty = true;
        }
    }
    state
}

/// A name or a token in a URL is nobody else's business.
pub(crate) fn without_credentials(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let (host, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    match host.rsplit_once('@') {
        // With SSH the user is part of the address.
        Some((user, host)) if scheme != "ssh" || user.contains(':') => {
            format!("{scheme}://{host}{path}")
        }
        _ => url.to_owned(),
    }
}

/// `owner/name` of a repository by its address.
pub(crate) fn project(url: &str) -> Option<String> {
    let path = url.split_once("://").map_or_else(
        || url.split_once(':').map_or(url, |(_, path)| path),
        |(_, rest)| rest.split_once('/').map_or("", |(_, path)| path),
    );
    let path = path.trim_matches('/');
    let path = path.strip_suffix(".git").unwrap_or(path);
    let mut parts = path.rsplit('/').filter(|part| !part.is_empty());
    let name = parts.next()?;
    Some(
        parts
            .next()
            .map_or_else(|| name.to_owned(), |owner| format!("{owner}/{name}")),
    )
}
