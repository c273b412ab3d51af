//! What stories about data have in common: who is there, bytes, and what is the same.

use std::path::Path;
use std::process::Command;

use crate::{Ran, Server};

/// Ada owns the team `vision`, Bob is a member, Eve is somebody else with an account.
pub fn vision(server: &Server) {
    server.person("bob");
    server.person("eve");
    server.grid("ada", &["team", "create", "vision"]).ok();
    let invite = ["team", "invite", "vision", "bob"];
    server.grid("ada", &invite).ok();
    server.grid("bob", &["team", "join", "vision"]).ok();
}

/// Runs a line as a person: its words are what stands between spaces.
pub fn grid(server: &Server, who: &str, line: &str) -> Ran {
    let words: Vec<&str> = line.split(' ').collect();
    server.grid(who, &words)
}

/// Checks that two folders have the same files.
pub fn same_tree(one: &Path, other: &Path) {
    let ran = Command::new("diff").arg("-r").arg(one).arg(other).output();
    assert_eq!(Ran::of(&ran.expect("diff starts")).stdout, "");
}

/// More than a chunk, and of no pattern: 3,000,000 bytes.
pub fn large() -> Vec<u8> {
    (0..3_000_000_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect()
}

/// Numbers without an order, the same for the same seed, which is not zero.
pub struct Dice(pub u64);

impl Dice {
    /// The next one, less than `most`.
    pub fn below(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % most
    }
}
