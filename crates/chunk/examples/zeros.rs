//! Computes `src/zeros.bin` again: what each gibibyte of zeros comes to in BLAKE3, at each
//! place up to 2 TiB.  It hashes all of them, which takes minutes.
//!
//! `cargo run -p grid-chunk --example zeros -- crates/chunk/src/zeros.bin`

use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use grid_chunk::{TABLE_STEP_BYTES, hash_zeros_at};

/// Lines of the table.
const LINES: u64 = (2 << 40) / TABLE_STEP_BYTES;

fn main() -> io::Result<()> {
    let path = std::env::args().nth(1);
    let path = path.ok_or_else(|| io::Error::other("say where to write it"))?;
    let next = AtomicU64::new(0);
    let table = Mutex::new(vec![0; LINES as usize * 32]);
    let work = || {
        loop {
            let line = next.fetch_add(1, Ordering::Relaxed);
            if line >= LINES {
                return;
            }
            let value = hash_zeros_at(line * TABLE_STEP_BYTES, TABLE_STEP_BYTES);
            let mut table = table
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            let at = line as usize * 32;
            table[at..at + 32].copy_from_slice(&value);
        }
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(work);
        }
    });
    let table = table
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    std::fs::write(path, table)
}
