//! Code that comes as one archive: a tar file, packed by gzip.
//!
//! It is never unpacked into a folder.  What comes is inflated into one file; the tree is
//! read out of that, and the bytes of its files go from there into the store.  So a path is
//! only ever text, and the tree obeys the rules of every captured tree: nothing outside it,
//! no link that leads out.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use bytes::{Bytes, BytesMut};
use flate2::write::MultiGzDecoder;
use futures::{Stream, StreamExt};
use grid_api::snapshot::{TreeEntry, TreeKind};
use grid_core::blob::BlobId;
use tar::{Archive, EntryType, PaxExtensions};
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio::sync::mpsc;

use crate::error::{Error, Result};
use crate::snapshot::{ENTRIES_MAX, TREE_BYTES_MAX};
use crate::{Engine, blob};

/// Bytes of an archive as it is sent (2 GB, as in the original product).  Higher: one
/// upload holds that much of the disk; lower: code with data in it does not fit.
pub const CODE_BYTES_MAX: u64 = 2_000_000_000;

/// Bytes of an archive when it is inflated: those of the largest tree, and the heads of its
/// entries.
pub const UNPACKED_BYTES_MAX: u64 = TREE_BYTES_MAX + 1_024 * ENTRIES_MAX as u64;

/// How many times larger than what was sent it may be, beyond the first [`FREE_BYTES`].
/// Higher: a small request fills the disk; lower: a large file of nothing is refused.
const RATIO_MAX: u64 = 200;

/// Bytes that nobody minds however small the request was.
const FREE_BYTES: u64 = 256 << 20;

/// Pieces of the body that wait for the disk.
const PIECES_MAX: usize = 16;

/// Bytes of a long name, of where a long link leads, or of attributes of one entry.
const HEAD_BYTES_MAX: u64 = 64 << 10;

/// A piece of a file on its way into the store.
const PIECE_BYTES: usize = 1 << 18;

/// What an archive holds.
#[derive(Debug)]
pub(super) struct Tree {
    /// The tree, sorted by path.
    pub(super) entries: Vec<TreeEntry>,
    /// Where the bytes of each file are, by what they are.
    files: HashMap<BlobId, Place>,
}

/// A part of the inflated archive.
#[derive(Debug, Clone, Copy)]
struct Place {
    offset: u64,
    len: u64,
}

/// Inflates what comes into a new file at `path`.  Answers with the digest of what came.
pub(super) async fn receive(
    path: PathBuf,
    announced: Option<u64>,
    body: impl Stream<Item = Result<Bytes, String>>,
) -> Result<String> {
    if announced.is_some_and(|bytes| bytes > CODE_BYTES_MAX) {
        return Err(too_large());
    }
    let (pieces, inbox) = mpsc::channel(PIECES_MAX);
    let inflating = tokio::task::spawn_blocking(move || inflate(&path, inbox));
    let mut body = std::pin::pin!(body);
    let mut received: u64 = 0;
    let mut failed = None;
    while let Some(piece) = body.next().await {
        let piece = match piece {
            Ok(piece) => piece,
            Err(why) => {
                failed = Some(Error::invalid_hint(
                    format!("the upload was cut off after {received} bytes: {why}"),
                    "send the code again",
                ));
                break;
            }
        };
        received += piece.len() as u64;
        if received > CODE_BYTES_MAX {
            failed = Some(too_large());
            break;
        }
        // When nobody takes it any more it is known what is wrong with it.  The rest is
        // taken all the same: who is still sending would not hear the answer.
        let _ = pieces.send(piece).await;
    }
    drop(pieces);
    let inflated = inflating.await.map_err(Error::internal)?;
    match failed {
        Some(failed) => Err(failed),
        None => inflated,
    }
}

fn too_large() -> Error {
    Error::TooLarge {
        message: format!(
            "the code is larger than the limit of {} GB",
            CODE_BYTES_MAX / 1_000_000_000
        ),
        hint: Some("leave data out with .gridignore".to_owned()),
    }
}

fn inflate(path: &Path, mut inbox: mpsc::Receiver<Bytes>) -> Result<String> {
    let file = File::create_new(path).map_err(disk)?;
    let mut inflater = MultiGzDecoder::new(Limited {
        file,
        written: 0,
        allowed: 0,
    });
    let mut hasher = blake3::Hasher::new();
    let mut received: u64 = 0;
    while let Some(piece) = inbox.blocking_recv() {
        hasher.update(&piece);
        received += piece.len() as u64;
        inflater.get_mut().allowed =
            UNPACKED_BYTES_MAX.min(FREE_BYTES.saturating_add(received.saturating_mul(RATIO_MAX)));
        inflater.write_all(&piece).map_err(unpacking)?;
    }
    // Looks at the checksum, and whether the end is there.
    inflater.finish().map_err(unpacking)?;
    Ok(hasher.finalize().to_hex().to_string())
}

