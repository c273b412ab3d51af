//! Lists read back, share what they have in common, and stay inside themselves.

use std::collections::HashSet;

use grid_core::time::file_ms;
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

/// What the server does with a part: its block, or why there is none.
fn taken(offer: Offer, before: &[Entry]) -> Option<Part> {
    let bytes = write_offers(&[offer]);
    let offers = parse_offers(&bytes, 1, 9_999).expect("reads");
    let before = match before {
        [] => Unpacked::default(),
        _ => Unpacked::of(&encode(before)).expect("reads"),
    };
    let mut seen = Vec::new();
    let part = Part::offered(&offers[0], &before, true, |line, is_new| {
        seen.push((line.to_entry(), is_new));
    });
    let part = part.expect("good")?;
    let entries: Vec<Entry> = seen.iter().map(|(entry, _)| entry.clone()).collect();
    let of_all = Part::of(&entries, true).expect("good");
    assert_eq!((&of_all.digest, of_all.totals), (&part.digest, part.totals));
    assert_eq!(of_all.end.text(), part.end.text());
    assert_eq!(part.last(), entries[entries.len() - 1].path);
    let put: Vec<&Entry> = match &offers[0] {
        Offer::Same { .. } => Vec::new(),
        Offer::Edited { put, .. } => put.iter().collect(),
        Offer::Whole { entries } => entries.iter().collect(),
    };
    let new = seen.iter().filter(|(_, is_new)| *is_new);
    assert_eq!(new.map(|(entry, _)| entry).collect::<Vec<_>>(), put);
    Some(part)
}

#[test]
fn a_part_is_sent_as_what_is_new_to_the_block_before() {
    let (blocks, _) = build(&many(3_000));
    let before = decode(&blocks[1].bytes).expect("reads");
    let mut after = before.clone();
    after.remove(5);
    after[7].mode = 0o600;
    let new = file(&format!("{}x", after[9].path), 3);
    after.insert(10, new.clone());
    let edited = Offer::Edited {
        block: blocks[1].blob,
        digest: digest(&after),
        removed: vec![before[5].path.clone()],
        put: vec![after[7].clone(), new],
    };
    assert!(write_offers(std::slice::from_ref(&edited)).len() < 400);
    let other = &before[1..];
    assert!(taken(edited.clone(), other).is_none(), "of another block");
    let part = taken(edited, &before).expect("meant of it");
    assert_eq!(part.digest, digest(&after));
    let block = blocks[1].blob;
    let same = taken(Offer::Same { block }, &before).expect("meant of it");
    assert_eq!(same.digest, digest(&before));
    assert_eq!(same.store(), blocks[1], "the same bytes as before");
    let whole = Offer::Whole {
        entries: after.clone(),
    };
    let part = taken(whole, &[]).expect("of itself");
    assert_eq!(part.digest, digest(&after));
    for cut in [3, 5, 40, 70] {
        let bytes = write_offers(&[
            Offer::Same { block },
            Offer::Whole {
                entries: after.clone(),
            },
        ]);
        assert!(parse_offers(&bytes[..cut], 9, 9_999).is_err(), "{cut}");
        assert!(parse_offers(&bytes, 1, 9_999).is_err() && parse_offers(&bytes, 9, 9).is_err());
    }
}

#[test]
fn blocks_that_are_joined_make_the_same_list_as_their_entries() {
    let mut entries = many(9_000);
    // What lies across the end of a block must not lie below a file before it.
    entries.push(file("data/x", 1));
    entries.push(folder("data/x-"));
    let (blocks, built) = build(&entries);
    let index = Index::decode(&built.index.bytes).expect("reads");
    let mut builder = Builder::default();
    for (number, (named, stored)) in index.blocks.iter().zip(&blocks).enumerate() {
        let entries = decode(&stored.bytes).expect("reads");
        let part = Part::of(&entries, number == 0).expect("good");
        assert!(part.is_block);
        let end = Check::parse(&part.end.text());
        if number % 3 == 1 {
            let begun = entries
                .into_iter()
                .flat_map(|entry| builder.push(entry).expect("good"));
            assert!(begun.count() <= 1);
        } else {
            assert!(builder.join(named, end).expect("good").is_some());
        }
    }
    assert_eq!(builder.finish().index, built.index);
}

