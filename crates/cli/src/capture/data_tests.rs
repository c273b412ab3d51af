//! A folder comes in the order of a list, in the blocks that the server makes of it, and
//! beside what it was.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::Result;
use grid_core::blob::BlobId;
use grid_core::time::Timestamp;
use grid_manifest::{Builder, Entry as Line, Offer, Part, Unpacked, decode};

use super::blocks::{Block, Blocks, Lines};
use super::data::remembered;
use super::inspect::{Found, Kind, inspect_data};
use super::list::{Place, Writer};
use super::walk::{Step, Walk};

fn write(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().expect("below")).expect("a folder");
    fs::write(path, text).expect("a file");
}

fn walked(root: &Path) -> Result<Vec<Found>> {
    let walk = Walk::begin(root)?;
    let mut found = Vec::new();
    while let Some(steps) = walk.next()? {
        found.extend(steps.into_iter().filter_map(|step| match step {
            Step::Found(found) => Some(found),
            Step::Entered(..) => None,
        }));
    }
    walk.check()?;
    Ok(found)
}

/// Every path below a folder, in no order.
fn paths(root: &Path, below: &str, into: &mut Vec<String>) {
    for entry in fs::read_dir(root.join(below)).expect("a folder") {
        let entry = entry.expect("an entry");
        let name = entry.file_name().into_string().expect("UTF-8");
        let path = format!("{below}{name}");
        if entry.file_type().expect("a type").is_dir() {
            paths(root, &format!("{path}/"), into);
        }
        into.push(path);
    }
}

#[test]
fn a_walk_comes_in_the_order_of_the_list_whatever_the_names_are() -> Result<()> {
    let tree = tempfile::tempdir()?;
    let root = tree.path();
    let names = [
        "a", "a-", "a-/x", "a.b/c", "a0", "b", "b!", "b!/b", "ü", "ü.",
    ];
    // Each of the names as a file, a folder, an empty folder, a link, or not at all.
    for number in 0..400_usize {
        let top = format!("{number}");
        for (at, name) in names.iter().enumerate() {
            let path = root.join(&top).join(name);
            let what = (number.wrapping_mul(2_654_435_761) >> (at * 2)) % 5;
            fs::create_dir_all(path.parent().expect("below")).ok();
            let _ = match what {
                0 => fs::write(&path, "x"),
                1 => fs::create_dir_all(&path),
                2 => fs::create_dir_all(path.join("in"))
                    .and_then(|()| fs::write(path.join("in/file"), "y")),
                3 => symlink("nowhere", &path),
                _ => Ok(()),
            };
        }
    }
    let root = root.canonicalize()?;
    let mut all = Vec::new();
    paths(&root, "", &mut all);
    let expected = inspect_data(&root, all)?;
    assert!(expected.len() > 1_800, "{}", expected.len());
    assert_eq!(walked(&root)?, expected);
    Ok(())
}

#[test]
fn what_cannot_be_sent_is_named_before_anything_is_begun() -> Result<()> {
    let tree = tempfile::tempdir()?;
    write(tree.path(), "a/b", "1");
    symlink("../..", tree.path().join("a/out"))?;
    symlink("/etc", tree.path().join("abroad"))?;
    let memory = tempfile::tempdir()?;
    let root = tree.path().canonicalize()?;
    let place = Place::of(memory.path(), &root);
    let refused = Blocks::begin(Lines::Folder(root.clone()), place.read());
    let error = refused.map(drop).expect_err("refused");
    let text = error.to_string();
    assert!(text.contains("a/out -> ../.., abroad -> /etc"), "{text}");
    Ok(())
}

/// A server that keeps blocks by name.
#[derive(Default)]
struct Kept {
    blocks: HashMap<BlobId, Vec<u8>>,
    entries: Vec<Line>,
    /// How many entries and removed paths travelled.
    travelled: usize,
}

