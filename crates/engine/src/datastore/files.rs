//! What is in a version: folder by folder, or all of it, and the bytes of one file.

use grid_core::access::Action;
use grid_core::blob::BlobId;
use grid_manifest::{Entry, Totals};

use super::elsewhere::{self, Reader};
use super::link::{self, End};
use super::list::List;
use super::{Found, name};
use crate::access::Caller;
use crate::error::{Error, Result};
use crate::{Engine, blob};

/// One line of a listing.
#[derive(Debug, Clone)]
pub enum Item {
    /// A file, a link or an empty folder.
    Entry(Entry),
    /// A folder with something in it.
    Folder {
        /// Its path.
        path: String,
        /// What is below it.
        totals: Totals,
    },
}

/// A page of a listing.
#[derive(Debug, Clone)]
pub struct Items {
    /// Lines, by path.
    pub items: Vec<Item>,
    /// Pass as `after` for the next page.
    pub next: Option<String>,
}

/// A file to read.
#[derive(Debug)]
pub struct Opened {
    /// Its line in the list.
    pub entry: Entry,
    /// Its bytes.
    pub reader: Reader,
}

async fn seen(engine: &Engine, caller: &Caller, text: &str) -> Result<Found> {
    let mut tx = engine.inner.db.read().await?;
    let found = name::find(&mut tx, caller, text, name::Which::Ready).await?;
    caller
        .check(&mut tx, &found.datastore, Action::SeeDatastore)
        .await?;
    Ok(found)
}

/// Which files are asked for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wanted<'a> {
    /// A folder, or a file; the top when empty.
    pub path: &'a str,
    /// Everything below it, not only what is in it.
    pub is_deep: bool,
    /// Where the last page ended.
    pub after: Option<&'a str>,
    /// At most so many.
    pub limit: usize,
}

/// What is in a folder, or in all folders below it; of a file, the file.
pub async fn files(
    engine: &Engine,
    caller: &Caller,
    text: &str,
    wanted: &Wanted<'_>,
) -> Result<Items> {
    let found = seen(engine, caller, text).await?;
    let mut list = List::open(engine, &found.version).await?;
    let path = wanted.path.trim_matches('/');
    if path.is_empty() {
        return page(&mut list, "", wanted).await;
    }
    if let Some(entry) = list.get(path).await? {
        let items = vec![Item::Entry(entry)];
        return Ok(Items { items, next: None });
    }
    let items = page(&mut list, &format!("{path}/"), wanted).await?;
    if items.items.is_empty() && wanted.after.is_none() {
        return Err(Error::NotFound {
            what: format!("{} has nothing at '{path}'", found.called()),
            hint: Some("`grid datastore files` lists what there is".to_owned()),
        });
    }
    Ok(items)
}

async fn page(list: &mut List, prefix: &str, wanted: &Wanted<'_>) -> Result<Items> {
    let mut items = Vec::new();
    let Wanted {
        is_deep,
        after,
        limit,
        ..
    } = *wanted;
    // A folder that was the last line is behind us with all that is in it.
    let (mut bound, mut is_after) = match after.map(|after| after.strip_suffix('/').ok_or(after)) {
        Some(Ok(folder)) => (behind(folder), false),
        Some(Err(entry)) => (entry.to_owned(), true),
        None => (prefix.to_owned(), false),
    };
    if bound.as_str() < prefix {
        (bound, is_after) = (prefix.to_owned(), false);
    }
    loop {
        let entry = list.seek(&bound, is_after).await?;
        let Some(entry) = entry.filter(|entry| entry.path.starts_with(prefix)) else {
            return Ok(Items { items, next: None });
        };
        if items.len() >= limit {
            let next = items.last().map(cursor);
            return Ok(Items { items, next });
        }
        let below = &entry.path[prefix.len()..];
        match below.find('/').filter(|_| !is_deep) {
            Some(end) => {
                let path = entry.path[..prefix.len() + end].to_owned();
                let until = behind(&path);
                let totals = list.totals(&format!("{path}/"), &until).await?;
                items.push(Item::Folder { path, totals });
                (bound, is_after) = (until, false);
            }
            None => {
                (bound, is_after) = (entry.path.clone(), true);
                items.push(Item::Entry(entry));
            }
        }
    }
}