#[test]
fn what_lies_below_a_file_of_another_block_is_found() {
    let part = |entries: &[Entry]| {
        let part = Part::of(entries, true).expect("good");
        let block = BlockRef {
            blob: part.digest,
            first: part.first.clone(),
            totals: part.totals,
        };
        (block, Check::parse(&part.end.text()))
    };
    let mut builder = Builder::default();
    let (block, end) = part(&[file("a", 1), file("a.b", 1), file("a.b.c", 1)]);
    assert!(builder.join(&block, end).expect("good").is_some());
    let (block, end) = part(&[file("a.c", 1), file("a/x", 1)]);
    // It cannot be said without looking at each, and each then says it.
    assert_eq!(builder.join(&block, end).expect("perhaps"), None);
    builder.push(file("a.c", 1)).expect("good");
    let error = builder.push(file("a/x", 1)).expect_err("refused");
    assert_eq!(
        error,
        Error::Below {
            path: "a/x".to_owned(),
            above: "a".to_owned()
        }
    );
    let (block, end) = part(&[file("a.b", 1)]);
    let mut builder = Builder::default();
    builder.push(file("b", 1)).expect("good");
    let early = builder.join(&block, end).map(drop);
    assert!(early.is_err() || !begins_block("a.b"), "{early:?}");
}

#[test]
fn where_blocks_end_is_the_same_for_who_cuts_and_who_builds() {
    let entries = many(20_000);
    let (_, built) = build(&entries);
    let index = Index::decode(&built.index.bytes).expect("reads");
    let mut cutter = Cutter::default();
    let mut firsts = vec![entries[0].path.clone()];
    for entry in &entries {
        if cutter.next(begins_block(&entry.path), text_bytes(entry)) {
            firsts.push(entry.path.clone());
        }
    }
    let built: Vec<String> = index.blocks.into_iter().map(|block| block.first).collect();
    assert_eq!(firsts, built);
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
    (
        ".{0,30}",
        any::<u32>(),
        any::<i64>().prop_map(file_ms),
        node,
    )
        .prop_map(|(path, mode, modified_ms, node)| Entry {
            path,
            mode,
            modified_ms,
            node,
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
        let _ = parse_offers(&bytes, 9, 9);
        let _ = parse_offers(&[b"gdo1", &bytes[..]].concat(), 9, 9);
    }
}

#[test]
fn of_what_is_removed_there_is_no_more_than_of_entries() {
    let removed: Vec<String> = (0..10).map(|n| format!("file-{n}")).collect();
    let edited = Offer::Edited {
        block: BlobId::from_bytes([1; 32]),
        digest: BlobId::from_bytes([2; 32]),
        removed,
        put: Vec::new(),
    };
    let bytes = write_offers(&[edited.clone(), edited]);
    assert!(parse_offers(&bytes, 9, 20).is_ok());
    assert!(parse_offers(&bytes, 9, 19).is_err());
}

#[test]
fn times_are_bounded_whoever_wrote_them_and_however_they_were_written() {
    let entry = |path: &str, modified_ms| Entry {
        path: path.to_owned(),
        mode: 0o644,
        modified_ms,
        node: Node::Folder,
    };
    let times = [i64::MIN, -1, 5, 1_000_000_000_000_000, i64::MAX];
    let list = |bound: fn(i64) -> i64| -> Vec<Entry> {
        let names = ["a", "b", "c", "d", "e"];
        let both = names.into_iter().zip(times);
        both.map(|(name, ms)| entry(name, bound(ms))).collect()
    };
    let (sent, kept) = (list(|ms| ms), list(file_ms));
    // Who names a part by its entries and who keeps it agree.
    assert_eq!(digest(&sent), digest(&kept));
    assert_eq!(decode(&encode(&sent)).expect("a list"), kept);
    // A list from before: one entry at the end of all time.
    let mut old = b"gdb1".to_vec();
    let mut out = wire::Writer(Vec::new());
    out.path("", "a");
    out.number(0o644);
    out.signed(i64::MAX);
    old.extend(out.0);
    old.push(1);
    let read = decode(&wire::pack(&old)).expect("a list");
    assert_eq!(read, [entry("a", file_ms(i64::MAX))]);
}
