//! Looking into versions: their files, their differences, the bytes of one file.

use std::io::Write as _;

use anyhow::{Context as _, Result};
use clap::Args;
use futures::StreamExt as _;
use grid_api::client::{Client, segments};
use grid_api::datastore::{
    DiffQuery, DiffResponse, FileChange, FileEntry, FileKind, FilesQuery, FilesResponse,
};
use grid_core::duration::format_size;
use grid_core::time::Timestamp;
use reqwest::header;
use serde::Serialize;

use crate::context::Ctx;
use crate::error::{PipeClosed, Problem};
use crate::table::{Cell, Table, printable};

/// Files of a page; the most that the server gives.
const PAGE: u32 = 10_000;

/// List the files of a version
#[derive(Debug, Args)]
pub(super) struct FilesArgs {
    /// NAME, NAME:VERSION, USER:NAME:VERSION or an id
    datastore: String,

    /// A folder of it, or a file [default: the top]
    path: Option<String>,

    /// All files below it
    #[arg(short, long)]
    recursive: bool,
}

/// Lists files, folder by folder.
pub(super) fn run(args: &FilesArgs, ctx: &Ctx) -> Result<()> {
    let route = format!("{}/files", super::path(&args.datastore)?);
    let client = ctx.client()?;
    let query = FilesQuery {
        path: args.path.as_deref().map(inside).transpose()?,
        recursive: args.recursive.then_some(true),
        ..FilesQuery::default()
    };
    ctx.block_on(async {
        let (mut pages, mut list) = (Pages::new(&client, route, query), List::begin("files"));
        while let Some(files) = pages.next().await? {
            if ctx.printer.is_json() {
                list.add(ctx, &files)?;
            } else if files.is_empty() {
                ctx.printer.line("No files.")?;
            } else {
                // A table for each page: nobody holds a list of millions.
                ctx.printer.table(&table(&files))?;
            }
        }
        match ctx.printer.is_json() {
            true => list.end(ctx),
            false => Ok(()),
        }
    })?
}

/// A path in a version, as people and shells write it: `./train`, `/train/`.
pub(super) fn inside(path: &str) -> Result<String, Problem> {
    let parts = path.split('/').filter(|part| !matches!(*part, "" | "."));
    let parts: Vec<&str> = parts.collect();
    if parts.contains(&"..") {
        return Err(Problem::usage(format!(
            "'{path}' climbs: nothing in a version is called '..'"
        ))
        .hint("write the path from the top of the version"));
    }
    Ok(parts.join("/"))
}

fn table(files: &[FileEntry]) -> Table {
    let mut table = Table::new(["Path", "Size", "Files", "Modified At"]);
    for file in files {
        table.row([
            Cell::text(shown(file)),
            Cell::text(format_size(file.size_bytes)),
            Cell::maybe(file.files.map(|files| files.to_string())),
            Cell::maybe_time(modified(file).as_deref()),
        ]);
    }
    table
}

/// The files that a query means, a page at a time.
pub(super) struct Pages<'a> {
    client: &'a Client,
    route: String,
    /// Nothing, when all came.
    query: Option<FilesQuery>,
}

impl<'a> Pages<'a> {
    pub(super) fn new(client: &'a Client, route: String, query: FilesQuery) -> Self {
        let query = FilesQuery {
            limit: Some(PAGE),
            ..query
        };
        Self {
            client,
            route,
            query: Some(query),
        }
    }

    pub(super) async fn next(&mut self) -> Result<Option<Vec<FileEntry>>> {
        let Some(query) = &mut self.query else {
            return Ok(None);
        };
        let page: FilesResponse = self.client.get(&self.route, query).await?;
        match page.next {
            Some(next) => query.after = Some(next),
            None => self.query = None,
        }
        Ok(Some(page.files))
    }
}

/// A JSON object with one list, which is printed as it comes.
pub(super) struct List {
    /// What stands before the list, also when it is empty.
    head: String,
    lines: u64,
}

impl List {
    pub(super) fn begin(name: &str) -> Self {
        Self {
            head: format!("{{\n  \"{name}\": ["),
            lines: 0,
        }
    }

    /// The same, behind another field.
    pub(super) fn behind<T: Serialize>(field: &str, value: &T, name: &str) -> Result<Self> {
        let value = serde_json::to_string(value).context("writing JSON")?;
        Ok(Self {
            head: format!("{{\n  \"{field}\": {value},\n  \"{name}\": ["),
            lines: 0,
        })
    }

    pub(super) fn add<T: Serialize>(&mut self, ctx: &Ctx, items: &[T]) -> Result<()> {
        for item in items {
            let before = match self.lines {
                0 => format!("{}\n    ", self.head),
                _ => ",\n    ".to_owned(),
            };
            self.lines += 1;
            let text = serde_json::to_string(item).context("writing JSON")?;
            ctx.printer.text(&format!("{before}{text}"))?;
        }
        Ok(())
    }

    pub(super) fn end(self, ctx: &Ctx) -> Result<()> {
        match self.lines {
            0 => ctx.printer.line(&format!("{}]\n}}", self.head)),
            _ => ctx.printer.line("\n  ]\n}"),
        }
    }
}

