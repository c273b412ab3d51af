//! Fetching a version, or a part of it, to this machine.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use clap::Args;
use grid_api::artifact::ArtifactView;
use grid_api::client::{Client, segment};
use grid_api::datastore::{DatastoreResponse, DatastoreView, FileEntry, FileKind, FilesQuery};
use grid_core::duration::format_size;
use rustix::fs::AtFlags;
use rustix::io::Errno;
use serde::Serialize;

use super::before::Before;
use super::change::{called, found_by};
use super::files::List;
use super::{files, small};
use crate::commands::artifacts::download::{self, Bundle, FileStatus};
use crate::commands::artifacts::place::Place;
use crate::context::Ctx;
use crate::error::{EXIT_FAILED, Problem, Report};
use crate::progress::Progress;

/// Entries of a version that are fetched together.  Higher: more memory, some 600 bytes each;
/// lower: the bar begins anew more often.
const ENTRIES_AT_ONCE: usize = 200_000;

/// Fetch a version, or a part of it; what is there already is not fetched again
#[derive(Debug, Args)]
pub(super) struct DownloadArgs {
    /// NAME, NAME:VERSION, USER:NAME:VERSION or an id
    datastore: String,

    /// A folder of it, or a file [default: all]
    path: Option<String>,

    /// Folder to put it in [default: ./NAME]
    #[arg(long, value_name = "DIR", alias = "download_dir")]
    to: Option<PathBuf>,
}

/// What became of one file, for programs.
#[derive(Serialize)]
struct Done {
    path: String,
    file: String,
    size_bytes: u64,
    blake3: String,
    status: FileStatus,
}

/// Fetches files, links and empty folders.
pub(super) fn run(args: &DownloadArgs, ctx: &Ctx) -> Result<ExitCode> {
    let route = super::path(&args.datastore)?;
    let path = args.path.as_deref().map(files::inside).transpose()?;
    let client = ctx.client()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("starting the runtime")?;
    runtime.block_on(async {
        let DatastoreResponse { datastore } = client.get(&route, &()).await?;
        // Whatever is made meanwhile, all files are of one version.
        let route = format!("/datastores/{}", segment(&datastore.id));
        let query = FilesQuery {
            path: path.clone(),
            recursive: Some(true),
            ..FilesQuery::default()
        };
        let mut pages = files::Pages::new(&client, format!("{route}/files"), query);
        let to = args.to.clone();
        let to = to.unwrap_or_else(|| PathBuf::from(&datastore.name));
        let before = tokio::task::block_in_place(|| Before::look(&to, path.as_deref()));
        let fetching = Fetching {
            ctx,
            client: &client,
            datastore: &datastore,
            place: Arc::new(Place::open(&to)?),
            to: &to,
        };
        let (mut told, mut entries) = (Told::begin(&datastore, before)?, Vec::new());
        let mut last = None;
        while let Some(page) = pages.next().await? {
            told.comes(&page, path.as_deref());
            require_unique(last.as_deref(), &page)?;
            last = page.last().map(|entry| entry.path.clone());
            entries.extend(page);
            if entries.len() >= ENTRIES_AT_ONCE {
                let outcome = fetching.fetch(std::mem::take(&mut entries)).await?;
                told.add(ctx, outcome)?;
            }
        }
        told.add(ctx, fetching.fetch(entries).await?)?;
        told.end(ctx, &args.datastore, &datastore, &to)
    })
}

/// A version that is being fetched.
struct Fetching<'a> {
    ctx: &'a Ctx,
    client: &'a Client,
    datastore: &'a DatastoreView,
    place: Arc<Place>,
    to: &'a Path,
}

