//! The list of a folder, cut into the blocks that the server will make of it, each beside
//! what it was when the folder was last sent.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use anyhow::{Context as _, Result};
use grid_core::blob::BlobId;
use grid_manifest::{Cutter, begins_block};
use tokio::sync::mpsc;

use super::inspect::{Found, Kind, Stamp};
use super::list::Reader;
use super::walk::{Step, Walk};

/// Entries that are looked at ahead of who sends them.  What is wrong with a folder of fewer
/// is said before anything is begun.  Higher: more memory, a quarter of a kilobyte for each;
/// lower: who sends them waits.
const AHEAD_ENTRIES: usize = 200_000;

/// A line of the list.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) found: Found,
    /// Of a file, once it is known.
    pub(super) hash: Option<[u8; 32]>,
    /// Whether the block before does not have it, or has it otherwise.
    pub(super) is_new: bool,
    /// Whether it was read this time.
    pub(super) was_read: bool,
}

/// A part of the list.
#[derive(Debug, Default)]
pub(crate) struct Block {
    pub(super) number: usize,
    pub(super) entries: Vec<Entry>,
    /// Folders that are entered, each with the number of the entry that follows.
    pub(super) entered: Vec<(usize, String, Stamp)>,
    /// What the server calls the block that was there before, and which of its paths are gone.
    pub(super) before: Option<BlobId>,
    pub(super) removed: Vec<String>,
    /// Room that is given back when it is dropped.
    room: Option<Room>,
}

impl Block {
    /// How many entries it has.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn size_bytes(&self) -> u64 {
        self.entries
            .iter()
            .map(|entry| entry.found.size_bytes)
            .sum()
    }
}

/// How many entries may be ahead.
#[derive(Debug, Default)]
struct Ahead {
    entries: Mutex<usize>,
    less: Condvar,
}

#[derive(Debug)]
struct Room {
    ahead: Arc<Ahead>,
    entries: usize,
}

impl Room {
    fn take(ahead: &Arc<Ahead>, entries: usize) -> Self {
        let mut taken = ahead.entries.lock().unwrap_or_else(PoisonError::into_inner);
        while *taken > AHEAD_ENTRIES {
            taken = ahead
                .less
                .wait(taken)
                .unwrap_or_else(PoisonError::into_inner);
        }
        *taken += entries;
        drop(taken);
        Self {
            ahead: Arc::clone(ahead),
            entries,
        }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let entries = &self.ahead.entries;
        *entries.lock().unwrap_or_else(PoisonError::into_inner) -= self.entries;
        self.ahead.less.notify_one();
    }
}

/// Blocks as they come.
pub(super) struct Blocks {
    ready: VecDeque<Block>,
    more: mpsc::UnboundedReceiver<Result<Block>>,
    is_begun: Arc<AtomicBool>,
    is_over: bool,
}

/// Where lines come from.
pub(super) enum Lines {
    Folder(PathBuf),
    /// One file.
    One(Vec<Found>),
}

impl Blocks {
    /// Begins to look, and waits until everything was looked at, or as much as may be ahead.
    pub(super) fn begin(lines: Lines, before: Reader) -> Result<Self> {
        let walk = match &lines {
            Lines::Folder(root) => Some(Walk::begin(root)?),
            Lines::One(_) => None,
        };
        let (out, more) = mpsc::unbounded_channel();
        let is_begun = Arc::new(AtomicBool::new(false));
        let mut merge = Merge {
            before,
            cutter: Cutter::default(),
            block: Block::default(),
            numbers: 0,
            base: None,
            last: String::new(),
            ahead: Arc::default(),
            out,
        };
        let begun = Arc::clone(&is_begun);
        let work = move || {
            let result = match (walk, lines) {
                (Some(walk), _) => merge.walk(&walk, &begun),
                (None, Lines::One(found)) => {
                    for found in found {
                        merge.step(Step::Found(found));
                    }
                    Ok(())
                }
                (None, Lines::Folder(_)) => Ok(()),
            };
            match result {
                Ok(()) => merge.end_block(),
                Err(error) => drop(merge.out.send(Err(error))),
            }
        };
        let thread = std::thread::Builder::new().name("blocks".to_owned());
        thread.spawn(work).context("starting a thread")?;
        let mut blocks = Self {
            ready: VecDeque::new(),
            more,
            is_begun,
            is_over: false,
        };
        let mut entries = 0;
        // The last block is given when there is no room for another one.
        while entries < AHEAD_ENTRIES && !blocks.is_over {
            match blocks.more.blocking_recv() {
                Some(block) => {
                    let block = block?;
                    entries += block.len();
                    blocks.ready.push_back(block);
                }
                None => blocks.is_over = true,
            }
        }
        blocks.is_begun.store(true, Ordering::Relaxed);
        Ok(blocks)
    }

    /// The bytes of all files together, where that is known.
    pub(super) fn size_bytes(&self) -> Option<u64> {
        let ready = || self.ready.iter().map(Block::size_bytes).sum();
        self.is_over.then(ready)
    }

    /// The next block that is there already.
    pub(super) fn ready(&mut self) -> Result<Option<Block>> {
        if let Some(block) = self.ready.pop_front() {
            return Ok(Some(block));
        }
        match self.more.try_recv() {
            Ok(block) => block.map(Some),
            Err(_) => Ok(None),
        }
    }

