//! What is wrong with a sweep: which argument, what, and what to do instead.

use std::fmt;

/// A sweep that cannot be made.
///
/// The three parts are kept apart, so that a command line can print the hint
/// on a line of its own and an API can put each into a field of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SweepError {
    argument: Option<String>,
    message: String,
    hint: Option<String>,
}

impl SweepError {
    /// The argument as the user wrote it (`--lr`, `argument 2`); none when the
    /// sweep as a whole is refused.
    pub fn argument(&self) -> Option<&str> {
        self.argument.as_deref()
    }

    /// What is wrong, and where in the value.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What to write instead, where there is something to say.
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    pub(super) fn whole(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            argument: None,
            message: message.into(),
            hint: Some(hint.into()),
        }
    }

    pub(super) fn of(argument: &str, problem: Problem) -> Self {
        let message = match problem.position {
            Some(position) => format!("{}, at character {position}", problem.message),
            None => problem.message,
        };
        Self {
            argument: Some(argument.to_owned()),
            message,
            hint: problem.hint,
        }
    }
}

impl fmt::Display for SweepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(argument) = &self.argument {
            write!(f, "{argument}: ")?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for SweepError {}

/// What is wrong with one value, before it is known whose value it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    /// Counted in characters from 1.
    pub(super) position: Option<usize>,
    pub(super) message: String,
    pub(super) hint: Option<String>,
}

impl Problem {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self {
            position: None,
            message: message.into(),
            hint: None,
        }
    }

    #[must_use]
    pub(super) fn at(mut self, position: usize) -> Self {
        self.position = Some(position);
        self
    }

    #[must_use]
    pub(super) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}
