//! Fetching files: several at once, each checked against its hash.
//!
//! A file is written under another name and gets its own when it is whole and
//! right, so that Ctrl-C at any moment leaves whole files and beginnings only.
//! A beginning is named after the content it belongs to, and is gone on with.
//!
//! What is there already is read and checked against its hash.  Where nobody knows the hash,
//! length and time have to do: such a file is on the disk before it gets its name, and its
//! beginning is gone on with only until this machine is restarted.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use futures::StreamExt as _;
use grid_api::artifact::ArtifactView;
use grid_api::client::{Client, segments};
use grid_api::upload::machine;
use grid_chunk::sparse::{self, Frames, Part};
use grid_chunk::{Holes, Whole, hash_file};
use reqwest::StatusCode;
use rustix::fs::{OFlags, Timespec, Timestamps};
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};

use super::place::{self, Place};
use crate::context::Ctx;
use crate::error::Problem;
use crate::progress::Progress;

/// Files that are fetched at the same time.  Higher: more open connections for
/// little; lower: many small files take as many round trips one after another.
const FILES_AT_ONCE: usize = 16;

/// How often a file is tried whose connection breaks.  Higher: a server that is gone is noticed late.
const TRIES_MAX: u32 = 5;

/// The pause before the first repetition; each further one is twice as long.
const PAUSE: Duration = Duration::from_millis(200);

/// Files of one thing, and where they go.
pub(crate) struct Bundle {
    /// What the thing is called.
    pub(crate) name: String,
    /// Where its files are on the server: the route before their paths.
    pub(crate) route: String,
    /// Below the download folder.
    pub(crate) folder: PathBuf,
    pub(crate) files: Vec<ArtifactView>,
}

/// What became of all files.
pub(crate) struct Outcome {
    pub(crate) files: Vec<FileDone>,
    pub(crate) bytes: u64,
    pub(crate) failed: Vec<(String, anyhow::Error)>,
}

/// What became of one file.
#[derive(Debug, Serialize)]
pub(crate) struct FileDone {
    pub(crate) experiment: String,
    pub(crate) path: String,
    pub(crate) file: String,
    pub(crate) size_bytes: u64,
    pub(crate) blake3: String,
    pub(crate) status: FileStatus,
}

/// How it came to be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FileStatus {
    /// It was fetched.
    Downloaded,
    /// It was fetched, and took the place of something else.
    Replaced,
    /// It was there.
    Unchanged,
}

impl FileStatus {
    /// That of a file that is fetched to `target`, before it is there.
    pub(crate) fn of_fetched(target: &Path) -> Self {
        match fs::symlink_metadata(target) {
            Ok(_) => Self::Replaced,
            Err(_) => Self::Downloaded,
        }
    }
}

/// How many files took the place of something else, where that is worth a word.
pub(crate) fn replaced(count: u64) -> String {
    match count {
        0 => String::new(),
        count => format!(", {count} replaced"),
    }
}

/// Fetches all files; one that fails keeps no other from it.
pub(crate) async fn all(
    ctx: &Ctx,
    client: &Client,
    root: &Path,
    bundles: Vec<Bundle>,
) -> Result<Outcome> {
    let total = bundles
        .iter()
        .flat_map(|bundle| &bundle.files)
        .map(|artifact| artifact.size_bytes)
        .sum();
    let progress = Progress::new(&ctx.printer, "download", total);
    // From here on Ctrl-C is heard, and no file is left half under its own name.
    let mut interrupts = signal(SignalKind::interrupt()).context("listening to Ctrl-C")?;
    let place = Arc::new(Place::open(root)?);
    let jobs = bundles.into_iter().flat_map(|bundle| {
        let of = Arc::new((bundle.name, bundle.route, bundle.folder));
        bundle
            .files
            .into_iter()
            .map(move |artifact| (Arc::clone(&of), artifact))
    });
    let work = futures::stream::iter(jobs).map(|(of, artifact)| {
        let job = Job {
            client: client.clone(),
            place: Arc::clone(&place),
            route: of.1.clone(),
            folder: of.2.clone(),
            artifact,
            progress: progress.clone(),
        };
        async move {
            let path = job.folder.join(&job.artifact.path).display().to_string();
            // A task of its own, so that files are checked on all cores.
            let done = tokio::spawn(job.run())
                .await
                .unwrap_or_else(|error| Err(error.into()));
            (of, path, done)
        }
    });
    let mut work = Box::pin(work.buffer_unordered(FILES_AT_ONCE));
    let mut outcome = Outcome {
        files: Vec::new(),
        bytes: 0,
        failed: Vec::new(),
    };
    loop {
        tokio::select! {
            next = work.next() => match next {
                Some((of, path, done)) => outcome.add(&of.0, path, done),
                None => break,
            },
            _ = interrupts.recv() => {
                progress.finish();
                return Err(Problem::new("interrupted: what was fetched so far is there, whole and checked")
                    .hint("the same command goes on where this one stopped")
                    .into());
            }
        }
    }
    progress.finish();
    outcome
        .files
        .sort_by(|a, b| (&a.experiment, &a.path).cmp(&(&b.experiment, &b.path)));
    Ok(outcome)
}

