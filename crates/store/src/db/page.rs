//! Lists in pages: each page says where the next one begins.

use std::fmt;

use grid_core::id::UserId;
use grid_core::time::Timestamp;

/// Most rows of one page, whatever was asked for.  More: one caller holds the memory and
/// the connection of many.  Fewer: those who read everything (the engine, the doctor) ask
/// more often.
pub const PAGE_ROWS_MAX: u32 = 10_000;

/// A part of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T, C> {
    /// The rows, at most as many as were asked for (and at most [`PAGE_ROWS_MAX`]).
    pub items: Vec<T>,
    /// Where the next page begins: pass it as `after`.  `None` when the list is over.
    pub next: Option<C>,
}

impl<T, C> Page<T, C> {
    /// Cuts a page out of rows of which one more than `limit` was asked for.
    pub(super) fn cut(mut items: Vec<T>, limit: u32, position: impl Fn(&T) -> C) -> Self {
        let limit = rows(limit);
        let more = items.len() > limit;
        items.truncate(limit);
        let next = if more {
            items.last().map(position)
        } else {
            None
        };
        Self { items, next }
    }
}

fn rows(limit: u32) -> usize {
    limit.clamp(1, PAGE_ROWS_MAX) as usize
}

/// How many rows to ask for, to know whether there are more than `limit`.
pub(super) fn one_more(limit: u32) -> i64 {
    i64::from(limit.clamp(1, PAGE_ROWS_MAX)) + 1
}

/// A place in a list that begins with the newest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position<I> {
    /// When the thing there was made.
    pub at: Timestamp,
    /// Its id, which decides among those of the same millisecond.
    pub id: I,
}

/// The values that stand for a place in a statement: `(created_at, id) < ($1, $2)`.
/// No place is before everything.
pub(super) fn before<I: fmt::Display>(after: Option<&Position<I>>) -> (i64, String) {
    after.map_or((i64::MAX, String::new()), |p| {
        (p.at.as_millis(), p.id.to_string())
    })
}

/// What is compared with an id that must be greater.  Nothing is less than every id.
pub(super) fn greater<I: fmt::Display>(after: Option<&I>) -> String {
    after.map_or_else(String::new, I::to_string)
}

/// Whether a list shows what is in the trash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Trash {
    /// What is not in it.
    #[default]
    Without,
    /// Only what is in it.
    Only,
    /// Both.
    With,
}

impl Trash {
    /// The condition on a column that is null for what is not in the trash.
    pub(super) fn condition(self, column: &str) -> String {
        match self {
            Self::Without => format!("{column} is null"),
            Self::Only => format!("{column} is not null"),
            Self::With => "1 = 1".to_owned(),
        }
    }
}

/// That something is in the trash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deletion {
    /// Since when.
    pub at: Timestamp,
    /// Who put it there.
    pub by: UserId,
}
