//! What is tried of both, in a folder.

use std::path::{Path, PathBuf};

use super::*;
use crate::logs::tests::sizes;

#[path = "chunks.rs"]
mod chunks;
#[path = "crashes.rs"]
mod crashes;
#[path = "deletion.rs"]
mod deletion;
#[path = "files.rs"]
pub(super) mod files;
#[path = "round_trip.rs"]
mod round_trip;
#[path = "stream.rs"]
mod stream;

/// Whether small packs are merged.
const IS_MERGED: bool = false;

/// How many steps a life of a store has at least.
const STEPS_MIN: i64 = 100;

/// Whether what is sent last arrives: a disk knows no such thing.
const LAST_ARRIVES: &[bool] = &[false];

pub(super) fn open(dir: &Path) -> Blobs {
    open_with(dir, settings(GC_GRACE))
}

/// A store in which nothing is young.
pub(super) fn open_without_grace(dir: &Path) -> Blobs {
    open_with(dir, settings(Duration::ZERO))
}

fn open_with(dir: &Path, settings: Settings) -> Blobs {
    Blobs::open(dir, placed(dir, settings)).unwrap()
}

/// Settings for what is kept here.
fn placed(_: &Path, settings: Settings) -> Settings {
    settings
}

/// From now on this is done many thousand times.
fn make_quick(_: &Path) {}

/// Another machine goes on with what is sure to be there, this number of times.
fn change_machine_sometimes(_: &Path, _: i64) {}

/// What is stored takes so many bytes, and is here.
fn stored(dir: &Path) -> Vec<(PathBuf, u64)> {
    sizes(dir)
}

/// Changes one byte of the content that begins like this.
fn flip(dir: &Path, bytes: &[u8]) {
    flip_in(&dir.join("packs/00000001.pack"), bytes);
}