impl Fetching<'_> {
    /// Fetches a part of it.
    async fn fetch(&self, entries: Vec<FileEntry>) -> Result<download::Outcome> {
        let (wanted, others): (Vec<FileEntry>, Vec<FileEntry>) = entries
            .into_iter()
            .partition(|entry| matches!(entry.kind, FileKind::File | FileKind::Elsewhere));
        // What lies elsewhere comes file by file: nobody knows its hashes.
        let (few, many): (Vec<FileEntry>, Vec<FileEntry>) = wanted.into_iter().partition(|entry| {
            entry.size_bytes > small::SMALL_BYTES_MAX || entry.kind == FileKind::Elsewhere
        });
        let artifacts = |entries: Vec<FileEntry>| entries.into_iter().map(artifact).collect();
        let (few, many): (Vec<ArtifactView>, Vec<ArtifactView>) = (artifacts(few), artifacts(many));
        let small = small(self.ctx, self.client, self.datastore, &self.place, many).await?;
        let bundle = Bundle {
            name: called(self.datastore),
            route: format!("/datastores/{}/files", segment(&self.datastore.id)),
            folder: PathBuf::new(),
            files: few,
        };
        let mut outcome = download::all(self.ctx, self.client, self.to, vec![bundle]).await?;
        for (file, target, status) in small {
            if status != FileStatus::Unchanged {
                outcome.bytes += file.size_bytes;
            }
            outcome.files.push(download::FileDone {
                experiment: String::new(),
                path: file.path,
                file: target.display().to_string(),
                size_bytes: file.size_bytes,
                blake3: file.blake3,
                status,
            });
        }
        outcome.files.sort_by(|a, b| a.path.cmp(&b.path));
        for entry in &others {
            lay(&self.place, entry)?;
        }
        Ok(outcome)
    }
}

/// What was fetched and what was not.
struct Told {
    files: u64,
    unchanged: u64,
    replaced: u64,
    failed: u64,
    bytes: u64,
    /// The link that was asked for, and where it points.
    link: Option<(String, String)>,
    /// What lay there, but for what was fetched so far.
    before: Before,
    /// For programs alone, who get all of it, as it comes.
    list: List,
}

impl Told {
    fn begin(datastore: &DatastoreView, before: Before) -> Result<Self> {
        Ok(Self {
            files: 0,
            unchanged: 0,
            replaced: 0,
            failed: 0,
            bytes: 0,
            link: None,
            before,
            list: List::behind("datastore", datastore, "files")?,
        })
    }

    /// These are of the version.  Who asked for a link by its name wants to know what it is.
    fn comes(&mut self, page: &[FileEntry], path: Option<&str>) {
        page.iter().for_each(|entry| self.before.is_of(&entry.path));
        if let [entry] = page
            && entry.kind == FileKind::Link
            && path == Some(entry.path.as_str())
        {
            self.link = Some((entry.path.clone(), entry.content.clone()));
        }
    }

    fn add(&mut self, ctx: &Ctx, outcome: download::Outcome) -> Result<()> {
        for (path, error) in &outcome.failed {
            let mut report = Report::of(error);
            report.message = format!("{path}: {}", report.message);
            ctx.printer.error(&report);
        }
        self.unchanged += outcome.count(FileStatus::Unchanged);
        self.replaced += outcome.count(FileStatus::Replaced);
        self.files += outcome.files.len() as u64;
        self.failed += outcome.failed.len() as u64;
        self.bytes += outcome.bytes;
        if ctx.printer.is_json() {
            let done: Vec<Done> = outcome.files.into_iter().map(done).collect();
            self.list.add(ctx, &done)?;
        }
        Ok(())
    }

    fn end(self, ctx: &Ctx, word: &str, datastore: &DatastoreView, to: &Path) -> Result<ExitCode> {
        if let Some((path, target)) = &self.link {
            let version = found_by(word, datastore);
            let how = leads_to(path, target).map_or_else(String::new, |inside| {
                format!(": `grid datastore download {version} {inside}` fetches what it leads to")
            });
            ctx.printer.note(&format!(
                "{path} is a link to {target} and was made as one, without that{how}"
            ));
        }
        if ctx.printer.is_json() {
            self.list.end(ctx)?;
        } else {
            ctx.printer.line(&format!(
                "{} file(s) of {}, {} downloaded to {}; {} unchanged{}",
                self.files,
                called(datastore),
                format_size(self.bytes),
                to.display(),
                self.unchanged,
                download::replaced(self.replaced),
            ))?;
        }
        match self.before.others() {
            0 => {}
            others => ctx.printer.warn(&format!(
                "{others} file(s) that lay in {} before are not of {}; they are still there",
                to.display(),
                called(datastore)
            )),
        }
        Ok(match self.failed {
            0 => ExitCode::SUCCESS,
            _ => ExitCode::from(EXIT_FAILED),
        })
    }
}