fn shown(file: &FileEntry) -> String {
    match file.kind {
        FileKind::Folder => format!("{}/", file.path),
        FileKind::Link => format!("{} -> {}", file.path, file.content),
        FileKind::File | FileKind::Elsewhere => file.path.clone(),
    }
}

fn modified(file: &FileEntry) -> Option<String> {
    // Of a folder with something in it, which has no line of its own, nobody noted a time.
    let is_known = file.kind != FileKind::Folder || file.files.is_none();
    is_known.then(|| Timestamp::from_millis(file.modified_ms).to_string())
}

/// Compare two versions
#[derive(Debug, Args)]
pub(super) struct DiffArgs {
    /// The first: NAME:VERSION, USER:NAME:VERSION or an id
    before: String,

    /// The second
    after: String,
}

/// Says what is different.
pub(super) fn diff(args: &DiffArgs, ctx: &Ctx) -> Result<()> {
    let route = format!("{}/diff", super::path(&args.before)?);
    super::path(&args.after)?;
    let client = ctx.client()?;
    let mut query = DiffQuery {
        with: args.after.clone(),
        after: None,
        limit: Some(PAGE),
    };
    ctx.block_on(async {
        let (mut count, mut list) = (Count::default(), List::begin("changes"));
        loop {
            let page: DiffResponse = client.get(&route, &query).await?;
            match ctx.printer.is_json() {
                true => list.add(ctx, &page.changes)?,
                false => count.tell(ctx, &page.changes)?,
            }
            match page.next {
                Some(next) => query.after = Some(next),
                None => break,
            }
        }
        match ctx.printer.is_json() {
            true => list.end(ctx),
            false => count.end(ctx),
        }
    })?
}

/// Changes that were told.
#[derive(Default)]
struct Count {
    added: u64,
    removed: u64,
    changed: u64,
}

impl Count {
    fn tell(&mut self, ctx: &Ctx, changes: &[FileChange]) -> Result<()> {
        for change in changes {
            let (mark, count) = match (&change.before, &change.after) {
                (None, _) => ('+', &mut self.added),
                (_, None) => ('-', &mut self.removed),
                _ => ('~', &mut self.changed),
            };
            *count += 1;
            // A name may have anything in it, also what a terminal obeys.
            let line = format!("{mark} {}", words(change));
            ctx.printer.line(&printable(&line))?;
        }
        Ok(())
    }

    fn end(&self, ctx: &Ctx) -> Result<()> {
        let Self {
            added,
            removed,
            changed,
        } = self;
        ctx.printer.line(&format!(
            "{added} added, {removed} removed, {changed} changed"
        ))
    }
}

fn words(change: &FileChange) -> String {
    let size = |entry: &FileEntry| format_size(entry.size_bytes);
    match (&change.before, &change.after) {
        (Some(before), Some(after)) if before.size_bytes == after.size_bytes => {
            format!("{} ({})", shown(after), size(after))
        }
        (Some(before), Some(after)) => {
            format!("{} ({} -> {})", shown(after), size(before), size(after))
        }
        (Some(one), None) | (None, Some(one)) => format!("{} ({})", shown(one), size(one)),
        (None, None) => change.path.clone(),
    }
}

/// Print the bytes of a file
#[derive(Debug, Args)]
pub(super) struct CatArgs {
    /// NAME, NAME:VERSION, USER:NAME:VERSION or an id
    datastore: String,

    /// Path of the file
    path: String,
}

/// Prints a file as it is.
pub(super) fn cat(args: &CatArgs, ctx: &Ctx) -> Result<()> {
    let path = inside(&args.path)?;
    if path.is_empty() {
        return Err(Problem::usage("which file is meant?")
            .hint(format!(
                "`grid datastore files {}` lists them",
                args.datastore
            ))
            .into());
    }
    let route = super::path(&args.datastore)?;
    let route = format!("{route}/files/{}", segments(&path));
    let client = ctx.client()?;
    ctx.printer.flush()?;
    ctx.block_on(async {
        let mut out = std::io::stdout().lock();
        let (mut offset, mut tag) = (0, None);
        // Whoever breaks off is asked for the rest, and then says why where that is known.
        loop {
            let answer = client.download(&route, offset).await?;
            let now = answer.headers().get(header::ETAG).cloned();
            if offset > 0 && now != tag {
                return Err(Problem::new(format!(
                    "{} has another file '{path}' since the connection broke",
                    args.datastore
                ))
                .hint("name the version: NAME:VERSION")
                .into());
            }
            tag = now;
            let mut body = answer.bytes_stream();
            let before = offset;
            let broke = loop {
                match body.next().await {
                    None => break None,
                    Some(Err(error)) => break Some(error),
                    Some(Ok(piece)) => {
                        offset += piece.len() as u64;
                        checked(out.write_all(&piece))?;
                    }
                }
            };
            match broke {
                None => break,
                Some(_) if offset > before => {}
                Some(error) => return Err(error).context("the connection broke"),
            }
        }
        checked(out.flush())
    })?
}

fn checked(written: std::io::Result<()>) -> Result<()> {
    match written {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Err(PipeClosed.into()),
        written => written.context("writing to standard output"),
    }
}