/// A file that takes so many bytes and no more.
struct Limited {
    file: File,
    written: u64,
    allowed: u64,
}

impl Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.written + bytes.len() as u64 > self.allowed {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let n = self.file.write(bytes)?;
        self.written += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn unpacking(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::FileTooLarge => Error::TooLarge {
            message: "the archive becomes too large when it is unpacked".to_owned(),
            hint: Some("leave data out with .gridignore".to_owned()),
        },
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => disk(error),
        io::ErrorKind::InvalidInput
        | io::ErrorKind::InvalidData
        | io::ErrorKind::UnexpectedEof
        | io::ErrorKind::WriteZero => Error::invalid_hint(
            "the code is not a whole .tar.gz archive",
            "send it again, whole, as one archive packed by gzip",
        ),
        _ => disk(error),
    }
}

fn disk(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::Full(
            "the server's disk is full: the code could not be taken in; make room and send it again"
                .to_owned(),
        ),
        _ => Error::internal(error),
    }
}

/// Reads the tree out of an inflated archive.
pub(super) fn read(path: &Path) -> Result<Tree> {
    let mut archive = Archive::new(File::open(path).map_err(disk)?);
    let mut bytes = File::open(path).map_err(disk)?;
    let mut reading = Reading::default();
    let broken = |_| {
        Error::invalid_hint(
            "the code is not a tar archive",
            "send it again, whole, as one archive packed by gzip",
        )
    };
    // Raw: long names and attributes come as entries of their own, and are limited here.
    for entry in archive.entries().map_err(broken)?.raw(true) {
        let mut entry = entry.map_err(broken)?;
        let kind = entry.header().entry_type();
        match kind {
            EntryType::GNULongName => reading.long_name = Some(head(&mut entry)?),
            EntryType::GNULongLink => reading.long_link = Some(head(&mut entry)?),
            EntryType::XHeader => reading.attributes(&head(&mut entry)?)?,
            EntryType::XGlobalHeader => {}
            _ => {
                let place = Place {
                    offset: entry.raw_file_position(),
                    len: entry.size(),
                };
                let header = entry.header().clone();
                reading.entry(&mut bytes, &header, place)?;
            }
        }
    }
    reading.finish()
}

/// The content of an entry that is about the next one.
fn head(entry: &mut tar::Entry<'_, File>) -> Result<Vec<u8>> {
    let too_long = || Error::invalid("the archive has a name or attributes that are too long");
    if entry.size() > HEAD_BYTES_MAX {
        return Err(too_long());
    }
    let mut bytes = Vec::new();
    entry
        .take(HEAD_BYTES_MAX)
        .read_to_end(&mut bytes)
        .map_err(unpacking)?;
    Ok(bytes)
}

#[derive(Default)]
struct Reading {
    entries: BTreeMap<String, TreeEntry>,
    folders: Vec<String>,
    files: HashMap<BlobId, Place>,
    seen: usize,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
}

impl Reading {
    fn attributes(&mut self, bytes: &[u8]) -> Result<()> {
        for extension in PaxExtensions::new(bytes) {
            let extension = extension
                .map_err(|_| Error::invalid("the archive has attributes that do not read"))?;
            match extension.key_bytes() {
                b"path" => self.long_name = Some(extension.value_bytes().to_owned()),
                b"linkpath" => self.long_link = Some(extension.value_bytes().to_owned()),
                b"size" => return Err(Error::invalid("the archive has a file that is too large")),
                key if key.starts_with(b"GNU.sparse") => return Err(sparse()),
                _ => {}
            }
        }
        Ok(())
    }

    fn entry(&mut self, bytes: &mut File, header: &tar::Header, place: Place) -> Result<()> {
        self.seen += 1;
        if self.seen > ENTRIES_MAX {
            return Err(Error::TooLarge {
                message: format!("the archive has more than {ENTRIES_MAX} entries"),
                hint: Some("leave folders out with .gridignore".to_owned()),
            });
        }
        let name = self.long_name.take();
        let link = self.long_link.take();
        let name = name.unwrap_or_else(|| header.path_bytes().into_owned());
        let link = link.or_else(|| header.link_name_bytes().map(std::borrow::Cow::into_owned));
        let path = inside(&text(&name)?)?;
        let mode = header.mode().unwrap_or(0o644) & 0o777;
        let entry = match header.entry_type() {
            EntryType::Directory => {
                if !path.is_empty() {
                    self.folders.push(path);
                }
                return Ok(());
            }
            EntryType::Regular | EntryType::Continuous => self.file(bytes, place, &path, mode)?,
            EntryType::Symlink => TreeEntry {
                path: path.clone(),
                kind: TreeKind::Link,
                mode: 0o777,
                size_bytes: 0,
                content: text(&link.unwrap_or_default())?,
            },
            EntryType::Link => {
                let target = inside(&text(&link.unwrap_or_default())?)?;
                let same = self.entries.get(&target).cloned();
                let same = same.filter(|entry| entry.kind == TreeKind::File);
                let same = same.ok_or_else(|| {
                    Error::invalid(format!(
                        "'{path}' is the same file as '{target}', which the archive does not have before it"
                    ))
                })?;
                TreeEntry {
                    path: path.clone(),
                    ..same
                }
            }
            EntryType::GNUSparse => return Err(sparse()),
            _ => {
                return Err(Error::invalid(format!(
                    "'{path}' in the archive is neither a file nor a folder nor a link"
                )));
            }
        };
        if path.is_empty() {
            return Err(Error::invalid("the archive has an entry without a name"));
        }
        // As when it is unpacked: the last of a name is the one that is there.
        self.entries.insert(path, entry);
        Ok(())
    }

