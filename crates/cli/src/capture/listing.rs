//! The names of a folder, in the order of a datastore's list.

use std::cmp::Ordering;
use std::ffi::CStr;

use anyhow::Result;

use crate::error::Problem;

/// Names of one folder, close together.
#[derive(Default)]
pub(super) struct Listing {
    bytes: Vec<u8>,
    pub(super) items: Vec<Item>,
}

#[derive(Clone, Copy)]
pub(super) struct Item {
    at: u32,
    /// No file system has longer ones than 255 bytes.
    length: u8,
    pub(super) kind: ItemKind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum ItemKind {
    Other,
    Folder,
    Empty,
}

impl Listing {
    pub(super) fn push(&mut self, name: &CStr, kind: ItemKind) -> Result<()> {
        let at = u32::try_from(self.bytes.len());
        let at = at.map_err(|_| Problem::new("a folder has too many names"))?;
        let length = u8::try_from(name.to_bytes().len());
        let length = length.map_err(|_| Problem::new("a name is too long"))?;
        self.bytes.extend_from_slice(name.to_bytes_with_nul());
        self.items.push(Item { at, length, kind });
        Ok(())
    }

    pub(super) fn bytes(&self, item: Item) -> &[u8] {
        let at = item.at as usize;
        let bytes = self.bytes.get(at..at + usize::from(item.length));
        bytes.unwrap_or_default()
    }

    pub(super) fn name(&self, item: Item) -> &CStr {
        let at = item.at as usize;
        let bytes = self.bytes.get(at..=at + usize::from(item.length));
        CStr::from_bytes_with_nul(bytes.unwrap_or_default()).unwrap_or_default()
    }

    pub(super) fn text(&self, item: Item) -> &str {
        // What is no UTF-8 was left out.
        std::str::from_utf8(self.bytes(item)).unwrap_or_default()
    }

    /// As the paths below a folder are sorted, what is in it comes where `name/` would.
    pub(super) fn sort(&mut self) {
        let mut items = std::mem::take(&mut self.items);
        items.sort_unstable_by(|&a, &b| compare((self.bytes(a), a.kind), (self.bytes(b), b.kind)));
        self.items = items;
    }
}

fn compare(one: (&[u8], ItemKind), other: (&[u8], ItemKind)) -> Ordering {
    let shared = one.0.len().min(other.0.len());
    let rest = |(name, kind): (&[u8], ItemKind)| match name.get(shared) {
        None if kind == ItemKind::Folder => Some(b'/'),
        next => next.copied(),
    };
    let begin = one.0.get(..shared).cmp(&other.0.get(..shared));
    begin.then_with(|| rest(one).cmp(&rest(other)))
}
