//! Taking a tar apart, of any of the formats that there are.
//!
//! Whoever reads a tar decides by a few bytes in front of each entry what it is, how long it is,
//! and what it is called; and one that decides differently from the program that wrote it has
//! other files.  So what GNU tar makes of an archive is what is made of it here, or it is refused
//! with the name of the entry: nothing is guessed, and nothing becomes something else.

mod head;
mod records;
mod sparse;

use std::io::{self, Read};

use self::head::{BLOCK_BYTES, Block, text};
use self::records::{Records, damaged, not_taken};
use self::sparse::{Map, REGIONS_MAX, TOO_MANY};
use super::form::{broken, broken_at};
use super::sink::{Head, Sink};
use crate::datastore::work::Fault;

/// Bytes of a name or of the attributes of one entry.  Higher: one entry takes that much memory;
/// lower: files with very many holes, and large attributes, are refused.
const HEAD_BYTES_MAX: u64 = 4 << 20;

/// Takes a tar apart.
pub(super) fn tar(input: impl Read, sink: &mut Sink<'_>) -> Result<(), Fault> {
    let mut tape = Tape {
        input,
        left: 0,
        padding: 0,
        modified_ms: None,
    };
    while let Some(member) = tape.member(sink)? {
        let name = member.name.clone();
        one(&mut tape, member, sink)?;
        let skipped = tape.skip().map_err(|error| broken_at(&name, &error))?;
        sink.count(skipped)?;
    }
    sink.rest(tape.input)
}

/// What an entry is.
enum Kind {
    File,
    /// One that is packed without its holes.
    Sparse(Map),
    Folder,
    Link,
    SameAs,
    /// The name of the archive.
    Label,
    Other(&'static str),
}

/// An entry before its bytes.
struct Member {
    kind: Kind,
    name: Vec<u8>,
    target: Vec<u8>,
    mode: u32,
    modified_ms: i64,
}

fn one<R: Read>(tape: &mut Tape<R>, member: Member, sink: &mut Sink<'_>) -> Result<(), Fault> {
    let name = &member.name;
    let head = Head {
        name,
        mode: member.mode,
        modified_ms: member.modified_ms,
    };
    match member.kind {
        Kind::File => sink.file(&head, tape.left, tape),
        Kind::Sparse(map) => {
            let size = map.size;
            sink.file(&head, size, &mut map.whole(tape))
        }
        Kind::Folder => sink.folder(&head),
        Kind::Link => sink.link(&head, &member.target),
        Kind::SameAs => sink.same_as(&head, &member.target),
        Kind::Label => Ok(()),
        Kind::Other(why) => {
            sink.refuse(name, why);
            Ok(())
        }
    }
}

/// What was said of an entry in front of its own block.
#[derive(Default)]
struct Before {
    name: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
    records: Option<Records>,
}

/// A tar from somewhere on.
struct Tape<R> {
    input: R,
    /// Bytes of this entry that were not read, and what fills its last block.
    left: u64,
    padding: u64,
    /// When everything was changed of which nothing else is said.
    modified_ms: Option<i64>,
}

impl<R: Read> Read for Tape<R> {
    /// Reads bytes of the entry.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX);
        let most = most.min(buffer.len());
        let length = self.input.read(&mut buffer[..most])?;
        if length == 0 && most > 0 {
            return Err(cut());
        }
        self.left -= length as u64;
        Ok(length)
    }
}

fn cut() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "it ends within an entry")
}

fn once<T>(place: &mut Option<T>, value: T) -> io::Result<()> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(damaged("an entry has two names, or its attributes twice")),
    }
}

impl<R: Read> Tape<R> {
    /// The next entry; none at the end.
    fn member(&mut self, sink: &mut Sink<'_>) -> Result<Option<Member>, Fault> {
        let mut before = Before::default();
        loop {
            let Some(block) = self.block().map_err(broken)? else {
                // An archive ends with a block of zeros.  One without was cut between two
                // entries, and who unpacks it would never know.
                let cut = "it ends without the mark that stands at the end of each";
                return Err(broken(io::Error::new(io::ErrorKind::UnexpectedEof, cut)));
            };
            if block.is_zero() {
                let is_end = before.name.is_none() && before.records.is_none();
                return match is_end && before.target.is_none() {
                    true => Ok(None),
                    false => Err(broken(damaged("it ends where an entry is announced"))),
                };
            }
            if !block.adds_up() {
                return Err(broken(damaged("archive header checksum mismatch")));
            }
            let name = block.name();
            let at = |error: io::Error| broken_at(&name, &error);
            match block.kind() {
                kind @ (b'L' | b'K' | b'x' | b'X' | b'g') => {
                    let said = self.said(&block).map_err(at)?;
                    sink.count(said.len() as u64)?;
                    self.keep(kind, &said, &mut before).map_err(at)?;
                }
                _ => return self.announced(&block, before).map(Some),
            }
        }
    }

