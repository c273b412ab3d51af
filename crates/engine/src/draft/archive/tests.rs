//! Archives as programs make them, and as somebody makes them who means harm.

use std::io::Write;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::stream;
use grid_api::snapshot::TreeKind;
use tar::{Builder, EntryType, Header};

use super::{CODE_BYTES_MAX, Tree, read, receive};
use crate::error::Error;

/// An archive in the making.
struct Packed(Builder<Vec<u8>>);

impl Packed {
    fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    /// An entry whose name is written as it is, whatever it says.
    fn entry(mut self, kind: EntryType, name: &str, link: &str, bytes: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(bytes.len() as u64);
        header.set_mode(0o755);
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        self.0.append(&header, bytes).expect("an entry");
        self
    }

    fn file(self, name: &str, text: &str) -> Self {
        self.entry(EntryType::Regular, name, "", text.as_bytes())
    }

    /// A file with a name of any length, as GNU tar writes it.
    fn long(mut self, name: &str, text: &str) -> Self {
        let mut header = Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        let added = self.0.append_data(&mut header, name, text.as_bytes());
        added.expect("an entry");
        self
    }

    fn attributes(self, pairs: &[(&str, &str)]) -> Self {
        let mut text = String::new();
        for (key, value) in pairs {
            // The length counts itself.
            let rest = format!(" {key}={value}\n");
            let mut len = rest.len() + 1;
            while format!("{len}{rest}").len() != len {
                len += 1;
            }
            text.push_str(&format!("{len}{rest}"));
        }
        self.entry(EntryType::XHeader, "attributes", "", text.as_bytes())
    }

    fn packed(self) -> Vec<u8> {
        gzip(&self.0.into_inner().expect("an archive"))
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packer = GzEncoder::new(Vec::new(), Compression::fast());
    packer.write_all(bytes).expect("packed");
    packer.finish().expect("packed")
}

async fn tree_of_pieces(pieces: Vec<Result<Bytes, String>>) -> Result<Tree, Error> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("code.tar");
    receive(path.clone(), None, stream::iter(pieces)).await?;
    read(&path)
}

async fn tree(archive: &[u8]) -> Result<Tree, Error> {
    let pieces = archive.chunks(1_000).map(Bytes::copy_from_slice);
    tree_of_pieces(pieces.map(Ok).collect()).await
}

async fn paths(archive: Packed) -> Vec<String> {
    let tree = tree(&archive.packed()).await.expect("a tree");
    let mark = |kind: TreeKind| match kind {
        TreeKind::File => "",
        TreeKind::Folder => "/",
        TreeKind::Link => "@",
    };
    let entries = tree.entries.iter();
    entries
        .map(|entry| format!("{}{}", entry.path, mark(entry.kind)))
        .collect()
}

async fn refused(archive: &[u8]) -> String {
    let error = tree(archive).await.expect_err("refused");
    assert!(!matches!(error, Error::Internal(_)), "{error:?}");
    error.to_string()
}

#[tokio::test]
async fn a_tree_is_read_as_it_was_packed() {
    let archive = Packed::new()
        .entry(EntryType::Directory, "./", "", b"")
        .file("./train.py", "print(1)")
        .entry(EntryType::Directory, "./empty/", "", b"")
        .entry(EntryType::Directory, "./full", "", b"")
        .file("./full/a", "a")
        .entry(EntryType::Symlink, "./full/link", "../train.py", b"")
        .entry(EntryType::Link, "./same.py", "./train.py", b"")
        .file("./train.py", "print(2)");
    let tree = tree(&archive.packed()).await.expect("a tree");
    let found: Vec<_> = tree
        .entries
        .iter()
        .map(|entry| (entry.path.as_str(), entry.kind, entry.size_bytes))
        .collect();
    assert_eq!(
        found,
        [
            ("empty", TreeKind::Folder, 0),
            ("full/a", TreeKind::File, 1),
            ("full/link", TreeKind::Link, 0),
            ("same.py", TreeKind::File, 8),
            ("train.py", TreeKind::File, 8),
        ]
    );
    let content = |n: usize| tree.entries[n].content.clone();
    assert_eq!(content(2), "../train.py");
    assert_eq!(content(4), blake3::hash(b"print(2)").to_hex().as_str());
    assert_eq!(content(3), blake3::hash(b"print(1)").to_hex().as_str());
    assert_eq!(tree.entries[4].mode, 0o755);
}

#[tokio::test]
async fn names_may_be_long_in_either_way() {
    let long = format!("{}/ü.txt", "folder/".repeat(40));
    let long = long.replace("//", "/");
    let gnu = Packed::new().long(&long, "x");
    assert_eq!(paths(gnu).await, [long.as_str()]);
    let attributes = Packed::new()
        .attributes(&[("mtime", "1.5"), ("path", &format!("./{long}"))])
        .file("short", "x")
        .file("other", "y");
    assert_eq!(paths(attributes).await, [long.as_str(), "other"]);
    let link = Packed::new().attributes(&[("linkpath", "a")]).entry(
        EntryType::Symlink,
        "l",
        "/etc/passwd",
        b"",
    );
    assert_eq!(paths(link).await, ["l@"]);
}

