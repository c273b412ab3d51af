//! What a content is made of: its chunks in order.
//!
//! A recipe with many chunks is cut into pages, which are stored like chunks; so
//! whoever makes or reads the recipe of a terabyte never holds all of it.

use bytes::{BufMut, Bytes, BytesMut};
use grid_core::blob::BlobId;

use crate::id_of;

/// Length of a written entry in bytes.
pub const ENTRY_BYTES: usize = 40;

/// Entries of one page; a recipe with no more has none.
/// Higher: a page is longer than a chunk may be.  Lower: recipes of large content take
/// more reads.
pub const PAGE_ENTRIES_MAX: usize = 6_000;

/// Pages of one recipe: about a terabyte of chunks that are all different.
/// Higher: the list of pages is longer than a chunk may be.
const PAGES_MAX: usize = 6_000;

/// Why a recipe cannot be one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecipeError {
    /// Its length is not a number of entries.
    #[error("a list of chunks has {bytes} bytes, which are not entries of {ENTRY_BYTES}")]
    Torn { bytes: usize },
    /// There are too many entries.
    #[error("a list of chunks has {entries} entries; the limit is {max}")]
    TooLong { entries: usize, max: usize },
    /// An entry names no bytes.
    #[error("entry {at} of a list of chunks names no bytes, or too many")]
    BadEntry { at: usize },
    /// The lengths of the chunks are not that of the whole.
    #[error("the chunks have {found} bytes together, and the whole should have {expected}")]
    WrongLength { expected: u64, found: u64 },
}

/// A chunk, which may come several times in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The hash of the chunk's bytes.
    pub id: BlobId,
    /// Length of the chunk in bytes.
    pub len: u32,
    /// How often it comes in a row.
    pub times: u32,
}

impl Entry {
    /// How many bytes of content it stands for.
    pub fn bytes(&self) -> u64 {
        u64::from(self.len) * u64::from(self.times)
    }
}

/// A page of a recipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageEntry {
    /// The hash of the written page.
    pub id: BlobId,
    /// How many bytes of content its chunks stand for.
    pub bytes: u64,
}

/// A page to be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The hash of its bytes.
    pub id: BlobId,
    /// Its entries, written.
    pub bytes: Bytes,
}

/// What a content is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recipe {
    /// Its chunks.
    Chunks(Vec<Entry>),
    /// The pages that name its chunks.
    Pages(Vec<PageEntry>),
}

impl Recipe {
    /// Length of the content in bytes.
    pub fn content_bytes(&self) -> u64 {
        let add = |sum: u64, bytes: u64| sum.saturating_add(bytes);
        match self {
            Self::Chunks(entries) => entries.iter().map(Entry::bytes).fold(0, add),
            Self::Pages(pages) => pages.iter().map(|page| page.bytes).fold(0, add),
        }
    }

    /// Whether it is made of pages.
    pub fn is_paged(&self) -> bool {
        matches!(self, Self::Pages(_))
    }

    /// Its list, written.
    pub fn write(&self) -> Bytes {
        match self {
            Self::Chunks(entries) => write_entries(entries),
            Self::Pages(pages) => {
                let mut bytes = BytesMut::with_capacity(pages.len() * ENTRY_BYTES);
                for page in pages {
                    bytes.put_slice(page.id.as_bytes());
                    bytes.put_u64_le(page.bytes);
                }
                bytes.freeze()
            }
        }
    }

    /// Reads a list of a content of `content_bytes`.
    pub fn read(list: &[u8], is_paged: bool, content_bytes: u64) -> Result<Self, RecipeError> {
        let recipe = if is_paged {
            Self::Pages(read_pages(list)?)
        } else {
            Self::Chunks(read_entries(list)?)
        };
        let found = recipe.content_bytes();
        if found != content_bytes {
            return Err(RecipeError::WrongLength {
                expected: content_bytes,
                found,
            });
        }
        Ok(recipe)
    }
}

impl PageEntry {
    /// The entries of this page.
    pub fn read(&self, page: &[u8]) -> Result<Vec<Entry>, RecipeError> {
        match Recipe::read(page, false, self.bytes)? {
            Recipe::Chunks(entries) => Ok(entries),
            Recipe::Pages(_) => Ok(Vec::new()),
        }
    }
}

fn write_entries(entries: &[Entry]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(entries.len() * ENTRY_BYTES);
    for entry in entries {
        bytes.put_slice(entry.id.as_bytes());
        bytes.put_u32_le(entry.len);
        bytes.put_u32_le(entry.times);
    }
    bytes.freeze()
}

fn lines(list: &[u8], max: usize) -> Result<&[[u8; ENTRY_BYTES]], RecipeError> {
    let (lines, rest) = list.as_chunks::<ENTRY_BYTES>();
    if !rest.is_empty() {
        return Err(RecipeError::Torn { bytes: list.len() });
    }
    if lines.len() > max {
        return Err(RecipeError::TooLong {
            entries: lines.len(),
            max,
        });
    }
    Ok(lines)
}

fn line_id(line: &[u8; ENTRY_BYTES]) -> BlobId {
    let mut id = [0; 32];
    id.copy_from_slice(&line[..32]);
    BlobId::from_bytes(id)
}

