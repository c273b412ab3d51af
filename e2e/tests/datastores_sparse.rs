//! Files that are nearly all hole, of a size that nobody could read, hash or send: they are
//! kept, mounted and fetched as what they are.  Who goes through their zeros once, anywhere on
//! the way, takes longer than a test may.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use grid_e2e::{Ran, Server};

/// The hole, and where there is something in it.
const SIZE: u64 = 1 << 40;
const MIDDLE: u64 = 700_000_000_001;
const TEXT: &str = "in the middle";

/// What any of these may take up on a disk.
const ROOM_BYTES: u64 = 1 << 20;

/// Says how large the file is, what it takes up, and what is in the middle; leaves another one.
const READ: &str = r#"#!/bin/bash
file="$GRID_DATASTORES/big/hole.bin"
stat -c '%s %b' "$file"
tail -c +700000000002 "$file" | head -c 13
echo
truncate -s 200G left.bin
echo end >> left.bin
"#;

fn grid(server: &Server, line: &str) -> Ran {
    let words: Vec<&str> = line.split(' ').collect();
    server.grid("ada", &words)
}

fn assert_is_the_hole(path: &Path) {
    let file = File::open(path).expect("there");
    let found = file.metadata().expect("a file");
    assert_eq!(found.len(), SIZE);
    assert!(found.blocks() * 512 <= ROOM_BYTES, "{}", found.blocks());
    let mut read = [0; TEXT.len() + 2];
    file.read_exact_at(&mut read, MIDDLE - 1).expect("read");
    assert_eq!(read.as_slice(), format!("\0{TEXT}\0").as_bytes());
}

#[test]
fn a_terabyte_of_hole_is_stored_mounted_and_fetched() {
    let server = Server::start(&[]);
    server.script("read.sh", READ);
    // It is data, and no code.
    server.script(".gridignore", "big\nback\nart\n");
    let folder = server.work().join("big");
    std::fs::create_dir(&folder).expect("made");
    let file = File::create(folder.join("hole.bin")).expect("made");
    file.write_all_at(TEXT.as_bytes(), MIDDLE).expect("written");
    file.set_len(SIZE).expect("long");
    std::fs::write(folder.join("small.txt"), "small\n").expect("written");
    let made = grid(&server, "-o json datastore create big").json();
    assert_eq!(made["datastore"]["size_bytes"], SIZE + 6, "{made}");
    let listed = grid(&server, "-o json datastore files big").json();
    assert_eq!(listed["files"][0]["size_bytes"], SIZE, "{listed}");
    // Known, and when it has to be read again: a byte in the middle is another one.
    let made = grid(&server, "-o json datastore create big").json();
    assert_eq!(made["datastore"]["new_bytes"], 0, "{made}");
    file.write_all_at(b"I", MIDDLE).expect("written");
    let made = grid(&server, "-o json datastore create big").json();
    let new = made["datastore"]["new_bytes"].as_u64();
    assert!(new.is_some_and(|new| new <= ROOM_BYTES), "{made}");

    // A beginning is gone on with, and what is whole is known for it.
    grid(&server, "datastore download big:1 --to back").ok();
    assert_is_the_hole(&server.work().join("back/hole.bin"));
    let again = grid(&server, "datastore download big:1 --to back").ok();
    assert!(again.contains("2 unchanged"), "{again}");

    // Whoever knows nothing of holes gets every byte.
    let url = server.grid("ada", &["datastore", "cat", "big:1", "small.txt"]);
    assert_eq!(url.ok(), "small\n");
    let mount = "--datastore_name big:1 -- read.sh";
    grid(&server, &format!("run --localdir --name holes {mount}")).ok();
    let one = &server.finished("holes")[0];
    assert_eq!(one["status"], "succeeded", "{}", server.runner_log());
    let log = server.log_text("holes-exp0");
    let stat = log.lines().find(|line| line.starts_with(&SIZE.to_string()));
    let blocks = stat.and_then(|line| line.split(' ').nth(1)?.parse::<u64>().ok());
    assert!(
        blocks.is_some_and(|blocks| blocks * 512 <= ROOM_BYTES),
        "{log}"
    );
    assert!(log.contains(TEXT), "{log}");

    // The same of an artifact.
    grid(&server, "artifacts --download_dir art holes").ok();
    let left = walk(&server.work().join("art"), "left.bin");
    let found = std::fs::metadata(left).expect("a file");
    assert_eq!(found.len(), (200 << 30) + 4);
    assert!(found.blocks() * 512 <= ROOM_BYTES, "{}", found.blocks());

    // Checked to its last byte, and nothing of it is anywhere large.
    server.doctor();
    let data = server.data().display().to_string();
    grid(&server, &format!("server doctor --deep --data {data}")).ok();
}

/// The file of this name below a folder.
fn walk(folder: &Path, name: &str) -> std::path::PathBuf {
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("listed").flatten() {
            if entry.path().is_dir() {
                folders.push(entry.path());
            } else if entry.file_name() == name {
                return entry.path();
            }
        }
    }
    panic!("there is no {name}")
}