    /// Keeps what is said of the next entry, or of all.
    fn keep(&mut self, kind: u8, said: &[u8], before: &mut Before) -> io::Result<()> {
        match kind {
            b'L' => once(&mut before.name, text(said).to_vec()),
            b'K' => once(&mut before.target, text(said).to_vec()),
            b'g' => {
                self.modified_ms = Records::parse(said)?.for_all()?.or(self.modified_ms);
                Ok(())
            }
            _ => once(&mut before.records, Records::parse(said)?),
        }
    }

    /// The entry of a block, of which something may have been said before.
    fn announced(&mut self, block: &Block, before: Before) -> Result<Member, Fault> {
        let mut records = before.records.unwrap_or_default();
        let sparse_name = records.sparse.as_mut().and_then(|told| told.name.take());
        let name = sparse_name.or(records.path.take()).or(before.name);
        let name = name.unwrap_or_else(|| block.name());
        let target = records.target.take().or(before.target);
        let modified_ms = records.modified_ms.or(self.modified_ms);
        let modified_ms = modified_ms.unwrap_or_else(|| block.modified_ms());
        let kind = self.kind(block, &name, records);
        let kind = kind.map_err(|error| broken_at(&name, &error))?;
        Ok(Member {
            kind,
            name,
            target: target.unwrap_or_else(|| block.target()),
            mode: block.mode(),
            modified_ms,
        })
    }

    /// What an entry is; from here on its bytes can be read.
    fn kind(&mut self, block: &Block, name: &[u8], records: Records) -> io::Result<Kind> {
        let size = || damaged("its length is no number");
        let size = match records.size {
            Some(size) => size,
            None => block.size().ok_or_else(size)?,
        };
        let kind = block.kind();
        // A second name of a file, and a link, have no bytes, whatever they say.
        let is_link = matches!(kind, b'1' | b'2');
        self.begin(if is_link { 0 } else { size });
        let is_file = matches!(kind, b'0' | b'\0' | b'7');
        if let Some(told) = records.sparse {
            return match is_file {
                true => Ok(Kind::Sparse(told.map(size, self)?)),
                false => Err(damaged("it has holes, and is no file")),
            };
        }
        Ok(match kind {
            // As it was before there was a kind for folders.
            _ if kind == b'5' || is_file && name.ends_with(b"/") => match size {
                0 => Kind::Folder,
                _ => Kind::Other("a folder that has bytes"),
            },
            _ if is_file => Kind::File,
            b'S' => Kind::Sparse(self.pieces(block, size)?),
            // With a list of what was in it.
            b'D' => Kind::Folder,
            b'2' => Kind::Link,
            b'1' => Kind::SameAs,
            b'V' => Kind::Label,
            b'M' => Kind::Other("a file that begins in another archive"),
            _ => Kind::Other("no file, folder or link"),
        })
    }

    /// The map of a file that GNU tar packed without its holes in its own format: in the block,
    /// and in others behind it, which count for no bytes.
    fn pieces(&mut self, block: &Block, size: u64) -> io::Result<Map> {
        let no_number = || damaged("what it says of its holes is no number");
        if !block.is_gnu() {
            return Err(not_taken(
                "its holes are told of in a way that is not known",
            ));
        }
        let (mut pieces, mut is_more) = block.pieces(true).ok_or_else(no_number)?;
        while is_more {
            let block = self.block()?.ok_or_else(cut)?;
            let (next, is_yet_more) = block.pieces(false).ok_or_else(no_number)?;
            pieces.extend(next);
            is_more = is_yet_more;
            if pieces.len() > REGIONS_MAX {
                return Err(not_taken(TOO_MANY));
            }
        }
        let real_size = block.real_size().ok_or_else(no_number)?;
        Map::new(pieces, real_size, size)
    }

    fn begin(&mut self, size: u64) {
        self.left = size;
        self.padding = size.wrapping_neg() % BLOCK_BYTES as u64;
    }

    /// The next block that is no part of the bytes of an entry; none at the end.
    fn block(&mut self) -> io::Result<Option<Block>> {
        let mut block = Vec::with_capacity(BLOCK_BYTES);
        let mut input = (&mut self.input).take(BLOCK_BYTES as u64);
        input.read_to_end(&mut block)?;
        match <[u8; BLOCK_BYTES]>::try_from(block) {
            Ok(block) => Ok(Some(Block(block))),
            Err(none) if none.is_empty() => Ok(None),
            Err(_) => Err(cut()),
        }
    }

    /// The bytes of an entry that says something of the next.
    fn said(&mut self, block: &Block) -> io::Result<Vec<u8>> {
        let size = block.size();
        let size = size.ok_or_else(|| damaged("its length is no number"))?;
        if size > HEAD_BYTES_MAX {
            return Err(not_taken("it has a name or attributes of more than 4 MiB"));
        }
        self.begin(size);
        let mut said = Vec::new();
        self.read_to_end(&mut said)?;
        self.skip()?;
        Ok(said)
    }

    /// Leaves what is left of an entry out; says how much that was.
    fn skip(&mut self) -> io::Result<u64> {
        let left = self.left + self.padding;
        let skipped = io::copy(&mut (&mut self.input).take(left), &mut io::sink())?;
        self.begin(0);
        match skipped == left {
            true => Ok(skipped),
            false => Err(cut()),
        }
    }
}
