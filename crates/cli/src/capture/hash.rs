//! The hash of every file.

use std::fs::File;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, Result};

use super::cache::Cache;
use super::inspect::{Found, Kind, Stamp};
use crate::clock;
use crate::error::Problem;
use crate::progress::Progress;

/// Files below this many are hashed on one thread.
const FILES_PER_THREAD_MIN: usize = 16;

/// Hashes the files of a tree, reading only those that changed; others have none.
/// Sizes are set to what was read.
pub(super) fn all(
    root: &Path,
    found: &mut [Found],
    cache: &Cache,
    progress: &Progress,
) -> Result<Vec<Option<[u8; 32]>>> {
    let started = clock::now();
    let mut hashes: Vec<Option<[u8; 32]>> = found.iter().map(|found| cache.get(found)).collect();
    let unknown: Vec<usize> = (0..found.len())
        .filter(|&index| hashes[index].is_none() && found[index].kind == Kind::File)
        .collect();
    if unknown.is_empty() {
        return Ok(hashes);
    }
    for (index, read) in read_all(root, found, &unknown, progress)? {
        hashes[index] = Some(read.hash);
        found[index].size_bytes = read.size_bytes;
        found[index].stamp = read.stamp;
    }
    let files = found
        .iter()
        .zip(&hashes)
        .filter_map(|(found, hash)| Some((found, (*hash)?)));
    cache.save(started, files);
    Ok(hashes)
}

/// What was read of a file.
pub(super) struct Read {
    pub(super) hash: [u8; 32],
    pub(super) size_bytes: u64,
    pub(super) stamp: Stamp,
}

/// Reads the files with these numbers, on all cores.
pub(super) fn read_all(
    root: &Path,
    found: &[Found],
    wanted: &[usize],
    progress: &Progress,
) -> Result<Vec<(usize, Read)>> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Ok(Vec::with_capacity(wanted.len())));
    let work = || {
        let mut mine = Vec::new();
        while let Some(&index) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) {
            match read_one(root, &found[index]) {
                Ok(read) => {
                    progress.add(read.size_bytes);
                    mine.push((index, read));
                }
                Err(error) => {
                    next.store(wanted.len(), Ordering::Relaxed);
                    if let Ok(mut done) = done.lock() {
                        *done = Err(error);
                    }
                    return;
                }
            }
        }
        if let Ok(mut done) = done.lock()
            && let Ok(done) = done.as_mut()
        {
            done.extend(mine);
        }
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let bytes: u64 = wanted.iter().map(|&index| found[index].size_bytes).sum();
    let n_threads = cores.min(
        wanted
            .len()
            .div_ceil(FILES_PER_THREAD_MIN)
            .max(if bytes > 16 << 20 { cores } else { 1 }),
    );
    std::thread::scope(|scope| {
        for _ in 1..n_threads {
            scope.spawn(work);
        }
        work();
    });
    done.into_inner()
        .map_err(|_| Problem::new("reading the files failed"))?
}

fn read_one(root: &Path, found: &Found) -> Result<Read> {
    let reading = || format!("reading {}", found.path);
    let mut file = File::open(root.join(&found.path)).with_context(reading)?;
    let stamp = Stamp::of(&file.metadata().with_context(reading)?);
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(&mut file).with_context(reading)?;
    Ok(Read {
        hash: *hasher.finalize().as_bytes(),
        size_bytes: hasher.count(),
        stamp,
    })
}
