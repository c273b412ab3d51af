//! Archives as programs make them: what is in them is what those programs take out again.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;

use grid_engine::datastore::Version;

use super::{cut, end, entry, file, sent, taken, world};
use crate::staging::content;
use crate::world::{World, assert_consistent};

const MIB: u64 = 1 << 20;

/// What `tar` makes of the folder `sp`.
fn tar(dir: &Path, arguments: &[&str]) -> Vec<u8> {
    let mut command = Command::new("tar");
    command.current_dir(dir);
    if arguments.contains(&"-S") {
        // Where the holes are is asked of the bytes, which are the same on every disk.
        command.arg("--hole-detection=raw");
    }
    command.args(arguments).args(["-cf", "-", "sp"]);
    let output = command.output().expect("`tar` runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    output.stdout
}

/// The entry of a path, and what is in it.
pub(super) async fn one(world: &World, version: &Version, path: &str) -> (i64, Vec<u8>) {
    let (engine, ada) = (&world.engine, &world.ada);
    let id = version.row.id.to_string();
    let opened = grid_engine::datastore::open(engine, ada, &id, path).await;
    let modified_ms = opened.expect("a file").entry.modified_ms;
    (modified_ms, content(engine, ada, &id, path).await.into())
}

/// A file of so many bytes, all zeros but for what lies at some places.
fn holes(path: &Path, size: u64, pieces: &[(u64, &[u8])]) -> Vec<u8> {
    let file = File::create(path).expect("a file");
    file.set_len(size).expect("as long");
    for (at, bytes) in pieces {
        file.write_all_at(bytes, *at).expect("written");
    }
    fs::read(path).expect("read")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_with_holes_are_whole_whatever_way_they_are_packed() {
    let dir = tempfile::tempdir().expect("a folder");
    let world = world(dir.path()).await;
    fs::create_dir(dir.path().join("sp")).expect("a folder");
    let noise = super::noise(70_000);
    // Every second block: more pieces than one block of any list has room for.
    let comb: Vec<_> = (0..500).map(|at| (at * 8_192, &noise[..512])).collect();
    let in_the_middle = [(3 * MIB, &noise[..]), (7 * MIB + 512, &b"x"[..])];
    let long = "n".repeat(150);
    let files = [
        ("s", 8 * MIB, &in_the_middle[..]),
        ("ends", 3 * MIB + 3, &[(0, b"begin"), (3 * MIB, b"end")]),
        ("comb", 5 * MIB, &comb),
        ("zeros", 2 * MIB, &[]),
        ("small", 6_000, &[(5_999, b"x")]),
        (&long, MIB, &[(5_000, b"long")]),
    ];
    let files = files.map(|(name, size, pieces)| {
        let path = format!("sp/{name}");
        let bytes = holes(&dir.path().join(&path), size, pieces);
        (path, bytes)
    });
    for format in [
        &["-S", "--format=gnu"][..],
        &["-S", "--format=pax", "--sparse-version=0.0"],
        &["-S", "--format=pax", "--sparse-version=0.1"],
        &["-S", "--format=pax", "--sparse-version=1.0"],
        &["--format=pax"],
        &["--format=ustar", "--exclude", &long],
        &["--format=v7", "--exclude", &long],
    ] {
        let archive = tar(dir.path(), format);
        let version = sent(&world, archive).await.expect("taken");
        let is_short = format.contains(&"--exclude");
        let count = files.len() - usize::from(is_short);
        assert_eq!(version.row.files, count as u64, "{format:?}");
        for (path, expected) in &files[..count] {
            let (_, bytes) = one(&world, &version, path).await;
            assert!(bytes == *expected, "{path} of {format:?} has other bytes");
        }
    }
    assert_consistent(&world.engine).await;
}

/// Attributes in front of an entry.
fn attributes(lines: &[(&str, &str)]) -> Vec<u8> {
    let line = |(keyword, value): &(&str, &str)| {
        let rest = keyword.len() + value.len() + 3;
        let length = (1..).find(|digits| (rest + digits).to_string().len() == *digits);
        format!("{} {keyword}={value}\n", rest + length.expect("some"))
    };
    let text: String = lines.iter().map(line).collect();
    entry(
        "p/PaxHeaders/s",
        tar::EntryType::XHeader,
        text.as_bytes(),
        "",
    )
}

/// A file of 4 KiB with a hole, with a list in front of its bytes and attributes.
fn with_holes(list: &str, lines: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = list.as_bytes().to_vec();
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes.extend([b'x'; 512]);
    [attributes(lines), file("GNUSparseFile.1/s", &bytes), end()].concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_map_of_holes_is_refused_and_names_the_file() {
    const NAME: (&str, &str) = ("GNU.sparse.name", "p/s");
    const SIZE: (&str, &str) = ("GNU.sparse.realsize", "4096");
    const ONE: [(&str, &str); 2] = [("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0")];
    let dir = tempfile::tempdir().expect("a folder");
    let world = world(dir.path()).await;
    let first = [&ONE[..], &[NAME, SIZE]].concat();
    let mapped = |map| [NAME, SIZE, ("GNU.sparse.map", map)];
    for whole in [
        with_holes("2\n512\n512\n4096\n0\n", &first),
        with_holes("3\n0\n0\n512\n512\n4096\n0\n", &first),
        with_holes("", &mapped("512,512,4096,0")),
    ] {
        let version = sent(&world, whole).await.expect("whole");
        let (_, bytes) = one(&world, &version, "p/s").await;
        assert!(bytes == [vec![0; 512], vec![b'x'; 512], vec![0; 3_072]].concat());
    }
    let text = |lines: &[(&str, &str)]| with_holes("", lines);
    for (archive, expected) in [
        (with_holes("2\n512\n512\n", &first), "something else in it"),
        (with_holes("1\n512\n512\n", &first), "ends elsewhere"),
        (with_holes("1\n512\n513\n", &first), "more or fewer bytes"),
        (with_holes("1\n512\n-1\n", &first), "something else in it"),
        (with_holes("1\n4000\n512\n", &first), "behind its end"),
        (with_holes("99999999\n", &first), "cannot be taken apart"),
        (with_holes(&"7".repeat(600), &first), "something else in it"),
        (with_holes(&"11\n".repeat(60), &first), "same place"),
        (text(&first), "something else in it"),
        (text(&[&ONE[..], &[NAME]].concat()), "does not say how long"),
        (text(&[NAME, SIZE]), "does not say where"),
        (
            text(&[("GNU.sparse.major", "2"), NAME, SIZE]),
            "not known; unpack it",
        ),
        (text(&mapped("512,512,9")), "has no length"),
        (text(&mapped("512,1024")), "more or fewer bytes"),
        (text(&mapped("x,1024")), "is no number"),
        (
            text(&[&mapped("512,512")[..], &[("GNU.sparse.numblocks", "2")]].concat()),
            "more or fewer pieces",
        ),
        (text(&[SIZE, ("GNU.sparse.size", "9"), NAME]), "two lengths"),
    ] {
        let said = taken(&world, archive).await.expect_err(expected);
        assert!(said.contains(expected), "{expected}: {said}");
        assert!(said.contains("/s'"), "{said}");
    }
    assert_consistent(&world.engine).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn holes_count_as_what_they_unpack_to() {
    let dir = tempfile::tempdir().expect("a folder");
    let world = world(dir.path()).await;
    let lines = [
        ("GNU.sparse.name", "p/s"),
        ("GNU.sparse.size", "999999999999"),
        ("GNU.sparse.map", "512,512,999999999999,0"),
    ];
    let said = taken(&world, with_holes("", &lines)).await;
    let said = said.expect_err("a bomb");
    assert!(said.contains("unpacks to more than 300 times"), "{said}");
    let size = ("GNU.sparse.size", "1024");
    let archive = with_holes("", &[lines[0], size, ("GNU.sparse.map", "512,512")]);
    let said = taken(&world, cut(archive, 1_200)).await.expect_err("cut");
    assert!(said.contains("'p/s', is damaged or was cut"), "{said}");
    assert_consistent(&world.engine).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn times_in_a_tar_are_kept_to_the_millisecond() {
    let dir = tempfile::tempdir().expect("a folder");
    let world = world(dir.path()).await;
    fs::create_dir(dir.path().join("sp")).expect("a folder");
    fs::write(dir.path().join("sp/s"), "text").expect("written");
    for (format, time, expected) in [
        ("pax", "@1700000000.123456789", 1_700_000_000_123),
        ("pax", "@-86400.25", -86_400_250),
        ("pax", "@99999999999.5", 99_999_999_999_500),
        ("gnu", "@1700000000.9", 1_700_000_000_000),
        ("gnu", "@-86400", -86_400_000),
        ("gnu", "@99999999999", 99_999_999_999_000),
        // Later than any calendar: as late as is kept.
        ("gnu", "@999999999999999", 253_402_207_200_000),
        ("pax", "@-999999999999999", -62_135_596_800_000),
    ] {
        let (format, time) = (format!("--format={format}"), format!("--mtime={time}"));
        let archive = tar(dir.path(), &[&format, &time]);
        let version = sent(&world, archive).await.expect("taken");
        let (modified_ms, _) = one(&world, &version, "sp/s").await;
        assert_eq!(modified_ms, expected, "{format} {time}");
    }
    // Said once for all.
    let for_all = "--pax-option=mtime=12.5,delete=mtime";
    let archive = tar(dir.path(), &["--format=pax", for_all]);
    let version = sent(&world, archive).await.expect("taken");
    assert_eq!(one(&world, &version, "sp/s").await.0, 12_500);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_in_a_tar_are_what_tar_takes_them_for() {
    let dir = tempfile::tempdir().expect("a folder");
    let world = world(dir.path()).await;
    fs::create_dir(dir.path().join("sp")).expect("a folder");
    let line = "l".repeat(120);
    let names = [
        "a\nb=c",
        "\n",
        &format!("{line}\n{line}"),
        "ü",
        "x y",
        "back\\slash",
    ];
    for name in names {
        fs::write(dir.path().join("sp").join(name), name).expect("written");
    }
    fs::hard_link(dir.path().join("sp/ü"), dir.path().join("sp/same")).expect("linked");
    for format in [&["--format=pax", "--label=some"][..], &["--format=gnu"]] {
        let version = sent(&world, tar(dir.path(), format)).await.expect("taken");
        assert_eq!(version.row.files, names.len() as u64 + 1);
        for name in names {
            let (_, bytes) = one(&world, &version, &format!("sp/{name}")).await;
            assert!(bytes == name.as_bytes(), "{name:?} of {format:?}");
        }
    }
    assert_consistent(&world.engine).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_in_words_does_nothing_to_a_terminal() {
    let dir = tempfile::tempdir().expect("a folder");
    let world = world(dir.path()).await;
    let below = [file("\u{1b}[2J", b"1"), file("\u{1b}[2J/x", b"1"), end()].concat();
    let out = [entry("x", tar::EntryType::Symlink, b"", "/\u{1b}"), end()].concat();
    let before = [entry("x", tar::EntryType::Link, b"", "\u{1b}"), end()].concat();
    for (archive, expected) in [
        (below, "which is no folder"),
        (out, r"leads out, to /\u{1b}"),
        (before, r"a link to '\u{1b}', which does not come before it"),
    ] {
        let said = taken(&world, archive).await.expect_err(expected);
        assert!(said.contains(expected), "{expected}: {said}");
        assert!(!said.contains(char::is_control), "{said:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_no_name_is_refused_unless_it_is_the_top() {
    let dir = tempfile::tempdir().expect("a folder");
    let world = world(dir.path()).await;
    let top = entry("./", tar::EntryType::Directory, b"", "");
    let old = entry("d/", tar::EntryType::Regular, b"", "");
    let whole = [top.clone(), old, file("./x", b"1"), end()].concat();
    assert_eq!(taken(&world, whole).await, Ok(1));
    let folder = entry("d/", tar::EntryType::Directory, b"1", "");
    for full in [file("d/", b"1"), folder] {
        let said = taken(&world, [full, end()].concat()).await;
        let said = said.expect_err("refused");
        assert!(said.contains("'d/' (a folder that has bytes)"), "{said}");
    }
    for name in [".", "", "./.", "d/."] {
        for kind in [tar::EntryType::Regular, tar::EntryType::Symlink] {
            let archive = [top.clone(), entry(name, kind, b"", "x"), end()].concat();
            let said = taken(&world, archive).await.expect_err("refused");
            let expected = format!("'{name}' (no name for something that is no folder)");
            assert!(said.contains(&expected), "{said}");
        }
    }
}