/// Sends a folder the way it is sent, with the hashes of its files.
fn send(root: &Path, memory: &Path, kept: &mut Kept) -> Result<()> {
    let place = Place::of(memory, root);
    let mut blocks = Blocks::begin(Lines::Folder(root.to_owned()), place.read())?;
    // Seen from far in the future everything has settled.
    let later = Timestamp::from_millis(crate::clock::now().as_millis() + 60_000);
    let mut list: Writer = place.write(later);
    (kept.entries, kept.travelled) = (Vec::new(), 0);
    while let Some(mut block) = blocks.ready()? {
        fill(root, &mut block)?;
        list.block(remembered(&block));
        let offer = block.offer(true);
        kept.travelled += match &offer {
            Offer::Same { .. } => 0,
            Offer::Edited { removed, put, .. } => removed.len() + put.len(),
            Offer::Whole { entries } => entries.len(),
        };
        let before = match offer.before() {
            Some(name) => Unpacked::of(&kept.blocks[&name])?,
            None => Unpacked::default(),
        };
        let part = Part::offered(&offer, &before, block.number() == 0, |_, _| {})?;
        let part = part.expect("meant of this block");
        assert!(part.is_block && part.digest == block.digest());
        let digest = part.digest;
        list.name(block.number(), digest);
        let packed = part.store().bytes;
        kept.entries.extend(decode(&packed)?);
        kept.blocks.insert(digest, packed);
    }
    list.finish();
    Ok(())
}

fn fill(root: &Path, block: &mut Block) -> Result<()> {
    for entry in &mut block.entries {
        if entry.found.kind == Kind::File && entry.hash.is_none() {
            let bytes = fs::read(root.join(&entry.found.path))?;
            entry.hash = Some(*blake3::hash(&bytes).as_bytes());
        }
    }
    Ok(())
}

fn is_as_on_disk(root: &Path, kept: &Kept) -> Result<()> {
    let found = walked(root)?;
    assert_eq!(found.len(), kept.entries.len());
    let mut builder = Builder::default();
    for (found, entry) in found.iter().zip(&kept.entries) {
        assert_eq!(found.path, entry.path);
        assert_eq!(found.mode, entry.mode, "{}", found.path);
        if found.kind == Kind::File {
            let hash = blake3::hash(&fs::read(root.join(&found.path))?);
            let blob = BlobId::from_bytes(*hash.as_bytes());
            assert_eq!(entry.blob(), Some(blob), "{}", found.path);
        }
        builder.push(entry.clone())?;
    }
    Ok(())
}

#[test]
fn only_what_is_new_travels_and_the_list_is_as_the_folder() -> Result<()> {
    let (tree, memory) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let root = tree.path().canonicalize()?;
    for number in 0..9_000 {
        let folder = number / 500;
        write(
            &root,
            &format!("part-{folder:02}/{number:05}"),
            &format!("{number}"),
        );
    }
    fs::create_dir(root.join("empty"))?;
    let mut kept = Kept::default();
    let sent = |kept: &mut Kept| -> Result<usize> {
        send(&root, memory.path(), kept)?;
        is_as_on_disk(&root, kept)?;
        Ok(kept.travelled)
    };
    assert_eq!(sent(&mut kept)?, 9_001);
    assert_eq!(sent(&mut kept)?, 0);
    for number in [0, 1_234, 5_000, 8_999] {
        let folder = number / 500;
        write(&root, &format!("part-{folder:02}/{number:05}"), "changed");
    }
    write(&root, "part-03/01700.new", "new");
    fs::remove_file(root.join("part-07/03600"))?;
    assert_eq!(sent(&mut kept)?, 6);
    // Whatever comes and goes, what is kept is what is there.
    for round in 0..20_usize {
        for step in 0..60 {
            let number = (round * 7_919 + step * 104_729) % 9_000;
            let path = root.join(format!("part-{:02}/{number:05}", number / 500));
            match (round + step) % 3 {
                0 => drop(fs::remove_file(path)),
                1 => drop(fs::write(path, format!("{round}"))),
                _ => drop(fs::write(path.with_extension(format!("{round}")), "x")),
            }
        }
        if round % 10 == 9 {
            fs::rename(root.join("part-04"), root.join(format!("part-4{round}")))?;
            fs::create_dir_all(root.join("part-04"))?;
        }
        assert!(sent(&mut kept)? < 9_000);
    }
    assert_eq!(sent(&mut kept)?, 0);
    Ok(())
}