impl Outcome {
    /// How many files came to be there so.
    pub(crate) fn count(&self, status: FileStatus) -> u64 {
        let files = self.files.iter();
        files.filter(|file| file.status == status).count() as u64
    }

    fn add(&mut self, experiment: &str, path: String, done: Result<Fetched>) {
        match done {
            Ok((artifact, file, status)) => {
                if status != FileStatus::Unchanged {
                    self.bytes += artifact.size_bytes;
                }
                self.files.push(FileDone {
                    experiment: experiment.to_owned(),
                    path: artifact.path,
                    file: file.display().to_string(),
                    size_bytes: artifact.size_bytes,
                    blake3: artifact.blake3,
                    status,
                });
            }
            Err(error) => self.failed.push((path, error)),
        }
    }
}

/// A file, where it is, and how it came there.
type Fetched = (ArtifactView, PathBuf, FileStatus);

/// One file.
struct Job {
    client: Client,
    place: Arc<Place>,
    /// Before the path of the file.
    route: String,
    folder: PathBuf,
    artifact: ArtifactView,
    progress: Progress,
}

impl Job {
    async fn run(self) -> Result<Fetched> {
        let target = self.place.of(&self.folder, &self.artifact.path)?;
        if is_same(&target, &self.artifact) {
            self.progress.add(self.artifact.size_bytes);
            return Ok((self.artifact, target, FileStatus::Unchanged));
        }
        let part = part_path(&target, &self.artifact, machine());
        let mut pause = PAUSE;
        for attempt in 1.. {
            match self.fetch(&part).await {
                Ok(()) => break,
                Err(error) if attempt < TRIES_MAX && is_transient(&error) => {
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
                Err(error) => return Err(error),
            }
        }
        place::require_no_folder(&target)?;
        let status = FileStatus::of_fetched(&target);
        fs::rename(&part, &target).with_context(|| format!("naming {}", target.display()))?;
        Ok((self.artifact, target, status))
    }

    /// Brings `part` to its end, from wherever it is.
    async fn fetch(&self, part: &Path) -> Result<()> {
        let writing = || format!("writing {}", part.display());
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).mode(0o600);
        options.custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
        let file = options.open(part).with_context(writing)?;
        let mut whole = Whole::new();
        let mut have =
            hash_so_far(&file, &mut whole, self.artifact.size_bytes).with_context(writing)?;
        if have < self.artifact.size_bytes {
            let path = format!("{}/{}", self.route, segments(&self.artifact.path));
            let answer = self.client.download_sparse(&path, have).await?;
            if have > 0 && answer.status() != StatusCode::PARTIAL_CONTENT {
                // The server begins at the beginning, so we do, too.
                have = 0;
                whole = Whole::new();
                file.set_len(0).with_context(writing)?;
            }
            let mut frames = is_framed(&answer).then(Frames::default);
            let mut body = answer.bytes_stream();
            let mut holes = Holes::at(have);
            while let Some(chunk) = body.next().await {
                let chunk = chunk.map_err(Interrupted)?;
                let mut chunk = &chunk[..];
                while let Some(part) = next(&mut frames, &mut chunk) {
                    have = have.saturating_add(part.len());
                    if have > self.artifact.size_bytes {
                        // It is not the file, and its zeros are not worth counting.
                        break;
                    }
                    match part {
                        Part::Bytes(bytes) => {
                            whole.update(bytes);
                            holes.write(&file, bytes).with_context(writing)?;
                        }
                        Part::Zeros(len) => {
                            whole.zeros(len);
                            holes.skip(len);
                        }
                    }
                    self.progress.add(part.len());
                }
            }
            holes.finish(&file).with_context(writing)?;
        }
        let hash = whole.finish().to_string();
        let is_it = !is_hashed(&self.artifact) || hash == self.artifact.blake3;
        if have != self.artifact.size_bytes || !is_it {
            // What is wrong is not gone on with.
            fs::remove_file(part).with_context(writing)?;
            return Err(Problem::new(format!(
                "what came is not the file: {have} bytes with the hash {hash}, not {} bytes with {}",
                self.artifact.size_bytes, self.artifact.blake3
            ))
            .hint("fetch it again; if the experiment still writes it, wait until it is over")
            .into());
        }
        finish(&file, &self.artifact).with_context(writing)?;
        if !is_hashed(&self.artifact) {
            // After a loss of power nobody could tell that it has its length and not its bytes.
            file.sync_all().with_context(writing)?;
        }
        Ok(())
    }
}

