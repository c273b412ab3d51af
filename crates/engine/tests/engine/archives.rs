//! Archives as they come: whole, damaged, cut, and made to do harm.

mod made;
mod zipped;

use std::io::Write as _;
use std::path::Path;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::stream;
use grid_core::datastore::SourceKind;
use grid_engine::datastore::{self, BucketWish, NewVersion, Version};
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use crate::world::{World, assert_consistent};

/// One in which a zip finds room until its list has come.
async fn world(folder: &Path) -> World {
    std::fs::create_dir_all(folder.join("tmp")).expect("a folder");
    World::new(folder).await
}

/// Sends an archive; says how many files it has, or what was wrong.
async fn taken(world: &World, archive: Vec<u8>) -> Result<u64, String> {
    sent(world, archive).await.map(|version| version.row.files)
}

/// The same; says what became of it.
async fn sent(world: &World, archive: Vec<u8>) -> Result<Version, String> {
    let (engine, ada) = (&world.engine, &world.ada);
    let new = NewVersion {
        name: "some".to_owned(),
        team: None,
        source: "-".to_owned(),
        source_kind: SourceKind::Stream,
        description: String::new(),
        bucket: BucketWish::default(),
    };
    let begun = datastore::begin(engine, ada, new).await.expect("begun");
    let pieces: Vec<_> = archive
        .chunks(100_000)
        .map(|piece| Ok(Bytes::copy_from_slice(piece)))
        .collect();
    let id = begun.row.id.to_string();
    let made = datastore::receive(engine, ada, &id, stream::iter(pieces)).await;
    made.map_err(|error| error.to_string())
}

fn entry(name: &str, kind: tar::EntryType, bytes: &[u8], target: &str) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    // As it is, also where no honest program would write it.
    header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
    header.as_mut_bytes()[157..157 + target.len()].copy_from_slice(target.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_size(bytes.len() as u64);
    header.set_cksum();
    let mut entry = header.as_bytes().to_vec();
    entry.extend(bytes);
    entry.resize(entry.len().next_multiple_of(512), 0);
    entry
}

fn file(name: &str, bytes: &[u8]) -> Vec<u8> {
    entry(name, tar::EntryType::Regular, bytes, "")
}

fn link(name: &str, target: &str) -> Vec<u8> {
    entry(name, tar::EntryType::Link, b"", target)
}

/// What stands at the end.
fn end() -> Vec<u8> {
    vec![0; 1_024]
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(bytes).expect("packed");
    packed.finish().expect("packed")
}

fn zip(names: &[&str], options: SimpleFileOptions, bytes: &[u8]) -> Vec<u8> {
    let mut zip = ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for name in names {
        zip.start_file(*name, options).expect("begun");
        zip.write_all(bytes).expect("written");
    }
    zip.finish().expect("ended").into_inner()
}

/// The same with one byte changed, counted from the end.
fn flipped(mut archive: Vec<u8>, from_end: usize) -> Vec<u8> {
    let at = archive.len() - from_end;
    archive[at] ^= 1;
    archive
}

fn cut(mut archive: Vec<u8>, bytes: usize) -> Vec<u8> {
    archive.truncate(archive.len() - bytes);
    archive
}

