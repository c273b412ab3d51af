//! What a value stands for: one text, or many.

use std::fmt;

use super::distribution::{Distribution, Number};
use super::error::Problem;
use super::random::Random;

/// Values one argument may stand for.  Higher: a mistyped number makes the
/// server build millions of texts.  Lower than what a run may have, it would
/// refuse sweeps that are allowed.
pub const ARGUMENT_VALUES_MAX: u64 = 100_000;

/// What a value stands for.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Expression {
    Scalar(String),
    List(Vec<String>),
    Range(Range),
    Choice {
        from: Choices,
        count: u64,
    },
    Sample {
        distribution: &'static Distribution,
        parameters: Vec<Number>,
        count: u64,
    },
}

/// As in Python: `stop` is not reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) start: i64,
    pub(super) stop: i64,
    /// Never 0.
    pub(super) step: i64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Choices {
    List(Vec<String>),
    Range(Range),
}

/// Two rows are the same when they have the same name.
impl PartialEq for Distribution {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Expression {
    /// How many values.
    pub(super) fn len(&self) -> u64 {
        match self {
            Self::Scalar(_) => 1,
            Self::List(items) => items.len() as u64,
            Self::Range(range) => range.len(),
            Self::Choice { count, .. } | Self::Sample { count, .. } => *count,
        }
    }

    pub(super) fn is_scalar(&self) -> bool {
        matches!(self, Self::Scalar(_))
    }

    /// Whether it takes numbers from a stream of its own.
    pub(super) fn is_random(&self) -> bool {
        matches!(self, Self::Choice { .. } | Self::Sample { .. })
    }

    /// The values, in order.  The caller has checked [`Expression::len`].
    pub(super) fn values(self, random: &mut Random) -> Result<Vec<String>, Problem> {
        match self {
            Self::Scalar(text) => Ok(vec![text]),
            Self::List(items) => Ok(items),
            Self::Range(range) => Ok((0..range.len())
                .map(|index| range.at(index).to_string())
                .collect()),
            Self::Choice { from, count } => Ok((0..count)
                .map(|_| from.at(random.below(from.len())))
                .collect()),
            Self::Sample {
                distribution,
                parameters,
                count,
            } => distribution.sample(&parameters, count, random),
        }
    }
}

impl Range {
    pub(super) fn len(self) -> u64 {
        let (start, stop, step) = (
            i128::from(self.start),
            i128::from(self.stop),
            i128::from(self.step),
        );
        let (distance, step) = if step > 0 {
            (stop - start, step)
        } else {
            (start - stop, -step)
        };
        if distance <= 0 {
            return 0;
        }
        u64::try_from((distance + step - 1) / step).unwrap_or(u64::MAX)
    }

    fn at(self, index: u64) -> i128 {
        i128::from(self.start) + i128::from(self.step) * i128::from(index)
    }
}

impl Choices {
    pub(super) fn len(&self) -> u64 {
        match self {
            Self::List(items) => items.len() as u64,
            Self::Range(range) => range.len(),
        }
    }

    fn at(&self, index: u64) -> String {
        match self {
            Self::List(items) => items.get(index as usize).cloned().unwrap_or_default(),
            Self::Range(range) => range.at(index).to_string(),
        }
    }
}

/// How to write `text` so that it reaches the script as it is.
pub(super) fn literal(text: &str) -> String {
    match Expression::parse(text) {
        Ok(Expression::Scalar(same)) if same == text => same,
        _ => quoted(text),
    }
}

/// The text that reads back as this expression.
impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scalar(text) => f.write_str(&literal(text)),
            Self::List(items) => write_list(f, items),
            Self::Range(range) => range.fmt(f),
            Self::Choice { from, count } => {
                f.write_str("choice(")?;
                match from {
                    Choices::List(items) => write_list(f, items)?,
                    Choices::Range(range) => range.fmt(f)?,
                }
                write!(f, ", {count})")
            }
            Self::Sample {
                distribution,
                parameters,
                count,
            } => {
                write!(f, "{}(", distribution.name)?;
                for parameter in parameters {
                    write!(f, "{parameter}, ")?;
                }
                write!(f, "{count})")
            }
        }
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "range({}, {}, {})", self.start, self.stop, self.step)
    }
}

fn write_list(f: &mut fmt::Formatter<'_>, items: &[String]) -> fmt::Result {
    f.write_str("[")?;
    for (index, item) in items.iter().enumerate() {
        let comma = if index > 0 { ", " } else { "" };
        let plain = !item.is_empty()
            && item
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "+-._/:=".contains(c));
        let text = if plain { item.clone() } else { quoted(item) };
        write!(f, "{comma}{text}")?;
    }
    f.write_str("]")
}

/// `text` as a string of the language.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('\'');
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\'' => out.push_str("\\'"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            other => out.push(other),
        }
    }
    out.push('\'');
    out
}

/// Enough of a text to recognise it.
pub(super) fn shortened(text: &str) -> String {
    const SHOWN_MAX: usize = 40;
    if text.chars().count() <= SHOWN_MAX {
        return text.to_owned();
    }
    text.chars().take(SHOWN_MAX).chain(['…']).collect()
}
