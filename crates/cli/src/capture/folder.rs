//! A folder as it is, without what its ignore files name.

use std::path::Path;

use anyhow::{Context as _, Result};
use ignore::WalkBuilder;
use ignore::gitignore::GitignoreBuilder;

use super::{List, not_utf8};
use crate::error::Problem;

/// The file that, at the top, replaces all other ignore files.
const GRIDIGNORE: &str = ".gridignore";

/// What is in the folder `root`.
pub(super) fn list(root: &Path) -> Result<List> {
    let mut walk = WalkBuilder::new(root);
    walk.standard_filters(false).follow_links(false);
    let gridignore = root.join(GRIDIGNORE);
    let own = if gridignore.is_file() {
        let mut builder = GitignoreBuilder::new(root);
        if let Some(error) = builder.add(&gridignore) {
            return Err(
                Problem::usage(format!("cannot read {}", gridignore.display()))
                    .because(error)
                    .into(),
            );
        }
        Some(builder.build().context("reading .gridignore")?)
    } else {
        walk.add_custom_ignore_filename(".gitignore")
            .add_custom_ignore_filename(".dockerignore");
        None
    };
    walk.filter_entry(move |entry| {
        let is_folder = entry.file_type().is_some_and(|kind| kind.is_dir());
        let is_git = entry.file_name() == ".git";
        !is_git
            && !own
                .as_ref()
                .is_some_and(|own| own.matched(entry.path(), is_folder).is_ignore())
    });

    let (mut list, mut bad) = (List::default(), Vec::new());
    for entry in walk.build() {
        let entry = entry.map_err(|error| {
            Problem::new("a part of the folder cannot be read")
                .because(error)
                .hint("change its permissions, or name it in .gridignore")
        })?;
        let relative = entry.path().strip_prefix(root).unwrap_or(entry.path());
        match relative.to_str() {
            Some("") => {}
            Some(path) => list.paths.push(path.to_owned()),
            None => bad.push(relative.to_string_lossy().into_owned()),
        }
    }
    if bad.is_empty() {
        Ok(list)
    } else {
        Err(not_utf8(bad).into())
    }
}
