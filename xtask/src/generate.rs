//! `cargo xtask gen [--check]`: pages that a program prints are committed, and checked.
//!
//! A generated page that is committed can be read without building anything and shows in
//! review what a change does to the outside. To add one, add a line to `PAGES`.

use std::path::Path;

use anyhow::{Context, Result};

use crate::args::Args;
use crate::process::{command as program, must, output_of};
use crate::{build, paths, ui};

/// A committed file, and what `grid` prints it with.
struct Page {
    path: &'static str,
    args: &'static [&'static str],
}

const PAGES: &[Page] = &[
    Page {
        path: "docs/reference/cli.md",
        args: &["help-markdown"],
    },
    Page {
        path: "docs/reference/openapi.json",
        args: &["server", "openapi"],
    },
    Page {
        path: "docs/reference/states.md",
        args: &["server", "states"],
    },
    Page {
        path: "docs/reference/access.md",
        args: &["server", "access-table"],
    },
];

/// Writes every page, or with `--check` compares them.
pub(crate) fn command(mut args: Args<'_>) -> Result<bool> {
    let only_compare = args.flag("--check");
    args.end()?;
    must(&mut build::everything())?;
    if only_compare {
        return check();
    }
    for page in PAGES {
        let path = paths::root().join(page.path);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)
                .with_context(|| format!("making {}", folder.display()))?;
        }
        std::fs::write(&path, printed(page)?).with_context(|| format!("writing {}", page.path))?;
        ui::say(&format!("wrote {}", page.path));
    }
    Ok(true)
}

/// Compares every page with what the built program prints now.
pub(crate) fn check() -> Result<bool> {
    let mut fresh = true;
    for page in PAGES {
        let committed = std::fs::read_to_string(paths::root().join(page.path)).unwrap_or_default();
        if let Some(hint) = difference(page.path, &committed, &printed(page)?) {
            ui::warn(&hint);
            fresh = false;
        }
    }
    ui::say(&format!("{} generated pages compared", PAGES.len()));
    Ok(fresh)
}

fn printed(page: &Page) -> Result<String> {
    let nowhere = Path::new("/nonexistent");
    let mut grid = program(build::grid());
    // What the page says must not depend on who prints it.
    grid.args(page.args)
        .env("HOME", nowhere)
        .env("COLUMNS", "100")
        .env("NO_COLOR", "1");
    let mut text = output_of(&mut grid)?;
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(text)
}

/// The first line that differs, and what to do about it.
fn difference(path: &str, committed: &str, printed: &str) -> Option<String> {
    if committed == printed {
        return None;
    }
    let mut lines = 1;
    let (mut old, mut new) = (committed.lines(), printed.lines());
    let (was, is) = loop {
        match (old.next(), new.next()) {
            (Some(was), Some(is)) if was == is => lines += 1,
            (was, is) => {
                break (
                    was.unwrap_or("(end of file)"),
                    is.unwrap_or("(end of file)"),
                );
            }
        }
    };
    Some(format!(
        "{path}:{lines}: is out of date; run `cargo xtask gen` and commit it\n  - {was}\n  + {is}"
    ))
}

#[cfg(test)]
mod tests {
    use super::difference;

    #[test]
    fn the_same_text_is_fresh() {
        assert_eq!(difference("a.md", "one\n", "one\n"), None);
    }

    #[test]
    fn a_stale_page_names_the_line_and_the_remedy() {
        let hint = difference("a.md", "one\ntwo\n", "one\nthree\n").unwrap_or_default();
        assert!(
            hint.starts_with("a.md:2:")
                && hint.contains("cargo xtask gen")
                && hint.contains("+ three")
        );
        let hint = difference("a.md", "", "new\n").unwrap_or_default();
        assert!(hint.contains("(end of file)"));
    }
}