/// Fetches the small files; Ctrl-C leaves whole ones only.
async fn small(
    ctx: &Ctx,
    client: &Client,
    datastore: &DatastoreView,
    place: &Arc<Place>,
    files: Vec<ArtifactView>,
) -> Result<Vec<small::Fetched>> {
    let bytes = files.iter().map(|file| file.size_bytes).sum();
    let progress = Progress::new(&ctx.printer, &called(datastore), bytes);
    let route = format!("/datastores/{}", segment(&datastore.id));
    let fetched = tokio::select! {
        fetched = small::all(client, &route, place, files, &progress) => fetched,
        _ = tokio::signal::ctrl_c() => {
            Err(Problem::new("interrupted: what was fetched so far is there, whole and checked")
                .hint("the same command goes on where this one stopped")
                .into())
        }
    };
    progress.finish();
    fetched
}

/// The path in a version that a link leads to by its text, if it stays inside.
fn leads_to(link: &str, target: &str) -> Option<String> {
    let (folder, _) = link.rsplit_once('/').unwrap_or_default();
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    if target.starts_with('/') {
        return None;
    }
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}

fn done(file: download::FileDone) -> Done {
    Done {
        path: file.path,
        file: file.file,
        size_bytes: file.size_bytes,
        blake3: file.blake3,
        status: file.status,
    }
}

fn artifact(entry: FileEntry) -> ArtifactView {
    ArtifactView {
        path: entry.path,
        size_bytes: entry.size_bytes,
        blake3: match entry.kind {
            FileKind::Elsewhere => String::new(),
            _ => entry.content,
        },
        mode: entry.mode,
        modified_ms: entry.modified_ms,
    }
}

/// On file systems where case does not count, two files may have one name.  Here that
/// would be the same path twice, which the server never says.
fn require_unique(last: Option<&str>, entries: &[FileEntry]) -> Result<(), Problem> {
    let is_sorted = entries.windows(2).all(|pair| pair[0].path < pair[1].path);
    let follows = entries.first().map(|entry| entry.path.as_str()) > last;
    if is_sorted && (follows || entries.is_empty()) {
        return Ok(());
    }
    Err(Problem::new("the server's list of files is not in order")
        .hint("fetch it again; if that does not help, tell the operator of the server"))
}

/// Makes a link, or an empty folder, with the mode and the time that it had.
fn lay(place: &Place, entry: &FileEntry) -> Result<()> {
    let target = place.of(Path::new(""), &entry.path)?;
    let writing = || format!("making {}", target.display());
    match entry.kind {
        FileKind::Link => {
            if !fs::read_link(&target).is_ok_and(|there| there == Path::new(&entry.content)) {
                symlink(&entry.content, &target).with_context(writing)?;
            }
        }
        FileKind::Folder => {
            fs::create_dir_all(&target).with_context(writing)?;
            if fs::symlink_metadata(&target).is_ok_and(|found| found.is_dir()) {
                // Whoever fetched it can look into it and remove it.
                let mode = Permissions::from_mode((entry.mode & 0o777) | 0o700);
                fs::set_permissions(&target, mode).with_context(writing)?;
            }
        }
        FileKind::File | FileKind::Elsewhere => return Ok(()),
    }
    set_time(&target, entry.modified_ms).with_context(writing)
}

/// Sets the modification time of what has this name, were it a link.
fn set_time(path: &Path, modified_ms: i64) -> std::io::Result<()> {
    let times = download::times(modified_ms);
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    match rustix::fs::utimensat(rustix::fs::CWD, path, &times, flags) {
        // A file system that keeps no time of links.
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
        done => Ok(done?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_where_a_link_leads() {
        for (link, target, expected) in [
            ("link", "sub", Some("sub")),
            ("a/b/link", "../c/./d", Some("a/c/d")),
            ("a/link", "..", None),
            ("link", "../x", None),
            ("link", "/etc", None),
        ] {
            assert_eq!(
                leads_to(link, target).as_deref(),
                expected,
                "{link} {target}"
            );
        }
    }
}