#[test]
fn a_memory_that_is_torn_is_read_as_far_as_it_goes() -> Result<()> {
    let (tree, memory) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let root = tree.path().canonicalize()?;
    for number in 0..5_000 {
        write(&root, &format!("{number:05}"), "x");
    }
    let mut kept = Kept::default();
    send(&root, memory.path(), &mut kept)?;
    for entry in fs::read_dir(memory.path().join("data/lists"))? {
        let path = entry?.path();
        let bytes = fs::read(&path)?;
        fs::write(&path, &bytes[..bytes.len() / 2])?;
    }
    let place = Place::of(memory.path(), &root);
    let mut known = 0;
    let mut reader = place.read();
    while reader.peek().is_some() {
        assert_eq!(reader.place().and_then(|(.., name)| name), None);
        known += 1;
        reader.advance();
    }
    assert!((1_000..4_500).contains(&known), "{known}");
    send(&root, memory.path(), &mut kept)?;
    is_as_on_disk(&root, &kept)?;
    send(&root, memory.path(), &mut kept)?;
    assert_eq!(kept.travelled, 0);
    Ok(())
}

#[test]
fn who_is_interrupted_goes_on_from_there() -> Result<()> {
    let (tree, memory) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let root = tree.path().canonicalize()?;
    for number in 0..5_000 {
        write(&root, &format!("{number:05}"), "x");
    }
    let mut kept = Kept::default();
    send(&root, memory.path(), &mut kept)?;
    write(&root, "00007", "other");
    let place = Place::of(memory.path(), &root);
    let later = Timestamp::from_millis(crate::clock::now().as_millis() + 60_000);
    let mut list = place.write(later);
    let mut blocks = Blocks::begin(Lines::Folder(root.clone()), place.read())?;
    let mut block = blocks.ready()?.expect("the first");
    fill(&root, &mut block)?;
    list.block(remembered(&block));
    drop(list);
    // What was read is known from there, and the rest from before.
    let mut blocks = Blocks::begin(Lines::Folder(root.clone()), place.read())?;
    let mut entries = 0;
    while let Some(block) = blocks.ready()? {
        assert!(block.entries.iter().all(|entry| entry.hash.is_some()));
        entries += block.len();
    }
    assert_eq!(entries, 5_000);
    send(&root, memory.path(), &mut kept)?;
    is_as_on_disk(&root, &kept)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changes_while_it_is_read_is_said() -> Result<()> {
    let (tree, memory) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let root = tree.path().canonicalize()?;
    for name in [
        "a/as-it-was",
        "a/gone",
        "a/other",
        "b/one",
        "c/d/one",
        "c/known",
    ] {
        write(&root, name, "x");
    }
    // As it is kept, and as it is found again in the list when it is too much.
    for is_kept in [true, false] {
        let mut data =
            tokio::task::block_in_place(|| super::data::Data::scan(&root, memory.path()))?;
        let mut group = data.next().await?;
        for block in &mut group {
            fill(&root, block)?;
            for entry in &mut block.entries {
                entry.was_read = entry.found.path != "c/known";
            }
        }
        data.remember(&group);
        if !is_kept {
            data.list.looks = None;
        }
        assert_eq!(data.changed(), Vec::<String>::new());
        write(&root, "a/other", "longer");
        // What was not read was as it had been, and is taken along as it was.
        write(&root, "c/known", "longer");
        fs::remove_file(root.join("a/gone"))?;
        write(&root, "c/d/new", "1");
        assert_eq!(data.changed(), ["a/", "a/gone", "a/other", "c/d/"]);
        drop(data);
        for (name, text) in [("a/other", "x"), ("a/gone", "x"), ("c/known", "x")] {
            write(&root, name, text);
        }
        fs::remove_file(root.join("c/d/new"))?;
    }
    Ok(())
}

#[test]
fn a_path_that_is_too_long_is_no_matter_of_permissions() -> Result<()> {
    use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};

    let tree = tempfile::tempdir()?;
    let name = "n".repeat(200);
    let mut folder = openat(CWD, tree.path(), OFlags::DIRECTORY, Mode::empty())?;
    // The system takes paths of up to 4,096 bytes.
    for _ in 0..22 {
        mkdirat(&folder, &name, Mode::RWXU)?;
        folder = openat(&folder, &name, OFlags::DIRECTORY, Mode::empty())?;
    }
    let error = walked(tree.path()).map(drop).expect_err("it is too long");
    let hint = crate::error::Report::of(&error).hint.unwrap_or_default();
    assert!(hint.contains("shorter names"), "{hint}: {error:#}");
    Ok(())
}
