//! Everything below a folder, in the order of a datastore's list, without holding it all.
//!
//! One thread reads folders, one after the other; others look at what is in them, from the
//! open folder, so that no path is looked up twice.  What they find is put into order again
//! by who takes it.  Only so much is looked at ahead.

use std::ffi::{CStr, CString, OsStr};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::inspect::{Found, Kind, Stamp, leads_outside};
use super::listing::{ItemKind, Listing};
use super::shown;
use crate::error::Problem;

/// Names that are looked at together.  Higher: other cores wait at the end; lower: threads
/// hand over more often than they work.
const BATCH_NAMES: usize = 512;

/// Folders of a batch: each is open until it was looked at.  Higher: more files are open;
/// lower: a tree of small folders is many batches.
const BATCH_FOLDERS: usize = 8;

/// Batches that wait to be looked at, for the same reasons.
const WAITING_MAX: usize = 24;

/// Batches that wait to be taken.  Higher: more memory; lower: who takes them is waited for.
const AHEAD_MAX: usize = 64;

/// What is wrong is named up to this often.
const WRONG_MAX: usize = 1_000;

/// What comes next.
#[derive(Debug)]
pub(super) enum Step {
    /// A folder, of which what is in it follows.
    Entered(String, Stamp),
    /// A file, a link, or a folder in which nothing is.
    Found(Found),
}

/// Whoever takes the steps.
pub(super) struct Walk {
    batches: Receiver<Receiver<Result<Vec<Step>>>>,
    wrong: Arc<Wrong>,
}

impl Walk {
    /// Begins to walk.
    pub(super) fn begin(root: &Path) -> Result<Self> {
        let opening = || format!("opening {}", root.display());
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let open = rustix::fs::open(root, flags, Mode::empty()).with_context(opening)?;
        let wrong = Arc::new(Wrong::default());
        let (jobs, waiting) = sync_channel::<Job>(WAITING_MAX);
        let (out, batches) = sync_channel(AHEAD_MAX);
        let waiting = Arc::new(Mutex::new(waiting));
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let spawn = |name: &str, work: Box<dyn FnOnce() + Send>| {
            let thread = std::thread::Builder::new().name(name.to_owned());
            thread.spawn(work).map(drop).context("starting a thread")
        };
        for _ in 0..threads {
            let looker = Looker {
                root: root.to_owned(),
                wrong: Arc::clone(&wrong),
            };
            let waiting = Arc::clone(&waiting);
            spawn("look", Box::new(move || looker.run(&waiting)))?;
        }
        let lister = Lister {
            root: root.to_owned(),
            open: Arc::new(open),
            batch: Vec::new(),
            names: 0,
            jobs,
            out,
            wrong: Arc::clone(&wrong),
        };
        spawn("walk", Box::new(move || lister.run()))?;
        Ok(Self { batches, wrong })
    }

    /// The next steps; none when the walk is over.
    pub(super) fn next(&self) -> Result<Option<Vec<Step>>> {
        let Ok(batch) = self.batches.recv() else {
            return Ok(None);
        };
        let steps = batch
            .recv()
            .map_err(|_| Problem::new("looking at the files failed"))?;
        steps.map(Some)
    }

    /// Refuses what cannot be sent, as far as it was seen.
    pub(super) fn check(&self) -> Result<()> {
        self.wrong.check()
    }
}

/// The bytes of all files below a folder.
pub(super) fn bytes_below(root: &Path) -> Result<u64> {
    let walk = Walk::begin(root)?;
    let mut bytes = 0;
    while let Some(steps) = walk.next()? {
        let sizes = steps.iter().map(|step| match step {
            Step::Found(found) => found.size_bytes,
            Step::Entered(..) => 0,
        });
        bytes += sizes.sum::<u64>();
    }
    Ok(bytes)
}

/// What cannot be sent.
#[derive(Default)]
struct Wrong(Mutex<Names>);

#[derive(Default)]
struct Names {
    not_utf8: Vec<String>,
    special: Vec<String>,
    bad_links: Vec<String>,
    outside: Vec<String>,
}

impl Wrong {
    fn add(&self, list: impl FnOnce(&mut Names) -> &mut Vec<String>, name: String) {
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let list = list(&mut names);
        if list.len() < WRONG_MAX {
            list.push(name);
        }
    }