fn read_entries(list: &[u8]) -> Result<Vec<Entry>, RecipeError> {
    let lines = lines(list, PAGE_ENTRIES_MAX)?;
    let mut entries = Vec::with_capacity(lines.len());
    for (at, line) in lines.iter().enumerate() {
        let [.., l0, l1, l2, l3, t0, t1, t2, t3] = *line;
        let entry = Entry {
            id: line_id(line),
            len: u32::from_le_bytes([l0, l1, l2, l3]),
            times: u32::from_le_bytes([t0, t1, t2, t3]),
        };
        if entry.bytes() == 0 || entry.len as usize > crate::CHUNK_BYTES_MAX {
            return Err(RecipeError::BadEntry { at });
        }
        entries.push(entry);
    }
    Ok(entries)
}

fn read_pages(list: &[u8]) -> Result<Vec<PageEntry>, RecipeError> {
    let lines = lines(list, PAGES_MAX)?;
    let mut pages = Vec::with_capacity(lines.len());
    for (at, line) in lines.iter().enumerate() {
        let [.., b0, b1, b2, b3, b4, b5, b6, b7] = *line;
        let bytes = u64::from_le_bytes([b0, b1, b2, b3, b4, b5, b6, b7]);
        if bytes == 0 {
            return Err(RecipeError::BadEntry { at });
        }
        pages.push(PageEntry {
            id: line_id(line),
            bytes,
        });
    }
    Ok(pages)
}

/// Makes a recipe chunk by chunk.
#[derive(Default)]
pub struct Builder {
    entries: Vec<Entry>,
    pages: Vec<PageEntry>,
}

impl Builder {
    /// Begins.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds what comes next.  A page that is full is to be stored.
    pub fn push(&mut self, id: BlobId, len: u32, times: u32) -> Option<Page> {
        if let Some(last) = self.entries.last_mut()
            && last.id == id
            && let Some(sum) = last.times.checked_add(times)
        {
            last.times = sum;
            return None;
        }
        let page = (self.entries.len() >= PAGE_ENTRIES_MAX).then(|| self.turn());
        self.entries.push(Entry { id, len, times });
        page
    }

    fn turn(&mut self) -> Page {
        let bytes = write_entries(&self.entries);
        let id = id_of(&bytes);
        self.pages.push(PageEntry {
            id,
            bytes: self.entries.iter().map(Entry::bytes).sum(),
        });
        self.entries.clear();
        Page { id, bytes }
    }

    /// The recipe, and the last page that is to be stored.
    pub fn finish(mut self) -> (Recipe, Option<Page>) {
        if self.pages.is_empty() {
            return (Recipe::Chunks(self.entries), None);
        }
        let page = self.turn();
        (Recipe::Pages(self.pages), Some(page))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u32) -> BlobId {
        id_of(&number.to_le_bytes())
    }

    #[test]
    fn recipes_come_back_as_they_were_written() {
        for count in [
            1,
            PAGE_ENTRIES_MAX,
            PAGE_ENTRIES_MAX + 1,
            3 * PAGE_ENTRIES_MAX,
        ] {
            let mut builder = Builder::new();
            let mut pages = Vec::new();
            for number in 0..count {
                pages.extend(builder.push(id(number as u32), 10 + number as u32, 1));
            }
            let (recipe, last) = builder.finish();
            pages.extend(last);
            let bytes = (0..count as u64).map(|number| 10 + number).sum();
            assert_eq!(recipe.content_bytes(), bytes);
            assert_eq!(recipe.is_paged(), count > PAGE_ENTRIES_MAX);
            let read = Recipe::read(&recipe.write(), recipe.is_paged(), bytes).unwrap();
            assert_eq!(read, recipe);
            if let Recipe::Pages(named) = &recipe {
                assert_eq!(named.len(), pages.len());
                let all: usize = named
                    .iter()
                    .zip(&pages)
                    .map(|(named, page)| named.read(&page.bytes).unwrap().len())
                    .sum();
                assert_eq!(all, count);
            }
        }
    }

    #[test]
    fn repeats_take_one_entry() {
        let mut builder = Builder::new();
        for _ in 0..100_000 {
            assert_eq!(builder.push(id(1), 7, 3), None);
        }
        let (recipe, _) = builder.finish();
        let entry = Entry {
            id: id(1),
            len: 7,
            times: 300_000,
        };
        assert_eq!(recipe, Recipe::Chunks(vec![entry]));
    }

    #[test]
    fn nonsense_is_refused() {
        let good = Recipe::Chunks(vec![Entry {
            id: id(1),
            len: 7,
            times: 1,
        }]);
        let list = good.write();
        assert_eq!(Recipe::read(&list, false, 7), Ok(good));
        assert!(Recipe::read(&list, false, 8).is_err());
        assert!(Recipe::read(&list[1..], false, 7).is_err());
        let mut none = list.to_vec();
        none[32..36].fill(0);
        assert!(Recipe::read(&none, false, 0).is_err());
        none[32..36].fill(255);
        assert!(Recipe::read(&none, false, u64::from(u32::MAX)).is_err());
    }
}