/// Whether an answer leaves long runs of zeros out.
fn is_framed(answer: &reqwest::Response) -> bool {
    let media = answer.headers().get(reqwest::header::CONTENT_TYPE);
    media.is_some_and(|media| media == sparse::MEDIA_TYPE)
}

/// The next part of what came.
fn next<'a>(frames: &mut Option<Frames>, bytes: &mut &'a [u8]) -> Option<Part<'a>> {
    match frames {
        Some(frames) => frames.next(bytes),
        None if bytes.is_empty() => None,
        None => Some(Part::Bytes(std::mem::take(bytes))),
    }
}

/// A connection that broke within a file.
#[derive(Debug, thiserror::Error)]
#[error("the connection broke")]
struct Interrupted(#[source] reqwest::Error);

fn is_transient(error: &anyhow::Error) -> bool {
    error.is::<Interrupted>()
        || error
            .downcast_ref::<grid_api::client::Error>()
            .is_some_and(grid_api::client::Error::is_transient)
}

/// Mode and time as they were where the file was made.
pub(crate) fn finish(file: &File, artifact: &ArtifactView) -> io::Result<()> {
    // Whoever fetched it can read and remove it, whatever the script did.
    file.set_permissions(Permissions::from_mode((artifact.mode & 0o777) | 0o600))?;
    Ok(rustix::fs::futimens(file, &times(artifact.modified_ms))?)
}

/// A time of modification as the system takes it, also one before 1970.
pub(crate) fn times(modified_ms: i64) -> Timestamps {
    let at = Timespec {
        tv_sec: modified_ms.div_euclid(1_000),
        tv_nsec: modified_ms.rem_euclid(1_000) * 1_000_000,
    };
    Timestamps {
        last_access: at,
        last_modification: at,
    }
}

/// Whether the server knows the hash of a file: of what it leaves in a bucket it does not, and
/// sees to it itself that what comes is what was listed.
fn is_hashed(artifact: &ArtifactView) -> bool {
    !artifact.blake3.is_empty()
}

/// A beginning of exactly this content for exactly this path; of what has no hash, and so
/// cannot be checked, since this machine was started.
fn part_path(target: &Path, artifact: &ArtifactView, machine: Option<String>) -> PathBuf {
    let path = blake3::hash(artifact.path.as_bytes()).to_hex();
    let machine = machine.unwrap_or_default();
    let listed = format!(
        "at{}of{}on{}",
        artifact.modified_ms,
        artifact.size_bytes,
        machine.get(..8).unwrap_or_default()
    );
    let content = match is_hashed(artifact) {
        true => artifact.blake3.get(..16).unwrap_or(&artifact.blake3),
        false => &listed,
    };
    let content: String = content
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .collect();
    target.with_file_name(format!(".{}-{content}.part", &path.as_str()[..16]))
}

/// Whether the file is there and right.
pub(crate) fn is_same(target: &Path, artifact: &ArtifactView) -> bool {
    let is_candidate = fs::symlink_metadata(target)
        .is_ok_and(|found| found.is_file() && found.len() == artifact.size_bytes);
    if !is_candidate {
        return false;
    }
    if !is_hashed(artifact) {
        let at = |found: fs::Metadata| {
            let ms = found.mtime().checked_mul(1_000)?;
            ms.checked_add(found.mtime_nsec() / 1_000_000)
        };
        let at = fs::metadata(target).ok().and_then(at);
        return at == Some(artifact.modified_ms);
    }
    let mut whole = Whole::new();
    let read = File::open(target).and_then(|file| hash_so_far(&file, &mut whole, u64::MAX));
    read.is_ok() && whole.finish().to_string() == artifact.blake3
}

/// Hashes what is in the file; what is too long begins again.
fn hash_so_far(file: &File, whole: &mut Whole, most: u64) -> io::Result<u64> {
    if file.metadata()?.len() > most {
        file.set_len(0)?;
    }
    hash_file(file, whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beginning_that_cannot_be_checked_is_of_one_start_of_the_machine() {
        let part = |blake3: &str, machine: Option<&str>| {
            let artifact = ArtifactView {
                path: "a/x".to_owned(),
                size_bytes: 3,
                blake3: blake3.to_owned(),
                mode: 0o644,
                modified_ms: 1,
            };
            part_path(Path::new("to/a/x"), &artifact, machine.map(str::to_owned))
        };
        assert_eq!(part("", Some("one-more")), part("", Some("one-more")));
        assert_ne!(part("", Some("one-more")), part("", Some("another-")));
        assert_ne!(part("", None), part("", Some("another-")));
        // What comes of it is compared with its hash.
        assert_eq!(
            part("0123", Some("one-more")),
            part("0123", Some("another-"))
        );
    }
}