    fn check(&self) -> Result<()> {
        let names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let sorted = |names: &Vec<String>| {
            let mut names = names.clone();
            names.sort_unstable();
            shown(names)
        };
        let not_utf8 = if names.not_utf8.is_empty() {
            &names.bad_links
        } else {
            &names.not_utf8
        };
        let problem = if !not_utf8.is_empty() {
            let names = sorted(not_utf8);
            Problem::new(format!("names that are not UTF-8 cannot be sent: {names}"))
                .hint("rename them")
        } else if !names.special.is_empty() {
            Problem::new(format!(
                "only files, folders and links can be sent; these are something else: {}",
                sorted(&names.special)
            ))
            .hint("remove them, or keep them in another folder")
        } else if !names.outside.is_empty() {
            Problem::new(format!(
                "these links lead out of what is sent: {}",
                sorted(&names.outside)
            ))
            .hint("replace them by what they point to, or take what they point to along")
        } else {
            return Ok(());
        };
        Err(problem.into())
    }
}

/// Some of a folder that is to be looked at.
enum Piece {
    Step(Step),
    Names {
        open: Arc<OwnedFd>,
        /// Ends with `/`, but at the top.
        prefix: Arc<str>,
        listing: Arc<Listing>,
        from: usize,
        to: usize,
    },
}

struct Job {
    pieces: Vec<Piece>,
    done: SyncSender<Result<Vec<Step>>>,
}

/// Nobody takes what is found any more, or something is wrong that was said.
struct Over;

/// Reads folders.
struct Lister {
    root: PathBuf,
    open: Arc<OwnedFd>,
    batch: Vec<Piece>,
    names: usize,
    jobs: SyncSender<Job>,
    out: SyncSender<Receiver<Result<Vec<Step>>>>,
    wrong: Arc<Wrong>,
}

/// A folder on the way.
struct Frame {
    prefix: Arc<str>,
    listing: Arc<Listing>,
    at: usize,
    /// Not while it is looked at what is below: a deep tree would have too many open.
    open: Option<Arc<OwnedFd>>,
}

impl Lister {
    fn run(mut self) {
        match self.walk() {
            Ok(()) => {
                let _ = self.flush();
            }
            Err(Some(error)) => {
                let (done, steps) = sync_channel(1);
                if self.flush().is_ok() && self.out.send(steps).is_ok() {
                    let _ = done.send(Err(error));
                }
            }
            Err(None) => {}
        }
    }

    /// `None` for an error when nobody waits for more.
    fn walk(&mut self) -> Result<(), Option<anyhow::Error>> {
        let top = Arc::clone(&self.open);
        let mut frames = Vec::new();
        if let Some((frame, _)) = self.enter("", top)? {
            frames.push(frame);
        }
        while let Some(frame) = frames.last_mut() {
            let begin = frame.at;
            let items = &frame.listing.items;
            let end = (begin..items.len())
                .find(|&at| {
                    items
                        .get(at)
                        .is_none_or(|item| item.kind != ItemKind::Other)
                })
                .unwrap_or(items.len());
            if end > begin {
                self.look(frame, begin, end)?;
                frame.at = end;
                continue;
            }
            let Some(&item) = items.get(begin) else {
                frames.pop();
                continue;
            };
            frame.at += 1;
            let path = format!("{}{}", frame.prefix, frame.listing.text(item));
            frame.open = None;
            match self.folder(&path)? {
                Some(below) if item.kind == ItemKind::Folder => frames.push(below),
                _ => {}
            }
        }
        Ok(())
    }

    fn look(
        &mut self,
        frame: &mut Frame,
        begin: usize,
        end: usize,
    ) -> Result<(), Option<anyhow::Error>> {
        let open = match &frame.open {
            Some(open) => Arc::clone(open),
            None => match self.open_folder(frame.prefix.trim_end_matches('/'))? {
                Some(open) => Arc::new(open),
                None => return Ok(()),
            },
        };
        frame.open = Some(Arc::clone(&open));
        let mut from = begin;
        while from < end {
            let to = end.min(from + (BATCH_NAMES - self.names.min(BATCH_NAMES - 1)));
            self.push(
                Piece::Names {
                    open: Arc::clone(&open),
                    prefix: Arc::clone(&frame.prefix),
                    listing: Arc::clone(&frame.listing),
                    from,
                    to,
                },
                to - from,
            )?;
            from = to;
        }
        Ok(())
    }