    /// The next block, once it is there; none at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Block>> {
        match self.ready()? {
            Some(block) => Ok(Some(block)),
            None => self.more.recv().await.transpose(),
        }
    }
}

/// Puts what is there beside what was.
struct Merge {
    before: Reader,
    cutter: Cutter,
    block: Block,
    /// Blocks that are over.
    numbers: usize,
    /// The block before of which this one has been so far.
    base: Option<Base>,
    last: String,
    ahead: Arc<Ahead>,
    out: mpsc::UnboundedSender<Result<Block>>,
}

struct Base {
    number: usize,
    name: Option<BlobId>,
    /// It was met at its first line.
    is_from_first: bool,
}

impl Merge {
    fn walk(&mut self, walk: &Walk, is_begun: &AtomicBool) -> Result<()> {
        while let Some(steps) = walk.next()? {
            for step in steps {
                self.step(step);
            }
            if self.out.is_closed() {
                return Ok(());
            }
            // Before anything is begun, all that is wrong is named.
            if is_begun.load(Ordering::Relaxed) {
                walk.check()?;
            }
        }
        walk.check()
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Entered(path, stamp) => {
                let at = self.block.entries.len();
                self.block.entered.push((at, path, stamp));
            }
            // What moves while folders are read may come twice, or too late.
            Step::Found(found) if found.path <= self.last && !self.last.is_empty() => {}
            Step::Found(found) => self.found(found),
        }
    }

    fn found(&mut self, found: Found) {
        self.skip_gone(&found.path);
        let known = self.before.peek().filter(|known| known.path == found.path);
        let place = known.and_then(|_| self.before.place());
        let begins = match place {
            // Nothing but the first line of a block began one.
            Some((_, false, _)) => false,
            _ => begins_block(&found.path),
        };
        let target = match &found.kind {
            Kind::Link(target) => target.len(),
            Kind::File | Kind::Folder => 0,
        };
        if self.cutter.next(begins, found.path.len() + target) {
            self.end_block();
        }
        let mut entry = Entry {
            hash: None,
            is_new: true,
            was_read: false,
            found,
        };
        if let Some((number, is_first, name)) = place {
            let base = self.base.get_or_insert(Base {
                number,
                name,
                is_from_first: is_first,
            });
            let is_of_base = base.number == number;
            self.compare(&mut entry, is_of_base);
            self.before.advance();
        }
        entry.found.path.clone_into(&mut self.last);
        self.block.entries.push(entry);
    }

    /// What was there and is not any more.
    fn skip_gone(&mut self, until: &str) {
        while let Some(known) = self.before.peek()
            && known.path.as_str() < until
        {
            let number = self.before.place().map(|(number, ..)| number);
            let is_of_base = self.base.as_ref().map(|base| base.number) == number;
            if is_of_base {
                self.block.removed.push(known.path.clone());
            }
            self.before.advance();
        }
    }

    fn compare(&self, entry: &mut Entry, is_of_base: bool) {
        let Some(known) = self.before.peek() else {
            return;
        };
        let found = &entry.found;
        let is_as_it_was = known.is(&found.kind)
            && known.stamp == found.stamp
            && known.size_bytes == found.size_bytes;
        if found.kind == Kind::File && is_as_it_was && known.is_settled() {
            entry.hash = Some(known.hash);
        }
        let is_same = match &found.kind {
            Kind::File => entry.hash.is_some(),
            Kind::Link(target) => is_as_it_was && *target == known.target,
            Kind::Folder => is_as_it_was,
        };
        entry.is_new = !(is_of_base && is_same && known.mode == found.mode);
    }

    fn end_block(&mut self) {
        let mut block = std::mem::take(&mut self.block);
        let base = self.base.take();
        // What is entered behind the last entry belongs to the next one.
        let next = block.entries.len();
        if let Some(first) = block.entered.iter().position(|(at, ..)| *at >= next) {
            self.block.entered = block.entered.split_off(first);
            for (at, ..) in &mut self.block.entered {
                *at = 0;
            }
        }
        if block.entries.is_empty() {
            return;
        }
        // All of the block before is in this one, or was removed from it.
        let is_whole = |base: &Base| {
            let next = self.before.place();
            base.is_from_first && next.is_none_or(|(number, ..)| number != base.number)
        };
        block.before = base.filter(is_whole).and_then(|base| base.name);
        if block.before.is_none() {
            block.removed = Vec::new();
        }
        block.number = self.numbers;
        self.numbers += 1;
        block.room = Some(Room::take(&self.ahead, block.entries.len()));
        let _ = self.out.send(Ok(block));
    }
}

/// Where lines of a source come from, and below which folder its paths are.
pub(super) fn lines(real: &Path, name: Option<&str>) -> Result<(PathBuf, Lines)> {
    let Some(name) = name else {
        return Ok((real.to_owned(), Lines::Folder(real.to_owned())));
    };
    let root = real.parent().unwrap_or(Path::new("/")).to_owned();
    let found = super::inspect::inspect_data(&root, vec![name.to_owned()])?;
    Ok((root, Lines::One(found)))
}