fn noise(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_whole_is_taken() {
    let dir = tempfile::tempdir().expect("a folder");
    let world = world(dir.path()).await;
    let stored = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    let tar = [file("a/x", b"1"), file("b", &noise(700_000)), end()].concat();
    for (archive, files) in [
        (tar.clone(), 2),
        (gzip(&tar), 2),
        // Padded, as tapes are; what stands behind what gzip has packed is ignored by gzip.
        ([gzip(&tar), vec![0; 700]].concat(), 2),
        ([gzip(&tar[..900]), gzip(&tar[900..])].concat(), 2),
        (zstd::encode_all(&tar[..], 3).expect("packed"), 2),
        ([file("x", b"1"), file("x", b"22"), end()].concat(), 1),
        ([file("x", b"1"), link("y", "x"), end()].concat(), 2),
        ([file("A/x", b"1"), file("a/x", b"2"), end()].concat(), 2),
        (zip(&["a/x", "b"], SimpleFileOptions::default(), b"text"), 2),
        (
            zip(&["a/x", "b"], stored.large_file(true), &noise(300_000)),
            2,
        ),
        (end(), 0),
    ] {
        assert_eq!(taken(&world, archive).await, Ok(files));
    }
    assert_consistent(&world.engine).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_is_refused_in_words() {
    let dir = tempfile::tempdir().expect("a folder");
    let world = world(dir.path()).await;
    let stored = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    let tar = [file("a/x", b"1"), file("b", &noise(700_000)), end()].concat();
    let device = entry("null", tar::EntryType::Char, b"", "");
    let zipped = |names: &[&str]| zip(names, stored, b"some text in it");
    for (archive, expected) in [
        (Vec::new(), "it is empty"),
        (b"<!DOCTYPE html><p>Sign in".to_vec(), "it is a web page"),
        (gzip(b"hello"), "what is packed in it is no tar"),
        (gzip(&[b'x'; 5_000]), "what is packed in it is no tar"),
        // Cut, also where nothing of an entry is missing.
        (cut(tar.clone(), 1_024), "ends without the mark"),
        (cut(tar.clone(), 100_000), "is damaged or was cut"),
        (
            cut(gzip(&tar), 100_000),
            "the archive, at 'b', is damaged or was cut",
        ),
        (cut(gzip(&tar), 4), "is damaged or was cut"),
        (
            cut(zstd::encode_all(&tar[..], 3).expect("packed"), 4),
            "damaged",
        ),
        (cut(zipped(&["a"]), 20), "is damaged or was cut"),
        // The sums at the end.
        (flipped(gzip(&tar), 8), "does not have a matching checksum"),
        (
            flipped(tar.clone(), 1_024 + 700_416 + 400),
            "header checksum mismatch",
        ),
        (
            flipped(zipped(&["a"]), 75),
            "the archive, at 'a', is damaged",
        ),
        // Names that lead out, and what is no file.
        (
            [file("/etc/x", b"1"), end()].concat(),
            "'/etc/x' (an absolute path)",
        ),
        (
            [file("a/../../x", b"1"), end()].concat(),
            "'a/../../x' (it climbs out)",
        ),
        ([device, end()].concat(), "'null' (no file, folder or link)"),
        (
            [link("y", "/etc/passwd"), end()].concat(),
            "'/etc/passwd' (an absolute path)",
        ),
        (
            [link("y", "x"), file("x", b"1"), end()].concat(),
            "'y' (a link to 'x', which does not",
        ),
        (
            [file("d", b"1"), file("d/x", b"1"), end()].concat(),
            "'d/x' lies below 'd'",
        ),
        (zipped(&["../x"]), "'../x' (it climbs out)"),
        (zipped(&[&"n".repeat(300)]), "a name of more than 255 bytes"),
        (
            zipped(&[&["d"; 3_000].join("/")]),
            "a path of more than 4095 bytes",
        ),
    ] {
        let said = taken(&world, archive).await.expect_err(expected);
        assert!(said.contains(expected), "{expected}: {said}");
    }
    assert_consistent(&world.engine).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bombs_are_not_taken() {
    const MIB: usize = 1 << 20;
    let dir = tempfile::tempdir().expect("a folder");
    let world = world(dir.path()).await;
    // Behind the end of the tar, where nobody looks but for what it adds up to.
    let zeros = vec![0; MIB];
    let mut behind = zstd::Encoder::new(Vec::new(), 1).expect("begun");
    behind.write_all(&end()).expect("packed");
    for _ in 0..1_100 {
        behind.write_all(&zeros).expect("packed");
    }
    let behind = behind.finish().expect("packed");
    let mut zip = ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for number in 0..3 {
        let zstd = zip::CompressionMethod::Zstd;
        let options = SimpleFileOptions::default().compression_method(zstd);
        zip.start_file(format!("{number}"), options).expect("begun");
        for _ in 0..400 {
            zip.write_all(&zeros).expect("written");
        }
    }
    let zip = zip.finish().expect("ended").into_inner();
    for archive in [behind, zip] {
        let said = taken(&world, archive).await.expect_err("a bomb");
        assert!(said.contains("unpacks to more than 300 times"), "{said}");
    }
    assert_consistent(&world.engine).await;
}

/// An empty file whose path is longer than a header has room for.
fn long_named(number: usize) -> Vec<u8> {
    let path = format!("{number}/{}", vec!["n".repeat(240); 16].join("/"));
    let mut text = path.into_bytes();
    text.push(0);
    let name = entry("././@LongLink", tar::EntryType::GNULongName, &text, "");
    [name, file("cut", b"")].concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_without_end_are_not_taken() {
    let dir = tempfile::tempdir().expect("a folder");
    let world = world(dir.path()).await;
    // Names of 3.9 kB that pack to nothing: the list would take a thousand times the archive.
    let mut packed = zstd::Encoder::new(Vec::new(), 1).expect("begun");
    for number in 0..40_000 {
        packed.write_all(&long_named(number)).expect("packed");
    }
    packed.write_all(&end()).expect("packed");
    let packed = packed.finish().expect("packed");
    assert!(packed.len() < 1 << 20, "{}", packed.len());
    let said = taken(&world, packed).await.expect_err("a bomb");
    assert!(said.contains("unpacks to more than 300 times"), "{said}");
    assert_consistent(&world.engine).await;
}

/// A zip of empty files, behind something else, whose end says that it has `said` of them.
fn bare_zip(entries: u32, said: u16) -> Vec<u8> {
    let before = b"PK\x03\x04 is how it begins, and this is none".to_vec();
    let (mut body, mut list) = (Vec::new(), Vec::new());
    for number in 0..entries {
        let name = format!("{number:08}");
        let at = u32::try_from(body.len()).expect("small");
        // Method, time, sum and sizes are zeros.
        body.extend(b"PK\x03\x04\x14\0\0\0\0\0\0\0\x21\0");
        body.extend([0; 12]);
        body.extend([8, 0, 0, 0]);
        body.extend(name.as_bytes());
        list.extend(b"PK\x01\x02\x14\0\x14\0\0\0\0\0\0\0\x21\0");
        list.extend([0; 12]);
        list.extend([8, 0, 0, 0, 0, 0]);
        list.extend([0; 8]);
        list.extend(at.to_le_bytes());
        list.extend(name.as_bytes());
    }
    let number = |bytes: usize| u32::try_from(bytes).expect("small").to_le_bytes();
    let mut end = b"PK\x05\x06\0\0\0\0".to_vec();
    end.extend([said.to_le_bytes(), said.to_le_bytes()].concat());
    end.extend([number(list.len()), number(body.len())].concat());
    end.extend(b"\x08\0a remark");
    [before, body, list, end].concat()
}

/// One whose large end says that it has so many.
fn boastful_zip(entries: u64) -> Vec<u8> {
    let mut zip = b"PK\x03\x04".to_vec();
    zip.extend(b"PK\x06\x06\x2c\0\0\0\0\0\0\0\x2d\0\x2d\0");
    zip.extend([0; 8]);
    for value in [entries, entries, entries * 46, 4] {
        zip.extend(value.to_le_bytes());
    }
    zip.extend(b"PK\x06\x07\0\0\0\0\x04\0\0\0\0\0\0\0\x01\0\0\0");
    zip.extend(b"PK\x05\x06\0\0\0\0");
    zip.extend([0xff; 12]);
    zip.extend([0; 2]);
    zip
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_list_of_a_zip_is_read_in_pieces() {
    let dir = tempfile::tempdir().expect("a folder");
    let world = world(dir.path()).await;
    // One in the small format that has more than that can say.
    let archive = bare_zip(66_000, (66_000_u32 - 65_536) as u16);
    assert_eq!(taken(&world, archive).await, Ok(66_000));
    for (archive, expected) in [
        (bare_zip(3, 2), "its list has another length than it says"),
        (boastful_zip(2_000_001), "more than 2000000 entries"),
        (boastful_zip(1_999_999), "its list is not where it says"),
        (flipped(bare_zip(3, 3), 138), "its list has something else"),
    ] {
        let said = taken(&world, archive).await.expect_err(expected);
        assert!(said.contains(expected), "{expected}: {said}");
    }
    assert_consistent(&world.engine).await;
}