    /// Reads a folder; `None` when it has gone, or nothing is in it.
    fn folder(&mut self, path: &str) -> Result<Option<Frame>, Option<anyhow::Error>> {
        let Some(open) = self.open_folder(path)? else {
            return Ok(None);
        };
        let open = Arc::new(open);
        let stat = rustix::fs::fstat(&*open).map_err(|error| self.unreadable(path, error))?;
        if let Some((frame, stamp)) = self.enter(path, open)? {
            self.push(Piece::Step(Step::Entered(path.to_owned(), stamp)), 1)?;
            return Ok(Some(frame));
        }
        let found = Found {
            path: path.to_owned(),
            kind: Kind::Folder,
            mode: stat.st_mode & 0o777,
            size_bytes: 0,
            stamp: Stamp::of_stat(&stat),
        };
        self.push(Piece::Step(Step::Found(found)), 1)?;
        Ok(None)
    }

    /// What is in a folder; `None` when there is nothing.
    fn enter(
        &self,
        path: &str,
        open: Arc<OwnedFd>,
    ) -> Result<Option<(Frame, Stamp)>, Option<anyhow::Error>> {
        let unreadable = |error| self.unreadable(path, error);
        let stat = rustix::fs::fstat(&*open).map_err(unreadable)?;
        let prefix = match path {
            "" => String::new(),
            path => format!("{path}/"),
        };
        let mut listing = Listing::default();
        for entry in Dir::read_from(&*open).map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            if name.to_str().is_err() {
                let name = OsStr::from_bytes(name.to_bytes()).to_string_lossy();
                self.wrong
                    .add(|names| &mut names.not_utf8, format!("{prefix}{name}"));
                continue;
            }
            let kind = match entry.file_type() {
                FileType::Unknown => kind_of(&open, name),
                kind => kind,
            };
            let kind = match kind {
                FileType::Directory => ItemKind::Folder,
                _ => ItemKind::Other,
            };
            listing.push(name, kind)?;
        }
        listing.sort();
        self.find_empty(&open, &mut listing);
        if listing.items.is_empty() {
            return Ok(None);
        }
        let frame = Frame {
            prefix: prefix.into(),
            listing: Arc::new(listing),
            at: 0,
            open: Some(open),
        };
        Ok(Some((frame, Stamp::of_stat(&stat))))
    }

    /// An empty folder is a line itself, and not what is below it: `a` comes before `a.b`, and
    /// `a/c` behind.  Only where there is something between does it matter.
    fn find_empty(&self, open: &OwnedFd, listing: &mut Listing) {
        let mut moved = Vec::new();
        for at in 1..listing.items.len() {
            let (Some(&before), Some(&item)) = (listing.items.get(at - 1), listing.items.get(at))
            else {
                continue;
            };
            let is_between = item.kind == ItemKind::Folder
                && listing.bytes(before).starts_with(listing.bytes(item));
            if is_between && is_empty(open, listing.name(item)) {
                moved.push(at);
            }
        }
        if moved.is_empty() {
            return;
        }
        for at in moved {
            if let Some(item) = listing.items.get_mut(at) {
                item.kind = ItemKind::Empty;
            }
        }
        listing.sort();
    }

    fn open_folder(&self, path: &str) -> Result<Option<OwnedFd>, Option<anyhow::Error>> {
        let path_from = if path.is_empty() { "." } else { path };
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(&*self.open, path_from, flags, Mode::empty()) {
            Ok(open) => Ok(Some(open)),
            // It has gone meanwhile, or is something else by now.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(error) => Err(Some(self.unreadable(path, error))),
        }
    }

    fn unreadable(&self, path: &str, error: Errno) -> anyhow::Error {
        let path = self.root.join(path);
        Problem::new("a part of the folder cannot be read")
            .because(format!(
                "{}: {}",
                path.display(),
                std::io::Error::from(error)
            ))
            .hint(hint(error))
            .into()
    }

    fn push(&mut self, piece: Piece, names: usize) -> Result<(), Option<anyhow::Error>> {
        self.batch.push(piece);
        self.names += names;
        let folders = self.batch.iter();
        let folders = folders.filter(|piece| matches!(piece, Piece::Names { .. }));
        if self.names >= BATCH_NAMES || folders.count() >= BATCH_FOLDERS {
            self.flush().map_err(|Over| None)?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Over> {
        let pieces = std::mem::take(&mut self.batch);
        self.names = 0;
        if pieces.is_empty() {
            return Ok(());
        }
        let (done, steps) = sync_channel(1);
        self.out.send(steps).map_err(|_| Over)?;
        self.jobs.send(Job { pieces, done }).map_err(|_| Over)
    }
}

fn is_empty(open: &OwnedFd, name: &CStr) -> bool {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let Ok(below) = rustix::fs::openat(open, name, flags, Mode::empty()) else {
        return false;
    };
    let Ok(mut entries) = Dir::read_from(&below) else {
        return false;
    };
    entries
        .all(|entry| entry.is_ok_and(|entry| matches!(entry.file_name().to_bytes(), b"." | b"..")))
}

/// What something is where the folder does not tell.
fn kind_of(open: &OwnedFd, name: &CStr) -> FileType {
    let stat = rustix::fs::statat(open, name, AtFlags::SYMLINK_NOFOLLOW);
    stat.map_or(FileType::Unknown, |stat| {
        FileType::from_raw_mode(stat.st_mode)
    })
}

/// Looks at what is in folders.
struct Looker {
    root: PathBuf,
    wrong: Arc<Wrong>,
}

impl Looker {
    fn run(&self, waiting: &Mutex<Receiver<Job>>) {
        loop {
            let job = {
                let waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
                waiting.recv()
            };
            let Ok(job) = job else { return };
            let mut steps = Vec::with_capacity(BATCH_NAMES);
            let looked = job
                .pieces
                .into_iter()
                .try_for_each(|piece| self.look(piece, &mut steps));
            // Nobody may wait any more.
            let _ = job.done.send(looked.map(|()| steps));
        }
    }

    fn look(&self, piece: Piece, steps: &mut Vec<Step>) -> Result<()> {
        let (open, prefix, listing, from, to) = match piece {
            Piece::Step(step) => {
                steps.push(step);
                return Ok(());
            }
            Piece::Names {
                open,
                prefix,
                listing,
                from,
                to,
            } => (open, prefix, listing, from, to),
        };
        for &item in listing.items.get(from..to).unwrap_or_default() {
            let name = listing.name(item);
            let stat = match rustix::fs::statat(&*open, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::NOENT | Errno::NOTDIR) => continue,
                Err(error) => {
                    let path = format!("{prefix}{}", listing.text(item));
                    return Err(error).with_context(|| format!("looking at {path}"));
                }
            };
            let path = [&*prefix, listing.text(item)].concat();
            let found = self.found(&open, name, path, &stat)?;
            steps.extend(found.map(Step::Found));
        }
        Ok(())
    }

    fn found(
        &self,
        open: &OwnedFd,
        name: &CStr,
        path: String,
        stat: &Stat,
    ) -> Result<Option<Found>> {
        let (kind, size_bytes) = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => (Kind::File, u64::try_from(stat.st_size).unwrap_or_default()),
            FileType::Symlink => match self.target(open, name, &path)? {
                Some(target) => (Kind::Link(target), 0),
                None => return Ok(None),
            },
            // It was something else when the folder was read.
            FileType::Directory => return Ok(None),
            kind => {
                let word = match kind {
                    FileType::Fifo => "pipe",
                    FileType::Socket => "socket",
                    _ => "device",
                };
                self.wrong
                    .add(|names| &mut names.special, format!("{path} ({word})"));
                return Ok(None);
            }
        };
        Ok(Some(Found {
            path,
            kind,
            mode: stat.st_mode & 0o777,
            size_bytes,
            stamp: Stamp::of_stat(stat),
        }))
    }

    fn target(&self, open: &OwnedFd, name: &CStr, path: &str) -> Result<Option<String>> {
        let target: CString = match rustix::fs::readlinkat(open, name, Vec::new()) {
            Ok(target) => target,
            Err(Errno::NOENT | Errno::INVAL) => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("reading the link {path}")),
        };
        let Ok(target) = target.into_string() else {
            self.wrong
                .add(|names| &mut names.bad_links, format!("{path} -> ?"));
            return Ok(None);
        };
        if leads_outside(&self.root, path, &target) {
            self.wrong
                .add(|names| &mut names.outside, format!("{path} -> {target}"));
            return Ok(None);
        }
        Ok(Some(target))
    }
}

/// What to do about a part of a folder that cannot be read.
fn hint(error: Errno) -> &'static str {
    match error {
        Errno::ACCESS | Errno::PERM => "change its permissions, or move it away",
        Errno::NAMETOOLONG => {
            "its path is longer than the system takes: move it up, give its folders shorter names, or pack them into one file"
        }
        _ => "mend that, or move it away",
    }
}