/// What sorts directly behind everything in a folder: `0` follows `/`.
fn behind(folder: &str) -> String {
    format!("{folder}0")
}

fn cursor(item: &Item) -> String {
    match item {
        Item::Entry(entry) => entry.path.clone(),
        Item::Folder { path, .. } => format!("{path}/"),
    }
}

/// The bytes of many small files, in their order, as records of blobs.  What is no file, or
/// is not there, is an error that names it.
pub async fn fetch(
    engine: &Engine,
    caller: &Caller,
    text: &str,
    paths: &[String],
) -> Result<Vec<BlobId>> {
    if paths.len() > blob::BLOBS_MAX {
        let max = blob::BLOBS_MAX;
        return Err(Error::invalid(format!(
            "fetch at most {max} files at a time"
        )));
    }
    let found = seen(engine, caller, text).await?;
    let mut list = List::open(engine, &found.version).await?;
    let mut blobs = Vec::with_capacity(paths.len());
    for path in paths {
        let entry = list.get(path).await?;
        match entry.as_ref().and_then(Entry::blob) {
            Some(blob) => blobs.push(blob),
            None => {
                let called = found.called();
                return Err(Error::not_found(format!("{called} has no file '{path}'")));
            }
        }
    }
    Ok(blobs)
}

/// Why nothing can be read at a path of what `text` names.
fn no_file(found: &Found, text: &str, path: &str, end: &End) -> Error {
    let called = found.called();
    let below = |folder: &str| {
        let command = format!("grid datastore files {text} {folder}");
        Some(format!("`{}` lists what is in it", command.trim_end()))
    };
    match end {
        End::Folder(folder) if folder == path => Error::Invalid {
            message: format!("'{path}' of {called} is a folder"),
            hint: below(folder),
        },
        End::Folder(folder) => Error::Invalid {
            message: match folder.as_str() {
                "" => format!("'{path}' of {called} leads to its top, which is a folder"),
                folder => format!("'{path}' of {called} leads to the folder '{folder}'"),
            },
            hint: below(folder),
        },
        End::Nothing(nothing) if nothing == path => Error::NotFound {
            what: format!("{called} has no file '{path}'"),
            hint: Some(format!("`grid datastore files {text}` lists what there is")),
        },
        End::Nothing(nothing) => Error::not_found(format!(
            "'{path}' of {called} leads to '{nothing}', which is not in it"
        )),
        End::Circle | End::File(_) => Error::invalid(format!(
            "'{path}' of {called} leads in a circle of links, to no file"
        )),
    }
}

/// One file, to read; also through links, as a file system opens it.
pub async fn open(engine: &Engine, caller: &Caller, text: &str, path: &str) -> Result<Opened> {
    let found = seen(engine, caller, text).await?;
    let mut list = List::open(engine, &found.version).await?;
    let entry = match link::follow(&mut list, path).await? {
        End::File(entry) => entry,
        other => return Err(no_file(&found, text, path, &other)),
    };
    let Some(blob) = entry.blob() else {
        let remote = elsewhere::open(engine, &found.version, entry.clone()).await?;
        let reader = Reader::Elsewhere(remote);
        return Ok(Opened { entry, reader });
    };
    let reader = engine.inner.blobs.get(blob).await?;
    let reader = reader.ok_or_else(|| {
        Error::internal(anyhow::anyhow!(
            "the bytes of '{path}' ({blob}) are missing"
        ))
    })?;
    let reader = Reader::Stored(reader);
    Ok(Opened { entry, reader })
}