#[tokio::test]
async fn nothing_leads_outside() {
    for name in ["../a", "a/../../b", "/etc/passwd", "./../x", "a/.."] {
        let archive = Packed::new().file(name, "x").packed();
        assert!(refused(&archive).await.contains("outside"), "{name}");
        let archive = Packed::new()
            .attributes(&[("path", name)])
            .file("fine", "x");
        assert!(
            refused(&archive.packed()).await.contains("outside"),
            "{name}"
        );
    }
    let archive = Packed::new().entry(EntryType::Link, "a", "/etc/passwd", b"");
    assert!(refused(&archive.packed()).await.contains("outside"));
    let archive = Packed::new().entry(EntryType::Link, "a", "not-there", b"");
    assert!(refused(&archive.packed()).await.contains("not-there"));
    // Where a symbolic link leads is looked at with the whole tree.
    let archive = Packed::new().entry(EntryType::Symlink, "a", "/etc/passwd", b"");
    assert_eq!(paths(archive).await, ["a@"]);
}

#[tokio::test]
async fn what_is_no_tree_is_refused() {
    let archive = Packed::new().file("a", "x").file("a/b", "y");
    assert!(
        refused(&archive.packed())
            .await
            .contains("a file and a folder")
    );
    for kind in [EntryType::Fifo, EntryType::Char, EntryType::Block] {
        let archive = Packed::new().entry(kind, "device", "", b"");
        assert!(refused(&archive.packed()).await.contains("'device'"));
    }
    let archive = Packed::new().entry(EntryType::GNUSparse, "s", "", b"");
    assert!(refused(&archive.packed()).await.contains("holes"));
    let archive = Packed::new()
        .attributes(&[("size", "99999999999")])
        .file("a", "x");
    assert!(refused(&archive.packed()).await.contains("too large"));
    let archive = Packed::new().entry(EntryType::GNULongName, "l", "", &[b'a'; 100_000]);
    assert!(refused(&archive.packed()).await.contains("too long"));
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Regular);
    header.set_size(0);
    header.as_old_mut().name[..2].copy_from_slice(&[0xff, b'x']);
    header.set_cksum();
    let mut archive = Builder::new(Vec::new());
    archive.append(&header, &[][..]).expect("an entry");
    let archive = gzip(&archive.into_inner().expect("an archive"));
    assert!(refused(&archive).await.contains("UTF-8"));
}

#[tokio::test]
async fn what_is_not_whole_is_refused() {
    let whole = Packed::new().file("train.py", &"x".repeat(5_000)).packed();
    for end in [0, 1, 9, whole.len() / 2, whole.len() - 1] {
        let text = refused(&whole[..end]).await;
        assert!(text.contains("whole .tar.gz"), "{end}: {text}");
    }
    let mut wrong = whole.clone();
    let last = wrong.len() - 5;
    wrong[last] ^= 0xff;
    assert!(refused(&wrong).await.contains("whole .tar.gz"));
    assert!(
        refused(b"PK\x03\x04 not gzip at all")
            .await
            .contains("whole .tar.gz")
    );
    // Whole to gzip, but not to tar.
    let text = refused(&gzip(&[b'x'; 2_000])).await;
    assert!(text.contains("tar archive"), "{text}");
    let tar = Packed::new().file("train.py", &"x".repeat(5_000)).0;
    let tar = tar.into_inner().expect("an archive");
    let text = refused(&gzip(&tar[..1_500])).await;
    assert!(text.contains("archive"), "{text}");
    let cut = vec![
        Ok(Bytes::copy_from_slice(&whole[..20])),
        Err("the connection broke".to_owned()),
    ];
    let error = tree_of_pieces(cut).await.expect_err("refused");
    assert_eq!(
        error.to_string(),
        "the upload was cut off after 20 bytes: the connection broke"
    );
}

#[tokio::test]
async fn a_small_archive_does_not_fill_the_disk() {
    let mut packer = GzEncoder::new(Vec::new(), Compression::best());
    let nothing = vec![0; 1 << 20];
    for _ in 0..600 {
        packer.write_all(&nothing).expect("packed");
    }
    let bomb = packer.finish().expect("packed");
    assert!(bomb.len() < 1 << 20, "{}", bomb.len());
    let text = refused(&bomb).await;
    assert!(text.contains("too large when it is unpacked"), "{text}");
}

#[tokio::test]
async fn what_is_said_to_be_too_large_is_not_taken() {
    let folder = tempfile::tempdir().expect("a folder");
    let never = stream::poll_fn(|_| -> std::task::Poll<Option<Result<Bytes, String>>> {
        panic!("nothing of it is read")
    });
    let path = folder.path().join("code.tar");
    let error = receive(path.clone(), Some(CODE_BYTES_MAX + 1), never).await;
    assert!(matches!(error, Err(Error::TooLarge { .. })), "{error:?}");
    assert!(!path.exists());
}
