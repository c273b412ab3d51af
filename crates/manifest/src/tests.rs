//! Lists read back, share what they have in common, and stay inside themselves.

use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

fn file(path: &str, size_bytes: u64) -> Entry {
    Entry {
        path: path.to_owned(),
        mode: 0o644,
        modified_ms: 1_700_000_000_000,
        node: Node::File {
            blob: BlobId::from_bytes(*blake3::hash(path.as_bytes()).as_bytes()),
            size_bytes,
        },
    }
}

fn link(path: &str, target: &str) -> Entry {
    Entry {
        node: Node::Link {
            target: target.to_owned(),
        },
        ..file(path, 0)
    }
}

fn folder(path: &str) -> Entry {
    Entry {
        node: Node::Folder,
        ..file(path, 0)
    }
}

/// Blocks by name, and the index.
fn build(entries: &[Entry]) -> (Vec<Stored>, Built) {
    let mut builder = Builder::default();
    let mut blocks = Vec::new();
    for entry in entries {
        blocks.extend(builder.push(entry.clone()).expect("good"));
    }
    let built = builder.finish();
    blocks.extend(built.last.clone());
    (blocks, built)
}

fn many(count: usize) -> Vec<Entry> {
    (0..count)
        .map(|n| file(&format!("data/{:03}/{n:07}.bin", n / 1_000), n as u64))
        .collect()
}

#[test]
fn a_long_list_reads_back_block_by_block() {
    let entries = many(20_000);
    let (blocks, built) = build(&entries);
    assert!(blocks.len() > 8, "{}", blocks.len());
    let index = Index::decode(&built.index.bytes).expect("reads");
    assert_eq!(index.totals, built.totals);
    assert_eq!(index.totals.files, 20_000);
    let back: Vec<Entry> = blocks
        .iter()
        .flat_map(|block| decode(&block.bytes).expect("reads"))
        .collect();
    assert_eq!(back, entries);
    for entry in entries.iter().step_by(97) {
        let block = &blocks[index.block_of(&entry.path)];
        let found = decode(&block.bytes).expect("reads");
        assert!(found.contains(entry), "{}", entry.path);
    }
}

#[test]
fn two_versions_share_all_blocks_but_those_around_what_changed() {
    let entries = many(50_000);
    let mut changed = entries.clone();
    changed.remove(30_000);
    changed.insert(10_000, file("data/009/0009999.bin.new", 5));
    let names = |entries: &[Entry]| -> HashSet<BlobId> {
        build(entries).0.iter().map(|stored| stored.blob).collect()
    };
    let (one, two) = (names(&entries), names(&changed));
    assert!(two.difference(&one).count() <= 2);
    assert!(one.len() > 20);
}

#[test]
fn a_list_stays_inside_itself() {
    let check = |entries: &[Entry]| {
        let mut check = Check::default();
        entries.iter().try_for_each(|entry| check.next(entry))
    };
    check(&[
        file("a", 1),
        file("a.txt", 1),
        folder("a0"),
        file("b/c", 1),
        link("b/d", "../a"),
        link("b/e", "./c"),
        file("ü/ö", 0),
    ])
    .expect("good");
    for (entries, expected) in [
        (vec![file("../a", 1)], "not a path"),
        (vec![file("/a", 1)], "not a path"),
        (vec![file("a//b", 1)], "not a path"),
        (vec![file("a/./b", 1)], "not a path"),
        (vec![file("", 1)], "not a path"),
        (vec![file("a\0", 1)], "not a path"),
        (vec![file("a", 1), file("a", 1)], "twice"),
        (vec![file("b", 1), file("a", 1)], "not sorted"),
        (
            vec![file("a", 1), file("a.txt", 1), file("a/b", 1)],
            "no folder",
        ),
        (vec![link("a", "b"), file("a/c", 1)], "no folder"),
        (vec![folder("a"), file("a/c", 1)], "something is in it"),
        (vec![link("a", "/etc/passwd")], "outside"),
        (vec![link("a", "..")], "outside"),
        (vec![link("b/a", "../../x")], "outside"),
        (vec![link("a", "")], "outside"),
        (vec![link("a", "b/../c")], "down and up"),
    ] {
        let error = check(&entries).expect_err("refused").to_string();
        assert!(error.contains(expected), "{entries:?}: {error}");
    }
}

#[test]
fn damage_is_found_and_not_believed() {
    let (blocks, built) = build(&many(100));
    assert!(decode(&built.index.bytes).is_err());
    assert!(Index::decode(&blocks[0].bytes).is_err());
    for bytes in [&b""[..], b"x", &blocks[0].bytes[..20]] {
        assert!(decode(bytes).is_err() && Index::decode(bytes).is_err());
    }
}

fn any_entry() -> impl Strategy<Value = Entry> {
    let node = prop_oneof![
        (any::<[u8; 32]>(), any::<u64>()).prop_map(|(hash, size_bytes)| Node::File {
            blob: BlobId::from_bytes(hash),
            size_bytes
        }),
        Just(Node::Folder),
        ".{1,20}".prop_map(|target| Node::Link { target }),
        (any::<u64>(), ".{0,20}").prop_map(|(size_bytes, tag)| Node::Elsewhere { size_bytes, tag }),
    ];
    (".{0,30}", any::<u32>(), any::<i64>(), node).prop_map(|(path, mode, modified_ms, node)| {
        Entry {
            path,
            mode,
            modified_ms,
            node,
        }
    })
}

proptest! {
    #[test]
    fn entries_read_back(entries in proptest::collection::vec(any_entry(), 0..50)) {
        let packed = encode(&entries);
        prop_assert_eq!(decode(&packed).expect("reads"), entries.clone());
        prop_assert_eq!(digest(&entries), digest(&entries.clone()));
    }

    #[test]
    fn nonsense_is_an_error_and_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode(&bytes);
        let _ = Index::decode(&bytes);
        let _ = decode(&wire::pack(&bytes));
    }
}