    fn file(&mut self, bytes: &mut File, place: Place, path: &str, mode: u32) -> Result<TreeEntry> {
        bytes.seek(SeekFrom::Start(place.offset)).map_err(disk)?;
        let mut hasher = blake3::Hasher::new();
        let read = io::copy(&mut bytes.take(place.len), &mut hasher).map_err(disk)?;
        if read != place.len {
            return Err(Error::invalid(format!(
                "the archive ends in the middle of '{path}'"
            )));
        }
        let id = BlobId::from_bytes(*hasher.finalize().as_bytes());
        self.files.insert(id, place);
        Ok(TreeEntry {
            path: path.to_owned(),
            kind: TreeKind::File,
            mode,
            size_bytes: place.len,
            content: id.to_string(),
        })
    }

    fn finish(mut self) -> Result<Tree> {
        // Folders are listed only when they are empty.
        let mut full: HashSet<String> = HashSet::new();
        for path in self.entries.keys().chain(&self.folders) {
            for (end, _) in path.match_indices('/') {
                if !full.contains(&path[..end]) {
                    full.insert(path[..end].to_owned());
                }
            }
        }
        for path in &full {
            if self
                .entries
                .get(path)
                .is_some_and(|entry| entry.kind == TreeKind::File)
            {
                return Err(Error::invalid(format!(
                    "'{path}' in the archive is a file and a folder"
                )));
            }
        }
        for path in std::mem::take(&mut self.folders) {
            if full.contains(&path) || self.entries.contains_key(&path) {
                continue;
            }
            let entry = TreeEntry {
                path: path.clone(),
                kind: TreeKind::Folder,
                mode: 0o755,
                size_bytes: 0,
                content: String::new(),
            };
            self.entries.insert(path, entry);
        }
        Ok(Tree {
            entries: self.entries.into_values().collect(),
            files: self.files,
        })
    }
}

fn sparse() -> Error {
    Error::invalid_hint(
        "the archive has a file with holes",
        "pack it without the option --sparse",
    )
}

fn text(bytes: &[u8]) -> Result<String> {
    let bytes = bytes.strip_suffix(b"\0").unwrap_or(bytes);
    String::from_utf8(bytes.to_owned()).map_err(|_| {
        Error::invalid(format!(
            "the name {} in the archive is not UTF-8",
            String::from_utf8_lossy(bytes)
        ))
    })
}

/// A name in an archive as a path below the top; empty for the top itself.
fn inside(name: &str) -> Result<String> {
    if name.starts_with('/') || name.split('/').any(|part| part == "..") {
        return Err(Error::invalid(format!(
            "'{name}' in the archive leads outside of it"
        )));
    }
    let parts: Vec<&str> = name
        .split('/')
        .filter(|part| !matches!(*part, "" | "."))
        .collect();
    Ok(parts.join("/"))
}

/// Stores the files of a tree that are not stored yet.
pub(super) async fn store(engine: &Engine, path: &Path, tree: &Tree) -> Result<()> {
    let missing = engine
        .inner
        .blobs
        .missing(tree.files.keys().copied().collect())
        .await?;
    let mut file = tokio::fs::File::open(path).await.map_err(disk)?;
    let mut upload = blob::Upload::new(engine);
    for id in missing {
        let Some(place) = tree.files.get(&id) else {
            continue;
        };
        let head = grid_api::blob::header(id.as_bytes(), place.len);
        upload.push(Bytes::copy_from_slice(&head)).await?;
        file.seek(SeekFrom::Start(place.offset))
            .await
            .map_err(disk)?;
        let mut rest = (&mut file).take(place.len);
        loop {
            let mut piece = BytesMut::with_capacity(PIECE_BYTES);
            if rest.read_buf(&mut piece).await.map_err(disk)? == 0 {
                break;
            }
            upload.push(piece.freeze()).await?;
        }
    }
    upload.finish(false).await.map(drop)
}
