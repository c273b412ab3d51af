//! How fast content is cut and hashed, how long chunks are, and what a change costs.

#![expect(
    clippy::disallowed_methods,
    reason = "measuring time is what this is for"
)]

use std::hint::black_box;
use std::time::Instant;

use grid_chunk::{Chunker, cut};

fn main() {
    let mut bytes = vec![0_u8; 512 << 20];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    let gib = bytes.len() as f64 / (1 << 30) as f64;
    let rate = |name: &str, begun: Instant| {
        let rate = gib / begun.elapsed().as_secs_f64();
        #[expect(clippy::print_stdout, reason = "it is what this program is for")]
        {
            println!("{name}: {rate:.2} GiB/s");
        }
    };
    let begun = Instant::now();
    black_box(blake3::hash(&bytes));
    rate("hash", begun);
    let begun = Instant::now();
    let (mut at, mut chunks) = (0, 0);
    while at < bytes.len() {
        at += cut(&bytes[at..]);
        chunks += 1;
    }
    rate(&format!("cut (mean {})", bytes.len() / chunks), begun);
    let begun = Instant::now();
    let mut chunker = Chunker::new();
    for piece in bytes.chunks(1 << 20) {
        chunker.push(piece);
        while let Some(chunk) = chunker.next(false) {
            black_box(chunk);
        }
    }
    rate("cut, hash chunks and whole", begun);
}
